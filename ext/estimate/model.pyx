"""What the grid meter makes of the power: an age alone, or an average over some time, of some age.

lag.pyx finds an age by how the slope of grid + battery jumps from one reading to the next, which is sharp where the
meter shows moments. What shows in a meter that averages, in coarse digits or behind a slow converter is little from one
reading to the next. So every model, averages among them, is judged here by what grid + battery changes by over two
longer times: under the true one, by what the load does and nothing of the battery.
"""

from libc.math cimport fabs, sqrt
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.estimate.estimate cimport *
from tidegate.ext.estimate.meter_sign cimport SIGN_AGAINST, signs_compare, signs_earned, signs_found, signs_turned_w
from tidegate.ext.estimate.moments cimport moments_against
from tidegate.ext.estimate.pairing cimport LAG_NS, MOTION_W
from tidegate.ext.estimate.shape cimport *


cdef extern from *:
    """
    #define SAMPLES_MASK (SAMPLES_MAX - 1u)
    #define SAMPLE_NS 25000000u        /* readings closer than that are not kept */
    static const double SCALE_S[SCALES] = {0.4, 2.0};
    static const double LOOK_S[SCALES] = {0.05, 0.25}; /* how often they are compared */
    #define MODELS_MEMORY_S 25.0
    #define SLOPE_S 4.0
    #define NOISE_RATE 1.08
    #define NOISE_HURRY 0.4            /* beside that, where it is found anew, ... */
    #define HURRY_S 10.0               /* ... fading within */
    #define MODEL_SHARE 0.05           /* of the moves: no model is truer than that */
    #define AVERAGES 3.0               /* standard deviations by which an average must be better than any mere age ... */
    #define CONTRADICTED 2.5           /* ... by so much, than the age that was found */
    #define AVERAGES_INSTEAD 1.2       /* ... and then by so much than any other */
    #define AVERAGES_ASKED 1.2         /* ... or where the battery does what no load does, for it is asked by steps */
    #define AVERAGES_NOT 0.0           /* ... and an age than it, to be believed again; ... */
    #define AVERAGES_KEPT 1.5          /* ... once it is no longer open whether the meter shows the battery: by more than chance */
    #define OLD_S 1.0                  /* from this age on, and so many of its intervals, a mere age is the less likely one: ... */
    #define OLD_INTERVALS 0.3
    #define AVERAGES_OLD 0.7           /* ... so much better is enough, ... */
    #define AVERAGES_NOT_OLD 1.5       /* ... and so much it must be better itself */
    #define MODEL_BETTER 1.5
    #define MODEL_OUT 2.5
    #define OLDEST_SHARE 0.8           /* of the oldest age that is tried: an average that may be so old has no bound */
    #define MODEL_QUIET_SHARE 0.06     /* the load moves by so little of what the battery does: chance has no part in it ... */
    #define MODEL_OUT_QUIET 1.2
    #define MODEL_BELIEVED 1.2         /* so much worse, and it is no longer believed ... */
    #define MODEL_BELIEVED_QUIET 0.9
    #define MODEL_LIKELY 0.2           /* so much worse than the best of all, and it is not as likely */
    #define SEEN_BY 2.5                /* standard deviations by which it is clear that the meter shows the battery ... */
    #define UNSEEN_BY 1.5              /* ... and that it does not, ... */
    #define UNSEEN_READINGS 8.0        /* ... by so many readings ... */
    #define UNSEEN_NS 30000000000u     /* ... and no sooner */
    #define UNSEEN_MEAN_NS 60000000000u /* an average of many seconds needs the pulses that are large and long by then */
    #define UNMOVED_NS 90000000000u    /* a meter that shows nothing at all for so long */
    #define ANSWER_LEAST 1.0           /* least variance: one move is no proof */
    #define SHOWN_S 0.5                /* as in lag.pyx */
    #define SINCE_LEAST 0.15           /* by so much less it has to leave in a move, to count ... */
    #define SINCE_DOUBTED 2.5          /* ... and so many moves of that together: the meter has become another */
    #define DOUBTED 1.0                /* standard deviations by which something else explains more than what is believed */
    #define STILL_NS 20000000000u      /* a battery that has stood still for so long tells nothing */
    """
    const uint32_t SAMPLES_MASK
    const uint64_t SAMPLE_NS, STILL_NS, UNMOVED_NS, UNSEEN_NS, UNSEEN_MEAN_NS
    const double DOUBTED, SINCE_LEAST, SINCE_DOUBTED
    const double SEEN_BY, UNSEEN_BY, UNSEEN_READINGS, ANSWER_LEAST
    const double[SCALES] SCALE_S
    const double[SCALES] LOOK_S
    const double MODELS_MEMORY_S, SLOPE_S, NOISE_RATE, NOISE_HURRY, HURRY_S, MODEL_SHARE, AVERAGES, AVERAGES_ASKED, AVERAGES_NOT, AVERAGES_OLD, AVERAGES_NOT_OLD, AVERAGES_KEPT, OLD_S, OLD_INTERVALS, MODEL_BETTER, OLDEST_SHARE
    const double CONTRADICTED, AVERAGES_INSTEAD, SHOWN_S, MODEL_OUT, MODEL_QUIET_SHARE, MODEL_OUT_QUIET, MODEL_BELIEVED, MODEL_BELIEVED_QUIET, MODEL_LIKELY


cdef void models_forget(estimate_state_t* state) noexcept nogil:
    cdef model_trials_t* m = &state.models
    memset(m.unexplained, 0, sizeof(m.unexplained))
    memset(m.variance, 0, sizeof(m.variance))
    models_noise_forget(state)
    m.averages = 0
    m.known = 0


cdef void models_noise_forget(estimate_state_t* state) noexcept nogil:
    cdef uint32_t scale
    memset(state.models.since, 0, sizeof(state.models.since))
    state.models.since_most = 0.0
    for scale in range(<uint32_t>SCALES):
        state.models.hurry[scale] = 1.0


cdef void models_gap(estimate_state_t* state) noexcept nogil:
    state.models.count = 0


cdef void models_try(estimate_state_t* state, double grid_w, uint64_t t_ns) noexcept nogil:
    cdef model_trials_t* m = &state.models
    cdef double[METER_MODELS] now_w
    cdef uint32_t scale
    cdef bint swept = False, judged = False
    if m.count and t_ns < m.t_ns[m.head] + SAMPLE_NS:
        return
    for scale in range(<uint32_t>SCALES):
        if t_ns < m.done_ns[scale] + <uint64_t>(LOOK_S[scale] * 1e9):
            continue
        if not swept and t_ns < state.moved_t_ns + STILL_NS:
            models_sweep(&state.shapes, t_ns, now_w)
            swept = True
        if compare(state, scale, grid_w, t_ns, now_w if swept else NULL):
            judged = True
        m.done_ns[scale] = t_ns
    m.head = (m.head + 1) & SAMPLES_MASK
    m.t_ns[m.head] = t_ns
    m.w[m.head] = grid_w
    if m.count < SAMPLES_MAX:
        m.count += 1
    if judged:
        choose_model(state)


cdef bint compare(estimate_state_t* state, uint32_t scale, double grid_w, uint64_t t_ns,
                  const double* now_w) noexcept nogil:
    """What each model leaves between this reading and one that is SCALE_S older; 1 = it told something."""
    cdef model_trials_t* m = &state.models
    cdef double[METER_MODELS] rest_w
    cdef uint32_t i, at = m.head, number
    cdef uint64_t then_ns = t_ns - <uint64_t>(SCALE_S[scale] * 1e9), before_ns
    cdef double change_w, apart_s, lo_w, hi_w, span_w, left_w, share, scale_w2, least_w2, weight, keep, mean = 0.0, w2, slope_w
    if m.count == 0:
        return False
    for number in range(m.count):
        at = (m.head - number) & SAMPLES_MASK
        if m.t_ns[at] <= then_ns:
            break
    before_ns = m.t_ns[at]
    apart_s = <double>(t_ns - before_ns) * 1e-9
    if apart_s < 0.5 * SCALE_S[scale] or apart_s > 4.0 * SCALE_S[scale] + 20.0:
        return False
    change_w = grid_w - m.w[at]
    # How much of this span is news: spans overlap.
    share = fmin(<double>(t_ns - m.done_ns[scale]) * 1e-9 / apart_s, 1.0)
    slope_w = m.slope_w_per_s[scale] * apart_s
    if now_w == NULL:
        note(m, scale, change_w, slope_w, apart_s, share)
        return False
    models_sweep(&state.shapes, before_ns, rest_w)
    lo_w = 1e300
    hi_w = -1e300
    for i in range(<uint32_t>METER_MODELS):
        rest_w[i] = change_w + now_w[i] - rest_w[i]
        lo_w = fmin(lo_w, rest_w[i])
        hi_w = fmax(hi_w, rest_w[i])
    span_w = hi_w - lo_w
    left_w = rest_w[m.best]
    follow(&m.unmoved_noise_w[scale], fabs(change_w - slope_w), share, m.hurry[scale])
    if span_w <= fmax(MOTION_W, 2.0 * state.lags.resolution_w):
        note(m, scale, left_w, slope_w, apart_s, share)
        return False
    w2 = fmin(m.noise_w[scale], m.unmoved_noise_w[scale])
    scale_w2 = fmax(4.0 * w2 * w2, MODEL_SHARE * MODEL_SHARE * span_w * span_w)
    least_w2 = fmax(state.lags.resolution_w * state.lags.resolution_w, 1.0)
    scale_w2 += least_w2
    if m.answer == ANSWER_SEEN and is_small_move(span_w, m.motion_w2[scale], m.moves[scale]):
        note(m, scale, left_w, slope_w, apart_s, share)
        return False
    keep = fmax(1.0 - <double>(t_ns - m.done_ns[scale]) * 1e-9 / MODELS_MEMORY_S, 0.9)
    # What large moves have told is forgotten only as others tell as much; not while it is open what the meter shows at all.
    if m.averages and m.answer == ANSWER_SEEN:
        keep = 1.0 - (1.0 - keep) * move_weight(span_w, m.motion_w2[scale], m.moves[scale])
    m.motion_w2[scale] = keep * m.motion_w2[scale] + share * span_w * span_w
    m.moves[scale] = keep * m.moves[scale] + share
    weight = share * move_weight(span_w, m.motion_w2[scale], m.moves[scale])
    if m.signs.on:
        follow(&m.signs.noise_w[scale], fabs(signs_turned_w(&m.signs, rest_w, change_w, slope_w)), share, 0.0)
        w2 = 4.0 * m.signs.noise_w[scale] * m.signs.noise_w[scale]
        signs_compare(&m.signs, rest_w, change_w, slope_w, fmin(scale_w2, w2 + MODEL_SHARE * MODEL_SHARE * span_w * span_w + least_w2), weight)
    for i in range(<uint32_t>METER_MODELS):
        w2 = (rest_w[i] - slope_w) * (rest_w[i] - slope_w)
        rest_w[i] = w2 / (w2 + scale_w2)
        mean += rest_w[i]
    mean /= METER_MODELS
    for i in range(<uint32_t>METER_MODELS):
        w2 = rest_w[i] - mean
        m.unexplained[i] = keep * m.unexplained[i] + weight * w2
        m.variance[i] = keep * m.variance[i] + weight * w2 * w2
    count_since(state, rest_w, share)
    if m.answer == ANSWER_OPEN:
        compare_unmoved(state, rest_w, weight, (change_w - slope_w) * (change_w - slope_w), scale_w2,
                        counts_for_answer(state, change_w, t_ns))
    note(m, scale, left_w, slope_w, apart_s, share)
    return True


cdef inline uint32_t believed(const estimate_state_t* state) noexcept nogil:
    return state.models.near[0] if state.models.averages else state.lags.best


cdef inline void count_since(estimate_state_t* state, const double* left, double weight) noexcept nogil:
    """What a model explains more than what is believed, since that was least: what was told long before weighs nothing here."""
    cdef model_trials_t* m = &state.models
    cdef double than = left[believed(state)] - SINCE_LEAST
    cdef uint32_t i
    if not state.age_known:  # only what is known can have become false
        if m.since_most > 0.0:
            memset(m.since, 0, sizeof(m.since))
        m.since_most = 0.0
        return
    m.since_most = 0.0
    for i in range(<uint32_t>METER_MODELS):
        m.since[i] = fmax(m.since[i] + weight * (than - left[i]), 0.0)
        m.since_most = fmax(m.since_most, m.since[i])


cdef inline void follow(double* median_w, double off_w, double share, double hurry) noexcept nogil:
    cdef double rate = fmin((NOISE_RATE - 1.0 + NOISE_HURRY * hurry) * share, 0.5)
    if median_w[0] == 0.0:
        median_w[0] = fmax(off_w, 1.0)
    median_w[0] *= 1.0 + rate if off_w > median_w[0] else 1.0 - rate
    median_w[0] = fmax(median_w[0], 0.1)


cdef inline void note(model_trials_t* m, uint32_t scale, double left_w, double slope_w, double apart_s,
                      double share) noexcept nogil:
    """Follow the load's own restlessness over this time: its mean slope, and the median beside it."""
    cdef double off_w = fabs(left_w - slope_w)
    follow(&m.noise_w[scale], off_w, share, m.hurry[scale])
    m.hurry[scale] *= 1.0 - fmin(share * apart_s * (1.0 / HURRY_S), 0.5)
    # A step is no slope.
    if off_w < 4.0 * m.noise_w[scale]:
        m.slope_w_per_s[scale] += (left_w / apart_s - m.slope_w_per_s[scale]) * fmin(share * apart_s / SLOPE_S, 0.5)


cdef inline double model_worse(const model_trials_t* m, uint32_t i, uint32_t than) noexcept nogil:
    return (m.unexplained[i] - m.unexplained[than]) / sqrt(m.variance[i] + m.variance[than] + 0.25)


cdef inline bint no_worse(const model_trials_t* m, uint32_t i, uint32_t than, double by) noexcept nogil:
    """Whether it is worse by no more than so many standard deviations; without a root, for it is asked of every model."""
    cdef double more = m.unexplained[i] - m.unexplained[than]
    return more <= 0.0 or more * more <= by * by * (m.variance[i] + m.variance[than] + 0.25)


cdef inline bint is_quiet(const model_trials_t* m) noexcept nogil:
    """The load moves by so little of what the battery does that chance has no part in what is found."""
    return m.moves[0] > 0.0 and m.noise_w[0] * m.noise_w[0] * m.moves[0] <= (
        MODEL_QUIET_SHARE * MODEL_QUIET_SHARE * m.motion_w2[0])


cdef bint is_bounded(const model_trials_t* m) noexcept nogil:
    """No average of the oldest age fits as well: beside a load on a slope any that is long enough does."""
    cdef double out = MODEL_OUT_QUIET if is_quiet(m) else MODEL_OUT
    cdef uint32_t i, oldest = METER_MODELS - 1
    for i in range(<uint32_t>METER_MODELS):
        if model_age_s(i) > model_age_s(oldest):
            oldest = i
    for i in range(<uint32_t>METER_MODELS):
        if model_age_s(i) > OLDEST_SHARE * model_age_s(oldest) and model_worse(m, i, m.mean_best) <= out:
            return False
    return True


# ---------------------------------------------------------------- does the meter show the battery at all?


cdef void answer_forget(estimate_state_t* state) noexcept nogil:
    cdef model_trials_t* m = &state.models
    m.answer = ANSWER_OPEN
    memset(m.answer_gain, 0, sizeof(m.answer_gain))
    memset(m.answer_variance, 0, sizeof(m.answer_variance))
    memset(state.lags.answer_gain, 0, sizeof(state.lags.answer_gain))
    memset(state.lags.answer_variance, 0, sizeof(state.lags.answer_variance))
    state.lags.answer_readings = 0.0
    m.answer_readings = m.answer_by = 0.0
    m.answer_t_ns = m.unshown_t_ns = 0


cdef void answer_armed(estimate_state_t* state, bint against) noexcept nogil:
    cdef model_trials_t* m = &state.models
    if m.answer == ANSWER_OPEN or (m.answer == ANSWER_SEEN and not against):
        m.answer = ANSWER_UNPROVEN
        m.signs.earned = 1.0 if against else signs_earned(&m.signs)


cdef void answer_shown(estimate_state_t* state) noexcept nogil:
    state.models.answer = ANSWER_SEEN
    state.models.signs.earned = 1.0


cdef inline void compare_unmoved(estimate_state_t* state, const double* left, double weight, double unmoved_w2,
                                 double scale_w2, bint told) noexcept nogil:
    """What each model explains more than a meter that shows nothing of the battery. left: 0..1, what each leaves."""
    cdef model_trials_t* m = &state.models
    cdef double unmoved = unmoved_w2 / (unmoved_w2 + scale_w2), more
    cdef uint32_t i
    if not told:
        return
    m.answer_readings += weight
    for i in range(<uint32_t>METER_MODELS):
        more = unmoved - left[i]
        m.answer_gain[i] += weight * more
        m.answer_variance[i] += weight * more * more


cdef inline double answer_deviations(double gain, double variance, double readings) noexcept nogil:
    return gain / sqrt(fmax(variance - gain * gain / fmax(readings, 1.0), 0.0) + ANSWER_LEAST)


cdef void answer_judge(estimate_state_t* state, uint64_t t_ns) noexcept nogil:
    cdef model_trials_t* m = &state.models
    cdef uint32_t i
    cdef const lag_trials_t* l = &state.lags
    if m.answer == ANSWER_SEEN or m.answer == ANSWER_NONE:
        return
    if m.answer == ANSWER_UNPROVEN:
        m.signs.earned = signs_earned(&m.signs)
    if m.answer_t_ns == 0:
        if t_ns > state.moved_t_ns + STILL_NS:
            return
        m.answer_t_ns = t_ns
    if m.unshown_t_ns <= state.grid_changed_t_ns:
        m.unshown_t_ns = state.moved_t_ns if state.moved_t_ns > state.grid_changed_t_ns else 0
    m.answer_by = -1e300
    for i in range(<uint32_t>METER_MODELS):
        m.answer_by = fmax(m.answer_by, answer_deviations(m.answer_gain[i], m.answer_variance[i], m.answer_readings))
    for i in range(<uint32_t>LAGS):
        m.answer_by = fmax(m.answer_by, answer_deviations(l.answer_gain[i], l.answer_variance[i], l.answer_readings))
    if m.answer_by > SEEN_BY and m.answer == ANSWER_OPEN:
        m.answer = ANSWER_SEEN
    elif m.answer == ANSWER_OPEN and m.answer_by < -UNSEEN_BY and m.answer_readings > UNSEEN_READINGS and (
            t_ns > m.answer_t_ns + UNSEEN_MEAN_NS and l.interval.interval_s <= ANSWER_SLOW_S):
        m.answer = ANSWER_NONE
    # The slowest meter shows something of a pulse that lasts as long as the longest do by then.
    elif m.unshown_t_ns and t_ns > max(m.answer_t_ns, m.unshown_t_ns) + UNMOVED_NS and t_ns < state.moved_t_ns + UNSEEN_NS:
        m.answer = ANSWER_NONE


cdef inline bint is_late(const estimate_state_t* state, uint32_t i) noexcept nogil:
    """An average that is shown more than a second late, and more than some of the meter's intervals."""
    return <double>LAG_NS[model_lag(i)] * 1e-9 > fmax(OLD_S, state.lags.interval.interval_s * (1.0 / OLD_INTERVALS))


cdef uint32_t likeliest_mean(const estimate_state_t* state, uint32_t* least) noexcept nogil:
    """The average that is most likely, and into least the one that leaves least unexplained.

    Beside a load on a slope any that is long and late enough does. A meter that refreshes quickly and shows its average
    so much later is rarer than one that shows it at once: such a one has to explain clearly more. While it is open
    whether the meter shows the battery at all, nothing is preferred.
    """
    cdef const model_trials_t* m = &state.models
    cdef uint32_t i, young = LAGS, old = 0
    for i in range(<uint32_t>LAGS, <uint32_t>METER_MODELS):
        if not is_late(state, i):
            if m.unexplained[i] < m.unexplained[young]:
                young = i
        elif old == 0 or m.unexplained[i] < m.unexplained[old]:
            old = i
    least[0] = old if old and m.unexplained[old] < m.unexplained[young] else young
    if m.answer == ANSWER_OPEN:
        return least[0]
    return young if old == 0 or no_worse(m, young, old, MODEL_BETTER) else old


cdef void choose_model(estimate_state_t* state) noexcept nogil:
    cdef model_trials_t* m = &state.models
    cdef uint32_t i, best, least, kernel, age, mean = LAGS
    cdef double age_s, lo_s, hi_s, out, not_believed
    cdef bint unlikely, known, contradicted, quiet
    best = m.delay_best
    for i in range(<uint32_t>LAGS):
        if m.unexplained[i] < m.unexplained[best]:
            best = i
    m.delay_best = best
    best = likeliest_mean(state, &mean)
    if m.mean_best < LAGS or not m.averages or model_worse(m, m.mean_best, best) > MODEL_BETTER or (
            m.answer != ANSWER_OPEN and is_late(state, m.mean_best) and not is_late(state, best)):
        m.mean_best = best
    least = best if m.unexplained[best] < m.unexplained[m.delay_best] else m.delay_best
    if m.averages:
        mean = m.mean_best
    m.best = mean if m.unexplained[mean] < m.unexplained[m.delay_best] else m.delay_best
    # A meter that refreshes quickly and shows all of it so much later is rarer than one that averages. An age that was
    # found before the meter began to average speaks against that no longer than it explains what is seen; and beside a
    # known one an average has to have a length.
    known = state.lags.known and <double>LAG_NS[state.lags.best] * 1e-9 <= OLD_S
    unlikely = <double>LAG_NS[m.delay_best] * 1e-9 > OLD_S and (
        0.0 < state.lags.interval.interval_s < OLD_INTERVALS * <double>LAG_NS[m.delay_best] * 1e-9) and (
        <double>LAG_NS[state.lags.best] * 1e-9 > OLD_S or (
            known and model_worse(m, state.lags.best, m.mean_best) > CONTRADICTED))
    # What an age that was found cannot explain by far, an average that explains it better does.
    contradicted = known and model_worse(m, state.lags.best, m.mean_best) > CONTRADICTED
    if not m.averages:
        m.averages = model_worse(m, m.delay_best, m.mean_best) > (
            AVERAGES_OLD if unlikely else AVERAGES_INSTEAD if contradicted else AVERAGES_ASKED if m.asked else AVERAGES) and (
            not known or is_bounded(m)) and not moments_against(&state.lags.moments, m.mean_best)
    elif moments_against(&state.lags.moments, m.mean_best) or model_worse(m, m.mean_best, m.delay_best) > (
            AVERAGES_NOT_OLD if unlikely else AVERAGES_KEPT if m.answer != ANSWER_OPEN else AVERAGES_NOT):
        m.averages = 0
    if not m.averages:
        m.known = 0
        return
    best = m.mean_best
    lo_s = hi_s = age_s = model_age_s(best)
    state.age_lo_s = state.age_hi_s = age_s
    # Likely is what explains most; the one that readings are paired with stays until another is clearly better.
    state.likely_lo_s = state.likely_hi_s = model_age_s(least)
    quiet = is_quiet(m)
    out = MODEL_OUT_QUIET if quiet else MODEL_OUT
    not_believed = MODEL_BELIEVED_QUIET if quiet else MODEL_BELIEVED
    for i in range(<uint32_t>METER_MODELS):
        if no_worse(m, i, best, out):
            lo_s = fmin(lo_s, model_age_s(i))
            hi_s = fmax(hi_s, model_age_s(i))
            if no_worse(m, i, best, not_believed):
                state.age_lo_s = fmin(state.age_lo_s, model_age_s(i))
                state.age_hi_s = fmax(state.age_hi_s, model_age_s(i))
                if no_worse(m, i, least, MODEL_LIKELY):
                    state.likely_lo_s = fmin(state.likely_lo_s, model_age_s(i))
                    state.likely_hi_s = fmax(state.likely_hi_s, model_age_s(i))
    m.known = state.lags.first_t_ns != 0 and <double>(m.t_ns[m.head] - state.lags.first_t_ns) * 1e-9 > 2.0 * hi_s + SHOWN_S and (
        hi_s - lo_s <= fmax(0.25 * age_s + 0.06, 1.5 * state.lags.interval.interval_s))
    # The neighbours in age and in length.
    kernel = model_kernel(best)
    age = (best - LAGS) % SHAPE_AGES
    m.nears = 1
    m.near[0] = best
    if age > 0:
        m.near[m.nears] = best - 1
        m.nears += 1
    if age + 1 < SHAPE_AGES:
        m.near[m.nears] = best + 1
        m.nears += 1
    if kernel != 0 and kernel != <uint32_t>MEANS:
        m.near[m.nears] = best - SHAPE_AGES
        m.nears += 1
    if kernel + 1 != <uint32_t>MEANS and kernel + 1 != MEANS + SMOOTHS:
        m.near[m.nears] = best + SHAPE_AGES
        m.nears += 1
    state.age_s = age_s
    if m.known:
        state.age_lo_s = fmax(lo_s, age_s - 0.12 * age_s - 0.03)
        state.age_hi_s = fmin(hi_s, age_s + 0.12 * age_s + 0.03)
        state.likely_lo_s = state.age_lo_s
        state.likely_hi_s = state.age_hi_s
    m.open_s = hi_s - lo_s


cdef bint model_doubted(const estimate_state_t* state) noexcept nogil:
    cdef const model_trials_t* m = &state.models
    return not no_worse(m, believed(state), m.best, DOUBTED)


cdef bint model_another(const estimate_state_t* state) noexcept nogil:
    return state.models.since_most > SINCE_DOUBTED
