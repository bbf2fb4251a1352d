/* ext/control/corridor.h: what the corridor reads each cycle, its settings, its memory, its answer.
 *
 * Signs: grid + import, battery + discharge, PV + generation. W, s, Wh, 0..1.
 * `net_w` is what the grid would carry if the batteries rested: grid + ess of the same age, PV left inside. It is all
 * that the limits need, so a missing PV meter costs the report of the load and no control.
 */
#ifndef TIDEGATE_CONTROL_H
#define TIDEGATE_CONTROL_H

#include "abi/image.h"

#define CONTROL_LAYOUT_VERSION 4u
#define HISTORY_MAX 512  /* readings of one unit's power kept for same-age pairing; a power of two */
#define LAGS 40          /* reading ages that are tried when the meter's latency is measured */
#define CIRCUITS_MAX 8
#define PHASES_MAX 3
#define PENDING_MAX 64     /* grid readings that wait for the battery readings around them */
#define RANGE_SLOTS 64   /* of the rolling window of the dynamic range limit */
#define SUBWINDOWS_MAX 64 /* of a sliding demand window */

/* Settings from the site file. A limit of INFINITY is "none"; in the fields below the line 0 is "none" or "default". */
typedef struct {
    double connection_import_w_max; /* fuse or contract; never to be crossed */
    double connection_export_w_max;
    double peak_w_max;              /* peak shaving target for grid import */
    double recharge_w_max;          /* charging may not lift grid import above this */
    double ramp_up_w_per_s, ramp_down_w_per_s; /* grid ramp limits; 0 or INFINITY = none */
    double target_soc;              /* where recentring and recharging go */
    double recharge_rate_w;         /* most that recharging takes; 0 = never recharge by itself */
    double reserve_soc;             /* backup reserve: no discharge below for policies weaker than it */
    double trim_per_s;              /* integral trim of the PCS's steady error, 1/s */
    double meter_latency_s;         /* age of a grid reading, reported until it is measured */
    double deadband_w;              /* the meter's resolution: no dithering inside */
    double pcs_tau_s;               /* first guess of the PCS's lag */
    /* ---- 0 = none or default */
    double meter_latency_s_max;     /* longest reading age that is looked for; 0 = 4 s */
    double demand_w_max;            /* mean grid import over one demand window */
    double demand_window_s;         /* 300, 900, 1800, 3600; 0 = 900 */
    double demand_step_s;           /* a sliding window moves by this; 0 = fixed to the clock */
    double demand_margin_w;         /* aim below the limit by this, on top of what the register taught */
    double demand_ratchet;          /* share of the highest window already paid for that is not shaved again */
    double demand_paid_w;           /* highest window of the billing period before this start */
    double phase_import_w_max;      /* each of three phases */
    double phase_share[PHASES_MAX]; /* of the battery's power on each phase; all 0 = a third each */
    double circuit_import_w_max[CIRCUITS_MAX]; /* sub-meters; 0 = none */
    double circuit_units[CIRCUITS_MAX];        /* bit mask of the storage units behind each sub-meter */
    double range_w_max;             /* dynamic range: most that grid power may span in any range_window_s */
    double range_window_s;          /* 0 = 60 s */
    double damp_share;              /* 0..1 of the oscillation in the band that is taken away; 0 = none */
    double damp_lo_hz, damp_hi_hz;  /* 0 = 0.1 and 2 Hz */
    double follow_grid;             /* 1 = self-consumption: keep the grid at target_grid_w */
    double target_grid_w;
    double follow_soc_min;          /* self-consumption discharges above this only; the rest is for peaks */
    double recentre;                /* 1 = also discharge towards target_soc (for sites that follow a ramp) */
    double blind_discharge_w_max;   /* discharge that may go on without a site meter; 0 = none */
    double soc_min, soc_max;        /* where the gate's own taper ends, for the demand window's look ahead; 0, 0 = 0, 1 */
} control_params_t;

/* Settings that may change at run time, each by an order that ends by itself. */
#define POLICY_TABLE(X)                                                                                       \
    X(peak_w_max) X(demand_w_max) X(recharge_w_max) X(ramp_up_w_per_s) X(ramp_down_w_per_s) X(range_w_max)    \
    X(damp_share) X(reserve_soc) X(follow_soc_min) X(follow_grid) X(target_grid_w) X(target_soc) X(recharge_rate_w)
#define AS_ENUM(field) POLICY_##field,
enum policy { POLICY_TABLE(AS_ENUM) POLICIES };
#undef AS_ENUM
#define AS_NAME(field) #field,
static const char *const POLICY_NAMES[POLICIES] __attribute__((unused)) = {POLICY_TABLE(AS_NAME)};
#undef AS_NAME
static inline double *policy_setting(control_params_t *params, int policy) {
    switch (policy) {
#define AS_CASE(field)                                                                                        \
    case POLICY_##field:                                                                                      \
        return &params->field;
        POLICY_TABLE(AS_CASE)
#undef AS_CASE
    }
    return 0;
}

/* What the units and the site look like in this cycle; made by estimate, read by the policies. */
typedef struct {
    double ess_w;                       /* newest reading at the PCS terminals */
    double envelope_lo_w, envelope_hi_w; /* from the gate's limits: lo <= 0 <= hi */
    double soc;                         /* 0..1 */
    double energy_wh;
    double setpoint_w;                  /* what the gate let go last cycle */
    uint32_t available;                 /* 1 = takes part */
    uint32_t ess_new;                   /* 1 in the cycle in which a new reading arrived */
} unit_view_t;

typedef struct {
    double grid_w;      /* newest believable reading */
    double net_w;       /* grid + ess of the same age */
    double load_w;      /* net + pv, for the record */
    double ess_w;       /* all units, newest */
    double pv_w;
    uint64_t grid_t_ns; /* stamp of grid_w: a new stamp is new information */
    double latency_s;   /* measured age of a grid reading when it arrives */
    double demand_elapsed_s, demand_left_s; /* of the running window */
    double demand_sub_s;   /* a sliding window ends again this much later; windows ending m steps later have used: */
    double demand_used_ws[SUBWINDOWS_MAX];
    double demand_unknown_s[SUBWINDOWS_MAX]; /* and this much of them went unmeasured */
    double demand_paid_w;  /* highest window of the billing period so far */
    double demand_gain;    /* utility's register over our own integral, learned; 1 until then */
    double phase_net_w[PHASES_MAX];
    double circuit_net_w[CIRCUITS_MAX];
    uint32_t grid_ok;   /* 0 = blind */
    uint32_t load_ok;
    uint32_t phases_ok; /* bit each */
    uint32_t circuits_ok; /* bit each */
    uint32_t demand_windows; /* 1 = fixed to the clock; 0 = no demand window yet */
    uint32_t n_units;
    uint32_t grid_new;  /* 1 in the cycle in which a new grid reading arrived */
    uint32_t paired;    /* 1 = the measured age explains what the meter sees of the battery */
    unit_view_t units[UNITS_MAX];
} plant_t;

enum order_flags {
    ORDER_PLAN = 1,
    ORDER_PEAK = 2,
    ORDER_DEMAND = 4,
    ORDER_MANUAL = 8,  /* lease_w is a manual power */
    ORDER_FORCED = 16, /* plan_w is a forced charge or discharge */
    ORDER_TARGET = 32, /* the plan's target of grid power */
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
    double shortfall_w;                 /* expected grid power above a limit that could not be enforced */
    double grid_limit_w;                /* import limit in force */
    uint32_t reason;                    /* enum reason: moved the answer last */
    uint32_t preference;                /* enum reason */
    uint32_t missed;                    /* bit each enum reason: the policy's interval was missed */
    uint32_t missed_short;              /* of these, because the units cannot; else a stronger policy stands */
    uint32_t hunting, pad;              /* damping level; 0 = calm */
} decision_t;

/* Watch for hunting: what battery and grid did between the battery's turns. */
typedef struct {
    double ess_lo_w, ess_hi_w;      /* since the last turn */
    double grid_lo_w, grid_hi_w, grid_lo_before_w, grid_hi_before_w;
    double turn_s, period_s, calm_s; /* since the last turn; of the swing; since the last suspicious turn */
    double swing_w;                 /* of the battery, over the last half swing */
    double slow_w;                  /* the damped request */
    int32_t way, count;
    uint32_t level, started;
} hunting_t;

/* The control's memory. */
typedef struct {
    double last_total_w;  /* request without the trim */
    double trim_w, trim_applied_w;
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
    uint64_t plan_done;   /* number of the plan's row whose state of charge is reached */
    uint32_t range_head, range_count;
    uint32_t started, recharging;
} control_state_t;

/* Readings of one power, oldest first behind head. */
typedef struct {
    uint64_t t_ns[HISTORY_MAX]; /* CLOCK_MONOTONIC, rising */
    double w[HISTORY_MAX];
    uint32_t head, count;       /* head: the newest */
} history_t;

/* Estimation's memory of one storage unit. */
typedef struct {
    history_t history;
    uint64_t seen_t_ns;        /* stamp of the newest reading taken over */
    double setpoint_w, setpoint_old_w; /* sent now, and before */
    uint64_t setpoint_t_ns;    /* when it changed */
    uint32_t envelope_key[40]; /* gate inputs that the envelope below was computed from */
    int32_t envelope_lo_w, envelope_hi_w;
    uint32_t envelope_known, known; /* known: its power is in the sums */
} unit_memory_t;

/* Estimation's memory: battery power for pairing, the meter's latency, the demand window, the integrals. */
typedef struct {
    uint64_t age_due_ns;   /* no point turns stale before */
    uint64_t second;       /* whole seconds of the monotonic clock, for min and max */
    int64_t utc_offset_ns; /* UTC - CLOCK_MONOTONIC, set from outside: where the clock's quarter hours begin */
    unit_memory_t units[UNITS_MAX];
    history_t total;       /* all units, to measure the meter's latency with */
    /* grid reading and its pairing */
    uint64_t grid_seen_t_ns, grid_used_t_ns; /* newest stamp; stamp of the newest reading that said something new */
    double grid_used_w;
    uint64_t moved_t_ns;   /* when battery power last moved */
    uint64_t setpoint_t_ns; /* when any unit's setpoint last changed */
    double lag_score[LAGS], lag_motion[LAGS], lag_last_w[LAGS], lag_grid_w;
    uint64_t pending_t_ns[PENDING_MAX];
    double pending_w[PENDING_MAX];
    uint32_t pending_first, pending_count;
    uint32_t lag_lo, lag_hi; /* ages that the readings allow */
    uint32_t lag_measured, net_known;
    uint32_t quality_key;  /* site qualities of the last cycle */
    uint32_t n_known;
    /* integrals */
    integral_t grid, load, ess, pv;
    uint64_t grid_t_ns, load_t_ns, ess_t_ns, pv_t_ns; /* where each integral stands; 0 = a gap before it */
    double grid_w, load_w, ess_w, pv_w;
    /* demand window: sub-windows, the running one at [demand_window % SUBWINDOWS_MAX] */
    uint64_t demand_window; /* number of the running sub-window of the clock */
    double demand_ws[SUBWINDOWS_MAX], demand_s[SUBWINDOWS_MAX]; /* import, and time measured */
    double demand_peak_w;
    uint64_t demand_t_ns;   /* UTC where the sums stand; 0 = a gap before */
    uint32_t demand_started, register_seen;
    double register_wh, register_ws, register_gain; /* learning the utility's register */
    double import_ws;       /* our own monotone import, for that */
    uint64_t register_t_ns;
    /* sub-meters and phases: the newest reading that said something new, and its stamp */
    double circuit_seen_w[CIRCUITS_MAX], circuit_net_w[CIRCUITS_MAX];
    uint64_t circuit_t_ns[CIRCUITS_MAX];
    double phase_seen_w[PHASES_MAX];
    uint64_t phase_t_ns[PHASES_MAX];
    uint32_t circuits_known, phases_known, lag_stale, lag_best;
    uint32_t look_far;      /* 1 = the battery hunts: look for longer ages than the site expects */
    /* billing period, set from outside */
    uint64_t billing_end_t_ns; /* CLOCK_MONOTONIC at which the ratchet falls to nothing; 0 = never */
    uint64_t billing_number;
    double billing_paid_w;     /* highest window of this period from before this start */
    uint64_t billing_ended;    /* number of the period that has ended here */
} estimate_state_t;

#endif
