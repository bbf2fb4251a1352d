"""The share of each job in what the meters counted, day by day, as entries of the ledger.

For each period and node the metered energy and its carbon are the whole. What was drawn while no job ran is idle; the
rest goes to the jobs, in proportion to the energy that software counted, or, unless every job of the day has one, to
the reserved slots and time. Everything is whole numbers: jobs and idle add up to the meter.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tidegate.runtime.carbon.integers import share
from tidegate.runtime.carbon.jobs.work import Work
from tidegate.runtime.carbon.ledger.bodies import (
    BODY_VERSION,
    IdleRow,
    JobRow,
    NodeRow,
    PeriodBody,
    SettlementBody,
    SourceRow,
)
from tidegate.runtime.carbon.ledger.ledger import Ledger

DAY_S = 86_400
HOUR_S = 3600
BY_ENERGY, BY_TIME = "software energy", "reserved slots and time"
ASIDE_MAX = 1000
ASIDE_INLINE = 8  # more stand in one entry of their own, not in that of every day
DAYS_AT_ONCE = 16  # in one transaction; a year of a busy site is tens of megabytes


@dataclass(slots=True)
class _Node:
    """One load over a day."""

    periods: list[tuple[int, int, int, int, int | None]] = field(default_factory=list)  # start, length, mWh, ug, price
    metered_milliwh: int = 0
    software_milliwh: int = 0
    idle_milliwh: int = 0
    idle_ug: int = 0


def settle(ledger: Ledger, works: Sequence[Work], aside: Sequence[str], start_utc_s: int, end_utc_s: int,
           sources: Iterable[SourceRow] = (), state: Mapping[str, str] | None = None) -> int:  # fmt: skip
    """Append a settlement for each UTC day of [start, end) that has periods and is over. -> days settled.

    A day that was settled before is settled anew by a newer entry. aside : what the readers could not use.
    state : is put with the last of them.
    """
    methods = list(ledger.entries("method"))
    kinds: Mapping[str, str] = methods[-1].body["kinds"] if methods else {}
    loads = sorted(name for name, role in kinds.items() if role == "it")
    rows: list[tuple[str, int, Mapping[str, object]]] = []
    done, aside_entry = 0, None
    if len(aside) > ASIDE_INLINE:
        body = {"about": "jobs", "set_aside": list(aside)[:ASIDE_MAX], "set_aside_count": len(aside)}
        aside_entry = ledger.append([("note", start_utc_s, body)])[0][0]
    by_start = sorted(works, key=lambda work: work.start_utc_s)
    starts = [work.start_utc_s for work in by_start]
    longest_s = max((work.end_utc_s - work.start_utc_s for work in works), default=0)
    for day in range(start_utc_s // DAY_S * DAY_S, end_utc_s, DAY_S):
        bodies = [entry.body for entry in ledger.in_force("period", day, day + DAY_S)]
        if bodies and _over(ledger, bodies[-1], day + DAY_S):
            near = by_start[bisect_left(starts, day - longest_s) : bisect_left(starts, day + DAY_S)]
            mine = [work for work in near if work.end_utc_s > day]
            made = settled(bodies, mine, () if aside_entry is not None else aside, loads, list(sources))
            if aside_entry is not None:
                made["aside_entry"] = aside_entry
            rows.append(("job", day, made))
        if len(rows) == DAYS_AT_ONCE:
            ledger.append(rows)
            rows, done = [], done + len(rows)
    ledger.append(rows, state)
    return done + len(rows)


def _over(ledger: Ledger, last: PeriodBody, end_utc_s: int) -> bool:
    """Whether nothing more can be booked into a day: its last period ends with it, or a later one is booked."""
    if last["start_utc_s"] + last["length_s"] >= end_utc_s:
        return True
    return next(iter(ledger.in_force("period", end_utc_s)), None) is not None


def settled(bodies: Sequence[PeriodBody], works: Sequence[Work], aside: Sequence[str], loads: Sequence[str],
            sources: Sequence[SourceRow] = ()) -> SettlementBody:  # fmt: skip
    """The body of a settlement of these periods. A pure function."""
    nodes = {name: _Node() for name in loads}
    for body in bodies:
        for out in body["outflows"]:
            if out["name"] in nodes:
                nodes[out["name"]].periods.append(
                    (
                        body["start_utc_s"],
                        body["length_s"],
                        out["energy_milliwh"],
                        out["ug"],
                        body.get("price_u_per_kwh"),
                    )
                )
                nodes[out["name"]].metered_milliwh += out["energy_milliwh"]
    if len(loads) > 1:
        nodes = _together(nodes, {work.node for work in works})
    day = bodies[0]["start_utc_s"] // DAY_S * DAY_S
    strangers = sorted({work.node for work in works} - set(nodes) - {""})
    strange = [f"node {name}: no such load; its jobs are not counted" for name in strangers]
    jobs: list[JobRow] = []
    idle: list[IdleRow] = []
    shares: dict[str, NodeRow] = {}
    for name, node in sorted(nodes.items()):
        mine = [w for w in works if (w.node or _whole_name(nodes)) == name]
        basis = BY_ENERGY if mine and all(w.measured_milliwh is not None for w in mine) else BY_TIME
        got, hours = _share_node(node, mine, basis)
        jobs += [(w.id, w.owner, name, max(w.start_utc_s, day), min(w.end_utc_s, day + DAY_S), milliwh, ug,
                  software if basis == BY_ENERGY else None, slot_s, units)
                 for w, milliwh, ug, software, slot_s, units in got]  # fmt: skip
        idle += [(hour, name, *row) for hour, row in sorted(hours.items())]
        counted = node.software_milliwh if basis == BY_ENERGY else None
        shares[name] = {"metered_milliwh": node.metered_milliwh, "basis": basis, "software_milliwh": counted,
                      "idle_milliwh": node.idle_milliwh, "idle_ug": node.idle_ug}  # fmt: skip
    return {
        "v": BODY_VERSION, "start_utc_s": day, "nodes": shares, "jobs": jobs, "idle": idle,
        "set_aside": [*strange, *aside][:ASIDE_MAX], "set_aside_count": len(strange) + len(aside),
        "sources": list(sources),
    }  # fmt: skip


ALL = "it (all)"


def _whole_name(nodes: Mapping[str, _Node]) -> str:
    return next(iter(nodes)) if len(nodes) == 1 else ALL


def _together(nodes: dict[str, _Node], named: set[str]) -> dict[str, _Node]:
    """Loads that some job names stay by themselves; the others are one, for the jobs that name none."""
    rest = [node for name, node in nodes.items() if name not in named]
    found = {name: node for name, node in nodes.items() if name in named}
    if rest:
        whole = _Node(metered_milliwh=sum(node.metered_milliwh for node in rest))
        for rows in zip(*(node.periods for node in rest), strict=True):
            start, length, _, _, price = rows[0]
            whole.periods.append((start, length, sum(r[2] for r in rows), sum(r[3] for r in rows), price))
        found[ALL] = whole
    return found


def _share_node(node: _Node, works: Sequence[Work], basis: str) -> tuple[list[Any], dict[int, tuple[int, int, int]]]:
    """Fill the node's sums. -> (work, mWh, ug, software mWh, slot seconds, units) rows, idle by hour."""
    got = [[0, 0, 0, 0] for _ in works]
    hours: dict[int, list[int]] = {}
    by_period: list[list[int]] = [[] for _ in node.periods]
    busy: list[int] = []
    for at, (start, length, _, _, _) in enumerate(node.periods):
        end = start + length
        by_period[at] = [i for i, w in enumerate(works) if w.start_utc_s < end and w.end_utc_s > start]
        busy.append(_covered(works, by_period[at], start, end))
    still = [(length, milliwh) for (_, length, milliwh, _, _), s in zip(node.periods, busy, strict=True) if s == 0]
    still_s, still_milliwh = sum(row[0] for row in still), sum(row[1] for row in still)
    for (start, length, milliwh, ug, price), members, busy_s in zip(node.periods, by_period, busy, strict=True):
        end = start + length
        idle_s = length - busy_s
        idle_milliwh = milliwh * idle_s // length
        if still_s and busy_s:
            # Known from whole periods without work; a node draws less at rest than the mean of a mixed period.
            idle_milliwh = min(idle_milliwh, still_milliwh * idle_s // still_s)
        weights = []
        for i in members:
            work = works[i]
            software = work.measured_until(end) - work.measured_until(start)
            slot_s = work.slots * (min(end, work.end_utc_s) - max(start, work.start_utc_s))
            got[i][2] += software
            got[i][3] += slot_s
            weights.append(software if basis == BY_ENERGY else slot_s)
            node.software_milliwh += software
        if not sum(weights):
            idle_milliwh = milliwh
        idle_ug = share(ug, [idle_milliwh, milliwh - idle_milliwh])[0] if milliwh else ug
        if sum(weights):
            for i, part, part_ug in zip(members, share(milliwh - idle_milliwh, weights), share(ug - idle_ug, weights),
                                        strict=True):  # fmt: skip
                got[i][0] += part
                got[i][1] += part_ug
        if idle_milliwh or idle_ug:
            row = hours.setdefault(start // HOUR_S * HOUR_S, [0, 0, 0])
            row[0] += idle_milliwh
            row[1] += idle_ug
            row[2] += (price or 0) * idle_milliwh // 1_000_000
            node.idle_milliwh += idle_milliwh
            node.idle_ug += idle_ug
    rows = []
    first = node.periods[0][0] if node.periods else 0
    last = node.periods[-1][0] + node.periods[-1][1] if node.periods else 0
    for work, (milliwh, ug, software, slot_s) in zip(works, got, strict=True):
        units = {name: work.units_until(name, last) - work.units_until(name, first) for name in sorted(work.units)}
        rows.append((work, milliwh, ug, software, slot_s, units))
    return rows, {hour: (row[0], row[1], row[2]) for hour, row in hours.items()}


def _covered(works: Sequence[Work], members: Sequence[int], start: int, end: int) -> int:
    """Seconds of [start, end) in which at least one of the jobs ran."""
    covered, at = 0, start
    for begin, stop in sorted((max(start, works[i].start_utc_s), min(end, works[i].end_utc_s)) for i in members):
        if stop > at:
            covered += stop - max(at, begin)
            at = stop
    return covered
