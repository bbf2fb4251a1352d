# ext/control/dispatch.pxd: contents page of dispatch.pyx.
from tidegate.ext.abi.settings cimport control_params_t
from tidegate.ext.control.corridor cimport control_state_t, decision_t
from tidegate.ext.estimate.estimate cimport plant_t

# Of all units that take part, weighted by their energy; NaN with none.
cdef double state_of_charge(const plant_t* plant) noexcept nogil

# Shares total_w among the units by headroom and state of charge; never beyond a unit's envelope.
cdef void split(const control_params_t* params, const plant_t* plant, double total_w, double* request_w) noexcept nogil

# The same, but leaves the units where they are while the new split differs by little.
cdef void share_out(const control_params_t* params, const plant_t* plant, control_state_t* state,
                    decision_t* decision, double total_w) noexcept nogil
