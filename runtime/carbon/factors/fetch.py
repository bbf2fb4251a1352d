"""Factors over HTTP, only where the site file asks for it: fetched in a thread of its own, kept in files.

Offline first: what a service says becomes rows of a factor file in the site's factor folder, one file a service, zone
and month; a row is added only where the service says something new. So the booking reads files and never waits for a
network, an answer that cannot be used never reaches the disk, and every version of a step stays with the time at which
it was known.
"""

import base64
import http.client
import os
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tidegate.runtime.carbon.factors import services
from tidegate.runtime.carbon.factors.files import COLUMNS, FILE_HEAD, NO_RULES, Rules, read_csv, rules_of
from tidegate.runtime.carbon.factors.series import FactorError, Series, Step, iso
from tidegate.runtime.carbon.integers import decimal
from tidegate.runtime.state.atomic_file import replace
from tidegate.runtime.state.process_users import may_read_secret

ROOTS = {
    "electricity-maps": "https://api.electricitymaps.com",
    "watttime": "https://api.watttime.org",
    "gb-carbon-intensity": "https://api.carbonintensity.org.uk",
    "entsoe": "https://web-api.tp.entsoe.eu",
}
READERS: Mapping[str, Callable[[bytes, str, Rules], Series]] = {
    "electricity-maps": lambda raw, name, _: services.electricity_maps(raw, name),
    "watttime": lambda raw, name, _: services.watttime(raw, name),
    "gb-carbon-intensity": lambda raw, name, _: services.gb_api(raw, name),
    "entsoe": lambda raw, name, rules: services.entsoe(
        raw, name, rules.factors(services.ENTSOE_G_PER_KWH), rules.not_generation
    ),
}
TIMEOUT_S = 20.0
WHOLE_S = 60.0  # for all of an answer
ANSWER_MAX = 20_000_000  # bytes
LOOK_BACK_S = 86_400  # restatements of the last day are looked for at each fetch
CATCH_UP_S = 7 * 86_400  # after an absence
AHEAD_S = 3600  # forecasts further ahead change often and nobody books with them
BACKOFF_MAX_S = 3600.0


class FetchError(RuntimeError):
    """A fetch that failed; the text names service and reason and holds no key."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another place."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Source:
    """One [[carbon.fetch]] of a site file. folder : where the site file lies."""

    service: str
    zone: str
    signal: str
    root: str
    key_file: Path | None
    every_s: float
    rules: Rules = NO_RULES  # how an answer that is a generation mix is read

    @property
    def name(self) -> str:
        return " ".join(part for part in (self.service, self.zone) if part)

    @property
    def stem(self) -> str:
        """Start of the names of its files."""
        marginal = f"-{self.signal}" if self.service == "watttime" else ""
        return re.sub(r"[^A-Za-z0-9_-]+", "_", f"fetched-{self.service}-{self.zone or 'GB'}{marginal}")

    def key(self) -> str:
        """The key in its file. Raises FetchError if there is none, or if others may read it."""
        if self.key_file is None:
            return ""
        try:
            if not may_read_secret(self.key_file.stat()):
                raise FetchError(f"{self.name}: {self.key_file} may be read by others; chmod 600 it")
            text = self.key_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise FetchError(f"{self.name}: {self.key_file}: {error.strerror}") from None
        if not text:
            raise FetchError(f"{self.name}: {self.key_file} is empty; put the key of the service into it")
        return text


def sources_of(settings: Mapping[str, Any], folder: Path) -> list[Source]:
    """What a site file's [carbon] wants fetched; nothing unless it says so."""
    return [
        Source(
            row["service"],
            row.get("zone") or "",
            row.get("signal") or "co2_moer",
            (row.get("url") or ROOTS[row["service"]]).rstrip("/"),
            folder / row["key_file"] if row.get("key_file") else None,
            float(row.get("every_s") or 900),
            rules_of(settings),
        )
        for row in settings.get("fetch") or ()
    ]


# ---- one answer ----


def ask(source: Source, start_s: int, end_s: int) -> bytes:
    """The service's answer for [start, end). Raises FetchError."""
    key = source.key()
    headers: dict[str, str] = {}
    if source.service == "electricity-maps":
        path, query = "/v3/carbon-intensity/past-range", {"zone": source.zone, "start": _z(start_s), "end": _z(end_s)}
        headers["auth-token"] = key
    elif source.service == "watttime":
        login = {"Authorization": "Basic " + base64.b64encode(key.encode()).decode()}
        token = _token(_get(source, "/login", {}, login), source)
        path = "/v3/historical"
        query = {"region": source.zone, "start": _z(start_s), "end": _z(end_s), "signal_type": source.signal}
        headers["Authorization"] = f"Bearer {token}"
    elif source.service == "gb-carbon-intensity":
        path, query = f"/intensity/{iso(start_s)}/{iso(end_s)}", {}
    else:
        path, query = "/api", {"securityToken": key, "documentType": "A75", "processType": "A16",
                               "in_Domain": source.zone, "periodStart": _compact(start_s),
                               "periodEnd": _compact(end_s)}  # fmt: skip
    return _get(source, path, query, headers)


def _z(utc_s: int) -> str:
    return datetime.fromtimestamp(utc_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _compact(utc_s: int) -> str:
    return datetime.fromtimestamp(utc_s, UTC).strftime("%Y%m%d%H%M")


def _token(raw: bytes, source: Source) -> str:
    import json

    try:
        return str(json.loads(raw)["token"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise FetchError(f"{source.name}: the login gave no token") from None


def _all_of(answer: http.client.HTTPResponse, source: Source) -> bytes:
    """The whole body. A time-out of the socket begins anew with every byte; this one does not. Raises FetchError."""
    until = time.monotonic() + WHOLE_S
    found = bytearray()
    while len(found) <= ANSWER_MAX:
        piece = answer.read1(1 << 16)
        if not piece:
            return bytes(found)
        found += piece
        if time.monotonic() > until:
            raise FetchError(f"{source.name}: the answer of {source.root} took longer than {WHOLE_S:g} s")
    return bytes(found)


def _get(source: Source, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
    url = source.root + path + (f"?{urllib.parse.urlencode(query)}" if query else "")
    request = urllib.request.Request(url, headers={"User-Agent": "tidegate", "Accept": "*/*", **headers})
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            raw = _all_of(answer, source)
    except urllib.error.HTTPError as error:
        moved = "it moved; give the new url"
        reason = {401: "the key was refused", 403: "the key may not read this zone", 429: "asked too often",
                  301: moved, 302: moved, 307: moved, 308: moved}.get(error.code, error.reason)  # fmt: skip
        raise FetchError(f"{source.name}: HTTP {error.code} of {source.root}: {reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "reason", error)
        raise FetchError(f"{source.name}: no answer from {source.root}: {why}") from None
    if len(raw) > ANSWER_MAX:
        raise FetchError(f"{source.name}: the answer is longer than {ANSWER_MAX} bytes")
    return bytes(raw)


# ---- the files ----


def known_series(source: Source, cache: Path) -> Series | None:
    """What the newest two files of a source hold, as one series; None while there are none. Raises FactorError."""
    found: Series | None = None
    for path in sorted(cache.glob(f"{source.stem}-????-??.csv"))[-2:]:
        for one in read_csv(path):
            if found is None:
                found = one
            else:
                found.steps += one.steps
    return None if found is None else found.finish()


def fetch(source: Source, cache: Path, now_s: int) -> int:
    """Ask a source once and keep what is new. -> rows added. Raises FetchError; the files are as before then."""
    try:
        known = known_series(source, cache)
    except FactorError as error:
        raise FetchError(f"{source.name}: its own files cannot be used, remove or mend them: {error}") from None
    measured = [step.end_utc_s for step in known.steps if step.status != "forecast"] if known else []
    newest = max(measured, default=now_s - LOOK_BACK_S)
    start_s = min(now_s - LOOK_BACK_S, max(newest, now_s - CATCH_UP_S))
    raw = ask(source, start_s // 1800 * 1800, now_s + AHEAD_S)
    try:
        fetched = READERS[source.service](raw, f"answer of {source.name}", source.rules)
        if not fetched.steps:
            raise FactorError(f"answer of {source.name}: no values")
        rows = new_steps(known, fetched, now_s)
        if not rows:
            return 0
        merged = Series(fetched.zone, fetched.kind, fetched.source, steps=[*(known.steps if known else ()), *rows])
        if known is not None and (known.zone, known.kind) != (fetched.zone, fetched.kind):
            raise FactorError(
                f"zone {fetched.zone} of kind {fetched.kind}, the files hold {known.zone} of {known.kind}"
            )
        merged.finish()
    except FactorError as error:
        raise FetchError(f"{source.name}: the answer is not used: {error}") from None
    except (ValueError, TypeError, KeyError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        raise FetchError(f"{source.name}: the answer has another form than is known: {error!r:.100}") from None
    _keep(source, cache, fetched, rows, now_s)
    return len(rows)


def new_steps(known: Series | None, fetched: Series, now_s: int) -> list[Step]:
    """Steps that say something else than the newest version that is known; each with the time it was issued.

    Where the service does not say when, or says the time of another version again, it was now.
    """
    latest: dict[int, Step] = {step.start_utc_s: step for step in (known.steps if known else ())}
    rows = []
    for step in fetched.steps:
        before = latest.get(step.start_utc_s)
        if before is not None and (before.ug_per_kwh, before.status) == (step.ug_per_kwh, step.status):
            continue
        if step.start_utc_s > now_s + AHEAD_S:
            continue
        issued = step.issued_utc_s or now_s
        if before is not None and issued <= before.issued_utc_s:
            issued = max(now_s, before.issued_utc_s + 1)
        new = Step(step.start_utc_s, step.end_utc_s, step.ug_per_kwh, step.status, issued, step.version, step.mark)
        latest[step.start_utc_s] = new
        rows.append(new)
    return rows


def _keep(source: Source, cache: Path, fetched: Series, rows: Sequence[Step], now_s: int) -> None:
    """Add rows to the file of this month, as a whole or not at all."""
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"{source.stem}-{datetime.fromtimestamp(now_s, UTC):%Y-%m}.csv"
    try:
        text = (
            path.read_text(encoding="utf-8") if path.exists() else FILE_HEAD + ",".join((*COLUMNS, "issued_at")) + "\n"
        )
        for step in rows:
            text += ",".join(
                (
                    _z(step.start_utc_s), _z(step.end_utc_s), fetched.zone, decimal(step.ug_per_kwh, 6), "g/kWh",
                    fetched.kind, fetched.lifecycle, step.status, fetched.source.replace(",", ";"),
                    step.version.replace(",", ";"), _z(step.issued_utc_s),
                )
            ) + "\n"  # fmt: skip
        replace(path, text.encode(), 0o644)
    except OSError as error:
        raise FetchError(f"{source.name}: {path}: {error.strerror}; nothing was kept") from None


# ---- the thread ----


def _print(text: str) -> None:
    # Not print: a daemon thread that holds the lock of sys.stderr when the interpreter ends would abort it.
    os.write(2, f"carbon: {text}\n".encode())


class Fetcher(threading.Thread):
    """Asks every source in its own time until `ended`. A failure is said once and asked again, ever later.

    A daemon: a service that does not answer keeps no process from ending. Files are replaced whole, so that it may end
    anywhere.
    """

    def __init__(self, found: Sequence[Source], cache: Path, echo: Callable[[str], None] | None = None) -> None:
        super().__init__(name="factors", daemon=True)
        self._due = {source: 0.0 for source in found}
        self._failed: dict[Source, int] = {}
        self._reported: dict[Source, str] = {}
        self._cache = cache
        self._print = echo or _print
        self.ended = False

    def run(self) -> None:
        while not self.ended:
            self.turn(time.monotonic(), int(time.time()))
            time.sleep(0.5)

    def _fetch(self, source: Source, now_s: int) -> None:
        """Raises FetchError and nothing else: whatever an answer does, the thread asks on."""
        try:
            fetch(source, self._cache, now_s)
        except FetchError:
            raise
        except Exception as error:
            raise FetchError(f"{source.name}: the answer could not be taken: {type(error).__name__}") from None

    def turn(self, t_s: float, now_s: int) -> None:
        """Ask every source that is due."""
        for source, due in list(self._due.items()):
            if t_s < due:
                continue
            try:
                self._fetch(source, now_s)
            except FetchError as error:
                tries = self._failed[source] = self._failed.get(source, 0) + 1
                self._due[source] = t_s + max(source.every_s, min(BACKOFF_MAX_S, 30.0 * 2 ** min(tries, 10)))
                if self._reported.get(source) != str(error):
                    self._reported[source] = str(error)
                    self._print(f"{error}; what is in the files goes on to be used")
            else:
                if self._failed.pop(source, 0):
                    self._reported.pop(source, None)
                    self._print(f"{source.name}: answers again")
                self._due[source] = t_s + source.every_s
