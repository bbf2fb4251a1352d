"""Recharging that does more harm than good: behind a meter that looks seldom, a load's next rise finds it charging.

Below its limit a site recharges, and when the load rises, the grid carries both until the meter has shown it and the
converter has followed. How much of what was charged stood above the limit is counted from the readings alone, so a
late converter and a meter that averages are in it. Where it is more than a share, recharging waits, and tries again later:
the longer, the more often it was so. A battery that is nearly empty is recharged all the same.
"""

from libc.stdint cimport uint64_t

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.settings cimport *
from tidegate.ext.control.corridor cimport control_state_t, decision_t
from tidegate.ext.control.dispatch cimport state_of_charge
from tidegate.ext.estimate.estimate cimport estimate_state_t, plant_t


cdef extern from *:
    """
    #define HARM_SHARE 0.2     /* of what was charged: more is held back */
    #define LEAST_S 8.0        /* of the recharging rate: less tells nothing */
    #define MEMORY_S 120.0     /* of charging */
    #define HOLD_S 60.0
    #define HOLD_MOST_S 1800.0
    #define LOW_SHARE 0.25     /* of the target: below that it is recharged whatever it does */
    #define APART_MOST_S 2.0
    """
    const double HARM_SHARE, LEAST_S, MEMORY_S, HOLD_S, HOLD_MOST_S, LOW_SHARE, APART_MOST_S


cdef void recharging_watch(recharging_t* watch, const control_params_t* params, const estimate_state_t* estimate,
                           const plant_t* plant, const decision_t* last, control_state_t* state, double dt_s) noexcept nogil:
    watch.wait_s = fmax(watch.wait_s - dt_s, 0.0)
    if not plant.grid_ok:
        watch.t_ns = 0
    elif plant.grid_new and plant.grid_t_ns != watch.t_ns:
        count(watch, params, estimate, plant, last)
    if watch.wait_s > 0.0 and not state_of_charge(plant) < LOW_SHARE * params.target_soc:
        state.recharge_w = fmax(state.recharge_w, 0.0)


cdef inline void count(recharging_t* watch, const control_params_t* params, const estimate_state_t* estimate,
                       const plant_t* plant, const decision_t* last) noexcept nogil:
    """One reading of the meter."""
    cdef double apart_s = fmin(<double>(plant.grid_t_ns - watch.t_ns) * 1e-9, APART_MOST_S) if watch.t_ns else 0.0
    cdef double over_w = plant.grid_w - last.grid_limit_w, charge_w = fmin(-plant.ess_w, params.recharge_rate_w), keep
    # When a value appears that is above the limit, the load rose somewhere between it and the one before, and earlier
    # by the age.
    cdef double since_s = apart_s
    if over_w > 0.0 and plant.grid_w != watch.grid_w and watch.grid_w <= last.grid_limit_w:
        since_s += fmax(0.5 * (estimate.age_lo_s + estimate.age_hi_s), 0.0) if estimate.age_known else 0.0
        since_s += 0.5 * estimate.lags.interval.interval_s
    watch.t_ns = plant.grid_t_ns
    watch.grid_w = plant.grid_w
    if not charge_w > params.deadband_w:
        return
    keep = 1.0 - apart_s / MEMORY_S
    watch.charged_ws = keep * watch.charged_ws + charge_w * apart_s
    watch.harm_ws *= keep
    if over_w > params.deadband_w:
        watch.harm_ws += fmin(charge_w, over_w) * since_s
    if watch.harm_ws > HARM_SHARE * watch.charged_ws and watch.charged_ws > LEAST_S * params.recharge_rate_w:
        watch.hold_s = fmin(fmax(2.0 * watch.hold_s, HOLD_S), HOLD_MOST_S)
        watch.wait_s = watch.hold_s
        watch.harm_ws = watch.charged_ws = 0.0
