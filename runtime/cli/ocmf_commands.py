"""`tidegate carbon ocmf`: signed meter readings in and out."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidegate.runtime.cli.common import EXIT_CONTENT, EXIT_UNUSABLE, fail, print_line

if TYPE_CHECKING:
    from tidegate.runtime.carbon.readings.readings import Readings

COMMAND = "tidegate carbon ocmf"


@click.group()
def ocmf() -> None:
    """Signed meter readings in the Open Charge Metering Format (OCMF), in and out."""


def _read(files: tuple[Path, ...], key: str, flow: str = "") -> "tuple[list[Readings], list[str], int]":
    """(readings, oddities, documents) of files. key : the public key itself, or the file that it is in."""
    from tidegate.runtime.carbon.readings.ocmf import documents, public_key, readings

    path = Path(key)
    known = public_key(path.read_text(encoding="utf-8") if len(key) < 256 and path.is_file() else key)
    found, odd, count = [], [], 0
    for file in files:
        signed = documents(file.read_bytes(), file.name, known)
        rows, strange = readings(signed, file.name, flow)
        found += rows
        odd += strange
        count += len(signed)
    return found, odd, count


FILES = click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
KEY = click.option("--key", required=True, help="The meter's public key: a file, or PEM, hex or base64 itself.")


@ocmf.command()
@FILES
@KEY
def check(files: tuple[Path, ...], key: str) -> None:
    """Check the signatures of FILES and say what they read."""
    from tidegate.runtime.carbon.factors.series import FactorError, iso
    from tidegate.runtime.carbon.readings.readings import QUANTITIES

    try:
        found, odd, count = _read(files, key)
    except (FactorError, OSError) as error:
        fail(error, EXIT_CONTENT, COMMAND)
    for text in odd:
        print_line(text, err=True)
    for one in found:
        unit = QUANTITIES[one.quantity][1]
        first, last = one.rows[0], one.rows[-1]
        print_line(f"{one.meter} {one.quantity}: {len(one.rows)} readings, {iso(first[0])} {first[4]} to "
            f"{iso(last[0])} {last[4]}, {last[1] - first[1]} {unit} between them")  # fmt: skip
    click.echo(f"{count} documents, every signature fits")


@ocmf.command("import")
@click.argument("ledger")
@FILES
@KEY
@click.option("--flow", default="", help="The flow that this meter measures too, like grid.import, for comparison.")
def take(ledger: str, files: tuple[Path, ...], key: str, flow: str) -> None:
    """Take the signed readings of FILES into LEDGER. Stop the sidecar before, start it after."""
    from tidegate.runtime.carbon.factors.series import FactorError
    from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError
    from tidegate.runtime.carbon.readings.readings import take_in

    try:
        found, odd, count = _read(files, key, flow)
        book = Ledger(ledger)
        if flow:
            newest = next(iter(reversed(list(book.entries("method")))), None)
            known = sorted(newest.body.get("flows", {})) if newest else []
            if flow not in known:
                raise FactorError(f"--flow {flow}: no such flow in {ledger}; known: {', '.join(known)}")
        rows = take_in(book, found)
    except LedgerError as error:
        fail(error, EXIT_UNUSABLE, COMMAND)
    except (FactorError, OSError) as error:
        fail(error, EXIT_CONTENT, COMMAND)
    for text in odd:
        print_line(text, err=True)
    click.echo(f"{count} documents, every signature fits; {rows} readings taken in")


@ocmf.command()
@click.argument("ledger")
@click.option("--flow", required=True, help="Which energy, like grid.import.")
@click.option("--span", help="A day, month or year: 2026-03-14, 2026-03, 2026 (UTC).")
@click.option("--from", "start", help="First moment, like 2026-03-14T00:00Z; or --span.")
@click.option("--to", "end", help="Moment behind the last.")
@click.option("--key", required=True, type=click.Path(path_type=Path), help="Private key (PEM); made if missing.")
@click.option("--serial", help="Serial number of the meter; default: the node's name.")
@click.option("--out", type=click.Path(path_type=Path), help="Write here instead of to standard output.")
def export(ledger: str, flow: str, span: str | None, start: str | None, end: str | None, key: Path,
           serial: str | None, out: Path | None) -> None:  # fmt: skip
    """Write the running total of a flow of LEDGER as signed documents, one a UTC day."""
    from tidegate.runtime.carbon.factors.series import FactorError
    from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError
    from tidegate.runtime.carbon.readings.ocmf import exported, hex_of, signing_key
    from tidegate.runtime.carbon.report.write import span_between

    try:
        first, last = span_between(span, start, end)
        book = Ledger(ledger, read_only=True)
        secret = signing_key(key)
        bodies = (entry.body for entry in book.in_force("period"))
        lines = list(exported(bodies, flow, serial or flow.rpartition(".")[0], first, last, secret))
    except LedgerError as error:
        fail(error, EXIT_UNUSABLE, COMMAND)
    except (FactorError, ValueError, OSError) as error:
        fail(error, EXIT_CONTENT, COMMAND)
    if not lines:
        fail("nothing is booked in that span", EXIT_UNUSABLE, COMMAND)
    text = "".join(f"{line}\n" for line in lines)
    if out is None:
        click.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")
    click.echo(f"{len(lines)} documents; public key {hex_of(secret.public_key())}", err=True)
