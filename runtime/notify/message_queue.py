"""Messages that wait to be sent, on disk: what a network is away for, and what a power cut interrupts, is sent later.

The position in the journal is written in the same transaction as the messages that came of it. So an event makes its
messages once, however often this process ends; a message is taken away only after it was sent.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

MESSAGES_MAX = 10_000
SCHEMA = """
CREATE TABLE IF NOT EXISTS message (
    id INTEGER PRIMARY KEY AUTOINCREMENT, target TEXT NOT NULL, title TEXT NOT NULL, body TEXT NOT NULL,
    utc_s INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS told (alarm TEXT PRIMARY KEY, seen_utc_s REAL NOT NULL);
CREATE TABLE IF NOT EXISTS position (stream TEXT PRIMARY KEY, boot TEXT NOT NULL, seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS dropped (count INTEGER NOT NULL);
"""


class Waiting(NamedTuple):
    """One message to one target."""

    id: int
    target: str
    title: str
    body: str
    utc_s: int


class Fresh(NamedTuple):
    """A message that was not queued yet."""

    target: str
    title: str
    body: str
    utc_s: int


class MessageQueue:
    """The queue of one site. Raises OSError where its file cannot be had or written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._db = sqlite3.connect(path, check_same_thread=False)
            self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;" + SCHEMA)
        except sqlite3.Error as why:
            raise OSError(f"{path}: {why}; move it away and start again") from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @property
    def position(self) -> tuple[str, int] | None:
        """(boot, seq) of the last event that was looked at; None: none yet."""
        row = self._db.execute("SELECT boot, seq FROM position WHERE stream = 'event'").fetchone()
        return None if row is None else (str(row[0]), int(row[1]))

    def take(
        self, messages: Sequence[Fresh], position: tuple[str, int] | None, seen: dict[str, float] | None = None
    ) -> None:
        """Queue messages with their position in the journal and when each alarm was seen last; all or nothing."""
        try:
            with self._db:
                words = "INSERT INTO message (target, title, body, utc_s) VALUES (?, ?, ?, ?)"
                self._db.executemany(words, messages)
                if position is not None:
                    self._db.execute("INSERT OR REPLACE INTO position VALUES ('event', ?, ?)", position)
                self._db.executemany("INSERT OR REPLACE INTO told VALUES (?, ?)", list((seen or {}).items()))
                over = len(self) - MESSAGES_MAX
                if (
                    over > 0
                ):  # years of silence of the network: the oldest go, and the next message that is sent tells it
                    self._db.execute(
                        "DELETE FROM message WHERE id IN (SELECT id FROM message ORDER BY id LIMIT ?)", (over,)
                    )
                    self._db.execute("INSERT INTO dropped VALUES (?)", (over,))
        except sqlite3.Error as why:
            raise OSError(f"{self.path}: {why}") from None

    def seen(self) -> dict[str, float]:
        """When each alarm was seen last, UTC."""
        return {str(alarm): float(at) for alarm, at in self._db.execute("SELECT alarm, seen_utc_s FROM told")}

    def next(self, target: str) -> Waiting | None:
        """The oldest message to a target."""
        words = "SELECT id, target, title, body, utc_s FROM message WHERE target = ? ORDER BY id LIMIT 1"
        row = self._db.execute(words, (target,)).fetchone()
        return None if row is None else Waiting(*row)

    def sent(self, message: Waiting) -> None:
        """Take a message away that was sent."""
        with self._db:
            self._db.execute("DELETE FROM message WHERE id = ?", (message.id,))

    def take_dropped(self) -> int:
        """How many had to go unsent since this was asked last."""
        with self._db:
            count = self._db.execute("SELECT coalesce(sum(count), 0) FROM dropped").fetchone()[0]
            self._db.execute("DELETE FROM dropped")
        return int(count)

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM message").fetchone()[0])
