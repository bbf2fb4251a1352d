"""A pipe in a site's runtime folder: a byte in it stops the site, for who may not signal its processes.

Supervisor and core may be other users than the one who stops, and the supervisor may stand still. The core's end of the
pipe has the kernel send it a signal at each write, so the stop reaches it without anybody between; the supervisor reads
the byte too, and keeps the stop over a restart. Whoever may enter the runtime folder may write: the group that may give
orders to the gateway as well.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

NAME = "halt"
MODE = 0o622


class StopPipe:
    """The supervisor's side. Where the folder (runtime) refuses a pipe the signals are left, and `report` is told."""

    def __init__(self, runtime: Path, report: Callable[[str], None]) -> None:
        self.path = runtime / NAME
        self.fds: list[int] = []  # the core's end
        self._own = -1
        try:
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISFIFO(self.path.lstat().st_mode):
                    os.unlink(self.path)
            with contextlib.suppress(FileExistsError):
                os.mkfifo(self.path, MODE)
            os.chmod(self.path, MODE)
            # Both ends here: a writer that leaves is then never the last one, which would be a signal too.
            self._own = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            # The core's is a description of its own: who is to be signalled belongs to that.
            self.fds = [os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)]
            self.ordered()  # what a run before this one left in it was for that run
        except OSError as why:
            report(f"tidegate: {self.path}: {why.strerror or why}; `tidegate stop` works by signal only")
            self.close()

    @property
    def words(self) -> list[str]:
        """Arguments of the core."""
        return ["--stop-fd", str(self.fds[0])] if self.fds else []

    def ordered(self) -> bool:
        """Tell whether somebody has written since the last time that this was asked."""
        if self._own < 0:
            return False
        try:
            return bool(os.read(self._own, 4096))
        except OSError:
            return False

    def close(self) -> None:
        """Close both ends; the file stays for the next run."""
        for fd in (*self.fds, *([self._own] if self._own >= 0 else [])):
            with contextlib.suppress(OSError):
                os.close(fd)
        self.fds, self._own = [], -1


def signal_on_write(fd: int, number: int) -> None:
    """Have the kernel send this process a signal whenever somebody writes into the pipe. Raises OSError."""
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETSIG, number)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)


def order(runtime: Path) -> str:
    """Write the stop; what kept us from it, "" = nothing. One that is full holds more stops than anybody needs."""
    path = runtime / NAME
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as why:
        return f"{path}: {why.strerror or why}"
    try:
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            return f"{path} is no pipe"
        os.write(fd, b"1")
    except OSError as why:
        return "" if why.errno == errno.EAGAIN else f"{path}: {why.strerror or why}"
    finally:
        os.close(fd)
    return ""
