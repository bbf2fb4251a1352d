"""What stands before every request: whose name was called, where an order came from, what a browser may do with a page.

A page of somebody else must neither read this one under another name (DNS rebinding) nor have a visitor's browser give
orders here (CSRF); and what this page shows must run no script but its own.
"""

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), usb=(), serial=()",
    "strict-transport-security": "max-age=31536000",
}
BODY_BYTES_MAX = 16_384
LARGE = {"/setup/review": 262_144}  # a site file; read only once it is known who sends it


def _name_of(host: str) -> str:
    """A host without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


class RequestGuard:
    """Lets a request through to the app, or refuses it. names: hosts that the page answers to."""

    def __init__(self, app: ASGIApp, names: tuple[str, ...]) -> None:
        self._app = app
        self._names = frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As every ASGI app."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if "cache-control" not in headers:
                    headers["cache-control"] = "no-store"
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send_with_headers)
            return
        await self._app(scope, bounded(receive, _bytes_max(scope)), send_with_headers)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        # The address that the connection came to is one of the unit's own, whatever network it is in.
        own = str((scope.get("server") or ("",))[0]).lower()
        if _name_of(host.lower()) not in self._names | {own}:
            return JSONResponse({"code": "not-allowed", "text": f"this unit is not called {host[:64]!r}; start the "
                                 "page with --name for each name that it has"}, 421)  # fmt: skip
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return JSONResponse({"code": "unknown-op", "text": "GET, HEAD or POST"}, 405)
        origin = headers.get("origin")
        foreign = origin is not None and origin.lower() != f"https://{host.lower()}"
        fetched = headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
        if scope["method"] == "POST" and (foreign or fetched):
            return JSONResponse({"code": "not-allowed", "text": "orders come from this unit's own page only"}, 403)
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > _bytes_max(scope):
            return JSONResponse({"code": "too-large", "text": f"a body has at most {_bytes_max(scope)} bytes"}, 413)
        return None


class TooLarge(Exception):
    """A body that went on behind its bound."""


def _bytes_max(scope: Scope) -> int:
    return LARGE.get(str(scope.get("path")), BODY_BYTES_MAX)


def bounded(receive: Receive, bytes_max: int) -> Receive:
    """The same receiver, for a body that says no length: it ends at the bound."""
    seen = 0

    async def receive_bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > bytes_max:
            raise TooLarge
        return message

    return receive_bounded
