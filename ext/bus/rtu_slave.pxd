# ext/bus/rtu_slave.pxd: what an engine learns about each slave of its port, and what follows from it.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from tidegate.ext.bus.rtu cimport UNKNOWN_SLAVE, reply_at, rtu_block_t, rtu_slave_t, rtu_t

# For the first byte of a reply.
cdef uint64_t timeout_of(const rtu_t* e, uint32_t slave) noexcept nogil
# The transaction in flight ended with `status`, a done_status; answered: with a frame of its own.
cdef void slave_ended(rtu_t* e, int status, bint answered, uint64_t t_ns) noexcept nogil
# A frame of n bytes that nobody asked for.
# Bytes before a reply that are none of it. They may be the end of another frame, unless all its replies have them.
cdef void note_stray_bytes(rtu_t* e, const uint8_t* p, uint32_t count) noexcept nogil
cdef void note_foreign_frame(rtu_t* e, const uint8_t* p, uint32_t n) noexcept nogil
# The words of a block that tell which device this is have been read.
cdef void check_identity(rtu_t* e, rtu_block_t* b, const uint16_t* regs) noexcept nogil


# The exception in hand is a gateway's: it has no way to the device (10), or the device was silent (11).
cdef inline bint gateway_spoke(const rtu_t* e) noexcept nogil:
    return reply_at(e)[2] == 10 or reply_at(e)[2] == 11


cdef inline bint shape_barred(const rtu_slave_t* s, uint32_t function, uint32_t reply) noexcept nogil:
    cdef uint32_t i
    for i in range(s.n_bars):
        if s.bars[i].function == function and s.bars[i].reply == reply:
            return True
    return False


cdef inline uint32_t slave_of(const rtu_t* e, uint32_t unit) noexcept nogil:
    cdef uint32_t s
    for s in range(e.n_slaves):
        if e.program.slaves[e.slave_first + s].unit_id == unit:
            return s
    return UNKNOWN_SLAVE


cdef inline void count_foreign_bytes(rtu_t* e, uint32_t slave, uint32_t count) noexcept nogil:
    e.mail.stats.foreign_bytes += count
    if slave < e.n_slaves:
        e.mail.stats.slaves[slave].foreign_bytes += count
