"""A NaN that a processor makes has its sign: set on x86, clear on ARM. The core takes the library's instead."""

import re
from pathlib import Path

import pytest

EXT = Path(__file__).parents[2] / "ext"
ZERO, ENDLESS = r"0(?:\.0*)?", r"\(?-?\(?\+?INFINITY\)?\)?"
MAKES_ONE = re.compile(
    rf"{ENDLESS}\s*[-+]\s*{ENDLESS}|{ENDLESS}\s*\*\s*{ZERO}(?![\w.])|(?<![\w.]){ZERO}\s*\*\s*{ENDLESS}"
    rf"|(?<![\w.]){ZERO}\s*/\s*{ZERO}(?![\w.])|{ENDLESS}\s*/\s*{ENDLESS}|sqrt\(-\s*\d|nan\(\"|-NAN\b"
)


def written() -> list[Path]:
    """What we wrote of the core: not what Cython makes of it."""
    sources = [path for kind in ("*.pyx", "*.pxd", "*.h") for path in EXT.rglob(kind)]
    return sorted([*sources, EXT / "safety/safety.c"])


def test_no_nan_of_the_core_is_the_processor_s_own():
    assert len(written()) > 100
    found = [
        f"{path.relative_to(EXT)}:{number}: {line.strip()}"
        for path in written()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if MAKES_ONE.search(line)
    ]
    assert found == [], "cimport NAN from libc.math instead: recordings are compared to the byte between machines"


@pytest.mark.parametrize("line", [
    "cdef double NAN = INFINITY - INFINITY", "x = INFINITY-INFINITY", "a = 0.0 / 0.0", "a = 0 / 0.",
    "b = 0.0 * INFINITY",
    "b = INFINITY * 0", "c = INFINITY / INFINITY", "d = sqrt(-1.0)", "e = -NAN", "f = -INFINITY + INFINITY",
])  # fmt: skip
def test_what_would_make_one_is_seen(line):
    assert MAKES_ONE.search(line)


@pytest.mark.parametrize("line", [
    "x = NAN", "cdef double least_s = INFINITY, second_s = INFINITY", "a = 10.0 / 0.5", "min_w = -INFINITY",
    "y = 0.0 / 0.25",
    "z = 1.0 * 0.0", "from libc.math cimport INFINITY, NAN",
])  # fmt: skip
def test_what_makes_none_is_left_alone(line):
    assert not MAKES_ONE.search(line)
