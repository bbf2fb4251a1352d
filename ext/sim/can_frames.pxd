# ext/sim/can_frames.pxd: CAN of the simulated plant.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tidegate.ext.sim.buses cimport can_frame_out_t, world_t

# Writes the frame of row `row` as it is now; returns its length.
cdef int frame_encode(world_t* world, can_frame_out_t* frame, uint8_t* data) noexcept nogil
cdef void can_emit(world_t* world, uint64_t t_ns) noexcept nogil
cdef void can_flood(world_t* world, uint64_t t_ns) noexcept nogil
cdef void can_take(world_t* world, uint64_t t_ns) noexcept nogil
cdef void can_state(world_t* world, int bus, uint32_t kind, uint8_t controller, uint64_t t_ns) noexcept nogil
