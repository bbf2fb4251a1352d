"""Slurm as the adapter needs it: its queue read as JSON, and the orders that it gives, by Slurm's own commands."""

import json
import os
import re
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

COMMAND_S = 20.0
NOTHING = 0xFFFFFFFC  # from here on Slurm's 32 bit numbers mean "none" or "no end"
# What the owner of a job writes into its comment: tidegate:kw=12,deadline=2026-11-29T06:00Z,checkpoints
COMMENT = re.compile(r"(?:^|\s)tidegate:(\S+)")
GPUS = re.compile(r"gres/gpu(?::[^=,]*)?=(\d+)")


class SlurmError(Exception):
    """Slurm did not do what it was asked: which command, and what it said."""


@dataclass(frozen=True)
class QueuedJob:
    """One row of the queue. Times are UTC seconds, 0 = none; kw None = its owner did not say."""

    job_id: int
    state: str  # PENDING, RUNNING, ...
    partition: str
    user: str
    held: bool  # by its user or an administrator
    eligible_utc_s: int
    start_utc_s: int
    deadline_utc_s: int
    limit_s: int  # of its running; 0 = none was given
    cpus: int
    gpus: int
    kw: float | None
    checkpoints: bool
    wrong: str = ""  # what of its comment is not understood


class Scheduler(Protocol):
    """What the adapter asks of a scheduler."""

    def queue(self) -> list[QueuedJob]: ...
    def begin(self, job_id: int, utc_s: int) -> None: ...
    def requeue(self, job_id: int) -> None: ...


def _number(value: object) -> int:
    """Older releases give a number, later ones {set, infinite, number}."""
    if isinstance(value, dict):
        return int(value.get("number") or 0) if value.get("set", True) and not value.get("infinite") else 0
    return int(value) if isinstance(value, int | float) and value < NOTHING else 0


def _said(comment: str) -> tuple[float | None, int, bool, str]:
    """(kW, deadline, checkpoints, what is wrong) of a comment."""
    found = COMMENT.search(comment)
    kw, deadline, checkpoints = None, 0, False
    for part in found.group(1).split(",") if found else ():
        key, _, value = part.partition("=")
        try:
            if key == "kw":
                kw = float(value)
                if not 0 < kw < 1e5:
                    raise ValueError
            elif key == "deadline":
                when = datetime.fromisoformat(value)
                if when.tzinfo is None:
                    raise ValueError
                deadline = int(when.astimezone(UTC).timestamp())
            elif key == "checkpoints" and not value:
                checkpoints = True
            else:
                raise ValueError
        except ValueError:
            return None, 0, False, f"comment {part!r}: write kw=12, deadline=2026-11-29T06:00Z or checkpoints"
    return kw, deadline, checkpoints, ""


def read_row(row: dict[str, object]) -> QueuedJob:
    """One job as `squeue --json` has it."""
    states = row.get("job_state")
    state = str(states[0] if isinstance(states, list) and states else states)
    kw, deadline, checkpoints, wrong = _said(str(row.get("comment") or ""))
    gpus = GPUS.search(str(row.get("tres_req_str") or ""))
    priority = row.get("priority")
    return QueuedJob(
        job_id=_number(row.get("job_id")), state=state, partition=str(row.get("partition") or ""),
        user=str(row.get("user_name") or ""), held=priority is not None and _number(priority) == 0,
        eligible_utc_s=_number(row.get("eligible_time")), start_utc_s=_number(row.get("start_time")),
        deadline_utc_s=deadline or _number(row.get("deadline")), limit_s=60 * _number(row.get("time_limit")),
        cpus=_number(row.get("cpus")), gpus=int(gpus.group(1)) if gpus else 0, kw=kw, checkpoints=checkpoints,
        wrong=wrong,
    )  # fmt: skip


class Slurm:
    """Slurm of this machine. words: more environment, such as SLURM_CONF."""

    def __init__(self, words: dict[str, str] | None = None) -> None:
        self._environment = {**os.environ, **(words or {}), "TZ": "UTC", "LC_ALL": "C"}

    def _run(self, *command: str) -> str:
        try:
            done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=COMMAND_S)
        except FileNotFoundError:
            raise SlurmError(f"{command[0]} is not installed: the adapter runs where Slurm's commands are") from None
        except subprocess.TimeoutExpired:
            raise SlurmError(f"{' '.join(command)}: no answer within {COMMAND_S:g} s") from None
        if done.returncode:
            raise SlurmError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-200:]}")
        return done.stdout

    def queue(self) -> list[QueuedJob]:
        """All jobs that wait or run. Raises SlurmError."""
        try:
            rows = json.loads(self._run("squeue", "--json"))["jobs"]
        except (ValueError, KeyError) as why:
            raise SlurmError(f"squeue --json: {why}") from None
        return [read_row(row) for row in rows]

    def begin(self, job_id: int, utc_s: int) -> None:
        """Not before then; a moment that is over lets it go. Raises SlurmError."""
        self._run(
            "scontrol", "update", f"JobId={job_id}", f"StartTime={datetime.fromtimestamp(utc_s, UTC):%Y-%m-%dT%H:%M:%S}"
        )

    def requeue(self, job_id: int) -> None:
        """End it and have it wait again: for jobs with checkpoints only. Raises SlurmError."""
        self._run("scontrol", "requeue", str(job_id))
