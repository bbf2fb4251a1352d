# ext/control/preference.pxd: contents page of preference.pyx.
from libc.stdint cimport uint32_t

from tidegate.ext.abi.settings cimport control_params_t
from tidegate.ext.control.corridor cimport control_state_t, orders_t
from tidegate.ext.estimate.estimate cimport plant_t

cdef extern from *:
    """
    #define RECHARGE_STEP 0.0625   /* of the rate */
    """
    const double RECHARGE_STEP

# The preferred power, and in `preference` the reason of its source. soc: of all units.
cdef double preferred_power(const control_params_t* params, const plant_t* plant, const orders_t* orders, control_state_t* state,
                            double soc, double dt_s, uint32_t* preference) noexcept nogil

# Sets the recharging power back to one step ahead of what was allowed.
cdef void recharge_backoff(const control_params_t* params, control_state_t* state, double answer_w) noexcept nogil
