"""What does a Modbus TCP transaction cost, beside libmodbus and pymodbus on the same server, and what costs the loop?

Run: make bench, or python tests/bench/bench_tcp.py [--rounds N] [--seconds S] [--out DIR] [--smoke]
First one connection on loopback, a read after the other as fast as each peer can: most of that is the kernel's, and the
same for all. How much, `bare` shows: a send and a recv for each read, and nothing else; with one request in flight on
a connection no master can be cheaper, so what is beneath its share of a peer is not to be had there. `pipelined` is
ours with eight in flight on that one connection, which neither peer can. Then what a site is: 32 connections, each read
every 20 ms (libmodbus blocks, so one thread for each). The peers take turns in every round, because only ratios within
one run count; the servers have the clients' priority, so that another process costs no peer its answer. Last, the
loop's lateness beside these 32 connections and beside none, under the same load.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import harness
from bench_rtu import compile_c

from tidegate.ext.abi import program as ext_program
from tidegate.ext.abi.shared import Shared
from tidegate.ext.bus.tcp import TcpPorts
from tidegate.ext.cycle import realtime
from tidegate.ext.cycle.loop import Core

CLIENT_PRIORITY, LOOP_PRIORITY, PORT_PRIORITY = 60, 80, 70
PEERS = {
    1: ("ours", "bare", "libmodbus", "pymodbus", "pipelined"),
    32: ("ours", "bare", "libmodbus", "pymodbus"),
}
REGISTERS = 60
CONNECTIONS, PERIOD_NS = 32, 20_000_000
IN_FLIGHT = 8


def site(port: int, connections: int, period_ns: int, in_flight: int = 1) -> bytes:
    block = {"function": 3, "address": 100, "count": REGISTERS, "fields": [], "period_ns": period_ns}
    slave = {"unit_id": 1, "timeout_ns": 500_000_000, "blocks": [block]}
    rows = [
        {"transport": ext_program.TRANSPORTS["tcp"], "family": 4, "host": socket.inet_aton("127.0.0.1"),
         "tcp_port": port, "link": link, "slaves": [slave]}
        for link in range(connections) for _ in range(in_flight)
    ]  # fmt: skip
    return ext_program.pack({"units": [{}], "ports": rows})


@contextlib.contextmanager
def server(built: Path, seconds: float) -> Any:
    """The TCP port of a server of its own."""
    process = subprocess.Popen([str(built), str(int(seconds) + 5)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(process.pid, os.SCHED_FIFO, os.sched_param(CLIENT_PRIORITY))
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def run_ours(port: int, connections: int, seconds: float, in_flight: int = 1) -> dict[str, float]:
    ports = TcpPorts(site(port, connections, PERIOD_NS if connections > 1 else 0, in_flight))

    def total(key: str) -> int:
        return sum(ports.stats(index)[key] for index in range(connections * in_flight))

    ports.start(CLIENT_PRIORITY)
    before, cpu = total("ok"), time.process_time()
    time.sleep(seconds)
    cpu, good = time.process_time() - cpu, total("ok") - before
    bad = total("timeouts") + total("mismatches")
    ports.stop(0.0)
    return {"good": good, "bad": bad, "cpu_us": cpu * 1e6 / max(good, 1)}


async def poll_pymodbus(port: int, connections: int, seconds: float) -> dict[str, float]:
    from pymodbus.client import AsyncModbusTcpClient
    from pymodbus.exceptions import ModbusException

    clients = [AsyncModbusTcpClient("127.0.0.1", port=port, timeout=0.3, retries=0) for _ in range(connections)]
    for one in clients:
        await one.connect()
    counts = [0, 0]
    end, cpu = time.monotonic() + seconds, time.process_time()

    async def poll(one: AsyncModbusTcpClient) -> None:
        due = time.monotonic()
        while time.monotonic() < end:
            try:
                answer = await one.read_holding_registers(100, count=REGISTERS)
                counts[answer.isError()] += 1
            except ModbusException:  # nobody answered in time
                counts[True] += 1
            if connections > 1:
                due += PERIOD_NS / 1e9
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    await asyncio.gather(*[poll(one) for one in clients])
    cpu = time.process_time() - cpu
    for one in clients:
        one.close()
    return {"good": counts[0], "bad": counts[1], "cpu_us": cpu * 1e6 / max(counts[0], 1)}


def client(name: str, port: int, connections: int, seconds: float) -> None:
    """The body of a client process: read, then one line of JSON."""
    if name in ("ours", "pipelined"):
        print(json.dumps(run_ours(port, connections, seconds, IN_FLIGHT if name == "pipelined" else 1)))
        return
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(CLIENT_PRIORITY))
    print(json.dumps(asyncio.run(poll_pymodbus(port, connections, seconds))))


def peer(name: str, connections: int, seconds: float, built: dict[str, Path | None]) -> dict[str, float] | None:
    """One turn of one peer with a server of its own; None where the peer is missing."""
    program = built["server"]
    assert program
    with server(program, seconds) as port:
        if name in ("bare", "libmodbus"):
            if built[name] is None:
                return None
            period_us = PERIOD_NS // 1000 if connections > 1 else 0
            words = [str(built[name]), str(port), str(REGISTERS), str(seconds), str(CLIENT_PRIORITY), str(connections)]
            words.append(str(period_us))
        else:  # each in a process of its own, so that its CPU time is its own
            words = [sys.executable, __file__, "--client", name, str(port), str(connections), str(seconds)]
        found: dict[str, float] = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return found


def lateness(connections: int, seconds: float, program: Path) -> dict[str, float]:
    """Lateness of the loop in us beside so many connections, two busy processes beside it."""
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    shared, fd = Shared.memfd("bench")
    with server(program, seconds + 2) as port:
        core = Core(site(port, max(connections, 1), PERIOD_NS), shared)
        core.dry_cycle()
        ports = TcpPorts([(core.port_handle(index), index) for index in range(connections)]) if connections else None
        if ports is not None:
            ports.start(PORT_PRIORITY)

        def body() -> None:
            realtime.set_fifo(LOOP_PRIORITY)
            core.run(0.1)

        loop = threading.Thread(target=body)
        loop.start()
        time.sleep(seconds)
        core.stop()
        loop.join()
        good = sum(ports.stats(index)["ok"] for index in range(connections)) if ports is not None else 0
        if ports is not None:
            ports.stop(0.0)
        for process in hogs:
            process.kill()
            process.wait()
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
        client(args.client[0], int(args.client[1]), int(args.client[2]), float(args.client[3]))
        return 0
    if args.smoke:
        args.rounds, args.seconds = 1, 0.3
    with harness.conditions(args) as given:
        found = measure(args, given)
    harness.write(args, "tcp", found, given)
    return 0


def measure(args: argparse.Namespace, given: harness.Conditions) -> dict[str, Any]:
    """Every peer in turns, then the loop beside busy connections; print the figures and return them."""
    with tempfile.TemporaryDirectory() as folder:
        built = {
            "server": compile_c("tcp_server.c", Path(folder)),
            "bare": compile_c("bare_tcp_client.c", Path(folder)),
            "libmodbus": compile_c("libmodbus_tcp_client.c", Path(folder), "modbus"),
        }
        if built["server"] is None:
            raise SystemExit("bench_tcp: no C compiler here: nothing measured")
        if built["libmodbus"] is None:
            given.peer("libmodbus", "missing here (Debian package libmodbus-dev): its column stays empty")
        for name in PEERS[1]:
            given.peer(name, f"FIFO {CLIENT_PRIORITY} where it is granted, a process of its own, as its server")
        given.peer(
            "loop", f"FIFO {LOOP_PRIORITY}, its connections FIFO {PORT_PRIORITY}, where granted; two busy processes"
        )
        turns: dict[tuple[int, str], list[dict[str, float]]] = {}
        loops: dict[int, list[dict[str, float]]] = {0: [], CONNECTIONS: []}
        for _ in range(args.rounds):
            for connections in (1, CONNECTIONS):
                for name in PEERS[connections]:
                    found = peer(name, connections, args.seconds, built)
                    if found:
                        turns.setdefault((connections, name), []).append(found)
            for connections, rows in loops.items():
                rows.append(lateness(connections, 2 * args.seconds, built["server"]))
    return report(args, turns, loops)


def report(args: argparse.Namespace, turns: dict[tuple[int, str], Any], loops: dict[int, Any]) -> dict[str, Any]:
    """Print the table and return what it says."""
    out: dict[str, Any] = {"registers": REGISTERS, "rounds": args.rounds, "seconds": args.seconds, "peers": {}}
    print(f"{REGISTERS} registers on loopback, median (least to most) of {args.rounds} rounds")
    print("1 connection: as fast as it goes; 32: each every 20 ms")
    print("connections       peer  CPU us/tx                 good/s  bad")
    for (connections, name), rows in turns.items():
        row = {key: middle(rows, key) for key in ("cpu_us", "good", "bad")} | {"rounds": rows}
        out["peers"].setdefault(str(connections), {})[name] = row
        rate = row["good"] / args.seconds
        ends = f"({min(one['cpu_us'] for one in rows):.1f} to {max(one['cpu_us'] for one in rows):.1f})"
        print(f"{connections:>11} {name:>10} {row['cpu_us']:>10.1f} {ends:18} {rate:>8.0f} {row['bad']:>4.0f}")
    asked: list[tuple[str, list[float], float]] = []
    for connections, rows in out["peers"].items():
        for ours in ("ours", "pipelined"):
            for name, most in (("libmodbus", 0.5), ("pymodbus", 0.1)):
                if name in rows and ours in rows:
                    text = f"CPU per transaction, {ours} / {name}, connections: {connections}"
                    asked.append((text, ratios(rows, ours, name), most))
    out["kernel"] = {}
    for connections, rows in out["peers"].items():
        for one, other in (("bare", "libmodbus"), ("bare", "pymodbus"), ("ours", "bare")):
            if one in rows and other in rows:
                found = ratios(rows, one, other)
                out["kernel"][f"{one} / {other}, connections: {connections}"] = found
                print(f"of the kernel: {one} / {other}, connections: {connections}: {shown(found)}")
    late = [busy["p99.9"] / alone["p99.9"] for alone, busy in zip(loops[0], loops[CONNECTIONS], strict=True)]
    rate = middle(loops[CONNECTIONS], "transactions_per_s")
    share = rate / (CONNECTIONS * 1e9 / PERIOD_NS)
    out["loop_us"] = {"without": loops[0], "with": loops[CONNECTIONS], "share_of_asked_reads": share}
    asked.append((f"loop lateness p99.9, {CONNECTIONS} connections at {PERIOD_NS / 1e6:g} ms / none", late, 1.3))
    for number, rows in loops.items():
        shares = ", ".join(f"{key} {middle(rows, key):.0f}" for key in ("p50", "p99", "p99.9"))
        print(f"loop beside 2 busy processes and {number} connections: {shares} us")
    print(f"  {rate:.0f} reads/s of them, {share:.1%} of what was asked for")
    out["asked"] = {}
    for text, found, limit in asked:
        value = statistics.median(found)
        print(f"{'met ' if value <= limit else 'MISSED'} {text}: {shown(found)} (asked at most {limit})")
        out["asked"][text] = {"measured": value, "rounds": found, "at most": limit, "met": value <= limit}
    return out


def ratios(rows: dict[str, Any], one: str, other: str) -> list[float]:
    """CPU per transaction of one peer by that of another, in each round."""
    pairs = zip(rows[one]["rounds"], rows[other]["rounds"], strict=True)
    return [ours["cpu_us"] / theirs["cpu_us"] for ours, theirs in pairs]


def shown(found: list[float]) -> str:
    """Median, least and most."""
    return f"{statistics.median(found):.3f} ({min(found):.3f} to {max(found):.3f})"


if __name__ == "__main__":
    sys.exit(main())
