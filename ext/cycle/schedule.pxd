# ext/cycle/schedule.pxd: contents page of schedule.pyx.
from libc.stdint cimport uint64_t

from tidegate.ext.cycle.core cimport core_t

# Takes a new plan over, and what of it is in force at t_ns into core.planned.
cdef void update_plan(core_t* core, uint64_t t_ns) noexcept nogil
