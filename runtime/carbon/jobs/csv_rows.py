"""Job logs of any kind that is known, from a file or a folder of them."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

from tidegate.runtime.carbon.jobs.prometheus_jobs import read_prometheus
from tidegate.runtime.carbon.jobs.slurm import read_slurm
from tidegate.runtime.carbon.jobs.work import JobError, Work, from_record, sort_out


def read_jobs(
    path: Path, nodes: Mapping[str, str] | None = None, tenants: Mapping[str, str] | None = None
) -> tuple[list[Work], list[str]]:
    """(works by start, what was set aside and why) of a file or of every file of a folder. Raises JobError."""
    works: list[Work] = []
    aside: list[str] = []
    for one in sorted(path.iterdir()) if path.is_dir() else [path]:
        if one.name.startswith(".") or not one.is_file():
            continue
        found, problems = _read_one(one, nodes, tenants)
        works += found
        aside += problems
    good, more = sort_out(works)
    return good, aside + more


def _read_one(
    path: Path, nodes: Mapping[str, str] | None, tenants: Mapping[str, str] | None
) -> tuple[list[Work], list[str]]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise JobError(f"{path}: {error.strerror}") from None
    name, head = path.name, raw[:4096].lstrip()
    lines = name.endswith(".jsonl") or (head[:1] == b"{" and b'"job"' in head.split(b"\n", 1)[0])
    if head[:1] == b"[" or lines:
        return _records(raw, name, lines), []
    if head[:1] == b"{" or b"_joules_total" in head or b"DCGM_" in head or head[:1] == b"#":
        return read_prometheus(raw, name, nodes, tenants)
    if b"JobID" in head.split(b"\n", 1)[0]:
        return read_slurm(raw, name, nodes)
    raise JobError(f"{name}: neither sacct output, nor Prometheus, nor a JSON list of jobs")


def _records(raw: bytes, name: str, lines: bool) -> list[Work]:
    try:
        rows = [json.loads(line) for line in raw.splitlines() if line.strip()] if lines else json.loads(raw)
    except ValueError as error:
        raise JobError(f"{name}: not JSON ({error})") from None
    return [from_record(row, f"{name}, job {number}") for number, row in enumerate(rows)]


def read_map(path: Path, first: str, second: str) -> dict[str, str]:
    """A two-column CSV as a map, like host,node or namespace,owner. Raises JobError by line."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if not {first, second} <= set(reader.fieldnames or ()):
            raise JobError(f"{path.name}, line 1: expected the columns {first},{second}")
        return {row[first]: row[second] for row in reader}
