"""The report's part on what rested and drew power, by card, server and rack, from the ledger's daily entries."""

from collections import Counter
from collections.abc import Mapping
from typing import TypedDict

from tidegate.runtime.carbon.integers import decimal, exact_kwh
from tidegate.runtime.carbon.report.blocks import Block, Cell, Line, Section, Table, Text
from tidegate.runtime.carbon.report.view import Report

TOP = 20
SUMS = ("energy_milliwh", "ug", "cost_u", "saving_milliwh", "saving_ug", "saving_cost_u")


class RestedRow(TypedDict):
    """A thing that rested; numbers as text with fixed decimals."""

    level: str
    name: str
    rack: str
    idle_kwh: str
    kg: str
    cost: str
    saving_kwh: str
    saving_kg: str
    saving_cost: str


class Rested:
    """Adds daily entries up."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, str, str], Counter[str]] = {}
        self._notes: dict[str, None] = {}
        self._assumptions: list[str] = []
        self.days = 0

    def add(self, body: Mapping[str, object]) -> None:
        """Take a day in."""
        self.days += 1
        rows, problems, assumptions = body["rows"], body["problems"], body["assumptions"]
        assert isinstance(rows, list) and isinstance(problems, list) and isinstance(assumptions, list)
        for row in rows:
            sums = self._sums.setdefault((row["level"], row["node"], row["name"], row["rack"]), Counter())
            for key in SUMS:
                sums[key] += row[key]
        self._notes |= dict.fromkeys(problems)
        if body["not_judged_count"]:
            count = body["not_judged_count"]
            self._notes[f"{count} servers and PDUs are not judged: nobody says what runs there"] = None
        self._assumptions = assumptions

    def document(self) -> dict[str, object]:
        """The report's part, most energy first."""
        ranked = sorted(self._sums.items(), key=lambda one: (-one[1]["energy_milliwh"], one[0]))
        rows: list[RestedRow] = [
            {
                "level": level, "name": name, "rack": rack, "idle_kwh": exact_kwh(sums["energy_milliwh"]),
                "kg": decimal(sums["ug"], 9), "cost": decimal(sums["cost_u"], 6),
                "saving_kwh": exact_kwh(sums["saving_milliwh"]), "saving_kg": decimal(sums["saving_ug"], 9),
                "saving_cost": decimal(sums["saving_cost_u"], 6),
            }
            for (level, _, name, rack), sums in ranked
        ]  # fmt: skip
        return {"days": self.days, "rows": rows, "notes": list(self._notes), "assumptions": self._assumptions}


def rested(r: Report) -> Section:
    """Which card, server or rack drew power for no useful work."""
    d, _ = r.d["rested"], r.text
    blocks: list[Block] = [Text(r.said(text), "list") for text in d["notes"]]
    rows: list[Line] = []
    for row in d["rows"][:TOP]:
        numbers = [(row[key], 3) for key in ("idle_kwh", "kg")] + [(row["cost"], 2)]
        numbers += [(row[key], 3) for key in ("saving_kwh", "saving_kg")] + [(row["saving_cost"], 2)]
        cells = [r.number(r.language.number(float(text), digits), "rested-assumptions") for text, digits in numbers]
        rows.append((Cell(f"{r.name(row['level'])} {row['name']}"), *cells))
    head = r.head(
        _("what"), "#" + _("idle, kWh"), "#" + _("kg CO2e"), "#" + _("cost"), "#" + _("saving, kWh"),
        "#" + _("saving, kg CO2e"), "#" + _("saving, money"),
    )  # fmt: skip
    blocks.append(Table(head, rows, [""] * len(rows), print_rows=TOP))
    if len(d["rows"]) > TOP:
        blocks.append(Text(r.more(len(d["rows"]) - TOP), "note"))
    blocks.append(
        Text(_("Cards lie within servers and servers within racks: the rows are views of the same energy."), "note")
    )
    blocks.append(Text(_("What a saving by sleep or power-off rests on"), "head", "rested-assumptions"))
    blocks += [Text(r.said(text), "list") for text in d["assumptions"]]
    return Section("rested", _("What rested and drew power"), blocks)
