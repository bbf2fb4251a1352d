"""`tidegate stop`, `lock`, `unlock` and `control`: what keeps a site from running, from the place where it stands."""

import os
import time
from pathlib import Path

import click

from tidegate.runtime.api.blocking_client import Client, ClientError
from tidegate.runtime.cli.common import EXIT_UNAVAILABLE, echo_answer, fail, with_client
from tidegate.runtime.state import paths
from tidegate.runtime.state.halt import signalled

SEEN_S = 3.0


@click.command()
@click.argument("site", required=False)
def stop(site: str | None) -> None:
    """Stop SITE; not needed where only one runs. Needs neither gateway nor network.

    A signal to the supervisor, which orders the stop in the core's own memory and keeps it over a restart, and to the
    core itself. Then the gateway is asked whether it sees it. `tidegate set run` lifts it.
    """
    found = {name: (root, pid) for root in _roots() for name, pid in paths.running_sites(root).items()}
    wanted = paths.folder_name(site) if site is not None else next(iter(found)) if len(found) == 1 else None
    if wanted is None or wanted not in found:
        fail(f"name the site; running here: {', '.join(found) or 'none'}", EXIT_UNAVAILABLE)
    root, pid = found[wanted]
    endpoint = f"ipc://{root / wanted}"
    how = f"by signal to process {pid}"
    refused = signalled(pid)
    if refused:  # of another user: then the API is the way that is left
        how = _by_api(endpoint, refused)
    until = time.monotonic() + SEEN_S
    told = "the gateway does not answer"
    while time.monotonic() < until:
        try:
            with Client(endpoint, timeout_s=0.5) as client:
                now = client.why()
        except ClientError as error:
            told = str(error)
        else:
            if now["stopped"]:
                click.echo(f"stopped {how}: mode {now['mode']}, setpoint {now['setpoint_w']} W")
                return
            told = f"mode {now['mode']}"
        time.sleep(0.1)
    click.echo(f"stop was ordered {how}; not confirmed: {told}")


def _roots() -> list[Path]:
    roots = [paths.runtime_root(), paths.SERVICE_RUNTIME]
    return [root for root in dict.fromkeys(roots) if os.access(root, os.R_OK | os.X_OK)]


def _by_api(endpoint: str, refused: str) -> str:
    try:
        with Client(endpoint, timeout_s=3.0) as client:
            client.stop()
    except ClientError as error:
        fail(f"{refused}; {error}; use the emergency stop of the cabinet", EXIT_UNAVAILABLE)
    return "by the API"


@click.command()
@with_client
@click.argument("name")
@click.argument("reason")
def lock(client: Client, name: str, reason: str) -> None:
    """Stop the site and lock it under NAME because of REASON, until that lock is taken off."""
    echo_answer(client.ask("lock", action="lock", name=name, reason=reason, user=name))


@click.command()
@with_client
@click.argument("name")
def unlock(client: Client, name: str) -> None:
    """Take NAME's lock off. The stop stays; `tidegate set run` lifts it when the last lock is off."""
    echo_answer(client.ask("lock", action="unlock", name=name, user=name))


@click.command()
@with_client
@click.argument("place", type=click.Choice(["local", "remote"]))
def control(client: Client, place: str) -> None:
    """Take orders at PLACE: local = on site only, other machines may watch and stop; remote = from them too."""
    echo_answer(client.ask("control", place=place))
