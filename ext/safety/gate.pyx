"""The way into the safety gate (safety.c): readings become integers at this one place.

Everything that is not a believable number becomes "not valid", and the gate never reads what is not valid.
"""

from enum import IntEnum

from libc.stdint cimport int16_t, int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memset

from tidegate.ext.abi.extremes cimport fmin
from tidegate.ext.abi.image cimport QUALITY_GOOD, QUALITY_HELD, point_t
from tidegate.ext.abi.program cimport bank_row_t, program_t, unit_row_t
from tidegate.ext.safety.safety cimport *


cdef double SOC_BEYOND = 0.05


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


cdef double BANK_V_SHARE = 0.02  # terminals of batteries side by side show one voltage, within this and a volt
cdef int32_t BANK_MV = 1000


ctypedef const unit_row_t* unit_row_p
ctypedef const bank_row_t* bank_row_p
ctypedef fused battery_row:
    unit_row_p
    bank_row_p


cdef void battery_input(const point_t* image, battery_row row, gate_input_t* out) noexcept nogil:
    """What a battery says: a unit's only one, or one of several."""
    out.required = VALID_SOC
    # Ranges: what no cabinet can mean. Limits are rounded down, readings to the nearest step.
    # A counter that has drifted a little beyond its ends means full, or empty.
    take(image, row.soc, -SOC_BEYOND, 1.0 + SOC_BEYOND, 1e4, 0.5, VALID_SOC, &out.soc_cpct, out)
    out.soc_cpct = min(max(out.soc_cpct, 0), 10000)
    take(image, row.pack_v, 0.0, 2000.0, 1e3, 0.0, VALID_PACK_V, &out.pack_mv, out)
    take(image, row.charge_a_max, -1e6, 1e6, 1e3, 0.0, VALID_CHARGE_MA, &out.charge_ma_max, out)
    take(image, row.discharge_a_max, -1e6, 1e6, 1e3, 0.0, VALID_DISCHARGE_MA, &out.discharge_ma_max, out)
    take(image, row.charge_w_max, -1e9, 1e9, 1.0, 0.0, VALID_CHARGE_W, &out.charge_w_max, out)
    take(image, row.discharge_w_max, -1e9, 1e9, 1.0, 0.0, VALID_DISCHARGE_W, &out.discharge_w_max, out)
    take(image, row.temp_max_c, -60.0, 150.0, 10.0, 0.5, VALID_TEMP_MAX, &out.temp_max_ddegc, out)
    take(image, row.temp_min_c, -60.0, 150.0, 10.0, 0.5, VALID_TEMP_MIN, &out.temp_min_ddegc, out)
    take(image, row.cell_v_max, 0.0, 10.0, 1e3, 0.5, VALID_CELL_MAX, &out.cell_mv_max, out)
    take(image, row.cell_v_min, 0.0, 10.0, 1e3, 0.5, VALID_CELL_MIN, &out.cell_mv_min, out)
    out.charge_ok = allowed(image, row.charge_ok)
    out.discharge_ok = allowed(image, row.discharge_ok)


cdef inline int32_t said(const gate_input_t* one, uint32_t bit, int32_t value, int32_t silent) noexcept nogil:
    """A number of one battery; of one that has no such signal, or gives no believable one, what decides nothing."""
    return value if one.valid & bit else silent


cdef void bank_input(const program_t* program, int unit, const point_t* image, gate_input_t* out) noexcept nogil:
    """The batteries of a unit that has several: what all of them together allow, worked out and proved in the gate.

    A battery that says that its contactors are open counts for its temperatures alone. One whose word about them is
    lost may have them closed: then nothing is known of the bank.
    """
    cdef gate_bank_t bank
    cdef gate_input_t one
    cdef const bank_row_t* row
    cdef uint32_t i, promised = 0, lost = 0
    cdef int32_t k, low_mv = 2147483647, high_mv = 0, joined = 0
    memset(&bank, 0, sizeof(bank))
    for i in range(program.n_bank_rows):
        row = &program.bank_rows[i]
        if row.unit != unit or bank.n >= GATE_BATTERIES_MAX:
            continue
        memset(&one, 0, sizeof(one))
        battery_input(image, <bank_row_p>row, &one)
        k = bank.n
        bank.n += 1
        bank.connected[k] = allowed(image, row.connected)
        if row.connected >= 0 and not believable(image, row.connected):
            lost |= VALID_SOC
        promised |= one.required
        lost |= one.required & ~one.valid & (~<uint32_t>0 if bank.connected[k] else VALID_TEMP_MAX | VALID_TEMP_MIN)
        bank.soc_cpct[k] = one.soc_cpct
        bank.pack_mv[k] = said(&one, VALID_PACK_V, one.pack_mv, 0)
        bank.charge_ma_max[k] = said(&one, VALID_CHARGE_MA, one.charge_ma_max, 0)
        bank.discharge_ma_max[k] = said(&one, VALID_DISCHARGE_MA, one.discharge_ma_max, 0)
        bank.charge_w_max[k] = said(&one, VALID_CHARGE_W, one.charge_w_max, 0)
        bank.discharge_w_max[k] = said(&one, VALID_DISCHARGE_W, one.discharge_w_max, 0)
        bank.temp_max_ddegc[k] = said(&one, VALID_TEMP_MAX, one.temp_max_ddegc, -2147483647)
        bank.temp_min_ddegc[k] = said(&one, VALID_TEMP_MIN, one.temp_min_ddegc, 2147483647)
        bank.cell_mv_max[k] = said(&one, VALID_CELL_MAX, one.cell_mv_max, 0)
        bank.cell_mv_min[k] = said(&one, VALID_CELL_MIN, one.cell_mv_min, 2147483647)
        bank.charge_ok[k] = one.charge_ok
        bank.discharge_ok[k] = one.discharge_ok
        if bank.connected[k]:
            joined += 1
            low_mv = min(low_mv, bank.pack_mv[k])
            high_mv = max(high_mv, bank.pack_mv[k])
    if bank.n == 0:
        out.required = VALID_SOC
        return
    gate_combine(&bank, out)
    # None connected is no fault: a battery may wait for the heartbeat to close its contactors. It bears nothing, though.
    if joined and high_mv - low_mv > <int32_t>(BANK_V_SHARE * high_mv) + BANK_MV:
        lost |= VALID_PACK_V  # they do not stand side by side, or one of them measures nonsense
    out.required |= promised | VALID_SOC
    out.valid |= promised & ~lost


cdef void gate_input_from_image(const program_t* program, int unit, const point_t* image, gate_input_t* out) noexcept nogil:
    cdef const unit_row_t* row = &program.units[unit]
    memset(out, 0, sizeof(gate_input_t))
    if row.connected >= 0:
        bank_input(program, unit, image, out)
    else:
        battery_input(image, <unit_row_p>row, out)
    take(image, row.pcs_w, -1e9, 1e9, 1.0, 0.5, VALID_ESS_W, &out.ess_w, out)
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


cdef fault_set_t fault_set(bits) except *:
    """Rows given as the bits of one whole number. Raises OverflowError for a row that the table cannot have."""
    cdef fault_set_t rows
    if bits < 0 or bits >> GATE_FAULTS_MAX:
        raise OverflowError(f"{bits:#x}: the fault table has {GATE_FAULTS_MAX} rows")
    rows.lo = bits & 0xFFFFFFFFFFFFFFFF
    rows.hi = bits >> 64
    return rows


cdef object fault_bits(fault_set_t rows):
    return int(rows.lo) | int(rows.hi) << 64


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
        row["faults"] = 0
        row["charge_ok"] = row["discharge_ok"] = 1
        row["dt_us"] = 1000
        row = _overlay("input", given, row)
        if "valid" not in given:  # what is given is valid
            for key, bit in VALID.items():
                if key in given:
                    row["valid"] |= bit
        row["faults"] = fault_set(row["faults"])
        return row

    cdef dict _told(self):
        cdef dict told = dict(self.verdict)
        told["active"] = fault_bits(self.verdict.active)
        told["latched"] = fault_bits(self.verdict.latched)
        return told

    def step(self, **given):
        """The verdict of one cycle. `given`: fields of gate_input_t; a reading that is given counts as valid unless
        `valid` says otherwise. Defaults: both directions enabled, dt_us 1000."""
        self.input = self._input(given)
        gate_step(&self.limits, self.faults, &self.input, &self.state, &self.verdict)
        return self._told()

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
        return self._told()

    def envelope(self, **given):
        """(lo_w, hi_w, limit bits) before faults and ramps; input as in `step`."""
        cdef int32_t lo_w = 0, hi_w = 0
        cdef uint32_t bits = 0
        self.input = self._input(given)
        gate_envelope(&self.limits, &self.input, &lo_w, &hi_w, &bits)
        return lo_w, hi_w, bits

    def restore(self, latched):
        """Take over latches kept from before a restart, one bit per row."""
        gate_restore(&self.state, fault_set(latched))

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
    return {**dict(out), "faults": fault_bits(out.faults)}


def request(double request_w):
    """(integer W, valid) as the gate would be told of this request."""
    cdef uint32_t valid = 0
    cdef int32_t value = gate_request(request_w, &valid)
    return value, bool(valid & VALID_REQUEST)
