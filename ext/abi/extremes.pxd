# ext/abi/extremes.pxd: the smaller and the larger of two numbers, inline. Of a number and a NaN both are the number.
# fmin and fmax of the C library are calls on plain x86-64. These are none, and give the same bits.


cdef inline double fmax(double a, double b) noexcept nogil:
    return a if a > b or b != b else b


cdef inline double fmin(double a, double b) noexcept nogil:
    return a if a < b or b != b else b
