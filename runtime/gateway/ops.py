"""The operations of the API: one class each, with its fields, its role, what serves it and what its answer holds.

Everything else about an operation follows from its class: the decoder (`parse`), roles and dispatch, the JSON Schema
(docs/api.schema.json) and the table in docs/api.md, which `api_pages.py` writes.
"""

import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias

import msgspec

from tidegate.ext.abi.settings import POLICY_NAMES_BY_NUMBER
from tidegate.ext.abi.shared import EVENT_NAMES, EVENTS_KEPT, Overwritten
from tidegate.ext.safety.gate import REACTIONS
from tidegate.hal.description import Fault
from tidegate.runtime.api import messages
from tidegate.runtime.api.messages import (
    LEASE_MS_MAX,
    Boot,
    Count,
    ForMs,
    Id,
    LeaseId,
    PlanRank,
    Point,
    PointName,
    Refused,
    Role,
    UserName,
    Version,
    Watts,
    WattsUp,
)
from tidegate.runtime.gateway import carbon_shown
from tidegate.runtime.gateway.alarm_shelf import SHELVE_MS_MAX, Alarm, FindingSaid, Remedy, Shelved
from tidegate.runtime.gateway.job_record import JobRecord

if TYPE_CHECKING:
    from tidegate.runtime.gateway.orders_held import Order
    from tidegate.runtime.gateway.requests import Call

DECIMAL = r"^[0-9]{1,15}(\.[0-9]{1,9})?$"
FAULT_ON = EVENT_NAMES.index("fault_on")
Fields: TypeAlias = Mapping[str, object]


class Nothing(msgspec.Struct):
    """The answer of an operation that has nothing to add."""


class Operation(msgspec.Struct, tag_field="op", kw_only=True):
    """What every request has. A subclass with a `serve` of its own is an operation."""

    v: Version
    id: Id
    role: ClassVar[Role]
    Answer: ClassVar[type[msgspec.Struct]] = Nothing

    def serve(self, call: "Call") -> "Fields | list[Order] | None":
        """The answer's own fields; or orders, of which the core's doing is the answer; or None: it comes later.

        Raises Refused.
        """
        raise NotImplementedError

    @classmethod
    def op(cls) -> str:
        """Its name on the wire."""
        return str(cls.__struct_config__.tag)


# ---- requests that only read: unknown fields are ignored ----


class Read(Operation, kw_only=True):
    role: ClassVar[Role] = "read"


class Describe(Read, tag="describe", kw_only=True):
    """What the site is: points with units, devices, limits, faults, names of modes and reasons."""

    class Answer(msgspec.Struct):
        site: messages.SiteDescription

    def serve(self, call: "Call") -> Fields:
        return {"site": call.site.description(OPS)}


class Get(Read, tag="get", kw_only=True):
    """Points as they are now."""

    points: Annotated[list[PointName], msgspec.Meta(max_length=1024, description="names; none = all")] = []
    ages: Annotated[bool, msgspec.Meta(description="also say how old each reading is")] = False

    class Answer(msgspec.Struct):
        points: dict[str, Point]
        ages_ms: Annotated[dict[str, float | None], msgspec.Meta(description="null for one that never came")]

    def serve(self, call: "Call") -> Fields:
        return call.site.points(self.points, self.ages)


class Why(Read, tag="why", kw_only=True):
    """Why the setpoint is what it is: reason, mode, corridor, envelope, units, faults, latches, causes, lease."""

    class Answer(msgspec.Struct):
        why: dict[str, object]

    def serve(self, call: "Call") -> Fields:
        causes = [finding.title for finding in call.server.causes.found()]
        return {"why": {**call.site.why(), "causes": causes}}


class Alarms(Read, tag="alarms", kw_only=True):
    """The faults that are active or latched, strongest reaction first: since when, why, and what ends each.

    Beside them what the evidence points to, also where no alarm is active: a meter that is turned, a line that is cut.
    """

    class Answer(msgspec.Struct):
        alarms: list[Alarm]
        findings: list[FindingSaid]
        shelved: Annotated[list[Shelved], msgspec.Meta(description="all that is put aside, active or not")] = []

    def serve(self, call: "Call") -> Fields:
        site, memory = call.site.described, call.server.memory
        active, latched = (set(call.site.bits(what)) for what in ("fault_bits", "latch_bits"))
        began_ns: dict[tuple[int, int], int] = {}
        number = memory.event_head
        while number > max(0, memory.event_head - EVENTS_KEPT) and not active | latched <= began_ns.keys():
            number -= 1
            try:
                event = memory.next_event(number)
            except Overwritten:
                break
            if event is not None and event.kind == FAULT_ON:
                began_ns.setdefault((event.unit, event.code), event.t_ns)
        rows = {place if fault.row is None else fault.row: fault for place, fault in enumerate(site.faults)}
        findings = call.server.causes.found()
        alarms = []
        for unit, row in active | latched:
            fault = rows.get(row) or Fault(id=f"fault {row}")
            t_ns = began_ns.get((unit, row))
            found = Alarm(
                id=fault.id,
                unit=site.units[unit].name if unit < len(site.units) else f"unit{unit}",
                text=fault.text,
                reaction=fault.reaction,
                active=(unit, row) in active,
                latched=(unit, row) in latched,
                since_s=None if t_ns is None else max(0, call.now_ns - t_ns) / 1e9,
                cause=fault.what,
                remedy=Remedy(fault.clear, fault.clear_ms, (unit, row) in latched or fault.latched),
                finding=next((one.title for one in findings if fault.id in one.faults), ""),
            )
            found.shelved = call.server.shelf.of(found.unit, found.id)
            alarms.append(found)
        alarms.sort(key=lambda one: (-REACTIONS.index(one.reaction) if one.reaction in REACTIONS else 0, one.id))
        said = [FindingSaid(f.title, f.because, f.remedy, sorted(f.faults), f.weight) for f in findings]
        shelved = call.server.shelf.all()
        return {key: msgspec.to_builtins(rows)
                for key, rows in (("alarms", alarms), ("findings", said), ("shelved", shelved))}  # fmt: skip


class Health(Read, tag="health", kw_only=True):
    """State of core, loop, buses, journal, gateway and lease."""

    histograms: Annotated[bool, msgspec.Meta(description="also the loop's: [lower edge in ns, count] each")] = False

    class Answer(msgspec.Struct):
        health: dict[str, object]

    def serve(self, call: "Call") -> Fields:
        more = {"histograms": call.site.histograms()} if self.histograms else {}
        return {"health": {**call.server.health(), **more}}


class Replay(Read, tag="replay", kw_only=True):
    """Journaled records behind (boot, seq).

    `total` has the quarter hours of meter samples that had to go, `job` the job records that were pushed.
    """

    stream: Literal["meter", "event", "total", "job"]
    boot: Annotated[Boot | None, msgspec.Meta(description="none = from the oldest that is held")] = None
    seq: Annotated[
        int, msgspec.Meta(ge=-1, le=messages.INTEGER_MAX, description="the last one that you have; -1 = none")
    ] = -1
    count: Annotated[int, msgspec.Meta(ge=1, le=512)] = 256

    class Answer(msgspec.Struct):
        records: list[dict[str, object]]
        end: Annotated[bool, msgspec.Meta(description="nothing newer is held")]

    def serve(self, call: "Call") -> None:
        call.server.replay(call, self)


class CarbonNow(Read, tag="carbon", kw_only=True):
    """Carbon and energy as they are now, provisional until the period is booked; each number says what it lacks."""

    of: carbon_shown.Of = "site"
    name: Annotated[carbon_shown.Name | None, msgspec.Meta(description="of one row; none = all")] = None

    class Answer(msgspec.Struct):
        of: str
        utc_s: Annotated[Count, msgspec.Meta(description="when the sidecar made them")]
        age_s: float
        late: Annotated[bool, msgspec.Meta(description="the sidecar has shown nothing for a minute")]
        rows: list[carbon_shown.CarbonRow]

    def serve(self, call: "Call") -> Fields:
        found = call.server.carbon_shown.of(self.of, self.name)
        if found is None:
            raise Refused("unavailable", f"the carbon sidecar has not shown any figures of {self.of} yet")
        return found


# ---- commands: unknown fields are refused ----


class Command(Operation, kw_only=True, forbid_unknown_fields=True):
    role: ClassVar[Role] = "operate"
    needs_core: ClassVar[bool] = True
    not_after_t_ns: Count | None = None
    """CLOCK_MONOTONIC of the device; later the command is refused."""
    user: UserName | None = None
    """The person on whose behalf the peer asks; stands in the journal beside the peer's own name."""
    for_remote: Annotated[bool, msgspec.Meta(description="it came to the peer from another machine")] = False

    @property
    def always_done(self) -> bool:
        """Done each time that it is asked, since doing it again is harmless and not doing it is not."""
        return False

    @property
    def lifts_stop(self) -> bool:
        """It takes a site out of the stop."""
        return False


class Leased(Command, kw_only=True):
    lease: LeaseId
    seq: Annotated[int, msgspec.Meta(ge=0, le=messages.INTEGER_MAX, description="rises under one lease")]


class Lease(Command, tag="lease", kw_only=True):
    """Take, renew or give back the one right to command the setpoint. It ends 3 periods after the last renewal."""

    action: Literal["acquire", "renew", "release"]
    priority: Literal["optimiser", "ems", "maintenance"] = "ems"
    period_ms: Annotated[int, msgspec.Meta(ge=1, le=LEASE_MS_MAX // 3)] = 1000
    lease: LeaseId | None = None

    @property
    def always_done(self) -> bool:
        return self.action == "renew"

    class Answer(msgspec.Struct):
        lease: LeaseId
        expires_ms: Count
        next_seq: Count

    def serve(self, call: "Call") -> Fields:
        return call.desk.take_lease(self, call.peer, call.now_ns)


class Setpoint(Leased, tag="setpoint", kw_only=True):
    """Battery power of the site, + discharge, while the lease lasts and at most for_ms."""

    setpoint_w: Watts
    for_ms: ForMs

    class Answer(msgspec.Struct):
        applied_w: float
        by: str
        expires_ms: Count
        next_seq: Count

    def serve(self, call: "Call") -> "list[Order]":
        return [call.desk.setpoint(self, call.peer, call.now_ns)]


class Limit(Command, tag="limit", kw_only=True):
    """A tighter limit of grid power for a time; the strictest of all that are in force counts."""

    import_w_max: WattsUp | None = None
    export_w_max: WattsUp | None = None
    for_ms: ForMs

    class Answer(msgspec.Struct):
        applied_w: float
        by: str

    def serve(self, call: "Call") -> "list[Order]":
        return call.desk.limit(self, call.peer, call.now_ns)


class GridOperator(Command, tag="grid_operator", kw_only=True):
    """An order of the grid's operator, above every lease, plan and policy and never wider; its end has its proof.

    The same order given again lasts longer, another one of the same peer takes its place, `release` ends it. The
    order of another peer is replaced and released with the role maintain only.
    """

    action: Literal["order", "release"] = "order"
    import_w_max: WattsUp | None = None
    export_w_max: WattsUp | None = None
    stop: Annotated[bool, msgspec.Meta(description="no battery power")] = False
    reference: Annotated[str, msgspec.Meta(max_length=64, description="the operator's own name of it")] = ""
    for_ms: ForMs = 900_000

    class Answer(msgspec.Struct):
        text: str
        expires_ms: Count

    def serve(self, call: "Call") -> "list[Order]":
        return call.server.order_of_grid_operator(call, self)


class Window(Command, tag="window", kw_only=True):
    """The utility's demand window began now, as its pulse says: it decides until pulses stay away for two windows."""

    began_t_ns: Annotated[Count | None, msgspec.Meta(description="CLOCK_MONOTONIC of the device; none = now")] = None

    def serve(self, call: "Call") -> "list[Order]":
        return [call.desk.window(self, call.peer, call.now_ns)]


Soc = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Step(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What holds from start_utc_s until the next step; a step that says nothing leaves it to the next source."""

    start_utc_s: Count
    setpoint_w: Watts | None = None
    """Battery power of the site, + discharge."""
    until_soc: Soc | None = None
    """The setpoint ends when the state of charge is there."""
    forced: bool = False
    """The setpoint outranks a lease, the recharge band and the soc band; needs the role maintain."""
    target_grid_w: Watts | None = None
    """Self-consumption: the grid power to keep."""
    import_w_max: WattsUp | None = None
    export_w_max: WattsUp | None = None
    peak_w_max: WattsUp | None = None
    demand_w_max: WattsUp | None = None
    charge_w_max: WattsUp | None = None
    """Battery power at most, each way; 0 = none in this direction."""
    discharge_w_max: WattsUp | None = None


class Schedule(Command, tag="schedule", kw_only=True):
    """Setpoints and limits by the clock; a step lasts until the next, the last until end_utc_s. No steps = no plan."""

    steps: Annotated[list[Step], msgspec.Meta(max_length=128)]
    end_utc_s: Count
    rank: Annotated[PlanRank, msgspec.Meta(description="planner = below every plan that is an order")] = "order"

    def serve(self, call: "Call") -> "list[Order]":
        return [call.desk.schedule(self, call.peer, call.now_ns, call.utc_ns)]


if TYPE_CHECKING:
    PolicyName = str
else:
    PolicyName = Literal[POLICY_NAMES_BY_NUMBER]


class Policy(Command, tag="policy", kw_only=True):
    """Another value for a setting of [control]; none = the site file's again. What is wider needs the role maintain."""

    name: PolicyName
    value: Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)] | None = None
    off: Annotated[bool, msgspec.Meta(description="switch the policy off")] = False
    for_ms: ForMs | None = None
    """None = until it is set again or the core restarts."""
    rank: Annotated[Literal["order", "lease"], msgspec.Meta(description="lease = below every order, one at a time")] = (
        "order"
    )

    class Answer(msgspec.Struct):
        text: str

    def serve(self, call: "Call") -> "list[Order]":
        return [call.desk.policy(self, call.peer, call.now_ns)]


class Mode(Command, tag="mode", kw_only=True):
    """`stop` ramps to zero and stays there; `run` lifts a stop, ends manual and arms; `manual` needs the role maintain.

    `manual` gives `power_w` (+ discharge) for `for_ms` through the gate and the connection limits; policies, plan and
    lease rest meanwhile. It ends by itself: whoever wants more sends it again before the time is over.
    """

    mode: Literal["run", "stop", "manual"]
    power_w: Watts | None = None
    for_ms: Annotated[int, msgspec.Meta(ge=100, le=60_000, description="of manual")] = 3_000

    @property
    def always_done(self) -> bool:
        return self.mode == "stop"

    @property
    def lifts_stop(self) -> bool:
        return self.mode != "stop"

    class Answer(msgspec.Struct):
        applied_w: float
        by: str
        expires_ms: Count

    def serve(self, call: "Call") -> "list[Order]":
        if self.mode == "manual" and call.peer.role == "maintain" and not call.desk.stopped:
            call.site.refuse_idle()
        return [call.desk.mode(self, call.peer, call.now_ns)]


class Lock(Command, tag="lock", kw_only=True):
    """Lock-out: stop the site under a person's name with the reason, until that lock is taken off. On site only.

    Each person has a lock of its own; `run` is refused while there is one. The stop stays when the last is taken off.
    """

    action: Literal["lock", "unlock"]
    name: UserName
    """Whose lock."""
    reason: Annotated[str, msgspec.Meta(max_length=100)] = ""

    @property
    def always_done(self) -> bool:
        return self.action == "lock"

    def serve(self, call: "Call") -> "Fields | list[Order]":
        return call.desk.lock(self, call.peer, call.now_ns) or {}


class Switch(Command, tag="control", kw_only=True):
    """Where orders are taken from: `local` = on site only, other machines may watch and stop. On site only."""

    role: ClassVar[Role] = "maintain"
    needs_core: ClassVar[bool] = False
    place: Literal["local", "remote"]

    def serve(self, call: "Call") -> Fields:
        call.desk.control(self, call.peer, call.now_ns)
        return {}


class Ack(Command, tag="ack", kw_only=True):
    """Acknowledge latched faults; those whose cause is gone are lifted."""

    role: ClassVar[Role] = "maintain"

    def serve(self, call: "Call") -> "list[Order]":
        return [call.desk.ack(call.peer, call.now_ns)]


class Note(Command, tag="note", kw_only=True):
    """A line for the journal that changes nothing: a login, a test, a change of the site file."""

    needs_core: ClassVar[bool] = False
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    detail: Annotated[str, msgspec.Meta(max_length=150)] = ""

    def serve(self, call: "Call") -> Fields:
        call.desk.audit.append(("note", self.name, f"{call.peer.who}: {self.detail}"))
        return {}


class Logins(Command, tag="logins", kw_only=True):
    """What people ordered at page and console ends with their logins and tokens. On this machine only."""

    role: ClassVar[Role] = "maintain"
    needs_core: ClassVar[bool] = False
    gone: Annotated[list[UserName], msgspec.Meta(max_length=512, description="removed, or with a lower role")] = []
    stay: Annotated[list[UserName], msgspec.Meta(max_length=512, description="all that there are")] | None = None

    def serve(self, call: "Call") -> Fields:
        call.desk.keep_people(call.peer, self.gone, self.stay, call.now_ns)
        return {}


class Jobs(Command, tag="jobs", kw_only=True):
    """Jobs that ended, for the carbon account; answered once they are on disk."""

    needs_core: ClassVar[bool] = False
    jobs: Annotated[list[JobRecord], msgspec.Meta(min_length=1, max_length=64)]

    class Answer(msgspec.Struct):
        accepted: Annotated[int, msgspec.Meta(description="how many are on disk")]
        refused: Annotated[list[str], msgspec.Meta(description="the others: place in the request, name, reason")]

    def serve(self, call: "Call") -> None:
        call.server.push_jobs(call, self)


class Shelve(Command, tag="shelve", kw_only=True):
    """Put an alarm aside for a time, with a reason, or take it back (for_ms 0). The controller does what it did."""

    needs_core: ClassVar[bool] = False
    unit: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    alarm: Annotated[str, msgspec.Meta(min_length=1, max_length=64, description="id of the fault")]
    for_ms: Annotated[int, msgspec.Meta(ge=0, le=SHELVE_MS_MAX)]
    reason: Annotated[str, msgspec.Meta(max_length=120)] = ""

    def serve(self, call: "Call") -> Fields:
        call.server.shelve(call, self)
        return {}


class Account(Command, tag="account", kw_only=True):
    """A meter or the device's key was replaced, or where a register begins at 0 again; for the signed ledger.

    On this machine only; answered once it is on disk. The carbon sidecar enters it when the register is booked.
    """

    role: ClassVar[Role] = "maintain"
    needs_core: ClassVar[bool] = False
    what: Literal["exchange", "range", "key"]
    meter: Annotated[str, msgspec.Meta(max_length=64, description="a flow, or with quantity a meter by file")] = ""
    quantity: Annotated[str, msgspec.Meta(max_length=32)] = ""
    unit: Annotated[str, msgspec.Meta(max_length=8)] = "kWh"
    at_utc_s: Count = 0
    closing: Annotated[str, msgspec.Meta(max_length=24, pattern=DECIMAL, description="range: the end")] = "0"
    opening: Annotated[str, msgspec.Meta(max_length=24, pattern=DECIMAL)] = "0"
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=120)]

    def serve(self, call: "Call") -> None:
        call.server.push_account(call, self)


class ShowCarbon(Command, tag="show_carbon", kw_only=True):
    """The carbon sidecar's figures, page by page, for the op and the topic `carbon`. On this machine only."""

    role: ClassVar[Role] = "maintain"
    needs_core: ClassVar[bool] = False
    of: carbon_shown.Of
    utc_s: Count
    page: Annotated[int, msgspec.Meta(ge=0, lt=carbon_shown.PAGES_MAX)] = 0
    pages: Annotated[int, msgspec.Meta(ge=1, le=carbon_shown.PAGES_MAX)] = 1
    rows: Annotated[list[carbon_shown.CarbonRow], msgspec.Meta(max_length=carbon_shown.PAGE_ROWS)]

    @property
    def always_done(self) -> bool:
        """A page that comes twice is the same page, and hundreds an hour need no memory of their answers."""
        return True

    def serve(self, call: "Call") -> Fields:
        if not call.peer.at_site:
            raise Refused("not-allowed", "only the sidecar of this machine shows carbon figures")
        call.server.show_carbon(self)
        return {}


class Record(Command, tag="record", kw_only=True):
    """Have the recorder write the last minutes of every cycle to a file on the device; an event `note` names it."""

    needs_core: ClassVar[bool] = False
    cause: Annotated[str, msgspec.Meta(max_length=64)] = ""

    class Answer(msgspec.Struct):
        record: Annotated[dict[str, str], msgspec.Meta(description="the `folder` on the device")]

    def serve(self, call: "Call") -> Fields:
        if call.server.recordings is None:
            raise Refused("unavailable", call.server.recordings_lack)
        call.desk.audit.append(("record", "requested", f"{call.peer.who}: {self.cause}"))
        return {"record": {"folder": str(call.server.recordings)}}


# ---- what follows from the classes ----

OPERATIONS: dict[str, type[Operation]] = {
    kind.op(): kind
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, Operation) and kind is not Operation and "serve" in vars(kind)
}
OPS: dict[str, Role] = {op: kind.role for op, kind in OPERATIONS.items()}
_UNION: object = typing.Union[tuple(OPERATIONS.values())]  # noqa: UP007


def parse(data: bytes | memoryview) -> Operation:
    """Give the request that the bytes hold. Raises Refused with the code that fits, and nothing else."""
    found = messages.decode(data)
    version = found.get("v")
    if version not in messages.VERSIONS or type(version) is not int:
        spoken = ", ".join(map(str, messages.VERSIONS))
        text = f"v is {version!r}, this gateway speaks {spoken}; use a client of one of these versions"
        raise Refused("version", text[: messages.TEXT_MAX], request=found)
    op = found.get("op")
    if type(op) is not str or op not in OPS:
        text = f"op is {op!r}, expected one of {', '.join(OPS)}"
        raise Refused("unknown-op", text[: messages.TEXT_MAX], request=found)
    try:
        request: Operation = msgspec.convert(found, type=_UNION)
    except msgspec.ValidationError as why:
        raise Refused("invalid-field", str(why)[: messages.TEXT_MAX], request=found) from None
    return request
