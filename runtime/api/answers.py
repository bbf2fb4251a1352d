"""The gateway's answers as types, for programs that show them: what `describe`, `why` and `health` say of a site.

Every field has a default, so that a gateway of another release, which says more or less, can still be looked at.
"""

import msgspec

from tidegate.hal.description import Description


class SiteDescription(Description, frozen=True, kw_only=True):
    """What a site is, with the names of its modes and reasons."""

    modes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    words: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A part of an answer. Fields of a later release are left aside."""


# ---- why ----


class Lease(Answer, frozen=True, kw_only=True):
    """Who holds the right to give setpoints."""

    holder: str = ""
    priority: str = ""
    expires_ms: int = 0
    setpoint_w: float | None = None


class OperatorOrder(Answer, frozen=True, kw_only=True):
    """An order of the grid's operator that is in force."""

    peer: str = ""
    text: str = ""
    left_ms: int = 0
    measured: dict[str, float | None] = {}


class Reconnect(Answer, frozen=True, kw_only=True):
    """What a grid that has come back may be given."""

    wait_s: float | None = None
    power_w: float | None = None


class WhyUnit(Answer, frozen=True, kw_only=True):
    """One storage unit: its state, and the rows of the fault table that hold or wait."""

    name: str = ""
    mode: str = "unknown"
    faults: tuple[str, ...] = ()
    latches: tuple[str, ...] = ()


class Why(Answer, frozen=True, kw_only=True):
    """Why the setpoint is what it is."""

    mode: str = "unknown"
    reason: str = "unknown"
    preference: str = "unknown"
    setpoint_w: float | None = None
    request_w: float | None = None
    corridor_lo_w: float | None = None
    corridor_hi_w: float | None = None
    envelope_lo_w: float | None = None
    envelope_hi_w: float | None = None
    grid_w: float | None = None
    load_w: float | None = None
    ess_w: float | None = None
    grid_limit_w: float | None = None
    shortfall_w: float | None = None
    faults: tuple[str, ...] = ()
    """`unit0 FAULT`, as for `latches`."""
    latches: tuple[str, ...] = ()
    units: tuple[WhyUnit, ...] = ()
    lease: Lease | None = None
    stopped: bool = False
    grid_operator: OperatorOrder | None = None
    reconnect: Reconnect | None = None


class Outcome(Answer, frozen=True, kw_only=True):
    """What became of an order."""

    status: str = "?"
    applied_w: float | None = None
    text: str = ""
    by: str = ""
    lease: str = ""
    next_seq: int | None = None
    t_ns: int = 0
    record: dict[str, object] = {}


# ---- health ----


class CoreHealth(Answer, frozen=True, kw_only=True):
    """The core process as the gateway sees it."""

    running: bool = False
    stalled: bool = False
    image_age_ms: float | None = None


class Times(Answer, frozen=True, kw_only=True):
    """Quantiles of a time, in the unit that the field's name ends in."""

    p50: float | None = None
    p99: float | None = None
    p999: float | None = None
    max: float | None = None


class LoopHealth(Answer, frozen=True, kw_only=True):
    """The loop's statistics."""

    cycles: int | None = None
    missed: int | None = None
    overruns: int | None = None
    escalation: int | None = None
    fifo: int = 0
    locked: int = 0
    lateness_ns: Times = Times()
    work_ns: Times = Times()
    read_ns: Times = Times()
    estimate_ns: Times = Times()
    control_ns: Times = Times()
    limit_ns: Times = Times()
    write_ns: Times = Times()
    publish_ns: Times = Times()


class Slave(Answer, frozen=True, kw_only=True):
    """Counters of one Modbus slave."""

    alive: int = 1
    ok: int = 0
    timeouts: int = 0
    crc_errors: int = 0
    shorts: int = 0
    mismatches: int = 0
    exceptions: int = 0
    lead_ins: int = 0
    """Right replies behind a stray byte that touched them, not believed."""
    silent_run: int = 0
    """Time-outs since its last answer."""
    t_ok_ns: int = 0
    """When it answered last, 0 = never."""
    gap_extra_us: int = 0
    """Silence before its requests beyond the line's rule: with less it did not always answer."""
    round_trip: dict[int, int] = {}
    """Bucket of `rtu_view.histogram_edges` -> count."""

    @property
    def damaged(self) -> int:
        """Replies that came and were none."""
        return self.crc_errors + self.shorts + self.mismatches


class Port(Slave, frozen=True, kw_only=True):
    """Counters of one serial port; those of a slave are its sums."""

    transactions: int = 0
    wire_busy_ns: int = 0
    foreign_bytes: int = 0
    thread_lost: int = 0
    """errno of its tty or connection, 0 = good."""
    connects: int = 0
    hangups: int = 0
    """Connections that the other side ended."""
    strays: int = 0
    """Replies over TCP to no request in flight."""
    slaves: tuple[Slave, ...] = ()


class CanId(Answer, frozen=True, kw_only=True):
    """Counters of one received CAN id."""

    count: int = 0
    bad_length: int = 0
    crc_errors: int = 0
    counter_errors: int = 0
    repeated: int = 0
    invalid: int = 0
    t_last_ns: int = 0
    gap_max_ns: int | None = None
    period_ns: int = 0

    @property
    def damaged(self) -> int:
        """Frames that came and were not taken."""
        return self.bad_length + self.crc_errors + self.counter_errors + self.repeated


class CanHealth(Answer, frozen=True, kw_only=True):
    """Counters of one CAN bus."""

    state: str = "?"
    frames: int = 0
    error_frames: int = 0
    bus_off: int = 0
    dropped: int = 0
    unknown: int = 0
    tec: int = 0
    rec: int = 0
    ids: dict[str, CanId] = {}


class Buses(Answer, frozen=True, kw_only=True):
    """All counters of ports and buses as the core left them at `t_ns`."""

    t_ns: int = 0
    serial: dict[str, Port] = {}
    can: dict[str, CanHealth] = {}


class JournalHealth(Answer, frozen=True, kw_only=True):
    """Whether the journal can be written."""

    error: str | None = None


class GatewayHealth(Answer, frozen=True, kw_only=True):
    """What the gateway says of itself. durable: stream -> newest sequence number on disk."""

    autostart: bool = True
    durable: dict[str, int] = {}


class Health(Answer, frozen=True, kw_only=True):
    """State of everything; None where the core has not said it yet."""

    core: CoreHealth | None = None
    loop: LoopHealth | None = None
    buses: Buses | None = None
    journal: JournalHealth = JournalHealth()
    gateway: GatewayHealth = GatewayHealth()
    histograms: dict[str, tuple[tuple[int, int], ...]] = {}
    """Name -> (lower edge ns, count) of the loop's times."""


class SnapshotLoop(Answer, frozen=True, kw_only=True):
    """The loop's statistics in a snapshot."""

    lateness_us: Times = Times()
    work_us: Times = Times()
    missed: int = 0


class Snapshot(Answer, frozen=True, kw_only=True):
    """All points at one moment."""

    site: str = ""
    cycle: int = 0
    points: dict[str, tuple[float | None, int]] = {}
    """Name -> (value, quality); no value unless it is good or held."""
    loop: SnapshotLoop = SnapshotLoop()


class Event(Answer, frozen=True, kw_only=True):
    """A journaled event."""

    event: str
    name: str = ""
    detail: str = ""
    unit: int = -1
    value: float | None = None
    utc_ns: int = 0
    boot: str = ""
    seq: int = 0


def rise(now: Answer, before: Answer | None, *counters: str) -> int:
    """How much counters have risen together since an earlier answer, at least 0."""

    def count(answer: Answer | None) -> int:
        return sum(int(getattr(answer, name)) for name in counters) if answer is not None else 0

    return max(0, count(now) - count(before))


def passed(told: Buses, before: Buses | None) -> float:
    """Seconds between two answers, 0 without an earlier one."""
    return (told.t_ns - before.t_ns) / 1e9 if before is not None else 0.0


def per_s(now: Answer, before: Answer | None, counter: str, passed_s: float) -> float:
    """How fast a counter rises; 0 without an earlier answer."""
    return rise(now, before, counter) / passed_s if before is not None and passed_s > 0 else 0.0
