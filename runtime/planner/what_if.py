"""The plan beside the one that it would be if a limit were another: figures of both, and what neither could hold."""

from dataclasses import dataclass, replace

from tidegate.runtime.planner.announced_jobs import AnnouncedJob
from tidegate.runtime.planner.day_ahead import DayAhead, Wishes
from tidegate.runtime.planner.plan_inputs import PlanError
from tidegate.runtime.planner.plan_solver import Plan

PEAK_KW_MAX = 1e6
LATER_H_MAX = 168.0


@dataclass(frozen=True)
class Otherwise:
    """What is to be otherwise; 0 = as it is. Raises PlanError where nothing is, or what cannot be."""

    peak_limit_kw: float = 0.0
    jobs_later_h: float = 0.0

    def __post_init__(self) -> None:
        for name, most in (("peak_limit_kw", PEAK_KW_MAX), ("jobs_later_h", LATER_H_MAX)):
            if not 0 <= getattr(self, name) <= most:  # NaN is none of these either
                raise PlanError(f"{name} = {getattr(self, name)}: give a number from 0 to {most:g}")
        if not (self.peak_limit_kw or self.jobs_later_h):
            raise PlanError("give a peak limit, later jobs or both: what is to be otherwise?")

    def wishes(self, wishes: Wishes) -> Wishes:
        """With the other limit."""
        return replace(wishes, peak_limit_kw=self.peak_limit_kw or wishes.peak_limit_kw)

    def jobs(self, jobs: tuple[AnnouncedJob, ...]) -> tuple[AnnouncedJob, ...]:
        """With the other deadlines."""
        later_s = round(self.jobs_later_h * 3600)
        return tuple(replace(job, deadline_utc_s=job.deadline_utc_s + later_s) for job in jobs)


def figures(plan: Plan) -> dict[str, float]:
    """Of one plan, units in the names. cost_eur: energy, wear and peak, less what is left in the battery."""
    return {
        "cost_eur": plan.bill_eur,
        "import_kw_max": float(plan.import_kw.max()),
        "import_kwh": float(plan.import_kw.sum()) * plan.horizon.step_h,
        "stored_kwh": float(plan.stored_kwh[-1]),
    }


def beside(first: DayAhead, other: DayAhead) -> dict[str, object]:
    """Both plans' figures and what could not be held under each, as JSON has it."""
    horizon = first.plan.horizon
    return {
        "start_utc_s": horizon.start_utc_s,
        "end_utc_s": horizon.start_utc_s + len(horizon.load_kw) * horizon.step_s,
        "as_it_is": {name: round(value, 3) for name, value in figures(first.plan).items()},
        "if": {name: round(value, 3) for name, value in figures(other.plan).items()},
        "relaxed": [*first.said, *first.plan.relaxed],
        "relaxed_if": [*other.said, *other.plan.relaxed],
    }
