"""What a cycle came to: the points that the core itself owns, and events on edges."""

from libc.math cimport fabs
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memset

from tidegate.ext.control.corridor cimport ORDER_PLAN
from tidegate.ext.bus.can cimport can_stats_t
from tidegate.ext.cycle.core cimport (
    BUS_HOLD_NS, BUS_SAMPLE_CYCLES, REASON_HOLD_NS, SHORT_HOLD_NS, bus_edge_t, can_seen_t, core_t, edges_t, external_t,
)
from tidegate.ext.safety.safety cimport gate_verdict_t
from tidegate.ext.abi.image cimport *
from tidegate.ext.abi.port_mail cimport RTU_DEAD, port_mail_t, slave_stats_t
from tidegate.ext.abi.program cimport COMMAND_SETPOINT_W
from tidegate.ext.abi.ring cimport ITEM_CAN, ITEM_ESCALATION, ITEM_PORT, ITEM_SLAVE, ITEM_STOP, recorder_put, recorder_word
from tidegate.ext.abi.shared cimport *


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


cdef void publish_points(const core_t* core, point_t* image, uint64_t t_ns) noexcept nogil:
    cdef uint32_t unit
    cdef int at
    cdef const gate_verdict_t* verdict
    cdef int32_t reaction = 0
    cdef int64_t setpoint_w = 0
    cdef uint64_t active = 0
    cdef int gated = 0
    for unit in range(core.program.n_units):
        verdict = &core.verdicts[unit]
        at = SITE_POINTS + <int>unit * UNIT_POINTS
        point_set(image, at + UNIT_REQUEST_W, core.decision.request_w[unit], t_ns)
        point_set(image, at + UNIT_SETPOINT_W, verdict.setpoint_w, t_ns)
        point_set(image, at + UNIT_ENVELOPE_LO_W, verdict.envelope_lo_w, t_ns)
        point_set(image, at + UNIT_ENVELOPE_HI_W, verdict.envelope_hi_w, t_ns)
        point_set(image, at + UNIT_LIMIT_BITS, verdict.limit_bits, t_ns)
        point_set(image, at + UNIT_REACTION, verdict.reaction, t_ns)
        point_set(image, at + UNIT_FAULT_BITS_LO, <double>(verdict.active & 0xFFFFFFFFu), t_ns)
        point_set(image, at + UNIT_FAULT_BITS_HI, <double>(verdict.active >> 32), t_ns)
        point_set(image, at + UNIT_LATCH_BITS_LO, <double>(verdict.latched & 0xFFFFFFFFu), t_ns)
        point_set(image, at + UNIT_LATCH_BITS_HI, <double>(verdict.latched >> 32), t_ns)
        point_set(image, at + UNIT_HEARTBEAT_OK, verdict.heartbeat_ok, t_ns)
        point_set(image, at + UNIT_FIRST_FAULT, verdict.first_fault, t_ns)
        setpoint_w += verdict.setpoint_w
        active |= verdict.active
        if verdict.reaction > reaction:
            reaction = verdict.reaction
        point_set(image, at + UNIT_STATE, core.cabinets[unit].mode, t_ns)
        point_set(image, at + UNIT_STEP_TEST, core.cabinets[unit].step, t_ns)
        point_set(image, at + UNIT_WRITE_WAIT_S, write_wait_s(core, unit, t_ns), t_ns)
        point_set(image, at + UNIT_CONTACTOR_OPEN, verdict.contactor_open, t_ns)
        if core.program.units[unit].revert_measured_s > 0.0:
            point_set(image, at + UNIT_REVERT_S, core.program.units[unit].revert_measured_s, t_ns)
        if (
            verdict.setpoint_w != core.inputs[unit].request_w
            or fabs(core.decision.request_w[unit] - core.inputs[unit].request_w) >= 1.0
        ):
            gated = 1
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
    point_set(image, SITE_FAULT_BITS_LO, <double>(active & 0xFFFFFFFFu), t_ns)
    point_set(image, SITE_FAULT_BITS_HI, <double>(active >> 32), t_ns)
    point_set(image, SITE_REACTION, reaction, t_ns)
    point_set(image, SITE_LOOP_ESCALATION, core.external.escalation, t_ns)
    point_set(image, SITE_HUNTING, core.decision.hunting, t_ns)
    publish_buses(&core.external, core.program.n_can_buses, image, t_ns)


cdef void publish_buses(const external_t* external, uint32_t n_buses, point_t* image, uint64_t t_ns) noexcept nogil:
    cdef uint32_t bus, state = 0, unsent = 0
    for bus in range(n_buses):
        state = max(state, external.can[bus].state)
        unsent = max(unsent, external.can[bus].tx_failed_run, external.can[bus].unconfirmed)
    point_set(image, SITE_CAN_STATE, state, t_ns)
    point_set(image, SITE_CAN_UNSENT, unsent, t_ns)


cdef double write_wait_s(const core_t* core, uint32_t unit, uint64_t t_ns) noexcept nogil:
    """How long the unit's newest setpoint has waited for its converter to take it; 0 = it has."""
    cdef uint32_t port, slot
    cdef const port_mail_t* mail
    for port in range(core.program.n_ports):
        mail = &core.mail[port]
        for slot in range(mail.command_count):
            if (
                core.program.commands[mail.command_first + slot].kind == COMMAND_SETPOINT_W
                and core.program.commands[mail.command_first + slot].unit == <int>unit
                and core.commands[mail.command_first + slot].put
                and core.commands[mail.command_first + slot].written_seq
                != core.commands[mail.command_first + slot].put_seq
            ):
                return <double>(t_ns - core.commands[mail.command_first + slot].waits_t_ns) * 1e-9
    return 0.0


cdef void publish_latches(const core_t* core, shared_t* shared) noexcept nogil:
    """Keep what must outlive a restart where the keeper finds it, before any event says so."""
    cdef uint32_t unit
    cdef bint changed = False
    for unit in range(core.program.n_units):
        if (
            shared.latches[unit] != core.verdicts[unit].latched
            or (core.verdicts[unit].latched != 0 and shared.latch_first[unit] != core.verdicts[unit].first_fault)
        ):
            shared.latches[unit] = core.verdicts[unit].latched
            shared.latch_first[unit] = core.verdicts[unit].first_fault
            changed = True
    if changed:
        shared_store64(&shared.latch_changes, shared.latch_changes + 1)


cdef void event_emit(shared_t* shared, uint32_t kind, int unit, int32_t code, int32_t previous, double value,
                     double limit_value, uint64_t t_ns, uint64_t cycle) noexcept nogil:
    cdef event_t event
    memset(&event, 0, sizeof(event))
    event.cycle = cycle
    event.t_ns = t_ns
    event.kind = kind
    event.unit = unit
    event.code = code
    event.previous = previous
    event.value = value
    event.limit = limit_value
    event_push(shared, &event)


cdef void raise_events(const core_t* core, edges_t* edges, shared_t* shared, uint64_t t_ns, uint64_t cycle) noexcept nogil:
    """Events on edges only. Reasons may alternate each cycle, so they are held off; the image has every one."""
    cdef uint32_t unit, escalation = core.external.escalation
    cdef uint64_t changed
    cdef int32_t bit, reason
    cdef int short_of_limit
    cdef const gate_verdict_t* verdict
    for unit in range(core.program.n_units):
        verdict = &core.verdicts[unit]
        changed = verdict.active ^ edges.active[unit]
        edges.active[unit] = verdict.active
        while changed:  # at most 64 bits
            bit = lowest_bit(changed)
            changed &= changed - 1
            event_emit(shared, EVENT_FAULT_ON if (verdict.active >> bit) & 1 else EVENT_FAULT_OFF, <int>unit, bit,
                       verdict.reaction, verdict.setpoint_w, core.inputs[unit].request_w, t_ns, cycle)
        changed = verdict.latched ^ edges.latched[unit]
        edges.latched[unit] = verdict.latched
        while changed:
            bit = lowest_bit(changed)
            changed &= changed - 1
            event_emit(shared, EVENT_LATCH, <int>unit, bit, <int32_t>((verdict.latched >> bit) & 1),
                       verdict.setpoint_w, core.inputs[unit].request_w, t_ns, cycle)
    if core.mode != edges.mode:
        event_emit(shared, EVENT_MODE, -1, core.mode, edges.mode, 0.0, 0.0, t_ns, cycle)
        edges.mode = core.mode
    reason = <int32_t>core.image[SITE_REASON].value
    if reason != edges.reason and t_ns - edges.reason_t_ns >= REASON_HOLD_NS:
        event_emit(shared, EVENT_REASON, -1, reason, edges.reason, core.decision.request_total_w,
                   core.decision.grid_limit_w, t_ns, cycle)
        edges.reason = reason
        edges.reason_t_ns = t_ns
    short_of_limit = core.decision.shortfall_w > 0.0
    if short_of_limit:
        edges.short_t_ns = t_ns
    # Said once: a load that plays about the limit has not brought the power back before a second is over.
    if short_of_limit != <int>edges.short_of_limit and (
            short_of_limit or t_ns - edges.short_t_ns >= SHORT_HOLD_NS):
        event_emit(shared, EVENT_SHORTFALL, -1, short_of_limit, 1 - short_of_limit, core.decision.shortfall_w,
                   core.decision.grid_limit_w, t_ns, cycle)
        edges.short_of_limit = <uint32_t>short_of_limit
    raise_control_events(core, edges, shared, t_ns, cycle)
    if escalation != edges.escalation:
        event_emit(shared, EVENT_OVERRUN, -1, <int32_t>escalation, <int32_t>edges.escalation,
                   <double>core.external.missed, 0.0, t_ns, cycle)
        edges.escalation = escalation
    if cycle % BUS_SAMPLE_CYCLES == 0:
        raise_bus_events(core, edges, shared, t_ns, cycle)


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
    cdef int source
    if preference == REASON_RECENTRE:  # resting and recharging are one source, nobody: else each step of it is an event
        preference = REASON_REST
    if preference != edges.preference and t_ns - edges.preference_t_ns >= REASON_HOLD_NS:
        event_emit(shared, EVENT_SOURCE, -1, preference, edges.preference, core.decision.request_total_w, 0.0, t_ns, cycle)
        edges.preference = preference
        edges.preference_t_ns = t_ns
    for source in range(PLAN_SOURCES):
        if core.inbox.plan_number[source] != edges.plan[source]:
            event_emit(shared, EVENT_PLAN, source, <int32_t>(core.inbox.plan_number[source] & 0x7FFFFFFF),
                       <int32_t>(edges.plan[source] & 0x7FFFFFFF),
                       core.inbox.orders.plan_w if core.inbox.orders.flags & ORDER_PLAN else 0.0, core.decision.grid_limit_w, t_ns, cycle)
            edges.plan[source] = core.inbox.plan_number[source]
    if core.decision.hunting != edges.hunting:
        event_emit(shared, EVENT_HUNTING, -1, <int32_t>core.decision.hunting, <int32_t>edges.hunting,
                   core.control.hunting.swing_w, core.control.hunting.period_s, t_ns, cycle)
        edges.hunting = core.decision.hunting
    if core.estimate.billing_ended != edges.billing_ended:
        event_emit(shared, EVENT_BILLING, -1, 1, 0, core.image[SITE_DEMAND_PEAK_W].value, 0.0, t_ns, cycle)
        edges.billing_ended = core.estimate.billing_ended


cdef extern from *:
    """
    static inline int lowest_bit(uint64_t word) { return __builtin_ctzll(word); }
    """
    int lowest_bit(uint64_t word) noexcept nogil


cdef uint64_t proof_min(const core_t* core) noexcept nogil:
    """Proof of life of the whole site: the unit that is furthest behind counts."""
    cdef uint64_t least = core.verdicts[0].proof
    cdef uint32_t unit
    for unit in range(1, core.program.n_units):
        if core.verdicts[unit].proof < least:
            least = core.verdicts[unit].proof
    return least
