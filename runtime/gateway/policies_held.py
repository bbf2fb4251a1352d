"""Settings of [control] at run time: who set what for how long, and what of it is in force.

Rank and end are kept apart for each setting. What the role maintain set stands in the place of the site file's value
for its time; what others set only tightens whatever stands below. So when a setting ends, what was promised before it
is in force again, and nothing that somebody without the right to widen did is ever wider than without it. The lease of
a limit that many sites share stands lowest: every order is above it, and the next lease takes its place at once.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tidegate.ext.abi import shared
from tidegate.ext.abi.settings import POLICY_BY_NAME
from tidegate.hal.description import Description
from tidegate.runtime.api.messages import Refused

HELD_MAX = 16  # settings of one name that wait for each other's end
HANDOVER_NS = 1_000_000_000  # a tighter setting stays so long with the core until the next is there


@dataclass
class PolicyHeld:
    """One setting: by whom, until when, and whether it stands in the site file's place or only tightens."""

    value: float
    ends_ns: int
    peer: str
    overrides: bool
    leased: bool = False
    """A lease: kept below all orders, one at a time."""


class PolicyTable:
    """What is set of each policy, oldest first. site : the site file's values, None = the policy is not there."""

    def __init__(self, site: dict[str, float | None]) -> None:
        self._site = site
        self.held: dict[str, list[PolicyHeld]] = {}

    def __contains__(self, name: object) -> bool:
        return name in self.held

    def site(self, name: str) -> float:
        """The site file's own value."""
        value = self._site.get(name)
        return POLICY_BY_NAME[name].off if value is None else float(value)

    def value(self, name: str, now_ns: int) -> float:
        """The value in force."""
        value = self.site(name)
        for one in self.held.get(name, ()):
            if one.ends_ns > now_ns and (one.overrides or not POLICY_BY_NAME[name].is_wider(one.value, value)):
                value = one.value
        return value

    def in_force(self, now_ns: int) -> dict[str, float]:
        """All that is set, name -> value in force."""
        return {name: self.value(name, now_ns) for name in self.held}

    def order(self, name: str, now_ns: int) -> tuple[float, int] | None:
        """(value, end) to leave with the core, None = nothing: the site file's own.

        Whoever renews it at that end may be dead. Then the site file's value follows; a tighter setting waits a moment
        for what follows it, so that nothing wider comes in between while all is well.
        """
        ends = sorted({one.ends_ns for one in self.held.get(name, ()) if one.ends_ns > now_ns})
        if not ends:
            return None
        value = self.value(name, now_ns)
        for end in ends:
            after = self.value(name, end)
            if after != value:
                followed = end < ends[-1] and not POLICY_BY_NAME[name].is_wider(value, after)
                return value, end + HANDOVER_NS if followed else end
        return value, ends[-1]

    def put(self, name: str, new: PolicyHeld) -> None:
        """Set it. What can never be in force again behind it goes. Raises Refused where too many wait."""
        row = POLICY_BY_NAME[name]

        def hides(one: PolicyHeld) -> bool:
            return new.overrides or (not one.overrides and not row.is_wider(new.value, one.value))

        if new.leased:
            self.held[name] = [new, *self._orders(name)]
            return
        stays = [one for one in self.held.get(name, ()) if one.ends_ns > new.ends_ns or not hides(one)]
        if len(stays) >= HELD_MAX:
            raise Refused("unavailable", f"{name}: {HELD_MAX} settings already wait for each other's end")
        self.held[name] = [*stays, new]

    def _orders(self, name: str) -> list[PolicyHeld]:
        return [one for one in self.held.get(name, ()) if not one.leased]

    def end_lease(self, name: str) -> None:
        """Let the lease of a policy end; orders stay."""
        self._set(name, self._orders(name))

    def clear(self, name: str, *, wider_only: bool) -> None:
        """Let the site file's value be in force again; wider_only: nothing that is tighter than that goes."""
        row, site = POLICY_BY_NAME[name], self.site(name)
        stays = [one for one in self.held.get(name, ()) if wider_only and not row.is_wider(one.value, site)]
        self._set(name, stays)

    def put_back(self, name: str, held: list[PolicyHeld]) -> None:
        """Let what was held before hold again."""
        self._set(name, held)

    def forget(self, peer: str) -> list[str]:
        """Drop what a peer has set; the names of what changed."""
        return self._keep(lambda one: one.peer != peer)

    def expire(self, now_ns: int) -> list[str]:
        """Drop what is over; the names of what changed."""
        return self._keep(lambda one: one.ends_ns > now_ns)

    def _keep(self, stays: Callable[[PolicyHeld], bool]) -> list[str]:
        changed = [name for name, held in self.held.items() if not all(map(stays, held))]
        for name in changed:
            self._set(name, [one for one in self.held[name] if stays(one)])
        return changed

    def _set(self, name: str, held: list[PolicyHeld]) -> None:
        if held:
            self.held[name] = held
        else:
            self.held.pop(name, None)

    def owner(self, name: str, now_ns: int) -> PolicyHeld | None:
        """Who has a setting without a tighter side: the newest that stands in the site file's place."""
        return next((one for one in reversed(self.held.get(name, [])) if one.overrides and one.ends_ns > now_ns), None)


def site_policies(site: Description) -> dict[str, float | None]:
    """The site file's own values of what may change at run time; None = the policy is not there."""
    found: dict[str, float | None] = {name: getattr(site.control, name) for name in shared.POLICY_NAMES_BY_NUMBER}
    if found["recharge_w_max"] is None:
        found["recharge_w_max"] = found["peak_w_max"]
    if found["recharge_rate_w"] is None:
        found["recharge_rate_w"] = sum(unit.charge_w_max for unit in site.units)
    return {name: None if value is None else float(value) for name, value in found.items()}
