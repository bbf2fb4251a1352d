/* ext/bus/tcp_socket.h: a connection to one configured address, without waiting and without a name server. */
#ifndef TIDEGATE_TCP_SOCKET_H
#define TIDEGATE_TCP_SOCKET_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define TCP_UNSENT_MS 3000 /* an unconfirmed segment ends the connection after so long */
#define TCP_IDLE_S 10      /* an idle connection is asked whether the other side still lives */
#define TCP_PROBE_S 5

typedef struct {
    struct sockaddr_storage address;
    socklen_t length;
} tcp_to_t;

static inline void tcp_to_set(tcp_to_t *to, uint8_t family, const uint8_t *host, uint16_t port) {
    memset(to, 0, sizeof(*to));
    if (family == 6) {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&to->address;
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(port);
        memcpy(&in6->sin6_addr, host, 16);
        to->length = sizeof(*in6);
    } else {
        struct sockaddr_in *in4 = (struct sockaddr_in *)&to->address;
        in4->sin_family = AF_INET;
        in4->sin_port = htons(port);
        memcpy(&in4->sin_addr, host, 4);
        to->length = sizeof(*in4);
    }
}

static inline void tcp_option(int fd, int level, int name, int value) { setsockopt(fd, level, name, &value, sizeof(value)); }

/* A descriptor whose connection is being made: writable once it stands or has failed. -1 and errno. */
static inline int tcp_begin(const tcp_to_t *to) {
    int fd = socket(to->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0)
        return -1;
    tcp_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    tcp_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    tcp_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, TCP_IDLE_S);
    tcp_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, TCP_PROBE_S);
    tcp_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
    tcp_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, TCP_UNSENT_MS);
    if (connect(fd, (const struct sockaddr *)&to->address, to->length) != 0 && errno != EINPROGRESS) {
        int problem = errno;
        close(fd);
        errno = problem;
        return -1;
    }
    return fd;
}
static inline int tcp_problem(int fd) { /* errno of a connection, 0 = it stands */
    int problem = 0;
    socklen_t size = sizeof(problem);
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &problem, &size) == 0 ? problem : errno;
}
/* All of it at once, or -1: a request is far smaller than a socket's buffer, so a peer that takes nothing is broken. */
static inline int tcp_put(int fd, const uint8_t *bytes, size_t count) {
    ssize_t n = send(fd, bytes, count, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n == (ssize_t)count)
        return 0;
    if (n >= 0)
        errno = EAGAIN;
    return -1;
}
static inline ssize_t tcp_take(int fd, uint8_t *bytes, size_t room) { return recv(fd, bytes, room, MSG_DONTWAIT); }
/* From now on a read may sleep, for `ns` at most; every other call says MSG_DONTWAIT. 0, or -1 and errno. */
static inline int tcp_may_block(int fd, uint64_t ns) {
    struct timeval t = {(time_t)(ns / 1000000000u), (suseconds_t)(ns % 1000000000u / 1000u)};
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) != 0)
        return -1;
    return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
}
static inline ssize_t tcp_wait(int fd, uint8_t *bytes, size_t room) { return recv(fd, bytes, room, 0); }
static inline int watch_new(void) { return epoll_create1(EPOLL_CLOEXEC); }
static inline int watch_wake_new(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }
static inline int watch_add(int watch, int fd, uint32_t mark, int writable) {
    struct epoll_event event = {.events = writable ? EPOLLOUT : EPOLLIN, .data = {.u32 = mark}};
    return epoll_ctl(watch, EPOLL_CTL_ADD, fd, &event);
}
static inline int watch_readable(int watch, int fd, uint32_t mark) {
    struct epoll_event event = {.events = EPOLLIN, .data = {.u32 = mark}};
    return epoll_ctl(watch, EPOLL_CTL_MOD, fd, &event);
}
/* Marks of the descriptors that are ready, at most `most` (at most 64); 0 after `ns`. A kernel before 5.11 has no wait of
 * its own that ends to the microsecond: there it is two calls, for one that fails at once would be asked for ever. */
static inline int watch_wait(int watch, uint32_t *marks, int most, uint64_t ns) {
    struct epoll_event events[64];
    struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    int room = most < 64 ? most : 64, n = epoll_pwait2(watch, events, room, &t, NULL);
    if (n < 0 && errno == ENOSYS) {
        struct pollfd ready = {watch, POLLIN, 0};
        n = ppoll(&ready, 1, &t, NULL);
        if (n > 0)
            n = epoll_wait(watch, events, room, 0);
    }
    for (int i = 0; i < n; i++)
        marks[i] = events[i].data.u32;
    return n;
}
static inline void wake_ring(int fd) {
    uint64_t one = 1;
    ssize_t done = write(fd, &one, sizeof(one));
    (void)done;
}
static inline void wake_clear(int fd) {
    uint64_t count;
    ssize_t done = read(fd, &count, sizeof(count));
    (void)done;
}

#endif
