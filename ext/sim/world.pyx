"""One simulated plant in virtual time: bus events, the physics, the core, cycle after cycle, from one seed.

The same world in wall time is live.pyx.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from tidegate.ext.sim.assembly cimport Assembly
from tidegate.ext.sim.buses cimport *
from tidegate.ext.abi.image cimport MODE_TRIPPED, QUALITY_GOOD, SITE_GENSET_WANTED
from tidegate.ext.estimate.likelihood cimport HABITS
from tidegate.ext.estimate.moments cimport shows_moments
from tidegate.ext.estimate.truth cimport ASK_ANSWER
from tidegate.ext.cycle.core cimport core_t
from tidegate.ext.cycle.loop cimport Core, core_cycle
from tidegate.ext.sim.can_frames cimport can_emit, can_flood, can_take, frame_encode
from tidegate.ext.sim.observe cimport follow_load_step, series_row, world_check
from tidegate.ext.sim.plant cimport *
from tidegate.ext.bus.rtu cimport rtu_init, rtu_t
from tidegate.ext.bus.rtu_frame cimport rtu_char_ns, rtu_gap_ns
from tidegate.ext.abi.shared cimport ORDER_ACK, ORDER_ARM, order_put
from tidegate.ext.sim.slave cimport *

from tidegate.ext.sim.assembly import BATTERY_VARIABLES, METER_SOURCES, METER_VARIABLES, PCS_VARIABLES

cdef uint64_t NEVER = 0xFFFFFFFFFFFFFFFF

SERIES = (
    "t_s", "load_w", "grid_w", "grid_min_w", "grid_max_w", "ess_w", "pv_w", "soc", "setpoint_w", "request_w", "reason",
    "mode", "it_w", "cooling_w", "corridor_lo_w", "corridor_hi_w", "envelope_lo_w", "envelope_hi_w", "grid_measured_w",
    "temp_c", "asking",
)
assert len(SERIES) == SERIES_COLUMNS


cdef void world_cycle(world_t* world) noexcept nogil:
    cdef uint64_t t_ns = world.t_ns + world.period_ns
    cdef plant_t* plant = &world.plant
    cdef uint64_t plant_t_ns
    cdef uint32_t i
    world.t_ns = t_ns
    if t_ns >= world.fault_next_ns:
        world_faults(world, t_ns)
    if plant.genset.w_max > 0.0:  # somebody's relay follows the wish
        plant.genset.told = (world.core.image[SITE_GENSET_WANTED].quality == QUALITY_GOOD
                             and world.core.image[SITE_GENSET_WANTED].value != 0.0)
    # The plant moves in its own small steps, so that a slow cycle sees the same physics as a fast one.
    plant_t_ns = plant.t_ns + plant.dt_ns
    while plant_t_ns <= t_ns:
        for i in range(world.n_lines):
            if world.lines[i].next_ns < plant_t_ns:
                line_run(world, <int>i, plant_t_ns - 1)
        plant_step(plant, plant_t_ns)
        if plant.step_t_ns == plant_t_ns or world.answer.open:
            follow_load_step(world, plant_t_ns)
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
            line_schedule(&world.lines[i], t_ns)
    can_take(world, t_ns)
    world_check(world)
    series_row(world)


cdef class World(Assembly):
    """One plant with its buses; built by `tidegate.hal.sim`, moved by `run` (virtual) or by live.pyx."""

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
            if self.world.lines[i].engine.framed:  # virtual time has RTU only, on a line as fast as the port's row says
                self.world.lines[i].engine.framed = self.world.lines[i].engine.numbered = self.world.lines[i].engine.pylon = 0
                self.world.lines[i].engine.char_ns = self.world.lines[i].char_ns
                self.world.lines[i].engine.gap_ns = rtu_gap_ns(at.program, <int>i)
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

    def set_frame(self, uint32_t number, bytes data not None):
        """From now on this CAN frame, which has no fields, says these 8 bytes; the change goes out at once."""
        cdef const uint8_t* at = data
        if number >= self.world.n_frames or len(data) != 8:
            raise ValueError(f"frame {number} of {self.world.n_frames}, {len(data)} bytes of 8")
        memcpy(self.world.frames[number].template, at, 8)
        self.world.frames[number].next_ns = self.world.t_ns
        self.world.can_next_ns = self.world.t_ns

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

    @property
    def units_tripped(self):
        """How many units stand tripped, latched ones among them."""
        cdef uint32_t unit, tripped = 0
        for unit in range(self.world.core.program.n_units):
            tripped += self.world.core.cabinets[unit].mode == MODE_TRIPPED
        return tripped

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
                "reported": {name: battery.v[k] for k, name in enumerate(BATTERY_VARIABLES)},
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
                "reported": {name: pcs.v[k] for k, name in enumerate(PCS_VARIABLES)},
            })
        return found

    def meters(self):
        """What each meter's registers show."""
        return [
            {"source": METER_SOURCES[self.world.plant.meters[i].source], "updates": self.world.plant.meters[i].updates,
             "reported": {name: self.world.plant.meters[i].v[k] for k, name in enumerate(METER_VARIABLES)}}
            for i in range(self.world.plant.n_meters)
        ]

    @property
    def meter_answer(self):
        """(whether the grid meter shows the battery: enum grid_answer, by how many standard deviations, readings)."""
        models = &self.world.core.estimate.models
        return models.answer, models.answer_by, models.answer_readings

    @property
    def age_s(self):
        """(least, most) age of the grid reading as the core believes and shows it now, s."""
        if self.world.core == NULL:
            raise RuntimeError("no core is connected: call connect() first")
        return (self.world.core.estimate.likely_lo_s, self.world.core.estimate.likely_hi_s)

    @property
    def net_w(self):
        """(least, most) power of the site without its batteries, as the core believes it now, W."""
        if self.world.core == NULL:
            raise RuntimeError("no core is connected: call connect() first")
        return self.world.core.plant.net_lo_w, self.world.core.plant.net_w

    @property
    def meter_model(self):
        """What the core takes the grid meter for: ages alone, averages, how restless it finds the load beside them."""
        if self.world.core == NULL:
            raise RuntimeError("no core is connected: call connect() first")
        state = &self.world.core.estimate
        return {"known": bool(state.age_known), "averages": bool(state.models.averages), "age_known": bool(state.lags.known),
                "age_used": bool(state.lags.used), "age_best": state.lags.best, "delay_best": state.models.delay_best,
                "mean_best": state.models.mean_best, "share": state.lags.share, "moves": state.lags.moves,
                "noise_w": list(state.models.noise_w), "model_moves": list(state.models.moves),
                "motion_w2": list(state.models.motion_w2), "since": state.models.since_most, "unexplained": list(state.models.unexplained),
                "variance": list(state.models.variance), "age_unexplained": list(state.lags.unexplained),
                "age_variance": list(state.lags.variance), "ess_interval_s": state.lags.ess_interval.interval_s,
                "ess_alike": bool(state.lags.ess_interval.alike), "poll_s": state.lags.poll_s, "interval_s": state.lags.interval.interval_s,
                "moments": (0.35 + state.lags.moments.off / max(state.lags.moments.moves, 1e-9), state.lags.moments.moves,
                            state.lags.moments.dt_s, bool(shows_moments(&state.lags.moments))),
                "hunting": self.world.core.control.hunting.level, "tried": bool(self.world.core.control.hunting.trial),
                "alike": self.world.core.control.hunting.alike}

    @property
    def step_response(self):
        """What the core knows of the first converter's answers: least and most share of a step by then, 10 ms apart."""
        if self.world.core == NULL:
            raise RuntimeError("no core is connected: call connect() first")
        r = &self.world.core.estimate.units[0].response
        return {"answers": r.answers, "good": r.good, "trusted": bool(r.trusted), "off_w": r.off_w,
                "done_s": r.done_ns * 1e-9, "reached": list(r.reached), "waiting": list(r.waiting)}

    @property
    def meter_truth(self):
        """What the core holds of the grid meter: enum meter_verdict, and what the pulses of arming have shown, by age."""
        if self.world.core == NULL:
            raise RuntimeError("no core is connected: call connect() first")
        truth = &self.world.core.truth
        signs = &self.world.core.estimate.models.signs
        return {"verdict": truth.verdict, "asking": truth.asking, "sign": truth.pulses.sign, "sign_moves": signs.moves,
                "honest_left": list(signs.honest_left), "turned_left": list(signs.turned_left), "still_s": truth.still_s,
                "least_w": truth.least_w, "suspicion": truth.contradiction.suspicion, "noise_w": truth.contradiction.noise_w,
                "votes": list(truth.contradiction.votes), "edges": truth.question.edges,
                "patient": truth.question.patient, "step_w": truth.question.step_w, "level": truth.question.level, "answers": list(truth.question.answer),
                "clear": list(truth.question.clear),
                "registers": truth.energy.state, "phases": truth.phases.state,
                "phase": {"agreed": truth.phases.agreed, "apart": truth.phases.apart, "zeros": list(truth.phases.zeros), "gives": truth.phases.gives,
                          "moves": truth.phases.moves, "moved_w2": truth.phases.moved_w2,
                          "both_w2": list(truth.phases.both_w2), "phase_w2": list(truth.phases.phase_w2),
                          "zero_w": [truth.phases.zero_lo_w[2], truth.phases.zero_hi_w[2]]},
                "register": {"count": truth.energy.count, "against": truth.energy.against, "least_ws": truth.energy.least_ws,
                             "power_ws": truth.energy.power_ws, "import_ws": truth.energy.import_ws},
                "likelihood": [list(truth.contradiction.likelihood.sums[i]) for i in range(HABITS)],
                "grid_w2": truth.pulses.grid_w2, "moved_w2": list(truth.pulses.moved_w2),
                "moved_w4": list(truth.pulses.moved_w4), "both_w2": list(truth.pulses.both_w2)}

    @property
    def meter_asked(self):
        """What the core asks of the grid meter (ext/estimate/truth.pxd), why (contradiction.pxd), and by what step, W."""
        if self.world.core == NULL:
            raise RuntimeError("no core is connected: call connect() first")
        truth = &self.world.core.truth
        asks = truth.asking == ASK_ANSWER
        return (truth.asking, truth.question.suspicion if asks else truth.contradiction.suspicion,
                truth.question.step_w if asks else truth.step_w)

    @property
    def genset(self):
        """What the genset does and has done: W, s, J, since the start. `dark_s`: nothing carried the site."""
        return dict(self.world.plant.genset)

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
