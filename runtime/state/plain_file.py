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


def open_plain(path: Path, more: int = 0) -> int:
    """A descriptor to read a regular file from. more : further flags of open(2). Raises OSError for all else."""
    fd = os.open(path, os.O_RDONLY | FLAGS | more)
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "is a pipe, socket or device and no file", str(path))


def read_plain(path: Path, most: int = MOST) -> bytes:
    """The bytes of a file. Raises OSError where it is none, cannot be read, or is larger than `most`."""
    fd = open_plain(path)
    try:
        parts, left = [], most + 1
        while left > 0 and (part := os.read(fd, min(left, 1 << 16))):
            parts.append(part)
            left -= len(part)
        if left <= 0:
            raise OSError(errno.EFBIG, f"is larger than {most} bytes", str(path))
        return b"".join(parts)
    finally:
        os.close(fd)
