# ext/cycle/enforcement.pxd: contents page of enforcement.pyx.
from libc.stdint cimport uint64_t

from tidegate.ext.abi.image cimport point_t
from tidegate.ext.abi.shared cimport shared_t
from tidegate.ext.cycle.core cimport core_t, enforcement_t

# Raises an event within a second of a configured limit not being enforced any more, and when it is again.
cdef void check_enforcement(const core_t* core, enforcement_t* w, point_t* image, shared_t* shared, uint64_t t_ns,
                            uint64_t cycle) noexcept nogil
