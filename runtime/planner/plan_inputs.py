"""What a plan is made of: the storage, the connection and its tariff, and what is expected of the coming steps.

Units: kW, kWh, EUR. Grid + import, battery + discharge, as everywhere; charge and discharge by themselves are positive.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
CHORDS = 8  # of a curve that an LP follows
CURVE_POINTS = 257  # of a curve that is read backwards


class PlanError(Exception):
    """What was given cannot be planned with: the thing, the place, the remedy."""


@dataclass(frozen=True)
class Storage:
    """One battery behind its converter. Efficiencies are from the AC side to what is stored, and back."""

    energy_kwh: float
    charge_kw_max: float
    discharge_kw_max: float
    charge_efficiency: float = 0.95
    discharge_efficiency: float = 0.95
    soc_min: float = 0.05
    soc_max: float = 0.95
    wear_eur_per_kwh: float = 0.03  # of AC energy that is discharged
    efficiency_at: tuple[tuple[float, float], ...] = ()  # (AC kW, share kept) each way by power; () = the two above

    def __post_init__(self) -> None:
        for name in ("energy_kwh", "charge_kw_max", "discharge_kw_max"):
            if not getattr(self, name) > 0:
                raise PlanError(f"storage {name} = {getattr(self, name)}: give a number above 0")
        for name in ("charge_efficiency", "discharge_efficiency"):
            if not 0 < getattr(self, name) <= 1:
                raise PlanError(f"storage {name} = {getattr(self, name)}: give a share above 0, at most 1")
        if not 0 <= self.wear_eur_per_kwh < float("inf"):
            raise PlanError(f"storage wear_eur_per_kwh = {self.wear_eur_per_kwh}: give a number, 0 or more")
        powers = [kw for kw, _ in self.efficiency_at]
        if powers != sorted(set(powers)) or any(not (kw > 0 and 0 < share <= 1) for kw, share in self.efficiency_at):
            raise PlanError(f"storage efficiency_at = {self.efficiency_at}: give rising powers above 0 kW, each once, "
                            "with shares above 0, at most 1")  # fmt: skip
        if not 0 <= self.soc_min < self.soc_max <= 1:
            raise PlanError(f"storage soc_min {self.soc_min}, soc_max {self.soc_max}: want 0 <= soc_min < soc_max <= 1")

    def _share(self, ac_kw: Floats | float, otherwise: float) -> Floats:
        if not self.efficiency_at:
            return np.full(np.shape(ac_kw), otherwise)
        share: Floats = np.asarray(np.interp(ac_kw, *np.array(self.efficiency_at).T), dtype=np.float64)
        return share

    def kept_kw(self, charge_kw: float) -> float:
        """What arrives in the store of a power that is charged."""
        return float(charge_kw * self._share(charge_kw, self.charge_efficiency))

    def drawn_kw(self, discharge_kw: float) -> float:
        """What leaves the store for a power that is discharged."""
        return float(discharge_kw / self._share(discharge_kw, self.discharge_efficiency))

    def power_storing(self, kept_kw: float) -> float:
        """The highest charging power of which no more than this arrives."""
        powers = np.linspace(0.0, self.charge_kw_max, CURVE_POINTS)
        return float(np.interp(kept_kw, powers * self._share(powers, self.charge_efficiency), powers))

    def power_drawing(self, drawn_kw: float) -> float:
        """The highest discharging power for which no more than this leaves the store."""
        powers = np.linspace(0.0, self.discharge_kw_max, CURVE_POINTS)
        return float(np.interp(drawn_kw, powers / self._share(powers, self.discharge_efficiency), powers))

    def charge_segments(self) -> list[tuple[float, float]]:
        """(width in kW, kWh kept of each kWh within it), best first. Below the best power its efficiency is taken."""
        powers = self._corners(self.charge_kw_max)
        return _segments(powers, [self.kept_kw(kw) for kw in powers], best=max)

    def discharge_segments(self) -> list[tuple[float, float]]:
        """(width in kW, kWh drawn for each kWh within it), best first. Below the best power its efficiency is taken."""
        powers = self._corners(self.discharge_kw_max)
        return _segments(powers, [self.drawn_kw(kw) for kw in powers], best=min)

    def _corners(self, most_kw: float) -> list[float]:
        if not self.efficiency_at:
            return [most_kw]
        between = [most_kw * k / CHORDS for k in range(1, CHORDS + 1)]
        return sorted({*(kw for kw, _ in self.efficiency_at if kw < most_kw), *between})

    @property
    def least_kwh(self) -> float:
        """Stored energy that the plan does not go below."""
        return self.soc_min * self.energy_kwh

    @property
    def most_kwh(self) -> float:
        """Stored energy that the plan does not go above."""
        return self.soc_max * self.energy_kwh


def _segments(powers: list[float], moved: list[float], *, best: Callable[..., float]) -> list[tuple[float, float]]:
    """The line over (charging) or under (discharging) all points from 0 on that has no dent: what an LP can hold."""
    found, at_kw, at = [], 0.0, 0.0
    while at_kw < powers[-1]:
        ahead = [(other - at) / (kw - at_kw) for kw, other in zip(powers, moved, strict=True) if kw > at_kw]
        slope = best(ahead)
        last = len(powers) - 1 - ahead[::-1].index(slope)
        found.append((powers[last] - at_kw, slope))
        at_kw, at = powers[last], moved[last]
    return found


@dataclass(frozen=True)
class Connection:
    """The grid connection and how its power is billed."""

    import_kw_max: float
    export_kw_max: float
    demand_eur_per_kw: float = 0.0  # of the highest counted step of the billing period
    demand_paid_kw: float = 0.0  # what is on the bill already, whatever comes
    export_from_battery: bool = False
    recharge_kw_max: float = float("inf")  # import that charging may reach: the highest that the load itself had so far
    window_rest_s: float = 0.0  # how long a billed window that slides may go on after a step in which it began

    def __post_init__(self) -> None:
        for name in ("import_kw_max", "export_kw_max", "demand_eur_per_kw", "demand_paid_kw"):
            if not getattr(self, name) >= 0:
                raise PlanError(f"connection {name} = {getattr(self, name)}: give a number, 0 or more")


@dataclass(frozen=True)
class Job:
    """Work that can wait: its power while it runs, the steps in which it may. `latest_end` is the first step after."""

    name: str
    power_kw: float
    steps: int
    earliest: int
    latest_end: int
    interruptible: bool = False

    def __post_init__(self) -> None:
        if not (self.power_kw > 0 and self.steps >= 1):
            raise PlanError(f"job {self.name}: power {self.power_kw} kW, {self.steps} steps: both must be above 0")


@dataclass(frozen=True)
class Horizon:
    """What is expected of the coming steps, each an array of one value a step; the first step begins at start_utc_s."""

    start_utc_s: int
    step_s: int
    load_kw: Floats
    pv_kw: Floats
    import_eur_per_kwh: Floats
    export_eur_per_kwh: Floats
    demand_counts: Flags
    jobs: tuple[Job, ...] = ()
    reserve_kwh: Floats = field(default_factory=lambda: np.zeros(0))  # stored energy to keep, where it can be had
    import_kw_max: Floats = field(default_factory=lambda: np.zeros(0))  # tighter than the connection; inf = as that
    # What more it is good to have stored, and what each kWh that lacks costs in an hour; no part of the bill.
    cushions: tuple[tuple[Floats, float], ...] = ()
    # Steps in which charging may draw from the grid up to the connection's bound; empty = all. In the others only what
    # the sun has over: of a billed window longer than a step it is the last one, when what came before is known.
    recharges: Flags = field(default_factory=lambda: np.zeros(0, dtype=bool))

    def __post_init__(self) -> None:
        steps = len(self.load_kw)
        if steps == 0:
            raise PlanError("the horizon has no steps: give at least one")
        for name in ("load_kw", "pv_kw", "import_eur_per_kwh", "export_eur_per_kwh", "demand_counts"):
            values = getattr(self, name)
            if len(values) != steps:
                raise PlanError(f"{name} has {len(values)} steps, load_kw {steps}: give each the same")
            bad = np.flatnonzero(~np.isfinite(np.asarray(values, dtype=float)))
            if len(bad):
                at_s = self.start_utc_s + int(bad[0]) * self.step_s
                raise PlanError(f"{name}: {len(bad)} values are missing, the first at step {bad[0]} ({at_s} s UTC)")
        for name in ("reserve_kwh", "import_kw_max", "recharges"):
            if len(getattr(self, name)) not in (0, steps):
                raise PlanError(f"{name} has {len(getattr(self, name))} steps, load_kw {steps}: give each the same")
        if any(len(kwh) != steps for kwh, _ in self.cushions):
            raise PlanError(f"a cushion has another number of steps than load_kw ({steps}): give each the same")

    @property
    def step_h(self) -> float:
        """Length of a step in hours."""
        return self.step_s / 3600.0

    def recharge_limits_kw(self, connection: Connection) -> Floats:
        """(steps,) the import that charging may reach in each."""
        bound = np.full(len(self.load_kw), connection.recharge_kw_max)
        return bound if len(self.recharges) == 0 else np.where(self.recharges, bound, np.minimum(bound, 0.0))

    def limits_kw(self, connection: Connection) -> Floats:
        """(steps,) the import that is allowed in each."""
        if len(self.import_kw_max) == 0:
            return np.full(len(self.load_kw), connection.import_kw_max)
        return np.minimum(self.import_kw_max, connection.import_kw_max)
