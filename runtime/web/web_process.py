"""The page's process: a client of the gateway, a TLS port, a history on disk. It may die unnoticed."""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tidegate.runtime.api.async_client import AsyncClient
from tidegate.runtime.api.connection import ClientError
from tidegate.runtime.api.own_address import own_address
from tidegate.runtime.console.users import Users
from tidegate.runtime.state.enclosure import enclose
from tidegate.runtime.state.paths import private_folder
from tidegate.runtime.state.syscalls import NETWORK
from tidegate.runtime.web import certificates
from tidegate.runtime.web.acceptor import Acceptor, listen
from tidegate.runtime.web.access_tokens import Tokens
from tidegate.runtime.web.history_store import HistoryStore
from tidegate.runtime.web.live_values import LiveValues
from tidegate.runtime.web.login_codes import Pairing
from tidegate.runtime.web.replayed_moments import ReplayedMoments
from tidegate.runtime.web.web_app import Parts, WebApp

RENEW_LOOK_S = 3600.0
AGAIN_S = 2.0
BREATH_S = 0.001  # between records of a replay: a page that catches up leaves the processor to others
MMAP_THRESHOLD, MMAP_BYTES = -3, 256 * 1024  # of mallopt(3)
NO_BOOT = "0" * 32  # of no core: the journal is then given from its oldest record

logger = logging.getLogger("tidegate.web")


@dataclass(frozen=True)
class Served:
    """What a page is started with. names: those that it answers to, besides the addresses it is reached at."""

    endpoint: str
    state: Path
    listen: str
    port: int
    names: tuple[str, ...] = ()
    site_file: Path | None = None
    keeps_history: bool = True

    @property
    def console(self) -> Path:
        """Folder of the users: those of the console are those of the page, which adds to them."""
        return self.state / "console"


def folder_of(state: Path) -> Path:
    """Where the page keeps its keys, tokens and history. Raises PermissionError."""
    return private_folder(state / "web", 0o700)


def own_names(listen_at: str, names: Sequence[str]) -> tuple[str, ...]:
    """The names and addresses that a certificate is for."""
    host = socket.gethostname().partition(".")[0].lower()
    found = {"localhost", "127.0.0.1", f"{host}.local", *(name.lower() for name in names)}
    if listen_at not in ("0.0.0.0", "::"):
        found.add(listen_at)
    else:
        found.add(own_address())
    return tuple(sorted(one for one in found if one))


async def _fill(client: AsyncClient, store: HistoryStore) -> None:
    """Bring the journal's meter records into the history, from where it ended, and go on with those that come."""
    while True:
        since = {"meter": store.position or (NO_BOOT, -1)}
        try:
            async for record in client.subscribe("meter", since=since):
                if record.get("kind") == "meter":
                    store.take(record)
                    await asyncio.sleep(BREATH_S)
        except ClientError as why:
            logger.info("history waits: %s", why)
        await asyncio.sleep(AGAIN_S)


async def _renew(made: certificates.Certificates, acceptor: Acceptor) -> None:
    """A certificate that ends soon is renewed; open connections go on."""
    while True:
        await asyncio.sleep(RENEW_LOOK_S)
        try:
            found = await asyncio.to_thread(certificates.ensure, made.folder, made.names, apart=False)
            if found != made:
                found.renew_into(acceptor.context)
                made = found
        except (certificates.CertificateError, OSError) as why:
            logger.warning("%s", why)


def give_back_large_blocks() -> None:
    """Let what scrypt takes for a login, 16 MiB, go back to the kernel: glibc would keep it for the next one."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # another libc has none, and keeps other habits
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, MMAP_BYTES)


def confine(served: Served) -> None:
    """Give up all but the page's own folder, the users' and the one port, for the whole process.

    To be called before there is another thread. What is made by a process of its own is made before. Raises OSError,
    CertificateError.
    """
    certificates.ensure(folder_of(served.state), own_names(served.listen, served.names))
    os.environ["SQLITE_TMPDIR"] = str(folder_of(served.state))  # what a large sort needs, where it may write
    reads = [served.state, *([served.site_file.resolve().parent] if served.site_file is not None else [])]
    writes = [folder_of(served.state), private_folder(served.console, 0o700)]
    enclose("web", writes, reads, binds=[served.port], families=NETWORK)


async def serve(served: Served, started: Callable[[certificates.Certificates, int], None]) -> None:
    """Serve until SIGTERM or SIGINT. started: gets the certificates and the port. Raises OSError, CertificateError."""
    give_back_large_blocks()
    folder = folder_of(served.state)
    names = own_names(served.listen, served.names)
    made = certificates.ensure(folder, names)
    listening = listen(served.listen, served.port)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    users = Users(private_folder(served.console, 0o700))
    store, problem = _opened(folder, served.keeps_history)
    # Its orders come from another machine, and the gateway treats them so: it lifts no stop that was given on site.
    async with AsyncClient(served.endpoint, for_remote=True) as client:
        live = LiveValues(client)
        parts = Parts(client, live, users, Pairing(folder), Tokens(folder / "tokens.json"), made, store,
                      served.site_file, problem, ReplayedMoments(served.state / "recordings"))  # fmt: skip
        acceptor = Acceptor(WebApp(parts).app(names), made.context())
        tasks = [asyncio.create_task(one) for one in (live.run(), acceptor.serve(listening), _renew(made, acceptor))]
        if store is not None:
            tasks.append(asyncio.create_task(_fill(client, store)))
        started(made, listening.getsockname()[1])
        stopping = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                await task  # what ended by a fault of ours ends the process, and says so
        finally:
            listening.close()
            for task in (*tasks, stopping):
                task.cancel()
            await asyncio.gather(*tasks, stopping, return_exceptions=True)
            await acceptor.close()
            if store is not None:
                with contextlib.suppress(OSError):
                    store.close()


def _opened(folder: Path, wanted: bool) -> tuple[HistoryStore | None, str]:
    """The history, or why there is none: a page without it is still a page."""
    if not wanted:
        return None, "this page was started with --no-history"
    try:
        return HistoryStore(folder / "history.sqlite"), ""
    except OSError as why:
        logger.warning("%s", why)
        return None, str(why)
