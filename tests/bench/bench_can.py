"""What does a CAN frame cost, from the descriptor to its values, beside python-can and cantools in the same run?

Run: make bench, or python tests/bench/bench_can.py [--rounds N] [--interface vcan0] [--out DIR] [--smoke]
Frames: four messages of the foxBMS database, random payloads, the same bytes for both. Without SocketCAN they come
through an AF_UNIX SOCK_SEQPACKET pair that both read in turns, python-can with its own SocketCAN bus class; kernel
stamps are on. With --interface both read that real interface. First every value is compared, then timed, the two
peers taking turns chunk by chunk. `floor` is recvmmsg alone. Only the ratios within one run count.
"""

import argparse
import os
import random
import socket
import statistics
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

import can
import cantools
import harness
from can.interfaces.socketcan.socketcan import SocketcanBus

from tidegate.ext.abi import program as ext_program
from tidegate.ext.abi.shared import Shared
from tidegate.ext.bus.can_view import Bus
from tidegate.ext.cycle import realtime
from tidegate.ext.cycle.loop import Core
from tidegate.hal import canbus

DBC = Path(__file__).parent.parent / "data" / "can" / "foxbms.dbc"
IDS = (0x220, 0x232, 0x233, 0x235)  # state, limits, values, state of charge
FRAME = struct.Struct("=IB3x8s")
CHUNK = 64
SO_TIMESTAMPNS = 35
FULL_BUS = 9009  # 8-byte frames a second on 1 Mbit/s without a stuffed bit


def rows_of(database: Any) -> tuple[list[dict[str, Any]], dict[int, tuple[int, list[str]]]]:
    """Our rows, and where each message's signals stand in the image."""
    rows, places, first = [], {}, 0
    for can_id in IDS:
        message = database.get_message_by_frame_id(can_id)
        fields = [
            {
                "point": first + i,
                "start": signal.start,
                "length": signal.length,
                "big_endian": signal.byte_order == "big_endian",
                "signed": signal.is_signed,
                "scale": signal.scale,
                "offset": signal.offset,
            }
            for i, signal in enumerate(message.signals)
        ]
        rows.append({"id": can_id, "len_max": message.length, "fields": fields})
        places[can_id] = (first, [signal.name for signal in message.signals])
        first += len(fields)
    return rows, places


class PairBus(SocketcanBus):
    """python-can's own SocketCAN receive path on one end of a socket pair, which only lacks the address family."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self.channel = "pair"
        self._is_filtered = True

    def shutdown(self) -> None:
        self._is_shutdown = True


class Line:
    """A descriptor with CAN frames in it, and the way to put some there."""

    def __init__(self, interface: str | None) -> None:
        self.shared = interface is None  # both peers read one socket, in turns
        self.peer: can.BusABC
        if interface is None:
            self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.near.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self.peer = PairBus(self.near)
        else:
            self.near = canbus.open_bus(interface, IDS)
            self.far = socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
            self.far.bind((interface,))
            self.peer = can.Bus(interface="socketcan", channel=interface)

    def fill(self, frames: list[bytes]) -> None:
        for frame in frames:
            self.far.send(frame)


def compare(database: Any, bus: Bus, places: dict[int, tuple[int, list[str]]], line: Line, frames: list[bytes]) -> int:
    """Every value of every frame against cantools. Returns how many; raises on the first that differs."""
    compared = 0
    for number, frame in enumerate(frames, 1):
        line.fill([frame])
        if bus.drain(number) != 1:
            raise RuntimeError("a frame did not arrive")
        can_id, length, data = FRAME.unpack(frame)
        first, names = places[can_id]
        expected = database.decode_message(can_id, data[:length], decode_choices=False)
        for i, name in enumerate(names):
            if bus.point(first + i)[0] != expected[name]:
                raise RuntimeError(f"{can_id:#x} {name}: {bus.point(first + i)[0]}, cantools says {expected[name]}")
            compared += 1
    return compared


def cyclic(seconds: float, given: harness.Conditions) -> dict[str, Any]:
    """How far from its grid does a cyclic frame leave the running loop? By the kernel's stamps at the far end.

    f_BmsStateRequest of foxBMS: every 100 ms, and the BMS opens its contactors when it comes 5 ms early or late. Here
    also every 10 ms, for more samples.
    """
    period_ms = (100, 10)
    tx = [
        {"id": 0x210 + i, "len": 1, "data": b"\x01", "period_ns": ms * 1_000_000, "unit": -1}
        for i, ms in enumerate(period_ms)
    ]
    blob = ext_program.pack({"period_ns": 1_000_000, "units": [{}], "n_can_buses": 1, "can_tx": tx})
    shared, shared_fd = Shared.memfd("bench")
    core = Core(blob, shared)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    far.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    core.set_can_fd(0, near.fileno())

    def body() -> None:
        error = realtime.set_fifo(80)
        given.peer("loop that sends", f"ordinary priority (FIFO: {os.strerror(error)})" if error else "SCHED_FIFO 80")
        core.run(0.1)

    thread = threading.Thread(target=body)
    thread.start()
    stamps: dict[int, list[int]] = {row["id"]: [] for row in tx}
    end = time.monotonic() + seconds
    far.settimeout(1.0)
    while time.monotonic() < end:
        frame, beside, _, _ = far.recvmsg(72, 128)
        stamp = struct.unpack_from("=qq", beside[0][2])
        stamps[FRAME.unpack(frame)[0]].append(stamp[0] * 1_000_000_000 + stamp[1])
    core.stop()
    thread.join()
    near.close()
    far.close()
    os.close(shared_fd)
    out = {}
    for row, ms in zip(tx, period_ms, strict=True):
        came = stamps[row["id"]]
        # The grid is absolute, so every frame is held against the one grid that fits best, not against its neighbour.
        off = [t - came[0] - round((t - came[0]) / row["period_ns"]) * row["period_ns"] for t in came]
        middle = statistics.median(off)
        worst = sorted(abs(o - middle) / 1000 for o in off)
        out[f"every_{ms}_ms"] = {
            "frames": len(came),
            "off_grid_us_p50": round(worst[len(worst) // 2], 1),
            "off_grid_us_p99": round(worst[int(len(worst) * 0.99)], 1),
            "off_grid_us_max": round(worst[-1], 1),
        }
    return out


def main() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=400, help=f"chunks of {CHUNK} frames for each peer")
    parser.add_argument("--seconds", type=float, default=10.0, help="of cyclic transmission by the loop")
    parser.add_argument("--interface", default=None, help="a real CAN interface instead of a socket pair")
    args = parser.parse_args()
    if args.smoke:
        args.rounds, args.seconds = 20, 0.5
    with harness.conditions(args) as given:
        result = measure(args, given)
    harness.write(args, "can", result, given)
    return 0


def measure(args: argparse.Namespace, given: harness.Conditions) -> dict[str, Any]:
    """Compare, then time both peers and the cyclic frames; print the figures and return them."""
    for peer in ("recvmmsg + table", "python-can + cantools"):
        given.peer(peer, "one thread of this process in turns, ordinary priority, no locked memory")
    database: Any = cantools.database.load_file(DBC)
    rows, places = rows_of(database)
    generator = random.Random(1)
    frames = []
    for i in range(CHUNK):
        message = database.get_message_by_frame_id(IDS[i % len(IDS)])
        frames.append(FRAME.pack(message.frame_id, message.length, generator.randbytes(message.length)))

    line = Line(args.interface)
    bus = Bus(rows, fd=line.near.fileno())
    compared = compare(database, bus, places, line, frames)
    while not line.shared and line.peer.recv(0.0) is not None:
        pass
    receive, decode = line.peer.recv, database.decode_message
    floor = Bus([], fd=line.near.fileno())  # knows no id, so it decodes nothing
    floor_ns = []
    ours_ns, peers_ns = [], []
    ours_cpu, peers_cpu = [], []  # of this thread: beside other load the time that passes says who was interrupted
    for round_ in range(args.rounds):
        line.fill(frames)
        start, cpu = time.perf_counter_ns(), time.thread_time_ns()
        taken = bus.drain(1000 + round_)
        ours_cpu.append((time.thread_time_ns() - cpu) / CHUNK)
        ours_ns.append((time.perf_counter_ns() - start) / CHUNK)
        if taken != CHUNK:
            raise RuntimeError(f"{taken} of {CHUNK} frames arrived")
        if line.shared:
            line.fill(frames)
        start, cpu = time.perf_counter_ns(), time.thread_time_ns()
        for _ in range(CHUNK):
            message = receive()
            decode(message.arbitration_id, message.data, decode_choices=False)
        peers_cpu.append((time.thread_time_ns() - cpu) / CHUNK)
        peers_ns.append((time.perf_counter_ns() - start) / CHUNK)
        if line.shared:
            line.fill(frames)
            start = time.perf_counter_ns()
            floor.drain(1000 + round_)
            floor_ns.append((time.perf_counter_ns() - start) / CHUNK)

    memory = Bus(rows)
    memory_ns = []
    for round_ in range(args.rounds):
        for frame in frames:
            can_id, length, data = FRAME.unpack(frame)
            memory.inject(can_id, data[:length])
        start = time.perf_counter_ns()
        memory.drain(round_)
        memory_ns.append((time.perf_counter_ns() - start) / CHUNK)
    idle = Bus(rows, [{"id": 0x210, "data": b"\x01", "period_ns": 10**15}])
    idle.send_due(1)
    cycles = 50_000 if args.smoke else 5_000_000
    start = time.perf_counter_ns()
    idle.spin(cycles, 2)
    idle_ns = (time.perf_counter_ns() - start) / cycles

    ours, peers = statistics.median(ours_ns), statistics.median(peers_ns)
    ratios = sorted(theirs / own for own, theirs in zip(ours_cpu, peers_cpu, strict=True))
    low, middle, high = (ratios[int(len(ratios) * share)] for share in (0.1, 0.5, 0.9))
    result = {
        "path": args.interface or "SOCK_SEQPACKET pair",
        "values_compared": compared,
        "ours_ns_per_frame": round(ours, 1),
        "python_can_cantools_ns_per_frame": round(peers, 1),
        "recvmmsg_alone_ns_per_frame": round(statistics.median(floor_ns), 1) if floor_ns else None,
        "ours_cpu_ns_per_frame": round(statistics.median(ours_cpu), 1),
        "python_can_cantools_cpu_ns_per_frame": round(statistics.median(peers_cpu), 1),
        "ratio": round(middle, 1),
        "ratio_p10": round(low, 1),
        "ratio_p90": round(high, 1),
        "ratio_of_time_passed": round(peers / ours, 1),
        "ratio_asked": 13,
        "decode_in_memory_ns_per_frame": round(statistics.median(memory_ns), 1),
        "idle_virtual_bus_ns_per_cycle": round(idle_ns, 2),
        "core_share_of_a_full_1_mbit_bus": round(ours * FULL_BUS / 1e9, 5),
    }
    result["cyclic"] = cyclic(args.seconds, given)
    print(f"CAN through a {result['path']}: {compared} values equal to cantools, then {args.rounds} chunks each")
    print(f"  recvmmsg + table              {ours:9.0f} ns a frame, {statistics.median(ours_cpu):.0f} ns of CPU")
    print(f"  python-can + cantools         {peers:9.0f} ns a frame, {statistics.median(peers_cpu):.0f} ns of CPU")
    print(f"  CPU of a chunk                {middle:9.1f} x (p10 {low:.1f}, p90 {high:.1f}; asked: at least 13)")
    if floor_ns:
        print(f"  recvmmsg alone (the floor)    {result['recvmmsg_alone_ns_per_frame']:9.0f} ns a frame")
    print(f"  table alone, in memory        {result['decode_in_memory_ns_per_frame']:9.0f} ns a frame")
    print(f"  idle virtual bus              {idle_ns:9.2f} ns a cycle, read and write phase")
    print(f"  a full 1 Mbit/s bus           {result['core_share_of_a_full_1_mbit_bus']:9.2%} of this core")
    print("  cyclic frames from the running loop, distance from their grid (asked: within 5000 us)")
    for name, row in result["cyclic"].items():
        print(
            f"    {name.replace('_', ' '):14} {row['frames']:5} frames   p50 {row['off_grid_us_p50']} us"
            f"   p99 {row['off_grid_us_p99']} us   max {row['off_grid_us_max']} us"
        )
    return result


if __name__ == "__main__":
    sys.exit(main())
