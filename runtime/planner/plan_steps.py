"""A plan as the steps of `schedule`: equal neighbours merged, the near hours first, to fit what the API takes."""

import numpy as np

from tidegate.runtime.planner.plan_inputs import PlanError, Storage
from tidegate.runtime.planner.plan_solver import Plan

SENT_STEPS = 96  # of three values each fit into one message
SAME_KW = 0.05  # two steps nearer than this are one
MOVES_KW = 0.05

Step = dict[str, float | int]


def steps_of(plan: Plan, storage: Storage, recharge_kw_max: float = np.inf) -> tuple[list[Step], int]:
    """(steps, end in UTC s). A step has the battery's power and the state of charge where that ends; rest has 0 W.

    In a step the battery is asked for the plan's mean; limits of the site file bind as ever. What does not fit is left
    out at the end: it will be planned again before it comes. A step that charges carries the import that charging may
    reach (recharge_kw_max): where a load leaps within the step, the loop cuts the charging back. Raises PlanError for a
    plan that is none.
    """
    if not (np.isfinite(plan.battery_kw).all() and np.isfinite(plan.stored_kwh).all()):
        raise PlanError("the plan has a value that is no number: it is not sent")
    horizon = plan.horizon
    found: list[Step] = []
    last_kw: float | None = None
    end_s = horizon.start_utc_s + len(plan.import_kw) * horizon.step_s
    limits_kw = horizon.import_kw_max if len(horizon.import_kw_max) else np.full(len(plan.import_kw), np.inf)
    limits_kw = np.where(plan.battery_kw < -MOVES_KW, np.minimum(limits_kw, recharge_kw_max), limits_kw)
    last_limit_kw = np.inf
    for k, power in enumerate(plan.battery_kw):
        power = 0.0 if abs(power) < MOVES_KW else float(power)
        if last_kw is not None and abs(power - last_kw) < SAME_KW and limits_kw[k] == last_limit_kw:
            if power and found:
                found[-1]["until_soc"] = _soc(plan, storage, k)
            continue
        if len(found) == SENT_STEPS:
            end_s = horizon.start_utc_s + k * horizon.step_s
            break
        step: Step = {"start_utc_s": horizon.start_utc_s + k * horizon.step_s, "setpoint_w": round(power * 1e3)}
        if power:
            step["until_soc"] = _soc(plan, storage, k)
        if np.isfinite(limits_kw[k]):
            step["import_w_max"] = round(float(limits_kw[k]) * 1e3)
        found.append(step)
        last_kw, last_limit_kw = power, limits_kw[k]
    return found, end_s


def _soc(plan: Plan, storage: Storage, k: int) -> float:
    """Share at the step's end, a little beyond it, so that rounding does not end a step early."""
    soc = float(plan.stored_kwh[k]) / storage.energy_kwh
    beyond = -0.005 if plan.battery_kw[k] > 0 else 0.005
    return round(min(storage.soc_max, max(storage.soc_min, soc + beyond)), 4)
