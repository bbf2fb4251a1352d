"""The latches on disk: what waits for a person's acknowledgement outlives a crash of the core, of us and of the power.

The loop writes them into shared memory; whoever is about to tell somebody (the gateway) and the supervisor put them on
disk first. Both may, in any order: the one who holds the lock writes what is true then. Rows are kept by their name, so
that a file from before an update means the same. Losing an acknowledgement is harmless, losing a latch is not.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tidegate.ext.abi.shared import Shared
from tidegate.ext.safety.diagnosis import FAULT_IDS
from tidegate.runtime.state.atomic_file import replace, sweep

VERSION = 1
FILE = "latches.json"
LOST = "latches_lost"  # the row that stands for what cannot be read
BYTES_MAX = 1 << 20
RETRY_S = 1.0  # a full disk is asked again after so long
LOCK_S, LOCK_EVERY_S = 2.0, 0.002


class Latched(NamedTuple):
    """What a unit has latched: rows as bits, and the row that came first (-1: not known)."""

    bits: int
    first: int


class LatchFile:
    """The file of one site. units : names of its storage units, in the program's order."""

    def __init__(self, state: Path, units: list[str]) -> None:
        self.path = state / FILE
        self.units = units
        self._again_s = 0.0
        self.error = ""  # why the last try to keep them failed

    def keep(self, memory: Shared) -> bool:
        """Put the latches on disk if they have changed since; false if the disk refuses, with the reason in `error`.

        Returns at once, by one load, where nothing has changed.
        """
        if memory.latch_kept >= memory.latch_changes:
            self.error = ""
            return True
        if self.error and time.monotonic() < self._again_s:
            return False
        try:
            with self._alone():
                if memory.latch_kept < memory.latch_changes:
                    changes, bits, first = memory.latches
                    self.write([Latched(*unit) for unit in zip(bits, first, strict=True)])
                    memory.latches_are_kept(changes)
        except OSError as why:
            self._again_s = time.monotonic() + RETRY_S
            self.error = f"{self.path}: {why.strerror or why}; latches would not outlive a restart"
            return False
        self.error = ""
        return True

    def write(self, latched: list[Latched]) -> None:
        """Replace the file, durable when this returns. Raises OSError, and then the old one stands."""
        units = {
            name: {"latched": _names(unit.bits), "first": FAULT_IDS[unit.first] if unit.first >= 0 else None}
            for name, unit in zip(self.units, latched, strict=True)
        }
        body = {"v": VERSION, "units": units}
        replace(self.path, json.dumps({**body, "sha256": _digest(body)}, indent=1).encode() + b"\n")

    def read(self) -> tuple[list[Latched], str]:
        """What each unit had latched, and what is wrong with the file ("" = nothing).

        No file: nothing was ever latched here. A file that cannot be read or is not what was written: `latches_lost` in
        every unit, since which rows it held, and of which unit, nobody knows any more.
        """
        sweep(self.path.parent, FILE)
        lost = Latched(1 << FAULT_IDS.index(LOST), FAULT_IDS.index(LOST))
        try:
            with open(self.path, "rb") as file:
                raw = file.read(BYTES_MAX)
        except FileNotFoundError:
            return [Latched(0, -1)] * len(self.units), ""
        except OSError as why:
            return [lost] * len(self.units), f"{self.path}: {why.strerror}"
        try:
            found = _checked(raw)
            gone = [name for name, unit in found.items() if unit["latched"] and name not in self.units]
            if gone:
                raise ValueError(f"it keeps a latch of {', '.join(gone)}, and the site has no such unit")
            return [_unit(found.get(name)) for name in self.units], ""
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as why:
            return [lost] * len(self.units), f"{self.path}: {why}"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder's lock. Raises BlockingIOError if another process does not give it back in time.

        Who was stopped in the middle of a write must not stop everybody else; who was killed has given it back.
        """
        until = time.monotonic() + LOCK_S
        fd = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= until:
                        raise
                    time.sleep(LOCK_EVERY_S)
            yield
        finally:
            os.close(fd)


def words_of(latched: list[Latched]) -> list[str]:
    """Arguments for the core process: what it is to restore."""
    return [
        word
        for unit, one in enumerate(latched)
        if one.bits
        for word in ("--latched", f"{unit}={one.bits:#x},{one.first}")
    ]


def told(units: list[str], latched: list[Latched]) -> list[str]:
    """One line for people for each unit that starts latched."""
    return [
        f"{name} starts tripped, latched before: {', '.join(_names(one.bits))}; "
        "`tidegate set ack`, then `tidegate set run`"
        for name, one in zip(units, latched, strict=False)
        if one.bits
    ]


def _names(bits: int) -> list[str]:
    return [name for row, name in enumerate(FAULT_IDS) if bits >> row & 1]


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _checked(raw: bytes) -> dict[str, Any]:
    body = json.loads(raw)
    digest = body.pop("sha256")
    if digest != _digest(body):
        raise ValueError("it is not what was written (sha256 differs)")
    if body["v"] != VERSION:
        raise ValueError(f"it has version {body['v']}, this release reads {VERSION}")
    units: dict[str, Any] = body["units"]
    return units


def _unit(found: dict[str, Any] | None) -> Latched:
    if found is None:
        return Latched(0, -1)
    for name in found["latched"]:
        if name not in FAULT_IDS:
            raise ValueError(f"it keeps a latch of {name}, which this release does not know")
    bits = sum(1 << FAULT_IDS.index(name) for name in set(found["latched"]))
    return Latched(bits, FAULT_IDS.index(found["first"]) if found["first"] in FAULT_IDS else -1)
