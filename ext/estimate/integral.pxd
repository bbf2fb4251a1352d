# ext/estimate/integral.pxd: monotone integrals of a power, import and export told apart. All inline: used every cycle.
from libc.math cimport INFINITY, NAN, isfinite
from libc.stdint cimport uint64_t

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.image cimport integral_t


# Trapezoid between two readings dt_s apart, split at the zero crossing.
cdef inline void integral_add(integral_t* integral, double from_w, double to_w, double dt_s) noexcept nogil:
    cdef double part
    if not dt_s > 0.0:
        return
    if from_w >= 0.0 and to_w >= 0.0:
        integral.in_ws += 0.5 * (from_w + to_w) * dt_s
    elif from_w <= 0.0 and to_w <= 0.0:
        integral.out_ws -= 0.5 * (from_w + to_w) * dt_s
    else:
        part = from_w / (from_w - to_w) * dt_s  # until the zero crossing
        if from_w > 0.0:
            integral.in_ws += 0.5 * from_w * part
            integral.out_ws -= 0.5 * to_w * (dt_s - part)
        else:
            integral.out_ws -= 0.5 * from_w * part
            integral.in_ws += 0.5 * to_w * (dt_s - part)
    integral.covered_s += dt_s


cdef inline void integral_advance(integral_t* integral, uint64_t* at_ns, double* at_w, double w, uint64_t t_ns) noexcept nogil:
    """Take the integral to a new reading, or start again there after a gap."""
    if at_ns[0] and t_ns > at_ns[0]:
        integral_add(integral, at_w[0], w, <double>(t_ns - at_ns[0]) * 1e-9)
    integral.min_w = fmin(integral.min_w, w)
    integral.max_w = fmax(integral.max_w, w)
    at_ns[0] = t_ns
    at_w[0] = w


# A new second begins: its extremes start afresh, those of the last one are kept.
cdef inline void integral_roll_second(integral_t* integral, uint64_t known_ns, double w) noexcept nogil:
    integral.last_min_w = integral.min_w if isfinite(integral.min_w) else NAN
    integral.last_max_w = integral.max_w if isfinite(integral.max_w) else NAN
    integral.min_w = w if known_ns else INFINITY
    integral.max_w = w if known_ns else -INFINITY
