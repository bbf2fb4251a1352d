"""Emission factors: hold steps with a source, a kind and a status, never interpolated.

A factor is a whole number of micrograms CO2e per kWh. A series keeps every version of a step with the time at which it
was known, so that a restatement makes a new version and an old report still finds its own. What a look-up had to do
(actual, estimated, forecast, held, fallback) goes with the number into the ledger and onto every report.
"""

import bisect
import csv
import hashlib
import io
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from pathlib import Path
from typing import Any

from tidegate.runtime.carbon.engine.integers import to_whole

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


@dataclass(frozen=True, slots=True)
class Found:
    """What a look-up gave, and how."""

    ug_per_kwh: int
    status: str  # actual, estimated, forecast, held, constant or fallback
    source: str
    start_utc_s: int
    version: str = ""

    def record(self) -> dict[str, Any]:
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

    def grid_at(self, utc_s: int, known_utc_s: int | None = None) -> Found:
        return self._found(self.grid, utc_s, known_utc_s)

    def marginal_at(self, utc_s: int, known_utc_s: int | None = None) -> Found | None:
        return None if self.marginal is None else self._found(self.marginal, utc_s, known_utc_s)

    def _found(self, series: Series | None, utc_s: int, known_utc_s: int | None) -> Found:
        if series is not None:
            got = series.at(utc_s, known_utc_s)
            if got is not None:
                step, held = got
                return Found(
                    step.ug_per_kwh, "held" if held else step.status, series.source, step.start_utc_s, step.version
                )
        return Found(self.fallback_ug_per_kwh, self.fallback_status, self.fallback_source, 0)

    def cfe_ppm_at(self, utc_s: int) -> int | None:
        """Carbon-free share of the grid, ppm; None where it is not known."""
        got = None if self.cfe is None else self.cfe.at(utc_s)
        return None if got is None else got[0].ug_per_kwh

    def price_at(self, utc_s: int) -> int | None:
        """Price of a kWh in millionths of the currency; None where it is not known."""
        got = None if self.prices is None else self.prices.at(utc_s)
        return None if got is None else got[0].ug_per_kwh

    def source_at(self, role: str) -> Found:
        """Factor of an on-site source by its role; 0 for what burns nothing, and it says so."""
        if role in self.constants:
            value, source = self.constants[role]
            return Found(value, "actual", source, 0)
        return Found(0, "actual", "no fuel: direct emissions 0 by definition", 0)


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
    whole = to_whole(value * UNITS[unit], 1)
    if whole < 0:
        raise FactorError(f"{where}: factor {text} {unit} is negative")
    if whole > FACTOR_MAX:
        raise FactorError(f"{where}: factor {text} {unit} is above 3 kg/kWh; the unit of the column is not {unit}")
    return whole


def read_gb_half_hours(path: Path) -> Series:
    """Half-hourly file of the GB system operator: time_utc, forecast_g_per_kwh, actual_g_per_kwh.

    A slot without an actual takes its forecast and is marked; a slot that is missing is held from the one before.
    """
    raw = path.read_bytes()
    rows = _rows(raw, path.name, ("time_utc", "forecast_g_per_kwh", "actual_g_per_kwh"))
    series = Series("GB", "average", path.name, hashlib.sha256(raw).hexdigest(), "direct")
    last = None
    for line, row in rows:
        where = f"{path.name}, line {line}"
        start = parse_time(row["time_utc"], where)
        actual, forecast = row["actual_g_per_kwh"].strip(), row["forecast_g_per_kwh"].strip()
        if not actual and not forecast:
            raise FactorError(
                f"{where}: neither an actual nor a forecast; remove the line, then the slot before is held"
            )
        if last is not None and start > last + 1800:
            series.notes.append(f"{(start - last) // 1800 - 1} slot(s) missing from {iso(last + 1800)}: held")
        if not actual:
            series.notes.append(f"{iso(start)}: no actual yet, forecast used")
        value = parse_factor(actual or forecast, "g/kWh", where)
        series.steps.append(Step(start, start + 1800, value, "actual" if actual else "forecast"))
        last = start
    return series.finish()


FILE_VERSION = 1
FILE_HEAD = f"# tidegate factors {FILE_VERSION}\n"
COLUMNS = ("start_utc", "end_utc", "zone", "value", "unit", "kind", "lifecycle", "status", "source", "version")


def read_csv(path: Path) -> list[Series]:
    """The product's own factor file, one series for each zone and kind.

    Columns: start_utc, end_utc, zone, value, unit, kind, lifecycle, status, source, version; issued_at may follow. A
    first line `# tidegate factors 1` may say which version of this format it is; a later one is refused.
    """
    raw = path.read_bytes()
    check_version(raw, path.name)
    found: dict[tuple[str, str], Series] = {}
    for line, row in _rows(raw, path.name, COLUMNS):
        where = f"{path.name}, line {line}"
        kind, status = row["kind"].strip(), row["status"].strip()
        if kind not in KINDS:
            raise FactorError(f"{where}: kind {kind!r}, expected one of {', '.join(KINDS)}")
        if status not in STATUSES:
            raise FactorError(f"{where}: status {status!r}, expected one of {', '.join(STATUSES)}")
        start, end = parse_time(row["start_utc"], where), parse_time(row["end_utc"], where)
        if end <= start:
            raise FactorError(f"{where}: the step ends at {row['end_utc']}, not after its start {row['start_utc']}")
        key = (row["zone"].strip(), kind)
        series = found.get(key)
        if series is None:
            series = found[key] = Series(
                key[0],
                kind,
                row["source"].strip() or path.name,
                hashlib.sha256(raw).hexdigest(),
                row["lifecycle"].strip(),
            )
        issued = row.get("issued_at", "") or ""
        unit = row["unit"].strip()
        series.steps.append(
            Step(
                start,
                end,
                _share_ppm(row["value"], unit, where) if kind == "cfe" else parse_factor(row["value"], unit, where),
                status,
                parse_time(issued, where) if issued.strip() else 0,
                row["version"].strip(),
            )
        )
    return [series.finish() for series in found.values()]


def check_version(raw: bytes, name: str) -> None:
    """Raise FactorError for a file of a later format than this version knows."""
    first = raw.split(b"\n", 1)[0].decode("utf-8", "replace").lstrip("\ufeff").strip()
    if not first.startswith("#"):
        return
    words = first.lstrip("# ").split()
    if words[:2] != ["tidegate", "factors"] or len(words) != 3 or not words[2].isdigit():
        raise FactorError(f"{name}, line 1: {first[:40]!r} is neither a header nor {FILE_HEAD.strip()!r}")
    if int(words[2]) > FILE_VERSION:
        raise FactorError(
            f"{name}: factor file of format {words[2]}, this version knows {FILE_VERSION}; update tidegate"
        )


def _share_ppm(text: str, unit: str, where: str) -> int:
    scales = {"%": 10_000, "1": 1_000_000}
    if unit not in scales:
        raise FactorError(f"{where}: unit {unit!r} of a carbon-free share; use % or 1")
    try:
        ppm = to_whole(text.strip(), scales[unit])
    except ArithmeticError:
        raise FactorError(f"{where}: {text!r} is not a number") from None
    if not 0 <= ppm <= 1_000_000:
        raise FactorError(f"{where}: a carbon-free share of {text} {unit} is outside 0 to 100 %")
    return ppm


def _rows(raw: bytes, name: str, columns: Sequence[str]) -> Iterable[tuple[int, dict[str, str]]]:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FactorError(f"{name}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    lines = io.StringIO(text)
    above = 0
    if text.startswith("#"):
        lines.readline()
        above = 1
    reader = csv.DictReader(lines)
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise FactorError(
            f"{name}, line {above + 1}: column {', '.join(missing)} is missing; expected {', '.join(columns)}"
        )
    for row in reader:
        if any(row.get(column) is None for column in columns):
            raise FactorError(f"{name}, line {reader.line_num + above}: fewer fields than the {len(columns)} columns")
        yield reader.line_num + above, row


def read_all(path: Path) -> list[Series]:
    """Every series of a factor file of any kind that is known, or of a folder of them.

    Raises FactorError naming the file and what was expected.
    """
    from tidegate.runtime.carbon.factors.services import read_document, read_folder

    return read_folder(path) if path.is_dir() else read_document(path)


def read(path: Path) -> Series:
    """The average series of a factor file or folder. Raises FactorError if there is none, or more than one zone."""
    return average_of(read_all(path), path.name)


def _average(found: Iterable[Series]) -> list[Series]:
    return [one for one in found if one.kind == "average"]


def _empty(path: Path) -> bool:
    return not path.exists() or (path.is_dir() and not any(p.is_file() and p.name[0] != "." for p in path.iterdir()))


def average_of(found: Iterable[Series], name: str) -> Series:
    """The one average series. Raises FactorError as `read`."""
    series = _average(found)
    if not series:
        raise FactorError(f"{name}: no factors of kind average")
    if len(series) > 1:
        zones = ", ".join(one.zone or "(none)" for one in series)
        raise FactorError(f"{name}: factors of several zones ({zones}); keep one zone in a file of a site")
    return series[0]


NO_FACTOR_UG_PER_KWH = 1_000_000_000  # 1 kg/kWh: no grid's average is above it for long


BELIEVABLE_S = 1_704_067_200  # 2024-01-01: a clock before it is not set


def refuse_future(found: Iterable[Series], now_s: float) -> None:
    """Raise FactorError for a version that was issued more than a day from now: a wrong date, or a wrong clock."""
    if now_s < BELIEVABLE_S:
        return
    for series in found:
        for step in series.steps:
            if step.issued_utc_s > now_s + 86_400:
                raise FactorError(
                    f"{series.source}: the version of {iso(step.start_utc_s)} was issued {iso(step.issued_utc_s)}, "
                    "after today; correct the date in the file, or the clock of this machine"
                )


def factors_of(settings: dict[str, Any], folder: Path) -> Factors:
    """The factors that a site file's [carbon] names; paths are relative to `folder`.

    Where factors are fetched the folder may be empty still. Raises FactorError for a file that cannot be used.
    """
    constant = settings.get("grid_factor_g_per_kwh")
    fallback = NO_FACTOR_UG_PER_KWH if constant is None else to_whole(str(constant), 1_000_000)
    why = "no factor is known: upper bound of grid averages" if constant is None else "constant of the site file"
    path = settings.get("factors")
    found: list[Series] = []
    if path and not (settings.get("fetch") and _empty(folder / path)):
        found = read_all(folder / path)
        refuse_future(found, time.time())
    # Factors that are fetched may all be marginal until the average ones come.
    series = average_of(found, str(path)) if found and not (settings.get("fetch") and not _average(found)) else None
    others = {one.kind: one for one in found}
    only = constant is not None and not path
    constants = {}
    for role in ("pv", "generator"):
        value = to_whole(str(settings.get(f"{role}_factor_g_per_kwh") or 0), 1_000_000)
        if value:
            constants[role] = (value, "constant of the site file")
    return Factors(
        series, fallback, why, "constant" if only else "fallback", constants, others.get("marginal"), others.get("cfe"),
        prices_of(settings, folder),
    )  # fmt: skip


ALWAYS = 1 << 40  # s; behind every report


def prices_of(settings: dict[str, Any], folder: Path) -> Series | None:
    """The prices that a site file's [carbon] names: a table, or one number. Raises FactorError by line."""
    currency = str(settings.get("currency") or "EUR")
    if settings.get("prices"):
        return read_prices(folder / str(settings["prices"]), currency)
    constant = settings.get("price_per_kwh")
    if constant is None:
        return None
    step = Step(0, ALWAYS, to_whole(str(constant), 1_000_000), "constant")
    return Series(currency, "price", "constant of the site file", steps=[step]).finish()


def read_prices(path: Path, currency: str) -> Series:
    """Prices by time: time_utc (start of a step that lasts until the next) and price_<currency>_per_mwh or _per_kwh."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FactorError(f"{path}: {error.strerror}") from None
    columns = {f"price_{currency.lower()}_per_{unit}": scale for unit, scale in (("mwh", 1000), ("kwh", 1_000_000))}
    head = raw.split(b"\n", 1)[0].decode("utf-8-sig", "replace").strip().split(",")
    column = next((name for name in columns if name in head), None)
    if column is None:
        raise FactorError(f"{path.name}, line 1: expected time_utc and {' or '.join(columns)}")
    rows = []
    for line, row in _rows(raw, path.name, ("time_utc", column)):
        where = f"{path.name}, line {line}"
        try:
            rows.append((parse_time(row["time_utc"], where), to_whole(row[column].strip(), columns[column])))
        except (ArithmeticError, ValueError) as error:
            if isinstance(error, FactorError):
                raise
            raise FactorError(f"{where}: {row[column]!r} is not a number") from None
    gaps = sorted(b[0] - a[0] for a, b in pairwise(rows))
    length = gaps[len(gaps) // 2] if gaps else 3600
    steps = [Step(start, start + length, value) for start, value in rows]
    return Series(currency, "price", path.name, hashlib.sha256(raw).hexdigest(), steps=steps).finish()
