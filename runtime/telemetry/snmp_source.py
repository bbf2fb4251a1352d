"""PDUs over SNMP v2c or v3: one UDP socket for all, each host with a time-out: a dead one stalls nobody."""

import asyncio
import itertools
import socket
from collections.abc import Callable
from typing import Protocol

from tidegate.runtime.telemetry.pdu_models import Column, PduModel
from tidegate.runtime.telemetry.sample import Heard, Reading, Sample, Thing, nothing, plausible_w
from tidegate.runtime.telemetry.snmp_codec import Oid, Rows, SnmpError, Value, answer, bindings_of, number_of, request
from tidegate.runtime.telemetry.snmp_usm import OutOfTime, UsmAgent, UsmUser

PORT = 161
TRY_S = 2.0
TRIES = 2
BULK = 24
INSTANCES_MAX = 512  # of one column
OBJECTS_A_REQUEST = 40
WALK_AGAIN_POLLS = 360  # outlets and sensors that came or went are found then


class SnmpSocket(asyncio.DatagramProtocol):
    """Sends requests and hands answers to whoever waits for their number, from that address only."""

    def __init__(self) -> None:
        self._transport: asyncio.DatagramTransport | None = None
        self._waiting: dict[int, tuple[str, int, asyncio.Future[bytes]]] = {}
        self._numbers = itertools.count(1)
        self.strays = 0

    async def open(self) -> None:
        """Open the socket. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=("0.0.0.0", 0), family=socket.AF_INET
        )

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            number = number_of(data)
        except SnmpError as why:
            self._refused(addr, why)
            return
        waiting = self._waiting.get(number)
        if waiting is None or waiting[:2] != addr[:2] or waiting[2].done():
            self.strays += 1
            return
        waiting[2].set_result(data)

    def _refused(self, addr: tuple[str, int], why: SnmpError) -> None:
        """An answer without a number that can be read: it is for the one request that this host has open."""
        for host, port, future in self._waiting.values():
            if (host, port) == addr[:2] and not future.done():
                future.set_exception(why)
                return
        self.strays += 1

    def error_received(self, exc: Exception) -> None:
        self.strays += 1  # an ICMP message says no more than a time-out will

    async def exchange(self, address: tuple[str, int], made: Callable[[int], bytes]) -> bytes:
        """One request, made for its number, and its answer as it came. Raises TimeoutError for silence."""
        assert self._transport is not None
        for attempt in range(TRIES):
            number = next(self._numbers) & 0x7FFFFFFF
            future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            self._waiting[number] = (*address, future)
            self._transport.sendto(made(number), address)
            try:
                async with asyncio.timeout(TRY_S):
                    return await future
            except TimeoutError:
                if attempt == TRIES - 1:
                    raise
            finally:
                del self._waiting[number]
        raise TimeoutError

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Speaker(Protocol):
    """How an agent is spoken with."""

    async def ask(self, wire: SnmpSocket, address: tuple[str, int], bindings: bytes, bulk: int) -> Rows:
        """One question. Raises SnmpError for what the agent refuses, TimeoutError for silence."""


class Community:
    """SNMP v2c: the community in plain text."""

    def __init__(self, community: bytes) -> None:
        self._community = community

    async def ask(self, wire: SnmpSocket, address: tuple[str, int], bindings: bytes, bulk: int) -> Rows:
        data = await wire.exchange(address, lambda number: request(self._community, number, bindings, bulk=bulk))
        return answer(data)[1]


class SecureUser:
    """SNMP v3: engine and clock of the agent are asked for at first, and again when it restarted."""

    def __init__(self, user: UsmUser) -> None:
        self._agent = UsmAgent(user)

    async def ask(self, wire: SnmpSocket, address: tuple[str, int], bindings: bytes, bulk: int) -> Rows:
        if not self._agent.known:
            self._agent.discovered(await wire.exchange(address, self._agent.discovery))
        try:
            return await self._once(wire, address, bindings, bulk)
        except OutOfTime:
            return await self._once(wire, address, bindings, bulk)

    async def _once(self, wire: SnmpSocket, address: tuple[str, int], bindings: bytes, bulk: int) -> Rows:
        data = await wire.exchange(address, lambda number: self._agent.request(number, bindings, bulk=bulk))
        return self._agent.answer(data)[1]


class SnmpPdu:
    """One PDU. Its table is walked at the start; then only the instances found are asked for."""

    def __init__(self, wire: SnmpSocket, host: str, model: PduModel, speaker: Speaker, rack: str) -> None:
        name, _, port = host.rpartition(":") if host.rpartition(":")[2].isdigit() else (host, "", "")
        self.host = host
        self._address_asked = name, int(port or PORT)
        self._address: tuple[str, int] | None = None
        self._wire, self._model, self._speaker, self._rack = wire, model, speaker, rack
        self._instances: list[tuple[Column, Oid, float]] = []
        self._requests: list[bytes] = []
        self._polls = 0
        self._found: tuple[str, ...] = ()

    async def hear(self) -> Heard:
        """Ask once. Raises SnmpError, TimeoutError or OSError."""
        if self._address is None:
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(*self._address_asked, family=socket.AF_INET, type=socket.SOCK_DGRAM)
            self._address = (str(found[0][4][0]), int(found[0][4][1]))
        if self._polls % WALK_AGAIN_POLLS == 0:
            await self._walk()
        self._polls += 1
        values: dict[Oid, Value] = {}
        for bindings in self._requests:
            values.update({oid: value for oid, value, _ in await self._ask(bindings)})
        return self._heard(values)

    async def _ask(self, bindings: bytes, bulk: int = 0) -> Rows:
        assert self._address is not None
        return await self._speaker.ask(self._wire, self._address, bindings, bulk)

    async def _walk(self) -> None:
        tables: dict[Oid, dict[Oid, Value]] = {}
        for column in self._model.columns:
            for oid in (column.oid, column.digits, column.kind[0] if column.kind else None):
                if oid is not None and oid not in tables:
                    tables[oid] = await self._column(oid)
        self._instances = []
        for column in self._model.columns:
            for index in tables[column.oid]:
                if column.ending is not None and index[-1] != column.ending:
                    continue
                if column.kind is not None and tables[column.kind[0]].get(index) != column.kind[1]:
                    continue
                scale = column.scale
                if column.digits is not None:
                    digits = tables[column.digits].get(index)
                    if not isinstance(digits, int) or not 0 <= digits <= 9:
                        continue  # without its digits a number has no size
                    scale /= 10.0**digits
                self._instances.append((column, (*column.oid, *index), scale))
        if not any(column.of in ("total", "outlet") for column, _, _ in self._instances):
            raise SnmpError(f"no power of {self._model.title} there; is model the right one, may the community read?")
        oids = [oid for _, oid, _ in self._instances]
        self._requests = [
            bindings_of(oids[at : at + OBJECTS_A_REQUEST]) for at in range(0, len(oids), OBJECTS_A_REQUEST)
        ]

    async def _column(self, root: Oid) -> dict[Oid, Value]:
        """Index -> value of all instances below a column; bounded, whatever the agent answers."""
        found: dict[Oid, Value] = {}
        at = root
        while len(found) < INSTANCES_MAX:
            rows = await self._ask(bindings_of([at]), BULK)
            for oid, value, ended in rows:
                if ended or oid[: len(root)] != root:
                    return found
                if oid <= at:
                    raise SnmpError("the agent goes backwards in its table")
                found[oid[len(root) :]] = value
                at = oid
            if not rows:
                return found
        raise SnmpError(f"more than {INSTANCES_MAX} rows in one column")

    def _heard(self, values: dict[Oid, Value]) -> Heard:
        heard = nothing()
        totals: list[float] = []
        outlets: list[float] = []
        silent = 0
        for column, oid, scale in self._instances:
            value = values.get(oid)
            index = ".".join(map(str, oid[len(column.oid) :]))
            if not isinstance(value, int) or (value < 0 and column.what != "temp_c"):
                silent += column.what == "power_w"
                continue
            number = value * scale
            if column.what != "power_w":
                heard.readings.append(Reading(column.what, f"{self.host} {index}", number))
            elif not plausible_w(number):
                heard.problems.append(f"{self.host}: {column.of} {index} says {number:g} W; it is not counted")
            elif column.of == "total":
                totals.append(number)
            else:
                outlets.append(number)
                heard.readings.append(Reading("outlet_w", f"{self.host} {index}", number))
        if silent:
            heard.problems.append(f"{self.host}: {silent} of its power readings say nothing")
        if not totals and not outlets:
            raise SnmpError("none of its power readings says a number")
        # Outlets know each watt, the total of some has steps of 10 W; but only together they are all that flows.
        missing = any(column.of == "outlet" for column, _, _ in self._instances) and silent
        watts = sum(totals) if totals else sum(outlets)
        if not totals and missing:
            heard.problems.append(f"{self.host}: no total, and outlets are missing; what they draw is not counted")
        heard.samples.append(Sample(Thing("pdu", self.host, self.host, self._rack), watts))
        return heard
