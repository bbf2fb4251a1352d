"""A site's end of a limit that many sites share: asks for what it needs, and widens its peak limit for the time given.

The site's file holds a tight value; a lease is a policy below every order, which ends by the core's own clock whatever
becomes of this process, the gateway, the line or the hub. A term begins when it was asked for, not when it arrived.
"""

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import nats.errors
from nats.aio.client import Client as Nats

from tidegate.runtime.api.connection import ClientError, Point
from tidegate.runtime.api.messages import QUALITIES, Message
from tidegate.runtime.fleet.hub.limit_coordinator import WATTS_MAX, LimitRequest, monotonic_ms
from tidegate.runtime.fleet.invitation import Invitation
from tidegate.runtime.fleet.ledger_batch import LIMIT, subject_word
from tidegate.runtime.fleet.shared_limit import TERM_MS_MAX
from tidegate.runtime.fleet.unit.site_sender import connected
from tidegate.runtime.fleet.unit.stop_wait import paused

ASK_EVERY_S = 10.0
GUARD_MS = 1_000  # an order that reaches the gateway later than that is refused there
LOOK_BACK_S = 300.0  # what the site wanted at most so lately is asked for
HEADROOM = 1.1


class Gateway(Protocol):
    """What is needed of a client."""

    def why(self) -> Message: ...
    def get(self, *names: str) -> dict[str, Point]: ...
    def ask(self, op: str, **fields: object) -> Message: ...


@dataclass
class Outstanding:
    """What was asked and when, by this machine's monotonic clock. A process that starts again begins with nothing."""

    run: str = field(default_factory=lambda: secrets.token_hex(8))
    seq: int = 0
    taken: int = 0
    asked_ms: dict[int, int] = field(default_factory=dict)

    def ask(self, floor_w: int, ask_w: int, now_ms: int) -> LimitRequest:
        """The next request, remembered with its time."""
        self.seq += 1
        self.asked_ms = {seq: at for seq, at in self.asked_ms.items() if now_ms - at < TERM_MS_MAX}
        self.asked_ms[self.seq] = now_ms
        return LimitRequest(self.run, self.seq, floor_w, ask_w)

    def take(self, data: bytes, now_ms: int) -> tuple[int, int, str] | None:
        """(W above the floor, ms that it has left, what the hub says) of an answer to a request of this process.

        None for one that is old, was taken before, is of another process, or is no answer. 0 W = no lease.
        """
        try:
            row = json.loads(data)
            said = str(row.get("said", ""))
            seq, extra_w, term_ms = row.get("seq"), row.get("extra_w"), row.get("term_ms")
        except (ValueError, AttributeError, RecursionError):
            return None
        if seq is None:
            return 0, 0, said
        if row.get("run") != self.run or any(type(one) is not int for one in (seq, extra_w, term_ms)):
            return None
        asked = self.asked_ms.get(seq)
        if asked is None or seq <= self.taken or not 0 <= extra_w <= WATTS_MAX or not 0 < term_ms <= TERM_MS_MAX:
            return None
        self.taken = seq
        left = asked + term_ms - now_ms
        return (extra_w, left, said) if left > 0 else None


class LimitHolder:
    """client : the site's gateway, with the role maintain. most_w : never asks for more import than this."""

    def __init__(self, client: Gateway, invitation: Invitation, most_w: int,
                 report: Callable[[str], None] | None = None) -> None:  # fmt: skip
        self.client, self.invitation, self.most_w = client, invitation, most_w
        self.out = Outstanding()
        self.extra_w, self._until_ms = 0, 0
        self._loads: list[tuple[int, float]] = []
        self._said = ""
        self._report_to = report or (lambda text: print(f"fleet: {text}", file=sys.stderr, flush=True))
        self._nats: Nats | None = None

    def _report(self, text: str) -> None:
        if text != self._said:
            self._said = text
            if text:
                self._report_to(text)

    def request(self, now_ms: int) -> LimitRequest | None:
        """What to ask now; None without a peak limit in the site's file. Raises ClientError."""
        why = self.client.why()
        file_w = why.get("peak_w_max_of_file")
        if file_w is None:
            self._report("no peak_w_max in the site's file: a lease widens the tight value there")
            return None
        floor_w = -int(-float(str(file_w)) // 1)
        policies = why.get("policies")
        in_force = float(str(policies.get("peak_w_max", file_w))) if isinstance(policies, dict) else float(str(file_w))
        if now_ms >= self._until_ms:
            self.extra_w = 0
        if in_force > floor_w + self.extra_w:
            self._report(f"an order on site lets the import go to {in_force:.0f} W, above the lease; the hub is told")
            floor_w = int(min(in_force, WATTS_MAX))
        load = self.client.get("site.load_w")["site.load_w"]
        if load.value is not None and QUALITIES[load.quality] in ("good", "held"):
            self._loads.append((now_ms, load.value))
        self._loads = [one for one in self._loads if now_ms - one[0] <= LOOK_BACK_S * 1000]
        want_w = min(self.most_w, max((one for _, one in self._loads), default=0.0) * HEADROOM)
        return self.out.ask(min(floor_w, WATTS_MAX), max(0, int(want_w) - floor_w), now_ms)

    def apply(self, data: bytes, floor_w: int, clock_ms: Callable[[], int] = monotonic_ms) -> bool:
        """Widen by what an answer gives, for what is left of it. -> whether it was one. Raises ClientError."""
        now_ms = clock_ms()
        found = self.out.take(data, now_ms)
        if found is None:
            return False
        extra_w, left, said = found
        for_ms = left - GUARD_MS
        if extra_w and for_ms > 0:
            self.client.ask(
                "policy", name="peak_w_max", value=float(floor_w + extra_w), for_ms=for_ms, rank="lease",
                not_after_t_ns=(now_ms + GUARD_MS) * 1_000_000,
            )  # fmt: skip
        elif self.extra_w:
            self.client.ask("policy", name="peak_w_max", rank="lease")
        self.extra_w, self._until_ms = (extra_w, now_ms + for_ms) if for_ms > 0 else (0, 0)
        self._report(f"the hub says: {said}" if said else "")
        return True

    async def open(self) -> None:
        """Connect; the hub may be away for days."""
        self._nats = await connected(self.invitation, self._trouble)

    async def _trouble(self, why: Exception) -> None:
        self._report(f"the hub at {self.invitation.address}: {why or type(why).__name__}; the site's own limit holds")

    async def step(self) -> bool:
        """Ask once. -> whether an answer was taken."""
        assert self._nats is not None
        try:
            request = await asyncio.to_thread(self.request, monotonic_ms())
            if request is None:
                return False
            subject = f"{LIMIT}.{subject_word(self.invitation.site)}"
            answer = await self._nats.request(subject, request.packed(), timeout=ASK_EVERY_S)
            return await asyncio.to_thread(self.apply, answer.data, request.floor_w)
        except ClientError as why:
            self._report(f"the site's gateway: {why}; its lease runs out by itself")
        except (nats.errors.Error, TimeoutError, OSError) as why:
            self._report(f"no answer from the hub ({why or type(why).__name__}); the lease runs out by itself")
        return False

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until told to stop; then the lease is given back to the site, and to the hub by its term."""
        while not stop.is_set():
            began = time.monotonic()
            await self.step()
            await paused(stop, max(0.1, ASK_EVERY_S - (time.monotonic() - began)))

    async def close(self) -> None:
        if self._nats is not None:
            await self._nats.close()
