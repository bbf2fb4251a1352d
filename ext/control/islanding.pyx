"""What a battery does in an island that a genset carries: keep the genset between its limits, and be charged from it.

The connection's limits, the tariff's and the grid operator's are about a grid that is not there. What the backup reserve
was kept for is this.
"""

from libc.math cimport isfinite
from libc.stdint cimport uint32_t

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.image cimport REASON_ISLAND, REASON_LEASE, REASON_MANUAL, REASON_REST
from tidegate.ext.abi.settings cimport control_params_t
from tidegate.ext.control.corridor cimport ORDER_MANUAL, control_state_t, orders_t, policy_t
from tidegate.ext.estimate.estimate cimport plant_t

cdef double CHARGE_RISE = 0.05  # of the genset's most power, a second: an engine takes its load in steps


cdef policy_t genset_limit(const control_params_t* params, const plant_t* plant) noexcept nogil:
    cdef policy_t p
    p.lo = plant.net_w - params.genset_w_max + params.deadband_w
    # Where the meter's doubt leaves no room for both, the most goes before the least.
    p.hi = fmax(plant.net_lo_w - params.genset_w_min - params.deadband_w, p.lo)
    p.reason = REASON_ISLAND
    return p


cdef double island_preference(const control_params_t* params, const plant_t* plant, const orders_t* orders,
                              control_state_t* state, double soc, double dt_s, uint32_t* preference) noexcept nogil:
    cdef double wanted_w
    if orders.flags & ORDER_MANUAL and isfinite(orders.lease_w):
        preference[0] = REASON_MANUAL
        return orders.lease_w
    if orders.lease_held and isfinite(orders.lease_w):
        preference[0] = REASON_LEASE
        return orders.lease_w
    if soc >= params.genset_stop_soc:
        state.island_full = 1
    elif soc < params.genset_start_soc:
        state.island_full = 0
    wanted_w = fmin(plant.net_w - params.genset_charge_w, 0.0)
    if state.island_full or not isfinite(soc):
        wanted_w = 0.0
    state.recharge_w = fmax(wanted_w, state.recharge_w - CHARGE_RISE * params.genset_w_max * dt_s)
    preference[0] = REASON_ISLAND if state.recharge_w < 0.0 else REASON_REST
    return state.recharge_w
