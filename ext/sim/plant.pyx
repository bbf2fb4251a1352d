"""The physics of one site, a step at a time: cells, power converters, meters, load.

Every equation is elementary arithmetic and sqrt, which IEEE 754 fixes to the last bit: a run repeats to the byte on any
machine. Losses and stored energy are summed as they happen, so that a test can close the energy balance.
"""

from libc.math cimport INFINITY, fabs, floor, isfinite, sqrt
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef double SECOND = 1e-9
cdef uint64_t SECOND_NS = 1000000000
cdef double NAN = INFINITY - INFINITY


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


# ---------------------------------------------------------------- battery


cdef double open_voltage(battery_t* battery) noexcept nogil:
    """Voltage of the pack at rest: piecewise linear in the state of charge."""
    cdef double soc = battery.charge_as / battery.capacity_as
    cdef int i = battery.segment
    while i > 0 and soc < battery.ocv_soc[i]:
        i -= 1
    while i < battery.ocv_count - 2 and soc >= battery.ocv_soc[i + 1]:
        i += 1
    battery.segment = i
    return battery.cells * (
        battery.ocv_v[i]
        + (battery.ocv_v[i + 1] - battery.ocv_v[i]) * (soc - battery.ocv_soc[i])
        / (battery.ocv_soc[i + 1] - battery.ocv_soc[i])
    )


cdef double battery_take(battery_t* battery, double dc_w, double dt_s) noexcept nogil:
    """Draw dc_w (+ discharge) at the terminals for dt_s; return what the cells could really give."""
    cdef double open_v = battery.open_v
    cdef double room, current_a
    if not battery.contactor:
        battery.current_a = 0.0
        battery.dc_w = 0.0
        return 0.0
    # V = E - R I and P = V I; the smaller root is the working one. Beyond E^2 / 4R no current gives more.
    room = open_v * open_v - 4.0 * battery.r_ohm * dc_w
    if room < 0.0:
        room = 0.0
    current_a = (open_v - sqrt(room)) / (2.0 * battery.r_ohm)
    if current_a > 0.0 and battery.charge_as <= 0.0:
        current_a = 0.0
    battery.current_a = current_a
    battery.dc_w = (open_v - battery.r_ohm * current_a) * current_a
    battery.charge_as -= current_a * dt_s
    battery.drawn_j += open_v * current_a * dt_s
    battery.heat_j += battery.r_ohm * current_a * current_a * dt_s
    battery.temp_c += (
        battery.r_ohm * current_a * current_a - (battery.temp_c - battery.ambient_c) * battery.cooling_w_per_k
    ) * dt_s / battery.heat_j_per_k
    battery.open_v = open_voltage(battery)
    return battery.dc_w


cdef void battery_slow(battery_t* battery, double dt_s) noexcept nogil:
    """What the BMS works out ten times a second: limits, alarms, its own protection."""
    cdef double* v = battery.v
    cdef double soc = battery.charge_as / battery.capacity_as
    cdef double cell_v = (battery.open_v - battery.r_ohm * battery.current_a) / battery.cells
    cdef double up = (1.0 - soc) / battery.taper, down = soc / battery.taper
    cdef int broken
    up = 0.0 if up < 0.0 else (1.0 if up > 1.0 else up)
    down = 0.0 if down < 0.0 else (1.0 if down > 1.0 else down)

    # Its own protection: a limit broken by a tenth for two seconds raises the alarm, for five opens the contactor.
    broken = (
        cell_v > battery.cell_v_max
        or cell_v < battery.cell_v_min
        or battery.temp_c > battery.temp_c_max
        or battery.temp_c < battery.temp_c_min
        or battery.current_a > 1.1 * battery.discharge_a_max * down + 1.0
        or -battery.current_a > 1.1 * battery.charge_a_max * up + 1.0
    )
    battery.above_s = battery.above_s + dt_s if broken else 0.0
    if battery.above_s > 5.0 and battery.contactor:
        battery.contactor = 0
        battery.opened += 1
        if fabs(battery.current_a) > 5.0:
            battery.opened_under_load += 1

    v[BATTERY_SOC] = soc
    v[BATTERY_SOH] = battery.soh
    v[BATTERY_PACK_V] = battery.open_v - battery.r_ohm * battery.current_a
    v[BATTERY_PACK_A] = battery.current_a
    v[BATTERY_TEMP_MAX_C] = battery.temp_c + 1.0
    v[BATTERY_TEMP_MIN_C] = battery.temp_c - 1.0
    v[BATTERY_CELL_V_MAX] = cell_v + 0.004
    v[BATTERY_CELL_V_MIN] = cell_v - 0.004
    v[BATTERY_CHARGE_V_MAX] = battery.cell_v_max * battery.cells
    v[BATTERY_DISCHARGE_V_MIN] = battery.cell_v_min * battery.cells
    v[BATTERY_CHARGE_A_MAX] = battery.charge_a_max * up
    v[BATTERY_DISCHARGE_A_MAX] = battery.discharge_a_max * down
    v[BATTERY_CHARGE_OK] = 1.0 if battery.contactor and up > 0.0 else 0.0
    v[BATTERY_DISCHARGE_OK] = 1.0 if battery.contactor and down > 0.0 else 0.0
    v[BATTERY_ALARM] = 1.0 if battery.above_s > 2.0 or not battery.contactor else 0.0
    v[BATTERY_WARNING] = 1.0 if broken else 0.0
    v[BATTERY_CONTACTOR] = battery.contactor
    v[BATTERY_CAPACITY_AH] = battery.capacity_as / 3600.0
    v[BATTERY_ENERGY_WH] = battery.charge_as * battery.open_v / 3600.0
    v[BATTERY_STATE] = 3.0 if battery.contactor else 99.0
    if battery.faults:
        battery_lies(battery)
    v[BATTERY_CHARGE_W_MAX] = v[BATTERY_CHARGE_A_MAX] * v[BATTERY_PACK_V]
    v[BATTERY_DISCHARGE_W_MAX] = v[BATTERY_DISCHARGE_A_MAX] * v[BATTERY_PACK_V]


cdef void battery_lies(battery_t* battery) noexcept nogil:
    """Injected faults of the BMS: what it says, never what the cells are."""
    cdef double* v = battery.v
    if battery.faults & BATTERY_WARNS:
        v[BATTERY_WARNING] = 1.0
    if battery.faults & BATTERY_ALARMS:
        v[BATTERY_ALARM] = 1.0
    if battery.faults & BATTERY_NO_CHARGE:
        v[BATTERY_CHARGE_OK] = 0.0
        v[BATTERY_CHARGE_A_MAX] = 0.0
    if battery.faults & BATTERY_NO_DISCHARGE:
        v[BATTERY_DISCHARGE_OK] = 0.0
        v[BATTERY_DISCHARGE_A_MAX] = 0.0
    if battery.faults & BATTERY_LIMITS_ZERO:
        v[BATTERY_CHARGE_A_MAX] = 0.0
        v[BATTERY_DISCHARGE_A_MAX] = 0.0
    if battery.faults & BATTERY_SENTINEL:
        v[BATTERY_SOC] = NAN
    if battery.faults & BATTERY_WILD:
        v[BATTERY_TEMP_MAX_C] = -150.0
        v[BATTERY_TEMP_MIN_C] = -150.0
        v[BATTERY_PACK_V] = 0.0
    if battery.faults & BATTERY_SOC_JUMP:
        v[BATTERY_SOC] = v[BATTERY_SOC] + 0.25 if v[BATTERY_SOC] < 0.5 else v[BATTERY_SOC] - 0.25
    if battery.faults & BATTERY_VOLTAGE_OFF:
        v[BATTERY_PACK_V] *= 0.93
    if battery.faults & BATTERY_HOT:
        v[BATTERY_TEMP_MAX_C] = battery.temp_c_max + 2.0


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
    if pcs.faults & PCS_WRONG_SIGN:
        wanted_w = -wanted_w
    if not isfinite(wanted_w):
        wanted_w = 0.0
    if wanted_w > pcs.discharge_w_max:
        wanted_w = pcs.discharge_w_max
    if wanted_w < -pcs.charge_w_max:
        wanted_w = -pcs.charge_w_max
    if pcs.queue_head - pcs.queue_tail < SETPOINTS_MAX:
        pcs.queue_t_ns[pcs.queue_head % SETPOINTS_MAX] = t_ns + pcs.dead_ns
        pcs.queue_w[pcs.queue_head % SETPOINTS_MAX] = wanted_w
        pcs.queue_head += 1
    else:  # written faster than it can take: the newest counts
        pcs.queue_w[(pcs.queue_head - 1) % SETPOINTS_MAX] = wanted_w


cdef void pcs_step(plant_t* plant, pcs_t* pcs, uint64_t t_ns, double dt_s) noexcept nogil:
    cdef double move_w, most_w, loss_w, got_w
    cdef battery_t* battery = &plant.batteries[pcs.battery]
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

    if pcs.faults & PCS_FROZEN == 0:
        move_w = (pcs.target_w - pcs.w) * pcs.alpha
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
        or plant.islanded
    ):
        pcs.w = 0.0

    loss_w = pcs.loss_w + pcs.loss_ratio * fabs(pcs.w)
    pcs.dc_w = pcs.w + loss_w
    got_w = battery_take(battery, pcs.dc_w, dt_s)
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
        pcs.v[PCS_W] = pcs.w
        pcs.v[PCS_DC_W] = pcs.dc_w
        pcs.v[PCS_DC_A] = battery.current_a
        pcs.v[PCS_DC_V] = battery.open_v - battery.r_ohm * battery.current_a


cdef void pcs_refresh(plant_t* plant, pcs_t* pcs, uint64_t t_ns) noexcept nogil:
    cdef double* v = pcs.v
    cdef double left_s
    cdef battery_t* battery = &plant.batteries[pcs.battery]
    cdef int tripped = pcs.faults & PCS_TRIPPED != 0 or not battery.contactor
    v[PCS_W_L1] = v[PCS_W] * plant.phase_share[0]
    v[PCS_W_L2] = v[PCS_W] * plant.phase_share[1]
    v[PCS_W_L3] = v[PCS_W] * plant.phase_share[2]
    v[PCS_VA] = fabs(v[PCS_W])
    v[PCS_VAR] = 0.0
    v[PCS_V_LN] = 0.0 if plant.islanded else plant.volt
    v[PCS_V_LL] = v[PCS_V_LN] * 1.7320508075688772
    v[PCS_A] = fabs(v[PCS_W]) / plant.volt
    v[PCS_A_L1] = v[PCS_A] / 3.0
    v[PCS_HZ] = plant.hz
    v[PCS_PF] = 1.0
    v[PCS_CONN] = 0.0 if plant.islanded or tripped else 1.0
    v[PCS_ALARM] = 1.0 if tripped else (2.0 if plant.islanded else 0.0)
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
    elif v[PCS_OP_CTL] == 0.0 or plant.islanded or pcs.faults & PCS_IN_LOCAL:
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
        return plant.grid_w
    if meter.source == METERS_IT:
        return plant.it_w
    if meter.source == METERS_COOLING:
        return plant.cooling_w
    if meter.source == METERS_PV:
        return plant.pv_w
    if meter.source == METERS_PCS:
        return plant.pcs[meter.index].w
    if meter.source != METERS_CIRCUIT:
        return 0.0
    w = plant.it_w * meter.share
    for i in range(plant.n_pcs):
        if meter.behind >> i & 1:
            w -= plant.pcs[i].w
    return w


cdef void meter_measure(plant_t* plant, meter_t* meter, double* v) noexcept nogil:
    cdef double w = meter_w(plant, meter), volt = 0.0 if plant.islanded else plant.volt
    cdef int phase
    if meter.resolution_w > 0.0:
        w = floor(w / meter.resolution_w + 0.5) * meter.resolution_w
    if meter.faults & METER_REVERSED:
        w = -w
    if meter.faults & METER_NAN:
        w = NAN
    v[METER_W] = w
    v[METER_VA] = fabs(w)
    v[METER_VAR] = 0.0
    for phase in range(3):
        v[METER_W_L1 + phase] = w * plant.phase_share[phase]
        v[METER_V_L1 + phase] = volt
        v[METER_A_L1 + phase] = fabs(w) * plant.phase_share[phase] / plant.volt
    if meter.faults & METER_SWAPPED:
        v[METER_W_L1] = -w * plant.phase_share[1]
        v[METER_W_L2] = -w * plant.phase_share[0]
    v[METER_A] = fabs(w) / plant.volt
    v[METER_V] = volt
    v[METER_HZ] = plant.hz
    v[METER_PF] = 1.0 if w >= 0.0 else -1.0
    v[METER_IMPORT_WH] = meter.import_j / 3600.0
    v[METER_EXPORT_WH] = meter.export_j / 3600.0
    v[METER_TOTAL_WH] = (meter.import_j + meter.export_j) / 3600.0
    v[METER_ZERO] = 0.0


cdef void meter_count(plant_t* plant, meter_t* meter, double dt_s) noexcept nogil:
    cdef double w = meter_w(plant, meter)
    if meter.faults:
        if meter.faults & METER_REVERSED:
            w = -w
        if meter.faults & METER_RESET:
            meter.import_j = 0.0
            meter.export_j = 0.0
    if w >= 0.0:
        meter.import_j += w * dt_s
    else:
        meter.export_j -= w * dt_s


cdef void meter_step(plant_t* plant, meter_t* meter, uint64_t t_ns, double dt_s) noexcept nogil:
    cdef reading_t* reading
    meter_count(plant, meter, dt_s)
    if meter.readings != NULL:
        while meter.tail != meter.head and meter.readings[meter.tail % READINGS_MAX].t_ns + meter.delay_ns <= t_ns:
            reading = &meter.readings[meter.tail % READINGS_MAX]
            meter.shown_t_ns = reading.t_ns + meter.delay_ns
            meter.tail += 1
            if meter.faults & METER_STUCK == 0:
                memcpy(meter.v, reading.v, sizeof(reading.v))
                meter.updates += 1
    if t_ns < meter.next_ns:
        return
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
    plant.slow_left = 1
    for i in range(plant.n_batteries):
        plant.batteries[i].open_v = open_voltage(&plant.batteries[i])
        battery_slow(&plant.batteries[i], 0.0)
    for i in range(plant.n_pcs):
        plant.pcs[i].alpha = lag_share(plant.dt_s, plant.pcs[i].tau_s)
        pcs_refresh(plant, &plant.pcs[i], t_ns)
    for i in range(plant.n_meters):
        plant.meters[i].next_ns += t_ns
        meter_measure(plant, &plant.meters[i], plant.meters[i].v)


cdef void plant_step(plant_t* plant, uint64_t t_ns) noexcept nogil:
    cdef double dt_s = plant.dt_s
    cdef uint32_t i
    cdef totals_t* totals = &plant.totals
    plant.t_ns = t_ns
    load_step(plant, t_ns)
    cooling_step(plant, dt_s)
    plant.load_w = plant.it_w + plant.cooling_w
    plant.ess_w = 0.0
    for i in range(plant.n_pcs):
        pcs_step(plant, &plant.pcs[i], t_ns, dt_s)
        plant.ess_w += plant.pcs[i].w
    plant.slow_left -= 1
    if plant.slow_left == 0:
        plant.slow_left = <uint32_t>(SECOND_NS // 10 // plant.dt_ns)
        for i in range(plant.n_batteries):
            battery_slow(&plant.batteries[i], dt_s * plant.slow_left)
    plant.grid_w = 0.0 if plant.islanded else plant.load_w - plant.pv_w - plant.ess_w
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


# ---------------------------------------------------------------- the floor


def floor_energy(const uint64_t[::1] t_ns, const double[::1] power_w, *, double limit_w, double seconds,
                 double cooling_share, double cooling_mean_s=600.0, double meter_interval_s, double meter_phase_s, double meter_delay_s, double wire_s,
                 double dead_s, double tau_s, double ramp_w_per_s, double discharge_w_max, double charge_w_max=0.0,
                 double recharge_w_max=0.0):
    """What a perfect controller behind the same meter, wire and converter would leave above the limit.

    It knows the load exactly, but only at each update of the meter's registers; one least read and one least write
    later (wire_s) the converter has the setpoint, and answers with the same dead time, lag and ramp. It commands the
    power that is wanted and never more (no overdrive against the lag), has all the energy it needs, and no limit but
    the converter's. With recharge_w_max it also charges, at most charge_w_max, while the grid stays below that power:
    then a step may find it charging.

    t_ns, power_w: rows of IT power, each held until the next. Returns a dict: energy_wh and peak_w above the limit,
    and the same without a battery.
    """
    cdef plant_t plant
    cdef double dt_s = 1e-3, p_w = 0.0, target_w = 0.0, alpha, move_w, most_w, over_w, next_tick_s
    cdef double above_j = 0.0, without_j = 0.0, peak_w = 0.0, peak_without_w = 0.0, wanted_w, at_s
    cdef double[1024] queue_s
    cdef double[1024] queue_w
    cdef uint32_t head = 0, tail = 0
    cdef uint64_t i, steps = <uint64_t>(seconds / dt_s)
    if t_ns.shape[0] == 0 or t_ns.shape[0] != power_w.shape[0]:
        raise ValueError(f"{t_ns.shape[0]} times and {power_w.shape[0]} powers, needs as many of both, at least one")
    if (meter_delay_s + wire_s + dead_s) / meter_interval_s > 1000.0:
        raise ValueError("delay of more than 1000 meter intervals")
    memset(&plant, 0, sizeof(plant))
    plant.dt_ns = 1000000
    plant.volt = 230.0
    plant.load_t_ns = &t_ns[0]
    plant.load_rows_w = &power_w[0]
    plant.load_count = <uint32_t>t_ns.shape[0]
    plant.cooling_share = cooling_share
    plant.cooling_count = <uint32_t>cooling_mean_s if 1.0 <= cooling_mean_s <= COOLING_S else 600
    alpha = lag_share(dt_s, tau_s)
    most_w = ramp_w_per_s * dt_s
    with nogil:
        plant_start(&plant, 0)
        next_tick_s = meter_phase_s
        for i in range(1, steps + 1):
            at_s = <double>i * dt_s
            load_step(&plant, i * 1000000)
            cooling_step(&plant, dt_s)
            plant.load_w = plant.it_w + plant.cooling_w
            while next_tick_s <= at_s:
                wanted_w = plant.load_w - limit_w
                if wanted_w < 0.0:
                    wanted_w = 0.0
                    if plant.load_w < recharge_w_max:
                        wanted_w = plant.load_w - recharge_w_max
                        if wanted_w < -charge_w_max:
                            wanted_w = -charge_w_max
                if wanted_w > discharge_w_max:
                    wanted_w = discharge_w_max
                queue_s[head % 1024] = next_tick_s + meter_delay_s + wire_s + dead_s
                queue_w[head % 1024] = wanted_w
                head += 1
                next_tick_s += meter_interval_s
            while tail != head and queue_s[tail % 1024] <= at_s:
                target_w = queue_w[tail % 1024]
                tail += 1
            move_w = (target_w - p_w) * alpha
            p_w += move_w if fabs(move_w) <= most_w else (most_w if move_w > 0.0 else -most_w)
            over_w = plant.load_w - limit_w
            if plant.load_w > peak_without_w:
                peak_without_w = plant.load_w
            if over_w > 0.0:
                without_j += over_w * dt_s
            over_w -= p_w
            if over_w + limit_w > peak_w:
                peak_w = over_w + limit_w
            if over_w > 0.0:
                above_j += over_w * dt_s
    return {"energy_wh": above_j / 3600.0, "peak_w": peak_w, "energy_without_wh": without_j / 3600.0,
            "peak_without_w": peak_without_w}
