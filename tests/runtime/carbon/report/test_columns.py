"""A column of the account by period stands in one place, and page, print, CSV and manual show it."""

import csv
import dataclasses
import io
import shutil
import subprocess
from pathlib import Path

import pytest

from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.report import columns, periods, proof_sections, write
from tidegate.runtime.carbon.report.columns import BEGIN, COLUMNS, END, KWH, Column, as_markdown, write_manual

ROOT = Path(__file__).parents[4]
OLD = ROOT / "tests" / "data" / "carbon" / "ledger-v1.db"
DAY = 1_678_838_400


@pytest.fixture
def ledger(tmp_path):
    shutil.copy(OLD, tmp_path / "l.db")
    return Ledger(tmp_path / "l.db", read_only=True)


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def test_the_columns_of_the_csv_add_up_to_the_report(ledger, tmp_path):
    found = write.write(ledger, DAY, DAY + 86_400, tmp_path / "r", pdf=False)
    rows = rows_of(found["periods csv"])
    assert len(rows) == 24 and [row["start_utc"] for row in rows[:2]] == ["2023-03-15T00:00Z", "2023-03-15T01:00Z"]
    flows = rows_of(found["csv"])
    for column, kind in (("import_kwh", "import"), ("charge_kwh", "charge"), ("export_kwh", "export")):
        mine = sum(float(row["energy_kwh"]) for row in flows if row["kind"] == kind)
        assert sum(float(row[column]) for row in rows) == pytest.approx(mine, abs=1e-9) and mine > 0
    for row in rows:
        if float(row["import_kwh"]):
            assert 30 < float(row["grid_g_per_kwh"]) < 400
        else:
            assert row["grid_g_per_kwh"] == ""


def test_one_column_more_is_on_the_page_in_print_in_the_csv_and_in_the_manual(ledger, tmp_path, monkeypatch):
    """Nothing but the row in COLUMNS is needed."""
    more = Column("peak_kwh", "twice the import", "kWh", lambda f: 2 * f.kinds.get("import", 0), KWH, "for this test")
    monkeypatch.setattr(columns, "COLUMNS", (*COLUMNS, more))
    for module in (periods, proof_sections):
        monkeypatch.setattr(module, "COLUMNS", columns.COLUMNS)
    monkeypatch.setattr(write, "CSV_HEAD", (*columns.CSV_HEAD[:-2], more.id, *columns.CSV_HEAD[-2:]))
    found = write.write(ledger, DAY, DAY + 86_400, tmp_path / "r")
    rows = rows_of(found["periods csv"])
    assert all(float(row["peak_kwh"]) == pytest.approx(2 * float(row["import_kwh"]), abs=2e-6) for row in rows)
    page = found["html en"].read_text(encoding="utf-8")
    assert "twice the import" in page and f">{2 * float(rows[1]['import_kwh']):,.3f}<" in page
    assert "| `peak_kwh` | twice the import | for this test |" in as_markdown()
    if shutil.which("pdftotext"):
        text = subprocess.run(["pdftotext", "-layout", found["pdf en"], "-"], capture_output=True, text=True).stdout
        assert "twice" in text and f"{2 * float(rows[1]['import_kwh']):,.3f}" in text


def test_ids_end_in_their_unit_and_stand_once():
    assert len({column.id for column in COLUMNS}) == len(COLUMNS)
    ends = {"kWh": "_kwh", "g/kWh": "_g_per_kwh", "kg CO2e": "_kg"}
    assert all(column.id.endswith(ends[column.unit]) for column in COLUMNS)
    assert all(dataclasses.asdict(column)["about"] for column in COLUMNS)


def test_the_manual_has_the_columns():
    page = (ROOT / "docs" / "carbon-reports.md").read_text(encoding="utf-8")
    shown = page.partition(BEGIN)[2].partition(END)[0]
    assert shown == as_markdown(), f"run python -m {columns.__name__} docs/carbon-reports.md"


def test_a_page_without_a_place_for_the_columns_is_refused(tmp_path):
    (tmp_path / "x.md").write_text("# nothing\n")
    with pytest.raises(ValueError, match="no place for the columns"):
        write_manual(tmp_path / "x.md")


def test_print_has_bookmarks_and_says_its_language(ledger, tmp_path):
    found = write.write(ledger, DAY, DAY + 86_400, tmp_path / "r")
    raw = found["pdf en"].read_bytes()
    assert raw.count(b"/Title") > 10 and b"/Outlines" in raw and b"/Lang (en)" in raw
    assert b"/CreationDate (D:20230316000000Z" in raw
