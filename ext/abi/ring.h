/* ext/abi/ring.h: the ring of what entered each cycle and what was decided, so that a run can be repeated to the byte.
 *
 * One writer, the loop; readers in other processes copy records and see by `head` whether they were overtaken. A record
 * is one cycle: its time, what came in (frames, answers, orders), and a hash of what went out. Every few seconds the
 * state itself follows, so that a replay may begin inside the ring.
 */
#ifndef TIDEGATE_RECORDER_H
#define TIDEGATE_RECORDER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "abi/port_mail.h"
#include "abi/shared.h"

#define RING_MAGIC 0x31524754u /* "TGR1" */
#define RECORDER_LAYOUT_VERSION 5u
#define RING_HEAD_BYTES 8192u
#define RING_STATES 512u               /* remembered places of states; a power of two */
#define RECORD_BYTES_MAX (384u << 10)  /* of one cycle, or one state */
#define STATE_EVERY_NS 5000000000ull

enum record_kind { RECORD_CYCLE = 1, RECORD_STATE, RECORD_WRAP };
enum record_flags { RECORD_CUT = 1 }; /* more came in than fits: this cycle cannot be repeated */
enum item_kind { ITEM_FRAME = 1, ITEM_BUS_LOST, ITEM_DONE, ITEM_ORDER, ITEM_PLAN, ITEM_UTC, ITEM_STOP, ITEM_ESCALATION,
                 ITEM_WRITTEN, ITEM_CAN, ITEM_PORT, ITEM_SLAVE, ITEM_SELFTEST };
/* What a cycle decides, hashed in parts so that a replay can tell which one differs. */
enum record_part { PART_POINTS, PART_VERDICTS, PART_COMMANDS, PART_EVENTS, PARTS };

typedef struct {
    uint32_t magic, layout_version;
    uint64_t size;      /* bytes behind the head */
    uint8_t program_sha256[32];
    uint64_t head;      /* bytes written so far */
    uint64_t cycles;    /* records of cycles written so far */
    uint64_t states;    /* states written so far; the places of the newest follow */
    uint64_t state_at[RING_STATES];
} ring_t;
_Static_assert(sizeof(ring_t) <= RING_HEAD_BYTES, "the ring's head grew; bump RECORDER_LAYOUT_VERSION");

typedef struct {
    uint32_t size; /* with this head; a multiple of 8 */
    uint16_t kind, flags;
    uint64_t cycle, t_ns, dt_ns;
    uint32_t hash[PARTS]; /* of what was decided; 0 for a state */
} record_t;
_Static_assert(sizeof(record_t) == 48, "record_t stands in files; bump RECORDER_LAYOUT_VERSION");

typedef struct {
    uint16_t kind, index; /* index: bus, port, device, command row, kind of order */
    uint32_t size;        /* with this head; a multiple of 8 */
} item_t;

typedef struct {
    uint64_t t_ns;
    uint32_t can_id;
    uint8_t len, flags, is_fd, pad;
    uint8_t data[64];
} item_frame_t;

/* The writer's side, in the core's own memory. */
typedef struct {
    ring_t *ring;
    uint8_t *data, *at, *end; /* of the record that is being filled */
    uint64_t head, state_due_ns;
    uint64_t events; /* of the core's, hashed so far */
    uint32_t cut, begun;
} recorder_t;

/* Find room for the next record, whole and in one piece. */
static inline void recorder_begin(recorder_t *r) {
    uint64_t place = r->head % r->ring->size, left = r->ring->size - place;
    if (left < RECORD_BYTES_MAX) {
        if (left >= sizeof(record_t)) {
            record_t *wrap = (record_t *)(void *)(r->data + place);
            memset(wrap, 0, sizeof *wrap);
            wrap->size = (uint32_t)left;
            wrap->kind = RECORD_WRAP;
        }
        r->head += left;
        place = 0;
    }
    r->at = r->data + place + sizeof(record_t);
    r->end = r->data + place + RECORD_BYTES_MAX;
    r->cut = 0;
}

static inline void recorder_end(recorder_t *r, uint32_t kind, uint64_t cycle, uint64_t t_ns, uint64_t dt_ns,
                                const uint32_t hash[PARTS]) {
    record_t *record = (record_t *)(void *)(r->data + r->head % r->ring->size);
    record->size = (uint32_t)(r->at - (uint8_t *)record);
    record->kind = (uint16_t)kind;
    record->flags = r->cut ? RECORD_CUT : 0;
    record->cycle = cycle;
    record->t_ns = t_ns;
    record->dt_ns = dt_ns;
    memcpy(record->hash, hash, sizeof record->hash);
    if (kind == RECORD_STATE) {
        r->ring->state_at[r->ring->states & (RING_STATES - 1u)] = r->head;
        __atomic_store_n(&r->ring->states, r->ring->states + 1u, __ATOMIC_RELEASE);
    } else {
        r->ring->cycles++;
    }
    r->head += record->size;
    __atomic_store_n(&r->ring->head, r->head, __ATOMIC_RELEASE);
}

static inline void recorder_put(recorder_t *r, uint16_t kind, uint32_t index, const void *body, uint32_t size) {
    uint32_t whole = (uint32_t)(sizeof(item_t) + ((size + 7u) & ~7u));
    item_t *item = (item_t *)(void *)r->at;
    if ((uint64_t)(r->end - r->at) < whole) {
        r->cut = 1;
        return;
    }
    item->kind = kind;
    item->index = (uint16_t)index;
    item->size = whole;
    if (size & 7u)
        memset(r->at + whole - 8u, 0, 8u);
    memcpy(r->at + sizeof(item_t), body, size);
    r->at += whole;
}

static inline void recorder_frame(recorder_t *r, uint32_t bus, uint32_t can_id, uint8_t len, uint8_t flags, int is_fd,
                                  const uint8_t *data, uint64_t t_ns) {
    item_frame_t frame;
    if (r == NULL)
        return;
    frame.t_ns = t_ns;
    frame.can_id = can_id;
    frame.len = len > 64u ? 64u : len;
    frame.flags = flags;
    frame.is_fd = (uint8_t)is_fd;
    frame.pad = 0;
    memcpy(frame.data, data, frame.len);
    recorder_put(r, ITEM_FRAME, bus, &frame, (uint32_t)(offsetof(item_frame_t, data) + frame.len));
}
static inline void recorder_lost(recorder_t *r, uint32_t bus) {
    if (r != NULL)
        recorder_put(r, ITEM_BUS_LOST, bus, "", 0);
}
static inline void recorder_done(recorder_t *r, uint32_t port, const done_t *done) {
    if (r != NULL)
        recorder_put(r, ITEM_DONE, port, done,
                     (uint32_t)(offsetof(done_t, regs) + (done->count > BLOCK_REGS_MAX ? BLOCK_REGS_MAX : done->count) * 2u));
}
static inline void recorder_plan(recorder_t *r, const plan_t *plan) {
    if (r != NULL)
        recorder_put(r, ITEM_PLAN, 0, plan, sizeof *plan);
}
static inline void recorder_word(recorder_t *r, uint16_t kind, uint32_t index, uint64_t word) {
    if (r != NULL)
        recorder_put(r, kind, index, &word, sizeof word);
}
static inline void recorder_order(recorder_t *r, uint32_t kind, const order_t *order) {
    if (r != NULL)
        recorder_put(r, ITEM_ORDER, kind, order, sizeof *order);
}

/* Three lanes of a multiplicative hash over rows of three words. Not a seal: it finds what differs by mistake. NaNs have
 * other bits on other processors, so all of them count as one. */
typedef struct {
    uint64_t a, b, c;
} mix_t;
static inline void mix_words(mix_t *m, uint64_t a, uint64_t b, uint64_t c) {
    m->a = (m->a ^ a) * 0x9E3779B97F4A7C15ull;
    m->b = (m->b ^ b) * 0xC2B2AE3D27D4EB4Full;
    m->c = (m->c ^ c) * 0x165667B19E3779F9ull;
    m->a ^= m->a >> 29;
    m->b ^= m->b >> 31;
    m->c ^= m->c >> 30;
}
static inline uint64_t mix_bits(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return value != value ? 0x7FF8000000000000ull : bits;
}
static inline void mix_points(mix_t *m, const point_t *points, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        mix_words(m, mix_bits(points[i].value), points[i].t_ns, points[i].quality | (uint64_t)points[i].changes << 32);
}
static inline void mix_events(mix_t *m, const shared_t *s, uint64_t first, uint64_t end) {
    if (end - first > EVENT_SLOTS)
        first = end - EVENT_SLOTS;
    for (; first < end; first++) {
        const event_t *e = &s->events[first & (EVENT_SLOTS - 1u)];
        mix_words(m, e->kind | (uint64_t)(uint32_t)e->unit << 32, (uint32_t)e->code | (uint64_t)(uint32_t)e->previous << 32,
                  mix_bits(e->value) ^ (mix_bits(e->limit) << 1 | mix_bits(e->limit) >> 63));
        mix_words(m, e->changes, mix_bits(e->lasted_s), 0);
    }
}
static inline void mix_bytes(mix_t *m, const void *bytes, size_t size) {
    uint64_t w[3];
    const uint8_t *at = (const uint8_t *)bytes;
    for (; size >= sizeof w; at += sizeof w, size -= sizeof w) {
        memcpy(w, at, sizeof w);
        mix_words(m, w[0], w[1], w[2]);
    }
    memset(w, 0, sizeof w);
    memcpy(w, at, size);
    mix_words(m, w[0], w[1], w[2]);
}
static inline uint32_t mix_end(const mix_t *m) {
    uint64_t whole = m->a ^ (m->b << 21 | m->b >> 43) ^ (m->c << 42 | m->c >> 22);
    return (uint32_t)(whole ^ whole >> 32);
}

/* What of a ring is still whole: 1 if nothing at or behind `at` was overwritten yet. */
static inline int ring_holds(const ring_t *ring, uint64_t at) {
    uint64_t head = __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE);
    return at <= head && head - at + 2u * RECORD_BYTES_MAX <= ring->size;
}

#endif
