"""A plan made again and again over real days: what was known at each moment, what was done, and what it cost.

Only what was published counts as known: day-ahead prices to the end of the local day, from PUBLISHED_HOUR on to the end
of the next. The battery does the first step of each plan against what the load then was.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo

import numpy as np

from tidegate.runtime.planner.forecasts import Forecaster
from tidegate.runtime.planner.local_calendar import LocalCalendar
from tidegate.runtime.planner.peak_guard import guard
from tidegate.runtime.planner.plan_inputs import Connection, Flags, Floats, Horizon, PlanError, Storage
from tidegate.runtime.planner.plan_solver import Plan, solve

PUBLISHED_HOUR = 13  # local time from which tomorrow's prices are known
LEADS = 24  # hours that are forecast where nothing is published


@dataclass(frozen=True)
class Past:
    """Real hours: arrays of one value an hour, the first begins at begin_utc. `warm` of them are history only."""

    begin_utc: datetime
    load_kw: Floats
    pv_kw: Floats
    price_eur_per_kwh: Floats
    fees_eur_per_kwh: float
    zone: tzinfo
    warm: int = 0

    def __post_init__(self) -> None:
        for name in ("load_kw", "pv_kw", "price_eur_per_kwh"):
            values = getattr(self, name)
            if len(values) != len(self.load_kw):
                raise PlanError(f"{name} has {len(values)} hours, load_kw {len(self.load_kw)}: give each the same")
            if not np.isfinite(values).all():
                raise PlanError(
                    f"{name}: {int((~np.isfinite(values)).sum())} hours are missing; fill or cut them first"
                )

    def local(self, hour: int) -> datetime:
        """Local time at which an hour begins."""
        return (self.begin_utc.astimezone(UTC) + timedelta(hours=hour)).astimezone(self.zone)

    def horizon(self, first: int, end: int, *, load: Floats | None = None, pv: Floats | None = None,
                price: Floats | None = None, counts: Flags | None = None) -> Horizon:  # fmt: skip
        """Hours first to end as a planner's horizon; what is not given is what really came."""
        price = self.price_eur_per_kwh[first:end] if price is None else price
        return Horizon(
            start_utc_s=int(self.begin_utc.timestamp()) + 3600 * first, step_s=3600,
            load_kw=self.load_kw[first:end] if load is None else load,
            pv_kw=self.pv_kw[first:end] if pv is None else pv,
            import_eur_per_kwh=price + self.fees_eur_per_kwh, export_eur_per_kwh=price,
            demand_counts=np.ones(end - first, dtype=bool) if counts is None else counts,
        )  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What was done over the hours after `warm`, and what it cost."""

    name: str
    battery_kw: Floats
    stored_kwh: Floats
    import_kw: Floats
    hourly_eur: Floats  # energy and wear
    demand_eur: float  # all billing months
    worth_eur: float  # of what is stored at the end, to be taken off

    @property
    def cost_eur(self) -> float:
        """The whole bill."""
        return float(self.hourly_eur.sum()) + self.demand_eur - self.worth_eur


Decide = Callable[[int, float], float]  # (hour, stored kWh) -> battery kW asked, + discharge


def operate(past: Past, storage: Storage, connection: Connection, name: str, decide: Decide,
            begin_kwh: float) -> Outcome:  # fmt: skip
    """Live through the hours. What is asked is cut to what battery, connection and load allow."""
    hours = range(past.warm, len(past.load_kw))
    stored, rows = begin_kwh, []
    for hour in hours:
        net = float(past.load_kw[hour] - past.pv_kw[hour])
        asked = decide(hour, stored)
        most = storage.power_drawing(max(0.0, stored - storage.least_kwh))
        if not connection.export_from_battery:
            most = min(most, max(0.0, net))
        room = storage.power_storing(max(0.0, storage.most_kwh - stored))
        least = -min(room, max(0.0, connection.import_kw_max - net))
        power = min(max(asked, least), most)
        stored += -storage.drawn_kw(power) if power > 0 else storage.kept_kw(-power)
        grid = max(net - power, -connection.export_kw_max)
        price = float(past.price_eur_per_kwh[hour])
        cost = grid * (price + past.fees_eur_per_kwh if grid > 0 else price) + storage.wear_eur_per_kwh * max(
            0.0, power
        )
        rows.append((power, stored, max(0.0, grid), cost))
    table = np.array(rows)
    worth = float(np.median(past.price_eur_per_kwh[past.warm :] + past.fees_eur_per_kwh)) * storage.discharge_efficiency
    demand = sum(connection.demand_eur_per_kw * table[part, 2].max() for part in months(past))
    return Outcome(name, table[:, 0], table[:, 1], table[:, 2], table[:, 3], float(demand),
                   (float(table[-1, 1]) - begin_kwh) * worth)  # fmt: skip


def months(past: Past) -> Iterator[slice]:
    """The billing months of the hours after `warm`, by local time."""
    keys = [(past.local(hour).year, past.local(hour).month) for hour in range(past.warm, len(past.load_kw))]
    begin = 0
    for i in range(1, len(keys) + 1):
        if i == len(keys) or keys[i] != keys[begin]:
            yield slice(begin, i)
            begin = i


# ---- what a planner is held against ----


def no_battery(_hour: int, _stored_kwh: float) -> float:
    """Nothing."""
    return 0.0


def clock_rule(past: Past, storage: Storage) -> Decide:
    """Charge at night, discharge in the evening, every day the same."""

    def decide(hour: int, _stored_kwh: float) -> float:
        now = past.local(hour).hour
        return -storage.charge_kw_max if 1 <= now < 4 else storage.discharge_kw_max if 17 <= now < 20 else 0.0

    return decide


def price_rule(past: Past, storage: Storage, hours: int = 2) -> Decide:
    """Charge in the cheapest hours of each local day, discharge in the dearest, by the published prices."""
    days: dict[object, list[int]] = {}
    for hour in range(len(past.load_kw)):
        days.setdefault(past.local(hour).date(), []).append(hour)
    power = {}
    for members in days.values():
        by_price = sorted(members, key=lambda hour: (past.price_eur_per_kwh[hour], hour))
        power.update({hour: -storage.charge_kw_max for hour in by_price[:hours]})
        power.update({hour: storage.discharge_kw_max for hour in by_price[-hours:]})
    return lambda hour, _stored_kwh: power.get(hour, 0.0)


def foresight(past: Past, storage: Storage, connection: Connection, begin_kwh: float) -> Outcome:
    """One plan over all hours with everything known, each billing month with a demand charge of its own."""
    worth = float(np.median(past.price_eur_per_kwh[past.warm :] + past.fees_eur_per_kwh)) * storage.discharge_efficiency
    parts = list(months(past)) if connection.demand_eur_per_kw else [slice(0, len(past.load_kw) - past.warm)]
    power: list[Floats] = []
    stored = begin_kwh
    for part in parts:
        horizon = past.horizon(past.warm + part.start, past.warm + part.stop)
        plan = solve(storage, connection, horizon, stored, end_value_eur_per_kwh=worth)
        stored = float(plan.stored_kwh[-1])
        power.append(plan.battery_kw)
    whole = np.concatenate(power)
    return operate(past, storage, connection, "foresight", lambda hour, _: float(whole[hour - past.warm]), begin_kwh)


# ---- the planner itself ----


@dataclass
class RollingPlanner:
    """Plans again every `every` hours with what is known then; between, the plan in force goes on."""

    past: Past
    storage: Storage
    connection: Connection
    every: int = 1
    published: bool = True  # False: no price is ever published, all are forecast
    load_known_h: int = 1  # of load to come that is known (announced jobs); 1 = the present hour
    forecasts: tuple[str, ...] = ()  # of the price, that may be used; () = all

    def __post_init__(self) -> None:
        calendar = LocalCalendar(self.past.begin_utc.astimezone(UTC), 3600, self.past.zone)
        self._load = Forecaster(2 * LEADS, 24, calendar=calendar)
        self._pv = Forecaster(2 * LEADS, 24, calendar=calendar)
        self._price = Forecaster(2 * LEADS, 24, names=self.forecasts, calendar=calendar)
        self.plan: Plan | None = None
        self._made_at = 0
        self._paid_kw, self._month = 0.0, (0, 0)
        self._load_peak_kw = 0.0  # of this month without a battery: charging never goes beyond it
        self._load_errors = np.zeros((0, 0))  # of the last forecast of the load, (paths, steps)
        self.used: dict[str, dict[str, int]] = {"load": {}, "pv": {}, "price": {}}

    def known_to(self, hour: int) -> int:
        """First hour whose price is not published at `hour`."""
        if not self.published:
            return hour + 1
        now = self.past.local(hour)
        days = 2 if now.hour >= PUBLISHED_HOUR else 1
        end = (now.replace(hour=0, minute=0) + timedelta(days=days)).astimezone(UTC)
        return min(len(self.past.load_kw), int((end - self.past.begin_utc.astimezone(UTC)) / timedelta(hours=1)))

    def look_ahead(self, hour: int) -> Horizon:
        """What is expected at `hour` of the hours to come."""
        known = self.known_to(hour)
        end = min(max(known, hour + LEADS), len(self.past.load_kw), hour + 2 * LEADS)
        steps = end - hour
        load = self._expect("load", self._load, self.past.load_kw, hour, hour + self.load_known_h, steps)
        pv = np.maximum(0.0, self._expect("pv", self._pv, self.past.pv_kw, hour, hour + 1, steps))
        price = self._expect("price", self._price, self.past.price_eur_per_kwh, hour, known, steps)
        return self.past.horizon(hour, end, load=load, pv=pv, price=price)

    def _expect(self, kind: str, forecaster: Forecaster, series: Floats, hour: int, known: int, steps: int) -> Floats:
        """Known hours as they are, the rest forecast from the last known one."""
        known = min(max(known, hour + 1), hour + steps)
        found = np.empty(steps)
        found[: known - hour] = series[hour:known]
        if known - hour < steps:
            expected = forecaster.expect(series[:known], known)
            if kind == "load":
                ahead = steps - (known - hour)
                self._load_errors = np.zeros((len(expected.paths), steps))
                self._load_errors[:, known - hour :] = expected.paths[:, :ahead]
            found[known - hour :] = expected.middle[: steps - (known - hour)]
            self.used[kind][expected.name] = self.used[kind].get(expected.name, 0) + 1
        return found

    def decide(self, hour: int, stored_kwh: float) -> float:
        """Battery power of this hour."""
        now = self.past.local(hour)
        if (now.year, now.month) != self._month:
            self._month, self._paid_kw, self._load_peak_kw = (now.year, now.month), 0.0, 0.0
        if self.plan is None or hour - self._made_at >= self.every or hour - self._made_at >= len(self.plan.import_kw):
            horizon = self.look_ahead(hour)
            in_force = np.zeros(len(horizon.load_kw))
            if self.plan is not None:
                rest = self.plan.battery_kw[hour - self._made_at :][: len(in_force)]
                in_force[: len(rest)] = rest
            connection = self.connection
            if connection.demand_eur_per_kw:
                horizon, connection = self._with_peak_guarded(horizon, hour, stored_kwh)
            self.plan = solve(self.storage, connection, horizon, stored_kwh, in_force_kw=in_force)
            self._made_at = hour
        power, net = float(self.plan.battery_kw[hour - self._made_at]), self._net_kw(hour)
        if self.connection.demand_eur_per_kw:
            # As the loop does by the limit that a charging step carries: the load that came is known to it.
            self._load_peak_kw = max(self._load_peak_kw, net)
            power = max(power, -max(0.0, self._load_peak_kw - net))
        self._paid_kw = max(self._paid_kw, net - power)
        return power

    def _net_kw(self, hour: int) -> float:
        return float(self.past.load_kw[hour] - self.past.pv_kw[hour])

    def _with_peak_guarded(self, horizon: Horizon, hour: int, stored_kwh: float) -> tuple[Horizon, Connection]:
        """The horizon with the energy to keep, and the peak that the bill has or must have already."""
        now = self.past.local(hour)
        self._load_peak_kw = max(self._load_peak_kw, float(horizon.load_kw[0] - horizon.pv_kw[0]))
        steps = len(horizon.load_kw)
        counts = np.array([self.past.local(hour + k).month == now.month for k in range(steps)])
        net = horizon.load_kw - horizon.pv_kw
        errors = self._load_errors[:, :steps] if self._load_errors.shape[1] >= steps else np.zeros((0, steps))
        found = guard(net, errors, self.storage, stored_kwh, horizon.step_h, self._paid_kw,
                      self.connection.demand_eur_per_kw)  # fmt: skip
        return (
            replace(horizon, demand_counts=counts, reserve_kwh=found.reserve_kwh, cushions=found.cushions),
            replace(self.connection, demand_paid_kw=found.limit_kw, recharge_kw_max=self._load_peak_kw),
        )


def share_of_foresight(none: Outcome, one: Outcome, best: Outcome) -> float:
    """How much of what perfect foresight saves."""
    most = none.cost_eur - best.cost_eur
    return (none.cost_eur - one.cost_eur) / most if most > 0 else float("nan")


def window_shares(none: Outcome, one: Outcome, best: Outcome, hours: int) -> Floats:
    """The same of every window of so many hours, a day apart; energy and wear only."""
    saved, most = none.hourly_eur - one.hourly_eur, none.hourly_eur - best.hourly_eur
    starts = range(0, len(saved) - hours + 1, 24)
    return np.array([saved[s : s + hours].sum() / most[s : s + hours].sum() for s in starts])
