"""`tidegate audit`: is the trail of orders whole, who vouches for it, and where does it go?"""

from pathlib import Path

import click

from tidegate.runtime.cli.common import EXIT_UNUSABLE, fail

JOURNAL = click.argument("journal", type=click.Path(path_type=Path, exists=True, file_okay=False))
PEM = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def audit() -> None:
    """The audit trail: verify, export, anchor. JOURNAL is the folder `journal` of a site's state."""


@audit.command()
@JOURNAL
@click.option(
    "--authority", type=PEM, help="Root certificates of the time-stamping authority; without it no anchor is checked."
)
def verify(journal: Path, authority: Path | None) -> None:
    """Make every link of the chain anew and check the anchors. Exit 1: something is not as it was written."""
    from tidegate.runtime.audit.anchors import check
    from tidegate.runtime.audit.chain import read_chain

    try:
        chain = read_chain(journal)
        good, findings = check(journal, chain, authority) if authority is not None else ([], [])
    except OSError as why:
        fail(f"audit: {why}", EXIT_UNUSABLE)
    for text in good:
        click.echo(f"good: {text}")
    for text in [*chain.findings, *findings]:
        click.echo(f"BAD: {text}")
    begins = f", from segment {chain.first_segment} on" if chain.first_segment else ""
    click.echo(f"{len(chain.links)} events{begins}, end of the chain {chain.end.hex() or 'none'}")
    if not good:
        click.echo("no anchor was checked: a tail that was cut off would not be seen")
    if chain.findings or findings:
        raise SystemExit(1)


@audit.command()
@JOURNAL
def anchor(journal: Path) -> None:
    """Write a time-stamp request (RFC 3161) for the chain's end. The answer belongs beside it, named .tsr."""
    from tidegate.runtime.audit.anchors import request
    from tidegate.runtime.audit.chain import read_chain

    try:
        path = request(journal, read_chain(journal))
    except (OSError, ValueError) as why:
        fail(f"audit: {why}", EXIT_UNUSABLE)
    click.echo(f"{path}; keep the authority's answer as {path.with_suffix('.tsr').name}")


@audit.command()
@JOURNAL
@click.option("--out", type=click.Path(path_type=Path), help="A file; - is the terminal.")
@click.option("--tls", metavar="HOST:PORT", help="A syslog receiver (RFC 5425).")
@click.option("--authority", type=PEM, help="Who signed the receiver's certificate.")
@click.option("--client", type=PEM, help="An own certificate with its key.")
@click.option("--site", default="site", help="Name of the site in each line.")
def export(
    journal: Path, out: Path | None, tls: str | None, authority: Path | None, client: Path | None, site: str
) -> None:
    """Give all events as syslog lines (RFC 5424), to a file or a receiver. Exit 1: the chain is broken; all is sent."""
    from tidegate.runtime.audit.chain import read_chain
    from tidegate.runtime.audit.syslog import lines, send

    if (out is None) == (tls is None) or (tls is not None and authority is None):
        raise click.UsageError("either --out FILE, or --tls HOST:PORT with --authority")
    try:
        chain = read_chain(journal)
        if out is not None:
            with click.open_file(str(out), "wb") as file:
                file.writelines(text + b"\n" for text in lines(chain.links, site))
        elif tls is not None and authority is not None:
            host, _, port = tls.rpartition(":")
            if not host or not port.isdigit():
                raise click.UsageError(f"--tls {tls}: HOST:PORT expected")
            send(lines(chain.links, site), (host, int(port)), authority, client)
    except OSError as why:
        fail(f"audit: {why}", EXIT_UNUSABLE)
    click.echo(f"{len(chain.links)} events", err=True)
    for text in chain.findings:
        click.echo(f"BAD: {text}", err=True)
    if chain.findings:
        raise SystemExit(1)
