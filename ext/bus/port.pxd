# ext/bus/port.pxd: contents page of port.pyx.
from libc.stdint cimport uint64_t

from tidegate.ext.abi.port_mail cimport port_mail_t
from tidegate.ext.abi.program cimport program_t


# The thread needs the engine: port_thread_t is declared in port.pyx and handed
# out as an opaque pointer.
cdef struct port_thread_t

# Start the I/O thread of one port on `fd`, a tty in raw mode or anything that carries bytes. priority: SCHED_FIFO, 0 =
# ordinary; where the right is missing it runs ordinary and mail.stats.fifo says 0. cpu: -1 = any. Allocates. The
# program, the mail and the descriptor must outlive it. NULL and errno on failure.
cdef port_thread_t* port_thread_start(int fd, const program_t* program, int port, port_mail_t* mail, int priority,
                                      int cpu) noexcept nogil
# Polls end, commands go on until each newest setpoint and stop is acknowledged or drain_ns are over; then the thread
# ends and its memory is freed. 1 = all acknowledged. Waits; not for the loop.
cdef int port_thread_stop(port_thread_t* thread, uint64_t drain_ns) noexcept nogil


# What the thread of a port needs of the core that it works for.
cdef class MailHandle:
    cdef const program_t* program
    cdef port_mail_t* mail
    cdef object owner  # keeps the memory alive

cdef MailHandle mail_handle(const program_t* program, port_mail_t* mail, object owner)
