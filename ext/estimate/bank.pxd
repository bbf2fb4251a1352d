# ext/estimate/bank.pxd: several batteries behind one converter, as one.
from libc.stdint cimport uint64_t

from tidegate.ext.abi.image cimport point_t
from tidegate.ext.abi.program cimport program_t

# Fills the points of every unit that has several batteries from theirs, and how many of them are connected. After aging.
cdef void bank_step(const program_t* program, point_t* image, uint64_t t_ns) noexcept nogil
