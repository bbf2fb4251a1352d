"""A page served by its own process beside a gateway whose core is only its shared memory."""

import contextlib
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tidegate.ext.abi.shared import EVENT_NAMES
from tidegate.runtime.web.login_codes import Pairing

pytest.importorskip("starlette", reason="the extra web is not installed")
SITE = "test-site"
WAIT_S = 60.0
# What a core that is only its shared memory does not say of its site, and what screens show.
DESCRIBED = {
    "units": [{"name": "cabinet", "bms": "bms1", "pcs": "pcs1"}],
    "devices": [
        {
            "name": "grid",
            "map": "some-meter",
            "kind": "meter",
            "bus": "meters",
            "title": "A meter",
            "doubts": ["its parity"],
        },
        {"name": "bms1", "map": "some-bms", "kind": "bms", "bus": "bms", "title": "A BMS"},
    ],
    "faults": [
        {
            "id": "bms_silent",
            "text": "the BMS is silent",
            "what": "no frame came",
            "clear": "frames come",
            "reaction": "zero",
        },
        {
            "id": "bms_alarm",
            "text": "the BMS reports an alarm",
            "what": "its bit",
            "clear": "no bit",
            "reaction": "open",
        },
    ],
}
PASSWORD = "tree lamp river nine"


def eventually(true, why="it did not come", seconds=WAIT_S):
    """Wait until something holds, and give it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = true()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(why)


class Visitor:
    """A browser without a screen: TLS checked against the unit's own authority, cookies kept."""

    def __init__(self, port, ca, name="127.0.0.1"):
        self.port, self.name, self.cookie = port, name, ""
        self.context = ssl.create_default_context(cafile=str(ca))

    def ask(self, path, body=None, method=None, **headers):
        """(status, headers, body as JSON where it is JSON)."""
        held = http.client.HTTPSConnection(self.name, self.port, context=self.context, timeout=WAIT_S)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            if self.cookie:
                sent.setdefault("cookie", self.cookie)
            data = None
            if body is not None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                sent.setdefault("content-type", "application/json")
            held.request(method or ("GET" if body is None else "POST"), path, data, sent)
            answer = held.getresponse()
            raw = answer.read()
            for name, value in answer.getheaders():
                if name.lower() == "set-cookie":
                    self.cookie = value.partition(";")[0]
            is_json = (answer.getheader("content-type") or "").startswith("application/json")
            is_json = is_json and not answer.getheader("content-encoding")
            return answer.status, dict(answer.getheaders()), json.loads(raw) if is_json and raw else raw
        finally:
            held.close()

    def events(self, path="/live?hz=10", **headers):
        """(kind, data) of server-sent events, until the stream ends."""
        held = http.client.HTTPSConnection(self.name, self.port, context=self.context, timeout=WAIT_S)
        held.request("GET", path, headers={"cookie": self.cookie, **headers})
        answer = held.getresponse()
        assert answer.status == 200, answer.read()
        kind = ""
        try:
            while line := answer.readline():
                text = line.decode().rstrip()
                if text.startswith("event: "):
                    kind = text[7:]
                elif text.startswith("data: "):
                    yield kind, json.loads(text[6:])
        finally:
            held.close()


class Page:
    """The page's process, with the site that it shows."""

    def __init__(self, core, folder, *more):
        self.core = core
        self.state = folder / "state" / SITE
        self.env = {
            **os.environ,
            "TIDEGATE_RUNTIME_DIR": str(folder / "run"),
            "TIDEGATE_STATE_DIR": str(folder / "state"),
        }
        self._end, self.paused = threading.Event(), threading.Event()
        self._beat = threading.Thread(target=self._turn, daemon=True)
        self._beat.start()
        words = [sys.executable, "-m", "tidegate.runtime.cli", "web", "--site", SITE, "serve", "--port", "0", *more]
        self.process = subprocess.Popen(
            words, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        line = self.process.stdout.readline()
        found = re.search(r"https://127\.0\.0\.1:(\d+)", line)
        assert found, line + self.process.stdout.read()
        self.port = int(found[1])
        self.ca = self.state / "web" / "ca.pem"

    def _turn(self):
        """A core that lives: cycles, ten snapshots and a meter record a second."""
        turn = 0
        while not self._end.wait(0.01):
            if self.paused.is_set():
                continue
            self.core.step()
            turn += 1
            if turn % 10 == 0:
                self.core.snapshot()
            if turn % 100 == 0:
                self.core.meter()

    def visitor(self, user="", role="maintain"):
        """Somebody without a login, or with one of this role."""
        made = Visitor(self.port, self.ca)
        if user:
            code = Pairing(self.state / "web").make(role)
            status, _, body = made.ask("/session/pair", {"code": code, "user": user, "password": PASSWORD})
            assert status == 200, body
        return made

    def command(self, *words):
        """A `tidegate web` command beside the page."""
        line = [sys.executable, "-m", "tidegate.runtime.cli", "web", "--site", SITE, *words]
        return subprocess.run(line, env=self.env, capture_output=True, text=True, timeout=WAIT_S)

    def close(self):
        self.process.terminate()
        try:
            assert self.process.wait(WAIT_S) == 0, self.process.stdout.read()
        finally:
            self.process.kill()
            self.process.stdout.close()
            self._end.set()
            self._beat.join()


@contextlib.contextmanager
def served(core, tmp_path, *more):
    """A page beside the gateway of a core; more: words of its command line."""
    from tests.runtime.conftest import GatewayThread

    run, state = tmp_path / "run" / SITE, tmp_path / "state" / SITE
    for folder in (run, state):
        folder.mkdir(parents=True, mode=0o750)
    core.values |= dict.fromkeys(("site.grid_w", "site.grid_min_w", "site.grid_max_w"), (12_500.0, 1))
    core.values["site.grid_limit_w"] = (40_000.0, 1)
    core.describe |= DESCRIBED
    gateway = GatewayThread(core, run, state)
    core.step()
    made = Page(core, tmp_path, *more)
    yield made
    made.close()
    gateway.close()


@pytest.fixture
def page(core, tmp_path):
    with served(core, tmp_path) as made:
        yield made


def fault(core, row=0, unit=0):
    """Let a row of the fault table be true."""
    core.values[f"unit{unit}.fault_bits_lo"] = (float(1 << row), 1)
    core.event(EVENT_NAMES.index("fault_on"), unit=unit, code=row)


def half_open(port):
    """A connection that says nothing."""
    return socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)


def notes(page):
    """What the journal has as notes."""
    from tidegate.runtime.api.blocking_client import Client

    with Client(f"ipc://{Path(page.env['TIDEGATE_RUNTIME_DIR']) / SITE}") as client:
        return [(row["name"], row["detail"]) for row in client.replay("event")[0] if row["event"] in ("note", "mode")]


def recordings(page):
    """Where the recorder of the page's site would write."""
    made = page.state / "recordings"
    made.mkdir(exist_ok=True)
    return made
