"""Plants whose grid goes away: gensets, PV and faults drawn from a seed, and what each run is judged by.

python tests/world/islands.py --seed-first 0 --seeds 200 [--report]    # the worst seeds by name
"""

import argparse
import itertools
import sys
import tomllib
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from tidegate.config.compile import compile_site
from tidegate.config.site import load_site, parse_site
from tidegate.ext.abi.shared import ISLAND_NAMES
from tidegate.hal.sim.virtual import VirtualPlant

SITE = files("tidegate.config").joinpath("sites/island.toml")
LOST_S, BACK_S, END_S = 90.0, 210.0, 300.0
WAIT_S, RAMP_PCT_PER_MIN = 20.0, 120.0
KINDS = ("none", "wont_start", "stops", "pv_drops", "hz_flaps", "meter_silent", "full", "own_meter")
SETTLED_S = 2.0  # a genset that has just taken the load is not judged yet: the converter's own start is 1 s

OWN_METER = """
[[serial]]
name = "genset"
device = "sim"
baud = 115200

[[device]]
name = "genset"
map = "eastron-sdm630"
bus = "genset"
unit_id = 3
role = "generator-meter"
"""
CONTACT = '[[input]]\nname = "transfer"\nwhat = "island"\nchip = "sim"\nline = 3\n'


@dataclass(frozen=True)
class Case:
    """One plant and what happens to it."""

    seed: int
    kind: str
    text: str
    load: tuple[np.ndarray, np.ndarray]
    pv: tuple[np.ndarray, np.ndarray]
    soc: float
    start_s: float
    faults: list[dict[str, object]]
    w_min: float
    w_max: float


@dataclass(frozen=True)
class Judged:
    """What a run came to; seconds and watts of the genset, + what it gives."""

    seed: int
    kind: str
    above_s: float
    below_s: float
    excused_s: float  # of these: no battery of that power could have kept the limit
    trips: int
    states: list[str]
    wrong: list[str]


def case(seed: int, kind: str | None = None) -> Case:
    """The plant of a seed."""
    chance = np.random.default_rng(seed)
    kind = kind or KINDS[int(chance.integers(len(KINDS)))]
    w_max = float(chance.uniform(25e3, 60e3))
    w_min = w_max * float(chance.uniform(0.15, 0.4))
    start_s = float(chance.uniform(4.0, 15.0))
    steps_s = np.concatenate([[0.0], np.sort(chance.uniform(5.0, END_S, 12))])
    # What genset and battery can carry together: the most that a site planner would put behind them.
    load = chance.uniform(max(w_min - 24e3, 2e3), w_max + 22e3, steps_s.size)
    pv_s, pv = np.array([0.0]), np.array([0.0])
    if chance.random() < 0.5 or kind == "pv_drops":
        pv_s = np.array(
            [0.0, float(chance.uniform(LOST_S + 30, LOST_S + 60)), float(chance.uniform(LOST_S + 60, BACK_S))]
        )
        pv = np.array([1.0, 0.0 if kind == "pv_drops" else 0.6, 0.8]) * float(chance.uniform(3e3, 15e3))
    faults: list[dict[str, object]] = [{"kind": "island", "target": 0, "on_s": LOST_S, "off_s": BACK_S}]
    at_s = LOST_S + start_s + float(chance.uniform(10.0, 40.0))
    if kind == "wont_start":
        faults.append({"kind": "genset.wont_start", "target": 0, "on_s": LOST_S - 1, "off_s": END_S})
    elif kind == "stops":
        faults.append(
            {"kind": "genset.stops", "target": 0, "on_s": at_s, "off_s": at_s + float(chance.uniform(1.0, 20.0))}
        )
    elif kind == "hz_flaps":
        faults = [
            {"kind": "hz", "target": 0, "value": 46.0, "on_s": LOST_S + 3.0 * i, "off_s": LOST_S + 3.0 * i + 0.15}
            for i in range(10)
        ]
    elif kind == "meter_silent":
        faults = [{"kind": "dead", "target": "grid", "on_s": LOST_S, "off_s": LOST_S + 30.0}]
    soc = 0.92 if kind == "full" else float(chance.uniform(0.35, 0.85))
    text = SITE.read_text()
    head, _, tail = text.partition("[limits]")
    head = head.replace("12000", f"{w_min:.0f}")
    tail = tail.replace("genset_w_max = 40000", f"genset_w_max = {w_max:.0f}")
    tail = tail.replace("genset_w_min = 12000", f"genset_w_min = {w_min:.0f}")
    tail = tail.replace("genset_charge_w = 34000", f"genset_charge_w = {w_min + 0.8 * (w_max - w_min):.0f}")
    tail = tail.replace("run_s_min = 600", "run_s_min = 30").replace("stop_soc = 0.8", "stop_soc = 0.9")
    tail = tail.replace("off_s_min = 60", "off_s_min = 30\ngenset_start_s = 30")
    tail = tail.replace("reconnect_wait_s = 60", f"reconnect_wait_s = {WAIT_S:g}")
    tail = tail.replace("reconnect_ramp_pct_per_min = 10", f"reconnect_ramp_pct_per_min = {RAMP_PCT_PER_MIN:g}")
    if kind == "own_meter":
        assert CONTACT in head, "the example's contact"
        head = head.replace(CONTACT, "") + OWN_METER.lstrip() + "\n"
    tail = tail.partition("[simulation]")[0] + "[simulation]\n"
    islanded = [row for row in faults if row["kind"] == "island"]
    if kind != "own_meter" and islanded:
        tail += (
            f'contact = [{{ input = "transfer", does = "active", at_s = {LOST_S:g}, for_s = {BACK_S - LOST_S:g} }}]\n'
        )
    return Case(seed, kind, head + "[limits]" + tail, (steps_s, load), (pv_s, pv), soc, start_s, faults, w_min, w_max)


def run(one: Case) -> Judged:
    """Run the plant of a case through loss and return, and judge it."""
    site, problems = parse_site(tomllib.loads(one.text), one.text)
    assert site is not None and not problems, problems
    site._folder = load_site(str(SITE)).folder
    overrides = {"trace_phase_s": 0.0, "soc_start": one.soc, "genset_start_s": one.start_s, "faults": one.faults}
    with VirtualPlant(
        compile_site(site), one.load, pv=one.pv, seed=one.seed + 1, series_every=10, overrides=overrides
    ) as world:
        world.run(END_S)
        return judge(one, world)


def judge(one: Case, world: VirtualPlant) -> Judged:
    """Seconds outside the genset's limits that a battery of that power could have kept, and whatever must not be."""
    series, genset = world.series(), world.world.genset
    t_s, ess_w = series["t_s"], series["ess_w"]
    named = [(row["t_ns"] * 1e-9 - 1.0, ISLAND_NAMES[row["code"]]) for row in world.events if row["event"] == "island"]
    states, wrong = [name for _, name in named], []
    step_s = float(t_s[1] - t_s[0])
    islanded = one.kind not in ("hz_flaps", "meter_silent")
    carried = np.zeros(t_s.size, dtype=bool)
    spans = [*named, (END_S, "")]
    for (from_s, name), (to_s, _) in itertools.pairwise(spans):
        if name == "genset":
            carried |= (t_s > from_s + SETTLED_S) & (t_s < min(to_s, BACK_S))
    net_w = series["load_w"] - series["pv_w"]
    genset_w = net_w - ess_w
    # What the converter and the battery could have done at that moment.
    lo_w, hi_w = series["envelope_lo_w"], series["envelope_hi_w"]
    lately = np.zeros(t_s.size, dtype=bool)
    moved = np.flatnonzero(np.abs(np.diff(net_w)) > 50.0)
    for at in moved:
        lately |= (t_s > t_s[at]) & (t_s < t_s[at] + 0.5)
    above, below = genset_w > one.w_max + 150.0, genset_w < one.w_min - 150.0
    could = (net_w - hi_w < one.w_max) & (net_w - lo_w > one.w_min)
    outside = carried & ~lately & (above | below)
    excused = outside & ~could
    if not islanded:
        if states:
            wrong.append(f"{one.kind}: taken for an island: {states}")
    elif "grid" not in states[1:]:
        wrong.append(f"the return was not seen: {states}")
    if one.kind == "wont_start" and "genset missing" not in states:
        wrong.append(f"a genset that does not start was not missed: {states}")
    if one.kind == "stops" and states.count("genset") < 2:
        wrong.append(f"a genset that came back was not taken: {states}")
    if islanded:
        dark = (t_s > LOST_S + 1.5) & (t_s < LOST_S + one.start_s)
        waits = (t_s > BACK_S + 1.0) & (t_s < BACK_S + WAIT_S - 0.5)
        for what, span in (("in the dark", dark), ("in the wait", waits)):
            if span.any() and np.abs(ess_w[span]).max() > 100.0:
                wrong.append(f"{np.abs(ess_w[span]).max():.0f} W {what}")
        rising = (t_s > BACK_S + WAIT_S) & (t_s < BACK_S + WAIT_S + 30.0)
        most_w = 30e3 * RAMP_PCT_PER_MIN / 6000.0 * (t_s[rising] - BACK_S - WAIT_S + 0.5) + 300.0
        if (np.abs(ess_w[rising]) > most_w).any():
            wrong.append("rose faster than the ramp")
    checks = world.world.checks
    for name in ("outside_envelope", "outside_nameplate", "setpoint_to_tripped"):
        if checks[name]:
            wrong.append(f"{name}: {checks[name]}")
    return Judged(
        one.seed,
        one.kind,
        float((outside & ~excused & above).sum()) * step_s,
        float((outside & ~excused & below).sum()) * step_s,
        float(excused.sum()) * step_s,
        int(genset["trips"]),
        states,
        wrong,
    )


def main() -> int:
    """Run seeds and print the worst."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed-first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--report", action="store_true", help="a line for each kind")
    given = parser.parse_args()
    found = [run(case(seed)) for seed in range(given.seed_first, given.seed_first + given.seeds)]
    worst = sorted(found, key=lambda one: one.above_s + one.below_s + 1e3 * len(one.wrong), reverse=True)
    for one in worst[:10]:
        print(
            f"seed {one.seed} {one.kind}: {one.above_s:.1f} s above, {one.below_s:.1f} s below, {one.excused_s:.1f} s "
            f"beyond the battery, {one.trips} trips {'; '.join(one.wrong)}"
        )
    if given.report:
        for kind in KINDS:
            of = [one for one in found if one.kind == kind]
            print(
                f"{kind}: {len(of)} plants, {sum(one.above_s for one in of):.1f} s above, "
                f"{sum(one.below_s for one in of):.1f} s below, {sum(one.excused_s for one in of):.1f} s beyond the "
                f"battery, {sum(one.trips for one in of)} trips, {sum(bool(one.wrong) for one in of)} wrong"
            )
    return 1 if any(one.wrong for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
