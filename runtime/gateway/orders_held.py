"""What the desk holds and hands on: orders, lease, limits, plan; the slots of the mailbox and the bounds of time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tidegate.ext.abi.shared import PLAN_FIELDS, OrderKind
from tidegate.runtime.api.messages import Refused
from tidegate.runtime.gateway.peers import ELSEWHERE, Peer

if TYPE_CHECKING:
    from tidegate.runtime.gateway.ops import Schedule

MODE, SETPOINT, MANUAL = OrderKind.MODE, OrderKind.SETPOINT_W, OrderKind.MANUAL_W
STOP = OrderKind.STOP  # of a signal; see stops_held.py
IMPORT, EXPORT = OrderKind.IMPORT_W_MAX, OrderKind.EXPORT_W_MAX
ACK, ARM, WINDOW = OrderKind.ACK, OrderKind.ARM, OrderKind.WINDOW
MS = 1_000_000
SECOND = 1_000_000_000
EDGE_NS = SECOND  # an acknowledgement or arming that the core has not seen by then is void
WINDOW_NS = 60 * SECOND  # a pulse that is told later has waited somewhere
FAR_NS = 10 * 365 * 86_400 * SECOND  # a stop has no end
PLAN = -1  # no slot of the mailbox: the plan has a place of its own

REMOTE = ("key:", "tcp:", ELSEWHERE)  # how the names of whoever orders from other machines begin
LIMITS_MAX = 64
BEFORE = ", before a restart"  # whose limits a gateway before this one took
PLAN_AHEAD_NS_MAX = 366 * 86_400 * SECOND
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
    said: str = ""
    """What else is to be told of it."""
    undo: Callable[[], None] | None = None
    """Puts back what was in force before; None: it stands, because it only makes things safer."""


@dataclass(frozen=True)
class Planned:
    """One step of a client's plan, UTC."""

    start_utc_s: int
    end_utc_s: int
    forced: bool
    values: dict[str, float]


def planned(request: "Schedule", peer: Peer) -> list[Planned]:
    """The steps of a plan as they were sent. Raises Refused."""
    starts = [step.start_utc_s for step in request.steps]
    plan = []
    for i, (step, end_utc_s) in enumerate(
        zip(request.steps, [*starts[1:], request.end_utc_s][: len(starts)], strict=True)
    ):
        if step.setpoint_w is None and (step.forced or step.until_soc is not None):
            raise Refused("invalid-field", f"without setpoint_w neither forced nor until_soc - at `$.steps[{i}]`")
        if step.forced and peer.role != "maintain":
            raise Refused("not-allowed", f"a forced step needs the role maintain, {peer.name} has {peer.role}")
        values = {name: getattr(step, name) + 0.0 for name in PLAN_FIELDS if getattr(step, name) is not None}
        plan.append(Planned(step.start_utc_s, end_utc_s, step.forced, values))
    return plan


def left_ms(expires_ns: int, now_ns: int) -> int:
    """Whole milliseconds until a moment, 0 once it is over."""
    return max(0, (expires_ns - now_ns) // MS)
