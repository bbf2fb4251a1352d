"""`tidegate openadr`: a virtual end node of OpenADR 3 beside a site, and what it last did."""

import json
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidegate.runtime.cli.common import EXIT_CONTENT, EXIT_UNAVAILABLE, EXIT_USAGE, fail, need, with_client
from tidegate.runtime.state.paths import private_folder

if TYPE_CHECKING:
    from tidegate.runtime.api.blocking_client import Client

FOLDER = click.option("--folder", type=click.Path(path_type=Path, file_okay=False), required=True,
                      help="The planner's own, if there is one: events are announced to it there.")  # fmt: skip


@click.group()
def openadr() -> None:
    """Do what a utility's events say, within the site's own limits, and report back."""


@openadr.command()
@with_client
@click.option("--vtn", required=True, help="The server's base, such as https://vtn.example.org/openadr3/3.1.0.")
@click.option("--ven", required=True, help="Name of this end node, as the utility gave it.")
@click.option("--program", required=True, help="The programme's ID.")
@click.option("--client-id", required=True, help="Of the login that the utility gave.")
@click.option("--secret", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True,
              help="File with that login's secret, for its owner only.")  # fmt: skip
@click.option("--token-url", default="", help="Where tokens are given; else the server is asked.")
@click.option(
    "--ca", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="PEM of the server's authority."
)
@click.option("--target", multiple=True, help="Another name under which events are meant for this site.")
@FOLDER
@click.option("--prices", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="The planner's folder of prices: PRICE is written there.")  # fmt: skip
@click.option("--simple", default="0.1,0.25,0.5", show_default=True, help="Share of import less at SIMPLE 1, 2 and 3.")
@click.option("--every", "every_s", type=click.FloatRange(1, 3600), default=30.0, show_default=True, help="s")
@click.option("--reports", type=click.Choice(["3.0", "3.1"]), default="3.1", show_default=True, help="Their form.")
def run(client: "Client", vtn: str, ven: str, program: str, client_id: str, secret: Path, token_url: str,
        ca: Path | None, target: tuple[str, ...], folder: Path, prices: Path | None, simple: str, every_s: float,
        reports: str) -> None:  # fmt: skip
    """Look at the utility's events until Ctrl-C or SIGTERM."""
    need("requests", "openadr")
    from tidegate.runtime.openadr.end_node import EndNode, Place
    from tidegate.runtime.openadr.vtn_client import Vtn, VtnError

    try:
        shares = tuple(float(part) for part in simple.split(","))
        if len(shares) != 3 or not all(0 < one <= 1 for one in shares):
            raise ValueError(simple)
    except ValueError:
        fail(f"--simple {simple}: three shares above 0, at most 1, such as 0.1,0.25,0.5", EXIT_USAGE, "openadr")
    try:
        if secret.stat().st_mode & 0o077:
            fail(f"{secret}: others may read it; chmod 600 {secret}", EXIT_CONTENT, "openadr")
        server = Vtn(vtn, client_id, secret.read_text("utf-8").strip(), token_url, str(ca or ""))
        private_folder(folder)
    except (VtnError, OSError, UnicodeDecodeError) as why:
        fail(why, EXIT_CONTENT, "openadr")
    place = Place(ven, program, folder, prices, target, (shares[0], shares[1], shares[2]), reports == "3.0")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    EndNode(client, server, place, lambda line: click.echo(f"openadr: {line}")).run(stop.wait, every_s)


@openadr.command()
@FOLDER
def status(folder: Path) -> None:
    """What was last heard and done, and what is not acted on."""
    path = folder / "openadr.json"
    try:
        told = json.loads(path.read_text())
        at = datetime.fromtimestamp(told["utc_s"], UTC)
        click.echo(f"{at:%Y-%m-%d %H:%M:%S}Z: {told['state']}")
        click.echo(f"limits: {told['limits']}\ndispatch: {told['dispatch']}")
        click.echo(f"reports: {told['reports_sent']} sent, {told['reports_waiting']} wait, {told['reports_lost']} lost")
        for text in told["left_out"]:
            click.echo(f"not acted on: {text}")
    except FileNotFoundError:
        fail(f"{folder}: no end node has run here yet", EXIT_UNAVAILABLE, "openadr")
    except (OSError, ValueError, KeyError, TypeError) as why:
        fail(f"{path}: {why}", EXIT_CONTENT, "openadr")
