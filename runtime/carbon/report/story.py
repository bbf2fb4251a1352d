"""What happened, in five sentences: energy, carbon, demand, own generation, and what the battery changed."""

from collections.abc import Mapping

from tidegate.runtime.carbon.report.blocks import Block, Section, Text
from tidegate.runtime.carbon.report.language import N_
from tidegate.runtime.carbon.report.view import Report

WHEN = {
    "day": (N_("on the day before"), N_("on that day of last year")),
    "month": (N_("in the month before"), N_("in that month of last year")),
    "year": (N_("in the year before"), N_("in the year before")),
    "span": (N_("in as much time before"), N_("at that time of last year")),
}
ABOUT_PPM = 5_000  # a change of less is none


def story(r: Report) -> list[str]:
    """Five sentences, whole ones, in the language of the report."""
    return [_energy(r), _carbon(r), _demand(r), _own(r), _battery(r)]


def section(r: Report) -> Section:
    """The sentences as a section."""
    blocks: list[Block] = [Text(sentence) for sentence in story(r)]
    return Section("story", r.text("What happened"), blocks)


def _against(r: Report, value: float, key: str, hours: bool) -> str:
    """The value beside those of before. hours : means over the time that is booked are compared, and not sums."""
    found, _ = r.d["compared"], r.text
    own = value / max(1, r.booked_s) if hours else value
    if found["before"] is None and found["year_before"] is None:
        return _("too little of the time before is booked to compare")
    said = []
    whens = WHEN[found["kind"]]
    for name, when in zip(("before", "year_before"), whens, strict=True):
        row = found[name]
        if name == "year_before" and found["kind"] == "year":
            continue  # the same year
        if row is None:
            said.append(_("{when} too little is booked to compare").format(when=_(when)))
            continue
        other = row[key] / row["booked_s"] if hours else float(row[key])
        said.append(_change(r, own, other, _(when)))
    return "; ".join(said)


def _change(r: Report, own: float, other: float, when: str) -> str:
    _ = r.text
    if other <= 0:
        return _("{when} it was 0").format(when=when)
    change = own / other - 1
    if abs(change) * 1e6 < ABOUT_PPM:
        return _("as much as {when}").format(when=when)
    percent = r.language.number(abs(change) * 100, 1)
    text = _("{percent} % more than {when}") if change > 0 else _("{percent} % less than {when}")
    return text.format(percent=percent, when=when)


def _energy(r: Report) -> str:
    used = sum(milliwh for name, milliwh in r.d["energy_milliwh"]["outflow"].items() if name != "export")
    mean = r.language.number(used * 3.6 / max(1, r.booked_s) / 1000, 1)
    return r.text("The site used {kwh} kWh, {kw} kW on average: {compared}.").format(
        kwh=r.language.number(used / 1e6), kw=mean, compared=_against(r, used, "used_milliwh", True)
    )


def _carbon(r: Report) -> str:
    ug, imported = r.d["scope2"]["location_based_ug"], r.d["scope2"]["import_milliwh"]
    if not imported:
        return r.text("Nothing was imported from the grid, so no emissions of the grid are counted.")
    return r.text("What came from the grid emitted {kg} kg CO2e, {g} g/kWh: {compared}.").format(
        kg=r.language.number(ug / 1e9, 1), g=r.g_per_kwh(ug, imported),
        compared=_against(r, ug, "location_based_ug", True),
    )  # fmt: skip


def _demand(r: Report) -> str:
    found = r.d["demand"]
    top: Mapping[str, int] = max(found["months"], key=lambda month: month["w"], default={})
    if not top or not top["w"]:
        return r.text("There was no demand from the grid.")
    return r.text("The highest demand over {minutes} min was {kw} kW, at {time}: {compared}.").format(
        minutes=found["window_s"] // 60, kw=r.language.number(top["w"] / 1000, 1),
        time=r.day(top["utc_s"], "%Y-%m-%d %H:%M"), compared=_against(r, top["w"], "peak_w", False),
    )  # fmt: skip


def _own(r: Report) -> str:
    ratios, _ = r.d["indicators"], r.text
    direct, stored = (float(ratios[f"renewable_share_{way}"] or 0) * 100 for way in ("direct", "through_storage"))
    pue = ratios["pue"]
    if not direct and not stored:
        return _("No own renewable generation reached the loads; PUE: {pue}.").format(pue=pue or _("not measured"))
    return _(
        "Own generation covered {direct} % of the loads at once and {stored} % through storage; PUE: {pue}."
    ).format(direct=r.language.number(direct, 1), stored=r.language.number(stored, 1), pue=pue or _("not measured"))


def _battery(r: Report) -> str:
    saved, _ = r.d["saved"], r.text
    if saved is None:
        return _("No storage is part of this account.")
    currency = saved["currency"]
    kw = f"{r.signed(saved['demand_change_w'] / 1000, 1)} kW"
    if saved["demand_change_u"] is None:
        demand = _("{kw} of billed demand (no demand charge was given)").format(kw=kw)
    else:
        money = f"{r.signed(saved['demand_change_u'] / 1e6, 2)} {currency}"
        demand = _("{money} of demand charge ({kw})").format(money=money, kw=kw)
    if saved["energy_change_u"] is None:
        energy = _("energy without a price")
    else:
        energy = _("{money} for energy").format(money=f"{r.signed(saved['energy_change_u'] / 1e6, 2)} {currency}")
    return _("Against the same site without its battery: {demand}, {energy}, {kg} kg CO2e.").format(
        demand=demand, energy=energy, kg=r.signed(saved["carbon_change_ug"] / 1e9, 1)
    )
