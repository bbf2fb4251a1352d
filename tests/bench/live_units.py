"""How much of a core does a live site of many cabinets take? Real processes, buses over ptys, the kernel's account.

    python tests/bench/live_units.py [--units 1 4 16] [--sites N --cpu N] [--seconds S] [--period-us N] [--out FILE]

For each number of units a site of `tests/world/test_units.py` runs as its users run it (`tidegate run`), at full load,
with a line for each converter up to seven. What a thread took is its processor time, which a shared machine disturbs
less than anything that waits; what waits (cycles missed) is given with the machine's load. Left out of the sum are the
simulated plant and the bridges to its pty CAN buses, which a cabinet does not have.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.vm.icount_site import TIDEGATE, memory_of, until
from tests.world.test_units import site_text
from tidegate.runtime.client import Client, ClientError

WAIT_S = 180.0


def threads_ns(pid: int) -> dict[int, int]:
    """Thread -> processor time so far, ns, from the kernel."""
    found = {}
    for entry in Path(f"/proc/{pid}/task").iterdir():
        found[int(entry.name)] = int((entry / "schedstat").read_text().split()[0])
    return found


class LiveSite:
    """A site of so many cabinets, run as its users run it. cpu : of its core, -1 = any."""

    def __init__(self, top: Path, name: str, units: int, period_us: int, cpu: int) -> None:
        text = site_text(units).replace('name = "many"\n', f'name = "{name}"\nperiod_us = {period_us}\n', 1)
        load = f"[simulation]\nload_w = {100e3 + 20e3 * units}\n"
        self.name, file, self._log = name, top / f"{name}.toml", top / f"{name}.log"
        file.write_text(text.replace("[simulation]\n", load, 1))
        with self._log.open("w") as log:
            words = [*TIDEGATE, "run", str(file), *(("--cpu", str(cpu)) if cpu >= 0 else ())]
            self.running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.running.stdout is not None
        first = self.running.stdout.readline()
        if "core pid " not in first:
            raise SystemExit(f"live_units: {first!r} {self._log.read_text()[-2000:]}")
        self.core = int(first.partition("core pid ")[2].partition(",")[0])
        with Client(site=name) as client:
            until(lambda: self._mode(client) in ("run", "derated"), f"{name}: not armed", WAIT_S)
        self.memory = memory_of(self.core)

    @staticmethod
    def _mode(client: Client) -> str:
        try:
            return str(client.why()["mode"])
        except ClientError:
            return ""

    def look(self) -> tuple[dict[int, int], dict[str, int]]:
        """Processor time of each thread of the core, ns, and its counters."""
        return threads_ns(self.core), self.memory.loop_counters()

    def between(self, before: tuple[dict[int, int], dict[str, int]], span_s: float) -> dict[str, Any]:
        after, then = self.look()
        spent = {tid: after[tid] - before[0][tid] for tid in after if tid in before[0]}
        cycles = then["cycles"] - before[1]["cycles"]
        loop_ns = spent.pop(self.memory.loop_tid)
        ports = sorted((ns / span_s / 1e9 for ns in spent.values()), reverse=True)
        with Client(site=self.name) as client:
            why = client.why()
        return {
            "cycles": cycles, "missed": then["missed"] - before[1]["missed"], "mode": why["mode"],
            "setpoint_w": why["setpoint_w"], "loop_us_a_cycle": round(loop_ns / max(cycles, 1) / 1e3, 2),
            "port_threads": [round(one, 4) for one in ports if one > 1e-5],
            "core_share": round((loop_ns + sum(spent.values())) / span_s / 1e9, 4),
        }  # fmt: skip

    def end(self) -> None:
        self.running.send_signal(signal.SIGTERM)
        try:
            self.running.wait(120)
        except subprocess.TimeoutExpired:
            self.running.kill()


def live(units: int, sites: int, seconds: float, period_us: int, cpu: int) -> dict[str, Any]:
    """Run the sites and take a span of all of them. Raises SystemExit naming what did not happen."""
    with tempfile.TemporaryDirectory(prefix="tidegate-units-") as top:
        os.environ |= {"TIDEGATE_RUNTIME_DIR": f"{top}/run", "TIDEGATE_STATE_DIR": f"{top}/state"}
        there: list[LiveSite] = []
        try:
            for number in range(sites):
                there.append(LiveSite(Path(top), f"many{number}", units, period_us, cpu))
            before, at = [one.look() for one in there], time.monotonic()
            time.sleep(seconds)
            span_s = time.monotonic() - at
            found = [one.between(first, span_s) for one, first in zip(there, before, strict=True)]
            return {
                "units": units * sites, "sites": sites, "period_us": period_us, "span_s": round(span_s, 2),
                "core_share": round(sum(one["core_share"] for one in found), 4), "missed": [o["missed"] for o in found],
                "load": [round(one, 1) for one in os.getloadavg()], "each": found,
            }  # fmt: skip
        finally:
            for one in there:
                one.end()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--sites", type=int, default=1, help="so many such sites beside each other")
    parser.add_argument("--cpu", type=int, default=-1, help="that the cores of all of them share")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--period-us", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = []
    for units in args.units:
        found.append(live(units, args.sites, args.seconds, args.period_us, args.cpu))
        print(json.dumps(found[-1]), flush=True)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
