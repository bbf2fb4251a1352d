"""An outage, planned before it comes: how long the battery carries it, when the generator set runs, what is shed, the
order of the black start. Data for people and for whoever acts: nothing here orders a machine.

Who is served is a list: the first is shed last and started first. A generator set has a least load, below which it
soots: it runs at that or not at all, and what it makes beyond the load charges the battery.
"""

import math
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from tidegate.runtime.planner.linear_program import Program
from tidegate.runtime.planner.plan_inputs import Floats, PlanError, Storage

SHED_EUR_PER_KWH = 100.0  # of the last in the list; of each before it so much more
SOONER = 0.02  # dearer at the begin than at the end: less than from one consumer to the next
START_EUR = 2.0  # wear of one start
MOVED_EUR_PER_KWH = 1e-3  # through the battery: what nobody takes is left out, not wasted there
STORED_EUR_PER_KWH = 1e-2  # of what is left at the end: breaks ties
CONSUMERS_MAX = 20
SHED_KW = 0.01
MIP_GAP = 1e-3
ROUNDS = 5
CHEAT_KW = 1e-5


@dataclass(frozen=True)
class Genset:
    """One generator set. fuel: litres an hour at no load, and for each kWh; None = there is more than it takes."""

    kw_max: float
    kw_min: float
    start_min: float = 1.0  # until it carries load: the battery does until then
    run_min: float = 60.0  # it runs at least so long
    fuel_l_per_h: float = 0.0
    fuel_l_per_kwh: float = 0.27
    fuel_l: float | None = None
    fuel_eur_per_l: float = 1.5


@dataclass(frozen=True)
class Consumer:
    """One part of the load. share: of the site's load; start_kw: what it draws while it starts."""

    name: str
    share: float
    start_kw: float


@dataclass(frozen=True)
class Island:
    """What an owner wrote of his site without a grid."""

    consumers: tuple[Consumer, ...]
    genset: Genset | None = None


@dataclass(frozen=True)
class OutagePlan:
    """Arrays of one value a step; shed_kw: (consumers, steps)."""

    genset_kw: Floats
    battery_kw: Floats
    stored_kwh: Floats
    curtailed_kw: Floats
    shed_kw: Floats
    starts: int
    fuel_l: float
    whole_steps: int  # from the first on, in which everybody is served


def read_island(path: Path) -> Island:
    """Raises PlanError with file, place and remedy."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as why:
        raise PlanError(f"{path}: {why}") from None
    if foreign := sorted(set(tables) - {"genset", "consumer"}):
        raise PlanError(f"{path}: {foreign[0]} is no table of an island; there are [genset] and [[consumer]]")
    rows = tables.get("consumer", [])
    if not isinstance(rows, list) or not 1 <= len(rows) <= CONSUMERS_MAX:
        raise PlanError(f"{path}: give 1 to {CONSUMERS_MAX} [[consumer]], the one that is served first as the first")
    consumers = []
    for place, row in enumerate(rows, 1):
        where = f"{path}: [[consumer]] {place}"
        values = _numbers(where, row, {"share": None, "start_kw": 0.0}, texts=("name",))
        if not 0 < values["share"] <= 1:
            raise PlanError(f"{where}: share = {values['share']:g}: write a share of the load, above 0, at most 1")
        consumers.append(Consumer(str(row.get("name", place)), values["share"], values["start_kw"]))
    if abs(sum(one.share for one in consumers) - 1.0) > 1e-6:
        total = sum(one.share for one in consumers)
        raise PlanError(f"{path}: the shares of [[consumer]] add up to {total:g}: write 1 in all")
    if "genset" not in tables:
        return Island(tuple(consumers))
    where, known = f"{path}: [genset]", {one.name: one.default for one in fields(Genset)}
    given = {key: None if key in ("kw_max", "kw_min") else known[key] for key in known}
    values = _numbers(where, tables["genset"], {**given, "fuel_l": -1.0})
    if not 0 < values["kw_min"] <= values["kw_max"]:
        raise PlanError(f"{where}: kw_min {values['kw_min']:g}, kw_max {values['kw_max']:g}: want 0 < kw_min <= kw_max")
    fuel = values.pop("fuel_l")
    return Island(tuple(consumers), Genset(**values, fuel_l=None if fuel < 0 else fuel))


def _numbers(where: str, row: object, known: dict[str, object], texts: tuple[str, ...] = ()) -> dict[str, float]:
    """The numbers of a table: all that are known, 0 or more; those without a default must be there."""
    if not isinstance(row, dict):
        raise PlanError(f"{where}: is no table")
    if foreign := sorted(set(row) - set(known) - set(texts)):
        raise PlanError(f"{where}: {foreign[0]} is no key; there are {', '.join([*texts, *known])}")
    found = {}
    for key, default in known.items():
        value = row.get(key, default)
        if key not in row and default is not None:
            found[key] = float(str(default))
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
            raise PlanError(f"{where}: {key} = {value!r}: write a number, 0 or more")
        found[key] = float(value)
    return found


def plan_outage(island: Island, storage: Storage, load_kw: Floats, pv_kw: Floats, stored_kwh: float,
                step_h: float) -> OutagePlan:  # fmt: skip
    """Serve as much as can be served, then with the least fuel, fewest starts, least sun left out. Raises PlanError."""
    if not (np.isfinite(load_kw).all() and np.isfinite(pv_kw).all() and math.isfinite(stored_kwh)):
        raise PlanError("load, sun or stored energy is no number")
    apart: frozenset[int] = frozenset()
    for _ in range(ROUNDS):
        made, both = _solved(island, storage, load_kw, pv_kw, stored_kwh, step_h, apart)
        if not both - apart:
            return made
        apart |= both
    return made


def _solved(island: Island, storage: Storage, load_kw: Floats, pv_kw: Floats, stored_kwh: float, step_h: float,
            apart: frozenset[int]) -> tuple[OutagePlan, frozenset[int]]:  # fmt: skip
    """(the plan, steps in which the battery would charge and give at once: a way to waste what nobody takes)."""
    n, genset = len(load_kw), island.genset
    load = np.maximum(load_kw, 0.0)
    program = Program()
    worth = np.zeros(n)
    worth[-1] = -STORED_EUR_PER_KWH
    begin_kwh = float(np.clip(stored_kwh, storage.least_kwh, storage.most_kwh))
    charge = program.block(n, MOVED_EUR_PER_KWH * step_h, 0.0, storage.charge_kw_max)
    discharge = program.block(n, MOVED_EUR_PER_KWH * step_h, 0.0, storage.discharge_kw_max)
    stored = program.block(n, worth, storage.least_kwh, storage.most_kwh)
    curtailed = program.block(n, 0.0, 0.0, np.maximum(pv_kw, 0.0))
    count = len(island.consumers)
    sooner = 1.0 + SOONER * (1.0 - np.arange(n) / n)  # nobody knows that it ends when it is planned to
    shed = [program.block(n, SHED_EUR_PER_KWH * (count - i) * step_h * sooner, 0.0, one.share * load)
            for i, one in enumerate(island.consumers)]  # fmt: skip
    power = on = start = -1
    if genset is not None:
        litre = genset.fuel_eur_per_l
        power = program.block(n, genset.fuel_l_per_kwh * litre * step_h, 0.0, genset.kw_max)
        on = program.block(n, genset.fuel_l_per_h * litre * step_h, 0.0, 1.0, integer=True)
        start = program.block(n, START_EUR, 0.0, 1.0)
    for k in range(n):
        terms = [(discharge + k, 1.0), (charge + k, -1.0), (curtailed + k, -1.0), *((first + k, 1.0) for first in shed)]
        net = float(load[k] - max(pv_kw[k], 0.0))
        program.row([*terms, (power + k, 1.0)] if genset is not None else terms, net, net)
        before = [(stored + k - 1, -1.0)] if k else []
        rest = 0.0 if k else begin_kwh
        program.row([(stored + k, 1.0), (charge + k, -storage.charge_efficiency * step_h),
                     (discharge + k, step_h / storage.discharge_efficiency), *before], rest, rest)  # fmt: skip
    for k in sorted(apart):
        gives = program.block(1, 0.0, 0.0, 1.0, integer=True)
        program.row([(discharge + k, 1.0), (gives, -storage.discharge_kw_max)], -np.inf, 0.0)
        program.row([(charge + k, 1.0), (gives, storage.charge_kw_max)], -np.inf, storage.charge_kw_max)
    if genset is not None:
        _genset_rows(program, genset, (power, on, start), n, step_h)
    x, _, _, _ = program.solve(MIP_GAP)

    def of(first: int) -> Floats:
        return x[first : first + n].copy()

    made_kw = of(power) if genset is not None else np.zeros(n)
    runs = np.round(of(on)) if genset is not None else np.zeros(n)
    shed_kw = np.array([of(first) for first in shed])
    short = np.flatnonzero(shed_kw.sum(axis=0) > SHED_KW)
    fuel = 0.0
    if genset is not None:
        fuel = float((made_kw * genset.fuel_l_per_kwh + runs * genset.fuel_l_per_h).sum()) * step_h
    made = OutagePlan(made_kw, of(discharge) - of(charge), of(stored), of(curtailed), shed_kw,
                      int((np.diff(np.concatenate([[0.0], runs])) > 0.5).sum()), fuel,
                      int(short[0]) if len(short) else n)  # fmt: skip
    both = np.flatnonzero(np.minimum(of(charge), of(discharge)) > CHEAT_KW)
    return made, frozenset(int(k) for k in both)


def _genset_rows(program: Program, genset: Genset, at: tuple[int, int, int], n: int, step_h: float) -> None:
    """Least load, time to start, least time of a run, fuel."""
    power, on, start = at
    late = math.ceil(genset.start_min / 60 / step_h - 1e-9) if genset.start_min / 60 > step_h / 2 else 0
    least = max(1, math.ceil(genset.run_min / 60 / step_h - 1e-9))
    for k in range(n):
        program.row([(power + k, 1.0), (on + k, -genset.kw_max)], -np.inf, 0.0)
        program.row([(power + k, 1.0), (on + k, -genset.kw_min)], 0.0, np.inf)
        before = [(on + k - 1, 1.0)] if k else []
        program.row([(on + k, -1.0), (start + k, 1.0), *before], 0.0, np.inf)
        if k < late:  # the outage was not announced
            program.row([(on + k, 1.0)], 0.0, 0.0)
        for later in range(k + 1, min(k + least, n)):
            program.row([(on + later, 1.0), (start + k, -1.0)], 0.0, np.inf)
    if genset.fuel_l is not None:
        used = [(power + k, genset.fuel_l_per_kwh * step_h) for k in range(n)]
        used += [(on + k, genset.fuel_l_per_h * step_h) for k in range(n)]
        program.row([(column, value) for column, value in used if value], -np.inf, genset.fuel_l)


def carried_h(storage: Storage, net_kw: Floats, stored_kwh: float, step_h: float) -> Floats:
    """(paths,) hours that the battery alone carries whole courses of load less sun (paths, steps); no generator set.

    A course that is never too much gives all its hours. What the sun has left over charges.
    """
    count, steps = net_kw.shape
    kwh = np.full(count, float(np.clip(stored_kwh, storage.least_kwh, storage.most_kwh)))
    hours, alive = np.zeros(count), np.ones(count, dtype=bool)
    for k in range(steps):
        give = np.maximum(net_kw[:, k], 0.0)
        take = np.minimum(np.maximum(-net_kw[:, k], 0.0), storage.charge_kw_max)
        need = give * step_h / storage.discharge_efficiency
        have = kwh - storage.least_kwh
        part = np.where(give > storage.discharge_kw_max + 1e-9, 0.0,
                        np.clip(np.divide(have, need, out=np.ones(count), where=need > 0), 0.0, 1.0))  # fmt: skip
        hours += np.where(alive, part * step_h, 0.0)
        alive &= part >= 1.0
        kwh = np.minimum(kwh - need * (part >= 1.0) + take * step_h * storage.charge_efficiency, storage.most_kwh)
    return hours


@dataclass(frozen=True)
class BlackStart:
    """One step of the order: who starts, with what is served then, and what the battery must give meanwhile, kW."""

    name: str
    served_kw: float
    needs_kw: float
    can: bool


def black_start(island: Island, storage: Storage, load_kw: float) -> tuple[BlackStart, ...]:
    """The order in which consumers come back on the battery alone; one that it cannot start waits for the genset."""
    served, steps = 0.0, []
    for one in island.consumers:
        draws = one.share * load_kw
        needs = served + max(draws, one.start_kw)
        can = needs <= storage.discharge_kw_max + 1e-9
        served += draws if can else 0.0
        steps.append(BlackStart(one.name, served, needs, can))
    return tuple(steps)
