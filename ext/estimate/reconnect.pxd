# ext/estimate/reconnect.pxd: contents page of reconnect.pyx.
from libc.stdint cimport uint64_t

from tidegate.ext.abi.image cimport point_t
from tidegate.ext.abi.program cimport program_t
from tidegate.ext.estimate.estimate cimport plant_t, reconnect_t

# What battery power may be since the grid came back, as plant.reconnect_w.
cdef void reconnect_step(const program_t* program, const point_t* image, reconnect_t* state, plant_t* plant,
                         uint64_t t_ns) noexcept nogil
