"""The linear program: against plain arithmetic, its order of relaxation, equal inputs, jobs, and its reasons."""

import numpy as np
import pytest

from tests.runtime.planner.explained_plans import case, false_sentences
from tidegate.runtime.planner.plan_inputs import Connection, Horizon, Job, PlanError, Storage
from tidegate.runtime.planner.plan_reasons import reasons
from tidegate.runtime.planner.plan_solver import solve
from tidegate.runtime.planner.plan_steps import SENT_STEPS, steps_of
from tidegate.runtime.planner.solver_child import Question, solve_apart

STORAGE = Storage(60, 30, 30, 0.95, 0.95, 0.05, 0.95, 0.03)
OPEN = Connection(200, 200)


def horizon(price, load=20.0, pv=0.0, *, export=None, step_s=3600, **more):
    price = np.asarray(price, dtype=float)
    n = len(price)
    return Horizon(
        0, step_s, *(np.broadcast_to(np.asarray(one, float), (n,)).copy() for one in (load, pv)), price,
        np.zeros(n) if export is None else np.broadcast_to(np.asarray(export, float), (n,)).copy(),
        np.ones(n, dtype=bool), **more,
    )  # fmt: skip


def drawn(seed, n=48, step_s=1800, **more):
    rng = np.random.default_rng(seed)
    price = rng.normal(0.2, 0.15, n)
    load, pv = np.abs(rng.normal(25, 12, n)), np.maximum(0, rng.normal(0, 20, n))
    return horizon(price, load, pv, export=price - rng.choice([0.0, 0.1]), step_s=step_s, **more)


def billed(plan, storage, connection, at):
    """Cost of a plan by plain arithmetic, and its physics checked."""
    hours, stored, cost, peak = at.step_h, None, 0.0, connection.demand_paid_kw
    for k in range(len(at.load_kw)):
        c, d, g, x, u = (
            float(v[k]) for v in (plan.charge_kw, plan.discharge_kw, plan.import_kw, plan.export_kw, plan.curtailed_kw)
        )
        jobs = float(plan.jobs_kw[:, k].sum())
        assert g - x == pytest.approx(at.load_kw[k] + jobs - at.pv_kw[k] + u + c - d, abs=1e-5)
        assert min(c, d) < 1e-4 and min(g, x) < 1e-4, "two things at once that exclude each other"
        before = float(plan.stored_kwh[k]) - hours * (c * storage.charge_efficiency - d / storage.discharge_efficiency)
        assert stored is None or before == pytest.approx(stored, abs=1e-5)
        stored = float(plan.stored_kwh[k])
        assert storage.least_kwh - 1e-6 <= stored <= storage.most_kwh + 1e-6
        cost += hours * (at.import_eur_per_kwh[k] * g - at.export_eur_per_kwh[k] * x + storage.wear_eur_per_kwh * d)
        peak = max(peak, g)
    return cost + connection.demand_eur_per_kw * peak, stored


@pytest.mark.parametrize("seed", range(30))
def test_the_plan_obeys_physics_and_costs_what_plain_arithmetic_says(seed):
    at = drawn(seed)
    connection = Connection(200, 200, demand_eur_per_kw=0.3 * (seed % 3), export_from_battery=seed % 2 == 0)
    plan = solve(STORAGE, connection, at, 30.0, end_value_eur_per_kwh=0.1)
    cost, left = billed(plan, STORAGE, connection, at)
    assert cost - 0.1 * left == pytest.approx(plan.cost_eur, abs=1e-4)
    assert plan.cost_eur >= plan.bound_eur - 1e-4
    rng = np.random.default_rng(seed)  # and no other schedule that the battery could follow is cheaper
    for _ in range(40):
        assert _random_cost(rng, at, connection) >= plan.bound_eur - 1e-6


def _random_cost(rng, at, connection):
    stored, cost, peak = 30.0, 0.0, connection.demand_paid_kw
    for k in range(len(at.load_kw)):
        net = at.load_kw[k] - at.pv_kw[k]
        power = rng.uniform(-30, 30) * rng.integers(0, 2)
        most = min(30.0, (stored - STORAGE.least_kwh) * 0.95 / at.step_h)
        if not connection.export_from_battery:
            most = min(most, max(0.0, net))
        power = float(np.clip(power, -min(30.0, (STORAGE.most_kwh - stored) / 0.95 / at.step_h), most))
        stored += at.step_h * (-power / 0.95 if power > 0 else -power * 0.95)
        grid = net - power
        cost += at.step_h * (
            (at.import_eur_per_kwh if grid > 0 else at.export_eur_per_kwh)[k] * grid + 0.03 * max(0, power)
        )
        peak = max(peak, grid)
    return cost + connection.demand_eur_per_kw * peak - 0.1 * stored


def test_cheap_hours_charge_and_dear_hours_discharge():
    plan = solve(STORAGE, OPEN, horizon([0.1] * 4 + [0.5] * 4, load=10.0), 3.0, end_value_eur_per_kwh=0.0)
    assert plan.battery_kw[:4].sum() < -40 and plan.battery_kw[4:] == pytest.approx(10.0)


def test_at_one_price_a_full_battery_stays_full():
    """What is left is worth what it would bring: neither emptied today nor hoarded."""
    plan = solve(STORAGE, OPEN, horizon([0.2] * 24), STORAGE.most_kwh)
    assert abs(plan.battery_kw).max() < 0.01


def test_a_spread_smaller_than_losses_and_wear_moves_nothing():
    plan = solve(STORAGE, OPEN, horizon([0.20] * 4 + [0.24] * 4), 3.0, end_value_eur_per_kwh=0.0)
    assert np.abs(plan.battery_kw).max() < 1e-6


def test_negative_prices_do_not_burn_energy_in_the_battery():
    """The relaxation charges and discharges at once to be paid for the losses."""
    plan = solve(STORAGE, OPEN, horizon([-0.3] * 6 + [0.2] * 2), 57.0, end_value_eur_per_kwh=0.0)
    assert np.minimum(plan.charge_kw, plan.discharge_kw).max() < 1e-4


def test_a_reserve_yields_to_the_peak_and_never_buys_one():
    """A reserve that is dearer than the demand charge would buy a new peak to fill the battery."""
    load = np.array([20.0] * 6 + [45.0] * 3 + [20.0] * 3)
    connection = Connection(200, 200, demand_eur_per_kw=0.5)
    bare = solve(STORAGE, connection, horizon([0.2] * 12, load), 10.0)
    full = solve(STORAGE, connection, horizon([0.2] * 12, load, reserve_kwh=np.full(12, 55.0)), 10.0)
    assert full.import_kw.max() <= bare.import_kw.max() + 1e-3
    assert any("reserve gives way" in text for text in full.relaxed) and not bare.relaxed
    kept = solve(STORAGE, OPEN, horizon([0.2] * 12, 20.0, reserve_kwh=np.full(12, 30.0)), 30.0)
    assert kept.stored_kwh.min() >= 30.0 - 1e-6 and not kept.relaxed


def test_a_limit_that_cannot_be_held_is_said_and_the_rest_is_planned():
    plan = solve(STORAGE, Connection(30, 200), horizon([0.2] * 6, [20, 20, 90, 20, 20, 20]), 30.0)
    assert any("import limit cannot be held" in text and "step 2" in text for text in plan.relaxed)
    assert plan.import_kw[[0, 1, 3, 4, 5]].max() <= 30 + 1e-6


def test_equal_inputs_give_the_equal_plan_and_the_plan_in_force_stays_where_it_costs_nothing():
    at = horizon([0.1] * 6 + [0.3] * 6, load=8.0)
    one, two = (solve(STORAGE, OPEN, at, 20.0) for _ in range(2))
    assert one.battery_kw.tobytes() == two.battery_kw.tobytes()
    other = np.array([-20.0, 0, -20, 0, 0, 0, 8, 8, 8, 8, 8, 0])
    kept = solve(STORAGE, OPEN, at, 20.0, in_force_kw=other)
    assert kept.cost_eur == pytest.approx(one.cost_eur, abs=1e-3)
    assert np.abs(kept.battery_kw - other).sum() <= np.abs(one.battery_kw - other).sum() + 1e-6


@pytest.mark.parametrize("interruptible", [False, True])
def test_jobs_run_in_their_windows_for_their_time_where_it_is_cheap(interruptible):
    price = [0.4] * 4 + [0.1] * 4 + [0.4] * 8
    jobs = (Job("a", 10.0, 3, 0, 16, interruptible), Job("b", 5.0, 2, 9, 12, interruptible))
    plan = solve(STORAGE, OPEN, horizon(price, jobs=jobs), 3.0, end_value_eur_per_kwh=0.0)
    assert plan.jobs_kw.shape == (2, 16)
    assert np.flatnonzero(plan.jobs_kw[0]).tolist()[0] >= 4 and np.flatnonzero(plan.jobs_kw[0]).tolist()[-1] < 8
    assert (
        plan.jobs_kw[0].sum() == 30
        and plan.jobs_kw[1].sum() == 10
        and not plan.jobs_kw[1][[*range(9), *range(12, 16)]].any()
    )
    cost, _ = billed(plan, STORAGE, OPEN, horizon(price))
    assert cost == pytest.approx(plan.cost_eur, abs=1e-4) and plan.cost_eur >= plan.bound_eur - 1e-6


def test_a_job_that_cannot_meet_its_deadline_is_named_and_run_as_soon_as_can_be():
    plan = solve(STORAGE, OPEN, horizon([0.2] * 8, jobs=(Job("late", 4.0, 5, 1, 3),)), 3.0)
    assert any("job late cannot meet its deadline" in text for text in plan.relaxed)
    assert np.flatnonzero(plan.jobs_kw[0]).tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("seed", range(60))
def test_every_reason_is_borne_out_by_arithmetic(seed):
    at = drawn(seed)
    connection = Connection(200, 200, demand_eur_per_kw=0.5 * (seed % 2))
    plan = solve(STORAGE, connection, at, 30.0)
    told = reasons(plan, STORAGE, connection)
    assert len(told) == 48 and all(one.holds for one in told), [one.text for one in told if not one.holds]
    assert {one.action for one in told} >= {"charge", "rest"} or plan.charge_kw.max() < 0.01


def test_a_reason_that_is_false_says_so():
    at = horizon([0.1] * 4 + [0.5] * 4, load=10.0)
    plan = solve(STORAGE, OPEN, at, 3.0)
    turned = type(plan)(**{**plan.__dict__, "meter_eur_per_kwh": plan.meter_eur_per_kwh[::-1].copy()})
    assert not all(one.holds for one in reasons(turned, STORAGE, OPEN))


def test_steps_fit_the_api_and_merge_equal_neighbours():
    plan = solve(STORAGE, OPEN, horizon([0.1] * 6 + [0.3] * 6, load=8.0), 20.0)
    steps, end = steps_of(plan, STORAGE, OPEN)
    assert end == 12 * 3600 and steps[0]["start_utc_s"] == 0 and len(steps) < 12
    for step in steps:
        k = int(step["start_utc_s"]) // 3600
        assert step["setpoint_w"] == pytest.approx(1000 * plan.battery_kw[k], abs=50)
        assert ("until_soc" in step) == (step["setpoint_w"] != 0) and 0 <= step.get("until_soc", 0) <= 1
    long = solve(STORAGE, OPEN, drawn(3, n=192, step_s=900), 20.0)
    steps, end = steps_of(long, STORAGE, OPEN)
    assert len(steps) <= SENT_STEPS and steps[-1]["start_utc_s"] < end <= 192 * 900


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"load_kw": np.array([1.0, np.nan, 1.0, 1.0])}, "load_kw: 1 values are missing, the first at step 1"),
        ({"pv_kw": np.zeros(3)}, "pv_kw has 3 steps, load_kw 4"),
        ({"reserve_kwh": np.zeros(2)}, "reserve_kwh has 2 steps"),
    ],
)
def test_a_horizon_that_cannot_be_is_refused_by_name(change, said):
    good = horizon([0.1] * 4)
    with pytest.raises(PlanError, match=said):
        Horizon(**{**good.__dict__, **change})


@pytest.mark.parametrize("soc", [-10.0, 0.0, 100.0])
def test_a_battery_outside_its_window_is_planned_from_the_edge(soc):
    plan = solve(STORAGE, OPEN, horizon([0.1] * 4), soc)
    assert plan.stored_kwh[0] >= STORAGE.least_kwh - 1e-6
    assert any("is outside its window: planned from the edge" in text for text in plan.relaxed)
    assert not solve(STORAGE, OPEN, horizon([0.1] * 4), STORAGE.least_kwh).relaxed


def test_a_deadline_gives_way_to_the_import_limit_and_no_further_than_it_must():
    """Two jobs of 30 kW in the same two hours behind a 60 kW connection with a load of 20 kW and an empty battery."""
    jobs = tuple(Job(name, 30.0, 2, 0, 2) for name in ("one", "other"))
    plan = solve(STORAGE, Connection(60, 60), horizon([0.2] * 8, load=20.0, jobs=jobs), STORAGE.least_kwh)
    assert plan.import_kw.max() <= 60 + 1e-6
    assert [np.flatnonzero(row).tolist() for row in plan.jobs_kw] == [[2, 3], [0, 1]]
    assert len(plan.relaxed) == 1 and "job one gives way to the connection's import limit" in plan.relaxed[0]
    assert "ends 2 steps after its deadline" in plan.relaxed[0]
    held = solve(STORAGE, Connection(60, 60), horizon([0.2] * 8, load=20.0, jobs=jobs), STORAGE.most_kwh)
    assert held.import_kw.max() <= 60 + 1e-6 and not held.relaxed, "the battery bears both in time"
    never = solve(STORAGE, Connection(40, 60), horizon([0.2] * 8, load=20.0, jobs=jobs), STORAGE.least_kwh)
    assert any("import limit cannot be held" in text for text in never.relaxed)


BENT = Storage(60, 30, 30, 0.9, 0.9, 0.05, 0.95, 0.03, ((3.0, 0.7), (12.0, 0.97), (30.0, 0.9)))


@pytest.mark.parametrize("seed", range(12))
def test_efficiency_by_power_is_kept_by_every_step_of_the_plan(seed):
    plan = solve(BENT, OPEN, drawn(seed), 30.0)
    before = np.concatenate([[30.0], plan.stored_kwh[:-1]])
    for charge, discharge, one, other in zip(plan.charge_kw, plan.discharge_kw, before, plan.stored_kwh, strict=True):
        true = BENT.kept_kw(charge) - BENT.drawn_kw(discharge)
        best = charge * 0.97 - discharge / 0.97
        moved = (other - one) / plan.horizon.step_h
        if max(charge, discharge) >= 12:  # where the curve bends the right way it is followed to nearest chord
            assert moved == pytest.approx(true, abs=0.05)
        assert moved <= best + 1e-5
    assert all(one.holds for one in reasons(plan, BENT, OPEN))


def test_the_line_that_an_lp_holds_has_no_dent_and_touches_the_curve():
    for segments, curve, falls in (
        (BENT.charge_segments(), BENT.kept_kw, True),
        (BENT.discharge_segments(), BENT.drawn_kw, False),
    ):
        slopes = [slope for _, slope in segments]
        assert segments[0][0] == pytest.approx(12.0) and slopes == sorted(slopes, reverse=falls)
        at = np.cumsum([width for width, _ in segments])
        assert at[-1] == 30 and np.cumsum([w * s for w, s in segments]) == pytest.approx([curve(kw) for kw in at])
    assert STORAGE.charge_segments() == [(30, pytest.approx(0.95))]
    assert BENT.kept_kw(3.0) == pytest.approx(2.1) and BENT.drawn_kw(12.0) == pytest.approx(12 / 0.97)
    for kw in (1.0, 7.0, 20.0, 30.0):
        assert BENT.power_storing(BENT.kept_kw(kw)) == pytest.approx(kw, abs=0.02)
        assert BENT.power_drawing(BENT.drawn_kw(kw)) == pytest.approx(kw, abs=0.02)


def test_at_little_difference_the_power_is_what_loses_least():
    """What two hours of 12 kW need is charged in two equal hours alike, whatever the plan in force has."""
    prices, in_force = horizon([0.1, 0.1, 0.5, 0.5], load=12.0), np.array([-30.0, 0, 0, 0])
    plan = solve(BENT, OPEN, prices, BENT.least_kwh, in_force_kw=in_force, end_value_eur_per_kwh=0.0)
    assert plan.charge_kw[:2] == pytest.approx([13, 13], abs=1.1)


def test_no_state_of_charge_no_plan():
    with pytest.raises(PlanError, match="read the state of charge again"):
        solve(STORAGE, OPEN, horizon([0.1] * 4), float("nan"))


def test_a_solver_that_hangs_or_dies_costs_a_plan_and_no_more():
    question = Question(STORAGE, OPEN, horizon([0.1] * 4 + [0.5] * 4, load=10.0), 3.0, None)
    assert solve_apart(question, timeout_s=240).battery_kw[-1] == pytest.approx(10.0)
    with pytest.raises(PlanError, match="stays in force"):
        solve_apart(question, timeout_s=0.0)
    with pytest.raises(PlanError, match="read the state of charge"):
        solve_apart(question._replace(stored_kwh=float("nan")), timeout_s=240)


def test_jobs_that_compete_for_little_power_run_where_a_kwh_costs_least():
    """Where the power that is allowed binds, the relaxation prices all hours alike: not the first of them is meant."""
    price = [0.32, 0.30, 0.31, 0.33, 0.34, 0.33, 0.35, 0.36, 0.33, 0.33, 0.33, 0.33]
    jobs = tuple(Job(f"j{i}", 1.0, 1, 0, 12, True) for i in range(4))
    at = horizon(price, load=0.0, jobs=jobs, import_kw_max=np.full(12, 3.0))
    plan = solve(Storage(1e-3, 1e-3, 1e-3), OPEN, at, 5e-4)
    assert plan.jobs_kw.sum(axis=0).tolist() == [0.0, 3.0, 1.0] + [0.0] * 9
    assert plan.cost_eur == pytest.approx(3 * 0.30 + 0.31, abs=1e-3)


def test_a_cushion_fills_the_battery_where_that_is_worth_more_than_its_losses_and_is_no_part_of_the_bill():
    connection = Connection(200, 200, demand_eur_per_kw=8.0, demand_paid_kw=40.0, recharge_kw_max=40.0)
    for eur_per_kwh_h, full in ((0.02, True), (0.0005, False)):
        at = horizon([0.2] * 24, load=18.0, cushions=((np.full(24, 50.0), eur_per_kwh_h),))
        plan = solve(STORAGE, connection, at, 10.0)
        assert (plan.stored_kwh[-1] > 49.9) == full and plan.peak_kw == pytest.approx(40.0)
        cost, left = billed(plan, STORAGE, connection, at)
        worth = (0.2 - 0.03) * 0.95 * left
        assert cost - worth == pytest.approx(plan.cost_eur, abs=1e-3)
    with pytest.raises(PlanError, match="a cushion has another number of steps"):
        horizon([0.2] * 24, cushions=((np.zeros(23), 0.01),))


def test_no_sentence_of_seeded_plans_is_false_and_solving_again_bears_out_what_a_kwh_is_worth():
    found = [false_sentences(seed) for seed in range(15, 40)]
    assert sum(count for count, _ in found) == 25 * 48
    assert [text for _, texts in found for text in texts] == []


def test_a_kwh_that_lets_the_battery_give_more_is_worth_what_the_battery_gives_it_for():
    """The battery serves all of a load that it may not export beyond: one kWh more comes from it, not from the grid."""
    at = horizon([0.05, 0.05, 0.40, 0.05], load=[10.0, 10.0, 20.0, 10.0])
    plan = solve(STORAGE, OPEN, at, 40.0, end_value_eur_per_kwh=0.1)
    assert plan.discharge_kw[2] == pytest.approx(20.0) and plan.import_kw[2] == pytest.approx(0.0, abs=1e-6)
    more = solve(STORAGE, OPEN, horizon([0.05, 0.05, 0.40, 0.05], load=[10.0, 10.0, 20.1, 10.0]), 40.0,
                 end_value_eur_per_kwh=0.1)  # fmt: skip
    assert plan.meter_eur_per_kwh[2] == pytest.approx((more.cost_eur - plan.cost_eur) / 0.1, abs=1e-4)
    assert plan.meter_eur_per_kwh[2] < 0.2


@pytest.mark.parametrize("seed", [10, 206])
def test_a_battery_that_would_rather_lose_energy_loses_what_its_curve_says_and_no_more(seed):
    """Prices below zero and a full battery: the program would take the worst efficiency first (seed 206 did)."""
    storage, connection, at, stored = case(seed)
    plan = solve(storage, connection, at, stored)

    def moved(segments, power):
        return sum(slope * min(width, max(0.0, power - sum(one for one, _ in segments[:i])))
                   for i, (width, slope) in enumerate(segments))  # fmt: skip

    for k in range(len(plan.import_kw)):
        change = moved(storage.charge_segments(), plan.charge_kw[k])
        change -= moved(storage.discharge_segments(), plan.discharge_kw[k])
        assert plan.stored_kwh[k] - stored == pytest.approx(change * at.step_h, abs=1e-3), k
        stored = plan.stored_kwh[k]


def test_a_step_that_charges_carries_the_import_that_charging_may_reach():
    at = horizon([0.05, 0.05, 0.40, 0.40], load=20.0)
    connection = Connection(200, 200, demand_eur_per_kw=1.0, demand_paid_kw=30.0, recharge_kw_max=30.0)
    plan = solve(STORAGE, connection, at, 5.0)
    steps, _ = steps_of(plan, STORAGE, connection)
    assert [step.get("import_w_max") for step in steps if step["setpoint_w"] < 0] == [30_000]
    assert all("import_w_max" not in step for step in steps if step["setpoint_w"] >= 0)
    assert all("import_w_max" not in step for step in steps_of(plan, STORAGE, OPEN)[0])
