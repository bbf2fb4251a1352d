"""The loop: read, estimate, control, limit, write, publish.

`core_cycle` below is the whole product in six words. Time, dt and the cycle's number are arguments, so that the same
compiled code runs on the wall clock (`core_run`) and in the virtual time of `world.pyx`. Nothing in a phase allocates,
locks, logs, takes the GIL, touches a tty or asks for the time.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EINTR
from libc.math cimport INFINITY, NAN
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from tidegate.ext.abi.extremes cimport fmax
from tidegate.ext.safety.cabinet cimport cabinet_request, cabinet_step, pulse_as_one, site_mode
from tidegate.ext.bus.can cimport can_bus_init, can_drain, can_send_due
from tidegate.ext.bus.can_view cimport BusHandle, bus_handle
from tidegate.ext.cycle.outputs cimport write_command
from tidegate.ext.control.corridor cimport ORDER_MANUAL, control_step
from tidegate.ext.control.hunting cimport hunting_disturbed
from tidegate.ext.control.policies cimport unproven_discharge_w
from tidegate.ext.control.recharging cimport recharging_watch
from tidegate.ext.cycle.asking cimport answer_of_meter, ask_meter, stir
from tidegate.ext.cycle.episodes cimport episodes_begin
from tidegate.ext.cycle.core cimport *
from tidegate.ext.estimate.coincidence cimport coincidence_random
from tidegate.ext.estimate.easing cimport battery_step
from tidegate.ext.estimate.converter cimport (
    converter_answer_s, converter_begin, converter_order, converter_step, converter_t,
)
from tidegate.ext.estimate.clock cimport clock_set, window_began
from tidegate.ext.estimate.demand cimport billing_set
from tidegate.ext.estimate.estimator cimport estimate_step, image_age
from tidegate.ext.estimate.estimate cimport ANSWER_NONE, ANSWER_OPEN, ANSWER_UNPROVEN, unit_view_t
from tidegate.ext.estimate.bank cimport bank_step
from tidegate.ext.estimate.truth cimport truth_order, truth_step
from tidegate.ext.safety.diagnosis cimport FAULT_CLOCK_APART, FAULT_PCS_WATCHDOG, diagnose, diagnose_state_t, holds
from tidegate.ext.safety.gate cimport fault_set, gate_input_from_image, gate_request
from tidegate.ext.safety.safety cimport fault_set_t, gate_init, gate_restore, gate_step
from tidegate.ext.abi.image cimport *
from tidegate.ext.cycle.orders cimport edge, relay_orders, update_orders
from tidegate.ext.estimate.lag cimport age_wanted, lag_met, lag_reopen, widen_lag_search
from tidegate.ext.estimate.meter_sign cimport SIGN_AGAINST, sign_power_w, signs_begin
from tidegate.ext.estimate.pairing cimport nameplates
from tidegate.ext.estimate.model cimport answer_armed, answer_forget, answer_shown
from tidegate.ext.abi.port_mail cimport done_t, port_done_peek, port_done_pop, port_mail_init
from tidegate.ext.abi.program cimport COMMAND_SETPOINT_W, unit_row_t
from tidegate.ext.abi.program_check cimport program_check
from tidegate.ext.bus.port cimport mail_handle
from tidegate.ext.cycle.publish cimport (
    end_events, event_emit, proof_min, publish_latches, publish_points, raise_events, sample_external, sample_ports, sample_stop,
)
from tidegate.ext.cycle.recorder cimport Ring, recorder_cycle
from tidegate.ext.cycle.selftest cimport (
    SELFTEST_READ_NS, selftest_begin, selftest_clocks, selftest_code, selftest_cycle, selftest_hold, selftest_keep, selftest_mark,
    selftest_may_write, selftest_program, selftest_rows, selftest_take,
)
from tidegate.ext.bus.registers cimport block_decode
from tidegate.ext.abi.ring cimport ITEM_SELFTEST, ITEM_UTC, recorder_begin, recorder_done, recorder_word
from tidegate.ext.abi.shared cimport *
from tidegate.ext.cycle.enforcement cimport check_enforcement

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    struct timespec:
        time_t tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* out)
    int clock_nanosleep(int clock, int flags, const timespec* wanted, timespec* left)
    int CLOCK_BOOTTIME
    int CLOCK_MONOTONIC
    int CLOCK_MONOTONIC_RAW
    int TIMER_ABSTIME

cdef extern from "<sys/resource.h>" nogil:
    struct rusage:
        long ru_minflt
        long ru_majflt
        long ru_nivcsw
    int getrusage(int who, rusage* out)
    enum:
        RUSAGE_THREAD "1"

from tidegate.ext.abi.program import check_code_text

cdef uint64_t SECOND_NS = 1000000000


# ---------------------------------------------------------------- the cycle


cdef void core_cycle(core_t* core, uint64_t t_ns, uint64_t dt_ns, uint64_t cycle) noexcept nogil:
    read(core, t_ns)
    estimate(core, t_ns, dt_ns)
    control(core, dt_ns)
    limit(core, t_ns, dt_ns)
    write(core, t_ns)
    publish(core, t_ns, dt_ns, cycle)


cdef void read(core_t* core, uint64_t t_ns) noexcept nogil:
    """Take what the buses and the mailbox hold, and age every point."""
    cdef uint32_t i
    cdef const done_t* done
    selftest_cycle(&core.selftest)
    for i in range(core.program.n_can_buses):
        can_drain(core.program, &core.can[i], core.image, core.can_ids, t_ns)
    for i in range(core.program.n_ports):
        done = port_done_peek(&core.mail[i])
        while done != NULL:  # bounded by DONE_SLOTS
            block_decode(core.program, done, core.image)
            recorder_done(core.recorder, i, done)
            port_done_pop(&core.mail[i])
            done = port_done_peek(&core.mail[i])
    image_age(core.program, core.image, &core.estimate, t_ns)
    bank_step(core.program, core.image, t_ns)
    sample_stop(core, &core.external)
    update_orders(core.program, core.shared, &core.external, &core.inbox, core.recorder, t_ns)
    relay_orders(core.program, core.image, &core.inbox.orders)
    phase_done(core, PHASE_READ)


cdef void estimate(core_t* core, uint64_t t_ns, uint64_t dt_ns) noexcept nogil:
    """Form load, integrals and the units' envelopes; turn conditions into fault bits."""
    cdef uint32_t unit
    for unit in range(core.program.n_units):
        learnt_for_diagnosis(&core.converters[unit], &core.diagnoses[unit])
        gate_input_from_image(core.program, <int>unit, core.image, &core.inputs[unit])
        diagnose(core.program, <int>unit, core.image, &core.diagnoses[unit], t_ns, dt_ns, &core.inputs[unit].faults)
    if core.external.utc_offset_ns != core.shared.utc_offset_ns:
        core.external.utc_offset_ns = core.shared.utc_offset_ns
        recorder_word(core.recorder, ITEM_UTC, 0, <uint64_t>core.external.utc_offset_ns)
    clock_set(&core.program.control, &core.estimate, clock_offset(core, t_ns), t_ns)
    if edge(&core.inbox, ORDER_WINDOW, t_ns):
        window_began(&core.program.control, &core.estimate, <uint64_t>(core.inbox.mailbox[ORDER_WINDOW].value * 1e9), t_ns)
    billing_set(
        &core.estimate, core.inbox.plan.billing_end_t_ns, core.inbox.plan.billing_number, core.inbox.plan.paid_w
    )
    estimate_step(
        core.program, core.image, core.inputs, core.verdicts, &core.estimate, &core.plant, t_ns, dt_ns
    )
    if not core.plant.island or core.program.site.genset_w < 0:  # else the grid meter sees nothing of the battery
        truth_step(core.program, core.image, &core.estimate, &core.plant, &core.truth, core.mode, t_ns)
        if core.truth.shown:
            answer_shown(&core.estimate)
        lag_met(&core.estimate, core.truth.coincidence.age_lo_s, core.truth.coincidence.age_hi_s)
    for unit in range(core.program.n_units):
        estimate_unit(core, unit, t_ns, <double>dt_ns * 1e-9)
    phase_done(core, PHASE_ESTIMATE)


cdef inline int64_t clock_offset(const core_t* core, uint64_t t_ns) noexcept nogil:
    """The wall clock by which the demand windows go: the site's, as the plan knows it; until there is one, UTC."""
    cdef const plan_t* plan = &core.inbox.plan
    if plan.clock_offset_ns == 0:
        return core.external.utc_offset_ns
    return plan.clock_next_offset_ns if 0 < plan.clock_next_t_ns <= t_ns else plan.clock_offset_ns


cdef inline void learnt_for_diagnosis(const converter_t* converter, diagnose_state_t* diagnose) noexcept nogil:
    """A late converter is judged by how late it was seen to be."""
    diagnose.answer_dead_s = converter.dead_hi_s
    diagnose.answer_lag_s = converter.lag_hi_s
    diagnose.answer_ramp_w_per_s = converter.ramp_limit_w_per_s


cdef void estimate_unit(core_t* core, uint32_t unit, uint64_t t_ns, double dt_s) noexcept nogil:
    """What the control may count on of one unit: its battery's limits, and what its converter gives of them."""
    cdef const unit_row_t* row = &core.program.units[unit]
    cdef unit_view_t* view = &core.plant.units[unit]
    battery_step(&core.batteries[unit], row, core.image, &core.inbox.params, view, dt_s)
    if row.pcs_w >= 0:
        if not core.converters[unit].started:
            converter_begin(&core.converters[unit], core.program.control.first_dead_s[unit],
                            core.program.control.first_lag_s[unit], core.program.control.first_gain[unit])
        converter_step(
            &core.converters[unit], &core.image[row.pcs_w], core.verdicts[unit].setpoint_w,
            fmax(row.gate.charge_w_max, row.gate.discharge_w_max), core.program.control.pcs_tau_s,
            core.estimate.lags.ess_interval.interval_s, &core.estimate.units[unit], view, t_ns, dt_s,
        )
    if core.converters[unit].let_through:
        view.setpoint_w = core.converters[unit].asked_w


cdef void control(core_t* core, uint64_t dt_ns) noexcept nogil:
    """The corridor: what each unit should do, and why."""
    recharging_watch(&core.recharging, &core.inbox.params, &core.estimate, &core.plant, &core.decision, &core.control,
                     <double>dt_ns * 1e-9)
    core.control.demand.arming = core.mode == MODE_ARMING
    control_step(
        &core.inbox.params, &core.plant, &core.inbox.orders, &core.control, &core.decision, <double>dt_ns * 1e-9
    )
    if core.mode == MODE_ARMING or core.mode == MODE_READY:  # pulses of the step test are no chase
        memset(&core.control.hunting, 0, sizeof(core.control.hunting))
    elif core.truth.asking:
        hunting_disturbed(&core.control.hunting)
    if core.control.hunting.proven:
        lag_reopen(&core.estimate)
        core.plant.paired = 0
    widen_lag_search(&core.program.control, &core.estimate, core.decision.hunting > 0)
    phase_done(core, PHASE_CONTROL)


cdef inline void take_selftest(core_t* core) noexcept nogil:
    """What the core has found out about itself by now, before a gate goes by its memory."""
    cdef uint32_t unit, found
    for unit in range(core.program.n_units):
        selftest_hold(&core.selftest, unit, &core.gates[unit])
    found = selftest_take(&core.selftest)
    if found != core.external.selftest:
        core.external.selftest = found
        recorder_word(core.recorder, ITEM_SELFTEST, 0, found)


cdef void limit(core_t* core, uint64_t t_ns, uint64_t dt_ns) noexcept nogil:
    """The gate: what each unit may do. Everything written below comes from its verdict."""
    cdef uint32_t unit, arming = 0
    cdef int32_t mode
    cdef double dt_s = <double>dt_ns * 1e-9, wanted_w, nameplate_w, trusted = INFINITY, random_w = 0.0, stir_w
    cdef const unit_row_t* row
    cdef int arm = edge(&core.inbox, ORDER_ARM, t_ns)
    cdef int ack = edge(&core.inbox, ORDER_ACK, t_ns)
    cdef uint64_t dt_us = (dt_ns + 500) // 1000
    if dt_us > 1000000:
        dt_us = 1000000
    ask_meter(core, t_ns)
    stir_w = stir(core, t_ns)
    take_selftest(core)
    for unit in range(core.program.n_units):
        arming += core.cabinets[unit].mode == MODE_ARMING
    if arming and core.truth.pulses.sign != SIGN_AGAINST:
        nameplate_w = nameplates(core.program)
        trusted = unproven_discharge_w(&core.plant, sign_power_w(&core.estimate.models.signs, nameplate_w)) / fmax(nameplate_w, 1.0)
    for unit in range(core.program.n_units):
        row = &core.program.units[unit]
        nameplate_w = fmax(row.gate.charge_w_max, row.gate.discharge_w_max)
        wanted_w = cabinet_request(
            &core.cabinets[unit], &core.verdicts[unit], core.decision.request_w[unit], core.decision.lo_w,
            core.decision.hi_w, nameplate_w, core.inbox.orders.flags & ORDER_MANUAL,
            trusted * nameplate_w, arming, core.estimate.lags.interval.interval_s, dt_s,
        )
        if core.cabinets[unit].mode == MODE_RUN or core.cabinets[unit].mode == MODE_DERATED:
            wanted_w = truth_order(&core.truth, unit, core.program.n_units, wanted_w) + (
                stir_w * nameplate_w / nameplates(core.program) if stir_w != 0.0 else 0.0)
            wanted_w = converter_order(&core.converters[unit], wanted_w, nameplate_w)
        else:
            core.converters[unit].asked_w = wanted_w
        core.inputs[unit].request_w = gate_request(wanted_w, &core.inputs[unit].valid)
        core.inputs[unit].dt_us = <int32_t>dt_us
        # Nobody arms within the debounce of a watchdog that is not known: it need not be off for a second to be off.
        core.inputs[unit].arm = <uint32_t>(arm and not holds(core.inputs[unit].faults, FAULT_PCS_WATCHDOG))
        core.inputs[unit].ack = <uint32_t>ack
        selftest_rows(core.external.selftest, &core.inputs[unit].faults)
        gate_step(&row.gate, core.program.faults, &core.inputs[unit], &core.gates[unit], &core.verdicts[unit])
        core.converters[unit].let_through = core.verdicts[unit].setpoint_w == core.inputs[unit].request_w
        selftest_keep(&core.selftest, unit, &core.gates[unit])
        core.selftest.gated += 1
        core.cabinets[unit].fresh = core.plant.grid_new and core.truth.value_t_ns == core.plant.grid_t_ns
        cabinet_step(
            &core.cabinets[unit], &core.verdicts[unit], core.inbox.orders.stop, core.inbox.orders.flags & ORDER_MANUAL,
            &core.image[row.pcs_w] if row.pcs_w >= 0 else NULL,
            1 if core.program.site.grid_w >= 0 and not core.plant.island and age_wanted(&core.estimate) else 0,
            answer_of_meter(core) if core.program.site.grid_w >= 0 and not core.plant.island else 0, core.estimate.lags.interval.interval_s,
            converter_answer_s(&core.converters[unit]), dt_s,
        )
        if core.cabinets[unit].unseen:
            core.estimate.models.answer = ANSWER_NONE
        if core.cabinets[unit].mode == MODE_ARMING:
            random_w += core.cabinets[unit].pulse_w
    coincidence_random(&core.truth.coincidence, random_w if arming else stir_w, t_ns)
    if arming > 1:
        pulse_as_one(&core.cabinets[0], core.program.n_units)
    mode = site_mode(core.cabinets, core.program.n_units)
    if mode != core.mode:
        if mode == MODE_TRIPPED or mode == MODE_ARMING:  # each arming has a test of its own
            answer_forget(&core.estimate)
            signs_begin(&core.estimate.models.signs)
        elif mode == MODE_READY and core.mode == MODE_ARMING and core.program.site.grid_w >= 0:
            answer_armed(&core.estimate, core.truth.pulses.sign == SIGN_AGAINST)
    core.mode = mode
    phase_done(core, PHASE_LIMIT)


cdef void write(core_t* core, uint64_t t_ns) noexcept nogil:
    """Newest setpoints and heartbeats to the ports; cyclic CAN frames that are due. Nothing behind a gate that was missed."""
    cdef uint32_t port, slot, row
    if not selftest_may_write(&core.selftest, core.program.n_units):
        phase_done(core, PHASE_WRITE)
        return
    for port in range(core.program.n_ports):
        for slot in range(core.mail[port].command_count):
            row = core.mail[port].command_first + slot
            write_command(core, &core.mail[port], &core.commands[row], slot, row, t_ns)
    for port in range(core.program.n_can_buses):
        can_send_due(core.program, &core.can[port], core.verdicts, t_ns)
    phase_done(core, PHASE_WRITE)


cdef void publish(core_t* core, uint64_t t_ns, uint64_t dt_ns, uint64_t cycle) noexcept nogil:
    """The image for everyone, snapshots and events for the rings, proof of life."""
    cdef shared_t* shared = core.shared
    cdef uint32_t n = core.program.n_points
    sample_external(core, &core.external)
    if cycle % BUS_SAMPLE_CYCLES == 0:
        sample_ports(core, &core.external)
    publish_points(core, core.image, t_ns)
    publish_latches(core, shared)
    raise_events(core, &core.edges, shared, t_ns, cycle)
    check_enforcement(core, &core.enforcement, core.image, shared, t_ns, cycle)
    image_begin(shared)
    shared.cycle = cycle
    shared.t_ns = t_ns
    memcpy(shared.image, core.image, n * sizeof(point_t))
    shared.proof = proof_min(core)
    image_end(shared)
    if cycle >= core.snapshot_due:
        core.snapshot_due = cycle + core.program.snapshot_every
        snapshot_push(shared.snapshots, SNAPSHOT_SLOTS, &shared.snapshot_head, core.image, n, cycle, t_ns)
    if t_ns >= core.second:  # one meter record a second
        core.second = (t_ns // SECOND_NS + 1) * SECOND_NS
        snapshot_push(shared.meters, METER_SLOTS, &shared.meter_head, core.image, n, cycle, t_ns)
    if core.recorder != NULL:
        recorder_cycle(core, t_ns, dt_ns, cycle)
    selftest_program(&core.selftest, core.program)
    selftest_code(&core.selftest)
    phase_done(core, PHASE_PUBLISH)


# ---------------------------------------------------------------- the run: an absolute grid


cdef inline uint64_t clock_ns(int clock) noexcept nogil:
    cdef timespec t
    clock_gettime(clock, &t)
    return <uint64_t>t.tv_sec * 1000000000u + <uint64_t>t.tv_nsec


cdef inline uint64_t now_ns() noexcept nogil:
    return clock_ns(CLOCK_MONOTONIC)


cdef void see_clocks(core_t* core, uint64_t t_ns, uint64_t raw_ns, uint64_t boot_ns) noexcept nogil:
    """The time that a cycle is given, and two other clocks of the same moment."""
    cdef int64_t apart_ns = <int64_t>core.program.faults[FAULT_CLOCK_APART].threshold_milli * 1000000
    selftest_clocks(&core.selftest, t_ns, raw_ns, boot_ns, <uint64_t>apart_ns)


cdef inline void phase_done(core_t* core, int phase) noexcept nogil:
    """Its mark, and the stopwatch of the live run; in virtual time there is none and no phase can tell."""
    cdef uint64_t t
    selftest_mark(&core.selftest, phase)
    if core.timed:
        t = now_ns()
        histogram_add(&core.shared.loop.phase[phase], t - core.t_phase_ns)
        core.t_phase_ns = t


cdef void core_init(core_t* core, const program_t* program, shared_t* shared) noexcept nogil:
    """Put a zeroed core at its start: nothing seen, nothing allowed, every unit tripped."""
    cdef uint32_t i
    cdef int bus, reason
    core.program = program
    core.shared = shared
    for i in range(program.n_points):
        core.image[i].value = NAN
    for bus in range(CAN_BUSES_MAX):
        core.can[bus].fd = -1
        core.can[bus].bus = <unsigned char>bus
        if <uint32_t>bus < program.n_can_buses:
            can_bus_init(&core.can[bus], program)
    selftest_begin(&core.selftest, program)
    for i in range(program.n_units):
        gate_init(&core.gates[i])
        selftest_keep(&core.selftest, i, &core.gates[i])
    for i in range(program.n_ports):
        port_mail_init(&core.mail[i], program, i)
    core.inbox.orders.import_w_max = INFINITY
    core.inbox.orders.export_w_max = INFINITY
    core.inbox.orders.charge_w_max = INFINITY
    core.inbox.orders.discharge_w_max = INFINITY
    core.inbox.planned.charge_w_max = INFINITY
    core.inbox.planned.discharge_w_max = INFINITY
    core.inbox.orders.operator_import_w_max = INFINITY
    core.inbox.orders.operator_export_w_max = INFINITY
    episodes_begin(&core.edges.mode, -1)
    episodes_begin(&core.edges.reason, -1)
    episodes_begin(&core.edges.preference, -1)
    episodes_begin(&core.edges.short_of_limit, 0)
    episodes_begin(&core.edges.hunting, 0)
    episodes_begin(&core.edges.reconnect, 0)
    episodes_begin(&core.edges.island, 0)
    episodes_begin(&core.edges.genset, 0)
    for reason in range(REASONS):
        episodes_begin(&core.enforcement.told[reason], ENFORCED)
    core.inbox.params = program.control
    core.mode = MODE_TRIPPED
    shared.n_points = program.n_points
    shared.n_units = program.n_units
    memcpy(shared.program_sha256, program.sha256, sizeof(program.sha256))


cdef int core_at_rest(const core_t* core) noexcept nogil:
    cdef uint32_t unit, port, slot
    for unit in range(core.program.n_units):
        if core.verdicts[unit].setpoint_w != 0:
            return 0
    for port in range(core.program.n_ports):
        for slot in range(core.mail[port].command_count):
            if core.program.commands[core.mail[port].command_first + slot].kind != COMMAND_SETPOINT_W:
                continue
            if core.mail[port].stats.written_seq[slot] != core.mail[port].commands[slot].seq:
                return 0
    return 1


cdef void escalate(core_t* core, loop_stats_t* loop, uint64_t periods_late) noexcept nogil:
    """Leaky bucket of late cycles: derate, then safe, then silent (the gate and the supervisor read the level)."""
    if periods_late > 0:
        loop.missed += 1
        loop.skipped += periods_late
        if periods_late > loop.longest_miss:
            loop.longest_miss = periods_late
        if loop.leaky_bucket < 2 * ESCALATE_SILENT:
            loop.leaky_bucket += 1
        core.good_cycles = 0
    else:
        core.good_cycles += 1
        if core.good_cycles >= GOOD_CYCLES_PER_DROP:
            core.good_cycles = 0
            if loop.leaky_bucket > 0:
                loop.leaky_bucket -= 1
    loop.escalation = 0
    if loop.leaky_bucket >= ESCALATE_SILENT:
        loop.escalation = 3
    elif loop.leaky_bucket >= ESCALATE_SAFE:
        loop.escalation = 2
    elif loop.leaky_bucket >= ESCALATE_DERATE:
        loop.escalation = 1


cdef void core_run(core_t* core, uint64_t stop_wait_ns) noexcept nogil:
    cdef loop_stats_t* loop = &core.shared.loop
    cdef uint64_t period_ns = core.program.period_ns
    cdef uint64_t grid_ns = now_ns() + period_ns
    cdef uint64_t last_ns = grid_ns - period_ns, t_ns, end_ns, late_ns, raw_ns, boot_ns, cycle = 0, stop_ns = 0
    cdef timespec wanted
    cdef rusage usage
    core.timed = 1
    event_emit(core.shared, EVENT_START, -1, 0, 0, 0.0, 0.0, last_ns, 0)
    core.shared.running = 1
    while True:
        wanted.tv_sec = <time_t>(grid_ns // SECOND_NS)
        wanted.tv_nsec = <long>(grid_ns % SECOND_NS)
        while clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wanted, NULL) == EINTR:
            pass
        t_ns = now_ns()
        raw_ns = clock_ns(CLOCK_MONOTONIC_RAW)
        boot_ns = clock_ns(CLOCK_BOOTTIME)
        core.t_phase_ns = now_ns()
        if core.t_phase_ns - t_ns < <uint64_t>SELFTEST_READ_NS:  # nobody came in between
            see_clocks(core, t_ns, raw_ns, boot_ns)
        late_ns = t_ns - grid_ns
        histogram_add(&loop.lateness, late_ns)
        escalate(core, loop, late_ns // period_ns)
        core_cycle(core, t_ns, t_ns - last_ns, cycle)
        last_ns = t_ns
        end_ns = core.t_phase_ns  # the last phase's end
        histogram_add(&loop.work, end_ns - t_ns)
        cycle += 1
        loop.cycles = cycle
        # Late by a period or more: go on at the next grid point that lies ahead, never in a burst.
        grid_ns += period_ns
        if end_ns >= grid_ns:
            loop.overruns += 1
            grid_ns += ((end_ns - grid_ns) // period_ns + 1) * period_ns
        if cycle % 1024 == 0 and getrusage(RUSAGE_THREAD, &usage) == 0:
            loop.minor_faults = <uint64_t>usage.ru_minflt
            loop.major_faults = <uint64_t>usage.ru_majflt
            loop.involuntary_switches = <uint64_t>usage.ru_nivcsw
        if core.stop:
            if stop_ns == 0:
                stop_ns = t_ns
            if core_at_rest(core) or t_ns - stop_ns > stop_wait_ns:
                break
    end_events(&core.edges, &core.enforcement, core.shared, t_ns, cycle)
    event_emit(core.shared, EVENT_STOP, -1, core_at_rest(core), 0, 0.0, 0.0, t_ns, cycle)
    core.shared.running = 0
    core.timed = 0


# ---------------------------------------------------------------- what Python sees


cdef class Core:
    """One site's core in this process: memory, buses, the run.

    program : bytes-like that does not move: a compiled site (`tidegate.ext.abi.program.pack`).
    shared  : the memory that the gateway reads (`tidegate.ext.abi.shared.Shared`), writable.
    Raises ValueError if the program is damaged or was compiled for another layout.
    """

    def __cinit__(self, program, Shared shared not None):
        cdef Py_buffer view
        cdef int code
        self.core = <core_t*>calloc(1, sizeof(core_t))
        if self.core == NULL:
            raise MemoryError("no memory for the core")
        PyObject_GetBuffer(program, &view, PyBUF_SIMPLE)
        cdef const program_t* program_at = <const program_t*>view.buf
        code = program_check(program_at, <size_t>view.len)
        PyBuffer_Release(&view)
        if code:
            raise ValueError(f"program: {check_code_text(code)}")
        if not shared.writable:
            raise ValueError("shared memory: mapped read-only; the core needs to write it")
        self.program_buffer = program  # the struct pointers live as long as these do
        self.shared_memory = shared
        core_init(self.core, program_at, shared.ptr)

    def __dealloc__(self):
        free(self.core)

    cdef core_t* ptr(self) noexcept:
        return self.core

    cdef can_bus_t* _bus(self, int bus) except NULL:
        if not 0 <= bus < <int>self.core.program.n_can_buses:
            raise IndexError(f"CAN bus {bus}: this site has {self.core.program.n_can_buses}")
        return &self.core.can[bus]

    def set_can_fd(self, int bus, int fd):
        """Let CAN bus number `bus` read and write the descriptor `fd`; before the run."""
        self._bus(bus).fd = fd

    def can_handle(self, int bus):
        """What a thread outside the loop may do with the bus (`tidegate.hal.canbus.Keeper`)."""
        return bus_handle(self.core.program, self._bus(bus), self.core.can_ids, self)

    def port_handle(self, int port):
        """The mail of a serial port, for the thread that serves it (`tidegate.ext.bus.port.Port`)."""
        if not 0 <= port < <int>self.core.program.n_ports:
            raise IndexError(f"port {port}: the program has {self.core.program.n_ports}")
        return mail_handle(self.core.program, &self.core.mail[port], self)

    def restore(self, int unit, latched, int first_fault=-1):
        """Take over what a unit had latched before a restart, one bit per row; before the run."""
        cdef fault_set_t rows = fault_set(latched)
        if not 0 <= unit < <int>self.core.program.n_units:
            raise IndexError(f"unit {unit}: this site has {self.core.program.n_units}")
        gate_restore(&self.core.gates[unit], rows)
        self.core.gates[unit].first_fault = first_fault
        selftest_keep(&self.core.selftest, <uint32_t>unit, &self.core.gates[unit])
        self.core.shared.latches[unit] = rows
        self.core.shared.latch_first[unit] = first_fault
        self.core.edges.latched[unit] = rows

    def record(self, Ring ring not None):
        """Leave every cycle from here on in the ring, which is mapped writable; before the run."""
        if ring.writer.ring == NULL:
            raise ValueError("ring: mapped read-only; the core needs to write it")
        memcpy(ring.ring.program_sha256, self.core.program.sha256, sizeof(ring.ring.program_sha256))
        recorder_begin(&ring.writer)
        self.ring = ring
        self.core.recorder = &ring.writer
        for bus in range(self.core.program.n_can_buses):
            self.core.can[bus].recorder = &ring.writer

    def dry_cycle(self):
        """Run every code path once on scratch memory, so that the first real cycle finds it in the cache."""
        cdef core_t* scratch = <core_t*>calloc(1, sizeof(core_t))
        cdef shared_t* nowhere = <shared_t*>calloc(1, sizeof(shared_t))
        try:
            if scratch == NULL or nowhere == NULL:
                raise MemoryError("no memory for the dry cycle")
            core_init(scratch, self.core.program, nowhere)
            core_cycle(scratch, SECOND_NS, self.core.program.period_ns, 0)
        finally:
            free(scratch)
            free(nowhere)

    def cycle(self, uint64_t t_ns, uint64_t dt_ns, uint64_t number):
        """One cycle at a made-up time: the same code as on the wall clock. For tests and replays."""
        with nogil:
            core_cycle(self.core, t_ns, dt_ns, number)

    def put_points(self, uint32_t first, const unsigned char[::1] points not None):
        """Lay readings over the image from point `first` on, as the buses would before a cycle. For tests and replays."""
        cdef size_t count = <size_t>points.shape[0] // sizeof(point_t)
        if count * sizeof(point_t) != <size_t>points.shape[0]:
            raise ValueError(f"points: {points.shape[0]} bytes, expected a multiple of {sizeof(point_t)}")
        if first + count > self.core.program.n_points:
            raise IndexError(f"points {first} to {first + count}: this site has {self.core.program.n_points}")
        if count:
            memcpy(&self.core.image[first], &points[0], count * sizeof(point_t))

    def run(self, double stop_wait_s=1.0):
        """Cycle on the wall clock until `stop`; setpoint 0 goes out first. Releases the GIL for all that time."""
        with nogil:
            core_run(self.core, <uint64_t>(stop_wait_s * 1e9))

    def stop(self):
        """Ask the run to end: setpoint 0 to every unit, wait until the ports have written it, leave."""
        self.core.stop = 1

    @property
    def at_rest(self) -> bool:
        return bool(core_at_rest(self.core))


def layout():
    """Sizes and versions that this module was compiled with; see `tidegate.ext.abi.image.check_layouts`."""
    return {
        "IMAGE_LAYOUT_VERSION": IMAGE_LAYOUT_VERSION,
        "point_t": sizeof(point_t),
        "program_t": sizeof(program_t),
        "shared_t": sizeof(shared_t),
        "port_mail_t": sizeof(port_mail_t),
        "gate_state_t": sizeof(gate_state_t),
        "control_state_t": sizeof(control_state_t),
        "estimate_state_t": sizeof(estimate_state_t),
        "core_t": sizeof(core_t),
    }
