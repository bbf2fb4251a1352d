"""The event journal as an auditor reads it: every link of its chain made anew, nothing mended, nothing written.

Orders, logins, changes and refusals are events of the journal (`runtime/gateway/journal_writer.py`). The chain value of
a record is SHA-256 over the one before and the record; a segment begins with the last value of the one before it.
"""

import hashlib
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tidegate.runtime.state.journal import BODY, BODY_MAX, HEADER, RECORD, RECORD_MAGIC, SEGMENT_MAGIC, record_crc

STREAM = "event"


class Link(NamedTuple):
    """One record; `chain` : its chain value, 32 bytes."""

    segment: int
    number: int
    utc_ns: int
    chain: bytes
    payload: bytes


@dataclass
class Chain:
    """All records in order, and a line for everything that is not as it was written."""

    links: list[Link] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    first_segment: int = 0

    @property
    def end(self) -> bytes:
        """Chain value of the newest record; empty without one."""
        return self.links[-1].chain if self.links else b""


def read_chain(folder: Path, stream: str = STREAM) -> Chain:
    """Read a stream's segments. Raises OSError for a folder or file that cannot be read."""
    chain = Chain()
    before, last = b"", -1
    paths = sorted(folder.glob(f"{stream}-*.seg"))
    if not paths:
        chain.findings.append(f"{folder}: no segment of {stream}")
    for path in paths:
        raw = path.read_bytes()
        head = HEADER.unpack_from(raw) if len(raw) >= HEADER.size else None
        if head is None or head[0] != SEGMENT_MAGIC or head[1] != zlib.crc32(raw[8 : HEADER.size]):
            chain.findings.append(f"{path.name}: no whole header; what follows cannot be judged")
            before = b""
            continue
        number = head[3]
        if path.name != f"{stream}-{number:010d}.seg" or head[2].rstrip(b"\0") != stream.encode():
            chain.findings.append(f"{path.name}: says of itself that it is segment {number} of {head[2]!r}")
        if last < 0:
            chain.first_segment = number
        elif number != last + 1:
            chain.findings.append(f"segments {last + 1} to {number - 1} are missing")
        elif before and head[6] != before:
            chain.findings.append(
                f"{path.name}: begins behind another record than the last one before it (cut or changed)"
            )
        last = number
        before = _read_segment(path.name, raw, number, chain)
    return chain


def _read_segment(name: str, raw: bytes, number: int, chain: Chain) -> bytes:
    """Append a segment's records; its last chain value."""
    value, offset = hashlib.sha256(raw[: HEADER.size]).digest(), HEADER.size
    seed = zlib.crc32(raw[8 : HEADER.size])
    while offset < len(raw):
        whole = offset + RECORD.size <= len(raw)
        magic, length, crc, kept = RECORD.unpack_from(raw, offset) if whole else (b"", 0, 0, b"")
        body = raw[offset + RECORD.size : offset + RECORD.size + length]
        if magic != RECORD_MAGIC or not BODY.size <= length <= BODY_MAX or len(body) != length:
            chain.findings.append(f"{name}: no whole record at byte {offset}, {len(raw) - offset} bytes behind it")
            return value
        value = hashlib.sha256(value + body).digest()
        if value[:16] != kept:
            chain.findings.append(f"{name}: the record at byte {offset} is not the one that was written")
        elif crc != record_crc(seed, length, kept, body):
            # Its content is proved by the chain; but the journal goes by this and leaves such a record out.
            chain.findings.append(f"{name}: the checksum of the record at byte {offset} is not what was written")
        _, seq, utc_ns, _ = BODY.unpack_from(body)
        chain.links.append(Link(number, seq, utc_ns, value, body[BODY.size :]))
        offset += RECORD.size + length
    return value
