"""The Python client of the gateway: the one door that the console, the sidecar and every tool of ours use too.

    from tidegate.runtime.client import Client

    with Client() as site:
        print(site.get("site.grid_w", "site.setpoint_w"))
        for message in site.subscribe("meter"):
            print(message["seq"], message["points"]["site.grid_in_ws"])

`subscribe` loses no meter record and no event: it notices gaps by (boot, seq), asks for what is missing and gives each
record once and in order, also when the gateway was restarted meanwhile. `tidegate.runtime.aclient` is the same for
asyncio.
"""

import itertools
import os
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgpack
import zmq

from tidegate.runtime import paths, wire

TRY_S = 0.5  # the same request is asked again after this; the gateway does it once
JOURNALED = ("meter", "event")


class ClientError(RuntimeError):
    """A request that did not succeed; `code` is one of wire.CODES, or "no-answer"."""

    def __init__(self, code: str, text: str, answer: dict[str, Any] | None = None) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text
        self.answer = answer or {}


class NoAnswer(ClientError):
    """The gateway did not answer in time."""

    def __init__(self, text: str) -> None:
        super().__init__("no-answer", text)


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
    roots = [paths.runtime_root(), Path("/run/tidegate")]
    found: dict[str, Path] = {}
    for root in roots:
        if not root.is_dir():
            continue
        for folder in sorted(root.iterdir()):
            api = folder / "api"
            if api.exists() and stat.S_ISSOCK(api.stat().st_mode):
                found.setdefault(folder.name, folder)
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


def gap(stream: str, boot: str, first: int, count: int) -> dict[str, Any]:
    """What a subscription gives in place of records that nobody holds any more."""
    return {"v": wire.WIRE_VERSION, "kind": "gap", "stream": stream, "boot": boot, "seq": first, "count": count}


class Request:
    """A request and its answers; shared by both clients."""

    _numbers = itertools.count()
    _prefix = secrets.token_hex(8)

    def __init__(self, op: str, fields: dict[str, Any]) -> None:
        self.op = op
        self.id = str(fields.pop("id", None) or f"{self._prefix}-{next(self._numbers)}")
        body = {name: value for name, value in fields.items() if value is not None}
        self.bytes: bytes = msgpack.packb({"v": wire.WIRE_VERSION, "id": self.id, "op": op, **body})

    def answered(self, data: bytes) -> dict[str, Any] | None:
        """The answer, None if it belongs to another request. Raises ClientError if it was refused."""
        answer = unpack(data)
        if answer.get("id") != self.id:
            return None
        if answer.get("status") == "refused":
            raise ClientError(str(answer.get("code")), f"{self.op}: {answer.get('text')}", answer)
        return answer


def unpack(data: bytes) -> dict[str, Any]:
    """A message of the gateway."""
    found: dict[str, Any] = msgpack.unpackb(data, raw=False, strict_map_key=True)
    return found


class Client:
    """A connection to one gateway. One thread uses it; another thread makes its own.

    endpoint : `ipc://FOLDER`, `tcp://HOST:PORT`, or None for the site of this machine.
    keys : (our public, our secret, the server's public) CURVE keys as Z85 text, needed for tcp.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        site: str | None = None,
        timeout_s: float = 3.0,
        keys: tuple[str, str, str] | None = None,
    ) -> None:
        self.endpoint = endpoint or find_endpoint(site)
        self.timeout_s = timeout_s
        self._at = Endpoint.of(self.endpoint)
        self._keys = keys
        self._context: zmq.Context[Any] = zmq.Context()
        self._api: zmq.Socket[Any] | None = None
        self._offset_ns: int | None = None
        self._seq = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all sockets, also those of subscriptions."""
        self._context.destroy(0)

    def _socket(self, kind: int) -> zmq.Socket[Any]:
        socket = self._context.socket(kind)
        prepare(socket, self._keys)
        return socket

    # ---- asking ----

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask and give the whole answer. Raises ClientError with the gateway's code, NoAnswer if it is silent.

        A request that stays unanswered is asked again under the same id until the time is up; it is done once.
        """
        request = Request(op, fields)
        until = time.monotonic() + self.timeout_s
        while time.monotonic() < until:
            if self._api is None:
                self._api = self._socket(zmq.DEALER)
                self._api.connect(self._at.api)
            try:
                self._api.send(request.bytes, zmq.DONTWAIT)
            except zmq.Again:
                time.sleep(0.01)
                continue
            again = min(until, time.monotonic() + TRY_S)
            while (left := again - time.monotonic()) > 0 and self._api.poll(max(1, int(left * 1000))):
                answer = request.answered(self._api.recv())
                if answer is not None:
                    return answer
            # libzmq gives some connections up for good without a word; a fresh socket costs little.
            self._api.close(0)
            self._api = None
        raise NoAnswer(f"{op}: nothing from {self.endpoint} within {self.timeout_s:g} s; is the site running?")

    def describe(self) -> dict[str, Any]:
        """What the site is: points with units, devices, limits, faults, names."""
        found: dict[str, Any] = self.ask("describe")["site"]
        return found

    def get(self, *names: str) -> dict[str, Point]:
        """Present values of the points named, of all if none is."""
        return {name: Point(*point) for name, point in self.ask("get", points=list(names))["points"].items()}

    def why(self) -> dict[str, Any]:
        """Why the setpoint is what it is."""
        found: dict[str, Any] = self.ask("why")["why"]
        return found

    def health(self) -> dict[str, Any]:
        """State of core, loop, journal, gateway and lease."""
        found: dict[str, Any] = self.ask("health")["health"]
        return found

    def replay(
        self, stream: str, boot: str | None = None, seq: int = -1, count: int = 256
    ) -> tuple[list[dict[str, Any]], bool]:
        """(records behind (boot, seq) oldest first, whether that was all). boot None = from the oldest that is held."""
        while True:
            try:
                answer = self.ask("replay", stream=stream, boot=boot, seq=seq, count=count)
            except ClientError as why:
                if why.code != "busy":
                    raise
                time.sleep(0.05)
                continue
            return answer["records"], bool(answer["end"])

    # ---- commanding ----

    def lease(self, priority: str = "ems", period_s: float = 1.0) -> "LeaseHeld":
        """Take the right to command the setpoint. Use as a context manager: it is renewed until the block ends."""
        return LeaseHeld(self, priority, int(period_s * 1000))

    def limit(
        self, *, import_w_max: float | None = None, export_w_max: float | None = None, for_s: float
    ) -> dict[str, Any]:
        """Tighten the limits of grid power for a time."""
        return self.ask("limit", import_w_max=import_w_max, export_w_max=export_w_max, for_ms=int(for_s * 1000))

    def schedule(self, steps: list[tuple[int, float]], end_utc_s: int) -> dict[str, Any]:
        """Battery power by the clock: (start in UTC seconds, W, + discharge)."""
        rows = [{"start_utc_s": start, "setpoint_w": power_w} for start, power_w in steps]
        return self.ask("schedule", steps=rows, end_utc_s=end_utc_s)

    def stop(self) -> dict[str, Any]:
        """Ramp to zero and stay there."""
        return self.ask("mode", mode="stop")

    def run(self) -> dict[str, Any]:
        """Lift a stop and arm."""
        return self.ask("mode", mode="run")

    def ack(self) -> dict[str, Any]:
        """Acknowledge latched faults whose cause is gone."""
        return self.ask("ack")

    # ---- listening ----

    def subscribe(self, *topics: str, since: dict[str, tuple[str, int]] | None = None) -> "Subscription":
        """Listen to `snapshot`, `meter`, `event`.

        since : stream -> (boot, seq) of the last record that you have; what came after it is given first.
        """
        return Subscription(self, topics or ("meter",), since or {})


class Subscription:
    """An endless iterator of messages, maps as in docs/api.md. Journaled records come once and in order.

    Where records are held by nobody any more, a map of kind "gap" stands in their place.
    """

    def __init__(self, client: Client, topics: tuple[str, ...], since: dict[str, tuple[str, int]]) -> None:
        unknown = [topic for topic in topics if topic not in wire.TOPICS]
        if unknown:
            raise ValueError(f"topic {unknown[0]!r}: expected one of {', '.join(wire.TOPICS)}")
        self._client = client
        self._topics = topics
        self._cursors = {topic: Cursor(since.get(topic)) for topic in topics if topic in JOURNALED}
        self._waiting: list[dict[str, Any]] = []
        self._behind = {stream for stream in self._cursors if stream in since}
        self._socket = client._socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, 4096)
        for topic in topics:
            self._socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
        if self._cursors:
            self._socket.setsockopt(zmq.SUBSCRIBE, b"head")
        self._socket.connect(client._at.stream)
        self.snapshots_lost = 0
        self._snapshot_seq: tuple[str, int] | None = None

    def close(self) -> None:
        self._socket.close(0)

    def position(self, stream: str) -> tuple[str, int] | None:
        """(boot, seq) of the last record given; what `since` takes."""
        return self._cursors[stream].at

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            message = self.receive(None)
            if message is not None:
                yield message

    def receive(self, timeout_s: float | None) -> dict[str, Any] | None:
        """Give the next message, None if none came in time."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._waiting:
            for stream in sorted(self._behind):
                if self._fill(stream):
                    self._behind.discard(stream)
            if self._waiting:
                break
            left = 1.0 if until is None else until - time.monotonic()
            if left <= 0 and not self._socket.poll(0):
                return None
            # With something missing and no gateway to ask, look again soon.
            if not self._socket.poll(int(max(0.0, min(left, 0.2 if self._behind else 1.0)) * 1000)):
                continue
            topic, data = self._socket.recv_multipart()
            self._take(topic.decode(), unpack(data))
        return self._waiting.pop(0)

    def _take(self, topic: str, message: dict[str, Any]) -> None:
        if topic == "head":
            for stream, cursor in self._cursors.items():
                if cursor.head(message["boot"], message[stream]):
                    self._behind.add(stream)
            if "head" in self._topics:
                self._waiting.append(message)
        elif topic in self._cursors:
            if topic in self._behind:
                return  # it is in the journal already and comes by replay
            what = self._cursors[topic].live(message["boot"], message["seq"])
            if what == "give":
                self._waiting.append(message)
            elif what == "fill":
                self._behind.add(topic)
        else:
            seen = self._snapshot_seq
            if seen is not None and seen[0] == message["boot"] and message["seq"] > seen[1] + 1:
                self.snapshots_lost += message["seq"] - seen[1] - 1
            self._snapshot_seq = (message["boot"], message["seq"])
            self._waiting.append(message)

    def _fill(self, stream: str) -> bool:
        """Ask for what is missing; true when all that is durable by now was given."""
        cursor = self._cursors[stream]
        boot, seq = cursor.at if cursor.at is not None else (None, -1)
        try:
            records, end = self._client.replay(stream, boot, seq)
        except NoAnswer:
            return False
        except ClientError as why:
            if why.code != "gone":
                raise
            records, end = self._client.replay(stream)
        for record in records:
            new, missing = cursor.replayed(record["boot"], record["seq"])
            if missing:
                self._waiting.append(gap(stream, record["boot"], record["seq"] - missing, missing))
            if new:
                self._waiting.append(record)
        return end


class LeaseHeld:
    """The lease, renewed by a thread of its own until the block ends or the gateway gives it to somebody else."""

    def __init__(self, client: Client, priority: str, period_ms: int) -> None:
        self._client = client
        self._priority = priority
        self._period_ms = period_ms
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._seq = itertools.count()
        self.id = ""
        self.lost = ""

    def __enter__(self) -> Self:
        self._acquire()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()
        return self

    def _acquire(self) -> None:
        answer = self._client.ask("lease", action="acquire", priority=self._priority, period_ms=self._period_ms)
        self.id = answer["lease"]
        self._seq = itertools.count(answer["next_seq"])

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()
        if not self.lost:
            try:
                self._client.ask("lease", action="release", lease=self.id)
            except ClientError as refused:
                if refused.code not in ("no-lease", "no-answer", "core-down"):
                    raise

    def _renew(self) -> None:
        with Client(self._client.endpoint, timeout_s=self._period_ms / 1000 * 2, keys=self._client._keys) as own:
            while not self._end.wait(self._period_ms / 1000):
                try:
                    own.ask("lease", action="renew", lease=self.id)
                except NoAnswer:
                    continue
                except ClientError as why:
                    if why.code in ("busy", "core-down"):
                        continue
                    self.lost = str(why)
                    return

    def setpoint(self, setpoint_w: float, for_s: float, *, within_s: float | None = None) -> dict[str, Any]:
        """Order a battery power, + discharge. The answer says applied or clamped, to what and why.

        within_s : refuse the command if it arrives later than that.
        Raises ClientError("no-lease") once the lease is lost.
        """
        if self.lost:
            raise ClientError("no-lease", self.lost)
        not_after = None
        if within_s is not None:
            not_after = self._client.ask("lease", action="renew", lease=self.id)["t_ns"] + int(within_s * 1e9)
        return self._client.ask(
            "setpoint",
            lease=self.id,
            seq=next(self._seq),
            setpoint_w=float(setpoint_w),
            for_ms=max(1, int(for_s * 1000)),
            not_after_t_ns=not_after,
        )


def prepare(socket: Any, keys: tuple[str, str, str] | None) -> None:
    """Options that every socket of a client has."""
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, wire.REPLY_BYTES_MAX)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 1000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 5000)
    if keys is not None:
        public, secret, server = (key.encode() for key in keys)
        socket.curve_publickey, socket.curve_secretkey, socket.curve_serverkey = public, secret, server
