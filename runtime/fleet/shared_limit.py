"""One limit for many: how much each site may draw above its floor, and for how long. No clock, no socket, no disk.

Each site's own file holds a tight value, its floor; a lease widens it for a time. At every moment the floors and what
unexpired leases may add stay below the feeder's limit, whatever is lost, late, doubled or started again:

- A lease lasts a term from when the site *asked*, by the site's clock; here it counts from when it was *given*, which
  is later, and longer by as much as two clocks may run apart. Nobody's time of day is read.
- What was given is held until that end; a smaller lease given meanwhile frees nothing, since it may never arrive.
- After a start nothing is given until every lease that anybody may ever have given is over. So nothing has to be
  remembered, and a memory put back from a backup does no harm.

Arrays have a first axis of feeders, so that a simulation runs many with the very code that a hub runs with one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Watts = NDArray[np.int64]  # W
Millis = NDArray[np.int64]  # ms

TERM_MS_MAX = 60_000  # no site takes a longer lease, so no start need wait longer
RATE_PPM = 10_000  # a monotonic clock runs within 1 %: a crystal errs by 0.01 %, a slewed clock by 0.05 %
READING_MS = 2  # two readings, each rounded down
TERM_PARTS = 8  # of a term: what is given in the same part is held to one end


def hold_ms(term_ms: int) -> int:
    """How long a lease is held here, ms of this clock: until the slowest site's clock has seen its term."""
    return -(-term_ms * (1_000_000 + RATE_PPM) // (1_000_000 - RATE_PPM)) + READING_MS


def left_ms(asked_ms: Millis, term_ms: int, now_ms: Millis) -> Millis:
    """What is left of a lease at the site that asked for it at `asked_ms` of its own clock; 0 or less = nothing."""
    return asked_ms + term_ms - now_ms


@dataclass
class Feeders:
    """What is known of n feeders with m sites each.

    limit_w : (n,) W. floor_w : (n, m) W, what the sites' files allow. begun_ms : (n,) this clock when it was started.
    """

    limit_w: Watts
    floor_w: Watts
    begun_ms: Millis
    term_ms: int = TERM_MS_MAX

    def __post_init__(self) -> None:
        n, m = self.floor_w.shape
        if not 0 < self.term_ms <= TERM_MS_MAX:
            raise ValueError(f"a term of {self.term_ms} ms; at most {TERM_MS_MAX}")
        self.held_w: Watts = np.zeros((n, m, TERM_PARTS + 2), np.int64)
        self.until_ms: Millis = np.zeros((n, m, TERM_PARTS + 2), np.int64)
        self.ask_w: Watts = np.zeros((n, m), np.int64)
        self.asked_ms: Millis = np.full((n, m), np.iinfo(np.int64).min // 2, np.int64)

    def start_again(self, which: NDArray[np.bool_], now_ms: Millis) -> None:
        """Forget all of some feeders, as a process does that ends and begins."""
        self.held_w[which], self.until_ms[which], self.ask_w[which] = 0, 0, 0
        self.begun_ms = np.where(which, now_ms, self.begun_ms)

    def held(self, now_ms: Millis) -> Watts:
        """(n, m) W that each site may have above its floor at worst."""
        held: Watts = np.where(self.until_ms > now_ms[:, None, None], self.held_w, 0).max(axis=2)
        return held

    def give(self, site: NDArray[np.int64], ask_w: Watts, now_ms: Millis) -> Watts:
        """One site of each feeder asks: (n,) W that it gets above its floor, held here from now on.

        site : (n,) its number, -1 = nobody asks there. ask_w : (n,) W above its floor. now_ms : (n,) this clock.
        """
        rows = np.flatnonzero(site >= 0)
        extra: Watts = np.zeros(len(site), np.int64)
        if not len(rows):
            return extra
        who, now = site[rows], now_ms[rows]
        self.ask_w[rows, who] = np.clip(ask_w[rows], 0, np.iinfo(np.int64).max // 1024)
        self.asked_ms[rows, who] = now
        held = np.where(self.until_ms[rows] > now[:, None, None], self.held_w[rows], 0).max(axis=2)
        room = self.limit_w[rows] - self.floor_w[rows].sum(axis=1)
        free = room - held.sum(axis=1) + held[np.arange(len(rows)), who]
        fresh = now[:, None] - self.asked_ms[rows] <= self.term_ms
        wanted = np.minimum(self.ask_w[rows, who], _level(np.where(fresh, self.ask_w[rows], 0), room))
        ready = now - self.begun_ms[rows] >= hold_ms(TERM_MS_MAX)
        given = np.where(ready, np.clip(np.minimum(wanted, free), 0, None), 0)
        self._hold(rows, who, given, now)
        extra[rows] = given
        return extra

    def _hold(self, rows: NDArray[np.int64], who: NDArray[np.int64], given: Watts, now: Millis) -> None:
        """Keep it to the end of the part in which it ends; a later one of the same end adds nothing below it."""
        part_ms = -(-hold_ms(self.term_ms) // TERM_PARTS)
        part = -(-(now + hold_ms(self.term_ms)) // part_ms)
        slot, until = part % (TERM_PARTS + 2), part * part_ms
        same = self.until_ms[rows, who, slot] == until
        self.held_w[rows, who, slot] = np.where(same, np.maximum(self.held_w[rows, who, slot], given), given)
        self.until_ms[rows, who, slot] = until


def _level(ask_w: Watts, room_w: Watts) -> Watts:
    """(n,) W: nobody who asks for less than this is cut, and all who ask for more get as much (largest that fits)."""
    low_first = np.sort(ask_w, axis=1)
    count = low_first.shape[1] - np.arange(low_first.shape[1])
    before = np.cumsum(low_first, axis=1) - low_first
    level: Watts = np.floor_divide(room_w[:, None] - before, count).max(axis=1)
    return level
