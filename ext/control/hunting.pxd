# ext/control/hunting.pxd: contents page of hunting.pyx.
from tidegate.ext.abi.settings cimport control_params_t
from tidegate.ext.control.corridor cimport hunting_t
from tidegate.ext.estimate.estimate cimport plant_t

# The request, slowed down for as long as battery and meter chase each other.
cdef double hunting_damp(const control_params_t* params, const plant_t* plant, hunting_t* h, double wanted_w,
                         double dt_s) noexcept nogil
