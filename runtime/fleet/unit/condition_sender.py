"""Sends a site's condition, events and minutes to its hub, each past the hub's mark; what is away comes afterwards."""

import asyncio
import json
from collections.abc import Callable

import nats.errors
from nats.aio.client import Client

from tidegate.runtime.api.connection import ClientError
from tidegate.runtime.fleet.ledger_batch import CONDITION, subject_word
from tidegate.runtime.fleet.site_condition import Condition, ConditionReader, Position, pack_condition
from tidegate.runtime.fleet.unit.stop_wait import paused

EVERY_S, ANSWER_S = 30.0, 10.0


class ConditionSender:
    """report : where trouble is told. bytes_s_max : upper bound of the line, None = no bound."""

    def __init__(self, client: Client, reader: ConditionReader, site: str, report: Callable[[str], None],
                 bytes_s_max: float | None = None) -> None:  # fmt: skip
        self._client, self._reader, self.site = client, reader, site
        self._report, self._bytes_s_max = report, bytes_s_max
        self._marks: tuple[Position | None, Position | None] | None = None  # None = not asked yet

    async def step(self) -> bool:
        """Send what the hub has not got. -> whether that is all. Raises ClientError, nats.errors.Error."""
        if self._marks is None:
            self._marks = await self._send(Condition(self.site, {}))
            if self._marks is None:
                return False
        made, is_all = await self._reader.read(*self._marks)
        self._marks = await self._send(made)
        return is_all and self._marks is not None

    async def _send(self, made: Condition) -> tuple[Position | None, Position | None] | None:
        """The hub's marks; None without an answer, and they are asked for again."""
        data = pack_condition(made)
        try:
            answer = await self._client.request(f"{CONDITION}.{subject_word(self.site)}", data, timeout=ANSWER_S)
            row = json.loads(answer.data)
            said = str(row.get("said", ""))
            if said:
                self._report(f"the hub says of this site's condition: {said}")
                return None
            marks = (_position(row["event"]), _position(row["meter"]))
        except (nats.errors.TimeoutError, nats.errors.NoRespondersError, TimeoutError):
            self._report("the hub does not answer; the site's condition is sent again")
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as why:
            self._report(f"the hub's answer cannot be read: {why}")
            return None
        if self._bytes_s_max:
            await asyncio.sleep(len(data) / self._bytes_s_max)
        return marks

    async def run(self, stop: asyncio.Event) -> None:
        """Send until told to stop. The gateway may be away; the ledger goes on without it."""
        while not stop.is_set():
            more = False
            try:
                more = not await self.step() and self._marks is not None
            except (ClientError, nats.errors.Error, OSError, TimeoutError) as why:
                self._report(f"the site's condition waits: {why or type(why).__name__}")
            if more:
                continue  # days that wait are sent one after the other
            await paused(stop, EVERY_S)


def _position(row: object) -> Position | None:
    if row is None:
        return None
    if not isinstance(row, list) or len(row) != 2:
        raise ValueError(f"{row!r} is no position")
    return str(row[0]), int(row[1])
