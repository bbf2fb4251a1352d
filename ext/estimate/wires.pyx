"""Net power of the wires whose limits are held apart: the phases of the grid meter, and the circuits of sub-meters.

Each by its own reading and its own time, paired with what the batteries on it did then.
"""

from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.abi.image cimport believable, point_t
from tidegate.ext.abi.program cimport program_t
from tidegate.ext.abi.settings cimport *
from tidegate.ext.estimate.estimate cimport *
from tidegate.ext.estimate.interval cimport REREAD_NS
from tidegate.ext.estimate.pairing cimport pair


cdef inline bint is_new_sample(const point_t* reading, double* seen_w, uint64_t* used_t_ns, bint known) noexcept nogil:
    """1 and noted, unless this is the same sample read twice: equal values within REREAD_NS are."""
    if known and reading.value == seen_w[0] and reading.t_ns - used_t_ns[0] <= REREAD_NS:
        return 0
    seen_w[0] = reading.value
    used_t_ns[0] = reading.t_ns
    return 1


cdef void update_phases(const program_t* program, const point_t* image, estimate_state_t* state, plant_t* plant,
                        uint64_t t_ns) noexcept nogil:
    """Net power of each phase: its reading, and the battery's power of the same age by its share of this phase.

    By the phase's own stamp: a meter's phases are often polled apart from its sum.
    """
    cdef int phase, point
    cdef uint32_t bit
    cdef double[2] edges  # only imports are limited here: the upper one counts
    cdef double share
    cdef const control_params_t* params = &program.control
    cdef bint thirds = not params.phase_share[0] + params.phase_share[1] + params.phase_share[2] > 0.0
    plant.phases_ok = 0
    for phase in range(PHASES_MAX):
        point = program.site.grid_w_l[phase]
        bit = <uint32_t>1 << phase
        if not believable(image, point):
            state.phases_known &= ~bit
            continue
        plant.phases_ok |= bit
        if not is_new_sample(&image[point], &state.phase_seen_w[phase], &state.phase_t_ns[phase], state.phases_known & bit):
            continue
        share = 1.0 / 3.0 if thirds else params.phase_share[phase]
        if share > 0.0:
            edges[0] = edges[1] = plant.phase_net_w[phase] / share
            pair(program, state, <uint32_t>0xFFFFFFFF, image[point].value / share, edges, state.phases_known & bit,
                 image[point].t_ns, t_ns)
            plant.phase_net_w[phase] = share * edges[0]
        else:
            plant.phase_net_w[phase] = image[point].value
        state.phases_known |= bit


cdef void update_circuits(const program_t* program, const point_t* image, estimate_state_t* state, plant_t* plant,
                          uint64_t t_ns) noexcept nogil:
    """Net power of each sub-meter: its reading and the batteries behind it, of the same age."""
    cdef int circuit, point
    cdef double[2] edges
    cdef uint32_t bit
    plant.circuits_ok = 0
    for circuit in range(CIRCUITS_MAX):
        point = program.site.circuit_w[circuit]
        bit = <uint32_t>1 << circuit
        if not believable(image, point):
            state.circuits_known &= ~bit
            continue
        plant.circuits_ok |= bit
        if not is_new_sample(&image[point], &state.circuit_seen_w[circuit], &state.circuit_t_ns[circuit],
                             state.circuits_known & bit):
            continue
        edges[0] = edges[1] = plant.circuit_net_w[circuit]
        pair(program, state, <uint32_t>program.control.circuit_units[circuit], image[point].value, edges,
             state.circuits_known & bit, image[point].t_ns, t_ns)
        plant.circuit_net_w[circuit] = edges[0]
        state.circuits_known |= bit
