"""What the loop asks of an island's devices, given to them: one round after the other, and a safe end.

The loop asks (`site.genset_wanted`, `site.pv_limit_w`) and never waits: this is one of its clients, which may die.
"""

import contextlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TextIO

from tidegate.ext.abi.shared import ISLAND_NAMES
from tidegate.runtime.api.connection import ClientError
from tidegate.runtime.api.messages import QUALITIES, Message
from tidegate.runtime.island.genset_orders import GensetOrders
from tidegate.runtime.island.island_unit import IslandFile, IslandFileError, read_island_file
from tidegate.runtime.island.order_desk import BY_CONVERTERS, ON_GRID, IslandError, OrderDesk, Word
from tidegate.runtime.island.pv_orders import PvOrders
from tidegate.runtime.planner.adapter_audit import Note
from tidegate.runtime.planner.adapter_guard import only_adapter
from tidegate.runtime.state import atomic_file
from tidegate.runtime.state.noted_failures import ISLAND_DEVICE
from tidegate.runtime.tools.modbus_register import Lines, line_of_site

STATUS_FILE, LOCK_FILE = "island-status-*.json", "island-lock-*"
POINTS = ("site.island", "site.genset_wanted", "site.pv_limit_w")
GOOD = QUALITIES.index("good")

Ask = Callable[[], Message]


class Round(Protocol):
    """A round of one kind of device. Raises OSError."""

    def __call__(self, *, silent: bool) -> None: ...


def word_of(answer: Message, silent_s: float) -> Word | None:
    """What an answer to `get` with ages says; None where it says nothing that is known now."""
    points, ages = answer["points"], answer["ages_ms"]

    def known(name: str) -> float | None:
        value, quality = points[name]
        age_ms = ages[name]
        fresh = age_ms is not None and age_ms <= silent_s * 1e3
        return float(value) if value is not None and quality == GOOD and fresh else None

    island, wanted, limit_w = map(known, POINTS)
    if island is None or wanted is None or round(island) not in range(len(ISLAND_NAMES)):
        return None
    return Word(
        ISLAND_NAMES[round(island)], wanted != 0.0, limit_w if limit_w is not None and math.isfinite(limit_w) else None
    )


@dataclass
class IslandDevices:
    """hear: asks the site for POINTS with their ages, or raises ClientError; None where there is none to ask."""

    file: IslandFile
    folder: Path
    hear: Ask | None
    dry_run: bool = False
    note: Note | None = None
    utc: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    ports: Callable[[], list[Message]] | None = None  # asks the site for its serial ports; None: not looked at
    lines_of: Callable[[float], Lines] = Lines  # replaced in tests
    shown: set[str] = field(default_factory=set)  # doubts that people have been told of

    def __post_init__(self) -> None:
        self.desk = OrderDesk(self.file, self.folder, self.dry_run, self.note, self.utc, self.monotonic)
        self.genset = None if self.file.genset is None else GensetOrders(self.desk, self.file.genset)
        self.pv = PvOrders(self.desk, self.file.inverters)
        self._heard_s = self.monotonic()
        self._known = False  # whether the site was heard once, and has none of our lines

    @property
    def doubts(self) -> dict[str, str]:
        """What of the last round is not as it should be: key -> text."""
        return self.desk.doubts

    def round(self, *, ends: bool = False) -> None:
        """Once. What goes wrong is in `doubts`. ends: leave everything as the file has it without a word.

        Until the site has been heard once nothing is touched that is not claimed. Raises IslandFileError where a line
        of the file is one of the site's own.
        """
        desk = self.desk
        desk.doubts.clear()
        desk.ends = ends
        silent = not self._hear() or self.hear is None
        try:
            desk.load()
            if not self._known and not desk.genset.on and not desk.limits:
                return
            with self.lines_of(self.file.ask_s) as desk.lines:
                if self.genset is not None:
                    self._one("genset", self.genset.round, silent)
                self._one("pv", self.pv.round, silent)
        except IslandError as why:
            desk.doubts["claim"] = str(why)
        finally:
            self._note_doubts()
            with contextlib.suppress(OSError):  # a full disk costs the words
                self._write_status()

    def _one(self, what: str, run: Round, silent: bool) -> None:
        try:
            run(silent=silent)
        except OSError as why:
            self.desk.doubts[f"{what} claim"] = f"{what}: {why}: no order without its entry in audit and claim"

    def _hear(self) -> bool:
        """Whether the site has said what it wants within silent_s."""
        desk, now = self.desk, self.monotonic()
        desk.word = None
        why = "it says nothing of an island: has its file an [island]?"
        if self.hear is not None:
            try:
                desk.word = word_of(self.hear(), self.file.silent_s)
            except (ClientError, KeyError, ValueError, TypeError) as error:
                why = str(error)
        if desk.word is not None and not self._known:
            self._look_at_ports()
        if desk.word is not None:
            self._heard_s = now
        if desk.word is None or desk.word.island not in (ON_GRID, BY_CONVERTERS):
            desk.grid_since_s = None
        elif desk.grid_since_s is None:
            desk.grid_since_s = now
        silent = now - self._heard_s > self.file.silent_s
        if silent and self.hear is not None:
            desk.doubts["site"] = f"the site has said nothing for {self.file.silent_s:g} s and more: {why}"
        return not silent

    def _look_at_ports(self) -> None:
        desk = self.desk
        try:
            clash = "" if self.ports is None else line_of_site(self.file.registers, self.ports())
        except ClientError:
            desk.word = None  # asked again the next round
            return
        if clash:
            raise IslandFileError(clash)
        self._known = True

    def _note_doubts(self) -> None:
        """A doubt goes to the journal once when it comes, and once when it has gone."""
        if self.note is None:
            return
        for key, text in self.doubts.items():
            if key not in self.shown:
                self.note(ISLAND_DEVICE, f"{self.file.name}: {text}"[:150])
        for key in self.shown - set(self.doubts):
            self.note("island-devices", f"{self.file.name}: {key}: no more"[:150])
        self.shown = set(self.doubts)

    def left(self) -> str:
        """After a round with `ends`: what is not as the file has it without a word; "" where all is."""
        rows = [self.genset.left() if self.genset is not None else "", self.pv.left()]
        rows += [text for key, text in self.doubts.items() if key.endswith("claim")]
        return "; ".join(one for one in rows if one)

    def status(self) -> dict[str, object]:
        """For people and metrics."""
        word = self.desk.word
        return {
            "utc_s": int(self.utc()), "dry_run": self.dry_run, "island": None if word is None else word.island,
            "genset_wanted": None if word is None else word.wanted, "pv_limit_w": self.pv.limit_w,
            "genset": None if self.genset is None else self.genset.status(), "pv": self.pv.status(),
            "doubts": list(self.doubts.values()),
        }  # fmt: skip

    def _write_status(self) -> None:
        atomic_file.replace(self.desk.path(STATUS_FILE), json.dumps(self.status()).encode(), durable=False)


def ask_site(ask: Callable[..., Message]) -> Ask:
    """What `IslandDevices` hears by, from a client's `ask`."""
    return lambda: ask("get", points=list(POINTS), ages=True)


def only_devices(folder: Path, name: str) -> TextIO:
    """The lock of a unit's one adapter, held while open. Raises IslandError."""
    return only_adapter(folder / LOCK_FILE.replace("*", name), name, IslandError)


def devices_safe(folder: Path, path: Path, pid: int, dry_run: bool = False) -> str:
    """For the guard of the adapter `pid`: all as the file has it without a word; "" when nothing is left."""
    if dry_run:
        return ""  # what stands is of an earlier run, and a dry one writes nothing
    try:
        file = read_island_file(path)
        if (folder / LOCK_FILE.replace("*", file.name)).read_text().strip() != str(pid):
            return ""  # another adapter has taken it over, claims and all
        devices = IslandDevices(file, folder, None)
        devices.round(ends=True)
    except (IslandFileError, IslandError, OSError) as why:
        return str(why)
    left = devices.left()
    return "; ".join([left, *devices.doubts.values()]) if left else ""
