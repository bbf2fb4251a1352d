"""The hub's ingest: from the broker's stream into PostgreSQL, and the mark back to the site.

A message is acknowledged only after PostgreSQL's commit. What is refused is acknowledged too: it stands in the letters,
and the site sends from the mark again. If the broker forgets, the site sends from the mark again as well.
"""

import asyncio
import json
import sys

import nats
import nats.errors
import psycopg
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig

from tidegate.runtime.fleet.chain_check import Finding, Mark
from tidegate.runtime.fleet.hub_store import HubStore
from tidegate.runtime.fleet.ledger_batch import ASK, LEDGER, MARK, STREAM, BatchError, subject_word, unpack

DURABLE = "ingest"
FETCH, FETCH_S = 64, 1.0
PAUSE_S = 2.0


def told(mark: Mark | None, finding: Finding | None) -> bytes:
    """The mark as a site hears it."""
    row: dict[str, object] = {"said": "" if finding is None else str(finding), "kind": finding.kind if finding else ""}
    if mark is not None:
        row |= {"seq": mark.seq, "hash": mark.hash}
    return json.dumps(row).encode()


class Ingest:
    """One worker. store : its own connection; several workers may share a stream."""

    def __init__(self, store: HubStore) -> None:
        self.store = store
        self.taken = 0  # entries
        self._client: Client | None = None
        self._words: dict[str, str] = {}  # subject word -> site

    async def open(self, address: str, user: str, word: str) -> None:
        """Connect, and make the stream if it is not there."""
        self._client = await nats.connect(address, user=user, password=word, max_reconnect_attempts=-1)
        stream = self._client.jetstream()
        await stream.add_stream(
            StreamConfig(
                STREAM, subjects=[f"{LEDGER}.*"], retention=RetentionPolicy.WORK_QUEUE, storage=StorageType.FILE
            )
        )
        await self._client.subscribe(f"{ASK}.*", cb=self._asked)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    def _site_of(self, word: str) -> str | None:
        """The enrolled site whose subjects these are."""
        if word not in self._words:
            self._words = {subject_word(line.site): line.site for line in self.store.sites()}
        return self._words.get(word)

    async def _asked(self, message: Msg) -> None:
        """A site asks how far it is."""
        word = message.subject.rsplit(".", 1)[1]
        try:
            site = self._site_of(word)
            mark = None if site is None else self.store.mark(site)
        except psycopg.Error:
            return  # no answer: it asks again
        finding = (
            None if mark is not None else Finding("foreign", 0, "not enrolled here; on the hub: tidegate hub invite")
        )
        await message.respond(told(mark, finding))

    async def run(self, stop: asyncio.Event) -> None:
        """Take until told to stop. The database may go away and come back meanwhile."""
        assert self._client is not None
        stream = self._client.jetstream()
        wanted = ConsumerConfig(
            durable_name=DURABLE, ack_policy=AckPolicy.EXPLICIT, max_ack_pending=4 * FETCH, ack_wait=60
        )
        consumer = await stream.pull_subscribe(f"{LEDGER}.*", DURABLE, STREAM, config=wanted)
        away = False
        while not stop.is_set():
            try:
                messages = await consumer.fetch(FETCH, FETCH_S)
            except (nats.errors.TimeoutError, TimeoutError):
                continue
            except nats.errors.Error as why:
                print(f"hub: the broker: {why}; trying again", file=sys.stderr, flush=True)
                await asyncio.sleep(PAUSE_S)
                continue
            for message in messages:
                try:
                    await self.take(message)
                    away = False
                except psycopg.Error as why:
                    if not away:
                        print(f"hub: PostgreSQL: {why}; nothing is lost, trying again", file=sys.stderr, flush=True)
                    away = True
                    await message.nak(delay=PAUSE_S)
                    await self._reconnect()

    async def _reconnect(self) -> None:
        await asyncio.sleep(PAUSE_S)
        try:
            self.store.reconnect()
        except psycopg.Error:
            return

    async def take(self, message: Msg) -> None:
        """One message: into the database, acknowledged, its mark told. Raises psycopg.Error; it comes again then."""
        assert self._client is not None
        word = message.subject.rsplit(".", 1)[1]
        try:
            batch = unpack(message.data)
            finding, site = None, batch.site
            if subject_word(site) != word:
                finding = Finding("foreign", batch.rows[0].seq, f"says it is of {site!r}, but came with another login")
                site = self._site_of(word) or word
        except BatchError as why:
            finding, site = Finding("flipped", 0, str(why)), self._site_of(word) or word
        mark: Mark | None = None
        if finding is None:
            before = self.store.mark(site)
            mark, finding = self.store.take(site, batch.rows, message.data)
            self.taken += (mark.seq if mark else -1) - (before.seq if before else -1)
        else:
            self.store.put_letter(site, finding, message.data)
        await message.ack()
        await self._client.publish(f"{MARK}.{word}", told(mark, finding))
