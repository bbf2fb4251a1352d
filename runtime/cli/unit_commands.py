"""The life of units at a hub: `tidegate hub enrol|owner|revoke|lost|reflash|life`, `tidegate fleet join|rotate`."""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from tidegate.runtime.cli.common import EXIT_REFUSED, EXIT_UNUSABLE, fail
from tidegate.runtime.cli.limit_commands import HUB_FOLDER, broker_of

if TYPE_CHECKING:
    from tidegate.runtime.fleet.hub.broker import Broker
    from tidegate.runtime.fleet.hub.hub_life import HubLife

Done = TypeVar("Done")


def with_reason(command: Callable[..., None]) -> Callable[..., None]:
    """Options of everything that changes who may what: it stands in the hub's store."""
    command = click.option("--reason", required=True, help="Why.")(command)
    return click.option("--by", required=True, help="Who does it.")(command)


def _at_hub(folder: Path, act: "Callable[[Broker, HubLife], Done]") -> Done:
    """Do it at a hub, or end the program with why not."""
    import psycopg
    import sqlalchemy as sa

    from tidegate.runtime.fleet.hub.hub_life import HubLife
    from tidegate.runtime.fleet.invitation import HubError

    try:
        row = json.loads((folder / "hub.json").read_text())
        life = HubLife.of(row["database"])
        try:
            return act(broker_of(folder), life)
        finally:
            life.close()
    except HubError as why:
        fail(why, EXIT_REFUSED, "tidegate hub")
    except (OSError, ValueError, KeyError, TypeError, psycopg.Error, sa.exc.ArgumentError) as why:
        fail(f"{folder}: {why}", EXIT_UNUSABLE, "tidegate hub")


def _token(broker: "Broker", life: "HubLife", site: str, hours: float, by: str, reason: str, owner: str,
           svg: Path | None) -> None:  # fmt: skip
    from tidegate.runtime.fleet.hub.join_token import JoinToken

    token = JoinToken.new(site, broker.address, broker.certificate())
    if svg is not None:
        token.write_svg(svg)
    ends_utc_s = int(time.time() + hours * 3600)
    broker.end_claim(*life.invite(site, token.id, token.code, ends_utc_s, by, reason, owner))
    broker.put_claim(token.id, token.code, ends_utc_s)
    click.echo(token.text())
    click.echo(
        f"For {site}, once, within {hours:g} h. On the unit: tidegate fleet join TOKEN --key FILE --out FILE", err=True
    )


HOURS = click.option("--hours", type=click.FloatRange(0.01, 720), default=24.0, show_default=True,
                     help="So long may the token be used.")  # fmt: skip
SVG = click.option("--svg", type=click.Path(path_type=Path), help="Also as a QR code, into this file.")


@click.command("enrol")
@click.argument("site")
@HUB_FOLDER
@HOURS
@SVG
@click.option("--owner", default="", help="Whose the site is.")
@with_reason
def enrol(site: str, folder: Path, hours: float, svg: Path | None, owner: str, by: str, reason: str) -> None:
    """A token that lets one unit join as SITE, once; those of before end."""
    _at_hub(folder, lambda broker, life: _token(broker, life, site, hours, by, reason, owner, svg))


def _ending(name: str, state: str, what: str, done: str) -> click.Command:
    """A command that ends a unit's login. what : its help. done : what is told afterwards."""

    @click.command(name, help=what)
    @click.argument("site")
    @HUB_FOLDER
    @with_reason
    def command(site: str, folder: Path, by: str, reason: str) -> None:
        def act(broker: "Broker", life: "HubLife") -> None:
            tokens = life.end(site, state, by, reason)  # in the store first: a login is not given back
            broker.end_claim(*tokens)
            broker.end_login(site)

        _at_hub(folder, act)
        click.echo(f"{site}: its login is over{done}")

    return command


revoke = _ending(
    "revoke", "revoked", "End SITE's login now. What it sent stays; `hub enrol` lets the same unit in again.", ""
)
lost = _ending(
    "lost",
    "lost",
    "SITE's unit is stolen or gone: its login is over, its device key is never let in again, under any name.",
    ", and its key is let in no more",
)


@click.command("owner")
@click.argument("site")
@HUB_FOLDER
@click.option("--to", "owner", required=True, help="Whose it is from now on.")
@HOURS
@SVG
@with_reason
def owner(site: str, folder: Path, owner: str, hours: float, svg: Path | None, by: str, reason: str) -> None:
    """SITE is another's from now on: the login of before ends, a token for the new owner is printed."""

    def act(broker: "Broker", life: "HubLife") -> None:
        life.change_owner(site, owner, by, reason)
        broker.end_login(site)
        _token(broker, life, site, hours, by, reason, "", svg)

    _at_hub(folder, act)


@click.command("reflash")
@click.argument("site")
@HUB_FOLDER
@click.option("--as", "name", required=True, help="What the site is called from now on.")
@HOURS
@SVG
@with_reason
def reflash(site: str, folder: Path, name: str, hours: float, svg: Path | None, by: str, reason: str) -> None:
    """SITE's unit has a new key and an empty ledger: it goes on under another name, SITE's entries stay as they are."""
    from tidegate.runtime.fleet.invitation import HubError

    def act(broker: "Broker", life: "HubLife") -> None:
        if name == site or life.knows(name):
            raise HubError(f"--as {name}: give a name that no unit of this hub had")
        tokens = life.end(site, "replaced", by, reason, f"goes on as {name}")
        broker.end_claim(*tokens)
        broker.end_login(site)
        _token(broker, life, name, hours, by, f"{reason} (goes on for {site})", life.owner(site), svg)

    _at_hub(folder, act)


@click.command("life")
@click.argument("site", required=False)
@HUB_FOLDER
def life(site: str | None, folder: Path) -> None:
    """What happened to SITE's unit, or to all: who did it, and why; oldest first."""
    for one in _at_hub(folder, lambda broker, life: life.lines(site)):
        when = time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(one.utc_s))
        click.echo(f"{when} {one.site}: {one.what} by {one.by}: {one.reason}; {one.detail}")


@click.command("join")
@click.argument("token")
@click.option("--key", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True,
              help="The device's key, carbon-key.pem in the site's state folder; it stays there.")  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="File for this unit's login; keep it secret."
)
def join(token: str, key: Path, out: Path) -> None:
    """Join a hub by the TOKEN that `tidegate hub enrol` printed; - reads it from standard input."""
    from tidegate.runtime.fleet.hub.join_token import JoinToken
    from tidegate.runtime.fleet.invitation import HubError
    from tidegate.runtime.fleet.unit.unit_join import join as join_hub
    from tidegate.runtime.state.device_key import DeviceKey, KeyFileError

    try:
        text = sys.stdin.read() if token == "-" else token
        made = asyncio.run(join_hub(JoinToken.read(text), DeviceKey.at(key), out))
    except (HubError, KeyFileError) as why:
        fail(why, EXIT_REFUSED, "tidegate fleet")
    except OSError as why:
        fail(why, EXIT_UNUSABLE, "tidegate fleet")
    click.echo(f"{made.site}: joined {made.address}. Next: tidegate fleet run {out} --ledger LEDGER")


@click.command("rotate")
@click.argument("invitation", type=click.Path(path_type=Path, exists=True))
def rotate(invitation: Path) -> None:
    """Another login for this unit, in the same file; the one before ends. Start `fleet run` and `fleet lease` anew."""
    from tidegate.runtime.fleet.invitation import HubError
    from tidegate.runtime.fleet.unit.unit_join import rotate as rotate_login

    try:
        asyncio.run(rotate_login(invitation))
    except HubError as why:
        fail(why, EXIT_REFUSED, "tidegate fleet")
    except OSError as why:
        fail(why, EXIT_UNUSABLE, "tidegate fleet")
    click.echo(f"{invitation}: another login; the one before is over")


def add_to(hub: click.Group, fleet: click.Group) -> None:
    """These commands, where they belong."""
    for one in (enrol, owner, revoke, lost, reflash, life):
        hub.add_command(one)
    for one in (join, rotate):
        fleet.add_command(one)
