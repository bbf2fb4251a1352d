"""The page's process: a client of the gateway, a TLS port, a history on disk. It may die unnoticed."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tidegate.runtime.api.async_client import AsyncClient
from tidegate.runtime.api.connection import ClientError
from tidegate.runtime.console.users import Users
from tidegate.runtime.state.enclosure import enclose
from tidegate.runtime.state.paths import private_folder
from tidegate.runtime.state.syscalls import NETWORK
from tidegate.runtime.web import certificates
from tidegate.runtime.web.acceptor import listen
from tidegate.runtime.web.access_tokens import Tokens
from tidegate.runtime.web.history_store import HistoryStore
from tidegate.runtime.web.live_values import LiveValues
from tidegate.runtime.web.login_codes import Pairing
from tidegate.runtime.web.login_watch import follow_logins
from tidegate.runtime.web.page_server import give_back_large_blocks, own_names, serve_page
from tidegate.runtime.web.passkeys import Passkeys
from tidegate.runtime.web.replayed_moments import ReplayedMoments
from tidegate.runtime.web.web_app import Parts, WebApp

AGAIN_S = 2.0
BREATH_S = 0.001  # between records of a replay: a page that catches up leaves the processor to others
NO_BOOT = "0" * 32  # of no core: the journal is then given from its oldest record

logger = logging.getLogger("tidegate.web")


@dataclass(frozen=True)
class Served:
    """What a page is started with. names: those that it answers to, besides the addresses it is reached at.

    sets_up: it may change the site file and run commands.
    """

    endpoint: str
    state: Path
    listen: str
    port: int
    names: tuple[str, ...] = ()
    site_file: Path | None = None
    keeps_history: bool = True
    sets_up: bool = False
    planner_port: int | None = None  # of the planner beside it, on loopback

    @property
    def console(self) -> Path:
        """Folder of the users: those of the console are those of the page, which adds to them."""
        return self.state / "console"


def folder_of(state: Path) -> Path:
    """Where the page keeps its keys, tokens and history. Raises PermissionError."""
    return private_folder(state / "web", 0o700)


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


def confine(served: Served) -> None:
    """Give up all but the page's own folder, the users' and the one port, for the whole process.

    What it starts (a replay, a check of the site file) is as confined. One that sets up is not: it writes the site file
    and moves the battery through the ports. To be called before there is another thread. What is made by a process of
    its own is made before. Raises OSError, CertificateError.
    """
    if served.sets_up:
        return
    certificates.ensure(folder_of(served.state), own_names(served.listen, served.names))
    os.environ["SQLITE_TMPDIR"] = str(folder_of(served.state))  # what a large sort needs, where it may write
    reads = [served.state, *([served.site_file.resolve().parent] if served.site_file is not None else [])]
    reaches = [] if served.planner_port is None else [served.planner_port]
    writes = [folder_of(served.state), private_folder(served.console, 0o700)]
    enclose("web", writes, reads, binds=[served.port], reaches=reaches, families=NETWORK, starts=True)


async def serve(served: Served, started: Callable[[certificates.Certificates, int], None]) -> None:
    """Serve until SIGTERM or SIGINT. started: gets the certificates and the port. Raises OSError, CertificateError."""
    give_back_large_blocks()
    folder = folder_of(served.state)
    names = own_names(served.listen, served.names)
    made = certificates.ensure(folder, names)
    listening = listen(served.listen, served.port)
    users = Users(private_folder(served.console, 0o700))
    store, problem = _opened(folder, served.keeps_history)
    # Its orders come from another machine, and the gateway treats them so: it lifts no stop that was given on site.
    async with AsyncClient(served.endpoint, for_remote=True) as client:
        live = LiveValues(client)
        parts = Parts(client, live, users, Pairing(folder), Tokens(folder / "tokens.json"), made, store,
                      served.site_file, problem, ReplayedMoments(served.state / "recordings"), served.state,
                      served.sets_up, served.planner_port, Passkeys(folder / "passkeys.json"))  # fmt: skip
        app = WebApp(parts)
        beside = [
            live.run(),
            follow_logins(client, users, parts.tokens),
            *([] if store is None else [_fill(client, store)]),
        ]
        if app.desk is not None:
            beside.append(app.desk.follow_place())
        try:
            await serve_page(app.app(names), made, listening, started, beside, app.close)
        finally:
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
