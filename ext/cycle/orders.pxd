# ext/cycle/orders.pxd: orders from outside, while they are in force.
from libc.stdint cimport uint64_t

from tidegate.ext.cycle.core cimport core_t

cdef void update_orders(core_t* core, uint64_t t_ns) noexcept nogil
cdef int edge(core_t* core, int kind, uint64_t t_ns) noexcept nogil
