"""Plots as SVG text for reports: same input, same bytes; fonts are the reader's own.

Colours keep their meaning on every page: grid grey-blue, battery orange, IT dark, cooling light blue, limit red.
"""

import html
import io
import re
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, MUTED, RULE = "#1b2733", "#64748b", "#e2e8f0"
GRID, WITHOUT, BATTERY, LIMIT = "#1f6feb", "#a8b3c1", "#e8730c", "#c62828"
IT, COOLING, PV, LOSS, OTHER = "#334155", "#38a3c5", "#2e9e4f", "#b08968", "#8b8fa3"
COLOURS = {
    "grid": GRID, "pv": PV, "it": IT, "cooling": COOLING, "residual": OTHER, "unmetered": OTHER, "export": "#7c5cc4",
    "storage": BATTERY, "charge": BATTERY, "discharge": BATTERY, "loss": LOSS, "opening": "#f0a868",
}  # fmt: skip
FONT = "Inter, 'Segoe UI', system-ui, -apple-system, 'Helvetica Neue', Arial, sans-serif"

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tidegate",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # measures only; the page replaces the family
    "font.size": 10,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 11,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.dpi": 72,
    "path.simplify": True,
    "path.simplify_threshold": 0.2,
}


def figure(width: float, height: float, rows: int = 1, ratios: Sequence[float] | None = None) -> tuple[Figure, Any]:
    """A figure with `rows` axes above each other on one x axis. Sizes in points. Use inside `styled()`."""
    made = Figure(figsize=(width / 72, height / 72), layout="constrained")
    FigureCanvasSVG(made)
    axes = made.subplots(rows, 1, sharex=True, height_ratios=ratios, squeeze=False)[:, 0]
    return made, axes if rows > 1 else axes[0]


def styled(**more: Any) -> AbstractContextManager[None]:
    """The look of all plots; a context manager. more : settings of matplotlib, beside these or in their place."""
    return rc_context({**STYLE, **more})  # type: ignore[dict-item]


def svg(made: Figure, title: str, prefix: str = "") -> str:
    """The SVG text of a figure, for a page; `title` is read out by screen readers.

    prefix : goes before all its ids, where several plots share a page.
    """
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # The letters are the reader's; ours only measures, and may lack some.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        made.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'<svg [^>]*viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" role="img" class="plot">', text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S)
    text = re.sub(r"font: ([^;\"]*?)'DejaVu Sans'[^;\"]*", rf"font: \1{_svg_font()}", text)
    text = re.sub(r"font-family: [^;\"]*", f"font-family: {_svg_font()}", text)
    if prefix:
        text = re.sub(r'( id="|href="#|url\(#)', rf"\1{prefix}-", text)
    return text.replace(">", f"><title>{html.escape(title)}</title>", 1)


def _svg_font() -> str:
    return FONT.replace('"', "'")


def binned(t_s: np.ndarray, values: np.ndarray, count: int, how: str) -> tuple[np.ndarray, np.ndarray]:
    """At most `count` bins of a series: (t of each bin's start, its "mean", "min", "max" or "first").

    t_s, values : (n,), t rising. Shapes of the result: (m,), m <= count.
    """
    n = len(values)
    size = max(1, -(-n // count))
    starts = np.arange(0, n, size)
    if how == "first" or size == 1:
        return t_s[starts], values[starts]
    reduce = {"mean": np.add, "min": np.minimum, "max": np.maximum}[how]
    out = reduce.reduceat(values, starts)
    if how == "mean":
        out = out / np.diff(np.append(starts, n))
    return t_s[starts], out


def colour(name: str) -> str:
    """The colour of a node or an origin by its name."""
    stem = name.split("@")[0]
    if name.endswith("@storage"):
        return BATTERY
    return COLOURS.get(stem, OTHER)


PALETTE = ("#475569", "#7c8fb0", "#5b7f95", "#9aa5b1", "#66738a", "#3f5d7d", "#8d99ae", "#52616b")


def colours(names: Sequence[str], storages: Sequence[str] = (), local: Sequence[str] = ()) -> dict[str, str]:
    """A colour for each node: the fixed one of what it is, else the next of a palette. local : own generation."""
    found: dict[str, str] = {}
    free = 0
    for name in sorted(names):
        if name in storages:
            found[name] = BATTERY
        elif name in local:
            found[name] = PV
        elif name in COLOURS:
            found[name] = COLOURS[name]
        else:
            found[name], free = PALETTE[free % len(PALETTE)], free + 1
    return found


# ---- Sankey ----

Rows = Sequence[tuple[str, float, str]]  # label, amount, colour


@dataclass(frozen=True, slots=True)
class Band:
    """One flow of a Sankey: its bar at the outside, its way to the bus, its label. y grows downwards."""

    label: str
    amount: float
    paint: str
    bar_x: float
    bar_y: float
    thick: float
    from_x: float  # the curve, left to right
    from_y: float
    to_x: float
    to_y: float
    text_x: float
    text_y: float
    left: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """A Sankey laid out: bands, and the bus in the middle."""

    width: float
    height: float
    bands: tuple[Band, ...]
    bus_x: float
    bus_y: float
    span: float


BAR, GAP = 12, 18


def text_width(text: str, size: float = 13.0) -> float:
    """About how wide a text is; full-width letters take a whole square."""
    return sum(size if ord(letter) > 0x2E80 else size * 0.58 for letter in text)


def shortened(text: str, width: float, size: float = 13.0) -> str:
    """A text cut to a width, with an ellipsis where something was cut."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text + "…"


def layout(left: Rows, right: Rows, unit: str, width: float = 860, digits: int = 1) -> Layout:
    """Where everything of a Sankey goes; the margins are as wide as the labels need."""
    left = [row for row in left if row[1] > 0]
    right = [row for row in right if row[1] > 0]
    total = max(sum(row[1] for row in left), sum(row[1] for row in right), 1e-12)
    span = 190.0
    rows = max(len(left), len(right), 1)
    height = span + GAP * (rows - 1) + 36
    margins = []
    for side in (left, right):
        wide = [text_width(f"{label} {amount:,.{digits}f} {unit}") for label, amount, _ in side]
        margins.append(min(max([120.0, *wide]) + 16, width * 0.36))
    x0, x1, x2 = margins[0], width / 2 - BAR / 2, width - margins[1] - BAR
    scale = span / total
    mid_top = (height - span) / 2 + 6
    bands = []
    for side, x, is_left in ((left, x0, True), (right, x2, False)):
        room = margins[0 if is_left else 1] - 10
        used = span * sum(row[1] for row in side) / total + GAP * (len(side) - 1)
        y, at_mid = (height - used) / 2 + 6, mid_top
        for label, amount, paint in side:
            thick = max(amount * scale, 0.6)
            number = f" {amount:,.{digits}f} {unit}"
            ends = (x + BAR, x1, y, at_mid) if is_left else (x1 + BAR, x, at_mid, y)
            bands.append(Band(
                shortened(label, room - text_width(number)), amount, paint, x, y, thick, ends[0], ends[2], ends[1],
                ends[3], x - 8 if is_left else x + BAR + 8, y + thick / 2 + 4, is_left,
            ))  # fmt: skip
            y += thick + GAP
            at_mid += amount * scale
    return Layout(width, height, tuple(bands), x1, mid_top, span)


def sankey(left: Rows, right: Rows, *, unit: str, title: str, middle: str, width: int = 860, digits: int = 1) -> str:
    """Bands from sources over one bus to sinks, as SVG. Both sums should agree."""
    return sankey_svg(layout(left, right, unit, width, digits), unit=unit, title=title, middle=middle, digits=digits)


def sankey_svg(laid: Layout, *, unit: str, title: str, middle: str, digits: int = 1) -> str:
    """The SVG text of a Sankey that was laid out."""
    out = [
        f'<svg viewBox="0 0 {laid.width:g} {laid.height:g}" role="img" class="sankey" xmlns="http://www.w3.org/2000/svg">',
        f"<title>{html.escape(title)}</title>",
        f'<text x="{laid.bus_x + BAR / 2:.1f}" y="12" text-anchor="middle" class="mid">{html.escape(middle)}</text>',
        f'<rect x="{laid.bus_x:.1f}" y="{laid.bus_y:.1f}" width="{BAR}" height="{laid.span:g}" fill="{INK}" rx="2"/>',
    ]
    for b in laid.bands:
        half = (b.from_x + b.to_x) / 2
        out.append(
            f'<path d="M{b.from_x:.1f} {b.from_y:.1f}C{half:.1f} {b.from_y:.1f} {half:.1f} {b.to_y:.1f} {b.to_x:.1f} '
            f"{b.to_y:.1f}V{b.to_y + b.thick:.1f}C{half:.1f} {b.to_y + b.thick:.1f} {half:.1f} "
            f'{b.from_y + b.thick:.1f} {b.from_x:.1f} {b.from_y + b.thick:.1f}Z" fill="{b.paint}" fill-opacity="0.28"/>'
        )
        out.append(
            f'<rect x="{b.bar_x:.1f}" y="{b.bar_y:.1f}" width="{BAR}" height="{b.thick:.1f}" fill="{b.paint}" '
            'rx="1.5"/>'
        )
        out.append(
            f'<text x="{b.text_x:.1f}" y="{b.text_y:.1f}" text-anchor="{"end" if b.left else "start"}">'
            f'{html.escape(b.label)} <tspan class="num">{b.amount:,.{digits}f} {html.escape(unit)}</tspan></text>'
        )
    out.append("</svg>")
    return "".join(out)
