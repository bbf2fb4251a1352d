"""The same-period electricity evidence record of one installation: what the ledger proves, what a person declared.

Field names follow the rules on indirect emissions of Implementing Regulation (EU) 2025/2547; it is data for a report to
an authority, and no such report. In here mwh is megawatt-hours and t_co2e tonnes, both exact decimal text.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from tidegate.runtime.carbon.engine.attribution import RESIDUAL, UNMETERED
from tidegate.runtime.carbon.factors.instruments import HOUR_S, Instrument
from tidegate.runtime.carbon.factors.series import iso
from tidegate.runtime.carbon.integers import decimal, fixed
from tidegate.runtime.carbon.ledger.bodies import MethodBody
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.report.indicators import check_declared
from tidegate.runtime.carbon.report.language import N_
from tidegate.runtime.carbon.report.totals import Sums, renewable_nodes

HEAD = ("name", "operator", "registry_id", "unlocode", "lat", "lon", "country")
PLAN = ("version", "sha256")
METER = ("id", "serial", "role", "obis", "class", "mpe_pct", "ct", "vt", "calibrated", "owner", "time_sync")
SOURCE = ("kind", "supplier", "country", "ef_method", "ef_source", "ef_doc_sha256", "vintage", "contract_ref")
VERIFICATION = ("status", "verifier", "accreditation", "statement_sha256")
METHODS = ("default", "alternative", "actual")
KEYS = {
    **dict.fromkeys(HEAD),
    "monitoring_plan": PLAN,
    "single_line_diagram_sha256": None,
    "meters": METER,
    "sources": ("source", *SOURCE),
    "ef_uncertainty_pct": None,
    "verification": VERIFICATION,
    "eu_2024_1364": None,
}
OBIS = {"import": "1-0:1.8.0", "load": "1-0:1.8.0", "export": "1-0:2.8.0"}
SYNC_WORST = ("U", "R", "I", "S")  # unknown, relative, informative, synchronised


class DeclaredMeter(TypedDict, total=False):
    """A meter, as its operator declares it; see METER."""

    id: str
    mpe_pct: str | int


class DeclaredSource(TypedDict, total=False):
    """A source of electricity, as its operator declares it; see SOURCE."""

    source: str
    kind: str
    supplier: str
    country: str
    ef_method: str
    ef_source: str
    ef_doc_sha256: str
    vintage: str
    contract_ref: str


class Installation(TypedDict, total=False):
    """What a person declares, by KEYS; numbers as they were written."""

    name: str
    country: str
    monitoring_plan: dict[str, str]
    single_line_diagram_sha256: str
    meters: list[DeclaredMeter]
    sources: list[DeclaredSource]
    ef_uncertainty_pct: str | int
    verification: dict[str, str]
    eu_2024_1364: dict[str, str]


class GapRow(TypedDict):
    """A stretch of a flow whose energy is not plainly measured."""

    flow: str
    start_utc_s: int
    end_utc_s: int
    quality: str
    method: str
    energy_milliwh: int
    flags: list[str]


def read_installation(path: Path) -> Installation:
    """What a person declares of an installation. Numbers stay text as written. Raises ValueError naming the key."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_float=str)
    except ValueError as error:
        raise ValueError(f"{path.name}: not JSON: {error}") from None
    return check_installation(found, path.name)


def check_installation(found: Any, where: str) -> Installation:
    """The declaration, if every key of it is known."""
    if not isinstance(found, dict):
        raise ValueError(f"{where}: expected an object")
    for key, value in found.items():
        if key not in KEYS:
            raise ValueError(f"{where}: unknown key {key!r}; known: {', '.join(KEYS)}")
        known = KEYS[key]
        if known is None:
            continue
        rows = value if isinstance(value, list) else [value]
        for row in rows:
            if not isinstance(row, dict):
                raise ValueError(f"{where}: {key}: expected an object with {', '.join(known)}")
            for inner in row:
                if inner not in known:
                    raise ValueError(f"{where}: {key}: unknown key {inner!r}; known: {', '.join(known)}")
    for row in found.get("sources", ()):
        method = row.get("ef_method")
        if method is not None and method not in METHODS:
            raise ValueError(f"{where}: sources: ef_method {method!r}, expected one of {', '.join(METHODS)}")
    for row in found.get("meters", ()):
        _number(row.get("mpe_pct"), f"{where}: meters: mpe_pct")
    _number(found.get("ef_uncertainty_pct"), f"{where}: ef_uncertainty_pct")
    check_declared(found.get("eu_2024_1364", {}))
    return cast(Installation, found)


def _number(text: object, where: str) -> float | None:
    if text is None:
        return None
    try:
        value = float(str(text))
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {text!r} is not a number") from None
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{where}: {text!r} is not a percentage")
    return value


def mwh_text(milliwatt_hours: int) -> str:
    """Megawatt-hours, exact."""
    return decimal(milliwatt_hours, 9)


def evidence_record(
    sums: Sums, method: MethodBody, given: Installation, *, scope: str, policy: str, longest_s: int,
    span: tuple[int, int], sync: Mapping[str, int], gaps: Sequence[GapRow],
    edits: Sequence[Mapping[str, object]], chain: Mapping[str, object], instruments: Sequence[Instrument],
    imports: Sequence[tuple[int, int, int]], grid: Mapping[str, object], year: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """The record of a span. given : as from read_installation; what nobody gave is None and listed under not_given.

    year : of the place where the span begins, 0 = of UTC.
    """
    kinds: Mapping[str, str] = method.get("kinds", {})
    direct = Counter({name: milliwh for name, milliwh in sums.same_period_milliwh.items() if milliwh})
    shifted = Counter({name: milliwh for name, milliwh in sums.shifted_milliwh.items() if milliwh})
    sources = _sources(sums, kinds, given, direct, longest_s, grid)
    sources += _agreements(instruments, imports, span, given)
    came = sum(sums.inflow_milliwh.values())
    consumed = sums.site_milliwh
    # What consumption emitted: same-period energy at its source's factor, the rest at the grid's where it was used.
    used = sum(direct.values()) + sum(shifted.values())
    used_ug = sum(sums.same_period_ug.values()) + sum(sums.shifted_ug.values())
    counted = [row for row in sources if row["within"] is None]
    own = {row["source"]: max(0, row["_milliwh"] - shifted[row["source"]]) for row in counted}
    shares = {
        name: fixed(sum(own[row["source"]] for row in counted if row["ef_method"] in kind) / came if came else None, 6)
        for name, kind in (("actual", ("actual",)), ("default", ("default", "alternative")), ("not_stated", (None,)))
    }
    energy_pct = _uncertainty(sums.inflow_milliwh, given)
    ef_pct = _number(given.get("ef_uncertainty_pct"), "ef_uncertainty_pct")
    carbon_pct = _uncertainty(sums.inflow_ug, given)
    both = None if carbon_pct is None or ef_pct is None else math.hypot(carbon_pct, ef_pct)
    verification = given.get("verification", {})
    record: dict[str, Any] = {
        "units": "mwh is megawatt-hours, t_co2e tonnes, ef_t_per_mwh tonnes per megawatt-hour",
        "installation": {key: _text(given.get(key)) for key in HEAD},
        "period": {"start_utc": iso(span[0]), "end_utc": iso(span[1]), "calendar_year": year or int(iso(span[0])[:4])},
        "scope_statement": scope,
        "monitoring_plan": {
            **{key: _text(given.get("monitoring_plan", {}).get(key)) for key in PLAN},
            "language": "en",
        },
        "boundary": {
            "single_line_diagram_sha256": _text(given.get("single_line_diagram_sha256")),
            "nodes": [{"node": node, "role": role} for node, role in sorted(kinds.items())],
        },
        "meters": _meters(method, given, sync),
        "sources": [{key: value for key, value in row.items() if key != "_milliwh"} for row in sources],
        "storage": {
            "charge_mwh": mwh_text(sum(sums.charge_milliwh.values())),
            "discharge_mwh": mwh_text(sum(sums.discharge_milliwh.values())),
            "loss_mwh": mwh_text(sum(sums.loss_milliwh.values())),
            "opening": mwh_text(sums.opening_milliwh),
            "closing": mwh_text(sums.closing_milliwh),
            "time_shifted_mwh": {name: mwh_text(milliwh) for name, milliwh in sorted(shifted.items())},
            "time_shifted_t_co2e": {name: decimal(sums.shifted_ug[name], 12) for name in sorted(shifted)},
            "time_shifted_factor": N_("the grid's factor of the period in which it was used"),
            "policy": policy,
            "note": N_("not claimed as same-period"),
        },
        "electricity_consumed_mwh": {
            "installation": mwh_text(consumed),
            "process": [
                {"node": name, "mwh": mwh_text(milliwh)}
                for name, milliwh in sorted(sums.outflow_milliwh.items())
                if sums.outflow_kind[name] == "load" or name == RESIDUAL
            ],
        },
        "ef_article9_t_per_mwh": fixed(used_ug / used / 1000 if used else None, 5),
        "indirect_t_co2e": decimal(consumed * used_ug // used, 12) if used else None,
        "share_time_shifted": fixed(sum(shifted.values()) / came if came else None, 6),
        "share_actual": shares["actual"],
        "share_default": shares["default"],
        "share_not_stated": shares["not_stated"],
        "balance": {
            "import": mwh_text(sums.inflow_milliwh["grid"]),
            "produced": mwh_text(
                sum(milliwh for name, milliwh in sums.inflow_milliwh.items() if name in sums.generation)
            ),
            "consumed": mwh_text(
                sum(milliwh for name, milliwh in sums.outflow_milliwh.items() if sums.outflow_kind[name] == "load")
            ),
            "exported": mwh_text(
                sum(milliwh for name, milliwh in sums.outflow_milliwh.items() if sums.outflow_kind[name] == "export")
            ),
            "residual": mwh_text(sums.outflow_milliwh[RESIDUAL] - sums.inflow_milliwh[UNMETERED]),
        },
        "gaps": [_gap(gap) for gap in gaps],
        "edits": list(edits),
        "uncertainty": {
            "energy_pct": fixed(energy_pct, 3),
            "ef_pct": fixed(ef_pct, 3),
            "combined_pct": fixed(both, 3),
            "k": 2,
        },
        "materiality_reference_pct": 5,
        "verification": {
            "status": _text(verification.get("status")) or "unverified",
            **{key: _text(verification.get(key)) for key in VERIFICATION[1:]},
        },
        "ledger": dict(chain),
        "software": {"name": "tidegate", "version": method.get("software", ""), "build": method.get("build")},
        "submission": "feeder data only; no registry format",
    }
    record["not_given"] = not_given(record)
    return record


def before_4(sums: Sums, given: Installation, sources: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """What reports before version 4 said where this one says something else, to check one of them."""
    came, came_ug = sum(sums.inflow_milliwh.values()), sum(sums.inflow_ug.values())
    energy_pct = _uncertainty(sums.inflow_milliwh, given)
    ef_pct = _number(given.get("ef_uncertainty_pct"), "ef_uncertainty_pct")
    both = None if energy_pct is None or ef_pct is None else math.hypot(energy_pct, ef_pct)
    methods = {row["source"]: row["ef_method"] for row in sources if row["within"] is None}
    shares = {
        f"share_{name}": fixed(
            sum(part for source, part in sums.inflow_milliwh.items() if methods.get(source) in kind) / came
            if came else None, 6)
        for name, kind in (("actual", ("actual",)), ("default", ("default", "alternative")), ("not_stated", (None,)))
    }  # fmt: skip
    return {
        "ef_article9_t_per_mwh": fixed(came_ug / came / 1000 if came else None, 5),
        "indirect_t_co2e": decimal(sums.site_milliwh * came_ug // came, 12) if came else None,
        "uncertainty": {"energy_pct": fixed(energy_pct, 3), "ef_pct": fixed(ef_pct, 3), "combined_pct": fixed(both, 3),
                        "k": 2},
        **shares,
    }  # fmt: skip


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def not_given(record: Mapping[str, object], path: str = "") -> list[str]:
    """The paths of all fields that nobody gave, rows of lists by their name; the ledger's own are not meant."""
    found: list[str] = []
    for key, value in record.items():
        where = f"{path}{key}"
        if where in ("ledger", "edits", "gaps") or key == "within":
            continue
        if value is None:
            found.append(where)
        elif isinstance(value, Mapping):
            found += not_given(value, f"{where}.")
        elif isinstance(value, list):
            for row in value:
                if isinstance(row, Mapping):
                    found += not_given(row, f"{where}[{row.get('id') or row.get('source') or ''}].")
    return found


def _sources(
    sums: Sums,
    kinds: Mapping[str, str],
    given: Installation,
    direct: Mapping[str, int],
    longest_s: int,
    grid: Mapping[str, object],
) -> list[dict[str, Any]]:
    declared = {row.get("source"): row for row in given.get("sources", ())}
    renewable = renewable_nodes(sums, kinds)
    rows = []
    for name, milliwh in sorted(sums.inflow_milliwh.items()):
        known = declared.get(name, {})
        own = name in sums.generation
        kind = None if name == UNMETERED else known.get("kind") or ("SOE01" if own else "SOE03")
        if name == "grid":
            source, digest = grid.get("source"), grid.get("sha256") or None
        else:
            source, digest = ("no fuel is burnt" if name in renewable else "constant of the site file"), None
        rows.append(
            {
                "kind": kind,
                "source": name,
                "supplier": _text(known.get("supplier")),
                "country": _text(known.get("country") or given.get("country")),
                "mwh": mwh_text(milliwh),
                "ef_t_per_mwh": fixed(sums.inflow_ug[name] / milliwh / 1000 if milliwh else None, 5),
                "ef_method": known.get("ef_method") or ("actual" if name in renewable else None),
                "ef_source": _text(known.get("ef_source") or source),
                "ef_doc_sha256": _text(known.get("ef_doc_sha256") or digest),
                "vintage": _text(known.get("vintage")),
                "contract_ref": _text(known.get("contract_ref")),
                "same_period_mwh": mwh_text(direct.get(name, 0)),
                "max_period_s": longest_s,
                "t_co2e": decimal(sums.inflow_ug[name], 12),
                "within": None,
                "_milliwh": milliwh,
            }
        )
    return rows


def _agreements(
    instruments: Sequence[Instrument], imports: Sequence[tuple[int, int, int]], span: tuple[int, int],
    given: Installation,
) -> list[dict[str, Any]]:  # fmt: skip
    """Power purchase agreements: a part of what the grid meter counted, matched hour by hour."""
    declared = {row.get("source"): row for row in given.get("sources", ())}
    hours: Counter[int] = Counter()
    for start, _, milliwh in imports:
        hours[start // HOUR_S] += milliwh
    by_source: dict[str, list[Instrument]] = {}
    for one in instruments:
        if one.kind == "ppa" and span[0] <= one.start_utc_s < span[1]:
            by_source.setdefault(one.source, []).append(one)
    rows = []
    for name, mine in sorted(by_source.items()):
        known = declared.get(name, {})
        milliwh, ug, same = (
            sum(one.energy_milliwh for one in mine),
            sum(one.energy_milliwh * one.ug_per_kwh for one in mine) // 1_000_000,
            0,
        )
        for one in mine:
            used = min(one.energy_milliwh, hours[one.start_utc_s // HOUR_S])
            hours[one.start_utc_s // HOUR_S] -= used
            same += used
        rows.append(
            {
                "kind": "SOE02",
                "source": name,
                "supplier": _text(known.get("supplier")) or name,
                "country": _text(known.get("country") or given.get("country")),
                "mwh": mwh_text(milliwh),
                "ef_t_per_mwh": fixed(ug / milliwh / 1000 if milliwh else None, 5),
                "ef_method": known.get("ef_method") or "actual",
                "ef_source": _text(known.get("ef_source")),
                "ef_doc_sha256": _text(known.get("ef_doc_sha256")),
                "vintage": _text(known.get("vintage")),
                "contract_ref": _text(known.get("contract_ref")),
                "same_period_mwh": mwh_text(same),
                "max_period_s": max(one.end_utc_s - one.start_utc_s for one in mine),
                "t_co2e": decimal(ug, 12),
                "within": "grid",
                "_milliwh": milliwh,
            }
        )
    return rows


def _meters(method: MethodBody, given: Installation, sync: Mapping[str, int]) -> list[dict[str, Any]]:
    """One row a meter node: what the site file knows, completed by what a person declared."""
    declared = {row.get("id"): row for row in given.get("meters", ())}
    worst = next((letter for letter in SYNC_WORST if sync.get(letter)), None)
    rows: dict[str, dict[str, Any]] = {}
    for name, (kind, register, _) in sorted(method.get("flows", {}).items()):
        node = name.rpartition(".")[0]
        known = declared.get(node, {})
        row = rows.setdefault(
            node, {key: _text(known.get(key)) for key in METER} | {"id": node, "time_sync": worst, "registers": []}
        )
        row["role"] = row["role"] or method.get("kinds", {}).get(node)
        row["obis"] = row["obis"] or OBIS.get(kind)
        row["registers"].append(register or "none, integral of the fast power")
    for name in sorted(name for name in declared if name is not None and name not in rows):
        rows[name] = {key: _text(declared[name].get(key)) for key in METER} | {"registers": []}
    return list(rows.values())


def _gap(gap: GapRow) -> dict[str, object]:
    """A gap with the direction in which its number errs."""
    method, quality = str(gap["method"]), gap["quality"]
    if method.endswith(", high"):
        bias = "high"
    elif method.endswith(", low") or quality == "missing":
        bias = "low"
    elif method.startswith("register"):
        bias = "none in sum: the register bridges it, only the shape is estimated"
    else:
        bias = "not known"
    return {"start": iso(gap["start_utc_s"]), "end": iso(gap["end_utc_s"]), "meter": gap["flow"],
            "method": f"{quality}: {method}", "kwh": decimal(gap["energy_milliwh"], 6), "bias": bias}  # fmt: skip


def _uncertainty(by_source: Mapping[str, int], given: Installation) -> float | None:
    """Percent of a sum over sources, from their meters' maximum permissible errors.

    by_source : energy, or carbon; a source that adds nothing needs no error. None unless the others have one.
    """
    mpe = {row.get("id"): _number(row.get("mpe_pct"), "mpe_pct") for row in given.get("meters", ())}
    whole = sum(by_source.values())
    squares = 0.0
    for name, part in by_source.items():
        if not part:
            continue
        own = mpe.get(name)
        if own is None:
            return None
        squares += (own * part) ** 2
    return math.sqrt(squares) / whole if whole else None


def block_over(ledger: Ledger, seq: int) -> dict[str, object] | None:
    """The signed block that covers an entry; None while none does."""
    for entry in ledger.entries("block"):
        if entry.body["first"] <= seq <= entry.body["last"]:
            return {"block_seq": entry.seq, "key": entry.body["key"], "signature": entry.body["signature"]}
    return None
