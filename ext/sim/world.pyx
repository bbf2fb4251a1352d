"""One simulated plant in virtual time: bus events, the physics, the core, cycle after cycle, from one seed.

The same world in wall time is live.pyx.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from tidegate.ext.sim.buses cimport *
from tidegate.ext.abi.image cimport (
    MODE_TRIPPED, SITE_CORRIDOR_HI_W, SITE_CORRIDOR_LO_W, SITE_ENVELOPE_HI_W, SITE_ENVELOPE_LO_W, SITE_GRID_W,
    SITE_MODE, SITE_REASON, SITE_REQUEST_W, SITE_SETPOINT_W,
)
from tidegate.ext.cycle.core cimport core_t
from tidegate.ext.cycle.loop cimport Core, core_cycle
from tidegate.ext.sim.plant cimport *
from tidegate.ext.abi.program cimport CAN_BUSES_MAX, CAN_FIELD_MUXED, PORTS_MAX, SLAVES_MAX
from tidegate.ext.bus.rtu cimport rtu_char_ns, rtu_init, rtu_t
from tidegate.ext.abi.shared cimport ORDER_ACK, ORDER_ARM, order_put
from tidegate.ext.sim.slave cimport *

cdef uint64_t NEVER = 0xFFFFFFFFFFFFFFFF


# ---------------------------------------------------------------- virtual time


cdef void world_check(world_t* world) noexcept nogil:
    """Watch the core from outside: nothing it lets out may leave its own envelope or the nameplate."""
    cdef core_t* core = world.core
    cdef checks_t* checks = &world.checks
    cdef uint32_t unit, reason
    cdef int32_t setpoint_w
    cdef heard_t* heard
    for unit in range(core.program.n_units):
        setpoint_w = core.verdicts[unit].setpoint_w
        if setpoint_w == 0:
            continue
        heard = &world.heard[unit]
        if core.gates[unit].tripped:
            checks.setpoint_to_tripped += 1
        if heard.alarm_ns and world.t_ns > heard.alarm_ns + 2 * world.period_ns:
            checks.alarm_unanswered += 1
        if world.bms_bound_ns and world.t_ns > heard.bms_ns + world.bms_bound_ns:
            checks.blind_bms += 1
        if world.meter_bound_ns and world.t_ns > world.heard_grid_ns + world.meter_bound_ns:
            checks.blind_meter += 1
        if world.pcs_bound_ns and world.t_ns > heard.pcs_ns + world.pcs_bound_ns:
            checks.blind_pcs += 1
        if setpoint_w > core.verdicts[unit].envelope_hi_w or setpoint_w < core.verdicts[unit].envelope_lo_w:
            checks.outside_envelope += 1
        if (
            setpoint_w > core.program.units[unit].gate.discharge_w_max
            or -setpoint_w > core.program.units[unit].gate.charge_w_max
        ):
            checks.outside_nameplate += 1
        if not core.verdicts[unit].heartbeat_ok:
            checks.heartbeat_without_health += 1
    if world.alarm_bound_ns:
        wire_check(world)
    reason = <uint32_t>core.image[SITE_REASON].value if core.image[SITE_REASON].value >= 0.0 else 0
    checks.reason_cycles[reason % REASON_SLOTS] += 1
    checks.mode_cycles[core.mode & 15] += 1
    checks.cycles += 1


cdef void wire_check(world_t* world) noexcept nogil:
    """An alarm must have taken the setpoint on the wire to 0 within the bound, if the line had no fault meanwhile."""
    cdef uint32_t i, line
    cdef heard_t* heard
    cdef int battery
    for i in range(world.plant.n_pcs):
        battery = world.plant.pcs[i].battery
        heard = &world.heard[battery]
        for line in range(world.n_slaves):
            if world.slaves[line].pcs == <int>i and (
                world.slave_faults[line].bits or world.lines[world.slaves[line].port].fault_bits
            ):
                heard.line_faulty_ns = world.t_ns
        if (
            heard.alarm_ns
            and world.wire_set_w[i] != 0.0
            and world.t_ns > heard.alarm_ns + world.alarm_bound_ns
            and world.t_ns > heard.line_faulty_ns + 2000000000
        ):
            world.checks.alarm_on_wire += 1


cdef void series_row(world_t* world) noexcept nogil:
    cdef plant_t* plant = &world.plant
    cdef core_t* core = world.core
    cdef double* row
    cdef double stored = 0.0, whole = 0.0
    cdef uint32_t i
    if plant.grid_w > world.series_grid_max_w:
        world.series_grid_max_w = plant.grid_w
    if plant.grid_w < world.series_grid_min_w:
        world.series_grid_min_w = plant.grid_w
    world.series_left -= 1
    if world.series_left > 0:
        return
    world.series_left = world.series_every
    if world.series_used < world.series_size:
        row = world.series + world.series_used * SERIES_COLUMNS
        world.series_used += 1
        for i in range(plant.n_batteries):
            stored += plant.batteries[i].charge_as
            whole += plant.batteries[i].capacity_as
        row[0] = <double>(world.t_ns - plant.t0_ns) * 1e-9
        row[1] = plant.load_w
        row[2] = plant.grid_w
        row[3] = world.series_grid_min_w
        row[4] = world.series_grid_max_w
        row[5] = plant.ess_w
        row[6] = plant.pv_w
        row[7] = stored / whole if whole > 0.0 else 0.0
        row[8] = core.image[SITE_SETPOINT_W].value
        row[9] = core.image[SITE_REQUEST_W].value
        row[10] = core.image[SITE_REASON].value
        row[11] = core.image[SITE_MODE].value
        row[12] = plant.it_w
        row[13] = plant.cooling_w
        row[14] = core.image[SITE_CORRIDOR_LO_W].value
        row[15] = core.image[SITE_CORRIDOR_HI_W].value
        row[16] = core.image[SITE_ENVELOPE_LO_W].value
        row[17] = core.image[SITE_ENVELOPE_HI_W].value
        row[18] = core.image[SITE_GRID_W].value
        row[19] = plant.batteries[0].temp_c if plant.n_batteries else 0.0
    world.series_grid_max_w = -1e300
    world.series_grid_min_w = 1e300


cdef void world_cycle(world_t* world) noexcept nogil:
    cdef uint64_t t_ns = world.t_ns + world.period_ns
    cdef plant_t* plant = &world.plant
    cdef uint64_t plant_t_ns
    cdef uint32_t i
    world.t_ns = t_ns
    if t_ns >= world.fault_next_ns:
        world_faults(world, t_ns)
    # The plant moves in its own small steps, so that a slow cycle sees the same physics as a fast one.
    plant_t_ns = plant.t_ns + plant.dt_ns
    while plant_t_ns <= t_ns:
        for i in range(world.n_lines):
            if world.lines[i].next_ns < plant_t_ns:
                line_run(world, <int>i, plant_t_ns - 1)
        plant_step(plant, plant_t_ns)
        if plant.step_t_ns == plant_t_ns or world.answer.open:
            world_watch_step(world, plant_t_ns)
        plant_t_ns += plant.dt_ns
    for i in range(world.n_lines):
        if world.lines[i].next_ns <= t_ns:
            line_run(world, <int>i, t_ns)
    if world.can_next_ns <= t_ns:
        can_emit(world, t_ns)
    if world.n_can_buses and world.can_flood[0] > 0.0:
        can_flood(world, t_ns)

    core_cycle(world.core, t_ns, world.period_ns, world.cycle)
    world.cycle += 1

    # A new command wakes an engine that has nothing in flight.
    for i in range(world.n_lines):
        if world.lines[i].waits:
            line_engine(&world.lines[i], t_ns)
            line_look(&world.lines[i], t_ns)
    can_take(world, t_ns)
    world_check(world)
    series_row(world)


# ---------------------------------------------------------------- what Python sees

BATTERY_VARIABLES = (
    "soc", "soh", "pack_v", "pack_a", "temp_max_c", "temp_min_c", "cell_v_max", "cell_v_min", "charge_v_max",
    "discharge_v_min", "charge_a_max", "discharge_a_max", "charge_w_max", "discharge_w_max", "charge_ok", "discharge_ok",
    "alarm", "warning", "contactor", "capacity_ah", "energy_wh", "state", "zero",
)
PCS_VARIABLES = (
    "w", "w_l1", "w_l2", "w_l3", "va", "var", "a", "a_l1", "v_ll", "v_ln", "hz", "pf", "dc_v", "dc_a", "dc_w", "state", "on",
    "conn", "alarm", "temp_c", "out_wh", "in_wh", "w_max", "charge_w_max", "discharge_w_max", "set_w", "set_ena",
    "set_mode", "set_permille", "revert_w", "revert_ena", "revert_s", "revert_left_s", "hb_device", "hb_controller",
    "op_ctl", "local", "ready", "fault", "zero",
)
METER_VARIABLES = (
    "w", "w_l1", "w_l2", "w_l3", "va", "var", "a", "a_l1", "a_l2", "a_l3", "v", "v_l1", "v_l2", "v_l3", "hz", "pf",
    "import_wh", "export_wh", "total_wh", "zero",
)
METER_SOURCES = ("grid", "it", "cooling", "pv", "pcs", "circuit")
SERIES = (
    "t_s", "load_w", "grid_w", "grid_min_w", "grid_max_w", "ess_w", "pv_w", "soc", "setpoint_w", "request_w", "reason",
    "mode", "it_w", "cooling_w", "corridor_lo_w", "corridor_hi_w", "envelope_lo_w", "envelope_hi_w", "grid_measured_w",
    "temp_c",
)
FAULT_NAMES = (
    "dead", "late", "corrupt", "short", "exception", "wrong_unit", "wrong_function", "drop", "stale_reply", "echo",
    "noise", "second_master", "can_silent", "can_id_silent", "can_counter_stuck", "can_counter_jumps", "can_length",
    "can_extended", "can_flood", "can_passive", "can_off", "can_spoof", "battery", "pcs", "meter", "island",
    "watchdog_off",
)
FAULT_BITS = {
    "pcs": {"frozen": PCS_FROZEN, "tripped": PCS_TRIPPED, "local": PCS_IN_LOCAL, "wrong_sign": PCS_WRONG_SIGN,
            "deaf": PCS_DEAF},
    "meter": {"stuck": METER_STUCK, "reversed": METER_REVERSED, "nan": METER_NAN, "swapped": METER_SWAPPED,
              "reset": METER_RESET},
    "battery": {"warning": BATTERY_WARNS, "alarm": BATTERY_ALARMS, "no_charge": BATTERY_NO_CHARGE,
                "no_discharge": BATTERY_NO_DISCHARGE, "limits_zero": BATTERY_LIMITS_ZERO, "sentinel": BATTERY_SENTINEL,
                "wild": BATTERY_WILD, "soc_jump": BATTERY_SOC_JUMP, "voltage_off": BATTERY_VOLTAGE_OFF,
                "hot": BATTERY_HOT},
}
assert len(BATTERY_VARIABLES) == BATTERY_VARS and len(PCS_VARIABLES) == PCS_VARS
assert len(METER_VARIABLES) == METER_VARS and len(FAULT_NAMES) == FAULT_KINDS and len(SERIES) == SERIES_COLUMNS


cdef class World:
    """One plant with its buses; built by `tidegate.hal.sim`, moved by `run` (virtual) or by live.pyx.

    seed       : any integer; the only source of chance.
    period_ns  : the core's cycle, also the virtual one's.
    plant_dt_ns: step of the physics, at most one period.
    """

    def __cinit__(self, seed, uint64_t period_ns=1000000, uint64_t plant_dt_ns=1000000, uint32_t wire_log_bytes=1 << 22):
        cdef uint64_t mixed
        if period_ns == 0 or plant_dt_ns == 0:
            raise ValueError("period and plant step must be above 0 ns")
        if plant_dt_ns > period_ns:
            plant_dt_ns = period_ns
        self.keep = []
        self.world = <world_t*>calloc(1, sizeof(world_t))
        if self.world == NULL:
            raise MemoryError("no memory for the world")
        self.world.slaves = <slave_t*>calloc(SLAVES_MAX, sizeof(slave_t))
        self.world.slave_faults = <slave_faults_t*>calloc(SLAVES_MAX, sizeof(slave_faults_t))
        self.world.wire_log = <uint8_t*>calloc(1, wire_log_bytes)
        if self.world.slaves == NULL or self.world.slave_faults == NULL or self.world.wire_log == NULL:
            raise MemoryError("no memory for the world")
        self.world.wire_log_size = wire_log_bytes
        # splitmix64: neighbouring seeds must not give neighbouring runs, and xorshift may not start at 0
        mixed = <uint64_t>(int(seed) & 0xFFFFFFFFFFFFFFFF) + <uint64_t>0x9E3779B97F4A7C15
        mixed = (mixed ^ (mixed >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
        mixed = (mixed ^ (mixed >> 27)) * <uint64_t>0x94D049BB133111EB
        mixed ^= mixed >> 31
        self.world.seed = int(seed) & 0xFFFFFFFFFFFFFFFF
        self.world.random = mixed if mixed else 1
        self.world.period_ns = period_ns
        self.world.plant.dt_ns = plant_dt_ns
        self.world.plant.volt = 230.0
        self.world.plant.hz = 50.0
        self.world.plant.limit_w = 1e12
        self.world.plant.step_w = 1e12
        self.world.plant.phase_share = [1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0]
        self.world.fault_next_ns = NEVER
        self.world.can_next_ns = NEVER
        self.world.series_every = 100

    def __dealloc__(self):
        cdef uint32_t i, k
        if self.world == NULL:
            return
        for i in range(self.world.plant.n_meters):
            free(self.world.plant.meters[i].readings)
        if self.world.slaves != NULL:
            for i in range(<uint32_t>SLAVES_MAX):
                for k in range(<uint32_t>SPACES):
                    free(self.world.slaves[i].words[k])
        for i in range(<uint32_t>PORTS_MAX):
            free(self.world.lines[i].engine)
        free(self.world.slaves)
        free(self.world.slave_faults)
        free(self.world.wire_log)
        free(self.world.series)
        free(self.world)

    cdef world_t* ptr(self) noexcept:
        return self.world

    # ------------------------------------------------ building

    def set_load(self, const uint64_t[::1] t_ns, const double[::1] power_w, *, double cooling_share=0.0,
                 double cooling_mean_s=600.0, phase_share=(1 / 3, 1 / 3, 1 / 3)):
        """IT power as rows (ns since the start, W), each held until the next; cooling as a share of its mean."""
        if t_ns.shape[0] == 0 or t_ns.shape[0] != power_w.shape[0]:
            raise ValueError(f"load: {t_ns.shape[0]} times and {power_w.shape[0]} powers, needs as many of both, at least one")
        if not 1.0 <= cooling_mean_s <= COOLING_S:
            raise ValueError(f"cooling follows the mean of 1..{COOLING_S} s, got {cooling_mean_s}")
        self.world.plant.cooling_count = <uint32_t>cooling_mean_s
        self.keep.append((t_ns, power_w))
        self.world.plant.load_t_ns = &t_ns[0]
        self.world.plant.load_rows_w = &power_w[0]
        self.world.plant.load_count = <uint32_t>t_ns.shape[0]
        self.world.plant.cooling_share = cooling_share
        self.world.plant.phase_share = [float(share) for share in phase_share]

    def set_pv(self, const uint64_t[::1] t_ns, const double[::1] power_w):
        """PV power as rows, + generation."""
        if t_ns.shape[0] == 0 or t_ns.shape[0] != power_w.shape[0]:
            raise ValueError(f"PV: {t_ns.shape[0]} times and {power_w.shape[0]} powers, needs as many of both, at least one")
        self.keep.append((t_ns, power_w))
        self.world.plant.pv_t_ns = &t_ns[0]
        self.world.plant.pv_rows_w = &power_w[0]
        self.world.plant.pv_count = <uint32_t>t_ns.shape[0]

    def set_judgement(self, double limit_w, double step_w, double reaction_s):
        """Grid limit to judge by; a load change of step_w opens a reaction time of reaction_s."""
        self.world.plant.limit_w = limit_w
        self.world.plant.step_w = step_w
        self.world.plant.reaction_ns = <uint64_t>(reaction_s * 1e9)

    def set_bounds(self, *, double bms_s=0.0, double meter_s=0.0, double pcs_s=0.0, double alarm_s=0.0):
        """How long the core may go on after a silence or an alarm, before `checks` counts it; 0 = not checked.

        alarm_s: from the alarm frame on the bus to setpoint 0 on the wire.
        """
        self.world.bms_bound_ns = <uint64_t>(bms_s * 1e9)
        self.world.meter_bound_ns = <uint64_t>(meter_s * 1e9)
        self.world.pcs_bound_ns = <uint64_t>(pcs_s * 1e9)
        self.world.alarm_bound_ns = <uint64_t>(alarm_s * 1e9)

    def add_battery(self, *, double cells, double capacity_ah, double r_ohm, ocv_soc, ocv_v, double soc, double temp_c, double soh=1.0,
                    double heat_j_per_k, double cooling_w_per_k, double ambient_c, double charge_a_max,
                    double discharge_a_max, double taper, double cell_v_max, double cell_v_min, double temp_c_max,
                    double temp_c_min):
        """A battery with its BMS; returns its number."""
        cdef plant_t* plant = &self.world.plant
        cdef battery_t* battery
        cdef int i
        if plant.n_batteries >= BATTERIES_MAX:
            raise ValueError(f"more than {BATTERIES_MAX} batteries")
        if not 2 <= len(ocv_soc) <= OCV_POINTS_MAX or len(ocv_soc) != len(ocv_v):
            raise ValueError(f"open-circuit curve: needs 2..{OCV_POINTS_MAX} points, as many SoC as V")
        if list(ocv_soc) != sorted(set(ocv_soc)) or ocv_soc[0] != 0.0 or ocv_soc[len(ocv_soc) - 1] != 1.0:
            raise ValueError("open-circuit curve: SoC must rise from 0 to 1")
        if not (0.0 <= soc <= 1.0 and cells > 0 and capacity_ah > 0 and r_ohm > 0 and taper > 0):
            raise ValueError("battery: SoC must be 0..1; cells, capacity, resistance and taper above 0")
        battery = &plant.batteries[plant.n_batteries]
        battery.cells = cells
        battery.capacity_as = capacity_ah * soh * 3600.0
        battery.soh = soh
        battery.r_ohm = r_ohm
        battery.ocv_count = <int32_t>len(ocv_soc)
        for i in range(battery.ocv_count):
            battery.ocv_soc[i] = ocv_soc[i]
            battery.ocv_v[i] = ocv_v[i]
        battery.charge_as = soc * battery.capacity_as
        battery.temp_c = temp_c
        battery.heat_j_per_k = heat_j_per_k
        battery.cooling_w_per_k = cooling_w_per_k
        battery.ambient_c = ambient_c
        battery.charge_a_max = charge_a_max
        battery.discharge_a_max = discharge_a_max
        battery.taper = taper
        battery.cell_v_max = cell_v_max
        battery.cell_v_min = cell_v_min
        battery.temp_c_max = temp_c_max
        battery.temp_c_min = temp_c_min
        battery.contactor = 1
        plant.n_batteries += 1
        return plant.n_batteries - 1

    def add_pcs(self, *, int battery, double charge_w_max, double discharge_w_max, double tau_s, double dead_s,
                double ramp_w_per_s, double loss_w, double loss_ratio, double measure_s, double heartbeat_timeout_s=0.0, double revert_s=0.0,
                bint enabled=True, bint started=True, states=(7, 3, 6)):
        """A power converter on a battery; returns its number. states: its numbers for standby, run and fault."""
        cdef plant_t* plant = &self.world.plant
        cdef pcs_t* pcs
        if plant.n_pcs >= PCS_MAX:
            raise ValueError(f"more than {PCS_MAX} power converters")
        if not 0 <= battery < <int>plant.n_batteries:
            raise ValueError(f"power converter {plant.n_pcs}: no battery {battery}")
        if charge_w_max <= 0 or discharge_w_max <= 0 or tau_s < 0 or dead_s < 0 or ramp_w_per_s <= 0 or measure_s <= 0:
            raise ValueError("power converter: ratings, ramp and measuring interval above 0, lag and dead time not below")
        pcs = &plant.pcs[plant.n_pcs]
        pcs.battery = battery
        pcs.charge_w_max = charge_w_max
        pcs.discharge_w_max = discharge_w_max
        pcs.tau_s = tau_s
        pcs.dead_ns = <uint64_t>(dead_s * 1e9)
        pcs.ramp_w_per_s = ramp_w_per_s
        pcs.loss_w = loss_w
        pcs.loss_ratio = loss_ratio
        pcs.measure_ns = <uint64_t>(measure_s * 1e9)
        pcs.heartbeat_timeout_ns = <uint64_t>(heartbeat_timeout_s * 1e9)
        pcs.v[PCS_SET_ENA] = 1.0 if enabled else 0.0
        pcs.v[PCS_SET_MODE] = 1.0
        pcs.v[PCS_REVERT_S] = revert_s
        pcs.v[PCS_REVERT_ENA] = 1.0 if revert_s > 0.0 else 0.0
        pcs.v[PCS_OP_CTL] = 1.0 if started else 0.0
        pcs.state_standby, pcs.state_run, pcs.state_fault = states
        plant.n_pcs += 1
        return plant.n_pcs - 1

    def add_meter(self, source, *, int index=0, double share=1.0, uint32_t behind=0, double interval_s,
                  double delay_s=0.0, double resolution_w=0.0, double phase_s=0.0):
        """A meter; returns its number. phase_s: when its first interval ends; behind: bit each converter on a circuit."""
        cdef plant_t* plant = &self.world.plant
        cdef meter_t* meter
        if plant.n_meters >= METERS_MAX:
            raise ValueError(f"more than {METERS_MAX} meters")
        if source not in METER_SOURCES:
            raise ValueError(f"meter of {source!r}: knows {', '.join(METER_SOURCES)}")
        if interval_s <= 0 or delay_s < 0 or delay_s > (READINGS_MAX - 2) * interval_s:
            raise ValueError(f"meter of {source}: interval above 0, delay 0..{READINGS_MAX - 2} intervals")
        meter = &plant.meters[plant.n_meters]
        meter.source = METER_SOURCES.index(source)
        meter.index = index
        meter.share = share
        meter.behind = behind
        meter.interval_ns = <uint64_t>(interval_s * 1e9)
        meter.delay_ns = <uint64_t>(delay_s * 1e9)
        meter.next_ns = <uint64_t>(phase_s * 1e9)
        meter.resolution_w = resolution_w
        if meter.delay_ns > 0:
            meter.readings = <reading_t*>calloc(READINGS_MAX, sizeof(reading_t))
            if meter.readings == NULL:
                raise MemoryError("no memory for a meter's readings")
        plant.n_meters += 1
        return plant.n_meters - 1

    def add_line(self, *, uint64_t char_ns):
        """A serial line; returns its number."""
        if self.world.n_lines >= PORTS_MAX:
            raise ValueError(f"more than {PORTS_MAX} serial lines")
        self.world.lines[self.world.n_lines].char_ns = char_ns
        self.world.lines[self.world.n_lines].next_ns = NEVER
        self.world.lines[self.world.n_lines].engine_ns = NEVER
        self.world.n_lines += 1
        return self.world.n_lines - 1

    def add_slave(self, int line, int unit_id, *, int pcs=-1, int meter=-1, double turnaround_s=0.001,
                  double turnaround_jitter_s=0.0, int read_max=125):
        """A device on a line; returns its number."""
        cdef slave_t* slave
        if self.world.n_slaves >= SLAVES_MAX:
            raise ValueError(f"more than {SLAVES_MAX} serial devices")
        if not 0 <= line < <int>self.world.n_lines:
            raise ValueError(f"device {self.world.n_slaves}: no line {line}")
        if not 1 <= unit_id <= 247:
            raise ValueError(f"unit id {unit_id}: must be 1..247")
        slave = &self.world.slaves[self.world.n_slaves]
        slave.unit_id = <uint8_t>unit_id
        slave.port = line
        slave.read_max = read_max
        slave.pcs = pcs
        slave.meter = meter
        slave.turnaround_ns = <uint64_t>(turnaround_s * 1e9)
        slave.turnaround_jitter_ns = <uint64_t>(turnaround_jitter_s * 1e9)
        self.world.lines[line].slaves[self.world.lines[line].n_slaves] = <int32_t>self.world.n_slaves
        self.world.lines[line].n_slaves += 1
        self.world.n_slaves += 1
        return self.world.n_slaves - 1

    cdef slave_t* slave_at(self, int number) except NULL:
        if not 0 <= number < <int>self.world.n_slaves:
            raise IndexError(f"no serial device {number}")
        return &self.world.slaves[number]

    def add_range(self, int slave, int space, int first, int count, bint writable=False):
        """Make count addresses from `first` exist. space: 0 coils, 1 discrete inputs, 2 holding, 3 input registers."""
        cdef slave_t* row = self.slave_at(slave)
        if row.n_ranges >= RANGES_MAX:
            raise ValueError(f"device {slave}: more than {RANGES_MAX} register ranges")
        if not (0 <= space < SPACES and 0 <= first and 0 < count and first + count <= 65536):
            raise ValueError(f"device {slave}: registers {first}..{first + count - 1} of space {space} do not exist")
        if row.words[space] == NULL:
            row.words[space] = <uint16_t*>calloc(65536, 2)
            if row.words[space] == NULL:
                raise MemoryError("no memory for registers")
        row.ranges[row.n_ranges] = range_t(space, first, count, writable)
        row.n_ranges += 1

    def set_words(self, int slave, int space, int address, words):
        """Constant registers."""
        cdef slave_t* row = self.slave_at(slave)
        if row.words[space] == NULL or address + len(words) > 65536:
            raise ValueError(f"device {slave}: no registers at {address}")
        for i, word in enumerate(words):
            row.words[space][address + i] = word & 0xFFFF

    cdef const double* variable(self, tuple source) except NULL:
        kind, number, name = source
        if kind == "battery" and name in BATTERY_VARIABLES and 0 <= number < BATTERIES_MAX:
            return &self.world.plant.batteries[number].v[BATTERY_VARIABLES.index(name)]
        if kind == "pcs" and name in PCS_VARIABLES and 0 <= number < PCS_MAX:
            return &self.world.plant.pcs[number].v[PCS_VARIABLES.index(name)]
        if kind == "meter" and name in METER_VARIABLES and 0 <= number < METERS_MAX:
            return &self.world.plant.meters[number].v[METER_VARIABLES.index(name)]
        raise KeyError(f"the plant has no variable {kind}{number}.{name}")

    def bind(self, int slave, int space, int address, *, int type, int flags, double scale, double offset,
             uint64_t sentinel=0, int bit_first=0, int bit_count=0, source):
        """Show a plant variable in registers. source: (kind, number, name). Rows must come in rising address order."""
        cdef slave_t* row = self.slave_at(slave)
        cdef binding_t* binding
        if row.n_bindings >= BINDINGS_MAX:
            raise ValueError(f"device {slave}: more than {BINDINGS_MAX} register fields")
        if scale == 0.0:
            raise ValueError(f"device {slave}, address {address}: scale 0")
        if row.n_bindings:
            binding = &row.bindings[row.n_bindings - 1]
            if ((binding.space << 16) | binding.address) > ((<uint32_t>space << 16) | <uint32_t>address):
                raise ValueError(f"device {slave}: registers must be bound in rising order, {address} comes late")
        binding = &row.bindings[row.n_bindings]
        binding.space = space
        binding.address = address
        binding.type = type
        binding.flags = flags
        binding.words = type_words(type) if space >= SPACE_HOLDING else 1
        binding.scale = scale
        binding.offset = offset
        binding.sentinel = sentinel
        binding.bit_first = bit_first
        binding.bit_count = bit_count
        binding.source = self.variable(source)
        row.n_bindings += 1

    def bind_write(self, int slave, int space, int address, *, int type, int flags, double scale, str variable):
        """Let a master set a variable of the power converter behind the device."""
        cdef slave_t* row = self.slave_at(slave)
        cdef write_t* write
        if row.n_writes >= WRITES_MAX:
            raise ValueError(f"device {slave}: more than {WRITES_MAX} writable fields")
        if row.pcs < 0:
            raise ValueError(f"device {slave}: only a power converter takes writes")
        write = &row.writes[row.n_writes]
        write.space = space
        write.address = address
        write.type = type
        write.flags = flags
        write.words = type_words(type) if space >= SPACE_HOLDING else 1
        write.scale = scale
        write.var = PCS_VARIABLES.index(variable)
        write.target = &self.world.plant.pcs[row.pcs].v[write.var]
        row.n_writes += 1

    def add_can_frame(self, *, uint32_t id, int bus, int len, uint64_t period_ns, uint64_t phase_ns, bytes template=bytes(8),
                      mux=None, counter=None, crc=None, fields):
        """A frame that a BMS sends. mux, counter: (start bit, length, big endian), crc: (kind, byte), or None.

        fields: dicts start, length, big_endian, is_signed, flags, mux_value, mask, scale, offset, sentinel, source.
        """
        cdef can_frame_out_t* frame
        cdef can_field_out_t* field
        if self.world.n_frames >= CAN_FRAMES_OUT_MAX:
            raise ValueError(f"more than {CAN_FRAMES_OUT_MAX} CAN frames")
        if not (0 <= bus < CAN_BUSES_MAX and 0 < len <= 8 and period_ns > 0):
            raise ValueError(f"frame 0x{id:X}: bus 0..{CAN_BUSES_MAX - 1}, 1..8 bytes, period above 0")
        frame = &self.world.frames[self.world.n_frames]
        frame.id = id
        frame.bus = bus
        frame.len = len
        frame.period_ns = period_ns
        frame.next_ns = phase_ns
        for i in range(8):
            frame.template[i] = template[i]
        frame.field_first = self.world.n_can_fields
        frame.field_count = 0
        frame.mux_count = 0
        frame.battery = -1
        frame.has_alarm = 0
        if crc is not None:
            frame.crc_kind, frame.crc_byte = crc
        if mux is not None:
            frame.mux_start, frame.mux_length, frame.mux_big_endian = mux
        if counter is not None:
            frame.counter_start, frame.counter_length, frame.counter_big_endian = counter
        for row in fields:
            if self.world.n_can_fields >= CAN_FIELDS_OUT_MAX:
                raise ValueError(f"more than {CAN_FIELDS_OUT_MAX} CAN fields")
            field = &self.world.can_fields[self.world.n_can_fields]
            field.start = row["start"]
            field.length = row["length"]
            field.big_endian = row["big_endian"]
            field.is_signed = row["is_signed"]
            field.flags = row["flags"]
            field.mux_value = row["mux_value"]
            field.mask = row["mask"]
            field.scale = row["scale"]
            field.offset = row["offset"]
            field.sentinel = row["sentinel"]
            field.source = self.variable(tuple(row["source"]))
            frame.battery = row["source"][1]
            if row["source"][2] == "alarm":
                frame.has_alarm = 1
            if field.flags & CAN_FIELD_MUXED and mux is not None:
                if field.mux_value not in [frame.mux_values[k] for k in range(frame.mux_count)] and frame.mux_count < 16:
                    frame.mux_values[frame.mux_count] = field.mux_value
                    frame.mux_count += 1
            self.world.n_can_fields += 1
            frame.field_count += 1
        self.world.n_frames += 1
        if bus >= <int>self.world.n_can_buses:
            self.world.n_can_buses = bus + 1
        return self.world.n_frames - 1

    def add_fault(self, kind, int target, double value, double t_on_s, double t_off_s):
        """Inject a fault between two times (s since the start). kind: one of FAULT_NAMES."""
        cdef fault_row_t* row
        limits = {"battery": self.world.plant.n_batteries, "pcs": self.world.plant.n_pcs, "watchdog_off": self.world.plant.n_pcs,
                  "meter": self.world.plant.n_meters, "island": 1}
        if kind not in FAULT_NAMES:
            raise ValueError(f"fault {kind!r}: knows {', '.join(FAULT_NAMES)}")
        number = FAULT_NAMES.index(kind)
        if number < FAULT_ECHO:
            limit = self.world.n_slaves
        elif number < FAULT_CAN_SILENT:
            limit = self.world.n_lines
        elif kind in ("can_silent", "can_flood", "can_passive", "can_off"):
            limit = self.world.n_can_buses
        elif number < FAULT_BATTERY:
            limit = self.world.n_frames
        else:
            limit = limits[kind]
        if not 0 <= target < <int>limit:
            raise ValueError(f"fault {kind}: target {target}, this world has {limit}")
        if self.world.n_faults >= FAULT_ROWS_MAX:
            raise ValueError(f"more than {FAULT_ROWS_MAX} faults")
        if not 0.0 <= t_on_s < t_off_s:
            raise ValueError(f"fault {kind}: must end after it begins")
        row = &self.world.faults[self.world.n_faults]
        row.kind = number
        row.target = target
        row.value = value
        row.t_on_ns = self.world.plant.t0_ns + <uint64_t>(t_on_s * 1e9)
        row.t_off_ns = self.world.plant.t0_ns + <uint64_t>(t_off_s * 1e9)
        self.world.n_faults += 1
        if row.t_on_ns < self.world.fault_next_ns:
            self.world.fault_next_ns = row.t_on_ns

    # ------------------------------------------------ running

    def start(self, uint64_t t_ns=1000000000):
        """Put the plant at rest at t_ns; traces and fault times count from here."""
        cdef uint32_t i
        cdef uint64_t shift_ns = t_ns - self.world.plant.t0_ns
        plant_start(&self.world.plant, t_ns)
        self.world.t_ns = t_ns
        for i in range(self.world.n_faults):
            self.world.faults[i].t_on_ns += shift_ns
            self.world.faults[i].t_off_ns += shift_ns
        if self.world.n_faults:
            self.world.fault_next_ns += shift_ns
        self.world.can_next_ns = NEVER
        for i in range(self.world.n_frames):
            self.world.frames[i].next_ns += t_ns
            if self.world.frames[i].next_ns < self.world.can_next_ns:
                self.world.can_next_ns = self.world.frames[i].next_ns
        self.world.series_left = self.world.series_every
        self.world.series_grid_max_w = -1e300
        self.world.series_grid_min_w = 1e300

    def connect(self, Core core, program):
        """Drive this core in virtual time. program: the bytes that it was made from."""
        cdef Py_buffer view
        cdef uint32_t i
        cdef core_t* at = core.ptr()
        if at.program.n_ports != self.world.n_lines:
            raise ValueError(f"the site has {at.program.n_ports} serial ports, the world {self.world.n_lines}")
        self.keep.append((core, program))
        self.world.core = at
        if self.world.n_can_buses < at.program.n_can_buses:
            self.world.n_can_buses = at.program.n_can_buses
        for i in range(self.world.n_lines):
            if self.world.lines[i].engine == NULL:
                self.world.lines[i].engine = <rtu_t*>calloc(1, sizeof(rtu_t))
                if self.world.lines[i].engine == NULL:
                    raise MemoryError("no memory for a serial engine")
            self.world.lines[i].char_ns = rtu_char_ns(at.program, <int>i)
            rtu_init(self.world.lines[i].engine, at.program, <int>i, &at.mail[i], self.world.t_ns)
            self.world.lines[i].engine_ns = self.world.t_ns
            self.world.lines[i].next_ns = self.world.t_ns

    def run(self, uint64_t cycles):
        """Run `cycles` cycles of virtual time without the GIL."""
        cdef uint64_t i
        if self.world.core == NULL:
            raise RuntimeError("no core is connected: call connect() first")
        with nogil:
            for i in range(cycles):
                world_cycle(self.world)

    def order(self, int kind, double value, double for_s, uint64_t request=1):
        """Put an order into the core's mailbox, as the gateway would."""
        order_put(&self.world.core.shared.mailbox[kind], value, self.world.t_ns + <uint64_t>(for_s * 1e9), request)

    def arm(self):
        """Acknowledge what can be, and leave the tripped state."""
        self.order(ORDER_ACK, 1.0, 1.0)
        self.order(ORDER_ARM, 1.0, 1.0)

    @property
    def tripped(self):
        return self.world.core.mode == MODE_TRIPPED

    # ------------------------------------------------ results

    def take_wire_log(self):
        """Bytes of all that left the controller since the last call: records of t_ns u64, bus u8, length u8, bytes."""
        if self.world.wire_log_lost:
            raise OverflowError(f"{self.world.wire_log_lost} records lost: take the log more often")
        found = (<char*>self.world.wire_log)[:self.world.wire_log_used]
        self.world.wire_log_used = 0
        return found

    def keep_series(self, uint32_t rows, uint32_t every):
        """Make room for `rows` rows of the decimated series, one every `every` cycles."""
        free(self.world.series)
        self.world.series = <double*>calloc(<size_t>rows * SERIES_COLUMNS, sizeof(double))
        if self.world.series == NULL:
            raise MemoryError("no memory for the series")
        self.world.series_size = rows
        self.world.series_every = every
        self.world.series_left = every
        self.world.series_used = 0

    def take_series(self):
        """Bytes of the rows since the last call: doubles, SERIES_COLUMNS a row."""
        found = (<char*>self.world.series)[:self.world.series_used * SERIES_COLUMNS * sizeof(double)]
        self.world.series_used = 0
        return found

    @property
    def totals(self):
        return dict(self.world.plant.totals)

    @property
    def checks(self):
        return dict(self.world.checks)

    @property
    def answers_ms(self):
        """Load step in the grid meter's registers -> last byte of the first setpoint that answers it."""
        return [self.world.answers_ms[i] for i in range(self.world.n_answers)]

    @property
    def t_ns(self):
        return self.world.t_ns

    @property
    def t_s(self):
        """Seconds since the start."""
        return <double>(self.world.t_ns - self.world.plant.t0_ns) * 1e-9

    @property
    def cycle(self):
        return self.world.cycle

    def lines(self):
        """Per line what the master counted and what the line saw."""
        found = []
        for i in range(self.world.n_lines):
            row = {"requests": self.world.lines[i].requests, "collisions": self.world.lines[i].collisions}
            if self.world.core != NULL:
                row.update({key: value for key, value in dict(self.world.core.mail[i].stats).items() if isinstance(value, int)})
            found.append(row)
        return found

    def batteries(self):
        """Truth about each battery, whatever its BMS says."""
        found = []
        for i in range(self.world.plant.n_batteries):
            battery = &self.world.plant.batteries[i]
            found.append({
                "soc": battery.charge_as / battery.capacity_as, "charge_as": battery.charge_as, "temp_c": battery.temp_c,
                "current_a": battery.current_a, "open_v": battery.open_v, "dc_w": battery.dc_w,
                "contactor": bool(battery.contactor), "opened": battery.opened,
                "opened_under_load": battery.opened_under_load, "drawn_j": battery.drawn_j, "heat_j": battery.heat_j,
                "says": {name: battery.v[k] for k, name in enumerate(BATTERY_VARIABLES)},
            })
        return found

    def converters(self):
        """Truth about each power converter."""
        found = []
        for i in range(self.world.plant.n_pcs):
            pcs = &self.world.plant.pcs[i]
            found.append({
                "w": pcs.w, "target_w": pcs.target_w, "dc_w": pcs.dc_w, "out_j": pcs.out_j, "in_j": pcs.in_j,
                "loss_j": pcs.loss_j, "battery_j": pcs.battery_j, "reverts": pcs.reverts, "reverted": bool(pcs.reverted),
                "writes": pcs.writes, "wire_set_w": self.world.wire_set_w[i], "wire_set_t_ns": self.world.wire_set_t_ns[i],
                "says": {name: pcs.v[k] for k, name in enumerate(PCS_VARIABLES)},
            })
        return found

    def meters(self):
        """What each meter's registers show."""
        return [
            {"source": METER_SOURCES[self.world.plant.meters[i].source], "updates": self.world.plant.meters[i].updates,
             "says": {name: self.world.plant.meters[i].v[k] for k, name in enumerate(METER_VARIABLES)}}
            for i in range(self.world.plant.n_meters)
        ]

    @property
    def now(self):
        """True powers at this moment, W."""
        plant = &self.world.plant
        return {"load_w": plant.load_w, "it_w": plant.it_w, "cooling_w": plant.cooling_w, "pv_w": plant.pv_w,
                "ess_w": plant.ess_w, "grid_w": plant.grid_w}

    def step_plant(self, uint64_t steps):
        """Move only the physics on: for tests and for people who want the plant without a controller."""
        cdef uint64_t i
        with nogil:
            for i in range(steps):
                self.world.t_ns += self.world.plant.dt_ns
                if self.world.t_ns >= self.world.fault_next_ns:
                    world_faults(self.world, self.world.t_ns)
                plant_step(&self.world.plant, self.world.t_ns)

    def answer(self, int line, bytes request):
        """Reply of the devices on a line to one whole request, None for silence. Time does not move."""
        cdef uint8_t reply[FRAME_MAX + 4]
        cdef uint32_t length = 0
        if not 0 <= line < <int>self.world.n_lines:
            raise IndexError(f"no line {line}")
        if len(request) < 4 or len(request) > FRAME_MAX:
            return None
        if line_answer(self.world, line, request, <uint32_t>len(request), self.world.t_ns, reply, &length) < 0:
            return None
        return (<char*>reply)[:length]

    def frame(self, int number):
        """(id, data) of CAN frame row `number` as it would leave now."""
        cdef uint8_t data[8]
        if not 0 <= number < <int>self.world.n_frames:
            raise IndexError(f"no CAN frame {number}")
        n = frame_encode(self.world, &self.world.frames[number], data)
        return self.world.frames[number].id, (<char*>data)[:n]
