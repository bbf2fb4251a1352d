"""Reading one device once, by its map."""

import time
from dataclasses import dataclass

import can

from tidegate.config.poll_plan import device_blocks
from tidegate.config.site import Device, Serial
from tidegate.hal.decode import decode_frame, decode_registers, frame_of
from tidegate.hal.map_schema import DeviceMap
from tidegate.runtime.tools.open_bus import RegisterReader, ToolError


@dataclass
class Reading:
    """One value. raw: what came over the wire, as hex; value None = not believable, or the device has none."""

    name: str
    unit: str
    value: float | None
    raw: str
    register: str


def read_registers(reader: RegisterReader, found: DeviceMap, unit_id: int, point: str = "") -> list[Reading]:
    """All points of a device, or the one named, in the blocks that the controller would read.

    Raises ToolError for an unknown point and for a device that does not answer.
    """
    names = [p.name for p in found.point]
    if point and point not in names:
        raise ToolError(f"{found.name} has no point {point!r}; it has: {', '.join(names)}")
    serial = Serial(name="tool", device=reader.device)
    device = Device(
        name="tool",
        map=found.name,
        bus="tool",
        role="pcs" if found.map.kind == "pcs" else "grid-meter",
        unit_id=unit_id,
    )
    words: dict[tuple[int, int], int] = {}
    for block in device_blocks(serial, device, found, []):
        try:
            got = reader.read(unit_id, block.function, block.address, block.count)
        except TimeoutError:
            raise ToolError(
                f"{reader.device}: unit {unit_id} does not answer (function {block.function}, address {block.address}, "
                f"{block.count} registers); check id, baud rate, parity and wiring, or run `tidegate scan`"
            ) from None
        for i, word in enumerate(got or []):
            words[(block.function, block.address + i)] = word
    scales: dict[str, int | None] = {}
    for p in found.point:
        if p.type == "sunssf" and p.address is not None:
            held = words.get((p.function, p.address))
            scales[p.name] = None if held is None else held - 65536 if held > 32767 else held
    readings = []
    for p in found.point:
        if (point and p.name != point) or (p.hidden and not point) or p.address is None:
            continue
        raw = [words.get((p.function, p.address + i)) for i in range(p.words)]
        regs = [word for word in raw if word is not None]
        whole = len(regs) == p.words
        value = decode_registers(p, regs, scales.get(p.sf)) if whole else None
        readings.append(Reading(p.name, p.unit, value, " ".join(f"{w:04X}" for w in regs), p.register_name))
    return readings


def read_can(bus: can.BusABC, found: DeviceMap, seconds: float, offset: int = 0, point: str = "") -> list[Reading]:
    """What a CAN device sends within a while, or one signal of it. Listens only.

    Raises ToolError for an unknown signal and when nothing of the device was heard.
    """
    names = found.signal_names()
    if point and point not in names:
        raise ToolError(f"{found.name} has no signal {point!r}; it has: {', '.join(names)}")
    units = {s.name: (s.unit, s.register_name) for f in found.frame for s in f.signal}
    readings: dict[str, Reading] = {}
    begin = time.monotonic()
    while time.monotonic() - begin < seconds and not (point and point in readings):
        message = bus.recv(0.1)
        if message is None or message.is_error_frame:
            continue
        frame = frame_of(found, message.arbitration_id, message.is_extended_id, offset)
        if frame is None or not frame.len[0] <= len(message.data) <= frame.len[1]:
            continue
        for name, value in decode_frame(frame, bytes(message.data)).items():
            unit, register = units[name]
            readings[name] = Reading(name, unit, value, bytes(message.data).hex(" ").upper(), register)
    if not readings:
        raise ToolError(f"nothing of {found.name} was heard in {seconds:g} s; check bit rate, wiring and termination")
    return [readings[name] for name in names if name in readings and (not point or name == point)]
