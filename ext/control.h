/* ext/control.h: what the corridor reads each cycle, its settings, its memory, its answer.
 *
 * Signs: grid + import, battery + discharge, PV + generation. W, s, Wh, 0..1.
 */
#ifndef TIDEGATE_CONTROL_H
#define TIDEGATE_CONTROL_H

#include "image.h"

#define CONTROL_LAYOUT_VERSION 1u
#define HISTORY_MAX 4096 /* readings of battery power kept for same-age pairing */

/* Settings from the site file; a limit of INFINITY is "none". */
typedef struct {
    double connection_import_w_max; /* fuse or contract; never to be crossed */
    double connection_export_w_max;
    double peak_w_max;              /* peak shaving target for grid import */
    double recharge_w_max;          /* charging may not lift grid import above this */
    double ramp_up_w_per_s, ramp_down_w_per_s; /* grid ramp limits */
    double target_soc;              /* where recentring and recharging go */
    double recharge_rate_w;         /* most that recharging takes */
    double reserve_soc;             /* backup reserve: no discharge below for policies weaker than it */
    double trim_per_s;              /* integral trim of the PCS's steady error, 1/s */
    double meter_latency_s;         /* first guess of reading age before it is measured */
    double deadband_w;              /* the meter's resolution: no dithering inside */
    double pcs_tau_s;               /* first guess of the PCS's lag */
} control_params_t;

/* What the units and the site look like in this cycle; made by estimate, read by the policies. */
typedef struct {
    double ess_w;                       /* newest reading at the PCS terminals */
    double envelope_lo_w, envelope_hi_w; /* from the gate's limits: lo <= 0 <= hi */
    double soc;                         /* 0..1 */
    double energy_wh;
    double setpoint_w;                  /* what the gate let go last cycle */
    uint32_t available;                 /* 1 = takes part */
    uint32_t pad;
} unit_view_t;

typedef struct {
    double grid_w;      /* newest believable reading */
    double load_w;      /* grid + ess + pv of the same age */
    double ess_w;       /* all units, newest */
    double pv_w;
    uint64_t grid_t_ns; /* stamp of grid_w: a new stamp is new information */
    double demand_w, demand_elapsed_s, demand_left_s;
    uint32_t grid_ok;   /* 0 = blind */
    uint32_t load_ok;
    uint32_t n_units;
    uint32_t grid_new;  /* 1 in the cycle in which a new grid reading arrived */
    unit_view_t units[UNITS_MAX];
} plant_t;

/* What the outside asks for, already checked for lease and expiry. */
typedef struct {
    double lease_w;      /* site setpoint */
    double import_w_max; /* run-time limit, INFINITY = none */
    double export_w_max;
    uint32_t lease_held;
    uint32_t stop;       /* 1 = ramp to zero and stay */
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
} decision_t;

/* The control's memory. */
typedef struct {
    double last_total_w;
    double trim_w;
    double ramp_anchor_w; /* grid power that the ramp limit stands at */
    double last_load_w;
    uint64_t last_grid_t_ns;
    uint32_t started;
    uint32_t pad;
    double spare[16];
} control_state_t;

/* Estimation's memory: a short history of battery power, the demand window, the integrals. */
typedef struct {
    uint64_t history_t_ns[HISTORY_MAX]; /* CLOCK_MONOTONIC of each ess_w, rising */
    double history_w[HISTORY_MAX];
    uint32_t history_head, history_count;
    uint64_t last_grid_t_ns;
    uint64_t second; /* whole seconds of the monotonic clock, for min and max */
    integral_t grid, load, ess, pv;
    double demand_ws, demand_s, demand_peak_w;
    uint64_t demand_window; /* number of the running window */
    double spare[32];
} estimate_state_t;

#endif
