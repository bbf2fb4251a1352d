"""Indicators of a span and the reporting fields of (EU) 2024/1364, each with its definition beside it.

What nobody measured is None and named with the reason, never 0. A ratio is a ratio of sums over the same time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tidegate.runtime.carbon.engine.attribution import THROUGH_STORAGE
from tidegate.runtime.carbon.factors.instruments import (
    HOUR_S,
    Instrument,
    cancelled_renewable_milliwh,
    carbon_free_by_hour,
)
from tidegate.runtime.carbon.integers import PPM, decimal, fixed
from tidegate.runtime.carbon.ledger.bodies import PeriodBody
from tidegate.runtime.carbon.readings.file_registers import Amount, Registers
from tidegate.runtime.carbon.report.language import N_
from tidegate.runtime.carbon.report.totals import Indicators, Sums, renewable_nodes

YEAR_S = 365 * 86_400

DEFINITIONS = {
    "pue": "E_DC / E_IT (ISO/IEC 30134-2); interim unless the span is a whole year",
    "cue_kg_per_kwh": "carbon of the site, storage losses included, what was exported not, over E_IT (ISO/IEC 30134-8)",
    "ref": N_("renewable energy over E_DC, at most 1 (ISO/IEC 30134-3): own generation used here, and certificates "
              "that were cancelled"),
    "erf": N_("reused heat at the hand-over point over E_DC (ISO/IEC 30134-6)"),
    "wue_l_per_kwh": N_("water drawn in over E_IT (ISO/IEC 30134-9)"),
    "renewable_share_direct": "share of the loads' energy from own renewable generation in the same period",
    "renewable_share_through_storage": "the same, by way of the battery, as the attribution policy traces it",
    "hourly_matched_share": N_("sum over UTC hours of min(L, own + contracted) / sum of L; L = import + own generation "
                               "used here, contracted = instruments with a factor of 0; what was left of an hour is "
                               "not carried to another"),
    "cfe_score": N_("sum over UTC hours of [c + (L - c) g] / sum of L; c = min(L, own + contracted), g = carbon-free "
                    "share of the grid in that hour, 0 where it is not known"),
}  # fmt: skip


@dataclass(slots=True)
class Hours:
    """Energy by UTC hour: what came from the grid, how clean it was, what own sources generated, what was exported."""

    rows: dict[int, list[int]] = field(default_factory=dict)  # import, exported, import x cfe_ppm, import with a share
    generated: dict[int, dict[str, int]] = field(default_factory=dict)  # by source

    def add(self, body: PeriodBody) -> None:
        hour = body["start_utc_s"] // HOUR_S * HOUR_S
        row = self.rows.setdefault(hour, [0, 0, 0, 0])
        cfe_ppm = body.get("cfe_ppm")
        for name, flow in body["flows"].items():
            node, _, kind = name.rpartition(".")
            milliwh = flow["energy_milliwh"]
            if kind == "import":
                row[0] += milliwh
                if cfe_ppm is not None:
                    row[2] += milliwh * cfe_ppm
                    row[3] += milliwh
            elif kind == "generation":
                own = self.generated.setdefault(hour, {})
                own[node] = own.get(node, 0) + milliwh
            elif kind == "export":
                row[1] += milliwh

    def matched(self, contracted: Mapping[int, int], renewable: frozenset[str]) -> dict[str, Any]:
        """The 24/7 figures. contracted : mWh of carbon-free instruments by hour; renewable : own clean sources."""
        load = matched = clean = known = bought = 0
        for hour, (imported, exported, weighted, with_share) in self.rows.items():
            generated = sum(milliwh for node, milliwh in self.generated.get(hour, {}).items() if node in renewable)
            own = max(0, generated - exported)
            c = own + min(imported, contracted.get(hour, 0))
            load += imported + own
            matched += c
            clean += c
            bought += imported
            known += with_share
            if imported:
                clean += (imported + own - c) * weighted // (imported * PPM)
        return {
            "hourly_load_milliwh": load,
            "hourly_matched_milliwh": matched,
            "hourly_matched_share": fixed(matched / load if load else None, 6),
            "cfe_score": fixed(clean / load if load else None, 6) if known else None,
            "cfe_grid_known_share": fixed(known / bought if bought else None, 6),
        }


def indicators_record(
    ratios: Indicators, sums: Sums, kinds: Mapping[str, str], span_s: int, hours: Hours,
    registers: Registers, instruments: Sequence[Instrument] | None,
) -> dict[str, Any]:  # fmt: skip
    """The report's indicators, as text with fixed decimals; None where something was not measured, and then named."""
    whole_year = span_s >= YEAR_S and sums.covered_s >= YEAR_S
    site, it = sums.site_milliwh, sums.role_milliwh(kinds, "it")
    water = registers.amount("water", sums.start_utc_s, sums.end_utc_s)
    heat = registers.amount("heat-reused", sums.start_utc_s, sums.end_utc_s)
    renewable = renewable_energy(sums, kinds, instruments)
    not_measured = [N_("ITEEsv, ITEUsv: no benchmark data")]
    warnings = []
    # mL over mWh is 1000 L/kWh: 1 mL = 10^-3 L, 1 mWh = 10^-6 kWh.
    wue = None if water.total is None or not it else water.total * 1000 / it
    erf = None if heat.total is None or site <= 0 else heat.total / site
    ref = None if renewable.known_milliwh is None or site <= 0 else min(1.0, renewable.known_milliwh / site)
    matched = hours.matched(carbon_free_by_hour(instruments or ()), renewable_nodes(sums, kinds))
    for name, value, why in (
        ("WUE", wue, water.why or "no IT energy"),
        ("ERF", erf, heat.why or "no site energy"),
        ("REF", ref, renewable.why),
        ("PUE", ratios.pue, "no IT energy"),
        ("24/7 CFE score", matched["cfe_score"], "no carbon-free share of the grid (factors of kind cfe)"),
    ):
        if value is None:
            not_measured.append(f"{name}: {why}")
    if ratios.pue is not None and ratios.pue < 1:
        warnings.append(N_("PUE below 1: a transformer or a meter is on the wrong place or reversed"))
    if "it" not in _metered(sums, kinds):
        warnings.append(N_("IT by difference: residual and IT cannot be told apart"))
    return {
        "pue": fixed(ratios.pue, 4),
        "pue_kind": "annual" if whole_year else "interim",
        "pue_category": "IT by difference, no category" if "it" not in _metered(sums, kinds) else N_("as metered"),
        "cue_kg_per_kwh": fixed(ratios.cue_kg_per_kwh, 6),
        "ref": fixed(ref, 6),
        "ref_basis": renewable.basis,
        "erf": fixed(erf, 6),
        "wue_l_per_kwh": fixed(wue, 6),
        "grid_g_per_kwh": fixed(ratios.grid_g_per_kwh, 3),
        "it_g_per_kwh": fixed(ratios.it_g_per_kwh, 3),
        "renewable_share_direct": fixed(ratios.renewable_direct, 6),
        "renewable_share_through_storage": fixed(ratios.renewable_stored, 6),
        **matched,
        "residual_share": fixed(ratios.residual_share, 6),
        "readings": {"water": water.record(), "heat-reused": heat.record()},
        "definitions": DEFINITIONS,
        "not_measured": sorted(not_measured),
        "warnings": warnings,
    }


@dataclass(frozen=True, slots=True)
class Renewable:
    """Renewable energy in mWh by where it comes from; None where nothing of that kind was given or metered."""

    own_milliwh: int | None
    goo_milliwh: int | None
    ppa_milliwh: int | None
    why: str

    @property
    def known_milliwh(self) -> int | None:
        known = [one for one in (self.own_milliwh, self.goo_milliwh, self.ppa_milliwh) if one is not None]
        return sum(known) if known else None

    @property
    def basis(self) -> list[str]:
        return [name for name, one in (("own generation", self.own_milliwh), ("guarantees of origin", self.goo_milliwh),
                                       ("power purchase agreements", self.ppa_milliwh)) if one is not None]  # fmt: skip


def renewable_energy(sums: Sums, kinds: Mapping[str, str], instruments: Sequence[Instrument] | None) -> Renewable:
    """Own renewable generation that loads used, directly or through storage, and cancelled renewable instruments."""
    nodes = renewable_nodes(sums, kinds)
    own = None
    if nodes:
        own = sum(
            milliwh
            for name, origins in sums.origins.items()
            if sums.outflow_kind[name] == "load"
            for origin, milliwh in origins.items()
            if origin.removesuffix(THROUGH_STORAGE) in nodes
        )
    if instruments is None:
        return Renewable(own, None, None, "no renewable generation is metered and no certificates were given")
    goo, ppa = (
        cancelled_renewable_milliwh(instruments, kind, sums.start_utc_s, sums.end_utc_s) for kind in ("goo", "ppa")
    )
    return Renewable(own, goo, ppa, "")


def _metered(sums: Sums, kinds: Mapping[str, str]) -> set[str]:
    return {kinds[name] for name in sums.outflow_milliwh if name in kinds and name not in sums.by_difference}


# ---- (EU) 2024/1364 ----

# What a person declares: symbol -> unit, meaning.
DECLARED: Mapping[str, tuple[str, str]] = {
    "S_DC": ("m2", "floor area of the data centre"),
    "S_CR": ("m2", "floor area of the computer rooms"),
    "P_IT": ("kW", "installed IT power"),
    "GRID_FUNCTIONS": ("", "functions for the grid"),
    "W_IN_POT": ("m3", "drinking water drawn in"),
    "T_WH": ("degC", "temperature of the reused heat"),
    "T_IN": ("degC", "set point of the intake air"),
    "REFRIGERANTS": ("", "types of refrigerant"),
    "CDD": ("degC d", "cooling degree days"),
    "C_SERV": ("", "capacity of the servers"),
    "C_STOR": ("PB", "capacity of the storage"),
    "B_IN": ("GB/s", "bandwidth in"),
    "B_OUT": ("GB/s", "bandwidth out"),
    "TRAFFIC_IN": ("EB", "traffic in"),
    "TRAFFIC_OUT": ("EB", "traffic out"),
    "STORED_DATA": ("EB", "stored data"),
}


def eu_fields(
    sums: Sums, kinds: Mapping[str, str], found: Mapping[str, Any], registers: Registers,
    instruments: Sequence[Instrument] | None, storages: Mapping[str, Sequence[int]], declared: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """The fields of Delegated Regulation (EU) 2024/1364: value, unit, basis; the others under not_measured.

    found : the indicators. declared : what a person says, symbol -> text, for what no meter of ours can give.
    """
    fields: dict[str, dict[str, Any]] = {}
    missing: list[str] = []

    def put(name: str, value: str | None, unit: str, basis: str, why: str) -> None:
        fields[name] = {"value": value, "unit": unit, "basis": basis if value is not None else f"not measured: {why}"}
        if value is None:
            missing.append(name)

    def energy(name: str, milliwh: int | None, basis: str, why: str) -> None:
        put(name, None if milliwh is None else decimal(milliwh, 6), "kWh", basis, why)

    def amount(name: str, quantity: str, unit: str, why: str) -> None:
        got: Amount = registers.amount(quantity, sums.start_utc_s, sums.end_utc_s)
        basis = f"readings of {', '.join(got.meters)}"
        put(name, None if got.total is None else decimal(got.total, 6), unit, basis, got.why or why)

    renewable = renewable_energy(sums, kinds, instruments)
    energy("E_DC", sums.site_milliwh, "metered: import and generation less export and change of storage", "")
    it_basis = "by difference" if found["pue_category"].startswith("IT by") else "metered"
    energy("E_IT", sums.role_milliwh(kinds, "it"), it_basis, "")
    backup = [name for name in sums.generation if kinds.get(name) == "generator"]
    if any(what == "energy-backup" for _, what in registers.rows) or not backup:
        amount("E_DC_BG", "energy-backup", "kWh", "no readings")
    else:
        energy("E_DC_BG", sum(sums.inflow_milliwh[name] for name in backup), "metered: generators of the site", "")
    amount("E_REUSE", "heat-reused", "kWh", "no readings")
    amount("W_IN", "water", "m3", "no readings")
    given = "no certificates were given"
    energy("E_RES_GOO", renewable.goo_milliwh, "cancelled guarantees of origin, as given", given)
    energy("E_RES_PPA", renewable.ppa_milliwh, "cancelled, from power purchase agreements, as given", given)
    energy("E_RES_OS", renewable.own_milliwh, "own renewable generation that loads used, storage included",
           "no renewable generation is metered")  # fmt: skip
    energy("E_RES_TOT", renewable.known_milliwh, "sum of " + ", ".join(renewable.basis), renewable.why)
    capacity = sum(row[0] for row in storages.values())
    energy("C_BTG", capacity or None, "usable energy of the storage units by the site file", "no storage unit")
    for name, key, unit in (("PUE", "pue", ""), ("WUE", "wue_l_per_kwh", "L/kWh"), ("ERF", "erf", ""),
                            ("REF", "ref", "")):  # fmt: skip
        why = next((row.partition(": ")[2] for row in found["not_measured"] if row.startswith(f"{name}:")), "")
        put(name, found[key], unit, found["pue_kind"], why)
    for name, (unit, meaning) in DECLARED.items():
        if name == "W_IN_POT" and any(what == "water-potable" for _, what in registers.rows):
            amount(name, "water-potable", unit, "")
            continue
        value = declared.get(name)
        put(name, None if value is None else str(value), unit, "declared by the operator", f"{meaning}, not declared")
    return {"fields": fields, "not_measured": missing}


def check_declared(declared: Iterable[str]) -> None:
    """Raise ValueError for a symbol that nobody can declare."""
    for name in declared:
        if name not in DECLARED:
            raise ValueError(f"eu_2024_1364: {name!r} is not declared by hand; known: {', '.join(DECLARED)}")
