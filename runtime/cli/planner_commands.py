"""`tidegate planner`: the planner that runs by itself, and what it last did."""

import contextlib
import json
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path

import click

from tidegate.config.site import SiteError, load_site
from tidegate.runtime.api.blocking_client import Client, ClientError
from tidegate.runtime.cli.adapter_commands import cooling, gpu_caps, kubernetes, node_sleep
from tidegate.runtime.cli.common import EXIT_CONTENT, EXIT_UNAVAILABLE, EXIT_USAGE, fail, refuse_site, with_client
from tidegate.runtime.cli.plan_options import with_wishes
from tidegate.runtime.planner.adapter_audit import COOLING_ADVICE, end_doubts
from tidegate.runtime.planner.day_ahead import Wishes
from tidegate.runtime.planner.grid_events import GridEvent, read_events, write_events
from tidegate.runtime.planner.live_planner import STATUS_FILE, LivePlanner
from tidegate.runtime.planner.plan_inputs import PlanError
from tidegate.runtime.planner.planner_metrics import serve_metrics
from tidegate.runtime.planner.slurm_adapter import Allowed, SlurmAdapter
from tidegate.runtime.planner.slurm_queue import Slurm
from tidegate.runtime.state.paths import private_folder

FOLDER = click.option("--folder", type=click.Path(path_type=Path, file_okay=False), required=True,
                      help="The planner's own: history, status, jobs.")  # fmt: skip


@click.group()
def planner() -> None:
    """Plan each quarter hour and give that to the site: a process of its own beside the gateway, which may die."""


@planner.command()
@with_client
@click.argument("site_file", metavar="SITE", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--prices", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True,
              help="Folder of price files: CSV of time_utc, price_eur_per_kwh or price_eur_per_mwh.")  # fmt: skip
@FOLDER
@with_wishes
@click.option("--listen", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), help="Metrics for Prometheus at http://LISTEN:PORT/metrics.")
def run(client: Client, site_file: Path, prices: Path, folder: Path, wishes: Wishes, listen: str,
        port: int | None) -> None:  # fmt: skip
    """Plan from the site's own journal and the prices of a folder, until Ctrl-C or SIGTERM."""
    try:
        site = load_site(str(site_file))
        private_folder(folder)
        live = LivePlanner(client, site, prices, folder, wishes)
    except SiteError as why:
        refuse_site(why)
    except PlanError as why:
        fail(why, EXIT_CONTENT, "planner")
    except OSError as why:
        fail(f"{folder}: {why.strerror}", EXIT_UNAVAILABLE, "planner")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    if port is not None:
        try:
            serve_metrics(site.site.name, live.status, listen, port, live.what_if)
        except OSError as why:
            fail(f"{listen}:{port}: {why.strerror or why}", EXIT_UNAVAILABLE, "planner")
        click.echo(f"metrics at http://{listen}:{port}/metrics")
    live.run(stop, lambda line: click.echo(f"planner: {line}"))


@planner.command()
@FOLDER
@click.option("--json", "as_json", is_flag=True, help="All of it.")
def status(folder: Path, as_json: bool) -> None:
    """What the planner last did, why, and how good its forecasts were."""
    try:
        told = json.loads((folder / STATUS_FILE).read_text())
    except FileNotFoundError:
        fail(f"{folder}: no planner has planned here yet", EXIT_UNAVAILABLE, "planner")
    except (OSError, ValueError) as why:
        fail(f"{folder / STATUS_FILE}: {why}", EXIT_CONTENT, "planner")
    if as_json:
        click.echo(json.dumps(told))
        return
    at = datetime.fromtimestamp(told["utc_s"], UTC)
    click.echo(f"{told['state']} ({at:%Y-%m-%d %H:%M:%S}Z): {told['text']}")
    for text in told["doubts"]:
        click.echo(f"doubt: {text}")
    if advice := told.get("advice"):
        until = datetime.fromtimestamp(advice["until_utc_s"], UTC)
        click.echo(f"advice: {advice['word']} until {until:%H:%M}Z: {advice['why']}")
    for path in sorted(folder.glob(COOLING_ADVICE)):  # there is none where nothing is cooled by us
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            click.echo(json.loads(path.read_text())["line"])
    if told.get("cooling_text"):
        click.echo(told["cooling_text"])
    for job in told.get("jobs", []):
        runs = ", ".join(f"{datetime.fromtimestamp(begin, UTC):%d %H:%M}Z to {datetime.fromtimestamp(end, UTC):%H:%M}Z"
                         for begin, end in job["runs_utc_s"])  # fmt: skip
        saves = "" if job["saves_eur"] is None else f", saves {job['saves_eur']:.2f} EUR"
        click.echo(f"job {job['name']}: {runs}{saves}")
    if told.get("saved_line"):
        click.echo(told["saved_line"])
    for text in told.get("events", []):
        click.echo(text)
    for name, one in told.get("forecasts", {}).items():
        click.echo(f"{name} is forecast by {one['text']}")
    for one in told["forecast_errors"]:
        click.echo(f"forecast of {one['series']} by {one['by']}: pinball {one['pinball']:.3g}, band covered "
                   f"{one['covered']:.0%}, Kendall tau {one['kendall_tau']:.2f}")  # fmt: skip


@planner.command()
@FOLDER
@click.argument("name")
@click.option("--begin", metavar="TIME", help="A quarter hour, such as 2026-11-28T17:00Z.")
@click.option("--hours", type=click.FloatRange(min=0.25, max=24), default=3.0, show_default=True)
@click.option("--less", type=click.FloatRange(0, 1, min_open=True), default=0.25, show_default=True,
              help="Share of the baseline: load less sun at that time of the last ten days.")  # fmt: skip
@click.option("--remove", is_flag=True, help="Take the announcement back.")
def event(folder: Path, name: str, begin: str | None, hours: float, less: float, remove: bool) -> None:
    """Announce that the grid wants less import; `planner status` says whether it can be kept, and proves it after."""
    try:
        kept = tuple(one for one in read_events(folder) if one.name != name)
        if not remove:
            at = datetime.fromisoformat(begin or "")
            if at.tzinfo is None:
                raise ValueError(begin)
            first = int(at.timestamp())
            kept = (*kept, GridEvent(name, first, first + round(hours * 3600), less))
        write_events(folder, kept)
    except ValueError:
        fail(f"--begin {begin}: write 2026-11-28T17:00Z", EXIT_USAGE, "planner")
    except PlanError as why:
        fail(why, EXIT_CONTENT, "planner")


@planner.command()
@with_client
@FOLDER
@click.option("--partition", multiple=True, required=True, help="Jobs of this partition may be moved; again for more.")
@click.option("--user", multiple=True, help="Only jobs of this user; again for more.")
@click.option(
    "--kw-per-cpu", type=click.FloatRange(min=0), default=0.0, help="Power of a job that does not say its own."
)
@click.option("--kw-per-gpu", type=click.FloatRange(min=0), default=0.0, help="The same for each GPU.")
@click.option(
    "--delayed-max", type=click.IntRange(min=0), default=50, show_default=True, help="Jobs that wait at once."
)
@click.option(
    "--wait-max", type=click.FloatRange(min=0), default=24.0, show_default=True, help="Hours that a job waits."
)
@click.option("--requeue", is_flag=True, help="Running jobs whose comment says checkpoints may be put back.")
@click.option("--dry-run", is_flag=True, help="Only write down what would be ordered.")
@click.option("--every", type=click.FloatRange(1, 300), default=30.0, show_default=True, help="Seconds between rounds.")
def slurm(client: Client, folder: Path, partition: tuple[str, ...], user: tuple[str, ...], kw_per_cpu: float,
          kw_per_gpu: float, delayed_max: int, wait_max: float, requeue: bool, dry_run: bool,
          every: float) -> None:  # fmt: skip
    """Have jobs of Slurm begin when the plan says; a process of its own. Nothing is held: begin times run out."""
    allowed = Allowed(partition, user, delayed_max, wait_max * 3600, requeue, dry_run, kw_per_cpu, kw_per_gpu,
                      lease_s=max(300.0, 4 * every))  # fmt: skip

    def note(name: str, detail: str) -> None:
        with contextlib.suppress(ClientError):  # the adapter's own file has it
            client.ask("note", name=name, detail=detail)

    adapter = SlurmAdapter(Slurm(), folder, allowed, note=note)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    shown = ""
    while not stop.is_set():
        adapter.round()
        if adapter.error != shown:
            shown = adapter.error
            click.echo(f"slurm: {shown or 'answers'}", err=True)
        stop.wait(every)
    adapter.round(let_go=True)
    end_doubts(folder, "slurm")


planner.add_command(cooling)
planner.add_command(kubernetes)
planner.add_command(gpu_caps)
planner.add_command(node_sleep)
