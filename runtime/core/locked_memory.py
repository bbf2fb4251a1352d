"""How much of a process is locked in memory, as the kernel tells it; of ourselves or of another process."""

import os

LOST_SHARE = 0.5  # below this share of the most that was locked, it counts as no longer locked


class LockedMemory:
    """Looks at the locked memory of a process. Keeps /proc/PID/status open: a look costs one read.

    Raises OSError if there is no such process.
    """

    def __init__(self, pid: int | str = "self") -> None:
        self._fd = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
        self.most_kib = 0

    def kib(self) -> int:
        """Locked memory, KiB; 0 also when the process is gone."""
        try:
            text = os.pread(self._fd, 4096, 0)
        except ProcessLookupError:
            return 0
        at = text.find(b"VmLck:")
        now = int(text[at + 6 : text.index(b"kB", at)]) if at >= 0 else 0
        self.most_kib = max(self.most_kib, now)
        return now

    def lost(self) -> bool:
        """Tell whether much less is locked than was once. Heap comes and goes a little; `munlockall` leaves nothing."""
        return self.kib() < self.most_kib * LOST_SHARE

    def close(self) -> None:
        """Close the file; once."""
        os.close(self._fd)
