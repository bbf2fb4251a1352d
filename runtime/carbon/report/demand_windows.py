"""Demand of a span, and what its storage changed: the same periods once more, without charge and discharge.

The counterfactual is arithmetic on what was metered: in each period the site would have imported import - export +
discharge - charge, or exported what is negative of that, at the same price and the same factor. The tariff's demand is
the mean over an aligned window; a demand charge is paid on the highest of each local month.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import TypedDict

from tidegate.runtime.carbon.integers import carbon_ug, to_whole
from tidegate.runtime.carbon.ledger.bodies import PeriodBody
from tidegate.runtime.carbon.report.local_time import month_of
from tidegate.runtime.carbon.tables import number_of

WINDOW_S = 900
PEAKS = 5  # that are listed
W_OF_MILLIWH_S = 3.6  # a milliwatt-hour in a second is 3.6 W


class DemandCharge(TypedDict):
    """What a person says of the tariff.

    u_per_kw : millionths of the currency, for the highest demand of a month; None = not said.
    """

    u_per_kw: int | None
    window_s: int


def check_charge(charge: Mapping[str, object]) -> DemandCharge:
    """A demand charge from a report or the command line. Raises ValueError for one that cannot be."""
    price, window_s = charge.get("u_per_kw"), charge.get("window_s")
    if (
        set(charge) != {"u_per_kw", "window_s"}
        or (price is not None and type(price) is not int)
        or type(window_s) is not int
    ):
        raise ValueError(f"demand charge {charge!r:.80}: needs u_per_kw and window_s, whole numbers")
    if (price or 0) < 0 or window_s not in (300, 900, 1800, 3600):
        raise ValueError(f"demand charge {charge!r:.80}: a price of at least 0 over 300, 900, 1800 or 3600 s")
    return {"u_per_kw": price, "window_s": window_s}


def read_charge(price: str | None, window_s: int) -> DemandCharge | None:
    """The demand charge of the command line; None without a price, where the window is the tariff's usual one."""
    if price is None:
        return None if window_s == WINDOW_S else {"u_per_kw": None, "window_s": window_s}
    return check_charge({"u_per_kw": to_whole(number_of(price, "--demand-price", ValueError), 1_000_000),
                         "window_s": window_s})  # fmt: skip


@dataclass(slots=True)
class Month:
    """The highest demand of a local month, as it was and as it would have been; W and the window's start."""

    start_utc_s: int
    peak: tuple[int, int] = (0, 0)
    without: tuple[int, int] = (0, 0)


def import_of(body: PeriodBody) -> tuple[int, int, int]:
    """(import, import without storage, both mWh; highest W of a second or -1) of a period."""
    came = gone = moved = 0
    watts = -1
    for name, flow in body["flows"].items():
        kind, milliwh = name.rpartition(".")[2], flow["energy_milliwh"]
        if kind == "import":
            came += milliwh
            watts = max(watts, flow.get("w_max", -1))
        elif kind == "export":
            gone += milliwh
        elif kind == "discharge":
            moved += milliwh
        elif kind == "charge":
            moved -= milliwh
    return came, max(0, came - gone + moved) if moved else came, watts


@dataclass(slots=True)
class Demand:
    """Takes the periods of a span in the order of time. zone : whose months are billed."""

    window_s: int = WINDOW_S
    zone: tzinfo = UTC
    months: list[Month] = field(default_factory=list)
    peaks: list[tuple[int, int, int]] = field(default_factory=list)  # W, start, W without storage; highest first
    spike: tuple[int, int] | None = None  # highest power of a second, W, and the start of its period
    import_milliwh: int = 0
    without_import_milliwh: int = 0
    priced_milliwh: int = 0
    cost_change_u: int = 0
    carbon_change_ug: int = 0
    storage: bool = False
    _open: int = -1
    _sums: tuple[int, int] = (0, 0)
    _month_ends_s: int = -1

    def add(self, body: PeriodBody) -> None:
        """Take a period in."""
        came, without, watts = import_of(body)
        if watts >= 0 and (self.spike is None or watts > self.spike[0]):
            self.spike = (watts, body["start_utc_s"])
        self.storage = self.storage or bool(body["stock"])
        self.import_milliwh += came
        self.without_import_milliwh += without
        grid, price = body["factors"].get("grid"), body.get("price_u_per_kwh")
        if grid is not None:
            self.carbon_change_ug += carbon_ug(came, grid["ug_per_kwh"]) - carbon_ug(without, grid["ug_per_kwh"])
        if price is not None:
            self.priced_milliwh += came
            self.cost_change_u += (price * came - price * without) // 1_000_000
        self._window(body["start_utc_s"], body["length_s"], came, without)

    def _window(self, start: int, length: int, came: int, without: int) -> None:
        window = max(self.window_s, length)
        slot = start // window * window
        if slot != self._open:
            self.close()
            self._open = slot
        self._sums = (self._sums[0] + came, self._sums[1] + without)
        self.window_s = window

    def close(self) -> None:
        """End the open window; once more behind the last period."""
        if self._open < 0:
            return
        at = self._open
        watts, without = (round(milliwh * W_OF_MILLIWH_S / self.window_s) for milliwh in self._sums)
        if at >= self._month_ends_s:
            first, self._month_ends_s = month_of(at, self.zone)
            self.months.append(Month(first))
        month = self.months[-1]
        if watts > month.peak[0]:
            month.peak = (watts, at)
        if without > month.without[0]:
            month.without = (without, at)
        if len(self.peaks) < PEAKS or watts > self.peaks[-1][0]:
            self.peaks = sorted([*self.peaks, (watts, at, without)], key=lambda row: (-row[0], row[1]))[:PEAKS]
        self._open, self._sums = -1, (0, 0)

    def document(self) -> dict[str, object]:
        """The report's part on demand. W, and seconds since 1970."""
        return {
            "window_s": self.window_s,
            "months": [
                {
                    "start_utc_s": month.start_utc_s, "w": month.peak[0], "utc_s": month.peak[1],
                    "without_storage_w": month.without[0], "without_storage_utc_s": month.without[1],
                }
                for month in self.months
            ],
            "peaks": [{"utc_s": at, "w": watts, "without_storage_w": without} for watts, at, without in self.peaks],
            "second_w": None if self.spike is None else self.spike[0],
            "second_utc_s": None if self.spike is None else self.spike[1],
        }  # fmt: skip

    def saved(self, charge: DemandCharge | None, currency: str) -> dict[str, object] | None:
        """What storage changed against the same site without it; below 0 = less. None without storage."""
        if not self.storage:
            return None
        price = None if charge is None else charge["u_per_kw"]
        change_w = sum(month.peak[0] - month.without[0] for month in self.months)
        return {
            "import_milliwh": self.import_milliwh,
            "without_storage_import_milliwh": self.without_import_milliwh,
            "demand_change_w": change_w,
            "demand_change_u": None if price is None else change_w * price // 1000,
            "energy_change_u": self.cost_change_u if self.priced_milliwh else None,
            "priced_milliwh": self.priced_milliwh,
            "currency": currency,
            "carbon_change_ug": self.carbon_change_ug,
        }
