# ext/bus/rtu_start.pxd: an engine at its beginning.
from libc.stdint cimport int16_t, uint8_t, uint16_t, uint32_t, uint64_t

from tidegate.ext.abi.port_mail cimport port_mail_t
from tidegate.ext.abi.program cimport BLOCKS_MAX, COMMAND_REGS_MAX, PORT_COMMANDS_MAX, SLAVES_MAX, program_t
from tidegate.ext.bus.rtu cimport rtu_t

# Everything but the time of the first poll.
cdef void engine_made(rtu_t* e, const program_t* program, int port, port_mail_t* mail, uint64_t t_ns) noexcept nogil
