/* ext/abi/image.h: what the controller knows about the plant, one row a signal.
 *
 * Owner of every name and number that crosses from the loop to the outside. A point is a row of the image; rows
 * 0..SITE_POINTS-1 are the site's own, then UNIT_POINTS rows for each storage unit, then the rows of the device maps.
 */
#ifndef TIDEGATE_IMAGE_H
#define TIDEGATE_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#define IMAGE_LAYOUT_VERSION 6u

#define POINTS_MAX 1024 /* rows of the image */
#define UNITS_MAX 16   /* storage units: one BMS and one PCS each */

enum point_quality {
    QUALITY_NEVER = 0, /* no reading yet; value is NaN */
    QUALITY_GOOD = 1,
    QUALITY_HELD = 2,    /* bridged for a bounded time */
    QUALITY_STALE = 3,   /* older than the row's age_max_ns */
    QUALITY_INVALID = 4, /* arrived but not believable; value keeps the last good one */
};

typedef struct {
    double value;     /* in the unit that the signal's name ends in */
    uint64_t t_ns;    /* CLOCK_MONOTONIC of the last valid advancing reading, 0 = never seen */
    uint32_t quality; /* enum point_quality */
    uint32_t changes; /* readings so far, also those that gave the same value again */
} point_t;
_Static_assert(sizeof(point_t) == 24, "point_t crosses process borders; bump IMAGE_LAYOUT_VERSION");

/* Points of the site, name and unit, in image order. Signs: grid + import, battery + discharge, PV + generation. */
#define SITE_POINT_TABLE(X)                                                                              \
    X(SITE_GRID_W, "site.grid_w", "W")                   /* at the connection point */                   \
    X(SITE_LOAD_W, "site.load_w", "W")                   /* grid + ess + pv, all of the same age */      \
    X(SITE_ESS_W, "site.ess_w", "W")                     /* all units, at the PCS terminals */           \
    X(SITE_PV_W, "site.pv_w", "W")                                                                       \
    X(SITE_REQUEST_W, "site.request_w", "W")             /* what the control wants, all units */         \
    X(SITE_SETPOINT_W, "site.setpoint_w", "W")           /* what the gate let go, all units */           \
    X(SITE_CORRIDOR_LO_W, "site.corridor_lo_w", "W")     /* remaining interval of battery power */       \
    X(SITE_CORRIDOR_HI_W, "site.corridor_hi_w", "W")                                                     \
    X(SITE_ENVELOPE_LO_W, "site.envelope_lo_w", "W")     /* what the units can do now */                 \
    X(SITE_ENVELOPE_HI_W, "site.envelope_hi_w", "W")                                                     \
    X(SITE_REASON, "site.reason", "enum")                /* enum reason: the binding one */              \
    X(SITE_PREFERENCE, "site.preference", "enum")        /* enum reason: who picked inside the rest */   \
    X(SITE_SHORTFALL_W, "site.shortfall_w", "W")         /* grid power above a limit not enforced */     \
    X(SITE_MODE, "site.mode", "enum")                    /* enum mode */                                 \
    X(SITE_DEMAND_W, "site.demand_w", "W")               /* mean import of the running window */         \
    X(SITE_DEMAND_LEFT_S, "site.demand_left_s", "s")     /* left of the running window */                \
    X(SITE_DEMAND_PEAK_W, "site.demand_peak_w", "W")     /* highest window of the billing period */      \
    X(SITE_GRID_LIMIT_W, "site.grid_limit_w", "W")       /* import limit in force */                     \
    X(SITE_GRID_IN_WS, "site.grid_in_ws", "Ws")          /* monotone integrals since core start */       \
    X(SITE_GRID_OUT_WS, "site.grid_out_ws", "Ws")                                                        \
    X(SITE_GRID_COVERED_S, "site.grid_covered_s", "s")                                                   \
    X(SITE_GRID_MIN_W, "site.grid_min_w", "W")           /* of the last whole second */                  \
    X(SITE_GRID_MAX_W, "site.grid_max_w", "W")                                                           \
    X(SITE_LOAD_IN_WS, "site.load_in_ws", "Ws")                                                          \
    X(SITE_LOAD_OUT_WS, "site.load_out_ws", "Ws")                                                        \
    X(SITE_LOAD_COVERED_S, "site.load_covered_s", "s")                                                   \
    X(SITE_LOAD_MIN_W, "site.load_min_w", "W")                                                           \
    X(SITE_LOAD_MAX_W, "site.load_max_w", "W")                                                           \
    X(SITE_ESS_DISCHARGED_WS, "site.ess_discharged_ws", "Ws")                                          \
    X(SITE_ESS_CHARGED_WS, "site.ess_charged_ws", "Ws")                                                \
    X(SITE_ESS_COVERED_S, "site.ess_covered_s", "s")                                                     \
    X(SITE_ESS_MIN_W, "site.ess_min_w", "W")                                                             \
    X(SITE_ESS_MAX_W, "site.ess_max_w", "W")                                                             \
    X(SITE_PV_IN_WS, "site.pv_in_ws", "Ws")                                                              \
    X(SITE_PV_OUT_WS, "site.pv_out_ws", "Ws")                                                            \
    X(SITE_PV_COVERED_S, "site.pv_covered_s", "s")                                                       \
    X(SITE_PV_MIN_W, "site.pv_min_w", "W")                                                               \
    X(SITE_PV_MAX_W, "site.pv_max_w", "W")                                                               \
    X(SITE_FAULT_BITS_LO, "site.fault_bits_lo", "bits")  /* faults 0..31 active, any unit */             \
    X(SITE_FAULT_BITS_HI, "site.fault_bits_hi", "bits")  /* faults 32..63 */                             \
    X(SITE_FAULT_BITS_64, "site.fault_bits_64", "bits")  /* faults 64..95 */                             \
    X(SITE_FAULT_BITS_96, "site.fault_bits_96", "bits")  /* faults 96..127 */                            \
    X(SITE_REACTION, "site.reaction", "enum")            /* enum reaction: the highest */                \
    X(SITE_LOOP_ESCALATION, "site.loop_escalation", "enum") /* 0 none 1 derate 2 safe 3 silent */        \
    X(SITE_UNENFORCED_BITS, "site.unenforced_bits", "bits") /* by enum reason: configured, not enforced */ \
    X(SITE_HUNTING, "site.hunting", "enum")              /* 0 calm; else how far the request is damped */ \
    X(SITE_CAN_STATE, "site.can_state", "enum")          /* worst bus: enum can_state of can.pxd */      \
    X(SITE_CAN_UNSENT, "site.can_unsent", "count")       /* own frames in a row that nobody took */      \
    X(SITE_GRID_AGE_S, "site.grid_age_s", "s")           /* of a grid reading, once the battery has moved */ \
    X(SITE_GRID_AGE_LO_S, "site.grid_age_lo_s", "s")     /* and between which bounds it is believed */   \
    X(SITE_GRID_AGE_HI_S, "site.grid_age_hi_s", "s")                                                     \
    X(SITE_GRID_INTERVAL_S, "site.grid_interval_s", "s") /* the grid meter shows something new so often */ \
    X(SITE_GRID_ANSWER, "site.grid_answer", "enum")      /* shows the battery: 0 open 1 yes 2 no 3 unproven */ \
    X(SITE_RECONNECT_S, "site.reconnect_s", "s")         /* since a grid loss: power stays 0 for so long yet */ \
    X(SITE_RECONNECT_W, "site.reconnect_w", "W")         /* and then is at most this; stale = no bound */ \
    X(SITE_METER_VERDICT, "site.meter_verdict", "enum")  /* 0 believed 1 frozen 2 turned 3 another share 4 contradicts its energy 5 contradicts its phases */ \
    X(SITE_METER_REGISTERS, "site.meter_registers", "enum") /* power against energy: 0 none read 1 waits 2 agrees 3 stands 4 held 5 too slow 6 against */ \
    X(SITE_METER_PHASES, "site.meter_phases", "enum")    /* against the total: 0 none read 1 waits 2 agrees 3 apart 4 against 5 first phase lost 6 second phase lost 7 third phase lost */ \
    X(SITE_ISLAND, "site.island", "enum")                /* 0 grid 1 dark 2 genset 3 forming 4 genset missing; stale = not asked */ \
    X(SITE_GENSET_WANTED, "site.genset_wanted", "bool")  /* 1 = the genset should run */ \
    X(SITE_PV_LIMIT_W, "site.pv_limit_w", "W")           /* in an island: more PV than this has nowhere to go */ \
    X(SITE_METER_QUESTION, "site.meter_question", "enum") /* what the battery moves or stands for, beside any limit: 0 nothing 1 standing value 2 phase 3 sign or share 4 age 5 battery seen 6 chase 7 steps beside */

/* Points of each storage unit; the name is unitN.<this>. */
#define UNIT_POINT_TABLE(X)                                                            \
    X(UNIT_REQUEST_W, "request_w", "W")                                                \
    X(UNIT_SETPOINT_W, "setpoint_w", "W")                                              \
    X(UNIT_ENVELOPE_LO_W, "envelope_lo_w", "W")                                        \
    X(UNIT_ENVELOPE_HI_W, "envelope_hi_w", "W")                                        \
    X(UNIT_LIMIT_BITS, "limit_bits", "bits")     /* which limits bind the envelope */  \
    X(UNIT_REACTION, "reaction", "enum")                                               \
    X(UNIT_FAULT_BITS_LO, "fault_bits_lo", "bits")                                     \
    X(UNIT_FAULT_BITS_HI, "fault_bits_hi", "bits")                                     \
    X(UNIT_FAULT_BITS_64, "fault_bits_64", "bits")                                     \
    X(UNIT_FAULT_BITS_96, "fault_bits_96", "bits")                                     \
    X(UNIT_LATCH_BITS_LO, "latch_bits_lo", "bits")                                     \
    X(UNIT_LATCH_BITS_HI, "latch_bits_hi", "bits")                                     \
    X(UNIT_LATCH_BITS_64, "latch_bits_64", "bits")                                     \
    X(UNIT_LATCH_BITS_96, "latch_bits_96", "bits")                                     \
    X(UNIT_HEARTBEAT_OK, "heartbeat_ok", "bool")                                       \
    X(UNIT_STATE, "state", "enum")               /* enum mode: the unit's own */        \
    X(UNIT_FIRST_FAULT, "first_fault", "enum")   /* first-out cause, -1 none */        \
    X(UNIT_STEP_TEST, "step_test", "enum")       /* at arming: 0 open, 1 passed, 2 failed */ \
    X(UNIT_WRITE_WAIT_S, "write_wait_s", "s")    /* a setpoint waits so long for the PCS to take it */ \
    X(UNIT_REVERT_S, "revert_s", "s")            /* the PCS's own watchdog, as measured */ \
    X(UNIT_CONTACTOR_OPEN, "contactor_open", "bool") /* 1 = the BMS is asked to open */ \
    X(UNIT_DEAD_S, "dead_s", "s")                /* setpoint to the first watt, as seen from here */ \
    X(UNIT_LAG_S, "lag_s", "s")                  /* from there, first order; between these bounds */ \
    X(UNIT_LAG_LO_S, "lag_lo_s", "s")                                                  \
    X(UNIT_LAG_HI_S, "lag_hi_s", "s")                                                  \
    X(UNIT_RAMP_W_PER_S, "ramp_w_per_s", "W/s")  /* steepest move seen */              \
    X(UNIT_GAIN, "gain", "1")                    /* gives so much of what it is told; between these bounds */ \
    X(UNIT_GAIN_LO, "gain_lo", "1")                                                    \
    X(UNIT_GAIN_HI, "gain_hi", "1")                                                    \
    X(UNIT_GIVES_LO_W, "gives_lo_w", "W")        /* what the control counts on, of the envelope */ \
    X(UNIT_GIVES_HI_W, "gives_hi_w", "W")

/* What carries the site; value of SITE_ISLAND. */
enum island_state { ISLAND_GRID, ISLAND_DARK, ISLAND_GENSET, ISLAND_FORMING, ISLAND_MISSING };

/* What a grid reading was found to be that is not true; value of SITE_METER_VERDICT. */
enum meter_verdict { VERDICT_BELIEVED, VERDICT_FROZEN, VERDICT_SIGN, VERDICT_SHARE, VERDICT_REGISTER, VERDICT_PHASES };

/* What its energy registers say of a grid meter's power now; value of SITE_METER_REGISTERS. */
enum meter_registers { REGISTERS_NONE, REGISTERS_WAIT, REGISTERS_AGREE, REGISTERS_STAND, REGISTERS_HELD, REGISTERS_SLOW,
                       REGISTERS_AGAINST };

/* What its phases say of it, of which all three are needed; value of SITE_METER_PHASES. */
enum meter_phases { PHASES_NONE, PHASES_WAIT, PHASES_AGREE, PHASES_APART, PHASES_AGAINST, PHASES_NO_L1, PHASES_NO_L2, PHASES_NO_L3 };

/* What the battery shows of the grid meter now, where it is asked; value of SITE_METER_QUESTION. */
enum meter_question { QUESTION_NONE, QUESTION_STANDS, QUESTION_PHASE, QUESTION_SHARE, QUESTION_AGE, QUESTION_SEEN, QUESTION_CHASE,
                      QUESTION_BESIDE };

#define AS_ENUM(id, name, unit) id,
enum site_point { SITE_POINT_TABLE(AS_ENUM) SITE_POINTS };
enum unit_point { UNIT_POINT_TABLE(AS_ENUM) UNIT_POINTS };
#undef AS_ENUM

#define AS_NAME(id, name, unit) {name, unit},
static const char *const SITE_POINT_NAMES[SITE_POINTS][2] __attribute__((unused)) = {SITE_POINT_TABLE(AS_NAME)};
static const char *const UNIT_POINT_NAMES[UNIT_POINTS][2] __attribute__((unused)) = {UNIT_POINT_TABLE(AS_NAME)};
#undef AS_NAME

/* Image index of a unit's point. */
#define UNIT_POINT(unit, which) (SITE_POINTS + (unit) * UNIT_POINTS + (which))

/* Why a setpoint is what it is, strongest first; the order of the corridor. */
#define REASON_TABLE(X)                                                                   \
    X(REASON_GATE, "gate")                       /* the safety gate changed the request */ \
    X(REASON_ENVELOPE, "envelope")               /* what the units can do now */           \
    X(REASON_RECONNECTION, "reconnection")       /* the grid has come back: power rises slowly */ \
    X(REASON_GRID_OPERATOR, "grid operator")     /* a limit or stop of the grid's operator */ \
    X(REASON_CONNECTION_LIMIT, "connection limit")                                        \
    X(REASON_EXPORT_LIMIT, "export limit")                                                \
    X(REASON_PHASE_LIMIT, "phase limit")                                                  \
    X(REASON_CIRCUIT_LIMIT, "circuit limit")                                              \
    X(REASON_BACKUP_RESERVE, "backup reserve")                                            \
    X(REASON_DIRECTION_LIMIT, "direction limit") /* a slot's or plan's charge or discharge power */ \
    X(REASON_DEMAND_WINDOW, "demand window")                                              \
    X(REASON_PEAK_LIMIT, "peak limit")                                                    \
    X(REASON_RAMP_LIMIT, "grid ramp limit")                                               \
    X(REASON_RANGE_LIMIT, "dynamic range limit")                                          \
    X(REASON_OSCILLATION, "oscillation damping")                                          \
    X(REASON_RECHARGE_BAND, "recharge band")                                              \
    X(REASON_SOC_BAND, "soc band")               /* the rest is kept for the limits */     \
    X(REASON_FORCED, "forced charge or discharge")                                        \
    X(REASON_LEASE, "lease")                                                              \
    X(REASON_PLAN, "plan")                                                                \
    X(REASON_SELF_CONSUMPTION, "self-consumption")                                        \
    X(REASON_RECENTRE, "recentre")                                                        \
    X(REASON_REST, "rest")                                                                \
    X(REASON_BLIND, "blind")                     /* no believable grid meter */            \
    X(REASON_STOPPED, "stopped")                                                          \
    X(REASON_MANUAL, "manual")                                                            \
    X(REASON_BATTERY, "battery's own request")   /* the BMS asks to be charged or discharged */ \
    X(REASON_LOW_SOC, "low charge")              /* below force_soc */                    \
    X(REASON_RESTORE, "restoring the reserve")                                            \
    X(REASON_ISLAND, "island")                   /* the grid is gone: the genset's limits, or nothing */ \
    X(REASON_UNPROVEN, "unproven meter")         /* armed without knowing the grid meter's sign */
#define AS_ENUM(id, name) id,
enum reason { REASON_TABLE(AS_ENUM) REASONS };
#undef AS_ENUM
#define AS_NAME(id, name) name,
static const char *const REASON_NAMES[REASONS] __attribute__((unused)) = {REASON_TABLE(AS_NAME)};
#undef AS_NAME

/* What the site as a whole is doing. */
#define MODE_TABLE(X) X(MODE_TRIPPED, "tripped") X(MODE_ARMING, "arming") X(MODE_READY, "ready") X(MODE_RUN, "run") \
    X(MODE_DERATED, "derated") X(MODE_STOPPING, "stopping") X(MODE_OFF, "off") X(MODE_MANUAL, "manual")
#define AS_ENUM(id, name) id,
enum mode { MODE_TABLE(AS_ENUM) MODES };
#undef AS_ENUM
#define AS_NAME(id, name) name,
static const char *const MODE_NAMES[MODES] __attribute__((unused)) = {MODE_TABLE(AS_NAME)};
#undef AS_NAME

/* Monotone integral of one power: a lost snapshot loses shape and never energy. */
typedef struct {
    double in_ws;     /* W s while the power was positive */
    double out_ws;    /* W s while it was negative, counted positive */
    double covered_s; /* time for which the power was known */
    double min_w, max_w;           /* of the running second */
    double last_min_w, last_max_w; /* of the last whole second */
} integral_t;

#endif
