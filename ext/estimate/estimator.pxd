# ext/estimate/estimator.pxd: from readings of different ages to one picture of the plant.
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.estimate.estimate cimport estimate_state_t, plant_t
from tidegate.ext.abi.image cimport POINTS_MAX, UNITS_MAX, point_t
from tidegate.ext.abi.program cimport program_t
from tidegate.ext.safety.safety cimport gate_input_t, gate_verdict_t


# Ages every point of the device maps: good or held readings older than their row allows become stale.
cdef void image_age(const program_t* program, point_t* image, estimate_state_t* state, uint64_t t_ns) noexcept nogil

# Fills plant (units' envelope by gate_envelope from inputs[unit]), advances history, demand window and integrals,
# and writes the site's own points (grid, load, ess, pv, demand, integrals) into the image.
cdef void estimate_step(const program_t* program, point_t* image, const gate_input_t* inputs,
                        const gate_verdict_t* last, estimate_state_t* state, plant_t* plant,
                        uint64_t t_ns, uint64_t dt_ns) noexcept nogil


cdef class Estimate:
    cdef program_t* program
    cdef point_t* image
    cdef gate_input_t* inputs
    cdef gate_verdict_t* verdicts
    cdef estimate_state_t* state
    cdef plant_t plant
    cdef dict names
