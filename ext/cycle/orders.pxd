# ext/cycle/orders.pxd: orders from outside, while they are in force.
from libc.stdint cimport uint64_t

from tidegate.ext.abi.image cimport point_t
from tidegate.ext.abi.program cimport program_t
from tidegate.ext.abi.ring cimport recorder_t
from tidegate.ext.abi.shared cimport shared_t
from tidegate.ext.control.corridor cimport orders_t
from tidegate.ext.cycle.core cimport external_t, inbox_t

# Takes over what is new in the mailbox and the plan; inbox.orders and inbox.params are what is in force at t_ns.
cdef void update_orders(const program_t* program, shared_t* shared, const external_t* external, inbox_t* inbox,
                        recorder_t* recorder, uint64_t t_ns) noexcept nogil
# What the grid operator's contacts say, on top of that. One that nobody can read counts as commanded.
cdef void relay_orders(const program_t* program, const point_t* image, orders_t* orders) noexcept nogil
cdef int edge(inbox_t* inbox, int kind, uint64_t t_ns) noexcept nogil
