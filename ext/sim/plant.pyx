"""The physics of one site, a step at a time: power converters, meters, load. The cells are in battery.pyx.

Every equation is elementary arithmetic and sqrt, which IEEE 754 fixes to the last bit: a run repeats to the byte on any
machine. Losses and stored energy are summed as they happen, so that a test can close the energy balance.
"""

from libc.math cimport NAN, fabs, floor, isfinite
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from tidegate.ext.sim.battery cimport bank_any, bank_current, bank_draw, bms_step, open_voltage
from tidegate.ext.sim.habits cimport (
    average_w, meter_habit, meter_habits_start, meter_next, meter_reports, pcs_goal,
)

cdef double SECOND = 1e-9
cdef uint64_t REPLAY_READINGS = 50  # a meter with METER_REPLAYED knows so many
cdef uint64_t SECOND_NS = 1000000000


cdef double lag_share(double dt_s, double tau_s) noexcept nogil:
    """1 - exp(-dt/tau) without exp: the series on a small argument, squared back."""
    cdef double x, e
    cdef int halvings = 0
    if tau_s <= 0.0:
        return 1.0
    x = dt_s / tau_s
    if x > 40.0:
        return 1.0
    while x > 0.0625:
        x *= 0.5
        halvings += 1
    e = 1.0 - x * (1.0 - x / 2.0 * (1.0 - x / 3.0 * (1.0 - x / 4.0 * (1.0 - x / 5.0 * (1.0 - x / 6.0)))))
    while halvings > 0:
        e *= e
        halvings -= 1
    return 1.0 - e


# ---------------------------------------------------------------- power converter


cdef void pcs_written(plant_t* plant, pcs_t* pcs, int var, uint64_t t_ns) noexcept nogil:
    cdef double wanted_w
    if pcs.faults & (PCS_DEAF | PCS_IN_LOCAL):
        return
    if var == PCS_HB_CONTROLLER:
        pcs.heartbeat_t_ns = t_ns
        return
    if var != PCS_SET_W and var != PCS_SET_ENA and var != PCS_SET_PERMILLE:
        return
    pcs.writes += 1
    pcs.set_t_ns = t_ns
    if pcs.reverted:
        pcs.reverted = 0
    wanted_w = pcs.v[PCS_SET_W]
    if pcs.v[PCS_SET_MODE] == 0.0:
        wanted_w = pcs.v[PCS_SET_PERMILLE] * 0.001 * pcs.discharge_w_max
    if pcs.v[PCS_SET_ENA] == 0.0:
        wanted_w = 0.0
    if pcs.faults & (PCS_WRONG_SIGN | PCS_TURNED):
        wanted_w = -wanted_w
    if not isfinite(wanted_w):
        wanted_w = 0.0
    if wanted_w > pcs.discharge_w_max:
        wanted_w = pcs.discharge_w_max
    if wanted_w < -pcs.charge_w_max:
        wanted_w = -pcs.charge_w_max
    if pcs.queue_head != pcs.queue_tail and pcs.queue_w[(pcs.queue_head - 1) % SETPOINTS_MAX] == wanted_w:
        return  # a repeat: what waits already says the same, and earlier
    if pcs.queue_head - pcs.queue_tail < SETPOINTS_MAX:
        pcs.queue_t_ns[pcs.queue_head % SETPOINTS_MAX] = t_ns + pcs.dead_ns
        pcs.queue_w[pcs.queue_head % SETPOINTS_MAX] = wanted_w
        pcs.queue_head += 1
    else:  # written faster than it can take: the newest counts
        pcs.queue_w[(pcs.queue_head - 1) % SETPOINTS_MAX] = wanted_w


cdef void pcs_step(plant_t* plant, pcs_t* pcs, uint64_t t_ns, double dt_s) noexcept nogil:
    cdef double move_w, most_w, loss_w, got_w, goal_w
    cdef battery_t* battery = bank_any(plant.batteries, pcs.battery, pcs.beside)
    while pcs.queue_tail != pcs.queue_head and pcs.queue_t_ns[pcs.queue_tail % SETPOINTS_MAX] <= t_ns:
        pcs.target_w = pcs.queue_w[pcs.queue_tail % SETPOINTS_MAX]
        pcs.queue_tail += 1
    # Its own watchdog: a setpoint that nobody repeats is worth nothing.
    if (
        pcs.v[PCS_REVERT_ENA] != 0.0
        and pcs.set_t_ns > 0
        and not pcs.reverted
        and <double>(t_ns - pcs.set_t_ns) > pcs.v[PCS_REVERT_S] * 1e9
    ):
        pcs.reverted = 1
        pcs.reverts += 1
        pcs.target_w = pcs.v[PCS_REVERT_W]
        pcs.queue_tail = pcs.queue_head
    if pcs.heartbeat_timeout_ns > 0 and pcs.heartbeat_t_ns > 0 and t_ns - pcs.heartbeat_t_ns > pcs.heartbeat_timeout_ns:
        pcs.target_w = 0.0

    if pcs.habits != NULL:
        pcs.own_w = pcs.habits.own_w if t_ns - plant.t0_ns >= pcs.habits.own_ns and plant.live else 0.0
    if pcs.faults & PCS_FROZEN == 0:
        goal_w = pcs.target_w if pcs.habits == NULL else pcs_goal(plant, pcs, t_ns)
        if pcs.own_w < 0.0 or (pcs.habits != NULL and pcs.habits.own_told):
            goal_w -= pcs.own_w  # what hangs on its output it feeds first: setpoints mean what passes its input
        move_w = (goal_w - pcs.w) * pcs.alpha
        most_w = pcs.ramp_w_per_s * dt_s
        if move_w > most_w:
            move_w = most_w
        elif move_w < -most_w:
            move_w = -most_w
        pcs.w += move_w
    if (
        pcs.faults & (PCS_TRIPPED | PCS_IN_LOCAL)
        or pcs.v[PCS_OP_CTL] == 0.0
        or not battery.contactor
        or not plant.live
    ):
        pcs.w = 0.0

    loss_w = pcs.loss_w + pcs.loss_ratio * fabs(pcs.w)
    pcs.dc_w = pcs.w + loss_w
    got_w = bank_draw(plant.batteries, pcs.battery, pcs.beside, pcs.dc_w, dt_s)
    if got_w < pcs.dc_w - 1e-6 * (1.0 + fabs(pcs.dc_w)):  # empty, too weak or open: the AC side gets what is left
        pcs.dc_w = got_w
        if got_w > loss_w:
            pcs.w = got_w - loss_w
        else:
            pcs.w = 0.0
            loss_w = got_w
    else:
        pcs.dc_w = got_w
        loss_w = got_w - pcs.w
    pcs.loss_j += loss_w * dt_s
    pcs.battery_j += got_w * dt_s
    if pcs.w >= 0.0:
        pcs.out_j += pcs.w * dt_s
    else:
        pcs.in_j -= pcs.w * dt_s
    if t_ns >= pcs.measure_next_ns:
        pcs.measure_next_ns += pcs.measure_ns
        if pcs.measure_next_ns <= t_ns:
            pcs.measure_next_ns = t_ns + pcs.measure_ns
        pcs.v[PCS_W] = pcs.own_w - pcs.w if pcs.faults & PCS_TURNED else pcs.own_w + pcs.w
        pcs.v[PCS_STORAGE_W] = pcs.v[PCS_W] - pcs.own_w
        pcs.v[PCS_DC_W] = pcs.dc_w
        pcs.v[PCS_DC_A] = bank_current(plant.batteries, pcs.battery, pcs.beside)
        pcs.v[PCS_DC_V] = battery.open_v - battery.r_ohm * battery.current_a


cdef void pcs_refresh(plant_t* plant, pcs_t* pcs, uint64_t t_ns) noexcept nogil:
    cdef double* v = pcs.v
    cdef double left_s
    cdef battery_t* battery = bank_any(plant.batteries, pcs.battery, pcs.beside)
    cdef int tripped = pcs.faults & PCS_TRIPPED != 0 or not battery.contactor
    v[PCS_W_L1] = v[PCS_W] * plant.phase_share[0]
    v[PCS_W_L2] = v[PCS_W] * plant.phase_share[1]
    v[PCS_W_L3] = v[PCS_W] * plant.phase_share[2]
    v[PCS_VA] = fabs(v[PCS_W])
    v[PCS_VAR] = 0.0
    v[PCS_V_LN] = plant.volt if plant.live else 0.0
    v[PCS_V_LL] = v[PCS_V_LN] * 1.7320508075688772
    v[PCS_A] = fabs(v[PCS_W]) / plant.volt
    v[PCS_A_L1] = v[PCS_A] / 3.0
    v[PCS_HZ] = plant.hz
    v[PCS_PF] = 1.0
    v[PCS_CONN] = 0.0 if not plant.live or tripped else 1.0
    v[PCS_ALARM] = 1.0 if tripped else (0.0 if plant.live else 2.0)
    v[PCS_FAULT] = v[PCS_ALARM]
    v[PCS_TEMP_C] = 25.0 + 20.0 * fabs(v[PCS_W]) / pcs.discharge_w_max
    v[PCS_OUT_WH] = pcs.out_j / 3600.0
    v[PCS_IN_WH] = pcs.in_j / 3600.0
    v[PCS_W_MAX] = pcs.discharge_w_max if pcs.discharge_w_max > pcs.charge_w_max else pcs.charge_w_max
    v[PCS_CHARGE_W_MAX] = pcs.charge_w_max
    v[PCS_DISCHARGE_W_MAX] = pcs.discharge_w_max
    v[PCS_LOCAL] = 1.0 if pcs.faults & PCS_IN_LOCAL else 0.0
    v[PCS_HB_DEVICE] = <double>(t_ns // SECOND_NS % 65536)
    left_s = v[PCS_REVERT_S] - <double>(t_ns - pcs.set_t_ns) * SECOND
    v[PCS_REVERT_LEFT_S] = left_s if left_s > 0.0 and pcs.set_t_ns > 0 and not pcs.reverted else 0.0
    if tripped:
        v[PCS_STATE] = pcs.state_fault
    elif v[PCS_OP_CTL] == 0.0 or not plant.live or pcs.faults & PCS_IN_LOCAL:
        v[PCS_STATE] = pcs.state_standby
    else:
        v[PCS_STATE] = pcs.state_run
    v[PCS_ON] = 1.0 if v[PCS_STATE] == pcs.state_run else 0.0
    v[PCS_READY] = v[PCS_ON]


# ---------------------------------------------------------------- meters


cdef double meter_w(const plant_t* plant, const meter_t* meter) noexcept nogil:
    """True power at the place where a meter sits."""
    cdef double w
    cdef uint32_t i
    if meter.source == METERS_GRID:
        if meter.faults & METER_ELSEWHERE:
            return plant.load_w - plant.pv_w
        w = plant.grid_w + plant.genset.w if plant.genset.at_grid_meter else plant.grid_w
        if meter.faults & METER_TENFOLD:
            w *= 10.0
        if meter.faults & METER_TENTH:
            w *= 0.1
        return w
    if meter.source == METERS_IT:
        return plant.it_w
    if meter.source == METERS_COOLING:
        return plant.cooling_w
    if meter.source == METERS_PV:
        return plant.pv_w
    if meter.source == METERS_GENSET:
        return plant.genset.w
    if meter.source == METERS_PCS:
        return plant.pcs[meter.index].w
    if meter.source != METERS_CIRCUIT:
        return 0.0
    w = plant.it_w * meter.share
    for i in range(plant.n_pcs):
        if meter.downstream >> i & 1:
            w -= plant.pcs[i].w
    return w


cdef inline bint meter_lives(const plant_t* plant, const meter_t* meter) noexcept nogil:
    """Whether there is a voltage where the meter sits."""
    if meter.source == METERS_GENSET:
        return plant.genset.carries != 0
    if meter.source == METERS_GRID and not plant.genset.at_grid_meter:
        return not plant.islanded
    return plant.live != 0


cdef void meter_measure(plant_t* plant, meter_t* meter, double* v) noexcept nogil:
    cdef double w = meter_w(plant, meter), volt = plant.volt if meter_lives(plant, meter) else 0.0
    cdef int phase
    if meter.faults & METER_W_STUCK:
        if v != meter.v and meter.head:  # a late meter: what was measured last still waits
            memcpy(v, meter.readings[(meter.head - 1) % READINGS_MAX].v, sizeof(meter.v))
        elif v != meter.v:
            memcpy(v, meter.v, sizeof(meter.v))
        meter_energies(meter, v)
        return
    if meter.habits != NULL:
        w = average_w(&meter.habits.own, w, plant.dt_s)
    if meter.resolution_w > 0.0:
        w = floor(w / meter.resolution_w + 0.5) * meter.resolution_w
    if meter.faults & METER_REVERSED:
        w = -w
    if meter.faults & METER_NAN:
        w = NAN
    if meter.faults & METER_ABSOLUTE:
        w = fabs(w)
    if meter.faults & METER_NO_L3:
        w -= w * plant.phase_share[2]
    v[METER_W] = w
    v[METER_VA] = fabs(w)
    v[METER_VAR] = 0.0
    for phase in range(3):
        v[METER_W_L1 + phase] = w * plant.phase_share[phase]
        v[METER_V_L1 + phase] = volt
        v[METER_A_L1 + phase] = fabs(w) * plant.phase_share[phase] / plant.volt
    if meter.faults & METER_TWO_PHASES:
        for phase in range(3):
            v[METER_W_L1 + phase] = (w + plant.ess_w) * plant.phase_share[phase] - (0.5 * plant.ess_w if phase < 2 else 0.0)
            v[METER_A_L1 + phase] = fabs(v[METER_W_L1 + phase]) / plant.volt
    if meter.faults & (METER_NO_L3 | METER_L3_OFF):
        for phase in range(2):
            v[METER_W_L1 + phase] = w * plant.phase_share[phase] / (1.0 - plant.phase_share[2])
            v[METER_A_L1 + phase] = fabs(v[METER_W_L1 + phase]) / plant.volt
        v[METER_W_L3] = 0.0
        v[METER_A_L3] = 0.0
    if meter.faults & METER_SWAPPED:
        v[METER_W_L1] = -w * plant.phase_share[1]
        v[METER_W_L2] = -w * plant.phase_share[0]
    v[METER_A] = fabs(w) / plant.volt
    v[METER_V] = volt
    v[METER_HZ] = plant.hz
    if plant.genset.w_max > 0.0 and plant.islanded:  # a plant without a genset keeps its frequency in the dark
        v[METER_HZ] = plant.genset.hz if meter_lives(plant, meter) else 0.0
    v[METER_PF] = 1.0 if w >= 0.0 else -1.0
    v[METER_ZERO] = 0.0
    meter_energies(meter, v)


cdef void meter_energies(const meter_t* meter, double* v) noexcept nogil:
    v[METER_IMPORT_WH] = meter.import_j / 3600.0
    v[METER_EXPORT_WH] = meter.export_j / 3600.0
    v[METER_TOTAL_WH] = (meter.import_j + meter.export_j) / 3600.0


cdef void meter_count(plant_t* plant, meter_t* meter, double dt_s) noexcept nogil:
    cdef double w = meter_w(plant, meter)
    if meter.faults:
        if meter.faults & METER_REVERSED:
            w = -w
        if meter.faults & METER_RESET:
            meter.import_j = 0.0
            meter.export_j = 0.0
        if meter.faults & METER_ABSOLUTE:
            w = fabs(w)
        if meter.faults & METER_NO_L3:
            w -= w * plant.phase_share[2]
    if w >= 0.0:
        meter.import_j += w * dt_s
    else:
        meter.export_j -= w * dt_s


cdef void meter_replay(meter_t* meter, uint64_t t_ns) noexcept nogil:
    """The newest readings in their order, over and over; nothing is measured meanwhile."""
    cdef uint64_t count = min(<uint64_t>meter.head, REPLAY_READINGS)
    meter.tail = meter.head
    if t_ns < meter.next_ns:
        return
    memcpy(meter.v, meter.readings[(meter.head - count + meter.updates % count) % READINGS_MAX].v, sizeof(meter.v))
    meter.updates += 1
    meter.shown_t_ns = meter.next_ns
    if meter.habits != NULL:
        meter_next(meter)
        return
    meter.next_ns = max(meter.next_ns + meter.interval_ns, t_ns)


cdef void meter_step(plant_t* plant, meter_t* meter, uint64_t t_ns, double dt_s) noexcept nogil:
    cdef reading_t* reading
    meter_count(plant, meter, dt_s)
    if meter.habits != NULL:
        meter_habit(plant, meter, t_ns)
    if meter.readings != NULL:
        while meter.tail != meter.head and meter.readings[meter.tail % READINGS_MAX].t_ns + meter.delay_ns <= t_ns:
            reading = &meter.readings[meter.tail % READINGS_MAX]
            meter.shown_t_ns = reading.t_ns + meter.delay_ns
            meter.tail += 1
            if meter.faults & METER_STUCK == 0:
                memcpy(meter.v, reading.v, sizeof(reading.v))
                meter.updates += 1
    if meter.faults & METER_REPLAYED and meter.readings != NULL and meter.head > 0:
        meter_replay(meter, t_ns)
        return
    if t_ns < meter.next_ns:
        return
    if meter.habits != NULL and not meter_reports(plant, meter):
        meter_next(meter)
        return
    meter.taken_t_ns = meter.next_ns
    if meter.readings == NULL:
        if meter.faults & METER_STUCK == 0:
            meter_measure(plant, meter, meter.v)
            meter.updates += 1
        meter.shown_t_ns = meter.next_ns
    elif meter.head - meter.tail < READINGS_MAX:
        reading = &meter.readings[meter.head % READINGS_MAX]
        reading.t_ns = meter.next_ns
        meter_measure(plant, meter, reading.v)
        meter.head += 1
    if meter.habits != NULL:
        meter_next(meter)
        return
    meter.next_ns += meter.interval_ns
    if meter.next_ns <= t_ns:
        meter.next_ns = t_ns + meter.interval_ns


# ---------------------------------------------------------------- the site


cdef void load_step(plant_t* plant, uint64_t t_ns) noexcept nogil:
    """The traces, replayed as steps: a row holds until the next one."""
    cdef uint64_t at = t_ns - plant.t0_ns
    if plant.load_row < plant.load_count and plant.load_t_ns[plant.load_row] <= at:
        while plant.load_row < plant.load_count and plant.load_t_ns[plant.load_row] <= at:
            plant.load_row += 1
        plant.it_w = plant.load_rows_w[plant.load_row - 1]
    if plant.pv_row < plant.pv_count and plant.pv_t_ns[plant.pv_row] <= at:
        while plant.pv_row < plant.pv_count and plant.pv_t_ns[plant.pv_row] <= at:
            plant.pv_row += 1
        plant.pv_w = plant.pv_rows_w[plant.pv_row - 1]


cdef void cooling_step(plant_t* plant, double dt_s) noexcept nogil:
    """A share of the ten-minute mean of IT power, worked out once a second."""
    cdef double mean_w
    plant.cooling_second_w += plant.it_w
    plant.cooling_left -= 1
    if plant.cooling_left > 0:
        return
    plant.cooling_left = <uint32_t>(SECOND_NS // plant.dt_ns)
    mean_w = plant.cooling_second_w / <double>plant.cooling_left
    plant.cooling_second_w = 0.0
    plant.cooling_sum += mean_w - plant.cooling_ring[plant.cooling_at]
    plant.cooling_ring[plant.cooling_at] = mean_w
    plant.cooling_at = (plant.cooling_at + 1) % plant.cooling_count
    plant.cooling_w = plant.cooling_share * plant.cooling_sum / plant.cooling_count


cdef void judge(plant_t* plant, uint64_t t_ns, double dt_s) noexcept nogil:
    """Energy above the grid limit with and without the batteries, in and out of the reaction time of steps."""
    cdef totals_t* totals = &plant.totals
    cdef double without_w = plant.load_w - plant.pv_w
    cdef double over_w
    if fabs(plant.load_w - plant.last_load_w) >= plant.step_w:
        plant.reaction_until_ns = t_ns + plant.reaction_ns
        plant.step_t_ns = t_ns
        plant.step_jump_w = plant.load_w - plant.last_load_w
        totals.steps += 1
    plant.last_load_w = plant.load_w
    if without_w > totals.peak_without_w:
        totals.peak_without_w = without_w
    if plant.grid_w > totals.peak_with_w:
        totals.peak_with_w = plant.grid_w
    over_w = without_w - plant.limit_w
    if over_w > 0.0:
        totals.above_without_j += over_w * dt_s
    over_w = plant.grid_w - plant.limit_w
    if t_ns < plant.reaction_until_ns:
        totals.reaction_s += dt_s
        if over_w > 0.0:
            totals.above_with_j += over_w * dt_s
            totals.above_with_s += dt_s
        return
    if plant.grid_w > totals.peak_outside_w:
        totals.peak_outside_w = plant.grid_w
    if over_w > 0.0:
        totals.above_with_j += over_w * dt_s
        totals.above_with_s += dt_s
        totals.above_outside_j += over_w * dt_s
        totals.above_outside_s += dt_s


cdef void plant_start(plant_t* plant, uint64_t t_ns) noexcept nogil:
    """Put everything at rest at t_ns; the traces begin here."""
    cdef uint32_t i
    plant.t_ns = t_ns
    plant.t0_ns = t_ns
    plant.dt_s = <double>plant.dt_ns * SECOND
    plant.load_row = 0
    plant.pv_row = 0
    load_step(plant, t_ns)
    plant.cooling_left = <uint32_t>(SECOND_NS // plant.dt_ns)
    plant.cooling_sum = 0.0
    if plant.cooling_count == 0:
        plant.cooling_count = 600
    for i in range(plant.cooling_count):
        plant.cooling_ring[i] = plant.it_w
        plant.cooling_sum += plant.it_w
    plant.cooling_w = plant.cooling_share * plant.it_w
    plant.load_w = plant.it_w + plant.cooling_w
    plant.last_load_w = plant.load_w
    plant.grid_w = plant.load_w - plant.pv_w
    plant.live = 1
    plant.genset.w_least = plant.genset.w_max
    plant.slow_left = 1
    for i in range(plant.n_batteries):
        plant.batteries[i].open_v = open_voltage(&plant.batteries[i])
        bms_step(&plant.batteries[i], 0.0)
    for i in range(plant.n_pcs):
        plant.pcs[i].alpha = lag_share(plant.dt_s, plant.pcs[i].tau_s)
        pcs_refresh(plant, &plant.pcs[i], t_ns)
    for i in range(plant.n_meters):
        plant.meters[i].next_ns += t_ns
        if plant.meters[i].habits != NULL:
            meter_habits_start(plant, &plant.meters[i], t_ns)
        meter_measure(plant, &plant.meters[i], plant.meters[i].v)


cdef void genset_step(plant_t* plant, double dt_s) noexcept nogil:
    """Starting, carrying, tripping. Overload of a tenth for 5 s and reverse power of a twentieth for 3 s stop it."""
    cdef genset_t* g = &plant.genset
    if g.faults & GENSET_STOPS or not g.told:
        g.carries = 0
        g.starting_s = 0.0
    elif not g.carries and not g.faults & GENSET_WONT_START:
        g.starting_s += dt_s
        if g.starting_s >= g.start_s:
            g.carries = 1
            g.overload_s = g.reverse_s = g.after_s = 0.0
    plant.live = not plant.islanded or g.carries != 0
    g.hz = 50.0 if g.carries else 0.0
    if not plant.live:
        g.dark_s += dt_s


cdef void genset_loaded(plant_t* plant, double balance_w, double dt_s) noexcept nogil:
    """What load, PV and batteries leave to it, and what that does to it."""
    cdef genset_t* g = &plant.genset
    g.w = balance_w if g.carries and plant.islanded else 0.0
    if not g.carries or not plant.islanded:
        return
    g.run_s += dt_s
    g.after_s += dt_s
    g.energy_j += g.w * dt_s
    g.w_most = max(g.w_most, g.w)
    g.w_least = min(g.w_least, g.w)
    if g.w > g.w_max:
        g.above_s += dt_s
    if g.w < g.w_min:
        g.below_s += dt_s
    g.overload_s = g.overload_s + dt_s if g.w > 1.1 * g.w_max else 0.0
    g.reverse_s = g.reverse_s + dt_s if g.w < -0.05 * g.w_max else 0.0
    if g.overload_s > 5.0 or g.reverse_s > 3.0:
        g.trips += 1
        g.carries = 0
        g.starting_s = 0.0
        g.w = 0.0


cdef void plant_step(plant_t* plant, uint64_t t_ns) noexcept nogil:
    cdef double dt_s = plant.dt_s
    cdef uint32_t i
    cdef double own_w = 0.0
    cdef totals_t* totals = &plant.totals
    plant.t_ns = t_ns
    load_step(plant, t_ns)
    cooling_step(plant, dt_s)
    plant.load_w = plant.it_w + plant.cooling_w
    plant.ess_w = 0.0
    plant.live = not plant.islanded
    if plant.genset.w_max > 0.0:
        genset_step(plant, dt_s)
    for i in range(plant.n_pcs):
        pcs_step(plant, &plant.pcs[i], t_ns, dt_s)
        plant.ess_w += plant.pcs[i].w
        own_w += plant.pcs[i].own_w
    plant.slow_left -= 1
    if plant.slow_left == 0:
        plant.slow_left = <uint32_t>(SECOND_NS // 10 // plant.dt_ns)
        for i in range(plant.n_batteries):
            bms_step(&plant.batteries[i], dt_s * plant.slow_left)
    plant.grid_w = 0.0 if plant.islanded else plant.load_w - plant.pv_w - plant.ess_w - own_w
    if plant.genset.w_max > 0.0:
        genset_loaded(plant, plant.load_w - plant.pv_w - plant.ess_w - own_w, dt_s)
    for i in range(plant.n_meters):
        meter_step(plant, &plant.meters[i], t_ns, dt_s)

    totals.seconds += dt_s
    totals.it_j += plant.it_w * dt_s
    totals.cooling_j += plant.cooling_w * dt_s
    totals.pv_j += plant.pv_w * dt_s
    if plant.grid_w >= 0.0:
        totals.grid_in_j += plant.grid_w * dt_s
    else:
        totals.grid_out_j -= plant.grid_w * dt_s
    if plant.ess_w >= 0.0:
        totals.ess_out_j += plant.ess_w * dt_s
    else:
        totals.ess_in_j -= plant.ess_w * dt_s
    judge(plant, t_ns, dt_s)
