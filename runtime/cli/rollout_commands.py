"""Site files signed by their owner, in rings: `tidegate fleet sign-site|apply|take` and `tidegate hub rollout`."""

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidegate.runtime.cli.common import EXIT_REFUSED, EXIT_SOFTWARE, EXIT_UNUSABLE, fail
from tidegate.runtime.cli.limit_commands import HUB_FOLDER, broker_of, stop_event

if TYPE_CHECKING:
    from tidegate.runtime.fleet.unit.gated_apply import GatedApply


class RunningSite:
    """The site that runs on this machine, for `gated_apply`."""

    def __init__(self, site: str) -> None:
        self.site = site

    def why(self) -> Mapping[str, object]:
        """Raises ClientError."""
        from tidegate.runtime.api.blocking_client import Client

        with Client(site=self.site, timeout_s=5.0) as client:
            return client.why()

    def alarms(self) -> set[str]:
        """Active and latched faults, by unit. Raises ClientError."""
        from tidegate.runtime.api.blocking_client import Client

        with Client(site=self.site, timeout_s=5.0) as client:
            rows = client.ask("alarms")["alarms"]
        return {f"{one['id']} {one['unit']}".strip() for one in rows}

    def restart(self) -> None:
        """Raises ReleaseError."""
        from tidegate.runtime.fleet.signed_site import ReleaseError

        words = [sys.executable, "-m", "tidegate.runtime.cli", "restart", self.site]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=600)
        except subprocess.TimeoutExpired:
            raise ReleaseError("the site did not start anew within 10 minutes") from None
        if done.returncode:
            raise ReleaseError((done.stderr or done.stdout).strip()[-300:])


def _gate(site_file: Path) -> "GatedApply":
    from tidegate.runtime.console.users import Seat
    from tidegate.runtime.fleet.signed_site import ReleaseError, site_name
    from tidegate.runtime.fleet.unit.gated_apply import GatedApply
    from tidegate.runtime.state import paths

    site = site_name(site_file.read_text("utf-8"))
    if not site:
        raise ReleaseError(f"{site_file}: no site file")
    return GatedApply(
        site_file, RunningSite(site), Seat(paths.state_dir(site)), lambda text: click.echo(f"fleet: {text}")
    )


@click.command("sign-site")
@click.argument("site_file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--key", type=click.Path(path_type=Path), required=True, help="The owner's key; made there if it is none."
)
@click.option("--number", type=click.IntRange(1), required=True, help="Of this release; it rises for each site.")
@click.option("--map", "maps", type=click.Path(path_type=Path, exists=True, dir_okay=False), multiple=True,
              help="A device map that lies beside the site file; one that changes gets another name.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), required=True)
def sign_site(site_file: Path, key: Path, number: int, maps: tuple[Path, ...], out: Path) -> None:
    """Sign a site file with its device maps, as its owner; prints the public key that units check it by."""
    from tidegate.runtime.fleet.signed_site import ReleaseError, SignedSite, site_name
    from tidegate.runtime.state.device_key import DeviceKey, KeyFileError

    try:
        text, owner = site_file.read_text("utf-8"), DeviceKey.at(key)
        release = SignedSite(site_name(text), number, text, {one.name: one.read_text("utf-8") for one in maps})
        data = release.signed(owner)
        SignedSite.read(data, owner.public)
        out.write_bytes(data)
    except (ReleaseError, KeyFileError, OSError, UnicodeDecodeError) as why:
        fail(why, EXIT_UNUSABLE, "tidegate fleet")
    click.echo(owner.public)


OWNER = click.option(
    "--owner", required=True, help="Public key of whoever signs this site's files: sign-site prints it."
)
SITE_FILE = click.option("--site-file", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True,
                         help="The file that the site runs with.")  # fmt: skip


@click.command("apply")
@click.argument("release", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@OWNER
@SITE_FILE
def apply(release: Path, owner: str, site_file: Path) -> None:
    """Put a signed site file in force at rest; where the site is not well under it, the file of before comes back."""
    from tidegate.config.site import SiteError
    from tidegate.runtime.api.connection import ClientError
    from tidegate.runtime.fleet.signed_site import ReleaseError, SignedSite

    try:
        _gate(site_file).apply(SignedSite.read(release.read_bytes(), owner))
    except (ReleaseError, SiteError, ClientError, OSError, UnicodeDecodeError) as why:
        fail(why, EXIT_REFUSED, "tidegate fleet")


@click.command("take")
@click.argument("invitation", type=click.Path(path_type=Path, exists=True))
@OWNER
@SITE_FILE
def take(invitation: Path, owner: str, site_file: Path) -> None:
    """Ask the hub for signed site files, and put them in force in their ring; until Ctrl-C."""
    import nats.errors

    from tidegate.runtime.fleet.invitation import HubError, Invitation
    from tidegate.runtime.fleet.signed_site import ReleaseError
    from tidegate.runtime.fleet.unit.release_taker import ReleaseTaker

    async def serve() -> None:
        stop = stop_event()
        taker = ReleaseTaker(_gate(site_file), Invitation.read(invitation), owner)
        opening = asyncio.create_task(taker.open())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({opening, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            opening.result()
            await taker.run(stop)
            await taker.close()

    try:
        asyncio.run(serve())
    except (HubError, ReleaseError) as why:
        fail(why, EXIT_UNUSABLE, "tidegate fleet")
    except (nats.errors.Error, OSError, UnicodeDecodeError) as why:
        fail(why, EXIT_SOFTWARE, "tidegate fleet")


@click.command("rollout")
@click.argument("releases", type=click.Path(path_type=Path, exists=True, file_okay=False))
@HUB_FOLDER
@OWNER
@click.option(
    "--ring", "rings", metavar="SITE,SITE", multiple=True, required=True, help="Once for each, first the canary."
)
@click.option("--soak", type=click.FloatRange(0), default=3600.0, show_default=True,
              help="Seconds that a ring must be well before the next one opens.")  # fmt: skip
def rollout(releases: Path, folder: Path, owner: str, rings: tuple[str, ...], soak: float) -> None:
    """Hand the signed files of RELEASES to their sites ring by ring; one failure halts all. Until Ctrl-C."""
    import time

    import nats.errors

    from tidegate.runtime.fleet.hub.ring_rollout import ReleaseDesk, Rollout
    from tidegate.runtime.fleet.invitation import HubError
    from tidegate.runtime.fleet.signed_site import ReleaseError, SignedSite

    async def serve() -> None:
        stop, files, numbers = stop_event(), {}, {}
        for path in sorted(releases.iterdir()):
            if path.is_file():
                data = path.read_bytes()
                made = SignedSite.read(data, owner)
                if made.site in files:
                    raise ReleaseError(f"{path}: a second release of {made.site}")
                files[made.site], numbers[made.site] = data, made.number
        named = [[site.strip() for site in ring.split(",") if site.strip()] for ring in rings]
        plan = Rollout(named, {site: numbers[site] for ring in named for site in ring if site in numbers}, soak)
        desk = ReleaseDesk(broker_of(folder), plan, files)
        await desk.open()
        told = ""
        while not stop.is_set():
            line = plan.line(time.monotonic())
            if line != told:
                print(f"rollout: {line}", flush=True)
                told = line
            await asyncio.wait({asyncio.create_task(stop.wait())}, timeout=1.0)
        await desk.close()

    try:
        asyncio.run(serve())
    except (HubError, ReleaseError, nats.errors.Error, OSError, ValueError, KeyError) as why:
        fail(why, EXIT_UNUSABLE, "tidegate hub")


def add_to(hub: click.Group, fleet: click.Group) -> None:
    """These commands, where they belong."""
    hub.add_command(rollout)
    for one in (sign_site, apply, take):
        fleet.add_command(one)
