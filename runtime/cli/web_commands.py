"""`tidegate web`: the operator's page, who may log in there, and tokens for programs."""

import asyncio
import logging
import tomllib
from pathlib import Path

import click

from tidegate.runtime.api import messages
from tidegate.runtime.api.connection import ClientError, find_endpoint
from tidegate.runtime.cli.common import (
    EXIT_CANNOT_WRITE,
    EXIT_CONTENT,
    EXIT_SOFTWARE,
    EXIT_UNAVAILABLE,
    EXIT_USAGE,
    fail,
    need,
)
from tidegate.runtime.cli.key_commands import the_site
from tidegate.runtime.state import paths

roles = click.Choice(list(messages.ROLES))
PORT = 8443


class Place:
    """The page of one site on this machine, looked for when a command wants it."""

    def __init__(self, site: str | None, state_dir: Path | None) -> None:
        self._asked, self._state_dir = site, state_dir
        self.site, self.state = "", Path()

    def find(self, site_file: Path | None = None, *, is_new: bool = False) -> "Place":
        """With the site's name: the one that was asked for, that of the site file, or the only one that runs here.

        is_new: a site file that is not there yet is one that set-up will make; its site is called as it.
        """
        try:
            made_later = is_new and site_file is not None and not site_file.exists()
            named = site_file.stem if made_later and site_file is not None else _name_in(site_file)
            self.site = self._asked or named or the_site(self._state_dir)
            self.state = paths.state_dir(self.site, self._state_dir)
        except (OSError, ValueError) as why:
            fail(why, EXIT_SOFTWARE)
        return self


def _name_in(site_file: Path | None) -> str:
    """[site] name of a site file, "" without one; whether the rest of it is right is the site's own affair."""
    if site_file is None:
        return ""
    try:
        return str(tomllib.loads(site_file.read_text())["site"]["name"])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError) as why:
        fail(f"{site_file}: no [site] name can be read in it: {why}; run: tidegate check {site_file}", EXIT_CONTENT)


@click.group("web")
@click.option("--site", "-s", help="Name of the site on this machine; not needed where there is only one.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="As given to `tidegate run`.")
@click.pass_context
def web(ctx: click.Context, site: str | None, state_dir: Path | None) -> None:
    """The operator's page over HTTPS: serve it, and who gets in."""
    ctx.obj = Place(site, state_dir)


@web.command()
@click.argument("site_file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--listen", default="127.0.0.1", show_default=True, help="Address; 0.0.0.0 is every one of this machine.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True)
@click.option("--name", "names", multiple=True, help="A name or address that the unit is reached by; may be repeated.")
@click.option("--no-history", is_flag=True, help="Keep no history on disk.")
@click.option("--set-up", "sets_up", is_flag=True, help="The role maintain may change SITE_FILE and commission.")
@click.option("--planner-port", type=click.IntRange(1, 65535), help="As given to `tidegate planner run`: what-if.")
@click.option("--pair", "pairs", is_flag=True, help="Also print a code for the first login, where there is none yet.")
@click.pass_obj
def serve(
    place: Place,
    site_file: Path | None,
    listen: str,
    port: int,
    names: tuple[str, ...],
    no_history: bool,
    sets_up: bool,
    planner_port: int | None,
    pairs: bool,
) -> None:
    """Serve the page until Ctrl-C. SITE_FILE: shown and checked on its set-up screen."""
    if sets_up and site_file is None:
        fail("--set-up needs the site file: tidegate web serve --set-up SITE_FILE", EXIT_USAGE)
    module = need("tidegate.runtime.web.web_process", "web")
    place.find(site_file, is_new=sets_up)
    from tidegate.runtime.console.users import Users
    from tidegate.runtime.web.certificates import CertificateError, Certificates
    from tidegate.runtime.web.login_codes import GOOD_S, Pairing, shown

    logging.basicConfig(level=logging.WARNING, format="tidegate: %(message)s")
    try:
        endpoint = find_endpoint(place.site)
    except ClientError as why:
        if not sets_up:
            fail(why, EXIT_UNAVAILABLE)
        # A site that does not run yet: its gateway is waited for, and set-up needs none.
        endpoint = f"ipc://{paths.runtime_root() / paths.folder_name(place.site)}"

    def started(made: Certificates, at: int) -> None:
        hosts = [listen] if listen not in ("0.0.0.0", "::") else [one for one in made.names if one != "localhost"]
        click.echo("the page of " + place.site + " at " + ", ".join(f"https://{host}:{at}" for host in hosts))
        click.echo(f"its authority's SHA-256 {made.sha256}")
        if sets_up:
            click.echo("--set-up: it may change the site file and start commands, so this page is not confined")
        if not pairs:
            click.echo(f"a login: tidegate web --site {place.site} pair")
            return
        if Users(paths.private_folder(place.state / "console", 0o700)).all():
            click.echo("--pair: there is a login already; another one: tidegate web pair")
            return
        code = Pairing(module.folder_of(place.state)).make("maintain")
        click.echo(f"code {shown(code)}, role maintain, for {GOOD_S // 60} minutes: open the page and make your login")

    served = module.Served(endpoint, place.state, listen, port, names, site_file, not no_history, sets_up, planner_port)
    try:
        module.confine(served)
        asyncio.run(module.serve(served, started))
    except CertificateError as why:
        fail(why, EXIT_SOFTWARE)
    except OSError as why:
        fail(f"{listen}:{port}: {why.strerror or why}", EXIT_UNAVAILABLE)


@web.command()
@click.option("--role", type=roles, default="read", show_default=True, help="What the new login may do.")
@click.option("--user", default="", help="Give a login that exists this role and a new password.")
@click.option("--url", default="", help="Address of the page, for the QR code; default is this machine's.")
@click.option("--no-qr", is_flag=True, help="Only the code.")
@click.pass_obj
def pair(place: Place, role: str, user: str, url: str, no_qr: bool) -> None:
    """A code, good once and for ten minutes, with which somebody makes a login at the page."""
    place.find()
    web_process = need("tidegate.runtime.web.web_process", "web")
    pairing = need("tidegate.runtime.web.login_codes", "web")
    certificates = need("tidegate.runtime.web.certificates", "web")
    import segno

    from tidegate.runtime.console.users import UserError, Users

    try:
        known = Users(paths.private_folder(place.state / "console", 0o700)).all()
        if user and user not in known:
            fail(f"no login {user!r}; there are: {', '.join(known) or 'none'}", EXIT_USAGE)
        if not any(one.role == "maintain" for name, one in known.items() if name != user) and role != "maintain":
            fail(
                "the first login must have the role maintain, since only it makes others later: --role maintain",
                EXIT_USAGE,
            )
        folder = web_process.folder_of(place.state)
        code = pairing.Pairing(folder).make(role, user)
    except UserError as why:
        fail(why, EXIT_CONTENT)
    except OSError as why:
        fail(why, EXIT_CANNOT_WRITE)
    held = certificates.held(folder)
    host = next((one for one in (held.names if held else ()) if one not in ("localhost", "127.0.0.1")), "ADDRESS")
    address = f"{url.rstrip('/') or f'https://{host}:{PORT}'}/#pair={code}"
    if not no_qr:
        segno.make(address, error="m").terminal(compact=True)
    click.echo(f"code {pairing.shown(code)}, role {role}, for 10 minutes")
    click.echo(f"open {address}")
    if held:
        click.echo(f"the browser asks about the certificate once; its authority's SHA-256 is {held.sha256}")


@web.command()
@click.argument("name")
@click.option("--role", type=roles, default="read", show_default=True)
@click.pass_obj
def grant(place: Place, name: str, role: str) -> None:
    """A bearer token for a program that uses the REST API; it is shown this once."""
    place.find()
    web_process, tokens = (
        need("tidegate.runtime.web.web_process", "web"),
        need("tidegate.runtime.web.access_tokens", "web"),
    )
    try:
        token = tokens.grant(web_process.folder_of(place.state) / "tokens.json", name, role)
    except tokens.TokenError as why:
        fail(why, EXIT_CONTENT)
    except OSError as why:
        fail(why, EXIT_CANNOT_WRITE)
    click.echo(token)
    click.echo(f"{name}: {role}; send it as `Authorization: Bearer TOKEN`; it is kept nowhere", err=True)


@web.command("list")
@click.pass_obj
def list_(place: Place) -> None:
    """Logins and tokens with their roles."""
    place.find()
    web_process, tokens = (
        need("tidegate.runtime.web.web_process", "web"),
        need("tidegate.runtime.web.access_tokens", "web"),
    )
    from tidegate.runtime.console.users import UserError, Users

    try:
        users = Users(paths.private_folder(place.state / "console", 0o700)).all()
        held = tokens.read(web_process.folder_of(place.state) / "tokens.json")
    except (UserError, tokens.TokenError, OSError) as why:
        fail(why, EXIT_CONTENT)
    for user in users.values():
        click.echo(f"login  {user.name:<16}  {user.role}")
    for one in held.values():
        click.echo(f"token  {one.name:<16}  {one.role}")


@web.command()
@click.argument("name")
@click.option("--login", is_flag=True, help="A login rather than a token.")
@click.pass_obj
def revoke(place: Place, name: str, login: bool) -> None:
    """Take a token, or with --login a login; what it has open ends within seconds."""
    place.find()
    web_process, tokens = (
        need("tidegate.runtime.web.web_process", "web"),
        need("tidegate.runtime.web.access_tokens", "web"),
    )
    from tidegate.runtime.console.users import UserError, Users

    try:
        if login:
            Users(paths.private_folder(place.state / "console", 0o700)).remove(name)
        else:
            tokens.revoke(web_process.folder_of(place.state) / "tokens.json", name)
    except (UserError, tokens.TokenError) as why:
        fail(why, EXIT_CONTENT)
    except OSError as why:
        fail(why, EXIT_CANNOT_WRITE)
    click.echo(f"{name}: revoked")
