/* ext/abi/port_mail.h: what passes between the loop and one port's engine, without locks.
 *
 * The port's side writes `done` (single producer) and reads `commands`; the loop's side the other way round. A
 * command slot holds only the newest value: an old setpoint has no worth once a newer one exists.
 */
#ifndef TIDEGATE_PORT_MAIL_H
#define TIDEGATE_PORT_MAIL_H

#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "abi/program.h"

#define DONE_SLOTS 64u /* a power of two; completions between two cycles */

enum done_status { DONE_OK = 0, DONE_TIMEOUT, DONE_CRC, DONE_EXCEPTION, DONE_MISMATCH, DONE_SHORT, DONE_ECHO };

/* One finished transaction of a polled block. */
typedef struct {
    uint64_t t_sample_ns; /* when the device answered: first byte of the reply on the wire */
    uint64_t t_done_ns;
    uint16_t block;  /* program row */
    uint16_t status; /* enum done_status */
    uint16_t exception;
    uint16_t count;                /* words */
    uint16_t regs[BLOCK_REGS_MAX]; /* host order of the 16 bits */
} done_t;

enum command_urgency { URGENT_NOT = 0, URGENT = 1 /* before any poll: stops and setpoints */, URGENT_ZERO = 2 /* 0 W: before those */ };

/* Newest value of one command row; `seq` odd while it is being written. Each new seq is one value to write: the
 * engine repeats nothing by itself but a write that failed, so a loop that stands still falls silent on the wire. */
typedef struct {
    uint64_t seq;
    uint64_t t_ns;     /* when the loop decided */
    uint32_t valid;    /* 0 = nothing may be sent */
    uint32_t urgent;   /* enum command_urgency */
    uint16_t regs[COMMAND_REGS_MAX]; /* already encoded */
    uint32_t bell;     /* bytes back to the mail's bell, set by the port's thread; 0 = nobody sleeps on it */
    uint32_t pad;
} command_slot_t;

#define RTU_DEAD 3u /* time-outs in a row: a slave that is no longer there */
#define PORT_HISTOGRAM_BUCKETS 100 /* four an octave from 1 us: up to half a minute */

/* One slave of the port, in the order of its program rows; the port's side writes, anyone reads. */
typedef struct {
    uint64_t ok, timeouts, crc_errors, exceptions, mismatches, shorts, echoes; /* by how a transaction ended */
    uint64_t exception_codes[12]; /* by code 1..11; 0 = any other */
    uint64_t transactions;
    uint64_t foreign_bytes;       /* behind its replies, or in its unit's name while nobody had asked */
    uint64_t lead_ins;            /* right replies that were not believed for bytes that touch their front */
    uint64_t wire_busy_ns;        /* its part of the port's */
    uint64_t t_ok_ns;             /* last believable answer */
    uint64_t turnaround_ns;       /* request's last byte to reply's first, smoothed; 0 = not known */
    uint64_t timeout_ns;          /* in force for the first byte of a reply */
    uint64_t gap_ns;              /* silence this slave gets before a request, learned */
    uint32_t alive;               /* 1 = answers, 0 = not yet or no more */
    uint32_t silent_run;          /* time-outs in a row */
    uint32_t identity_mismatch;   /* 1 = its identity words are another device's: nothing is written to it */
    uint32_t gap_extra_us;        /* of gap_ns, beyond the line's rule: with less it did not always answer */
    uint32_t turnaround[PORT_HISTOGRAM_BUCKETS];
    uint32_t round_trip[PORT_HISTOGRAM_BUCKETS]; /* request's first byte to reply's last */
} slave_stats_t;

/* Counters of a port; the port's side writes, anyone reads. */
typedef struct {
    uint64_t transactions, ok, timeouts, crc_errors, exceptions, mismatches, foreign_bytes, flushes, writes, reads;
    uint64_t shorts, echoes, separators, readback_mismatches, flash_held;
    uint64_t wire_busy_ns;    /* sum of byte times sent and received */
    uint64_t silence_ns;      /* sum of the silences that the gap rule asked for */
    uint64_t t_last_write_end_ns; /* last byte of the last acknowledged setpoint write on the wire */
    uint64_t written_seq[PORT_COMMANDS_MAX]; /* slot seq whose write was acknowledged */
    uint64_t written_t_ns[PORT_COMMANDS_MAX]; /* its request's last byte on the wire */
    uint32_t refusals[PORT_COMMANDS_MAX];    /* failed writes in a row; 0 after an acknowledged one */
    uint32_t thread_lost; /* errno of the tty or the connection, 0 = good */
    uint32_t fifo;        /* SCHED_FIFO priority that the thread really got, 0 = none */
    uint64_t connects;    /* TCP: connections made */
    uint64_t hangups;     /* TCP: of these, ended by the other side */
    uint64_t strays;      /* TCP: replies to no request in flight: late, doubled, or with a false transaction id */
    slave_stats_t slaves[SLAVES_MAX];
} port_stats_t;

static inline void port_histogram_add(uint32_t *buckets, uint64_t ns) {
    uint32_t index = 0;
    if (ns >= 1024u) {
        uint32_t octave = 63u - (uint32_t)__builtin_clzll(ns);
        index = (octave - 10u) * 4u + (uint32_t)((ns >> (octave - 2u)) & 3u) + 1u;
        if (index >= PORT_HISTOGRAM_BUCKETS)
            index = PORT_HISTOGRAM_BUCKETS - 1u;
    }
    buckets[index]++;
}

typedef struct {
    uint64_t done_head; /* next to be written, by the port */
    char pad0[56];
    uint64_t done_tail; /* next to be read, by the loop */
    char pad1[56];
    done_t done[DONE_SLOTS];
    uint64_t done_dropped; /* the loop did not come; the oldest stay, the newest are lost */
    uint32_t bell;     /* a futex: rises when a slot's value changed */
    uint32_t sleeping; /* 1 = the port's thread waits on the bell */
    uint32_t wake_fd;  /* eventfd + 1 of a thread that waits for several ports at once; 0 = it waits on the bell */
    uint32_t pad2;
    uint32_t command_first, command_count; /* program rows of this port's commands */
    command_slot_t commands[PORT_COMMANDS_MAX];
    port_stats_t stats;
} port_mail_t;

_Static_assert(offsetof(port_mail_t, sleeping) == offsetof(port_mail_t, bell) + sizeof(uint32_t), "command_ring");
_Static_assert(offsetof(port_mail_t, wake_fd) == offsetof(port_mail_t, bell) + 2 * sizeof(uint32_t), "command_ring");

/* Both sides of a zeroed mail read its range of rows from here. The program has passed program_check. */
static inline void port_mail_init(port_mail_t *m, const program_t *p, uint32_t port) {
    m->command_count = port_command_rows(p, port, &m->command_first);
}

static inline done_t *port_done_begin(port_mail_t *m) { /* port: slot to fill, or NULL */
    uint64_t tail = __atomic_load_n(&m->done_tail, __ATOMIC_ACQUIRE);
    if (m->done_head - tail >= DONE_SLOTS) {
        m->done_dropped++;
        return NULL;
    }
    return &m->done[m->done_head & (DONE_SLOTS - 1u)];
}
static inline void port_done_commit(port_mail_t *m) {
    __atomic_store_n(&m->done_head, m->done_head + 1u, __ATOMIC_RELEASE);
}
static inline const done_t *port_done_peek(port_mail_t *m) { /* loop: oldest unread, or NULL */
    if (__atomic_load_n(&m->done_head, __ATOMIC_ACQUIRE) == m->done_tail)
        return NULL;
    return &m->done[m->done_tail & (DONE_SLOTS - 1u)];
}
static inline void port_done_pop(port_mail_t *m) {
    __atomic_store_n(&m->done_tail, m->done_tail + 1u, __ATOMIC_RELEASE);
}

/* A sleeping port thread is woken by the write of a slot, and only then: while a transaction runs, while nothing
 * changed, and in virtual time this costs two loads and no system call. */
static inline void command_ring(command_slot_t *s) {
    if (s->bell == 0u)
        return;
    uint32_t *bell = (uint32_t *)(void *)((char *)s - s->bell);
    __atomic_fetch_add(bell, 1u, __ATOMIC_SEQ_CST);
    if (!__atomic_load_n(bell + 1, __ATOMIC_SEQ_CST)) /* `sleeping` stands behind it */
        return;
    if (bell[2] == 0u) { /* and behind that `wake_fd` */
        syscall(SYS_futex, bell, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    } else {
        uint64_t one = 1; /* an eventfd's count never comes near its end, so this does not wait */
        ssize_t done = write((int)bell[2] - 1, &one, sizeof(one));
        (void)done;
    }
}

static inline void command_put(command_slot_t *s, const uint16_t regs[COMMAND_REGS_MAX], uint32_t valid, uint32_t urgent, uint64_t t_ns) {
    uint64_t seq = s->seq;
    __atomic_store_n(&s->seq, seq + 1u, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    s->t_ns = t_ns;
    s->valid = valid;
    s->urgent = urgent;
    for (int i = 0; i < COMMAND_REGS_MAX; i++)
        s->regs[i] = regs[i];
    __atomic_store_n(&s->seq, seq + 2u, __ATOMIC_RELEASE);
    command_ring(s);
}
/* Returns 1 with a whole copy in `out`, 0 while the loop is writing (try again at the next chance). */
static inline int command_get(const command_slot_t *s, command_slot_t *out) {
    uint64_t before = __atomic_load_n(&s->seq, __ATOMIC_ACQUIRE);
    if (before & 1u)
        return 0;
    *out = *s;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (__atomic_load_n(&s->seq, __ATOMIC_RELAXED) != before)
        return 0;
    out->seq = before;
    return 1;
}

#endif
