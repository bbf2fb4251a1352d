"""Tables and JSON as people have them: European and American CSV, other line ends, a byte-order mark, any bytes at all.

Whatever cannot be read raises the error that the caller names, with file, line, column and remedy; nothing else leaves
from here, and no column or field is dropped without a word.
"""

import csv
import functools
import io
import json
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

DIGITS_MAX = 18  # before the point; a larger number is no reading, no price and no time of this world
TEXT_SHOWN = 60
BYTES_MAX = 64_000_000

P = ParamSpec("P")
T = TypeVar("T")
Refusal = Callable[[str], Exception]
COMMA = re.compile(r"[+-]?\d+,\d+")
POINT = re.compile(r"[+-]?\d+\.\d+")


class _Reader(Protocol):
    """What csv.reader gives."""

    line_num: int

    def __next__(self) -> list[str]: ...


def bytes_of(path: Path, refuse: Refusal, most: int = BYTES_MAX) -> bytes:
    """What is in a file. Raises `refuse` for one that is missing, too long, or no plain file (a pipe never ends)."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise refuse(f"{path}: no plain file; put a file there")
        if found.st_size > most:
            raise refuse(f"{path}: {found.st_size} bytes, at most {most} are read; split it")
        return path.read_bytes()
    except OSError as error:
        raise refuse(f"{path}: {error.strerror}") from None


def text_of(raw: bytes, name: str, refuse: Refusal) -> str:
    """UTF-8 text with line ends of one kind, without a byte-order mark. Raises `refuse` for other bytes."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise refuse(f"{name}: UTF-16 text; save the file as UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refuse(f"{name}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    if "\0" in text:
        raise refuse(f"{name}: character {text.index(chr(0))} is a zero byte; this is no text, save it as UTF-8 CSV")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def table_of(
    raw: bytes, name: str, refuse: Refusal, *, above: int = 0, columns: Sequence[str] = ()
) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """(columns, (line, row) of each row) of CSV separated by comma, semicolon or tab.

    above : lines before the head. columns : must be there. Where the separator is not a comma, a decimal comma is
    turned into a point; a file with both is refused. Raises `refuse` for a column that stands twice and for a row with
    fewer or more fields than the head; blank lines are passed over.
    """
    text = text_of(raw, name, refuse)
    lines = text.split("\n")
    head = lines[above] if len(lines) > above else ""
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO("\n".join(lines[above:])), delimiter=delimiter)
    names = [column.strip() for column in _next(reader, name, above, refuse) or ()]
    twice = sorted({column for column in names if names.count(column) > 1})
    if twice:
        raise refuse(f"{name}, line {above + 1}: column {twice[0]!r} stands twice; remove or rename one")
    missing = [column for column in columns if column not in names]
    if missing:
        raise refuse(f"{name}, line {above + 1}: column {', '.join(missing)} is missing; expected {', '.join(columns)}")
    found = _rows(reader, names, name, above, refuse)
    return names, found if delimiter == "," else _pointed(found, name, refuse)


def _next(reader: _Reader, name: str, above: int, refuse: Refusal) -> list[str] | None:
    try:
        return reader.__next__()
    except StopIteration:
        return None
    except csv.Error as error:
        raise refuse(f"{name}, line {reader.line_num + above}: {error}; is a quote missing?") from None


def _rows(
    reader: _Reader, names: Sequence[str], name: str, above: int, refuse: Refusal
) -> Iterator[tuple[int, dict[str, str]]]:
    while (fields := _next(reader, name, above, refuse)) is not None:
        if not fields or (len(fields) == 1 and not fields[0].strip()):
            continue
        line = reader.line_num + above
        if len(fields) < len(names):
            raise refuse(f"{name}, line {line}: fewer fields than the {len(names)} columns")
        if len(fields) > len(names):
            raise refuse(
                f"{name}, line {line}: {len(fields)} fields for {len(names)} columns; quote what holds a separator, "
                "or separate by semicolon where the decimal sign is a comma"
            )
        yield line, dict(zip(names, fields, strict=True))


def _pointed(
    rows: Iterator[tuple[int, dict[str, str]]], name: str, refuse: Refusal
) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows with decimal commas as points. One file has one sign: 1.234 beside 5,6 could mean a thousand."""
    comma = point = 0
    for line, row in rows:
        for column, text in row.items():
            if COMMA.fullmatch(text.strip()):
                row[column] = text.replace(",", ".")
                comma = comma or line
            elif POINT.fullmatch(text.strip()):
                point = point or line
        if comma and point:
            raise refuse(f"{name}, line {line}: a decimal comma (line {comma}) and a point (line {point}); use one")
        yield line, row


def number_of(text: str, where: str, refuse: Refusal) -> Decimal:
    """A finite number as programs write it. Raises `refuse` for what could mean two: 1,234 is no number here."""
    written = text.strip()
    if "_" in written:
        raise refuse(f"{where}: {written[:TEXT_SHOWN]!r} is not a number")
    try:
        value = Decimal(written)
    except InvalidOperation:
        raise refuse(f"{where}: {written[:TEXT_SHOWN]!r} is not a number") from None
    if not value.is_finite():
        raise refuse(f"{where}: {written[:TEXT_SHOWN]!r} is not a finite number")
    if value.adjusted() > DIGITS_MAX:  # before it is written out: 1e999999999 has as many digits
        raise refuse(f"{where}: {written[:TEXT_SHOWN]} is too large to be meant; check the column and its unit")
    return Decimal(0) if value.adjusted() < -30 else value


def json_of(raw: bytes, name: str, refuse: Refusal) -> object:
    """A JSON document; a number with a point is a Decimal. Raises `refuse`."""
    text = text_of(raw, name, refuse)
    try:
        return json.loads(text, parse_float=Decimal)
    except (ValueError, ArithmeticError) as error:
        raise refuse(f"{name}: not JSON ({str(error)[:200]}); fetch it again") from None
    except RecursionError:
        raise refuse(f"{name}: nested deeper than any answer; fetch it again") from None


def fields_of(row: object, where: str, refuse: Refusal) -> dict[str, object]:
    """A JSON object. Raises `refuse` for anything else."""
    if not isinstance(row, dict):
        raise refuse(f"{where}: {str(row)[:TEXT_SHOWN]!r} where an object with named fields is expected")
    return row


def list_of(rows: object, where: str, refuse: Refusal) -> list[object]:
    """A JSON list. Raises `refuse` for anything else."""
    if not isinstance(rows, list):
        raise refuse(f"{where}: {str(rows)[:TEXT_SHOWN]!r} where a list is expected")
    return rows


def refusing(error: type[Exception]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A reader that raises nothing but `error` for what is in a file, whatever that is.

    What a reader does not foresee still names the file (its second argument or the name of a path) and the form of the
    failure. Only the content is meant: OSError and MemoryError pass.
    """

    def around(reader: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(reader)
        def read(*args: P.args, **more: P.kwargs) -> T:
            try:
                return reader(*args, **more)
            except (error, OSError):
                raise
            except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError) as unforeseen:
                named = next((str(arg) for arg in args if isinstance(arg, str)), "")
                name = named or getattr(args[0], "name", "") if args else named
                what = f"{type(unforeseen).__name__}: {unforeseen}"
                raise error(f"{name}: has another form than is known ({what:.120}); make or fetch it again") from None

        return read

    return around
