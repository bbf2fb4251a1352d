"""`tidegate carbon`: attribute a file, verify a ledger, anchor it, report from it."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

EXIT_DAMAGED = 1
EXIT_CONTENT = 65
EXIT_UNUSABLE = 78


@click.group()
def carbon() -> None:
    """Energy and carbon: book, report, verify."""


@carbon.command()
@click.argument("file", type=click.File("r", encoding="utf-8"))
def attribute(file: Any) -> None:
    """Attribute the periods of FILE (JSON; - is standard input) and print what each node received.

    docs/carbon.md has an example, worked by hand.
    """
    try:
        click.echo(json.dumps(attribute_document(json.load(file)), indent=1, ensure_ascii=False))
    except (ValueError, KeyError, TypeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        click.echo(f"tidegate carbon: {file.name}: {what}", err=True)
        sys.exit(EXIT_CONTENT)


def attribute_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """Periods in, outflows and stocks out; energies in mWh, carbon in ug, whole numbers only.

    Raises ValueError or KeyError naming what is wrong.
    """
    from tidegate.runtime.carbon import attribution as a
    from tidegate.runtime.carbon.account import stock_from, stock_record

    unknown = set(document) - {"method", "stocks", "periods"}
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]!r}; known: method, stocks, periods")
    method = a.Method(**document.get("method", {}))
    stocks = {name: stock_from(lots) for name, lots in document.get("stocks", {}).items()}
    periods = []
    for number, row in enumerate(document["periods"]):
        try:
            period = a.Period(
                tuple(a.Inflow(**inflow) for inflow in row.get("inflows", ())),
                tuple((name, mwh) for name, mwh in row.get("loads", {}).items()),
                tuple((name, mwh) for name, mwh in row.get("exports", {}).items()),
                tuple(a.Move(**move) for move in row.get("storages", ())),
            )
            result = a.attribute(period, stocks, method)
        except (TypeError, ValueError) as error:
            raise ValueError(f"period {number}: {error}") from None
        stocks = result.stocks
        periods.append(
            {
                "inflow_ug": result.inflow_ug,
                "outflows": [
                    {"name": o.name, "kind": o.kind, "mwh": o.energy_mwh, "ug": o.carbon_ug, "origins": o.origins}
                    for o in result.outflows
                ],
                "created_ug": result.created_ug,
                "loss_ug": result.loss_ug,
                "loss_mwh": result.loss_mwh,
                "residual_mwh": result.residual_mwh,
                "stocks": {name: stock_record(stock) for name, stock in result.stocks.items()},
                "flags": result.flags,
                "balance_error_ug": result.balance_error_ug,
            }
        )
    return {"periods": periods}


def opened(ledger: str) -> Any:
    """The ledger at a path or URL, for reading; ends the program with a reason if it cannot be read."""
    from tidegate.runtime.carbon.ledger import Ledger, LedgerError

    try:
        return Ledger(ledger, read_only=True)
    except LedgerError as error:
        click.echo(f"tidegate carbon: {error}", err=True)
        sys.exit(EXIT_UNUSABLE)


@carbon.command()
@click.argument("ledger")
@click.option("--key", help="Public key, hex, that must have signed; else that of the first block.")
@click.option("--anchors", type=click.Path(path_type=Path, exists=True), help="File of anchor lines kept elsewhere.")
def verify(ledger: str, key: str | None, anchors: Path | None) -> None:
    """Check LEDGER (path or URL): every changed, missing or reordered entry is named. Exit code 1 if there is one."""
    from tidegate.runtime.carbon.ledger import LedgerError
    from tidegate.runtime.carbon.signing import read_anchors
    from tidegate.runtime.carbon.signing import verify as verify_ledger

    book = opened(ledger)
    try:
        known = read_anchors(anchors.read_text(encoding="utf-8").splitlines(), anchors.name) if anchors else {}
        damages = verify_ledger(book, key=key, anchors=known)
    except LedgerError as error:
        click.echo(f"tidegate carbon: {error}", err=True)
        sys.exit(EXIT_UNUSABLE)
    for damage in damages:
        click.echo(str(damage))
    seq, digest = book.head
    signed = "" if key else "; no key was given, so that of the first block was taken"
    click.echo(f"{seq + 1} entries, head {digest[:16]}..., {len(damages)} damaged, {len(known)} anchors{signed}")
    if not known:
        click.echo("without an anchor kept elsewhere, whoever holds the key can have written everything anew")
    sys.exit(EXIT_DAMAGED if damages else 0)


@carbon.command()
@click.argument("ledger")
@click.option("--to", type=click.Path(path_type=Path), help="Append the line to this file, on another machine at best.")
def anchor(ledger: str, to: Path | None) -> None:
    """Print the head of LEDGER as one line for a second party."""
    from tidegate.runtime.carbon.signing import anchor_line

    book = opened(ledger)
    first = next(iter(book.entries("open")), None)
    line = anchor_line(book, first.body["site"] if first else "")
    if to is not None:
        with to.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    click.echo(line)
