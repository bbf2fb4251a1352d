"""Quantities as people write them on a command line or at the console: times, powers, ranges of numbers, KEY=VALUE."""

TIME_S_MAX = 86_400.0
POWER_W_MAX = 1e9  # no site has more
S_BY_UNIT = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
W_BY_UNIT = {"w": 1.0, "k": 1e3, "kw": 1e3, "mw": 1e6}


class QuantityError(ValueError):
    """A text that is no such quantity; says what was expected."""


def split_unit(text: str) -> tuple[str, str]:
    """("-2.5", "kw") out of "-2.5 kW": the digits and the letters behind them, small."""
    plain = text.strip().lower()
    digits = plain.rstrip("abcdefghijklmnopqrstuvwxyz")
    return digits.rstrip(), plain[len(digits) :]


def seconds(text: str) -> float:
    """Read 30s, 500ms, 15m, 15min, 2h or a plain number of seconds. Raises QuantityError."""
    digits, unit = split_unit(text)
    try:
        value_s = float(digits) * S_BY_UNIT[unit or "s"]
    except (ValueError, KeyError):
        raise QuantityError(f"{text!r}: expected a time such as 30s, 5min or 1h") from None
    if not 0.0 < value_s <= TIME_S_MAX:
        raise QuantityError(f"{text!r}: a time is more than 0 and at most {TIME_S_MAX / 3600.0:.0f}h")
    return value_s


def watts(text: str, *, unit_needed: bool = False) -> float:
    """Read 5kW, -2.5kW, 5000W and, unless the unit is needed, 5000. Raises QuantityError.

    unit_needed : where a person types in a hurry, 5 may mean kW or W.
    """
    digits, unit = split_unit(text)
    try:
        value_w = float(digits) * W_BY_UNIT[unit if unit or unit_needed else "w"]
    except (ValueError, KeyError):
        raise QuantityError(
            f"{text!r}: expected a power such as 5kW, -2.5kW or 5000W (+ discharges, - charges)"
        ) from None
    if not abs(value_w) <= POWER_W_MAX:
        raise QuantityError(f"{text!r}: not a power that a site can have")
    return value_w + 0.0  # no -0.0


def unit_ids(text: str, least: int = 1, most: int = 247) -> list[int]:
    """Modbus unit ids out of "1-20,30"; those of a line unless other bounds are given. Raises QuantityError."""
    found: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        try:
            first, last = int(low), int(high or low)
        except ValueError:
            raise QuantityError(f"{text!r}: expected numbers such as 1-20,30") from None
        if not least <= first <= last <= most:
            raise QuantityError(f"{text!r}: unit ids are {least} to {most}, the smaller first")
        found += range(first, last + 1)
    return found


def assignment(text: str, form: str = "KEY=VALUE") -> tuple[str, str]:
    """(key, value) of a word; the last = divides, since a key may be a path. Raises QuantityError naming the form."""
    key, equals, value = text.rpartition("=")
    if not equals or not key or not value:
        raise QuantityError(f"{text!r}: expected {form}")
    return key, value
