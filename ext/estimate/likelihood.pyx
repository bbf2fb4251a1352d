"""How likely it is that a grid meter shows a share of the power, against that it shows all of it.

A load that the battery follows moves with it, so the two moving together proves nothing. But a reading less the
battery's part is what the load did, and how often this load changes by how much is known from before. So for each
share (the sign turned, ten times, a tenth, two of three phases) the change that the load would have made is
weighed against the one that it made if the meter is right, and the logarithms of the chances are added up while they
speak for the share (Page's CUSUM). Feedback is in neither: what the battery did is known when the reading is weighed, and
the load's next change does not know of it.

What keeps it honest:

- a share is weighed in the load's own size as well, so that only the battery's moves count: a load that becomes
  restless, or comes to rest, tells nothing;
- the load may go on as it did from the reading before: a ramp is one change, not many;
- one reading tells a bounded amount, and the changes are compared no more sharply than the time of a reading is known;
- an honest meter may have become late, or average: a verdict has to beat each of these habits, all readings under one.
"""

from libc.math cimport exp, fabs, log
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.estimate.estimate cimport estimate_state_t
from tidegate.ext.estimate.interval cimport COMPARED_ESS, COMPARED_INTERVALS
from tidegate.ext.estimate.model cimport *
from tidegate.ext.estimate.pairing cimport history_at, time_before
from tidegate.ext.estimate.shape cimport model_w, shape_mean_w


cdef extern from *:
    """
    #define BINS_A_DECADE 12.0
    #define LN_10 2.302585092994046
    #define LEAST 1e-4            /* of the nameplates: upper edge of the first bin */
    #define WIDEST 4.0            /* of the nameplates: as far may any change of the load be */
    #define SELDOM 0.02           /* so often it may be anything */
    #define SPAN_MOST_S 0.2       /* changes are compared over no more than this and so many times as long as they need */
    #define SPANS_MOST 3.0
    #define CLOSE_S 0.2           /* closer readings are no witnesses of their own: what a late converter does is wrong in all of them alike */
    #define LEARN_S 60.0          /* changes are remembered for about so long */
    #define SUMS_S 20.0           /* what was added up fades in so long */
    #define MOVED 3e-4            /* of the nameplates: a battery that moved by less tells nothing */
    #define TOTAL_LEAST 30.0      /* changes before anything is weighed */
    #define MOST 4.0              /* one reading tells no more */
    #define ROUGH 0.1             /* of the battery's move: gains, times, digits */
    #define UNSURE_LEAST_NS 20000000
    #define UNSURE_MOST_NS 300000000
    static const double SHARE[4] = {-1.0, 10.0, 0.1, 2.0 / 3.0};
    static const double ASK_AT[4] = {5.0, 4.2, 2.0, 4.5};
    static const double SURE_AT[4] = {10.0, 14.0, 7.0, 12.0};
    static const double SURE_ASKED_AT[4] = {6.0, 7.0, 6.0, 7.0}; /* while steps that follow no load move the battery */
    #define SURE_MIRRORED 6.0     /* of the sign, whatever the habit: no habit makes a value jump to its opposite */
    #define HONEST_BELOW 1.0
    #define LIKELY_FROM 1.0
    #define LATER 7               /* habits that are later by so much; the others average over so long */
    #define CENTRED 11            /* and from here on over so long around the age that was found: an average that was taken for an age */
    static const double HABIT_LENGTH_S[14] = {0.0, 0.3, 0.7, 1.2, 2.0, 3.0, 4.2, 0.5, 1.0, 2.0, 5.0, 0.5, 1.0, 2.0};
    """
    const double CLOSE_S, BINS_A_DECADE, LN_10, LEAST, WIDEST, SELDOM, SPAN_MOST_S, SPANS_MOST
    const double LEARN_S, SUMS_S, MOVED, TOTAL_LEAST, MOST, ROUGH
    const int64_t UNSURE_LEAST_NS, UNSURE_MOST_NS
    const uint32_t LATER, CENTRED
    const double[SHARES] SHARE
    const double[SHARES] ASK_AT
    const double[SHARES] SURE_AT
    const double[SHARES] SURE_ASKED_AT
    const double SURE_MIRRORED, HONEST_BELOW, LIKELY_FROM
    const double[HABITS] HABIT_LENGTH_S


cdef void likelihood_forget(likelihood_t* l) noexcept nogil:
    l.t_ns = 0
    l.change_s = 0.0
    likelihood_restart(l)


cdef void likelihood_restart(likelihood_t* l) noexcept nogil:
    memset(l.sums, 0, sizeof(l.sums))


# ---------------------------------------------------------------- how often the load changes by so much


cdef inline double place(const likelihood_t* l, double w) noexcept nogil:
    """Bin of a change and how far into it; the first bin is even, the others logarithmic."""
    if w <= l.least_w:
        return w / l.least_w
    return fmin(1.0 + BINS_A_DECADE / LN_10 * log(w / l.least_w), <double>CHANGE_BINS)


cdef inline double up_to(const double* cumulated, double at) noexcept nogil:
    cdef uint32_t whole = <uint32_t>at
    if whole >= <uint32_t>CHANGE_BINS:
        return cumulated[CHANGE_BINS]
    return cumulated[whole] + (at - whole) * (cumulated[whole + 1] - cumulated[whole])


cdef inline double log_chance(const likelihood_t* l, const double* cumulated, double w, double near_w,
                              double nameplate_w) noexcept nogil:
    """Of the load to change by w, as sharply as near_w."""
    cdef double mass, width = 1.0
    w = fabs(w)
    mass = up_to(cumulated, place(l, w + near_w)) - up_to(cumulated, place(l, fmax(w - near_w, 0.0)))
    if w < near_w:  # what is nearer to zero than that is counted once, not from both sides
        width = (near_w + w) / (2.0 * near_w)
    return log((1.0 - SELDOM) * mass / l.total / width + SELDOM * fmin(2.0 * near_w / (WIDEST * nameplate_w), 1.0))


cdef inline void learn_change(likelihood_t* l, double change_w, double apart_s) noexcept nogil:
    cdef uint32_t i
    cdef double keep = fmax(1.0 - apart_s / LEARN_S, 0.0)
    for i in range(<uint32_t>CHANGE_BINS):
        l.seen[i] *= keep
    l.seen[min(<uint32_t>place(l, fabs(change_w)), <uint32_t>(CHANGE_BINS - 1))] += 1.0
    l.total = l.total * keep + 1.0


cdef double likelihood_change(const likelihood_t* l, double w) noexcept nogil:
    cdef double smaller = 0.0
    cdef uint32_t i
    if l.least_w <= 0.0:
        return 0.5
    for i in range(<uint32_t>fmin(place(l, fabs(w)), <double>(CHANGE_BINS - 1))):
        smaller += l.seen[i]
    return (fmax(l.total - smaller, 0.0) + 1.0) / (l.total + 2.0)


# ---------------------------------------------------------------- one reading


cdef inline double habit_w(const estimate_state_t* state, uint32_t habit, double ess_w, uint64_t t_ns) noexcept nogil:
    """What a meter of this habit shows of the battery."""
    cdef uint64_t taken_ns
    if habit == 0:
        return ess_w
    taken_ns = time_before(t_ns, <int64_t>(fmax(state.age_s, 0.0) * 1e9))
    if habit < LATER:
        return shape_mean_w(&state.shapes, time_before(taken_ns, <int64_t>(HABIT_LENGTH_S[habit] * 1e9)), 0.0)
    if habit >= CENTRED:
        taken_ns = min(taken_ns + <uint64_t>(0.5e9 * HABIT_LENGTH_S[habit]), t_ns)
    return shape_mean_w(&state.shapes, taken_ns, HABIT_LENGTH_S[habit])


cdef void begin(const estimate_state_t* state, likelihood_t* l, double grid_w, double ess_w, uint64_t t_ns) noexcept nogil:
    cdef uint32_t habit
    cdef int64_t unsure_ns = min(max(<int64_t>(0.5e9 * (state.age_hi_s - state.age_lo_s + state.lags.ess_interval.interval_s)), UNSURE_LEAST_NS), UNSURE_MOST_NS)
    cdef uint64_t taken_ns = time_before(t_ns, <int64_t>(state.age_s * 1e9))
    l.t_ns = t_ns
    l.grid_w = grid_w
    for habit in range(<uint32_t>HABITS):
        l.ess_w[habit] = habit_w(state, habit, ess_w, t_ns)
    l.unsure_w[0] = history_at(&state.total, time_before(taken_ns, unsure_ns))
    l.unsure_w[1] = history_at(&state.total, taken_ns + <uint64_t>unsure_ns)


cdef inline double close_s(const estimate_state_t* state) noexcept nogil:
    return fmax(fmax(CLOSE_S, COMPARED_INTERVALS * state.lags.interval.interval_s),
                COMPARED_ESS * state.lags.ess_interval.interval_s)


cdef void likelihood_reading(const estimate_state_t* state, likelihood_t* l, double grid_w, double ess_w,
                             double nameplate_w, bint learn, uint64_t t_ns) noexcept nogil:
    cdef double span_s = close_s(state)
    cdef double apart_s = <double>(t_ns - l.t_ns) * 1e-9
    cdef likelihood_t before
    cdef double[HABITS] moved_w
    cdef double most_w = 0.0
    cdef uint32_t habit
    if l.t_ns and t_ns > l.t_ns and apart_s < span_s:
        return
    if l.t_ns == 0 or t_ns <= l.t_ns or apart_s > SPANS_MOST * span_s + SPAN_MOST_S:
        l.change_s = 0.0
        begin(state, l, grid_w, ess_w, t_ns)
        return
    l.least_w = LEAST * nameplate_w
    before.grid_w = l.grid_w
    before.unsure_w = l.unsure_w
    before.ess_w = l.ess_w
    begin(state, l, grid_w, ess_w, t_ns)
    for habit in range(<uint32_t>HABITS):
        moved_w[habit] = l.ess_w[habit] - before.ess_w[habit]
        most_w = fmax(most_w, fabs(moved_w[habit]))
    if l.total > TOTAL_LEAST and most_w > MOVED * nameplate_w and (
            state.age_known or state.lags.used or state.models.averages):
        weigh(l, grid_w - before.grid_w, moved_w, fmax(
            fabs(l.unsure_w[0] - before.unsure_w[0] - moved_w[0]), fabs(l.unsure_w[1] - before.unsure_w[1] - moved_w[0])),
            state.lags.resolution_w, nameplate_w, apart_s)
    if learn:
        learn_change(l, grid_w - before.grid_w + moved_w[0], apart_s)
    for habit in range(<uint32_t>HABITS):
        l.change_w[habit] = grid_w - before.grid_w + moved_w[habit]
    l.change_s = apart_s


cdef void weigh(likelihood_t* l, double grid_w, const double* moved_w, double unsure_w, double digit_w,
                double nameplate_w,
                double apart_s) noexcept nogil:
    """grid_w, moved_w: changes of the reading and, by habit, of the battery; unsure_w: it may be off by; digit_w: of the meter.

    A habit is weighed while its share is likely against the meter as it was: from then on it has its own sum.
    """
    cdef double[CHANGE_BINS + 1] cumulated
    cdef double chance, honest, load_w, own_w, honest_w, goes_on_w, near_w, more, fades = exp(-apart_s / SUMS_S)
    cdef uint32_t i, habit
    unsure_w += 3.0 * l.least_w + 2.0
    cumulated[0] = 0.0
    for i in range(<uint32_t>CHANGE_BINS):
        cumulated[i + 1] = cumulated[i] + l.seen[i]
    for i in range(<uint32_t>SHARES):
        load_w = grid_w / SHARE[i] + moved_w[0]
        for habit in range(<uint32_t>HABITS):
            if habit and l.sums[0][i] < LIKELY_FROM:
                l.sums[habit][i] = 0.0
                continue
            near_w = unsure_w + digit_w / fmin(fabs(SHARE[i]), 1.0) + ROUGH * fmax(fabs(moved_w[0]), fabs(moved_w[habit]))
            chance = log_chance(l, cumulated, load_w, near_w, nameplate_w)
            honest_w = grid_w + moved_w[habit]
            # The same in the load's size under this share.
            own_w = load_w + (moved_w[habit] - SHARE[i] * moved_w[0]) / fmax(1.0, fabs(SHARE[i]))
            more = chance - log_chance(l, cumulated, honest_w, near_w, nameplate_w)
            if l.change_s > 0.0:
                goes_on_w = l.change_w[habit] * apart_s / l.change_s
                honest = log_chance(l, cumulated, honest_w - goes_on_w, near_w, nameplate_w)
                more = fmin(more, chance - honest)
                # How seldom it is that a load which always moves does not, says nothing of one that goes on.
                if i > 0 and fabs(honest_w - goes_on_w) <= near_w + ROUGH * fabs(goes_on_w):
                    more = fmin(more, 0.0)
            more = fmin(more, chance - log_chance(l, cumulated, own_w, near_w, nameplate_w))
            # A load that does more than another may do less as well.
            if fabs(load_w) >= fmin(fabs(honest_w), fabs(own_w)):
                more = fmin(more, 0.0)
            l.sums[habit][i] = fmax(l.sums[habit][i] * fades + fmin(fmax(more, -MOST), MOST), 0.0)


# ---------------------------------------------------------------- what follows


cdef uint32_t likelihood_suspects(const likelihood_t* l) noexcept nogil:
    cdef uint32_t i
    for i in range(<uint32_t>SHARES):
        if l.sums[0][i] > ASK_AT[i]:
            return i + 1
    return 0


cdef inline double least_sum(const likelihood_t* l, uint32_t share) noexcept nogil:
    """Against the habit that explains the readings best."""
    cdef double least = l.sums[0][share]
    cdef uint32_t habit
    for habit in range(1, <uint32_t>HABITS):
        least = fmin(least, l.sums[habit][share])
    return least


cdef uint32_t likelihood_sure(const likelihood_t* l, bint asked, bint mirrored) noexcept nogil:
    cdef uint32_t i
    if mirrored and asked and l.sums[0][0] > SURE_MIRRORED:
        return 1
    for i in range(<uint32_t>SHARES):
        if least_sum(l, i) > (SURE_ASKED_AT[i] if asked else SURE_AT[i]):
            return i + 1
    return 0


cdef double likelihood_share(uint32_t number) noexcept nogil:
    return SHARE[number]


cdef bint likelihood_honest(const likelihood_t* l) noexcept nogil:
    cdef uint32_t i
    for i in range(<uint32_t>SHARES):
        if l.sums[0][i] > HONEST_BELOW:
            return False
    return True
