# ext/control/hunting.pxd: contents page of hunting.pyx.
from tidegate.ext.abi.settings cimport control_params_t
from tidegate.ext.control.corridor cimport hunting_t
from tidegate.ext.estimate.estimate cimport plant_t

# The request, slowed down for as long as battery and meter chase each other, or held to try whether they do.
# hi_w: the corridor's edge; given_w: what somebody orders, 0 = nobody does.
cdef double hunting_damp(const control_params_t* params, const plant_t* plant, hunting_t* h, double wanted_w,
                         double hi_w, double given_w, double dt_s) noexcept nogil

# What moves the battery now is not the control: neither turns nor a trial tell anything.
cdef inline void hunting_disturbed(hunting_t* h) noexcept nogil:
    h.count = 0
    h.alike = 0
    h.trial = 0
