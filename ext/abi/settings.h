/* ext/abi/settings.h: the settings of the control: from the site file into the program, some of them changed by orders.
 *
 * Signs: grid + import, battery + discharge, PV + generation. W, s, Wh, 0..1.
 */
#ifndef TIDEGATE_SETTINGS_H
#define TIDEGATE_SETTINGS_H

#include "abi/image.h"

#define SETTINGS_LAYOUT_VERSION 9u
#define CIRCUITS_MAX 8
#define PHASES_MAX 3

/* Settings that may also change at run time, each by an order that ends by itself. One row a policy; from it follow the
 * field of the struct, the order of the mailbox, the key of the site file with its range, name, bounds and tighter side
 * in the API and its table in docs/policies.md. The order of the rows is that of the orders: append.
 *
 * field, unit ("1": a share of 0..1), tighter side, what stands for "off" in an order, range, its end, what it does.
 */
#define POLICY_OFF 1.0e12 /* a limit that is switched off; in the site file's own settings INFINITY, or 0 where 0 is none */
enum policy_tighter { TIGHTER_NEITHER = 0, TIGHTER_DOWN = -1, TIGHTER_UP = 1 };
enum policy_range { FROM_ZERO, ABOVE_ZERO /* 0 is none */, SIGNED, SWITCH };
#define POLICY_TABLE(X)                                                                                       \
    X(peak_w_max, "W", TIGHTER_DOWN, POLICY_OFF, FROM_ZERO, 1e8, "peak shaving: grid import stays below")     \
    X(demand_w_max, "W", TIGHTER_DOWN, POLICY_OFF, ABOVE_ZERO, 1e8, "mean import over one demand window")     \
    X(recharge_w_max, "W", TIGHTER_DOWN, POLICY_OFF, FROM_ZERO, 1e8,                                          \
      "charging may not lift grid import above this; none = peak_w_max")                                      \
    X(ramp_up_w_per_s, "W/s", TIGHTER_DOWN, POLICY_OFF, ABOVE_ZERO, 1e9, "grid import rises no faster")       \
    X(ramp_down_w_per_s, "W/s", TIGHTER_DOWN, POLICY_OFF, ABOVE_ZERO, 1e9, "grid import falls no faster")     \
    X(range_w_max, "W", TIGHTER_DOWN, POLICY_OFF, ABOVE_ZERO, 1e8,                                            \
      "grid power spans no more than this in any range_window_s")                                             \
    X(damp_share, "1", TIGHTER_UP, 0, FROM_ZERO, 1, "share of a swing between damp_lo_hz and damp_hi_hz that is taken away") \
    X(reserve_soc, "1", TIGHTER_UP, 0, FROM_ZERO, 1, "backup reserve: only the connection's limits discharge below it") \
    X(follow_soc_min, "1", TIGHTER_UP, 0, FROM_ZERO, 1, "no preference discharges below it; the rest is kept for the limits") \
    X(follow_grid, "1", TIGHTER_NEITHER, 0, SWITCH, 1, "self-consumption: keep the grid at target_grid_w")    \
    X(target_grid_w, "W", TIGHTER_NEITHER, 0, SIGNED, 1e8, "grid power that self-consumption keeps")          \
    X(target_soc, "1", TIGHTER_NEITHER, 0, FROM_ZERO, 1, "state of charge that recharging and recentring lead to") \
    X(recharge_rate_w, "W", TIGHTER_DOWN, 0, FROM_ZERO, 1e8, "most that recharging takes; none = what the storage can, 0 = never by itself") \
    X(import_w_min, "W", TIGHTER_UP, 0, FROM_ZERO, 1e8, "discharge leaves this much grid import, for a relay that opens at export") \
    X(force_soc, "1", TIGHTER_UP, 0, FROM_ZERO, 1, "below it the storage is charged whoever wishes otherwise; up to 2 % above") \
    X(restore_w, "W", TIGHTER_DOWN, 0, FROM_ZERO, 1e8, \
      "most that restoring reserve_soc takes from the grid; 0 = only what is exported otherwise")

/* Settings from the site file. A limit of INFINITY is "none"; below the line 0 is "none" or "default". */
#define AS_FIELD(field, unit, tighter, off, range, hi, text) double field;
typedef struct {
    POLICY_TABLE(AS_FIELD)
    /* ---- and what stands as long as the site file does */
    double connection_import_w_max; /* fuse or contract; never to be crossed */
    double connection_export_w_max;
    double trim_per_s;              /* integral trim of the PCS's steady error, 1/s */
    double deadband_w;              /* the meter's resolution: no dithering inside */
    double pcs_tau_s;               /* first guess of the PCS's lag */
    /* ---- 0 = none or default */
    double meter_latency_s_max;     /* longest reading age that is looked for; 0 = 4 s */
    double demand_window_s;         /* 300, 900, 1800, 3600; 0 = 900 */
    double demand_step_s;           /* a sliding window moves by this; 0 = fixed to the clock */
    double demand_margin_w;         /* aim below the limit by this, on top of what the register taught */
    double demand_ratchet;          /* share of the highest window already paid for that is not shaved again */
    double demand_paid_w;           /* highest window of the billing period before this start */
    double phase_import_w_max;      /* each of three phases */
    double phase_share[PHASES_MAX]; /* of the battery's power on each phase; all 0 = a third each */
    double circuit_import_w_max[CIRCUITS_MAX]; /* sub-meters; 0 = none */
    double circuit_units[CIRCUITS_MAX];        /* bit mask of the storage units behind each sub-meter */
    double range_window_s;          /* 0 = 60 s */
    double damp_lo_hz, damp_hi_hz;  /* 0 = 0.1 and 2 Hz */
    double recentre;                /* 1 = also discharge towards target_soc (for sites that follow a ramp) */
    double blind_discharge_w_max;   /* discharge that may go on without a site meter; 0 = none */
    double reconnect_wait_s;        /* after the grid comes back: power stays 0 for so long ... */
    double reconnect_w_per_s;       /* ... and then rises from 0 by this; both 0 = no care is taken */
    double reconnect_hz_min, reconnect_hz_max; /* outside: the grid is lost */
    double reconnect_v_min, reconnect_v_max;   /* of any phase */
    double island;                  /* 1 = the site goes on without the grid; 0 = what follows means nothing */
    double island_forming;          /* 1 = the converters carry it by themselves: nothing is asked of them */
    double island_loss_s, island_return_s; /* the grid is gone, is back, for so long */
    double island_v_min;            /* a phase of the grid meter below this is dead */
    double genset_w_min, genset_w_max; /* what the genset gives in an island stays between */
    double genset_charge_w;         /* what it gives while the battery is charged from it */
    double genset_hz_min, genset_hz_max;
    double genset_start_soc, genset_stop_soc; /* asked for below, charged up to */
    double genset_run_s_min, genset_off_s_min; /* once asked for, once not asked for */
    double genset_start_s;          /* it gives power by then, or is missing */
    double soc_min, soc_max;        /* where the gate's own taper ends, for the demand window's look ahead; 0, 0 = 0, 1 */
    /* ---- what was measured before this start: beliefs, each checked by what is seen; 0 = nothing is known */
    double first_age_lo_s, first_age_hi_s; /* of a grid reading; lo = hi: nothing is known */
    double first_interval_s;               /* the grid meter shows something new so often */
    double first_dead_s[UNITS_MAX], first_lag_s[UNITS_MAX]; /* of each unit's converter */
    double first_gain[UNITS_MAX];          /* what it gives of what it is told */
} control_params_t;

#undef AS_FIELD

#define AS_ENUM(field, unit, tighter, off, range, hi, text) POLICY_##field,
enum policy { POLICY_TABLE(AS_ENUM) POLICIES };
#undef AS_ENUM
typedef struct {
    const char *field, *unit;
    int tighter; /* enum policy_tighter */
    double off;
    int range; /* enum policy_range */
    double hi;
    const char *text;
} policy_row_t;
#define AS_ROW(field, unit, tighter, off, range, hi, text) {#field, unit, tighter, off, range, hi, text},
static const policy_row_t POLICY_ROWS[POLICIES] __attribute__((unused)) = {POLICY_TABLE(AS_ROW)};
#undef AS_ROW
static inline double *policy_setting(control_params_t *params, int policy) {
    switch (policy) {
#define AS_CASE(field, unit, tighter, off, range, hi, text)                                                   \
    case POLICY_##field:                                                                                      \
        return &params->field;
        POLICY_TABLE(AS_CASE)
#undef AS_CASE
    }
    return 0;
}

#endif
