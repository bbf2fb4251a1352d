# ext/bus/pylon_line.pxd: a line of Pylontech packs between an I/O thread and its engine; no descriptor, no clock inside.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tidegate.ext.abi.program cimport program_t
from tidegate.ext.bus.pylon cimport pylon_t
from tidegate.ext.bus.rtu cimport rtu_action_t, rtu_t

cdef struct pylon_line_t:
    pylon_t frames
    uint64_t char_ns     # of the line: the engine of such a one counts no characters
    uint32_t strip_echo

cdef void pylon_line_init(pylon_line_t* line, const program_t* program, int port) noexcept nogil
# Makes `frames.tx` of the engine's request.
cdef void pylon_line_ask(pylon_line_t* line, const rtu_action_t* action) noexcept nogil
# Characters that went out or came in, for the statistics.
cdef void pylon_line_count(const pylon_line_t* line, rtu_t* e, uint32_t characters) noexcept nogil
# Hands the engine what has come: each whole frame as the reply that Modbus would have given.
cdef void pylon_line_took(pylon_line_t* line, rtu_t* e, const uint8_t* bytes, uint32_t n, uint64_t t_ns) noexcept nogil
