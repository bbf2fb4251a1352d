"""A run of ledger entries on the wire: what a site sends and a hub takes.

A batch ends with a block, so that everything in it is signed. It is MessagePack, compressed: whoever reads it bounds
what it may unpack to.
"""

import hashlib
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import msgpack

VERSION = 1
UNPACKED_MAX = 64 << 20
LEDGER, ASK, MARK = "tidegate.ledger", "tidegate.ask", "tidegate.mark"
LIMIT, RELEASE, ENROL, ROTATE = "tidegate.limit", "tidegate.release", "tidegate.enrol", "tidegate.rotate"
CONDITION = "tidegate.condition"
STREAM = "LEDGERS"


class BatchError(ValueError):
    """Bytes that are no batch, in a sentence."""


class Row(NamedTuple):
    """An entry as its row has it. body : canonical JSON."""

    seq: int
    kind: str
    start_utc_s: int
    body: str
    hash: str


class Batch(NamedTuple):
    """Entries of one site, in order."""

    site: str
    rows: Sequence[Row]


def subject_word(site: str) -> str:
    """What stands for a site in subjects and in its login, whose letters are few. 80 bits: no two of a fleet meet."""
    return hashlib.sha256(site.encode()).hexdigest()[:20]


def pack(batch: Batch) -> bytes:
    return zlib.compress(msgpack.packb([VERSION, batch.site, [list(row) for row in batch.rows]]), 6)


def unpack(data: bytes) -> Batch:
    """The batch in a message. Raises BatchError for anything else, whatever its bytes."""
    inflate = zlib.decompressobj()
    try:
        raw = inflate.decompress(data, UNPACKED_MAX)
        if inflate.unconsumed_tail or not inflate.eof:
            raise BatchError(f"unpacks to more than {UNPACKED_MAX >> 20} MiB, or was cut")
        version, site, rows = msgpack.unpackb(raw, strict_map_key=True)
    except (zlib.error, ValueError, TypeError, msgpack.exceptions.UnpackException) as why:
        raise BatchError(f"no batch of entries ({why})") from None
    if version != VERSION:
        raise BatchError(f"version {version!r} of a batch, this hub knows {VERSION}; update the hub")
    if not isinstance(site, str) or not isinstance(rows, list) or not rows:
        raise BatchError("a batch without a site or without entries")
    return Batch(site, [_row(row) for row in rows])


def _row(row: object) -> Row:
    if (
        isinstance(row, list)
        and len(row) == len(Row._fields)
        and all(type(value) is kind for value, kind in zip(row, (int, str, int, str, str), strict=True))
        and 0 <= row[0] < 1 << 62
        and abs(row[2]) < 1 << 62
        and "\0" not in row[3]
        and len(row[1]) <= 16
        and len(row[4]) == 64
    ):
        return Row(*row)
    raise BatchError("a row that is no entry of a ledger")
