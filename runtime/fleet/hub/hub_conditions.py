"""How each site is, its events and its minutes, in the hub's PostgreSQL: what the fleet's page shows."""

import json
from collections.abc import Mapping

import psycopg
from psycopg import sql

from tidegate.runtime.fleet.hub.fleet_rollup import LEAST_UTC_S, MOST_UTC_S, make_month, month_bounds
from tidegate.runtime.fleet.site_condition import Condition, Position, rows_of

Cursor = psycopg.Cursor[tuple[object, ...]]
NOW_BYTES_MAX = 32_768
MONTHLY = ("fleet_events", "fleet_minutes")
TABLES = """
CREATE TABLE IF NOT EXISTS fleet_conditions (
    site text PRIMARY KEY, now text NOT NULL, heard_utc_s bigint NOT NULL, clock_off_s bigint NOT NULL,
    event_boot text, event_seq bigint, meter_boot text, meter_seq bigint
);
CREATE TABLE IF NOT EXISTS fleet_events (
    site text NOT NULL, start_utc_s bigint NOT NULL, boot text NOT NULL, seq bigint NOT NULL, kind text NOT NULL,
    body text NOT NULL, PRIMARY KEY (site, start_utc_s, boot, seq)
) PARTITION BY RANGE (start_utc_s);
CREATE TABLE IF NOT EXISTS fleet_minutes (
    site text NOT NULL, start_utc_s bigint NOT NULL, body text NOT NULL, PRIMARY KEY (site, start_utc_s)
) PARTITION BY RANGE (start_utc_s);
"""


def take_condition(cursor: Cursor, made: Condition, now_s: int) -> tuple[Position | None, Position | None]:
    """Keep it, in the caller's transaction. -> the marks of events and of meter records after that."""
    cursor.execute(
        "INSERT INTO fleet_conditions (site, now, heard_utc_s, clock_off_s) VALUES (%s, '{}', 0, 0) "
        "ON CONFLICT (site) DO NOTHING", (made.site,),
    )  # fmt: skip
    cursor.execute("SELECT event_boot, event_seq, meter_boot, meter_seq FROM fleet_conditions WHERE site = %s "
                   "FOR UPDATE", (made.site,))  # fmt: skip
    cursor.executemany(
        "INSERT INTO fleet_events (site, start_utc_s, boot, seq, kind, body) VALUES (%s, %s, %s, %s, %s, %s) "
        "ON CONFLICT DO NOTHING", list(_events(cursor, made)),
    )  # fmt: skip
    minutes = [one for one in made.minutes if LEAST_UTC_S <= one.start_utc_s < MOST_UTC_S]
    for one in minutes:
        make_month(cursor, "fleet_minutes", one.start_utc_s)
    cursor.executemany(
        "INSERT INTO fleet_minutes (site, start_utc_s, body) VALUES (%s, %s, %s) "
        "ON CONFLICT (site, start_utc_s) DO UPDATE SET body = EXCLUDED.body",
        [(made.site, one.start_utc_s, json.dumps({name: list(row) for name, row in one.values.items()}))
         for one in minutes],
    )  # fmt: skip
    utc_s = made.now.get("utc_s")
    off_s = utc_s - now_s if isinstance(utc_s, int) and abs(utc_s) < 1 << 40 else 0
    boot, seq = made.event_mark or (None, None)
    meter_boot, meter_seq = made.meter_mark or (None, None)
    row = cursor.execute(
        "UPDATE fleet_conditions SET now = %s, heard_utc_s = %s, clock_off_s = %s, "
        "event_boot = coalesce(%s, event_boot), event_seq = coalesce(%s, event_seq), "
        "meter_boot = coalesce(%s, meter_boot), meter_seq = coalesce(%s, meter_seq) WHERE site = %s "
        "RETURNING event_boot, event_seq, meter_boot, meter_seq",
        (_bounded(made.now), now_s, off_s, boot, seq, meter_boot, meter_seq, made.site),
    ).fetchone()
    assert row is not None
    return _mark(row[0], row[1]), _mark(row[2], row[3])


def _events(cursor: Cursor, made: Condition) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for boot, seq, utc_s, kind, text in rows_of(made.events):
        at = min(max(utc_s, LEAST_UTC_S), MOST_UTC_S - 1)  # of a clock that was never set; its own time is in the text
        make_month(cursor, "fleet_events", at)
        rows.append((made.site, at, boot, seq, kind, text))
    return rows


def _bounded(now: Mapping[str, object]) -> str:
    """The condition as JSON; its alarms go first where it is too long, and that is then said."""
    text = json.dumps(dict(now), default=str)
    if len(text) <= NOW_BYTES_MAX:
        return text
    shorter = {name: value for name, value in now.items() if isinstance(value, (int, float)) or name == "version"}
    return json.dumps({**shorter, "cut": "longer than a hub keeps"}, default=str)[:NOW_BYTES_MAX]


def _mark(boot: object, seq: object) -> Position | None:
    return None if boot is None or seq is None else (str(boot), int(str(seq)))


def forget_before(cursor: Cursor, utc_s: int) -> list[str]:
    """Drop the months of events and minutes that end before a moment. -> the partitions that are gone."""
    month = month_bounds(utc_s)[0]
    gone = []
    for table in MONTHLY:
        cursor.execute("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass", (table,))
        for name in [str(row[0]) for row in cursor.fetchall()]:
            if name.removeprefix(f"{table}_") < month:
                cursor.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
                gone.append(name)
    return sorted(gone)
