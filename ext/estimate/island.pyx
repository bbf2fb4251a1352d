"""While the grid is gone: whether it is, what carries the site instead, whether the genset should run.

Three witnesses, the strongest first: the contact of a transfer switch; frequency and voltages of the grid meter; what
the converters say of their grid. A meter that is silent tells nothing, nor does a converter that has tripped beside a
meter that shows a grid.
"""

from libc.math cimport INFINITY, NAN, fabs, isfinite
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.abi.extremes cimport fmax
from tidegate.ext.abi.image cimport *
from tidegate.ext.abi.program cimport program_t
from tidegate.ext.abi.settings cimport PHASES_MAX, control_params_t
from tidegate.ext.estimate.estimate cimport *
from tidegate.ext.estimate.integral cimport integral_advance
from tidegate.ext.estimate.interval cimport REREAD_NS
from tidegate.ext.estimate.pairing cimport pair

cdef enum:  # what the witnesses come to
    WELL = 0
    UNKNOWN = 1
    LOST = 2


cdef double UNLOADED = 0.005  # of the genset's most power, for ...
cdef uint64_t UNLOADED_NS = 200000000


cdef inline bint lasted(uint64_t since_ns, uint64_t t_ns, double for_s) noexcept nogil:
    return <double>(t_ns - since_ns) * 1e-9 >= for_s


cdef int switched_away(const program_t* program, const point_t* image) noexcept nogil:
    cdef int point = program.site.island
    if program.control.island == 0.0 or point < 0:
        return 0
    if not believable(image, point):
        return -1
    return 1 if image[point].value != 0.0 else 0


cdef struct witness_t:
    uint32_t seen     # readings that say something
    uint64_t lost_ns  # stamp of the newest one that says the grid is gone


cdef inline int look_at(const point_t* image, int point, double lo, double hi, witness_t* witness, uint64_t t_ns) noexcept nogil:
    if point < 0 or not lo < hi:
        return WELL
    if image[point].quality == QUALITY_INVALID:  # the meter answers, and no grid has such a value
        witness.lost_ns = t_ns
        return LOST
    if not believable(image, point):
        return UNKNOWN
    witness.seen += 1
    if lo <= image[point].value <= hi:
        return WELL
    witness.lost_ns = max(witness.lost_ns, image[point].t_ns)
    return LOST


cdef int converters_find(const program_t* program, const point_t* image, witness_t* witness) noexcept nogil:
    cdef uint32_t i, well = 0
    cdef int point
    for i in range(program.n_units):
        point = program.units[i].grid_ok
        if believable(image, point):
            if image[point].value < 0.5:
                witness.lost_ns = max(witness.lost_ns, image[point].t_ns)
                return LOST
            well += 1
    return WELL if well else UNKNOWN


cdef int grid_found(const program_t* program, const point_t* image, witness_t* witness, uint64_t t_ns) noexcept nogil:
    cdef const control_params_t* params = &program.control
    cdef int phase, away = switched_away(program, image)
    cdef double v_max = params.reconnect_v_max if params.reconnect_v_max > 0.0 else INFINITY
    cdef int found = look_at(image, program.site.grid_hz, params.reconnect_hz_min, params.reconnect_hz_max,
                              witness, t_ns)
    if away > 0:
        witness.lost_ns = image[program.site.island].t_ns
        return LOST
    for phase in range(PHASES_MAX):
        found = max(found, look_at(image, program.site.grid_v[phase], fmax(params.reconnect_v_min, params.island_v_min),
                                   v_max, witness, t_ns))
    if found != LOST and (witness.seen == 0 or found == UNKNOWN):
        found = converters_find(program, image, witness)
    return UNKNOWN if found == WELL and away < 0 else found


cdef bint genset_carries(const program_t* program, const point_t* image, island_t* island, uint64_t t_ns) noexcept nogil:
    """Whether there is a voltage behind the genset, its power is known, and it is the site that takes it."""
    cdef const control_params_t* params = &program.control
    cdef witness_t witness
    cdef int phase, point = program.site.genset_w
    witness.seen = 0
    witness.lost_ns = 0
    if point < 0:
        if switched_away(program, image) <= 0 or not believable(image, program.site.grid_w):
            return False
        for phase in range(PHASES_MAX):
            if look_at(image, program.site.grid_v[phase], params.island_v_min, INFINITY, &witness, t_ns) != WELL:
                return False
        if look_at(image, program.site.grid_hz, params.genset_hz_min, params.genset_hz_max, &witness, t_ns) != WELL:
            return False
    else:
        if not believable(image, point):
            return False
        if look_at(image, program.site.genset_hz, params.genset_hz_min, params.genset_hz_max, &witness, t_ns) != WELL:
            return False
        # An engine that gives nothing whatever the battery does runs on by itself: the switch has left it, or has not come.
        if fabs(image[point].value) > UNLOADED * params.genset_w_max:
            island.loaded_t_ns = image[point].t_ns
        if not image[point].t_ns < island.loaded_t_ns + UNLOADED_NS:
            return False
    return converters_find(program, image, &witness) != LOST


cdef double charge_of_units(const plant_t* plant) noexcept nogil:
    """Mean state of charge by energy, of the units that say theirs; NaN where none does."""
    cdef double soc = 0.0, energy_wh = 0.0
    cdef uint32_t unit
    for unit in range(plant.n_units):
        if isfinite(plant.units[unit].soc):
            soc += plant.units[unit].soc * fmax(plant.units[unit].energy_wh, 1.0)
            energy_wh += fmax(plant.units[unit].energy_wh, 1.0)
    return soc / energy_wh if energy_wh > 0.0 else NAN


cdef void ask_genset(const control_params_t* params, island_t* island, uint64_t t_ns) noexcept nogil:
    """Converters that follow give nothing without a genset. Those that carry the site go by the state of charge.

    Once asked for it runs its least time, also when the grid is back, and once let go it rests its least time.
    """
    cdef uint32_t wanted = island.genset_wanted
    if not params.genset_w_max > 0.0 or not island.on:
        wanted = 0
    elif not params.island_forming > 0.0:
        wanted = 1
    elif not island.soc >= params.genset_start_soc:  # a state of charge that nobody knows is none
        wanted = 1
    elif island.soc >= params.genset_stop_soc:
        wanted = 0
    if wanted == island.genset_wanted:
        return
    if island.genset_t_ns and not lasted(island.genset_t_ns, t_ns,
                                         params.genset_run_s_min if island.genset_wanted else params.genset_off_s_min):
        return
    island.genset_wanted = wanted
    island.genset_t_ns = t_ns


cdef uint32_t carried_by(const program_t* program, const point_t* image, island_t* island, uint64_t t_ns) noexcept nogil:
    if not island.on:
        return ISLAND_GRID
    if island.well_t_ns:  # the grid is back, and not yet for long: by whose limits, nobody knows
        return ISLAND_DARK
    if program.control.island_forming > 0.0:
        return ISLAND_FORMING
    if genset_carries(program, image, island, t_ns):
        return ISLAND_GENSET
    if island.genset_wanted and lasted(island.genset_t_ns, t_ns, program.control.genset_start_s):
        return ISLAND_MISSING
    return ISLAND_DARK


cdef bint island_step(const program_t* program, point_t* image, estimate_state_t* state, plant_t* plant, int all_known,
                      uint64_t t_ns) noexcept nogil:
    cdef const control_params_t* params = &program.control
    cdef island_t* island = &state.island
    cdef witness_t witness
    cdef int found
    cdef uint32_t was_on = island.on
    witness.seen = 0
    witness.lost_ns = 0
    found = grid_found(program, image, &witness, t_ns)
    if found == LOST:
        island.well_t_ns = 0
        if island.lost_t_ns == 0:
            island.lost_t_ns = witness.lost_ns
        # By the readings' own stamps: one that is read once in a while is one, however long it stands.
        if not island.on and witness.lost_ns > island.lost_t_ns and lasted(island.lost_t_ns, witness.lost_ns, params.island_loss_s):
            island.on = 1
            island.since_t_ns = t_ns
    elif found == WELL and island.on:
        if island.well_t_ns == 0:
            island.well_t_ns = t_ns
        if lasted(island.well_t_ns, t_ns, params.island_return_s):
            island.on = 0
            island.well_t_ns = island.lost_t_ns = 0
    else:
        island.well_t_ns = 0
        if not island.on:
            island.lost_t_ns = 0
    island.soc = charge_of_units(plant)
    ask_genset(params, island, t_ns)
    island.state = plant.island = carried_by(program, image, island, t_ns)
    if program.site.genset_w < 0:
        return False
    if island.on != was_on:  # two meters, of which neither goes on from the other
        state.net_known = island.net_known = 0
        state.grid_t_ns = state.load_t_ns = state.demand_t_ns = 0
    if not island.on:
        return False
    island_grid(program, image, state, plant, all_known, t_ns)
    return True


cdef void island_grid(const program_t* program, point_t* image, estimate_state_t* state, plant_t* plant, int all_known,
                      uint64_t t_ns) noexcept nogil:
    """The genset's own meter in the grid meter's place; what that one shows is written down and teaches nothing."""
    cdef int point = program.site.grid_w
    cdef island_t* island = &state.island
    cdef double[2] edges
    cdef const point_t* reading = &image[program.site.genset_w]
    plant.phases_ok = 0
    state.phases_known = 0
    state.demand_t_ns = 0
    if believable(image, point):
        if image[point].t_ns != state.grid_t_ns:
            integral_advance(&state.grid, &state.grid_t_ns, &state.grid_w, image[point].value, image[point].t_ns)
            point_set(image, SITE_GRID_W, image[point].value, image[point].t_ns)
    else:
        state.grid_t_ns = 0
        point_set_stale(image, SITE_GRID_W)
    plant.grid_new = 0
    if not believable(image, program.site.genset_w):
        plant.grid_ok = plant.load_ok = 0
        island.net_known = 0
        state.load_t_ns = 0
        point_set_stale(image, SITE_LOAD_W)
        return
    plant.grid_new = plant.grid_t_ns != reading.t_ns
    plant.grid_ok = plant.load_ok = 1
    plant.grid_w = reading.value
    plant.grid_t_ns = reading.t_ns
    if not island.net_known or reading.value != island.seen_w or reading.t_ns > island.seen_t_ns + REREAD_NS:
        edges[0] = island.net_w
        edges[1] = island.net_lo_w
        pair(program, state, <uint32_t>0xFFFFFFFF, reading.value, edges, island.net_known, reading.t_ns, t_ns)
        island.net_w = edges[0]
        island.net_lo_w = edges[1]
        island.net_known = 1
        island.seen_w = reading.value
        island.seen_t_ns = reading.t_ns
    plant.net_w = island.net_w
    plant.net_lo_w = island.net_lo_w
    plant.load_w = plant.net_w + plant.pv_w
    if all_known and (program.site.pv_w < 0 or believable(image, program.site.pv_w)):
        if plant.grid_new:
            integral_advance(&state.load, &state.load_t_ns, &state.load_w, plant.load_w, reading.t_ns)
            point_set(image, SITE_LOAD_W, plant.load_w, reading.t_ns)
    else:
        state.load_t_ns = 0
        point_set_stale(image, SITE_LOAD_W)
