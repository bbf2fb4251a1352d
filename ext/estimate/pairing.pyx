"""Which battery power belongs to a meter's reading: the history of it, the meter's latency, the pairing.

The meter's reading tells the grid's power some time ago, the PCS's reading the battery's power some other time ago.
"Then" is known only within bounds: meters do not say how old their value is. The bounds are measured: of all ages
that a reading could have, only those remain under which the battery's own moves explain what the meter saw. The pairing
then gives an interval for the net power. An estimate inside it is kept, one outside moves to the nearest edge: never is
more read from a meter than it said, and no filter slows a real step down.
"""

from libc.math cimport fabs, isfinite, sqrt
from libc.stdint cimport int64_t, uint32_t, uint64_t

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.settings cimport *
from tidegate.ext.estimate.estimate cimport *
from tidegate.ext.estimate.interval cimport INTERVAL_SLOW_S
from tidegate.ext.estimate.response cimport response_bounds, response_w
from tidegate.ext.estimate.shape cimport model_w, shapes_add
from tidegate.ext.abi.program cimport program_t


cdef extern from *:
    """
    #define ARRIVED_SHARE 0.05 /* of a move: a converter that is closer to its end has done it */
    #define STANDS_SHARE 0.5   /* of the way that is left: who has moved by less within his last lag, stands */
    #define FILL_MOST_NS 500000000u /* readings further apart than this are of a power that stands, or were missing */
    #define RISE_SHARE 0.01    /* of the nameplates: less is not worth a write */
    #define NEAR_APART 1.2     /* standard deviations by which a neighbour is worse than the best average: told apart */
    """
    const double ARRIVED_SHARE, STANDS_SHARE, RISE_SHARE, NEAR_APART
    const uint64_t FILL_MOST_NS


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


cdef void history_sweep(const history_t* h, uint64_t t_ns, uint32_t lags, double* w) noexcept nogil:
    """One walk back through the readings: the ages rise, so the times fall."""
    cdef uint32_t i, number, a, b
    cdef uint64_t at_ns
    if h.count == 0:
        for i in range(lags):
            w[i] = 0.0
        return
    number = h.count
    for i in range(lags):
        at_ns = time_before(t_ns, LAG_NS[i])
        while number > 0 and h.t_ns[slot(h, number - 1)] > at_ns:  # bounded by HISTORY_MAX in all
            number -= 1
        if number == h.count:
            w[i] = h.w[h.head]
        elif number == 0:
            w[i] = h.w[slot(h, 0)]
        else:
            a = slot(h, number - 1)
            b = slot(h, number)
            w[i] = h.w[a] + (h.w[b] - h.w[a]) * (<double>(at_ns - h.t_ns[a]) / <double>(h.t_ns[b] - h.t_ns[a]))


cdef inline bint is_wide(const history_t* h, uint64_t taken_ns) noexcept nogil:
    """A reading so long after the one before that what was in between is worth filling in."""
    return h.count > 0 and h.t_ns[h.head] + 2 * HISTORY_SPACING_NS < taken_ns < h.t_ns[h.head] + FILL_MOST_NS


cdef void history_fill_unit(unit_memory_t* m, uint64_t taken_ns, double w) noexcept nogil:
    """Between two readings a straight line says little of a step: there the step response does. It is led through both."""
    cdef history_t* h = &m.history
    cdef uint64_t from_ns, t_ns
    cdef double from_off_w, off_w
    if not m.response.trusted or not m.response.close or not is_wide(h, taken_ns):
        return
    from_ns = h.t_ns[h.head]
    from_off_w = h.w[h.head] - response_w(m, from_ns)
    off_w = w - response_w(m, taken_ns) - from_off_w
    t_ns = from_ns + HISTORY_SPACING_NS
    while t_ns + HISTORY_SPACING_NS // 2 < taken_ns:  # bounded by FILL_MOST_NS
        history_add(h, t_ns, response_w(m, t_ns) + from_off_w + off_w * (
            <double>(t_ns - from_ns) / <double>(taken_ns - from_ns)), 0)
        t_ns += HISTORY_SPACING_NS


cdef void history_fill_total(const program_t* program, estimate_state_t* state, uint64_t taken_ns) noexcept nogil:
    cdef uint64_t t_ns = state.total.t_ns[state.total.head] + HISTORY_SPACING_NS
    cdef uint32_t unit
    cdef double w
    state.ess_filled = 1
    for unit in range(program.n_units):
        if state.units[unit].known and not (state.units[unit].response.trusted and state.units[unit].response.close):
            state.ess_filled = 0
    if not state.ess_filled or not is_wide(&state.total, taken_ns):
        return
    while t_ns + HISTORY_SPACING_NS // 2 < taken_ns:
        w = 0.0
        for unit in range(program.n_units):
            if state.units[unit].known:
                w += history_at(&state.units[unit].history, t_ns)
        history_add(&state.total, t_ns, w, 0)
        shapes_add(&state.shapes, t_ns, w)
        t_ns += HISTORY_SPACING_NS


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
    # So does one that has arrived. One whose times are known may be on its way to what it was told some time ago.
    if m.told_settle_s > 0.0:
        told_bounds(m, to_ns, t_ns, lo, hi)
        return
    w = h.w[h.head] - m.setpoint_w
    if to_ns > h.t_ns[h.head] and <double>(t_ns - m.setpoint_t_ns) * 1e-9 < settle_s and (
            fabs(w) > fmax(ARRIVED_SHARE * fabs(m.setpoint_old_w - m.setpoint_w), MOTION_W)):
        z = <double>(to_ns - h.t_ns[h.head]) * 1e-9 / tau_s
        widen(lagged(h.w[h.head], m.setpoint_w, z), lo, hi)
        widen(lagged(h.w[h.head], m.setpoint_old_w, z), lo, hi)


cdef inline void widen_told(const unit_memory_t* m, double setpoint_w, double* lo, double* hi) noexcept nogil:
    """A setpoint, and what this converter is known to make of it."""
    cdef uint32_t side = 0 if setpoint_w > 0.0 else 1
    cdef double w = fmax(m.told_gain[side] * fabs(setpoint_w) + m.told_offset_w[side], 0.0)
    widen(setpoint_w, lo, hi)
    if setpoint_w != 0.0:
        widen(-w if side else w, lo, hi)


cdef void told_bounds(const unit_memory_t* m, uint64_t to_ns, uint64_t t_ns, double* lo, double* hi) noexcept nogil:
    """What it may have come to since its newest reading, on its way to any setpoint that it may be answering."""
    cdef const history_t* h = &m.history
    cdef double w = h.w[h.head], z, lo_w = m.told_lo_w, hi_w = m.told_hi_w, arrived_w
    widen_told(m, m.told_lo_w, &lo_w, &hi_w)
    widen_told(m, m.told_hi_w, &lo_w, &hi_w)
    if to_ns <= h.t_ns[h.head] or <double>(t_ns - m.setpoint_t_ns) * 1e-9 > m.told_settle_s:
        return
    if m.told_now:
        widen_told(m, m.setpoint_w, &lo_w, &hi_w)
    # Who still has some way to go has moved by 1.7 times as much within the last lag: one that has not, stands there.
    if m.told_look_s > 0.0 and STANDS_SHARE * fabs(w - m.setpoint_w) > fabs(
            w - history_at(h, time_before(h.t_ns[h.head], <int64_t>(m.told_look_s * 1e9)))):
        return
    arrived_w = fmax(ARRIVED_SHARE * fabs(m.setpoint_old_w - m.setpoint_w), MOTION_W)
    z = <double>(to_ns - h.t_ns[h.head]) * 1e-9 / m.told_lag_s
    if fabs(w - lo_w) > arrived_w:
        widen(lagged(w, lo_w, z), lo, hi)
    if fabs(w - hi_w) > arrived_w:
        widen(lagged(w, hi_w, z), lo, hi)


cdef inline void widen(double w, double* lo, double* hi) noexcept nogil:
    lo[0] = fmin(lo[0], w)
    hi[0] = fmax(hi[0], w)


# ---------------------------------------------------------------- pairing


cdef inline double near_worse(const model_trials_t* m, uint32_t i, uint32_t than) noexcept nogil:
    return (m.unexplained[i] - m.unexplained[than]) / sqrt(m.variance[i] + m.variance[than] + 0.25)


cdef void averaged_bounds(const program_t* program, const estimate_state_t* state, uint32_t members, uint64_t sample_ns,
                          double* lo, double* hi, double* likeliest) noexcept nogil:
    """All that a meter that averages may show of the battery: by the model that fits best and its neighbours.

    A neighbour that explains much less says that the truth lies no further than half way to it; one that explains
    nearly as much, that it lies towards it. Of some of the units alone, their share of the newest total, where there
    is one to speak of.
    """
    cdef const model_trials_t* m = &state.models
    cdef double w, best_w, apart, share = 1.0, part_w = 0.0, all_w = 0.0
    cdef uint32_t i, unit
    best_w = lo[0] = hi[0] = likeliest[0] = model_w(&state.shapes, m.near[0], sample_ns)
    for i in range(1, m.nears):
        apart = fmin(fmax(near_worse(m, m.near[i], m.near[0]) * (1.0 / NEAR_APART), 0.0), 1.0)
        w = model_w(&state.shapes, m.near[i], sample_ns) - best_w
        widen(best_w + w * (1.0 - 0.5 * apart), lo, hi)
    for unit in range(program.n_units):
        if state.units[unit].known:
            all_w += state.units[unit].history.w[state.units[unit].history.head]
            if members >> unit & 1:
                part_w += state.units[unit].history.w[state.units[unit].history.head]
            else:
                share = 0.0
    if share == 0.0:
        share = part_w / all_w if fabs(all_w) > MOTION_W else 0.0
        lo[0] *= share
        hi[0] *= share
        likeliest[0] *= share
        if lo[0] > hi[0]:
            w = lo[0]
            lo[0] = hi[0]
            hi[0] = w


cdef double likeliest_w(const program_t* program, const estimate_state_t* state, uint32_t members,
                        uint64_t sample_ns) noexcept nogil:
    """What the members gave at the likeliest age."""
    cdef double w = 0.0
    cdef uint32_t unit
    cdef const unit_memory_t* m
    cdef uint64_t at_ns = time_before(sample_ns, LAG_NS[state.lags.best])
    for unit in range(program.n_units):
        m = &state.units[unit]
        if members >> unit & 1 and m.known:
            w += response_w(m, at_ns) if m.response.trusted and at_ns > m.history.t_ns[m.history.head] else (
                history_at(&m.history, at_ns))
    return w


cdef double doubtful_rise_w(const program_t* program, const estimate_state_t* state, uint32_t members, double reading_w,
                            double likeliest) noexcept nogil:
    """What the net power has risen to, where the battery's own move may be all there is to it.

    The next reading of a slow meter is far, and until then too much discharge keeps the limit: so the likeliest age is
    believed. Not where that counts more power than the battery gives now: taking back what was too much would look like a
    rise each time.
    """
    cdef double w = 0.0
    cdef uint32_t unit
    for unit in range(program.n_units):
        if members >> unit & 1 and state.units[unit].known:
            w += state.units[unit].history.w[state.units[unit].history.head]
    return fmin(likeliest, reading_w + w)


cdef void pair(const program_t* program, const estimate_state_t* state, uint32_t members, double reading_w,
               double* before, bint known, uint64_t sample_ns, uint64_t t_ns) noexcept nogil:
    """Reading plus battery power of the same age: the values nearest to what was believed before.

    before: the two edges of that, upper first, and afterwards of what is believed now: the upper one follows rises, for
    limits of import, the lower one falls, for limits of export.
    """
    cdef double lo_w = reading_w, hi_w = reading_w, lo, hi, by_lo, by_hi, likeliest = reading_w
    cdef double tau_s = program.control.pcs_tau_s
    cdef uint32_t members_all = members
    cdef uint64_t from_ns = time_before(sample_ns, LAG_NS[state.lag_hi]), to_ns = time_before(sample_ns, LAG_NS[state.lag_lo])
    cdef uint32_t unit, i
    if not tau_s > 0.0:
        tau_s = 0.05
    if state.lags.met:
        from_ns = max(from_ns, time_before(sample_ns, <int64_t>(state.lags.met_hi_s * 1e9)))
        to_ns = max(min(to_ns, time_before(sample_ns, <int64_t>(state.lags.met_lo_s * 1e9))), from_ns)
    if state.models.averages and state.shapes.count:
        averaged_bounds(program, state, members, sample_ns, &lo, &hi, &likeliest)
        lo_w += lo
        hi_w += hi
        likeliest += reading_w
        members = 0
    for unit in range(program.n_units):
        if members >> unit & 1 and state.units[unit].known:
            power_bounds(&state.units[unit], from_ns, to_ns, t_ns, tau_s, &lo, &hi)
            # Between readings it is also what its step response makes of its setpoints: what both allow.
            if response_bounds(&state.units[unit], from_ns, to_ns, &by_lo, &by_hi) and by_lo < hi and lo < by_hi:
                lo = fmax(lo, by_lo)
                hi = fmin(hi, by_hi)
            lo_w += lo
            hi_w += hi
    if not known or not isfinite(before[0]) or not isfinite(before[1]):
        before[0] = before[1] = 0.5 * (lo_w + hi_w)
        return
    if state.models.averages:
        # It shows a rise bit by bit, and the battery answers meanwhile: what is left to doubt is as large as that answer.
        # Half of the doubt is the limit's, so that a rise is not lost for as long as the average lasts.
        before[0] = likeliest if before[0] < 0.5 * (lo_w + likeliest) else fmin(before[0], hi_w)
        before[1] = fmin(fmax(before[1], lo_w), hi_w)
        return
    # The net power has risen or fallen, by how much depends on the age. As the likeliest one says for the edge that a
    # limit must not miss, so that a step is not lost among the battery's own moves; the other edge goes no further
    # than it must.
    likeliest = fmin(fmax(reading_w + likeliest_w(program, state, members_all, sample_ns), lo_w), hi_w)
    if before[0] < lo_w:
        before[0] = likeliest
    elif state.age_known and before[0] < 0.5 * (lo_w + likeliest) and (
            likeliest - before[0] > RISE_SHARE * nameplates(program)):
        before[0] = fmax(before[0], doubtful_rise_w(program, state, members_all, reading_w, likeliest))
    elif not state.age_known and state.lags.interval.interval_s > INTERVAL_SLOW_S:
        before[0] = fmin(fmax(before[0], doubtful_rise_w(program, state, members_all, reading_w, likeliest)), hi_w)
    else:
        before[0] = fmin(before[0], hi_w)
    # Whether a site exports by itself or by its battery's discharge is found by ending that, not by charging.
    if before[1] > hi_w:
        before[1] = likeliest if hi_w < 0.0 else fmax(likeliest, 0.0)
    else:
        before[1] = fmax(before[1], lo_w)
