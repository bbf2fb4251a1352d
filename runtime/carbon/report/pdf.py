"""The report on paper: the sections of the page on A4, laid out by fpdf2, tagged, with bookmarks; no browser.

The first page says who sends what: operator, address, period, what happened, and where to find the rest. Its date is
the end of the span, so that equal numbers give equal bytes.
"""

import re

from fpdf import FPDF
from fpdf.outline import OutlineSection

from tidegate.runtime.carbon.report.blocks import Plot, Section, Table, Text
from tidegate.runtime.carbon.report.paper import (
    LEFT,
    RIGHT,
    TOP,
    ReportError,
    TaggedPages,
    font_file,
    pdf_font,
)
from tidegate.runtime.carbon.report.plots import Drawings
from tidegate.runtime.carbon.report.sections import sections
from tidegate.runtime.carbon.report.story import story
from tidegate.runtime.carbon.report.view import Report
from tidegate.runtime.charts import charts

WIDE = 7  # columns; a table of more is set smaller
PLOT_DPI = 220
PLOT_HEIGHTS = {"time": 200.0, "demand": 190.0}  # points; others are 110
LOGO_WIDTH, LOGO_HEIGHT = 150.0, 56.0  # at most
__all__ = ["ReportError", "font_file", "pdf_font", "pdf_pages"]


def pdf_pages(report: Report, drawings: Drawings) -> bytes:
    """The report as a PDF. Raises ReportError for a font that is missing."""
    d, _ = report.d, report.text
    footer = f"{d['site']} · {report.period_text} · {_('digest of these numbers')} {d['sha256'][:16]}"
    paper = TaggedPages(report.language.code, report.title, d["span"]["to_utc_s"], footer,
                        _("page {page} of {pages}"))  # fmt: skip
    if report.letterhead is not None:
        paper.set_author(report.letterhead.operator)
    made = sections(report)
    _first_page(paper, report, made)
    for section in made:
        if section.id != "story":
            _section(paper, section, drawings)
    return bytes(paper.output())


def _first_page(paper: TaggedPages, report: Report, made: list[Section]) -> None:
    """Who sends it, of what and when, what happened, and the contents."""
    _ = report.text
    head = report.letterhead
    if head is not None:
        _sender(paper, report)
    paper.paragraph(report.title, 20, charts.INK, "B", "H1")
    paper.ln(2)
    paper.paragraph(report.period_text, 11, charts.INK)
    paper.paragraph(report.subtitle(), 9, charts.MUTED)
    paper.ln(14)
    paper.start_section(_("What happened"))
    paper.paragraph(_("What happened"), 12, charts.INK, "B", "H2")
    paper.ln(3)
    for sentence in story(report):
        paper.paragraph(sentence, 10, charts.INK)
        paper.ln(4)
    paper.ln(6)
    paper.paragraph(f"{_('Scope')}: {report.scope}", 8, charts.MUTED)
    paper.ln(12)
    paper.paragraph(_("Contents"), 12, charts.INK, "B", "H2")
    contents = paper.structure_here("TOC")

    def render(pages: FPDF, outline: list[OutlineSection]) -> None:
        assert isinstance(pages, TaggedPages)
        with pages.under(contents):
            for entry in outline:
                if entry.level == 0:
                    _contents_line(pages, entry.name, entry.page_number)

    paper.insert_toc_placeholder(render, pages=1)


def _sender(paper: TaggedPages, report: Report) -> None:
    """Operator and address at the left, the logo at the right."""
    head, _ = report.letterhead, report.text
    assert head is not None
    top = paper.y
    if head.logo:
        width, height = paper.size_of(head.logo)
        scale = min(LOGO_WIDTH / width, LOGO_HEIGHT / height)
        paper.figure(head.logo, width * scale, head.operator, x=paper.w - RIGHT - width * scale)
        paper.set_xy(LEFT, top)
    paper.paragraph(head.operator, 10, charts.INK, "B")
    for line in (*head.address, head.contact):
        if line:
            paper.paragraph(line, 8.5, charts.MUTED)
    paper.set_y(max(paper.y, top + (LOGO_HEIGHT if head.logo else 0.0)) + 26)


def _contents_line(paper: TaggedPages, name: str, page: int) -> None:
    paper.ink(charts.INK, 9)
    link = paper.add_link(page=page)
    with paper.tagged("TOCI"):
        paper.set_x(LEFT)
        paper.cell(paper.epw - 30, 13, f"{name} ", link=link)
        paper.cell(30, 13, str(page), align="R", link=link)
    paper.set_xy(LEFT, paper.y + 13)


def _section(paper: TaggedPages, section: Section, drawings: Drawings) -> None:
    first = section.blocks[0] if section.blocks else None
    paper.need(250.0 if isinstance(first, Plot) and first.name != "idle" else 90.0)
    if paper.y > TOP + 1:
        paper.ln(12)
        paper.rule()
        paper.ln(6)
    paper.start_section(section.title)
    paper.paragraph(section.title, 12, charts.INK, "B", "H2")
    for block in section.blocks:
        if isinstance(block, Plot):
            _plot(paper, block.name, section.title, drawings)
        elif isinstance(block, Table):
            _table(paper, block, drawings.report)
        else:
            _text(paper, block)


def _plot(paper: TaggedPages, name: str, title: str, drawings: Drawings) -> None:
    paper.ln(4)
    if name in ("energy", "carbon"):
        _sankey(paper, name, title, drawings)
        return
    height = PLOT_HEIGHTS.get(name, 110.0)
    paper.need(height)
    png = drawings.png(name, paper.epw, height, PLOT_DPI, [paper.face])
    paper.figure(png, paper.epw, title)


def _sankey(paper: TaggedPages, name: str, title: str, drawings: Drawings) -> None:
    """Its shapes as a drawing, its labels as text that can be searched."""
    laid, unit, digits = drawings.flows()[name]
    scale = min(paper.epw / laid.width, (paper.eph - 60) / laid.height)
    paper.need(laid.height * scale)
    x0, y0 = LEFT, paper.y
    shapes = charts.sankey_svg(laid, unit=unit, title=title, middle="", digits=digits)
    shapes = re.sub(r"<text.*?</text>|<title>.*?</title>", "", shapes)
    paper.figure(shapes.encode(), laid.width * scale, title, laid.height * scale)
    paper.ink(charts.MUTED, 7.2)
    middle = drawings.middle
    x = x0 + (laid.bus_x + charts.BAR / 2) * scale - paper.get_string_width(middle) / 2
    with paper.tagged("Caption"):
        paper.text(x, y0 + 10 * scale, middle)
        paper.ink(charts.INK, 7.2)
        for band in laid.bands:
            label = f"{band.label} {drawings.report.language.number(band.amount, digits)} {unit}"
            x = x0 + band.text_x * scale - (paper.get_string_width(label) if band.left else 0.0)
            paper.text(x, y0 + band.text_y * scale, label)
    paper.set_y(y0 + laid.height * scale)


def _text(paper: TaggedPages, block: Text) -> None:
    if block.kind == "head":
        paper.need(60)
        paper.ln(10)
        paper.start_section(block.text, level=1)
        paper.paragraph(block.text, 9.5, charts.INK, "B", "H3")
        return
    paper.ln(4)
    size = 8.0 if block.kind in ("note", "list", "code") else 9.0
    colour = charts.INK if block.kind in ("p", "code") else charts.MUTED
    paper.paragraph(f"· {block.text}" if block.kind == "list" else block.text, size, colour)


def _table(paper: TaggedPages, table: Table, report: Report) -> None:
    """Columns as wide as they need, the head again on each page."""
    shown = table.rows[: table.print_rows]
    if shown:
        paper.ln(4)
        paper.draw_table(table.head, shown, 8.0 if len(shown[0]) <= WIDE else 6.2)
    if len(table.rows) > len(shown):
        more = report.language.plural("{n} more row in the files", "{n} more rows in the files",
                                      len(table.rows) - len(shown))  # fmt: skip
        paper.ln(4)
        paper.paragraph(f"… {more}" if shown else f"… {more}: report.periods.csv", 8, charts.MUTED)
