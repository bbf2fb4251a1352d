# ext/safety/diagnosis.pxd: contents page of faults.h (the rows) and of faults.pyx: which of them are true in this cycle.
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.abi.image cimport point_t
from tidegate.ext.abi.program cimport program_t

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
        FAULTS

    const char *FAULT_NAMES[FAULTS]

    const double FAULT_FOLLOW_TAU_S

    enum:
        FAULT_ALIGN_NS

    const double FAULT_DRIFT_WINDOW_S
# << end of what is generated


# What must be remembered to see slow conditions; zeroed at start.
cdef struct diagnose_state_t:
    uint64_t levels                     # rows with hysteresis that are present
    uint32_t started
    uint32_t dc_bits                    # last judgement of the cross checks: bit 0 voltage, bit 1 current
    double follow_lo_w, follow_hi_w     # where the PCS may be: its setpoints, old ones fading
    double allowed_lo_w, allowed_hi_w   # the same for the envelope
    double soc
    uint64_t soc_t_ns
    double drift_soc, drift_ws, drift_s # start of the window, energy out since, its length
    uint32_t drifted
    uint32_t meter_moved                # the PCS moved while the meter did not
    double meter_w, meter_pcs_w
    uint64_t meter_t_ns                 # when the meter's value last changed, or since then the PCS first moved

# Conditions of one unit present now, one bit per row of the fault table. `image` holds the setpoint and the envelope
# of the cycle before; t_ns is now, dt_ns the true length of this cycle.
cdef uint64_t diagnose(const program_t* program, int unit, const point_t* image, diagnose_state_t* state,
                       uint64_t t_ns, uint64_t dt_ns) noexcept nogil
