"""Factor and price files: which kind of document one is, what it says, and the factors of a site from all of them."""

import csv
import hashlib
import io
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

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
from tidegate.runtime.carbon.factors.services import electricity_maps, entsoe, gb_api, mix_csv, parse_json, watttime
from tidegate.runtime.carbon.integers import to_whole

FILE_VERSION = 1
FILE_HEAD = f"# tidegate factors {FILE_VERSION}\n"
COLUMNS = ("start_utc", "end_utc", "zone", "value", "unit", "kind", "lifecycle", "status", "source", "version")
NO_FACTOR_UG_PER_KWH = 1_000_000_000  # 1 kg/kWh: no grid's average is above it for long
BELIEVABLE_S = 1_704_067_200  # 2024-01-01: a clock before it is not set


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
    columns = {
        f"price_{currency.lower()}_per_{unit}": scale for unit, scale in (("energy_milliwh", 1000), ("kwh", 1_000_000))
    }
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


def read_document(path: Path) -> list[Series]:
    """Every series in a document of any kind that is known. Raises FactorError naming what it is not."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FactorError(f"{path}: {error.strerror}") from None
    name = path.name
    head = raw[:4096].lstrip()
    if head.startswith(b"<"):
        return [entsoe(raw, name)]
    if head[:1] in (b"{", b"["):
        document = parse_json(raw, name)
        if isinstance(document, dict) and "meta" in document:
            return [watttime(raw, name)]
        rows = document.get("data") if isinstance(document, dict) else None
        if rows and isinstance(rows[0], dict) and "intensity" in rows[0]:
            return [gb_api(raw, name)]
        if isinstance(document, dict) and "data" in document and not rows:
            return [gb_api(raw, name)]
        return [electricity_maps(raw, name)]
    check_version(raw, name)
    first = head.split(b"\n", 2)[1 if head.startswith(b"#") else 0] if b"\n" in head else head
    if b"forecast_g_per_kwh" in first:
        return [read_gb_half_hours(path)]
    if b"start_utc" in first:
        return read_csv(path)
    if b"_mw" in first:
        return [mix_csv(raw, name)]
    raise FactorError(f"{name}: neither a factor file nor an answer of a service that is known")


_memory: dict[str, tuple[tuple[int, int], list[Series]]] = {}  # a folder that grows is read again and again


def _remembered(path: Path) -> list[Series]:
    """The series of a document, from memory where the file has not changed; the caller may change what it gets."""
    stat = path.stat()
    stamp = (stat.st_size, stat.st_mtime_ns)
    known = _memory.get(str(path))
    if known is None or known[0] != stamp:
        known = _memory[str(path)] = (stamp, read_document(path))
    return [replace(one, steps=list(one.steps), notes=list(one.notes)) for one in known[1]]


def read_folder(folder: Path) -> list[Series]:
    """All documents of a cache folder, merged by zone and kind; a later document restates, an equal one is dropped."""
    found: dict[tuple[str, str], Series] = {}
    have: dict[tuple[str, str], dict[tuple[int, int], Step]] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith("."):
            continue
        for series in _remembered(path):
            key = (series.zone, series.kind)
            merged = found.get(key)
            if merged is None:
                found[key] = series
                have[key] = {(step.start_utc_s, step.issued_utc_s): step for step in series.steps}
                continue
            for step in series.steps:
                twin = have[key].get((step.start_utc_s, step.issued_utc_s))
                if twin is None:
                    merged.steps.append(step)
                    have[key][step.start_utc_s, step.issued_utc_s] = step
                elif twin.ug_per_kwh != step.ug_per_kwh:
                    raise FactorError(
                        f"{path.name}: {iso(step.start_utc_s)} differs from an earlier document of the same issue "
                        "time; one of them was changed by hand, remove it"
                    )
            merged.notes += series.notes
            merged.sha256 = hashlib.sha256((merged.sha256 + series.sha256).encode()).hexdigest()
    return [series.finish() for series in found.values()]
