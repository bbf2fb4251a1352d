"""The sections with results: what was used, what it emitted, where it came from."""

from tidegate.runtime.carbon.engine.attribution import THROUGH_STORAGE
from tidegate.runtime.carbon.report.blocks import Block, Cell, Line, Plot, Section, Table, Text, slug
from tidegate.runtime.carbon.report.language import N_
from tidegate.runtime.carbon.report.view import Report

ACCOUNTS = {"average": N_("average factors (inventory)"), "marginal": N_("marginal factors (consequence)")}


def glance(r: Report) -> Section:
    d, _ = r.d, r.text
    rows: list[Line] = [
        (
            Cell(_("energy used by the site")),
            r.number(f"{r.kwh(d['energy_milliwh']['site'])} {_('kWh')}", "formula-site"),
        ),
        (
            Cell(_("Scope 2, location-based")),
            r.number(f"{r.kg(d['scope2']['location_based_ug'])} {_('kg CO2e')}", "scope2"),
        ),
    ]
    ratios = d["indicators"]
    if ratios["it_g_per_kwh"]:
        rows.append(
            (
                Cell(_("carbon of the IT load")),
                r.number(f"{r.language.number(float(ratios['it_g_per_kwh']), 1)} {_('g/kWh')}", "formula-pool"),
            )
        )
    if ratios["renewable_share_direct"]:
        both = float(ratios["renewable_share_direct"]) + float(ratios["renewable_share_through_storage"] or 0)
        rows.append((Cell(_("share of own generation")), r.number(f"{both * 100:.1f} %", "formula-own")))
    if ratios["pue"]:
        kind = f" ({_('interim')})" if ratios["pue_kind"] == "interim" else ""
        rows.append((Cell("PUE"), r.number(ratios["pue"] + kind, "formula-pue")))
    if "price" in d:
        paid = f"{r.money(d['price']['import_cost_u'])} {d['price']['currency']}"
        rows.append((Cell(_("cost of the import")), r.number(paid, "formula-cost")))
    for name, unit in d.get("compute", {}).get("units", {}).items():
        if unit["g_per_unit_with_room"]:
            rows.append(
                (
                    Cell(_("carbon per {unit}").format(unit=r.name(name))),
                    r.number(f"{r.grams(unit['g_per_unit_with_room'])} g CO2e", f"unit-{slug(name)}"),
                )
            )
    gaps = str(len(d["gaps"])) if d["gaps"] else _("none")
    if d["span"]["not_booked_s"]:
        gaps = f"{r.not_booked()}; {_('substituted')}: {gaps}"
    rows.append((Cell(_("Gaps and substituted values")), r.number(gaps, "gaps")))
    return Section("glance", _("At a glance"), [Table((), rows, [""] * len(rows))])


def energy(r: Report) -> Section:
    return Section("energy", r.text("Energy by flow"), [Plot("energy")])


def carbon(r: Report) -> Section:
    d, _ = r.d, r.text
    e, c = d["energy_milliwh"], d["carbon_ug"]
    rows: list[Line] = []
    ids: list[str] = []
    for name, milliwh in e["inflow"].items():
        ug = c["inflow"].get(name, 0)
        factor = "factors" if name in ("grid",) else "formulas"
        rows.append(
            (
                Cell(f"{r.name(name)} →"),
                r.number(r.kwh(milliwh), r.inflow_id(name)),
                r.number(r.kg(ug), factor),
                r.number(r.g_per_kwh(ug, milliwh), factor),
            )
        )
        ids.append(f"in-{slug(name)}")
    for name, milliwh in e["outflow"].items():
        ug = c["outflow"][name]
        at = r.origin_id(name)
        rows.append(
            (
                Cell(f"→ {r.name(name)}"),
                r.number(r.kwh(milliwh), r.outflow_id(name)),
                r.number(r.kg(ug), at),
                r.number(r.g_per_kwh(ug, milliwh), at),
            )
        )
        ids.append(f"out-{slug(name)}")
    for name, milliwh in e["charge"].items():
        ug, out = c["charge"].get(name, 0), e["discharge"].get(name, 0)
        rows.append(
            (
                Cell(f"{name}, {_('charged')}"),
                r.number(r.kwh(milliwh), r.flow_id(f"{name}.charge")),
                r.number(r.kg(ug), "formula-pool"),
                r.number(r.g_per_kwh(ug, milliwh), "formula-pool"),
            )
        )
        rows.append(
            (
                Cell(f"{name}, {_('discharged')}"),
                r.number(r.kwh(out), r.flow_id(f"{name}.discharge")),
                Cell(""),
                Cell(""),
            )
        )
        rows.append(
            (
                Cell(f"{name}, {_('declared losses')}"),
                r.number(r.kwh(e["storage_loss"].get(name, 0)), "formula-stock"),
                r.number(r.kg(c["storage_loss"].get(name, 0)), "formula-stock"),
                Cell(""),
            )
        )
        ids += [f"charge-{slug(name)}", f"discharge-{slug(name)}", f"loss-{slug(name)}"]
    rows.append(
        (
            Cell(_("in storage at the start")),
            r.number(r.kwh(e["opening"]), "formula-stock"),
            r.number(r.kg(c["opening"]), "formula-stock"),
            r.number(r.g_per_kwh(c["opening"], e["opening"]), "formula-stock"),
        )
    )
    rows.append(
        (
            Cell(_("in storage at the end")),
            r.number(r.kwh(e["closing"]), "formula-stock"),
            r.number(r.kg(c["closing"]), "formula-stock"),
            r.number(r.g_per_kwh(c["closing"], e["closing"]), "formula-stock"),
        )
    )
    ids += ["stock-opening", "stock-closing"]
    m = d["method"]
    note = (
        f"{r.policy_note} {_('policy')}: {r.name(m['policy'])}; {_('losses')}: {r.name(m['losses'])}. "
        f"{_('Largest error of the carbon balance of any period')}: {c['balance_error']} ug."
    )
    return Section(
        "carbon",
        _("Carbon by flow"),
        [
            Plot("carbon"),
            Table(r.head(_("node"), "#" + _("kWh"), "#" + _("kg CO2e"), "#" + _("g/kWh")), rows, ids),
            Text(note, "note"),
        ],
    )


def over_time(r: Report) -> Section:
    return Section("time", r.text("Energy and grid factor over time"), [Plot("time")])


def origins(r: Report) -> Section:
    _ = r.text
    rows: list[Line] = []
    ids: list[str] = []
    seen: set[str] = set()
    for node, origins in r.d["origins_milliwh"].items():
        for source in sorted({origin.removesuffix(THROUGH_STORAGE) for origin in origins}):
            to = r.inflow_id(source)
            rows.append(
                (
                    Cell(r.name(node)),
                    Cell(r.name(source)),
                    r.number(r.kwh(origins.get(source, 0)), to),
                    r.number(r.kwh(origins.get(source + THROUGH_STORAGE, 0)), "formula-stock"),
                )
            )
            ids.append("" if node in seen else f"origin-{slug(node)}")
            seen.add(node)
    head = r.head(_("node"), _("source"), f"#{_('same period')}, {_('kWh')}", f"#{_('through storage')}, {_('kWh')}")
    return Section(
        "origins",
        _("Where the energy came from"),
        [
            Table(head, rows, ids),
            Text(
                _(
                    "Through storage: taken out of a battery that was charged with it, at the average policy in "
                    "proportion to what it held. Opening stock: in the battery before the account began."
                ),
                "note",
            ),
        ],
    )


def jobs_section(r: Report) -> Section:
    d, _ = r.d["compute"], r.text
    csv = "report.jobs.csv" if "report.jobs.csv" in r.files else "job-nodes"
    blocks: list[Block] = []
    rows: list[Line] = []
    ids: list[str] = []
    for name, unit in d["units"].items():
        amount = r.language.number(unit["amount_milli"] / 1000, 3).rstrip("0").rstrip(".")
        sci = "-" if unit["sci_g_per_unit"] is None else f"{float(unit['sci_g_per_unit']):,.4g}"
        rows.append(
            (
                Cell(r.name(name)),
                r.number(amount, csv),
                r.number(r.kwh(unit["energy_milliwh"]), csv),
                r.number(r.kg(unit["ug"]), csv),
                r.number(r.grams(unit["g_per_unit"]), csv),
                r.number(r.grams(unit["g_per_unit_with_room"]), "formula-room"),
                r.number(sci, "formula-sci"),
            )
        )
        ids.append(f"unit-{slug(name)}")
    head = r.head(
        _("unit"),
        "#" + _("amount"),
        "#" + _("kWh"),
        "#" + _("kg CO2e"),
        "#" + _("g per unit"),
        "#" + _("with the room"),
        "#SCI, g",
    )
    jobs = r.language.plural("{n} job", "{n} jobs", d["jobs"])
    days = r.language.plural("{n} settled day", "{n} settled days", d["days"])
    blocks.append(Text(f"{_('{jobs} in {days}.').format(jobs=jobs, days=days)} {_(d['note'])}", "note"))
    blocks.append(Table(head, rows, ids))
    rows, ids = [], []
    for name, node in d["nodes"].items():
        shown = _("by reserved time") if node["coverage"] is None else f"{float(node['coverage']) * 100:.1f} %"
        jobs_milliwh = node["metered_milliwh"] - node["idle_milliwh"] - node["unplaced_milliwh"]
        rows.append(
            (
                Cell(r.name(name)),
                r.number(r.kwh(node["metered_milliwh"]), r.outflow_id(name)),
                r.number(r.kwh(jobs_milliwh), csv),
                r.number(r.kwh(node["idle_milliwh"]), "idle"),
                r.number(r.kwh(node["unplaced_milliwh"]), "set-aside" if d["set_aside_count"] else csv),
                r.number("-" if node["software_milliwh"] is None else r.kwh(node["software_milliwh"]), csv),
                r.number(shown, "formula-coverage"),
            )
        )
        ids.append(f"job-node-{slug(name)}")
    head = r.head(
        _("node"),
        "#" + _("metered, kWh"),
        "#" + _("jobs, kWh"),
        "#" + _("idle, kWh"),
        "#" + _("unplaced, kWh"),
        "#" + _("software says, kWh"),
        "#" + _("coverage"),
    )
    blocks += [Text(_("Whose the metered energy is"), "head", "job-nodes"), Table(head, rows, ids)]
    rows = [
        (Cell(owner or _("(none)")), r.number(r.kwh(row["energy_milliwh"]), csv), r.number(r.kg(row["ug"]), csv))
        for owner, row in d["owners"].items()
    ]
    head = r.head(_("owner"), "#" + _("kWh"), "#" + _("kg CO2e"))
    blocks += [Text(_("By owner"), "head"), Table(head, rows, [""] * len(rows), print_rows=20)]
    rows = [(Cell(job), r.number(r.kwh(milliwh), csv), r.number(r.kg(ug), csv)) for job, milliwh, ug in d["top"][:10]]
    blocks += [
        Text(_("The ten jobs with the most carbon"), "head"),
        Table(r.head(_("job"), "#" + _("kWh"), "#" + _("kg CO2e")), rows, [""] * len(rows)),
    ]
    if d["set_aside_count"]:
        more = d["set_aside_count"] - len(d["set_aside"])
        blocks.append(Text(f"{_('Set aside, not counted')}: {d['set_aside_count']}", "head", "set-aside"))
        blocks += [Text(r.said(text), "list") for text in d["set_aside"]]
        if more > 0:
            blocks.append(Text(r.more(more), "note"))
    if d["reconciled"]:
        blocks.append(Text(_("Against what was settled before"), "head", "reconciled"))
        blocks += [Text(r.said(text), "list") for text in d["reconciled"]]
        if d["reconciled_count"] > len(d["reconciled"]):
            blocks.append(Text(r.more(d["reconciled_count"] - len(d["reconciled"])), "note"))
    if d["sources"]:
        blocks.append(
            Text(
                f"{_('Job logs')}: "
                + "; ".join(f"{s['name']} (sha256 {s['sha256'][:16]}…)" for s in d["sources"][:20]),
                "note",
            )
        )
    return Section("jobs", _("Carbon of the computation"), blocks)


def idle(r: Report) -> Section:
    d, _ = r.d["compute"], r.text
    csv = "report.idle.csv" if "report.idle.csv" in r.files else "job-nodes"
    cost = f"{r.money(d['idle_cost_u'])} {d['currency']}" if "price" in r.d else _("no price given")
    whole = d["jobs_milliwh"] + d["idle_milliwh"] + d["unplaced_milliwh"]
    part = f"{d['idle_milliwh'] / whole * 100:.1f} %" if whole else "-"
    rows: list[Line] = [
        (Cell(_("idle energy")), r.number(f"{r.kwh(d['idle_milliwh'])} {_('kWh')}", csv)),
        (Cell(_("of the metered IT energy")), r.number(part, "formula-idle")),
        (Cell(_("idle carbon")), r.number(f"{r.kg(d['idle_ug'])} {_('kg CO2e')}", csv)),
        (Cell(_("idle cost")), r.number(cost, csv)),
    ]
    return Section(
        "idle",
        _("Drawn while no useful work ran"),
        [
            Table((), rows, [""] * 4),
            Plot("idle"),
            Text(_("By hour of the day, UTC. A node is idle while none of its jobs runs."), "note"),
        ],
    )


def shifting(r: Report) -> Section:
    d, _ = r.d, r.text
    blocks: list[Block] = []
    if "shifting" in d:
        rows: list[Line] = []
        ids: list[str] = []
        for key in ("average", "marginal"):
            row = d["shifting"].get(key)
            if row is None:
                continue
            ratio = "-" if row["ratio_ppm"] is None else f"{row['ratio_ppm'] / 1e6:.4f}"
            shown = "-" if row["above_break_even"] is None else _("yes") if row["above_break_even"] else _("no")
            rows.append(
                (
                    Cell(_(ACCOUNTS[key])),
                    r.number(r.language.number(row["at_charge_ug_per_kwh"] / 1e6, 1), "factors"),
                    r.number(r.language.number(row["at_discharge_ug_per_kwh"] / 1e6, 1), "factors"),
                    r.number(ratio, "formula-shift"),
                    Cell(shown),
                )
            )
            ids.append(f"shift-{key}")
        head = r.head(
            _("by"), "#" + _("charging, g/kWh"), "#" + _("discharging, g/kWh"), "#" + _("ratio"), _("above break-even")
        )
        blocks += [
            Text(
                _("Moving energy pays only where the factor at discharge exceeds that at charge by {ratio}.").format(
                    ratio=f"{d['shifting']['break_even_ppm'] / 1e6:.4f}"
                )
            ),
            Table(head, rows, ids),
        ]
    if "consequence_ug" in d:
        rows = [
            (
                Cell(_("caused by charging")),
                r.number(f"{r.kg(d['consequence_ug']['caused_by_charging'])} {_('kg CO2e')}", "factors"),
            ),
            (
                Cell(_("avoided by discharging")),
                r.number(f"{r.kg(d['consequence_ug']['avoided_by_discharging'])} {_('kg CO2e')}", "factors"),
            ),
        ]
        blocks += [Text(_("Consequence, by marginal factors"), "head"), Table((), rows, ["", ""])]
    blocks.append(
        Text(
            _("A ledger of its own with marginal factors; never add it to the account above.")
            if "consequence_ug" in d
            else _("No marginal factors were given: what shifting caused elsewhere is not known."),
            "note",
        )
    )
    return Section("shifting", _("Did moving energy through the battery pay?"), blocks)


def indicators(r: Report) -> Section:
    d, _ = r.d["indicators"], r.text
    known = [
        ("pue", "PUE", "", "formula-pue"),
        ("cue_kg_per_kwh", "CUE", _("kg/kWh"), "formula-cue"),
        ("grid_g_per_kwh", _("mean factor of the import"), _("g/kWh"), "in-grid"),
        ("it_g_per_kwh", _("carbon of the IT load"), _("g/kWh"), "formula-pool"),
        ("renewable_share_direct", f"{_('share of own generation')}, {_('same period')}", "", "formula-own"),
        (
            "renewable_share_through_storage",
            f"{_('share of own generation')}, {_('through storage')}",
            "",
            "formula-own",
        ),
        ("residual_share", _("residual share"), "", "formula-residual"),
    ]
    rows: list[Line] = []
    ids: list[str] = []
    for key, label, unit, to in known:
        note = unit
        if key == "pue":
            notes = [_("interim: a PUE is declared over twelve months")] if d["pue_kind"] == "interim" else []
            notes += [_("IT by difference")] if "difference" in d["pue_category"] else [r.said(d["pue_category"])]
            note = "; ".join(notes)
        shown = d[key] or "-"
        if key.endswith(("share", "share_direct", "share_through_storage")) and d[key]:
            shown = f"{float(d[key]) * 100:.2f} %"
        rows.append((Cell(label), r.number(shown, to), Cell(note)))
        ids.append(f"indicator-{slug(key)}")
    for key, label, unit in (
        ("ref", "REF", ""),
        ("erf", "ERF", ""),
        ("wue_l_per_kwh", "WUE", " L/kWh"),
        ("hourly_matched_share", _("hourly matched share"), ""),
        ("cfe_score", _("24/7 CFE score"), ""),
    ):
        shown = _("not measured") if d[key] is None else f"{d[key]}{unit}"
        rows.append((Cell(label), r.number(shown, "report.indicators.csv"), Cell(_(d["definitions"][key]))))
        ids.append(f"indicator-{slug(key)}")
    missing = "; ".join(r.said(text) for text in d["not_measured"])
    blocks: list[Block] = [Table((), rows, ids)]
    blocks += [Text(_(text), "list") for text in d["warnings"]]
    if missing:
        blocks.append(Text(_("not measured: {list}.").format(list=missing), "note"))
    return Section("indicators", _("Indicators"), blocks)


def scope2(r: Report) -> Section:
    d, _ = r.d["scope2"], r.text
    rows: list[Line] = [
        (Cell(_("location-based")), r.number(f"{r.kg(d['location_based_ug'])} {_('kg CO2e')}", "factors"))
    ]
    market = d["market_based"]
    if market:
        rows += [
            (
                Cell(_("market-based, matched period by period")),
                r.number(f"{r.kg(market['hourly_ug'])} {_('kg CO2e')}", "formula-market"),
            ),
            (
                Cell(_("market-based, netted over the span")),
                r.number(f"{r.kg(market['netted_ug'])} {_('kg CO2e')}", "formula-market"),
            ),
            (
                Cell(_("share of import matched period by period")),
                r.number(str(market["hourly_matched_share"]), "formula-market"),
            ),
        ]
    else:
        rows.append(
            (Cell(_("market-based, matched period by period")), Cell(_("no contractual instruments were given")))
        )
    for key, label in (("hourly_matched_share", _("hourly matched share")), ("cfe_score", _("24/7 CFE score"))):
        if r.d["indicators"][key] is not None:
            rows.append((Cell(label), r.number(r.d["indicators"][key], f"indicator-{key}")))
    return Section("scope2", _("Scope 2"), [Table((), rows, [""] * len(rows)), Text(r.policy_note, "note")])
