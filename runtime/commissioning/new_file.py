"""Writing a file whole or not at all, whatever happens meanwhile: power, disk, another writer."""

import contextlib
import os
import tempfile
import time
from pathlib import Path

from tidegate.runtime.commissioning.prompts import SetupError

EXIT_CANNOT_WRITE = 73  # EX_CANTCREAT


def _temporary(path: Path, text: str, mode: int) -> Path:
    try:
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _cannot(path, error) from None
    temporary = Path(name)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        _drop(temporary)
        raise _cannot(path, error) from None
    return temporary


def _cannot(path: Path, error: OSError) -> SetupError:
    return SetupError(f"{path}: cannot be written: {error.strerror}; nothing was changed", EXIT_CANNOT_WRITE)


def _drop(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_new(path: Path, text: str, mode: int = 0o644) -> None:
    """Make a file that was not there. Raises SetupError if it is, or if it cannot be written; then nothing is left."""
    temporary = _temporary(path, text, mode)
    try:
        os.link(temporary, path)  # unlike a rename, refuses a name that exists
        _sync_folder(path.parent)
    except FileExistsError:
        raise SetupError(f"{path}: exists; choose another name or move it away", EXIT_CANNOT_WRITE) from None
    except OSError as error:
        raise _cannot(path, error) from None
    finally:
        _drop(temporary)


def replace(path: Path, text: str) -> Path:
    """Put a new text in the place of a file; gives the path of the copy that was kept. Raises SetupError.

    At every moment the name leads to the old file or to the whole new one.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    backup = path.with_name(f"{path.name}.{stamp}")
    number = 1
    while backup.exists():
        number += 1
        backup = path.with_name(f"{path.name}.{stamp}-{number}")
    mode = path.stat().st_mode & 0o777
    temporary = _temporary(path, text, mode)
    try:
        _keep(path, backup, mode)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        _drop(temporary)
        raise _cannot(path, error) from None
    return backup


def _keep(path: Path, backup: Path, mode: int) -> None:
    """Keep the old file under another name. Raises OSError, SetupError."""
    try:
        os.link(path, backup)
    except PermissionError:  # fs.protected_hardlinks: of a file that is root's, the service's user gets no second name
        write_new(backup, path.read_text(encoding="utf-8"), mode)
