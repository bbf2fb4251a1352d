"""`tidegate simulate`: a simulated cabinet behind ptys, for `tidegate init`, tools and foreign controllers."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import click

from tidegate.config.site import SiteError
from tidegate.runtime.cli.common import refuse_site
from tidegate.runtime.supervisor.preflight import prepare

EXAMPLE = "sites/simulated.toml"


@click.command()
@click.argument("site", required=False, type=click.Path(path_type=Path))
@click.option("--at", "folder", type=click.Path(path_type=Path, file_okay=False), default=Path("cabinet"),
              show_default=True, help="Folder that gets one link a bus.")  # fmt: skip
def simulate(site: Path | None, folder: Path) -> None:
    """Simulate the plant of SITE (without one: a cabinet, its converter and a grid meter) until Ctrl-C.

    Serial buses appear as ptys, TCP buses as ports of this machine, CAN buses as SLCAN adapters on ptys. No site is
    run: this is what a site talks to.
    """
    path = site or Path(str(files("tidegate.config").joinpath(EXAMPLE)))
    try:
        loaded, blob = prepare(path, accounts=False)
    except SiteError as error:
        refuse_site(error)
    words = [word for row in loaded.tcp for word in ("--tcp", f"{row.name}=listen")]
    words += [word for row in loaded.serial for word in ("--serial", f"{row.name}=pty")]
    words += [word for row in loaded.can for word in ("--can", f"{row.name}=slcan")]
    sys.exit(_run(["--site", str(path), "--links", str(folder), "--true-hz", "0", *words], blob, folder))


def _run(words: list[str], blob: bytes, folder: Path) -> int:
    program = os.memfd_create("tidegate-program", 0)
    os.write(program, blob)
    plant = subprocess.Popen(
        [sys.executable, "-m", "tidegate.hal.sim", "--program-fd", str(program), *words],
        pass_fds=[program],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C comes to us, and from here to the plant
    )
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True
        with contextlib.suppress(ProcessLookupError):
            plant.send_signal(signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    assert plant.stdout is not None
    for line in plant.stdout:
        said = json.loads(line)
        if said["kind"] == "ready":
            click.echo(f"simulated cabinet, process {said['sim']}; end it with Ctrl-C")
            for name, where in said["ptys"].items():
                click.echo(f"  {folder / name} -> {where}")
            for name, where in said["tcp"].items():
                click.echo(f"  {name}: Modbus TCP at {where}")
            sys.stdout.flush()
    code = plant.wait()
    return 0 if ended else code or 1
