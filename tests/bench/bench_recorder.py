"""What does the recorder cost a cycle, in time and memory? The same plant in virtual time with the ring and without it.

Run: make bench, or python tests/bench/bench_recorder.py [--rounds N] [--seconds S] [--out DIR] [--smoke]
Rounds alternate, the fastest of each kind counts: whatever else the machine did only adds. The plant's own physics and
bus timing are in both.
"""

import os
import tempfile
import time
from importlib.resources import files
from pathlib import Path

import harness

from tidegate.config.compile import compile_site
from tidegate.config.site import load_site
from tidegate.ext.cycle.recorder import Ring
from tidegate.hal.sim.virtual import VirtualPlant
from tidegate.runtime.recording import recording_file as recordings

MIB = 64.0  # what a site has if it says nothing
TEN_MINUTES_S = 600.0


def run(blob: bytes, seconds: float, ring: Ring | None) -> tuple[float, int]:
    """(ns a cycle, cycles) of a plant that runs so many seconds."""
    with VirtualPlant(blob, seed=1) as plant:
        if ring is not None:
            plant.core.record(ring)
        plant.run(2.0)  # armed, every page touched
        before, cycles = plant.cpu_s, plant.world.cycle
        plant.run(seconds)
        return (plant.cpu_s - before) * 1e9 / (plant.world.cycle - cycles), plant.world.cycle


def fresh(mib: float = MIB) -> Ring:
    fd = Ring.memfd(mib)
    try:
        return Ring(fd, writable=True)
    finally:
        os.close(fd)


def main() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=20.0, help="of the plant, in each round")
    args = parser.parse_args()
    if args.smoke:
        args.rounds, args.seconds = 1, 2.0
    with harness.conditions(args) as given:
        result = measure(args.rounds, args.seconds)
    harness.write(args, "recorder", result, given)
    return 0


def measure(rounds: int, seconds: float) -> dict[str, float]:
    """The same plant with the ring and without it in turns, and a file of it; print the figures and return them."""
    blob = compile_site(load_site(str(files("tidegate.config").joinpath("demo/site.toml"))))
    without, with_ = [], []
    for _ in range(rounds):
        without.append(run(blob, seconds, None)[0])
        with_.append(run(blob, seconds, fresh())[0])
    ring = fresh()
    _, cycles = run(blob, seconds, ring)
    bytes_a_cycle = ring.head / cycles
    cost_ns = min(with_) - min(without)
    mib = bytes_a_cycle * TEN_MINUTES_S * 1000 / (1 << 20)
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        said = recordings.write(Path(folder) / "bench.mcap", ring, blob)
        write_s = time.process_time() - began
    result = {
        "cost_ns_a_cycle": round(cost_ns), "share_of_the_virtual_cycle": round(cost_ns / min(without), 3),
        "bytes_a_cycle": round(bytes_a_cycle, 1), "mib_for_ten_minutes": round(mib, 1),
        "minutes_in_the_default_ring": round(MIB * (1 << 20) * 7 / 8 / bytes_a_cycle / 60_000, 1),
        "write_and_verify_us_a_cycle": round(write_s * 1e6 / said["cycles"], 2),
        "file_bytes_a_cycle": round(said["bytes"] / said["cycles"], 1),
    }  # fmt: skip
    print(f"the demo's site in virtual time, fastest of {rounds} rounds of {seconds:g} s, one core")
    print(f"  without {min(without):.0f} ns a cycle, with the ring {min(with_):.0f}")
    print(f"  the recorder: {cost_ns:.0f} ns a cycle (asked: at most 1000)")
    print(f"  {bytes_a_cycle:.1f} bytes a cycle: {mib:.1f} MiB for ten minutes at 1 kHz (asked: at most 128)")
    print(
        f"  a file of it, repeated and verified: {result['write_and_verify_us_a_cycle']} us a cycle, in another process"
    )
    return result


if __name__ == "__main__":
    raise SystemExit(main())
