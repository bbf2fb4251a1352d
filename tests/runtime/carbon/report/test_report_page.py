"""The report as its reader sees it: every number leads somewhere, and the page and print say the same."""

import re
import shutil
import subprocess
from types import SimpleNamespace

import pytest

from tests.runtime.carbon.report.test_write import DAY, ledger  # noqa: F401  (a fixture)
from tidegate.runtime.carbon.jobs.settle import settle
from tidegate.runtime.carbon.jobs.work import Work
from tidegate.runtime.carbon.report import paper
from tidegate.runtime.carbon.report.blocks import Table
from tidegate.runtime.carbon.report.columns import COLUMNS
from tidegate.runtime.carbon.report.document import gather
from tidegate.runtime.carbon.report.pdf import ReportError, pdf_font
from tidegate.runtime.carbon.report.periods import Rows
from tidegate.runtime.carbon.report.sections import sections
from tidegate.runtime.carbon.report.view import Report
from tidegate.runtime.carbon.report.write import write
from tidegate.runtime.charts import charts


@pytest.fixture
def busy(ledger):  # noqa: F811
    """The day with two jobs and the rest of it idle."""
    works = [Work("a <1>", DAY + 3600, DAY + 9000, "lab", slots=8, units={"job": 1000, "gpu_hour": 12_000}),
             Work("b", DAY + 40_000, DAY + 50_000, "", slots=8, units={"job": 1000})]  # fmt: skip
    assert settle(ledger, works, ["log, line 7: job x lasts 0 s; it is not counted"], DAY, DAY + 86_400) == 1
    return ledger


def pages(busy, tmp_path):
    found = write(busy, DAY, DAY + 86_400, tmp_path / "r", languages=("en", "zh"), pdf=False)
    return {language: found[f"html {language}"].read_text(encoding="utf-8") for language in ("en", "zh")}


def test_every_link_leads_to_a_row_or_a_file_of_the_report(busy, tmp_path):
    for language, page in pages(busy, tmp_path).items():
        ids = re.findall(r' id="([^"]+)"', page)
        assert len(ids) == len(set(ids)), "an id stands twice"
        links = re.findall(r'href="([^"]+)"', page)
        assert len(links) > 150
        for link in links:
            if link.startswith("#"):
                assert link[1:] in ids, (language, link)
            else:
                assert (tmp_path / "r" / link).is_file(), (language, link)


def test_every_number_of_a_result_is_a_link(busy):
    rows = Rows(96, 86_400)
    document, *_ = gather(busy, DAY, DAY + 86_400, each=rows.add)
    for language in ("en", "zh"):
        report = Report(document, rows, language, ["report.csv", "report.jobs.csv", "report.idle.csv"])
        cells = [cell for section in sections(report) for block in section.blocks
                 if isinstance(block, Table) and not block.leaf for row in block.rows for cell in row]  # fmt: skip
        without = [cell.text for cell in cells if re.search(r"\d", cell.text) and cell.number and not cell.to]
        assert not without
        assert sum(cell.number for cell in cells) > 80


def row_of(page, row_id):
    found = re.search(rf'<tr id="{re.escape(row_id)}">.*?</tr>', page, flags=re.S)
    assert found is not None, row_id
    return found.group(0)


def test_a_number_leads_through_its_flow_to_its_gap_and_its_quarter_hour(busy, tmp_path):
    page = pages(busy, tmp_path)["en"]
    assert 'href="#flow-it.load"' in row_of(page, "out-it")
    made = page[page.index('<tr id="flow-it.load">') :]
    assert re.search(r'estimated.*?href="#gap-0"', made[: made.index("flow-roof.generation")], flags=re.S)
    gap = row_of(page, "gap-0")
    assert f'href="#p-{DAY + 18_000}"' in gap
    quarter = row_of(page, f"p-{DAY + 18_000}")
    assert 'href="#gap-0"' in quarter and 'href="#status-' in quarter


def test_jobs_idle_energy_and_shifting_are_sections_with_their_numbers(busy, tmp_path):
    document, *_ = gather(busy, DAY, DAY + 86_400)
    page = pages(busy, tmp_path)["en"]
    compute = document["compute"]
    assert f">{compute['idle_milliwh'] / 1e6:,.3f} kWh<" in page
    assert f">{compute['units']['gpu_hour']['amount_milli'] / 1000:g}<" in row_of(page, "unit-gpu_hour")
    assert "a &lt;1&gt;" in page and "line 7: job x lasts 0 s" in page
    moved = document["shifting"]
    assert moved["average"]["ratio_ppm"] == (
        moved["average"]["at_discharge_ug_per_kwh"] * 10**6 // moved["average"]["at_charge_ug_per_kwh"]
    )
    assert moved["marginal"]["ratio_ppm"] == 10**6  # one marginal factor all day: shifting cannot have paid
    assert moved["marginal"]["above_break_even"] is False and moved["break_even_ppm"] == 1_062_813
    assert f"{moved['average']['ratio_ppm'] / 1e6:.4f}" in page


def test_the_rows_behind_a_span_add_up_to_its_energy(ledger):  # noqa: F811
    for count, length, kind, many in ((96, 86_400, "quarter", 96), (2976, 31 * 86_400, "day", 1),
                                      (40_000, 500 * 86_400, "month", 1)):  # fmt: skip
        rows = Rows(count, length)
        document, *_ = gather(ledger, DAY, DAY + 86_400, each=rows.add)
        assert (rows.kind, len(rows.rows)) == (kind, many)
        energy, carbon_ug = ([column.id for column in COLUMNS].index(name) for name in ("import_kwh", "grid_g_per_kwh"))
        assert sum(row.values[energy][0] for row in rows.rows) == document["energy_milliwh"]["inflow"]["grid"]
        assert sum(row.values[carbon_ug][0] for row in rows.rows) == document["carbon_ug"]["inflow"]["grid"]
        assert sum(row.periods for row in rows.rows) == 96
        assert rows.rows[0].first_seq == document["ledger"]["first_seq"]
        assert rows.row_at(DAY + 86_399) == rows.rows[-1].start_utc_s and rows.row_at(DAY + 86_400) is None


def test_a_label_too_long_for_its_margin_is_shortened_not_clipped():
    laid = charts.layout([("a" * 80, 3.0, "#000")], [("短" * 60, 3.0, "#000")], "kWh")
    for band in laid.bands:
        width = charts.text_width(f"{band.label} {band.amount:,.1f} kWh")
        edge = band.text_x - width if band.left else laid.width - band.text_x - width
        assert band.label.endswith("…") and edge > 0


def test_nodes_without_a_colour_of_their_own_are_told_apart():
    found = charts.colours(["rack1", "rack2", "grid", "roof", "cabinet"], ["cabinet"], ["roof"])
    assert len(set(found.values())) == 5
    assert (found["grid"], found["roof"], found["cabinet"]) == (charts.GRID, charts.PV, charts.BATTERY)


def printed_text(path):
    if shutil.which("pdftotext") is None:
        pytest.skip("no pdftotext on this machine (Debian: poppler-utils)")
    return subprocess.run(["pdftotext", "-layout", path, "-"], check=True, capture_output=True, text=True).stdout


def test_print_has_the_numbers_of_the_page_and_its_page_numbers(busy, tmp_path):
    found = write(busy, DAY, DAY + 86_400, tmp_path / "r")
    text = printed_text(found["pdf en"])
    page = found["html en"].read_text(encoding="utf-8")
    section = page[page.index('id="section-carbon"') : page.index('id="section-time"')]
    numbers = re.findall(r">([\d,]+\.\d{3})<", section)
    assert len(numbers) > 15 and all(number in text for number in numbers)
    assert "page 1 of " in text and "Period by period" in text


def test_print_in_chinese_has_its_letters(busy, tmp_path):
    try:
        pdf_font("zh")
    except ReportError:
        pytest.skip("no font with Chinese letters on this machine (Debian: fonts-wqy-microhei)")
    found = write(busy, DAY, DAY + 86_400, tmp_path / "r", languages=("zh",))
    text = printed_text(found["pdf zh"])
    assert "能源与碳账目" in text and "逐周期" in text


def test_a_font_installed_after_the_first_report_is_found(monkeypatch):
    """matplotlib keeps a list of fonts from its first run; ours looks again before it gives up."""
    from matplotlib import font_manager

    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    added = []
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: ["/new/font.ttf"])

    def add(path):
        added.append(path)
        font_manager.fontManager.ttflist = [SimpleNamespace(fname=path, name="SimHei")]

    monkeypatch.setattr(font_manager.fontManager, "addfont", add)
    assert pdf_font("zh") == "SimHei" and added == ["/new/font.ttf"]


def test_a_font_with_cff_outlines_prints_letters_that_can_be_read(monkeypatch, busy, tmp_path):
    """Noto and Source Han come with CFF outlines in most installations."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.t2CharStringPen import T2CharStringPen

    letters = sorted({ord(letter) for letter in (paper.CJK[0] + "能源与碳账目")})
    names = {letter: f"u{letter:04X}" for letter in letters}
    made = FontBuilder(1000, isTTF=False)
    made.setupGlyphOrder([".notdef", *names.values()])
    made.setupCharacterMap(names)
    pen = T2CharStringPen(500, None)
    pen.moveTo((0, 0))
    pen.lineTo((400, 0))
    pen.lineTo((400, 700))
    pen.closePath()
    glyph = pen.getCharString()
    made.setupCFF("x", {}, {name: glyph for name in [".notdef", *names.values()]}, {})
    made.setupHorizontalMetrics({name: (500, 0) for name in [".notdef", *names.values()]})
    made.setupHorizontalHeader(ascent=800, descent=-200)
    made.setupNameTable({"familyName": "x", "styleName": "Regular"})
    made.setupOS2()
    made.setupPost()
    made.save(tmp_path / "x.otf")
    latin = paper.font_file(paper.LATIN)
    monkeypatch.setattr(paper, "pdf_font", lambda language: "x")
    monkeypatch.setattr(paper, "font_file", lambda name, weight="normal": tmp_path / "x.otf" if name == "x" else latin)
    monkeypatch.setattr("tidegate.runtime.carbon.report.write.pdf_font", lambda language: "x")
    found = write(busy, DAY, DAY + 86_400, tmp_path / "r", languages=("zh",))
    assert "能源与碳账目" in printed_text(found["pdf zh"])
