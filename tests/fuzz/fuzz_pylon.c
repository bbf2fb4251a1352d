/* tests/fuzz/fuzz_pylon.c: Pylontech's frames under libFuzzer, with AddressSanitizer and UndefinedBehaviorSanitizer.
 *
 * Takes the C that Cython made of ext/bus/pylon.pyx into this file; none of it needs an interpreter. The input makes a
 * question, then characters in pieces: raw ones, and whole frames with checksums that are right, so that what lies behind
 * them is reached. After each piece what must always hold is checked.
 */
#include "bus/pylon.c"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "input.h"

#define P(name) __pyx_f_8tidegate_3ext_3bus_5pylon_##name
typedef struct __pyx_t_8tidegate_3ext_3bus_5pylon_pylon_t pylon_line_t;
enum { NONE = 0, FRAME = 1, DAMAGED = 2, ECHO = 3, RX = 512, REPLY = 3 + 2 * 18, TX = 24 };

static pylon_line_t line;

/* A frame around whatever content the input gives. */
static uint32_t make_frame(input_t *in, uint8_t *out, uint8_t unit) {
    static const char digits[] = "0123456789ABCDEF";
    uint32_t bytes = (uint32_t)(take(in, 1) % 90), length = 2 * bytes, at = 0, sum = 0;
    uint8_t head[6] = {0x20, unit, 0x46, take(in, 1) % 4 ? 0 : (uint8_t)take(in, 1), 0, 0};
    uint32_t check = (0u - ((length >> 8) + (length >> 4 & 15) + (length & 15))) & 15;
    head[4] = (uint8_t)(check << 4 | length >> 8);
    head[5] = (uint8_t)length;
    out[at++] = '~';
    for (uint32_t i = 0; i < 6 + bytes; i++) {
        uint8_t b = i < 6 ? head[i] : i == 7 && take(in, 1) % 8 ? unit : (uint8_t)take(in, 1);
        out[at++] = (uint8_t)digits[b >> 4];
        out[at++] = (uint8_t)digits[b & 15];
    }
    for (uint32_t i = 1; i < at; i++)
        sum += out[i];
    sum = (0u - sum) & 0xFFFF;
    for (int i = 12; i >= 0; i -= 4)
        out[at++] = (uint8_t)digits[sum >> i & 15];
    out[at++] = '\r';
    return at;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t commands[] = {0x42, 0x44, 0x4F, 0x92, 0x00};
    input_t in = {data, data + size};
    uint8_t piece[320];
    memset(&line, 0, sizeof line);
    while (in.p < in.end) {
        uint8_t request[6] = {(uint8_t)take(&in, 1), 3, commands[take(&in, 1) % 5], (uint8_t)(take(&in, 1) % 20), 0, 0};
        request[5] = (uint8_t)(1 + take(&in, 1) % 17);
        P(pylon_ask)(&line, request);
        MUST(line.tx_len <= TX && line.tx[0] == '~' && line.tx[line.tx_len - 1] == '\r');
        for (uint32_t pieces = (uint32_t)(take(&in, 1) % 4); pieces; pieces--) {
            uint32_t n = 0, used = 0;
            if (take(&in, 1) & 1)
                n = make_frame(&in, piece, request[0]);
            else
                for (n = (uint32_t)take(&in, 1); n > sizeof piece; n -= 64)
                    ;
            if (n && piece[0] != '~')
                for (uint32_t i = 0; i < n; i++)
                    piece[i] = (uint8_t)take(&in, 1);
            while (used < n) {
                uint32_t before = used;
                int status = P(pylon_next)(&line, piece, n, &used);
                MUST(used > before && used <= n);
                MUST(line.rx_len <= RX);
                MUST(status >= NONE && status <= ECHO);
                MUST(status != NONE || used == n);
                if (status != FRAME)
                    continue;
                MUST(line.reply_len >= 3 && line.reply_len <= REPLY);
                if (line.reply_len > 3) { /* registers: of the number that was asked for, of its unit */
                    MUST(line.reply[0] == request[0] && line.reply[1] == 3);
                    MUST(line.reply[2] == 2 * request[5] && line.reply_len == 3u + line.reply[2]);
                }
            }
            if (take(&in, 1) % 16 == 0)
                P(pylon_cut)(&line);
            piece[0] = 0;
        }
    }
    return 0;
}
