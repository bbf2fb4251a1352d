"""Why the site stands still by order, and who may end that.

A stop is lifted from where it was ordered or from nearer, and by no lesser role: what somebody on site stopped, nobody
on another machine sets going. A lock-out is a person's own lock beside the stop. With the switch at `local`, other
machines may watch and stop.
"""

import contextlib
from collections.abc import Callable

from tidegate.runtime.api import messages
from tidegate.runtime.api.messages import Refused
from tidegate.runtime.gateway.peers import Peer
from tidegate.runtime.state.stop_file import Lockout, Stop, Stops, now_utc_s

LOCKOUTS_MAX = 32


def keep_nowhere(stops: Stops) -> str:
    """For a desk whose stops need not outlive it."""
    return ""


class StopsHeld:
    """The stops of one site. keep : puts them on disk, and gives why that failed."""

    def __init__(self, stops: Stops, keep: Callable[[Stops], str]) -> None:
        self.stops = stops
        self._keep = keep
        self.not_kept = ""

    @property
    def stopped(self) -> bool:
        return self.stops.stopped

    def keep(self) -> None:
        """Put them on disk; also again, after a failure."""
        self.not_kept = self._keep(self.stops)

    def stop(self, peer: Peer) -> None:
        """Hold a stop. Beside an older one the nearer place and the higher role count."""
        before, new = self.stops.stop, Stop(peer.who, peer.role, peer.at_site, now_utc_s())
        if before is not None and (before.is_local, _rank(before.role)) > (new.is_local, _rank(new.role)):
            new = before
        self.stops.stop = new
        self.keep()

    def stopped_by_signal(self) -> None:
        """Know of a stop that did not come by the API."""
        if self.stops.stop is None:
            self.stops.stop = Stop("a signal", "maintain", True, now_utc_s())
            self.keep()

    def check_lift(self, peer: Peer) -> None:
        """Raises Refused where this peer may not set the site going."""
        for lock in self.stops.lockouts:
            raise Refused("locked-out", f"{lock.name} locked the site: {lock.reason}", holder=lock.name)
        stop = self.stops.stop
        if stop is None:
            return
        if stop.is_local and not peer.at_site:
            raise Refused("local", f"{stop.by} stopped it on site, and only somebody there lifts that", holder=stop.by)
        if not peer.may(stop.role if stop.role in messages.ROLES else "maintain"):
            raise Refused(
                "not-allowed", f"{stop.by} stopped it with the role {stop.role}; that needs it too", holder=stop.by
            )

    def lift(self) -> Stop | None:
        """Let the stop go; gives what it was."""
        before, self.stops.stop = self.stops.stop, None
        self.keep()
        return before

    def put_back(self, stop: Stop | None) -> None:
        """Hold again what was lifted."""
        self.stops.stop = stop
        self.keep()

    def check_order(self, peer: Peer) -> None:
        """Raises Refused for an order from another machine while the switch is at `local`."""
        if self.stops.is_local and not peer.at_site:
            raise Refused("local", "the site is switched to local: orders are taken on site only")

    def lock(self, name: str, reason: str, peer: Peer) -> None:
        """Lock the site under a person's name. Raises Refused."""
        _only_on_site(peer)
        others = [one for one in self.stops.lockouts if one.name != name]
        if len(others) >= LOCKOUTS_MAX:
            raise Refused("unavailable", f"{LOCKOUTS_MAX} people have locked the site already")
        self.stops.lockouts = [*others, Lockout(name, reason, peer.who, now_utc_s())]
        self.keep()

    def unlock(self, name: str, peer: Peer) -> None:
        """Take a person's lock off. Raises Refused; somebody else's needs the role maintain."""
        _only_on_site(peer)
        if all(one.name != name for one in self.stops.lockouts):
            there = ", ".join(one.name for one in self.stops.lockouts) or "nobody"
            raise Refused("invalid-field", f"{name} has no lock; there is one of: {there}")
        if peer.user != name and not peer.may("maintain"):
            raise Refused("not-allowed", f"the lock is {name}'s; another one takes it off with the role maintain")
        self.stops.lockouts = [one for one in self.stops.lockouts if one.name != name]
        self.keep()

    def switch(self, place: str, peer: Peer) -> None:
        """Take orders on site only, or from other machines too. Raises Refused."""
        _only_on_site(peer)
        self.stops.is_local = place == "local"
        self.keep()

    def told(self) -> dict[str, object]:
        """For people and programs: why it stands still."""
        found: dict[str, object] = {"place": "local" if self.stops.is_local else "remote"}
        if self.stops.stop is not None:
            stop = self.stops.stop
            found["stop"] = {"by": stop.by, "role": stop.role, "local": stop.is_local, "utc_s": stop.utc_s}
        found["lockouts"] = [
            {"name": one.name, "reason": one.reason, "by": one.by, "utc_s": one.utc_s} for one in self.stops.lockouts
        ]
        return found


def _only_on_site(peer: Peer) -> None:
    if not peer.at_site:
        raise Refused("local", "only somebody on site may do that")


def _rank(role: str) -> int:
    with contextlib.suppress(ValueError):
        return messages.ROLES.index(role)
    return len(messages.ROLES)
