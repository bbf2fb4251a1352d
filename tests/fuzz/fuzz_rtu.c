/* tests/fuzz/fuzz_rtu.c: the RTU engine under libFuzzer, with AddressSanitizer and UndefinedBehaviorSanitizer.
 *
 * Takes the C that Cython made of ext/bus/rtu.pyx into this file, part_rtu_*.c the rest of the engine; none needs an
 * interpreter. The input makes a site
 * (rows as the program checker lets them through), then answers: honest ones, honest ones with a byte changed, raw
 * bytes, silence, at any time, and commands between. After each step what must always hold is checked.
 */
#include "bus/rtu.c"

#include <stdio.h>
#include <stdlib.h>

#include "input.h"

#define P(name) __pyx_f_8tidegate_3ext_3bus_3rtu_##name
typedef struct __pyx_t_8tidegate_3ext_3bus_3rtu_rtu_t engine_t;
typedef struct __pyx_t_8tidegate_3ext_3bus_3rtu_rtu_action_t action_t;
enum { WAIT = 0, SEND = 1, RECV = 2, BARS = 12 };

static program_t program;
static port_mail_t mail;
static engine_t engine;

static int encode(const program_t *p, const command_row_t *row, double value, const point_t *image, uint16_t *regs) {
    (void)p, (void)image;
    if (row->flags & FIELD_SF_POINT)
        return 0;
    for (int i = 0; i < row->count; i++)
        regs[i] = (uint16_t)(int16_t)value;
    return row->count;
}

static int believable(const program_t *p, const block_row_t *row, const uint16_t *regs) {
    (void)p, (void)row, (void)regs;
    return 1;
}

extern void *part_engine_made, *part_timeout_of, *part_note_foreign_frame, *part_transaction_ended, *part_crc16, *part_crc_append,
    *part_predicted, *part_char_ns, *part_gap_ns, *part_judge, *part_overdue, *part_judge_framed, *part_noise, *part_note_stray_bytes;
void part_crc_init(void);
void part_finish_hand_over(void *believable);
void part_start_hand_over(void *encode, void *char_ns, void *gap_ns);
void part_frame_hand_over(void *note_stray_bytes);

/* What the module's start would fetch from its neighbours. */
static void hand_over(void) {
    *(void **)&__pyx_f_8tidegate_3ext_3bus_9rtu_start_engine_made = part_engine_made;
    *(void **)&__pyx_f_8tidegate_3ext_3bus_9rtu_slave_timeout_of = part_timeout_of;
    *(void **)&__pyx_f_8tidegate_3ext_3bus_9rtu_slave_note_foreign_frame = part_note_foreign_frame;
    *(void **)&__pyx_f_8tidegate_3ext_3bus_10rtu_finish_transaction_ended = part_transaction_ended;
    *(void **)&__pyx_f_8tidegate_3ext_3bus_9rtu_frame_crc_append = part_crc_append;
    *(void **)&__pyx_f_8tidegate_3ext_3bus_9rtu_frame_predicted = part_predicted;
    *(void **)&__pyx_f_8tidegate_3ext_3bus_9rtu_frame_judge = part_judge;
    *(void **)&__pyx_f_8tidegate_3ext_3bus_9rtu_frame_overdue = part_overdue;
    *(void **)&__pyx_f_8tidegate_3ext_3bus_9rtu_frame_judge_framed = part_judge_framed;
    *(void **)&__pyx_f_8tidegate_3ext_3bus_9rtu_frame_noise = part_noise;
    *(void **)&__pyx_f_8tidegate_3ext_3bus_9rtu_slave_note_stray_bytes = part_note_stray_bytes;
    part_finish_hand_over((void *)believable);
    part_start_hand_over((void *)encode, part_char_ns, part_gap_ns);
    part_frame_hand_over(part_note_stray_bytes);
}

static uint16_t crc16(const uint8_t *bytes, uint32_t count) { return ((uint16_t(*)(const uint8_t *, uint32_t))part_crc16)(bytes, count); }

static void make_block(input_t *in, uint16_t slave) {
    block_row_t *b = &program.blocks[program.n_blocks++];
    uint64_t what = take(in, 1);
    memset(b, 0, sizeof *b);
    b->slave = slave;
    b->function = (uint8_t)(1 + (what & 3));
    b->poll_class = (uint8_t)((what >> 2) % 3);
    b->count = (uint16_t)(1 + take(in, 2) % (b->function <= 2 ? BLOCK_REGS_MAX * 16 : BLOCK_REGS_MAX));
    b->address = (uint16_t)(take(in, 2) % (65536u - b->count + 1u));
    b->period_ns = (what & 16) ? take(in, 2) * 10000u : 0;
    b->signature = what >> 5 & 1;
    b->signature_offset = (uint16_t)(take(in, 1) % b->count);
    b->signature_word = (uint16_t)take(in, 1);
    b->field_first = (uint16_t)program.n_fields;
    if (what & 64 && b->function > 2) {
        field_row_t *f = &program.fields[program.n_fields++];
        memset(f, 0, sizeof *f);
        f->point = 0;
        f->offset = (uint16_t)(take(in, 1) % b->count);
        f->flags = what & 128 ? FIELD_IDENTITY : 0;
        f->scale = 1.0; /* what a good device shows here, and what another one */
        f->min = f->max = f->offset & 1 ? 1.0 : 0.0;
        b->field_count = 1;
    }
}

static void make_command(input_t *in, uint16_t slave) {
    static const uint8_t functions[] = {5, 6, 15, 16, 22, 23};
    command_row_t *c = &program.commands[program.n_commands++];
    uint64_t what = take(in, 1);
    memset(c, 0, sizeof *c);
    c->slave = slave;
    c->function = functions[what % 6];
    c->kind = (uint8_t)((what >> 3) & 3);
    c->count = (uint16_t)(c->function <= 6 ? 1 : c->function == 22 ? 2 : 1 + take(in, 1) % 4);
    c->address = (uint16_t)take(in, 2);
    c->flags = (uint8_t)take(in, 1);
    c->readback_point = (int16_t)(what & 128 ? 0 : -1);
    c->resend_ns = what & 64 ? take(in, 2) * 100000u : 0;
    c->value = (double)take(in, 1);
}

static void make_program(input_t *in) {
    uint64_t what = take(in, 1);
    /* The rows are cleared as they are made: clearing 100 kB would cost more than most inputs. */
    program.n_blocks = program.n_fields = program.n_commands = 0;
    program.n_points = 8;
    program.n_ports = 1;
    port_row_t *port = &program.ports[0];
    memset(port, 0, sizeof *port);
    port->baud = what & 1 ? 115200 : 9600;
    port->data_bits = 8;
    port->stop_bits = 1;
    port->parity = 'N';
    port->gap_rule = (uint8_t)((what >> 1) % 3);
    port->gap_ns = 500000;
    port->flags = what >> 5 & 1;
    port->slave_count = (uint16_t)(1 + (what >> 6));
    program.n_slaves = port->slave_count;
    for (uint16_t s = 0; s < program.n_slaves; s++) {
        slave_row_t *slave = &program.slaves[s];
        memset(slave, 0, sizeof *slave);
        uint64_t shape = take(in, 1);
        slave->unit_id = (uint8_t)(1 + s);
        slave->timeout_ns = (1 + take(in, 1)) * 1000000u;
        slave->turnaround_ns = shape & 1 ? take(in, 1) * 100000u : 0;
        slave->block_first = (uint16_t)program.n_blocks;
        slave->block_count = (uint16_t)((shape >> 1) & 7);
        for (unsigned i = 0; i < slave->block_count; i++)
            make_block(in, s);
        slave->command_first = (uint16_t)program.n_commands;
        slave->command_count = (uint16_t)((shape >> 4) & 7);
        for (unsigned i = 0; i < slave->command_count; i++)
            make_command(in, s);
    }
}

/* What a good device would say to the request in flight. */
static uint32_t honest(uint8_t *reply) {
    uint32_t n = 6, skip = engine.strip_echo ? engine.request.length : 0;
    memcpy(reply, engine.tx, skip);
    uint8_t *p = reply + skip;
    memcpy(p, engine.tx, 8);
    if (p[1] <= 4 || p[1] == 23) {
        n = engine.request.reply - 2u;
        memset(p + 2, 0, n - 2);
        p[2] = (uint8_t)(n - 3);
        if (engine.request.purpose == 0 && p[1] > 2) {
            const block_row_t *b = &program.blocks[engine.blocks[engine.request.index].row];
            if (b->signature & 1)
                p[4 + 2 * b->signature_offset] = (uint8_t)b->signature_word;
        }
    } else if (p[1] == 22) {
        n = 8;
    } else if (p[1] == 43) {
        static const uint8_t identity[] = {14, 1, 1, 0, 0, 1, 0, 2, 'A', 'B'};
        memcpy(p + 2, identity, sizeof identity);
        n = 2 + sizeof identity;
    }
    uint16_t crc = crc16(p, n);
    p[n++] = (uint8_t)crc;
    p[n++] = (uint8_t)(crc >> 8);
    return skip + n;
}

static void check(void) {
    uint64_t ended = 0;
    const port_stats_t *s = &mail.stats;
    MUST(engine.state == 0 || engine.state == 1);
    MUST(engine.rx_len <= sizeof engine.rx);
    for (uint32_t i = 0; i < engine.n_slaves; i++) {
        MUST(engine.slaves[i].n_bars <= BARS);
        MUST(engine.slaves[i].unproved <= engine.slaves[i].n_blocks);
    }
    ended = s->ok + s->timeouts + s->crc_errors + s->exceptions + s->mismatches + s->shorts + s->echoes;
    MUST(ended + (engine.state == 1) == s->transactions); /* every transaction ends in exactly one counter */
    for (uint32_t i = 0; i < engine.n_commands; i++)
        MUST(s->written_seq[i] <= mail.commands[i].seq || s->written_seq[i] == 1);
    const done_t *done;
    while ((done = port_done_peek(&mail))) {
        MUST(done->block < program.n_blocks && done->count <= BLOCK_REGS_MAX);
        MUST(done->status == DONE_OK || done->count == 0);
        MUST(done->status != DONE_OK || done->t_sample_ns <= done->t_done_ns);
        port_done_pop(&mail);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    input_t in = {bytes, bytes + size};
    uint64_t t_ns = 1000000;
    part_crc_init();
    hand_over();
    make_program(&in);
    memset(&mail, 0, offsetof(port_mail_t, done));
    memset(&mail.done_dropped, 0, offsetof(port_mail_t, stats) - offsetof(port_mail_t, done_dropped));
    port_mail_init(&mail, &program, 0);
    P(rtu_init)(&engine, &program, 0, &mail, t_ns);
    while (in.p < in.end) {
        uint8_t reply[1100];
        action_t action;
        uint64_t what = take(&in, 1);
        uint32_t n = 0;
        P(rtu_next)(&engine, t_ns, &action);
        if (action.what == SEND) {
            /* Nothing is written to a device that was never known as the one of its map. */
            MUST(engine.request.purpose != 1 || !engine.slaves[engine.request.slave].unproved ||
                 engine.slaves[engine.request.slave].was_proved);
            MUST(action.length >= 6 && action.length <= sizeof engine.tx);
            uint16_t crc = crc16(action.frame, action.length - 2);
            MUST(action.frame[action.length - 2] == (crc & 0xFF) && action.frame[action.length - 1] == crc >> 8);
            P(rtu_sent)(&engine, t_ns + action.length * engine.char_ns);
        } else {
            MUST(action.until_ns > t_ns);
            MUST(action.what != RECV || action.want > 0);
        }
        check();
        switch (what & 7) {
        case 0 ... 2:
            n = engine.state ? honest(reply) : 0;
            break;
        case 3:
            n = engine.state ? honest(reply) : 0;
            if (n) {
                uint64_t at = take(&in, 1) % n;
                reply[at] ^= (uint8_t)take(&in, 1);
            }
            break;
        case 4:
            n = (uint32_t)(take(&in, 1) % 64);
            for (uint32_t i = 0; i < n; i++)
                reply[i] = (uint8_t)take(&in, 1);
            break;
        case 5:
            if (mail.command_count) {
                uint16_t regs[COMMAND_REGS_MAX] = {(uint16_t)take(&in, 2), (uint16_t)take(&in, 1)};
                command_put(&mail.commands[take(&in, 1) % (mail.command_count < 32 ? mail.command_count : 32)], regs,
                            what >> 3 & 1, what >> 4 & 1, t_ns);
            }
            break;
        case 6:
            if (what >> 3 == 31) {
                P(rtu_drain)(&engine);
            } else if (what >> 3 == 30) {
                static const uint8_t ask[] = {1, 43, 14, 1, 0};
                P(rtu_ask)(&engine, ask, sizeof ask);
            } else if (engine.asked == 3) {
                engine.asked = 0;
            }
            P(rtu_drained)(&engine);
            break;
        default:
            if (action.until_ns != UINT64_MAX && action.what != SEND)
                t_ns = action.until_ns;
            break;
        }
        t_ns += take(&in, 1) << (what >> 3 & 15);
        if (n) {
            uint32_t piece = what & 128 ? (uint32_t)(take(&in, 1) % n) : n;
            P(rtu_bytes)(&engine, reply, piece, t_ns);
            check();
            if (piece < n)
                P(rtu_bytes)(&engine, reply + piece, n - piece, t_ns + 100000);
        }
        check();
    }
    return 0;
}
