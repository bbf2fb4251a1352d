"""What every bench shares: its arguments, the conditions that it was measured under, and the file that it leaves.

A bench is `tests/bench/bench_NAME.py`. It takes `--out DIR`, where it leaves `NAME.json`, and `--smoke`: everything
once and short, so that a test can see that it still runs. What a smoke run measures says nothing, and its file says so.
"""

import argparse
import contextlib
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The arguments of every bench; the bench adds its own."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, default=None, help="folder for the figures as JSON")
    made.add_argument("--smoke", action="store_true", help="everything once and short: does it run? no figure counts")
    return made


@dataclass
class Conditions:
    """The machine during a measurement, and what each peer was given."""

    kernel: str
    preemption: str
    cpus: int
    cpu: str
    governor: str
    cpu_dma_latency: str
    load_average: float
    smoke: bool
    steal_share: float | None = None  # of all CPU time between begin and end
    peers: dict[str, str] = field(default_factory=dict)

    def peer(self, name: str, given: str) -> None:
        """Say once what a peer had: priority, locked memory, whatever may make it faster than another."""
        if name not in self.peers:
            self.peers[name] = given
            print(f"  {name}: {given}")


@contextlib.contextmanager
def conditions(args: argparse.Namespace) -> Iterator[Conditions]:
    """Keep the CPUs out of deep idle states for every peer alike, as the core does; print what the machine is.

    Where `/dev/cpu_dma_latency` is refused, it is refused to all, and that is said.
    """
    with contextlib.ExitStack() as stack:
        found = Conditions(
            kernel=platform.release(),
            preemption="PREEMPT_RT" if "PREEMPT_RT" in platform.version() else "not PREEMPT_RT",
            cpus=len(os.sched_getaffinity(0)),
            cpu=_cpu(),
            governor=_first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "not to be seen here",
            cpu_dma_latency=_hold_awake(stack),
            load_average=os.getloadavg()[0],
            smoke=args.smoke,
        )
        print(
            f"conditions: {found.cpus} CPUs ({found.cpu}), Linux {found.kernel}, {found.preemption}, governor "
            f"{found.governor}, load average {found.load_average:.2f}, cpu_dma_latency {found.cpu_dma_latency}"
        )
        if found.smoke:
            print("  a smoke run: the figures below count for nothing")
        before = _cpu_ticks()
        yield found
        steal, total = (after - first for after, first in zip(_cpu_ticks(), before, strict=True))
        found.steal_share = round(steal / total, 4) if total else None
        shown = "not known" if found.steal_share is None else f"{found.steal_share:.1%}"
        print(f"  steal meanwhile {shown}, load average at the end {os.getloadavg()[0]:.2f}", flush=True)


def write(args: argparse.Namespace, name: str, figures: Any, found: Conditions) -> None:
    """Leave NAME.json in --out, if it was asked for: the figures, and the conditions beside them."""
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        whole = {"conditions": asdict(found), "figures": figures}
        (args.out / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n")


def _hold_awake(stack: contextlib.ExitStack) -> str:
    try:
        fd = os.open("/dev/cpu_dma_latency", os.O_WRONLY)
    except OSError as error:
        return f"not held: {error.strerror}"
    stack.callback(os.close, fd)
    try:
        os.write(fd, bytes(4))
    except OSError as error:
        return f"not held: {error.strerror}"
    return "held at 0 us for all"


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().splitlines()[0]
    except (OSError, IndexError):
        return ""


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _cpu_ticks() -> tuple[int, int]:
    """(stolen by the host, all) of all CPUs, clock ticks since the machine's start."""
    ticks = [int(word) for word in _first_line("/proc/stat").split()[1:9]]
    return ticks[7], sum(ticks)
