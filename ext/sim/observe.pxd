# ext/sim/observe.pxd: what the world notes of the core from outside.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tidegate.ext.sim.buses cimport world_t

# Appends what left the controller to the wire log: time, bus, length, bytes.
cdef void wire_note(world_t* world, uint64_t t_ns, int where, const uint8_t* bytes, uint32_t count) noexcept nogil
# Follows a load step from the meter's registers to the wire; call after each plant step.
cdef void follow_load_step(world_t* world, uint64_t t_ns) noexcept nogil
# A setpoint has reached PCS `number`: t_ns is its last byte.
cdef void setpoint_arrived(world_t* world, int number, uint64_t t_ns) noexcept nogil
# After each cycle: counts what the core must never do; adds a row to the series when one is due.
cdef void world_check(world_t* world) noexcept nogil
cdef void series_row(world_t* world) noexcept nogil
