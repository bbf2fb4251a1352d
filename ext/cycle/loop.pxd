# ext/cycle/loop.pxd: one cycle of the core, and the thread that repeats it.
from libc.stdint cimport uint64_t

from tidegate.ext.bus.can cimport can_bus_t
from tidegate.ext.cycle.core cimport core_t
from tidegate.ext.abi.program cimport program_t
from tidegate.ext.abi.shared cimport Shared, shared_t

cdef void core_init(core_t* core, const program_t* program, shared_t* shared) noexcept nogil
cdef void core_cycle(core_t* core, uint64_t t_ns, uint64_t dt_ns, uint64_t cycle) noexcept nogil
# Its phases, for tests that leave one out (sim/disturb.pyx).
cdef void read(core_t* core, uint64_t t_ns) noexcept nogil
cdef void estimate(core_t* core, uint64_t t_ns, uint64_t dt_ns) noexcept nogil
cdef void control(core_t* core, uint64_t dt_ns) noexcept nogil
cdef void limit(core_t* core, uint64_t t_ns, uint64_t dt_ns) noexcept nogil
cdef void write(core_t* core, uint64_t t_ns) noexcept nogil
cdef void publish(core_t* core, uint64_t t_ns, uint64_t dt_ns, uint64_t cycle) noexcept nogil
# Before a cycle: the clock that it goes by, and two others.
cdef void see_clocks(core_t* core, uint64_t t_ns, uint64_t raw_ns, uint64_t boot_ns) noexcept nogil
# 1 once every unit's setpoint is 0 and every port has acknowledged its newest setpoint.
cdef int core_at_rest(const core_t* core) noexcept nogil
# Repeats core_cycle on an absolute grid until core.stop and at rest (or `stop_wait_ns` after the stop).
cdef void core_run(core_t* core, uint64_t stop_wait_ns) noexcept nogil


cdef class Core:
    cdef core_t* core
    cdef object program_buffer
    cdef Shared shared_memory
    cdef object ring
    cdef core_t* ptr(self) noexcept
    cdef can_bus_t* _bus(self, int bus) except NULL
