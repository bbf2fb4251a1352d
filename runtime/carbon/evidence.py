"""What a report says of a span: one document of whole numbers and text, made from the ledger alone.

The same ledger and the same question give the same bytes. Ratios are text with fixed decimals, so that the document has
one canonical form, and `compare` can name the first thing in a report that the ledger does not say.
"""

import csv
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.runtime.carbon.factors import FactorError, iso, parse_factor, parse_time
from tidegate.runtime.carbon.jobs.summary import Compute
from tidegate.runtime.carbon.ledger import Entry, Ledger, LedgerError, canonical
from tidegate.runtime.carbon.sums import Indicators, Sums, add_up, indicators
from tidegate.runtime.carbon.whole import carbon_ug, to_whole

REPORT_VERSION = 1
YEAR_S = 365 * 86_400
SCOPE = (
    "This account covers metered electricity inside the named boundary and the emissions of its generation. It is not "
    "verified. It makes no claim about goods, and computation is not a good under Regulation (EU) 2023/956. Energy "
    "moved through storage to another period is reported apart and is not claimed as same-period supply."
)
POLICY_NOTE = (
    "The Scope 2 total does not depend on the attribution policy: it is metered import times the factor of the period "
    "of import. The policy only moves carbon between time, nodes, export and loss."
)


@dataclass(frozen=True, slots=True)
class Instrument:
    """A contractual instrument: energy in an interval with its own factor."""

    start_utc_s: int
    end_utc_s: int
    mwh: int
    ug_per_kwh: int
    source: str


def read_instruments(path: Path) -> list[Instrument]:
    """CSV of start_utc, end_utc, wh, g_per_kwh, source; an interval of at most one hour. Raises FactorError by line."""
    columns = ("start_utc", "end_utc", "wh", "g_per_kwh", "source")
    found = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise FactorError(f"{path.name}, line 1: column {', '.join(missing)} is missing")
        for row in reader:
            where = f"{path.name}, line {reader.line_num}"
            start, end = parse_time(row["start_utc"], where), parse_time(row["end_utc"], where)
            if not 0 < end - start <= 3600:
                raise FactorError(f"{where}: an interval of {end - start} s; expected more than 0 and at most one hour")
            try:
                mwh = to_whole(row["wh"], 1000)
            except ArithmeticError:
                raise FactorError(f"{where}: {row['wh']!r} is not a number") from None
            if mwh < 0:
                raise FactorError(f"{where}: {row['wh']} Wh is negative")
            found.append(Instrument(start, end, mwh, parse_factor(row["g_per_kwh"], "g/kWh", where), row["source"]))
    return sorted(found, key=lambda one: (one.start_utc_s, one.source))


def fixed(value: float | None, digits: int) -> str | None:
    """A ratio as text with fixed decimals, so that it has one form."""
    return None if value is None else f"{value:.{digits}f}"


def market_based(
    imports: Sequence[tuple[int, int, int]], instruments: list[Instrument], residual_ug_per_kwh: int
) -> dict[str, Any]:
    """Scope 2 market-based, matched period by period, beside the same over the whole span."""
    matched = ug = load = 0
    left = {id(one): one.mwh for one in instruments}
    for start, length, wanted in imports:
        end = start + length
        load += wanted
        for one in instruments:
            if not wanted:
                break
            if one.start_utc_s < end and one.end_utc_s > start:
                used = min(wanted, left[id(one)])
                left[id(one)] -= used
                wanted -= used
                matched += used
                ug += carbon_ug(used, one.ug_per_kwh)
        ug += carbon_ug(wanted, residual_ug_per_kwh)
    held = sum(one.mwh for one in instruments)
    covered = min(load, held)
    mean = sum(carbon_ug(one.mwh, one.ug_per_kwh) for one in instruments)
    netted = (mean * covered // held if held else 0) + carbon_ug(load - covered, residual_ug_per_kwh)
    return {
        "load_mwh": load,
        "matched_mwh": matched,
        "instruments_mwh": held,
        "hourly_ug": ug,
        "netted_ug": netted,
        "hourly_matched_share": fixed(matched / load if load else None, 6),
        "netted_share": fixed(covered / load if load else None, 6),
    }


class Gaps:
    """Stretches of a flow whose energy is not plainly measured, neighbouring periods of one kind as one."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []
        self._last: dict[str, dict[str, Any]] = {}

    def add(self, body: Mapping[str, Any]) -> None:
        end = body["start_utc_s"] + body["length_s"]
        for name, flow in body["flows"].items():
            if flow["quality"] == "good":
                continue
            row = self._last.get(name)
            same = row is not None and row["end_utc_s"] == body["start_utc_s"]
            if row is not None and same and (row["quality"], row["method"]) == (flow["quality"], flow["method"]):
                row["end_utc_s"] = end
                row["mwh"] += flow["mwh"]
                row["flags"] = sorted({*row["flags"], *flow["flags"]})
                continue
            self._last[name] = {
                "flow": name, "start_utc_s": body["start_utc_s"], "end_utc_s": end, "quality": flow["quality"],
                "method": flow["method"], "mwh": flow["mwh"], "flags": sorted(flow["flags"]),
            }  # fmt: skip
            self.found.append(self._last[name])


class Watch:
    """One pass over a span: keeps what a report needs of it, never the periods themselves.

    each : called with every body, for what else is made of them (CSV rows, bins of a plot).
    """

    def __init__(self, entries: Iterable[Entry], each: Callable[[Mapping[str, Any]], None] | None = None) -> None:
        self._entries = entries
        self._each = each
        self.first_seq = self.last_seq = -1
        self.root = ""
        self.last: Entry | None = None
        self.longest_s = 0
        self.imports: list[tuple[int, int, int]] = []  # start, length, mWh of every period
        self.gaps = Gaps()

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for entry in self._entries:
            body = entry.body
            if self.last is None:
                self.first_seq = entry.seq
            self.first_seq = min(self.first_seq, entry.seq)
            if entry.seq > self.last_seq:
                self.last_seq, self.root = entry.seq, entry.hash
            self.last = entry
            self.longest_s = max(self.longest_s, body["length_s"])
            mwh = sum(flow["mwh"] for name, flow in body["flows"].items() if name.endswith(".import"))
            self.imports.append((body["start_utc_s"], body["length_s"], mwh))
            self.gaps.add(body)
            if self._each is not None:
                self._each(body)
            yield body


def gather(
    ledger: Ledger,
    start_utc_s: int,
    end_utc_s: int,
    *,
    instruments: list[Instrument] | None = None,
    residual_ug_per_kwh: int | None = None,
    installation: Mapping[str, Any] | None = None,
    each: Callable[[Mapping[str, Any]], None] | None = None,
    each_day: Callable[[Mapping[str, Any]], None] | None = None,
    until_seq: int | None = None,
) -> tuple[dict[str, Any], Sums, Indicators]:
    """(document, sums, ratios) of the periods that begin in [start, end), read once; `each` is given every body.

    until_seq : as the ledger stood at that entry, for a report of before.
    Raises LedgerError if there are none.
    """
    watch = Watch(ledger.in_force("period", start_utc_s, end_utc_s, until_seq), each)
    sums = add_up(watch)
    if watch.last is None:
        raise LedgerError(f"no period is booked from {iso(start_utc_s)} to {iso(end_utc_s)}")
    newest = watch.last.body
    compute = Compute()
    for entry in ledger.in_force("job", start_utc_s, end_utc_s, until_seq):
        compute.add(entry.body, entry.seq)
        if entry.seq > watch.last_seq:
            watch.last_seq, watch.root = entry.seq, entry.hash
        if each_day is not None:
            each_day(entry.body)
    methods = [entry for entry in ledger.entries("method") if entry.seq <= watch.last_seq]
    edits = [entry for entry in ledger.entries("edit") if entry.seq <= watch.last_seq]
    method = methods[-1].body if methods else {}
    kinds = method.get("kinds", {})
    ratios = indicators(sums, kinds)
    missing = (end_utc_s - start_utc_s - sums.covered_s) if sums.covered_s else 0
    document: dict[str, Any] = {
        "report_version": REPORT_VERSION,
        "scope": SCOPE,
        "policy_note": POLICY_NOTE,
        "site": newest["site"],
        "span": {"from_utc_s": start_utc_s, "to_utc_s": end_utc_s, "booked_from_utc_s": sums.start_utc_s,
                 "booked_to_utc_s": sums.end_utc_s, "periods": sums.periods, "not_booked_s": missing},
        "ledger": {"first_seq": watch.first_seq, "last_seq": watch.last_seq, "root": watch.root},
        "method": {"policy": newest["method"]["policy"], "losses": newest["method"]["losses"],
                   "storages": method.get("storages", {}), "notes": method.get("notes", []),
                   "software": method.get("software", ""), "changes": len(methods)},
        "energy_mwh": {
            "inflow": _sorted(sums.inflow_mwh), "outflow": _sorted(sums.outflow_mwh),
            "charge": _sorted(sums.charge_mwh), "discharge": _sorted(sums.discharge_mwh),
            "storage_loss": _sorted(sums.loss_mwh), "opening": sums.opening_mwh, "closing": sums.closing_mwh,
            "site": sums.site_mwh,
        },
        "origins_mwh": {name: _sorted(row) for name, row in sorted(sums.origins.items())},
        "carbon_ug": {
            "inflow": _sorted(sums.inflow_ug), "outflow": _sorted(sums.outflow_ug), "charge": _sorted(sums.charge_ug),
            "storage_loss": _sorted(sums.loss_ug), "created": sums.created_ug, "opening": sums.opening_ug,
            "closing": sums.closing_ug, "balance_error": sums.worst_error_ug,
        },
        "scope2": _scope2(watch.imports, sums, instruments, residual_ug_per_kwh),
        "indicators": _indicators(ratios, sums, kinds, end_utc_s - start_utc_s),
        "eu_2024_1364": _eu_fields(sums, kinds),
        "factors": {"import_mwh_by_status": _sorted(sums.factor_mwh), "sources": _sorted(sums.factor_sources),
                    "grid": method.get("grid_factor", {})},
        "quality_mwh": _sorted(sums.quality_mwh),
        "gaps": watch.gaps.found,
        "edits": [_edit_row(entry) for entry in edits if entry.body["to_utc_s"] >= start_utc_s
                  and entry.body["from_utc_s"] < end_utc_s],
        "flags": _sorted(sums.flags),
        "records": {"taken": sums.records, "lost": sums.lost},
        "evidence": _evidence(sums, ratios, installation or {}, watch.longest_s),
    }  # fmt: skip
    if sums.consequence:
        document["consequence_ug"] = {"caused_by_charging": sums.caused_ug, "avoided_by_discharging": sums.avoided_ug}
    if compute.days:
        it_ug = sums.role_ug(kinds, "it")
        document["compute"] = compute.document(sum(sums.outflow_ug.values()) - sums.export_ug, it_ug, method)
    document["sha256"] = digest(document)
    return document, sums, ratios


def _edit_row(entry: Entry) -> dict[str, Any]:
    return {"seq": entry.seq, **entry.body}


def digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical text of a document without its own digest."""
    return hashlib.sha256(canonical({k: v for k, v in document.items() if k != "sha256"}).encode()).hexdigest()


def compare(said: Any, known: Any, path: str = "report") -> list[str]:
    """Where a report differs from what its ledger gives: the paths of all values that do."""
    if isinstance(said, dict) and isinstance(known, dict):
        rows = []
        for key in sorted({*said, *known}):
            if key not in said or key not in known:
                rows.append(f"{path}.{key}: {'missing' if key not in said else 'not in the ledger'}")
            else:
                rows += compare(said[key], known[key], f"{path}.{key}")
        return rows
    if isinstance(said, list) and isinstance(known, list) and len(said) == len(known):
        return [row for i, pair in enumerate(zip(said, known, strict=True)) for row in compare(*pair, f"{path}[{i}]")]
    if said != known or type(said) is not type(known):
        return [f"{path}: says {said!r:.60}, the ledger says {known!r:.60}"]
    return []


def _sorted(counter: Mapping[str, int]) -> dict[str, int]:
    return {key: counter[key] for key in sorted(counter)}


def _scope2(
    imports: Sequence[tuple[int, int, int]], sums: Sums, instruments: list[Instrument] | None, residual: int | None
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "location_based_ug": sums.inflow_ug["grid"],
        "import_mwh": sums.inflow_mwh["grid"],
        "export_netted": False,
        "market_based": None,
    }
    if instruments is not None and residual is not None:
        found["market_based"] = market_based(imports, instruments, residual)
    return found


def _indicators(ratios: Indicators, sums: Sums, kinds: Mapping[str, str], span_s: int) -> dict[str, Any]:
    whole_year = span_s >= YEAR_S and sums.covered_s >= YEAR_S
    return {
        "pue": fixed(ratios.pue, 4),
        "pue_kind": "annual" if whole_year else "interim",
        "pue_category": "IT by difference, no category" if "it" not in _metered(sums, kinds) else "as metered",
        "cue_kg_per_kwh": fixed(ratios.cue_kg_per_kwh, 6),
        "grid_g_per_kwh": fixed(ratios.grid_g_per_kwh, 3),
        "it_g_per_kwh": fixed(ratios.it_g_per_kwh, 3),
        "renewable_share_direct": fixed(ratios.renewable_direct, 6),
        "renewable_share_through_storage": fixed(ratios.renewable_stored, 6),
        "residual_share": fixed(ratios.residual_share, 6),
        "erf": None,
        "wue_l_per_kwh": None,
        "not_measured": ["ERF: no heat meter", "WUE: no water meter", "ITEEsv, ITEUsv: no benchmark data"],
    }


def _metered(sums: Sums, kinds: Mapping[str, str]) -> set[str]:
    return {kinds[name] for name in sums.outflow_mwh if name in kinds and name != "it"}


def _eu_fields(sums: Sums, kinds: Mapping[str, str]) -> dict[str, Any]:
    """Fields of Delegated Regulation (EU) 2024/1364 that electricity meters can give; the others are only named."""
    own = sum(
        mwh
        for name, origins in sums.origins.items()
        if sums.outflow_kind[name] == "load"
        for origin, mwh in origins.items()
        if origin.removesuffix("@storage") in sums.generation
    )
    return {
        "E_DC_mwh": sums.site_mwh,
        "E_IT_mwh": sums.role_mwh(kinds, "it"),
        "E_RES_OS_mwh": own,
        "not_available": ["E_DC-BG", "E_RES-GOO", "E_RES-PPA", "E_REUSE", "W_IN", "W_IN-POT", "T_WH", "T_IN", "S_DC",
                          "S_CR", "C_SERV", "C_STOR", "B_IN", "B_OUT"],
    }  # fmt: skip


def _evidence(sums: Sums, ratios: Indicators, installation: Mapping[str, Any], longest: int) -> dict[str, Any]:
    """The same-period electricity evidence record; what nobody gave is null and listed."""
    direct: Counter[str] = Counter()
    shifted: Counter[str] = Counter()
    for name, origins in sums.origins.items():
        if sums.outflow_kind[name] != "load":
            continue
        for origin, mwh in origins.items():
            (shifted if origin.endswith("@storage") else direct)[origin.removesuffix("@storage")] += mwh
    wanted = ("name", "operator", "registry_id", "unlocode", "lat", "lon", "country", "monitoring_plan",
              "single_line_diagram_sha256", "meters")  # fmt: skip
    sources = [
        {
            "kind": "SOE01" if name in sums.generation else "SOE03",
            "source": name,
            "mwh": mwh,
            "same_period_mwh": direct[name],
            "max_period_s": longest,
            "ug": sums.inflow_ug[name],
        }
        for name, mwh in sorted(sums.inflow_mwh.items())
    ]
    whole = sum(sums.inflow_mwh.values())
    return {
        "installation": {key: installation.get(key) for key in wanted},
        "not_given": [key for key in wanted if installation.get(key) is None],
        "sources": sources,
        "storage": {
            "charge_mwh": sum(sums.charge_mwh.values()),
            "discharge_mwh": sum(sums.discharge_mwh.values()),
            "loss_mwh": sum(sums.loss_mwh.values()),
            "opening_mwh": sums.opening_mwh,
            "closing_mwh": sums.closing_mwh,
            "time_shifted_mwh": _sorted(shifted),
            "note": "not claimed as same-period",
        },
        "ef_weighted_ug_per_kwh": sum(sums.inflow_ug.values()) * 1_000_000 // whole if whole else None,
        "residual_share": fixed(ratios.residual_share, 6),
        "verification": "unverified",
        "submission": "feeder data only; no registry format",
    }
