"""Does the grid meter tell the truth? Its readings are held against what physics demands of them.

The battery is the witness: what it does, the grid must show, with the opposite sign and in full.

A value that stands still while replies stay fresh may be the truth: a load that rests, coarse digits, a meter that
reports on change. So it is asked. Once it has stood for longer than is this meter's habit, or the battery has moved away
meanwhile, the units are held and a step is put on top, and taken back. Nothing is lost by holding them, for the control knows nothing
new, and the first value that differs ends the question in its own cycle. A value that stands through it is frozen.

The pulses of arming follow no load and no load follows them. So the changes of the grid over a span of time are compared
with those of the battery, at each age that a reading may have. A meter that answers with the battery's own sign is
turned, one that answers sharply but with another share lacks a phase or has a wrong ratio. A meter that averages answers
softly: of its share nothing is said. One that does not answer at all is found by model.pyx.
"""

from libc.math cimport fabs, sqrt
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memset

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.image cimport (
    MODE_ARMING, QUALITY_GOOD, SITE_ESS_W, SITE_METER_VERDICT, VERDICT_BELIEVED, VERDICT_FROZEN,
    VERDICT_SHARE, VERDICT_SIGN, point_set, point_t,
)
from tidegate.ext.abi.program cimport program_t
from tidegate.ext.estimate.estimate cimport LAGS, estimate_state_t, plant_t
from tidegate.ext.estimate.model cimport ANSWER_SLOW_S
from tidegate.ext.estimate.pairing cimport LAG_NS, history_at, history_sweep, time_before


cdef extern from *:
    """
    #define TRUTH_MASK 255u     /* TRUTH_SAMPLES - 1 */
    #define AWAY_SHARE 0.03     /* of the nameplates: a battery that has moved so far, */
    #define DIGITS 2.5          /* ... and by so many of the meter's small changes, must show */
    #define SILENT_S 2.0
    #define SMALL_DOWN 0.8      /* one change in fifty is smaller than what follows from these two */
    #define SMALL_UP 1.005
    #define SMALL_MOST 0.05     /* of the nameplates */
    #define SILENT_INTERVALS 1.5
    #define STEP_SHARE_MOST 0.2 /* of the nameplates: no question asks with a larger step */
    #define HABIT_S 0.5         /* a value stands at least so long before it is asked, ... */
    #define HABIT_INTERVALS 6.0 /* ... so many intervals, ... */
    #define HABITS 1.5          /* ... and so many times as long as one that moved again; so it is before it is called frozen */
    #define AGE_OLDEST_S 4.3    /* a reading may be so old while its age is not known ... */
    #define AGE_QUICK_S 1.2     /* ... that of a quick meter */
    #define QUICK_S 0.5
    #define FROZEN_S 4.8        /* least time for which a value that is called frozen stood: gateways slow meters down */
    #define FROZEN_STEP_S 4.2   /* ... and the step stood, */
    #define FINE 8.0            /* of the meter's small changes: no load hides a step of so many for that long */
    #define FROZEN_INTERVALS 1.6
    #define ASK_REST_S 10.0     /* from one question to the next */
    #define ASK_REST_MOST_S 1800.0
    #define ASK_MOST_S 40.0     /* a converter that does not give the step ends the question */
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
    #define SIGN_CLEAR 0.7      /* the battery's own sign explains less than so much of what its opposite does: no doubt left */
    #define SHARE_LO 0.75
    #define SHARE_HI 1.3
    #define SHARP 0.25          /* rest beside what is explained: the answer has the battery's own shape */
    """
    const uint32_t TRUTH_MASK, NO_AGE
    const uint64_t SAMPLE_NS
    const double AWAY_SHARE, DIGITS, SILENT_S, SILENT_INTERVALS, SMALL_DOWN, SMALL_UP, SMALL_MOST, STEP_SHARE_MOST, HABIT_S, HABIT_INTERVALS, HABITS, AGE_OLDEST_S, AGE_QUICK_S, QUICK_S
    const double FROZEN_S, FROZEN_STEP_S, FINE, FROZEN_INTERVALS, ASK_REST_S, ASK_REST_MOST_S, ASK_MOST_S
    const double SPAN_S, SPAN_INTERVALS, SPAN_ESS, LARGE, MOVES, SURE
    const double SIGN_LEAST, SIGN_MOST, RIVAL, MOVES_CLEAR, SURE_CLEAR, RIVAL_CLEAR, CLEAR_AFTER_S
    const double SIGN_MOVES, SIGN_CLEAR, SHARE_LO, SHARE_HI, SHARP


cdef enum:
    # A question: a step on top of what the units are held at, and the way back from it.
    STEP_BEGUN = 0
    STEP_STANDS
    STEP_BACK
    STEP_OVER


cdef double nameplates(const program_t* program) noexcept nogil:
    """Of all units, W."""
    cdef double w = 0.0
    cdef uint32_t unit
    for unit in range(program.n_units):
        w += <double>max(program.units[unit].gate.charge_w_max, program.units[unit].gate.discharge_w_max)
    return w


cdef inline double seconds(uint64_t from_ns, uint64_t to_ns) noexcept nogil:
    return <double>(to_ns - from_ns) * 1e-9 if to_ns > from_ns else 0.0


cdef inline double small_w(const program_t* program, const truth_t* truth) noexcept nogil:
    """The meter's small changes; where the load alone moves it, and far, they say nothing of its digits."""
    return fmin(truth.least_w, SMALL_MOST * nameplates(program))


cdef inline double far_w(const program_t* program, const truth_t* truth) noexcept nogil:
    """A battery that has moved so far must show."""
    return fmax(AWAY_SHARE * nameplates(program), DIGITS * fmax(small_w(program, truth), 1.0))


cdef inline double shown_s(const estimate_state_t* state) noexcept nogil:
    """A move of the battery stands in the meter's registers after so long, at least in part."""
    cdef double age_s = AGE_QUICK_S if 0.0 < state.lags.interval.interval_s < QUICK_S else AGE_OLDEST_S
    if state.age_known or state.lags.used:
        age_s = 2.0 * fmax(state.age_hi_s, 0.0)
    return age_s + FROZEN_INTERVALS * state.lags.interval.interval_s + 0.1


cdef inline void verdict_set(truth_t* truth, uint32_t verdict) noexcept nogil:
    if truth.verdict == VERDICT_BELIEVED:
        truth.verdict = verdict
        truth.asking = 0


cdef uint32_t truth_wanted(const truth_t* truth, double interval_s) noexcept nogil:
    if truth.sign != SIGN_WITH:
        return 0
    if interval_s > ANSWER_SLOW_S:
        return 2
    return 4


# ---------------------------------------------------------------- one cycle


cdef void truth_step(const program_t* program, point_t* image, const estimate_state_t* state, const plant_t* plant,
                     truth_t* truth, int32_t mode, uint64_t t_ns) noexcept nogil:
    cdef uint64_t sample_ns
    if mode != truth.mode:
        if mode == MODE_ARMING:  # each arming tests anew
            truth.verdict = VERDICT_BELIEVED
            pulses_begin(truth)
        truth.mode = mode
    if not plant.grid_ok or image[SITE_ESS_W].quality != QUALITY_GOOD:
        truth.value_t_ns = 0
        truth.asking = 0
        truth.count = 0  # readings across a gap are not compared; what the pulses have shown so far stays known
    elif plant.grid_new and plant.grid_t_ns != truth.seen_t_ns:
        sample_ns = truth.seen_t_ns = plant.grid_t_ns
        stands_still(program, state, truth, plant.grid_w, sample_ns)
        if mode == MODE_ARMING:
            pulse_reading(program, state, truth, plant.grid_w, sample_ns)
    if image[SITE_METER_VERDICT].value != truth.verdict or plant.grid_new:
        point_set(image, SITE_METER_VERDICT, <double>truth.verdict, t_ns)


# ---------------------------------------------------------------- values that stand still


cdef void stands_still(const program_t* program, const estimate_state_t* state, truth_t* truth, double value_w,
                       uint64_t t_ns) noexcept nogil:
    cdef double ess_w = state.total.w[state.total.head], then_w
    cdef uint32_t unit
    if truth.value_t_ns == 0 or value_w != truth.value_w:
        moves_again(state, truth, value_w, t_ns)
        then_w = history_at(&state.total, time_before(t_ns, <int64_t>(fmax(state.age_hi_s, 0.0) * 1e9)))
        truth.ess_lo_w = fmin(then_w, ess_w)
        truth.ess_hi_w = fmax(then_w, ess_w)
        truth.away_t_ns = 0
        return
    if truth.away_t_ns == 0 and fmax(ess_w - truth.ess_hi_w, truth.ess_lo_w - ess_w) > far_w(program, truth):
        truth.away_t_ns = t_ns
    if not truth.asking:
        return
    # A load that drifts may hide a step from a meter with coarse digits or a dead band, or the way back from it, not both.
    if truth.asked == STEP_BEGUN and fabs(ess_w - truth.ess_w - truth.step_w) <= 0.3 * fabs(truth.step_w):
        truth.asked = STEP_STANDS
        truth.asked_t_ns = t_ns
    elif truth.asked == STEP_BACK and fabs(ess_w - truth.ess_w) <= 0.3 * fabs(truth.step_w):
        truth.asked = STEP_OVER
        truth.asked_t_ns = t_ns
    elif (truth.asked == STEP_STANDS or truth.asked == STEP_OVER) and (
            seconds(truth.asked_t_ns, t_ns) > fmax(FROZEN_STEP_S, shown_s(state))):
        if truth.asked == STEP_STANDS and fabs(truth.step_w) < FINE * small_w(program, truth):
            truth.asked = STEP_BACK
            for unit in range(program.n_units):
                truth.base_w[unit] -= truth.step_w / program.n_units
        elif seconds(truth.value_t_ns, t_ns) > fmax(FROZEN_S, HABITS * truth.still_s):
            verdict_set(truth, VERDICT_FROZEN)


cdef void moves_again(const estimate_state_t* state, truth_t* truth, double value_w, uint64_t t_ns) noexcept nogil:
    cdef double stood_s, change_w
    if truth.value_t_ns:
        change_w = fabs(value_w - truth.value_w)
        stood_s = seconds(truth.value_t_ns, t_ns)
        # A meter with a dead band reports less than that after a long silence only.
        if stood_s < SILENT_S or stood_s < SILENT_INTERVALS * state.lags.interval.interval_s:
            if truth.least_w == 0.0:
                truth.least_w = change_w
            truth.least_w *= SMALL_DOWN if change_w < truth.least_w else SMALL_UP
        truth.still_s = fmax(0.98 * truth.still_s, stood_s) if stood_s > 2.0 * state.lags.interval.interval_s else truth.still_s
    if truth.asking:
        ask_end(truth, t_ns)
    if truth.verdict == VERDICT_FROZEN:
        truth.verdict = VERDICT_BELIEVED
    truth.value_w = value_w
    truth.value_t_ns = t_ns


cdef inline void ask_end(truth_t* truth, uint64_t t_ns) noexcept nogil:
    truth.asking = 0
    truth.rest_s = fmin(fmax(2.0 * truth.rest_s, ASK_REST_S), ASK_REST_MOST_S)
    truth.again_ns = t_ns + <uint64_t>(truth.rest_s * 1e9)


cdef bint truth_suspects(const truth_t* truth, const estimate_state_t* state, uint64_t t_ns) noexcept nogil:
    """A value has stood for longer than it should."""
    cdef double interval_s = state.lags.interval.interval_s, stood_s = seconds(truth.value_t_ns, t_ns)
    if truth.value_t_ns == 0 or interval_s <= 0.0 or truth.verdict != VERDICT_BELIEVED:
        return False
    if truth.away_t_ns and seconds(truth.away_t_ns, t_ns) > shown_s(state):
        return True
    return t_ns >= truth.again_ns and stood_s > fmax(fmax(HABIT_S, HABIT_INTERVALS * interval_s), HABITS * truth.still_s)


cdef void truth_ask(const program_t* program, truth_t* truth, const plant_t* plant, const double* asked_w,
                    double lo_w, double hi_w, bint free, uint64_t t_ns) noexcept nogil:
    cdef double step_w, up_w = 0.0, down_w = 0.0, total_w = 0.0
    cdef uint32_t unit
    if truth.asking:
        if not free or seconds(truth.ask_t_ns, t_ns) > ASK_MOST_S:
            ask_end(truth, t_ns)
        return
    if not free:
        truth.again_ns = max(truth.again_ns, t_ns + <uint64_t>(ASK_REST_S * 1e9))
        return
    step_w = 1.5 * far_w(program, truth)
    for unit in range(program.n_units):
        if not plant.units[unit].available:
            return
        truth.base_w[unit] = asked_w[unit]
        total_w += asked_w[unit]
        up_w += plant.units[unit].envelope_hi_w
        down_w += plant.units[unit].envelope_lo_w
    if step_w > STEP_SHARE_MOST * nameplates(program) or plant.reconnect_w < nameplates(program):
        return
    # More discharge keeps the import limits; where there is no room for it, less. Never out of the corridor, but for
    # towards zero.
    up_w = fmin(up_w, fmax(hi_w, 0.0))
    down_w = fmax(down_w, fmin(lo_w, 0.0))
    if up_w - total_w >= step_w:
        truth.step_w = step_w
    elif total_w - down_w >= step_w:
        truth.step_w = -step_w
    else:
        return
    truth.ess_w = total_w
    truth.asking = 1
    truth.asked = STEP_BEGUN
    truth.ask_t_ns = t_ns


# ---------------------------------------------------------------- pulses of arming


cdef void pulses_begin(truth_t* truth) noexcept nogil:
    truth.count = 0
    truth.pulses_t_ns = 0
    truth.grid_w2 = 0.0
    truth.edges = 0
    truth.sign = SIGN_OPEN
    memset(truth.moved_w2, 0, sizeof(truth.moved_w2))
    memset(truth.moved_w4, 0, sizeof(truth.moved_w4))
    memset(truth.both_w2, 0, sizeof(truth.both_w2))


cdef void pulse_reading(const program_t* program, const estimate_state_t* state, truth_t* truth, double grid_w,
                        uint64_t t_ns) noexcept nogil:
    cdef double[LAGS] now_w
    cdef double[LAGS] then_w
    cdef double span_s, share, change_w, most_w = 0.0, x, large, moved, least_w = 0.5 * AWAY_SHARE * nameplates(program)
    cdef uint32_t i, number, at = truth.head
    cdef uint64_t before_ns
    if truth.count and t_ns < truth.t_ns[truth.head] + SAMPLE_NS:
        return
    if truth.pulses_t_ns == 0:
        if fabs(state.total.w[state.total.head]) < least_w:
            return
        truth.pulses_t_ns = t_ns
    span_s = fmax(fmax(SPAN_S, SPAN_INTERVALS * state.lags.interval.interval_s), SPAN_ESS * state.lags.ess_interval.interval_s)
    before_ns = t_ns - <uint64_t>(span_s * 1e9)
    for number in range(truth.count):
        at = (truth.head - number) & TRUTH_MASK
        if truth.t_ns[at] <= before_ns:
            break
    if truth.count and truth.t_ns[at] <= before_ns + SAMPLE_NS:
        share = fmin(seconds(truth.done_ns, t_ns) / span_s, 1.0)  # spans overlap: so much of this one is new
        change_w = grid_w - truth.w[at]
        history_sweep(&state.total, t_ns, LAGS, now_w)
        history_sweep(&state.total, truth.t_ns[at], LAGS, then_w)
        for i in range(<uint32_t>LAGS):
            most_w = fmax(most_w, fabs(now_w[i] - then_w[i]))
        if most_w > least_w:
            large = change_w / (LARGE * most_w)
            moved = share
            share /= 1.0 + large * large * large * large
            x = now_w[NO_AGE] - then_w[NO_AGE]
            if fabs(x) > least_w and (x > 0.0) != (truth.rising > 0):
                truth.rising = 1 if x > 0.0 else 0
                truth.edges += 1
            truth.grid_w2 += share * change_w * change_w
            for i in range(<uint32_t>LAGS):
                x = now_w[i] - then_w[i]
                truth.moved_w2[i] += share * x * x
                truth.moved_w4[i] += share * share * x * x * x * x / fmax(moved, 1e-3)
                truth.both_w2[i] += share * x * change_w
            pulses_judge(state, truth, t_ns)
    truth.done_ns = t_ns
    truth.head = (truth.head + 1) & TRUTH_MASK
    truth.t_ns[truth.head] = t_ns
    truth.w[truth.head] = grid_w
    if truth.count < TRUTH_SAMPLES:
        truth.count += 1


cdef void pulses_judge(const estimate_state_t* state, truth_t* truth, uint64_t t_ns) noexcept nogil:
    cdef double gain, explained, best_with = 0.0, best_against = 0.0, off, moves, rest_w2, moved_w2 = 0.0
    cdef uint32_t i, against = LAGS, with_ = LAGS, best
    for i in range(<uint32_t>LAGS):
        moved_w2 = fmax(moved_w2, truth.moved_w2[i])
    for i in range(<uint32_t>LAGS):
        if truth.moved_w2[i] <= 0.3 * moved_w2:  # of an age that has seen few of the pulses nothing is said
            continue
        gain = -truth.both_w2[i] / truth.moved_w2[i]
        explained = gain * gain * truth.moved_w2[i]
        if gain > 0.0 and explained > best_against:
            best_against = explained
            against = i
        elif gain < 0.0 and explained > best_with:
            best_with = explained
            with_ = i
    best = against if best_against >= best_with else with_
    if best == <uint32_t>LAGS:
        best = NO_AGE  # the meter has shown nothing at all
    if truth.moved_w4[best] <= 0.0:
        return
    gain = -truth.both_w2[best] / truth.moved_w2[best]
    moves = fmin(truth.moved_w2[best] * truth.moved_w2[best] / truth.moved_w4[best], <double>truth.edges)
    if moves >= SIGN_MOVES:
        truth.sign = SIGN_AGAINST if best_with < SIGN_CLEAR * best_against else SIGN_WITH if best_with > best_against else SIGN_OPEN
    rest_w2 = fmax(truth.grid_w2 - gain * gain * truth.moved_w2[best], 0.0)
    off = sqrt(rest_w2 / truth.moved_w2[best] / fmax(moves, 1.0)) + 0.01
    if -SIGN_MOST <= gain <= -SIGN_LEAST and (
        (moves >= MOVES and -gain > SURE * off and best_against < RIVAL * best_with)
        or (moves >= MOVES_CLEAR and -gain > SURE_CLEAR * off and best_against < RIVAL_CLEAR * best_with
            and seconds(truth.pulses_t_ns, t_ns) > CLEAR_AFTER_S)
    ):
        verdict_set(truth, VERDICT_SIGN)
    elif moves >= MOVES and state.age_known and not state.models.averages and gain > SURE * off and (
            gain < SHARE_LO or gain > SHARE_HI) and rest_w2 < SHARP * SHARP * gain * gain * truth.moved_w2[best]:
        verdict_set(truth, VERDICT_SHARE)
