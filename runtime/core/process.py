"""The core process: opens the buses, starts one I/O thread a serial port, then the loop; ends with setpoint 0.

It holds no listener, writes no log file and imports neither numpy nor zmq nor pydantic: a small process whose memory
is locked. Everything it knows of the site is in the program that it is handed as a descriptor.
"""

import argparse
import contextlib
import gc
import json
import mmap
import os
import resource
import signal
import struct
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from tidegate.ext.abi import image as ext_image
from tidegate.ext.abi import program as ext_program
from tidegate.ext.abi import shared as ext_shared
from tidegate.ext.abi.image import check_layouts
from tidegate.ext.abi.shared import OrderKind, Shared
from tidegate.ext.bus.can_view import BusHandle
from tidegate.ext.bus.port import Port
from tidegate.ext.bus.rtu_view import histogram_edges
from tidegate.ext.bus.tcp import TcpPort
from tidegate.ext.cycle import code, realtime
from tidegate.ext.cycle import loop as ext_loop
from tidegate.ext.cycle.loop import Core
from tidegate.ext.cycle.recorder import Ring
from tidegate.hal import serial_line
from tidegate.hal.canbus import is_bridged
from tidegate.hal.description import Description, described
from tidegate.runtime.core.locked_memory import LockedMemory
from tidegate.runtime.core.sealed import NotSealedError, must_be_sealed
from tidegate.runtime.core.serial_ports import SerialKeeper, open_all, pairs
from tidegate.runtime.core.tcp_ports import tcp_ports
from tidegate.runtime.state.stop_pipe import signal_on_write
from tidegate.runtime.state.syscalls import BUSES, forbid

LOOP_PRIORITY = 80
PORT_PRIORITY = 70
DRAIN_S = 1.0  # for the last setpoint to reach the wire
TURNAROUND_LOOK_S = 10.0  # enough answers to judge an adapter by
STOP_NS = 10 * 365 * 86_400 * 10**9  # a stop has no end
THREAD_STACK = 256 << 10  # bytes; locked memory counts them
EXT = os.path.dirname(ext_image.__file__)
REPORT_EVERY_S = 1.0
HEAVY = ("numpy", "zmq", "pydantic")


@dataclass
class Lacks:
    """What this machine refused, with what it costs, in plain words."""

    words: list[str] = field(default_factory=list)

    def ask(self, what: str, error: int, cost: str) -> bool:
        """Note a refusal (errno other than 0); returns whether it was granted."""
        if error:
            self.words.append(f"{what}: {os.strerror(error)}; {cost}")
        return not error


def buffer_of(fd: int) -> mmap.mmap:
    """Map a whole descriptor that the supervisor handed over, read-only."""
    return mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ)


def hold_cpu_awake(stack: ExitStack, lacks: Lacks) -> None:
    """Keep the CPU out of deep idle states for as long as this process lives."""
    try:
        fd = os.open("/dev/cpu_dma_latency", os.O_WRONLY)
        os.write(fd, struct.pack("=i", 0))
        stack.callback(os.close, fd)
    except OSError as error:
        lacks.ask("/dev/cpu_dma_latency", error.errno or 1, "deep idle states delay the wake-up by up to a millisecond")


def lock_all() -> int:
    """Lock this process's memory: all that is touched, and all that the loop runs on whether touched or not.

    Returns 0 or the first errno. Code and data of the compiled core, libc and the shared memory are fetched whole, so
    that a path taken for the first time in a fault meets no page fault of its own.
    """
    error = realtime.lock_memory()
    with open("/proc/self/maps") as maps:
        for line in maps:
            words = line.split(maxsplit=5)
            place = words[5].strip() if len(words) > 5 else ""
            if words[1].startswith("r") and (
                EXT in place or "/libc" in place or place.startswith(("[heap", "/memfd:"))
            ):
                start, end = (int(word, 16) for word in words[0].split("-"))
                error = error or realtime.lock_range(start, end - start)
    return error


def bus_report(buses: dict[str, BusHandle], ports: Mapping[str, Port | TcpPort]) -> dict[str, object]:
    """Counters of every bus and port by name, for people; by this process's Python side, never by the loop."""
    return {
        "t_ns": time.clock_gettime_ns(time.CLOCK_MONOTONIC),
        "can": {name: {**bus.stats, "ids": bus.ids} for name, bus in buses.items()},
        "serial": {name: port_report(port.stats) for name, port in ports.items()},
    }


def port_report(stats: Mapping[str, Any]) -> dict[str, object]:
    """A port's counters without what only its engine needs; of histograms the buckets in use."""
    plain = {key: value for key, value in stats.items() if isinstance(value, int)}
    slaves = [
        {
            key: {at: count for at, count in enumerate(value) if count} if isinstance(value, list) else value
            for key, value in slave.items()
        }
        for slave in stats["slaves"]
    ]
    return {**plain, "slaves": slaves}


def loaded_heavies() -> list[str]:
    """Which of the modules that this process must not import are loaded all the same."""
    return [name for name in HEAVY if name in sys.modules]


def loop_thread(
    core: Core, shared: Shared, locked: bool, lacks: Lacks, cpu: int | None, ready: threading.Event
) -> None:
    """FIFO last of all: threads started after it would inherit it."""
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})  # 0: this thread only
    fifo = lacks.ask(
        f"SCHED_FIFO {LOOP_PRIORITY}",
        realtime.set_fifo(LOOP_PRIORITY),
        "other programs may delay a cycle by milliseconds (raise rtprio in limits.conf, or use the systemd unit)",
    )
    shared.put_grants(loop_tid=threading.get_native_id(), fifo=LOOP_PRIORITY if fifo else 0, locked=locked)
    ready.set()
    core.run(DRAIN_S)


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tidegate.runtime.core.process", description=__doc__)
    parser.add_argument("--program-fd", type=int, required=True, help="descriptor of the compiled site")
    parser.add_argument("--shared-fd", type=int, required=True, help="descriptor of the shared memory")
    parser.add_argument("--ring-fd", type=int, default=None, help="descriptor of the recorder's ring")
    parser.add_argument("--serial", action="append", default=[], metavar="NAME=DEVICE", help="device or descriptor")
    parser.add_argument(
        "--tcp",
        action="append",
        default=[],
        metavar="BUS=ADDRESS:PORT",
        help="of a simulated bus, in place of the site's",
    )
    parser.add_argument("--can", action="append", default=[], metavar="NAME=INTERFACE", help="interface or descriptor")
    parser.add_argument(
        "--latched", action="append", default=[], metavar="UNIT=BITS,FIRST", help="what a unit had latched before"
    )
    parser.add_argument("--stop-fd", type=int, default=None, help="pipe: a byte in it is the order to stop")
    parser.add_argument("--cpu", type=int, default=None, help="pin the loop to this CPU")
    return parser.parse_args(words)


def latches_of(words: list[str]) -> list[tuple[int, int, int]]:
    """(unit, latched rows as bits, row that came first) of each argument."""
    found = []
    for word in words:
        unit, _, rest = word.partition("=")
        bits, _, first = rest.partition(",")
        found.append((int(unit), int(bits, 0), int(first)))
    return found


def give_up(site: Description, given: Mapping[str, str]) -> None:
    """Give up the calls of the kernel that no core needs; what stays open is said.

    given : descriptors in the place of CAN buses. A bus that the kernel does not know is a process of its own, which
    this one starts, ends, and starts again when it is lost: beside such a bus there is no filter.
    """
    names = [bus.interface for bus in site.can if is_bridged(given.get(bus.name, bus.interface))]
    lack = f"no filter of calls: {', '.join(names)} needs a process that this one starts" if names else forbid(BUSES)
    if lack:
        print(f"core: {lack}", file=sys.stderr, flush=True)


def regain(shared: Shared) -> None:
    """Ask for the loop's priority again where it was lost: a supervisor with another user may not do it for us."""
    wanted = shared.loop_counters()["fifo"]
    with contextlib.suppress(OSError):  # refused, or the loop has just ended: the guard says what it sees
        if wanted and os.sched_getscheduler(shared.loop_tid) & ~os.SCHED_RESET_ON_FORK != os.SCHED_FIFO:
            os.sched_setscheduler(shared.loop_tid, os.SCHED_FIFO, os.sched_param(wanted))


def start_head(shared: Shared, blob: bytes, program: "ext_program.Rows") -> None:
    """Who is writing this memory, since when, and for which site."""
    t_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    shared.set_head(
        boot_id=os.urandom(16),
        program_sha256=bytes.fromhex(ext_program.sha256(blob)),
        t_start_ns=t_ns,
        utc_offset_ns=time.clock_gettime_ns(time.CLOCK_REALTIME) - t_ns,
        n_points=len(program["points"]),
        n_units=len(program["units"]),
        core_pid=os.getpid(),
    )


def main(words: list[str] | None = None) -> int:
    """Run the core until SIGTERM or SIGINT. Exit 0: setpoint 0 is on the wire; 3: not every port confirmed it."""
    args = arguments(words)
    check_layouts((ext_image, ext_loop, ext_shared))
    try:
        must_be_sealed(args.program_fd)
    except NotSealedError as error:
        raise SystemExit(f"core: {error}") from None
    blob = buffer_of(args.program_fd)
    raw = bytes(blob)
    site, rows = described(ext_program.describe(raw)), ext_program.rows(raw)
    give_up(site, pairs(args.can, "can"))
    shared = Shared(args.shared_fd)
    core = Core(blob, shared)
    for unit, bits, first in latches_of(args.latched):
        core.restore(unit, bits, first)
    start_head(shared, raw, rows)
    ring = Ring(args.ring_fd, writable=True) if args.ring_fd is not None else None
    if ring is not None:
        core.record(ring)
    lacks = Lacks()
    threading.stack_size(THREAD_STACK)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: core.stop())
    # To zero and to stay there, for who has only a signal: neither gateway nor supervisor has to live.
    signal.signal(
        signal.SIGUSR1,
        lambda *_: shared.put_order(OrderKind.STOP, 1.0, time.clock_gettime_ns(time.CLOCK_MONOTONIC) + STOP_NS, 0),
    )
    if args.stop_fd is not None:
        signal_on_write(args.stop_fd, signal.SIGUSR1)
    with ExitStack() as stack:
        lines = open_all(core, site, rows, pairs(args.serial, "serial"), pairs(args.can, "can"), stack)
        numbers = [number for number, row in enumerate(site.ports) if not row.over_tcp]
        ports = [Port(core.port_handle(index), index, line.fd) for index, line in zip(numbers, lines, strict=True)]
        keeper = SerialKeeper(lines, ports)
        stack.callback(keeper.close)  # after the threads, which end first
        for port in ports:
            stack.callback(port.stop)
            port.start(PORT_PRIORITY)
        over_tcp = tcp_ports(core, site, pairs(args.tcp, "tcp"))
        if over_tcp is not None:
            stack.callback(over_tcp.stop)
            over_tcp.start(PORT_PRIORITY)

        buses = {bus.name: core.can_handle(number) for number, bus in enumerate(site.can)}
        serials: dict[str, Port | TcpPort] = {
            site.ports[number].name: port for number, port in zip(numbers, ports, strict=True)
        }
        lines_only = dict(serials)
        slave_names = {name: site.slave_names(name) for name in lines_only}
        if over_tcp is not None:
            serials |= {site.ports[number].name: TcpPort(over_tcp, number) for number in over_tcp.ports}
        code_bytes = code.watch(core, os.path.dirname(EXT))
        core.dry_cycle()
        del raw, rows, site
        gc.collect()
        memory = LockedMemory()
        stack.callback(memory.close)
        realtime.keep_heap()
        realtime.prefault_heap()
        locked = lacks.ask(
            "mlockall",
            lock_all(),
            "a page fault may delay a cycle (raise memlock in limits.conf, or use the systemd unit)",
        )
        hold_cpu_awake(stack, lacks)
        ready = threading.Event()
        loop = threading.Thread(target=loop_thread, args=(core, shared, locked, lacks, args.cpu, ready), name="loop")
        loop.start()
        ready.wait()
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ring_kib = ring.bytes_mapped >> 10 if ring is not None else 0  # of these, the recorder's
        said = {"core": "running", "pid": os.getpid(), "lacks": lacks.words, "heavy_imports": loaded_heavies()}
        print(json.dumps({**said, "rss_kib": peak_kib, "ring_kib": ring_kib, "code_bytes": code_bytes}), flush=True)
        for line in lacks.words:
            print(f"core: without {line}", file=sys.stderr, flush=True)
        # A signal handler runs between two bytecodes of this thread, so the wait is in slices.
        report_s = 0.0
        look_s = time.monotonic() + TURNAROUND_LOOK_S
        while loop.is_alive():
            if time.monotonic() >= look_s:
                look_s = float("inf")
                for name, counted in lines_only.items():
                    stats = counted.stats
                    said_of = serial_line.turnaround_words(name, stats, histogram_edges())
                    said_of += serial_line.lead_in_words(name, slave_names[name], stats)
                    for line in said_of:
                        print(f"core: {line}", file=sys.stderr, flush=True)
            if time.monotonic() >= report_s:
                report_s = time.monotonic() + REPORT_EVERY_S
                keeper.look()
                if locked and memory.lost():
                    lock_all()
                regain(shared)
                shared.put_buses(bus_report(buses, serials))
            loop.join(0.05)
    return 0 if core.at_rest else 3


if __name__ == "__main__":
    sys.exit(main())
