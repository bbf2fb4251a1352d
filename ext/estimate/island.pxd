# ext/estimate/island.pxd: contents page of island.pyx.
from libc.stdint cimport uint64_t

from tidegate.ext.abi.image cimport point_t
from tidegate.ext.abi.program cimport program_t
from tidegate.ext.estimate.estimate cimport estimate_state_t, plant_t

# Whether the grid is gone and what carries the site, as plant.island; only for a site with an island.
# 1 = plant's grid and net powers are those of the genset's own meter, and the grid meter's are not to be used.
cdef bint island_step(const program_t* program, point_t* image, estimate_state_t* state, plant_t* plant, int all_known,
                      uint64_t t_ns) noexcept nogil

# The transfer switch has left the grid: 1, it has not: 0, nobody knows: -1; a site without that contact: 0.
cdef int switched_away(const program_t* program, const point_t* image) noexcept nogil
