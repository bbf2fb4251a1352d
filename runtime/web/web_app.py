"""The page's requests: who may ask what, and where the answer comes from."""

import asyncio
import gzip
import importlib.util
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tidegate.runtime.api.async_client import AsyncClient
from tidegate.runtime.api.connection import ClientError
from tidegate.runtime.api.messages import Refused
from tidegate.runtime.console.users import User, UserError, Users
from tidegate.runtime.web.access_tokens import Holder, Tokens
from tidegate.runtime.web.certificates import Certificates
from tidegate.runtime.web.history_csv import csv_of
from tidegate.runtime.web.history_store import HistoryStore
from tidegate.runtime.web.live_values import HZ_MAX, LiveValues
from tidegate.runtime.web.login_codes import Pairing, PairingError
from tidegate.runtime.web.openapi import document
from tidegate.runtime.web.page_actions import PageActions, Wanted
from tidegate.runtime.web.passkey_desk import Options, PasskeyDesk, Signed, Which
from tidegate.runtime.web.passkeys import Passkey, Passkeys, rp_id_of
from tidegate.runtime.web.planner_question import what_if
from tidegate.runtime.web.replayed_moments import ReplayedMoments
from tidegate.runtime.web.request_guard import RequestGuard, TooLarge
from tidegate.runtime.web.rest_api import ask, body_of, checked, fields_of_query, json_answer, refused
from tidegate.runtime.web.setup_desk import Review, SetupDesk, Text
from tidegate.runtime.web.setup_jobs import Task
from tidegate.runtime.web.static_files import StaticFiles
from tidegate.runtime.web.web_sessions import LoginGuard, Session, Sessions

COOKIE = "__Host-tidegate"
STREAMS_MAX, OF_A_SESSION_MAX = 64, 6
SERIES_MAX, WIDTH_MAX = 12, 2000
NOTED_EVERY_S = 10.0  # refused logins are noted no more often: a flood does not fill the journal

logger = logging.getLogger("tidegate.web")
Answerer = Callable[[Request], Awaitable[Response]]


@dataclass
class Parts:
    """What the requests work with. site_file: None where the page was started without one.

    state: the site's folder; None at a hub. sets_up: the page may change the site file and run commands.
    """

    client: AsyncClient
    live: LiveValues
    users: Users
    pairing: Pairing
    tokens: Tokens
    certificates: Certificates
    history: HistoryStore | None
    site_file: Path | None = None
    history_problem: str = ""
    moments: ReplayedMoments | None = None
    state: Path | None = None
    sets_up: bool = False
    planner_port: int | None = None
    passkeys: Passkeys | None = None
    sessions: Sessions = field(init=False)
    guard: LoginGuard = field(default_factory=LoginGuard)

    def __post_init__(self) -> None:
        self.sessions = Sessions(self.users)


class Login(msgspec.Struct, forbid_unknown_fields=True):
    """A name with its password."""

    user: str
    password: str


class Pair(msgspec.Struct, forbid_unknown_fields=True):
    """A code of `tidegate web pair`, and the login that it is to become."""

    code: str
    user: str
    password: str


class Password(msgspec.Struct, forbid_unknown_fields=True):
    """The password again."""

    password: str


class Confirmation(msgspec.Struct, forbid_unknown_fields=True):
    """An order that was shown and is meant."""

    token: str


class WebApp:
    """All requests of one unit's page."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.actions = PageActions(parts.client, parts.live)
        self._files = StaticFiles()
        self._openapi = msgspec.json.encode(document())
        self._streams = 0
        self._guessing = asyncio.Semaphore(1)  # scrypt takes 16 MiB and 50 ms: one at a time
        self.desk: SetupDesk | None = None
        if parts.site_file is not None and parts.state is not None:
            self.desk = SetupDesk(parts.client, self.actions, parts.site_file, parts.state, changes=parts.sets_up,
                                  note=lambda user, name, text: self._note(name, text, user))  # fmt: skip
        self._noted_s = -1e9
        self.passkeys = None if parts.passkeys is None else PasskeyDesk(parts.passkeys, parts.users)

    def app(self, names: tuple[str, ...]) -> RequestGuard:
        """The ASGI app, answering to these names."""
        routes = [
            Route("/", self._index),
            Route("/{name:str}", self._file),
            Route("/ca.crt", self._ca),
            Route("/openapi.json", self._document),
            Route("/session", self._told_session, methods=["GET"]),
            Route("/session/login", self._login, methods=["POST"]),
            Route("/session/pair", self._pair, methods=["POST"]),
            Route("/session/logout", self._logout, methods=["POST"]),
            Route("/session/arm", self._arm, methods=["POST"]),
            Route("/session/disarm", self._disarm, methods=["POST"]),
            Route("/session/passkeys", self._own_passkeys, methods=["GET"]),
            Route("/session/passkey/options", self._passkey_options, methods=["POST"]),
            Route("/session/passkey/login", self._passkey_login, methods=["POST"]),
            Route("/session/passkey/arm", self._passkey_arm, methods=["POST"]),
            Route("/session/passkey/register", self._passkey_register, methods=["POST"]),
            Route("/session/passkey/remove", self._passkey_remove, methods=["POST"]),
            Route("/orders/prepare", self._prepare, methods=["POST"]),
            Route("/orders/confirm", self._confirm, methods=["POST"]),
            Route("/live", self._live, methods=["GET"]),
            Route("/history", self._history, methods=["GET"]),
            Route("/history/series", self._series, methods=["GET"]),
            Route("/recordings/around", self._around, methods=["GET"]),
            Route("/setup/file", self._setup_file, methods=["GET"]),
            Route("/setup/schema", self._setup_schema, methods=["GET"]),
            Route("/setup/review", self._setup_review, methods=["POST"]),
            Route("/setup/apply", self._setup_apply, methods=["POST"]),
            Route("/setup/task", self._setup_task, methods=["POST"]),
            Route("/setup/job", self._setup_job, methods=["GET"]),
            Route("/setup/end", self._setup_end, methods=["POST"]),
            Route("/plan/what-if", self._what_if, methods=["GET"]),
            Route("/api/v1/{op:str}", self._operation, methods=["GET", "POST"]),
        ]
        routes.append(routes.pop(1))  # files last: every other path is found before
        handlers = {Refused: _refusal, TooLarge: _too_large, msgspec.ValidationError: _not_valid}
        return RequestGuard(Starlette(routes=routes, exception_handlers=handlers), names)

    # ---- who asks ----

    def _session(self, request: Request) -> Session | None:
        return self.parts.sessions.find(request.cookies.get(COOKIE, ""))

    def _holder(self, request: Request) -> Holder | None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        return self.parts.tokens.find(token.strip()) if kind.lower() == "bearer" else None

    def _reader(self, request: Request) -> Session | Holder:
        """Who may read. Raises Refused."""
        found = self._session(request) or self._holder(request)
        if found is None:
            raise Refused("not-allowed", "log in first, or send a token", status=401)
        return found

    def _logged_in(self, request: Request) -> Session:
        found = self._session(request)
        if found is None:
            raise Refused("not-allowed", "log in first", status=401)
        return found

    # ---- files ----

    async def _index(self, request: Request) -> Response:
        return self._files.answer(request, "index.html")

    async def _file(self, request: Request) -> Response:
        return self._files.answer(request, request.path_params["name"])

    async def _ca(self, request: Request) -> Response:
        return Response(self.parts.certificates.ca, media_type="application/x-x509-ca-cert")

    async def _document(self, request: Request) -> Response:
        return Response(self._openapi, media_type="application/json")

    # ---- sessions ----

    async def _told_session(self, request: Request) -> Response:
        """Who is logged in; what somebody who is not has to know: whether there is any login at all yet."""
        session = self._session(request)
        site = self.parts.live.site["site"]["name"] if self.parts.live.site is not None else ""
        body: dict[str, object] = {"ca_sha256": self.parts.certificates.sha256}
        if self.passkeys is not None:
            named = [name for name in self.parts.certificates.names if rp_id_of(name) and name != "localhost"]
            body["passkeys"] = {"rp_id": rp_id_of(request.headers.get("host", "")), "names": named}
        if session is None:
            return json_answer({**body, "user": None, "has_users": bool(self._all_users())})
        armed_s = self.parts.sessions.armed_s(session)
        return json_answer({**body, "user": session.user, "role": session.role, "armed_s": armed_s, "site": site})

    def _all_users(self) -> dict[str, object]:
        try:
            return dict(self.parts.users.all())
        except UserError as why:
            raise Refused("internal", str(why)) from None

    async def _login(self, request: Request) -> Response:
        wanted = msgspec.convert(await body_of(request), Login)
        address = self._address(request)
        if not await self._fits(address, wanted.user, wanted.password):
            return refused(Refused("not-allowed", "wrong name or password"))
        user = self.parts.users.all()[wanted.user]
        session, token = self.parts.sessions.open(user)
        await self._note("web login", f"{user.role}, from {address}", user.name)
        return _with_cookie(json_answer({"user": session.user, "role": session.role}), token)

    async def _fits(self, address: str, name: str, password: str) -> bool:
        """Whether the password is right; counted where it is not. Raises Refused while locked."""
        async with self._guessing:
            left_s = self.parts.guard.left_s(address, name)
            if left_s > 0:
                raise Refused("locked", f"locked for {left_s:.0f} s after wrong passwords")
            try:
                user = await asyncio.to_thread(self.parts.users.check, name, password)
            except UserError as why:
                raise Refused("internal", str(why)) from None
            if user is not None:
                self.parts.guard.passed(address, name)
                return True
            failures = self.parts.guard.failed(address, name)
        if time.monotonic() - self._noted_s >= NOTED_EVERY_S:
            self._noted_s = time.monotonic()
            await self._note("web login refused", f"{address}, {failures} in a row")
        return False

    async def _pair(self, request: Request) -> Response:
        wanted = msgspec.convert(await body_of(request), Pair)
        address = self._address(request)
        left_s = self.parts.guard.left_s(address, "")
        if left_s > 0:
            raise Refused("locked", f"locked for {left_s:.0f} s after wrong codes")
        known = self._all_users()
        try:
            open_role, open_user = self.parts.pairing.look(wanted.code)
        except PairingError as why:
            self.parts.guard.failed(address, "")
            return refused(Refused("not-allowed", str(why)))
        if open_user and open_user != wanted.user:
            raise Refused("not-allowed", f"that code is for {open_user}")
        if not open_user and wanted.user in known:
            raise Refused("not-allowed", f"there is a login {wanted.user}; take another name, or: tidegate web pair "
                          f"--user {wanted.user}")  # fmt: skip
        async with self._guessing:
            try:
                await asyncio.to_thread(self.parts.users.put, wanted.user, open_role, wanted.password)
            except UserError as why:  # the code stays good: somebody chose a weak password, or a name that is none
                raise Refused("invalid-field", str(why)) from None
        self.parts.pairing.use_up()
        self.parts.guard.passed(address, wanted.user)
        self.parts.sessions.close_user(wanted.user)
        session, token = self.parts.sessions.open(self.parts.users.all()[wanted.user])
        await self._note("web paired", f"{open_role}, from {address}", session.user)
        return _with_cookie(json_answer({"user": session.user, "role": session.role}), token)

    async def _logout(self, request: Request) -> Response:
        session = self._session(request)
        if session is not None:
            self.parts.sessions.close(session)
            await self._note("web logout", "", session.user)
        return _with_cookie(json_answer({}), "")

    async def _arm(self, request: Request) -> Response:
        session = self._operating(request)
        wanted = msgspec.convert(await body_of(request), Password)
        if not await self._fits(self._address(request), session.user, wanted.password):
            return refused(Refused("not-allowed", "wrong password"))
        return json_answer({"armed_s": self.parts.sessions.arm(session)})

    def _operating(self, request: Request) -> Session:
        session = self._logged_in(request)
        if not session.may("operate"):
            raise Refused("not-allowed", f"orders need the role operate; {session.user} has {session.role}")
        return session

    async def _disarm(self, request: Request) -> Response:
        self.parts.sessions.disarm(self._logged_in(request))
        return json_answer({"armed_s": 0})

    # ---- passkeys ----

    def _at_passkeys(self) -> PasskeyDesk:
        if self.passkeys is None:
            raise Refused("unavailable", "this page knows no passkeys")
        return self.passkeys

    async def _own_passkeys(self, request: Request) -> Response:
        session = self._logged_in(request)
        return json_answer(self._at_passkeys().listed(session, request.headers.get("host", "")))

    async def _passkey_options(self, request: Request) -> Response:
        wanted = msgspec.convert(await body_of(request), Options)
        address, host = self._address(request), request.headers.get("host", "")
        if wanted.kind == "login":
            return json_answer(self._at_passkeys().options("login", "", "", address, host))
        session = self._logged_in(request)
        if wanted.kind == "register" and not await self._fits(address, session.user, wanted.password):
            return refused(Refused("not-allowed", "wrong password"))
        if wanted.kind not in ("register", "arm"):
            raise Refused("invalid-field", "kind: login, arm or register")
        return json_answer(self._at_passkeys().options(wanted.kind, session.user, session.id, address, host))

    async def _entered(self, request: Request, kind: str, session: Session | None) -> tuple[User, Passkey]:
        """Whose passkey was answered with; what was not believed counts as a wrong password of its address."""
        signed = msgspec.convert(await body_of(request), Signed)
        address = self._address(request)
        left_s = self.parts.guard.left_s(address, "")
        if left_s > 0:
            raise Refused("locked", f"locked for {left_s:.0f} s after wrong passwords")
        try:
            user, passkey = await self._at_passkeys().enter(signed, kind, session)
        except Refused as why:
            failures = self.parts.guard.failed(address, "")
            whose = str(why.more.pop("user", ""))
            if whose or time.monotonic() - self._noted_s >= NOTED_EVERY_S:
                self._noted_s = time.monotonic()
                await self._note("web passkey refused", f"{address}, {failures} in a row: {why.text}", whose)
            raise
        self.parts.guard.passed(address, "")
        return user, passkey

    async def _passkey_login(self, request: Request) -> Response:
        user, passkey = await self._entered(request, "login", None)
        session, token = self.parts.sessions.open(user, passkey.id)
        await self._note("web login", f"{user.role}, from {self._address(request)}, passkey {passkey.name}", user.name)
        return _with_cookie(json_answer({"user": session.user, "role": session.role}), token)

    async def _passkey_arm(self, request: Request) -> Response:
        session = self._operating(request)
        await self._entered(request, "arm", session)
        return json_answer({"armed_s": self.parts.sessions.arm(session)})

    async def _passkey_register(self, request: Request) -> Response:
        session = self._logged_in(request)
        made = await self._at_passkeys().register(session, msgspec.convert(await body_of(request), Signed))
        await self._note("web passkey added", f"{made.name}, for {made.rp_id}", session.user)
        return json_answer({"name": made.name})

    async def _passkey_remove(self, request: Request) -> Response:
        """Take one of one's own, and end what was opened with it: it makes nothing wider and needs no password."""
        session = self._logged_in(request)
        gone = self._at_passkeys().remove(session, msgspec.convert(await body_of(request), Which).id)
        self.parts.sessions.close_passkey(gone.id)
        await self._note("web passkey removed", gone.name, session.user)
        return json_answer({"name": gone.name})

    # ---- orders ----

    def _armed(self, request: Request, *, stop: bool = False) -> Session:
        """Who gives an order: armed, but for a stop, which only makes things safer. Raises Refused."""
        session = self._logged_in(request)
        if not self.parts.tokens.has_room(f"session:{session.user}"):
            raise Refused("busy", "too many orders at once; try again in a second")
        if not stop and not self.parts.sessions.armed_s(session):
            raise Refused("not-allowed", "this page only reads until it is armed")
        return session

    async def _prepare(self, request: Request) -> Response:
        self._logged_in(request)
        wanted = msgspec.convert(await body_of(request), Wanted)
        return json_answer(self.actions.prepare(self._armed(request, stop=wanted.action == "stop"), wanted))

    async def _confirm(self, request: Request) -> Response:
        self._logged_in(request)
        wanted = msgspec.convert(await body_of(request), Confirmation)
        session = self._armed(request, stop=self.actions.is_stop(wanted.token))
        try:
            return json_answer(await self.actions.confirm(session, wanted.token))
        except ClientError as why:
            return refused(why)

    # ---- what is shown ----

    async def _live(self, request: Request) -> Response:
        who = self._reader(request)
        hz = _number(request, "hz", 5.0, 0.2, HZ_MAX)
        if self._streams >= STREAMS_MAX or (isinstance(who, Session) and who.streams >= OF_A_SESSION_MAX):
            raise Refused("busy", "too many pages look at once; close one")
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(self._events(request, who, hz), headers=headers, media_type="text/event-stream")

    async def _events(self, request: Request, who: Session | Holder, hz: float) -> AsyncIterator[bytes]:
        self._streams += 1
        if isinstance(who, Session):
            who.streams += 1
        sessions = self.parts.sessions

        def good() -> bool:
            """Still logged in, asked anew at each event: a right that was taken ends a stream that is open."""
            if isinstance(who, Session):
                return sessions.still(who.id) is not None
            return self._holder(request) == who

        try:
            async for event in self.parts.live.stream(hz, good):
                yield event
        finally:
            self._streams -= 1
            if isinstance(who, Session):
                who.streams -= 1

    async def _what_if(self, request: Request) -> Response:
        self._reader(request)
        return json_answer(await what_if(self.parts.planner_port, dict(request.query_params)))

    async def _series(self, request: Request) -> Response:
        self._reader(request)
        store = self._store()
        span = await asyncio.to_thread(store.span)
        names = await asyncio.to_thread(store.names)
        return json_answer({"series": names, "span_utc_s": span, "problem": store.problem, "now_utc_s": time.time()})

    def _store(self) -> HistoryStore:
        if self.parts.history is None:
            raise Refused("unavailable", self.parts.history_problem or "this page keeps no history")
        return self.parts.history

    async def _history(self, request: Request) -> Response:
        self._reader(request)
        store = self._store()
        names = [name for name in request.query_params.get("series", "").split(",") if name]
        known = set(await asyncio.to_thread(store.names))
        if not 1 <= len(names) <= SERIES_MAX or set(names) - known:
            raise Refused("unknown-point", f"series: 1 to {SERIES_MAX} of those that /history/series lists")
        until = int(_number(request, "until", time.time(), 0, 1e11))
        since = int(_number(request, "since", until - 86_400, 0, 1e11))
        if since >= until:
            raise Refused("invalid-field", "since lies not before until")
        width = int(_number(request, "width", 600, 10, WIDTH_MAX))
        if request.query_params.get("format") == "csv":
            return await asyncio.to_thread(csv_of, store, names, since, until)
        found = {}
        for name in names:
            step_s, slots = await asyncio.to_thread(store.read, name, since, until, width)
            found[name] = {"step_s": step_s, "slots": [(s.utc_s, s.least, s.most, s.mean) for s in slots]}
        return json_answer({"since": since, "until": until, "series": found})

    async def _around(self, request: Request) -> Response:
        """What every signal did a minute before and after a moment, decided again."""
        who = self._reader(request)
        if not self.parts.tokens.has_room(who.name if isinstance(who, Holder) else f"session:{who.user}"):
            raise Refused("busy", "too many requests at once; try again in a second")
        if self.parts.moments is None or importlib.util.find_spec("mcap") is None:
            raise Refused("unavailable", "the page cannot read recordings here: pip install 'tidegate[recorder]'")
        if "at" not in request.query_params:
            raise Refused("invalid-field", "at: the moment, UTC in s")
        packed = await self.parts.moments.around(_number(request, "at", 0.0, 0.0, 1e11))
        return _packed(request, packed)

    # ---- set-up ----

    def _at_desk(self, request: Request) -> tuple[Session, SetupDesk]:
        """Whoever may set the site up. Raises Refused."""
        session = self._logged_in(request)
        if not session.may("maintain"):
            raise Refused("not-allowed", f"set-up needs the role maintain; {session.user} has {session.role}")
        if self.desk is None:
            raise Refused("unavailable", "the page was started without the site file: tidegate web serve hall.toml")
        return session, self.desk

    async def _setup_file(self, request: Request) -> Response:
        return json_answer(await self._at_desk(request)[1].file())

    async def _setup_schema(self, request: Request) -> Response:
        packed = gzip.compress(self._at_desk(request)[1].schema(), 6)
        return _packed(request, packed)

    async def _setup_review(self, request: Request) -> Response:
        _, desk = self._at_desk(request)
        return json_answer(await desk.review(msgspec.convert(await body_of(request), Text).text))

    async def _setup_apply(self, request: Request) -> Response:
        session, desk = self._at_desk(request)
        self._armed(request)
        return json_answer(desk.prepare_apply(session, msgspec.convert(await body_of(request), Review)))

    async def _setup_task(self, request: Request) -> Response:
        session, desk = self._at_desk(request)
        task = msgspec.convert(await body_of(request), Task)
        if task.kind == "doctor":
            return json_answer(await desk.doctor(session))
        self._armed(request)
        return json_answer(desk.prepare_task(session, task))

    async def _setup_job(self, request: Request) -> Response:
        return json_answer(self._at_desk(request)[1].jobs.look())

    async def _setup_end(self, request: Request) -> Response:
        """End a command, which only makes things safer: it needs no arming."""
        session, desk = self._at_desk(request)
        desk.jobs.end(f"by {session.user}")
        return json_answer(desk.jobs.look())

    async def close(self) -> None:
        """The page ends."""
        if self.desk is not None:
            await self.desk.jobs.close()

    # ---- the API ----

    async def _operation(self, request: Request) -> Response:
        """An operation: for a token all that its role may, for a login at the page what only reads."""
        who = self._reader(request)
        if not self.parts.tokens.has_room(who.name if isinstance(who, Holder) else f"session:{who.user}"):
            raise Refused("busy", "too many requests at once; try again in a second")
        op = request.path_params["op"]
        if request.method == "GET":
            fields = checked(op, fields_of_query(request.query_params), strict=False)
            return await ask(self.parts.client, op, fields, who, orders=False)
        fields = checked(op, await body_of(request), strict=True)
        return await ask(self.parts.client, op, fields, who, orders=isinstance(who, Holder))

    # ---- what else ----

    def _address(self, request: Request) -> str:
        return request.client.host if request.client is not None else "?"

    async def _note(self, name: str, detail: str, user: str = "") -> None:
        """A line for the journal; a gateway that is away does not keep anybody from reading."""
        try:
            await self.parts.client.ask("note", name=name, detail=detail, **({"user": user} if user else {}))
        except ClientError as why:
            logger.warning("not in the journal: %s %s %s (%s)", name, user, detail, why)


def _packed(request: Request, packed: bytes) -> Response:
    """JSON that is compressed already, for a client that takes it so or not."""
    takes = "gzip" in request.headers.get("accept-encoding", "")
    headers = {"vary": "accept-encoding", **({"content-encoding": "gzip"} if takes else {})}
    return Response(packed if takes else gzip.decompress(packed), headers=headers, media_type="application/json")


def _number(request: Request, name: str, default: float, least: float, most: float) -> float:
    """A number of the address. Raises Refused."""
    text = request.query_params.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise Refused("invalid-field", f"{name}: a number from {least:g} to {most:g}")
    return value


def _with_cookie(response: Response, token: str) -> Response:
    """The session's cookie, or its end."""
    response.set_cookie(COOKIE, token, max_age=None if token else 0, path="/", secure=True, httponly=True,
                        samesite="strict")  # fmt: skip
    return response


async def _refusal(request: Request, why: Exception) -> Response:
    assert isinstance(why, Refused)
    answer = refused(why)
    answer.status_code = why.more.get("status", answer.status_code)  # type: ignore[assignment]
    return answer


async def _too_large(request: Request, why: Exception) -> Response:
    return refused(Refused("too-large", "the body is too large"))


async def _not_valid(request: Request, why: Exception) -> Response:
    return refused(Refused("invalid-field", str(why)[:200]))
