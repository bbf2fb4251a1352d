"""What the page shows now: the site's snapshots, and its reasons, alarms and ages, asked once for all viewers.

Ages are the unit's own: of a snapshot by its monotonic time, of a point by the gateway's `ages_ms`. A viewer's clock is
never asked, and a site that says nothing is said to be silent, with how long, however fresh the last number looked.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping

import msgspec

from tidegate.runtime.api.async_client import AsyncClient
from tidegate.runtime.api.connection import ClientError
from tidegate.runtime.api.messages import Message
from tidegate.runtime.export.listening import silent_after_s

STATE_EVERY_S = 1.0
CARBON_EVERY_S = 5.0
AGAIN_S = 1.0
LOOK_S = 0.25
BEAT_S = 1.0  # a viewer hears from the unit at least so often, also while the site is silent
HZ_MAX = 10.0
EVENTS_SHOWN = 200
WIDTH_OF_A_FRAME = 64  # encoded frames that are kept for viewers of the same rate

logger = logging.getLogger("tidegate.web")


class LiveValues:
    """One site, followed. `client` is asked by this object's tasks only; `site` is None until it has answered."""

    def __init__(self, client: AsyncClient, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._client = client
        self._monotonic_ns = monotonic_ns
        self.site: Message | None = None
        self.seq = 0
        self.state_seq = 0
        self.points: dict[str, tuple[float | None, int]] = {}
        self.state: dict[str, object] = {}
        self.events: list[Message] = []
        self._changed: dict[str, int] = {}
        self._t_ns = 0
        self._utc_ns: int | None = None
        self._utc_sync = "I"
        self._boot = ""
        self._silent_s = silent_after_s(10.0)
        self._moved = asyncio.Event()  # of what comes next; each one is set once
        self._frames: dict[tuple[int, int], bytes] = {}
        self._state_body = (-1, b"{}")

    # ---- following the site ----

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again(self._follow))
            group.create_task(self._again(self._follow_events))
            group.create_task(self._again(self._ask_state))
            group.create_task(self._beat())

    async def _again(self, follow: Callable[[], object]) -> None:
        """Go on after what may pass: a gateway that is away, a release that is being changed."""
        while True:
            try:
                await follow()  # type: ignore[misc]
            except (ClientError, msgspec.ValidationError) as why:
                logger.info("waits: %s", why)
            await asyncio.sleep(AGAIN_S)

    async def _follow(self) -> None:
        self.describe(await self._client.describe())
        program = self.site["sha256"] if self.site else ""
        async for message in self._client.subscribe("snapshot"):
            if message["program"] != program:
                return  # another site file: described again
            self.take(message)
            await self._wake()

    async def _follow_events(self) -> None:
        health = await self._client.health()
        boot, newest = health.get("boot"), int(health["gateway"]["durable"].get("event", -1))
        boot = boot or (await self._client.ask("health"))["boot"]
        since = {"event": (str(boot), max(-1, newest - EVENTS_SHOWN))}
        async for event in self._client.subscribe("event", since=since):
            self.events = [*self.events[-EVENTS_SHOWN + 1 :], event]
            self.state_seq += 1

    async def _ask_state(self) -> None:
        carbon: Message | None = None
        carbon_due = 0.0
        while True:
            now_s = self._monotonic_ns() / 1e9
            why, alarms = await self._client.why(), await self._client.ask("alarms")
            ages = (await self._client.ask("get", ages=True))["ages_ms"]
            health = await self._client.health()
            if now_s >= carbon_due:
                carbon_due = now_s + CARBON_EVERY_S
                try:
                    carbon = await self._client.ask("carbon", of="site")
                except ClientError as without:
                    carbon = {"text": without.text, "rows": []}
            self.take_state(why, alarms, ages, health, carbon)
            await self._wake()
            await asyncio.sleep(STATE_EVERY_S)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            self._frames.clear()  # their ages have moved on
            await self._wake()

    async def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    # ---- taking over what was heard ----

    def describe(self, site: Message) -> None:
        """Take over what the site is."""
        self.site = site
        self._silent_s = silent_after_s(float(site["site"]["snapshot_hz"]))
        self.points.clear()
        self._changed.clear()
        self._frames.clear()
        self.seq += 1

    def take(self, snapshot: Message) -> None:
        """Take over a snapshot."""
        self.seq += 1
        for name, (value, quality) in snapshot["points"].items():
            if self.points.get(name) != (value, quality):
                self.points[name] = (value, quality)
                self._changed[name] = self.seq
        self._t_ns, self._utc_ns, self._utc_sync = snapshot["t_ns"], snapshot["utc_ns"], snapshot["utc_sync"]
        self._boot = str(snapshot["boot"])
        self._frames.clear()

    def take_state(
        self,
        why: Message,
        alarms: Message,
        ages_ms: Mapping[str, float | None],
        health: Message,
        carbon: Message | None,
    ) -> None:
        """Take over what is asked once a second."""
        self.state_seq += 1
        self.state = {
            "why": why,
            "alarms": alarms["alarms"],
            "findings": alarms["findings"],
            "shelved": alarms.get("shelved", []),
            "ages_ms": dict(ages_ms),
            "health": {key: health.get(key) for key in ("core", "buses", "journal", "mode")},
            "carbon": carbon,
            "asked_t_ns": self._monotonic_ns(),
        }

    # ---- what a viewer gets ----

    @property
    def boot(self) -> str:
        """The run of the site that the newest snapshot is of; "" before the first."""
        return self._boot

    @property
    def age_ms(self) -> float | None:
        """How old the newest snapshot is; None: there was none yet."""
        return None if not self._t_ns else max(0.0, (self._monotonic_ns() - self._t_ns) / 1e6)

    @property
    def silent(self) -> bool:
        """Whether the site has said nothing for longer than it may."""
        age_ms = self.age_ms
        return age_ms is None or age_ms > self._silent_s * 1e3

    def frame(self, since: int) -> bytes:
        """What changed behind a frame, as JSON; everything for 0."""
        key = (since, self.seq)
        if key not in self._frames:
            if len(self._frames) >= WIDTH_OF_A_FRAME:
                self._frames.clear()
            points = {n: v for n, v in self.points.items() if self._changed[n] > since} if since else self.points
            body = {
                "seq": self.seq,
                "full": since == 0,
                "age_ms": self.age_ms,
                "silent": self.silent,
                "utc_s": None if self._utc_ns is None else self._utc_ns / 1e9,
                "utc_sync": self._utc_sync,
                "boot": self._boot,
                "points": points,
            }
            self._frames[key] = msgspec.json.encode(body)
        return self._frames[key]

    def state_frame(self) -> bytes:
        """Reasons, alarms, ages and events, as JSON; `asked_age_ms` says how old they are."""
        asked = self.state.get("asked_t_ns")
        age_ms = (self._monotonic_ns() - asked) / 1e6 if isinstance(asked, int) else None
        if self._state_body[0] != self.state_seq:  # large, and the same for all viewers but for its age
            self._state_body = (self.state_seq, msgspec.json.encode({**self.state, "events": self.events}))
        return b'{"asked_age_ms":' + msgspec.json.encode(age_ms) + b"," + self._state_body[1][1:]

    async def stream(self, hz: float, good: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Server-sent events for one viewer, at most `hz` a second, until `good` is false."""
        every_s = 1.0 / min(HZ_MAX, max(0.2, hz))
        since = seen_state = 0
        sent_s = 0.0
        while good():
            moved = self._moved  # taken first: what comes while a frame is sent is not waited past
            if self.seq != since or time.monotonic() - sent_s >= BEAT_S:
                since, frame = self.seq, self.frame(since)
                sent_s = time.monotonic()
                yield b"event: values\ndata: " + frame + b"\n\n"
            if self.state_seq != seen_state:
                seen_state = self.state_seq
                yield b"event: state\ndata: " + self.state_frame() + b"\n\n"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(moved.wait(), BEAT_S)
            await asyncio.sleep(max(0.0, every_s - (time.monotonic() - sent_s) - 0.005))
        yield b"event: ended\ndata: {}\n\n"
