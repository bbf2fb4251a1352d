"""What the commands share: exit codes, ends with a message, types of arguments, the options that find a gateway."""

import functools
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

import click

from tidegate.config import quantities
from tidegate.config.quantities import QuantityError

if TYPE_CHECKING:
    from tidegate.config.site import SiteError

    ParamType = click.ParamType[object]
else:
    ParamType = click.ParamType  # generic only in later releases

# The codes of sysexits.h.
EXIT_USAGE = 64
EXIT_CONTENT = 65  # EX_DATAERR: a file holds what it must not
EXIT_UNAVAILABLE = 69  # no gateway answers
EXIT_SOFTWARE = 70
EXIT_CANNOT_WRITE = 73  # EX_CANTCREAT
EXIT_BUSY = 75  # EX_TEMPFAIL: the site is already run
EXIT_REFUSED = 77  # EX_NOPERM: the gateway refused
EXIT_UNUSABLE = 78  # EX_CONFIG
EXIT_INTERRUPTED = 130


# ---- ends ----


def print_line(text: object, *, err: bool = False) -> None:
    """Print a line with words of somebody else's file or device in it: a terminal obeys none of them."""
    from tidegate.runtime.api.messages import shown

    click.echo(shown(str(text)), err=err)


def fail(text: object, code: int, command: str = "tidegate") -> NoReturn:
    """Print what is wrong, each line behind the command's name, and end."""
    for line in str(text).splitlines():
        print_line(f"{command}: {line}", err=True)
    sys.exit(code)


def refuse_site(error: "SiteError", so: str = "nothing was started") -> NoReturn:
    """Print every problem of a site and what that means, and end with the class of the worst."""
    for problem in error.problems:
        print_line(f"{error.path}: {problem}", err=True)
    count = len(error.problems)
    click.echo(f"{error.path}: {count} problem{'s' if count > 1 else ''}; {so}", err=True)
    sys.exit(error.exit_code)


def need(module: str, extra: str) -> ModuleType:
    """Import a module that wants packages of an extra, or end with the name of the extra to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.startswith("tidegate"):
            fail(f"this build has no {missing}", EXIT_UNAVAILABLE)
        fail(f"{missing} is not installed; run: pip install {requirement(extra)}", EXIT_UNAVAILABLE)


def requirement(extra: str) -> str:
    """What pip is given for an extra, quoted for a shell; "" is the package itself."""
    return f"'tidegate[{extra}]'" if extra else "tidegate"


# ---- arguments ----


class Quantity(ParamType):
    """An argument that `config/quantities.py` reads."""

    def __init__(self, name: str, read: Callable[[str], object]) -> None:
        self.name = name
        self.read = read

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        """The quantity; a default that is one already stays. Fails as click does."""
        if not isinstance(value, str):
            return value
        try:
            return self.read(value)
        except QuantityError as error:
            self.fail(str(error), param, ctx)


SECONDS = Quantity("time", quantities.seconds)
WATTS = Quantity("power", quantities.watts)
ASSIGNMENT = Quantity("key=value", quantities.assignment)


# ---- a gateway ----


def with_client(command: Callable[..., None]) -> Callable[..., None]:
    """Options that every client command has; the command gets an open client as its first argument."""

    @click.option("--site", "-s", help="Name of the site on this machine; not needed where only one runs.")
    @click.option("--endpoint", "-e", help="ipc://FOLDER or tcp://HOST:PORT.")
    @click.option("--key", type=click.Path(path_type=Path), help="Key file for tcp, as `tidegate keys grant` wrote it.")
    @click.option("--timeout", "timeout_s", type=float, default=3.0, show_default=True, help="s")
    @functools.wraps(command)
    def wrapped(site: str | None, endpoint: str | None, key: Path | None, timeout_s: float, **more: object) -> None:
        from tidegate.runtime.api.blocking_client import Client, ClientError

        try:
            keys = None
            if key is not None:
                from tidegate.runtime.api.curve_keys import client_endpoint, client_keys

                keys, endpoint = client_keys(key), endpoint or client_endpoint(key)
                if endpoint is None and site is None and not os.environ.get("TIDEGATE_ENDPOINT"):
                    raise ValueError(f"{key} does not say where its site is; give --endpoint tcp://ADDRESS:PORT")
            with Client(endpoint, site=site, timeout_s=timeout_s, keys=keys) as client:
                command(client, **more)
        except ClientError as error:
            fail(error, EXIT_UNAVAILABLE if error.code == "no-answer" else EXIT_REFUSED)
        except ValueError as error:
            fail(error, EXIT_USAGE)
        except KeyboardInterrupt:
            sys.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    return wrapped


def with_unit(value: float | None, unit: str) -> str:
    """A value for people: as many digits as are worth reading."""
    if value is None:
        return "-"
    text = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{text} {unit}".strip()


def echo_answer(answer: Mapping[str, object]) -> None:
    """Print what became of an order."""
    applied_w = answer.get("applied_w")
    power = f" {applied_w:.0f} W" if isinstance(applied_w, int | float) else ""
    click.echo(f"{answer['status']}{power}" + (f": {answer['text']}" if answer.get("text") else ""))
