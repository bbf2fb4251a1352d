"""Listening to a bus: RTU frames found by their CRC, CAN frames as they come; decoded, and to files."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, TextIO

import can

from tidegate.ext.bus.rtu_view import crc
from tidegate.hal.decode import decode_frame, decode_registers, frame_of, told_by
from tidegate.hal.map_schema import DeviceMap, Point

ADU_MAX = 256
REQUEST_BYTES = 8  # of functions 1 to 4
# pcap link types: frames of Modbus RTU have none of their own; an exported PDU names who decodes it.
LINKTYPE_UPPER_PDU, LINKTYPE_CAN_SOCKETCAN = 252, 227
MODBUS_PORT, MASTER_PORT = 502, 40000  # with -o mbrtu.tcp.port:502 Wireshark knows who asks also where both look alike


def _good(frame: bytes) -> bool:
    return len(frame) >= 4 and crc(frame[:-2]) == frame[-2] | frame[-1] << 8


def lengths(head: bytes) -> list[int]:
    """Lengths that a frame starting like this may have: as a request and as a reply."""
    if len(head) < 3:
        return []
    function = head[1]
    if function & 0x80:
        return [5]
    if function in (1, 2, 3, 4):
        return [8, 5 + head[2]]
    if function in (5, 6):
        return [8]
    if function in (15, 16):
        return [8, 9 + head[6]] if len(head) >= 7 else [8]
    if function == 22:
        return [10]
    if function == 23:
        return [5 + head[2], *([13 + head[10]] if len(head) >= 11 else [])]
    return []


@dataclass
class RtuFrame:
    """One frame with a good CRC. kind: request, reply or exception, as far as the order tells."""

    t_s: float
    data: bytes
    kind: str
    values: dict[str, float | None] = field(default_factory=dict)
    device: str = ""

    @property
    def unit_id(self) -> int:
        """The device that is asked or answers."""
        return self.data[0]

    @property
    def function(self) -> int:
        """Function code without the exception bit."""
        return self.data[1] & 0x7F


class RtuSplitter:
    """Finds RTU frames in a stream of bytes. `foreign` counts bytes that belong to no frame.

    devices: unit id -> (name, map), to decode the replies.
    """

    def __init__(self, devices: dict[int, tuple[str, DeviceMap]] | None = None) -> None:
        self.devices = devices or {}
        self.foreign = 0
        self._held = b""
        self._asked: RtuFrame | None = None

    def feed(self, data: bytes, t_s: float) -> Iterator[RtuFrame]:
        """Frames that are whole now. An empty `data` says that the line was silent: what is held is foreign."""
        self._held += data
        while self._held:
            frame = next(
                (self._held[:n] for n in sorted(lengths(self._held)) if n <= len(self._held) and _good(self._held[:n])),
                None,
            )
            if frame is not None:
                self._held = self._held[len(frame) :]
                yield self._named(frame, t_s)
            elif not data or len(self._held) > ADU_MAX:
                self._held = self._held[1:]
                self.foreign += 1
            else:
                # A frame may start behind noise: look one byte further before waiting for more.
                later = self._later()
                if later is None:
                    return
                self.foreign += later
                self._held = self._held[later:]

    def _later(self) -> int | None:
        for start in range(1, len(self._held) - 3):
            rest = self._held[start:]
            if any(n <= len(rest) and _good(rest[:n]) for n in lengths(rest)):
                return start
        return None

    def _named(self, data: bytes, t_s: float) -> RtuFrame:
        asked = self._asked
        answers = asked is not None and asked.data[0] == data[0] and asked.function == data[1] & 0x7F
        if data[1] & 0x80:
            frame = RtuFrame(t_s, data, "exception")
            self._asked = None
        elif answers and asked is not None and self._is_reply(asked.data, data):
            frame = RtuFrame(t_s, data, "reply")
            self._decode(asked.data, frame)
            self._asked = None
        elif data[1] <= 4 and len(data) != REQUEST_BYTES:  # no request to read looks like this
            frame = RtuFrame(t_s, data, "reply")
        else:
            frame = RtuFrame(t_s, data, "request")
            self._asked = frame
        frame.device = self.devices[data[0]][0] if data[0] in self.devices else ""
        return frame

    @staticmethod
    def _is_reply(asked: bytes, data: bytes) -> bool:
        if data[1] in (3, 4):
            return len(data) == 5 + 2 * int.from_bytes(asked[4:6], "big")
        if data[1] in (1, 2):
            return len(data) == 5 + (int.from_bytes(asked[4:6], "big") + 7) // 8
        return data[2:6] == asked[2:6]

    def _decode(self, asked: bytes, frame: RtuFrame) -> None:
        if frame.data[0] not in self.devices or frame.function not in (3, 4):
            return
        words = [int.from_bytes(frame.data[i : i + 2], "big") for i in range(3, len(frame.data) - 2, 2)]
        frame.values = values_in(
            self.devices[frame.data[0]][1], frame.function, int.from_bytes(asked[2:4], "big"), words
        )


def values_in(found: DeviceMap, function: int, first: int, words: list[int]) -> dict[str, float | None]:
    """Point -> value for every point that these registers hold whole; None = not believable.

    A value with a scale factor is one only beside the factor of the same reply; without it the point is left out.
    """
    factors: dict[str, int] = {}
    values = {}

    def held_by(one: Point) -> list[int] | None:
        offset = (one.address or 0) - first
        return words[offset : offset + one.words] if 0 <= offset <= len(words) - one.words else None

    for named in sorted(found.point, key=lambda p: bool(p.sf)):
        point = told_by(named, held_by)
        if point.function != function or point.address is None:
            continue
        offset = point.address - first
        if offset < 0 or offset + point.words > len(words):
            continue
        held = words[offset : offset + point.words]
        if point.type == "sunssf":
            factors[point.name] = held[0] - 65536 if held[0] > 32767 else held[0]
        if not point.sf:
            values[point.name] = decode_registers(point, held)
        elif point.sf in factors:
            values[point.name] = decode_registers(point, held, factors[point.sf])
    return values


def decode_message(
    message: can.Message, devices: list[tuple[str, int, DeviceMap]]
) -> tuple[str, dict[str, float | None]]:
    """(device, values) of a CAN frame; ("", {}) for a foreign one. devices: (name, id offset, map)."""
    for name, offset, found in devices:
        frame = frame_of(found, message.arbitration_id, message.is_extended_id, offset)
        if frame is not None:
            return name, decode_frame(frame, bytes(message.data))
    return "", {}


class PcapWriter:
    """A pcap file, microsecond stamps. link: one of the LINKTYPE numbers above."""

    def __init__(self, out: BinaryIO, link: int) -> None:
        self._out = out
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link))

    def write(self, t_s: float, data: bytes) -> None:
        """Append one frame."""
        seconds = int(t_s)
        self._out.write(struct.pack("<IIII", seconds, int((t_s - seconds) * 1e6), len(data), len(data)) + data)


def line_packet(frame: bytes) -> bytes:
    """A frame of a protocol that Wireshark does not know, as an exported PDU: it is shown as bytes."""
    tags = [(12, b"data"), (0, b"")]
    return b"".join(struct.pack(">HH", tag, len(value)) + value for tag, value in tags) + frame


def rtu_packet(frame: bytes, asks: bool) -> bytes:
    """A Modbus RTU frame as an exported PDU, CRC included: Wireshark decodes it without being told how."""
    ports = (MASTER_PORT, MODBUS_PORT) if asks else (MODBUS_PORT, MASTER_PORT)
    tags = [
        (12, b"mbrtu\0\0\0"),
        (24, struct.pack(">I", 2)),
        *((25 + i, struct.pack(">I", n)) for i, n in enumerate(ports)),
    ]
    return b"".join(struct.pack(">HH", tag, len(value)) + value for tag, value in [*tags, (0, b"")]) + frame


def can_packet(message: can.Message) -> bytes:
    """The frame as LINKTYPE_CAN_SOCKETCAN wants it: identifier high byte first."""
    ident = message.arbitration_id | (0x80000000 if message.is_extended_id else 0)
    ident |= (0x40000000 if message.is_remote_frame else 0) | (0x20000000 if message.is_error_frame else 0)
    return struct.pack(">IBBBB", ident, len(message.data), 0, 0, 0) + bytes(message.data)


def write_candump(out: TextIO, message: can.Message, name: str) -> None:
    """Append one line in the form of `candump -L`."""
    ident = f"{message.arbitration_id:08X}" if message.is_extended_id else f"{message.arbitration_id:03X}"
    body = "R" if message.is_remote_frame else bytes(message.data).hex().upper()
    out.write(f"({message.timestamp:.6f}) {name} {ident}#{body}\n")
