# ext/sim/world.pxd: one plant with its buses in virtual time, and the Python view that builds it.
from tidegate.ext.sim.buses cimport world_t
from tidegate.ext.sim.slave cimport slave_t

# One cycle of virtual time: bus events up to its end, the plant, the core.
cdef void world_cycle(world_t* world) noexcept nogil


cdef class World:
    cdef world_t* world
    cdef list keep
    cdef world_t* ptr(self) noexcept
    cdef slave_t* slave_at(self, int number) except NULL
    cdef const double* variable(self, tuple source) except NULL
