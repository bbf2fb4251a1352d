# ext/abi/image.pxd: contents page of image.pyx and of image.h, which owns the structs.
from libc.math cimport isfinite
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

# >> generated from abi/image.h by `make pxd`; change the header, not this
cdef extern from "abi/image.h" nogil:
    enum:
        IMAGE_LAYOUT_VERSION
        POINTS_MAX
        UNITS_MAX

    enum:
        QUALITY_NEVER
        QUALITY_GOOD
        QUALITY_HELD
        QUALITY_STALE
        QUALITY_INVALID

    ctypedef struct point_t:
        double value
        uint64_t t_ns
        uint32_t quality
        uint32_t changes

    enum:
        ISLAND_GRID
        ISLAND_DARK
        ISLAND_GENSET
        ISLAND_FORMING
        ISLAND_MISSING

    enum:
        VERDICT_BELIEVED
        VERDICT_FROZEN
        VERDICT_SIGN
        VERDICT_SHARE
        VERDICT_REGISTER
        VERDICT_PHASES

    enum:
        REGISTERS_NONE
        REGISTERS_WAIT
        REGISTERS_AGREE
        REGISTERS_STAND
        REGISTERS_HELD
        REGISTERS_SLOW
        REGISTERS_AGAINST

    enum:
        PHASES_NONE
        PHASES_WAIT
        PHASES_AGREE
        PHASES_APART
        PHASES_AGAINST
        PHASES_NO_L1
        PHASES_NO_L2
        PHASES_NO_L3

    enum:
        QUESTION_NONE
        QUESTION_STANDS
        QUESTION_PHASE
        QUESTION_SHARE
        QUESTION_AGE
        QUESTION_SEEN
        QUESTION_CHASE
        QUESTION_BESIDE

    enum:
        SITE_GRID_W
        SITE_LOAD_W
        SITE_ESS_W
        SITE_PV_W
        SITE_REQUEST_W
        SITE_SETPOINT_W
        SITE_CORRIDOR_LO_W
        SITE_CORRIDOR_HI_W
        SITE_ENVELOPE_LO_W
        SITE_ENVELOPE_HI_W
        SITE_REASON
        SITE_PREFERENCE
        SITE_SHORTFALL_W
        SITE_MODE
        SITE_DEMAND_W
        SITE_DEMAND_LEFT_S
        SITE_DEMAND_PEAK_W
        SITE_GRID_LIMIT_W
        SITE_GRID_IN_WS
        SITE_GRID_OUT_WS
        SITE_GRID_COVERED_S
        SITE_GRID_MIN_W
        SITE_GRID_MAX_W
        SITE_LOAD_IN_WS
        SITE_LOAD_OUT_WS
        SITE_LOAD_COVERED_S
        SITE_LOAD_MIN_W
        SITE_LOAD_MAX_W
        SITE_ESS_DISCHARGED_WS
        SITE_ESS_CHARGED_WS
        SITE_ESS_COVERED_S
        SITE_ESS_MIN_W
        SITE_ESS_MAX_W
        SITE_PV_IN_WS
        SITE_PV_OUT_WS
        SITE_PV_COVERED_S
        SITE_PV_MIN_W
        SITE_PV_MAX_W
        SITE_FAULT_BITS_LO
        SITE_FAULT_BITS_HI
        SITE_FAULT_BITS_64
        SITE_FAULT_BITS_96
        SITE_REACTION
        SITE_LOOP_ESCALATION
        SITE_UNENFORCED_BITS
        SITE_HUNTING
        SITE_CAN_STATE
        SITE_CAN_UNSENT
        SITE_GRID_AGE_S
        SITE_GRID_AGE_LO_S
        SITE_GRID_AGE_HI_S
        SITE_GRID_INTERVAL_S
        SITE_GRID_ANSWER
        SITE_RECONNECT_S
        SITE_RECONNECT_W
        SITE_METER_VERDICT
        SITE_METER_REGISTERS
        SITE_METER_PHASES
        SITE_ISLAND
        SITE_GENSET_WANTED
        SITE_PV_LIMIT_W
        SITE_METER_QUESTION
        SITE_POINTS

    enum:
        UNIT_REQUEST_W
        UNIT_SETPOINT_W
        UNIT_ENVELOPE_LO_W
        UNIT_ENVELOPE_HI_W
        UNIT_LIMIT_BITS
        UNIT_REACTION
        UNIT_FAULT_BITS_LO
        UNIT_FAULT_BITS_HI
        UNIT_FAULT_BITS_64
        UNIT_FAULT_BITS_96
        UNIT_LATCH_BITS_LO
        UNIT_LATCH_BITS_HI
        UNIT_LATCH_BITS_64
        UNIT_LATCH_BITS_96
        UNIT_HEARTBEAT_OK
        UNIT_STATE
        UNIT_FIRST_FAULT
        UNIT_STEP_TEST
        UNIT_WRITE_WAIT_S
        UNIT_REVERT_S
        UNIT_CONTACTOR_OPEN
        UNIT_DEAD_S
        UNIT_LAG_S
        UNIT_LAG_LO_S
        UNIT_LAG_HI_S
        UNIT_RAMP_W_PER_S
        UNIT_GAIN
        UNIT_GAIN_LO
        UNIT_GAIN_HI
        UNIT_GIVES_LO_W
        UNIT_GIVES_HI_W
        UNIT_POINTS

    const char *SITE_POINT_NAMES[SITE_POINTS][2]

    const char *UNIT_POINT_NAMES[UNIT_POINTS][2]

    enum:
        REASON_GATE
        REASON_ENVELOPE
        REASON_RECONNECTION
        REASON_GRID_OPERATOR
        REASON_CONNECTION_LIMIT
        REASON_EXPORT_LIMIT
        REASON_PHASE_LIMIT
        REASON_CIRCUIT_LIMIT
        REASON_BACKUP_RESERVE
        REASON_DIRECTION_LIMIT
        REASON_DEMAND_WINDOW
        REASON_PEAK_LIMIT
        REASON_RAMP_LIMIT
        REASON_RANGE_LIMIT
        REASON_OSCILLATION
        REASON_RECHARGE_BAND
        REASON_SOC_BAND
        REASON_FORCED
        REASON_LEASE
        REASON_PLAN
        REASON_SELF_CONSUMPTION
        REASON_RECENTRE
        REASON_REST
        REASON_BLIND
        REASON_STOPPED
        REASON_MANUAL
        REASON_BATTERY
        REASON_LOW_SOC
        REASON_RESTORE
        REASON_ISLAND
        REASON_UNPROVEN
        REASONS

    const char *REASON_NAMES[REASONS]

    enum:
        MODE_TRIPPED
        MODE_ARMING
        MODE_READY
        MODE_RUN
        MODE_DERATED
        MODE_STOPPING
        MODE_OFF
        MODE_MANUAL
        MODES

    const char *MODE_NAMES[MODES]

    ctypedef struct integral_t:
        double in_ws
        double out_ws
        double covered_s
        double min_w, max_w
        double last_min_w, last_max_w
# << end of what is generated


# 1 = the point's value may be used.
cdef inline bint believable(const point_t* image, int point) noexcept nogil:
    return point >= 0 and (image[point].quality == QUALITY_GOOD or image[point].quality == QUALITY_HELD) and isfinite(
        image[point].value)


# The one way in which the core sets a point of its own: a reading that has come, with its stamp.
cdef inline void point_set(point_t* image, int point, double value, uint64_t t_ns) noexcept nogil:
    image[point].value = value
    image[point].t_ns = t_ns
    image[point].quality = QUALITY_GOOD
    image[point].changes += 1


# What a point was set to holds no longer; value and stamp stay as they were.
cdef inline void point_set_stale(point_t* image, int point) noexcept nogil:
    if image[point].quality == QUALITY_GOOD:
        image[point].quality = QUALITY_STALE
