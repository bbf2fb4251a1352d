"""The sections on demand and on what the battery changed, with the counterfactual beside each number."""

from tidegate.runtime.carbon.report.blocks import Block, Cell, Line, Plot, Section, Table, Text
from tidegate.runtime.carbon.report.language import N_
from tidegate.runtime.carbon.report.view import Report

WITHOUT = N_(
    "Without the battery: in each period import - export + discharge - charge, at the same price and factor; what is "
    "below 0 is exported and earns nothing here. Loads and generation are taken to be the same."
)


def demand(r: Report) -> Section:
    """The load curve in front, and the highest demand of each month and of the span."""
    found, _ = r.d["demand"], r.text
    stored = r.d["saved"] is not None
    minutes = found["window_s"] // 60
    blocks: list[Block] = [Plot("demand")]
    note = _("Demand: mean import over an aligned window of {minutes} min, as the tariff counts it.").format(
        minutes=minutes
    )
    if found["second_w"] is not None:
        note += " " + _("Highest power of a single second: {kw} kW; it is drawn faint and is not billed.").format(
            kw=r.language.number(found["second_w"] / 1000, 1)
        )
    blocks.append(Text(note, "note"))
    rows: list[Line] = []
    for row in found["peaks"]:
        cells = [Cell(r.day(row["utc_s"], "%Y-%m-%d %H:%M"), r.row_id(row["utc_s"])), _kw(r, row["w"], row["utc_s"])]
        rows.append((*cells, _kw(r, row["without_storage_w"], 0)) if stored else tuple(cells))
    heads = [_("begins"), f"#{_('demand')}, kW", *([f"#{_('without the battery')}, kW"] if stored else [])]
    blocks += [Text(_("The highest demands"), "head", "peaks"), Table(r.head(*heads), rows, [""] * len(rows))]
    if len(found["months"]) > 1:
        rows = [
            (
                Cell(r.day(row["start_utc_s"], "%Y-%m")),
                _kw(r, row["w"], row["utc_s"]),
                Cell(r.day(row["utc_s"], "%m-%d %H:%M")),
                *((_kw(r, row["without_storage_w"], 0),) if stored else ()),
            )
            for row in found["months"]
        ]
        heads = [_("month"), f"#{_('demand')}, kW", _("begins"), *heads[2:]]
        blocks += [Text(_("By month"), "head"), Table(r.head(*heads), rows, [""] * len(rows))]
    return Section("demand", _("Demand"), blocks)


def _kw(r: Report, watts: int, utc_s: int) -> Cell:
    return r.number(r.language.number(watts / 1000, 2), r.row_id(utc_s) if utc_s else "formula-without")


def saved(r: Report) -> Section:
    """What was paid and emitted, what it would have been without the battery, and the difference."""
    found, d, _ = r.d["saved"], r.d, r.text
    currency = found["currency"]
    months = d["demand"]["months"]
    charge = (d["given"]["demand_charge"] or {}).get("u_per_kw")
    actual_w, without_w = sum(row["w"] for row in months), sum(row["without_storage_w"] for row in months)
    rows: list[Line] = [
        _row(r, f"{_('import')}, kWh", found["import_milliwh"] / 1e6, found["without_storage_import_milliwh"] / 1e6, 1),
        _row(r, f"{_('billed demand')}, kW", actual_w / 1000, without_w / 1000, 1),
    ]
    if charge is not None:
        price = charge / 1e9
        rows.append(_row(r, f"{_('demand charge')}, {currency}", actual_w * price, without_w * price, 2))
    if found["energy_change_u"] is not None:
        paid = d["price"]["import_cost_u"] / 1e6
        rows.append(_row(r, f"{_('cost of the import')}, {currency}", paid, paid - found["energy_change_u"] / 1e6, 2))
    emitted = d["scope2"]["location_based_ug"] / 1e9
    rows.append(_row(r, "kg CO2e", emitted, emitted - found["carbon_change_ug"] / 1e9, 3))
    blocks: list[Block] = [
        Table(
            r.head("", "#" + _("as it was"), "#" + _("without the battery"), "#" + _("change")), rows, [""] * len(rows)
        )
    ]
    if charge is None:
        blocks.append(Text(_("No demand charge was given, so lower peaks are not turned into money."), "note"))
    stock = d["energy_milliwh"]["closing"] - d["energy_milliwh"]["opening"]
    blocks.append(
        Text(
            _(
                "What the battery holds changed by {kwh} kWh: what that cost is in the numbers, its use is not yet."
            ).format(kwh=r.signed(stock / 1e6, 1)),
            "note",
        )
    )
    blocks.append(Text(_(WITHOUT), "note"))
    return Section("saved", _("What the battery changed"), blocks)


def _row(r: Report, label: str, actual: float, without: float, digits: int) -> Line:
    return (
        Cell(label),
        r.number(r.language.number(actual, digits), "periods"),
        r.number(r.language.number(without, digits), "formula-without"),
        r.number(r.signed(actual - without, digits), "formula-without"),
    )
