/* What of the core's calls depends on the widths of `long` and `time_t`, tried as compiled: a line a figure.
 *
 * waits    : system calls that a wait of 0.3 s on a bell takes (a thread that spins makes thousands)
 * late_ms  : what that wait was longer than asked for
 * old, new : a kernel's stamp beside a CAN frame, in both layouts, as the core reads it
 * epoll_*  : marks and milliseconds of a wait for connections where the kernel has no epoll_pwait2
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

static int without_pwait2(int watch, struct epoll_event *events, int most, const struct timespec *t, const sigset_t *mask);
#define epoll_pwait2 without_pwait2
#include "bus/can_io.h"
#include "bus/io_thread.h"
#include "bus/tcp_socket.h"

static int without_pwait2(int watch, struct epoll_event *events, int most, const struct timespec *t, const sigset_t *mask) {
    (void)watch, (void)events, (void)most, (void)t, (void)mask;
    errno = ENOSYS;
    return -1;
}

static uint64_t stamp_read(int type, const void *stamp, size_t size) {
    static can_batch_t batch;
    can_ancillary_t beside;
    struct msghdr *h = &batch.messages[0].msg_hdr;
    struct cmsghdr *c;
    can_batch_init(&batch);
    c = CMSG_FIRSTHDR(h);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(c), stamp, size);
    h->msg_controllen = CMSG_SPACE(size);
    can_batch_take(&batch, 0, &beside);
    return beside.realtime_ns;
}

int main(void) {
    long old_stamp[2] = {1700000000, 5};
    int64_t new_stamp[2] = {4900000000, 7};
    uint32_t bell = 3, marks[4] = {0};
    uint64_t start_ns = clock_ns(CLOCK_MONOTONIC), until_ns = start_ns + 300000000u;
    long waits = 0;
    int pair[2], watch, ready;

    printf("long %zu\ntime_t %zu\n", sizeof(long), sizeof(time_t));
    while (clock_ns(CLOCK_MONOTONIC) < until_ns) {
        bell_wait(&bell, 3, until_ns);
        waits++;
    }
    printf("waits %ld\n", waits);
    printf("late_ms %llu\n", (unsigned long long)((clock_ns(CLOCK_MONOTONIC) - until_ns) / 1000000u));
    printf("old %llu\n", (unsigned long long)stamp_read(35, old_stamp, sizeof old_stamp));
    printf("new %llu\n", (unsigned long long)stamp_read(64, new_stamp, sizeof new_stamp));

    watch = watch_new();
    if (watch < 0 || pipe(pair) != 0 || watch_add(watch, pair[0], 41, 0) != 0)
        return 1;
    start_ns = clock_ns(CLOCK_MONOTONIC);
    ready = watch_wait(watch, marks, 4, 50000000u);
    printf("epoll_idle %d\n", ready);
    printf("epoll_idle_ms %llu\n", (unsigned long long)((clock_ns(CLOCK_MONOTONIC) - start_ns) / 1000000u));
    wake_ring(pair[1]);
    ready = watch_wait(watch, marks, 4, 60000000000u);
    printf("epoll_ready %d\nepoll_mark %u\n", ready, marks[0]);
    return 0;
}
