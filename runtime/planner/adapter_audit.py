"""What an adapter orders, one JSON line each, in a file of the planner's folder that its owner can read."""

import json
from collections.abc import Callable
from pathlib import Path

AUDIT_BYTES = 10_000_000
NOTE_CHARS = 150

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
