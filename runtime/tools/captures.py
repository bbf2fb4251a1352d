"""Captures of buses, as files of others have them: candump, pcap and pcapng, logs of RTU bytes in hexadecimal.

A capture is what somebody else saw: it may be cut, mixed, or no capture at all. What cannot be read is said with its
place.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LINK_NULL, LINK_ETHERNET, LINK_RAW, LINK_SLL, LINK_USER0 = 0, 1, 101, 113, 147
LINK_CAN, LINK_UPPER, LINK_SLL2 = 227, 252, 276
FILE_BYTES_MAX = 1 << 30
PACKET_MAX = 1 << 18


class CaptureError(Exception):
    """A file that is no capture, or that breaks off in the middle of one."""


@dataclass(frozen=True)
class CanFrame:
    """One frame of a CAN bus. bus: as the capture names it, "" where it does not."""

    t_s: float
    bus: str
    ident: int
    extended: bool
    data: bytes
    special: str = ""
    """"remote" or "error" for what carries no data."""


@dataclass(frozen=True)
class SerialBytes:
    """Bytes of a serial line. whole: they are one frame as whoever captured them cut it."""

    t_s: float
    data: bytes
    whole: bool


@dataclass(frozen=True)
class TcpBytes:
    """What one side of a connection said: `stream` is (from, to, ports) in this direction."""

    t_s: float
    stream: tuple[str, int, str, int]
    seq: int
    data: bytes
    begins: bool


Item = CanFrame | SerialBytes | TcpBytes


def read_capture(path: Path) -> Iterator[Item]:
    """What a capture holds, in its order. Raises CaptureError with the place, OSError for what cannot be read."""
    with path.open("rb") as file:
        head = file.read(4)
    if path.stat().st_size > FILE_BYTES_MAX:
        raise CaptureError("is larger than 1 GiB; cut it with editcap")
    if head in (b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d"):
        return _pcap(path.read_bytes())
    if head == b"\x0a\x0d\x0d\x0a":
        return _pcapng(path.read_bytes())
    try:
        return _text(path.read_text(encoding="utf-8").splitlines())
    except UnicodeDecodeError:
        raise CaptureError(
            "is no pcap and no text; expected candump -L, pcap, pcapng, or lines of hexadecimal"
        ) from None


# ---- pcap ----


def _pcap(data: bytes) -> Iterator[Item]:
    order = "<" if data[:1] in (b"\xd4", b"\x4d") else ">"
    per_s = 1e9 if b"\x3c" in data[:4] else 1e6
    if len(data) < 24:
        raise CaptureError("breaks off in its first 24 bytes")
    link = struct.unpack(f"{order}I", data[20:24])[0] & 0xFFFF
    at = 24
    while at < len(data):
        if at + 16 > len(data):
            raise CaptureError(f"breaks off at byte {at}, in the head of a packet")
        seconds, parts, size, _ = struct.unpack(f"{order}IIII", data[at : at + 16])
        if size > PACKET_MAX or at + 16 + size > len(data):
            raise CaptureError(f"breaks off at byte {at}: a packet of {size} bytes")
        yield from _packet(link, seconds + parts / per_s, data[at + 16 : at + 16 + size])
        at += 16 + size


def _pcapng(data: bytes) -> Iterator[Item]:
    order, at = "<", 0
    links: list[tuple[int, float]] = []
    while at + 12 <= len(data):
        kind = struct.unpack(f"{order}I", data[at : at + 4])[0]
        if kind == 0x0A0D0D0A:  # a section has an order of its own, and interfaces
            order = "<" if data[at + 8 : at + 12] == b"\x4d\x3c\x2b\x1a" else ">"
            links = []
        size = struct.unpack(f"{order}I", data[at + 4 : at + 8])[0]
        if size < 12 or size % 4 or at + size > len(data):
            raise CaptureError(f"breaks off at byte {at}: a block of {size} bytes")
        body = data[at + 8 : at + size - 4]
        if kind == 1:
            links.append((struct.unpack(f"{order}H", body[:2])[0], _per_s(order, body[8:])))
        elif kind == 6 and len(body) >= 20:
            number, high, low, length = struct.unpack(f"{order}IIII", body[:16])
            if number >= len(links) or 20 + length > len(body):
                raise CaptureError(f"breaks off at byte {at}: a packet of an interface that is not described")
            link, per_s = links[number]
            yield from _packet(link, (high << 32 | low) / per_s, body[20 : 20 + length])
        at += size
    if at != len(data):
        raise CaptureError(f"breaks off at byte {at}")


def _per_s(order: str, options: bytes) -> float:
    at = 0
    while at + 4 <= len(options):
        code, length = struct.unpack(f"{order}HH", options[at : at + 4])
        if code == 9 and length:
            exponent = options[at + 4]
            return float(2 ** (exponent & 0x7F) if exponent & 0x80 else 10**exponent)
        at += 4 + length + -length % 4
    return 1e6


def _packet(link: int, t_s: float, data: bytes) -> Iterator[Item]:
    if link == LINK_CAN and len(data) >= 8:
        word, size = struct.unpack(">IB", data[:5])
        special = "error" if word & 0x20000000 else "remote" if word & 0x40000000 else ""
        yield CanFrame(t_s, "", word & 0x1FFFFFFF, bool(word >> 31), data[8 : 8 + size], special)
    elif link == LINK_USER0:
        yield SerialBytes(t_s, data, True)
    elif link == LINK_UPPER:
        yield SerialBytes(t_s, _upper(data), True)
    else:
        skip = {LINK_NULL: 4, LINK_ETHERNET: 14, LINK_RAW: 0, LINK_SLL: 16, LINK_SLL2: 20}.get(link)
        if skip is None:
            raise CaptureError(f"holds packets of link type {link}: no CAN, no serial line, no network")
        if link == LINK_ETHERNET and data[12:14] == b"\x81\x00":
            skip += 4
        yield from _ip(t_s, data[skip:])


def _upper(data: bytes) -> bytes:
    """The frame behind the tags of an exported PDU."""
    at = 0
    while at + 4 <= len(data):
        tag, length = struct.unpack(">HH", data[at : at + 4])
        at += 4 + length
        if tag == 0:
            return data[at:]
    return b""


def _ip(t_s: float, data: bytes) -> Iterator[Item]:
    if len(data) >= 20 and data[0] >> 4 == 4 and data[9] == 6:
        head, size = 4 * (data[0] & 15), int.from_bytes(data[2:4])
        source, target = (".".join(map(str, data[i : i + 4])) for i in (12, 16))
    elif len(data) >= 40 and data[0] >> 4 == 6 and data[6] == 6:
        head, size = 40, 40 + int.from_bytes(data[4:6])
        source, target = (data[i : i + 16].hex(":", 2) for i in (8, 24))
    else:
        return
    tcp = data[head : size or None]  # behind it an Ethernet frame may have padding
    if len(tcp) < 20:
        return
    from_port, to_port, seq = struct.unpack(">HHI", tcp[:8])
    payload, flags = tcp[4 * (tcp[12] >> 4) :], tcp[13]
    if payload or flags & 2:
        yield TcpBytes(t_s, (source, from_port, target, to_port), seq, payload, bool(flags & 2))


# ---- text ----

CANDUMP = re.compile(
    r"""\s*(?:\((?P<t>[\d.]+)\)\s*)?(?P<bus>[A-Za-z]\S*)\s+(?:(?:RX|TX)\s+\S+\s+)?
    (?P<id>[0-9A-Fa-f]{8}|[0-9A-Fa-f]{3})
    (?: \#(?P<fd>\#[0-9A-Fa-f])?(?P<packed>[0-9A-Fa-f]*|R\d?)
      | \s+\[(?P<size>\d+)\]\s*(?P<spaced>remote\ request|(?:[0-9A-Fa-f]{2}\s*)*) )
    \s*(?:'.*)?$""",
    re.VERBOSE,
)
HEX_LINE = re.compile(
    r"""(?P<head>.*?)
    (?P<bytes>\b(?:(?:0x)?[0-9A-Fa-f]{2}[ ,:-]+){3,}(?:0x)?[0-9A-Fa-f]{2}|\b(?:[0-9A-Fa-f]{2}){4,})
    \s*$""",
    re.VERBOSE,
)
STAMP = re.compile(r"\d+\.\d+")


def _text(lines: list[str]) -> Iterator[Item]:
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith(("#", "//", ";")):
            continue
        if found := CANDUMP.match(line):
            yield _candump(found, number)
        elif found := HEX_LINE.match(line):
            stamp = STAMP.search(found["head"])
            digits = re.sub(r"0x|[^0-9A-Fa-f]", "", found["bytes"])
            yield SerialBytes(float(stamp[0]) if stamp else 0.0, bytes.fromhex(digits), True)
        elif "'" not in line and not re.search(r"[=,]\s*-?[\d.]+|invalid|[A-Za-z_]{3,}", line):
            raise CaptureError(f"line {number}: {line.strip()[:60]!r} is neither a CAN frame nor bytes in hexadecimal")


def _candump(found: re.Match[str], number: int) -> CanFrame:
    body = found["packed"] if found["packed"] is not None else found["spaced"] or ""
    extended = len(found["id"]) == 8
    word = int(found["id"], 16)
    special = "remote" if body.startswith(("R", "remote")) else "error" if extended and word & 0x20000000 else ""
    digits = "" if special == "remote" else re.sub(r"\s", "", body)
    if len(digits) % 2:
        raise CaptureError(f"line {number}: half a byte at the end of {body!r}")
    data = bytes.fromhex(digits)
    if found["size"] is not None and not special and int(found["size"]) != len(data):
        raise CaptureError(f"line {number}: says [{found['size']}], has {len(data)} bytes")
    return CanFrame(float(found["t"] or 0.0), found["bus"], word & 0x1FFFFFFF, extended, data, special)
