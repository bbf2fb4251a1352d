"""Emission factors: hold steps with a source, a kind and a status, never interpolated.

A factor is a whole number of micrograms CO2e per kWh. A series keeps every version of a step with the time at which it
was known, so that a restatement makes a new version and an old report still finds its own. What a look-up had to do
(actual, estimated, forecast, held, fallback) goes with the number into the ledger and onto every report.
"""

import bisect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypedDict

from tidegate.runtime.carbon.integers import to_whole
from tidegate.runtime.carbon.tables import number_of

KINDS = ("average", "marginal", "residual", "cfe")
STATUSES = ("actual", "estimated", "forecast")
# ug per kWh of one unit
UNITS = {
    "g/kWh": Decimal(1_000_000),
    "kg/kWh": Decimal(1_000_000_000),
    "kg/MWh": Decimal(1_000_000),
    "t/MWh": Decimal(1_000_000_000),
    "lb/MWh": Decimal("453592.37"),  # 1 lb = 453.59237 g exactly
}
FACTOR_MAX = 3_000_000_000  # 3 kg/kWh: above the dirtiest lignite; a larger number is a wrong unit
HOLD_S = 7200  # how long the last step is held over a gap before the fallback takes over
# A grid's mean changes by hours, not by a third in one step: a feed that lost its coal and its nuclear shows that.
ODD_RATIO = 3
ODD_UG_PER_KWH = 50_000_000
ODD_S = 86_400  # a level that holds for longer is the new one
MINUTE_S = 60
Shape = Sequence[int] | None  # mWh of each minute of a period, from its start
YEAR_10000_S = 253_402_300_800
# From the best to the worst that a number of several parts can be.
STATUS_ORDER = ("actual", "constant", "estimated", "forecast", "held", "fallback")


class FactorError(ValueError):
    """A factor that cannot be used; the text names file, line and remedy."""


@dataclass(frozen=True, slots=True)
class Step:
    """One factor, valid from start to end. `issued_utc_s` is when it was known; 0 = not said."""

    start_utc_s: int
    end_utc_s: int
    ug_per_kwh: int
    status: str = "actual"
    issued_utc_s: int = 0
    version: str = ""
    mark: str = ""  # why the status is not "actual", in the file's own words


class LookupRow(TypedDict):
    """A factor that a period was booked with."""

    ug_per_kwh: int
    status: str
    source: str
    step_utc_s: int
    version: str


@dataclass(frozen=True, slots=True)
class FactorLookup:
    """What a look-up gave, and how."""

    ug_per_kwh: int
    status: str  # actual, estimated, forecast, held, constant or fallback
    source: str
    start_utc_s: int
    version: str = ""
    odd: bool = False  # far from its neighbours in time, see odd_starts

    def record(self) -> LookupRow:
        return {
            "ug_per_kwh": self.ug_per_kwh,
            "status": self.status,
            "source": self.source,
            "step_utc_s": self.start_utc_s,
            "version": self.version,
        }


@dataclass(slots=True)
class Series:
    """Steps of one zone and kind. Later-known versions of a step lie beside the earlier ones."""

    zone: str
    kind: str
    source: str
    sha256: str = ""
    lifecycle: str = "not stated"
    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    odd: frozenset[int] = frozenset()  # starts of steps that are far from their neighbours
    _starts: list[int] = field(default_factory=list)

    def finish(self) -> "Series":
        """Sort, and refuse overlaps of one version."""
        self.steps.sort(key=lambda step: (step.start_utc_s, step.issued_utc_s))
        for before, after in zip(self.steps, self.steps[1:], strict=False):
            if after.start_utc_s < before.end_utc_s and after.start_utc_s != before.start_utc_s:
                raise FactorError(
                    f"{self.source}: the steps from {iso(before.start_utc_s)} and {iso(after.start_utc_s)} overlap; "
                    "give each moment one factor, or the same interval a later issued_at"
                )
            if after.start_utc_s == before.start_utc_s and after.issued_utc_s == before.issued_utc_s:
                raise FactorError(
                    f"{self.source}: the step from {iso(after.start_utc_s)} stands twice with the same issue time; "
                    "remove one, or give the restatement a later issued_at"
                )
        self._starts = [step.start_utc_s for step in self.steps]
        self.odd = odd_starts(self.steps) if self.kind == "average" else frozenset()
        return self

    def at(self, utc_s: int, known_utc_s: int | None = None) -> tuple[Step, bool] | None:
        """The newest version of the step at a moment that was known by `known_utc_s`, and whether it had to be held.

        None if there is none, or the last one ended more than HOLD_S before.
        """
        index = bisect.bisect_right(self._starts, utc_s) - 1
        while index >= 0:
            step = self.steps[index]
            if known_utc_s is None or step.issued_utc_s <= known_utc_s:
                if utc_s < step.end_utc_s:
                    return step, False
                return (step, True) if utc_s < step.end_utc_s + HOLD_S else None
            index -= 1
        return None

    def over(self, start_utc_s: int, end_utc_s: int, known_utc_s: int | None = None) -> list["Piece"]:
        """What holds in [start, end), in the order of time; one piece where one step covers it all."""
        pieces: list[Piece] = []
        at = start_utc_s
        while at < end_utc_s:
            got = self.at(at, known_utc_s)
            until = end_utc_s
            following = bisect.bisect_right(self._starts, at)
            if following < len(self._starts):
                until = min(until, self._starts[following])
            if got is not None:
                step, held = got
                until = min(until, step.end_utc_s + (HOLD_S if held else 0))
            if pieces and pieces[-1][1] == got:
                pieces[-1] = (pieces[-1][0] + until - at, got)
            else:
                pieces.append((until - at, got))
            at = until
        return pieces


Piece = tuple[int, tuple[Step, bool] | None]  # seconds, and the step with whether it is held; None = nothing is known


def odd_starts(steps: list[Step]) -> frozenset[int]:
    """Starts of the steps that fall to a third, or rise to three times, of what held before, for at most a day."""
    odd: set[int] = set()
    newest = {step.start_utc_s: step for step in steps}
    believed: Step | None = None
    for start, step in newest.items():
        if believed is not None and start - believed.start_utc_s <= ODD_S:
            low, high = sorted((step.ug_per_kwh, believed.ug_per_kwh))
            if high > ODD_RATIO * low and high - low > ODD_UG_PER_KWH:
                odd.add(start)
                continue
        believed = step
    return frozenset(odd)


@dataclass(slots=True)
class Factors:
    """The factors of one site: a grid series, a fallback, and constants by source name."""

    grid: Series | None
    fallback_ug_per_kwh: int
    fallback_source: str
    fallback_status: str = "fallback"  # "constant" where the site has nothing else on purpose
    constants: dict[str, tuple[int, str]] = field(default_factory=dict)
    marginal: Series | None = None
    cfe: Series | None = None  # carbon-free share of the grid, ppm
    prices: Series | None = None  # millionths of the currency per kWh

    residual: Series | None = None  # the residual mix, for what no instrument covers
    hold_odd: bool = False  # hold the last plausible step where one is far from its neighbours

    def grid_at(
        self, utc_s: int, known_utc_s: int | None = None, length_s: int = 1, shape: Shape = None
    ) -> FactorLookup:
        """The grid's factor over [utc_s, utc_s + length_s), its steps weighted by the energy, or the time, in each.

        shape : mWh of each minute from utc_s on; None where that is not known.
        """
        return self._found(self.grid, utc_s, known_utc_s, length_s, shape)

    def marginal_at(
        self, utc_s: int, known_utc_s: int | None = None, length_s: int = 1, shape: Shape = None
    ) -> FactorLookup | None:
        return None if self.marginal is None else self._found(self.marginal, utc_s, known_utc_s, length_s, shape)

    def _found(
        self, series: Series | None, utc_s: int, known_utc_s: int | None, length_s: int, shape: Shape
    ) -> FactorLookup:
        if series is None:
            return self._fallback()
        pieces = series.over(utc_s, utc_s + max(1, length_s), known_utc_s)
        rows = [(seconds, self._lookup(series, got)) for seconds, got in pieces]
        if len(rows) == 1:
            return rows[0][1]
        weights, how = weights_of([seconds for seconds, _ in rows], shape)
        return FactorLookup(
            weighted((weight, row.ug_per_kwh) for weight, (_, row) in zip(weights, rows, strict=True)),
            max((row.status for _, row in rows), key=STATUS_ORDER.index),
            " + ".join(dict.fromkeys(row.source for _, row in rows)),
            rows[0][1].start_utc_s,
            f"{len(rows)} steps, weighted by {how}",
            any(row.odd for _, row in rows),
        )

    def _lookup(self, series: Series, got: tuple[Step, bool] | None) -> FactorLookup:
        if got is None:
            return self._fallback()
        step, held = got
        odd = step.start_utc_s in series.odd
        if odd and self.hold_odd:
            before = [s for s in series.steps[: bisect.bisect_left(series._starts, step.start_utc_s)]
                      if s.start_utc_s not in series.odd]  # fmt: skip
            step, held = (before[-1] if before else step), True
        status = "held" if held else step.status
        return FactorLookup(step.ug_per_kwh, status, series.source, step.start_utc_s, step.version, odd)

    def _fallback(self) -> FactorLookup:
        return FactorLookup(self.fallback_ug_per_kwh, self.fallback_status, self.fallback_source, 0)

    def residual_at(self, utc_s: int, length_s: int = 1, shape: Shape = None) -> int | None:
        """The residual mix, ug per kWh; None where it is not known all the time."""
        return _plain(self.residual, utc_s, length_s, shape)

    def cfe_ppm_at(self, utc_s: int, length_s: int = 1, shape: Shape = None) -> int | None:
        """Carbon-free share of the grid, ppm; None where it is not known all the time."""
        return _plain(self.cfe, utc_s, length_s, shape)

    def price_at(self, utc_s: int, length_s: int = 1, shape: Shape = None) -> int | None:
        """Price of a kWh in millionths of the currency; None where it is not known all the time."""
        return _plain(self.prices, utc_s, length_s, shape)

    def source_at(self, role: str) -> FactorLookup:
        """Factor of an on-site source by its role; 0 for what burns nothing, and it says so."""
        if role in self.constants:
            value, source = self.constants[role]
            return FactorLookup(value, "actual", source, 0)
        return FactorLookup(0, "actual", "no fuel: direct emissions 0 by definition", 0)


def weights_of(lengths_s: list[int], shape: Shape) -> tuple[list[int], str]:
    """(weights, "energy" or "time") of pieces that follow each other; a minute's energy lies evenly in it."""
    if not shape or not any(shape):
        return lengths_s, "time"
    weights: list[int] = []
    at = 0
    for length in lengths_s:
        end, weight = at + length, 0
        while at < end:
            minute = at // MINUTE_S
            until = min(end, (minute + 1) * MINUTE_S)
            weight += (until - at) * (shape[minute] if minute < len(shape) else 0)
            at = until
        weights.append(weight)
    return (weights, "energy") if sum(weights) > 0 else (lengths_s, "time")


def weighted(rows: Iterable[tuple[int, int]]) -> int:
    """Mean of (weight, value) by the weight, half to even."""
    pairs = list(rows)
    whole = sum(seconds for seconds, _ in pairs)
    quotient, rest = divmod(sum(seconds * value for seconds, value in pairs), whole)
    return quotient + (1 if 2 * rest > whole or (2 * rest == whole and quotient & 1) else 0)


def _plain(series: Series | None, utc_s: int, length_s: int, shape: Shape) -> int | None:
    """Mean by energy, or by time, of what a series says; None where it says nothing for a part."""
    if series is None:
        return None
    rows: list[tuple[int, int]] = []
    for seconds, got in series.over(utc_s, utc_s + max(1, length_s)):
        if got is None:
            return None
        rows.append((seconds, got[0].ug_per_kwh))
    weights, _ = weights_of([seconds for seconds, _ in rows], shape)
    return weighted((weight, value) for weight, (_, value) in zip(weights, rows, strict=True))


# ---- reading ----


# Other ways in which people and portals write these units; matched without capitals, spaces and the gas meant.
_MEANT = {unit.lower(): unit for unit in UNITS} | {"lbs/mwh": "lb/MWh", "tonnes/mwh": "t/MWh"}
_GAS = re.compile(r"\s+|_|-?co2(?:-?eq|e)?|ghg", re.IGNORECASE)


def unit_of(text: str, where: str) -> str:
    """The unit of UNITS that is meant by `gCO2eq/kWh`, `tCO2eq/MWh`, `lbs CO2/MWh`. Raises FactorError."""
    if text in UNITS:
        return text
    plain = re.sub(r"\bper\b|(?<=[a-z])per(?=[mk]wh)", "/", text.strip().lower().replace("₂", "2"))
    found = _MEANT.get(_GAS.sub("", plain))
    if found is None:
        raise FactorError(f"{where}: unit {text[:60]!r} is not known; use one of {', '.join(UNITS)}")
    return found


def iso(utc_s: int) -> str:
    return datetime.fromtimestamp(utc_s, UTC).strftime("%Y-%m-%dT%H:%MZ")


def parse_time(text: str, where: str) -> int:
    """Seconds since 1970 of a time with an offset. Raises FactorError for a time that could mean two moments."""
    try:
        time = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise FactorError(f"{where}: {text[:60]!r} is not a time; write it like 2023-03-14T22:30Z") from None
    if time.tzinfo is None:
        raise FactorError(f"{where}: the time {text!r} has no offset; write Z for UTC, or +01:00")
    utc_s = int(time.timestamp())
    if not 0 <= utc_s < YEAR_10000_S:
        raise FactorError(f"{where}: {text[:60]!r} is outside the years 1970 to 9999 in UTC")
    return utc_s


def parse_factor(text: str, unit: str, where: str) -> int:
    """Micrograms per kWh of a number in `unit`. Raises FactorError for text, negatives, an impossible unit."""
    unit = unit_of(unit, where)
    value = number_of(text, where, FactorError)
    whole = to_whole(value * UNITS[unit], 1)
    if whole < 0:
        raise FactorError(f"{where}: factor {text} {unit} is negative")
    if whole > FACTOR_MAX:
        raise FactorError(f"{where}: factor {text} {unit} is above 3 kg/kWh; the unit of the column is not {unit}")
    return whole


ALWAYS = 1 << 40  # s; behind every report
