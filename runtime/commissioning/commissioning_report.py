"""The commissioning report: one HTML file that opens offline, signed with the device's key.

The signature stands in the file's head and covers every other byte of it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import numpy as np

from tidegate.runtime.charts import charts
from tidegate.runtime.commissioning.prompts import SetupError
from tidegate.runtime.state.device_key import DeviceKey, signed_by

OK, FINDING, UNCLEAR, SKIPPED = "ok", "finding", "unclear", "skipped"
MARK = '<meta name="tidegate-signature" content="">'
SIGNED = re.compile(r'<meta name="tidegate-signature" content="([0-9a-f]{128})">')
KEY = re.compile(r'<meta name="tidegate-key" content="([0-9a-f]{64})">')
PURPOSE = b"tidegate commissioning report\n"
PURPOSES_READ = (PURPOSE, b"tidegate commissioning protocol\n")  # the second: reports of before
PLOT_POINTS_MAX = 600


@dataclass
class Row:
    """One line of the report."""

    topic: str
    verdict: str
    says: str
    remedy: str = ""


@dataclass
class Report:
    """Everything that a commissioning found."""

    rows: list[Row] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    plots: list[dict[str, str]] = field(default_factory=list)
    tables: dict[str, dict[str, object]] = field(default_factory=dict)
    devices: dict[str, dict[str, object]] = field(default_factory=dict)

    def add(self, topic: str, verdict: str, says: str, remedy: str = "") -> Row:
        """Add a line and give it."""
        row = Row(topic, verdict, says, remedy)
        self.rows.append(row)
        return row

    def figure(self, name: str, value: float, digits: int = 1) -> None:
        """Keep a measured figure; one that could not be measured is left out."""
        if np.isfinite(value):
            self.figures[name] = round(float(value), digits) if digits else round(float(value))

    @property
    def written(self) -> list[tuple[str, object]]:
        """Key and value of everything that goes into the site file."""
        pairs = [(f"[{table}] {key}", value) for table, row in self.tables.items() for key, value in row.items()]
        return pairs + [(f"device {name}: {key}", v) for name, row in self.devices.items() for key, v in row.items()]


def plot(t: np.ndarray, lines: Mapping[str, np.ndarray], title: str, caption: str) -> dict[str, str]:
    """A small plot of powers over time, kW."""
    colours = {"setpoint": charts.MUTED, "converter": charts.BATTERY, "grid meter": charts.GRID}
    with charts.styled():
        made, axes = charts.figure(640, 180)
        for name, values in lines.items():
            step = max(1, len(t) // PLOT_POINTS_MAX)
            axes.plot(t[::step], values[::step] / 1e3, label=name, color=colours.get(name, charts.INK), linewidth=1.2)
        axes.set_xlabel("s")
        axes.set_ylabel("kW")
        axes.set_title(title)
        axes.legend(loc="upper right", fontsize=8)
        return {"svg": charts.svg(made, title), "caption": caption}


def html(report: Report, *, site: str, at: str, by: str, key: str, about: Sequence[tuple[str, str]]) -> str:
    """The page, not signed yet."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tidegate.runtime", "commissioning"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    count = {verdict: sum(row.verdict == verdict for row in report.rows) for verdict in (OK, FINDING, UNCLEAR, SKIPPED)}
    return environment.get_template("commissioning_report.html.j2").render(
        site=site, at=at, by=by, key=key, about=about, rows=report.rows, plots=report.plots, count=count,
        figures=list(report.figures.items()), written=report.written, font=charts.FONT,
    )  # fmt: skip


def signed(page: str, key: DeviceKey) -> str:
    """The page with its signature."""
    if page.count(MARK) != 1:
        raise ValueError("the page has no single place for a signature")
    signature = key.sign(PURPOSE + page.encode())
    return page.replace(MARK, MARK.replace('content=""', f'content="{signature}"'))


def verify(path: Path, key: str | None) -> str:
    """The public key that signed a report. Raises SetupError if it was changed, or signed by another than `key`."""
    try:
        page = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{path}: cannot be read: {error}", 66) from None
    found, named = SIGNED.findall(page), KEY.findall(page)
    if len(found) != 1 or len(named) != 1:
        raise SetupError(f"{path}: is not a signed commissioning report", 65)
    body = SIGNED.sub(MARK, page).encode()
    if not any(signed_by(named[0], found[0], purpose + body) for purpose in PURPOSES_READ):
        raise SetupError(f"{path}: was changed after it was signed", 1)
    if key is not None and key.lower() != named[0]:
        raise SetupError(f"{path}: signed by {named[0]}, not by {key}", 1)
    return str(named[0])
