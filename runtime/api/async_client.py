"""The asyncio client of the gateway: as `tidegate.runtime.api.blocking_client`, with `await`.

from tidegate.runtime.aclient import AsyncClient

async with AsyncClient() as site:
    print(await site.get("site.grid_w"))
    async for record in site.subscribe("meter"):
        print(record["seq"])
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Coroutine
from types import TracebackType
from typing import Self

import zmq
import zmq.asyncio

from tidegate.runtime.api.connection import (
    TRY_S,
    ClientError,
    Endpoint,
    NoAnswer,
    Orders,
    OtherVersion,
    Point,
    Request,
    Streams,
    ends_lease,
    find_endpoint,
    prepare,
    setpoint_fields,
    unpack,
)
from tidegate.runtime.api.messages import WIRE_VERSION, Message


class AsyncClient(Orders[Coroutine[object, object, Message]]):
    """A connection to one gateway for one event loop; any number of tasks may ask at once.

    endpoint, site, timeout_s, keys : as for Client. for_remote : its orders come to it from other machines, and the
    gateway is to treat them so.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        site: str | None = None,
        timeout_s: float = 3.0,
        keys: tuple[str, str, str] | None = None,
        for_remote: bool = False,
    ) -> None:
        self.endpoint = endpoint or find_endpoint(site)
        self._more = {"for_remote": True} if for_remote else {}
        self.timeout_s = timeout_s
        self._at = Endpoint.of(self.endpoint)
        self._keys = keys
        self._context = zmq.asyncio.Context()
        self._api: zmq.asyncio.Socket | None = None
        self._version = WIRE_VERSION
        self._asked: dict[str, asyncio.Future[bytes]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all sockets, also those of subscriptions."""
        await self._drop()
        self._context.destroy(0)

    async def _drop(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
            self._reader = None
        if self._api is not None:
            self._api.close(0)
            self._api = None

    def _socket(self, kind: int) -> zmq.asyncio.Socket:
        socket = self._context.socket(kind)
        prepare(socket, self._keys)
        return socket

    def _connected(self) -> zmq.asyncio.Socket:
        if self._api is None:
            self._api = self._socket(zmq.DEALER)
            self._api.connect(self._at.api)
            self._reader = asyncio.create_task(self._read(self._api))
        return self._api

    async def _read(self, api: zmq.asyncio.Socket) -> None:
        while True:
            data = (await api.recv_multipart())[-1]
            future = self._asked.get(str(unpack(data).get("id")))
            if future is not None and not future.done():
                future.set_result(data)

    async def ask(self, op: str, **fields: object) -> Message:
        """Ask and give the whole answer. Raises ClientError, NoAnswer; see Client.ask."""
        fields |= self._more
        try:
            return await self._ask(Request(op, dict(fields), self._version))
        except OtherVersion as other:
            if other.speaks is None or other.speaks == self._version:
                raise
            self._version = other.speaks
            return await self._ask(Request(op, dict(fields), self._version))

    async def _ask(self, request: Request) -> Message:
        clock = asyncio.get_running_loop()
        until = clock.time() + self.timeout_s
        future: asyncio.Future[bytes] = clock.create_future()
        self._asked[request.id] = future
        try:
            while (left := until - clock.time()) > 0:
                await self._connected().send(request.bytes)
                done, _ = await asyncio.wait([future], timeout=min(left, TRY_S))
                if done:
                    answer = request.answered(future.result())
                    assert answer is not None
                    return answer
                if len(self._asked) == 1:  # nobody else waits on this socket: a fresh one costs little
                    await self._drop()
        finally:
            del self._asked[request.id]
        ask = "is the site running?" if self._keys is None else "is it up, both ports open, and this key granted?"
        raise NoAnswer(f"{request.op}: nothing from {self.endpoint} within {self.timeout_s:g} s; {ask}")

    async def describe(self) -> Message:
        """What the site is."""
        found: Message = (await self.ask("describe"))["site"]
        return found

    async def get(self, *names: str) -> dict[str, Point]:
        """Present values of the points named, of all if none is."""
        points = (await self.ask("get", points=list(names)))["points"]
        return {name: Point(*points[name]) for name in names or points}

    async def why(self) -> Message:
        """Why the setpoint is what it is."""
        found: Message = (await self.ask("why"))["why"]
        return found

    async def health(self) -> Message:
        """State of core, loop, journal, gateway and lease."""
        found: Message = (await self.ask("health"))["health"]
        return found

    async def replay(
        self, stream: str, boot: str | None = None, seq: int = -1, count: int = 256
    ) -> tuple[list[Message], bool]:
        """(records behind (boot, seq) oldest first, whether that was all)."""
        while True:
            try:
                answer = await self.ask("replay", stream=stream, boot=boot, seq=seq, count=count)
            except ClientError as why:
                if why.code != "busy":
                    raise
                await asyncio.sleep(0.05)
                continue
            return answer["records"], bool(answer["end"])

    @contextlib.asynccontextmanager
    async def lease(self, priority: str = "ems", period_s: float = 1.0) -> "AsyncIterator[AsyncLease]":
        """Hold the right to command the setpoint; it is renewed until the block ends."""
        held = AsyncLease(
            self, await self.ask("lease", action="acquire", priority=priority, period_ms=int(period_s * 1e3))
        )
        renewing = asyncio.create_task(held.renew(period_s))
        try:
            yield held
        finally:
            renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await renewing
            if not held.lost:
                with contextlib.suppress(ClientError):
                    await self.ask("lease", action="release", lease=held.id)

    async def subscribe(self, *topics: str, since: dict[str, tuple[str, int]] | None = None) -> AsyncIterator[Message]:
        """Messages of the topics; journaled records come once and in order, as for Client.subscribe."""
        streams = Streams(topics, since)
        socket = self._socket(zmq.SUB)
        streams.listen(socket)
        socket.connect(self._at.stream)
        try:
            while True:
                for stream in sorted(streams.catching_up):
                    records, end = await self._missing(stream, streams)
                    for record in records:
                        yield record
                    if end:
                        streams.catching_up.discard(stream)
                if not await socket.poll(200 if streams.catching_up else 1000):
                    continue
                topic, data = await socket.recv_multipart()
                message = unpack(data)
                if streams.heard(topic.decode(), message):
                    yield message
        finally:
            socket.close(0)

    async def _missing(self, stream: str, streams: Streams) -> tuple[list[Message], bool]:
        try:
            records, end = await self.replay(stream, *streams.position(stream))
        except NoAnswer:
            return [], False
        except ClientError as why:
            if why.code != "gone":
                raise
            records, end = await self.replay(stream)
        return streams.replayed(stream, records), end


class AsyncLease:
    """A lease that is held; see Client.lease."""

    def __init__(self, client: AsyncClient, answer: Message) -> None:
        self._client = client
        self._seq = itertools.count(answer["next_seq"])
        self.id: str = answer["lease"]
        self.lost = ""

    async def renew(self, period_s: float) -> None:
        """Renew until cancelled or lost."""
        while not self.lost:
            await asyncio.sleep(period_s)
            try:
                await self._client.ask("lease", action="renew", lease=self.id)
            except ClientError as why:
                if ends_lease(why):
                    self.lost = str(why)

    async def setpoint(self, setpoint_w: float, for_s: float) -> Message:
        """Order a battery power, + discharge. Raises ClientError("no-lease") once the lease is lost."""
        if self.lost:
            raise ClientError("no-lease", self.lost)
        return await self._client.ask("setpoint", **setpoint_fields(self.id, next(self._seq), setpoint_w, for_s))
