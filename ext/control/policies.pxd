# ext/control/policies.pxd: contents page of policies.pyx.
from libc.math cimport INFINITY, isfinite
from libc.stdint cimport uint32_t

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.settings cimport CIRCUITS_MAX, control_params_t
from tidegate.ext.control.corridor cimport ORDER_CEASE, ORDER_DEMAND, control_state_t, demand_memory_t, orders_t, policy_t
from tidegate.ext.estimate.estimate cimport plant_t


cdef inline double import_limit(double value) noexcept nogil:
    # fmax takes the number of the two: a limit that is none (NaN) means 0, less power and not more.
    return fmax(value, 0.0)


cdef inline double some(double value, double otherwise) noexcept nogil:
    return value if value > 0.0 else otherwise


cdef inline double demand_limit(const control_params_t* params, const plant_t* plant, const orders_t* orders) noexcept nogil:
    """Mean that a demand window may have by the utility's count; what has been paid for need not be shaved again."""
    cdef double limit_w = some(params.demand_w_max, INFINITY)
    if orders.flags & ORDER_DEMAND:
        limit_w = fmin(limit_w, import_limit(orders.demand_w_max))
    return fmax(limit_w, params.demand_ratchet * plant.demand_paid_w)


cdef inline double circuit_need(const control_params_t* params, const plant_t* plant, int circuit) noexcept nogil:
    """Power that the units behind a sub-meter must give at least; minus infinity where it has no limit."""
    if not (plant.circuits_ok >> circuit & 1 and 0.0 < params.circuit_import_w_max[circuit] < INFINITY):
        return -INFINITY
    return plant.circuit_net_w[circuit] - params.circuit_import_w_max[circuit] + params.deadband_w


cdef inline bint operator_orders(const orders_t* orders) noexcept nogil:
    """The grid's operator has ordered something."""
    return (orders.flags & ORDER_CEASE) != 0 or isfinite(orders.operator_import_w_max) or isfinite(orders.operator_export_w_max)


# The policies, strongest first.
cdef policy_t reconnection(const plant_t* plant) noexcept nogil
cdef policy_t unproven_meter(const plant_t* plant) noexcept nogil
# So much may be discharged for what a meter shows whose sign is not known. unproven_w: whatever it shows.
cdef double unproven_discharge_w(const plant_t* plant, double unproven_w) noexcept nogil
cdef policy_t grid_operator(const control_params_t* params, const plant_t* plant, const orders_t* orders) noexcept nogil
cdef policy_t connection_limit(const control_params_t* params, const plant_t* plant, const orders_t* orders) noexcept nogil
cdef policy_t export_limit(const control_params_t* params, const plant_t* plant, const orders_t* orders) noexcept nogil
cdef policy_t phase_limit(const control_params_t* params, const plant_t* plant) noexcept nogil
cdef policy_t circuit_limit(const control_params_t* params, const plant_t* plant) noexcept nogil
cdef policy_t backup_reserve(const control_params_t* params, const plant_t* plant) noexcept nogil
cdef policy_t direction_limit(const orders_t* orders) noexcept nogil
cdef policy_t demand_window(const control_params_t* params, const plant_t* plant, const orders_t* orders,
                            const control_state_t* state, double hi_w, double dt_s) noexcept nogil
cdef policy_t peak_limit(const control_params_t* params, const plant_t* plant, const orders_t* orders) noexcept nogil
cdef policy_t ramp_limit(const control_params_t* params, const plant_t* plant, const control_state_t* state,
                         double dt_s) noexcept nogil
cdef policy_t range_limit(const control_params_t* params, const plant_t* plant, const control_state_t* state) noexcept nogil
cdef policy_t oscillation_damping(const control_params_t* params, const control_state_t* state,
                                  double answer_w) noexcept nogil
cdef policy_t recharge_band(const control_params_t* params, const plant_t* plant) noexcept nogil
cdef policy_t soc_band(const control_params_t* params, const plant_t* plant) noexcept nogil

# Memory of the dynamic range limit and of the damping, kept once a cycle.
cdef void range_keep(const control_params_t* params, control_state_t* state, double grid_w, double dt_s) noexcept nogil
cdef void demand_remember(const control_params_t* params, const plant_t* plant, const orders_t* orders,
                          demand_memory_t* memory, double dt_s) noexcept nogil
cdef void band_pass(const control_params_t* params, const plant_t* plant, control_state_t* state, double dt_s) noexcept nogil
