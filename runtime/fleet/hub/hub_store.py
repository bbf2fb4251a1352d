"""The hub's PostgreSQL: the same tables as a site's own ledger, how far each site is, and what was not taken."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import psycopg
import sqlalchemy as sa

from tidegate.runtime.carbon.ledger.store import LedgerError, make_engine, open_tables
from tidegate.runtime.fleet.chain_check import Finding, Mark, take
from tidegate.runtime.fleet.hub import fleet_rollup, hub_conditions, hub_letters
from tidegate.runtime.fleet.invitation import HubError
from tidegate.runtime.fleet.ledger_batch import BatchError, Row, unpack
from tidegate.runtime.fleet.site_condition import Condition, Position

TABLES = """
CREATE TABLE IF NOT EXISTS fleet_sites (
    site text PRIMARY KEY, key text NOT NULL, named text NOT NULL, seq bigint NOT NULL, hash text NOT NULL,
    block_seq bigint NOT NULL, enrolled_utc_s bigint NOT NULL, heard_utc_s bigint NOT NULL DEFAULT 0,
    said text NOT NULL DEFAULT ''
);
ALTER TABLE fleet_sites ADD COLUMN IF NOT EXISTS ahead_s bigint NOT NULL DEFAULT 0;
CREATE TABLE IF NOT EXISTS fleet_set_aside (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, site text NOT NULL, seq bigint NOT NULL, kind text NOT NULL,
    start_utc_s bigint NOT NULL, body text NOT NULL, hash text NOT NULL, accepted_by text NOT NULL, reason text NOT NULL
);
"""
DatabaseAway = psycopg.Error  # for those who ask a store and have no driver of their own
MARK = "SELECT key, named, seq, hash, block_seq FROM fleet_sites WHERE site = %s"


class SiteLine(NamedTuple):
    """A site as the hub knows it."""

    site: str
    key: str
    seq: int
    heard_utc_s: int
    said: str
    ahead_s: int = 0


class HubStore:
    """url : SQLAlchemy URL of a PostgreSQL database, as a site's `[carbon] ledger`. Raises HubError, LedgerError."""

    def __init__(self, url: str) -> None:
        engine = make_engine(url, False)
        if engine.dialect.name != "postgresql":
            raise HubError(f"{url}: a hub keeps many sites in PostgreSQL; give postgresql+psycopg://...")
        try:
            open_tables(engine, False)
        except sa.exc.DatabaseError as why:
            raise LedgerError(f"{url}: {why.orig}") from None
        finally:
            engine.dispose()
        self._address = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._connection = self._connect()
        with self._connection.transaction():
            self._connection.execute(fleet_rollup.TABLES_LOCK)
            self._connection.execute(TABLES)
            self._connection.execute(hub_letters.TABLES)
            self._connection.execute(fleet_rollup.TABLES)
            self._connection.execute(hub_conditions.TABLES)

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self._address, autocommit=True)

    def another(self) -> psycopg.Connection[tuple[object, ...]]:
        """A connection of one's own to the same database, closed by its user. Raises psycopg.Error."""
        return self._connect()

    def reconnect(self) -> None:
        """After an error of the server. Raises psycopg.Error while it is away."""
        self.close()
        self._connection = self._connect()

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _one(self) -> Iterator[psycopg.Cursor[tuple[object, ...]]]:
        with self._connection.transaction(), self._connection.cursor() as cursor:
            yield cursor

    # ---- who may send ----

    def enrol(self, site: str, key: str) -> None:
        """From here on the ledger of `site`, signed with `key`, is taken. Raises HubError for another key."""
        if len(key) != 64 or set(key) - set("0123456789abcdef"):
            raise HubError(f"{key!r} is no public key; `tidegate fleet key` prints it on the unit: 64 hex digits")
        known = self.mark(site)
        if known is not None and known.key != key:
            raise HubError(
                f"{site}: enrolled with the key {known.key[:16]}...; a replaced key is an entry of its ledger"
            )
        now_s = int(time.time())
        fresh = Mark(key, site)
        with self._one() as cursor:
            cursor.execute(
                "INSERT INTO fleet_sites (site, key, named, seq, hash, block_seq, enrolled_utc_s) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (site) DO NOTHING",
                (site, key, site, fresh.seq, fresh.hash, fresh.block_seq, now_s),
            )

    def place(
        self, site: str, owner: str | None, region: str | None, latitude_udeg: int | None, longitude_udeg: int | None
    ) -> None:
        """Whose a site is and where it stands; None leaves what is there. Raises HubError.

        The owner of a unit that joined by a token changes with its login (HubLife.change_owner), not here.
        """
        if self.mark(site) is None:
            raise HubError(f"{site}: not enrolled here; those that are: tidegate hub sites")
        if (latitude_udeg is None) != (longitude_udeg is None):
            raise HubError("a place has a latitude and a longitude")
        if abs(latitude_udeg or 0) > 90_000_000 or abs(longitude_udeg or 0) > 180_000_000:
            raise HubError("latitude -90 to 90, longitude -180 to 180, in degrees")
        with self._one() as cursor:
            cursor.execute("INSERT INTO fleet_places (site) VALUES (%s) ON CONFLICT (site) DO NOTHING", (site,))
            row = cursor.execute("SELECT owner FROM fleet_places WHERE site = %s FOR UPDATE", (site,)).fetchone()
            before = "" if row is None else str(row[0])
            if owner is not None and before and owner != before and self._has_unit(cursor, site):
                raise HubError(
                    f"{site} is {before}'s; its unit changes hands with its login: "
                    f"tidegate hub owner {site} --to {owner!r} --by NAME --reason TEXT"
                )
            cursor.execute(
                "UPDATE fleet_places SET owner = coalesce(%s, owner), region = coalesce(%s, region), "
                "latitude_udeg = coalesce(%s, latitude_udeg), longitude_udeg = coalesce(%s, longitude_udeg) "
                "WHERE site = %s",
                (owner, region, latitude_udeg, longitude_udeg, site),
            )

    @staticmethod
    def _has_unit(cursor: psycopg.Cursor[tuple[object, ...]], site: str) -> bool:
        cursor.execute("SELECT to_regclass('fleet_units') IS NOT NULL")
        if cursor.fetchone() != (True,):
            return False
        return cursor.execute("SELECT 1 FROM fleet_units WHERE site = %s", (site,)).fetchone() is not None

    def mark(self, site: str) -> Mark | None:
        """How far a site is; None if it is not enrolled."""
        row = self._connection.execute(MARK, (site,)).fetchone()
        return None if row is None else Mark(*row)  # type: ignore[arg-type]

    # ---- what comes ----

    def take(self, site: str, rows: Sequence[Row], message: bytes) -> tuple[Mark | None, Finding | None]:
        """Check a batch, keep what is good, and move the mark: one transaction. -> (mark behind it, what is wrong)."""
        with self._one() as cursor:
            row = cursor.execute(f"{MARK} FOR UPDATE", (site,)).fetchone()
            if row is None:
                stranger = Finding("foreign", rows[0].seq, "of a site that is not enrolled here")
                hub_letters.put_letter(cursor, site, stranger, message)
                return None, stranger
            mark = Mark(*row)  # type: ignore[arg-type]
            known = self._known(cursor, site, [one.seq for one in rows if one.seq <= mark.seq])
            good, after, finding = take(mark, rows, known.get)
            if good:
                with cursor.copy("COPY entries (site, seq, kind, start_utc_s, body, hash) FROM STDIN") as out:
                    for one in good:
                        out.write_row((site, *one))
            # A period that is not over yet by the hub's clock: one of the two clocks is wrong. It is signed, and kept.
            now_s = int(time.time())
            periods = [one.start_utc_s for one in good if one.kind == "period"]
            ahead_s = max(0, max(periods, default=0) - now_s)
            cursor.execute(
                "UPDATE fleet_sites SET key = %s, named = %s, seq = %s, hash = %s, block_seq = %s, heard_utc_s = %s, "
                "said = %s, ahead_s = CASE WHEN %s THEN %s ELSE ahead_s END WHERE site = %s",
                (after.key, after.named, after.seq, after.hash, after.block_seq, now_s,
                 "" if finding is None else str(finding), bool(periods), ahead_s, site),
            )  # fmt: skip
            if finding is not None:
                hub_letters.put_letter(cursor, site, finding, message)
            return after, finding

    @staticmethod
    def _known(cursor: psycopg.Cursor[tuple[object, ...]], site: str, seqs: list[int]) -> dict[int, str]:
        if not seqs:
            return {}
        cursor.execute("SELECT seq, hash FROM entries WHERE site = %s AND seq = ANY(%s)", (site, seqs))
        return {int(str(seq)): str(digest) for seq, digest in cursor}

    def put_letter(self, site: str, finding: Finding, message: bytes) -> None:
        """Keep something that was not taken, for a person."""
        with self._one() as cursor:
            hub_letters.put_letter(cursor, site, finding, message)

    def compare_head(self, site: str, seq: int, digest: str) -> None:
        """A site's newest signed entry against what is here: what cannot be of one ledger becomes a letter."""
        with self._one() as cursor:
            row = cursor.execute(f"{MARK} FOR UPDATE", (site,)).fetchone()
            if row is None or Mark(*row).seq < seq:  # type: ignore[arg-type]
                return
            mark = Mark(*row)  # type: ignore[arg-type]
            here = self._known(cursor, site, [seq]).get(seq)
            if here == digest and mark.seq == seq:
                return
            if here == digest:
                what = f"the site's ledger ends at entry {seq}, here it goes on to {mark.seq}"
                finding = Finding("older", seq, f"{what}: it went back without a word, or two units have this key")
            else:
                finding = Finding("forked", seq, "is here already, and is another one at the site")
            hub_letters.put_letter(cursor, site, finding, b"")
            cursor.execute("UPDATE fleet_sites SET said = %s WHERE site = %s", (str(finding), site))

    def seen(self, site: str) -> None:
        """A site asked, so it is there."""
        self._connection.execute("UPDATE fleet_sites SET heard_utc_s = %s WHERE site = %s", (int(time.time()), site))

    def take_condition(self, made: Condition) -> tuple[Position | None, Position | None]:
        """How a site is, its events and its minutes, in one transaction. -> its marks after that."""
        with self._one() as cursor:
            return hub_conditions.take_condition(cursor, made, int(time.time()))

    def forget_before(self, utc_s: int) -> list[str]:
        """Drop the months of events and minutes before the one of a moment. -> partitions that are gone."""
        with self._one() as cursor:
            return hub_conditions.forget_before(cursor, utc_s)

    # ---- what a person asks ----

    def sites(self) -> list[SiteLine]:
        """All sites; those with something wrong first, then those not heard for longest."""
        rows = self._connection.execute(
            "SELECT site, key, seq, heard_utc_s, said, ahead_s FROM fleet_sites "
            "ORDER BY said = '', ahead_s = 0, heard_utc_s, site"
        )
        return [SiteLine(*row) for row in rows]  # type: ignore[arg-type]

    def letters(self) -> list[hub_letters.Letter]:
        """What was not taken, newest first."""
        with self._one() as cursor:
            return hub_letters.all_letters(cursor)

    def letter(self, number: int) -> tuple[hub_letters.Letter, bytes]:
        """A letter and its message. Raises HubError."""
        with self._one() as cursor:
            found = hub_letters.message_of(cursor, number)
        if found is None:
            raise HubError(f"no letter {number}; their numbers: tidegate hub letters")
        return found

    def replay(self, number: int, by: str) -> Finding | None:
        """Put a letter's message through the checks of the ingest once more. -> what is still wrong; None closes it.

        Raises HubError where its message was not kept whole.
        """
        letter, message = self.letter(number)
        if not letter.whole:
            raise HubError(f"letter {number}: its message was not kept whole; the site sends it again from the mark")
        try:
            batch = unpack(message)
        except BatchError as why:
            return Finding("flipped", 0, str(why))
        if batch.site != letter.site:
            return Finding("foreign", batch.rows[0].seq, f"says it is of {batch.site!r}, but came as {letter.site!r}")
        finding = self.take(batch.site, batch.rows, message)[1]
        if finding is None:
            self.close_letter(number, by, "taken when it was put through the checks again")
        return finding

    def close_letter(self, number: int, by: str, reason: str) -> None:
        """Take a letter away; who did and why stays. Raises HubError."""
        if not by.strip() or not reason.strip():
            raise HubError("say who closes it, and why")
        with self._one() as cursor:
            if not hub_letters.close_letter(cursor, number, by, reason):
                raise HubError(f"no letter {number}; their numbers: tidegate hub letters")

    def accept_restored(self, site: str, by: str, reason: str) -> int:
        """A site that went on from a backup goes on here, too. -> entries of before, which are set aside."""
        if not by.strip() or not reason.strip():
            raise HubError("say who accepts it, and why")
        with self._one() as cursor:
            row = cursor.execute(f"{MARK} FOR UPDATE", (site,)).fetchone()
            if row is None:
                raise HubError(f"{site}: not enrolled here")
            said = cursor.execute(
                "SELECT max(seq) FROM fleet_letters WHERE site = %s AND kind = 'restored'", (site,)
            ).fetchone()
            if said is None or said[0] is None:
                raise HubError(f"{site}: it never said that it was restored; a fork without a word is not accepted")
            first = int(str(said[0]))
            cursor.execute(
                "INSERT INTO fleet_set_aside (site, seq, kind, start_utc_s, body, hash, accepted_by, reason) "
                "SELECT site, seq, kind, start_utc_s, body, hash, %s, %s FROM entries WHERE site = %s AND seq >= %s",
                (by, reason, site, first),
            )
            count = cursor.execute("DELETE FROM entries WHERE site = %s AND seq >= %s", (site, first)).rowcount
            last = cursor.execute("SELECT hash FROM entries WHERE site = %s AND seq = %s", (site, first - 1)).fetchone()
            block = cursor.execute(
                "SELECT coalesce(max(seq), 0) FROM entries WHERE site = %s AND kind = 'block'", (site,)
            ).fetchone()
            assert block is not None
            mark = replace(Mark(*row), seq=first - 1, block_seq=int(str(block[0])))  # type: ignore[arg-type]
            mark = replace(mark, hash=str(last[0]) if last is not None else Mark("", "").hash)
            cursor.execute(
                "UPDATE fleet_sites SET seq = %s, hash = %s, block_seq = %s, said = '' WHERE site = %s",
                (mark.seq, mark.hash, mark.block_seq, site),
            )
            cursor.execute("DELETE FROM fleet_letters WHERE site = %s AND kind = 'restored'", (site,))
            fleet_rollup.forget_rows(cursor, site)
            return count
