"""What the core decodes and writes by: the rows of single signals, registers and commands of a device map."""

import math
from typing import TypeAlias

from tidegate.config.site import Device
from tidegate.ext.abi import program
from tidegate.hal.map_schema import CanSignal, Command, Point

Row: TypeAlias = dict[str, object]
"""One row for `program.pack`, or of the description, by the names of its fields."""


def can_fields(signal: CanSignal, point: str) -> list[Row]:
    """All decode rows of one CAN signal: one for each number of its multiplexers that lets it through."""
    first: Row = {"point": point, **can_field(signal)}
    rows = [first, *({**first, "mux_value": number} for number in signal.mux_more)]
    if not signal.mux2:
        return rows
    second: Row = {
        "mux2_start": signal.mux2_start,
        "mux2_length": signal.mux2_length,
        "mux2_big_endian": int(signal.mux2_big_endian),
    }
    return [{**row, **second, "mux2_value": number} for row in rows for number in signal.mux2]


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
        | (flags["less_next"] if point.less_next else 0)
        | (flags["identity"] if point.is_identity else 0),
        "bit_first": point.bit,
        "bit_count": point.bits,
        "sf_point": names[point.sf] if point.sf else -1,
        "scale": point.signed_scale * sign,
        "offset_value": point.offset,
        "min": low,
        "max": high,
        "sentinel": sentinel or 0,
        "optional": int(point.optional),
    }


def register_fields(device: Device, point: Point, block_address: int, names: dict[str, str]) -> list[Row]:
    """The decode rows of one register point: its own, and those of what stands in its place where it is missing."""
    rows = [register_field(device, one, block_address, names) for one in (point, *point.instead)]
    rows[0]["others"] = len(point.instead)
    return rows


def command_parts(command: Command, names: dict[str, str]) -> list[Row]:
    """The values that share the write of a command; none where the registers are its value as it is."""
    flags = program.FIELD_FLAGS
    rows: list[Row] = []
    offset = 0
    for part in command.parts():
        scaled = bool(command.sf) and part.of not in ("const", "direction")
        at_zero = part.discharge if part.zero is None else part.zero
        rows.append(
            {
                "offset": offset,
                "type": program.FIELD_TYPES[part.type],
                "flags": (flags["low_word_first"] if part.word_order == "low-first" else 0)
                | (flags["sf_point"] if scaled else 0),
                "of": program.PARTS_OF[part.of],
                "sf_point": names[command.sf] if scaled else -1,
                "scale": part.signed_scale,
                "value": (at_zero or 0.0) if part.of == "direction" else part.value,
                "charge": part.charge or 0.0,
                "discharge": part.discharge or 0.0,
            }
        )
        offset += part.words
    return rows


def command_row(command: Command, unit: int, names: dict[str, str]) -> Row:
    """The row of one written register."""
    flags = program.FIELD_FLAGS
    return {
        "function": command.function,
        "kind": program.COMMAND_KINDS[command.kind],
        "address": command.address,
        "count": command.words if command.function in (16, 22, 23) else 1,
        "parts": command_parts(command, names),
        "pause_ns": round(command.pause_ms * 1e6),
        "type": program.FIELD_TYPES[command.type],
        "flags": (flags["low_word_first"] if command.word_order == "low-first" else 0)
        | (flags["sf_point"] if command.sf else 0)
        | (program.COMMAND_FLAGS["flash"] if command.flash else 0)
        | (program.COMMAND_FLAGS["turns"] if command.turns else 0)
        | (program.COMMAND_FLAGS["keep"] if command.turns and command.zero is None else 0),
        "unit": unit,
        "sf_point": names[command.sf] if command.sf else -1,
        "readback_point": names[command.readback] if command.readback else -1,
        "scale": command.signed_scale,
        "value": command.value,
        "resend_ns": round(command.resend_ms * 1e6),
    }
