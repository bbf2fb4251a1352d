# ext/control/preference.pxd: contents page of wish.pyx.
from libc.stdint cimport uint32_t

from tidegate.ext.control.corridor cimport control_params_t, control_state_t, orders_t, plant_t

cdef extern from *:
    """
    #define RECHARGE_STEP 0.0625   /* of the rate */
    """
    const double RECHARGE_STEP

# The wish, and in `preference` the reason of its source. soc: of all units.
cdef double wish(const control_params_t* params, const plant_t* plant, const orders_t* orders, control_state_t* state,
                 double soc, double dt_s, uint32_t* preference) noexcept nogil

# Tells the recharge what came of its wish.
cdef void again(const control_params_t* params, control_state_t* state, double answer_w) noexcept nogil
