"""HTTP to a virtual top node: token, events, reports. Every answer is bounded, every refusal says what came."""

import json
import time
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

import requests

ANSWER_BYTES_MAX = 4 << 20
PAGE, PAGES_MAX = 50, 40  # the specification's largest page
TIMEOUT_S = (5.0, 20.0)
EARLY_S = 60.0  # a token is asked for anew so long before its end


class VtnError(RuntimeError):
    """Why the utility's server did not give what was asked."""


def _checked(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        near = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        near = False
    if parts.scheme != "https" and not (parts.scheme == "http" and near):
        raise VtnError(f"{url}: give https://..., the secret crosses the network; http:// only on this machine")
    return url.rstrip("/")


class Vtn:
    """url : the API's base. token_url : "" = the server is asked (3.1), else /auth/token (3.0). Raises VtnError."""

    def __init__(self, url: str, client_id: str, secret: str, token_url: str = "", ca_file: str = "") -> None:
        self.url = _checked(url)
        self._id, self._secret = client_id, secret
        self._token_url = _checked(token_url) if token_url else ""
        self._session = requests.Session()
        self._session.verify = ca_file or True
        self._session.trust_env = False
        self._token, self._token_ends = "", 0.0

    def close(self) -> None:
        self._session.close()

    def _bytes(self, method: str, url: str, **more: object) -> tuple[int, bytes]:
        try:
            with self._session.request(
                method,
                url,
                timeout=TIMEOUT_S,
                allow_redirects=False,
                stream=True,
                **more,  # type: ignore[arg-type]
            ) as answer:
                data = answer.raw.read(ANSWER_BYTES_MAX + 1, decode_content=True)
                status = answer.status_code
        except (requests.RequestException, OSError) as why:
            raise VtnError(f"{url}: {why}") from None
        if len(data) > ANSWER_BYTES_MAX:
            raise VtnError(f"{url}: more than {ANSWER_BYTES_MAX >> 20} MiB in one answer")
        return status, data

    @staticmethod
    def _json(url: str, status: int, data: bytes) -> object:
        if status not in (200, 201):
            raise VtnError(f"{url}: HTTP {status}: {data[:200].decode('utf-8', 'replace').strip()}")
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise VtnError(f"{url}: no JSON came") from None

    def _authorised(self) -> dict[str, str]:
        if time.monotonic() >= self._token_ends:
            self._token_url = self._token_url or self._find_token_url()
            form = {"grant_type": "client_credentials", "client_id": self._id, "client_secret": self._secret}
            made = self._json(self._token_url, *self._bytes("POST", self._token_url, data=form))
            if not isinstance(made, Mapping) or not isinstance(made.get("access_token"), str):
                raise VtnError(f"{self._token_url}: no access_token in the answer")
            lasts = made.get("expires_in", 3600)
            self._token = str(made["access_token"])
            self._token_ends = time.monotonic() + max(1.0, float(str(lasts)) - EARLY_S)
        return {"Authorization": f"Bearer {self._token}"}

    def _find_token_url(self) -> str:
        url = f"{self.url}/auth/server"
        status, data = self._bytes("GET", url)
        if status == 404:
            return f"{self.url}/auth/token"
        found = self._json(url, status, data)
        if not isinstance(found, Mapping) or not isinstance(found.get("tokenURL"), str):
            raise VtnError(f"{url}: no tokenURL in the answer")
        return _checked(found["tokenURL"])

    def _ask(self, method: str, path: str, **more: object) -> object:
        url = f"{self.url}/{path}"
        for again in (True, False):
            status, data = self._bytes(method, url, headers=self._authorised(), **more)
            if status != 401 or not again:
                return self._json(url, status, data)
            self._token_ends = 0.0  # revoked, or the server forgot it
        raise AssertionError("unreachable")

    def events(self, program: str) -> list[object]:
        """All events of a program."""
        found: list[object] = []
        for page in range(PAGES_MAX):
            rows = self._ask("GET", "events", params={"programID": program, "skip": page * PAGE, "limit": PAGE})
            if not isinstance(rows, list):
                raise VtnError(f"{self.url}/events: no list of events came")
            found += rows
            if len(rows) < PAGE:
                return found
        raise VtnError(f"{self.url}/events: more than {PAGES_MAX * PAGE} events of one program; none of them is read")

    def report(self, row: Mapping[str, object]) -> None:
        """Add a report."""
        self._ask("POST", "reports", json=row)
