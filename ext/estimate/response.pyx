"""A converter's power between its own readings: what its setpoints have come to, by the step responses that were seen.

A converter that measures its power every 200 ms beside a grid meter of 20 ms is on its way ten meter readings long, and in
between any power between two setpoints may be its own. But its answers to steps repeat. Each reading of an answer says of
all later times that at least so much of a step is done by then, and of all earlier ones that no more was; the
readings of some answers fall at other moments each time, so the two close in on the response from both sides, to much less
than the converter's own interval and without a model of it. Answers that come sooner one time than another cross the two:
what lies between them is then all that an answer may be.

The answers to several steps add up. Every reading is held against the sum, and while one is off nothing of it is used.
"""

from libc.math cimport fabs
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.estimate.estimate cimport *


cdef extern from *:
    """
    /* Times after a step: ten milliseconds apart at first, then a fifteenth of themselves. */
    static const uint64_t BIN_NS[RESPONSE_BINS] = {
        0, 10000000, 20000000, 30000000, 40000000, 50000000, 60000000, 70000000, 80000000, 90000000, 100000000,
        110000000, 120000000, 130000000, 140000000, 150000000, 160000000, 170000000, 180000000, 190000000,
        200000000, 210000000, 220000000, 230000000, 240000000, 250000000, 260000000, 270000000, 280000000,
        290000000, 300000000, 310000000, 320000000, 341939802, 365383838, 390435242, 417204217, 445808523,
        476373994, 509035092, 543935496, 581228738, 621078874, 663661211, 709163073, 757784628, 809739769,
        865257052, 924580705, 987971699, 1055708899, 1128090289, 1205434283, 1288081127, 1376394394, 1470762585,
        1571600837, 1679352750, 1794492337, 1917526111, 2048995312, 2189478289, 2339593043, 2500000000,
    };
    #define SPAN_NS 2500000000u /* the last of them: a slower answer is not followed */
    #define DONE 0.98           /* an answer is over: what is left of it is small */
    #define FORGET 0.01         /* of what was seen, with each new answer */
    #define ANSWERS_LEAST 2u
    #define GOOD_LEAST 4u
    #define OFF_SHARE 0.01      /* of the nameplate: gains and digits ... */
    #define OFF_STEPS 0.06      /* ... and of the steps that are being answered: a reading further off is not as expected */
    #define LARGER 2.5          /* times the largest step that was learnt of: a converter with a ramp of its own takes longer for more */
    #define SLACK_SHARE 0.001   /* so much of both may always be missing */
    #define SLACK_STEPS 0.01
    #define STEP_SHARE 0.01     /* of the nameplate: an answer to less is not learnt of */
    #define STEP_LEAST_W 100.0
    #define ARRIVED 0.02        /* of a step: so near to its end it is there, ... */
    #define ARRIVED_S 0.03      /* ... and was so long ago already */
    #define CUT 0.85            /* an answer that the next step cuts short tells if it had come so far */
    #define STANDS 0.02         /* one that still changes by so much of itself ... */
    #define STANDS_SPAN 0.75    /* ... in the last quarter of the times does not stand */
    #define OPEN_SHARE 0.4      /* of the converter's interval: a response that leaves no more open says more than a straight line */
    #define MERGED_SHARE 40u    /* steps closer than this part of an answer stand as one */
    #define MERGED_NS 10000000u
    """
    const uint64_t[RESPONSE_BINS] BIN_NS
    const uint64_t SPAN_NS, MERGED_NS, MERGED_SHARE
    const double DONE, FORGET, OFF_SHARE, OFF_STEPS, LARGER, SLACK_SHARE, SLACK_STEPS, STEP_SHARE, STEP_LEAST_W, ARRIVED, ARRIVED_S, CUT, STANDS, STANDS_SPAN, OPEN_SHARE
    const uint32_t ANSWERS_LEAST, GOOD_LEAST


cdef inline uint32_t bin_at(uint64_t since_ns) noexcept nogil:
    """The last bin that is not later. Six halvings."""
    cdef uint32_t low = 0, high = RESPONSE_BINS, middle
    while high - low > 1:
        middle = (low + high) >> 1
        if BIN_NS[middle] <= since_ns:
            low = middle
        else:
            high = middle
    return low


cdef inline double made_of(const unit_memory_t* m, double setpoint_w) noexcept nogil:
    cdef uint32_t side = 0 if setpoint_w > 0.0 else 1
    cdef double w = fmax(m.told_gain[side] * fabs(setpoint_w) + m.told_offset_w[side], 0.0)
    return 0.0 if setpoint_w == 0.0 else -w if side else w


# ---------------------------------------------------------------- setpoints


cdef inline bint has_arrived(const response_t* r, uint64_t seen_ns) noexcept nogil:
    """The newest readings are what the newest step was to come to."""
    return r.arrived_ns != 0 and seen_ns >= r.arrived_ns + <uint64_t>(fmax(r.interval_s, ARRIVED_S) * 1e9)


cdef void response_told(unit_memory_t* m, double setpoint_w, double nameplate_w, uint64_t t_ns) noexcept nogil:
    cdef response_t* r = &m.response
    cdef double step_w = setpoint_w - r.setpoint_w
    cdef uint64_t seen_ns = m.history.t_ns[m.history.head]
    cdef bint rests
    if step_w == 0.0:
        return
    r.nameplate_w = nameplate_w
    if r.count and t_ns - r.step_t_ns[r.head] < max(MERGED_NS, r.done_ns // MERGED_SHARE):
        r.setpoint_w = setpoint_w
        r.arrived_ns = 0
        r.step_w[r.head] += step_w
        r.step_end_ns[r.head] = t_ns
        return
    if r.begun_ns:
        learn(r, made_of(m, r.setpoint_w), True)
    rests = r.count == 0 or has_arrived(r, seen_ns) or (
        seen_ns > r.step_end_ns[r.head] + (r.done_ns if r.done_ns else SPAN_NS))
    r.arrived_ns = 0
    r.setpoint_w = setpoint_w
    r.head = (r.head + 1) % RESPONSE_STEPS
    r.count = min(<uint32_t>(r.count + 1), <uint32_t>RESPONSE_STEPS)
    r.step_t_ns[r.head] = r.step_end_ns[r.head] = t_ns
    r.step_w[r.head] = step_w
    r.begun_ns = 0
    if rests and m.known:
        r.begun_ns = t_ns
        r.rest_w = m.history.w[m.history.head]
        r.seen = 0


# ---------------------------------------------------------------- answers


cdef inline void answer_reading(response_t* r, double w, uint64_t taken_ns) noexcept nogil:
    cdef double at_s
    if taken_ns <= r.begun_ns or w == (r.seen_w[r.seen - 1] if r.seen else r.rest_w):  # the same measurement
        return
    at_s = <double>(taken_ns - r.begun_ns) * 1e-9
    # The readings of a slow answer lie closer than it needs.
    if r.seen == RESPONSE_SEEN or (r.seen > 1 and at_s - r.seen_s[r.seen - 2] < 0.1 * at_s):
        r.seen -= 1
    r.seen_s[r.seen] = at_s
    r.seen_w[r.seen] = w
    r.seen += 1


cdef inline void done_by(response_t* r, double at_s, double share) noexcept nogil:
    """One reading: no less afterwards, no more before."""
    cdef uint32_t i
    cdef uint64_t at_ns
    if at_s < 0.0:
        return
    at_ns = <uint64_t>(at_s * 1e9)
    share = fmin(fmax(share, 0.0), 1.0)
    for i in range(<uint32_t>RESPONSE_BINS):
        if BIN_NS[i] >= at_ns:
            r.reached[i] = fmax(r.reached[i], share)
        if BIN_NS[i] <= at_ns:
            r.waiting[i] = fmin(r.waiting[i], share)


cdef void learn(response_t* r, double to_w, bint cut) noexcept nogil:
    """One answer, by what it came to; one that was cut short by what it was on its way to."""
    cdef double size_w, last_w, open_s = 0.0
    cdef uint32_t i
    cdef bint told = r.begun_ns != 0 and r.seen > 0
    r.begun_ns = 0
    if not told:
        return
    last_w = r.seen_w[r.seen - 1]
    size_w = (to_w if cut else last_w) - r.rest_w
    if fabs(size_w) < fmax(STEP_SHARE * r.nameplate_w, STEP_LEAST_W):
        return
    if cut:
        if not CUT < (last_w - r.rest_w) / size_w < 2.0 - CUT:
            return
    else:
        for i in range(r.seen):
            if r.seen_s[i] > STANDS_SPAN * 1e-9 * SPAN_NS and fabs(r.seen_w[i] - last_w) > STANDS * fabs(size_w):
                return
    for i in range(<uint32_t>RESPONSE_BINS):
        if r.answers == 0:
            r.reached[i] = 0.0
            r.waiting[i] = 1.0
        r.reached[i] -= FORGET * r.reached[i]
        r.waiting[i] += FORGET * (1.0 - r.waiting[i])
    if r.interval_s > 0.0:  # what was shown before was measured an interval ago
        done_by(r, r.seen_s[0] - r.interval_s, 0.0)
    for i in range(r.seen):
        done_by(r, r.seen_s[i], (r.seen_w[i] - r.rest_w) / size_w)
    if not cut:
        done_by(r, 1e-9 * SPAN_NS, 1.0)
    r.largest_w = fmax(r.largest_w, fabs(size_w))
    r.answers = min(<uint32_t>(r.answers + 1), <uint32_t>1000)
    r.done_ns = 0
    for i in range(<uint32_t>RESPONSE_BINS):
        if fmin(r.reached[i], r.waiting[i]) >= DONE:
            r.done_ns = BIN_NS[i]
            break
        if i:
            open_s += fabs(r.reached[i] - r.waiting[i]) * 1e-9 * (BIN_NS[i] - BIN_NS[i - 1])
    r.close = r.often and open_s < OPEN_SHARE * r.interval_s


# ---------------------------------------------------------------- what they come to


cdef inline void at(const unit_memory_t* m, uint64_t t_ns, double* lo, double* hi, double* steps_w) noexcept nogil:
    """Least and most at one time, and the sum of the steps that are being answered."""
    cdef const response_t* r = &m.response
    cdef double lo_w = r.setpoint_w, hi_w = r.setpoint_w, step_w, slow, quick, sum_w = 0.0
    cdef uint32_t number, i, bin
    for number in range(r.count):
        i = (r.head + RESPONSE_STEPS - number) % RESPONSE_STEPS
        step_w = r.step_w[i]
        if t_ns < r.step_t_ns[i]:
            lo_w -= step_w
            hi_w -= step_w
            continue
        if t_ns >= r.step_end_ns[i] + r.done_ns:
            break
        slow = 1.0
        if t_ns >= r.step_end_ns[i]:
            bin = bin_at(t_ns - r.step_end_ns[i])
            slow = 1.0 - fmin(r.reached[bin], r.waiting[bin])
        bin = min(bin_at(t_ns - r.step_t_ns[i]) + 1, <uint32_t>(RESPONSE_BINS - 1))
        quick = 1.0 - fmax(r.reached[bin], r.waiting[bin])
        lo_w -= step_w * (slow if step_w > 0.0 else quick)
        hi_w -= step_w * (quick if step_w > 0.0 else slow)
        sum_w += fabs(step_w)
    lo[0] = made_of(m, lo_w)
    hi[0] = made_of(m, hi_w)
    steps_w[0] = sum_w


cdef inline void over(const unit_memory_t* m, uint64_t from_ns, uint64_t to_ns, double* lo, double* hi,
                      double* steps_w) noexcept nogil:
    cdef double lo_w, hi_w, w
    cdef uint64_t t_ns = from_ns
    at(m, from_ns, lo, hi, steps_w)
    while t_ns < to_ns:
        t_ns = min(t_ns + MERGED_NS, to_ns)
        at(m, t_ns, &lo_w, &hi_w, &w)
        lo[0] = fmin(lo[0], lo_w)
        hi[0] = fmax(hi[0], hi_w)
        steps_w[0] = fmax(steps_w[0], w)


cdef void response_reading(unit_memory_t* m, double w, double interval_s, bint often, double slack_s) noexcept nogil:
    cdef response_t* r = &m.response
    cdef uint64_t taken_ns = m.history.t_ns[m.history.head], slack_ns = <uint64_t>(slack_s * 1e9)
    cdef double lo = 0.0, hi = 0.0, steps_w = 0.0, off_w
    if m.history.count == 0 or r.checked_ns == taken_ns:
        return
    r.checked_ns = taken_ns
    r.interval_s = interval_s
    r.often = often
    if taken_ns < r.step_end_ns[r.head] + <uint64_t>(fmax(interval_s, ARRIVED_S) * 1e9) or (
            fabs(w - made_of(m, r.setpoint_w)) > ARRIVED * fabs(r.step_w[r.head])):
        r.arrived_ns = 0
    elif r.arrived_ns == 0:
        r.arrived_ns = taken_ns
    if r.begun_ns:
        answer_reading(r, w, taken_ns)
        if taken_ns > r.begun_ns + SPAN_NS:
            learn(r, 0.0, False)
    if r.answers < ANSWERS_LEAST or r.done_ns == 0:
        r.trusted = 0
        return
    over(m, taken_ns - slack_ns if taken_ns > slack_ns else 0, taken_ns + slack_ns, &lo, &hi, &steps_w)
    off_w = w - hi if w > hi else w - lo if w < lo else 0.0
    r.good = min(<uint32_t>(r.good + 1), <uint32_t>1000) if fabs(off_w) <= OFF_SHARE * r.nameplate_w + OFF_STEPS * steps_w else 0
    r.trusted = r.good >= GOOD_LEAST
    r.off_w = off_w
    r.slack_w = SLACK_SHARE * r.nameplate_w


cdef bint response_bounds(const unit_memory_t* m, uint64_t from_ns, uint64_t to_ns, double* lo, double* hi) noexcept nogil:
    cdef const response_t* r = &m.response
    cdef double steps_w = 0.0
    cdef uint32_t oldest = (r.head + 1) % RESPONSE_STEPS
    if not r.trusted or to_ns > from_ns + r.done_ns + SPAN_NS // 5:
        return False
    if r.count == RESPONSE_STEPS and from_ns < r.step_end_ns[oldest] + r.done_ns:
        return False  # there were more of them than are remembered
    over(m, from_ns, to_ns, lo, hi, &steps_w)
    if steps_w > LARGER * r.largest_w:
        return False
    lo[0] += r.off_w - r.slack_w - SLACK_STEPS * steps_w
    hi[0] += r.off_w + r.slack_w + SLACK_STEPS * steps_w
    return True


cdef double response_w(const unit_memory_t* m, uint64_t t_ns) noexcept nogil:
    cdef double lo = 0.0, hi = 0.0, steps_w = 0.0
    at(m, t_ns, &lo, &hi, &steps_w)
    return 0.5 * (lo + hi) + m.response.off_w


# ---------------------------------------------------------------- what Python sees


cdef class StepResponse:
    """A converter's step response as the core learns it, for tests.

    nameplate_w: W; interval_s: its power is measured anew so often; slack_s: when, is known no closer.
    """
    cdef unit_memory_t memory
    cdef double nameplate_w, interval_s, slack_s

    def __init__(self, double nameplate_w, double interval_s, double slack_s=0.0):
        memset(&self.memory, 0, sizeof(unit_memory_t))
        self.memory.known = 1
        self.memory.told_gain = [1.0, 1.0]
        self.nameplate_w, self.interval_s, self.slack_s = nameplate_w, interval_s, slack_s

    def told(self, double t_s, double setpoint_w):
        """What the gate let go at t_s, W."""
        response_told(&self.memory, setpoint_w, self.nameplate_w, <uint64_t>(t_s * 1e9))

    def reading(self, double t_s, double w):
        """The converter's power, measured at t_s, W."""
        self.memory.history.count = 1
        self.memory.history.t_ns[0] = <uint64_t>(t_s * 1e9)
        self.memory.history.w[0] = w
        response_reading(&self.memory, w, self.interval_s, True, self.slack_s)

    def bounds(self, double from_s, double to_s):
        """(least, most) of its power between two times, W; None where nothing is known of it."""
        cdef double lo = 0.0, hi = 0.0
        if not response_bounds(&self.memory, <uint64_t>(from_s * 1e9), <uint64_t>(to_s * 1e9), &lo, &hi):
            return None
        return lo, hi

    @property
    def answers(self):
        """Answers that were learnt of."""
        return self.memory.response.answers

    @property
    def shares(self):
        """(s, least, most) of a step that is done so long after it, for each time that is kept."""
        cdef const response_t* r = &self.memory.response
        return [(BIN_NS[i] * 1e-9, min(r.reached[i], r.waiting[i]), max(r.reached[i], r.waiting[i]))
                for i in range(RESPONSE_BINS)]
