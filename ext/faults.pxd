# ext/faults.pxd: which rows of the fault table are true in this cycle.
from libc.stdint cimport uint64_t

from tidegate.ext.image cimport point_t
from tidegate.ext.program cimport program_t

cdef struct diagnose_state_t:
    uint64_t memory[64]

# Conditions of one unit present now, one bit per row of the fault table (ext/faults.h names the rows).
cdef uint64_t diagnose(const program_t* program, int unit, const point_t* image, diagnose_state_t* state,
                       uint64_t t_ns, uint64_t dt_ns) noexcept nogil
