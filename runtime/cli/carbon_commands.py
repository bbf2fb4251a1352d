"""`tidegate carbon`: attribute a file, verify a ledger, anchor it, report from it."""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from tidegate.runtime.cli.carbon_idle import idle
from tidegate.runtime.cli.carbon_now import now
from tidegate.runtime.cli.common import EXIT_CONTENT, EXIT_UNUSABLE, fail, print_line
from tidegate.runtime.cli.meter_commands import key, meter, rename, restored, sites
from tidegate.runtime.cli.ocmf_commands import ocmf

if TYPE_CHECKING:
    from tidegate.runtime.carbon.ledger.ledger import Ledger

COMMAND = "tidegate carbon"
EXIT_DAMAGED = 1


@click.group()
def carbon() -> None:
    """Energy and carbon: book, report, verify."""


carbon.add_command(ocmf)
carbon.add_command(meter)
carbon.add_command(key)
carbon.add_command(restored)
carbon.add_command(rename)
carbon.add_command(sites)
carbon.add_command(now)
carbon.add_command(idle)


@carbon.command()
@click.argument("file", type=click.File("r", encoding="utf-8"))
def attribute(file: TextIO) -> None:
    """Attribute the periods of FILE (JSON; - is standard input) and print what each node received.

    docs/carbon.md has an example, worked by hand.
    """
    try:
        click.echo(json.dumps(attribute_document(json.load(file)), indent=1, ensure_ascii=False))
    except (ValueError, KeyError, TypeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        fail(f"{file.name}: {what}", EXIT_CONTENT, COMMAND)


def attribute_document(document: Mapping[str, Any]) -> dict[str, object]:
    """Periods in, outflows and stocks out; energies in milliwatt-hours, carbon in ug, whole numbers only.

    Documents of before may call `energy_milliwh` `energy_mwh`, and the others alike.

    Raises ValueError or KeyError naming what is wrong.
    """
    from tidegate.runtime.carbon.engine import attribution as a
    from tidegate.runtime.carbon.engine.account import outflow_rows, stock_from, stock_record

    unknown = set(document) - {"method", "stocks", "periods"}
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]!r}; known: method, stocks, periods")
    method = a.Method(**_named(document.get("method", {})))
    stocks = {name: stock_from(lots) for name, lots in document.get("stocks", {}).items()}
    periods = []
    for number, row in enumerate(document["periods"]):
        try:
            period = a.Period(
                tuple(a.Inflow(**_named(inflow)) for inflow in row.get("inflows", ())),
                tuple((name, milliwh) for name, milliwh in row.get("loads", {}).items()),
                tuple((name, milliwh) for name, milliwh in row.get("exports", {}).items()),
                tuple(a.Move(**_named(move)) for move in row.get("storages", ())),
            )
            result = a.attribute(period, stocks, method)
        except (TypeError, ValueError) as error:
            raise ValueError(f"period {number}: {error}") from None
        stocks = result.stocks
        periods.append(
            {
                "inflow_ug": result.inflow_ug,
                "outflows": outflow_rows(result),
                "created_ug": result.created_ug,
                "loss_ug": result.loss_ug,
                "loss_milliwh": result.loss_milliwh,
                "residual_milliwh": result.residual_milliwh,
                "stocks": {name: stock_record(stock) for name, stock in result.stocks.items()},
                "flags": result.flags,
                "balance_error_ug": result.balance_error_ug,
            }
        )
    return {"periods": periods}


def _named(row: Mapping[str, object]) -> dict[str, Any]:
    """A row of a document with the names of today."""
    return {re.sub("_mwh$", "_milliwh", key): value for key, value in row.items()}


def opened(ledger: str) -> "Ledger":
    """The ledger at a path or URL, for reading; ends the program with a reason if it cannot be read."""
    from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError

    try:
        return Ledger(ledger, read_only=True)
    except LedgerError as error:
        fail(error, EXIT_UNUSABLE, COMMAND)


@carbon.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("carbon-day"), show_default=True)
def day(out: Path) -> None:
    """Book a day to look at: measured GPU power, measured PV, the grid factors of one day, a cabinet; with its jobs."""
    from tidegate.runtime.carbon.example_day import book_day, day_name

    for path in book_day(out).values():
        click.echo(str(path))
    click.echo(f"next: tidegate carbon settle {out}/ledger.db --jobs {out}/jobs.jsonl --span {day_name()}")
    click.echo(f"      tidegate carbon report {out}/ledger.db --span {day_name()} --out {out}/report")


@carbon.command()
@click.argument("ledger")
@click.option("--key", help="Public key, hex, that must have signed; else that of the first block.")
@click.option("--anchors", type=click.Path(path_type=Path, exists=True), help="File of anchor lines kept elsewhere.")
@click.option(
    "--report", type=click.Path(path_type=Path, exists=True), help="A report.json to check against the ledger."
)
def verify(ledger: str, key: str | None, anchors: Path | None, report: Path | None) -> None:
    """Check LEDGER (path or URL): every changed, missing or reordered entry is named. Exit code 1 if there is one."""
    from tidegate.runtime.carbon.ledger.ledger import LedgerError
    from tidegate.runtime.carbon.ledger.signing import key_changes, read_anchors, restorations
    from tidegate.runtime.carbon.ledger.signing import verify as verify_ledger

    book = opened(ledger)
    try:
        known = read_anchors(
            anchors.read_text("utf-8").splitlines() if anchors else [], anchors.name if anchors else ""
        )
        damages = verify_ledger(book, key=key, anchors=known)
    except LedgerError as error:
        fail(error, EXIT_UNUSABLE, COMMAND)
    wrong = check_report(book, report) if report and not damages else []
    for row in [*map(str, damages), *wrong]:
        print_line(row)
    for text in [*restorations(book), *key_changes(book)]:
        print_line(text)
    seq, digest = book.head
    signed = "" if key else "; no key was given, so that of the first block was taken"
    click.echo(f"{seq + 1} entries, head {digest[:16]}..., {len(damages)} damaged, {len(known)} anchors{signed}")
    tail = seq - max((entry.seq for entry in book.entries("block")), default=seq)
    if tail:
        click.echo(f"the newest {tail} entries lie behind the last block: nobody has signed them yet")
    if report:
        click.echo(
            f"{report.name}: {f'{len(wrong)} differences' if not damages else 'not checked, the ledger is damaged'}"
        )
    if not known:
        click.echo("without an anchor kept elsewhere, whoever holds the key can have written everything anew")
    sys.exit(EXIT_DAMAGED if damages or wrong else 0)


def check_report(book: "Ledger", path: Path) -> list[str]:
    """Where a report.json differs from what the ledger gives for its span.

    What a person gave beside the ledger (instruments, declarations) is taken from the report, which names it.
    """
    from tidegate.runtime.carbon.ledger.ledger import LedgerError, canonical
    from tidegate.runtime.carbon.report.document import compare, gather
    from tidegate.runtime.carbon.report.published import VERSIONS, digest, instruments_of, published

    raw = path.read_bytes()
    try:
        written = json.loads(raw)
        span = written["span"]["from_utc_s"], written["span"]["to_utc_s"]
        version = written["report_version"]
        fits = written["sha256"] == digest(written) and raw == (canonical(written) + "\n").encode()
    except (ValueError, KeyError, TypeError) as error:
        return [f"{path.name}: not a report any more: {error}"]
    if version not in VERSIONS:
        known = " and ".join(map(str, VERSIONS))
        return [f"{path.name}: a report of version {version!r}; this release checks {known}, use the one that made it"]
    try:
        given = written["given"]
        document = gather(
            book,
            *span,
            until_seq=written["ledger"]["last_seq"],
            instruments=instruments_of(written),
            residual_ug_per_kwh=given["residual_ug_per_kwh"],
            installation=given["installation"],
            zone=written["span"].get("zone", "UTC"),
            demand_charge=given.get("demand_charge"),
            version=version,
        )[0]
        if written["evidence"]["ledger"]["signature"] is None:
            document["evidence"]["ledger"]["signature"] = None  # made before the block was signed
    except (LedgerError, TypeError, KeyError, ValueError, AttributeError, ArithmeticError) as error:
        return [f"{path.name}: report: span or what was given: {error}"]
    found = compare(written, published(document, version))
    return found if found or fits else [f"{path.name}: its digest does not fit, or its text is not the canonical one"]


@carbon.command()
@click.argument("ledger")
@click.option("--from", "start", help="First moment, like 2026-03-14T00:00Z; or --span.")
@click.option("--to", "end", help="Moment behind the last.")
@click.option("--span", help="A day, month or year: 2026-03-14, 2026-03, 2026.")
@click.option("--zone", default="UTC", show_default=True, help="Whose days and months: Europe/Berlin, Asia/Shanghai.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("carbon-report"), show_default=True)
@click.option("--lang", type=click.Choice(["en", "zh", "de", "both", "all"]), default="en", show_default=True,
              help="both: English and Chinese.")  # fmt: skip
@click.option("--template", type=click.Choice(["account", "paper"]), default="account", show_default=True,
              help="paper: a white paper, evidence as its annex.")  # fmt: skip
@click.option("--letterhead", type=click.Path(path_type=Path, exists=True), help="TOML: operator, address, logo.")
@click.option("--demand-price", type=str, help="Of a kW of a month's highest demand, in the account's currency.")
@click.option("--demand-window", type=click.Choice(["300", "900", "1800", "3600"]), default="900", show_default=True,
              help="Seconds over which the tariff takes the mean.")  # fmt: skip
@click.option("--no-pdf", is_flag=True, help="Without the PDF.")
@click.option("--instruments", type=click.Path(path_type=Path, exists=True), help="CSV of contractual instruments.")
@click.option("--residual-g", type=str, help="Residual mix, g/kWh, for what no instrument covers; else as booked.")
@click.option(
    "--installation", type=click.Path(path_type=Path, exists=True), help="JSON of the evidence record's head."
)
def report(ledger: str, start: str | None, end: str | None, span: str | None, zone: str, out: Path, lang: str,
           no_pdf: bool, instruments: Path | None, residual_g: str | None, installation: Path | None, template: str,
           letterhead: Path | None, demand_price: str | None, demand_window: str) -> None:  # fmt: skip
    """Report a span of LEDGER as JSON, CSV, HTML and PDF of the same numbers."""
    from tidegate.runtime.carbon.factors.instruments import read_instruments
    from tidegate.runtime.carbon.factors.series import FactorError, parse_factor
    from tidegate.runtime.carbon.ledger.ledger import LedgerError
    from tidegate.runtime.carbon.report.demand_windows import read_charge
    from tidegate.runtime.carbon.report.evidence_record import read_installation
    from tidegate.runtime.carbon.report.language import LANGUAGES
    from tidegate.runtime.carbon.report.letterhead import read_letterhead
    from tidegate.runtime.carbon.report.write import ReportError, span_between, write

    try:
        first, last = span_between(span, start, end, zone)
        if instruments is None and residual_g is not None:
            raise ValueError("--residual-g is for what --instruments do not cover; give both")
        book = opened(ledger)
        if instruments is not None and residual_g is None:
            newest = next(iter(book.in_force("period", first, last)), None)
            if newest is not None and "residual_ug_per_kwh" not in newest.body:
                raise ValueError("--instruments needs --residual-g; no residual mix was booked with the periods")
        found = write(
            book,
            first,
            last,
            out,
            languages={"both": ("en", "zh"), "all": LANGUAGES}.get(lang, (lang,)),
            template=template,
            letterhead=read_letterhead(letterhead) if letterhead else None,
            demand_charge=read_charge(demand_price, int(demand_window)),
            pdf=not no_pdf,
            zone=zone,
            instruments=read_instruments(instruments) if instruments else None,
            residual_ug_per_kwh=parse_factor(residual_g, "g/kWh", "--residual-g") if residual_g else None,
            installation=read_installation(installation) if installation else None,
        )
    except (LedgerError, ReportError) as error:
        fail(error, EXIT_UNUSABLE, COMMAND)
    except (FactorError, ValueError) as error:
        fail(error, EXIT_CONTENT, COMMAND)
    for path in found.values():
        click.echo(str(path))


@carbon.command()
@click.argument("ledger")
@click.option(
    "--jobs",
    required=True,
    type=click.Path(path_type=Path, exists=True),
    help="Job log, or a folder of them: sacct, Prometheus, JSON.",
)
@click.option("--span", help="A day, month or year: 2026-03-14, 2026-03, 2026 (UTC).")
@click.option("--from", "start", help="First day, like 2026-03-14T00:00Z; or --span.")
@click.option("--to", "end", help="Moment behind the last day.")
@click.option(
    "--nodes", type=click.Path(path_type=Path, exists=True), help="CSV host,node: which load a host is part of."
)
@click.option("--tenants", type=click.Path(path_type=Path, exists=True), help="CSV namespace,owner.")
def settle(ledger: str, jobs: Path, span: str | None, start: str | None, end: str | None, nodes: Path | None,
           tenants: Path | None) -> None:  # fmt: skip
    """Share the metered energy of whole days among the jobs that ran. Stop the sidecar before, start it after.

    Jobs that were pushed over the gateway count too.
    """
    import hashlib

    from tidegate.runtime.carbon.factors.series import FactorError
    from tidegate.runtime.carbon.jobs.csv_rows import read_jobs, read_map
    from tidegate.runtime.carbon.jobs.pushed import SOURCE, works_of
    from tidegate.runtime.carbon.jobs.settle import settle as settle_days
    from tidegate.runtime.carbon.jobs.work import JobError, sort_out
    from tidegate.runtime.carbon.ledger.bodies import SourceRow
    from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError
    from tidegate.runtime.carbon.report.write import span_between

    try:
        first, last = span_between(span, start, end)
        hosts = read_map(nodes, "host", "node") if nodes else None
        works, aside = read_jobs(jobs, hosts, read_map(tenants, "namespace", "owner") if tenants else None)
        files = sorted(jobs.iterdir()) if jobs.is_dir() else [jobs]
        sources: list[SourceRow] = [
            {"name": f.name, "sha256": hashlib.sha256(f.read_bytes()).hexdigest()} for f in files if f.is_file()
        ]
        book = Ledger(ledger)
        pushed, more = works_of(book, first, last)
        if pushed:
            works, doubles = sort_out([*works, *pushed])
            aside += [*more, *doubles]
            sources.append(SOURCE)
        days = settle_days(book, works, aside, first, last, sources)
    except LedgerError as error:
        fail(error, EXIT_UNUSABLE, COMMAND)
    except (JobError, FactorError, ValueError) as error:
        fail(error, EXIT_CONTENT, COMMAND)
    for text in aside:
        print_line(f"set aside: {text}", err=True)
    click.echo(f"{len(works)} jobs, {len(aside)} set aside, {days} days settled")


@carbon.command()
@click.argument("ledger")
@click.argument("file", type=click.Path(path_type=Path, exists=True))
def readings(ledger: str, file: Path) -> None:
    """Take register readings of water, heat or energy from FILE (CSV, or a folder) into LEDGER.

    A site file's [carbon] readings does it by itself. Stop the sidecar before, start it after.
    """
    from tidegate.runtime.carbon.factors.series import FactorError
    from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError
    from tidegate.runtime.carbon.readings.readings import read_readings, take_in

    try:
        count = take_in(Ledger(ledger), read_readings(file))
    except LedgerError as error:
        fail(error, EXIT_UNUSABLE, COMMAND)
    except FactorError as error:
        fail(error, EXIT_CONTENT, COMMAND)
    click.echo(f"{count} readings taken in")


@carbon.command()
@click.argument("ledger")
@click.option("--author", required=True, help="Who corrects.")
@click.option("--reason", required=True, help="Why; it stands in every report of the span.")
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="'START FLOW KWH'",
    help="A metered energy, like '2026-03-14T10:15Z grid.import 4.25'; may be given again.",
)
@click.option("--factors", type=click.Path(path_type=Path, exists=True), help="Restated factors, file or folder.")
@click.option("--from", "start", help="First moment that the restated factors count for.")
@click.option("--to", "end", help="Moment behind the last.")
def correct(ledger: str, author: str, reason: str, sets: tuple[str, ...], factors: Path | None, start: str | None,
            end: str | None) -> None:  # fmt: skip
    """Book periods of LEDGER anew by new entries; what was booked stays. Stop the sidecar before, start it after."""
    from tidegate.runtime.carbon.engine.corrections import CorrectionError, Edit
    from tidegate.runtime.carbon.engine.corrections import correct as book_anew
    from tidegate.runtime.carbon.factors.files import read
    from tidegate.runtime.carbon.factors.series import FactorError, Factors, parse_time
    from tidegate.runtime.carbon.integers import to_whole
    from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError

    try:
        edits = []
        for text in sets:
            words = text.split()
            if len(words) != 3:
                raise ValueError(f"--set {text!r}: expected START FLOW KWH")
            edits.append(Edit(parse_time(words[0], "--set"), words[1], to_whole(words[2], 1_000_000)))
        done = book_anew(
            Ledger(ledger),
            author=author,
            reason=reason,
            edits=edits,
            factors=Factors(read(factors), 0, "") if factors else None,
            start_utc_s=parse_time(start, "--from") if start else None,
            end_utc_s=parse_time(end, "--to") if end else None,
        )
    except LedgerError as error:
        fail(error, EXIT_UNUSABLE, COMMAND)
    except (CorrectionError, FactorError, ValueError, ArithmeticError) as error:
        fail(error, EXIT_CONTENT, COMMAND)
    click.echo(f"{done.periods} periods booked anew")


@carbon.command()
@click.argument("ledger")
@click.option("--to", type=click.Path(path_type=Path), help="Append the line to this file, on another machine at best.")
def anchor(ledger: str, to: Path | None) -> None:
    """Print the head of LEDGER as one line for a second party."""
    from tidegate.runtime.carbon.ledger.signing import anchor_line

    book = opened(ledger)
    first = next(iter(book.entries("open")), None)
    line = anchor_line(book, first.body["site"] if first else "")
    if to is not None:
        with to.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    click.echo(line)
