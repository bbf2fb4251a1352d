"""A piece of work: what ran where, for how long, and what software says of its energy.

Software energy is never booked. It only says how the metered energy of a node is shared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from tidegate.runtime.carbon.factors.series import iso
from tidegate.runtime.carbon.integers import to_whole
from tidegate.runtime.carbon.tables import fields_of, number_of, refusing

BUCKET_S = 300  # resolution of a measured energy; divides every period
EARLIEST_UTC_S = 1_577_836_800  # 2020-01-01: a job before was stamped by a clock at 1970
LATEST_UTC_S = 4_102_444_800  # 2100-01-01
LONGEST_S = 366 * 86_400
TEXT_MAX = 200
AMOUNT_MAX = 10**15  # of a unit of work, of a job; more is no count
JOULES_MAX = 10**15
SLOTS_MAX = 10**9


class JobError(ValueError):
    """A job log that cannot be used; the text names file, line and remedy."""


@dataclass(frozen=True, slots=True)
class Work:
    """One job on one load; a job on several is one such piece for each, with its share of slots, energy and units.

    node : load of the account that it ran on, "" = not said: all of the IT load where no job of the day names one.
    slots : GPUs (or what else is reserved) held all the time; at least 1.
    measured_milliwh : energy that software counted, or None; `shape` gives it by 300 s where it is known.
    units : what it made, in thousandths: {"job": 1000, "token": 12_500_000}.
    where : file and line, for whoever asks.
    paused_s : how long it was suspended; when is not known, so its slots count less over its whole time.
    claimed : whether somebody works there; what is measured of an unclaimed card is idle.
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
    paused_s: int = 0
    claimed: bool = True

    def measured_between(self, start_utc_s: int, end_utc_s: int) -> int:
        """Software energy of [start, end), mWh; both on a multiple of BUCKET_S. Parts of it add up to the whole."""
        if self.shape is not None:
            return sum(self.shape.get(at, 0) for at in range(start_utc_s, end_utc_s, BUCKET_S))
        return self._measured_until(end_utc_s) - self._measured_until(start_utc_s)

    def _measured_until(self, utc_s: int) -> int:
        at = min(max(utc_s, self.start_utc_s), self.end_utc_s)
        return _part(self.measured_milliwh or 0, at - self.start_utc_s, self.end_utc_s - self.start_utc_s)

    def slot_s_between(self, start_utc_s: int, end_utc_s: int) -> int:
        """Slots times the seconds of [start, end) that it ran, less its share of the time that it was suspended."""
        held_s = self.slots * max(0, min(end_utc_s, self.end_utc_s) - max(start_utc_s, self.start_utc_s))
        whole_s = self.end_utc_s - self.start_utc_s
        return held_s * (whole_s - self.paused_s) // whole_s if self.paused_s else held_s

    def units_until(self, name: str, utc_s: int) -> int:
        at = min(max(utc_s, self.start_utc_s), self.end_utc_s)
        return _part(self.units[name], at - self.start_utc_s, self.end_utc_s - self.start_utc_s)


def _part(whole: int, part: int, of: int) -> int:
    return whole * part // of if of else 0


def problem_of(work: Work) -> str | None:
    """Why a job cannot be counted, or None."""
    for name, at in (("starts", work.start_utc_s), ("ends", work.end_utc_s)):
        if at > LATEST_UTC_S:
            return f"{name} at {at:.6g} s, after the year 2100; give seconds since 1970, not milliseconds"
    if work.end_utc_s < work.start_utc_s:
        return f"ends {work.start_utc_s - work.end_utc_s} s before it starts"
    if work.end_utc_s == work.start_utc_s:
        return "lasts 0 s"
    if work.start_utc_s < 0:
        return f"starts at {work.start_utc_s:.6g} s, before 1970"
    if work.start_utc_s < EARLIEST_UTC_S:
        return f"starts at {iso(work.start_utc_s)}: the clock was not set"
    if work.end_utc_s - work.start_utc_s > LONGEST_S:
        return f"lasts {(work.end_utc_s - work.start_utc_s) // 86_400} days"
    if not 0 <= work.paused_s <= work.end_utc_s - work.start_utc_s:
        return f"was suspended {work.paused_s} s of its {work.end_utc_s - work.start_utc_s} s"
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


@refusing(JobError)
def from_record(row: object, where: str) -> Work:
    """A job as it is pushed over the gateway or stands in a JSON file. Raises JobError."""
    fields = fields_of(row, where, JobError)
    known = {"job", "start_utc_s", "end_utc_s", "owner", "node", "slots", "energy_j", "units"}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise JobError(f"{where}: unknown field {unknown[0]!r}; known: {', '.join(sorted(known))}")
    for name in ("job", "start_utc_s", "end_utc_s"):
        if fields.get(name) is None:
            raise JobError(f"{where}: {name} is missing")
    energy = fields.get("energy_j")
    units = fields_of(fields.get("units") or {}, f"{where}, units", JobError)
    start, end, slots = (
        to_whole(_bounded(fields.get(name) or default, f"{where}, {name}", most), 1)
        for name, default, most in (("start_utc_s", 0, 10**18), ("end_utc_s", 0, 10**18), ("slots", 1, SLOTS_MAX))
    )
    return Work(
        str(fields["job"])[:TEXT_MAX],
        start,
        end,
        str(fields.get("owner") or "")[:TEXT_MAX],
        str(fields.get("node") or ""),
        slots,
        None if energy is None else joules_milliwh(energy, f"{where}, energy_j"),
        None,
        {str(name): to_whole(_bounded(amount, f"{where}, units, {name}", AMOUNT_MAX), 1000)
         for name, amount in units.items()},
        where,
    )  # fmt: skip


def _bounded(value: object, where: str, most: int) -> Decimal:
    number = number_of(str(value), where, JobError)
    if abs(number) > most:
        raise JobError(f"{where}: {number:.6g} is above {most:.0e}; check its unit")
    return number


def joules_milliwh(joules: object, where: str = "energy") -> int:
    """mWh of an energy in joules. Raises JobError for what is no number or more than any job drew."""
    return to_whole(_bounded(joules, where, JOULES_MAX), 1000) // 3600
