"""Which battery power belongs to a meter's reading: the history of it, the meter's latency, the pairing.

The meter's reading tells the grid's power some time ago, the PCS's reading the battery's power some other time ago.
"Then" is known only within bounds: meters do not say how old their value is. The bounds are measured: of all ages
that a reading could have, only those remain under which the battery's own moves explain what the meter saw. The pairing
then gives an interval for the net power. An estimate inside it is kept, one outside moves to the nearest edge: never is
more read from a meter than it said, and no filter slows a real step down.
"""

from libc.math cimport fabs, fmax, fmin, isfinite
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.abi.settings cimport *
from tidegate.ext.estimate.estimate cimport *
from tidegate.ext.abi.program cimport program_t


cdef extern from *:
    """
    #define SCORE_AFTER_NS 300000000u  /* a grid reading waits at most so long for battery readings before it is scored */
    #define LAG_MARGIN 0.15            /* share of motion, squared, that an age may leave unexplained beyond the best */
    #define FOLLOW_NS 20000000u        /* after a setpoint its move is taken for the PCS's lag alone */
    #define LAG_KEEP 0.995             /* memory of the scores, for each reading while the battery moved */
    #define LAG_BELIEF 0.5             /* an age that leaves more unexplained is none */
    #define LAG_BETTER 0.1             /* so much better must another age be to replace the best */
    #define LAG_EXCITED 100.0          /* motion, in squares of the smallest that counts, before the scores are believed */
    """
    const uint64_t FOLLOW_NS, SCORE_AFTER_NS
    const double LAG_MARGIN, LAG_BELIEF, LAG_BETTER, LAG_KEEP, LAG_EXCITED


# ---------------------------------------------------------------- history of battery power


cdef inline uint32_t slot(const history_t* h, uint32_t number) noexcept nogil:
    """Ring index of reading `number`, 0 = oldest."""
    return (h.head + HISTORY_MAX + 1 - h.count + number) & (HISTORY_MAX - 1)


cdef void history_add(history_t* h, uint64_t t_ns, double w, uint64_t spacing_ns) noexcept nogil:
    """Append; readings closer than the spacing replace the newest, so that the ring spans the longest age."""
    cdef uint32_t before = (h.head + HISTORY_MAX - 1) & (HISTORY_MAX - 1)
    if h.count and t_ns <= h.t_ns[h.head]:
        return
    if h.count < 2 or h.t_ns[h.head] - h.t_ns[before] >= spacing_ns:
        h.head = (h.head + 1) & (HISTORY_MAX - 1)
        if h.count < HISTORY_MAX:
            h.count += 1
    h.t_ns[h.head] = t_ns
    h.w[h.head] = w


cdef uint32_t history_find(const history_t* h, uint64_t t_ns) noexcept nogil:
    """Number of the first reading later than t_ns; count when there is none. At most nine halvings."""
    cdef uint32_t low = 0, high = h.count, middle
    while low < high:
        middle = (low + high) >> 1
        if h.t_ns[slot(h, middle)] > t_ns:
            high = middle
        else:
            low = middle + 1
    return low


cdef double history_at(const history_t* h, uint64_t t_ns) noexcept nogil:
    cdef uint32_t number, a, b
    if h.count == 0:
        return 0.0
    if t_ns >= h.t_ns[h.head]:
        return h.w[h.head]
    number = history_find(h, t_ns)
    if number == 0:
        return h.w[slot(h, 0)]
    a = slot(h, number - 1)
    b = slot(h, number)
    return h.w[a] + (h.w[b] - h.w[a]) * (<double>(t_ns - h.t_ns[a]) / <double>(h.t_ns[b] - h.t_ns[a]))


cdef inline double lagged(double from_w, double to_w, double z) noexcept nogil:
    """First-order answer after z time constants; a quotient in place of exp, whose last bit differs by platform."""
    return to_w + (from_w - to_w) / (1.0 + z * (1.0 + z * (0.5 + z * (1.0 / 6.0))))


cdef void power_bounds(const unit_memory_t* m, uint64_t from_ns, uint64_t to_ns, uint64_t t_ns, double tau_s,
                       double* lo, double* hi) noexcept nogil:
    """All that the unit's power may have been between two times; after its newest reading by its lag."""
    cdef const history_t* h = &m.history
    cdef double w = history_at(h, from_ns), z, settle_s = 6.0 * tau_s + 0.2
    cdef uint32_t number
    lo[0] = w
    hi[0] = w
    if h.count == 0:
        return
    if from_ns < h.t_ns[h.head]:
        for number in range(history_find(h, from_ns), h.count):
            if h.t_ns[slot(h, number)] >= to_ns:
                break
            widen(h.w[slot(h, number)], lo, hi)
    widen(history_at(h, to_ns), lo, hi)
    # A PCS that has had time to settle stands where it stands, also when that is not quite its setpoint.
    if to_ns > h.t_ns[h.head] and <double>(t_ns - m.setpoint_t_ns) * 1e-9 < settle_s:
        z = <double>(to_ns - h.t_ns[h.head]) * 1e-9 / tau_s
        widen(lagged(h.w[h.head], m.setpoint_w, z), lo, hi)
        widen(lagged(h.w[h.head], m.setpoint_old_w, z), lo, hi)


cdef inline void widen(double w, double* lo, double* hi) noexcept nogil:
    lo[0] = fmin(lo[0], w)
    hi[0] = fmax(hi[0], w)


# ---------------------------------------------------------------- the meter's latency


cdef void measure_latency(const control_params_t* params, estimate_state_t* state, double grid_w,
                          uint64_t t_ns) noexcept nogil:
    """Score grid readings, each once the battery readings around it have come."""
    cdef uint32_t at
    at = (state.pending_first + state.pending_count) % PENDING_MAX
    if state.pending_count == PENDING_MAX:
        state.pending_first = (state.pending_first + 1) % PENDING_MAX
        state.pending_count -= 1
    state.pending_t_ns[at] = t_ns
    state.pending_w[at] = grid_w
    state.pending_count += 1
    while state.pending_count:
        at = state.pending_first
        if state.pending_t_ns[at] + <uint64_t>-LAG_NS[0] > state.total.t_ns[state.total.head] and (
                state.pending_t_ns[at] + SCORE_AFTER_NS > t_ns):
            break
        score(params, state, state.pending_w[at], state.pending_t_ns[at])
        state.pending_first = (at + 1) % PENDING_MAX
        state.pending_count -= 1


cdef void score(const control_params_t* params, estimate_state_t* state, double grid_w, uint64_t t_ns) noexcept nogil:
    """Of the ages that a grid reading may have, keep those under which the battery's moves explain the meter's.

    Each age predicts that grid + ess moved by the load's own move only. Its score is the share of the motion that
    remains unexplained, squared, and at most twice what the battery moved: steps of the load itself weigh the same for
    all ages and cannot drown the rest.
    """
    cdef double de[LAGS]
    cdef double share[LAGS]
    cdef double w, most = 0.0, moved, cost, smallest = fmax(2.0 * params.deadband_w, MOTION_W)
    cdef double dg = grid_w - state.lag_grid_w
    cdef int i, first, last, best = -1, lags = <int>lags_of(params, state)
    state.lag_grid_w = grid_w
    if state.lag_search_wide == 1:  # has just begun: all ages are open again
        state.lag_search_wide = 2
        state.lag_measured = 0
        state.lag_lo = 0
        state.lag_hi = <uint32_t>lags - 1
    if t_ns > state.moved_t_ns + 2 * <uint64_t>LAG_NS_MAX:
        state.lag_stale = 1  # the battery has stood still for longer than any age
        return
    for i in range(lags):
        w = history_at(&state.total, time_before(t_ns, LAG_NS[i]))
        de[i] = w - state.lag_last_w[i]
        state.lag_last_w[i] = w
        most = fmax(most, fabs(de[i]))
    if state.lag_stale or most <= smallest or most < 0.5 * fabs(dg):
        state.lag_stale = 0
        return
    for i in range(lags):
        moved = fmin(fmax(fabs(dg), fabs(de[i])), most)
        # A battery that follows a smooth load keeps the grid still at any age: there only what the meter saw counts.
        # Under a setpoint that stands, a move that the meter did not see counts against its age as well.
        if fabs(dg) <= smallest and (moved <= smallest or time_before(t_ns, LAG_NS[i]) < state.setpoint_t_ns + FOLLOW_NS):
            continue
        cost = fmin(fabs(dg + de[i]), 2.0 * most)
        state.lag_score[i] = state.lag_score[i] * LAG_KEEP + cost * cost
        state.lag_motion[i] = state.lag_motion[i] * LAG_KEEP + moved * moved
    for i in range(lags):
        share[i] = -1.0  # not judged yet
        if state.lag_motion[i] > LAG_EXCITED * smallest * smallest:
            share[i] = state.lag_score[i] / state.lag_motion[i]
            if best < 0 or share[i] < share[best]:
                best = i
    if best < 0:
        return
    if state.lag_measured:
        # A load that repeats itself makes other ages look as good as the true one: stay, unless one is clearly better.
        if share[best] < share[state.lag_best] - LAG_BETTER:
            state.lag_best = <uint32_t>best
    elif share[best] <= LAG_BELIEF:
        state.lag_measured = 1
        state.lag_best = <uint32_t>best
    if not state.lag_measured:
        return
    first = last = <int>state.lag_best
    while first > 0 and share[first - 1] <= share[state.lag_best] + LAG_MARGIN:
        first -= 1
    while last < lags - 1 and share[last + 1] <= share[state.lag_best] + LAG_MARGIN:
        last += 1
    state.lag_lo = <uint32_t>(first - 1 if first > 0 else 0)
    state.lag_hi = <uint32_t>(last + 1 if last + 1 < lags else lags - 1)


# ---------------------------------------------------------------- pairing


cdef double pair(const program_t* program, const estimate_state_t* state, uint32_t members, double reading_w,
                 double before_w, bint known, uint64_t sample_ns, uint64_t t_ns) noexcept nogil:
    """Reading plus battery power of the same age: the value nearest to what was believed before."""
    cdef double lo_w = reading_w, hi_w = reading_w, lo, hi
    cdef double tau_s = program.control.pcs_tau_s
    cdef uint64_t from_ns = time_before(sample_ns, LAG_NS[state.lag_hi]), to_ns = time_before(sample_ns, LAG_NS[state.lag_lo])
    cdef uint32_t unit
    if not tau_s > 0.0:
        tau_s = 0.05
    for unit in range(program.n_units):
        if members >> unit & 1 and state.units[unit].known:
            power_bounds(&state.units[unit], from_ns, to_ns, t_ns, tau_s, &lo, &hi)
            lo_w += lo
            hi_w += hi
    if not known or not isfinite(before_w):
        return 0.5 * (lo_w + hi_w)
    return fmin(fmax(before_w, lo_w), hi_w)
