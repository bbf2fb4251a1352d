"""The report on paper: the sections of the page on A4, by matplotlib, so that print needs no browser.

No date inside: equal numbers give equal bytes.
"""

import io
from collections.abc import Sequence
from typing import Any

from tidegate.runtime.carbon.factors.series import iso
from tidegate.runtime.carbon.report.plots import Drawings
from tidegate.runtime.carbon.report.sections import Cell, Plot, Report, Section, Table, Text
from tidegate.runtime.charts import charts

CJK = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "SimHei")
LATIN = "DejaVu Sans"  # comes with matplotlib, also bold
WIDTH, HEIGHT = 595.0, 842.0  # points, A4
LEFT, RIGHT, TOP, BOTTOM = 46.0, 46.0, 52.0, 54.0
ROOM = WIDTH - LEFT - RIGHT


class ReportError(RuntimeError):
    """A report that cannot be made; the text says what is missing."""


def pdf_font(language: str) -> str:
    """A font that has the language's letters. Raises ReportError if the machine has none."""
    from matplotlib import font_manager

    if language == "en":
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


def _texts() -> Any:
    """An artist that holds all texts of a page: laid out one by one, matplotlib's own take four times as long."""
    from matplotlib.artist import Artist
    from matplotlib.font_manager import FontProperties

    class Texts(Artist):
        def __init__(self) -> None:
            super().__init__()
            self.texts: list[tuple[float, float, str, float, str, str, bool]] = []

        def draw(self, renderer: Any) -> None:
            fonts: dict[tuple[float, str], FontProperties] = {}
            gc = renderer.new_gc()
            for x, y, text, size, colour, weight, right in self.texts:
                if not text:
                    continue
                font = fonts.get((size, weight))
                if font is None:
                    font = fonts[size, weight] = FontProperties(size=size, weight=weight)
                if right:
                    x -= renderer.get_text_width_height_descent(text, font, False)[0]
                gc.set_foreground(colour)
                renderer.draw_text(gc, x, y, text, font, 0.0)
            gc.restore()

    return Texts()


def _embedding(font: str) -> int:
    """How a font goes into the PDF: TrueType as it is (42); one with CFF outlines as glyph drawings (3)."""
    from fontTools.ttLib import TTFont
    from matplotlib import font_manager

    path = font_manager.findfont(font_manager.FontProperties(family=[font]))
    with TTFont(path, fontNumber=0, lazy=True) as opened:
        return 3 if "CFF " in opened or "CFF2" in opened else 42


class Paper:
    """Pages filled from top to bottom. y is the distance from the top, points."""

    def __init__(self, footer: str, bold: bool) -> None:
        from matplotlib.figure import Figure

        self._figure = Figure
        self._bold = bold
        self.footer = footer
        self.pages: list[Any] = []
        self._drawn: list[Any] = []  # the texts of each page
        self.y = 0.0
        self.new_page()

    def new_page(self) -> None:
        self.page = self._figure(figsize=(WIDTH / 72, HEIGHT / 72))
        self._texts = _texts()
        self._drawn.append(self._texts)
        self.page.add_artist(self._texts)
        self.pages.append(self.page)
        self.y = TOP

    def need(self, height: float) -> bool:
        """Begin a new page if a height does not fit any more; whether it did."""
        if self.y + height <= HEIGHT - BOTTOM:
            return False
        self.new_page()
        return True

    def text(self, x: float, y: float, text: str, *, size: float, color: str, weight: str = "normal",
             ha: str = "left") -> None:  # fmt: skip
        weight = weight if self._bold else "normal"
        self._texts.texts.append((x, HEIGHT - y, text, size, color, weight, ha == "right"))

    def line(self, y: float, colour: str = charts.RULE) -> None:
        from matplotlib.lines import Line2D

        at = 1 - y / HEIGHT
        self.page.add_artist(Line2D([LEFT / WIDTH, (WIDTH - RIGHT) / WIDTH], [at, at], color=colour, lw=0.6))

    def axes(self, height: float, left: float = 0.0) -> Any:
        """Axes of a height at the place reached."""
        made = self.page.add_axes(
            ((LEFT + left) / WIDTH, 1 - (self.y + height) / HEIGHT, (ROOM - left) / WIDTH, height / HEIGHT)
        )
        self.y += height
        return made

    def numbered(self, words: Any) -> None:
        for number, page in enumerate(self.pages, 1):
            self.page, self._texts = page, self._drawn[number - 1]
            self.line(HEIGHT - BOTTOM + 12)
            self.text(LEFT, HEIGHT - BOTTOM + 24, self.footer, size=6.5, color=charts.MUTED)
            said = f"{words['page']} {number} {words['of']} {len(self.pages)}"
            if words["of"] != "of":
                said += " 页"
            self.text(WIDTH - RIGHT, HEIGHT - BOTTOM + 24, said, size=6.5, color=charts.MUTED, ha="right")


def wrapped(text: str, width: float, size: float) -> list[str]:
    """Lines of a text no wider than `width` points; Chinese may break anywhere, other words only where they must."""
    lines, line, used = [], "", 0.0
    for piece in _pieces(text):
        wide = charts.text_width(piece, size)
        if used + wide > width and line:
            lines.append(line.rstrip())
            line, used = "", 0.0
            piece = piece.lstrip()
            wide = charts.text_width(piece, size)
        while wide > width:
            cut = max(1, int(len(piece) * width / wide))
            lines.append(piece[:cut])
            piece = piece[cut:]
            wide = charts.text_width(piece, size)
        line, used = line + piece, used + wide
    if line.strip():
        lines.append(line.rstrip())
    return lines or [""]


def _pieces(text: str) -> list[str]:
    found, word = [], ""
    for letter in text:
        if ord(letter) > 0x2E80:
            if word:
                found.append(word)
            found.append(letter)
            word = ""
        elif letter == " ":
            found.append(word + " ")
            word = ""
        else:
            word += letter
    if word:
        found.append(word)
    return found


def pdf_pages(report: Report, drawings: Drawings) -> bytes:
    """The report as a PDF."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_pdf import PdfPages

    d, w = report.d, report.w
    buffer = io.BytesIO()
    font = pdf_font(report.language)
    style = {**charts.STYLE, "font.sans-serif": [font, LATIN], "pdf.fonttype": _embedding(font),
             "axes.unicode_minus": False, "font.size": 8}  # fmt: skip
    span = f"{iso(d['span']['from_utc_s'])} - {iso(d['span']['to_utc_s'])}"
    with rc_context(style), PdfPages(buffer, metadata={"CreationDate": None, "Producer": "tidegate"}) as pages:  # type: ignore[arg-type]
        paper = Paper(f"{d['site']} · {span} · {w['digest']} {d['sha256'][:16]}", font == LATIN)
        for line in wrapped(f"{w['title']}: {d['site']}", ROOM, 20):
            paper.y += 22
            paper.text(LEFT, paper.y, line, size=18, weight="bold", color=charts.INK)
        paper.y += 16
        said = f"{span} · {d['span']['periods']} {w['periods']}"
        if d["span"]["not_booked_s"]:
            said += f" · {w['not_booked']} {d['span']['not_booked_s'] / 3600:,.2f} h"
        paper.text(LEFT, paper.y, f"{said} · {w['unverified']}", size=9, color=charts.MUTED)
        paper.y += 8
        _paragraph(paper, f"{w['scope']}: {report.scope}", "note")
        for section in report.sections():
            _section(paper, section, drawings)
        paper.numbered(w)
        for page in paper.pages:
            pages.savefig(page)
    return buffer.getvalue()


def _section(paper: Paper, section: Section, drawings: Drawings) -> None:
    first = section.blocks[0] if section.blocks else None
    paper.need(250.0 if isinstance(first, Plot) and first.name != "idle" else 90.0)
    paper.y += 12
    paper.line(paper.y)
    paper.y += 18
    paper.text(LEFT, paper.y, section.title, size=12, weight="bold", color=charts.INK)
    paper.y += 6
    for block in section.blocks:
        if isinstance(block, Plot):
            _plot(paper, block.name, drawings)
        elif isinstance(block, Table):
            _table(paper, block)
        else:
            _text(paper, block)


def _plot(paper: Paper, name: str, drawings: Drawings) -> None:
    if name in ("energy", "carbon"):
        laid, unit, digits = drawings.flows()[name]
        height = ROOM * laid.height / laid.width
        if height > HEIGHT - TOP - BOTTOM - 60:
            height = HEIGHT - TOP - BOTTOM - 60
        paper.need(height)
        charts.draw_sankey(paper.axes(height), laid, unit=unit, middle=drawings.w["bus"], digits=digits, size=7.2)
    elif name == "time":
        paper.need(210)
        paper.y += 6
        top = paper.axes(110, 30)
        paper.y += 8
        low = paper.axes(60, 30)
        drawings.draw_time(top, low)
        top.tick_params(labelbottom=False)
        top.set_xticks(low.get_xticks())
        paper.y += 30
    else:
        paper.need(130)
        paper.y += 6
        drawings.draw_idle(paper.axes(90, 30))
        paper.y += 24


def _text(paper: Paper, block: Text) -> None:
    if block.kind == "head":
        paper.need(60)
        paper.y += 18
        paper.text(LEFT, paper.y, block.text, size=9.5, weight="bold", color=charts.INK)
        paper.y += 2
    else:
        _paragraph(paper, f"· {block.text}" if block.kind == "list" else block.text, block.kind)


def _paragraph(paper: Paper, text: str, kind: str) -> None:
    size = 8.0 if kind in ("note", "list", "code") else 9.0
    paper.y += 4
    for line in wrapped(text, ROOM, size):
        paper.need(12)
        paper.y += 12
        paper.text(LEFT, paper.y, line, size=size, color=charts.INK if kind in ("p", "code") else charts.MUTED)


def _table(paper: Paper, table: Table) -> None:
    """Columns as wide as they need, the whole as wide as the page; a head again on each page."""
    shown = table.rows[: table.print_rows]
    if not shown:
        if table.rows:
            _paragraph(paper, f"… {len(table.rows)}: report.csv", "note")
        return
    columns = max(len(row) for row in shown)
    size = 8.0 if columns <= 7 else 6.2
    wide = [max(charts.text_width(row[i].text, size) for row in [*shown, *([table.head] if table.head else [])]
                if i < len(row)) + 8 for i in range(columns)]  # fmt: skip
    scale = min(1.0, ROOM / sum(wide))
    if scale < 1.0:
        widths = _squeezed(wide, ROOM)
    else:
        spare = (ROOM - sum(wide)) / columns
        widths = [w + spare for w in wide] if table.head else [*wide[:-1], wide[-1] + ROOM - sum(wide)]
        if not table.head:  # label and value: the values stand in one column, not at the far edge
            widths = [max(wide[0], 200.0), *[max(w, 90.0) for w in wide[1:]]]
            widths = _squeezed(widths, ROOM) if sum(widths) > ROOM else widths
    paper.y += 4
    if table.head:
        paper.need(40)
        _row(paper, table.head, widths, size, charts.MUTED)
    for row in shown:
        height = max(len(wrapped(c.text, widths[i] - 6, size)) for i, c in enumerate(row)) * (size + 3) + 3
        if paper.need(height) and table.head:
            _row(paper, table.head, widths, size, charts.MUTED)
        _row(paper, row, widths, size, charts.INK)
    if len(table.rows) > len(shown):
        _paragraph(paper, f"… {len(table.rows) - len(shown)}", "note")


def _squeezed(wide: Sequence[float], room: float) -> list[float]:
    """Widths that fit: only columns above the mean give way."""
    widths = list(wide)
    while sum(widths) > room + 0.01:
        most = max(widths)
        second = max((w for w in widths if w < most - 0.01), default=0.0)
        count = sum(w > most - 0.01 for w in widths)
        target = max(second, most - (sum(widths) - room) / count, 20.0)
        widths = [min(w, target) for w in widths]
        if target == 20.0:
            break
    return widths


def _row(paper: Paper, row: Sequence[Cell], widths: Sequence[float], size: float, colour: str) -> None:
    lines = [wrapped(cell.text, widths[i] - 6, size) for i, cell in enumerate(row)]
    step = size + 3
    x = LEFT
    for i, cell in enumerate(row):
        for number, line in enumerate(lines[i]):
            at = paper.y + step * (number + 1) - 1
            if cell.number:
                paper.text(x + widths[i] - 6, at, line, size=size, color=colour, ha="right")
            else:
                paper.text(x, at, line, size=size, color=colour)
        x += widths[i]
    paper.y += step * max(len(each) for each in lines) + 3
    paper.line(paper.y)
