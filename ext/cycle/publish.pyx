"""What a cycle came to: the points that the core itself owns, and events on edges."""

from libc.math cimport fabs, isfinite
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memset

from tidegate.ext.abi.bits cimport lowest_bit
from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.control.corridor cimport ORDER_PLAN
from tidegate.ext.bus.can cimport can_stats_t
from tidegate.ext.cycle.core cimport (
    BUS_HOLD_NS, BUS_SAMPLE_CYCLES, bus_edge_t, can_seen_t, core_t, edges_t, enforcement_t, external_t,
)
from tidegate.ext.cycle.episodes cimport episodes_end, episodes_step, episodes_t, episode_word_t
from tidegate.ext.estimate.contradiction cimport SUSPECT_AGE, SUSPECT_PHASE, SUSPECT_UNSEEN
from tidegate.ext.estimate.converter cimport converter_gain, converter_t
from tidegate.ext.estimate.estimate cimport estimate_state_t, island_t, unit_view_t
from tidegate.ext.estimate.truth cimport ASK_ANSWER, ASK_PHASE, ASK_STILL
from tidegate.ext.safety.diagnosis cimport holds
from tidegate.ext.safety.safety cimport fault_set_t, gate_verdict_t
from tidegate.ext.abi.image cimport *
from tidegate.ext.abi.port_mail cimport RTU_DEAD, port_mail_t, slave_stats_t
from tidegate.ext.abi.program cimport COMMAND_SETPOINT_W
from tidegate.ext.abi.ring cimport ITEM_CAN, ITEM_ESCALATION, ITEM_PORT, ITEM_SLAVE, ITEM_STOP, recorder_put, recorder_word
from tidegate.ext.abi.shared cimport *

cdef double AGE_APART_S = 0.15       # an age that differs by more, ...
cdef double AGE_APART_SHARE = 0.4    # ... by this share of itself, and by one and a half intervals of the meter ...
cdef uint64_t AGE_STAYS_NS = 10000000000 # ... for so long is another one
cdef uint64_t GATE_TOLD_NS = 1000000000 # the gate's own ramp after a step is no reason that a person would ask for
cdef double CLOCK_TOLD_S = 1.0  # a clock that is disciplined moves by less


cdef void sample_stop(const core_t* core, external_t* external) noexcept nogil:
    cdef uint32_t stop = core.stop
    if stop != external.stop:
        external.stop = stop
        recorder_word(core.recorder, ITEM_STOP, 0, stop)


cdef void sample_external(const core_t* core, external_t* external) noexcept nogil:
    """Once a cycle: the loop's lateness, and what the buses have come to with the frames of this cycle."""
    cdef const can_stats_t* stats
    cdef can_seen_t* seen
    cdef uint32_t bus
    if core.shared.loop.escalation != external.escalation:
        external.escalation = core.shared.loop.escalation
        external.missed = core.shared.loop.missed
        recorder_word(core.recorder, ITEM_ESCALATION, external.escalation, external.missed)
    for bus in range(core.program.n_can_buses):
        stats = &core.can[bus].stats
        seen = &external.can[bus]
        if (
            stats.state != seen.state
            or stats.tx_failed_run != seen.tx_failed_run
            or stats.unconfirmed != seen.unconfirmed
        ):
            seen.state = stats.state
            seen.tx_failed_run = stats.tx_failed_run
            seen.unconfirmed = stats.unconfirmed
            if core.recorder != NULL:
                recorder_put(core.recorder, ITEM_CAN, bus, seen, sizeof(can_seen_t))


cdef void sample_ports(const core_t* core, external_t* external) noexcept nogil:
    """The serial ports and the devices on them, when it is time to report them."""
    cdef const slave_stats_t* stats
    cdef uint32_t port, i, number, seen
    for port in range(core.program.n_ports):
        seen = 1 if core.mail[port].stats.thread_lost else 0
        if seen != external.ports_lost[port]:
            external.ports_lost[port] = seen
            recorder_word(core.recorder, ITEM_PORT, port, seen)
        for i in range(core.program.ports[port].slave_count):
            number = core.program.ports[port].slave_first + i
            stats = &core.mail[port].stats.slaves[i]
            seen = slave_state(stats.identity_mismatch, stats.alive, stats.silent_run)
            if seen != external.slaves[number]:
                external.slaves[number] = seen
                recorder_word(core.recorder, ITEM_SLAVE, number, seen)


cdef inline uint32_t slave_state(uint32_t stranger, uint32_t alive, uint32_t silent_run) noexcept nogil:
    if stranger:
        return SLAVE_IDENTITY_MISMATCH
    if alive:
        return SLAVE_BACK
    return SLAVE_SILENT if silent_run >= RTU_DEAD else 0


cdef inline void publish_rows(point_t* image, int first, fault_set_t rows, uint64_t t_ns) noexcept nogil:
    """Rows of the fault table as four points of 32 bits each, side by side in the image."""
    point_set(image, first, <double>(rows.lo & 0xFFFFFFFFu), t_ns)
    point_set(image, first + 1, <double>(rows.lo >> 32), t_ns)
    point_set(image, first + 2, <double>(rows.hi & 0xFFFFFFFFu), t_ns)
    point_set(image, first + 3, <double>(rows.hi >> 32), t_ns)


cdef inline bint same(fault_set_t a, fault_set_t b) noexcept nogil:
    return a.lo == b.lo and a.hi == b.hi


cdef inline bint next_change(fault_set_t now, fault_set_t* before, int32_t* row) noexcept nogil:
    """The next row in which the two differ, taken over into `before`; false when none is left."""
    cdef uint64_t lo = now.lo ^ before.lo, hi = now.hi ^ before.hi
    if lo:
        row[0] = lowest_bit(lo)
        before.lo ^= lo & (~lo + 1)
    elif hi:
        row[0] = 64 + lowest_bit(hi)
        before.hi ^= hi & (~hi + 1)
    else:
        return False
    return True


cdef void publish_points(const core_t* core, point_t* image, uint64_t t_ns) noexcept nogil:
    cdef uint32_t unit
    cdef int at
    cdef const gate_verdict_t* verdict
    cdef int32_t reaction = 0
    cdef int64_t setpoint_w = 0
    cdef fault_set_t active = fault_set_t(0, 0)
    cdef int gated = 0
    cdef double[UNITS_MAX] wait_s
    write_waits(core, t_ns, wait_s)
    for unit in range(core.program.n_units):
        verdict = &core.verdicts[unit]
        at = SITE_POINTS + <int>unit * UNIT_POINTS
        point_set(image, at + UNIT_REQUEST_W, core.decision.request_w[unit], t_ns)
        point_set(image, at + UNIT_SETPOINT_W, verdict.setpoint_w, t_ns)
        point_set(image, at + UNIT_ENVELOPE_LO_W, verdict.envelope_lo_w, t_ns)
        point_set(image, at + UNIT_ENVELOPE_HI_W, verdict.envelope_hi_w, t_ns)
        point_set(image, at + UNIT_LIMIT_BITS, verdict.limit_bits, t_ns)
        point_set(image, at + UNIT_REACTION, verdict.reaction, t_ns)
        publish_rows(image, at + UNIT_FAULT_BITS_LO, verdict.active, t_ns)
        publish_rows(image, at + UNIT_LATCH_BITS_LO, verdict.latched, t_ns)
        point_set(image, at + UNIT_HEARTBEAT_OK, verdict.heartbeat_ok, t_ns)
        point_set(image, at + UNIT_FIRST_FAULT, verdict.first_fault, t_ns)
        setpoint_w += verdict.setpoint_w
        active.lo |= verdict.active.lo
        active.hi |= verdict.active.hi
        if verdict.reaction > reaction:
            reaction = verdict.reaction
        point_set(image, at + UNIT_STATE, core.cabinets[unit].mode, t_ns)
        point_set(image, at + UNIT_STEP_TEST, core.cabinets[unit].step, t_ns)
        point_set(image, at + UNIT_WRITE_WAIT_S, wait_s[unit], t_ns)
        point_set(image, at + UNIT_CONTACTOR_OPEN, verdict.contactor_open, t_ns)
        if core.program.units[unit].revert_measured_s > 0.0:
            point_set(image, at + UNIT_REVERT_S, core.program.units[unit].revert_measured_s, t_ns)
        if (
            verdict.setpoint_w != core.inputs[unit].request_w
            or fabs(core.decision.request_w[unit] - core.converters[unit].asked_w) >= 1.0
        ):
            gated = 1
        publish_converter(&core.converters[unit], &core.plant.units[unit], image, at, t_ns)
    point_set(image, SITE_REQUEST_W, core.decision.request_total_w, t_ns)
    point_set(image, SITE_SETPOINT_W, <double>setpoint_w, t_ns)
    point_set(image, SITE_CORRIDOR_LO_W, core.decision.lo_w, t_ns)
    point_set(image, SITE_CORRIDOR_HI_W, core.decision.hi_w, t_ns)
    point_set(image, SITE_ENVELOPE_LO_W, core.decision.envelope_lo_w, t_ns)
    point_set(image, SITE_ENVELOPE_HI_W, core.decision.envelope_hi_w, t_ns)
    point_set(image, SITE_REASON, REASON_GATE if gated else core.decision.reason, t_ns)
    point_set(image, SITE_PREFERENCE, core.decision.preference, t_ns)
    point_set(image, SITE_SHORTFALL_W, core.decision.shortfall_w, t_ns)
    point_set(image, SITE_GRID_LIMIT_W, core.decision.grid_limit_w, t_ns)
    point_set(image, SITE_MODE, core.mode, t_ns)
    publish_rows(image, SITE_FAULT_BITS_LO, active, t_ns)
    point_set(image, SITE_REACTION, reaction, t_ns)
    point_set(image, SITE_LOOP_ESCALATION, core.external.escalation, t_ns)
    if isfinite(core.estimate.reconnect.power_w):
        point_set(image, SITE_RECONNECT_S, core.estimate.reconnect.wait_s, t_ns)
        point_set(image, SITE_RECONNECT_W, core.estimate.reconnect.power_w, t_ns)
    else:
        point_set_stale(image, SITE_RECONNECT_S)
        point_set_stale(image, SITE_RECONNECT_W)
    if core.program.control.island > 0.0:
        publish_island(core, image, t_ns)
    if core.plant.grid_ok:
        point_set(image, SITE_GRID_ANSWER, core.estimate.models.answer, t_ns)
    point_set(image, SITE_HUNTING, core.decision.hunting, t_ns)
    point_set(image, SITE_METER_QUESTION, question_now(core), t_ns)
    publish_buses(&core.external, core.program.n_can_buses, image, t_ns)


cdef inline uint32_t question_now(const core_t* core) noexcept nogil:
    """What the battery moves or stands for, beside any limit and any wish: else nobody would see why."""
    cdef uint32_t suspicion = core.truth.question.suspicion
    if core.truth.asking == ASK_STILL:
        return QUESTION_STANDS
    if core.truth.asking == ASK_PHASE or (core.truth.asking == ASK_ANSWER and suspicion == SUSPECT_PHASE):
        return QUESTION_PHASE
    if core.truth.asking == ASK_ANSWER:
        return QUESTION_AGE if suspicion == SUSPECT_AGE else QUESTION_SEEN if suspicion == SUSPECT_UNSEEN else QUESTION_SHARE
    if core.control.hunting.trial:
        return QUESTION_CHASE
    return QUESTION_BESIDE if core.truth.stir_w != 0.0 else QUESTION_NONE


cdef void publish_island(const core_t* core, point_t* image, uint64_t t_ns) noexcept nogil:
    """What carries the site, whether the genset should run, and how much PV the load and the batteries can take."""
    cdef const island_t* island = &core.estimate.island
    cdef double taken_w = core.plant.net_w + core.plant.pv_w - core.program.control.genset_w_min
    point_set(image, SITE_ISLAND, island.state, t_ns)
    point_set(image, SITE_GENSET_WANTED, island.genset_wanted, t_ns)
    if island.state == ISLAND_FORMING:
        taken_w = core.plant.ess_w + core.plant.pv_w
        if believable(image, core.program.site.genset_w):
            taken_w += image[core.program.site.genset_w].value
    if (island.state == ISLAND_FORMING or (island.state == ISLAND_GENSET and core.plant.load_ok)) and believable(
            image, core.program.site.pv_w):
        point_set(image, SITE_PV_LIMIT_W, fmax(taken_w - core.decision.envelope_lo_w, 0.0), t_ns)
    else:
        point_set_stale(image, SITE_PV_LIMIT_W)


cdef inline void publish_converter(const converter_t* converter, const unit_view_t* view, point_t* image, int at,
                                   uint64_t t_ns) noexcept nogil:
    """What was learnt of the unit's converter, once it was."""
    cdef double gain, lo, hi
    if converter.moves:
        point_set(image, at + UNIT_DEAD_S, converter.dead_s, t_ns)
        point_set(image, at + UNIT_LAG_S, converter.lag_s, t_ns)
        point_set(image, at + UNIT_LAG_LO_S, converter.lag_lo_s, t_ns)
        point_set(image, at + UNIT_LAG_HI_S, converter.lag_hi_s, t_ns)
        point_set(image, at + UNIT_RAMP_W_PER_S, converter.ramp_w_per_s, t_ns)
    if converter.started:
        gain = converter_gain(converter, &lo, &hi)
        point_set(image, at + UNIT_GAIN, gain, t_ns)
        point_set(image, at + UNIT_GAIN_LO, lo, t_ns)
        point_set(image, at + UNIT_GAIN_HI, hi, t_ns)
    point_set(image, at + UNIT_GIVES_LO_W, view.envelope_lo_w, t_ns)
    point_set(image, at + UNIT_GIVES_HI_W, view.envelope_hi_w, t_ns)


cdef void publish_buses(const external_t* external, uint32_t n_buses, point_t* image, uint64_t t_ns) noexcept nogil:
    cdef uint32_t bus, state = 0, unsent = 0
    for bus in range(n_buses):
        state = max(state, external.can[bus].state)
        unsent = max(unsent, external.can[bus].tx_failed_run, external.can[bus].unconfirmed)
    point_set(image, SITE_CAN_STATE, state, t_ns)
    point_set(image, SITE_CAN_UNSENT, unsent, t_ns)


cdef void write_waits(const core_t* core, uint64_t t_ns, double* wait_s) noexcept nogil:
    """How long each unit's newest setpoint has waited for its converter to take it; 0 = it has."""
    cdef uint32_t port, slot, row, waiting = 0
    cdef int unit
    cdef const port_mail_t* mail
    memset(wait_s, 0, core.program.n_units * sizeof(double))
    for port in range(core.program.n_ports):
        mail = &core.mail[port]
        for slot in range(mail.command_count):
            row = mail.command_first + slot
            if not core.commands[row].put or core.commands[row].written_seq == core.commands[row].put_seq:
                continue
            unit = core.program.commands[row].unit
            if core.program.commands[row].kind != COMMAND_SETPOINT_W or not 0 <= unit < <int>core.program.n_units:
                continue
            if not waiting >> unit & 1:  # of several registers the first
                wait_s[unit] = <double>(t_ns - core.commands[row].waits_t_ns) * 1e-9
                waiting |= <uint32_t>1 << unit


cdef void publish_latches(const core_t* core, shared_t* shared) noexcept nogil:
    """Keep what must outlive a restart where the keeper finds it, before any event says so."""
    cdef uint32_t unit
    cdef bint changed = False
    for unit in range(core.program.n_units):
        if (
            not same(shared.latches[unit], core.verdicts[unit].latched)
            or (not same(core.verdicts[unit].latched, fault_set_t(0, 0)) and shared.latch_first[unit] != core.verdicts[unit].first_fault)
        ):
            shared.latches[unit] = core.verdicts[unit].latched
            shared.latch_first[unit] = core.verdicts[unit].first_fault
            changed = True
    if changed:
        shared_store64(&shared.latch_changes, shared.latch_changes + 1)


cdef void event_emit(shared_t* shared, uint32_t kind, int unit, int32_t code, int32_t previous, double value,
                     double limit_value, uint64_t t_ns, uint64_t cycle) noexcept nogil:
    """A change that is told by itself."""
    cdef episode_word_t word
    word.code = code
    word.previous = previous
    word.changes = 1
    word.lasted_s = 0.0
    event_post(shared, kind, unit, &word, value, limit_value, t_ns, cycle)


cdef void event_post(shared_t* shared, uint32_t kind, int unit, const episode_word_t* word, double value,
                     double limit_value, uint64_t t_ns, uint64_t cycle) noexcept nogil:
    cdef event_t event
    memset(&event, 0, sizeof(event))
    event.cycle = cycle
    event.t_ns = t_ns
    event.kind = kind
    event.unit = unit
    event.code = word.code
    event.previous = word.previous
    event.value = value
    event.limit = limit_value
    event.lasted_s = word.lasted_s
    event.changes = word.changes
    event_push(shared, &event)


cdef void raise_events(const core_t* core, edges_t* edges, shared_t* shared, uint64_t t_ns, uint64_t cycle) noexcept nogil:
    """Events on edges only. What may alternate each cycle is told by episodes (episodes.pyx); the image has every change.

    Faults and latches are told one by one, and so is every change of mode but that between `run` and `derated`.
    """
    cdef uint32_t unit, escalation = core.external.escalation
    cdef int32_t row
    cdef episode_word_t word
    cdef bint running
    cdef const gate_verdict_t* verdict
    for unit in range(core.program.n_units):
        verdict = &core.verdicts[unit]
        while next_change(verdict.active, &edges.active[unit], &row):  # at most once for each row
            event_emit(shared, EVENT_FAULT_ON if holds(verdict.active, row) else EVENT_FAULT_OFF, <int>unit, row,
                       verdict.reaction, verdict.setpoint_w, core.inputs[unit].request_w, t_ns, cycle)
        while next_change(verdict.latched, &edges.latched[unit], &row):
            event_emit(shared, EVENT_LATCH, <int>unit, row, <int32_t>holds(verdict.latched, row),
                       verdict.setpoint_w, core.inputs[unit].request_w, t_ns, cycle)
    running = (core.mode == MODE_RUN or core.mode == MODE_DERATED) and (
        edges.mode.seen == MODE_RUN or edges.mode.seen == MODE_DERATED)
    if episodes_step(&edges.mode, core.mode, not running, t_ns, &word):
        event_post(shared, EVENT_MODE, -1, &word, 0.0, 0.0, t_ns, cycle)
    if episodes_step(&edges.reason, reason_told(core, edges, t_ns), 0, t_ns, &word):
        event_post(shared, EVENT_REASON, -1, &word, core.decision.request_total_w, core.decision.grid_limit_w, t_ns, cycle)
    if episodes_step(&edges.short_of_limit, 1 if core.decision.shortfall_w > 0.0 else 0, 0, t_ns, &word):
        event_post(shared, EVENT_SHORTFALL, -1, &word, core.decision.shortfall_w, core.decision.grid_limit_w, t_ns, cycle)
    raise_control_events(core, edges, shared, t_ns, cycle)
    if escalation != edges.escalation:
        event_emit(shared, EVENT_OVERRUN, -1, <int32_t>escalation, <int32_t>edges.escalation,
                   <double>core.external.missed, 0.0, t_ns, cycle)
        edges.escalation = escalation
    if cycle % BUS_SAMPLE_CYCLES == 0:
        raise_bus_events(core, edges, shared, t_ns, cycle)


cdef inline int32_t reason_told(const core_t* core, edges_t* edges, uint64_t t_ns) noexcept nogil:
    """The control's reason, until the gate has changed what it asks for without a break for so long: then that is one."""
    if core.image[SITE_REASON].value != REASON_GATE:
        edges.gated_t_ns = 0
        return <int32_t>core.decision.reason
    if edges.gated_t_ns == 0:
        edges.gated_t_ns = t_ns
    return REASON_GATE if t_ns - edges.gated_t_ns >= GATE_TOLD_NS else <int32_t>core.decision.reason


cdef void raise_bus_events(const core_t* core, edges_t* edges, shared_t* shared, uint64_t t_ns, uint64_t cycle) noexcept nogil:
    cdef uint32_t i, port, number
    for i in range(core.program.n_can_buses):
        bus_event_emit(shared, &edges.can[i], BUS_ACTIVE, BUS_ACTIVE + <int32_t>core.external.can[i].state, <int32_t>i, t_ns, cycle)
    for port in range(core.program.n_ports):
        bus_event_emit(shared, &edges.ports[port], PORT_UP, PORT_LOST if core.external.ports_lost[port] else PORT_UP,
                       <int32_t>port, t_ns, cycle)
        for i in range(core.program.ports[port].slave_count):
            number = core.program.ports[port].slave_first + i
            if core.external.slaves[number]:
                bus_event_emit(shared, &edges.slaves[number], SLAVE_BACK, <int32_t>core.external.slaves[number],
                               core.program.slaves[number].device, t_ns, cycle)


cdef void bus_event_emit(shared_t* shared, bus_edge_t* edge, int32_t usual, int32_t now, int32_t number, uint64_t t_ns,
                         uint64_t cycle) noexcept nogil:
    """One event for a state that changed and stayed; one that flaps is reported once a second, with how often it did."""
    if edge.t_ns == 0:  # nothing reported yet: being in order is no event
        edge.reported = edge.seen = usual
    if now != edge.seen:
        edge.seen = now
        edge.changes += 1
    if edge.changes == 0 or (edge.t_ns > 0 and t_ns - edge.t_ns < BUS_HOLD_NS):
        edge.t_ns = edge.t_ns if edge.t_ns > 0 else 1
        return
    event_emit(shared, EVENT_BUS, -1, edge.seen, edge.reported, number, edge.changes, t_ns, cycle)
    edge.reported = edge.seen
    edge.changes = 0
    edge.t_ns = t_ns


cdef void raise_control_events(const core_t* core, edges_t* edges, shared_t* shared, uint64_t t_ns,
                               uint64_t cycle) noexcept nogil:
    """Who chooses the power, what of the plan is in force, hunting, the end of a billing period."""
    cdef int32_t preference = <int32_t>core.decision.preference
    cdef episode_word_t word
    cdef int source
    if preference == REASON_RECENTRE:  # resting and recharging are one source, nobody: else each step of it is an event
        preference = REASON_REST
    if episodes_step(&edges.preference, preference, 0, t_ns, &word):
        event_post(shared, EVENT_SOURCE, -1, &word, core.decision.request_total_w, 0.0, t_ns, cycle)
    for source in range(PLAN_SOURCES):
        if core.inbox.plan_number[source] != edges.plan[source]:
            event_emit(shared, EVENT_PLAN, source, <int32_t>(core.inbox.plan_number[source] & 0x7FFFFFFF),
                       <int32_t>(edges.plan[source] & 0x7FFFFFFF),
                       core.inbox.orders.plan_w if core.inbox.orders.flags & ORDER_PLAN else 0.0, core.decision.grid_limit_w, t_ns, cycle)
            edges.plan[source] = core.inbox.plan_number[source]
    if episodes_step(&edges.hunting, <int32_t>core.decision.hunting, 0, t_ns, &word):
        event_post(shared, EVENT_HUNTING, -1, &word, core.control.hunting.swing_w, core.control.hunting.period_s, t_ns, cycle)
    if core.estimate.clock_changes != edges.clock_changes:
        edges.clock_changes = core.estimate.clock_changes
        if fabs(core.estimate.clock_moved_s) >= CLOCK_TOLD_S or core.estimate.clock_change != CLOCK_MOVED:
            event_emit(shared, EVENT_CLOCK, -1, <int32_t>core.estimate.clock_change, 0, core.estimate.clock_moved_s, 0.0,
                       t_ns, cycle)
    raise_meter_event(core, edges, shared, t_ns, cycle)
    if episodes_step(&edges.reconnect, <int32_t>core.estimate.reconnect.state, 0, t_ns, &word):
        event_post(shared, EVENT_RECONNECT, -1, &word, core.estimate.reconnect.power_w, core.estimate.reconnect.wait_s,
                   t_ns, cycle)
    if core.program.control.island > 0.0:
        if episodes_step(&edges.island, <int32_t>core.estimate.island.state, 0, t_ns, &word):
            event_post(shared, EVENT_ISLAND, -1, &word, core.plant.grid_w if core.plant.grid_ok else 0.0,
                       core.program.control.genset_w_max, t_ns, cycle)
        if episodes_step(&edges.genset, <int32_t>core.estimate.island.genset_wanted, 0, t_ns, &word):
            event_post(shared, EVENT_GENSET, -1, &word, core.estimate.island.soc, 0.0, t_ns, cycle)
    if core.estimate.billing_ended != edges.billing_ended:
        event_emit(shared, EVENT_BILLING, -1, 1, 0, core.image[SITE_DEMAND_PEAK_W].value, 0.0, t_ns, cycle)
        edges.billing_ended = core.estimate.billing_ended


cdef void raise_meter_event(const core_t* core, edges_t* edges, shared_t* shared, uint64_t t_ns, uint64_t cycle) noexcept nogil:
    """The meter has changed its habits: the age that is believed lies elsewhere, and has for AGE_STAYS_NS.

    Beyond the doubt that there was, for what lies inside it was no other habit, only not known.
    """
    cdef const estimate_state_t* estimate = &core.estimate
    cdef double age_s = estimate.age_s, apart_s
    if not (estimate.age_known or estimate.lags.used) or core.mode < MODE_RUN or core.mode == MODE_OFF:
        return
    if not edges.meter_told:
        note_age(edges, estimate)
        if core.program.control.first_age_hi_s > core.program.control.first_age_lo_s:  # or as it was before this start
            edges.meter_age_s = fmin(fmax(age_s, core.program.control.first_age_lo_s), core.program.control.first_age_hi_s)
            edges.meter_lo_s = edges.meter_hi_s = edges.meter_age_s
            edges.meter_known = 1
    apart_s = fmax(fmax(AGE_APART_S, AGE_APART_SHARE * edges.meter_age_s), 1.5 * estimate.lags.interval.interval_s)
    if fmin(edges.meter_age_s - apart_s, edges.meter_lo_s) <= age_s <= fmax(edges.meter_age_s + apart_s, edges.meter_hi_s):
        edges.meter_since_t_ns = 0
        if estimate.age_known and not edges.meter_known:  # the doubt is over
            note_age(edges, estimate)
        return
    if edges.meter_since_t_ns == 0:
        edges.meter_since_t_ns = t_ns
    if t_ns - edges.meter_since_t_ns >= AGE_STAYS_NS:
        event_emit(shared, EVENT_METER, -1, 1, 0, age_s, edges.meter_age_s, t_ns, cycle)
        note_age(edges, estimate)
        edges.meter_since_t_ns = 0


cdef inline void note_age(edges_t* edges, const estimate_state_t* estimate) noexcept nogil:
    """The age that another one is compared with; one that is not known has its bounds."""
    edges.meter_told = 1
    edges.meter_known = estimate.age_known
    edges.meter_age_s = edges.meter_lo_s = edges.meter_hi_s = estimate.age_s
    if not estimate.age_known:
        edges.meter_lo_s = estimate.age_lo_s
        edges.meter_hi_s = estimate.age_hi_s


cdef void end_events(edges_t* edges, enforcement_t* enforcement, shared_t* shared, uint64_t t_ns, uint64_t cycle) noexcept nogil:
    """Tell what no event has counted yet; before the last event of a run."""
    cdef int reason
    end_episode(&edges.mode, EVENT_MODE, -1, shared, t_ns, cycle)
    end_episode(&edges.reason, EVENT_REASON, -1, shared, t_ns, cycle)
    end_episode(&edges.short_of_limit, EVENT_SHORTFALL, -1, shared, t_ns, cycle)
    end_episode(&edges.preference, EVENT_SOURCE, -1, shared, t_ns, cycle)
    end_episode(&edges.reconnect, EVENT_RECONNECT, -1, shared, t_ns, cycle)
    end_episode(&edges.island, EVENT_ISLAND, -1, shared, t_ns, cycle)
    end_episode(&edges.genset, EVENT_GENSET, -1, shared, t_ns, cycle)
    end_episode(&edges.hunting, EVENT_HUNTING, -1, shared, t_ns, cycle)
    for reason in range(REASONS):
        end_unenforced(&enforcement.told[reason], reason, shared, t_ns, cycle)


cdef void end_episode(episodes_t* episodes, uint32_t kind, int unit, shared_t* shared, uint64_t t_ns, uint64_t cycle) noexcept nogil:
    cdef episode_word_t word
    if episodes_end(episodes, t_ns, &word):
        event_post(shared, kind, unit, &word, 0.0, 0.0, t_ns, cycle)


cdef void end_unenforced(episodes_t* episodes, int reason, shared_t* shared, uint64_t t_ns, uint64_t cycle) noexcept nogil:
    cdef episode_word_t word
    if episodes_end(episodes, t_ns, &word):
        word.previous = word.code
        word.code = reason
        event_post(shared, EVENT_UNENFORCED, -1, &word, 0.0, 0.0, t_ns, cycle)


cdef uint64_t proof_min(const core_t* core) noexcept nogil:
    """Proof of life of the whole site: the unit that is furthest behind counts."""
    cdef uint64_t least = core.verdicts[0].proof
    cdef uint32_t unit
    for unit in range(1, core.program.n_units):
        if core.verdicts[unit].proof < least:
            least = core.verdicts[unit].proof
    return least
