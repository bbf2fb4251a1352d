"""Which rows of the fault table are true now. Debounce, latches and reactions are the gate's (safety.c).

Thresholds come from the table (config/faults.toml): `threshold` and `floor` of a row, in the unit that the row names.
A condition about a signal that the unit's map does not have is never true; one about a signal that is not believable is
judged by the rows that watch over staleness.
"""

from libc.math cimport fabs, isfinite
from libc.stdint cimport int16_t, uint32_t, uint64_t
from libc.string cimport memset

from tidegate.ext.safety.gate cimport gate_input_from_image
from tidegate.ext.safety.safety cimport gate_input_t
from tidegate.ext.abi.image cimport (
    QUALITY_GOOD, QUALITY_HELD, QUALITY_INVALID, QUALITY_NEVER, QUALITY_STALE, SITE_CAN_STATE, SITE_CAN_UNSENT,
    SITE_LOOP_ESCALATION, SITE_POINTS, SITE_SHORTFALL_W, UNIT_ENVELOPE_HI_W, UNIT_ENVELOPE_LO_W, UNIT_POINTS,
    UNIT_REQUEST_W, UNIT_SETPOINT_W, UNIT_STEP_TEST, UNIT_WRITE_WAIT_S, point_t,
)
from tidegate.ext.abi.program cimport program_t, unit_row_t

cdef extern from *:
    """
    #define QUALITY_BIT(quality) (1u << ((quality) & 31u))
    """
    uint32_t QUALITY_BIT(uint32_t quality) noexcept nogil


# ---------------------------------------------------------------- small questions


# fmin and fmax are calls on plain x86-64; nothing here is a NaN.
cdef inline double fmax(double a, double b) noexcept nogil:
    return a if a > b else b


cdef inline double fmin(double a, double b) noexcept nogil:
    return a if a < b else b


cdef inline uint64_t bit(int row, bint present) noexcept nogil:
    return <uint64_t>present << row


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


cdef uint64_t bms_rows(const unit_row_t* u, const point_t* image) noexcept nogil:
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
    return (
        bit(FAULT_BMS_NEVER, (seen & QUALITY_BIT(QUALITY_NEVER)) != 0)
        | bit(FAULT_BMS_STALE, stale)
        | bit(FAULT_BMS_SILENT, stale)
        | bit(FAULT_BMS_INVALID, (seen & QUALITY_BIT(QUALITY_INVALID)) != 0)
        | bit(FAULT_BMS_WARNING, known(image, u.warning) and image[u.warning].value != 0.0)
        | bit(FAULT_BMS_ALARM, known(image, u.alarm) and image[u.alarm].value != 0.0)
        | bit(FAULT_BMS_INHIBIT, charge_off and discharge_off)
    )


cdef inline uint64_t above(const program_t* program, int row, const point_t* image, int16_t index, double limit,
                           uint64_t held) noexcept nogil:
    """Beyond limit + threshold; once there, until it is `floor` below that."""
    return bit(row, high(image, index, limit + milli(program, row) - (floor_milli(program, row) if (held >> row) & 1 else 0.0)))


cdef inline uint64_t below(const program_t* program, int row, const point_t* image, int16_t index, double limit,
                           uint64_t held) noexcept nogil:
    return bit(row, low(image, index, limit - milli(program, row) + (floor_milli(program, row) if (held >> row) & 1 else 0.0)))


cdef uint64_t level_rows(const program_t* program, const unit_row_t* u, const point_t* image,
                         diagnose_state_t* state) noexcept nogil:
    """Three levels of temperature and cell voltage, each an offset from the unit's own limit; pack voltage; SoC."""
    cdef double temp_max_c = u.gate.temp_max_ddegc * 0.1, temp_min_c = u.gate.temp_min_ddegc * 0.1
    cdef double cell_v_max = u.gate.cell_mv_max * 1e-3, cell_v_min = u.gate.cell_mv_min * 1e-3
    cdef uint64_t held = state.levels
    cdef uint64_t bits = (
        above(program, FAULT_TEMP_HIGH_WARN, image, u.temp_max_c, temp_max_c, held)
        | above(program, FAULT_TEMP_HIGH_STOP, image, u.temp_max_c, temp_max_c, held)
        | above(program, FAULT_TEMP_HIGH_TRIP, image, u.temp_max_c, temp_max_c, held)
        | below(program, FAULT_TEMP_LOW_WARN, image, u.temp_min_c, temp_min_c, held)
        | below(program, FAULT_TEMP_LOW_STOP, image, u.temp_min_c, temp_min_c, held)
        | below(program, FAULT_TEMP_LOW_TRIP, image, u.temp_min_c, temp_min_c, held)
        | below(program, FAULT_SOC_LOW, image, u.soc, u.gate.soc_min_cpct * 1e-4, held)
        | above(program, FAULT_SOC_HIGH, image, u.soc, u.gate.soc_max_cpct * 1e-4, held)
    )
    if u.gate.cell_mv_max > 0:
        bits |= (
            above(program, FAULT_CELL_HIGH_WARN, image, u.cell_v_max, cell_v_max, held)
            | above(program, FAULT_CELL_HIGH_STOP, image, u.cell_v_max, cell_v_max, held)
            | above(program, FAULT_CELL_HIGH_TRIP, image, u.cell_v_max, cell_v_max, held)
        )
    if u.gate.cell_mv_min > 0:
        bits |= (
            below(program, FAULT_CELL_LOW_WARN, image, u.cell_v_min, cell_v_min, held)
            | below(program, FAULT_CELL_LOW_STOP, image, u.cell_v_min, cell_v_min, held)
            | below(program, FAULT_CELL_LOW_TRIP, image, u.cell_v_min, cell_v_min, held)
        )
    if known(image, u.charge_v_max):
        bits |= above(program, FAULT_PACK_V_HIGH, image, u.pack_v, image[u.charge_v_max].value, held)
    if known(image, u.discharge_v_min):
        bits |= below(program, FAULT_PACK_V_LOW, image, u.pack_v, image[u.discharge_v_min].value, held)
    state.levels = bits
    return bits


cdef uint64_t pcs_rows(const program_t* program, const unit_row_t* u, const point_t* image) noexcept nogil:
    cdef uint32_t seen = (
        seen_as(image, u.pcs_w) | seen_as(image, u.pcs_state) | seen_as(image, u.pcs_fault) | seen_as(image, u.pcs_ready)
        | seen_as(image, u.identity[0]) | seen_as(image, u.identity[1]) | seen_as(image, u.identity[2])
    )
    cdef bint stale = (seen & QUALITY_BIT(QUALITY_STALE)) != 0
    return (
        bit(FAULT_PCS_NEVER, (seen & QUALITY_BIT(QUALITY_NEVER)) != 0)
        | bit(FAULT_PCS_STALE, stale)
        | bit(FAULT_PCS_LOST, stale)
        | bit(FAULT_PCS_INVALID, (seen & QUALITY_BIT(QUALITY_INVALID)) != 0)
        | bit(FAULT_PCS_FAULT, known(image, u.pcs_fault) and image[u.pcs_fault].value != 0.0)
        | bit(FAULT_PCS_NOT_READY, low(image, u.pcs_ready, 0.5))
        | bit(FAULT_PCS_WATCHDOG, low(image, u.pcs_revert_s, 0.001)
              or high(image, u.pcs_revert_s, milli(program, FAULT_PCS_WATCHDOG)))
    )


cdef uint64_t follow_rows(const program_t* program, const unit_row_t* u, int unit, const point_t* image,
                          diagnose_state_t* state, double dt_s) noexcept nogil:
    """Whether the PCS does as it was told.

    Its answer lags behind, and its reading behind its answer. So it is compared with a band that holds every setpoint
    of late, old ones fading with the PCS's own time constant, and likewise with the envelopes of late. A converter that
    gives less than it is told (derating, constant voltage, a slow ramp) is no hazard: it is told, and nothing is taken
    away. More than told, or the other direction, is.
    """
    cdef int first = SITE_POINTS + unit * UNIT_POINTS
    cdef double setpoint_w = image[first + UNIT_SETPOINT_W].value
    cdef double lo_w = image[first + UNIT_ENVELOPE_LO_W].value, hi_w = image[first + UNIT_ENVELOPE_HI_W].value
    cdef double nameplate_w = fmax(u.gate.charge_w_max, u.gate.discharge_w_max)
    cdef double share = fmin(1.0, dt_s / fmax(FAULT_FOLLOW_TAU_S, 3.0 * program.control.pcs_tau_s))
    cdef double pcs_w, off_w, out_w, short_w
    if not (isfinite(setpoint_w) and isfinite(lo_w) and isfinite(hi_w)):  # before the first cycle has been published
        setpoint_w = lo_w = hi_w = 0.0
    if not state.started:
        # What the PCS did before we came is not held against it at once.
        pcs_w = image[u.pcs_w].value if known(image, u.pcs_w) else 0.0
        state.started = known(image, u.pcs_w)
        state.follow_lo_w = state.allowed_lo_w = fmin(pcs_w, 0.0)
        state.follow_hi_w = state.allowed_hi_w = fmax(pcs_w, 0.0)
    state.follow_lo_w = fmin(setpoint_w, fading(state.follow_lo_w, setpoint_w, share))
    state.follow_hi_w = fmax(setpoint_w, fading(state.follow_hi_w, setpoint_w, share))
    state.allowed_lo_w = fmin(lo_w, fading(state.allowed_lo_w, lo_w, share))
    state.allowed_hi_w = fmax(hi_w, fading(state.allowed_hi_w, hi_w, share))
    if not known(image, u.pcs_w):
        return 0
    pcs_w = image[u.pcs_w].value
    off_w = fmax(pcs_w - fmax(state.follow_hi_w, 0.0), fmin(state.follow_lo_w, 0.0) - pcs_w)
    short_w = fmax(state.follow_lo_w - fmax(pcs_w, 0.0), fmin(pcs_w, 0.0) - state.follow_hi_w)
    out_w = fmax(pcs_w - state.allowed_hi_w, state.allowed_lo_w - pcs_w)
    return (
        bit(FAULT_PCS_NOT_FOLLOWING, off_w > fmax(milli(program, FAULT_PCS_NOT_FOLLOWING) * nameplate_w,
                                                  floor_milli(program, FAULT_PCS_NOT_FOLLOWING)))
        | bit(FAULT_PCS_SHORT, short_w > fmax(milli(program, FAULT_PCS_SHORT) * nameplate_w,
                                              floor_milli(program, FAULT_PCS_SHORT)))
        | bit(FAULT_PCS_RUNAWAY, off_w > fmax(milli(program, FAULT_PCS_RUNAWAY) * nameplate_w,
                                              floor_milli(program, FAULT_PCS_RUNAWAY)))
        | bit(FAULT_PCS_OUTSIDE, out_w > fmax(milli(program, FAULT_PCS_OUTSIDE) * nameplate_w,
                                              floor_milli(program, FAULT_PCS_OUTSIDE)))
        | bit(FAULT_PCS_OUTSIDE_LONG, out_w > fmax(milli(program, FAULT_PCS_OUTSIDE_LONG) * nameplate_w,
                                                   floor_milli(program, FAULT_PCS_OUTSIDE_LONG)))
    )


cdef inline bint aligned(const point_t* image, int16_t a, int16_t b) noexcept nogil:
    cdef uint64_t apart
    if not (known(image, a) and known(image, b)):
        return False
    apart = image[a].t_ns - image[b].t_ns if image[a].t_ns > image[b].t_ns else image[b].t_ns - image[a].t_ns
    return apart <= FAULT_ALIGN_NS


cdef inline bint apart(const program_t* program, int row, double a, double b) noexcept nogil:
    return fabs(a - b) > fmax(milli(program, row) * fmax(fabs(a), fabs(b)), floor_milli(program, row))


cdef uint64_t cross_rows(const program_t* program, const unit_row_t* u, const point_t* image,
                         diagnose_state_t* state) noexcept nogil:
    """BMS and PCS measure the same wires. Compared only while both readings are of one moment, remembered between."""
    if aligned(image, u.pack_v, u.dc_v):
        state.dc_bits = (state.dc_bits & 2) | apart(program, FAULT_DC_V_MISMATCH, image[u.pack_v].value, image[u.dc_v].value)
    if aligned(image, u.pack_a, u.dc_a):
        state.dc_bits = (state.dc_bits & 1) | (
            <uint32_t>apart(program, FAULT_DC_A_MISMATCH, image[u.pack_a].value, image[u.dc_a].value) << 1
        )
    return (
        bit(FAULT_DC_V_MISMATCH, state.dc_bits & 1)
        | bit(FAULT_DC_A_MISMATCH, state.dc_bits >> 1)
        | bit(FAULT_DC_MISMATCH_LONG, state.dc_bits != 0)
    )


cdef uint64_t soc_rows(const program_t* program, const unit_row_t* u, const point_t* image, diagnose_state_t* state,
                       double dt_s) noexcept nogil:
    """SoC against itself (no jump between two readings) and against the energy that was counted for an hour."""
    cdef const point_t* soc
    cdef bint jumped = False
    cdef double drift
    if not known(image, u.soc):
        state.soc_t_ns = 0
        return bit(FAULT_SOC_DRIFT, state.drifted)
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
    return bit(FAULT_SOC_JUMP, jumped) | bit(FAULT_SOC_DRIFT, state.drifted)


cdef uint64_t meter_rows(const program_t* program, const unit_row_t* u, const point_t* image, diagnose_state_t* state,
                         uint64_t t_ns) noexcept nogil:
    cdef int16_t grid = program.site.grid_w
    cdef uint32_t seen = (
        seen_as(image, grid) | seen_as(image, program.site.grid_w_l[0]) | seen_as(image, program.site.grid_w_l[1])
        | seen_as(image, program.site.grid_w_l[2])
    )
    cdef uint32_t pv = seen_as(image, program.site.pv_w)
    cdef bint stuck = False
    cdef double nameplate_w = fmax(u.gate.charge_w_max, u.gate.discharge_w_max)
    if known(image, grid) and known(image, u.pcs_w):
        if image[grid].value != state.meter_w or state.meter_t_ns == 0:
            state.meter_w = image[grid].value
            state.meter_pcs_w = image[u.pcs_w].value
            state.meter_t_ns = t_ns
            state.meter_moved = 0
        elif not state.meter_moved and fabs(image[u.pcs_w].value - state.meter_pcs_w) > milli(
                program, FAULT_METER_STUCK) * nameplate_w:
            state.meter_moved = 1
            state.meter_t_ns = t_ns  # however long it stood still before: only from here on should it have moved
        stuck = state.meter_moved and <double>(t_ns - state.meter_t_ns) * 1e-9 > floor_milli(program, FAULT_METER_STUCK)
    return (
        bit(FAULT_METER_NEVER, (seen & QUALITY_BIT(QUALITY_NEVER)) != 0)
        | bit(FAULT_METER_STALE, (seen & QUALITY_BIT(QUALITY_STALE)) != 0)
        | bit(FAULT_METER_INVALID, (seen & QUALITY_BIT(QUALITY_INVALID)) != 0)
        | bit(FAULT_METER_STUCK, stuck)
        | bit(FAULT_PV_LOST, (pv & ~(QUALITY_BIT(QUALITY_GOOD) | QUALITY_BIT(QUALITY_HELD))) != 0)
        | bit(FAULT_GRID_OVER_LIMIT, image[SITE_SHORTFALL_W].value > milli(program, FAULT_GRID_OVER_LIMIT))
    )


cdef uint64_t own_rows(const program_t* program, int unit, const point_t* image, double dt_s) noexcept nogil:
    """Rows about the controller itself, from what the loop published the cycle before."""
    cdef double escalation = image[SITE_LOOP_ESCALATION].value
    cdef int first = SITE_POINTS + unit * UNIT_POINTS
    cdef const point_t* request = &image[first + UNIT_REQUEST_W]
    return (
        bit(FAULT_LOOP_LATE, escalation >= 1.0)
        | bit(FAULT_LOOP_UNSAFE, escalation >= 2.0)
        | bit(FAULT_LOOP_SILENT, escalation >= 3.0)
        | bit(FAULT_LOOP_PAUSE, dt_s > milli(program, FAULT_LOOP_PAUSE))
        | bit(FAULT_REQUEST_INVALID, request.quality != QUALITY_NEVER and not isfinite(request.value))
        | bit(FAULT_PCS_STEP_FAILED, high(image, <int16_t>(first + UNIT_STEP_TEST), 1.5))
        | bit(FAULT_PCS_WRITE_LOST, high(image, <int16_t>(first + UNIT_WRITE_WAIT_S), milli(program, FAULT_PCS_WRITE_LOST)))
        | bit(FAULT_CAN_PASSIVE, high(image, SITE_CAN_STATE, 1.5) and low(image, SITE_CAN_STATE, 2.5))
        | bit(FAULT_CAN_OFF, high(image, SITE_CAN_STATE, 2.5))
        | bit(FAULT_CAN_UNSENT, high(image, SITE_CAN_UNSENT, milli(program, FAULT_CAN_UNSENT)))
    )


cdef uint64_t diagnose(const program_t* program, int unit, const point_t* image, diagnose_state_t* state,
                       uint64_t t_ns, uint64_t dt_ns) noexcept nogil:
    cdef const unit_row_t* u = &program.units[unit]
    cdef double dt_s = <double>dt_ns * 1e-9
    return (
        bms_rows(u, image)
        | level_rows(program, u, image, state)
        | soc_rows(program, u, image, state, dt_s)
        | cross_rows(program, u, image, state)
        | pcs_rows(program, u, image)
        | follow_rows(program, u, unit, image, state, dt_s)
        | meter_rows(program, u, image, state, t_ns)
        | own_rows(program, unit, image, dt_s)
    )


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
        cdef uint64_t bits
        if <size_t>image.shape[0] < site.n_points * sizeof(point_t):
            raise ValueError(f"image: {image.shape[0]} bytes, needs {site.n_points * sizeof(point_t)}")
        bits = diagnose(site, self.unit, <const point_t*>&image[0], &self.state, t_ns, dt_ns)
        return [FAULT_IDS[row] for row in range(FAULTS) if (bits >> row) & 1]

    def repeat(self, const unsigned char[::1] image not None, uint64_t t_ns, int count):
        """Run `count` cycles of 1 ms with one image, the gate's input included; for measuring. Returns the last bits."""
        cdef const unsigned char[::1] view = self.program
        cdef const program_t* site = <const program_t*>&view[0]
        cdef gate_input_t out
        cdef uint64_t bits = 0
        cdef int i
        if <size_t>image.shape[0] < site.n_points * sizeof(point_t):
            raise ValueError(f"image: {image.shape[0]} bytes, needs {site.n_points * sizeof(point_t)}")
        with nogil:
            for i in range(count):
                gate_input_from_image(site, self.unit, <const point_t*>&image[0], &out)
                bits |= diagnose(site, self.unit, <const point_t*>&image[0], &self.state, t_ns + i * 1000000u, 1000000)
        return bits
