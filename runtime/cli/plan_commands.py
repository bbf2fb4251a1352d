"""`tidegate plan`: a day ahead from a table of hours; why; what it would have been worth."""

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import click
import numpy as np

from tidegate.config.site import Site, SiteError, load_site
from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.api.messages import QUALITIES
from tidegate.runtime.cli.common import (
    EXIT_CONTENT,
    EXIT_UNAVAILABLE,
    EXIT_USAGE,
    echo_answer,
    fail,
    refuse_site,
    with_client,
)
from tidegate.runtime.planner import rolling_plan
from tidegate.runtime.planner.forecasts import filled
from tidegate.runtime.planner.hours_table import HoursTable, read_hours
from tidegate.runtime.planner.outlook import Outlook, connection_of, look_ahead, month_peak_kw, storage_of
from tidegate.runtime.planner.plan_inputs import Connection, PlanError, Storage
from tidegate.runtime.planner.plan_reasons import reason
from tidegate.runtime.planner.plan_solver import Plan
from tidegate.runtime.planner.plan_steps import steps_of
from tidegate.runtime.planner.solver_child import Question, solve_apart

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
SITE = click.argument("site_file", metavar="SITE", type=FILE)
HOURS = click.argument("hours", type=FILE)
NOW = click.option("--now", metavar="TIME", help="Plan from then, such as 2026-11-28T17:00Z; default is the clock.")
SOC = click.option("--soc", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="State of charge now.")
AHEAD = click.option("--ahead", type=click.IntRange(1, 48), default=24, show_default=True, help="Hours to plan.")
FEES = click.option("--fees", type=float, default=0.0, show_default=True, help="EUR/kWh of import beside the price.")
DEMAND = click.option("--demand", type=click.FloatRange(min=0), default=0.0, help="EUR per kW of the month's peak.")
PAID = click.option("--paid-kw", type=click.FloatRange(min=0), default=0.0, help="Peak that is on the bill already.")


@click.group()
def plan() -> None:
    """A day ahead. SITE: a site file. HOURS: a CSV of time_utc, load_kw, pv_kw, price_eur_per_kwh, past and to come."""


def _read(site_file: Path, hours: Path) -> tuple[Site, HoursTable]:
    try:
        table = read_hours(hours)
        for text in table.doubts:
            click.echo(f"doubt: {text}", err=True)
        return load_site(str(site_file)), table
    except SiteError as why:
        refuse_site(why)
    except PlanError as why:
        fail(why, EXIT_CONTENT, "plan")


def _moment(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        fail(f"--now {text}: is no time; write 2026-11-28T17:00Z", EXIT_USAGE, "plan")
    if found.tzinfo is None:
        fail(f"--now {text}: has no offset; write 2026-11-28T17:00Z", EXIT_USAGE, "plan")
    return found


def _made(site: Site, table: HoursTable, now: str | None, soc: float, ahead: int, fees: float, demand: float,
          paid_kw: float) -> tuple[Outlook, Storage, Connection, Plan]:  # fmt: skip
    try:
        storage = storage_of(site)
        connection = connection_of(site, demand_eur_per_kw=demand, demand_paid_kw=paid_kw)
        outlook = look_ahead(table, _moment(now), ahead, fees_eur_per_kwh=fees)
        if demand:
            peak_kw = month_peak_kw(table, _moment(now), ZoneInfo(site.site.timezone))
            connection = replace(connection, recharge_kw_max=max(paid_kw, peak_kw))
        made = solve_apart(Question(storage, connection, outlook.horizon, soc * storage.energy_kwh, None))
    except PlanError as why:
        fail(why, EXIT_CONTENT, "plan")
    return outlook, storage, connection, made


@plan.command()
@SITE
@HOURS
@NOW
@SOC
@AHEAD
@FEES
@DEMAND
@PAID
@click.option("--json", "as_json", is_flag=True, help="The plan as JSON, with the steps that `send` would give.")
def show(site_file: Path, hours: Path, now: str | None, soc: float, ahead: int, fees: float, demand: float,
         paid_kw: float, as_json: bool) -> None:  # fmt: skip
    """The plan, step by step: what is expected, what the battery does."""
    read, table = _read(site_file, hours)
    outlook, storage, _, made = _made(read, table, now, soc, ahead, fees, demand, paid_kw)
    steps, end_utc_s = steps_of(made, storage)
    if as_json:
        click.echo(json.dumps({
            "start_utc_s": made.horizon.start_utc_s, "step_s": made.horizon.step_s, "known_steps": outlook.known,
            "battery_kw": made.battery_kw.round(3).tolist(), "import_kw": made.import_kw.round(3).tolist(),
            "soc": (made.stored_kwh / storage.energy_kwh).round(4).tolist(), "cost_eur": round(made.cost_eur, 4),
            "bound_eur": round(made.bound_eur, 4), "peak_kw": round(made.peak_kw, 3), "relaxed": list(made.relaxed),
            "steps": steps, "end_utc_s": end_utc_s,
        }))  # fmt: skip
        return
    if blank := table.blanks():
        click.echo(f"{blank} blank values of the past stand as the value before them", err=True)
    for line in lines(made, outlook, storage, ZoneInfo(read.site.timezone)):
        click.echo(line)


def lines(made: Plan, outlook: Outlook, storage: Storage, zone: ZoneInfo) -> list[str]:
    """The plan as a table; ~ marks what is forecast."""
    horizon = made.horizon
    said = [f"{'':16}{'load kW':>10}{'pv kW':>9}{'EUR/kWh':>10}{'battery kW':>12}{'grid kW':>10}{'soc':>7}"]
    for k, power in enumerate(made.battery_kw):
        at = datetime.fromtimestamp(horizon.start_utc_s + k * horizon.step_s, zone)
        marks = ["~" if k >= outlook.known[name] else " " for name in ("load", "pv", "price")]
        grid = made.import_kw[k] - made.export_kw[k]
        said.append(
            f"{at:%a %d %H:%M}   {horizon.load_kw[k]:9.1f}{marks[0]}{horizon.pv_kw[k]:8.1f}{marks[1]}"
            f"{horizon.import_eur_per_kwh[k]:9.4f}{marks[2]}{power + 0.0:+12.1f}{grid + 0.0:10.1f}"
            f"{made.stored_kwh[k] / storage.energy_kwh:7.0%}"
        )
    for name, expected in (("load", outlook.load), ("pv", outlook.pv), ("price", outlook.price)):
        if expected is not None:
            error = f", its mean error so far {expected.loss[expected.name]:.3g}" if expected.loss else ""
            said.append(f"~ {name} from step {outlook.known[name]} on is forecast by {expected.name}{error}")
    said.extend(made.relaxed)
    gap = max(0.0, made.cost_eur - made.bound_eur)
    said.append(f"cost {made.cost_eur:.2f} EUR (no plan is cheaper by more than {gap:.2f}), peak {made.peak_kw:.1f} kW")
    return said


@plan.command()
@SITE
@HOURS
@click.argument("when", metavar="HH:MM")
@NOW
@SOC
@AHEAD
@FEES
@DEMAND
@PAID
def why(site_file: Path, hours: Path, when: str, now: str | None, soc: float, ahead: int, fees: float, demand: float,
        paid_kw: float) -> None:  # fmt: skip
    """Why the plan does what it does at a time of the coming day, as a sentence that arithmetic bears out."""
    read, table = _read(site_file, hours)
    _, storage, connection, made = _made(read, table, now, soc, ahead, fees, demand, paid_kw)
    zone = ZoneInfo(read.site.timezone)
    try:
        wanted = datetime.strptime(when, "%H:%M").time()
    except ValueError:
        fail(f"{when}: write HH:MM, such as 17:45", EXIT_USAGE, "plan")
    begin = datetime.fromtimestamp(made.horizon.start_utc_s, UTC)
    for k in range(len(made.import_kw)):
        at = (begin + timedelta(seconds=k * made.horizon.step_s)).astimezone(zone)
        later = at + timedelta(seconds=made.horizon.step_s)
        if at.time() <= wanted and (wanted < later.time() or later.date() != at.date()):
            found = reason(made, storage, connection, k)
            false = "" if found.holds else " (its figures do not bear it out: please report this plan)"
            click.echo(f"{at:%a %d %H:%M} {found.text}{false}")
            return
    fail(f"{when} is not within the {ahead} hours of the plan", EXIT_USAGE, "plan")


@plan.command()
@with_client
@SITE
@HOURS
@click.option("--soc", type=click.FloatRange(0, 1), help="State of charge now; else the site is asked.")
@AHEAD
@FEES
@DEMAND
@PAID
def send(client: Client, site_file: Path, hours: Path, soc: float | None, ahead: int, fees: float, demand: float,
         paid_kw: float) -> None:  # fmt: skip
    """Plan from now on and give that to the running site as its `schedule`. Every limit of the site still binds."""
    read, table = _read(site_file, hours)
    soc = _soc_now(client) if soc is None else soc
    _, storage, _, made = _made(read, table, None, soc, ahead, fees, demand, paid_kw)
    steps, end_utc_s = steps_of(made, storage)
    echo_answer(client.schedule(steps, end_utc_s))


def _soc_now(client: Client) -> float:
    """What the running site says. A plan from a guess would be a wrong order: without a good reading none is sent."""
    point = client.get("site.soc")["site.soc"]
    if point.value is None or QUALITIES[point.quality] != "good":
        fail("site.soc is not good now, so nothing was sent; give --soc if you know it", EXIT_UNAVAILABLE, "plan")
    return float(point.value)


@plan.command()
@SITE
@HOURS
@click.option("--warm", type=click.IntRange(min=7), default=14, show_default=True, help="Days of history only.")
@click.option("--every", type=click.IntRange(1, 24), default=1, show_default=True, help="Hours between plans.")
@click.option("--unpublished", is_flag=True, help="As if no price were published ahead.")
@SOC
@FEES
def backtest(site_file: Path, hours: Path, warm: int, every: int, unpublished: bool, soc: float, fees: float) -> None:
    """What planning would have saved on the days of HOURS, beside simple rules and perfect foresight."""
    read, table = _read(site_file, hours)
    if table.step_s != 3600:
        fail(f"{hours}: has steps of {table.step_s} s; a backtest wants hours", EXIT_CONTENT, "plan")
    try:
        storage, connection = storage_of(read), connection_of(read)
        end = min(table.known(one) for one in (table.load_kw, table.pv_kw, table.price_eur_per_kwh))
        if end < 24 * (warm + 1):
            raise PlanError(f"{hours}: {end} hours are known; a backtest wants {24 * (warm + 1)} and more (--warm)")
        gaps = int((~np.isfinite([one[:end] for one in (table.load_kw, table.pv_kw, table.price_eur_per_kwh)])).sum())
        if gaps:
            click.echo(f"{gaps} blank values stand as the value before them", err=True)
        load, sun, price = (filled(one[:end]) for one in (table.load_kw, table.pv_kw, table.price_eur_per_kwh))
        zone = ZoneInfo(read.site.timezone)
        past = rolling_plan.Past(table.begin_utc, load, sun, price, fees, zone, 24 * warm)
        begin_kwh = min(max(soc * storage.energy_kwh, storage.least_kwh), storage.most_kwh)
        none = rolling_plan.operate(past, storage, connection, "no battery", rolling_plan.no_battery, begin_kwh)
        best = rolling_plan.foresight(past, storage, connection, begin_kwh)
        planner = rolling_plan.RollingPlanner(past, storage, connection, every=every, published=not unpublished)
        with click.progressbar(length=end - 24 * warm, label="planning", file=sys.stderr) as bar:

            def decide(hour: int, stored_kwh: float) -> float:
                bar.update(1)
                return planner.decide(hour, stored_kwh)

            rolling = rolling_plan.operate(past, storage, connection, "plan", decide, begin_kwh)
        others = [
            rolling_plan.operate(past, storage, connection, name, rule, begin_kwh)
            for name, rule in (("clock rule", rolling_plan.clock_rule(past, storage)),
                               ("2 cheapest, 2 dearest", rolling_plan.price_rule(past, storage)))
        ]  # fmt: skip
    except PlanError as why:
        fail(why, EXIT_CONTENT, "plan")
    click.echo(f"{'':24}{'cost EUR':>12}{'saved EUR':>12}{'of foresight':>14}")
    for one in (none, *others, rolling, best):
        share = rolling_plan.share_of_foresight(none, one, best)
        click.echo(f"{one.name:24}{one.cost_eur:12.2f}{none.cost_eur - one.cost_eur:12.2f}{share:14.1%}")
