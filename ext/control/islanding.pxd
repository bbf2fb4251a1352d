# ext/control/islanding.pxd: contents page of islanding.pyx.
from libc.stdint cimport uint32_t

from tidegate.ext.abi.settings cimport control_params_t
from tidegate.ext.control.corridor cimport control_state_t, orders_t, policy_t
from tidegate.ext.estimate.estimate cimport plant_t

# Battery power that keeps the genset between its least load and its most.
cdef policy_t genset_limit(const control_params_t* params, const plant_t* plant) noexcept nogil

# The point that is taken in an island if the genset's limits allow it, and who asks for it.
cdef double island_preference(const control_params_t* params, const plant_t* plant, const orders_t* orders,
                              control_state_t* state, double soc, double dt_s, uint32_t* preference) noexcept nogil
