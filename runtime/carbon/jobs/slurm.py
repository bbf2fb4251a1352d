"""Slurm's accounting as text: `SLURM_TIME_FORMAT=%Y-%m-%dT%H:%M:%S%z sacct -aXP -o JobID,User,Account,Start,End,...`

`sacct -P` separates by | and quotes nothing. Its ConsumedEnergyRaw is the energy of the job's whole nodes, so that it
says nothing of a job that shared one; 2^64-2 is its word for no value.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tidegate.runtime.carbon.factors.series import FactorError, iso, parse_time
from tidegate.runtime.carbon.integers import share
from tidegate.runtime.carbon.jobs.work import LONGEST_S, JobError, Work, joules_milliwh
from tidegate.runtime.carbon.tables import refusing, table_of, text_of

NEEDED = ("JobID", "Start", "End")
FREE_TEXT = ("JobName", "Comment", "AdminComment", "SystemComment", "WorkDir", "SubmitLine")  # may hold a |
NONE = ("", "Unknown", "None", "None assigned")
NODE_W_MAX = 100_000  # of one host; a larger mean is no energy
HOSTS_MAX = 100_000

Row = tuple[str, Mapping[str, str]]  # file and line, fields


@dataclass(slots=True)
class _Job:
    """A job as its line has it."""

    id: str
    where: str
    start_utc_s: int
    end_utc_s: int
    running: bool
    owner: str
    hosts: list[str]
    gpus: int
    slots: int
    energy_milliwh: int | None
    paused_s: int


@refusing(JobError)
def read_slurm(
    raw: bytes, name: str, nodes: Mapping[str, str] | None = None, until_utc_s: int | None = None
) -> tuple[list[Work], list[str]]:
    """(works, what is set aside or to be known) of `sacct` output, separated by | or as CSV.

    nodes : node name in Slurm -> load of the account, "" = of another site. A job on several loads is one work on each,
    by its hosts there. until_utc_s : when the file was written; jobs that still ran count until then, and without it,
    or where that would make more than a year, until the newest time in the file. GPU-hours are AllocTRES gres/gpu times
    the duration, suspended time left out.
    Raises JobError for a file that is none.
    """
    aside: list[str] = []
    jobs: list[_Job] = []
    running: list[_Job] = []
    has_hosts = False
    for where, row in _rows(raw, name, aside):
        has_hosts = has_hosts or "NodeList" in row
        job = _job(where, row, aside)
        if job is not None:
            (running if job.running else jobs).append(job)
    newest = max((job.end_utc_s for job in [*jobs, *running]), default=0)
    for job in running:
        written = until_utc_s or newest  # a log of years ago says nothing of today
        job.end_utc_s = written if written - job.start_utc_s < LONGEST_S else newest
        if job.end_utc_s > job.start_utc_s:
            aside.append(f"{job.where}: job {job.id} has no end yet; counted as running until {iso(job.end_utc_s)}")
            jobs.append(job)
        else:
            aside.append(f"{job.where}: job {job.id} has no end yet, and the log says nothing later; it is not counted")
    _judge_energies(jobs, has_hosts, name, aside)
    _judge_slots(jobs, nodes, name, aside)
    unknown: dict[str, int] = {}
    works = [work for job in jobs for work in _works(job, nodes, unknown)]
    for host, count in sorted(unknown.items()):
        aside.append(
            f"{name}: host {host} of {count} job(s) is in no load; add {host},LOAD to the map, or {host}, with nothing "
            "behind the comma if it is of another site"
        )
    return works, aside


def _rows(raw: bytes, name: str, aside: list[str]) -> Iterator[Row]:
    text = text_of(raw, name, JobError)
    head = text.split("\n", 1)[0]
    if "|" not in head:
        for line, row in table_of(raw, name, JobError, columns=NEEDED)[1]:
            yield f"{name}, line {line}", row
        return
    columns = head.split("|")
    missing = [column for column in NEEDED if column not in columns]
    if missing:
        raise JobError(
            f"{name}, line 1: column {', '.join(missing)} is missing; expected sacct with {', '.join(NEEDED)}"
        )
    free = [at for at, column in enumerate(columns) if column in FREE_TEXT]
    for number, written in enumerate(text.split("\n")[1:], 2):
        if not written.strip():
            continue
        where = f"{name}, line {number}"
        fields = written.split("|")
        more = len(fields) - len(columns)
        if more > 0 and len(free) == 1:  # the | stands in the one column that people write
            at = free[0]
            fields[at : at + more + 1] = ["|".join(fields[at : at + more + 1])]
        if len(fields) != len(columns):
            aside.append(
                f"{where}: {len(fields)} fields for {len(columns)} columns ({written[:60]!r}); it is not counted, "
                "leave out columns of free text such as JobName"
            )
            continue
        yield where, dict(zip(columns, fields, strict=True))


def _job(where: str, row: Mapping[str, str], aside: list[str]) -> _Job | None:
    job = row["JobID"].strip()
    if "." in job:
        return None  # a step of a job that has its own line
    started, ended = row["Start"].strip(), row["End"].strip()
    if started in NONE:
        aside.append(f"{where}: job {job} has not started; it is not counted")
        return None
    try:
        start = _time(started, f"{where}, Start")
        end = start if ended in NONE else _time(ended, f"{where}, End")
    except FactorError as error:
        raise JobError(f"{error}; run sacct with SLURM_TIME_FORMAT=%Y-%m-%dT%H:%M:%S%z") from None
    gpus = _gpus(row.get("AllocTRES") or row.get("ReqTRES") or "")
    hosts = hosts_of(row.get("NodeList") or "", f"{where}, NodeList")
    energy: int | None = None
    written = (row.get("ConsumedEnergyRaw") or "").strip()
    if written and written != "0":
        try:
            energy = joules_milliwh(written)
        except JobError:
            aside.append(f"{where}: job {job}: ConsumedEnergyRaw {written[:30]} is no energy; shared by slots and time")
    if energy is not None and energy * 3600 > NODE_W_MAX * 1000 * max(1, len(hosts)) * max(1, end - start):
        aside.append(f"{where}: job {job}: {written[:30]} J in {end - start} s cannot be; shared by slots and time")
        energy = None
    paused_s = _duration(row.get("Suspended") or "", f"{where}, Suspended")
    if paused_s:
        aside.append(
            f"{where}: job {job} was suspended for {paused_s} s; when is not said, so its share is lower all the time"
        )
    slots = gpus or _whole(row.get("AllocCPUS") or row.get("NCPUS")) or 1
    owner = row.get("Account") or row.get("User") or ""
    return _Job(job, where, start, end, ended in NONE, owner.strip(), hosts, gpus, slots, energy, paused_s)


def _judge_energies(jobs: Sequence[_Job], has_hosts: bool, name: str, aside: list[str]) -> None:
    """Take the energy from jobs of which it is that of a node with others on it, too."""
    counted = [job for job in jobs if job.energy_milliwh is not None]
    if not counted:
        return
    if not has_hosts:
        aside.append(
            f"{name}: without NodeList it is not known which jobs shared a node, whose energy ConsumedEnergyRaw is; "
            f"{len(counted)} job(s) are shared by slots and time"
        )
        for job in counted:
            job.energy_milliwh = None
        return
    on_host: dict[str, list[_Job]] = {}
    for job in jobs:
        for host in job.hosts:
            on_host.setdefault(host, []).append(job)
    together: dict[int, _Job] = {}
    for mine in on_host.values():
        mine.sort(key=lambda job: (job.start_utc_s, job.end_utc_s))
        latest = mine[0]
        for job in mine[1:]:
            if job.start_utc_s < latest.end_utc_s:
                together.update({id(job): job, id(latest): latest})
            if job.end_utc_s > latest.end_utc_s:
                latest = job
    sharing = [job for job in together.values() if job.energy_milliwh is not None]
    for job in sharing:
        job.energy_milliwh = None
    if sharing:
        aside.append(
            f"{name}: {len(sharing)} job(s), the first {sharing[0].id} ({sharing[0].where}), shared a node: "
            "ConsumedEnergyRaw is that of the whole node, so they are shared by slots and time"
        )


def _judge_slots(jobs: Sequence[_Job], nodes: Mapping[str, str] | None, name: str, aside: list[str]) -> None:
    """Name loads on which some jobs are counted by their GPUs and others by their CPUs: one is not worth the other."""
    by_gpus, by_cpus = ([job for job in jobs if bool(job.gpus) is wanted] for wanted in (True, False))
    loads = [{(nodes or {}).get(host, "") for job in mine for host in job.hosts or [""]} for mine in (by_gpus, by_cpus)]
    both = sorted(loads[0] & loads[1])
    mixed = [job for job in by_cpus if both and {(nodes or {}).get(host, "") for host in job.hosts or [""]} & set(both)]
    if mixed:
        where = ", ".join(load or "the load" for load in both)
        aside.append(
            f"{name}: {len(mixed)} job(s) without GPUs, the first {mixed[0].id} ({mixed[0].where}), are counted by "
            f"their CPUs beside others counted by their GPUs on {where}: one CPU weighs as much as one GPU there; push "
            "their energies, or give them a load of their own"
        )


def _works(job: _Job, nodes: Mapping[str, str] | None, unknown: dict[str, int]) -> Iterator[Work]:
    """A work for each load that the job had hosts in, with its part of slots, energy and amounts."""
    parts: dict[str, int] = {}
    elsewhere = 0
    if nodes is None or not job.hosts:
        parts[""] = 1
    else:
        for host in job.hosts:
            load = nodes.get(host)
            if load == "":
                elsewhere += 1
                continue
            if load is None:
                unknown[host] = unknown.get(host, 0) + 1
            parts[load or ""] = parts.get(load or "", 0) + 1
    loads = sorted(parts)
    weights = [*(parts[load] for load in loads), elsewhere]  # what ran at another site is left out
    held_s = job.end_utc_s - job.start_utc_s - job.paused_s
    units = {} if job.running else {"job": share(1000, weights)}
    if job.gpus:
        units["gpu_hour"] = share(job.gpus * max(0, held_s) * 1000 // 3600, weights)
    slots = share(job.slots, weights)
    energies = None if job.energy_milliwh is None else share(job.energy_milliwh, weights)
    for at, load in enumerate(loads):
        yield Work(
            job.id, job.start_utc_s, job.end_utc_s, job.owner, load, max(1, slots[at]),
            None if energies is None else energies[at], None, {unit: rows[at] for unit, rows in units.items()},
            job.where, job.paused_s,
        )  # fmt: skip


def _time(text: str, where: str) -> int:
    if text.isdigit() and len(text) <= 15:
        return int(text)
    return parse_time(re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", text), where)


def _duration(text: str, where: str) -> int:
    """Seconds of [DD-[HH:]]MM:SS."""
    text = text.strip()
    if text in NONE:
        return 0
    found = re.fullmatch(r"(?:(?:(\d{1,5})-)?(\d{1,3}):)?(\d{1,3}):(\d\d)(?:\.\d+)?", text)
    if found is None:
        raise JobError(f"{where}: {text[:30]!r} is not a duration; expected [DD-[HH:]]MM:SS")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _gpus(tres: str) -> int:
    plain = re.search(r"gres/gpu=(\d{1,9})(?:,|$)", tres)
    if plain:
        return int(plain.group(1))
    return sum(int(count) for count in re.findall(r"gres/gpu:[^=,]+=(\d{1,9})(?:,|$)", tres))


def _whole(text: str | None) -> int:
    return int(text) if text and re.fullmatch(r"\s*\d{1,9}\s*", text) else 0


def hosts_of(text: str, where: str = "NodeList") -> list[str]:
    """Host names of a Slurm list: gpu[01-03,07],login1, rack[1-2]n[1-4]. Raises JobError for one of millions."""
    found: list[str] = []
    if text.strip() in NONE:
        return found
    for part in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", text):
        names = [""]
        for plain, inner in re.findall(r"([^\[\]]+)|\[([^\]]*)\]", part.strip()):
            endings = [plain] if plain else _numbers(inner, where)
            if len(names) * len(endings) > HOSTS_MAX:
                raise JobError(f"{where}: {text[:60]!r} names more than {HOSTS_MAX} hosts")
            names = [name + ending for name in names for ending in endings]
        found += names
    return list(dict.fromkeys(found))


def _numbers(inner: str, where: str) -> list[str]:
    found: list[str] = []
    for piece in inner.split(","):
        first, _, last = piece.strip().partition("-")
        last = last or first
        if not (first.isdigit() and last.isdigit()) or len(last) > 9:
            found.append(piece.strip())
        elif int(last) - int(first) < HOSTS_MAX:
            found += [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
        else:
            raise JobError(f"{where}: [{inner[:60]}] names more than {HOSTS_MAX} hosts")
    return found
