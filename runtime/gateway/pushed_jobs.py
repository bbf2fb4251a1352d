"""Which pushed job records can be: the others are refused, each with its place, its name and the reason."""

import msgspec

from tidegate.hal.description import Description
from tidegate.runtime.api import messages
from tidegate.runtime.gateway.job_record import JobRecord

EARLIEST_JOB_S = 1_577_836_800  # 2020-01-01: before, the clock was not set
LONGEST_JOB_S = 366 * 86_400


def loads_of(site: Description) -> frozenset[str]:
    """The IT loads that a job may name: metered ones, or the one that is what the other meters leave."""
    metered = {node.device for node in site.nodes if node.role == "it"}
    return frozenset(metered or {"it"})


def sort_jobs(jobs: list[JobRecord], loads: frozenset[str], utc_s: int) -> tuple[list[dict[str, object]], list[str]]:
    """(records for the journal, what is refused and why). utc_s : now, by the device's clock."""
    good: list[dict[str, object]] = []
    refused: list[str] = []
    for number, job in enumerate(jobs):
        why = ""
        if job.end_utc_s < job.start_utc_s:
            why = f"ends {job.start_utc_s - job.end_utc_s} s before it starts"
        elif job.end_utc_s == job.start_utc_s:
            why = "lasts 0 s"
        elif job.start_utc_s < EARLIEST_JOB_S:
            why = f"starts at {job.start_utc_s}, before 2020: the clock was not set"
        elif job.end_utc_s - job.start_utc_s > LONGEST_JOB_S:
            why = f"lasts {(job.end_utc_s - job.start_utc_s) // 86_400} days"
        elif utc_s > EARLIEST_JOB_S and job.end_utc_s > utc_s + 86_400:
            why = f"ends {(job.end_utc_s - utc_s) // 86_400} days from now; push a job after its end"
        elif job.node and job.node not in loads:
            why = f"node {job.node!r} is no IT load of this site; known: {', '.join(sorted(loads))}"
        if why:
            refused.append(f"jobs[{number}], {job.job[:60]}: {why}"[: messages.TEXT_MAX])
        else:
            good.append(msgspec.to_builtins(job))
    return good, refused
