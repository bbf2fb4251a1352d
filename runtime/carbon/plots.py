"""Plots as SVG text for reports: same input, same bytes; fonts are the reader's own.

Colours keep their meaning on every page: grid grey-blue, battery orange, IT dark, cooling light blue, limit red.
"""

import html
import io
import re
import warnings
from collections.abc import Sequence
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


def styled() -> Any:
    """The look of all plots; a context manager."""
    return rc_context(STYLE)  # type: ignore[arg-type]


def svg(made: Figure, title: str) -> str:
    """The SVG text of a figure, for a page; `title` is read out by screen readers."""
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


# ---- Sankey ----


def sankey(
    left: Sequence[tuple[str, float, str]],
    right: Sequence[tuple[str, float, str]],
    *,
    unit: str,
    title: str,
    middle: str,
    width: int = 860,
    digits: int = 1,
) -> str:
    """Bands from sources over one bus to sinks. left, right : (label, amount, colour); both sums should agree."""
    left = [row for row in left if row[1] > 0]
    right = [row for row in right if row[1] > 0]
    total = max(sum(row[1] for row in left), sum(row[1] for row in right), 1e-12)
    gap, bar, span = 18, 12, 190
    height = span + gap * (max(len(left), len(right)) - 1) + 36
    x0, x1, x2 = 210, width / 2 - bar / 2, width - 210 - bar
    scale = span / total
    mid_top = (height - span) / 2 + 6
    out = [
        f'<svg viewBox="0 0 {width} {height}" role="img" class="sankey" xmlns="http://www.w3.org/2000/svg">',
        f"<title>{html.escape(title)}</title>",
        f'<text x="{x1 + bar / 2:.1f}" y="12" text-anchor="middle" class="mid">{html.escape(middle)}</text>',
        f'<rect x="{x1:.1f}" y="{mid_top:.1f}" width="{bar}" height="{span}" fill="{INK}" rx="2"/>',
    ]
    for rows, x, anchor, forward in ((left, x0, "end", True), (right, x2, "start", False)):
        used = span * sum(row[1] for row in rows) / total + gap * (len(rows) - 1)
        y, at_mid = (height - used) / 2 + 6, mid_top
        for label, amount, paint in rows:
            thick = max(amount * scale, 0.6)
            xa, xb = (x + bar, x1) if forward else (x1 + bar, x)
            ya, yb = (y, at_mid) if forward else (at_mid, y)
            half = (xa + xb) / 2
            out.append(
                f'<path d="M{xa:.1f} {ya:.1f}C{half:.1f} {ya:.1f} {half:.1f} {yb:.1f} {xb:.1f} {yb:.1f}'
                f'V{yb + thick:.1f}C{half:.1f} {yb + thick:.1f} {half:.1f} {ya + thick:.1f} {xa:.1f} {ya + thick:.1f}Z"'
                f' fill="{paint}" fill-opacity="0.28"/>'
            )
            out.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{bar}" height="{thick:.1f}" fill="{paint}" rx="1.5"/>')
            tx = x - 8 if forward else x + bar + 8
            out.append(
                f'<text x="{tx:.1f}" y="{y + thick / 2 + 4:.1f}" text-anchor="{anchor}">{html.escape(label)} '
                f'<tspan class="num">{amount:,.{digits}f} {html.escape(unit)}</tspan></text>'
            )
            y += thick + gap
            at_mid += amount * scale
    out.append("</svg>")
    return "".join(out)
