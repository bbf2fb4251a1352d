# ext/cycle/outputs.pxd: setpoints, heartbeats and constants for the serial ports.
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.abi.port_mail cimport port_mail_t
from tidegate.ext.cycle.core cimport command_memory_t, core_t

# Row `number` of the commands, which has `slot` of this port's mail.
cdef void write_command(const core_t* core, port_mail_t* mail, command_memory_t* memory, uint32_t slot, uint32_t number,
                        uint64_t t_ns) noexcept nogil
