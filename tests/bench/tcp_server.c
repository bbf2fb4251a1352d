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
            uint8_t in[260], out[22 * 260];
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
            size_t out_len = 0;
            for (ssize_t at = 0; at + 12 <= got; at += 12) { /* a master may have several in flight: one segment for all */
                const uint8_t *ask = in + at;
                uint8_t *reply = out + out_len;
                unsigned address = ask[8] << 8 | ask[9], count = ask[10] << 8 | ask[11];
                count = count < 125 ? count : 125;
                for (int k = 0; k < 8; k++)
                    reply[k] = ask[k];
                reply[4] = 0, reply[5] = (uint8_t)(3 + 2 * count), reply[8] = (uint8_t)(2 * count);
                for (unsigned k = 0; k < count; k++)
                    reply[9 + 2 * k] = (uint8_t)((address + k) >> 8), reply[10 + 2 * k] = (uint8_t)(address + k);
                out_len += 9 + 2 * count;
            }
            send(fd, out, out_len, MSG_NOSIGNAL);
        }
    }
    return 0;
}
