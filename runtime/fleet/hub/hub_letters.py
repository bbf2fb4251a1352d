"""What the hub did not take: kept for a person to read, to put through the same checks again, or to close.

Bounded for each site, so that one stolen login fills no disk: what comes above the bound is counted in one letter that
says so, and what was first is kept, since that is where it began.
"""

import time
from typing import NamedTuple

import psycopg

from tidegate.runtime.fleet.chain_check import Finding

Cursor = psycopg.Cursor[tuple[object, ...]]
LETTER_BYTES_MAX = 1 << 20
OF_A_SITE_MAX, BYTES_OF_A_SITE_MAX = 100, 8 << 20
OVERFLOW = "overflow"
OVERFLOW_TEXT = (
    f"more findings than the {OF_A_SITE_MAX} letters that a site may have are counted here and not kept; read the "
    "first ones, then: tidegate hub letters --close ID"
)
TABLES = """
CREATE TABLE IF NOT EXISTS fleet_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, site text NOT NULL, seq bigint NOT NULL, kind text NOT NULL,
    what text NOT NULL, first_utc_s bigint NOT NULL, last_utc_s bigint NOT NULL, times bigint NOT NULL DEFAULT 1,
    message bytea NOT NULL, UNIQUE (site, seq, kind, what)
);
ALTER TABLE fleet_letters ADD COLUMN IF NOT EXISTS whole boolean NOT NULL DEFAULT true;
CREATE TABLE IF NOT EXISTS fleet_letters_closed (
    id bigint PRIMARY KEY, site text NOT NULL, seq bigint NOT NULL, kind text NOT NULL, what text NOT NULL,
    times bigint NOT NULL, closed_utc_s bigint NOT NULL, closed_by text NOT NULL, reason text NOT NULL
);
"""


class Letter(NamedTuple):
    """Something that was not taken, and how often it came. whole : whether its message is kept to the last byte."""

    site: str
    seq: int
    kind: str
    what: str
    last_utc_s: int
    times: int
    id: int = 0
    size: int = 0
    whole: bool = True


def put_letter(cursor: Cursor, site: str, finding: Finding, message: bytes) -> None:
    """Once for all times that the same comes: a site sends it again until somebody has looked."""
    now_s = int(time.time())
    again = cursor.execute(
        "UPDATE fleet_letters SET last_utc_s = %s, times = times + 1 "
        "WHERE site = %s AND seq = %s AND kind = %s AND what = %s",
        (now_s, site, finding.seq, finding.kind, finding.what),
    )
    if again.rowcount:
        return
    cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 7163948522))", (site,))
    row = cursor.execute(
        "SELECT count(*), coalesce(sum(length(message)), 0) FROM fleet_letters WHERE site = %s AND kind <> %s",
        (site, OVERFLOW),
    ).fetchone()
    assert row is not None
    count, size = int(str(row[0])), int(str(row[1]))
    if count >= OF_A_SITE_MAX:
        finding, message = Finding(OVERFLOW, -1, OVERFLOW_TEXT), b""
    kept = message[: min(LETTER_BYTES_MAX, max(0, BYTES_OF_A_SITE_MAX - size))]
    cursor.execute(
        "INSERT INTO fleet_letters (site, seq, kind, what, first_utc_s, last_utc_s, message, whole) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (site, seq, kind, what) "
        "DO UPDATE SET last_utc_s = EXCLUDED.last_utc_s, times = fleet_letters.times + 1",
        (site, finding.seq, finding.kind, finding.what, now_s, now_s, kept, len(kept) == len(message) > 0),
    )


def all_letters(cursor: Cursor) -> list[Letter]:
    """What was not taken, newest first."""
    cursor.execute(
        "SELECT site, seq, kind, what, last_utc_s, times, id, length(message), whole FROM fleet_letters "
        "ORDER BY last_utc_s DESC, id DESC"
    )
    return [Letter(*row) for row in cursor]  # type: ignore[arg-type]


def message_of(cursor: Cursor, number: int) -> tuple[Letter, bytes] | None:
    """A letter and its message; None if there is none of this number."""
    row = cursor.execute(
        "SELECT site, seq, kind, what, last_utc_s, times, id, length(message), whole, message FROM fleet_letters "
        "WHERE id = %s", (number,),
    ).fetchone()  # fmt: skip
    if row is None:
        return None
    message = row[-1]
    assert isinstance(message, bytes)
    return Letter(*row[:-1]), message  # type: ignore[arg-type]


def close_letter(cursor: Cursor, number: int, by: str, reason: str) -> bool:
    """Take a letter away; that it was there, who closed it and why stays. -> whether it was there."""
    done = cursor.execute(
        "WITH gone AS (DELETE FROM fleet_letters WHERE id = %s RETURNING id, site, seq, kind, what, times) "
        "INSERT INTO fleet_letters_closed SELECT *, %s, %s, %s FROM gone",
        (number, int(time.time()), by, reason),
    )
    return done.rowcount == 1
