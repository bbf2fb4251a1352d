"""After a loss of the grid: no power for a time, then power that rises slowly, as grid codes ask.

The grid is lost where the meter's frequency or a voltage is out of its band, where a converter says so, and where the meter and
every converter fall silent at once. So it is when the core starts: what was before is not known. It is back when all
of these are well; a reading that is missing then tells nothing, and the wait begins when it has come.
"""

from libc.math cimport INFINITY
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.abi.extremes cimport fmax
from tidegate.ext.abi.image cimport *
from tidegate.ext.abi.program cimport program_t
from tidegate.ext.abi.settings cimport PHASES_MAX, control_params_t
from tidegate.ext.abi.shared cimport RECONNECT_LOST, RECONNECT_NONE, RECONNECT_RISING, RECONNECT_WAITING
from tidegate.ext.estimate.estimate cimport plant_t, reconnect_t
from tidegate.ext.estimate.island cimport switched_away

cdef enum:  # what a look at the grid finds
    WELL = 0
    UNKNOWN = 1
    LOST = 2


cdef inline int look_at(const point_t* image, int point, double lo, double hi) noexcept nogil:
    """WELL where there is nothing to look at."""
    if point < 0 or not lo < hi:
        return WELL
    if image[point].quality == QUALITY_INVALID:  # the meter answers, and no grid has such a value
        return LOST
    if not believable(image, point):
        return UNKNOWN
    return WELL if lo <= image[point].value <= hi else LOST


cdef int grid_look(const program_t* program, const point_t* image, const plant_t* plant) noexcept nogil:
    cdef const control_params_t* params = &program.control
    cdef int worst = look_at(image, program.site.grid_hz, params.reconnect_hz_min, params.reconnect_hz_max), point
    cdef int phase
    cdef uint32_t i, silent = 0
    cdef int away = switched_away(program, image)
    if away != 0:  # what the meter shows behind the switch is another source's
        return LOST if away > 0 else UNKNOWN
    for phase in range(PHASES_MAX):
        worst = max(worst, look_at(image, program.site.grid_v[phase], params.reconnect_v_min, params.reconnect_v_max))
    for i in range(program.n_units):
        point = program.units[i].grid_ok
        if point >= 0:
            worst = max(worst, look_at(image, point, 0.5, 1.5))
        point = program.units[i].pcs_w
        if point >= 0 and not believable(image, point):
            silent += 1
    if not plant.grid_ok:
        worst = max(worst, LOST if program.n_units and silent == program.n_units else UNKNOWN)
    return worst


cdef void reconnect_step(const program_t* program, const point_t* image, reconnect_t* state, plant_t* plant,
                         uint64_t t_ns) noexcept nogil:
    cdef const control_params_t* params = &program.control
    cdef double full_w = 0.0, since_s
    cdef uint32_t i
    cdef int found
    plant.reconnect_w = INFINITY
    state.wait_s = 0.0
    state.power_w = INFINITY
    if not (params.reconnect_wait_s > 0.0 or params.reconnect_w_per_s > 0.0):
        return
    found = grid_look(program, image, plant)
    if not state.started or found == LOST:
        state.started = 1
        state.state = RECONNECT_LOST
        state.good_t_ns = 0
    if state.state == RECONNECT_NONE:
        return
    if found == UNKNOWN and state.state != RECONNECT_RISING:
        state.state = RECONNECT_LOST
        state.good_t_ns = 0
    if found != WELL and state.good_t_ns == 0:
        state.wait_s = params.reconnect_wait_s
        state.power_w = plant.reconnect_w = 0.0
        return
    if state.good_t_ns == 0:
        state.good_t_ns = t_ns
    since_s = <double>(t_ns - state.good_t_ns) * 1e-9
    for i in range(program.n_units):
        full_w += fmax(program.units[i].gate.charge_w_max, program.units[i].gate.discharge_w_max)
    if since_s < params.reconnect_wait_s:
        state.state = RECONNECT_WAITING
        state.wait_s = params.reconnect_wait_s - since_s
        state.power_w = 0.0
    else:
        state.state = RECONNECT_RISING
        state.power_w = (since_s - params.reconnect_wait_s) * params.reconnect_w_per_s
        if not params.reconnect_w_per_s > 0.0 or state.power_w >= full_w:
            state.state = RECONNECT_NONE
            state.power_w = INFINITY
    plant.reconnect_w = state.power_w
