/* ext/safety/fault_rows.h: the rows of the fault table as bits. The rows themselves: config/faults.toml, fault_table.h. */
#ifndef TIDEGATE_FAULTS_H
#define TIDEGATE_FAULTS_H

#include "safety/fault_table.h"
#include "safety/safety.h"

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
#define FAULT_POWER_TAU_S 15.0      /* converter's and battery's power are compared smoothed over this long */
#define FAULT_POWER_SHARE 0.05      /* and may always differ by so much of the nameplate */
#define FAULT_STILL_SHARE 0.1       /* power that moved by so much of the nameplate shows in a BMS's readings, ... */
#define FAULT_STILL_W 1000.0        /* ... if it is more than this, ... */
#define FAULT_STILL_READINGS 3      /* ... within so many readings that came */
#define FAULT_IDLE_SHARE 0.02       /* a battery that gives less of its nameplate rests */
#define FAULT_LOSS_SHARE 0.25       /* of what flows may be lost, both ways together */
#define FAULT_ENDS_TIMES 5.0        /* SoC may stand so much longer ... */
#define FAULT_ENDS_SOC 0.05         /* ... so near to full or empty */
#define FAULT_SOC_APART 0.15        /* SoC and the converter's energy within an hour, of the usable energy */
#define FAULT_STEP_S 2.0            /* the battery's witness at arming is heard after so many seconds' worth of the step */

#endif
