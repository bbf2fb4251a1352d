"""Append-only journal: what was said to be durable is found again after any crash, and damage is never taken for data.

A stream is a row of segment files. Each begins with a header (stream, number, boot id, first sequence, last chain
value of the segment before it) and holds records of one boot:

    magic "TGR1" | length | CRC-32 | chain (16 bytes) | boot (16) | seq | utc_ns | source | payload

The CRC is seeded with the header's own, so that a block left over from a deleted file is not taken for a record here.
The chain value is SHA-256 over the one before and the record; its first 16 bytes are stored, and the next header holds
all 32 of the last, so that nothing can be taken out, put in or changed without the rest of the stream being written
anew.

`append` only buffers. `sync` writes, syncs to the disk and returns what is durable from then on: nothing may be
published before. After a failed write or sync the file is given up (a kernel may have dropped the dirty pages and
report success the next time) and the same records go to a new segment; the reader skips what it saw before.
"""

import contextlib
import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from tidegate.runtime.state.process_users import shared_mode

HEADER = struct.Struct(
    "<4sI8sQ16sQ32sq"
)  # magic, crc of the rest, stream, number, boot, first seq, chain before, utc_ns
RECORD = struct.Struct("<4sII16s")  # magic, length of body, crc, chain
BODY = struct.Struct("<16sQqq")  # boot, seq, utc_ns, source
SEGMENT_MAGIC = b"TGJ1"
RECORD_MAGIC = b"TGR1"
BODY_MAX = 1 << 20
CHUNK = 1 << 16
SPARSE = 64  # one remembered offset for so many records


class Files(Protocol):
    """What the journal needs of a file system; the tests put one in that tears, loses and reorders writes."""

    def names(self, folder: Path) -> list[str]: ...
    def size(self, path: Path) -> int: ...
    def read(self, path: Path, offset: int, count: int) -> bytes: ...
    def create(self, path: Path) -> int: ...
    def write(self, handle: int, data: bytes) -> None: ...
    def sync(self, handle: int) -> None: ...
    def close(self, handle: int) -> None: ...
    def truncate(self, path: Path, size: int) -> None: ...
    def remove(self, path: Path) -> None: ...
    def sync_folder(self, folder: Path) -> None: ...


class DiskFiles:
    """The real file system."""

    def names(self, folder: Path) -> list[str]:
        return os.listdir(folder)

    def size(self, path: Path) -> int:
        return os.stat(path).st_size

    def read(self, path: Path, offset: int, count: int) -> bytes:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return os.pread(fd, count, offset)
        finally:
            os.close(fd)

    def create(self, path: Path) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(path, flags, shared_mode(path.parent))

    def write(self, handle: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]

    def sync(self, handle: int) -> None:
        os.fdatasync(handle)

    def close(self, handle: int) -> None:
        os.close(handle)

    def truncate(self, path: Path, size: int) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.ftruncate(fd, size)
            os.fsync(fd)
        finally:
            os.close(fd)

    def remove(self, path: Path) -> None:
        os.unlink(path)

    def sync_folder(self, folder: Path) -> None:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


class Record(NamedTuple):
    """One journaled record; `source` is the number in the core's ring, -1 for what the gateway says itself."""

    boot: bytes
    seq: int
    utc_ns: int
    source: int
    payload: bytes


@dataclass
class Segment:
    path: Path
    number: int
    boot: bytes
    first_seq: int
    utc_ns: int
    seed: int  # CRC of the header, which seeds that of every record
    chain: bytes  # before the first record
    previous: bytes
    sparse: list[tuple[int, int]] = field(default_factory=list)  # (seq, offset), every SPARSE records


@dataclass
class Damage:
    """Something in the journal that is not what was written."""

    path: Path
    offset: int
    size: int
    what: str
    repaired: bool

    def __str__(self) -> str:
        done = "cut off" if self.repaired else "left in place, skipped"
        return f"{self.path.name}: {self.what} at byte {self.offset}, {self.size} bytes {done}"


def _chained(chain: bytes, body: bytes) -> bytes:
    return hashlib.sha256(chain + body).digest()


class Journal:
    """One stream of records on disk. One thread writes; `after` may be called from another one.

    folder : existing folder of the site's journal.
    stream : at most 8 characters, begins the file names.
    """

    def __init__(self, folder: Path, stream: str, *, files: Files | None = None, segment_bytes: int = 4 << 20) -> None:
        if not 1 <= len(stream.encode()) <= 8:
            raise ValueError(f"stream name {stream!r}: 1 to 8 bytes expected")
        self.folder = folder
        self.stream = stream
        self.files: Files = files or DiskFiles()
        self.segment_bytes = segment_bytes
        self.segments: list[Segment] = []
        self.damages: list[Damage] = []
        self.last: dict[bytes, tuple[int, int]] = {}  # boot -> newest durable (seq, source)
        self.bytes_total = 0
        self.records_lost_max = 0  # so many may stand where the disk gives nothing
        self._unreadable: set[Path] = set()
        self._pending: list[Record] = []
        self._handle = -1
        self._writing: Segment | None = None  # the newest segment, once this process has begun it
        self._size = 0
        self._chain = bytes(32)
        self._count = 0
        self._open()

    # ---- start ----

    def _open(self) -> None:
        try:
            names = self.files.names(self.folder)
        except OSError as why:
            self.damages.append(Damage(self.folder, 0, 0, f"folder that cannot be read ({why.strerror})", False))
            return
        for name in sorted(n for n in names if n.startswith(f"{self.stream}-") and n.endswith(".seg")):
            path = self.folder / name
            try:
                self._open_segment(path)
            except OSError as why:
                self._cannot_read(path, 0, why)
        if self.segments:
            self._mend(self.segments[-1])
        for boot in {s.boot for s in self.segments}:
            self._find_end(boot)

    def _open_segment(self, path: Path) -> None:
        segment, size = self._header(path), self.files.size(path)
        if segment is not None:
            self.segments.append(segment)
            self.bytes_total += size
            return
        # Nothing that was durable can be in it: header and records are synced together.
        broken = size >= HEADER.size + RECORD.size
        self.damages.append(Damage(path, 0, size, "segment without a whole header", not broken))
        if not broken:
            with contextlib.suppress(OSError):
                self.files.remove(path)

    def _cannot_read(self, path: Path, offset: int, why: OSError) -> None:
        """Note a segment that the disk does not give; what stands there is left alone, and the numbers go on behind."""
        if path in self._unreadable:
            return
        self._unreadable.add(path)
        size = self.segment_bytes
        with contextlib.suppress(OSError):
            size = self.files.size(path)
        self.records_lost_max += max(0, size - offset) // (RECORD.size + BODY.size) + 1
        self.damages.append(Damage(path, offset, size - offset, f"segment that cannot be read ({why.strerror})", False))

    def _header(self, path: Path) -> Segment | None:
        raw = self.files.read(path, 0, HEADER.size)
        if len(raw) < HEADER.size:
            return None
        magic, crc, stream, number, boot, first_seq, previous, utc_ns = HEADER.unpack(raw)
        if magic != SEGMENT_MAGIC or crc != zlib.crc32(raw[8:]) or stream.rstrip(b"\0") != self.stream.encode():
            return None
        if path.name != self._name(number):
            return None
        return Segment(path, number, boot, first_seq, utc_ns, crc, hashlib.sha256(raw).digest(), previous)

    def _name(self, number: int) -> str:
        return f"{self.stream}-{number:010d}.seg"

    def _mend(self, segment: Segment) -> None:
        """Read the last segment whole; cut a torn tail off, and leave damage with good records behind it in place."""
        end = HEADER.size
        for offset, record, bad in self._walk(segment, HEADER.size):
            if record is None:
                self.damages.append(Damage(segment.path, offset, bad, "records that are not whole", False))
            else:
                end = offset + RECORD.size + BODY.size + len(record.payload)
        try:
            size = self.files.size(segment.path)
        except OSError as why:
            self._cannot_read(segment.path, end, why)
        if segment.path in self._unreadable:
            return  # what the disk does not give is no torn tail
        if end < size:
            if self.damages and self.damages[-1].path == segment.path and self.damages[-1].offset >= end:
                self.damages.pop()
            try:
                self.files.truncate(segment.path, end)
            except OSError:  # read-only: what comes next starts a segment of its own, and readers skip the tail
                self.damages.append(Damage(segment.path, end, size - end, "torn tail", False))
                return
            self.damages.append(Damage(segment.path, end, size - end, "torn tail", True))
            self.bytes_total -= size - end

    def _find_end(self, boot: bytes) -> None:
        newest = [s for s in self.segments if s.boot == boot][-1]
        seq, source = newest.first_seq - 1, -1
        for segment in reversed([s for s in self.segments if s.boot == boot]):
            for _, record, _ in self._walk(segment, HEADER.size):
                if record is not None:
                    seq = max(seq, record.seq)
                    source = max(source, record.source)
            if source >= 0:
                break  # segments that hold only what the gateway says itself tell nothing about the core's ring
        if seq >= 0:
            self.last[boot] = (seq, source)
        else:
            self.last.pop(boot, None)

    # ---- reading ----

    def _walk(self, segment: Segment, offset: int) -> Iterator[tuple[int, Record | None, int]]:
        """Give (offset, record, 0), or (offset, None, bytes) for a stretch that is not whole records."""
        raw = b""
        base = offset
        bad_from = -1
        exhausted = False

        def have(at: int, count: int) -> bool:
            nonlocal raw, exhausted
            while not exhausted and at + count > base + len(raw):
                try:
                    more = self.files.read(segment.path, base + len(raw), max(CHUNK, at + count - base - len(raw)))
                except OSError as why:
                    self._cannot_read(segment.path, base + len(raw), why)
                    more = b""
                exhausted = not more
                raw += more
            return at + count <= base + len(raw)

        while True:
            if offset - base > CHUNK:
                raw, base = raw[offset - base :], offset
            record, size = None, 0
            if have(offset, RECORD.size):
                magic, length, crc, chain = RECORD.unpack_from(raw, offset - base)
                if magic == RECORD_MAGIC and BODY.size <= length <= BODY_MAX and have(offset, RECORD.size + length):
                    body = raw[offset - base + RECORD.size : offset - base + RECORD.size + length]
                    if crc == record_crc(segment.seed, length, chain, body):
                        boot, seq, utc_ns, source = BODY.unpack_from(body)
                        record, size = Record(boot, seq, utc_ns, source, body[BODY.size :]), RECORD.size + length
            if record is not None:
                if bad_from >= 0:
                    yield bad_from, None, offset - bad_from
                    bad_from = -1
                yield offset, record, 0
                offset += size
                continue
            # Not a record: look for the next magic behind here.
            if not have(offset, 1):
                break
            if bad_from < 0:
                bad_from = offset
            offset += 1
            while True:
                found = raw.find(RECORD_MAGIC, offset - base)
                if found >= 0:
                    offset = base + found
                    break
                offset = max(offset, base + len(raw) - len(RECORD_MAGIC) + 1)
                if not have(offset, len(RECORD_MAGIC)):
                    offset = base + len(raw)
                    break
        if bad_from >= 0:
            yield bad_from, None, offset - bad_from

    def after(self, boot: bytes | None, seq: int, count: int, bytes_max: int = 512 << 10) -> tuple[list[Record], bool]:
        """Give up to `count` durable records behind (boot, seq), oldest first, and whether that was all there is.

        boot None starts at the oldest record held. Raises KeyError if no segment of that boot is held any more.
        """
        segments = list(self.segments)
        durable = dict(self.last)
        if boot is None:
            start = 0
        else:
            mine = [i for i, s in enumerate(segments) if s.boot == boot]
            if not mine:
                raise KeyError(boot.hex())
            start = max([i for i in mine if segments[i].first_seq <= seq + 1], default=mine[0])
        found: list[Record] = []
        size = 0
        seen = seq
        seen_boot = boot
        for segment in segments[start:]:
            offset = HEADER.size
            if segment.boot == seen_boot:
                offset = max((o for s, o in list(segment.sparse) if s <= seen + 1), default=HEADER.size)
            number = 0
            for at, record, _ in self._walk(segment, offset):
                if record is None:
                    continue
                if offset == HEADER.size and number % SPARSE == 0 and number // SPARSE == len(segment.sparse):
                    segment.sparse.append((record.seq, at))
                number += 1
                if record.boot == seen_boot and record.seq <= seen:
                    continue
                if record.boot not in durable or record.seq > durable[record.boot][0]:
                    break  # written, but not yet synced
                if len(found) >= count or size >= bytes_max:
                    return found, False
                found.append(record)
                size += len(record.payload)
                seen_boot, seen = record.boot, record.seq
        return found, True

    def oldest(self) -> tuple[bytes, int] | None:
        """Give (boot, seq) of the oldest record that is held."""
        return (self.segments[0].boot, self.segments[0].first_seq) if self.segments else None

    def verify(self) -> list[str]:
        """Read everything and give what does not fit: damaged records and broken links of the chain."""
        problems = []
        before: bytes | None = None
        for segment in self.segments:
            if before is not None and segment.previous != before:
                problems.append(f"{segment.path.name}: does not continue the segment before it")
            chain = segment.chain
            for offset, record, bad in self._walk(segment, HEADER.size):
                if record is None:
                    problems.append(f"{segment.path.name}: {bad} bytes at {offset} are not whole records")
                    continue
                body = BODY.pack(*record[:4]) + record.payload
                chain = _chained(chain, body)
                stored = self.files.read(segment.path, offset + 12, 16)
                if stored != chain[:16]:
                    problems.append(
                        f"{segment.path.name}: chain broken at byte {offset} "
                        f"(boot {record.boot.hex()[:8]}, seq {record.seq})"
                    )
                    break
            before = chain
        return problems

    # ---- writing ----

    def append(self, record: Record) -> None:
        """Take a record in; it is durable once `sync` has returned it."""
        if len(record.payload) + BODY.size > BODY_MAX:
            raise ValueError(f"record of {len(record.payload)} bytes, at most {BODY_MAX - BODY.size}")
        self._pending.append(record)

    @property
    def pending(self) -> int:
        return len(self._pending)

    def sync(self) -> list[Record]:
        """Write what is pending, make it durable and give it back in order. Raises OSError; all stays pending then."""
        if not self._pending:
            return []
        done: list[Record] = []
        while self._pending:
            boot = self._pending[0].boot
            batch = []
            for record in self._pending:
                if record.boot != boot:
                    break
                batch.append(record)
            self._write(batch)
            del self._pending[: len(batch)]
            done += batch
        return done

    def _write(self, batch: list[Record]) -> None:
        try:
            if self._handle >= 0 and (self.segments[-1].boot != batch[0].boot or self._size >= self.segment_bytes):
                self._close()
            if self._handle < 0:
                self._start(batch[0])
            segment = self.segments[-1]
            chain, size, count = self._chain, self._size, self._count
            sparse = []
            pieces = []
            for record in batch:
                body = BODY.pack(*record[:4]) + record.payload
                chain = _chained(chain, body)
                if count % SPARSE == 0:
                    sparse.append((record.seq, size))
                pieces.append(
                    RECORD.pack(
                        RECORD_MAGIC, len(body), record_crc(segment.seed, len(body), chain[:16], body), chain[:16]
                    )
                )
                pieces.append(body)
                size += RECORD.size + len(body)
                count += 1
            self.files.write(self._handle, b"".join(pieces))
            self.files.sync(self._handle)
        except OSError:
            self._abandon()
            raise
        self.bytes_total += size - self._size
        self._chain, self._size, self._count = chain, size, count
        segment.sparse += sparse
        newest_seq, newest_source = self.last.get(batch[0].boot, (-1, -1))
        self.last[batch[0].boot] = (
            max(newest_seq, batch[-1].seq),
            max([newest_source, *(record.source for record in batch)]),
        )

    def take_back(self) -> list[Record]:
        """Give what is pending and forget it; for the caller that bounds what is held while the disk fails."""
        pending, self._pending = self._pending, []
        return pending

    def _start(self, first: Record) -> None:
        taken = [
            int(n[len(self.stream) + 1 : -4])
            for n in self.files.names(self.folder)
            if n.startswith(f"{self.stream}-") and n.endswith(".seg") and n[len(self.stream) + 1 : -4].isdigit()
        ]
        number = max(taken, default=-1) + 1
        path = self.folder / self._name(number)
        rest = struct.pack(
            "<8sQ16sQ32sq", self.stream.encode(), number, first.boot, first.seq, self._end_chain(), first.utc_ns
        )
        raw = struct.pack("<4sI", SEGMENT_MAGIC, zlib.crc32(rest)) + rest
        self._handle = self.files.create(path)
        segment = Segment(
            path,
            number,
            first.boot,
            first.seq,
            first.utc_ns,
            zlib.crc32(rest),
            hashlib.sha256(raw).digest(),
            self._chain,
        )
        self.segments.append(segment)
        self._writing = segment
        self._chain, self._size, self._count = segment.chain, HEADER.size, 0
        self.bytes_total += HEADER.size
        self.files.write(self._handle, raw)
        self.files.sync_folder(self.folder)

    def _end_chain(self) -> bytes:
        """Last chain value of the newest segment, read back if this process did not write it."""
        if not self.segments or self._count:
            return self._chain
        segment = self.segments[-1]
        chain = segment.chain
        for _, record, _ in self._walk(segment, HEADER.size):
            if record is not None:
                chain = _chained(chain, BODY.pack(*record[:4]) + record.payload)
        self._chain = chain
        return chain

    def _close(self) -> None:
        if self._handle >= 0:
            handle, self._handle = self._handle, -1
            self.files.close(handle)

    def _abandon(self) -> None:
        """Give the file up after an error; what it holds that was durable stays, the rest is cut off if that works."""
        with contextlib.suppress(OSError):
            self._close()
        segment = self._writing
        if segment is None:
            return  # nothing was begun: what stands there is from before, and durable
        self._writing = None
        keep = self._size if self._count else 0
        with contextlib.suppress(OSError):
            if keep:
                self.files.truncate(segment.path, keep)
            else:
                self.files.remove(segment.path)
        if not keep:
            self.segments.pop()
            self.bytes_total -= HEADER.size
            self._chain = segment.previous

    def drop_oldest(self) -> Segment | None:
        """Remove the oldest segment, never the one that is being written. Gives what was removed."""
        if len(self.segments) < 2:
            return None
        segment = self.segments[0]
        size = 0
        with contextlib.suppress(OSError):
            size = self.files.size(segment.path)
        self.files.remove(segment.path)
        self.segments = self.segments[1:]
        self.bytes_total -= size
        if all(s.boot != segment.boot for s in self.segments):
            self.last.pop(segment.boot, None)
        return segment

    def records(self, segment: Segment) -> Iterator[Record]:
        """Give every whole record of one segment."""
        for _, record, _ in self._walk(segment, HEADER.size):
            if record is not None:
                yield record

    def close(self) -> None:
        """Close the file; records that were never synced are lost, as they were never acknowledged."""
        with contextlib.suppress(OSError):
            self._close()


def record_crc(seed: int, length: int, chain: bytes, body: bytes) -> int:
    """The checksum by which a record is found whole. seed : the CRC of its segment's header."""
    return zlib.crc32(body, zlib.crc32(struct.pack("<I", length) + chain, seed))
