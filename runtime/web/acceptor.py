"""Connections to the page: counted by address before anything is read of them, each with its time to say something.

HTTP itself is uvicorn's. What stands here is what it leaves open: how many connections one address may hold, how long a
handshake and the first request may take, and a certificate that can be renewed while the page is served.
"""

import asyncio
import collections
import contextlib
import logging
import socket
import ssl
from asyncio.sslproto import SSLProtocol

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

CONNECTIONS_MAX, OF_AN_ADDRESS_MAX = 256, 32
HANDSHAKE_S, FIRST_REQUEST_S, KEEP_ALIVE_S, END_S = 5.0, 5.0, 15, 2.0
HEAD_BYTES_MAX = 16_384
WRITE_BUFFER = 256 * 1024
BACKLOG = 128
# asyncio keeps a buffer of 256 KiB for each connection with TLS, 50 MiB for 200 of them. A record has at most 16 KiB.
SSLProtocol.max_size = 16 * 1024

logger = logging.getLogger("tidegate.web")


class Connection(H11Protocol):
    """One HTTP connection. `ended` is done once it is closed."""

    def __init__(self, config: uvicorn.Config, state: ServerState) -> None:
        super().__init__(config, state, {})
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        self._due = asyncio.get_running_loop().call_later(FIRST_REQUEST_S, self._look)

    def _look(self) -> None:
        """Close it if no whole request came: a head that is sent a byte at a time holds no place."""
        if self.cycle is None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._due is not None:
            self._due.cancel()
        if not self.ended.done():
            self.ended.set_result(None)


class Acceptor:
    """Takes connections of listening sockets until it is closed."""

    def __init__(self, app: ASGIApp, context: ssl.SSLContext) -> None:
        self.context = context
        self.refused = 0
        self._config = uvicorn.Config(
            app, http=Connection, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False,
            proxy_headers=False, timeout_keep_alive=KEEP_ALIVE_S, h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        )  # fmt: skip
        self._config.load()
        logging.getLogger("uvicorn.error").setLevel(
            logging.ERROR
        )  # a line for each request that is none would be a flood
        self._state = ServerState()
        self._held: collections.Counter[str] = collections.Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[Connection] = set()

    async def serve(self, listening: socket.socket) -> None:
        """Accept for ever."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                taken, address = await loop.sock_accept(listening)
            except OSError as why:  # no descriptor left, or gone before it was taken
                logger.warning("accept: %s", why.strerror)
                await asyncio.sleep(0.1)
                continue
            host = str(address[0])
            if self._held[host] >= OF_AN_ADDRESS_MAX or self._held.total() >= CONNECTIONS_MAX:
                self.refused += 1
                taken.close()
                continue
            self._held[host] += 1
            task = asyncio.create_task(self._hold(taken, host))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _hold(self, taken: socket.socket, host: str) -> None:
        loop = asyncio.get_running_loop()
        made: Connection | None = None
        try:
            taken.setblocking(False)
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _, made = await loop.connect_accepted_socket(
                lambda: Connection(self._config, self._state), taken, ssl=self.context,
                ssl_handshake_timeout=HANDSHAKE_S, ssl_shutdown_timeout=END_S,
            )  # fmt: skip
            self._open.add(made)
            await made.ended
        except (OSError, ssl.SSLError):  # a handshake that failed or took too long
            taken.close()
        finally:
            if made is not None:
                self._open.discard(made)
            self._held[host] -= 1
            if not self._held[host]:
                del self._held[host]

    async def close(self) -> None:
        """End all connections, and let what answers on them see that they ended."""
        for one in list(self._open):
            one.transport.abort()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=END_S)
        for task in list(self._tasks):
            task.cancel()
        for task in list(self._tasks):
            with contextlib.suppress(asyncio.CancelledError):
                await task


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made
