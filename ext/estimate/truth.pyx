"""Does the grid meter tell the truth? What is believed of it, and what would show that false.

The battery is the witness: what it does, the grid must show, with the opposite sign and in full.

| a meter that | is suspect when | is asked by | is a row of the fault table when |
|---|---|---|---|
| is turned or lacks a phase from the start | - | the pulses of arming (pulses.pyx, meter_sign.pyx) | they show it: `grid_unmoved` |
| may sit at the wrong place | the arming has not proven that it shows the battery | steps at irregular times (question.pyx) | they show that it does not: `grid_unmoved` |
| stands still | a value stands for longer than is its habit, or while the battery moves away | one step (below) | it stands through it: `meter_stuck` |
| contradicts its own energy | - | - | its registers have counted something else (energy_register.pyx): `grid_unmoved` |
| contradicts its own phases | - | - | they do not add up any more, or one of them stands at zero while the battery moves it (phases.pyx): `meter_phases` |
| has a phase at zero that shows too little of the battery, or nobody knows how much | it stands there for two looks | steps at irregular times (question.pyx) | the total lacks that share of them: `meter_phases` |
| begins to lie while the site runs | it contradicts the battery or itself (contradiction.pyx) | steps at irregular times (question.pyx) | it answers them wrongly: `grid_unmoved` |

While it is asked the units are held, so a value that is not believed moves nothing.

A value that stands still while replies stay fresh may be the truth: a load that rests, coarse digits, a meter that
reports on change. A step is put on top of what the units are held at, and taken back. Nothing is lost by holding them,
for the control knows nothing new, and the first value that differs ends the question in its own cycle.
"""

from libc.math cimport fabs
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.image cimport (
    MODE_ARMING, MODE_DERATED, MODE_RUN, MODE_TRIPPED, QUALITY_GOOD, SITE_ESS_W, SITE_METER_PHASES, SITE_METER_REGISTERS, SITE_METER_VERDICT, PHASES_AGAINST, VERDICT_BELIEVED, VERDICT_FROZEN,
    VERDICT_PHASES, VERDICT_REGISTER, VERDICT_SHARE, VERDICT_SIGN, point_set, point_t,
)
from tidegate.ext.abi.program cimport program_t
from tidegate.ext.estimate.coincidence cimport (
    COINCIDENCE_HONEST, COINCIDENCE_TURNED, coincidence_begin, coincidence_gap, coincidence_reading,
)
from tidegate.ext.estimate.contradiction cimport (
    SUSPECT_AGAIN, SUSPECT_AGE, SUSPECT_BELOW_ZERO, SUSPECT_MIRRORED, SUSPECT_NONE, SUSPECT_PHASE, SUSPECT_UNSEEN, contradiction_asks, contradiction_cleared,
    contradiction_forget,
    contradiction_step, contradiction_sure, contradiction_turns, then_w,
)
from tidegate.ext.estimate.energy_register cimport energy_register_contradicts, energy_register_forget, energy_register_power
from tidegate.ext.estimate.estimate cimport ANSWER_SEEN, ANSWER_UNPROVEN, estimate_state_t, plant_t
from tidegate.ext.estimate.interval cimport INTERVAL_SLOW_S
from tidegate.ext.estimate.likelihood cimport likelihood_restart, likelihood_share
from tidegate.ext.estimate.meter_sign cimport SIGN_AGAINST, SIGN_TURNED
from tidegate.ext.estimate.model cimport model_another, model_doubted
from tidegate.ext.estimate.pairing cimport history_at, nameplates, time_before
from tidegate.ext.estimate.phases cimport (
    phases_ask_anew, phases_at_zero, phases_due, phases_forget, phases_left, phases_lit, phases_lost, phases_need_w, phases_reading,
)
from tidegate.ext.estimate.pulses cimport pulses_begin, pulses_reading
from tidegate.ext.estimate.question cimport (
    FOUND_HONEST, FOUND_NOTHING, FOUND_OPEN, FOUND_SHARE, FOUND_TURNED, proves_quietly, question_agrees, question_begin, question_fits,
    question_reading,
)


cdef extern from *:
    """
    #define AWAY_SHARE 0.03     /* of the nameplates: a battery that has moved so far, */
    #define GONE_SHARE 0.01     /* ... or, by so much of a fine meter's digits (FINE), so far, ... */
    #define ASK_SHARE 0.01      /* ... and is asked when it has moved so far, ... */
    #define ASK_FINE 30.0       /* ... or by so many of the meter's small changes, ... */
    #define ASK_LEAST 0.001     /* ... and by no less than this */
    #define DIGITS 2.5          /* ... and by so many of the meter's small changes, must show */
    #define SILENT_S 2.0
    #define SMALL_DOWN 0.8      /* one change in fifty is smaller than what follows from these two */
    #define SMALL_UP 1.005
    #define SMALL_MOST 0.05     /* of the nameplates */
    #define SILENT_INTERVALS 1.5
    #define HABIT_S 0.5         /* a value stands at least so long before it is asked, ... */
    #define HABIT_INTERVALS 6.0 /* ... so many intervals, ... */
    #define HABITS 1.5          /* ... and so many times as long as one that moved again; so it is before it is called frozen */
    #define AGE_OLDEST_S 4.3    /* a reading may be so old while its age is not known ... */
    #define AGE_QUICK_S 1.2     /* ... that of a quick meter */
    #define QUICK_S 0.5
    #define FROZEN_S 4.8        /* least time for which a value that is called frozen stood: gateways slow meters down */
    #define FROZEN_STEP_S 4.2   /* ... and the step stood, */
    #define INSIDE_S 1.0          /* a step that has not left what the battery did when the value was taken will not */
    #define FINE 8.0            /* of the meter's small changes: no load hides a step of so many for that long */
    #define CLEAR_STEP 9.0      /* ... and a step of so many is more than that when it stands */
    #define FROZEN_INTERVALS 1.6
    #define STEP_SOON_S 0.8     /* ... or so long, where the battery has been away unseen for FROZEN_STEP_S before */
    #define ASK_REST_S 10.0     /* from one question to the next */
    #define ASK_REST_MOST_S 1800.0
    #define AWAY_REST 0.1       /* of that, and ASK_REST_S at most, where the battery has moved while the value stands */
    #define MISSING 0.9         /* of the battery's moves: what shows as much lacks no phase */
    #define PHASE_LOOKS 5u      /* a phase that stood at zero for so many had no room for a move of its own */
    #define PHASE_MOST_S 10.0   /* so is a phase that stands at zero, whatever it shows */
    #define ASK_MOST_S 40.0     /* a converter that does not give the step ends the question */
    #define ANSWER_SHARE 0.15   /* of the nameplates */
    #define ANSWER_NOISE 5.0    /* the first step of a question stands so far above what the load does */
    #define AGREE_EDGES 2u        /* answers of a question that agree with a share that is likely, for a verdict */
    #define STILL_SHARE 0.1       /* of a move of the battery that must show: a load that changes by less stands still */
    #define PROOF_EDGES 2.0       /* of a question that is to prove something so many fit in its time: the first one stands */
    #define PROOF_S 5.0
    #define PROOF_QUIET_S 12.0     /* ... and before a load that is quiet */
    #define AGE_SUSPECT_S 3.0       /* an age is doubted for so long before it is asked */
    #define AGE_REST_S 10.0
    #define OTHER_INTERVAL 1.4    /* times as long as it was, or as short ... */
    #define STOOD_S 60.0          /* so long one value that stood too long speaks for a longer interval */
    #define OTHER_INTERVAL_S 0.02 /* ... and by as much as polls make of any */
    #define AGE_NOISE 1.5         /* many edges tell an age, no single one has to */
    #define SUSPECT_REST_S 5.0    /* from one contradiction that was unfounded to the next */
    #define SUSPECT_REST_MOST_S 300.0
    """
    const double AWAY_SHARE, GONE_SHARE, ASK_SHARE, ASK_FINE, ASK_LEAST, DIGITS, SILENT_S, SILENT_INTERVALS, SMALL_DOWN, SMALL_UP, SMALL_MOST, HABIT_S, HABIT_INTERVALS, HABITS, AGE_OLDEST_S, AGE_QUICK_S, QUICK_S
    const double FROZEN_S, FROZEN_STEP_S, INSIDE_S, STEP_SOON_S, FINE, CLEAR_STEP, FROZEN_INTERVALS, ASK_REST_S, ASK_REST_MOST_S, AWAY_REST, ASK_MOST_S, PHASE_MOST_S
    const uint32_t AGREE_EDGES, PHASE_LOOKS
    const double ANSWER_SHARE, ANSWER_NOISE, STILL_SHARE, PROOF_EDGES, PROOF_S, PROOF_QUIET_S, SUSPECT_REST_S, SUSPECT_REST_MOST_S, AGE_SUSPECT_S, AGE_REST_S, OTHER_INTERVAL, OTHER_INTERVAL_S, STOOD_S, AGE_NOISE
    const double MISSING


cdef enum:
    # A question: a step on top of what the units are held at, and the way back from it.
    STEP_BEGUN = 0
    STEP_STANDS
    STEP_BACK
    STEP_OVER


cdef inline double seconds(uint64_t from_ns, uint64_t to_ns) noexcept nogil:
    return <double>(to_ns - from_ns) * 1e-9 if to_ns > from_ns else 0.0


cdef inline double small_w(const program_t* program, const truth_t* truth) noexcept nogil:
    """The meter's small changes; where the load alone moves it, and far, they say nothing of its digits."""
    return fmin(truth.least_w, SMALL_MOST * nameplates(program))


cdef inline double far_w(const program_t* program, const truth_t* truth) noexcept nogil:
    """A battery that has moved so far must show."""
    return fmax(AWAY_SHARE * nameplates(program), DIGITS * fmax(small_w(program, truth), 1.0))


cdef inline double ask_w(const program_t* program, const truth_t* truth) noexcept nogil:
    """A battery that has moved so far while the value stands is worth a question."""
    cdef double digits_w = fmax(small_w(program, truth), 1.0)
    return fmax(fmin(ASK_SHARE * nameplates(program), ASK_FINE * digits_w),
                fmax(ASK_LEAST * nameplates(program), DIGITS * digits_w))


cdef inline double shown_s(const estimate_state_t* state) noexcept nogil:
    """A move of the battery stands in the meter's registers after so long, at least in part."""
    cdef double age_s = AGE_QUICK_S if 0.0 < state.lags.interval.interval_s < QUICK_S else AGE_OLDEST_S
    if state.age_known or state.lags.used:
        age_s = 2.0 * fmax(state.age_hi_s, 0.0)
    return age_s + FROZEN_INTERVALS * state.lags.interval.interval_s + 0.1


cdef inline void verdict_set(truth_t* truth, uint32_t verdict) noexcept nogil:
    if truth.verdict == VERDICT_BELIEVED and verdict != VERDICT_BELIEVED:
        truth.verdict = verdict
        truth.asking = ASK_NOTHING
        truth.doubted |= verdict != VERDICT_FROZEN


# ---------------------------------------------------------------- one cycle


cdef void truth_step(const program_t* program, point_t* image, const estimate_state_t* state, const plant_t* plant,
                     truth_t* truth, int32_t mode, uint64_t t_ns) noexcept nogil:
    cdef uint64_t sample_ns
    truth.shown = 0
    if mode != truth.mode:
        if mode == MODE_ARMING:  # each arming tests anew
            truth.verdict = VERDICT_BELIEVED
            pulses_begin(&truth.pulses)
            coincidence_begin(&truth.coincidence)
            truth.met = 0
            contradiction_forget(&truth.contradiction)
            truth.question.suspicion = SUSPECT_NONE  # answers from before count no more: it may hang elsewhere since
            phases_ask_anew(&truth.phases)
        elif truth.mode == MODE_ARMING and mode != MODE_TRIPPED:
            truth.doubted = 0
            truth.unseen_again_ns = 0
            truth.unseen_rest_s = 0.0
            truth.age_again_ns = truth.age_suspect_ns = 0
            truth.age_rest_s = 0.0
            truth.age_was_known = 0
            truth.age_interval_s = 0.0
        truth.mode = mode
    if not plant.grid_ok:
        energy_register_forget(&truth.energy)
        phases_forget(&truth.phases)
    elif plant.grid_new:
        energy_register_power(&truth.energy, plant.grid_w, plant.grid_t_ns)
        if look_at_phases(program, image, state, plant, truth) >= PHASES_AGAINST:
            verdict_set(truth, VERDICT_PHASES)
    if energy_register_contradicts(program, image, &truth.energy, state.lags.interval.interval_s, state.lags.resolution_w):
        verdict_set(truth, VERDICT_REGISTER)
    if not plant.grid_ok or image[SITE_ESS_W].quality != QUALITY_GOOD:
        truth.value_t_ns = 0
        truth.asking = ASK_NOTHING
        coincidence_gap(&truth.coincidence)
        truth.pulses.count = 0  # readings across a gap are not compared; what the pulses have shown so far stays known
        contradiction_forget(&truth.contradiction)
    elif plant.grid_new and plant.grid_t_ns != truth.seen_t_ns:
        sample_ns = truth.seen_t_ns = plant.grid_t_ns
        stands_still(program, state, truth, plant.grid_w, sample_ns)
        if mode == MODE_ARMING:
            verdict_set(truth, pulses_reading(
                state, &truth.pulses, plant.grid_w, 0.5 * AWAY_SHARE * nameplates(program), sample_ns))
            meets(state, plant, truth, sample_ns)
        elif mode == MODE_RUN or mode == MODE_DERATED:
            contradicts(program, state, plant, truth, sample_ns)
            if state.models.answer == ANSWER_UNPROVEN or state.models.answer == ANSWER_SEEN:
                meets(state, plant, truth, sample_ns)
    if image[SITE_METER_VERDICT].value != truth.verdict or plant.grid_new:
        point_set(image, SITE_METER_VERDICT, <double>truth.verdict, t_ns)
        point_set(image, SITE_METER_REGISTERS, <double>truth.energy.state, t_ns)
        point_set(image, SITE_METER_PHASES, <double>truth.phases.state, t_ns)


cdef inline void meets(const estimate_state_t* state, const plant_t* plant, truth_t* truth, uint64_t t_ns) noexcept nogil:
    """A slow meter may show within a few values what the sums over many moves say of a quick one."""
    cdef uint32_t found
    if (state.lags.interval.interval_s <= 0.0 or state.lags.interval.interval_s > INTERVAL_SLOW_S):
        found = coincidence_reading(&truth.coincidence, &state.total, plant.grid_w, state.lags.interval.interval_s, state.models.answer == ANSWER_SEEN, t_ns)
        if truth.met:
            pass
        elif found == COINCIDENCE_HONEST and truth.pulses.sign != SIGN_TURNED:
            truth.met = truth.shown = 1
        elif found == COINCIDENCE_TURNED and truth.pulses.sign != SIGN_AGAINST:
            verdict_set(truth, VERDICT_SIGN)
    if truth.met:
        truth.pulses.sign = SIGN_AGAINST


cdef inline uint32_t look_at_phases(const program_t* program, const point_t* image, const estimate_state_t* state,
                                    const plant_t* plant, truth_t* truth) noexcept nogil:
    cdef double ess_w = 0.0
    cdef uint32_t found
    if phases_due(program, image, &truth.phases):
        ess_w = then_w(program, state, image[program.site.grid_w_l[0]].t_ns)
    found = phases_reading(program, image, &truth.phases, plant.grid_w, ess_w, nameplates(program), far_w(program, truth),
                           state.lags.interval.interval_s, truth.mode == MODE_ARMING or truth.asking == ASK_ANSWER,
                           plant.grid_t_ns)
    truth.phase_w = phases_need_w(program, &truth.phases, far_w(program, truth))
    if truth.phase_w > STEP_SHARE_MOST * nameplates(program):
        truth.phase_w = 0.0
    return found


# ---------------------------------------------------------------- values that stand still


cdef void stands_still(const program_t* program, const estimate_state_t* state, truth_t* truth, double value_w,
                       uint64_t t_ns) noexcept nogil:
    cdef double ess_w = state.total.w[state.total.head], then_w
    cdef double far = far_w(program, truth), away_w, stands_s
    cdef double gone_w = fmin(far, fmax(GONE_SHARE * nameplates(program), FINE * fmax(small_w(program, truth), 1.0)))
    cdef uint32_t unit
    cdef bint fine
    if truth.value_t_ns == 0 or value_w != truth.value_w:
        moves_again(state, truth, value_w, t_ns)
        then_w = history_at(&state.total, time_before(t_ns, <int64_t>(fmax(state.age_hi_s, 0.0) * 1e9)))
        truth.ess_lo_w = fmin(then_w, ess_w)
        truth.ess_hi_w = fmax(then_w, ess_w)
        truth.away_t_ns = truth.gone_t_ns = 0
        return
    # What a converter shows of itself may be older than the value: its next reading tells what it did by then.
    if seconds(truth.value_t_ns, t_ns) <= state.lags.ess_interval.interval_s + fmax(-state.age_lo_s, 0.0):
        truth.ess_lo_w = fmin(truth.ess_lo_w, ess_w)
        truth.ess_hi_w = fmax(truth.ess_hi_w, ess_w)
    away_w = fmax(ess_w - truth.ess_hi_w, truth.ess_lo_w - ess_w)
    if truth.away_t_ns == 0 and away_w > ask_w(program, truth):
        truth.away_t_ns = t_ns
    if away_w > gone_w:
        truth.gone_t_ns = truth.gone_t_ns if truth.gone_t_ns else t_ns
    elif away_w < 0.5 * gone_w:
        truth.gone_t_ns = 0
    if truth.asking != ASK_STILL:
        return
    # A load that drifts may hide a step from a meter with coarse digits or a dead band, or the way back from it, not both.
    # A step that comes to where the battery was when the value was taken may well show that value again.
    # Of a value that was taken while the battery moved far no step may come out of all that it did then: there the way back tells as well.
    if truth.asked == STEP_BEGUN and fabs(ess_w - truth.ess_w - truth.step_w) <= 0.3 * fabs(truth.step_w) and (
            away_w > 0.5 * far or seconds(truth.ask_t_ns, t_ns) > INSIDE_S + truth.answer_s):
        truth.asked = STEP_STANDS
        truth.asked_t_ns = t_ns
        truth.gone_t_ns = truth.gone_t_ns if truth.gone_t_ns or away_w <= 0.5 * far else t_ns
    elif truth.asked == STEP_BACK and fabs(ess_w - truth.ess_w) <= 0.3 * fabs(truth.step_w):
        truth.asked = STEP_OVER
        truth.asked_t_ns = t_ns
    elif truth.asked == STEP_STANDS or truth.asked == STEP_OVER:
        fine = truth.gone_t_ns != 0 and fmax(fabs(truth.step_w), away_w) >= FINE * small_w(program, truth)
        stands_s = seconds(truth.asked_t_ns, t_ns)
        if fine:
            # How long the value stands while nothing moves says nothing of one that stands while the battery moves.
            if seconds(truth.value_t_ns, t_ns) > FROZEN_S and truth.gone_t_ns and (
                    stands_s > fmax(STEP_SOON_S, truth.shown_s)) and (
                    seconds(truth.gone_t_ns, t_ns) > fmax(fmax(FROZEN_STEP_S, truth.shown_s), HABITS * truth.gone_s)):
                verdict_set(truth, VERDICT_FROZEN)
        elif stands_s <= fmax(FROZEN_STEP_S, truth.shown_s):
            return
        elif truth.asked == STEP_STANDS:
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
        if truth.gone_t_ns:
            truth.gone_s = fmax(0.98 * truth.gone_s, seconds(truth.gone_t_ns, t_ns))
    truth.shown_s = shown_s(state)
    if truth.asking == ASK_STILL:
        ask_end(truth, t_ns)
    if truth.verdict == VERDICT_FROZEN:
        truth.verdict = VERDICT_BELIEVED
    truth.value_w = value_w
    truth.value_t_ns = t_ns


cdef inline void ask_end(truth_t* truth, uint64_t t_ns) noexcept nogil:
    truth.asking = ASK_NOTHING
    truth.rest_s = fmin(fmax(2.0 * truth.rest_s, ASK_REST_S), ASK_REST_MOST_S)
    truth.again_ns = t_ns + <uint64_t>(truth.rest_s * 1e9)
    # The step itself moves the battery: a value that then stands for a moment is no new doubt.
    truth.away_again_ns = t_ns + <uint64_t>(fmin(AWAY_REST * truth.rest_s, ASK_REST_S) * 1e9)


# ---------------------------------------------------------------- values that contradict


cdef inline bint is_proof(uint32_t suspicion) noexcept nogil:
    """Asked to know more, not because the meter seems to lie: that waits for room."""
    return suspicion == SUSPECT_UNSEEN or suspicion == SUSPECT_AGE


cdef inline bint is_interval_new(const estimate_state_t* state, truth_t* truth, uint64_t t_ns) noexcept nogil:
    """A meter that shows something new at other times than it did is read through something else by now.

    More seldom only if a value has stood though the battery's move should have shown: a load that moves once a second
    makes any meter show something new once a second.
    """
    cdef double interval_s = state.lags.interval.interval_s
    if not state.lags.interval.even:
        return False
    if truth.age_interval_s == 0.0:
        truth.age_interval_s = interval_s
    if interval_s > truth.age_interval_s and (state.same_t_ns == 0 or seconds(state.same_t_ns, t_ns) > STOOD_S):
        return False
    return fmax(interval_s, truth.age_interval_s) > OTHER_INTERVAL * fmin(interval_s, truth.age_interval_s) + OTHER_INTERVAL_S


cdef inline bint is_age_doubted(const estimate_state_t* state, truth_t* truth, uint64_t t_ns) noexcept nogil:
    """What was known of the meter explains clearly less than something else by now, for some seconds."""
    cdef bint doubted = model_doubted(state) or model_another(state) or is_interval_new(state, truth, t_ns)
    truth.age_was_known |= state.age_known
    if not (doubted or (truth.age_was_known and not state.age_known)):
        truth.age_suspect_ns = 0
        return False
    if truth.age_suspect_ns == 0:
        truth.age_suspect_ns = t_ns
    return seconds(truth.age_suspect_ns, t_ns) > AGE_SUSPECT_S


cdef void contradicts(const program_t* program, const estimate_state_t* state, const plant_t* plant, truth_t* truth,
                      uint64_t t_ns) noexcept nogil:
    cdef uint32_t found
    cdef bint asked
    if is_proof(truth.contradiction.suspicion) and truth.asking == ASK_NOTHING:
        truth.contradiction.suspicion = SUSPECT_NONE  # what waits for room to be asked keeps no other cause back
    contradiction_step(program, state, plant, &truth.contradiction, small_w(program, truth), far_w(program, truth),
                       nameplates(program), truth.asking != ASK_NOTHING, truth.value_t_ns)
    if truth.asking == ASK_ANSWER and truth.contradiction.mirrored and truth.question.suspicion != truth.contradiction.suspicion:
        # What was asked for a weaker doubt is asked anew, from where the units are held.
        contradiction_asks(&truth.contradiction)
        question_begin(&truth.question, truth.question.step_w, truth.question.least_w, truth.question.held_w,
                       truth.contradiction.suspicion, t_ns)
        likelihood_restart(&truth.contradiction.likelihood)
    phase_by_total(program, truth, t_ns)
    if is_age_doubted(state, truth, t_ns) and truth.contradiction.suspicion == SUSPECT_NONE and (
            truth.asking == ASK_NOTHING and t_ns >= truth.age_again_ns) and (
            AGE_NOISE * truth.contradiction.noise_w <= STEP_SHARE_MOST * nameplates(program)) and not (
            value_doubted(truth, state, t_ns) or phase_doubted(truth, t_ns)):
        truth.contradiction.suspicion = SUSPECT_AGE
    if state.models.answer == ANSWER_UNPROVEN and truth.contradiction.suspicion == SUSPECT_NONE and (
            truth.asking == ASK_NOTHING and t_ns >= truth.unseen_again_ns) and not (
            value_doubted(truth, state, t_ns) or phase_doubted(truth, t_ns)):
        truth.contradiction.suspicion = SUSPECT_UNSEEN
    # Before an age is known the answers of single steps tell no share.
    asked = truth.asking == ASK_ANSWER and truth.question.edges > 0 and truth.question.suspicion != SUSPECT_AGE
    found = contradiction_sure(&truth.contradiction, asked)
    # Before a load that stands still the sums are sure of what a single reading says: there it is asked by steps first.
    # What the load does beside the steps, a motor that comes up to speed, speaks for a share as well: the steps must too.
    if found and (question_agrees(
            &truth.question, likelihood_share(found - 1), 1 if truth.contradiction.mirrored else AGREE_EDGES
    ) if asked else truth.contradiction.noise_w > STILL_SHARE * far_w(program, truth)):
        verdict_set(truth, VERDICT_SIGN if found == 1 else VERDICT_SHARE)
        return
    if truth.asking != ASK_ANSWER:
        return
    if truth.question.suspicion != SUSPECT_BELOW_ZERO and truth.away_t_ns and seconds(truth.away_t_ns, t_ns) > truth.shown_s:
        answer_end(truth, plant, False, t_ns)  # what does not move at all has no share: it is asked whether it stands
        return
    found = question_reading(
        program, state, &truth.contradiction, &truth.question, plant.grid_w, truth.value_t_ns, t_ns,
        small_w(program, truth), STEP_SHARE_MOST * nameplates(program), truth.answer_s)
    if found == FOUND_OPEN and truth.question.suspicion == SUSPECT_BELOW_ZERO and contradiction_turns(
            &truth.contradiction, plant, far_w(program, truth), fabs(truth.question.step_w)):
        found = FOUND_HONEST
    if found == FOUND_OPEN and truth.question.suspicion == SUSPECT_PHASE and phases_at_zero(&truth.phases) == 0:
        found = FOUND_HONEST
    if found == FOUND_SHARE and truth.question.suspicion == SUSPECT_PHASE:
        phases_lost(&truth.phases)
        verdict_set(truth, VERDICT_PHASES)
    elif found == FOUND_TURNED or found == FOUND_SHARE:
        verdict_set(truth, VERDICT_SIGN if found == FOUND_TURNED else VERDICT_SHARE)
    elif found != FOUND_OPEN:
        truth.age_open = truth.question.suspicion == SUSPECT_AGE and found != FOUND_HONEST and model_doubted(state)
        truth.shown = found == FOUND_HONEST and truth.question.suspicion == SUSPECT_UNSEEN
        answer_end(truth, plant, found == FOUND_HONEST, t_ns)
        if truth.question.suspicion == SUSPECT_PHASE and phases_at_zero(&truth.phases) == 0 and not phases_lit(
                &truth.phases, truth.question.begun_ns):
            truth.phase_again_ns = t_ns  # the others carry too little by now to say that it stands at zero: nothing was answered


cdef void phase_by_total(const program_t* program, truth_t* truth, uint64_t t_ns) noexcept nogil:
    """A phase stands at zero, and what it should show of the battery is not known, or less than it starts at: is it missing in the total?

    What is asked for a weaker doubt is asked for this one; answers since that phase went to zero count.
    """
    cdef int phase = phases_at_zero(&truth.phases)
    cdef uint32_t suspicion = truth.question.suspicion if truth.asking == ASK_ANSWER else truth.contradiction.suspicion
    cdef question_t* question = &truth.question
    if suspicion == SUSPECT_PHASE:
        if phase == 0 and truth.asking == ASK_NOTHING:
            truth.contradiction.suspicion = SUSPECT_NONE
        return
    if phase == 0 or t_ns < truth.phase_again_ns or phases_left(program, &truth.phases) > MISSING or suspicion == SUSPECT_BELOW_ZERO or suspicion == SUSPECT_MIRRORED:
        return
    if truth.asking == ASK_NOTHING and (truth.phase_w == 0.0 or truth.phases.zeros[phase - 1] > PHASE_LOOKS):
        truth.contradiction.suspicion = SUSPECT_PHASE
    elif truth.asking == ASK_ANSWER:
        contradiction_asks(&truth.contradiction)
        truth.contradiction.suspicion = SUSPECT_PHASE
        if question.begun_ns > truth.phases.lit_ns[phase - 1] and question.patient == 0:
            question.suspicion = SUSPECT_PHASE
        else:
            question_begin(question, question.step_w, question.least_w, question.held_w, SUSPECT_PHASE, t_ns)
        question.left = phases_left(program, &truth.phases)


cdef inline void answer_end(truth_t* truth, const plant_t* plant, bint honest, uint64_t t_ns) noexcept nogil:
    truth.asking = ASK_NOTHING
    # What the building is known to do is not suspected again, so nothing waits for it; and no weaker doubt before makes
    # that one wait.
    if truth.question.suspicion == SUSPECT_AGE:
        truth.age_interval_s = 0.0
        truth.age_rest_s = fmin(fmax(2.0 * truth.age_rest_s, AGE_REST_S), ASK_REST_MOST_S)
        truth.age_again_ns = t_ns + <uint64_t>(truth.age_rest_s * 1e9)
        truth.contradiction.suspicion = SUSPECT_NONE
        return
    if truth.question.suspicion == SUSPECT_UNSEEN:
        truth.unseen_rest_s = fmin(fmax(2.0 * truth.unseen_rest_s, SUSPECT_REST_S), SUSPECT_REST_MOST_S)
        truth.unseen_again_ns = t_ns + <uint64_t>(truth.unseen_rest_s * 1e9)
        truth.contradiction.suspicion = SUSPECT_NONE
        return
    if truth.question.suspicion == SUSPECT_PHASE:
        phase_end(truth, t_ns)
    elif truth.question.suspicion == SUSPECT_BELOW_ZERO:
        truth.below_again_ns = t_ns + (<uint64_t>(SUSPECT_REST_S * 1e9) if honest else 0)
    else:
        truth.suspect_rest_s = fmin(fmax(2.0 * truth.suspect_rest_s, SUSPECT_REST_S), SUSPECT_REST_MOST_S)
        truth.suspect_again_ns = t_ns + <uint64_t>(truth.suspect_rest_s * 1e9)
    if honest:
        contradiction_cleared(&truth.contradiction, plant)
    elif truth.question.suspicion != SUSPECT_BELOW_ZERO:  # that one is not believed before it has answered well
        contradiction_forget(&truth.contradiction)


# ---------------------------------------------------------------- asking


cdef inline bint phase_doubted(const truth_t* truth, uint64_t t_ns) noexcept nogil:
    return truth.phase_w > 0.0 and t_ns >= truth.phase_again_ns


cdef inline void phase_end(truth_t* truth, uint64_t t_ns) noexcept nogil:
    truth.asking = ASK_NOTHING
    truth.phase_rest_s = fmin(fmax(2.0 * truth.phase_rest_s, ASK_REST_S), ASK_REST_MOST_S)
    truth.phase_again_ns = t_ns + <uint64_t>(truth.phase_rest_s * 1e9)


cdef inline bint contradicted(const truth_t* truth, uint64_t t_ns) noexcept nogil:
    cdef uint32_t suspicion = truth.contradiction.suspicion
    return is_proof(suspicion) or (suspicion != SUSPECT_NONE and t_ns >= (
        truth.below_again_ns if suspicion == SUSPECT_BELOW_ZERO else truth.phase_again_ns if suspicion == SUSPECT_PHASE
        else truth.suspect_again_ns))


cdef inline bint value_doubted(const truth_t* truth, const estimate_state_t* state, uint64_t t_ns) noexcept nogil:
    cdef double interval_s = state.lags.interval.interval_s
    if truth.away_t_ns and t_ns >= truth.away_again_ns and seconds(truth.away_t_ns, t_ns) > truth.shown_s:
        return True
    return t_ns >= truth.again_ns and seconds(truth.value_t_ns, t_ns) > fmax(
        fmax(HABIT_S, HABIT_INTERVALS * interval_s), HABITS * truth.still_s)


cdef bint truth_suspects(const truth_t* truth, const estimate_state_t* state, uint64_t t_ns) noexcept nogil:
    """A value has stood for longer than it should, or contradicts the battery."""
    if truth.value_t_ns == 0 or state.lags.interval.interval_s <= 0.0 or truth.verdict != VERDICT_BELIEVED:
        return False
    return contradicted(truth, t_ns) or phase_doubted(truth, t_ns) or value_doubted(truth, state, t_ns)


cdef inline double step_away_w(const truth_t* truth, double from_w, double step_w, double most_w, double far_w) noexcept nogil:
    """The step, larger where it would end near what the battery did when the value was taken: there it may show that again."""
    cdef double to_w = from_w + step_w
    if to_w > truth.ess_hi_w + far_w or to_w < truth.ess_lo_w - far_w:
        return step_w
    step_w = truth.ess_hi_w + step_w - from_w if step_w > 0.0 else truth.ess_lo_w + step_w - from_w
    return fmin(fmax(step_w, -most_w), most_w)


cdef void truth_ask(const program_t* program, truth_t* truth, const plant_t* plant, const double* asked_w,
                    double lo_w, double hi_w, double limits_hi_w, bint free, uint64_t t_ns) noexcept nogil:
    cdef double step_w, rise_w, fall_w, room_w, limits_room_w, down_room_w, wide_w, least_w, full_w, up_w = 0.0, down_w = 0.0, total_w = 0.0
    cdef bint narrow
    cdef double most_w = STEP_SHARE_MOST * nameplates(program)
    cdef uint32_t unit, suspicion = truth.contradiction.suspicion
    cdef int at = phases_at_zero(&truth.phases) - 1
    cdef bint by_phase = at >= 0 and phase_doubted(truth, t_ns) and not contradicted(truth, t_ns)
    # What is only not proven waits for room.
    cdef bint breaks = contradicted(truth, t_ns) and not is_proof(suspicion)
    if truth.asking:
        if not free and truth.asking == ASK_ANSWER:
            truth.asking = ASK_NOTHING
            contradiction_forget(&truth.contradiction)
        elif truth.asking == ASK_PHASE and (not free or truth.phase_w == 0.0 or seconds(truth.ask_t_ns, t_ns) > PHASE_MOST_S):
            phase_end(truth, t_ns)
        elif truth.asking == ASK_STILL and (not free or seconds(truth.ask_t_ns, t_ns) > ASK_MOST_S):
            ask_end(truth, t_ns)
        return
    if not free:
        truth.again_ns = max(truth.again_ns, t_ns + <uint64_t>(ASK_REST_S * 1e9))
        return
    for unit in range(program.n_units):
        if not plant.units[unit].available:
            return
        # More was asked than a unit gives: a step from there would move nothing.
        truth.base_w[unit] = fmin(fmax(asked_w[unit], plant.units[unit].envelope_lo_w), plant.units[unit].envelope_hi_w)
        total_w += truth.base_w[unit]
        up_w += plant.units[unit].envelope_hi_w
        down_w += plant.units[unit].envelope_lo_w
    step_w = truth.phase_w if by_phase else 1.5 * far_w(program, truth)
    if breaks:
        contradiction_asks(&truth.contradiction)
    if contradicted(truth, t_ns):
        if suspicion != SUSPECT_AGAIN and suspicion != SUSPECT_UNSEEN:  # what is so unlikely is worth a step that is clear at once
            step_w = fmax(step_w, ANSWER_SHARE * nameplates(program))
        if suspicion == SUSPECT_BELOW_ZERO:  # towards zero as far as it takes to tell
            most_w = fmax(most_w, fabs(total_w))
        # Of a third that may be missing no smaller one tells soon.
        step_w = most_w if suspicion == SUSPECT_PHASE else fmin(fmax(step_w, ANSWER_NOISE * truth.contradiction.noise_w), most_w)
    if step_w > most_w or plant.reconnect_w < nameplates(program):
        return
    # A proof that would not come is not worth what the limit misses while the units are held.
    if contradicted(truth, t_ns) and not breaks and (
            AGE_NOISE * truth.contradiction.noise_w > most_w if suspicion == SUSPECT_AGE else
            ANSWER_NOISE * truth.contradiction.noise_w > most_w or PROOF_EDGES * (truth.answer_s + truth.shown_s) > (
                PROOF_QUIET_S if proves_quietly(suspicion, &truth.contradiction, most_w) else PROOF_S)):
        return
    # More discharge keeps the import limits; where there is no room for it, less, as far as they leave it. Where the
    # corridor is too narrow for either, a value that stands is asked by more again, as far as limits leave it; only where
    # they leave none, or the units can give no more, towards zero: else it would never be asked.
    rise_w = fall_w = least_w = full_w = step_w
    room_w = fmin(up_w, fmax(hi_w, 0.0)) - total_w
    limits_room_w = fmin(up_w, fmax(limits_hi_w, 0.0)) - total_w
    down_room_w = total_w - fmax(down_w, lo_w)
    if not contradicted(truth, t_ns) and not by_phase:
        rise_w = step_away_w(truth, total_w, step_w, most_w, far_w(program, truth))
        fall_w = -step_away_w(truth, total_w, -step_w, most_w, far_w(program, truth))
    elif not by_phase and suspicion != SUSPECT_BELOW_ZERO:
        least_w = fmin(step_w, fmax(1.5 * far_w(program, truth), ANSWER_NOISE * truth.contradiction.noise_w))
        rise_w = fmin(step_w, fmax(least_w, room_w))
        fall_w = fmin(step_w, fmax(least_w, down_room_w))
    if by_phase:
        # What the battery did while it stood there counts: the step goes beyond that, or none is needed for it is on its way there.
        truth.phase_up_w = truth.phases.zero_lo_w[at] + truth.phase_w - total_w
        truth.phase_down_w = truth.phases.zero_hi_w[at] - truth.phase_w - total_w
        rise_w = fmax(truth.phase_up_w, 0.0)
        fall_w = fmax(-truth.phase_down_w, 0.0)
        if fall_w == 0.0:
            rise_w = 0.0
    narrow = up_w - total_w < rise_w or room_w + down_room_w < rise_w + fall_w
    if rise_w <= most_w and room_w >= rise_w:
        step_w = rise_w
        if not contradicted(truth, t_ns) and not by_phase:  # where there is room one step may tell, without its way back
            wide_w = step_away_w(truth, total_w, fmax(step_w, CLEAR_STEP * small_w(program, truth)), most_w, far_w(program, truth))
            step_w = wide_w if step_w < wide_w <= room_w else step_w
    elif fall_w <= most_w and down_room_w >= fall_w:
        step_w = -fall_w
    elif not contradicted(truth, t_ns) and rise_w <= most_w and limits_room_w >= rise_w:
        step_w = rise_w
    elif fall_w <= most_w and ((
            narrow and total_w - fmax(down_w, fmin(lo_w, 0.0)) >= fall_w) or (
            (narrow or suspicion == SUSPECT_BELOW_ZERO) and breaks and total_w >= fall_w)):
        step_w = -fall_w
    elif by_phase:
        return
    elif not breaks or up_w - total_w < step_w:
        return
    truth.ess_w = total_w
    truth.ask_t_ns = t_ns
    if contradicted(truth, t_ns):
        if not question_fits(suspicion, truth.answer_s):
            answer_end(truth, plant, False, t_ns)
            return
        truth.asking = ASK_ANSWER
        question_begin(&truth.question, step_w, least_w, total_w, suspicion, t_ns)
        truth.question.full_w = full_w
        truth.question.left = phases_left(program, &truth.phases)
        likelihood_restart(&truth.contradiction.likelihood)
        return
    truth.step_w = step_w
    if by_phase:
        truth.asking = ASK_PHASE
        return
    truth.asking = ASK_STILL
    truth.asked = STEP_BEGUN
