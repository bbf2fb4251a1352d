"""Slurm's accounting as text: `SLURM_TIME_FORMAT=%Y-%m-%dT%H:%M:%S%z sacct -aXP -o JobID,User,Account,Start,End,...`"""

import csv
import io
import re
from collections.abc import Mapping

from tidegate.runtime.carbon.factors.series import FactorError, parse_time
from tidegate.runtime.carbon.jobs.work import JobError, Work, joules_milliwh

NEEDED = ("JobID", "Start", "End")


def read_slurm(raw: bytes, name: str, nodes: Mapping[str, str] | None = None) -> tuple[list[Work], list[str]]:
    """(jobs, rows set aside) of `sacct` output, separated by | or comma.

    nodes : node name in Slurm -> load of the account; a job on several loads counts on all of the IT load.
    Raises JobError for a file that is none. GPU-hours are AllocTRES gres/gpu times the duration.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise JobError(f"{name}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    head = text.split("\n", 1)[0]
    reader = csv.DictReader(io.StringIO(text), delimiter="|" if "|" in head else ",")
    missing = [column for column in NEEDED if column not in (reader.fieldnames or ())]
    if missing:
        raise JobError(
            f"{name}, line 1: column {', '.join(missing)} is missing; expected sacct with {', '.join(NEEDED)}"
        )
    works: list[Work] = []
    aside: list[str] = []
    for row in reader:
        where = f"{name}, line {reader.line_num}"
        job = str(row["JobID"] or "").strip()
        if "." in job:
            continue  # a step of a job that has its own line
        if str(row["End"]).strip() in ("Unknown", "", "None") or str(row["Start"]).strip() in ("Unknown", "", "None"):
            aside.append(f"{where}: job {job} has no start or no end yet; it is not counted")
            continue
        try:
            start, end = (_time(str(row[key]), where) for key in ("Start", "End"))
        except FactorError as error:
            raise JobError(f"{error}; run sacct with SLURM_TIME_FORMAT=%Y-%m-%dT%H:%M:%S%z") from None
        gpus = _gpus(row.get("AllocTRES") or row.get("ReqTRES") or "")
        slots = gpus or _whole(row.get("AllocCPUS") or row.get("NCPUS")) or 1
        energy = _whole(row.get("ConsumedEnergyRaw"))
        units = {"job": 1000}
        if gpus:
            units["gpu_hour"] = gpus * max(0, end - start) * 1000 // 3600
        works.append(
            Work(
                job,
                start,
                end,
                str(row.get("Account") or row.get("User") or ""),
                _node(str(row.get("NodeList") or ""), nodes or {}),
                slots,
                joules_milliwh(energy) if energy else None,
                None,
                units,
                where,
            )
        )
    return works, aside


def _time(text: str, where: str) -> int:
    text = text.strip()
    if text.isdigit():
        return int(text)
    return parse_time(re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", text), where)


def _gpus(tres: str) -> int:
    found = re.search(r"gres/gpu=(\d+)", tres) or re.search(r"gres/gpu:[^=,]+=(\d+)", tres)
    return int(found.group(1)) if found else 0


def _whole(text: str | None) -> int:
    return int(text) if text and text.strip().isdigit() else 0


def _node(hosts: str, nodes: Mapping[str, str]) -> str:
    loads = {load for host, load in nodes.items() if host in _expand(hosts)}
    return loads.pop() if len(loads) == 1 else ""


def _expand(hosts: str) -> set[str]:
    """Host names of a Slurm list: gpu[01-03,07],login1."""
    found: set[str] = set()
    for part in re.findall(r"[^,\[]+(?:\[[^\]]*\])?", hosts):
        stem, _, rest = part.strip().partition("[")
        if not rest:
            found.add(stem)
            continue
        for piece in rest.rstrip("]").split(","):
            first, _, last = piece.partition("-")
            if first.isdigit() and (last or first).isdigit() and int(last or first) - int(first) < 100_000:
                found |= {f"{stem}{number:0{len(first)}d}" for number in range(int(first), int(last or first) + 1)}
    return found
