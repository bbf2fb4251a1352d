"""Each shipped map runs a cabinet in the simulated plant, through the compiled core: from the wire to an armed gate."""

import copy
import tomllib
from importlib.resources import files

import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import parse_site
from tidegate.config.summary import summary
from tidegate.ext.abi import program
from tidegate.hal import maps
from tidegate.hal.sim.virtual import VirtualPlant

BASE = tomllib.loads(files("tidegate.config").joinpath("sites/simulated.toml").read_text(encoding="utf-8"))
PLACES = {"meter": 0, "pcs": 1, "bms": 2}
READ_ONLY = {
    name: "has no setpoint register"
    for name in maps.map_names()
    if maps.shipped(name).map.kind == "pcs" and not any(c.kind == "setpoint_w" for c in maps.shipped(name).command)
}
CONTROLLED = [n for n in maps.map_names() if maps.shipped(n).map.kind == "pcs" and n not in READ_ONLY]
ORDER = {name: number for number, name in enumerate(("mode", "setpoint_w"))}
RUN, STOP = 1, 2  # of the order `mode`
REFUSED = [name for name in maps.map_names() if not maps.shipped(name).map.cabinet]
SECONDS = {
    "solis-hybrid": 45.0,  # the pause between two requests makes its readings 0.8 s old: arming looks for long
    "vertiv-liebert-ppc": 30.0,  # pulses of arming grow until they are seen in steps of 1 kW
}
COARSE_W = {"vertiv-liebert-ppc": 1500.0}  # steps of 1 kW
LOW_VOLTAGE = ("bms-35x", "pylontech-lv", "pylontech-rs485", "growatt-lv-bms")
CELLS = {"solplanet-hybrid": 120, "victron-multiplus": 16}  # its voltage register ends at 655 V; at 100 V
MODE_RUN = 3
ARMED = (1, 2, MODE_RUN)  # arming, ready, run


def raw_with(name, measured=True):
    """The simulated site with this map in the place of its kind; measured: its watchdog, where the map reads none."""
    raw = copy.deepcopy(BASE)
    found = maps.load_map(name)
    if measured and found.map.kind == "pcs" and "watchdog_s" not in found.signal_names():
        raw["commissioning"] = {"pcs_revert_ms": 3000}
    device = raw["device"][PLACES[found.map.kind]]
    device["map"] = name
    device["options"] = {
        key: max(number.range[0], min(30000 if number.unit == "W" else 100, number.range[1]))
        for key, number in found.number.items()
        if number.default is None
    }
    if found.map.protocol == "pylontech":
        del raw["can"]
        raw["serial"].append({"name": "packs", "device": "sim", "baud": found.modbus.baud, "protocol": "pylontech"})
        device |= {"bus": "packs", "unit_id": 2}
    elif found.map.kind == "bms":
        raw["can"][0]["bitrate"] = found.can.bitrate
    if found.map.kind == "bms":
        raw["simulation"]["cells"] = 16 if name in LOW_VOLTAGE else 240
    # The simulated converter falls back as the map's own does: some time after the map would have repeated itself.
    again_ms = max((c.resend_ms for c in found.command), default=0.0)
    raw["simulation"]["pcs_watchdog_ms"] = max(2000.0, 3 * again_ms)
    if name in CELLS:
        raw["simulation"]["cells"] = CELLS[name]
    if name == "acrel-adl3000":
        device["options"]["ct_ratio"] = 10  # a word of 1 W steps holds 32 kW at most
    return raw


def site_with(name, measured=True):
    """The same, parsed."""
    site, problems = parse_site(raw_with(name, measured))
    assert problems == []
    return site


@pytest.mark.parametrize("name", [n for n in maps.map_names() if n not in READ_ONLY and n not in REFUSED])
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
    off_w = COARSE_W.get(name, 250.0)
    assert grid + ess == pytest.approx(35000.0, abs=off_w) and load == pytest.approx(35000.0, abs=off_w)
    assert points["bms1.soc"][0] == pytest.approx(0.6, abs=0.011)


@pytest.mark.parametrize("name", REFUSED)
def test_a_map_that_no_cabinet_may_rest_on_is_refused_with_the_reason(name):
    from tidegate.config.site import SiteError

    with pytest.raises(SiteError, match="what it guards allows"):
        compile_site(site_with(name))


@pytest.mark.parametrize("name", CONTROLLED)
def test_a_cabinet_with_this_converter_goes_from_tripped_to_run_both_ways_and_back(name):
    plant = VirtualPlant(compile_site(site_with(name)))
    wait_s = SECONDS.get(name, 8.0)

    def power():
        return list(plant.meter_records())[-1]["points"]["site.ess_w"][0]

    def modes():
        return [event["code"] for event in plant.events if event["event"] == "mode"]

    try:
        plant.run(wait_s)
        assert modes()[-1] == MODE_RUN
        reached = []
        for setpoint_w in (-4000.0, 3000.0, -2000.0, 0.0):
            plant.order(ORDER["setpoint_w"], setpoint_w, 2 * wait_s)
            plant.run(wait_s)
            # A meter that stands still beside a steady load is asked by a small step now and then.
            late = [record["points"]["site.ess_w"][0] for record in plant.meter_records()][-int(wait_s) // 2 :]
            reached.append(min(late, key=lambda w, told_w=setpoint_w: abs(w - told_w)))
        assert reached == pytest.approx([-4000.0, 3000.0, -2000.0, 0.0], abs=300.0)
        plant.order(ORDER["mode"], STOP, 60.0)
        plant.run(wait_s)
        assert power() == pytest.approx(0.0, abs=60.0) and modes()[-1] != MODE_RUN
        wrong = {what: count for what, count in plant.checks.items() if count and what != "cycles"}
        assert wrong == {}
    finally:
        plant.close()


@pytest.mark.parametrize("name", [n for n in CONTROLLED if "watchdog_s" not in maps.shipped(n).signal_names()])
def test_a_converter_whose_watchdog_nobody_read_or_measured_does_not_arm(name):
    blob = compile_site(site_with(name, measured=False))
    assert any("does not arm: the watchdog of pcs1" in line for line in summary(blob))
    assert not any("does not arm: the" in line for line in summary(compile_site(site_with(name))))
    plant = VirtualPlant(blob)
    try:
        plant.run(SECONDS.get(name, 4.0) / 2)
        row = next(row["row"] for row in program.describe(blob)["faults"] if row["id"] == "pcs_watchdog")
        assert any(event["event"] == "fault_on" and event["code"] == row for event in plant.events)
        assert all(event["code"] not in ARMED for event in plant.events if event["event"] == "mode")
        assert list(plant.meter_records())[-1]["points"]["site.ess_w"][0] == pytest.approx(0.0, abs=60.0)
    finally:
        plant.close()


@pytest.mark.parametrize("name", READ_ONLY)
def test_a_map_that_cannot_be_commanded_is_no_converter_of_a_storage(name):
    from tidegate.config.site import SiteError

    with pytest.raises(SiteError, match=READ_ONLY[name]):
        compile_site(site_with(name))
