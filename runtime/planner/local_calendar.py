"""Which steps of a series lie in a weekend where the site is: a series counts in UTC, people work by local days."""

from datetime import datetime, tzinfo

import numpy as np
from numpy.typing import NDArray

from tidegate.runtime.planner.plan_inputs import Floats


class LocalCalendar:
    """Local days of a series whose step 0 begins at `begin_utc`. What was worked out is kept: a forecast asks often."""

    def __init__(self, begin_utc: datetime, step_s: int, zone: tzinfo) -> None:
        self._begin_s, self._step_s, self._zone = int(begin_utc.timestamp()), step_s, zone
        self._weekend = np.zeros(0)

    def weekend(self, steps: NDArray[np.intp]) -> Floats:
        """1.0 for each step (0 or later) that begins on a local Saturday or Sunday, else 0.0."""
        wanted = int(steps.max(initial=-1)) + 1
        if wanted > len(self._weekend):
            begins = range(len(self._weekend), wanted + 7 * 86_400 // self._step_s)
            days = [datetime.fromtimestamp(self._begin_s + k * self._step_s, self._zone).weekday() for k in begins]
            self._weekend = np.concatenate([self._weekend, np.array(days) >= 5])
        return self._weekend[steps]
