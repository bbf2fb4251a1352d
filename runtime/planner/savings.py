"""What the battery saved by the day, beside the same load and sun without one: from what was measured and paid."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, tzinfo

from tidegate.runtime.planner.hours_table import HoursTable
from tidegate.runtime.planner.site_history import QUARTER_S, SiteHistory


@dataclass
class DaySaved:
    """One local day. eur: energy alone, wear taken off; what is stored more or less at its end is not counted."""

    day: str
    eur: float = 0.0
    quarters: int = 0  # that were measured and have a price


def saved_by_day(table: HoursTable, history: SiteHistory, fees_eur_per_kwh: float, wear_eur_per_kwh: float,
                 zone: tzinfo) -> list[DaySaved]:  # fmt: skip
    """Each local day of the table in which anything was measured, the oldest first."""
    days: dict[str, DaySaved] = defaultdict(lambda: DaySaved(""))
    begin_utc_s = int(table.begin_utc.timestamp())
    for k, price in enumerate(table.price_eur_per_kwh.tolist()):
        at = begin_utc_s + k * QUARTER_S
        one = history.quarters.get(at)
        if one is None or one.load_kw is None or one.pv_kw is None or one.grid_kw is None or price != price:
            continue

        def paid(kw: float, price: float = price) -> float:
            return kw * (price + fees_eur_per_kwh if kw > 0 else price)

        net_kw = one.load_kw - one.pv_kw
        wear = wear_eur_per_kwh * max(0.0, net_kw - one.grid_kw)
        day = days[datetime.fromtimestamp(at, zone).date().isoformat()]
        day.eur += (paid(net_kw) - paid(one.grid_kw) - wear) * QUARTER_S / 3600
        day.quarters += 1
    for name, found in days.items():
        found.day = name
    return sorted(days.values(), key=lambda found: found.day)


def month_line(days: list[DaySaved]) -> str:
    """The newest whole day and its month, for people; "" where no day is whole."""
    whole = [one for one in days[:-1] if one.quarters >= 92]
    if not whole:
        return ""
    last, month = whole[-1], whole[-1].day[:7]
    saved_eur = sum(one.eur for one in whole if one.day.startswith(month))
    count = sum(one.day.startswith(month) for one in whole)
    return (
        f"saved beside no battery: {last.eur:.2f} EUR on {last.day}, {saved_eur:.2f} EUR on {count} whole days of "
        f"{month} (energy and wear; what is stored more or less is not counted)"
    )
