"""How much a plant says in an hour: seeded plants of the zoo at rest, and under their own restless load.

    python tests/world/zoo_hours.py --plants 12            # seeds from 0; a line a plant, then the figures
    python tests/world/zoo_hours.py --seed 35              # one plant
    python tests/world/zoo_hours.py --rest --seconds 400   # at rest alone, and not for an hour

Every event of the core counts, whatever its kind, from a minute after the plant was ready on. A plant at rest draws a
steady power, near its limit, with a noise of a thousandth, new each second. Ends with 1 where a figure is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator

import numpy as np
import zoo_loads as loads
import zoo_plants as plants

from tidegate.hal.sim.virtual import VirtualPlant

STEADY_ASKED = 10.0  # events an hour
RESTLESS_ASKED = 120.0  # eight prompt words of each of the states that may flutter, and what each earns in an hour
HOUR_S = 3600.0
SETTLED_S = 60.0
READY = 2


def load_of(made: plants.Draw, steady: bool, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    if not steady:
        return loads.sampled(made.components, seconds)
    rest_w = max(made.limit_w + made.quiet_share * made.power_w, 0.0)
    t_s = np.arange(0.0, seconds)
    noise = np.random.Generator(np.random.PCG64(made.seed)).normal(0.0, 1e-3, len(t_s))
    return t_s, rest_w * (1.0 + noise)


def hour_of(made: plants.Draw, steady: bool, seconds: float = HOUR_S) -> tuple[Counter[str], float]:
    """(events by kind, hours that they are of): changes that were only counted are no events."""
    latest_s = SETTLED_S + 20.0 * made.meter_s
    with VirtualPlant(plants.program(made), load_of(made, steady, seconds + latest_s), seed=made.seed,
                      overrides=plants.overrides(made), series_every=1000) as plant:  # fmt: skip
        plant.run(seconds + latest_s)
        ready = [one["t_ns"] for one in plant.events if one["event"] == "mode" and one["code"] >= READY]
        from_ns = (ready[0] if ready else 0) + SETTLED_S * 1e9
        found = Counter(one["event"] for one in plant.events if one["t_ns"] >= from_ns)
        return found, (seconds + latest_s + 1.0 - from_ns * 1e-9) / 3600.0


def honest(first: int) -> Iterator[plants.Draw]:
    seed = first
    while True:
        if plants.stratum_of(seed) != "liar":
            yield plants.draw(seed)
        seed += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plants", type=int, default=12)
    parser.add_argument("--seed", type=int, help="one plant")
    parser.add_argument("--seed-first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=HOUR_S, help="of each plant")
    parser.add_argument("--rest", action="store_true", help="at rest alone")
    asked = parser.parse_args()
    drawn = honest(asked.seed_first)
    chosen = [plants.draw(asked.seed)] if asked.seed is not None else [next(drawn) for _ in range(asked.plants)]
    missed = 0
    for steady, bound in ((True, STEADY_ASKED), (False, RESTLESS_ASKED))[: 1 if asked.rest else 2]:
        by_plant, events, total_h, name = [], 0, 0.0, "at rest" if steady else "restless"
        for made in chosen:
            found, hours = hour_of(made, steady, asked.seconds)
            events, total_h = events + sum(found.values()), total_h + hours
            by_plant.append(sum(found.values()) / hours)
            kinds = ", ".join(f"{kind} {count}" for kind, count in found.most_common())
            print(f"{name}, seed {made.seed} ({made.stratum}): {by_plant[-1]:.1f} an hour: {kinds}", flush=True)
        worst, middle = chosen[int(np.argmax(by_plant))].seed, np.median(by_plant)
        print(
            f"{name}: {events / total_h:.1f} an hour over all, median {middle:.1f}, most {max(by_plant):.1f} "
            f"(seed {worst}); asked {bound:g}"
        )
        missed += max(by_plant) > bound
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
