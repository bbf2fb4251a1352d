# ext/estimate/meter_sign.pxd: contents page of meter_sign.pyx.
from libc.stdint cimport uint32_t

from tidegate.ext.estimate.estimate cimport METER_MODELS, sign_trials_t

cdef enum:
    SIGN_OPEN = 0
    SIGN_AGAINST  # against the battery's moves, as it must
    SIGN_WITH     # with them: more likely than not it is turned
    SIGN_TURNED   # beyond doubt

# A site begins to arm: nothing is known of the sign.
cdef void signs_begin(sign_trials_t* signs) noexcept nogil
# A span of time in which the battery moved. rest_w: what each model leaves of the grid's change with the meter's own sign;
# slope_w: what the load does on its own; scale_w2: what lies far beyond that is a step of the load.
cdef void signs_compare(sign_trials_t* signs, const double* rest_w, double change_w, double slope_w, double scale_w2,
                        double weight) noexcept nogil

# What the best of the turned meters leaves of the same, W.
cdef inline double signs_turned_w(const sign_trials_t* signs, const double* rest_w, double change_w, double slope_w) noexcept nogil:
    return 2.0 * change_w - rest_w[signs.turned_best] - slope_w

# The same for a site that runs unproven: how much of the sign is known, 0..1, beside what signs.earned was.
cdef double signs_earned(const sign_trials_t* signs) noexcept nogil
# Power that the batteries of such a site may be charged with, and discharged whatever the meter shows, W; INFINITY once the
# sign is known.
cdef double sign_power_w(const sign_trials_t* signs, double nameplates_w) noexcept nogil

# What the moves since then say.
cdef uint32_t signs_found(const sign_trials_t* signs, bint sharp) noexcept nogil
