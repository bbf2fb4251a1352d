"""Energy by 5 minutes of everything that telemetry sees, in a SQLite file: written by one process, read by others.

It is context, not evidence: nothing in it is signed, and what is older than the days kept goes.
"""

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BUCKET_S = 300
FOLDER = "telemetry"  # in the site's state folder: the telemetry process writes nowhere else
NAME = "telemetry.db"
FILE = f"{FOLDER}/{NAME}"
DAYS_KEPT = 35
LAYOUT = 1


RackKey = tuple[str, str, str]  # node, level, rack
ClaimKey = tuple[str, str, str, str, int]  # node, level, namespace, job, bucket


class Row(NamedTuple):
    """Energy of a thing in a bucket. idle : mWh of it that no work claimed; unused : claimed, and yet at rest."""

    bucket_s: int
    source: str
    node: str
    level: str
    name: str
    host: str
    rack: str
    namespace: str
    job: str
    milliwh: int
    idle_milliwh: int
    unused_milliwh: int
    covered_s: int


_TABLE = """
CREATE TABLE IF NOT EXISTS energy (bucket_s INTEGER, source TEXT, node TEXT, level TEXT, name TEXT, host TEXT,
 rack TEXT, namespace TEXT, job TEXT, milliwh INTEGER, idle_milliwh INTEGER, unused_milliwh INTEGER, covered_s INTEGER,
 PRIMARY KEY (bucket_s, source, level, name, namespace, job)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (source TEXT PRIMARY KEY, heard_utc_s REAL, hosts INTEGER, silent INTEGER,
 trouble TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reading (source TEXT, what TEXT, name TEXT, value REAL, utc_s REAL,
 PRIMARY KEY (source, what, name)) WITHOUT ROWID;
"""


class EnergyStore:
    """The file. path : where; read_only for everybody but the telemetry process. Raises sqlite3.Error, OSError."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        if not read_only:
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        uri = f"{path.absolute().as_uri()}{'?mode=ro' if read_only else ''}"
        self._base = sqlite3.connect(uri, uri=True, timeout=2.0, isolation_level=None)
        if not read_only:
            self._base.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; {_TABLE}")
            self._base.execute(f"PRAGMA user_version={LAYOUT}")
        found = self._base.execute("PRAGMA user_version").fetchone()[0]
        if found != LAYOUT:
            raise sqlite3.DatabaseError(f"{path}: layout {found}, this release reads {LAYOUT}; move the file away")

    def put(self, rows: list[Row], states: list[tuple[str, float, int, int, str]],
            readings: list[tuple[str, str, str, float, float]]) -> None:  # fmt: skip
        """Write rows over those of before, the state of each source, and its newest context readings."""
        self._base.execute("BEGIN IMMEDIATE")
        try:
            self._base.executemany(f"INSERT OR REPLACE INTO energy VALUES ({','.join('?' * 13)})", rows)
            self._base.executemany("INSERT OR REPLACE INTO state VALUES (?,?,?,?,?)", states)
            self._base.executemany("INSERT OR REPLACE INTO reading VALUES (?,?,?,?,?)", readings)
            self._base.execute("COMMIT")
        except BaseException:
            self._base.execute("ROLLBACK")
            raise

    def forget(self, now_utc_s: float, days: int = DAYS_KEPT) -> None:
        """Let go what is older."""
        self._base.execute("DELETE FROM energy WHERE bucket_s < ?", (int(now_utc_s) - days * 86_400,))
        self._base.execute("DELETE FROM reading WHERE utc_s < ?", (now_utc_s - 86_400,))

    def rows(self, start_utc_s: int, end_utc_s: int) -> Iterator[Row]:
        """Rows of the buckets that begin in [start, end)."""
        query = "SELECT * FROM energy WHERE bucket_s >= ? AND bucket_s < ?"
        for row in self._base.execute(query, (start_utc_s, end_utc_s)):
            yield Row(*row)

    def sums(self, start_utc_s: int, end_utc_s: int) -> tuple[dict[RackKey, int], dict[ClaimKey, int]]:
        """mWh of the buckets that begin in [start, end): by rack, and by claim and bucket."""
        where, span = "FROM energy WHERE bucket_s >= ? AND bucket_s < ?", (start_utc_s, end_utc_s)
        racks = self._base.execute(f"SELECT node, level, rack, SUM(milliwh) {where} GROUP BY node, level, rack", span)
        claims = self._base.execute(
            f"SELECT node, level, namespace, job, bucket_s, SUM(milliwh) {where} AND level IN ('card', 'pod') "
            "GROUP BY node, level, namespace, job, bucket_s", span
        )  # fmt: skip
        return {(r[0], r[1], r[2]): r[3] for r in racks}, {(r[0], r[1], r[2], r[3], r[4]): r[5] for r in claims}

    def first_bucket(self) -> int | None:
        """The oldest 5 minutes that are kept; None where there are none."""
        found: int | None = self._base.execute("SELECT MIN(bucket_s) FROM energy").fetchone()[0]
        return found

    def card_hours(self, start_utc_s: int, end_utc_s: int) -> Iterator[tuple[str, str, str, int, int, int]]:
        """(node, card, rack, hour, mWh that no work claimed, mWh claimed and at rest) where there is any."""
        return self._base.execute(
            "SELECT node, name, rack, bucket_s / 3600 * 3600, SUM(idle_milliwh), SUM(unused_milliwh) FROM energy "
            "WHERE level = 'card' AND bucket_s >= ? AND bucket_s < ? AND idle_milliwh + unused_milliwh > 0 "
            "GROUP BY node, name, rack, bucket_s / 3600", (start_utc_s, end_utc_s),
        )  # fmt: skip

    def work(self, start_utc_s: int, end_utc_s: int, system: tuple[str, ...]) -> Iterator[tuple[str, str, int, int]]:
        """(host, rack, bucket, mWh of work) of hosts whose cards, or else pods, are known. system : namespaces that
        are no work of anybody's."""
        marks = ",".join("?" * len(system))
        return self._base.execute(
            "SELECT host, rack, bucket_s, SUM(CASE WHEN job != '' AND namespace NOT IN "
            f"({marks}) THEN milliwh - unused_milliwh ELSE 0 END) FROM energy "
            "WHERE level IN ('card', 'pod') AND bucket_s >= ? AND bucket_s < ? GROUP BY host, rack, bucket_s",
            (*system, start_utc_s, end_utc_s),
        )  # fmt: skip

    def drawn(self, start_utc_s: int, end_utc_s: int) -> Iterator[tuple[str, str, str, str, str, int, int]]:
        """(level, node, name, host, rack, bucket, mWh) of servers and PDUs."""
        return self._base.execute(
            "SELECT level, node, name, host, rack, bucket_s, milliwh FROM energy WHERE level IN ('server', 'pdu') "
            "AND bucket_s >= ? AND bucket_s < ? ORDER BY bucket_s", (start_utc_s, end_utc_s),
        )  # fmt: skip

    def states(self) -> list[tuple[str, float, int, int, str]]:
        """(source, when it was last heard, hosts, of these silent, trouble) of each."""
        return list(self._base.execute("SELECT source, heard_utc_s, hosts, silent, trouble FROM state"))

    def readings(self) -> list[tuple[str, str, str, float, float]]:
        """(source, what, name, value, when) of each context reading."""
        return list(self._base.execute("SELECT source, what, name, value, utc_s FROM reading"))

    def close(self) -> None:
        self._base.close()


def bucket_of(utc_s: float) -> int:
    """Start of the bucket that a moment lies in."""
    return int(utc_s // BUCKET_S) * BUCKET_S


def opened(folder: Path) -> EnergyStore | None:
    """The store of a site for reading; None where telemetry has never run."""
    path = folder / FILE
    return EnergyStore(path, read_only=True) if path.exists() else None


def now_s() -> float:
    """The wall clock: buckets are labels for people and for the account, never a measure of time."""
    return time.time()
