/* ext/estimate/estimate.h: the picture of the plant that the estimate makes each cycle, and its memory.
 *
 * Signs: grid + import, battery + discharge, PV + generation. W, s, Wh, 0..1.
 * `net_w` is what the grid would carry if the batteries rested: grid + ess of the same age, PV left inside. It is all
 * that the limits need, so a missing PV meter costs the report of the load and no control.
 */
#ifndef TIDEGATE_ESTIMATE_H
#define TIDEGATE_ESTIMATE_H

#include "abi/image.h"
#include "abi/settings.h"

#define HISTORY_MAX 1024  /* readings of one unit's power kept for same-age pairing; a power of two */
#define LAGS 104          /* reading ages that are tried when the meter's latency is measured */
#define PENDING_MAX 64    /* grid readings that wait for the battery readings around them */
#define SUBWINDOWS_MAX 64 /* of a sliding demand window */

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

/* The ages that a grid reading may have, each tried against what the meter saw of the battery's moves (lag.pyx). */
typedef struct {
    double last_w[LAGS];        /* battery power of that age at the last reading that counted */
    double slope_w_per_s[LAGS]; /* of grid + battery of that age, of late */
    double unexplained[LAGS];   /* what that age leaves, against the mean of all; summed, old readings forgotten */
    double variance[LAGS];      /* of that sum */
    double grid_w;              /* the last reading that counted */
    uint64_t t_ns;              /* its stamp; 0 = none */
    double moves, motion_w2;    /* readings in the sums, and the squared moves of the battery in them */
    double share;               /* median of what the best age leaves, of the battery's move */
    double interval_s;          /* the meter shows something new so often; 0 = unknown */
    double poll_s;              /* its stamps advance by this */
    double ess_interval_s;      /* the converters show a new power so often while they move; 0 = unknown */
    double resolution_w;        /* least change that it has shown; 0 = unknown */
    uint32_t best, known;       /* known: all other ages are out of the question */
    uint32_t used, sloped;      /* used: the best is taken for true, though others are possible */
} lag_trials_t;

/* Estimation's memory: battery power for pairing, the meter's latency, the demand window, the integrals. */
typedef struct {
    uint64_t age_due_ns;   /* no point turns stale before */
    uint64_t second;       /* whole seconds of the monotonic clock, for min and max */
    int64_t utc_offset_ns; /* UTC - CLOCK_MONOTONIC, set from outside: where the clock's quarter hours begin */
    unit_memory_t units[UNITS_MAX];
    history_t total;       /* all units, to measure the meter's latency with */
    /* grid reading and its pairing */
    uint64_t grid_seen_t_ns, grid_used_t_ns; /* newest stamp; stamp of the newest reading that said something new */
    uint64_t grid_changed_t_ns; /* stamp of the newest reading that differed from the one before */
    double grid_used_w;
    uint64_t moved_t_ns;   /* when battery power last moved */
    uint64_t setpoint_t_ns; /* when any unit's setpoint last changed */
    lag_trials_t lags;
    uint64_t pending_t_ns[PENDING_MAX];
    double pending_w[PENDING_MAX];
    uint32_t pending_first, pending_count;
    uint32_t lag_lo, lag_hi; /* ages that the readings allow */
    uint32_t lag_pad, net_known;
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
    uint32_t circuits_known, phases_known;
    uint32_t lag_search_wide; /* 1 = the battery hunts: look for longer ages than the site expects */
    /* billing period, set from outside */
    uint64_t billing_end_t_ns; /* CLOCK_MONOTONIC at which the ratchet falls to nothing; 0 = never */
    uint64_t billing_number;
    double billing_paid_w;     /* highest window of this period from before this start */
    uint64_t billing_ended;    /* number of the period that has ended here */
} estimate_state_t;

#endif
