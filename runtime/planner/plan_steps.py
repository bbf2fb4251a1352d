"""A plan as the steps of `schedule`: equal neighbours merged, the near hours first, to fit what the API takes."""

import json
import math

import numpy as np

from tidegate.runtime.planner.plan_inputs import Connection, PlanError, Storage
from tidegate.runtime.planner.plan_solver import Plan

SENT_STEPS = 96  # the nearest: a day of quarter hours
SENT_BYTES = 7_600  # of the 8,192 that a message may have
SAME_KW = 0.05  # two steps nearer than this are one
MOVES_KW = 0.05

Step = dict[str, float | int]


def steps_of(plan: Plan, storage: Storage, connection: Connection) -> tuple[list[Step], int]:
    """(steps, end in UTC s). A step has the battery's power and the state of charge where that ends; rest has 0 W.

    In a step the battery is asked for the plan's mean; limits of the site file bind as ever. What does not fit is left
    out at the end: it will be planned again before it comes. A step that charges carries the import that charging may
    reach (connection.recharge_kw_max), at each moment and as the mean of the demand window, to the end of the windows
    that it lies in: where a load leaps, the loop cuts the charging back. That bound is this month's, so no charging is
    sent for the month after: what its peak will be nobody knows, and the planner may not live to say it. Raises
    PlanError for a plan that is none.
    """
    if not (np.isfinite(plan.battery_kw).all() and np.isfinite(plan.stored_kwh).all()):
        raise PlanError("the plan has a value that is no number: it is not sent")
    horizon = plan.horizon
    found: list[Step] = []
    last_kw: float | None = None
    end_s = horizon.start_utc_s + len(plan.import_kw) * horizon.step_s
    limits_kw = horizon.import_kw_max if len(horizon.import_kw_max) else np.full(len(plan.import_kw), np.inf)
    battery_kw, bound_kw = plan.battery_kw, connection.recharge_kw_max
    bounded = np.zeros(len(battery_kw), dtype=bool)  # the window's mean has a bound: it charges, or did in this window
    if math.isfinite(bound_kw):
        battery_kw = np.where(horizon.demand_counts, battery_kw, np.maximum(battery_kw, 0.0))
        charges = battery_kw <= -MOVES_KW
        limits_kw = np.where(charges, np.minimum(limits_kw, horizon.recharge_limits_kw(connection)), limits_kw)
        for later in range(1 + math.ceil(connection.window_rest_s / horizon.step_s)):
            bounded[later:] |= charges[: len(charges) - later]
    last, size = (math.inf, False), 0
    rows = zip(battery_kw.tolist(), limits_kw.tolist(), bounded.tolist(), strict=True)
    for k, (power_kw, limit_kw, is_bounded) in enumerate(rows):
        power = 0.0 if abs(power_kw) < MOVES_KW else power_kw
        if last_kw is not None and abs(power - last_kw) < SAME_KW and (limit_kw, is_bounded) == last:
            if power and found:
                found[-1]["until_soc"] = _soc(plan, storage, k)
            continue
        step: Step = {"start_utc_s": horizon.start_utc_s + k * horizon.step_s, "setpoint_w": round(power * 1e3)}
        if power:
            step["until_soc"] = _soc(plan, storage, k)
        if math.isfinite(limit_kw):
            step["import_w_max"] = math.floor(limit_kw * 1e3)
        if is_bounded:
            step["demand_w_max"] = math.floor(bound_kw * 1e3)
        size += len(json.dumps(step))
        if len(found) == SENT_STEPS or size > SENT_BYTES:
            end_s = horizon.start_utc_s + k * horizon.step_s
            break
        found.append(step)
        last_kw, last = power, (limit_kw, is_bounded)
    return found, end_s


def _soc(plan: Plan, storage: Storage, k: int) -> float:
    """Share at the step's end, a little beyond it, so that rounding does not end a step early."""
    soc = float(plan.stored_kwh[k]) / storage.energy_kwh
    beyond = -0.005 if plan.discharge_kw[k] > plan.charge_kw[k] else 0.005
    return round(min(storage.soc_max, max(storage.soc_min, soc + beyond)), 4)
