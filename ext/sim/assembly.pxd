# ext/sim/assembly.pxd: the Python view that puts one simulated plant together.
from tidegate.ext.sim.buses cimport world_t
from tidegate.ext.sim.slave cimport slave_t


cdef class Assembly:
    cdef world_t* world
    cdef list keep
    cdef world_t* ptr(self) noexcept
    cdef slave_t* slave_at(self, int number) except NULL
    cdef const double* variable(self, tuple source) except NULL
