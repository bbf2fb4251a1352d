"""Many feeders with their sites in a bad world: lost, late and doubled messages, restarts, clocks at their bounds.

Usage: limit_world.py [--cycles 1e9] [--seed 1] [--plant NAME]. A cycle is one second of one site. The leases come from
tidegate.runtime.fleet.shared_limit itself; what is judged is what the sites hold by their own clocks, in real time.
"""

import argparse
import sys
import time

import numpy as np

from tidegate.runtime.fleet import shared_limit
from tidegate.runtime.fleet.shared_limit import RATE_PPM, TERM_MS_MAX, Feeders, left_ms

SITES, STEP_MS, SLOTS = 8, 1000, 4
PLANTS = ("latest only", "no wait", "equal clocks", "from receipt", "floors forgotten", "freed when less is given")


class World:
    """n feeders of SITES sites. plant : a fault that must be found, "" = none."""

    def __init__(self, n: int, seed: int, plant: str = "") -> None:
        self.rng = np.random.default_rng(seed)
        self.n, self.plant = n, plant
        self.floor_w = self.rng.integers(0, 50_000, (n, SITES))
        self.limit_w = self.floor_w.sum(axis=1) + self.rng.integers(0, 200_000, n)
        self.hub_ms = self.rng.integers(0, 10**9, n)
        self.site_ms = self.rng.integers(0, 10**9, (n, SITES))
        self.feeders = Feeders(
            self.limit_w, self.floor_w, self.hub_ms.copy(), term_ms=int(self.rng.integers(5, 61)) * 1000
        )
        if plant == "floors forgotten":
            self.feeders.floor_w = np.zeros_like(self.floor_w)
        # Bounds, not averages: most hubs run fast and most sites slow, which is the worst there is.
        worst = self.rng.random(n) < 0.7
        self.hub_ppm = np.where(worst, RATE_PPM, self.rng.integers(-RATE_PPM, RATE_PPM + 1, n))
        slow = (self.rng.random((n, SITES)) < 0.7) & worst[:, None]
        self.site_ppm = np.where(slow, -RATE_PPM, self.rng.integers(-RATE_PPM, RATE_PPM + 1, (n, SITES)))
        self.extra_w = np.zeros((n, SITES), np.int64)
        self.until_ms = np.zeros((n, SITES), np.int64)
        # On the way: asked when (site's clock), how much is wanted, what was given (-1 = not yet), arrives when.
        shape = (n, SITES, SLOTS)
        self.asked_ms = np.zeros(shape, np.int64)
        self.want_w = np.zeros(shape, np.int64)
        self.given_w = np.full(shape, -1, np.int64)
        self.at = np.full(shape, -1, np.int64)
        self.line_down = np.zeros((n, SITES), bool)
        self.step_count = 0
        self.worst_w, self.violations, self.cycles, self.leases, self.used_w = -(10**12), 0, 0, 0, 0

    def step(self) -> None:
        """One second of everybody."""
        rng, n = self.rng, self.n
        self.step_count += 1
        self.hub_ms += STEP_MS + STEP_MS * self.hub_ppm // 10**6
        self.site_ms += STEP_MS + STEP_MS * self.site_ppm // 10**6
        if self.step_count % 16 == 0:
            flip = rng.random((n, SITES), np.float32)
            self.line_down = np.where(self.line_down, flip > 0.3, flip > 0.9)
        again = rng.random(n, np.float32) < 0.002
        if again.any():
            begun = self.hub_ms - 10**9 if self.plant == "no wait" else self.hub_ms
            self.feeders.start_again(again, begun)
        if self.plant == "latest only":  # a smaller lease frees what a bigger one held
            self._forget_but_newest()
        rows = np.arange(n)
        asks = rng.integers(0, SITES, n)
        slot = self.step_count % SLOTS
        sends = ~self.line_down[rows, asks]
        at, who = rows[sends], asks[sends]
        self.asked_ms[at, who, slot] = self.site_ms[at, who]
        self.want_w[at, who, slot] = rng.integers(0, 120_000, len(at))
        self.given_w[at, who, slot] = -1
        self.at[at, who, slot] = self.step_count + self._delay(len(at))
        quick = rng.random(n, np.float32) < 0.8
        self._hub(rows, np.where(quick, asks, -1), slot)
        self._sites(rows, np.where(quick, asks, -1), slot)
        self._judge()

    def _delay(self, count: int) -> np.ndarray:
        """Steps on the way: mostly one, at times dozens."""
        return np.where(self.rng.random(count, np.float32) < 0.8, 0, self.rng.integers(0, 90, count))

    def _place(self, first: np.ndarray, slot: int) -> tuple[np.ndarray, np.ndarray]:
        """Whose message is looked at: that of `first`, or one drawn anew, so that late ones come in any order."""
        drawn = self.rng.integers(0, SITES, self.n), self.rng.integers(0, SLOTS, self.n)
        return np.where(first >= 0, first, drawn[0]), np.where(first >= 0, slot, drawn[1])

    def _hub(self, rows: np.ndarray, first: np.ndarray, newest: int) -> None:
        """One request that has arrived."""
        site, slot = self._place(first, newest)
        there = (self.at[rows, site, slot] >= 0) & (self.at[rows, site, slot] <= self.step_count)
        there &= self.given_w[rows, site, slot] < 0
        there &= ~self.line_down[rows, site]
        asking = np.where(there, site, -1)
        given = self.feeders.give(asking, self.want_w[rows, site, slot], self.hub_ms)
        at = rows[there]
        self.given_w[at, site[at], slot[at]] = given[at]
        self.at[at, site[at], slot[at]] = self.step_count + self._delay(len(at))
        self.leases += int((given > 0).sum())
        if self.plant == "freed when less is given":
            self._free(at, site[at], given[at])

    def _sites(self, rows: np.ndarray, first: np.ndarray, newest: int) -> None:
        """An answer that has arrived is taken; it stays on the way, so that it may come once more."""
        for wanted in (first, np.full(self.n, -1)):
            site, slot = self._place(wanted, newest)
            here = (self.given_w[rows, site, slot] >= 0) & (self.at[rows, site, slot] <= self.step_count)
            here &= ~self.line_down[rows, site]
            now = self.site_ms[rows, site]
            asked = now if self.plant == "from receipt" else self.asked_ms[rows, site, slot]
            left = left_ms(asked, self.feeders.term_ms, now)
            at = rows[here & (left > 0)]
            self.extra_w[at, site[at]] = self.given_w[at, site[at], slot[at]]
            self.until_ms[at, site[at]] = now[at] + left[at]

    def _judge(self) -> None:
        live = np.where(self.until_ms > self.site_ms, self.extra_w, 0).sum(axis=1)
        above = self.floor_w.sum(axis=1) + live - self.limit_w
        self.violations += int((above > 0).sum())
        self.worst_w = max(self.worst_w, int(above.max()))
        self.used_w += int(live.sum())
        self.cycles += self.n * SITES

    def _forget_but_newest(self) -> None:
        newest = self.feeders.until_ms.max(axis=2, keepdims=True)
        self.feeders.held_w = np.where(self.feeders.until_ms == newest, self.feeders.held_w, 0)

    def _free(self, at: np.ndarray, who: np.ndarray, given: np.ndarray) -> None:
        self.feeders.held_w[at, who] = np.minimum(self.feeders.held_w[at, who], given[:, None])


def run(cycles: int, seed: int, plant: str = "", n: int = 2_000, every: int = 600) -> tuple[int, int, int, int, float]:
    """-> (cycles, violations, W nearest to the limit, leases, share of the room in use). every : steps of a world."""
    total = violations = leases = 0
    worst, used, room = -(10**12), 0, 0
    held_before = shared_limit.hold_ms
    try:
        if plant == "equal clocks":
            shared_limit.hold_ms = lambda term_ms: term_ms  # type: ignore[assignment]
        while total < cycles:
            world = World(n, seed, plant)
            seed += 1
            for _ in range(every):
                world.step()
            total += world.cycles
            violations += world.violations
            leases += world.leases
            worst = max(worst, world.worst_w)
            used += world.used_w
            room += int((world.limit_w - world.floor_w.sum(axis=1)).sum()) * every
    finally:
        shared_limit.hold_ms = held_before
    return total, violations, worst, leases, used / room


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--cycles", type=float, default=1e9)
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--plant", default="", choices=("", *PLANTS))
    words.add_argument("--feeders", type=int, default=20_000)
    given = words.parse_args()
    began = time.monotonic()
    cycles, violations, worst, leases, used = run(int(given.cycles), given.seed, given.plant, given.feeders)
    print(
        f"{cycles:.3g} site-cycles, {leases} leases, {used:.1%} of the room in use, {violations} violations, nearest "
        f"to the limit {worst} W, term at most {TERM_MS_MAX} ms, {time.monotonic() - began:.0f} s"
    )
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
