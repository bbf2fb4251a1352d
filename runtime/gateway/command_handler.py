"""The desk where orders are taken: lease, limits, policies, stop, plan, and what of it lies in the core's mailbox.

Nothing here asks for the time or touches a socket: both are arguments, so that every rule is tested with a clock of
its own. What the desk promised ends by itself in the core, whatever becomes of this process: each order carries its
expiry.
"""

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tidegate.ext.abi.settings import OFF, POLICY_BY_NAME, POLICY_NAMES_BY_NUMBER
from tidegate.ext.abi.shared import ORDER_POLICY_FIRST, PLAN_FIELDS, OrderKind, OrderMode
from tidegate.runtime.api import messages
from tidegate.runtime.api.messages import Refused
from tidegate.runtime.gateway import ops
from tidegate.runtime.gateway.peers import Peer

MODE, SETPOINT, MANUAL = OrderKind.MODE, OrderKind.SETPOINT_W, OrderKind.MANUAL_W
IMPORT, EXPORT = OrderKind.IMPORT_W_MAX, OrderKind.EXPORT_W_MAX
ACK, ARM = OrderKind.ACK, OrderKind.ARM
MS = 1_000_000
SECOND = 1_000_000_000
EDGE_NS = SECOND  # an acknowledgement or arming that the core has not seen by then is void
FAR_NS = 10 * 365 * 86_400 * SECOND  # a stop has no end
PLAN = -1  # no slot of the mailbox: the plan has a place of its own

LIMITS_MAX = 64
MANUAL_MAX_NS = 30 * 60 * SECOND  # a person who needs longer orders `run` first


class Mailbox(Protocol):
    """What the desk needs of the shared memory."""

    def put_order(self, kind: int, value: float, expires_t_ns: int, request: int) -> int: ...
    def applied(self, kind: int) -> int: ...


@dataclass
class Lease:
    """The lease, and what its holder ordered."""

    id: str
    peer: str
    priority: str
    period_ns: int
    expires_ns: int
    seq: int = -1
    setpoint_w: float | None = None
    until_ns: int = 0


@dataclass
class LimitHeld:
    import_w_max: float
    export_w_max: float
    until_ns: int


@dataclass
class ManualHeld:
    """A person's power, who gives it, and when it ends unless given again."""

    peer: str
    since_ns: int
    until_ns: int


@dataclass
class Order:
    """An order that went to the mailbox and that the core has yet to take over."""

    kind: int
    seq: int
    request_w: float | None = None
    """What was asked for, W."""
    clamped_w: float | None = None
    """What the desk itself made of it."""
    by: str = ""


@dataclass(frozen=True)
class Planned:
    """One step of a client's plan, UTC."""

    start_utc_s: int
    end_utc_s: int
    forced: bool
    values: dict[str, float]


class Desk:
    """Decides who may order what, and keeps the mailbox as the orders in force want it.

    keep_stop : called with True at a stop and False at its end, so that a stop outlives a restart of everything.
    keep_lease : called with the lease, or None, whenever it changed, so that it outlives a restart of the gateway.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        *,
        site_import_w_max: float = math.inf,
        site_export_w_max: float = math.inf,
        keep_stop: Callable[[bool], None] = lambda stopped: None,
        keep_lease: Callable[[Lease | None], None] = lambda held: None,
        site_policies: dict[str, float | None] | None = None,
        put_plan: Callable[[], int] = lambda: 0,
    ) -> None:
        self.mailbox = mailbox
        self.site_import_w_max = site_import_w_max
        self.site_export_w_max = site_export_w_max
        self.lease: Lease | None = None
        self.limits: dict[str, LimitHeld] = {}
        self.plan: list[Planned] = []
        self.plan_owner = ""
        self.site_policies = site_policies or {}
        self.policies: dict[str, tuple[float, int]] = {}  # name -> value, end
        self._put_plan = put_plan
        self.stopped = False
        self.manual: ManualHeld | None = None
        self._keep_stop = keep_stop
        self._keep_lease = keep_lease
        self.audit: list[tuple[str, str, str]] = []  # (event, name, detail) for the audit trail
        self._number = secrets.randbits(48)
        self._put: dict[int, tuple[float, int]] = {}

    # ---- the mailbox ----

    def _order(self, kind: int, value: float, expires_ns: int) -> int:
        self._number += 1
        self._put[kind] = (value, expires_ns)
        return self.mailbox.put_order(kind, value, expires_ns, self._number)

    def _take_back(self, kind: int) -> int:
        self._put.pop(kind, None)
        self._number += 1
        return self.mailbox.put_order(kind, 0.0, 0, self._number)

    # ---- the lease ----

    def take_lease(self, request: ops.Lease, peer: Peer, now_ns: int) -> dict[str, object]:
        """Answer a lease request: acquire, renew or release."""
        self.expire(now_ns)
        held = self.lease
        if request.priority == "maintenance" and peer.role != "maintain":
            raise Refused("not-allowed", "priority maintenance needs the role maintain")
        if request.action == "acquire":
            if held is not None and held.peer != peer.name:
                if messages.CLASSES[request.priority] <= messages.CLASSES[held.priority]:
                    raise Refused(
                        "lease-held",
                        f"{held.peer} ({held.priority}) holds the lease",
                        holder=held.peer,
                        expires_ms=left_ms(held.expires_ns, now_ns),
                    )
                self._note("lease", "pre-empted", f"{held.peer} ({held.priority}) by {peer.who} ({request.priority})")
            elif held is not None:
                self._note("lease", "replaced", f"{peer.who} took a new lease")
            if held is not None:
                self._end_setpoint()
            period_ns = request.period_ms * MS
            held = Lease(secrets.token_hex(16), peer.name, request.priority, period_ns, now_ns + 3 * period_ns)
            self.lease = held
            self._note("lease", "acquired", f"{peer.who} ({request.priority}), period {request.period_ms} ms")
            self._keep_lease(held)
        else:
            if held is None or request.lease != held.id or held.peer != peer.name:
                raise Refused("no-lease", "that lease is not held any more" if request.lease else "lease is missing")
            if request.action == "release":
                self._end_setpoint()
                self.lease = None
                self._keep_lease(None)
                self._note("lease", "released", peer.who)
                return {"lease": held.id, "expires_ms": 0}
            held.expires_ns = now_ns + 3 * held.period_ns
            if held.setpoint_w is not None:
                self._order(SETPOINT, held.setpoint_w, min(held.until_ns, held.expires_ns))
            self._keep_lease(held)
        return {"lease": held.id, "expires_ms": left_ms(held.expires_ns, now_ns), "next_seq": held.seq + 1}

    def setpoint(self, request: ops.Setpoint, peer: Peer, now_ns: int) -> Order:
        """Order a battery power under the lease."""
        self.expire(now_ns)
        held = self.lease
        if held is None or request.lease != held.id or held.peer != peer.name:
            holder = f"; {held.peer} holds it" if held is not None else ""
            raise Refused("no-lease", f"that lease is not held{holder}")
        if request.seq <= held.seq:
            raise Refused("replayed", f"seq {request.seq} came after {held.seq}", next_seq=held.seq + 1)
        held.seq = request.seq
        held.setpoint_w = request.setpoint_w + 0.0  # -0.0 becomes 0.0
        held.until_ns = now_ns + request.for_ms * MS
        seq = self._order(SETPOINT, held.setpoint_w, min(held.until_ns, held.expires_ns))
        # Kept behind the order: killed in between, the holder's second try does the same once more.
        self._keep_lease(held)
        self._note("order", "setpoint", f"{peer.who}: {held.setpoint_w:.0f} W for {request.for_ms} ms")
        return Order(SETPOINT, seq, request_w=held.setpoint_w)

    # ---- limits, modes, edges, plan ----

    def limit(self, request: ops.Limit, peer: Peer, now_ns: int) -> list[Order]:
        """Tighten the limits of grid power for a time. A limit wider than the site's is the site's."""
        self.expire(now_ns)
        if request.import_w_max is None and request.export_w_max is None:
            raise Refused("invalid-field", "give import_w_max or export_w_max")
        if peer.name not in self.limits and len(self.limits) >= LIMITS_MAX:
            raise Refused("unavailable", f"{LIMITS_MAX} peers already hold limits")
        before = self.limits.get(peer.name)
        self.limits[peer.name] = LimitHeld(
            request.import_w_max if request.import_w_max is not None else before.import_w_max if before else math.inf,
            request.export_w_max if request.export_w_max is not None else before.export_w_max if before else math.inf,
            now_ns + request.for_ms * MS,
        )
        self._note(
            "order",
            "limit",
            f"{peer.who}: import {request.import_w_max}, export {request.export_w_max} W for {request.for_ms} ms",
        )
        orders = []
        for kind, asked, site in (
            (IMPORT, request.import_w_max, self.site_import_w_max),
            (EXPORT, request.export_w_max, self.site_export_w_max),
        ):
            if asked is None:
                continue
            strictest = min(self._limits(kind))
            order = Order(kind, self._put_limits(kind), request_w=asked)
            if site < asked:
                order.clamped_w, order.by = site, "site file"
            elif strictest < asked:
                order.clamped_w, order.by = strictest, "a stricter limit in force"
            orders.append(order)
        return orders

    def _limits(self, kind: int) -> list[float]:
        return [held.import_w_max if kind == IMPORT else held.export_w_max for held in self.limits.values()]

    def _put_limits(self, kind: int) -> int:
        """Put the strictest of the limits in force; when it ends, `expire` puts the next."""
        values = [value for value in self._limits(kind) if math.isfinite(value)]
        if not values:
            return self._take_back(kind) if kind in self._put else 0
        strictest = min(values)
        ends = [
            held.until_ns
            for held in self.limits.values()
            if (held.import_w_max if kind == IMPORT else held.export_w_max) == strictest
        ]
        return self._order(kind, strictest, max(ends))

    def mode(self, request: ops.Mode, peer: Peer, now_ns: int) -> Order:
        """Stop; or lift the stop, end manual and arm; or take a manual power."""
        if request.mode == "manual":
            return self.take_manual(request, peer, now_ns)
        self._note("order", request.mode, peer.who)
        self._end_manual(f"{request.mode} by {peer.who}")
        if request.mode == "stop":
            order = self.stop(now_ns)
            self._keep_stop(True)
            return order
        self.stopped = False
        seq = self._order(MODE, OrderMode.RUN, now_ns + FAR_NS)
        self.arm(now_ns)
        self._keep_stop(False)
        return Order(MODE, seq)

    def take_manual(self, request: ops.Mode, peer: Peer, now_ns: int) -> Order:
        """Order a person's power. It ends in the core by itself at until_ns, whatever becomes of person and gateway."""
        self.expire(now_ns)
        if peer.role != "maintain":
            raise Refused("not-allowed", "mode manual needs the role maintain")
        if request.power_w is None:
            raise Refused("invalid-field", "mode manual needs power_w - at `$.power_w`")
        if self.stopped:
            raise Refused("stopped", "the site is stopped; order mode run first")
        held = self.manual
        if held is not None and held.peer != peer.name:
            expires_ms = left_ms(held.until_ns, now_ns)
            raise Refused("lease-held", f"{held.peer} has the site in manual", holder=held.peer, expires_ms=expires_ms)
        if held is None:
            held = self.manual = ManualHeld(peer.name, now_ns, now_ns)
        last_ns = held.since_ns + MANUAL_MAX_NS
        if now_ns >= last_ns:
            raise Refused("late", f"manual has lasted {MANUAL_MAX_NS // SECOND // 60} min; order mode run first")
        held.until_ns = min(now_ns + request.for_ms * MS, last_ns)
        power_w = request.power_w + 0.0  # -0.0 becomes 0.0
        self._note("order", "manual", f"{peer.who}: {power_w:.0f} W for {request.for_ms} ms")
        return Order(MANUAL, self._order(MANUAL, power_w, held.until_ns), request_w=power_w)

    def _end_manual(self, why: str) -> None:
        if self.manual is not None:
            self.manual = None
            self._take_back(MANUAL)
            self._note("order", "manual ended", why)

    def stop(self, now_ns: int) -> Order:
        """Order the stop; also at the start of a gateway whose site was stopped."""
        self.stopped = True
        return Order(MODE, self._order(MODE, OrderMode.STOP, now_ns + FAR_NS))

    def take_over(self, kind: int, value: float, expires_ns: int, now_ns: int) -> None:
        """Know of a limit that a gateway before this one left in the mailbox: a wider one must not replace it."""
        if expires_ns > now_ns and kind >= ORDER_POLICY_FIRST:
            self.policies[POLICY_NAMES_BY_NUMBER[kind - ORDER_POLICY_FIRST]] = (value, expires_ns)
        if expires_ns > now_ns and kind in (IMPORT, EXPORT):
            held = self.limits.setdefault(f"before restart, {kind}", LimitHeld(math.inf, math.inf, expires_ns))
            if kind == IMPORT:
                held.import_w_max = value
            else:
                held.export_w_max = value
            self._put[kind] = (value, expires_ns)

    def resume(self, held: Lease, now_ns: int) -> None:
        """Go on with the lease of a gateway before this one, for as long as it had left."""
        if held.expires_ns <= now_ns:
            return
        self.lease = held
        if held.setpoint_w is not None:
            self._put[SETPOINT] = (held.setpoint_w, min(held.until_ns, held.expires_ns))
        self._note("lease", "resumed", f"{held.peer} ({held.priority}), {left_ms(held.expires_ns, now_ns)} ms left")

    def ack(self, peer: Peer, now_ns: int) -> Order:
        """Acknowledge latches whose cause is gone."""
        self._note("order", "ack", peer.who)
        return Order(ACK, self._order(ACK, 1.0, now_ns + EDGE_NS))

    def arm(self, now_ns: int) -> Order:
        """Leave the tripped state, if all conditions are good."""
        return Order(ARM, self._order(ARM, 1.0, now_ns + EDGE_NS))

    def schedule(self, request: ops.Schedule, peer: Peer, now_ns: int, utc_ns: int) -> Order:
        """Take a plan over, whole; an empty one ends the plan."""
        starts = [step.start_utc_s for step in request.steps]
        if starts != sorted(set(starts)):
            raise Refused("invalid-field", "steps must rise in start_utc_s - at `$.steps`")
        if request.steps and request.end_utc_s <= starts[-1]:
            raise Refused("invalid-field", "end_utc_s must lie behind the last step - at `$.end_utc_s`")
        if request.steps and request.end_utc_s * SECOND < utc_ns:
            raise Refused("late", "the plan has already ended")
        plan = []
        for i, (step, end_utc_s) in enumerate(zip(request.steps, [*starts[1:], request.end_utc_s], strict=True)):
            if step.setpoint_w is None and (step.forced or step.until_soc is not None):
                raise Refused("invalid-field", f"without setpoint_w neither forced nor until_soc - at `$.steps[{i}]`")
            if step.forced and peer.role != "maintain":
                raise Refused("not-allowed", f"a forced step needs the role maintain, {peer.name} has {peer.role}")
            values = {name: getattr(step, name) + 0.0 for name in PLAN_FIELDS if getattr(step, name) is not None}
            plan.append(Planned(step.start_utc_s, end_utc_s, step.forced, values))
        self.plan = plan
        self.plan_owner = peer.name if self.plan else ""
        self._note("order", "schedule", f"{peer.who}: {len(self.plan)} steps")
        return Order(PLAN, self._put_plan())

    def policy(self, request: ops.Policy, peer: Peer, now_ns: int) -> Order:
        """Give a setting of [control] another value: a tighter one at once, a wider one for the role maintain."""
        self.expire(now_ns)
        name = request.name
        if request.off and request.value is not None:
            raise Refused("invalid-field", "give value or off, not both - at `$.value`")
        row = POLICY_BY_NAME[name]
        asked = row.off if request.off else request.value
        if asked is not None:
            self._check_policy(name, asked)
        wanted = asked if asked is not None else self._site_policy(name)
        before = self.policies[name][0] if name in self.policies else self._site_policy(name)
        if row.is_wider(wanted, before) and peer.role != "maintain":
            raise Refused(
                "not-allowed", f"{name}: {wanted:g} is wider than {before:g} in force; that needs the role maintain"
            )
        kind = ORDER_POLICY_FIRST + POLICY_NAMES_BY_NUMBER.index(name)
        site = self._site_policy(name)
        told = f"{name} {_shown(wanted)} (was {_shown(before)}, site file {_shown(site)})"
        if asked is None:
            self.policies.pop(name, None)
            seq = self._take_back(kind)
        else:
            ends_ns = now_ns + (request.for_ms * MS if request.for_ms is not None else FAR_NS)
            self.policies[name] = (asked, ends_ns)
            seq = self._order(kind, asked, ends_ns)
        self._note("order", "policy", f"{peer.who}: {told}")
        return Order(kind, seq, by=told)

    def _site_policy(self, name: str) -> float:
        value = self.site_policies.get(name)
        return POLICY_BY_NAME[name].off if value is None else float(value)

    def _check_policy(self, name: str, value: float) -> None:
        refusal = POLICY_BY_NAME[name].refusal(value)
        if refusal:
            raise Refused("invalid-field", f"{name} {refusal} - at `$.value`")
        peak = self.policies["peak_w_max"][0] if "peak_w_max" in self.policies else self._site_policy("peak_w_max")
        if name == "recharge_w_max" and value > peak:
            raise Refused(
                "invalid-field", f"recharge_w_max {value:g} W is above peak_w_max {_shown(peak)} - at `$.value`"
            )

    # ---- time ----

    def expire(self, now_ns: int) -> None:
        """Let end what has run out."""
        manual = self.manual
        if manual is not None and now_ns >= manual.until_ns and now_ns < manual.since_ns + MANUAL_MAX_NS:
            self._end_manual(f"{manual.peer} did not give it again")
        held = self.lease
        if held is not None and now_ns >= held.expires_ns:
            self._note("lease", "expired", f"{held.peer} did not renew within {3 * held.period_ns // MS} ms")
            self._end_setpoint()
            self.lease = None
            self._keep_lease(None)
        elif held is not None and held.setpoint_w is not None and now_ns >= held.until_ns:
            self._end_setpoint()
        over = [name for name, limit in self.limits.items() if now_ns >= limit.until_ns]
        for name in over:
            del self.limits[name]
            self._note("order", "limit ended", name)
        if over:
            self._put_limits(IMPORT)
            self._put_limits(EXPORT)
        for name in [name for name, (_, ends_ns) in self.policies.items() if now_ns >= ends_ns]:
            del self.policies[name]
            self._note("order", "policy ended", f"{name} is {_shown(self._site_policy(name))} again")

    def step(self, now_ns: int, utc_ns: int) -> None:
        """Expire, and end a plan that is over."""
        self.expire(now_ns)
        if self.plan and utc_ns // SECOND >= self.plan[-1].end_utc_s:
            self.plan, self.plan_owner = [], ""
            self._note("order", "schedule ended", "")

    def next_end_ns(self) -> int:
        """When something runs out next, 0 = nothing will."""
        ends = [limit.until_ns for limit in self.limits.values()]
        if self.manual is not None:
            ends.append(self.manual.until_ns)
        if self.lease is not None:
            ends.append(self.lease.expires_ns)
            if self.lease.setpoint_w is not None:
                ends.append(self.lease.until_ns)
        return min(ends, default=0)

    def _end_setpoint(self) -> None:
        if self.lease is not None and self.lease.setpoint_w is not None:
            self.lease.setpoint_w = None
            self._take_back(SETPOINT)

    def _note(self, event: str, name: str, detail: str) -> None:
        self.audit.append((event, name, detail))


def _shown(value: float) -> str:
    return "none" if value >= OFF else f"{value:g}"


def left_ms(expires_ns: int, now_ns: int) -> int:
    """Whole milliseconds until a moment, 0 once it is over."""
    return max(0, (expires_ns - now_ns) // MS)
