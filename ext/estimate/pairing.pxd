# ext/estimate/pairing.pxd: contents page of pairing.pyx.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from tidegate.ext.abi.settings cimport control_params_t
from tidegate.ext.estimate.estimate cimport LAGS, estimate_state_t, history_t
from tidegate.ext.abi.program cimport program_t


cdef extern from *:
    """
    #define LAG_NS_MAX 4305000000
    #define MOTION_W 20.0              /* smallest motion of a battery that counts */
    /* Ages of a grid reading that are tried, against those of the battery's: its readings may be the older ones. */
    static const int64_t LAG_NS[LAGS] __attribute__((unused)) = {
        -30000000, -20000000, -10000000, -5000000, 0, 5000000, 10000000, 15000000, 20000000, 24000000, 28000000, 34000000,
        40000000, 48000000, 57000000, 67000000, 80000000, 95000000, 113000000, 135000000, 160000000, 190000000, 226000000,
        269000000, 320000000, 381000000, 453000000, 538000000, 640000000, 761000000, 905000000, 1076000000, 1280000000,
        1522000000, 1810000000, 2153000000, 2560000000, 3044000000, 3620000000, 4305000000,
    };
    """
    const double MOTION_W
    const int64_t LAG_NS_MAX
    const int64_t LAG_NS[LAGS]


cdef inline uint64_t time_before(uint64_t t_ns, int64_t by_ns) noexcept nogil:
    return <uint64_t>(<int64_t>t_ns - by_ns) if <int64_t>t_ns > by_ns else 0


# Ages of LAG_NS that this site looks at.
cdef inline uint32_t lags_of(const control_params_t* params, const estimate_state_t* state) noexcept nogil:
    cdef uint32_t lags = 6
    cdef double max_s = params.meter_latency_s_max
    if state.lag_search_wide or not 0.0 < max_s < 4.3:
        return LAGS
    while lags < LAGS and <double>LAG_NS[lags - 1] < max_s * 1e9:
        lags += 1
    return lags


# Looks for all ages from now on; or, when none beyond the site's own was found, for the site's own again.
cdef inline void widen_lag_search(const control_params_t* params, estimate_state_t* state, bint wide) noexcept nogil:
    cdef uint32_t own
    if wide and not state.lag_search_wide:
        state.lag_search_wide = 1
    elif not wide and state.lag_search_wide == 2:
        state.lag_search_wide = 0
        own = lags_of(params, state)
        if state.lag_measured and state.lag_best >= own:
            state.lag_search_wide = 2
            return
        state.lag_lo = min(state.lag_lo, own - 1)
        state.lag_hi = min(state.lag_hi, own - 1)


# Appends; readings closer than the spacing replace the newest, so that the ring spans the longest age.
cdef void history_add(history_t* h, uint64_t t_ns, double w, uint64_t spacing_ns) noexcept nogil

# Power at time t_ns by straight lines between readings; the first and the last reading hold outside.
cdef double history_at(const history_t* history, uint64_t t_ns) noexcept nogil

# Scores grid readings, each once the battery readings around it have come; keeps the ages that they allow.
cdef void measure_latency(const control_params_t* params, estimate_state_t* state, double grid_w,
                          uint64_t t_ns) noexcept nogil

# Reading plus battery power of the same age, of the units in the mask `members`.
cdef double pair(const program_t* program, const estimate_state_t* state, uint32_t members, double reading_w,
                 double before_w, bint known, uint64_t sample_ns, uint64_t t_ns) noexcept nogil
