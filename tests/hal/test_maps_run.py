"""Each shipped map runs a cabinet in the simulated plant, through the compiled core: from the wire to an armed gate."""

import copy
import tomllib
from importlib.resources import files

import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import parse_site
from tidegate.ext.abi import program
from tidegate.hal import maps
from tidegate.hal.sim.virtual import VirtualPlant

BASE = tomllib.loads(files("tidegate.config").joinpath("sites/simulated.toml").read_text(encoding="utf-8"))
PLACES = {"meter": 0, "pcs": 1, "bms": 2}
READ_ONLY = {"sungrow-sh": "has no setpoint register"}
SECONDS = {"byd-hvs": 75.0}  # its alarms come once a minute
LOW_VOLTAGE = ("bms-35x", "pylontech-lv")
MODE_RUN = 3


def site_with(name):
    """The simulated site with this map in the place of its kind."""
    raw = copy.deepcopy(BASE)
    found = maps.load_map(name)
    device = raw["device"][PLACES[found.map.kind]]
    device["map"] = name
    device["options"] = {
        key: max(number.range[0], min(30000 if number.unit == "W" else 100, number.range[1]))
        for key, number in found.number.items()
        if number.default is None
    }
    if found.map.kind == "bms":
        raw["can"][0]["bitrate"] = found.can.bitrate
        raw["simulation"]["cells"] = 16 if name in LOW_VOLTAGE else 240
    if name == "acrel-adl3000":
        device["options"]["ct_ratio"] = 10  # a word of 1 W steps holds 32 kW at most
    site, problems = parse_site(raw)
    assert problems == []
    return site


@pytest.mark.parametrize("name", [n for n in maps.map_names() if n not in READ_ONLY])
def test_a_site_with_this_map_arms_and_sees_what_the_plant_does(name):
    blob = compile_site(site_with(name))
    plant = VirtualPlant(blob)
    try:
        plant.run(SECONDS.get(name, 8.0))
        events, points = list(plant.events), list(plant.meter_records())[-1]["points"]
    finally:
        plant.close()
    names = {row["row"]: row["id"] for row in program.describe(blob)["faults"]}
    active = set()
    for event in events:
        if event["event"] == "fault_on":
            active.add(names[event["code"]])
        elif event["event"] == "fault_off":
            active.discard(names[event["code"]])
    modes = [event["code"] for event in events if event["event"] == "mode"]
    assert active == set() and modes[-1] == MODE_RUN
    grid, load, ess = (points[f"site.{key}"][0] for key in ("grid_w", "load_w", "ess_w"))
    assert grid + ess == pytest.approx(35000.0, abs=250.0) and load == pytest.approx(35000.0, abs=250.0)
    assert points["bms1.soc"][0] == pytest.approx(0.6, abs=0.011)


@pytest.mark.parametrize("name", READ_ONLY)
def test_a_map_that_cannot_be_commanded_is_no_converter_of_a_storage(name):
    from tidegate.config.site import SiteError

    with pytest.raises(SiteError, match=READ_ONLY[name]):
        compile_site(site_with(name))
