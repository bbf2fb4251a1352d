/* tests/fuzz/fuzz_can.c: the CAN phases under libFuzzer, with AddressSanitizer and UndefinedBehaviorSanitizer.
 *
 * Takes the C that Cython made of ext/bus/can.pyx into this file; its loop functions need no interpreter. The input makes
 * a table (rows as the program checker lets them through), then frames, classic and FD, through the queue and through
 * the receive batch, with times between. After each step what must always hold is checked.
 */
#include "bus/can.c"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "input.h"

#define P(name) __pyx_f_8tidegate_3ext_3bus_3can_##name
typedef struct __pyx_t_8tidegate_3ext_3bus_3can_can_bus_t bus_t;
typedef struct __pyx_t_8tidegate_3ext_3bus_3can_can_frame_stats_t id_stats_t;

static program_t program;
static bus_t bus;
static point_t image[POINTS_MAX];
static id_stats_t per_id[CAN_FRAMES_MAX];
static gate_verdict_t verdicts[UNITS_MAX];

static double take_double(input_t *in) {
    static const double some[] = {0.0, 1.0, -1.0, 0.1, -0.01, 1e9, -1e9, 1e300};
    return some[take(in, 1) % 8];
}

static void make_fields(input_t *in, can_frame_row_t *row) {
    row->field_first = (uint16_t)program.n_can_fields;
    for (uint32_t n = take(in, 1) % 6; n; n--) {
        can_field_row_t *f = &program.can_fields[program.n_can_fields];
        memset(f, 0, sizeof *f);
        f->point = (int16_t)program.n_can_fields;
        f->start = (uint16_t)take(in, 2);
        f->length = (uint8_t)(1 + take(in, 1) % 64);
        f->big_endian = take(in, 1) & 1;
        f->is_signed = take(in, 1) & 1;
        f->flags = (uint8_t)(take(in, 1) % 32);
        if (f->flags & CAN_FIELD_FLOAT)
            f->length = f->length & 1 ? 32 : 64;
        f->mux_value = (uint32_t)(take(in, 1) % 4);
        f->mask = take(in, 1) & 1 ? (uint32_t)take(in, 4) : 0;
        f->scale = take_double(in);
        f->offset = take_double(in);
        f->min = take_double(in);
        f->max = take_double(in);
        f->sentinel = take(in, 8);
        program.n_can_fields++;
        row->field_count++;
    }
}

static void make_program(input_t *in) {
    memset(&program, 0, sizeof program);
    program.n_units = 2;
    program.period_ns = take(in, 2);
    for (uint32_t n = 1 + take(in, 1) % 5; n; n--) {
        can_frame_row_t *r = &program.can_frames[program.n_can_frames++];
        r->id = (uint32_t)take(in, 4) & 0x9FFFFFFFu;
        r->bus = take(in, 1) % 8 == 0;
        r->flags = (uint8_t)(take(in, 1) % 16);
        uint8_t longest = r->flags & CAN_FRAME_FD ? 64 : 8;
        r->len_max = (uint8_t)(take(in, 1) % (longest + 1u));
        r->len_min = (uint8_t)(take(in, 1) % (r->len_max + 1u));
        r->mux_start = (uint16_t)take(in, 2);
        r->mux_length = (uint8_t)(1 + take(in, 1) % 32);
        r->mux_big_endian = take(in, 1) & 1;
        r->counter_start = (uint16_t)take(in, 2);
        r->counter_length = (uint8_t)(1 + take(in, 1) % 32);
        r->counter_big_endian = take(in, 1) & 1;
        r->crc_kind = (uint8_t)(take(in, 1) % 7);
        r->crc_byte = (uint8_t)take(in, 1);
        r->period_ns = take(in, 4);
        make_fields(in, r);
    }
    for (uint32_t n = take(in, 1) % 4; n; n--) {
        can_tx_row_t *r = &program.can_tx[program.n_can_tx++];
        r->id = (uint32_t)take(in, 4) & 0x9FFFFFFFu;
        r->len = (uint8_t)(take(in, 1) % 9);
        r->kind = take(in, 1) & 1;
        r->unit = (int8_t)(take(in, 1) % 3) - 1;
        r->period_ns = take(in, 3);
        r->counter_start = (int16_t)((int)(take(in, 1) % 66) - 1);
        r->counter_length = (uint8_t)take(in, 1);
    }
}

static void check(uint64_t t_ns) {
    uint64_t ended = bus.stats.unknown + bus.stats.malformed + bus.stats.error_frames + bus.stats.echoed;
    for (uint32_t i = 0; i < program.n_can_frames; i++) {
        const id_stats_t *s = &per_id[i];
        ended += s->count + s->bad_length + s->crc_errors + s->counter_errors + s->repeated;
        MUST(s->bucket <= 10);
        MUST(s->t_last_ns <= t_ns);
    }
    MUST(ended == bus.stats.frames); /* every frame ends in exactly one counter */
    MUST(bus.out_head - bus.out_tail <= 256 && bus.queue_head - bus.queue_tail <= 256);
    MUST(bus.stats.state <= 4);
    for (uint32_t i = 0; i < program.n_can_fields; i++) {
        const can_field_row_t *f = &program.can_fields[i];
        const point_t *p = &image[i];
        MUST(p->quality != QUALITY_HELD && p->quality <= QUALITY_INVALID);
        MUST(p->quality != QUALITY_STALE || p->changes > 0);
        if (p->quality == QUALITY_GOOD) {
            MUST(isfinite(p->value) && p->value >= f->min && p->value <= f->max);
            MUST(p->changes > 0 && p->t_ns <= t_ns);
        }
        if (p->changes == 0)
            MUST(isnan(p->value));
    }
    for (uint32_t i = program.n_can_fields; i < program.n_can_fields + 4; i++)
        MUST(image[i].changes == 0 && image[i].quality == QUALITY_NEVER); /* nobody's points stay untouched */
}

static void make_frame(input_t *in, can_buffer_t *frame) {
    uint64_t which = take(in, 1);
    memset(frame, 0, sizeof *frame);
    frame->can_id = which < 200 ? program.can_frames[which % program.n_can_frames].id : (uint32_t)take(in, 4);
    frame->len = (uint8_t)take(in, 1);
    frame->flags = (uint8_t)take(in, 1);
    for (int i = 0; i < 64 && i < frame->len && in->p < in->end; i++)
        frame->data[i] = *in->p++;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    input_t in = {bytes, bytes + size};
    make_program(&in);
    memset(&bus, 0, sizeof bus);
    memset(per_id, 0, sizeof per_id);
    memset(verdicts, 0, sizeof verdicts);
    for (int i = 0; i < POINTS_MAX; i++)
        image[i] = (point_t){.value = NAN};
    bus.fd = -1;
    P(can_bus_init)(&bus, &program);

    uint64_t t_ns = 1000000;
    while (in.p < in.end) {
        uint64_t what = take(&in, 1);
        t_ns += take(&in, 1) << (what & 31);
        can_buffer_t frame;
        switch (what >> 5) {
        case 0 ... 2: /* classic, through the virtual bus; a frame longer than 8 bytes cannot stand there */
            make_frame(&in, &frame);
            frame.len %= 9;
            for (int n = what & 16 ? 200 : 1; n; n--)
                P(can_inject)(&bus, (const struct can_frame *)&frame, t_ns);
            if ((what & 15) != 15)
                P(can_drain)(&program, &bus, image, per_id, t_ns);
            break;
        case 3 ... 4: /* as the kernel would leave it in the batch, of any size */
            make_frame(&in, &bus.batch.frames[0]);
            bus.batch.messages[0].msg_len = what & 1 ? 72 : what & 2 ? 16 : (unsigned)take(&in, 1) % 73;
            bus.batch.messages[0].msg_hdr.msg_controllen = 0;
            bus.batch.messages[0].msg_hdr.msg_flags = take(&in, 1) % 16 ? 0 : MSG_CONFIRM;
            P(_take_message)(&program, &bus, 0, image, per_id, t_ns);
            bus.fd_dead = 0;
            break;
        case 5:
            verdicts[0].heartbeat_ok = what & 1;
            verdicts[1].heartbeat_ok = what >> 1 & 1;
            P(can_send_due)(&program, &bus, verdicts, t_ns);
            MUST(program.n_can_tx == 0 || bus.tx_due_ns > t_ns || bus.out_head - bus.out_tail == 256);
            if (what & 4)
                bus.out_tail = bus.out_head;
            break;
        default: /* silence */
            P(can_drain)(&program, &bus, image, per_id, t_ns);
        }
        check(t_ns);
    }
    return 0;
}
