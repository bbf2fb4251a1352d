# ext/cycle/schedule.pxd: contents page of schedule.pyx.
from libc.stdint cimport uint64_t

from tidegate.ext.abi.ring cimport recorder_t
from tidegate.ext.abi.shared cimport shared_t
from tidegate.ext.cycle.core cimport inbox_t

# Takes a new plan over, and what of it is in force at t_ns into inbox.planned.
cdef void update_plan(shared_t* shared, inbox_t* inbox, recorder_t* recorder, uint64_t t_ns) noexcept nogil
