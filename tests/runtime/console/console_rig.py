"""A technician for tests: a gateway that answers from a table, a session on a clock of its own, a slow terminal."""

import os
import pty
import re
import select
import time
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyte

from tidegate.runtime.api.blocking_client import ClientError, NoAnswer
from tidegate.runtime.console.commands import grammar
from tidegate.runtime.console.flow import Place
from tidegate.runtime.console.session import Session
from tidegate.runtime.console.users import LoginLock, Users
from tidegate.runtime.findings.site_state import Plant

NAME, USER, PASSWORD = "hall-7", "anna", "correct-horse"
CHEAP_SCRYPT = 16  # the cost has a test of its own
BAUD = 9600
BITS = 10  # a byte with start and stop bit
ESCAPES = re.compile(rb"\x1b(\[[0-9;]*[A-Za-z]|[78])")


class FakeGateway:
    """What a console asks of a client, answered from tables that a test changes."""

    def __init__(self) -> None:
        self.timeout_s = 3.0
        self.silent = False
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.refuses: dict[str, ClientError] = {}
        self.site: dict[str, Any] = {
            "site": {"name": NAME},
            "points": [
                {"name": "site.grid_w", "unit": "W", "device": -1},
                {"name": "site.load_w", "unit": "W", "device": -1},
                {"name": "site.ess_w", "unit": "W", "device": -1},
                {"name": "site.setpoint_w", "unit": "W", "device": -1},
                {"name": "grid.power_w", "unit": "W", "device": 0, "register": "Total power"},
                {"name": "grid.power_l1_w", "unit": "W", "device": 0, "register": "L1"},
                {"name": "grid.power_l2_w", "unit": "W", "device": 0, "register": "L2"},
                {"name": "grid.power_l3_w", "unit": "W", "device": 0, "register": "L3"},
                {"name": "bms1.soc", "unit": "1", "device": 1, "register": "SoC"},
                {"name": "bms1.temp_max_c", "unit": "degC", "device": 1, "register": "temperature"},
                {"name": "bms1.temp_min_c", "unit": "degC", "device": 1, "register": "min temperature"},
            ],
            "devices": [
                {"name": "grid", "role": "grid-meter", "bus": "meters", "protocol": "modbus", "unit_id": 1, "map": "m"},
                {"name": "bms1", "role": "bms", "bus": "can", "protocol": "can", "unit_id": None, "map": "b"},
            ],
            "units": [{"name": "cabinet", "bms": "bms1", "pcs": "pcs1", "temp_min_c": 0.0, "temp_max_c": 50.0}],
            "limits": {"connection_import_w_max": 55_000.0, "connection_export_w_max": 0.0},
            "control": {"peak_w_max": 48_000.0},
            "faults": [
                {"row": 0, "id": "bms_invalid", "text": "bad", "what": "bad", "clear": "good", "reaction": "zero"}
            ],
            "ports": [{"name": "meters", "device": "/dev/ttyS1", "baud": 9600, "parity": "N"}],
            "can": [{"name": "can", "bitrate": 500_000}],
            "modes": ["tripped", "arming", "ready", "run"],
            "reasons": ["gate", "peak limit"],
        }
        self.points: dict[str, list[Any]] = {row["name"]: [20.0, 1] for row in self.site["points"]}
        for name, value in (("site.grid_w", 30e3), ("site.load_w", 31e3), ("site.ess_w", 1e3), ("bms1.soc", 0.8)):
            self.points[name] = [value, 1]
        self.why: dict[str, Any] = {
            "mode": "run", "reason": "peak limit", "faults": [], "latches": [], "lease": None, "stopped": False,
            "setpoint_w": 1000.0, "ess_w": 1000.0,
        }  # fmt: skip
        self.health: dict[str, Any] = {
            "core": {"running": True, "stalled": False, "image_age_ms": 1.0},
            "loop": {"lateness_ns": {"p99": 34_000, "max": 800_000}, "missed": 0},
            "journal": {"error": ""},
            "gateway": {"autostart": True, "durable": {"event": -1}},
            "buses": {"t_ns": 10**10, "serial": {}, "can": {}},
        }

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        if self.silent:
            raise NoAnswer(f"{op}: nothing within {self.timeout_s:g} s")
        if op in self.refuses:
            raise self.refuses[op]
        if op not in ("describe", "get", "why", "health"):
            self.calls.append((op, fields))
        head = {"status": "applied", "boot": "ab" * 16, "cycle": 1}
        if op == "describe":
            return {**head, "site": self.site}
        if op == "get":
            wanted = fields.get("points") or list(self.points)
            return {**head, "points": {n: self.points[n] for n in wanted}, "ages_ms": {n: 12.0 for n in wanted}}
        if op == "why":
            return {**head, "why": self.why}
        if op == "health":
            return {**head, "health": {**self.health, "histograms": {"lateness": [[1024, 5]]}}}
        if op == "lease":
            return {**head, "lease": "0" * 32, "next_seq": 0}
        if op == "setpoint":
            return {**head, "applied_w": fields["setpoint_w"], "next_seq": fields["seq"] + 1}
        if op == "limit":
            return {**head, "applied_w": fields.get("import_w_max", fields.get("export_w_max"))}
        if op == "replay":
            return {**head, "records": [], "end": True}
        return head

    def asked(self, op: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.calls if name == op]


class Desk:
    """A session without a line: bytes in, text out, time by hand."""

    def __init__(self, folder: Path, *, users: bool = True, vt100: bool = False, site: Path | None = None) -> None:
        self.now_s = 1000.0
        self.gateway = FakeGateway()
        self.plant = Plant(self.gateway, self.clock)
        self.users = Users(folder, cost=CHEAP_SCRYPT)
        if users:
            self.users.put(USER, "maintain", PASSWORD)
        self.lock = LoginLock(folder, self.now_s)
        self.sent = bytearray()
        self.carrier: bool | None = None
        self.place = Place("ttyTEST", folder, site=site, carrier=lambda: self.carrier)
        self.session = Session(
            self.plant, self.users, self.lock, grammar(), self.sent.extend, self.place, clock=self.clock
        )
        self.session.terminal.pager = False
        self.plant.poll()
        self.session.open()
        if vt100:
            self.type("\r")
            self.session.feed(b"\x1b[0n\x1b[24;80R")
        self.take()

    def clock(self) -> float:
        return self.now_s

    def take(self) -> str:
        """What was sent since the last look, without escape sequences."""
        said = ESCAPES.sub(b"", bytes(self.sent)).decode("ascii")
        self.sent.clear()
        return said

    def type(self, text: str | bytes) -> str:
        self.session.feed(text.encode() if isinstance(text, str) else text)
        return self.take()

    def enter(self, *lines: str) -> str:
        """Type whole lines; what came back to the last."""
        said = ""
        for line in lines:
            said = self.type(line + "\r")
        return said

    def login(self, name: str = USER, password: str = PASSWORD) -> str:
        return self.enter(f"login {name}", password)

    def wait(self, time_s: float, step_s: float = 0.1) -> str:
        """Let time pass."""
        end_s = self.now_s + time_s
        while self.now_s < end_s:
            self.now_s += step_s
            self.session.tick()
        return self.take()


class SlowTerminal:
    """The technician's end of a pty, taking bytes no faster than a line of 9600 baud would bring them.

    `line_s` is the time that all bytes of both directions take on such a line; nothing here judges wall time.
    answers : the terminal is a VT100 and tells that it is there, and its size.
    """

    def __init__(self, answers: bool = True) -> None:
        self.master, slave = pty.openpty()
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        self.slave = slave
        self.answers = answers
        self.received = bytearray()
        self.sent = 0
        self.began_s: float | None = None
        self.screen = pyte.Screen(80, 24)
        self.stream = pyte.ByteStream(self.screen)
        self._mark = 0

    @property
    def line_s(self) -> float:
        return (len(self.received) + self.sent) * BITS / BAUD

    def pump(self, time_s: float = 0.05) -> None:
        """Take what the line would have brought by now."""
        end_s = time.monotonic() + time_s
        while (left_s := end_s - time.monotonic()) > 0:
            ready, _, _ = select.select([self.master], [], [], left_s)
            if not ready:
                return
            try:
                data = os.read(self.master, 48)
            except OSError:
                time.sleep(0.02)
                continue
            time.sleep(len(data) * BITS / BAUD)
            self.received += data
            self.stream.feed(data)
            if self.answers:
                for _ in range(data.count(b"\x1b[5n")):
                    os.write(self.master, b"\x1b[0n")
                for _ in range(data.count(b"\x1b[6n")):
                    os.write(self.master, b"\x1b[24;80R")

    def send(self, text: str) -> None:
        self._mark = len(self.received)
        self.sent += len(text)
        os.write(self.master, text.encode())

    def expect(self, text: str, timeout_s: float = 30.0) -> str:
        """Wait for text in what came since the last `send`."""
        until_s = time.monotonic() + timeout_s
        while True:
            said = ESCAPES.sub(b"", bytes(self.received[self._mark :])).decode("ascii", "replace")
            if text in said:
                return said
            assert time.monotonic() < until_s, f"{text!r} did not come; got {said!r}"
            self.pump()

    def until(self, true: Callable[[], bool], timeout_s: float = 60.0) -> None:
        until_s = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < until_s, self.shown
            self.pump()

    @property
    def shown(self) -> str:
        return "\n".join(self.screen.display)

    def login(self, name: str, password: str) -> None:
        self.send(f"login {name}\r")
        self.expect("Password: ")
        self.send(password + "\r")
        self.expect("> ")

    def close(self) -> None:
        for fd in (self.master, self.slave):
            if fd >= 0:
                os.close(fd)
        self.master = self.slave = -1

    def pull(self) -> None:
        """Pull the cable: the other end sees a hang-up."""
        os.close(self.master)
        os.close(self.slave)
        self.master = self.slave = -1
