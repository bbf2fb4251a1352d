"""The demo's report and summary from plain numbers: complete, offline, and the same bytes for the same input."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tidegate.config.site import load_site
from tidegate.hal.description import described
from tidegate.runtime.carbon.engine.account import Accountant
from tidegate.runtime.carbon.engine.booking import BookedPeriod, FlowPeriod
from tidegate.runtime.carbon.engine.topology import nodes_of
from tidegate.runtime.carbon.factors.series import Factors, Series, Step
from tidegate.runtime.carbon.report.totals import add_up, indicators
from tidegate.runtime.charts.charts import binned, sankey
from tidegate.runtime.cli.demo_command import demo_site, ten_lines
from tidegate.runtime.demo.demo_report import render
from tidegate.runtime.demo.demo_subject import subject_of
from tidegate.runtime.demo.run_summary import judged, spread, summary_of
from tidegate.runtime.demo.runs import LiveRun, WholeRun
from tidegate.runtime.demo.virtual_run import Trace

G = 1_000_000
DESCRIBE = {
    "points": [{"name": n} for n in ("grid.import_wh", "grid.export_wh", "cooling.import_wh", "site.ess_discharged_ws",
                                     "site.ess_charged_ws", "site.ess_covered_s", "bms1.soc")],
    "nodes": [{"role": "grid", "device": "grid", "positive_wh": "grid.import_wh", "negative_wh": "grid.export_wh"},
              {"role": "cooling", "device": "cooling", "positive_wh": "cooling.import_wh", "negative_wh": None},
              {"role": "ess", "device": "pcs1", "positive_wh": None, "negative_wh": None}],
    "units": [{"name": "cabinet", "pcs": "pcs1", "energy_wh": 60_000.0}],
}  # fmt: skip


def trace():
    t_s = np.arange(0.0, 600.0, 2.0)
    power_w = np.where((t_s // 60) % 2 == 0, 20_000.0, 52_000.0)
    power_w[200:230:2] += 9_000
    return Trace(Path("trace.csv"), "power_w", t_s, power_w, "0" * 64)


def whole():
    nodes = nodes_of(described(DESCRIBE))
    steps = [Step(900 * i, 900 * i + 900, (200 + 10 * i) * G) for i in range(4)]
    accountant = Accountant("demo", nodes, Factors(Series("GB", "average", "gb.csv", steps=steps).finish(), G, "-"))
    bodies = []
    for i in range(4):
        milliwh = {"grid.import": 10_000_000, "grid.export": 0, "cooling.load": 700_000,
               "cabinet.discharge": 900_000 * (i % 2), "cabinet.charge": 950_000 * (i % 2 == 0)}  # fmt: skip
        flows = {k: FlowPeriod(v, "good", "register", [], 0, v, None, 900.0) for k, v in milliwh.items()}
        bodies.append(accountant.book(BookedPeriod(900 * i, 900, flows, [], 900, 0, 800_000, "S")))
    t_s = np.arange(0.0, 3600.0, 0.5)
    load = np.where((t_s // 100) % 2 == 0, 21_000.0, 60_000.0)
    ess = np.maximum(0.0, load - 48_000)
    grid = load - ess
    series = {"t_s": t_s, "load_w": load, "grid_w": grid, "grid_min_w": grid, "grid_max_w": grid + 100,
              "ess_w": ess, "soc": 0.8 - t_s / 1e5, "reason": np.where(ess > 0, 8.0, 17.0)}  # fmt: skip
    names = [*(f"reason {i}" for i in range(8)), "peak limit", *(f"r{i}" for i in range(9, 17)), "rest"]
    reasons = tuple(names)
    return WholeRun(
        3600.0, 3_600_000, 3.6, 3.5, "ab" * 32, 1, 0.5, series, 48_000.0, 0.19, 36,
        {"without": 14_500.0, "with": 40.0, "with_outside_reaction": 0.0, "floor": 33.0, "floor_recharging": 35.0},
        {"without": 63_800.0, "with": 60_000.0, "with_outside_reaction": 47_990.0}, reasons, bodies, nodes.kinds,
        list(nodes.notes), {"cycles": 3_600_000, "lapses": 0}, [11.0, 12.5, 20.0],
        {"t_s": t_s[:50], "load_w": load[:50], "grid_w": load[:50], "ess_w": ess[:50], "setpoint_w": ess[:50]},
    )  # fmt: skip


def live():
    return LiveRun(
        30.0, 1000, 30_000, 3, {"p50": 60.0, "p99": 300.0, "max": 4000.0}, {"p50": 6.0, "p99": 12.0, "max": 90.0},
        [(60_000, 20_000), (300_000, 9_990), (4_000_000, 10)], [(6_000, 29_000), (12_000, 1000)], [12.0, 14.0],
        ["<FIFO>"], 86_000, 65_536, 4, {"numpy": False, "zmq": False, "pydantic": False}, 31, 31, 0,
        47_900.0, 48_000.0, True,
    )  # fmt: skip


def page(run=None, act=None, quick=False):
    run = run or whole()
    sums = add_up(run.bodies)
    ratios = indicators(sums, run.kinds)
    subject = subject_of(load_site(demo_site()), trace())
    summary = summary_of(run, act, sums, ratios, trace(), quick, subject)
    return render(run, act, sums, ratios, summary, subject), summary


def test_the_page_opens_offline_and_holds_every_plot():
    text, _ = page(act=live())
    outside = [link for link in re.findall(r"""(?:src|href)=["']?([^"'> ]*)""", text) if not link.startswith("#")]
    assert outside == []
    assert "@import" not in text and "url(http" not in text
    titles = re.findall(r"<title>([^<]*)</title>", text)
    assert titles[1:] == [
        "Grid import with and without the cabinet", "The steepest minute of the trace",
        "Battery power and state of charge",
        "Binding reason over time", "Histogram of lateness of the wake-up", "Histogram of work of a cycle",
        "Energy by flow", "Carbon by flow", "Interim PUE and grid factor of each period",
    ]  # fmt: skip
    for svg in re.findall(r"<svg.*?</svg>", text, flags=re.S):
        ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1))


def test_the_same_numbers_give_the_same_bytes():
    assert page(act=live())[0] == page(act=live())[0]


def test_the_page_works_without_a_live_act():
    text, summary = page(quick=True)
    assert "Timing, live" not in text and "live" not in summary
    assert "quick run" in text


def test_what_the_machine_lacks_is_shown_as_text():
    assert "&lt;FIFO&gt;" in page(act=live())[0]


def test_the_summary_has_every_field_that_the_docs_promise():
    _, summary = page(act=live())
    text = Path("docs/summary.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([a-z_0-9.]+)` \|", text, flags=re.M))

    def paths(value, prefix=""):
        for key, item in value.items():
            if isinstance(item, dict) and f"{prefix}{key}" not in documented:
                yield from paths(item, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}"

    assert set(paths(summary)) == documented
    assert json.loads(json.dumps(summary)) == summary


def test_words_that_promise_too_much_never_appear():
    text, _ = page(act=live())
    for word in ("compliant", "certified", "zero carbon"):
        assert word not in text.lower()


def test_a_missed_figure_is_called_missed():
    run = whole()
    run.peak_w["with_outside_reaction"] = 48_100.0
    _, summary = page(run, live())
    verdicts = {path: verdict for path, _, _, verdict in judged(summary)}
    assert verdicts["virtual.grid_peak_w.with_outside_reaction"] == "missed"
    assert verdicts["virtual.speed_x_realtime"] == "met"
    assert verdicts["carbon.balance_error_ug"] == "met"


def test_a_tampered_period_shows_as_a_balance_error():
    run = whole()
    run.bodies[2]["outflows"][0]["ug"] += 1
    assert page(run)[1]["carbon"]["balance_error_ug"] == 1


def test_energy_in_is_energy_out():
    sums = add_up(whole().bodies)
    came = sum(sums.inflow_milliwh.values()) + sum(sums.discharge_milliwh.values())
    assert came == sum(sums.outflow_milliwh.values()) + sum(sums.charge_milliwh.values())
    assert sums.site_milliwh == sum(sums.outflow_milliwh.values()) + sum(sums.loss_milliwh.values())


def test_the_terminal_says_ten_lines_at_most():
    assert len(ten_lines(page(act=live())[1], "GB")) <= 10


def test_the_steepest_window_holds_the_steepest_steps():
    found = trace().steepest_s(60.0)
    assert found <= 402 <= found + 60


def test_a_cut_begins_with_the_value_that_holds():
    t_s, power_w = trace().cut(61.0, 10.0)
    assert (t_s[0], power_w[0]) == (0.0, 52_000.0)
    assert t_s[1] == pytest.approx(1.0)


def test_bins_keep_the_peak():
    t_s, top = binned(np.arange(1000.0), np.where(np.arange(1000) == 517, 9.0, 1.0), 10, "max")
    assert len(top) == 10 and top.max() == 9.0 and t_s[5] == 500.0


def test_bands_of_a_sankey_are_as_thick_as_their_amounts():
    text = sankey([("a", 3.0, "#000"), ("b", 1.0, "#000")], [("c", 4.0, "#000")], unit="kWh", title="t", middle="m")
    heights = [float(h) for h in re.findall(r'<rect [^>]*height="([\d.]+)"', text)][1:]
    assert heights[0] == pytest.approx(3 * heights[1], rel=0.01)
    assert heights[2] == pytest.approx(heights[0] + heights[1], rel=0.01)


def test_nothing_measured_is_said_as_nothing():
    assert spread([]) == {"count": 0, "p50": None, "max": None}
