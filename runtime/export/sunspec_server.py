"""The site as a SunSpec device over Modbus TCP, for a SCADA or a DCIM: `tidegate export modbus`.

Registers from 40000: "SunS", model 1 (common), 203 (the grid meter), 713 (storage), 704 (control), 701 (the converters
as one), 802 (the batteries as one). In 704 a client writes WSet (W, + discharge) and WSetEna = 1: that takes the lease
of the site. WSetRvrtTms (s, default 60) after the last write, or at WSetEna = 0, the lease is given back and the loop
goes to its next policy with a ramp. All other registers are for reading.

A site that says nothing is no site: then every read of what it measures, and every write, is answered by the exception
"gateway target device failed to respond".
"""

import asyncio
import contextlib
import time

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from tidegate.hal import sunspec
from tidegate.hal.description import Description, decode
from tidegate.runtime.api.async_client import AsyncClient, AsyncLease
from tidegate.runtime.api.blocking_client import ClientError
from tidegate.runtime.api.messages import Message
from tidegate.runtime.export.listening import silent_after_s
from tidegate.runtime.export.sunspec_view import WATTS, SunSpecView

BASE = 40000
REVERT_S_MAX = 600.0
WRITABLE = ("WSetEna", "WSetMod", "WSet", "WSetRvrtTms")
LOOK_S = 0.1


class SunSpecSite:
    """Keeps the registers as the snapshots say, and the lease as the registers say."""

    def __init__(self, describe: Message) -> None:
        self.written = asyncio.Event()
        self.heard_s = 0.0
        self._described(describe)

    def _described(self, describe: Message) -> None:
        site = decode(describe, Description)
        self.program = site.sha256
        self.silent_s = silent_after_s(site.site.snapshot_hz)
        self.view = SunSpecView(site)
        self.registers = self.view.registers
        self.writable = set()
        for name in WRITABLE:
            at, size = self.registers.place(704, name)
            self.writable |= set(range(BASE + at, BASE + at + size))

    @property
    def fresh(self) -> bool:
        """Whether the site has spoken of late."""
        return time.monotonic() - self.heard_s < self.silent_s

    def take(self, points: Message) -> None:
        """Show a snapshot."""
        self.heard_s = time.monotonic()
        self.view.take(points)

    async def on_access(
        self,
        function: int,
        start: int,
        address: int,
        count: int,
        registers: list[int],
        values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """Called by the server before each access: refuse what is not writable, show what is newest."""
        if values:
            if any(at not in self.writable for at in range(address, address + len(values))):
                return ExcCodes.ILLEGAL_ADDRESS
            if not self.fresh:
                return ExcCodes.GATEWAY_NO_RESPONSE
            words = self.registers.words
            before = words[address - BASE : address - BASE + len(values)]
            words[address - BASE : address - BASE + len(values)] = [int(one) for one in values]
            get = self.registers.get
            if get(704, "WSetEna") not in (0, 1) or get(704, "WSetMod") != sunspec.symbols(704, "WSetMod")[WATTS]:
                words[address - BASE : address - BASE + len(values)] = before
                return ExcCodes.ILLEGAL_VALUE
            self.written.set()
        elif not self.fresh and self.view.live(address - BASE, count):
            return ExcCodes.GATEWAY_NO_RESPONSE
        registers[:] = self.registers.words
        return None

    async def follow(self, client: AsyncClient) -> None:
        """Show snapshots as they come; a site that comes back with another file is asked again what it is."""
        async for message in client.subscribe("snapshot"):
            if self.program and message.get("program") != self.program:
                try:
                    self._described(await client.describe())
                except ClientError:
                    continue
            self.take(message["points"])

    async def clear(self) -> None:
        """Take the values away from a site that has gone silent."""
        while True:
            await asyncio.sleep(LOOK_S)
            if not self.fresh:
                self.view.silent()

    async def command(self, client: AsyncClient) -> None:
        """Hold the lease while WSetEna is 1 and writes come in time."""
        while True:
            self.written.clear()
            if self.registers.get(704, "WSetEna") != 1:
                await self.written.wait()
                continue
            try:
                async with client.lease("ems") as lease:
                    await self._hold(lease)
            except ClientError:
                pass  # somebody else holds it, or the gateway restarts: WSetEna falls back to 0 and says so
            self.registers.put(704, "WSetEna", 0)
            self.registers.put(704, "WSetRvrtRem", 0)

    async def _hold(self, lease: AsyncLease) -> None:
        while self.registers.get(704, "WSetEna") == 1 and not lease.lost:
            revert_s = min(REVERT_S_MAX, max(1.0, float(self.registers.get(704, "WSetRvrtTms"))))
            await lease.setpoint(float(self.registers.get(704, "WSet")), revert_s)
            self.written.clear()
            try:
                await asyncio.wait_for(self.written.wait(), revert_s)
            except TimeoutError:
                return


async def serve(
    endpoint: str | None, site: str | None, address: str, port: int, keys: tuple[str, str, str] | None = None
) -> None:
    """Serve until cancelled. Raises ClientError if there is no gateway, OSError if the port is taken."""
    async with AsyncClient(endpoint, site=site, keys=keys, timeout_s=5.0, for_remote=True) as client:
        shown = SunSpecSite(await client.describe())
        words = shown.registers.words
        device = SimDevice(
            0, simdata=[SimData(BASE, values=list(words), datatype=DataType.REGISTERS)], action=shown.on_access
        )
        server = ModbusTcpServer(device, address=(address, port))
        if not await server.listen():
            raise OSError(f"{address}:{port}: cannot listen there")
        tasks = [asyncio.create_task(job) for job in (shown.follow(client), shown.clear(), shown.command(client))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await server.shutdown()
