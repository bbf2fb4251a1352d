"""How fast the core answers, against the bounds that the loader worked out for the site.

    python tests/world/reaction.py --alarms 100000     # alarms at random phases: last byte of setpoint 0 on the wire
    python tests/world/reaction.py --silences 1000     # each of BMS, grid meter, converter falls silent so often

Prints the worst case beside its bound; ends with 1 if one was missed. The demo's site, discharging at its peak limit.
"""

import argparse
import random
import sys

import campaign
import numpy as np

from tidegate.ext.abi.program import describe
from tidegate.hal.sim.virtual import VirtualPlant

A_RUN = 25  # events in one run of the world
EVERY_S = 6.0  # from one to the next: half a second of it, the clear time, an operator, the arming, power again
SILENCES = {"bms_s": ("can_silent", 0, "blind_bms"), "meter_s": ("dead", "grid", "blind_meter"),
            "pcs_s": ("dead", "pcs1", "blind_pcs")}  # fmt: skip


def events(seed: int, kind: str, target: int | str) -> tuple[list[dict], float]:
    """(faults at random moments, length of the run)."""
    chance = random.Random(seed)
    faults = []
    for i in range(A_RUN):
        on_s = 5.0 + EVERY_S * i + chance.uniform(0.0, 1.0)
        faults.append({"kind": kind, "target": target, "value": 0.0, "on_s": on_s, "off_s": on_s + 0.5})
    return faults, 5.0 + EVERY_S * A_RUN


def run(seed: int, kind: str, target: int | str, **bounds: float) -> dict:
    """What the world counted over one run of A_RUN events."""
    faults, whole_s = events(seed, kind, target)
    overrides = {"soc_start": 0.9, "faults": faults}
    with VirtualPlant(campaign.program(), (np.array([0.0]), np.array([62e3])), seed=seed, overrides=overrides) as plant:
        plant.world.set_bounds(**bounds)
        plant.run(whole_s)
        return plant.checks


def alarms(count: int, first_seed: int = 1) -> dict:
    """count alarms at least: how many were answered, the worst and the mean in ms, and the seeds."""
    found, worst_ns, sum_ns, seed = 0, 0, 0.0, first_seed
    while found < count:
        checks = run(seed, "battery.alarm", 0)
        if checks["alarms"] != A_RUN:
            raise AssertionError(
                f"seed {seed}: {checks['alarms']} of {A_RUN} alarms were answered with power on the wire"
            )
        found += checks["alarms"]
        worst_ns = max(worst_ns, checks["alarm_wire_ns_max"])
        sum_ns += checks["alarm_wire_ns_sum"]
        seed += 1
    return {
        "count": found,
        "worst_ms": worst_ns / 1e6,
        "mean_ms": sum_ns / found / 1e6,
        "seeds": (first_seed, seed - 1),
    }


def alarm_bound_ms() -> float:
    """The loader's bound for the demo: two cycles, the longest transaction in flight, the setpoint's own frame."""
    return max(plan["zero_us"] for plan in describe(campaign.program())["plan"]) / 1e3


def silences(count: int, which: str, first_seed: int = 1, less_s: float = 0.0) -> int:
    """Cycles with a setpoint beyond the bound (made shorter by less_s), over count silences at least."""
    kind, target, counter = SILENCES[which]
    late = 0
    for seed in range(first_seed, first_seed + -(-count // A_RUN)):
        late += run(seed, kind, target, **{which: campaign.bounds()[which] - less_s})[counter]
    return late


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alarms", type=int, default=0)
    parser.add_argument("--silences", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    options = parser.parse_args()
    missed = False
    if options.alarms:
        found, bound_ms = alarms(options.alarms, options.seed), alarm_bound_ms()
        missed |= found["worst_ms"] > bound_ms
        seeds = "..".join(str(seed) for seed in found["seeds"])
        print(
            f"alarm to setpoint 0 on the wire: {found['count']} alarms (seeds {seeds}), "
            f"mean {found['mean_ms']:.2f} ms, worst {found['worst_ms']:.2f} ms, bound {bound_ms:.2f} ms"
        )
    for which in SILENCES if options.silences else ():
        late = silences(options.silences, which, options.seed)
        missed |= late > 0
        bound_ms = campaign.bounds()[which] * 1e3
        print(
            f"silence of the {which[:-2]}: {options.silences} times, setpoint beyond {bound_ms:g} ms in {late} cycles"
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
