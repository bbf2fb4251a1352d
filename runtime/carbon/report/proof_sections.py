"""The sections that say how the results were made: quality, evidence, methods, rows, ledger."""

from collections.abc import Iterable

from tidegate.runtime.carbon.factors.series import iso
from tidegate.runtime.carbon.report.blocks import Block, Cell, Line, Section, Table, Text, slug
from tidegate.runtime.carbon.report.columns import COLUMNS
from tidegate.runtime.carbon.report.demand_section import WITHOUT
from tidegate.runtime.carbon.report.language import N_
from tidegate.runtime.carbon.report.periods import Row
from tidegate.runtime.carbon.report.view import GAPS_MAX, Report

PRINTED_MAX = 100  # rows of the periods on paper, all or none; the page and the CSV have all
NOT_GIVEN_MAX = 30
STATUSES = {
    "actual": N_("published for that time after the fact"),
    "estimated": N_("the source's own estimate"),
    "forecast": N_("no actual value yet, the forecast counts"),
    "held": N_("missing, the value before counts, two hours at most"),
    "fallback": N_("missing, the fallback of the site file counts"),
    "constant": N_("a constant of the site file"),
}
FORMULAS = {
    "pool": N_(
        "Carbon of a node: in each period everything that came in is one pool; each node takes its "
        "energy times the pool's carbon per kWh. Summed over the periods."
    ),
    "stock": N_(
        "Storage: a stock of energy and of carbon. Charging adds energy times charge efficiency with "
        "the pool's carbon; discharging takes energy over discharge efficiency with its share of the "
        "carbon."
    ),
    "own": N_("Own generation over the energy of all loads: of the same period, and through storage."),
    "residual": N_("Residual: what came in and no meter saw go out, over everything that came in."),
    "market": N_("Market-based: per period the instruments of that period first, the residual mix for the rest."),
    "room": N_("With the room: times the carbon of the whole site over that of its IT load."),
    "sci": N_(
        "SCI (ISO/IEC 21031): carbon with the room plus embodied carbon, per unit; needs embodied_kg "
        "and slots in the site file."
    ),
    "coverage": N_("Coverage: energy that software counted over the metered energy that the jobs got."),
    "idle": N_("Idle share: idle energy over metered energy of the settled days."),
}
ROWS = {"quarter": N_("Period by period"), "day": N_("Day by day"), "month": N_("Month by month")}


def quality(r: Report) -> Section:
    d, _ = r.d, r.text
    rows: list[Line] = [
        (
            Cell(f"{_('Import by status of its factor')}: {r.name(name)}"),
            r.number(f"{r.kwh(milliwh)} {_('kWh')}", f"status-{slug(name)}"),
            r.number(r.part(milliwh, d["factors"]["import_milliwh_by_status"]), f"status-{slug(name)}"),
        )
        for name, milliwh in d["factors"]["import_milliwh_by_status"].items()
    ]
    rows += [
        (
            Cell(f"{_('Energy by quality')}: {r.name(name)}"),
            r.number(f"{r.kwh(milliwh)} {_('kWh')}", "made"),
            r.number(r.part(milliwh, d["quality_milliwh"]), "made"),
        )
        for name, milliwh in d["quality_milliwh"].items()
    ]
    taken = r.language.plural("{n} meter record", "{n} meter records", d["records"]["taken"])
    lost = r.language.plural(
        "{n} lost (shape only, no energy)", "{n} lost (shape only, no energy)", d["records"]["lost"]
    )
    blocks: list[Block] = [Table((), rows, [""] * len(rows)), Text(f"{taken}, {lost}", "note")]
    clean = "" if d["gaps"] or d["span"]["not_booked_s"] else f": {_('none')}"
    blocks.append(Text(_("Gaps and substituted values") + clean, "head", "gaps"))
    if d["span"]["not_booked_s"]:
        blocks.append(Text(r.not_booked(), "note"))
    if d["gaps"]:
        rows, ids = [], []
        for number, gap in enumerate(d["gaps"][:GAPS_MAX]):
            rows.append(
                (
                    Cell(gap["flow"], r.flow_id(gap["flow"])),
                    Cell(iso(gap["start_utc_s"]), r.row_id(gap["start_utc_s"])),
                    Cell(iso(gap["end_utc_s"])),
                    Cell(f"{r.name(gap['quality'])}: {r.said(gap['method'])}"),
                    r.number(r.kwh(gap["energy_milliwh"]), r.row_id(gap["start_utc_s"])),
                    Cell(", ".join(gap["flags"])),
                )
            )
            ids.append(f"gap-{number}")
        head = r.head(_("flow"), _("from"), _("to"), _("method"), "#" + _("kWh"), _("Flags"))
        blocks.append(Table(head, rows, ids, print_rows=40))
        if len(d["gaps"]) > GAPS_MAX:
            blocks.append(Text(r.more(len(d["gaps"]) - GAPS_MAX), "note"))
    if d["flags"]:
        spans = d["flag_spans_utc_s"]
        text = ", ".join(
            f"{name} ({count}; {iso(spans[name][0])} - {iso(spans[name][1])})" for name, count in d["flags"].items()
        )
        blocks.append(Text(f"{_('Flags')}: {text}", "note"))
    blocks += [Text(r.said(note), "list") for note in d["method"]["notes"]]
    if d["edits"]:
        blocks.append(Text(_("Corrections"), "head", "edits"))
        rows = [
            (
                Cell(str(e["seq"]), number=True),
                Cell(e["author"]),
                Cell(e["reason"]),
                Cell(f"{iso(e['from_utc_s'])} - {iso(e['to_utc_s'])}"),
                Cell(str(e["periods"]), number=True),
            )
            for e in d["edits"]
        ]
        head = r.head("#" + _("entries"), _("author"), _("reason"), _("Span"), "#" + _("periods"))
        blocks.append(Table(head, rows, [""] * len(rows), leaf=True))
    blocks += readings(r)
    return Section("quality", _("Quality of the numbers"), blocks)


def readings(r: Report) -> list[Block]:
    """Registers that came by file, beside what was booked for the same flow."""
    _ = r.text
    if not r.d["readings"]:
        return []
    rows: list[Line] = []
    for row in r.d["readings"]:
        unit, own = ("kWh", "L")[row["unit"] == "mL"], row["difference_milliwh"]
        scale = 1e3 if row["unit"] == "mL" else 1e6
        shown = "-" if row["total"] is None else f"{r.language.number(row['total'] / scale, 3)} {unit}"
        rows.append(
            (
                Cell(row["meter"]),
                Cell(row["quantity"]),
                Cell(", ".join(sorted({s["kind"] for s in row["sources"]}))),
                Cell(r.language.number(row["periods"]), number=True),
                Cell(shown, number=True),
                Cell(row["flow"] or "-"),
                Cell("-" if own is None else f"{r.language.number(own / 1e6, 6)} kWh", number=True),
                Cell(row["why"] or ", ".join(row["flags"])),
            )
        )
    head = r.head(
        _("meter"),
        _("quantity"),
        _("source"),
        "#" + _("periods"),
        "#" + _("in the span"),
        _("flow"),
        "#" + _("less what was booked"),
        _("Flags"),
    )
    return [Text(_("Registers read by file"), "head", "readings"), Table(head, rows, [""] * len(rows), leaf=True)]


def evidence(r: Report) -> Section:
    d, _ = r.d["evidence"], r.text
    rows: list[Line] = []
    for row in d["sources"]:
        own = f"in-{slug(row['source'])}" if row["within"] is None else "scope2"
        rows.append(
            (
                Cell(r.name(row["source"])),
                Cell(row["kind"] or "-"),
                r.number(row["mwh"], own),
                r.number(row["same_period_mwh"], "origins"),
                r.number(row["t_co2e"], own),
                r.number(row["ef_t_per_mwh"] or "-", own),
                Cell(r.name(row["ef_method"]) if row["ef_method"] else _("not given")),
            )
        )
    head = r.head(_("source"), _("kind"), "#MWh", "#" + _("same period, MWh"), "#t CO2e", "#t/MWh", _("factor method"))
    blocks: list[Block] = [Table(head, rows, [f"evidence-{slug(row['source'])}" for row in d["sources"]])]
    shifted = d["storage"]["time_shifted_mwh"]
    if shifted:
        text = ", ".join(f"{r.name(name)} {mwh} MWh" for name, mwh in shifted.items())
        blocks.append(Text(f"{_('Moved to another period')}: {text} ({_(d['storage']['note'])})", "note"))
    given = [f"{key}: {value}" for key, value in d["installation"].items() if value is not None]
    blocks += [Text(text, "list") for text in given]
    if d["not_given"]:
        more = len(d["not_given"]) - NOT_GIVEN_MAX
        text = ", ".join(d["not_given"][:NOT_GIVEN_MAX]) + (f"; {r.more(more)}" if more > 0 else "")
        blocks.append(Text(_("not given: {list}.").format(list=text), "note"))
    blocks.append(Text(_("Fields of (EU) 2024/1364"), "head", "eu"))
    eu = r.d["eu_2024_1364"]
    to = {"E_DC": "formula-site", "E_IT": "formula-pue", "E_RES_OS": "origins"}
    rows = [
        (
            Cell(name),
            r.number(f"{row['value']} {row['unit']}".strip(), to.get(name, "report.indicators.csv")),
            Cell(r.said(row["basis"])),
        )
        for name, row in eu["fields"].items()
        if row["value"] is not None
    ]
    blocks.append(Table((), rows, [f"eu-{slug(row[0].text)}" for row in rows]))
    blocks.append(Text(_("not measured: {list}.").format(list=", ".join(eu["not_measured"])), "note"))
    return Section("evidence", _("Same-period electricity evidence record"), blocks)


def made(r: Report) -> Section:
    """How each flow's number was made, the factors, and the formulas."""
    d, _ = r.d, r.text
    rows: list[tuple[Cell, ...]] = []
    ids = []
    for flow in r.rows.flows:
        for number, (quality, method, count, milliwh) in enumerate(r.rows.of_flow(flow)):
            gaps = r.gap_ids.get(flow, [])
            mine = gaps[0] if quality != "good" and gaps else None
            note = Cell(_("gap"), f"gap-{mine}") if mine is not None else Cell("")
            rows.append(
                (
                    Cell(flow if number == 0 else ""),
                    Cell(r.name(quality)),
                    Cell(r.said(method)),
                    r.number(r.language.number(count), "periods"),
                    r.number(r.kwh(milliwh), "report.csv"),
                    note,
                )
            )
            ids.append(f"flow-{slug(flow)}" if number == 0 else "")
    head = r.head(_("flow"), _("quality"), _("method"), "#" + _("periods"), "#" + _("kWh"), "")
    blocks: list[Block] = [
        Text(
            _(
                "One row a flow, quality and method. Each period of each flow and node is a row of report.csv, and "
                "an entry of the ledger."
            ),
            "note",
        ),
        Table(head, rows, ids),
    ]
    rows = [
        (Cell(r.name(name)), r.number(r.kwh(milliwh), "report.csv"), Cell(_(STATUSES.get(name, name))))
        for name, milliwh in d["factors"]["import_milliwh_by_status"].items()
    ]
    blocks += [
        Text(_("Factors"), "head", "factors"),
        Table(
            r.head(_("status"), f"#{_('Import by status of its factor')}, {_('kWh')}", _("meaning")),
            rows,
            [f"status-{slug(name)}" for name in d["factors"]["import_milliwh_by_status"]],
        ),
    ]
    digest = d["factors"]["grid"].get("sha256")
    for name, count in d["factors"]["sources"].items():
        text = f", sha256 {digest}" if digest and name == d["factors"]["grid"].get("source") else ""
        blocks.append(Text(f"{name}: {r.language.plural('{n} period', '{n} periods', count)}{text}", "list"))
    blocks += [Text(r.said(note), "list") for note in d["factors"]["grid"].get("notes", ())[:40]]
    blocks.append(Text(_("Formulas"), "head", "formulas"))
    blocks += [Text(text, "list", f"formula-{key}") for key, text in _formulas(r)]
    return Section("made", _("How each number was made"), blocks)


def _formulas(r: Report) -> Iterable[tuple[str, str]]:
    d, _ = r.d, r.text
    e = d["energy_milliwh"]
    it, site = d["eu_2024_1364"]["fields"]["E_IT"]["value"], e["site"]
    came = " + ".join(f"{r.name(name)} {r.kwh(milliwh)}" for name, milliwh in e["inflow"].items())
    export = e["outflow"].get("export", 0)
    held = (
        f"({_('in storage at the end')} {r.kwh(e['closing'])} - {_('in storage at the start')} {r.kwh(e['opening'])})"
    )
    yield "site", f"E_DC = {came} - {r.name('export')} {r.kwh(export)} - {held} = {r.kwh(site)} {_('kWh')}"
    yield "pue", f"PUE = E_DC / E_IT = {r.kwh(site)} / {r.language.number(float(it), 3)} {_('kWh')}"
    out = sum(d["carbon_ug"]["outflow"].values()) + sum(d["carbon_ug"]["storage_loss"].values())
    out -= d["carbon_ug"]["outflow"].get("export", 0)
    yield "cue", f"CUE = {r.kg(out)} {_('kg CO2e')} / {r.language.number(float(it), 3)} {_('kWh')}"
    for key in ("pool", "stock", "own", "residual", "market"):
        yield key, _(FORMULAS[key])
    if d["saved"] is not None:
        yield "without", _(WITHOUT)
    if "price" in d:
        yield "cost", f"{_('cost of the import')}: {_('import of each period times its price.')}"
    if "shifting" in d:
        yield (
            "shift",
            _(
                "Ratio: mean grid factor while discharging over that while charging, each weighted by the energy "
                "moved. Break-even: 1 / (charge efficiency x discharge efficiency)."
            ),
        )
    if "compute" in d:
        for key in ("room", "sci", "coverage", "idle"):
            yield key, _(FORMULAS[key])


def periods(r: Report) -> Section:
    _ = r.text
    form = {"quarter": "%H:%M", "day": "%Y-%m-%d", "month": "%Y-%m"}[r.rows.kind]
    several = (
        r.rows.kind == "quarter" and r.rows.rows and (r.rows.rows[-1].start_utc_s - r.rows.rows[0].start_utc_s > 86_400)
    )
    rows: list[Line] = [_period_row(r, row, "%m-%d %H:%M" if several else form) for row in r.rows.rows]
    ids = [f"p-{row.start_utc_s}" for row in r.rows.rows]
    head = r.head(r.d["span"]["zone"], *(f"#{_(column.heading)}" for column in COLUMNS), "#" + _("entries"), _("note"))
    return Section(
        "periods",
        _(ROWS[r.rows.kind]),
        [
            Text(
                _(
                    "Energy in kWh, factor in g/kWh, carbon of the loads in kg CO2e, then the ledger entries. "
                    "Residual: positive went out unmetered, negative came in."
                ),
                "note",
            ),
            Table(head, rows, ids, leaf=True, print_rows=PRINTED_MAX if len(rows) <= PRINTED_MAX else 0),
        ],
    )


def _period_row(r: Report, row: Row, form: str) -> tuple[Cell, ...]:
    strange = sorted(row.statuses - {"actual"})
    note = ", ".join(r.name(status) for status in strange)
    gap = next(
        (
            number
            for flow in sorted(row.marked)
            for number in r.gap_ids.get(flow, ())
            if r.d["gaps"][number]["start_utc_s"] < row.end_utc_s and r.d["gaps"][number]["end_utc_s"] > row.start_utc_s
        ),
        None,
    )
    if gap is not None:
        marked = r.language.plural("{n} substituted flow", "{n} substituted flows", len(row.marked))
        note = f"{note}, {marked}" if note else marked
    seqs = str(row.first_seq) if row.first_seq == row.last_seq else f"{row.first_seq}-{row.last_seq}"
    status = f"status-{slug(sorted(row.statuses)[0])}" if row.statuses else "factors"
    return (
        Cell(r.day(row.start_utc_s, form)),
        *(
            Cell(r.written(column, row.values[place]), status if column.per else "", True)
            for place, column in enumerate(COLUMNS)
        ),
        Cell(seqs, number=True),
        Cell(note, f"gap-{gap}" if gap is not None else ""),
    )


def ledger(r: Report) -> Section:
    d, _ = r.d, r.text
    return Section(
        "ledger",
        _("Ledger"),
        [
            Text(f"{_('entries')} {d['ledger']['first_seq']}-{d['ledger']['last_seq']}"),
            Text(f"{_('root hash')}: {d['ledger']['root']}", "code"),
            Text(f"{_('digest of these numbers')}: {d['sha256']}", "code"),
            Text(_("Check: tidegate carbon verify LEDGER --report report.json"), "note"),
            Text(f"tidegate {d['method']['software']}", "note"),
        ],
    )
