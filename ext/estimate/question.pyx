"""A suspect meter is asked: the units are held, and a step is put on top and taken back at irregular times.

The steps follow no reading, so what the grid shows of them is the meter's answer and nothing else. Each edge gives one
share: 1 of an honest meter, -1 of one that is turned, 0 of one that shows something else. What the load does meanwhile
lies on top, so each edge has a vote between the honest answer and another, of the more weight the further it stands
above the load's own changes. The steps grow while the votes do not tell.
"""

from libc.math cimport fabs, log, sqrt
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.program cimport program_t
from tidegate.ext.estimate.contradiction cimport (
    SUSPECT_AGAIN, SUSPECT_AGE, SUSPECT_BELOW_ZERO, SUSPECT_JUMPED, SUSPECT_PHASE, SUSPECT_SHARE, SUSPECT_TURNED, SUSPECT_UNSEEN, contradiction_repeats,
    contradiction_t, then_w,
)
from tidegate.ext.estimate.estimate cimport estimate_state_t
from tidegate.ext.estimate.interval cimport INTERVAL_SLOW_S, SAME_INTERVALS
from tidegate.ext.estimate.likelihood cimport likelihood_change, likelihood_honest
from tidegate.ext.estimate.model cimport model_another, model_doubted
from tidegate.ext.estimate.pairing cimport history_at, time_before


cdef extern from *:
    """
    #define BACKWARDS 0.3
    #define GIVEN 0.7             /* an edge is answered once the battery has given so much of it */
    #define RAISED 0.2            /* of the step: a battery that is raised by more during an edge makes another one */
    #define SMALLER 0.35          /* ... or by so much of it that it has done all that was left */
    #define OVER 0.03             /* of the step: units that move by less have come to where they are held */
    #define NEAR 0.3              /* of the step: so near to where they are held they have come there; else they are waited for */
    #define COME_S 1.5            /* ... for no longer than this */
    #define STANDS_S 0.3          /* ... for this and the converter's answer: they come no further */
    #define SAME_S 0.1            /* added to SAME_INTERVALS */
    #define STEADY 0.1            /* of the step: units that move by less stand */
    #define STEADY_S 0.1
    #define UNKNOWN_S 1.2         /* so long is waited while the meter's age is not known */
    #define EDGE_MOST_S 6.0       /* a converter that does not give the step ends the question */
    #define QUICK_MOST_S 10.0
    #define WEAK_MOST_S 5.0
    #define QUESTION_MOST_S 30.0
    #define EDGES_LEAST 3.0       /* standing first, a step, and its way back */
    #define NORMAL 1.5            /* standard deviation of the median of what is off */
    #define ROUGH 0.15            /* of a move: gains, digits, ages */
    #define SURE 1.5
    #define SURE_STRONG 1.2       /* votes over their spread: two clear edges make 1.26, three 1.6, four 1.9 */
    #define PATIENT_S 4.3         /* a gateway between may make a meter so late */
    #define PROOF 2.0             /* five clear edges */
    #define QUIET 15.0             /* of the load's own changes: behind such a step nothing is missed that holding the units could miss */
    #define SURE_FREE 1.75        /* of a share that was fitted to the answers */
    #define SURE_HONEST 1.2
    #define SPREAD_EDGES 6u       /* so many answers have a spread of their own, ... */
    #define SURE_SPREAD 3.5       /* ... and their mean lies so many of its standard deviations off */
    #define SELDOM 9.0            /* the load makes such answers once in e^9 = 8,000 questions, ... */
    #define NEARLY 0.7            /* one that jumps nearly as far does so as well, with a little more */
    #define SELDOM_LEAST 0.01     /* ... and any one of them at least so often */
    #define ALIKE 0.7
    #define CHANCE 3.0            /* standard deviations of a mean; of a median a quarter less */
    #define SPREAD_LEAST 0.5
    #define SHARE_LO 0.75
    #define SHARE_HI 1.3
    #define SHARE_FAR 1.7
    #define SHARE_TURNED -0.5
    #define GROW_EDGES 3u
    #define UNSEEN_KEPT 18u       /* of EDGES_MOST: room for the edges of one more question */
    #define AGAIN_EDGES 2u        /* so many steps of the battery did not disturb a sequence that comes again */
    #define GROW 1.6
    #define LIKELY_EDGES 2u
    #define JITTER_S 0.04
    #define LIKELY_JITTER_S 0.05 /* uneven, so that no lateness looks like another share */
    #define LIKELY_MOST_S 8.0
    #define AGE_MOST_S 15.0
    #define AGE_EDGES 8u          /* no fewer tell an age ... */
    #define AGE_PART_S 0.5        /* ... by pulses of uneven length: up to three times this, and a little more */
    #define PHASE_MOST_S 12.0
    #define WILD 3.0              /* an answer so far from an honest one is a leap of the load and tells nothing */
    """
    const double STEADY, STEADY_S, UNKNOWN_S, QUICK_MOST_S, WEAK_MOST_S, EDGES_LEAST
    const double BACKWARDS, GIVEN, RAISED, SMALLER, NEAR, COME_S, OVER, STANDS_S, SAME_S, EDGE_MOST_S, QUESTION_MOST_S, NORMAL, ROUGH
    const double SURE, SURE_STRONG, SURE_FREE, PROOF, QUIET, PATIENT_S, ALIKE, CHANCE, SELDOM, NEARLY, SELDOM_LEAST
    const double SURE_HONEST, SPREAD_LEAST, SHARE_LO, SHARE_HI, SHARE_FAR, SHARE_TURNED, GROW, JITTER_S, LIKELY_JITTER_S, LIKELY_MOST_S, PHASE_MOST_S, WILD
    const double SURE_SPREAD
    const double AGE_MOST_S, AGE_PART_S
    const uint32_t AGE_EDGES
    const uint32_t SPREAD_EDGES, GROW_EDGES, AGAIN_EDGES, UNSEEN_KEPT, LIKELY_EDGES


cdef inline double seconds(uint64_t from_ns, uint64_t to_ns) noexcept nogil:
    return <double>(to_ns - from_ns) * 1e-9 if to_ns > from_ns else 0.0


cdef void question_begin(question_t* q, double step_w, double least_w, double held_w, uint32_t suspicion,
                         uint64_t t_ns) noexcept nogil:
    cdef uint32_t random = q.random
    # What is to be proven is asked until it is: the answers of one question after the other count together.
    if suspicion == SUSPECT_UNSEEN and q.suspicion == suspicion and q.edges < UNSEEN_KEPT:
        q.level = 0
        q.edge_ns = q.edge_due_ns = 0
        q.begun_ns = t_ns
        q.step_w = step_w
        q.full_w = fabs(step_w)
        q.least_w = least_w
        q.held_w = held_w
        return
    memset(q, 0, sizeof(question_t))
    q.random = random if random else 0xACE1u
    q.step_w = step_w
    q.full_w = fabs(step_w)
    q.least_w = least_w
    q.held_w = held_w
    q.suspicion = suspicion
    q.begun_ns = t_ns


cdef bint question_fits(uint32_t suspicion, double answer_s) noexcept nogil:
    return suspicion != SUSPECT_JUMPED or EDGES_LEAST * answer_s < WEAK_MOST_S


cdef bint proves_quietly(uint32_t suspicion, const contradiction_t* c, double step_w) noexcept nogil:
    return suspicion == SUSPECT_UNSEEN and QUIET * c.noise_w < fabs(step_w)


cdef void question_place(question_t* q, double base_w, double step_w, bint up) noexcept nogil:
    q.held_w = base_w
    q.step_w = step_w
    q.level = 1 if up else 0
    q.placed = EDGE_PLACED


cdef void question_waits(question_t* q) noexcept nogil:
    q.level ^= 1
    q.edge_ns = q.edge_due_ns = 0
    q.placed = EDGE_PLACED


cdef void question_raised(question_t* q, double raised_w, bint fresh) noexcept nogil:
    q.held_w += raised_w
    if fresh:
        return
    q.raised_w += raised_w
    if q.raised_w > RAISED * fabs(q.step_w):
        q.edge_ns = q.edge_due_ns = 0
        q.raised_w = 0.0


cdef inline bint is_weak(const question_t* q) noexcept nogil:
    """What made it suspect happens before honest meters as well."""
    return q.suspicion != SUSPECT_BELOW_ZERO


cdef inline bint is_likely(const question_t* q) noexcept nogil:
    return q.suspicion == SUSPECT_TURNED or q.suspicion == SUSPECT_SHARE


cdef inline void edge(question_t* q, double grid_w, double ess_w, uint64_t t_ns) noexcept nogil:
    q.level ^= 1
    q.placed = EDGE_NEW
    q.raised_w = 0.0
    q.before_w = grid_w
    q.before_ess_w = ess_w
    q.before_ns = q.edge_ns = t_ns
    q.edge_due_ns = 0


cdef double most_s(const question_t* q, const contradiction_t* c) noexcept nogil:
    """After so long it is given up."""
    if q.suspicion == SUSPECT_AGE:
        return AGE_MOST_S
    if q.patient or proves_quietly(q.suspicion, c, q.step_w):
        return QUESTION_MOST_S
    if is_likely(q):
        return LIKELY_MOST_S
    if q.suspicion == SUSPECT_PHASE:
        return phase_most_s(q)
    return WEAK_MOST_S if is_weak(q) else QUICK_MOST_S


cdef uint32_t question_reading(const program_t* program, const estimate_state_t* state, const contradiction_t* c,
                               question_t* q, double grid_w, uint64_t value_ns, uint64_t t_ns, double small_w,
                               double step_most_w, double answer_s) noexcept nogil:
    # A value that stands was measured anew within an interval.
    cdef uint64_t taken_ns = max(
        value_ns, time_before(t_ns, <int64_t>((SAME_INTERVALS * state.lags.interval.interval_s + SAME_S) * 1e9)))
    cdef double ess_w = then_w(program, state, taken_ns), move_w = q.step_w if q.level else -q.step_w
    # Behind a slow meter each edge costs seconds of it: there the time ends a question whose converter does not give the step.
    cdef bint quick = state.lags.interval.interval_s < INTERVAL_SLOW_S
    if q.edge_ns == 0:  # the units come to where they are held
        if is_steady(state, ess_w, STEADY * fabs(q.step_w), t_ns) and seconds(q.begun_ns, t_ns) > (
                SAME_S if not quick or fabs(ess_w - q.held_w - (q.step_w if q.level else 0.0)) < NEAR * fabs(q.step_w) else fmin(answer_s, COME_S)):
            edge(q, grid_w, ess_w, t_ns)
        return FOUND_OPEN if seconds(q.begun_ns, t_ns) < EDGE_MOST_S + answer_s else FOUND_NOTHING
    if q.suspicion == SUSPECT_AGAIN and q.edges >= AGAIN_EDGES and contradiction_repeats(c) and not is_answered(q):
        return FOUND_SHARE
    if seconds(q.edge_ns, t_ns) > EDGE_MOST_S + (PATIENT_S if q.patient else 0.0) or q.edges == EDGES_MOST:
        return FOUND_NOTHING
    if seconds(q.begun_ns, t_ns) > most_s(q, c):
        return FOUND_NOTHING
    if (ess_w - q.before_ess_w) * move_w < GIVEN * move_w * move_w and not (quick and is_over(state, q, ess_w, move_w, t_ns)):
        # They had yet to begin to come to where they are held: the edge was taken too soon, and tells nothing.
        if is_steady(state, ess_w, STEADY * fabs(q.step_w), t_ns) and (
                (ess_w - q.before_ess_w) * move_w < -BACKWARDS * move_w * move_w and q.edges == 0 or (
                    quick and is_steady(state, ess_w, OVER * fabs(q.step_w), t_ns)
                    and seconds(q.edge_ns, t_ns) > answer_s + fmax(state.age_hi_s, 0.0) + STANDS_S)):
            edge(q, grid_w, ess_w, t_ns)
        return FOUND_OPEN
    if q.edge_due_ns == 0:
        q.random = (q.random >> 1) ^ (0xB400u if q.random & 1 else 0u)
        q.edge_due_ns = t_ns + <uint64_t>((LIKELY_JITTER_S if is_likely(q) or q.suspicion == SUSPECT_PHASE else JITTER_S) * 1e9) * (q.random & 3)
        if q.suspicion == SUSPECT_AGE:
            q.edge_due_ns += <uint64_t>(AGE_PART_S * 1e9) * (q.random & 3)
        elif q.patient:
            q.edge_due_ns += <uint64_t>(PATIENT_S * 1e9)
        elif not state.age_known:
            q.edge_due_ns += <uint64_t>(fmin(fmax(state.age_hi_s, 0.0), UNKNOWN_S) * 1e9)
    if t_ns < q.edge_due_ns or not is_steady(state, ess_w, 2.0 * STEADY * fabs(q.step_w), t_ns):
        return FOUND_OPEN
    # An age below zero may be wrong: behind a meter as slow as the converter's dead time the value may be from before the edge.
    if fabs(history_at(&state.total, taken_ns) - ess_w) >= 2.0 * STEADY * fabs(q.step_w):
        return FOUND_OPEN
    note(q, c, grid_w, ess_w - q.before_ess_w, small_w, t_ns)
    edge(q, grid_w, ess_w, t_ns)
    if q.level and q.edges >= GROW_EDGES:  # the way back is as large as the way there
        step_most_w = fmax(step_most_w, fabs(q.step_w))
        q.step_w = fmax(fmin(GROW * q.step_w, step_most_w), -step_most_w)
        q.full_w = fmin(GROW * q.full_w, fmax(step_most_w, q.full_w))
    if q.suspicion == SUSPECT_AGE:
        return FOUND_HONEST if q.edges >= AGE_EDGES and state.age_known and not model_doubted(state) and not model_another(state) else FOUND_OPEN
    if is_likely(q):  # what is found is the likelihood's to say
        return FOUND_HONEST if q.edges >= LIKELY_EDGES and likelihood_honest(&c.likelihood) else FOUND_OPEN
    if q.suspicion == SUSPECT_PHASE:
        return judge_phase(q, c.noise_w, state.age_known or (state.lags.used and not state.models.averages))
    return judge_mirrored(q) if c.mirrored else judge(q, state.age_known or (state.lags.used and not state.models.averages))


cdef inline bint is_answered(const question_t* q) noexcept nogil:
    """An edge has been answered in full: no record of before knows of a step that was made now."""
    cdef uint32_t i
    for i in range(q.edges):
        if SHARE_LO < q.answer[i] < SHARE_HI:
            return True
    return False


cdef inline bint is_steady(const estimate_state_t* state, double then_w, double most_w, uint64_t t_ns) noexcept nogil:
    """The units stand, and stood when the reading was taken."""
    cdef double now_w = state.total.w[state.total.head]
    return fabs(now_w - then_w) < most_w and (
        fabs(now_w - history_at(&state.total, time_before(t_ns, <int64_t>(STEADY_S * 1e9)))) < most_w)


cdef inline bint is_over(const estimate_state_t* state, const question_t* q, double ess_w, double move_w,
                         uint64_t t_ns) noexcept nogil:
    """The units stand where the edge ends, though it was smaller: the one before ended before they stood."""
    return (ess_w - q.before_ess_w) * move_w > SMALLER * move_w * move_w and (
        is_steady(state, ess_w, OVER * fabs(q.step_w), t_ns))


cdef inline void note(question_t* q, const contradiction_t* c, double grid_w, double moved_w, double small_w,
                      uint64_t t_ns) noexcept nogil:
    """The answer of an edge, and how clear it is."""
    cdef double spans = fmax(seconds(q.before_ns, t_ns) / fmax(c.span_s, 0.05), 1.0)
    cdef double load_w = NORMAL * c.noise_w * sqrt(spans) + 0.5 * small_w + 1.0
    cdef double jumped = likelihood_change(&c.likelihood, NEARLY * (grid_w - q.before_w + moved_w) / sqrt(spans))
    q.answer[q.edges] = (q.before_w - grid_w) / moved_w
    q.clear[q.edges] = fabs(moved_w) / load_w
    q.seldom -= log(fmax(fmin(spans * jumped, 1.0), SELDOM_LEAST))
    q.edges += 1


# ---------------------------------------------------------------- votes


cdef bint question_agrees(const question_t* q, double share, uint32_t edges_least) noexcept nogil:
    cdef uint32_t i, closer = 0
    for i in range(q.edges):
        closer += fabs(q.answer[i] - share) < fabs(q.answer[i] - 1.0)
    return q.edges >= edges_least and 2 * closer > q.edges


cdef double votes(const question_t* q, double share) noexcept nogil:
    """For this share against the honest one, over their spread."""
    cdef double sum = 0.0, sum2 = SPREAD_LEAST, vote
    cdef uint32_t i
    for i in range(q.edges):
        vote = off(q.answer[i] - 1.0, q.clear[i]) - off(q.answer[i] - share, q.clear[i] / fmax(fabs(share), 1.0))
        sum += vote
        sum2 += vote * vote
    return sum / sqrt(sum2)


cdef inline double off(double share, double clear) noexcept nogil:
    """How far an answer is off: 0..1."""
    cdef double noise2 = 1.0 / (clear * clear) + ROUGH * ROUGH
    return share * share / (share * share + 2.0 * noise2)


cdef double median(const question_t* q) noexcept nogil:
    """The lower one of an even number. At most EDGES_MOST^2 comparisons."""
    cdef uint32_t i, j, below, equal
    for i in range(q.edges):
        below = equal = 0
        for j in range(q.edges):
            below += q.answer[j] < q.answer[i]
            equal += q.answer[j] == q.answer[i]
        if below <= <uint32_t>((q.edges - 1) // 2) < below + equal:
            return q.answer[i]
    return 1.0


cdef bint is_beyond_chance(const question_t* q, double share) noexcept nogil:
    """Whether the median of so many answers lies further from an honest one than the load's own moves let it.

    A load that jumps as far as an answer is off, and in time with the steps, makes them as well: it has to be seldom.
    """
    cdef double told = 0.0
    cdef uint32_t i
    for i in range(q.edges):
        told += 1.0 / (1.0 / (q.clear[i] * q.clear[i]) + ROUGH * ROUGH)
    return (share - 1.0) * (share - 1.0) * told > CHANCE * CHANCE and q.seldom > SELDOM


cdef bint are_alike(const question_t* q, double share) noexcept nogil:
    """Most of the answers lie nearer to this share than two thirds of the way from it to an honest one.

    The median of a load's own leaps is a share as well; a meter that shows one shows it again.
    """
    cdef uint32_t i, alike = 0, all = 0
    for i in range(q.edges):
        alike += fabs(q.answer[i] - share) < ALIKE * fabs(share - 1.0)
        all += q.suspicion != SUSPECT_PHASE or fabs(q.answer[i] - 1.0) < WILD
    return 2 * alike > all


cdef inline bint is_spread(const question_t* q) noexcept nogil:
    """So many answers do not agree among themselves: beside their own spread their mean is no other than an honest one."""
    cdef double sum = 0.0, sum2 = 0.0, mean
    cdef uint32_t i
    if q.edges < SPREAD_EDGES:
        return False
    for i in range(q.edges):
        sum += q.answer[i]
        sum2 += q.answer[i] * q.answer[i]
    mean = sum / q.edges
    return fabs(mean - 1.0) <= CHANCE * sqrt(fmax(sum2 / q.edges - mean * mean, 0.0) / (q.edges - 1.0))


cdef uint32_t judge_mirrored(const question_t* q) noexcept nogil:
    """The value jumped to its own opposite and the building never gave power: the sign, or a load that does as much.

    How the load changes by then is not known from before, so the answers are held against their own spread too.
    """
    cdef double sum = 0.0, sum2 = 0.0, mean, turned = votes(q, -1.0)
    cdef uint32_t i
    if turned > SURE_STRONG:
        return FOUND_TURNED
    for i in range(q.edges):
        sum += q.answer[i]
        sum2 += q.answer[i] * q.answer[i]
    mean = sum / q.edges
    if q.edges >= SPREAD_EDGES and mean < 0.0 and (
            1.0 - mean > SURE_SPREAD * sqrt(fmax(sum2 / q.edges - mean * mean, 0.0) / (q.edges - 1.0))):
        return FOUND_TURNED
    return FOUND_HONEST if turned < -SURE_HONEST else FOUND_OPEN


cdef inline double phase_most_s(const question_t* q) noexcept nogil:
    """What looks lost by now is asked on."""
    return QUESTION_MOST_S if q.edges and fmax(votes(q, q.left), votes(q, 0.0)) > 0.0 else PHASE_MOST_S


cdef uint32_t judge_phase(question_t* q, double noise_w, bint when_known) noexcept nogil:
    """A phase went to zero, and with it went what the total showed of the battery there; or nothing of that is missing.

    A battery that was on that phase alone shows nothing any more. While nothing is known of what the load does by
    itself no answer is clear.
    """
    cdef double left = votes(q, q.left), nothing = votes(q, 0.0)
    if fmax(left, nothing) < -SURE_HONEST:
        return FOUND_HONEST
    if noise_w <= 0.0 or not (left > SURE_STRONG and are_alike(q, q.left) or nothing > SURE_STRONG and are_alike(q, 0.0)):
        return FOUND_OPEN
    if when_known or q.patient:
        return FOUND_SHARE
    q.patient = 1
    q.edges = 0
    return FOUND_OPEN


cdef uint32_t judge(question_t* q, bint when_known) noexcept nogil:
    """when_known: how old a reading is; else only an edge that outlasts any age is answered by the reading after it."""
    cdef double turned = votes(q, -1.0), nothing = votes(q, 0.0), share = median(q)
    cdef bint free = (share < SHARE_LO or share > SHARE_HI) and votes(q, share) > SURE_FREE and (
        is_beyond_chance(q, share) and are_alike(q, share) and not is_spread(q))
    # A proof takes more than a suspicion that turns out unfounded, either way.
    cdef bint proves = q.suspicion == SUSPECT_UNSEEN
    if fmax(turned, nothing) < (-PROOF if proves else -SURE_HONEST) and not free:
        return FOUND_HONEST
    if not is_weak(q) and (when_known or q.patient):
        if turned > SURE_STRONG and turned >= nothing:
            return FOUND_TURNED
        if share < SHARE_TURNED and free:
            return FOUND_TURNED
    elif is_weak(q) and q.suspicion != SUSPECT_AGAIN and not proves and share > SHARE_FAR and free:
        return FOUND_SHARE
    if not q.patient:
        # A meter that has become later answers the edge before: it is asked with edges that outlast that.
        if turned > SURE_STRONG or nothing > SURE_STRONG or free:
            q.patient = 1
            q.edges = 0
            q.seldom = 0.0
        return FOUND_OPEN
    if turned > (PROOF if proves else SURE) and turned >= nothing:
        return FOUND_TURNED
    if proves:
        return FOUND_SHARE if nothing > PROOF else FOUND_OPEN
    return FOUND_SHARE if nothing > SURE or free else FOUND_OPEN
