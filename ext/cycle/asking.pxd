# ext/cycle/asking.pxd: contents page of asking.pyx.
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.cycle.core cimport core_t

# A doubtful grid meter is asked; what the units are held at meanwhile.
cdef void ask_meter(core_t* core, uint64_t t_ns) noexcept nogil
# Steps of all units beside what the control wants, by which a slow meter is to show the battery, W.
cdef double stir(core_t* core, uint64_t t_ns) noexcept nogil
# Whether the meter has yet to show what the pulses of arming did, as in cabinet.pxd.
cdef uint32_t answer_of_meter(const core_t* core) noexcept nogil
