"""What a plan is worth on a whole bill, on carbon and for work that can wait, and how honest its forecasts are.

Run: make bench, or python tests/bench/bench_foresight.py [--only ROW,...] [--days N] [--months N] [--out DIR] [--smoke]
Rows: bill, deferral, carbon, population, hostile, forecasts, sentences. Carbon: CISO 2022 and Germany 2025 H1, average
intensity, never published ahead. Every share is of what perfect foresight saves in the same hours. Beside each plan
stands the simplest thing that a user would take instead: nothing, the price rule, or yesterday as the forecast.
"""

import csv
import sys
import time
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import harness
import highspy
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.runtime.planner import explained_plans, hostile_months
from tidegate.runtime.planner import rolling_plan
from tidegate.runtime.planner.forecasts import SIMPLE, Forecaster, filled, pinball, rank_correlation
from tidegate.runtime.planner.hours_table import read_hours
from tidegate.runtime.planner.plan_inputs import Connection, Floats, Horizon, Job, Storage
from tidegate.runtime.planner.plan_solver import solve

DATA = Path(__file__).parent.parent / "data/planner"
STORAGE = Storage(60, 30, 30)
OPEN = Connection(200, 200)
DAY = 24
CARBON_EUR_PER_KG = 0.30
WINDOW = 12  # hours in which work that came may be done
FASTER = 3  # times its mean power that it can be done with
LEADS = 24
NO_JOB = Storage(1e-3, 1e-3, 1e-3)  # a battery too small to matter: the jobs alone are judged


def column(file: str, name: str) -> tuple[datetime, Floats]:
    """(begin, values) of a file of hours, blanks as NaN; the hours are checked to be whole and each there once."""
    with (DATA / file).open() as opened:
        rows = list(csv.DictReader(opened))
    times = [datetime.fromisoformat(row["time_utc"]) for row in rows]
    assert all(other - one == timedelta(hours=1) for one, other in pairwise(times)), file
    return times[0], np.array([float(row[name] or "nan") for row in rows])


# ---- the whole bill ----


def bill(days: int) -> dict[str, float]:
    """Price and 8 EUR/kW of each month's highest hour: the price rule, and plans with 0 and 6 hours of jobs known."""
    table = read_hours(DATA / "de_lu_gpu_room_2025H1.csv")
    warm, zone = DAY * 21, ZoneInfo("Europe/Berlin")
    hours = min(warm + DAY * days, len(table.load_kw))
    load, pv, price = (filled(one)[:hours] for one in (table.load_kw, table.pv_kw, table.price_eur_per_kwh))
    past = rolling_plan.Past(table.begin_utc, load, pv, price, 0.13, zone, warm)
    billed = replace(OPEN, demand_eur_per_kw=8.0)
    none = rolling_plan.operate(past, STORAGE, billed, "none", rolling_plan.no_battery, 30.0)
    best = rolling_plan.foresight(past, STORAGE, billed, 30.0)
    found: dict[str, float] = {}
    rule = rolling_plan.price_rule(past, STORAGE)
    ways = {"2 cheapest, 2 dearest": rule}
    for known in (0, 6):
        planner = rolling_plan.RollingPlanner(past, STORAGE, billed, load_known_h=1 + known)
        ways[f"{known} h of jobs announced"] = planner.decide
    for name, decide in ways.items():
        one = rolling_plan.operate(past, STORAGE, billed, name, decide, 30.0)
        found[name] = rolling_plan.share_of_foresight(none, one, best)
        parts = list(rolling_plan.months(past))
        above = sum(int(one.import_kw[part].max() > none.import_kw[part].max() + 1e-3) for part in parts)
        found[f"{name}, months above no battery"] = above
        print(f"bill, {name:34}{found[name]:8.1%} ({one.cost_eur:.0f} EUR, without battery {none.cost_eur:.0f}, "
              f"foresight {best.cost_eur:.0f}; {above} of {len(parts)} months above no battery)",
              flush=True)  # fmt: skip
    return found


# ---- work that can wait ----


def cheapest_flow(cost: Floats, window: int, faster: float) -> Floats:
    """(n,) work done in each hour with all known: one unit comes each hour, each is done within `window` hours.

    In the last `window` hours nothing comes, so that every unit has its whole window.
    """
    n, units = len(cost), len(cost) - window
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = 2 * n, n  # done in the hour; done in all by its end
    at = np.arange(n)
    lp.col_cost_ = np.concatenate([cost, np.zeros(n)])
    least = np.clip(at + 2.0 - window, 0.0, units)
    lp.col_lower_ = np.concatenate([np.zeros(n), least])
    lp.col_upper_ = np.concatenate([np.full(n, faster), np.minimum(at + 1.0, units)])
    lp.row_lower_ = lp.row_upper_ = np.zeros(n)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    terms = [((n + k, 1.0), (k, -1.0), *(((n + k - 1, -1.0),) if k else ())) for k in range(n)]
    lp.a_matrix_.start_ = np.concatenate([[0], np.cumsum([len(one) for one in terms])]).astype(np.int32)
    lp.a_matrix_.index_ = np.array([column for one in terms for column, _ in one], dtype=np.int32)
    lp.a_matrix_.value_ = np.array([value for one in terms for _, value in one])
    solver.passModel(lp)
    solver.run()
    assert solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return np.array(solver.getSolution().col_value)[:n]


def deferral(file: str, days: int, warm_days: int, names: tuple[str, ...] = ()) -> tuple[float, float, int, int]:
    """(share of carbon saved, share foresight saves, deadlines missed, units done), placed as the planner does it.

    One kWh comes each hour, to be done within 12 hours at up to 3 kW. names: forecasts that may be used; () = all.
    """
    _, series = column(file, "g_per_kwh")
    series = filled(series)
    first, end = DAY * warm_days, min(len(series), DAY * (warm_days + days))
    forecaster = Forecaster(LEADS, DAY, names=names)
    waiting: list[int] = []
    done, missed, units = np.zeros(end - first), 0, 0
    for hour in range(first, end):
        last = end - WINDOW  # nothing comes from then on: every unit has its whole window
        waiting += [hour] if hour < last else []
        expected = np.concatenate([[series[hour]], forecaster.expect(series[: hour + 1], hour + 1).middle[: LEADS - 1]])
        steps = min(LEADS, end - hour)
        # What comes in the next hours takes its place in the cheap ones too, so it is planned with.
        coming = [*waiting, *range(hour + 1, min(hour + WINDOW, last))]
        jobs = tuple(Job(str(came), 1.0, 1, max(0, came - hour), came + WINDOW - hour, True) for came in coming)
        price = expected[:steps] / 1e3
        none = np.zeros(steps)
        horizon = Horizon(0, 3600, none, none, price, none, np.ones(steps, dtype=bool), jobs,
                          import_kw_max=np.full(steps, float(FASTER)))  # fmt: skip
        plan = solve(NO_JOB, OPEN, horizon, 0.0005)
        now = [came for came, row in zip(coming, plan.jobs_kw, strict=True) if row[0] > 0]
        done[hour - first] = len(now)
        missed += sum(hour >= came + WINDOW for came in now)
        units += len(now)
        waiting = [came for came in waiting if came not in now]
    missed += len(waiting)
    cost = series[first:end]
    best = cheapest_flow(cost, WINDOW, FASTER)
    at_once = cost[:-WINDOW].sum()
    assert done.max() <= FASTER and abs(best.sum() - units) < 1e-6
    return float(1 - done @ cost / at_once), float(1 - best @ cost / at_once), missed, units


def deferrals(days: int, warm_days: int) -> dict[str, float]:
    """CISO and Germany, by the forecast that proved best and by yesterday's values."""
    found: dict[str, float] = {}
    for zone, file in (("CISO", "carbon_ciso_2022.csv"), ("DE", "carbon_de_2025H1.csv")):
        for name, names in (("plan", ()), ("yesterday", ("yesterday",))):
            began = time.perf_counter()
            saved, best, missed, units = deferral(file, days, warm_days, names)
            found |= {f"{zone}, {name}": saved / best, f"{zone}, {name}, deadlines missed": missed}
            print(f"deferral, {zone}, {name:12}{saved / best:8.1%} of foresight ({saved:.1%} of {best:.1%} of carbon), "
                  f"{missed} of {units} deadlines missed, {time.perf_counter() - began:.0f} s", flush=True)  # fmt: skip
    return found


# ---- a battery on carbon ----


def carbon(days: int, warm_days: int) -> dict[str, float]:
    """A battery beside a flat load, each kilogram counted as 0.30 EUR, nothing published; beside yesterday's values."""
    found: dict[str, float] = {}
    for zone, file in (("DE", "carbon_de_2025H1.csv"), ("CISO", "carbon_ciso_2022.csv")):
        begin, series = column(file, "g_per_kwh")
        series = filled(series)[: DAY * (warm_days + days)]
        load, price = np.full(len(series), 37.0), series / 1e3 * CARBON_EUR_PER_KG
        past = rolling_plan.Past(begin, load, 0 * load, price, 0.0, ZoneInfo("UTC"), DAY * warm_days)
        none = rolling_plan.operate(past, STORAGE, OPEN, "none", rolling_plan.no_battery, 30.0)
        best = rolling_plan.foresight(past, STORAGE, OPEN, 30.0)
        for name, names in (("plan", ()), ("yesterday", ("yesterday",))):
            planner = rolling_plan.RollingPlanner(past, STORAGE, OPEN, published=False, forecasts=names)
            one = rolling_plan.operate(past, STORAGE, OPEN, name, planner.decide, 30.0)
            share = rolling_plan.share_of_foresight(none, one, best)
            windows = rolling_plan.window_shares(none, one, best, min(24 * 30, len(series) - DAY * warm_days))
            found |= {f"{zone}, {name}": share, f"{zone}, {name}, worst 30 days": float(windows.min())}
            print(f"carbon, {zone}, {name:12}{share:8.1%} of foresight ({none.cost_eur - one.cost_eur:.0f} of "
                  f"{none.cost_eur - best.cost_eur:.0f} EUR), worst 30 days {windows.min():.1%}",
                  flush=True)  # fmt: skip
    return found


# ---- no month above that without a battery ----


def population(count: int, hours: int, first_seed: int = 0) -> dict[str, float]:
    """Seeded months of a GPU room with another battery, tariff, scale and noise each: how many peaks are above none."""
    _, room = column("gpu_room_2024-11_2025-10.csv", "load_kw")
    room, above, worst, shaved = filled(room), 0, 0.0, []
    warm = DAY * 16
    for seed in range(first_seed, first_seed + count):
        rng = np.random.default_rng(seed)
        first = int(rng.integers(0, len(room) - warm - hours))
        load = room[first : first + warm + hours] * rng.uniform(0.3, 3) + np.abs(rng.normal(0, rng.uniform(0, 8)))
        load = load + np.abs(rng.normal(0, rng.uniform(0, 15), len(load)))
        sun = rng.uniform(0, 60) * np.maximum(0, np.sin((np.arange(len(load)) % DAY - 6) * np.pi / 12))
        sun *= rng.uniform(0, 1, len(load))
        price = 0.2 + rng.uniform(0, 0.2) * np.sin(np.arange(len(load)) * 2 * np.pi / DAY + rng.uniform(0, 6))
        price = price + rng.normal(0, 0.04, len(load))
        energy, power = rng.uniform(10, 200), rng.uniform(5, 80)
        storage = Storage(energy, power, power, rng.uniform(0.85, 0.98), rng.uniform(0.85, 0.98))
        billed = Connection(1e4, 1e4, demand_eur_per_kw=float(rng.uniform(1, 20)))
        past = rolling_plan.Past(datetime.fromisoformat("2025-01-01T00:00Z"), load, sun, price, 0.1,
                                 ZoneInfo("UTC"), warm)  # fmt: skip
        begin_kwh = float(rng.uniform(storage.least_kwh, storage.most_kwh))
        planner = rolling_plan.RollingPlanner(past, storage, billed, every=int(rng.integers(1, 4)))
        none = rolling_plan.operate(past, storage, billed, "none", rolling_plan.no_battery, begin_kwh)
        one = rolling_plan.operate(past, storage, billed, "plan", planner.decide, begin_kwh)
        for part in rolling_plan.months(past):
            beyond = float(one.import_kw[part].max() - none.import_kw[part].max())
            shaved.append(-beyond / none.import_kw[part].max())
            if beyond > 1e-3:
                above += 1
                worst = max(worst, beyond)
                print(f"population: seed {seed}: {beyond:.3f} kW above no battery", flush=True)
    print(f"population: {above} of {len(shaved)} months above no battery (worst {worst:.3f} kW), "
          f"{np.median(shaved):.1%} shaved in the middle", flush=True)  # fmt: skip
    return {"months": len(shaved), "above": above, "worst_kw": worst, "median_shaved": float(np.median(shaved))}


def hostile(count: int, parts: int, compiled: bool, first_seed: int = 0) -> dict[str, float]:
    """Seeded months of plans that ask for the worst, through all that bounds them: how many peaks are above none.

    parts: of a quarter hour in each of which the load is another one and the loop decides; 1 = as the history has it.
    """
    worst_kw, worst_seed, above, charged = -np.inf, -1, 0, 0.0
    for seed in range(first_seed, first_seed + count):
        one = hostile_months.lived(seed, parts, compiled=compiled)
        beyond = max(one.above_kw())
        charged += one.charged_kwh
        if beyond > worst_kw:
            worst_kw, worst_seed = beyond, seed
        if seed % 500 == 499:
            print(f"hostile: to seed {seed}: {above} above, worst {worst_kw:.2g} kW (seed {worst_seed})", flush=True)
        if beyond > hostile_months.SAME_KW:
            above += 1
            print(f"hostile: seed {seed}: {beyond:.3f} kW above no battery, windows of {one.window_s} s", flush=True)
    print(f"hostile: {above} of {count} months above no battery, {parts} parts of a quarter hour; the worst is "
          f"{worst_kw:.2g} kW above (seed {worst_seed}); {charged / count:.0f} kWh charged in the mean month",
          flush=True)  # fmt: skip
    return {"months": count, "above": above, "worst_kw": worst_kw, "worst_seed": worst_seed}


# ---- forecasts ----


def forecast_series() -> dict[str, Floats]:
    """Every shipped series of hours."""
    files = {
        "load of the GPU room": ("gpu_room_2024-11_2025-10.csv", "load_kw"),
        "sun": ("de_lu_gpu_room_2025H1.csv", "pv_kw"),
        "price DE-LU": ("de_lu_gpu_room_2025H1.csv", "price_eur_per_kwh"),
        "carbon DE": ("carbon_de_2025H1.csv", "g_per_kwh"),
        "carbon CISO": ("carbon_ciso_2022.csv", "g_per_kwh"),
    }
    return {name: filled(column(*where)[1]) for name, where in files.items()}


def forecasts(days: int, warm_days: int) -> dict[str, float]:
    """Pinball (q10, q50, q90), coverage of the band and rank correlation of what is used, beside each simple way.

    Origins: every 5 hours, so that each hour of the day is one.
    """
    found: dict[str, float] = {}
    for series_name, series in forecast_series().items():
        first, end = DAY * warm_days, min(len(series) - LEADS, DAY * (warm_days + days))
        ways = {"used": Forecaster(LEADS, DAY)} | {name: Forecaster(LEADS, DAY, names=(name,)) for name in SIMPLE}
        loss: dict[str, list[float]] = {name: [] for name in ways}
        inside, ranks, names = [], [], []
        for origin in range(first, end, 5):
            actual = series[origin : origin + LEADS]
            for name, way in ways.items():
                one = way.expect(series[:origin], origin)
                loss[name].append(pinball(actual, np.array([one.low, one.middle, one.high])))
                if name == "used":
                    inside.append(float(((actual >= one.low - 1e-9) & (actual <= one.high + 1e-9)).mean()))
                    ranks.append(rank_correlation(one.middle, actual))
                    names.append(one.name)
        mean = {name: float(np.mean(one)) for name, one in loss.items()}
        best = min((name for name in SIMPLE), key=lambda name: mean[name])
        found |= {f"{series_name}, covered": float(np.mean(inside)), f"{series_name}, pinball": mean["used"],
                  f"{series_name}, pinball of {best}": mean[best],
                  f"{series_name}, tau": float(np.mean(ranks))}  # fmt: skip
        most = max(set(names), key=names.count)
        print(f"forecast, {series_name:22} pinball {mean['used']:.4g}, best of the simple ones {mean[best]:.4g} "
              f"({best}), band of 80 % covers {np.mean(inside):.1%}, tau {np.mean(ranks):.2f}, mostly {most}",
              flush=True)  # fmt: skip
    return found


def sentences(plans: int) -> dict[str, float]:
    """48 sentences of each seeded plan, and how many are false; one step of each is borne out by solving again."""
    count, false = 0, []
    for seed in range(plans):
        more, wrong = explained_plans.false_sentences(seed)
        count, false = count + more, false + wrong
        for text in wrong:
            print(f"false: {text}", flush=True)
    print(f"explanations: {len(false)} of {count} sentences false", flush=True)
    return {"sentences": count, "false": len(false)}


def main() -> int:
    parser = harness.parser(__doc__)
    rows = ("bill", "deferral", "carbon", "population", "hostile", "forecasts", "sentences")
    parser.add_argument("--only", default=",".join(rows), help="rows, separated by commas")
    parser.add_argument("--days", type=int, default=100, help="judged, of each series; its history comes before")
    parser.add_argument("--months", type=int, default=60, help="of the population")
    parser.add_argument("--hostile", type=int, default=10_000, help="months of hostile plans")
    parser.add_argument("--compiled", action="store_true", help="hostile months through the compiled control")
    parser.add_argument("--parts", type=int, default=1, help="of a quarter hour, in hostile months")
    parser.add_argument("--first-seed", type=int, default=0, help="of the population and of the hostile months")
    parser.add_argument("--plans", type=int, default=210, help="that are explained, 48 sentences each")
    args = parser.parse_args()
    days, warm_days, months, hours = args.days, 60, args.months, 30 * DAY
    if args.smoke:
        days, warm_days, months, hours, args.plans, args.hostile = 1, 14, 1, 6, 2, 2
    with harness.conditions(args) as given:
        given.peer("rules, simple forecasts and foresight", "the same hours, battery and tariff, in the same process")
        made = {"bill": lambda: bill(days), "deferral": lambda: deferrals(days, warm_days),
                "carbon": lambda: carbon(days, warm_days),
                "population": lambda: population(months, hours, args.first_seed),
                "hostile": lambda: hostile(args.hostile, args.parts, args.compiled, args.first_seed),
                "forecasts": lambda: forecasts(days, warm_days),
                "sentences": lambda: sentences(args.plans)}  # fmt: skip
        figures = {name: made[name]() for name in args.only.split(",")}
    harness.write(args, "foresight", figures, given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
