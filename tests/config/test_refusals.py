"""Kinds of configuration error: each refused with the key and a remedy, and all of a file's errors at once.

The demo's file is the good one that each case damages. Spellings of one kind stand in test_site.py, more contradictions
of the fault table in test_faults.py.
"""

import re
from importlib.resources import files

import pytest

from tidegate.config.compile import compile_site
from tidegate.config.faults import read_table
from tidegate.config.site import SiteError, load_site

CONFIG = files("tidegate.config")
DEMO = CONFIG.joinpath("demo/site.toml").read_text(encoding="utf-8")
TABLE = CONFIG.joinpath("faults.toml").read_text(encoding="utf-8")

# kind -> (good text, bad text, key in the message, word of the remedy or of what was expected)
SITE_KINDS = {
    "no schema": ("schema = 1", "", "schema", "expected schema = 1"),
    "schema of another version": ("schema = 1", "schema = 9", "schema", "see CHANGELOG"),
    "key misspelt": ("baud = 115200", "bauds = 115200", "serial[meters].bauds", "did you mean baud"),
    "key in another unit": ("peak_w_max = 48000", "peak_kw_max = 48", "control.peak_kw_max", "peak_w_max"),
    "section misspelt": ("[limits]", "[limit]", "limit", "did you mean limits"),
    "text for a number": ("baud = 115200", 'baud = "fast"', "serial[meters].baud", "integer"),
    "below its range": ("baud = 115200", "baud = 100", "serial[meters].baud", "greater than or equal to 300"),
    "above its range": ("unit_id = 1\n", "unit_id = 248\n", "device[grid].unit_id", "expected 1 to 247"),
    "no finite number": ("peak_w_max = 48000", "peak_w_max = nan", "control.peak_w_max", "finite"),
    "negative power": ("peak_w_max = 48000", "peak_w_max = -1", "control.peak_w_max", "greater than or equal to 0"),
    "no such choice": ('role = "grid-meter"', 'role = "grid"', "device[grid].role", "grid-meter"),
    "no such time zone": ("Europe/London", "Europe/Lundon", "site.timezone", "or one like Europe/London"),
    "name that cannot be": ('name = "demo"', 'name = "de mo"', "site.name", "match"),
    "name of the image": ('name = "grid"', 'name = "unit0"', "device[unit0].name", "choose another"),
    "device named twice": ('name = "cooling"', 'name = "grid"', "device[grid].name", "choose another"),
    "bus named twice": ('name = "pcs"', 'name = "meters"', "serial[meters].name", "choose another"),
    "no such bus": ('bus = "meters"', 'bus = "meter"', "device[grid].bus", "the file has"),
    "no unit id": ("unit_id = 2\n", "", "device[cooling]", "1 to 247"),
    "unit id taken": ("unit_id = 2", "unit_id = 1", "device[cooling].unit_id", "another id"),
    "unit id on CAN": ('bus = "bms"\n', 'bus = "bms"\nunit_id = 1\n', "device[bms1].unit_id", "remove it"),
    "bus without devices": ("[[can]]", '[[serial]]\nname = "x"\ndevice = "sim"\n[[can]]', "serial[x]", "no device"),
    "no grid meter": ('role = "grid-meter"', 'role = "it-meter"', "device", "grid-meter"),
    "second grid meter": ('role = "cooling-meter"', 'role = "grid-meter"', "device[cooling].role", "only one"),
    "inverted converter": ('role = "pcs"', 'role = "pcs"\ninvert = true', "device[pcs1].invert", "only meters"),
    "circuit limit elsewhere": (
        "unit_id = 2",
        "unit_id = 2\ncircuit_w_max = 1",
        "device[cooling].circuit_w_max",
        "only a",
    ),
    "storage without its converter": ('pcs = "pcs1"', 'pcs = "pcs2"', "storage[cabinet].pcs", "expected a device"),
    "storage on the wrong role": ('pcs = "pcs1"', 'pcs = "bms1"', "storage[cabinet].pcs", "expected a device"),
    "no such map": ('map = "sunspec-701"', 'map = "sunspec-70"', "device[pcs1]", "sunspec-70"),
    "converter that can only be read": (
        'map = "sunspec-701"',
        'map = "deye-3p"',
        "storage[cabinet].pcs",
        "another map",
    ),
    "inverted SoC limits": ("soc_min = 0.1", "soc_min = 0.96", "storage[cabinet].soc_min", "swap or widen"),
    "inverted temperature limits": (
        "temp_min_c = 0",
        "temp_min_c = 55",
        "storage[cabinet].temp_min_c",
        "swap or widen",
    ),
    "inverted cell limits": (
        "soc_taper = 0.03",
        "cell_v_min = 3.6\ncell_v_max = 3",
        "storage[cabinet].cell_v_min",
        "below",
    ),
    "tapers that meet": ("soc_taper = 0.03", "soc_taper = 0.5", "storage[cabinet].soc_taper", "at most"),
    "wider than the converter's plate": (
        'role = "pcs"',
        'role = "pcs"\nnameplate_w_max = 29999',
        "storage[cabinet].charge_w_max",
        "lower it",
    ),
    "wider than the battery's plate": (
        'role = "bms"\n\n[[storage]]\nname = "cabinet"',
        'role = "bms"\nnameplate_a_max = 100\n\n[[storage]]\nname = "cabinet"\ndischarge_a_max = 101',
        "storage[cabinet].discharge_a_max",
        "lower it",
    ),
    "plate on another device": (
        "unit_id = 2",
        "unit_id = 2\nnameplate_w_max = 1",
        "device[cooling].nameplate_w_max",
        "remove",
    ),
    "states that cannot be reached": (
        "charge_w_max = 30000\ndischarge_w_max = 30000",
        "charge_w_max = 199\ndischarge_w_max = 199",
        "storage[cabinet].discharge_w_max",
        "raise",
    ),
    "slower to stop than to go": (
        "ramp_stop_w_per_s = 30000000",
        "ramp_stop_w_per_s = 2000",
        "storage[cabinet].ramp_stop_w_per_s",
        "much faster",
    ),
    "peak above the fuse": ("peak_w_max = 48000", "peak_w_max = 60000", "control.peak_w_max", "fuse"),
    "recharge above the peak": (
        "recharge_w_max = 46000",
        "recharge_w_max = 50000",
        "control.recharge_w_max",
        "above peak",
    ),
    "target never reached": ("target_soc = 0.8", "target_soc = 0.99", "control.target_soc", "outside"),
    "reserve above everything": ("target_soc = 0.8", "reserve_soc = 0.97", "control.reserve_soc", "above soc_max"),
    "empty band": (
        "[control]",
        "[control]\nfollow_soc_min = 0.1\nreserve_soc = 0.3",
        "control.follow_soc_min",
        "below",
    ),
    "damping band inverted": ("[control]", "[control]\ndamp_lo_hz = 2\ndamp_hi_hz = 1", "control.damp_lo_hz", "below"),
    "window that does not divide": (
        "[control]",
        "[control]\ndemand_w_max = 4e4\ndemand_step_s = 7",
        "control.demand_step_s",
        "at most 64",
    ),
    "shares that add up wrongly": (
        "[control]",
        "[control]\nphase_share = [1, 1, 1]",
        "control.phase_share",
        "expected 1",
    ),
    "blind beyond the base load": (
        "[control]",
        "[control]\nblind_discharge_w_max = 100",
        "control.blind_discharge_w_max",
        "lower it",
    ),
    "snapshots faster than cycles": (
        "snapshot_hz = 10",
        "snapshot_hz = 2000",
        "site.snapshot_hz",
        "more than one a cycle",
    ),
    "simulated without settings": ("[simulation]", "[gateway]", "simulation", "add one"),
    "streams without requests": (
        "[carbon]",
        '[gateway]\npublish = "tcp://*:7000"\n[carbon]',
        "gateway.publish",
        "add endpoint",
    ),
    "line that cannot carry its polls": ("baud = 115200", "baud = 300", "serial[meters]", "baud"),
    "no such fault": (
        "[carbon]",
        "[safety.faults.fire]\ndebounce_ms = 1\n[carbon]",
        "safety.faults.fire",
        "there are bms_never",
    ),
    "debounce longer than the table's": (
        "[carbon]",
        "[safety.faults.bms_silent]\ndebounce_ms = 501\n[carbon]",
        "safety.faults.bms_silent.debounce_ms",
        "weaker than the table's 500",
    ),
    "clears sooner than the table": (
        "[carbon]",
        "[safety.faults.bms_silent]\nclear_ms = 999\n[carbon]",
        "safety.faults.bms_silent.clear_ms",
        "only stricter",
    ),
    "latch taken away": (
        "[carbon]",
        "[safety.faults.bms_alarm]\nlatched = false\n[carbon]",
        "safety.faults.bms_alarm.latched",
        "only stricter",
    ),
}

TABLE_KINDS = {
    "debounce longer than the hazard allows": (
        "debounce_ms = 500\ndebounce_ms_max = 1000",
        "debounce_ms = 1001\ndebounce_ms_max = 1000",
        "bms_silent.debounce_ms",
        "debounce_ms_max = 1000; lower it",
    ),
    "row without its end": ('clear = "all of them have come"\n', "", "bms_never.clear", "required"),
    "row without a clear time": ("clear_ms = 500\n", "", "bms_never.clear_ms", "required"),
    "row that the core does not watch": ('id = "bms_stale"', 'id = "bms_late"', "bms_late", "remove it"),
    "row that is missing": ('id = "bms_stale"', 'id = "bms_late"', "bms_stale", "add it"),
    "row given twice": ('id = "bms_stale"', 'id = "bms_never"', "bms_never", "keep one"),
    "reaction that is none": (
        'reaction = "open"',
        'reaction = "none"',
        "temp_high_trip.reaction",
        "'zero_silent' or 'open'",
    ),
    "derating without its share": ("derate_permille = 500\n", "", "bms_warning.derate_permille", "belongs to"),
    "opened contactors that close again": (
        'reaction = "open"\nlatched = true',
        'reaction = "open"\nlatched = false',
        "temp_high_trip.latched",
        "set it to true",
    ),
    "flaps of a latched row": ("latched = true", "latched = true\nflap_max = 3", "bms_silent.flap_max", "leave it out"),
    "threshold without unit": (
        'threshold = 0.02\nunit = "share"',
        "threshold = 0.02",
        "dc_v_mismatch.unit",
        "needs its unit",
    ),
    "time that the gate cannot count": ("clear_ms = 500", "clear_ms = 2000001", "bms_never.clear_ms", "2000000"),
}


def refused(tmp_path, text):
    path = tmp_path / "site.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SiteError) as caught:
        compile_site(load_site(path))
    return caught.value.problems


def names(line, key, word):
    """Whether a message begins with the key (its line in brackets may follow) and has the word."""
    return re.match(rf"{re.escape(key)}( \(line \d+\))?[.: ]", line) is not None and word in line


def test_more_than_forty_kinds_of_error_are_known():
    assert len(SITE_KINDS) + len(TABLE_KINDS) >= 60


@pytest.mark.parametrize("kind", SITE_KINDS)
def test_an_error_in_the_site_file_is_refused_with_key_and_remedy(tmp_path, kind):
    good, bad, key, word = SITE_KINDS[kind]
    assert good in DEMO
    said = refused(tmp_path, DEMO.replace(good, bad, 1))
    assert any(names(line, key, word) for line in said), said


@pytest.mark.parametrize("kind", TABLE_KINDS)
def test_an_error_in_the_fault_table_is_refused_with_row_key_and_remedy(kind):
    good, bad, key, word = TABLE_KINDS[kind]
    assert good in TABLE
    said: list[str] = []
    read_table(TABLE.replace(good, bad, 1), said)
    assert any(key in line and word in line for line in said), said


# Looked for once the file itself is good, or renaming what the others speak of, or touching the same text.
ALONE = (
    "no schema",
    "schema of",
    "no such map",
    "line that",
    "no such fault",
    "debounce",
    "clears",
    "latch",
    "converter",
    "simulated",
    "name of",
    "device named",
    "bus named",
    "no such bus",
    "storage without",
    "storage on",
    "key in another",
    "no such choice",
    "no grid",
    "no finite",
    "negative",
    "section misspelt",
    "recharge above",
)


def test_errors_of_many_kinds_are_refused_together(tmp_path):
    text, wanted, used = DEMO, {}, set()
    for kind, (good, bad, key, word) in SITE_KINDS.items():
        lines = set(good.strip().splitlines())
        if not kind.startswith(ALONE) and good in text and not lines & used and good != "[control]":
            text = text.replace(good, bad, 1)
            wanted[kind] = (key, word)
            used |= lines
    said = refused(tmp_path, text)
    missed = [kind for kind, (key, word) in wanted.items() if not any(names(line, key, word) for line in said)]
    assert len(wanted) >= 18 and not missed, (missed, said)


def test_what_must_act_at_once_takes_no_debounce_from_a_site(tmp_path):
    at_once = ("bms_alarm", "pcs_fault", "meter_stale")
    rows = "\n".join(f"[safety.faults.{ident}]\ndebounce_ms = 1" for ident in at_once)
    said = refused(tmp_path, f"{DEMO}\n{rows}\n")
    assert len(said) == 3 and all("weaker than the table's 0" in line for line in said)
