"""`tidegate check` and `tidegate run`: one site file, looked at or started."""

import signal
import sys
from pathlib import Path

import click

from tidegate.runtime.cli.common import EXIT_BUSY, EXIT_SOFTWARE, fail, refuse_site


@click.command()
@click.argument("site", type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="What is unlikely is an error too.")
def check(site: Path, strict: bool) -> None:
    """Check a site file; say what is wrong, what is unlikely, or what it would do."""
    from tidegate.config.site import EXIT_PLAN, SiteError
    from tidegate.config.summary import summary
    from tidegate.config.unlikely import unlikely
    from tidegate.runtime.supervisor.preflight import prepare

    try:
        loaded, blob = prepare(site)
        doubtful = unlikely(loaded)
        if strict and doubtful:
            raise SiteError(str(site), doubtful, EXIT_PLAN)
    except SiteError as error:
        refuse_site(error)
    for line in summary(blob):
        click.echo(line)
    for line in doubtful:
        click.echo(f"warning: {line}")
    click.echo(f"{site}: good" + (f", {len(doubtful)} unlikely; see the warnings" if doubtful else ""))


@click.command()
@click.argument("site", type=click.Path(path_type=Path))
@click.option("--state-dir", type=click.Path(path_type=Path), help="Folder for journal and ledger.")
@click.option("--no-carbon", is_flag=True, help="Without the carbon sidecar.")
@click.option("--cpu", type=int, help="Pin the loop to this CPU.")
def run(site: Path, state_dir: Path | None, no_carbon: bool, cpu: int | None) -> None:
    """Run a site: core, gateway and carbon sidecar, until Ctrl-C or SIGTERM."""
    # Until the supervisor has handlers of its own nothing is started, and a KeyboardInterrupt that rises inside an
    # import may be swallowed there ("Exception ignored in ..."): then nobody would end this run.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from tidegate.config.site import SiteError
    from tidegate.runtime.state.paths import SiteBusy
    from tidegate.runtime.supervisor import site_run
    from tidegate.runtime.supervisor.supervisor import StartError

    words = ["--cpu", str(cpu)] if cpu is not None else []
    try:
        sys.exit(site_run.run(str(site), state=state_dir, sidecar=not no_carbon, core_words=words))
    except SiteError as error:
        refuse_site(error)
    except SiteBusy as error:
        fail(error, EXIT_BUSY)
    except (StartError, OSError) as error:
        fail(error, EXIT_SOFTWARE)
