# ext/core.pxd: everything that one site needs in memory; a struct, no code.
from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t

from tidegate.ext.can cimport can_bus_t, can_frame_stats_t
from tidegate.ext.control cimport control_state_t, decision_t, estimate_state_t, orders_t, plant_t
from tidegate.ext.faults cimport diagnose_state_t
from tidegate.ext.gate cimport gate_input_t, gate_state_t, gate_verdict_t
from tidegate.ext.image cimport POINTS_MAX, UNITS_MAX, point_t
from tidegate.ext.port cimport port_mail_t
from tidegate.ext.program cimport CAN_BUSES_MAX, CAN_FRAMES_MAX, COMMANDS_MAX, PORTS_MAX, program_t
from tidegate.ext.shared cimport order_t, shared_t

cdef enum:
    ORDER_KINDS = 6         # ORDERS of shared.h
    ESCALATE_DERATE = 3     # leaky bucket of late cycles: +1 late by a period, -1 per 100 in time
    ESCALATE_SAFE = 10
    ESCALATE_SILENT = 30
    GOOD_CYCLES_PER_DROP = 100
    REASON_HOLD_NS = 100000000  # at most ten reason events a second

# The newest words put into a command slot, so that a slot changes only when the wire should.
cdef struct command_memory_t:
    uint16_t regs[4]
    uint32_t valid
    uint32_t put
    uint64_t t_ns

# What the publish phase compares with to raise events on edges.
cdef struct edges_t:
    uint64_t active[UNITS_MAX]
    uint64_t latched[UNITS_MAX]
    int32_t mode
    int32_t reason
    uint64_t reason_t_ns
    uint32_t short_of_limit
    uint32_t escalation

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
    plant_t plant
    # control
    order_t mailbox[ORDER_KINDS]     # newest whole copy of each order
    uint64_t edge_done[ORDER_KINDS]  # seq of the last ACK and ARM acted on
    orders_t orders
    control_state_t control
    decision_t decision
    # limit
    gate_state_t gates[UNITS_MAX]
    gate_verdict_t verdicts[UNITS_MAX]
    # publish
    edges_t edges
    uint64_t second
    uint64_t snapshot_due
    int32_t mode
    # the run
    uint32_t stop            # set from outside: setpoint 0, drain, end
    uint32_t timed           # 1 = phases are timed (live); 0 in virtual time
    uint64_t t_phase_ns
    uint32_t good_cycles
