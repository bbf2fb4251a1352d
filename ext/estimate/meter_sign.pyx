"""Whether the grid meter shows the battery with its own sign or is turned, whatever it makes of the power.

An average shows the end of each pulse as well as its beginning, with the opposite sign: beside one age alone it looks
turned as often as not. So every model of model.pyx, averages among them, is tried with both signs, and what the best
of either leaves is compared. Pulses that differ in length leave no average that explains them all with the wrong one.
"""

from libc.math cimport INFINITY, sqrt
from libc.stdint cimport uint32_t
from libc.string cimport memset

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.estimate.estimate cimport LAGS, MEANS, METER_MODELS, sign_trials_t
from tidegate.ext.estimate.shape cimport MEAN_S, SMOOTH_S, model_kernel


cdef extern from *:
    """
    #define MOVES_LEAST 2.0     /* fewer tell nothing of a sign */
    #define LIKELY_SHARP 0.25   /* moves: nothing says otherwise */
    #define LIKELY 1.2          /* moves by which one sign explains more than the other, and so many times their root: ... */
    #define LIKELY_CHANCE 0.45  /* ... so far does a restless load bring the wrong one seldom, ... */
    #define SURE 2.0
    #define SURE_CHANCE 0.9     /* ... and so far in 1 of 1,200 honest plants (161074), when what an average repeats still counted */
    #define UNPROVEN_SHARE 0.2  /* of the nameplates, while nothing is known of the sign: as far as any question to a meter steps */
    #define INDEPENDENT_S 0.5   /* of an average this long each move is news; of a longer one so much less */
    """
    const double UNPROVEN_SHARE, LIKELY_SHARP, INDEPENDENT_S, MOVES_LEAST, LIKELY, LIKELY_CHANCE, SURE, SURE_CHANCE


cdef void signs_begin(sign_trials_t* signs) noexcept nogil:
    memset(signs, 0, sizeof(sign_trials_t))
    signs.on = 1


cdef void signs_compare(sign_trials_t* signs, const double* rest_w, double change_w, double slope_w, double scale_w2,
                        double weight) noexcept nogil:
    cdef double honest_w, turned_w, sum_w = 2.0 * (change_w - slope_w)
    cdef uint32_t i
    signs.moves += weight
    for i in range(<uint32_t>METER_MODELS):
        honest_w = rest_w[i] - slope_w
        turned_w = sum_w - honest_w
        honest_w *= honest_w
        turned_w *= turned_w
        signs.honest_left[i] += weight * honest_w / (honest_w + scale_w2)
        signs.turned_left[i] += weight * turned_w / (turned_w + scale_w2)
        if signs.turned_left[i] < signs.turned_left[signs.turned_best]:
            signs.turned_best = i


cdef double sign_power_w(const sign_trials_t* signs, double nameplates_w) noexcept nogil:
    return (UNPROVEN_SHARE + (1.0 - UNPROVEN_SHARE) * signs.earned) * nameplates_w if signs.earned < 1.0 else INFINITY


cdef inline double independent(uint32_t model) noexcept nogil:
    """Which part of the moves tells something new: what one reading of an average shows, the next ones show again."""
    cdef uint32_t kernel
    if model < <uint32_t>LAGS:
        return 1.0
    kernel = model_kernel(model)
    return fmin(1.0, INDEPENDENT_S / (MEAN_S[kernel] if kernel < <uint32_t>MEANS else 2.0 * SMOOTH_S[kernel - MEANS]))


cdef double right_by(const sign_trials_t* signs, double* chance) noexcept nogil:
    """By how many moves the best of the right sign leaves less than the best of the other. chance: their root."""
    cdef uint32_t i, honest = 0, turned = 0
    cdef double share, less
    for i in range(1, <uint32_t>METER_MODELS):
        if signs.honest_left[i] < signs.honest_left[honest]:
            honest = i
        if signs.turned_left[i] < signs.turned_left[turned]:
            turned = i
    less = signs.turned_left[turned] - signs.honest_left[honest]
    share = independent(honest if less > 0.0 else turned)
    chance[0] = sqrt(share * signs.moves)
    return share * less


cdef double signs_earned(const sign_trials_t* signs) noexcept nogil:
    cdef double chance, less
    if signs.moves < MOVES_LEAST:
        return signs.earned
    less = right_by(signs, &chance) / fmax(LIKELY, LIKELY_CHANCE * chance)
    if less <= -1.0:  # what was known is no longer so
        return 0.0
    return 1.0 if less >= 1.0 or signs.earned == 1.0 else fmax(less, 0.0)


cdef uint32_t signs_found(const sign_trials_t* signs, bint sharp) noexcept nogil:
    """Which sign it is, beside what chance does.

    sharp: beside an age alone the meter goes against the battery; then it is enough that nothing here says otherwise.
    """
    cdef double less, chance
    if signs.moves < MOVES_LEAST:
        return SIGN_OPEN
    less = right_by(signs, &chance)
    if less > (LIKELY_SHARP if sharp else fmax(LIKELY, LIKELY_CHANCE * chance)):
        return SIGN_AGAINST
    if -less > SURE + SURE_CHANCE * chance:
        return SIGN_TURNED
    return SIGN_WITH if -less > fmax(LIKELY, LIKELY_CHANCE * chance) else SIGN_OPEN
