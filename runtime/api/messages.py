"""The messages of the ZeroMQ API: one definition that encodes, decodes, refuses and documents them.

Everything on the wire is MessagePack, and less than MessagePack allows: maps have text keys, none twice; numbers are
finite and integers stay within 2**53, so that a reader in any language sees the same value; no binary, no extension
type (so no timestamps); sizes and depths are bounded. `decode` enforces that before a field is looked at. `schema`
gives JSON Schema of the same definitions; docs/api.md is the text for people.
"""

import json
import math
import sys
from typing import Annotated, Any, Literal

import msgpack
import msgspec

WIRE_VERSION = 1
COMMAND_BYTES_MAX = 8192
REPLY_BYTES_MAX = 1 << 20
DEPTH_MAX = 6
TEXT_MAX = 256
ITEMS_MAX = 1024
INTEGER_MAX = 2**53  # more would not survive a reader whose numbers are doubles
LEASE_MS_MAX = 10_000
FOR_MS_MAX = 86_400_000
NOT_AFTER_MAX_NS = 10_000_000_000  # a command may not ask to stay valid for longer

TOPICS = ("snapshot", "meter", "event", "head")
QUALITIES = ("never", "good", "held", "stale", "invalid")
ROLES = ("read", "operate", "maintain")
CLASSES = {"optimiser": 1, "ems": 2, "maintenance": 3}

# Every way to be refused: code -> what it means. docs/api.md lists them; each has a test.
CODES = {
    "malformed": "the bytes are not one strict MessagePack map",
    "too-large": f"a request has at most {COMMAND_BYTES_MAX} bytes",
    "version": f"this gateway speaks version {WIRE_VERSION}",
    "unknown-op": "no such request",
    "invalid-field": "a field is missing, unknown, of the wrong type or out of its range",
    "unknown-point": "no point of that name; describe lists them",
    "not-allowed": "the peer's role does not permit the request",
    "stopped": "the site was stopped by order; mode run lifts that",
    "no-lease": "the command needs a lease that is held",
    "lease-held": "somebody else holds the lease and cannot be pre-empted by this class",
    "late": "the command arrived after its own not_after_t_ns, or asks to stay valid too long",
    "replayed": "the sequence number of this lease was used before",
    "busy": "the peer's token bucket is empty; try again later",
    "locked": "too many refused requests of this peer; try again later",
    "core-down": "the core does not run, or its cycle stands still",
    "not-applied": "the core did not take the order over in time",
    "gone": "the journal no longer holds that record",
    "unavailable": "this site does not provide that",
    "internal": "the gateway failed to serve the request; its log says why",
}
Code = Literal[
    "malformed",
    "too-large",
    "version",
    "unknown-op",
    "invalid-field",
    "unknown-point",
    "not-allowed",
    "stopped",
    "no-lease",
    "lease-held",
    "late",
    "replayed",
    "busy",
    "locked",
    "core-down",
    "not-applied",
    "gone",
    "unavailable",
    "internal",
]


class Refused(Exception):
    """A request that is not carried out: `code` for programs, `text` for people."""

    def __init__(self, code: Code, text: str, **more: object) -> None:
        super().__init__(f"{code}: {text}")
        self.code: Code = code
        self.text = text
        self.more = more


# ---- types of fields ----

Version = Literal[1]
Id = Annotated[
    str, msgspec.Meta(min_length=1, max_length=64, description="chosen by the client; equal ids are one request")
]
Boot = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$", description="one start of the core")]
Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", description="SHA-256 of the compiled site")]
Count = Annotated[int, msgspec.Meta(ge=0, le=INTEGER_MAX)]
Watts = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]
WattsUp = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
ForMs = Annotated[int, msgspec.Meta(ge=1, le=FOR_MS_MAX, description="for so long from now, ms")]
PointName = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
LeaseId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
UserName = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_-]{0,15}$")]
Quality = Annotated[int, msgspec.Meta(ge=0, le=4, description="0 never, 1 good, 2 held, 3 stale, 4 invalid")]
Point = tuple[float | None, Quality]


# ---- requests that only read: unknown fields are ignored ----


class Read(msgspec.Struct, tag_field="op", kw_only=True):
    v: Version
    id: Id


class Describe(Read, tag="describe", kw_only=True):
    """What the site is: points with units, devices, limits, faults, names of modes and reasons."""


class Get(Read, tag="get", kw_only=True):
    """Points as they are now; none named = all."""

    points: Annotated[list[PointName], msgspec.Meta(max_length=768)] = []
    ages: bool = False
    """Also tell how old each reading is."""


class Why(Read, tag="why", kw_only=True):
    """Why the setpoint is what it is."""


class Health(Read, tag="health", kw_only=True):
    """State of core, loop, journal, gateway and leases."""

    histograms: bool = False
    """Also give the loop's histograms: [lower edge in ns, count] of each bucket in use."""


class Replay(Read, tag="replay", kw_only=True):
    """Journaled records behind (boot, seq); boot left out = from the oldest that is held.

    `total` has the quarter hours of meter samples that had to go, `job` the job records that were pushed.
    """

    stream: Literal["meter", "event", "total", "job"]
    boot: Boot | None = None
    seq: Annotated[int, msgspec.Meta(ge=-1, le=INTEGER_MAX, description="the last one that you have; -1 = none")] = -1
    count: Annotated[int, msgspec.Meta(ge=1, le=512)] = 256


# ---- commands: unknown fields are refused ----


class Command(msgspec.Struct, tag_field="op", kw_only=True, forbid_unknown_fields=True):
    v: Version
    id: Id
    not_after_t_ns: Count | None = None
    """CLOCK_MONOTONIC of the device; later the command is refused."""
    user: UserName | None = None
    """The person on whose behalf the peer asks; stands in the journal beside the peer's own name."""


class Leased(Command, kw_only=True):
    lease: LeaseId
    seq: Count
    """Rises with every command under one lease."""


class Lease(Command, tag="lease", kw_only=True):
    """Take, renew or give back the one right to command the setpoint. It ends 3 periods after the last renewal."""

    action: Literal["acquire", "renew", "release"]
    priority: Literal["optimiser", "ems", "maintenance"] = "ems"
    period_ms: Annotated[int, msgspec.Meta(ge=1, le=LEASE_MS_MAX // 3)] = 1000
    lease: LeaseId | None = None


class Setpoint(Leased, tag="setpoint", kw_only=True):
    """Battery power of the site, + discharge, while the lease lasts and at most for_ms."""

    setpoint_w: Watts
    for_ms: ForMs


class Limit(Command, tag="limit", kw_only=True):
    """A tighter limit of grid power for a time; the strictest of all that are in force counts."""

    import_w_max: WattsUp | None = None
    export_w_max: WattsUp | None = None
    for_ms: ForMs


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


class Schedule(Command, tag="schedule", kw_only=True):
    """Setpoints and limits by the clock; a step lasts until the next, the last until end_utc_s. No steps = no plan."""

    steps: Annotated[list[Step], msgspec.Meta(max_length=128)]
    end_utc_s: Count


PolicyName = Literal[
    "peak_w_max",
    "demand_w_max",
    "recharge_w_max",
    "ramp_up_w_per_s",
    "ramp_down_w_per_s",
    "range_w_max",
    "damp_share",
    "reserve_soc",
    "follow_soc_min",
    "follow_grid",
    "target_grid_w",
    "target_soc",
    "recharge_rate_w",
]


class Policy(Command, tag="policy", kw_only=True):
    """Another value for a setting of [control]; none = the site file's again. What is wider needs the role maintain."""

    name: PolicyName
    value: Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)] | None = None
    off: bool = False
    """Switch the policy off."""
    for_ms: ForMs | None = None
    """None = until it is set again or the core restarts."""


class Mode(Command, tag="mode", kw_only=True):
    """`stop` ramps to zero and stays there; `run` lifts a stop, ends manual and arms.

    `manual` gives `power_w` (+ discharge) for `for_ms` through the gate and the connection limits; policies, plan and
    lease rest meanwhile. It ends by itself: whoever wants more sends it again before the time is over.
    """

    mode: Literal["run", "stop", "manual"]
    power_w: Watts | None = None
    for_ms: Annotated[int, msgspec.Meta(ge=100, le=60_000)] = 3_000


class Ack(Command, tag="ack", kw_only=True):
    """Acknowledge latched faults; those whose cause is gone are lifted."""


class Note(Command, tag="note", kw_only=True):
    """A line for the journal that changes nothing: a login, a test, a change of the site file."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    detail: Annotated[str, msgspec.Meta(max_length=150)] = ""


class Record(Command, tag="record", kw_only=True):
    """Have the recorder write the last minutes of every cycle to a file on the device; an event `note` names it."""

    cause: Annotated[str, msgspec.Meta(max_length=64)] = ""


class JobRecord(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One job on one node, after its end. A record with the same job, node and start replaces the one before."""

    job: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    start_utc_s: Count
    end_utc_s: Count
    owner: Annotated[str, msgspec.Meta(max_length=200)] = ""
    node: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """The IT load of the site that it ran on, by its meter's name; empty = all of the IT load."""
    slots: Annotated[int, msgspec.Meta(ge=1, le=10_000_000, description="GPUs, or what else it held")] = 1
    energy_j: Annotated[float, msgspec.Meta(ge=0, le=1e15, description="counted by software")] | None = None
    units: Annotated[dict[str, Annotated[float, msgspec.Meta(ge=0, le=1e15)]], msgspec.Meta(max_length=16)] = {}
    """What it made: {"token": 1.2e6, "request": 300}."""


class Jobs(Command, tag="jobs", kw_only=True):
    """Jobs that ended, for the carbon account; answered once they are on disk."""

    jobs: Annotated[list[JobRecord], msgspec.Meta(min_length=1, max_length=64)]


Request = (
    Describe
    | Get
    | Why
    | Health
    | Replay
    | Lease
    | Setpoint
    | Limit
    | Schedule
    | Policy
    | Mode
    | Ack
    | Note
    | Jobs
    | Record
)
READS = ("describe", "get", "why", "health", "replay")
OPS = {
    "describe": "read",
    "get": "read",
    "why": "read",
    "health": "read",
    "replay": "read",
    "lease": "operate",
    "setpoint": "operate",
    "limit": "operate",
    "schedule": "operate",
    "policy": "operate",
    "mode": "operate",
    "ack": "maintain",
    "note": "operate",
    "jobs": "operate",
    "record": "operate",
}


# ---- answers ----


class Reply(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Every answer. `ok` for reads, `applied` or `clamped` for commands, `refused` for either."""

    v: Version
    id: str
    op: str
    status: Literal["ok", "applied", "clamped", "refused"]
    boot: Boot | None = None
    cycle: Count = 0
    t_ns: Count = 0
    code: Code | None = None
    text: str | None = None
    applied_w: float | None = None
    """What became of a setpoint or a limit, W."""
    by: str | None = None
    """The reason that clamped it."""
    lease: LeaseId | None = None
    expires_ms: Count | None = None
    holder: str | None = None
    next_seq: Count | None = None
    points: dict[str, Point] | None = None
    ages_ms: dict[str, float | None] | None = None
    """null for a reading that never came."""
    site: dict[str, Any] | None = None
    why: dict[str, Any] | None = None
    health: dict[str, Any] | None = None
    record: dict[str, Any] | None = None
    """The folder that the recorder writes to, on the device."""
    records: list[dict[str, Any]] | None = None
    end: bool | None = None
    """Replay: true when nothing newer is held."""
    accepted: Count | None = None
    """Jobs: how many are on disk."""
    refused: list[str] | None = None
    """Jobs: those that are not, each with its place in the request, its name and the reason."""


# ---- what is published ----


class Published(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    v: Version
    kind: str
    site: str
    boot: Boot
    seq: Count
    cycle: Count
    t_ns: Count
    utc_ns: int
    utc_sync: Literal["U", "I", "S"]
    """U: not synchronised, I: unknown to this machine, S: synchronised."""
    program: Hash


class Meter(Published, kw_only=True):
    """Once a second, journaled: energies, integrals, seconds covered, powers with their least and most, soc."""

    kind: Literal["meter"]
    points: dict[str, Point]


class Snapshot(Published, kw_only=True):
    """All points, live and lossy: a gap in seq is a loss at your end."""

    kind: Literal["snapshot"]
    points: dict[str, Point]
    loop: dict[str, Any]


class Event(Published, kw_only=True):
    """Something changed, journaled."""

    kind: Literal["event"]
    event: str
    unit: int
    """Storage unit, -1 = the site."""
    code: int
    name: str
    previous: int
    value: float | None
    limit: float | None
    detail: str = ""


class Head(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Once a second: the newest durable record of each stream, so that a loss at the end of a stream is seen too."""

    v: Version
    kind: Literal["head"]
    site: str
    boot: Boot
    meter: int
    event: int
    snapshots_dropped: Count
    """Pictures that the gateway itself could not take from the core in time."""
    journal_error: str
    """What the disk says while nothing can be made durable; empty = all is well."""


# ---- strict bytes ----


def _pairs(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Refused("malformed", "a key stands twice in one map")
    for key in found:
        if type(key) is not str:
            raise Refused("malformed", "keys must be text")
    return found


def _extension(code: int, data: bytes) -> None:
    raise Refused("malformed", f"extension type {code} is not allowed")


def _check(value: Any, depth: int) -> None:
    kind = type(value)
    if kind is str:
        if len(value) > TEXT_MAX:
            raise Refused("malformed", f"text longer than {TEXT_MAX}")
    elif kind is float:
        if not math.isfinite(value):
            raise Refused("malformed", "numbers must be finite")
    elif kind is int:
        if not -INTEGER_MAX <= value <= INTEGER_MAX:
            raise Refused("malformed", "integers must stay within 2**53")
    elif kind is dict or kind is list:
        if depth <= 0:
            raise Refused("malformed", f"deeper than {DEPTH_MAX}")
        for item in value.values() if kind is dict else value:
            _check(item, depth - 1)
    elif value is not None and kind is not bool:
        raise Refused("malformed", f"type {kind.__name__} is not allowed")


def decode(data: bytes | memoryview, bytes_max: int = COMMAND_BYTES_MAX) -> dict[str, Any]:
    """Give the map that strict MessagePack bytes hold.

    Raises Refused("too-large" | "malformed") and nothing else, for any bytes.
    """
    if len(data) > bytes_max:
        raise Refused("too-large", f"{len(data)} bytes, at most {bytes_max}")
    try:
        found = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_pairs,
            ext_hook=_extension,
            max_str_len=TEXT_MAX * 4,
            max_bin_len=0,
            max_ext_len=0,
            max_array_len=ITEMS_MAX,
            max_map_len=ITEMS_MAX,
        )
    except Refused:
        raise
    except Exception as why:  # msgpack raises half a dozen kinds, all of which mean the same here
        raise Refused("malformed", f"not MessagePack as we speak it: {type(why).__name__} {why}"[:TEXT_MAX]) from None
    if type(found) is not dict:
        raise Refused("malformed", f"a map is expected, not {type(found).__name__}")
    _check(found, DEPTH_MAX)
    return found


def parse(data: bytes | memoryview) -> Request:  # type: ignore[valid-type]
    """Give the request that the bytes hold. Raises Refused with the code that fits, and nothing else."""
    found = decode(data)
    version = found.get("v")
    if version != WIRE_VERSION or type(version) is not int:
        raise Refused("version", f"v is {version!r}, this gateway speaks {WIRE_VERSION}"[:TEXT_MAX], request=found)
    op = found.get("op")
    if type(op) is not str or op not in OPS:
        raise Refused("unknown-op", f"op is {op!r}, expected one of {', '.join(OPS)}"[:TEXT_MAX], request=found)
    try:
        return msgspec.convert(found, type=Request)
    except msgspec.ValidationError as why:
        raise Refused("invalid-field", str(why)[:TEXT_MAX], request=found) from None


_packer = msgpack.Packer(autoreset=True, use_bin_type=True)


def encode(message: dict[str, Any]) -> bytes:
    """Give the bytes of a message of ours. One thread only; other threads use their own packer."""
    packed: bytes = _packer.pack(message)
    return packed


def number(value: float, quality: int) -> float | None:
    """Give what a point shows outside: its value while it is good or held, else nothing."""
    return value if (quality == 1 or quality == 2) and math.isfinite(value) else None


def schema() -> dict[str, Any]:
    """Give the JSON Schema of all messages, from the definitions that enforce them."""
    kinds = (
        Describe,
        Get,
        Why,
        Health,
        Replay,
        Lease,
        Setpoint,
        Limit,
        Schedule,
        Policy,
        Mode,
        Ack,
        Note,
        Jobs,
        Record,
        Reply,
        Meter,
        Snapshot,
        Event,
        Head,
    )
    _, components = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tidegate ZeroMQ API",
        "description": "MessagePack maps. Requests: DEALER or REQ to the api socket, one frame. Topics: SUB to the "
        "stream socket, two frames, topic and payload.",
        "x-version": WIRE_VERSION,
        "x-codes": CODES,
        "x-roles": OPS,
        "x-topics": {
            "snapshot": "#/$defs/Snapshot",
            "meter": "#/$defs/Meter",
            "event": "#/$defs/Event",
            "head": "#/$defs/Head",
        },
        "x-strict": {
            "request_bytes_max": COMMAND_BYTES_MAX,
            "reply_bytes_max": REPLY_BYTES_MAX,
            "depth_max": DEPTH_MAX,
            "text_max": TEXT_MAX,
            "items_max": ITEMS_MAX,
            "integer_max": INTEGER_MAX,
        },
        "$defs": components,
    }


if __name__ == "__main__":
    json.dump(schema(), sys.stdout, indent=1, sort_keys=True)
    print()
