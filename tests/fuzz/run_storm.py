"""Ten million seeded cases of late, short, echoed, foreign, noisy, swapped and repeated replies: what was believed?

Run: make fuzz, or python tests/fuzz/run_storm.py [--cases N] [--seed S]
Exit 1 if one wrong value was believed or one write acknowledged that never arrived; the seed and the story are printed.
"""

import argparse
import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

from tidegate.ext.abi import program

MS = 1_000_000
PER_SEED = 500_000
SETPOINT = {"kind": 1, "function": 16, "address": 900, "unit": 0, "type": 2}
COARSE = {"kind": 1, "function": 6, "address": 910, "unit": 0, "type": 1}


def block(address: int, count: int, function: int = 3, **row: int) -> dict[str, Any]:
    return {"function": function, "address": address, "count": count, "fields": [], **row}


def slave(unit: int, *blocks: dict[str, Any], commands: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {"unit_id": unit, "timeout_ns": 100 * MS, "blocks": list(blocks), "commands": list(commands)}


def site() -> bytes:
    """Four slaves with every kind of temptation: twins, one lone block, coils, signatures, both kinds of write."""
    slaves = [
        slave(1, block(0, 10), block(100, 10), block(300, 20), commands=(SETPOINT, COARSE)),
        slave(2, block(0, 10), block(0, 10, 4), block(40, 33, 1), commands=({**SETPOINT, "address": 950},)),
        slave(3, block(7, 60)),
        slave(4, *(block(a, 10, signature=1, signature_word=0x1234 + a) for a in (0, 50))),
    ]
    return program.pack({"units": [{}], "ports": [{"baud": 115200, "gap_rule": 1, "slaves": slaves}]})


def value_block() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(points, block) of a meter whose numbers move, tear and lose their factors."""
    points = [{"name": f"d.{name}", "unit": "W"} for name in ("w", "p", "energy", "exact", "w_sf", "p_sf")]
    types, factor = program.FIELD_TYPES, program.FIELD_FLAGS["sf_point"]
    fields = [
        {"point": "d.w_sf", "offset": 2, "type": types["sunssf"]},
        {"point": "d.p_sf", "offset": 5, "type": types["sunssf"]},
        {"point": "d.w", "offset": 1, "type": types["s16"], "flags": factor, "sf_point": "d.w_sf"},
        {"point": "d.p", "offset": 3, "type": types["s32"], "flags": factor, "sf_point": "d.p_sf"},
        {"point": "d.energy", "offset": 6, "type": types["u32"]},
        {"point": "d.exact", "offset": 8, "type": types["s32"]},
    ]
    row = {"function": 3, "address": 0, "count": 12, "fields": fields, "signature": 1, "signature_word": 203}
    return points, row


def value_site() -> tuple[bytes, int]:
    """(program, image row of W) of the meter of value_storm.pyx."""
    points, row = value_block()
    ports = [{"baud": 115200, "gap_rule": 1, "slaves": [slave(1, row)]}]
    return program.pack({"points": points, "units": [{}], "ports": ports}), len(program.standard_points(1))


def values(seed: int, cases: int) -> dict[str, Any]:
    """Run one seed of the meter whose numbers move, tear and lose their factors."""
    meter = storm_module("value_storm").Values(*value_site())
    return {**meter.run(seed, cases), "story": meter.first_wrong}


def storm_module(name: str = "rtu_storm") -> Any:
    spec = importlib.util.spec_from_file_location("fuzz_build", Path(__file__).with_name("build.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build(name)


def one(seed: int, cases: int, calm_percent: int = 30) -> dict[str, Any]:
    """Run one seed; the counts, and the story of the first wrong one."""
    storm = storm_module().Storm(site())
    return {**storm.run(seed, cases, calm_percent), "story": storm.first_wrong}


def values_too(first: int, cases: int) -> int:
    """The same number of readings of the meter of value_storm.pyx; how many values were wrong."""
    started, done, wrong = time.monotonic(), 0, 0
    kinds: dict[str, int] = {}
    believed = 0
    for seed in range(first, first + -(-cases // PER_SEED)):
        found = values(seed, min(PER_SEED, cases - done))
        done, wrong, believed = done + found["cases"], wrong + found["wrong"], believed + sum(found["believed"])
        for name, count in found["kinds"].items():
            kinds[name] = kinds.get(name, 0) + count
        if found["story"]:
            print(f"seed {seed}: {found['story']}")
    print(f"{done} readings in {time.monotonic() - started:.0f} s: " + ", ".join(f"{n} {c}" for n, c in kinds.items()))
    print(f"values believed {believed}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    started, done, bad = time.monotonic(), 0, 0
    faults: dict[str, int] = {}
    believed = acknowledged = stale = 0
    for seed in range(args.seed, args.seed + -(-args.cases // PER_SEED)):
        found = one(seed, min(PER_SEED, args.cases - done))
        done += found["cases"]
        believed, acknowledged = believed + found["believed"], acknowledged + found["acknowledged"]
        stale += found["stale"]
        bad += found["wrong"] + found["old"] + found["wrong_acknowledged"]
        for name, count in found["faults"].items():
            faults[name] = faults.get(name, 0) + count
        if found["story"]:
            print(f"seed {seed}: {found['story']}")
    print(f"{done} cases in {time.monotonic() - started:.0f} s: " + ", ".join(f"{n} {c}" for n, c in faults.items()))
    print(f"believed {believed}, acknowledged {acknowledged}, of them repeats of the same registers {stale}")
    bad += values_too(args.seed, args.cases)
    print(f"wrong: {bad} (asked: 0)")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
