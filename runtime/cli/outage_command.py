"""`tidegate plan outage`: an outage planned before it comes."""

import json
import math
from collections.abc import Iterator
from datetime import datetime, tzinfo
from pathlib import Path

import click
import numpy as np

from tidegate.config.site import SiteError, load_site
from tidegate.config.zones import zone_of
from tidegate.runtime.cli.common import EXIT_CONTENT, fail, refuse_site
from tidegate.runtime.cli.plan_options import moment
from tidegate.runtime.planner.day_ahead import load_errors_kw
from tidegate.runtime.planner.hours_table import read_hours
from tidegate.runtime.planner.outage_plan import (
    BlackStart,
    Island,
    OutagePlan,
    black_start,
    carried_h,
    plan_outage,
    read_island,
)
from tidegate.runtime.planner.outlook import look_ahead, storage_of
from tidegate.runtime.planner.plan_inputs import Floats, PlanError

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
SURE = 0.9
AHEAD_H = 48


@click.command()
@click.argument("site_file", metavar="SITE", type=FILE)
@click.argument("hours_file", metavar="HOURS", type=FILE)
@click.option("--island", "island_file", type=FILE, required=True, help="TOML: who is served first, the generator set.")
@click.option("--now", metavar="TIME", help="What is known is known then; default is the clock.")
@click.option("--at", metavar="TIME", help="Begin of the outage; default is now.")
@click.option("--hours", type=click.FloatRange(1, AHEAD_H), default=8.0, show_default=True, help="Its length.")
@click.option(
    "--soc", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="State of charge as it begins."
)
@click.option("--json", "as_json", is_flag=True)
def outage(site_file: Path, hours_file: Path, island_file: Path, now: str | None, at: str | None, hours: float,
           soc: float, as_json: bool) -> None:  # fmt: skip
    """How long the battery carries an outage, when the generator set runs, what is shed, and the order of the start."""
    try:
        site, table, island = load_site(str(site_file)), read_hours(hours_file), read_island(island_file)
        known, begin = moment("--now", now), moment("--at", at if at is not None else now)
        storage = storage_of(site)
        zone = zone_of(site.site.timezone)
        ahead_h = math.ceil((begin - known).total_seconds() / 3600 + hours + table.step_s / 3600)
        if begin < known or ahead_h > AHEAD_H:
            raise PlanError(
                f"--at {begin:%Y-%m-%dT%H:%MZ} and {hours:g} hours are not within the {AHEAD_H} from now on"
            )
        outlook = look_ahead(table, known, ahead_h, fees_eur_per_kwh=0.0, zone=zone)
        horizon = outlook.horizon
        first = int(begin.timestamp() - horizon.start_utc_s) // horizon.step_s
        count = round(hours / horizon.step_h)
        part = slice(first, first + count)
        load, pv, stored = horizon.load_kw[part], horizon.pv_kw[part], soc * storage.energy_kwh
        made = plan_outage(island, storage, load, pv, stored, horizon.step_h)
        order = black_start(island, storage, float(load[0]))
        errors = load_errors_kw(outlook)[:, part]
    except SiteError as why:
        refuse_site(why)
    except PlanError as why:
        fail(why, EXIT_CONTENT, "plan")
    middle = float(carried_h(storage, (load - pv)[None, :], stored, horizon.step_h)[0])
    paths = carried_h(storage, load - pv + errors, stored, horizon.step_h) if len(errors) else np.full(1, np.nan)
    sure = min(middle, float(np.quantile(paths, 1 - SURE)))
    start_utc_s = horizon.start_utc_s + first * horizon.step_s
    if as_json:
        click.echo(json.dumps({
            "start_utc_s": start_utc_s, "step_s": horizon.step_s,
            "carried_h": {"middle": round(middle, 2), "in nine of ten": None if np.isnan(sure) else round(sure, 2)},
            "genset_kw": made.genset_kw.round(3).tolist(), "battery_kw": made.battery_kw.round(3).tolist(),
            "soc": (made.stored_kwh / storage.energy_kwh).round(4).tolist(),
            "curtailed_kw": made.curtailed_kw.round(3).tolist(), "fuel_l": round(made.fuel_l, 2), "starts": made.starts,
            "shed_kw": {one.name: made.shed_kw[i].round(3).tolist() for i, one in enumerate(island.consumers)},
            "black_start": [dict(one.__dict__) for one in order],
        }))  # fmt: skip
        return
    for line in _lines(island, made, order, (load, pv), start_utc_s, horizon.step_s, zone):
        click.echo(line)
    errors_known = (
        "no past errors are known" if np.isnan(sure) else f"in nine of ten of the load's past errors {sure:.1f} h"
    )
    click.echo(f"the battery alone carries it for {middle:.1f} h as forecast; {errors_known}")


def _lines(island: Island, made: OutagePlan, order: tuple[BlackStart, ...], expected: tuple[Floats, Floats],
           start_utc_s: int, step_s: int, zone: tzinfo) -> Iterator[str]:  # fmt: skip
    yield f"{'':16}{'load kW':>9}{'pv kW':>8}{'genset kW':>11}{'battery kW':>12}{'shed kW':>9}{'left out kW':>13}"
    for k, (load, pv) in enumerate(zip(*expected, strict=True)):
        at = datetime.fromtimestamp(start_utc_s + k * step_s, zone)
        yield (f"{at:%a %d %H:%M}    {load:9.1f}{pv:8.1f}{made.genset_kw[k]:11.1f}{made.battery_kw[k]:12.1f}"
               f"{made.shed_kw[:, k].sum():9.1f}{made.curtailed_kw[k]:13.1f}")  # fmt: skip
    for one, row in zip(island.consumers, made.shed_kw * step_s / 3600, strict=True):
        if row.sum() > 0.01:
            since_h = np.flatnonzero(row > 1e-3)[0] * step_s / 3600
            yield f"{one.name}: {row.sum():.1f} kWh are not served, the first {since_h:g} h after the outage's begin"
    if island.genset is not None:
        yield f"generator set: {made.starts} starts, {made.fuel_l:.0f} l"
    for place, step in enumerate(order, 1):
        how = (
            f"{step.served_kw:.0f} kW served then"
            if step.can
            else "more than the battery gives: after the generator set"
        )
        yield f"black start: {place}. {step.name}, {step.needs_kw:.0f} kW at once: {how}"
