/* libmodbus_tcp_client PORT REGISTERS SECONDS PRIORITY CONNECTIONS PERIOD_US: a thread for each connection, since the
 * library blocks; period 0 = as fast as it does. One line of JSON, its CPU time that of the whole process. */
#define _GNU_SOURCE
#include <modbus/modbus.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int port, registers, period_us;
static double end;
static unsigned good, bad;

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *poll_one(void *unused) {
    uint16_t regs[125];
    struct timespec due;
    modbus_t *bus = modbus_new_tcp("127.0.0.1", port);
    (void)unused;
    if (!bus || modbus_set_slave(bus, 1) || modbus_connect(bus))
        return NULL;
    clock_gettime(CLOCK_MONOTONIC, &due);
    while (now(CLOCK_MONOTONIC) < end) {
        if (modbus_read_registers(bus, 100, registers, regs) == registers && regs[registers - 1] == 99 + registers)
            __atomic_fetch_add(&good, 1, __ATOMIC_RELAXED);
        else
            __atomic_fetch_add(&bad, 1, __ATOMIC_RELAXED);
        if (period_us) {
            due.tv_nsec += 1000L * period_us;
            due.tv_sec += due.tv_nsec / 1000000000L;
            due.tv_nsec %= 1000000000L;
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
        }
    }
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t threads[64];
    if (argc < 7)
        return 2;
    port = atoi(argv[1]), registers = atoi(argv[2]), period_us = atoi(argv[6]);
    int connections = atoi(argv[5]) < 64 ? atoi(argv[5]) : 64;
    struct sched_param param = {.sched_priority = atoi(argv[4])};
    if (param.sched_priority)
        sched_setscheduler(0, SCHED_FIFO, &param);
    end = now(CLOCK_MONOTONIC) + atof(argv[3]);
    double cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    for (int i = 0; i < connections; i++)
        pthread_create(&threads[i], NULL, poll_one, NULL);
    for (int i = 0; i < connections; i++)
        pthread_join(threads[i], NULL);
    printf("{\"good\": %u, \"bad\": %u, \"cpu_us\": %.3f}\n", good, bad, (now(CLOCK_PROCESS_CPUTIME_ID) - cpu) * 1e6 / good);
    return 0;
}
