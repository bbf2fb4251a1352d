"""What the site's powers and states of charge were: three rings of bounded length on disk, read at any width.

Source is the journal's meter record, one a second, so that what was missed while this process was away comes by replay
from where the store ended: the position in the journal is kept in the same transaction as the values before it.

A chunk is the values of one series over a fixed span; a slot without a reading is NaN. The seconds ring keeps each
reading; the others keep least, most, mean and how many readings a slot had. Everything is float32, its bytes regrouped
before they are compressed.
"""

import math
import sqlite3
import threading
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tidegate.runtime.api.messages import Message

if TYPE_CHECKING:
    Floats = array[float]
else:
    Floats = array  # generic for type checkers only before Python 3.12

NAN = math.nan
SIZE_MAX = 2 << 30
FLUSH_S = 900
SCHEMA = """
CREATE TABLE IF NOT EXISTS series (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS chunk (
    ring INTEGER NOT NULL, series INTEGER NOT NULL, start INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (ring, series, start)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_time ON chunk (ring, start);
CREATE TABLE IF NOT EXISTS dropped (ring INTEGER PRIMARY KEY, until INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS position (stream TEXT PRIMARY KEY, boot TEXT NOT NULL, seq INTEGER NOT NULL);
"""


class Ring(NamedTuple):
    """One resolution. slot_s: of a value; slots: of a chunk; kept_s: how far back."""

    slot_s: int
    slots: int
    kept_s: int

    @property
    def chunk_s(self) -> int:
        """Seconds that a chunk spans."""
        return self.slot_s * self.slots


DAY_S = 86_400
RINGS = (Ring(1, 900, 90 * DAY_S), Ring(60, 1440, 3 * 366 * DAY_S), Ring(900, 960, 10 * 366 * DAY_S))


class Slot(NamedTuple):
    """What is known of a stretch of time."""

    utc_s: int
    least: float
    most: float
    mean: float
    readings: float


@dataclass
class Chunk:
    """A series over one span. mean, least, most, readings: one value a slot, NaN or 0 where there is none."""

    slots: int
    mean: Floats = field(default_factory=lambda: array("f"))
    least: Floats = field(default_factory=lambda: array("f"))
    most: Floats = field(default_factory=lambda: array("f"))
    readings: Floats = field(default_factory=lambda: array("f"))

    @classmethod
    def empty(cls, slots: int) -> "Chunk":
        nothing = array("f", [NAN]) * slots
        return cls(slots, nothing[:], nothing[:], nothing[:], array("f", [0.0]) * slots)

    @classmethod
    def of(cls, data: bytes) -> "Chunk":
        """From what `packed` gave. Raises ValueError, zlib.error."""
        plain = zlib.decompress(data)
        quarter = len(plain) // 4
        words = bytearray(len(plain))
        for place in range(4):
            words[place::4] = plain[place * quarter : (place + 1) * quarter]
        whole = array("f", bytes(words))
        slots = len(whole) // 4
        if slots * 4 != len(whole):
            raise ValueError("a chunk of odd length")
        return cls(slots, *(whole[at * slots : (at + 1) * slots] for at in range(4)))

    def packed(self) -> bytes:
        """Its bytes, the first of every number before the second of every number."""
        plain = (self.mean + self.least + self.most + self.readings).tobytes()
        return zlib.compress(b"".join(plain[place::4] for place in range(4)), 6)

    def put(self, slot: int, value: float, least: float, most: float) -> None:
        """Add a reading to a slot."""
        count = self.readings[slot]
        if not count:
            self.mean[slot], self.least[slot], self.most[slot] = value, least, most
        else:
            self.mean[slot] += (value - self.mean[slot]) / (count + 1)
            self.least[slot] = min(self.least[slot], least)
            self.most[slot] = max(self.most[slot], most)
        self.readings[slot] = count + 1


class HistoryStore:
    """The rings of one site in one file. Any thread; one call at a time. Raises OSError where there can be none."""

    def __init__(self, path: Path, size_max: int = SIZE_MAX, rings: tuple[Ring, ...] = RINGS) -> None:
        self.path, self.size_max, self.rings = path, size_max, rings
        self._lock = threading.Lock()
        self._open: dict[tuple[int, str, int], Chunk] = {}  # (ring, series, start) that was written to since the flush
        self._position: tuple[str, int] | None = None
        self._flushed_s = 0
        self.problem = ""
        try:
            self._db = sqlite3.connect(path, check_same_thread=False)
            self._db.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-2048;" + SCHEMA
            )
        except sqlite3.Error as why:
            raise OSError(f"{path}: {why}; move it away, and a new one is filled from the journal") from None
        self._ids = {name: ident for ident, name in self._db.execute("SELECT id, name FROM series")}

    def close(self) -> None:
        """Write what is open and close the file."""
        self.flush()
        with self._lock:
            self._db.close()

    # ---- writing ----

    @property
    def position(self) -> tuple[str, int] | None:
        """(boot, seq) of the last meter record that is on disk here; None: none yet."""
        with self._lock:
            row = self._db.execute("SELECT boot, seq FROM position WHERE stream = 'meter'").fetchone()
        return None if row is None else (str(row[0]), int(row[1]))

    def take(self, record: Message) -> None:
        """Add a meter record; written with all before it once a quarter of an hour is over."""
        utc_s = record["utc_ns"] // 1_000_000_000
        points = record["points"]
        with self._lock:
            for name, value, least, most in _kept(points):
                for number, ring in enumerate(self.rings):
                    start = utc_s // ring.chunk_s * ring.chunk_s
                    chunk = self._chunk(number, name, start)
                    chunk.put((utc_s - start) // ring.slot_s, value, least, most)
            self._position = (str(record["boot"]), int(record["seq"]))
            due = utc_s // FLUSH_S != self._flushed_s // FLUSH_S
        if due:
            self.flush()
            self._flushed_s = utc_s

    def flush(self) -> None:
        """Write what is open, with the position up to which it goes; then forget what is too old or too much."""
        with self._lock:
            try:
                self._write()
                self.problem = ""
            except sqlite3.Error as why:  # full, read-only: what is open stays open, and the journal has it too
                self._db.rollback()
                self.problem = f"{self.path}: {why}"

    def _write(self) -> None:
        newest = 0
        for (number, name, start), chunk in self._open.items():
            ident = self._ids.get(name)
            if ident is None:
                ident = self._db.execute("INSERT INTO series (name) VALUES (?)", (name,)).lastrowid
                assert ident is not None
                self._ids[name] = ident
            words = (number, ident, start, chunk.packed())
            self._db.execute("INSERT OR REPLACE INTO chunk VALUES (?, ?, ?, ?)", words)
            newest = max(newest, start)
        if self._position is not None:
            self._db.execute("INSERT OR REPLACE INTO position VALUES ('meter', ?, ?)", self._position)
        for number, ring in enumerate(self.rings):
            oldest = self._db.execute("SELECT min(start) FROM chunk WHERE ring = ?", (number,)).fetchone()[0]
            # At most a day at once: a clock that jumped ahead for a moment does not take everything.
            self._drop(number, min(newest - ring.kept_s, (oldest or 0) + max(DAY_S, ring.chunk_s)))
        self._db.commit()
        self._shrink()
        # The present chunk of each ring stays in memory: it is written to again at once.
        last = {
            number: max((s for n, _, s in self._open if n == number), default=0) for number in range(len(self.rings))
        }
        self._open = {key: chunk for key, chunk in self._open.items() if key[2] >= last[key[0]]}

    def _shrink(self) -> None:
        """The finest ring gives its oldest day until the file is within its bound."""
        while self._used() > self.size_max:
            for number in range(len(self.rings)):
                oldest = self._db.execute("SELECT min(start) FROM chunk WHERE ring = ?", (number,)).fetchone()[0]
                newest = self._db.execute("SELECT max(start) FROM chunk WHERE ring = ?", (number,)).fetchone()[0]
                if oldest is not None and oldest < newest:
                    step = max(DAY_S, self.rings[number].chunk_s)
                    until = min(newest, oldest + step)
                    self._drop(number, until)
                    self._db.commit()
                    break
            else:
                return

    def _drop(self, number: int, until: int) -> None:
        """Forget what a ring has from before a moment, and that it was forgotten: a coarser ring is then read."""
        done = self._db.execute("DELETE FROM chunk WHERE ring = ? AND start < ?", (number, until))
        if done.rowcount:
            self._db.execute("INSERT OR REPLACE INTO dropped VALUES (?, ?)", (number, until))

    def _used(self) -> int:
        pages, free, size = (
            self._db.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _chunk(self, number: int, name: str, start: int) -> Chunk:
        key = (number, name, start)
        found = self._open.get(key)
        if found is None:
            found = self._open[key] = self._stored(number, name, start) or Chunk.empty(self.rings[number].slots)
        return found

    def _stored(self, number: int, name: str, start: int) -> Chunk | None:
        if name not in self._ids:
            return None
        words = (number, self._ids[name], start)
        row = self._db.execute("SELECT data FROM chunk WHERE ring = ? AND series = ? AND start = ?", words).fetchone()
        try:
            return None if row is None else Chunk.of(row[0])
        except (ValueError, zlib.error):
            self.problem = f"{self.path}: a chunk of {name} at {start} is damaged and was left out"
            return None

    # ---- reading ----

    def names(self) -> list[str]:
        """Series that there are."""
        with self._lock:
            return sorted({*self._ids, *(name for _, name, _ in self._open)})

    def span(self) -> tuple[int, int] | None:
        """(oldest, newest) second that anything is known of."""
        with self._lock:
            starts = [start for _, _, start in self._open]
            row = self._db.execute("SELECT min(start), max(start) FROM chunk").fetchone()
        starts += [start for start in row if start is not None]
        return (min(starts), max(starts) + self.rings[0].chunk_s) if starts else None

    def ring_for(self, from_utc_s: int, until_utc_s: int, width: int) -> Ring:
        """The finest ring that reaches back so far and has not far more slots than can be shown."""
        for number, ring in enumerate(self.rings):
            if number + 1 == len(self.rings):
                return ring
            with self._lock:
                row = self._db.execute("SELECT until FROM dropped WHERE ring = ?", (number,)).fetchone()
            reaches = row is None or row[0] <= from_utc_s
            if (until_utc_s - from_utc_s) / ring.slot_s <= 4 * width and reaches:
                return ring
        raise AssertionError("there is a last ring")

    def slots(self, name: str, from_utc_s: int, until_utc_s: int, ring: Ring) -> Iterator[Slot]:
        """What is known of a series between two moments, in the ring's own slots; those without a reading left out."""
        number = self.rings.index(ring)
        for start in range(from_utc_s // ring.chunk_s * ring.chunk_s, until_utc_s, ring.chunk_s):
            with self._lock:
                chunk = self._open.get((number, name, start)) or self._stored(number, name, start)
            if chunk is None:
                continue
            for at, count in enumerate(chunk.readings):
                utc_s = start + at * ring.slot_s
                if count and from_utc_s <= utc_s < until_utc_s:
                    yield Slot(utc_s, chunk.least[at], chunk.most[at], chunk.mean[at], count)

    def read(self, name: str, from_utc_s: int, until_utc_s: int, width: int) -> tuple[int, list[Slot]]:
        """(seconds a slot, at most about `width` slots) with least and most of all that each covers."""
        ring = self.ring_for(from_utc_s, until_utc_s, width)
        per = max(1, math.ceil((until_utc_s - from_utc_s) / ring.slot_s / width))
        step_s = per * ring.slot_s
        return step_s, list(_joined(self.slots(name, from_utc_s, until_utc_s, ring), step_s))


def _joined(slots: Iterable[Slot], step_s: int) -> Iterator[Slot]:
    """Neighbours in one slot of `step_s`; the mean by readings."""
    now: Slot | None = None
    for slot in slots:
        begins = slot.utc_s // step_s * step_s
        if now is None or now.utc_s != begins:
            if now is not None:
                yield now
            now = slot._replace(utc_s=begins)
            continue
        readings = now.readings + slot.readings
        mean = (now.mean * now.readings + slot.mean * slot.readings) / readings
        now = Slot(begins, min(now.least, slot.least), max(now.most, slot.most), mean, readings)
    if now is not None:
        yield now


def _kept(points: Mapping[str, tuple[float | None, int]]) -> Iterator[tuple[str, float, float, float]]:
    """(name, value, least, most) of the powers and states of charge that a record has a good reading of."""
    for name, (value, _) in points.items():
        if value is None or not name.endswith(("_w", ".soc")) or name.endswith(("_min_w", "_max_w")):
            continue
        least = points.get(f"{name[:-2]}_min_w", (None, 0))[0]
        most = points.get(f"{name[:-2]}_max_w", (None, 0))[0]
        yield name, value, value if least is None else least, value if most is None else most
