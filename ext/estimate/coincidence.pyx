"""Whether a slow meter shows the battery: its changes from value to value, against the battery's between the same moments.

A slow meter shows so little that each of its values has to tell something. Steps of a length and a size that nothing foretells
are a part of what the battery does: the pulses of arming. Where the meter shows the battery, at one of the ages that a
value may have, its change plus the battery's is the load alone. So that is held against three others: that it shows nothing of
the battery, that it shows it turned, and that it shows all that the battery does but those steps. The last is what
a load looks like that the control follows: by it nothing is proven that the control did, for that answers the load.

How a load changes is not known. Most change seldom and far, or often and little: what is left under each of them
is weighed by Cauchy's distribution, of the width that fits it best. So a few values that meet to a few watts tell much,
and one that a load's step lies upon tells nothing.
"""

from libc.math cimport INFINITY, fabs, log
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.estimate.estimate cimport history_t
from tidegate.ext.estimate.interval cimport INTERVAL_SLOW_S
from tidegate.ext.estimate.pairing cimport HISTORY_SPACING_NS, history_add, history_at, time_before


cdef extern from *:
    """
    #define EDGES_MASK 15u  /* RANDOM_EDGES - 1 */
    #define AGE_STEP_NS 250000000  /* ages that are tried: from 0 to 4.25 s */
    #define COME_NS 400000000u     /* a value waits so long for the battery readings around it */
    #define STANDS_INTERVALS 1.25  /* a value that stands for so long is another one of the same size */
    #define ROUGH 0.1              /* of the battery's move: what is left beside it is no less, for a load may be as large by chance */
    #define WIDTH_LEAST 0.01       /* of the largest */
    #define CLEAR 20.0             /* times that: a step that is larger counts as a move */
    #define MOVES_LEAST 4u         /* of the steps, at the age that fits, there and back among them */
    #define WIDTH_ROUNDS 5
    #define SURE 12.0              /* e^12 = 160,000, of which the ages that are tried take 18, and the values that it is looked at by as many */
    #define SURE_TURNED 14.0
    #define SURE_AGAIN 3.0         /* more by the newest alone, which are looked at again and again */
    #define NEWEST 12u
    #define NARROWER 0.05
    #define AGE_OTHER 9.0          /* ... and that another one fits the newest so much better says that it is another now */
    #define AGE_OUT 8.0            /* an age that fits so much worse than the best is none */
    """
    const uint32_t EDGES_MASK
    const int64_t AGE_STEP_NS
    const uint64_t COME_NS
    const double STANDS_INTERVALS, ROUGH, WIDTH_LEAST, CLEAR, SURE, SURE_TURNED, SURE_AGAIN, AGE_OUT, AGE_OTHER, NARROWER
    const uint32_t MOVES_LEAST, NEWEST
    const int WIDTH_ROUNDS


cdef void coincidence_begin(coincidence_t* c) noexcept nogil:
    memset(c, 0, sizeof(coincidence_t))


cdef void coincidence_gap(coincidence_t* c) noexcept nogil:
    c.value_ns = c.waiting_ns = c.then_ns = 0


cdef void coincidence_random(coincidence_t* c, double w, uint64_t t_ns) noexcept nogil:
    if c.edge_count and c.edge_w[c.edge_head] == w:
        return
    c.edge_head = (c.edge_head + 1) & EDGES_MASK
    c.edge_w[c.edge_head] = w
    c.edge_ns[c.edge_head] = t_ns
    if c.edge_count < RANDOM_EDGES:
        c.edge_count += 1


cdef inline double random_at(const coincidence_t* c, uint64_t t_ns) noexcept nogil:
    cdef uint32_t number, at
    for number in range(c.edge_count):
        at = (c.edge_head - number) & EDGES_MASK
        if c.edge_ns[at] <= t_ns:
            return c.edge_w[at]
    return 0.0


cdef uint32_t coincidence_reading(coincidence_t* c, const history_t* total, double value_w, double interval_s,
                                  bint proven, uint64_t t_ns) noexcept nogil:
    cdef bint told = False
    if c.waiting_ns and t_ns >= c.waiting_ns + COME_NS:
        told = compare(c, total)
    if c.value_ns == 0 or value_w != c.value_w:
        c.waiting_w = c.value_w = value_w
        c.waiting_ns = c.value_ns = t_ns
    elif interval_s > 0.0 and t_ns >= c.value_ns + <uint64_t>(STANDS_INTERVALS * 1e9 * interval_s):
        # It was measured anew, an interval after it came: since then the battery may have moved.
        c.value_ns += <uint64_t>(1e9 * interval_s)
        c.waiting_w = value_w
        c.waiting_ns = c.value_ns
    return judge(c, proven) if told and interval_s > INTERVAL_SLOW_S else <uint32_t>COINCIDENCE_OPEN


cdef bint compare(coincidence_t* c, const history_t* total) noexcept nogil:
    """The value that waited, against the one before; 1 = it is one more."""
    cdef uint32_t i
    cdef bint before = c.then_ns != 0
    cdef double now_w, random_w
    cdef uint64_t at_ns
    if before:
        c.head = (c.head + 1) % COINCIDENCE_VALUES
        c.change_w[c.head] = c.waiting_w - c.then_value_w
        c.count = min(c.count + 1, <uint32_t>COINCIDENCE_VALUES)
    for i in range(<uint32_t>COINCIDENCE_AGES):
        at_ns = time_before(c.waiting_ns, i * AGE_STEP_NS)
        now_w = history_at(total, at_ns)
        random_w = random_at(c, at_ns)
        if before:
            c.moved_w[c.head][i] = now_w - c.then_w[i]
            c.random_w[c.head][i] = random_w - c.then_random_w[i]
        c.then_w[i] = now_w
        c.then_random_w[i] = random_w
    c.then_value_w = c.waiting_w
    c.then_ns = c.waiting_ns
    c.waiting_ns = 0
    return before


cdef double fit(const coincidence_t* c, uint32_t newest, uint32_t age, double share, double random_share,
                double least_w, const double* rough_w2) noexcept nogil:
    """How likely the load is that is left where the meter shows so much of the battery, and of the steps: a logarithm."""
    cdef double[COINCIDENCE_VALUES] left_w2
    cdef double width_w2 = 0.0, least_w2 = least_w * least_w, sum_, x, product = 1.0, likely = 0.0
    cdef uint32_t i, at
    cdef int rounds
    for i in range(newest):
        at = row(c, i)
        x = c.change_w[at] + share * c.moved_w[at][age] + random_share * c.random_w[at][age]
        left_w2[i] = fmax(x * x, rough_w2[i])
        width_w2 += fabs(x)
    width_w2 /= newest
    width_w2 = fmax(0.25 * width_w2 * width_w2, least_w2)
    for rounds in range(WIDTH_ROUNDS):
        sum_ = 0.0
        for i in range(newest):
            sum_ += left_w2[i] / (left_w2[i] + width_w2)
        width_w2 = fmax(width_w2 * fmax(2.0 * sum_ / newest, NARROWER), least_w2)
    for i in range(newest):
        product *= 1.0 + left_w2[i] / width_w2
        if product > 1e100:
            likely -= log(product)
            product = 1.0
    return likely - log(product) - 0.5 * newest * log(width_w2)


cdef inline uint32_t row(const coincidence_t* c, uint32_t number) noexcept nogil:
    """Of the values, the newest is number 0."""
    return (c.head + COINCIDENCE_VALUES - number) % COINCIDENCE_VALUES


cdef uint32_t judge(coincidence_t* c, bint proven) noexcept nogil:
    """By all values, and by the newest: beside a load that has become quiet those of before would hide what they say."""
    cdef double[COINCIDENCE_AGES] fits
    cdef double best, inside = -INFINITY
    cdef uint32_t found, age
    if c.count < MOVES_LEAST:
        return COINCIDENCE_OPEN
    found = compare_fits(c, c.count, proven, fits, &best)
    ages_of(c, fits, best)
    if c.count <= NEWEST:
        return found
    found = max(found, compare_fits(c, NEWEST, proven, fits, &best))
    for age in range(<uint32_t>COINCIDENCE_AGES):
        if c.age_lo_s <= age_s(age) <= c.age_hi_s:
            inside = fmax(inside, fits[age])
    if inside < best - AGE_OTHER:  # it is of another age now
        c.count = NEWEST
        ages_of(c, fits, best)
    return found


cdef inline double age_s(uint32_t age) noexcept nogil:
    return 1e-9 * AGE_STEP_NS * age


cdef inline void ages_of(coincidence_t* c, const double* fits, double best) noexcept nogil:
    """Two ages that no edge of the battery lies between fit alike."""
    cdef uint32_t age
    c.age_lo_s = age_s(COINCIDENCE_AGES)
    c.age_hi_s = 0.0
    for age in range(<uint32_t>COINCIDENCE_AGES):
        if fits[age] > best - AGE_OUT:
            c.age_lo_s = fmin(c.age_lo_s, age_s(age) - age_s(1))
            c.age_hi_s = fmax(c.age_hi_s, age_s(age) + age_s(1))


cdef uint32_t compare_fits(const coincidence_t* c, uint32_t newest, bint proven, double* fits, double* best) noexcept nogil:
    cdef double least_w = 0.0, unseen, honest = -INFINITY, turned = -INFINITY, followed = -INFINITY, x, rival, move_w
    cdef double[COINCIDENCE_VALUES] rough_w2
    cdef double again = 0.0 if newest == c.count else SURE_AGAIN
    cdef uint32_t i, age, honest_age = 0, turned_age = 0
    for i in range(newest):
        move_w = 0.0
        for age in range(<uint32_t>COINCIDENCE_AGES):
            move_w = fmax(move_w, fabs(c.moved_w[row(c, i)][age]))
        least_w = fmax(least_w, move_w)
        rough_w2[i] = ROUGH * ROUGH * move_w * move_w
    least_w = fmax(WIDTH_LEAST * least_w, 1.0)
    for age in range(<uint32_t>COINCIDENCE_AGES):
        fits[age] = fit(c, newest, age, 1.0, 0.0, least_w, rough_w2)
        if fits[age] > honest:
            honest = fits[age]
            honest_age = age
    best[0] = honest
    if proven:
        return COINCIDENCE_OPEN
    unseen = fit(c, newest, 0, 0.0, 0.0, least_w, rough_w2)
    for age in range(<uint32_t>COINCIDENCE_AGES):
        x = fit(c, newest, age, -1.0, 0.0, least_w, rough_w2)
        if x > turned:
            turned = x
            turned_age = age
        followed = fmax(followed, fit(c, newest, age, 1.0, -1.0, least_w, rough_w2))
    rival = fmax(unseen, followed)
    if honest - fmax(rival, turned) > SURE + again and moves(c, newest, honest_age, CLEAR * least_w):
        return COINCIDENCE_HONEST
    if turned - fmax(rival, honest) > SURE_TURNED + again and moves(c, newest, turned_age, CLEAR * least_w):
        return COINCIDENCE_TURNED
    return COINCIDENCE_OPEN


cdef bint moves(const coincidence_t* c, uint32_t newest, uint32_t age, double clear_w) noexcept nogil:
    """The steps went up and down, and often enough."""
    cdef uint32_t i, up = 0, down = 0
    for i in range(newest):
        up += c.random_w[row(c, i)][age] > clear_w
        down += c.random_w[row(c, i)][age] < -clear_w
    return up > 0 and down > 0 and up + down >= MOVES_LEAST


# ---------------------------------------------------------------- Python view


cdef class Coincidence:
    """A meter's values beside the power of a battery and the steps in it that nothing foretold. For tests."""

    cdef coincidence_t c
    cdef history_t total

    def __cinit__(self):
        coincidence_begin(&self.c)
        memset(&self.total, 0, sizeof(history_t))

    def battery(self, double w, double t_s):
        """A reading of the battery's power."""
        history_add(&self.total, <uint64_t>(t_s * 1e9), w, HISTORY_SPACING_NS)

    def steps(self, double w, double t_s):
        """The steps that nothing foretold are so large from now on."""
        coincidence_random(&self.c, w, <uint64_t>(t_s * 1e9))

    def reading(self, double value_w, double interval_s, double t_s):
        """"open", "honest" or "turned"."""
        return ("open", "honest", "turned")[
            coincidence_reading(&self.c, &self.total, value_w, interval_s, False, <uint64_t>(t_s * 1e9))]

    @property
    def age_s(self):
        """(least, most) of the ages at which the values meet the steps."""
        return self.c.age_lo_s, self.c.age_hi_s
