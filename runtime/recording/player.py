"""Recorded cycles through the compiled core again, and through a second one that is configured otherwise."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tidegate.ext.abi import program
from tidegate.ext.abi.copies import Picture
from tidegate.ext.abi.image import MODES_BY_NUMBER, REASONS_BY_NUMBER, fixed_points
from tidegate.ext.abi.shared import Shared
from tidegate.ext.cycle.loop import Core
from tidegate.ext.record.replay import Replay

COMPARED = (
    "site.setpoint_w",
    "site.request_w",
    "site.reason",
    "site.mode",
    "site.grid_limit_w",
    "site.corridor_lo_w",
    "site.corridor_hi_w",
    "site.envelope_lo_w",
    "site.envelope_hi_w",
    "site.fault_bits_lo",
    "site.fault_bits_hi",
    "site.fault_bits_64",
    "site.fault_bits_96",
)


class _Side:
    """A core that nothing drives but the replay, with a shared memory of its own."""

    def __init__(self, blob: bytes) -> None:
        self.blob = blob
        self.rows = program.rows(blob)
        self.names = [row["name"] for row in self.rows["points"]]
        self.index = {name: i for i, name in enumerate(self.names)}
        self.shared, self._fd = Shared.memfd("tidegate-replay")
        self.core = Core(blob, self.shared)

    def close(self) -> None:
        os.close(self._fd)

    def picture(self) -> Picture:
        picture = self.shared.read_image()
        assert picture is not None  # nobody writes it but the cycle that has ended
        return picture


@dataclass
class Difference:
    """How one point of two configurations differed over the cycles that were looked at."""

    name: str
    cycles: int = 0
    first_cycle: int = -1
    first: tuple[float, float] = (0.0, 0.0)
    largest: float = 0.0


@dataclass
class Outcome:
    """What came of a replay.

    differs_cycle : the first whose decisions were others, None = all were the same; what : names what was.
    apart         : (point, recorded, here) by the first state recorded from there on.
    """

    cycles: int = 0
    differs_cycle: int | None = None
    differs_t_ns: int = 0
    what: tuple[str, ...] = ()
    apart: list[tuple[str, float, float]] = field(default_factory=list)
    cut: int = 0
    looked_at: int = 0
    follows: bool = True
    missing: list[str] = field(default_factory=list)
    differences: dict[str, Difference] = field(default_factory=dict)
    discharged_ws: list[float] = field(default_factory=lambda: [0.0, 0.0])


class Player:
    """Repeats recorded cycles.

    blob   : the recorded program.
    beside : another program that decides on the same readings.
    exact  : recorded by a processor of this kind.
    """

    def __init__(self, blob: bytes, beside: bytes | None = None, *, exact: bool = True) -> None:
        self.ours = _Side(blob)
        self.replay = Replay(self.ours.core, exact)
        self.theirs: _Side | None = None
        self.outcome = Outcome()
        self._last_t_ns = 0
        if beside is not None:
            theirs = self.theirs = _Side(beside)
            readings = self.ours.names[len(fixed_points(len(self.ours.rows["units"]))) :]
            pairs = [(self.ours.index[name], theirs.index[name]) for name in readings if name in theirs.index]
            self.outcome.missing = [name for name in readings if name not in theirs.index]
            same = self.ours.names == theirs.names and len(self.ours.rows["units"]) == len(theirs.rows["units"])
            self.replay.beside(theirs.core, pairs, same)

    def close(self) -> None:
        """Give the memory back."""
        self.ours.close()
        if self.theirs is not None:
            self.theirs.close()

    def run(self, chunks: Iterable[bytes], every: int) -> Iterator[tuple[Picture, Picture | None]]:
        """Repeat all that the chunks hold and give the images after every so many cycles; ends where it differs.

        chunks : whole records, beginning with a state. Raises ValueError for bytes that are no records.
        """
        outcome = self.outcome
        left = every
        for chunk in chunks:
            place = 0
            while place < len(chunk) and outcome.differs_cycle is None:
                place, run, differs, t_ns, cut = self.replay.run(chunk, place, left)
                outcome.cycles += run
                outcome.cut += cut
                left -= run
                if differs is not None:
                    outcome.differs_cycle, outcome.differs_t_ns, outcome.what = differs, t_ns, self.replay.what
                if left <= 0 or differs is not None:
                    left = every
                    outcome.looked_at += 1
                    yield self.ours.picture(), self.theirs.picture() if self.theirs is not None else None
            if outcome.differs_cycle is not None:
                # To the next state, which has the recorded values: what the hashes cannot tell.
                place, *_ = self.replay.run(chunk, place, 1 << 62, to_state=True)
                if place < len(chunk):
                    rows = self.replay.points_apart(chunk, place)
                    outcome.apart = [(self.ours.names[i], one, two) for i, one, two in rows]
                    return
        outcome.follows = self.replay.follows

    def compare(self, ours: Picture, theirs: Picture) -> None:
        """Take note of how the two decided."""
        assert self.theirs is not None
        one, two = ours.values, theirs.values
        dt_s = (ours.t_ns - self._last_t_ns) * 1e-9 if self._last_t_ns else 0.0
        self._last_t_ns = ours.t_ns
        for name in COMPARED:
            a, b = one[self.ours.index[name]], two[self.theirs.index[name]]
            if name == "site.setpoint_w":
                self.outcome.discharged_ws[0] += a * dt_s
                self.outcome.discharged_ws[1] += b * dt_s
            if a == b or (a != a and b != b):
                continue
            found = self.outcome.differences.setdefault(name, Difference(name))
            if not found.cycles:
                found.first_cycle, found.first = ours.cycle, (a, b)
            found.cycles += 1
            found.largest = max(found.largest, abs(a - b))


def shown(name: str, value: float) -> str:
    """A compared value for people: modes and reasons by name, powers in W."""
    table = {"site.mode": MODES_BY_NUMBER, "site.reason": REASONS_BY_NUMBER}.get(name)
    if value != value:
        return "unknown"
    if table is not None and 0 <= value < len(table):
        return str(table[int(value)])
    return f"{value:.0f} W" if name.endswith("_w") else f"{value:.0f}"


def columns(picture: Picture, names: list[str]) -> dict[str, float | None]:
    """Name -> value or None of every point that is good or held."""
    return {
        name: value if quality in (1, 2) and value == value and abs(value) < 1e300 else None
        for name, value, quality in zip(names, picture.values, picture.qualities, strict=True)
    }
