"""One, four and sixteen cabinets, each on its lines: one is lost at full power, the others take over with one write."""

import tomllib
from functools import cache
from importlib.resources import files

import numpy as np
import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import load_site, parse_site
from tidegate.ext.abi.program import describe
from tidegate.hal.sim.virtual import VirtualPlant

SITE = files("tidegate.config").joinpath("demo/site.toml")
PEAK_W, UNIT_W = 100e3, 30e3
LOST_W = 12.5e3  # half of what a unit gives: a fall by more in one cycle is a unit that is lost
MODE_ARMING = 1
LINES, BUSES = 7, 4  # one line more is the grid meter's

HEAD = """
schema = 1
[site]
name = "many"
[[serial]]
name = "grid"
device = "sim"
baud = 115200
[[device]]
name = "meter"
map = "eastron-sdm630"
bus = "grid"
unit_id = 1
role = "grid-meter"
latency_ms = 1
[limits]
connection_import_w_max = 1000000
[control]
peak_w_max = 100000
recharge_rate_w = 0
[simulation]
soc_start = 0.8
cells = 100
"""

# The gate's own ramp would spread the step over 50 ms; these cabinets take it at once.
CABINET = """
[[device]]
name = "c{n}"
map = "kaco-gridsave"
options = {{ rated_w = 30000 }}
bus = "pcs{line}"
unit_id = {unit_id}
role = "pcs"
latency_ms = 1
[[device]]
name = "b{n}"
map = "orion-bms2"
bus = "bms{bus}"
can_id_offset = {offset}
role = "bms"
[[storage]]
name = "u{n}"
bms = "b{n}"
pcs = "c{n}"
energy_wh = 60000
charge_w_max = 30000
discharge_w_max = 30000
ramp_go_w_per_s = 6e7
ramp_stop_w_per_s = 3e8
"""


def site_text(units):
    """Site file of so many cabinets."""
    lines, buses = min(units, LINES), min(units, BUSES)
    text = HEAD + "".join(f'[[serial]]\nname = "pcs{n}"\ndevice = "sim"\nbaud = 115200\n' for n in range(lines))
    text += "".join(f'[[can]]\nname = "bms{n}"\ninterface = "sim"\n' for n in range(buses))
    text += "".join(
        CABINET.format(n=n, line=n % lines, unit_id=n + 1, bus=n % buses, offset=0x20 * (n // buses))
        for n in range(units)
    )
    # The map cannot read the converter's watchdog: without its time measured here, no cabinet of it arms.
    return text + "[commissioning.pcs_revert_ms]\n" + "".join(f"c{n} = 3000\n" for n in range(units))


@cache
def program(units):
    text = site_text(units)
    site, problems = parse_site(tomllib.loads(text), text)
    assert site is not None and not problems, problems
    site._folder = load_site(str(SITE)).folder
    return compile_site(site)


@pytest.mark.parametrize("fault", ["battery.alarm", "pcs.tripped"])
@pytest.mark.parametrize("units", [1, 4, 16])
def test_a_unit_that_is_lost_at_full_power_is_replaced_in_the_next_cycle_and_with_one_write(units, fault):
    """The rest could just carry it: 25 kW each for those that remain, 30 kW at most."""
    need_w = 25e3 * max(units - 1, 1)
    load = np.array([0.0, 6.0]), np.array([80e3, PEAK_W + need_w])
    target = {"battery.alarm": "b0", "pcs.tripped": "c0"}[fault]
    faults = [{"kind": fault, "target": target, "value": 0.0, "on_s": 10.0, "off_s": 30.0}]
    overrides = {"trace_phase_s": 0.0, "faults": faults}
    bound_s = max(row["zero_us"] for row in describe(program(units))["plan"]) * 1e-6
    with VirtualPlant(program(units), load, seed=3, series_every=1, overrides=overrides) as world:
        world.run(9.9)
        before_w = [row["wire_set_w"] for row in world.world.converters()]
        assert sum(before_w) == pytest.approx(need_w, rel=0.01) and max(before_w) - min(before_w) < 0.02 * UNIT_W
        low_s = None
        while low_s is None and world.world.t_s < 11.5:
            world.run(0.001)
            was_w, now_w = world.series()["setpoint_w"][-2:]
            low_s = world.world.t_s if now_w < was_w - LOST_W else None
        assert low_s is not None, "the gate has not noticed"
        world.run(bound_s + 0.001)
        wire_w = [row["wire_set_w"] for row in world.world.converters()]
        world.run(1.0)
        at_s = world.series()["t_s"]
        setpoint_w = world.series()["setpoint_w"][at_s > 9.9]
        assert wire_w[0] == 0.0
        if units == 1:
            assert max(setpoint_w[-500:]) == 0.0
            records = [row["points"]["site.shortfall_w"][0] for row in world.meter_records()]
            assert records[-1] == pytest.approx(need_w, rel=0.02), "and the shortfall is told"
        else:
            # The meter shows what is missing before the converter says why, so for a moment it may be more than before.
            assert np.count_nonzero(setpoint_w < 0.99 * sum(before_w)) <= 1, "one cycle"
            assert sum(wire_w) >= 0.99 * sum(before_w), f"on the wire after {bound_s * 1e3:.1f} ms"
        assert max(wire_w) <= UNIT_W
        assert not any(world.checks[name] for name in ("outside_envelope", "outside_nameplate", "setpoint_to_tripped"))


def test_units_that_arm_at_once_share_what_the_site_leaves():
    """Four pulses of 3 kW before a load of 8 kW and no export: each within what there is, together 4 kW flowed out."""
    text = site_text(4).replace("[limits]\n", "[limits]\nconnection_export_w_max = 0\n")
    site, problems = parse_site(tomllib.loads(text), text)
    assert site is not None and not problems, problems
    site._folder = load_site(str(SITE)).folder
    with VirtualPlant(compile_site(site), (np.array([0.0]), np.array([8e3])), seed=1) as plant:
        plant.run(10.0)
        rows = plant.series()
    arming = rows["mode"] == 1
    assert np.abs(rows["ess_w"][arming]).max() > 1e3
    assert rows["grid_w"][arming].min() > 0.0, rows["grid_w"][arming].min()
    assert rows["mode"][-1] > 1


def test_units_that_arm_at_once_pulse_as_one():
    """One is back four seconds later, behind a meter of three seconds: all give the same edges from then on."""
    fault = {"kind": "pcs.tripped", "target": "c1", "value": 0.0, "on_s": 0.0, "off_s": 4.0}
    overrides = {"trace_phase_s": 0.0, "meter_update_ms": 3000.0, "faults": [fault]}
    load = np.array([0.0, 20.0]), np.array([60e3, 61e3])
    with VirtualPlant(program(4), load, seed=3, overrides=overrides) as world:
        states, given_w = [], []
        names = [row["name"] for row in describe(program(4))["points"]]
        at = [names.index(f"unit{unit}.{what}") for what in ("state", "setpoint_w") for unit in range(4)]
        for _ in range(400):
            world.run(0.05)
            values = world.picture().values
            states.append([int(values[i]) for i in at[:4]])
            given_w.append([values[i] for i in at[4:]])
    pulses = [row for state, row in zip(states, given_w, strict=True) if state == [MODE_ARMING] * 4]
    late = [row for row in pulses[len(pulses) // 2 :] if max(row) > 600.0]  # a step test is one of 600 W
    assert len(late) > 20, "they pulse"
    assert all(max(row) - min(row) < 0.01 * UNIT_W for row in late), late
