"""What a report says of a span: one document of whole numbers and text, made from the ledger alone.

The same ledger and the same question give the same bytes. Ratios are text with fixed decimals, so that the document has
one canonical form, and `compare` can name the first thing in a report that the ledger does not say. `published` makes
report.json of it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tidegate.config.zones import zone_of
from tidegate.runtime.carbon.engine.account import break_even_ppm
from tidegate.runtime.carbon.factors.instruments import Instrument, market_based
from tidegate.runtime.carbon.factors.series import iso
from tidegate.runtime.carbon.jobs.job_summary import Compute
from tidegate.runtime.carbon.ledger.bodies import EditBody, MethodBody, PeriodBody, SettlementBody
from tidegate.runtime.carbon.ledger.ledger import Entry, Ledger, LedgerError
from tidegate.runtime.carbon.readings.file_registers import readings_record, registers_of
from tidegate.runtime.carbon.report.compared import compared
from tidegate.runtime.carbon.report.demand_windows import WINDOW_S, Demand, DemandCharge, check_charge
from tidegate.runtime.carbon.report.evidence_record import (
    GapRow,
    Installation,
    before_4,
    block_over,
    check_installation,
    evidence_record,
)
from tidegate.runtime.carbon.report.indicators import Hours, eu_fields, indicators_record
from tidegate.runtime.carbon.report.language import N_
from tidegate.runtime.carbon.report.local_time import shown
from tidegate.runtime.carbon.report.published import BEFORE_4, REPORT_VERSION, published
from tidegate.runtime.carbon.report.rested import Rested
from tidegate.runtime.carbon.report.totals import Indicators, Sums, add_up, indicators, shifting

SCOPE = N_(
    "This account covers metered electricity inside the named boundary and the emissions of its generation. It is not "
    "verified. It makes no claim about goods, and computation is not a good under Regulation (EU) 2023/956. Energy "
    "moved through storage to another period is reported apart and is not claimed as same-period supply."
)
POLICY_NOTE = N_(
    "The Scope 2 total does not depend on the attribution policy: it is metered import times the factor of the period "
    "of import. The policy only moves carbon between time, nodes, export and loss."
)


class Gaps:
    """Stretches of a flow whose energy is not plainly measured, neighbouring periods of one kind as one."""

    def __init__(self) -> None:
        self.found: list[GapRow] = []
        self._last: dict[str, GapRow] = {}

    def add(self, body: PeriodBody) -> None:
        end = body["start_utc_s"] + body["length_s"]
        for name, flow in body["flows"].items():
            if flow["quality"] == "good":
                continue
            row = self._last.get(name)
            same = row is not None and row["end_utc_s"] == body["start_utc_s"]
            if row is not None and same and (row["quality"], row["method"]) == (flow["quality"], flow["method"]):
                row["end_utc_s"] = end
                row["energy_milliwh"] += flow["energy_milliwh"]
                row["flags"] = sorted({*row["flags"], *flow["flags"]})
                continue
            self._last[name] = {
                "flow": name, "start_utc_s": body["start_utc_s"], "end_utc_s": end, "quality": flow["quality"],
                "method": flow["method"], "energy_milliwh": flow["energy_milliwh"], "flags": sorted(flow["flags"]),
            }  # fmt: skip
            self.found.append(self._last[name])


class SpanReader:
    """One pass over a span: keeps what a report needs of it, never the periods themselves.

    each : called with every body, for what else is made of them (CSV rows, bins of a plot).
    """

    def __init__(
        self,
        entries: Iterable[Entry[PeriodBody]],
        demand: Demand,
        each: Callable[[PeriodBody, int], None] | None = None,
    ) -> None:
        self._entries = entries
        self._each = each
        self.first_seq = self.last_seq = -1
        self.root = ""
        self.last: Entry[PeriodBody] | None = None
        self.longest_s = 0
        self.imports: list[tuple[int, int, int]] = []  # start, length, mWh of every period
        self.residuals: dict[int, int] = {}  # the residual mix, ug per kWh, by the start of its period
        self.gaps = Gaps()
        self.hours = Hours()
        self.demand = demand
        self.sync: Counter[str] = Counter()

    def __iter__(self) -> Iterator[PeriodBody]:
        for entry in self._entries:
            body = entry.body
            if self.last is None:
                self.first_seq = entry.seq
            self.first_seq = min(self.first_seq, entry.seq)
            if entry.seq > self.last_seq:
                self.last_seq, self.root = entry.seq, entry.hash
            self.last = entry
            self.longest_s = max(self.longest_s, body["length_s"])
            milliwh = sum(flow["energy_milliwh"] for name, flow in body["flows"].items() if name.endswith(".import"))
            self.imports.append((body["start_utc_s"], body["length_s"], milliwh))
            if "residual_ug_per_kwh" in body:
                self.residuals[body["start_utc_s"]] = body["residual_ug_per_kwh"]
            self.gaps.add(body)
            self.hours.add(body)
            self.demand.add(body)
            self.sync[body["utc_sync"]] += 1
            if self._each is not None:
                self._each(body, entry.seq)
            yield body


def gather(
    ledger: Ledger,
    start_utc_s: int,
    end_utc_s: int,
    *,
    instruments: list[Instrument] | None = None,
    residual_ug_per_kwh: int | None = None,
    installation: Installation | None = None,
    each: Callable[[PeriodBody, int], None] | None = None,
    each_day: Callable[[SettlementBody], None] | None = None,
    until_seq: int | None = None,
    zone: str = "UTC",
    demand_charge: DemandCharge | None = None,
    version: int = REPORT_VERSION,
) -> tuple[dict[str, Any], Sums, Indicators]:
    """(document, sums, ratios) of the periods that begin in [start, end), read once.

    each : is given each body and its seq.

    installation : what a person declares, as from record.read_installation.
    until_seq : as the ledger stood at that entry, for a report of before. zone : whose days and months it follows.
    demand_charge : what a month's highest demand costs, where a person says it. version : of the
    report that is checked.
    Raises LedgerError if there are none, ValueError for a declaration that cannot be.
    """
    declared = check_installation(dict(installation or {}), "installation")
    charge = None if demand_charge is None else check_charge(demand_charge)
    demand = Demand(WINDOW_S if charge is None else charge["window_s"], zone_of(zone))
    reader = SpanReader(ledger.in_force("period", start_utc_s, end_utc_s, until_seq), demand, each)
    sums = add_up(reader, version > 4)
    demand.close()
    if reader.last is None:
        raise LedgerError(f"no period is booked from {iso(start_utc_s)} to {iso(end_utc_s)}")
    newest = reader.last.body
    compute = Compute()
    for entry in ledger.in_force("job", start_utc_s, end_utc_s, until_seq):
        compute.add(entry.body, entry.seq)
        if entry.seq > reader.last_seq:
            reader.last_seq, reader.root = entry.seq, entry.hash
        if each_day is not None:
            each_day(entry.body)
    rested = Rested()
    for day in ledger.entries("idle", start_utc_s, end_utc_s):
        if until_seq is None or day.seq <= until_seq:
            rested.add(day.body)
            if day.seq > reader.last_seq:
                reader.last_seq, reader.root = day.seq, day.hash
    registers = registers_of(ledger, until_seq)
    for kind in ("reading", "meter"):
        for said in ledger.entries(kind):
            if (until_seq is None or said.seq <= until_seq) and said.seq > reader.last_seq:
                reader.last_seq, reader.root = said.seq, said.hash
    if compute.aside_entries:
        for note in ledger.entries("note"):
            if note.seq in compute.aside_entries:
                compute.noted(note.body)
    methods = [entry for entry in ledger.entries("method") if entry.seq <= reader.last_seq]
    edits = [entry for entry in ledger.entries("edit") if entry.seq <= reader.last_seq]
    method: MethodBody = methods[-1].body if methods else {}
    kinds = method.get("kinds", {})
    grid: Mapping[str, object] = method.get("grid_factor", {})
    for factor in ledger.entries("factor"):
        if methods and methods[-1].seq < factor.seq <= reader.last_seq:
            grid = factor.body["grid"]
    ratios = indicators(sums, kinds)
    missing = (end_utc_s - start_utc_s - sums.covered_s) if sums.covered_s else 0
    chain = {"first_seq": reader.first_seq, "last_seq": reader.last_seq, "root": reader.root}
    edit_rows = [_edit_row(entry) for entry in edits if entry.body["to_utc_s"] >= start_utc_s
                 and entry.body["from_utc_s"] < end_utc_s]  # fmt: skip
    found = indicators_record(ratios, sums, kinds, end_utc_s - start_utc_s, reader.hours, registers, instruments)
    evidence = evidence_record(
        sums,
        method,
        declared,
        scope=SCOPE,
        policy=newest["method"]["policy"],
        longest_s=reader.longest_s,
        span=(start_utc_s, end_utc_s),
        year=int(shown(start_utc_s, "%Y", zone_of(zone))),
        sync=reader.sync,
        gaps=reader.gaps.found,
        edits=edit_rows,
        chain={**chain, "signature": block_over(ledger, reader.last_seq)},
        instruments=instruments or (),
        imports=reader.imports,
        grid=grid,
    )
    document: dict[str, object] = {
        "scope": SCOPE,
        "policy_note": POLICY_NOTE,
        "site": newest["site"],
        "span": {
            "from_utc_s": start_utc_s,
            "to_utc_s": end_utc_s,
            "booked_from_utc_s": sums.start_utc_s,
            "booked_to_utc_s": sums.end_utc_s,
            "periods": sums.periods,
            "not_booked_s": missing,
            "zone": zone,
        },
        "ledger": chain,
        "method": {
            "policy": newest["method"]["policy"],
            "losses": newest["method"]["losses"],
            "storages": method.get("storages", {}),
            "notes": method.get("notes", []),
            "software": method.get("software", ""),
            "changes": len(methods),
        },
        "energy_milliwh": {
            "inflow": _sorted(sums.inflow_milliwh),
            "outflow": _sorted(sums.outflow_milliwh),
            "charge": _sorted(sums.charge_milliwh),
            "discharge": _sorted(sums.discharge_milliwh),
            "storage_loss": _sorted(sums.loss_milliwh),
            "opening": sums.opening_milliwh,
            "closing": sums.closing_milliwh,
            "site": sums.site_milliwh,
        },
        "origins_milliwh": {name: _sorted(row) for name, row in sorted(sums.origins.items())},
        "carbon_ug": {
            "inflow": _sorted(sums.inflow_ug),
            "outflow": _sorted(sums.outflow_ug),
            "charge": _sorted(sums.charge_ug),
            "storage_loss": _sorted(sums.loss_ug),
            "created": sums.created_ug,
            "opening": sums.opening_ug,
            "closing": sums.closing_ug,
            "balance_error": sums.worst_error_ug,
        },
        "scope2": _scope2(reader, sums, instruments, residual_ug_per_kwh),
        "indicators": found,
        "readings": readings_record(registers, ledger, start_utc_s, end_utc_s, until_seq),
        "eu_2024_1364": eu_fields(
            sums, kinds, found, registers, instruments, method.get("storages", {}), declared.get("eu_2024_1364", {})
        ),
        "factors": {
            "import_milliwh_by_status": _sorted(sums.factor_milliwh),
            "sources": _sorted(sums.factor_sources),
            "grid": grid,
        },
        "quality_milliwh": _sorted(sums.quality_milliwh),
        "gaps": reader.gaps.found,
        "edits": edit_rows,
        "flags": _sorted(sums.flags),
        "flag_spans_utc_s": {name: sums.flag_spans[name] for name in sorted(sums.flag_spans)},
        "records": {"taken": sums.records, "lost": sums.lost},
        "given": {
            "instruments": None if instruments is None else [one.row() for one in instruments],
            "residual_ug_per_kwh": residual_ug_per_kwh,
            "installation": declared,
            "demand_charge": charge,
        },
        "evidence": evidence,
        "demand": demand.document(),
        "saved": demand.saved(charge, method.get("currency", "EUR")),
        "compared": compared(ledger, start_utc_s, end_utc_s, zone, demand.window_s, reader.last_seq),
    }
    if sums.consequence:
        document["consequence_ug"] = {"caused_by_charging": sums.caused_ug, "avoided_by_discharging": sums.avoided_ug}
    if sums.priced_milliwh:
        document["price"] = {"currency": method.get("currency", "EUR"), "import_cost_u": sums.cost_u,
                             "priced_milliwh": sums.priced_milliwh}  # fmt: skip
    pairs = [break_even_ppm(row[1], row[2]) for row in method.get("storages", {}).values()]
    moved = shifting(sums, max(pairs)) if pairs else None
    if moved is not None:
        document["shifting"] = moved
    if compute.days:
        it_ug = sums.role_ug(kinds, "it")
        document["compute"] = compute.document(sum(sums.outflow_ug.values()) - sums.export_ug, it_ug, method)
    if rested.days:
        document["rested"] = rested.document()
    document[BEFORE_4] = before_4(sums, declared, evidence["sources"])
    document["sha256"] = published(document)["sha256"]
    return document, sums, ratios


def _edit_row(entry: Entry[EditBody]) -> dict[str, object]:
    return {"seq": entry.seq, **entry.body}


def compare(report: object, known: object, path: str = "report") -> list[str]:
    """Where a report differs from what its ledger gives: the paths of all values that do."""
    if isinstance(report, dict) and isinstance(known, dict):
        rows = []
        for key in sorted({*report, *known}):
            if key not in report or key not in known:
                rows.append(f"{path}.{key}: {'missing' if key not in report else 'not in the ledger'}")
            else:
                rows += compare(report[key], known[key], f"{path}.{key}")
        return rows
    if isinstance(report, list) and isinstance(known, list) and len(report) == len(known):
        return [row for i, pair in enumerate(zip(report, known, strict=True)) for row in compare(*pair, f"{path}[{i}]")]
    if report != known or type(report) is not type(known):
        return [f"{path}: says {report!r:.60}, the ledger says {known!r:.60}"]
    return []


def _sorted(counter: Mapping[str, int]) -> dict[str, int]:
    return {key: counter[key] for key in sorted(counter)}


def _scope2(
    reader: SpanReader, sums: Sums, instruments: list[Instrument] | None, residual: int | None
) -> dict[str, Any]:
    found: dict[str, object] = {
        "location_based_ug": sums.inflow_ug["grid"],
        "import_milliwh": sums.inflow_milliwh["grid"],
        "export_netted": False,
        "market_based": None,
    }
    if instruments is not None and (residual is not None or reader.residuals):
        found["market_based"] = market_based(reader.imports, instruments, residual, reader.residuals)
    return found
