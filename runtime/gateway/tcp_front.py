"""The listening sockets for other machines: how many may hold a connection is decided here, before libzmq knows of any.

libzmq has no bound for connections and ends its process where the kernel gives no descriptor. So the ports are held
by a relay of bytes. A connection that has said nothing is held here alone; the first byte opens its way to libzmq,
which gives it a second for its handshake.
"""

import collections
import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

IN_ALL_MAX = 256
PER_PEER_MAX = 64  # two of them make a client
SILENT_NS = 3_000_000_000  # until the first byte
ACCEPTS_A_TURN = 64
BUFFER_BYTES = 65_536
TURN_S = 0.25
PAUSE_NS = 100_000_000  # after the kernel had no descriptor


class Way(NamedTuple):
    """A port of ours, and the UNIX socket that its bytes go to."""

    host: str
    port: int
    path: str


class _End:
    """One end of a connection and what waits to be written to it."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.waiting = bytearray()
        self.other: _End | None = None
        self.mask = 0


class _Held:
    """A connection from outside. inner : None until it has said something."""

    def __init__(self, outer: socket.socket, peer: str, path: str, t_ns: int) -> None:
        self.outer = _End(outer)
        self.inner: _End | None = None
        self.peer, self.path, self.t_ns = peer, path, t_ns


class TcpFront:
    """Listens, counts, relays, in a thread of its own. Raises OSError where a port cannot be had."""

    def __init__(self, ways: list[Way], *, in_all_max: int = IN_ALL_MAX, per_peer_max: int = PER_PEER_MAX) -> None:
        self.in_all_max, self.per_peer_max = in_all_max, per_peer_max
        self.refused: collections.Counter[str] = collections.Counter()  # by peer, since it was asked last
        self._held: dict[int, _Held] = {}  # by the descriptor of either end
        self._peers: collections.Counter[str] = collections.Counter()
        self._silent: dict[int, _Held] = {}  # that have said nothing, the oldest first
        self._listening: dict[int, tuple[socket.socket, str]] = {}
        self._again_ns = 0
        self.failed = ""  # what ended the thread, "" while it runs
        self._end = False
        self._poll = select.epoll()
        try:
            for way in ways:
                listener = _listen(way)
                self._listening[listener.fileno()] = (listener, way.path)
                self._poll.register(listener, select.EPOLLIN)
        except OSError:
            self._shut()
            raise
        self._thread = threading.Thread(target=self._run, name="front", daemon=True)
        self._thread.start()

    @property
    def connections(self) -> int:
        """How many are held now."""
        return sum(self._peers.values())

    @property
    def peers_inside(self) -> list[str]:
        """Addresses of those that have said something, the newest last."""
        inside = {id(held): held for held in list(self._held.values()) if held.inner is not None}
        return list(dict.fromkeys(held.peer for held in sorted(inside.values(), key=lambda held: held.t_ns)))

    def close(self) -> None:
        """Let go of everything."""
        self._end = True
        self._thread.join(10)
        self._shut()

    def _shut(self) -> None:
        for held in {id(one): one for one in self._held.values()}.values():
            self._drop(held)
        for listener, _ in self._listening.values():
            listener.close()
        self._listening.clear()
        self._poll.close()

    def _run(self) -> None:
        try:
            self._relay()
        except Exception as why:  # a port that is open and nobody behind it would look alive to everyone
            self.failed = f"{type(why).__name__}: {why}"

    def _relay(self) -> None:
        while not self._end:
            now_ns = time.monotonic_ns()
            for fd, mask in self._poll.poll(TURN_S):
                if fd in self._listening:
                    self._accept(fd, now_ns)
                elif fd in self._held:
                    self._move(self._held[fd], fd, mask)
            self._sweep(time.monotonic_ns())

    def _accept(self, fd: int, now_ns: int) -> None:
        listener, path = self._listening[fd]
        for _ in range(ACCEPTS_A_TURN):
            try:
                outer, address = listener.accept()
            except BlockingIOError:
                return
            except OSError:  # no descriptor, no memory: those that wait are kept by the kernel meanwhile
                self._again_ns = now_ns + PAUSE_NS
                for other in self._listening:
                    self._poll.modify(other, 0)
                return
            peer = str(address[0])
            if not self._room(peer):
                self.refused[peer if len(self.refused) < self.in_all_max else "others"] += 1
                outer.close()
                continue
            held = _Held(outer, peer, path, now_ns)
            outer.setblocking(False)
            with contextlib.suppress(OSError):
                outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._peers[peer] += 1
            self._held[outer.fileno()] = self._silent[outer.fileno()] = held
            self._want(held.outer, select.EPOLLIN)

    def _room(self, peer: str) -> bool:
        """Make room for one more of this peer, at the cost of the one that has been silent for longest."""
        if self._peers[peer] >= self.per_peer_max:
            oldest = next((held for held in self._silent.values() if held.peer == peer), None)
        elif self.connections >= self.in_all_max:
            oldest = next(iter(self._silent.values()), None)
        else:
            return True
        if oldest is None:
            return False
        self.refused[oldest.peer if len(self.refused) < self.in_all_max else "others"] += 1
        self._drop(oldest)
        return True

    def _want(self, end: _End, mask: int) -> None:
        if end.mask == 0:
            self._poll.register(end.socket, mask)
        elif end.mask != mask:
            self._poll.modify(end.socket, mask)
        end.mask = mask

    def _move(self, held: _Held, fd: int, mask: int) -> None:
        try:
            if held.inner is None:
                self._open(held)
            inner = held.inner
            assert inner is not None
            end = held.outer if held.outer.socket.fileno() == fd else inner
            if mask & select.EPOLLOUT:
                self._write(end)
            if mask & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._read(end)
        except OSError:
            self._drop(held)

    def _open(self, held: _Held) -> None:
        """It has said something: give it a way inside. Raises OSError."""
        if not held.outer.socket.recv(1, socket.MSG_PEEK):
            raise ConnectionResetError
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(held.path)
        except OSError:
            sock.close()
            raise
        self._silent.pop(held.outer.socket.fileno(), None)
        held.inner = _End(sock)
        held.inner.other, held.outer.other = held.outer, held.inner
        self._held[sock.fileno()] = held
        self._want(held.inner, select.EPOLLIN)

    def _read(self, end: _End) -> None:
        """Take what came. Raises OSError at its end."""
        other = end.other
        assert other is not None
        room = BUFFER_BYTES - len(other.waiting)
        if room > 0:
            with contextlib.suppress(BlockingIOError):
                data = end.socket.recv(room)
                if not data:
                    raise ConnectionResetError
                other.waiting += data
        self._write(other)

    def _write(self, end: _End) -> None:
        """Give on what waits; who does not read is not read from either. Raises OSError."""
        if end.waiting:
            with contextlib.suppress(BlockingIOError):
                del end.waiting[: end.socket.send(end.waiting)]
        for one in (end, end.other):
            assert one is not None and one.other is not None
            full = len(one.other.waiting) >= BUFFER_BYTES
            # Something is always asked for: an end that is told of nothing would not hear that it was closed.
            self._want(
                one, (0 if full else select.EPOLLIN) | (select.EPOLLOUT if one.waiting else 0) or select.EPOLLHUP
            )

    def _sweep(self, now_ns: int) -> None:
        for held in list(self._silent.values()):
            if now_ns - held.t_ns < SILENT_NS:
                break
            self._drop(held)
        if self._again_ns and now_ns >= self._again_ns:
            self._again_ns = 0
            for fd in self._listening:
                self._poll.modify(fd, select.EPOLLIN)

    def _drop(self, held: _Held) -> None:
        for end in (held.outer, held.inner):
            if end is None:
                continue
            self._held.pop(end.socket.fileno(), None)
            self._silent.pop(end.socket.fileno(), None)
            if end.mask:
                with contextlib.suppress(OSError):
                    self._poll.unregister(end.socket)
            end.socket.close()
        self._peers[held.peer] -= 1
        if not self._peers[held.peer]:
            del self._peers[held.peer]


def _listen(way: Way) -> socket.socket:
    family = socket.AF_INET6 if ":" in way.host else socket.AF_INET
    host = "" if way.host == "*" else way.host
    try:
        listener = socket.create_server((host, way.port), family=family, backlog=128)
    except OSError as why:
        raise OSError(why.errno, f"port {way.port}: {why.strerror}") from None
    listener.setblocking(False)
    return listener


def ways_of(endpoints: dict[str, str], inside: Callable[[str], str]) -> list[Way]:
    """TCP endpoints by name, as a site file gives them, and where their bytes go. Raises OSError for a strange one."""
    found = []
    for name, endpoint in endpoints.items():
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        if not port.isdigit():
            raise OSError(f"{endpoint}: not a TCP endpoint")
        found.append(Way(host.strip("[]"), int(port), inside(name)))
    return found
