"""Releases of site files in rings: who may take one now. The pure part, and the hub's answers to units that ask.

A ring opens once every site of the rings before it has its release in force and has been well with it for a while. One
failure halts all: no site begins any more, a person looks. A unit that fails has put its file of before back by itself.
"""

import base64
import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from tidegate.runtime.fleet.hub.broker import Broker
from tidegate.runtime.fleet.invitation import servers_in
from tidegate.runtime.fleet.ledger_batch import RELEASE, subject_word
from tidegate.runtime.fleet.signed_site import ReleaseError

ASK_BYTES_MAX = 4096


@dataclass(frozen=True)
class Standing:
    """What a unit last said. number : of the release in force. failed : of one that it put back, with why."""

    number: int
    since_s: float
    failed: int = 0
    why: str = ""


class Rollout:
    """rings : names of sites, first ring first. numbers : site -> its release. soak_s : so long a ring must be well."""

    def __init__(self, rings: Sequence[Sequence[str]], numbers: Mapping[str, int], soak_s: float) -> None:
        named = [site for ring in rings for site in ring]
        lacks = [site for site in named if site not in numbers]
        if not named or len(named) != len(set(named)) or lacks:
            what = f"no file of {', '.join(lacks)}" if lacks else "one is named twice, or none at all"
            raise ReleaseError(f"rings: each site once, each with its signed file; {what}")
        self.rings, self.numbers, self.soak_s = [list(ring) for ring in rings], dict(numbers), soak_s
        self.standings: dict[str, Standing] = {}

    def heard(self, site: str, number: int, failed: int, why: str, now_s: float) -> None:
        """A unit says which release is in force there."""
        before = self.standings.get(site)
        since_s = before.since_s if before is not None and before.number == number else now_s
        self.standings[site] = Standing(number, since_s, failed, why)

    def halted(self) -> str:
        """Why nobody begins any more, "" = nothing stands against it."""
        for ring in self.rings:
            for site in ring:
                here = self.standings.get(site)
                if here is not None and here.failed == self.numbers[site]:
                    return f"{site}: {here.why}"
        return ""

    def has_it(self, site: str) -> bool:
        here = self.standings.get(site)
        return here is not None and here.number == self.numbers[site]

    def open_ring(self, now_s: float) -> int:
        """Which ring may take its release now, counted from 0; one behind the last = all are through."""
        for at, ring in enumerate(self.rings):
            if not all(self.has_it(one) and now_s - self.standings[one].since_s >= self.soak_s for one in ring):
                return at
        return len(self.rings)

    def may_take(self, site: str, now_s: float) -> bool:
        """Whether a site may put its release in force now."""
        at = next((at for at, ring in enumerate(self.rings) if site in ring), None)
        if at is None or self.halted() or self.has_it(site):
            return False
        return at <= self.open_ring(now_s)

    def line(self, now_s: float) -> str:
        """For people."""
        done = sum(self.has_it(site) for site in self.numbers)
        at = self.open_ring(now_s)
        where = "all rings are through" if at == len(self.rings) else f"ring {at + 1} of {len(self.rings)}"
        return f"{done} of {len(self.numbers)} in force, {where}" + (
            f"; HALTED: {why}" if (why := self.halted()) else ""
        )


class ReleaseDesk:
    """files : site -> its signed file, as it goes to the unit."""

    def __init__(self, broker: Broker, rollout: Rollout, files: Mapping[str, bytes]) -> None:
        self.broker, self.rollout, self.files = broker, rollout, files
        self._site_of = {subject_word(site): site for site in files}
        self._client: Client | None = None

    def answer(self, word: str, data: bytes, now_s: float) -> dict[str, str]:
        """What a unit is given, "" = nothing to do."""
        site = self._site_of.get(word)
        try:
            row = json.loads(data) if len(data) <= ASK_BYTES_MAX else None
            number, failed, why = row["number"], row["failed"], str(row["why"])[:200]  # type: ignore[index]
        except (ValueError, KeyError, TypeError, RecursionError):
            return {"file": ""}
        if site is None or type(number) is not int or type(failed) is not int:
            return {"file": ""}
        self.rollout.heard(site, number, failed, why, now_s)
        if not self.rollout.may_take(site, now_s):
            return {"file": ""}
        return {"file": base64.b64encode(self.files[site]).decode()}

    async def open(self) -> None:
        """Answer from here on."""
        user, word = self.broker.own_login()
        self._client = await nats.connect(
            servers_in(self.broker.address), user=user, password=word, tls=self.broker.context(),
            max_reconnect_attempts=-1,
        )  # fmt: skip
        await self._client.subscribe(f"{RELEASE}.*", cb=self._asked)

    async def _asked(self, message: Msg) -> None:
        row = self.answer(message.subject.rsplit(".", 1)[1], message.data, time.monotonic())
        if message.reply:
            with contextlib.suppress(nats.errors.Error):
                await message.respond(json.dumps(row).encode())

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
