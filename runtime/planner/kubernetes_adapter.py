"""Jobs of Kubernetes begin when the plan says: those that wait are announced, suspended and resumed in their time.

Kubernetes has no begin time that runs out, so everything hangs on putting back: each change has its annotation, an
adapter without a plan resumes all of its own, and so does its guard when the adapter is killed or hangs.
"""

import contextlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tidegate.runtime.planner.adapter_audit import AdapterAudit, Note, write_doubts
from tidegate.runtime.planner.announced_jobs import AnnouncedJob, write_jobs
from tidegate.runtime.planner.kubernetes_cluster import Cluster, ClusterError, ClusterJob, Kubernetes
from tidegate.runtime.planner.live_planner import STATUS_FILE
from tidegate.runtime.planner.plan_inputs import PlanError
from tidegate.runtime.planner.slurm_adapter import planned_begins

CLUSTER_JOBS_FILE = "jobs-kubernetes.json"
AUDIT_FILE = "kubernetes-audit.jsonl"
NEAR_S = 60.0  # a begin this near is now


@dataclass(frozen=True)
class ClusterAllowed:
    """What the owner lets the adapter do. Namespaces and label are the allow-list; the client asks for no more."""

    suspended_max: int = 50
    wait_s_max: float = 24 * 3600.0
    running: bool = False  # also what runs, where it has checkpoints: its pods end
    dry_run: bool = False
    margin_s: float = 300.0  # before a deadline, for what scheduling and pulling an image take
    stale_s: float = 2000.0  # a plan this old is nobody's any more: the planner makes one each quarter hour


@dataclass(frozen=True)
class ClusterAction:
    """One order to the cluster, with the reason that the audit gets."""

    order: str  # suspend, resume
    job: ClusterJob
    why: str


def named(job: ClusterJob) -> str:
    """Its name among the planner's jobs."""
    return f"k8s-{job.uid}"


def may_wait(job: ClusterJob) -> str:
    """Why a job is not moved; "" where it may be."""
    if job.wrong:
        return job.wrong
    lacks = [name for name, value in (("tidegate/kw", job.kw), ("tidegate/deadline", job.deadline_utc_s),
                                      ("tidegate/hours", job.limit_s)) if not value]  # fmt: skip
    return f"it has no {lacks[0]}" if lacks else ""


def is_left(job: ClusterJob) -> bool:
    """Whether somebody else keeps it suspended, or it is over: then nothing of it is ours to judge."""
    return job.done or (job.suspended and not job.ours and not job.planned)


def coming(jobs: list[ClusterJob], allowed: ClusterAllowed, now: float) -> tuple[AnnouncedJob, ...]:
    """What waits, and what runs and may be put back, as work that can wait."""
    found = []
    for job in jobs:
        if is_left(job) or may_wait(job) or (job.started and not (allowed.running and job.checkpoints)):
            continue
        deadline = int(job.deadline_utc_s - allowed.margin_s)
        if deadline > now:
            found.append(AnnouncedJob(named(job), job.kw, job.limit_s / 3600, int(now), deadline, job.checkpoints,
                                      int(now)))  # fmt: skip
    return tuple(found)


def orders(jobs: list[ClusterJob], begins: dict[str, int] | None, allowed: ClusterAllowed,
           now: float) -> list[ClusterAction]:  # fmt: skip
    """What to order now. Without a plan everything of ours is resumed."""
    found, rests = [], 0
    for job in sorted(jobs, key=lambda one: (not one.ours, -one.kw * one.limit_s, one.uid)):
        if is_left(job):
            continue
        if job.ours and not job.suspended:
            found.append(ClusterAction("resume", job, "somebody started it: the annotation is taken off"))
            continue
        if job.started and not job.suspended and not (allowed.running and job.checkpoints):
            continue
        why, begin = may_wait(job), (begins or {}).get(named(job))
        latest = job.deadline_utc_s - job.limit_s - allowed.margin_s
        if not why and begins is None:
            why = "there is no plan"
        if not why and job.first_utc_s and now - job.first_utc_s > allowed.wait_s_max:
            why = "it has waited as long as its owner allows"
        if not why and begin is None:
            why = "it is not in the plan"
        if not why and rests >= allowed.suspended_max:
            why = f"{allowed.suspended_max} jobs wait already"
        if not why and min(begin or 0, latest) <= now + NEAR_S:
            why = "its time has come"
        if why:
            if job.suspended:
                found.append(ClusterAction("resume", job, why))
            continue
        rests += 1
        if not job.ours:
            found.append(ClusterAction("suspend", job, f"the plan begins it at {begin}"))
    return found


class KubernetesAdapter:
    """One round after the other: read the jobs, announce them, do what the plan says, write down what was done."""

    def __init__(self, cluster: Cluster, folder: Path, allowed: ClusterAllowed, *, note: Note | None = None) -> None:
        self.cluster, self.folder, self.allowed = cluster, folder, allowed
        self._audit = AdapterAudit(folder / AUDIT_FILE, "kubernetes", note)
        self.error = ""

    def round(self, now: float | None = None, *, let_go: bool = False) -> list[ClusterAction]:
        """Once. let_go: as without a plan. What the cluster refuses is audited and tried again the next time."""
        now = time.time() if now is None else now
        self.error = ""
        try:
            jobs = self.cluster.jobs()
        except ClusterError as why:
            self.error = str(why)
            self._speak(let_go=let_go)
            return []
        try:
            write_jobs(self.folder, () if let_go else coming(jobs, self.allowed, now), CLUSTER_JOBS_FILE)
        except (PlanError, OSError) as why:
            self.error = str(why)
        made = orders(jobs, None if let_go else self._begins(now), self.allowed, now)
        for action in made:
            self._act(action, now)
        self._speak(let_go=let_go)
        return made

    def _speak(self, *, let_go: bool) -> None:
        if not let_go:
            with contextlib.suppress(OSError):  # a full disk costs the words, not the orders
                write_doubts(self.folder, "kubernetes", [self.error] if self.error else [])

    def _begins(self, now: float) -> dict[str, int] | None:
        try:
            status = json.loads((self.folder / STATUS_FILE).read_text())
        except (OSError, ValueError):
            return None
        return planned_begins(status, now, self.allowed.stale_s) if isinstance(status, dict) else None

    def _act(self, action: ClusterAction, now: float) -> None:
        """Written down before it is done. A dry run asks the cluster too, which then judges and changes nothing."""
        job, dry_run = action.job, self.allowed.dry_run
        row = {"order": action.order, "why": action.why, **asdict(job)}
        short = f"{action.order} {job.kind} {job.namespace}/{job.name}: {action.why}"
        self._audit.write(now, row, short, "dry run" if dry_run else "asked")
        try:
            if action.order == "suspend":
                self.cluster.suspend(job, job.first_utc_s or int(now), dry_run=dry_run)
            else:
                self.cluster.resume(job, dry_run=dry_run)
        except ClusterError as why:
            self.error = str(why)
            self._audit.write(now, row, short, f"refused: {why}")


def put_back(folder: Path, namespaces: tuple[str, ...], label: str, kubeconfig: str, context: str,
             dry_run: bool) -> str:  # fmt: skip
    """For the guard: resume everything of ours; "" when nothing of it is left."""
    cluster = Kubernetes(namespaces, label, kubeconfig=kubeconfig, context=context)
    adapter = KubernetesAdapter(cluster, folder, ClusterAllowed(dry_run=dry_run))
    made = adapter.round(let_go=True)
    return adapter.error or (f"{len(made)} jobs were resumed" if made and not dry_run else "")
