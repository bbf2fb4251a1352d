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
#define GAPS 8            /* newest times between two values that differ, of which an interval is learned */
#define SHAPE_ROWS 1024   /* battery power of late, a row each SHAPE_NS: what a meter that averages makes of it */
#define MEANS 11          /* lengths of a moving mean that are tried */
#define SMOOTHS 7         /* time constants of a first-order filter that are tried */
#define SHAPE_AGES 26     /* ages that are tried with each of them: every fourth */
#define METER_MODELS 572 /* of a meter: LAGS ages without an average, then (MEANS + SMOOTHS) * SHAPE_AGES with one */
#define SCALES 2          /* lengths of time over which the models are compared */
#define SAMPLES_MAX 128   /* grid readings kept for that */
#define SUBWINDOWS_MAX 64 /* of a sliding demand window */
#define RESPONSE_BINS 64  /* times after a step at which a converter's response is known */
#define RESPONSE_STEPS 64 /* changes of its setpoint that it may still be answering */
#define RESPONSE_SEEN 32  /* readings of one answer */
#define SLICES 256        /* of the import of late, by the monotonic clock: an hour, and more than a sub-window */
#define SLICE_NS 15000000000ull

/* Import of late in slices of monotonic time: what the windows are made of anew when they move. */
typedef struct {
    uint64_t number[SLICES]; /* of the slice that stands here, + 1; 0 = none */
    double ws[SLICES], s[SLICES], w_max[SLICES]; /* import, time measured, most of it */
} slices_t;

/* After the grid was lost. */
typedef struct {
    uint64_t good_t_ns; /* all has been well since; 0 = it is not */
    uint32_t state;     /* enum reconnect */
    uint32_t started;
    double wait_s, power_w; /* left of the wait; what is let through */
} reconnect_t;

/* While the grid is gone. */
typedef struct {
    uint64_t lost_t_ns, well_t_ns; /* the grid has been gone, has been back since; 0 = it is not */
    uint64_t since_t_ns;           /* when the island began */
    uint64_t loaded_t_ns;          /* stamp of the newest reading of the genset's own meter that was not nothing */
    uint64_t genset_t_ns;          /* when genset_wanted changed; 0 = never */
    uint64_t seen_t_ns;            /* stamp of the newest reading of the genset's own meter that said something new */
    double seen_w, soc;
    double net_w, net_lo_w;        /* what the genset's own meter would show if the batteries rested */
    uint32_t on, net_known;        /* on: 1 = there is an island */
    uint32_t state;                /* enum island_state */
    uint32_t genset_wanted;
} island_t;

/* What the units and the site look like in this cycle; made by estimate, read by the policies. */
typedef struct {
    double ess_w;                       /* newest reading at the PCS terminals */
    double envelope_lo_w, envelope_hi_w; /* from the gate's limits: lo <= 0 <= hi */
    double soc;                         /* 0..1 */
    double energy_wh;
    double setpoint_w;                  /* what the gate let go last cycle */
    uint32_t available;                 /* 1 = takes part */
    uint32_t ess_new;                   /* 1 in the cycle in which a new reading arrived */
    double forced_w;                    /* what its battery asks for itself; 0 = nothing */
    uint32_t closed;                    /* bit each enum band: it gives no preference anything there */
    uint32_t view_pad;
} unit_view_t;

/* Bands of the state of charge, each with a way back: whole percents would switch at every edge. */
enum band { BAND_RESERVE = 1, BAND_FOLLOW = 2, BAND_EMPTY = 4, BAND_FULL = 8 };

typedef struct {
    double grid_w;      /* newest believable reading */
    double net_w;       /* grid + ess of the same age; while that is not known the upper edge, for limits of import */
    double net_lo_w;    /* the lower edge, for limits of export; the same once the age is known, but for its width */
    double load_w;      /* net + pv, for the record */
    double ess_w;       /* all units, newest */
    double pv_w;
    uint64_t grid_t_ns; /* stamp of grid_w: a new stamp is new information */
    double demand_elapsed_s, demand_left_s; /* of the running window */
    double demand_sub_s;   /* a sliding window ends again this much later; windows ending m steps later have used: */
    double demand_used_ws[SUBWINDOWS_MAX];
    double demand_unknown_s[SUBWINDOWS_MAX]; /* and this much of them went unmeasured */
    double demand_paid_w;  /* highest window of the billing period so far */
    double demand_gain;    /* utility's register over our own integral, learned; 1 until then */
    double phase_net_w[PHASES_MAX];
    double circuit_net_w[CIRCUITS_MAX];
    double reconnect_w;    /* after the grid came back: battery power at most, both ways; INFINITY = no bound */
    double unproven_w;     /* armed without knowing the meter's sign: charging at most, and so much of discharging at least; INFINITY = no bound */
    uint32_t grid_ok;   /* 0 = blind */
    uint32_t load_ok;
    uint32_t phases_ok; /* bit each */
    uint32_t circuits_ok; /* bit each */
    uint32_t demand_windows; /* 1 = fixed to the clock; 0 = no demand window yet */
    uint32_t n_units;
    uint32_t grid_new;  /* 1 in the cycle in which a new grid reading arrived */
    uint32_t paired;    /* 1 = the measured age explains what the meter sees of the battery */
    uint32_t island;    /* enum island_state; what net_w is about while it is ISLAND_GENSET is the genset's power */
    uint32_t island_pad;
    unit_view_t units[UNITS_MAX];
} plant_t;

/* Readings of one power, oldest first behind head. */
typedef struct {
    uint64_t t_ns[HISTORY_MAX]; /* CLOCK_MONOTONIC, rising */
    double w[HISTORY_MAX];
    uint32_t head, count;       /* head: the newest */
} history_t;

/* What a converter's setpoints have come to by now, by its answers to steps that were seen (response.pyx). */
typedef struct {
    double reached[RESPONSE_BINS]; /* share of a step that was seen to be done by then: no answer is slower, ... */
    double waiting[RESPONSE_BINS]; /* ... and the least that was seen then or later: none is quicker. Where they cross, answers differ */
    uint64_t step_t_ns[RESPONSE_STEPS], step_end_ns[RESPONSE_STEPS]; /* steps that follow closely stand as one */
    double step_w[RESPONSE_STEPS];
    double setpoint_w, nameplate_w;
    double off_w;                  /* of the newest reading from what was expected of it */
    double slack_w, interval_s;
    double largest_w;              /* step that an answer was learnt of */
    uint64_t begun_ns;             /* the step whose answer is being seen; 0 = none */
    uint64_t checked_ns;           /* stamp of the newest reading that was held against it */
    uint64_t arrived_ns;           /* its readings have been what the newest step was to come to since then; 0 = they are not */
    uint64_t done_ns;              /* so long after a step every answer is over; 0 = not known */
    double rest_w;
    double seen_s[RESPONSE_SEEN], seen_w[RESPONSE_SEEN];
    uint32_t seen;
    uint32_t head, count;          /* of the steps; head: the newest */
    uint32_t answers, good;        /* answers learned of; readings in a row that were as expected */
    uint32_t trusted;
    uint32_t often;                /* 1 = it is read more often than it measures: then it is known when that was */
    uint32_t close;                /* 1 = what is left open of it is less than what the converter's own readings leave */
} response_t;

/* Estimation's memory of one storage unit. */
typedef struct {
    history_t history;
    uint64_t seen_t_ns;        /* stamp of the newest reading taken over */
    double setpoint_w, setpoint_old_w; /* sent now, and before */
    uint64_t setpoint_t_ns;    /* when it changed */
    uint32_t envelope_key[40]; /* gate inputs that the envelope below was computed from */
    int32_t envelope_lo_w, envelope_hi_w;
    uint32_t envelope_known, known; /* known: its power is in the sums */
    double told_lo_w, told_hi_w; /* all setpoints that it may have begun to answer since its newest reading */
    double told_lag_s, told_settle_s; /* and how fast, and by when it stands; 0 = its times are not known */
    double told_gain[2], told_offset_w[2]; /* what it makes of a setpoint: discharge, charge */
    double told_look_s; /* a converter on its way has moved in so long; 0 = it may not have begun */
    uint32_t told_now, told_pad; /* 1 = it may already have begun to answer the newest */
    response_t response;
} unit_memory_t;

/* How often a device shows something new: learned from the times between two values that differ. */
typedef struct {
    double gap_s[GAPS];  /* the newest, a ring */
    double interval_s;   /* 0 = unknown */
    uint32_t head, seen; /* gaps so far; the first is from where we came in and counts for nothing */
    uint32_t alike; /* 1 = those that the interval is learned of are as long as each other */
    uint32_t even;  /* 1 = most of the newest are of those */
} interval_t;

/* What the meter shows at once of what the battery does from reading to reading (moments.pyx). */
typedef struct {
    double battery_w2;        /* mean square of the battery's moves */
    double with_w, without_w; /* medians of what the meter leaves of a move where it shows it, and where it does not */
    double moves;       /* in the two sums: of the share that is shown beyond a half, and of its square */
    double off, off2;
    double dt_s;        /* mean time from reading to reading */
    uint32_t best, pad; /* the age that they are paired at */
} moments_t;

/* The ages that a grid reading may have, each tried against what the meter saw of the battery's moves (lag.pyx). */
typedef struct {
    double last_w[LAGS];        /* battery power of that age at the last reading that counted */
    double slope_w_per_s[LAGS]; /* of grid + battery of that age, of late */
    double unexplained[LAGS];   /* what that age leaves, against the mean of all; summed, old readings forgotten */
    double variance[LAGS];      /* of that sum */
    double grid_w;              /* the last reading that counted */
    uint64_t t_ns;              /* its stamp; 0 = none */
    uint64_t first_t_ns;        /* stamp of the first reading that a move of the battery may have shown in; 0 = none */
    double filled;              /* so many of the readings in the sums were held against a power that was known between its readings */
    double filled_unexplained[LAGS], filled_variance[LAGS]; /* the sums of those alone */
    double moves, motion_w2;    /* readings in the sums, and the squared moves of the battery in them */
    double share;               /* median of what the best age leaves, of the battery's move */
    interval_t interval;        /* the meter shows something new so often */
    double poll_s;              /* its stamps advance by this */
    interval_t ess_interval;    /* the converters show a new power so often while they move, ... */
    double ess_poll_s;          /* ... and are read so often */
    double resolution_w;        /* least change that it has shown; 0 = unknown */
    double answer_gain[LAGS], answer_variance[LAGS], answer_readings; /* as in model_trials_t */
    double unmoved_slope_w_per_s; /* of grid alone */
    uint32_t best, known;       /* known: all other ages are out of the question */
    uint32_t used, sloped;      /* used: the best is taken for true, though others are possible */
    uint32_t first, first_lo;   /* ages measured before this start, the oldest + 1, and yet to be confirmed; 0 = none */
    double open_s;              /* so far apart are the ages that are not out of the question */
    uint32_t age_lo, age_hi;    /* between which a reading's age is believed; lag_lo, lag_hi are as much wider as it is paired */
    uint32_t likely_lo, likely_hi; /* between which all ages are that explain as much as the best one */
    double met_lo_s, met_hi_s; /* of a slow meter: between which its values met the battery's steps (coincidence.pyx) */
    uint32_t met;             /* 1 = they have */
    uint32_t by_filled; /* 1 = the sums have begun with those alone */
    moments_t moments;
} lag_trials_t;

/* Battery power in even rows, its integral, and what first-order filters make of it (shape.pyx). */
typedef struct {
    uint64_t t_ns;                       /* of the newest row, a multiple of SHAPE_NS; 0 = none */
    uint64_t last_t_ns;                  /* newest reading */
    double last_w;
    uint32_t head, count;
    double w[SHAPE_ROWS], integral_ws[SHAPE_ROWS], smooth_w[SMOOTHS][SHAPE_ROWS];
} shapes_t;

/* Whether the grid meter shows what the battery does. UNPROVEN: armed without knowing, and still looked for. */
enum grid_answer { ANSWER_OPEN, ANSWER_SEEN, ANSWER_NONE, ANSWER_UNPROVEN };

/* What each model leaves with a meter's own sign, and with that of a turned one, summed since the arming (meter_sign.pyx). */
typedef struct {
    double honest_left[METER_MODELS], turned_left[METER_MODELS];
    double moves;     /* of the battery, in the sums */
    double noise_w[SCALES]; /* median of what the best turned model leaves */
    double earned;    /* 0..1: so much of the sign is known while the site runs unproven; 1 = it is known */
    uint32_t turned_best, best_pad;
    uint32_t on, pad; /* on: from an arming on */
} sign_trials_t;

/* Models of the meter, averages among them, each tried over longer times than the ages alone (model.pyx). */
typedef struct {
    uint64_t t_ns[SAMPLES_MAX]; /* grid readings, a ring */
    double w[SAMPLES_MAX];
    uint32_t head, count;
    double unexplained[METER_MODELS], variance[METER_MODELS]; /* as in lag_trials_t */
    double since[METER_MODELS]; /* how much more each has explained than what is believed, since when that was most */
    double since_most;
    double hurry[SCALES]; /* 0..1: so new is what is looked for of the load's own moves */
    uint32_t asked, asked_pad; /* 1 = by steps that follow no reading */
    double noise_w[SCALES];     /* median of what the best model leaves over that time */
    double slope_w_per_s[SCALES]; /* and its mean: a lasting slope of the load */
    double motion_w2[SCALES], moves[SCALES];
    uint64_t done_ns[SCALES];   /* up to where the readings were compared */
    uint32_t best, mean_best, delay_best; /* of all, of those that average, of those that do not */
    uint32_t averages;          /* 1 = mean_best is taken for true */
    uint32_t known;             /* 1 = and all others are out of the question */
    double open_s;              /* so far apart in age are those that are not */
    uint32_t lo, hi;            /* as old as the possible ones are: models */
    uint32_t near[8], nears;    /* neighbours of mean_best: what a reading may be as well */
    /* Beside them that the meter shows nothing of the battery: what each explains more than that, since the arming. */
    double answer_gain[METER_MODELS], answer_variance[METER_MODELS], answer_readings;
    double answer_by;           /* standard deviations by which the best of them does; negative: none does */
    double unmoved_noise_w[SCALES];
    uint64_t answer_t_ns;       /* the battery has moved for that since; 0 = it has yet to */
    uint64_t unshown_t_ns;      /* it moved then, first since the meter last showed another value; 0 = it has not */
    uint32_t answer, answer_pad; /* enum grid_answer */
    sign_trials_t signs;
} model_trials_t;

/* Estimation's memory: battery power for pairing, the meter's latency, the demand window, the integrals. */
typedef struct {
    uint64_t age_due_ns;   /* no point turns stale before */
    uint64_t second;       /* whole seconds of the monotonic clock, for min and max */
    int64_t utc_offset_ns; /* clock of the demand windows - CLOCK_MONOTONIC: where they begin; whole windows are left out */
    unit_memory_t units[UNITS_MAX];
    history_t total;       /* all units, to measure the meter's latency with */
    /* grid reading and its pairing */
    uint64_t grid_seen_t_ns, grid_used_t_ns; /* newest stamp; stamp of the newest reading that said something new */
    double grid_ess_lo_w, grid_ess_hi_w; /* what the battery did when that value was measured */
    uint64_t grid_changed_t_ns; /* stamp of the newest reading that differed from the one before */
    uint64_t same_t_ns;      /* when a value stood last though the battery's move should have shown; 0 = never */
    double grid_used_w;
    uint64_t moved_t_ns;   /* when battery power last moved */
    uint64_t setpoint_t_ns; /* when any unit's setpoint last changed */
    lag_trials_t lags;
    shapes_t shapes;
    model_trials_t models;
    double age_s, age_lo_s, age_hi_s; /* of a grid reading: the best, and what is believed possible */
    double likely_lo_s, likely_hi_s;  /* and as likely as the likeliest: what is shown */
    uint32_t age_known;  /* 1 = no other is possible */
    uint32_t age_pad;
    uint64_t pending_t_ns[PENDING_MAX];
    double pending_w[PENDING_MAX];
    uint32_t pending_first, pending_count;
    uint32_t lag_lo, lag_hi; /* ages that the readings allow */
    uint32_t ess_filled;     /* 1 = between the converters' readings their power is known by their step responses */
    uint32_t net_known;
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
    /* the clock of the windows: utc_offset_ns above moves with it */
    slices_t slices;
    int64_t clock_offset_ns;   /* as it is set from outside */
    uint64_t demand_uncertain;     /* windows up to this number are partly guessed and pay for nothing */
    uint64_t pulse_t_ns;       /* the utility's newest pulse; 0 = none, or they stay away */
    uint64_t pulse_read_t_ns;  /* stamp of the newest reading of its point */
    double pulse_value;
    uint32_t clock_changes, clock_change; /* times that the windows moved; enum clock_change: the last one */
    double clock_moved_s;      /* by so much */
    reconnect_t reconnect;
    island_t island;
} estimate_state_t;

#endif
