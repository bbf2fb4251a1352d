"""`tidegate init`: ask, look at the buses, write a commented site file that `tidegate check` accepts."""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import click

from tidegate.config.quantities import QuantityError, assignment
from tidegate.config.site import SiteError
from tidegate.config.summary import summary
from tidegate.hal import maps
from tidegate.runtime.commissioning.draft import Unit, site_text
from tidegate.runtime.commissioning.machine import Machine, is_realtime
from tidegate.runtime.commissioning.new_file import EXIT_CANNOT_WRITE, write_new
from tidegate.runtime.commissioning.prompts import (
    EXIT_USAGE,
    Answers,
    Asker,
    SetupError,
    can_bus,
    can_buses,
    known_timezone,
    local_timezone,
    positive,
    read_answers,
    serial_port,
    serial_ports,
    site_name,
)
from tidegate.runtime.commissioning.survey import SKIP, Part, survey
from tidegate.runtime.supervisor.preflight import prepare
from tidegate.runtime.tools.open_bus import ToolError

NUMBERS = ("name", "timezone", "energy_wh", "charge_w_max", "discharge_w_max", "connection_import_w_max",
           "connection_export_w_max", "peak_w_max")  # fmt: skip
METER_ROLES = ["grid-meter", "it-meter", "cooling-meter", "pv-meter", SKIP]
SHORT = {
    "grid-meter": "grid",
    "it-meter": "it",
    "cooling-meter": "cooling",
    "pv-meter": "pv",
    "pcs": "pcs",
    "bms": "bms",
}


def _assignments(words: Sequence[str], name: str) -> dict[str, str]:
    try:
        return dict(assignment(word, "WHERE=VALUE, such as /dev/ttyS1:1=grid-meter") for word in words)
    except QuantityError as error:
        raise SetupError(f"{name} {error}", EXIT_USAGE) from None


@click.command()
@click.argument("site", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--answers", "answers_file", type=click.Path(path_type=Path), help="TOML file with the answers.")
@click.option("--yes", is_flag=True, help="Ask nothing: take defaults, refuse where there is none.")
@click.option("--name", help="Name of the site.")
@click.option("--timezone", help="IANA name, such as Europe/Berlin.")
@click.option("--country", help="Two letters.")
@click.option("--serial", multiple=True, metavar="PORT", help="A serial port to look at; repeat for more.")
@click.option("--tcp", multiple=True, metavar="ADDRESS", help="Modbus TCP: ADDRESS or ADDRESS:PORT; repeat for more.")
@click.option("--can", multiple=True, metavar="BUS", help="can0, or INTERFACE:CHANNEL; repeat for more.")
@click.option("--baud", multiple=True, type=int, help="Baud rates to try; default: 115200, 38400, 19200, 9600.")
@click.option("--parity", help="Parities to try, letters of NEO; default: NE.")
@click.option("--ids", help="Unit ids to try; default: 1-10.")
@click.option("--bitrate", type=int, help="Bit rate of the CAN buses; default: 500000.")
@click.option("--seconds", type=float, help="Listen so long on CAN; default: 5.")
@click.option("--role", multiple=True, metavar="PORT:UNIT=ROLE", help=f"Role of a meter: {', '.join(METER_ROLES)}.")
@click.option("--map", "map_", multiple=True, metavar="WHERE=MAP", help="Map of PORT:UNIT or of a CAN bus.")
@click.option("--energy-wh", type=float, help="Usable energy of a storage unit.")
@click.option("--charge-w-max", type=float, help="Nameplate.")
@click.option("--discharge-w-max", type=float, help="Nameplate.")
@click.option("--connection-import-w-max", type=float, help="Fuse or contract.")
@click.option("--connection-export-w-max", type=float, help="Most that may be fed in.")
@click.option("--peak-w-max", type=float, help="What the grid meter should not exceed.")
def init(
    site: Path, answers_file: Path | None, yes: bool, role: tuple[str, ...], map_: tuple[str, ...], **more: object
) -> None:
    """Draft the site file SITE: asks, scans the buses (reads only), writes what was found with comments.

    An existing file is never touched.
    """
    try:
        given = {key: list(value) if isinstance(value, tuple) else value for key, value in more.items()}
        answers = read_answers(
            answers_file, {**given, "roles": _assignments(role, "--role"), "maps": _assignments(map_, "--map")}
        )
        asker = Asker(interactive=not yes and sys.stdin.isatty())
        make_site(site, answers, asker)
    except (SetupError, ToolError) as why:
        click.echo("\n".join(f"tidegate: {line}" for line in str(why).splitlines()), err=True)
        click.echo("tidegate: no site file was written", err=True)
        sys.exit(why.exit_code)
    except click.exceptions.Abort:
        click.echo("\ntidegate: ended; no site file was written", err=True)
        sys.exit(130)


def make_site(path: Path, answers: Answers, asker: Asker) -> None:
    """Everything from the question to the file. Raises SetupError, ToolError."""
    _refuse(path)
    if asker.interactive:
        if not answers.serial:
            answers.serial = asker.several("Serial ports", serial_ports(), "", serial_port)
        if not answers.can:
            seen = can_buses()
            answers.can = asker.several("CAN buses", seen, " ".join(seen[:1]), can_bus)
    parts = survey(answers, click.echo)
    parts = settle_roles(parts, answers, asker)
    units = pair_units(parts)
    words = f"Drafted by tidegate {version('tidegate')} on {time.strftime('%Y-%m-%d')} from what answered on the buses."
    given = answers.model_copy()
    while True:
        ask_numbers(answers, asker, parts, path)
        asker.check()
        text = site_text(answers, parts, units, words, is_realtime(Machine()))
        try:
            lines = verify(path, text)
            break
        except SetupError as why:
            asked = [key for key in NUMBERS if getattr(given, key) is None]
            if not asker.interactive or why.exit_code == EXIT_CANNOT_WRITE or not asked:
                raise
            click.echo(str(why))
            click.confirm("Answer again?", default=True, abort=True)
            for key in asked:
                setattr(answers, key, None)
    write_new(path, text)
    for line in lines:
        click.echo(line)
    click.echo(f"{path}: written and good. Next: tidegate doctor {path}; tidegate commission {path} --start")


def _refuse(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise SetupError(f"{path}: exists; choose another name or move it away", EXIT_CANNOT_WRITE)
    if not path.parent.is_dir():
        raise SetupError(f"{path}: there is no folder {path.parent}; make it first", EXIT_CANNOT_WRITE)


def settle_roles(parts: list[Part], answers: Answers, asker: Asker) -> list[Part]:
    """Maps and roles of all that answered; those to be left out are gone, names are given. Raises SetupError."""
    known = {part.where for part in parts}
    for where in [*answers.roles, *answers.maps]:
        if where not in known:
            raise SetupError(f"{where}: nothing was found there; found: {', '.join(sorted(known))}", EXIT_USAGE)
    has_grid = "grid-meter" in answers.roles.values()
    for part in parts:
        if not part.map:
            choices = [*(n for n in maps.map_names() if maps.shipped(n).map.protocol not in ("can", "pylontech")), SKIP]
            found = asker.choice("map", f"map of {part.where} ({part.why})", None, choices, None)
            part.map = found or SKIP
            part.kind = maps.shipped(part.map).map.kind if part.map != SKIP else ""
        if part.map == SKIP or part.kind in ("bms", "pcs"):
            part.role = SKIP if part.map == SKIP else part.kind
            continue
        default = SKIP if has_grid else "grid-meter"
        text = f"role of {part.where} ({part.map})"
        part.role = asker.choice("role", text, answers.roles.get(part.where), METER_ROLES, default) or SKIP
        has_grid = has_grid or part.role == "grid-meter"
    kept = [part for part in parts if part.role != SKIP]
    for role in SHORT:
        same = [part for part in kept if part.role == role]
        numbered = role in ("pcs", "bms") or len(same) > 1
        for number, part in enumerate(same, 1):
            part.name = f"{SHORT[role]}{number}" if numbered else SHORT[role]
    return kept


def pair_units(parts: Sequence[Part]) -> list[Unit]:
    """Storage units: first BMS with first converter, and so on. Raises SetupError with what is missing."""
    bms = [part for part in parts if part.role == "bms"]
    pcs = [part for part in parts if part.role == "pcs"]
    grid = [part for part in parts if part.role == "grid-meter"]
    if len(grid) != 1:
        raise SetupError(f"{len(grid)} grid meters, a site has exactly one; give --role WHERE=grid-meter", 65)
    if not bms or len(bms) != len(pcs):
        found = f"{len(pcs)} converter{'s' if len(pcs) != 1 else ''} and {len(bms)} BMS"
        raise SetupError(f"{found} found, each storage unit needs one of both; give the missing bus, or --map", 65)
    names = ["cabinet"] if len(bms) == 1 else [f"cabinet{number}" for number in range(1, len(bms) + 1)]
    return [Unit(name, b.name, p.name) for name, b, p in zip(names, bms, pcs, strict=True)]


def ask_numbers(answers: Answers, asker: Asker, parts: Sequence[Part], path: Path) -> None:
    """The nameplate, the connection, the name."""
    hints = {}
    for part in parts:
        volt = part.values.get("pack_v")
        for key, amps in (("charge_w_max", "charge_a_max"), ("discharge_w_max", "discharge_a_max")):
            if volt and part.values.get(amps):
                hints[key] = f"the BMS allows {part.values[amps] * volt:.0f} W now"
    answers.name = asker.value("name", "Name of the site", answers.name, str, default=path.stem, check=site_name)
    zone = local_timezone()
    answers.timezone = asker.value("timezone", "Time zone", answers.timezone, str, default=zone, check=known_timezone)
    for key, text in (
        ("energy_wh", "Usable energy of a storage unit, Wh"),
        ("charge_w_max", "Most charge power by the nameplate, W"),
        ("discharge_w_max", "Most discharge power by the nameplate, W"),
        ("connection_import_w_max", "Most import by fuse or contract, W"),
    ):
        given, hint = getattr(answers, key), hints.get(key, "")
        setattr(answers, key, asker.value(key, text, given, float, hint=hint, check=positive))
    answers.connection_export_w_max = asker.optional("Most export, W", answers.connection_export_w_max)
    answers.peak_w_max = asker.optional("Peak that should not be exceeded, W", answers.peak_w_max)


def verify(path: Path, text: str) -> list[str]:
    """What `tidegate check` says of the text, before it has its name. Raises SetupError with its problems."""
    try:
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".toml")
    except OSError as error:
        raise SetupError(f"{path}: cannot be written: {error.strerror}", EXIT_CANNOT_WRITE) from None
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        return summary(prepare(Path(name))[1])
    except OSError as error:
        raise SetupError(f"{path}: cannot be written: {error.strerror}", EXIT_CANNOT_WRITE) from None
    except SiteError as error:
        raise SetupError("the draft would not run:\n  " + "\n  ".join(error.problems), error.exit_code) from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name)
