# ext/estimate/moments.pxd: contents page of moments.pyx.
from libc.stdint cimport uint32_t

from tidegate.ext.estimate.estimate cimport moments_t
from tidegate.ext.estimate.shape cimport MEAN_S, SMOOTH_S, model_kernel
from tidegate.ext.estimate.estimate cimport MEANS

cdef extern from *:
    """
    #define MOMENTS_READINGS 2.5 /* an average half as long shows a fifth of a move in one reading, a filter a third */
    """
    const double MOMENTS_READINGS

# One reading. battery_w: by how much the battery's power, paired at the age `best`, left its own slope since the reading
# before; grid_w: the same of what the meter shows.
cdef void moments_add(moments_t* m, double battery_w, double grid_w, double rounding_w, uint32_t best, double dt_s) noexcept nogil

# Whether the meter is seen to show at once, by that age, what the battery does.
cdef bint shows_moments(const moments_t* m) noexcept nogil


# Whether that rules an average out: it is so long that it would have shown little of those moves at once.
cdef inline bint is_too_long(const moments_t* m, uint32_t model) noexcept nogil:
    cdef uint32_t kernel = model_kernel(model)
    cdef double half_s = 0.5 * MEAN_S[kernel] if kernel < <uint32_t>MEANS else SMOOTH_S[kernel - MEANS]
    return half_s > MOMENTS_READINGS * m.dt_s and shows_moments(m)
