# ext/cycle/core.pxd: everything that one site needs in memory; a struct, no code.
#
# Who writes what. A phase takes core_t as const and what it writes as a pointer, so the compiler refuses a second writer;
# only loop.pyx, which hands the pointers out, and recorder.pyx know core_t as their own.
#
# | struct | writer | phase |
# |---|---|---|
# | can[], can_ids | can_drain, can_send_due (bus/can.pyx) | read, write |
# | mail[].done | the port's thread fills, block_decode empties | read |
# | inbox | update_orders, relay_orders (orders.pyx), update_plan (schedule.pyx); edge_done: edge | read, limit |
# | external | sample_stop, sample_external, sample_ports (publish.pyx); selftest: limit in loop.pyx | read, limit, publish |
# | inputs | gate_input_from_image; request, dt and edges: limit in loop.pyx | estimate, limit |
# | diagnoses | diagnose (safety/diagnosis.pyx) | estimate |
# | estimate, plant | estimate_step, image_age, widen_lag_search, billing_set, clock_set, window_began (ext/estimate) | estimate |
# | batteries, converters | battery_step, converter_step; asked_w: converter_order (ext/estimate) | estimate, limit |
# | truth | truth_step; its question: truth_ask (estimate/truth.pyx) | estimate, limit |
# | control, decision | control_step (control/corridor.pyx) | control |
# | gates, verdicts | gate_step (safety/safety.c) | limit |
# | cabinets | cabinet_request, cabinet_step (safety/cabinet.pyx) | limit |
# | mode | limit in loop.pyx | limit |
# | commands, mail[].commands | write_command (outputs.pyx) | write |
# | selftest | selftest_* (selftest.pyx), handed out by loop.pyx | all |
# | edges | raise_events (publish.pyx) | publish |
# | enforcement | check_enforcement (enforcement.pyx) | publish |
# | image | devices' points: can_drain, block_decode, ages by image_age; the core's own, by point_set only: estimate_step, |
# | | publish_points, check_enforcement | read, estimate, publish |
# | shared | image, rings, statistics: loop.pyx; events: event_emit; applied_seq: update_orders; latches: publish_latches | |
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t

from tidegate.ext.safety.cabinet cimport cabinet_t
from tidegate.ext.bus.can cimport can_bus_t, can_frame_stats_t
from tidegate.ext.abi.settings cimport CIRCUITS_MAX, PHASES_MAX, control_params_t
from tidegate.ext.cycle.episodes cimport episodes_t
from tidegate.ext.cycle.selftest cimport selftest_t
from tidegate.ext.control.corridor cimport control_state_t, decision_t, orders_t
from tidegate.ext.control.recharging cimport recharging_t
from tidegate.ext.estimate.easing cimport battery_t
from tidegate.ext.estimate.converter cimport converter_t
from tidegate.ext.estimate.estimate cimport estimate_state_t, plant_t
from tidegate.ext.estimate.truth cimport truth_t
from tidegate.ext.safety.diagnosis cimport diagnose_state_t
from tidegate.ext.safety.safety cimport fault_set_t, gate_input_t, gate_state_t, gate_verdict_t
from tidegate.ext.abi.image cimport POINTS_MAX, UNITS_MAX, point_t
from tidegate.ext.abi.port_mail cimport port_mail_t
from tidegate.ext.abi.program cimport (
    CAN_BUSES_MAX, CAN_FRAMES_MAX, COMMAND_REGS_MAX, COMMANDS_MAX, PORTS_MAX, SLAVES_MAX, program_t,
)
from tidegate.ext.abi.ring cimport recorder_t
from tidegate.ext.abi.shared cimport PLAN_SOURCES, order_t, plan_t, shared_t

cdef enum:
    ORDER_KINDS = 64        # MAILBOX_SLOTS of shared.h
    REASONS_MAX = 32        # REASONS of image.h, a bit each
    ESCALATE_DERATE = 3     # leaky bucket of late cycles: +1 late by a period, -1 per 100 in time
    ESCALATE_SAFE = 10
    ESCALATE_SILENT = 30
    GOOD_CYCLES_PER_DROP = 100
    BUS_HOLD_NS = 1000000000    # at most one event a second about each bus, port and slave
    BUS_SAMPLE_CYCLES = 16

# The newest words put into a command slot, so that a slot changes only when the wire should.
cdef struct command_memory_t:
    uint16_t regs[COMMAND_REGS_MAX]
    uint32_t valid
    uint32_t put
    int32_t side         # of the value: 1 discharge, -1 charge, 0 neither
    uint32_t pad
    uint64_t t_ns
    uint64_t put_seq     # of the slot, with the words above
    uint64_t written_seq # the device has taken this one ...
    uint64_t waits_t_ns  # ... and was asked for a newer one, or took the last one, at this time

# What others change while a cycle runs and the cycle decides by: looked at once in it, here, so that a recording can
# give it again. (Readings, orders and the plan are taken over whole as well, each in its own place.)
cdef struct can_seen_t:
    uint32_t state          # enum can_state
    uint32_t tx_failed_run
    uint32_t unconfirmed
    uint32_t pad

cdef struct external_t:
    can_seen_t can[CAN_BUSES_MAX]
    int64_t utc_offset_ns
    uint64_t missed          # cycles too late, when the escalation last changed
    uint32_t escalation
    uint32_t stop
    uint32_t selftest        # enum selftest_found
    uint32_t pad
    uint32_t ports_lost[PORTS_MAX]
    uint32_t slaves[SLAVES_MAX] # enum bus_state; 0 = has still to show itself

# The state of a bus, port or slave: the last one that was reported, and the newest.
cdef struct bus_edge_t:
    uint64_t t_ns
    int32_t reported
    int32_t seen
    uint32_t changes

# What the publish phase compares with to raise events on edges.
cdef struct edges_t:
    fault_set_t active[UNITS_MAX]
    fault_set_t latched[UNITS_MAX]
    episodes_t mode, reason, short_of_limit, preference, hunting
    uint64_t gated_t_ns              # since then the gate changes what is asked for; 0 = it does not
    uint32_t escalation
    uint64_t plan[PLAN_SOURCES]      # number of the row in force
    uint64_t billing_ended
    uint32_t clock_changes
    episodes_t reconnect, island, genset
    uint64_t meter_since_t_ns        # the age of the grid's readings has differed from this one since then; 0 = it does not
    double meter_age_s, meter_lo_s, meter_hi_s  # the bounds of one that was not known; else itself
    uint32_t meter_told, meter_known
    bus_edge_t can[CAN_BUSES_MAX]
    bus_edge_t ports[PORTS_MAX]
    bus_edge_t slaves[SLAVES_MAX]

# Which configured limits are not being enforced, by enum reason.
cdef struct enforcement_t:
    uint32_t cause[REASONS_MAX]      # enum unenforced, now
    uint32_t held[REASONS_MAX]       # the same, of causes that last
    uint32_t restless                # a bit for each reason of which one of the two, or the telling, is not at rest
    uint64_t since_t_ns[REASONS_MAX] # when cause began to differ from held; 0 = it does not
    episodes_t told[REASONS_MAX]
    uint64_t seen_t_ns               # of the newest grid reading
    double above_s, below_s          # for so long the meter has shown more than the import, the export limit
    uint64_t phase_t_ns[PHASES_MAX]  # the same of each phase and each sub-meter
    double phase_above_s[PHASES_MAX]
    uint64_t circuit_t_ns[CIRCUITS_MAX]
    double circuit_above_s[CIRCUITS_MAX]

# What others ask for, as it was last taken over, and what of it is in force.
cdef struct inbox_t:
    order_t mailbox[ORDER_KINDS]     # newest whole copy of each order
    uint64_t edge_done[ORDER_KINDS]  # seq of the last ACK and ARM acted on
    orders_t orders
    plan_t plan                      # newest whole copy
    uint64_t plan_due_ns             # when another row may come into force
    uint64_t plan_number[PLAN_SOURCES] # row in force, 0 = none
    orders_t planned                 # what the plan asks for
    control_params_t params          # the site's settings with the orders of policies in force
    uint64_t policies_due_ns         # when one of these ends

# Everything that one site needs in memory; allocated once, zeroed, never grown.
cdef struct core_t:
    const program_t* program
    shared_t* shared
    point_t image[POINTS_MAX]
    # buses
    can_bus_t can[CAN_BUSES_MAX]
    can_frame_stats_t can_ids[CAN_FRAMES_MAX]
    port_mail_t mail[PORTS_MAX]
    command_memory_t commands[COMMANDS_MAX]
    # estimate
    gate_input_t inputs[UNITS_MAX]
    diagnose_state_t diagnoses[UNITS_MAX]
    estimate_state_t estimate
    battery_t batteries[UNITS_MAX]
    converter_t converters[UNITS_MAX]
    plant_t plant
    truth_t truth
    # control
    inbox_t inbox
    control_state_t control
    recharging_t recharging
    decision_t decision
    # limit
    gate_state_t gates[UNITS_MAX]
    gate_verdict_t verdicts[UNITS_MAX]
    cabinet_t cabinets[UNITS_MAX]
    # publish
    external_t external
    edges_t edges
    enforcement_t enforcement
    uint64_t second
    uint64_t snapshot_due
    int32_t mode
    # the run
    uint32_t stop            # set from outside: setpoint 0, drain, end
    uint32_t timed           # 1 = phases are timed (live); 0 in virtual time
    uint64_t t_phase_ns
    uint32_t good_cycles
    recorder_t* recorder     # NULL: nothing is recorded
    selftest_t selftest
