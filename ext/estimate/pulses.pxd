# ext/estimate/pulses.pxd: contents page of pulses.pyx.
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.estimate.estimate cimport LAGS, estimate_state_t

cdef enum:
    PULSE_SAMPLES = 256  # grid readings kept to compare them with; a power of two

# The grid's changes over a span of time, beside the battery's at each age.
cdef struct pulses_t:
    uint64_t t_ns[PULSE_SAMPLES]
    double w[PULSE_SAMPLES]
    uint32_t head, count
    uint64_t begun_ns         # the pulses began
    uint64_t done_ns          # up to where the readings were compared
    uint32_t sign             # so far (meter_sign.pxd)
    uint32_t edges, rising    # of the pulses: so many; 1 = the newest went up
    uint32_t sharp_against    # 1 = beside an age alone the meter goes against the battery, as it must
    double grid_w2            # squared changes of the grid, summed
    double moved_w2[LAGS]     # of the battery, at that age ...
    double moved_w4[LAGS]     # ... and the squares of these, to count the moves
    double both_w2[LAGS]      # and their product

cdef void pulses_begin(pulses_t* pulses) noexcept nogil
# A new reading while the site arms. least_w: a smaller move of the battery tells nothing. Returns enum meter_verdict.
cdef uint32_t pulses_reading(const estimate_state_t* state, pulses_t* pulses, double grid_w, double least_w,
                             uint64_t t_ns) noexcept nogil
# Of a site that arms: what is wanted of the meter's sign, by the same steps as answer_wanted.
cdef uint32_t pulses_wanted(const pulses_t* pulses, double interval_s, bint doubted) noexcept nogil
