"""Inside a guest whose time is counted in instructions: a whole site runs, and the loop's record of a span is taken.

    python tests/vm/icount_site.py SECONDS FIGURES

Started as its users do: `tidegate run` of the simulated site (core, gateway, carbon sidecar, plant behind the buses)
and `tidegate web serve` with a reader on its page. The span begins once the cabinet is armed and the page has answered.
Priority and locked memory are what the kernel says of the core's own threads, not what the core says.
"""

import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tidegate.ext.abi.shared import Shared
from tidegate.runtime.client import Client

SITE = Path(__file__).parents[2] / "config" / "sites" / "simulated.toml"
PERIOD_US = 1000
TIDEGATE = [sys.executable, "-m", "tidegate.runtime.cli"]
WORK = Path("/tmp/icount")
PHASES = ("read", "estimate", "control", "limit", "write", "publish")
DONT_ASK_AGAIN_S = 0.2


def until(condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    """Wait. Raises SystemExit that names what did not happen."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"icount_site: {what} within {seconds:.0f} s of guest time")
        time.sleep(DONT_ASK_AGAIN_S)


def site_file() -> Path:
    """The simulated site at 1 kHz, as a file of its own."""
    text = "\n".join(line for line in SITE.read_text().splitlines() if not line.startswith("period_us"))
    assert "[site]\n" in text
    made = WORK / "simulated.toml"
    made.write_text(text.replace("[site]\n", f"[site]\nperiod_us = {PERIOD_US}\n"))
    return made


def memory_of(core: int) -> Shared:
    """What the core shares, read through its own descriptor."""
    for entry in Path(f"/proc/{core}/fd").iterdir():
        if os.readlink(entry) == "/memfd:tidegate (deleted)":
            return Shared(os.open(entry, os.O_RDWR), False)
    raise SystemExit(f"icount_site: process {core} shares no memory")


def threads_of(pid: int) -> dict[int, tuple[int, int]]:
    """thread -> (policy, priority), from the kernel."""
    found = {}
    for entry in Path(f"/proc/{pid}/task").iterdir():
        tid = int(entry.name)
        found[tid] = (os.sched_getscheduler(tid), os.sched_getparam(tid).sched_priority)
    return found


def locked_kib(pid: int) -> int:
    """Locked memory of a process, KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmLck:"):
            return int(line.split()[1])
    return 0


# What the processes of a site import. Read once before they start: while a file comes slowly from the machine outside,
# the guest's time runs on, and a start is given up after some seconds of it.
IMPORTED = (
    *("tidegate.runtime.cli.main", "tidegate.runtime.core.process", "tidegate.runtime.gateway.app"),
    *("tidegate.runtime.carbon.__main__", "tidegate.runtime.recording.__main__", "tidegate.hal.sim.__main__"),
    *("tidegate.runtime.cli.web_commands", "tidegate.runtime.web.web_process"),
)


def read_in() -> None:
    """Have the kernel of the guest hold all files that the site's processes will read."""
    code = "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code, *IMPORTED], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"icount_site: {done.stderr.splitlines()[-1]}")


def interrupts() -> int:
    """Interrupts that this machine took since its start."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("intr "):
            return int(line.split()[1])
    raise SystemExit("icount_site: /proc/stat counts no interrupts")


class Page:
    """A program that reads the page's state over HTTPS."""

    def __init__(self) -> None:
        done = subprocess.run([*TIDEGATE, "web", "grant", "icount", "--role", "read"], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"icount_site: tidegate web grant: {done.stderr}")
        self._token = done.stdout.strip()
        self._tls = ssl.create_default_context()
        self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE
        self.answers, self.said = 0, ""

    def read(self) -> bool:
        asked = urllib.request.Request(
            "https://127.0.0.1:8443/api/v1/why", headers={"Authorization": f"Bearer {self._token}"}
        )
        try:
            with urllib.request.urlopen(asked, timeout=20, context=self._tls) as answer:
                self.answers += answer.status == 200
                return bool(answer.status == 200)
        except OSError as why:
            self.said = str(why)
            return False


def state_of(memory: Shared, core: int) -> dict[str, Any]:
    return {
        "counters": memory.loop_counters(),
        "histograms": {name: memory.histogram(name) for name in ("lateness", "work", *PHASES)},
        "loop": threads_of(core)[memory.loop_tid],
        "threads": sorted(row for row in threads_of(core).values() if row[0] == os.SCHED_FIFO),
        "locked_kib": locked_kib(core),
        "interrupts": interrupts(),
        "buses": memory.buses(),
    }


def measure(seconds: float) -> dict[str, Any]:
    """Start everything, let it run for a span, end it. Gives what was seen."""
    WORK.mkdir()
    read_in()
    os.environ |= {"TIDEGATE_RUNTIME_DIR": str(WORK / "run"), "TIDEGATE_STATE_DIR": str(WORK / "state")}
    site = subprocess.Popen([*TIDEGATE, "run", str(site_file())], stdout=subprocess.PIPE, text=True)
    assert site.stdout is not None
    first = site.stdout.readline()
    if "core pid " not in first:
        raise SystemExit(f"icount_site: tidegate run: {first!r}, exit code {site.poll()}")
    core = int(first.partition("core pid ")[2].partition(",")[0])
    print(f"[{time.monotonic():.1f}] {first.strip()}", flush=True)
    with (WORK / "web.log").open("w") as log:
        web = subprocess.Popen([*TIDEGATE, "web", "serve", "--listen", "127.0.0.1"], stdout=log, stderr=log)
    page = Page()
    with Client() as client:
        until(lambda: client.why()["mode"] in ("run", "derated"), "the cabinet was not armed")
    print(f"[{time.monotonic():.1f}] armed", flush=True)
    try:
        until(lambda: web.poll() is not None or page.read(), "the page did not answer")
    except SystemExit:
        print(f"the page, asked: {page.said}\n{(WORK / 'web.log').read_text()[-3000:]}")
        raise
    if web.poll() is not None:
        raise SystemExit(f"icount_site: the page ended with {web.poll()}\n{(WORK / 'web.log').read_text()[-3000:]}")
    print(f"[{time.monotonic():.1f}] the page answers", flush=True)
    memory = memory_of(core)
    with Client() as client:
        why = client.why()
    before = state_of(memory, core)
    began = time.monotonic()
    page.answers = asked = 0
    while time.monotonic() - began < seconds:
        asked += 1
        page.read()
        time.sleep(max(0.0, min(1.0, began + seconds - time.monotonic())))
    span_s = time.monotonic() - began
    after = state_of(memory, core)
    with Client() as client:
        health, why_after = client.health(), client.why()
    web.terminate()
    web.wait(60)
    site.send_signal(signal.SIGTERM)
    ended = site.wait(120)
    spans = {name: after["histograms"][name].since(before["histograms"][name]) for name in after["histograms"]}
    counted = {name: after["counters"][name] - before["counters"][name] for name in after["counters"]}
    return {
        "kernel": f"{os.uname().release} {os.uname().version}",
        "machine": os.uname().machine,
        "span_s": round(span_s, 3),
        "period_us": PERIOD_US,
        "cycles": counted["cycles"],
        "counters": counted,
        "quantiles_ns": {
            name: {
                "count": one.count,
                "p50": one.percentile(50),
                "p99": one.percentile(99),
                "max": one.max,
                "mean": round(one.mean, 1),
            }
            for name, one in spans.items()
        },
        "loop_policy": {"before": before["loop"], "after": after["loop"]},
        "fifo_threads": {"before": before["threads"], "after": after["threads"]},
        "locked_kib": {"before": before["locked_kib"], "after": after["locked_kib"]},
        "interrupts_per_cycle": round((after["interrupts"] - before["interrupts"]) / max(1, counted["cycles"]), 3),
        "page_answers": page.answers,
        "page_asked": asked,
        "carbon": health.get("carbon"),
        "mode": why_after["mode"],
        "why": {"before": why, "after": why_after},
        "buses": {"before": before["buses"], "after": after["buses"]},
        "exit_code": ended,
    }


if __name__ == "__main__":
    found = measure(float(sys.argv[1]))
    Path(sys.argv[2]).write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
