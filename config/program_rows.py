"""What the core decodes and writes by: the rows of single signals, registers and commands of a device map."""

import math
from typing import TypeAlias

from tidegate.config.site import Device
from tidegate.ext.abi import program
from tidegate.hal.map_schema import CanSignal, Command, Point

Row: TypeAlias = dict[str, object]
"""One row for `program.pack`, or of the description, by the names of its fields."""


def can_field(signal: CanSignal) -> Row:
    """The decode row of one CAN signal, without its point."""
    flags = program.CAN_FIELD_FLAGS
    low, high = signal.range if signal.range is not None else (-math.inf, math.inf)
    sentinel = sum(1 << value for value in signal.one_of) if signal.one_of else signal.sentinel
    return {
        "start": signal.start,
        "length": signal.length,
        "big_endian": int(signal.byte_order == "big"),
        "is_signed": int(signal.signed),
        "flags": (flags["one_of"] if signal.one_of else flags["sentinel"] if signal.sentinel is not None else 0)
        | (flags["abs"] if signal.magnitude else 0)
        | (flags["float"] if signal.is_float else 0)
        | (flags["muxed"] if signal.mux is not None else 0),
        "mux_value": signal.mux or 0,
        "mask": signal.mask,
        "scale": signal.scale * signal.sign,
        "offset": signal.offset * signal.sign,
        "min": low,
        "max": high,
        "sentinel": sentinel or 0,
    }


def register_field(device: Device, point: Point, block_address: int, names: dict[str, str]) -> Row:
    """The decode row of one register point. names: signal -> name in the image."""
    assert point.address is not None
    flags = program.FIELD_FLAGS
    # A meter mounted the other way round counts the other way; its energy registers are swapped by name instead.
    directed = point.positive is not None and device.invert and not point.unit.endswith("Wh")
    sign = -1.0 if directed else 1.0
    low, high = point.range if point.range is not None else (-math.inf, math.inf)
    sentinel = sum(1 << value for value in point.one_of) if point.one_of else point.sentinel
    return {
        "point": names[point.name],
        "offset": point.address - block_address,
        "type": program.FIELD_TYPES[point.type],
        "flags": (flags["one_of"] if point.one_of else flags["sentinel"] if point.sentinel is not None else 0)
        | (flags["low_word_first"] if point.word_order == "low-first" else 0)
        | (flags["byte_swap"] if point.byte_swap else 0)
        | (flags["sf_point"] if point.sf else 0)
        | (flags["acc"] if point.accumulates else 0)
        | (flags["identity"] if point.is_identity else 0),
        "bit_first": point.bit,
        "bit_count": point.bits,
        "sf_point": names[point.sf] if point.sf else -1,
        "scale": point.signed_scale * sign,
        "offset_value": point.offset,
        "min": low,
        "max": high,
        "sentinel": sentinel or 0,
    }


def command_row(command: Command, unit: int, names: dict[str, str]) -> Row:
    """The row of one written register."""
    flags = program.FIELD_FLAGS
    return {
        "function": command.function,
        "kind": program.COMMAND_KINDS[command.kind],
        "address": command.address,
        "count": command.words if command.function in (16, 22, 23) else 1,
        "type": program.FIELD_TYPES[command.type],
        "flags": (flags["low_word_first"] if command.word_order == "low-first" else 0)
        | (flags["sf_point"] if command.sf else 0)
        | (program.COMMAND_FLAGS["flash"] if command.flash else 0),
        "unit": unit,
        "sf_point": names[command.sf] if command.sf else -1,
        "readback_point": names[command.readback] if command.readback else -1,
        "scale": command.signed_scale,
        "value": command.value,
        "resend_ns": round(command.resend_ms * 1e6),
    }
