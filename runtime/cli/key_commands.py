"""`tidegate keys`: who may connect from outside."""

from pathlib import Path

import click

from tidegate.runtime.api import curve_keys as store
from tidegate.runtime.api import messages
from tidegate.runtime.cli.common import EXIT_CONTENT, EXIT_SOFTWARE, fail
from tidegate.runtime.state import paths

roles = click.Choice(list(messages.ROLES))


@click.group("keys")
@click.option("--site", "-s", required=True, help="Name of the site, as in its file.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="As given to `tidegate run`.")
@click.pass_context
def keys(ctx: click.Context, site: str, state_dir: Path | None) -> None:
    """Keys and roles of remote clients.

    Roles: read (watch), operate (lease, setpoint, limit, schedule, mode), maintain (also ack and the highest priority).
    """
    try:
        ctx.obj = store.folder_of(paths.state_dir(site, state_dir))
    except (OSError, ValueError) as why:
        fail(why, EXIT_SOFTWARE)


@keys.command()
@click.argument("name")
@click.option("--role", type=roles, default="read", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Key file to write; default NAME.key.")
@click.pass_obj
def make(folder: Path, name: str, role: str, out: Path | None) -> None:
    """Make a key for NAME and grant it a role. The file belongs on the client's machine."""
    try:
        target = store.make(folder, name, role, out or Path(f"{name}.key"))
    except (store.KeyProblem, OSError) as why:
        fail(why, EXIT_CONTENT)
    click.echo(f"{target}: key of {name}, role {role}; move it to the client and delete it here")


@keys.command("list")
@click.pass_obj
def list_(folder: Path) -> None:
    """Show who may connect, and this device's own public key."""
    try:
        public, _ = store.server_keys(folder)
        granted = store.read_roles(folder / "roles.toml")
    except (store.KeyProblem, OSError) as why:
        fail(why, EXIT_CONTENT)
    click.echo(f"{'this device':<32}  {'':<8}  {public}")
    for key, one in granted.items():
        click.echo(f"{one.name:<32}  {one.role:<8}  {key}")


@keys.command()
@click.argument("name")
@click.option("--role", type=roles, required=True)
@click.option("--public", help="Public key (Z85), for a key made elsewhere.")
@click.pass_obj
def grant(folder: Path, name: str, role: str, public: str | None) -> None:
    """Give NAME another role, or let in a key that was made elsewhere."""
    try:
        store.grant(folder, name, role, public)
    except (store.KeyProblem, OSError) as why:
        fail(why, EXIT_CONTENT)
    click.echo(f"{name}: {role}; in force within 5 s")


@keys.command()
@click.argument("name")
@click.pass_obj
def revoke(folder: Path, name: str) -> None:
    """Take NAME's rights and cut its connections."""
    try:
        store.revoke(folder, name)
    except (store.KeyProblem, OSError) as why:
        fail(why, EXIT_CONTENT)
    click.echo(f"{name}: revoked; its connections are cut within 5 s")
