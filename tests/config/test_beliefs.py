"""What was measured before a start is where the loop begins, beside what is configured."""

import copy
import tomllib
from pathlib import Path

import pytest

from tidegate.config import beliefs
from tidegate.config.beliefs import AGE_WIDER_S, Converter, Learnt
from tidegate.config.compile import compile_site
from tidegate.config.site import parse_site
from tidegate.config.site_maps import load_maps
from tidegate.config.summary import summary
from tidegate.ext.abi import program
from tidegate.ext.estimate.estimator import AGE_MOST_S

RAW = tomllib.loads((Path(__file__).parents[2] / "config/sites/simulated.toml").read_text())
MEASURED = {
    "at_utc": "2026-11-28T10:00:00Z", "meter_delay_ms": 120.0, "meter_delay_spread_ms": 20.0,
    "meter_interval_ms": 100.0,
    "converter": {"pcs1": {"dead_ms": 40.0, "lag_ms": 90.0, "gain": 0.97}},
}  # fmt: skip


def site_of(commissioning=None, control=None, **device):
    raw = copy.deepcopy(RAW)
    raw.setdefault("control", {}).pop("pcs_tau_ms", None)
    raw["control"].update(control or {})
    raw["device"][0].update(device)
    if commissioning is not None:
        raw["commissioning"] = commissioning
    site, problems = parse_site(raw)
    assert problems == []
    return site


def control_of(site, carried=None):
    return program.rows(compile_site(site, carried))["control"]


def notes_of(site, carried=None):
    return program.describe(compile_site(site, carried))["notes"]


def test_a_site_of_which_nothing_was_measured_begins_with_nothing():
    found = control_of(site_of())
    assert found["first_age_lo_s"] == found["first_age_hi_s"] == 0.0 and not any(found["first_gain"])
    assert program.describe(compile_site(site_of()))["first"] == []


def test_what_commissioning_measured_is_believed_wider():
    found = control_of(site_of(MEASURED))
    assert found["first_age_lo_s"] == pytest.approx(0.1 - 0.1 - AGE_WIDER_S)
    assert found["first_age_hi_s"] == pytest.approx(0.14 + 0.1 + AGE_WIDER_S) and found["first_interval_s"] == 0.1
    assert [found[f"first_{key}"][0] for key in ("dead_s", "lag_s", "gain")] == [0.04, 0.09, 0.97]
    assert found["pcs_tau_s"] == 0.09, "nobody configured another"
    (grid, converter) = program.describe(compile_site(site_of(MEASURED)))["first"]
    assert "measured by the commissioning of 2026-11-28T10:00:00Z" in grid and converter.startswith("pcs1 answers")


def test_what_was_carried_over_is_newer_part_by_part():
    carried = Learnt("carried over from 2026-11-29T07:00:00Z", (0.3, 0.4), 0.2)
    found = control_of(site_of(MEASURED), carried)
    assert found["first_age_hi_s"] == pytest.approx(0.4 + 0.2 + AGE_WIDER_S)
    assert found["first_lag_s"][0] == 0.09, "of the converter nothing newer is known"
    assert any("carried over from" in line for line in summary(compile_site(site_of(MEASURED), carried)))


@pytest.mark.parametrize(
    ("configured_ms", "used_s", "told"),
    [(50.0, 0.24, True), (300.0, 0.3, False), (9000.0, 9.0, True)],  # too small; consistent; no bound at all
)
def test_a_bound_of_the_age_that_contradicts_what_was_measured_is_told_and_the_safer_used(configured_ms, used_s, told):
    site = site_of(MEASURED, {"meter_latency_ms_max": configured_ms})
    assert control_of(site)["meter_latency_s_max"] == pytest.approx(used_s)
    assert any("meter_latency_ms_max" in note for note in notes_of(site)) == told


@pytest.mark.parametrize(
    ("configured_ms", "used_s", "told"), [(20.0, 0.09, True), (80.0, 0.08, False), (400.0, 0.4, True)]
)
def test_a_lag_that_contradicts_what_was_measured_is_told_and_the_larger_used(configured_ms, used_s, told):
    site = site_of(MEASURED, {"pcs_tau_ms": configured_ms})
    assert control_of(site)["pcs_tau_s"] == pytest.approx(used_s)
    assert any("pcs_tau_ms" in note for note in notes_of(site)) == told


def test_a_bound_that_bounds_nothing_is_told_also_where_nothing_was_measured():
    assert any("bounds nothing" in note for note in notes_of(site_of(control={"meter_latency_ms_max": 5000.0})))
    assert notes_of(site_of(control={"meter_latency_ms_max": 1e3 * AGE_MOST_S - 100.0})) == []


def test_the_former_key_is_named_and_changes_nothing():
    site = site_of(control={"meter_latency_ms": 20})
    assert any("warning: control.meter_latency_ms: nothing reads it" in line for line in summary(compile_site(site)))
    assert control_of(site) == control_of(site_of())


def test_each_part_is_known_by_its_devices_maps_buses_and_options():
    def of(site):
        return beliefs.identity(site, load_maps(site, []))

    before = of(site_of())
    assert set(before) == {"grid", "pcs1"} and before == of(site_of(MEASURED, {"peak_w_max": 1000.0}))
    assert of(site_of(unit_id=7))["pcs1"] == before["pcs1"] and of(site_of(unit_id=7))["grid"] != before["grid"]
    raw = copy.deepcopy(RAW)
    raw["device"][1]["map"] = "sinexcel-pws"
    other, problems = parse_site(raw)
    assert problems == [] and all(one != before[name] for name, one in of(other).items())


def test_what_is_looked_for_bounds_what_is_believed():
    assert beliefs.believed_age_s(Learnt("x", (4.2, 4.25), 1.0))[1] == AGE_MOST_S
    assert beliefs.believed_age_s(Learnt("x", (9.0, 9.5), 1.0)) is None
    assert Converter() == Converter(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ({}, "held against its import and export registers"),
        ({"map": "carlo-gavazzi-em24"}, "in steps of 100 Wh, so a power of ten times shows from 30,000 W on"),
        ({"map": "socomec-diris-a10"}, "not held against its energy: its map has no export register"),
        ({"map": "sunspec-111"}, "not held against its energy: its map has no import register"),
        ({"poll_slow_ms": 5000}, "the import register is read every 5 s, 3 s at most"),
    ],
)
def test_whether_a_grid_meter_is_held_against_its_own_energy_is_told(device, words):
    (line,) = [
        one for one in summary(compile_site(site_of(**device))) if "held against its" in one and " phases" not in one
    ]
    assert line.startswith("grid: ") and words in line


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ({}, "held against its phases and volts times amperes: a lost one shows within three looks, 1 s apart"),
        ({"map": "mypv-wifi-meter"}, "its power is held against its phases: a lost one"),
        ({"map": "socomec-diris-a10"}, "not held against its phases: its map has no power of L1, L2, L3"),
        ({"map": "sunspec-111"}, "not held against its phases: its map has no power of"),
        ({"poll_slow_ms": 5000}, "not held against its phases: they are read every 5 s, less than 3 s are needed"),
    ],
)
def test_whether_a_grid_meter_is_held_against_its_own_phases_is_told(device, words):
    (line,) = [one for one in summary(compile_site(site_of(**device))) if one.startswith("grid: ") and " phases" in one]
    assert words in line
