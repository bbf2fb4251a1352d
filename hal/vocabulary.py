"""The standard signals: names, units, meaning. The data is vocabulary.toml; this only looks things up."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Signal:
    """One standard signal. row: the field of unit_row_t or site_points_t that it becomes, "" for none."""

    name: str
    kind: str
    row: str
    signed: str  # the direction that counts positive inside, "" where the sign carries no direction
    meaning: str


@cache
def _table() -> dict[str, dict[str, object]]:
    return tomllib.loads(files("tidegate.hal").joinpath("vocabulary.toml").read_text(encoding="utf-8"))


@cache
def signals() -> dict[str, Signal]:
    """All standard signals by name."""
    rows: dict[str, dict[str, str]] = _table()["signal"]  # type: ignore[assignment]
    return {
        name: Signal(name, row["kind"], row.get("row", ""), row.get("signed", ""), row["meaning"])
        for name, row in rows.items()
    }


@cache
def required(kind: str) -> tuple[str, ...]:
    """Signals that a device of this kind must give before a site can be compiled."""
    return tuple(_table()["required"].get(kind, ()))  # type: ignore[arg-type]


@cache
def unit_of(name: str) -> str | None:
    """The unit that a signal's name promises by its ending, None when it has no known ending."""
    suffixes: dict[str, str] = _table()["suffix"]  # type: ignore[assignment]
    fits = [suffix for suffix in suffixes if name.endswith(suffix)]
    return suffixes[max(fits, key=len)] if fits else None


def unit_endings() -> tuple[str, ...]:
    """The endings that a signal's name may have, for messages."""
    return tuple(_table()["suffix"])
