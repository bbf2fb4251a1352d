/* ext/safety/fault_rows.h: the rows of the fault table, in bit order; numbers and texts are in config/faults.toml.
 *
 * A row's place is its bit in every mask, so new rows go to the end.
 */
#ifndef TIDEGATE_FAULTS_H
#define TIDEGATE_FAULTS_H

#include "safety/safety.h"

#define FAULT_TABLE(X)                                                                                        \
    /* battery management system, on CAN or Modbus */                                                         \
    X(FAULT_BMS_NEVER, "bms_never")                 /* a signal that the map promises has never come */       \
    X(FAULT_BMS_STALE, "bms_stale")                 /* a signal is older than its row allows */               \
    X(FAULT_BMS_SILENT, "bms_silent")               /* the same, for so long that nobody may rely on it */    \
    X(FAULT_BMS_INVALID, "bms_invalid")             /* a signal came and is not believable */                 \
    X(FAULT_BMS_WARNING, "bms_warning")             /* any warning bit */                                     \
    X(FAULT_BMS_ALARM, "bms_alarm")                 /* any alarm or protection bit */                         \
    X(FAULT_BMS_INHIBIT, "bms_inhibit")             /* charge and discharge both forbidden */                 \
    X(FAULT_DC_V_MISMATCH, "dc_v_mismatch")         /* BMS and PCS disagree about the DC voltage */           \
    X(FAULT_DC_A_MISMATCH, "dc_a_mismatch")         /* ... the DC current */                                  \
    X(FAULT_DC_MISMATCH_LONG, "dc_mismatch_long")   /* either of the two, for long */                         \
    X(FAULT_SOC_JUMP, "soc_jump")                   /* more charge in one reading than current can bring */   \
    X(FAULT_SOC_DRIFT, "soc_drift")                 /* SoC and counted energy part within an hour */          \
    X(FAULT_SOC_LOW, "soc_low")                     /* below the window by a margin */                        \
    X(FAULT_SOC_HIGH, "soc_high")                                                                             \
    /* three levels each: warn, stop, trip */                                                                 \
    X(FAULT_TEMP_HIGH_WARN, "temp_high_warn")                                                                 \
    X(FAULT_TEMP_HIGH_STOP, "temp_high_stop")                                                                 \
    X(FAULT_TEMP_HIGH_TRIP, "temp_high_trip")                                                                 \
    X(FAULT_TEMP_LOW_WARN, "temp_low_warn")                                                                   \
    X(FAULT_TEMP_LOW_STOP, "temp_low_stop")                                                                   \
    X(FAULT_TEMP_LOW_TRIP, "temp_low_trip")                                                                   \
    X(FAULT_CELL_HIGH_WARN, "cell_high_warn")                                                                 \
    X(FAULT_CELL_HIGH_STOP, "cell_high_stop")                                                                 \
    X(FAULT_CELL_HIGH_TRIP, "cell_high_trip")                                                                 \
    X(FAULT_CELL_LOW_WARN, "cell_low_warn")                                                                   \
    X(FAULT_CELL_LOW_STOP, "cell_low_stop")                                                                   \
    X(FAULT_CELL_LOW_TRIP, "cell_low_trip")                                                                   \
    X(FAULT_PACK_V_HIGH, "pack_v_high")             /* above the charge voltage that the BMS allows */        \
    X(FAULT_PACK_V_LOW, "pack_v_low")               /* below its discharge voltage */                         \
    /* power converter, on Modbus */                                                                          \
    X(FAULT_PCS_NEVER, "pcs_never")                                                                           \
    X(FAULT_PCS_STALE, "pcs_stale")                                                                           \
    X(FAULT_PCS_LOST, "pcs_lost")                   /* silent for twice its watchdog's time */                \
    X(FAULT_PCS_INVALID, "pcs_invalid")                                                                       \
    X(FAULT_PCS_FAULT, "pcs_fault")                                                                           \
    X(FAULT_PCS_NOT_READY, "pcs_not_ready")         /* standby, local mode, islanded */                       \
    X(FAULT_PCS_NOT_FOLLOWING, "pcs_not_following") /* power stays away from the setpoint */                  \
    X(FAULT_PCS_RUNAWAY, "pcs_runaway")             /* the same after it was sent to zero */                  \
    X(FAULT_PCS_OUTSIDE, "pcs_outside")             /* power beyond what the gate allows */                   \
    X(FAULT_PCS_OUTSIDE_LONG, "pcs_outside_long")                                                             \
    /* site meter */                                                                                          \
    X(FAULT_METER_NEVER, "meter_never")                                                                       \
    X(FAULT_METER_STALE, "meter_stale")                                                                       \
    X(FAULT_METER_INVALID, "meter_invalid")                                                                   \
    X(FAULT_METER_STUCK, "meter_stuck")             /* one value while the battery's power moved */           \
    X(FAULT_PV_LOST, "pv_lost")                     /* PV meter stale, invalid or never seen */               \
    X(FAULT_GRID_OVER_LIMIT, "grid_over_limit")     /* a limit at the connection point is out of reach */     \
    /* the controller itself */                                                                               \
    X(FAULT_LOOP_LATE, "loop_late")                 /* escalation of late cycles, level 1 */                  \
    X(FAULT_LOOP_UNSAFE, "loop_unsafe")             /* level 2 */                                             \
    X(FAULT_LOOP_SILENT, "loop_silent")             /* level 3 */                                             \
    X(FAULT_LOOP_PAUSE, "loop_pause")               /* one cycle that took far too long */                    \
    X(FAULT_REQUEST_INVALID, "request_invalid")     /* the control asked for something that is no number */ \
    X(FAULT_PCS_STEP_FAILED, "pcs_step_failed")     /* at arming it did not follow a small setpoint */        \
    X(FAULT_PCS_WATCHDOG, "pcs_watchdog")           /* its own watchdog reads back as off or as too long */   \
    X(FAULT_PCS_WRITE_LOST, "pcs_write_lost")       /* it does not take setpoints */                          \
    X(FAULT_CAN_PASSIVE, "can_passive")             /* the bus has errors enough to be error-passive */       \
    X(FAULT_CAN_OFF, "can_off")                     /* bus-off, or the interface is down */                   \
    X(FAULT_CAN_UNSENT, "can_unsent")               /* nobody takes our own frames */                         \
    X(FAULT_LATCHES_LOST, "latches_lost")           /* what was latched before the restart is not known */    \
    X(FAULT_PCS_SHORT, "pcs_short")                 /* it gives less than it is told, in the right direction */

#define AS_ENUM(id, name) id,
enum fault { FAULT_TABLE(AS_ENUM) FAULTS };
#undef AS_ENUM
#define AS_NAME(id, name) name,
static const char *const FAULT_NAMES[FAULTS] __attribute__((unused)) = {FAULT_TABLE(AS_NAME)};
#undef AS_NAME
_Static_assert(FAULTS <= GATE_FAULTS_MAX, "one bit a row");

#define FAULT_FOLLOW_TAU_S 1.0      /* least time constant in which a PCS is expected to reach its setpoint */
#define FAULT_ALIGN_NS 60000000u    /* readings of two devices are compared when their stamps are this near */
#define FAULT_DRIFT_WINDOW_S 3600.0 /* energy is counted against SoC over this long */

#endif
