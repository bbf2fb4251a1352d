"""The page's own files, read and compressed once at the start; a browser asks for them again only when they changed."""

import gzip
import hashlib
import re
from importlib.resources import files
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

KINDS = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
}


# One head for both pages: name -> (its script, what helps without one).
PAGES = {
    "index.html": ("app.js", "On the unit: tidegate console."),
    "fleet.html": ("fleet.js", "On the hub: tidegate hub sites."),
}
TEMPLATE = "page.html"


class StaticFile(NamedTuple):
    """One file of the page."""

    kind: str
    plain: bytes
    packed: bytes
    tag: str


class StaticFiles:
    """All of them, by name."""

    def __init__(self) -> None:
        self.held: dict[str, StaticFile] = {}
        for found in files("tidegate.runtime.web").joinpath("static").iterdir():
            kind = KINDS.get(found.name.rpartition(".")[2])
            if found.name != TEMPLATE and kind is not None:
                self._hold(found.name, kind, found.read_bytes())
        template = files("tidegate.runtime.web").joinpath("static", TEMPLATE).read_text("utf-8")
        for name, (script, without) in PAGES.items():
            # All modules are asked for at once, and not one after the other as each is found in another one.
            links = "\n".join(f'<link rel="modulepreload" href="{one}">' for one in self._needed(script))
            text = template.replace("{script}", script).replace("{without}", without).replace("{modules}", links)
            self._hold(name, KINDS["html"], text.encode())

    def _needed(self, script: str) -> list[str]:
        """The modules that a script imports, and those that these import."""
        found: list[str] = []
        waiting = [script]
        while waiting:
            text = self.held[waiting.pop()].plain.decode()
            fresh = [one for one in re.findall(r'from "\./([\w.-]+)"', text) if one not in (script, *found)]
            found += fresh
            waiting += fresh
        return found

    def _hold(self, name: str, kind: str, plain: bytes) -> None:
        tag = f'"{hashlib.sha256(plain).hexdigest()[:16]}"'
        self.held[name] = StaticFile(kind, plain, gzip.compress(plain, 9, mtime=0), tag)

    def answer(self, request: Request, name: str) -> Response:
        """The file, compressed where the browser takes that; 304 where it has it already."""
        found = self.held.get(name)
        if found is None:
            return Response("not found", 404, media_type="text/plain")
        headers = {"etag": found.tag, "cache-control": "no-cache", "vary": "accept-encoding"}
        if request.headers.get("if-none-match") == found.tag:
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(found.packed, headers={**headers, "content-encoding": "gzip"}, media_type=found.kind)
        return Response(found.plain, headers=headers, media_type=found.kind)
