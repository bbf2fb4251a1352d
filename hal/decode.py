"""Raw registers and frames to values by a device map, and values to registers, in plain Python: for tools and tests.

The loop's own decoders are compiled (ext/bus/registers.pyx, ext/bus/can.pyx); tests hold the two against each other.
"""

import math
import struct
from collections.abc import Callable, Sequence
from typing import Literal

from tidegate.hal.map_schema import WORDS, CanSignal, Command, DeviceMap, Frame, Part, Point


def raw_of(point: Point, regs: Sequence[int]) -> int:
    """The point's bits as one unsigned number. regs: its words, as they came over the wire (host order of 16 bits)."""
    words = [(w >> 8 | (w & 0xFF) << 8) if point.byte_swap else w for w in regs]
    if point.word_order == "low-first":
        words = words[::-1]
    raw = 0
    for word in words:
        raw = raw << 16 | word
    if point.type == "bits":
        raw = raw >> point.bit & (1 << point.bits) - 1
    return raw


def decode_registers(point: Point, regs: Sequence[int], sf: int | None = None) -> float | None:
    """The value of a point, None when the device says or shows that it is not one.

    regs: `point.words` words; sf: what the point's scale factor register holds. Raises ValueError for a wrong count.
    """
    if len(regs) != point.words:
        raise ValueError(f"{point.name}: {len(regs)} registers, needs {point.words}")
    if point.less_next:
        half = point.model_copy(update={"less_next": False})
        more = decode_registers(half, regs[: half.words], sf)
        less = decode_registers(half, regs[half.words :], sf)
        return None if more is None or less is None else more - less
    raw = raw_of(point, regs)
    if lacks(point, raw):
        return None
    if point.one_of:
        return float(raw in point.one_of)
    if point.sentinel is not None and raw == point.sentinel:
        return None
    if point.accumulates and raw == 0:
        return None
    width = 16 * point.words
    if point.type in ("s16", "s32", "s64", "sunssf"):
        number = float(raw - (1 << width) if raw >> (width - 1) else raw)
    elif point.type in ("f32", "f64"):
        number = float(struct.unpack(">f" if width == 32 else ">d", raw.to_bytes(width // 8, "big"))[0])
    else:
        number = float(raw)
    if point.sf:
        if sf is None or not -10 <= sf <= 10:
            return None
        number = number * 10.0**sf if sf >= 0 else number / 10.0**-sf
    return _in_range(number * point.signed_scale + point.offset, point.range)


def lacks(point: Point, raw: int) -> bool:
    """Whether the device says that it does not have this point: SunSpec has a pattern for each type."""
    if not point.optional or point.type in ("f32", "f64"):
        return False
    if point.sentinel is not None and not point.one_of and raw == point.sentinel:
        return True
    width = 16 * point.words
    return raw == (1 << (width - 1) if point.type in ("s16", "s32", "s64", "sunssf") else (1 << width) - 1)


def told_by(point: Point, regs_of: Callable[[Point], Sequence[int] | None]) -> Point:
    """The point that a value is taken from: itself, or the first of those in its place that the device has.

    regs_of: the words of a point, None where they were not read.
    """
    for one in (point, *point.instead[:-1]):
        regs = regs_of(one)
        if regs is None or len(regs) != one.words or not lacks(one, raw_of(one, regs)):
            return one
    return point.instead[-1] if point.instead else point


def encode_registers(command: Command, value: float, sf: int | None = None) -> list[int]:
    """The registers of a value (W, + discharge; a const's own), in wire order.

    sf: what the command's scale factor register holds. Raises ValueError for what the registers cannot hold.
    """
    parts = command.parts()
    if not parts:
        number = (command.value if command.kind == "const" else value) / command.signed_scale
        return _words(command, number, command.type, command.word_order, sf if command.sf else None)
    regs: list[int] = []
    for part in parts:
        scaled = sf if command.sf and part.of not in ("const", "direction") else None
        number = part_value(part, value) / part.signed_scale
        if scaled is not None:
            number = number / 10.0**scaled if scaled >= 0 else number * 10.0**-scaled
        if part.of not in ("const", "direction"):
            number += part.value
        regs += _words(command, number, part.type, part.word_order, None)
    return regs


def part_value(part: Part, value: float) -> float:
    """What one part of a command says of the command's value, before its scale."""
    if part.of == "direction":
        word = part.charge if value < 0 else part.zero if value == 0 and part.zero is not None else part.discharge
        return 0.0 if word is None else word
    return {
        "const": part.value,
        "setpoint": value,
        "magnitude": abs(value),
        "charge": max(-value, 0.0),
        "discharge": max(value, 0.0),
    }[part.of]


def _words(command: Command, number: float, kind: str, order: str, sf: int | None) -> list[int]:
    if sf is not None:
        number = number / 10.0**sf if sf >= 0 else number * 10.0**-sf
    words = WORDS.get(kind, 1)
    if kind in ("f32", "f64"):
        raw = int.from_bytes(struct.pack(">f" if kind == "f32" else ">d", number), "big")
    else:
        whole = math.floor(abs(number) + 0.5)
        if command.kind == "setpoint_w" and whole > abs(number) * (1 + 1e-9):
            whole = math.trunc(abs(number))  # never past what the gate let go
        signed = kind.startswith("s")
        raw = whole if number >= 0 else -whole
        low, high = (-(1 << 16 * words - 1), (1 << 16 * words - 1) - 1) if signed else (0, (1 << 16 * words) - 1)
        if not low <= raw <= high:
            raise ValueError(f"{command.name}: {number:g} does not fit into {kind}")
        raw &= (1 << 16 * words) - 1
    regs = [raw >> 16 * i & 0xFFFF for i in reversed(range(words))]
    return regs[::-1] if order == "low-first" else regs


def _in_range(number: float, allowed: tuple[float, float] | None) -> float | None:
    if not math.isfinite(number):
        return None
    return None if allowed is not None and not allowed[0] <= number <= allowed[1] else number


def signal_bits(signal: CanSignal, data: bytes) -> int | None:
    """The signal's bits in a frame as one unsigned number, None when the frame is too short for it."""
    assert signal.start is not None and signal.length is not None
    if signal.byte_order != "big":
        if signal.start + signal.length > 8 * len(data):
            return None
        return int.from_bytes(data, "little") >> signal.start & (1 << signal.length) - 1
    # Big endian: the start bit is the most significant one; in reading order it lies 7 - bit into its byte.
    first = signal.start // 8 * 8 + 7 - signal.start % 8
    if first + signal.length > 8 * len(data):
        return None
    return int.from_bytes(data, "big") >> (8 * len(data) - first - signal.length) & (1 << signal.length) - 1


def decode_signal(signal: CanSignal, data: bytes) -> float | None:
    """The value of a signal, None when the frame is too short for it or the value is not believable."""
    raw = signal_bits(signal, data)
    if raw is None:
        return None
    if signal.mask:
        raw &= signal.mask
    if signal.one_of:
        return float(raw in signal.one_of)
    if signal.sentinel is not None and raw == signal.sentinel:
        return None
    assert signal.length is not None
    if signal.is_float:
        number = float(
            struct.unpack("<f" if signal.length == 32 else "<d", raw.to_bytes(signal.length // 8, "little"))[0]
        )
    else:
        number = float(raw - (1 << signal.length) if signal.signed and raw >> (signal.length - 1) else raw)
    number = (number * signal.scale + signal.offset) * signal.sign
    return _in_range(abs(number) if signal.magnitude else number, signal.range)


def multiplexer(frame: Frame, data: bytes) -> int | None:
    """What the frame's multiplexer holds, None where it has none."""
    if frame.mux_start is None:
        return None
    return _selector(frame.mux_start, frame.mux_length, frame.mux_big_endian, data)


def _selector(start: int, length: int, big_endian: bool, data: bytes) -> int | None:
    order: Literal["big", "little"] = "big" if big_endian else "little"
    return signal_bits(CanSignal.model_construct(name="mux", start=start, length=length, byte_order=order), data)


def decode_frame(frame: Frame, data: bytes) -> dict[str, float | None]:
    """Signal name -> value for every signal that this frame carries (of its multiplexer's page, within its length)."""
    page = multiplexer(frame, data)
    values = {}
    for signal in frame.signal:
        if signal.mux is not None and page not in (signal.mux, *signal.mux_more):
            continue
        if (
            signal.mux2
            and _selector(signal.mux2_start, signal.mux2_length, signal.mux2_big_endian, data) not in signal.mux2
        ):
            continue
        if signal_bits(signal, data) is not None:
            values[signal.name] = decode_signal(signal, data)
    return values


def vector_frame(found: DeviceMap, can_id: int) -> Frame | None:
    """The frame that a vector means: its id alone, so a short one may be of 29 bits where the map has no other."""
    return frame_of(found, can_id, can_id > 0x7FF) or frame_of(found, can_id, True)


def frame_of(found: DeviceMap, can_id: int, extended: bool = False, offset: int = 0) -> Frame | None:
    """The map's frame with this id, None for a foreign one. offset: the device's can_id_offset."""
    return next((f for f in found.frame if f.id + offset == can_id and f.extended == extended), None)
