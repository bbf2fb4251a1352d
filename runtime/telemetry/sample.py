"""What a source says at one moment of one thing: power and whose it is, or a context reading."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["pdu", "server", "card", "pod"]
W_MAX = 1e7  # of one thing; more is a wrong unit


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that draws power. Names come from outside and are shortened, never interpreted."""

    level: Level
    name: str
    host: str = ""
    rack: str = ""
    namespace: str = ""
    job: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """Power of a thing, W. busy : share of the time it worked, 0 to 1, None where nobody says."""

    thing: Thing
    watts: float
    busy: float | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """A counter of energy of a thing, J, that only rises and begins anew with what keeps it."""

    thing: Thing
    joules: float


@dataclass(frozen=True, slots=True)
class Reading:
    """A context reading: inlet_c, temp_c, humidity, outlet_w, power_factor."""

    what: str
    name: str
    value: float


@dataclass(slots=True)
class Heard:
    """One answer of one source. problems : what in it could not be used, by name."""

    samples: list[Sample]
    counted: list[Counted]
    readings: list[Reading]
    problems: list[str]


def nothing() -> Heard:
    """An answer without anything in it."""
    return Heard([], [], [], [])


def plausible_w(value: float) -> bool:
    """Whether a number can be a power; NaN is none."""
    return 0.0 <= value <= W_MAX


def shortened(text: str, most: int = 120) -> str:
    """A name from outside: printable, and of a length that a row can hold."""
    return "".join(c if c.isprintable() else "?" for c in text)[:most]
