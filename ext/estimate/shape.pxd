# ext/estimate/shape.pxd: contents page of shape.pyx.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from tidegate.ext.estimate.estimate cimport LAGS, MEANS, METER_MODELS, SHAPE_AGES, SHAPE_ROWS, SMOOTHS, shapes_t
from tidegate.ext.estimate.pairing cimport LAG_NS

cdef extern from *:
    """
    #define SHAPE_NS 20000000u
    #define SHAPE_S 0.02
    static const double MEAN_S[MEANS] __attribute__((unused)) = {
        0.2, 0.3, 0.45, 0.67, 1.0, 1.5, 2.2, 3.3, 4.9, 7.1, 10.0};
    static const double SMOOTH_S[SMOOTHS] __attribute__((unused)) = {0.1, 0.17, 0.3, 0.52, 0.9, 1.6, 2.8};
    """
    const uint64_t SHAPE_NS
    const double SHAPE_S
    const double MEAN_S[MEANS]
    const double SMOOTH_S[SMOOTHS]


# Which of LAG_NS goes with a model.
cdef inline uint32_t model_lag(uint32_t model) noexcept nogil:
    return model if model < <uint32_t>LAGS else 4 * ((model - LAGS) % SHAPE_AGES) + 1


# Which average: 0..MEANS-1 a moving mean, from there on a first-order filter. Only for models from LAGS on.
cdef inline uint32_t model_kernel(uint32_t model) noexcept nogil:
    return (model - LAGS) // SHAPE_AGES


# How old on the average what such a meter shows is, s.
cdef inline double model_age_s(uint32_t model) noexcept nogil:
    cdef double age_s = <double>LAG_NS[model_lag(model)] * 1e-9
    cdef uint32_t kernel
    if model < <uint32_t>LAGS:
        return age_s
    kernel = model_kernel(model)
    return age_s + (0.5 * MEAN_S[kernel] if kernel < <uint32_t>MEANS else SMOOTH_S[kernel - MEANS])


# Takes a reading of the battery's power over; readings come in order of time.
cdef void shapes_add(shapes_t* shapes, uint64_t t_ns, double w) noexcept nogil

# What a meter of this model would show of the battery at a time, W.
cdef double model_w(const shapes_t* shapes, uint32_t model, uint64_t t_ns) noexcept nogil

# Mean over mean_s up to t_ns, W; 0 = the power at t_ns.
cdef double shape_mean_w(const shapes_t* shapes, uint64_t t_ns, double mean_s) noexcept nogil

# The same of every model, into w[METER_MODELS].
cdef void models_sweep(const shapes_t* shapes, uint64_t t_ns, double* w) noexcept nogil
