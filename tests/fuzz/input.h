/* tests/fuzz/input.h: what a fuzzer was given, taken byte by byte, zeros behind its end; and what must hold. */
#ifndef TIDEGATE_FUZZ_INPUT_H
#define TIDEGATE_FUZZ_INPUT_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    const uint8_t *p, *end;
} input_t;

static uint64_t take(input_t *in, unsigned bytes) {
    uint64_t v = 0;
    while (bytes-- && in->p < in->end)
        v = v << 8 | *in->p++;
    return v;
}

#define MUST(what)                                         \
    do {                                                   \
        if (!(what)) {                                     \
            fprintf(stderr, "does not hold: %s\n", #what); \
            abort();                                       \
        }                                                  \
    } while (0)

#endif
