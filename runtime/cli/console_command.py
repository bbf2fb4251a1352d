"""`tidegate console`: what a technician sees on the serial line, in this terminal."""

import os
import sys
from pathlib import Path

import click

from tidegate.runtime.cli.common import EXIT_UNAVAILABLE, fail


@click.command()
@click.option("--site", "-s", help="Name of the site on this machine; not needed where only one runs.")
@click.option("--site-file", type=click.Path(path_type=Path), help="Its site file, for the config commands.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="As given to `tidegate run`.")
def console(site: str | None, site_file: Path | None, state_dir: Path | None) -> None:
    """Log in and look, test, stop: docs/console.md. Ctrl-D or exit leaves."""
    from tidegate.runtime.api.blocking_client import ClientError, find_endpoint
    from tidegate.runtime.state.paths import state_dir as state_of

    try:
        endpoint = find_endpoint(site)
    except ClientError as why:
        fail(why.text, EXIT_UNAVAILABLE)
    name = endpoint.rsplit("/", 1)[-1]
    words = ["--endpoint", endpoint, "--state-dir", str(state_of(name, state_dir))]
    if site_file is not None:
        words += ["--site", str(site_file)]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "tidegate.runtime.console", *words])
