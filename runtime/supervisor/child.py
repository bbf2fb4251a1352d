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
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING

from tidegate.runtime.state.beat import VARIABLE
from tidegate.runtime.state.process_users import CAP_NET_ADMIN, Identity, become

if TYPE_CHECKING:
    from tidegate.runtime.api.messages import Message

PR_SET_PDEATHSIG = 1
LINES_MAX = 100_000
# A thread of a library that is there before a process confines itself would not be confined.
LONELY = {"OPENBLAS_NUM_THREADS": "1"}
BLIND_S = 0.05
FIRST_BEAT_S = 20.0  # after a start nothing is missed for so long
LINE_BYTES_MAX = 1 << 20
NO_MEMORY_S = 0.02
CAPABILITIES = {"core": (CAP_NET_ADMIN,)}  # to start a CAN controller in bus-off again; where we have it

_libc = ctypes.CDLL(None, use_errno=True)


def _before_exec(parent: int, user: Identity | None, capabilities: tuple[int, ...]) -> None:
    """Between fork and exec: another user, then the end with its parent."""
    if user is not None:
        become(user, capabilities)  # first: the kernel forgets that signal when a process becomes somebody else
    die_with(parent)


def die_with(parent: int) -> None:
    """Between fork and exec: SIGTERM to this child when the thread that starts it ends, however that happens."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGTERM)  # the parent died before the request was made


class Child:
    """One child process in a session of its own, so that a Ctrl-C in the terminal reaches the supervisor only.

    name : for messages. words : arguments behind the interpreter. fds : descriptors that it inherits. user : whom it
    becomes, None = our own.
    """

    def __init__(
        self,
        name: str,
        words: list[str],
        fds: Iterable[int],
        stderr: IO[bytes] | IO[str] | None = None,
        *,
        beats: bool = False,
        user: Identity | None = None,
    ) -> None:
        self.name = name
        self.user = user
        self.words = words
        self.fds = tuple(fds)
        self.starts: collections.deque[float] = collections.deque(maxlen=32)
        self.said: collections.deque[str] = collections.deque(maxlen=LINES_MAX)
        self.code: int | None = None
        self.given_up = False
        self.failing = False  # its start was tried and did not succeed
        self.ready = threading.Event()
        self._stderr = stderr
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._beats = beats
        self._beat_fd = -1
        self._beat_s = 0.0  # when it was heard last; after its start later than now, since a start takes its time

    def start(self) -> None:
        """Start it, or start it again."""
        self.code = None
        self.ready.clear()
        parent = os.getpid()
        beat, end = self._beat_pipe() if self._beats else (-1, -1)
        more = {VARIABLE: str(end)} if end >= 0 else {}
        more |= LONELY
        try:
            self._process = subprocess.Popen(
                [sys.executable, *self.words],
                pass_fds=self.fds if end < 0 else (*self.fds, end),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                start_new_session=True,
                preexec_fn=lambda: _before_exec(parent, self.user, CAPABILITIES.get(self.name, ())),
                env={**os.environ, **more},
            )
        except BaseException:
            if beat >= 0:
                os.close(beat)
            raise
        finally:
            if end >= 0:
                os.close(end)
        self._beat_fd = beat
        self.starts.append(time.monotonic())
        self._reader = threading.Thread(
            target=self._read, args=(self._process,), name=f"{self.name} lines", daemon=True
        )
        try:
            self._reader.start()
        except RuntimeError:  # no thread to be had: without a reader it would stand still at a full pipe
            self._reader = None
            self._process.kill()
            self._process.wait()
            raise

    def _beat_pipe(self) -> tuple[int, int]:
        """A pipe for its signs of life, in the place of the one before. Raises OSError."""
        if self._beat_fd >= 0:
            os.close(self._beat_fd)
        self._beat_fd, self._beat_s = -1, time.monotonic() + FIRST_BEAT_S
        return os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def silent_s(self) -> float:
        """How long it has given no sign of life that was due; to be asked every few seconds."""
        now_s = time.monotonic()
        if self._beat_fd >= 0:
            with contextlib.suppress(OSError):
                if os.read(self._beat_fd, 4096):
                    self._beat_s = now_s
        return max(0.0, now_s - self._beat_s) if self._beat_fd >= 0 else 0.0

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
                with contextlib.suppress(MemoryError):
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
            with contextlib.suppress(OSError):
                self._process.send_signal(number)

    def end(self, timeout_s: float) -> int | None:
        """SIGTERM, then SIGKILL to its whole session if it has not ended in time. Gives its exit code."""
        if self._process is None:
            return self.code
        self.signal(signal.SIGTERM)
        if self.wait(timeout_s) is None:
            with contextlib.suppress(OSError):
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
        with contextlib.suppress(OSError):  # then `wait` ends by its time-out
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
                except OSError:  # no descriptor to be had: look again soon, which needs none
                    timeout_s = min(timeout_s, BLIND_S)
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


def waited(event: threading.Event, timeout_s: float) -> bool:
    """`event.wait`, also where there is no memory for the lock that it needs: whoever watches others must go on."""
    try:
        return event.wait(timeout_s)
    except (MemoryError, RuntimeError):
        time.sleep(min(timeout_s, NO_MEMORY_S))
        return event.is_set()


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let no second Ctrl-C interrupt the end: what it asks for is already being done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
