"""Does the meter show at once what the battery does, or bit by bit?

Where the control follows a load, the battery does what the load does, and over seconds an average, or an age of
seconds, leaves less unexplained than what is true: it smears the load's own turns. From one reading to the next it is
otherwise. The battery moves by steps there, its own, and a meter of moments shows all of each in one reading; an
average of seconds shows next to nothing of it. So each time the battery leaves its slope, the share of that which the
meter shows in the same reading is noted: 1 of moments, the reading's part of the average's length of an average. What
the load does in that reading lies on top; it is as often for as against, and counts for no more than one move.
"""

from libc.math cimport fabs

from tidegate.ext.abi.extremes cimport fmax, fmin


cdef extern from *:
    """
    #define MOMENTS_NEW 0.05    /* one move changes the mean by so much */
    #define MOMENTS_S 40.0      /* of a battery that moves, and what was seen has faded; how large its moves were, ... */
    #define MOMENTS_LARGE_S 25.0 /* ... so that smaller ones count by then */
    #define MOMENTS_LEAST 3.0   /* so many moves say something */
    #define MOMENTS_RATE 1.1    /* how fast the medians are followed */
    #define MOMENTS_CLEAR 2.0   /* a move so many times as large as what the load does has half a vote ... */
    #define MOMENTS_LARGE 0.25  /* ... as has one so large beside the mean square of those that had one ... */
    #define MOMENTS_SMALL 0.2   /* ... and below this it has none */
    #define MOMENTS_LOAD 0.35   /* the load alone comes to this ... */
    #define MOMENTS_MEAN 0.2    /* ... and an average that is too long to no more than this: ... */
    #define MOMENTS_SHOWN 0.5   /* so much is more than either, ... */
    #define MOMENTS_OFF 2.0     /* a share further from that than this is the load's */
    #define MOMENTS_SURE 1.2    /* ... from where it is so many standard deviations */
    #define MOMENTS_ROUGH 0.05  /* a variance: digits, ages, what a straight line between readings of the converter is not */
    """
    const double MOMENTS_NEW, MOMENTS_S, MOMENTS_LARGE_S, MOMENTS_LEAST, MOMENTS_RATE, MOMENTS_CLEAR, MOMENTS_LARGE, MOMENTS_SMALL, MOMENTS_LOAD, MOMENTS_MEAN, MOMENTS_SHOWN, MOMENTS_OFF, MOMENTS_SURE, MOMENTS_ROUGH


cdef inline void follow_median(double* median_w, double w) noexcept nogil:
    if median_w[0] == 0.0:
        median_w[0] = fmax(w, 1.0)
    median_w[0] *= MOMENTS_RATE if w > median_w[0] else 1.0 / MOMENTS_RATE
    median_w[0] = fmax(median_w[0], 0.1)


cdef void moments_add(moments_t* m, double battery_w, double grid_w, double rounding_w, uint32_t best, double dt_s) noexcept nogil:
    cdef double noise_w, weight, off, keep
    if not -1 <= <int>m.best - <int>best <= 1:  # neighbours are as good: what was seen by one is no less seen by the other
        m.moves = m.off = m.off2 = m.battery_w2 = 0.0
    m.best = best
    follow_median(&m.with_w, fabs(grid_w + battery_w))
    follow_median(&m.without_w, fabs(grid_w))
    noise_w = MOMENTS_CLEAR * fmax(fmin(m.with_w, m.without_w), rounding_w)
    weight = battery_w * battery_w / (battery_w * battery_w + noise_w * noise_w + MOMENTS_LARGE * m.battery_w2)
    if weight < MOMENTS_SMALL:
        return
    m.battery_w2 += (battery_w * battery_w - m.battery_w2) * MOMENTS_NEW * weight
    keep = 1.0 - MOMENTS_NEW * weight
    off = fmin(fmax(-grid_w / battery_w - MOMENTS_LOAD, -MOMENTS_OFF), MOMENTS_OFF)
    m.moves = keep * m.moves + weight
    m.off = keep * m.off + weight * off
    m.off2 = keep * m.off2 + weight * off * off
    m.dt_s += (dt_s - m.dt_s) * weight / fmax(m.moves, 1.0)


cdef void moments_keep(moments_t* m, double share) noexcept nogil:
    m.moves *= share
    m.off *= share
    m.off2 *= share


cdef void moments_fade(moments_t* m, double dt_s) noexcept nogil:
    moments_keep(m, 1.0 - fmin(dt_s * (1.0 / MOMENTS_S), 0.5))
    m.battery_w2 *= 1.0 - fmin(dt_s * (1.0 / MOMENTS_LARGE_S), 0.5)


cdef bint shows_moments(const moments_t* m) noexcept nogil:
    cdef double mean, above, variance
    if m.moves < MOMENTS_LEAST:
        return False
    mean = MOMENTS_LOAD + m.off / m.moves
    variance = fmax(m.off2 / m.moves - m.off / m.moves * (m.off / m.moves), 0.0) + MOMENTS_ROUGH
    above = mean - MOMENTS_MEAN
    return mean > MOMENTS_SHOWN and above * above * m.moves > MOMENTS_SURE * MOMENTS_SURE * variance
