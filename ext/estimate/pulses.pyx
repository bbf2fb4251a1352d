"""The pulses of arming: what the grid meter shows of them, in sign and in size.

They follow no load and no load follows them. So the changes of the grid over a span of time are compared with those of
the battery, at each age that a reading may have. A meter that answers with the battery's own sign is turned, one that
answers sharply but with another share lacks a phase or has a wrong ratio. A meter that averages answers softly: of its
share nothing is said. One that does not answer at all is found by model.pyx.
"""

from libc.math cimport fabs, sqrt
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.image cimport VERDICT_BELIEVED, VERDICT_SHARE, VERDICT_SIGN
from tidegate.ext.estimate.estimate cimport LAGS, estimate_state_t
from tidegate.ext.estimate.meter_sign cimport SIGN_AGAINST, SIGN_OPEN, SIGN_TURNED, signs_found
from tidegate.ext.estimate.model cimport ANSWER_SLOW_S
from tidegate.ext.estimate.pairing cimport history_sweep


cdef extern from *:
    """
    #define SAMPLES_MASK 255u   /* PULSE_SAMPLES - 1 */
    #define SPAN_S 0.25         /* changes are compared over so long, ... */
    #define SPAN_INTERVALS 1.2  /* ... so many intervals of the meter, ... */
    #define SPAN_ESS 2.0        /* ... and of the converters' readings */
    #define SAMPLE_NS 25000000u
    #define NO_AGE 13           /* of LAG_NS: 0 */
    #define LARGE 2.0           /* a change of the grid that is so many of the battery's is a load's step, and counts less */
    #define MOVES 8.0           /* of the battery, for a verdict */
    #define SURE 4.0            /* standard deviations */
    #define SIGN_LEAST 0.6      /* a turned meter shows so much of the battery ... */
    #define SIGN_MOST 1.5       /* ... up to so much; more is the load's */
    #define RIVAL 0.6          /* the opposite sign explains less than so much of it */
    #define MOVES_CLEAR 4.0     /* or fewer moves and less sure, after some time, where it explains next to nothing */
    #define SURE_CLEAR 3.0
    #define RIVAL_CLEAR 0.3
    #define CLEAR_AFTER_S 6.0
    #define SIGN_MOVES 2.0      /* fewer tell nothing of a sign */
    #define SIGN_CLEAR 0.7      /* beside an age alone the battery's own sign explains less than so much of what its opposite does */
    #define SHARE_LO 0.75
    #define SHARE_HI 1.3
    #define SHARP 0.25          /* rest beside what is explained: the answer has the battery's own shape */
    """
    const uint32_t SAMPLES_MASK, NO_AGE
    const uint64_t SAMPLE_NS
    const double SPAN_S, SPAN_INTERVALS, SPAN_ESS, LARGE, MOVES, SURE
    const double SIGN_LEAST, SIGN_MOST, RIVAL, MOVES_CLEAR, SURE_CLEAR, RIVAL_CLEAR, CLEAR_AFTER_S
    const double SIGN_MOVES, SIGN_CLEAR, SHARE_LO, SHARE_HI, SHARP


cdef inline double seconds(uint64_t from_ns, uint64_t to_ns) noexcept nogil:
    return <double>(to_ns - from_ns) * 1e-9 if to_ns > from_ns else 0.0


cdef uint32_t pulses_wanted(const pulses_t* pulses, double interval_s, bint doubted) noexcept nogil:
    if pulses.sign == SIGN_AGAINST:
        return 0
    if pulses.sign == SIGN_OPEN and (interval_s > ANSWER_SLOW_S or not doubted):
        return 2
    return 4


cdef void pulses_begin(pulses_t* pulses) noexcept nogil:
    pulses.count = 0
    pulses.begun_ns = 0
    pulses.grid_w2 = 0.0
    pulses.edges = 0
    pulses.sign = SIGN_OPEN
    memset(pulses.moved_w2, 0, sizeof(pulses.moved_w2))
    memset(pulses.moved_w4, 0, sizeof(pulses.moved_w4))
    memset(pulses.both_w2, 0, sizeof(pulses.both_w2))


cdef uint32_t pulses_reading(const estimate_state_t* state, pulses_t* pulses, double grid_w, double least_w,
                             uint64_t t_ns) noexcept nogil:
    cdef double[LAGS] now_w
    cdef double[LAGS] then_w
    cdef double span_s, share, change_w, most_w = 0.0, x, large, moved
    cdef uint32_t i, number, at = pulses.head, verdict = VERDICT_BELIEVED
    cdef uint64_t before_ns
    if pulses.count and t_ns < pulses.t_ns[pulses.head] + SAMPLE_NS:
        return VERDICT_BELIEVED
    if pulses.begun_ns == 0:
        if fabs(state.total.w[state.total.head]) < least_w:
            return VERDICT_BELIEVED
        pulses.begun_ns = t_ns
    span_s = fmax(fmax(SPAN_S, SPAN_INTERVALS * state.lags.interval.interval_s), SPAN_ESS * state.lags.ess_interval.interval_s)
    before_ns = t_ns - <uint64_t>(span_s * 1e9)
    for number in range(pulses.count):
        at = (pulses.head - number) & SAMPLES_MASK
        if pulses.t_ns[at] <= before_ns:
            break
    if pulses.count and pulses.t_ns[at] <= before_ns + SAMPLE_NS:
        share = fmin(seconds(pulses.done_ns, t_ns) / span_s, 1.0)  # spans overlap: so much of this one is new
        change_w = grid_w - pulses.w[at]
        history_sweep(&state.total, t_ns, LAGS, now_w)
        history_sweep(&state.total, pulses.t_ns[at], LAGS, then_w)
        for i in range(<uint32_t>LAGS):
            most_w = fmax(most_w, fabs(now_w[i] - then_w[i]))
        if most_w > least_w:
            large = change_w / (LARGE * most_w)
            moved = share
            share /= 1.0 + large * large * large * large
            x = now_w[NO_AGE] - then_w[NO_AGE]
            if fabs(x) > least_w and (x > 0.0) != (pulses.rising > 0):
                pulses.rising = 1 if x > 0.0 else 0
                pulses.edges += 1
            pulses.grid_w2 += share * change_w * change_w
            for i in range(<uint32_t>LAGS):
                x = now_w[i] - then_w[i]
                pulses.moved_w2[i] += share * x * x
                pulses.moved_w4[i] += share * share * x * x * x * x / fmax(moved, 1e-3)
                pulses.both_w2[i] += share * x * change_w
            verdict = judge(state, pulses, t_ns)
    pulses.sign = signs_found(&state.models.signs, pulses.sharp_against != 0)
    if pulses.sign == SIGN_TURNED:
        verdict = VERDICT_SIGN
    pulses.done_ns = t_ns
    pulses.head = (pulses.head + 1) & SAMPLES_MASK
    pulses.t_ns[pulses.head] = t_ns
    pulses.w[pulses.head] = grid_w
    if pulses.count < PULSE_SAMPLES:
        pulses.count += 1
    return verdict


cdef uint32_t judge(const estimate_state_t* state, pulses_t* pulses, uint64_t t_ns) noexcept nogil:
    cdef double gain, explained, best_with = 0.0, best_against = 0.0, best_honest = 0.0, off, moves, rest_w2, moved_w2 = 0.0
    cdef uint32_t i, against = LAGS, with_ = LAGS, best
    for i in range(<uint32_t>LAGS):
        moved_w2 = fmax(moved_w2, pulses.moved_w2[i])
    for i in range(<uint32_t>LAGS):
        if pulses.moved_w2[i] <= 0.3 * moved_w2:  # of an age that has seen few of the pulses nothing is said
            continue
        gain = -pulses.both_w2[i] / pulses.moved_w2[i]
        explained = gain * gain * pulses.moved_w2[i]
        if gain > 0.0 and explained > best_against:
            best_against = explained
            against = i
        elif gain < 0.0 and explained > best_with:
            best_with = explained
            with_ = i
        if SHARE_LO <= gain <= SHARE_HI:
            best_honest = fmax(best_honest, explained)
    best = against if best_against >= best_with else with_
    if best == <uint32_t>LAGS:
        best = NO_AGE  # the meter has shown nothing at all
    if pulses.moved_w4[best] <= 0.0:
        return VERDICT_BELIEVED
    gain = -pulses.both_w2[best] / pulses.moved_w2[best]
    moves = fmin(pulses.moved_w2[best] * pulses.moved_w2[best] / pulses.moved_w4[best], <double>pulses.edges)
    pulses.sharp_against = moves >= SIGN_MOVES and best_with < SIGN_CLEAR * best_against
    rest_w2 = fmax(pulses.grid_w2 - gain * gain * pulses.moved_w2[best], 0.0)
    off = sqrt(rest_w2 / pulses.moved_w2[best] / fmax(moves, 1.0)) + 0.01
    if pulses.sign != SIGN_AGAINST and -SIGN_MOST <= gain <= -SIGN_LEAST and (
        (moves >= MOVES and -gain > SURE * off and best_against < RIVAL * best_with)
        or (moves >= MOVES_CLEAR and -gain > SURE_CLEAR * off and best_against < RIVAL_CLEAR * best_with
            and seconds(pulses.begun_ns, t_ns) > CLEAR_AFTER_S)
    ):
        return VERDICT_SIGN
    if moves >= MOVES and state.age_known and not state.models.averages and gain > SURE * off and (
            gain < SHARE_LO or gain > SHARE_HI) and rest_w2 < SHARP * SHARP * gain * gain * pulses.moved_w2[best]:
        # A converter that answers slowly makes moves that fade: a little older, and larger, look the same.
        if best_against - best_honest > SURE * SURE * rest_w2 / moves:
            return VERDICT_SHARE
    return VERDICT_BELIEVED
