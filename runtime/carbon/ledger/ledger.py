"""The ledger: append-only entries, chained by hash, on SQLite or PostgreSQL.

An entry is canonical JSON (whole numbers, text, true, false, null; keys sorted; no spaces). Its hash covers the hash of
the entry before and the text, so that a changed, missing or reordered entry breaks the chain at its place. The reader's
cursor and the state of the booking are written in the same transaction as the entries that they led to: after a crash
the two agree, and the journal's replay goes on where the ledger stands.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, overload
from urllib.parse import quote

import msgspec
import sqlalchemy as sa

from tidegate.runtime.carbon.ledger.bodies import (
    BlockBody,
    EditBody,
    MeterBody,
    MethodBody,
    PeriodBody,
    ReadingBody,
    SettlementBody,
    current,
)

SCHEMA_VERSION = 2  # 1: bodies with the names of before, see bodies.py; it is read for ever
KINDS = ("open", "method", "period", "factor", "edit", "job", "work", "reading", "report", "block", "note", "meter",
         "key", "restored", "idle")  # fmt: skip

_meta = sa.MetaData()
_entries = sa.Table(
    "entries",
    _meta,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("start_utc_s", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Index("entries_by_kind", "kind", "start_utc_s"),
)
_state = sa.Table(
    "state",
    _meta,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)


class LedgerError(RuntimeError):
    """The ledger cannot be used; the text says what to do."""


_encoder = msgspec.json.Encoder(order="sorted")  # json.dumps(sort_keys, no spaces, not ASCII) gives the same text


def canonical(body: Mapping[str, object]) -> str:
    """The one text of a body. Raises ValueError for a float: it has no one text."""
    if not _whole(body):
        _name_what_is_not_whole(body, "body")
    return _encoder.encode(body).decode()


def _whole(value: Any) -> bool:
    """Whether a value is text, whole numbers, truth or nothing, all the way down."""
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                return False
            inner = type(item)
            if inner is not int and inner is not str and not _whole(item):
                return False
        return True
    if kind is list or kind is tuple:
        for item in value:
            inner = type(item)
            if inner is not int and inner is not str and not _whole(item):
                return False
        return True
    return value is None or kind is int or kind is str or kind is bool


def _name_what_is_not_whole(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{where}: key {key!r} is not text")
            _name_what_is_not_whole(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _name_what_is_not_whole(item, f"{where}[{index}]")
    elif not (value is None or isinstance(value, (str, int))):
        raise ValueError(f"{where}: {value!r} is neither text nor a whole number")


def chain(previous: str, seq: int, kind: str, start_utc_s: int, text: str) -> str:
    """Hash of an entry: everything that its row holds, behind the hash before."""
    head = f"{previous}\n{seq}\n{kind}\n{start_utc_s}\n"
    return hashlib.sha256(head.encode() + text.encode()).hexdigest()


GENESIS = hashlib.sha256(b"tidegate carbon ledger 1").hexdigest()


Body = TypeVar("Body", covariant=True)


@dataclass(frozen=True, slots=True)
class Entry(Generic[Body]):
    """A row of the ledger with its body, which has the names of today."""

    seq: int
    kind: str
    start_utc_s: int
    body: Body
    hash: str


@dataclass(frozen=True, slots=True)
class IntegrityProblem:
    """Something that is not what was written: where, and what."""

    seq: int | None
    what: str

    def __str__(self) -> str:
        return self.what if self.seq is None else f"entry {self.seq}: {self.what}"


def _sqlite_url(path: str, read_only: bool) -> sa.URL:
    """The URL of a file of any name, # and % included. Raises LedgerError for what cannot be read where it lies.

    SQLite wants to write beside a ledger even to read it. Where it may not, the file is opened as one that does not
    change, which is right unless entries wait in the file of the write-ahead log.
    """
    if not read_only:
        return sa.URL.create("sqlite", database=path)
    query = {"mode": "ro", "uri": "true"}
    if not os.access(Path(path).absolute().parent, os.W_OK):
        log = Path(f"{path}-wal")
        if log.exists() and log.stat().st_size and not Path(f"{path}-shm").exists():
            raise LedgerError(
                f"{path}: its newest entries wait in {log.name}, and nothing may be written beside it; copy both to a "
                "folder that may be written, and read them there"
            )
        if not log.exists() or not log.stat().st_size:
            query["immutable"] = "1"
    return sa.URL.create("sqlite", database=f"file:{quote(path)}", query=query)


class Ledger:
    """One site's ledger. One writer; any number of readers.

    url : SQLAlchemy URL, or a path, which means SQLite.
    Raises LedgerError for a database that cannot be opened, or that a newer version wrote.
    """

    def __init__(self, url: str | Path, *, read_only: bool = False) -> None:
        text = str(url)
        path = text.removeprefix("sqlite:///") if "://" not in text or text.startswith("sqlite:///") else None
        if read_only and path is not None and "mode=ro" not in text and not Path(path).exists():
            raise LedgerError(f"{path}: no ledger there")
        self.url = text if "://" in text else f"sqlite:///{text}"
        self.read_only = read_only
        try:
            self._engine = sa.create_engine(text if path is None or "?" in path else _sqlite_url(path, read_only))
        except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError) as error:
            raise LedgerError(f"{text}: {error}; expected a path or an SQLAlchemy URL with its driver") from None
        self.sqlite = self._engine.dialect.name == "sqlite"
        if read_only and not self.sqlite:
            self._engine = self._engine.execution_options(postgresql_readonly=True)
        if self.sqlite:
            sa.event.listen(self._engine, "connect", _tune_sqlite(read_only))
        try:
            self._open()
        except sa.exc.DatabaseError as error:
            raise LedgerError(f"{text}: cannot be opened as a ledger: {error.orig}") from error
        self._head_seq, self._head_hash = self._read_head()

    def _open(self) -> None:
        if not self.read_only:
            _meta.create_all(self._engine)
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_entries.c.body).where(_entries.c.seq == 0)).fetchone()
        if row is None:
            return
        try:
            version = int(json.loads(row[0])["schema"])
        except (ValueError, KeyError, TypeError):
            if self.read_only:
                return  # for verify to name
            raise LedgerError(f"{self.url}: entry 0 is damaged; run tidegate carbon verify") from None
        if version > SCHEMA_VERSION:
            raise LedgerError(
                f"{self.url}: written by schema {version}, this version knows {SCHEMA_VERSION}; update tidegate, "
                "nothing was changed"
            )

    def _read_head(self) -> tuple[int, str]:
        with self._engine.connect() as connection:
            row = connection.execute(
                sa.select(_entries.c.seq, _entries.c.hash).order_by(_entries.c.seq.desc()).limit(1)
            ).fetchone()
        return (-1, GENESIS) if row is None else (row[0], row[1])

    @property
    def head(self) -> tuple[int, str]:
        """(seq, hash) of the newest entry."""
        return self._head_seq, self._head_hash

    def close(self) -> None:
        self._engine.dispose()

    # ---- writing ----

    def begin(self, site: str) -> None:
        """Write the opening entry of a new ledger; nothing if there is one."""
        if self._head_seq < 0:
            self.append([("open", 0, {"schema": SCHEMA_VERSION, "site": site, "units": "milliwatt-hours, ug CO2e, s"})])

    def append(
        self, entries: Sequence[tuple[str, int, Mapping[str, object]]], state: Mapping[str, str] | None = None
    ) -> list[tuple[int, str]]:
        """Append (kind, start_utc_s, body) and put the named state texts in one transaction. -> (seq, hash) of each.

        Raises LedgerError if the database refuses; nothing is written then.
        """
        seq, previous = self._head_seq, self._head_hash
        rows = []
        for kind, start_utc_s, body in entries:
            if kind not in KINDS:
                raise ValueError(f"kind {kind!r}: expected one of {', '.join(KINDS)}")
            seq += 1
            text = canonical(body)
            previous = chain(previous, seq, kind, start_utc_s, text)
            rows.append({"seq": seq, "kind": kind, "start_utc_s": start_utc_s, "body": text, "hash": previous})
        try:
            with self._engine.begin() as connection:
                if rows:
                    connection.execute(_entries.insert(), rows)
                for name, text in (state or {}).items():
                    put = {"body": text, "hash": hashlib.sha256(f"{name}\n{text}".encode()).hexdigest()}
                    done = connection.execute(_state.update().where(_state.c.name == name).values(**put))
                    if done.rowcount == 0:
                        connection.execute(_state.insert().values(name=name, **put))
        except sa.exc.IntegrityError as error:
            raise LedgerError(f"{self.url}: somebody else appended to this ledger; one writer only") from error
        except sa.exc.DatabaseError as error:
            raise LedgerError(f"{self.url}: nothing was written: {error.orig}") from error
        if rows:
            self._head_seq, self._head_hash = seq, previous
        return [(row["seq"], row["hash"]) for row in rows]  # type: ignore[misc]

    # ---- reading ----

    def state(self, name: str) -> str | None:
        """A state text; None if it was never put. Raises LedgerError if it is not what was written."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_state.c.body, _state.c.hash).where(_state.c.name == name)).fetchone()
        if row is None:
            return None
        if hashlib.sha256(f"{name}\n{row[0]}".encode()).hexdigest() != row[1]:
            raise LedgerError(f"{self.url}: the state {name!r} is not what was written; restore it from a copy")
        return str(row[0])

    @contextmanager
    def _rows(self, query: sa.Select[Any]) -> Iterator[Iterable[Any]]:
        with self._engine.connect() as connection:
            yield connection.execution_options(yield_per=2000).execute(query)

    @overload
    def entries(
        self, kind: Literal["period"], start: int | None = ..., end: int | None = ...
    ) -> Iterator[Entry[PeriodBody]]: ...
    @overload
    def entries(
        self, kind: Literal["job"], start: int | None = ..., end: int | None = ...
    ) -> Iterator[Entry[SettlementBody]]: ...
    @overload
    def entries(
        self, kind: Literal["method"], start: int | None = ..., end: int | None = ...
    ) -> Iterator[Entry[MethodBody]]: ...
    @overload
    def entries(
        self, kind: Literal["edit"], start: int | None = ..., end: int | None = ...
    ) -> Iterator[Entry[EditBody]]: ...
    @overload
    def entries(
        self, kind: Literal["reading"], start: int | None = ..., end: int | None = ...
    ) -> Iterator[Entry[ReadingBody]]: ...
    @overload
    def entries(
        self, kind: Literal["meter"], start: int | None = ..., end: int | None = ...
    ) -> Iterator[Entry[MeterBody]]: ...
    @overload
    def entries(
        self, kind: Literal["block"], start: int | None = ..., end: int | None = ...
    ) -> Iterator[Entry[BlockBody]]: ...
    @overload
    def entries(
        self, kind: str | None = ..., start: int | None = ..., end: int | None = ..., *, lenient: bool = ...
    ) -> Iterator[Entry[Any]]: ...
    def entries(
        self, kind: str | None = None, start: int | None = None, end: int | None = None, *, lenient: bool = False
    ) -> Iterator[Entry[Any]]:
        """Entries in order, of one kind and with start_utc_s in [start, end) where given.

        lenient : a body that is no JSON any more is given empty; else it raises LedgerError naming the entry.
        """
        query = sa.select(_entries).order_by(_entries.c.seq)
        if kind is not None:
            query = query.where(_entries.c.kind == kind)
        if start is not None:
            query = query.where(_entries.c.start_utc_s >= start)
        if end is not None:
            query = query.where(_entries.c.start_utc_s < end)
        with self._rows(query) as rows:
            for row in rows:
                yield self._entry(row, lenient)

    def _entry(self, row: Any, lenient: bool = False) -> Entry[Any]:
        try:
            body = current(row.kind, msgspec.json.decode(row.body))
        except (msgspec.DecodeError, ValueError, TypeError, KeyError, AttributeError):
            if not lenient:
                raise LedgerError(f"{self.url}: entry {row.seq} is damaged; run tidegate carbon verify") from None
            body = {}
        return Entry(row.seq, row.kind, row.start_utc_s, body, row.hash)

    @overload
    def in_force(
        self, kind: Literal["period"], start: int | None = ..., end: int | None = ..., until_seq: int | None = ...
    ) -> Iterator[Entry[PeriodBody]]: ...
    @overload
    def in_force(
        self, kind: Literal["job"], start: int | None = ..., end: int | None = ..., until_seq: int | None = ...
    ) -> Iterator[Entry[SettlementBody]]: ...
    def in_force(
        self, kind: str, start: int | None = None, end: int | None = None, until_seq: int | None = None
    ) -> Iterator[Entry[Any]]:
        """The newest entry of a kind for each start_utc_s, in the order of time: a correction hides what it replaces.

        until_seq : as the ledger stood at that entry.
        """
        rows_ = _entries.c
        query = sa.select(_entries).where(rows_.kind == kind).order_by(rows_.start_utc_s, rows_.seq)
        for limit in (
            None if start is None else rows_.start_utc_s >= start,
            None if end is None else rows_.start_utc_s < end,
            None if until_seq is None else rows_.seq <= until_seq,
        ):
            if limit is not None:
                query = query.where(limit)
        held = None
        with self._rows(query) as rows:
            for row in rows:
                if held is not None and row.start_utc_s != held.start_utc_s:
                    yield self._entry(held)
                held = row
            if held is not None:
                yield self._entry(held)

    def count(self, kind: str, start: int, end: int) -> int:
        """Number of different start_utc_s in [start, end) that have an entry of a kind."""
        rows = _entries.c
        where = (rows.kind == kind) & (rows.start_utc_s >= start) & (rows.start_utc_s < end)
        with self._engine.connect() as connection:
            return int(
                connection.execute(sa.select(sa.func.count(sa.distinct(rows.start_utc_s))).where(where)).scalar_one()
            )

    def verify(self) -> list[IntegrityProblem]:
        """Walk the whole chain; every entry that is changed, missing or out of place is named."""
        problems: list[IntegrityProblem] = []
        previous, expected = GENESIS, 0
        with self._rows(sa.select(_entries).order_by(_entries.c.seq)) as rows:
            for row in rows:
                if row.seq != expected:
                    gap = f"{expected} to {row.seq - 1}" if row.seq - 1 > expected else str(expected)
                    problems.append(IntegrityProblem(row.seq, f"entry {gap} missing before it"))
                elif chain(previous, row.seq, str(row.kind), row.start_utc_s, str(row.body)) != row.hash:
                    problems.append(IntegrityProblem(row.seq, "changed, or not in its place"))
                previous, expected = str(row.hash), row.seq + 1
        with self._rows(sa.select(_state)) as rows:
            for row in rows:
                if hashlib.sha256(f"{row.name}\n{row.body}".encode()).hexdigest() != row.hash:
                    problems.append(IntegrityProblem(None, f"state {row.name!r} changed"))
        return problems


def _tune_sqlite(read_only: bool) -> Any:
    def tune(connection: Any, _record: Any) -> None:
        if not read_only:
            # WAL with FULL: a commit is on the disk when it returns, and readers never stop the writer.
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA cache_size=-8000")

    return tune
