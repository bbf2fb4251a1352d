"""The plan as a linear program (HiGHS): what the battery does in each step, and what a kilowatt-hour is worth there.

Solved in this order. 1. The bill without reserve: gives the peak. 2. The same with the reserve, the peak no higher than
before: a reserve yields to the peak, never the other way (one that is dearer than the demand charge would buy a peak to
fill the battery). 3. At equal cost, the smallest change from the plan in force: equal inputs give the equal plan.
Binaries come only into steps where the relaxation cheats (charging while discharging, importing while exporting, and
losses beyond those of its power).
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np

from tidegate.runtime.planner.linear_program import Program
from tidegate.runtime.planner.plan_inputs import Connection, Floats, Horizon, Job, PlanError, Storage

CHEAT_KW = 1e-5  # both of two that exclude each other above this
ROUNDS = 6  # of added binaries
OVER_LIMIT_EUR_PER_KWH = 1e3  # import above the connection's limit: told, never hidden by an infeasible plan
SHORT_EUR_PER_KWH = 1.0  # reserve that is not there, in the solve whose only other aim is the bill
OVER_KW = 1e-6  # less than this is no import above the limit
SOC_NEAR = 1e-3  # share of the energy that the state of charge is read to
# Jobs are placed twice, and the cheaper plan counts: by what a kWh at the meter is worth (the battery may move it),
# where equal by what is paid for it; and by what is paid alone.
LEANS = (1e-3, 1.0)
EQUAL = 1e-7  # share of the bill within which two plans cost the same


@dataclass(frozen=True)
class Plan:
    """A solved plan. Arrays of one value a step."""

    horizon: Horizon
    charge_kw: Floats
    discharge_kw: Floats
    import_kw: Floats
    export_kw: Floats
    curtailed_kw: Floats
    stored_kwh: Floats  # at the step's end
    jobs_kw: Floats  # (jobs, steps)
    peak_kw: float
    cost_eur: float  # of the program: energy, wear, demand above what is paid, less what is left in the battery
    bound_eur: float  # no plan can cost less
    meter_eur_per_kwh: Floats  # what one more kWh of load in this step costs
    stored_eur_per_kwh: Floats  # what one more stored kWh at the step's end is worth
    relaxed: tuple[str, ...] = ()  # what could not be held, in words
    aims_eur: float = 0.0  # what the reserve and the cushions that lack counted beside the bill
    over_eur: float = 0.0  # what import above the limit counts in the cost: nobody pays that

    @property
    def battery_kw(self) -> Floats:
        """+ discharge."""
        return self.discharge_kw - self.charge_kw

    @property
    def bill_eur(self) -> float:
        """The cost without what import above the limit counts: what there is to pay."""
        return self.cost_eur - self.over_eur


@dataclass(frozen=True)
class _Columns:
    charge: int
    discharge: int
    imported: int
    exported: int
    curtailed: int
    stored: int
    over: int
    peak: int
    short: int
    lacks: tuple[int, ...]  # of each cushion
    jobs: tuple[int, ...]
    parts: dict[str, list[tuple[int, float]]]  # of charge and discharge: (column, width) of each segment, best first
    balance: int  # first row
    storage: int


Cheats = frozenset[tuple[str, int]]


def solve(storage: Storage, connection: Connection, horizon: Horizon, stored_kwh: float, *,
          end_value_eur_per_kwh: float | None = None, in_force_kw: Floats | None = None) -> Plan:  # fmt: skip
    """The cheapest plan. stored_kwh: now. end_value: of what is left; default what it brings later: the median
    import price less wear, times efficiency.

    in_force_kw: battery power (+ discharge) of the plan in force for the same steps, else rest is the tie-breaker.
    Raises PlanError when an input cannot be planned with.
    """
    if not np.isfinite(stored_kwh):
        raise PlanError(f"stored energy is {stored_kwh}: read the state of charge again")
    # A battery outside its window is planned from the window's edge: it cannot be made whole in no time.
    begin_kwh = float(np.clip(stored_kwh, storage.least_kwh, storage.most_kwh))
    outside = _outside(storage, stored_kwh, begin_kwh)
    if end_value_eur_per_kwh is None:
        middle = float(np.median(horizon.import_eur_per_kwh))
        end_value_eur_per_kwh = max(0.0, (middle - storage.wear_eur_per_kwh) * storage.discharge_efficiency)
    horizon, late = _possible(horizon)
    placed, jobs_kw, bound_eur = horizon, np.zeros((0, len(horizon.load_kw))), -np.inf
    bare = replace(horizon, reserve_kwh=np.zeros(0), cushions=())
    if horizon.jobs:
        loose = _cheapest(storage, connection, bare, begin_kwh, end_value_eur_per_kwh)
        bound_eur = loose.bound_eur
        made: list[tuple[Plan, Floats]] = []
        for lean in LEANS:
            jobs_kw = placed_jobs(connection, horizon, loose, lean)
            bare = replace(bare, load_kw=horizon.load_kw + jobs_kw.sum(axis=0), jobs=())
            if not any((jobs_kw == other).all() for _, other in made):
                made.append((_cheapest(storage, connection, bare, begin_kwh, end_value_eur_per_kwh), jobs_kw))
        plan, jobs_kw = min(made, key=lambda one: one[0].cost_eur)
        placed = replace(horizon, load_kw=horizon.load_kw + jobs_kw.sum(axis=0), jobs=())
    else:
        plan = _cheapest(storage, connection, bare, begin_kwh, end_value_eur_per_kwh)
    if horizon.jobs and _over_kw(plan, connection).max() > OVER_KW:
        jobs_kw, moved = later_jobs(connection, horizon, plan, jobs_kw)
        tried = replace(placed, load_kw=horizon.load_kw + jobs_kw.sum(axis=0))
        if moved:
            bare = replace(tried, reserve_kwh=np.zeros(0), cushions=())
            placed, late = tried, [*late, *moved]
            plan = _cheapest(storage, connection, bare, begin_kwh, end_value_eur_per_kwh)
    if not horizon.jobs:
        bound_eur = plan.bound_eur
    peak_kw = None
    if len(placed.reserve_kwh) or placed.cushions:
        peak_kw = plan.peak_kw
        plan = _cheapest(storage, connection, placed, begin_kwh, end_value_eur_per_kwh, peak_kw=peak_kw)
    wanted = np.zeros(len(horizon.load_kw)) if in_force_kw is None else in_force_kw
    nearest = _cheapest(storage, connection, placed, begin_kwh, end_value_eur_per_kwh, peak_kw=peak_kw,
                     near_kw=wanted, cost_eur=plan.cost_eur + plan.aims_eur)  # fmt: skip
    return replace(
        nearest, horizon=horizon, jobs_kw=jobs_kw, bound_eur=bound_eur, meter_eur_per_kwh=plan.meter_eur_per_kwh,
        stored_eur_per_kwh=plan.stored_eur_per_kwh, relaxed=(*outside, *late, *nearest.relaxed),
    )  # fmt: skip


def _outside(storage: Storage, stored_kwh: float, begin_kwh: float) -> list[str]:
    """In words, where the store is not within its window now."""
    if abs(stored_kwh - begin_kwh) <= storage.energy_kwh * SOC_NEAR:
        return []
    soc, edge = stored_kwh / storage.energy_kwh, begin_kwh / storage.energy_kwh
    return [f"the state of charge of {soc:.1%} is outside its window: planned from the edge, {edge:.1%}"]


def _over_kw(plan: Plan, connection: Connection) -> Floats:
    """Import above what is allowed, each step."""
    return np.maximum(0.0, plan.import_kw - plan.horizon.limits_kw(connection))


def _possible(horizon: Horizon) -> tuple[Horizon, list[str]]:
    """The jobs within the horizon, and in words which of them cannot be done in their time."""
    end, jobs, late = len(horizon.load_kw), [], []
    for job in horizon.jobs:
        first = min(max(0, job.earliest), end - 1)
        steps, last = min(job.steps, end - first), min(job.latest_end, end)
        if last - first < job.steps:
            late.append(f"job {job.name} cannot meet its deadline: {job.steps} steps in {max(0, last - first)}")
            last = first + steps
        jobs.append(replace(job, earliest=first, latest_end=last, steps=steps))
    return replace(horizon, jobs=tuple(jobs)), late


def _cheapest(storage: Storage, connection: Connection, horizon: Horizon, begin_kwh: float, end_value: float, *,
              peak_kw: float | None = None, near_kw: Floats | None = None, cost_eur: float = 0.0) -> Plan:  # fmt: skip
    """Solve, and again with binaries where the relaxation does two things that exclude each other."""
    cheats: Cheats = frozenset()
    left: tuple[str, ...] = ()
    for _ in range(ROUNDS):
        program, at = _build(storage, connection, horizon, begin_kwh, end_value, peak_kw, cheats)
        true_cost = np.concatenate(program.cost)
        if near_kw is not None:
            _near(program, at, near_kw, true_cost, cost_eur)
        x, duals, _, bound = program.solve()
        found = _both(x, at, len(horizon.load_kw)) - cheats
        if not found:
            break
        cheats |= found
    else:
        cheats -= found  # these are not in the program that was solved last
        left = (f"{len(found)} steps still do two things that exclude each other; their cost is too low",)
    plan = _read(storage, connection, horizon, at, x, duals, float(true_cost @ x[: len(true_cost)]), bound)
    if cheats and near_kw is None:  # a program with binaries has no duals: fix what it decided and solve once more
        fixed, at = _build(storage, connection, horizon, begin_kwh, end_value, peak_kw, cheats)
        low, high = np.concatenate(fixed.lower), np.concatenate(fixed.upper)
        whole = np.concatenate(fixed.integer)
        low[whole] = high[whole] = np.round(x[: len(whole)][whole])
        fixed.lower, fixed.upper, fixed.integer = [low], [high], [np.zeros(len(low), dtype=bool)]
        x, duals, _, _ = fixed.solve()
        plan = _read(storage, connection, horizon, at, x, duals, float(true_cost @ x[: len(true_cost)]), bound)
    return replace(plan, relaxed=(*plan.relaxed, *left))


def _build(storage: Storage, connection: Connection, horizon: Horizon, begin_kwh: float, end_value: float,
           peak_kw: float | None, cheats: Cheats) -> tuple[Program, _Columns]:  # fmt: skip
    n, hours = len(horizon.load_kw), horizon.step_h
    net = horizon.load_kw - horizon.pv_kw
    program = Program()
    most_kw = np.full(n, storage.discharge_kw_max)
    if not connection.export_from_battery:
        most_kw = np.minimum(most_kw, np.maximum(net, 0.0) + sum(job.power_kw for job in horizon.jobs))
    stored_cost = np.zeros(n)
    stored_cost[-1] = -end_value
    charge = program.block(
        n, 0.0, 0.0, np.clip(horizon.recharge_limits_kw(connection) - net, 0.0, storage.charge_kw_max)
    )
    discharge = program.block(n, storage.wear_eur_per_kwh * hours, 0.0, most_kw)
    imported = program.block(n, horizon.import_eur_per_kwh * hours, 0.0, np.inf)
    exported = program.block(n, -horizon.export_eur_per_kwh * hours, 0.0, connection.export_kw_max)
    curtailed = program.block(n, 0.0, 0.0, np.maximum(horizon.pv_kw, 0.0) + np.maximum(-horizon.load_kw, 0.0))
    stored = program.block(n, stored_cost, storage.least_kwh, storage.most_kwh)
    over = program.block(n, OVER_LIMIT_EUR_PER_KWH * hours, 0.0, np.inf)
    highest = np.inf if peak_kw is None else max(peak_kw * (1 + EQUAL) + 1e-7, connection.demand_paid_kw)
    peak = program.block(1, connection.demand_eur_per_kw, connection.demand_paid_kw, highest)
    reserve = len(horizon.reserve_kwh) > 0
    short = program.block(n, SHORT_EUR_PER_KWH * hours, 0.0, np.inf) if reserve else -1
    lacks = [program.block(n, eur_per_kwh_h * hours, 0.0, np.inf) for _, eur_per_kwh_h in horizon.cushions]
    jobs = []
    for job in horizon.jobs:
        may = np.zeros(n)
        may[max(0, job.earliest) : job.latest_end] = job.power_kw
        jobs.append(program.block(n, 0.0, 0.0, may))
    balance = len(program.row_lower)
    for k in range(n):
        terms = [
            (imported + k, 1.0),
            (exported + k, -1.0),
            (discharge + k, 1.0),
            (charge + k, -1.0),
            (curtailed + k, -1.0),
        ]
        program.row([*terms, *((first + k, -1.0) for first in jobs)], net[k], net[k])
    levels, limits_kw = len(program.row_lower), horizon.limits_kw(connection)
    for k in range(n):
        before = [(stored + k - 1, -1.0)] if k else []
        rest = 0.0 if k else begin_kwh
        program.row([(stored + k, 1.0), *before], rest, rest)
    for k in range(n):
        program.row([(imported + k, 1.0), (over + k, -1.0)], -np.inf, float(limits_kw[k]))
        if horizon.demand_counts[k]:
            program.row([(imported + k, 1.0), (peak, -1.0)], -np.inf, 0.0)
        if reserve:
            program.row([(stored + k, 1.0), (short + k, 1.0)], float(horizon.reserve_kwh[k]), np.inf)
        for (kwh, _), first in zip(horizon.cushions, lacks, strict=True):
            program.row([(stored + k, 1.0), (first + k, 1.0)], float(kwh[k]), np.inf)
    for job, first in zip(horizon.jobs, jobs, strict=True):
        energy = job.power_kw * job.steps
        program.row([(first + k, 1.0) for k in range(n)], energy, energy)
    parts = {name: _by_power(program, segments, power, levels, hours_in, n) for name, segments, power, hours_in in (
        ("charge", storage.charge_segments(), charge, -hours),
        ("discharge", storage.discharge_segments(), discharge, hours))}  # fmt: skip
    biggest_kw = float(np.max(np.abs(net))) + storage.charge_kw_max + sum(job.power_kw for job in horizon.jobs)
    for kind, k in sorted(cheats):
        name, _, place = kind.partition(" ")
        if place:  # the worse segment only when the better one before it is full
            (better, better_kw), (worse, worse_kw) = parts[name][int(place) :][:2]
            is_full = program.block(1, 0.0, 0.0, 1.0, integer=True)
            program.row([(better + k, 1.0), (is_full, -better_kw)], 0.0, np.inf)
            program.row([(worse + k, 1.0), (is_full, -worse_kw)], -np.inf, 0.0)
            continue
        one, other, one_kw, other_kw = (
            (charge, discharge, storage.charge_kw_max, storage.discharge_kw_max)
            if kind == "battery"
            else (imported, exported, biggest_kw, min(connection.export_kw_max, biggest_kw + storage.discharge_kw_max))
        )
        either = program.block(1, 0.0, 0.0, 1.0, integer=True)
        program.row([(one + k, 1.0), (either, -one_kw)], -np.inf, 0.0)
        program.row([(other + k, 1.0), (either, other_kw)], -np.inf, other_kw)
    at = _Columns(charge, discharge, imported, exported, curtailed, stored, over, peak, short, tuple(lacks),
                  tuple(jobs), parts, balance, levels)  # fmt: skip
    return program, at


def _by_power(program: Program, segments: list[tuple[float, float]], power: int, levels: int, hours: float,
              steps: int) -> list[tuple[int, float]]:  # fmt: skip
    """What a power moves in the store, into the storage rows from `levels` on; one column a segment where it bends.

    Gives (first column, width) of each segment, [] where it does not bend.
    """
    if len(segments) == 1:
        for k in range(steps):
            program.add(levels + k, power + k, hours * segments[0][1])
        return []
    parts = [(program.block(steps, 0.0, 0.0, width), slope) for width, slope in segments]
    for k in range(steps):
        program.row([(power + k, 1.0), *((part + k, -1.0) for part, _ in parts)], 0.0, 0.0)
        for part, slope in parts:
            program.add(levels + k, part + k, hours * slope)
    return [(part, width) for (part, _), (width, _) in zip(parts, segments, strict=True)]


def _near(program: Program, at: _Columns, near_kw: Floats, true_cost: Floats, cost_eur: float) -> None:
    """Turn the program into: at this cost, the battery as near to `near_kw` as can be."""
    steps = len(near_kw)
    program.cost = [np.zeros(program.columns)]
    away = program.block(steps, 1.0, 0.0, np.inf)
    for k in range(steps):
        moved = [(at.discharge + k, 1.0), (at.charge + k, -1.0)]
        program.row([*moved, (away + k, -1.0)], -np.inf, float(near_kw[k]))
        program.row([*moved, (away + k, 1.0)], float(near_kw[k]), np.inf)
    used = np.flatnonzero(true_cost)
    slack = EQUAL * (1.0 + abs(cost_eur))
    program.row([(int(i), float(true_cost[i])) for i in used], -np.inf, cost_eur + slack)


def _both(x: Floats, at: _Columns, steps: int) -> Cheats:
    found = set()
    for kind, one, other in (("battery", at.charge, at.discharge), ("grid", at.imported, at.exported)):
        both = (x[one : one + steps] > CHEAT_KW) & (x[other : other + steps] > CHEAT_KW)
        found |= {(kind, int(k)) for k in np.flatnonzero(both)}
    # Where energy is a burden (a price below zero, a full battery) the program would waste it in the worst segments.
    for name, parts in at.parts.items():
        for place, ((better, better_kw), (worse, _)) in enumerate(itertools.pairwise(parts)):
            early = (x[worse : worse + steps] > CHEAT_KW) & (x[better : better + steps] < better_kw - CHEAT_KW)
            found |= {(f"{name} {place}", int(k)) for k in np.flatnonzero(early)}
    return frozenset(found)


def _meter(storage: Storage, connection: Connection, horizon: Horizon, at: _Columns,
           duals: tuple[Floats, Floats]) -> Floats:  # fmt: skip
    """(steps,) EUR for one more kWh of load: the balance's dual, and what the load moves beside it.

    More load lets the battery give more where it may not export, and leaves less for charging below the peak.
    """
    n, (rows, columns) = len(horizon.load_kw), duals
    worth = rows[at.balance : at.balance + n].copy()
    net = horizon.load_kw - horizon.pv_kw
    if not connection.export_from_battery:
        bound = (net > 0) & (net + sum(job.power_kw for job in horizon.jobs) < storage.discharge_kw_max)
        worth += np.where(bound, np.minimum(columns[at.discharge : at.discharge + n], 0.0), 0.0)
    room = horizon.recharge_limits_kw(connection) - net
    bound = (room > 0) & (room < storage.charge_kw_max)
    worth -= np.where(bound, np.minimum(columns[at.charge : at.charge + n], 0.0), 0.0)
    return worth / horizon.step_h


def _read(storage: Storage, connection: Connection, horizon: Horizon, at: _Columns, x: Floats,
          duals: tuple[Floats, Floats], cost: float, bound: float) -> Plan:  # fmt: skip
    n, hours = len(horizon.load_kw), horizon.step_h

    def of(first: int) -> Floats:
        return x[first : first + n].copy()

    relaxed = []
    over = of(at.over)
    if over.max() > OVER_KW:
        k = int(over.argmax())
        relaxed.append(f"the connection's import limit cannot be held: {over[k]:.1f} kW above it in step {k}")
    if at.short >= 0 and of(at.short).max() > 1e-6:
        short = of(at.short)
        k = int(short.argmax())
        relaxed.append(f"the reserve gives way to the peak: {short[k]:.1f} kWh short in step {k}")
    aims_eur = sum(float(of(first).sum()) * eur_per_kwh_h * hours
                   for first, (_, eur_per_kwh_h) in zip(at.lacks, horizon.cushions, strict=True))  # fmt: skip
    if at.short >= 0:
        aims_eur += float(of(at.short).sum()) * SHORT_EUR_PER_KWH * hours
    return Plan(
        horizon=horizon, charge_kw=of(at.charge), discharge_kw=of(at.discharge), import_kw=of(at.imported),
        export_kw=of(at.exported), curtailed_kw=of(at.curtailed), stored_kwh=of(at.stored),
        jobs_kw=np.array([of(first) for first in at.jobs]).reshape(len(at.jobs), n), peak_kw=float(x[at.peak]),
        cost_eur=cost - aims_eur, aims_eur=aims_eur, bound_eur=bound,
        over_eur=float(over.sum()) * OVER_LIMIT_EUR_PER_KWH * hours,
        meter_eur_per_kwh=_meter(storage, connection, horizon, at, duals),
        stored_eur_per_kwh=-duals[0][at.storage : at.storage + n], relaxed=tuple(relaxed),
    )  # fmt: skip


def placed_jobs(connection: Connection, horizon: Horizon, loose: Plan, lean: float = LEANS[0]) -> Floats:
    """(jobs, steps) kW: each job where it costs least by the relaxation's prices and its peak; the largest first.

    lean: the weight of what is paid for a kWh beside what the relaxation says it is worth, 0 to 1.
    """
    spare = loose.export_kw + loose.curtailed_kw > OVER_KW
    paid = np.where(spare, loose.meter_eur_per_kwh, horizon.import_eur_per_kwh)
    worth = (1 - lean) * loose.meter_eur_per_kwh + lean * paid
    base = loose.import_kw - loose.jobs_kw.sum(axis=0)  # what else is drawn
    jobs_kw = np.zeros((len(horizon.jobs), len(base)))
    order = sorted(range(len(horizon.jobs)), key=lambda i: (-horizon.jobs[i].power_kw * horizon.jobs[i].steps, i))
    for i in order:
        steps = _place(connection, horizon, loose.peak_kw, worth, horizon.jobs[i], base)
        jobs_kw[i, steps] = horizon.jobs[i].power_kw
        base = base + jobs_kw[i]
    return jobs_kw


def _place(connection: Connection, horizon: Horizon, peak_kw: float, worth: Floats, job: Job,
           base: Floats) -> list[int]:  # fmt: skip
    """The steps in which it runs."""
    first, end = job.earliest, job.latest_end
    price = worth * job.power_kw * horizon.step_h
    counted = np.where(horizon.demand_counts, base + job.power_kw, 0.0)
    above = connection.demand_eur_per_kw * np.maximum(0.0, counted - peak_kw)
    over_kw = np.maximum(0.0, base + job.power_kw - horizon.limits_kw(connection))
    above += OVER_LIMIT_EUR_PER_KWH * horizon.step_h * np.minimum(over_kw, job.power_kw)
    if job.interruptible:
        return sorted(first + int(k) for k in np.argsort((price + above)[first:end], kind="stable")[: job.steps])
    starts = range(first, end - job.steps + 1)
    costs = [price[s : s + job.steps].sum() + above[s : s + job.steps].max() for s in starts]
    start = first + int(np.argmin(costs))
    return list(range(start, start + job.steps))


def later_jobs(connection: Connection, horizon: Horizon, plan: Plan, jobs_kw: Floats) -> tuple[Floats, list[str]]:
    """A job's deadline gives way to the connection's import limit: (jobs_kw with those moved, which they are in words).

    Jobs that run where the limit is passed go to where least of it is passed, as early as that can be; the largest
    first, and no more of them than it takes.
    """
    jobs_kw, said, limits_kw = jobs_kw.copy(), [], horizon.limits_kw(connection)
    drawn = plan.import_kw.copy()
    for i in sorted(range(len(jobs_kw)), key=lambda i: (-horizon.jobs[i].power_kw, i)):
        job, runs = horizon.jobs[i], jobs_kw[i] > 0
        without = drawn - jobs_kw[i]
        if (drawn - limits_kw)[runs].max(initial=0.0) <= OVER_KW:
            continue
        above = np.maximum(0.0, without + job.power_kw - limits_kw)
        steps = _least(above, job, len(above))
        if above[steps].sum() >= above[runs].sum() - OVER_KW or steps[-1] < job.latest_end:
            continue
        jobs_kw[i] = 0.0
        jobs_kw[i, steps] = job.power_kw
        drawn = without + jobs_kw[i]
        late = steps[-1] + 1 - job.latest_end
        said.append(
            f"job {job.name} gives way to the connection's import limit: it ends {late} steps after its deadline"
        )
    return jobs_kw, said


def _least(cost: Floats, job: Job, end: int) -> list[int]:
    """The steps from its earliest to `end` that cost least, the earliest of equal ones."""
    if job.interruptible:
        order = np.argsort(np.round(cost[job.earliest : end], 6), kind="stable")
        return sorted(job.earliest + int(k) for k in order[: job.steps])
    starts = range(job.earliest, end - job.steps + 1)
    start = job.earliest + int(np.argmin([round(float(cost[s : s + job.steps].sum()), 6) for s in starts]))
    return list(range(start, start + job.steps))
