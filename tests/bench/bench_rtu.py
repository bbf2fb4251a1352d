"""How much of the line do we use, and what does a transaction cost, beside libmodbus and pymodbus on the same slave?

Run: make bench, or python tests/bench/bench_rtu.py [--rounds N] [--seconds S] [--out DIR] [--smoke]
The slave (paced_slave.c) keeps the line's pace on a pty; the peers take turns in every round, because only ratios
within one run count. For all of them the CPUs are kept out of deep idle states, as the core keeps them: on an idle
machine their exit costs more than the line is idle. libmodbus comes from Debian's libmodbus-dev; where it is missing
the table says so. The second part asks what four busy ports cost the loop: its lateness with and without them, under
the same load.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tty
from pathlib import Path
from typing import Any

import harness

from tidegate.ext.abi import program as ext_program
from tidegate.ext.abi.shared import Shared
from tidegate.ext.bus.port import Port
from tidegate.ext.cycle import realtime
from tidegate.ext.cycle.loop import Core

HERE = Path(__file__).resolve().parent
BAUD = 115200
SLAVE_PRIORITY, CLIENT_PRIORITY, LOOP_PRIORITY, PORT_PRIORITY = 75, 60, 80, 70
PEERS = ("ours", "libmodbus", "pymodbus")
ASKED_SHARE = {60: 0.99, 10: 0.975}
CHAR_NS = 10 * 1e9 / BAUD


def compile_c(source: str, out: Path, *libraries: str) -> Path | None:
    """The built program, or None where a library or the compiler is missing."""
    target = out / Path(source).stem
    words = ["cc", "-O2", "-o", str(target), str(HERE / source), *[f"-l{name}" for name in libraries]]
    if not shutil.which("cc") or subprocess.run(words, capture_output=True).returncode:
        return None
    return target


def site(ports: int, registers: int) -> bytes:
    block = {"function": 3, "address": 100, "count": registers, "fields": []}
    slave = {"unit_id": 1, "timeout_ns": 200_000_000, "blocks": [block]}
    row = {"baud": BAUD, "gap_rule": ext_program.GAP_RULES["chars"], "slaves": [slave]}
    return ext_program.pack({"units": [{}], "ports": [row] * ports})


def line() -> tuple[int, int, str]:
    """A pty in raw mode: the slave's descriptor, ours, and ours by name."""
    theirs, ours = os.openpty()
    tty.setraw(theirs)
    tty.setraw(ours)
    return theirs, ours, os.ttyname(ours)


def slave(program: Path, fd: int, seconds: float) -> subprocess.Popen[str]:
    words = [str(program), str(fd), str(BAUD), str(seconds), str(SLAVE_PRIORITY)]
    return subprocess.Popen(words, pass_fds=[fd], stdout=subprocess.PIPE, text=True)


def run_ours(fd: int, registers: int, seconds: float) -> dict[str, float]:
    port = Port(site(1, registers), 0, fd)
    before, cpu = time.process_time(), 0.0
    port.start(CLIENT_PRIORITY)
    time.sleep(seconds)
    cpu = time.process_time() - before
    stats, sleeps = port.stats, port.sleeps
    port.stop(0.0)
    good = stats["ok"]
    return {
        "good": good,
        "bad": stats["transactions"] - good - 1,
        "cpu_us": cpu * 1e6 / max(good, 1),
        "sleeps": sleeps / max(good, 1),
    }


def run_libmodbus(program: Path, device: str, registers: int, seconds: float) -> dict[str, float]:
    words = [str(program), device, str(BAUD), str(registers), str(seconds), str(CLIENT_PRIORITY)]
    found: dict[str, float] = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return found


async def poll_pymodbus(device: str, registers: int, seconds: float) -> dict[str, float]:
    from pymodbus.client import AsyncModbusSerialClient
    from pymodbus.exceptions import ModbusException

    client = AsyncModbusSerialClient(device, baudrate=BAUD, timeout=0.3, retries=0)
    await client.connect()
    good = bad = 0
    end, cpu = time.monotonic() + seconds, time.process_time()
    while time.monotonic() < end:
        try:
            answer = await client.read_holding_registers(100, count=registers)
            good, bad = (good, bad + 1) if answer.isError() else (good + 1, bad)
        except ModbusException:  # nobody answered in time
            bad += 1
    cpu = time.process_time() - cpu
    client.close()
    return {"good": good, "bad": bad, "cpu_us": cpu * 1e6 / max(good, 1)}


def peer(name: str, registers: int, seconds: float, built: dict[str, Path | None]) -> dict[str, float] | None:
    """One turn of one peer with a slave of its own; None where the peer is missing."""
    slave_program = built["slave"]
    assert slave_program
    if name == "libmodbus" and built["libmodbus"] is None:
        return None
    theirs, ours, device = line()
    device_side = slave(slave_program, theirs, seconds + 1.5)
    try:
        if name == "libmodbus":
            assert built["libmodbus"]
            found = run_libmodbus(built["libmodbus"], device, registers, seconds)
        else:  # each in a process of its own, so that its CPU time is its own
            words = [sys.executable, __file__, "--client", name, device, str(registers), str(seconds)]
            found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
        device_side.terminate()
        said = json.loads(device_side.communicate(timeout=30)[0])
    finally:
        device_side.kill()
        os.close(ours)
        os.close(theirs)
    # The line's own sums: 8 bytes out, silence, the answer, silence.
    ideal = (8 + 3.5 + 5 + 2 * registers + 3.5) * CHAR_NS
    return {
        **found,
        "share": ideal * said["transactions"] / max(said["elapsed_ns"], 1),
        "hasty": said["hasty"] / max(said["transactions"], 1),
        "share_median": ideal / (ideal + said["idle_median_ns"]),
        "idle_median_us": said["idle_median_ns"] / 1000,
        "idle_us": said["idle_ns"] / 1000 / max(said["transactions"], 1),
    }


def client(name: str, device: str, registers: int, seconds: float) -> None:
    """The body of a client process: read, then one line of JSON."""
    if name == "ours":
        fd = os.open(device, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(fd)
        print(json.dumps(run_ours(fd, registers, seconds)))
    else:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(CLIENT_PRIORITY))
        print(json.dumps(asyncio.run(poll_pymodbus(device, registers, seconds))))


def lateness(ports: int, seconds: float, slave_program: Path) -> dict[str, float]:
    """Lateness of the loop in us with `ports` busy ports, two busy processes beside it."""
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    lines = [line() for _ in range(ports)]
    slaves = [slave(slave_program, theirs, seconds + 2) for theirs, _, _ in lines]
    shared, fd = Shared.memfd("bench")
    core = Core(site(max(ports, 1), 10), shared)
    core.dry_cycle()
    threads = [Port(core.port_handle(index), index, ours) for index, (_, ours, _) in enumerate(lines)]
    for thread in threads:
        thread.start(PORT_PRIORITY)

    def body() -> None:
        realtime.set_fifo(LOOP_PRIORITY)
        core.run(0.1)

    loop = threading.Thread(target=body)
    loop.start()
    time.sleep(seconds)
    core.stop()
    loop.join()
    good = sum(thread.stats["ok"] for thread in threads)
    for thread in threads:
        thread.stop(0.0)
    for process in [*hogs, *slaves]:
        process.kill()
        process.wait()
    for theirs, ours, _ in lines:
        os.close(theirs)
        os.close(ours)
    os.close(fd)
    histogram = shared.histogram("lateness")
    return {name: histogram.percentile(float(name[1:])) / 1000 for name in ("p50", "p99", "p99.9")} | {
        "transactions_per_s": good / seconds
    }


def middle(rows: list[dict[str, float]], key: str) -> float:
    return statistics.median(row[key] for row in rows)


def main() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--client", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        client(args.client[0], args.client[1], int(args.client[2]), float(args.client[3]))
        return 0
    if args.smoke:
        args.rounds, args.seconds = 1, 0.3
    with harness.conditions(args) as given:
        found = measure(args, given)
    harness.write(args, "rtu", found, given)
    return 0


def measure(args: argparse.Namespace, given: harness.Conditions) -> dict[str, Any]:
    """Every peer in turns, then the loop beside busy ports; print the figures and return them."""
    with tempfile.TemporaryDirectory() as folder:
        built = {
            "slave": compile_c("paced_slave.c", Path(folder)),
            "libmodbus": compile_c("libmodbus_client.c", Path(folder), "modbus"),
        }
        if built["slave"] is None:
            raise SystemExit("bench_rtu: no C compiler here: nothing measured")
        given.peer("slave", f"FIFO {SLAVE_PRIORITY} where it is granted")
        if built["libmodbus"] is None:
            given.peer("libmodbus", "missing here (Debian package libmodbus-dev): its column stays empty")
        for name in PEERS:
            given.peer(name, f"FIFO {CLIENT_PRIORITY} where it is granted, a process of its own")
        given.peer("loop", f"FIFO {LOOP_PRIORITY}, its ports FIFO {PORT_PRIORITY}, where granted; two busy processes")
        turns: dict[tuple[int, str], list[dict[str, float]]] = {}
        for _ in range(args.rounds):
            for registers in (60, 10):
                for name in PEERS:
                    found = peer(name, registers, args.seconds, built)
                    if found:
                        turns.setdefault((registers, name), []).append(found)
        loops: dict[int, list[dict[str, float]]] = {0: [], 4: []}
        for _ in range(args.rounds):
            for ports in (0, 4):
                loops[ports].append(lateness(ports, 2 * args.seconds, built["slave"]))
    return report(args, turns, loops)


def report(args: argparse.Namespace, turns: dict[tuple[int, str], Any], loops: dict[int, Any]) -> dict[str, Any]:
    """Print the tables and return what they say."""
    out: dict[str, Any] = {"baud": BAUD, "rounds": args.rounds, "seconds": args.seconds, "peers": {}, "asked": {}}
    print(f"paced slave at {BAUD} baud, median of {args.rounds} rounds; share = legal ideal time / time used;")
    print("hasty = requests before 3.5 characters of silence: a share above 100 % is bought with them")
    print(
        "median = share of the transaction in the middle: a busy machine stalls a pty, which carries bytes by a worker"
    )
    print("registers       peer    share   median   hasty  CPU us/tx   good  bad")
    for (registers, name), rows in turns.items():
        row = {key: middle(rows, key) for key in ("share", "share_median", "hasty", "cpu_us", "good", "bad")}
        out["peers"].setdefault(str(registers), {})[name] = row
        # Of those that break the silence only the few that did not would count: no figure.
        typical = f"{row['share_median']:>8.1%}" if row["hasty"] < 0.01 else " " * 8
        print(
            f"{registers:>9} {name:>10} {row['share']:>8.1%} {typical} {row['hasty']:>7.1%} {row['cpu_us']:>10.1f}"
            f" {row['good']:>6.0f} {row['bad']:>4.0f}"
        )
    asked: list[tuple[str, float, str, float, bool]] = []
    for registers, least in ASKED_SHARE.items():
        share = out["peers"][str(registers)]["ours"]["share"]
        asked.append((f"share of the legal ideal, {registers} registers", share, "at least", least, share >= least))
        share = out["peers"][str(registers)]["ours"]["share_median"]
        asked.append((f"the same, median transaction, {registers}", share, "at least", least, share >= least))
    for name, most in (("libmodbus", 0.5), ("pymodbus", 0.1)):
        if name in out["peers"]["60"]:
            ratio = out["peers"]["60"]["ours"]["cpu_us"] / out["peers"]["60"][name]["cpu_us"]
            asked.append((f"CPU per transaction / {name}, 60 registers", ratio, "at most", most, ratio <= most))
    alone, busy = middle(loops[0], "p99.9"), middle(loops[4], "p99.9")
    out["loop_us"] = {"without": loops[0], "with_4_ports": loops[4]}
    asked.append(("loop lateness p99.9, 4 busy ports / none", busy / alone, "at most", 2.0, busy <= 2.0 * alone))
    print(f"loop beside 2 busy processes: p99.9 {alone:.0f} us; with 4 ports {busy:.0f} us")
    for text, value, how, limit, good in asked:
        print(f"{'met ' if good else 'MISSED'} {text}: {value:.3f} (asked {how} {limit})")
        out["asked"][text] = {"measured": value, how: limit, "met": good}
    return out


if __name__ == "__main__":
    sys.exit(main())
