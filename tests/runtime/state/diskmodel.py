"""A disk that loses power: what was not synced may be whole, torn, missing or in another order after it."""

import random
from pathlib import Path

SECTOR = 512


class Crash(OSError):
    """The power is gone."""


class ModelFiles:
    """The journal's file layer over memory. `crash_at` operations after the start the power goes."""

    def __init__(self, crash_at: int | None = None) -> None:
        self.durable: dict[str, bytes] = {}
        self.now: dict[str, bytearray] = {}
        self.entries: set[str] = set()  # names whose folder entry is on the disk
        self.removed: set[str] = set()  # removed, but not yet on the disk
        self.dirty: dict[str, list[tuple[int, bytes]]] = {}
        self.handles: dict[int, str] = {}
        self.crash_at = crash_at
        self.operations = 0

    def _count(self) -> None:
        self.operations += 1
        if self.crash_at is not None and self.operations > self.crash_at:
            raise Crash(5, "power lost")

    def names(self, folder: Path) -> list[str]:
        return list(self.now)

    def size(self, path: Path) -> int:
        return len(self._held(path.name))

    def read(self, path: Path, offset: int, count: int) -> bytes:
        return bytes(self._held(path.name)[offset : offset + count])

    def _held(self, name: str) -> bytearray:
        if name not in self.now:
            raise FileNotFoundError(name)
        return self.now[name]

    def create(self, path: Path) -> int:
        self._count()
        assert path.name not in self.now
        self.now[path.name] = bytearray()
        self.removed.discard(path.name)
        self.durable[path.name] = b""
        self.dirty[path.name] = []
        handle = len(self.handles) + 1
        self.handles[handle] = path.name
        return handle

    def write(self, handle: int, data: bytes) -> None:
        name = self.handles[handle]
        held = self.now[name]
        self.dirty[name].append((len(held), bytes(data)))
        held += data
        self._count()

    def sync(self, handle: int) -> None:
        self._count()  # the power may go in the middle: nothing is promised then
        name = self.handles[handle]
        self.durable[name] = bytes(self.now[name])
        self.dirty[name] = []

    def close(self, handle: int) -> None:
        pass

    def truncate(self, path: Path, size: int) -> None:
        self._count()
        del self.now[path.name][size:]
        self.durable[path.name] = bytes(self.now[path.name])
        self.dirty[path.name] = []

    def remove(self, path: Path) -> None:
        self._count()
        self._held(path.name)
        del self.now[path.name]
        self.removed.add(path.name)

    def sync_folder(self, folder: Path) -> None:
        self._count()
        self.entries |= set(self.now)
        for name in self.removed:
            self.entries.discard(name)
            self.durable.pop(name, None)
        self.removed.clear()

    def after_power_loss(self, dice: random.Random) -> "ModelFiles":
        """One of the disks that may be found after it."""
        found = ModelFiles()
        leftovers = [bytes(data) for data in self.durable.values() if data] or [b"\xff" * SECTOR]
        for name in {*self.durable, *self.now}:
            if name not in self.entries and (name in self.removed or dice.random() < 0.5):
                continue
            content = bytearray(self.durable.get(name, b""))
            for offset, data in self.dirty.get(name, []):
                # Sector by sector: written, lost (zeros or what lay there before), or torn inside.
                for start in range(0, len(data), SECTOR):
                    piece = data[start : start + SECTOR]
                    fate = dice.random()
                    if fate < 0.45:
                        done = piece
                    elif fate < 0.6:
                        done = piece[: dice.randrange(len(piece) + 1)]
                    elif fate < 0.75 and leftovers:
                        old = dice.choice(leftovers)
                        at = dice.randrange(max(1, len(old) - len(piece)))
                        done = old[at : at + len(piece)]
                    else:
                        continue
                    end = offset + start + len(done)
                    content.extend(bytes(max(0, end - len(content))))
                    content[offset + start : end] = done
            found.now[name] = content
            found.durable[name] = bytes(content)
            found.entries.add(name)
            found.dirty[name] = []
        return found
