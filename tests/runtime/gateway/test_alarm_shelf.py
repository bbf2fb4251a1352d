"""Alarms that are put aside: who, why, until when; over restarts, never for longer, and back by themselves."""

import time

import msgspec
import pytest

from tests.runtime.gateway.test_alarms import alarms, site  # noqa: F401
from tidegate.hal.description import Description, Fault, SiteHead, Storage
from tidegate.runtime.api.blocking_client import ClientError
from tidegate.runtime.gateway import api_pages
from tidegate.runtime.gateway.alarm_shelf import FILE, SHELVE_MS_MAX, SHELVED_MAX, AlarmShelf
from tidegate.runtime.notify.alarm_messages import AlarmMessages, Target

HOUR_MS = 3_600_000


class Clocks:
    def __init__(self):
        self.monotonic_s, self.utc_s = 100.0, 1_800_000_000.0

    def shelf(self, folder):
        one = AlarmShelf(lambda: self.monotonic_s, lambda: self.utc_s)
        one.keep_in(folder)
        return one

    def step(self, seconds):
        self.monotonic_s += seconds
        self.utc_s += seconds


def test_a_shelved_alarm_outlives_a_restart_and_is_over_at_its_time(tmp_path):
    clocks = Clocks()
    clocks.shelf(tmp_path).put("cabinet", "bms_stale", "anna", "fan is being changed", 3600.0)
    clocks.step(1000)
    one = clocks.shelf(tmp_path)
    found = one.of("cabinet", "bms_stale")
    assert (found.by, found.reason, found.left_s) == ("anna", "fan is being changed", 2600.0) and one.over() == []
    clocks.step(2601)
    assert one.of("cabinet", "bms_stale") is None and [row.alarm for row in one.over()] == ["bms_stale"]
    assert one.over() == [] and clocks.shelf(tmp_path).all() == []


@pytest.mark.parametrize("stepped_s", [-86_400 * 400, -10, 86_400 * 400])
def test_a_clock_that_steps_shelves_nothing_longer(tmp_path, stepped_s):
    clocks = Clocks()
    one = clocks.shelf(tmp_path)
    one.put("cabinet", "bms_stale", "anna", "r", 60.0)
    clocks.utc_s += stepped_s
    clocks.monotonic_s += 61
    assert one.all() == [] and len(one.over()) == 1
    one.put("cabinet", "bms_stale", "anna", "r", 60.0)
    clocks.utc_s += stepped_s
    assert clocks.shelf(tmp_path).all() == [], "after a restart nobody knows how long it has been"


@pytest.mark.parametrize("raw", [b"", b"{", b"[1]", b"\xff", b"[" * 5000, b'[{"unit": 1}]'])
def test_a_file_that_cannot_be_read_shelves_nothing_and_is_named(tmp_path, raw):
    (tmp_path / FILE).write_bytes(raw)
    one = Clocks().shelf(tmp_path)
    assert one.all() == [] and FILE in one.damaged


def test_what_cannot_be_kept_is_not_shelved(tmp_path):
    one = Clocks().shelf(tmp_path / "not-there")
    with pytest.raises(OSError):
        one.put("cabinet", "bms_stale", "anna", "r", 60.0)
    assert one.all() == []
    one = Clocks().shelf(tmp_path)
    for number in range(SHELVED_MAX):
        one.put("cabinet", f"f{number}", "anna", "r", 60.0)
    assert one.full


def test_it_is_shown_with_who_and_why_and_the_journal_has_both_ends(core, site):  # noqa: F811
    answer = site.ask("shelve", unit="cabinet", alarm="bms_stale", for_ms=HOUR_MS, reason="fan work", user="anna")
    assert answer["status"] == "applied"
    (found,) = alarms(core, site, 0b001)
    assert found["shelved"]["reason"] == "fan work" and "anna" in found["shelved"]["by"] and found["active"]
    assert found["reaction"] == "zero", "the controller does what it did"
    whole = site.ask("alarms")
    msgspec.convert(whole, api_pages.Reply)
    assert [row["alarm"] for row in whole["shelved"]] == ["bms_stale"]
    assert alarms(core, site, 0) == [] and site.ask("alarms")["shelved"], "shelved while it is away, too"
    alarms(core, site, 0b001)
    site.ask("shelve", unit="cabinet", alarm="bms_stale", for_ms=0)
    assert alarms(core, site, 0b001)[0]["shelved"] is None
    until, events = time.monotonic() + 60, []
    while time.monotonic() < until and len(events) < 2:
        records, _ = site.replay("event", None, -1, 200)
        events = [(r["event"], r["name"], r["detail"]) for r in records if r["event"] in ("shelve", "unshelve")]
    assert [event for event, *_ in events] == ["shelve", "unshelve"]
    assert "for 3600 s by" in events[0][2] and "fan work" in events[0][2] and events[1][2].endswith("still active")


@pytest.mark.parametrize(("more", "words"), [
    ({"reason": " "}, "say why"), ({"alarm": "rain"}, "no such alarm"), ({"unit": "other"}, "units: cabinet"),
    ({"for_ms": SHELVE_MS_MAX + 1}, "for_ms"), ({"for_ms": 0}, "is not shelved"),
])  # fmt: skip
def test_what_cannot_be_shelved_is_refused(site, more, words):  # noqa: F811
    with pytest.raises(ClientError) as refused:
        site.ask("shelve", **{"unit": "cabinet", "alarm": "bms_stale", "for_ms": HOUR_MS, "reason": "r", **more})
    assert words in str(refused.value)


def test_nobody_is_called_for_a_shelved_alarm_and_everybody_when_it_comes_back_active():
    fault = Fault(id="warm", row=0, text="cells are warm", what="heat", clear="cool", reaction="zero")
    made = AlarmMessages(
        Description(site=SiteHead(name="hall"), faults=(fault,), units=(Storage(name="cabinet"),)),
        [Target("all", "json://x", "low")], 900.0, {},
    )  # fmt: skip
    came = {"event": "fault_on", "unit": 0, "name": "warm", "utc_ns": 10**18}
    shelved = {"shelved": [{"unit": "cabinet", "alarm": "warm"}]}
    assert made.is_shelved(came, shelved) and not made.is_shelved({**came, "name": "other"}, shelved)
    assert not made.is_shelved(came, {"shelved": []})
    back = {"event": "unshelve", "name": "warm", "utc_ns": 10**18, "detail": "cabinet: its time is over; still active"}
    (message,), _ = made.of(back)
    assert "cells are warm" in message.title and "unit cabinet" in message.body
    assert made.of({**back, "detail": "cabinet: its time is over"})[0] == []
