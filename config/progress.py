"""How long a slave may wait for its next request, whatever the others of its port do: the bound that `check` prints.

The engine (`ext/bus/rtu.pyx`, choose_block) passes a due block over for its period and the patience at most. From then
on each other block goes before it once, and a slave that fell silent as a whole once; between two polls the writes have
their share of the line and each new zero its turn. What is left is the slave's own back-off. The bound takes every
transaction as the worst of its kind: the reply's first byte at the end of the time-out, the longest reply, a late one
of the same length behind it. It says nothing of a line on which somebody speaks without a pause, nor of one that a tool
asks.
"""

import math
from dataclasses import dataclass

from tidegate.ext.bus.rtu_view import LIMITS

REQUEST_BYTES = 8
WAKE_NS = 1_000_000  # a port's thread is late by less, for each of its steps


@dataclass(frozen=True)
class Load:
    """What a slave adds to its port. blocks: (bytes of the reply, period in ns, read once) each; writes: (bytes of the
    request, bytes of the reply, may carry a zero that goes before polls) each."""

    timeout_ns: float
    turnaround_ns: float
    blocks: tuple[tuple[int, float, bool], ...]
    writes: tuple[tuple[int, int, bool], ...] = ()


def _worst_ns(char_ns: float, gap_ns: float, load: Load, request: int, reply: int) -> float:
    """Line time of one transaction at its worst, the silences before and after it included."""
    silence = 2 * gap_ns + LIMITS["gap_extra"] + 2 * WAKE_NS
    return (request + 2 * reply) * char_ns + load.timeout_ns + LIMITS["slack"] + silence


def bounds_ns(char_ns: float, gap_ns: float, loads: list[Load]) -> list[int]:
    """For each slave of a port: at most so many ns from one request to it to the next; 0 = nothing of it is polled."""
    separator = 5 + 2 * LIMITS["separator_words"]
    polls = [
        [_worst_ns(char_ns, gap_ns, load, REQUEST_BYTES, max(reply, separator)) for reply, _, _ in load.blocks]
        for load in loads
    ]
    writes = [(_worst_ns(char_ns, gap_ns, load, request, reply), zero)
              for load in loads for request, reply, zero in load.writes]  # fmt: skip
    # Between two polls: the writes' share, the one that passes it, and the zeros that wait for nothing.
    between = LIMITS["writes"] + max(ns for ns, _ in writes) + sum(ns for ns, zero in writes if zero) if writes else 0.0
    longest = max((ns for times in polls for ns in times), default=0.0) + between
    # Another slave has each of its blocks once before this one, or one that times out and the pause of the silent ones,
    # into which a poll of a third may reach.
    turns = [
        max(sum(ns + between for ns in times), 2 * max(times) + between + longest) if times else 0.0 for times in polls
    ]
    bounds = []
    for load, times, turn in zip(loads, polls, turns, strict=True):
        if not times:
            bounds.append(0)
            continue
        timed = [period for _, period, once in load.blocks if not once]
        period = min(timed) if timed else float(LIMITS["once"])
        own = max(
            float(LIMITS["backoff"]), float(LIMITS["refused"]), period, load.turnaround_ns, 3 * max(times),
            load.timeout_ns + max(times),
        )  # fmt: skip
        if load.writes:  # the last of them, before they are held back for its polls, may begin a pause
            own += period + LIMITS["patience"] + max(load.turnaround_ns, load.timeout_ns + max(times))
        others = sum(turns) - turn
        bounds.append(math.ceil(own + period + LIMITS["patience"] + 2 * longest + others))
    return bounds
