/* ext/safety.h: the safety gate. Integers only; no allocation, no I/O, no clock, no global state.
 *
 * One call a cycle and storage unit, last before every actuator write. See docs/safety.md.
 */
#ifndef TIDEGATE_SAFETY_H
#define TIDEGATE_SAFETY_H

#include <stdint.h>

#define SAFETY_LAYOUT_VERSION 1u
#define GATE_FAULTS_MAX 64

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

typedef struct {
    int32_t reaction;        /* enum reaction; 0 = row unused */
    int32_t latched;         /* 1 = stays until acknowledged with the cause gone */
    int32_t debounce_ms;     /* leaky bucket: present this long */
    int32_t clear_ms;        /* absent this long before it clears */
    int32_t derate_permille; /* for REACTION_DERATE */
    int32_t reserved;
} gate_fault_row_t;

/* Constants of one unit, from the site file; all magnitudes >= 0. */
typedef struct {
    int32_t charge_w_max, discharge_w_max;     /* PCS nameplate */
    int32_t charge_ma_max, discharge_ma_max;   /* configured; the BMS's own come each cycle */
    int32_t soc_min_cpct, soc_max_cpct;        /* 0.01 %: discharge stops at min, charge at max */
    int32_t soc_taper_cpct;                    /* width over which power falls linearly to zero; 0 = step */
    int32_t temp_min_ddegc, temp_max_ddegc;    /* 0.1 degC: zero outside */
    int32_t temp_taper_ddegc;                  /* linear derate before the limit */
    int32_t cell_mv_min, cell_mv_max;          /* 0 = not checked */
    int32_t ramp_go_w_per_s, ramp_stop_w_per_s; /* away from and towards zero; stop >= 5 x go is refused otherwise */
    int32_t reserved[6];
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
    int32_t request_w;
    int32_t pack_mv;
    int32_t charge_ma_max, discharge_ma_max; /* from the BMS, magnitudes */
    int32_t charge_w_max, discharge_w_max;   /* from BMS or PCS where given */
    int32_t soc_cpct;
    int32_t temp_max_ddegc, temp_min_ddegc;
    int32_t cell_mv_max, cell_mv_min;
    int32_t ess_w;
    int32_t charge_ok, discharge_ok; /* enable bits; 1 = allowed */
    int32_t dt_us;     /* true length of this cycle, 1..1000000 */
    uint32_t ack;      /* 1 in the cycle of an acknowledge */
    uint32_t arm;      /* 1 in the cycle of an arm order */
    uint64_t faults;   /* conditions present now, one bit per row of the fault table */
} gate_input_t;

enum gate_limit_bits {
    LIMIT_NAMEPLATE = 1u << 0, LIMIT_CURRENT = 1u << 1, LIMIT_SOC = 1u << 2, LIMIT_TEMP = 1u << 3, LIMIT_CELL = 1u << 4,
    LIMIT_ENABLE = 1u << 5, LIMIT_POWER = 1u << 6, LIMIT_INVALID = 1u << 7, LIMIT_FAULT = 1u << 8, LIMIT_RAMP = 1u << 9,
    LIMIT_TRIPPED = 1u << 10,
};

typedef struct {
    int32_t bucket_us[GATE_FAULTS_MAX]; /* leaky buckets of debounce and clear */
    uint64_t active, latched;
    int64_t last_setpoint_mw; /* mW, so that slow ramps do not round to nothing */
    int32_t tripped;          /* starts at 1 */
    int32_t first_fault;      /* row of the first-out cause, -1 none */
    uint64_t proof;           /* advanced by completed safe cycles only */
} gate_state_t;

typedef struct {
    int32_t setpoint_w;
    int32_t envelope_lo_w, envelope_hi_w; /* lo <= 0 <= hi */
    uint32_t limit_bits;                  /* enum gate_limit_bits: what narrowed the envelope or the setpoint */
    int32_t reaction;                     /* enum reaction, the highest */
    int32_t heartbeat_ok;
    int32_t contactor_open;
    int32_t first_fault;
    uint64_t active, latched;
    uint64_t proof;
} gate_verdict_t;

void gate_init(gate_state_t *state);
/* The envelope alone, for the control: what the unit may do now, before faults and ramps. */
void gate_envelope(const gate_limits_t *limits, const gate_input_t *input, int32_t *lo_w, int32_t *hi_w, uint32_t *bits);
void gate_step(const gate_limits_t *limits, const gate_fault_row_t faults[GATE_FAULTS_MAX], const gate_input_t *input,
               gate_state_t *state, gate_verdict_t *verdict);

#endif
