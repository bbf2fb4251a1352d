# ext/estimate/wires.pxd: contents page of wires.pyx.
from libc.stdint cimport uint64_t

from tidegate.ext.abi.image cimport point_t
from tidegate.ext.abi.program cimport program_t
from tidegate.ext.estimate.estimate cimport estimate_state_t, plant_t

# One cycle: what is new of the phases, and of the circuits.
cdef void update_phases(const program_t* program, const point_t* image, estimate_state_t* state, plant_t* plant,
                        uint64_t t_ns) noexcept nogil
cdef void update_circuits(const program_t* program, const point_t* image, estimate_state_t* state, plant_t* plant,
                          uint64_t t_ns) noexcept nogil
