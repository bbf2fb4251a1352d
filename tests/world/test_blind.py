"""Without its meter the site gives nothing, or what the site file allows a blind cabinet; never any charge."""

import tomllib
from functools import cache
from importlib.resources import files

import numpy as np
import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import load_site, parse_site
from tidegate.ext.abi import shared
from tidegate.hal.sim.virtual import VirtualPlant

SITE = files("tidegate.config").joinpath("demo/site.toml")
SETPOINT = shared.ORDER_NAMES.index("setpoint_w")
DEAD_S, BACK_S, END_S = 5.0, 12.0, 20.0


@cache
def program(blind_w, base_w):
    text = SITE.read_text().replace("[control]\n", f"[control]\nblind_discharge_w_max = {blind_w}\n", 1)
    text = text.replace("[limits]\n", f"[limits]\nbase_load_w = {base_w}\n", 1)
    site, problems = parse_site(tomllib.loads(text), text)
    assert site is not None and not problems, problems
    site._folder = load_site(str(SITE)).folder
    return compile_site(site)


def played(blind_w, base_w, load_w, setpoint_w):
    """Setpoint and grid power while the grid meter is dead; the lease asks for setpoint_w all the time."""
    load = np.array([0.0]), np.array([load_w])
    faults = [{"kind": "dead", "target": "grid", "value": 0.0, "on_s": DEAD_S, "off_s": BACK_S}]
    overrides = {"soc_start": 0.6, "faults": faults}
    with VirtualPlant(program(blind_w, base_w), load, seed=5, series_every=10, overrides=overrides) as plant:
        plant.run(3.0)
        plant.order(SETPOINT, setpoint_w, END_S)
        series = plant.run(END_S - 3.0).series()
        return series["t_s"], series["setpoint_w"], series["grid_w"]


@pytest.mark.parametrize("setpoint_w", [9000.0, -9000.0])
def test_without_its_meter_a_site_rests_unless_its_file_says_otherwise(setpoint_w):
    t_s, given_w, _ = played(0, 4000, 30e3, setpoint_w)
    before = (t_s > 4.5) & (t_s < DEAD_S)
    blind = (t_s > DEAD_S + 1.0) & (t_s < BACK_S)
    assert np.all(np.abs(given_w[before] - setpoint_w) < 1.0)
    assert np.all(given_w[blind] == 0.0)
    assert abs(given_w[-1] - setpoint_w) < 1.0, "with the meter back it goes on"


def test_a_blind_discharge_stays_below_its_limit_and_exports_nothing_at_the_base_load():
    t_s, given_w, grid_w = played(3000, 4000, 4000.0, 9000.0)
    blind = (t_s > DEAD_S + 1.0) & (t_s < BACK_S)
    assert np.all(given_w[blind] <= 3000.0) and np.all(given_w[blind] >= 0.0)
    assert np.all(grid_w[blind] >= 0.0), "exports"


def test_a_blind_site_never_charges():
    t_s, given_w, _ = played(3000, 4000, 30e3, -9000.0)
    assert np.all(given_w[(t_s > DEAD_S + 1.0) & (t_s < BACK_S)] == 0.0)
