"""What cooling draws, and how a room's inlet temperature follows: a model of two nodes, fitted from telemetry.

    cooling_kw = base + it, outdoor and both together - warmer_kw_per_c (inlet - middle)
                 + mass_kw_per_c (mass - inlet) - air_kwh_per_c d(inlet)/dt,     d(mass)/dt = (inlet - mass) / mass_h

Read the other way round it is the heat balance of the air, and of the slow mass that nobody measures, all terms as
electrical power of the cooling. It holds no data sheet of a unit: partial load, fans and the loss of efficiency on warm
days are in what was fitted, as far as the past had them. What it misses is measured on days that the fit has not seen.
"""

from dataclasses import dataclass

import numpy as np

from tidegate.runtime.planner.forecasts import filled
from tidegate.runtime.planner.plan_inputs import Floats

STEP_S = 900
SPAN = 4  # quarter hours over which the fit takes means: the noise of one reading is small beside an hour's change
OUTDOOR_MIDDLE_C = 20.0
HELD_OUT = 0.25  # of the samples, the newest: the errors shown are of these
FIT_MIN = 192  # spans: two days
MASS_H = (1.5, 3.0, 6.0, 12.0, 24.0, 48.0)  # that are tried
SURE = 4.0  # standard errors by which the stored heat must differ from nothing
POWER_ERROR_MAX = 0.2  # of the mean cooling power, in an hour
RIDGE = 1e-6
WARMER, MASS, AIR = 4, 5, 6  # columns after the drivers


@dataclass(frozen=True)
class Samples:
    """(n,) means of quarter hours, one after the other, NaN where nothing is known; C and kW."""

    inlet_c: Floats
    cooling_kw: Floats
    it_kw: Floats
    outdoor_c: Floats


@dataclass(frozen=True)
class RoomModel:
    """What was fitted, and how well it fits what it has not seen."""

    base: Floats  # (4,) kW: 1, it_kw, outdoor - 20 C, it_kw x (outdoor - 20 C) / 100
    warmer_kw_per_c: float  # what a warmer inlet saves, all the time
    mass_kw_per_c: float
    mass_h: float
    air_kwh_per_c: float  # cooling energy for air that is a degree colder
    middle_c: float
    power_kw_max: float  # the highest hour seen: none above is planned
    sureness: float  # stored heat, of the air or of the mass, in its standard errors
    power_error: float  # 90 % of held-out hours miss by less, share of the mean cooling power
    inlet_error_c: float  # the same for the inlet an hour ahead, the cooling power given
    still_error_c: float  # of who says that it stays as it is
    spans: int

    @property
    def why_not(self) -> str:
        """Why nothing is to be planned by it; "" where it may be."""
        if self.sureness < SURE:
            stored = self.air_kwh_per_c + self.mass_kwh_per_c
            return (f"the room's stored heat is not known yet ({stored:.2f} kWh/C, {self.sureness:.1f} standard "
                    f"errors, {SURE:g} are wanted): the inlet moved too little")  # fmt: skip
        if self.power_error > POWER_ERROR_MAX:
            return f"cooling power is missed by {self.power_error:.0%} in an hour, {POWER_ERROR_MAX:.0%} is the most"
        return ""

    @property
    def mass_kwh_per_c(self) -> float:
        """Cooling energy for a mass that is a degree colder."""
        return self.mass_kw_per_c * self.mass_h

    def held_kw(self, it_kw: Floats, outdoor_c: Floats) -> Floats:
        """(n,) cooling power that holds inlet and mass at middle_c."""
        made: Floats = _drivers(it_kw, outdoor_c) @ self.base
        return made

    def mass_c(self, inlet_c: Floats, first_c: float | None = None) -> Floats:
        """(n,) of the mass under a path of inlet temperatures; first_c: where it begins, else at the first inlet."""
        return _mass_c(inlet_c, self.mass_h, first_c)

    def power_kw(self, inlet_c: Floats, mass_c: Floats, held_kw: Floats, step_h: float) -> Floats:
        """(n,) cooling power of paths of n + 1 temperatures; not bounded."""
        inlet, mass = (inlet_c[1:] + inlet_c[:-1]) / 2, (mass_c[1:] + mass_c[:-1]) / 2
        moved = self.air_kwh_per_c * np.diff(inlet_c) / step_h
        return held_kw - self.warmer_kw_per_c * (inlet - self.middle_c) + self.mass_kw_per_c * (mass - inlet) - moved


def follows(mass_h: float) -> float:
    """Share of the distance to the inlet that the mass goes in a quarter hour."""
    return float(1.0 - np.exp(-STEP_S / 3600.0 / mass_h))


def _mass_c(inlet_c: Floats, mass_h: float, first_c: float | None) -> Floats:
    found, share = np.empty(len(inlet_c)), follows(mass_h)
    found[0] = inlet_c[0] if first_c is None else first_c
    for k in range(1, len(inlet_c)):
        found[k] = found[k - 1] + share * ((inlet_c[k] + inlet_c[k - 1]) / 2 - found[k - 1])
    return found


def _drivers(it_kw: Floats, outdoor_c: Floats) -> Floats:
    warm = outdoor_c - OUTDOOR_MIDDLE_C
    return np.stack([np.ones(len(it_kw)), it_kw, warm, it_kw * warm / 100.0], axis=1)


def _mean(series: Floats) -> Floats:
    """Means of spans. The inlet's change is between the middles of first and last quarter hour, so those count half."""
    weights = np.ones(SPAN + 1)
    weights[[0, -1]] = 0.5
    return np.convolve(series, weights / weights.sum(), mode="valid")


def _solved(columns: Floats, power: Floats) -> tuple[Floats, Floats, float]:
    """(coefficients, their standard errors, mean square missed), with a ridge that only keeps the algebra whole."""
    scale = np.maximum(np.abs(columns).max(axis=0), 1e-9)
    scaled = columns / scale
    normal = scaled.T @ scaled + RIDGE * len(power) * np.eye(columns.shape[1])
    inverse = np.linalg.inv(normal)
    found = inverse @ scaled.T @ power
    missed = power - scaled @ found
    # Spans overlap, and what the model misses it misses for hours: fewer of them speak than there are.
    near = float(np.corrcoef(missed[1:], missed[:-1])[0, 1]) if missed.std() > 0 else 0.0
    near = min(max(near, 0.0), 0.99)
    spread = float(missed.var()) * (1 + near) / (1 - near)
    errors = np.sqrt(np.maximum(np.diag(inverse) * spread, 1e-30))
    return found / scale, errors / scale, float((missed**2).mean())


def _sure(columns: Floats, power: Floats) -> tuple[Floats, Floats, float]:
    """The same, without the gain from warmth and the mass where they are not surely above nothing."""
    kept = list(range(columns.shape[1]))
    while True:
        part, part_errors, square = _solved(columns[:, kept], power)
        weak = [(part[i] / part_errors[i], one) for i, one in enumerate(kept) if one in (WARMER, MASS)]
        weak = [(t, one) for t, one in weak if t < 2.0]
        if not weak:
            break
        kept.remove(min(weak)[1])
    found, errors = np.zeros(columns.shape[1]), np.zeros(columns.shape[1])
    found[kept], errors[kept] = part, part_errors
    return found, errors, square


def _sureness(found: Floats, errors: Floats) -> float:
    return max(float(found[one] / errors[one]) for one in (AIR, MASS) if errors[one] > 0)


def fit_room(samples: Samples) -> RoomModel | None:
    """The model of the older samples, judged on the newest; None where there are too few to fit at all."""
    if len(samples.inlet_c) <= SPAN or not np.isfinite(samples.inlet_c).any():
        return None
    hours = SPAN * STEP_S / 3600.0
    drivers = _drivers(_mean(samples.it_kw), _mean(samples.outdoor_c))
    inlet, power = _mean(samples.inlet_c), _mean(samples.cooling_kw)
    change = (samples.inlet_c[SPAN:] - samples.inlet_c[:-SPAN]) / hours
    whole = np.isfinite(drivers).all(axis=1) & np.isfinite(inlet) & np.isfinite(change) & np.isfinite(power)
    first = round(int(whole.sum()) * (1 - HELD_OUT))
    if first < FIT_MIN:
        return None
    middle = float(inlet[whole][:first].mean())
    tried = []
    for mass_h in MASS_H:
        mass = _mean(_mass_c(filled(samples.inlet_c), mass_h, middle))
        columns = np.column_stack([drivers, middle - inlet, mass - inlet, -change])[whole]
        found, errors, square = _sure(columns[:first], power[whole][:first])
        tried.append((square, mass_h, columns, found, errors))
    _, mass_h, columns, found, errors = min(tried, key=lambda one: one[0])
    power, change = power[whole], change[whole]
    missed = np.abs(power[first:] - columns[first:] @ found)
    worst = float(np.quantile(missed, 0.9))
    air = max(float(found[AIR]), 0.0)
    # A kW too much for an hour moves the inlet by an hour's worth of it, less what the colder room gives back.
    back = (found[WARMER] + found[MASS]) * hours / 2
    return RoomModel(
        base=found[:WARMER], warmer_kw_per_c=float(found[WARMER]), mass_kw_per_c=float(found[MASS]), mass_h=mass_h,
        air_kwh_per_c=air, middle_c=middle, power_kw_max=float(power.max()),
        sureness=_sureness(found, errors), power_error=worst / max(1e-9, float(power.mean())),
        inlet_error_c=worst * hours / (air + back) if air > 0 else float("inf"),
        still_error_c=float(np.quantile(np.abs(change[first:]) * hours, 0.9)), spans=len(power),
    )  # fmt: skip
