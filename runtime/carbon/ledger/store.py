"""The tables that ledgers lie in: one file of a site, or one PostgreSQL database of many sites.

Every row says whose it is, so that the chains of two sites never touch. A store of before, which held one site and did
not say whose, is read as it is, and gets its column when it is next opened to be written: neither entries nor hashes
change by that, and signatures hold.
"""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from tidegate.runtime.carbon.ledger.ledger_file import LedgerError as LedgerError
from tidegate.runtime.carbon.ledger.ledger_file import read_only_words, site_in

MIGRATION_LOCK = 0x7469_6465_6761_7465  # pg_advisory_xact_lock: sites that start at once make the tables once


class Tables:
    """The two tables of a store. with_site : whether rows say whose they are; those of before do not."""

    def __init__(self, with_site: bool) -> None:
        self.meta = sa.MetaData()
        self.with_site = with_site

        def of_site() -> list[sa.Column[str]]:
            return [sa.Column("site", sa.Text, primary_key=True)] if with_site else []

        self.entries = sa.Table(
            "entries",
            self.meta,
            *of_site(),
            sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("kind", sa.String(16), nullable=False),
            sa.Column("start_utc_s", sa.BigInteger, nullable=False),
            sa.Column("body", sa.Text, nullable=False),
            sa.Column("hash", sa.String(64), nullable=False),
        )
        self.state = sa.Table(
            "state",
            self.meta,
            *of_site(),
            sa.Column("name", sa.String(32), primary_key=True),
            sa.Column("body", sa.Text, nullable=False),
            sa.Column("hash", sa.String(64), nullable=False),
        )
        columns = ["site"] * with_site + ["kind", "start_utc_s"]
        sa.Index("entries_by_site" if with_site else "entries_by_kind", *(self.entries.c[name] for name in columns))


WITH_SITE, WITHOUT_SITE = Tables(True), Tables(False)


def split_address(text: str) -> tuple[str, str | None]:
    """(URL, site) of an address: behind the # of a URL stands whose ledger is meant. A path may hold any character."""
    if "://" not in text or text.startswith("sqlite:"):
        return text, None
    url, mark, site = text.partition("#")
    return url, site if mark else None


def make_engine(text: str, read_only: bool) -> sa.Engine:
    """The engine of a path or an SQLAlchemy URL. Raises LedgerError for one that cannot be used."""
    path = text.removeprefix("sqlite:///") if "://" not in text or text.startswith("sqlite:///") else None
    if read_only and path is not None and "mode=ro" not in text and not Path(path).exists():
        raise LedgerError(f"{path}: no ledger there")
    try:
        if path is not None and "?" not in path:
            engine = sa.create_engine(_sqlite_url(path, read_only))
        elif path is not None:
            engine = sa.create_engine(text)
        else:  # a site writes a few times a minute: it holds no connection of a server that hundreds share
            engine = sa.create_engine(text, poolclass=sa.pool.NullPool)
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError) as error:
        raise LedgerError(f"{text}: {error}; expected a path or an SQLAlchemy URL with its driver") from None
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _tune_sqlite(read_only))
    elif read_only:
        engine = engine.execution_options(postgresql_readonly=True)
    return engine


def open_tables(engine: sa.Engine, read_only: bool) -> Tables:
    """The tables as they are; made, or given the column of the site, where they may be written."""
    if read_only:
        return _as_they_are(engine) or WITH_SITE
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        elif _as_they_are(connection) is not WITH_SITE:
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver begins with the first change otherwise
        if _as_they_are(connection) is WITHOUT_SITE:
            _name_rows(connection, _site_of(connection))
        else:
            WITH_SITE.meta.create_all(connection)
    return WITH_SITE


def _as_they_are(at: sa.Engine | sa.Connection) -> Tables | None:
    """Which tables are there; None if there are none."""
    look = sa.inspect(at)
    if not look.has_table("entries"):
        return None
    return WITH_SITE if any(row["name"] == "site" for row in look.get_columns("entries")) else WITHOUT_SITE


def _site_of(connection: sa.Connection) -> str:
    """The site that the opening entry of a store of before names; "" if it names none."""
    entries = WITHOUT_SITE.entries.c
    return site_in(connection.execute(sa.select(entries.body).where(entries.seq == 0)).scalar())


def _name_rows(connection: sa.Connection, site: str) -> None:
    """Give each row its site. The rows themselves go over as they are."""
    for table in ("entries", "state"):
        connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO {table}_before")
    connection.exec_driver_sql("DROP INDEX IF EXISTS entries_by_kind")
    if connection.dialect.name == "postgresql":  # the names of the keys are taken, too
        for table in ("entries", "state"):
            connection.exec_driver_sql(f"ALTER TABLE {table}_before DROP CONSTRAINT IF EXISTS {table}_pkey")
    WITH_SITE.meta.create_all(connection, checkfirst=False)
    for table, columns in (("entries", "seq, kind, start_utc_s, body, hash"), ("state", "name, body, hash")):
        connection.execute(
            sa.text(f"INSERT INTO {table} (site, {columns}) SELECT :site, {columns} FROM {table}_before"),
            {"site": site},
        )
        connection.exec_driver_sql(f"DROP TABLE {table}_before")


def sites_in(engine: sa.Engine, tables: Tables) -> list[str]:
    """The sites that have a ledger here, sorted; one step of the key for each, whatever their length."""
    if not tables.with_site:
        with engine.connect() as connection:
            row = connection.execute(sa.select(WITHOUT_SITE.entries.c.body).where(WITHOUT_SITE.entries.c.seq == 0))
            return [site_in(row.scalar())]
    found: list[str] = []
    site = tables.entries.c.site
    with engine.connect() as connection:
        query = sa.select(sa.func.min(site))
        name = connection.execute(query).scalar()
        while name is not None:
            found.append(name)
            name = connection.execute(query.where(site > name)).scalar()
    return found


def _sqlite_url(path: str, read_only: bool) -> sa.URL:
    """The URL of a file of any name, # and % included. Raises LedgerError for what cannot be read where it lies."""
    if not read_only:
        return sa.URL.create("sqlite", database=path)
    return sa.URL.create("sqlite", database=f"file:{quote(path)}", query={**read_only_words(path), "uri": "true"})


def _tune_sqlite(read_only: bool) -> Any:
    def tune(connection: Any, _record: Any) -> None:
        if not read_only:
            # WAL with FULL: a commit is on the disk when it returns, and readers never stop the writer.
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA cache_size=-8000")

    return tune
