"""Sums over ledger bodies: energy and carbon by node, indicators, the shares of measured and bridged numbers.

A ratio is a ratio of sums, never a mean of ratios. Everything is whole numbers until the last step.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.runtime.carbon.engine.attribution import RESIDUAL, THROUGH_STORAGE, TRUE_UP, UNMETERED
from tidegate.runtime.carbon.integers import MILLIWH_PER_KWH, carbon_ug
from tidegate.runtime.carbon.ledger.bodies import CHARGE_BOOKED, FlowRow, PeriodBody, period_error_ug

DAY_S = 86_400  # a true-up comes at each midnight
FOREIGN = (RESIDUAL, CHARGE_BOOKED)


HALF = MILLIWH_PER_KWH // 2


@dataclass(slots=True)
class Sums:
    """What a span of periods adds up to. mWh and ug."""

    start_utc_s: int = 0
    end_utc_s: int = 0
    periods: int = 0
    covered_s: int = 0
    records: int = 0
    lost: int = 0
    inflow_milliwh: Counter[str] = field(default_factory=Counter)
    inflow_ug: Counter[str] = field(default_factory=Counter)
    outflow_milliwh: Counter[str] = field(default_factory=Counter)
    outflow_ug: Counter[str] = field(default_factory=Counter)
    outflow_kind: dict[str, str] = field(default_factory=dict)
    origins: dict[str, Counter[str]] = field(default_factory=dict)  # outflow -> origin -> mWh
    charge_milliwh: Counter[str] = field(default_factory=Counter)
    charge_ug: Counter[str] = field(default_factory=Counter)
    discharge_milliwh: Counter[str] = field(default_factory=Counter)
    loss_milliwh: Counter[str] = field(default_factory=Counter)
    loss_ug: Counter[str] = field(default_factory=Counter)
    created_ug: int = 0
    opening_milliwh: int = 0
    opening_ug: int = 0
    closing_milliwh: int = 0
    closing_ug: int = 0
    true_up_before_milliwh: int = 0  # of the true-ups, what belongs to the time before the span
    quality_milliwh: Counter[str] = field(default_factory=Counter)
    factor_milliwh: Counter[str] = field(default_factory=Counter)  # import by status of its factor
    factor_sources: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    flag_spans: dict[str, list[int]] = field(default_factory=dict)  # start of the first and end of the last period
    generation: set[str] = field(default_factory=set)
    by_difference: set[str] = field(default_factory=set)  # loads that no meter counts
    balance_error_ug: int = 0
    worst_error_ug: int = 0  # largest error of any one period
    avoided_ug: int = 0  # consequence ledger
    caused_ug: int = 0
    consequence: bool = False
    priced_milliwh: int = 0  # import that has a price
    cost_u: int = 0  # of it, millionths of the currency
    # What loads used: at the source's factor in the same period; through storage, at the grid's there.
    same_period_milliwh: Counter[str] = field(default_factory=Counter)
    same_period_ug: Counter[str] = field(default_factory=Counter)
    shifted_milliwh: Counter[str] = field(default_factory=Counter)
    shifted_ug: Counter[str] = field(default_factory=Counter)
    charge_grid_ug: int = 0  # energy charged, times the grid's average factor at that time
    discharge_grid_ug: int = 0

    @property
    def site_milliwh(self) -> int:
        """E_DC: what the site used. Storage inside the boundary counts with its loss only.

        A daily true-up corrects the book of the day before it: of that, a span takes the part that lies in it.
        """
        came = sum(self.inflow_milliwh.values())
        export = sum(milliwh for name, milliwh in self.outflow_milliwh.items() if self.outflow_kind[name] == "export")
        return came - export - (self.closing_milliwh - self.opening_milliwh - self.true_up_before_milliwh)

    @property
    def export_ug(self) -> int:
        return sum(ug for name, ug in self.outflow_ug.items() if self.outflow_kind[name] == "export")

    def role_milliwh(self, kinds: Mapping[str, str], role: str) -> int:
        return sum(milliwh for name, milliwh in self.outflow_milliwh.items() if kinds.get(name) == role)

    def role_ug(self, kinds: Mapping[str, str], role: str) -> int:
        return sum(ug for name, ug in self.outflow_ug.items() if kinds.get(name) == role)


def add_up(bodies: Iterable[PeriodBody], true_up_by_time: bool = True) -> Sums:
    """Sum period bodies in time order. Checks every period's carbon again, from the numbers in the ledger.

    true_up_by_time : a true-up belongs evenly to the day before it; reports of before took all of it.
    """
    sums = Sums()
    first = True
    for body in bodies:
        if first:
            sums.start_utc_s = body["start_utc_s"]
            sums.opening_milliwh = sum(stock["opening_milliwh"] for stock in body["stock"].values())
            sums.opening_ug = sum(stock["opening_ug"] for stock in body["stock"].values())
            first = False
        sums.end_utc_s = body["start_utc_s"] + body["length_s"]
        sums.periods += 1
        sums.covered_s += body["length_s"]
        sums.records += body["records"]
        sums.lost += body["lost"]
        by_difference = body.get("by_difference")
        if by_difference:
            sums.by_difference.add(by_difference)
        _flows(sums, body)
        _carbon(sums, body)
        before_s = DAY_S - (sums.end_utc_s - sums.start_utc_s)
        if true_up_by_time and before_s > 0:
            for flag in body["flags"]:
                if flag.startswith(f"{TRUE_UP} "):
                    sums.true_up_before_milliwh += int(flag.rpartition(" ")[2]) * before_s // DAY_S
    return sums


def _add(counter: Counter[str], name: str, value: int) -> None:
    # Counter's own += looks the name up twice and calls __missing__; a year has ten million of these.
    counter[name] = counter.get(name, 0) + value


def _energy(flows: Mapping[str, FlowRow], name: str) -> int:
    return flows[name]["energy_milliwh"] if name in flows else 0


def _flag(sums: Sums, name: str, body: PeriodBody) -> None:
    start, end = body["start_utc_s"], body["start_utc_s"] + body["length_s"]
    sums.flags[name] += 1
    sums.flag_spans.setdefault(name, [start, end])[1] = end


def _flows(sums: Sums, body: PeriodBody) -> None:
    flows = body["flows"]
    for name, flow in flows.items():
        node, _, kind = name.partition(".")
        milliwh = flow["energy_milliwh"]
        _add(sums.quality_milliwh, flow["quality"], milliwh)
        for flag in flow["flags"]:
            _flag(sums, f"{name}: {flag.split()[0]}", body)
        if kind == "load":
            continue
        if kind in ("import", "generation"):
            _add(sums.inflow_milliwh, node, milliwh)
            if kind == "generation":
                sums.generation.add(node)
        elif kind == "charge":
            _add(sums.charge_milliwh, node, milliwh)
        elif kind == "discharge":
            _add(sums.discharge_milliwh, node, milliwh)
    grid = body["factors"].get("grid")
    price = body.get("price_u_per_kwh")
    if price is not None:
        imported = _energy(flows, "grid.import")
        sums.priced_milliwh += imported
        sums.cost_u += price * imported // 1_000_000
    if grid is not None:
        for name in body["stock"]:
            for kind, counter in (("charge", "charge_grid_ug"), ("discharge", "discharge_grid_ug")):
                moved = flows.get(f"{name}.{kind}")
                if moved is not None and moved["energy_milliwh"]:
                    ug = carbon_ug(moved["energy_milliwh"], grid["ug_per_kwh"])
                    setattr(sums, counter, getattr(sums, counter) + ug)
    for flag in body["flags"]:
        # Which flow it names is a part of this one; what follows the others is a number.
        _flag(sums, flag if flag.startswith("REVERSED_SIGN") else flag.split()[0], body)
    if body["residual_milliwh"] < 0:
        _add(sums.inflow_milliwh, UNMETERED, -body["residual_milliwh"])
    for node, found in body["factors"].items():
        if node not in sums.generation:
            _add(sums.factor_milliwh, found["status"], _energy(flows, f"{node}.import"))
            sums.factor_sources[found["source"]] += 1


def _carbon(sums: Sums, body: PeriodBody) -> None:
    kinds, milliwhs, ugs, all_origins = sums.outflow_kind, sums.outflow_milliwh, sums.outflow_ug, sums.origins
    used: dict[str, list[int]] = {}  # origin -> mWh, ug, factor of what loads used of it in this period
    for out in body["outflows"]:
        name, kind = out["name"], out["kind"]
        if kind == "charge" and name != CHARGE_BOOKED:
            _add(sums.charge_ug, name, out["ug"])
            continue
        if name not in kinds:
            kinds[name], milliwhs[name], ugs[name], all_origins[name] = kind, 0, 0, Counter()
        milliwhs[name] += out["energy_milliwh"] if name != CHARGE_BOOKED else 0
        ugs[name] += out["ug"]
        by_origin = all_origins[name]
        if kind != "load" or name == CHARGE_BOOKED:
            for origin, milliwh in out["origins"].items():
                by_origin[origin] = by_origin.get(origin, 0) + milliwh
            continue
        for origin, milliwh in out["origins"].items():
            by_origin[origin] = by_origin.get(origin, 0) + milliwh
            row = used.get(origin)
            if row is None:
                row = used[origin] = [0, 0, _factor_of(body, origin)]
            # carbon_ug, in place: a year of 64 racks has ten million of these
            quotient, rest = divmod(milliwh * row[2], MILLIWH_PER_KWH)
            row[0] += milliwh
            row[1] += quotient + (1 if rest > HALF or (rest == HALF and quotient & 1) else 0)
    for origin, (milliwh, ug, _) in used.items():
        if origin.endswith(THROUGH_STORAGE):
            name = origin.removesuffix(THROUGH_STORAGE)
            _add(sums.shifted_milliwh, name, milliwh)
            _add(sums.shifted_ug, name, ug)
        else:
            _add(sums.same_period_milliwh, origin, milliwh)
            _add(sums.same_period_ug, origin, ug)
    for name, ug in body["inflow_ug"].items():
        _add(sums.inflow_ug, name, ug)
    for name, milliwh in body["loss_milliwh"].items():
        _add(sums.loss_milliwh, name, milliwh)
    for name, ug in body["loss_ug"].items():
        _add(sums.loss_ug, name, ug)
    sums.created_ug += body["created_ug"]
    error = period_error_ug(body)
    sums.balance_error_ug += error
    sums.worst_error_ug = max(sums.worst_error_ug, abs(error))
    sums.closing_milliwh = sum(stock["energy_milliwh"] for stock in body["stock"].values())
    sums.closing_ug = sum(stock["ug"] for stock in body["stock"].values())
    consequence = body.get("consequence")
    if consequence:
        sums.consequence = True
        sums.avoided_ug += consequence["avoided_ug"]
        sums.caused_ug += consequence["charge_ug"]


def _factor_of(body: PeriodBody, origin: str) -> int:
    """What a load's energy of a source weighs, ug/kWh: the source's factor in this period, the grid's where it came
    through storage."""
    factors = body["factors"]
    unknown: int = body["method"].get("unknown_ug_per_kwh", 0)
    name = "grid" if origin.endswith(THROUGH_STORAGE) else origin
    return factors[name]["ug_per_kwh"] if name in factors else unknown


@dataclass(frozen=True, slots=True)
class Indicators:
    """Ratios of a span; None where the denominator is 0."""

    pue: float | None  # interim unless the span is a whole year
    cue_kg_per_kwh: float | None
    grid_g_per_kwh: float | None  # import carbon over import energy
    it_g_per_kwh: float | None
    renewable_direct: float | None  # share of the loads' energy from own renewable generation in the same period
    renewable_stored: float | None  # ... that came through storage
    residual_share: float | None


def renewable_nodes(sums: Sums, kinds: Mapping[str, str]) -> frozenset[str]:
    """Own sources that burn nothing; a generator is a source and not one of them."""
    return frozenset(name for name in sums.generation if kinds.get(name) != "generator")


def indicators(sums: Sums, kinds: Mapping[str, str]) -> Indicators:
    """Ratios of sums. kinds : node -> role (it, cooling, ...)."""
    it = sums.role_milliwh(kinds, "it")
    loads = sum(milliwh for name, milliwh in sums.outflow_milliwh.items() if sums.outflow_kind[name] == "load")
    direct = stored = 0
    renewable = renewable_nodes(sums, kinds)
    for name, origins in sums.origins.items():
        if sums.outflow_kind[name] != "load":
            continue
        for origin, milliwh in origins.items():
            if origin in renewable:
                direct += milliwh
            elif origin.removesuffix(THROUGH_STORAGE) in renewable:
                stored += milliwh
    came = sum(sums.inflow_milliwh.values()) + sum(sums.discharge_milliwh.values())
    imported = sums.inflow_milliwh["grid"]
    # mWh and ug: 1 ug/mWh is 1 g/kWh.
    total_ug = sum(sums.outflow_ug.values()) - sums.export_ug + sum(sums.loss_ug.values())
    return Indicators(
        _ratio(sums.site_milliwh, it),
        _ratio(total_ug, it * 1000),
        _ratio(sums.inflow_ug["grid"], imported),
        _ratio(sums.role_ug(kinds, "it"), it),
        _ratio(direct, loads),
        _ratio(stored, loads),
        _ratio(sums.outflow_milliwh[RESIDUAL], came),
    )


def shifting(sums: Sums, break_even_ppm: int) -> dict[str, Any] | None:
    """What moving energy through the batteries had to beat, and what it met; None if nothing was moved both ways.

    break_even_ppm : 1 / round trip. By average factors and, where they are known, by marginal ones: how far the factor
    while discharging exceeded that while charging, each weighted by the energy moved.
    """
    charged, discharged = sum(sums.charge_milliwh.values()), sum(sums.discharge_milliwh.values())
    if not charged or not discharged:
        return None
    found: dict[str, object] = {"break_even_ppm": break_even_ppm}
    rows = [("average", sums.charge_grid_ug, sums.discharge_grid_ug)]
    if sums.consequence:
        rows.append(("marginal", sums.caused_ug, sums.avoided_ug))
    for name, at_charge, at_discharge in rows:
        low, high = at_charge * 1_000_000 // charged, at_discharge * 1_000_000 // discharged
        ratio = high * 1_000_000 // low if low else None
        found[name] = {
            "at_charge_ug_per_kwh": low, "at_discharge_ug_per_kwh": high, "ratio_ppm": ratio,
            "above_break_even": None if ratio is None else ratio > break_even_ppm,
        }  # fmt: skip
    return found


def _ratio(over: int, under: int) -> float | None:
    return None if under == 0 else over / under
