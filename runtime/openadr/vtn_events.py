"""Events of OpenADR 3 as what a site can do: pieces of time with a meaning and a value in our units. Nothing is sent.

Source: OpenADR 3.0.1 and 3.1.1, Definition, sections on events, intervalPeriod and event payload types. An interval
without a period of its own follows the one before it and lasts as long as the event says. What is not understood is
named, never left out in silence.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

DURATION = re.compile(r"P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
DURATION_S = (365 * 86_400, 30 * 86_400, 7 * 86_400, 86_400, 3600, 60, 1)
FOR_EVER_S = 366 * 86_400
W_BY_UNIT = {"W": 1.0, "KW": 1e3, "MW": 1e6, "": 1e3}  # the specification's own unit of power is KW
EUR_BY_UNIT = {"KWH": 1.0, "MWH": 1e-3, "": 1.0}
POWERS = ("IMPORT_CAPACITY_LIMIT", "EXPORT_CAPACITY_LIMIT", "DISPATCH_SETPOINT")
ACTED_ON = (*POWERS, "PRICE", "SIMPLE")
INTERVALS_MAX = 4096


class EventError(ValueError):
    """Why an event, or a part of it, is not acted on."""


class Piece(NamedTuple):
    """What holds from begin_s to end_s, UTC seconds. value : W, EUR/kWh, or the level of SIMPLE."""

    begin_s: float
    end_s: float
    kind: str
    value: float
    event: str
    priority: float  # lower is stronger; without one it is the weakest


@dataclass
class Understood:
    """Of all events: what to do, what was asked to be reported, and what is not acted on, in words."""

    pieces: list[Piece] = field(default_factory=list)
    reports: dict[str, list[str]] = field(default_factory=dict)  # event id -> payload types
    spans: dict[str, list[tuple[int, float, float]]] = field(default_factory=dict)  # event id -> (interval, from, to)
    left_out: list[str] = field(default_factory=list)

    def active(self, kind: str, now_s: float) -> list[Piece]:
        return [one for one in self.pieces if one.kind == kind and one.begin_s <= now_s < one.end_s]

    def next_change_s(self, kinds: Iterable[str], now_s: float) -> float:
        """When something of these kinds begins or ends next, inf = never."""
        wanted = set(kinds)
        edges = [edge for one in self.pieces if one.kind in wanted for edge in (one.begin_s, one.end_s) if edge > now_s]
        return min(edges, default=math.inf)


def duration_s(text: object) -> float:
    """Seconds of an ISO 8601 duration; PT0S and P9999Y are without an end. Raises EventError."""
    match = DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None or not any(match.groups()):
        raise EventError(f"{text!r} is no duration such as PT1H")
    total = sum(float(part) * unit for part, unit in zip(match.groups(), DURATION_S, strict=True) if part)
    return min(total, FOR_EVER_S) if total > 0 else FOR_EVER_S


def moment_s(text: object) -> float:
    """UTC seconds of a date and time. Raises EventError."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        raise EventError(f"{text!r} is no date and time") from None
    if at.tzinfo is None:
        raise EventError(f"{text!r} has no time zone")
    return at.timestamp()


def understood(events: Iterable[object], names: Iterable[str]) -> Understood:
    """What a site does about events. names : who this end node is; events for others are not its own."""
    found, own = Understood(), set(names)
    for number, event in enumerate(events):
        name = str(number + 1)
        try:
            if not isinstance(event, Mapping):
                raise EventError("is no object")
            name = str(event.get("eventName") or event.get("id") or number + 1)
            targets = set(_texts(event.get("targets")))
            if targets and not targets & own:
                continue
            _one(found, event, name)
        except EventError as why:
            found.left_out.append(f"event {name}: {why}; nothing of it is acted on")
    return found


def _texts(targets: object) -> Iterable[str]:
    """Target names, as 3.0 writes them (maps of values) and as 3.1 does (texts)."""
    for one in targets if isinstance(targets, list) else ():
        if isinstance(one, str):
            yield one
        elif isinstance(one, Mapping):
            yield from (str(value) for value in one.get("values") or ())


def _one(found: Understood, event: Mapping[str, object], name: str) -> None:
    units = {
        str(one.get("payloadType")): (str(one.get("units") or "").upper(), str(one.get("currency") or "").upper())
        for one in _rows(event.get("payloadDescriptors"))
    }
    intervals = _rows(event.get("intervals"))
    if not intervals or len(intervals) > INTERVALS_MAX:
        raise EventError(f"{len(intervals)} intervals; 1 to {INTERVALS_MAX} are read")
    priority = event.get("priority")
    rank = float(priority) if isinstance(priority, int) and not isinstance(priority, bool) else math.inf
    own = str(event.get("id") or name)
    pieces, spans, left_out = [], [], []
    for number, (begin_s, end_s, interval) in enumerate(_timed(event, intervals)):
        at = interval.get("id")
        spans.append((at if isinstance(at, int) else number, begin_s, end_s))
        for payload in _rows(interval.get("payloads")):
            kind, values = str(payload.get("type")), payload.get("values")
            if kind not in ACTED_ON:
                left_out.append(f"event {name}: {kind} is not acted on")
                continue
            value = _value(kind, values, *units.get(kind, ("", "")))
            pieces.append(Piece(begin_s, end_s, kind, value, name, rank))
    found.pieces += pieces
    found.left_out += sorted(set(left_out))
    asked = [str(one.get("payloadType")) for one in _rows(event.get("reportDescriptors"))]
    if asked:
        found.reports[own], found.spans[own] = asked, spans


def _rows(value: object) -> list[Mapping[str, object]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise EventError("a list of objects was expected")
    return value


def _timed(
    event: Mapping[str, object], intervals: list[Mapping[str, object]]
) -> Iterable[tuple[float, float, Mapping[str, object]]]:
    whole = event.get("intervalPeriod")
    common = whole if isinstance(whole, Mapping) else {}
    at_s: float | None = None
    for interval in intervals:
        period = interval.get("intervalPeriod")
        mine = period if isinstance(period, Mapping) else {}
        if "start" in mine:
            at_s = _start_s(event, mine["start"])
        elif at_s is None:
            if "start" not in common:
                raise EventError("no start, of the event or of its first interval")
            at_s = _start_s(event, common["start"])
        lasts = mine.get("duration") or common.get("duration") or "PT0S"
        begin_s, at_s = at_s, at_s + duration_s(lasts)
        yield begin_s, at_s, interval


def _start_s(event: Mapping[str, object], text: object) -> float:
    """Year 0 (3.0.1) and 0000-01-01 (3.1.1) mean at once: when the event was made."""
    return moment_s(event.get("createdDateTime") if isinstance(text, str) and text.startswith("0000-") else text)


def _value(kind: str, values: object, units: str, currency: str) -> float:
    if not isinstance(values, list) or len(values) != 1 or isinstance(values[0], bool):
        raise EventError(f"{kind} has one number, here {values!r}")
    if not isinstance(values[0], int | float) or not math.isfinite(values[0]):
        raise EventError(f"{kind} has one number, here {values!r}")
    value = float(values[0])
    if kind in POWERS:
        if units not in W_BY_UNIT:
            raise EventError(f"{kind} in {units}; W, KW or MW is understood")
        if value < 0:
            raise EventError(f"{kind} is {value:g}, below 0")
        return value * W_BY_UNIT[units]
    if kind == "PRICE":
        if units not in EUR_BY_UNIT or currency not in ("", "EUR"):
            raise EventError(f"PRICE in {currency or '?'} per {units or '?'}; EUR per KWH or MWH is understood")
        return value * EUR_BY_UNIT[units]
    if value not in (0, 1, 2, 3):
        raise EventError(f"SIMPLE has the levels 0 to 3, here {value:g}")
    return value
