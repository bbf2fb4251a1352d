"""The site as a SunSpec device over Modbus TCP, for a SCADA or a DCIM: `tidegate export modbus`.

Registers from 40000: "SunS", model 1 (common), 203 (the grid meter: W, Hz, energies), 713 (storage: rating, available
energy, state of charge), 704 (control). In 704 a client writes WSet (W, + discharge) and WSetEna = 1: that takes the
lease of the site. WSetRvrtTms (s, default 60) after the last write, or at WSetEna = 0, the lease is given back and the
loop goes to its next policy with a ramp. All other registers are for reading.
"""

import asyncio
import contextlib
import struct

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from tidegate.hal import sunspec
from tidegate.runtime.api.async_client import AsyncClient, AsyncLease
from tidegate.runtime.api.blocking_client import ClientError
from tidegate.runtime.api.messages import Message

BASE = 40000
MODELS = (1, 203, 713, 704)
REVERT_S = 60.0
REVERT_S_MAX = 600.0
FORMATS = {"u16": ">H", "s16": ">h", "u32": ">I", "s32": ">i", "sunssf": ">h"}
NOT_IMPLEMENTED = {"u16": 0xFFFF, "s16": -0x8000, "u32": 0xFFFFFFFF, "s32": -0x80000000, "sunssf": -0x8000}
WRITABLE = ("WSetEna", "WSetMod", "WSet", "WSetRvrtTms")
WATTS = 1  # of WSetMod: WSet counts, not WSetPct


class Registers:
    """The register image: SunSpec points by (model, name) over one list of words."""

    def __init__(self) -> None:
        self.starts: dict[int, int] = {}
        at = 2
        for number in MODELS:
            self.starts[number] = at
            at += sunspec.model(number).length
        self.words = [0] * (at + 2)
        self.words[0:2] = sunspec.SUNS
        self.words[at : at + 2] = [sunspec.END, 0]
        self._points = {}
        for number in MODELS:
            model = sunspec.model(number)
            points = model.points.values() if isinstance(model.points, dict) else model.points
            for point in points:
                self._points[number, point.name] = point
                if point.type in FORMATS:
                    self.put(number, point.name, None)
            self.put(number, "ID", number)
            self.put(number, "L", model.length - 2)

    def place(self, number: int, name: str) -> tuple[int, int]:
        """(first word, words) of a point."""
        point = self._points[number, name]
        return self.starts[number] + point.offset, point.size

    def put(self, number: int, name: str, value: float | None) -> None:
        """Write a raw value; None is SunSpec's own "not implemented"."""
        point = self._points[number, name]
        raw = NOT_IMPLEMENTED[point.type] if value is None else round(value)
        data = struct.pack(FORMATS[point.type], raw)
        at, size = self.place(number, name)
        self.words[at : at + size] = struct.unpack(f">{size}H", data)

    def text(self, number: int, name: str, value: str) -> None:
        at, size = self.place(number, name)
        data = value.encode("ascii", "replace")[: size * 2].ljust(size * 2, b"\0")
        self.words[at : at + size] = struct.unpack(f">{size}H", data)

    def get(self, number: int, name: str) -> int:
        at, size = self.place(number, name)
        point = self._points[number, name]
        return int(struct.unpack(FORMATS[point.type], struct.pack(f">{size}H", *self.words[at : at + size]))[0])


class SunSpecSite:
    """Keeps the registers as the snapshots say, and the lease as the registers say."""

    def __init__(self, describe: Message) -> None:
        self.registers = Registers()
        self.energy_wh = sum(float(unit.get("energy_wh") or 0) for unit in describe.get("units", []))
        devices = describe.get("devices", [])
        self.grid = next((one["name"] for one in devices if one.get("role") == "grid-meter"), "grid")
        self.bms = [one["name"] for one in devices if one.get("role") == "bms"]
        self.written = asyncio.Event()
        self.writable = set()
        put, text = self.registers.put, self.registers.text
        text(1, "Mn", "Tidegate")
        text(1, "Md", "Site controller")
        text(1, "SN", str(describe["site"]["name"]))
        for number, name, value in (
            (203, "W_SF", 1), (203, "Hz_SF", -2), (203, "TotWh_SF", 0), (713, "WH_SF", 1), (713, "Pct_SF", -1),
            (704, "WSet_SF", 0), (704, "WSetEna", 0), (704, "WSetMod", WATTS), (704, "WSet", 0),
            (704, "WSetRvrtTms", REVERT_S), (704, "WSetRvrtRem", 0),
        ):  # fmt: skip
            put(number, name, value)
        for name in WRITABLE:
            at, size = self.registers.place(704, name)
            self.writable |= set(range(BASE + at, BASE + at + size))

    def take(self, points: Message) -> None:
        """Show a snapshot."""

        def value(*names: str) -> float | None:
            return next((points[name][0] for name in names if name in points and points[name][0] is not None), None)

        def scaled(found: float | None, factor: float, most: float) -> float | None:
            return None if found is None else max(-most, min(most, found * factor))

        put = self.registers.put
        put(203, "W", scaled(value("site.grid_w"), 0.1, 32767))
        put(203, "Hz", scaled(value(f"{self.grid}.frequency_hz", f"{self.grid}.freq_hz"), 100, 32767))
        put(203, "TotWhImp", scaled(value(f"{self.grid}.import_wh"), 1, 2**32 - 2))
        put(203, "TotWhExp", scaled(value(f"{self.grid}.export_wh"), 1, 2**32 - 2))
        socs = [soc for name in self.bms if (soc := value(f"{name}.soc")) is not None]
        soc = sum(socs) / len(socs) if socs else None
        put(713, "WHRtg", scaled(self.energy_wh, 0.1, 65534))
        put(713, "WHAvail", None if soc is None else scaled(self.energy_wh * soc, 0.1, 65534))
        put(713, "SoC", scaled(soc, 1000, 1000))

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
            words = self.registers.words
            before = words[address - BASE : address - BASE + len(values)]
            words[address - BASE : address - BASE + len(values)] = [int(one) for one in values]
            get = self.registers.get
            if get(704, "WSetEna") not in (0, 1) or get(704, "WSetMod") != WATTS:
                words[address - BASE : address - BASE + len(values)] = before
                return ExcCodes.ILLEGAL_VALUE
            self.written.set()
        registers[:] = self.registers.words
        return None

    async def follow(self, client: AsyncClient) -> None:
        """Show snapshots as they come."""
        async for message in client.subscribe("snapshot"):
            self.take(message["points"])

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
        tasks = [asyncio.create_task(job) for job in (shown.follow(client), shown.command(client))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await server.shutdown()
