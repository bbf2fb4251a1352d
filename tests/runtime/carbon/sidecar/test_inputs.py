"""Factor and reading files that change while the sidecar runs."""

from tests.runtime.carbon.sidecar.test_service import DESCRIBE, HOUR, Journal, journal
from tidegate.runtime.carbon.factors.files import COLUMNS
from tidegate.runtime.carbon.factors.series import iso as stamp
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.report.document import gather
from tidegate.runtime.carbon.sidecar.service import Sidecar, catch_up


def table(path, value, start=HOUR, end=HOUR + 86_400, unit="g/kWh"):
    row = (stamp(start), stamp(end), "X", value, unit, "average", "direct", "actual", f"table {path.name}", "1")
    path.write_text(",".join(COLUMNS) + "\n" + ",".join(map(str, row)) + "\n")


def site(**carbon):
    return {**DESCRIBE, "carbon": carbon}


def test_a_new_factor_file_holds_from_the_next_period_on_without_a_restart(tmp_path):
    (tmp_path / "f").mkdir()
    table(tmp_path / "f" / "a.csv", 200, end=HOUR + 1800)
    one = Sidecar(site(factors="f"), Ledger(tmp_path / "l.db"), folder=tmp_path)
    records = journal(5400)
    assert one.refresh() == []
    catch_up(one, Journal(records[:1000]))
    table(tmp_path / "f" / "b.csv", 90, start=HOUR + 1800)
    assert one.refresh() == []
    catch_up(one, Journal(records))
    one.commit()
    booked = [entry.body["factors"]["grid"] for entry in one.ledger.entries("period")]
    assert [row["ug_per_kwh"] // 1_000_000 for row in booked] == [200, 200, 90, 90, 90, 90]
    assert [entry.body["grid"]["source"] for entry in one.ledger.entries("factor")] == ["table a.csv"]
    document = gather(one.ledger, HOUR, HOUR + 5400)[0]
    assert document["factors"]["grid"]["sha256"] == one.factors.grid.sha256
    assert one.ledger.verify() == []


def test_a_file_that_cannot_be_used_changes_nothing_and_marks_the_periods(tmp_path):
    (tmp_path / "f").mkdir()
    table(tmp_path / "f" / "a.csv", 200)
    one = Sidecar(site(factors="f"), Ledger(tmp_path / "l.db"), folder=tmp_path)
    records = journal(5400)
    one.refresh()
    catch_up(one, Journal(records[:1000]))
    table(tmp_path / "f" / "b.csv", 200_000, start=HOUR + 86_400, end=HOUR + 90_000)
    (trouble,) = one.refresh()
    assert "b.csv, line 2: factor 200000 g/kWh is above 3 kg/kWh" in trouble
    assert one.refresh() == [trouble]
    catch_up(one, Journal(records[:3000]))
    (tmp_path / "f" / "b.csv").unlink()
    assert one.refresh() == []
    catch_up(one, Journal(records))
    one.commit()
    periods = list(one.ledger.entries("period"))
    assert {p.body["factors"]["grid"]["ug_per_kwh"] for p in periods} == {200_000_000}
    assert ["INPUT_REFUSED" in p.body["flags"] for p in periods] == [False, True, True, False, False, False]
    assert [e.body["what"] for e in one.ledger.entries("note")] == [trouble]
    assert gather(one.ledger, HOUR, HOUR + 5400)[0]["flags"]["INPUT_REFUSED"] == 2
    assert sum(p.body["records"] for p in periods) == 5400


def test_readings_of_water_come_in_while_it_runs(tmp_path):
    one = Sidecar(site(readings="r.csv"), Ledger(tmp_path / "l.db"), folder=tmp_path)
    assert "r.csv" in one.refresh()[0]
    head = "time_utc,meter,quantity,reading,unit\n"
    (tmp_path / "r.csv").write_text(f"{head}{stamp(HOUR)},w,water,1,m3\n")
    assert one.refresh() == []
    (tmp_path / "r.csv").write_text(f"{head}{stamp(HOUR)},w,water,1,m3\n{stamp(HOUR + 3600)},w,water,2,m3\n")
    assert one.refresh() == []
    assert [entry.body["rows"][0][1] for entry in one.ledger.entries("reading")] == [1_000_000, 2_000_000]
    again = Sidecar(site(readings="r.csv"), Ledger(tmp_path / "l.db"), folder=tmp_path)
    again.refresh()
    assert len(list(again.ledger.entries("reading"))) == 2
