"""Tagged A4 pages: whatever is written is a paragraph, a heading, a cell or a figure of the document's structure.

A reader that speaks, or that makes text of a page, follows the structure and not the positions. What only decorates
(lines, page numbers) is marked as an artifact.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from fpdf import FPDF, ViewerPreferences
from fpdf.encryption import StandardSecurityHandler
from fpdf.enums import MethodReturnValue
from fpdf.structure_tree import StructElem, StructureTreeBuilder
from fpdf.syntax import PDFArray

from tidegate.runtime.carbon.report.blocks import Line
from tidegate.runtime.charts import charts

LEFT, RIGHT, TOP, BOTTOM = 46.0, 46.0, 46.0, 54.0  # points
PAD = 4.0  # left and right of a cell
CJK = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "SimHei")
LATIN = "DejaVu Sans"  # comes with matplotlib, also bold


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


class _Kids(PDFArray):
    """Every element of the tree, as fpdf2 wants to walk them; written down as a child is only what has no parent."""

    def serialize(self, _security_handler: StandardSecurityHandler | None = None, _obj_id: int | None = None) -> str:
        top = [elem for elem in self if elem.p is self.root]
        return PDFArray(top).serialize(_security_handler, _obj_id)

    root: StructElem


class Structure(StructureTreeBuilder):
    """The tree of a document. parent : the element that the next one lies in, None = the document."""

    def __init__(self) -> None:
        super().__init__()
        kids = _Kids()
        kids.root = self.doc_struct_elem
        self.doc_struct_elem.k = kids
        self.parent: StructElem | None = None
        self._mcids: dict[int, int] = {}

    def next_mcid_for_page(self, page_number: int) -> int:
        return self._mcids.get(page_number, 0)

    def add_marked_content(
        self, page_number: int, struct_type: str, mcid: int | None = None, title: str | None = None,
        alt_text: str | None = None,
    ) -> tuple[StructElem, int]:  # fmt: skip
        spid = self.spid_per_page_number.setdefault(page_number, len(self.spid_per_page_number))
        parent = self.parent or self.doc_struct_elem
        elem = StructElem(struct_type, parent, [] if mcid is None else [mcid], page_number, title, alt_text)
        self.doc_struct_elem.k.append(elem)
        if self.parent is not None:
            self.parent.k.append(elem)
        if mcid is not None:
            self._mcids[page_number] = mcid + 1
            self.struct_tree_root.parent_tree.nums[spid].append(elem)
        return elem, spid


class TaggedPages(FPDF):
    """A4 pages with a structure, a line of origin and the page's number below each. Sizes are points."""

    def __init__(self, language: str, title: str, made_utc_s: int, footer: str, page_word: str) -> None:
        super().__init__(unit="pt", format="A4")
        self.tree = Structure()
        self.struct_builder = self.tree
        self.footer_text, self.page_word = footer, page_word
        self.set_margins(LEFT, TOP, RIGHT)
        self.set_auto_page_break(True, BOTTOM)
        self.set_lang(language)
        self.set_producer("tidegate")
        self.set_title(title)
        self.viewer_preferences = ViewerPreferences(display_doc_title=True)
        self.set_creation_date(datetime.fromtimestamp(made_utc_s, UTC))
        self.face = pdf_font(language)
        self.add_font("latin", fname=font_file(LATIN))
        self.add_font("latin", "B", fname=font_file(LATIN, "bold"))
        self.family, self.bold = "latin", "B"
        if self.face != LATIN:
            self.add_font("letters", fname=font_file(self.face))
            self.family, self.bold = "letters", ""
            self.set_fallback_fonts(["latin"])
        self.add_page()

    # ---- structure ----

    @contextmanager
    def tagged(self, kind: str) -> Iterator[None]:
        """What is written meanwhile, on one page, is an element of the structure."""
        mcid = self.tree.next_mcid_for_page(self.page)
        self._add_marked_content(struct_type=f"/{kind}", mcid=mcid)
        self._out(f"/{kind} <</MCID {mcid}>> BDC")
        yield
        self._out("EMC")

    @contextmanager
    def within(self, kind: str) -> Iterator[None]:
        """The elements that are written meanwhile lie in one."""
        with self.under(self.structure_here(kind)):
            yield

    def structure_here(self, kind: str) -> StructElem:
        """An element that is filled later, at this place of the structure."""
        return self._add_marked_content(struct_type=f"/{kind}")

    @contextmanager
    def under(self, elem: StructElem) -> Iterator[None]:
        """What is written meanwhile lies in an element that is there already."""
        before, self.tree.parent = self.tree.parent, elem
        yield
        self.tree.parent = before

    @contextmanager
    def decoration(self) -> Iterator[None]:
        self._out("/Artifact BMC")
        yield
        self._out("EMC")

    # ---- writing ----

    def ink(self, colour: str, size: float, style: str = "") -> None:
        """The colour and the size of what is written next."""
        self.set_text_color(colour)
        self.set_font(self.family, style if self.bold else "", size)

    def rule(self) -> None:
        """A thin line across the page."""
        with self.decoration():
            self.set_draw_color(charts.RULE)
            self.line(LEFT, self.y, self.w - RIGHT, self.y)

    def footer(self) -> None:
        with self.decoration():
            self.set_y(-BOTTOM + 12)
            self.set_draw_color(charts.RULE)
            self.line(LEFT, self.y, self.w - RIGHT, self.y)
            self.ink(charts.MUTED, 6.5)
            self.set_y(-BOTTOM + 18)
            self.cell(0, 8, self.footer_text)
            number = self.page_word.format(page=self.page_no(), pages=self.str_alias_nb_pages)
            self.set_x(LEFT)
            self.cell(0, 8, number, align="R")

    def lines_of(self, text: str, width: float) -> list[str]:
        """A text broken to a width in the present font."""
        if "\n" not in text and self.get_string_width(text) <= width:
            return [text]
        found = self.multi_cell(width + 2 * self.c_margin, 1, text, align="L", dry_run=True,
                                output=MethodReturnValue.LINES)  # fmt: skip
        assert isinstance(found, list)
        return found

    def paragraph(self, text: str, size: float, colour: str, style: str = "", kind: str = "P", x: float = LEFT,
                  width: float | None = None) -> None:  # fmt: skip
        """A paragraph from the left margin, or from x; goes on on the next page if it has to."""
        self.ink(colour, size, style)
        lines, height = self.lines_of(text, width or self.epw), size * 1.4
        while lines:
            room = int((self.h - BOTTOM - self.y) / height + 1e-6)
            if room < 1:
                self.add_page()
                continue
            with self.tagged(kind):
                for line in lines[:room]:
                    self.set_x(x)
                    self.cell(width or self.epw, height, f"{line} ")  # whoever reads the structure joins the lines
                    self.set_xy(x, self.y + height)
            lines = lines[room:]
        self.set_x(LEFT)

    def need(self, height: float) -> None:
        """Begin a new page if a height does not fit any more."""
        if self.will_page_break(height):
            self.add_page()

    def figure(self, picture: bytes, width: float, alt: str, height: float = 0.0, x: float = LEFT) -> None:
        """A picture that is read out as `alt`; what lies below it comes next."""
        self.image(io.BytesIO(picture), x=x, w=width, h=height, alt_text=alt)

    def size_of(self, picture: bytes) -> tuple[float, float]:
        """Width and height of a picture in its own pixels."""
        _, _, info = self.preload_image(io.BytesIO(picture))
        return float(str(info["w"])), float(str(info["h"]))

    # ---- tables ----

    def draw_table(self, head: Line, rows: Sequence[Line], size: float, x: float = LEFT) -> None:
        """Columns as wide as they need, the head again on each page, no row over two pages."""
        self.ink(charts.INK, size)
        every = [head, *rows] if head else list(rows)
        widths = self.column_widths([[cell.text for cell in row] for row in every], bool(head), self.w - RIGHT - x)
        with self.within("Table"):
            if head:
                self._row(head, widths, size, x, "TH")
            for row in rows:
                height = self._height(row, widths, size)
                if self.y + height > self.h - BOTTOM:
                    self.add_page()
                    self.ink(charts.INK, size)
                    if head:
                        self._row(head, widths, size, x, "TH")
                self._row(row, widths, size, x, "TD")
        self.set_x(LEFT)

    def _height(self, row: Line, widths: Sequence[float], size: float) -> float:
        most = max(len(self.lines_of(cell.text, width - 2 * PAD)) for cell, width in zip(row, widths, strict=True))
        return most * size * 1.4 + 3.0

    def _row(self, row: Line, widths: Sequence[float], size: float, x: float, kind: str) -> None:
        self.ink(charts.MUTED if kind == "TH" else charts.INK, size)
        top, line_height = self.y, size * 1.4
        bottom = top + self._height(row, widths, size)
        with self.within("TR"):
            for cell, width in zip(row, widths, strict=True):
                with self.tagged(kind):
                    for number, line in enumerate(self.lines_of(cell.text, width - 2 * PAD)):
                        self.set_xy(x + PAD - self.c_margin, top + 1.5 + number * line_height)
                        self.cell(width - 2 * PAD + 2 * self.c_margin, line_height, line,
                                  align="R" if cell.number else "L")  # fmt: skip
                x += width
        with self.decoration():
            self.set_draw_color(charts.RULE)
            self.line(x - sum(widths), bottom, x, bottom)
        self.set_xy(LEFT, bottom)

    def column_widths(self, rows: Sequence[Sequence[str]], spread: bool, room: float) -> list[float]:
        """What each column needs; where that is too much, the widest give way, and what is left over is spread."""
        widths = [
            max(self.get_string_width(text) for text in column) + 2 * PAD + 1 for column in zip(*rows, strict=True)
        ]
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
