"""Converters with modules of their own or loads behind their output, against the battery's own word of its power."""

from typing import Any

import pytest

from tests.hal.test_maps_run import MODE_RUN, ORDER, raw_with
from tidegate.config.compile import compile_site
from tidegate.config.site import Site, parse_site
from tidegate.config.summary import summary
from tidegate.ext.abi import program
from tidegate.hal import maps
from tidegate.hal.sim.virtual import VirtualPlant

WITNESS = {"bms_stuck", "pcs_power_apart", "pcs_opposed"}
OWN_W = 8000.0
COMPARED = {"kostal-plenticore": OWN_W, "solplanet-hybrid": OWN_W, "victron-multiplus": -OWN_W}
COMPARED |= {"sma-battery-limits": OWN_W, "sungrow-sh": OWN_W}
AC_TOLD = ["foxess-h1", "sigenergy-plant"]  # setpoints and power are AC power, the battery's own is read beside it
UNCOMPARED = ["fronius-gen24"]
HYBRID_BY_OPTION = ["sunspec-103", "sunspec-701"]


def site(name: str, options: dict[str, str] | None = None, **simulation: Any) -> Site:
    raw = raw_with(name)
    raw["device"][1]["options"] |= options or {}
    raw["simulation"] |= simulation
    made, problems = parse_site(raw)
    assert problems == []
    return made


def run(
    made: Site, setpoint_w: float, *, until_s: float = 45.0, armed_s: float = 8.0
) -> tuple[set[str], list[int], float]:
    """Rows that came on since it was armed, modes, and the battery's power at the end; it is told setpoint_w."""
    blob = compile_site(made)
    plant = VirtualPlant(blob)
    try:
        plant.run(armed_s)
        armed = len(plant.events)
        plant.order(ORDER["setpoint_w"], setpoint_w, 100.0)
        plant.run(until_s - armed_s)
        modes = [event["code"] for event in plant.events if event["event"] == "mode"]
        names = {row["row"]: row["id"] for row in program.describe(blob)["faults"]}
        rows = {names[event["code"]] for event in plant.events[armed:] if event["event"] == "fault_on"}
        return rows, modes, float(plant.series()["ess_w"][-1])
    finally:
        plant.close()


@pytest.mark.parametrize("setpoint_w", [6000.0, -3000.0, 0.0])
@pytest.mark.parametrize("name", COMPARED)
def test_an_honest_hybrid_runs_while_its_modules_or_its_loads_work(name: str, setpoint_w: float) -> None:
    rows, modes, ess_w = run(site(name, pcs_own_w=COMPARED[name], pcs_own_from_s=12.0), setpoint_w)
    assert rows == set() and modes[-1] == MODE_RUN
    # Setpoints of a converter with loads behind it mean what passes its input: the battery gives the loads beside.
    assert ess_w == pytest.approx(setpoint_w - min(COMPARED[name], 0.0), abs=300.0)


@pytest.mark.parametrize("setpoint_w", [12_000.0, 6000.0, -3000.0])
@pytest.mark.parametrize("name", AC_TOLD)
def test_of_an_ac_power_that_is_told_the_battery_gives_what_the_modules_do_not(name: str, setpoint_w: float) -> None:
    rows, modes, ess_w = run(site(name, pcs_own_w=OWN_W, pcs_own_from_s=12.0), setpoint_w)
    assert rows == set() and modes[-1] == MODE_RUN
    assert ess_w == pytest.approx(setpoint_w - OWN_W, abs=300.0)


@pytest.mark.parametrize("name", AC_TOLD)
def test_an_ac_power_that_is_turned_with_its_setpoint_is_found_beside_modules(name: str) -> None:
    turned = [{"kind": "pcs.turned", "target": "pcs1", "on_s": 20.0}]
    rows, modes, _ = run(site(name, pcs_own_w=OWN_W, pcs_own_from_s=12.0, faults=turned), 14_000.0, until_s=60.0)
    assert "pcs_power_apart" in rows and modes[-1] != MODE_RUN


@pytest.mark.parametrize("name", ["sma-battery-limits", "sungrow-sh"])
def test_a_converter_without_modules_may_be_read_by_its_ac_power(name: str) -> None:
    rows, modes, ess_w = run(site(name, {"battery_reading": "ac"}), 6000.0)
    assert rows == set() and modes[-1] == MODE_RUN and ess_w == pytest.approx(6000.0, abs=300.0)


@pytest.mark.parametrize("name", ["kostal-plenticore", "solplanet-hybrid", "sma-battery-limits", "sungrow-sh"])
def test_a_hybrid_that_is_turned_in_setpoint_and_reading_is_stopped_whatever_its_modules_give(name: str) -> None:
    turned = [{"kind": "pcs.turned", "target": "pcs1", "on_s": 20.0}]
    rows, modes, ess_w = run(site(name, pcs_own_w=OWN_W, pcs_own_from_s=12.0, faults=turned), 6000.0, until_s=60.0)
    assert rows & {"pcs_power_apart", "pcs_opposed"} and modes[-1] != MODE_RUN and abs(ess_w) < 200.0


def test_a_converter_whose_battery_side_reads_otherwise_than_the_bms_is_stopped() -> None:
    """Its AC power and its setpoints look right; what its own DC side says is not what the BMS says."""
    frozen = [{"kind": "battery.frozen", "target": "bms1", "on_s": 7.5}]
    rows, _, ess_w = run(site("victron-multiplus", faults=frozen), 20_000.0)
    assert rows & {"dc_mismatch_long", *WITNESS} and abs(ess_w) < 200.0


def test_a_battery_side_that_cannot_be_read_is_told_and_gives_no_power() -> None:
    """700 V where the converter's map ends at 100 V: the comparison would be off, and nobody would know."""
    rows, modes, ess_w = run(site("victron-multiplus", cells=240), 6000.0, armed_s=0.0)
    assert "pcs_invalid" in rows and MODE_RUN not in modes and abs(ess_w) < 100.0


@pytest.mark.parametrize("name", UNCOMPARED)
def test_a_converter_that_cannot_be_compared_is_named_and_its_rows_are_off(name: str) -> None:
    made = site(name, pcs_own_w=OWN_W, pcs_own_from_s=12.0)
    rows, modes, ess_w = run(made, 3000.0)
    # The control takes the modules' power for the battery's, and asks for less.
    assert rows == set() and modes[-1] == MODE_RUN and 2000.0 <= ess_w <= 3300.0
    said = [line for line in summary(compile_site(made)) if "is not held against the battery's" in line]
    assert len(said) == 1 and "pcs_power_apart" in said[0] and "pcs_not_following" in said[0]
    assert any("its AC power" in text or "part of its" in text for text in maps.shipped(name).map.doubts)


@pytest.mark.parametrize("name", UNCOMPARED)
def test_without_modules_the_same_converter_is_compared(name: str) -> None:
    made = site(name, {"pv": "no"}, pcs_own_w=OWN_W, pcs_own_from_s=12.0)
    rows, _, _ = run(made, 0.0)
    assert rows & WITNESS, "modules that the site file denies are found"
    assert not any("is not held against the battery's" in line for line in summary(compile_site(made)))


@pytest.mark.parametrize("name", HYBRID_BY_OPTION)
def test_a_plain_converters_map_is_a_hybrids_by_an_option(name: str) -> None:
    for option, off in (({}, False), ({"pv": "yes"}, True)):
        said = summary(compile_site(site(name, option)))
        assert any("is not held against the battery's" in line for line in said) == off


@pytest.mark.parametrize(("name", "point"), [("kostal-plenticore", "ac_w"), ("sofar-hyd", "pcc_w")])
def test_a_power_beside_power_w_has_a_bound_as_well(name: str, point: str) -> None:
    rows = program.rows(compile_site(site(name)))
    number = [row["name"] for row in rows["points"]].index(f"pcs1.{point}")
    field = next(row for row in rows["fields"] if row["point"] == number)
    plate_w, connection_w = 30_000.0, 2 * (site(name).limits.connection_import_w_max + 30_000.0)
    expected = connection_w if point == "pcc_w" else 2 * plate_w
    given = next(p.range for p in maps.shipped(name).point if p.name == point)
    assert given is not None
    assert field["max"] == min(expected, given[1]) and field["min"] == max(-expected, given[0])
    assert field["max"] < given[1] or point == "pcc_w"
