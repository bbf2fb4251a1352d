"""Whether an MCAP file is whole: every byte of it stands under a checksum, and a bad one is named by its place."""

import mmap
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import zstandard

from tidegate.runtime.state.plain_file import open_plain

MAGIC = b"\x89MCAP0\r\n"
FOOTER, CHUNK, ATTACHMENT, DATA_END = 0x02, 0x06, 0x09, 0x0F
NAMES = {
    0x01: "header", FOOTER: "footer", 0x03: "schema", 0x04: "channel", 0x05: "message", CHUNK: "chunk",
    0x07: "message index", 0x08: "chunk index", ATTACHMENT: "attachment", 0x0A: "attachment index", 0x0B: "statistics",
    0x0C: "metadata", 0x0D: "metadata index", 0x0E: "summary offset", DATA_END: "end of the data",
}  # fmt: skip
HEAD = struct.Struct("<BQ")  # opcode, bytes behind
UNPACK: dict[bytes, Callable[[bytes, int], bytes]] = {  # of these our writer uses one
    b"": lambda packed, size: packed,
    b"zstd": lambda packed, size: zstandard.ZstdDecompressor().decompress(packed, max_output_size=size),
}


class RecordingError(ValueError):
    """A recording that cannot be written or read: which, why, and what to do."""


def check(path: Path) -> None:
    """Raise RecordingError where the file is damaged, cut off, or no MCAP file at all; OSError where there is none."""
    with open(open_plain(path), "rb") as file:
        if path.stat().st_size == 0:
            raise RecordingError(f"{path}: empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _Walk(path, data).whole()


class _Walk:
    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data

    def _bad(self, first: int, end: int, what: str) -> RecordingError:
        return RecordingError(f"{self.path}: damaged in bytes {first} to {end - 1}: {what}; take another copy")

    def whole(self) -> None:
        data, size = self.data, len(self.data)
        if data[:8] != MAGIC:
            raise RecordingError(f"{self.path}: no MCAP file, its first 8 bytes are {bytes(data[:8]).hex(' ')}")
        place, sum_, data_ended = 8, zlib.crc32(MAGIC), 0
        before = 8  # where the record in front begins: its length says where this one should
        while True:
            if place + HEAD.size > size:
                raise RecordingError(f"{self.path}: cut off behind byte {size - 1}, its end is missing")
            kind, length = HEAD.unpack_from(data, place)
            end = place + HEAD.size + length
            if kind not in NAMES or (end > size and kind == FOOTER):
                raise self._bad(before, place + HEAD.size, f"no record begins at byte {place}")
            if end > size:
                raise RecordingError(
                    f"{self.path}: damaged or cut off: the {NAMES[kind]} at byte {place} would end at byte {end}, "
                    f"the file has {size}; take another copy"
                )
            body = data[place + HEAD.size : end]
            if kind == CHUNK:
                self._chunk(place, end, body)
            elif kind == ATTACHMENT and (len(body) < 4 or zlib.crc32(body[:-4]) != _u32(body, len(body) - 4)):
                raise self._bad(place, end, "the checksum of an attachment does not agree")
            elif kind == DATA_END:
                if len(body) != 4 or _u32(body, 0) != sum_:
                    raise self._bad(
                        8, end, "the checksum of its data does not agree, outside of chunks and attachments"
                    )
                data_ended = end
            elif kind == FOOTER:
                self._footer(place, end, body, data_ended)
                return
            if not data_ended:
                sum_ = zlib.crc32(data[place:end], sum_)
            before, place = place, end

    def _chunk(self, place: int, end: int, body: bytes) -> None:
        when = ""
        try:
            first_ns, _, size, sum_, name_size = struct.unpack_from("<QQQII", body)
            name = body[32 : 32 + name_size]
            when = f", written from {_clock(first_ns)} UTC on"
            packed = body[40 + name_size :]
            if name in UNPACK and struct.unpack_from("<Q", body, 32 + name_size)[0] == len(packed):
                records = UNPACK[name](packed, size)
                if len(records) == size and zlib.crc32(records) == sum_:
                    return
        except (struct.error, zstandard.ZstdError, ValueError, MemoryError, OverflowError):
            pass
        raise self._bad(place, end, f"the checksum of a chunk{when} does not agree")

    def _footer(self, place: int, end: int, body: bytes, data_ended: int) -> None:
        if len(body) != 20:
            raise self._bad(place, end, "the footer has another length")
        summary, _, sum_ = struct.unpack("<QQI", body)
        if not data_ended or (summary and summary != data_ended):
            raise self._bad(data_ended or 8, end, "the summary is not where its footer says")
        if zlib.crc32(self.data[summary or place : end - 4]) != sum_:
            raise self._bad(summary or place, end, "the checksum of its summary does not agree")
        if self.data[end:] != MAGIC:
            raise self._bad(end, len(self.data), "the last 8 bytes are not those of an MCAP file")


def _u32(data: bytes, place: int) -> int:
    found: tuple[int] = struct.unpack_from("<I", data, place)
    return int(found[0])


def _clock(utc_ns: int) -> str:
    try:
        return time.strftime("%H:%M:%S", time.gmtime(utc_ns // 10**9))
    except (ValueError, OverflowError, OSError):
        return "an impossible time"
