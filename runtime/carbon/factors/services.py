"""Factors as public services give them: Electricity Maps, WattTime, the GB operator, ENTSO-E, and a generation mix.

Every reader takes bytes that are on the disk; nothing here needs a network. A later document for the same step is a
restatement: both versions stay, with the time each was known.
"""

import hashlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from xml.etree import ElementTree

from tidegate.runtime.carbon.factors.series import FactorError, Series, Step, iso, parse_factor, parse_time
from tidegate.runtime.carbon.integers import to_whole
from tidegate.runtime.carbon.tables import fields_of, json_of, list_of, number_of, refusing, table_of

SourceFactors = Mapping[str, int | Decimal]  # source of a mix -> g/kWh

# Direct g CO2 per kWh of generation by ENTSO-E's psrType. IPCC AR5 WG3 annex III medians for what burns (direct
# emissions of a typical plant); 0 for what burns nothing. A site may give its own.
ENTSOE_G_PER_KWH: SourceFactors = {
    "B01": 230,  # biomass, as booked by the IPCC for cofiring; contested, hence configurable
    "B02": 1000,  # lignite
    "B03": 490, "B04": 490,  # gas
    "B05": 820,  # hard coal
    "B06": 650,  # oil
    "B07": 1000, "B08": 1000,  # oil shale, peat
    "B09": 38,  # geothermal
    "B11": 0, "B12": 0, "B13": 0,  # hydro, marine
    "B14": 0,  # nuclear
    "B15": 0, "B16": 0, "B18": 0, "B19": 0,  # other renewable, solar, wind
    "B17": 500,  # waste
    "B20": 700,  # other
}  # fmt: skip
STORAGE = ("B10", "B25", "pumped_storage_mw", "pumped_hydro_mw", "storage_mw", "battery_mw", "PS", "BAT")

STEP_S_MAX = 86_400  # no service gives one value for longer
SPAN_S_MAX = 400 * 86_400  # of one answer: a year and some

# The columns of a mix file, by what they hold.
MIX_G_PER_KWH: SourceFactors = {
    "lignite_mw": 1000, "hard_coal_mw": 820, "gas_mw": 490, "other_conventional_mw": 700, "biomass_mw": 230,
    "hydro_mw": 0, "other_renewables_mw": 0, "wind_onshore_mw": 0, "wind_offshore_mw": 0, "solar_mw": 0,
    "nuclear_mw": 0,
    # Fuel codes of the EIA's hourly grid monitor.
    "COL": 820, "NG": 490, "OIL": 650, "OTH": 700, "NUC": 0, "WAT": 0, "SUN": 0, "WND": 0, "GEO": 38,
}  # fmt: skip
NOT_GENERATION = ("load_mw", "residual_load_mw", "avg_ci_g_per_kwh")


def _field(row: object, key: str, where: str) -> object:
    found = fields_of(row, where, FactorError).get(key)
    if found is None:
        raise FactorError(f"{where}: {key} is missing")
    return found


def _time(row: object, key: str, where: str) -> int:
    return parse_time(str(_field(row, key, where)), f"{where}, {key}")


@refusing(FactorError)
def electricity_maps(raw: bytes, name: str) -> Series:
    """History of Electricity Maps v3: zone, and rows of carbonIntensity, datetime, updatedAt, isEstimated, ..."""
    document = json_of(raw, name, FactorError)
    found = document.get("history") or document.get("data") if isinstance(document, dict) else document
    if not found:
        raise FactorError(f"{name}: no rows under history or data")
    listed = list_of(found, name, FactorError)
    rows = [fields_of(row, f"{name}, row {number}", FactorError) for number, row in enumerate(listed)]
    zone = str(rows[0].get("zone") or (document.get("zone") if isinstance(document, dict) else "") or "")
    kind = str(rows[0].get("emissionFactorType") or "lifecycle")
    series = Series(zone, "average", f"Electricity Maps v3 {zone}", hashlib.sha256(raw).hexdigest(), kind)
    minutes = {"hourly": 60, "15_minutes": 15, "5_minutes": 5, "daily": 1440}
    for number, row in enumerate(rows):
        where = f"{name}, row {number}"
        for key, of_first in (("zone", zone), ("emissionFactorType", kind)):
            if str(row.get(key) or of_first) != of_first:
                raise FactorError(f"{where}: {key} {row[key]!r:.60} beside {of_first!r}; one file holds one of them")
        if "carbonIntensity" not in row:
            raise FactorError(f"{where}: carbonIntensity is missing")
        if row["carbonIntensity"] is None:
            series.notes.append(f"{where}: no value; held")
            continue
        granularity = str(row.get("temporalGranularity") or "hourly")
        if granularity not in minutes:
            raise FactorError(f"{where}: temporalGranularity {granularity!r}, expected one of {', '.join(minutes)}")
        start = _time(row, "datetime", where)
        issued = _time(row, "updatedAt", where) if row.get("updatedAt") else 0
        series.steps.append(
            Step(
                start,
                start + minutes[granularity] * 60,
                parse_factor(str(row["carbonIntensity"]), "g/kWh", where),
                "estimated" if row.get("isEstimated") else "actual",
                issued,
                str(row.get("updatedAt") or ""),
                str(row.get("estimationMethod") or ""),
            )
        )
    return series.finish()


@refusing(FactorError)
def watttime(raw: bytes, name: str) -> Series:
    """WattTime v3: {"meta": {region, signal_type, units, data_point_period_seconds, generated_at}, "data": [...]}.

    co2_moer is marginal and belongs to the consequence ledger only; co2_aoer is average.
    """
    document = json_of(raw, name, FactorError)
    meta = fields_of(_field(document, "meta", name), f"{name}, meta", FactorError)
    signal, units = str(_field(meta, "signal_type", f"{name}, meta")), _field(meta, "units", f"{name}, meta")
    kinds = {"co2_moer": "marginal", "co2_aoer": "average"}
    if signal not in kinds:
        raise FactorError(f"{name}: signal_type {signal!r}, expected {' or '.join(kinds)}")
    if units != "lbs_co2_per_mwh":
        raise FactorError(f"{name}: units {units!r}, expected lbs_co2_per_mwh")
    region = str(meta.get("region", ""))
    given = meta.get("data_point_period_seconds") or 300
    seconds = to_whole(number_of(str(given), f"{name}, data_point_period_seconds", FactorError), 1)
    if not 0 < seconds <= STEP_S_MAX:
        raise FactorError(f"{name}: data_point_period_seconds {seconds}, expected up to {STEP_S_MAX}")
    issued = _time(meta, "generated_at", f"{name}, meta") if meta.get("generated_at") else 0
    forecast = bool(meta.get("generated_at_period_seconds")) or "forecast" in str(meta.get("type", ""))
    series = Series(region, kinds[signal], f"WattTime v3 {region} {signal}", hashlib.sha256(raw).hexdigest(), "direct")
    for number, row in enumerate(list_of(_field(document, "data", name), f"{name}, data", FactorError)):
        where = f"{name}, row {number}"
        start = _time(row, "point_time", where)
        value = parse_factor(str(_field(row, "value", where)), "lb/MWh", where)
        status = "forecast" if forecast or (issued and start > issued) else "actual"
        version = str(fields_of(row, where, FactorError).get("version") or "")
        series.steps.append(Step(start, start + seconds, value, status, issued, version))
    for warning in list_of(meta.get("warnings") or [], f"{name}, warnings", FactorError):
        series.notes.append(f"WattTime warns: {warning!s:.200}")
    return series.finish()


@refusing(FactorError)
def gb_api(raw: bytes, name: str) -> Series:
    """The GB operator's API: {"data": [{from, to, intensity: {forecast, actual}}]}. It may be HTTP 200 and empty."""
    document = json_of(raw, name, FactorError)
    rows = document.get("data") if isinstance(document, dict) else None
    if not rows:
        raise FactorError(f"{name}: the answer holds no data; the service gives that with HTTP 200, ask again later")
    series = Series("GB", "average", "GB Carbon Intensity API", hashlib.sha256(raw).hexdigest(), "direct")
    for number, row in enumerate(list_of(rows, f"{name}, data", FactorError)):
        where = f"{name}, row {number}"
        start, end = (_time(row, key, where) for key in ("from", "to"))
        if not 0 < end - start <= STEP_S_MAX:
            raise FactorError(f"{where}: a step from {iso(start)} to {iso(end)}, expected at most a day")
        intensity = fields_of(_field(row, "intensity", where), f"{where}, intensity", FactorError)
        value = intensity.get("actual")
        status = "actual" if value is not None else "forecast"
        if value is None:
            value = _field(intensity, "forecast", where)
        series.steps.append(Step(start, end, parse_factor(str(value), "g/kWh", where), status))
    return series.finish()


def mixed(parts: Sequence[tuple[str, Decimal]], factors: SourceFactors, where: str) -> int | None:
    """ug/kWh of generation (source, MW), weighted; None if nothing ran. Raises FactorError for an unknown source.

    What a store gives back (STORAGE) has no factor of its own unless the site gives one: it was generated at another
    time, and counts here as the mix of the others does.
    """
    weighted = whole = Decimal(0)
    for source, mw in parts:
        if source not in factors:
            if source in STORAGE:
                continue
            raise FactorError(f"{where}: no factor for source {source}; {how_to_map(source)}")
        if mw > 0:  # a pumped store that draws shows a negative generation
            weighted += mw * factors[source]
            whole += mw
    return None if whole == 0 else to_whole(weighted / whole, 1_000_000)


def how_to_map(source: str) -> str:
    """The remedy for a source without a factor."""
    return f"give {source} = G_PER_KWH under [carbon.source_g_per_kwh], or name it in [carbon] not_generation"


@refusing(FactorError)
def mix_csv(
    raw: bytes, name: str, factors: SourceFactors = MIX_G_PER_KWH, not_generation: Sequence[str] = ()
) -> Series:
    """A generation mix: time_utc and one column of MW a source. An hour with a blank is held and said so.

    not_generation : columns that are no source, besides those of NOT_GENERATION. A column that is neither is refused.
    """
    columns, rows = table_of(raw, name, FactorError, columns=("time_utc",))
    others = {"time_utc", *NOT_GENERATION, *not_generation}
    sources = [column for column in columns if column not in others]
    for column in sources:
        if column not in factors and column not in STORAGE:
            raise FactorError(f"{name}, line 1: no factor for column {column!r}; {how_to_map(column)}")
    if not sources:
        raise FactorError(f"{name}, line 1: expected time_utc and columns such as {', '.join(list(factors)[:3])}")
    digest = hashlib.sha256(raw).hexdigest()
    series = Series("", "average", f"{name}, own factors per source", digest, "direct")
    starts: list[int] = []
    for line, row in rows:
        where = f"{name}, line {line}"
        start = parse_time(row["time_utc"], where)
        if any(not row[source].strip() for source in sources):
            series.notes.append(f"{iso(start)}: a source is blank; held")
            continue
        value = mixed([(s, number_of(row[s], f"{where}, {s}", FactorError)) for s in sources], factors, where)
        if value is not None:
            series.steps.append(Step(start, start, value, "actual"))
            starts.append(start)
    gaps = sorted(b - a for a, b in pairwise(starts))
    length = gaps[len(gaps) // 2] if gaps else 3600
    if not 0 < length <= STEP_S_MAX:
        raise FactorError(f"{name}: its rows lie {length} s apart; expected rising times, at most a day apart")
    series.steps = [Step(s.start_utc_s, s.start_utc_s + length, s.ug_per_kwh, s.status) for s in series.steps]
    return series.finish()


@refusing(FactorError)
def entsoe(
    raw: bytes, name: str, factors: SourceFactors = ENTSOE_G_PER_KWH, not_generation: Sequence[str] = ()
) -> Series:
    """ENTSO-E A75 (actual generation per type), PT15M or PT60M; curve A03 repeats a point that is left out.

    not_generation : types that are left out of the mix.
    """
    if b"<!DOCTYPE" in raw[:4096] or b"<!ENTITY" in raw:
        raise FactorError(f"{name}: XML with a document type of its own; an answer has none, fetch it again")
    try:
        root = ElementTree.fromstring(raw)
    except (ElementTree.ParseError, LookupError) as error:
        raise FactorError(f"{name}: not XML ({error}); fetch it again") from None

    if root.tag.endswith("Acknowledgement_MarketDocument"):
        why = (root.findtext(".//{*}Reason/{*}text") or "no reason given").strip()
        raise FactorError(f"{name}: the service has no data: {why:.200}")

    def text(node: ElementTree.Element, path: str) -> str:
        found = node.find("/".join(f"{{*}}{part}" for part in path.split("/")))
        if found is None or found.text is None:
            raise FactorError(f"{name}: {path} is missing")
        return str(found.text).strip()

    def point(node: ElementTree.Element, source: str) -> tuple[int, Decimal]:
        position = text(node, "position")
        if not position.isdecimal() or len(position) > 6:
            raise FactorError(f"{name}: position {position[:60]!r} of {source} is no number of a point")
        return int(position), number_of(text(node, "quantity"), f"{name}: quantity of {source}", FactorError)

    blocks: list[tuple[str, int, dict[int, Decimal]]] = []  # source, length of its steps, MW by start
    for block in root.findall("{*}TimeSeries"):
        if block.find("{*}outBiddingZone_Domain.mRID") is not None:
            continue  # consumption of pumped storage
        source = text(block, "MktPSRType/psrType")
        if source in not_generation:
            continue
        curve = text(block, "curveType")
        for period in block.findall("{*}Period"):
            step = {"PT15M": 900, "PT30M": 1800, "PT60M": 3600}.get(text(period, "resolution"))
            if step is None:
                raise FactorError(f"{name}: resolution {text(period, 'resolution')}, expected PT15M, PT30M or PT60M")
            start = parse_time(text(period, "timeInterval/start"), name)
            end = parse_time(text(period, "timeInterval/end"), name)
            if not 0 <= end - start <= SPAN_S_MAX:
                raise FactorError(f"{name}: a period from {iso(start)} to {iso(end)} is no answer to what was asked")
            points = dict(point(node, source) for node in period.findall("{*}Point"))
            last: Decimal | None = None
            own: dict[int, Decimal] = {}
            for position in range(1, (end - start) // step + 1):
                if position in points:
                    last = points[position]
                elif curve != "A03":
                    continue
                if last is not None:
                    own[start + (position - 1) * step] = last
            blocks.append((source, step, own))
    zone = (root.findtext(".//{*}inBiddingZone_Domain.mRID") or "").strip()
    series = Series(
        zone, "average", f"ENTSO-E A75 {zone}, own factors per source", hashlib.sha256(raw).hexdigest(), "direct"
    )
    length = min((step for _, step, _ in blocks), default=3600)
    generation: dict[int, dict[str, Decimal]] = {}
    for source, step, own in blocks:
        for start, mw in own.items():
            for at in range(start, start + step, length):  # a source in whole hours beside others in quarters
                if generation.setdefault(at, {}).setdefault(source, mw) != mw:
                    raise FactorError(f"{name}: {source} stands twice at {iso(at)}; ask for one zone and one document")
    every = {source for source, _, _ in blocks if source in factors or source not in STORAGE}
    for start, parts in generation.items():
        missing = sorted(every - set(parts))
        if missing:
            series.notes.append(f"{iso(start)}: nothing of {', '.join(missing)}; held")
            continue
        value = mixed(list(parts.items()), factors, f"{name}, {iso(start)}")
        if value is not None:
            series.steps.append(Step(start, start + length, value, "actual"))
    if not series.steps:
        raise FactorError(f"{name}: no generation in it")
    return series.finish()


# ---- any document, and a folder of them ----
