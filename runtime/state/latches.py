"""The latches on disk: what waits for a person's acknowledgement outlives a crash of the core, of us and of the power.

The loop writes them into shared memory; whoever is about to tell somebody (the gateway) and the supervisor put them on
disk first. Both may, in any order: the one who holds the lock writes what is true then. Rows are kept by their name, so
that a file from before an update means the same. Losing an acknowledgement is harmless, losing a latch is not.

They lie twice, in the state folder and in the runtime folder, which is another disk. And they belong to this device and
its buses, not to a file or a name: where neither copy is there, the journal tells whether one should be
(`former.py`), and so does the folder of a site of another name on the same buses.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tidegate.ext.abi.shared import Shared
from tidegate.ext.safety.diagnosis import FAULT_IDS
from tidegate.runtime.state.atomic_file import replace, sweep
from tidegate.runtime.state.plain_file import read_plain

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
    """The file of one site.

    units : names of its storage units, in the program's order. spare : folder of the second copy. buses : what it is
    connected to, by which a site of another name on the same device is known.
    """

    def __init__(self, state: Path, units: list[str], spare: Path | None = None, buses: Sequence[str] = ()) -> None:
        self.path = state / FILE
        self.spare = spare / FILE if spare is not None else None
        self.units = units
        self.buses = sorted(buses)
        self._number = 0
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
            self.error = f"{self.path}: {why.strerror or why}; latches would not outlive a loss of power"
            with contextlib.suppress(OSError):
                self._write_spare([Latched(*unit) for unit in zip(*memory.latches[1:], strict=True)])
            return False
        self.error = ""
        return True

    def write(self, latched: list[Latched]) -> None:
        """Replace the file, durable when this returns. Raises OSError, and then the old one stands."""
        replace(self.path, self._text(latched))
        with contextlib.suppress(OSError):
            self._write_spare(latched)

    def _write_spare(self, latched: list[Latched]) -> None:
        if self.spare is not None:
            replace(self.spare, self._text(latched))

    def _text(self, latched: list[Latched]) -> bytes:
        units = {
            name: {"latched": _names(unit.bits), "first": FAULT_IDS[unit.first] if unit.first >= 0 else None}
            for name, unit in zip(self.units, latched, strict=True)
        }
        self._number = max(time.time_ns(), self._number + 1)
        body = {"v": VERSION, "number": self._number, "buses": self.buses, "units": units}
        return json.dumps({**body, "sha256": _digest(body)}, indent=1).encode() + b"\n"

    def read(self) -> tuple[list[Latched], str]:
        """What each unit had latched, and what is wrong with the file ("" = nothing).

        No file: nothing was ever latched here. A file that cannot be read or is not what was written: `latches_lost` in
        every unit, since which rows it held, and of which unit, nobody knows any more.
        """
        found: list[dict[str, Any]] = []
        damage = ""
        for path in (self.path, self.spare):
            if path is None:
                continue
            sweep(path.parent, FILE)
            try:
                found.append(_checked(read_plain(path, BYTES_MAX)))
            except FileNotFoundError:
                continue
            except OSError as why:
                damage = damage or f"{path}: {why.strerror}"
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as why:
                damage = damage or f"{path}: {why}"
        if not found:
            return self.lost() if damage else [Latched(0, -1)] * len(self.units), damage
        newest = max(found, key=lambda body: int(body.get("number", 0)))
        self._number = int(newest.get("number", 0))
        try:
            units = newest["units"]
            gone = [name for name, unit in units.items() if unit["latched"] and name not in self.units]
            if gone:
                raise ValueError(f"it keeps a latch of {', '.join(gone)}, and the site has no such unit")
            # One copy is enough to go on; that the other is not what was written is said.
            return [_unit(units.get(name)) for name in self.units], damage
        except (ValueError, KeyError, TypeError, AttributeError) as why:
            return self.lost(), f"{self.path}: {why}"

    def lost(self) -> list[Latched]:
        """For each unit the row that stands for latches of which nobody knows any more."""
        row = FAULT_IDS.index(LOST)
        return [Latched(1 << row, row)] * len(self.units)

    def start(self, former: Callable[[], str] = lambda: "") -> tuple[list[Latched], str]:
        """What to start with, and why if it is not simply what was kept.

        former : tells, where there is no record, why there should be one ("" = there never was).
        A state folder that cannot be written forgets the next latch as well: then nothing starts by itself either.
        """
        latched, damage = self.read()
        there = self.path.exists() or (self.spare is not None and self.spare.exists())
        if not damage and not there:
            why = former()
            if why:
                latched, damage = self.lost(), f"{self.path} is not there, and {why}"
        try:
            with self._alone():
                self.write(latched)
        except OSError as error:
            damage = damage or f"{self.path}: {error.strerror or error}; the next latch would be forgotten"
            latched = [Latched(one.bits | lost.bits, one.first if one.bits else lost.first)
                       for one, lost in zip(latched, self.lost(), strict=True)]  # fmt: skip
        return latched, damage

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
    if not isinstance(body, dict):
        raise ValueError("it is no record of latches")
    digest = body.pop("sha256")
    if digest != _digest(body):
        raise ValueError("it is not what was written (sha256 differs)")
    if body["v"] != VERSION:
        raise ValueError(f"it has version {body['v']}, this release reads {VERSION}")
    if not isinstance(body["units"], dict) or not isinstance(body.get("number", 0), int):
        raise ValueError("its units or its number are not what they should be")
    found: dict[str, Any] = body
    return found


def buses_of(folder: Path) -> list[str]:
    """What the site of another state folder was connected to. Raises ValueError or OSError for a file that is none."""
    body = _checked(read_plain(folder / FILE, BYTES_MAX))
    return [str(bus) for bus in body.get("buses", [])]


def latched_in(folder: Path) -> list[str]:
    """Rows that the site of another state folder has latched. Raises ValueError or OSError."""
    body = _checked(read_plain(folder / FILE, BYTES_MAX))
    return sorted({name for unit in body["units"].values() for name in unit["latched"]})


def _unit(found: dict[str, Any] | None) -> Latched:
    if found is None:
        return Latched(0, -1)
    for name in found["latched"]:
        if name not in FAULT_IDS:
            raise ValueError(f"it keeps a latch of {name}, which this release does not know")
    bits = sum(1 << FAULT_IDS.index(name) for name in set(found["latched"]))
    return Latched(bits, FAULT_IDS.index(found["first"]) if found["first"] in FAULT_IDS else -1)
