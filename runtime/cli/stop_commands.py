"""`tidegate stop`, `lock`, `unlock` and `control`: what keeps a site from running, from the place where it stands."""

import os
import signal
import time
from pathlib import Path

import click

from tidegate.runtime.api.blocking_client import Client, ClientError
from tidegate.runtime.cli.common import EXIT_REFUSED, EXIT_UNAVAILABLE, echo_answer, fail, refuse_site, with_client
from tidegate.runtime.state import paths
from tidegate.runtime.state.halt import signalled

SEEN_S = 3.0
RESTARTED_S = 180.0


@click.command()
@click.argument("site", required=False)
def stop(site: str | None) -> None:
    """Stop SITE; not needed where only one runs. Needs neither gateway nor network.

    A signal to the supervisor, which orders the stop in the core's own memory and keeps it over a restart, and to the
    core itself. Then the gateway is asked whether it sees it. `tidegate set run` lifts it.
    """
    endpoint, pid = _running(site)
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


@click.command()
@click.argument("site", required=False)
def restart(site: str | None) -> None:
    """Restart SITE with its file as it is now; not needed where only one runs.

    The file is checked first. Then the power goes to zero, everything ends in the safe order, and the site starts anew.
    For the user that runs the site, and root: those who have the role maintain here.
    """
    endpoint, pid = _running(site)
    path = _site_file(pid)
    if path is not None:
        from tidegate.config.site import SiteError
        from tidegate.runtime.supervisor.preflight import prepare

        try:
            prepare(path)
        except SiteError as error:
            refuse_site(error, "the site runs on with the file that it was started with")
    before = _boot(endpoint)
    try:
        os.kill(pid, signal.SIGUSR2)
    except OSError as why:
        fail(f"process {pid}: {why.strerror}; do this as the user that runs the site", EXIT_REFUSED)
    click.echo("the power goes to zero, then the site starts anew ...")
    until = time.monotonic() + RESTARTED_S
    while time.monotonic() < until:
        now = _boot(endpoint)
        if now and now != before:
            with Client(endpoint, timeout_s=3.0) as client:
                click.echo(f"restarted: mode {client.why()['mode']}")
            return
        time.sleep(0.2)
    fail(f"the site has not come back within {RESTARTED_S:.0f} s; its log says why", EXIT_UNAVAILABLE)


def _boot(endpoint: str) -> str:
    """Which start of the core answers; "" = none."""
    try:
        with Client(endpoint, timeout_s=1.0) as client:
            answer = client.ask("health")
    except ClientError:
        return ""
    return str(answer["boot"]) if (answer["health"].get("core") or {}).get("running") else ""


def _site_file(pid: int) -> Path | None:
    """The file that this supervisor was started with, None where that cannot be told."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        here = Path(f"/proc/{pid}/cwd").resolve()
    except (OSError, UnicodeDecodeError):
        return None
    left = iter(words[words.index("run") + 1 :] if "run" in words else [])
    for word in left:
        if word in ("--state-dir", "--cpu"):
            next(left, None)
        elif word and not word.startswith("--"):
            return here / word if (here / word).exists() else Path(word)
    return None


def _running(site: str | None) -> tuple[str, int]:
    """(endpoint, process) of a site that runs here; ends where it is not clear which."""
    found = {name: (root, pid) for root in _roots() for name, pid in paths.running_sites(root).items()}
    wanted = paths.folder_name(site) if site is not None else next(iter(found)) if len(found) == 1 else None
    if wanted is None or wanted not in found:
        fail(f"name the site; running here: {', '.join(found) or 'none'}", EXIT_UNAVAILABLE)
    root, pid = found[wanted]
    return f"ipc://{root / wanted}", pid


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
