"""`tidegate plan`: a day ahead from a table of hours; why; what it would have been worth."""

import json
import sys
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import click

from tidegate.config.site import Site, SiteError, load_site
from tidegate.config.zones import zone_of
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
from tidegate.runtime.cli.outage_command import outage
from tidegate.runtime.cli.plan_options import EFFICIENCY, FEES, WEAR, efficiency_points, moment, with_wishes
from tidegate.runtime.planner import rolling_plan
from tidegate.runtime.planner.announced_jobs import (
    JOBS_FILE,
    AnnouncedJob,
    read_jobs,
    read_jobs_file,
    runs_of,
    saved_eur,
    write_jobs,
)
from tidegate.runtime.planner.day_ahead import DayAhead, Wishes, day_ahead
from tidegate.runtime.planner.expected_cooling import cooling_text, expected_cooling
from tidegate.runtime.planner.forecasts import choice_text, filled
from tidegate.runtime.planner.hours_table import HoursTable, read_hours
from tidegate.runtime.planner.outlook import Outlook, connection_of, storage_of
from tidegate.runtime.planner.plan_inputs import PlanError, Storage
from tidegate.runtime.planner.plan_reasons import reason
from tidegate.runtime.planner.plan_solver import Plan
from tidegate.runtime.planner.plan_steps import steps_of
from tidegate.runtime.planner.what_if import Otherwise, figures

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
SITE = click.argument("site_file", metavar="SITE", type=FILE)
HOURS = click.argument("hours", type=FILE)
NOW = click.option("--now", metavar="TIME", help="Plan from then, such as 2026-11-28T17:00Z; default is the clock.")
SOC = click.option("--soc", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="State of charge now.")
JOBS = click.option("--jobs", type=click.Path(path_type=Path, file_okay=False), help="Folder of announced jobs.")


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


def _made(site: Site, table: HoursTable, now: str | None, soc: float, wishes: Wishes, jobs: Path | None,
          otherwise: Otherwise | None = None) -> DayAhead:  # fmt: skip
    try:
        announced = read_jobs(jobs) if jobs is not None else ()
        if otherwise is not None:
            announced, wishes = otherwise.jobs(announced), otherwise.wishes(wishes)
        at = moment("--now", now)
        cooling_kw, odd = expected_cooling(jobs, at.timestamp()) if jobs is not None else ({}, [])
        made = day_ahead(site, table, at, soc, wishes, jobs=announced, cooling_kw=cooling_kw)
    except PlanError as why:
        fail(why, EXIT_CONTENT, "plan")
    for text in (*odd, *made.said):
        click.echo(text, err=True)
    return made


@plan.command()
@SITE
@HOURS
@NOW
@SOC
@with_wishes
@JOBS
@click.option("--json", "as_json", is_flag=True, help="The plan as JSON, with the steps that `send` would give.")
def show(site_file: Path, hours: Path, now: str | None, soc: float, wishes: Wishes, jobs: Path | None,
         as_json: bool) -> None:  # fmt: skip
    """The plan, step by step: what is expected, what the battery does."""
    read, table = _read(site_file, hours)
    whole = _made(read, table, now, soc, wishes, jobs)
    made, storage, outlook = whole.plan, whole.storage, whole.outlook
    steps, end_utc_s = steps_of(made, storage, whole.connection)
    if as_json:
        click.echo(json.dumps({
            "start_utc_s": made.horizon.start_utc_s, "step_s": made.horizon.step_s, "known_steps": outlook.known,
            "battery_kw": made.battery_kw.round(3).tolist(), "import_kw": made.import_kw.round(3).tolist(),
            "soc": (made.stored_kwh / storage.energy_kwh).round(4).tolist(),
            "cost_eur": round(made.bill_eur, 4),
            "bound_eur": round(made.bound_eur - made.over_eur, 4),
            "peak_kw": round(made.peak_kw, 3), "relaxed": list(made.relaxed),
            "jobs": [{"name": job.name, "runs_utc_s": runs_of(row, made.horizon)}
                     for job, row in zip(whole.jobs, made.jobs_kw, strict=True)],
            "cooling_kw": whole.cooling_kw.round(3).tolist(), "steps": steps, "end_utc_s": end_utc_s,
        }))  # fmt: skip
        return
    zone = zone_of(read.site.timezone)
    for line in lines(made, outlook, storage, zone):
        click.echo(line)
    if text := cooling_text(whole.cooling_kw, made.horizon.step_h):
        click.echo(text)
    if wishes.carbon_eur_per_kg:
        click.echo(f"EUR/kWh and cost hold carbon at {wishes.carbon_eur_per_kg:g} EUR/kg: no bill has that")
    for job, row in zip(whole.jobs, made.jobs_kw, strict=True):
        spans = [[datetime.fromtimestamp(at, zone) for at in run] for run in runs_of(row, made.horizon)]
        runs = ", ".join(f"{begin:%a %d %H:%M} to {end:%H:%M}" for begin, end in spans)
        saves = saved_eur(row, job, made.horizon, made.meter_eur_per_kwh)
        click.echo(f"job {job.name}: {runs}" + ("" if saves is None else f", saves {saves:.2f} EUR by waiting"))


def lines(made: Plan, outlook: Outlook, storage: Storage, zone: tzinfo) -> list[str]:
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
    for name, expected in (
        ("load", outlook.load),
        ("pv", outlook.pv),
        ("price", outlook.price),
        ("carbon", outlook.carbon),
    ):
        if expected is not None:
            said.append(f"~ {name} from step {outlook.known[name]} on is forecast by {choice_text(expected)}")
    said.extend(made.relaxed)
    gap = max(0.0, made.cost_eur - made.bound_eur)
    said.append(f"cost {made.bill_eur:.2f} EUR (no plan is cheaper by more than {gap:.2f}), peak {made.peak_kw:.1f} kW")
    return said


FIGURES = {"cost_eur": "energy and peak, EUR", "import_kw_max": "highest import, kW", "import_kwh": "imported, kWh",
           "stored_kwh": "stored at the end, kWh"}  # fmt: skip


@plan.command("what-if")
@SITE
@HOURS
@NOW
@SOC
@with_wishes
@JOBS
@click.option("--peak-limit", type=click.FloatRange(min=0, min_open=True), metavar="KW",
              help="If no more than this were imported.")  # fmt: skip
@click.option("--jobs-later", type=click.FloatRange(min=0, min_open=True), metavar="HOURS",
              help="If every job had so much longer.")  # fmt: skip
def what_if(site_file: Path, hours: Path, now: str | None, soc: float, wishes: Wishes, jobs: Path | None,
            peak_limit: float | None, jobs_later: float | None) -> None:  # fmt: skip
    """The plan beside the one that it would be under another limit: cost, peak, and what could not be held."""
    try:
        otherwise = Otherwise(peak_limit or 0.0, jobs_later or 0.0)
    except PlanError:
        fail("give --peak-limit, --jobs-later or both: what is to be otherwise?", EXIT_USAGE, "plan")
    read, table = _read(site_file, hours)
    moment = now or datetime.now(UTC).isoformat()
    first = _made(read, table, moment, soc, wishes, jobs)
    other = _made(read, table, moment, soc, wishes, jobs, otherwise)
    parts = [f"import at most {peak_limit:g} kW"] if peak_limit else []
    parts += [f"jobs {jobs_later:g} h later"] if jobs_later else []
    click.echo(f"{'':22}{'as it is':>12}{'if':>12}   ({', '.join(parts)})")
    ones, twos = figures(first.plan), figures(other.plan)
    for key, name in FIGURES.items():
        click.echo(f"{name:22}{ones[key]:12.2f}{twos[key]:12.2f}   {twos[key] - ones[key]:+.2f}")
    for head, told in (("as it is", first.plan.relaxed), ("if", other.plan.relaxed)):
        for text in told:
            click.echo(f"{head}: {text}")


@plan.command()
@SITE
@HOURS
@click.argument("when", metavar="HH:MM")
@NOW
@SOC
@with_wishes
@JOBS
def why(site_file: Path, hours: Path, when: str, now: str | None, soc: float, wishes: Wishes,
        jobs: Path | None) -> None:  # fmt: skip
    """Why the plan does what it does at a time of the coming day, as a sentence that arithmetic bears out."""
    read, table = _read(site_file, hours)
    whole = _made(read, table, now, soc, wishes, jobs)
    made, storage, connection = whole.plan, whole.storage, whole.connection
    zone = zone_of(read.site.timezone)
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
    fail(f"{when} is not within the {wishes.ahead_h} hours of the plan", EXIT_USAGE, "plan")


@plan.command()
@with_client
@SITE
@HOURS
@click.option("--soc", type=click.FloatRange(0, 1), help="State of charge now; else the site is asked.")
@with_wishes
@JOBS
def send(client: Client, site_file: Path, hours: Path, soc: float | None, wishes: Wishes, jobs: Path | None) -> None:
    """Plan from now on and give that to the running site as its `schedule`. Every limit of the site still binds."""
    read, table = _read(site_file, hours)
    soc = _soc_now(client) if soc is None else soc
    whole = _made(read, table, None, soc, wishes, jobs)
    for text in whole.plan.relaxed:
        click.echo(text, err=True)
    steps, end_utc_s = steps_of(whole.plan, whole.storage, whole.connection)
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
@WEAR
@EFFICIENCY
def backtest(site_file: Path, hours: Path, warm: int, every: int, unpublished: bool, soc: float, fees: float,
             wear: float, efficiency: tuple[str, ...]) -> None:  # fmt: skip
    """What planning would have saved on the days of HOURS, beside simple rules and perfect foresight."""
    read, table = _read(site_file, hours)
    if table.step_s != 3600:
        fail(f"{hours}: has steps of {table.step_s} s; a backtest wants hours", EXIT_CONTENT, "plan")
    try:
        points = efficiency_points(efficiency)
        storage = storage_of(read, wear_eur_per_kwh=wear, efficiency_at=points)
        connection = connection_of(read)
        end = min(table.known(one) for one in (table.load_kw, table.pv_kw, table.price_eur_per_kwh))
        if end < 24 * (warm + 1):
            raise PlanError(f"{hours}: {end} hours are known; a backtest wants {24 * (warm + 1)} and more (--warm)")
        load, sun, price = (filled(one[:end]) for one in (table.load_kw, table.pv_kw, table.price_eur_per_kwh))
        zone = zone_of(read.site.timezone)
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


@plan.group("jobs")
def jobs_group() -> None:
    """Work that can wait: announced here, placed by the next plan of `--jobs FOLDER` and of `tidegate planner`."""


FOLDER = click.option("--folder", type=click.Path(path_type=Path, file_okay=False, exists=True), required=True,
                      help="Of the planner; the jobs stand in jobs.json there.")  # fmt: skip


def _utc_s(option: str, text: str) -> int:
    return int(moment(option, text).timestamp())


@jobs_group.command("add")
@FOLDER
@click.argument("name")
@click.option("--kw", type=click.FloatRange(min=0, min_open=True), help="Power while it runs.")
@click.option("--kwh", type=click.FloatRange(min=0, min_open=True), help="Energy in all, in the place of one of them.")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), help="Time that it runs.")
@click.option("--earliest", metavar="TIME", help="Not before, such as 2026-11-28T17:00Z; default is now.")
@click.option("--deadline", metavar="TIME", required=True, help="Done by then.")
@click.option("--interruptible", is_flag=True, help="It may run in pieces.")
@click.option("--expected", metavar="TIME", help="When it would begin if nobody moved it: what waiting saves is told.")
def jobs_add(folder: Path, name: str, kw: float | None, kwh: float | None, hours: float | None, earliest: str | None,
             deadline: str, interruptible: bool, expected: str | None) -> None:  # fmt: skip
    """Announce a job by two of power, energy and time."""
    if sum(one is None for one in (kw, kwh, hours)) != 1:
        fail("give two of --kw, --kwh and --hours: the third follows", EXIT_USAGE, "plan")
    if kwh is not None:
        kw, hours = (kw, kwh / kw) if kw is not None else (kwh / (hours or 1.0), hours)
    assert kw is not None and hours is not None
    try:
        begin = int(moment("--earliest", earliest).timestamp())
        job = AnnouncedJob(name, kw, hours, begin, _utc_s("--deadline", deadline), interruptible,
                           None if expected is None else _utc_s("--expected", expected))  # fmt: skip
        write_jobs(folder, (*read_jobs_file(folder / JOBS_FILE), job))
    except PlanError as why:
        fail(why, EXIT_CONTENT, "plan")


@jobs_group.command("list")
@FOLDER
def jobs_list(folder: Path) -> None:
    """What is announced."""
    try:
        for job in read_jobs(folder):
            begin, end = (datetime.fromtimestamp(at, UTC) for at in (job.earliest_utc_s, job.deadline_utc_s))
            pieces = ", in pieces" if job.interruptible else ""
            click.echo(f"{job.name}: {job.power_kw:g} kW for {job.hours:g} h{pieces}, "
                       f"{begin:%Y-%m-%d %H:%M}Z to {end:%Y-%m-%d %H:%M}Z")  # fmt: skip
    except PlanError as why:
        fail(why, EXIT_CONTENT, "plan")


@jobs_group.command("remove")
@FOLDER
@click.argument("name")
def jobs_remove(folder: Path, name: str) -> None:
    """Take a job back."""
    try:
        jobs = read_jobs_file(folder / JOBS_FILE)
        left = tuple(job for job in jobs if job.name != name)
        if len(left) == len(jobs):
            raise PlanError(f"job {name} is not there; `tidegate plan jobs list` shows those that are")
        write_jobs(folder, left)
    except PlanError as why:
        fail(why, EXIT_CONTENT, "plan")


plan.add_command(outage)
