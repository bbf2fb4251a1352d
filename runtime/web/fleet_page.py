"""The page of a whole fleet, served by the hub: logins and look of a site's page, and it only reads."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tidegate.runtime.api.async_client import AsyncClient
from tidegate.runtime.api.messages import Refused
from tidegate.runtime.carbon.report.local_time import span_of
from tidegate.runtime.console.users import Users
from tidegate.runtime.findings.priority import priority_of
from tidegate.runtime.fleet.hub import hub_overview
from tidegate.runtime.fleet.hub.fleet_report import ReportProblem, gather_fleet
from tidegate.runtime.fleet.hub.hub_store import DatabaseAway, HubStore
from tidegate.runtime.fleet.site_condition import own_version
from tidegate.runtime.state.paths import private_folder
from tidegate.runtime.web import certificates
from tidegate.runtime.web.acceptor import listen
from tidegate.runtime.web.access_tokens import Tokens
from tidegate.runtime.web.live_values import LiveValues
from tidegate.runtime.web.login_codes import Pairing
from tidegate.runtime.web.page_server import give_back_large_blocks, own_names, serve_page
from tidegate.runtime.web.request_guard import RequestGuard, TooLarge
from tidegate.runtime.web.rest_api import json_answer
from tidegate.runtime.web.web_app import COOKIE, Parts, WebApp, _not_valid, _refusal, _too_large

SITES_SHOWN = 500
ACCOUNT_KEPT_S, LOOKED_KEPT_S = 600.0, 2.0

logger = logging.getLogger("tidegate.web")
T = TypeVar("T")


class FleetReader:
    """What the page shows, from the hub's database; each question on a connection of its own, in a thread."""

    def __init__(self, store: HubStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._accounts: dict[str, tuple[float, dict[str, object]]] = {}
        self._seen: tuple[float, list[hub_overview.SiteState]] = (-1e9, [])

    def states(self) -> list[hub_overview.SiteState]:
        """All sites, the worst first; asked at most every two seconds for all viewers."""
        with self._lock:
            if time.monotonic() - self._seen[0] > LOOKED_KEPT_S:
                with contextlib.closing(self._store.another()) as connection:
                    found = hub_overview.overview(connection, int(time.time()), priority_of)
                self._seen = (time.monotonic(), found)
            return self._seen[1]

    def site(self, name: str) -> dict[str, object] | None:
        """One site, None if it is not enrolled here."""
        state = next((one for one in self.states() if one.site == name), None)
        if state is None:
            return None
        with contextlib.closing(self._store.another()) as connection:
            more = hub_overview.one_site(connection, name)
        return None if more is None else {**as_row(state), "now": dict(state.now), **more}

    def account(self, month: str) -> dict[str, object]:
        """The month of all sites. Raises ReportProblem, ValueError."""
        start, end = span_of(month, "UTC")
        with self._lock:
            held = self._accounts.get(month)
            if held is None or time.monotonic() - held[0] > ACCOUNT_KEPT_S:
                document = gather_fleet(self._store, start, end)
                kept = {name: value for name, value in document.items() if name not in ("sites", "jobs_top")}
                absent, not_whole = kept["absent"], kept["not_whole"]
                assert isinstance(absent, list) and isinstance(not_whole, list)
                kept["missing"] = [*absent, *not_whole][:SITES_SHOWN]
                kept["missing_count"] = len(absent) + len(not_whole)
                del kept["absent"], kept["not_whole"]
                held = (time.monotonic(), kept)
                self._accounts = {month: held}  # one month at a time: a viewer's typing fills no memory
            return held[1]


def as_row(state: hub_overview.SiteState) -> dict[str, object]:
    """A site for the page's table."""
    return {
        "site": state.site, "owner": state.owner, "region": state.region, "at": [state.latitude_udeg,
        state.longitude_udeg], "entries": state.entries, "seen_utc_s": state.seen_utc_s, "priority": state.priority,
        "version": state.now.get("version"), "mode": state.now.get("mode"), "utc_sync": state.now.get("utc_sync"),
        "clock_off_s": state.clock_off_s, "certificate_until_utc_s": state.now.get("certificate_until_utc_s"),
        "has_condition": state.has_condition, "reasons": [list(one) for one in state.reasons],
    }  # fmt: skip


class FleetApp(WebApp):
    """The requests of a fleet's page. It has no site of its own, so that whatever would ask one is left out."""

    def __init__(self, parts: Parts, reader: FleetReader) -> None:
        super().__init__(parts)
        self._reader_of_fleet = reader

    def app(self, names: tuple[str, ...]) -> RequestGuard:
        """The ASGI app, answering to these names."""
        routes = [
            Route("/", self._index),
            Route("/ca.crt", self._ca),
            Route("/session", self._told_session, methods=["GET"]),
            Route("/session/login", self._login, methods=["POST"]),
            Route("/session/pair", self._pair, methods=["POST"]),
            Route("/session/logout", self._logout, methods=["POST"]),
            Route("/fleet", self._fleet, methods=["GET"]),
            Route("/fleet/site", self._one, methods=["GET"]),
            Route("/fleet/account", self._account, methods=["GET"]),
            Route("/{name:str}", self._file),
        ]
        handlers = {Refused: _refusal, TooLarge: _too_large, msgspec.ValidationError: _not_valid}
        return RequestGuard(Starlette(routes=routes, exception_handlers=handlers), names)

    async def _index(self, request: Request) -> Response:
        return self._files.answer(request, "fleet.html")

    async def _told_session(self, request: Request) -> Response:
        session = self.parts.sessions.find(request.cookies.get(COOKIE, ""))
        body: dict[str, object] = {"ca_sha256": self.parts.certificates.sha256}
        if session is None:
            return json_answer({**body, "user": None, "has_users": bool(self._all_users())})
        return json_answer({**body, "user": session.user, "role": session.role, "site": "Tidegate"})

    async def _note(self, name: str, detail: str, user: str = "") -> None:
        logger.warning("%s %s %s", name, user, detail)  # a hub has no journal: its own log

    async def _fleet(self, request: Request) -> Response:
        self._reader(request)
        states = await self._asked(self._reader_of_fleet.states)
        wanted = request.query_params.get("find", "").lower()[:100]
        found = [one for one in states if wanted in f"{one.site} {one.owner} {one.region}".lower()]
        alarms = [[one.site, *reason] for one in found for reason in one.reasons if reason.key == "alarm"]
        alarms.sort(key=lambda row: (hub_overview.ORDER.index(str(row[1])), str(row[0])))
        counts = {name: sum(one.priority == name for one in states) for name in hub_overview.ORDER}
        return json_answer({
            "now_utc_s": int(time.time()), "version": own_version(), "count": len(states), "found": len(found),
            "counts": counts, "certificate_until_utc_s": int(self.parts.certificates.until_utc_s),
            "alarms": alarms[: hub_overview.ALARMS_MAX], "alarms_count": len(alarms),
            "sites": [as_row(one) for one in found[:SITES_SHOWN]],
        })  # fmt: skip

    async def _one(self, request: Request) -> Response:
        self._reader(request)
        name = request.query_params.get("name", "")
        found = await self._asked(lambda: self._reader_of_fleet.site(name))
        if found is None:
            raise Refused("unknown-point", f"no site {name[:64]!r} is enrolled here")
        return json_answer({**found, "now_utc_s": int(time.time())})

    async def _account(self, request: Request) -> Response:
        self._reader(request)
        month = request.query_params.get("month", "")
        if len(month) != 7:
            raise Refused("invalid-field", "month: as 2026-10")
        return json_answer(await self._asked(lambda: self._reader_of_fleet.account(month)))

    async def _asked(self, question: Callable[[], T]) -> T:
        """An answer of the database, in a thread. Raises Refused where there is none."""
        try:
            return await asyncio.to_thread(question)
        except ReportProblem as why:
            raise Refused("unavailable", str(why)) from None
        except ValueError as why:
            raise Refused("invalid-field", str(why)) from None
        except DatabaseAway as why:
            raise Refused("unavailable", f"PostgreSQL: {str(why).strip()[:200]}") from None


@dataclass(frozen=True)
class FleetServed:
    """What a fleet's page is started with."""

    folder: Path
    listen: str
    port: int
    names: Sequence[str] = ()


def web_folder(folder: Path) -> Path:
    """Where the hub's page keeps keys and tokens. Raises PermissionError."""
    return private_folder(folder / "web", 0o700)


def users_folder(folder: Path) -> Path:
    """Where the hub's page keeps its logins. Raises PermissionError."""
    return private_folder(folder / "console", 0o700)


async def serve_fleet(
    served: FleetServed, store: HubStore, started: Callable[[certificates.Certificates, int], None]
) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError, CertificateError."""
    give_back_large_blocks()
    folder = web_folder(served.folder)
    names = own_names(served.listen, served.names)
    made = certificates.ensure(folder, names)
    listening = listen(served.listen, served.port)
    # There is no gateway beside a hub; FleetApp asks neither of the two.
    parts = Parts(cast(AsyncClient, None), cast(LiveValues, None), Users(users_folder(served.folder)),
                  Pairing(folder), Tokens(folder / "tokens.json"), made, None)  # fmt: skip
    await serve_page(FleetApp(parts, FleetReader(store)).app(names), made, listening, started)
