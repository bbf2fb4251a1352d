"""Where a key stands in a TOML file, for messages. Good enough for site files; 0 when it cannot be told."""

import re
from typing import Any, TypeAlias

Table: TypeAlias = dict[str, Any]
"""A table of TOML as `tomllib` gives it, before its keys and values are checked."""

HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?")
KEY = re.compile(r"^\s*([A-Za-z0-9_\-\".]+)\s*=")


def line_of(text: str, loc: tuple[int | str, ...]) -> int:
    """The line, from 1, of the deepest part of a path that has a line of its own, 0 for none.

    loc: keys and row numbers as pydantic gives them, such as ("device", 2, "unit_id").
    """
    best, best_depth = 0, 0
    counts: dict[tuple[str, ...], int] = {}
    table: tuple[int | str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = HEADER.match(line)
        if header:
            names = tuple(part.strip().strip('"') for part in header[2].split("."))
            path: tuple[int | str, ...] = ()
            for depth, name in enumerate(names):
                path += (name,)
                if header[1] == "[[" and depth == len(names) - 1:
                    counts[names] = counts.get(names, -1) + 1
                if names[: depth + 1] in counts:
                    path += (counts[names[: depth + 1]],)
            table = path
            found = table
        else:
            key = KEY.match(line)
            if not key:
                continue
            found = table + tuple(part.strip('"') for part in key[1].split("."))
        if len(found) > best_depth and found == loc[: len(found)]:
            best, best_depth = number, len(found)
    return best
