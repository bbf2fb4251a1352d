"""A soak run in short, and each of its promises broken once: what a run must notice is noticed."""

import json
import os
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="the extra carbon is not installed")
pytest.importorskip("starlette", reason="the extra web is not installed")
pytest.importorskip("prometheus_client", reason="the extra export is not installed")

from tests.soak import soak, soak_report
from tests.soak.plant_side import Plant

ROOT = Path(__file__).parents[2]
PROMISES = ("after every fault", "left over", "another than", "looked at", "energy", "grew by")
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


def test_a_value_is_judged_once_the_truth_that_belongs_to_it_is_here() -> None:
    """The truth is read from a pipe: a step that the site has seen and we have not yet is no wrong value."""
    plant = object.__new__(Plant)
    plant.grid = deque([(n * 50_000_000, 40e3) for n in range(100)])  # until 4.95 s
    seen = soak.Record()
    seen.unjudged = [(5.0, 31e3, 1_000_000_000, 5_000_000_000), (5.1, 50e3, 1_000_000_000, 5_100_000_000)]
    soak.judge_values(seen, plant)
    assert (seen.values, len(seen.unjudged)) == (0, 2)
    plant.grid.extend((n * 50_000_000, 31e3) for n in range(100, 110))  # the step at 5 s
    soak.judge_values(seen, plant)
    assert seen.values == 2 and not seen.unjudged
    assert [row["value_w"] for row in seen.wrong] == [50e3]  # this was never true


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
