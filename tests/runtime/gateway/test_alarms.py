"""The operation `alarms`: what is wrong, since when, why, and what ends it."""

import json
import time

import msgspec
import pytest

from tidegate.ext.abi.shared import EVENT_NAMES, EVENTS_KEPT
from tidegate.runtime.gateway import api_pages
from tidegate.runtime.state.backup_outcome import OUTCOME, BackupOutcome

FAULT_ON = EVENT_NAMES.index("fault_on")
ROWS = [
    {"id": "bms_stale", "reaction": "zero", "text": "the BMS is late", "what": "a BMS signal is older than it may be",
     "clear": "all are fresh", "clear_ms": 100},
    {"id": "pcs_fault", "reaction": "open", "latched": True, "clear": "the converter reports none", "clear_ms": 500},
    {"id": "meter_stale", "reaction": "derate"},
]  # fmt: skip


@pytest.fixture
def site(core, start_gateway):
    core.describe["faults"] = ROWS
    core.describe["units"] = [{"name": "cabinet"}]
    core.step()
    core.beat()
    with start_gateway().client() as client:
        yield client


def alarms(core, site, fault_bits, latch_bits=0):
    core.values["unit0.fault_bits_lo"], core.values["unit0.latch_bits_lo"] = (fault_bits, 1), (latch_bits, 1)
    cycle = core.cycle
    while core.cycle < cycle + 2:
        time.sleep(0.001)
    answer = site.ask("alarms")
    msgspec.convert(answer, api_pages.Reply)
    return answer["alarms"]


def test_a_site_without_a_fault_has_no_alarm(core, site):
    assert alarms(core, site, 0) == []


def test_an_alarm_says_what_why_and_what_ends_it(core, site):
    found = alarms(core, site, 0b001)
    assert found == [{
        "id": "bms_stale", "unit": "cabinet", "text": "the BMS is late", "reaction": "zero", "active": True,
        "latched": False, "since_s": None, "cause": "a BMS signal is older than it may be",
        "remedy": {"condition": "all are fresh", "for_ms": 100, "acknowledge": False}, "finding": "",
        "shelved": None}]  # fmt: skip


def test_the_strongest_reaction_comes_first_and_a_latch_alone_is_not_active(core, site):
    found = alarms(core, site, 0b101, latch_bits=0b010)
    assert [(one["id"], one["active"], one["latched"]) for one in found] == [
        ("pcs_fault", False, True), ("bms_stale", True, False), ("meter_stale", True, False)]  # fmt: skip
    assert [one["remedy"]["acknowledge"] for one in found] == [True, False, False]


def test_it_is_there_since_its_last_fault_on_event_of_the_same_unit(core, site):
    core.event(kind=FAULT_ON, unit=0, code=0)
    time.sleep(0.2)
    between_ns = time.monotonic_ns()
    core.event(kind=FAULT_ON, unit=0, code=0)
    core.event(kind=FAULT_ON, unit=1, code=0)
    core.event(kind=FAULT_ON, unit=0, code=2)
    (one,) = alarms(core, site, 0b001)
    assert 0.0 <= one["since_s"] < (time.monotonic_ns() - between_ns) / 1e9


def test_what_began_before_the_events_that_the_core_keeps_has_no_time(core, site):
    core.event(kind=FAULT_ON, unit=0, code=0)
    for _ in range(EVENTS_KEPT):
        core.event(kind=FAULT_ON, unit=0, code=2)
    (one,) = alarms(core, site, 0b001)
    assert one["since_s"] is None


def test_a_backup_that_failed_stands_beside_the_alarms_with_what_to_do(core, site, tmp_path):
    def findings():
        alarms(core, site, 0)
        return [one["title"] for one in site.ask("alarms")["findings"]]

    def becomes(true):
        until = time.monotonic() + 60
        while not true():
            assert time.monotonic() < until, findings()
            time.sleep(0.2)

    outcome = BackupOutcome("/stick", 24, None, 2000.0, "no such folder")
    (tmp_path / "state" / OUTCOME).write_text(json.dumps(outcome._asdict()))
    becomes(lambda: "the backup failed" in findings())
    good = outcome._replace(ok_utc_s=time.time(), failed_utc_s=None, why="")
    (tmp_path / "state" / OUTCOME).write_text(json.dumps(good._asdict()))
    becomes(lambda: "the backup failed" not in findings())
