/* ext/abi/settings.h: the settings of the control: from the site file into the program, some of them changed by orders.
 *
 * Signs: grid + import, battery + discharge, PV + generation. W, s, Wh, 0..1.
 */
#ifndef TIDEGATE_SETTINGS_H
#define TIDEGATE_SETTINGS_H

#define SETTINGS_LAYOUT_VERSION 4u
#define CIRCUITS_MAX 8
#define PHASES_MAX 3

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

#endif
