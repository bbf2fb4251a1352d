"""Whole numbers of the account: energy in mWh, carbon in micrograms, factors in micrograms per kWh.

Integers make conservation an equality and the text that is hashed canonical. 1 g/kWh is 1 ug/mWh.
"""

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal

UG_PER_G = 1_000_000
MILLIWH_PER_KWH = 1_000_000  # milliwatt-hours
PPM = 1_000_000


def share(total: int, weights: Sequence[int]) -> list[int]:
    """Split `total` in proportion to `weights` so that the parts are whole and their sum is `total`.

    Largest remainder: each part is rounded down, then the units that are left go to the largest fractions, the first
    of equals winning. No part exceeds its own rounded-up share, so a part never takes more than a stock of that weight.
    Raises ValueError if something is to be split and every weight is 0, or if a weight is negative.
    """
    whole = sum(weights)
    if whole == 0:
        if total:
            raise ValueError(f"{total} cannot be split: every weight is 0")
        return [0] * len(weights)
    parts = []
    rests = []
    for weight in weights:
        if weight < 0:
            raise ValueError(f"weight {weight} is negative")
        part, rest = divmod(total * weight, whole)
        parts.append(part)
        rests.append(rest)
    left = total - sum(parts)
    if left:
        for index in sorted(range(len(parts)), key=lambda i: -rests[i])[:left]:
            parts[index] += 1
    return parts


def carbon_ug(energy_milliwh: int, factor_ug_per_kwh: int) -> int:
    """Carbon of an energy, ug, rounded once, half to even."""
    quotient, rest = divmod(energy_milliwh * factor_ug_per_kwh, MILLIWH_PER_KWH)
    twice = 2 * rest
    return quotient + (1 if twice > MILLIWH_PER_KWH or (twice == MILLIWH_PER_KWH and quotient & 1) else 0)


def to_whole(value: Decimal | str | int, scale: int) -> int:
    """Return `value` times `scale` as a whole number, half to even; exact for text, so no float error enters."""
    return int((Decimal(value) * scale).to_integral_value(rounding=ROUND_HALF_EVEN))


def fixed(value: float | None, digits: int) -> str | None:
    """A ratio as text with fixed decimals, so that it has one form."""
    return None if value is None else f"{value:.{digits}f}"


def decimal(value: int, digits: int) -> str:
    """A whole number of 10^-digits as decimal text, exact: decimal(1234, 3) is 1.234."""
    sign, value = ("-", -value) if value < 0 else ("", value)
    whole, rest = divmod(value, 10**digits)
    return f"{sign}{whole}.{rest:0{digits}d}" if digits else f"{sign}{whole}"


def exact_kwh(milliwh: int) -> str:
    """Kilowatt-hours of a row in a table, exact to 2^53 mWh (9 TWh); a third of the time that `decimal` takes."""
    return f"{milliwh / 1e6:.6f}"
