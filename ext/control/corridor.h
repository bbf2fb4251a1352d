/* ext/control/corridor.h: what the corridor is asked for each cycle, its memory, its answer.
 *
 * Signs: grid + import, battery + discharge, PV + generation. W, s, Wh, 0..1.
 */
#ifndef TIDEGATE_CORRIDOR_H
#define TIDEGATE_CORRIDOR_H

#include "abi/image.h"
#include "abi/settings.h"

#define RANGE_SLOTS 64 /* of the rolling window of the dynamic range limit */

enum order_flags {
    ORDER_PLAN = 1,
    ORDER_PEAK = 2,
    ORDER_DEMAND = 4,
    ORDER_MANUAL = 8,  /* lease_w is a manual power */
    ORDER_FORCED = 16, /* plan_w is a forced charge or discharge */
    ORDER_TARGET = 32, /* the plan's target of grid power */
    ORDER_CEASE = 64,  /* the grid operator's stop */
};

/* What the outside asks for, already checked for lease and expiry. */
typedef struct {
    double lease_w;      /* site setpoint */
    double import_w_max; /* run-time limit, INFINITY = none */
    double export_w_max;
    double plan_w;       /* setpoint of the plan's running row */
    double plan_until_soc; /* where it ends; NaN = with its row */
    double target_grid_w;
    uint64_t plan_number; /* of the row */
    double peak_w_max;   /* run-time or scheduled, tighter only */
    double demand_w_max;
    double charge_w_max, discharge_w_max; /* scheduled; INFINITY = none */
    double operator_import_w_max, operator_export_w_max; /* the grid operator's; INFINITY = none */
    uint32_t lease_held;
    uint32_t stop;       /* 1 = ramp to zero and stay */
    uint32_t flags;      /* enum order_flags: which of plan_w, target_grid_w, peak_w_max, demand_w_max are in force */
    uint32_t pad;
} orders_t;

typedef struct {
    double request_w[UNITS_MAX];
    double request_total_w;
    double lo_w, hi_w;                  /* the corridor that was left */
    double envelope_lo_w, envelope_hi_w;
    double limits_hi_w;                 /* so far up limits alone let the battery go; what the site aims at narrows it further */
    double shortfall_w;                 /* expected grid power above a limit that could not be enforced */
    double grid_limit_w;                /* import limit in force */
    uint32_t reason;                    /* enum reason: moved the answer last */
    uint32_t preference;                /* enum reason */
    uint32_t missed;                    /* bit each enum reason: the policy's interval was missed */
    uint32_t missed_short;              /* of these, because the units cannot; else a stronger policy stands */
    uint32_t hunting, pad;              /* damping level; 0 = none */
} decision_t;

/* Watch for hunting: what battery and grid did between the battery's turns. */
typedef struct {
    double ess_lo_w, ess_hi_w;      /* since the last turn */
    double grid_lo_w, grid_hi_w, grid_lo_before_w, grid_hi_before_w;
    double turn_s, period_s, quiet_s; /* since the last turn; of the swing; since the last suspicious turn */
    double swing_w;                 /* of the battery, over the last half swing */
    double slow_w;                  /* the damped request */
    double half_s, half_before_s;   /* how long the last half swing took, and the one before */
    double grid_swing_w;            /* of the meter, over the last swing */
    double held_w, given_w;         /* the trial: what the battery is held at; what somebody orders meanwhile */
    double trial_s, trial_period_s; /* since it began; of the swing that is tried */
    double trial_lo_w, trial_hi_w;  /* of the meter, once the battery stands */
    double wait_s, rest_s;          /* until the next trial; between the next two */
    int32_t direction, count;
    uint32_t level, started;
    uint32_t alike, trial;          /* half swings alike in a row; 1 = the battery is held */
    uint32_t proven, paired;        /* 1 = in this cycle a trial has shown a chase; paired in the cycle before */
} hunting_t;

/* Kept through rests: what the load did to demand windows of late, by which charging in a window is bounded. */
typedef struct {
    double high_w;      /* highest net power, forgotten over a month */
    double limit_w;     /* what the bursts stand above: it follows the limit in force; 0 = there was none yet */
    double watched_s;   /* how long they have been counted from it */
    double since_s;     /* the reading before */
    double burst_ws;    /* net energy above it that runs now, a queue that the time below it empties */
    double burst_most_ws; /* the most that stood there, forgotten over a month */
    uint32_t arming, pad; /* 1 = the pulses of arming, which may have to charge, are no charging */
} demand_memory_t;

/* The control's memory. */
typedef struct {
    double last_total_w;  /* request without the trim */
    double trim_w, trim_applied_w;
    double trim_s;          /* since the units are told all of the request */
    uint64_t trim_answered; /* bit each: the unit's power was read since it had time to do that */
    double ramp_anchor_w; /* grid power that the ramp limit stands at */
    double recharge_w;    /* charging power, slewed, <= 0 */
    double settle_s;      /* since the request last moved */
    double last_request_w[UNITS_MAX];
    double last_applied_w; /* request with the trim */
    double load_peak_w;   /* highest net power of late: what the demand window must be ready for */
    double range_lo_w[RANGE_SLOTS], range_hi_w[RANGE_SLOTS]; /* planned grid power in slices of the range window */
    double range_left_s;
    double damp_slow_w, damp_fast_w; /* low passes at the band's edges */
    hunting_t hunting;
    demand_memory_t demand;
    uint64_t plan_done;   /* number of the plan's row whose state of charge is reached */
    uint32_t range_head, range_count;
    uint32_t started, recharging;
    uint32_t restoring, low_charging; /* the reserve; a state of charge below force_soc */
    uint32_t island, island_full;       /* an island was there in the cycle before; charged up from its genset */
} control_state_t;

#endif
