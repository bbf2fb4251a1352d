"""Work that can wait, as its owner announces it: power, time, earliest, deadline. A file of the planner's folder.

`tidegate plan jobs` writes it, the planner reads it and places each job. Times are UTC seconds.
"""

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tidegate.runtime.planner.plan_inputs import Floats, Horizon, Job, PlanError
from tidegate.runtime.state import atomic_file

JOBS_FILE = "jobs.json"
ADAPTERS = "jobs-*.json"
ADAPTER_SILENT_S = 900.0  # an adapter writes its jobs each round, at most five minutes apart
JOBS_MAX = 500


@dataclass(frozen=True)
class AnnouncedJob:
    """`expected_utc_s`: when it would begin if nobody moved it. `hours`: of running, from now on if it runs already."""

    name: str
    power_kw: float
    hours: float
    earliest_utc_s: int
    deadline_utc_s: int
    interruptible: bool = False
    expected_utc_s: int | None = None

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > 64 or not self.name.isprintable():
            raise PlanError(f"job {self.name!r}: give a name of 1 to 64 printable characters")
        for name in ("power_kw", "hours"):
            value = getattr(self, name)
            if not 0 < value < 1e6:
                raise PlanError(f"job {self.name}: {name} = {value}: give a number above 0")
        if self.deadline_utc_s <= self.earliest_utc_s:
            raise PlanError(f"job {self.name}: the deadline is not after the earliest begin; correct one of them")


def read_jobs(folder: Path) -> tuple[AnnouncedJob, ...]:
    """All jobs of a folder: its jobs.json, and those of each adapter that still speaks. Raises PlanError."""
    paths = [folder / JOBS_FILE, *(path for path in sorted(folder.glob(ADAPTERS)) if not _is_silent(path))]
    return tuple(job for path in paths for job in read_jobs_file(path))


def silent_adapters(folder: Path) -> list[str]:
    """In words, the adapters that have announced nothing lately: what they knew of their queue is over."""
    found = [path for path in sorted(folder.glob(ADAPTERS)) if _is_silent(path)]
    return [f"{path}: not written for {ADAPTER_SILENT_S / 60:.0f} min, is its adapter running? Its jobs are left out"
            for path in found]  # fmt: skip


def _is_silent(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > ADAPTER_SILENT_S
    except OSError:
        return True


def read_jobs_file(path: Path) -> tuple[AnnouncedJob, ...]:
    """The jobs of one file, none where there is none. Raises PlanError."""
    try:
        return tuple(AnnouncedJob(**row) for row in json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return ()
    except OSError as why:
        raise PlanError(f"{path}: {why.strerror}") from None
    except (ValueError, TypeError) as why:
        raise PlanError(f"{path}: {why}; remove it and add the jobs again") from None
    except PlanError as why:
        raise PlanError(f"{path}: {why}") from None


def write_jobs(folder: Path, jobs: tuple[AnnouncedJob, ...], file: str = JOBS_FILE) -> None:
    """Put the jobs in the place of those before. Raises PlanError for a name that stands twice, and for too many."""
    names = [job.name for job in jobs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PlanError(f"job {twice[0]} is there already; remove it first, or give another name")
    if len(jobs) > JOBS_MAX:
        raise PlanError(f"{len(jobs)} jobs, at most {JOBS_MAX} are planned: remove some that are done")
    atomic_file.replace(folder / file, json.dumps([asdict(job) for job in jobs], indent=1).encode())


def jobs_within(jobs: tuple[AnnouncedJob, ...], horizon: Horizon) -> tuple[tuple[Job, ...], tuple[AnnouncedJob, ...],
                                                                         list[str]]:  # fmt: skip
    """(jobs in steps of the horizon, the announced ones they belong to, in words those that are left out)."""
    found, placed, said = [], [], []
    end_utc_s = horizon.start_utc_s + len(horizon.load_kw) * horizon.step_s
    for job in jobs:
        if job.earliest_utc_s >= end_utc_s:
            said.append(f"job {job.name} may begin only after the plan ends: planned later")
            continue
        steps = math.ceil(job.hours * 3600 / horizon.step_s - 1e-9)
        earliest = math.ceil((job.earliest_utc_s - horizon.start_utc_s) / horizon.step_s)
        latest_end = math.floor((job.deadline_utc_s - horizon.start_utc_s) / horizon.step_s)
        beyond = latest_end - len(horizon.load_kw)
        if beyond > 0 and latest_end - max(0, earliest) >= steps and len(horizon.load_kw) - max(0, earliest) < steps:
            said.append(f"job {job.name} needs more time than the plan has: planned when its deadline is nearer")
            continue
        found.append(Job(job.name, job.power_kw, steps, max(0, earliest), latest_end, job.interruptible))
        placed.append(job)
    return tuple(found), tuple(placed), said


def runs_of(row_kw: Floats, horizon: Horizon) -> list[tuple[int, int]]:
    """[(begin, end) in UTC seconds] of one job's row of a plan."""
    on = np.concatenate([[0], (row_kw > 0).astype(int), [0]])
    edges = horizon.start_utc_s + np.flatnonzero(np.diff(on)) * horizon.step_s
    return [(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)]


def saved_eur(row_kw: Floats, job: AnnouncedJob, horizon: Horizon, meter_eur_per_kwh: Floats) -> float | None:
    """What it costs less than if it began when expected, at the plan's own prices; None where that is not known."""
    if job.expected_utc_s is None:
        return None
    steps = int((row_kw > 0).sum())
    first = (job.expected_utc_s - horizon.start_utc_s) // horizon.step_s
    if steps == 0 or first < 0 or first + steps > len(row_kw):
        return None
    cost = meter_eur_per_kwh * job.power_kw * horizon.step_h
    return float(cost[first : first + steps].sum() - cost[row_kw > 0].sum())
