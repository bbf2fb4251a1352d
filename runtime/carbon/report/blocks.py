"""What a report is made of: sections of text, tables and plots; one source for the page and for print."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table. to : id of the row, or name of the file, that it comes from."""

    text: str
    to: str = ""
    number: bool = False


Line = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """head, rows and an id for each row ("" = none). leaf : its numbers come from the ledger or a file directly."""

    head: Line
    rows: Sequence[Line]
    ids: list[str]
    leaf: bool = False
    print_rows: int = 1000


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph. kind : p, note, list or code."""

    text: str
    kind: str = "p"
    id: str = ""


@dataclass(frozen=True, slots=True)
class Plot:
    name: str


Block = Table | Text | Plot


@dataclass(slots=True)
class Section:
    id: str
    title: str
    blocks: list[Block] = field(default_factory=list)


def slug(text: str) -> str:
    """A text as part of an id."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)
