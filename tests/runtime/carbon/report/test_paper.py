"""Print: tagged pages with a title, bookmarks and contents; whoever listens hears everything once, in order."""

import re
import shutil
import subprocess
import zlib

import pytest

from tests.runtime.carbon.report.test_report_page import busy  # noqa: F401  (a fixture)
from tests.runtime.carbon.report.test_write import DAY, ledger  # noqa: F401  (a fixture)
from tidegate.runtime.carbon.report.blocks import Cell
from tidegate.runtime.carbon.report.paper import BOTTOM, TaggedPages
from tidegate.runtime.carbon.report.write import write


def pages_of(raw):
    """The uncompressed contents of each page, in order of the file."""
    found = []
    for match in re.finditer(rb"stream\r?\n(.*?)\r?\nendstream", raw, re.S):
        try:
            text = zlib.decompress(match[1])
        except zlib.error:
            continue
        if b"BDC" in text:
            found.append(text)
    return found


def told(path, *options):
    if shutil.which("pdfinfo") is None:
        pytest.skip("pdfinfo is not installed")
    return subprocess.run(["pdfinfo", *options, str(path)], capture_output=True, text=True, check=True).stdout


def test_everything_that_is_shown_is_tagged_or_decoration(busy, tmp_path):  # noqa: F811
    made = write(busy, DAY, DAY + 86_400, tmp_path / "r")
    pages = pages_of(made["pdf en"].read_bytes())
    assert len(pages) > 4
    for page in pages:
        depth = 0
        for line in page.split(b"\n"):
            begins = line.endswith((b"BDC", b"BMC"))
            depth += begins
            assert depth <= 1, "nothing lies in two elements"
            shows = re.search(rb"\) Tj|\] TJ| Do\b|> Tj", line) is not None
            assert depth or not shows, line[:80]
            depth -= line.endswith(b"EMC") and not begins
        numbers = [int(n) for n in re.findall(rb"/MCID (\d+)", page)]
        assert numbers == list(range(len(numbers))), "each number once, as the page's list of parents counts"


def test_title_bookmarks_contents_and_structure_are_there(busy, tmp_path):  # noqa: F811
    path = write(busy, DAY, DAY + 86_400, tmp_path / "r")["pdf en"]
    head = told(path)
    assert re.search(r"Title: +Energy and carbon account: hall <7>", head) and re.search(r"Tagged: +yes", head)
    assert path.read_bytes().count(b"/DisplayDocTitle true") == 1
    spoken = told(path, "-struct-text")
    kinds = re.findall(r"^ *(H1|H2|H3|P|TOC|TOCI|Table|TR|TH|TD|Figure|Caption)\b", spoken, re.M)
    assert kinds[0] == "H1" and kinds.count("H1") == 1 and kinds.count("Figure") >= 4
    assert kinds.count("H2") > 10 and kinds.count("TR") > 60 and kinds.count("TH") > 20
    first = spoken.index("TOC")
    assert spoken.index("What happened") < first < spoken.index("The highest demands"), "the order of reading"
    contents = spoken[first : spoken.index("Table", first)]
    assert re.search(r'"Indicators +\d+"', contents) and re.search(r'"Ledger +\d+"', contents)
    assert b"/Outlines" in path.read_bytes()


def test_contents_name_the_page_on_which_a_section_begins(busy, tmp_path):  # noqa: F811
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed")
    path = write(busy, DAY, DAY + 86_400, tmp_path / "r", languages=("de",))["pdf de"]
    text = subprocess.run(["pdftotext", "-layout", str(path), "-"], capture_output=True, text=True, check=True).stdout
    pages = text.split("\f")
    rows = re.findall(r"^ *(\S.*?\S) {3,}(\d+)$", pages[0][pages[0].index("Inhalt") :], re.M)
    assert len(rows) > 10
    for title, number in rows[1:]:
        assert re.search(rf"^ *{re.escape(title)}", pages[int(number) - 1], re.M), (title, number)


def test_a_paragraph_and_a_table_go_on_on_the_next_page():
    paper = TaggedPages("en", "t", 1_700_000_000, "foot", "page {page} of {pages}")
    paper.set_y(paper.h - BOTTOM - 30)
    paper.paragraph("word " * 400, 10, "#000000")
    assert paper.page == 2
    head = (Cell("name"), Cell("value", number=True))
    paper.draw_table(head, [(Cell(f"row {n} " + "long " * 30), Cell(str(n), number=True)) for n in range(60)], 8)
    last = paper.page
    assert last >= 4
    raw = bytes(paper.output())
    assert sum(page.count(b"/TH <<") for page in pages_of(raw)) >= 2 * (last - 1), "the head stands on each page again"


def test_the_paper_argues_and_has_its_evidence_as_an_annex(busy, tmp_path):  # noqa: F811
    account, paper = (write(busy, DAY, DAY + 86_400, tmp_path / name, pdf=False, template=name)
                      for name in ("account", "paper"))  # fmt: skip
    assert account["json"].read_bytes() == paper["json"].read_bytes()
    page = paper["html en"].read_text(encoding="utf-8")
    titles = re.findall(r"<h2[^>]*>([^<]+)</h2>", page)
    assert "Energy and carbon white paper: hall" in page
    assert titles[:3] == ["What happened", "Demand", "What the battery changed"]
    assert titles.index("Energy by flow") < titles.index("How each number was made")
    annex = [title for title in titles if title.startswith("Annex")]
    assert annex == titles[-4:] and annex[1] == "Annex B: Same-period electricity evidence record"


def test_no_table_of_a_report_has_a_column_that_says_nothing(busy, tmp_path):  # noqa: F811
    page = write(busy, DAY, DAY + 86_400, tmp_path / "r", pdf=False)["html en"].read_text(encoding="utf-8")
    for table in re.findall(r"<table>.*?</table>", page, re.S):
        if "<th" not in table:
            continue
        rows = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.S) for row in re.findall(r"<tr.*?</tr>", table, re.S)]
        rows = [[re.sub(r"<[^>]+>", "", cell).strip() for cell in row] for row in rows if row]
        assert rows, "no table without a row"
        for column in list(zip(*rows, strict=True))[1:]:
            assert any(cell not in ("", "-") for cell in column), table[:300]
