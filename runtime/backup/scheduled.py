"""A backup by itself: made, sent to its place, the oldest taken away, and what came of it kept for the site to show."""

import contextlib
import json
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tidegate.config.site import Site
from tidegate.runtime.api.blocking_client import Client, ClientError
from tidegate.runtime.backup import make as making
from tidegate.runtime.backup.manifest import BackupError, Manifest
from tidegate.runtime.backup.places import BackupPlace
from tidegate.runtime.state import atomic_file
from tidegate.runtime.state.backup_outcome import NOTED_FAILED, OUTCOME, BackupOutcome, outcome_in
from tidegate.runtime.state.paths import folder_name


def name_at(site: str, utc_s: float) -> str:
    """The name of a backup."""
    return f"{folder_name(site)}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(utc_s))}.tgz"


def own(site: str, names: list[str]) -> list[str]:
    """Those of the names that are backups of this site, oldest first; whatever else lies there is nobody's business."""
    pattern = re.compile(re.escape(folder_name(site)) + r"-\d{8}T\d{6}Z\.tgz")
    return sorted(name for name in names if pattern.fullmatch(name))


def run(
    place: Callable[[], "contextlib.AbstractContextManager[BackupPlace]"], shown: str, site: Site, site_file: Path,
    state: Path, *, keys: bool, recordings: bool, keep: int, every_h: float, utc: Callable[[], float] = time.time,
) -> tuple[str, Manifest, list[str]]:  # fmt: skip
    """(name, what is in it, names that were taken away). The outcome, good or bad, is noted where the site sees it.

    place : opens it. shown : its address, without secrets. keep : so many stay. every_h : how often it is to be done.
    Raises BackupError, OSError.
    """
    now_s = utc()
    before = outcome_in(state)
    ok_s = before.ok_utc_s if before is not None else None
    try:
        with tempfile.TemporaryDirectory(prefix="tidegate-backup-") as folder:
            name = name_at(site.site.name, now_s)
            file = Path(folder) / name
            manifest = making.make(file, site, site_file, state, keys=keys, recordings=recordings)
            with place() as there:
                there.put(name, file)
                found = own(site.site.name, there.names())
                if found[-1] != name:
                    later = f"{found[-1]} is there, of a later time than {name}"
                    raise BackupError(f"{shown}: {later}; is the clock right? nothing was taken away")
                gone = found[:-keep]
                for old in gone:
                    there.remove(old)
    except (BackupError, OSError) as why:
        _note(state, BackupOutcome(shown, every_h, ok_s, now_s, str(why)[:300]), site.site.name)
        raise
    _note(state, BackupOutcome(shown, every_h, now_s, None, ""), site.site.name)
    return name, manifest, gone


def _note(state: Path, outcome: BackupOutcome, site: str) -> None:
    """Where the site looks for it, and in its journal."""
    atomic_file.replace(state / OUTCOME, json.dumps(outcome._asdict()).encode(), 0o640)
    name, detail = (NOTED_FAILED, outcome.why) if outcome.why else ("backup", f"to {outcome.place}")
    with contextlib.suppress(ClientError), Client(site=site, timeout_s=3.0) as client:
        client.ask("note", name=name, detail=detail[:150])
