"""Events of the grid: planned for, promised or not, proved by what was measured."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

from tests.runtime.planner.test_live_planner import BEGIN, SITE, Gateway, at_day, priced
from tidegate.runtime.cli.planner_commands import planner
from tidegate.runtime.planner.day_ahead import Wishes
from tidegate.runtime.planner.grid_events import (
    EventBook,
    GridEvent,
    baseline_kw,
    failing_share,
    read_events,
    write_events,
)
from tidegate.runtime.planner.live_planner import LivePlanner
from tidegate.runtime.planner.plan_inputs import Connection, Horizon, Job, PlanError, Storage
from tidegate.runtime.planner.plan_solver import solve
from tidegate.runtime.planner.plan_steps import steps_of
from tidegate.runtime.planner.site_history import Quarter, SiteHistory

EVENING = BEGIN + 4 * 86_400 + 17 * 3600


@pytest.fixture
def live(tmp_path):
    gateway, folder = Gateway(), tmp_path / "planner"
    folder.mkdir()
    return gateway, LivePlanner(gateway, SITE, priced(tmp_path), folder, Wishes())


@pytest.mark.parametrize(("less", "kept"), [(0.25, True), (0.9, False)])
def test_an_event_announced_a_quarter_hour_before_is_planned_and_said_whether_it_can_be_kept(less, kept, live):
    """60 kWh behind a load of 35 kW: a quarter less for three hours can be kept, nine tenths cannot."""
    gateway, made = live
    made.step(at_day(gateway, 4, 16.5))
    assert made.told.state == "planned" and not any("import_w_max" in step for step in gateway.sent[-1][0])
    write_events(made.folder, (GridEvent("utility", EVENING, EVENING + 3 * 3600, less),))
    made.step(at_day(gateway, 4, 16.75))
    assert made.told.state == "planned", made.told.text
    asked = 35 * (1 - less)
    proof = made.events.proofs["utility"]
    assert proof.baseline_kw == pytest.approx([35.0] * 12, abs=0.02) and proof.promised == kept
    drawn = made.made.plan.import_kw[1:13]
    assert (drawn.max() <= asked + 0.1) == kept
    limits = [step["import_w_max"] for step in gateway.sent[-1][0] if "import_w_max" in step]
    assert limits and max(limits) == pytest.approx(asked * 1e3, abs=20)
    line = made.status()["events"][0]
    assert ("can be kept" in line) == kept and ("CANNOT be kept" in line) != kept


def test_what_past_errors_would_break_is_not_promised_and_the_last_word_is_15_minutes_before(tmp_path):
    event = GridEvent("utility", EVENING, EVENING + 3600, 0.25)
    history = SiteHistory(False, {at - 86_400 * day: Quarter(40.0, 0.0, 40.0) for at in event.quarters()
                                  for day in (1, 2, 3)})  # fmt: skip
    book = EventBook(tmp_path)
    book.caps_kw((event,), history, EVENING - 3600)
    proof, calm = book.proofs["utility"], [30.0] * 20
    for start, risk, promised in ((EVENING - 3600, 0.0, True), (EVENING - 1800, 0.06, False),
                                  (EVENING - 900, 0.05, True), (EVENING, 1.0, True)):  # fmt: skip
        book.promise((event,), start, calm, lambda steps, caps_kw, risk=risk: risk)
        assert proof.promised is promised, start
    book.promise((event,), EVENING - 900, calm, lambda steps, caps_kw: 0.06)
    assert "CANNOT be kept for certain: with 6% of the errors" in book.lines()[0]
    book.promise((event,), EVENING - 900, calm, lambda steps, caps_kw: math.nan)
    assert "CANNOT be kept for certain: how far the forecast of the load may be off is not known yet" in book.lines()[0]


def test_an_event_fails_where_power_or_energy_is_not_enough_on_a_path():
    storage, caps = Storage(60, 30, 30), np.full(4, 20.0)
    need = np.array([[20.0] * 4, [35.0] * 4, [20.0, 51.0, 20.0, 20.0], [20.0, 49.9, 20.0, 20.0]])
    # One quarter hour of 30 kW takes 7.9 kWh out of the store, four of 15 kW take 15.8.
    assert failing_share(need, caps, storage, 3.0 + 15.7, 0.25) == 0.5
    assert failing_share(need, caps, storage, 3.0 + 15.9, 0.25) == 0.25
    assert failing_share(need, caps, storage, 3.0, 0.25) == 0.75
    assert math.isnan(failing_share(need[:0], caps, storage, 3.0, 0.25))


def test_the_proof_is_what_was_measured(tmp_path):
    event = GridEvent("utility", EVENING, EVENING + 3600, 0.25)
    quarters = {at - 86_400 * day: Quarter(40.0, 0.0, 40.0) for at in event.quarters() for day in (1, 2, 3)}
    history = SiteHistory(False, quarters)
    book = EventBook(tmp_path)
    caps, said = book.caps_kw((event,), history, EVENING - 900)
    assert caps == dict.fromkeys(event.quarters(), 30.0) and said == []
    book.settle((event,), history, EVENING + 3500)
    assert book.proofs["utility"].import_kw == [], "it is not over"
    for at, kw in zip(event.quarters(), (29.0, 30.05, 31.0, 20.0), strict=True):
        quarters[at] = Quarter(45.0, 0.0, kw)
    book.settle((event,), history, EVENING + 3600)
    proof = book.proofs["utility"]
    assert proof.held == 3 and proof.delivered == pytest.approx(1 - 110.05 / 160)
    assert "held in 3 of 4, 31.2% less delivered" in book.lines()[0]
    book.write()
    again = EventBook(tmp_path)
    assert again.proofs == book.proofs
    del quarters[EVENING]
    again.settle((event,), history, EVENING + 7200)
    assert again.proofs["utility"].delivered is None and "not measured throughout" in again.lines()[0]
    (tmp_path / "event-proofs.json").write_text("[{}]")
    assert "are not known" in EventBook(tmp_path).lost


def test_without_days_to_compare_with_it_is_said_and_not_guessed(tmp_path):
    event = GridEvent("utility", EVENING, EVENING + 3600, 0.25)
    history = SiteHistory(False, {EVENING - 86_400: Quarter(40.0, 0.0, 40.0)})
    with pytest.raises(PlanError, match="1 days are known at 17:00Z, a baseline wants 3"):
        baseline_kw(event, history)
    caps, said = EventBook(tmp_path).caps_kw((event,), history, EVENING - 900)
    assert caps == {} and "it is not planned for" in said[0]


def test_jobs_wait_for_the_end_of_an_event_and_the_battery_does_the_rest():
    load = np.full(24, 30.0)
    caps = np.full(24, np.inf)
    caps[6:9] = 22.5
    jobs = (Job("train", 20.0, 3, 4, 20), Job("short", 5.0, 1, 7, 12))
    at = Horizon(0, 3600, load, 0 * load, np.full(24, 0.2), 0 * load, np.ones(24, dtype=bool), jobs, np.zeros(0), caps)
    storage = Storage(60, 30, 30)
    plan = solve(storage, Connection(60, 60), at, 30.0)
    assert plan.import_kw[6:9].max() <= 22.5 + 1e-6 and not plan.relaxed
    assert plan.jobs_kw[:, 6:9].sum() == 0 and plan.jobs_kw.sum() == pytest.approx(65)
    steps, _ = steps_of(plan, storage, Connection(60, 60))
    held = {step["start_utc_s"] // 3600: step.get("import_w_max") for step in steps}
    assert held[6] == 22_500 and held[9] is None
    with pytest.raises(PlanError, match="import_kw_max has 3 steps"):
        Horizon(**{**at.__dict__, "import_kw_max": np.zeros(3)})


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--begin", "2026-11-28T17:05Z"), "at quarter hours"), (("--begin", "x"), "write 2026-11-28T17:00Z"),
     ((), "write 2026-11-28T17:00Z"), (("--begin", "2026-11-28T18:00Z"), "overlap")],
)  # fmt: skip
def test_events_by_command(words, said, tmp_path):
    def run(*more):
        return CliRunner().invoke(planner, ["event", "--folder", str(tmp_path), *more])

    assert run("first", "--begin", "2026-11-28T17:00Z", "--hours", "2").exit_code == 0
    (event,) = read_events(tmp_path)
    assert event.end_utc_s - event.begin_utc_s == 7200 and event.less == 0.25
    done = run("other", *words)
    assert done.exit_code in (64, 65) and said in done.output
    assert run("first", "--remove").exit_code == 0 and read_events(tmp_path) == ()
    (tmp_path / "events.json").write_text(json.dumps([{"name": "x"}]))
    assert run("first", "--remove").exit_code == 65
