"""The report on paper: the sections of the page on A4, laid out by fpdf2, with bookmarks; no browser is needed.

Its date is the end of the span, so that equal numbers give equal bytes.
"""

import io
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fpdf import FPDF
from fpdf.enums import TableBordersLayout
from fpdf.fonts import FontFace

from tidegate.runtime.carbon.factors.series import iso
from tidegate.runtime.carbon.report.blocks import Plot, Section, Table, Text
from tidegate.runtime.carbon.report.plots import Drawings
from tidegate.runtime.carbon.report.sections import sections
from tidegate.runtime.carbon.report.view import Report
from tidegate.runtime.charts import charts

CJK = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "SimHei")
LATIN = "DejaVu Sans"  # comes with matplotlib, also bold
LEFT, RIGHT, TOP, BOTTOM = 46.0, 46.0, 46.0, 54.0  # points
WIDE = 7  # columns; a table of more is set smaller
PLOT_DPI = 220


class ReportError(RuntimeError):
    """A report that cannot be made; the text says what is missing."""


def pdf_font(language: str) -> str:
    """A font that has the language's letters. Raises ReportError if the machine has none."""
    from matplotlib import font_manager

    if language != "zh":
        return LATIN
    for again in (False, True):
        known = {font.name for font in font_manager.fontManager.ttflist}
        for name in CJK:
            if name in known:
                return name
        if not again:
            # matplotlib remembers the fonts of its first run; one that was installed since is not in its list.
            seen = {font.fname for font in font_manager.fontManager.ttflist}
            for path in font_manager.findSystemFonts():
                if path not in seen:
                    try:
                        font_manager.fontManager.addfont(path)
                    except (RuntimeError, OSError, ValueError):
                        continue  # a file that is no font that can be embedded
    raise ReportError(
        f"no font with Chinese letters for the PDF; install one of {', '.join(CJK)} (Debian: fonts-wqy-microhei), or "
        "use --no-pdf"
    )


def font_file(name: str, weight: str = "normal") -> Path:
    """Where a font that `pdf_font` gave lies."""
    from matplotlib import font_manager

    return Path(font_manager.findfont(font_manager.FontProperties(family=[name], weight=weight)))


class Paper(FPDF):
    """A4 pages with a line of origin and the page's number below each."""

    def __init__(self, report: Report, footer: str) -> None:
        super().__init__(unit="pt", format="A4")
        self.report = report
        self.footer_text = footer
        self.set_margins(LEFT, TOP, RIGHT)
        self.set_auto_page_break(True, BOTTOM)
        self.set_lang(report.language.code)
        self.set_producer("tidegate")
        self.set_creation_date(datetime.fromtimestamp(report.d["span"]["to_utc_s"], UTC))
        font = pdf_font(report.language.code)
        self.add_font("latin", fname=font_file(LATIN))
        self.add_font("latin", "B", fname=font_file(LATIN, "bold"))
        self.family, self.bold = "latin", "B"
        if font != LATIN:
            self.add_font("letters", fname=font_file(font))
            self.family, self.bold = "letters", ""
            self.set_fallback_fonts(["latin"])
        self.add_page()

    def ink(self, colour: str, size: float, style: str = "") -> None:
        """The colour and the size of what is written next."""
        self.set_text_color(colour)
        self.set_font(self.family, style if self.bold else "", size)

    def footer(self) -> None:
        _ = self.report.text
        self.set_y(-BOTTOM + 12)
        self.set_draw_color(charts.RULE)
        self.line(LEFT, self.y, self.w - RIGHT, self.y)
        self.ink(charts.MUTED, 6.5)
        self.set_y(-BOTTOM + 18)
        self.cell(0, 8, self.footer_text)
        number = _("page {page} of {pages}").format(page=self.page_no(), pages=self.str_alias_nb_pages)
        self.set_x(LEFT)
        self.cell(0, 8, number, align="R")

    def paragraph(self, text: str, size: float, colour: str, style: str = "") -> None:
        self.ink(colour, size, style)
        self.multi_cell(0, size * 1.4, text, align="L", new_x="LMARGIN", new_y="NEXT")

    def need(self, height: float) -> None:
        """Begin a new page if a height does not fit any more."""
        if self.will_page_break(height):
            self.add_page()


def pdf_pages(report: Report, drawings: Drawings) -> bytes:
    """The report as a PDF. Raises ReportError for a font that is missing."""
    d, _ = report.d, report.text
    span = f"{iso(d['span']['from_utc_s'])} - {iso(d['span']['to_utc_s'])}"
    paper = Paper(report, f"{d['site']} · {span} · {_('digest of these numbers')} {d['sha256'][:16]}")
    title = f"{_('Energy and carbon account')}: {d['site']}"
    paper.set_title(title)
    paper.paragraph(title, 18, charts.INK, "B")
    paper.ln(4)
    paper.paragraph(f"{span} · {report.subtitle()}", 9, charts.MUTED)
    paper.ln(4)
    paper.paragraph(f"{_('Scope')}: {report.scope}", 8, charts.MUTED)
    for section in sections(report):
        _section(paper, section, drawings)
    return bytes(paper.output())


def _section(paper: Paper, section: Section, drawings: Drawings) -> None:
    first = section.blocks[0] if section.blocks else None
    paper.need(250.0 if isinstance(first, Plot) and first.name != "idle" else 90.0)
    paper.ln(12)
    paper.set_draw_color(charts.RULE)
    paper.line(LEFT, paper.y, paper.w - RIGHT, paper.y)
    paper.ln(6)
    paper.start_section(section.title)
    paper.paragraph(section.title, 12, charts.INK, "B")
    for block in section.blocks:
        if isinstance(block, Plot):
            _plot(paper, block.name, section.title, drawings)
        elif isinstance(block, Table):
            _table(paper, block)
        else:
            _text(paper, block)


def _plot(paper: Paper, name: str, title: str, drawings: Drawings) -> None:
    paper.ln(4)
    if name in ("energy", "carbon"):
        _sankey(paper, name, title, drawings)
        return
    png = drawings.png(
        name, paper.epw, 200.0 if name == "time" else 110.0, PLOT_DPI, [pdf_font(paper.report.language.code)]
    )
    paper.image(io.BytesIO(png), w=paper.epw, alt_text=title)


def _sankey(paper: Paper, name: str, title: str, drawings: Drawings) -> None:
    """Its shapes as a drawing, its labels as text that can be searched."""
    laid, unit, digits = drawings.flows()[name]
    scale = min(paper.epw / laid.width, (paper.eph - 60) / laid.height)
    paper.need(laid.height * scale)
    x0, y0 = LEFT, paper.y
    shapes = charts.sankey_svg(laid, unit=unit, title=title, middle="", digits=digits)
    shapes = re.sub(r"<text.*?</text>|<title>.*?</title>", "", shapes)
    paper.image(io.BytesIO(shapes.encode()), x0, y0, laid.width * scale, laid.height * scale, alt_text=title)
    paper.ink(charts.MUTED, 7.2)
    middle = drawings.middle
    paper.text(x0 + (laid.bus_x + charts.BAR / 2) * scale - paper.get_string_width(middle) / 2, y0 + 10 * scale, middle)
    paper.ink(charts.INK, 7.2)
    for band in laid.bands:
        label = f"{band.label} {drawings.report.language.number(band.amount, digits)} {unit}"
        x = x0 + band.text_x * scale - (paper.get_string_width(label) if band.left else 0.0)
        paper.text(x, y0 + band.text_y * scale, label)
    paper.set_y(y0 + laid.height * scale)


def _text(paper: Paper, block: Text) -> None:
    if block.kind == "head":
        paper.need(60)
        paper.ln(10)
        paper.start_section(block.text, level=1)
        paper.paragraph(block.text, 9.5, charts.INK, "B")
        return
    paper.ln(4)
    size = 8.0 if block.kind in ("note", "list", "code") else 9.0
    colour = charts.INK if block.kind in ("p", "code") else charts.MUTED
    paper.paragraph(f"· {block.text}" if block.kind == "list" else block.text, size, colour)


def _table(paper: Paper, table: Table) -> None:
    """Columns as wide as they need, the head again on each page."""
    shown = table.rows[: table.print_rows]
    if shown:
        rows = [table.head, *shown] if table.head else list(shown)
        size = 8.0 if len(rows[0]) <= WIDE else 6.2
        paper.ln(4)
        paper.ink(charts.INK, size)
        paper.set_draw_color(charts.RULE)
        widths = _widths(paper, [[cell.text for cell in row] for row in rows], bool(table.head))
        with paper.table(
            width=min(paper.epw, sum(widths)), col_widths=widths, align="LEFT", line_height=size * 1.4,
            padding=(1.5, 4), text_align=tuple("RIGHT" if cell.number else "LEFT" for cell in rows[-1]),
            borders_layout=TableBordersLayout.HORIZONTAL_LINES, first_row_as_headings=bool(table.head),
            headings_style=FontFace(color=charts.MUTED, emphasis="NONE"),
        ) as made:  # fmt: skip
            for row in rows:
                cells = made.row()
                for cell in row:
                    cells.cell(cell.text)
    if len(table.rows) > len(shown):
        more = len(table.rows) - len(shown)
        paper.ln(4)
        paper.paragraph(f"… {more}" if shown else f"… {more}: report.periods.csv", 8, charts.MUTED)


def _widths(paper: Paper, rows: Sequence[Sequence[str]], spread: bool) -> list[float]:
    """What each column needs; where that is too much, the widest give way, and what is left over is spread."""
    room = paper.epw
    widths = [max(paper.get_string_width(text) for text in column) + 9 for column in zip(*rows, strict=True)]
    while sum(widths) > room:
        widest = max(widths)
        second = max((width for width in widths if width < widest), default=0.0)
        count = widths.count(widest)
        target = max(second, widest - (sum(widths) - room) / count)
        widths = [min(width, target) for width in widths]
        if target != second:
            break
    if spread:
        widths = [width + max(0.0, room - sum(widths)) / len(widths) for width in widths]
    elif sum(widths) < room:  # label and value: the values stand in one column, not at the far edge
        widths[0] = max(widths[0], min(200.0, room - sum(widths[1:])))
    return widths
