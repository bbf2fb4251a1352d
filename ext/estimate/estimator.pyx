"""From readings of different ages to one picture of the plant.

The meter's reading tells the grid's power some time ago, the PCS's reading the battery's power some other time ago.
Added as they come they would show a load that is not there whenever the battery moves, and a control that believes it
hunts. So the battery's power is kept for a while, and each grid reading is paired with what the battery did *then*
(pairing.pyx).
"""

from libc.math cimport INFINITY, NAN, isfinite, fabs
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.settings cimport *
from tidegate.ext.estimate.estimate cimport *
from tidegate.ext.estimate.clock cimport clock_set, slices_add, window_began, window_watch
from tidegate.ext.estimate.demand cimport demand_advance, demand_sub_ns, demand_roll, demand_view, learn_register
from tidegate.ext.safety.safety cimport LIMIT_TRIPPED, gate_limits_t, REACTION_DERATE, REACTION_RAMP_ZERO, gate_envelope
from tidegate.ext.abi.image cimport *
from tidegate.ext.estimate.integral cimport integral_advance, integral_roll_second
from tidegate.ext.estimate.island cimport island_step
from tidegate.ext.estimate.interval cimport INTERVAL_SLOW_S, REREAD_NS, learn_interval, reread_ns, shown_seldom
from tidegate.ext.estimate.lag cimport lag_believe, lag_gap, lag_measure, lag_repeated, lags_of
from tidegate.ext.estimate.meter_sign cimport sign_power_w
from tidegate.ext.estimate.pairing cimport *
from tidegate.ext.estimate.reconnect cimport reconnect_step
from tidegate.ext.estimate.response cimport response_told
from tidegate.ext.estimate.shape cimport shapes_add
from tidegate.ext.estimate.wires cimport update_circuits, update_phases
from tidegate.ext.abi.program cimport unit_row_t


cdef extern from *:
    """
    #define AGE_SCAN_NS 8000000u       /* points that have just turned good are looked at again this often */
    #define SAME_SHARE 0.03            /* of the nameplates: a battery that has moved so far, */
    #define SAME_MOST_NS 15000000000u  /* no meter that is used shows something new more seldom */
    #define SAME_DIGITS 8.0            /* ... and by so many of the meter's digits, shows */
    #define ESS_INTERVAL_S 0.5         /* a converter's power that is older has stood still */
    _Static_assert(sizeof(gate_input_t) <= sizeof(((unit_memory_t *)0)->envelope_key), "make envelope_key larger");
    """
    const uint64_t AGE_SCAN_NS, SAME_MOST_NS
    const double ESS_INTERVAL_S, SAME_SHARE, SAME_DIGITS


# ---------------------------------------------------------------- age


cdef void image_age(const program_t* program, point_t* image, estimate_state_t* state, uint64_t t_ns) noexcept nogil:
    """Turn what is too old into stale. Between two scans nothing can become due: the earliest of all is kept."""
    cdef uint32_t i
    cdef uint64_t due, age_max_ns
    if t_ns < state.age_due_ns:
        return
    due = t_ns + AGE_SCAN_NS
    for i in range(SITE_POINTS + program.n_units * UNIT_POINTS, program.n_points):
        age_max_ns = program.points[i].age_max_ns
        if age_max_ns == 0 or (image[i].quality != QUALITY_GOOD and image[i].quality != QUALITY_HELD):
            continue
        if t_ns > image[i].t_ns + age_max_ns:
            image[i].quality = QUALITY_STALE
        elif image[i].t_ns + age_max_ns < due:
            due = image[i].t_ns + age_max_ns + 1
    state.age_due_ns = due


# ---------------------------------------------------------------- one cycle


cdef void points_set_integral(point_t* image, int first, const integral_t* integral, uint64_t t_ns) noexcept nogil:
    point_set(image, first, integral.in_ws, t_ns)
    point_set(image, first + 1, integral.out_ws, t_ns)
    point_set(image, first + 2, integral.covered_s, t_ns)


cdef void points_set_extremes(point_t* image, int first, const integral_t* integral, uint64_t t_ns) noexcept nogil:
    if integral.last_min_w <= integral.last_max_w:
        point_set(image, first, integral.last_min_w, t_ns)
        point_set(image, first + 1, integral.last_max_w, t_ns)
    else:
        point_set_stale(image, first)
        point_set_stale(image, first + 1)


cdef void start(const control_params_t* params, estimate_state_t* state, uint64_t t_ns) noexcept nogil:
    state.second = t_ns // 1000000000u + 1
    state.register_gain = 1.0
    state.lag_hi = lags_of(params, state) - 1
    state.age_lo_s = state.likely_lo_s = <double>LAG_NS[0] * 1e-9
    state.age_hi_s = state.likely_hi_s = <double>LAG_NS[state.lag_hi] * 1e-9
    state.lags.open_s = state.age_hi_s - state.age_lo_s
    lag_believe(params, state)
    integral_roll_second(&state.grid, 0, 0.0)
    integral_roll_second(&state.load, 0, 0.0)
    integral_roll_second(&state.ess, 0, 0.0)
    integral_roll_second(&state.pv, 0, 0.0)


cdef void estimate_step(const program_t* program, point_t* image, const gate_input_t* inputs,
                        const gate_verdict_t* last, estimate_state_t* state, plant_t* plant,
                        uint64_t t_ns, uint64_t dt_ns) noexcept nogil:
    cdef int ess_new, all_known
    if state.second == 0:
        start(&program.control, state, t_ns)
    plant.n_units = program.n_units
    ess_new = update_units(program, image, inputs, last, state, plant, t_ns, dt_ns, &all_known)
    if ess_new:
        update_ess(program, image, state, plant, all_known)
    elif not all_known:
        point_set_stale(image, SITE_ESS_W)
        state.ess_t_ns = 0
    update_pv(program, image, state, plant)
    if program.control.island > 0.0 and island_step(program, image, state, plant, all_known, t_ns):
        update_circuits(program, image, state, plant, t_ns)
    else:
        update_grid(program, image, state, plant, all_known, t_ns)
    reconnect_step(program, image, &state.reconnect, plant, t_ns)
    plant.unproven_w = INFINITY
    if state.models.answer == ANSWER_UNPROVEN and not plant.island:
        plant.unproven_w = sign_power_w(&state.models.signs, nameplates(program))
    window_watch(program, image, state, t_ns)
    if program.control.demand_w_max > 0.0 or plant.demand_windows == 0 or plant.grid_new:
        if state.demand_started:
            demand_view(program, image, state, plant, t_ns)
    if t_ns >= state.second * 1000000000u:
        close_second(program, image, state, plant, t_ns)


cdef int update_units(const program_t* program, const point_t* image, const gate_input_t* inputs,
                      const gate_verdict_t* last, estimate_state_t* state, plant_t* plant, uint64_t t_ns,
                      uint64_t dt_ns, int* all_known) noexcept nogil:
    """Newest readings and envelopes of the units; 1 if any power is new."""
    cdef uint32_t unit
    cdef int new = 0, point
    cdef unit_memory_t* m
    cdef unit_view_t* view
    cdef const unit_row_t* row
    cdef uint64_t taken_ns
    cdef double ess_w = 0.0
    all_known[0] = 1
    for unit in range(program.n_units):
        row = &program.units[unit]
        view = &plant.units[unit]
        m = &state.units[unit]
        point = row.pcs_w
        view.ess_new = 0
        view.setpoint_w = last[unit].setpoint_w
        if view.setpoint_w != m.setpoint_w:
            m.setpoint_old_w = m.setpoint_w
            m.setpoint_w = view.setpoint_w
            m.setpoint_t_ns = t_ns
            state.setpoint_t_ns = t_ns
            response_told(m, view.setpoint_w, <double>max(row.gate.charge_w_max, row.gate.discharge_w_max),
                          time_before(t_ns, <int64_t>dt_ns))  # in the cycle before
        if not believable(image, point):
            if m.known:
                m.known = 0
                m.history.count = 0  # what it does in the dark is not interpolated later
                m.response.trusted = m.response.good = 0
                new = 1
            all_known[0] = 0
        else:
            if image[point].t_ns != m.seen_t_ns or not m.known:
                view.ess_w = image[point].value
                taken_ns = measured_ns(state, &m.history, view.ess_w, m.response.trusted and m.response.close, m.seen_t_ns, image[point].t_ns)
                if m.known:
                    state.lags.ess_poll_s += (<double>(image[point].t_ns - m.seen_t_ns) * 1e-9 - state.lags.ess_poll_s) * 0.1
                m.known = 1
                m.seen_t_ns = image[point].t_ns
                view.ess_new = 1
                history_fill_unit(m, taken_ns, view.ess_w)
                history_add(&m.history, taken_ns, view.ess_w, HISTORY_SPACING_NS)
                new = 1
            ess_w += view.ess_w
        # A unit that the gate holds at nothing takes no part: the others take over in this cycle.
        view.available = m.known and last[unit].reaction < REACTION_RAMP_ZERO and not last[unit].limit_bits & LIMIT_TRIPPED
        update_envelope(row, &inputs[unit], &last[unit], m, view)
        view.soc = image[row.soc].value if believable(image, row.soc) else NAN
        view.energy_wh = row.energy_wh
    plant.ess_w = ess_w
    return new


cdef void update_envelope(const unit_row_t* row, const gate_input_t* input, const gate_verdict_t* last,
                          unit_memory_t* m, unit_view_t* view) noexcept nogil:
    """The gate's envelope, computed again only when one of its inputs changed."""
    cdef gate_input_t key
    cdef uint32_t bits
    memcpy(&key, input, sizeof(key))
    key.request_w = 0
    key.dt_us = 0
    key.ack = 0
    key.arm = 0
    key.faults.lo = key.faults.hi = 0
    key.ess_w = 0
    if not m.envelope_known or memcmp(&key, m.envelope_key, sizeof(key)) != 0:
        memcpy(m.envelope_key, &key, sizeof(key))
        m.envelope_known = 1
        gate_envelope(&row.gate, input, &m.envelope_lo_w, &m.envelope_hi_w, &bits)
    view.envelope_lo_w = m.envelope_lo_w
    view.envelope_hi_w = m.envelope_hi_w
    if last.reaction == REACTION_DERATE:
        view.envelope_lo_w = fmax(view.envelope_lo_w, last.envelope_lo_w)
        view.envelope_hi_w = fmin(view.envelope_hi_w, last.envelope_hi_w)


cdef inline uint64_t measured_ns(const estimate_state_t* state, const history_t* h, double w, bint known, uint64_t before_ns,
                                 uint64_t t_ns) noexcept nogil:
    """When a power that was read at t_ns, and before that at before_ns, was measured.

    One that is the same as before may be as old as the converter measures anew; one that is not, where it is read more
    often than that, half way between the two. A converter that jumps tells nothing of how often that is, unless its
    step response is known.
    """
    cdef int64_t interval_ns = <int64_t>(state.lags.ess_interval.interval_s * 1e9)
    if h.count == 0 or not (state.lags.ess_interval.alike or known):
        return t_ns
    if w == h.w[h.head]:
        return time_before(t_ns, interval_ns)
    return t_ns - (t_ns - before_ns) // 2 if before_ns < t_ns and 3 * <int64_t>(t_ns - before_ns) < 2 * interval_ns else t_ns


cdef void update_ess(const program_t* program, point_t* image, estimate_state_t* state, plant_t* plant,
                     int all_known) noexcept nogil:
    """Total battery power: history for the latency, integral and point."""
    cdef uint64_t newest_ns = 0, taken_ns
    cdef uint32_t unit
    cdef history_t* h = &state.total
    for unit in range(program.n_units):
        if state.units[unit].known and state.units[unit].seen_t_ns > newest_ns:
            newest_ns = state.units[unit].seen_t_ns
    if h.count and fabs(plant.ess_w - h.w[h.head]) > 0.25 * MOTION_W:
        if newest_ns > state.moved_t_ns:
            learn_interval(&state.lags.ess_interval, fmin(<double>(newest_ns - state.moved_t_ns) * 1e-9, ESS_INTERVAL_S))
        state.moved_t_ns = newest_ns
    taken_ns = measured_ns(state, h, plant.ess_w, state.ess_filled, state.ess_t_ns, newest_ns)
    history_fill_total(program, state, taken_ns)
    history_add(h, taken_ns, plant.ess_w, HISTORY_SPACING_NS)
    shapes_add(&state.shapes, taken_ns, plant.ess_w)
    if not all_known:
        point_set_stale(image, SITE_ESS_W)
        state.ess_t_ns = 0
        return
    if newest_ns > state.ess_t_ns:
        integral_advance(&state.ess, &state.ess_t_ns, &state.ess_w, plant.ess_w, newest_ns)
        point_set(image, SITE_ESS_W, plant.ess_w, newest_ns)
        points_set_integral(image, SITE_ESS_DISCHARGED_WS, &state.ess, newest_ns)


cdef void update_pv(const program_t* program, point_t* image, estimate_state_t* state, plant_t* plant) noexcept nogil:
    cdef int point = program.site.pv_w
    if point < 0:
        plant.pv_w = 0.0
        return
    if not believable(image, point):
        point_set_stale(image, SITE_PV_W)
        state.pv_t_ns = 0
        return
    if image[point].t_ns != state.pv_t_ns:
        plant.pv_w = image[point].value
        integral_advance(&state.pv, &state.pv_t_ns, &state.pv_w, plant.pv_w, image[point].t_ns)
        point_set(image, SITE_PV_W, plant.pv_w, image[point].t_ns)
        points_set_integral(image, SITE_PV_IN_WS, &state.pv, image[point].t_ns)


cdef bint is_same_sample(const program_t* program, estimate_state_t* state, double grid_w, uint64_t sample_ns) noexcept nogil:
    """A value that stands to the digit though the battery's move should show by now has not been measured anew.

    A meter that shows something new more seldom than it did, up to the slowest there are, would have the battery answer one value again and again.
    """
    cdef double young_w = history_at(&state.total, time_before(sample_ns, <int64_t>(state.age_lo_s * 1e9)))
    cdef double old_w = history_at(&state.total, time_before(sample_ns, <int64_t>(state.age_hi_s * 1e9)))
    cdef double far_w
    if not state.net_known or grid_w != state.grid_used_w:
        state.grid_ess_lo_w = fmin(young_w, old_w)
        state.grid_ess_hi_w = fmax(young_w, old_w)
        return False
    if state.lags.interval.interval_s > INTERVAL_SLOW_S or sample_ns > state.grid_changed_t_ns + SAME_MOST_NS:
        return False
    far_w = fmax(SAME_SHARE * nameplates(program), SAME_DIGITS * state.lags.resolution_w)
    if fmin(young_w, old_w) > state.grid_ess_hi_w + far_w or fmax(young_w, old_w) < state.grid_ess_lo_w - far_w:
        state.same_t_ns = sample_ns
        return True
    return False


cdef void update_grid(const program_t* program, point_t* image, estimate_state_t* state, plant_t* plant, int all_known,
                      uint64_t t_ns) noexcept nogil:
    cdef int point = program.site.grid_w
    cdef double grid_w, apart_s
    cdef double[2] edges
    cdef uint64_t sample_ns
    plant.grid_new = 0
    if not believable(image, point):
        if plant.grid_ok:
            point_set_stale(image, SITE_GRID_W)
            point_set_stale(image, SITE_LOAD_W)
        plant.grid_ok = 0
        plant.load_ok = 0
        plant.phases_ok = 0
        plant.circuits_ok = 0
        state.phases_known = 0
        state.circuits_known = 0
        state.net_known = 0
        state.grid_t_ns = 0
        state.load_t_ns = 0
        state.demand_t_ns = 0
        return
    plant.grid_ok = 1
    sample_ns = image[point].t_ns
    update_phases(program, image, state, plant, t_ns)
    update_circuits(program, image, state, plant, t_ns)
    if sample_ns == state.grid_seen_t_ns and state.net_known:
        if not all_known:
            point_set_stale(image, SITE_LOAD_W)
            state.load_t_ns = 0
        return

    if state.net_known and sample_ns > state.grid_seen_t_ns:
        apart_s = <double>(sample_ns - state.grid_seen_t_ns) * 1e-9
        state.lags.poll_s += (apart_s - state.lags.poll_s) * (0.1 if state.lags.poll_s > 0.0 else 1.0)
    state.grid_seen_t_ns = sample_ns
    grid_w = image[point].value
    plant.grid_new = 1
    plant.grid_w = grid_w
    plant.grid_t_ns = sample_ns
    # The same value again is the same sample read twice, unless nothing at all has changed for long.
    if not state.net_known or grid_w != state.grid_used_w or sample_ns - state.grid_used_t_ns > reread_ns(state):
        if state.net_known:
            if grid_w != state.grid_used_w:
                learn_interval(&state.lags.interval, <double>(sample_ns - state.grid_changed_t_ns) * 1e-9)
                state.grid_changed_t_ns = sample_ns
                if shown_seldom(&state.lags.interval):
                    lag_repeated(&program.control, state)
            lag_measure(&program.control, state, grid_w, sample_ns)
        else:
            lag_gap(state)
            state.grid_changed_t_ns = sample_ns
        if not is_same_sample(program, state, grid_w, sample_ns):
            edges[0] = plant.net_w
            edges[1] = plant.net_lo_w
            pair(program, state, <uint32_t>0xFFFFFFFF, grid_w, edges, state.net_known, sample_ns, t_ns)
            plant.net_w = edges[0]
            plant.net_lo_w = edges[1]
        state.net_known = 1
        state.grid_used_w = grid_w
        state.grid_used_t_ns = sample_ns
        plant.paired = state.age_known
    plant.load_ok = 1
    plant.load_w = plant.net_w + plant.pv_w

    if state.grid_t_ns and sample_ns > state.grid_t_ns and not plant.island:  # no genset's power is the grid's
        demand_advance(&program.control, state, state.grid_w, grid_w, state.grid_t_ns, sample_ns)
        slices_add(state, state.grid_w, grid_w, state.grid_t_ns, sample_ns)
    state.demand_t_ns = sample_ns
    if not state.demand_started:
        demand_roll(&program.control, state,
                    <uint64_t>(<int64_t>sample_ns + state.utc_offset_ns) // demand_sub_ns(&program.control))
    integral_advance(&state.grid, &state.grid_t_ns, &state.grid_w, grid_w, sample_ns)
    point_set(image, SITE_GRID_W, grid_w, sample_ns)
    points_set_integral(image, SITE_GRID_IN_WS, &state.grid, sample_ns)
    if program.site.pv_w < 0:  # no PV is known to give nothing
        integral_advance(&state.pv, &state.pv_t_ns, &state.pv_w, 0.0, sample_ns)
        point_set(image, SITE_PV_W, 0.0, sample_ns)
        points_set_integral(image, SITE_PV_IN_WS, &state.pv, sample_ns)
    if all_known and (program.site.pv_w < 0 or believable(image, program.site.pv_w)):
        integral_advance(&state.load, &state.load_t_ns, &state.load_w, plant.load_w, sample_ns)
        point_set(image, SITE_LOAD_W, plant.load_w, sample_ns)
        points_set_integral(image, SITE_LOAD_IN_WS, &state.load, sample_ns)
    else:
        point_set_stale(image, SITE_LOAD_W)
        state.load_t_ns = 0


cdef void close_second(const program_t* program, point_t* image, estimate_state_t* state, plant_t* plant,
                       uint64_t t_ns) noexcept nogil:
    """Once a second: extremes of the last one, demand, the utility's register."""
    cdef double mean_w
    state.second = t_ns // 1000000000u + 1
    integral_roll_second(&state.grid, state.grid_t_ns, state.grid_w)
    integral_roll_second(&state.load, state.load_t_ns, state.load_w)
    integral_roll_second(&state.ess, state.ess_t_ns, state.ess_w)
    integral_roll_second(&state.pv, state.pv_t_ns, state.pv_w)
    points_set_extremes(image, SITE_GRID_MIN_W, &state.grid, t_ns)
    points_set_extremes(image, SITE_LOAD_MIN_W, &state.load, t_ns)
    points_set_extremes(image, SITE_ESS_MIN_W, &state.ess, t_ns)
    points_set_extremes(image, SITE_PV_MIN_W, &state.pv, t_ns)
    if state.lags.moves > 0.0:
        point_set(image, SITE_GRID_AGE_S, fmin(fmax(state.age_s, state.likely_lo_s), state.likely_hi_s), t_ns)
        point_set(image, SITE_GRID_AGE_LO_S, state.likely_lo_s, t_ns)
        point_set(image, SITE_GRID_AGE_HI_S, state.likely_hi_s, t_ns)
    if state.lags.interval.interval_s > 0.0:
        point_set(image, SITE_GRID_INTERVAL_S, state.lags.interval.interval_s, t_ns)
    learn_register(program, image, state)
    if state.demand_started:
        demand_view(program, image, state, plant, t_ns)
        mean_w = plant.demand_elapsed_s - plant.demand_unknown_s[0]
        mean_w = plant.demand_used_ws[0] / mean_w if mean_w > 0.0 else 0.0
        point_set(image, SITE_DEMAND_W, mean_w * plant.demand_gain, t_ns)
        point_set(image, SITE_DEMAND_LEFT_S, plant.demand_left_s, t_ns)
        point_set(image, SITE_DEMAND_PEAK_W, plant.demand_paid_w, t_ns)


# ---------------------------------------------------------------- Python view


AGE_MOST_S = LAG_NS_MAX * 1e-9
"""Oldest age of a grid reading that is looked for, s."""

_QUALITIES = {"never": QUALITY_NEVER, "good": QUALITY_GOOD, "held": QUALITY_HELD, "stale": QUALITY_STALE,
              "invalid": QUALITY_INVALID}
_SITE = {SITE_POINT_NAMES[i][0].decode(): i for i in range(SITE_POINTS)}


cdef class Estimate:
    """The compiled estimation over an image of its own: readings in, the plant as the control sees it out.

    units    : storage units, 1..16, each with readings `ess0_w`, `ess1_w` ... and `soc0`, `soc1` ...
    age_max_s: readings older than this are stale.
    pv       : the site has a PV meter (`pv_w`); phases: readings `grid_l0_w`..; circuits: number of sub-meters `circuit0_w`..
    settings : any of `tidegate.ext.abi.settings.defaults()`.
    Other readings: `grid_w`, `grid_import_wh`, `demand_w`, `window_pulse_count`, `frequency_hz`, `voltage_l1_v`.
    """

    def __cinit__(self):
        self.program = <program_t*>calloc(1, sizeof(program_t))
        self.image = <point_t*>calloc(POINTS_MAX, sizeof(point_t))
        self.inputs = <gate_input_t*>calloc(UNITS_MAX, sizeof(gate_input_t))
        self.verdicts = <gate_verdict_t*>calloc(UNITS_MAX, sizeof(gate_verdict_t))
        self.state = <estimate_state_t*>calloc(1, sizeof(estimate_state_t))
        if not (self.program and self.image and self.inputs and self.verdicts and self.state):
            raise MemoryError("no memory for the estimation")

    def __dealloc__(self):
        free(self.program)
        free(self.image)
        free(self.inputs)
        free(self.verdicts)
        free(self.state)

    def __init__(self, int units=1, *, double age_max_s=1.0, bint pv=False, bint phases=False, int circuits=0,
                 **settings):
        cdef int i, at
        if not 1 <= units <= UNITS_MAX:
            raise ValueError(f"units={units}: a site has 1 to {UNITS_MAX} storage units")
        if not 0 <= circuits <= CIRCUITS_MAX:
            raise ValueError(f"circuits={circuits}: at most {CIRCUITS_MAX}")
        self.program.control = params_of(settings)
        self.program.n_units = <uint32_t>units
        at = SITE_POINTS + units * UNIT_POINTS
        names = ["grid_w", "grid_import_wh", "demand_w", "window_pulse_count", "frequency_hz", "voltage_l1_v"]
        names += ["pv_w"] * pv + [f"grid_l{i}_w" for i in range(PHASES_MAX * phases)]
        names += [f"circuit{i}_w" for i in range(circuits)]
        names += [f"{kind}" for i in range(units) for kind in (f"ess{i}_w", f"soc{i}")]
        self.names = {name: at + i for i, name in enumerate(names)}
        self.program.n_points = <uint32_t>(at + len(names))
        for i in self.names.values():
            self.program.points[i].age_max_ns = <uint64_t>(age_max_s * 1e9)
        for i in range(<int>self.program.n_points):
            self.image[i].value = NAN
        find = self.names.get
        self.program.site.grid_w = find("grid_w")
        self.program.site.grid_import_wh = find("grid_import_wh")
        self.program.site.grid_export_wh = -1
        self.program.site.demand_w = find("demand_w")
        self.program.site.window_pulse = find("window_pulse_count")
        self.program.site.grid_hz = find("frequency_hz")
        self.program.site.genset_w = self.program.site.genset_hz = self.program.site.island = -1
        self.program.site.grid_v = [find("voltage_l1_v"), -1, -1]
        self.program.site.pv_w = find("pv_w", -1)
        for i in range(PHASES_MAX):
            self.program.site.grid_w_l[i] = find(f"grid_l{i}_w", -1)
        for i in range(CIRCUITS_MAX):
            self.program.site.circuit_w[i] = find(f"circuit{i}_w", -1)
        memset(self.program.units, 0xFF, sizeof(self.program.units))
        for i in range(units):
            self.program.units[i].pcs_w = find(f"ess{i}_w")
            self.program.units[i].soc = find(f"soc{i}")
            self.program.units[i].energy_wh = 0.0
            memset(&self.program.units[i].gate, 0, sizeof(gate_limits_t))
        memset(&self.plant, 0, sizeof(plant_t))

    def reading(self, str name, double value, double t_s, str quality="good"):
        """Put a reading into the image as a device would: value, stamp (s, monotonic), quality.

        Raises KeyError for a name that this site does not have.
        """
        cdef point_t* point = &self.image[<int>self.names[name]]
        point.value = value
        point.t_ns = <uint64_t>(t_s * 1e9 + 0.5)
        point.quality = _QUALITIES[quality]
        point.changes += 1

    def step(self, double t_s, *, setpoint_w=(), double utc_offset_s=0.0):
        """Age the image and estimate once at time t_s; setpoint_w: what the gate let go to each unit last cycle."""
        cdef uint64_t t_ns = <uint64_t>(t_s * 1e9 + 0.5)
        cdef int i
        for i, value in enumerate(setpoint_w):
            self.verdicts[i].setpoint_w = <int32_t>value
        clock_set(&self.program.control, self.state, <int64_t>(utc_offset_s * 1e9), t_ns)
        image_age(self.program, self.image, self.state, t_ns)
        estimate_step(self.program, self.image, self.inputs, self.verdicts, self.state, &self.plant, t_ns, 1000000)

    def trip(self, int unit, bint tripped=True):
        """Let the gate hold this unit at zero, or let it go."""
        self.verdicts[unit].limit_bits = LIMIT_TRIPPED if tripped else 0

    def point(self, str name):
        """(value, quality name, stamp in s) of a reading or of a site point such as `site.load_w`."""
        cdef point_t* point = &self.image[<int>(_SITE[name] if name in _SITE else self.names[name])]
        quality = [key for key, number in _QUALITIES.items() if number == point.quality][0]
        return point.value, quality, <double>point.t_ns * 1e-9

    @property
    def grid_ok(self):
        return bool(self.plant.grid_ok)

    @property
    def grid_new(self):
        return bool(self.plant.grid_new)

    @property
    def paired(self):
        """True once an age of the readings is known that explains what the meter sees of the battery."""
        return bool(self.plant.paired)

    @property
    def net_w(self):
        """Grid power if the batteries rested, W."""
        return self.plant.net_w

    @property
    def net_lo_w(self):
        """The same, at least: what limits of export go by."""
        return self.plant.net_lo_w

    @property
    def load_w(self):
        return self.plant.load_w

    @property
    def ess_w(self):
        return self.plant.ess_w

    @property
    def available(self):
        return tuple(bool(self.plant.units[i].available) for i in range(<int>self.plant.n_units))

    @property
    def phases_net_w(self):
        return tuple(self.plant.phase_net_w[i] for i in range(PHASES_MAX) if self.plant.phases_ok & 1 << i)

    @property
    def circuits_net_w(self):
        return tuple(self.plant.circuit_net_w[i] for i in range(CIRCUITS_MAX) if self.plant.circuits_ok & 1 << i)

    @property
    def latency_s(self):
        """(least, most, measured): bounds of the age of a grid reading when it arrives."""
        return (self.state.age_lo_s, self.state.age_hi_s, bool(self.state.age_known))

    @property
    def likely_age_s(self):
        """(least, most) of the ages that are as likely as the likeliest, s: what is shown of a reading's age."""
        return (self.state.likely_lo_s, self.state.likely_hi_s)

    @property
    def latency_scores(self):
        """(age in s, what it leaves unexplained beyond the best, in standard deviations of the difference) of each age."""
        cdef uint32_t best = self.state.lags.best
        return [(LAG_NS[i] * 1e-9, (self.state.lags.unexplained[i] - self.state.lags.unexplained[best])
                 / (self.state.lags.variance[i] + self.state.lags.variance[best] + 0.5) ** 0.5) for i in range(LAGS)]

    @property
    def reconnect_w(self):
        """Battery power at most since the grid came back, W; infinity = no bound."""
        return self.plant.reconnect_w

    @property
    def clock(self):
        """(times that the demand windows moved, enum clock_change of the last one, s that they moved by)."""
        return self.state.clock_changes, self.state.clock_change, self.state.clock_moved_s

    def pulse(self, double began_s, double t_s):
        """The utility's window began at began_s; told at t_s."""
        window_began(&self.program.control, self.state, <uint64_t>(began_s * 1e9), <uint64_t>(t_s * 1e9))

    @property
    def demand(self):
        """(used W s, unmeasured s, left s, paid W, gain) of the running window."""
        return (self.plant.demand_used_ws[0], self.plant.demand_unknown_s[0], self.plant.demand_left_s,
                self.plant.demand_paid_w, self.plant.demand_gain)
