"""A capture against a site's maps: what each frame became, and what of the site was never seen."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tidegate.config.site import Site
from tidegate.ext.bus.rtu_view import crc
from tidegate.hal.decode import decode_frame, frame_of
from tidegate.hal.map_schema import DeviceMap
from tidegate.runtime.tools.captures import CanFrame, Item, SerialBytes, TcpBytes
from tidegate.runtime.tools.pylon_bus import PylonFrame, PylonSplitter
from tidegate.runtime.tools.sniff import RtuFrame, RtuSplitter, values_in

EXCEPTIONS = {
    1: "unknown function", 2: "unknown address", 3: "value refused", 4: "device failure", 5: "accepted, takes long",
    6: "busy", 8: "memory parity", 10: "gateway has no path", 11: "gateway got no answer",
}  # fmt: skip
MODBUS_PORT = 502
MBAP = 6


@dataclass(frozen=True)
class Told:
    """What one frame became. values: None = came, and is not believable."""

    t_s: float
    bus: str
    who: str
    what: str
    data: bytes
    values: dict[str, float | None] = field(default_factory=dict)


@dataclass
class _Side:
    """One direction of a connection: what has come and is no whole frame yet."""

    next_seq: int | None = None
    held: bytes = b""


def by_unit(site: Site, found: Mapping[str, DeviceMap], buses: Collection[str]) -> dict[int, tuple[str, DeviceMap]]:
    """Unit id -> (name, map) of the devices on these buses; those of one unit id as one with all points."""
    units: dict[int, tuple[str, DeviceMap]] = {}
    for device in site.device:
        if device.bus in buses and device.unit_id is not None:
            name, own = device.name, found[device.name]
            if device.unit_id in units:
                before, other = units[device.unit_id]
                name, own = f"{before} + {name}", other.model_copy(update={"point": (*other.point, *own.point)})
            units[device.unit_id] = name, own
    return units


class ReplayError(Exception):
    """A capture that cannot be laid on this site, in one sentence."""


class Replay:
    """Plays captured items against a site. bus: the one that a capture without names is of, "" = the only one."""

    def __init__(self, site: Site, maps: dict[str, DeviceMap], bus: str = "") -> None:
        self.site, self.maps, self.bus = site, maps, bus
        self.seen: dict[str, Counter[str]] = {device.name: Counter() for device in site.device}
        self.invalid: Counter[str] = Counter()
        self.points: set[str] = set()
        self.strangers: Counter[str] = Counter()
        self._splitters: dict[str, RtuSplitter | PylonSplitter] = {}
        self._open: dict[str, RtuFrame] = {}
        self._sides: dict[tuple[str, int, str, int], _Side] = {}
        self._asked: dict[tuple[tuple[str, int, str, int], int], bytes] = {}
        names = [*(s.name for s in site.serial), *(t.name for t in site.tcp), *(c.name for c in site.can)]
        if bus and bus not in names:
            raise ReplayError(f"the site has no bus {bus!r}; it has: {', '.join(names)}")

    def play(self, items: Iterable[Item]) -> Iterator[Told]:
        """What each frame became, in the order of the capture."""
        for item in items:
            if isinstance(item, CanFrame):
                told: Iterable[Told] = [self._can(item)]
            elif isinstance(item, SerialBytes):
                told = self._serial(item)
            else:
                told = self._tcp(item)
            for one in told:
                self._count(one)
                yield one
        for bus, asked in self._open.items():
            one = self._unanswered(bus, asked)
            self._count(one)
            yield one

    def _count(self, one: Told) -> None:
        names = one.who.split(" + ")  # several devices behind one unit id
        if not set(names) <= set(self.seen):
            self.strangers[f"{one.bus} {one.who}: {one.what}"] += 1
            return
        for who in names:
            self.seen[who][one.what.partition(":")[0]] += 1
            for name, value in one.values.items():
                if len(names) == 1 or name in self.maps[who].signal_names():
                    self.points.add(f"{who}.{name}")
                    self.invalid[f"{who}.{name}"] += value is None

    def summary(self) -> list[str]:
        """What was seen of each device, what was never seen, and what belongs to nobody."""
        lines = []
        for device in self.site.device:
            counts = self.seen[device.name]
            told = ", ".join(f"{count} {what}" for what, count in counts.most_common())
            lines.append(f"{device.name} ({device.map}): {told or 'nothing of it in this capture'}")
            if not counts:
                continue
            missing = [
                name for name in self.maps[device.name].signal_names() if f"{device.name}.{name}" not in self.points
            ]
            if missing:
                lines.append(f"  never seen: {', '.join(sorted(missing))}")
            bad = [f"{name} {count} times" for name, count in sorted(self.invalid.items())
                   if count and name.startswith(f"{device.name}.")]  # fmt: skip
            if bad:
                lines.append(f"  not believable: {', '.join(bad)}")
        lines += [f"nobody's: {what}, {count} times" for what, count in self.strangers.most_common()]
        return lines

    # ---- CAN ----

    def _can(self, item: CanFrame) -> Told:
        buses = [one.name for one in self.site.can if item.bus in (one.interface, one.name)]
        bus = buses[0] if buses else self._only([one.name for one in self.site.can], "CAN")
        ident = f"0x{item.ident:X}"
        if item.special:
            return Told(item.t_s, bus, ident, f"{item.special} frame", item.data)
        for device in self.site.device:
            if device.bus != bus:
                continue
            frame = frame_of(self.maps[device.name], item.ident, item.extended, device.can_id_offset)
            if frame is None:
                continue
            low, high = frame.len
            if not low <= len(item.data) <= high:
                wanted = str(low) if low == high else f"{low} to {high}"
                said = f"refused: {ident} with {len(item.data)} bytes, needs {wanted}"
                return Told(item.t_s, bus, device.name, said, item.data)
            return Told(item.t_s, bus, device.name, f"taken: {ident}", item.data, decode_frame(frame, item.data))
        return Told(item.t_s, bus, ident, "no device of the site has this id", item.data)

    # ---- Modbus ----

    def _only(self, names: list[str], what: str) -> str:
        if self.bus:
            return self.bus
        if len(names) != 1:
            said = ", ".join(names) or "none"
            raise ReplayError(f"which {what} bus is this capture of? give --bus; the site has: {said}")
        return names[0]

    def _units(self, bus: str) -> dict[int, tuple[str, DeviceMap]]:
        return by_unit(self.site, self.maps, {bus})

    def _serial(self, item: SerialBytes) -> Iterator[Told]:
        lines = [one.name for one in self.site.serial] + [one.name for one in self.site.tcp if one.framing != "tcp"]
        bus = self._only(lines, "serial")
        packs = [one.name for one in self.site.serial if one.protocol == "pylontech"]
        packs += [one.name for one in self.site.tcp if one.framing == "pylontech"]
        made = PylonSplitter if bus in packs else RtuSplitter
        splitter = self._splitters.setdefault(bus, made(self._units(bus)))
        foreign = splitter.foreign
        for data in (item.data, b"") if item.whole else (item.data,):
            for frame in splitter.feed(data, item.t_s):
                yield from self._pack(bus, frame) if isinstance(frame, PylonFrame) else self._rtu(bus, frame)
        if splitter.foreign > foreign:
            said = f"{splitter.foreign - foreign} bytes that are no frame (CRC, or cut)"
            yield Told(item.t_s, bus, "line", said, item.data)

    def _pack(self, bus: str, frame: PylonFrame) -> Iterator[Told]:
        """A frame of Pylontech's protocol, which says in an answer no more than who gives it."""
        asked = self._open.pop(bus, None)
        who = self._who(bus, frame.unit_id)
        if frame.kind == "question":
            if asked is not None:
                yield self._unanswered(bus, asked)
            self._open[bus] = frame
            yield Told(frame.t_s, bus, who, f"asked: command 0x{frame.command:02X}", frame.data)
        elif asked is None or asked.unit_id != frame.unit_id:
            yield Told(frame.t_s, bus, who, "refused: an answer that nobody asked for", frame.data)
        elif frame.kind == "answer":
            yield Told(frame.t_s, bus, who, "answered", frame.data, frame.values)
        else:
            yield Told(frame.t_s, bus, who, f"refused: {frame.kind.removeprefix('refused: ')}", frame.data)

    def _rtu(self, bus: str, frame: RtuFrame) -> Iterator[Told]:
        asked = self._open.pop(bus, None)
        if frame.kind == "request":
            if asked is not None:
                yield self._unanswered(bus, asked)
            self._open[bus] = frame
            yield self._request(bus, frame.t_s, frame.data)
        else:
            yield self._reply(bus, frame.t_s, asked.data if asked is not None else None, frame.data)

    def _who(self, bus: str, unit_id: int) -> str:
        return self._units(bus)[unit_id][0] if unit_id in self._units(bus) else f"unit {unit_id}"

    def _unanswered(self, bus: str, asked: RtuFrame) -> Told:
        return Told(asked.t_s, bus, self._who(bus, asked.unit_id), "request without an answer", asked.data)

    def _request(self, bus: str, t_s: float, data: bytes) -> Told:
        who, function = self._who(bus, data[0]), data[1]
        first = int.from_bytes(data[2:4])
        if function in (1, 2, 3, 4):
            said = f"asked: function {function}, {int.from_bytes(data[4:6])} from {first}"
        else:
            known = self._units(bus).get(data[0])
            names = [c.name for c in known[1].command if c.address == first] if known else []
            said = f"written: {names[0] if names else 'a register that the map does not write'} at {first}"
        return Told(t_s, bus, who, said, data)

    def _reply(self, bus: str, t_s: float, asked: bytes | None, data: bytes) -> Told:
        who = self._who(bus, data[0])
        if data[1] & 0x80:
            said = f"exception: {data[2]}, {EXCEPTIONS.get(data[2], 'no code of the standard')}"
            return Told(t_s, bus, who, said, data)
        if asked is None:
            return Told(t_s, bus, who, "refused: an answer that nobody asked for", data)
        if data[1] not in (3, 4):
            return Told(t_s, bus, who, "acknowledged" if data[1] > 4 else "answered: bits", data)
        count = int.from_bytes(asked[4:6])
        if data[0] != asked[0] or data[1] != asked[1] or data[2] != 2 * count or len(data) != 5 + 2 * count:
            return Told(t_s, bus, who, f"refused: an answer of another shape than asked ({count} registers)", data)
        known = self._units(bus).get(data[0])
        words = [int.from_bytes(data[i : i + 2]) for i in range(3, 3 + 2 * count, 2)]
        values = values_in(known[1], data[1], int.from_bytes(asked[2:4]), words) if known else {}
        return Told(t_s, bus, who, "answered", data, values)

    # ---- TCP ----

    def _tcp(self, item: TcpBytes) -> Iterator[Told]:
        source, from_port, target, to_port = item.stream
        ports = {one.port for one in self.site.tcp} | {MODBUS_PORT}
        if from_port not in ports and to_port not in ports:
            return
        asks = to_port in ports
        host, port = (target, to_port) if asks else (source, from_port)
        buses = [one.name for one in self.site.tcp if one.host == host and one.port == port]
        bus = buses[0] if buses else self._only([one.name for one in self.site.tcp], "TCP")
        side = self._sides.setdefault(item.stream, _Side())
        if item.begins:
            side.next_seq, side.held = (item.seq + 1) & 0xFFFFFFFF, b""
            return
        data = item.data
        if side.next_seq is not None:
            ahead = (item.seq - side.next_seq + (1 << 31)) % (1 << 32) - (1 << 31)
            if ahead < 0:
                data = data[-ahead:]  # sent again
            elif ahead > 0:
                yield Told(item.t_s, bus, "connection", f"{ahead} bytes are missing in the capture", b"")
                side.held = b""
        if not data:
            return
        side.next_seq = (item.seq + len(item.data)) & 0xFFFFFFFF
        side.held += data
        yield from self._frames(item, side, bus, asks)

    def _frames(self, item: TcpBytes, side: _Side, bus: str, asks: bool) -> Iterator[Told]:
        back = (item.stream[2], item.stream[3], item.stream[0], item.stream[1])
        while len(side.held) >= MBAP:
            length = int.from_bytes(side.held[4:6])
            if side.held[2:4] != b"\0\0" or not 3 <= length <= 254:
                yield Told(item.t_s, bus, "connection", "bytes that are no Modbus TCP", side.held)
                side.held = b""
                return
            if len(side.held) < MBAP + length:
                return
            tid, data = int.from_bytes(side.held[:2]), side.held[MBAP : MBAP + length]
            side.held = side.held[MBAP + length :]
            data += crc(data).to_bytes(2, "little")  # as on a line, so that one reading serves both
            if asks:
                self._asked[item.stream, tid] = data
                yield self._request(bus, item.t_s, data)
            else:
                yield self._reply(bus, item.t_s, self._asked.pop((back, tid), None), data)
