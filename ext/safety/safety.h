/* ext/safety/safety.h: the safety gate. Integers only; no allocation, no I/O, no clock, no global state.
 *
 * One call a cycle and storage unit, last before every actuator write. See docs/safety.md for what is proved of it.
 * Everything that is missing is zero: a limit of 0 W, 0 mA or 0 W/s lets no power pass.
 */
#ifndef TIDEGATE_SAFETY_H
#define TIDEGATE_SAFETY_H

#include <stdint.h>

#define SAFETY_LAYOUT_VERSION 4u
#define GATE_FAULTS_MAX 128

#define GATE_DT_US_MAX 1000000        /* a longer cycle counts as this long for debounce and clear times */
#define GATE_RAMP_DT_US_MAX 100000    /* and as this long for ramps: a pause never turns into a jump of power */
#define GATE_TIME_US_MAX 2000000000   /* longest debounce or clear time, 33 min */
#define GATE_FLAPS_MAX 6              /* activations remembered per row, one forgotten each GATE_FORGET_US */
#define GATE_FORGET_US 600000000
#define GATE_OPEN_MA 5000             /* contactors may open below this current ... */
#define GATE_OPEN_WAIT_US 1000000     /* ... or after this long at setpoint 0 */
#define GATE_SOC_CPCT_MAX 10000
#define GATE_BATTERIES_MAX 8           /* side by side behind one converter */

/* One bit per row of the fault table: rows 0..63 in lo, 64..127 in hi. */
typedef struct {
    uint64_t lo, hi;
} fault_set_t;

/* The lattice; the highest wins. */
enum reaction {
    REACTION_NONE = 0,
    REACTION_WARN = 1,
    REACTION_DERATE = 2,    /* envelope shrinks to the row's derate_permille */
    REACTION_RAMP_ZERO = 3, /* to zero at the stop rate */
    REACTION_ZERO = 4,      /* zero in the next write */
    REACTION_ZERO_SILENT = 5, /* zero and no heartbeat */
    REACTION_OPEN = 6,      /* and contactor-open request */
};

/* One row of the fault table; rows are named in ext/safety/fault_rows.h, numbers come from config/faults.toml. */
typedef struct {
    int32_t reaction;        /* enum reaction; 0 = row unused; a number that is none of these counts as REACTION_OPEN */
    int32_t latched;         /* 1 = stays until acknowledged with the cause gone */
    int32_t debounce_ms;     /* leaky bucket: present this long; drains at half speed while absent */
    int32_t clear_ms;        /* absent this long without a break before it clears */
    int32_t derate_permille; /* for REACTION_DERATE; outside 0..1000 counts as 0 */
    int32_t flap_max;        /* latches at the n-th activation within the hour, each one doubling clear_ms; 0 = never */
    int32_t threshold_milli; /* for ext/safety/diagnosis.pyx: thousandths of the unit that the row's `what` names */
    int32_t floor_milli;     /* second number of rows that have one */
} gate_fault_row_t;
_Static_assert(sizeof(gate_fault_row_t) == 32, "gate_fault_row_t is part of the program layout");

/* Constants of one unit, from the site file; all magnitudes >= 0. */
typedef struct {
    int32_t charge_w_max, discharge_w_max;     /* PCS nameplate */
    int32_t charge_ma_max, discharge_ma_max;   /* configured; the BMS's own come each cycle; INT32_MAX = none */
    int32_t soc_min_cpct, soc_max_cpct;        /* 0.01 %: discharge stops at min, charge at max */
    int32_t soc_taper_cpct;                    /* width over which power falls linearly to zero; 0 = step */
    int32_t temp_min_ddegc, temp_max_ddegc;    /* 0.1 degC: zero outside and at the edge */
    int32_t temp_taper_ddegc;                  /* linear derate before the limit */
    int32_t cell_mv_min, cell_mv_max;          /* 0 = not checked */
    int32_t ramp_go_w_per_s, ramp_stop_w_per_s; /* away from zero; to zero on REACTION_RAMP_ZERO (0 = at once) */
    int32_t cell_taper_mv;                     /* linear derate before a cell limit; 0 = step */
    int32_t reserved[5];
} gate_limits_t;

enum gate_valid {
    VALID_REQUEST = 1u << 0, VALID_SOC = 1u << 1, VALID_PACK_V = 1u << 2, VALID_CHARGE_MA = 1u << 3,
    VALID_DISCHARGE_MA = 1u << 4, VALID_TEMP_MAX = 1u << 5, VALID_TEMP_MIN = 1u << 6, VALID_ESS_W = 1u << 7,
    VALID_CHARGE_W = 1u << 8, VALID_DISCHARGE_W = 1u << 9, VALID_CELL_MAX = 1u << 10, VALID_CELL_MIN = 1u << 11,
};

/* This cycle's facts; an input whose valid bit is clear is never read as a number. */
typedef struct {
    uint32_t valid;    /* enum gate_valid */
    uint32_t required; /* enum gate_valid: inputs that this unit's map promises; a required one not valid = zero */
    int32_t request_w; /* + discharge */
    int32_t pack_mv;
    int32_t charge_ma_max, discharge_ma_max; /* from the BMS, magnitudes */
    int32_t charge_w_max, discharge_w_max;   /* from BMS or PCS where given */
    int32_t soc_cpct;
    int32_t temp_max_ddegc, temp_min_ddegc;
    int32_t cell_mv_max, cell_mv_min;
    int32_t soc_spread_cpct; /* of several batteries the fullest has so much more than soc_cpct; charging stops by it */
    int32_t ess_w;
    int32_t charge_ok, discharge_ok; /* enable bits; 0 = not allowed */
    int32_t dt_us;     /* true length of this cycle, 1..1000000 */
    uint32_t ack;      /* acknowledge: acts when it turns from 0 to 1 */
    uint32_t arm;      /* arm order: acts when it turns from 0 to 1 */
    fault_set_t faults; /* conditions present now, one bit per row of the fault table */
} gate_input_t;

/* LIMIT_RAMP: the setpoint is not the request, whatever held it back; LIMIT_FAULT: a reaction from derate upwards. */
enum gate_limit_bits {
    LIMIT_NAMEPLATE = 1u << 0, LIMIT_CURRENT = 1u << 1, LIMIT_SOC = 1u << 2, LIMIT_TEMP = 1u << 3, LIMIT_CELL = 1u << 4,
    LIMIT_ENABLE = 1u << 5, LIMIT_POWER = 1u << 6, LIMIT_INVALID = 1u << 7, LIMIT_FAULT = 1u << 8, LIMIT_RAMP = 1u << 9,
    LIMIT_TRIPPED = 1u << 10,
};

/* Memory of one fault row; all zero = idle. */
typedef struct {
    int32_t bucket_us; /* inactive: filled by presence; active: what is left of the clear time */
    uint8_t active, latched;
    uint8_t flaps;     /* activations not yet forgotten */
    uint8_t pad;
} gate_row_t;

typedef struct {
    gate_row_t rows[GATE_FAULTS_MAX];
    int64_t last_setpoint_mw; /* mW, so that slow ramps do not round to nothing */
    int32_t tripped;          /* starts at 1 */
    int32_t first_fault;      /* row of the first-out cause, -1 none */
    int32_t busy;             /* 0 = every row is idle but for its flaps */
    int32_t forget_us;
    int32_t open_wait_us;
    uint32_t last_arm, last_ack;
    uint64_t proof;           /* advanced by completed cycles only */
} gate_state_t;

typedef struct {
    int32_t setpoint_w;
    int32_t envelope_lo_w, envelope_hi_w; /* lo <= 0 <= hi, derating included */
    uint32_t limit_bits;                  /* enum gate_limit_bits: what narrowed the envelope or the setpoint */
    int32_t reaction;                     /* enum reaction, the highest of all active and latched rows */
    int32_t heartbeat_ok;                 /* 1 = its devices may hear that we live: every required input valid, no silence asked for */
    int32_t contactor_open;               /* 1 = ask the BMS to open */
    int32_t tripped;
    int32_t first_fault;
    fault_set_t active, latched;          /* one bit per row */
    uint64_t proof;
} gate_verdict_t;

/* What each of several batteries says that stand side by side on the DC side of one converter. */
typedef struct {
    int32_t n;                                                     /* of them, 1..GATE_BATTERIES_MAX */
    int32_t connected[GATE_BATTERIES_MAX];                         /* 1 = its contactors are closed, or it does not say */
    int32_t charge_ok[GATE_BATTERIES_MAX], discharge_ok[GATE_BATTERIES_MAX];
    int32_t soc_cpct[GATE_BATTERIES_MAX];                          /* 0..GATE_SOC_CPCT_MAX */
    int32_t pack_mv[GATE_BATTERIES_MAX];
    int32_t charge_ma_max[GATE_BATTERIES_MAX], discharge_ma_max[GATE_BATTERIES_MAX];
    int32_t charge_w_max[GATE_BATTERIES_MAX], discharge_w_max[GATE_BATTERIES_MAX];
    int32_t temp_max_ddegc[GATE_BATTERIES_MAX], temp_min_ddegc[GATE_BATTERIES_MAX];
    int32_t cell_mv_max[GATE_BATTERIES_MAX], cell_mv_min[GATE_BATTERIES_MAX];
} gate_bank_t;

/* The batteries as one, the weakest deciding: numbers of `input` from soc_cpct to the enable bits, and nothing else. */
void gate_combine(const gate_bank_t *bank, gate_input_t *input);
/* Everything forgotten, tripped. */
void gate_init(gate_state_t *state);
/* Take over latches kept from before a restart, one bit per row. */
void gate_restore(gate_state_t *state, fault_set_t latched);
/* The envelope alone, for the control: what the unit may do now, before faults and ramps. */
void gate_envelope(const gate_limits_t *limits, const gate_input_t *input, int32_t *lo_w, int32_t *hi_w, uint32_t *bits);
void gate_step(const gate_limits_t *limits, const gate_fault_row_t faults[GATE_FAULTS_MAX], const gate_input_t *input,
               gate_state_t *state, gate_verdict_t *verdict);

#endif
