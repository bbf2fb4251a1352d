"""The hub's ingest: from the broker's stream into PostgreSQL, and the mark back to the site.

A message is acknowledged only after PostgreSQL's commit. What is refused is acknowledged too: it stands in the letters,
and the site sends from the mark again. If the broker forgets, the site sends from the mark again as well.
"""

import asyncio
import json
import ssl
import sys
import time

import nats
import nats.errors
import nats.js.errors
import psycopg
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    ConsumerInfo,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)

from tidegate.runtime.fleet.chain_check import Finding, Mark
from tidegate.runtime.fleet.hub.hub_store import HubStore
from tidegate.runtime.fleet.invitation import servers_in
from tidegate.runtime.fleet.ledger_batch import ASK, CONDITION, LEDGER, MARK, STREAM, BatchError, subject_word, unpack
from tidegate.runtime.fleet.site_condition import ConditionError, unpack_condition

DURABLE = "ingest"
FETCH, FETCH_S = 64, 1.0
PAUSE_S = 2.0
SEEN_S = REPORT_S = 60.0
ACK_WAIT_S = 60
STUCK_S = 2.5 * ACK_WAIT_S  # what was given and not acknowledged comes again before
LOOK_EVERY = 10  # quiet seconds after which the broker is asked whether it still knows its stream


def told(mark: Mark | None, finding: Finding | None) -> bytes:
    """The mark as a site hears it."""
    row: dict[str, object] = {"said": "" if finding is None else str(finding), "kind": finding.kind if finding else ""}
    if mark is not None:
        row |= {"seq": mark.seq, "hash": mark.hash}
    return json.dumps(row).encode()


class Ingest:
    """One worker. store : its own connection; several workers may share a stream.

    replicas : brokers of a cluster that each keep what is on its way; 1 = one broker.
    """

    def __init__(self, store: HubStore, replicas: int = 1) -> None:
        self.store, self._replicas = store, replicas
        self.taken = 0  # entries
        self._client: Client | None = None
        self._place, self._since = -1, 0.0  # how far the broker had given, and since when
        self._said: dict[str, float] = {}  # trouble -> when it was reported
        self._troubles: dict[str, str] = {}
        self._noted: dict[str, float] = {}
        self._words: dict[str, str] = {}  # subject word -> site

    async def open(self, address: str, user: str, word: str, tls: ssl.SSLContext | None = None) -> None:
        """Connect, and make the stream if it is not there. address : of several brokers with commas between them."""
        self._client = await nats.connect(
            servers_in(address), user=user, password=word, tls=tls, max_reconnect_attempts=-1, error_cb=self._trouble
        )
        await self._make_stream()
        await self._client.subscribe(f"{ASK}.*", cb=self._asked)
        await self._client.subscribe(f"{CONDITION}.*", "hub", cb=self._conditioned)

    async def _trouble(self, why: Exception) -> None:
        self._report(f"the broker: {str(why) or type(why).__name__}; trying again")

    def _report(self, text: str) -> None:
        """In a line, and again only once a minute while it stays the same."""
        now_s = time.monotonic()
        if now_s - self._said.get(text, -REPORT_S) >= REPORT_S:
            self._said[text] = now_s
            print(f"hub: {text}", file=sys.stderr, flush=True)

    async def _make_stream(self) -> None:
        assert self._client is not None
        await self._client.jetstream().add_stream(
            StreamConfig(
                STREAM,
                subjects=[f"{LEDGER}.*"],
                retention=RetentionPolicy.WORK_QUEUE,
                storage=StorageType.FILE,
                num_replicas=self._replicas,
            )
        )

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    def _site_of(self, word: str) -> str | None:
        """The enrolled site whose subjects these are."""
        if word not in self._words:
            self._words = {subject_word(line.site): line.site for line in self.store.sites()}
        return self._words.get(word)

    def _compare(self, site: str, data: bytes) -> None:
        """What a site says of its own end, against what is here: a copy of a unit, or one that went back in silence."""
        try:
            row = json.loads(data) if data else {}
            trouble = str(row.get("trouble", ""))[:300]
            head = None if "seq" not in row or row.get("restored") else (int(row["seq"]), str(row["hash"]))
        except (ValueError, TypeError, KeyError, AttributeError):
            return
        if trouble and self._troubles.get(site) != trouble:
            print(f"hub: {site}: the broker's store did not take its entries: {trouble}", file=sys.stderr, flush=True)
        self._troubles[site] = trouble
        if head is not None:
            self.store.compare_head(site, *head)

    def _seen(self, site: str) -> None:
        """A site that asks is there; noted once a minute."""
        now_s = time.monotonic()
        if now_s - self._noted.get(site, -SEEN_S) >= SEEN_S:
            self._noted[site] = now_s
            self.store.seen(site)

    async def _asked(self, message: Msg) -> None:
        """A site asks how far it is."""
        word = message.subject.rsplit(".", 1)[1]
        try:
            site = self._site_of(word)
            mark = None if site is None else self.store.mark(site)
            if site is not None:
                self._seen(site)
                self._compare(site, message.data)
        except psycopg.Error:
            return  # no answer: it asks again
        finding = (
            None if mark is not None else Finding("foreign", 0, "not enrolled here; on the hub: tidegate hub invite")
        )
        await message.respond(told(mark, finding))

    async def _conditioned(self, message: Msg) -> None:
        """A site says how it is, and what happened past its marks; the answer is the marks after the commit."""
        word = message.subject.rsplit(".", 1)[1]
        try:
            site = self._site_of(word)
            if site is None:
                await message.respond(json.dumps({"said": "not enrolled here"}).encode())
                return
            made = unpack_condition(message.data)
            said = "" if made.site == site else f"says it is of {made.site!r}, but came as {site!r}"
            marks = (None, None) if said else self.store.take_condition(made)
        except ConditionError as why:
            said, marks = str(why), (None, None)
        except psycopg.Error:
            return  # no answer: it comes again
        await message.respond(json.dumps({"said": said, "event": marks[0], "meter": marks[1]}).encode())

    async def run(self, stop: asyncio.Event) -> None:
        """Take until told to stop. The database may go away and come back meanwhile."""
        assert self._client is not None
        consumer = await self._consumer()
        away, quiet = False, 0
        while not stop.is_set():
            try:
                messages = await consumer.fetch(FETCH, FETCH_S)
                quiet = 0
            except (nats.errors.TimeoutError, TimeoutError):
                quiet += 1
                if quiet % LOOK_EVERY == 0:
                    consumer = await self._still(consumer)
                continue
            except nats.errors.Error as why:
                await self._trouble(why)
                await asyncio.sleep(PAUSE_S)
                consumer = await self._still(consumer)
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

    async def _consumer(self) -> JetStreamContext.PullSubscription:
        assert self._client is not None
        wanted = ConsumerConfig(
            durable_name=DURABLE, ack_policy=AckPolicy.EXPLICIT, max_ack_pending=4 * FETCH, ack_wait=ACK_WAIT_S
        )
        return await self._client.jetstream().pull_subscribe(f"{LEDGER}.*", DURABLE, STREAM, config=wanted)

    async def _still(self, consumer: JetStreamContext.PullSubscription) -> JetStreamContext.PullSubscription:
        """The same, or a new one where the broker came back without its memory, or with a part of it."""
        assert self._client is not None
        jetstream = self._client.jetstream()
        try:
            try:
                wrong = self._damage(
                    await jetstream.consumer_info(STREAM, DURABLE), await jetstream.stream_info(STREAM)
                )
                if not wrong:
                    return consumer
                print(f"hub: {wrong}; its stream is made anew, the sites send again from their marks",
                      file=sys.stderr, flush=True)  # fmt: skip
                await jetstream.delete_stream(STREAM)
            except nats.js.errors.NotFoundError:
                self._report("the broker forgot; the sites send again from their marks")
            self._place = -1
            await self._make_stream()
            return await self._consumer()
        except (nats.errors.Error, TimeoutError):
            return consumer  # it is away, or has no leader yet: asked again

    def _damage(self, consumer: ConsumerInfo, stream: StreamInfo) -> str:
        """What a quiet broker has lost of what it had; "" = nothing that shows.

        After a power cut the stream may end before the place that its consumer remembers: all that comes until it has
        grown past that would count as given already. Or it cannot read what it holds, and gives nothing for ever.
        """
        given = consumer.delivered.stream_seq if consumer.delivered else 0
        if given > stream.state.last_seq:
            return f"the broker gave message {given} and knows of {stream.state.last_seq}"
        place = consumer.delivered.consumer_seq if consumer.delivered else 0
        if not stream.state.messages or place != self._place:
            self._place, self._since = place, time.monotonic()
            return ""
        waited_s = time.monotonic() - self._since
        if waited_s < STUCK_S:
            return ""
        return f"the broker has held {stream.state.messages} messages for {waited_s:.0f} s and gives none"

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
