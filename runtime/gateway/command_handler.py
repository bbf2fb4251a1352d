"""The desk where orders are taken: lease, limits, policies, stop, plan, and what of it lies in the core's mailbox.

Nothing here asks for the time or touches a socket: both are arguments, so that every rule is tested with a clock of
its own. What the desk promised ends by itself in the core, whatever becomes of this process: each order carries its
expiry.
"""

import math
import secrets
from collections.abc import Callable

from tidegate.ext.abi.settings import OFF, POLICY_BY_NAME, POLICY_NAMES_BY_NUMBER
from tidegate.ext.abi.shared import ORDER_POLICY_FIRST, OrderMode
from tidegate.runtime.api import messages
from tidegate.runtime.api.messages import Refused
from tidegate.runtime.gateway import ops
from tidegate.runtime.gateway.orders_held import (
    ACK,
    ARM,
    BEFORE,
    EDGE_NS,
    EXPORT,
    FAR_NS,
    IMPORT,
    LIMITS_MAX,
    MANUAL,
    MANUAL_MAX_NS,
    MODE,
    MS,
    PLAN,
    PLAN_AHEAD_NS_MAX,
    REMOTE,
    SECOND,
    SETPOINT,
    STOP,
    WINDOW,
    WINDOW_NS,
    Lease,
    LimitHeld,
    Mailbox,
    ManualHeld,
    Order,
    Planned,
    left_ms,
    planned,
)
from tidegate.runtime.gateway.peers import ELSEWHERE, Peer
from tidegate.runtime.gateway.policies_held import HANDOVER_NS, PolicyHeld, PolicyTable
from tidegate.runtime.gateway.stops_held import StopsHeld, keep_nowhere
from tidegate.runtime.state import process_users
from tidegate.runtime.state.stop_file import Stops

PEOPLES = (process_users.SERVICE, process_users.user_of("web"))  # console and page, which share their table of logins


class Desk:
    """Decides who may order what, and keeps the mailbox as the orders in force want it.

    stops : what keeps the site from running by order; it outlives a restart of everything.
    by_signal : tells whether a stop lies in the mailbox that did not come by the API.
    keep_lease : called with the lease, or None, whenever it changed, so that it outlives a restart of the gateway.
    keep_orders : called whenever limits, policies or the plan's owner changed, to the same end.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        *,
        site_import_w_max: float = math.inf,
        site_export_w_max: float = math.inf,
        stops: StopsHeld | None = None,
        by_signal: Callable[[], bool] = lambda: False,
        keep_lease: Callable[[Lease | None], None] = lambda held: None,
        keep_orders: Callable[[], None] = lambda: None,
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
        self.plan_role: messages.Role = "read"  # that replacing it needs
        self.plan_rank: messages.PlanRank = "order"
        self.policies = PolicyTable(site_policies or {})
        self._put_plan = put_plan
        self._by_signal = by_signal
        self.stops = stops or StopsHeld(Stops(), keep_nowhere)
        self.manual: ManualHeld | None = None
        self._keep_lease = keep_lease
        self._keep_orders = keep_orders
        self.audit: list[tuple[str, str, str]] = []  # (event, name, detail) for the audit trail
        self._number = secrets.randbits(48)
        self._put: dict[int, tuple[float, int]] = {}
        self._newest: dict[int, int] = {}  # kind -> seq of its newest order
        self.stopped_ns = -1  # of the newest stop

    # ---- the mailbox ----

    def _order(self, kind: int, value: float, expires_ns: int) -> int:
        self._number += 1
        self._put[kind] = (value, expires_ns)
        seq = self._newest[kind] = self.mailbox.put_order(kind, value, expires_ns, self._number)
        return seq

    def _take_back(self, kind: int) -> int:
        self._put.pop(kind, None)
        self._number += 1
        seq = self._newest[kind] = self.mailbox.put_order(kind, 0.0, 0, self._number)
        return seq

    def _put_back(self, kind: int, before: tuple[float, int] | None) -> None:
        if before is None:
            self._take_back(kind)
        else:
            self._order(kind, *before)

    def take_back(self, order: Order) -> bool:
        """Undo an order that the core did not take over; false if it stands. A newer one in its place stays."""
        if order.undo is None:
            return False
        if self._newest.get(order.kind) == order.seq:
            order.undo()
            self._note("order", "taken back", "the core did not take it over")
        return True

    # ---- the lease ----

    def take_lease(self, request: ops.Lease, peer: Peer, now_ns: int) -> dict[str, object]:
        """Answer a lease request: acquire, renew or release."""
        self.expire(now_ns)
        held = self.lease
        if request.priority == "maintenance" and peer.role != "maintain":
            raise Refused("not-allowed", "priority maintenance needs the role maintain")
        if request.action == "acquire":
            if held is not None and held.peer != peer.owner:
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
            held = Lease(secrets.token_hex(16), peer.owner, request.priority, period_ns, now_ns + 3 * period_ns)
            self.lease = held
            self._note("lease", "acquired", f"{peer.who} ({request.priority}), period {request.period_ms} ms")
            self._keep_lease(held)
        else:
            if held is None or request.lease != held.id or held.peer != peer.owner:
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
        if held is None or request.lease != held.id or held.peer != peer.owner:
            holder = f"; {held.peer} holds it" if held is not None else ""
            raise Refused("no-lease", f"that lease is not held{holder}")
        if request.seq <= held.seq:
            raise Refused("replayed", f"seq {request.seq} came after {held.seq}", next_seq=held.seq + 1)
        held.seq = request.seq
        before = held.setpoint_w, held.until_ns
        held.setpoint_w = request.setpoint_w + 0.0  # -0.0 becomes 0.0
        held.until_ns = now_ns + request.for_ms * MS
        seq = self._order(SETPOINT, held.setpoint_w, min(held.until_ns, held.expires_ns))
        # Kept behind the order: killed in between, the holder's second try does the same once more.
        self._keep_lease(held)
        self._note("order", "setpoint", f"{peer.who}: {held.setpoint_w:.0f} W for {request.for_ms} ms")

        def undo() -> None:
            if self.lease is held:
                held.setpoint_w, held.until_ns = before
                self._keep_lease(held)
                if held.setpoint_w is not None:
                    self._order(SETPOINT, held.setpoint_w, min(held.until_ns, held.expires_ns))
                    return
            self._take_back(SETPOINT)

        return Order(SETPOINT, seq, request_w=held.setpoint_w, undo=undo)

    # ---- limits, modes, edges, plan ----

    def limit(self, request: ops.Limit, peer: Peer, now_ns: int) -> list[Order]:
        """Tighten the limits of grid power for a time. A limit wider than the site's is the site's."""
        self.expire(now_ns)
        if request.import_w_max is None and request.export_w_max is None:
            raise Refused("invalid-field", "give import_w_max or export_w_max")
        if peer.owner not in self.limits and len(self.limits) >= LIMITS_MAX:
            raise Refused("unavailable", f"{LIMITS_MAX} peers already hold limits")
        before = self.limits.get(peer.owner)
        self.limits[peer.owner] = LimitHeld(
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
        self._keep_orders()
        return orders

    def _limits(self, kind: int) -> list[float]:
        return [held.import_w_max if kind == IMPORT else held.export_w_max for held in self.limits.values()]

    def _put_limits(self, kind: int) -> int:
        """Put the strictest of the limits in force; when it ends, `expire` puts the next."""
        values = [value for value in self._limits(kind) if math.isfinite(value)]
        if not values:
            return self._take_back(kind) if kind in self._put else 0
        strictest = min(values)
        mine = {id(held): held.import_w_max if kind == IMPORT else held.export_w_max for held in self.limits.values()}
        ends_ns = max(held.until_ns for held in self.limits.values() if mine[id(held)] == strictest)
        followed = any(math.isfinite(mine[id(held)]) and held.until_ns > ends_ns for held in self.limits.values())
        return self._order(kind, strictest, ends_ns + HANDOVER_NS if followed else ends_ns)

    def mode(self, request: ops.Mode, peer: Peer, now_ns: int) -> Order:
        """Stop; or lift the stop, end manual and arm; or take a manual power."""
        if request.mode == "manual":
            return self.take_manual(request, peer, now_ns)
        if request.mode == "stop":
            self._note("order", "stop", peer.who)
            self._end_manual(f"stop by {peer.who}")
            order = self.stop(now_ns)
            self.stops.stop(peer)
            return self._with_disk(order)
        self.stops.check_lift(peer)
        self._note("order", "run", peer.who)
        self._end_manual(f"run by {peer.who}")
        before = self._put.get(MODE)
        by_signal = self._by_signal()
        seq = self._order(MODE, OrderMode.RUN, now_ns + FAR_NS)
        if by_signal:
            self._take_back(STOP)
        self.arm(now_ns)
        lifted = self.stops.lift()

        def undo() -> None:
            self._take_back(ARM)
            if by_signal:
                self._order(STOP, 1.0, now_ns + FAR_NS)
            self._put_back(MODE, before)
            self.stops.put_back(lifted)

        return self._with_disk(Order(MODE, seq, undo=undo))

    @property
    def stopped(self) -> bool:
        """The site stands still by order."""
        return self.stops.stopped

    def _with_disk(self, order: Order) -> Order:
        if self.stops.not_kept:
            order.said = f"not kept: {self.stops.not_kept}; it is in force until the core restarts"
            self._note("order", "not kept", order.said)
        return order

    def lock(self, request: ops.Lock, peer: Peer, now_ns: int) -> list[Order]:
        """Stop the site and lock it under a person's name, or take that lock off; the stop stays."""
        if request.action == "unlock":
            self.stops.unlock(request.name, peer)
            self._note("order", "unlock", f"{peer.who}: {request.name}")
            return []
        if not request.reason:
            raise Refused("invalid-field", "a lock needs a reason - at `$.reason`")
        self.stops.lock(request.name, request.reason, peer)
        self._note("order", "lock", f"{peer.who}: {request.name}, {request.reason}")
        self._end_manual(f"lock by {peer.who}")
        order = self.stop(now_ns)
        self.stops.stop(peer)
        return [self._with_disk(order)]

    def control(self, request: ops.Switch, peer: Peer, now_ns: int) -> None:
        """Switch between orders from on site only and from other machines too; the former ends the latter's."""
        self.stops.switch(request.place, peer)
        self._note("order", "control", f"{peer.who}: {request.place}")
        if request.place == "local":
            for name in self._ordering():
                if name.startswith(REMOTE):
                    self.forget(name, now_ns)

    def _ordering(self) -> set[str]:
        """Names of all whose orders are in force."""
        found = {name.removesuffix(BEFORE) for name in self.limits}
        found |= {one.peer for held in self.policies.held.values() for one in held}
        found |= {self.plan_owner, self.lease.peer if self.lease is not None else ""}
        return found | {self.manual.peer if self.manual is not None else ""}

    def take_manual(self, request: ops.Mode, peer: Peer, now_ns: int) -> Order:
        """Order a person's power. It ends in the core by itself at until_ns, whatever becomes of person and gateway."""
        self.expire(now_ns)
        if peer.role != "maintain":
            raise Refused("not-allowed", "mode manual needs the role maintain")
        if request.power_w is None:
            raise Refused("invalid-field", "mode manual needs power_w - at `$.power_w`")
        self.stops.check_order(peer)
        if self.stopped:
            raise Refused("stopped", "the site is stopped; order mode run first")
        held = self.manual
        if held is not None and held.peer != peer.owner:
            expires_ms = left_ms(held.until_ns, now_ns)
            raise Refused("lease-held", f"{held.peer} has the site in manual", holder=held.peer, expires_ms=expires_ms)
        if held is None:
            held = self.manual = ManualHeld(peer.owner, now_ns, now_ns)
        last_ns = held.since_ns + MANUAL_MAX_NS
        if now_ns >= last_ns:
            raise Refused("late", f"manual has lasted {MANUAL_MAX_NS // SECOND // 60} min; order mode run first")
        held.until_ns = min(now_ns + request.for_ms * MS, last_ns)
        power_w = request.power_w + 0.0  # -0.0 becomes 0.0
        self._note("order", "manual", f"{peer.who}: {power_w:.0f} W for {request.for_ms} ms")
        seq = self._order(MANUAL, power_w, held.until_ns)
        return Order(MANUAL, seq, request_w=power_w, undo=lambda: self._end_manual("the core did not take it over"))

    def _end_manual(self, why: str) -> None:
        if self.manual is not None:
            self.manual = None
            self._take_back(MANUAL)
            self._note("order", "manual ended", why)

    def stop(self, now_ns: int) -> Order:
        """Order the stop; also at the start of a gateway whose site was stopped."""
        self.stopped_ns = now_ns
        return Order(MODE, self._order(MODE, OrderMode.STOP, now_ns + FAR_NS))

    def take_over(self, kind: int, value: float, expires_ns: int, now_ns: int) -> None:
        """Know of a limit that a gateway before this one left in the mailbox: a wider one must not replace it."""
        if expires_ns > now_ns and kind >= ORDER_POLICY_FIRST:
            name = POLICY_NAMES_BY_NUMBER[kind - ORDER_POLICY_FIRST]
            if name not in self.policies.held:
                self.policies.put(name, PolicyHeld(value, expires_ns, "before restart", True))
            self._put[kind] = (value, expires_ns)
        if expires_ns > now_ns and kind in (IMPORT, EXPORT):
            self._put[kind] = (value, expires_ns)
            if any(map(math.isfinite, self._limits(kind))):
                return
            held = self.limits.setdefault(f"before restart, {kind}", LimitHeld(math.inf, math.inf, expires_ns))
            if kind == IMPORT:
                held.import_w_max = value
            else:
                held.export_w_max = value
            self._put[kind] = (value, expires_ns)

    def know(self, limits: dict[str, LimitHeld], policies: dict[str, list[PolicyHeld]], now_ns: int) -> None:
        """Take over whose limits and policies a gateway before this one held."""
        # Under a name of its own: what a peer asks from here on comes beside it and not in its place.
        self.limits = {
            name if name.endswith(BEFORE) else f"{name}{BEFORE}": held
            for name, held in limits.items()
            if held.until_ns > now_ns
        }
        self.policies.held = {name: held for name, held in policies.items() if name in POLICY_BY_NAME and held}
        self.policies.expire(now_ns)

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
        return Order(ACK, self._order(ACK, 1.0, now_ns + EDGE_NS), undo=lambda: self._end(ACK))

    def arm(self, now_ns: int) -> Order:
        """Leave the tripped state, if all conditions are good."""
        return Order(ARM, self._order(ARM, 1.0, now_ns + EDGE_NS), undo=lambda: self._end(ARM))

    def _end(self, kind: int) -> None:
        self._take_back(kind)

    def window(self, request: ops.Window, peer: Peer, now_ns: int) -> Order:
        """Pass on that the utility's demand window began. Raises Refused for a moment that is not just over."""
        began_ns = now_ns if request.began_t_ns is None else request.began_t_ns
        if not now_ns - WINDOW_NS <= began_ns <= now_ns:
            raise Refused("late", f"began_t_ns is {(now_ns - began_ns) / SECOND:.1f} s ago, expected 0 to 60 s")
        seq = self._order(WINDOW, began_ns / SECOND, now_ns + EDGE_NS)
        return Order(WINDOW, seq, undo=lambda: self._end(WINDOW))

    def schedule(self, request: ops.Schedule, peer: Peer, now_ns: int, utc_ns: int) -> Order:
        """Take a plan over, whole; an empty one ends the plan."""
        starts = [step.start_utc_s for step in request.steps]
        if starts != sorted(set(starts)):
            raise Refused("invalid-field", "steps must rise in start_utc_s - at `$.steps`")
        if request.steps and request.end_utc_s * SECOND > utc_ns + PLAN_AHEAD_NS_MAX:
            days = PLAN_AHEAD_NS_MAX // SECOND // 86_400
            raise Refused("invalid-field", f"end_utc_s lies more than {days} days ahead - at `$.end_utc_s`")
        if request.steps and request.end_utc_s <= starts[-1]:
            raise Refused("invalid-field", "end_utc_s must lie behind the last step - at `$.end_utc_s`")
        if request.steps and request.end_utc_s * SECOND < utc_ns:
            raise Refused("late", "the plan has already ended")
        by_planner = request.rank == "planner"
        if self.plan and by_planner and self.plan_rank != "planner":
            raise Refused("not-allowed", f"the plan is {self.plan_owner}'s order; a planner stands back from it",
                          holder=self.plan_owner)  # fmt: skip
        if self.plan and self.plan_owner != peer.owner and not peer.may(self.plan_role):
            raise Refused(
                "not-allowed", f"the plan is {self.plan_owner}'s with the role {self.plan_role}; that needs it too",
                holder=self.plan_owner,
            )  # fmt: skip
        plan = planned(request, peer)
        before = self.plan, self.plan_owner, self.plan_role, self.plan_rank
        self._own_no_plan()
        if plan:  # whoever may write one may replace a planner's
            self.plan, self.plan_owner, self.plan_rank = plan, peer.owner, request.rank
            self.plan_role = "operate" if by_planner else peer.role
        self._keep_orders()
        self._note("order", "schedule", f"{peer.who}: {len(self.plan)} steps{' of a planner' if by_planner else ''}")

        def undo() -> None:
            self.plan, self.plan_owner, self.plan_role, self.plan_rank = before
            self._keep_orders()
            self._put_plan()

        seq = self._newest[PLAN] = self._put_plan()
        return Order(PLAN, seq, undo=undo)

    def _own_no_plan(self) -> None:
        self.plan, self.plan_owner, self.plan_role, self.plan_rank = [], "", "read", "order"

    def policy(self, request: ops.Policy, peer: Peer, now_ns: int) -> Order:
        """Give a setting of [control] another value: a tighter one at once, a wider one for the role maintain."""
        self.expire(now_ns)
        name = request.name
        if request.off and request.value is not None:
            raise Refused("invalid-field", "give value or off, not both - at `$.value`")
        row = POLICY_BY_NAME[name]
        asked = row.off if request.off else request.value
        if asked is not None:
            self._check_policy(name, asked, now_ns)
        site, before = self.policies.site(name), self.policies.value(name, now_ns)
        wanted = asked if asked is not None else site
        maintains, leased = peer.role == "maintain", request.rank == "lease"
        if leased and not (maintains and row.tighter and (asked is None or request.for_ms)):
            raise Refused("not-allowed", f"{name}: a lease is of a limit, ends (for_ms), and needs the role maintain")
        if row.is_wider(wanted, before) and not maintains:
            raise Refused(
                "not-allowed", f"{name}: {wanted:g} is wider than {before:g} in force; that needs the role maintain"
            )
        owner = self.policies.owner(name, now_ns)
        if not row.tighter and owner is not None and not maintains:
            raise Refused("not-allowed", f"{name} was set by {owner.peer} with the role maintain; that needs it too")
        kept = list(self.policies.held.get(name, []))
        if asked is None and leased:
            self.policies.end_lease(name)
        elif asked is None:
            self.policies.clear(name, wider_only=bool(row.tighter) and not maintains)
        else:
            ends_ns = now_ns + (request.for_ms * MS if request.for_ms is not None else FAR_NS)
            self.policies.put(name, PolicyHeld(asked, ends_ns, peer.owner, maintains, leased))
        told = f"{name} {_shown(wanted)} (was {_shown(before)}, site file {_shown(site)})"
        if not leased or wanted != before:  # a lease is renewed some times a minute
            self._note("order", "policy", f"{peer.who}: {'lease of ' * leased}{told}")
        kind = ORDER_POLICY_FIRST + POLICY_NAMES_BY_NUMBER.index(name)
        seq = self._put_policy(name, now_ns)

        def undo() -> None:
            self.policies.put_back(name, kept)
            self._put_policy(name, now_ns)

        return Order(kind, seq, by=told, undo=undo)

    def _put_policy(self, name: str, now_ns: int) -> int:
        """Leave with the core what is in force of a policy."""
        kind = ORDER_POLICY_FIRST + POLICY_NAMES_BY_NUMBER.index(name)
        order = self.policies.order(name, now_ns)
        self._keep_orders()
        return self._take_back(kind) if order is None else self._order(kind, *order)

    def forget(self, owner: str, now_ns: int) -> None:
        """End all that an owner of orders has ordered, since it may order no longer. A stop of its stays."""
        if self.lease is not None and self.lease.peer == owner:
            self._end_setpoint()
            self.lease = None
            self._keep_lease(None)
        if self.manual is not None and self.manual.peer == owner:
            self._end_manual(f"{owner} lost the right to it")
        if [self.limits.pop(name, None) for name in (owner, f"{owner}{BEFORE}")] != [None, None]:
            self._put_limits(IMPORT)
            self._put_limits(EXPORT)
        for name in self.policies.forget(owner):
            self._put_policy(name, now_ns)
        if self.plan and self.plan_owner == owner:
            self._own_no_plan()
            self._put_plan()
        self._keep_orders()
        self._note("access", "orders ended", f"{owner} lost its right; its lease, limits, policies and plan are over")

    def keep_people(self, peer: Peer, gone: list[str], stay: list[str] | None, now_ns: int) -> None:
        """End what people ordered at page and console who are gone, or not among those that stay."""
        if not peer.is_local:
            raise Refused("not-allowed", "only page and console of this machine know its logins")
        for owner in sorted(self._ordering()):
            by, _, name = owner.removeprefix(ELSEWHERE).partition(" for ")
            if name and by in (peer.name, *PEOPLES) and (name in gone or (stay is not None and name not in stay)):
                self.forget(owner, now_ns)

    def _check_policy(self, name: str, value: float, now_ns: int) -> None:
        refusal = POLICY_BY_NAME[name].refusal(value)
        if refusal:
            raise Refused("invalid-field", f"{name} {refusal} - at `$.value`")
        peak = self.policies.value("peak_w_max", now_ns)
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
            self._keep_orders()
        for name in self.policies.expire(now_ns):
            self._put_policy(name, now_ns)
            self._note("order", "policy ended", f"{name} is {_shown(self.policies.value(name, now_ns))} again")

    def step(self, now_ns: int, utc_ns: int) -> None:
        """Expire, and end a plan that is over."""
        self.expire(now_ns)
        if self.plan and utc_ns // SECOND >= self.plan[-1].end_utc_s:
            self._own_no_plan()
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
