"""How old a grid reading is: every age that it may have is tried against what the meter saw of the battery's moves.

Under the true age, grid + battery is the load alone. A load moves on slopes and by steps; so each age is judged by how
far the slope of grid + battery jumps under it. A lasting slope leaves nothing, a step of the load as much under every age,
and a battery move that the age puts at the wrong time remains twice. What remains is counted between 0 and 1, so that a
step of the load tells as little as it knows, against a scale that follows what the best age leaves: on a quiet load a
few edges of the step test decide, on a restless one it takes more.

A load that repeats itself makes an age half a period away look as good as the true one, for the battery repeats it.
So what was found stays, until another age is better by more than chance.
"""

from libc.math cimport fabs, sqrt
from libc.stdint cimport int64_t, uint32_t, uint64_t

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.settings cimport *
from tidegate.ext.estimate.estimate cimport *
from tidegate.ext.estimate.interval cimport INTERVAL_SLOW_S, age_found_s, ess_known_s
from tidegate.ext.estimate.meter_sign cimport signs_begin
from tidegate.ext.estimate.model cimport answer_forget, answer_judge, counts_for_answer, models_forget, models_gap, models_noise_forget, models_try, move_weight, is_small_move
from tidegate.ext.estimate.moments cimport moments_add, moments_against, moments_fade, moments_keep
from tidegate.ext.estimate.pairing cimport LAG_NS, LAG_NS_MAX, MOTION_W, history_sweep
from tidegate.ext.estimate.shape cimport model_age_s


cdef extern from *:
    """
    #define SCORE_AFTER_NS 300000000u /* a grid reading waits at most so long for the battery readings around it */
    #define MEMORY_S 30.0             /* of the sums, while the battery moves ... */
    #define KEEP_LEAST 0.98           /* ... and at least so much from one reading to the next */
    #define TREND_S 0.1               /* a slope of the load that lasts longer is none of its steps */
    #define OUT_OF_QUESTION 2.5       /* standard deviations by which an age must be worse than the best */
    #define QUIET_SHARE 0.06          /* the best age leaves so little of the moves that chance has no part in it: ... */
    #define OUT_OF_QUESTION_QUIET 1.2
    #define BELIEVED 1.2              /* and to be no longer paired with, where the best age is used before it is known ... */
    #define BELIEVED_SHARE 0.5        /* ... and so much of the converter's interval is added, where that does not show when it was read */
    #define LIKELY 0.2                /* by which it must be worse than what explains most not to be as likely as that: the bounds that are shown ... */
    #define LIKELY_SHARE 0.25         /* ... and this share, for many moves tell more of the converter's times than one */
    #define ENOUGH 8.0                /* moves after which the best age is used though others are possible */
    #define BETTER 1.0                /* by which another must be better to take the place of one that is used ... */
    #define MUCH_BETTER 4.0           /* ... and of a known one */
    #define SCALE_FIRST 0.125         /* the median of what the best age leaves, of the battery's move: at first ... */
    #define SCALE_LEAST 0.01
    #define SCALE_MOST 0.25
    #define SCALE_RATE 1.3            /* ... and how fast it is followed */
    #define BLOCK_S 1.0               /* smooth moves are summed up for so long */
    #define KNOWN_S 0.06              /* an age is known when it is known to so much ... */
    #define SHOWN_NS 500000000u       /* an age is believed when the meter has shown the battery's moves for longer than it, by so much */
    #define KNOWN_SHARE 0.35          /* ... or to this share of itself */
    #define FIRST_AGAINST 0.9           /* what an age leaves to begin with that was measured not to be: as much as one clear move tells */
    #define ASKED_KEEP 0.25             /* of what was told before: half of each deviation */
    #define OUTERMOST 2u                /* the oldest ages that are tried also fit what is older, or averaged */
    #define LONGER_AGAINST 1.2          /* standard deviations by which another age is better over longer times: it may be true as well */
    #define FILLED_MOVES 6.0            /* with the converter's power known between its readings, for an age to be found by those */
    #define FIRST_MOVES 4.0           /* moves that the meter has shown before the believed age is taken for confirmed */
    """
    const uint64_t SCORE_AFTER_NS, SHOWN_NS
    const double MEMORY_S, KEEP_LEAST, TREND_S, OUT_OF_QUESTION, OUT_OF_QUESTION_QUIET, QUIET_SHARE, BELIEVED, BELIEVED_SHARE, LIKELY, LIKELY_SHARE
    const double ENOUGH, BETTER, MUCH_BETTER
    const double SCALE_FIRST, SCALE_LEAST, SCALE_MOST, SCALE_RATE, BLOCK_S, KNOWN_S, KNOWN_SHARE
    const double FIRST_AGAINST, FIRST_MOVES, FILLED_MOVES, LONGER_AGAINST
    const uint32_t OUTERMOST
    const double ASKED_KEEP



cdef void lag_believe(const control_params_t* params, estimate_state_t* state) noexcept nogil:
    cdef lag_trials_t* l = &state.lags
    cdef uint32_t i, lo = 0, hi = 0
    # The ages of a slow meter are not told apart: to believe one would only make the pulses longer.
    if not params.first_age_hi_s > params.first_age_lo_s or params.first_interval_s > INTERVAL_SLOW_S:
        return
    while lo + 2 < LAGS and <double>LAG_NS[lo + 1] <= params.first_age_lo_s * 1e9:
        lo += 1
    hi = lo + 1
    while hi + 1 < LAGS and <double>LAG_NS[hi] < params.first_age_hi_s * 1e9:
        hi += 1
    for i in range(<uint32_t>LAGS):
        if not lo <= i <= hi:
            l.unexplained[i] = FIRST_AGAINST
    l.first = hi + 1
    l.first_lo = lo
    l.best = (lo + hi) // 2
    l.interval.interval_s = params.first_interval_s
    state.lag_lo = lo
    state.lag_hi = hi
    state.age_s = <double>LAG_NS[l.best] * 1e-9
    state.age_lo_s = state.likely_lo_s = <double>LAG_NS[lo] * 1e-9
    state.age_hi_s = state.likely_hi_s = <double>LAG_NS[hi] * 1e-9


cdef void lag_gap(estimate_state_t* state) noexcept nogil:
    state.lags.t_ns = 0
    state.pending_count = 0
    models_gap(state)


cdef void lag_measure(const control_params_t* params, estimate_state_t* state, double grid_w,
                      uint64_t t_ns) noexcept nogil:
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
        models_try(state, state.pending_w[at], state.pending_t_ns[at])
        try_ages(params, state, state.pending_w[at], state.pending_t_ns[at])
        state.pending_first = (at + 1) % PENDING_MAX
        state.pending_count -= 1
    answer_judge(state, t_ns)


cdef void forget(estimate_state_t* state, uint32_t lags) noexcept nogil:
    """All ages are open again."""
    cdef lag_trials_t* l = &state.lags
    cdef uint32_t i
    models_forget(state)
    l.known = 0
    l.used = 0
    l.moves = 0.0
    l.filled = 0.0
    l.by_filled = 0
    l.motion_w2 = 0.0
    l.first_t_ns = 0
    for i in range(<uint32_t>LAGS):
        l.unexplained[i] = l.filled_unexplained[i] = 0.0
        l.variance[i] = l.filled_variance[i] = 0.0
    state.lag_lo = 0
    state.lag_hi = lags - 1


cdef void lag_reopen(estimate_state_t* state) noexcept nogil:
    state.lag_search_wide = 2
    state.lags.first = 0
    forget(state, LAGS)
    state.age_known = 0


cdef void lag_asked(estimate_state_t* state) noexcept nogil:
    cdef lag_trials_t* l = &state.lags
    cdef model_trials_t* m = &state.models
    cdef uint32_t i
    l.known = 0
    m.asked = 1
    l.moves *= ASKED_KEEP
    l.motion_w2 *= ASKED_KEEP
    l.filled *= ASKED_KEEP
    moments_keep(&l.moments, ASKED_KEEP)
    models_noise_forget(state)
    for i in range(<uint32_t>LAGS):
        l.unexplained[i] *= ASKED_KEEP
        l.variance[i] *= ASKED_KEEP
        l.filled_unexplained[i] *= ASKED_KEEP
        l.filled_variance[i] *= ASKED_KEEP
    for i in range(<uint32_t>METER_MODELS):
        m.unexplained[i] *= ASKED_KEEP
        m.variance[i] *= ASKED_KEEP
    for i in range(<uint32_t>SCALES):
        m.moves[i] *= ASKED_KEEP
        m.motion_w2[i] *= ASKED_KEEP


cdef void lag_repeated(const control_params_t* params, estimate_state_t* state) noexcept nogil:
    forget(state, lags_of(params, state))
    if state.models.answer == ANSWER_OPEN:
        answer_forget(state)
        signs_begin(&state.models.signs)
    lag_gap(state)


cdef void try_ages(const control_params_t* params, estimate_state_t* state, double grid_w, uint64_t t_ns) noexcept nogil:
    """One reading; no more than the next one's base while neither battery nor grid has moved."""
    cdef double now_w[LAGS]
    cdef double rest_w[LAGS]
    cdef lag_trials_t* l = &state.lags
    cdef uint32_t i, lags = LAGS  # the site file's own bound may be wrong: it holds until the age is found
    cdef double dt_s, slope, trend, least_w, most_w = 0.0, change_w = grid_w - l.grid_w
    cdef double lo_w, hi_w, unmoved_w
    if state.lag_search_wide == 1:
        state.lag_search_wide = 2
        # Swings behind a meter that is believed to average are weighed like any other move: by them another model shows.
        if not state.models.averages:
            forget(state, lags_of(params, state))
    if t_ns > state.moved_t_ns + 2 * <uint64_t>LAG_NS_MAX:
        l.t_ns = 0  # the battery has stood still for longer than any age
        return
    history_sweep(&state.total, t_ns, lags, now_w)
    if l.t_ns == 0 or t_ns <= l.t_ns:
        for i in range(lags):
            l.last_w[i] = now_w[i]
        l.grid_w = grid_w
        l.t_ns = t_ns
        l.sloped = 0
        return
    if change_w != 0.0:
        l.resolution_w = fabs(change_w) if l.resolution_w == 0.0 else fmin(l.resolution_w, fabs(change_w))
    for i in range(lags):
        most_w = fmax(most_w, fabs(now_w[i] - l.last_w[i]))
    least_w = fmax(MOTION_W, 2.0 * l.resolution_w)
    if l.first_t_ns == 0 and most_w > least_w:
        l.first_t_ns = t_ns
    dt_s = <double>(t_ns - l.t_ns) * 1e-9
    # Between two readings of the converter nothing can be compared.
    if (most_w <= least_w and fabs(change_w) <= least_w and dt_s < BLOCK_S) or dt_s < 0.7 * ess_known_s(state):
        return
    trend = dt_s / (dt_s + TREND_S) if l.sloped else 1.0
    lo_w = 1e300
    hi_w = -1e300
    slope = change_w / dt_s
    unmoved_w = (slope - l.unmoved_slope_w_per_s) * dt_s
    l.unmoved_slope_w_per_s += (slope - l.unmoved_slope_w_per_s) * trend
    for i in range(lags):
        slope = (change_w + now_w[i] - l.last_w[i]) / dt_s
        rest_w[i] = (slope - l.slope_w_per_s[i]) * dt_s
        l.slope_w_per_s[i] += (slope - l.slope_w_per_s[i]) * trend
        l.last_w[i] = now_w[i]
        lo_w = fmin(lo_w, rest_w[i])
        hi_w = fmax(hi_w, rest_w[i])
    l.grid_w = grid_w
    l.t_ns = t_ns
    if most_w > least_w:
        moments_fade(&l.moments, dt_s)
    if l.sloped and fabs(rest_w[l.best] - unmoved_w) > least_w:
        moments_add(&l.moments, rest_w[l.best] - unmoved_w, unmoved_w, l.resolution_w, l.best, dt_s)
    if l.sloped and hi_w - lo_w > least_w and not (
            state.models.answer == ANSWER_SEEN and is_small_move(hi_w - lo_w, l.motion_w2, l.moves)):
        judge(l, lags, rest_w, hi_w - lo_w, fmax(1.0 - dt_s / MEMORY_S, KEEP_LEAST), unmoved_w,
              counts_for_answer(state, change_w, t_ns), state.ess_filled)
        choose(state, lags, lags_of(params, state))
    l.sloped = 1


cdef void judge(lag_trials_t* l, uint32_t lags, const double* rest_w, double span_w, double keep,
                double unmoved_w, bint told, bint filled) noexcept nogil:
    """Add what each age leaves unexplained: 0 where it explains all, towards 1 where it is far off.

    Bounded, so that a step of the load, which is as much under every age, tells as little as it knows.
    """
    cdef double rounding_w = fmax(l.resolution_w, 1.0), scale_w2, weight, unmoved, mean = 0.0, w2
    cdef double left[LAGS]
    cdef uint32_t i
    # The median of what the best age leaves, as a share of the move: half is far off by twice as much.
    if l.share == 0.0:
        l.share = SCALE_FIRST
    scale_w2 = 4.0 * l.share * l.share * span_w * span_w + rounding_w * rounding_w
    l.share *= SCALE_RATE if fabs(rest_w[l.best]) > l.share * span_w else 1.0 / SCALE_RATE
    l.share = fmin(fmax(l.share, SCALE_LEAST), SCALE_MOST)
    l.motion_w2 = keep * l.motion_w2 + span_w * span_w
    l.moves = keep * l.moves + 1.0
    l.filled = keep * l.filled + filled
    # Large moves tell more than small ones.
    weight = move_weight(span_w, l.motion_w2, l.moves)
    for i in range(lags):
        w2 = rest_w[i] * rest_w[i]
        left[i] = w2 / (w2 + scale_w2)
        mean += left[i]
    mean /= lags
    if told:
        l.answer_readings += weight
        unmoved = unmoved_w * unmoved_w / (unmoved_w * unmoved_w + scale_w2)
        for i in range(lags):
            w2 = unmoved - left[i]
            l.answer_gain[i] += weight * w2
            l.answer_variance[i] += weight * w2 * w2
    for i in range(lags):
        w2 = (left[i] - mean) * weight
        l.unexplained[i] = keep * l.unexplained[i] + w2
        l.variance[i] = keep * l.variance[i] + w2 * w2
        if filled:
            l.filled_unexplained[i] = keep * l.filled_unexplained[i] + w2
            l.filled_variance[i] = keep * l.filled_variance[i] + w2 * w2


cdef inline double left_by(const estimate_state_t* state, uint32_t i) noexcept nogil:
    """What an age leaves unexplained from reading to reading, and over longer times."""
    return state.lags.unexplained[i] + state.models.unexplained[i]


cdef inline double worse(const estimate_state_t* state, uint32_t i, uint32_t than) noexcept nogil:
    """By how many standard deviations of their difference an age leaves more unexplained than another."""
    return (left_by(state, i) - left_by(state, than)) / sqrt(
        state.lags.variance[i] + state.lags.variance[than] + state.models.variance[i] + state.models.variance[than] + 0.5)


cdef inline bint longer_times_against(const estimate_state_t* state, uint32_t i) noexcept nogil:
    """Before a restless load what is seen from reading to reading may be chance; over longer times another age, or an
    average, is better.

    Where an average is better by far, model.pyx says so.
    """
    cdef const model_trials_t* m = &state.models
    # Beside an age that is known an average may be better by chance, or because the meter lies.
    cdef bint averages = m.averages or (state.lags.known and m.best != m.delay_best)
    return not averages and not moments_against(&state.lags.moments, m.best) and m.unexplained[i] - m.unexplained[m.best] > LONGER_AGAINST * sqrt(m.variance[i] + m.variance[m.best] + 0.25)


cdef inline uint32_t lag_near(double age_s, uint32_t lags) noexcept nogil:
    """The first of LAG_NS that is no younger."""
    cdef uint32_t i = 0
    while i + 1 < lags and <double>LAG_NS[i] * 1e-9 < age_s:
        i += 1
    return i


cdef inline bint possible(const estimate_state_t* state, uint32_t i) noexcept nogil:
    cdef const lag_trials_t* l = &state.lags
    return worse(state, i, l.best) <= (OUT_OF_QUESTION_QUIET if l.share <= QUIET_SHARE else OUT_OF_QUESTION)


cdef inline void begin_by_filled(estimate_state_t* state) noexcept nogil:
    """What was found by straight lines between a slow converter's readings ends, once as much was found without.

    Such lines put a step by up to half of the interval too late, and the meter looks younger by that. So no other age comes
    of it, and what has been said against those stays.
    """
    cdef lag_trials_t* l = &state.lags
    cdef int64_t most_ns = <int64_t>(0.5e9 * l.ess_interval.interval_s)
    cdef double more = -l.unexplained[l.best]
    cdef uint32_t i, before = l.best
    l.by_filled = 1
    for i in range(<uint32_t>LAGS):
        if -most_ns <= LAG_NS[i] - LAG_NS[before] <= most_ns and l.filled_unexplained[i] < l.filled_unexplained[l.best]:
            l.best = i
    more += l.filled_unexplained[l.best]
    for i in range(<uint32_t>LAGS):
        if -most_ns <= LAG_NS[i] - LAG_NS[before] <= most_ns:
            l.unexplained[i] = l.filled_unexplained[i]
            l.variance[i] = l.filled_variance[i]
        else:
            l.unexplained[i] += more


cdef void choose(estimate_state_t* state, uint32_t lags, uint32_t own) noexcept nogil:
    if not state.lags.by_filled and state.lags.filled >= FILLED_MOVES and not state.models.averages:
        begin_by_filled(state)
    if not choose_age(state, lags, own):
        state.lags.age_lo = state.lags.likely_lo = state.lag_lo
        state.lags.age_hi = state.lags.likely_hi = state.lag_hi
        state.lags.open_s = <double>(LAG_NS[state.lag_hi] - LAG_NS[state.lag_lo]) * 1e-9
    state.age_known = state.models.known if state.models.averages else state.lags.known
    if not state.models.averages:
        state.age_s = <double>LAG_NS[state.lags.best] * 1e-9
        state.age_lo_s = <double>LAG_NS[state.lags.age_lo] * 1e-9
        state.age_hi_s = <double>LAG_NS[state.lags.age_hi] * 1e-9
        state.likely_lo_s = <double>LAG_NS[state.lags.likely_lo] * 1e-9
        state.likely_hi_s = <double>LAG_NS[state.lags.likely_hi] * 1e-9


cdef inline bint shown(const lag_trials_t* l, uint32_t i) noexcept nogil:
    """Whether a meter of this age would have shown the first moves by now: an older one explains any load by itself."""
    return l.first_t_ns != 0 and <int64_t>(l.t_ns - l.first_t_ns) > 2 * LAG_NS[i] + <int64_t>SHOWN_NS


cdef void around(const estimate_state_t* state, uint32_t best, uint32_t first, uint32_t last, double by, int64_t more_ns,
                 uint32_t* lo, uint32_t* hi) noexcept nogil:
    """An age, its neighbours, those from first to last that are worse by no more than that, and more_ns to either side."""
    cdef const lag_trials_t* l = &state.lags
    cdef const model_trials_t* m = &state.models
    cdef double left = left_by(state, best), variance = l.variance[best] + m.variance[best] + 0.5, more
    cdef uint32_t i, least = best, most = best
    for i in range(first, last + 1):
        more = left_by(state, i) - left
        if more <= 0.0 or more * more <= by * by * (l.variance[i] + m.variance[i] + variance):
            least = min(least, i)
            most = max(most, i)
    lo[0] = min(least, best - 1) if best > 0 else 0
    while lo[0] > 0 and LAG_NS[least] - LAG_NS[lo[0]] < more_ns:
        lo[0] -= 1
    hi[0] = max(most, best + 1) if best + 1 < LAGS else LAGS - 1
    while hi[0] + 1 < LAGS and LAG_NS[hi[0]] - LAG_NS[most] < more_ns:
        hi[0] += 1


cdef inline int64_t when_ns(const estimate_state_t* state, double share) noexcept nogil:
    """How old the converter's own readings are is known where they come at even times; else to a share of their interval."""
    return 0 if state.lags.ess_interval.alike else <int64_t>(share * 1e9 * age_found_s(state))


cdef bint choose_age(estimate_state_t* state, uint32_t lags, uint32_t own) noexcept nogil:
    """The best age, and which others are still possible; 1 = it is believed closer than it is paired."""
    cdef lag_trials_t* l = &state.lags
    cdef uint32_t i, best = l.best, least, first, last, held_lo = state.lag_lo, held_hi = state.lag_hi
    cdef double age_s
    cdef int64_t jitter_ns, slow_ns
    cdef bint alone = True, contradicted
    for i in range(lags):
        if left_by(state, i) < left_by(state, best):
            best = i
    least = best
    # What was measured before stands until the meter would have shown that; then until more than that speaks against it.
    if l.first and (not shown(l, l.first - 1) or (l.moves < FIRST_MOVES and l.first_lo <= best < l.first)):
        return False
    l.first = 0
    # The oldest age is that of a meter which has yet to show a move.
    l.used = l.used or (l.moves > ENOUGH and worse(state, lags - 1, best) > BETTER and shown(l, best))
    if best != l.best and worse(state, l.best, best) > (MUCH_BETTER if l.known else BETTER if l.used else 0.0):
        l.best = best
    best = l.best
    first = last = best
    while first > 0 and possible(state, first - 1):
        first -= 1
    while last < lags - 1 and possible(state, last + 1):
        last += 1
    # What has been ruled out stays so when the moves that told are forgotten, until the best age is one of those.
    if held_lo <= best <= held_hi and shown(l, lags - 1):
        first = max(first, held_lo)
        last = min(last, held_hi)
    else:
        held_lo = 0
        held_hi = lags - 1
    for i in range(held_lo, <uint32_t>(held_hi + 1)):
        if (i < first or i > last) and possible(state, i):
            alone = False
            break
    age_s = fabs(<double>LAG_NS[best]) * 1e-9
    contradicted = longer_times_against(state, best)
    if contradicted:
        l.known = 0
    elif not l.known and alone and shown(l, last) and <double>(LAG_NS[last] - LAG_NS[first]) * 1e-9 <= fmax(
            fmax(KNOWN_S, 1.5 * l.interval.interval_s), KNOWN_SHARE * age_s):
        l.known = 1
    # A slow meter's ages cannot be told apart closer than it refreshes; one that is slower than all of them tells none.
    slow_ns = <int64_t>(1e9 * l.interval.interval_s) if l.interval.interval_s > INTERVAL_SLOW_S else 0
    if best >= lags - OUTERMOST:
        l.known = 0
        l.used = 0
    if l.interval.interval_s <= 0.0 or (slow_ns and (not l.known or slow_ns > LAG_NS[lags - 1] // 2)):
        state.lag_lo = 0
        state.lag_hi = own - 1
        l.known = 0
        l.used = 0
        if not slow_ns or l.moves <= ENOUGH or not shown(l, lags - 1):
            return False
        around(state, best, 0, lags - 1, BELIEVED, slow_ns // 2 + when_ns(state, BELIEVED_SHARE), &l.age_lo, &l.age_hi)
        around(state, least, l.age_lo, l.age_hi, LIKELY, slow_ns // 2 + when_ns(state, LIKELY_SHARE), &l.likely_lo, &l.likely_hi)
        l.open_s = <double>(LAG_NS[own - 1] - LAG_NS[0]) * 1e-9
        return True
    if l.known or l.used:
        around(state, best, best, best, BELIEVED, slow_ns + when_ns(state, BELIEVED_SHARE), &l.age_lo, &l.age_hi)
        around(state, best, best, best, LIKELY, slow_ns + when_ns(state, LIKELY_SHARE), &l.likely_lo, &l.likely_hi)
        # When in its interval the meter is read is known to half a poll, when the converter to half its own interval.
        jitter_ns = slow_ns + <int64_t>(0.5e9 * (l.poll_s + age_found_s(state)))
        state.lag_lo = best - 1 if best > 0 else 0
        while state.lag_lo > 0 and LAG_NS[best] - LAG_NS[state.lag_lo] < jitter_ns:
            state.lag_lo -= 1
        state.lag_hi = best + 1 if best + 1 < lags else lags - 1
        while state.lag_hi + 1 < lags and LAG_NS[state.lag_hi] - LAG_NS[best] < jitter_ns:
            state.lag_hi += 1
        if not l.known:  # what may be true as well
            around(state, best, held_lo, held_hi, BELIEVED, when_ns(state, BELIEVED_SHARE), &l.age_lo, &l.age_hi)
            # Likely is what explains most; the age that is used stays until another is clearly better.
            around(state, least, l.age_lo, l.age_hi, LIKELY, when_ns(state, LIKELY_SHARE), &l.likely_lo, &l.likely_hi)
            state.lag_lo = min(state.lag_lo, first)
            state.lag_hi = max(state.lag_hi, last)
        if contradicted:
            i = lag_near(model_age_s(state.models.best), lags)
            l.age_lo = min(l.age_lo, i)
            l.age_hi = max(l.age_hi, i)
            l.likely_lo = min(l.likely_lo, i)
            l.likely_hi = max(l.likely_hi, i)
        state.lag_lo = min(state.lag_lo, l.age_lo)
        state.lag_hi = max(state.lag_hi, l.age_hi)
        l.open_s = <double>(LAG_NS[max(last, l.age_hi)] - LAG_NS[min(first, l.age_lo)]) * 1e-9
        return True
    state.lag_lo = 0
    while state.lag_lo < best and not possible(state, state.lag_lo):
        state.lag_lo += 1
    state.lag_hi = own - 1
    state.lag_lo = min(state.lag_lo, state.lag_hi)
    while state.lag_hi > max(best, state.lag_lo) and not possible(state, state.lag_hi):
        state.lag_hi -= 1
    state.lag_lo = max(state.lag_lo, held_lo)
    state.lag_hi = max(min(state.lag_hi, held_hi), state.lag_lo)
    return False
