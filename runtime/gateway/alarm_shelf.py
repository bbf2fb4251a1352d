"""Alarms, and those that somebody has put aside for a time, with a reason (ISA-18.2: shelved).

Shelving changes nothing of what the controller does: the alarm stays in every answer, with who, why and for how long,
and nobody is called for it meanwhile. When its time is over it is back by itself.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec

from tidegate.runtime.state.plain_file import FLAGS, read_plain
from tidegate.runtime.state.process_users import mode_in

FILE = "shelved.json"
SHELVED_MAX = 64
SHELVE_MS_MAX = 86_400_000  # a day; what is to be quiet for longer is to be mended, or asked for again


class Remedy(msgspec.Struct):
    """What ends an alarm: the condition must hold for so long, and where it latches somebody must acknowledge."""

    condition: str
    for_ms: int
    acknowledge: bool


class Shelved(msgspec.Struct):
    """Put aside: by whom, why, and for how long still."""

    unit: str
    alarm: str
    by: str
    reason: str
    since_utc_s: int
    left_s: float


class Alarm(msgspec.Struct):
    id: str
    unit: str
    text: str
    reaction: str
    active: Annotated[bool, msgspec.Meta(description="its cause is there now; else only the latch is left")]
    latched: bool
    since_s: Annotated[float | None, msgspec.Meta(description="none = from before the core's last events")]
    cause: str
    remedy: Remedy
    finding: Annotated[str, msgspec.Meta(description="what the evidence points to, title of one of the findings")] = ""
    shelved: Annotated[Shelved | None, msgspec.Meta(description="somebody has put it aside; nobody is called")] = None


class FindingSaid(msgspec.Struct):
    """A cause that the evidence points to: what, why that is thought, what to do, which alarms it explains."""

    title: str
    because: str
    remedy: str
    alarms: list[str]
    weight: Annotated[int, msgspec.Meta(description="the larger, the sooner to look at")]


class AlarmShelf:
    """What is shelved, over restarts. Monotonic here, UTC on disk: a clock that steps shelves nothing longer.

    monotonic, utc : seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, utc: Callable[[], float] = time.time) -> None:
        self._monotonic, self._utc = monotonic, utc
        self._path: Path | None = None
        self._held: dict[tuple[str, str], tuple[Shelved, float]] = {}  # until, monotonic
        self.damaged = ""

    def keep_in(self, folder: Path) -> None:
        """Go on with what the file holds, and keep it there. What cannot be read is not shelved any more."""
        self._path = folder / FILE
        try:
            rows = msgspec.json.decode(read_plain(self._path), type=list[Shelved])
        except FileNotFoundError:
            return
        except (OSError, ValueError, RecursionError) as why:
            self.damaged = f"{self._path}: {why}; no alarm is shelved"
            return
        for row in rows[:SHELVED_MAX]:
            gone_s = self._utc() - row.since_utc_s
            left_s = min(row.left_s, SHELVE_MS_MAX / 1000) - gone_s
            if gone_s >= 0 and left_s > 0:
                self._held[row.unit, row.alarm] = (row, self._monotonic() + left_s)

    def put(self, unit: str, alarm: str, by: str, reason: str, for_s: float) -> None:
        """Shelve an alarm, or for another time. Raises OSError where that cannot be kept; then nothing is shelved."""
        held = dict(self._held)
        row = Shelved(unit, alarm, by, reason, int(self._utc()), for_s)
        held[unit, alarm] = (row, self._monotonic() + for_s)
        self._write(held)
        self._held = held

    def end(self, unit: str, alarm: str) -> Shelved | None:
        """Take it off the shelf; gives what was there."""
        found = self._held.pop((unit, alarm), None)
        with contextlib.suppress(OSError):  # a file that says more than is shelved ends by its own time
            self._write(self._held)
        return None if found is None else found[0]

    @property
    def full(self) -> bool:
        return len(self._held) >= SHELVED_MAX

    def of(self, unit: str, alarm: str) -> Shelved | None:
        """How it is shelved now."""
        found = self._held.get((unit, alarm))
        left_s = 0.0 if found is None else found[1] - self._monotonic()
        if found is None or left_s <= 0:
            return None
        row = found[0]
        return Shelved(row.unit, row.alarm, row.by, row.reason, row.since_utc_s, round(left_s, 1))

    def all(self) -> list[Shelved]:
        """All that is shelved now."""
        rows = (self.of(*key) for key in sorted(self._held))
        return [row for row in rows if row is not None]

    def over(self) -> list[Shelved]:
        """What is back since the last time that this was asked."""
        now_s = self._monotonic()
        keys = [key for key, (_, until_s) in self._held.items() if until_s <= now_s]
        return [row for key in keys if (row := self.end(*key)) is not None]

    def _write(self, held: dict[tuple[str, str], tuple[Shelved, float]]) -> None:
        if self._path is None:
            return
        new = self._path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | FLAGS | os.O_NOFOLLOW
        fd = os.open(new, flags, mode_in(new.parent, 0o600))
        try:
            os.write(fd, json.dumps([msgspec.to_builtins(row) for row, _ in held.values()]).encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(new, self._path)
