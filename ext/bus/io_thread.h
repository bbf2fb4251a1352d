/* ext/bus/io_thread.h: what the I/O threads of the buses need of the kernel: clock, sleep, bell, a thread with a priority. */
#ifndef TIDEGATE_IO_THREAD_H
#define TIDEGATE_IO_THREAD_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "abi/port_mail.h"

#define IO_STACK (256u * 1024u) /* mlockall would lock the default 8 MiB */

static inline uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t) != 0)
        return 0;
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
static inline struct timespec spec_of(uint64_t t_ns) {
    struct timespec t = {(time_t)(t_ns / 1000000000u), (long)(t_ns % 1000000000u)};
    return t;
}
static inline void sleep_until(uint64_t t_ns) {
    struct timespec t = spec_of(t_ns);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}
/* The call whose deadline is laid out as libc's timespec is. A 32-bit board with 64-bit time has two: the older would
 * read the upper half of the seconds as nanoseconds, so that every wait is over at once and the thread spins. */
#ifdef SYS_futex_time64
#define FUTEX_CALL (sizeof(time_t) > sizeof(long) ? SYS_futex_time64 : SYS_futex)
#else
#define FUTEX_CALL SYS_futex
_Static_assert(sizeof(time_t) <= sizeof(long), "64-bit time on a 32-bit board needs kernel headers from 5.1");
#endif
/* Until the bell no longer says `count`, or t_ns. */
static inline void bell_wait(uint32_t *bell, uint32_t count, uint64_t t_ns) {
    struct timespec t = spec_of(t_ns);
    syscall(FUTEX_CALL, bell, FUTEX_WAIT_BITSET_PRIVATE, count, &t, NULL, FUTEX_BITSET_MATCH_ANY);
}
static inline uint32_t bell_count(uint32_t *bell) { return __atomic_load_n(bell, __ATOMIC_SEQ_CST); }
static inline void bell_sleeping(uint32_t *flag, uint32_t on) { __atomic_store_n(flag, on, __ATOMIC_SEQ_CST); }
static inline void bell_hang(port_mail_t *m) {
    for (int i = 0; i < PORT_COMMANDS_MAX; i++)
        __atomic_store_n(&m->commands[i].bell, (uint32_t)((char *)&m->commands[i] - (char *)&m->bell), __ATOMIC_SEQ_CST);
}
static inline void bell_take_down(port_mail_t *m) {
    for (int i = 0; i < PORT_COMMANDS_MAX; i++)
        __atomic_store_n(&m->commands[i].bell, 0u, __ATOMIC_SEQ_CST);
}
static inline int readable_within(int fd, uint64_t ns) {
    struct pollfd p = {fd, POLLIN, 0};
    struct timespec t = spec_of(ns);
    return ppoll(&p, 1, &t, NULL) > 0 && (p.revents & POLLIN);
}
static inline void flag_set(uint32_t *flag, uint32_t value) { __atomic_store_n(flag, value, __ATOMIC_RELEASE); }
static inline uint32_t flag_get(const uint32_t *flag) { return __atomic_load_n(flag, __ATOMIC_ACQUIRE); }

/* FIFO where the right is there; else an ordinary thread with exact timers, and *fifo says 0. */
static inline int thread_create(pthread_t *thread, void *(*run)(void *), void *arg, int priority, int cpu, uint32_t *fifo) {
    pthread_attr_t attr;
    struct sched_param param = {.sched_priority = priority};
    sigset_t all, before;
    cpu_set_t set;
    int problem;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, IO_STACK);
    if (cpu >= 0) {
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
    }
    sigfillset(&all); /* signals belong to the process's main thread */
    pthread_sigmask(SIG_BLOCK, &all, &before);
    *fifo = priority > 0 ? (uint32_t)priority : 0u;
    pthread_attr_setinheritsched(&attr, PTHREAD_EXPLICIT_SCHED);
    pthread_attr_setschedpolicy(&attr, priority > 0 ? SCHED_FIFO : SCHED_OTHER);
    pthread_attr_setschedparam(&attr, &param);
    problem = pthread_create(thread, &attr, run, arg);
    if (problem == EPERM && priority > 0) {
        *fifo = 0;
        param.sched_priority = 0;
        pthread_attr_setschedpolicy(&attr, SCHED_OTHER);
        pthread_attr_setschedparam(&attr, &param);
        problem = pthread_create(thread, &attr, run, arg);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return problem;
}
static inline void thread_settle(const char *name) {
    prctl(PR_SET_TIMERSLACK, 1ul, 0ul, 0ul, 0ul); /* an ordinary thread's timers would be 50 us late by design */
    prctl(PR_SET_NAME, name, 0ul, 0ul, 0ul);
}
static inline void bell_ring(port_mail_t *m) {
    __atomic_fetch_add(&m->bell, 1u, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &m->bell, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
static inline uint64_t thread_cpu_ns(pthread_t thread) {
    clockid_t clock;
    return pthread_getcpuclockid(thread, &clock) == 0 ? clock_ns(clock) : 0;
}
static inline int no_wait(int fd) {
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}
static inline void errno_set(int value) { errno = value; }

#endif
