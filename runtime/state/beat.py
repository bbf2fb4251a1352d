"""A sign of life to who started us: a byte a second into a pipe.

By it a process that stands still can be told from one that has nothing to say.
"""

import contextlib
import os
import time
from collections.abc import MutableMapping

VARIABLE = "TIDEGATE_BEAT_FD"
EVERY_S = 1.0


class Beat:
    """To be given by the loop that does the work, never by a thread beside it. Without a pipe it does nothing."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        given = environment.pop(VARIABLE, "")  # not for our own children
        self._fd = int(given) if given.isdigit() else -1
        self._next_s = 0.0
        if self._fd >= 0:
            os.set_inheritable(self._fd, False)

    def give(self) -> None:
        """Say that the loop has come round; may be called as often as it does."""
        now_s = time.monotonic()
        if self._fd < 0 or now_s < self._next_s:
            return
        self._next_s = now_s + EVERY_S
        with contextlib.suppress(OSError):  # full, or nobody there who reads
            os.write(self._fd, b".")
