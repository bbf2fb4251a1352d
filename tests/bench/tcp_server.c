/* tcp_server SECONDS: Modbus TCP on loopback for many masters in one thread; prints its port, register i holds i. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(here);
    int listener = socket(AF_INET, SOCK_STREAM, 0), watch = epoll_create1(0), one = 1;
    time_t end = time(NULL) + (argc > 1 ? atoi(argv[1]) : 10);
    if (bind(listener, (struct sockaddr *)&here, size) || listen(listener, 64) ||
        getsockname(listener, (struct sockaddr *)&here, &size))
        return 1;
    printf("%d\n", ntohs(here.sin_port));
    fflush(stdout);
    struct epoll_event add = {.events = EPOLLIN, .data.fd = listener}, ready[64];
    epoll_ctl(watch, EPOLL_CTL_ADD, listener, &add);
    while (time(NULL) < end) {
        int n = epoll_wait(watch, ready, 64, 500);
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;
            uint8_t in[260], out[260];
            if (fd == listener) {
                int master = accept(listener, NULL, NULL);
                setsockopt(master, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
                add.data.fd = master;
                epoll_ctl(watch, EPOLL_CTL_ADD, master, &add);
                continue;
            }
            ssize_t got = recv(fd, in, sizeof(in), 0);
            if (got < 12) {
                close(fd);
                continue;
            }
            unsigned address = in[8] << 8 | in[9], count = in[10] << 8 | in[11];
            for (int k = 0; k < 8; k++)
                out[k] = in[k];
            out[4] = 0, out[5] = (uint8_t)(3 + 2 * count), out[8] = (uint8_t)(2 * count);
            for (unsigned k = 0; k < count && k < 125; k++)
                out[9 + 2 * k] = (uint8_t)((address + k) >> 8), out[10 + 2 * k] = (uint8_t)(address + k);
            send(fd, out, 9 + 2 * count, MSG_NOSIGNAL);
        }
    }
    return 0;
}
