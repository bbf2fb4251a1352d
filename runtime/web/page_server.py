"""What the page of a site and the page of a fleet begin and end with: port, certificate, signals, tasks beside it."""

import asyncio
import ctypes
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence

from starlette.types import ASGIApp

from tidegate.runtime.api.own_address import own_address
from tidegate.runtime.web import certificates
from tidegate.runtime.web.acceptor import Acceptor

RENEW_LOOK_S = 3600.0
MMAP_THRESHOLD, MMAP_BYTES = -3, 256 * 1024  # of mallopt(3)
ARENA_MAX, ARENAS = -8, 1

logger = logging.getLogger("tidegate.web")


def own_names(listen_at: str, names: Sequence[str]) -> tuple[str, ...]:
    """The names and addresses that a certificate is for."""
    host = socket.gethostname().partition(".")[0].lower()
    found = {"localhost", "127.0.0.1", f"{host}.local", *(name.lower() for name in names)}
    if listen_at not in ("0.0.0.0", "::"):
        found.add(listen_at)
    else:
        found.add(own_address())
    return tuple(sorted(one for one in found if one))


def give_back_large_blocks() -> None:
    """Let what scrypt takes for a login, 16 MiB, go back to the kernel: glibc would keep it for the next one.

    And one arena for all threads: each would keep what a crowd of connections once took.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # another libc has none, and keeps other habits
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, MMAP_BYTES)
        mallopt(ARENA_MAX, ARENAS)


async def _renew(made: certificates.Certificates, acceptor: Acceptor) -> None:
    """A certificate that ends soon is renewed; open connections go on."""
    while True:
        await asyncio.sleep(RENEW_LOOK_S)
        try:
            found = await asyncio.to_thread(certificates.ensure, made.folder, made.names)
            if found != made:
                found.renew_into(acceptor.context)
                made = found
        except (certificates.CertificateError, OSError) as why:
            logger.warning("%s", why)


async def serve_page(
    app: ASGIApp, made: certificates.Certificates, listening: socket.socket,
    started: Callable[[certificates.Certificates, int], None], beside: Sequence[Coroutine[None, None, None]] = (),
    ending: Callable[[], Awaitable[None]] | None = None,
) -> None:  # fmt: skip
    """Serve until SIGTERM or SIGINT. beside : what runs meanwhile, whose errors are raised; ending : asked last."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    acceptor = Acceptor(app, made.context())
    tasks = [asyncio.create_task(one) for one in (acceptor.serve(listening), _renew(made, acceptor), *beside)]
    stopping = asyncio.create_task(stop.wait())
    started(made, listening.getsockname()[1])
    try:
        done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            await task  # what ended by a fault of ours ends the process, and says so
    finally:
        listening.close()
        if ending is not None:
            await ending()
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.gather(*tasks, stopping, return_exceptions=True)
        await acceptor.close()
