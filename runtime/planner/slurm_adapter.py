"""Jobs of Slurm begin when the plan says: the queue is announced to the planner, its times are given to Slurm.

Nothing is ever held. A job is given a begin time that lies at most `lease_s` ahead, again and again while the plan
says so: when adapter or planner are gone, the last begin time comes, and Slurm starts the job as if nobody had asked.
No begin time lies after the last moment from which the job meets its deadline.
"""

import contextlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.runtime.planner.adapter_audit import AdapterAudit, Note, write_doubts
from tidegate.runtime.planner.announced_jobs import AnnouncedJob, write_jobs
from tidegate.runtime.planner.live_planner import STATUS_FILE
from tidegate.runtime.planner.plan_inputs import PlanError
from tidegate.runtime.planner.slurm_queue import QueuedJob, Scheduler, SlurmError
from tidegate.runtime.state import atomic_file

SLURM_JOBS_FILE = "jobs-slurm.json"
OURS_FILE = "slurm.json"
AUDIT_FILE = "slurm-audit.jsonl"
REQUEUE_EVERY_S = 7200.0


@dataclass(frozen=True)
class Allowed:
    """What the owner lets the adapter do. kw_per_cpu, kw_per_gpu: of a job whose comment gives no power."""

    partitions: tuple[str, ...]
    users: tuple[str, ...] = ()  # () = all of them
    delayed_max: int = 50
    wait_s_max: float = 24 * 3600.0
    requeue: bool = False
    dry_run: bool = False
    kw_per_cpu: float = 0.0
    kw_per_gpu: float = 0.0
    lease_s: float = 300.0
    margin_s: float = 120.0  # before a deadline, for what Slurm needs to start and end a job
    stale_s: float = 2000.0  # a plan this old is nobody's any more: the planner makes one each quarter hour


@dataclass(frozen=True)
class Action:
    """One order to Slurm, with the reason that the audit gets."""

    kind: str  # delay, release, requeue
    job_id: int
    utc_s: int
    why: str


@dataclass
class Ours:
    """What we changed: job -> (begin time that we gave, when we first delayed it); when we requeued it."""

    begin: dict[int, tuple[int, float]] = field(default_factory=dict)
    requeued: dict[int, float] = field(default_factory=dict)


def power_kw(job: QueuedJob, allowed: Allowed) -> float:
    """Of the job while it runs, 0 where nobody says."""
    return job.kw if job.kw is not None else allowed.kw_per_cpu * job.cpus + allowed.kw_per_gpu * job.gpus


def latest_begin(job: QueuedJob, allowed: Allowed) -> float:
    """The last moment from which it meets its deadline."""
    return job.deadline_utc_s - job.limit_s - allowed.margin_s


def may_move(job: QueuedJob, allowed: Allowed) -> str:
    """Why a job is left alone; "" where it may be moved."""
    if job.partition not in allowed.partitions:
        return "its partition is not allowed"
    if allowed.users and job.user not in allowed.users:
        return "its user is not allowed"
    if job.wrong:
        return job.wrong
    if job.held:
        return "it is held by its user or an administrator"
    if not job.deadline_utc_s:
        return "it has no deadline"
    if not job.limit_s:
        return "it has no time limit"
    if power_kw(job, allowed) <= 0:
        return "nobody says what power it takes"
    return ""


def announced(queue: list[QueuedJob], allowed: Allowed, ours: Ours, now: float) -> tuple[AnnouncedJob, ...]:
    """The queue as work that can wait: what waits, and what runs and has checkpoints (that it may be put back)."""
    found = []
    for job in queue:
        waits = job.state == "PENDING"
        if may_move(job, allowed) or not (waits or (job.state == "RUNNING" and job.checkpoints and allowed.requeue)):
            continue
        earliest = int(now)
        if waits and job.job_id not in ours.begin:
            earliest = max(earliest, job.eligible_utc_s)  # its own user's begin time
        left_s = job.limit_s if waits else max(60.0, job.limit_s - (now - job.start_utc_s))
        deadline = job.deadline_utc_s - int(allowed.margin_s)
        if deadline > earliest:
            found.append(AnnouncedJob(f"slurm-{job.job_id}", power_kw(job, allowed), left_s / 3600, earliest, deadline,
                                      not waits, int(now)))  # fmt: skip
    return tuple(found)


def planned_begins(status: dict[str, object], now: float, stale_s: float) -> dict[str, int] | None:
    """Job -> begin of its next run in the plan in force; None where there is no plan, or one that is too old."""
    at, jobs = status.get("planned_utc_s"), status.get("jobs")
    if not isinstance(at, int) or not isinstance(jobs, list) or not -60 <= now - at <= stale_s:
        return None
    begins = {}
    for job in jobs:
        coming = [begin for begin, end in job["runs_utc_s"] if end > now]
        if coming:
            begins[str(job["name"])] = int(min(coming))
    return begins


def decide(queue: list[QueuedJob], begins: dict[str, int] | None, allowed: Allowed, ours: Ours,
           now: float) -> list[Action]:  # fmt: skip
    """What to order now. Without a plan everything of ours is let go."""
    actions, delayed = [], 0
    for job in sorted(queue, key=lambda one: (-power_kw(one, allowed) * one.limit_s, one.job_id)):
        mine = job.job_id in ours.begin
        begin = (begins or {}).get(f"slurm-{job.job_id}")
        if job.state == "RUNNING":
            last = ours.requeued.get(job.job_id, -REQUEUE_EVERY_S)
            if (begin is not None and begin > now + allowed.lease_s and job.checkpoints and allowed.requeue
                    and not may_move(job, allowed) and now < latest_begin(job, allowed)
                    and now - last >= REQUEUE_EVERY_S):  # fmt: skip
                actions.append(
                    Action("requeue", job.job_id, begin, f"the plan runs it from {begin}; it has checkpoints")
                )
            continue
        if job.state != "PENDING":
            continue
        why = may_move(job, allowed)
        first = ours.begin[job.job_id][1] if mine else now
        if not why and begins is None:
            why = "there is no plan"
        if not why and now - first > allowed.wait_s_max:
            why = "it has waited as long as its owner allows"
        if not why and begin is None:
            why = "it is not in the plan"
        if not why and delayed >= allowed.delayed_max:
            why = f"{allowed.delayed_max} jobs wait already"
        until = min(begin or 0, int(latest_begin(job, allowed)), int(now + allowed.lease_s))
        if why or until <= now + 1:
            if mine and job.eligible_utc_s > now:
                actions.append(Action("release", job.job_id, int(now), why or "its time has come"))
            continue
        delayed += 1
        if not mine or job.eligible_utc_s - now < allowed.lease_s / 2 or job.eligible_utc_s > until:
            actions.append(Action("delay", job.job_id, until, f"the plan begins it at {begin}"))
    return actions


class SlurmAdapter:
    """One round after the other: read the queue, announce it, do what the plan says, write down what was done."""

    def __init__(self, scheduler: Scheduler, folder: Path, allowed: Allowed, *,
                 note: Note | None = None) -> None:  # fmt: skip
        self.scheduler, self.folder, self.allowed = scheduler, folder, allowed
        self._audit = AdapterAudit(folder / AUDIT_FILE, "slurm", note)
        self.ours = self._read_ours()
        self.error = ""

    def _read_ours(self) -> Ours:
        try:
            kept = json.loads((self.folder / OURS_FILE).read_text())
            begin = {int(job): (int(at), float(first)) for job, (at, first) in kept["begin"].items()}
            return Ours(begin, {int(job): float(at) for job, at in kept["requeued"].items()})
        except (OSError, ValueError, TypeError, KeyError):
            return Ours()  # what we gave runs out by itself within a lease

    def _keep_ours(self) -> None:
        kept = {"begin": self.ours.begin, "requeued": self.ours.requeued}
        atomic_file.replace(self.folder / OURS_FILE, json.dumps(kept).encode())

    def status(self) -> dict[str, object]:
        """The planner's, {} where there is none."""
        try:
            found = json.loads((self.folder / STATUS_FILE).read_text())
            return found if isinstance(found, dict) else {}
        except (OSError, ValueError):
            return {}

    def round(self, now: float | None = None, *, let_go: bool = False) -> list[Action]:
        """Once. let_go: as without a plan. What Slurm refuses is audited and tried again the next time."""
        now = time.time() if now is None else now
        self.error = ""
        try:
            queue = self.scheduler.queue()
        except SlurmError as why:
            self.error = str(why)
            self._speak([], let_go=let_go)
            return []
        there = {job.job_id for job in queue if job.state in ("PENDING", "RUNNING")}
        self.ours.begin = {job: given for job, given in self.ours.begin.items() if job in there}
        self.ours.requeued = {job: at for job, at in self.ours.requeued.items() if job in there}
        try:
            coming = () if let_go else announced(queue, self.allowed, self.ours, now)
            write_jobs(self.folder, coming, SLURM_JOBS_FILE)
        except (PlanError, OSError) as why:
            self.error = str(why)
        begins = None if let_go else planned_begins(self.status(), now, self.allowed.stale_s)
        actions = decide(queue, begins, self.allowed, self.ours, now)
        for action in actions:
            self._act(action, now)
        self._keep_ours()
        self._speak(queue, let_go=let_go)
        return actions

    def _speak(self, queue: list[QueuedJob], *, let_go: bool) -> None:
        """What went wrong, and jobs whose owner wrote something into the comment that is not understood."""
        if let_go:
            return
        doubts = [self.error] if self.error else []
        doubts += [f"job {job.job_id} of {job.user} is not moved: {job.wrong}" for job in queue
                   if job.wrong and job.state == "PENDING" and job.partition in self.allowed.partitions
                   and (not self.allowed.users or job.user in self.allowed.users)]  # fmt: skip
        with contextlib.suppress(OSError):  # a full disk costs the words, not the orders
            write_doubts(self.folder, "slurm", doubts)

    def _act(self, action: Action, now: float) -> None:
        """Written down before it is done: an order that nobody knows of is worse than one that was not given."""
        row = {**action.__dict__, "begin_utc_s": action.utc_s}
        short = f"{action.kind} job {action.job_id} to {action.utc_s}: {action.why}"
        self._audit.write(now, row, short, "dry run" if self.allowed.dry_run else "asked")
        if self.allowed.dry_run:
            return
        try:
            if action.kind == "requeue":
                self.scheduler.requeue(action.job_id)
                self.ours.requeued[action.job_id] = now
            else:
                self.scheduler.begin(action.job_id, action.utc_s)
        except SlurmError as why:
            self.error = str(why)
            self._audit.write(now, row, short, f"refused: {why}")
            return
        if action.kind == "delay":
            self.ours.begin[action.job_id] = (action.utc_s, self.ours.begin.get(action.job_id, (0, now))[1])
        elif action.kind == "release":
            self.ours.begin.pop(action.job_id, None)
