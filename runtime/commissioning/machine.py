"""What a machine gives the loop, item by item: kernel, rights, CPUs, clock. It only looks, and changes nothing.

Every look takes the root of /proc, /sys and /dev from the `Machine`, so that tests can show it another one.
"""

import ctypes
import os
import platform
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

OK, COSTS, FIX, UNKNOWN = "ok", "costs", "fix", "unknown"
LOOP_PRIORITY = 80
# The core has under 32 MiB resident and the recorder's ring, 64 MiB unless the site says otherwise; thread stacks and
# shared memory come on top.
MEMLOCK_MIN = 160 << 20
SHALLOW_US = 10  # an idle state that wakes up quicker is no matter


@dataclass
class Finding:
    """One line of the doctor. remedy: the command to run, or the setting to make; empty where all is well."""

    topic: str
    verdict: str
    says: str
    remedy: str = ""
    values: Mapping[str, object] = field(default_factory=dict)


@dataclass
class Machine:
    """Where to look, and what this process may do."""

    root: Path = Path("/")
    rtprio: Callable[[], int] = lambda: allowed_priority()
    memlock: Callable[[], int] = lambda: resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    may_lock: Callable[[], bool] = lambda: has_capability(14)  # CAP_IPC_LOCK

    def text(self, path: str) -> str | None:
        """Contents of a file below the root, stripped; None if it cannot be read."""
        try:
            return (self.root / path).read_text().strip()
        except OSError:
            return None

    def cpus(self) -> list[int]:
        """Numbers of the CPUs that are on line."""
        return numbers(self.text("sys/devices/system/cpu/online") or "0")


def numbers(text: str) -> list[int]:
    """CPU numbers out of a kernel list such as 0-2,5."""
    found: list[int] = []
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        if low.isdigit() and (not high or high.isdigit()):
            found += range(int(low), int(high or low) + 1)
    return found


def has_capability(number: int) -> bool:
    """Whether this process has a capability in force."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    held = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff")), "0")
    return bool(int(held, 16) >> number & 1)


def allowed_priority() -> int:
    """Highest FIFO priority that this process gets; found by asking for it and giving it back at once."""
    before, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    for priority in (95, LOOP_PRIORITY, 50, 1):
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
        except OSError:
            continue
        os.sched_setscheduler(0, before, parameters)
        return priority
    return 0


def look(machine: Machine) -> list[Finding]:
    """Everything about the machine itself."""
    return [
        kernel(machine),
        priority(machine),
        locked_memory(machine),
        governor(machine),
        *isolation(machine),
        idle_states(machine),
        clock(),
    ]


def is_realtime(machine: Machine) -> bool:
    """Whether the kernel is one with PREEMPT_RT."""
    version = machine.text("proc/version") or platform.version()
    return machine.text("sys/kernel/realtime") == "1" or "PREEMPT_RT" in version


def kernel(machine: Machine) -> Finding:
    """PREEMPT_RT or not."""
    release = machine.text("proc/sys/kernel/osrelease") or platform.release()
    if is_realtime(machine):
        return Finding("kernel", OK, f"{release} with PREEMPT_RT")
    arch = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armmp"}.get(platform.machine(), platform.machine())
    return Finding(
        "kernel", COSTS, f"{release} without PREEMPT_RT: under load a cycle may begin late by milliseconds",
        f"apt install linux-image-rt-{arch}, then reboot",
    )  # fmt: skip


def priority(machine: Machine) -> Finding:
    """The right to SCHED_FIFO."""
    got = machine.rtprio()
    if got >= LOOP_PRIORITY:
        return Finding("rt priority", OK, f"SCHED_FIFO {LOOP_PRIORITY} is allowed here")
    said = f"SCHED_FIFO {LOOP_PRIORITY} is not allowed here (at most {got}): any other program may delay a cycle"
    return Finding(
        "rt priority", FIX, said,
        "run it by the unit tidegate@SITE, or: echo '@tidegate - rtprio 95' > /etc/security/limits.d/tidegate.conf",
    )  # fmt: skip


def locked_memory(machine: Machine) -> Finding:
    """RLIMIT_MEMLOCK, or the capability that makes it unimportant."""
    limit = machine.memlock()
    if machine.may_lock() or limit == resource.RLIM_INFINITY or limit >= MEMLOCK_MIN:
        return Finding("locked memory", OK, "memory may be locked")
    return Finding(
        "locked memory", FIX, f"only {limit >> 10} KiB may be locked: a page fault may delay a cycle",
        "run it by the unit tidegate@SITE, or: echo '@tidegate - memlock unlimited' >> "
        "/etc/security/limits.d/tidegate.conf",
    )  # fmt: skip


def governor(machine: Machine) -> Finding:
    """How the CPUs choose their frequency."""
    names = {}
    for cpu in machine.cpus():
        said = machine.text(f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor")
        if said is not None:
            names[cpu] = said
    if not names:
        return Finding("governor", OK, "the kernel scales no frequency here")
    slow = {cpu: said for cpu, said in names.items() if said != "performance"}
    if not slow:
        return Finding("governor", OK, "performance on every CPU")
    shown = ", ".join(f"CPU {cpu} {said}" for cpu, said in slow.items())
    return Finding(
        "governor", COSTS, f"{shown}: the CPU is slow when a cycle begins",
        "echo performance | tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    )  # fmt: skip


def isolation(machine: Machine) -> list[Finding]:
    """A CPU of its own for the loop, and interrupts kept off it."""
    cpus = machine.cpus()
    alone = numbers(machine.text("sys/devices/system/cpu/isolated") or "")
    if len(cpus) < 2:
        return [
            Finding(
                "cpu isolation",
                COSTS,
                "one CPU: loop, ports and everything else share it",
                "use a board with two or more",
            )
        ]
    if not alone:
        last = cpus[-1]
        return [
            Finding(
                "cpu isolation", COSTS, "no CPU is kept free for the loop: others run on every CPU",
                f"add to the kernel command line: isolcpus=managed_irq,domain,{last} nohz_full={last} "
                f"rcu_nocbs={last}; then run with --cpu {last}",
            )
        ]  # fmt: skip
    shown = ",".join(map(str, alone))
    found = [Finding("cpu isolation", OK, f"CPU {shown} is kept free; run with --cpu {alone[0]}")]
    crossing = []
    for folder in sorted((machine.root / "proc/irq").glob("[0-9]*")):
        said = machine.text(f"proc/irq/{folder.name}/effective_affinity_list") or ""
        if set(numbers(said)) & set(alone):
            crossing.append(folder.name)
    if crossing:
        rest = ",".join(str(cpu) for cpu in cpus if cpu not in alone)
        found.append(
            Finding(
                "interrupts", COSTS, f"interrupts {', '.join(crossing)} are served on the isolated CPU",
                f"add irqaffinity={rest} to the kernel command line, or: "
                f"for i in {' '.join(crossing)}; do echo {rest} > /proc/irq/$i/smp_affinity_list; done",
            )
        )  # fmt: skip
    else:
        found.append(Finding("interrupts", OK, f"none is served on CPU {shown}"))
    return found


def idle_states(machine: Machine) -> Finding:
    """Deep idle states, and the right to hold the CPU out of them."""
    deepest, name = 0, ""
    for state in sorted((machine.root / "sys/devices/system/cpu/cpu0/cpuidle").glob("state*")):
        said = machine.text(str(state.relative_to(machine.root) / "latency"))
        off = machine.text(str(state.relative_to(machine.root) / "disable"))
        if said and said.isdigit() and off != "1" and int(said) > deepest:
            deepest, name = int(said), machine.text(str(state.relative_to(machine.root) / "name")) or state.name
    knob = machine.root / "dev/cpu_dma_latency"
    if deepest <= SHALLOW_US:
        return Finding("idle states", OK, f"none that wakes up slower than {SHALLOW_US} us")
    if os.access(knob, os.W_OK):
        return Finding("idle states", OK, f"deepest {name} ({deepest} us); the core holds the CPU out of it")
    return Finding(
        "idle states", COSTS, f"{name} takes {deepest} us to wake up, and {knob} may not be written",
        "run it by the unit tidegate@SITE, or: chgrp tidegate /dev/cpu_dma_latency && chmod 660 /dev/cpu_dma_latency",
    )  # fmt: skip


class _Timex(ctypes.Structure):
    _fields_ = [
        ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long), ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long), ("status", ctypes.c_int), ("rest", ctypes.c_long * 32),
    ]  # fmt: skip


STA_UNSYNC, TIME_ERROR = 0x40, 5
ERROR_US_MAX = 1_000_000


def clock() -> Finding:
    """Whether the kernel's clock is disciplined: quarter hours of a ledger hang on it, control does not."""
    timex = _Timex()
    state = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    return clock_words(state, timex.status, timex.maxerror)


def clock_words(state: int, status: int, maxerror_us: int) -> Finding:
    """The finding for what adjtimex said."""
    if state < 0 or state == TIME_ERROR or status & STA_UNSYNC:
        return Finding(
            "clock", COSTS, "UTC is not synchronised: records say so, tariff windows and quarter hours drift",
            "apt install chrony",
        )  # fmt: skip
    if maxerror_us > ERROR_US_MAX:
        return Finding("clock", COSTS, f"UTC may be off by {maxerror_us / 1e6:.1f} s", "chronyc makestep")
    return Finding("clock", OK, f"UTC is synchronised, off by at most {maxerror_us / 1000:.1f} ms")
