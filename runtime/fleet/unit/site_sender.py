"""A site's end: reads its ledger past the hub's mark and sends it, and forgets nothing until the mark has moved.

It is a reader of the ledger like any other; the sidecar and the loop do not know of it. Days away are sent afterwards,
in order, no faster than allowed.
"""

import asyncio
import contextlib
import json
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from tidegate.runtime.carbon.ledger.ledger_file import LedgerError
from tidegate.runtime.fleet.invitation import Invitation, servers_in
from tidegate.runtime.fleet.ledger_batch import ASK, LEDGER, MARK, Batch, Row, pack, subject_word
from tidegate.runtime.fleet.unit.own_ledger import OwnLedger, own_ledger
from tidegate.runtime.fleet.unit.stop_wait import paused

BATCH_ROWS, BATCH_BYTES = 500, 1 << 20
AHEAD = 8  # batches on the way that the mark has not passed
LOOK_S, ANSWER_S, STUCK_S = 5.0, 10.0, 60.0


@dataclass(frozen=True, slots=True)
class Heard:
    """The hub's mark. seq : -1 = it has nothing yet."""

    seq: int
    hash: str
    said: str
    kind: str


def heard(data: bytes) -> Heard | None:
    """The mark in a message; None for anything else."""
    try:
        row = json.loads(data)
        return Heard(int(row["seq"]), str(row["hash"]), str(row["said"]), str(row["kind"]))
    except (ValueError, KeyError, TypeError):
        return None


def word_in(data: bytes) -> str:
    """What an answer says that is no mark."""
    try:
        return str(json.loads(data)["said"])
    except (ValueError, KeyError, TypeError):
        return "nothing that can be read"


async def connected(invitation: Invitation, trouble: Callable[[Exception], Awaitable[None]]) -> Client:
    """A connection that comes back by itself, with a site's login; nothing waits in it while the hub is away."""
    context = None
    if invitation.certificate:
        context = ssl.create_default_context(cadata=invitation.certificate)
    return await nats.connect(
        servers_in(invitation.address), user=invitation.user, password=invitation.word, tls=context,
        inbox_prefix=f"_INBOX_{subject_word(invitation.site)}", max_reconnect_attempts=-1, reconnect_time_wait=2,
        allow_reconnect=True, pending_size=0, error_cb=trouble,
    )  # fmt: skip


def batches(ledger: OwnLedger, after_seq: int) -> Iterator[Batch]:
    """The entries behind one, in batches that each end with a block; what no block covers yet stays here."""
    rows: list[Row] = []
    size, ended, waiting = 0, 0, 0
    site = ledger.site
    for row in (Row(*one) for one in ledger.raw_rows(after_seq + 1)):
        rows.append(row)
        waiting += len(row.body)
        if row.kind != "block":
            continue
        size, ended, waiting = size + waiting, len(rows), 0
        if ended >= BATCH_ROWS or size >= BATCH_BYTES:
            yield Batch(site, rows[:ended])
            rows, size, ended = rows[ended:], 0, 0
    if ended:
        yield Batch(site, rows[:ended])


class Sender:
    """report : where trouble is told, once each. bytes_s_max : upper bound of the line, None = no bound."""

    def __init__(self, ledger: Path | str, invitation: Invitation, report: Callable[[str], None] | None = None,
                 bytes_s_max: float | None = None, stuck_s: float = STUCK_S) -> None:  # fmt: skip
        self.path, self.invitation = ledger, invitation
        self.own = subject_word(invitation.site)
        self.mark: Heard | None = None
        self.sent_bytes = 0
        self._report_to = report or (lambda text: print(f"fleet: {text}", file=sys.stderr, flush=True))
        self._said = ""
        self._bytes_s_max, self._stuck_s = bytes_s_max, stuck_s
        self._refused = ""  # why the broker did not take the last batch
        self._moved = asyncio.Event()
        self._client: Client | None = None

    def _report(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._report_to(text)

    async def open(self) -> None:
        """Connect; the hub may be away for days."""
        self._client = await connected(self.invitation, self._trouble)
        await self._client.subscribe(f"{MARK}.{self.own}", cb=self._marked)

    @property
    def client(self) -> Client:
        """The connection, for what else this site sends. Before `open` there is none."""
        assert self._client is not None
        return self._client

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _trouble(self, why: Exception) -> None:
        self._report(f"the hub at {self.invitation.address}: {why or type(why).__name__}; the ledger keeps everything")

    async def _marked(self, message: Msg) -> None:
        found = heard(message.data)
        if found is not None:
            self._take_mark(found)

    def _take_mark(self, found: Heard) -> None:
        if found.said:
            self._report(f"the hub says: {found.said}")
        self.mark = found
        self._moved.set()

    def _own_head(self, ledger: OwnLedger) -> bytes:
        """What the hub compares with what it has: the newest signed entry, and whether it was restored."""
        row: dict[str, object] = {"trouble": self._refused}
        last = ledger.newest_block()
        if last is not None:
            row |= {"seq": last[0], "hash": last[1], "restored": bool(ledger.restored())}
        return json.dumps(row).encode()

    async def _ask(self, ledger: OwnLedger) -> Heard | None:
        """The hub's mark, asked for; None without an answer."""
        assert self._client is not None
        try:
            answer = await self._client.request(f"{ASK}.{self.own}", self._own_head(ledger), timeout=ANSWER_S)
        except (nats.errors.Error, TimeoutError) as why:
            self._report(
                f"no answer from the hub at {self.invitation.address} ({why or type(why).__name__}); asking again"
            )
            return None
        found = heard(answer.data)
        if found is None:
            self._report(f"the hub says: {word_in(answer.data)}")
            return None
        self._take_mark(found)
        return found

    async def step(self) -> bool:
        """Send what the hub has not got. -> whether it has all that is signed. Raises LedgerError."""
        assert self._client is not None
        ledger = own_ledger(self.path, self.invitation.site)
        try:
            at = await self._ask(ledger)
            if at is None:
                return False
            begin = self._begin(ledger, at)
            if begin is None:
                await self._show_difference(ledger, at.seq)
                return False
            sent: list[int] = []  # the last entry of each batch on the way
            for batch in batches(ledger, begin):
                await self._send(batch)
                sent.append(batch.rows[-1].seq)
                if not await self._until(lambda sent=sent: len(self._ahead(sent)) < AHEAD):  # type: ignore[misc]
                    return False
            return await self._until(lambda: not self._ahead(sent))
        finally:
            ledger.close()

    async def _show_difference(self, ledger: OwnLedger, seq: int) -> None:
        """Let the hub see the entry that differs, so that it is named there too; a restored one says so itself."""
        assert self._client is not None
        mine = next(iter(ledger.raw_rows(seq)), None)
        if mine is None or mine[0] != seq or ledger.restored():
            return
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            row = json.dumps({"seq": seq, "hash": mine[-1]}).encode()
            await self._client.request(f"{ASK}.{self.own}", row, timeout=ANSWER_S)

    def _begin(self, ledger: OwnLedger, at: Heard) -> int | None:
        """Behind which entry to begin; None where the hub holds entries that this ledger does not."""
        if at.seq < 0:
            return -1
        mine = next(iter(ledger.raw_rows(at.seq)), None)
        if mine is not None and mine[0] == at.seq and mine[-1] == at.hash:
            return at.seq
        restored = [seq for seq in ledger.restored() if seq <= at.seq]
        if restored and at.kind != "restored":
            return restored[-1] - 1  # the hub sees the fork with the word about it
        if not restored:
            self._report(
                f"the hub has another entry {at.seq} than this ledger; if it was put back from a backup, say so: "
                f"tidegate carbon restored {ledger.url} --author NAME --reason TEXT"
            )
        return None

    async def _send(self, batch: Batch) -> None:
        assert self._client is not None
        data = pack(batch)
        began = time.monotonic()
        if len(data) > self._client.max_payload:
            raise LedgerError(
                f"entries {batch.rows[0].seq} to {batch.rows[-1].seq} are {len(data)} bytes in one block, the hub "
                f"takes {self._client.max_payload}; raise its max_payload"
            )
        self._refused = await self._published(data)
        if self._refused:
            self._report(f"the hub's broker did not take it: {self._refused}; the ledger keeps everything")
        self.sent_bytes += len(data)
        if self._bytes_s_max:
            await asyncio.sleep(max(0.0, len(data) / self._bytes_s_max - (time.monotonic() - began)))

    async def _published(self, data: bytes) -> str:
        """Give a batch to the broker. -> why it did not take it, "" if it did or is silent: the mark alone counts."""
        assert self._client is not None
        try:
            answer = await self._client.request(f"{LEDGER}.{self.own}", data, timeout=ANSWER_S)
            error = json.loads(answer.data).get("error")
        except nats.errors.NoRespondersError:
            return "it has no place for ledgers yet"
        except (nats.errors.TimeoutError, TimeoutError, ValueError, AttributeError):
            return ""
        return str(error.get("description", error)) if isinstance(error, dict) else ""

    def _ahead(self, sent: list[int]) -> list[int]:
        at = self.mark.seq if self.mark is not None else -1
        return [seq for seq in sent if seq > at]

    async def _until(self, holds: Callable[[], bool]) -> bool:
        """Wait for marks until it holds; false after a finding, or if no mark moves for long."""
        while not holds():
            if self.mark is not None and self.mark.said:
                return False
            self._moved.clear()
            try:
                await asyncio.wait_for(self._moved.wait(), self._stuck_s)
            except TimeoutError:
                self._report("the hub's mark does not move; sending again from there")
                return False
        return True

    async def run(self, stop: asyncio.Event) -> None:
        """Send until told to stop."""
        while not stop.is_set():
            try:
                await self.step()
            except (LedgerError, nats.errors.Error, OSError, TimeoutError) as why:
                self._report(f"{why or type(why).__name__}; trying again")
            await paused(stop, LOOK_S)
