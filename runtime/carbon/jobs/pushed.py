"""Jobs that integrators pushed over the gateway: from its journal into the ledger, then shared out day by day.

A push is an entry of kind "work" for each day that its jobs began on, written together with the cursor. A UTC day is
settled an hour after it is over, and again when a job of it comes later; days without a job count once there has been
a first one. Where telemetry sees pods, their days are settled by what it saw, on each load that no pushed job names.
"""

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, Protocol, TypedDict

from tidegate.runtime.carbon.factors.series import iso
from tidegate.runtime.carbon.jobs.settle import DAY_S, settle
from tidegate.runtime.carbon.jobs.work import BUCKET_S, LONGEST_S, JobError, Work, from_record, problem_of, sort_out
from tidegate.runtime.carbon.ledger.bodies import SourceRow
from tidegate.runtime.carbon.ledger.ledger import Ledger

ASK = 256


Record = Mapping[str, Any]  # of the journal's stream of jobs


class Statement(TypedDict):
    """What somebody said of a meter or of the key, with who and when. closing, opening : decimal texts in `unit`."""

    author: str
    said_utc_s: int
    what: str
    meter: str
    quantity: str
    unit: str
    at_utc_s: int
    closing: str
    opening: str
    reason: str


class Jobs(Protocol):
    """Who gives what the journal keeps of jobs: the gateway's client."""

    def replay(self, stream: str, boot: str | None, seq: int, count: int) -> tuple[list[Any], bool]:
        """(records behind seq of a boot, whether that was all)."""


class Seen(Protocol):
    """Who gives what telemetry saw."""

    def first_day(self) -> int | None:
        """The first day of which anything is kept."""

    def claims_between(self, start_utc_s: int, end_utc_s: int) -> list[Work] | None:
        """Pods and jobs of a day, with their energy by 5 minutes; None while it cannot be read."""


LATE_S = 3600  # how long a day waits for jobs that are pushed after its end, and how often it is settled again


class Pushed:
    """Takes pushed jobs in and settles days. One beside each sidecar, on the same ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        stored = ledger.state("jobs")
        known = json.loads(stored) if stored is not None else {}
        self.boot: str | None = known.get("boot")
        self.seq: int = known.get("seq", -1)
        self._next_day: int | None = known.get("next_day")  # first day not settled yet; None before the first job
        self._touched: set[int] = set(known.get("touched", ()))
        self._settled_at: int = known.get("settled_at", 0)
        # How long a job lasted at most: so far back a day's jobs are looked for. Ledgers of before do not say it.
        self._longest_s: int = known.get("longest_s", LONGEST_S if known else 0)
        self.statements: list[Statement] = known.get("statements", [])  # said of meters and key, not entered yet

    def _state(self) -> dict[str, str]:
        state = {"boot": self.boot, "seq": self.seq, "next_day": self._next_day, "touched": sorted(self._touched),
                "settled_at": self._settled_at, "statements": self.statements,
                "longest_s": self._longest_s}  # fmt: skip
        return {"jobs": json.dumps(state, sort_keys=True)}

    def pull(self, client: Jobs) -> int:
        """Take in what was pushed since the last one. -> jobs. client : has replay(stream, boot, seq, count)."""
        taken = 0
        for records in self.records(client):
            taken += self._take(records)
        return taken

    def records(self, client: Jobs) -> Iterator[list[Record]]:
        """What the journal holds behind what was taken in; nothing is taken in by that."""
        boot, seq, end = self.boot, self.seq, False
        while not end:
            try:
                records, end = client.replay("job", boot, seq, ASK)
            except Exception as error:
                if getattr(error, "code", "") != "gone":
                    raise
                records, end = client.replay("job", None, -1, ASK)
                records = [r for r in records if r["boot"] != boot or r["seq"] > seq]
            if not records:
                break
            boot, seq = records[-1]["boot"], records[-1]["seq"]
            yield records

    def _take(self, records: list[Record]) -> int:
        rows: list[tuple[str, int, Mapping[str, object]]] = []
        taken = 0
        for record in records:
            works, aside = _usable(record)
            taken += len(works)
            if aside:
                body = {"v": 1, "what": "pushed jobs that are not counted", "set_aside": aside,
                        "set_aside_count": len(aside)}  # fmt: skip
                rows.append(("note", 0, body))
            for work in works:
                first, last = work.start_utc_s // DAY_S * DAY_S, (work.end_utc_s - 1) // DAY_S * DAY_S
                self._longest_s = max(self._longest_s, work.end_utc_s - work.start_utc_s)
                self._touched.update(range(first, last + DAY_S, DAY_S))
                if self._next_day is None:
                    self._next_day = first
            for day in sorted({work.start_utc_s // DAY_S * DAY_S for work in works}):
                body = {"v": 1, "boot": record["boot"], "seq": record["seq"], "peer": record["peer"],
                        "jobs": [_row(work) for work in works if work.start_utc_s // DAY_S * DAY_S == day]}  # fmt: skip
                rows.append(("work", day, body))
            if "account" in record:
                self.statements.append(statement_of(record))
            self.boot, self.seq = record["boot"], record["seq"]
        self.ledger.append(rows, self._state())
        return taken

    def entered(self, statement: Statement) -> None:
        """A statement is done with: it stands in the ledger, or a note says why it cannot."""
        self.statements = [one for one in self.statements if one is not statement]
        self.ledger.append([], self._state())

    def _loads(self) -> set[str]:
        """The IT loads of the account."""
        methods = list(self.ledger.entries("method"))
        kinds: Mapping[str, str] = methods[-1].body.get("kinds", {}) if methods else {}
        return {name for name, role in kinds.items() if role == "it"}

    def settle(self, closed_until_utc_s: int, seen: Seen | None = None) -> int:
        """Settle the days that are due. closed_until_utc_s : every period before it is in the ledger. -> days.

        seen : what telemetry saw; it counts on loads for which nobody pushed a job.
        """
        if seen is not None and self._next_day is None:
            self._next_day = seen.first_day()
        if self._next_day is None or closed_until_utc_s < self._settled_at + LATE_S:
            return 0
        until = (closed_until_utc_s - LATE_S) // DAY_S * DAY_S
        due = {day for day in self._touched if day < until} | set(range(self._next_day, until, DAY_S))
        if not due:
            return 0
        done = 0
        self._settled_at = closed_until_utc_s
        for day in sorted(due):
            works, aside = works_of(self.ledger, day, day + DAY_S, self._longest_s)
            claims = [] if seen is None else seen.claims_between(day, day + DAY_S)
            if claims is None:
                break  # tried again; the day would be booked as idle without it
            self._touched.discard(day)
            self._next_day = max(self._next_day, day + DAY_S)
            sources = [SOURCE] if works or seen is None else []
            if seen is not None:
                blind = unseen(claims, day, self._loads() - {work.node for work in works})
                works, more = joined(works, claims)
                aside = [*aside, *more, *blind]
                sources.append(SEEN)
            done += settle(self.ledger, works, aside, day, day + DAY_S, sources, self._state())
        return done


SOURCE: SourceRow = {"name": "pushed over the gateway", "sha256": ""}
SEEN: SourceRow = {"name": "telemetry", "sha256": ""}


def joined(works: Sequence[Work], claims: Sequence[Work]) -> tuple[list[Work], list[str]]:
    """(pushed jobs, and what telemetry saw on the loads that none of them names; what is left out, named)."""
    named = {work.node for work in works}
    taken = [work for work in claims if not named or ("" not in named and work.node and work.node not in named)]
    left = [work for work in claims if work not in taken]
    if not left:
        return [*works, *taken], []
    kwh = sum(work.measured_milliwh or 0 for work in left) / 1e6
    loads = ", ".join(sorted({work.node or "all loads" for work in left}))
    why = f"telemetry: {len(left)} pods and jobs with {kwh:.3f} kWh on {loads}; the jobs that were pushed for it count"
    return [*works, *taken], [why]


def unseen(claims: Sequence[Work], day: int, loads: Set[str]) -> list[str]:
    """For how much of a day telemetry saw nothing on each load, or on all as one; that energy counts as idle."""
    seen: dict[str, set[int]] = {}
    for work in claims:
        seen.setdefault(work.node, set()).update(work.shape or ())
    if "" not in seen:
        seen = {node: seen.get(node, set()) for node in loads}
    parts = DAY_S // BUCKET_S
    return [
        f"telemetry: {node or 'all loads'}: nothing was seen for {(parts - len(known)) * BUCKET_S / 3600:.2f} h of the "
        f"day from {iso(day)}; what was drawn then is under idle"
        for node, known in sorted(seen.items())
        if len(known) < parts
    ]


def _usable(record: Record) -> tuple[list[Work], list[str]]:
    """(jobs of a push, what cannot be used). The gateway has looked at them; a journal of before may hold others."""
    works: list[Work] = []
    aside: list[str] = []
    for row in record["jobs"]:
        try:
            work = from_record(row, f"pushed by {record['peer']}")
        except JobError as error:
            aside.append(str(error))
            continue
        problem = problem_of(work)
        if problem is None:
            works.append(work)
        else:
            aside.append(f"{work.where}: job {work.id[:60]} {problem}; it is not counted")
    return works, aside


def statement_of(record: Record) -> Statement:
    """What a record of the journal holds of a meter or the key."""
    found: Statement = record["account"]
    return {**found, "author": record["peer"], "said_utc_s": record["utc_ns"] // 10**9}


def _row(work: Work) -> list[object]:
    return [work.id, work.start_utc_s, work.end_utc_s, work.owner, work.node, work.slots, work.measured_milliwh,
            dict(work.units)]  # fmt: skip


def works_of(
    ledger: Ledger, start_utc_s: int, end_utc_s: int, longest_s: int = LONGEST_S
) -> tuple[list[Work], list[str]]:
    """(pushed jobs that ran in [start, end), what is set aside). The newest record of a job, node and start counts.

    longest_s : no job lasted longer.
    """
    newest: dict[tuple[str, str, int], Work] = {}
    for work in _all(ledger, start_utc_s - longest_s - DAY_S, end_utc_s):
        newest[work.id, work.node, work.start_utc_s] = work
    return sort_out([work for work in newest.values() if work.end_utc_s > start_utc_s])


def _all(ledger: Ledger, first_utc_s: int, end_utc_s: int) -> Iterator[Work]:
    for entry in ledger.entries("work", first_utc_s, end_utc_s):
        where = f"entry {entry.seq}, pushed by {entry.body['peer']}"
        for job, start, end, owner, node, slots, milliwh, units in entry.body["jobs"]:
            if start < end_utc_s:
                yield Work(job, start, end, owner, node, slots, milliwh, None, units, where)
