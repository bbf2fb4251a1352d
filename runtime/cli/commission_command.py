"""`tidegate commission`: move the battery a little, measure what the plant does, keep a signed report."""

import getpass
import signal
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from tidegate.config.site import Site, SiteError, load_site, read_site_text
from tidegate.runtime.api.blocking_client import Client, ClientError, NoAnswer
from tidegate.runtime.commissioning import revert, sitefile, steps
from tidegate.runtime.commissioning.commissioning_report import FINDING, SKIPPED, UNCLEAR, Report, html, signed, verify
from tidegate.runtime.commissioning.new_file import write_new
from tidegate.runtime.commissioning.plant_session import EXIT_NOT_RUNNING, LEASE_S, Plant
from tidegate.runtime.commissioning.private_run import OwnRun
from tidegate.runtime.commissioning.prompts import SetupError
from tidegate.runtime.commissioning.steps import MOVING, STEPS, Task
from tidegate.runtime.state.device_key import KEY_FILE, DeviceKey, KeyFileError
from tidegate.runtime.state.paths import state_dir

PART_OF_PLATE = 0.2
EXIT_FINDINGS = 1
UNPINNED = 3  # a signature that fits, by a key of which nobody said whose it is
MARKS = {"ok": "ok", FINDING: "mend", UNCLEAR: "unclear", SKIPPED: "skipped"}


@click.command()
@click.argument("site", required=False, type=click.Path(path_type=Path))
@click.option("--start", is_flag=True, help="Run the site for this; it must not run yet. Needed for the revert time.")
@click.option("--yes", is_flag=True, help="Ask nothing, do every step that is not skipped.")
@click.option("--skip", multiple=True, type=click.Choice(STEPS), help="Leave a step out; the report says so.")
@click.option("--power", type=click.FloatRange(min=1), help="Size of the steps, W; default: a fifth of the nameplate.")
@click.option("--hold", type=click.FloatRange(0.5, 120), default=5.0, show_default=True, help="Length of a step, s.")
@click.option("--repeats", type=click.IntRange(1, 50), default=2, show_default=True, help="Rounds of steps.")
@click.option("--revert-timeout", type=click.FloatRange(1, 600), default=60.0, show_default=True, help="s")
@click.option("--by", help="Who commissions, for the report; default: the user's name.")
@click.option(
    "--report",
    "--protocol",
    "target",
    type=click.Path(path_type=Path),
    help="Default: beside the site file; --protocol is the former name.",
)
@click.option("--no-write", is_flag=True, help="Leave the site file as it is.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="Folder for journal and keys, as for `run`.")
@click.option("--verify", "verify_path", type=click.Path(path_type=Path), help="Check a report's signature instead.")
@click.option("--key", help="With --verify: the public key that must have signed.")
def commission(site: Path | None, verify_path: Path | None, key: str | None, **more: Any) -> None:
    """Measure the plant of SITE by small steps of the battery: signs of CTs, phases, lag, delay, revert time, limits.

    Every order goes through the gateway under a lease, and through the safety gate. Exit status: 0 all is well, 1
    something is to be mended. Ctrl-C at any moment gives the battery back.
    """
    try:
        if verify_path is not None:
            click.echo(f"{verify_path}: unchanged since it was signed by {verify(verify_path, key)}")
            if key is None:
                click.echo(
                    "no --key was given: the page names its own key, so whoever wrote the page can have made it. "
                    "Compare it with the device's (the one in its first report)",
                    err=True,
                )
                sys.exit(UNPINNED)
            return
        if site is None:
            raise SetupError("give a site file, or --verify REPORT", 64)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        sys.exit(run(site, **more))
    except SetupError as why:
        click.echo("\n".join(f"tidegate: {line}" for line in str(why).splitlines()), err=True)
        sys.exit(why.exit_code)
    except (KeyboardInterrupt, click.exceptions.Abort):
        click.echo("\ntidegate: ended; the battery is given back, nothing was written", err=True)
        sys.exit(130)


def run(
    path: Path, *, start: bool, yes: bool, skip: tuple[str, ...], power: float | None, hold: float, repeats: int,
    revert_timeout: float, by: str | None, target: Path | None, no_write: bool, state_dir: Path | None,
) -> int:  # fmt: skip
    """The whole of it; gives the exit code. Raises SetupError."""
    try:
        before, site = read_site_text(path), load_site(path)
    except SiteError as why:
        raise SetupError("\n".join(f"{path}: {one}" for one in why.problems), why.exit_code) from None
    plate = min(min(one.charge_w_max, one.discharge_w_max) for one in site.storage) if site.storage else 0.0
    if not plate:
        raise SetupError(f"{path}: has no storage unit; there is nothing to move", 65)
    power_w = power if power is not None else float(max(100, round(PART_OF_PLATE * plate, -2)))
    if power_w > plate:
        raise SetupError(f"--power {power_w:g}: the smallest unit may do {plate:g} W", 64)
    skipped = frozenset(ask_steps(yes, set(skip), start, power_w))
    task = Task(site, power_w, hold, repeats, skipped, revert_timeout)
    key = signing_key(site, state_dir)
    report = Report()
    for name in STEPS:
        if name in skipped:
            report.add(name, SKIPPED, "left out on request" if name != "revert" or start else NEEDS_START)
    with tempfile.TemporaryFile() as log:
        try:
            if start:
                with OwnRun(site, power_w, state_dir, log) as own:
                    with own.client() as client:
                        armed = measure_plant(client, task, report)
                    if armed and "revert" not in skipped:
                        revert.silence(own, task, report, click.echo)
            else:
                with running(site) as client:
                    measure_plant(client, task, report)
        except ClientError as why:
            raise SetupError(f"the gateway: {why}", EXIT_NOT_RUNNING) from None
    return conclude(path, before, site, task, report, key, by, target, no_write)


NEEDS_START = "needs the core to fall silent: stop the site and give --start"


def ask_steps(yes: bool, skip: set[str], start: bool, power_w: float) -> set[str]:
    """Which steps are left out, asking where somebody can be asked. Raises click.Abort."""
    if not start:
        skip.add("revert")
    if yes or not sys.stdin.isatty():
        return skip
    for name, text in (
        ("bms", "Read the limits of the BMS"),
        ("motion", f"Move the battery by {power_w:.0f} W to both sides"),
        ("revert", f"Discharge {power_w:.0f} W, then fall silent and watch the converter fall back"),
    ):
        group = set(MOVING) if name == "motion" else {name}
        if group <= skip:
            continue
        answer = click.prompt(f"{text}: yes, skip or end?", default="yes", type=click.Choice(["yes", "skip", "end"]))
        if answer == "end":
            raise click.exceptions.Abort
        if answer == "skip":
            skip |= group
    return skip


def signing_key(site: Site, state: Path | None) -> DeviceKey:
    """The device's key in the site's state folder. Raises SetupError before anything is moved."""
    try:
        return DeviceKey.at(state_dir(site.site.name, state) / KEY_FILE)
    except (KeyFileError, OSError, ValueError) as why:
        raise SetupError(f"no key to sign with: {why}", 73) from None


def running(site: Site) -> Client:
    """A client of the site that runs on this machine. Raises SetupError with both remedies."""
    name = site.site.name
    try:
        client = Client(site=name, timeout_s=5.0)
        client.health()
        return client
    except NoAnswer:
        raise SetupError(
            f"no gateway of site {name!r} answers here; start it (tidegate run SITE, or systemctl start "
            f"tidegate@NAME), or let commission run it for the while: --start",
            EXIT_NOT_RUNNING,
        ) from None


def measure_plant(client: Client, task: Task, report: Report) -> bool:
    """Everything that needs no silence. False if the site did not arm for what stands in the report."""
    plant = Plant(client)
    if not steps.armed(plant, task, report):
        return False
    if "bms" not in task.skip:
        steps.bms(plant, task, report)
    if not set(MOVING) <= task.skip:
        with client.lease("maintenance", LEASE_S) as lease:
            steps.moving(plant, lease, task, report, click.echo)
    return True


def conclude(
    path: Path, before: str, site: Site, task: Task, report: Report, key: DeviceKey, by: str | None,
    target: Path | None, no_write: bool,
) -> int:  # fmt: skip
    """Show, write report and site file; gives the exit code."""
    for row in report.rows:
        click.echo(f"{MARKS[row.verdict]:<8} {row.topic}: {row.says}")
        if row.remedy:
            click.echo(f"{'':<8}   -> {row.remedy}")
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    target = target or path.with_name(f"{path.stem}.commissioning-{at.replace(':', '').replace('-', '')}.html")
    if not no_write and report.tables.get("commissioning") is not None:
        report.tables["commissioning"].update(at_utc=at, report=target.name, key=key.public, test_w=task.power_w)
    if no_write:
        report.tables, report.devices = {}, {}
    about = [
        ("site file", path.name), ("tidegate", version("tidegate")),
        *((one.name, f"{one.map}, {one.role}, bus {one.bus}") for one in site.device),
    ]  # fmt: skip
    page = html(report, site=site.site.name, at=at, by=by or getpass.getuser(), key=key.public, about=about)
    write_new(target, signed(page, key))
    click.echo(f"report: {target}, signed by {key.public}")
    if report.written:
        backup = sitefile.write(path, before, sitefile.edited(before, report.tables, report.devices))
        click.echo(f"{path}: {len(report.written)} values written; the file before: {backup.name}")
    return EXIT_FINDINGS if any(row.verdict == FINDING for row in report.rows) else 0
