"""The table of docs/safety.md under "Does a stop always stop?", from what `make stop-matrix` measured.

python tests/world/stop/stop_page.py build/stop.json    # writes the table anew; 1 if a stop of it did not stop
"""

import json
import sys
from pathlib import Path
from statistics import median
from typing import TypedDict

PAGE = Path(__file__).parents[3] / "docs" / "safety.md"
BEGIN, END = "<!-- stop matrix: begin, by tests/world/stop/stop_page.py -->\n", "<!-- stop matrix: end -->\n"
PATHS = ("signal", "api", "console", "input")
PLAIN_S = 5.0  # the bound of the others stands beside their figure


class Figure(TypedDict):
    """One stop. s : seconds until 0 W, None = not within bound_s."""

    attack: str
    path: str
    bound_s: float
    s: float | None


def shown(figure: Figure | None) -> str:
    """One cell."""
    if figure is None:
        return "not run"
    said = "**never**" if figure["s"] is None else f"{figure['s']:.2f}"
    return said if figure["bound_s"] == PLAIN_S else f"{said} ({figure['bound_s']:g})"


def table(figures: list[Figure]) -> str:
    """Sums and rows, in the order in which they were tried."""
    at = {(one["attack"], one["path"]): one for one in figures}
    lines = []
    for bound_s in sorted({one["bound_s"] for one in figures}):
        of = [one for one in figures if one["bound_s"] == bound_s]
        in_time = {one["s"]: one for one in of if one["s"] is not None}
        slowest = in_time[max(in_time)]
        lines.append(
            f"- bound {bound_s:g} s: {sum(one['s'] is not None for one in of)} of {len(of)} in it, median "
            f"{median(in_time):.2f} s, slowest {max(in_time):.2f} s ({slowest['path']}, "
            f"{slowest['attack'].replace('_', ' ')})"
        )
    lines += ["", f"| attack | {' | '.join(PATHS)} |", f"|---{'|---' * len(PATHS)}|"]
    for attack in dict.fromkeys(one["attack"] for one in figures):
        cells = [shown(at.get((attack, path))) for path in PATHS]
        lines.append(f"| {attack.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def attacks_of(page: str) -> list[str]:
    """The attacks that stand in the page's table."""
    rows = page.partition(BEGIN)[2].partition(END)[0].splitlines()
    return [row.split("|")[1].strip().replace(" ", "_") for row in rows if row.startswith("| ")][1:]


def main(words: list[str]) -> int:
    """Command line."""
    if len(words) != 1:
        print(__doc__, file=sys.stderr)
        return 64
    figures: list[Figure] = json.loads(Path(words[0]).read_text())
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + begin + "\n" + table(figures) + "\n" + END + rest.partition(END)[2])
    return int(any(one["s"] is None for one in figures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
