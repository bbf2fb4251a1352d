"""Text for a terminal of 80 columns: nothing but printable ASCII leaves here."""

import math
import re
from collections.abc import Iterable, Sequence

UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


def clean(text: object) -> str:
    """Give text without anything that a terminal could take for an order.

    Names come from site files, keys and other programs; an escape sequence in one must not reach the technician's
    screen.
    """
    return UNPRINTABLE.sub("?", str(text))


def power(value_w: float | None) -> str:
    """A power in kW, with sign: what fits the eye at three in the morning."""
    if value_w is None or not math.isfinite(value_w):
        return "--.- kW"
    if abs(value_w) >= 999_950:
        return f"{value_w / 1e6:+.2f} MW"
    return f"{round(value_w / 1e3, 1) + 0.0:+.1f} kW"  # no -0.0


def plain_power(value_w: float | None) -> str:
    """A power in kW whose direction the words around it tell."""
    return power(value_w).removeprefix("+")


def number(value: float | None, unit: str = "") -> str:
    """A value with as many digits as are worth reading."""
    if value is None or not math.isfinite(value):
        return "-"
    text = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{text} {unit if unit not in ('1', 'enum', 'bool') else ''}".strip()


def age(ms: float | None) -> str:
    """How long ago: 12 ms, 3.4 s, 5 min, 2.5 h."""
    if ms is None:
        return "never"
    for limit, factor, unit, digits in ((1e3, 1.0, "ms", 0), (6e4, 1e-3, "s", 1), (3.6e6, 1 / 6e4, "min", 0)):
        if ms < limit:
            return f"{ms * factor:.{digits}f} {unit}"
    return f"{ms / 3.6e6:.1f} h"


def span(left_s: float) -> str:
    """What is left of a time: 4:05."""
    whole = max(0, math.ceil(left_s))
    return f"{whole // 60}:{whole % 60:02d}"


def micro(ns: float | None) -> str:
    """A short time in the unit that suits it."""
    if ns is None:
        return "-"
    if ns < 1e6:
        return f"{ns / 1e3:.0f} us" if ns >= 1e4 else f"{ns / 1e3:.1f} us"
    return f"{ns / 1e6:.1f} ms" if ns < 1e9 else f"{ns / 1e9:.1f} s"


def bar(share: float | None, width: int) -> str:
    """A share of 1 as a bar."""
    if share is None or not math.isfinite(share):
        return "?" * width
    full = round(min(1.0, max(0.0, share)) * width)
    return "#" * full + "." * (width - full)


def table(
    rows: Iterable[Sequence[object]], heads: Sequence[str], right: Iterable[int] = (), width: int = 79
) -> list[str]:
    """Rows in columns; the columns named in `right` are flush right. A line that is too wide is cut."""
    cells = [[clean(head) for head in heads], *([clean(cell) for cell in row] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(heads))]
    flush = set(right)
    lines = []
    for row in cells:
        shown = [cell.rjust(widths[at]) if at in flush else cell.ljust(widths[at]) for at, cell in enumerate(row)]
        lines.append("  ".join(shown).rstrip()[:width])
    return lines


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Lines of at most `width`, all but the first indented."""
    lines: list[str] = []
    line = ""
    for word in clean(text).split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = indent + word
        else:
            line = f"{line} {word}" if line and line != indent else line + word
    return [*lines, line] if line else lines


def labelled(label: str, text: str, width: int, column: int) -> list[str]:
    """Text behind a label, its further lines below its first."""
    lines = wrapped(text, width - column) or [""]
    return [f"{label:<{column}}{lines[0]}", *(" " * column + line for line in lines[1:])]


def plot(values: Sequence[float], width: int, height: int) -> list[str]:
    """Values as columns of stars between their least and their most; nan leaves a gap.

    More values than columns: each column shows the span from the least to the most that fell into it, so that a short
    peak is never lost.
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return ["no reading in this time"]
    low, high = min(known), max(known)
    reach = (high - low) or 1.0
    count = len(values)
    columns: list[tuple[int, int] | None] = []
    for at in range(min(width, count)):
        part = values[at * count // min(width, count) : max((at + 1) * count // min(width, count), 1)]
        seen = [value for value in part if math.isfinite(value)]
        if seen:
            level = [round((value - low) / reach * (height - 1)) for value in (min(seen), max(seen))]
            columns.append((level[0], level[1]))
        else:
            columns.append(None)
    lines = []
    for level_at in range(height - 1, -1, -1):
        value = low + reach * level_at / (height - 1)
        label = f"{value:>10.5g} |" if level_at in (0, height - 1, (height - 1) // 2) else f"{'':>10} |"
        marks = "".join("*" if c is not None and c[0] <= level_at <= c[1] else " " for c in columns)
        lines.append((label + marks).rstrip())
    return lines
