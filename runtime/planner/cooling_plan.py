"""The inlet temperature that a day of prices asks for: a linear program over the room's model, within the owner's band.

Cold is stored while a kWh is cheap and used while it is dear. What a kWh costs is the plan's own value at the meter:
price, carbon where it has a price, what the battery can do about it, and the peak that one more kWh would make.
"""

from dataclasses import dataclass

import numpy as np

from tidegate.runtime.planner.linear_program import Program
from tidegate.runtime.planner.plan_inputs import Floats, PlanError
from tidegate.runtime.planner.room_thermal import RoomModel, follows

# Dry-bulb inlet temperatures of ASHRAE TC 9.9's thermal guidelines, fifth edition, C: recommended, allowable.
ASHRAE = {"A1": ((18.0, 27.0), (15.0, 32.0)), "A2": ((18.0, 27.0), (10.0, 35.0)), "A3": ((18.0, 27.0), (5.0, 40.0)),
          "A4": ((18.0, 27.0), (5.0, 45.0)), "H1": ((18.0, 22.0), (5.0, 25.0))}  # fmt: skip
RATE_C_PER_H_MAX = 5.0  # the same guidelines for a room with tape; disks and flash may move faster
OUTSIDE_EUR_PER_CH = 1e3  # a degree outside the band for an hour: never bought
MOVE_EUR_PER_C = 1e-4  # breaks ties for rest


@dataclass(frozen=True)
class InletBand:
    """Where the inlet may be planned, C, and how fast it may move."""

    least_c: float
    most_c: float
    rate_c_per_h: float


@dataclass(frozen=True)
class CoolingPlan:
    """inlet_c: (n + 1,) from now on; power_kw, moved_kw: (n,). saves_eur, moved_kw: beside the inlet held at the
    owner's own."""

    inlet_c: Floats
    power_kw: Floats
    saves_eur: float
    outside_c: float  # the farthest outside the band
    moved_kw: Floats


def check_band(kind: str, least_c: float, most_c: float) -> str:
    """In words, what of a band goes beyond what is recommended; "" where nothing does. Raises PlanError beyond what
    is allowable for the class."""
    if kind not in ASHRAE:
        raise PlanError(f"class = {kind!r}: write one of {', '.join(ASHRAE)}")
    (cool, warm), (coldest, warmest) = ASHRAE[kind]
    if not coldest <= least_c < most_c <= warmest:
        raise PlanError(f"inlet_min_c {least_c:g}, inlet_max_c {most_c:g}: class {kind} allows {coldest:g} to "
                        f"{warmest:g} C; write a band within that")  # fmt: skip
    if least_c < cool or most_c > warm:
        return (f"the inlet's band of {least_c:g} to {most_c:g} C goes beyond what ASHRAE recommends "
                f"({cool:g} to {warm:g} C)")  # fmt: skip
    return ""


def plan_cooling(model: RoomModel, band: InletBand, own_c: float, now_c: tuple[float, float], held_kw: Floats,
                 eur_per_kwh: Floats, step_h: float) -> CoolingPlan:  # fmt: skip
    """The cheapest path from now_c (inlet, mass). own_c: the inlet that the owner's own set-point gives.

    held_kw: (n,) power that holds the model's middle_c; eur_per_kwh: (n,). What the room holds more or less at the end
    counts at the median price. Raises PlanError where a number is none, or where the solver finds nothing.
    """
    n, (inlet_c, mass_c) = len(held_kw), now_c
    if not (np.isfinite(held_kw).all() and np.isfinite(eur_per_kwh).all() and np.isfinite([own_c, *now_c]).all()):
        raise PlanError("a price, a load or a temperature to come is no number")
    # power_k = offset_k - warm (T_k + T_k+1) + slow (M_k + M_k+1) - move (T_k+1 - T_k)
    slow, move, share = model.mass_kw_per_c / 2, model.air_kwh_per_c / step_h, follows(model.mass_h)
    warm = model.warmer_kw_per_c / 2 + slow
    offset = held_kw + model.warmer_kw_per_c * model.middle_c
    price, middle = eur_per_kwh * step_h, float(np.median(eur_per_kwh))
    cost, mass_cost = np.zeros(n + 1), np.zeros(n + 1)
    cost[:-1] += price * (move - warm)
    cost[1:] += price * (-move - warm)
    cost[-1] += middle * model.air_kwh_per_c
    mass_cost[:-1] += price * slow
    mass_cost[1:] += price * slow
    mass_cost[-1] += middle * model.mass_kwh_per_c
    program = Program()
    path = program.block(n + 1, cost, *_begun(n, inlet_c))
    mass = program.block(n + 1, mass_cost, *_begun(n, mass_c))
    outside = program.block(n + 1, OUTSIDE_EUR_PER_CH * step_h, 0.0, np.inf)
    moved = program.block(n, MOVE_EUR_PER_C, 0.0, band.rate_c_per_h * step_h)
    beyond = program.block(n, OUTSIDE_EUR_PER_CH * step_h, 0.0, np.inf)  # of the power's bounds, where nothing else is
    for k in range(n + 1):
        program.row([(path + k, 1.0), (outside + k, -1.0)], -np.inf, band.most_c)
        program.row([(path + k, 1.0), (outside + k, 1.0)], band.least_c, np.inf)
    for k in range(n):
        program.row([(path + k + 1, 1.0), (path + k, -1.0), (moved + k, -1.0)], -np.inf, 0.0)
        program.row([(path + k + 1, 1.0), (path + k, -1.0), (moved + k, 1.0)], 0.0, np.inf)
        program.row([(mass + k + 1, 1.0), (mass + k, share - 1.0), (path + k, -share / 2),
                     (path + k + 1, -share / 2)], 0.0, 0.0)  # fmt: skip
        terms = [(path + k, move - warm), (path + k + 1, -move - warm), (mass + k, slow), (mass + k + 1, slow)]
        program.row([*terms, (beyond + k, 1.0)], -float(offset[k]), np.inf)
        program.row([*terms, (beyond + k, -1.0)], -np.inf, model.power_kw_max - float(offset[k]))
    x, _, _, _ = program.solve()
    found, found_mass = x[path : path + n + 1], x[mass : mass + n + 1]
    own = _own_path(own_c, inlet_c, n, band.rate_c_per_h * step_h)
    own_mass = model.mass_c(own, mass_c)
    power = np.clip(model.power_kw(found, found_mass, held_kw, step_h), 0.0, None)
    own_power = np.clip(model.power_kw(own, own_mass, held_kw, step_h), 0.0, None)
    left = model.air_kwh_per_c * (found[-1] - own[-1]) + model.mass_kwh_per_c * (found_mass[-1] - own_mass[-1])
    return CoolingPlan(found, power, float((own_power - power) @ price) - middle * float(left),
                       float(x[outside + 1 : moved].max()), power - own_power)  # fmt: skip


def _begun(n: int, now_c: float) -> tuple[Floats, Floats]:
    """Bounds of a path of n + 1 temperatures that begins now."""
    least, most = np.full(n + 1, -np.inf), np.full(n + 1, np.inf)
    least[0] = most[0] = now_c
    return least, most


def _own_path(own_c: float, inlet_c: float, n: int, rate_c: float) -> Floats:
    """From now to the owner's own, as fast as the band lets it, and there it stays."""
    gone = np.minimum(np.arange(n + 1) * rate_c, abs(own_c - inlet_c))
    path: Floats = inlet_c + np.sign(own_c - inlet_c) * gone
    return path
