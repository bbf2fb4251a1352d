# ext/abi/copies.pxd: what Python takes out of the shared memory.
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.abi.image cimport point_t
from tidegate.ext.abi.shared cimport histogram_t


cdef class Picture:
    cdef readonly uint64_t number, cycle, t_ns  # number: of the ring; the image's is its cycle
    cdef readonly uint32_t n_points
    cdef readonly bytes raw


cdef class Histogram:
    cdef histogram_t h


cdef Picture picture_of(uint64_t number, uint64_t cycle, uint64_t t_ns, const point_t* rows, uint32_t n_points)
cdef Histogram histogram_of(const histogram_t* source)
