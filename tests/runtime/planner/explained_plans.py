"""Seeded plans of every kind with a sentence for each step, and whether each is true: for the bench and a test.

A sentence is true where its arithmetic holds, and where the worth of a kWh at the meter is what a little more and a
little less load really cost in that step, by solving again.
"""

from dataclasses import replace

import numpy as np

from tidegate.runtime.planner.plan_inputs import Connection, Horizon, Job, Storage
from tidegate.runtime.planner.plan_reasons import MOVES_KW, reasons
from tidegate.runtime.planner.plan_solver import solve

STEPS = 48
LITTLE_KW = 0.02
NEAR_EUR = 2e-3


def case(seed):
    """(storage, connection, horizon, stored kWh): prices, losses, limits, tariffs, jobs and reserves drawn by seed."""
    rng = np.random.default_rng(seed)
    price = rng.normal(0.2, 0.1, STEPS)
    load, pv = np.abs(rng.normal(25, 12, STEPS)), np.maximum(0, rng.normal(0, 20, STEPS))
    energy, charge, discharge, kept, given, wear = rng.uniform((10, 5, 5, 0.85, 0.85, 0), (120, 60, 60, 1, 1, 0.06))
    curve = ((3.0, 0.88), (15.0, 0.96), (30.0, 0.95)) if seed % 7 == 3 else ()
    storage = Storage(energy, charge, discharge, kept, given, 0.05, 0.95, wear, curve)
    connection = Connection(
        float(rng.choice([45, 200])), 200, demand_eur_per_kw=float(rng.choice([0, 0.3, 8])),
        demand_paid_kw=float(rng.choice([0, 40])), export_from_battery=bool(rng.integers(2)),
    )  # fmt: skip
    jobs = tuple(Job(f"j{i}", float(rng.uniform(2, 10)), int(rng.integers(1, 6)), int(rng.integers(0, 20)), STEPS,
                     bool(rng.integers(2))) for i in range(seed % 3))  # fmt: skip
    reserve = np.full(STEPS, float(rng.uniform(5, 30))) if seed % 5 == 1 else np.zeros(0)
    cushions = ((np.full(STEPS, 40.0), 0.01),) if seed % 4 == 2 else ()
    horizon = Horizon(0, 1800, load, pv, price + 0.13 * (seed % 2), price - 0.05, np.ones(STEPS, dtype=bool), jobs,
                      reserve_kwh=reserve, cushions=cushions)  # fmt: skip
    return storage, connection, horizon, float(rng.uniform(storage.least_kwh, storage.most_kwh))


def false_sentences(seed, solved_again=1):
    """(sentences, in words those that are false); `solved_again` steps are checked by solving with other loads."""
    storage, connection, horizon, stored = case(seed)
    plan = solve(storage, connection, horizon, stored)
    told = reasons(plan, storage, connection)
    false = [f"seed {seed}, step {one.step}: {one.text}" for one in told if not one.holds]
    # What a sentence says is done is what the plan does.
    words = {"discharge": 1, "charge": -1, "rest": 0}
    false += [f"seed {seed}, step {one.step}: {one.action}, but {plan.battery_kw[one.step]:.3f} kW" for one in told
              if words[one.action] != int(one.battery_kw > MOVES_KW) - int(one.battery_kw < -MOVES_KW)
              or one.battery_kw != plan.battery_kw[one.step]]  # fmt: skip
    # With jobs placed, and where no reserve counts beside the bill, the bill itself must move as the sentence says.
    if len(horizon.reserve_kwh) or horizon.cushions:
        return len(told), false
    fixed = replace(horizon, load_kw=horizon.load_kw + plan.jobs_kw.sum(axis=0), jobs=())
    end_value = max(0.0, float(np.median(horizon.import_eur_per_kwh)) - storage.wear_eur_per_kwh)
    end_value *= storage.discharge_efficiency
    rng = np.random.default_rng(seed)
    for k in rng.choice(STEPS, solved_again, replace=False):
        cost = []
        for more in (-LITTLE_KW, 0.0, LITTLE_KW):
            load = fixed.load_kw.copy()
            load[k] += more
            moved = solve(storage, connection, replace(fixed, load_kw=load), stored, end_value_eur_per_kwh=end_value)
            cost.append(moved.cost_eur)
        less, above = np.diff(cost) / LITTLE_KW / horizon.step_h
        low, high = min(less, above) - NEAR_EUR, max(less, above) + NEAR_EUR
        if not low <= told[k].meter_eur_per_kwh <= high:
            false.append(f"seed {seed}, step {k}: a kWh at the meter at {told[k].meter_eur_per_kwh:.4f} EUR, solved "
                         f"again {less:.4f} below and {above:.4f} above")  # fmt: skip
    return len(told), false
