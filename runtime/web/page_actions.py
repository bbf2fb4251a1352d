"""Orders from the page: first what it will do, then a confirmation that is good once, for this person and a minute.

The few that a person gives by hand. Everything else is asked through the REST API or the command line.
"""

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from tidegate.runtime.api.async_client import AsyncClient
from tidegate.runtime.api.messages import FOR_MS_MAX, Message, Refused, Role
from tidegate.runtime.gateway.alarm_shelf import SHELVE_MS_MAX
from tidegate.runtime.gateway.ops import OPS
from tidegate.runtime.web.live_values import LiveValues
from tidegate.runtime.web.web_sessions import Session

GOOD_S = 60.0
OPEN_MAX = 64


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """What somebody at the page wants. import_w_max, for_ms: of `limit`; unit, alarm, reason, for_ms: of `shelve`;
    reason: of `record`."""

    action: str
    import_w_max: float | None = None
    for_ms: int | None = None
    unit: str = ""
    alarm: str = ""
    reason: str = ""


Carry: TypeAlias = Callable[[], Awaitable[Message]]
"""Carries an order out. Raises Refused, ClientError."""


@dataclass(frozen=True)
class Order:
    """An order that waits for its confirmation."""

    session: str
    carry: Carry
    until_s: float
    is_stop: bool = False
    boot: str = ""


class PageActions:
    """Orders that were shown and not yet confirmed."""

    def __init__(self, client: AsyncClient, live: LiveValues, clock: Callable[[], float] = time.monotonic) -> None:
        self._client, self._live, self._clock = client, live, clock
        self._open: dict[str, Order] = {}

    def prepare(self, session: Session, wanted: Wanted) -> dict[str, object]:
        """What it will do, as a name and values for the page's own words, and the token to confirm. Raises Refused."""
        op, fields, effect = self._order(wanted)
        role: Role = OPS[op]
        if not session.may(role):
            raise Refused("not-allowed", f"{wanted.action} needs the role {role}, {session.user} has {session.role}")
        is_stop = fields.get("mode") == "stop"
        return self.hold(session, lambda: self._client.ask(op, user=session.user, **fields), effect, is_stop=is_stop)

    def hold(
        self, session: Session, carry: Carry, effect: Mapping[str, object], *, is_stop: bool = False
    ) -> dict[str, object]:
        """Let an order wait for its confirmation; the answer of `prepare`. Raises Refused where too many wait."""
        now_s = self._clock()
        self._open = {key: one for key, one in self._open.items() if one.until_s > now_s}
        if len(self._open) >= OPEN_MAX:
            raise Refused("busy", "too many orders wait for their confirmation; try again in a minute")
        token = secrets.token_urlsafe(16)
        self._open[token] = Order(session.id, carry, now_s + GOOD_S, is_stop, self._live.boot)
        return {"token": token, "good_s": GOOD_S, "site": self._site_name(), "effect": effect}

    async def confirm(self, session: Session, token: str) -> Message:
        """Carry it out, once, on behalf of the person. Raises Refused, ClientError."""
        order = self._open.get(token)
        if order is None or order.session != session.id:
            raise Refused("late", "nothing waits under this confirmation; ask for it again")
        del self._open[token]
        if order.until_s <= self._clock():
            raise Refused("late", "the confirmation came too late; ask for it again")
        if order.boot != self._live.boot and not order.is_stop:
            raise Refused("late", "the site was restarted meanwhile, and may be in another state; look, and ask again")
        return await order.carry()

    def is_stop(self, token: str) -> bool:
        """Whether a stop waits under this confirmation."""
        order = self._open.get(token)
        return order is not None and order.is_stop

    def _site_name(self) -> str:
        return str(self._live.site["site"]["name"]) if self._live.site else ""

    def _order(self, wanted: Wanted) -> tuple[str, dict[str, object], dict[str, object]]:
        """(operation, its fields, what it will do)."""
        alarms = self._live.state.get("alarms")
        known = [one for one in alarms if isinstance(one, dict)] if isinstance(alarms, list) else []
        active = sorted({f"{one['unit']} {one['id']}" for one in known if one["active"]})
        if wanted.action == "stop":
            return "mode", {"mode": "stop"}, {"name": "effect.stop"}
        if wanted.action == "run":
            return "mode", {"mode": "run"}, {"name": "effect.run", "faults": active}
        if wanted.action == "ack":
            latched = {f"{one['unit']} {one['id']}" for one in known if one["latched"]}
            if not latched:
                raise Refused("invalid-field", "nothing is latched")
            effect: dict[str, object] = {"name": "effect.ack", "lifts": sorted(latched - set(active)),
                                         "stays": sorted(latched & set(active))}  # fmt: skip
            return "ack", {}, effect
        if wanted.action == "limit":
            watts, for_ms = wanted.import_w_max, wanted.for_ms
            if watts is None or not 0 <= watts <= 1e9 or for_ms is None or not 1000 <= for_ms <= FOR_MS_MAX:
                raise Refused("invalid-field", "a limit needs import_w_max of 0 W or more, and for_ms, at most a day")
            fields: dict[str, object] = {"import_w_max": watts, "for_ms": for_ms}
            return "limit", fields, {"name": "effect.limit", "import_w_max": watts, "for_ms": for_ms}
        if wanted.action == "shelve":
            for_ms, reason = wanted.for_ms, wanted.reason.strip()[:120]
            if for_ms is None or not 0 <= for_ms <= SHELVE_MS_MAX or (for_ms and not reason):
                raise Refused("invalid-field", "shelving needs a reason and for_ms, at most a day; 0 takes it back")
            fields = {"unit": wanted.unit, "alarm": wanted.alarm, "for_ms": for_ms, "reason": reason}
            name = "effect.shelve" if for_ms else "effect.unshelve"
            return "shelve", fields, {"name": name, "lifts": [f"{wanted.unit} {wanted.alarm}"], "for_ms": for_ms}
        if wanted.action == "record":
            return "record", {"cause": wanted.reason.strip()[:64]}, {"name": "effect.record"}
        known_orders = "stop, run, ack, limit, shelve or record"
        raise Refused("unknown-op", f"{wanted.action[:32]!r} is nothing that the page orders: {known_orders}")
