"""What a person asks of a hub: `tidegate hub report`, `hub place`, `hub letters`."""

import asyncio
import getpass
import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidegate.runtime.cli.common import EXIT_UNUSABLE, EXIT_USAGE, fail, need

if TYPE_CHECKING:
    from tidegate.runtime.fleet.hub.hub_letters import Letter
    from tidegate.runtime.fleet.hub.hub_store import HubStore

FOLDER = click.option(
    "--folder", type=click.Path(path_type=Path), default=Path("hub"), show_default=True, help="The hub's folder."
)


def opened(folder: Path) -> "HubStore":
    """The store of a hub's folder; ends the program where there is none."""
    from tidegate.runtime.carbon.ledger.store import LedgerError
    from tidegate.runtime.fleet.hub.hub_store import HubStore
    from tidegate.runtime.fleet.invitation import HubError

    try:
        return HubStore(json.loads((folder / "hub.json").read_text())["database"])
    except FileNotFoundError:
        fail(f"{folder}: no hub there; first: tidegate hub init --folder {folder} --database URL", EXIT_UNUSABLE)
    except (OSError, ValueError, KeyError, TypeError, HubError, LedgerError) as why:
        fail(f"{folder}: {why}", EXIT_UNUSABLE, "tidegate hub")


@click.command("place")
@click.argument("site")
@FOLDER
@click.option("--owner", help="Whose site it is, as the report groups it.")
@click.option("--region", help="Its region, as the report groups it.")
@click.option("--at", metavar="LAT,LON", help="Where it stands, degrees: 59.33,18.07.")
def place(site: str, folder: Path, owner: str | None, region: str | None, at: str | None) -> None:
    """Whose SITE is and where it stands, for report and map. What is not given stays."""
    from tidegate.runtime.carbon.integers import to_whole
    from tidegate.runtime.fleet.invitation import HubError

    latitude = longitude = None
    if at is not None:
        try:
            latitude, longitude = (to_whole(part.strip(), 1_000_000) for part in at.split(","))
        except (ValueError, ArithmeticError):
            fail(f"--at {at}: expected LAT,LON in degrees, as 59.33,18.07", EXIT_USAGE, "tidegate hub")
    try:
        opened(folder).place(site, owner, region, latitude, longitude)
    except HubError as why:
        fail(why, EXIT_UNUSABLE, "tidegate hub")
    click.echo(f"{site}: noted")


@click.command("report")
@FOLDER
@click.option("--span", help="2026-11 (a month), 2026-11-02 (a day), 2026; UTC.")
@click.option("--from", "start", help="UTC, 2026-11-01T00:00Z; with --to in place of --span.")
@click.option("--to", "end", help="UTC.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("fleet-report"), show_default=True)
@click.option("--parquet", type=click.Path(path_type=Path), help="Also the rows of the span, for DuckDB and Spark.")
@click.option("--check", is_flag=True, help="Also make it with DuckDB from the Parquet files, and compare.")
def report(
    folder: Path, span: str | None, start: str | None, end: str | None, out: Path, parquet: Path | None, check: bool
) -> None:
    """The account of all sites over a span, in whole numbers: fleet-report.json, .csv and .html in OUT."""
    from tidegate.runtime.carbon.report.write import span_between
    from tidegate.runtime.fleet.hub.fleet_report import ReportProblem, make_report

    if check and parquet is None:
        fail("--check compares with --parquet FOLDER; give both", EXIT_USAGE, "tidegate hub")
    try:
        first, last = span_between(span, start, end)
    except ValueError as why:
        fail(why, EXIT_USAGE, "tidegate hub")
    try:
        document, paths = make_report(opened(folder), first, last, out, parquet, check)
    except (ReportProblem, OSError) as why:
        fail(why, EXIT_UNUSABLE, "tidegate hub")
    for path in paths:
        click.echo(path)
    named = [document[key] for key in ("absent", "not_whole")]
    count = sum(len(rows) for rows in named if isinstance(rows, list))
    agrees = ", DuckDB agrees" if check else ""
    whole = f"{document['sites_in_it']} of {document['sites_enrolled']} sites"
    click.echo(f"{whole}; {count} are not whole, and named in it{agrees}")


@click.command("letters")
@FOLDER
@click.option("--show", type=int, metavar="ID", help="The entries in a letter, and which of them it is about.")
@click.option("--replay", type=int, metavar="ID", help="Put it through the checks again, as after a key was enrolled.")
@click.option("--close", "number", type=int, metavar="ID", help="Take it away; with --by and --reason, which stay.")
@click.option("--by", default="", help="Who closes it.")
@click.option("--reason", default="", help="Why.")
def letters(folder: Path, show: int | None, replay: int | None, number: int | None, by: str, reason: str) -> None:
    """What was not taken, newest first: number, site, entry, why, how often."""
    from tidegate.runtime.fleet.invitation import HubError

    store = opened(folder)
    try:
        if show is not None:
            _show(*store.letter(show))
        elif replay is not None:
            finding = store.replay(replay, by or getpass.getuser())
            if finding is not None:
                fail(f"letter {replay}: still {finding}", EXIT_UNUSABLE, "tidegate hub")
            click.echo(f"letter {replay}: taken; closed")
        elif number is not None:
            store.close_letter(number, by, reason)
            click.echo(f"letter {number}: closed")
        else:
            for one in store.letters():
                when = time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(one.last_utc_s))
                kept = "" if one.whole else ", message not kept whole"
                where = f"{one.site} entry {one.seq}" if one.seq >= 0 else one.site
                click.echo(f"{one.id}: {when} {where}: {one.kind}: {one.what} ({one.times} times{kept})")
    except HubError as why:
        fail(why, EXIT_UNUSABLE, "tidegate hub")


def _show(letter: "Letter", message: bytes) -> None:
    """A letter's entries, a line each."""
    from tidegate.runtime.fleet.ledger_batch import BatchError, unpack

    click.echo(f"{letter.site}: {letter.kind}: {letter.what}; {letter.size} bytes, came {letter.times} times")
    try:
        batch = unpack(message)
    except BatchError as why:
        click.echo(f"its message cannot be read: {why}")
        return
    for row in batch.rows:
        mark = "->" if row.seq == letter.seq else "  "
        body = "".join(char if char.isprintable() else "?" for char in row.body[:100])
        click.echo(f"{mark} {row.seq} {row.kind} {row.start_utc_s} {body}")


@click.command("page")
@FOLDER
@click.option("--listen", default="127.0.0.1", show_default=True, help="Address; 0.0.0.0 is every one of this machine.")
@click.option("--port", type=click.IntRange(0, 65535), default=8444, show_default=True)
@click.option("--name", "names", multiple=True, help="A name or address that the hub is reached by; may be repeated.")
def page(folder: Path, listen: str, port: int, names: tuple[str, ...]) -> None:
    """Serve the page of the whole fleet until Ctrl-C. It only reads."""
    module = need("tidegate.runtime.web.fleet_page", "web")
    from tidegate.runtime.web.certificates import CertificateError, Certificates

    logging.basicConfig(level=logging.WARNING, format="tidegate: %(message)s")
    store = opened(folder)

    def started(made: Certificates, at: int) -> None:
        hosts = [listen] if listen not in ("0.0.0.0", "::") else [one for one in made.names if one != "localhost"]
        click.echo("the page of the fleet at " + ", ".join(f"https://{host}:{at}" for host in hosts))
        click.echo(f"its authority's SHA-256 {made.sha256}")
        click.echo(f"a login: tidegate hub pair --folder {folder}")

    try:
        asyncio.run(module.serve_fleet(module.FleetServed(folder, listen, port, names), store, started))
    except CertificateError as why:
        fail(why, EXIT_UNUSABLE)
    except OSError as why:
        fail(f"{listen}:{port}: {why.strerror or why}", EXIT_UNUSABLE)


@click.command("forget")
@FOLDER
@click.option("--before", required=True, metavar="MONTH", help="2026-01: months that end before it are dropped.")
def forget(folder: Path, before: str) -> None:
    """Drop events and minutes of old months. The ledger stays, always."""
    from tidegate.runtime.carbon.report.local_time import span_of

    try:
        start, _ = span_of(before, "UTC")
    except ValueError as why:
        fail(f"--before {before}: {why}", EXIT_USAGE, "tidegate hub")
    gone = opened(folder).forget_before(start)
    click.echo(f"{', '.join(gone)}: dropped" if gone else "nothing is that old")


@click.command("pair")
@FOLDER
@click.option("--user", default="", help="Give a login that exists a new password.")
def pair(folder: Path, user: str) -> None:
    """A code, good once and for ten minutes, with which somebody makes a login at the fleet's page."""
    module = need("tidegate.runtime.web.fleet_page", "web")
    codes = need("tidegate.runtime.web.login_codes", "web")
    opened(folder).close()
    try:
        code = codes.Pairing(module.web_folder(folder)).make("maintain", user)  # all of them only read
    except OSError as why:
        fail(why, EXIT_UNUSABLE)
    click.echo(f"code {codes.shown(code)} for 10 minutes; open the page at /#pair={code}")


def add_to(hub: click.Group) -> None:
    """The commands of this file, among those of `tidegate hub`."""
    for one in (place, report, letters, page, pair, forget):
        hub.add_command(one)
