"""What the installer answers: from options, from a file, or asked for on the terminal."""

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import click
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tidegate.config.zones import zone_of

EXIT_USAGE = 64
ARPHRD_CAN = "280"  # linux/if_arp.h
SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
Value = TypeVar("Value", str, float)
EXIT_UNREADABLE = 66


class SetupError(Exception):
    """Why a step of the first hour ended, in one sentence a line, with the exit code."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class Answers(BaseModel):
    """Everything that `tidegate init` asks. The keys of an answers file are these; the options say the same."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: str | None = None
    timezone: str | None = None
    country: str | None = None
    serial: list[str] = []
    tcp: list[str] = []
    can: list[str] = []
    baud: list[int] = []
    parity: str = "NE"
    ids: str = "1-10"
    bitrate: int = 500_000
    seconds: float = Field(5.0, gt=0, le=600)
    roles: dict[str, str] = {}
    maps: dict[str, str] = {}
    energy_wh: float | None = Field(None, gt=0)
    charge_w_max: float | None = Field(None, gt=0)
    discharge_w_max: float | None = Field(None, gt=0)
    connection_import_w_max: float | None = Field(None, gt=0)
    connection_export_w_max: float | None = Field(None, ge=0)
    peak_w_max: float | None = Field(None, gt=0)


def read_answers(path: Path | None, given: Mapping[str, object]) -> Answers:
    """Answers of a file, those of the options before them. Raises SetupError with file, key and what was expected."""
    table: dict[str, object] = {}
    if path is not None:
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SetupError(f"{path}: cannot be read: {error.strerror}", EXIT_UNREADABLE) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SetupError(f"{path}: is not TOML: {error}", 65) from None
    table.update({key: value for key, value in given.items() if value not in (None, [], {})})
    try:
        return Answers.model_validate(table)
    except ValidationError as error:
        where = f"{path}: " if path is not None else ""
        rows = []
        for one in error.errors():
            key = ".".join(str(step) for step in one["loc"])
            if one["type"] == "extra_forbidden":
                rows.append(f"{where}{key}: unknown answer; known: {', '.join(Answers.model_fields)}")
            else:
                rows.append(f"{where}{key}: {one['msg']}, got {one.get('input')!r}")
        raise SetupError("\n".join(rows), 65) from None


def option(key: str) -> str:
    """The command-line option that gives an answer."""
    return "--" + key.replace("_", "-")


class Asker:
    """Asks for what is missing; without a terminal it notes it instead, so that everything missing is said at once."""

    def __init__(self, interactive: bool) -> None:
        self.interactive = interactive
        self.missing: list[str] = []

    def value(
        self,
        key: str,
        text: str,
        given: Value | None,
        kind: type[Value],
        *,
        default: Value | None = None,
        hint: str = "",
        check: Callable[[Value], str] | None = None,
    ) -> Value | None:
        """The answer given, or asked for; `default` is what Enter, or --yes, gives. None where it is missing.

        check : says what is wrong with an answer, "" = nothing. A person is asked again.
        """
        if given is not None:
            return given
        if not self.interactive:
            if default is None:
                self.missing.append(f"{option(key)} ({text}{'; ' + hint if hint else ''})")
            return default
        while True:
            found: Value = click.prompt(f"{text}{f' ({hint})' if hint else ''}", default=default, type=kind)
            wrong = check(found) if check is not None else ""
            if not wrong:
                return found
            click.echo(wrong)

    def several(self, text: str, seen: list[str], default: str, check: Callable[[str], str]) -> list[str]:
        """Words separated by spaces; what this machine has is offered. A person is asked again."""
        click.echo(f"{text}: this machine has {', '.join(seen) if seen else 'none that can be seen'}")
        while True:
            found = str(
                click.prompt(f"{text}, separated by spaces", default=default, show_default=bool(default))
            ).split()
            wrong = [said for word in found if (said := check(word))]
            if not wrong:
                return found
            click.echo("\n".join(wrong))

    def choice(self, key: str, text: str, given: str | None, choices: list[str], default: str | None) -> str | None:
        """One of the choices."""
        if given is not None:
            if given not in choices:
                raise SetupError(f"{text}: {given!r}, expected one of {', '.join(choices)}", EXIT_USAGE)
            return given
        if not self.interactive:
            if default is None:
                self.missing.append(f"{option(key)} ({text}; one of {', '.join(choices)})")
            return default
        found: str = click.prompt(text, default=default, type=click.Choice(choices))
        return found

    def optional(self, text: str, given: float | None) -> float | None:
        """A number that may be left out."""
        if given is not None or not self.interactive:
            return given
        while True:
            said = click.prompt(f"{text} (Enter: none)", default="", show_default=False)
            if not said:
                return None
            try:
                found = float(said)
            except ValueError:
                click.echo(f"{said!r}: expected a number")
                continue
            wrong = positive(found)
            if not wrong:
                return found
            click.echo(wrong)

    def check(self) -> None:
        """Raise SetupError with everything that nobody could be asked for."""
        if self.missing:
            raise SetupError("not given, and nobody can be asked here:\n  " + "\n  ".join(self.missing), EXIT_USAGE)


def positive(value: float) -> str:
    """What is wrong with a power or an energy; "" = nothing."""
    return "" if 0 < value < 1e9 else f"{value:g}: expected more than 0"


def known_timezone(name: str) -> str:
    """What is wrong with a time zone; "" = nothing."""
    try:
        zone_of(name)
    except ValueError:
        return f"{name!r}: expected an IANA name, such as Europe/Berlin"
    return ""


def site_name(name: str) -> str:
    """What is wrong with the name of a site; "" = nothing."""
    good = SITE_NAME.fullmatch(name)
    return "" if good else f"{name!r}: expected letters, digits, '.', '_' and '-', at most 63, a letter or digit first"


def serial_ports(root: Path = Path("/")) -> list[str]:
    """Serial ports of this machine: by their lasting names where udev gives one, else as the kernel calls them."""
    lasting = sorted((root / "dev/serial/by-id").glob("*"))
    known = {port.resolve() for port in lasting}
    plain = [
        port for kind in ("ttyUSB*", "ttyACM*", "ttyAMA*", "ttyRS485*") for port in sorted((root / "dev").glob(kind))
    ]
    # Every PC has four ttyS; those with a UART behind them have an io type that is not 0.
    uarts = [
        root / "dev" / node.parent.name
        for node in sorted((root / "sys/class/tty").glob("ttyS*/type"))
        if node.read_text().strip() not in ("", "0")
    ]
    return [f"/{port.relative_to(root)}" for port in [*lasting, *(one for one in plain if one not in known), *uarts]]


def can_buses(root: Path = Path("/")) -> list[str]:
    """CAN interfaces that this machine has."""
    kinds = sorted((root / "sys/class/net").glob("*/type"))
    return [node.parent.name for node in kinds if node.read_text().strip() == ARPHRD_CAN]


def serial_port(word: str) -> str:
    """What is wrong with the name of a serial port; "" = nothing."""
    return "" if Path(word).exists() else f"{word}: no such port"


def can_bus(word: str) -> str:
    """What is wrong with the name of a CAN bus; "" = nothing, as far as can be told without opening it."""
    if ":" in word or word in can_buses():
        return ""
    return f"{word}: no such CAN interface (`ip link` shows them); an adapter is INTERFACE:CHANNEL: slcan:/dev/ttyUSB0"


def local_timezone(read: Callable[[str], str] = os.path.realpath) -> str:
    """The machine's own zone by name, UTC where it cannot be told."""
    where = read("/etc/localtime")
    zone = where.partition("/zoneinfo/")[2]
    return zone if "/" in zone else "UTC"
