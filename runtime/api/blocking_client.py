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
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import zmq

from tidegate.runtime.api.connection import (
    TRY_S,
    ClientError,
    Cursor,
    Endpoint,
    NoAnswer,
    Orders,
    OtherVersion,
    Point,
    Request,
    Streams,
    ends_lease,
    find_endpoint,
    gap,
    prepare,
    setpoint_fields,
    unpack,
)
from tidegate.runtime.api.messages import WIRE_VERSION, Message

__all__ = ["Client", "ClientError", "Cursor", "Endpoint", "NoAnswer", "Point", "find_endpoint", "gap"]


class Client(Orders[Message]):
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
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._api: zmq.Socket[bytes] | None = None
        self._version = WIRE_VERSION

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all sockets, also those of subscriptions."""
        self._context.destroy(0)

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        prepare(socket, self._keys)
        return socket

    # ---- asking ----

    def ask(self, op: str, **fields: object) -> Message:
        """Ask and give the whole answer. Raises ClientError with the gateway's code, NoAnswer if it is silent.

        A request that stays unanswered is asked again under the same id until the time is up; it is done once.
        A gateway of an older version that this client speaks is spoken to in that.
        """
        try:
            return self._ask(Request(op, dict(fields), self._version))
        except OtherVersion as other:
            if other.speaks is None or other.speaks == self._version:
                raise
            self._version = other.speaks
            return self._ask(Request(op, dict(fields), self._version))

    def _ask(self, request: Request) -> Message:
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
        ask = "is the site running?" if self._keys is None else "is it up, both ports open, and this key granted?"
        raise NoAnswer(f"{request.op}: nothing from {self.endpoint} within {self.timeout_s:g} s; {ask}")

    def describe(self) -> Message:
        """What the site is: points with units, devices, limits, faults, names."""
        found: Message = self.ask("describe")["site"]
        return found

    def get(self, *names: str) -> dict[str, Point]:
        """Present values of the points named, of all if none is."""
        points = self.ask("get", points=list(names))["points"]
        return {name: Point(*points[name]) for name in names or points}

    def why(self) -> Message:
        """Why the setpoint is what it is."""
        found: Message = self.ask("why")["why"]
        return found

    def health(self) -> Message:
        """State of core, loop, journal, gateway and lease."""
        found: Message = self.ask("health")["health"]
        return found

    def replay(
        self, stream: str, boot: str | None = None, seq: int = -1, count: int = 256
    ) -> tuple[list[Message], bool]:
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

    # ---- listening ----

    def subscribe(self, *topics: str, since: dict[str, tuple[str, int]] | None = None) -> "Subscription":
        """Listen to `snapshot`, `meter`, `event`, `carbon`.

        since : stream -> (boot, seq) of the last record that you have; what came after it is given first.
        """
        return Subscription(self, topics, since)


class Subscription:
    """An endless iterator of messages, maps as in docs/api.md. Journaled records come once and in order.

    Where records are held by nobody any more, a map of kind "gap" stands in their place.
    """

    def __init__(self, client: Client, topics: tuple[str, ...], since: dict[str, tuple[str, int]] | None) -> None:
        self._client = client
        self._streams = Streams(topics, since)
        self._waiting: list[Message] = []
        self._socket = client._socket(zmq.SUB)
        self._streams.listen(self._socket)
        self._socket.connect(client._at.stream)

    def close(self) -> None:
        self._socket.close(0)

    @property
    def snapshots_lost(self) -> int:
        """Snapshots that were published and did not come."""
        return self._streams.snapshots_lost

    def position(self, stream: str) -> tuple[str, int] | None:
        """(boot, seq) of the last record given; what `since` takes."""
        return self._streams.cursors[stream].at

    def __iter__(self) -> Iterator[Message]:
        while True:
            message = self.receive(None)
            if message is not None:
                yield message

    def receive(self, timeout_s: float | None) -> Message | None:
        """Give the next message, None if none came in time."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        catching_up = self._streams.catching_up
        while not self._waiting:
            for stream in sorted(catching_up):
                if self._fill(stream):
                    catching_up.discard(stream)
            if self._waiting:
                break
            left = 1.0 if until is None else until - time.monotonic()
            if left <= 0 and not self._socket.poll(0):
                return None
            # With something missing and no gateway to ask, look again soon.
            if not self._socket.poll(int(max(0.0, min(left, 0.2 if catching_up else 1.0)) * 1000)):
                continue
            topic, data = self._socket.recv_multipart()
            message = unpack(data)
            if self._streams.heard(topic.decode(), message):
                self._waiting.append(message)
        return self._waiting.pop(0)

    def _fill(self, stream: str) -> bool:
        """Ask for what is missing; true when all that is durable by now was given."""
        try:
            records, end = self._client.replay(stream, *self._streams.position(stream))
        except NoAnswer:
            return False
        except ClientError as why:
            if why.code != "gone":
                raise
            records, end = self._client.replay(stream)
        self._waiting += self._streams.replayed(stream, records)
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
                except ClientError as why:
                    if ends_lease(why):
                        self.lost = str(why)
                        return

    def setpoint(self, setpoint_w: float, for_s: float, *, within_s: float | None = None) -> Message:
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
            "setpoint", **setpoint_fields(self.id, next(self._seq), setpoint_w, for_s), not_after_t_ns=not_after
        )
