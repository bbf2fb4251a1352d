"""What a soak run starts, looks at and disturbs: the plant with its true powers, the site, the page, an exporter."""

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.world.stop.rig import with_us
from tidegate.runtime.api.blocking_client import Client, ClientError
from tidegate.runtime.supervisor.preflight import prepare

TIDEGATE = [sys.executable, "-m", "tidegate.runtime.cli"]
MODULES = {
    b"tidegate.runtime.core.process": "core",
    b"tidegate.runtime.gateway": "gateway",
    b"tidegate.runtime.gateway.remote": "remote",
    b"tidegate.runtime.carbon": "carbon",
    b"tidegate.runtime.recording": "recorder",
}
SITE = """
schema = 1
[site]
name = "{name}"
period_us = {period_us}
[[serial]]
name = "meters"
device = "{buses}/meters"
baud = 115200
[[serial]]
name = "pcs"
device = "{buses}/pcs"
baud = 115200
[[can]]
name = "bms"
interface = "slcan:{buses}/bms?sleep_after_open=0.2"
[[device]]
name = "grid"
map = "eastron-sdm630"
bus = "meters"
unit_id = 1
role = "grid-meter"
[[device]]
name = "pcs1"
map = "sunspec-701"
bus = "pcs"
unit_id = 1
role = "pcs"
[[device]]
name = "bms1"
map = "bms-35x-hv"
bus = "bms"
role = "bms"
[[storage]]
name = "cabinet"
bms = "bms1"
pcs = "pcs1"
energy_wh = 60000
charge_w_max = 30000
discharge_w_max = 30000
[limits]
connection_import_w_max = 60000
[control]
peak_w_max = 40000
[carbon]
interval_s = 300
"""


class Span(NamedTuple):
    """True grid power from the end of the span before: every step of the physics is in it."""

    end_ns: int  # CLOCK_MONOTONIC
    least_w: float
    most_w: float
    drawn_ws: float  # from the grid since the start of the plant


class Truth:
    """The spans of a run in their order. One thread adds, others look."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    @property
    def until_ns(self) -> int:
        """What is known ends here; 0: nothing is."""
        return self.spans[-1].end_ns if self.spans else 0

    def between(self, begin_ns: int, end_ns: int) -> list[Span]:
        """The spans that have a part in a time; the first one of all, whose begin is not known, is never among them."""
        first = max(1, bisect_left(self.spans, begin_ns, key=lambda span: span.end_ns))
        return self.spans[first : bisect_left(self.spans, end_ns, key=lambda span: span.end_ns) + 1]

    def drawn_wh(self, begin_ns: int, end_ns: int) -> tuple[float, float]:
        """(Wh drawn from the grid in a time; s of it of which nothing is known)."""
        if not self.spans:
            return 0.0, (end_ns - begin_ns) / 1e9
        first_ns, last_ns = max(begin_ns, self.spans[0].end_ns), min(end_ns, self.until_ns)
        if last_ns <= first_ns:
            return 0.0, (end_ns - begin_ns) / 1e9
        drawn_wh = (self._drawn_ws(last_ns) - self._drawn_ws(first_ns)) / 3600.0
        return drawn_wh, (first_ns - begin_ns + end_ns - last_ns) / 1e9

    def _drawn_ws(self, t_ns: int) -> float:
        """Ws until a moment that is known; evenly within a span."""
        at = bisect_left(self.spans, t_ns, key=lambda span: span.end_ns)
        span, before = self.spans[at], self.spans[max(0, at - 1)]
        if span is before:
            return span.drawn_ws
        share = (t_ns - before.end_ns) / (span.end_ns - before.end_ns)
        return before.drawn_ws + share * (span.drawn_ws - before.drawn_ws)


class Plant:
    """The simulated plant in a process of its own, which no fault of a run touches: it is what is true."""

    def __init__(
        self, folder: Path, load: Path | None, period_us: int, name: str = "soak", meter_wh: float = 0.0
    ) -> None:
        """load : trace of W; None = constant. name : of the site. meter_wh : what its meter has counted before."""
        self.buses = folder / "buses"
        simulated = folder / "plant.toml"
        own = SITE.format(buses=self.buses, period_us=period_us, name=name)
        text = own
        for port in ("meters", "pcs"):
            text = text.replace(f'device = "{self.buses}/{port}"', 'device = "sim"')
        text = text.replace(f'interface = "slcan:{self.buses}/bms?sleep_after_open=0.2"', 'interface = "sim"')
        simulated.write_text(text + "[simulation]\nload_w = 35000\n")
        self.site = folder / f"{name}.toml"
        self.site.write_text(own)
        _, blob = prepare(simulated, accounts=False)
        program = os.memfd_create("program", 0)
        os.write(program, blob)
        words = [
            sys.executable,
            "-m",
            "tidegate.hal.sim",
            "--program-fd",
            str(program),
            "--site",
            str(simulated),
            "--serial",
            "meters=pty",
            "--serial",
            "pcs=pty",
            "--can",
            "bms=slcan",
            "--links",
            str(self.buses),
            *(("--load", str(load), "--load-column", "load_w") if load is not None else ()),
            "--meter-wh",
            str(meter_wh),
            "--true-hz",
            "20",
        ]
        self.process = subprocess.Popen(
            words, pass_fds=[program], stdout=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=with_us
        )
        os.close(program)
        self.truth = Truth()  # all of the run
        self.ready = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        if not self.ready.wait(120.0):
            raise RuntimeError("the plant did not start")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            row = json.loads(line)
            if row["kind"] == "ready":
                self.ready.set()
            elif row["kind"] == "true":
                self.truth.spans += (Span(*span) for span in row["grid_spans"])

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)


class Service:
    """A process that is started again whenever it ends, as systemd does with it."""

    def __init__(self, name: str, words: list[str], environment: dict[str, str], log: Path) -> None:
        self.name, self.words, self.environment, self.log = name, words, environment, log
        self.starts = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.keep()

    def keep(self) -> None:
        """Start it if it does not run."""
        if self.process is None or self.process.poll() is not None:
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    self.words, env=self.environment, stdout=log, stderr=log, start_new_session=True, preexec_fn=with_us
                )
            self.starts += 1

    @property
    def pid(self) -> int:
        return self.process.pid if self.process is not None and self.process.poll() is None else 0

    def close(self, timeout_s: float = 120.0) -> int | None:
        """End it in order; None where it had to be killed."""
        if self.process is None or self.process.poll() is not None:
            return self.process.returncode if self.process else None
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None


class Everything:
    """Site, page and exporter in one folder; their processes are found by the folder in their environment."""

    def __init__(self, folder: Path, plant: Plant, clock: dict[str, str], ports: tuple[int, int]) -> None:
        self.folder, self.plant, self.ports = folder, plant, ports
        self.run, self.state = folder / "run", folder / "state"
        self.environment = {
            **os.environ,
            "TIDEGATE_RUNTIME_DIR": str(self.run),
            "TIDEGATE_STATE_DIR": str(self.state),
            **clock,
        }
        log = folder / "log"
        self.site = Service("site", [*TIDEGATE, "run", str(plant.site)], self.environment, log)
        self.web = Service(
            "web",
            [*TIDEGATE, "web", "--site", "soak", "serve", "--listen", "127.0.0.1", "--port", str(ports[0])],
            self.environment,
            log,
        )
        self.export = Service(
            "export",
            [*TIDEGATE, "export", "prometheus", "--site", "soak", "--port", str(ports[1])],
            self.environment,
            log,
        )

    @property
    def services(self) -> tuple[Service, ...]:
        return self.site, self.web, self.export

    def client(self, timeout_s: float = 3.0) -> Client:
        return Client(f"ipc://{self.run / 'soak'}", timeout_s=timeout_s)

    def ours(self) -> Iterator[tuple[int, list[bytes], int]]:
        """(pid, words, parent) of each process that was started in this folder's environment and is no zombie."""
        mark = f"TIDEGATE_RUNTIME_DIR={self.run}".encode()
        for entry in Path("/proc").iterdir():
            try:
                if not entry.name.isdigit() or mark not in (entry / "environ").read_bytes().split(b"\0"):
                    continue
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if fields[0] != "Z":
                yield int(entry.name), words, int(fields[1])

    def roles(self) -> dict[str, int]:
        """Role -> pid of what runs now. What belongs to no living service is `orphan PID`."""
        found = {service.name: service.pid for service in self.services if service.pid}
        rows = {pid: (words, parent) for pid, words, parent in self.ours()}
        for pid, (words, parent) in rows.items():
            if pid in found.values():
                continue
            above = parent
            while above in rows and above not in found.values():
                above = rows[above][1]
            module = words[words.index(b"-m") + 1] if b"-m" in words[:-1] else b""
            role = MODULES.get(module, f"{module.decode() or words[0].decode()} {pid}")
            found[role if above in found.values() else f"orphan {pid} ({role})"] = pid
        return found

    def started(self, core: int) -> bool:
        """Whether `tidegate run` said that it runs with this core: a child that is killed before that stays down."""
        log = self.folder / "log"
        return bool(core) and f"core pid {core}," in log.read_text(errors="replace")

    def page_answers(self) -> bool:
        """Whether the page gives its sign-in over HTTPS."""
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        try:
            with urllib.request.urlopen(f"https://127.0.0.1:{self.ports[0]}/", timeout=5, context=tls) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def exporter_answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[1]}/metrics", timeout=5) as answer:
                return b"tidegate_" in answer.read()
        except OSError:
            return False

    def operate(self) -> str:
        """Acknowledge and order it to run, as an operator would; gives the mode, "" = nobody answers."""
        try:
            with self.client() as client:
                why = client.why()
                if why["mode"] not in ("run", "derated", "arming") or why["latches"]:
                    for op, fields in (("ack", {}), ("mode", {"mode": "run"})):
                        try:
                            client.ask(op, **fields)
                        except ClientError:
                            continue  # refused as long as the cause is there: the next look tries again
                return str(why["mode"])
        except (ClientError, OSError):
            return ""

    def close(self) -> dict[str, Any]:
        codes = {service.name: service.close() for service in reversed(self.services)}
        end = time.monotonic() + 20.0
        while any(True for _ in self.ours()) and time.monotonic() < end:
            time.sleep(0.2)
        return {"exit_codes": codes, "left_over": [pid for pid, _, _ in self.ours()]}
