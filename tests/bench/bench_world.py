"""How fast is virtual time, and how soon is an alarm answered in it?

Run: make bench, or python tests/bench/bench_world.py [--seconds N] [--alarms N] [--out DIR]
Speed: the demo's whole site, two lines at 115200 baud, CAN, the compiled core, in cycles per second of processor time
(so that other programs on the machine do not count), median of five runs. Alarms: random moments while the cabinet
discharges; from the alarm frame on the bus to the last byte of setpoint 0, beside the bound that the site's own poll
plan gives.
"""

import argparse
import json
import statistics
import sys
from importlib.resources import files
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "world"))

import campaign
import test_campaign

from tidegate.hal.sim.trace import read_trace
from tidegate.hal.sim.virtual import VirtualPlant

TRACE = files("tidegate.config").joinpath("demo/smc_h100_9node_unet3d_20240509_2s.csv")


def main() -> int:
    """Measure, print, write world.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="virtual seconds a run")
    parser.add_argument("--alarms", type=int, default=250)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    load = read_trace(str(TRACE), "power_w_filled", start_s=900.0)
    speeds, hashes = [], set()
    for _ in range(5):
        with VirtualPlant(campaign.program(), load, seed=1) as plant:
            plant.run(args.seconds)
            speeds.append(plant.speed_cycles_per_s)
            hashes.add(plant.sha256)
    speed = statistics.median(speeds)

    alarms, worst_ns, bound_ns = 0, 0, 0.0
    for seed in range(1, args.alarms // 25 + 2):
        count, worst, built = test_campaign.alarm_times(seed)
        alarms, worst_ns, bound_ns = alarms + count, max(worst_ns, worst), test_campaign.alarm_bound_ns(built)

    result = {
        "cycles_per_cpu_s": round(speed),
        "cycles_per_cpu_s_asked": 1_000_000,
        "equal_hashes": len(hashes) == 1,
        "alarms": alarms,
        "alarm_to_zero_on_wire_ms_max": round(worst_ns * 1e-6, 3),
        "alarm_bound_ms": round(bound_ns * 1e-6, 3),
    }
    print(f"virtual time, whole site: {speed / 1e6:.2f} M cycles/s of one core (asked: at least 1)")
    print(f"  five runs of one seed give {'the same' if len(hashes) == 1 else 'DIFFERENT'} bytes")
    print(f"  {alarms} alarms at random moments: setpoint 0 on the wire after at most {worst_ns * 1e-6:.2f} ms, "
          f"bound {bound_ns * 1e-6:.2f} ms")  # fmt: skip
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "world.json").write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
