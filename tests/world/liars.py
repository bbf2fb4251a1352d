"""Readings that lie, over seeded plants: how soon each lie is found, and that no honest minute is called one.

    python tests/world/liars.py --plants 20                 # of each lie; seeds from 0
    python tests/world/liars.py --lie flipped --plants 100 --seed-first 500
    python tests/world/liars.py --lie reversed --plants 400 --stratum any   # not only plain plants
    python tests/world/liars.py --honest 300                # plants of the zoo that do not lie: none may be told
    python tests/world/liars.py --lie l3_off --plants 40    # the building's third phase goes off: nor may these
    python tests/world/liars.py --lie absolute --seed 31    # one, with its events

A liar is a plain plant of the zoo whose grid meter lies from a moment on, or from the start. Each is timed twice: since
the lie began, and since physics could tell. Physics can tell once a detector that knows everything but the load
could: how the meter lies, what the battery truly does and how this very load changes from one reading to the next
(tellable.py). It is late if it is found more than FOUND_WITHIN_S after that, or never. Ends with 1 if that is so in
more than LATE_SHARE of the plants, or an honest meter is called a liar.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import tellable
import zoo_plants as plants

from tidegate.ext.safety.diagnosis import FAULT_IDS
from tidegate.hal.sim.virtual import VirtualPlant

# How a meter lies, and whether it does so from the start: what is looked for is then that the site never gets ready.
LIES = {
    "frozen": "stuck", "w_stuck": "w_stuck", "absolute": "absolute", "flipped": "reversed", "reversed": "reversed",
    "no_l3": "no_l3", "elsewhere": "elsewhere", "tenfold": "tenfold", "tenth": "tenth", "replayed": "replayed",
}  # fmt: skip
# What looks like a lie and is none. A converter that is not on a phase has no more power than that of one phase.
TRUTHS = {"l3_off": "l3_off"}
ONE_PHASE_W = 15e3
FROM_START = ("reversed", "elsewhere")
MODE_RUN = 2
ANY = "any"
FOUND_WITHIN_S = 5.0
LATE_SHARE = 0.01
LIE_S = 60.0  # armed by then, if at all
ARMED_S = 150.0  # and a plant that lies from the start: by then it is armed, or never
AFTER_S = 40.0  # this much of the plant is run after the lie began
VERDICTS = ("meter_stuck", "grid_unmoved", "meter_phases")
WITNESS = ("bms_stuck", "pcs_power_apart", "pcs_opposed")  # an honest plant brings none of these either


@dataclass
class Told:
    """What one plant showed."""

    seed: int
    lie: str
    on_s: float = 0.0  # when the lie began, or the site that is lied to from the start got ready
    clear_s: float | None = None  # when physics could tell; None = it never could
    told_s: float | None = None  # when the core did; None = never
    verdict: str = ""  # the row of the fault table
    early: bool = False  # called a liar before it was one
    export_w: float = 0.0  # most that flowed out between the lie and the stop
    added_w: float = 0.0  # most import above load and limit: what the battery itself added
    unproven: bool = False  # armed without knowing, and told so
    ready: bool = False

    @property
    def late_s(self) -> float | None:
        """Found so long after physics could tell; None = never found though it could."""
        if self.clear_s is None or (self.told_s is not None and self.told_s <= self.clear_s):
            return 0.0
        return None if self.told_s is None else self.told_s - self.clear_s

    @property
    def since_s(self) -> float | None:
        """Found so long after the lie began; None = never."""
        return None if self.told_s is None else self.told_s - self.on_s

    @property
    def good(self) -> bool:
        if self.lie in FROM_START and not self.ready:
            return True
        return not self.early and self.late_s is not None and self.late_s <= FOUND_WITHIN_S


def is_of(seed: int, stratum: str) -> bool:
    """stratum : one of zoo_plants.py, or any but those that lie."""
    own = plants.stratum_of(seed)
    return own != "liar" if stratum == ANY else own == stratum


def liar(seed: int, lie: str, stratum: str = "plain") -> plants.Draw:
    """A plant of that stratum whose grid meter lies from LIE_S on, or from the start."""
    honest = seed
    while not is_of(honest, stratum):
        honest += 1
    made = plants.draw(honest)
    at_s = 0.0 if lie in FROM_START else LIE_S
    pv = [(0.0, 0.0), (at_s + 2.0, float(round(made.limit_w * 1.2))), (at_s + 17.0, 0.0)] if lie == "absolute" else []
    settings = dict(made.settings)
    if lie == "replayed":  # what is repeated is on its way first
        settings["meter_delay_ms"] = max(made.setting("meter_delay_ms"), 20.0)
    power_w = min(made.power_w, ONE_PHASE_W) if lie in TRUTHS else made.power_w
    return replace(
        made, seed=honest, name=lie, settings=settings, quiet_s=1.0, pv=pv, power_w=power_w,
        seconds=ARMED_S if lie in FROM_START else at_s + AFTER_S,
        faults=[{"kind": f"meter.{(LIES | TRUTHS)[lie]}", "target": "grid", "on_s": at_s, "lie": lie}] + (
            [{"kind": "meter.two_phases", "target": "grid", "on_s": 0.0}] if lie in TRUTHS else []),
    )  # fmt: skip


def plant_of(made: plants.Draw) -> VirtualPlant:
    return VirtualPlant(
        plants.program(made), plants.load_of(made), pv=plants.pv_of(made), seed=made.seed,
        overrides=plants.overrides(made), series_every=5,
    )  # fmt: skip


def judge(made: plants.Draw) -> Told:
    found = Told(made.seed, made.name)
    with plant_of(made) as plant:
        plant.run(made.seconds + made.quiet_s)
        rows, events = plant.series(), plant.events
    lies = made.name in LIES and len(made.faults) > 0
    verdicts = VERDICTS if lies else VERDICTS + WITNESS
    latches = [(one["t_ns"] * 1e-9 - 1.0, FAULT_IDS[int(one["code"])]) for one in events
               if one["event"] == "fault_on" and FAULT_IDS[int(one["code"])] in verdicts]  # fmt: skip
    found.ready = any(one["event"] == "mode" and one["code"] >= 2 for one in events)
    found.unproven = any(
        one["event"] == "fault_on" and FAULT_IDS[int(one["code"])] == "grid_unproven" for one in events
    )
    if latches:
        found.told_s, found.verdict = latches[0]
    if not lies:
        found.early = bool(latches)
        return found
    on_s = float(made.faults[0]["on_s"])
    if made.name in FROM_START:
        runs = [one["t_ns"] * 1e-9 - 1.0 for one in events if one["event"] == "mode" and one["code"] == MODE_RUN]
        if not runs:
            return found
        on_s = runs[0]  # what the arming did not find is to be found later
        found.told_s, found.verdict = next((one for one in latches if one[0] >= on_s), (None, ""))
    found.on_s = on_s
    found.early = found.told_s is not None and found.told_s < on_s
    if found.early:
        return found
    after = rows["t_s"] >= on_s
    t_s, grid_w = rows["t_s"][after], rows["grid_w"][after]
    found.clear_s = tellable.first_s(made, rows, on_s)
    if found.clear_s is not None and found.told_s is None and found.clear_s > t_s[-1] - FOUND_WITHIN_S:
        found.clear_s = None  # the run ends too soon to say
    until = t_s <= (found.told_s if found.told_s is not None else t_s[-1]) + 0.5
    found.export_w = float(max(-(grid_w + np.minimum(rows["pv_w"][after], 0.0))[until].min(), 0.0))
    found.added_w = float(max(grid_w[until].max() - max(rows["load_w"][after].max(), made.limit_w), 0.0))
    return found


def honest(seed: int) -> plants.Draw:
    made = plants.draw(seed)
    return replace(made, name="honest", seconds=min(made.seconds, 60.0), quiet_s=min(made.quiet_s, 15.0))


def one(job: tuple[int, str, str]) -> Told:
    seed, lie, stratum = job
    return judge(liar(seed, lie, stratum) if lie else honest(seed))


def run(jobs: Iterable[tuple[int, str, str]], processes: int) -> Iterator[Told]:
    if processes <= 1:
        yield from map(one, jobs)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(one, jobs, chunksize=2)


def liars(first: int, count: int, lies: Iterable[str], stratum: str) -> Iterator[tuple[int, str, str]]:
    """Jobs: so many plants of each lie, each seed once."""
    own = [seed for seed in range(first, first + 32 * count) if is_of(seed, stratum)][:count]
    for lie in lies:
        for seed in own:
            yield seed, lie, stratum


def honest_jobs(first: int, count: int) -> Iterator[tuple[int, str, str]]:
    seed = first
    while count > 0:
        if plants.stratum_of(seed) != "liar":
            yield seed, "", ""
            count -= 1
        seed += 1


def table(found: list[Told]) -> list[str]:
    lines = [f"{'lie':10} {'plants':>6} {'tellable':>8} {'in time':>8} {'found':>6} {'median s':>9} {'worst s':>8}"
             f" {'since onset':>14}  late, never or early"]  # fmt: skip
    for lie in dict.fromkeys(each.lie for each in found):
        own = [each for each in found if each.lie == lie]
        able = [each for each in own if each.clear_s is not None or each.told_s is not None]
        late = [each.late_s for each in able if each.late_s is not None]
        since = [each.since_s for each in own if each.since_s is not None and not each.early]
        bad = [f"{each.seed}{' ' + each.verdict if each.early else ''}" for each in own if not each.good]
        spread = f"{np.median(late):9.2f} {max(late):8.2f}" if late else f"{'-':>9} {'-':>8}"
        onset = f"{np.median(since):6.1f} {max(since):7.1f}" if since else f"{'-':>6} {'-':>7}"
        good, told = sum(each.good for each in able), sum(each.told_s is not None for each in own)
        lines.append(f"{lie:10} {len(own):6} {len(able):8} {good:8} {told:6} {spread} {onset}  {bad[:12]}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plants", type=int, default=0, help="of each lie")
    parser.add_argument("--honest", type=int, default=0, help="plants that do not lie")
    parser.add_argument("--lie", action="append", default=[], choices=sorted(LIES | TRUTHS))
    parser.add_argument("--stratum", default="plain", choices=[*sorted(set(plants.STRATA) - {"liar"}), ANY])
    parser.add_argument("--seed-first", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--jobs", type=int, default=1)
    asked = parser.parse_args()
    lies = asked.lie or list(LIES)
    if asked.seed is not None:
        for lie in lies if asked.lie else [""]:
            print(one((asked.seed, lie, asked.stratum)))
        return 0
    jobs = [*liars(asked.seed_first, asked.plants, lies, asked.stratum), *honest_jobs(asked.seed_first, asked.honest)]
    started, found = time.perf_counter(), []
    for each in run(jobs, asked.jobs):
        found.append(each)
        if not each.good:
            print(f"{each}", flush=True)
    print("\n".join(table(found)))
    print(f"{len(found)} plants in {time.perf_counter() - started:.0f} s")
    early = [each for each in found if each.early]
    lied = [each for each in found if each.lie in LIES]
    late = [each for each in lied if not each.good]
    return 1 if early or len(late) > LATE_SHARE * max(len(lied), 1) else 0


if __name__ == "__main__":
    sys.exit(main())
