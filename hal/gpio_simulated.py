"""A GPIO chip that is not there: contacts and pulses that happen by a schedule, edge by edge, for simulated sites.

Only the chip is simulated: debounce, chatter, dropped edges and frames are those of `gpio_lines`, which asks it for
edges as it asks the kernel. The schedule counts from the moment in which the lines are requested.
"""

import contextlib
import heapq
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from tidegate.hal.gpio_frames import Edge, Line, Play

HUM_S = 0.01  # an open wire picks up the mains: 50 Hz change level a hundred times a second
BOUNCE_S = 0.0005  # between two edges of a bouncing contact
PULSE_S = 0.03  # least length of an S0 pulse (IEC 62053-31)
SECOND_NS = 1_000_000_000


def _closed(play: Play) -> Iterator[tuple[float, bool]]:
    """A contact that is active for a while; at either end it bounces for `bounce_ms`."""
    for at_s, active in ((play.at_s, True), (play.at_s + play.for_s, False)):
        edges = round(play.bounce_ms * 1e-3 / BOUNCE_S)
        for i in range(edges + edges % 2):
            yield at_s + i * BOUNCE_S, active == (i % 2 == 0)
        yield at_s + (edges + edges % 2) * BOUNCE_S, active


def _hum(play: Play) -> Iterator[tuple[float, bool]]:
    """An open wire."""
    for i in range(round(play.for_s / HUM_S) if play.for_s < 1e8 else 10**10):
        yield play.at_s + i * HUM_S, i % 2 == 0
    yield play.at_s + play.for_s, False


def _pulses(play: Play) -> Iterator[tuple[float, bool]]:
    """Pulses at an even pace."""
    apart_s = 1.0 / play.per_s
    for i in range(round(play.for_s / apart_s) if play.for_s < 1e8 else 10**10):
        yield play.at_s + i * apart_s, True
        yield play.at_s + i * apart_s + min(PULSE_S, apart_s / 2), False


SHAPES = {"active": _closed, "floating": _hum, "pulses": _pulses}


def levels(plays: Sequence[Play]) -> Iterator[tuple[float, bool]]:
    """(s since the start, level) of each change of one line. What happens while it is stuck shows at its end."""
    stuck = [one for one in plays if one.does == "stuck"]
    ends = [[(one.at_s + one.for_s, None)] for one in stuck]
    shaped = [SHAPES[one.does](one) for one in plays if one.does != "stuck"]
    shown = wanted = False
    for t_s, level in heapq.merge(*shaped, *ends, key=lambda one: one[0]):
        wanted = wanted if level is None else level
        if wanted != shown and not any(one.at_s <= t_s < one.at_s + one.for_s for one in stuck):
            shown = wanted
            yield t_s, shown


class SimulatedChip:
    """Lines whose edges come by a schedule; what is driven is remembered."""

    def __init__(
        self, specs: Sequence[Line], plays: Sequence[Play], clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._clock, self._start_ns = clock, clock()
        numbers = {one.number: one.offset for one in specs if one.way == "in"}
        self.driven: dict[int, bool] = {}
        self._levels = dict.fromkeys(numbers.values(), False)
        self._numbers = dict.fromkeys(numbers.values(), 0)
        self._rising = {one.offset for one in specs if one.pulse}  # as they are asked of the kernel
        self._ahead = heapq.merge(
            *(self._of(offset, [one for one in plays if one.number == number]) for number, offset in numbers.items())
        )
        self._next = next(self._ahead, None)
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._closed = threading.Event()
        threading.Thread(target=self._wake, name="edges", daemon=True).start()

    @staticmethod
    def _of(offset: int, plays: Sequence[Play]) -> Iterator[tuple[float, int, bool]]:
        for t_s, level in levels(plays):
            yield t_s, offset, level

    def _wake(self) -> None:
        """Make the descriptor readable when an edge is due."""
        while (ahead := self._next) is not None:
            wait_s = ahead[0] - (self._clock() - self._start_ns) / 1e9
            if self._closed.wait(max(wait_s, 0.001)):
                break
            if wait_s <= 0.0:
                with contextlib.suppress(BlockingIOError):  # it is readable already
                    os.write(self._write, b"!")
        self._closed.wait()
        os.close(self._write)

    def fileno(self) -> int:
        """Readable while edges wait."""
        return self._read

    def edges(self) -> list[Edge]:
        """The edges that are due, with the moments of the schedule as their time stamps."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 4096)
        now_s = (self._clock() - self._start_ns) / 1e9
        found = []
        while self._next is not None and self._next[0] <= now_s:
            t_s, offset, level = self._next
            self._levels[offset] = level
            if level or offset not in self._rising:
                self._numbers[offset] += 1
                found.append(Edge(offset, level, self._start_ns + round(t_s * SECOND_NS), self._numbers[offset]))
            self._next = next(self._ahead, None)
        return found

    def is_active(self, offset: int) -> bool:
        """The level now."""
        return self._levels.get(offset, False)

    def drive(self, offset: int, active: bool) -> None:
        """Nothing hangs on the line; its level is kept."""
        self.driven[offset] = active

    def close(self) -> None:
        """Give the descriptors back."""
        self._closed.set()
        os.close(self._read)
