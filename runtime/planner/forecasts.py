"""What comes next of a series: simple forecasts, a blend, a ridge for each lead, both together, and whom to believe.

A series is hourly or finer, of one value a step, NaN where nothing is known. Each forecast sees only what lies before
its origin. Which one is used is decided by the errors that each made in the last weeks, and all errors are kept.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tidegate.runtime.planner.local_calendar import LocalCalendar
from tidegate.runtime.planner.plan_inputs import Floats, PlanError

DAYS_OF_SHAPE = 7
DECAY_H = 14.0  # after so long the present level says a third of what it said
RIDGE_DAYS = 120
RIDGE_WEIGHT = 10.0
ERROR_DAYS = 56
QUANTILES = (0.1, 0.5, 0.9)
RIDGE, BOTH = "ridge", "ridge and blend"

Forecast = Callable[[Floats, int, int, int], Floats]  # (series, origin, leads, steps a day) -> leads


def filled(series: Floats) -> Floats:
    """The series with gaps bridged by the value before (the first by the one after). All NaN is refused."""
    known = np.flatnonzero(np.isfinite(series))
    if len(known) == 0:
        raise PlanError("a series without a single value cannot be forecast")
    at = np.maximum.accumulate(np.where(np.isfinite(series), np.arange(len(series)), known[0]))
    return series[at]


def persistence(series: Floats, origin: int, leads: int, day: int) -> Floats:
    """The last value stays."""
    del day
    return np.full(leads, series[origin - 1])


def _back(series: Floats, origin: int, leads: int, lag: int) -> Floats:
    """Value of the same time `lag` steps ago, the cycle repeated where that is not known yet."""
    at = origin + np.arange(leads)
    at = at - lag * (1 + (at - origin) // lag)
    return series[np.maximum(at, 0)]


def yesterday(series: Floats, origin: int, leads: int, day: int) -> Floats:
    """The last 24 hours again."""
    return _back(series, origin, leads, day)


def last_week(series: Floats, origin: int, leads: int, day: int) -> Floats:
    """The last seven days again."""
    return _back(series, origin, leads, 7 * day)


def day_and_week(series: Floats, origin: int, leads: int, day: int) -> Floats:
    """Mean of the two."""
    return (yesterday(series, origin, leads, day) + last_week(series, origin, leads, day)) / 2


def blend(series: Floats, origin: int, leads: int, day: int) -> Floats:
    """Mean shape of the last seven days, and the present level's distance from it, which decays."""
    days = min(DAYS_OF_SHAPE, origin // day)
    if days == 0:
        return persistence(series, origin, leads, day)
    shape: Floats = series[origin - days * day : origin].reshape(days, day).mean(axis=0)  # by steps since the origin
    recent = max(1, day // 24)
    away = series[origin - recent : origin].mean() - shape[-recent:].mean()
    lead = np.arange(leads)
    made: Floats = shape[lead % day] + away * np.exp(-(lead + 0.5) * 24.0 / day / DECAY_H)
    return made


SIMPLE: dict[str, Forecast] = {
    "persistence": persistence,
    "yesterday": yesterday,
    "last week": last_week,
    "day and week": day_and_week,
    "blend": blend,
}


class Ridge:
    """One linear model for each lead: last values, the same time of seven days, day and week means, hour, weekend.

    Without a calendar nobody knows which step is a Saturday: then the weekend is no part of it.
    """

    def __init__(self, leads: int, day: int, calendar: LocalCalendar | None = None) -> None:
        self.leads, self.day = leads, day
        self._calendar = calendar
        self._weights: Floats | None = None
        self._mean = self._scale = np.zeros(0)

    def _features(self, series: Floats, origins: "np.ndarray[tuple[int], np.dtype[np.intp]]", lead: int) -> Floats:
        day, at = self.day, origins + lead
        ago = [series[at - day * (k + lead // day)] for k in range(1, 8)]
        recent = max(1, day // 24)
        now = [series[origins - 1 - k * recent] for k in range(3)]
        total = np.concatenate([[0.0], np.cumsum(series)])
        means = [(total[origins] - total[origins - span]) / span for span in (day, 7 * day)]
        angle = 2 * np.pi * (at % day) / day
        hours = [f(k * angle) for k in (1, 2) for f in (np.sin, np.cos)]
        weekend = [] if self._calendar is None else [self._calendar.weekend(at)]
        return np.column_stack([*now, *ago, np.mean(ago, axis=0), *means, *hours, *weekend])

    @property
    def least(self) -> int:
        """Steps of history that a feature reaches back."""
        return (8 + self.leads // self.day) * self.day

    def fit(self, series: Floats, origin: int) -> bool:
        """Learn from the last RIDGE_DAYS before `origin`. False: the history is too short."""
        begin = max(self.least, origin - RIDGE_DAYS * self.day)
        last = origin - self.leads
        step = max(1, self.day // 24)
        origins = np.arange(begin, last + 1, step)
        if len(origins) < 4 * 24:
            return False
        weights, means, scales = [], [], []
        for lead in range(self.leads):
            x, y = self._features(series, origins, lead), series[origins + lead]
            mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-9
            x = (x - mean) / scale
            gram = x.T @ x + RIDGE_WEIGHT * np.eye(x.shape[1])
            weights.append(np.concatenate([[y.mean()], np.linalg.solve(gram, x.T @ (y - y.mean()))]))
            means.append(mean)
            scales.append(scale)
        self._weights, self._mean, self._scale = np.array(weights), np.array(means), np.array(scales)
        return True

    def predict(self, series: Floats, origin: int) -> Floats | None:
        """The leads from `origin` on; None before a fit."""
        if self._weights is None or origin < self.least:
            return None
        found = np.empty(self.leads)
        for lead in range(self.leads):
            x = (self._features(series, np.array([origin]), lead)[0] - self._mean[lead]) / self._scale[lead]
            found[lead] = self._weights[lead, 0] + x @ self._weights[lead, 1:]
        return found


def pinball(actual: Floats, low_to_high: Floats, quantiles: tuple[float, ...] = QUANTILES) -> float:
    """Mean pinball loss of the quantiles, one row each."""
    off = actual - low_to_high
    q = np.array(quantiles)[:, None]
    return float(np.mean(np.maximum(q * off, (q - 1) * off)))


def rank_correlation(one: Floats, other: Floats) -> float:
    """Kendall's tau-b of two short series; 0 where one of them is constant."""
    a, b = np.sign(one[:, None] - one), np.sign(other[:, None] - other)
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / size) if size else 0.0


def _band_pinball(errors: Floats) -> float:
    """Mean pinball loss of a forecast with the band that its own errors (origins, leads) give it.

    By this a forecast is chosen, not by its mean error: a plan stands on the band as much as on the middle.
    """
    low, high = np.quantile(errors, (QUANTILES[0], QUANTILES[-1]), axis=0)
    edges = np.stack([low, np.zeros_like(low), high])
    q = np.array(QUANTILES)[:, None, None]
    off = errors[None] - edges[:, None]
    return float(np.maximum(q * off, (q - 1) * off).mean())


@dataclass(frozen=True)
class Expected:
    """A forecast: the one used, its band, its past errors as whole paths, and what all of them were worth."""

    name: str
    middle: Floats
    low: Floats  # q10
    high: Floats  # q90
    paths: Floats  # (past origins, leads): actual less forecast
    loss: dict[str, float]  # mean absolute error over the past origins
    worth: dict[str, float]  # mean pinball loss of each with its own band: the lowest is the one used


def choice_text(expected: Expected) -> str:
    """Which forecast is used and by what error, beside that of every other one."""
    if len(expected.worth) < 2:
        return expected.name
    others = sorted((worth, name) for name, worth in expected.worth.items() if name != expected.name)
    beside = ", ".join(f"{name} {worth:.4g}" for worth, name in others)
    return f"{expected.name}: pinball {expected.worth[expected.name]:.4g} so far ({beside})"


class Forecaster:
    """Forecasts one series step by step, and keeps what each way of forecasting was worth.

    Call `learn` once a day or so with what is known by then, `expect` whenever a forecast is wanted.
    """

    def __init__(self, leads: int, day: int, *, every: int | None = None, names: tuple[str, ...] = (),
                 calendar: LocalCalendar | None = None) -> None:  # fmt: skip
        self.leads, self.day = leads, day
        self._every = every if every is not None else max(1, day // 4)  # past origins: four a day
        self._names = names
        self._ridge = Ridge(leads, day, calendar)
        self._made: dict[int, dict[str, Floats]] = {}
        self._fitted_at = self._unseen_from = -1

    def _all(self, series: Floats, origin: int) -> dict[str, Floats]:
        made = {name: f(series, origin, self.leads, self.day) for name, f in SIMPLE.items()}
        ridge = self._ridge.predict(series, origin)
        if ridge is not None:
            made[RIDGE] = ridge
            # Their errors are not the same ones, so the mean is often better than either.
            made[BOTH] = (ridge + blend(series, origin, self.leads, self.day)) / 2
        return {name: one for name, one in made.items() if not self._names or name in self._names}

    def learn(self, series: Floats, origin: int) -> None:
        """Make the forecasts of past origins that are missing, and fit the ridge once a week.

        The ridge is judged by what it had not seen: past origins are forecast by the fit before them.
        """
        begin = max(self.day, origin - ERROR_DAYS * self.day)
        if self._fitted_at < 0:
            self._fitted_at = self._unseen_from = max(begin, origin // 2)
            self._ridge.fit(series, self._fitted_at)
        begin += -begin % self._every
        for at in range(begin, origin - self.leads + 1, self._every):
            if at not in self._made:
                self._made[at] = self._all(series, at)
                if at < self._unseen_from:
                    for name in (RIDGE, BOTH):
                        self._made[at].pop(name, None)
        for at in [one for one in self._made if one < begin]:
            del self._made[at]
        if origin - self._fitted_at >= 7 * self.day:
            self._ridge.fit(series, origin)
            self._fitted_at = origin

    def expect(self, series: Floats, origin: int) -> Expected:
        """What the next leads will be. Only series[:origin] is looked at."""
        recent = series[max(0, origin - ERROR_DAYS * self.day) : origin]
        if (recent == recent[0]).all():  # no sun, one price: there is nothing to choose and nothing to be wrong in
            same, none = np.full(self.leads, recent[0]), np.zeros((0, self.leads))
            return Expected("persistence", same, same, same, none, {"persistence": 0.0}, {"persistence": 0.0})
        self.learn(series, origin)
        now = self._all(series[:origin], origin)
        past = [at for at in sorted(self._made) if at + self.leads <= origin]
        loss: dict[str, float] = {}
        worth: dict[str, float] = {}
        missed = {name: [series[at : at + self.leads] - self._made[at][name] for at in past if name in self._made[at]]
                  for name in now}  # fmt: skip
        for name, rows in missed.items():
            if rows and len(rows) >= len(past) // 2:
                errors = np.array(rows)
                loss[name] = float(np.abs(errors).mean())
                worth[name] = _band_pinball(errors)
        best = min(worth, key=lambda one: (worth[one], one)) if worth else next(
            iter([name for name in ("blend",) if name in now] or now))  # fmt: skip
        paths = np.array(missed[best]).reshape(-1, self.leads)
        middle = now[best]
        low, high = (np.quantile(paths, q, axis=0) if len(paths) else np.zeros(self.leads) for q in (0.1, 0.9))
        return Expected(best, middle, middle + low, middle + high, paths, loss, worth)
