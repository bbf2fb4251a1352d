"""How good the forecasts were, day by day: what was expected at a day's first plan, held against what came."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tidegate.runtime.planner.forecasts import Expected, pinball, rank_correlation
from tidegate.runtime.planner.plan_inputs import Floats
from tidegate.runtime.state import atomic_file

DIARY_FILE = "forecasts.json"
DAYS_KEPT = 400


@dataclass
class Expectation:
    """A forecast that waits for what comes. Values of each step from begin_utc_s on."""

    series: str
    by: str
    begin_utc_s: int
    step_s: int
    low: list[float]
    middle: list[float]
    high: list[float]


@dataclass
class DayError:
    """What a forecast of one day was worth. covered: share of the steps within the band of 80 %."""

    series: str
    by: str
    begin_utc_s: int
    steps: int
    pinball: float
    covered: float
    kendall_tau: float


class ForecastDiary:
    """Expectations and their errors, kept in a file of the planner's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting: list[Expectation] = []
        self.errors: list[DayError] = []
        self.lost = ""
        try:
            kept = json.loads(path.read_text())
            self.waiting = [Expectation(**row) for row in kept["waiting"]]
            self.errors = [DayError(**row) for row in kept["errors"]]
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError) as why:
            self.lost = f"{path}: {why}; the errors of days before are not known"

    def expect(self, series: str, found: Expected, begin_utc_s: int, step_s: int) -> None:
        """Keep the first forecast of each UTC day."""
        day = begin_utc_s // 86_400
        kept = [(one.series, one.begin_utc_s // 86_400) for one in self.waiting]
        kept += [(one.series, one.begin_utc_s // 86_400) for one in self.errors]
        if (series, day) in kept:
            return
        low, middle, high = (one.round(6).tolist() for one in (found.low, found.middle, found.high))
        self.waiting.append(Expectation(series, found.name, begin_utc_s, step_s, low, middle, high))

    def settle(self, series: str, begin_utc_s: int, step_s: int, actual: Floats, now_utc_s: int) -> None:
        """Judge what is over. actual: one value a step from begin_utc_s on, NaN where nothing is known."""
        for one in [one for one in self.waiting if one.series == series]:
            end_utc_s = one.begin_utc_s + len(one.middle) * one.step_s
            if end_utc_s > now_utc_s:
                continue
            self.waiting.remove(one)
            first = (one.begin_utc_s - begin_utc_s) // step_s
            if one.step_s != step_s or first < 0:
                continue
            came = actual[first : first + len(one.middle)]
            known = np.flatnonzero(np.isfinite(came))
            if len(known) < len(one.middle) / 2:
                continue  # half a day says nothing of a day
            low, middle, high = (np.array(values)[known] for values in (one.low, one.middle, one.high))
            came = came[known]
            self.errors.append(DayError(
                series, one.by, one.begin_utc_s, len(known), pinball(came, np.array([low, middle, high])),
                float(((came >= low) & (came <= high)).mean()), rank_correlation(came, middle),
            ))  # fmt: skip
        self.errors = self.errors[-3 * DAYS_KEPT :]

    def write(self) -> None:
        """Keep it. Raises OSError."""
        kept = {"waiting": [asdict(one) for one in self.waiting], "errors": [asdict(one) for one in self.errors]}
        atomic_file.replace(self.path, json.dumps(kept).encode())

    def newest(self) -> list[DayError]:
        """The last judged day of each series."""
        return list({one.series: one for one in self.errors}.values())
