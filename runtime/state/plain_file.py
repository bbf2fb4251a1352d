"""Small files that somebody else may have put in the place of ours: read whole, or refused at once.

A named pipe in the place of a file would keep its reader for ever, a device or an endless file would fill its memory.
Processes of one site have users of their own, and a folder that one of them writes is read by others.
"""

import errno
import os
import stat
from pathlib import Path

FLAGS = os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
MOST = 1 << 20
"""Bytes of a file that says no bound of its own."""


def read_plain(path: Path, most: int = MOST) -> bytes:
    """The bytes of a file. Raises OSError where it is none, cannot be read, or is larger than `most`."""
    fd = os.open(path, os.O_RDONLY | FLAGS)
    try:
        seen = os.fstat(fd)
        if stat.S_ISDIR(seen.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(seen.st_mode):
            raise OSError(errno.EINVAL, "is a pipe, socket or device and no file", str(path))
        parts, left = [], most + 1
        while left > 0 and (part := os.read(fd, min(left, 1 << 16))):
            parts.append(part)
            left -= len(part)
        if left <= 0:
            raise OSError(errno.EFBIG, f"is larger than {most} bytes", str(path))
        return b"".join(parts)
    finally:
        os.close(fd)
