"""Factor and price files: which kind of document one is, what it says, and the factors of a site from all of them."""

import hashlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

from tidegate.runtime.carbon.factors.eia import HOUR_END, eia_api, eia_monitor, is_answer
from tidegate.runtime.carbon.factors.series import (
    ALWAYS,
    KINDS,
    STATUSES,
    FactorError,
    Factors,
    Series,
    Step,
    iso,
    parse_factor,
    parse_time,
)
from tidegate.runtime.carbon.factors.services import (
    ENTSOE_G_PER_KWH,
    MIX_G_PER_KWH,
    STEP_S_MAX,
    SourceFactors,
    electricity_maps,
    entsoe,
    gb_api,
    mix_csv,
    watttime,
)
from tidegate.runtime.carbon.integers import to_whole
from tidegate.runtime.carbon.tables import bytes_of, json_of, number_of, refusing, table_of, text_of

FILE_VERSION = 1
FILE_HEAD = f"# tidegate factors {FILE_VERSION}\n"
COLUMNS = ("start_utc", "end_utc", "zone", "value", "unit", "kind", "lifecycle", "status", "source", "version")
NO_FACTOR_UG_PER_KWH = 1_000_000_000  # 1 kg/kWh: no grid's average is above it for long
PRICE_MAX = 1_000_000  # of the currency for a kWh or MWh
BELIEVABLE_S = 1_704_067_200  # 2024-01-01: a clock before it is not set


@dataclass(frozen=True, slots=True)
class Rules:
    """What a site file says of how its factor files are read.

    g_per_kwh : of sources of a generation mix, beside or in place of the built-in ones. not_generation : columns and
    types of a mix that are no source. scope : direct or lifecycle, where a document has both; "" = it must have one.
    """

    g_per_kwh: tuple[tuple[str, float], ...] = ()
    not_generation: tuple[str, ...] = ()
    scope: str = ""

    def factors(self, built_in: SourceFactors) -> SourceFactors:
        """g/kWh of every source that is known."""
        return {**built_in, **{name: Decimal(str(g)) for name, g in self.g_per_kwh}}


NO_RULES = Rules()


def rules_of(settings: Mapping[str, Any]) -> Rules:
    """The rules of a site file's [carbon]."""
    return Rules(
        tuple(sorted((settings.get("source_g_per_kwh") or {}).items())),
        tuple(settings.get("not_generation") or ()),
        str(settings.get("factor_scope") or ""),
    )


@refusing(FactorError)
def read_gb_half_hours(path: Path) -> Series:
    """Half-hourly file of the GB system operator: time_utc, forecast_g_per_kwh, actual_g_per_kwh.

    A slot without an actual takes its forecast and is marked; a slot that is missing is held from the one before.
    """
    raw = bytes_of(path, FactorError)
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


@refusing(FactorError)
def read_csv(path: Path) -> list[Series]:
    """The product's own factor file, one series for each zone and kind.

    Columns: start_utc, end_utc, zone, value, unit, kind, lifecycle, status, source, version; issued_at may follow. A
    first line `# tidegate factors 1` may say which version of this format it is; a later one is refused.
    """
    raw = bytes_of(path, FactorError)
    check_version(raw, path.name)
    found: dict[tuple[str, str, str], Series] = {}
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
        key = (row["zone"].strip(), kind, row["lifecycle"].strip())
        series = found.get(key)
        if series is None:
            series = found[key] = Series(
                key[0],
                kind,
                row["source"].strip() or path.name,
                hashlib.sha256(raw).hexdigest(),
                key[2],
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
    ppm = to_whole(number_of(text, where, FactorError), scales[unit])
    if not 0 <= ppm <= 1_000_000:
        raise FactorError(f"{where}: a carbon-free share of {text} {unit} is outside 0 to 100 %")
    return ppm


def _rows(raw: bytes, name: str, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    above = 1 if text_of(raw, name, FactorError).startswith("#") else 0
    return table_of(raw, name, FactorError, above=above, columns=columns)[1]


def read_all(path: Path, rules: Rules = NO_RULES, refused: list[str] | None = None) -> list[Series]:
    """Every series of a factor file of any kind that is known, or of a folder of them.

    refused : takes what a file of a folder cannot be used for, and the others are read; None raises it.
    Raises FactorError naming the file and what was expected.
    """
    return read_folder(path, rules, refused) if path.is_dir() else read_document(path, rules)


def read(path: Path, rules: Rules = NO_RULES) -> Series:
    """The average series of a factor file or folder. Raises FactorError if there is none, or more than one zone."""
    return average_of(read_all(path, rules), path.name, rules)


def _average(found: Iterable[Series]) -> list[Series]:
    return [one for one in found if one.kind == "average"]


def _empty(path: Path) -> bool:
    return not path.exists() or (path.is_dir() and not any(p.is_file() and p.name[0] != "." for p in path.iterdir()))


def average_of(found: Iterable[Series], name: str, rules: Rules = NO_RULES) -> Series:
    """The one average series. Raises FactorError as `read`."""
    series = one_of(found, "average", name, rules)
    if series is None:
        raise FactorError(f"{name}: no factors of kind average")
    return series


def one_of(found: Iterable[Series], kind: str, name: str, rules: Rules = NO_RULES) -> Series | None:
    """The one series of a kind, None if there is none. Raises FactorError where several could be meant.

    Two zones are never mixed, nor direct emissions with those of the whole life cycle: `rules.scope` chooses.
    """
    series = [one for one in found if one.kind == kind]
    if len({one.zone for one in series}) > 1:
        zones = ", ".join(sorted({one.zone or "(none)" for one in series}))
        raise FactorError(f"{name}: {kind} factors of several zones ({zones}); keep one zone in a file of a site")
    if len(series) > 1 and rules.scope:
        series = [one for one in series if one.lifecycle == rules.scope]
    if len(series) > 1:
        scopes = ", ".join(sorted(one.lifecycle or "not stated" for one in series))
        raise FactorError(
            f'{name}: {kind} factors counted in several ways ({scopes}); choose: factor_scope = "direct" in [carbon]'
        )
    return series[0] if series else None


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


def _one_zone(found: Sequence[Series], path: str, zone: str, refused: list[str]) -> list[Series]:
    """Without the averages of other zones than that in force, refused by name; all of them where it is not there."""
    others = sorted({one.zone for one in found if one.kind == "average" and one.zone != zone})
    if not others or not any(one.zone == zone and one.kind == "average" for one in found):
        return list(found)
    refused.append(
        f"{path}: factors of several zones; {zone or '(none)'} is in force, {', '.join(o or '(none)' for o in others)} "
        "is not used; keep one zone in the folder of a site"
    )
    return [one for one in found if one.kind != "average" or one.zone == zone]


def factors_of(
    settings: Mapping[str, Any], folder: Path, refused: list[str] | None = None, zone: str | None = None
) -> Factors:
    """The factors that a site file's [carbon] names; paths are relative to `folder`.

    zone : of the averages in force; those of another zone are refused beside them.

    Where factors are fetched the folder may be empty still. refused : takes what single files of a folder cannot be
    used for. Raises FactorError for what cannot be used at all.
    """
    path = settings.get("factors")
    rules = rules_of(settings)
    found: list[Series] = []
    if path and not (settings.get("fetch") and _empty(folder / path)):
        found = read_all(folder / path, rules, refused)
        if not found and refused:
            raise FactorError(f"{path}: none of its files can be used")
        refuse_future(found, time.time())
        if refused is not None and zone is not None:
            found = _one_zone(found, str(path), zone, refused)
    known = without_factors(settings)
    # Factors that are fetched may all be marginal until the average ones come.
    if found and not (settings.get("fetch") and not _average(found)):
        known.grid = average_of(found, str(path), rules)
    known.marginal = one_of(found, "marginal", str(path), rules)
    known.cfe = one_of(found, "cfe", str(path), rules)
    known.residual = one_of(found, "residual", str(path), rules)
    try:
        known.prices = prices_of(settings, folder)
    except (FactorError, OSError) as error:
        if refused is None:
            raise
        refused.append(str(error))
    return known


def without_factors(settings: Mapping[str, Any]) -> Factors:
    """What a site file's [carbon] says without any file: constants and the fallback."""
    constant = settings.get("grid_factor_g_per_kwh")
    fallback = NO_FACTOR_UG_PER_KWH if constant is None else to_whole(str(constant), 1_000_000)
    why = "no factor is known: upper bound of grid averages" if constant is None else "constant of the site file"
    only = constant is not None and not settings.get("factors")
    constants = {}
    for role in ("pv", "generator"):
        value = to_whole(str(settings.get(f"{role}_factor_g_per_kwh") or 0), 1_000_000)
        if value:
            constants[role] = (value, "constant of the site file")
    held = settings.get("implausible_factors") == "hold"
    return Factors(None, fallback, why, "constant" if only else "fallback", constants, hold_odd=held)


def prices_of(settings: Mapping[str, Any], folder: Path) -> Series | None:
    """The prices that a site file's [carbon] names: a table, or one number. Raises FactorError by line."""
    currency = str(settings.get("currency") or "EUR")
    if settings.get("prices"):
        return read_prices(folder / str(settings["prices"]), currency)
    constant = settings.get("price_per_kwh")
    if constant is None:
        return None
    step = Step(0, ALWAYS, to_whole(str(constant), 1_000_000), "constant")
    return Series(currency, "price", "constant of the site file", steps=[step]).finish()


@refusing(FactorError)
def read_prices(path: Path, currency: str) -> Series:
    """Prices by time: time_utc (start of a step that lasts until the next) and price_<currency>_per_mwh or _per_kwh."""
    raw = bytes_of(path, FactorError)
    columns = {f"price_{currency.lower()}_per_{unit}": scale for unit, scale in (("mwh", 1000), ("kwh", 1_000_000))}
    names, found = table_of(raw, path.name, FactorError)
    column = next((name for name in columns if name in names), None)
    if column is None or "time_utc" not in names:
        raise FactorError(f"{path.name}, line 1: expected time_utc and {' or '.join(columns)}")
    rows = []
    for line, row in found:
        where = f"{path.name}, line {line}"
        value = number_of(row[column], f"{where}, {column}", FactorError)
        if abs(value) > PRICE_MAX:
            raise FactorError(f"{where}: a price of {row[column]}; is the unit of {column} right?")
        rows.append((parse_time(row["time_utc"], where), to_whole(value, columns[column])))
    rows.sort()
    gaps = sorted(b[0] - a[0] for a, b in pairwise(rows))
    length = gaps[len(gaps) // 2] if gaps else 3600
    if not 0 < length <= STEP_S_MAX:
        raise FactorError(f"{path.name}: its rows lie {length} s apart; expected rising times, at most a day apart")
    steps = [Step(start, start + length, value) for start, value in rows]
    return Series(currency, "price", path.name, hashlib.sha256(raw).hexdigest(), steps=steps).finish()


@refusing(FactorError)
def read_document(path: Path, rules: Rules = NO_RULES) -> list[Series]:
    """Every series in a document of any kind that is known. Raises FactorError naming what it is not."""
    found = _read(path, rules)
    if not found:
        raise FactorError(f"{path.name}: no rows below the head; fill it, or remove it")
    return found


def _read(path: Path, rules: Rules) -> list[Series]:
    raw = bytes_of(path, FactorError)
    name = path.name
    head = raw[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"<"):
        return [entsoe(raw.lstrip(b"\xef\xbb\xbf \t\r\n"), name, rules.factors(ENTSOE_G_PER_KWH), rules.not_generation)]
    if head[:1] in (b"{", b"["):
        document = json_of(raw, name, FactorError)
        if isinstance(document, dict) and "meta" in document:
            return [watttime(raw, name)]
        if is_answer(document):
            return [eia_api(raw, name, rules.factors(MIX_G_PER_KWH), rules.not_generation)]
        rows = document.get("data") if isinstance(document, dict) else None
        if isinstance(rows, list) and rows and isinstance(rows[0], dict) and "intensity" in rows[0]:
            return [gb_api(raw, name)]
        if isinstance(document, dict) and "data" in document and not rows:
            return [gb_api(raw, name)]
        return [electricity_maps(raw, name)]
    check_version(raw, name)
    lines = text_of(raw, name, FactorError).lstrip().split("\n", 2)
    first = lines[1 if lines[0].startswith("#") and len(lines) > 1 else 0]
    if "forecast_g_per_kwh" in first:
        return [read_gb_half_hours(path)]
    if "start_utc" in first:
        return read_csv(path)
    if "Carbon intensity g" in first:
        return portal_csv(raw, name)
    if HOUR_END in first:
        return [eia_monitor(raw, name, rules.factors(MIX_G_PER_KWH), rules.not_generation)]
    if "time_utc" in first and ("_mw" in first or "NG" in first):
        return [mix_csv(raw, name, rules.factors(MIX_G_PER_KWH), rules.not_generation)]
    raise FactorError(f"{name}: neither a factor file nor an answer of a service that is known")


PORTAL = re.compile(r"Carbon intensity gCO(?:2|₂)eq/kWh \((direct|Life ?cycle)\)", re.IGNORECASE)


def portal_csv(raw: bytes, name: str) -> list[Series]:
    """The CSV that Electricity Maps' portal exports: one series of direct factors, one of the whole life cycle."""
    names, rows = table_of(raw, name, FactorError, columns=("Datetime (UTC)",))
    columns = {column: match[1].lower().replace(" ", "") for column in names if (match := PORTAL.fullmatch(column))}
    if not columns:
        raise FactorError(f"{name}, line 1: expected a column Carbon intensity gCO2eq/kWh (direct) or (Life cycle)")
    zone_column = next((column for column in ("Zone id", "Zone Id") if column in names), None)
    digest = hashlib.sha256(raw).hexdigest()
    found: dict[tuple[str, str], Series] = {}
    starts: list[int] = []
    for line, row in rows:
        where = f"{name}, line {line}"
        written = row["Datetime (UTC)"].strip()
        start = parse_time(written if "Z" in written or "+" in written else f"{written}Z", where)
        zone = row[zone_column].strip() if zone_column else ""
        starts.append(start)
        for column, scope in columns.items():
            series = found.setdefault((zone, scope), Series(zone, "average", f"{name}, {scope}", digest, scope))
            if not row[column].strip():
                series.notes.append(f"{iso(start)}: no value; held")
                continue
            status = "estimated" if row.get("Data estimated", "").strip().lower() == "true" else "actual"
            series.steps.append(Step(start, start, parse_factor(row[column], "g/kWh", f"{where}, {column}"), status))
    gaps = sorted(b - a for a, b in pairwise(sorted(set(starts))))
    length = gaps[len(gaps) // 2] if gaps else 3600
    if length > 31 * 86_400:
        raise FactorError(f"{name}: rows {length // 86_400} days apart; export by hour, day or month")
    for series in found.values():
        series.steps = [replace(step, end_utc_s=step.start_utc_s + length) for step in series.steps]
        series.finish()
    return list(found.values())


_memory: dict[tuple[str, Rules], tuple[tuple[int, int], list[Series]]] = {}  # a folder is read again and again


def _remembered(path: Path, rules: Rules) -> list[Series]:
    """The series of a document, from memory where the file has not changed; the caller may change what it gets."""
    stat = path.stat()
    stamp = (stat.st_size, stat.st_mtime_ns)
    known = _memory.get((str(path), rules))
    if known is None or known[0] != stamp:
        known = _memory[str(path), rules] = (stamp, read_document(path, rules))
    return [_copy(one) for one in known[1]]


def _copy(series: Series) -> Series:
    return replace(series, steps=list(series.steps), notes=list(series.notes))


def _in_force(path: Path, rules: Rules) -> list[Series]:
    """What a file said when it could be used last, while this process ran."""
    known = _memory.get((str(path), rules))
    return [] if known is None else [_copy(one) for one in known[1]]


Merged = dict[tuple[str, str, str], Series]


def read_folder(folder: Path, rules: Rules = NO_RULES, refused: list[str] | None = None) -> list[Series]:
    """All documents of a cache folder, merged by zone, kind and scope; a later one restates, an equal one is dropped.

    refused : takes the reason why a file cannot be used. What that file said before stays, what the others say counts.
    None raises the first reason, a FactorError.
    """
    found: Merged = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        try:
            found = _merged(found, _remembered(path, rules), path.name)
        except (FactorError, OSError) as error:
            if refused is None:
                raise
            refused.append(str(error))
            try:
                found = _merged(found, _in_force(path, rules), path.name)
            except FactorError:
                continue  # named already: what it said before does not fit to the others any more
    return list(found.values())


def _merged(before: Merged, more: Sequence[Series], name: str) -> Merged:
    """The series of before with those of one more document. Raises FactorError; `before` stays as it is then."""
    found = dict(before)
    for series in more:
        key = (series.zone, series.kind, series.lifecycle)
        merged = _copy(found[key]) if key in found else None
        if merged is None:
            found[key] = series
            continue
        have = {(step.start_utc_s, step.issued_utc_s): step for step in merged.steps}
        for step in series.steps:
            twin = have.get((step.start_utc_s, step.issued_utc_s))
            if twin is None:
                merged.steps.append(step)
            elif twin.ug_per_kwh != step.ug_per_kwh:
                raise FactorError(
                    f"{name}: {iso(step.start_utc_s)} differs from an earlier document of the same issue "
                    "time; one of them was changed by hand, remove it"
                )
        merged.notes += series.notes
        merged.sha256 = hashlib.sha256((merged.sha256 + series.sha256).encode()).hexdigest()
        try:
            found[key] = merged.finish()
        except FactorError as error:
            raise FactorError(f"{name}: does not fit to the files before it: {error}") from None
    return found
