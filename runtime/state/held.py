"""Folders within a site's state folder, one for each process that writes: what holds over a restart, and the ledger.

A process may be given the right to write into a folder, not the right to write into all of it but one file. So latches,
stops and what gateway and supervisor keep beside them lie in one of their own, and the ledger in another: whoever
writes the one reaches neither the other nor the keys.
"""

import contextlib
import os
from pathlib import Path

from tidegate.runtime.state import latches, stop_file
from tidegate.runtime.state.atomic_file import sync_folder
from tidegate.runtime.state.plain_file import FLAGS
from tidegate.runtime.state.process_users import is_room, shared_mode

HELD = "held"
BILLING = "billing.json"
GRID_OPERATOR = "grid-operator.json"
LEDGER_DIR, LEDGER = "carbon", "ledger.db"
NOTIFY_DIR, NOTIFY = "notify", "notify.sqlite"
FILES = (latches.FILE, stop_file.FILE, stop_file.MARK, BILLING, GRID_OPERATOR)


def held_dir(state: Path) -> Path:
    """Make and give the folder in a site's state folder. One that cannot be made shows where it is written to."""
    folder = state / HELD
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o750, exist_ok=True)
    return folder


def take_in(state: Path) -> None:
    """Move what an earlier release, or a backup of one, left beside the folder into it; it is then the newer.

    For who holds the site's lock. Raises nothing: what cannot be moved is found by `held_in`, or missed by its readers.
    """
    folder = held_dir(state)
    moved = False
    for name in FILES:
        with contextlib.suppress(OSError):
            os.rename(state / name, folder / name)
            moved = True
    if moved:
        with contextlib.suppress(OSError):
            sync_folder(folder)


def held_in(state: Path) -> Path:
    """Where the record of another site lies: in the folder, or where an earlier release put it."""
    folder = state / HELD
    return folder if (folder / latches.FILE).exists() or not (state / latches.FILE).exists() else state


def ledger_in(state: Path) -> Path:
    """Where a site's ledger lies: in its folder, or where an earlier release put it."""
    path, old = state / LEDGER_DIR / LEDGER, state / LEDGER
    return old if old.exists() and not path.exists() else path


def take_base_in(state: Path, folder: str, name: str) -> Path:
    """Move an SQLite file that an earlier release kept in the state folder into its own; its place. Raises OSError.

    For the one who writes it, before it is open. Its write-ahead log goes first: what stops between the two is done
    to the end at the next start, before anybody opens the one without the other.
    """
    path, old = state / folder / name, state / name
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    if old.exists() and not path.exists():
        for end in ("-wal", ""):
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{old}{end}", f"{path}{end}")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{old}-shm")
        sync_folder(path.parent)
    elif is_room(path.parent) and not path.exists():  # SQLite would leave the group without a right to write
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | FLAGS | os.O_NOFOLLOW, shared_mode(path.parent)))
    return path
