"""How fast is virtual time, and how soon is an alarm answered in it?

Run: make bench, or python tests/bench/bench_world.py [--seconds N] [--alarms N] [--out DIR] [--smoke]
Speed: the demo's whole site, two lines at 115200 baud, CAN, the compiled core, in cycles per second of processor time
(so that other programs on the machine do not count), median of five runs. Alarms: random moments while the cabinet
discharges; from the alarm frame on the bus to the last byte of setpoint 0, beside the bound that the site's own poll
plan gives.
"""

import statistics
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "world"))

import campaign
import harness
import reaction

from tidegate.hal.sim.trace import read_trace
from tidegate.hal.sim.virtual import VirtualPlant

TRACE = files("tidegate.config").joinpath("demo/smc_h100_9node_unet3d_20240509_2s.csv")


RUNS = 5


def main() -> int:
    """Measure, print, write world.json."""
    parser = harness.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="virtual seconds a run")
    parser.add_argument("--alarms", type=int, default=250)
    args = parser.parse_args()
    runs = RUNS
    if args.smoke:
        args.seconds, args.alarms, runs = 5.0, reaction.A_RUN, 2
    with harness.conditions(args) as given:
        result = measure(args.seconds, args.alarms, runs)
    harness.write(args, "world", result, given)
    return 0 if result["equal_hashes"] else 1


def measure(seconds: float, alarms: int, runs: int) -> dict[str, Any]:
    """Speed of virtual time, whether a seed repeats, and the alarms; print the figures and return them."""
    load = read_trace(str(TRACE), "power_w_filled", start_s=900.0)
    speeds, hashes = [], set()
    for _ in range(runs):
        with VirtualPlant(campaign.program(), load, seed=1) as plant:
            plant.run(seconds)
            speeds.append(plant.speed_cycles_per_s)
            hashes.add(plant.sha256)
    speed = statistics.median(speeds)

    answered, bound_ms = reaction.alarms(alarms), reaction.alarm_bound_ms()
    result = {
        "cycles_per_cpu_s": round(speed),
        "cycles_per_cpu_s_asked": 1_000_000,
        "equal_hashes": len(hashes) == 1,
        "alarms": answered["count"],
        "alarm_to_zero_on_wire_ms_max": round(answered["worst_ms"], 3),
        "alarm_bound_ms": round(bound_ms, 3),
    }
    print(f"virtual time, whole site: {speed / 1e6:.2f} M cycles/s of one core (asked: at least 1)")
    print(f"  {runs} runs of one seed give {'the same' if len(hashes) == 1 else 'DIFFERENT'} bytes")
    print(f"  {answered['count']} alarms at random moments: setpoint 0 on the wire after at most "
          f"{answered['worst_ms']:.2f} ms, bound {bound_ms:.2f} ms")  # fmt: skip
    return result


if __name__ == "__main__":
    sys.exit(main())
