"""`tidegate record` and `tidegate replay`."""

import csv
import sys
import time
from pathlib import Path

import click

from tidegate.ext.abi import program
from tidegate.hal.description import described
from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.api.named import word_of
from tidegate.runtime.cli.common import (
    EXIT_CANNOT_WRITE,
    EXIT_CONTENT,
    EXIT_REFUSED,
    EXIT_UNAVAILABLE,
    fail,
    print_line,
    refuse_site,
    requirement,
    with_client,
)
from tidegate.runtime.gateway.words import words_of
from tidegate.runtime.recording.integrity import RecordingError
from tidegate.runtime.recording.player import Outcome, Player, columns, shown
from tidegate.runtime.recording.recording_file import Recording, read

EXIT_DIFFERS = 1
APART_MAX = 20  # points shown


@click.command()
@with_client
@click.option("--cause", default="by hand", show_default=True, help="Stands in the file.")
@click.option("--wait", "wait_s", type=float, default=60.0, show_default=True, help="s for the file to be written")
def record(client: Client, cause: str, wait_s: float) -> None:
    """Write the last minutes of every cycle to a file on the device."""
    events = client.subscribe("event")
    while events.receive(0.1) is not None or client.why() is None:
        pass  # connected, and nothing old waits
    client.record(cause)
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        event = events.receive(1.0)
        if event is not None and event.get("event") == "note" and event["name"] == "recording":
            said = event["detail"].partition(": ")[2]
            if said.startswith("failed"):
                fail(said, EXIT_REFUSED)
            print_line(said)
            return
    fail(f"no recorder answered; is mcap installed there (pip install {requirement('recorder')}) and [recorder] "
         "mib > 0?", EXIT_UNAVAILABLE)  # fmt: skip


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--with", "other", type=click.Path(path_type=Path), help="Site file that decides on the same readings.")
@click.option("--csv", "table", type=click.Path(path_type=Path), help="Write the points to this file.")
@click.option("--every", type=click.IntRange(1), default=10, show_default=True, help="Cycles between two rows.")
def replay(file: Path, other: Path | None, table: Path | None, every: int) -> None:
    """Run the compiled core over a recording: the same decisions, or the first cycle that differs.

    With --with it answers what another configuration would have decided on the same readings. The plant does not
    answer to it: from the first difference on, its readings are those of the recorded decisions.
    """
    beside = None
    if other is not None:
        from tidegate.config.site import SiteError
        from tidegate.runtime.supervisor.preflight import prepare

        try:
            _, beside = prepare(other, accounts=False)
        except SiteError as why:
            refuse_site(why)
    try:
        recording = read(file)
        outcome = play(recording, beside, table, every)
    except RecordingError as why:
        fail(why, EXIT_CONTENT)
    except ValueError as why:
        fail(f"{file}: {why}", EXIT_CONTENT)
    except OSError as why:
        fail(f"{why.filename}: {why.strerror}", EXIT_CANNOT_WRITE)
    meta = recording.meta
    if not outcome.cycles:
        fail(f"{file}: holds no cycle, so nothing was repeated", EXIT_CONTENT)
    print_line(f"{file}: site {meta['site']}, {meta['cause']}, program {meta['program_sha256'][:12]}")
    if outcome.cut:
        click.echo(f"{outcome.cut} cycles had more input than a record holds")
    if outcome.differs_cycle is not None:
        print_first_difference(outcome, int(meta["utc_offset_ns"]))
    else:
        click.echo(f"{outcome.cycles} cycles, all decided alike to the byte")
    if beside is not None:
        print_differences(outcome)
    sys.exit(EXIT_DIFFERS if outcome.differs_cycle is not None else 0)


def print_first_difference(outcome: Outcome, utc_offset_ns: int) -> None:
    """The first cycle that differs, and what does."""
    clock = time.strftime("%H:%M:%S", time.gmtime((outcome.differs_t_ns + utc_offset_ns) // 10**9))
    click.echo(
        f"cycle {outcome.differs_cycle} at {clock} UTC differs in: {', '.join(outcome.what)}; "
        f"{outcome.cycles} cycles were repeated"
    )
    for name, recorded, here in outcome.apart[:APART_MAX]:
        click.echo(f"  {name:<32} recorded {recorded:<16.9g} here {here:.9g}")
    if len(outcome.apart) > APART_MAX:
        click.echo(f"  and {len(outcome.apart) - APART_MAX} points more")


def play(recording: Recording, beside: bytes | None, table: Path | None, every: int) -> Outcome:
    """Repeat a recording; fill the table if one is wanted."""
    player = Player(recording.blob, beside, exact=recording.exact)
    offset_ns = int(recording.meta["utc_offset_ns"])
    site = described(program.describe(recording.blob))
    words, units = words_of(site), site.point_units
    try:
        names = player.ours.names
        out = table.open("w", newline="") if table is not None else None
        try:
            rows = csv.writer(out) if out is not None else None
            if rows is not None:
                theirs = [f"with.{name}" for name in player.theirs.names] if player.theirs is not None else []
                rows.writerow(["cycle", "utc_ns", *names, *(f"{name}.word" for name in words), *theirs])
            for ours, others in player.run(recording.chunks(), every):
                if others is not None:
                    player.compare(ours, others)
                if rows is not None:
                    found = columns(ours, names)
                    values: list[object] = list(found.values())
                    values += [word_of(words, name, units[name], found[name]) for name in words]
                    if others is not None and player.theirs is not None:
                        values += list(columns(others, player.theirs.names).values())
                    rows.writerow([ours.cycle, ours.t_ns + offset_ns, *("" if v is None else v for v in values)])
        finally:
            if out is not None:
                out.close()
    finally:
        player.close()
    return player.outcome


def print_differences(outcome: Outcome) -> None:
    """The differences between what was decided and what the other configuration would have decided."""
    if outcome.missing:
        click.echo(f"the other site does not know {len(outcome.missing)} readings: {', '.join(outcome.missing[:5])}")
    if not outcome.follows:
        click.echo("the other site has other points or units: it began without memory and was armed")
    if not outcome.differences:
        click.echo(f"with the other site: no difference in {outcome.looked_at} cycles looked at")
        return
    click.echo(
        f"{'with the other site':<22} {'differs in':>12} {'first at cycle':>15}  "
        f"{'recorded':>18} {'other':>18} {'most':>12}"
    )
    for found in outcome.differences.values():
        share = 100.0 * found.cycles / max(1, outcome.looked_at)
        a, b = (shown(found.name, value) for value in found.first)
        most = "" if found.name in ("site.mode", "site.reason") else f"{found.largest:.0f}"
        click.echo(f"{found.name:<22} {share:>10.1f} % {found.first_cycle:>15}  {a:>18} {b:>18} {most:>12}")
    one, two = (value / 3600.0 for value in outcome.discharged_ws)
    click.echo(f"ordered energy (+ discharge): recorded {one:.1f} Wh, other {two:.1f} Wh")
