# ext/cycle/outputs.pxd: setpoints, heartbeats and constants for the serial ports.
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.cycle.core cimport core_t

cdef void write_command(core_t* core, uint32_t port, uint32_t slot, uint32_t number, uint64_t t_ns) noexcept nogil
