"""Reports from the ledger: JSON, CSV, HTML and PDF of the same numbers, the same bytes for the same ledger."""

import csv
import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TextIO

import jinja2

from tidegate.config.zones import UTC_NAME, zone_of
from tidegate.runtime.carbon.factors.series import iso, parse_time
from tidegate.runtime.carbon.jobs.job_summary import IDLE_COLUMNS, JOB_COLUMNS, idle_rows, job_rows
from tidegate.runtime.carbon.ledger.bodies import PeriodBody, SettlementBody
from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError, canonical
from tidegate.runtime.carbon.report.blocks import Plot, Section, Table
from tidegate.runtime.carbon.report.columns import CSV_HEAD, csv_row, figures_of, values_of
from tidegate.runtime.carbon.report.demand_windows import WINDOW_S, DemandCharge
from tidegate.runtime.carbon.report.document import gather
from tidegate.runtime.carbon.report.letterhead import Letterhead
from tidegate.runtime.carbon.report.local_time import span_of
from tidegate.runtime.carbon.report.pdf import ReportError, pdf_font, pdf_pages
from tidegate.runtime.carbon.report.periods import Rows
from tidegate.runtime.carbon.report.plots import Bins, Drawings
from tidegate.runtime.carbon.report.published import published
from tidegate.runtime.carbon.report.sections import sections
from tidegate.runtime.carbon.report.view import Report
from tidegate.runtime.charts import charts
from tidegate.runtime.state.csv_cells import cell, cells, rows_of_cells

FLOW_COLUMNS = ("start_utc", "length_s", "node", "kind", "energy_kwh", "carbon_ug", "quality", "method",
                "factor_ug_per_kwh", "factor_status", "flags")  # fmt: skip

NOT_MEASURED = "not measured"
__all__ = ["ReportError", "pdf_font", "span_of", "write"]


def span_between(span: str | None, start: str | None, end: str | None, zone: str = UTC_NAME) -> tuple[int, int]:
    """(start, end) of --span in a zone, or of --from and --to."""
    if span is not None:
        return span_of(span, zone)
    if start is None or end is None:
        raise ValueError("give --span, or --from and --to")
    return parse_time(start, "--from"), parse_time(end, "--to")


def write(
    ledger: Ledger,
    start_utc_s: int,
    end_utc_s: int,
    out: Path,
    *,
    languages: Sequence[str] = ("en",),
    pdf: bool = True,
    zone: str = UTC_NAME,
    letterhead: Letterhead | None = None,
    template: str = "account",
    demand_charge: DemandCharge | None = None,
    **more: Any,
) -> dict[str, Path]:
    """Write report.json, report.csv, and report.<language>.html and .pdf into `out`. -> what was written, by name.

    zone : whose days and months the rows are. letterhead : who sends it; template : one of sections.TEMPLATES.
    demand_charge, more : as for document.gather. Raises LedgerError if nothing is booked,
    ReportError if a font is missing.
    """
    count = ledger.count("period", start_utc_s, end_utc_s)
    if not count:
        raise LedgerError(f"no period is booked from {iso(start_utc_s)} to {iso(end_utc_s)}")
    if pdf:
        for language in languages:
            pdf_font(language)  # before anything is written
    window_s = WINDOW_S if demand_charge is None else demand_charge["window_s"]
    bins, period_rows = Bins(count, window_s), Rows(count, end_utc_s - start_utc_s, zone_of(zone))
    out.mkdir(parents=True, exist_ok=True)
    written = {"json": out / "report.json", "csv": out / "report.csv", "periods csv": out / "report.periods.csv"}
    with (
        written["csv"].open("w", encoding="utf-8", newline="") as file,
        written["periods csv"].open("w", encoding="utf-8", newline="") as periods_file,
    ):
        file.write(",".join(FLOW_COLUMNS) + "\n")
        by_period = csv.writer(periods_file, lineterminator="\n")
        by_period.writerow(CSV_HEAD)

        def each(body: PeriodBody, seq: int) -> None:
            values = values_of(figures_of(body))
            file.write(flow_lines(body))
            by_period.writerow(cells(csv_row(body, seq, values, iso(body["start_utc_s"]))))
            bins.add(body)
            period_rows.add(body, seq, values)

        days = Days(out)
        document, _, _ = gather(ledger, start_utc_s, end_utc_s, each=each, each_day=days.add, zone=zone,
                                 demand_charge=demand_charge, **more)  # fmt: skip
        written.update(days.close())
    written["indicators csv"] = out / "report.indicators.csv"
    with written["indicators csv"].open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows_of_cells(indicator_rows(document)))
    written["json"].write_text(canonical(published(document)) + "\n", encoding="utf-8")
    series = bins.series()
    for language in languages:
        report = Report(document, period_rows, language, [path.name for path in written.values()],
                        letterhead, template)  # fmt: skip
        drawings = Drawings(document, series, report)
        written[f"html {language}"] = out / f"report.{language}.html"
        written[f"html {language}"].write_text(html(report, drawings), encoding="utf-8")
        if pdf:
            written[f"pdf {language}"] = out / f"report.{language}.pdf"
            written[f"pdf {language}"].write_bytes(pdf_pages(report, drawings))
    return written


class Days:
    """The rows of jobs and of idle hours, written as they come; no file without a row."""

    def __init__(self, out: Path) -> None:
        self._paths = {"jobs csv": out / "report.jobs.csv", "idle csv": out / "report.idle.csv"}
        for path in self._paths.values():
            path.unlink(missing_ok=True)
        self._files: dict[str, TextIO] = {}

    def add(self, body: SettlementBody) -> None:
        for name, columns, rows in (
            ("jobs csv", JOB_COLUMNS, job_rows(body)),
            ("idle csv", IDLE_COLUMNS, idle_rows(body)),
        ):
            if name not in self._files:
                self._files[name] = self._paths[name].open("w", encoding="utf-8", newline="")
                csv.writer(self._files[name], lineterminator="\n").writerow(columns)
            csv.writer(self._files[name], lineterminator="\n").writerows(rows_of_cells(rows))

    def close(self) -> dict[str, Path]:
        for file in self._files.values():
            file.close()
        return {name: self._paths[name] for name in self._files}


@lru_cache(maxsize=4096)
def quoted(text: str) -> str:
    """A text as a cell of a CSV file. Names, methods and flags come again in every period of a year."""
    if not text:
        return ""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow([cell(text), ""])
    return buffer.getvalue()[:-1]


def flow_lines(body: PeriodBody) -> str:
    """CSV lines of one period, one a flow and one an outflow, in the order of FLOW_COLUMNS.

    Written as text: a year of a site with 64 racks has five million, and a writer of rows takes four times as long.
    """
    head = f"{iso(body['start_utc_s'])},{body['length_s']},"
    flags = quoted(" ".join(flag.replace(" ", "_") for flag in body["flags"]))
    factors = body["factors"]
    lines: list[str] = []
    for name, flow in body["flows"].items():
        node, _, kind = name.partition(".")
        factor = ","
        if kind == "import" or kind == "generation":
            found = factors.get(node)
            if found is not None:
                factor = f"{found['ug_per_kwh']},{found['status']}"
        lines.append(
            f"{head}{quoted(node)},{quoted(kind)},{flow['energy_milliwh'] / 1e6:.6f},,{flow['quality']},"
            f"{quoted(flow['method'])},{factor},{flags}\n"
        )
    for out in body["outflows"]:
        lines.append(
            f"{head}{quoted(out['name'])},outflow {out['kind']},{out['energy_milliwh'] / 1e6:.6f},{out['ug']},,,,,\n"
        )
    return "".join(lines)


def indicator_rows(document: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """CSV rows of the indicators and the fields of (EU) 2024/1364; what was not measured says so."""
    rows = [("part", "name", "value", "unit", "basis")]
    found = document["indicators"]
    units = {"cue_kg_per_kwh": "kg/kWh", "wue_l_per_kwh": "L/kWh"}
    for name, definition in found["definitions"].items():
        rows.append(("indicators", name, found[name] or NOT_MEASURED, units.get(name, ""), definition))
    for name, row in document["eu_2024_1364"]["fields"].items():
        rows.append(("eu_2024_1364", name, row["value"] or NOT_MEASURED, row["unit"], row["basis"]))
    return rows


def html(report: Report, drawings: Drawings) -> str:
    """The page in one language."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(iso=iso)
    text = files("tidegate.runtime.carbon.report").joinpath("carbon_report.html.j2").read_text(encoding="utf-8")
    chinese = ", 'Noto Sans SC', 'PingFang SC', 'Microsoft YaHei', 'WenQuanYi Micro Hei'"
    _ = report.text
    return environment.from_string(text).render(
        lang=report.language.code,
        title=report.title,
        period=report.period_text,
        head=report.letterhead,
        contents_word=_("Contents"),
        subtitle=report.subtitle(),
        scope_word=_("Scope"),
        d=report.d,
        font=charts.FONT + (chinese if report.language.code == "zh" else ""),
        scope=report.scope,
        sections=[_shown(section) for section in sections(report)],
        plots=drawings.svg(),
    )


def _shown(section: Section) -> dict[str, Any]:
    """A section as the template walks it."""
    blocks = []
    for block in section.blocks:
        if isinstance(block, Table):
            rows = list(zip(block.ids, block.rows, strict=True))
            blocks.append({"kind": "table", "block": block, "rows": rows})
        else:
            blocks.append({"kind": "plot" if isinstance(block, Plot) else block.kind, "block": block})
    return {"id": section.id, "title": section.title, "blocks": blocks}
