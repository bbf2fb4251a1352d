# ext/bus/rtu_finish.pxd: the end of a transaction.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from tidegate.ext.abi.program cimport POLL_SLOW, block_row_t
from tidegate.ext.bus.rtu cimport RTU_MS, rtu_t

# The transaction in flight ended with `status`, a done_status: everything that follows from it but the next poll's time.
cdef void transaction_ended(rtu_t* e, int status, uint64_t t_ns) noexcept nogil


cdef inline uint64_t period_of(const block_row_t* row) noexcept nogil:
    if row.period_ns == 0 and row.poll_class == POLL_SLOW:
        return 1000 * RTU_MS
    return row.period_ns
