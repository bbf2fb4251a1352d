"""The preference: the battery power that would be taken if every policy allowed it, and who asks for it.

Lease, plan, self-consumption, recharge, rest: the first source that is there. An absent one falls to the next.
"""

from libc.math cimport fabs, floor, isfinite

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.settings cimport *
from tidegate.ext.control.corridor cimport *
from tidegate.ext.estimate.estimate cimport *
from tidegate.ext.abi.image cimport *


cdef extern from *:
    """
    #define RECHARGE_START 0.015   /* below the target, of the state of charge: more than one whole percent */
    #define RECHARGE_END 0.001
    #define RECHARGE_TAPER 0.02    /* full rate from here on */
    #define SOC_BACK 0.01999       /* two whole percents: what has ended at a state of charge begins anew when that is gone again by so much */
    #define RESTORE_START 0.005
    """
    const double RECHARGE_START, RECHARGE_END, RECHARGE_TAPER, SOC_BACK, RESTORE_START


cdef double recharge_preference(const control_params_t* params, control_state_t* state, double soc, double dt_s) noexcept nogil:
    """Charging (or, where a ramp is followed, discharging) power that leads the state of charge to its target.

    Starts one percent below the target and ends at it, rises within two seconds in sixteen steps: a setpoint for
    every watt would fill the bus.
    """
    cdef double rate_w = params.recharge_rate_w
    cdef double missing = params.target_soc - soc, preferred_w
    if not rate_w > 0.0 or not isfinite(missing):
        state.recharging = 0
        state.recharge_w = 0.0
        return 0.0
    if not state.recharging:
        state.recharging = missing > RECHARGE_START or (params.recentre > 0.0 and -missing > RECHARGE_START)
    elif (missing <= 0.0 and not params.recentre > 0.0) or fabs(missing) <= RECHARGE_END:
        state.recharging = 0
    if not state.recharging:
        state.recharge_w = 0.0
        return 0.0
    preferred_w = -rate_w * fmin(fmax(missing / RECHARGE_TAPER, -1.0), 1.0)
    if fabs(preferred_w) < fabs(state.recharge_w) or preferred_w * state.recharge_w < 0.0:
        state.recharge_w = 0.0 if preferred_w * state.recharge_w < 0.0 else preferred_w
    elif preferred_w < 0.0:
        state.recharge_w = fmax(preferred_w, state.recharge_w - 0.5 * rate_w * dt_s)
    else:
        state.recharge_w = fmin(preferred_w, state.recharge_w + 0.5 * rate_w * dt_s)
    return quantized(state.recharge_w, rate_w * RECHARGE_STEP)


cdef void recharge_backoff(const control_params_t* params, control_state_t* state, double answer_w) noexcept nogil:
    """What was not allowed grows again from what was, one step ahead of it."""
    cdef double step_w = params.recharge_rate_w * RECHARGE_STEP
    if state.recharge_w < 0.0:
        state.recharge_w = fmin(fmax(state.recharge_w, answer_w - step_w), 0.0)
    else:
        state.recharge_w = fmax(fmin(state.recharge_w, answer_w + step_w), 0.0)


cdef inline double quantized(double value, double step) noexcept nogil:
    # Towards zero, with a little for the last bit of a sum of steps.
    return 0.0 - floor(-value / step + 1e-9) * step if value < 0.0 else floor(value / step + 1e-9) * step


cdef bint plan_target_reached(const orders_t* orders, control_state_t* state, double soc) noexcept nogil:
    """1 from when the plan's row has led the state of charge where it should, until that is lost again by SOC_BACK."""
    cdef double back = SOC_BACK + 2e-5
    if state.plan_done == orders.plan_number and orders.plan_number:
        if (orders.plan_w < 0.0 and soc < orders.plan_until_soc - back) or (
                orders.plan_w > 0.0 and soc > orders.plan_until_soc + back):
            state.plan_done = 0
    if state.plan_done == orders.plan_number and orders.plan_number:
        return 1
    if (orders.plan_w < 0.0 and soc >= orders.plan_until_soc) or (orders.plan_w > 0.0 and soc <= orders.plan_until_soc):
        state.plan_done = orders.plan_number
        return 1
    return 0


cdef double battery_asks_w(const plant_t* plant) noexcept nogil:
    """What the batteries ask for themselves, all together."""
    cdef double forced_w = 0.0
    cdef uint32_t unit
    for unit in range(plant.n_units):
        if plant.units[unit].available and isfinite(plant.units[unit].forced_w):
            forced_w += plant.units[unit].forced_w
    return forced_w


cdef double low_charge(const control_params_t* params, control_state_t* state, double soc) noexcept nogil:
    """Charging power below force_soc, whoever wishes otherwise; every limit of the grid narrows it."""
    if not params.force_soc > 0.0 or not isfinite(soc) or soc >= params.force_soc + SOC_BACK:
        state.low_charging = 0
    elif soc < params.force_soc:
        state.low_charging = 1
    return -charge_rate(params) if state.low_charging else 0.0


cdef double restoring(const control_params_t* params, const plant_t* plant, control_state_t* state, double soc) noexcept nogil:
    """Charging power that brings the reserve back: what would be exported, and up to restore_w from the grid."""
    if not params.reserve_soc > 0.0 or not isfinite(soc) or soc >= params.reserve_soc + SOC_BACK:
        state.restoring = 0
    elif soc < params.reserve_soc - RESTORE_START:
        state.restoring = 1
    return -fmax(fmax(-plant.net_w, 0.0), fmax(params.restore_w, 0.0)) if state.restoring else 0.0


cdef inline double charge_rate(const control_params_t* params) noexcept nogil:
    return params.recharge_rate_w if params.recharge_rate_w > 0.0 else 1e9  # whatever the envelope leaves


cdef double preferred_power(const control_params_t* params, const plant_t* plant, const orders_t* orders, control_state_t* state,
                            double soc, double dt_s, uint32_t* preference) noexcept nogil:
    """The point that would be taken if every policy allowed it. An absent source falls to the next."""
    cdef double preferred_w
    cdef bint planned = orders.flags & ORDER_PLAN and isfinite(orders.plan_w) and not plan_target_reached(orders, state, soc)
    if orders.flags & ORDER_MANUAL and isfinite(orders.lease_w):
        preference[0] = REASON_MANUAL
        return orders.lease_w
    preferred_w = battery_asks_w(plant)
    if preferred_w != 0.0:
        preference[0] = REASON_BATTERY
        return preferred_w
    preferred_w = low_charge(params, state, soc)
    if preferred_w != 0.0:
        preference[0] = REASON_LOW_SOC
        return preferred_w
    if planned and orders.flags & ORDER_FORCED:
        preference[0] = REASON_FORCED
        return orders.plan_w
    preferred_w = restoring(params, plant, state, soc)
    if preferred_w != 0.0:
        preference[0] = REASON_RESTORE
        return preferred_w
    if orders.lease_held and isfinite(orders.lease_w):
        preference[0] = REASON_LEASE
        return orders.lease_w
    if planned:
        preference[0] = REASON_PLAN
        return orders.plan_w
    if orders.flags & ORDER_TARGET and isfinite(orders.target_grid_w):
        preference[0] = REASON_SELF_CONSUMPTION
        return plant.net_w - orders.target_grid_w
    if params.follow_grid > 0.0 and isfinite(params.target_grid_w):
        preference[0] = REASON_SELF_CONSUMPTION
        return plant.net_w - params.target_grid_w
    preferred_w = recharge_preference(params, state, soc, dt_s)
    preference[0] = REASON_RECENTRE if preferred_w != 0.0 else REASON_REST
    return preferred_w
