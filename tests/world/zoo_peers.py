"""Published laws in the zoo: the same plants and loads, side by side; under what conditions wins which?

    python tests/world/zoo_peers.py [--plants N] [--seed-first N] [--out FILE]

The law is OpenEMS' peak shaving controller as its documentation states it: what the load takes is grid plus battery;
above the limit the battery is to give what is too much, below the recharge limit to take what is left, in between
nothing; once a second, through its PID filter with its default gains (control_rig.PeerFilter, which bench_control.py
holds against what its own test publishes), the integral bounded. It is the law and not the program, and it is
favoured: it knows the battery's true power at once, its converter obeys as the plant's does, and nothing trips it.

The plan is EMHASS' day-ahead optimisation as its documentation states it: in steps of half an hour the cheapest use of
the battery whose mean grid power stays below `maximum_power_from_grid`, with as much charge at the end as at the begin;
each step's value is the battery's order for the step. With one price that is to give each step's mean above the limit,
and to take it back where there is most room. It is favoured more: its forecast is the load that comes, which nobody
has. It stands here with its usual half hours and with minutes, the shortest that its documentation works with.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "bench"))

import zoo_judge as judges
import zoo_plants as plants
from control_rig import PeerFilter

CYCLE_S = 1.0
INTEGRAL_CYCLES = 10  # of the battery's power: the bound of the filter's integral
SLOW_METER_S = 1.5


PLAN_STEPS_S = (1800.0, 60.0)
Law = Callable[[float, float], float]  # grid power and the battery's, W -> what the battery is to give, W
Powers = tuple[np.ndarray, np.ndarray]


class PeakShaving:
    """The law. limit_w, recharge_w : grid power; power_w : of the battery, both ways."""

    def __init__(self, limit_w: float, recharge_w: float, power_w: float) -> None:
        self.limit_w, self.recharge_w, self.power_w = limit_w, recharge_w, power_w
        self._filter = PeerFilter()

    def __call__(self, grid_w: float, ess_w: float) -> float:
        load_w, wanted_w = grid_w + ess_w, 0.0
        if load_w >= self.limit_w:
            wanted_w = load_w - self.limit_w
        elif load_w <= self.recharge_w:
            wanted_w = load_w - self.recharge_w
        asked_w = self._filter(wanted_w - ess_w, ess_w)
        bound = INTEGRAL_CYCLES * self.power_w
        self._filter.total_w = min(max(self._filter.total_w, -bound), bound)
        return min(max(asked_w, -self.power_w), self.power_w)


class Plan:
    """The plan, made once, with the load that comes. step_s : of one decision. Called each CYCLE_S."""

    def __init__(self, load_w: np.ndarray, dt_s: float, limit_w: float, power_w: float, step_s: float) -> None:
        rows = max(1, round(step_s / dt_s))
        mean_w = np.array([load_w[at : at + rows].mean() for at in range(0, len(load_w), rows)])
        share = np.array([len(load_w[at : at + rows]) / rows for at in range(0, len(load_w), rows)])  # the last is cut
        self.orders_w = np.clip(mean_w - limit_w, 0.0, power_w)
        owed = float((self.orders_w * share).sum())
        for at in np.argsort(mean_w):
            if owed <= 0.0:
                break
            taken_w = min(power_w, max(limit_w - mean_w[at], 0.0), owed / share[at])
            if self.orders_w[at] == 0.0 and taken_w > 0.0:
                self.orders_w[at] = -taken_w
                owed -= taken_w * share[at]
        self._each, self._cycle = step_s / CYCLE_S, 0

    def __call__(self, grid_w: float, ess_w: float) -> float:
        at = min(int(self._cycle / self._each), len(self.orders_w) - 1)
        self._cycle += 1
        return float(self.orders_w[at])


def under_law(made: plants.Draw, load_w: np.ndarray, dt_s: float, law: Law | None = None) -> Powers:
    """(grid, battery) of a plant under a law, W, a row each dt_s; without one that of peak shaving."""
    law = law or PeakShaving(made.limit_w, made.limit_w - made.recharge_gap_w, made.power_w)
    delay, update = made.setting("meter_delay_ms") / 1e3, made.setting("meter_update_ms") / 1e3
    average = max(1, round(made.setting("meter_average_ms") / 1e3 / dt_s))
    dead = max(1, round(made.setting("pcs_dead_ms") / 1e3 / dt_s))
    follow = 1.0 - np.exp(-dt_s / max(made.setting("pcs_tau_ms") / 1e3, dt_s))
    ramp_w = made.setting("pcs_ramp_w_per_s") * dt_s
    every = max(1, round(CYCLE_S / dt_s))
    grid_w, ess_w = np.zeros(len(load_w)), np.zeros(len(load_w))
    asked_w = np.zeros(len(load_w) + dead + 1)
    soc_wh, ess, order_w = made.setting("soc_start") * made.energy_wh, 0.0, 0.0
    for n, load in enumerate(load_w):
        wanted_w = asked_w[n]
        if (wanted_w > 0 and soc_wh <= 0.05 * made.energy_wh) or (wanted_w < 0 and soc_wh >= 0.95 * made.energy_wh):
            wanted_w = 0.0
        ess += min(max(follow * (wanted_w - ess), -ramp_w), ramp_w)
        soc_wh -= ess * dt_s / 3600.0
        ess_w[n], grid_w[n] = ess, load - ess
        if n % every == every - 1:
            shown_s = np.floor((n * dt_s - delay) / max(update, dt_s)) * max(update, dt_s)
            last = max(0, min(n, round(shown_s / dt_s)))
            order_w = law(float(grid_w[max(0, last - average + 1) : last + 1].mean()), ess)
        asked_w[n + dead] = order_w
    return grid_w, ess_w


@dataclass
class Side:
    """One plant, both. above_wh and moved_wh : ours, the law's."""

    seed: int
    stratum: str
    meter_s: float
    changes_s: float  # mean time between changes of the load by more than a tenth of the battery's power
    floor_wh: float
    bare_wh: float
    above_wh: tuple[float, float]
    moved_wh: tuple[float, float]
    planned_wh: tuple[float, ...] = ()  # above the limit under the plan, a value for each of PLAN_STEPS_S

    @property
    def wins(self) -> str:
        """Who leaves less above the limit; a tenth, or 0.05 Wh, is no difference."""
        ours, theirs = self.above_wh
        if abs(ours - theirs) <= max(0.05, 0.1 * max(ours, theirs)):
            return "even"
        return "ours" if ours < theirs else "the law"


def side(seed: int) -> Side | None:
    """Both on one plant; None where its meter lies or changes, which the law has no answer for."""
    made = plants.draw(seed)
    if any(one.get("lie") for one in made.faults) or made.setting("meter_then_s") > 0:
        return None
    rows: dict[str, np.ndarray] = {}
    found = judges.judge(made, rows)
    if found.ready_s is None:
        return None
    dt_s = float(rows["t_s"][1] - rows["t_s"][0])
    load_w = rows["load_w"] - rows["pv_w"]
    grid_w, ess_w = under_law(made, load_w, dt_s)
    judged = rows["t_s"] > max(found.ready_s, 5.0)

    def above(power_w: np.ndarray) -> float:
        return judges.above_wh(power_w[judged], made.limit_w, dt_s)

    def moved(power_w: np.ndarray) -> float:
        return float(np.abs(power_w[judged]).sum() * dt_s / 3600.0)

    planned_wh = []
    for step_s in PLAN_STEPS_S:
        plan = Plan(load_w, dt_s, made.limit_w, made.power_w, step_s)
        planned_wh.append(above(under_law(made, load_w, dt_s, plan)[0]))
    steps = np.abs(np.diff(load_w[judged][:: max(1, round(0.2 / dt_s))])) > 0.1 * made.power_w
    return Side(
        seed, made.stratum, made.meter_s, float(judged.sum() * dt_s / max(1, int(steps.sum()))), found.floor_wh,
        above(load_w), (above(rows["grid_w"]), above(grid_w)), (moved(rows["ess_w"]), moved(ess_w)),
        tuple(planned_wh),
    )  # fmt: skip


def summary(sides: list[Side]) -> dict[str, Any]:
    groups = {
        "all": sides,
        f"meter within {SLOW_METER_S} s": [one for one in sides if one.meter_s <= SLOW_METER_S],
        f"meter slower than {SLOW_METER_S} s": [one for one in sides if one.meter_s > SLOW_METER_S],
        "load changes more often than each 5 s": [one for one in sides if one.changes_s < 5.0],
        "load changes less often": [one for one in sides if one.changes_s >= 5.0],
    }
    made = {}
    for name, those in groups.items():
        bare = sum(one.bare_wh for one in those)
        if not those or not bare:
            continue
        made[name] = {
            "plants": len(those),
            "wins": {who: sum(one.wins == who for one in those) for who in ("ours", "the law", "even")},
            "above_share_of_bare": [round(sum(one.above_wh[n] for one in those) / bare, 4) for n in (0, 1)],
            "planned_share_of_bare": [
                round(sum(one.planned_wh[n] for one in those) / bare, 4) for n in range(len(PLAN_STEPS_S))
            ],
            "plan_better_than_ours": [
                sum(one.planned_wh[n] < 0.9 * one.above_wh[0] - 0.05 for one in those) for n in range(len(PLAN_STEPS_S))
            ],
            "floor_share_of_bare": round(sum(one.floor_wh for one in those) / bare, 4),
            "worse_than_no_battery": [sum(one.above_wh[n] > one.bare_wh + 0.05 for one in those) for n in (0, 1)],
            "moved_wh": [round(sum(one.moved_wh[n] for one in those), 1) for n in (0, 1)],
        }  # fmt: skip
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plants", type=int, default=100)
    parser.add_argument("--seed-first", type=int, default=40_000)
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    args = parser.parse_args()
    sides: list[Side] = []
    seed = args.seed_first
    while len(sides) < args.plants:
        if (one := side(seed)) is not None:
            sides.append(one)
        seed += 1
    found = {"groups": summary(sides), "the_law_won": [vars(one) for one in sides if one.wins == "the law"]}
    print(json.dumps(found, indent=1))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
