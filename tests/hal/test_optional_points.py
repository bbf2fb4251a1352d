"""Points that a device may lack: what stands in their place, in the plain decoder, in the core and in a cabinet."""

import copy
import tomllib
from importlib.resources import files

import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import parse_site
from tidegate.ext.abi import program
from tidegate.hal import maps
from tidegate.hal.decode import decode_registers, told_by
from tidegate.hal.sim.virtual import VirtualPlant

BASE = tomllib.loads(files("tidegate.config").joinpath("sites/simulated.toml").read_text(encoding="utf-8"))
SETPOINT_ORDER = 1
MODE_RUN = 3
ARMED = (1, 2, MODE_RUN)  # arming, ready, run
NONE = 0xFFFF


def point(name):
    return next(p for p in maps.shipped("sunspec-701").point if p.name == name)


@pytest.mark.parametrize(
    ("inv_st", "st", "conn_st", "state", "ready", "fault"),
    [
        (3, 0, 0, 3.0, 1.0, 0.0),  # what a device has counts, whatever the others say
        (0, 1, 1, 0.0, 0.0, 0.0),
        (6, 1, 1, 6.0, 0.0, 1.0),
        (NONE, 1, 0, 3.0, 1.0, None),
        (NONE, 0, 1, 0.0, 0.0, None),
        (NONE, NONE, 1, 3.0, 1.0, None),
        (NONE, NONE, 0, 0.0, 0.0, None),
        (NONE, NONE, NONE, None, None, None),
    ],
)
def test_the_first_state_that_the_device_has_counts(inv_st, st, conn_st, state, ready, fault):
    words = {"InvSt": [inv_st], "St": [st], "ConnSt": [conn_st], "Alrm": [NONE, NONE]}
    for name, value in (("state", state), ("ready", ready), ("fault", fault)):
        told = told_by(point(name), lambda one: words[one.field])
        assert decode_registers(told, words[told.field]) == value, name


def cabinet(lacks, seconds=8.0):
    """(mode at the end, whether it ever armed, ids of faults that came, power reached by each setpoint)."""
    raw = copy.deepcopy(BASE)
    assert raw["device"][1]["name"] == "pcs1"
    raw["device"][1]["map"] = "sunspec-701"
    site, problems = parse_site(raw)
    assert problems == []
    blob = compile_site(site)
    names = {row["row"]: row["id"] for row in program.describe(blob)["faults"]}
    plant = VirtualPlant(blob, overrides={"lacks": [f"pcs1.{name}" for name in lacks]})
    try:
        plant.run(seconds)
        modes = [event["code"] for event in plant.events if event["event"] == "mode"]
        faults = {names[event["code"]] for event in plant.events if event["event"] == "fault_on"}
        reached = []
        for setpoint_w in (-4000.0, 3000.0):
            plant.order(SETPOINT_ORDER, setpoint_w, 2 * seconds)
            plant.run(seconds)
            late = [record["points"]["site.ess_w"][0] for record in plant.meter_records()][-4:]
            known = [w for w in late if w is not None]
            reached += [min(known, key=lambda w, told_w=setpoint_w: abs(w - told_w))] if known else []
        return modes[-1], any(mode in ARMED for mode in modes), faults, reached
    finally:
        plant.close()


@pytest.mark.parametrize("lacks", [(), ("state", "ready"), ("fault",), ("state", "ready", "heartbeat")])
def test_a_cabinet_runs_both_ways_with_a_converter_that_lacks_optional_points(lacks):
    mode, _, faults, reached = cabinet(lacks)
    assert mode == MODE_RUN and "pcs_not_ready" not in faults and "pcs_invalid" not in faults
    assert reached == pytest.approx([-4000.0, 3000.0], abs=300.0)


@pytest.mark.parametrize("lacks", [("power_w",), ("state", "ready", "fault")])
def test_a_converter_that_lacks_a_point_without_another_is_no_good_and_says_so(lacks):
    _, armed, faults, reached = cabinet(lacks, 4.0)
    assert not armed and "pcs_invalid" in faults
    assert all(abs(w) < 60.0 for w in reached)


def map_with(tmp_path, rows):
    text = f"""
schema = 1
[map]
name = "m"
protocol = "modbus"
kind = "meter"
title = "m"
source = "s"
{rows}
"""
    path = tmp_path / "m.toml"
    path.write_text(text)
    return str(path)


def test_a_map_of_ones_own_may_name_what_stands_in_the_place_of_a_register(tmp_path):
    row = '[[point]]\nname = "power_w"\naddress = 4\ntype = "s16"\nunit = "W"\npositive = "import"\n'
    found = maps.load_map(map_with(tmp_path, row + 'instead = [{ address = 8, type = "s32", scale = 0.1 }]\n'))
    (power,) = found.point
    words = {4: [0x8000], 8: [0, 1234]}
    assert decode_registers(told_by(power, lambda one: words[one.address]), words[8]) == pytest.approx(123.4)
    words[4] = [0xFFFF]  # -1 W is a value
    assert told_by(power, lambda one: words[one.address]) is power


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ('{ type = "s16" }', "address is missing"),
        ("{ address = 8, function = 4 }", "function 4"),
        ('{ address = 8, sf = "none_sf" }', "sf names"),
        ("{ address = 8, less_next = true }", "less_next"),
    ],
)
def test_a_false_instead_is_refused_by_name(tmp_path, other, said):
    row = '[[point]]\nname = "power_w"\naddress = 4\ntype = "s16"\nunit = "W"\npositive = "import"\n'
    with pytest.raises(maps.MapError, match=rf"point\[power_w\]: instead.*{said}"):
        maps.load_map(map_with(tmp_path, row + f"instead = [{other}]\n"))
