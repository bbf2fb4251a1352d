"""What a site sends beside its ledger: how it is now, its events, and its powers minute by minute.

Read from the gateway as any client reads it. Events and minutes go past marks that are the hub's answer, given after
its commit, so that days away come afterwards and nothing comes twice. They are not signed, as the ledger is: they show,
and account for nothing.
"""

import json
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgpack

from tidegate.runtime.api.async_client import AsyncClient
from tidegate.runtime.api.connection import ClientError
from tidegate.runtime.api.messages import Message
from tidegate.runtime.gateway.records import utc_sync

VERSION = 1
MINUTE_NS = 60_000_000_000
EVENTS_AT_ONCE, METERS_AT_ONCE, MINUTES_AT_ONCE = 256, 256, 60
EVENT_BYTES_MAX = 2_000
UNPACKED_MAX = 4 << 20
Position = tuple[str, int]  # boot, seq


class ConditionError(ValueError):
    """Bytes that are no message of a site's condition, in a sentence."""


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute. values : point -> mean, least, most, number of readings."""

    start_utc_s: int
    values: Mapping[str, tuple[float, float, float, int]]


@dataclass(slots=True)
class Condition:
    """A message. now : what the site is, "" keys left out; marks : (boot, seq) that events and minutes end at."""

    site: str
    now: Mapping[str, object]
    events: Sequence[Mapping[str, object]] = ()
    minutes: Sequence[Minute] = ()
    event_mark: Position | None = None
    meter_mark: Position | None = None


def pack_condition(made: Condition) -> bytes:
    """The message as it travels."""
    minutes = [[one.start_utc_s, {name: list(row) for name, row in one.values.items()}] for one in made.minutes]
    body = [VERSION, made.site, dict(made.now), list(made.events), minutes, made.event_mark, made.meter_mark]
    return zlib.compress(msgpack.packb(body), 6)


def unpack_condition(data: bytes) -> Condition:
    """The message in bytes. Raises ConditionError for anything else, whatever its bytes."""
    inflate = zlib.decompressobj()
    try:
        raw = inflate.decompress(data, UNPACKED_MAX)
        if inflate.unconsumed_tail or not inflate.eof:
            raise ConditionError(f"unpacks to more than {UNPACKED_MAX >> 20} MiB, or was cut")
        held, site, now, events, minutes, event_mark, meter_mark = msgpack.unpackb(raw, strict_map_key=True)
        if held != VERSION or not isinstance(site, str) or not isinstance(now, dict):
            raise ConditionError(f"version {held!r} of a condition, this hub knows {VERSION}")
        return Condition(
            site, now, [_event(one) for one in events], [_minute(*one) for one in minutes],
            _position(event_mark), _position(meter_mark),
        )  # fmt: skip
    except (zlib.error, ValueError, TypeError, KeyError, msgpack.exceptions.UnpackException) as why:
        raise ConditionError(f"no condition of a site ({why})") from None


def _event(row: Mapping[str, object]) -> Mapping[str, object]:
    if not (isinstance(row["boot"], str) and isinstance(row["seq"], int) and isinstance(row["utc_ns"], int)):
        raise ValueError("an event without its place")
    if (
        not isinstance(row["event"], str)
        or max(abs(row["seq"]), abs(row["utc_ns"])) >= 1 << 62
        or len(row["boot"]) > 64
    ):
        raise ValueError("an event without its kind")
    return row


def _minute(start_utc_s: int, values: Mapping[str, Sequence[float]]) -> Minute:
    rows = {
        str(name): (float(mean), float(least), float(most), int(count))
        for name, (mean, least, most, count) in values.items()
    }
    if type(start_utc_s) is not int or start_utc_s % 60 or abs(start_utc_s) >= 1 << 40 or len(rows) > 64:
        raise ValueError("no minute")
    return Minute(start_utc_s, rows)


def _position(row: object) -> Position | None:
    if row is None:
        return None
    if isinstance(row, list) and len(row) == 2:
        boot, seq = row
        if isinstance(boot, str) and isinstance(seq, int) and len(boot) <= 64 and abs(seq) < 1 << 62:
            return boot, seq
    raise ValueError("no position in a journal")


# ---- on the site ----


@dataclass(slots=True)
class MinuteSums:
    """Makes minutes of meter records that come in order. A minute is whole once a record of a later one came."""

    start_utc_s: int = -1
    last: Position | None = None
    _sums: dict[str, list[float]] = field(default_factory=dict)

    def take(self, record: Message) -> Minute | None:
        """The minute that this record ends, if it does; `last` is then where it ended."""
        start = int(record["utc_ns"]) // MINUTE_NS * 60
        done = None
        if start != self.start_utc_s:
            if self._sums:
                done = Minute(self.start_utc_s, {
                    name: (total / count, least, most, int(count))
                    for name, (total, least, most, count) in self._sums.items()
                })  # fmt: skip
            self.start_utc_s, self._sums = start, {}
        for name, (value, quality) in record["points"].items():
            if quality != 1 or not _is_shown(name) or value is None or value != value:
                continue
            row = self._sums.setdefault(name, [0.0, value, value, 0])
            row[0] += value
            row[1], row[2] = min(row[1], value), max(row[2], value)
            row[3] += 1
        return done


def _is_shown(name: str) -> bool:
    """Powers of the site and states of charge: what a fleet's page draws."""
    return (name.startswith("site.") and name.endswith("_w")) or name.endswith((".power_w", ".soc"))


class ConditionReader:
    """Reads a site's gateway for its hub. web_folder : where the site's page keeps its certificate."""

    def __init__(self, client: AsyncClient, site: str, web_folder: Path | None = None) -> None:
        self._client, self._site, self._web_folder = client, site, web_folder
        self._sums = MinuteSums()
        self._meter_at: Position | None = None  # how far the journal was read; the mark is where a whole minute ended
        self._minute_mark: Position | None = None

    async def read(self, event_mark: Position | None, meter_mark: Position | None) -> tuple[Condition, bool]:
        """(what goes to the hub past its marks, whether that is all). Raises ClientError."""
        made = Condition(self._site, await self._now())
        records, all_events = await self._replay("event", event_mark, EVENTS_AT_ONCE)
        made.events = [shortened(record) for record in records]
        made.event_mark = _end(records) or event_mark
        minutes, all_minutes = await self._minutes(meter_mark)
        made.minutes, made.meter_mark = minutes, self._minute_mark or meter_mark
        return made, all_events and all_minutes

    async def _replay(self, stream: str, after: Position | None, count: int) -> tuple[list[Message], bool]:
        boot, seq = after if after is not None else (None, -1)
        try:
            return await self._client.replay(stream, boot, seq, count)
        except ClientError as why:
            if why.code != "gone":
                raise
            return await self._client.replay(stream, count=count)  # the journal's oldest: an event names the gap

    async def _minutes(self, mark: Position | None) -> tuple[list[Minute], bool]:
        if self._minute_mark != mark or self._meter_at is None:  # a new hub, or one that was put back
            self._meter_at = self._minute_mark = mark
            self._sums = MinuteSums()
        found: list[Minute] = []
        while len(found) < MINUTES_AT_ONCE:
            records, end = await self._replay("meter", self._meter_at, METERS_AT_ONCE)
            for record in records:
                before = self._meter_at
                done = self._sums.take(record)
                if done is not None:
                    found.append(done)
                    self._minute_mark = before
                self._meter_at = (str(record["boot"]), int(record["seq"]))
            if end or not records:
                return found, True
        return found, False

    async def _now(self) -> dict[str, object]:
        alarms, why = await self._client.ask("alarms"), await self._client.why()
        found: dict[str, object] = {
            "version": own_version(),
            "mode": why.get("mode"),
            "utc_s": int(time.time()),
            "utc_sync": utc_sync(),
            "alarms": [_alarm(row) for row in alarms["alarms"][:32]],
            "alarms_count": len(alarms["alarms"]),
            "certificate_until_utc_s": certificate_until(self._web_folder),
        }
        return {name: value for name, value in found.items() if value is not None}


def _alarm(row: Message) -> dict[str, object]:
    wanted = ("id", "text", "reaction", "unit", "since_s", "latched", "active")
    return {name: row[name] for name in wanted if row.get(name) is not None}


def _end(records: Sequence[Message]) -> Position | None:
    return (str(records[-1]["boot"]), int(records[-1]["seq"])) if records else None


def shortened(record: Message) -> dict[str, object]:
    """An event with what a hub keeps of it, its words bounded."""
    kept: dict[str, object] = {name: record[name] for name in ("boot", "seq", "utc_ns", "event") if name in record}
    more = {
        name: value[:500] if isinstance(value, str) else value
        for name, value in record.items()
        if name in ("unit", "name", "detail", "value", "from", "to", "text")
        and isinstance(value, (str, int, float, bool))
    }
    return {**kept, **more}


def own_version() -> str:
    """The release that runs here."""
    try:
        return version("tidegate")
    except PackageNotFoundError:
        return "not installed"


def certificate_until(folder: Path | None) -> int | None:
    """When the certificate of the site's own page ends; None without one."""
    if folder is None:
        return None
    try:
        return int(json.loads((folder / "issued.json").read_text())["until_utc_s"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def rows_of(events: Iterable[Mapping[str, object]]) -> Iterable[tuple[str, int, int, str, str]]:
    """(boot, seq, utc_s, kind, JSON) of events, as the hub keeps them."""
    for one in events:
        text = json.dumps(dict(one), ensure_ascii=True, default=str)[:EVENT_BYTES_MAX]
        yield str(one["boot"]), int(str(one["seq"])), int(str(one["utc_ns"])) // 10**9, str(one["event"])[:40], text
