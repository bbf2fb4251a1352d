# ext/estimate/coincidence.pxd: contents page of coincidence.pyx.
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.estimate.estimate cimport history_t

cdef enum:
    COINCIDENCE_VALUES = 48  # newest values that are compared
    COINCIDENCE_AGES = 18
    RANDOM_EDGES = 16        # a power of two

cdef enum coincidence:
    COINCIDENCE_OPEN = 0
    COINCIDENCE_HONEST
    COINCIDENCE_TURNED

# What a slow meter's values have shown of steps that nothing foretold.
cdef struct coincidence_t:
    double value_w, waiting_w   # the newest value; the newest that waits for the battery's readings around it
    uint64_t value_ns, waiting_ns # 0 = none
    double then_w[COINCIDENCE_AGES], then_random_w[COINCIDENCE_AGES] # of the battery and of the steps, by the value before
    double then_value_w
    uint64_t then_ns            # 0 = none
    double change_w[COINCIDENCE_VALUES] # from value to value
    double moved_w[COINCIDENCE_VALUES][COINCIDENCE_AGES]
    double random_w[COINCIDENCE_VALUES][COINCIDENCE_AGES]
    uint32_t head, count
    uint64_t edge_ns[RANDOM_EDGES]
    double edge_w[RANDOM_EDGES] # what the steps were from then on
    uint32_t edge_head, edge_count
    double age_lo_s, age_hi_s   # at which the values meet the steps, where they do

cdef void coincidence_begin(coincidence_t* c) noexcept nogil
# Values across a gap are not compared.
cdef void coincidence_gap(coincidence_t* c) noexcept nogil
# The steps that nothing foretold are so large from now on, of all units.
cdef void coincidence_random(coincidence_t* c, double w, uint64_t t_ns) noexcept nogil
# A reading of the meter. total: power of all units; proven: only the ages are
# looked for. Returns enum coincidence.
cdef uint32_t coincidence_reading(coincidence_t* c, const history_t* total, double value_w, double interval_s,
                                  bint proven, uint64_t t_ns) noexcept nogil
