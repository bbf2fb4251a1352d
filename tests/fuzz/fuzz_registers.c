/* tests/fuzz/fuzz_registers.c: registers to values and back under libFuzzer, with sanitizers.
 *
 * Takes the C that Cython made of ext/bus/registers.pyx into this file. The input makes one block with rows as the program
 * checker lets them through, and registers; then values for a command row. What is good must be in range, what is not
 * must change nothing, and what is written must read back within one step.
 */
#include "bus/registers.c"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "input.h"

#define P(name) __pyx_f_8tidegate_3ext_3bus_9registers_##name

static program_t program;
static point_t image[POINTS_MAX], before[POINTS_MAX];
static done_t done;

static double take_double(input_t *in) {
    static const double some[] = {1.0, -1.0, 0.1, -0.01, 1e9, -1e9, 1e300, 1e-300};
    return some[take(in, 1) % 8];
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    /* What the module's start would fill from Python: powers of ten. */
    double ten = 1.0;
    for (int i = 0; i <= 10; i++, ten *= 10.0)
        __pyx_v_8tidegate_3ext_3bus_9registers_TEN[i] = ten;
    input_t in = {bytes, bytes + size};
    memset(&done, 0, sizeof done);
    block_row_t *b = &program.blocks[0]; /* every other row stays as it was: empty */
    memset(b, 0, sizeof *b);
    memset(program.fields, 0, 8 * sizeof program.fields[0]);
    b->function = (uint8_t)(1 + take(&in, 1) % 4);
    int bits = b->function <= 2;
    b->count = (uint16_t)(4 + take(&in, 1) % (BLOCK_REGS_MAX - 3));
    b->field_count = (uint16_t)(1 + take(&in, 1) % 8);
    program.n_blocks = 1;
    program.n_fields = b->field_count;
    program.n_points = 16;
    for (uint32_t i = 0; i < b->field_count; i++) {
        field_row_t *f = &program.fields[i];
        f->point = (int16_t)(take(&in, 1) % 16);
        f->type = (uint8_t)(take(&in, 1) % 10);
        f->flags = (uint8_t)(take(&in, 1) & 63);
        uint32_t words = bits ? 1 : P(words_of)(f->type);
        f->offset = (uint16_t)(take(&in, 1) % (b->count - words + 1));
        f->bit_first = (uint8_t)(take(&in, 1) % 16);
        f->bit_count = (uint8_t)(1 + take(&in, 1) % (16 - f->bit_first));
        f->sf_point = (int16_t)(take(&in, 1) % 16);
        f->scale = take_double(&in);
        f->offset_value = take(&in, 1) & 1 ? take_double(&in) : 0.0;
        f->min = take(&in, 1) & 1 ? -INFINITY : -1000.0;
        f->max = f->min < -1000.0 ? INFINITY : 1000.0;
        f->sentinel = take(&in, 8);
        f->optional = (uint8_t)(take(&in, 1) & 1);
        /* As program_check has it: the rows in the place of an optional one are of the same point. */
        if (i > 0 && f[-1].optional && take(&in, 1) & 1) {
            f->point = f[-1].point;
            f[-1].others = 1;
            f->optional = 0;
        }
    }
    for (int i = 0; i < 16; i++)
        image[i] = (point_t){take(&in, 1) & 1 ? NAN : (double)(int8_t)take(&in, 1), take(&in, 1), (uint32_t)(take(&in, 1) % 5), 7};
    memcpy(before, image, sizeof image);
    done.status = (uint16_t)(take(&in, 1) % 8 == 7);
    done.count = b->count;
    done.t_sample_ns = 1000;
    for (uint32_t i = 0; i < BLOCK_REGS_MAX; i++)
        done.regs[i] = (uint16_t)take(&in, 2);
    P(block_decode)(&program, &done, image);
    for (int i = 0; i < 16; i++) {
        int mine = 0;
        for (uint32_t k = 0; k < b->field_count; k++)
            mine |= program.fields[k].point == i;
        if (!mine || done.status)
            MUST(memcmp(&image[i], &before[i], sizeof image[i]) == 0);
        else if (image[i].changes == before[i].changes)
            MUST((image[i].quality == QUALITY_INVALID || image[i].quality == QUALITY_HELD) && image[i].t_ns == before[i].t_ns &&
                 memcmp(&image[i].value, &before[i].value, 8) == 0);
        else
            MUST(isfinite(image[i].value) && image[i].t_ns == 1000 && image[i].changes > before[i].changes);
    }

    command_row_t row = {.kind = (uint8_t)(take(&in, 1) % 4), .type = (uint8_t)(take(&in, 1) % 10)};
    row.flags = (uint8_t)(take(&in, 1) & 62);
    row.sf_point = (int16_t)(take(&in, 1) % 16);
    row.scale = take_double(&in);
    uint64_t raw = take(&in, 8);
    double value;
    memcpy(&value, &raw, 8);
    uint16_t regs[5] = {0, 0, 0, 0, 0xA5A5};
    int n = P(command_encode)(&program, &row, value, image, regs);
    MUST(n >= 0 && n <= 4 && regs[4] == 0xA5A5);
    MUST(n == 0 || isfinite(value));
    if (n && !(row.flags & (FIELD_SF_POINT | FIELD_ACC | FIELD_ONE_OF)) && row.type != FIELD_BITS && row.type != FIELD_SUNSSF &&
        row.type != FIELD_F32) {
        field_row_t f = {.type = row.type, .flags = row.flags, .scale = row.scale, .min = -INFINITY, .max = INFINITY};
        double back = 0.0;
        memcpy(done.regs, regs, sizeof(uint16_t) * 4);
        double step = 0.0;
        if (P(value_of)(&program, b, &f, done.regs, &back, &step, 0))
            MUST(fabs(back - value) <= fabs(row.scale) * 1.0001 + fabs(value) * 1e-9);
    }
    return 0;
}
