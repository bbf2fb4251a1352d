# ext/sim/buses.pxd: the plant with its buses: serial lines with byte timing, CAN, injected faults.
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from tidegate.ext.cycle.core cimport core_t
from tidegate.ext.sim.plant cimport PCS_MAX, plant_t
from tidegate.ext.abi.program cimport CAN_BUSES_MAX, PORTS_MAX, program_t
from tidegate.ext.bus.rtu cimport rtu_t
from tidegate.ext.sim.slave cimport FRAME_MAX, slave_t

cdef enum:
    SENT_MAX = 6          # transmissions towards the master that wait or run, per line
    CAN_FRAMES_OUT_MAX = 160
    CAN_FIELDS_OUT_MAX = 768
    FAULT_ROWS_MAX = 64
    SERIES_COLUMNS = 21
    STEPS_MAX = 4096      # answered load steps kept
    REASON_SLOTS = 32

cdef enum:  # fault_kind
    # a slave's replies; target: slave
    FAULT_DEAD = 0
    FAULT_LATE            # by `value` ms
    FAULT_CORRUPT         # with probability `value`
    FAULT_SHORT           # loses the last `value` bytes
    FAULT_EXCEPTION       # code `value`
    FAULT_WRONG_UNIT
    FAULT_WRONG_FUNCTION
    FAULT_DROP            # with probability `value`
    FAULT_STALE_REPLY     # answers with the reply before this one
    # a line; target: port
    FAULT_ECHO
    FAULT_NOISE           # junk bytes between frames, with probability `value` a transaction
    FAULT_SECOND_MASTER   # foreign requests and replies between ours
    # a CAN bus; target: bus or frame row
    FAULT_CAN_SILENT      # bus
    FAULT_CAN_ID_SILENT   # frame row
    FAULT_CAN_COUNTER_STUCK
    FAULT_CAN_COUNTER_JUMPS
    FAULT_CAN_LENGTH      # frame row: one byte short
    FAULT_CAN_EXTENDED    # frame row: 29-bit id of the same number
    FAULT_CAN_FLOOD       # bus: `value` frames a millisecond of an id nobody knows
    FAULT_CAN_PASSIVE     # bus: error frames, error-passive
    FAULT_CAN_OFF         # bus: error frame bus-off, then silence
    FAULT_CAN_SPOOF       # frame row sent twice, from two sources
    # devices; target: battery, pcs or meter; bits of enum plant_fault in `value`
    FAULT_BATTERY
    FAULT_PCS
    FAULT_METER
    FAULT_ISLAND
    FAULT_WATCHDOG_OFF    # pcs forgets its revert time
    FAULT_GENSET          # bits of enum plant_fault in `value`
    FAULT_HZ              # the grid's frequency is `value`
    FAULT_KINDS

cdef struct fault_row_t:
    int32_t kind, target
    double value
    uint64_t t_on_ns, t_off_ns

# What is wrong with one slave now.
cdef struct slave_faults_t:
    uint32_t bits          # 1 << enum fault_kind
    double value[16]

# Bytes from a device (or from the line itself) to the master.
cdef struct sent_t:
    uint64_t start_ns      # first bit of the next byte
    uint32_t length, done
    uint8_t bytes[FRAME_MAX + 4]

cdef struct line_t:
    uint64_t char_ns, next_ns, engine_ns
    rtu_t* engine
    uint32_t waits         # 1 = the engine has nothing in flight: look again when the loop has spoken
    uint32_t n_sent, fault_bits, n_slaves
    double fault_value[16]
    uint64_t request_end_ns  # last byte of the request under way, 0 = none
    uint32_t request_length
    uint8_t request[FRAME_MAX + 4]
    uint8_t last_reply[FRAME_MAX + 4]
    uint32_t last_reply_length
    sent_t sent[SENT_MAX]
    int32_t slaves[64]     # rows of world_t.slaves on this line
    uint64_t requests, collisions

cdef struct can_field_out_t:
    uint16_t start
    uint8_t length, big_endian, is_signed, flags
    uint32_t mux_value, mask
    double scale, offset
    uint64_t sentinel
    const double* source

cdef struct can_frame_out_t:
    uint32_t id
    uint8_t bus, len, mux_length, mux_big_endian
    uint8_t counter_length, counter_big_endian, crc_kind, crc_byte
    uint16_t mux_start, counter_start
    uint32_t field_first, field_count, mux_count, mux_at
    uint32_t mux_values[16]
    uint32_t counter, faults
    int32_t battery, has_alarm
    uint64_t period_ns, next_ns
    uint8_t template[8]

# What the world knows of one storage unit's channels.
cdef struct contact_t:
    uint64_t bms_ns, pcs_ns      # last frame or reply that reached the core's side unspoilt
    uint64_t alarm_ns            # the alarm that stands has been on the bus since, 0 = none
    uint64_t line_faulty_ns      # last moment with a fault on the converter's line
    uint32_t zero_on_wire, pad   # setpoint 0 has been seen on the wire since the alarm

# A load step on its way: seen in the registers, answered on the wire.
cdef struct answer_t:
    uint64_t step_t_ns, shown_t_ns
    double set_w[PCS_MAX]  # setpoints on the wire before it
    uint32_t open

# What the core must never do, counted in cycles; and how long the answers took.
cdef struct checks_t:
    uint64_t cycles, outside_envelope, outside_nameplate, heartbeat_without_health
    uint64_t alarm_unanswered    # a setpoint beside an alarm that came two cycles ago
    uint64_t alarm_on_wire       # the same on the wire, later than the bound, on a line without faults
    uint64_t blind_bms           # a setpoint although nothing was heard of the BMS for longer than the bound
    uint64_t blind_meter         # the same for the grid meter
    uint64_t blind_pcs           # the same for the converter
    uint64_t setpoint_to_tripped # a setpoint although the unit stands tripped
    uint64_t alarms, alarm_wire_ns_max, alarm_wire_ns_sum
    uint64_t reason_cycles[REASON_SLOTS]
    uint64_t mode_cycles[16]

cdef struct world_t:
    plant_t plant
    uint64_t seed, random
    uint64_t t_ns, period_ns, cycle
    core_t* core
    uint32_t n_slaves, n_lines, n_can_buses, n_frames, n_can_fields, n_faults
    slave_t* slaves        # SLAVES_MAX
    slave_faults_t* slave_faults
    line_t lines[PORTS_MAX]
    can_frame_out_t frames[CAN_FRAMES_OUT_MAX]
    can_field_out_t can_fields[CAN_FIELDS_OUT_MAX]
    uint64_t can_next_ns
    uint32_t can_silent    # bit per bus
    double can_flood[CAN_BUSES_MAX]
    int32_t can_fd[CAN_BUSES_MAX]    # live: descriptor + 1 that carries the frames, 0 = none
    uint64_t can_received, can_sent, can_lost
    fault_row_t faults[FAULT_ROWS_MAX]
    uint64_t fault_next_ns
    # results
    answer_t answer
    uint32_t n_answers
    double answers_ms[STEPS_MAX]
    double wire_set_w[PCS_MAX]       # last setpoint that reached each PCS
    uint64_t wire_set_t_ns[PCS_MAX]  # its last byte
    uint8_t* wire_log                # filled since the last flush
    uint32_t wire_log_used, wire_log_size, wire_log_lost
    checks_t checks
    contact_t contacts[PCS_MAX]           # by battery, which is by unit
    uint64_t grid_contact_ns
    uint64_t bms_bound_ns, meter_bound_ns, pcs_bound_ns, alarm_bound_ns  # 0 = not checked
    double* series                   # SERIES_COLUMNS each
    uint32_t series_used, series_size, series_every, series_left
    double series_grid_max_w, series_grid_min_w


# xorshift64*: small, fast, the same everywhere.
cdef inline uint64_t world_random(world_t* world) noexcept nogil:
    cdef uint64_t x = world.random
    x ^= x >> 12
    x ^= x << 25
    x ^= x >> 27
    world.random = x
    return x * <uint64_t>0x2545F4914F6CDD1D


# 0 <= x < 1
cdef inline double world_uniform(world_t* world) noexcept nogil:
    return <double>(world_random(world) >> 11) * (1.0 / 9007199254740992.0)


# One whole request on line `number`, last byte at t_ns: the answering slave's reply goes into `reply`.
# Returns the slave's row, -1 = silence.
cdef int line_answer(world_t* world, int number, const uint8_t* request, uint32_t count, uint64_t t_ns,
                     uint8_t* reply, uint32_t* length) noexcept nogil
cdef void world_faults(world_t* world, uint64_t t_ns) noexcept nogil
cdef void line_run(world_t* world, int number, uint64_t t_ns) noexcept nogil
cdef void line_engine(line_t* line, uint64_t t_ns) noexcept nogil
# The last byte of the request held in the line is on the wire: devices act, the reply goes into line.sent.
cdef void line_request_done(world_t* world, int number, uint64_t t_ns) noexcept nogil
cdef void line_schedule(line_t* line, uint64_t t_ns) noexcept nogil
