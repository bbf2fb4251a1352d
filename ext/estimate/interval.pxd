# ext/estimate/interval.pxd: contents page of interval.pyx.
from libc.stdint cimport uint64_t

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.estimate.estimate cimport estimate_state_t, interval_t

cdef extern from *:
    """
    #define REREAD_NS 250000000u  /* an unchanged value is taken for the same sample for so long at least */
    #define INTERVAL_SLOW_S 1.1   /* a meter that shows something new less often is slow */
    #define SAME_INTERVALS 1.6    /* a value that stands for so long was measured anew */
    #define COMPARED_S 0.2        /* changes of a running site are compared over so long, ... */
    #define COMPARED_INTERVALS 0.6 /* ... so many intervals of the meter, ... */
    #define COMPARED_ESS 1.5      /* ... and of the converters' readings */
    #define FILLED_S 0.02         /* so closely a converter's power is known between its readings by its step response, ... */
    #define FILLED_SHARE 0.7      /* ... and its age, once most of what it was found with was that */
    """
    const uint64_t REREAD_NS
    const double INTERVAL_SLOW_S, SAME_INTERVALS, COMPARED_S, COMPARED_INTERVALS, COMPARED_ESS, FILLED_S, FILLED_SHARE

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
# How closely it is known when the battery did what its readings say, s; and what the age was found with.
cdef inline double ess_known_s(const estimate_state_t* state) noexcept nogil:
    return fmin(state.lags.ess_interval.interval_s, fmax(FILLED_S, state.lags.ess_poll_s)) if state.ess_filled else (
        state.lags.ess_interval.interval_s)


cdef inline double age_found_s(const estimate_state_t* state) noexcept nogil:
    return ess_known_s(state) if state.lags.by_filled and state.lags.filled >= FILLED_SHARE * state.lags.moves else state.lags.ess_interval.interval_s
