"""What goes wrong at a site, from the meter record to the report: named, located, nothing lost, the period marked."""

import csv
import io
import json
from decimal import Decimal

import pytest
import sqlalchemy as sa

from tidegate.runtime.carbon.factors.series import Factors, Series, Step
from tidegate.runtime.carbon.jobs.csv_rows import read_jobs
from tidegate.runtime.carbon.jobs.settle import settle, settled
from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError
from tidegate.runtime.carbon.ledger.signing import sign, verify
from tidegate.runtime.carbon.report.document import gather
from tidegate.runtime.carbon.report.write import write
from tidegate.runtime.carbon.sidecar.service import Sidecar, catch_up
from tidegate.runtime.state.device_key import DeviceKey, KeyFileError

DAY = 1_717_200_000 // 86_400 * 86_400
HOURS = 3
STEP_S = 5
GRID_W, IT_W = 36_000, 35_990
AT = 4000  # seconds into the record at which things go wrong, in the fifth quarter hour
UNTIL = 6000
DESCRIBE = {
    "site": {"name": "s"},
    "points": [{"name": n} for n in ("grid.import_wh", "grid.export_wh", "it.import_wh", "site.grid_in_ws",
                                     "site.grid_out_ws", "site.grid_covered_s")],
    "nodes": [{"role": "grid", "device": "grid", "positive_wh": "grid.import_wh", "negative_wh": "grid.export_wh"},
              {"role": "it", "device": "it", "positive_wh": "it.import_wh", "negative_wh": None}],
    "units": [],
}  # fmt: skip
TRUTH_MILLIWH = GRID_W * HOURS * 1000
FACTORS = Factors(None, 200_000_000, "test")


def records(change=None):
    """Three hours of a grid meter at 36 kW and an IT meter behind it; change(second, points, record) spoils them."""
    found = []
    for seq in range(HOURS * 3600 // STEP_S + 1):
        at = seq * STEP_S
        points = {"grid.import_wh": 70_000 + GRID_W * at / 3600, "grid.export_wh": 12.0,
                  "it.import_wh": 500 + IT_W * at / 3600, "site.grid_in_ws": float(GRID_W * at),
                  "site.grid_out_ws": 0.0, "site.grid_covered_s": float(at)}  # fmt: skip
        record = {"v": 1, "kind": "meter", "site": "s", "boot": "a" * 32, "seq": seq, "cycle": seq, "program": "0" * 64,
                  "t_ns": at * 10**9 + 1, "utc_ns": (DAY + at) * 10**9, "utc_sync": "S"}  # fmt: skip
        if change is not None:
            change(at, points, record)
        found.append({**record, "points": {name: [value, 1] for name, value in points.items()}})
    return found


class Journal:
    def __init__(self, rows):
        self.rows = rows

    def replay(self, stream, boot=None, seq=-1, count=256):
        found = [row for row in self.rows if row["seq"] > (seq if boot is not None else -1)][:count]
        return found, not found or found[-1] is self.rows[-1]


def report(tmp_path, change=None, factors=FACTORS):
    """(report.json, rows of report.csv) of what the sidecar made of the records."""
    one = Sidecar(DESCRIBE, Ledger(tmp_path / "l.db"), factors)
    catch_up(one, Journal(records(change)))
    one.commit()
    assert verify(one.ledger) == []
    found = write(one.ledger, DAY, DAY + HOURS * 3600, tmp_path / "r", pdf=False)
    return json.loads(found["json"].read_text()), list(csv.DictReader(io.StringIO(found["csv"].read_text())))


def quarters(document, flag):
    """The quarter hours, counted from the start, between which a flag stands."""
    first, end = document["flag_spans_utc_s"][flag]
    return (first - DAY) // 900, (end - DAY) // 900 - 1


def milliwh_of(kwh):
    return int(Decimal(kwh) * 10**6)


def assert_nothing_is_lost(document, tolerance=0.01):
    booked = milliwh_of(document["energy_kwh"]["inflow"]["grid"])
    assert abs(booked - TRUTH_MILLIWH) <= tolerance * TRUTH_MILLIWH
    assert document["carbon_ug"]["balance_error"] == 0


def test_a_good_site_has_nothing_to_say(tmp_path):
    document, rows = report(tmp_path)
    assert document["gaps"] == [] and set(document["flags"]) == {"PARTIAL"}
    assert_nothing_is_lost(document, 1e-6)
    assert {row["quality"] for row in rows if row["node"] == "grid" and row["kind"] == "import"} == {"good"}


def test_a_meter_with_reversed_sign(tmp_path):
    def change(at, points, record):
        points["grid.export_wh"], points["grid.import_wh"] = points["grid.import_wh"], 12.0
        points["site.grid_out_ws"], points["site.grid_in_ws"] = points["site.grid_in_ws"], 0.0

    document, rows = report(tmp_path, change)
    assert quarters(document, "REVERSED_SIGN grid export") == (0, 11)
    # Booked as read; what the loads took without any import is priced as unknown and is in the balance.
    assert milliwh_of(document["energy_kwh"]["outflow"]["export"]) == pytest.approx(TRUTH_MILLIWH, rel=1e-6)
    assert document["carbon_ug"]["inflow"]["unmetered"] > 0 and document["carbon_ug"]["balance_error"] == 0
    assert all("REVERSED_SIGN_grid_export" in row["flags"] for row in rows if row["kind"] == "export")


def swapped(at, points, record):
    if AT <= at < UNTIL:
        raw = int(points["grid.import_wh"])
        points["grid.import_wh"] = float((raw & 0xFFFF) << 16 | raw >> 16)


def reset(at, points, record):
    if at >= AT:
        points["grid.import_wh"] -= 70_000 + GRID_W * AT / 3600


def jump(at, points, record):
    if at >= AT:
        points["grid.import_wh"] += 1e9  # a million kWh


def spike(at, points, record):
    if at == AT:
        points["grid.import_wh"] += 1e9


@pytest.mark.parametrize(
    ("change", "flag", "last"),
    [
        (swapped, "grid.import: IMPLAUSIBLE", UNTIL // 900),
        (reset, "grid.import: METER_EXCHANGED", AT // 900),
        (reset, "grid.import: BACKWARD", AT // 900),
        (jump, "grid.import: METER_EXCHANGED", AT // 900),
        (jump, "grid.import: IMPLAUSIBLE", AT // 900),
        (spike, "grid.import: IMPLAUSIBLE", AT // 900),
    ],
)
def test_a_register_that_cannot_be_believed(tmp_path, change, flag, last):
    document, rows = report(tmp_path, change)
    assert_nothing_is_lost(document)
    first, end = quarters(document, flag)
    assert first == AT // 900 and end <= last
    gap = next(row for row in document["gaps"] if row["flow"] == "grid.import")
    assert (gap["start_utc_s"] - DAY) // 900 == AT // 900 and gap["quality"] in ("substituted", "estimated")
    evidence = document["evidence"]["gaps"][0]
    assert evidence["meter"] == "grid.import" and evidence["bias"]
    marked = {row["start_utc"] for row in rows if row["kind"] == "import" and row["quality"] != "good"}
    assert 1 <= len(marked) <= 1 + last - AT // 900


def test_a_clock_at_1970(tmp_path):
    def change(at, points, record):
        if at < AT:
            record["utc_ns"], record["utc_sync"] = record["t_ns"], "U"

    document, _ = report(tmp_path, change)
    assert_nothing_is_lost(document, 1e-3)
    assert document["span"]["periods"] == HOURS * 4 and document["span"]["booked_from_utc_s"] == DAY
    assert "PLACED_BY_MONOTONIC_TIME" in document["flags"]
    assert quarters(document, "TIME_INFORMATIVE")[0] == 0
    assert {row["time_sync"] for row in document["evidence"]["meters"]} == {"I"}


@pytest.mark.parametrize("committed", [True, False])
def test_a_sidecar_stopped_while_records_wait_for_a_clock_loses_none(tmp_path, committed):
    def change(at, points, record):
        if at < AT:
            record["utc_ns"], record["utc_sync"] = record["t_ns"], "U"

    rows = records(change)
    bodies = []
    for name, cuts in (("whole", [len(rows)]), ("cut", [300, 700, len(rows)])):
        for cut in cuts:
            one = Sidecar(DESCRIBE, Ledger(tmp_path / f"{name}.db"), FACTORS)
            catch_up(one, Journal(rows[:cut]))
            if committed or cut == len(rows):
                one.commit()
            one.ledger.close()
        bodies.append([entry.body for entry in one.ledger.entries("period")])
    assert bodies[0] == bodies[1] and len(bodies[0]) == HOURS * 4


def test_a_gap_and_a_hold_of_the_factors(tmp_path):
    steps = [Step(DAY, DAY + 1800, 100_000_000), Step(DAY + 9900, DAY + 10_800, 150_000_000, "forecast")]
    factors = Factors(Series("X", "average", "table", steps=steps).finish(), 900_000_000, "upper bound")
    document, rows = report(tmp_path, factors=factors)
    shown = {
        name: milliwh_of(kwh) // (GRID_W * 250) for name, kwh in document["factors"]["import_kwh_by_status"].items()
    }
    # Two quarters as said, eight held for two hours, one at the fallback, one of a forecast.
    assert shown == {"actual": 2, "held": 8, "fallback": 1, "forecast": 1}
    assert document["factors"]["sources"] == {"table": 11, "upper bound": 1}
    status = [row["factor_status"] for row in rows if row["kind"] == "import"]
    assert status == ["actual"] * 2 + ["held"] * 8 + ["fallback", "forecast"]
    assert_nothing_is_lost(document, 1e-6)


def test_a_job_log_with_negative_and_doubled_times(tmp_path):
    one = Sidecar(DESCRIBE, Ledger(tmp_path / "l.db"), FACTORS)
    catch_up(one, Journal(records()))
    one.commit()
    log = tmp_path / "jobs.json"
    rows = [{"job": "a", "start_utc_s": DAY, "end_utc_s": DAY + 3600, "owner": "o"},
            {"job": "a", "start_utc_s": DAY + 1800, "end_utc_s": DAY + 5400, "owner": "o"},
            {"job": "b", "start_utc_s": DAY + 3600, "end_utc_s": DAY, "owner": "o"},
            {"job": "c", "start_utc_s": 10, "end_utc_s": 3600, "owner": "o"}]  # fmt: skip
    log.write_text("\n".join(json.dumps(row) for row in rows))
    works, aside = read_jobs(log, None, None)
    bodies = [entry.body for entry in one.ledger.in_force("period")]
    body = settled(bodies, works, aside, ["it"])
    one.ledger.append([("job", DAY, body)])
    compute = gather(one.ledger, DAY, DAY + HOURS * 3600)[0]["compute"]
    assert compute["set_aside_count"] >= 2
    named = " ".join(compute["set_aside"])
    assert "b" in named and "c" in named and "jobs.json" in named
    assert compute["jobs_milliwh"] + compute["idle_milliwh"] == compute["nodes"]["it"]["metered_milliwh"]
    assert settle(one.ledger, works, aside, DAY, DAY + 86_400) == 0  # nothing is settled before the day is over


# ---- the database ----


def limited(ledger, pages):
    """Let SQLite take no more pages, as a full disk would; the same error of the same library."""

    def limit(connection, _record):
        connection.execute(f"PRAGMA max_page_count = {pages}")

    sa.event.listen(ledger._engine, "connect", limit)
    ledger._engine.dispose()


def test_a_database_that_is_full_says_so_and_nothing_is_lost(tmp_path):
    whole = Sidecar(DESCRIBE, Ledger(tmp_path / "whole.db"), FACTORS)
    catch_up(whole, Journal(records()))
    whole.commit()
    full = Sidecar(DESCRIBE, Ledger(tmp_path / "full.db"), FACTORS)
    limited(full.ledger, 8)
    with pytest.raises(LedgerError, match=r"full.db: nothing was written: .*full"):
        rows = records()
        for at in range(0, len(rows), 100):
            full.take(rows[at : at + 100])
            full.commit()
    full.ledger.close()
    again = Sidecar(DESCRIBE, Ledger(tmp_path / "full.db"), FACTORS)
    assert again.ledger.verify() == []
    catch_up(again, Journal(records()))
    again.commit()
    assert [(e.start_utc_s, e.body) for e in again.ledger.entries("period")] == [
        (e.start_utc_s, e.body) for e in whole.ledger.entries("period")
    ]


def test_a_database_that_may_not_be_written_says_so_and_nothing_is_lost(tmp_path):
    one = Sidecar(DESCRIBE, Ledger(tmp_path / "l.db"), FACTORS)
    rows = records()
    catch_up(one, Journal(rows[:1000]))
    one.commit()
    one.ledger.close()
    shut = Sidecar(DESCRIBE, Ledger(tmp_path / "l.db", read_only=True), FACTORS)
    with pytest.raises(LedgerError, match="nothing was written: attempt to write a readonly database"):
        catch_up(shut, Journal(rows))
        shut.commit()
    again = Sidecar(DESCRIBE, Ledger(tmp_path / "l.db"), FACTORS)
    catch_up(again, Journal(rows))
    again.commit()
    assert sum(e.body["records"] for e in again.ledger.entries("period")) == len(rows)
    assert verify(again.ledger) == []


def test_a_tampered_key(tmp_path):
    one = Sidecar(DESCRIBE, Ledger(tmp_path / "l.db"), FACTORS)
    catch_up(one, Journal(records()[:400]))
    one.commit()
    path = tmp_path / "k.pem"
    public = DeviceKey.at(path).public
    sign(one.ledger, DeviceKey.at(path), "s", least=1)
    good = path.read_bytes()
    other = None
    for at in range(len(good)):
        raw = bytearray(good)
        raw[at] = ord("A") if raw[at] != ord("A") else ord("B")
        path.write_bytes(raw)
        try:
            found = DeviceKey.at(path)
        except KeyFileError as error:
            assert str(error).startswith(f"{path}: ")
            continue
        if found.public != public:
            other = found
    assert other is not None
    # Still a key, and another one: what it signs is named.
    one.ledger.append([("note", 0, {"what": "later"})])
    sign(one.ledger, other, "s", least=1)
    (damage,) = verify(one.ledger, key=public)
    assert "signed by key" in str(damage)
    assert gather(one.ledger, DAY, DAY + 3600)[0]["evidence"]["ledger"]["signature"]["key"] == public
