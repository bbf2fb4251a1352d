"""What a command may ask of the session that runs it, and where that session takes place.

Commands are generators. They give `Ask` when they need a line, `Live` when they want the screen, `Wait` when time must
pass, and get the answer when it is there.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tidegate.runtime.api.blocking_client import ClientError

CONFIRM_S = 30.0
ASK_S = 60.0
ROWS_MIN, COLUMNS_MIN = 24, 80


@dataclass
class Ask:
    """A line from the user; the command gets the text, or None after time_s or Ctrl-C."""

    prompt: str
    secret: bool = False
    time_s: float = ASK_S


@dataclass
class Live:
    """The screen, repainted once a second until a key. On a dumb line it is shown once."""

    draw: Callable[[], list[str]]


@dataclass
class Wait:
    """Let time pass; the command gets True when Ctrl-C or the end of the line cut it short."""

    time_s: float


Result = TypeVar("Result")
Dialogue = Generator[Ask | Live | Wait, str | bool | None, Result]
"""A command, or a part of one, that asks and goes on with the answer."""
Flow = Dialogue[None]


def ask(prompt: str, *, secret: bool = False, time_s: float = ASK_S) -> Dialogue[str | None]:
    """Ask for a line; None after time_s or Ctrl-C."""
    answer = yield Ask(prompt, secret, time_s)
    return answer if isinstance(answer, str) else None


class Refusal(Exception):
    """A command that is not carried out, with one line for people."""


@dataclass
class Terminal:
    vt100: bool = False
    rows: int = ROWS_MIN
    columns: int = COLUMNS_MIN
    pager: bool = True
    chosen: bool = False  # by a person, not found out


@dataclass
class Place:
    """Where a session happens, and what it may reach there. carrier : True, False, or None for a line without one."""

    name: str
    state: Path
    site: Path | None = None
    carrier: Callable[[], bool | None] = lambda: None
    probes: bool = True
    baud: int = 9600
    restart: Callable[[], bool] | None = None
    halt: Callable[[], str] = lambda: "the site is not on this machine"
    """Stops the site without the gateway; what kept it from that, "" = nothing."""
    terminal: Terminal = field(default_factory=Terminal)


def gateway_words(why: ClientError) -> str:
    """A refusal of the gateway as one line."""
    if why.code == "no-answer":
        return f"the gateway does not answer, so nothing was done: {why.text}"
    return f"refused ({why.code}): {why.text}"
