/* ext/safety/fault_table.h: the rows of the fault table, in bit order.
 *
 * Made from config/faults.toml by `python -m tidegate.config.faults header`; a test holds it current.
 */
#define FAULT_TABLE(X) \
    X(FAULT_BMS_NEVER, "bms_never") /* a signal that the BMS map promises has not come since start */ \
    X(FAULT_BMS_STALE, "bms_stale") /* a BMS signal is older than its row allows */ \
    X(FAULT_BMS_SILENT, "bms_silent") /* the same, for longer than a lost frame or two can explain */ \
    X(FAULT_BMS_INVALID, "bms_invalid") /* a BMS signal came and is not believable */ \
    X(FAULT_BMS_WARNING, "bms_warning") /* any warning bit of the BMS */ \
    X(FAULT_BMS_ALARM, "bms_alarm") /* any alarm or protection bit of the BMS */ \
    X(FAULT_BMS_INHIBIT, "bms_inhibit") /* charge and discharge are both forbidden or limited to 0 */ \
    X(FAULT_DC_V_MISMATCH, "dc_v_mismatch") /* BMS and PCS differ in DC voltage by more than threshold of it and more than floor */ \
    X(FAULT_DC_A_MISMATCH, "dc_a_mismatch") /* BMS and PCS differ in DC current by more than threshold of it and more than floor */ \
    X(FAULT_DC_MISMATCH_LONG, "dc_mismatch_long") /* voltage or current differ, for long */ \
    X(FAULT_SOC_JUMP, "soc_jump") /* SoC moved by more than threshold between two readings */ \
    X(FAULT_SOC_DRIFT, "soc_drift") /* within an hour SoC and counted energy part by more than threshold */ \
    X(FAULT_SOC_LOW, "soc_low") /* SoC is below soc_min by more than threshold */ \
    X(FAULT_SOC_HIGH, "soc_high") /* SoC is above soc_max by more than threshold */ \
    X(FAULT_TEMP_HIGH_WARN, "temp_high_warn") /* the warmest cell is above temp_max_c + threshold */ \
    X(FAULT_TEMP_HIGH_STOP, "temp_high_stop") /* the warmest cell is above temp_max_c + threshold */ \
    X(FAULT_TEMP_HIGH_TRIP, "temp_high_trip") /* the warmest cell is above temp_max_c + threshold */ \
    X(FAULT_TEMP_LOW_WARN, "temp_low_warn") /* the coldest cell is below temp_min_c - threshold */ \
    X(FAULT_TEMP_LOW_STOP, "temp_low_stop") /* the coldest cell is below temp_min_c - threshold */ \
    X(FAULT_TEMP_LOW_TRIP, "temp_low_trip") /* the coldest cell is below temp_min_c - threshold */ \
    X(FAULT_CELL_HIGH_WARN, "cell_high_warn") /* the highest cell is above cell_v_max + threshold */ \
    X(FAULT_CELL_HIGH_STOP, "cell_high_stop") /* the highest cell is above cell_v_max + threshold */ \
    X(FAULT_CELL_HIGH_TRIP, "cell_high_trip") /* the highest cell is above cell_v_max + threshold */ \
    X(FAULT_CELL_LOW_WARN, "cell_low_warn") /* the lowest cell is below cell_v_min - threshold */ \
    X(FAULT_CELL_LOW_STOP, "cell_low_stop") /* the lowest cell is below cell_v_min - threshold */ \
    X(FAULT_CELL_LOW_TRIP, "cell_low_trip") /* the lowest cell is below cell_v_min - threshold */ \
    X(FAULT_PACK_V_HIGH, "pack_v_high") /* pack voltage above the BMS's charge voltage + threshold */ \
    X(FAULT_PACK_V_LOW, "pack_v_low") /* pack voltage below the BMS's discharge voltage - threshold */ \
    X(FAULT_PCS_NEVER, "pcs_never") /* a signal that the PCS map promises has not come since start */ \
    X(FAULT_PCS_STALE, "pcs_stale") /* a PCS signal is older than its row allows */ \
    X(FAULT_PCS_LOST, "pcs_lost") /* the same, for twice the longest watchdog time */ \
    X(FAULT_PCS_INVALID, "pcs_invalid") /* a PCS signal came and is not believable */ \
    X(FAULT_PCS_FAULT, "pcs_fault") /* the PCS reports a fault */ \
    X(FAULT_PCS_NOT_READY, "pcs_not_ready") /* the PCS does not run setpoints: standby, local mode, islanded */ \
    X(FAULT_PCS_NOT_FOLLOWING, "pcs_not_following") /* its power lies beyond every recent setpoint, or on the other side of 0, by more than threshold of the nameplate and more than floor */ \
    X(FAULT_PCS_RUNAWAY, "pcs_runaway") /* the same by threshold and floor, though sent to zero */ \
    X(FAULT_PCS_OUTSIDE, "pcs_outside") /* its power lies outside every recent envelope by more than threshold of the nameplate and more than floor */ \
    X(FAULT_PCS_OUTSIDE_LONG, "pcs_outside_long") /* the same, for long */ \
    X(FAULT_METER_NEVER, "meter_never") /* the site meter has not been heard since start */ \
    X(FAULT_METER_STALE, "meter_stale") /* the site meter is older than its row allows */ \
    X(FAULT_METER_INVALID, "meter_invalid") /* the site meter sent something not believable */ \
    X(FAULT_METER_STUCK, "meter_stuck") /* the meter's value stands still although the battery was moved to ask it */ \
    X(FAULT_PV_LOST, "pv_lost") /* the PV meter is stale, not believable or never seen */ \
    X(FAULT_GRID_OVER_LIMIT, "grid_over_limit") /* power at the connection point above a limit that the units cannot enforce, by more than threshold */ \
    X(FAULT_LOOP_LATE, "loop_late") /* several cycles came late */ \
    X(FAULT_LOOP_UNSAFE, "loop_unsafe") /* many cycles came late */ \
    X(FAULT_LOOP_SILENT, "loop_silent") /* so many cycles came late that nobody should rely on the controller */ \
    X(FAULT_LOOP_PAUSE, "loop_pause") /* one cycle was longer than threshold */ \
    X(FAULT_REQUEST_INVALID, "request_invalid") /* the control asked for something that is no number */ \
    X(FAULT_PCS_STEP_FAILED, "pcs_step_failed") /* at arming its power did not follow a setpoint of 2 % of the nameplate, in sign and in size */ \
    X(FAULT_PCS_WATCHDOG, "pcs_watchdog") /* the time-out of the PCS's own watchdog reads back as 0 (off), as more than threshold or not at all, or was measured as more */ \
    X(FAULT_PCS_WRITE_LOST, "pcs_write_lost") /* the PCS has not taken the newest setpoint for threshold */ \
    X(FAULT_CAN_PASSIVE, "can_passive") /* a CAN bus is error-passive */ \
    X(FAULT_CAN_OFF, "can_off") /* a CAN bus is off or down */ \
    X(FAULT_CAN_UNSENT, "can_unsent") /* more than threshold of our own CAN frames in a row were not sent or not seen back */ \
    X(FAULT_LATCHES_LOST, "latches_lost") /* the file that keeps latches over a restart cannot be read at start */ \
    X(FAULT_PCS_SHORT, "pcs_short") /* its power falls short of every recent setpoint by more than threshold of the nameplate and more than floor */ \
    X(FAULT_GRID_UNMOVED, "grid_unmoved") /* the grid meter showed nothing of what the battery did, the contrary, or another share of it, at arming or when it was asked */ \
    X(FAULT_GRID_UNPROVEN, "grid_unproven") /* armed although the grid meter did not clearly show what the battery did */ \
    X(FAULT_METER_OLDER, "meter_older") /* the grid meter's readings were measured to be older than `meter_latency_ms_max` by more than threshold */ \
    X(FAULT_INPUT_LOST, "input_lost") /* the state of a contact is not known: its line chatters, or the process that reads it is silent */ \
    X(FAULT_DOOR_OPEN, "door_open") /* a door contact says that the cabinet is open */ \
    X(FAULT_SMOKE, "smoke") /* a smoke or fire contact has tripped */ \
    X(FAULT_ESTOP, "estop") /* the feedback of an emergency stop says that it is pressed */ \
    X(FAULT_BMS_STUCK, "bms_stuck") /* what must move with the power stands still in the BMS's readings: the state of charge through threshold of the usable energy one way, or all of them for floor after the power moved a tenth of the nameplate away from volts times amperes */ \
    X(FAULT_PCS_POWER_APART, "pcs_power_apart") /* converter and BMS (volts times amperes) differ in power, in sign or size, by more than threshold of the largest lately, more than floor and more than a twentieth of the nameplate */ \
    X(FAULT_PCS_OPPOSED, "pcs_opposed") /* at arming the battery's energy moved against the converter's by more than threshold of it */ \
    X(FAULT_MEMORY_CHANGED, "memory_changed") /* the compiled site in memory has another CRC than at start, or a gate's memory is not what the gate left in it */ \
    X(FAULT_FLOW_BROKEN, "flow_broken") /* a phase of the cycle was left out, came twice or out of its place, or a unit passed no gate */ \
    X(FAULT_CLOCK_APART, "clock_apart") /* the clock of the cycles and another one of the kernel (raw, or counting sleep) part by more than threshold within a second */ \
    X(FAULT_METER_PHASES, "meter_phases") /* the grid meter's phases do not add up to its total any more, or a phase shows nothing of its current or of the battery */
