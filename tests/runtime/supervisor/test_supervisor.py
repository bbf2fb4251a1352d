"""`tidegate run`: what it refuses, and how it ends, with the real processes over a simulated plant."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.demo_site import SLOW_DEMO as DEMO
from tidegate.runtime.api.blocking_client import Client, ClientError
from tidegate.runtime.state.paths import SiteBusy, SiteLock
from tidegate.runtime.supervisor.child import Child
from tidegate.runtime.supervisor.supervisor import Supervisor

TIDEGATE = [sys.executable, "-m", "tidegate.runtime.cli"]


class Run:
    """`tidegate run` as a user would start it, with folders of its own."""

    def __init__(self, site: Path, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.environment = {**os.environ, "TIDEGATE_RUNTIME_DIR": str(folder / "run")}
        self.log = (folder / "log").open("wb")
        words = [*TIDEGATE, "run", str(site), "--state-dir", str(self.state)]
        self.process = subprocess.Popen(words, stdout=self.log, stderr=self.log, env=self.environment)

    @property
    def said(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def running(self) -> bool:
        return " runs; core pid" in self.said

    def wait_running(self, timeout_s: float = 60.0) -> None:
        until = time.monotonic() + timeout_s
        while not self.running():
            assert self.process.poll() is None and time.monotonic() < until, self.said
            time.sleep(0.02)

    def children(self) -> dict[str, int]:
        """Module -> pid of every process whose environment says that it belongs to this run."""
        found = {}
        mark = f"TIDEGATE_RUNTIME_DIR={self.folder / 'run'}".encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                environment = (entry / "environ").read_bytes()
                state = re.search(r"^State:\s+(\w)", (entry / "status").read_text(), re.M)
            except OSError:
                continue
            if mark in environment.split(b"\0") and b"-m" in words and state and state.group(1) != "Z":
                found[words[words.index(b"-m") + 1].decode()] = int(entry.name)
        return found

    def client(self) -> Client:
        return Client(f"ipc://{self.folder / 'run'}/demo", timeout_s=10)

    def end(self, number: int = signal.SIGINT, timeout_s: float = 60.0) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Any]:
    runs: list[Run] = []

    def start(site: Path = DEMO) -> Run:
        runs.append(Run(site, tmp_path))
        return runs[-1]

    yield start
    for one in runs:
        one.close()


def results(said: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def gone(run: Run, timeout_s: float = 30.0) -> dict[str, int]:
    until = time.monotonic() + timeout_s
    while run.children() and time.monotonic() < until:
        time.sleep(0.05)
    return run.children()


def test_ctrl_c_ends_every_process_with_the_setpoint_at_zero(run):
    one = run()
    one.wait_running()
    before = one.children()
    assert {"tidegate.runtime.core.process", "tidegate.runtime.gateway", "tidegate.hal.sim"} <= set(before)
    assert one.end(signal.SIGINT) == 0, one.said
    assert "ended with setpoint 0" in one.said
    assert gone(one) == {}
    assert not (one.folder / "run/demo/api").exists()


@pytest.mark.parametrize("after_s", [0.0, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3, 1.7, 2.2, 3.0])
def test_ctrl_c_at_any_moment_leaves_no_process(run, after_s):
    one = run()
    time.sleep(after_s)
    code = one.end(signal.SIGINT)
    assert code in (0, 130, -signal.SIGINT, 1), one.said
    assert "Traceback" not in one.said or code == -signal.SIGINT or "KeyboardInterrupt" in one.said
    assert gone(one) == {}


def test_killing_the_supervisor_leaves_no_process(run):
    one = run()
    one.wait_running()
    one.end(signal.SIGKILL)
    assert gone(one) == {}


def test_a_second_run_is_refused_with_the_pid_of_the_first(run):
    one = run()
    one.wait_running()
    words = [*TIDEGATE, "run", str(DEMO), "--state-dir", str(one.state)]
    second = subprocess.run(words, capture_output=True, text=True, env=one.environment, timeout=60)
    assert second.returncode == 75
    assert str(one.process.pid) in second.stderr and "Traceback" not in second.stderr
    with one.client() as site:
        assert site.health()["core"]["running"]
    assert one.end() == 0


def test_killing_the_gateway_restarts_it_and_the_core_runs_on(run):
    one = run()
    one.wait_running()
    before = one.children()
    with one.client() as site:
        boot = site.health()["core"]["pid"]
        os.kill(before["tidegate.runtime.gateway"], signal.SIGKILL)
        until = time.monotonic() + 30
        after = before
        while after.get("tidegate.runtime.gateway") in (None, before["tidegate.runtime.gateway"]):
            assert time.monotonic() < until, one.said
            time.sleep(0.05)
            after = one.children()
        health = site.health()
    assert health["core"]["pid"] == boot == before["tidegate.runtime.core.process"]
    assert health["core"]["running"] and not health["core"]["stalled"]
    assert one.end() == 0


def test_the_end_of_the_core_ends_everything(run):
    one = run()
    one.wait_running()
    os.kill(one.children()["tidegate.runtime.core.process"], signal.SIGKILL)
    assert one.process.wait(60) != 0
    assert "core" in one.said and gone(one) == {}


def test_memory_is_anonymous_and_the_lock_is_free_after_the_end(run):
    one = run()
    one.wait_running()
    maps = Path(f"/proc/{one.children()['tidegate.runtime.core.process']}/maps").read_text()
    assert "/memfd:tidegate" in maps and "/dev/shm" not in maps
    assert one.end(signal.SIGTERM) == 0
    lock = SiteLock("demo", one.folder / "run/demo")
    lock.acquire()
    lock.release()


def test_in_process_the_supervisor_gives_client_and_results(tmp_path):
    with Supervisor(DEMO, runtime=tmp_path / "run", state=tmp_path / "state", sidecar=False) as site:
        with site.client() as client:
            heard = client.subscribe("meter")
            assert heard.receive(10.0) is not None
            with pytest.raises(SiteBusy) as busy:
                Supervisor(DEMO, runtime=tmp_path / "run", state=tmp_path / "state", sidecar=False).start()
            assert busy.value.pid == os.getpid()
        assert site.core_said["heavy_imports"] == []
        assert site.core_said["code_bytes"] > 1_000_000, "the core sums up its own machine code"
    assert site.children["core"].code == 0
    assert any(one.get("kind") == "result" for one in site.results)
    with pytest.raises(ClientError), site.client() as client:
        client.timeout_s = 0.2
        client.health()


def test_the_end_brings_the_setpoint_to_zero_on_the_wire_before_the_core_ends(tmp_path):
    folders = {"runtime": tmp_path / "run", "state": tmp_path / "state"}
    with Supervisor(DEMO, sidecar=False, **folders) as site, site.client() as client:
        client.timeout_s = 20
        until = time.monotonic() + 45
        while client.why()["mode"] not in ("run", "derated") and time.monotonic() < until:
            time.sleep(0.1)
        with client.lease(period_s=3.0) as lease:
            lease.setpoint(-3000.0, 60)
            while (client.why()["setpoint_w"] or 0.0) > -2900 and time.monotonic() < until:
                time.sleep(0.05)
            assert client.why()["setpoint_w"] < -2900
            asked_ns = time.monotonic_ns()
            code = site.stop()
            client.timeout_s = 0.5  # nobody is left to take the lease back
    assert code == 0
    # What the loop learnt of the plant meanwhile is where the next start begins, the same devices provided.
    again = Supervisor(DEMO, sidecar=False, **folders)
    assert again._learnt_said == [] and any("carried over from" in line for line in again.description.first)
    kept = again.learnt.path
    kept.write_text(re.sub(r'"of": "[0-9a-f]', '"of": "x', kept.read_text()))
    other = Supervisor(DEMO, sidecar=False, **folders)
    assert other.description.first == () and "another device, map, bus or option" in other._learnt_said[0]
    converter = next(one for one in site.results if one.get("kind") == "result")["converters"][0]
    assert converter["setpoint_w"] == 0.0 and converter["setpoint_t_ns"] > asked_ns
    assert abs(converter["power_w"]) < 1.0 and converter["reverts"] == 0


@pytest.mark.parametrize("name", ["carbon", "recorder"])
def test_one_that_is_killed_while_the_site_starts_is_started_again(tmp_path, monkeypatch, name):
    start, killed = Child.start, []

    def start_and_kill(child: Child) -> None:
        start(child)
        if child.name == name and not killed:
            killed.append(child.pid)
            os.kill(child.pid, signal.SIGKILL)

    monkeypatch.setattr(Child, "start", start_and_kill)
    said: list[str] = []
    with Supervisor(DEMO, runtime=tmp_path / "run", state=tmp_path / "state", out=said.append) as site:
        child, until = site.children[name], time.monotonic() + 60.0
        while not (child.alive and child.pid != killed[0] and child.ready.is_set()) and time.monotonic() < until:
            time.sleep(0.05)
        assert child.alive and child.pid != killed[0], said
    assert any(f"{name} ended at once with code -9" in line and "started again" in line for line in said)


# ---- bad input: a clear message with file, key and remedy; exit code not 0; nothing started ----

GOOD = DEMO.read_text()


def with_line(old: str, new: str) -> str:
    assert old in GOOD, f"the demo's site file has no {old!r} any more"
    return GOOD.replace(old, new, 1)


def bad_sites(folder: Path) -> dict[str, tuple[str, str]]:
    """Kind -> (text of the site file, words that the message must have)."""
    trace = re.search(r'load_trace = "([^"]+)"', GOOD)
    assert trace is not None
    rows = (DEMO.parent / trace.group(1)).read_text().splitlines()[:40]
    (folder / "text.csv").write_text(
        "\n".join([*rows[:20], ",".join(["twelve"] * len(rows[0].split(","))), *rows[21:]])
    )
    (folder / "gap.csv").write_text("\n".join([*rows[:20], "," * rows[0].count(","), *rows[21:]]))
    assert len(re.findall(r"unit_id = \d+", GOOD)) >= 2
    return {
        "unknown key": (with_line("[limits]", "[limits]\nfoo_w_max = 1.0"), "foo_w_max"),
        "wrong unit suffix": (
            with_line("connection_import_w_max", "connection_import_kw_max"),
            "connection_import_w_max",
        ),
        "limit below zero": (re.sub(r"peak_w_max = [\d_.]+", "peak_w_max = -1.0", GOOD, count=1), "peak_w_max"),
        "two devices with one unit id": (re.sub(r"unit_id = \d+", "unit_id = 7", GOOD), "unit_id"),
        "poll plan does not fit": (re.sub(r"baud = \d+", "baud = 300", GOOD), "baud"),
        "text in a number": (GOOD.replace(trace.group(1), "text.csv: line 21"), "text.csv: line 21"),
        "gap in a trace": (GOOD.replace(trace.group(1), "gap.csv"), "gap.csv: line 21"),
        "not TOML": ("[site\nname = ", "TOML"),
        "missing trace": (GOOD.replace(trace.group(1), "nowhere.csv"), "nowhere.csv"),
    }


KINDS = [
    "unknown key",
    "wrong unit suffix",
    "limit below zero",
    "two devices with one unit id",
    "poll plan does not fit",
    "text in a number",
    "gap in a trace",
    "not TOML",
    "missing trace",
]


def attempt(site: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TIDEGATE_RUNTIME_DIR": str(folder / "run")}
    words = [*TIDEGATE, "run", str(site), "--state-dir", str(folder / "state")]
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_site_is_refused_with_file_and_key_and_nothing_is_started(tmp_path, kind):
    for file in DEMO.parent.glob("*.csv"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    text, words = bad_sites(tmp_path)[kind]
    site = tmp_path / "site.toml"
    site.write_text(text)
    ended = attempt(site, tmp_path)
    assert ended.returncode not in (0, -signal.SIGKILL), ended.stderr
    assert words in ended.stderr and "Traceback" not in ended.stderr, ended.stderr
    assert str(site) in ended.stderr
    assert not (tmp_path / "run").exists(), "something was started"


def test_a_missing_or_unreadable_site_file_is_refused(tmp_path):
    missing = attempt(tmp_path / "none.toml", tmp_path)
    assert missing.returncode == 66 and "none.toml" in missing.stderr and "Traceback" not in missing.stderr
    folder = attempt(tmp_path, tmp_path)
    assert folder.returncode == 66 and "Traceback" not in folder.stderr


@pytest.mark.parametrize("raw", [b"[1,2]", b"start_utc\r1\r", b"\xff\xfe\x00"])
def test_factors_that_cannot_be_used_keep_no_site_from_running(run, tmp_path, raw):
    for path in DEMO.parent.iterdir():
        shutil.copy(path, tmp_path / path.name)
    (tmp_path / "gb_national_30min_20230314.csv").write_bytes(raw)
    one = run(tmp_path / "site.toml")
    one.wait_running()
    until = time.monotonic() + 60.0
    while "carbon: factors refused" not in one.said:
        assert time.monotonic() < until and one.process.poll() is None, one.said
        time.sleep(0.05)
    assert "gb_national_30min_20230314.csv" in one.said.split("carbon: factors refused", 1)[1]
    assert "tidegate.runtime.carbon" in one.children()
    assert one.end() == 0, one.said
