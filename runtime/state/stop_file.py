"""What a person ordered to stand still, on disk: the stop, lock-outs, and whether orders from other machines count.

It lies twice: in the state folder, which outlives the power, and in the runtime folder, which is another disk. So a
state disk that is full or dead does not forget a stop over a crash, and whichever copy is newer is right. A copy that
cannot be read stands for a stop of which nobody knows any more.

A mark beside it, the empty file `stopped`, is a stop by who could write no more than that: a signal to the supervisor
or the core, or a release before this one.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec

from tidegate.runtime.state.atomic_file import replace, sweep, sync_folder
from tidegate.runtime.state.plain_file import FLAGS, read_plain

FILE = "stops.json"
MARK = "stopped"
BYTES_MAX = 1 << 16


@dataclass
class Stop:
    """Who stopped the site, with which right, and from where."""

    by: str
    role: str
    is_local: bool
    utc_s: int = 0


@dataclass
class Lockout:
    """A person's lock on the site: it stays until that person takes it off."""

    name: str
    reason: str
    by: str
    utc_s: int = 0


@dataclass
class Stops:
    """All that keeps a site from running by order. is_local : orders from other machines are refused."""

    number: int = 0
    stop: Stop | None = None
    lockouts: list[Lockout] = field(default_factory=list)
    is_local: bool = False

    @property
    def stopped(self) -> bool:
        return self.stop is not None or bool(self.lockouts)


class StopFile:
    """The record of one site. state, runtime : its two folders."""

    def __init__(self, state: Path, runtime: Path) -> None:
        self.folders = (state, runtime)
        self.error = ""  # why the last try to keep it in the state folder failed

    def read(self, former: Callable[[], str] = lambda: "") -> tuple[Stops, str]:
        """What holds, and what is wrong with the record ("" = nothing).

        former : tells, where there is no record, why there should be one ("" = there never was).
        """
        found: list[Stops] = []
        damage = ""
        for folder in self.folders:
            path = folder / FILE
            sweep(folder, FILE)
            try:
                found.append(_checked(read_plain(path, BYTES_MAX)))
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as why:
                damage = f"{path}: {why.strerror if isinstance(why, OSError) else why}"
        stops = max(found, key=lambda one: one.number, default=Stops())
        if not found and not damage:
            said = former()
            damage = f"{self.folders[0] / FILE} is not there, and {said}" if said else ""
        if damage and not found:
            stops.stop = Stop("nobody knows any more", "maintain", True, 0)
        if self.marked() and stops.stop is None:
            stops.stop = Stop("a signal, or an earlier release", "maintain", True, 0)
        return stops, damage

    def marked(self) -> bool:
        """Tell whether somebody left the mark."""
        return any((folder / MARK).exists() for folder in self.folders)

    def write(self, stops: Stops) -> bool:
        """Keep it. False if the state folder refuses, with the reason in `error`: then a loss of power forgets it."""
        stops.number += 1
        body = asdict(stops)
        data = json.dumps({**body, "sha256": _digest(body)}, indent=1).encode() + b"\n"
        errors = []
        for folder in self.folders:
            try:
                replace(folder / FILE, data, 0o640)
                if stops.stop is None:
                    (folder / MARK).unlink(missing_ok=True)
            except OSError as why:
                errors.append((folder, f"{folder / FILE}: {why.strerror or why}"))
        self.error = next((said for folder, said in errors if folder == self.folders[0]), "")
        return not self.error

    def mark(self) -> str:
        """Leave the mark in both folders; what went wrong. For who has no time to find out what is written there."""
        errors = []
        for folder in self.folders:
            try:
                os.close(os.open(folder / MARK, os.O_WRONLY | os.O_CREAT | FLAGS | os.O_NOFOLLOW, 0o640))
                sync_folder(folder)
            except OSError as why:
                errors.append(f"{folder / MARK}: {why.strerror or why}")
        return "; ".join(errors)


def now_utc_s() -> int:
    """Wall time for a label, s."""
    return int(time.time())


def _digest(body: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _checked(raw: bytes) -> Stops:
    body = json.loads(raw)
    digest = body.pop("sha256")
    if digest != _digest(body):
        raise ValueError("it is not what was written (sha256 differs)")
    return msgspec.convert(body, type=Stops)
