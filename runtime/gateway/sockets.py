"""The gateway's sockets: on this machine always, for others where the site file asks for it."""

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import zmq

from tidegate.hal import description
from tidegate.runtime.api import messages
from tidegate.runtime.api.curve_keys import Roles, folder_of, server_keys
from tidegate.runtime.gateway.zap import Zap, curve, loopback

Context = zmq.Context[zmq.Socket[bytes]]


class Sockets:
    """The two sockets of one transport: `stream` publishes, `api` answers."""

    def __init__(
        self, context: Context, stream: str, api: str, prepare: Callable[[zmq.Socket[bytes]], None] | None = None
    ) -> None:
        self.stream = context.socket(zmq.PUB)
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
        self.stream.setsockopt(zmq.SNDHWM, 256)
        self.api.setsockopt(zmq.SNDHWM, 64)
        self.api.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            self.stream.bind(stream)
            self.api.bind(api)
        except zmq.ZMQError as why:
            self.close()
            raise OSError(f"{stream}, {api}: {why.strerror}") from None

    def close(self) -> None:
        self.stream.close(0)
        self.api.close(0)


class Route(NamedTuple):
    """The way back to a peer."""

    sockets: Sockets
    envelope: list[bytes]


class Transports:
    """All sockets of one gateway. `refused` hears of peers that were turned away: (name, detail).

    Raises OSError where one cannot listen.
    """

    def __init__(
        self, settings: description.Gateway, runtime: Path, state: Path, refused: Callable[[str, str], None]
    ) -> None:
        self.runtime = runtime
        self.context: Context = zmq.Context()
        self.context.setsockopt(zmq.MAX_SOCKETS, 256)
        self.zap: Zap | None = None
        self.roles: Roles | None = None
        self.remote: Sockets | None = None
        self._remote_at: tuple[str, str, Callable[[zmq.Socket[bytes]], None] | None] | None = None
        try:
            self.local = self._bind_local()
            self._bind_remote(settings, state, refused)
        except BaseException:
            self.context.destroy(0)
            raise

    @property
    def all(self) -> list[Sockets]:
        """Those that are open."""
        return [self.local] if self.remote is None else [self.local, self.remote]

    def _bind_local(self) -> Sockets:
        """Sockets in the runtime folder, for our user and our group only from the first moment."""
        before = os.umask(0o117)
        try:
            for name in ("stream", "api"):
                path = self.runtime / name
                if path.exists() and not stat.S_ISSOCK(path.lstat().st_mode):
                    raise OSError(f"{path} is in the way and is no socket; remove it")
            return Sockets(self.context, f"ipc://{self.runtime}/stream", f"ipc://{self.runtime}/api")
        finally:
            os.umask(before)

    def _bind_remote(self, settings: description.Gateway, state: Path, refused: Callable[[str, str], None]) -> None:
        """TCP for other machines, where the site file asks for it: CURVE, or plain on loopback by explicit choice."""
        endpoint = settings.endpoint
        if not endpoint:
            return
        host, _, port = endpoint.rpartition(":")
        stream = settings.publish or f"{host}:{int(port) + 1}"
        prepare = None
        if settings.plain_loopback:
            if not (loopback(endpoint) and loopback(stream)):
                raise OSError(f"{endpoint}: without CURVE only loopback is served")
        else:
            folder = Path(settings.keys) if settings.keys else folder_of(state)
            public, secret = server_keys(folder)
            self.roles = Roles(folder)
            self.zap = Zap(self.context, self.roles, refused)
            prepare = curve(public, secret)
        self._remote_at = (stream, endpoint, prepare)
        self.remote = Sockets(self.context, *self._remote_at)

    def cut_remote(self) -> None:
        """Close every connection from outside, because somebody lost a right: those that kept theirs connect anew."""
        if self.remote is not None:
            self.remote.close()
            self.remote = None

    def listen_again(self) -> None:
        """Open the socket for other machines that was cut; its address may take a moment to become free."""
        if self.remote is None and self._remote_at is not None:
            with contextlib.suppress(OSError):
                self.remote = Sockets(self.context, *self._remote_at)

    def close(self) -> None:
        """Close all, and leave no file behind. What was published last gets 200 ms to leave."""
        for transport in self.all:
            transport.stream.setsockopt(zmq.LINGER, 200)
            transport.close()
        if self.zap is not None:
            self.zap.close()
        self.context.term()
        for name in ("stream", "api"):
            with contextlib.suppress(OSError):
                (self.runtime / name).unlink()
