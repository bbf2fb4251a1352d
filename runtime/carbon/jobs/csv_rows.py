"""Job logs of any kind that is known, from a file or a folder of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tidegate.runtime.carbon.jobs.codecarbon import read_codecarbon
from tidegate.runtime.carbon.jobs.prometheus_jobs import read_prometheus
from tidegate.runtime.carbon.jobs.slurm import read_slurm
from tidegate.runtime.carbon.jobs.work import JobError, Work, from_record, sort_out
from tidegate.runtime.carbon.tables import bytes_of, json_of, list_of, refusing, table_of, text_of

LOG_BYTES_MAX = 2_000_000_000  # a year of a busy cluster


def read_jobs(
    path: Path, nodes: Mapping[str, str] | None = None, tenants: Mapping[str, str] | None = None
) -> tuple[list[Work], list[str]]:
    """(works by start, what was set aside and why) of a file or of every file of a folder. Raises JobError."""
    works: list[Work] = []
    aside: list[str] = []
    for one in sorted(path.iterdir()) if path.is_dir() else [path]:
        if one != path and (one.name.startswith(".") or not one.is_file()):
            continue
        found, problems = _read_one(one, nodes, tenants)
        works += found
        aside += problems
    good, more = sort_out(works)
    return good, aside + more


@refusing(JobError)
def _read_one(
    path: Path, nodes: Mapping[str, str] | None, tenants: Mapping[str, str] | None
) -> tuple[list[Work], list[str]]:
    try:
        raw = bytes_of(path, JobError, LOG_BYTES_MAX)
        written_utc_s = int(path.stat().st_mtime)
    except OSError as error:
        raise JobError(f"{path}: {error.strerror}") from None
    text_of(raw, path.name, JobError)  # whatever it is, it is text
    name, head = path.name, raw[:65_536].removeprefix(b"\xef\xbb\xbf").lstrip()
    first = head.split(b"\n", 1)[0].rstrip()
    if head[:1] == b"[":
        return _records(list_of(json_of(raw, name, JobError), name, JobError), name)
    if head[:1] == b"{" and not name.endswith(".jsonl"):
        # Lines of JSON have a whole object in the first one; an answer of Prometheus has "status" in it.
        document = _object(first)
        if "start_utc_s" not in document:
            return read_prometheus(raw, name, nodes, tenants)
    if head[:1] == b"{":
        rows = [json_of(line.encode(), f"{name}, line {number}", JobError)
                for number, line in enumerate(text_of(raw, name, JobError).split("\n"), 1) if line.strip()]  # fmt: skip
        return _records(rows, name)
    if any(word in head for word in (b"_joules_total", b"DCGM_", b"scaph_")) or head[:1] == b"#":
        return read_prometheus(raw, name, nodes, tenants)
    if b"JobID" in first:
        return read_slurm(raw, name, nodes, written_utc_s)
    if b"emissions" in first and b"energy_consumed" in first:
        return read_codecarbon(raw, name, nodes)
    raise JobError(f"{name}: neither sacct output, nor Prometheus, nor CodeCarbon, nor a JSON list of jobs")


def _object(line: bytes) -> dict[str, object]:
    """The JSON object that a line is; empty if it is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _records(rows: Sequence[object], name: str) -> tuple[list[Work], list[str]]:
    works: list[Work] = []
    aside: list[str] = []
    for number, row in enumerate(rows):
        try:
            works.append(from_record(row, f"{name}, job {number}"))
        except JobError as error:
            aside.append(f"{error}; it is not counted")
    if aside and not works:
        raise JobError(aside[0])
    return works, aside


@refusing(JobError)
def read_map(path: Path, first: str, second: str) -> dict[str, str]:
    """A two-column CSV as a map, like host,node or namespace,owner. Raises JobError by line.

    A host may have no node: it is of another site. A namespace needs an owner.
    """
    found: dict[str, str] = {}
    for line, row in table_of(bytes_of(path, JobError), path.name, JobError, columns=(first, second))[1]:
        key, value = row[first].strip(), row[second].strip()
        where = f"{path.name}, line {line}"
        if not key:
            raise JobError(f"{where}: no {first}; remove the line")
        if not value and second != "node":
            raise JobError(f"{where}: {first} {key} has no {second}; write it, or remove the line")
        if found.setdefault(key, value) != value:
            raise JobError(f"{where}: {first} {key} stands before with {second} {found[key]}; remove one")
    return found
