# ext/bus/can_view.pxd: a CAN bus as Python sees it.
from tidegate.ext.bus.can cimport can_bus_t, can_frame_stats_t
from tidegate.ext.abi.program cimport program_t

# What a thread outside the loop may do with a bus that the loop works on.
cdef class BusHandle:
    cdef const program_t* program
    cdef can_bus_t* bus
    cdef const can_frame_stats_t* per_id
    cdef object owner  # keeps the memory alive

cdef BusHandle bus_handle(const program_t* program, can_bus_t* bus, const can_frame_stats_t* per_id, object owner)
