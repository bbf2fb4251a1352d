"""`tidegate carbon meter` and `tidegate carbon key`: what was replaced at a site, said once and signed."""

from pathlib import Path

import click

from tidegate.runtime.cli.common import EXIT_CONTENT, EXIT_UNUSABLE, fail

COMMAND = "tidegate carbon meter"
AUTHOR = click.option("--author", required=True, help="Who says so.")
REASON = click.option("--reason", required=True, help="Why; it stands in the ledger.")


@click.group()
def meter() -> None:
    """Say that a meter was replaced, or where its register begins at 0 again."""


@meter.command()
@click.argument("ledger")
@click.argument("name")
@click.option("--at", required=True, help="When, like 2026-03-14T10:20Z.")
@click.option("--closing", required=True, help="Last reading of the old meter.")
@click.option("--opening", required=True, help="First reading of the new meter.")
@click.option("--quantity", default="", help="Of a meter that comes by file: water, heat-reused, ...")
@click.option("--unit", default="kWh", show_default=True, help="Of both readings: kWh, MWh, m3, L.")
@AUTHOR
@REASON
def exchange(ledger: str, name: str, at: str, closing: str, opening: str, quantity: str, unit: str, author: str,
             reason: str) -> None:  # fmt: skip
    """The meter NAME of LEDGER was replaced: a flow like grid.import, or, with --quantity, one that comes by file.

    Stop the sidecar before, start it after.
    """
    from tidegate.runtime.carbon.engine.corrections import CorrectionError
    from tidegate.runtime.carbon.factors.series import FactorError, parse_time
    from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError
    from tidegate.runtime.carbon.readings.changes import exchanged, record_change
    from tidegate.runtime.carbon.readings.readings import scaled

    try:
        utc_s = parse_time(at, "--at")
        book = Ledger(ledger)
        if quantity:
            record_change(book, "exchange", name, quantity, unit, closing, opening, utc_s, author, reason)
            click.echo(f"{name}: its readings go on over the replacement")
            return
        closed = scaled(closing, "energy-import", unit, "--closing")
        opened = scaled(opening, "energy-import", unit, "--opening")
        done = exchanged(book, name, utc_s, closed, opened, author, reason)
        click.echo(f"{done.periods} periods booked anew")
    except LedgerError as error:
        fail(error, EXIT_UNUSABLE, COMMAND)
    except (CorrectionError, FactorError, ValueError) as error:
        fail(error, EXIT_CONTENT, COMMAND)


@meter.command("range")
@click.argument("ledger")
@click.argument("name")
@click.option("--end", required=True, help="Where the register begins at 0 again, like 100000 for five digits.")
@click.option("--quantity", required=True, help="water, heat-reused, ...; of a flow: [carbon] register_range_kwh.")
@click.option("--unit", default="kWh", show_default=True)
@AUTHOR
@REASON
def range_(ledger: str, name: str, end: str, quantity: str, unit: str, author: str, reason: str) -> None:
    """The register of the meter NAME, which comes by file, begins at 0 again behind its last digit."""
    from tidegate.runtime.carbon.factors.series import FactorError
    from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError
    from tidegate.runtime.carbon.readings.changes import record_change

    try:
        record_change(Ledger(ledger), "range", name, quantity, unit, end, "0", 0, author, reason)
    except LedgerError as error:
        fail(error, EXIT_UNUSABLE, COMMAND)
    except (FactorError, ValueError) as error:
        fail(error, EXIT_CONTENT, COMMAND)
    click.echo(f"{name}: begins at 0 again at {end} {unit}")


@click.command()
@click.argument("ledger")
@click.option("--anchors", type=click.Path(path_type=Path, exists=True), help="Anchor lines kept elsewhere.")
@AUTHOR
@REASON
def restored(ledger: str, anchors: Path | None, author: str, reason: str) -> None:
    """LEDGER was put back from a backup. Say so before the sidecar runs on it; what was anchored behind it is lost."""
    from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError
    from tidegate.runtime.carbon.ledger.signing import read_anchors
    from tidegate.runtime.carbon.ledger.signing import restored as note_restored

    try:
        lines = anchors.read_text("utf-8").splitlines() if anchors else []
        body = note_restored(Ledger(ledger), author, reason, read_anchors(lines, anchors.name if anchors else ""))
    except (LedgerError, UnicodeDecodeError) as error:
        fail(error, EXIT_UNUSABLE, "tidegate carbon restored")
    click.echo(f"noted; {len(body['lost'])} anchored entries are lost, the journal's records are booked again")


@click.command()
@click.argument("ledger")
@click.option("--to", "new", required=True, help="The site's name now, as in its site file.")
@AUTHOR
@REASON
def rename(ledger: str, new: str, author: str, reason: str) -> None:
    """The site of LEDGER is called otherwise from here on. Stop the sidecar before, start it after."""
    from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError
    from tidegate.runtime.carbon.ledger.signing import rename as note_renamed

    try:
        body = note_renamed(Ledger(ledger), new, author, reason)
    except LedgerError as error:
        fail(error, EXIT_UNUSABLE, "tidegate carbon rename")
    click.echo(f"noted; the ledger of {body['old']!r} goes on as that of {body['new']!r}")


@click.command()
@click.argument("ledger")
def sites(ledger: str) -> None:
    """The sites whose ledgers lie in the database LEDGER: entries, and the end of the last period of each."""
    from tidegate.runtime.carbon.factors.series import iso
    from tidegate.runtime.carbon.ledger.ledger import LedgerError, ledgers_in

    try:
        rows = list(ledgers_in(ledger))
    except LedgerError as error:
        fail(error, EXIT_UNUSABLE, "tidegate carbon sites")
    for site, entries, last_start_utc_s in rows:
        click.echo(f"{site}: {entries} entries, last period from {iso(last_start_utc_s) if last_start_utc_s else '-'}")
    if not rows:
        click.echo("no ledger there yet")


@click.group()
def key() -> None:
    """Say that the device signs with another key."""


@key.command("change")
@click.argument("ledger")
@click.option("--new", required=True, type=click.Path(path_type=Path, exists=True), help="Key file of the device now.")
@click.option("--old", type=click.Path(path_type=Path, exists=True), help="Key file of before, where it is left.")
@AUTHOR
@REASON
def change(ledger: str, new: Path, old: Path | None, author: str, reason: str) -> None:
    """From here on LEDGER is signed with the key in NEW. Stop the sidecar before, start it after."""
    from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError
    from tidegate.runtime.carbon.ledger.signing import change_key
    from tidegate.runtime.state.device_key import DeviceKey, KeyFileError

    try:
        book = Ledger(ledger)
        first = next(iter(book.entries("open")), None)
        site = str(first.body["site"]) if first else ""
        body = change_key(book, site, DeviceKey.at(new), author, reason, DeviceKey.at(old) if old else None)
    except (LedgerError, KeyFileError) as error:
        fail(error, EXIT_UNUSABLE, "tidegate carbon key")
    agreed = "the old key signed it" if body["by_old"] else "nobody of before signed it; verify says so each time"
    click.echo(f"key changed to {body['new'][:16]}...; {agreed}")
