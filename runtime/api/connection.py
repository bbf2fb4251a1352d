"""What both clients of the gateway have alike: requests and answers, endpoints, orders, and the bookkeeping of streams.

Nothing here waits or touches a socket's data, so that `client` and `aclient` differ only in how they wait.
"""

import itertools
import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import msgpack
import msgspec
import zmq

from tidegate.hal.description import RENAMED_POINTS
from tidegate.runtime.api import messages
from tidegate.runtime.api.messages import Message
from tidegate.runtime.state import paths

TRY_S = 0.5  # the same request is asked again after this; the gateway does it once
JOURNALED = ("meter", "event")
Answer = TypeVar("Answer")


class ClientError(RuntimeError):
    """A request that did not succeed; `code` is one of wire.CODES, or "no-answer"."""

    def __init__(self, code: str, text: str, answer: Message | None = None) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text
        self.answer = answer or {}


class NoAnswer(ClientError):
    """The gateway did not answer in time."""

    def __init__(self, text: str) -> None:
        super().__init__("no-answer", text)


class OtherVersion(ClientError):
    """The gateway does not speak the version of the request. `speaks`: one that both do, None if there is none."""

    def __init__(self, op: str, answer: Message) -> None:
        theirs = answer.get("v")
        self.speaks = theirs if theirs in messages.VERSIONS else None
        ours = " and ".join(map(str, messages.VERSIONS))
        older = "gateway" if isinstance(theirs, int) and theirs < messages.WIRE_VERSION else "client"
        super().__init__(
            "version",
            f"{op}: the gateway speaks version {theirs}, this client {ours}; bring the {older} up to date",
            answer,
        )


class Point(NamedTuple):
    """A value with its quality: 0 never, 1 good, 2 held, 3 stale, 4 invalid. `value` is None unless good or held."""

    value: float | None
    quality: int


class Endpoint(NamedTuple):
    api: str
    stream: str

    @classmethod
    def of(cls, text: str) -> "Endpoint":
        """From `ipc://FOLDER` (sockets api and stream in it) or `tcp://HOST:PORT` (api there, stream one above)."""
        if text.startswith("ipc://"):
            return cls(f"{text}/api", f"{text}/stream")
        if text.startswith("tcp://"):
            host, _, port = text.rpartition(":")
            if port.isdigit() and 0 < int(port) < 65535:
                return cls(text, f"{host}:{int(port) + 1}")
        raise ValueError(f"endpoint {text!r}: expected ipc://FOLDER or tcp://HOST:PORT")


def find_endpoint(site: str | None = None) -> str:
    """Endpoint of a site on this machine: the one named, that of TIDEGATE_ENDPOINT, or the only one that runs.

    Raises NoAnswer if there is none or more than one.
    """
    given = os.environ.get("TIDEGATE_ENDPOINT")
    if site is None and given:
        return given
    roots = [paths.runtime_root(), paths.SERVICE_RUNTIME]
    found: dict[str, Path] = {}
    closed: list[Path] = []
    for root in roots:
        if not root.is_dir():
            continue
        if not os.access(root, os.R_OK | os.X_OK):
            closed.append(root)
            continue
        for folder in sorted(root.iterdir()):
            api = folder / "api"
            if api.exists() and stat.S_ISSOCK(api.stat().st_mode):
                found.setdefault(folder.name, folder)
    if closed and not found:
        who = paths.user_name(os.geteuid())
        raise NoAnswer(f"{closed[-1]} may not be looked into: join its group (adduser {who} tidegate), or use sudo")
    if site is not None:
        name = paths.folder_name(site)
        if name not in found:
            raise NoAnswer(f"site {site!r} has no gateway on this machine; running: {', '.join(found) or 'none'}")
        return f"ipc://{found[name]}"
    if not found:
        raise NoAnswer("no gateway on this machine; start one with `tidegate run SITE`, or give an endpoint")
    if len(found) > 1:
        raise NoAnswer(f"several sites run here ({', '.join(found)}); name one")
    return f"ipc://{next(iter(found.values()))}"


class Cursor:
    """What of one journaled stream was given already. Pure bookkeeping, shared by both clients."""

    def __init__(self, at: tuple[str, int] | None) -> None:
        self.at = at

    def live(self, boot: str, seq: int) -> str:
        """What to do with a record that was just published: `give`, `drop`, or `fill` the gap before it."""
        if self.at is None or (boot == self.at[0] and seq == self.at[1] + 1):
            self.at = (boot, seq)
            return "give"
        return "drop" if boot == self.at[0] and seq <= self.at[1] else "fill"

    def replayed(self, boot: str, seq: int) -> tuple[bool, int]:
        """(new, records missing before it) of a record that came by replay; they come in the journal's order."""
        if self.at is not None and boot == self.at[0]:
            if seq <= self.at[1]:
                return False, 0
            missing = seq - self.at[1] - 1
        else:
            missing = seq  # a boot begins at 0
        self.at = (boot, seq)
        return True, missing

    def head(self, boot: str, seq: int) -> bool:
        """Whether the newest durable record shows that some are missing here."""
        if self.at is None:
            self.at = (boot, seq)
            return False
        return (boot == self.at[0] and seq > self.at[1]) or (boot != self.at[0] and seq >= 0)


def gap(stream: str, boot: str, first: int, count: int) -> Message:
    """What a subscription gives in place of records that nobody holds any more."""
    return {"v": messages.WIRE_VERSION, "kind": "gap", "stream": stream, "boot": boot, "seq": first, "count": count}


class Streams:
    """What a subscription has given of its topics, and which journaled streams lack something.

    topics : of wire.TOPICS; none = meter. since : stream -> (boot, seq) of the last record that is known.
    Raises ValueError for a topic that there is not.
    """

    def __init__(self, topics: tuple[str, ...], since: dict[str, tuple[str, int]] | None) -> None:
        self.topics = topics or ("meter",)
        unknown = [topic for topic in self.topics if topic not in messages.TOPICS]
        if unknown:
            raise ValueError(f"topic {unknown[0]!r}: expected one of {', '.join(messages.TOPICS)}")
        since = since or {}
        self.cursors = {topic: Cursor(since.get(topic)) for topic in self.topics if topic in JOURNALED}
        self.catching_up = {stream for stream in self.cursors if stream in since}
        self.snapshots_lost = 0
        self._snapshot: tuple[str, int] | None = None

    def listen(self, socket: zmq.Socket[Any]) -> None:
        """Prepare a SUB socket; `head` shows a loss at the end of a journaled stream."""
        socket.setsockopt(zmq.RCVHWM, 4096)
        for topic in {*self.topics, *(["head"] if self.cursors else [])}:
            socket.setsockopt(zmq.SUBSCRIBE, topic.encode())

    def heard(self, topic: str, message: Message) -> bool:
        """Take note of what was published; true if it is to be given now."""
        boot = message["boot"]
        if topic == "head":
            self.catching_up |= {s for s, cursor in self.cursors.items() if cursor.head(boot, message[s])}
        elif topic in self.cursors:
            if topic in self.catching_up:
                return False  # it is in the journal already and comes by replay
            what = self.cursors[topic].live(boot, message["seq"])
            if what == "fill":
                self.catching_up.add(topic)
            return what == "give"
        elif topic == "snapshot":
            seen, self._snapshot = self._snapshot, (boot, message["seq"])
            if seen is not None and seen[0] == boot and message["seq"] > seen[1] + 1:
                self.snapshots_lost += message["seq"] - seen[1] - 1
        return topic in self.topics

    def position(self, stream: str) -> tuple[str | None, int]:
        """Behind which (boot, seq) to ask for a replay."""
        return self.cursors[stream].at or (None, -1)

    def replayed(self, stream: str, records: list[Message]) -> list[Message]:
        """What of replayed records is to be given, with a gap where some are held by nobody any more."""
        found = []
        for record in records:
            new, missing = self.cursors[stream].replayed(record["boot"], record["seq"])
            if missing:
                found.append(gap(stream, record["boot"], record["seq"] - missing, missing))
            if new:
                found.append(record)
        return found


class Request:
    """A request and its answers; shared by both clients."""

    _numbers = itertools.count()
    _prefix = secrets.token_hex(8)

    def __init__(self, op: str, fields: Mapping[str, object], version: int = messages.WIRE_VERSION) -> None:
        self.op = op
        self.version = version
        self.id = str(fields.get("id") or f"{self._prefix}-{next(self._numbers)}")
        body = {name: value for name, value in fields.items() if value is not None and name != "id"}
        points = fields.get("points")
        if version < 2 and isinstance(points, list):
            old = {new: old for old, new in RENAMED_POINTS.items()}
            body["points"] = [old.get(name, name) for name in points]
        self.bytes: bytes = msgpack.packb({"v": version, "id": self.id, "op": op, **body})

    def answered(self, data: bytes) -> Message | None:
        """The answer, None if it belongs to another request. Raises ClientError if it was refused."""
        answer = unpack(data)
        if answer.get("id") != self.id:
            return None
        if answer.get("status") == "refused" and answer.get("code") == "version":
            raise OtherVersion(self.op, answer)
        if answer.get("status") == "refused":
            raise ClientError(str(answer.get("code")), f"{self.op}: {answer.get('text')}", answer)
        return answer

    @classmethod
    def forked(cls) -> None:
        """A child is another client: it must not count on where its parent is."""
        cls._prefix = secrets.token_hex(8)


os.register_at_fork(after_in_child=Request.forked)

_decoder = msgspec.msgpack.Decoder(Message)  # twice as fast as msgpack's; a day's replay is 86,400 records


def unpack(data: bytes) -> Message:
    """A message of the gateway."""
    return messages.with_new_names(_decoder.decode(data))


class Orders(Generic[Answer]):
    """The orders that need no lease. `ask` gives the answer, or what an asyncio program awaits to get it."""

    def ask(self, op: str, **fields: object) -> Answer:
        raise NotImplementedError

    def limit(self, *, import_w_max: float | None = None, export_w_max: float | None = None, for_s: float) -> Answer:
        """Tighten the limits of grid power for a time."""
        return self.ask("limit", import_w_max=import_w_max, export_w_max=export_w_max, for_ms=int(for_s * 1000))

    def schedule(self, steps: Sequence[tuple[int, float] | Mapping[str, object]], end_utc_s: int, *,
                 rank: str = "order") -> Answer:  # fmt: skip
        """Setpoints and limits by the clock: (start in UTC seconds, W, + discharge), or maps as in docs/api.md.

        rank: "planner" stands back from every plan that is an order, and is replaced by any.
        """
        rows = [
            dict(step) if isinstance(step, Mapping) else {"start_utc_s": step[0], "setpoint_w": step[1]}
            for step in steps
        ]
        more = {} if rank == "order" else {"rank": rank}
        return self.ask("schedule", steps=rows, end_utc_s=end_utc_s, **more)

    def policy(self, name: str, value: float | None = None, *, off: bool = False, for_s: float | None = None) -> Answer:
        """Another value for a setting of [control], or off; neither = the site file's again."""
        for_ms = None if for_s is None else max(1, int(for_s * 1000))
        return self.ask("policy", name=name, value=None if value is None else float(value), off=off, for_ms=for_ms)

    def grid_operator(
        self,
        *,
        import_w_max: float | None = None,
        export_w_max: float | None = None,
        stop: bool = False,
        for_s: float,
        reference: str = "",
    ) -> Answer:
        """An order of the grid's operator: limits of grid power, or no battery power; the same again lasts longer."""
        return self.ask(
            "grid_operator", import_w_max=import_w_max, export_w_max=export_w_max, stop=stop, reference=reference,
            for_ms=int(for_s * 1000),
        )  # fmt: skip

    def release_grid_operator(self) -> Answer:
        """End the grid operator's order before its time."""
        return self.ask("grid_operator", action="release")

    def window(self, began_t_ns: int | None = None) -> Answer:
        """The utility's demand window began at this moment of CLOCK_MONOTONIC, none = now."""
        return self.ask("window", began_t_ns=began_t_ns)

    def stop(self) -> Answer:
        """Ramp to zero and stay there."""
        return self.ask("mode", mode="stop")

    def run(self) -> Answer:
        """Lift a stop and arm."""
        return self.ask("mode", mode="run")

    def mode(self, mode: str, *, power_w: float | None = None, for_ms: int | None = None) -> Answer:
        """`run`, `stop`, or `manual`: power_w (+ discharge) for for_ms, and again before that is over."""
        return self.ask("mode", mode=mode, power_w=power_w, for_ms=for_ms)

    def jobs(self, *records: Mapping[str, object]) -> Answer:
        """Push jobs that ended, maps as in docs/api.md, at most 64; those that cannot be are named under `refused`."""
        return self.ask("jobs", jobs=[dict(record) for record in records])

    def record(self, cause: str = "") -> Answer:
        """Have the recorder write its ring to a file; an event `note` named `recording` tells which."""
        return self.ask("record", cause=cause)

    def ack(self) -> Answer:
        """Acknowledge latched faults whose cause is gone."""
        return self.ask("ack")


def ends_lease(why: ClientError) -> bool:
    """Tell whether a renewal refused like that means that the lease is lost."""
    return why.code not in ("no-answer", "busy", "core-down")


def setpoint_fields(lease: str, seq: int, setpoint_w: float, for_s: float) -> Message:
    """A setpoint request under a lease."""
    return {"lease": lease, "seq": seq, "setpoint_w": float(setpoint_w), "for_ms": max(1, int(for_s * 1000))}


def prepare(socket: zmq.Socket[Any], keys: tuple[str, str, str] | None) -> None:
    """Options that every socket of a client has."""
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, messages.REPLY_BYTES_MAX)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 1000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 5000)
    if keys is not None:
        public, secret, server = (key.encode() for key in keys)
        socket.curve_publickey, socket.curve_secretkey, socket.curve_serverkey = public, secret, server
