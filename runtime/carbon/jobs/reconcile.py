"""A day that is settled anew beside what was settled before: both agree, or the difference is named.

A day is settled by what telemetry saw, or by the jobs that were pushed; when the scheduler's own log is read later, it
is settled again. The metered energy is the same; who got it may not be.
"""

from collections import Counter
from collections.abc import Iterable

from tidegate.runtime.carbon.ledger.bodies import SettlementBody

NAMED = 10  # jobs whose difference is written out
ALIKE_PPM = 10_000  # of the metered energy; parts that differ by less agree


def reconciled(before: SettlementBody, now: SettlementBody) -> list[str]:
    """Sentences on what differs. A pure function of two settlements of one day."""
    old, new = _sources(before), _sources(now)
    found: list[str] = []
    for node in sorted({*before["nodes"], *now["nodes"]}):
        was, made = before["nodes"].get(node), now["nodes"].get(node)
        if was is None or made is None:
            found.append(f"{node}: settled in {old if made is None else new} only")
            continue
        of = max(1, made["metered_milliwh"])
        for part in ("idle_milliwh", "unplaced_milliwh"):
            first, second = was.get(part, 0), made.get(part, 0)
            assert isinstance(first, int) and isinstance(second, int)
            if abs(first - second) * 1_000_000 > ALIKE_PPM * of:
                what = part.removesuffix("_milliwh")
                found.append(f"{node}: {what} {_kwh(second)} by {new}, {_kwh(first)} by {old}")
        if made["metered_milliwh"] != was["metered_milliwh"]:
            metered = f"{_kwh(made['metered_milliwh'])}, before {_kwh(was['metered_milliwh'])}"
            found.append(f"{node}: metered {metered}: it was corrected")
    found += _jobs(before, now, old, new)
    return found or [f"{new} agrees with {old}"]


def _jobs(before: SettlementBody, now: SettlementBody, old: str, new: str) -> Iterable[str]:
    was, made = _by_job(before), _by_job(now)
    whole = max(1, sum(node["metered_milliwh"] for node in now["nodes"].values()))
    gone, come = sorted(set(was) - set(made)), sorted(set(made) - set(was))
    for names, sums, where, missing in ((gone, was, old, new), (come, made, new, old)):
        if names:
            kwh = _kwh(sum(sums[name] for name in names))
            yield f"{len(names)} jobs with {kwh} are in {where} and not in {missing}: {_named(names)}"
    moved = [name for name in set(was) & set(made) if abs(was[name] - made[name]) * 1_000_000 > ALIKE_PPM * whole]
    for name in sorted(moved, key=lambda name: (-abs(was[name] - made[name]), name))[:NAMED]:
        yield f"job {name[:60]}: {_kwh(made[name])} by {new}, {_kwh(was[name])} by {old}"
    if len(moved) > NAMED:
        yield f"{len(moved) - NAMED} more jobs differ"


def _by_job(body: SettlementBody) -> Counter[str]:
    sums: Counter[str] = Counter()
    for row in (*body["jobs"], *body.get("unplaced", ())):
        sums[row[0]] += row[5]
    return sums


def _named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(name[:60] for name in names[:NAMED]) + more


def _sources(body: SettlementBody) -> str:
    return ", ".join(row["name"] for row in body["sources"][:3]) or "the account"


def _kwh(milliwh: int) -> str:
    return f"{milliwh / 1e6:.3f} kWh"
