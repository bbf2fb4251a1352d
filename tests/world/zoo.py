"""The plant zoo: thousands of seeded plants that nobody tuned for, each judged against the floor of that very plant.

    python tests/world/zoo.py --minutes 200 --jobs 2            # seeds from 0 until so many plant minutes are run
    python tests/world/zoo.py --minutes 100 --only plain        # one stratum; --only may stand more than once
    python tests/world/zoo.py --seed 35                         # one plant: what was drawn, every figure
    python tests/world/zoo.py --seed 35 --plot /tmp/35.png      # and its powers beside the floor's
    python tests/world/zoo.py --shrink 35                       # the smallest draw that still fails as seed 35 does
    python tests/world/zoo.py --draw '{"seed": 35, ...}'        # what --shrink printed, again
    python tests/world/zoo.py --cases                           # the rows of the table in docs/control.md, by name
    make zoo MINUTES=10000                                      # all of it, figures and plot in build/zoo

A plant is a load (zoo_loads.py), a meter, a bus, a converter and a battery (zoo_plants.py), with a site file that knows
nothing of them. It runs in virtual time against the compiled core. zoo_judge.py says what is measured; the ratio is

    energy above the limit / (floor + allowance)

where the floor is what an ideal controller leaves that reads the same meter, and the allowance (half of each digit and
2 W, while the load needs the battery) keeps ratios of nothing out. Strata: plain (meters of 10 ms
to 1 s, lag, dead time), slow (1 to 15 s), average, change (report on change), late (dead time, slow ramps), converter
(gain, offset, whole steps), battery, derate, habit (the meter changes while it runs), mixed, liar. A stratum is one in
so many seeds. The run ends with 1 if a figure misses what docs/control.md asks (--report: never).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import zoo_cases
import zoo_judge as judges
import zoo_plants as plants

AGAIN = "python tests/world/zoo.py --seed {}"


def again(seed: int, units: int = 1) -> str:
    """The line that repeats one plant."""
    return AGAIN.format(seed) + (f" --units {units}" if units > 1 else "")


# What is asked of the whole population.
RATIO_ASKED = {"median": 1.05, "p99": 1.25, "worst": 2.0}
OUTSIDE_SHARE_ASKED = 0.001
CHASE_TOLD_SHARE_ASKED = 0.001
EVENTS_PER_HOUR_ASKED = 10.0
QUANTILES = {"median": 0.5, "p90": 0.9, "p99": 0.99}
AGE_SHARE_ASKED = 0.99


def one(job: int | plants.Draw) -> judges.Found:
    made = plants.draw(job) if isinstance(job, int) else job
    try:
        return judges.judge(made)
    except Exception as error:
        error.add_note(f"again: {again(made.seed, made.units)}")
        raise


def seeds(first: int, minutes: float, only: set[str]) -> Iterator[int]:
    """Seeds whose plants run for so many minutes together."""
    seed, left = first, minutes
    while left > 0.0:
        if not only or plants.stratum_of(seed) in only:
            made = plants.draw(seed)
            left -= (made.seconds + made.quiet_s) / 60.0
            yield seed
        seed += 1


def run(jobs: Iterable[Any], processes: int) -> Iterator[judges.Found]:
    if processes <= 1:
        yield from map(one, jobs)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(one, jobs, chunksize=4)


# ---------------------------------------------------------------- the population


def spread(found: list[judges.Found]) -> dict[str, Any]:
    ratios = np.array([each.ratio for each in found])
    worst = found[int(ratios.argmax())]
    return {
        "plants": len(found),
        "minutes": round(sum(each.minutes for each in found), 1),
        "median": round(float(np.median(ratios)), 3),
        "p90": round(float(np.percentile(ratios, 90)), 3),
        "p99": round(float(np.percentile(ratios, 99)), 3),
        "worst": round(worst.ratio, 3),
        "worst_seed": worst.seed,
        "worst_name": worst.stratum,
        # so much of what stands above all limits is not the floor's
        "above_floor_share": round(
            sum(each.with_wh for each in found) / max(sum(each.floor_wh for each in found), 1e-9), 3
        ),
    }


def summary(found: list[judges.Found]) -> dict[str, Any]:
    """Figures of a population, liars apart."""
    honest = [each for each in found if not each.lie]
    liars = [each for each in found if each.lie]
    out: dict[str, Any] = {"strata": {}, "lies": {}}
    for stratum in dict.fromkeys(each.stratum for each in honest):
        out["strata"][stratum] = spread([each for each in honest if each.stratum == stratum])
    if honest:
        out["all"] = spread(honest)
        bad = max(honest, key=lambda each: each.outside_wh)
        minutes = sum(each.minutes for each in honest)
        ratios = sorted(each.recharging_ratio for each in honest)
        most = max(honest, key=lambda each: each.recharging_ratio)
        harm = [each for each in honest if each.with_wh > each.without_wh + each.allowance_wh]
        out["recharging"] = {
            **{name: round(float(np.quantile(ratios, share)), 3) for name, share in QUANTILES.items()},
            "worst": round(most.recharging_ratio, 3), "worst_seed": most.seed,
            "more_than_without": [each.seed for each in harm],
        }  # fmt: skip
        out["outside"] = {
            "share": sum(each.outside_wh > judges.OUTSIDE_LEAST_WH for each in honest) / len(honest),
            "minutes_share": sum(each.outside_minutes for each in honest) / minutes,
            "clear_minutes_share": sum(each.outside_clear_minutes for each in honest) / minutes,
            "wh": sum(each.outside_wh for each in honest),
            "worst_wh": bad.outside_wh, "worst_seed": bad.seed,
        }  # fmt: skip
        out["chases"] = {
            "silent": [each.seed for each in honest if each.chase_w and not each.chase_told],
            "told": [each.seed for each in honest if each.chase_w and each.chase_told],
            "moved": [each.seed for each in honest if each.moved_w],
        }
        hours = sum(each.quiet_hours for each in honest)
        kinds: dict[str, int] = {}
        for each in honest:
            for kind, count in each.events.items():
                kinds[kind] = kinds.get(kind, 0) + count
        loudest = max(honest, key=lambda each: each.quiet_events / max(each.quiet_hours, 1e-9))
        out["events"] = {
            "per_hour_when_quiet": sum(each.quiet_events for each in honest) / max(hours, 1e-9),
            "loudest_seed": loudest.seed,
            "when_quiet": {
                kind: sum(each.quiet_kinds.get(kind, 0) for each in honest)
                for kind in sorted({kind for each in honest for kind in each.quiet_kinds})
            },
            "per_minute": {
                kind: round(count / sum(each.minutes for each in honest), 2) for kind, count in kinds.items()
            },
        }
        known = [each.age_known for each in honest if each.age_known is not None]
        learnt = [each.age_relearned for each in honest if each.age_relearned is not None]
        out["age"] = {
            "known_share": sum(known) / len(known) if known else None,
            "unknown_seeds": [each.seed for each in honest if each.age_known is False][:12],
            "relearned_share": sum(learnt) / len(learnt) if learnt else None,
        }
        out["trips"] = [each.seed for each in honest if each.trips]
        out["latched"] = [each.seed for each in honest if each.latched]
        busiest = max(honest, key=lambda each: each.turns_per_minute)
        out["turns"] = {"worst_per_minute": round(busiest.turns_per_minute, 1), "worst_seed": busiest.seed}
        out["never_ready"] = [each.seed for each in honest if each.ready_s is None]
        ready = [each.ready_s for each in honest if each.ready_s is not None]
        out["ready_s"] = {"median": float(np.median(ready)), "worst": max(ready)} if ready else None
    for lie in dict.fromkeys(each.lie for each in liars):
        told = [each for each in liars if each.lie == lie]
        late = [each.seed for each in told if each.told_s is None or each.told_s > judges.FOUND_WITHIN_S]
        moved = [each.seed for each in told if each.told_moved_s is None or each.told_moved_s > judges.FOUND_WITHIN_S]
        refused = [each.seed for each in told if each.ready_s is None]
        out["lies"][lie] = {"plants": len(told), "late_or_never": late, "late_since_moved": moved,
                            "never_armed": refused, "added_w": round(max(each.lied_over_w for each in told)),
                            "export_w": round(max(each.lied_export_w for each in told))}  # fmt: skip
    return out


def verdict(figures: dict[str, Any]) -> list[str]:
    """What is asked of the population and missed."""
    missed: list[str] = []

    def ask(good: bool, text: str) -> None:
        if not good:
            missed.append(text)

    if "all" in figures:
        for name, asked in RATIO_ASKED.items():
            ask(figures["all"][name] <= asked, f"ratio, {name}: {figures['all'][name]} (asked {asked})")
        ask(figures["outside"]["minutes_share"] <= OUTSIDE_SHARE_ASKED,
            f"energy outside reaction times in {figures['outside']['minutes_share']:.2%} of the minutes "
            f"(asked {OUTSIDE_SHARE_ASKED:.1%})")  # fmt: skip
        ask(not figures["chases"]["silent"], f"chases without an event: seeds {figures['chases']['silent'][:8]}")
        told = len(figures["chases"]["told"]) / figures["all"]["plants"]
        ask(told <= CHASE_TOLD_SHARE_ASKED, f"chases with an event in {told:.2%} (asked {CHASE_TOLD_SHARE_ASKED:.1%})")
        loud = figures["events"]["per_hour_when_quiet"]
        ask(
            loud <= EVENTS_PER_HOUR_ASKED,
            f"{loud:.0f} events an hour when all is quiet (asked {EVENTS_PER_HOUR_ASKED:g})",
        )
        for name in ("known_share", "relearned_share"):
            share = figures["age"][name]
            if share is not None:
                ask(share >= AGE_SHARE_ASKED, f"age of the reading, {name}: {share:.1%} (asked {AGE_SHARE_ASKED:.0%})")
        ask(not figures["trips"], f"trips: seeds {figures['trips'][:8]}")
        ask(not figures["never_ready"], f"never ready: seeds {figures['never_ready'][:8]}")
    for lie, row in figures["lies"].items():
        ask(not row["late_or_never"], f"{lie} meter told late or never: seeds {row['late_or_never'][:8]}")
    return missed


def table(figures: dict[str, Any]) -> str:
    lines = [
        f"{'stratum':24} {'plants':>6} {'minutes':>8} {'median':>7} {'p90':>7} {'p99':>7} {'worst':>8}  worst seed"
    ]
    rows = dict(figures["strata"])
    if "all" in figures:
        rows["ALL"] = figures["all"]
    for name, row in rows.items():
        shares = " ".join(f"{row[key]:7.3f}" for key in ("median", "p90", "p99"))
        worst = f"{row['worst']:8.2f}  {row['worst_seed']}"
        lines.append(f"{name:24} {row['plants']:6} {row['minutes']:8} {shares} {worst}")
    if "all" in figures:
        out, events, chases = figures["outside"], figures["events"], figures["chases"]
        lines += [
            f"beside the ideal that recharges: {figures['recharging']}",
            f"outside reaction times: {out['minutes_share']:.2%} of the minutes (more than a thousandth of the cabinet "
            f"in {out['clear_minutes_share']:.2%}), {out['share']:.2%} of the plants, "
            f"{out['wh']:.1f} Wh; "
            f"worst {out['worst_wh']:.2f} Wh, seed {out['worst_seed']}",
            f"chases: {len(chases['silent'])} silent {chases['silent'][:8]}, "
            f"{len(chases['told'])} told {chases['told'][:8]}; "
            f"moved by questions or an arming that is not over: {len(chases['moved'])} {chases['moved'][:8]}",
            f"events: {events['per_hour_when_quiet']:.0f} an hour when quiet (loudest seed {events['loudest_seed']}); "
            f"a minute: {events['per_minute']}",
            f"age of the reading: {figures['age']}; ready after: {figures['ready_s']}",
            f"turns of the setpoint when quiet: {figures['turns']}; latched: seeds {figures['latched'][:12]}",
            f"trips: seeds {figures['trips'][:12]}; never ready: {figures['never_ready'][:12]}",
        ]
    for lie, row in figures["lies"].items():
        lines.append(
            f"{lie} meter: {row['plants']} plants, told late or never: {len(row['late_or_never'])} "
            f"{row['late_or_never'][:6]} (since the power has moved: {len(row['late_since_moved'])}), "
            f"never armed: {len(row['never_armed'])}, "
            f"added up to {row['added_w']} W above limit and load, "
            f"export up to {row['export_w']} W"
        )
    return "\n".join(lines)


# ---------------------------------------------------------------- shrinking


def sort_of(failed: list[str]) -> set[str]:
    """What kind of failure each line is, without its numbers."""
    return {
        "ratio" if "x floor" in line else "".join(c for c in line if c.isalpha() or c == " ").split(" by")[0]
        for line in failed
    }


def smaller(made: plants.Draw) -> Iterator[tuple[str, plants.Draw]]:
    """Draws that are one step simpler."""
    if len(made.components) > 1:
        for i, each in enumerate(made.components):
            yield f"without {each['kind']}", replace(made, components=made.components[:i] + made.components[i + 1 :])
    plain = {"meter_resolution_w": 1.0, "pcs_tau_ms": 20.0, "pcs_dead_ms": 2.0, "pcs_measure_ms": 10.0,
             "soc_start": 0.6, "meter_update_ms": 10.0, "pcs_ramp_w_per_s": 50.0 * made.power_w}  # fmt: skip
    for key, value in made.settings.items():
        if key in plain:
            if value != plain[key]:
                yield f"{key} {plain[key]}", replace(made, settings={**made.settings, key: plain[key]})
        else:
            yield (
                f"without {key}",
                replace(made, settings={name: v for name, v in made.settings.items() if name != key}),
            )
    if made.baud != 115200:
        yield "115200 baud", replace(made, baud=115200)
    if made.seconds > 20.0:
        yield "half as long", replace(made, seconds=float(round(made.seconds / 2.0)))
    if made.quiet_s > 10.0:
        yield "less quiet", replace(made, quiet_s=float(round(made.quiet_s / 2.0)))


def shrink(made: plants.Draw) -> plants.Draw:
    """The smallest draw found that still fails in one of the ways of this one."""
    kinds = sort_of(judges.judge(made).failed)
    if not kinds:
        raise SystemExit(f"seed {made.seed} does not fail")
    print(f"fails by: {', '.join(sorted(kinds))}")
    again = True
    while again:
        again = False
        for what, other in smaller(made):
            try:
                failed = judges.judge(other).failed
            except ValueError:
                continue
            if sort_of(failed) & kinds:
                print(f"  {what}: {'; '.join(failed)}", flush=True)
                made, again = other, True
                break
    return made


# ---------------------------------------------------------------- pictures


def plot_population(found: list[judges.Found], path: Path) -> None:
    """Share of the plants with at most a ratio, a line a stratum."""
    import matplotlib

    matplotlib.use("svg" if path.suffix == ".svg" else "agg")
    matplotlib.rcParams["svg.hashsalt"] = "tidegate"
    from matplotlib import pyplot as plt

    honest = [each for each in found if not each.lie]
    figure, axis = plt.subplots(figsize=(7, 4))
    for stratum in [*dict.fromkeys(each.stratum for each in honest), None]:
        ratios = np.sort([each.ratio for each in honest if stratum in (None, each.stratum)])
        share = 1.0 - np.arange(len(ratios)) / len(ratios)
        label = f"{stratum or 'all'} ({len(ratios)})"
        axis.step(np.maximum(ratios, 0.05), share, where="pre", label=label, linewidth=2.2 if stratum is None else 1.0,
                  color="black" if stratum is None else None)  # fmt: skip
    axis.axvline(1.0, color="grey", linewidth=0.8)
    axis.axvline(2.0, color="grey", linewidth=0.8, linestyle=":")
    axis.set(xscale="log", yscale="log", xlabel="energy above the limit / (floor + allowance)",
             ylabel="share of plants with more", ylim=(0.7 / max(len(honest), 1), 1.1))  # fmt: skip
    axis.legend(fontsize=7, loc="lower left")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)
    plt.close(figure)


def plot_one(made: plants.Draw, path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    rows: dict[str, np.ndarray] = {}
    judges.judge(made, rows)
    figure, (top, low) = plt.subplots(2, 1, figsize=(12, 7), sharex=True)
    t = rows["t_s"]
    top.plot(t, rows["load_w"] / 1e3, color="lightgrey", label="load")
    top.plot(t, rows["grid_w"] / 1e3, label="grid", linewidth=0.8)
    top.plot(t, rows["floor_grid_w"] / 1e3, label="grid, ideal", linewidth=0.8)
    top.axhline(made.limit_w / 1e3, color="black", linewidth=0.8)
    low.plot(t, rows["request_w"] / 1e3, label="request", color="lightgrey")
    low.plot(t, rows["ess_w"] / 1e3, label="battery", linewidth=0.8)
    low.plot(t, rows["floor_ess_w"] / 1e3, label="battery, ideal", linewidth=0.8)
    top.set(ylabel="kW", title=f"seed {made.seed}, {made.stratum}")
    low.set(ylabel="kW", xlabel="s")
    top.legend()
    low.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


# ---------------------------------------------------------------- the command


def show(made: plants.Draw, found: judges.Found) -> None:
    print(json.dumps(made.as_dict(), indent=1))
    print(json.dumps(asdict(found), indent=1))
    print("; ".join(found.failed) or "good")


def from_json(text: str) -> plants.Draw:
    return plants.Draw(
        **{key: value for key, value in json.loads(text).items() if key in {one.name for one in fields(plants.Draw)}}
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=100.0, help="of plants together")
    parser.add_argument("--seed-first", type=int, default=0)
    parser.add_argument("--only", action="append", default=[], choices=sorted(set(plants.STRATA)))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for zoo.json and zoo.svg")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--draw")
    parser.add_argument("--plot", type=Path, help="PNG of one plant")
    parser.add_argument("--shrink", type=int)
    parser.add_argument("--cases", nargs="*", choices=sorted(zoo_cases.GROUPS), help="named cases; none named: all")
    parser.add_argument("--units", type=int, default=1, help="so many alike in the place of one")
    parser.add_argument("--report", action="store_true", help="end with 0 whatever was found")
    asked = parser.parse_args()

    if asked.seed is not None or asked.draw:
        made = from_json(asked.draw) if asked.draw else replace(plants.draw(asked.seed), units=asked.units)
        found = judges.judge(made)
        show(made, found)
        if asked.plot:
            plot_one(made, asked.plot)
        return 1 if found.failed and not asked.report else 0
    if asked.shrink is not None:
        made = shrink(replace(plants.draw(asked.shrink), units=asked.units))
        print(json.dumps(made.as_dict(), indent=1))
        print(f"again: python tests/world/zoo.py --draw '{json.dumps(made.as_dict())}'")
        return 0

    jobs: list[Any]
    if asked.cases is not None:
        jobs = [made for group in asked.cases or zoo_cases.GROUPS for made in zoo_cases.GROUPS[group]()]
    else:
        jobs = list(seeds(asked.seed_first, asked.minutes, set(asked.only)))
    if asked.units > 1:
        jobs = [replace(plants.draw(job) if isinstance(job, int) else job, units=asked.units) for job in jobs]
    started, found_all, said = time.perf_counter(), [], 0.0
    try:
        for found in run(jobs, asked.jobs):
            found_all.append(found)
            if found.failed and asked.cases is None:
                print(
                    f"again: {again(found.seed, asked.units)}   # {found.stratum}: {'; '.join(found.failed)}",
                    flush=True,
                )
            if time.perf_counter() - said > 20.0:
                said = time.perf_counter()
                print(f"  {len(found_all)}/{len(jobs)} plants, {said - started:.0f} s", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print(f"interrupted after {len(found_all)} of {len(jobs)} plants; what they show:")
        if not found_all:
            return 130
    figures = summary(found_all)
    print(table(figures))
    missed = zoo_cases.verdict(found_all) if asked.cases is not None else verdict(figures)
    print(f"{sum(each.minutes for each in found_all):.0f} plant minutes in {time.perf_counter() - started:.0f} s")
    for line in missed:
        print(f"MISSED {line}")
    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
        name = "zoo-cases" if asked.cases is not None else "zoo"
        whole = {"figures": figures, "missed": missed, "plants": [asdict(each) for each in found_all]}
        (asked.out / f"{name}.json").write_text(json.dumps(whole, indent=1))
        plot_population(found_all, asked.out / f"{name}.svg")
    return 1 if missed and not asked.report else 0


if __name__ == "__main__":
    sys.exit(main())
