"""What meters that average make of the battery's power: moving means and first-order filters of it, at any age.

The power is kept in even rows of SHAPE_NS, so that each look is one step and not a search: a moving mean is the
difference of two rows of the integral, a filter's output a row of its own.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.estimate.estimate cimport *
from tidegate.ext.estimate.pairing cimport LAG_NS


cdef extern from *:
    """
    #define ROWS_MASK (SHAPE_ROWS - 1u)
    #define CATCH_UP_NS (SHAPE_ROWS * (uint64_t)SHAPE_NS) /* a gap longer than the rows is filled by its end */
    """
    const uint32_t ROWS_MASK
    const uint64_t CATCH_UP_NS


cdef void shapes_add(shapes_t* shapes, uint64_t t_ns, double w) noexcept nogil:
    """Rows up to t_ns on a straight line from the reading before. At most SHAPE_ROWS of them."""
    cdef uint32_t i, before, at
    cdef double row_w, slope, share
    if shapes.t_ns == 0 or t_ns > shapes.t_ns + CATCH_UP_NS:
        shapes.t_ns = t_ns - t_ns % SHAPE_NS
        shapes.head = 0
        shapes.count = 1
        shapes.w[0] = w
        shapes.integral_ws[0] = 0.0
        for i in range(<uint32_t>SMOOTHS):
            shapes.smooth_w[i][0] = w
        shapes.last_t_ns = t_ns
        shapes.last_w = w
        return
    if t_ns <= shapes.last_t_ns:
        return
    slope = (w - shapes.last_w) / <double>(t_ns - shapes.last_t_ns)
    while shapes.t_ns + SHAPE_NS <= t_ns:
        before = shapes.head
        at = (before + 1) & ROWS_MASK
        shapes.t_ns += SHAPE_NS
        row_w = w - slope * <double>(t_ns - shapes.t_ns) if shapes.t_ns > shapes.last_t_ns else shapes.last_w
        shapes.w[at] = row_w
        shapes.integral_ws[at] = shapes.integral_ws[before] + 0.5 * (shapes.w[before] + row_w) * SHAPE_S
        for i in range(<uint32_t>SMOOTHS):
            share = SHAPE_S / (SMOOTH_S[i] + 0.5 * SHAPE_S)
            shapes.smooth_w[i][at] = shapes.smooth_w[i][before] + share * (
                0.5 * (shapes.w[before] + row_w) - shapes.smooth_w[i][before])
        shapes.head = at
        if shapes.count < SHAPE_ROWS:
            shapes.count += 1
    shapes.last_t_ns = t_ns
    shapes.last_w = w


cdef inline double rows_back(const shapes_t* shapes, uint64_t t_ns, int64_t age_ns) noexcept nogil:
    """How many rows before the newest; negative after it."""
    return <double>(<int64_t>(shapes.t_ns - t_ns) + age_ns) * (1.0 / SHAPE_NS)


cdef inline double row(const shapes_t* shapes, const double* rows, double back) noexcept nogil:
    cdef uint32_t whole
    cdef double share
    if back <= 0.0:
        return rows[shapes.head]
    if back >= <double>(shapes.count - 1):
        return rows[(shapes.head - (shapes.count - 1)) & ROWS_MASK]
    whole = <uint32_t>back
    share = back - whole
    return rows[(shapes.head - whole) & ROWS_MASK] * (1.0 - share) + rows[(shapes.head - whole - 1) & ROWS_MASK] * share


cdef inline double integral(const shapes_t* shapes, double back) noexcept nogil:
    """Straight on beyond both ends of the rows."""
    cdef double ws = row(shapes, shapes.integral_ws, back), oldest
    if back < 0.0:
        return ws - shapes.last_w * back * SHAPE_S
    oldest = <double>(shapes.count - 1)
    if back > oldest:
        return ws - shapes.w[(shapes.head - (shapes.count - 1)) & ROWS_MASK] * (back - oldest) * SHAPE_S
    return ws


cdef inline double power(const shapes_t* shapes, double back) noexcept nogil:
    return shapes.last_w if back < 0.0 else row(shapes, shapes.w, back)


cdef double model_w(const shapes_t* shapes, uint32_t model, uint64_t t_ns) noexcept nogil:
    cdef double back = rows_back(shapes, t_ns, LAG_NS[model_lag(model)])
    cdef uint32_t kernel
    if shapes.t_ns == 0:
        return 0.0
    if model < <uint32_t>LAGS:
        return power(shapes, back)
    kernel = model_kernel(model)
    if kernel < <uint32_t>MEANS:
        return (integral(shapes, back) - integral(shapes, back + MEAN_S[kernel] / SHAPE_S)) / MEAN_S[kernel]
    return row(shapes, shapes.smooth_w[kernel - MEANS], back)


cdef double shape_mean_w(const shapes_t* shapes, uint64_t t_ns, double mean_s) noexcept nogil:
    cdef double back = rows_back(shapes, t_ns, 0)
    if shapes.t_ns == 0:
        return 0.0
    if mean_s <= 0.0:
        return power(shapes, back)
    return (integral(shapes, back) - integral(shapes, back + mean_s / SHAPE_S)) / mean_s


cdef void models_sweep(const shapes_t* shapes, uint64_t t_ns, double* w) noexcept nogil:
    cdef uint32_t i, kernel, at = LAGS
    cdef double[SHAPE_AGES] backs
    cdef double[SHAPE_AGES] newest_ws
    for i in range(<uint32_t>LAGS):
        w[i] = power(shapes, rows_back(shapes, t_ns, LAG_NS[i]))
    for i in range(<uint32_t>SHAPE_AGES):
        backs[i] = rows_back(shapes, t_ns, LAG_NS[4 * i + 1])
        newest_ws[i] = integral(shapes, backs[i])
    for kernel in range(<uint32_t>MEANS):
        for i in range(<uint32_t>SHAPE_AGES):
            w[at] = (newest_ws[i] - integral(shapes, backs[i] + MEAN_S[kernel] / SHAPE_S)) / MEAN_S[kernel]
            at += 1
    for kernel in range(<uint32_t>SMOOTHS):
        for i in range(<uint32_t>SHAPE_AGES):
            w[at] = row(shapes, shapes.smooth_w[kernel], backs[i])
            at += 1
