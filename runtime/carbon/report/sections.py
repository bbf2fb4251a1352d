"""What a report says, as sections of text, tables and plots: one source for the page and for print.

A cell that holds a number names the row that it comes from: every number leads to its periods, factors and gaps.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tidegate.runtime.carbon.engine.attribution import THROUGH_STORAGE
from tidegate.runtime.carbon.factors.series import iso
from tidegate.runtime.carbon.report.periods import Row, Rows
from tidegate.runtime.carbon.report.translations import DEFINITIONS_ZH, NAMES, POLICY_ZH, SCOPE_ZH, SENTENCES_ZH, WORDS

GAPS_MAX = 200
PRINTED_MAX = 100  # rows of the periods on paper, all or none; the page and the CSV have all
NOT_GIVEN_MAX = 30


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table. to : id of the row, or name of the file, that it comes from."""

    text: str
    to: str = ""
    number: bool = False


Line = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """head, rows and an id for each row ("" = none). leaf : its numbers come from the ledger or a file directly."""

    head: Line
    rows: Sequence[Line]
    ids: list[str]
    leaf: bool = False
    print_rows: int = 1000


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph. kind : p, note, list or code."""

    text: str
    kind: str = "p"
    id: str = ""


@dataclass(frozen=True, slots=True)
class Plot:
    name: str


@dataclass(slots=True)
class Section:
    id: str
    title: str
    blocks: list[Table | Text | Plot] = field(default_factory=list)


def slug(text: str) -> str:
    """A text as part of an id."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)


def kwh(milliwh: int) -> str:
    return f"{milliwh / 1e6:,.3f}"


def kg(ug: int) -> str:
    return f"{ug / 1e9:,.3f}"


def g_per_kwh(ug: int, milliwh: int) -> str:
    return f"{ug / milliwh:,.1f}" if milliwh else ""


def money(u: int) -> str:
    return f"{u / 1e6:,.2f}"


def day_of(utc_s: int, form: str) -> str:
    return datetime.fromtimestamp(utc_s, UTC).strftime(form)


class Report:
    """The sections of one document in one language."""

    def __init__(self, document: Mapping[str, Any], rows: Rows, language: str, files: Sequence[str] = ()) -> None:
        self.d = document
        self.rows = rows
        self.language = language
        self.w = WORDS[language]
        self.files = files
        self.flows = {name for name in rows.flows}
        zh = language == "zh"
        self.scope = SCOPE_ZH if zh else document["scope"]
        self.policy_note = POLICY_ZH if zh else document["policy_note"]
        self._gap_ids = self._gaps_by_flow()

    def name(self, node: str) -> str:
        """A node, an origin or a word of the ledger as its reader calls it."""
        stem = node.removesuffix(THROUGH_STORAGE)
        return NAMES[self.language].get(stem, stem)

    def say(self, text: str) -> str:
        """A fixed sentence of the document in the report's language."""
        return SENTENCES_ZH.get(text, text) if self.language == "zh" else text

    # ---- small parts ----

    def _head(self, *texts: str) -> tuple[Cell, ...]:
        return tuple(Cell(text.lstrip("#"), number=text.startswith("#")) for text in texts)

    def _n(self, text: str, to: str) -> Cell:
        return Cell(text, "" if text == "-" else to, True)

    def _flow_id(self, name: str) -> str:
        """Where a flow's number comes from: its own row, or, without a meter, the list of formulas."""
        return f"flow-{slug(name)}" if name in self.flows else "formulas"

    def _inflow_id(self, node: str) -> str:
        for kind in ("import", "generation"):
            if f"{node}.{kind}" in self.flows:
                return self._flow_id(f"{node}.{kind}")
        return "formulas"

    def _outflow_id(self, node: str) -> str:
        flow = "grid.export" if node == "export" else f"{node}.load"
        return self._flow_id(flow)

    def _origin_id(self, node: str) -> str:
        return f"origin-{slug(node)}" if self.d["origins_milliwh"].get(node) else "formulas"

    def _gaps_by_flow(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for number, gap in enumerate(self.d["gaps"][:GAPS_MAX]):
            found.setdefault(gap["flow"], []).append(number)
        return found

    # ---- sections ----

    def sections(self) -> list[Section]:
        made = [self.glance(), self.energy(), self.carbon(), self.over_time(), self.origins()]
        if "compute" in self.d:
            made += [self.jobs(), self.idle()]
        if "shifting" in self.d or "consequence_ug" in self.d:
            made.append(self.shifting())
        made += [self.indicators(), self.scope2(), self.quality(), self.evidence(), self.made(), self.periods(),
                 self.ledger()]  # fmt: skip
        return made

    def glance(self) -> Section:
        d, w = self.d, self.w
        rows: list[Line] = [
            (Cell(w["site_energy"]), self._n(f"{kwh(d['energy_milliwh']['site'])} {w['kwh']}", "formula-site")),
            (Cell(w["glance_scope2"]), self._n(f"{kg(d['scope2']['location_based_ug'])} {w['kg']}", "scope2")),
        ]
        ratios = d["indicators"]
        if ratios["it_g_per_kwh"]:
            rows.append(
                (
                    Cell(w["it_intensity"]),
                    self._n(f"{float(ratios['it_g_per_kwh']):,.1f} {w['intensity']}", "formula-pool"),
                )
            )
        if ratios["renewable_share_direct"]:
            both = float(ratios["renewable_share_direct"]) + float(ratios["renewable_share_through_storage"] or 0)
            rows.append((Cell(w["own_share"]), self._n(f"{both * 100:.1f} %", "formula-own")))
        if ratios["pue"]:
            kind = f" ({w['interim_word']})" if ratios["pue_kind"] == "interim" else ""
            rows.append((Cell("PUE"), self._n(ratios["pue"] + kind, "formula-pue")))
        if "price" in d:
            paid = f"{money(d['price']['import_cost_u'])} {d['price']['currency']}"
            rows.append((Cell(w["import_cost"]), self._n(paid, "formula-cost")))
        for name, unit in d.get("compute", {}).get("units", {}).items():
            if unit["g_per_unit_with_room"]:
                rows.append((Cell(f"{w['per']} {self.name(name)}"),
                             self._n(f"{_g(unit['g_per_unit_with_room'])} g CO2e", f"unit-{slug(name)}")))  # fmt: skip
        gaps = str(len(d["gaps"])) if d["gaps"] else w["none"]
        rows.append((Cell(w["gaps"]), self._n(gaps, "gaps")))
        return Section("glance", w["glance"], [Table((), rows, [""] * len(rows))])

    def energy(self) -> Section:
        return Section("energy", self.w["energy_flow"], [Plot("energy")])

    def carbon(self) -> Section:
        d, w = self.d, self.w
        e, c = d["energy_milliwh"], d["carbon_ug"]
        rows: list[Line] = []
        ids: list[str] = []
        for name, milliwh in e["inflow"].items():
            ug = c["inflow"].get(name, 0)
            factor = "factors" if name in ("grid",) else "formulas"
            rows.append((Cell(f"{self.name(name)} →"), self._n(kwh(milliwh), self._inflow_id(name)),
                         self._n(kg(ug), factor), self._n(g_per_kwh(ug, milliwh), factor)))  # fmt: skip
            ids.append(f"in-{slug(name)}")
        for name, milliwh in e["outflow"].items():
            ug = c["outflow"][name]
            at = self._origin_id(name)
            rows.append((Cell(f"→ {self.name(name)}"), self._n(kwh(milliwh), self._outflow_id(name)),
                         self._n(kg(ug), at), self._n(g_per_kwh(ug, milliwh), at)))  # fmt: skip
            ids.append(f"out-{slug(name)}")
        for name, milliwh in e["charge"].items():
            ug, out = c["charge"].get(name, 0), e["discharge"].get(name, 0)
            rows.append((Cell(f"{name}, {w['charged']}"), self._n(kwh(milliwh), self._flow_id(f"{name}.charge")),
                         self._n(kg(ug), "formula-pool"), self._n(g_per_kwh(ug, milliwh), "formula-pool")))  # fmt: skip
            rows.append((Cell(f"{name}, {w['discharged']}"), self._n(kwh(out), self._flow_id(f"{name}.discharge")),
                         Cell(""), Cell("")))  # fmt: skip
            rows.append((Cell(f"{name}, {w['loss']}"),
                         self._n(kwh(e["storage_loss"].get(name, 0)), "formula-stock"),
                         self._n(kg(c["storage_loss"].get(name, 0)), "formula-stock"), Cell("")))  # fmt: skip
            ids += [f"charge-{slug(name)}", f"discharge-{slug(name)}", f"loss-{slug(name)}"]
        rows.append((Cell(w["stock_open"]), self._n(kwh(e["opening"]), "formula-stock"),
                     self._n(kg(c["opening"]), "formula-stock"),
                     self._n(g_per_kwh(c["opening"], e["opening"]), "formula-stock")))  # fmt: skip
        rows.append((Cell(w["stock_close"]), self._n(kwh(e["closing"]), "formula-stock"),
                     self._n(kg(c["closing"]), "formula-stock"),
                     self._n(g_per_kwh(c["closing"], e["closing"]), "formula-stock")))  # fmt: skip
        ids += ["stock-opening", "stock-closing"]
        m = d["method"]
        note = (f"{self.policy_note} {w['policy']}: {self.name(m['policy'])}; {w['losses']}: {self.name(m['losses'])}. "
                f"{w['balance']}: {c['balance_error']} ug.")  # fmt: skip
        return Section("carbon", w["carbon_flow"], [
            Plot("carbon"),
            Table(self._head(w["node"], "#" + w["kwh"], "#" + w["kg"], "#" + w["intensity"]), rows, ids),
            Text(note, "note"),
        ])  # fmt: skip

    def over_time(self) -> Section:
        return Section("time", self.w["over_time"], [Plot("time")])

    def origins(self) -> Section:
        w = self.w
        rows: list[Line] = []
        ids: list[str] = []
        seen: set[str] = set()
        for node, origins in self.d["origins_milliwh"].items():
            for source in sorted({origin.removesuffix(THROUGH_STORAGE) for origin in origins}):
                to = self._inflow_id(source)
                rows.append((
                    Cell(self.name(node)), Cell(self.name(source)), self._n(kwh(origins.get(source, 0)), to),
                    self._n(kwh(origins.get(source + THROUGH_STORAGE, 0)), "formula-stock"),
                ))  # fmt: skip
                ids.append("" if node in seen else f"origin-{slug(node)}")
                seen.add(node)
        head = self._head(w["node"], w["source"], f"#{w['direct']}, {w['kwh']}", f"#{w['stored']}, {w['kwh']}")
        return Section("origins", w["origins"], [Table(head, rows, ids), Text(w["origins_note"], "note")])

    def jobs(self) -> Section:
        d, w = self.d["compute"], self.w
        csv = "report.jobs.csv" if "report.jobs.csv" in self.files else "job-nodes"
        blocks: list[Table | Text | Plot] = []
        rows: list[Line] = []
        ids: list[str] = []
        for name, unit in d["units"].items():
            amount = f"{unit['amount_milli'] / 1000:,.3f}".rstrip("0").rstrip(".")
            sci = "-" if unit["sci_g_per_unit"] is None else f"{float(unit['sci_g_per_unit']):,.4g}"
            rows.append((
                Cell(self.name(name)), self._n(amount, csv), self._n(kwh(unit["energy_milliwh"]), csv),
                self._n(kg(unit["ug"]), csv),
                self._n(_g(unit["g_per_unit"]), csv), self._n(_g(unit["g_per_unit_with_room"]), "formula-room"),
                self._n(sci, "formula-sci"),
            ))  # fmt: skip
            ids.append(f"unit-{slug(name)}")
        head = self._head(w["unit"], "#" + w["amount"], "#" + w["kwh"], "#" + w["kg"], "#" + w["g_unit"],
                          "#" + w["g_unit_room"], "#SCI, g")  # fmt: skip
        blocks.append(
            Text(f"{d['jobs']:,} {w['jobs_in']} {d['days']} {w['days_settled']} {self.say(d['note'])}", "note")
        )
        blocks.append(Table(head, rows, ids))
        rows, ids = [], []
        for name, node in d["nodes"].items():
            said = w["by_time"] if node["coverage"] is None else f"{float(node['coverage']) * 100:.1f} %"
            jobs_milliwh = node["metered_milliwh"] - node["idle_milliwh"]
            rows.append((
                Cell(self.name(name)), self._n(kwh(node["metered_milliwh"]), self._outflow_id(name)),
                self._n(kwh(jobs_milliwh), csv), self._n(kwh(node["idle_milliwh"]), "idle"),
                self._n("-" if node["software_milliwh"] is None else kwh(node["software_milliwh"]), csv),
                self._n(said, "formula-coverage"),
            ))  # fmt: skip
            ids.append(f"job-node-{slug(name)}")
        head = self._head(w["node"], "#" + w["metered"], "#" + w["by_jobs"], "#" + w["idle_word"], "#" + w["software"],
                          "#" + w["coverage"])  # fmt: skip
        blocks += [Text(w["coverage_title"], "head", "job-nodes"), Table(head, rows, ids)]
        rows = [(Cell(owner or w["no_owner"]), self._n(kwh(row["energy_milliwh"]), csv), self._n(kg(row["ug"]), csv))
                for owner, row in d["owners"].items()]  # fmt: skip
        head = self._head(w["owner"], "#" + w["kwh"], "#" + w["kg"])
        blocks += [Text(w["owners"], "head"), Table(head, rows, [""] * len(rows), print_rows=20)]
        rows = [(Cell(job), self._n(kwh(milliwh), csv), self._n(kg(ug), csv)) for job, milliwh, ug in d["top"][:10]]
        blocks += [Text(w["top_jobs"], "head"),
                   Table(self._head(w["job"], "#" + w["kwh"], "#" + w["kg"]), rows, [""] * len(rows))]  # fmt: skip
        if d["set_aside_count"]:
            more = d["set_aside_count"] - len(d["set_aside"])
            blocks.append(Text(f"{w['set_aside']}: {d['set_aside_count']}", "head", "set-aside"))
            blocks += [Text(text, "list") for text in d["set_aside"]]
            if more > 0:
                blocks.append(Text(f"{more} {w['more']}", "note"))
        if d["sources"]:
            blocks.append(Text(f"{w['job_logs']}: " + "; ".join(
                f"{s['name']} (sha256 {s['sha256'][:16]}…)" for s in d["sources"][:20]), "note"))  # fmt: skip
        return Section("jobs", w["jobs"], blocks)

    def idle(self) -> Section:
        d, w = self.d["compute"], self.w
        csv = "report.idle.csv" if "report.idle.csv" in self.files else "job-nodes"
        cost = f"{money(d['idle_cost_u'])} {d['currency']}" if "price" in self.d else w["no_price"]
        whole = d["jobs_milliwh"] + d["idle_milliwh"]
        part = f"{d['idle_milliwh'] / whole * 100:.1f} %" if whole else "-"
        rows: list[Line] = [(Cell(w["idle_energy"]), self._n(f"{kwh(d['idle_milliwh'])} {w['kwh']}", csv)),
                (Cell(w["idle_part"]), self._n(part, "formula-idle")),
                (Cell(w["idle_carbon"]), self._n(f"{kg(d['idle_ug'])} {w['kg']}", csv)),
                (Cell(w["idle_cost"]), self._n(cost, csv))]  # fmt: skip
        return Section("idle", w["idle"], [Table((), rows, [""] * 4), Plot("idle"), Text(w["idle_note"], "note")])

    def shifting(self) -> Section:
        d, w = self.d, self.w
        blocks: list[Table | Text | Plot] = []
        if "shifting" in d:
            rows: list[Line] = []
            ids: list[str] = []
            for key in ("average", "marginal"):
                row = d["shifting"].get(key)
                if row is None:
                    continue
                ratio = "-" if row["ratio_ppm"] is None else f"{row['ratio_ppm'] / 1e6:.4f}"
                said = "-" if row["above_break_even"] is None else w["yes"] if row["above_break_even"] else w["no"]
                rows.append((
                    Cell(w[f"by_{key}"]), self._n(f"{row['at_charge_ug_per_kwh'] / 1e6:,.1f}", "factors"),
                    self._n(f"{row['at_discharge_ug_per_kwh'] / 1e6:,.1f}", "factors"), self._n(ratio, "formula-shift"),
                    Cell(said),
                ))  # fmt: skip
                ids.append(f"shift-{key}")
            head = self._head(w["account"], "#" + w["at_charge"], "#" + w["at_discharge"], "#" + w["ratio"], w["paid"])
            blocks += [Text(f"{w['break_even']} {d['shifting']['break_even_ppm'] / 1e6:.4f}{w['stop']}"),
                       Table(head, rows, ids)]  # fmt: skip
        if "consequence_ug" in d:
            rows = [(Cell(w["caused"]),
                     self._n(f"{kg(d['consequence_ug']['caused_by_charging'])} {w['kg']}", "factors")),
                    (Cell(w["avoided"]),
                     self._n(f"{kg(d['consequence_ug']['avoided_by_discharging'])} {w['kg']}", "factors"))]  # fmt: skip
            blocks += [Text(w["consequence"], "head"), Table((), rows, ["", ""])]
        blocks.append(Text(w["consequence_note"] if "consequence_ug" in d else w["no_marginal"], "note"))
        return Section("shifting", w["shifting"], blocks)

    def indicators(self) -> Section:
        d, w = self.d["indicators"], self.w
        known = [
            ("pue", "PUE", "", "formula-pue"), ("cue_kg_per_kwh", "CUE", w["kg_kwh"], "formula-cue"),
            ("grid_g_per_kwh", w["grid_mean"], w["intensity"], "in-grid"),
            ("it_g_per_kwh", w["it_intensity"], w["intensity"], "formula-pool"),
            ("renewable_share_direct", f"{w['own_share']}, {w['direct']}", "", "formula-own"),
            ("renewable_share_through_storage", f"{w['own_share']}, {w['stored']}", "", "formula-own"),
            ("residual_share", w["residual"], "", "formula-residual"),
        ]  # fmt: skip
        rows: list[Line] = []
        ids: list[str] = []
        for key, label, unit, to in known:
            note = unit
            if key == "pue":
                said = [w["interim"]] if d["pue_kind"] == "interim" else []
                said += [w["by_difference"]] if "difference" in d["pue_category"] else [self.say(d["pue_category"])]
                note = "; ".join(said)
            shown = d[key] or "-"
            if key.endswith(("share", "share_direct", "share_through_storage")) and d[key]:
                shown = f"{float(d[key]) * 100:.2f} %"
            rows.append((Cell(label), self._n(shown, to), Cell(note)))
            ids.append(f"indicator-{slug(key)}")
        definitions = {**d["definitions"], **(DEFINITIONS_ZH if self.language == "zh" else {})}
        for key, label, unit in (("ref", "REF", ""), ("erf", "ERF", ""), ("wue_l_per_kwh", "WUE", " L/kWh"),
                                 ("hourly_matched_share", w["hourly_match"], ""), ("cfe_score", w["cfe"], ""),
                                 ):  # fmt: skip
            shown = w["not_measured"] if d[key] is None else f"{d[key]}{unit}"
            rows.append((Cell(label), self._n(shown, "report.indicators.csv"), Cell(definitions[key])))
            ids.append(f"indicator-{slug(key)}")
        missing = "; ".join(self.say(text) for text in d["not_measured"])
        blocks: list[Table | Text | Plot] = [Table((), rows, ids)]
        blocks += [Text(self.say(text), "list") for text in d["warnings"]]
        if missing:
            blocks.append(Text(f"{w['not_measured']}: {missing}{w['stop']}", "note"))
        return Section("indicators", w["indicators"], blocks)

    def scope2(self) -> Section:
        d, w = self.d["scope2"], self.w
        rows: list[Line] = [(Cell(w["location"]), self._n(f"{kg(d['location_based_ug'])} {w['kg']}", "factors"))]
        market = d["market_based"]
        if market:
            rows += [(Cell(w["market"]), self._n(f"{kg(market['hourly_ug'])} {w['kg']}", "formula-market")),
                     (Cell(w["netted"]), self._n(f"{kg(market['netted_ug'])} {w['kg']}", "formula-market")),
                     (Cell(w["matched"]), self._n(str(market["hourly_matched_share"]), "formula-market"))]  # fmt: skip
        else:
            rows.append((Cell(w["market"]), Cell(w["no_instruments"])))
        for key, label in (("hourly_matched_share", w["hourly_match"]), ("cfe_score", w["cfe"])):
            if self.d["indicators"][key] is not None:
                rows.append((Cell(label), self._n(self.d["indicators"][key], f"indicator-{key}")))
        return Section("scope2", w["scope2"], [Table((), rows, [""] * len(rows)), Text(self.policy_note, "note")])

    def quality(self) -> Section:
        d, w = self.d, self.w
        rows: list[Line] = [(Cell(f"{w['by_status']}: {self.name(name)}"),
                 self._n(f"{kwh(milliwh)} {w['kwh']}", f"status-{slug(name)}"),
                 self._n(_part(milliwh, d["factors"]["import_milliwh_by_status"]), f"status-{slug(name)}"))
                for name, milliwh in d["factors"]["import_milliwh_by_status"].items()]  # fmt: skip
        rows += [
            (
                Cell(f"{w['by_quality']}: {self.name(name)}"),
                self._n(f"{kwh(milliwh)} {w['kwh']}", "made"),
                self._n(_part(milliwh, d["quality_milliwh"]), "made"),
            )
            for name, milliwh in d["quality_milliwh"].items()
        ]
        lost = f"{d['records']['taken']:,} {w['records']}, {d['records']['lost']:,} {w['lost']}"
        blocks: list[Table | Text | Plot] = [Table((), rows, [""] * len(rows)), Text(lost, "note")]
        blocks.append(Text(w["gaps"] + ("" if d["gaps"] else f": {w['none']}"), "head", "gaps"))
        if d["gaps"]:
            rows, ids = [], []
            for number, gap in enumerate(d["gaps"][:GAPS_MAX]):
                rows.append(
                    (
                        Cell(gap["flow"], self._flow_id(gap["flow"])),
                        Cell(iso(gap["start_utc_s"]), self._row_id(gap["start_utc_s"])),
                        Cell(iso(gap["end_utc_s"])),
                        Cell(f"{self.name(gap['quality'])}: {self.say(gap['method'])}"),
                        self._n(kwh(gap["energy_milliwh"]), self._row_id(gap["start_utc_s"])),
                        Cell(", ".join(gap["flags"])),
                    )
                )
                ids.append(f"gap-{number}")
            head = self._head(w["flow"], w["from"], w["to"], w["method"], "#" + w["kwh"], w["flags"])
            blocks.append(Table(head, rows, ids, print_rows=40))
            if len(d["gaps"]) > GAPS_MAX:
                blocks.append(Text(f"{len(d['gaps']) - GAPS_MAX} {w['more']}", "note"))
        if d["flags"]:
            spans = d["flag_spans_utc_s"]
            said = ", ".join(f"{name} ({count}; {iso(spans[name][0])} - {iso(spans[name][1])})"
                             for name, count in d["flags"].items())  # fmt: skip
            blocks.append(Text(f"{w['flags']}: {said}", "note"))
        blocks += [Text(self.say(note), "list") for note in d["method"]["notes"]]
        if d["edits"]:
            blocks.append(Text(w["edits"], "head", "edits"))
            rows = [(Cell(str(e["seq"]), number=True), Cell(e["author"]), Cell(e["reason"]),
                     Cell(f"{iso(e['from_utc_s'])} - {iso(e['to_utc_s'])}"), Cell(str(e["periods"]), number=True))
                    for e in d["edits"]]  # fmt: skip
            head = self._head("#" + w["entries"], w["author"], w["reason"], w["span"], "#" + w["periods_word"])
            blocks.append(Table(head, rows, [""] * len(rows), leaf=True))
        blocks += self.readings()
        return Section("quality", w["quality"], blocks)

    def readings(self) -> list[Table | Text | Plot]:
        """Registers that came by file, beside what was booked for the same flow."""
        w = self.w
        if not self.d["readings"]:
            return []
        rows: list[Line] = []
        for row in self.d["readings"]:
            unit, own = ("kWh", "L")[row["unit"] == "mL"], row["difference_milliwh"]
            shown = f"{row['total'] / (1e3 if row['unit'] == 'mL' else 1e6):,.3f} {unit}"
            rows.append((
                Cell(row["meter"]), Cell(row["quantity"]), Cell(", ".join(sorted({s["kind"] for s in row["sources"]}))),
                Cell(f"{row['periods']:,}", number=True), Cell(shown, number=True), Cell(row["flow"] or "-"),
                Cell("-" if own is None else f"{own / 1e6:,.6f} kWh", number=True), Cell(", ".join(row["flags"])),
            ))  # fmt: skip
        head = self._head(w["meter"], w["quantity"], w["source"], "#" + w["periods_word"], "#" + w["read_total"],
                          w["flow"], "#" + w["read_less_booked"], w["flags"])  # fmt: skip
        return [Text(w["readings"], "head", "readings"), Table(head, rows, [""] * len(rows), leaf=True)]

    def _row_id(self, utc_s: int) -> str:
        start = self.rows.row_at(utc_s)
        return "periods" if start is None else f"p-{start}"

    def evidence(self) -> Section:
        d, w = self.d["evidence"], self.w
        rows: list[Line] = []
        for row in d["sources"]:
            own = f"in-{slug(row['source'])}" if row["within"] is None else "scope2"
            rows.append((
                Cell(self.name(row["source"])), Cell(row["kind"] or "-"), self._n(row["mwh"], own),
                self._n(row["same_period_mwh"], "origins"), self._n(row["t_co2e"], own),
                self._n(row["ef_t_per_mwh"] or "-", own), Cell(row["ef_method"] or w["not_given"]),
            ))  # fmt: skip
        head = self._head(w["source"], w["kind"], "#MWh", "#" + w["same_period"], "#t CO2e", "#t/MWh", w["ef_method"])
        blocks: list[Table | Text | Plot] = [Table(head, rows, [f"evidence-{slug(r['source'])}" for r in d["sources"]])]
        shifted = d["storage"]["time_shifted_mwh"]
        if shifted:
            said = ", ".join(f"{self.name(name)} {mwh} MWh" for name, mwh in shifted.items())
            blocks.append(Text(f"{w['shifted']}: {said} ({self.say(d['storage']['note'])})", "note"))
        given = [f"{key}: {value}" for key, value in d["installation"].items() if value is not None]
        blocks += [Text(text, "list") for text in given]
        if d["not_given"]:
            more = len(d["not_given"]) - NOT_GIVEN_MAX
            said = ", ".join(d["not_given"][:NOT_GIVEN_MAX]) + (f"; {more} {w['more']}" if more > 0 else "")
            blocks.append(Text(f"{w['not_given']}: {said}{w['stop']}", "note"))
        blocks.append(Text(w["eu"], "head", "eu"))
        eu = self.d["eu_2024_1364"]
        to = {"E_DC": "formula-site", "E_IT": "formula-pue", "E_RES_OS": "origins"}
        rows = [
            (Cell(name), self._n(f"{row['value']} {row['unit']}".strip(), to.get(name, "report.indicators.csv")),
             Cell(row["basis"])) for name, row in eu["fields"].items() if row["value"] is not None
        ]  # fmt: skip
        blocks.append(Table((), rows, [f"eu-{slug(row[0].text)}" for row in rows]))
        blocks.append(Text(f"{w['not_measured']}: {', '.join(eu['not_measured'])}{w['stop']}", "note"))
        return Section("evidence", w["evidence"], blocks)

    def made(self) -> Section:
        """How each flow's number was made, the factors, and the formulas."""
        d, w = self.d, self.w
        rows: list[tuple[Cell, ...]] = []
        ids = []
        for flow in self.rows.flows:
            for number, (quality, method, count, milliwh) in enumerate(self.rows.of_flow(flow)):
                gaps = self._gap_ids.get(flow, [])
                mine = gaps[0] if quality != "good" and gaps else None
                note = Cell(w["see_gap"], f"gap-{mine}") if mine is not None else Cell("")
                rows.append((Cell(flow if number == 0 else ""), Cell(self.name(quality)), Cell(self.say(method)),
                             self._n(f"{count:,}", "periods"), self._n(kwh(milliwh), "report.csv"), note))  # fmt: skip
                ids.append(f"flow-{slug(flow)}" if number == 0 else "")
        head = self._head(w["flow"], w["quality_word"], w["method"], "#" + w["periods_word"], "#" + w["kwh"], "")
        blocks: list[Table | Text | Plot] = [Text(w["made_note"], "note"), Table(head, rows, ids)]
        rows = [(Cell(self.name(name)), self._n(kwh(milliwh), "report.csv"), Cell(w[f"status_{name}"]))
                for name, milliwh in d["factors"]["import_milliwh_by_status"].items()]  # fmt: skip
        blocks += [Text(w["factors"], "head", "factors"),
                   Table(self._head(w["status"], f"#{w['by_status']}, {w['kwh']}", w["meaning"]), rows,
                         [f"status-{slug(name)}" for name in d["factors"]["import_milliwh_by_status"]])]  # fmt: skip
        digest = d["factors"]["grid"].get("sha256")
        for name, count in d["factors"]["sources"].items():
            said = f", sha256 {digest}" if digest and name == d["factors"]["grid"].get("source") else ""
            blocks.append(Text(f"{name}: {count:,} {w['periods_word']}{said}", "list"))
        blocks += [Text(self.say(note), "list") for note in d["factors"]["grid"].get("notes", ())[:40]]
        blocks.append(Text(w["formulas"], "head", "formulas"))
        blocks += [Text(text, "list", f"formula-{key}") for key, text in self._formulas()]
        return Section("made", w["made"], blocks)

    def _formulas(self) -> Iterable[tuple[str, str]]:
        d, w = self.d, self.w
        e = d["energy_milliwh"]
        it, site = d["eu_2024_1364"]["fields"]["E_IT"]["value"], e["site"]
        came = " + ".join(f"{self.name(name)} {kwh(milliwh)}" for name, milliwh in e["inflow"].items())
        export = e["outflow"].get("export", 0)
        held = f"({w['stock_close']} {kwh(e['closing'])} - {w['stock_open']} {kwh(e['opening'])})"
        yield "site", f"E_DC = {came} - {self.name('export')} {kwh(export)} - {held} = {kwh(site)} {w['kwh']}"
        yield "pue", f"PUE = E_DC / E_IT = {kwh(site)} / {float(it):,.3f} {w['kwh']}"
        out = sum(d["carbon_ug"]["outflow"].values()) + sum(d["carbon_ug"]["storage_loss"].values())
        out -= d["carbon_ug"]["outflow"].get("export", 0)
        yield "cue", f"CUE = {kg(out)} {w['kg']} / {float(it):,.3f} {w['kwh']}"
        for key in ("pool", "stock", "own", "residual", "market"):
            yield key, w[f"formula_{key}"]
        if "price" in d:
            yield "cost", f"{w['import_cost']}: {w['formula_cost']}"
        if "shifting" in d:
            yield "shift", w["formula_shift"]
        if "compute" in d:
            for key in ("room", "sci", "coverage", "idle"):
                yield key, w[f"formula_{key}"]

    def periods(self) -> Section:
        w = self.w
        form = {"quarter": "%H:%M", "day": "%Y-%m-%d", "month": "%Y-%m"}[self.rows.kind]
        several = (
            self.rows.kind == "quarter"
            and self.rows.rows
            and (self.rows.rows[-1].start_utc_s - self.rows.rows[0].start_utc_s > 86_400)
        )
        rows: list[Line] = [self._period_row(row, "%m-%d %H:%M" if several else form) for row in self.rows.rows]
        ids = [f"p-{row.start_utc_s}" for row in self.rows.rows]
        head = self._head("UTC", *(f"#{w[key]}" for key in (
            "p_import", "p_own", "p_out", "p_in", "p_export", "p_loads", "p_residual", "p_factor", "p_carbon")),
            "#" + w["entries"], w["p_note"])  # fmt: skip
        return Section("periods", w[f"periods_{self.rows.kind}"], [
            Text(w["periods_note"], "note"),
            Table(head, rows, ids, leaf=True, print_rows=PRINTED_MAX if len(rows) <= PRINTED_MAX else 0),
        ])  # fmt: skip

    def _period_row(self, row: Row, form: str) -> tuple[Cell, ...]:
        numbers = (
            row.import_milliwh,
            row.generation_milliwh,
            row.discharge_milliwh,
            row.charge_milliwh,
            row.export_milliwh,
            row.load_milliwh,
            row.residual_milliwh,
        )
        strange = sorted(row.statuses - {"actual"})
        note = ", ".join(self.name(status) for status in strange)
        gap = next((number for flow in sorted(row.marked) for number in self._gap_ids.get(flow, ())
                    if self.d["gaps"][number]["start_utc_s"] < row.end_utc_s
                    and self.d["gaps"][number]["end_utc_s"] > row.start_utc_s), None)  # fmt: skip
        if gap is not None:
            note = f"{note}{', ' if note else ''}{w_marked(self.w, len(row.marked))}"
        seqs = str(row.first_seq) if row.first_seq == row.last_seq else f"{row.first_seq}-{row.last_seq}"
        status = f"status-{slug(sorted(row.statuses)[0])}" if row.statuses else "factors"
        return (
            Cell(day_of(row.start_utc_s, form)),
            *(Cell(f"{milliwh / 1e6:,.3f}", number=True) for milliwh in numbers),
            Cell(g_per_kwh(row.grid_ug, row.import_milliwh), status, True),
            Cell(f"{row.load_ug / 1e9:,.3f}", number=True),
            Cell(seqs, number=True),
            Cell(note, f"gap-{gap}" if gap is not None else ""),
        )

    def ledger(self) -> Section:
        d, w = self.d, self.w
        return Section("ledger", w["ledger"], [
            Text(f"{w['entries']} {d['ledger']['first_seq']}-{d['ledger']['last_seq']}"),
            Text(f"{w['root']}: {d['ledger']['root']}", "code"), Text(f"{w['digest']}: {d['sha256']}", "code"),
            Text(w["check"], "note"), Text(f"tidegate {d['method']['software']}", "note"),
        ])  # fmt: skip


def w_marked(words: Mapping[str, str], count: int) -> str:
    return f"{words['marked']} {count}"


def _g(text: str | None) -> str:
    return "-" if text is None else f"{float(text):,.3f}"


def _part(milliwh: int, of: Mapping[str, int]) -> str:
    whole = sum(of.values())
    return f"{milliwh / whole * 100:.1f} %" if whole else "-"
