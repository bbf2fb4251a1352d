"""What an adapter orders, one JSON line each, and what it doubts: files of the planner's folder for its owner.

Doubts are what the planner's status repeats, so that nobody has to look at each adapter.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

from tidegate.runtime.state import atomic_file

AUDIT_BYTES = 10_000_000
NOTE_CHARS = 150
DOUBTS = "doubts-*.json"
COOLING_ADVICE = "cooling-advice-*.json"  # what each cooling adapter thinks of its room, for the planner's status
DOUBTS_SILENT_S = 900.0  # an adapter says so each round, at most five minutes apart
DOUBTS_MAX = 50

Note = Callable[[str, str], None]


class AdapterAudit:
    """Appends to `path`, keeps one file before it; note: also puts a short text in the site's journal."""

    def __init__(self, path: Path, adapter: str, note: Note | None = None) -> None:
        self.path, self._adapter, self._note = path, adapter, note

    def write(self, now: float, row: dict[str, object], short: str, became: str) -> None:
        """Before an order is given ("asked", "dry run"), and after it was refused. Raises OSError."""
        line = json.dumps({"utc_s": int(now), **row, "became": became})
        if self.path.exists() and self.path.stat().st_size > AUDIT_BYTES:
            self.path.replace(self.path.with_suffix(".jsonl.1"))
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        if self._note is not None:
            self._note(self._adapter, f"{short} ({became})"[:NOTE_CHARS])


def write_doubts(folder: Path, adapter: str, doubts: list[str]) -> None:
    """In the place of those of its last round; none at all are written too: it speaks. Raises OSError."""
    atomic_file.replace(folder / DOUBTS.replace("*", adapter), json.dumps(doubts[:DOUBTS_MAX]).encode())


def end_doubts(folder: Path, adapter: str) -> None:
    """The adapter ended in order: its silence is none."""
    (folder / DOUBTS.replace("*", adapter)).unlink(missing_ok=True)


def adapter_doubts(folder: Path) -> list[str]:
    """In words, what each adapter of a folder doubts, and which of them speaks no more."""
    said = []
    for path in sorted(folder.glob(DOUBTS)):
        name = path.stem.removeprefix("doubts-")
        try:
            doubts = [str(one) for one in json.loads(path.read_text(encoding="utf-8"))]
            silent = time.time() - path.stat().st_mtime > DOUBTS_SILENT_S
        except (OSError, ValueError, TypeError) as why:
            said.append(f"{path}: {why}; is the adapter {name} running? Remove the file if it is not to run")
            continue
        if silent:
            said.append(f"{path}: not written for {DOUBTS_SILENT_S / 60:.0f} min, is the adapter {name} running? "
                        "Remove the file if it is not to run")  # fmt: skip
        said += [f"{name}: {one}" for one in doubts]
    return said
