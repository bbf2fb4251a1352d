"""Emission factors: hold steps with a source, a kind and a status, never interpolated.

A factor is a whole number of micrograms CO2e per kWh. A series keeps every version of a step with the time at which it
was known, so that a restatement makes a new version and an old report still finds its own. What a look-up had to do
(actual, estimated, forecast, held, fallback) goes with the number into the ledger and onto every report.
"""

import bisect
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TypedDict

from tidegate.runtime.carbon.integers import to_whole

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

    def grid_at(self, utc_s: int, known_utc_s: int | None = None) -> FactorLookup:
        return self._found(self.grid, utc_s, known_utc_s)

    def marginal_at(self, utc_s: int, known_utc_s: int | None = None) -> FactorLookup | None:
        return None if self.marginal is None else self._found(self.marginal, utc_s, known_utc_s)

    def _found(self, series: Series | None, utc_s: int, known_utc_s: int | None) -> FactorLookup:
        if series is not None:
            got = series.at(utc_s, known_utc_s)
            if got is not None:
                step, held = got
                return FactorLookup(
                    step.ug_per_kwh, "held" if held else step.status, series.source, step.start_utc_s, step.version
                )
        return FactorLookup(self.fallback_ug_per_kwh, self.fallback_status, self.fallback_source, 0)

    def cfe_ppm_at(self, utc_s: int) -> int | None:
        """Carbon-free share of the grid, ppm; None where it is not known."""
        got = None if self.cfe is None else self.cfe.at(utc_s)
        return None if got is None else got[0].ug_per_kwh

    def price_at(self, utc_s: int) -> int | None:
        """Price of a kWh in millionths of the currency; None where it is not known."""
        got = None if self.prices is None else self.prices.at(utc_s)
        return None if got is None else got[0].ug_per_kwh

    def source_at(self, role: str) -> FactorLookup:
        """Factor of an on-site source by its role; 0 for what burns nothing, and it says so."""
        if role in self.constants:
            value, source = self.constants[role]
            return FactorLookup(value, "actual", source, 0)
        return FactorLookup(0, "actual", "no fuel: direct emissions 0 by definition", 0)


# ---- reading ----


def iso(utc_s: int) -> str:
    return datetime.fromtimestamp(utc_s, UTC).strftime("%Y-%m-%dT%H:%MZ")


def parse_time(text: str, where: str) -> int:
    """Seconds since 1970 of a time with an offset. Raises FactorError for a time that could mean two moments."""
    try:
        time = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise FactorError(f"{where}: {text!r} is not a time; write it like 2023-03-14T22:30Z") from None
    if time.tzinfo is None:
        raise FactorError(f"{where}: the time {text!r} has no offset; write Z for UTC, or +01:00")
    return int(time.timestamp())


def parse_factor(text: str, unit: str, where: str) -> int:
    """Micrograms per kWh of a number in `unit`. Raises FactorError for text, negatives, an impossible unit."""
    if unit not in UNITS:
        raise FactorError(f"{where}: unit {unit!r} is not known; use one of {', '.join(UNITS)}")
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        raise FactorError(f"{where}: {text!r} is not a number") from None
    if not value.is_finite():
        raise FactorError(f"{where}: {text!r} is not a finite number")
    if value.adjusted() > 12:  # before it is written out: 1e999999999 has as many digits
        raise FactorError(f"{where}: factor {text[:40]} {unit} is above 3 kg/kWh; the unit of the column is not {unit}")
    if value.adjusted() < -30:
        value = Decimal(0)
    whole = to_whole(value * UNITS[unit], 1)
    if whole < 0:
        raise FactorError(f"{where}: factor {text} {unit} is negative")
    if whole > FACTOR_MAX:
        raise FactorError(f"{where}: factor {text} {unit} is above 3 kg/kWh; the unit of the column is not {unit}")
    return whole


ALWAYS = 1 << 40  # s; behind every report
