"""How many instructions do the hot paths take? They do not depend on how busy the machine is, so a test can hold them.

Run: python tests/bench/instructions.py [--out DIR] [--only NAME ...]
valgrind's callgrind (Debian: valgrind, gcc, libc6-dev) counts them in the modules as they are built: one cycle of the
whole core for 1, 4 and 16 units in virtual time, a Modbus transaction of 60 registers from the poll to the values (over
TCP it is the same engine), a CAN frame of eight signals. What is counted is the compiled function with all that it
calls, and nothing of the Python around it. The same build gives the same count to the instruction; another compiler
gives another.
"""

import argparse
import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CYCLES = 4000
TRANSACTIONS = 200
FRAMES = 512
MS = 1_000_000


class Missing(RuntimeError):
    """A program that has to be there, named with its Debian package."""


# ---- inside callgrind ----


class Gate:
    """Starts and stops the counting around what a path does."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        if not self._library.gate_running():
            raise SystemExit("instructions: not under valgrind")

    def start(self) -> None:
        self._library.gate_start()

    def stop(self, name: str) -> None:
        self._library.gate_stop(name.encode())


def cycles(units: int) -> Callable[[Gate], None]:
    """Four seconds of the whole core beside its plant, after ten in which it armed and took up load.

    One second holds a slow poll once or twice, as it comes.
    """

    def body(gate: Gate) -> None:
        import numpy as np

        from tests.world.test_units import program
        from tidegate.hal.sim.virtual import VirtualPlant

        load = np.array([0.0, 6.0]), np.array([80e3, 100e3 + 25e3 * max(units - 1, 1)])
        with VirtualPlant(program(units), load, seed=3, overrides={"trace_phase_s": 0.0}) as plant:
            plant.run(10.0)
            if not all(row["wire_set_w"] > 0 for row in plant.world.converters()):
                raise SystemExit(f"instructions: {units} units: not all discharge, so no full cycle is counted")
            gate.start()
            plant.run(CYCLES * 1e-3)
            gate.stop(f"cycle-{units}")

    return body


def rtu(gate: Gate) -> None:
    """Transactions of 60 registers, each bound to a point."""
    from tidegate.ext.bus.rtu_view import Engine, crc

    engine, t_ns, done = Engine(_modbus_site(60)), MS, 0
    reply = bytes([1, 3, 120]) + bytes(range(120))
    reply += crc(reply).to_bytes(2, "little")
    gate.start()
    while done < TRANSACTIONS:
        what, value, frame = engine.next(t_ns)
        if what == "send":
            t_ns += 700_000
            engine.sent(t_ns)
        elif what == "wait" and engine.stats["transactions"] > done:
            raise SystemExit("instructions: the engine counts more transactions than were answered")
        if what == "send":
            assert frame[1] == 3, frame
            t_ns += 11 * MS
            engine.receive(reply, t_ns)
            done += 1
        else:
            t_ns = max(t_ns + 1, value)
    gate.stop("rtu")
    ok = engine.stats["ok"]
    if ok < TRANSACTIONS - 1:
        raise SystemExit(f"instructions: {ok} of {TRANSACTIONS} RTU transactions were good")


def _modbus_site(registers: int) -> bytes:
    from tidegate.ext.abi import program

    points = [{"name": f"d.p{i}", "unit": "W"} for i in range(registers)]
    block = {"function": 3, "address": 100, "count": registers, "fields": [], "period_ns": MS}
    slave = {"unit_id": 1, "timeout_ns": 100 * MS, "blocks": [block], "commands": []}
    row = {"baud": 115200, "gap_rule": 1, "slaves": [slave]}
    return program.pack({"points": points, "units": [{"energy_wh": 1.0}], "ports": [row]})


def can(gate: Gate) -> None:
    """Frames of eight signals each."""
    from tidegate.ext.bus.can_view import Bus

    fields = [
        {"point": number, "start": 8 * number, "length": 8, "scale": 0.5, "min": -1e6, "max": 1e6}
        for number in range(8)
    ]
    bus = Bus([{"id": 0x100, "len_min": 8, "len_max": 8, "fields": fields}])
    gate.start()
    for number in range(FRAMES):
        bus.inject(0x100, bytes((number + place) & 0x7F for place in range(8)), MS * (number + 1))
        bus.drain(MS * (number + 1))
    gate.stop("can")
    if bus.stats["frames"] != FRAMES:
        raise SystemExit(f"instructions: {bus.stats['frames']} of {FRAMES} CAN frames were taken")


PATHS: dict[str, Callable[[Gate], None]] = {
    "cycle-1": cycles(1),
    "cycle-4": cycles(4),
    "cycle-16": cycles(16),
    "rtu": rtu,
    "can": can,
}
# path -> (what it is, compiled functions whose cost it is, what they are divided by)
COUNTED = {
    "cycle-1": ("one cycle, 1 unit", ("core_cycle",), CYCLES),
    "cycle-4": ("one cycle, 4 units", ("core_cycle",), CYCLES),
    "cycle-16": ("one cycle, 16 units", ("core_cycle",), CYCLES),
    "rtu": ("Modbus RTU transaction of 60 registers", ("rtu_next", "rtu_sent", "rtu_bytes"), TRANSACTIONS),
    "can": ("CAN frame of 8 signals", ("can_drain",), FRAMES),
}


def inside(library: Path, names: list[str]) -> None:
    """Run the paths, each between two words to callgrind."""
    sys.path[:0] = [str(ROOT)]
    gate = Gate(library)
    for name in names:
        PATHS[name](gate)


# ---- outside ----


def calls(dump: Path) -> Iterator[tuple[str, str, int, int]]:
    """(caller, callee, times, instructions with all that the callee calls) of a callgrind file."""
    names: dict[str, str] = {}

    def named(word: str) -> str:
        number, _, name = word.partition(" ")
        if name:
            names[number] = name
        return names[number]

    caller = callee = ""
    times = 0
    for line in dump.read_text().splitlines():
        if line.startswith("fn="):
            caller = named(line[3:])
        elif line.startswith("cfn="):
            callee = named(line[4:])
        elif line.startswith("calls="):
            times = int(line[6:].split()[0])
        elif times and re.match(r"[\d+*-]", line):
            yield caller, callee, times, int(line.split()[1])
            times = 0


def cost(dump: Path, functions: tuple[str, ...]) -> tuple[int, int]:
    """(instructions, calls) of functions that others call; a call among themselves is in its caller's already."""

    def is_one(name: str) -> bool:
        return name in functions or (
            name.startswith("__pyx_f_") and name.endswith(tuple(f"_{one}" for one in functions))
        )

    spent = times_all = 0
    for caller, callee, times, instructions in calls(dump):
        if is_one(callee) and not is_one(caller):
            spent += instructions
            times_all += times
    return spent, times_all


def count(names: list[str]) -> dict[str, dict[str, Any]]:
    """Instructions of each path. Raises Missing."""
    for tool, package in (("valgrind", "valgrind"), ("cc", "gcc")):
        if shutil.which(tool) is None:
            raise Missing(f"{tool} is missing (Debian package {package})")
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        library = folder / "gate.so"
        subprocess.run(
            ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(HERE / "callgrind_gate.c")], check=True
        )
        words = [
            "valgrind",
            "--tool=callgrind",
            "--instr-atstart=no",
            f"--callgrind-out-file={folder}/out",
            sys.executable,
            str(Path(__file__)),
            "--inside",
            str(library),
            "--only",
            *names,
        ]
        done = subprocess.run(
            words, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "0"}
        )
        if done.returncode:
            raise RuntimeError(f"callgrind: exit code {done.returncode}\n{done.stderr[-3000:]}")
        for dump in sorted(folder.glob("out.*")):
            name = re.search(r"^desc: Trigger: Client Request: (.*)$", dump.read_text(), flags=re.M)
            if name and name[1] in COUNTED:
                what, functions, parts = COUNTED[name[1]]
                instructions, times = cost(dump, functions)
                if not instructions:
                    raise RuntimeError(f"{name[1]}: callgrind saw none of {', '.join(functions)}")
                found[name[1]] = {"what": what, "instructions": round(instructions / parts, 1), "calls": times}
    missing = [name for name in names if name not in found]
    if missing:
        raise RuntimeError(f"callgrind left no figures of {', '.join(missing)}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for instructions.json")
    parser.add_argument("--only", nargs="+", choices=sorted(PATHS), default=sorted(PATHS))
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        inside(args.inside, args.only)
        return 0
    try:
        found = count(args.only)
    except Missing as why:
        print(f"instructions: {why}", file=sys.stderr)
        return 77
    for row in found.values():
        print(f"{row['what']:45} {row['instructions']:10.1f} instructions")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "instructions.json").write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
