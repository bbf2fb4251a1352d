"""The demo's plots. Each takes plain arrays and gives SVG text for the page."""

from collections.abc import Sequence

import numpy as np

from tidegate.runtime.carbon.engine.attribution import RESIDUAL
from tidegate.runtime.carbon.ledger.bodies import PeriodBody
from tidegate.runtime.carbon.report.totals import Sums
from tidegate.runtime.charts import charts
from tidegate.runtime.demo.runs import LiveRun, WholeRun

WIDTH = 860
BINS = 900


def _minutes(t_s: np.ndarray) -> np.ndarray:
    return t_s / 60.0


def grid_plot(run: WholeRun) -> str:
    """Grid import with and without the cabinet, least and most of each bin, and the limit."""
    t_s = run.series["t_s"]
    with charts.styled():
        made, axes = charts.figure(WIDTH, 300)
        t, top = charts.binned(t_s, run.series["load_w"], BINS, "max")
        _, low = charts.binned(t_s, run.series["load_w"], BINS, "min")
        axes.fill_between(_minutes(t), low / 1e3, top / 1e3, color=charts.WITHOUT, alpha=0.75, lw=0.8, step="post",
                          label="without the cabinet")  # fmt: skip
        t, top = charts.binned(t_s, run.series["grid_max_w"], BINS, "max")
        _, low = charts.binned(t_s, run.series["grid_min_w"], BINS, "min")
        axes.fill_between(_minutes(t), low / 1e3, top / 1e3, color=charts.GRID, alpha=0.85, lw=0.8, step="post",
                          label="with the cabinet")  # fmt: skip
        axes.axhline(run.limit_w / 1e3, color=charts.LIMIT, lw=1.4, ls=(0, (5, 3)))
        axes.annotate(
            f"limit {run.limit_w / 1e3:g} kW",
            (1.0, run.limit_w / 1e3),
            xycoords=("axes fraction", "data"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="right",
            color=charts.LIMIT,
        )
        axes.set(xlabel="minutes", ylabel="grid import, kW", xlim=(0, t_s[-1] / 60), ylim=(0, None))
        axes.legend(loc="lower right", ncols=2)
        return charts.svg(made, "Grid import with and without the cabinet")


def battery(run: WholeRun) -> str:
    """Battery power and state of charge."""
    t_s = run.series["t_s"]
    with charts.styled():
        made, (power, soc) = charts.figure(WIDTH, 330, 2, (3, 2))
        t, top = charts.binned(t_s, run.series["ess_w"], BINS, "max")
        _, low = charts.binned(t_s, run.series["ess_w"], BINS, "min")
        power.fill_between(_minutes(t), np.minimum(low, 0) / 1e3, np.maximum(top, 0) / 1e3, color=charts.BATTERY,
                           alpha=0.8, lw=0, step="post")  # fmt: skip
        power.axhline(0, color=charts.MUTED, lw=0.8)
        power.set(ylabel="battery, kW\n+ discharge", xlim=(0, t_s[-1] / 60))
        t, values = charts.binned(t_s, run.series["soc"], BINS, "mean")
        soc.plot(_minutes(t), values * 100, color=charts.INK, lw=1.6)
        soc.set(ylabel="state of charge, %", xlabel="minutes")
        return charts.svg(made, "Battery power and state of charge")


def reasons(run: WholeRun) -> str:
    """Which reason bound the setpoint, when, and for how long."""
    t_s, codes = run.series["t_s"], run.series["reason"].astype(int)
    seconds = np.bincount(codes[codes >= 0], minlength=len(run.reasons)) * run.row_s
    shown = [code for code in range(len(run.reasons)) if seconds[code] > 0]
    with charts.styled():
        made, axes = charts.figure(WIDTH, 46 + 26 * len(shown))
        for row, code in enumerate(reversed(shown)):
            edges = np.flatnonzero(np.diff(np.concatenate(([0], (codes == code).astype(int), [0]))))
            spans = [(t_s[a] / 60, (b - a) * run.row_s / 60) for a, b in zip(edges[::2], edges[1::2], strict=True)]
            axes.broken_barh(spans, (row - 0.36, 0.72), color=_reason_colour(run.reasons[code]), lw=0)
            axes.annotate(f"{seconds[code] / 60:.1f} min", (1, row), xycoords=("axes fraction", "data"), xytext=(4, -3),
                          textcoords="offset points", color=charts.MUTED, annotation_clip=False)  # fmt: skip
        axes.set_yticks(range(len(shown)), [run.reasons[code] for code in reversed(shown)])
        axes.set(xlabel="minutes", xlim=(0, t_s[-1] / 60), ylim=(-0.6, len(shown) - 0.4))
        axes.grid(axis="y", visible=False)
        return charts.svg(made, "Binding reason over time")


def _reason_colour(name: str) -> str:
    return {
        "peak limit": charts.BATTERY, "connection limit": charts.LIMIT, "recharge band": charts.COOLING,
        "recentre": charts.PV, "rest": charts.WITHOUT, "gate": charts.LIMIT, "blind": charts.LIMIT,
    }.get(name, charts.GRID)  # fmt: skip


def close_up(run: WholeRun) -> str:
    """The steepest steps at full resolution: load, grid and setpoint."""
    t_s = run.close_up["t_s"]
    with charts.styled():
        made, (grid, ess) = charts.figure(WIDTH, 330, 2, (3, 2))
        grid.step(t_s, run.close_up["load_w"] / 1e3, where="post", color=charts.WITHOUT, lw=1.6, label="load")
        grid.step(t_s, run.close_up["grid_w"] / 1e3, where="post", color=charts.GRID, lw=1.2, label="grid")
        grid.axhline(run.limit_w / 1e3, color=charts.LIMIT, lw=1.2, ls=(0, (5, 3)))
        grid.set(ylabel="kW", xlim=(t_s[0], t_s[-1]))
        grid.legend(loc="lower right", ncols=2)
        ess.step(t_s, run.close_up["setpoint_w"] / 1e3, where="post", color=charts.INK, lw=1.0, label="setpoint")
        ess.step(t_s, run.close_up["ess_w"] / 1e3, where="post", color=charts.BATTERY, lw=1.4, label="battery")
        ess.set(ylabel="battery, kW", xlabel="seconds")
        ess.legend(loc="lower right", ncols=2)
        return charts.svg(made, "The steepest minute of the trace")


def histogram(buckets: Sequence[tuple[int, int]], what: str, marks: dict[str, float]) -> str:
    """A log-log histogram of durations. buckets : (lower edge in ns, count); marks : name -> us."""
    rows = [(max(edge, 1) / 1e3, count) for edge, count in buckets if count]
    with charts.styled():
        made, axes = charts.figure(WIDTH, 220)
        if rows:
            edges = np.array([edge for edge, _ in rows])
            counts = np.array([count for _, count in rows], dtype=float)
            axes.bar(edges, counts, width=edges * 0.031, align="edge", color=charts.GRID, lw=0)
            axes.set(xscale="log", yscale="log", xlabel=f"{what}, us", ylabel="cycles")
            for name, value in marks.items():
                if value > 0:
                    axes.axvline(value, color=charts.LIMIT if name == "max" else charts.INK, lw=1, ls=(0, (2, 2)))
                    axes.annotate(f"{name} {value:.3g}", (value, 1), xycoords=("data", "axes fraction"),
                                  xytext=(3, -10 if name != "p99" else -22), textcoords="offset points",
                                  color=charts.MUTED, fontsize=9)  # fmt: skip
        return charts.svg(made, f"Histogram of {what}")


def pue(bodies: Sequence[PeriodBody], kinds: dict[str, str]) -> str:
    """Interim PUE of each period, and the grid factor that it was booked with."""
    starts = np.array([body["start_utc_s"] for body in bodies], dtype=float)
    minutes = (starts - starts[0]) / 60
    ratio, factor = [], []
    for body in bodies:
        it = sum(out["energy_milliwh"] for out in body["outflows"] if kinds.get(out["name"]) == "it")
        rest = sum(out["energy_milliwh"] for out in body["outflows"] if out["kind"] in ("load", "residual"))
        rest += sum(body["loss_milliwh"].values())
        ratio.append(rest / it if it else np.nan)
        factor.append(body["factors"]["grid"]["ug_per_kwh"] / 1e6)
    with charts.styled():
        made, (top, low) = charts.figure(WIDTH, 260, 2)
        width = bodies[0]["length_s"] / 60 * 0.92
        top.bar(minutes, ratio, width=width, align="edge", color=charts.IT, lw=0)
        top.set(ylabel="interim PUE", ylim=(1.0, max([1.2, *(1.02 * one for one in ratio if one == one)])))
        low.bar(minutes, factor, width=width, align="edge", color=charts.COOLING, lw=0)
        low.set(ylabel="grid, g/kWh", xlabel="minutes, one bar a booked period")
        return charts.svg(made, "Interim PUE and grid factor of each period")


def energy_flow(sums: Sums) -> str:
    """Sankey of energy, kWh."""
    left = [(name, milliwh / 1e6, charts.colour(name)) for name, milliwh in sorted(sums.inflow_milliwh.items())]
    left += [
        (f"{name} discharge", milliwh / 1e6, charts.BATTERY) for name, milliwh in sorted(sums.discharge_milliwh.items())
    ]
    right = [(name, milliwh / 1e6, charts.colour(name)) for name, milliwh in sums.outflow_milliwh.items() if milliwh]
    right += [
        (f"{name} charge", milliwh / 1e6, charts.BATTERY) for name, milliwh in sorted(sums.charge_milliwh.items())
    ]
    return charts.sankey(left, right, unit="kWh", title="Energy by flow", middle="site bus", digits=2)


def carbon_flow(sums: Sums) -> str:
    """Sankey of carbon, kg CO2e, through the bus."""
    from_stock = (
        sum(sums.outflow_ug.values()) + sum(sums.charge_ug.values()) - sum(sums.inflow_ug.values()) - sums.created_ug
    )
    left = [(name, ug / 1e9, charts.colour(name)) for name, ug in sorted(sums.inflow_ug.items())]
    left.append(("from the battery", from_stock / 1e9, charts.BATTERY))
    left.append(("unknown", sums.created_ug / 1e9, charts.OTHER))
    right = [(name, ug / 1e9, charts.colour(name)) for name, ug in sums.outflow_ug.items()]
    right += [(f"{name} charge", ug / 1e9, charts.BATTERY) for name, ug in sorted(sums.charge_ug.items())]
    return charts.sankey(left, right, unit="kg", title="Carbon by flow", middle="site bus", digits=3)


def all_of(whole: WholeRun, live: LiveRun | None, sums: Sums) -> dict[str, str]:
    """Every plot of the page by name."""
    found = {
        "grid": grid_plot(whole),
        "battery": battery(whole),
        "reasons": reasons(whole),
        "energy": energy_flow(sums),
        "carbon": carbon_flow(sums),
        "pue": pue(whole.bodies, whole.kinds),
    }
    if whole.close_up:
        found["close_up"] = close_up(whole)
    if live is not None:
        found["lateness"] = histogram(live.lateness, "lateness of the wake-up", live.lateness_us)
        found["work"] = histogram(live.work, "work of a cycle", live.work_us)
    return found


assert RESIDUAL in charts.COLOURS
