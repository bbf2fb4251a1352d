"""Child processes that never outlive us, and the lines that they say."""

import collections
import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from tidegate.runtime.api.messages import Message

PR_SET_PDEATHSIG = 1
LINES_MAX = 100_000
LINE_BYTES_MAX = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)


def _die_with(parent: int) -> None:
    """Between fork and exec: SIGTERM to this child when the thread that starts it ends, however that happens."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGTERM)  # the parent died before the request was made


class Child:
    """One child process in a session of its own, so that a Ctrl-C in the terminal reaches the supervisor only.

    name : for messages. words : arguments behind the interpreter. fds : descriptors that it inherits.
    """

    def __init__(
        self, name: str, words: list[str], fds: Iterable[int], stderr: IO[bytes] | IO[str] | None = None
    ) -> None:
        self.name = name
        self.words = words
        self.fds = tuple(fds)
        self.starts: collections.deque[float] = collections.deque(maxlen=32)
        self.said: collections.deque[str] = collections.deque(maxlen=LINES_MAX)
        self.code: int | None = None
        self.given_up = False
        self.ready = threading.Event()
        self._stderr = stderr
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Start it, or start it again."""
        self.code = None
        self.ready.clear()
        self.starts.append(time.monotonic())
        parent = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, *self.words],
            pass_fds=self.fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,
            preexec_fn=lambda: _die_with(parent),
        )
        self._reader = threading.Thread(
            target=self._read, args=(self._process,), name=f"{self.name} lines", daemon=True
        )
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in iter(lambda: lines.readline(LINE_BYTES_MAX), b""):
                self.said.append(line.decode(errors="replace").rstrip("\n"))
                self.ready.set()

    def records(self) -> "list[Message]":
        """Give the JSON objects among the lines that it said."""
        found = []
        for line in list(self.said):
            if line.startswith("{"):
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        return found

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end; None if it still runs."""
        if self._process is None:
            return self.code
        try:
            self.code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        if self._reader is not None:
            self._reader.join(2.0)
        return self.code

    def signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def end(self, timeout_s: float) -> int | None:
        """SIGTERM, then SIGKILL to its whole session if it has not ended in time. Gives its exit code."""
        if self._process is None:
            return self.code
        self.signal(signal.SIGTERM)
        if self.wait(timeout_s) is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self.wait(5.0)
        return self.code

    def may_restart(self, times: int, within_s: float) -> bool:
        """Tell whether it was started fewer than `times` times in the last seconds."""
        since = time.monotonic() - within_s
        return sum(1 for start in self.starts if start >= since) < times


class Watch:
    """Waits for the end of children and for a knock, without polling."""

    def __init__(self) -> None:
        self._knock = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def knock(self) -> None:
        """Wake `wait` up; may be called from a signal handler."""
        os.eventfd_write(self._knock, 1)

    def wait(self, children: Iterable[Child], timeout_s: float) -> list[Child]:
        """Give the children that have ended, at the latest after timeout_s; empty after a knock."""
        poll = select.poll()
        poll.register(self._knock, select.POLLIN)
        fds: dict[int, Child] = {}
        ended = []
        try:
            for child in children:
                if not child.alive:
                    ended.append(child)
                    continue
                try:
                    fd = os.pidfd_open(child.pid)
                except ProcessLookupError:
                    ended.append(child)
                    continue
                fds[fd] = child
                poll.register(fd, select.POLLIN)
            if ended:
                return ended
            for fd, _ in poll.poll(timeout_s * 1000):
                if fd == self._knock:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(fd)
                else:
                    ended.append(fds[fd])
            return ended
        finally:
            for fd in fds:
                os.close(fd)

    def close(self) -> None:
        os.close(self._knock)


def eventually(done: Callable[[], bool], timeout_s: float, every_s: float = 0.01) -> bool:
    """Wait until `done`; false if it is not in time."""
    until = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() >= until:
            return False
        time.sleep(every_s)
    return True
