"""Reading one device once, by its map."""

import time
from dataclasses import dataclass
from functools import partial
from typing import Literal

import can

from tidegate.config.poll_plan import device_blocks
from tidegate.config.site import Device, Serial
from tidegate.hal.decode import decode_frame, decode_registers, frame_of, told_by
from tidegate.hal.map_schema import DeviceMap, Point
from tidegate.hal.maps import load_map
from tidegate.runtime.tools.open_bus import RegisterReader, ToolError
from tidegate.runtime.tools.scan import sunspec_chain


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
    _prove_models(reader, found, unit_id)
    spoken: Literal["modbus", "pylontech"] = "pylontech" if found.map.protocol == "pylontech" else "modbus"
    serial = Serial(name="tool", device=reader.device, protocol=spoken)
    device = Device(
        name="tool",
        map=found.name,
        bus="tool",
        role="pcs" if found.map.kind == "pcs" else "bms" if found.map.kind == "bms" else "grid-meter",
        unit_id=unit_id,
    )
    readings = []
    for block in device_blocks(serial, device, found, []):
        try:
            got = reader.read(unit_id, block.function, block.address, block.count)
        except TimeoutError:
            raise ToolError(
                f"{reader.device}: unit {unit_id} does not answer (function {block.function}, address {block.address}, "
                f"{block.count} registers); check id, baud rate, parity and wiring, or run `tidegate scan`"
            ) from None
        words = dict(enumerate(got or [], block.address))
        # A factor counts for the values of its own reading only.
        scales: dict[str, int | None] = {}
        for p in block.points:
            if p.type == "sunssf" and p.address is not None:
                held = words.get(p.address)
                scales[p.name] = None if held is None else held - 65536 if held > 32767 else held
        for p in block.points:
            if (point and p.name != point) or (p.hidden and not point) or p.address is None:
                continue

            told = told_by(p, partial(_held, words))
            regs = _held(words, told) or []
            value = decode_registers(told, regs, scales.get(told.sf)) if regs else None
            readings.append(Reading(p.name, p.unit, value, " ".join(f"{w:04X}" for w in regs), told.register_name))
    order = {p.name: number for number, p in enumerate(found.point)}
    readings = sorted({reading.name: reading for reading in readings}.values(), key=lambda one: order[one.name])
    return readings


def placed(reader: RegisterReader, name: str, options: dict[str, str], unit_id: int) -> DeviceMap:
    """A map with its SunSpec models where this device has them; any other map as it is.

    Raises ToolError for a device that is no SunSpec device or lacks a model.
    """
    found = load_map(name, options or None)
    wanted = found.model_starts()
    if not wanted:
        return found
    base, chain = sunspec_chain(reader, unit_id)
    has = {number: at for number, at, _ in reversed(chain)}
    if base is None:
        raise ToolError(f"{reader.device}: unit {unit_id} answers with no SunSpec chain; is it a SunSpec device?")
    missing = [number for number in wanted if number not in has]
    if missing:
        known, lacked = (", ".join(map(str, one)) for one in (sorted(has), missing))
        raise ToolError(
            f"{reader.device}: unit {unit_id} has the SunSpec models {known}, and {name} reads {lacked}; use the "
            f"map of one that it has"
        )
    return load_map(name, options or None, base, {number: has[number] for number in wanted})


def _prove_models(reader: RegisterReader, found: DeviceMap, unit_id: int) -> None:
    """Refuse to read registers as those of a model that does not stand there."""
    for number, at in found.model_starts().items():
        try:
            got = reader.read(unit_id, 3, at, 1)
        except TimeoutError:
            return  # it is said below
        if not got or got[0] != number:
            raise ToolError(
                f"{reader.device}: unit {unit_id}: SunSpec model {number} should begin at {at}, and there stands "
                f"{got[0] if got else 'nothing'}; `tidegate scan` says where (sunspec_base, sunspec_models)"
            )


def _held(words: dict[int, int], point: Point) -> list[int] | None:
    """The words of a point, None where not all of them were read."""
    raw = [words.get((point.address or 0) + i) for i in range(point.words)]
    regs = [word for word in raw if word is not None]
    return regs if len(regs) == point.words else None


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
