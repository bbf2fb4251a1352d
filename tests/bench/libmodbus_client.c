/* libmodbus_client DEVICE BAUD REGISTERS SECONDS PRIORITY: read as fast as the library does; one line of JSON. */
#define _GNU_SOURCE
#include <modbus/modbus.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv) {
    if (argc < 6)
        return 2;
    int registers = atoi(argv[3]);
    uint16_t regs[125];
    modbus_t *bus = modbus_new_rtu(argv[1], atoi(argv[2]), 'N', 8, 1);
    struct sched_param param = {.sched_priority = atoi(argv[5])};
    if (!bus || modbus_set_slave(bus, 1) || modbus_connect(bus))
        return 1;
    if (param.sched_priority)
        sched_setscheduler(0, SCHED_FIFO, &param);
    double end = now(CLOCK_MONOTONIC) + atof(argv[4]), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    unsigned good = 0, bad = 0;
    while (now(CLOCK_MONOTONIC) < end) {
        if (modbus_read_registers(bus, 100, registers, regs) == registers && regs[registers - 1] == 99 + registers)
            good++;
        else
            bad++;
    }
    printf("{\"good\": %u, \"bad\": %u, \"cpu_us\": %.3f}\n", good, bad, (now(CLOCK_PROCESS_CPUTIME_ID) - cpu) * 1e6 / good);
    return 0;
}
