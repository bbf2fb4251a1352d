"""`python -m tidegate.runtime.gateway.remote`: the API for other machines, in a process that can be lost.

It holds the TCP ports, CURVE and the keys' table, and nothing of the core. What a client that proved to hold a key
asks for goes to the gateway over a UNIX socket with that key's name; the gateway looks up again what the name may do.
Floods, junk, a bug in libzmq: all of that ends here, and the machine itself is served all the while.
"""

import argparse
import collections
import contextlib
import mmap
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import zmq

from tidegate.ext.abi import program
from tidegate.hal import description
from tidegate.runtime.api import messages
from tidegate.runtime.api.curve_keys import SERVER_KEY, KeyProblem, Roles, folder_of, one_store, server_keys
from tidegate.runtime.gateway.sockets import (
    ASK,
    DOOR,
    SAID,
    STRANGE_MAX,
    Context,
    Sockets,
    door_dir,
    may_serve,
    property_of,
)
from tidegate.runtime.gateway.tcp_front import TcpFront, ways_of
from tidegate.runtime.gateway.zap import Zap, curve
from tidegate.runtime.state.beat import Beat
from tidegate.runtime.state.enclosure import enclose
from tidegate.runtime.state.syscalls import NETWORK

DESCRIPTORS = 1024  # two for each connection, far above the bound
PRIORITY = 5  # nice: whoever is on site comes first
AGAIN_NS = 5_000_000_000
BAN_NS = 60_000_000_000
STATUS_NS = 1_000_000_000
TURN_MESSAGES = 32
CPU_PAUSE_MS = 20
NOTES_MAX = 64


class Remote:
    """The transport for other machines of one site. Raises OSError where a site asks for what is never served."""

    def __init__(self, settings: description.Gateway, runtime: Path, state: Path) -> None:
        may_serve(settings)
        self.settings, self.runtime, self.state = settings, runtime, state
        self.stopping = False
        self.problem = ""
        self.dropped = 0
        self.front: TcpFront | None = None
        self.inner: Sockets | None = None
        self.zap: Zap | None = None
        self.roles: Roles | None = None
        self.in_all_max: int | None = None
        self._prepare: Callable[[zmq.Socket[bytes]], None] | None = None
        self._again_ns = self._status_ns = 0
        self._notes: collections.deque[dict[str, object]] = collections.deque(maxlen=NOTES_MAX)
        self.context: Context = zmq.Context()
        self.gateway = self.context.socket(zmq.DEALER)
        self.gateway.setsockopt(zmq.IMMEDIATE, 1)  # to a gateway that is not there nothing is kept for later
        self.gateway.setsockopt(zmq.SNDHWM, 64)
        self.gateway.setsockopt(zmq.RCVHWM, 256)
        self.gateway.setsockopt(zmq.LINGER, 0)
        self.gateway.connect(f"ipc://{door_dir(runtime)}/{DOOR}")
        self.published = self.context.socket(zmq.XSUB)
        self.published.setsockopt(zmq.LINGER, 0)
        self.published.setsockopt(zmq.RCVHWM, 256)
        self.published.connect(f"ipc://{runtime}/stream")
        self._open()

    # ---- opening and closing ----

    def _open(self) -> None:
        """Listen. What is wrong with a key file, a port or a disk is said in `problem`, and tried again."""
        try:
            if not self.settings.plain_loopback and self._prepare is None:
                folder = one_store(self.state, self.settings.keys)
                public, secret = server_keys(folder)
                self.roles = self.roles or Roles(folder)
                self.zap = self.zap or Zap(self.context, self.roles, self._refused)
                self._prepare = curve(public, secret)
            if self.inner is None:
                self.inner = self._bind()
            if self.front is None:
                bound = {} if self.in_all_max is None else {"in_all_max": self.in_all_max}
                self.front = TcpFront(ways_of(endpoints(self.settings), self._inside), **bound)
            self.problem = ""
        except (KeyProblem, OSError) as why:
            self.problem = f"other machines are not served: {why}"
            self._again_ns = time.monotonic_ns() + AGAIN_NS

    def _inside(self, name: str) -> str:
        return f"{door_dir(self.runtime)}/r-{name}"

    def _bind(self) -> Sockets:
        before = os.umask(0o177)
        try:
            inside = (f"ipc://{self._inside('pub')}", f"ipc://{self._inside('api')}")
            return Sockets(self.context, *inside, self._prepare)
        finally:
            os.umask(before)

    def cut(self) -> None:
        """End every connection, because somebody lost a right: those that kept theirs connect anew."""
        if self.inner is not None:
            self.inner.close()
            self.inner = None
        self._again_ns = 0

    def _front_lost(self, front: TcpFront, now_ns: int) -> None:
        """The ports' thread has ended by an error: let go of its connections, and listen anew in a while."""
        self.problem = f"other machines are not served: {front.failed}"
        self._note("failed", self.problem)
        front.close()
        self.front = None
        self._again_ns = now_ns + AGAIN_NS

    # ---- the loop ----

    def run(self) -> None:
        """Relay until `stopping` is set, and close whatever ends it: an open socket would keep its context waiting."""
        try:
            self._relay()
        finally:
            self.close()

    def _relay(self) -> None:
        poller = zmq.Poller()
        poller.register(self.gateway, zmq.POLLIN)
        poller.register(self.published, zmq.POLLIN)
        listening: list[zmq.Socket[bytes]] = []
        beat = Beat()
        while not self.stopping:
            beat.give()
            now_ns = time.monotonic_ns()
            if self.front is not None and self.front.failed:
                self._front_lost(self.front, now_ns)
            if (self.inner is None or self.front is None) and now_ns >= self._again_ns:
                self._open()
            wanted = [self.inner.api, self.inner.stream] if self.inner is not None else []
            wanted += [self.zap.socket] if self.zap is not None else []
            if wanted != listening:
                for one in listening:
                    poller.unregister(one)
                for one in wanted:
                    poller.register(one, zmq.POLLIN)
                listening = wanted
            ready = dict(poller.poll(CPU_PAUSE_MS))
            if self.zap is not None and self.zap.socket in ready:
                self.zap.serve()
            if self.gateway in ready:
                self._answers()
            if self.published in ready:
                self._stream()
            if self.inner is not None and self.inner.stream in ready:
                self._subscriptions(self.inner, now_ns)
            if self.inner is not None and self.inner.api in ready:
                self._requests(self.inner)
            if self.roles is not None and self.roles.reload(now_ns):
                self._note("changed", "a key lost a right; all connections from outside are cut")
                self.cut()
            self._report(now_ns)

    def _requests(self, inner: Sockets) -> None:
        for _ in range(TURN_MESSAGES):
            try:
                frames = inner.api.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.ZMQError:
                return
            # DEALER sends one frame, REQ an empty one before it. Anything else is nobody we know.
            if not (len(frames) == 2 or (len(frames) == 3 and len(frames[1].buffer) == 0)):
                self.dropped += 1
                continue
            who = property_of(frames[-1], "User-Id") if self.roles is not None else "loopback"
            self._to_gateway([ASK, *(one.bytes for one in frames[:-1]), who.encode(), frames[-1].bytes])

    def _to_gateway(self, frames: list[bytes]) -> bool:
        try:
            self.gateway.send_multipart(frames, zmq.DONTWAIT)
        except zmq.ZMQError:  # it is not there, or has more to do than it can: the client's own time runs
            self.dropped += 1
            return False
        return True

    def _answers(self) -> None:
        for _ in range(TURN_MESSAGES):
            try:
                frames = self.gateway.recv_multipart(zmq.DONTWAIT)
            except zmq.ZMQError:
                return
            if self.inner is not None:
                with contextlib.suppress(zmq.ZMQError):  # gone, or does not read
                    self.inner.api.send_multipart(frames, zmq.DONTWAIT)

    def _stream(self) -> None:
        for _ in range(TURN_MESSAGES):
            try:
                frames = self.published.recv_multipart(zmq.DONTWAIT)
            except zmq.ZMQError:
                return
            if self.inner is not None:
                with contextlib.suppress(zmq.ZMQError):
                    self.inner.stream.send_multipart(frames, zmq.DONTWAIT)

    def _subscriptions(self, inner: Sockets, now_ns: int) -> None:
        """Pass on what somebody wants to hear; who wants to hear what there is not is cut."""
        hoarders = inner.hoarders(self._wanted)
        for who in hoarders:
            self._note("cut", f"{who} subscribed to more than {STRANGE_MAX} topics that there are not; it is cut")
            if self.zap is not None:
                self.zap.banned[who] = now_ns + BAN_NS
        if hoarders:
            self.cut()

    def _wanted(self, word: bytes) -> None:
        with contextlib.suppress(zmq.ZMQError):
            self.published.send(word, zmq.DONTWAIT)

    # ---- what it says ----

    def _refused(self, name: str, detail: str) -> None:
        from_where = ", ".join(self.front.peers_inside[-4:]) if self.front is not None else ""
        self._note(name, f"{detail.rpartition(' from ')[0]} from one of {from_where or 'nobody who is still there'}")

    def _note(self, name: str, detail: str) -> None:
        self._notes.append({"name": name, "detail": messages.shown(detail)[: messages.TEXT_MAX]})

    def _report(self, now_ns: int) -> None:
        while self._notes and self._to_gateway([SAID, messages.encode(self._notes[0])]):
            self._notes.popleft()
        if now_ns - self._status_ns < STATUS_NS:
            return
        self._status_ns = now_ns
        if self.front is not None and self.front.refused:
            refused, self.front.refused = self.front.refused, collections.Counter()
            most = ", ".join(f"{count} of {peer}" for peer, count in refused.most_common(4))
            self._note("full", f"connections refused: {most}")
        connections = self.front.connections if self.front is not None else 0
        problem = messages.shown(self.problem)[: messages.TEXT_MAX]
        self._to_gateway([SAID, messages.encode({"problem": problem, "connections": connections})])

    def close(self) -> None:
        """End all, and leave no file behind."""
        if self.front is not None:
            self.front.close()
            self.front = None
        if self.inner is not None:
            self.inner.close()
            self.inner = None
        if self.zap is not None:
            self.zap.close()
        self.gateway.close(0)
        self.published.close(0)
        self.context.term()
        for name in ("pub", "api"):
            with contextlib.suppress(OSError):
                os.unlink(self._inside(name))


def endpoints(settings: description.Gateway) -> dict[str, str]:
    """Where it listens, by the name of what is there."""
    api = settings.endpoint
    assert api is not None
    host, _, port = api.rpartition(":")
    return {"api": api, "pub": settings.publish or f"{host}:{int(port) + 1}"}


def _ports(settings: description.Gateway) -> list[int]:
    return [int(one.rpartition(":")[2]) for one in endpoints(settings).values()]


def _needs(settings: description.Gateway, runtime: Path, state: Path) -> tuple[list[Path], list[Path]]:
    """What it writes and what it reads. The server's key is made where there is none: then its folder is written to."""
    keys = Path(settings.keys) if settings.keys else folder_of(state)
    with contextlib.suppress(OSError):
        keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = (keys / SERVER_KEY).exists()
    return [door_dir(runtime), *([] if made else [keys])], [state, runtime, keys]


def main(words: list[str] | None = None) -> int:
    """Serve other machines until SIGTERM."""
    parser = argparse.ArgumentParser(prog="tidegate.runtime.gateway.remote", description=__doc__)
    parser.add_argument("--program-fd", type=int, required=True, help="descriptor of the compiled site")
    parser.add_argument("--runtime-dir", type=Path, required=True, help="folder of the gateway's sockets")
    parser.add_argument("--state-dir", type=Path, required=True, help="folder of the keys")
    args = parser.parse_args(words)
    remote: Remote | None = None

    def stop(number: int, frame: object) -> None:
        if remote is None:
            sys.exit(0)
        remote.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    with mmap.mmap(args.program_fd, 0, prot=mmap.PROT_READ) as blob:
        site = description.described(program.describe(bytes(blob)))
    os.close(args.program_fd)
    try:
        needs = _needs(site.gateway, args.runtime_dir, args.state_dir)
        enclose("remote", *needs, binds=_ports(site.gateway), families=NETWORK)
        remote = Remote(site.gateway, args.runtime_dir, args.state_dir)
    except OSError as why:
        print(f"remote: {why}", file=sys.stderr)
        return os.EX_CONFIG
    print("remote: ready", flush=True)
    remote.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
