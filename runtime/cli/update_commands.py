"""`tidegate update`: a signed release onto this machine, with the battery at 0 W, and back."""

import contextlib
from pathlib import Path

import click

from tidegate.runtime.cli.common import EXIT_CONTENT, EXIT_SOFTWARE, fail
from tidegate.runtime.update import debian_system
from tidegate.runtime.update.apply import apply as put_on
from tidegate.runtime.update.apply import roll_back
from tidegate.runtime.update.release import UpdateError, newer, package_for

COMMAND = "tidegate update"
RELEASE_KEY = Path("/etc/tidegate/release.pub.pem")
FOLDER = click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
PUBLIC = click.option(
    "--public",
    type=click.Path(path_type=Path),
    default=RELEASE_KEY,
    show_default=True,
    help="Whose releases are taken.",
)


def told(text: str) -> None:
    """A line for whoever looks on; that nobody does any more changes nothing."""
    with contextlib.suppress(OSError):
        click.echo(text)


@click.group()
def update() -> None:
    """Check, apply or take back a release of Tidegate that lies in a folder, such as that of a USB stick."""


@update.command("check")
@FOLDER
@PUBLIC
def check(folder: Path, public: Path) -> None:
    """Is the release in FOLDER signed, whole, and newer than what is installed? Changes nothing."""
    try:
        found, old = package_for(folder, public, debian_system.architecture()), debian_system.installed()
        if old is None:
            click.echo(f"{found.version} is signed and whole; this machine has no Debian package of Tidegate")
        elif newer(found.version, old):
            click.echo(f"{found.version} is signed and newer than {old}; next: tidegate update apply {folder}")
        else:
            click.echo(f"{found.version} is signed, and {old} is installed: nothing to do")
    except UpdateError as error:
        fail(error, EXIT_CONTENT, COMMAND)


@update.command("apply")
@FOLDER
@PUBLIC
@click.option("--previous", type=click.Path(path_type=Path, exists=True), help="Package of the installed release.")
def apply(folder: Path, public: Path, previous: Path | None) -> None:
    """Put the release in FOLDER on: sites go to 0 W and end, start again under it, and go back if they are not well.

    The way back is on the disk before anything is changed, so a power cut in between ends in the release of before.
    """
    try:
        found = package_for(folder, public, debian_system.architecture())
        put_on(found, previous, told)
    except UpdateError as error:
        fail(error, EXIT_SOFTWARE, COMMAND)
    click.echo(f"{found.version} is installed and every site that ran is well")


@update.command("rollback")
def rollback() -> None:
    """Put the release back that the last update replaced."""
    try:
        version = roll_back(told)
    except UpdateError as error:
        fail(error, EXIT_SOFTWARE, COMMAND)
    click.echo(f"{version} is installed again and every site that ran is well")
