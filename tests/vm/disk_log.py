"""Every write of a disk in order, as QEMU's blklogwrites keeps them, and the disk that a loss of power then leaves.

The format is the kernel's dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst): a superblock, then an
entry a write, a flush or a discard, each in a sector of its own before its data.
"""

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SECTOR = 512
MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD = 1, 2, 4
# What a disk still does with what it was given and not told to keep: everything is kept, all of it is lost, each write
# is kept or lost, each sector of a write is.
LOSSES = ("kept", "lost", "some", "torn")


class LogError(ValueError):
    """A file that is no log of a disk's writes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One write. at : place of its data in the log; at_disk : byte of the disk; bytes : 0 = a flush alone."""

    at: int
    at_disk: int
    bytes: int
    flags: int


def entries(log: BinaryIO) -> list[Entry]:
    """All whole entries of a log, oldest first; one that its machine did not end with is left out. Raises LogError."""
    log.seek(0, 2)
    end = log.tell()
    log.seek(0)
    head = log.read(SECTOR)
    if len(head) < SECTOR or struct.unpack_from("<Q", head)[0] != MAGIC:
        raise LogError("not a log of a disk's writes")
    (sector,) = struct.unpack_from("<I", head, 24)
    found, at = [], sector
    while at + sector <= end:
        log.seek(at)
        first, sectors, flags, _ = struct.unpack("<QQQQ", log.read(32))
        size = 0 if flags & DISCARD else sectors * sector
        if at + sector + size > end or not (sectors or flags):
            break
        found.append(Entry(at + sector, first * sector, sectors * sector, flags))
        at += sector + size
    return found


class Disk:
    """A disk image and its log, brought forward. durable : entries that the image holds for good."""

    def __init__(self, image: Path, log: Path) -> None:
        self._image, self._log = image.open("r+b"), log.open("rb")
        self.entries = entries(self._log)
        self.durable = 0

    def close(self) -> None:
        self._image.close()
        self._log.close()

    def data(self, entry: Entry) -> bytes:
        if entry.flags & DISCARD:
            return bytes(entry.bytes)
        self._log.seek(entry.at)
        return self._log.read(entry.bytes)

    def bring_to(self, cut: int) -> list[Entry]:
        """Write everything before the last flush before entry `cut`. -> the entries after it, which may be lost."""
        last = max((n for n in range(self.durable, cut) if self.entries[n].flags & FLUSH), default=None)
        if last is not None:
            for entry in self.entries[self.durable : last + 1]:
                self._put(self._image, entry.at_disk, self.data(entry))
            self._image.flush()
            self.durable = last + 1
        return self.entries[self.durable : cut]

    @staticmethod
    def _put(image: BinaryIO, at: int, data: bytes) -> None:
        image.seek(at)
        image.write(data)

    def leave(self, copy: Path, waiting: list[Entry], loss: str, rng: random.Random) -> int:
        """Into a copy of the image goes what the disk kept of `waiting`. -> sectors that it lost."""
        lost = 0
        with copy.open("r+b") as image:
            for entry in waiting:
                for at, data in self._parts(entry, loss):
                    kept = entry.flags & FUA or loss == "kept" or (loss != "lost" and rng.random() < 0.5)
                    if kept:
                        self._put(image, at, data)
                    else:
                        lost += len(data) // SECTOR
        return lost

    def _parts(self, entry: Entry, loss: str) -> Iterator[tuple[int, bytes]]:
        data = self.data(entry)
        step = SECTOR if loss == "torn" else max(1, len(data))
        for place in range(0, len(data), step):
            yield entry.at_disk + place, data[place : place + step]
