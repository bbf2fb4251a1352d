"""The columns of the account by period. Each stands here once: page, print, report.periods.csv and the manual follow.

To add one, add a row to COLUMNS, then `python -m tidegate.runtime.carbon.report.columns docs/carbon-reports.md` for the
manual. A heading that the catalogues do not have yet has to be translated (locale/); a test names it.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tidegate.runtime.carbon.integers import decimal, exact_kwh
from tidegate.runtime.carbon.ledger.bodies import CHARGE_BOOKED, PeriodBody
from tidegate.runtime.carbon.report.language import N_


@dataclass(frozen=True, slots=True)
class Figures:
    """One period, as a column's source sees it. kinds : milliwatt-hours of all flows of a kind."""

    body: PeriodBody
    kinds: Mapping[str, int]
    load_milliwh: int
    load_ug: int


@dataclass(frozen=True, slots=True)
class Format:
    """How a number is written. Both take the sum of the source, and that of what it is divided by (0 without one)."""

    shown: Callable[[int, int], float | None]  # for people, with `digits` decimals; None = nothing to show
    exact: Callable[[int, int], str]  # for programs
    digits: int


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the account by period.

    id : its head in the CSV, ends in the unit. heading : in English, for page and print. source : what one period adds,
    whole; per : what that is divided by, after both are summed. about : its row in the manual.
    """

    id: str
    heading: str
    unit: str
    source: Callable[[Figures], int]
    format: Format
    about: str
    per: Callable[[Figures], int] | None = None


def of_kind(kind: str) -> Callable[[Figures], int]:
    return lambda figures: figures.kinds.get(kind, 0)


KWH = Format(lambda milliwh, _: milliwh / 1e6, lambda milliwh, _: exact_kwh(milliwh), 3)
KG = Format(lambda ug, _: ug / 1e9, lambda ug, _: decimal(ug, 9), 3)
# Micrograms over milliwatt-hours are grams over kilowatt-hours.
G_PER_KWH = Format(
    lambda ug, milliwh: ug / milliwh if milliwh else None,
    lambda ug, milliwh: f"{ug / milliwh:.6f}" if milliwh else "",
    1,
)

COLUMNS: tuple[Column, ...] = (
    Column("import_kwh", N_("import"), "kWh", of_kind("import"), KWH, "from the grid"),
    Column("generation_kwh", N_("own"), "kWh", of_kind("generation"), KWH, "of own sources"),
    Column("discharge_kwh", N_("discharge"), "kWh", of_kind("discharge"), KWH, "out of storage, at the terminals"),
    Column("charge_kwh", N_("charge"), "kWh", of_kind("charge"), KWH, "into storage, at the terminals"),
    Column("export_kwh", N_("export"), "kWh", of_kind("export"), KWH, "to the grid"),
    Column("load_kwh", N_("loads"), "kWh", lambda f: f.load_milliwh, KWH, "of all loads"),
    Column("residual_kwh", N_("residual"), "kWh", lambda f: f.body["residual_milliwh"], KWH,
           "positive: went out unmetered; negative: came in unmetered"),
    Column("storage_loss_kwh", N_("declared losses"), "kWh", lambda f: sum(f.body["loss_milliwh"].values()), KWH,
           "of the storage units, standby included; negative: the state of charge said that there was more"),
    Column("grid_g_per_kwh", N_("factor"), "g/kWh", lambda f: f.body["inflow_ug"].get("grid", 0), G_PER_KWH,
           "carbon of the import over its energy", per=of_kind("import")),
    Column("load_kg", N_("carbon"), "kg CO2e", lambda f: f.load_ug, KG, "of all loads"),
)  # fmt: skip
CSV_HEAD = ("start_utc", "length_s", *(column.id for column in COLUMNS), "factor_status", "seq")


def figures_of(body: PeriodBody) -> Figures:
    """A period's flows by kind, in one pass."""
    kinds: dict[str, int] = {}
    for name, flow in body["flows"].items():
        milliwh = flow["energy_milliwh"]
        if milliwh:
            kind = name.rpartition(".")[2]
            kinds[kind] = kinds.get(kind, 0) + milliwh
    load_milliwh = load_ug = 0
    for out in body["outflows"]:
        if out["kind"] == "load" and out["name"] != CHARGE_BOOKED:
            load_milliwh += out["energy_milliwh"]
            load_ug += out["ug"]
    return Figures(body, kinds, load_milliwh, load_ug)


Values = list[tuple[int, int]]  # by column: sum of the source, and of what it is divided by


def values_of(figures: Figures) -> Values:
    """What one period adds to each column."""
    return [(column.source(figures), 0 if column.per is None else column.per(figures)) for column in COLUMNS]


def csv_row(body: PeriodBody, seq: int, values: Values, start: str) -> tuple[str | int, ...]:
    """The row of a period in report.periods.csv."""
    written = [column.format.exact(*value) for column, value in zip(COLUMNS, values, strict=True)]
    grid = body["factors"].get("grid")
    return (start, body["length_s"], *written, "" if grid is None else grid["status"], seq)


# ---- the manual ----

BEGIN, END = "<!-- columns -->\n", "<!-- end columns -->\n"


def as_markdown() -> str:
    """The table of the manual."""
    rows = [f"| `{column.id}` | {column.heading} | {column.about} |\n" for column in COLUMNS]
    return "| `report.periods.csv` | page and print | holds |\n|---|---|---|\n" + "".join(rows)


def write_manual(page: Path) -> None:
    """Put the table between its marks in a page. Raises ValueError if it has none."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page}: no place for the columns; expected {BEGIN.strip()} and {END.strip()}")
    page.write_text(before + BEGIN + as_markdown() + END + after, encoding="utf-8")


if __name__ == "__main__":
    write_manual(Path(sys.argv[1]))
