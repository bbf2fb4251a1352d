"""Why the plan does what it does: sentences from the program's own prices, each borne out by arithmetic.

The dual of the storage row is what a stored kWh is worth, that of the balance row what a kWh at the meter costs. A
battery discharges where the meter's kWh is worth at least the stored one over the efficiency, plus wear; it charges
where the stored one times the efficiency is worth at least the meter's.
"""

from dataclasses import dataclass

from tidegate.runtime.planner.plan_inputs import Connection, PlanError, Storage
from tidegate.runtime.planner.plan_solver import Plan

MOVES_KW = 0.01
SLACK_EUR = 2e-4  # of a kWh; the tie-breaker may use the solver's tolerance


@dataclass(frozen=True)
class Reason:
    """Why of one step: what is done, the figures that it rests on, and the sentence made of them."""

    step: int
    action: str  # discharge, charge or rest
    battery_kw: float
    meter_eur_per_kwh: float
    stored_eur_per_kwh: float
    edge_eur_per_kwh: float  # what the meter's price is held against
    holds: bool  # whether the arithmetic bears the action out
    text: str


def _limit_of(plan: Plan, connection: Connection, k: int) -> str:
    """What makes a kWh dear in this step beside its price."""
    price = plan.horizon.import_eur_per_kwh[k]
    if connection.demand_eur_per_kw and plan.meter_eur_per_kwh[k] > price + SLACK_EUR:
        return f", of which the demand charge at {plan.peak_kw:.1f} kW makes {plan.meter_eur_per_kwh[k] - price:.4f}"
    return ""


def reason(plan: Plan, storage: Storage, connection: Connection, k: int) -> Reason:
    """The reason of step `k`. Raises PlanError outside the plan."""
    if not 0 <= k < len(plan.import_kw):
        raise PlanError(f"the plan has steps 0 to {len(plan.import_kw) - 1}, not {k}")
    power = float(plan.battery_kw[k])
    meter, stored = float(plan.meter_eur_per_kwh[k]), float(plan.stored_eur_per_kwh[k])
    sell = stored * _slope(storage.discharge_segments(), power) + storage.wear_eur_per_kwh
    buy = stored * _slope(storage.charge_segments(), -power)
    worth = f"a kWh at the meter is worth {meter:.4f} EUR{_limit_of(plan, connection, k)}"
    if power > MOVES_KW:
        text = f"discharges {power:.1f} kW: {worth}, the stored one {stored:.4f}, with losses and wear {sell:.4f}"
        return Reason(k, "discharge", power, meter, stored, sell, meter >= sell - SLACK_EUR, text)
    if power < -MOVES_KW:
        text = f"charges {-power:.1f} kW: {worth}, and stored it will be worth {buy:.4f} after losses"
        return Reason(k, "charge", power, meter, stored, buy, meter <= buy + SLACK_EUR, text)
    held = _held(plan, storage, k)
    between = buy - SLACK_EUR <= meter <= sell + SLACK_EUR
    text = f"rests: {worth}, too little to discharge for (from {sell:.4f}), too much to charge with (to {buy:.4f})"
    if not between and held:
        text = f"rests: {worth}; {held}"
    return Reason(k, "rest", power, meter, stored, sell, between or bool(held), text)


def _slope(segments: list[tuple[float, float]], power_kw: float) -> float:
    """Of the last kilowatt of a power: what it moves in the store. At rest that of the first."""
    for width, slope in segments:
        power_kw -= width
        if power_kw <= MOVES_KW:
            return slope
    return segments[-1][1]


def _held(plan: Plan, storage: Storage, k: int) -> str:
    """Why a battery that would like to move cannot: empty, full, or nothing behind the meter to give to."""
    before = plan.stored_kwh[k - 1] if k else plan.stored_kwh[k] + plan.battery_kw[k]  # at rest both are equal
    if before <= storage.least_kwh + 1e-3:
        return "the battery is empty"
    if before >= storage.most_kwh - 1e-3:
        return "the battery is full"
    if plan.import_kw[k] <= MOVES_KW:
        return "there is no load that the battery could still serve"
    return ""


def reasons(plan: Plan, storage: Storage, connection: Connection) -> list[Reason]:
    """One of each step."""
    return [reason(plan, storage, connection, k) for k in range(len(plan.import_kw))]
