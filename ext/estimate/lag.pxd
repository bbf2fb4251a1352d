# ext/estimate/lag.pxd: contents page of lag.pyx.
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.abi.settings cimport control_params_t
from tidegate.ext.estimate.estimate cimport ANSWER_SEEN, LAGS, estimate_state_t
from tidegate.ext.estimate.pairing cimport LAG_NS, LAG_NS_MAX

# Ages of LAG_NS that this site looks at.
cdef inline uint32_t lags_of(const control_params_t* params, const estimate_state_t* state) noexcept nogil:
    cdef uint32_t lags = 15
    cdef double max_s = params.meter_latency_s_max
    if state.lag_search_wide or not 0.0 < max_s < <double>LAG_NS_MAX * 1e-9:
        return LAGS
    while lags < LAGS and <double>LAG_NS[lags - 1] < max_s * 1e9:
        lags += 1
    return lags


# Whether pulses of the battery may still tell more of the age: it is known no closer than the meter refreshes.
cdef inline bint age_wanted(const estimate_state_t* state) noexcept nogil:
    return not state.age_known and (
        state.lags.first > 0 or (
            state.models.open_s if state.models.averages else state.lags.open_s) > 2.0 * state.lags.interval.interval_s)


# The values of a slow meter met the battery's steps at these ages (coincidence.pyx). When in its interval it is read is known to a poll.
cdef inline void lag_met(estimate_state_t* state, double lo_s, double hi_s) noexcept nogil:
    state.lags.met = state.models.answer == ANSWER_SEEN and hi_s > lo_s
    state.lags.met_lo_s = lo_s
    state.lags.met_hi_s = hi_s + state.lags.poll_s


# Looks for all ages from now on; or, when none beyond the site's own was found, for the site's own again.
cdef inline void widen_lag_search(const control_params_t* params, estimate_state_t* state, bint wide) noexcept nogil:
    cdef uint32_t own
    if wide and not state.lag_search_wide:
        state.lag_search_wide = 1
    elif not wide and state.lag_search_wide == 2:
        state.lag_search_wide = 0
        own = lags_of(params, state)
        if state.lags.known and state.lags.best >= own:
            state.lag_search_wide = 2
            return
        state.lag_lo = min(state.lag_lo, <uint32_t>(own - 1))
        state.lag_hi = min(state.lag_hi, <uint32_t>(own - 1))


# At the start: what was measured before is believed, until moves of the battery say otherwise.
cdef void lag_believe(const control_params_t* params, estimate_state_t* state) noexcept nogil

# Tries the ages on grid readings that are new samples, each once the battery readings around it have come.
cdef void lag_measure(const control_params_t* params, estimate_state_t* state, double grid_w,
                      uint64_t t_ns) noexcept nogil

# Forgets the last reading: what comes next is no change from it.
cdef void lag_gap(estimate_state_t* state) noexcept nogil

# The meter's interval has come to be known, and it is so long that the same sample was counted again and again as one that
# shows no move of the battery: that spoke for the oldest ages. All of it is forgotten.
cdef void lag_repeated(const control_params_t* params, estimate_state_t* state) noexcept nogil

# What is believed of the meter has been shown wrong: all ages and averages are open again, and what it shows from now on decides.
cdef void lag_reopen(estimate_state_t* state) noexcept nogil

# What is known of the meter is asked anew: what was told before counts for less than what the answers will tell.
cdef void lag_asked(estimate_state_t* state) noexcept nogil
