"""Ten million seeded cases of a hostile Modbus TCP server: what was believed?

Run: make fuzz, or python tests/fuzz/run_tcp_storm.py [--cases N] [--seed S]
Exit 1 if one wrong value was believed; the seed and the request are printed.
"""

import argparse
import importlib.util
import socket
import sys
import time
from pathlib import Path
from typing import Any

from tidegate.ext.abi import program

MS = 1_000_000
PER_SEED = 500_000
METER = 4  # unit id of the meter whose numbers move


def block(address: int, count: int) -> dict[str, Any]:
    return {"function": 3, "address": address, "count": count, "fields": []}


def beside(name: str) -> Any:
    """A file of this folder as a module."""
    spec = importlib.util.spec_from_file_location(f"fuzz_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def site() -> tuple[bytes, int]:
    """(program, image row of W): three devices on one connection, with blocks of equal and of different lengths, and
    a meter whose scale factors move, whose registers are moved and whose pairs are read while it writes them."""
    slaves = [
        {"unit_id": unit, "timeout_ns": 300 * MS, "blocks": [block(0, 10), block(100, 10), block(300, 20 * unit)]}
        for unit in (1, 2, 3)
    ]
    points, row = beside("run_storm").value_block()
    slaves.append({"unit_id": METER, "timeout_ns": 300 * MS, "blocks": [row]})
    port = {"transport": program.TRANSPORTS["tcp"], "family": 4, "host": socket.inet_aton("127.0.0.1"), "tcp_port": 502}
    blob = program.pack({"points": points, "units": [{}], "ports": [{**port, "slaves": slaves}]})
    return blob, len(program.standard_points(1))


def one(seed: int, cases: int, calm_percent: int = 30, lies: bool = False) -> dict[str, Any]:
    """Run one seed; the counts, and the first wrong request. lies: planted, the meter shows another factor."""
    storm = beside("build").build("tcp_storm").TcpStorm(*site(), METER)
    storm.lies = lies
    return {**storm.run(seed, cases, calm_percent), "story": storm.first_wrong}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    started, done, wrong, believed = time.monotonic(), 0, 0, 0
    faults: dict[str, int] = {}
    values, moved = 0, dict[str, int]()
    for seed in range(args.seed, args.seed + -(-args.cases // PER_SEED)):
        found = one(seed, min(PER_SEED, args.cases - done))
        done, wrong, believed = done + found["cases"], wrong + found["wrong"], believed + found["believed"]
        for name, count in found["faults"].items():
            faults[name] = faults.get(name, 0) + count
        values += sum(found["values"])
        for name, count in found["moved"].items():
            moved[name] = moved.get(name, 0) + count
        if found["story"]:
            print(f"seed {seed}: {found['story']}")
    print(f"{done} requests in {time.monotonic() - started:.0f} s: " + ", ".join(f"{n} {c}" for n, c in faults.items()))
    print("readings of the meter whose numbers move: " + ", ".join(f"{n} {c}" for n, c in moved.items()))
    print(f"replies believed {believed}, values of that meter {values}, wrong {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
