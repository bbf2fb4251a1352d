"""What the supervisor saw of the core from outside, as events: each cause when it begins, throttled and counted."""

from typing import Any

HOLD_NS = 10_000_000_000  # between two events of one cause
REACTIONS = {
    "gone": "the site ends; no watchdog is fed",
    "stalled": "no watchdog is fed until cycles pass again; the converters' own watchdogs act",
    "late": "no watchdog is fed; heartbeats are withheld",
    "priority-lost": "it is asked for again",
    "unlocked": "the core locks it again",
}


class Guarded:
    """Turns counts into events.

    first : what was seen before this gateway began: told by the one before, or never.
    """

    def __init__(self, first: dict[str, Any]) -> None:
        self._told = dict(first["times"])
        self._next_ns = dict.fromkeys(self._told, 0)
        self._open = set(first["holding"])

    def step(self, now_ns: int, seen: dict[str, Any]) -> list[tuple[str, str]]:
        """(name, detail) of each event that is due. A cause that came and went between two looks counts as well."""
        due = []
        holding = set(seen["holding"])
        for name, times in seen["times"].items():
            new = times - self._told[name]
            if new > 0 and now_ns >= self._next_ns[name]:
                often = f"{new} times since the last word, " if new > 1 else ""
                due.append((name, f"{often}{times} in all; {REACTIONS[name]}"))
                self._told[name], self._next_ns[name] = times, now_ns + HOLD_NS
                self._open.add(name)
            if name in self._open and name not in holding and times == self._told[name]:
                self._open.discard(name)
                due.append((f"{name} over", f"{times} in all"))
        return due
