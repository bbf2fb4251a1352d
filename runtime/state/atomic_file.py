"""Small files that are either old or new after a loss of power, never half."""

import contextlib
import os
import secrets
from pathlib import Path

from tidegate.runtime.state.process_users import mode_in


def replace(path: Path, data: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Put `data` in the place of a file, durable when this returns. Raises OSError, and then the old one stands.

    Written beside it, synced, renamed over it, and the folder synced: a reader, and a restart after the power went at
    any moment, finds the old file or the new one whole. mode : in a folder of one process's group that group reads what
    the owner reads (`process_users.py`). durable=False leaves the syncs out, for what is written each second: after a
    loss of power it may be an old one, or empty.
    """
    mode = mode_in(path.parent, mode)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fchmod(fd, mode)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sweep(folder: Path, name: str) -> None:
    """Remove what a loss of power left beside a file."""
    for left in folder.glob(f".{name}.????????"):
        with contextlib.suppress(OSError):
            left.unlink()
