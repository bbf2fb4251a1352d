"""A ledger's SQLite file, opened to be read with what Python brings alone: for a process that must stay small.

`ledger.py` writes it, and reads every kind of store; what both need to open a file stands here.
"""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, urlencode

SCHEMA_VERSION = 2  # 1: bodies with the names of before, see bodies.py; it is read for ever


class LedgerError(RuntimeError):
    """The ledger cannot be used; the text says what to do."""


def path_in(text: str) -> str | None:
    """The file that a path or an SQLAlchemy URL means; None for a server, or a URL with words of its own."""
    if "://" in text and not text.startswith("sqlite:///"):
        return None
    path = text.removeprefix("sqlite:///")
    return None if "?" in path else path


def read_only_words(path: str) -> dict[str, str]:
    """How SQLite is asked for a file that is only read. Raises LedgerError for what cannot be read where it lies.

    SQLite wants to write beside a ledger even to read it. Where it may not, the file is opened as one that does not
    change, which is right unless entries wait in the file of the write-ahead log.
    """
    words = {"mode": "ro"}
    if not os.access(Path(path).absolute().parent, os.W_OK):
        log = Path(f"{path}-wal")
        if log.exists() and log.stat().st_size and not Path(f"{path}-shm").exists():
            raise LedgerError(
                f"{path}: its newest entries wait in {log.name}, and nothing may be written beside it; copy both to a "
                "folder that may be written, and read them there"
            )
        if not log.exists() or not log.stat().st_size:
            words["immutable"] = "1"
    return words


def site_in(body: str | None) -> str:
    """The site that an opening entry names; "" if it names none, or is damaged."""
    try:
        return str(json.loads(body or "")["site"])
    except (ValueError, KeyError, TypeError):
        return ""


def newer_schema(url: str, version: int) -> LedgerError:
    """What is told of a ledger that a later release wrote."""
    return LedgerError(
        f"{url}: written by schema {version}, this version knows {SCHEMA_VERSION}; update tidegate, nothing was changed"
    )


class LedgerFile:
    """One site's ledger in a file. site : which, where a file holds several; else it is the one that is there.

    Raises LedgerError for a file that cannot be opened, or that a newer version wrote.
    """

    def __init__(self, path: str, site: str = "") -> None:
        self.url = f"sqlite:///{path}"
        if not Path(path).exists():
            raise LedgerError(f"{path}: no ledger there")
        address = f"file:{quote(path)}?{urlencode(read_only_words(path))}"
        try:
            self._base = sqlite3.connect(address, uri=True)
            self._base.execute("PRAGMA cache_size=-1000")
            self.site = self._whose(site)
            self._check_version()
        except sqlite3.Error as error:
            raise LedgerError(f"{path}: cannot be opened as a ledger: {error}") from error

    def _whose(self, site: str) -> str:
        """Which rows are meant; those of a store of before say no site, and its opening entry does."""
        self._where: str = ""
        self._values: tuple[object, ...] = ()
        if not any(row[1] == "site" for row in self._base.execute("PRAGMA table_info(entries)")):
            return site_in(self._opening())
        there = self._base.execute("SELECT site FROM entries ORDER BY site <> ?, site LIMIT 1", (site,)).fetchone()
        found = str(there[0]) if there else site
        self._where, self._values = "site = ? AND ", (found,)
        return found

    def _opening(self) -> str | None:
        row = self._base.execute(f"SELECT body FROM entries WHERE {self._where}seq = 0", self._values).fetchone()
        return str(row[0]) if row else None

    def _check_version(self) -> None:
        try:
            version = int(json.loads(self._opening() or "")["schema"])
        except (ValueError, KeyError, TypeError):
            return  # empty, or for verify to name
        if version > SCHEMA_VERSION:
            raise newer_schema(self.url, version)

    def _rows(self, query: str, *values: object) -> Iterator[tuple[int, str, int, str, str]]:
        columns = "SELECT seq, kind, start_utc_s, body, hash FROM entries"
        try:
            with closing(self._base.execute(f"{columns} WHERE {self._where}{query}", (*self._values, *values))) as rows:
                yield from rows
        except sqlite3.Error as error:
            raise LedgerError(f"{self.url}: {error}") from error

    def raw_rows(self, from_seq: int) -> Iterator[tuple[int, str, int, str, str]]:
        """(seq, kind, start_utc_s, body, hash) of each entry from one on, as they lie there."""
        return self._rows("seq >= ? ORDER BY seq", from_seq)

    def newest_block(self) -> tuple[int, str] | None:
        """(seq, hash) of the newest block; None before the first."""
        for row in self._rows("kind = 'block' ORDER BY seq DESC LIMIT 1"):
            return row[0], row[-1]
        return None

    def restored(self) -> list[int]:
        """Where it says that it was put back from a backup."""
        return [row[0] for row in self._rows("kind = 'restored' ORDER BY seq")]

    def close(self) -> None:
        self._base.close()
