# ext/sim/world.pxd: one plant with its buses in virtual time.
from tidegate.ext.sim.assembly cimport Assembly
from tidegate.ext.sim.buses cimport world_t

# One cycle of virtual time: bus events up to its end, the plant, the core.
cdef void world_cycle(world_t* world) noexcept nogil


cdef class World(Assembly):
    pass
