# ext/estimate/demand.pxd: contents page of demand.pyx.
from libc.math cimport isfinite
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.abi.settings cimport control_params_t
from tidegate.ext.estimate.estimate cimport SUBWINDOWS_MAX, estimate_state_t, plant_t
from tidegate.ext.abi.image cimport point_t
from tidegate.ext.abi.program cimport program_t


cdef inline uint64_t demand_sub_ns(const control_params_t* params) noexcept nogil:
    cdef double window_s = params.demand_window_s if params.demand_window_s >= 1.0 else 900.0
    cdef double step_s = params.demand_step_s
    if not 1.0 <= step_s < window_s or window_s > step_s * SUBWINDOWS_MAX:
        step_s = window_s
    return <uint64_t>(step_s * 1e9)


cdef inline uint32_t demand_subs(const control_params_t* params) noexcept nogil:
    cdef double window_s = params.demand_window_s if params.demand_window_s >= 1.0 else 900.0
    cdef uint32_t subs = <uint32_t>(window_s * 1e9 / <double>demand_sub_ns(params) + 0.5)
    return min(max(subs, <uint32_t>1), <uint32_t>SUBWINDOWS_MAX)


# Adds the import between two grid readings to the sub-windows of the clock that it falls into.
cdef void demand_advance(const control_params_t* params, estimate_state_t* state, double from_w, double to_w,
                         uint64_t from_ns, uint64_t to_ns) noexcept nogil

# Closes the sub-windows up to `number`; a window that was measured nearly whole counts for the billing period.
cdef void demand_roll(const control_params_t* params, estimate_state_t* state, uint64_t number) noexcept nogil

# What the windows that are still open have used, for the policy.
cdef void demand_view(const program_t* program, const point_t* image, estimate_state_t* state, plant_t* plant,
                      uint64_t t_ns) noexcept nogil

# Learns the utility's energy register over our own integral.
cdef void learn_register(const program_t* program, const point_t* image, estimate_state_t* state) noexcept nogil

# The billing period that the plan says: its end, its number, its highest window from before this start (NaN = none).
cdef inline void billing_set(estimate_state_t* state, uint64_t end_t_ns, uint64_t number, double paid_w) noexcept nogil:
    state.billing_end_t_ns = end_t_ns
    state.billing_number = number
    state.billing_paid_w = paid_w if isfinite(paid_w) else 0.0
