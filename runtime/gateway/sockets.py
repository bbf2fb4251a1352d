"""The gateway's sockets: on this machine always, and a door for the process that serves others (remote.py)."""

import contextlib
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import zmq

from tidegate.hal import description
from tidegate.runtime.api import messages
from tidegate.runtime.api.curve_keys import KeyProblem, Roles, one_store
from tidegate.runtime.gateway.peers import credentials
from tidegate.runtime.gateway.zap import loopback
from tidegate.runtime.state.process_users import REMOTE_ROOM, identity_of, is_room, user_of

Context = zmq.Context[zmq.Socket[bytes]]
SUBSCRIPTIONS_A_TURN = 4096
SUBSCRIPTION_BYTES_MAX = 512  # a topic has 8, the handshake of CURVE some three hundred
STRANGE_MAX = 16  # topics that there are not
AGAIN_NS = 5_000_000_000
SILENT_NS = 10_000_000_000  # of the process for other machines, until it counts as not there
LOOK_NS = 1_000_000_000
DOOR = "door"  # its socket
ASK, SAID = b"ask", b"said"  # what it sends: a client's request, something about itself


class Sockets:
    """The two sockets of one transport: `stream` publishes, `api` answers."""

    def __init__(
        self, context: Context, stream: str, api: str, prepare: Callable[[zmq.Socket[bytes]], None] | None = None
    ) -> None:
        self.stream = context.socket(zmq.XPUB)  # a PUB that tells what is subscribed to
        self._strange: dict[str, int] = {}  # who -> subscriptions to what there is not
        self.api = context.socket(zmq.ROUTER)
        for socket in (self.stream, self.api):
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.MAXMSGSIZE, messages.COMMAND_BYTES_MAX)
            socket.setsockopt(zmq.HANDSHAKE_IVL, 1000)
            socket.setsockopt(zmq.BACKLOG, 16)
            socket.setsockopt(zmq.HEARTBEAT_IVL, 1000)
            socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3000)
            socket.setsockopt(zmq.RCVHWM, 64)
            if prepare is not None:
                prepare(socket)
        self.stream.setsockopt(zmq.MAXMSGSIZE, SUBSCRIPTION_BYTES_MAX)
        self.stream.setsockopt(zmq.RCVHWM, 8)
        self.stream.setsockopt(zmq.SNDHWM, 256)
        self.api.setsockopt(zmq.SNDHWM, 64)
        self.api.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            self.stream.bind(stream)
            self.api.bind(api)
        except zmq.ZMQError as why:
            self.close()
            raise OSError(f"{stream}, {api}: {why.strerror}") from None

    def hoarders(self, wanted: Callable[[bytes], None] | None = None) -> set[str]:
        """Who subscribes to more topics that there are not than a client could mean: each costs us memory.

        wanted : gets each beginning and end of a subscription to what there is.
        Gives names of keys, of peers without a key their address.
        """
        found: set[str] = set()
        for _ in range(SUBSCRIPTIONS_A_TURN):
            try:
                frame = self.stream.recv(zmq.DONTWAIT, copy=False)
            except zmq.ZMQError:
                break
            word = bytes(frame.buffer)
            if any(topic.encode().startswith(word[1:]) for topic in messages.TOPICS):
                if wanted is not None:
                    wanted(word)
                continue
            if word[:1] != b"\x01":
                continue
            who = property_of(frame, "User-Id") or property_of(frame, "Peer-Address")
            self._strange[who] = self._strange.get(who, 0) + 1
            if self._strange[who] > STRANGE_MAX:
                found.add(who)
        return found

    def close(self) -> None:
        self.stream.close(0)
        self.api.close(0)


def property_of(frame: zmq.Frame, name: str) -> str:
    """What libzmq knows of who sent a frame, "" where it knows nothing."""
    try:
        return str(frame.get(name))
    except zmq.ZMQError:
        return ""


class Route(NamedTuple):
    """The way back to a peer: a socket, and the frames before the answer."""

    api: zmq.Socket[bytes]
    envelope: list[bytes]


def may_serve(settings: description.Gateway) -> None:
    """Raise OSError for a site file that asks for what is never served."""
    reachable = [one for one in (settings.endpoint, settings.publish) if one and not loopback(one)]
    if settings.endpoint and settings.plain_loopback and reachable:
        raise OSError(f"{reachable[0]}: without CURVE only loopback is served")


def door_dir(runtime: Path) -> Path:
    """Where gateway and remote meet: a room of its own where each has its own user, else the runtime folder."""
    room = runtime / REMOTE_ROOM
    return room if is_room(room) else runtime


class Transports:
    """All sockets of one gateway. Raises OSError where one cannot listen."""

    def __init__(self, settings: description.Gateway, runtime: Path, state: Path) -> None:
        may_serve(settings)
        self.runtime = runtime
        self.context: Context = zmq.Context()
        self.context.setsockopt(zmq.MAX_SOCKETS, 256)
        self.roles: Roles | None = None
        self.door: zmq.Socket[bytes] | None = None  # from the process that serves other machines
        self.connections = 0  # that it holds, as it says
        self._problem = ""  # why other machines are not served although the site file says so
        self._keys_problem = ""
        self._settings, self._state = settings, state
        self._again_ns = self._looked_ns = 0
        self._heard_ns = time.monotonic_ns()
        remote = identity_of(user_of("remote")) if is_room(door_dir(runtime)) else None
        self._own = (0, os.geteuid(), *([remote.uid] if remote is not None else []))
        try:
            self.local = self._bind_local()
            if settings.endpoint:
                self.door = self._bind_door()
                self._read_roles()
        except BaseException:
            self.context.destroy(0)
            raise

    @property
    def problem(self) -> str:
        """Why other machines are not served although the site file says so, "" where they are."""
        return self._keys_problem or self._problem

    def _bind_local(self) -> Sockets:
        """Sockets in the runtime folder, for our user and our group only from the first moment.

        In a folder of the gateway's own group they are for whoever may enter the folder around it.
        """
        before = os.umask(0o111 if is_room(self.runtime) else 0o117)
        try:
            for name in ("stream", "api"):
                path = self.runtime / name
                if path.exists() and not stat.S_ISSOCK(path.lstat().st_mode):
                    raise OSError(f"{path} is in the way and is no socket; remove it")
            return Sockets(self.context, f"ipc://{self.runtime}/stream", f"ipc://{self.runtime}/api")
        finally:
            os.umask(before)

    def _bind_door(self) -> zmq.Socket[bytes]:
        """For our own user alone, or that of the process for other machines: who speaks here says for whom."""
        door = self.context.socket(zmq.ROUTER)
        door.setsockopt(zmq.LINGER, 0)
        door.setsockopt(zmq.MAXMSGSIZE, messages.COMMAND_BYTES_MAX)
        door.setsockopt(zmq.RCVHWM, 64)
        door.setsockopt(zmq.SNDHWM, 256)
        door.setsockopt(zmq.ROUTER_MANDATORY, 1)
        path = door_dir(self.runtime) / DOOR
        before = os.umask(0o117 if is_room(path.parent) else 0o177)
        try:
            door.bind(f"ipc://{path}")
        except zmq.ZMQError as why:
            door.close(0)
            raise OSError(f"{path}: {why.strerror}") from None
        finally:
            os.umask(before)
        return door

    def trusted(self, frame: zmq.Frame) -> bool:
        """Tell whether a frame at the door comes from a process of our own user, or of the one who serves others."""
        found = credentials(property_of(frame, "Peer-Address"))
        return found is not None and found[0] in self._own

    def _read_roles(self) -> None:
        """Know what the keys may do. What is wrong with their folder costs this machine nothing."""
        if self._settings.plain_loopback:
            return
        try:
            self.roles = Roles(one_store(self._state, self._settings.keys))
            self._keys_problem = ""
        except (KeyProblem, OSError) as why:
            self._keys_problem = f"other machines are not served: {why}"
            self._again_ns = time.monotonic_ns() + AGAIN_NS

    def heard(self, status: dict[str, object], now_ns: int) -> None:
        """Take in what the process for other machines says of itself every second."""
        self._heard_ns = now_ns
        self._problem = str(status.get("problem", ""))
        count = status.get("connections")
        self.connections = count if isinstance(count, int) else 0

    def watch(self, now_ns: int) -> list[str]:
        """Keep what others can make us hold within bounds; says what was done."""
        done = []
        for who in self.local.hoarders():
            done.append(f"{who} subscribed to more than {STRANGE_MAX} topics that there are not; it is cut")
        if done:
            self.local.close()
            self.local = self._bind_local()
        if now_ns - self._looked_ns > LOOK_NS:
            self._looked_ns = now_ns
            done += self._put_back()
        if self.door is not None:
            if self._keys_problem and now_ns >= self._again_ns:
                self._read_roles()
            if now_ns - self._heard_ns > SILENT_NS:
                self._problem = "other machines are not served: the process for them is silent"
        return done

    def _put_back(self) -> list[str]:
        """Open a socket anew whose file somebody took away: nobody could come to us any more."""
        lost = [name for name in ("stream", "api") if not (self.runtime / name).exists()]
        if lost:
            self.local.close()
            self.local = self._bind_local()
        if self.door is not None and not (door_dir(self.runtime) / DOOR).exists():
            lost.append(DOOR)
            self.door.close(0)
            self.door = self._bind_door()
        return [f"{self.runtime / name} was gone; the socket was opened anew" for name in lost]

    def close(self) -> None:
        """Close all, and leave no file behind. What was published last gets 200 ms to leave."""
        self.local.stream.setsockopt(zmq.LINGER, 200)
        self.local.close()
        if self.door is not None:
            self.door.close(0)
        self.context.term()
        for path in (self.runtime / "stream", self.runtime / "api", door_dir(self.runtime) / DOOR):
            with contextlib.suppress(OSError):
                path.unlink()
