"""`tidegate replay-bus`: somebody's capture of a bus against a site's maps."""

import json
import sys
from pathlib import Path

import click

from tidegate.runtime.cli.common import fail
from tidegate.runtime.cli.device_commands import site_and_maps
from tidegate.runtime.tools.captures import CaptureError, read_capture
from tidegate.runtime.tools.replay_bus import Replay, ReplayError, Told

EXIT_CAPTURE = 65


@click.command("replay-bus")
@click.argument("capture", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--site", type=click.Path(path_type=Path), required=True, help="Site file with the devices.")
@click.option("--bus", default="", help="Bus that the capture is of; needed where the site has several of a kind.")
@click.option("--quiet", is_flag=True, help="Print nothing but the summary.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a frame.")
def replay_bus(capture: Path, site: Path, bus: str, quiet: bool, as_json: bool) -> None:
    """Play CAPTURE (candump, pcap, pcapng, RTU bytes as text) against a site: what did each frame become?

    Nothing is sent and no site needs to run. Exit code 1: no frame was of a device of the site.
    """
    loaded, maps = site_and_maps(site)
    try:
        replay = Replay(loaded, maps, bus)
        for told in replay.play(read_capture(capture)):
            if as_json:
                click.echo(json.dumps({**told.__dict__, "data": told.data.hex()}))
            elif not quiet:
                click.echo(_line(told))
    except (CaptureError, OSError) as error:
        fail(f"{capture}: {error}", EXIT_CAPTURE)
    except ReplayError as error:
        fail(error, 2)
    if not as_json:
        for line in replay.summary():
            click.echo(line)
    if not any(replay.seen.values()):
        sys.exit(1)


def _line(told: Told) -> str:
    values = ", ".join(f"{key} {'invalid' if value is None else f'{value:g}'}" for key, value in told.values.items())
    return f"{told.t_s:.6f} {told.bus} {told.who:12} {told.what}" + (f": {values}" if values else "")
