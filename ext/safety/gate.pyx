"""The way into the safety gate (safety.c): readings become integers at this one place.

Everything that is not a believable number becomes "not valid", and the gate never reads what is not valid.
"""

from enum import IntEnum

from libc.math cimport fmin
from libc.stdint cimport int16_t, int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memset

from tidegate.ext.abi.image cimport QUALITY_GOOD, QUALITY_HELD, point_t
from tidegate.ext.abi.program cimport program_t, unit_row_t
from tidegate.ext.safety.safety cimport *


cdef inline int32_t down(double x) noexcept nogil:
    """floor() without the call that it is on plain x86-64."""
    cdef int32_t whole = <int32_t>x
    return whole - 1 if whole > x else whole


cdef inline void take(const point_t* image, int16_t index, double low, double high, double scale, double round_up,
                      uint32_t bit, int32_t* value, gate_input_t* out) noexcept nogil:
    """One reading of the image, times scale; `round_up` is 0.5 to the nearest, 0 downwards."""
    cdef const point_t* point
    if index < 0:
        return
    point = &image[index]
    out.required |= bit
    # A NaN fails both comparisons and so stays out.
    if (point.quality == QUALITY_GOOD or point.quality == QUALITY_HELD) and low <= point.value <= high:
        value[0] = down(point.value * scale + round_up)
        out.valid |= bit


cdef inline int32_t allowed(const point_t* image, int16_t index) noexcept nogil:
    """An enable bit: 1 where the map has none, 0 unless it is known to be set."""
    cdef const point_t* point
    if index < 0:
        return 1
    point = &image[index]
    return (point.quality == QUALITY_GOOD or point.quality == QUALITY_HELD) and point.value >= 0.5


cdef inline bint believable(const point_t* image, int16_t index) noexcept nogil:
    return index >= 0 and (image[index].quality == QUALITY_GOOD or image[index].quality == QUALITY_HELD)


cdef inline void cap(int32_t discharge_w, gate_input_t* out) noexcept nogil:
    """No more discharge than this; a limit that is missing stays missing, which is zero."""
    if out.valid & VALID_DISCHARGE_W:
        out.discharge_w_max = min(out.discharge_w_max, discharge_w)
    elif not out.required & VALID_DISCHARGE_W:
        out.valid |= VALID_DISCHARGE_W
        out.discharge_w_max = discharge_w


cdef void gate_input_from_image(const program_t* program, int unit, const point_t* image, gate_input_t* out) noexcept nogil:
    cdef const unit_row_t* row = &program.units[unit]
    memset(out, 0, sizeof(gate_input_t))
    out.required = VALID_SOC
    # Ranges: what no cabinet can mean. Limits are rounded down, readings to the nearest step.
    take(image, row.soc, 0.0, 1.0, 1e4, 0.5, VALID_SOC, &out.soc_cpct, out)
    take(image, row.pack_v, 0.0, 2000.0, 1e3, 0.0, VALID_PACK_V, &out.pack_mv, out)
    take(image, row.charge_a_max, -1e6, 1e6, 1e3, 0.0, VALID_CHARGE_MA, &out.charge_ma_max, out)
    take(image, row.discharge_a_max, -1e6, 1e6, 1e3, 0.0, VALID_DISCHARGE_MA, &out.discharge_ma_max, out)
    take(image, row.charge_w_max, -1e9, 1e9, 1.0, 0.0, VALID_CHARGE_W, &out.charge_w_max, out)
    take(image, row.discharge_w_max, -1e9, 1e9, 1.0, 0.0, VALID_DISCHARGE_W, &out.discharge_w_max, out)
    take(image, row.temp_max_c, -60.0, 150.0, 10.0, 0.5, VALID_TEMP_MAX, &out.temp_max_ddegc, out)
    take(image, row.temp_min_c, -60.0, 150.0, 10.0, 0.5, VALID_TEMP_MIN, &out.temp_min_ddegc, out)
    take(image, row.cell_v_max, 0.0, 10.0, 1e3, 0.5, VALID_CELL_MAX, &out.cell_mv_max, out)
    take(image, row.cell_v_min, 0.0, 10.0, 1e3, 0.5, VALID_CELL_MIN, &out.cell_mv_min, out)
    take(image, row.pcs_w, -1e9, 1e9, 1.0, 0.5, VALID_ESS_W, &out.ess_w, out)
    out.charge_ok = allowed(image, row.charge_ok)
    out.discharge_ok = allowed(image, row.discharge_ok)
    if program.control.blind_discharge_w_max > 0.0 and not believable(image, program.site.grid_w):
        # The meter's rows of the fault table only warn on such a site: what they would forbid is forbidden here.
        out.charge_ok = 0
        cap(<int32_t>fmin(program.control.blind_discharge_w_max / program.n_units, 1e9), out)


cdef int32_t gate_request(double request_w, uint32_t* valid) noexcept nogil:
    if not -2e9 <= request_w <= 2e9:  # a NaN is refused here too
        valid[0] &= ~<uint32_t>VALID_REQUEST
        return 0
    valid[0] |= VALID_REQUEST
    return <int32_t>request_w  # towards zero


# ---------------------------------------------------------------- what Python sees

TIME_MS_MAX = GATE_TIME_US_MAX // 1000
Reaction = IntEnum("Reaction", {
    "NONE": REACTION_NONE, "WARN": REACTION_WARN, "DERATE": REACTION_DERATE, "RAMP_ZERO": REACTION_RAMP_ZERO,
    "ZERO": REACTION_ZERO, "ZERO_SILENT": REACTION_ZERO_SILENT, "OPEN": REACTION_OPEN,
}, module=__name__)
REACTIONS = ("none", "warn", "derate", "ramp_zero", "zero", "zero_silent", "open")
LIMITS = ("nameplate", "current", "soc", "temp", "cell", "enable", "power", "invalid", "fault", "ramp", "tripped")
VALID = {
    "request_w": VALID_REQUEST, "soc_cpct": VALID_SOC, "pack_mv": VALID_PACK_V, "charge_ma_max": VALID_CHARGE_MA,
    "discharge_ma_max": VALID_DISCHARGE_MA, "temp_max_ddegc": VALID_TEMP_MAX, "temp_min_ddegc": VALID_TEMP_MIN,
    "ess_w": VALID_ESS_W, "charge_w_max": VALID_CHARGE_W, "discharge_w_max": VALID_DISCHARGE_W,
    "cell_mv_max": VALID_CELL_MAX, "cell_mv_min": VALID_CELL_MIN,
}
FAULT_ROWS = GATE_FAULTS_MAX


def _overlay(kind, given, into):
    """Return `into` with the given fields, or raise KeyError for a field that the struct does not have."""
    for key in given:
        if key not in into:
            raise KeyError(f"{kind}: no field {key!r}; there are {', '.join(into)}")
    return {**into, **given}


cdef class Gate:
    """One unit's gate with its memory, for tests and tools; integers as in safety.h.

    limits : mapping of gate_limits_t fields; what is left out is 0, which lets no power pass.
    faults : mapping row -> mapping of gate_fault_row_t fields.
    """

    cdef gate_limits_t limits
    cdef gate_fault_row_t faults[GATE_FAULTS_MAX]
    cdef gate_input_t input
    cdef gate_state_t state
    cdef gate_verdict_t verdict

    def __init__(self, limits=None, faults=None):
        gate_init(&self.state)
        memset(&self.limits, 0, sizeof(self.limits))
        memset(self.faults, 0, sizeof(self.faults))
        memset(&self.verdict, 0, sizeof(self.verdict))
        self.limits = _overlay("limits", limits or {}, self.limits)
        for number, row in (faults or {}).items():
            if not 0 <= number < GATE_FAULTS_MAX:
                raise IndexError(f"fault row {number}: the table has {GATE_FAULTS_MAX}")
            self.faults[<Py_ssize_t>number] = _overlay(f"faults[{number}]", row, self.faults[<Py_ssize_t>number])

    cdef dict _input(self, given):
        cdef dict row
        memset(&self.input, 0, sizeof(self.input))
        row = dict(self.input)
        row["charge_ok"] = row["discharge_ok"] = 1
        row["dt_us"] = 1000
        row = _overlay("input", given, row)
        if "valid" not in given:  # what is given is valid
            for key, bit in VALID.items():
                if key in given:
                    row["valid"] |= bit
        return row

    def step(self, **given):
        """The verdict of one cycle. `given`: fields of gate_input_t; a reading that is given counts as valid unless
        `valid` says otherwise. Defaults: both directions enabled, dt_us 1000."""
        self.input = self._input(given)
        gate_step(&self.limits, self.faults, &self.input, &self.state, &self.verdict)
        return dict(self.verdict)

    def repeat(self, int count, **given):
        """Run `count` cycles with one input, envelope included as the estimate does; for measuring."""
        cdef int32_t lo_w = 0, hi_w = 0
        cdef uint32_t bits = 0
        cdef int i
        self.input = self._input(given)
        with nogil:
            for i in range(count):
                gate_envelope(&self.limits, &self.input, &lo_w, &hi_w, &bits)
                gate_step(&self.limits, self.faults, &self.input, &self.state, &self.verdict)
        return dict(self.verdict)

    def envelope(self, **given):
        """(lo_w, hi_w, limit bits) before faults and ramps; input as in `step`."""
        cdef int32_t lo_w = 0, hi_w = 0
        cdef uint32_t bits = 0
        self.input = self._input(given)
        gate_envelope(&self.limits, &self.input, &lo_w, &hi_w, &bits)
        return lo_w, hi_w, bits

    def restore(self, uint64_t latched):
        """Take over latches kept from before a restart, one bit per row."""
        gate_restore(&self.state, latched)

    @property
    def state_bytes(self) -> bytes:
        return (<const char*>&self.state)[:sizeof(self.state)]

    @property
    def setpoint_mw(self) -> int:
        return self.state.last_setpoint_mw

    @setpoint_mw.setter
    def setpoint_mw(self, int64_t value):
        self.state.last_setpoint_mw = value

    @property
    def tripped(self) -> bool:
        return bool(self.state.tripped)

    @property
    def first_fault(self) -> int:
        return self.state.first_fault

    def row(self, int number):
        """Memory of one fault row: bucket_us, active, latched, flaps."""
        if not 0 <= number < GATE_FAULTS_MAX:
            raise IndexError(f"fault row {number}: the table has {GATE_FAULTS_MAX}")
        return dict(self.state.rows[number])


def input_from_image(const unsigned char[::1] program not None, int unit, const unsigned char[::1] image not None):
    """What the gate would be told of `unit`, from a compiled site and the bytes of an image."""
    cdef gate_input_t out
    cdef const program_t* site = <const program_t*>&program[0]
    if <size_t>program.shape[0] < sizeof(program_t):
        raise ValueError(f"program: {program.shape[0]} bytes, needs at least {sizeof(program_t)}")
    if not 0 <= unit < <int>site.n_units:
        raise IndexError(f"unit {unit}: this site has {site.n_units}")
    if <size_t>image.shape[0] < site.n_points * sizeof(point_t):
        raise ValueError(f"image: {image.shape[0]} bytes, needs {site.n_points * sizeof(point_t)}")
    gate_input_from_image(site, unit, <const point_t*>&image[0], &out)
    return dict(out)


def request(double request_w):
    """(integer W, valid) as the gate would be told of this request."""
    cdef uint32_t valid = 0
    cdef int32_t value = gate_request(request_w, &valid)
    return value, bool(valid & VALID_REQUEST)
