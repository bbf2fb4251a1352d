"""Reports from the ledger: JSON, CSV, HTML and PDF of the same numbers, the same bytes for the same ledger."""

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from tidegate.runtime.carbon import plots
from tidegate.runtime.carbon.account import break_even_ppm
from tidegate.runtime.carbon.attribution import THROUGH_STORAGE
from tidegate.runtime.carbon.evidence import gather
from tidegate.runtime.carbon.factors import iso, parse_time
from tidegate.runtime.carbon.jobs.summary import IDLE_COLUMNS, JOB_COLUMNS, job_rows
from tidegate.runtime.carbon.ledger import Ledger, LedgerError, canonical
from tidegate.runtime.carbon.words import DEFINITIONS_ZH, POLICY_ZH, SCOPE_ZH, WORDS

BARS = 400
COLUMNS = ("start_utc", "length_s", "node", "kind", "mwh", "ug", "quality", "method", "factor_ug_per_kwh",
           "factor_status", "flags")  # fmt: skip
CJK = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "SimHei")


NOT_MEASURED = "not measured"


class ReportError(RuntimeError):
    """A report that cannot be made; the text says what is missing."""


def span_of(text: str) -> tuple[int, int]:
    """(start, end) in UTC seconds of a day, month or year: 2026-03-14, 2026-03 or 2026. Raises ValueError."""
    for form, step in (("%Y-%m-%d", "day"), ("%Y-%m", "month"), ("%Y", "year")):
        try:
            start = datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
        if step == "day":
            return int(start.timestamp()), int(start.timestamp()) + 86_400
        if step == "month":
            end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
        else:
            end = start.replace(year=start.year + 1)
        return int(start.timestamp()), int(end.timestamp())
    raise ValueError(f"{text!r}: expected a day, month or year, like 2026-03-14, 2026-03 or 2026")


def span_between(span: str | None, start: str | None, end: str | None) -> tuple[int, int]:
    """(start, end) of --span, or of --from and --to."""
    if span is not None:
        return span_of(span)
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
    **more: Any,
) -> dict[str, Path]:
    """Write report.json, report.csv, and report.<language>.html and .pdf into `out`. -> what was written, by name.

    more : as for evidence.gather. Raises LedgerError if nothing is booked, ReportError if a font is missing.
    """
    bins = Bins(ledger.count("period", start_utc_s, end_utc_s))
    if not bins.count:
        raise LedgerError(f"no period is booked from {iso(start_utc_s)} to {iso(end_utc_s)}")
    out.mkdir(parents=True, exist_ok=True)
    written = {"json": out / "report.json", "csv": out / "report.csv"}
    with written["csv"].open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)

        def each(body: Mapping[str, Any]) -> None:
            rows.writerows(rows_of(body))
            bins.add(body)

        days = Days(out)
        document, _, _ = gather(ledger, start_utc_s, end_utc_s, each=each, each_day=days.add, **more)
        written.update(days.close())
    written["indicators csv"] = out / "report.indicators.csv"
    with written["indicators csv"].open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(indicator_rows(document))
    written["json"].write_text(canonical(document) + "\n", encoding="utf-8")
    series = bins.series()
    for language in languages:
        words = WORDS[language]
        page = html(document, series, language)
        written[f"html {language}"] = out / f"report.{language}.html"
        written[f"html {language}"].write_text(page, encoding="utf-8")
        if pdf:
            written[f"pdf {language}"] = out / f"report.{language}.pdf"
            written[f"pdf {language}"].write_bytes(pdf_pages(document, series, language, words))
    return written


class Days:
    """The rows of jobs and of idle hours, written as they come; no file without a row."""

    def __init__(self, out: Path) -> None:
        self._paths = {"jobs csv": out / "report.jobs.csv", "idle csv": out / "report.idle.csv"}
        for path in self._paths.values():
            path.unlink(missing_ok=True)
        self._files: dict[str, Any] = {}

    def add(self, body: Mapping[str, Any]) -> None:
        for name, columns, rows in (
            ("jobs csv", JOB_COLUMNS, job_rows(body)),
            ("idle csv", IDLE_COLUMNS, body["idle"]),
        ):
            if name not in self._files:
                self._files[name] = self._paths[name].open("w", encoding="utf-8", newline="")
                csv.writer(self._files[name], lineterminator="\n").writerow(columns)
            csv.writer(self._files[name], lineterminator="\n").writerows(rows)

    def close(self) -> dict[str, Path]:
        for file in self._files.values():
            file.close()
        return {name: self._paths[name] for name in self._files}


def rows_of(body: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """CSV rows of one period, one a flow and one an outflow; ledger numbers as they are."""
    start, length = iso(body["start_utc_s"]), body["length_s"]
    flags = " ".join(flag.replace(" ", "_") for flag in body["flags"])
    factors = body["factors"]
    rows: list[tuple[Any, ...]] = []
    for name, flow in body["flows"].items():
        node, _, kind = name.partition(".")
        found = factors.get(node) if kind == "import" or kind == "generation" else None
        factor, status = (found["ug_per_kwh"], found["status"]) if found else ("", "")
        rows.append(
            (start, length, node, kind, flow["mwh"], "", flow["quality"], flow["method"], factor, status, flags)
        )
    for out in body["outflows"]:
        rows.append((start, length, out["name"], f"outflow {out['kind']}", out["mwh"], out["ug"], "", "", "", "", ""))
    return rows


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


class Bins:
    """At most BARS bins of a span of `count` periods: hours since its start, kWh of each outflow, mean grid factor."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._size = max(1, -(-count // BARS))
        rows = -(-count // self._size)
        self._rows = rows
        self._energy_mwh: dict[str, list[int]] = {}  # lists: adding to one number of an array costs five times as much
        self._factor_ug, self._factor_mwh, self._hours = [0] * rows, [0] * rows, [0.0] * rows
        self._first_s = 0
        self._length_s = 0
        self._number = 0

    def add(self, body: Mapping[str, Any]) -> None:
        at = self._number // self._size
        if self._number == 0:
            self._first_s, self._length_s = body["start_utc_s"], body["length_s"]
        if self._number % self._size == 0:
            self._hours[at] = (body["start_utc_s"] - self._first_s) / 3600
        self._number += 1
        for out in body["outflows"]:
            if out["kind"] in ("load", "residual"):
                row = self._energy_mwh.get(out["name"])
                if row is None:
                    row = self._energy_mwh[out["name"]] = [0] * self._rows
                row[at] += out["mwh"]
        self._factor_ug[at] += body["inflow_ug"].get("grid", 0)
        self._factor_mwh[at] += body["flows"].get("grid.import", {}).get("mwh", 0)

    def series(self) -> dict[str, Any]:
        with np.errstate(invalid="ignore", divide="ignore"):
            mwh = np.array(self._factor_mwh, dtype=float)
            factor = np.where(mwh > 0, np.array(self._factor_ug, dtype=float) / mwh, np.nan)
        energy = {name: np.array(row) / 1e6 for name, row in self._energy_mwh.items()}
        width = self._size * self._length_s / 3600
        return {"hours": np.array(self._hours), "energy": energy, "factor": factor, "width": width}


def time_plot(series: Mapping[str, Any], words: Mapping[str, str], width: float = 860) -> Any:
    made, (top, low) = plots.figure(width, 300, 2, (3, 2))
    # One filled step line a node: a bar for each bin would be thousands of patches.
    edges = np.append(series["hours"], series["hours"][-1] + series["width"])
    base = np.zeros(len(edges))
    for name, values in series["energy"].items():
        if values.any():
            upper = base + np.append(values, values[-1])
            top.fill_between(edges, base, upper, step="post", lw=0, label=name, color=plots.colour(name))
            base = upper
    top.set_ylim(0)
    top.set_xlim(edges[0], edges[-1])
    top.set(ylabel=words["unit_kwh"])
    top.legend(loc="upper left", ncols=4)
    low.step(series["hours"], series["factor"], where="post", color=plots.COOLING, lw=1.4)
    low.set(ylabel=words["intensity"], xlabel="h")
    return made


def sankeys(d: Mapping[str, Any], words: Mapping[str, str]) -> tuple[Any, Any]:
    """((left, right) of energy in kWh, (left, right) of carbon in kg)."""
    e, c = d["energy_mwh"], d["carbon_ug"]
    left = [(name, mwh / 1e6, plots.colour(name)) for name, mwh in e["inflow"].items()]
    left += [(f"{name}, {words['discharged']}", mwh / 1e6, plots.BATTERY) for name, mwh in e["discharge"].items()]
    right = [(name, mwh / 1e6, plots.colour(name)) for name, mwh in e["outflow"].items()]
    right += [(f"{name}, {words['charged']}", mwh / 1e6, plots.BATTERY) for name, mwh in e["charge"].items()]
    stock = sum(c["outflow"].values()) + sum(c["charge"].values()) - sum(c["inflow"].values()) - c["created"]
    from_left = [(name, ug / 1e9, plots.colour(name)) for name, ug in c["inflow"].items()]
    from_left += [
        (words["from_battery"], stock / 1e9, plots.BATTERY),
        (words["unknown"], c["created"] / 1e9, plots.OTHER),
    ]
    to_right = [(name, ug / 1e9, plots.colour(name)) for name, ug in c["outflow"].items()]
    to_right += [(f"{name}, {words['charged']}", ug / 1e9, plots.BATTERY) for name, ug in c["charge"].items()]
    return (left, right), (from_left, to_right)


def html(document: Mapping[str, Any], series: Mapping[str, Any], language: str) -> str:
    """The page in one language."""
    words = WORDS[language]
    energy, carbon = sankeys(document, words)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        iso=iso,
        kwh=lambda mwh: f"{mwh / 1e6:,.3f}",
        kg=lambda ug: f"{ug / 1e9:,.3f}",
        per=lambda pair: f"{pair[0] / pair[1]:,.1f}" if pair[1] else "",
    )
    with plots.styled():
        time_svg = plots.svg(time_plot(series, words), words["over_time"])
    text = files("tidegate.runtime.carbon").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(text).render(
        lang=language,
        w=words,
        d=document,
        font=plots.FONT + (", 'Noto Sans SC', 'PingFang SC', 'Microsoft YaHei'" if language == "zh" else ""),
        scope=SCOPE_ZH if language == "zh" else document["scope"],
        definitions={**document["indicators"]["definitions"], **(DEFINITIONS_ZH if language == "zh" else {})},
        policy_note=POLICY_ZH if language == "zh" else document["policy_note"],
        break_even=break_even(document),
        origins=origin_rows(document),
        plots={
            "energy": plots.sankey(*energy, unit=words["kwh"], title=words["energy_flow"], middle=words["bus"]),
            "carbon": plots.sankey(
                *carbon, unit=words["kg"], title=words["carbon_flow"], middle=words["bus"], digits=3
            ),
            "time": time_svg,
        },
    )


def break_even(document: Mapping[str, Any]) -> str:
    """1 / round trip of the declared efficiencies, as text; the largest of several batteries."""
    found = [break_even_ppm(row[1], row[2]) for row in document["method"]["storages"].values()]
    return f"{max(found) / 1e6:.4f}" if found else "-"


def origin_rows(document: Mapping[str, Any]) -> list[tuple[str, str, int, int]]:
    """(node, source, energy in the same period, energy through storage)."""
    rows = []
    for name, origins in document["origins_mwh"].items():
        for source in sorted({origin.removesuffix(THROUGH_STORAGE) for origin in origins}):
            rows.append((name, source, origins.get(source, 0), origins.get(source + THROUGH_STORAGE, 0)))
    return rows


# ---- PDF ----


def pdf_font(language: str) -> str:
    """A font that has the language's letters. Raises ReportError if the machine has none."""
    from matplotlib import font_manager

    if language == "en":
        return "DejaVu Sans"
    known = {font.name for font in font_manager.fontManager.ttflist}
    for name in CJK:
        if name in known:
            return name
    raise ReportError(f"no font with Chinese letters for the PDF; install one of {', '.join(CJK)}, or use --no-pdf")


def pdf_pages(document: Mapping[str, Any], series: Mapping[str, Any], language: str, words: Mapping[str, str]) -> bytes:
    """Two pages: the numbers, and energy over time. No date inside, so that equal numbers give equal bytes."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    font = pdf_font(language)
    buffer = io.BytesIO()
    scope = SCOPE_ZH if language == "zh" else document["scope"]
    lines = pdf_lines(document, words)
    style = {**plots.STYLE, "font.sans-serif": [font], "pdf.fonttype": 42}
    with rc_context(style), PdfPages(buffer, metadata={"CreationDate": None, "Producer": "tidegate"}) as pages:  # type: ignore[arg-type]
        page = Figure(figsize=(8.27, 11.69))
        page.text(0.08, 0.94, f"{words['title']}: {document['site']}", size=18, weight="bold", color=plots.INK)
        page.text(
            0.08,
            0.92,
            f"{iso(document['span']['from_utc_s'])} - {iso(document['span']['to_utc_s'])}",
            color=plots.MUTED,
        )
        y = 0.895
        for line in _wrapped(scope, 60 if language == "zh" else 105):
            page.text(0.08, y, line, size=8.5, color=plots.MUTED)
            y -= 0.014
        y -= 0.01
        for label, value in lines:
            if not value:
                y -= 0.012
                page.text(0.08, y, label, size=11, weight="bold", color=plots.INK)
            else:
                page.text(0.08, y, label, size=9, color=plots.INK)
                page.text(0.92, y, value, size=9, color=plots.INK, ha="right")
            y -= 0.0165
            if y < 0.06:
                pages.savefig(page)
                page = Figure(figsize=(8.27, 11.69))
                y = 0.94
        pages.savefig(page)
        pages.savefig(time_plot(series, words, 595))
    return buffer.getvalue()


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    if " " in text[:width]:
        return textwrap.wrap(text, width)
    return [text[i : i + width] for i in range(0, len(text), width)]


def pdf_lines(d: Mapping[str, Any], words: Mapping[str, str]) -> list[tuple[str, str]]:
    """(label, value) rows of the PDF; an empty value is a heading."""
    rows: list[tuple[str, str]] = [(words["energy"], "")]
    rows += [(f"{name} ->", f"{mwh / 1e6:,.3f} {words['kwh']}") for name, mwh in d["energy_mwh"]["inflow"].items()]
    rows += [(f"-> {name}", f"{mwh / 1e6:,.3f} {words['kwh']}") for name, mwh in d["energy_mwh"]["outflow"].items()]
    for key, word in (("charge", "charged"), ("discharge", "discharged"), ("storage_loss", "loss")):
        rows += [
            (f"{name}, {words[word]}", f"{mwh / 1e6:,.3f} {words['kwh']}") for name, mwh in d["energy_mwh"][key].items()
        ]
    rows.append((words["carbon"], ""))
    rows += [(f"{name} ->", f"{ug / 1e9:,.3f} {words['kg']}") for name, ug in d["carbon_ug"]["inflow"].items()]
    rows += [(f"-> {name}", f"{ug / 1e9:,.3f} {words['kg']}") for name, ug in d["carbon_ug"]["outflow"].items()]
    rows.append((words["indicators"], ""))
    pue = f"{d['indicators']['pue'] or '-'}" + (" *" if d["indicators"]["pue_kind"] == "interim" else "")
    rows += [("PUE", pue), ("CUE, kg/kWh", d["indicators"]["cue_kg_per_kwh"] or "-")]
    if pue.endswith("*"):
        rows.append((f"* {words['interim']}", " "))
    rows.append((words["scope2"], ""))
    rows.append((words["location"], f"{d['scope2']['location_based_ug'] / 1e9:,.3f} {words['kg']}"))
    market = d["scope2"]["market_based"]
    if market:
        rows.append((words["market"], f"{market['hourly_ug'] / 1e9:,.3f} {words['kg']}"))
        rows.append((words["netted"], f"{market['netted_ug'] / 1e9:,.3f} {words['kg']}"))
    rows.append((words["quality"], ""))
    rows += [(name, f"{mwh / 1e6:,.3f} {words['kwh']}") for name, mwh in d["quality_mwh"].items()]
    rows.append((words["gaps"], str(len(d["gaps"])) if d["gaps"] else words["none"]))
    rows.append((words["ledger"], ""))
    rows += [(words["root"], d["ledger"]["root"]), (words["digest"], d["sha256"])]
    return rows
