"""One document in one language, as its sections see it: names, numbers, and where each number comes from."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tidegate.runtime.carbon.engine.attribution import THROUGH_STORAGE
from tidegate.runtime.carbon.report.blocks import Cell, slug
from tidegate.runtime.carbon.report.columns import Column
from tidegate.runtime.carbon.report.language import Language
from tidegate.runtime.carbon.report.letterhead import Letterhead
from tidegate.runtime.carbon.report.local_time import shown
from tidegate.runtime.carbon.report.periods import Rows
from tidegate.runtime.carbon.report.written import written

GAPS_MAX = 200


class Report:
    """A document in a language. files : what lies beside the page; rows : what stands behind the numbers.

    letterhead : who sends it. template : account or paper, see sections.
    """

    def __init__(self, document: Mapping[str, Any], rows: Rows, language: str, files: Sequence[str] = (),
                 letterhead: Letterhead | None = None, template: str = "account") -> None:  # fmt: skip
        self.d = document
        self.rows = rows
        self.language = Language(language)
        self.text: Callable[[str], str] = self.language.text
        self.files = files
        self.letterhead = letterhead
        self.template = template
        self.flows = {name for name in rows.flows}
        self.scope = self.text(document["scope"])
        self.policy_note = self.text(document["policy_note"])
        self.gap_ids = self._gaps_by_flow()

    def name(self, node: str) -> str:
        """A node, an origin or a word of the ledger as its reader calls it."""
        return self.language.name(node.removesuffix(THROUGH_STORAGE))

    def said(self, text: str) -> str:
        """A sentence of the ledger or of an indicator, as its reader says it."""
        return written(self.language, text)

    def subtitle(self) -> str:
        """What is missing comes first; then how much of the span is booked, and that nobody has verified it."""
        span, _ = self.d["span"], self.text
        parts = [self.not_booked()] if span["not_booked_s"] else []
        if self.d["gaps"]:
            parts.append(f"{_('Gaps and substituted values')}: {len(self.d['gaps'])}")
        parts.append(self.language.plural("{n} period booked", "{n} periods booked", span["periods"]))
        return " · ".join([*parts, _("unverified")])

    def not_booked(self) -> str:
        """How much of the span the account does not know."""
        hours = self.language.number(self.d["span"]["not_booked_s"] / 3600, 2)
        return self.text("not booked: {hours} h").format(hours=hours)

    @property
    def title(self) -> str:
        """What the report is called, with its site."""
        _ = self.text
        what = _("Energy and carbon white paper") if self.template == "paper" else _("Energy and carbon account")
        return f"{what}: {self.d['site']}"

    @property
    def booked_s(self) -> int:
        """How much of the span the account knows."""
        span = self.d["span"]
        return int(span["to_utc_s"] - span["from_utc_s"] - span["not_booked_s"])

    @property
    def period_text(self) -> str:
        """The span as its reader says it: days of the place where it begins and ends with them."""
        span = self.d["span"]
        first, last = (self.day(span[key], "%Y-%m-%d %H:%M") for key in ("from_utc_s", "to_utc_s"))
        if first.endswith(" 00:00") and last.endswith(" 00:00"):
            first, last = first[:10], self.day(span["to_utc_s"] - 1, "%Y-%m-%d")
        days = first if first == last else self.text("{first} to {last}").format(first=first, last=last)
        return f"{days} ({span['zone']})"

    # ---- numbers ----

    def signed(self, value: float, digits: int) -> str:
        """A change, with its sign."""
        text = self.language.number(abs(value), digits)
        return text if not text.strip("0.,") else f"{'+' if value > 0 else '-'}{text}"

    def kwh(self, milliwh: int) -> str:
        return self.language.number(milliwh / 1e6, 3)

    def kg(self, ug: int) -> str:
        return self.language.number(ug / 1e9, 3)

    def g_per_kwh(self, ug: int, milliwh: int) -> str:
        return self.language.number(ug / milliwh, 1) if milliwh else ""

    def money(self, millionths: int) -> str:
        return self.language.number(millionths / 1e6, 2)

    def grams(self, text: str | None) -> str:
        return "-" if text is None else self.language.number(float(text), 3)

    def part(self, milliwh: int, of: Mapping[str, int]) -> str:
        """A share of all, in percent."""
        whole = sum(of.values())
        return f"{milliwh / whole * 100:.1f} %" if whole else "-"

    def written(self, column: Column, value: tuple[int, int]) -> str:
        """A value of a column, as people read it."""
        shown = column.format.shown(*value)
        return "" if shown is None else self.language.number(shown, column.format.digits)

    def more(self, count: int) -> str:
        return self.language.plural("{n} more in report.json", "{n} more in report.json", count)

    # ---- cells, and where their numbers come from ----

    def head(self, *texts: str) -> tuple[Cell, ...]:
        """Heads of columns; # before a text is a column of numbers."""
        return tuple(Cell(text.lstrip("#"), number=text.startswith("#")) for text in texts)

    def number(self, text: str, to: str) -> Cell:
        return Cell(text, "" if text == "-" else to, True)

    def flow_id(self, name: str) -> str:
        """Where a flow's number comes from: its own row, or, without a meter, the list of formulas."""
        return f"flow-{slug(name)}" if name in self.flows else "formulas"

    def inflow_id(self, node: str) -> str:
        for kind in ("import", "generation"):
            if f"{node}.{kind}" in self.flows:
                return self.flow_id(f"{node}.{kind}")
        return "formulas"

    def outflow_id(self, node: str) -> str:
        flow = "grid.export" if node == "export" else f"{node}.load"
        return self.flow_id(flow)

    def origin_id(self, node: str) -> str:
        return f"origin-{slug(node)}" if self.d["origins_milliwh"].get(node) else "formulas"

    def _gaps_by_flow(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for number, gap in enumerate(self.d["gaps"][:GAPS_MAX]):
            found.setdefault(gap["flow"], []).append(number)
        return found

    def day(self, utc_s: int, form: str) -> str:
        """A moment in the zone of the report."""
        return shown(utc_s, form, self.rows.zone)

    def row_id(self, utc_s: int) -> str:
        start = self.rows.row_at(utc_s)
        return "periods" if start is None else f"p-{start}"
