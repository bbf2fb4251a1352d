"""The hub's flat rows: each period and job of every site as whole numbers, made from checked entries.

They hold nothing that the entries do not, and are made anew from them at any time. Only what is in force stands there:
a correction replaces the row of the period it corrects, as in the site's own report.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import msgspec
import psycopg
from psycopg import sql

from tidegate.runtime.carbon.engine.attribution import THROUGH_STORAGE
from tidegate.runtime.carbon.integers import carbon_ug
from tidegate.runtime.carbon.ledger.bodies import CHARGE_BOOKED, PeriodBody, SettlementBody, current

Cursor = psycopg.Cursor[tuple[object, ...]]
# What a period adds up to; each is a sum over sites and time. Energies at the meters, carbon in micrograms.
SUMS = (
    "length_s", "import_milliwh", "import_ug", "generation_milliwh", "discharge_milliwh", "charge_milliwh",
    "export_milliwh", "export_ug", "load_milliwh", "load_ug", "other_milliwh", "other_ug", "loss_milliwh", "loss_ug",
    "inflow_ug", "created_ug", "stock_change_ug", "same_period_milliwh", "same_period_ug", "shifted_milliwh",
    "shifted_ug", "own_export_milliwh", "not_good_milliwh", "priced_milliwh", "cost_u",
)  # fmt: skip
JOB_COLUMNS_FLAT = ("site", "start_utc_s", "line", "seq", "job", "tenant", "node", "energy_milliwh", "ug")
TABLES_LOCK = "SELECT pg_advisory_xact_lock(7163948520)"  # who makes tables, one after the other
PLACES = """
CREATE TABLE IF NOT EXISTS fleet_places (
    site text PRIMARY KEY, owner text NOT NULL DEFAULT '', region text NOT NULL DEFAULT '',
    latitude_udeg bigint, longitude_udeg bigint
);
"""
TABLES = f"""
{PLACES}
CREATE TABLE IF NOT EXISTS fleet_rolled (
    site text PRIMARY KEY, seq bigint NOT NULL DEFAULT -1, roles text NOT NULL DEFAULT '{{}}',
    left_out bigint NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS fleet_periods (
    site text NOT NULL, start_utc_s bigint NOT NULL, seq bigint NOT NULL,
    {", ".join(f"{name} bigint NOT NULL" for name in SUMS)}, PRIMARY KEY (site, start_utc_s)
) PARTITION BY RANGE (start_utc_s);
CREATE TABLE IF NOT EXISTS fleet_jobs (
    site text NOT NULL, start_utc_s bigint NOT NULL, line bigint NOT NULL, seq bigint NOT NULL, job text NOT NULL,
    tenant text NOT NULL, node text NOT NULL, energy_milliwh bigint NOT NULL, ug bigint NOT NULL,
    PRIMARY KEY (site, start_utc_s, line)
);
"""
SITES_AT_ONCE = 50
FIRST_YEAR, LAST_YEAR = 2000, 2100  # a period of another year is left out, counted and named
DAY_S = 86_400


def period_sums(body: PeriodBody, roles: Mapping[str, str]) -> tuple[int, ...]:
    """A period in the order of SUMS. roles : node -> role, of the last method entry before it."""
    kinds: dict[str, int] = {}
    own: set[str] = set()
    not_good = 0
    for name, flow in body["flows"].items():
        node, _, kind = name.partition(".")
        milliwh = flow["energy_milliwh"]
        kinds[kind] = kinds.get(kind, 0) + milliwh
        if kind == "generation" and roles.get(node) != "generator":
            own.add(node)
        if flow["quality"] != "good":
            not_good += milliwh
    factors = body["factors"]
    unknown = body["method"].get("unknown_ug_per_kwh", 0)
    grid = factors["grid"]["ug_per_kwh"] if "grid" in factors else unknown
    export = [0, 0]
    load = [0, 0]
    other = [0, 0]
    same = [0, 0]
    shifted = [0, 0]
    own_export = 0
    for out in body["outflows"]:
        booked = out["name"] == CHARGE_BOOKED
        if out["kind"] == "charge" and not booked:
            continue
        into = export if out["kind"] == "export" else load if out["kind"] == "load" and not booked else other
        into[0] += 0 if booked else out["energy_milliwh"]
        into[1] += out["ug"]
        if into is load:
            for origin, milliwh in out["origins"].items():
                if origin.endswith(THROUGH_STORAGE):
                    shifted[0] += milliwh
                    shifted[1] += carbon_ug(milliwh, grid)
                else:
                    same[0] += milliwh
                    factor = factors[origin]["ug_per_kwh"] if origin in factors else unknown
                    same[1] += carbon_ug(milliwh, factor)
        elif into is export:
            own_export += sum(milliwh for origin, milliwh in out["origins"].items() if origin in own)
    stocks = body["stock"].values()
    price = body.get("price_u_per_kwh")
    imported = body["flows"]["grid.import"]["energy_milliwh"] if "grid.import" in body["flows"] else 0
    priced, cost_u = (0, 0) if price is None else (imported, price * imported // 1_000_000)
    return (
        body["length_s"], kinds.get("import", 0), body["inflow_ug"].get("grid", 0), kinds.get("generation", 0),
        kinds.get("discharge", 0), kinds.get("charge", 0), export[0], export[1], load[0], load[1], other[0], other[1],
        sum(body["loss_milliwh"].values()), sum(body["loss_ug"].values()), sum(body["inflow_ug"].values()),
        body["created_ug"], sum(stock["ug"] - stock["opening_ug"] for stock in stocks), same[0], same[1],
        shifted[0], shifted[1], own_export, not_good, priced, cost_u,
    )  # fmt: skip


def month_bounds(utc_s: int) -> tuple[str, int, int]:
    """(name, start, end) of the month of a moment, UTC."""
    at = datetime.fromtimestamp(utc_s, UTC)
    start = datetime(at.year, at.month, 1, tzinfo=UTC)
    end = datetime(at.year + at.month // 12, at.month % 12 + 1, 1, tzinfo=UTC)
    return f"{at.year:04d}_{at.month:02d}", int(start.timestamp()), int(end.timestamp())


LEAST_UTC_S = int(datetime(FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp())
MOST_UTC_S = int(datetime(LAST_YEAR, 1, 1, tzinfo=UTC).timestamp())


def make_month(cursor: Cursor, table: str, utc_s: int) -> None:
    """The partition of a table that a moment belongs to, made if it is not there."""
    name, start, end = month_bounds(utc_s)
    part = f"{table}_{name}"
    if cursor.execute("SELECT to_regclass(%s)", (part,)).fetchone() == (None,):
        cursor.execute("SELECT pg_advisory_xact_lock(7163948521)")
        cursor.execute(
            sql.SQL("CREATE TABLE IF NOT EXISTS {} PARTITION OF {} FOR VALUES FROM ({}) TO ({})").format(
                sql.Identifier(part), sql.Identifier(table), sql.Literal(start), sql.Literal(end)
            )
        )
        cursor.execute(
            sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} USING brin (start_utc_s)").format(
                sql.Identifier(f"{part}_brin"), sql.Identifier(part)
            )
        )


def forget_rows(cursor: Cursor, site: str) -> None:
    """A site's flat rows are made anew at the next roll-up, in the caller's transaction."""
    cursor.execute("INSERT INTO fleet_rolled (site) VALUES (%s) ON CONFLICT DO NOTHING", (site,))
    cursor.execute("UPDATE fleet_rolled SET seq = -1, roles = '{}', left_out = 0 WHERE site = %s", (site,))
    cursor.execute("DELETE FROM fleet_periods WHERE site = %s", (site,))
    cursor.execute("DELETE FROM fleet_jobs WHERE site = %s", (site,))


class Rollup:
    """Brings the flat rows up to what the ingest has taken. connection : its own, autocommit. Raises psycopg.Error."""

    def __init__(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        self._connection = connection
        self._months: set[str] = set()

    def bring_up(self) -> int:
        """All sites, some in a transaction. -> entries that were looked at."""
        self._connection.execute(
            "INSERT INTO fleet_rolled (site) SELECT site FROM fleet_sites ON CONFLICT (site) DO NOTHING"
        )
        waiting = [str(row[0]) for row in self._connection.execute(
            "SELECT r.site FROM fleet_rolled r JOIN fleet_sites s ON s.site = r.site WHERE r.seq < s.seq ORDER BY 1"
        )]  # fmt: skip
        done = 0
        for first in range(0, len(waiting), SITES_AT_ONCE):
            with self._connection.transaction(), self._connection.cursor() as cursor:
                done += self._some(cursor, waiting[first : first + SITES_AT_ONCE])
        return done

    def _some(self, cursor: Cursor, sites: Sequence[str]) -> int:
        cursor.execute("SELECT site, seq, roles FROM fleet_rolled WHERE site = ANY(%s) ORDER BY site FOR UPDATE",
                       (sites,))  # fmt: skip
        known = {str(site): (int(str(seq)), str(roles)) for site, seq, roles in cursor}
        rows: list[tuple[object, ...]] = []
        days: dict[tuple[str, int], list[tuple[object, ...]]] = {}
        looked = 0
        for site in sites:
            seq, roles_text = known[site]
            site_periods, site_days, last, roles, left_out, count = _flat(
                site, _entries(cursor, site, seq), seq, msgspec.json.decode(roles_text)
            )
            looked += count
            rows += site_periods
            days |= site_days
            cursor.execute(
                "UPDATE fleet_rolled SET seq = %s, roles = %s, left_out = left_out + %s WHERE site = %s",
                (last, msgspec.json.encode(roles).decode(), left_out, site),
            )
        self._put_periods(cursor, rows)
        self._put_days(cursor, days)
        return looked

    def _put_periods(self, cursor: Cursor, rows: Sequence[tuple[object, ...]]) -> None:
        if not rows:
            return
        for utc_s in {int(str(row[1])) // DAY_S * DAY_S for row in rows}:
            name = month_bounds(utc_s)[0]
            if name not in self._months:
                make_month(cursor, "fleet_periods", utc_s)
                self._months.add(name)
        columns = ("site", "start_utc_s", "seq", *SUMS)
        cursor.execute("CREATE TEMPORARY TABLE IF NOT EXISTS rolled_now (LIKE fleet_periods) ON COMMIT DELETE ROWS")
        with cursor.copy(f"COPY rolled_now ({', '.join(columns)}) FROM STDIN") as out:
            for row in rows:
                out.write_row(row)
        cursor.execute(
            f"INSERT INTO fleet_periods ({', '.join(columns)}) SELECT {', '.join(columns)} FROM rolled_now "
            f"ON CONFLICT (site, start_utc_s) DO UPDATE SET "
            f"{', '.join(f'{name} = EXCLUDED.{name}' for name in columns[2:])} "
            "WHERE EXCLUDED.seq > fleet_periods.seq"
        )

    @staticmethod
    def _put_days(cursor: Cursor, days: Mapping[tuple[str, int], Sequence[tuple[object, ...]]]) -> None:
        for site, start_utc_s in days:
            cursor.execute("DELETE FROM fleet_jobs WHERE site = %s AND start_utc_s = %s", (site, start_utc_s))
        with cursor.copy(f"COPY fleet_jobs ({', '.join(JOB_COLUMNS_FLAT)}) FROM STDIN") as out:
            for rows in days.values():
                for row in rows:
                    out.write_row(row)


Held = tuple[int, str, int, str]  # seq, kind, start_utc_s, body


def _entries(cursor: Cursor, site: str, after_seq: int) -> Iterator[Held]:
    cursor.execute(
        "SELECT seq, kind, start_utc_s, body FROM entries WHERE site = %s AND seq > %s ORDER BY seq", (site, after_seq)
    )
    yield from cursor


def _flat(
    site: str, entries: Iterator[Held], after_seq: int, roles: dict[str, str]
) -> tuple[list[tuple[object, ...]], dict[tuple[str, int], list[tuple[object, ...]]], int, dict[str, str], int, int]:
    """(rows of periods, rows of jobs by day, last entry, roles, entries left out, entries)."""
    periods: dict[int, tuple[object, ...]] = {}
    days: dict[tuple[str, int], list[tuple[object, ...]]] = {}
    last, left_out, count = after_seq, 0, 0
    for seq, kind, start_utc_s, text in entries:
        last = seq
        count += 1
        if kind not in ("period", "job", "method"):
            continue
        if not LEAST_UTC_S <= start_utc_s < MOST_UTC_S and kind != "method":
            left_out += 1
            continue
        try:
            body = current(kind, msgspec.json.decode(text))
            if kind == "method":
                roles = {str(name): str(role) for name, role in (body.get("kinds") or {}).items()}
            elif kind == "period":
                periods[start_utc_s] = _kept((site, start_utc_s, seq, *period_sums(body, roles)))
            else:
                days[site, start_utc_s] = [_kept(row) for row in _job_rows(site, start_utc_s, seq, body)]
        except (KeyError, TypeError, ValueError, AttributeError):
            left_out += 1  # signed, and not as any release writes it: the report names the site
    return list(periods.values()), days, last, roles, left_out, count


def _job_rows(site: str, start_utc_s: int, seq: int, body: SettlementBody) -> Iterator[tuple[object, ...]]:
    for line, (job, owner, node, _, _, milliwh, ug, _, _, _) in enumerate(body["jobs"]):
        yield site, start_utc_s, line, seq, job, owner, node, milliwh, ug


def _kept(row: tuple[object, ...]) -> tuple[object, ...]:
    """The row, if PostgreSQL can hold it. Raises ValueError."""
    for value in row:
        if (type(value) is int and abs(value) < 1 << 62) or (type(value) is str and "\0" not in value):
            continue
        raise ValueError(f"{value!r} is no number or text of a row")
    return row
