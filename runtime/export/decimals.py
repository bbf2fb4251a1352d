"""Numbers as text with the digits that were measured, and none that binary arithmetic adds."""

import math
import struct

DIGITS_MAX = 10  # a meter's energy register has so many; what stands behind them is rounding


def decimals(value: float) -> str:
    """53.9 of 53.900000000000006, and 230.1 of 230.10000610351562, which is how a 32-bit register holds 230.1."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is no number to show")
    if _single(value) == value:
        for digits in range(1, DIGITS_MAX):
            text = f"{value:.{digits}g}"
            if _single(float(text)) == value:
                return _plain(float(text))
    return _plain(float(f"{value:.{DIGITS_MAX}g}"))


def _single(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.nan


def _plain(value: float) -> str:
    """Without an exponent where it can be read without one."""
    if value == int(value) and abs(value) < 10**15:
        return str(int(value))
    text = repr(value)
    return f"{value:.12f}".rstrip("0") if "e-" in text and abs(value) >= 1e-9 else text


def rounded(value: float) -> float:
    """The number that `decimals` shows."""
    return float(decimals(value))
