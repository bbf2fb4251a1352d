"""The ledger: append-only entries, chained by hash, on SQLite or PostgreSQL.

An entry is canonical JSON (whole numbers, text, true, false, null; keys sorted; no spaces). Its hash covers the hash of
the entry before and the text, so that a changed, missing or reordered entry breaks the chain at its place. The reader's
cursor and the state of the booking are written in the same transaction as the entries that they led to: after a crash
the two agree, and the journal's replay goes on where the ledger stands.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, overload

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
from tidegate.runtime.carbon.ledger.ledger_file import SCHEMA_VERSION, newer_schema
from tidegate.runtime.carbon.ledger.store import LedgerError as LedgerError
from tidegate.runtime.carbon.ledger.store import make_engine, open_tables, sites_in, split_address

WRITER = "writer"  # the state row that says which device and which process write
KINDS = ("open", "method", "period", "factor", "edit", "job", "work", "reading", "report", "block", "note", "meter",
         "key", "restored", "idle", "renamed")  # fmt: skip


class LedgerTaken(LedgerError):
    """Another process of the same device writes now; going on would make two ledgers of one."""


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


class Ledger:
    """One site's ledger. One writer; any number of readers.

    url : SQLAlchemy URL, or a path, which means SQLite. Behind the # of a URL may stand the site.
    site : whose, in a store of several sites; None takes the one that is there.
    Raises LedgerError for a database that cannot be opened, that a newer version wrote, or that holds several sites
    where none was named.
    """

    def __init__(self, url: str | Path, site: str | None = None, *, read_only: bool = False) -> None:
        text, named = split_address(str(url))
        self.url = text if "://" in text else f"sqlite:///{text}"
        self.read_only = read_only
        self._engine = make_engine(text, read_only)
        self.sqlite = self._engine.dialect.name == "sqlite"
        self._run = ""
        try:
            self._tables = open_tables(self._engine, read_only)
            self.site = self._whose(named if site is None else site)
            self._check_version()
        except sa.exc.DatabaseError as error:
            raise LedgerError(f"{text}: cannot be opened as a ledger: {error.orig}") from error
        self._head_seq, self._head_hash = self._read_head()

    def _whose(self, site: str | None) -> str:
        """The site whose rows are meant: the one asked for, or the only one that is there; "" in an empty store."""
        there = self.sites() if site is None or self.sqlite else []
        if site is None:
            if len(there) > 1:
                names = ", ".join(there[:5]) + (", ..." if len(there) > 5 else "")
                raise LedgerError(
                    f"{self.url}: holds {len(there)} sites ({names}); say whose ledger is meant: {self.url}#{there[0]}"
                )
            return there[0] if there else ""
        if self.sqlite and there and site not in there:
            return there[0]  # a file is of one site: `begin` compares the names
        if self.read_only and not self._is_there(site):
            raise LedgerError(f"{self.url}: no ledger of the site {site!r} there")
        return site

    def _is_there(self, site: str) -> bool:
        if not self._tables.with_site:
            return site in self.sites()
        table = self._tables.entries
        with self._engine.connect() as connection:
            return connection.execute(sa.select(table.c.seq).where(table.c.site == site).limit(1)).first() is not None

    def sites(self) -> list[str]:
        """The sites that have a ledger in this store, sorted."""
        return sites_in(self._engine, self._tables)

    def _of_site(self, table: sa.Table) -> sa.ColumnElement[bool]:
        """Which rows are this site's."""
        return table.c.site == self.site if self._tables.with_site else sa.true()

    def _select(self, *columns: Any) -> sa.Select[Any]:
        """Rows of the site's entries."""
        entries = self._tables.entries
        return sa.select(*(columns or (entries,))).where(self._of_site(entries))

    def _check_version(self) -> None:
        entries = self._tables.entries.c
        with self._engine.connect() as connection:
            row = connection.execute(self._select(entries.body).where(entries.seq == 0)).fetchone()
        if row is None:
            return
        try:
            version = int(json.loads(row[0])["schema"])
        except (ValueError, KeyError, TypeError):
            if self.read_only:
                return  # for verify to name
            raise LedgerError(f"{self.url}: entry 0 is damaged; run tidegate carbon verify") from None
        if version > SCHEMA_VERSION:
            raise newer_schema(self.url, version)

    def _read_head(self) -> tuple[int, str]:
        entries = self._tables.entries.c
        with self._engine.connect() as connection:
            row = connection.execute(
                self._select(entries.seq, entries.hash).order_by(entries.seq.desc()).limit(1)
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
        """Write the opening entry of a new ledger. Raises LedgerError if the one that is there is another site's."""
        if self._head_seq < 0:
            self.site = site
            self.append([("open", 0, {"schema": SCHEMA_VERSION, "site": site, "units": "milliwatt-hours, ug CO2e, s"})])
            return
        there = self.named()
        if there is not None and there != site:
            raise LedgerError(
                f"{self.url}: this ledger is of the site {there!r}, and this site is {site!r}; nothing was booked. If "
                f"it was renamed: tidegate carbon rename {self.url} --to {site!r} --author NAME --reason TEXT; if not, "
                "give each site a ledger of its own"
            )

    def named(self) -> str | None:
        """The site that the ledger says it is of, after the last renaming; None if it never said."""
        for entry in self._newest(("open", "renamed")):
            name = entry.body.get("new") or entry.body.get("site")
            return str(name) if name else None
        return None

    def _newest(self, kinds: Sequence[str]) -> Iterator[Entry[Any]]:
        """The last entry of these kinds; nothing if there is none."""
        entries = self._tables.entries.c
        query = self._select().where(entries.kind.in_(kinds)).order_by(entries.seq.desc()).limit(1)
        with self._rows(query) as rows:
            for row in rows:
                yield self._entry(row, lenient=True)

    def last_of(self, kind: str) -> Entry[Any] | None:
        """The newest entry of a kind; None if there is none. A damaged body is given empty."""
        return next(self._newest((kind,)), None)

    def signer(self) -> str | None:
        """The public key that the newest block, or a change behind it, names; None if nothing is signed."""
        for entry in self._newest(("block", "key")):
            return str(entry.body.get("key") or entry.body.get("new") or "") or None
        return None

    def claim(self, key: str) -> None:
        """From here on this process alone writes. key : the device's public key.

        Raises LedgerError if another device wrote here until now, or if this one wrote under another name. What another
        process of the same key appends after this is refused there by name.
        """
        said = self.state(WRITER)
        last = self.signer() or (None if said is None else str(json.loads(said)["key"]))
        if last not in (None, key):
            raise LedgerError(
                f"{self.url}: the ledger of {self.site!r} was written by the device {str(last)[:16]}..., this one is "
                f"{key[:16]}...; nothing was booked. Two units of one name? If this one replaces the other: tidegate "
                "carbon key change; if not, give each site its own name"
            )
        if said is None:
            for other in () if self.sqlite else self._written_by(key):
                raise LedgerError(
                    f"{self.url}: this device wrote the ledger of {other!r} until now, and its site is called "
                    f"{self.site!r}; nothing was booked. If it was renamed: tidegate carbon rename "
                    f"{self.url}#{other} --to {self.site!r} --author NAME --reason TEXT"
                )
        run = secrets.token_hex(8)
        self._run = ""
        self.append([], {WRITER: canonical({"key": key, "run": run})})
        self._run = run

    def _written_by(self, key: str) -> list[str]:
        """The other sites whose ledgers here this device writes: one question, however many sites there are."""
        state = self._tables.state.c
        query = sa.select(state.site, state.body).where((state.name == WRITER) & (state.site != self.site))
        with self._engine.connect() as connection:
            return sorted(site for site, text in connection.execute(query) if json.loads(text).get("key") == key)

    def rename(self, new: str, body: Mapping[str, object]) -> None:
        """Append that the site is called `new` from here on, and file its rows there. Raises LedgerError if taken."""
        if not self.sqlite and new in self.sites():
            raise LedgerError(f"{self.url}: a ledger of the site {new!r} is there already")
        self.append([("renamed", 0, body)], rename_to=new)

    def append(
        self,
        entries: Sequence[tuple[str, int, Mapping[str, object]]],
        state: Mapping[str, str] | None = None,
        *,
        rename_to: str | None = None,
    ) -> list[tuple[int, str]]:
        """Append (kind, start_utc_s, body) and put the named state texts in one transaction. -> (seq, hash) of each.

        Raises LedgerError if the database refuses, or if another process took the ledger over; nothing is written then.
        """
        seq, previous = self._head_seq, self._head_hash
        whose = {"site": self.site} if self._tables.with_site else {}
        rows: list[dict[str, object]] = []
        for kind, start_utc_s, body in entries:
            if kind not in KINDS:
                raise ValueError(f"kind {kind!r}: expected one of {', '.join(KINDS)}")
            seq += 1
            text = canonical(body)
            previous = chain(previous, seq, kind, start_utc_s, text)
            rows.append({**whose, "seq": seq, "kind": kind, "start_utc_s": start_utc_s, "body": text, "hash": previous})
        table = self._tables.state
        try:
            with self._engine.begin() as connection:
                if rows:
                    connection.execute(self._tables.entries.insert(), rows)
                if self._run:
                    self._check_writer(connection)
                for name, text in (state or {}).items():
                    put = {"body": text, "hash": hashlib.sha256(f"{name}\n{text}".encode()).hexdigest()}
                    mine = self._of_site(table) & (table.c.name == name)
                    done = connection.execute(table.update().where(mine).values(**put))
                    if done.rowcount == 0:
                        connection.execute(table.insert().values(**whose, name=name, **put))
                if rename_to is not None:
                    for both in (self._tables.entries, table):
                        connection.execute(both.update().where(self._of_site(both)).values(site=rename_to))
        except sa.exc.IntegrityError as error:
            raise LedgerError(f"{self.url}: somebody else appended to this ledger; one writer only") from error
        except sa.exc.DatabaseError as error:
            raise LedgerError(f"{self.url}: nothing was written: {error.orig}") from error
        self.site = self.site if rename_to is None else rename_to
        if rows:
            self._head_seq, self._head_hash = seq, previous
        return [(row["seq"], row["hash"]) for row in rows]  # type: ignore[misc]

    def _check_writer(self, connection: sa.Connection) -> None:
        table = self._tables.state
        query = sa.select(table.c.body).where(self._of_site(table) & (table.c.name == WRITER)).with_for_update()
        text = connection.execute(query).scalar()
        if text is None or json.loads(text).get("run") != self._run:
            raise LedgerTaken(
                f"{self.url}: another process with this device's key writes the ledger of {self.site!r} now; nothing "
                "was written here. Are there two units with one key, or two sidecars of one site?"
            )

    # ---- reading ----

    def state(self, name: str) -> str | None:
        """A state text; None if it was never put. Raises LedgerError if it is not what was written."""
        with self._engine.connect() as connection:
            table = self._tables.state
            mine = self._of_site(table) & (table.c.name == name)
            row = connection.execute(sa.select(table.c.body, table.c.hash).where(mine)).fetchone()
        if row is None:
            return None
        if hashlib.sha256(f"{name}\n{row[0]}".encode()).hexdigest() != row[1]:
            raise LedgerError(f"{self.url}: the state {name!r} is not what was written; restore it from a copy")
        return str(row[0])

    @contextmanager
    def _rows(self, query: sa.Select[Any]) -> Iterator[Iterable[Any]]:
        with self._engine.connect() as connection:
            yield connection.execution_options(yield_per=2000).execute(query)

    def raw_rows(self, from_seq: int) -> Iterator[tuple[int, str, int, str, str]]:
        """(seq, kind, start_utc_s, body, hash) of each entry from one on, as they lie there."""
        rows_ = self._tables.entries.c
        columns = (rows_.seq, rows_.kind, rows_.start_utc_s, rows_.body, rows_.hash)
        with self._rows(self._select(*columns).where(rows_.seq >= from_seq).order_by(rows_.seq)) as rows:
            for row in rows:
                yield tuple(row)

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
        rows_ = self._tables.entries.c
        query = self._select().order_by(rows_.seq)
        if kind is not None:
            query = query.where(rows_.kind == kind)
        if start is not None:
            query = query.where(rows_.start_utc_s >= start)
        if end is not None:
            query = query.where(rows_.start_utc_s < end)
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
        rows_ = self._tables.entries.c
        query = self._select().where(rows_.kind == kind).order_by(rows_.start_utc_s, rows_.seq)
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
        rows = self._tables.entries.c
        where = (rows.kind == kind) & (rows.start_utc_s >= start) & (rows.start_utc_s < end)
        query = self._select(sa.func.count(sa.distinct(rows.start_utc_s))).where(where)
        with self._engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def verify(self) -> list[IntegrityProblem]:
        """Walk the whole chain; every entry that is changed, missing or out of place is named."""
        problems: list[IntegrityProblem] = []
        previous, expected = GENESIS, 0
        state = self._tables.state
        with self._rows(self._select().order_by(self._tables.entries.c.seq)) as rows:
            for row in rows:
                if row.seq != expected:
                    gap = f"{expected} to {row.seq - 1}" if row.seq - 1 > expected else str(expected)
                    problems.append(IntegrityProblem(row.seq, f"entry {gap} missing before it"))
                elif chain(previous, row.seq, str(row.kind), row.start_utc_s, str(row.body)) != row.hash:
                    problems.append(IntegrityProblem(row.seq, "changed, or not in its place"))
                previous, expected = str(row.hash), row.seq + 1
        with self._rows(sa.select(state).where(self._of_site(state))) as rows:
            for row in rows:
                if hashlib.sha256(f"{row.name}\n{row.body}".encode()).hexdigest() != row.hash:
                    problems.append(IntegrityProblem(None, f"state {row.name!r} changed"))
        return problems


def ledgers_in(url: str) -> Iterator[tuple[str, int, int | None]]:
    """(site, number of entries, start of its newest period) of each ledger in a store. Raises LedgerError."""
    address, _ = split_address(url)
    engine = make_engine(address, True)
    try:
        try:
            names = sites_in(engine, open_tables(engine, True))
        except sa.exc.DatabaseError as error:
            raise LedgerError(f"{address}: cannot be read as a ledger: {error.orig}") from error
        for site in names:
            one = Ledger(address, site, read_only=True)
            newest = next(one._newest(("period",)), None)
            yield site, one.head[0] + 1, None if newest is None else newest.start_utc_s
            one.close()
    finally:
        engine.dispose()
