"""Meters and keys that were replaced, said at the console: into the journal, and from there signed into the ledger."""

import pytest

from tests.runtime.carbon.sidecar.test_service import DESCRIBE, HOUR, Journal, journal
from tests.runtime.console.console_rig import NAME, PASSWORD, USER, Desk
from tidegate.runtime.api.blocking_client import ClientError
from tidegate.runtime.carbon.factors.series import Factors, iso
from tidegate.runtime.carbon.jobs.pushed import Pushed
from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError
from tidegate.runtime.carbon.ledger.signing import key_changes, sign, verify
from tidegate.runtime.carbon.readings.file_registers import registers_of
from tidegate.runtime.carbon.readings.readings import read_readings, take_in
from tidegate.runtime.carbon.sidecar.service import Sidecar, catch_up
from tidegate.runtime.carbon.sidecar.statements import WAIT_S, enter, take_over
from tidegate.runtime.state.device_key import DeviceKey

FACTORS = Factors(None, 200_000_000, "test")


@pytest.fixture
def desk(tmp_path):
    one = Desk(tmp_path)
    one.enter(f"login {USER}", PASSWORD)
    return one


def pushed_with(ledger, *said):
    """The job stream of a journal that holds these statements."""

    class Stream:
        def replay(self, stream, boot, seq, count):
            assert stream == "job"
            rows = [{"boot": "b", "seq": n, "peer": "console for anna", "utc_ns": (HOUR + 1800) * 10**9, "jobs": [],
                     "account": {"quantity": "", "unit": "kWh", "at_utc_s": 0, "closing": "0", "opening": "0", **one}}
                    for n, one in enumerate(said)]  # fmt: skip
            return [row for row in rows if boot is None or row["seq"] > seq], True

    pushed = Pushed(ledger)
    return pushed, Stream()


def test_an_exchange_is_said_with_both_readings_time_and_reason(desk):
    said = desk.enter("meter exchange grid.import 1018kWh 5kWh", "2026-03-14T10:20Z", "calibration")
    assert "the old meter closed at 1018 kWh, the new one opened at 5 kWh" in " ".join(said.split())
    desk.enter(NAME)
    (asked,) = desk.gateway.asked("account")
    assert asked == {"what": "exchange", "meter": "grid.import", "quantity": "", "unit": "kWh", "closing": "1018",
                     "opening": "5", "at_utc_s": 1_773_483_600, "reason": "calibration", "user": USER}  # fmt: skip
    desk.enter("meter exchange w water 1000m3 0m3", "", "leak", NAME)
    assert desk.gateway.asked("account")[1]["quantity"] == "water"
    desk.enter("meter range b energy-backup 100000kWh", "five digits", NAME)
    desk.enter("key changed", "board replaced", NAME)
    assert [one["what"] for one in desk.gateway.asked("account")] == ["exchange", "exchange", "range", "key"]


@pytest.mark.parametrize(("lines", "words"), [
    (("meter exchange grid.import 1018 5",), "with its unit"),
    (("meter exchange grid.import 1018kWh 5m3",), "both in one unit"),
    (("meter exchange grid.import 1e3kWh 5kWh",), "with its unit"),
    (("meter exchange grid.import 1018kWh 5kWh", "noon"), "expected a time"),
    (("meter exchange grid.import 1018kWh 5kWh", "2999-01-01T00:00Z"), "lies before us"),
    (("meter exchange grid.import 1018kWh 5kWh", "", " "), "without a reason"),
    (("meter exchange grid.import 1018kWh 5kWh", "", "r", "hall-8"), "another name"),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_it_is_in_the_journal(desk, lines, words):
    assert words in desk.enter(*lines)
    assert not desk.gateway.asked("account")


def test_only_who_maintains_may_say_it(tmp_path):
    desk = Desk(tmp_path)
    desk.users.put("otto", "operate", PASSWORD)
    desk.enter("login otto", PASSWORD)
    desk.enter("key changed", "r", NAME)
    assert not desk.gateway.asked("account")


def test_the_gateway_takes_it_at_the_site_and_keeps_it(gateway):
    with gateway.client(timeout_s=20) as site:
        answer = site.ask("account", what="exchange", meter="grid.import", closing="10", opening="0", at_utc_s=HOUR,
                          reason="r", user="anna")  # fmt: skip
        assert answer["status"] == "applied" and "accepted" not in answer
        records, _ = site.replay("job", None, -1, 10)
        assert records[-1]["account"]["closing"] == "10" and "anna" in records[-1]["peer"] and records[-1]["jobs"] == []
        for wrong in ({"closing": "-1"}, {"what": "loss"}, {"reason": ""}, {"meter": ""}):
            with pytest.raises(ClientError) as refused:
                site.ask("account", **{"what": "exchange", "meter": "m", "reason": "r", **wrong})
            assert refused.value.code == "invalid-field"


def exchanged_records():
    """36 kW; the old meter closes at 1018 kWh a half hour in, the new one is mute for ten minutes and opens at 5."""
    records = journal(5400)
    for record in records:
        at = record["t_ns"] // 10**9
        wh = 1_000_000 + 10 * at if at < 1800 else 5_000 + 10 * (at - 1800)
        record["points"]["grid.import_wh"] = [None if 1800 <= at < 2400 else wh, 1]
        for name in ("site.grid_in_ws", "site.grid_out_ws", "site.grid_covered_s"):
            del record["points"][name]
    return records


def test_an_exchange_waits_for_the_new_register_and_is_entered_once(tmp_path):
    records, ledger, key = exchanged_records(), Ledger(tmp_path / "l.db"), DeviceKey.at(tmp_path / "k.pem")
    one = Sidecar(DESCRIBE, ledger, FACTORS, key=key)
    catch_up(one, Journal(records[:1850]))
    one.commit()
    said = {"what": "exchange", "meter": "grid.import", "at_utc_s": HOUR + 1800, "closing": "1018", "opening": "5",
            "reason": "calibration"}  # fmt: skip
    pushed, stream = pushed_with(ledger, said)
    pushed.pull(stream)
    assert enter(pushed, key, one.closed_until_utc_s) == [] and len(pushed.statements) == 1
    ledger.close()

    ledger = Ledger(tmp_path / "l.db")
    one = Sidecar(DESCRIBE, ledger, FACTORS, key=key)
    catch_up(one, Journal(records))
    one.commit()
    pushed = Pushed(ledger)
    kept = [dict(row) for row in pushed.statements]
    (line,) = enter(pushed, key, one.closed_until_utc_s)
    assert f"exchange at {iso(HOUR + 1800)} entered" in line and "console for anna" in line
    pushed.statements = kept  # the power went between the entry and the cursor
    assert "stands in the ledger" in enter(pushed, key, one.closed_until_utc_s)[0]
    assert [entry.body["author"] for entry in ledger.entries("meter")] == ["console for anna"]
    booked = [e.body["flows"]["grid.import"]["energy_milliwh"] for e in ledger.in_force("period")]
    assert sum(booked) == pytest.approx(54_000_000, abs=30_000)
    assert Pushed(ledger).statements == [] and verify(ledger) == []


def test_what_cannot_be_entered_is_a_note_with_its_reason(tmp_path):
    ledger = Ledger(tmp_path / "l.db")
    one = Sidecar(DESCRIBE, ledger, FACTORS)
    catch_up(one, Journal(journal(4000)))
    one.commit()
    base = {"reason": "r", "at_utc_s": HOUR}
    pushed, stream = pushed_with(
        ledger, {"what": "exchange", "meter": "sun.import", **base},
        {"what": "exchange", "meter": "w", "quantity": "water", "unit": "m3", **base},
        {"what": "range", "meter": "grid.import", "closing": "9", **base}, {"what": "key", "meter": "", **base},
        {"what": "exchange", "meter": "grid.import", "closing": "999999", "opening": "999998", **base},
    )  # fmt: skip
    pushed.pull(stream)
    lines = enter(pushed, None, HOUR)
    words = ("no such flow", "no readings of water", "register_range_kwh", "not signed")
    assert all(word in line and "not entered" in line for word, line in zip(words, lines, strict=False))
    assert enter(pushed, None, HOUR + 1800 + WAIT_S) and not pushed.statements, "it does not wait for ever"
    notes = [str(entry.body.get("what")) for entry in ledger.entries("note")]
    assert sum("not entered" in text for text in notes) == 5


def test_a_water_meter_and_its_range_are_entered_as_by_the_command(tmp_path):
    rows = [(HOUR, "w,water,900,m3"), (HOUR + 1_000_000, "w,water,30,m3"), (HOUR + 2_592_000, "w,water,90,m3")]
    head = "time_utc,meter,quantity,reading,unit\n"
    (tmp_path / "r.csv").write_text(head + "".join(f"{iso(at)},{rest}\n" for at, rest in rows))
    ledger = Ledger(tmp_path / "l.db")
    ledger.begin("s")
    take_in(ledger, read_readings(tmp_path / "r.csv"))
    pushed, stream = pushed_with(ledger, {"what": "exchange", "meter": "w", "quantity": "water", "unit": "m3",
                                          "at_utc_s": HOUR + 500_000, "closing": "1000", "reason": "r"})  # fmt: skip
    pushed.pull(stream)
    assert "exchange entered" in enter(pushed, None, HOUR)[0]
    assert registers_of(ledger).amount("water", HOUR, HOUR + 2_592_000).total == 190 * 10**6


def test_a_key_that_was_said_at_the_console_is_taken_over_and_an_unsaid_one_is_not(tmp_path):
    old, new = DeviceKey.at(tmp_path / "old.pem"), DeviceKey.at(tmp_path / "new.pem")
    one = Sidecar(DESCRIBE, Ledger(tmp_path / "l.db"), FACTORS, key=old)
    catch_up(one, Journal(journal(4000)))
    one.commit()
    sign(one.ledger, old, "s", least=1)
    one.ledger.close()
    ledger = Ledger(tmp_path / "l.db")
    head = ledger.head
    silent, stream = pushed_with(ledger)
    assert take_over(silent, stream, new) == "" and ledger.head == head
    with pytest.raises(LedgerError, match="was written by the device"):
        Sidecar(DESCRIBE, ledger, FACTORS, key=new)
    pushed, stream = pushed_with(ledger, {"what": "key", "meter": "", "reason": "board replaced"})
    assert "said by console for anna" in take_over(pushed, stream, new)
    again = Sidecar(DESCRIBE, ledger, FACTORS, key=new)
    pushed.pull(stream)
    assert "stands in the ledger" in enter(pushed, new, again.closed_until_utc_s)[0]
    ledger.append([("note", 0, {"v": 1, "what": "later"})])
    assert len(key_changes(ledger)) == 1 and verify(ledger, key=new.public) == []
