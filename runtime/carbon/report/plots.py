"""The plots of a report, for the page as SVG and for print as PNG: the same series, the same axes."""

import io
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tidegate.runtime.carbon.ledger.bodies import PeriodBody
from tidegate.runtime.carbon.report.view import Report
from tidegate.runtime.charts import charts

BARS = 400
# Distances of time ticks, h, and how they are written; months have no fixed length and are found by the calendar.
TICKS = ((1, "%H:%M"), (2, "%H:%M"), (3, "%H:%M"), (6, "%H:%M"), (24, "%m-%d"), (48, "%m-%d"), (120, "%m-%d"),
         (240, "%m-%d"))  # fmt: skip
TICKS_MAX = 12


Side: TypeAlias = list[tuple[str, float, str]]  # of a Sankey: name, quantity, colour


class Series(TypedDict):
    """What is drawn over time. hours: since the start; energy: kWh a bin, by outflow; factor: g/kWh; width: h a bin."""

    start_utc_s: int
    hours: npt.NDArray[np.float64]
    energy: dict[str, npt.NDArray[np.float64]]
    factor: npt.NDArray[np.float64]
    width: float


class Bins:
    """At most BARS bins of a span of `count` periods: hours since its start, kWh of each outflow, mean grid factor."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._size = max(1, -(-count // BARS))
        rows = -(-count // self._size)
        self._rows = rows
        self._energy_milliwh: dict[
            str, list[int]
        ] = {}  # lists: adding to one number of an array costs five times as much
        self._factor_ug, self._factor_milliwh, self._hours = [0] * rows, [0] * rows, [0.0] * rows
        self._first_s = 0
        self._length_s = 0
        self._number = 0

    def add(self, body: PeriodBody) -> None:
        at = self._number // self._size
        if self._number == 0:
            self._first_s, self._length_s = body["start_utc_s"], body["length_s"]
        if self._number % self._size == 0:
            self._hours[at] = (body["start_utc_s"] - self._first_s) / 3600
        self._number += 1
        for out in body["outflows"]:
            if out["kind"] in ("load", "residual"):
                row = self._energy_milliwh.get(out["name"])
                if row is None:
                    row = self._energy_milliwh[out["name"]] = [0] * self._rows
                row[at] += out["energy_milliwh"]
        self._factor_ug[at] += body["inflow_ug"].get("grid", 0)
        self._factor_milliwh[at] += (
            body["flows"]["grid.import"]["energy_milliwh"] if "grid.import" in body["flows"] else 0
        )

    def series(self) -> Series:
        with np.errstate(invalid="ignore", divide="ignore"):
            milliwh = np.array(self._factor_milliwh, dtype=float)
            factor = np.where(milliwh > 0, np.array(self._factor_ug, dtype=float) / milliwh, np.nan)
        energy = {name: np.array(row) / 1e6 for name, row in self._energy_milliwh.items()}
        width = self._size * self._length_s / 3600
        return {"start_utc_s": self._first_s, "hours": np.array(self._hours), "energy": energy, "factor": factor,
                "width": width}  # fmt: skip


def time_ticks(start_utc_s: int, hours: float) -> tuple[list[float], list[str]]:
    """(hours since the start, labels) of the ticks of a time axis, UTC."""
    for step, form in TICKS:
        if hours / step <= TICKS_MAX:
            at = -(-start_utc_s // (step * 3600)) * step * 3600
            found = list(range(at, start_utc_s + round(hours * 3600) + 1, step * 3600))
            return [(t - start_utc_s) / 3600 for t in found], [_label(t, form) for t in found]
    found, day = [], datetime.fromtimestamp(start_utc_s, UTC).replace(day=1, hour=0, minute=0, second=0)
    while day.timestamp() <= start_utc_s + hours * 3600:
        if day.timestamp() >= start_utc_s:
            found.append(int(day.timestamp()))
        day = day.replace(year=day.year + day.month // 12, month=day.month % 12 + 1)
    found = found[:: max(1, -(-len(found) // (TICKS_MAX + 1)))]
    return [(t - start_utc_s) / 3600 for t in found], [_label(t, "%Y-%m") for t in found]


def _label(utc_s: int, form: str) -> str:
    return datetime.fromtimestamp(utc_s, UTC).strftime(form)


class Drawings:
    """The plots of one document in one language."""

    def __init__(self, document: Mapping[str, Any], series: Series, report: Report) -> None:
        self.d = document
        self.series = series
        self.report = report
        self.text = report.text
        self.middle = report.text("site bus")
        local = [row["source"] for row in document["evidence"]["sources"] if row["kind"] == "SOE01"]
        e = document["energy_milliwh"]
        storages = sorted({*e["charge"], *e["discharge"]})
        self.paint = charts.colours([*e["inflow"], *e["outflow"], *storages, *series["energy"]], storages, local)

    # ---- the flows ----

    def flows(self) -> dict[str, tuple[charts.Layout, str, int]]:
        """energy, carbon -> its Sankey laid out, unit, decimals."""
        _ = self.text
        (left, right), (from_left, to_right) = self._sides()
        return {
            "energy": (charts.layout(left, right, _("kWh")), _("kWh"), 1),
            "carbon": (charts.layout(from_left, to_right, _("kg CO2e"), digits=3), _("kg CO2e"), 3),
        }

    def _sides(self) -> tuple[tuple[Side, Side], tuple[Side, Side]]:
        """((left, right) of energy in kWh, (left, right) of carbon in kg)."""
        e, c, _, name = self.d["energy_milliwh"], self.d["carbon_ug"], self.text, self.report.name
        left = [(name(node), milliwh / 1e6, self.paint[node]) for node, milliwh in e["inflow"].items()]
        left += [
            (f"{node}, {_('discharged')}", milliwh / 1e6, charts.BATTERY) for node, milliwh in e["discharge"].items()
        ]
        right = [(name(node), milliwh / 1e6, self.paint[node]) for node, milliwh in e["outflow"].items()]
        right += [(f"{node}, {_('charged')}", milliwh / 1e6, charts.BATTERY) for node, milliwh in e["charge"].items()]
        stock = sum(c["outflow"].values()) + sum(c["charge"].values()) - sum(c["inflow"].values()) - c["created"]
        from_left = [(name(node), ug / 1e9, self.paint[node]) for node, ug in c["inflow"].items()]
        from_left += [
            (_("from storage"), stock / 1e9, charts.BATTERY),
            (_("unknown"), c["created"] / 1e9, charts.OTHER),
        ]
        to_right = [(name(node), ug / 1e9, self.paint[node]) for node, ug in c["outflow"].items()]
        to_right += [(f"{node}, {_('charged')}", ug / 1e9, charts.BATTERY) for node, ug in c["charge"].items()]
        return (left, right), (from_left, to_right)

    # ---- over time ----

    def draw_time(self, top: Axes, low: Axes) -> None:
        """Mean power of the loads, and the grid's factor below it."""
        _ = self.text
        s = self.series
        # One filled step line a node: a bar for each bin would be thousands of patches.
        edges = np.append(s["hours"], s["hours"][-1] + s["width"])
        base = np.zeros(len(edges))
        for name, values in s["energy"].items():
            if values.any():
                upper = base + np.append(values, values[-1]) / s["width"]
                top.fill_between(edges, base, upper, step="post", lw=0, label=self.report.name(name),
                                 color=self.paint[name])  # fmt: skip
                base = upper
        top.set_ylim(0, max(float(base.max()) * 1.22, 1e-9))
        top.set_xlim(edges[0], edges[-1])
        top.set(ylabel=_("kW, mean"))
        top.legend(loc="upper left", ncols=5, fontsize="small", borderaxespad=0.2, columnspacing=1.2, handlelength=1.2)
        low.step(edges, np.append(s["factor"], s["factor"][-1]), where="post", color=charts.GRID, lw=1.4)
        low.set(ylabel=_("g/kWh"))
        low.set_ylim(0)
        at, labels = time_ticks(s["start_utc_s"], float(edges[-1]))
        low.set_xticks(at, labels)
        low.set_xlabel("UTC")

    def draw_idle(self, axes: Axes) -> None:
        """Idle energy by the hour of the day."""
        _ = self.text
        base = np.zeros(24)
        for name, node in self.d["compute"]["nodes"].items():
            values = np.array(node["idle_by_hour_utc_milliwh"], dtype=float) / 1e6
            axes.bar(np.arange(24) + 0.5, values, 0.86, bottom=base, lw=0, label=self.report.name(name),
                     color=self.paint.get(name, charts.IT))  # fmt: skip
            base += values
        axes.set_xlim(0, 24)
        axes.set_xticks(range(0, 25, 3), [f"{hour:02d}:00" for hour in range(0, 25, 3)])
        axes.set(ylabel=_("idle, kWh"))
        if len(self.d["compute"]["nodes"]) > 1:
            axes.set_ylim(0, max(float(base.max()) * 1.22, 1e-9))
            axes.legend(loc="upper left", ncols=5, fontsize="small", borderaxespad=0.2)

    def svg(self) -> dict[str, str]:
        """Every plot as SVG text, by name."""
        _ = self.text
        found = {}
        titles = {"energy": _("Energy by flow"), "carbon": _("Carbon by flow")}
        for name, (laid, unit, digits) in self.flows().items():
            found[name] = charts.sankey_svg(laid, unit=unit, title=titles[name], middle=self.middle, digits=digits)
        with charts.styled():
            made, (top, low) = charts.figure(860, 320, 2, (3, 1.6))
            self.draw_time(top, low)
            found["time"] = charts.svg(made, _("Energy and grid factor over time"), "plot-time")
            if "compute" in self.d:
                made, axes = charts.figure(860, 170)
                self.draw_idle(axes)
                found["idle"] = charts.svg(made, _("Drawn while no useful work ran"), "plot-idle")
        return found

    def png(self, name: str, width: float, height: float, dpi: float, fonts: list[str]) -> bytes:
        """The plot "time" or "idle" as a PNG, for print. width, height : points."""
        buffer = io.BytesIO()
        family = [*fonts, *charts.STYLE["font.sans-serif"]]
        with charts.styled(**{"font.sans-serif": family, "axes.unicode_minus": False, "font.size": 7.5}):
            made = Figure(figsize=(width / 72, height / 72), layout="constrained")
            FigureCanvasAgg(made)
            if name == "time":
                top, low = made.subplots(2, 1, sharex=True, height_ratios=(3, 1.6))
                self.draw_time(top, low)
            else:
                self.draw_idle(made.subplots())
            made.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
        return buffer.getvalue()
