"""Raw registers and frames to values by a device map, in plain Python: for tools and tests, never for the loop.

The loop's own decoders are compiled (ext/bus/registers.pyx, ext/bus/can.pyx); tests hold the two against each other.
"""

import math
import struct
from collections.abc import Sequence

from tidegate.hal.map_schema import CanSignal, DeviceMap, Frame, Point


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
    raw = raw_of(point, regs)
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
    selector = CanSignal.model_construct(
        name="mux",
        start=frame.mux_start,
        length=frame.mux_length,
        byte_order="big" if frame.mux_big_endian else "little",
    )
    return signal_bits(selector, data)


def decode_frame(frame: Frame, data: bytes) -> dict[str, float | None]:
    """Signal name -> value for every signal that this frame carries (of its multiplexer's page, within its length)."""
    page = multiplexer(frame, data)
    values = {}
    for signal in frame.signal:
        if signal.mux is not None and signal.mux != page:
            continue
        if signal_bits(signal, data) is not None:
            values[signal.name] = decode_signal(signal, data)
    return values


def frame_of(found: DeviceMap, can_id: int, extended: bool = False, offset: int = 0) -> Frame | None:
    """The map's frame with this id, None for a foreign one. offset: the device's can_id_offset."""
    return next((f for f in found.frame if f.id + offset == can_id and f.extended == extended), None)
