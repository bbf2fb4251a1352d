"""The messages of the ZeroMQ API: answers, what is published, and the strict bytes of all of them.

Everything on the wire is MessagePack, and less than MessagePack allows: maps have text keys, none twice; numbers are
finite and integers stay within 2**53, so that a reader in any language sees the same value; no binary, no extension
type (so no timestamps); sizes and depths are bounded. `decode` enforces that before a field is looked at. What can be
asked stands in `tidegate.runtime.gateway.ops`; docs/api.md is the text for people.
"""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

import msgpack
import msgspec

from tidegate.hal.description import RENAMED_POINTS, Description

WIRE_VERSION = 2
VERSIONS = (1, 2)  # that are read; version 1 knows the names that hal/description.py renames
COMMAND_BYTES_MAX = 8192
REPLY_BYTES_MAX = 1 << 20
DEPTH_MAX = 6
TEXT_MAX = 256
ITEMS_MAX = 1024
INTEGER_MAX = 2**53  # more would not survive a reader whose numbers are doubles
LEASE_MS_MAX = 10_000
FOR_MS_MAX = 86_400_000
NOT_AFTER_MAX_NS = 10_000_000_000  # a command may not ask to stay valid for longer

TOPICS = ("snapshot", "meter", "event", "head", "carbon")
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
QUALITIES = ("never", "good", "held", "stale", "invalid")
Role = Literal["read", "operate", "maintain"]
PlanRank = Literal["order", "planner"]  # of a plan: a planner's stands below every order
ROLES: tuple[Role, ...] = ("read", "operate", "maintain")
CLASSES = {"optimiser": 1, "ems": 2, "maintenance": 3}

# Every way to be refused: code -> what it means. docs/api.md lists them; each has a test.
CODES = {
    "malformed": "the bytes are not one strict MessagePack map",
    "too-large": f"a request has at most {COMMAND_BYTES_MAX} bytes",
    "version": f"this gateway speaks versions {' and '.join(map(str, VERSIONS))}",
    "unknown-op": "no such request",
    "invalid-field": "a field is missing, unknown, of the wrong type or out of its range",
    "unknown-point": "no point of that name; describe lists them",
    "not-allowed": "the peer's role does not permit the request",
    "stopped": "the site was stopped by order; mode run lifts that",
    "tripped": "the cabinet is tripped, arming or off and takes no manual power; the text says the way out",
    "locked-out": "a person locked the site; `why` tells who and why, and only that person takes the lock off",
    "local": "the site was stopped or switched on site, and only somebody there may order that",
    "no-lease": "the command needs a lease that is held",
    "lease-held": "somebody else holds the lease and cannot be pre-empted by this class",
    "late": "the command arrived after its own not_after_t_ns, or asks to stay valid too long",
    "replayed": "the sequence number of this lease was used before",
    "busy": "the peer's token bucket is empty; try again later",
    "locked": "too many refused requests of this peer; try again later",
    "core-down": "the core does not run, or its cycle stands still",
    "not-applied": "the core did not take the order over in time, and it was taken back",
    "unknown": "the core did not take the order over in time; it stands, and holds as soon as the core goes on",
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
    "tripped",
    "locked-out",
    "local",
    "no-lease",
    "lease-held",
    "late",
    "replayed",
    "busy",
    "locked",
    "core-down",
    "not-applied",
    "unknown",
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

Message: TypeAlias = dict[str, Any]
"""A message as a reader has it. Open, since fields are added within a version; docs/api.schema.json has its types."""

Version = Literal[1, 2]
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


# ---- answers ----


class ReplyHead(msgspec.Struct, kw_only=True, omit_defaults=True):
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
    holder: str | None = None
    """Who has the lease, where that is why a command was refused."""
    expires_ms: Count | None = None
    next_seq: Count | None = None
    lease: LeaseId | None = None
    applied_w: float | None = None
    """What became of a setpoint or a limit, W."""
    by: str | None = None
    """The reason that clamped it."""


class SiteDescription(Description, frozen=True, kw_only=True):
    """The description of a site with the names of what is told by number."""

    reasons: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    words: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)
    """Point -> number -> word; of a point of bits, place of the bit -> word."""
    qualities: tuple[str, ...] = ()
    wire_version: int = 1
    ops: dict[str, str] = msgspec.field(default_factory=dict)
    """Operation -> the role that it needs."""
    codes: dict[str, str] = msgspec.field(default_factory=dict)


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
    loop: dict[str, object]


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
    changes: int = 1
    """Of this state since the event before it, this one included: what flutters is counted, not told each time."""
    lasted_s: float = 0.0
    """Since the state began to change; 0 = with this event."""
    proof: dict[str, object] | None = None
    """Of a grid operator's order: what it said, and what the grid meter showed while it was in force."""


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


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Refused("malformed", "a key stands twice in one map")
    for key in found:
        if type(key) is not str:
            raise Refused("malformed", "keys must be text")
    return found


def _extension(code: int, data: bytes) -> None:
    raise Refused("malformed", f"extension type {code} is not allowed")


def _check(value: object, depth: int) -> None:
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        if len(value) > TEXT_MAX:
            raise Refused("malformed", f"text longer than {TEXT_MAX}")
        if not value.isprintable() and UNSEEN.search(value):
            raise Refused("malformed", "text with control characters")  # a terminal would obey them
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise Refused("malformed", "numbers must be finite")
    elif isinstance(value, int):
        if not -INTEGER_MAX <= value <= INTEGER_MAX:
            raise Refused("malformed", "integers must stay within 2**53")
    elif isinstance(value, dict | list):
        if depth <= 0:
            raise Refused("malformed", f"deeper than {DEPTH_MAX}")
        for item in value.values() if isinstance(value, dict) else value:
            _check(item, depth - 1)
    else:
        raise Refused("malformed", f"type {type(value).__name__} is not allowed")


def decode(data: bytes | memoryview, bytes_max: int = COMMAND_BYTES_MAX) -> dict[str, object]:
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
    try:
        _check(found, DEPTH_MAX)
    except Refused as why:
        why.more["request"] = found  # whose id the answer must carry, or the one who asked waits in vain
        raise
    return found


def shown(text: str) -> str:
    """Text for a terminal, whatever it came from: control characters, which a terminal obeys, as question marks."""
    return text if text.isprintable() else UNSEEN.sub("?", text)


_packer = msgpack.Packer(autoreset=True, use_bin_type=True)


def encode(message: Mapping[str, object]) -> bytes:
    """Give the bytes of a message of ours. One thread only; other threads use their own packer."""
    packed: bytes = _packer.pack(message)
    return packed


def with_old_names(points: dict[str, Point]) -> dict[str, Point]:
    """Points also under the names of version 1, for this release."""
    for old, new in RENAMED_POINTS.items():
        if new in points:
            points[old] = points[new]
    return points


def with_new_names(message: Message) -> Message:
    """What a gateway of version 1 said, or a journal of its time holds, also under the names of now."""
    for points in (message.get("points"), message.get("ages_ms")):
        if isinstance(points, dict):
            for old, new in RENAMED_POINTS.items():
                if old in points:
                    points.setdefault(new, points[old])
    for inner in (*(message.get("records") or ()), message.get("first"), message.get("last")):
        if isinstance(inner, dict):
            with_new_names(inner)
    return message


def number(value: float, quality: int) -> float | None:
    """Give what a point shows outside: its value while it is good or held, else nothing."""
    return value if (quality == 1 or quality == 2) and math.isfinite(value) else None
