"""Contractual instruments of Scope 2: energy in intervals of at most an hour, with a factor of its own."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.runtime.carbon.factors.series import FactorError, iso, parse_factor, parse_time
from tidegate.runtime.carbon.integers import carbon_ug, fixed, to_whole
from tidegate.runtime.carbon.tables import bytes_of, number_of, refusing, table_of

COLUMNS = ("start_utc", "end_utc", "wh", "g_per_kwh", "source")
KINDS = ("goo", "ppa", "other")
HOUR_S = 3600
MILLIWH_MAX = 10**15


@dataclass(frozen=True, slots=True)
class Instrument:
    """Energy in an interval with its own factor. cancelled : reference of the cancellation, empty = not cancelled."""

    start_utc_s: int
    end_utc_s: int
    energy_milliwh: int
    ug_per_kwh: int
    source: str
    kind: str = "other"
    renewable: bool = False
    cancelled: str = ""

    def row(self) -> list[Any]:
        return [
            self.start_utc_s,
            self.end_utc_s,
            self.energy_milliwh,
            self.ug_per_kwh,
            self.source,
            self.kind,
            self.renewable,
            self.cancelled,
        ]


@refusing(FactorError)
def read_instruments(path: Path) -> list[Instrument]:
    """CSV of start_utc, end_utc, wh, g_per_kwh, source and, where they are known, kind, renewable, cancelled.

    kind : goo, ppa or other. renewable : yes or no. cancelled : the reference of the cancellation.
    Raises FactorError by line; an interval is at most one hour, and one certificate counts once.
    """
    found: list[Instrument] = []
    seen: dict[tuple[int, int, str, str], int] = {}
    for line, row in table_of(bytes_of(path, FactorError), path.name, FactorError, columns=COLUMNS)[1]:
        where = f"{path.name}, line {line}"
        start, end = parse_time(row["start_utc"], where), parse_time(row["end_utc"], where)
        if not 0 < end - start <= HOUR_S:
            raise FactorError(f"{where}: an interval of {end - start} s; expected more than 0 and at most one hour")
        milliwh = to_whole(number_of(row["wh"], f"{where}, wh", FactorError), 1000)
        if milliwh < 0:
            raise FactorError(f"{where}: {row['wh'][:40]} Wh is negative")
        if milliwh > MILLIWH_MAX:
            raise FactorError(f"{where}: {row['wh'][:40]} Wh in an hour cannot be")
        kind = (row.get("kind") or "other").strip()
        if kind not in KINDS:
            raise FactorError(f"{where}: kind {kind!r}, expected one of {', '.join(KINDS)}")
        renewable = (row.get("renewable") or "no").strip()
        if renewable not in ("yes", "no"):
            raise FactorError(f"{where}: renewable {renewable!r}, expected yes or no")
        source, cancelled = row["source"].strip(), (row.get("cancelled") or "").strip()
        before = seen.setdefault((start, end, source, cancelled), line)
        if before != line:
            raise FactorError(
                f"{where}: {source or 'the source'} from {row['start_utc']} stands in line {before} too; a certificate "
                "counts once, give two that are different their own references under cancelled"
            )
        factor = parse_factor(row["g_per_kwh"], "g/kWh", f"{where}, g_per_kwh")
        found.append(Instrument(start, end, milliwh, factor, source, kind, renewable == "yes", cancelled))
    return sorted(found, key=lambda one: (one.start_utc_s, one.source))


def market_based(
    imports: Sequence[tuple[int, int, int]], instruments: Sequence[Instrument], residual_ug_per_kwh: int | None,
    residuals: Mapping[int, int] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Scope 2 market-based, matched period by period, beside the same over the whole span.

    imports : (start, length, mWh) of every period, in the order of time, as the instruments are. residuals : the
    residual mix that a period was booked with, by its start; residual_ug_per_kwh for the others.
    Raises ValueError for a period of which no residual mix is known.
    """
    matched = ug = load = first = 0
    known = residuals or {}
    weighted = 0
    left = [one.energy_milliwh for one in instruments]
    for start, length, wanted in imports:
        end = start + length
        load += wanted
        residual = known.get(start, residual_ug_per_kwh)
        if residual is None:
            raise ValueError(
                f"no residual mix is known for {iso(start)}; give --residual-g, or factors of kind residual"
            )
        weighted += wanted * residual
        while first < len(instruments) and instruments[first].start_utc_s <= start - HOUR_S:
            first += 1  # no interval is longer than an hour, so this one is over
        for at in range(first, len(instruments)):
            one = instruments[at]
            if not wanted or one.start_utc_s >= end:
                break
            if one.end_utc_s > start:
                used = min(wanted, left[at])
                left[at] -= used
                wanted -= used
                matched += used
                ug += carbon_ug(used, one.ug_per_kwh)
        ug += carbon_ug(wanted, residual)
    held = sum(one.energy_milliwh for one in instruments)
    covered = min(load, held)
    mean = sum(carbon_ug(one.energy_milliwh, one.ug_per_kwh) for one in instruments)
    netted = (mean * covered // held if held else 0) + carbon_ug(load - covered, weighted // load if load else 0)
    return {
        "load_milliwh": load,
        "matched_milliwh": matched,
        "instruments_milliwh": held,
        "hourly_ug": ug,
        "netted_ug": netted,
        "hourly_matched_share": fixed(matched / load if load else None, 6),
        "netted_share": fixed(covered / load if load else None, 6),
    }


def carbon_free_by_hour(instruments: Iterable[Instrument]) -> dict[int, int]:
    """mWh of instruments with a factor of 0 by UTC hour; one that straddles two hours by its time, rounded down."""
    found: dict[int, int] = {}
    for one in instruments:
        if one.ug_per_kwh:
            continue
        length = one.end_utc_s - one.start_utc_s
        hour = one.start_utc_s // HOUR_S * HOUR_S
        while hour < one.end_utc_s:
            part = min(one.end_utc_s, hour + HOUR_S) - max(one.start_utc_s, hour)
            found[hour] = found.get(hour, 0) + one.energy_milliwh * part // length
            hour += HOUR_S
    return found


def cancelled_renewable_milliwh(instruments: Iterable[Instrument], kind: str, start_utc_s: int, end_utc_s: int) -> int:
    """mWh of renewable, cancelled instruments of a kind that begin in [start, end)."""
    return sum(
        one.energy_milliwh
        for one in instruments
        if one.kind == kind and one.renewable and one.cancelled and start_utc_s <= one.start_utc_s < end_utc_s
    )
