/* Both sides of every border in threads of their own, for gcc's thread sanitizer: borders NAME ROUNDS.
 *
 * `borders.py` compiles this against a copy of the headers in which the payload of each seqlock is copied word by word
 * with relaxed atomics: to read it while it is being written is what a seqlock does on purpose, and all else must be free
 * of races. What is read says by itself whether it is whole: every word of it is the number of the write.
 * Exit 0: whole and no race; 3: a torn or changed copy; 66: the sanitizer saw a race.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void border_copy(void *to, const void *from, size_t size) {
    uint64_t *out = to;
    const uint64_t *in = from;
    for (size_t i = 0; i < size / 8; i++)
        __atomic_store_n(&out[i], __atomic_load_n(&in[i], __ATOMIC_RELAXED), __ATOMIC_RELAXED);
}
#define BORDER_SET(to, from) do { __typeof__(to) value_ = (from); __atomic_store(&(to), &value_, __ATOMIC_RELAXED); } while (0)
#define BORDER_GET(to, from) do { __atomic_load(&(from), &(to), __ATOMIC_RELAXED); } while (0)

#include "abi/ring.h"

static shared_t shared;
static port_mail_t mail;
static uint64_t rounds;
static uint64_t finished;
static uint64_t whole;

static void torn(const char *what, uint64_t number) {
    fprintf(stderr, "torn: %s %llu\n", what, (unsigned long long)number);
    _Exit(3);
}
static int over(void) { return (int)__atomic_load_n(&finished, __ATOMIC_ACQUIRE); }

/* order */
static void order_write(uint64_t n) { order_put(&shared.mailbox[1], (double)n, n, n); }
static int order_read(uint64_t *last) {
    order_t out;
    if (!order_get(&shared.mailbox[1], &out) || out.seq == 0)
        return 0;
    if (out.value != (double)out.request || out.expires_t_ns != out.request || out.request < *last)
        torn("order", out.request);
    *last = out.request;
    return 1;
}
/* plan */
static void plan_write(uint64_t n) {
    static plan_t plan;
    plan.billing_number = n;
    plan.billing_end_t_ns = n;
    plan.rows[PLAN_ROWS - 1].number = n;
    plan_put(&shared.plan, &plan);
}
static int plan_read(uint64_t *last) {
    static plan_t out;
    if (!plan_get(&shared.plan, &out) || out.seq == 0)
        return 0;
    if (out.billing_number != out.billing_end_t_ns || out.rows[PLAN_ROWS - 1].number != out.billing_number || out.billing_number < *last)
        torn("plan", out.billing_number);
    *last = out.billing_number;
    return 1;
}
/* image */
#define POINTS 8u
static void points_fill(point_t *points, uint64_t n) {
    for (uint32_t i = 0; i < POINTS; i++)
        points[i] = (point_t){.value = (double)n, .t_ns = n};
}
static int points_whole(const point_t *points, uint64_t n) {
    for (uint32_t i = 0; i < POINTS; i++)
        if (points[i].t_ns != n || points[i].value != (double)n)
            return 0;
    return 1;
}
static void image_write(uint64_t n) {
    point_t points[POINTS];
    points_fill(points, n);
    image_begin(&shared);
    border_copy(shared.image, points, sizeof points);
    BORDER_SET(shared.cycle, n);
    BORDER_SET(shared.t_ns, n);
    image_end(&shared);
}
static int image_read(uint64_t *last) {
    point_t points[POINTS];
    uint64_t cycle, t_ns;
    if (!image_copy(&shared, points, &cycle, &t_ns) || cycle == 0)
        return 0;
    if (cycle != t_ns || !points_whole(points, cycle) || cycle < *last)
        torn("image", cycle);
    *last = cycle;
    return 1;
}
/* pictures and events */
static void picture_write(uint64_t n) {
    point_t points[POINTS];
    points_fill(points, n - 1);
    snapshot_push(shared.snapshots, SNAPSHOT_SLOTS, &shared.snapshot_head, points, POINTS, n - 1, n - 1);
}
static int picture_read(uint64_t *next) {
    static snapshot_t out;
    uint64_t head = __atomic_load_n(&shared.snapshot_head, __ATOMIC_ACQUIRE);
    if (*next >= head)
        return 0;
    if (head - *next > SNAPSHOT_SLOTS)
        *next = head - SNAPSHOT_SLOTS;
    int got = snapshot_read(shared.snapshots, SNAPSHOT_SLOTS, &shared.snapshot_head, *next, POINTS, &out);
    if (got == 1 && (out.cycle != *next || out.t_ns != *next || !points_whole(out.points, *next)))
        torn("picture", *next);
    (*next)++;
    return got == 1;
}
static void event_write(uint64_t n) {
    event_t event = {.cycle = n - 1, .t_ns = n - 1, .value = (double)(n - 1), .lasted_s = (double)(n - 1)};
    event_push(&shared, &event);
}
static int event_look(uint64_t *next) {
    event_t out;
    uint64_t head = __atomic_load_n(&shared.event_head, __ATOMIC_ACQUIRE);
    if (*next >= head)
        return 0;
    if (head - *next > EVENT_SLOTS)
        *next = head - EVENT_SLOTS;
    int got = event_read(&shared, *next, &out);
    if (got == 1 && (out.cycle != *next || out.t_ns != *next || out.value != (double)*next || out.lasted_s != (double)*next))
        torn("event", *next);
    (*next)++;
    return got == 1;
}
/* counters of the buses */
static void buses_write(uint64_t n) {
    static uint64_t words[512];
    for (int i = 0; i < 512; i++)
        words[i] = n;
    buses_put(&shared, words, sizeof words);
}
static int buses_read(uint64_t *last) {
    static uint64_t words[BUSES_SIZE / 8];
    if (buses_get(&shared, words) != 512 * 8)
        return 0;
    for (int i = 1; i < 512; i++)
        if (words[i] != words[0])
            torn("buses", words[0]);
    if (words[0] < *last)
        torn("buses", words[0]);
    *last = words[0];
    return 1;
}
/* setpoints to a port, answers from it */
static void command_write(uint64_t n) {
    uint16_t regs[COMMAND_REGS_MAX];
    for (int i = 0; i < COMMAND_REGS_MAX; i++)
        regs[i] = (uint16_t)n;
    command_put(&mail.commands[0], regs, (uint32_t)n, (uint32_t)n, n);
}
static int command_read(uint64_t *last) {
    command_slot_t out;
    if (!command_get(&mail.commands[0], &out) || out.seq == 0)
        return 0;
    for (int i = 0; i < COMMAND_REGS_MAX; i++)
        if (out.regs[i] != (uint16_t)out.t_ns)
            torn("command", out.t_ns);
    if (out.valid != (uint32_t)out.t_ns || out.urgent != (uint32_t)out.t_ns || out.t_ns < *last)
        torn("command", out.t_ns);
    *last = out.t_ns;
    return 1;
}
static void answer_write(uint64_t n) {
    done_t *slot;
    while ((slot = port_done_begin(&mail)) == NULL)
        sched_yield();
    slot->t_sample_ns = slot->t_done_ns = n;
    memset(slot->regs, (int)(n & 0xff), sizeof slot->regs);
    port_done_commit(&mail);
}
static int answer_read(uint64_t *last) {
    const done_t *slot = port_done_peek(&mail);
    if (slot == NULL)
        return 0;
    uint16_t word = (uint16_t)((*last + 1) & 0xff) * 0x101u;
    if (slot->t_sample_ns != *last + 1 || slot->t_done_ns != *last + 1 || slot->regs[0] != word || slot->regs[BLOCK_REGS_MAX - 1] != word)
        torn("answer", *last + 1);
    (*last)++;
    port_done_pop(&mail);
    return 1;
}

static const struct border {
    const char *name;
    void (*write)(uint64_t n);
    int (*read)(uint64_t *last);
} BORDERS[] = {
    {"order", order_write, order_read},       {"plan", plan_write, plan_read},    {"image", image_write, image_read},
    {"picture", picture_write, picture_read}, {"event", event_write, event_look}, {"buses", buses_write, buses_read},
    {"command", command_write, command_read}, {"answer", answer_write, answer_read},
};

static void *writer(void *arg) {
    const struct border *border = arg;
    for (uint64_t n = 1; n <= rounds; n++) {
        border->write(n);
        if ((n & 63u) == 0)
            sched_yield();
    }
    __atomic_store_n(&finished, 1, __ATOMIC_RELEASE);
    return NULL;
}
static void *reader(void *arg) {
    const struct border *border = arg;
    uint64_t last = 0;
    for (;;) {
        int ended = over();
        int got = border->read(&last);
        whole += (uint64_t)got;
        if (ended && !got)
            return NULL;
        if (ended && border->read != answer_read)
            return NULL;
    }
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    rounds = strtoull(argv[2], NULL, 10);
    shared.n_points = POINTS;
    for (size_t i = 0; i < sizeof BORDERS / sizeof *BORDERS; i++) {
        if (strcmp(BORDERS[i].name, argv[1]) != 0)
            continue;
        pthread_t threads[2];
        pthread_create(&threads[0], NULL, reader, (void *)&BORDERS[i]);
        pthread_create(&threads[1], NULL, writer, (void *)&BORDERS[i]);
        pthread_join(threads[0], NULL);
        pthread_join(threads[1], NULL);
        printf("%s: %llu whole\n", argv[1], (unsigned long long)whole);
        return whole ? 0 : 4;
    }
    return 2;
}
