"""From a table of hours to the horizon of a plan: known values as they are, the rest forecast and named as such."""

from dataclasses import dataclass
from datetime import datetime, tzinfo

import numpy as np

from tidegate.config.site import Site
from tidegate.runtime.planner.forecasts import Expected, Forecaster, filled
from tidegate.runtime.planner.hours_table import HoursTable
from tidegate.runtime.planner.local_calendar import LocalCalendar
from tidegate.runtime.planner.peak_guard import BILLED_WINDOW_S, highest_window_kw
from tidegate.runtime.planner.plan_inputs import Connection, Floats, Horizon, PlanError, Storage

LEAST_DAYS = 2  # of the past, to forecast from
UNLIMITED_KW = 1e5
WEAR_EUR_PER_KWH = 0.03  # where nobody says what the cells cost


@dataclass(frozen=True)
class Outlook:
    """The horizon, and for each series how many of its steps are forecast, by what."""

    horizon: Horizon
    load: Expected | None
    pv: Expected | None
    price: Expected | None
    known: dict[str, int]
    carbon: Expected | None = None


def storage_of(site: Site, *, wear_eur_per_kwh: float | None = None,
               efficiency_at: tuple[tuple[float, float], ...] = ()) -> Storage:  # fmt: skip
    """All batteries of a site as one, with the losses that its [carbon] says. Raises PlanError where the site has none.

    efficiency_at: (AC kW, share kept) one way, both ways alike, in the place of those; at full power the last holds.
    """
    units = site.storage
    if not units:
        raise PlanError("the site file has no [[storage]]: there is nothing to plan")
    total = sum(unit.energy_wh for unit in units)
    charge, discharge = site.carbon.charge_efficiency, site.carbon.discharge_efficiency
    if efficiency_at:
        charge = discharge = max(efficiency_at)[1]
    return Storage(
        charge_efficiency=charge,
        discharge_efficiency=discharge,
        wear_eur_per_kwh=WEAR_EUR_PER_KWH if wear_eur_per_kwh is None else wear_eur_per_kwh,
        efficiency_at=tuple(sorted(efficiency_at)),
        energy_kwh=total / 1e3,
        charge_kw_max=sum(unit.charge_w_max for unit in units) / 1e3,
        discharge_kw_max=sum(unit.discharge_w_max for unit in units) / 1e3,
        soc_min=sum(unit.soc_min * unit.energy_wh for unit in units) / total,
        soc_max=sum(unit.soc_max * unit.energy_wh for unit in units) / total,
    )


def connection_of(site: Site, *, demand_eur_per_kw: float = 0.0, demand_paid_kw: float = 0.0) -> Connection:
    """The connection of a site: its import limit is the tightest that the site file has."""
    imports = [one for one in (site.limits.connection_import_w_max, site.control.peak_w_max) if one is not None]
    export_w_max = site.limits.connection_export_w_max
    sliding = bool(site.control.demand_step_s)
    return Connection(
        import_kw_max=min(imports) / 1e3 if imports else UNLIMITED_KW,
        export_kw_max=UNLIMITED_KW if export_w_max is None else export_w_max / 1e3,
        demand_eur_per_kw=demand_eur_per_kw,
        demand_paid_kw=demand_paid_kw,
        window_rest_s=window_s_of(site) if sliding else 0,
    )


def window_s_of(site: Site) -> int:
    """Length of the window whose mean the bill counts."""
    return int(site.control.demand_window_s or BILLED_WINDOW_S)


def month_peak_kw(table: HoursTable, now: datetime, zone: tzinfo, window_s: int = BILLED_WINDOW_S) -> float:
    """Highest mean power of load less sun in a billed window of this local month before `now`; 0 without one."""
    begin = now.astimezone(zone).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    part = slice(max(0, table.step_at(begin)), max(0, table.step_at(now)))
    net = table.load_kw[part] - table.pv_kw[part]
    first_utc_s = int(table.begin_utc.timestamp()) + part.start * table.step_s
    return highest_window_kw(first_utc_s, table.step_s, net, window_s, zone)


def look_ahead(table: HoursTable, now: datetime, hours: int, *, fees_eur_per_kwh: float, zone: tzinfo,
               carbon_eur_per_kg: float = 0.0) -> Outlook:  # fmt: skip
    """The coming hours from the step in which `now` lies. Raises PlanError where the past is too short to forecast."""
    first = table.step_at(now)
    steps = hours * 3600 // table.step_s
    if first < LEAST_DAYS * table.day or first > len(table.load_kw):
        raise PlanError(f"now ({now:%Y-%m-%d %H:%M %z}) is step {first} of {len(table.load_kw)}: "
                        f"the table must hold at least {LEAST_DAYS} days before it and reach up to it")  # fmt: skip
    # What was measured ends now, whatever the table holds; prices in it count as published.
    calendar = LocalCalendar(table.begin_utc, table.step_s, zone)
    load, of_load, known_load = _continued(table, table.load_kw[:first], first, steps, "load_kw", calendar)
    pv, of_pv, known_pv = _continued(table, table.pv_kw[:first], first, steps, "pv_kw", calendar)
    price, of_price, known_price = _continued(
        table, table.price_eur_per_kwh, first, steps, "price_eur_per_kwh", calendar
    )
    known = {"load": known_load, "pv": known_pv, "price": known_price}
    paid, of_carbon = price + fees_eur_per_kwh, None
    if carbon_eur_per_kg:
        if len(table.g_per_kwh) == 0:
            raise PlanError("carbon has a price, but no g_per_kwh is there: add the column, or leave --carbon out")
        g_per_kwh, of_carbon, known["carbon"] = _continued(table, table.g_per_kwh, first, steps, "g_per_kwh", calendar)
        paid = paid + g_per_kwh / 1e3 * carbon_eur_per_kg
    horizon = Horizon(
        start_utc_s=int(table.begin_utc.timestamp()) + first * table.step_s, step_s=table.step_s, load_kw=load,
        pv_kw=np.maximum(pv, 0.0), import_eur_per_kwh=paid, export_eur_per_kwh=price,
        demand_counts=np.ones(steps, dtype=bool),
    )  # fmt: skip
    return Outlook(horizon, of_load, of_pv, of_price, known, of_carbon)


def _continued(table: HoursTable, series: Floats, first: int, steps: int, name: str,
               calendar: LocalCalendar) -> tuple[Floats, Expected | None, int]:  # fmt: skip
    """(values, the forecast that filled the rest, known steps)."""
    end = min(table.known(series), first + steps)
    if end < first - table.day:
        raise PlanError(f"{name}: nothing is known of the last day before now; a forecast would be a guess. "
                        "Write what was measured, 0 where there is none")  # fmt: skip
    known = max(0, end - first)
    found = np.empty(steps)
    found[:known] = filled(series[:end])[first:end]
    if known == steps:
        return found, None, known
    away = max(0, first - end)
    expected = Forecaster(steps - known + away, table.day, calendar=calendar).expect(filled(series[:end]), end)
    found[known:] = expected.middle[away:]
    return found, expected, known
