/* ext/abi/shared.h: the memory that the core shares with the gateway: image, rings, mailbox, statistics.
 *
 * One writer each: the core writes all but the mailbox, which is the gateway's, and `guard`, which is the
 * supervisor's. No locks. A reader that loses a race sees an odd or changed sequence and tries again; the writer
 * never waits.
 */
#ifndef TIDEGATE_SHARED_H
#define TIDEGATE_SHARED_H

#include <string.h>

#include "abi/settings.h"
#include "abi/image.h"
#include "safety/safety.h"

#define SHARED_MAGIC 0x31534454u /* "TDS1" */
#define SHARED_LAYOUT_VERSION 6u

#define SNAPSHOT_SLOTS 64u /* powers of two */
#define METER_SLOTS 256u
#define EVENT_SLOTS 1024u
#define MAILBOX_SLOTS 64
#define HISTOGRAM_BUCKETS 1024
#define BUSES_SIZE 262144u /* bytes of JSON about buses and ports */

/* Log-linear histogram: 32 sub-buckets an octave (3 %), ns. */
typedef struct {
    uint64_t count, sum, min, max;
    uint32_t buckets[HISTOGRAM_BUCKETS];
} histogram_t;

enum phase { PHASE_READ, PHASE_ESTIMATE, PHASE_CONTROL, PHASE_LIMIT, PHASE_WRITE, PHASE_PUBLISH, PHASES };

/* What cycles that came late lead to. */
enum escalation { ESCALATION_NONE, ESCALATION_DERATE, ESCALATION_SAFE, ESCALATION_SILENT, ESCALATIONS };

/* Statistics of the loop. */
typedef struct {
    histogram_t lateness, work, phase[PHASES];
    uint64_t cycles, missed, skipped, overruns, longest_miss;
    uint64_t minor_faults, major_faults, involuntary_switches;
    uint32_t fifo, locked; /* what the loop really got */
    int32_t leaky_bucket;
    uint32_t escalation; /* enum escalation */
} loop_stats_t;

/* One picture of the image. The meter ring holds one a second. */
typedef struct {
    uint64_t seq;   /* number of this picture + 1 when whole, 0 while being written */
    uint64_t cycle, t_ns;
    point_t points[POINTS_MAX];
} snapshot_t;

enum event_kind { EVENT_START = 1, EVENT_MODE, EVENT_REASON, EVENT_FAULT_ON, EVENT_FAULT_OFF, EVENT_COMMAND, EVENT_OVERRUN,
                  EVENT_BUS, EVENT_STOP, EVENT_SHORTFALL, EVENT_LATCH,
                  EVENT_SOURCE,     /* code: enum reason of who chooses now, previous: before */
                  EVENT_PLAN,       /* unit: enum plan_source, code: number of the row in force, 0 none, previous: before */
                  EVENT_UNENFORCED, /* code: enum reason of the limit, previous: enum unenforced */
                  EVENT_HUNTING,    /* code: damping level, previous: before, value: swing in W, limit: period in s */
                  EVENT_BILLING,    /* the period ended: value: its highest window in W */
                  EVENT_CLOCK,      /* code: enum clock_change, value: the windows moved by so many s */
                  EVENT_RECONNECT,  /* code: enum reconnect, value: W that are let through */
                  EVENT_METER,      /* code: 1 = the grid meter's readings have another age, value: s, limit: before */
                  EVENT_ISLAND,     /* code: enum island_state, value: W of the genset */
                  EVENT_GENSET };   /* code: 1 = it is asked for, value: state of charge */

/* What moved the demand windows. */
enum clock_change { CLOCK_NONE = 0, CLOCK_MOVED /* the wall clock was set, or its zone changed */,
                    CLOCK_SYNCED /* the utility's pulse */, CLOCK_FREE /* its pulses stay away: by the wall clock again */ };

/* What the site does about a loss of the grid. */
enum reconnect { RECONNECT_NONE = 0, RECONNECT_LOST, RECONNECT_WAITING, RECONNECT_RISING };

/* Why a configured limit is not being enforced. */
enum unenforced {
    ENFORCED = 0,
    UNENFORCED_STOPPED,    /* under stop */
    UNENFORCED_BLIND,      /* no believable grid meter */
    UNENFORCED_NO_UNIT,    /* no storage unit takes part */
    UNENFORCED_NO_READING, /* the limit's own meter gives nothing */
    UNENFORCED_WIDENED,    /* at run time, beyond the site file */
    UNENFORCED_SHORT,      /* the units cannot give or take enough */
    UNENFORCED_OVERRULED,  /* a stronger policy stands */
    UNENFORCED_EXCEEDED,   /* the meter shows more, whatever was ordered */
};

/* event_t.code of EVENT_BUS; the first five are enum can_state of can.pxd. value: number of the bus, port or device;
 * limit: changes since the last word about it. */
enum bus_state { BUS_ACTIVE, BUS_WARNING, BUS_PASSIVE, BUS_OFF, BUS_DOWN, PORT_UP, PORT_LOST, SLAVE_BACK, SLAVE_SILENT,
                SLAVE_IDENTITY_MISMATCH };

typedef struct {
    uint64_t seq; /* as in snapshot_t */
    uint64_t cycle, t_ns;
    uint32_t kind; /* enum event_kind */
    int32_t unit;  /* -1 = site */
    int32_t code;  /* fault row, mode, reason, port ... */
    int32_t previous;
    double value, limit;
    double lasted_s;  /* since the state that this is about began to change */
    uint32_t changes; /* of it since the event before, this one included */
    uint32_t pad;
} event_t;
_Static_assert(sizeof(event_t) == 72, "event_t crosses process borders; bump SHARED_LAYOUT_VERSION");

/* Orders to the core. The newest counts; each ends by itself. */
enum order_kind {
    ORDER_MODE = 0,      /* value: enum order_mode */
    ORDER_SETPOINT_W,    /* site setpoint under a lease */
    ORDER_IMPORT_W_MAX,  /* run-time limit of grid import, never wider than the site file's */
    ORDER_EXPORT_W_MAX,
    ORDER_ACK,           /* acknowledge latches whose cause is gone (an edge: each new seq once) */
    ORDER_ARM,           /* leave the tripped state (an edge) */
    ORDER_MANUAL_W,      /* battery power of a person on site; the gate and the connection limits hold, policies rest */
    ORDER_STOP,          /* a stop that came not by the API but by a signal: nothing lifts it but a person on site */
    ORDER_OPERATOR_IMPORT_W_MAX, /* the grid operator's limits: rank above every order, lease and plan, never wider */
    ORDER_OPERATOR_EXPORT_W_MAX,
    ORDER_OPERATOR_STOP, /* ... and its stop: no battery power */
    ORDER_WINDOW,        /* an edge; value: CLOCK_MONOTONIC in s at which the utility's demand window began */
    ORDER_POLICY = 16,   /* + enum policy: a setting of the site file at run time */
    ORDERS = ORDER_POLICY + POLICIES,
};
enum order_mode { ORDER_MODE_RUN = 1, ORDER_MODE_STOP = 2 };
_Static_assert(ORDERS <= MAILBOX_SLOTS, "mailbox too small");

typedef struct {
    uint64_t seq;          /* odd while the gateway writes */
    uint64_t expires_t_ns; /* CLOCK_MONOTONIC; 0 = no order */
    double value;
    uint64_t request;      /* the gateway's number, for the trail */
} order_t;

/* The plan: what the calendar and clients scheduled, as spans of monotonic time, made outside the loop. The loop only
 * compares times, so each span ends by itself, whatever becomes of who wrote it. NaN: not given. */
#define PLAN_ROWS 64
enum plan_source { PLAN_NONE = 0, PLAN_CALENDAR, PLAN_CLIENT, PLAN_SOURCES };
enum plan_flags { PLAN_FORCED = 1 };

typedef struct {
    uint64_t start_t_ns, end_t_ns; /* in force while start <= t < end */
    double setpoint_w;             /* battery power of the site */
    double until_soc;              /* the setpoint ends there */
    double target_grid_w;          /* self-consumption: the grid power to keep */
    double charge_w_max, discharge_w_max; /* battery power at most, each way; 0 = none in this direction */
    double import_w_max, export_w_max, peak_w_max, demand_w_max; /* tighter than the site file's or without effect */
    uint32_t source, flags;        /* enum plan_source, enum plan_flags */
    uint64_t number;               /* of this span, not 0 */
} plan_row_t;
_Static_assert(sizeof(plan_row_t) == 104, "plan_row_t crosses process borders; bump SHARED_LAYOUT_VERSION");

typedef struct {
    uint64_t seq;              /* odd while the gateway writes */
    uint64_t billing_end_t_ns; /* the demand ratchet falls to nothing here; 0 = never */
    uint64_t billing_number;   /* of the running period, not 0 */
    double paid_w;             /* its highest demand window, from before this start of the core */
    int64_t clock_offset_ns;      /* the site's wall clock - CLOCK_MONOTONIC; 0 = not given: utc_offset_ns */
    uint64_t clock_next_t_ns;     /* the zone's clocks change here, 0 = not in this plan's reach ... */
    int64_t clock_next_offset_ns; /* ... to this */
    uint32_t count, pad;
    plan_row_t rows[PLAN_ROWS];
} plan_t;

/* What the supervisor sees of the core from outside. */
enum guard_cause {
    GUARD_GONE,     /* the loop's thread or the core's process has ended */
    GUARD_STALLED,  /* no cycle for more than three periods */
    GUARD_LATE,     /* so many late cycles that the watchdogs are starved (escalation 3) */
    GUARD_PRIORITY, /* the loop's thread lost the FIFO priority that it had */
    GUARD_UNLOCKED, /* the core's memory is no longer locked as it was */
    GUARD_CAUSES
};

typedef struct {
    uint64_t looks;               /* so far */
    uint64_t fed_systemd, fed_device; /* signs of life passed on to either watchdog */
    uint64_t times[GUARD_CAUSES]; /* each cause began so often */
    uint64_t longest_ns;          /* the longest time without a cycle, as seen */
    uint32_t holding, pad;        /* bits of the causes that hold now */
} guard_t;
_Static_assert(sizeof(guard_t) == 80, "guard_t crosses process borders; bump SHARED_LAYOUT_VERSION");

typedef struct {
    uint32_t magic, layout_version, image_version, size;
    uint8_t program_sha256[32];
    uint8_t boot_id[16];   /* of this start of the core */
    uint64_t t_start_ns;
    int64_t utc_offset_ns; /* UTC - CLOCK_MONOTONIC at start, for labels only */
    uint32_t n_points, n_units;
    int32_t core_pid;
    uint32_t running;      /* 1 from the first cycle, 0 after the last */

    uint64_t image_seq;    /* seqlock: odd while the core writes */
    uint64_t cycle, t_ns;
    point_t image[POINTS_MAX];
    uint64_t applied_seq[MAILBOX_SLOTS]; /* order seq that the last cycle acted on */
    uint64_t proof;        /* proof of life: completed safe cycles */
    loop_stats_t loop;

    order_t mailbox[MAILBOX_SLOTS];
    plan_t plan;
    uint64_t plan_applied_seq; /* seq of the plan that the last cycle acted on */

    uint64_t snapshot_head, meter_head, event_head; /* pictures written so far */
    event_t events[EVENT_SLOTS];
    snapshot_t snapshots[SNAPSHOT_SLOTS];
    snapshot_t meters[METER_SLOTS];

    /* Latches of each unit, for whoever keeps them over a restart: written when they change, kept before they are told. */
    fault_set_t latches[UNITS_MAX];
    int32_t latch_first[UNITS_MAX]; /* first-out cause, -1 none */
    uint64_t latch_changes;         /* rises with every change of the above */
    uint64_t latch_kept;            /* latch_changes that are on disk; written by the core's keeper, not by the loop */

    /* Counters of buses and ports for people, about one a second, by a thread of the core beside the loop. */
    uint64_t buses_seq; /* seqlock: odd while being written */
    uint32_t buses_size, pad;
    uint8_t buses[BUSES_SIZE];

    guard_t guard;    /* written by the supervisor */
    int32_t loop_tid; /* thread of the loop, for whoever watches it from outside */
    int32_t pad_end;
} shared_t;

static inline void buses_put(shared_t *s, const void *json, uint32_t size) {
    uint64_t odd = (s->buses_seq + 1u) | 1u;
    __atomic_store_n(&s->buses_seq, odd, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    s->buses_size = size;
    memcpy(s->buses, json, size);
    __atomic_store_n(&s->buses_seq, odd + 1u, __ATOMIC_RELEASE);
}
/* Copies the JSON; its size, 0 while there is none or it is being written. `json` holds BUSES_SIZE bytes. */
static inline uint32_t buses_get(const shared_t *s, void *json) {
    uint64_t before = __atomic_load_n(&s->buses_seq, __ATOMIC_ACQUIRE);
    uint32_t size = s->buses_size;
    if ((before & 1u) || size > BUSES_SIZE)
        return 0;
    memcpy(json, s->buses, size);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return __atomic_load_n(&s->buses_seq, __ATOMIC_RELAXED) == before ? size : 0;
}

static inline void image_begin(shared_t *s) {
    __atomic_store_n(&s->image_seq, s->image_seq + 1u, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
}
static inline void image_end(shared_t *s) { __atomic_store_n(&s->image_seq, s->image_seq + 1u, __ATOMIC_RELEASE); }

/* Copies the image; returns 1 if the copy is whole. */
static inline int image_copy(const shared_t *s, point_t *points, uint64_t *cycle, uint64_t *t_ns) {
    uint64_t before = __atomic_load_n(&s->image_seq, __ATOMIC_ACQUIRE);
    if (before & 1u)
        return 0;
    memcpy(points, s->image, s->n_points * sizeof(point_t));
    *cycle = s->cycle;
    *t_ns = s->t_ns;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return __atomic_load_n(&s->image_seq, __ATOMIC_RELAXED) == before;
}

static inline void snapshot_push(snapshot_t *ring, uint32_t slots, uint64_t *head, const point_t *points, uint32_t n,
                                 uint64_t cycle, uint64_t t_ns) {
    snapshot_t *slot = &ring[*head & (slots - 1u)];
    __atomic_store_n(&slot->seq, 0u, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    slot->cycle = cycle;
    slot->t_ns = t_ns;
    memcpy(slot->points, points, n * sizeof(point_t));
    __atomic_store_n(&slot->seq, *head + 1u, __ATOMIC_RELEASE);
    __atomic_store_n(head, *head + 1u, __ATOMIC_RELEASE);
}
/* Copies picture `number`; 1 whole, 0 not there yet, -1 lost: overwritten, or being overwritten just now. */
static inline int snapshot_read(const snapshot_t *ring, uint32_t slots, const uint64_t *head, uint64_t number, uint32_t n,
                                snapshot_t *out) {
    const snapshot_t *slot = &ring[number & (slots - 1u)];
    if (__atomic_load_n(head, __ATOMIC_ACQUIRE) <= number)
        return 0;
    uint64_t seq = __atomic_load_n(&slot->seq, __ATOMIC_ACQUIRE);
    if (seq != number + 1u) /* it was there, and the slot holds another one or none by now */
        return -1;
    out->cycle = slot->cycle;
    out->t_ns = slot->t_ns;
    memcpy(out->points, slot->points, n * sizeof(point_t));
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    out->seq = seq;
    return __atomic_load_n(&slot->seq, __ATOMIC_RELAXED) == seq ? 1 : -1;
}

static inline void event_push(shared_t *s, const event_t *event) {
    event_t *slot = &s->events[s->event_head & (EVENT_SLOTS - 1u)];
    __atomic_store_n(&slot->seq, 0u, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    uint64_t number = s->event_head;
    *slot = *event;
    __atomic_store_n(&slot->seq, number + 1u, __ATOMIC_RELEASE);
    __atomic_store_n(&s->event_head, number + 1u, __ATOMIC_RELEASE);
}
/* Copies event `number`; answers as snapshot_read. */
static inline int event_read(const shared_t *s, uint64_t number, event_t *out) {
    const event_t *slot = &s->events[number & (EVENT_SLOTS - 1u)];
    if (__atomic_load_n(&s->event_head, __ATOMIC_ACQUIRE) <= number)
        return 0;
    uint64_t seq = __atomic_load_n(&slot->seq, __ATOMIC_ACQUIRE);
    if (seq != number + 1u)
        return -1;
    *out = *slot;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    out->seq = seq;
    return __atomic_load_n(&slot->seq, __ATOMIC_RELAXED) == seq ? 1 : -1;
}

static inline void order_put(order_t *slot, double value, uint64_t expires_t_ns, uint64_t request) {
    /* Odd while writing, also when a gateway that was killed in here left it odd. */
    uint64_t odd = (slot->seq + 1u) | 1u;
    __atomic_store_n(&slot->seq, odd, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    slot->value = value;
    slot->expires_t_ns = expires_t_ns;
    slot->request = request;
    __atomic_store_n(&slot->seq, odd + 1u, __ATOMIC_RELEASE);
}
static inline int order_get(const order_t *slot, order_t *out) {
    uint64_t before = __atomic_load_n(&slot->seq, __ATOMIC_ACQUIRE);
    if (before & 1u)
        return 0;
    *out = *slot;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    out->seq = before;
    return __atomic_load_n(&slot->seq, __ATOMIC_RELAXED) == before;
}

static inline void plan_put(plan_t *slot, const plan_t *plan) {
    uint64_t odd = (slot->seq + 1u) | 1u;
    __atomic_store_n(&slot->seq, odd, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy((char *)slot + sizeof(slot->seq), (const char *)plan + sizeof(plan->seq), sizeof(*plan) - sizeof(plan->seq));
    __atomic_store_n(&slot->seq, odd + 1u, __ATOMIC_RELEASE);
}
static inline int plan_get(const plan_t *slot, plan_t *out) {
    uint64_t before = __atomic_load_n(&slot->seq, __ATOMIC_ACQUIRE);
    if (before & 1u)
        return 0;
    memcpy(out, slot, sizeof(*out));
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    out->seq = before;
    return __atomic_load_n(&slot->seq, __ATOMIC_RELAXED) == before;
}

static inline void histogram_add(histogram_t *h, uint64_t ns) {
    /* Below 32 ns one bucket a nanosecond; above, the top five bits after the leading one. */
    uint32_t index;
    if (ns < 32u) {
        index = (uint32_t)ns;
    } else {
        uint32_t octave = 63u - (uint32_t)__builtin_clzll(ns);
        index = (octave - 4u) * 32u + (uint32_t)((ns >> (octave - 5u)) & 31u);
        if (index >= HISTOGRAM_BUCKETS)
            index = HISTOGRAM_BUCKETS - 1u;
    }
    h->buckets[index]++;
    if (h->count == 0u || ns < h->min)
        h->min = ns;
    if (ns > h->max)
        h->max = ns;
    h->count++;
    h->sum += ns;
}
/* Lower edge of a bucket, ns. */
static inline uint64_t histogram_edge(uint32_t index) {
    if (index < 32u)
        return index;
    uint32_t octave = index / 32u + 4u;
    return (1ull << octave) + ((uint64_t)(index & 31u) << (octave - 5u));
}

#endif
