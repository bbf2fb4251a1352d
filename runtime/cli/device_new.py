"""`tidegate devices new`: a manual's table, or what a live device answers, becomes a first map."""

import re
from pathlib import Path

import click

from tidegate.hal import map_draft, maps
from tidegate.runtime.cli.common import EXIT_CONTENT, fail

CHUNK = 16  # registers of one read of a live device; a refused one is tried again one by one


@click.command("new")
@click.argument("name")
@click.option(
    "--csv", "table", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The manual's table."
)
@click.option("--serial", "port", help="Or: a live device's serial port, such as /dev/ttyUSB0. Only reads.")
@click.option("--unit", "unit_id", type=click.IntRange(1, 247), default=1, show_default=True, help="Its unit id.")
@click.option("--registers", default="0-99", show_default=True, help="Which of its registers, FIRST-LAST.")
@click.option("--baud", default=9600, show_default=True, help="Baud rate, of the device and in the map.")
@click.option("--parity", type=click.Choice(["N", "E", "O"]), default="N", show_default=True)
@click.option("--kind", type=click.Choice(["meter", "pcs", "bms"]), default="meter", show_default=True)
@click.option(
    "--function", type=click.Choice(["3", "4"]), default="3", show_default=True, help="3 holding, 4 input registers."
)
@click.option("--low-word-first", is_flag=True, help="Numbers of 32 bits have their low word first.")
@click.option(
    "--offset", default=0, show_default=True, help="Added to each address; -1 where the manual counts from 1."
)
@click.option("--title", default="", help="Maker and type.")
@click.option("--source", default="", help="The manual: title, version, page.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="The file to write; NAME.toml if left out."
)
def new(
    name: str, table: Path | None, port: str | None, unit_id: int, registers: str, baud: int, parity: str, kind: str,
    function: str, low_word_first: bool, offset: int, title: str, source: str, out: Path | None,
) -> None:  # fmt: skip
    """Write a first map NAME.toml from a manual's table (CSV) or a live device, commented, with vectors to fill in.

    The table needs a heading with an address and a description; type, unit and scale help. Spreadsheets save it.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        fail(f"{name!r}: a map's name has small letters, digits and -", EXIT_CONTENT)
    if (table is None) == (port is None):
        fail("give one of --csv and --serial", 2)
    path = out or Path(f"{name}.toml")
    if path.exists():
        fail(f"{path} is there already; give another --out", EXIT_CONTENT)
    remarks: list[str] = []
    try:
        if table is not None:
            rows, remarks = map_draft.read_table(read_text(table), offset)
        else:
            assert port is not None
            rows = map_draft.live_rows(int(function), live(port, unit_id, registers, int(function), baud, parity))
    except map_draft.DraftError as error:
        fail("\n".join(error.problems), EXIT_CONTENT)
    order = "low-first" if low_word_first else "high-first"
    path.write_text(
        map_draft.draft(
            name,
            kind,
            rows,
            title=title,
            source=source,
            function=int(function),
            word_order=order,
            remarks=remarks,
            baud=baud,
        ),
        encoding="utf-8",
    )
    click.echo(
        f"{path}: {len(rows)} points"
        + (f", {len(remarks)} lines of the table left out (see its end)" if remarks else "")
    )
    try:
        found = maps.load_map(str(path))
    except maps.MapError as error:
        click.echo("to be mended before it can be used:")
        for text in error.problems:
            click.echo(f"  {text}")
    else:
        click.echo(
            f"it loads; {len(found.map.doubts)} questions stand in it as doubts, and its vectors want their values"
        )


def read_text(path: Path) -> str:
    """The table as text, in the encodings that spreadsheets write."""
    raw = path.read_bytes()
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    fail(f"{path}: neither UTF-8 nor Windows-1252; save it as CSV (UTF-8)", EXIT_CONTENT)


def live(port: str, unit_id: int, registers: str, function: int, baud: int, parity: str) -> dict[int, int]:
    """Address -> word of the registers that the device answers for. Ends the program where nobody answers."""
    from tidegate.runtime.tools.open_bus import RegisterReader, ToolError

    bounds = re.fullmatch(r"(\d+)-(\d+)", registers)
    if not bounds or not int(bounds[1]) <= int(bounds[2]) <= 65535:
        fail(f"--registers {registers!r}: expected FIRST-LAST, up to 65535", 2)
    words: dict[int, int] = {}
    silent = 0
    try:
        with RegisterReader(port, baud, parity) as reader:
            for first in range(int(bounds[1]), int(bounds[2]) + 1, CHUNK):
                last = min(first + CHUNK - 1, int(bounds[2]))
                for at, count in [(first, last - first + 1), *((one, 1) for one in range(first, last + 1))]:
                    try:
                        got = reader.read(unit_id, function, at, count)
                    except TimeoutError:
                        silent += 1
                        break
                    if got is not None:
                        words.update({at + i: word for i, word in enumerate(got[:count])})
                        if count > 1 or last == first:
                            break
    except ToolError as error:
        fail(error, error.exit_code)
    if not words:
        said = "nobody answered" if silent else "every read was refused"
        fail(f"{port} unit {unit_id}: {said} for registers {registers} by function {function}", 1)
    return words
