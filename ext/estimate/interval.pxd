# ext/estimate/interval.pxd: contents page of interval.pyx.
from libc.stdint cimport uint64_t

from tidegate.ext.abi.extremes cimport fmax
from tidegate.ext.estimate.estimate cimport estimate_state_t, interval_t

cdef extern from *:
    """
    #define REREAD_NS 250000000u  /* an unchanged value is taken for the same sample for so long at least */
    #define INTERVAL_SLOW_S 1.1   /* a meter that shows something new less often is slow */
    #define SAME_INTERVALS 1.6    /* a value that stands for so long was measured anew */
    #define COMPARED_S 0.2        /* changes of a running site are compared over so long, ... */
    #define COMPARED_INTERVALS 0.6 /* ... so many intervals of the meter, ... */
    #define COMPARED_ESS 1.5      /* ... and of the converters' readings */
    """
    const uint64_t REREAD_NS
    const double INTERVAL_SLOW_S, SAME_INTERVALS, COMPARED_S, COMPARED_INTERVALS, COMPARED_ESS

# One more time between two values that differ, s.
cdef void learn_interval(interval_t* interval, double apart_s) noexcept nogil
# For how long an unchanged grid reading is taken for the same sample.
cdef uint64_t reread_ns(const estimate_state_t* state) noexcept nogil
# Once: the first two gaps are there, and both are those of a slow meter. One alone may be that of a load that stands still.
cdef inline bint shown_seldom(const interval_t* interval) noexcept nogil:
    return interval.seen == 3 and interval.gap_s[0] > INTERVAL_SLOW_S and interval.gap_s[1] > INTERVAL_SLOW_S
# Over how long changes of the grid and of the battery are compared, s.
cdef inline double compared_s(const estimate_state_t* state) noexcept nogil:
    return fmax(fmax(COMPARED_S, COMPARED_INTERVALS * state.lags.interval.interval_s),
                COMPARED_ESS * state.lags.ess_interval.interval_s)
