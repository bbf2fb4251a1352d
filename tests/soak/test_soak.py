"""A soak run in short, and each of its promises broken once: what a run must notice is noticed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="the extra carbon is not installed")
pytest.importorskip("starlette", reason="the extra web is not installed")
pytest.importorskip("prometheus_client", reason="the extra export is not installed")

from tests.soak import soak, soak_report
from tests.soak.plant_side import Span, Truth
from tests.soak.true_values import Seen, faults_about, judge_values

ROOT = Path(__file__).parents[2]
PROMISES = ("after every fault", "left over", "another than", "looked at", "energy", "grew by")
SPAN_NS = 50_000_000
ENDED = {"left_over": list[int]()}
BOOKED = {
    "problems": list[str](),
    "booked_milliwh": 700,
    "open_milliwh": 300,
    "counter_booked_milliwh": 1000,
    "register_milliwh": 1_000_000,
    "periods": 1,
}


def sample(t_s: float, kib: float) -> dict[str, Any]:
    return {"t_s": t_s, "processes": {"core": {"pid": 1, "rss_kib": kib, "fds": 9, "threads": 3}}}


def record(**more: Any) -> soak.Record:
    made = soak.Record(values=5, samples=[sample(60.0 * n, 30_000 + 5.0 * n) for n in range(75)])  # 300 KiB an hour
    for name, value in more.items():
        setattr(made, name, value)
    return made


def broken(
    one: soak.Record,
    booked: dict[str, Any] | None = None,
    true_wh: float = 1000.0,
    holes_s: float = 0.0,
    ended: dict[str, Any] | None = None,
) -> list[str]:
    found = soak.verdict(one, BOOKED if booked is None else booked, true_wh, holes_s, ENDED if ended is None else ended)
    return [promise for promise, why in found.items() if why]


def test_a_clean_run_breaks_nothing() -> None:
    assert broken(record()) == []


@pytest.mark.parametrize(
    ("given", "promise"),
    [
        ({"one": record(faults=[{"t_s": 1.0, "done": "kill core", "back_s": None}])}, "after every fault"),
        ({"one": record(orphans={"orphan 7 (carbon)"})}, "left over"),
        ({"one": record(), "ended": {"left_over": [7]}}, "left over"),
        ({"one": record(wrong=[{"value_w": 1.0}])}, "another than"),
        ({"one": record(values=0)}, "looked at"),
        ({"one": record(), "true_wh": 1040.0}, "energy"),
        ({"one": record(), "true_wh": 960.0}, "energy"),
        ({"one": record(), "holes_s": 6.0}, "energy"),
        ({"one": record(), "booked": {**BOOKED, "booked_milliwh": 699}}, "energy"),
        ({"one": record(), "booked": {**BOOKED, "problems": ["entry 5: changed"]}}, "energy"),
        ({"one": record(), "booked": {"error": "nothing was booked"}}, "energy"),
        ({"one": record(samples=[sample(60.0 * n, 30_000 + 18.0 * n) for n in range(75)])}, "grew by"),
    ],
)
def test_what_breaks_a_promise_is_noticed(given: dict[str, Any], promise: str) -> None:
    (found,) = broken(**given)
    assert promise in found


def test_energy_within_the_meters_class_is_accounted_for() -> None:
    assert broken(record(), true_wh=1030.0) == broken(record(), true_wh=970.0) == []


def test_growth_is_of_the_longest_life_and_a_short_one_says_nothing() -> None:
    assert soak.growth([sample(1.0 * n, 1000.0 * n) for n in range(100)]) == {}
    rows = [sample(10.0 * n, 1000.0 + n) for n in range(400)]
    assert soak.growth(rows)["core"]["kib_per_h"] == pytest.approx(360.0, rel=0.01)


def truth_of(powers_w: list[float]) -> Truth:
    """Spans of 50 ms, each at one power; the first ends at 0 s."""
    truth, drawn_ws = Truth(), 0.0
    for number, power_w in enumerate(powers_w):
        drawn_ws += max(0.0, power_w) * 0.05 if number else 0.0
        truth.spans.append(Span(number * SPAN_NS, power_w, power_w, drawn_ws))
    return truth


def seen(value_w: float, answered_s: float, age_s: float = 0.1, answer_s: float = 0.002) -> Seen:
    return Seen(value_w, age_s, int((answered_s - answer_s) * 1e9), int(answered_s * 1e9))


def test_a_value_is_judged_once_the_truth_that_belongs_to_it_is_here() -> None:
    """The truth is read from a pipe: a step that the site has seen and we have not yet is no wrong value."""
    truth = truth_of([40e3] * 100)  # until 4.95 s
    unjudged = [seen(31e3, 5.0), seen(50e3, 5.1)]
    assert judge_values(unjudged, truth, 0.0) == ([], []) and len(unjudged) == 2
    truth = truth_of([40e3] * 100 + [31e3] * 10)  # the step at 4.95 s
    lags, wrong = judge_values(unjudged, truth, 0.0)
    assert lags == [0.0] and not unjudged
    assert [row["value_w"] for row in wrong] == [50e3]  # this was never true


def test_a_peak_between_two_looks_at_the_plant_is_true() -> None:
    """A load steps, the battery answers within 30 ms: no look every 50 ms has seen it, the meter has."""
    truth = truth_of([38e3] * 100 + [40e3] * 10)
    truth.spans[100] = truth.spans[100]._replace(most_w=41_700.0)
    assert judge_values([seen(41_700.0, 5.02)], truth, 0.0) == ([0.0], [])
    assert [row["value_w"] for row in judge_values([seen(43_500.0, 5.02)], truth, 0.0)[1]] == [43_500.0]


@pytest.mark.parametrize(
    ("one", "lag_s"),
    [
        (seen(30e3, 5.0), 0.0),
        (seen(30e3, 5.152), 0.1),  # true until 4.95 s, asked at 5.15 s, 0.1 s old
        (seen(30e3, 5.292), 0.24),
        (seen(30e3, 5.352), None),
        (seen(30e3, 5.352, age_s=0.2), 0.2),  # it says itself that it is older
        (seen(30e3, 5.352, answer_s=0.102), 0.2),  # the answer was under way
        (seen(45e3, 9.1), None),  # it is not true yet
        (seen(30.5e3, 5.0), 0.0),  # the meter's class
    ],
)
def test_a_value_may_be_as_old_as_it_says_and_a_quarter_of_a_second(one: Seen, lag_s: float | None) -> None:
    truth = truth_of([30e3] * 100 + [40e3] * 100 + [45e3] * 10)
    lags, wrong = judge_values([one], truth, 0.0)
    assert (lags, len(wrong)) == (([pytest.approx(lag_s)], 0) if lag_s is not None else ([], 1))


def test_of_a_wrong_value_there_is_what_was_true_and_which_faults_were_about() -> None:
    truth = truth_of([30e3] * 20 + [40e3] * 180)
    ((row,)) = judge_values([seen(30e3, 9.0)], truth, -100.0)[1]
    assert (row["t_s"], row["point"], row["least_w"], row["most_w"]) == (109.0, "site.grid_w", 40e3, 40e3)
    assert row["lag_s"] == pytest.approx(7.95) and row["truth"] == [(0.0, 40e3, 40e3)]
    faults = [
        {"t_s": 10.0, "done": "kill web", "back_s": 5.0},
        {"t_s": 40.0, "done": "kill core", "back_s": 20.0},
        {"t_s": 108.0, "done": "clock", "back_s": None},
        {"t_s": 110.0, "done": "disk", "back_s": 1.0},
    ]
    assert [line.partition(" 1")[0] for line in faults_about(faults, 109.0)] == [
        "kill core 69.0 s before, all back after 20.0 s",
        "clock",
    ]


def test_the_energy_of_a_time_is_what_the_plant_drew_in_it() -> None:
    truth = truth_of([36e3] * 101)  # 10 Wh a second
    assert truth.drawn_wh(0, 5_000_000_000) == (pytest.approx(50.0), 0.0)
    assert truth.drawn_wh(1_010_000_000, 2_010_000_000) == (pytest.approx(10.0), 0.0)  # in the middle of spans
    assert truth.drawn_wh(-1_000_000_000, 7_000_000_000) == (pytest.approx(50.0), pytest.approx(3.0))
    assert truth.drawn_wh(6_000_000_000, 7_000_000_000) == (0.0, 1.0)
    assert Truth().drawn_wh(0, 1_000_000_000) == (0.0, 1.0)


def test_every_kind_of_fault_comes_in_each_round() -> None:
    assert {fault.partition(" ")[0] for fault in soak.FAULTS} == {"kill", "freeze", "restart", "clock", "disk"}


@pytest.mark.timeout(900)
def test_a_slice_of_a_soak_run_keeps_its_promises_and_leaves_a_page(tmp_path: Path) -> None:
    hours = os.environ.get("TIDEGATE_SOAK_HOURS", "0.01")
    words = [
        sys.executable,
        str(ROOT / "tests" / "soak" / "soak.py"),
        "--hours",
        hours,
        "--period-us",
        "10000",
        "--pause-s",
        "1",
        "4",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=880)
    log = tmp_path / "soak.log"
    assert done.returncode == 0, (
        f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}\n{log.read_text()[-3000:] if log.exists() else ''}"
    )
    found = json.loads((tmp_path / "soak.json").read_text())
    assert found["faults"] and found["values"] and found["true_wh"] > 0.0
    page = (tmp_path / "soak.html").read_text()
    assert page == soak_report.page(found) and page.count("<svg") == 4
    assert all(promise in page for promise in PROMISES)
