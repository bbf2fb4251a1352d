"""Which rows of the fault table are true now. Debounce, latches and reactions are the gate's (safety.c).

Thresholds come from the table (config/faults.toml): `threshold` and `floor` of a row, in the unit that the row names.
A condition about a signal that the unit's map does not have is never true; one about a signal that is not believable is
judged by the rows that watch over staleness.
"""

from libc.math cimport INFINITY, NAN, fabs, isfinite
from libc.stdint cimport int16_t, uint32_t, uint64_t
from libc.string cimport memset

from tidegate.ext.safety.cabinet cimport STEP_PERMILLE
from tidegate.ext.abi.bits cimport lowest_bit
from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.safety.gate cimport gate_input_from_image
from tidegate.ext.safety.safety cimport fault_set_t, gate_input_t
from tidegate.ext.abi.image cimport (
    MODE_ARMING, MODE_DERATED, MODE_RUN, MODE_TRIPPED, QUALITY_GOOD, QUALITY_HELD, QUALITY_INVALID, QUALITY_NEVER, QUALITY_STALE, SITE_CAN_STATE, SITE_CAN_UNSENT,
    SITE_GRID_AGE_LO_S, SITE_GRID_ANSWER, SITE_LOOP_ESCALATION, SITE_METER_VERDICT, SITE_POINTS, SITE_SHORTFALL_W,
    UNIT_ENVELOPE_HI_W, UNIT_ENVELOPE_LO_W, UNIT_POINTS, UNIT_REQUEST_W, UNIT_SETPOINT_W,
    UNIT_STATE, UNIT_STEP_TEST, UNIT_WRITE_WAIT_S, VERDICT_FROZEN, VERDICT_REGISTER, point_t,
)
from tidegate.ext.abi.program cimport (
    BATTERY_POWER_DC, BATTERY_POWER_NONE, BATTERY_POWER_OWN, BATTERY_POWER_PCS, INPUT_DOOR, INPUT_ESTOP, INPUT_SMOKE, input_row_t, program_t, unit_row_t,
)

cdef double STEP_SHARE = STEP_PERMILLE * 1e-3  # of the nameplate: the step at arming
cdef double STEP_ONE_WAY = 0.5                   # of what flowed to and fro: less is a rest in which lateness shows

cdef extern from *:
    """
    #define FAULT_DEAD_MOST_S 6.0    /* no dead time that was learnt excuses more */
    #define QUALITY_BIT(quality) (1u << ((quality) & 31u))
    """
    uint32_t QUALITY_BIT(uint32_t quality) noexcept nogil
    const double FAULT_DEAD_MOST_S


# ---------------------------------------------------------------- small questions


cdef inline void join(fault_set_t* rows, const fault_set_t* more) noexcept nogil:
    rows.lo |= more.lo
    rows.hi |= more.hi


cdef inline uint32_t seen_as(const point_t* image, int16_t index) noexcept nogil:
    """The reading's quality as a bit; none where the map has no such signal."""
    return QUALITY_BIT(image[index].quality) if index >= 0 else 0


cdef inline bint known(const point_t* image, int16_t index) noexcept nogil:
    if index < 0:
        return False
    return (image[index].quality == QUALITY_GOOD or image[index].quality == QUALITY_HELD) and isfinite(image[index].value)


cdef inline double milli(const program_t* program, int row) noexcept nogil:
    return program.faults[row].threshold_milli * 1e-3


cdef inline double floor_milli(const program_t* program, int row) noexcept nogil:
    return program.faults[row].floor_milli * 1e-3


cdef inline bint high(const point_t* image, int16_t index, double limit) noexcept nogil:
    return known(image, index) and image[index].value > limit


cdef inline bint low(const point_t* image, int16_t index, double limit) noexcept nogil:
    return known(image, index) and image[index].value < limit


cdef inline double fading(double held, double now, double share) noexcept nogil:
    return held + (now - held) * share


# ---------------------------------------------------------------- groups of rows


cdef void bms_rows(const unit_row_t* u, const point_t* image, fault_set_t* rows) noexcept nogil:
    """Rows about hearing from the BMS and about what it says of itself. State of health is too slow to matter here."""
    cdef uint32_t seen = (
        seen_as(image, u.soc) | seen_as(image, u.pack_v) | seen_as(image, u.pack_a)
        | seen_as(image, u.temp_max_c) | seen_as(image, u.temp_min_c)
        | seen_as(image, u.charge_a_max) | seen_as(image, u.discharge_a_max)
        | seen_as(image, u.charge_w_max) | seen_as(image, u.discharge_w_max)
        | seen_as(image, u.cell_v_max) | seen_as(image, u.cell_v_min)
        | seen_as(image, u.charge_ok) | seen_as(image, u.discharge_ok)
        | seen_as(image, u.alarm) | seen_as(image, u.warning)
    )
    cdef bint stale = (seen & QUALITY_BIT(QUALITY_STALE)) != 0
    cdef bint charge_off = low(image, u.charge_ok, 0.5) or low(image, u.charge_a_max, 1e-9) or low(image, u.charge_w_max, 1e-9)
    cdef bint discharge_off = (
        low(image, u.discharge_ok, 0.5) or low(image, u.discharge_a_max, 1e-9) or low(image, u.discharge_w_max, 1e-9)
    )
    mark(rows, FAULT_BMS_NEVER, (seen & QUALITY_BIT(QUALITY_NEVER)) != 0)
    mark(rows, FAULT_BMS_STALE, stale)
    mark(rows, FAULT_BMS_SILENT, stale)
    mark(rows, FAULT_BMS_INVALID, (seen & QUALITY_BIT(QUALITY_INVALID)) != 0)
    mark(rows, FAULT_BMS_WARNING, known(image, u.warning) and image[u.warning].value != 0.0)
    mark(rows, FAULT_BMS_ALARM, known(image, u.alarm) and image[u.alarm].value != 0.0)
    mark(rows, FAULT_BMS_INHIBIT, charge_off and discharge_off)


cdef inline void above(fault_set_t* rows, const program_t* program, int row, const point_t* image, int16_t index,
                       double limit, fault_set_t held) noexcept nogil:
    """Beyond limit + threshold; once there, until it is `floor` below that."""
    cdef double back = floor_milli(program, row) if holds(held, row) else 0.0
    mark(rows, row, high(image, index, limit + milli(program, row) - back))


cdef inline void below(fault_set_t* rows, const program_t* program, int row, const point_t* image, int16_t index,
                       double limit, fault_set_t held) noexcept nogil:
    cdef double back = floor_milli(program, row) if holds(held, row) else 0.0
    mark(rows, row, low(image, index, limit - milli(program, row) + back))


cdef void level_rows(const program_t* program, const unit_row_t* u, const point_t* image,
                         diagnose_state_t* state, fault_set_t* rows) noexcept nogil:
    """Three levels of temperature and cell voltage, each an offset from the unit's own limit; pack voltage; SoC."""
    cdef double temp_max_c = u.gate.temp_max_ddegc * 0.1, temp_min_c = u.gate.temp_min_ddegc * 0.1
    cdef double cell_v_max = u.gate.cell_mv_max * 1e-3, cell_v_min = u.gate.cell_mv_min * 1e-3
    cdef fault_set_t held = state.levels
    cdef fault_set_t now = fault_set_t(0, 0)
    above(&now, program, FAULT_TEMP_HIGH_WARN, image, u.temp_max_c, temp_max_c, held)
    above(&now, program, FAULT_TEMP_HIGH_STOP, image, u.temp_max_c, temp_max_c, held)
    above(&now, program, FAULT_TEMP_HIGH_TRIP, image, u.temp_max_c, temp_max_c, held)
    below(&now, program, FAULT_TEMP_LOW_WARN, image, u.temp_min_c, temp_min_c, held)
    below(&now, program, FAULT_TEMP_LOW_STOP, image, u.temp_min_c, temp_min_c, held)
    below(&now, program, FAULT_TEMP_LOW_TRIP, image, u.temp_min_c, temp_min_c, held)
    below(&now, program, FAULT_SOC_LOW, image, u.soc, u.gate.soc_min_cpct * 1e-4, held)
    above(&now, program, FAULT_SOC_HIGH, image, u.soc, u.gate.soc_max_cpct * 1e-4, held)
    if u.gate.cell_mv_max > 0:
        above(&now, program, FAULT_CELL_HIGH_WARN, image, u.cell_v_max, cell_v_max, held)
        above(&now, program, FAULT_CELL_HIGH_STOP, image, u.cell_v_max, cell_v_max, held)
        above(&now, program, FAULT_CELL_HIGH_TRIP, image, u.cell_v_max, cell_v_max, held)
    if u.gate.cell_mv_min > 0:
        below(&now, program, FAULT_CELL_LOW_WARN, image, u.cell_v_min, cell_v_min, held)
        below(&now, program, FAULT_CELL_LOW_STOP, image, u.cell_v_min, cell_v_min, held)
        below(&now, program, FAULT_CELL_LOW_TRIP, image, u.cell_v_min, cell_v_min, held)
    if known(image, u.charge_v_max):
        above(&now, program, FAULT_PACK_V_HIGH, image, u.pack_v, image[u.charge_v_max].value, held)
    if known(image, u.discharge_v_min):
        below(&now, program, FAULT_PACK_V_LOW, image, u.pack_v, image[u.discharge_v_min].value, held)
    state.levels = now
    join(rows, &now)


cdef void pcs_rows(const program_t* program, const unit_row_t* u, const point_t* image, fault_set_t* rows) noexcept nogil:
    cdef uint32_t seen = (
        seen_as(image, u.pcs_w) | seen_as(image, u.pcs_state) | seen_as(image, u.pcs_fault) | seen_as(image, u.pcs_ready)
        | seen_as(image, u.identity[0]) | seen_as(image, u.identity[1]) | seen_as(image, u.identity[2])
        | (seen_as(image, u.dc_v) | seen_as(image, u.dc_a) if u.battery_power == BATTERY_POWER_DC else 0)
        | (seen_as(image, u.battery_w) if u.battery_power == BATTERY_POWER_OWN else 0)
    )
    cdef bint stale = (seen & QUALITY_BIT(QUALITY_STALE)) != 0
    mark(rows, FAULT_PCS_NEVER, (seen & QUALITY_BIT(QUALITY_NEVER)) != 0)
    mark(rows, FAULT_PCS_STALE, stale)
    mark(rows, FAULT_PCS_LOST, stale)
    mark(rows, FAULT_PCS_INVALID, (seen & QUALITY_BIT(QUALITY_INVALID)) != 0)
    mark(rows, FAULT_PCS_FAULT, known(image, u.pcs_fault) and image[u.pcs_fault].value != 0.0)
    mark(rows, FAULT_PCS_NOT_READY, low(image, u.pcs_ready, 0.5))
    mark(rows, FAULT_PCS_WATCHDOG, no_watchdog(u, image, milli(program, FAULT_PCS_WATCHDOG)))


cdef bint no_watchdog(const unit_row_t* u, const point_t* image, double most_s) noexcept nogil:
    """Whether nothing says that the PCS stops by itself when its setpoints stop.

    An acknowledged write is no watchdog: what cannot be read back counts as off, and so does what the map cannot read at
    all, unless this installation's own time was measured. A register that says "off" outweighs a measurement of before,
    and a measurement that is too long a register.
    """
    if low(image, u.pcs_revert_s, 0.001) or high(image, u.pcs_revert_s, most_s) or u.revert_measured_s > most_s:
        return True
    return not known(image, u.pcs_revert_s) and not u.revert_measured_s > 0.0


cdef inline double faded_down(double old_w, double now_w, double share, double fall_w) noexcept nogil:
    """The lower edge of where a converter may be: down at once, up as it fades and no faster than its ramp."""
    return fmin(now_w, fmin(fading(old_w, now_w, share), old_w + fall_w))


cdef inline bint span_ends(diagnose_state_t* state, double dt_s) noexcept nogil:
    """Whether a span of the dead time is over, and the next one begins."""
    state.dead_left_s -= dt_s
    if state.dead_left_s > 0.0:
        return False
    state.dead_left_s = fmin(state.answer_dead_s, FAULT_DEAD_MOST_S)
    return True


cdef inline void late(late_t* seen, bint ends, double dead_s, double* lo_w, double* hi_w) noexcept nogil:
    """Widens what is allowed now by all that a converter with this dead time may still be answering: of one span, or of two."""
    if ends:
        seen.before_lo_w = seen.lo_w
        seen.before_hi_w = seen.hi_w
        seen.lo_w, seen.hi_w = lo_w[0], hi_w[0]
    seen.lo_w = fmin(seen.lo_w, lo_w[0])
    seen.hi_w = fmax(seen.hi_w, hi_w[0])
    if dead_s > 0.0:
        lo_w[0] = fmin(seen.lo_w, seen.before_lo_w)
        hi_w[0] = fmax(seen.hi_w, seen.before_hi_w)


cdef void follow_rows(const program_t* program, const unit_row_t* u, int unit, const point_t* image,
                          diagnose_state_t* state, double dt_s, fault_set_t* rows) noexcept nogil:
    """Whether the PCS does as it was told.

    Its answer lags behind, and its reading behind its answer. So it is compared with a band that holds every setpoint
    of late, old ones fading with the PCS's own time constant, and likewise with the envelopes of late: a battery may lower
    its limit at once, and what a late converter gives then was told before. A converter that
    gives less than it is told (derating, constant voltage, a slow ramp) is no hazard: it is told, and nothing is taken
    away. More than told, or the other direction, is. Where no reading is the battery's alone, what comes beyond a
    setpoint may be the modules': they only ever add, so what goes below is judged as everywhere.
    """
    cdef int first = SITE_POINTS + unit * UNIT_POINTS
    cdef double setpoint_w = image[first + UNIT_SETPOINT_W].value
    cdef double lo_w = image[first + UNIT_ENVELOPE_LO_W].value, hi_w = image[first + UNIT_ENVELOPE_HI_W].value
    cdef double nameplate_w = fmax(u.gate.charge_w_max, u.gate.discharge_w_max)
    cdef double share = fmin(1.0, dt_s / fmax(FAULT_FOLLOW_TAU_S, 3.0 * fmax(program.control.pcs_tau_s, state.answer_lag_s)))
    cdef double told_lo_w, told_hi_w, fall_w
    cdef bint ends
    cdef double pcs_w, off_w, out_w, short_w
    cdef double own_w = INFINITY if u.battery_power == BATTERY_POWER_NONE else 0.0  # what modules may give to the reading
    if not (isfinite(setpoint_w) and isfinite(lo_w) and isfinite(hi_w)):  # before the first cycle has been published
        setpoint_w = lo_w = hi_w = 0.0
    if not state.started:
        # What the PCS did before we came is not held against it at once.
        pcs_w = image[u.pcs_w].value if known(image, u.pcs_w) else 0.0
        state.started = known(image, u.pcs_w)
        state.follow_lo_w = state.allowed_lo_w = fmin(pcs_w, 0.0)
        state.follow_hi_w = state.allowed_hi_w = fmax(pcs_w, 0.0)
    told_lo_w = told_hi_w = setpoint_w
    ends = span_ends(state, dt_s)
    late(&state.told, ends, state.answer_dead_s, &told_lo_w, &told_hi_w)
    late(&state.envelope, ends, state.answer_dead_s, &lo_w, &hi_w)
    fall_w = state.answer_ramp_w_per_s * dt_s if state.answer_ramp_w_per_s > 0.0 else 1e12
    state.follow_lo_w = faded_down(state.follow_lo_w, told_lo_w, share, fall_w)
    state.follow_hi_w = -faded_down(-state.follow_hi_w, -told_hi_w, share, fall_w)
    state.allowed_lo_w = faded_down(state.allowed_lo_w, lo_w, share, fall_w)
    state.allowed_hi_w = -faded_down(-state.allowed_hi_w, -hi_w, share, fall_w)
    if not known(image, u.pcs_w):
        return
    pcs_w = image[u.pcs_w].value
    off_w = fmax(pcs_w - own_w - fmax(state.follow_hi_w, 0.0), fmin(state.follow_lo_w, 0.0) - pcs_w)
    short_w = fmax(state.follow_lo_w - fmax(pcs_w, 0.0), fmin(pcs_w, 0.0) - own_w - state.follow_hi_w)
    if u.battery_power == BATTERY_POWER_OWN and known(image, u.battery_w):  # the envelope is the battery's
        out_w = fmax(image[u.battery_w].value - state.allowed_hi_w, state.allowed_lo_w - image[u.battery_w].value)
    else:
        out_w = fmax(pcs_w - own_w - state.allowed_hi_w, state.allowed_lo_w - pcs_w)
    mark(rows, FAULT_PCS_NOT_FOLLOWING, off_w > fmax(milli(program, FAULT_PCS_NOT_FOLLOWING) * nameplate_w,
                                                  floor_milli(program, FAULT_PCS_NOT_FOLLOWING)))
    mark(rows, FAULT_PCS_SHORT, short_w > fmax(milli(program, FAULT_PCS_SHORT) * nameplate_w, floor_milli(program, FAULT_PCS_SHORT)))
    mark(rows, FAULT_PCS_RUNAWAY, off_w > fmax(milli(program, FAULT_PCS_RUNAWAY) * nameplate_w,
                                                  floor_milli(program, FAULT_PCS_RUNAWAY)))
    mark(rows, FAULT_PCS_OUTSIDE, out_w > fmax(milli(program, FAULT_PCS_OUTSIDE) * nameplate_w, floor_milli(program, FAULT_PCS_OUTSIDE)))
    mark(rows, FAULT_PCS_OUTSIDE_LONG, out_w > fmax(milli(program, FAULT_PCS_OUTSIDE_LONG) * nameplate_w, floor_milli(program, FAULT_PCS_OUTSIDE_LONG)))


cdef inline bint aligned(const point_t* image, int16_t a, int16_t b) noexcept nogil:
    cdef uint64_t apart
    if not (known(image, a) and known(image, b)):
        return False
    apart = image[a].t_ns - image[b].t_ns if image[a].t_ns > image[b].t_ns else image[b].t_ns - image[a].t_ns
    return apart <= FAULT_ALIGN_NS


cdef inline bint apart(const program_t* program, int row, double a, double b) noexcept nogil:
    return fabs(a - b) > fmax(milli(program, row) * fmax(fabs(a), fabs(b)), floor_milli(program, row))


cdef void cross_rows(const program_t* program, const unit_row_t* u, const point_t* image,
                         diagnose_state_t* state, fault_set_t* rows) noexcept nogil:
    """BMS and PCS measure the same wires. Compared only while both readings are of one moment, remembered between."""
    if aligned(image, u.pack_v, u.dc_v):
        state.dc_bits = (state.dc_bits & 2) | apart(program, FAULT_DC_V_MISMATCH, image[u.pack_v].value, image[u.dc_v].value)
    if aligned(image, u.pack_a, u.dc_a):
        state.dc_bits = (state.dc_bits & 1) | (
            <uint32_t>apart(program, FAULT_DC_A_MISMATCH, image[u.pack_a].value, image[u.dc_a].value) << 1
        )
    mark(rows, FAULT_DC_V_MISMATCH, state.dc_bits & 1)
    mark(rows, FAULT_DC_A_MISMATCH, state.dc_bits >> 1)
    mark(rows, FAULT_DC_MISMATCH_LONG, state.dc_bits != 0)


cdef void soc_rows(const program_t* program, const unit_row_t* u, const point_t* image, diagnose_state_t* state,
                       double dt_s, fault_set_t* rows) noexcept nogil:
    """SoC against itself (no jump between two readings) and against the energy that was counted for an hour."""
    cdef const point_t* soc
    cdef bint jumped = False
    cdef double drift
    if not known(image, u.soc):
        state.soc_t_ns = 0
        mark(rows, FAULT_SOC_DRIFT, state.drifted)
        return
    soc = &image[u.soc]
    if state.soc_t_ns == 0:
        state.drift_s = 0.0
    elif soc.t_ns != state.soc_t_ns:
        jumped = fabs(soc.value - state.soc) > milli(program, FAULT_SOC_JUMP)
    state.soc = soc.value
    state.soc_t_ns = soc.t_ns
    if known(image, u.pack_v) and known(image, u.pack_a) and u.energy_wh > 0.0:
        if state.drift_s == 0.0:
            state.drift_soc = soc.value
            state.drift_ws = 0.0
        state.drift_ws += image[u.pack_v].value * image[u.pack_a].value * dt_s
        state.drift_s += dt_s
        if state.drift_s >= FAULT_DRIFT_WINDOW_S:
            drift = state.drift_soc - soc.value - state.drift_ws / (3600.0 * u.energy_wh)
            state.drifted = fabs(drift) > milli(program, FAULT_SOC_DRIFT)
            state.drift_s = 0.0
    mark(rows, FAULT_SOC_JUMP, jumped)
    mark(rows, FAULT_SOC_DRIFT, state.drifted)


# ---------------------------------------------------------------- the battery as the converter's witness


cdef inline double battery_power_w(const unit_row_t* u, const point_t* image) noexcept nogil:
    """What one converter says of its battery's power; NAN where no reading of its map is that, or none is believed."""
    if u.battery_power == BATTERY_POWER_DC:
        return image[u.dc_v].value * image[u.dc_a].value if known(image, u.dc_v) and known(image, u.dc_a) else NAN
    if u.battery_power == BATTERY_POWER_OWN:
        return image[u.battery_w].value if known(image, u.battery_w) else NAN
    return image[u.pcs_w].value if u.battery_power == BATTERY_POWER_PCS and known(image, u.pcs_w) else NAN


cdef double battery_share_w(const program_t* program, const unit_row_t* u, const point_t* image,
                            diagnose_state_t* state) noexcept nogil:
    """Power of all converters on this unit's battery, known by its current being the same point; NAN if one does not tell."""
    cdef double sum_w = 0.0
    cdef uint32_t i, left
    if state.sharers == 0:  # which they are never changes
        for i in range(program.n_units):
            if program.units[i].pack_a == u.pack_a and program.units[i].soc == u.soc:
                state.sharers |= <uint32_t>1 << i
    left = state.sharers
    while left:
        i = lowest_bit(left)
        left &= left - 1
        sum_w += battery_power_w(&program.units[i], image)
    return sum_w


cdef void power_rows(const program_t* program, const unit_row_t* u, int unit, const point_t* image,
                     diagnose_state_t* state, double dt_s, fault_set_t* rows) noexcept nogil:
    """The converter's power against the battery's volts times amperes, in sign and size, and once more at arming.

    The BMS speaks later than the converter, and some take means: so both are smoothed, and what is allowed goes by the
    largest power lately. Of the step at arming the energies are compared, in which lateness does not show while most of
    them flow one way: of pulses to and fro what is left is small, and a late BMS has another rest.
    """
    cdef int first = SITE_POINTS + unit * UNIT_POINTS
    cdef double nameplate_w = fmax(u.gate.charge_w_max, u.gate.discharge_w_max)
    cdef double share = fmin(1.0, dt_s / FAULT_POWER_TAU_S), mode = image[first + UNIT_STATE].value
    cdef double pcs_w = battery_share_w(program, u, image, state), pack_w, apart_w
    if isfinite(pcs_w) and known(image, u.pack_v) and known(image, u.pack_a):
        pack_w = image[u.pack_v].value * image[u.pack_a].value
        state.pcs_slow_w = fading(state.pcs_slow_w, pcs_w, share)
        state.pack_slow_w = fading(state.pack_slow_w, pack_w, share)
        state.power_seen_w = fmax(fmax(fabs(pcs_w), fabs(pack_w)), fading(state.power_seen_w, 0.0, 0.5 * share))
        apart_w = fabs(state.pcs_slow_w - state.pack_slow_w)
        state.power_apart = apart_w > fmax(
            milli(program, FAULT_PCS_POWER_APART) * state.power_seen_w,
            fmax(floor_milli(program, FAULT_PCS_POWER_APART), FAULT_POWER_SHARE * nameplate_w))
        if mode == MODE_ARMING and (state.step_pcs_ws != 0.0 or image[first + UNIT_SETPOINT_W].value != 0.0):
            state.step_pcs_ws += (pcs_w - state.step_pcs_w) * dt_s
            state.step_both_ws += fabs(pcs_w - state.step_pcs_w) * dt_s
            state.step_pack_ws += (pack_w - state.step_pack_w) * dt_s
        elif mode == MODE_ARMING or mode == MODE_TRIPPED:
            state.step_pcs_w = pcs_w
            state.step_pack_w = pack_w
        if mode != MODE_ARMING and mode != MODE_TRIPPED:
            state.step_pcs_ws = state.step_pack_ws = state.step_both_ws = 0.0
    mark(rows, FAULT_PCS_POWER_APART, state.power_apart)
    mark(rows, FAULT_PCS_OPPOSED,
         fabs(state.step_pcs_ws) > fmax(FAULT_STEP_S * STEP_SHARE * nameplate_w, STEP_ONE_WAY * state.step_both_ws)
         and state.step_pcs_ws * state.step_pack_ws < 0.0
         and fabs(state.step_pack_ws) > milli(program, FAULT_PCS_OPPOSED) * fabs(state.step_pcs_ws))


cdef inline bint still_step(const point_t* image, int16_t index, double* kept) noexcept nogil:
    """Whether a reading is another one than before; one that is missing or not believable is not."""
    if not known(image, index) or image[index].value == kept[0]:
        return False
    kept[0] = image[index].value
    return True


cdef bint bms_still(const unit_row_t* u, const point_t* image, diagnose_state_t* state, double pcs_w, double nameplate_w,
                    double most_s, double dt_s) noexcept nogil:
    """Every reading to the bit as it was, through readings that came, though the power is another one since.

    Volts times amperes that are the power of now show that a BMS has seen the move, before the converter told it.
    """
    cdef uint32_t changes = image[u.soc].changes
    cdef double far_w = fmax(FAULT_STILL_SHARE * nameplate_w, FAULT_STILL_W)
    cdef bint moved = still_step(image, u.soc, &state.still[0])
    moved |= still_step(image, u.pack_v, &state.still[1])
    moved |= still_step(image, u.pack_a, &state.still[2])
    moved |= still_step(image, u.cell_v_max, &state.still[3])
    moved |= still_step(image, u.cell_v_min, &state.still[4])
    moved |= still_step(image, u.temp_max_c, &state.still[5])
    moved |= still_step(image, u.temp_min_c, &state.still[6])
    if known(image, u.pack_v) and known(image, u.pack_a):
        moved |= fabs(image[u.pack_v].value * image[u.pack_a].value - pcs_w) <= far_w
    if moved:
        state.still_lo_w = state.still_hi_w = pcs_w
    state.still_lo_w = fmin(state.still_lo_w, pcs_w)
    state.still_hi_w = fmax(state.still_hi_w, pcs_w)
    if state.still_hi_w - state.still_lo_w <= far_w:
        state.still_s = 0.0
        state.still_changes = changes
        return False
    state.still_s += dt_s
    return state.still_s >= most_s and changes - state.still_changes >= <uint32_t>FAULT_STILL_READINGS


cdef bint soc_stands(const unit_row_t* u, const point_t* image, diagnose_state_t* state, double soc_before, double pcs_w,
                     double nameplate_w, double room, double jump, double dt_s) noexcept nogil:
    """Whether the state of charge follows the energy that the converter counts: it moves, and by about as much."""
    cdef double soc = image[u.soc].value, capacity_ws = 3600.0 * u.energy_wh, off
    cdef bint ends
    if soc != soc_before:
        state.stands_net_ws = state.stands_ws = 0.0
    if state.hour_s == 0.0 or state.hour_s >= FAULT_DRIFT_WINDOW_S or fabs(soc - soc_before) > jump or not (
        FAULT_ENDS_SOC <= soc <= 1.0 - FAULT_ENDS_SOC
    ):
        state.hour_soc = soc
        state.hour_net_ws = state.hour_ws = state.hour_s = 0.0
    state.hour_s += dt_s
    if fabs(pcs_w) > FAULT_IDLE_SHARE * nameplate_w:
        state.stands_net_ws += pcs_w * dt_s
        state.stands_ws += fabs(pcs_w) * dt_s
        state.hour_net_ws += pcs_w * dt_s
        state.hour_ws += fabs(pcs_w) * dt_s
    ends = soc < FAULT_ENDS_SOC and state.stands_net_ws > 0.0 or soc > 1.0 - FAULT_ENDS_SOC and state.stands_net_ws < 0.0
    off = fabs((state.hour_soc - soc) * capacity_ws - state.hour_net_ws) - FAULT_LOSS_SHARE * state.hour_ws
    return (
        fabs(state.stands_net_ws) - FAULT_LOSS_SHARE * state.stands_ws > room * (FAULT_ENDS_TIMES if ends else 1.0) * capacity_ws
        or off > FAULT_SOC_APART * capacity_ws
    )


cdef void stuck_rows(const program_t* program, const unit_row_t* u, const point_t* image, diagnose_state_t* state,
                     double dt_s, fault_set_t* rows) noexcept nogil:
    """Readings that are fresh, each good by itself, and not of now."""
    cdef double nameplate_w = fmax(u.gate.charge_w_max, u.gate.discharge_w_max), soc_before = state.still[0]
    cdef double pcs_w = battery_share_w(program, u, image, state)
    cdef bint stuck
    if not (isfinite(pcs_w) and known(image, u.soc)):
        return
    stuck = bms_still(u, image, state, pcs_w, nameplate_w, floor_milli(program, FAULT_BMS_STUCK), dt_s)
    if u.energy_wh > 0.0:
        stuck |= soc_stands(u, image, state, soc_before, pcs_w, nameplate_w, milli(program, FAULT_BMS_STUCK),
                            milli(program, FAULT_SOC_JUMP), dt_s)
    mark(rows, FAULT_BMS_STUCK, stuck)


# ---------------------------------------------------------------- the site and the controller itself


cdef void meter_rows(const program_t* program, const point_t* image, fault_set_t* rows) noexcept nogil:
    cdef int16_t grid = program.site.grid_w
    cdef uint32_t seen = (
        seen_as(image, grid) | seen_as(image, program.site.grid_w_l[0]) | seen_as(image, program.site.grid_w_l[1])
        | seen_as(image, program.site.grid_w_l[2])
    )
    cdef uint32_t pv = seen_as(image, program.site.pv_w)
    cdef const point_t* verdict = &image[SITE_METER_VERDICT]
    cdef bint judged = verdict.quality == QUALITY_GOOD
    mark(rows, FAULT_METER_NEVER, (seen & QUALITY_BIT(QUALITY_NEVER)) != 0)
    mark(rows, FAULT_METER_STALE, (seen & QUALITY_BIT(QUALITY_STALE)) != 0)
    mark(rows, FAULT_METER_INVALID, (seen & QUALITY_BIT(QUALITY_INVALID)) != 0)
    mark(rows, FAULT_METER_STUCK, judged and verdict.value == VERDICT_FROZEN)
    mark(rows, FAULT_PV_LOST, (pv & ~(QUALITY_BIT(QUALITY_GOOD) | QUALITY_BIT(QUALITY_HELD))) != 0)
    mark(rows, FAULT_GRID_OVER_LIMIT, image[SITE_SHORTFALL_W].value > milli(program, FAULT_GRID_OVER_LIMIT))


cdef void input_rows(const program_t* program, const point_t* image, fault_set_t* rows) noexcept nogil:
    """Rows about contacts. One that nobody can read is a row of its own; whether it is closed, nobody knows."""
    cdef const input_row_t* row
    cdef uint32_t i
    for i in range(program.n_inputs):
        row = &program.inputs[i]
        if not known(image, row.point):
            mark(rows, FAULT_INPUT_LOST, True)
        elif image[row.point].value != 0.0:
            mark(rows, FAULT_DOOR_OPEN, row.what == INPUT_DOOR)
            mark(rows, FAULT_SMOKE, row.what == INPUT_SMOKE)
            mark(rows, FAULT_ESTOP, row.what == INPUT_ESTOP)


cdef void own_rows(const program_t* program, int unit, const point_t* image, double dt_s, fault_set_t* rows) noexcept nogil:
    """Rows about the controller itself, from what the loop published the cycle before."""
    cdef double escalation = image[SITE_LOOP_ESCALATION].value
    cdef int first = SITE_POINTS + unit * UNIT_POINTS
    cdef const point_t* request = &image[first + UNIT_REQUEST_W]
    cdef double mode = image[first + UNIT_STATE].value
    # A verdict on the meter stands, for people to see, until the next arming asks anew; it must be possible to get there.
    cdef bint moves = mode == MODE_ARMING or mode == MODE_RUN or mode == MODE_DERATED
    mark(rows, FAULT_LOOP_LATE, escalation >= 1.0)
    mark(rows, FAULT_LOOP_UNSAFE, escalation >= 2.0)
    mark(rows, FAULT_LOOP_SILENT, escalation >= 3.0)
    mark(rows, FAULT_LOOP_PAUSE, dt_s > milli(program, FAULT_LOOP_PAUSE))
    mark(rows, FAULT_REQUEST_INVALID, request.quality != QUALITY_NEVER and not isfinite(request.value))
    mark(rows, FAULT_PCS_STEP_FAILED, high(image, <int16_t>(first + UNIT_STEP_TEST), 1.5))
    mark(rows, FAULT_GRID_UNMOVED, (high(image, SITE_GRID_ANSWER, 1.5) and low(image, SITE_GRID_ANSWER, 2.5)) or (moves and high(image, SITE_METER_VERDICT, VERDICT_FROZEN + 0.5) and low(image, SITE_METER_VERDICT, VERDICT_REGISTER + 0.5)))
    mark(rows, FAULT_METER_PHASES, moves and high(image, SITE_METER_VERDICT, VERDICT_REGISTER + 0.5))
    mark(rows, FAULT_METER_OLDER, program.control.meter_latency_s_max > 0.0 and high(image, SITE_GRID_AGE_LO_S, program.control.meter_latency_s_max + milli(program, FAULT_METER_OLDER)))
    mark(rows, FAULT_GRID_UNPROVEN, high(image, SITE_GRID_ANSWER, 2.5))
    mark(rows, FAULT_PCS_WRITE_LOST, high(image, <int16_t>(first + UNIT_WRITE_WAIT_S), milli(program, FAULT_PCS_WRITE_LOST)))
    mark(rows, FAULT_CAN_PASSIVE, high(image, SITE_CAN_STATE, 1.5) and low(image, SITE_CAN_STATE, 2.5))
    mark(rows, FAULT_CAN_OFF, high(image, SITE_CAN_STATE, 2.5))
    mark(rows, FAULT_CAN_UNSENT, high(image, SITE_CAN_UNSENT, milli(program, FAULT_CAN_UNSENT)))


cdef void diagnose(const program_t* program, int unit, const point_t* image, diagnose_state_t* state,
                   uint64_t t_ns, uint64_t dt_ns, fault_set_t* rows) noexcept nogil:
    cdef const unit_row_t* u = &program.units[unit]
    cdef double dt_s = <double>dt_ns * 1e-9
    rows.lo = rows.hi = 0
    bms_rows(u, image, rows)
    level_rows(program, u, image, state, rows)
    soc_rows(program, u, image, state, dt_s, rows)
    cross_rows(program, u, image, state, rows)
    pcs_rows(program, u, image, rows)
    follow_rows(program, u, unit, image, state, dt_s, rows)
    power_rows(program, u, unit, image, state, dt_s, rows)
    stuck_rows(program, u, image, state, dt_s, rows)
    meter_rows(program, image, rows)
    own_rows(program, unit, image, dt_s, rows)
    input_rows(program, image, rows)


# ---------------------------------------------------------------- what Python sees

FAULT_IDS = tuple(FAULT_NAMES[row].decode() for row in range(FAULTS))


cdef class Diagnosis:
    """One unit's diagnosis with its memory, for tests and tools.

    program : bytes of a compiled site; unit : which of its storage units.
    """
    cdef diagnose_state_t state
    cdef object program
    cdef int unit

    def __init__(self, const unsigned char[::1] program not None, int unit=0):
        cdef const program_t* site = <const program_t*>&program[0]
        if <size_t>program.shape[0] < sizeof(program_t):
            raise ValueError(f"program: {program.shape[0]} bytes, needs at least {sizeof(program_t)}")
        if not 0 <= unit < <int>site.n_units:
            raise IndexError(f"unit {unit}: this site has {site.n_units}")
        self.program = program
        self.unit = unit
        memset(&self.state, 0, sizeof(self.state))

    def step(self, const unsigned char[::1] image not None, uint64_t t_ns, uint64_t dt_ns=1000000):
        """Ids of the conditions present, in the order of the table. image : bytes of the image's points."""
        cdef const unsigned char[::1] view = self.program
        cdef const program_t* site = <const program_t*>&view[0]
        cdef fault_set_t rows
        if <size_t>image.shape[0] < site.n_points * sizeof(point_t):
            raise ValueError(f"image: {image.shape[0]} bytes, needs {site.n_points * sizeof(point_t)}")
        diagnose(site, self.unit, <const point_t*>&image[0], &self.state, t_ns, dt_ns, &rows)
        return [FAULT_IDS[row] for row in range(FAULTS) if holds(rows, row)]

    def repeat(self, const unsigned char[::1] image not None, uint64_t t_ns, int count):
        """Run `count` cycles of 1 ms with one image, the gate's input included; for measuring. Returns the last bits."""
        cdef const unsigned char[::1] view = self.program
        cdef const program_t* site = <const program_t*>&view[0]
        cdef gate_input_t out
        cdef fault_set_t rows, seen = fault_set_t(0, 0)
        cdef int i
        if <size_t>image.shape[0] < site.n_points * sizeof(point_t):
            raise ValueError(f"image: {image.shape[0]} bytes, needs {site.n_points * sizeof(point_t)}")
        with nogil:
            for i in range(count):
                gate_input_from_image(site, self.unit, <const point_t*>&image[0], &out)
                diagnose(site, self.unit, <const point_t*>&image[0], &self.state, t_ns + i * 1000000u, 1000000, &rows)
                join(&seen, &rows)
        return int(seen.lo) | int(seen.hi) << 64
