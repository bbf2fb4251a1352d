"""Prices of a folder of CSV files as they are published: hours and quarter hours, files that overlap or break.

A row holds until the next one of its file, the last for as long as the file's shortest; a source that leaves out what
equals the value before (ENTSO-E's curve type A03) is read by that. The file with the later name wins where two overlap.
"""

import csv
import itertools
from pathlib import Path

import numpy as np

from tidegate.runtime.planner.hours_table import STEPS_S, ZEROS_ODD_H, number_in, time_in
from tidegate.runtime.planner.plan_inputs import Floats, PlanError

PRICES = {"price_eur_per_kwh": 1.0, "price_eur_per_mwh": 1e-3}
FACTORS = {"g_per_kwh": 1.0}
HELD_ODD_S = 6 * 3600  # a value that stands for longer may be a gap
Rows = list[tuple[int, int, float]]  # (begin, end, EUR/kWh), UTC seconds


def read_price_file(path: Path, columns: dict[str, float] = PRICES) -> Rows:
    """The rows of one file; none where it has other columns of ours. Raises PlanError with file, row, field, remedy.

    columns: name -> what its numbers are taken times.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise PlanError(f"{path}: is not UTF-8 text; save it as CSV in UTF-8") from None
    except OSError as why:
        raise PlanError(f"{path}: {why.strerror}") from None
    rows = csv.DictReader(text.splitlines())
    named = [name for name in columns if name in (rows.fieldnames or ())]
    others = [name for name in (PRICES | FACTORS) if name in (rows.fieldnames or ())]
    if not named and others and "time_utc" in (rows.fieldnames or ()):
        return []
    if "time_utc" not in (rows.fieldnames or ()) or len(named) != 1:
        raise PlanError(f"{path}: row 1: wanted are time_utc and one of {', '.join(PRICES | FACTORS)}")
    times: list[int] = []
    prices: list[float] = []
    for number, row in enumerate(rows, 2):
        where = f"{path}: row {number}"
        times.append(int(time_in(row["time_utc"], f"{where}, time_utc").timestamp()))
        prices.append(number_in(row[named[0]], f"{where}, {named[0]}") * columns[named[0]])
        if len(times) > 1 and (times[-1] <= times[-2] or times[-1] % STEPS_S[0]):
            raise PlanError(
                f"{where}, time_utc: rows must rise and begin at a quarter hour; write each step once, in UTC"
            )
    if len(times) < 2:
        raise PlanError(f"{path}: has {len(times)} rows; a price file wants a day")
    shortest = min(other - one for one, other in itertools.pairwise(times))
    ends = [*times[1:], times[-1] + min(3600, shortest)]
    return [(one, end, price) for one, end, price in zip(times, ends, prices, strict=True) if np.isfinite(price)]


def read_prices(folder: Path, begin_utc_s: int, steps: int, step_s: int,
                columns: dict[str, float] = PRICES) -> tuple[Floats, list[str]]:  # fmt: skip
    """(EUR/kWh, or g/kWh by FACTORS, of each step, NaN where nothing is published; in words what is wrong or doubtful).

    A file that cannot be read is named and the others count. Raises PlanError where the folder is none.
    """
    if not folder.is_dir():
        raise PlanError(f"{folder}: is no folder; put price files (CSV of time_utc, price_eur_per_kwh) into one")
    price, said = np.full(steps, np.nan), []
    for path in sorted(folder.glob("*.csv")):
        try:
            rows = read_price_file(path, columns)
        except PlanError as why:
            said.append(str(why))
            continue
        held_s = max((end - begin for begin, end, _ in rows), default=0)
        if held_s > HELD_ODD_S:
            said.append(f"{path}: one price stands for {held_s / 3600:g} h: a gap, or equal values left out")
        for begin, end, value in rows:
            # A step finer than the row takes it whole; one that is coarser takes what begins in it last.
            first, last = (begin - begin_utc_s) // step_s, -((begin_utc_s - end) // step_s)
            price[max(0, first) : max(0, last)] = value
    run = longest = 0
    for value in price:
        run = run + 1 if value == 0 else 0
        longest = max(longest, run)
    if columns is PRICES and longest * step_s >= ZEROS_ODD_H * 3600:
        said.append(
            f"{folder}: prices are 0 for {longest * step_s / 3600:g} h on end: a feed that broke? They are planned with"
        )
    return price, said
