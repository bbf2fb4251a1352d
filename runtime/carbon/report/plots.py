"""The plots of a report, for the page as SVG and for print as PNG: the same series, the same axes."""

import io
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tidegate.runtime.carbon.ledger.bodies import PeriodBody
from tidegate.runtime.carbon.report.demand_windows import WINDOW_S, import_of
from tidegate.runtime.carbon.report.local_time import day_start, month_of, next_day, shown
from tidegate.runtime.carbon.report.view import Report
from tidegate.runtime.charts import charts

BARS = 400
BARS_MAX = 12  # loads of their own in the idle chart
# Distances of time ticks, h, and how they are written; months have no fixed length and are found by the calendar.
TICKS = ((1, "%H:%M"), (2, "%H:%M"), (3, "%H:%M"), (6, "%H:%M"), (24, "%m-%d"), (48, "%m-%d"), (120, "%m-%d"),
         (240, "%m-%d"))  # fmt: skip
TICKS_MAX = 12


Side: TypeAlias = list[tuple[str, float, str]]  # of a Sankey: name, quantity, colour


class Series(TypedDict):
    """What is drawn over time. hours: since the start; energy: kWh a bin, by outflow; factor: g/kWh; width: h a bin.

    demand, without, second: kW, the highest of each bin: of a demand window, the same without storage, of one second
    (NaN where it was not read).
    """

    start_utc_s: int
    hours: npt.NDArray[np.float64]
    energy: dict[str, npt.NDArray[np.float64]]
    factor: npt.NDArray[np.float64]
    width: float
    demand: npt.NDArray[np.float64]
    without: npt.NDArray[np.float64]
    second: npt.NDArray[np.float64]


class Bins:
    """At most BARS bins of a span of `count` periods: hours since its start, kWh of each outflow, mean grid factor."""

    def __init__(self, count: int, window_s: int = WINDOW_S) -> None:
        self.count = count
        self._size = max(1, -(-count // BARS))
        rows = -(-count // self._size)
        self._rows = rows
        self._energy_milliwh: dict[
            str, list[int]
        ] = {}  # lists: adding to one number of an array costs five times as much
        self._factor_ug, self._factor_milliwh, self._hours = [0] * rows, [0] * rows, [0.0] * rows
        self._window_s = window_s
        self._windows: dict[int, list[int]] = {}  # by their start: bin, mWh imported, mWh without storage
        self._second_w = [-1] * rows
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
        imported, without, watts = import_of(body)
        window = max(self._window_s, self._length_s)
        sums = self._windows.setdefault(body["start_utc_s"] // window, [at, 0, 0])
        sums[1] += imported
        sums[2] += without
        self._second_w[at] = max(self._second_w[at], watts)
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
                "width": width, "demand": self._highest(1), "without": self._highest(2),
                "second": np.array([watts / 1000 if watts >= 0 else np.nan for watts in self._second_w])}  # fmt: skip

    def _highest(self, which: int) -> npt.NDArray[np.float64]:
        """The highest window of each bin, kW; one over several bins is the same in all of them."""
        found = np.full(self._rows, np.nan)
        scale = 3.6e-3 / max(1, self._window_s, self._length_s)
        for row in self._windows.values():
            found[row[0]] = np.fmax(found[row[0]], row[which] * scale)
        for at in range(1, self._rows):
            if np.isnan(found[at]):
                found[at] = found[at - 1]
        return found


def time_ticks(start_utc_s: int, hours: float, zone: tzinfo = UTC) -> tuple[list[float], list[str]]:
    """(hours since the start, labels) of the ticks of a time axis, by the clock of a zone."""
    end = start_utc_s + round(hours * 3600)
    for step, form in TICKS:
        if hours / step > TICKS_MAX:
            continue
        if step < 24:
            offset = datetime.fromtimestamp(start_utc_s, zone).utcoffset()
            shift = 0 if offset is None else round(offset.total_seconds())
            at = -(-(start_utc_s + shift) // (step * 3600)) * step * 3600 - shift
            found = list(range(at, end + 1, step * 3600))
        else:
            found, day = [], day_start(start_utc_s, zone)
            while day <= end:
                found.append(day)
                day = next_day(day, zone)
            found = [day for day in found if day >= start_utc_s][:: step // 24]
        return [(t - start_utc_s) / 3600 for t in found], [shown(t, form, zone) for t in found]
    found, month = [], month_of(start_utc_s, zone)
    while month[0] <= end:
        if month[0] >= start_utc_s:
            found.append(month[0])
        month = month_of(month[1], zone)
    found = found[:: max(1, -(-len(found) // (TICKS_MAX + 1)))]
    return [(t - start_utc_s) / 3600 for t in found], [shown(t, "%Y-%m", zone) for t in found]


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

    def draw_demand(self, axes: Axes) -> None:
        """Demand in front; the loads behind it, and faint the highest second of each bin."""
        _, s = self.text, self.series
        edges = np.append(s["hours"], s["hours"][-1] + s["width"])

        def step(name: str) -> npt.NDArray[np.float64]:
            values = {"demand": s["demand"], "without": s["without"], "second": s["second"]}[name]
            return np.append(values, values[-1])

        second, demand, without = step("second"), step("demand"), step("without")
        if np.isfinite(second).any():
            axes.fill_between(edges, demand, np.fmax(second, demand), step="post", lw=0, color=charts.GRID, alpha=0.16,
                              label=_("highest second"))  # fmt: skip
        if self.d["saved"] is not None:
            axes.step(edges, without, where="post", color=charts.MUTED, lw=1.0, ls=(0, (3, 2)),
                      label=_("without the battery"))  # fmt: skip
        axes.step(edges, demand, where="post", color=charts.GRID, lw=1.8, label=_("demand"))
        top = max((row["w"] for row in self.d["demand"]["months"]), default=0) / 1000
        axes.axhline(top, color=charts.LIMIT, lw=0.8, alpha=0.7)
        axes.set_ylim(0, max(float(np.nanmax([demand, without, second])) * 1.25, 1e-9))
        axes.set_xlim(edges[0], edges[-1])
        axes.set(ylabel=_("kW"))
        axes.legend(loc="upper left", ncols=5, fontsize="small", borderaxespad=0.2, columnspacing=1.2)
        self._time_axis(axes, float(edges[-1]))

    def _time_axis(self, axes: Axes, hours: float) -> None:
        zone = self.report.rows.zone
        at, labels = time_ticks(self.series["start_utc_s"], hours, zone)
        axes.set_xticks(at, labels)
        axes.set_xlabel(self.d["span"]["zone"])

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
        self._time_axis(low, float(edges[-1]))

    def draw_idle(self, axes: Axes) -> None:
        """Idle energy by the hour of the day."""
        _ = self.text
        base = np.zeros(24)
        nodes = self.d["compute"]["nodes"]
        hours = {name: np.array(node["idle_by_hour_utc_milliwh"], dtype=float) / 1e6 for name, node in nodes.items()}
        shown = sorted(hours, key=lambda name: -float(hours[name].sum()))[:BARS_MAX] if len(hours) > BARS_MAX else hours
        rest = [values for name, values in hours.items() if name not in shown]
        parts = [(self.report.name(name), hours[name], self.paint.get(name, charts.IT)) for name in hours
                 if name in shown]  # fmt: skip
        if rest:
            parts.append((_("other"), np.sum(rest, axis=0), charts.OTHER))
        for label, values, color in parts:
            axes.bar(np.arange(24) + 0.5, values, 0.86, bottom=base, lw=0, label=label, color=color)
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
            made, axes = charts.figure(860, 260)
            self.draw_demand(axes)
            found["demand"] = charts.svg(made, _("Demand"), "plot-demand")
            made, (top, low) = charts.figure(860, 320, 2, (3, 1.6))
            self.draw_time(top, low)
            found["time"] = charts.svg(made, _("Energy and grid factor over time"), "plot-time")
            if "compute" in self.d:
                made, axes = charts.figure(860, 170)
                self.draw_idle(axes)
                found["idle"] = charts.svg(made, _("Drawn while no useful work ran"), "plot-idle")
        return found

    def png(self, name: str, width: float, height: float, dpi: float, fonts: list[str]) -> bytes:
        """The plot "time", "demand" or "idle" as a PNG, for print. width, height : points."""
        buffer = io.BytesIO()
        family = [*fonts, *charts.STYLE["font.sans-serif"]]
        with charts.styled(**{"font.sans-serif": family, "axes.unicode_minus": False, "font.size": 7.5}):
            made = Figure(figsize=(width / 72, height / 72), layout="constrained")
            FigureCanvasAgg(made)
            if name == "time":
                top, low = made.subplots(2, 1, sharex=True, height_ratios=(3, 1.6))
                self.draw_time(top, low)
            elif name == "demand":
                self.draw_demand(made.subplots())
            else:
                self.draw_idle(made.subplots())
            made.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
        return buffer.getvalue()
