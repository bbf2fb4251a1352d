"""`tidegate keys`: who may connect from outside."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import click

from tidegate.runtime.api import curve_keys as store
from tidegate.runtime.api import messages
from tidegate.runtime.api.own_address import own_address
from tidegate.runtime.cli.common import EXIT_CANNOT_WRITE, EXIT_CONTENT, EXIT_SOFTWARE, EXIT_USAGE, fail
from tidegate.runtime.state import paths

roles = click.Choice(list(messages.ROLES))
WILDCARDS = ("*", "0.0.0.0")
ASK_S = 1.0


@dataclass(frozen=True)
class Store:
    """The keys of one site."""

    site: str
    folder: Path


class Served(NamedTuple):
    """Where a site is found from other machines; "" = nowhere, and `why` says so."""

    endpoint: str = ""
    why: str = ""
    publish: str = ""


@click.group("keys")
@click.option("--site", "-s", help="Name of the site, as in its file; not needed where there is only one.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="As given to `tidegate run`.")
@click.pass_context
def keys(ctx: click.Context, site: str | None, state_dir: Path | None) -> None:
    """Keys and roles of remote clients.

    Roles: read (watch), operate (lease, setpoint, limit, schedule, mode), maintain (also ack and the highest priority).
    """
    try:
        name = site or the_site(state_dir)
        ctx.obj = Store(name, store.folder_of(paths.state_dir(name, state_dir)))
    except (OSError, ValueError) as why:
        fail(why, EXIT_SOFTWARE)


def the_site(state_dir: Path | None) -> str:
    """The one site that runs here, else the one that has run here; ends where that is not one."""
    running = sorted(paths.running_sites())
    if len(running) == 1:
        return running[0]
    root = state_dir or paths.state_root()
    known = running or sorted(one.name for one in root.glob("*") if one.is_dir()) if root.is_dir() else running
    if len(known) == 1:
        return known[0]
    there = f"there are {', '.join(known)}" if known else f"{root} has none; has it run here, as this user?"
    fail(f"which site? Say --site NAME behind `tidegate keys`: {there}", EXIT_USAGE)


def served(site: str) -> Served:
    """Where the running site says that other machines find it."""
    from tidegate.runtime.api.blocking_client import Client, ClientError

    try:
        with Client(site=site, timeout_s=ASK_S) as client:
            told = client.describe().get("gateway") or {}
    except (ClientError, ValueError):
        return Served(why="the site does not run, so its address is not known here")
    endpoint, ours = told.get("endpoint"), own_address() or "ADDRESS"
    if not endpoint:
        line = f'[gateway] endpoint = "tcp://{ours}:7400"'
        return Served(why=f"the site serves this machine only; put {line} into its file and start it again")
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return Served(f"tcp://{ours if host in WILDCARDS else host}:{port}", publish=told.get("publish") or "")


def make_for(held: Store, name: str, role: str, out: Path | None, endpoint: str | None) -> None:
    """Make a key with its file, and say what its owner needs."""
    found = Served(endpoint) if endpoint else served(held.site)
    target = out or Path(f"{name}.key")
    try:
        store.make(held.folder, name, role, target, found.endpoint or None)
        public, _ = store.server_keys(held.folder)
    except store.KeyProblem as why:
        fail(why, EXIT_CONTENT)
    except OSError as why:
        fail(f"{target}: {why.strerror}; nothing was granted (--out names another file)", EXIT_CANNOT_WRITE)
    click.echo(f"{target}: key of {name}, role {role}; move it to the client and delete it here")
    click.echo(f"site {held.site}, its public key {public}")
    if not found.endpoint:
        click.echo(f"tidegate: {found.why}; then the client says --endpoint tcp://ADDRESS:PORT", err=True)
        return
    host, _, port = found.endpoint.rpartition(":")
    click.echo(f"requests {found.endpoint}, streams {found.publish or f'{host}:{int(port) + 1}'}")
    click.echo(f"try there: tidegate why --key {target.name}")


@keys.command()
@click.argument("name")
@click.option("--role", type=roles, default="read", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Key file to write; default NAME.key.")
@click.option("--endpoint", help="tcp://ADDRESS:PORT that the client finds the site at; default: what the site says.")
@click.pass_obj
def make(held: Store, name: str, role: str, out: Path | None, endpoint: str | None) -> None:
    """Make a key for NAME and grant it a role. The file belongs on the client's machine."""
    make_for(held, name, role, out, endpoint)


@keys.command("list")
@click.pass_obj
def list_(held: Store) -> None:
    """Show who may connect, and this device's own public key."""
    try:
        public, _ = store.server_keys(held.folder)
        granted = store.read_roles(held.folder / "roles.toml")
    except (store.KeyProblem, OSError) as why:
        fail(why, EXIT_CONTENT)
    click.echo(f"{'this device':<32}  {'':<8}  {public}")
    for key, one in granted.items():
        click.echo(f"{one.name:<32}  {one.role:<8}  {key}")


@keys.command()
@click.argument("name")
@click.option("--role", type=roles, required=True)
@click.option("--public", help="Public key (Z85), for a key made elsewhere.")
@click.option("--out", type=click.Path(path_type=Path), help="Key file of a new NAME; default NAME.key.")
@click.option("--endpoint", help="tcp://ADDRESS:PORT that the client finds the site at; default: what the site says.")
@click.pass_obj
def grant(held: Store, name: str, role: str, public: str | None, out: Path | None, endpoint: str | None) -> None:
    """Give NAME a role: a new name gets a key and what its owner needs is printed; a known one gets another role."""
    try:
        known = name in store.named(held.folder)
        if known or public is not None:
            if out is not None:
                fail(f"{name} has a key; --out is for a new one", EXIT_USAGE)
            store.grant(held.folder, name, role, public)
            click.echo(f"{name}: {role}; in force within 5 s")
            return
    except (store.KeyProblem, OSError) as why:
        fail(why, EXIT_CONTENT)
    make_for(held, name, role, out, endpoint)


@keys.command()
@click.argument("name")
@click.pass_obj
def revoke(held: Store, name: str) -> None:
    """Take NAME's rights and cut its connections."""
    try:
        store.revoke(held.folder, name)
    except (store.KeyProblem, OSError) as why:
        fail(why, EXIT_CONTENT)
    click.echo(f"{name}: revoked; its connections are cut within 5 s")
