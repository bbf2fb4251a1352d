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

#endif
