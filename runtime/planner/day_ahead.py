"""One plan from a site file, a table of hours and what its owner wishes: the same for the command and the process."""

from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo

import numpy as np

from tidegate.config.site import Site
from tidegate.config.zones import zone_of
from tidegate.runtime.planner.announced_jobs import AnnouncedJob, jobs_within
from tidegate.runtime.planner.expected_cooling import moved_kw
from tidegate.runtime.planner.hours_table import HoursTable
from tidegate.runtime.planner.outlook import (
    Outlook,
    connection_of,
    look_ahead,
    month_peak_kw,
    storage_of,
    window_s_of,
)
from tidegate.runtime.planner.peak_guard import guard, last_of_window
from tidegate.runtime.planner.plan_inputs import Connection, Floats, Horizon, Storage
from tidegate.runtime.planner.plan_solver import Plan
from tidegate.runtime.planner.solver_child import Question, solve_apart


@dataclass(frozen=True)
class Wishes:
    """What the owner says of the bill and the battery. Units in the names; share: of the load that a backup serves."""

    ahead_h: int = 24
    fees_eur_per_kwh: float = 0.0
    demand_eur_per_kw: float = 0.0
    paid_kw: float = 0.0
    wear_eur_per_kwh: float | None = None
    efficiency_at: tuple[tuple[float, float], ...] = ()
    backup_h: float = 0.0
    backup_share: float = 1.0
    carbon_eur_per_kg: float = 0.0  # what a kilogram of the table's g_per_kwh is to count beside the bill
    backup_covered: float = 0.0  # share of the load forecast's past errors that the backup is to cover; 0 = its middle
    peak_limit_kw: float = 0.0  # import that is allowed, tighter than the site's own; 0 = as the site has it
    alone_kw: float | None = None  # the month's peak so far without a battery, as measured; None = by the table


@dataclass(frozen=True)
class DayAhead:
    """A plan and all that it was made from. Rows of plan.jobs_kw belong to `jobs`."""

    outlook: Outlook
    storage: Storage
    connection: Connection
    plan: Plan
    jobs: tuple[AnnouncedJob, ...]
    said: tuple[str, ...]  # of jobs that are not in the plan
    cooling_kw: Floats = field(default_factory=lambda: np.zeros(0))  # of the load: moved by the cooling's own plan


def backup_reserve(horizon: Horizon, storage: Storage, hours: float, share: float, *,
                   paths_kw: Floats | None = None, covered: float = 0.0) -> Floats:  # fmt: skip
    """(steps,) kWh to have stored at each step's end, so that so much of the load lives through an outage then.

    What is expected of load and sun in the hours after counts; behind the horizon its last hour goes on. paths_kw:
    (paths, steps) past errors of the load's forecast, of which the reserve is to cover the share `covered`. No more
    than the battery holds: the rest would be a wish that nobody can keep.
    """
    n, span, hour = len(horizon.load_kw), max(1, round(hours / horizon.step_h)), max(1, round(1 / horizon.step_h))
    load = horizon.load_kw[None, :]
    if covered and paths_kw is not None and len(paths_kw):
        load = load + paths_kw
    net = np.maximum(0.0, share * load - horizon.pv_kw)
    last = np.repeat(net[:, -hour:].mean(axis=1, keepdims=True), span, axis=1)
    total = (
        np.concatenate([np.zeros((len(net), 1)), np.cumsum(np.hstack([net, last]), axis=1)], axis=1) * horizon.step_h
    )
    need = (total[:, 1 + span : 1 + span + n] - total[:, 1 : 1 + n]) / storage.discharge_efficiency
    wanted = np.quantile(need, covered, axis=0) if len(need) > 1 else need[0]
    return np.minimum(storage.least_kwh + wanted, storage.most_kwh)


def day_ahead(site: Site, table: HoursTable, now: datetime, soc: float, wishes: Wishes, *,
              jobs: tuple[AnnouncedJob, ...] = (), in_force_kw: Floats | None = None,
              caps_kw: dict[int, float] | None = None,
              cooling_kw: dict[int, float] | None = None) -> DayAhead:  # fmt: skip
    """The plan from the step in which `now` lies. Raises PlanError where there is none, with what is missing.

    caps_kw: import allowed in the step that begins at this UTC second, beside the connection's. cooling_kw: what the
    cooling's plan draws more than its owner's set-point from this UTC second on; it is added to the forecast load.
    """
    zone = zone_of(site.site.timezone)
    storage = storage_of(site, wear_eur_per_kwh=wishes.wear_eur_per_kwh, efficiency_at=wishes.efficiency_at)
    connection = connection_of(site, demand_eur_per_kw=wishes.demand_eur_per_kw, demand_paid_kw=wishes.paid_kw)
    if wishes.peak_limit_kw:
        connection = replace(connection, import_kw_max=min(connection.import_kw_max, wishes.peak_limit_kw))
    outlook = look_ahead(table, now, wishes.ahead_h, fees_eur_per_kwh=wishes.fees_eur_per_kwh, zone=zone,
                         carbon_eur_per_kg=wishes.carbon_eur_per_kg)  # fmt: skip
    moved = moved_kw(outlook.horizon, cooling_kw or {})
    outlook = with_cooling(outlook, moved)
    horizon, stored_kwh = outlook.horizon, soc * storage.energy_kwh
    reserve = np.zeros(0)
    if wishes.backup_h:
        reserve = backup_reserve(horizon, storage, wishes.backup_h, wishes.backup_share,
                                 paths_kw=load_errors_kw(outlook), covered=wishes.backup_covered)  # fmt: skip
    within, placed, said = jobs_within(jobs, horizon)
    if wishes.demand_eur_per_kw:
        alone_kw = wishes.alone_kw
        if alone_kw is None:
            alone_kw = month_peak_kw(table, now, zone, window_s_of(site))
        if not site.control.demand_step_s:
            steps = len(horizon.load_kw)
            ends = last_of_window(horizon.start_utc_s, horizon.step_s, steps, window_s_of(site), zone)
            horizon = replace(horizon, recharges=ends)
        connection = replace(connection, recharge_kw_max=alone_kw)
        horizon, connection, reserve = _guarded(
            zone, outlook, horizon, storage, connection, stored_kwh, within, reserve
        )
    caps = _caps(horizon, caps_kw or {})
    horizon = replace(horizon, jobs=within, reserve_kwh=reserve, import_kw_max=caps, load_kw=_cautious(outlook, caps))
    plan = solve_apart(Question(storage, connection, horizon, stored_kwh, in_force_kw))
    return DayAhead(outlook, storage, connection, plan, placed, tuple(said), moved)


def with_cooling(outlook: Outlook, moved: Floats) -> Outlook:
    """The same with what the cooling's plan moves in the load, in the horizon and in the forecast that filled it."""
    if not moved.any():
        return outlook
    horizon = replace(outlook.horizon, load_kw=np.maximum(0.0, outlook.horizon.load_kw + moved))
    load = outlook.load
    if load is not None:
        shift, ahead = np.zeros(len(load.middle)), len(moved) - outlook.known["load"]
        shift[len(shift) - ahead :] = moved[len(moved) - ahead :]
        load = replace(load, middle=load.middle + shift, low=load.low + shift, high=load.high + shift)
    return replace(outlook, horizon=horizon, load=load)


def load_errors_kw(outlook: Outlook) -> Floats:
    """(paths, steps) what past forecasts of the load missed, over the horizon; none where that is not known."""
    steps = len(outlook.horizon.load_kw)
    if outlook.load is None or outlook.load.paths.shape[1] < steps:
        return np.zeros((0, steps))
    return outlook.load.paths[:, -steps:]


def _cautious(outlook: Outlook, caps_kw: Floats) -> Floats:
    """(steps,) the load that is planned with: under a cap the upper end of the band, as a promise stands on it."""
    load = outlook.horizon.load_kw
    if len(caps_kw) == 0 or outlook.load is None:
        return load
    high = outlook.load.high[-len(load) :]
    return np.where(np.isfinite(caps_kw), np.maximum(load, high), load) if len(high) == len(load) else load


def _caps(horizon: Horizon, caps_kw: dict[int, float]) -> Floats:
    """(steps,) the cap of each, inf where there is none; empty where none is within the horizon."""
    begins = [horizon.start_utc_s + k * horizon.step_s for k in range(len(horizon.load_kw))]
    found = np.array([caps_kw.get(begin, np.inf) for begin in begins])
    return found if np.isfinite(found).any() else np.zeros(0)


def _guarded(zone: tzinfo, outlook: Outlook, horizon: Horizon, storage: Storage, connection: Connection,
             stored_kwh: float, jobs: tuple[object, ...],
             reserve: Floats) -> tuple[Horizon, Connection, Floats]:  # fmt: skip
    """With a demand charge: the peak that is worth holding, the energy to keep for it, and the steps of this month."""
    begin = horizon.start_utc_s
    months = [datetime.fromtimestamp(begin + k * horizon.step_s, zone).month for k in range(len(horizon.load_kw))]
    horizon = replace(horizon, demand_counts=np.array([one == months[0] for one in months]))
    if outlook.load is None or jobs:  # where jobs go is decided by the plan: its own peak stands for them
        return horizon, connection, reserve
    errors = load_errors_kw(outlook)
    net = horizon.load_kw - horizon.pv_kw
    found = guard(net, errors, storage, stored_kwh, horizon.step_h, connection.demand_paid_kw,
                  connection.demand_eur_per_kw)  # fmt: skip
    keep = found.reserve_kwh if len(reserve) == 0 else np.maximum(reserve, found.reserve_kwh)
    horizon = replace(horizon, cushions=found.cushions)
    return horizon, replace(connection, demand_paid_kw=found.limit_kw), keep
