"""Faults from one seed against the whole site in virtual time: what the core must never do, and that it comes back.

    python tests/world/campaign.py --seeds 1:200        # many runs, one line each that fails
    python tests/world/campaign.py --seed 17            # one run again, with its faults
    python tests/world/campaign.py --seed 17 --shrink   # drop faults one by one while it still fails

A run: 5 s of peace, then one to four faults that may overlap, then peace again for as long as the fault table needs to
clear. An operator acknowledges and arms once a second. Each check is counted by the world from outside the core.
"""

import argparse
import random
import sys
import time
from functools import cache
from importlib.resources import files

import numpy as np

from tidegate.config.compile import compile_site
from tidegate.config.site import load_site
from tidegate.ext.abi.program import describe
from tidegate.ext.sim.assembly import FAULT_BITS
from tidegate.hal.sim.virtual import VirtualPlant

PEACE_S, FAULTS_S, RECOVERY_S = 5.0, 12.0, 30.0
WHOLE_S = PEACE_S + FAULTS_S + RECOVERY_S

# kind -> (targets, lowest value, highest value)
SERIAL = {
    "dead": (0, 0),
    "late": (5, 400),
    "corrupt": (0.02, 1),
    "short": (1, 6),
    "exception": (1, 6),
    "wrong_unit": (0, 0),
    "wrong_function": (0, 0),
    "drop": (0.05, 1),
    "stale_reply": (0, 0),
}
LINE = {"echo": (0, 0), "noise": (0.1, 1), "second_master": (0.05, 0.5)}
BUS = {"can_silent": (0, 0), "can_flood": (1, 8), "can_passive": (0, 0), "can_off": (0, 0)}
FRAME = {"can_id_silent": (0, 0), "can_length": (0, 0), "can_extended": (0, 0), "can_spoof": (0, 0)}
# The campaign's site has no genset: a fault of one would strike nothing, and move what every seed draws.
DEVICE = [
    f"{kind}.{bit}"
    for kind, bits in FAULT_BITS.items()
    for bit in bits
    if kind != "genset" and (kind, bit) != ("meter", "reset")
]

# Checks that must stay 0 whatever happens.
NEVER = (
    "outside_envelope", "outside_nameplate", "heartbeat_without_health", "alarm_unanswered", "alarm_on_wire",
    "blind_bms", "blind_meter", "blind_pcs", "setpoint_to_tripped",
)  # fmt: skip


@cache
def program() -> bytes:
    """The demo's site, compiled once."""
    return compile_site(load_site(str(files("tidegate.config").joinpath("demo/site.toml"))))


# What the hazards allow, in s, whatever a site file and the loader say: written here a second time, so that a bound
# which grows in the product is not believed by who judges it.
OWN_S = {"bms_s": 5.0, "meter_s": 60.0, "pcs_s": 5.0, "alarm_s": 5.0}


@cache
def bounds() -> dict[str, float]:
    """Longest a setpoint may outlive what it rests on, in s: as the loader worked it out, and never beyond OWN_S."""
    return bounds_of(describe(program()))


def bounds_of(said: dict) -> dict[str, float]:
    """The bounds for what a program says of its site.

    alarm_s is for a line whose devices answer: the world looks away while the line or the converter has a fault.
    """
    role = {device["role"]: said["silence_us"].get(device["name"]) for device in said["devices"]}
    found = {
        "bms_s": role["bms"] / 1e6,
        "meter_s": role["grid-meter"] / 1e6,
        "pcs_s": role["pcs"] / 1e6,
        "alarm_s": max(plan["zero_us"] for plan in said["plan"]) / 1e6,
    }
    return {name: min(bound_s, OWN_S[name]) for name, bound_s in found.items()}


def scenario(seed: int) -> tuple[list[dict], tuple[np.ndarray, np.ndarray], dict]:
    """(faults, load, overrides) of a seed."""
    chance = random.Random(seed)
    faults = []
    for _ in range(chance.randint(1, 4)):
        kind, (low, high), target = chance.choice(
            [(kind, span, target) for kind, span in SERIAL.items() for target in ("grid", "pcs1", "cooling")]
            + [(kind, span, line) for kind, span in LINE.items() for line in (0, 1) for _ in range(3)]
            + [(kind, span, 0) for kind, span in BUS.items() for _ in range(4)]
            + [(kind, span, frame) for kind, span in FRAME.items() for frame in range(5)]
            + [(kind, (0, 0), 0) for kind in DEVICE for _ in range(2)]
            + [("island", (0, 0), 0)] * 3
        )
        on_s = PEACE_S + chance.uniform(0.0, 0.6 * FAULTS_S)
        off_s = min(on_s + chance.choice([0.02, 0.2, 1.0, 4.0]) * chance.uniform(0.5, 1.5), PEACE_S + FAULTS_S)
        value = chance.uniform(low, high)
        if kind in ("short", "exception", "can_flood"):
            value = round(value)
        faults.append({"kind": kind, "target": target, "value": value, "on_s": on_s, "off_s": off_s})
    times, powers, at_s = [], [], 0.0
    while at_s < WHOLE_S - 4.0:
        times.append(at_s)
        powers.append(chance.choice([18e3, 30e3, 46e3, 55e3, 60e3]) + chance.uniform(-1e3, 1e3))
        at_s += chance.uniform(0.3, 4.0)
    times.append(WHOLE_S - 3.0)
    powers.append(62e3)  # at the end there is something to shave, so that coming back can be seen
    overrides = {
        "soc_start": chance.choice([0.15, 0.5, 0.8, 0.94]),
        "pcs_tau_ms": chance.choice([10.0, 20.0, 50.0]),
        "meter_update_ms": chance.choice([5.0, 10.0, 20.0]),
    }
    return faults, (np.array(times), np.array(powers)), overrides


def run(seed: int, faults: list[dict] | None = None) -> dict:
    """One run; `failed` lists what went wrong. faults: instead of the seed's own, for shrinking."""
    own, load, overrides = scenario(seed)
    faults = own if faults is None else faults
    with VirtualPlant(program(), load, seed=seed, overrides={**overrides, "faults": faults}) as plant:
        plant.world.set_bounds(**bounds())
        plant.run(WHOLE_S)
        checks = plant.checks
        failed = [f"{name}: {checks[name]} cycles" for name in NEVER if checks[name]]
        battery = plant.world.batteries()[0]
        honest = not any(fault["kind"].split(".")[0] in ("pcs", "battery") for fault in faults)
        if battery["opened_under_load"] and honest:
            failed.append("the BMS opened its contactor under load")
        if battery["contactor"]:
            if plant.world.tripped:
                failed.append(f"still tripped {RECOVERY_S:g} s after the last fault")
            elif plant.world.converters()[0]["wire_set_w"] <= 0.0:
                failed.append("does not shave again after the last fault")
        return {
            "seed": seed, "faults": faults, "failed": failed, "cycles": plant.world.cycle, "sha256": plant.sha256,
            "checks": checks, "events": plant.events, "cpu_s": plant.cpu_s,
        }  # fmt: skip


def shrink(seed: int) -> list[dict]:
    """The fewest of a failing seed's faults that still fail, dropping one at a time."""
    faults = list(scenario(seed)[0])
    again = True
    while again:
        again = False
        for i in range(len(faults)):
            fewer = faults[:i] + faults[i + 1 :]
            if run(seed, fewer)["failed"]:
                faults, again = fewer, True
                break
    return faults


def repeat_line(seed: int) -> str:
    """Command that runs one seed again."""
    return f"python tests/world/campaign.py --seed {seed}"


def show(found: dict) -> None:
    """One run for people."""
    for fault in found["faults"]:
        print(f"  {fault['kind']:<22} target {fault['target']!s:<8} value {fault['value']:<8.4g} "
              f"{fault['on_s']:.3f} .. {fault['off_s']:.3f} s")  # fmt: skip
    print(f"seed {found['seed']}: {'; '.join(found['failed']) or 'all good'}; sha256 {found['sha256'][:16]}")
    if found["failed"]:
        print(f"  again: {repeat_line(found['seed'])}")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="run one seed and show it")
    parser.add_argument("--shrink", action="store_true", help="with --seed: drop faults while it still fails")
    parser.add_argument("--seeds", default="1:101", help="FIRST:BEHIND, many seeds")
    parser.add_argument(
        "--cycles", type=float, default=0, help="go on with further seeds until so many cycles are done"
    )
    options = parser.parse_args()
    if options.seed is not None:
        found = run(options.seed, shrink(options.seed) if options.shrink else None)
        show(found)
        return 1 if found["failed"] else 0
    first, behind = (int(part) for part in options.seeds.split(":"))
    started, cycles, cpu_s, bad, seed = time.monotonic(), 0, 0.0, 0, first
    while seed < behind or cycles < options.cycles:
        found = run(seed)
        cycles += found["cycles"]
        cpu_s += found["cpu_s"]
        if found["failed"]:
            bad += 1
            show(found)
        seed += 1
    print(
        f"seeds {first}..{seed - 1}: {cycles:.3g} cycles ({cycles / 3.6e6:.1f} plant hours), {bad} failed, "
        f"{cycles / cpu_s / 1e6:.2f} M cycles/s of processor time, {time.monotonic() - started:.0f} s"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
