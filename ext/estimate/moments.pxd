# ext/estimate/moments.pxd: contents page of moments.pyx.
from libc.math cimport fabs
from libc.stdint cimport uint32_t

from tidegate.ext.estimate.estimate cimport LAGS, MEANS, moments_t
from tidegate.ext.estimate.pairing cimport LAG_NS
from tidegate.ext.estimate.shape cimport MEAN_S, SMOOTH_S, model_kernel

cdef extern from *:
    """
    #define MOMENTS_READINGS 4.0 /* an average twice as long shows an eighth of a move in one reading, a filter so long a fifth */
    """
    const double MOMENTS_READINGS

# One reading. battery_w: by how much the battery's power, paired at the age `best`, left its own slope since the reading
# before; grid_w: the same of what the meter shows.
cdef void moments_add(moments_t* m, double battery_w, double grid_w, double rounding_w, uint32_t best, double dt_s) noexcept nogil

# What was seen fades while the battery moves: a meter may begin to average.
cdef void moments_fade(moments_t* m, double dt_s) noexcept nogil

# So much of what was seen is kept, for something else may be true by now.
cdef void moments_keep(moments_t* m, double share) noexcept nogil

# Whether the meter is seen to show at once, by that age, what the battery does.
cdef bint shows_moments(const moments_t* m) noexcept nogil


# Whether that rules a model out: an average that would have shown little of those moves at once, or an age that puts them
# elsewhere.
cdef inline bint moments_against(const moments_t* m, uint32_t model) noexcept nogil:
    cdef uint32_t kernel
    cdef double off_s
    if model < <uint32_t>LAGS:
        off_s = fabs(<double>(LAG_NS[model] - LAG_NS[m.best]) * 1e-9)
    else:
        kernel = model_kernel(model)
        off_s = 0.5 * MEAN_S[kernel] if kernel < <uint32_t>MEANS else SMOOTH_S[kernel - MEANS]
    return off_s > MOMENTS_READINGS * m.dt_s and shows_moments(m)
