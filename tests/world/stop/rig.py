"""A site beside a plant of its own process, and the power that this plant's converter really gives.

What is measured comes from the simulated converter's side of its line, never from the controller's reports: so a
controller that says 0 W and lets the battery run is found.
"""

import collections
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from tidegate.runtime.api.blocking_client import Client, ClientError
from tidegate.runtime.supervisor.child import PR_SET_PDEATHSIG
from tidegate.runtime.supervisor.preflight import prepare

SIMULATED = Path(str(files("tidegate.config").joinpath("sites/simulated.toml")))
FAKE_GPIO = Path(__file__).parent / "fake_gpio"
PLAN_W = -6000.0
RUNS_W = 2000.0  # above it the battery runs
ZERO_W = 300.0  # the converter's own losses and its last digit stay below it
ZERO_FOR_S = 0.4
START_S = 150.0


def with_us() -> None:
    """Between fork and exec: end when the test ends, however it does."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class RealPlant:
    """The simulated plant behind ptys and an SLCAN adapter, in a process that no controller knows of."""

    def __init__(self, folder: Path) -> None:
        _, blob = prepare(SIMULATED, accounts=False)
        program = os.memfd_create("program", 0)
        os.write(program, blob)
        self.links = folder / "buses"
        words = [sys.executable, "-m", "tidegate.hal.sim", "--program-fd", str(program), "--site", str(SIMULATED)]
        words += ["--serial", "meters=pty", "--serial", "pcs=pty", "--can", "bms=slcan", "--links", str(self.links)]
        self.process = subprocess.Popen(
            [*words, "--true-hz", "25"],
            pass_fds=[program],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=with_us,
        )
        os.close(program)
        self.seen: collections.deque[tuple[float, float]] = collections.deque(maxlen=100_000)  # (s, W)
        self.ready = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        assert self.ready.wait(60.0), "the plant did not start"

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said = json.loads(line)
            if said["kind"] == "ready":
                self.ready.set()
            elif said["kind"] == "true":
                self.seen.append((time.monotonic(), float(said["ess_w"])))

    @property
    def power_w(self) -> float:
        """What the converter gives now; not known counts as running."""
        return self.seen[-1][1] if self.seen and time.monotonic() - self.seen[-1][0] < 2.0 else 1e9

    def zero_after_s(self, began_s: float, within_s: float) -> float | None:
        """How long after `began_s` the power came to zero and stayed there for a while; None: not in time."""
        until = began_s + within_s + ZERO_FOR_S + 2.0
        while time.monotonic() < until:
            since: float | None = None
            for t_s, power_w in list(self.seen):
                if t_s < began_s:
                    continue
                if abs(power_w) > ZERO_W:
                    since = None
                elif since is None:
                    since = t_s
                elif t_s - since >= ZERO_FOR_S:
                    return max(0.0, since - began_s) if since - began_s <= within_s else None
            time.sleep(0.02)
        return None

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def site_file(folder: Path, plant: RealPlant, port: int) -> Path:
    """The simulated site with its buses at the plant's ptys, an input, a console's line and a port for others."""
    text = SIMULATED.read_text().partition("[simulation]")[0]
    for name in ("meters", "pcs"):
        text = text.replace(f'name = "{name}"\ndevice = "sim"', f'name = "{name}"\ndevice = "{plant.links / name}"')
    text = text.replace('interface = "sim"', f'interface = "slcan:{plant.links / "bms"}?sleep_after_open=0.2"')
    text = text.replace('name = "simulated"', 'name = "stop"')
    text += '\n[[input]]\nname = "halt"\nwhat = "operator-stop"\nline = 17\nactive_low = false\nbias = "pull-up"\n'
    text += f'\n[gateway]\nendpoint = "tcp://127.0.0.1:{port}"\nkeys = "{folder / "keys"}"\n'
    text += f'\n[console]\nport = "{folder / "console"}"\nbaud = 115200\n'
    path = folder / "stop.toml"
    path.write_text(text)
    return path


class LiveSite:
    """One `tidegate run` on the plant. console : our end of the technician's line."""

    def __init__(self, folder: Path, plant: RealPlant, port: int, more: dict[str, str] | None = None) -> None:
        self.folder, self.plant, self.port = folder, plant, port
        self.console, self._console_far = os.openpty()
        os.set_blocking(self.console, False)
        link = folder / "console"
        link.unlink(missing_ok=True)
        link.symlink_to(os.ttyname(self._console_far))
        self.gpio = folder / "gpio"
        if not self.gpio.exists():
            os.mkfifo(self.gpio)
        self._gpio = os.open(self.gpio, os.O_RDWR | os.O_NONBLOCK)
        self.path = site_file(folder, plant, port)
        self.state = folder / "state"
        self.log = (folder / "log").open("ab")
        environment = {
            **os.environ,
            "TIDEGATE_RUNTIME_DIR": str(folder / "run"),
            "TIDEGATE_TEST_GPIO": str(self.gpio),
            "PYTHONPATH": str(FAKE_GPIO),
            **(more or {}),
        }
        self.log.truncate(0)  # of this start alone
        words = [sys.executable, "-m", "tidegate.runtime.cli", "run", str(self.path), "--state-dir", str(self.state)]
        self.process = subprocess.Popen(
            words, stdout=self.log, stderr=self.log, env=environment, start_new_session=True, preexec_fn=with_us
        )

    @property
    def endpoint(self) -> str:
        return f"ipc://{self.folder / 'run' / 'stop'}"

    @property
    def runtime(self) -> Path:
        return self.folder / "run" / "stop"

    @property
    def said(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def client(self, timeout_s: float = 3.0) -> Client:
        return Client(self.endpoint, timeout_s=timeout_s)

    def ask(self, what: Callable[[Client], object], within_s: float = 60.0) -> object:
        """Ask until there is an answer. Raises ClientError when time is over."""
        until = time.monotonic() + within_s
        while True:
            try:
                with self.client() as client:
                    return what(client)
            except ClientError:
                if time.monotonic() >= until:
                    raise
                time.sleep(0.1)

    def started(self, module: str, limit_s: float = 60.0) -> int:
        """The same, waited for: one that was killed or found standing still just now is being started again."""
        until = time.monotonic() + limit_s
        while not (pid := self.pid(module)):
            assert time.monotonic() < until, f"{module} does not run"
            time.sleep(0.1)
        return pid

    def pid(self, module: str) -> int:
        """The process of this site that runs a module, 0 if none does."""
        mark = f"TIDEGATE_RUNTIME_DIR={self.folder / 'run'}".encode()
        for entry in Path("/proc").iterdir():
            try:
                if not entry.name.isdigit() or mark not in (entry / "environ").read_bytes().split(b"\0"):
                    continue
                words = (entry / "cmdline").read_bytes().split(b"\0")
                zombie = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            except OSError:
                continue
            if not zombie and b"-m" in words and words[words.index(b"-m") + 1].decode() == module:
                return int(entry.name)
        return 0

    def input(self, active: bool) -> None:
        """Work the contact."""
        os.write(self._gpio, b"1" if active else b"0")

    def serves_others(self) -> bool:
        """Tell whether a stranger is greeted at the port for other machines, as ZeroMQ greets."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0) as line:
            line.settimeout(1.0)
            line.sendall(b"\xff" + bytes(8) + b"\x7f")  # who says nothing is answered nothing
            return line.recv(1) == b"\xff"
        return False

    def type(self, text: str) -> None:
        """Type at the technician's line, and take away what was written to it."""
        try:
            while os.read(self.console, 65_536):
                pass
        except BlockingIOError:
            pass
        os.write(self.console, text.encode())

    def running(self, within_s: float = START_S) -> bool:
        """The battery runs by its plan, however it was stopped before."""
        until = time.monotonic() + within_s
        self.input(False)
        while time.monotonic() < until and self.process.poll() is None:
            try:
                with self.client() as client:
                    why = client.why()
                    if why["stopped"]:
                        client.run()
                    if not self._planned:
                        now = int(time.time())
                        client.schedule([(now, PLAN_W)], now + 3600)
                        self._planned = True
                if " runs; core pid" in self.said and abs(self.plant.power_w) > RUNS_W and self.plant.power_w < 1e8:
                    return True
            except ClientError:
                pass
            time.sleep(0.1)
        return False

    _planned = False

    def close(self) -> None:
        for module in ("tidegate.runtime.gateway", "tidegate.runtime.console", "tidegate.runtime.gateway.remote"):
            pid = self.pid(module)
            if pid:
                os.kill(pid, signal.SIGCONT)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
        for fd in (self.console, self._console_far, self._gpio):
            os.close(fd)
