# ext/cycle/enforcement.pxd: contents page of enforcement.pyx.
from libc.stdint cimport uint64_t

from tidegate.ext.cycle.core cimport core_t

# Raises an event within a second of a configured limit not being enforced any more, and when it is again.
cdef void check_enforcement(core_t* core, uint64_t t_ns, uint64_t cycle) noexcept nogil
