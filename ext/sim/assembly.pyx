"""One simulated plant put together part by part: batteries, converters, meters, lines, devices, frames, faults."""

from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from tidegate.ext.sim.buses cimport *
from tidegate.ext.sim.plant cimport *
from tidegate.ext.abi.program cimport CAN_BUSES_MAX, CAN_FIELD_MUXED, FIELD_LESS_NEXT, PART_SETPOINT, PORTS_MAX, SLAVES_MAX
from tidegate.ext.sim.slave cimport *

cdef uint64_t NEVER = 0xFFFFFFFFFFFFFFFF

BATTERY_VARIABLES = (
    "soc", "soh", "pack_v", "pack_a", "temp_max_c", "temp_min_c", "cell_v_max", "cell_v_min", "charge_v_max",
    "discharge_v_min", "charge_a_max", "discharge_a_max", "charge_w_max", "discharge_w_max", "charge_ok", "discharge_ok",
    "alarm", "warning", "contactor", "capacity_ah", "energy_wh", "state", "zero",
)
PCS_VARIABLES = (
    "w", "w_l1", "w_l2", "w_l3", "va", "var", "a", "a_l1", "v_ll", "v_ln", "hz", "pf", "dc_v", "dc_a", "dc_w", "storage_w", "state", "on",
    "conn", "alarm", "temp_c", "out_wh", "in_wh", "w_max", "charge_w_max", "discharge_w_max", "set_w", "set_ena",
    "set_mode", "set_permille", "revert_w", "revert_ena", "revert_s", "revert_left_s", "hb_device", "hb_controller",
    "op_ctl", "local", "ready", "fault", "zero",
)
METER_VARIABLES = (
    "w", "w_l1", "w_l2", "w_l3", "va", "var", "a", "a_l1", "a_l2", "a_l3", "v", "v_l1", "v_l2", "v_l3", "hz", "pf",
    "import_wh", "export_wh", "total_wh", "zero",
)
METER_SOURCES = ("grid", "it", "cooling", "pv", "pcs", "circuit", "genset")
FAULT_NAMES = (
    "dead", "late", "corrupt", "short", "exception", "wrong_unit", "wrong_function", "drop", "stale_reply", "echo",
    "noise", "second_master", "can_silent", "can_id_silent", "can_counter_stuck", "can_counter_jumps", "can_length",
    "can_extended", "can_flood", "can_passive", "can_off", "can_spoof", "battery", "pcs", "meter", "island",
    "watchdog_off", "genset", "hz",
)
FAULT_BITS = {
    "genset": {"wont_start": GENSET_WONT_START, "stops": GENSET_STOPS},
    "pcs": {"frozen": PCS_FROZEN, "tripped": PCS_TRIPPED, "local": PCS_IN_LOCAL, "wrong_sign": PCS_WRONG_SIGN,
            "deaf": PCS_DEAF, "turned": PCS_TURNED},
    "meter": {"stuck": METER_STUCK, "reversed": METER_REVERSED, "nan": METER_NAN, "swapped": METER_SWAPPED,
              "reset": METER_RESET, "absolute": METER_ABSOLUTE, "no_l3": METER_NO_L3, "w_stuck": METER_W_STUCK,
              "elsewhere": METER_ELSEWHERE, "tenfold": METER_TENFOLD, "tenth": METER_TENTH,
              "replayed": METER_REPLAYED, "l3_off": METER_L3_OFF, "two_phases": METER_TWO_PHASES},
    "battery": {"warning": BATTERY_WARNS, "alarm": BATTERY_ALARMS, "no_charge": BATTERY_NO_CHARGE,
                "no_discharge": BATTERY_NO_DISCHARGE, "limits_zero": BATTERY_LIMITS_ZERO, "sentinel": BATTERY_SENTINEL,
                "wild": BATTERY_WILD, "soc_jump": BATTERY_SOC_JUMP, "voltage_off": BATTERY_VOLTAGE_OFF,
                "hot": BATTERY_HOT, "open": BATTERY_OPEN, "frozen": BATTERY_FROZEN},
}
assert len(BATTERY_VARIABLES) == BATTERY_VARS and len(PCS_VARIABLES) == PCS_VARS
assert len(METER_VARIABLES) == METER_VARS and len(FAULT_NAMES) == FAULT_KINDS


cdef class Assembly:
    """The parts of one plant and its buses, at rest; `World` moves them.

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
            free(self.world.plant.meters[i].habits)
        for i in range(self.world.plant.n_pcs):
            free(self.world.plant.pcs[i].habits)
        for i in range(self.world.plant.n_batteries):
            free(self.world.plant.batteries[i].habits)
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
                 double cooling_mean_s=600.0, phase_share=(1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0)):
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

    def add_pcs(self, *, int battery, beside=(), double charge_w_max, double discharge_w_max, double tau_s, double dead_s,
                double ramp_w_per_s, double loss_w, double loss_ratio, double measure_s, double heartbeat_timeout_s=0.0, double revert_s=0.0,
                bint enabled=True, bint started=True, states=(7, 3, 6)):
        """A power converter on a battery, or on several side by side; returns its number. states: its numbers for standby, run and fault."""
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
        for other in beside:
            if not 0 <= other < <int>plant.n_batteries or other == battery:
                raise ValueError(f"power converter {plant.n_pcs}: no other battery {other}")
            pcs.beside |= 1u << <int>other
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

    def add_meter(self, source, *, int index=0, double share=1.0, uint32_t downstream=0, double interval_s,
                  double delay_s=0.0, double resolution_w=0.0, double phase_s=0.0, double import_wh=0.0):
        """A meter; returns its number. phase_s: when its first interval ends; downstream: bit each converter on a circuit;
        import_wh: what its register has counted before."""
        cdef plant_t* plant = &self.world.plant
        cdef meter_t* meter
        if plant.n_meters >= METERS_MAX:
            raise ValueError(f"more than {METERS_MAX} meters")
        if source not in METER_SOURCES:
            raise ValueError(f"meter of {source!r}: knows {', '.join(METER_SOURCES)}")
        if interval_s <= 0 or delay_s < 0 or delay_s > (READINGS_MAX - 2) * interval_s:
            raise ValueError(f"meter of {source}: interval above 0, delay 0..{READINGS_MAX - 2} intervals")
        if not 0.0 <= import_wh < INFINITY:
            raise ValueError(f"meter of {source}: a register from 0 Wh on")
        meter = &plant.meters[plant.n_meters]
        meter.source = METER_SOURCES.index(source)
        meter.index = index
        meter.share = share
        meter.downstream = downstream
        meter.interval_ns = <uint64_t>(interval_s * 1e9)
        meter.delay_ns = <uint64_t>(delay_s * 1e9)
        meter.next_ns = <uint64_t>(phase_s * 1e9)
        meter.resolution_w = resolution_w
        meter.import_j = import_wh * 3600.0
        if meter.delay_ns > 0:
            meter.readings = <reading_t*>calloc(READINGS_MAX, sizeof(reading_t))
            if meter.readings == NULL:
                raise MemoryError("no memory for a meter's readings")
        plant.n_meters += 1
        return plant.n_meters - 1

    def battery_habits(self, int number, *, double soc_step=0.0, double jump_s=0.0, double jump_lo=1.0, uint64_t random=1):
        """Let a battery show its state of charge in steps, and its BMS change the limits every jump_s or so."""
        cdef battery_habits_t* habits
        if not 0 <= number < <int>self.world.plant.n_batteries:
            raise IndexError(f"no battery {number}")
        if soc_step < 0 or jump_s < 0 or not 0.0 <= jump_lo <= 1.0 or random == 0:
            raise ValueError(f"battery {number}: step and time not below 0, a share of 0..1, a seed above 0")
        habits = self.world.plant.batteries[number].habits
        if habits == NULL:
            habits = <battery_habits_t*>calloc(1, sizeof(battery_habits_t))
            if habits == NULL:
                raise MemoryError("no memory for a battery's habits")
            self.world.plant.batteries[number].habits = habits
        habits.soc_step = soc_step
        habits.share = 1.0
        habits.jump_lo = jump_lo
        habits.jump_ns = habits.next_ns = <uint64_t>(jump_s * 1e9)
        habits.random = random

    def pcs_habits(self, int number, *, double gain=1.0, double offset_w=0.0, double quantum_w=0.0, double share=1.0,
                   double cap_w=1e12, double from_s=0.0, double until_s=1e9, double full_soc=2.0,
                   double own_w=0.0, double own_from_s=0.0, bint own_told=False):
        """Let a converter give gain * told + offset; share and cap_w of that from from_s on; no charge above full_soc.

        own_w: what modules of its own add to its AC power from own_from_s on; below 0 it is a load behind its output.
        own_told: its setpoints are AC power, so that the battery gives what the modules do not.
        """
        cdef pcs_habits_t* habits
        if not 0 <= number < <int>self.world.plant.n_pcs:
            raise IndexError(f"no power converter {number}")
        if gain <= 0 or quantum_w < 0 or not 0.0 < share <= 1.0 or cap_w <= 0 or from_s < 0 or until_s < from_s or own_from_s < 0:
            raise ValueError(f"power converter {number}: gain, share and cap above 0, times that rise")
        habits = self.world.plant.pcs[number].habits
        if habits == NULL:
            habits = <pcs_habits_t*>calloc(1, sizeof(pcs_habits_t))
            if habits == NULL:
                raise MemoryError("no memory for a power converter's habits")
            self.world.plant.pcs[number].habits = habits
        habits.gain = gain
        habits.offset_w = offset_w
        habits.quantum_w = quantum_w
        habits.share = share
        habits.cap_w = cap_w
        habits.from_ns = <uint64_t>(from_s * 1e9)
        habits.until_ns = <uint64_t>(until_s * 1e9)
        habits.full_soc = full_soc
        habits.own_w = own_w
        habits.own_told = own_told
        habits.own_ns = <uint64_t>(own_from_s * 1e9)

    def meter_habits(self, int number, *, double jitter=0.0, double average_s=0.0, double lag_s=0.0, double band_w=0.0, double silent_s=30.0,
                     uint64_t random=1, double then_at_s=0.0, double then_interval_s=0.0, double then_average_s=0.0,
                     double then_lag_s=0.0):
        """Let a meter come late by up to a share of its interval, average (moving mean or first order), report on change.

        band_w, silent_s: it reports a change of band_w, and anyway after so long. then_at_s: from then on it has the
        interval and the average of the then_ arguments; 0 = never.
        """
        cdef meter_habits_t* habits
        cdef double dt_s = <double>self.world.plant.dt_ns * 1e-9
        if not 0 <= number < <int>self.world.plant.n_meters:
            raise IndexError(f"no meter {number}")
        if not 0.0 <= jitter <= 1.0 or min(average_s, lag_s, band_w, then_average_s, then_lag_s, then_at_s) < 0 or random == 0:
            raise ValueError(f"meter {number}: a jitter of 0..1, times and band not below 0, a seed above 0")
        if then_at_s > 0 and then_interval_s <= 0:
            raise ValueError(f"meter {number}: its later interval must be above 0")
        habits = self.world.plant.meters[number].habits
        if habits == NULL:
            habits = <meter_habits_t*>calloc(1, sizeof(meter_habits_t))
            if habits == NULL:
                raise MemoryError("no memory for a meter's habits")
            self.world.plant.meters[number].habits = habits
        habits.jitter = jitter
        habits.own.window_s = habits.net.window_s = average_s
        habits.own.alpha = habits.net.alpha = lag_share(dt_s, lag_s) if lag_s > 0 else 0.0
        habits.band_w = band_w
        habits.silent_ns = <uint64_t>(silent_s * 1e9)
        habits.random = random
        habits.then_ns = <uint64_t>(then_at_s * 1e9)
        habits.then_interval_ns = <uint64_t>(then_interval_s * 1e9)
        habits.then_window_s = then_average_s
        habits.then_lag_s = then_lag_s

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
            row.words[space][address + i] = <int64_t>word & 0xFFFF

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
        binding.words = type_words(type) * (2 if flags & FIELD_LESS_NEXT else 1) if space >= SPACE_HOLDING else 1
        binding.scale = scale
        binding.offset = offset
        binding.sentinel = sentinel
        binding.bit_first = bit_first
        binding.bit_count = bit_count
        binding.source = self.variable(source)
        row.n_bindings += 1

    def bind_write(self, int slave, int space, int address, *, int type, int flags, double scale, str variable,
                   int of=PART_SETPOINT, double zero=0.0, double charge=0.0, double discharge=0.0):
        """Let a master set a variable of the power converter behind the device.

        of: which part of a setpoint stands there (PARTS_OF of the program); zero: the raw number of 0 W; charge,
        discharge: the words of a direction.
        """
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
        write.of = of
        write.zero = zero
        write.charge = charge
        write.discharge = discharge
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

    def set_genset(self, *, double w_max, double w_min=0.0, double start_s=8.0, bint at_grid_meter=True):
        """An engine that starts when the core wishes for it; at_grid_meter: in an island the grid meter shows it."""
        if not 0.0 <= w_min <= w_max or not start_s >= 0.0:
            raise ValueError(f"genset: w_min {w_min:g}, w_max {w_max:g} and start_s {start_s:g} must not be negative, nor w_min above w_max")
        self.world.plant.genset.w_max = w_max
        self.world.plant.genset.w_min = w_min
        self.world.plant.genset.start_s = start_s
        self.world.plant.genset.at_grid_meter = at_grid_meter

    def add_fault(self, kind, int target, double value, double t_on_s, double t_off_s):
        """Inject a fault between two times (s since the start). kind: one of FAULT_NAMES."""
        cdef fault_row_t* row
        limits = {"battery": self.world.plant.n_batteries, "pcs": self.world.plant.n_pcs, "watchdog_off": self.world.plant.n_pcs,
                  "meter": self.world.plant.n_meters, "island": 1, "genset": 1, "hz": 1}
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
