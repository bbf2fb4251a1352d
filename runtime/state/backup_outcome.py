"""What came of the last backup that was made by itself: written by it, read by the site, which shows what is wrong."""

import json
from pathlib import Path
from typing import NamedTuple

OUTCOME = "backup.json"
NOTED_FAILED = "backup failed"  # the note that stands in the journal then
LATE = 2.0  # periods without a good one


class BackupOutcome(NamedTuple):
    """ok_utc_s : of the last good one, None = never. failed_utc_s, why : of the newest, if it failed."""

    place: str
    every_h: float
    ok_utc_s: float | None
    failed_utc_s: float | None
    why: str


def outcome_in(state: Path) -> BackupOutcome | None:
    """The outcome that lies in a site's folder; None where no backup is made by itself. One that is damaged says so."""
    path = state / OUTCOME
    try:
        found = json.loads(path.read_text("utf-8"))
        ok, failed = found["ok_utc_s"], found["failed_utc_s"]
        return BackupOutcome(str(found["place"]), float(found["every_h"]), None if ok is None else float(ok),
                             None if failed is None else float(failed), str(found["why"]))  # fmt: skip
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as why:
        return BackupOutcome(str(path), 0.0, None, None, f"what came of the last one cannot be read ({why!r})")


def late_s(outcome: BackupOutcome, utc_s: float) -> float | None:
    """How long the last good one is ago, s, where that is longer than it may be; None: it is not, or there was none."""
    if outcome.ok_utc_s is None:
        return None
    ago_s = utc_s - outcome.ok_utc_s
    return ago_s if ago_s > LATE * outcome.every_h * 3600.0 else None
