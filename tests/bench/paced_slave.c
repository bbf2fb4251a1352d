/* A Modbus slave behind a line that keeps its pace, on the master end of a pty.
 *
 *   paced_slave FD BAUD SECONDS [PRIORITY]
 *
 * Answers function 3 and 16 for any unit. A pty carries bytes in no time, so this end gives them their time: a request
 * that arrives at t ends on the wire at t + its bytes; the answer begins 3.5 characters later and comes in pieces of 8
 * bytes, each when its last byte would be there. At the end, or at a SIGTERM, one line of JSON: how many, from when to
 * when, how many requests began before 3.5 characters of silence had passed, and how long the line lay idle beyond that.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t over;
static void finish(int signal) {
    (void)signal;
    over = 1;
}
static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
static void until(uint64_t t_ns) { /* the last 60 us by spinning: a wire is never late */
    uint64_t early = t_ns - 60000u;
    struct timespec t = {(time_t)(early / 1000000000u), (long)(early % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
    while (now() < t_ns)
        ;
}
#define WAITS 65536u
static uint64_t waits[WAITS];
static int rising(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}
static uint16_t crc16(const uint8_t *p, unsigned n) {
    uint16_t crc = 0xFFFF;
    while (n--) {
        crc ^= *p++;
        for (int i = 0; i < 8; i++)
            crc = crc & 1 ? (uint16_t)(crc >> 1 ^ 0xA001) : (uint16_t)(crc >> 1);
    }
    return crc;
}

int main(int argc, char **argv) {
    if (argc < 4)
        return 2;
    int fd = atoi(argv[1]);
    uint64_t char_ns = 10000000000ull / strtoull(argv[2], NULL, 10), gap = char_ns * 7 / 2;
    uint64_t end = now() + (uint64_t)(atof(argv[3]) * 1e9), last = 0, first_t = 0, last_t = 0, count = 0, hasty = 0, held = 0, idle = 0, n_waits = 0;
    struct sched_param param = {.sched_priority = argc > 4 ? atoi(argv[4]) : 0};
    if (param.sched_priority)
        sched_setscheduler(0, SCHED_FIFO, &param);
    mlockall(MCL_CURRENT | MCL_FUTURE);
    uint8_t in[512], out[300];
    signal(SIGTERM, finish);
    while (now() < end && !over) {
        struct pollfd p = {fd, POLLIN, 0};
        if (poll(&p, 1, 20) <= 0)
            continue;
        uint64_t t = now();
        ssize_t n = read(fd, in + held, sizeof in - held);
        if (n <= 0)
            continue;
        held += (uint64_t)n;
        unsigned length = in[1] == 16 && held >= 7 ? 9u + in[6] : 8u;
        if (held < length)
            continue;
        held = 0;
        if (crc16(in, length - 2) != (in[length - 2] | in[length - 1] << 8))
            continue;
        if (last && t < last + gap)
            hasty++;
        else if (last)
            idle += t - last - gap, waits[n_waits++ % WAITS] = t - last - gap;
        if (!first_t)
            first_t = t;
        unsigned words = (unsigned)(in[4] << 8 | in[5]), m;
        memcpy(out, in, 6);
        if (in[1] == 3) {
            out[2] = (uint8_t)(2 * words);
            for (unsigned i = 0; i < words; i++) {
                unsigned value = ((unsigned)(in[2] << 8 | in[3]) + i) & 0xFFFF;
                out[3 + 2 * i] = (uint8_t)(value >> 8), out[4 + 2 * i] = (uint8_t)value;
            }
            m = 3 + 2 * words;
        } else {
            m = 6;
        }
        uint16_t crc = crc16(out, m);
        out[m++] = (uint8_t)crc, out[m++] = (uint8_t)(crc >> 8);
        uint64_t begin = t + length * char_ns + gap;
        for (unsigned at = 0; at < m; at += 8) {
            unsigned piece = m - at < 8 ? m - at : 8;
            until(begin + (at + piece) * char_ns);
            if (write(fd, out + at, piece) != (ssize_t)piece)
                return 1;
        }
        last = begin + m * char_ns;
        last_t = last + gap;
        count++;
    }
    n_waits = n_waits < WAITS ? n_waits : WAITS;
    qsort(waits, n_waits, sizeof waits[0], rising);
    printf("{\"transactions\": %llu, \"elapsed_ns\": %llu, \"hasty\": %llu, \"idle_ns\": %llu, \"idle_median_ns\": %llu}\n", (unsigned long long)count,
           (unsigned long long)(last_t - first_t), (unsigned long long)hasty, (unsigned long long)idle,
           (unsigned long long)(n_waits ? waits[n_waits / 2] : 0));
    return 0;
}
