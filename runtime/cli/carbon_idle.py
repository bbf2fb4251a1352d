"""`tidegate carbon idle`: which rack, server or card drew what for no useful work, and what an end would have saved."""

import csv
import json
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidegate.runtime.cli.common import EXIT_CONTENT, EXIT_UNAVAILABLE, EXIT_UNUSABLE, fail

if TYPE_CHECKING:
    from tidegate.runtime.carbon.live.idle_energy import Idle, IdleRow

COMMAND = "tidegate carbon idle"
TOP = 15
HOUR_S = 3600


@click.command("idle")
@click.argument("state", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--span", help="A day, month or year: 2026-03-14, 2026-03, 2026 (UTC); else the last 24 hours.")
@click.option("--ledger", help="Path or URL; else carbon/ledger.db in STATE.")
@click.option("--level", type=click.Choice(["card", "server", "rack"]), help="Only these.")
@click.option("--standby-w", type=click.FloatRange(0, 10_000), default=15.0, show_default=True)
@click.option("--boot-min", type=click.FloatRange(0, 1440), default=10.0, show_default=True)
@click.option("--least-min", type=click.FloatRange(5, 10_080), default=30.0, show_default=True)
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Every thing and hour to a file.")
@click.option("--json", "as_json", is_flag=True)
def idle(state: Path, span: str | None, ledger: str | None, level: str | None, standby_w: float, boot_min: float,
         least_min: float, csv_file: Path | None, as_json: bool) -> None:  # fmt: skip
    """Rank what rested and drew power, from telemetry and ledger in STATE, the site's state folder.

    docs/telemetry.md says what counts as rest, and what a saving rests on.
    """
    from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError
    from tidegate.runtime.carbon.live.idle_energy import Assumptions, HourlyFactors, find_idle
    from tidegate.runtime.carbon.report.write import ReportError, span_between
    from tidegate.runtime.state.held import ledger_in
    from tidegate.runtime.telemetry.energy_store import FILE, opened

    now = int(time.time()) // HOUR_S * HOUR_S
    try:
        start, end = span_between(span, None, None) if span else (now - 23 * HOUR_S, now + HOUR_S)
        store = opened(state)
        if store is None:
            fail(f"{state}: no {FILE}; does the site file have [[telemetry]]?", EXIT_UNAVAILABLE, COMMAND)
        book = Ledger(ledger or ledger_in(state), read_only=True)
        methods = list(book.entries("method"))
        kinds = methods[-1].body["kinds"] if methods else {}
        loads = [name for name, role in kinds.items() if role == "it"]
        factors = HourlyFactors((entry.body for entry in book.in_force("period", start, end)), loads)
        assumed = Assumptions(standby_w, round(boot_min * 60), round(least_min * 60))
        found = find_idle(store, factors, start, end, assumed)
        currency = str(methods[-1].body["currency"]) if methods else ""
    except (LedgerError, sqlite3.Error) as why:
        fail(why, EXIT_UNUSABLE, COMMAND)
    except (ReportError, ValueError) as why:
        fail(why, EXIT_CONTENT, COMMAND)
    found.rows = [row for row in found.rows if level is None or row.level == level]
    if csv_file is not None:
        write_csv(csv_file, found.rows)
    if as_json:
        document = {"from_utc_s": start, "to_utc_s": end, "currency": currency, "assumptions": assumed.texts(),
                    "rows": [row.record() for row in found.rows], "not_judged": found.not_judged,
                    "problems": found.problems}  # fmt: skip
        click.echo(json.dumps(document))
    else:
        echo_idle(found, currency, assumed.texts())


def echo_idle(found: "Idle", currency: str, assumptions: list[str]) -> None:
    """Print the ranking for people: first what is missing, then the table, then what it rests on."""
    for text in found.problems:
        click.echo(f"not complete: {text}")
    if found.not_judged:
        named = ", ".join(found.not_judged[:5]) + (", ..." if len(found.not_judged) > 5 else "")
        click.echo(f"not judged, nobody says what runs there: {len(found.not_judged)} ({named})")
    if not found.rows:
        click.echo("nothing rested")
        return
    click.echo(f"{'':8}{'':28}{'idle kWh':>10}{'kg':>9}{currency:>9}{'saving kWh':>12}{'kg':>9}{currency:>9}  most at")
    for row in found.rows[:TOP]:
        hour = row.by_hour.most_common(1)[0][0] // HOUR_S % 24
        saving = f"{row.saving_milliwh / 1e6:12.3f}{row.saving_ug / 1e9:9.3f}{row.saving_cost_u / 1e6:9.2f}"
        click.echo(
            f"{row.level:8}{row.name[:27]:28}{row.milliwh / 1e6:10.3f}{row.ug / 1e9:9.3f}{row.cost_u / 1e6:9.2f}"
            f"{saving}  {hour:02}:00 UTC"
        )
    if len(found.rows) > TOP:
        click.echo(f"and {len(found.rows) - TOP} more; --json and --csv have them all")
    click.echo("cards lie within servers, servers within racks: levels are not to be added")
    for text in assumptions:
        click.echo(f"assumed: {text}")


def write_csv(path: Path, rows: list["IdleRow"]) -> None:
    """Every thing and hour, one a line."""
    from tidegate.runtime.state.csv_cells import cell

    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["level", "name", "node", "rack", "hour_utc_s", "idle_kwh"])
        for row in rows:
            for hour, milliwh in sorted(row.by_hour.items()):
                out.writerow([row.level, cell(row.name), cell(row.node), cell(row.rack), hour, f"{milliwh / 1e6:.6f}"])
