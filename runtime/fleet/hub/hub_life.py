"""The life of the units at a hub: who was let in, by whom, until when; nothing of it is ever taken away again.

| state | what it means |
|---|---|
| invited | a token is out |
| joined | a unit has used it; its device key signs its ledger |
| revoked | its login is over; a new token lets the same unit in again |
| lost | its login is over, and its device key is never let in again, under any name |
| replaced | another unit goes on under another name |
"""

import hashlib
import hmac
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import psycopg
import sqlalchemy as sa

from tidegate.runtime.fleet.hub import fleet_rollup
from tidegate.runtime.fleet.invitation import HubError

TABLES = """
CREATE TABLE IF NOT EXISTS fleet_units (site text PRIMARY KEY, state text NOT NULL, key text NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS fleet_tokens (
    id text PRIMARY KEY, site text NOT NULL, code_sha256 text NOT NULL, ends_utc_s bigint NOT NULL,
    used_utc_s bigint, ended boolean NOT NULL DEFAULT false
);
CREATE TABLE IF NOT EXISTS fleet_lost_keys (key text PRIMARY KEY, site text NOT NULL, utc_s bigint NOT NULL);
CREATE TABLE IF NOT EXISTS fleet_life (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, utc_s bigint NOT NULL, site text NOT NULL, what text NOT NULL,
    by_whom text NOT NULL, reason text NOT NULL, detail text NOT NULL
);
"""
# A release of before kept an owner of the unit beside that of the place; the unit's has a name and a reason with it.
OWNER_OF_BEFORE = """
DO $$ BEGIN
    IF EXISTS (SELECT 1 FROM information_schema.columns WHERE table_schema = current_schema()
               AND table_name = 'fleet_units' AND column_name = 'owner') THEN
        INSERT INTO fleet_life (utc_s, site, what, by_whom, reason, detail)
            SELECT extract(epoch FROM now())::bigint, u.site, 'owner made one', 'a new release',
                'reports had another owner than the unit', 'reports: ' || p.owner || ', unit: ' || u.owner
            FROM fleet_units u JOIN fleet_places p USING (site)
            WHERE u.owner <> '' AND p.owner <> '' AND u.owner <> p.owner;
        INSERT INTO fleet_places (site, owner) SELECT site, owner FROM fleet_units WHERE owner <> ''
            ON CONFLICT (site) DO UPDATE SET owner = EXCLUDED.owner;
        ALTER TABLE fleet_units DROP COLUMN owner;
    END IF;
END $$;
"""
Cursor = psycopg.Cursor[tuple[object, ...]]


class LifeLine(NamedTuple):
    """Something that happened to a unit."""

    utc_s: int
    site: str
    what: str
    by: str
    reason: str
    detail: str


def hashed(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


class HubLife:
    """address : of the hub's database, as psycopg reads it. Raises psycopg.Error."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._connection: psycopg.Connection[tuple[object, ...]] = psycopg.connect(address, autocommit=True)
        with self._one() as cursor:
            cursor.execute(fleet_rollup.TABLES_LOCK)
            cursor.execute(fleet_rollup.PLACES)
            cursor.execute(TABLES)
            cursor.execute(OWNER_OF_BEFORE)

    @classmethod
    def of(cls, url: str) -> "HubLife":
        """url : SQLAlchemy's, as a hub has it."""
        address = sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        return cls(address)

    def knows(self, site: str) -> bool:
        """Whether a unit ever had that name here."""
        row = self._connection.execute("SELECT 1 FROM fleet_units WHERE site = %s", (site,)).fetchone()
        return row is not None

    def owner(self, site: str) -> str:
        """Whose it is, "" = not said."""
        with self._one() as cursor:
            return self._owner(cursor, site)

    @staticmethod
    def _owner(cursor: Cursor, site: str) -> str:
        row = cursor.execute("SELECT owner FROM fleet_places WHERE site = %s", (site,)).fetchone()
        return "" if row is None else str(row[0])

    @staticmethod
    def _put_owner(cursor: Cursor, site: str, owner: str) -> None:
        cursor.execute(
            "INSERT INTO fleet_places (site, owner) VALUES (%s, %s) ON CONFLICT (site) DO UPDATE "
            "SET owner = EXCLUDED.owner",
            (site, owner),
        )

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _one(self) -> Iterator[Cursor]:
        if self._connection.closed or self._connection.broken:
            self._connection = psycopg.connect(self._address, autocommit=True)
        with self._connection.transaction(), self._connection.cursor() as cursor:
            yield cursor

    @staticmethod
    def _note(cursor: Cursor, site: str, what: str, by: str, reason: str, detail: str = "") -> None:
        if not by.strip() or not reason.strip():
            raise HubError("say who does it, and why: --by NAME --reason TEXT")
        cursor.execute(
            "INSERT INTO fleet_life (utc_s, site, what, by_whom, reason, detail) VALUES (%s, %s, %s, %s, %s, %s)",
            (int(time.time()), site, what, by, reason, detail),
        )

    @staticmethod
    def _state(cursor: Cursor, site: str) -> tuple[str, str]:
        """(state, key) of a unit, which stays as it is until the transaction ends. Raises HubError."""
        row = cursor.execute("SELECT state, key FROM fleet_units WHERE site = %s FOR UPDATE", (site,)).fetchone()
        if row is None:
            raise HubError(f"{site}: no token was ever made for it; first: tidegate hub enrol {site}")
        return str(row[0]), str(row[1])

    @staticmethod
    def _end_tokens(cursor: Cursor, site: str) -> list[str]:
        cursor.execute("UPDATE fleet_tokens SET ended = true WHERE site = %s AND NOT ended RETURNING id", (site,))
        return [str(row[0]) for row in cursor.fetchall()]

    def invite(
        self, site: str, token_id: str, code: str, ends_utc_s: int, by: str, reason: str, owner: str
    ) -> list[str]:
        """A token for a site; those of before end. -> ids of those. Raises HubError for a lost or replaced unit."""
        with self._one() as cursor:
            row = cursor.execute("SELECT state, key FROM fleet_units WHERE site = %s FOR UPDATE", (site,)).fetchone()
            if row is not None and row[0] in ("lost", "replaced"):
                raise HubError(
                    f"{site} is {row[0]}: name the unit that stands there now otherwise (tidegate hub reflash)"
                )
            ended = self._end_tokens(cursor, site)
            before = self._owner(cursor, site)
            if row is not None and owner and before and owner != before:
                raise HubError(
                    f"{site} is {before}'s; its unit changes hands with its login: "
                    f"tidegate hub owner {site} --to {owner!r} --by NAME --reason TEXT"
                )
            cursor.execute(
                "INSERT INTO fleet_units (site, state) VALUES (%s, 'invited') ON CONFLICT (site) DO NOTHING", (site,)
            )
            if owner:
                self._put_owner(cursor, site, owner)
            cursor.execute(
                "INSERT INTO fleet_tokens (id, site, code_sha256, ends_utc_s) VALUES (%s, %s, %s, %s)",
                (token_id, site, hashed(code), ends_utc_s),
            )
            self._note(cursor, site, "invited", by, reason, f"token {token_id}" + (f", owner {owner}" if owner else ""))
            return ended

    def use_token(self, site: str, token_id: str, code: str, key: str) -> None:
        """A unit with this device key comes with a token. Raises HubError where it is not let in."""
        with self._one() as cursor:
            row = cursor.execute(
                "SELECT site, code_sha256, ends_utc_s, used_utc_s, ended FROM fleet_tokens WHERE id = %s FOR UPDATE",
                (token_id,),
            ).fetchone()
            if row is None or row[0] != site or not hmac.compare_digest(str(row[1]), hashed(code)):
                raise HubError("no such token")
            now_s = int(time.time())
            state, known = self._state(cursor, site)
            if row[3] is not None and known == key:
                return  # its answer was lost, and the unit asks again
            if row[3] is not None or row[4] or now_s > int(str(row[2])):
                raise HubError("the token was used, replaced, or its time is over; another one: tidegate hub enrol")
            lost = cursor.execute("SELECT site FROM fleet_lost_keys WHERE key = %s", (key,)).fetchone()
            if lost is not None:
                raise HubError(f"this device key is that of {lost[0]}, which was reported lost")
            other = cursor.execute("SELECT site FROM fleet_units WHERE key = %s AND site <> %s", (key, site)).fetchone()
            if other is not None:
                raise HubError(f"this device key is that of {other[0]} already; no two units have one")
            if known and known != key:
                raise HubError(
                    f"{site} has another device key; if the unit was re-flashed: tidegate hub reflash {site} --as NAME"
                )
            cursor.execute("UPDATE fleet_tokens SET used_utc_s = %s WHERE id = %s", (now_s, token_id))
            cursor.execute("UPDATE fleet_units SET state = 'joined', key = %s WHERE site = %s", (key, site))
            self._note(cursor, site, "joined", "the unit", f"token {token_id}", f"key {key[:16]}...; was {state}")

    def rotated(self, site: str) -> None:
        """A unit has another login now."""
        with self._one() as cursor:
            self._note(cursor, site, "login rotated", "the unit", "its own wish")

    def is_open(self, site: str) -> bool:
        """Whether a unit may have a login."""
        row = self._connection.execute("SELECT state FROM fleet_units WHERE site = %s", (site,)).fetchone()
        return row is None or row[0] in ("invited", "joined")

    def end(self, site: str, state: str, by: str, reason: str, detail: str = "") -> list[str]:
        """Revoke, report lost, or replace a unit. -> ids of the tokens that end with it. Raises HubError."""
        with self._one() as cursor:
            before, key = self._state(cursor, site)
            if before in ("lost", "replaced"):
                raise HubError(f"{site} is {before} already")
            cursor.execute("UPDATE fleet_units SET state = %s WHERE site = %s", (state, site))
            if state == "lost" and key:
                cursor.execute(
                    "INSERT INTO fleet_lost_keys (key, site, utc_s) VALUES (%s, %s, %s) ON CONFLICT (key) DO NOTHING",
                    (key, site, int(time.time())),
                )
            self._note(cursor, site, state, by, reason, detail or f"was {before}")
            return self._end_tokens(cursor, site)

    def change_owner(self, site: str, owner: str, by: str, reason: str) -> None:
        """From now on it is another's; what was before stays that of the one before. Raises HubError."""
        with self._one() as cursor:
            state, before = self._state(cursor, site)[0], self._owner(cursor, site)
            if state in ("lost", "replaced"):
                raise HubError(f"{site} is {state}; it has no owner to change")
            if not owner.strip() or owner == before:
                raise HubError(f"{site}: name its new owner; it is {before or 'nobody'} now")
            cursor.execute("UPDATE fleet_units SET state = 'revoked' WHERE site = %s", (site,))
            self._put_owner(cursor, site, owner)
            self._note(cursor, site, "owner changed", by, reason, f"from {before or 'nobody'} to {owner}")

    def lines(self, site: str | None = None) -> list[LifeLine]:
        """What happened, oldest first."""
        rows = self._connection.execute(
            "SELECT utc_s, site, what, by_whom, reason, detail FROM fleet_life WHERE %s::text IS NULL OR site = %s "
            "ORDER BY id", (site, site),
        )  # fmt: skip
        return [LifeLine(*row) for row in rows]  # type: ignore[arg-type]
