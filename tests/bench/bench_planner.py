"""What is a plan worth on a real half year, beside simple rules and perfect foresight, and what does it cost to make?

Run: make bench, or python tests/bench/bench_planner.py [--days N] [--out DIR] [--smoke]
Prices: DE-LU day ahead 2025 H1, each known only once it was published. Load: six GPU servers, scaled to 37 kW mean.
Sun: Germany's solar feed-in, scaled to 40 kW. Battery 60 kWh, 30 kW, 95 % each way, wear 0.03 EUR/kWh, fees 0.13.
"""

import csv
import resource
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import harness
import numpy as np

from tidegate.runtime.planner import rolling_plan
from tidegate.runtime.planner.forecasts import blend, filled
from tidegate.runtime.planner.grid_events import RISK_MAX, failing_share
from tidegate.runtime.planner.hours_table import read_hours
from tidegate.runtime.planner.plan_inputs import Connection, Horizon, Job, Storage
from tidegate.runtime.planner.plan_solver import solve

DATA = Path(__file__).parent.parent / "data/planner/de_lu_gpu_room_2025H1.csv"
ROOM = DATA.with_name("gpu_room_2024-11_2025-10.csv")
STORAGE = Storage(60, 30, 30)
OPEN = Connection(200, 200)
WARM_DAYS = 21


def plan_times(plans: int) -> dict[str, float]:
    """Of 48 hours in quarter hours with 20 jobs: seconds a plan, MiB resident, share dearer than the bound."""
    took, gaps, without = [], [], 0
    for seed in range(plans):
        rng = np.random.default_rng(seed)
        price = 0.2 + 0.1 * np.sin(np.arange(192) * 2 * np.pi / 96) + rng.normal(0, 0.03, 192)
        jobs = tuple(
            Job(f"job{i}", rng.uniform(2, 12), int(rng.integers(2, 16)), first, first + int(rng.integers(32, 96)),
                bool(rng.integers(2)))
            for i, first in enumerate(rng.integers(0, 96, 20).tolist())
        )  # fmt: skip
        load, sun = np.abs(rng.normal(37, 8, 192)), np.maximum(0, rng.normal(5, 10, 192))
        horizon = Horizon(0, 900, load, sun, price, price - 0.13, np.ones(192, dtype=bool), jobs)
        begin = time.perf_counter()
        try:
            made = solve(STORAGE, Connection(200, 200, demand_eur_per_kw=8 / 30), horizon, float(rng.uniform(3, 57)))
        except Exception as why:
            print(f"seed {seed}: no plan: {why}")
            without += 1
            continue
        took.append(time.perf_counter() - begin)
        gaps.append((made.cost_eur - made.bound_eur) / abs(made.bound_eur))
    return {
        "plans": plans, "without": without,
        "median_s": statistics.median(took), "p99_s": float(np.quantile(took, 0.99)),
        "worst_gap": max(gaps), "median_gap": statistics.median(gaps),
        "resident_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip


def half_year(days: int) -> dict[str, float]:
    """Shares of what foresight saves."""
    table = read_hours(DATA)
    hours = min(24 * (WARM_DAYS + days), len(table.load_kw))
    load, pv, price = (filled(one)[:hours] for one in (table.load_kw, table.pv_kw, table.price_eur_per_kwh))
    past = rolling_plan.Past(datetime.fromtimestamp(table.begin_utc.timestamp(), UTC), load, pv, price, 0.13,
                             ZoneInfo("Europe/Berlin"), 24 * WARM_DAYS)  # fmt: skip
    none = rolling_plan.operate(past, STORAGE, OPEN, "none", rolling_plan.no_battery, 30.0)
    best = rolling_plan.foresight(past, STORAGE, OPEN, 30.0)
    found = {}
    for name, decide in (
        ("clock rule", rolling_plan.clock_rule(past, STORAGE)),
        ("2 cheapest, 2 dearest", rolling_plan.price_rule(past, STORAGE)),
        ("plan once a day", rolling_plan.RollingPlanner(past, STORAGE, OPEN, every=24).decide),
        ("plan every hour", rolling_plan.RollingPlanner(past, STORAGE, OPEN).decide),
        (
            "plan every hour, no price published",
            rolling_plan.RollingPlanner(past, STORAGE, OPEN, published=False).decide,
        ),
    ):
        one = rolling_plan.operate(past, STORAGE, OPEN, name, decide, 30.0)
        found[name] = rolling_plan.share_of_foresight(none, one, best)
        windows = rolling_plan.window_shares(none, one, best, 24 * 60)
        worst = f", worst 60 days {windows.min():.1%} (from day {windows.argmin()})" if len(windows) else ""
        print(f"{name:40}{found[name]:8.1%}{worst}", flush=True)
        if len(windows):
            found[f"{name}, worst 60 days"] = float(windows.min())
    return found


def ratchet(past: rolling_plan.Past, storage: Storage) -> rolling_plan.Decide:
    """The simple rule for peaks: a limit that begins each month at the mean of 30 days and rises with each failure."""
    state = {"month": -1, "limit": 0.0}

    def decide(hour: int, stored_kwh: float) -> float:
        now, load = past.local(hour), float(past.load_kw[hour])
        if now.month != state["month"]:
            state["month"], state["limit"] = now.month, float(past.load_kw[hour - 24 * 30 : hour].mean())
        give = storage.power_drawing(max(0.0, stored_kwh - storage.least_kwh))
        state["limit"] = max(state["limit"], load - give)
        return load - float(state["limit"])

    return decide


def monthly_peaks(months: int, announced: tuple[int, ...] = (0, 6, 12)) -> dict[str, float]:
    """Share of what foresight shaves off each month's peak: the mean and the worst month; months above no battery.

    A GPU room at one price and 8 EUR a kilowatt of the month's highest hour, from February 2025 on.
    """
    with ROOM.open() as file:
        rows = [float(row["load_kw"]) if row["load_kw"] else np.nan for row in csv.DictReader(file)]
    begin, first = datetime(2024, 11, 1, tzinfo=UTC), datetime(2025, 2, 1, tzinfo=UTC)
    zone = ZoneInfo("UTC")
    warm = int((first - begin).total_seconds() // 3600)
    end = int((datetime(2025, 2 + months, 1, tzinfo=UTC) - begin).total_seconds() // 3600)
    load = filled(np.array(rows))[:end]
    past = rolling_plan.Past(begin, load, 0 * load, np.full(end, 0.2), 0.0, zone, warm)
    billed = Connection(200, 200, demand_eur_per_kw=8)
    none = rolling_plan.operate(past, STORAGE, billed, "none", rolling_plan.no_battery, 30.0)
    best = rolling_plan.foresight(past, STORAGE, billed, 30.0)
    found = {}
    ways: dict[str, rolling_plan.Decide] = {"start low and ratchet": ratchet(past, STORAGE)}
    for hours in announced:
        planner = rolling_plan.RollingPlanner(past, STORAGE, billed, load_known_h=1 + hours)
        ways[f"{hours} h of jobs announced"] = planner.decide
    for name, decide in ways.items():
        one = rolling_plan.operate(past, STORAGE, billed, name, decide, 30.0)
        parts = list(rolling_plan.months(past))
        peaks = np.array([[o.import_kw[part].max() for part in parts] for o in (none, one, best)])
        shares = (peaks[0] - peaks[1]) / (peaks[0] - peaks[2])
        above = int((peaks[1] > peaks[0] + 1e-3).sum())
        worst = f"worst month {shares.min():.1%} (the {shares.argmin() + 1}.)"
        print(f"{name:40}{shares.mean():8.1%}, {worst}, {above} months above no battery; each: "
              + ", ".join(f"{one:.0%}" for one in shares), flush=True)  # fmt: skip
        found |= {name: float(shares.mean()), f"{name}, worst month": float(shares.min()), f"{name}, above": above}
    return found


def event_draws(draws: int, flexible: float) -> dict[str, float]:
    """25 % less for three hours, announced one step ahead: in how many draws it was held, and what was said before.

    Each draw: an hour of the GPU room's year and a state of charge between 10 and 95 %. `flexible` of the load is work
    that may wait twelve hours. Baseline: the same hour of the last ten days. The load is forecast by the blend; what
    came is held by the battery as the limit in the plan's steps has it, each hour anew, as long as it lasts.
    """
    with ROOM.open() as file:
        load = filled(np.array([float(row["load_kw"] or "nan") for row in csv.DictReader(file)]))
    counts = {"held": 0, "not held, said before": 0, "not held, not said": 0, "held though doubted": 0}
    first_silent = -1
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        at = int(rng.integers(30 * 24, len(load) - 24))
        stored = float(rng.uniform(0.1, 0.95)) * STORAGE.energy_kwh
        base = np.array([[load[at + 1 + k - 24 * day] for day in range(1, 11)] for k in range(3)]).mean(axis=1)
        expected = np.concatenate([[load[at]], blend(load[: at + 1], at + 1, 12, 24)])
        past = [max(48, at + 1 - 6 * k) for k in range(1, 121)]
        missed = np.array([load[one : one + 3] - blend(load[:one], one, 3, 24) for one in past if one + 3 <= at + 1])
        expected[1:4] += np.maximum(0.0, np.quantile(missed, 0.9, axis=0))  # as the plan does where a cap holds
        caps = np.full(13, np.inf)
        caps[1:4] = 0.75 * base
        jobs = (Job("waits", flexible * float(expected[1:4].mean()), 3, 1, 13, True),) if flexible else ()
        fixed = expected.copy()
        fixed[1:4] *= 1 - flexible
        price = np.full(13, 0.2)
        horizon = Horizon(0, 3600, fixed, 0 * fixed, price, price - 0.2, np.ones(13, dtype=bool), jobs,
                          import_kw_max=caps)  # fmt: skip
        plan = solve(STORAGE, OPEN, horizon, stored)
        runs_kw = plan.jobs_kw[:, 1:4].sum(axis=0) if flexible else np.zeros(3)
        middle = blend(load[: at + 1], at + 1, 3, 24)
        risk = failing_share((middle + missed) * (1 - flexible) + runs_kw, caps[1:4], STORAGE,
                             float(plan.stored_kwh[0]), 1.0)  # fmt: skip
        said = bool(np.maximum(0, plan.import_kw - caps)[1:4].max() > 0.1) or risk > RISK_MAX
        kwh, held = float(plan.stored_kwh[0]), True
        for k in range(1, 4):
            runs = float(plan.jobs_kw[:, k].sum()) if flexible else 0.0
            need = max(0.0, load[at + k] * (1 - flexible) + runs - caps[k])
            gives = min(need, STORAGE.power_drawing(max(0.0, kwh - STORAGE.least_kwh)))
            kwh -= STORAGE.drawn_kw(gives)
            held &= need - gives <= 0.1
        name = (
            ("held though doubted" if said else "held")
            if held
            else f"not held, {'said before' if said else 'not said'}"
        )
        if name == "not held, not said" and first_silent < 0:
            first_silent = seed
        counts[name] += 1
    print(f"event, {flexible:.0%} of the load may wait: " + ", ".join(f"{k} {v / draws:.1%}" for k, v in counts.items())
          + f", first of those not said: seed {first_silent}", flush=True)  # fmt: skip
    return {name: count / draws for name, count in counts.items()}


def main() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--days", type=int, default=160)
    parser.add_argument("--months", type=int, default=3, help="of peaks, from February 2025 on; 0 = none, at most 9")
    parser.add_argument("--announced", default="0,6,12", help="hours of load that are known ahead, for the peaks")
    parser.add_argument("--draws", type=int, default=1000, help="of events of the grid")
    parser.add_argument("--plans", type=int, default=200)
    args = parser.parse_args()
    if args.smoke:
        args.days, args.plans, args.months, args.draws = 1, 2, 0, 2
    with harness.conditions(args) as given:
        given.peer("rules and foresight", "the same hours, battery and tariff, in the same process")
        times = plan_times(args.plans)
        print(", ".join(f"{name} {value:.4g}" for name, value in times.items()))
        figures = {"plan": times}
        if args.days:
            figures["share of foresight"] = half_year(args.days)
        if args.draws:
            figures |= {f"events, {share:.0%} may wait": event_draws(args.draws, share) for share in (0.0, 0.25, 0.4)}
        if args.months:
            figures["monthly peaks"] = monthly_peaks(args.months, tuple(map(int, args.announced.split(","))))
    harness.write(args, "planner", figures, given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
