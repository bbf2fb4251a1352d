"""`tidegate notify`: people are told of alarms."""

import logging
import signal
import sys
import threading
from pathlib import Path

import click

from tidegate.config.notify_targets import Notify
from tidegate.runtime.cli.common import (
    EXIT_CONTENT,
    EXIT_SOFTWARE,
    EXIT_UNAVAILABLE,
    EXIT_USAGE,
    fail,
    need,
    refuse_site,
)
from tidegate.runtime.state import paths
from tidegate.runtime.state.enclosure import enclose
from tidegate.runtime.state.held import NOTIFY, NOTIFY_DIR, take_base_in
from tidegate.runtime.state.syscalls import NETWORK

SITE = click.argument("site_file", metavar="SITE", type=click.Path(path_type=Path, exists=True, dir_okay=False))


@click.group()
def notify() -> None:
    """Tell people of alarms. SITE: the site file, whose table [notify] says whom; nobody else is called."""


def _read(site_file: Path) -> tuple[str, Notify, Path]:
    """(name of the site, its table, its folder); ends where there is none."""
    from tidegate.config.site import SiteError, load_site

    try:
        site = load_site(str(site_file))
    except SiteError as why:
        refuse_site(why, "nobody is told of anything")
    if site.notify is None or not (site.notify.to or site.notify.heartbeat_url):
        fail(
            f"{site_file}: no [notify] with a [[notify.to]] or a heartbeat_url: nobody is told of anything", EXIT_USAGE
        )
    return site.site.name, site.notify, site_file.parent


@notify.command()
@SITE
@click.option("--state-dir", type=click.Path(path_type=Path), help="As given to `tidegate run`.")
def run(site_file: Path, state_dir: Path | None) -> None:
    """Tell of alarms until Ctrl-C; what cannot be sent waits on disk."""
    module = need("tidegate.runtime.notify.notifier", "notify")
    queues = need("tidegate.runtime.notify.message_queue", "notify")
    from tidegate.runtime.api.blocking_client import Client, NoAnswer

    logging.basicConfig(level=logging.WARNING, format="tidegate: %(message)s")
    name, table, folder = _read(site_file)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        targets = module.targets_of(table, folder)
        state = paths.state_dir(name, state_dir)
        base = take_base_in(state, NOTIFY_DIR, NOTIFY)
        enclose("notify", [base.parent], [state, folder], connects=True, families=NETWORK)
        queue = queues.MessageQueue(base)
        with Client(site=name) as client:
            click.echo(f"{name}: {', '.join(one.name for one in targets) or 'nobody'} told of alarms; "
                       f"{len(queue)} messages wait")  # fmt: skip
            module.Notifier(client, table, targets, queue).run(stop)
        queue.close()
    except module.NotifyError as why:
        fail(why, EXIT_CONTENT)
    except NoAnswer as why:
        fail(why, EXIT_UNAVAILABLE)
    except OSError as why:
        fail(why, EXIT_SOFTWARE)


@notify.command()
@SITE
@click.option("--to", "only", help="Only this target.")
def test(site_file: Path, only: str | None) -> None:
    """Send a test message to each target now, and say who took it."""
    module = need("tidegate.runtime.notify.notifier", "notify")
    name, table, folder = _read(site_file)
    try:
        targets = module.targets_of(table, folder)
    except module.NotifyError as why:
        fail(why, EXIT_CONTENT)
    chosen = [one for one in targets if only in (None, one.name)]
    if not chosen:
        fail(f"no target {only!r}; there are: {', '.join(one.name for one in targets) or 'none'}", EXIT_USAGE)
    body = "a test by hand; nothing is wrong"
    taken = {one.name: module.send(one, f"{name}: test message", body) for one in chosen}
    for who, was_taken in taken.items():
        click.echo(f"{who}: {'taken' if was_taken else 'NOT TAKEN'}")
    sys.exit(0 if all(taken.values()) else EXIT_UNAVAILABLE)
