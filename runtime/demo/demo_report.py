"""The report: one HTML file that opens offline, from the numbers of both acts."""

from importlib.resources import files
from typing import Any

import jinja2

from tidegate.runtime.carbon.factors.series import iso
from tidegate.runtime.carbon.report.totals import Indicators, Sums
from tidegate.runtime.charts.charts import FONT
from tidegate.runtime.demo import figures
from tidegate.runtime.demo.demo_subject import Subject
from tidegate.runtime.demo.run_summary import judged
from tidegate.runtime.demo.runs import LiveRun, WholeRun


def render(
    whole: WholeRun, live: LiveRun | None, sums: Sums, ratios: Indicators, summary: dict[str, Any], subject: Subject
) -> str:
    """The page. The same numbers give the same bytes: no clock, no chance, no file from outside."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        kw=lambda w: f"{w / 1e3:,.2f}",
        kwh=lambda milliwh: f"{milliwh / 1e6:,.3f}",
        kg=lambda ug: f"{ug / 1e9:,.3f}",
        iso=iso,
        number=lambda v, digits=1: "-" if v is None else f"{v:,.{digits}f}",
    )
    text = files("tidegate.runtime.demo").joinpath("demo_report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(text).render(
        font=FONT,
        whole=whole,
        live=live,
        sums=sums,
        ratios=ratios,
        summary=summary,
        subject=subject,
        judged=judged(summary),
        plots=figures.all_of(whole, live, sums),
        body=max(whole.bodies, key=lambda body: sum(o["energy_milliwh"] for o in body["outflows"])),
    )
