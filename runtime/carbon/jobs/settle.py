"""The share of each job in what the meters counted, day by day, as entries of the ledger; `sharing` says how."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

from tidegate.runtime.carbon.jobs.reconcile import reconciled
from tidegate.runtime.carbon.jobs.sharing import ALL, BY_ENERGY, BY_TIME, Got, PeriodRow, shared
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

__all__ = ["ALL", "BY_ENERGY", "BY_TIME", "DAY_S", "settle", "settled"]

DAY_S = 86_400
ASIDE_MAX = 1000
ASIDE_INLINE = 8  # more stand in one entry of their own, not in that of every day
DAYS_AT_ONCE = 16  # in one transaction; a year of a busy site is tens of megabytes


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
            before = next((entry.body for entry in ledger.in_force("job", day, day + DAY_S)), None)
            if before is not None and before["sources"] != made["sources"]:
                made["reconciled"] = reconciled(before, made)
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
    rows: dict[str, list[PeriodRow]] = {name: [] for name in loads}
    for body in bodies:
        for out in body["outflows"]:
            if out["name"] in rows:
                price = body.get("price_u_per_kwh")
                period = (body["start_utc_s"], body["length_s"], out["energy_milliwh"], out["ug"], price)
                rows[out["name"]].append(period)
    day = bodies[0]["start_utc_s"] // DAY_S * DAY_S
    found = shared(rows, works)
    last = max((body["start_utc_s"] + body["length_s"] for body in bodies), default=day)
    jobs: list[JobRow] = []
    idle: list[IdleRow] = []
    nodes: dict[str, NodeRow] = {}
    for name, load in sorted(found.loads.items()):
        by_energy = load.basis == BY_ENERGY
        jobs += [_job(work, got, name, day, last, by_energy) for work, got in load.jobs]
        idle += [(hour, name, row[0], row[1], row[2]) for hour, row in sorted(load.hours.items())]
        nodes[name] = {
            "metered_milliwh": load.metered_milliwh, "metered_ug": load.metered_ug, "basis": load.basis,
            "software_milliwh": load.software_milliwh if by_energy else None,
            "idle_milliwh": load.idle_milliwh, "idle_ug": load.idle_ug,
            "unplaced_milliwh": load.unplaced_milliwh, "unplaced_ug": load.unplaced_ug,
        }  # fmt: skip
    aside = [*found.notes, *aside]
    return {
        "v": BODY_VERSION, "start_utc_s": day, "nodes": nodes, "jobs": jobs, "idle": idle,
        "unplaced": [_job(work, got, work.node, day, last, False) for work, got in found.unplaced],
        "set_aside": aside[:ASIDE_MAX], "set_aside_count": len(aside), "sources": list(sources),
    }  # fmt: skip


def _job(work: Work, got: Got, node: str, day: int, last: int, by_energy: bool) -> JobRow:
    """A row of the settlement; its amounts of work are those of the booked part of the day."""
    units = {name: work.units_until(name, last) - work.units_until(name, day) for name in sorted(work.units)}
    return (work.id, work.owner, node, max(work.start_utc_s, day), min(work.end_utc_s, day + DAY_S),
            got.energy_milliwh, got.ug, got.software_milliwh if by_energy else None, got.slot_s, units)  # fmt: skip
