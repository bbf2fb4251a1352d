# ext/cycle/recorder.pxd: what the loop leaves in the ring each cycle, and the state that a replay begins with.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tidegate.ext.cycle.core cimport core_t
from tidegate.ext.abi.ring cimport recorder_t, ring_t

cdef enum:
    SPANS = 18
    PART_COUNT = 4  # PARTS of recorder.h

# A stretch of core_t that belongs to its state. In a record each begins at a multiple of 8 bytes.
cdef struct span_t:
    const char* name
    uint32_t first
    uint32_t size

# The end of a cycle: close its record, and write the state where it is due.
cdef void recorder_cycle(core_t* core, uint64_t t_ns, uint64_t dt_ns, uint64_t cycle) noexcept nogil
# Hashes of what the last cycle decided: the site's and the units' points, verdicts, the words for the ports, events.
# events: number of the first event that belongs to the cycle; becomes that of the next cycle's first.
cdef void decided(const core_t* core, uint64_t* events, uint32_t* parts) noexcept nogil
# The stretches that make up the state of this core; their number.
cdef int state_spans(const core_t* core, span_t* spans) noexcept nogil


cdef class Ring:
    cdef ring_t* ring
    cdef uint8_t* data
    cdef size_t mapped
    cdef recorder_t writer
