/* bare_tcp_client PORT REGISTERS SECONDS PRIORITY CONNECTIONS PERIOD_US: one send and one recv for each transaction, one
 * sleep for all of a period, a look at the last register, and nothing else: what the kernel alone costs a master with
 * one request in flight on each connection. Period 0 = as fast as it goes. One line of JSON. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv) {
    if (argc < 7)
        return 2;
    int registers = atoi(argv[2]), connections = atoi(argv[5]), one = 1, fds[64];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sched_param param = {.sched_priority = atoi(argv[4])};
    struct timespec due, gather = {0, 150000}; /* the replies of a period come meanwhile, so that no recv has to sleep */
    uint8_t ask[12] = {0, 0, 0, 0, 0, 6, 1, 3, 0, 100, 0, (uint8_t)registers}, reply[260];
    ssize_t whole = 9 + 2 * registers;
    unsigned good = 0, bad = 0;
    long period_ns = 1000L * atoi(argv[6]);
    to.sin_port = htons((uint16_t)atoi(argv[1]));
    connections = connections < 64 ? connections : 64;
    if (param.sched_priority)
        sched_setscheduler(0, SCHED_FIFO, &param);
    for (int i = 0; i < connections; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM, 0);
        if (fds[i] < 0 || connect(fds[i], (struct sockaddr *)&to, sizeof(to)))
            return 1;
        setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
    double end = now(CLOCK_MONOTONIC) + atof(argv[3]), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    clock_gettime(CLOCK_MONOTONIC, &due);
    while (now(CLOCK_MONOTONIC) < end) {
        for (int i = 0; i < connections; i++)
            if (send(fds[i], ask, sizeof(ask), MSG_NOSIGNAL) != sizeof(ask))
                return 1;
        if (connections > 1)
            nanosleep(&gather, NULL);
        for (int i = 0; i < connections; i++)
            if (recv(fds[i], reply, sizeof(reply), 0) == whole && reply[whole - 1] == 99 + registers)
                good++;
            else
                bad++;
        if (period_ns) {
            due.tv_nsec += period_ns;
            due.tv_sec += due.tv_nsec / 1000000000L;
            due.tv_nsec %= 1000000000L;
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
        }
    }
    cpu = (now(CLOCK_PROCESS_CPUTIME_ID) - cpu) * 1e6 / good;
    printf("{\"good\": %u, \"bad\": %u, \"cpu_us\": %.3f}\n", good, bad, cpu);
    return 0;
}
