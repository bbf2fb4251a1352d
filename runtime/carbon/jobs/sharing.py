"""Who gets which part of what the meters counted on one day: jobs, idle, and what cannot be placed.

For each period and load the metered energy and its carbon are the whole. What was drawn while no job ran is idle; the
rest goes by weight: the energy that software counted, or, unless every piece of work of the load has one, the reserved
slots and time. A job that names no load while others do is spread evenly over all of them, and its part is kept apart
as unplaced. Everything is whole numbers: jobs + idle + unplaced = metered, on every load, in energy and carbon.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tidegate.runtime.carbon.integers import share
from tidegate.runtime.carbon.jobs.work import Work

HOUR_S = 3600
BY_ENERGY, BY_TIME = "software energy", "reserved slots and time"
ALL = "it (all)"

PeriodRow = tuple[int, int, int, int, int | None]  # start, length, mWh, ug, price


@dataclass(slots=True)
class Got:
    """What one piece of work received of one load, or, unplaced, of all."""

    energy_milliwh: int = 0
    ug: int = 0
    software_milliwh: int = 0
    slot_s: int = 0

    def add(self, milliwh: int, ug: int) -> None:
        self.energy_milliwh += milliwh
        self.ug += ug


@dataclass(slots=True)
class Load:
    """One load over a day, and how it was shared."""

    periods: list[PeriodRow] = field(default_factory=list)
    metered_milliwh: int = 0
    metered_ug: int = 0
    basis: str = BY_TIME
    software_milliwh: int = 0
    idle_milliwh: int = 0
    idle_ug: int = 0
    unplaced_milliwh: int = 0
    unplaced_ug: int = 0
    jobs: list[tuple[Work, Got]] = field(default_factory=list)
    hours: dict[int, list[int]] = field(default_factory=dict)  # hour -> mWh, ug, price, of what was idle

    def add(self, period: PeriodRow) -> None:
        self.periods.append(period)
        self.metered_milliwh += period[2]
        self.metered_ug += period[3]

    def idle(self, period: PeriodRow, milliwh: int, ug: int) -> None:
        if not milliwh and not ug:
            return
        row = self.hours.setdefault(period[0] // HOUR_S * HOUR_S, [0, 0, 0])
        row[0] += milliwh
        row[1] += ug
        row[2] += (period[4] or 0) * milliwh // 1_000_000
        self.idle_milliwh += milliwh
        self.idle_ug += ug


@dataclass(slots=True)
class Shared:
    """A day as it was shared."""

    loads: dict[str, Load]
    unplaced: list[tuple[Work, Got]]
    notes: list[str]


class _Running:
    """Works by the periods in which they run."""

    def __init__(self, works: Sequence[Work], periods: Sequence[PeriodRow]) -> None:
        self.works = works
        self.members: list[list[int]] = [[] for _ in periods]
        ends = [start + length for start, length, _, _, _ in periods]
        starts = [row[0] for row in periods]
        for number, work in enumerate(works):
            for at in range(bisect_right(ends, work.start_utc_s), bisect_left(starts, work.end_utc_s)):
                self.members[at].append(number)

    def spans(self, at: int, start: int, end: int) -> list[tuple[int, int]]:
        """When claimed work ran in a period."""
        return [
            (max(start, self.works[i].start_utc_s), min(end, self.works[i].end_utc_s))
            for i in self.members[at]
            if self.works[i].claimed
        ]


def covered_s(spans: Iterable[tuple[int, int]]) -> int:
    """Seconds that at least one of the spans holds."""
    covered, at = 0, -1
    for begin, stop in sorted(spans):
        if stop > at:
            covered += stop - max(at, begin)
            at = stop
    return covered


def merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same moments as few spans."""
    found: list[tuple[int, int]] = []
    for begin, stop in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((begin, stop))
    return found


def shared(loads: Mapping[str, Sequence[PeriodRow]], works: Sequence[Work]) -> Shared:
    """Share the periods of a day's loads among the works that ran. A pure function.

    Raises ArithmeticError if a load's parts are not its whole; that is a fault of this program.
    """
    whole = {name: _load(rows) for name, rows in loads.items()}
    named = {work.node for work in works} & set(whole)
    if len(whole) > 1 and not named:
        whole = {ALL: _load(_together(loads.values()))}
    only = next(iter(whole)) if len(whole) == 1 else None
    placed: dict[str, list[Work]] = {name: [] for name in whole}
    floating: list[Work] = []
    for work in works:
        name = work.node or only
        (placed[name] if name is not None and name in placed else floating).append(work)
    unplaced = _Floating(floating, whole)
    for name, load in whole.items():
        _share_load(load, placed[name], unplaced, len(whole))
    rows = unplaced.rows()
    for name, load in whole.items():
        if not _adds_up(load):
            raise ArithmeticError(f"{name}: jobs, idle and unplaced are not what was metered")
    if sum(got.energy_milliwh for _, got in rows) != sum(load.unplaced_milliwh for load in whole.values()):
        raise ArithmeticError("what cannot be placed does not add up")
    return Shared(whole, rows, _notes(floating, whole))


def _load(rows: Iterable[PeriodRow]) -> Load:
    found = Load()
    for row in rows:
        found.add(row)
    return found


def _together(loads: Iterable[Sequence[PeriodRow]]) -> list[PeriodRow]:
    """Several loads as one, period by period; a load may have come or gone during the day."""
    found: dict[int, PeriodRow] = {}
    for rows in loads:
        for start, length, milliwh, ug, price in rows:
            before = found.get(start, (start, length, 0, 0, price))
            found[start] = (start, length, before[2] + milliwh, before[3] + ug, price)
    return [found[start] for start in sorted(found)]


def _adds_up(load: Load) -> bool:
    milliwh = sum(got.energy_milliwh for _, got in load.jobs) + load.idle_milliwh + load.unplaced_milliwh
    ug = sum(got.ug for _, got in load.jobs) + load.idle_ug + load.unplaced_ug
    return (milliwh, ug) == (load.metered_milliwh, load.metered_ug)


def _weight(work: Work, basis: str, start: int, end: int) -> tuple[int, int, int]:
    """(weight, software's mWh, slot seconds) of a work in a period."""
    software, slot_s = work.measured_between(start, end), work.slot_s_between(start, end)
    return (software if basis == BY_ENERGY else slot_s), software, slot_s


class _Floating:
    """Works that no load is known of: spread evenly over all loads, and shared out among themselves at the end."""

    def __init__(self, works: Sequence[Work], loads: Mapping[str, Load]) -> None:
        self.works = works
        periods = {row[0]: row for load in loads.values() for row in load.periods}
        self.periods = [periods[start] for start in sorted(periods)]
        self.at = {row[0]: at for at, row in enumerate(self.periods)}
        self.running = _Running(works, self.periods)
        self.measured = all(work.measured_milliwh is not None for work in works)
        self._sums: dict[tuple[int, str], tuple[int, int]] = {}
        self._spans: dict[int, list[tuple[int, int]]] = {}
        self._taken: dict[tuple[int, str], list[int]] = {}

    def spans(self, start: int, end: int) -> list[tuple[int, int]]:
        at = self.at[start]
        if at not in self._spans:
            self._spans[at] = merged(self.running.spans(at, start, end))
        return self._spans[at]

    def weights(self, start: int, end: int, basis: str) -> tuple[int, int]:
        """Weights of claimed and of unclaimed works in a period."""
        at = self.at[start]
        if (at, basis) not in self._sums:
            sums = [0, 0]
            for i in self.running.members[at]:
                sums[0 if self.works[i].claimed else 1] += _weight(self.works[i], basis, start, end)[0]
            self._sums[at, basis] = (sums[0], sums[1])
        return self._sums[at, basis]

    def take(self, start: int, basis: str, milliwh: int, ug: int) -> None:
        row = self._taken.setdefault((self.at[start], basis), [0, 0])
        row[0] += milliwh
        row[1] += ug

    def rows(self) -> list[tuple[Work, Got]]:
        """What each of them received, of all loads together."""
        got = [Got() for _ in self.works]
        for at, (start, length, _, _, _) in enumerate(self.periods):
            for i in self.running.members[at]:
                _, software, slot_s = _weight(self.works[i], BY_TIME, start, start + length)
                got[i].software_milliwh += software
                got[i].slot_s += slot_s
        for (at, basis), (milliwh, ug) in self._taken.items():
            start, length, _, _, _ = self.periods[at]
            mine = [i for i in self.running.members[at] if self.works[i].claimed]
            weights = [_weight(self.works[i], basis, start, start + length)[0] for i in mine]
            for i, part, part_ug in zip(mine, share(milliwh, weights), share(ug, weights), strict=True):
                got[i].add(part, part_ug)
        return [(work, row) for work, row in zip(self.works, got, strict=True) if work.claimed]


def _share_load(load: Load, works: Sequence[Work], floating: _Floating, loads: int) -> None:
    """Fill a load's sums and the rows of its works."""
    measured = floating.measured and all(work.measured_milliwh is not None for work in works)
    load.basis = BY_ENERGY if (works or floating.works) and measured else BY_TIME
    running = _Running(works, load.periods)
    got = [Got() for _ in works]
    busy = [
        covered_s([*running.spans(at, start, start + length), *floating.spans(start, start + length)])
        for at, (start, length, _, _, _) in enumerate(load.periods)
    ]
    still = [(row[1], row[2]) for row, seconds in zip(load.periods, busy, strict=True) if seconds == 0]
    still_s, still_milliwh = sum(row[0] for row in still), sum(row[1] for row in still)
    for at, (period, busy_s) in enumerate(zip(load.periods, busy, strict=True)):
        start, length, milliwh, ug, _ = period
        end = start + length
        idle_milliwh = milliwh * (length - busy_s) // length
        if still_s and busy_s:
            # Known from whole periods without work; a node draws less at rest than the mean of a mixed period.
            idle_milliwh = min(idle_milliwh, still_milliwh * (length - busy_s) // still_s)
        members = running.members[at]
        weights = []
        for i in members:
            weight, software, slot_s = _weight(works[i], load.basis, start, end)
            got[i].software_milliwh += software
            got[i].slot_s += slot_s
            load.software_milliwh += software
            weights.append(weight * loads)
        weights += floating.weights(start, end, load.basis)
        if not sum(weights):
            idle_milliwh = milliwh
        idle_ug = share(ug, [idle_milliwh, milliwh - idle_milliwh])[0] if milliwh else ug
        if sum(weights):
            parts, parts_ug = share(milliwh - idle_milliwh, weights), share(ug - idle_ug, weights)
            *parts, spread, unclaimed = parts
            *parts_ug, spread_ug, unclaimed_ug = parts_ug
            for i, part, part_ug in zip(members, parts, parts_ug, strict=True):
                if works[i].claimed:
                    got[i].add(part, part_ug)
                else:
                    unclaimed, unclaimed_ug = unclaimed + part, unclaimed_ug + part_ug
            if spread or spread_ug:
                load.unplaced_milliwh += spread
                load.unplaced_ug += spread_ug
                floating.take(start, load.basis, spread, spread_ug)
            idle_milliwh, idle_ug = idle_milliwh + unclaimed, idle_ug + unclaimed_ug
        load.idle(period, idle_milliwh, idle_ug)
    load.jobs = [(work, row) for work, row in zip(works, got, strict=True) if work.claimed]


def _notes(floating: Sequence[Work], loads: Mapping[str, Load]) -> list[str]:
    """What cannot be placed, by its reason, with the remedy."""
    by_node: dict[str, list[Work]] = {}
    for work in floating:
        by_node.setdefault(work.node, []).append(work)
    found = []
    for node, works in sorted(by_node.items()):
        first = f"{len(works)} job(s), the first {works[0].id[:60]} at {works[0].where}"
        if node:
            why = f"node {node}: no such load (known: {', '.join(loads)}); {first}, are under unplaced"
        else:
            why = f"{first}, name no load while others do, and are under unplaced; map their hosts to loads"
        found.append(why)
    return found
