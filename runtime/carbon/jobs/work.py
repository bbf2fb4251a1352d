"""A piece of work: what ran where, for how long, and what software says of its energy.

Software energy is never booked. It only says how the metered energy of a node is shared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tidegate.runtime.carbon.factors.series import iso
from tidegate.runtime.carbon.integers import to_whole

BUCKET_S = 300  # resolution of a measured energy; divides every period
EARLIEST_UTC_S = 1_577_836_800  # 2020-01-01: a job before was stamped by a clock at 1970
LONGEST_S = 366 * 86_400
TEXT_MAX = 200


class JobError(ValueError):
    """A job log that cannot be used; the text names file, line and remedy."""


@dataclass(frozen=True, slots=True)
class Work:
    """One job on one node.

    node : load of the account that it ran on, "" = all of the IT load.
    slots : GPUs (or what else is reserved) held all the time; at least 1.
    measured_milliwh : energy that software counted, or None; `shape` gives it by 300 s where it is known.
    units : what it made, in thousandths: {"job": 1000, "token": 12_500_000}.
    where : file and line, for whoever asks.
    """

    id: str
    start_utc_s: int
    end_utc_s: int
    owner: str = ""
    node: str = ""
    slots: int = 1
    measured_milliwh: int | None = None
    shape: Mapping[int, int] | None = None
    units: Mapping[str, int] = field(default_factory=dict)
    where: str = ""

    def measured_until(self, utc_s: int) -> int:
        """Software energy from the start to a moment, mWh: differences of this add up to the whole."""
        at = min(max(utc_s, self.start_utc_s), self.end_utc_s)
        if self.shape is not None:
            whole = sum(milliwh for start, milliwh in self.shape.items() if start + BUCKET_S <= at)
            open_ = at // BUCKET_S * BUCKET_S
            return whole + self.shape.get(open_, 0) * (at - open_) // BUCKET_S
        return _part(self.measured_milliwh or 0, at - self.start_utc_s, self.end_utc_s - self.start_utc_s)

    def units_until(self, name: str, utc_s: int) -> int:
        at = min(max(utc_s, self.start_utc_s), self.end_utc_s)
        return _part(self.units[name], at - self.start_utc_s, self.end_utc_s - self.start_utc_s)


def _part(whole: int, part: int, of: int) -> int:
    return whole * part // of if of else 0


def problem_of(work: Work) -> str | None:
    """Why a job cannot be counted, or None."""
    if work.end_utc_s < work.start_utc_s:
        return f"ends {work.start_utc_s - work.end_utc_s} s before it starts"
    if work.end_utc_s == work.start_utc_s:
        return "lasts 0 s"
    if work.start_utc_s < EARLIEST_UTC_S:
        return f"starts at {iso(work.start_utc_s)}: the clock was not set"
    if work.end_utc_s - work.start_utc_s > LONGEST_S:
        return f"lasts {(work.end_utc_s - work.start_utc_s) // 86_400} days"
    if work.slots < 1:
        return f"holds {work.slots} slots"
    if work.measured_milliwh is not None and work.measured_milliwh < 0:
        return f"measured energy of {work.measured_milliwh} mWh"
    if any(amount < 0 for amount in work.units.values()):
        return "a negative amount of work"
    return None


def sort_out(works: Sequence[Work]) -> tuple[list[Work], list[str]]:
    """(usable works by start, what was set aside and why). A job that stands twice for one time would count twice."""
    good: list[Work] = []
    aside: list[str] = []
    ends: dict[tuple[str, str], Work] = {}
    for work in sorted(works, key=lambda w: (w.start_utc_s, w.end_utc_s, w.id, w.node)):
        problem = problem_of(work)
        before = ends.get((work.id, work.node))
        if problem is None and before is not None and before.end_utc_s > work.start_utc_s:
            problem = f"overlaps with the same job at {before.where or iso(before.start_utc_s)}"
        if problem is not None:
            aside.append(f"{work.where}: job {work.id[:60]} {problem}; it is not counted")
            continue
        good.append(work)
        ends[(work.id, work.node)] = work
    return good, aside


def from_record(row: Mapping[str, Any], where: str) -> Work:
    """A job as it is pushed over the gateway or stands in a JSON file. Raises JobError."""
    known = {"job", "start_utc_s", "end_utc_s", "owner", "node", "slots", "energy_j", "units"}
    unknown = sorted(set(row) - known)
    if unknown:
        raise JobError(f"{where}: unknown field {unknown[0]!r}; known: {', '.join(sorted(known))}")
    try:
        energy = row.get("energy_j")
        units = row.get("units") or {}
        return Work(
            str(row["job"])[:TEXT_MAX],
            int(row["start_utc_s"]),
            int(row["end_utc_s"]),
            str(row.get("owner") or "")[:TEXT_MAX],
            str(row.get("node") or ""),
            int(row.get("slots") or 1),
            None if energy is None else joules_milliwh(energy),
            None,
            {str(name): to_whole(str(amount), 1000) for name, amount in units.items()},
            where,
        )
    except KeyError as error:
        raise JobError(f"{where}: {error.args[0]} is missing") from None
    except (TypeError, ValueError, ArithmeticError) as error:
        raise JobError(f"{where}: {error}") from None


def joules_milliwh(joules: object) -> int:
    """mWh of an energy in joules."""
    return to_whole(str(joules), 1000) // 3600
