"""Direction and magnitude in registers of their own: the device never holds one of them with the wrong other."""

import copy
import tomllib
from importlib.resources import files

import numpy as np
import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import parse_site
from tidegate.hal.sim.virtual import VirtualPlant

SITE = tomllib.loads(files("tidegate.config").joinpath("sites/simulated.toml").read_text(encoding="utf-8"))
SITE["commissioning"] = {"pcs_revert_ms": 3000}  # the map below cannot read the converter's watchdog
SETPOINT_W = 1  # of ORDER_NAMES
MAP = """
schema = 1
point = [
    { name = "power_w", address = 10, type = "s32", unit = "W", positive = "discharge", poll = "fast" },
    { name = "state", address = 20, unit = "enum", poll = "fast" },
]
[map]
name = "turning"
protocol = "modbus"
kind = "pcs"
title = "t"
source = "s"
[modbus]
readable = [[10, 20]]
"""
TURN = """
[[command]]
name = "direction"
kind = "setpoint_w"
of = "direction"
address = 100
charge = 1
discharge = 2
%s
"""
MAGNITUDE = """
[[command]]
name = "power"
kind = "setpoint_w"
of = "magnitude"
address = 110
type = "u32"
resend_ms = 500
"""


@pytest.mark.parametrize("zero", ["zero = 0\nresend_ms = 500", "resend_ms = 500", ""])
@pytest.mark.parametrize("turn_first", [True, False])
def test_a_change_of_side_never_shows_the_old_power_on_the_new_side(tmp_path, zero, turn_first):
    rows = [TURN % zero, MAGNITUDE]
    (tmp_path / "turning.toml").write_text(MAP + "".join(rows if turn_first else rows[::-1]), encoding="utf-8")
    raw = copy.deepcopy(SITE)
    raw["device"][1]["map"] = str(tmp_path / "turning.toml")
    raw["site"]["period_us"] = 1000  # looked at every 2 ms below
    site, problems = parse_site(raw)
    assert problems == []
    # No load stands to the watt: values that come again are asked about, and the question holds the unit.
    t_s = np.arange(0.0, 30.0, 0.02)
    load_w = 10e3 + np.random.Generator(np.random.PCG64(1)).normal(0.0, 20.0, len(t_s))
    plant = VirtualPlant(compile_site(site), (t_s, load_w))
    try:
        plant.run(12.0)
        for wanted_w, before_w in (
            (0.0, -30000.0),
            (-15000.0, 0.0),
            (2000.0, -15000.0),
            (-1000.0, 2000.0),
            (0.0, -1000.0),
        ):
            plant.order(SETPOINT_W, wanted_w, 10.0)
            seen = []
            for _ in range(1000):
                plant.run(0.002)
                seen.append(plant.world.converters()[0]["wire_set_w"])
            low, high = min(wanted_w, before_w, 0.0), max(wanted_w, before_w, 0.0)
            assert low - 400 <= min(seen) and max(seen) <= high + 400, (wanted_w, min(seen), max(seen))
            assert seen[-1] == pytest.approx(wanted_w, abs=400)
    finally:
        plant.close()
