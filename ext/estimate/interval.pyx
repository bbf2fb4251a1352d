"""How often a device shows something new, and when an unchanged value must have been measured anew."""

from libc.math cimport INFINITY
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.estimate.estimate cimport GAPS, estimate_state_t, interval_t


cdef extern from *:
    """
    #define ALIKE_LEAST 4u        /* so many of the gaps, ... */
    #define EVEN_LEAST 6u         /* so many of the newest gaps are the device's own, not those of a power that stands */
    #define ALIKE_SHARE 0.35      /* ... no further apart than this share of their mean */
    #define ALIKE_MOST_S 0.25     /* longer ones are those of a power that stands */
    #define SAME_SHARE 1.6        /* a longer gap is one in which a value was not new */
    #define REREAD_INTERVALS 2.0  /* ... and for so many of the meter's intervals */
    """
    const double ALIKE_SHARE, ALIKE_MOST_S, SAME_SHARE, REREAD_INTERVALS
    const uint32_t ALIKE_LEAST, EVEN_LEAST


cdef uint64_t reread_ns(const estimate_state_t* state) noexcept nogil:
    """An unchanged value is taken for the same sample for so long: by the meter's own interval, once that is known."""
    return max(<uint64_t>REREAD_NS, <uint64_t>(fmin(REREAD_INTERVALS * state.lags.interval.interval_s, 60.0) * 1e9))


cdef void learn_interval(interval_t* interval, double apart_s) noexcept nogil:
    """Mean of those of the newest gaps that are not much longer than the second shortest.

    A power that stands still makes gaps long, never short: the short ones are the device's own. The shortest may be a
    glitch. The first gap is from where we came in, so it says nothing.
    """
    cdef double least_s = INFINITY, second_s = INFINITY, most_s = 0.0, sum_s = 0.0
    cdef uint32_t i, count, used = 0
    interval.seen += 1
    if interval.seen == 1:
        return
    interval.gap_s[interval.head] = apart_s
    interval.head = (interval.head + 1) % GAPS
    count = min(<uint32_t>(interval.seen - 1), <uint32_t>GAPS)
    for i in range(count):
        if interval.gap_s[i] < least_s:
            second_s = least_s
            least_s = interval.gap_s[i]
        elif interval.gap_s[i] < second_s:
            second_s = interval.gap_s[i]
    if count == 1:
        second_s = least_s
    for i in range(count):
        if interval.gap_s[i] <= SAME_SHARE * second_s:
            sum_s += interval.gap_s[i]
            most_s = fmax(most_s, interval.gap_s[i])
            used += 1
    interval.interval_s = sum_s / used
    interval.even = count == GAPS and used >= EVEN_LEAST
    interval.alike = used >= ALIKE_LEAST and interval.interval_s <= ALIKE_MOST_S and (
        most_s - least_s <= ALIKE_SHARE * interval.interval_s)
