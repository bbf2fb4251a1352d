"""Hourly generation by fuel of the EIA, as it gives it itself: an answer of its API (v2) and the file of its monitor.

Both name an hour by its end, in UTC. A file of the monitor has all balancing authorities: one has to be cut out first,
since mixing two grids would give a factor that is nobody's.
"""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from tidegate.runtime.carbon.factors.series import YEAR_10000_S, FactorError, Series, Step, iso
from tidegate.runtime.carbon.factors.services import MIX_G_PER_KWH, SourceFactors, how_to_map, mixed
from tidegate.runtime.carbon.tables import fields_of, json_of, list_of, number_of, refusing, table_of

HOUR_S = 3600
GENERATION = "Net Generation (MW) from "
AUTHORITY, HOUR_END = "Balancing Authority", "UTC Time at End of Hour"
# What the columns of the monitor hold, as fuel codes of the API. Its hydro column has pumped storage in it.
FUELS = {
    "Coal": "COL", "Natural Gas": "NG", "Nuclear": "NUC", "All Petroleum Products": "OIL", "Solar": "SUN",
    "Hydropower and Pumped Storage": "WAT", "Hydropower Excluding Pumped Storage": "WAT", "Pumped Storage": "PS",
    "Wind": "WND", "Geothermal": "GEO", "Battery Storage": "BAT", "Other Fuel Sources": "OTH",
    "Unknown Fuel Sources": "UNK", "Solar with Integrated Battery Storage": "SNB",
    "Solar without Integrated Battery Storage": "SUN",
    "Wind with Integrated Battery Storage": "WNB", "Wind without Integrated Battery Storage": "WND",
    "Other Energy Storage": "OES", "Unknown Energy Storage": "UES",
}  # fmt: skip
Hours = dict[int, dict[str, Decimal]]  # start of an hour -> MW by fuel


def is_answer(document: object) -> bool:
    """Whether JSON is an answer of the API: {"response": {"data": [...]}}."""
    return isinstance(document, dict) and isinstance(document.get("response"), dict)


@refusing(FactorError)
def eia_api(
    raw: bytes, name: str, factors: SourceFactors = MIX_G_PER_KWH, not_generation: Sequence[str] = ()
) -> Series:
    """An answer of electricity/rto/fuel-type-data, hourly in UTC: period, respondent, fueltype, value."""
    document = fields_of(json_of(raw, name, FactorError), name, FactorError)
    response = fields_of(document.get("response"), f"{name}, response", FactorError)
    rows = list_of(response.get("data"), f"{name}, response, data", FactorError)
    hours: Hours = {}
    zones: set[str] = set()
    for number, row in enumerate(rows):
        where = f"{name}, row {number}"
        fields = fields_of(row, where, FactorError)
        for key in ("period", "respondent", "fueltype"):
            if not isinstance(fields.get(key), str):
                raise FactorError(f"{where}: {key} is missing; ask for electricity/rto/fuel-type-data")
        fuel, zone = str(fields["fueltype"]), str(fields["respondent"])
        zones.add(zone)
        if fuel in not_generation:
            continue
        start = _hour(str(fields["period"]), "%Y-%m-%dT%H", where)
        value = fields.get("value")
        if value is None:
            continue  # the hour is then without that fuel, and is held
        mw = number_of(str(value), where, FactorError)
        if hours.setdefault(start, {}).setdefault(fuel, mw) != mw:
            raise FactorError(f"{where}: {fuel} stands twice at {iso(start)} with two values")
    return _series(raw, name, _one(zones, name), hours, factors, _total(response, len(rows), name))


@refusing(FactorError)
def eia_monitor(
    raw: bytes, name: str, factors: SourceFactors = MIX_G_PER_KWH, not_generation: Sequence[str] = ()
) -> Series:
    """The file of the hourly grid monitor: one column a fuel, one row an hour and balancing authority."""
    columns, rows = table_of(raw, name, FactorError, columns=(AUTHORITY, HOUR_END))
    fuels: dict[str, str] = {}
    for column in columns:
        if not column.startswith(GENERATION) or column.endswith(("(Imputed)", "(Adjusted)")):
            continue
        fuel = FUELS.get(column.removeprefix(GENERATION))
        if fuel is None:
            raise FactorError(
                f"{name}, line 1: {column!r} is no fuel that is known; name it in [carbon] not_generation"
            )
        if fuel not in not_generation and column not in not_generation:
            fuels[column] = fuel
    if not fuels:
        raise FactorError(f"{name}, line 1: expected columns like {GENERATION}Coal")
    hours: Hours = {}
    zones: set[str] = set()
    for line, row in rows:
        where = f"{name}, line {line}"
        zones.add(row[AUTHORITY].strip())
        start = _hour(row[HOUR_END].strip(), "%m/%d/%Y %I:%M:%S %p", where)
        if start in hours:
            raise FactorError(f"{where}: the hour from {iso(start)} stands twice; cut one balancing authority out")
        own = hours[start] = {}
        for column, fuel in fuels.items():
            text = row[column].strip().replace(",", "")
            if text:
                own[fuel] = own.get(fuel, Decimal(0)) + number_of(text, f"{where}, {column}", FactorError)
    return _series(raw, name, _one(zones, name), hours, factors, [])


def _hour(text: str, form: str, where: str) -> int:
    """The start of the hour that ends at a time of UTC."""
    try:
        end = int(datetime.strptime(text, form).replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise FactorError(f"{where}: {text[:60]!r} is not an hour in UTC; ask with frequency=hourly") from None
    if not HOUR_S <= end < YEAR_10000_S or end % HOUR_S:
        raise FactorError(f"{where}: {text[:60]!r} is not the end of an hour since 1970")
    return end - HOUR_S


def _one(zones: set[str], name: str) -> str:
    if len(zones) > 1:
        shown = ", ".join(sorted(zones)[:4])
        raise FactorError(f"{name}: {len(zones)} balancing authorities ({shown}...); keep the rows of one")
    return next(iter(zones), "")


def _total(response: dict[str, object], rows: int, name: str) -> list[str]:
    """What an answer that was cut says: the API gives at most 5,000 rows at once."""
    try:
        total = int(str(response.get("total", rows)))
    except ValueError:
        return []
    return [f"{name}: {rows} of {total} rows; the rest was not asked for"] if total > rows else []


def _series(raw: bytes, name: str, zone: str, hours: Hours, factors: SourceFactors, notes: Iterable[str]) -> Series:
    digest = hashlib.sha256(raw).hexdigest()
    series = Series(zone, "average", f"EIA {zone}, own factors per source", digest, "direct", notes=list(notes))
    every = {fuel for own in hours.values() for fuel in own}
    for fuel in sorted(every):
        if fuel not in factors and fuel not in ("PS", "BAT", "OES", "UES"):
            raise FactorError(f"{name}: no factor for fuel {fuel}; {how_to_map(fuel)}")
    needed = {fuel for fuel in every if fuel in factors}
    for start in sorted(hours):
        missing = sorted(needed - set(hours[start]))
        if missing:
            series.notes.append(f"{iso(start)}: nothing of {', '.join(missing)}; held")
            continue
        value = mixed([(fuel, mw) for fuel, mw in hours[start].items() if fuel in factors], factors, name)
        if value is not None:
            series.steps.append(Step(start, start + HOUR_S, value))
    if not series.steps:
        raise FactorError(f"{name}: no hour with generation in it")
    return series.finish()
