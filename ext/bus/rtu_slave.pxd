# ext/bus/rtu_slave.pxd: what an engine learns about each slave of its port, and what follows from it.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from tidegate.ext.bus.rtu cimport UNKNOWN_SLAVE, rtu_block_t, rtu_slave_t, rtu_t

# For the first byte of a reply.
cdef uint64_t timeout_of(const rtu_t* e, uint32_t slave) noexcept nogil
# The transaction in flight ended with `status`, a done_status; answered: with a frame of its own.
cdef void slave_ended(rtu_t* e, int status, bint answered, uint64_t t_ns) noexcept nogil
# A frame of n bytes that nobody asked for.
cdef void note_foreign_frame(rtu_t* e, const uint8_t* p, uint32_t n) noexcept nogil
# The words of a block that tell which device this is have been read.
cdef void check_identity(rtu_t* e, rtu_block_t* b, const uint16_t* regs) noexcept nogil


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
