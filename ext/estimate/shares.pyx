"""Which share of the battery's moves does the grid meter show: all of it, as it must, or another one?

A reading's change is the load's, less the share of what the battery did. Two tests of that, both from one changed
reading to the next:

*Natural moves* make it suspect. What the battery does it does because of older readings, so the load's *new* change
has no part in it: what the load goes on doing of itself (its last change, times the share that it usually repeats) is
taken off first. What is left speaks for a share by as much less as it leaves, bounded, so that no single jump of the
load decides. The sums never fall below zero, so that a lie is seen from its beginning on. A load that swings in time with
the loop makes an honest meter look wrong all the same; so this proves nothing.

*A question* decides. Its steps follow no reading. A meter that has become slow, or late, or has begun to average, shows
another share for a while and is honest: so each wrong share stands against every honest model of a meter that the
estimate knows (shape.pyx), the one that explains the answers best.
"""

from libc.math cimport fabs
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.estimate.estimate cimport METER_MODELS, estimate_state_t
from tidegate.ext.estimate.shape cimport models_sweep


cdef extern from *:
    """
    static const double SHARE[5] = {-1.0, 0.0, 1.0, 1.0 / 3.0, 2.0 / 3.0};
    #define TURNED 0              /* of SHARE */
    #define AS_EVER 2
    #define LEAST_NS 50000000u    /* readings are compared no closer than that, */
    #define SAME_INTERVALS 1.6    /* ... and a value that stands was measured anew after so long */
    #define SAME_S 0.1
    #define GAP_INTERVALS 6.0     /* further apart they are not compared */
    #define GAP_S 6.0
    #define BOUND 3.0             /* one reading speaks by so much at most, ... */
    #define BEND 4.0              /* ... by half of it at two standard deviations */
    #define ROUGH 0.15            /* of a move: ages, gains, digits */
    #define ROUGH_ASKED 0.1
    #define FLOOR_SHARE 0.02      /* of a move that must show */
    #define MOVE_SHARE 0.1        /* a smaller move tells nothing */
    #define SUSPECT 6.0
    #define MEMORY 400.0          /* readings */
    #define REPEATS_MOST 0.95
    #define NOISE_S 20.0
    #define NOISE_MEDIAN 1.5
    #define ASKED_UP 1.1          /* while it is asked the noise is what one change in seven exceeds by half */
    #define ASKED_DOWN 0.985
    #define FOUND_BY 8.0
    #define HONEST_BY 4.0
    #define AGAINST_BY 1.0
    #define CHANGED 4.0           /* that its age has changed just now costs a model so much */
    #define COMPARED 6u
    """
    const double[SHARES] SHARE
    const uint32_t TURNED, AS_EVER, COMPARED
    const uint64_t LEAST_NS
    const double SAME_INTERVALS, SAME_S, GAP_INTERVALS, GAP_S, BOUND, BEND, ROUGH, ROUGH_ASKED, FLOOR_SHARE
    const double MOVE_SHARE, SUSPECT
    const double MEMORY, REPEATS_MOST, NOISE_S, NOISE_MEDIAN, ASKED_UP, ASKED_DOWN, FOUND_BY, HONEST_BY, AGAINST_BY, CHANGED


cdef void shares_forget(shares_t* shares) noexcept nogil:
    shares.t_ns = 0
    memset(shares.sums, 0, sizeof(shares.sums))


cdef void shares_ask(shares_t* shares, bint asked) noexcept nogil:
    shares.asked = asked
    shares.asked_t_ns = 0
    shares.compared = 0
    memset(shares.wrong, 0, sizeof(shares.wrong))
    memset(shares.right, 0, sizeof(shares.right))
    memset(shares.sums, 0, sizeof(shares.sums))


cdef inline double badly(double off_w, double spread_w2) noexcept nogil:
    return BOUND * off_w * off_w / (off_w * off_w + BEND * spread_w2)


cdef void shares_reading(const estimate_state_t* state, shares_t* shares, double grid_w, double ess_w, uint64_t t_ns,
                         bint known, double small_w, double far_w, bint asked) noexcept nogil:
    cdef double interval_s = state.lags.interval.interval_s, apart_s, grid_w_change, ess_w_change
    if shares.t_ns and t_ns < shares.t_ns + LEAST_NS:
        return
    apart_s = <double>(t_ns - shares.t_ns) * 1e-9 if shares.t_ns else 1e9
    if shares.t_ns and grid_w == shares.w and apart_s < SAME_INTERVALS * interval_s + SAME_S:
        return
    if apart_s > GAP_INTERVALS * interval_s + GAP_S:
        shares.grid_change_w = shares.ess_change_w = 0.0
    else:
        grid_w_change = grid_w - shares.w
        ess_w_change = ess_w - shares.ess_w
        if not asked and known:
            weigh(shares, grid_w_change, ess_w_change, apart_s, small_w, far_w)
        shares.grid_change_w = grid_w_change
        shares.ess_change_w = ess_w_change
        if shares.asked:
            weigh_answer(state, shares, t_ns, small_w, far_w)
    shares.t_ns = t_ns
    shares.w = grid_w
    shares.ess_w = ess_w


cdef void weigh(shares_t* shares, double grid_w, double ess_w, double apart_s, double small_w,
                double far_w) noexcept nogil:
    """Natural moves; and what the load is seen to do."""
    cdef double repeats = 0.0, noise_w2, rough_w, floor_w, new_grid_w, new_ess_w, right_w
    cdef double before_w, keep, follow, counts
    cdef uint32_t i
    if shares.noise_w == 0.0:
        shares.noise_w = fmax(fabs(grid_w + ess_w), 0.1 * far_w)
    noise_w2 = shares.noise_w * shares.noise_w
    if shares.before2 > 0.0:
        repeats = fmax(fmin(shares.both / (shares.before2 + 1.0), REPEATS_MOST), -REPEATS_MOST)
    new_grid_w = grid_w - repeats * shares.grid_change_w
    new_ess_w = ess_w - repeats * shares.ess_change_w
    right_w = new_grid_w + new_ess_w
    rough_w = ROUGH * fmax(fabs(ess_w), 0.5 * fabs(shares.ess_change_w))
    floor_w = FLOOR_SHARE * far_w + 0.5 * small_w
    if fabs(new_ess_w) > MOVE_SHARE * far_w:
        for i in range(<uint32_t>SHARES):
            shares.sums[i] += (badly(right_w, noise_w2 + rough_w * rough_w + floor_w * floor_w)
                               - badly(new_grid_w + SHARE[i] * new_ess_w,
                                       noise_w2 + SHARE[i] * SHARE[i] * rough_w * rough_w + floor_w * floor_w))
            shares.sums[i] = fmin(fmax(shares.sums[i], 0.0), 2.0 * SUSPECT)
    # What the load does: its usual change, and how much of one goes on in the next.
    before_w = shares.grid_change_w + shares.ess_change_w
    keep = 1.0 - 1.0 / MEMORY
    counts = 1.0 / ((1.0 + right_w * right_w / noise_w2) * noise_w2)
    shares.before2 = keep * shares.before2 + counts * before_w * before_w
    shares.both = keep * shares.both + counts * before_w * (grid_w + ess_w)
    follow = fmin(NOISE_MEDIAN * 2.0 * apart_s / NOISE_S, 0.2)
    shares.noise_w *= 1.0 + follow if fabs(right_w) > NOISE_MEDIAN * shares.noise_w else 1.0 - follow
    shares.noise_w = fmax(shares.noise_w, 1.0)


cdef void weigh_answer(const estimate_state_t* state, shares_t* shares, uint64_t t_ns, double small_w,
                       double far_w) noexcept nogil:
    """The answer of a meter that is asked."""
    cdef double[METER_MODELS] now_w
    cdef double most_w = 0.0, spread_w2, left_w = 1e300, noise_w
    cdef uint32_t i
    models_sweep(&state.shapes, t_ns, now_w)
    if shares.asked_t_ns:
        for i in range(<uint32_t>METER_MODELS):
            most_w = fmax(most_w, fabs(now_w[i] - shares.then_w[i]))
    # What the load does meanwhile is at least what the best of the shares leaves.
    for i in range(<uint32_t>SHARES):
        left_w = fmin(left_w, fabs(shares.grid_change_w + SHARE[i] * shares.ess_change_w))
    if shares.noise_w == 0.0:
        shares.noise_w = fmax(left_w, MOVE_SHARE * far_w)
    shares.noise_w = fmax(shares.noise_w * (ASKED_UP if left_w > NOISE_MEDIAN * shares.noise_w else ASKED_DOWN), 1.0)
    noise_w = shares.noise_w
    if most_w > MOVE_SHARE * far_w:
        spread_w2 = ROUGH_ASKED * ROUGH_ASKED * most_w * most_w + noise_w * noise_w + 0.25 * small_w * small_w
        for i in range(<uint32_t>METER_MODELS):
            shares.right[i] += badly(shares.grid_change_w + now_w[i] - shares.then_w[i], spread_w2)
        for i in range(<uint32_t>SHARES):
            shares.wrong[i] += badly(shares.grid_change_w + SHARE[i] * shares.ess_change_w, spread_w2)
        shares.compared += 1
    shares.asked_t_ns = t_ns
    for i in range(<uint32_t>METER_MODELS):
        shares.then_w[i] = now_w[i]


cdef bint shares_suspect(const shares_t* shares) noexcept nogil:
    cdef uint32_t i
    for i in range(<uint32_t>SHARES):
        if shares.sums[i] > SUSPECT:
            return True
    return False


cdef inline double against(const shares_t* shares, uint32_t* share) noexcept nogil:
    """By how much the best of the wrong shares explains the answers better than the best honest meter."""
    cdef double right = 1e300
    cdef uint32_t i
    share[0] = 0
    for i in range(<uint32_t>METER_MODELS):
        right = fmin(right, shares.right[i])
    right = fmin(right + CHANGED, shares.wrong[AS_EVER])
    for i in range(1, <uint32_t>SHARES):
        if i != AS_EVER and shares.wrong[i] < shares.wrong[share[0]]:
            share[0] = i
    return right - shares.wrong[share[0]]


cdef uint32_t shares_found(const shares_t* shares) noexcept nogil:
    cdef uint32_t share
    cdef double by
    if shares.compared < COMPARED:
        return SHARES_OPEN
    by = against(shares, &share)
    if by > FOUND_BY:
        return SHARES_TURNED if share == TURNED else SHARES_WRONG
    return SHARES_HONEST if by < -HONEST_BY else SHARES_OPEN


cdef bint shares_against(const shares_t* shares) noexcept nogil:
    cdef uint32_t share
    return against(shares, &share) > AGAINST_BY
