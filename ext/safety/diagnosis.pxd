# ext/safety/diagnosis.pxd: contents page of faults.h (the rows) and of faults.pyx: which of them are true in this cycle.
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.abi.image cimport point_t
from tidegate.ext.abi.program cimport program_t
from tidegate.ext.safety.safety cimport fault_set_t

# >> generated from safety/fault_rows.h by `make pxd`; change the header, not this
cdef extern from "safety/fault_rows.h" nogil:
    enum:
        FAULT_BMS_NEVER
        FAULT_BMS_STALE
        FAULT_BMS_SILENT
        FAULT_BMS_INVALID
        FAULT_BMS_WARNING
        FAULT_BMS_ALARM
        FAULT_BMS_INHIBIT
        FAULT_DC_V_MISMATCH
        FAULT_DC_A_MISMATCH
        FAULT_DC_MISMATCH_LONG
        FAULT_SOC_JUMP
        FAULT_SOC_DRIFT
        FAULT_SOC_LOW
        FAULT_SOC_HIGH
        FAULT_TEMP_HIGH_WARN
        FAULT_TEMP_HIGH_STOP
        FAULT_TEMP_HIGH_TRIP
        FAULT_TEMP_LOW_WARN
        FAULT_TEMP_LOW_STOP
        FAULT_TEMP_LOW_TRIP
        FAULT_CELL_HIGH_WARN
        FAULT_CELL_HIGH_STOP
        FAULT_CELL_HIGH_TRIP
        FAULT_CELL_LOW_WARN
        FAULT_CELL_LOW_STOP
        FAULT_CELL_LOW_TRIP
        FAULT_PACK_V_HIGH
        FAULT_PACK_V_LOW
        FAULT_PCS_NEVER
        FAULT_PCS_STALE
        FAULT_PCS_LOST
        FAULT_PCS_INVALID
        FAULT_PCS_FAULT
        FAULT_PCS_NOT_READY
        FAULT_PCS_NOT_FOLLOWING
        FAULT_PCS_RUNAWAY
        FAULT_PCS_OUTSIDE
        FAULT_PCS_OUTSIDE_LONG
        FAULT_METER_NEVER
        FAULT_METER_STALE
        FAULT_METER_INVALID
        FAULT_METER_STUCK
        FAULT_PV_LOST
        FAULT_GRID_OVER_LIMIT
        FAULT_LOOP_LATE
        FAULT_LOOP_UNSAFE
        FAULT_LOOP_SILENT
        FAULT_LOOP_PAUSE
        FAULT_REQUEST_INVALID
        FAULT_PCS_STEP_FAILED
        FAULT_PCS_WATCHDOG
        FAULT_PCS_WRITE_LOST
        FAULT_CAN_PASSIVE
        FAULT_CAN_OFF
        FAULT_CAN_UNSENT
        FAULT_LATCHES_LOST
        FAULT_PCS_SHORT
        FAULT_GRID_UNMOVED
        FAULT_GRID_UNPROVEN
        FAULT_METER_OLDER
        FAULT_INPUT_LOST
        FAULT_DOOR_OPEN
        FAULT_SMOKE
        FAULT_ESTOP
        FAULT_BMS_STUCK
        FAULT_PCS_POWER_APART
        FAULT_PCS_OPPOSED
        FAULT_MEMORY_CHANGED
        FAULT_FLOW_BROKEN
        FAULT_CLOCK_APART
        FAULT_METER_PHASES
        FAULTS

    const char *FAULT_NAMES[FAULTS]

    const double FAULT_FOLLOW_TAU_S

    enum:
        FAULT_ALIGN_NS

    const double FAULT_DRIFT_WINDOW_S

    const double FAULT_POWER_TAU_S

    const double FAULT_POWER_SHARE

    const double FAULT_STILL_SHARE

    const double FAULT_STILL_W

    enum:
        FAULT_STILL_READINGS

    const double FAULT_IDLE_SHARE

    const double FAULT_LOSS_SHARE

    const double FAULT_ENDS_TIMES

    const double FAULT_ENDS_SOC

    const double FAULT_SOC_APART

    const double FAULT_STEP_S
# << end of what is generated


# The least and the most of the running span of a dead time, and of the one before.
cdef struct late_t:
    double lo_w, hi_w, before_lo_w, before_hi_w

# What must be remembered to see slow conditions; zeroed at start.
cdef struct diagnose_state_t:
    fault_set_t levels                  # rows with hysteresis that are present
    uint32_t started
    uint32_t dc_bits                    # last judgement of the cross checks: bit 0 voltage, bit 1 current
    uint32_t sharers                    # units whose converters are on this unit's battery, itself among them; 0 = not looked yet
    uint32_t pad
    double follow_lo_w, follow_hi_w     # where the PCS may be: its setpoints, old ones fading
    double allowed_lo_w, allowed_hi_w   # the same for the envelope
    # what was learnt of the converter (estimate/converter.pyx), given by the loop; 0 = nothing
    double answer_dead_s, answer_lag_s, answer_ramp_w_per_s
    double dead_left_s                  # of the running span of a dead time
    late_t told, envelope
    double soc
    uint64_t soc_t_ns
    double drift_soc, drift_ws, drift_s # start of the window, energy out since, its length
    uint32_t drifted
    uint32_t power_apart                # last judgement of converter against battery
    double pcs_slow_w, pack_slow_w, power_seen_w # both smoothed; the larger of them lately
    double step_pcs_w, step_pack_w      # at rest before the step of arming, ...
    double step_pcs_ws, step_pack_ws    # ... and what flowed beyond that since
    double step_both_ws                 # of the converter to and fro
    double still[7]                     # the BMS's readings when one of them moved last
    double still_lo_w, still_hi_w, still_s # power since; how long it has been another one
    double stands_net_ws, stands_ws     # energy since the state of charge moved: net, and both ways
    double hour_soc, hour_net_ws, hour_ws, hour_s # the same since the window began
    uint32_t still_changes, hour_apart

# Whether a row is in the set.
cdef inline bint holds(fault_set_t rows, int row) noexcept nogil:
    return <bint>((rows.lo >> row if row < 64 else rows.hi >> (row - 64)) & 1)

cdef inline void mark(fault_set_t* rows, int row, bint present) noexcept nogil:
    if row < 64:
        rows.lo |= <uint64_t>present << row
    else:
        rows.hi |= <uint64_t>present << (row - 64)

# Conditions of one unit present now, one bit per row of the fault table. `image` holds the setpoint and the envelope
# of the cycle before; t_ns is now, dt_ns the true length of this cycle.
cdef void diagnose(const program_t* program, int unit, const point_t* image, diagnose_state_t* state,
                   uint64_t t_ns, uint64_t dt_ns, fault_set_t* rows) noexcept nogil
