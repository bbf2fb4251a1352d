/* Calls of libc that fail when a test says so. Preloaded.
 *
 * Each process maps FOLDER/MODULE (FOLDER: TIDEGATE_TEST_FAULTS, MODULE: the word behind -m of its command line), an array of
 * `slot`, one a function in the order of FUNCTIONS. The test sets `errno_` and then `countdown`: the call that brings it
 * to zero fails, once or until `more` is used up.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct {
    _Atomic int countdown; /* 0 = nothing is asked for */
    _Atomic int error;
    _Atomic int more; /* how many calls after it fail too */
    _Atomic unsigned hits;
    _Atomic unsigned calls;
    int pad[3];
} slot;

#define FUNCTIONS(X)                                                                                                   \
    X(open) X(openat) X(read) X(write) X(pread) X(pwrite) X(recv) X(send) X(recvmsg) X(sendmsg) X(accept4) X(socket)   \
    X(connect) X(poll) X(epoll_wait) X(pipe2) X(eventfd) X(fsync) X(fdatasync) X(rename) X(unlink) X(mkdir) X(fork)    \
    X(pthread_create) X(mmap) X(ftruncate) X(waitpid) X(kill) X(opendir) X(malloc)
enum {
#define X(name) N_##name,
    FUNCTIONS(X)
#undef X
        N
};

static slot *slots;

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("TIDEGATE_TEST_FAULTS");
    if (!folder) return;
    char line[4096] = "", path[4096];
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    ssize_t n = read(fd, line, sizeof line - 1);
    close(fd);
    const char *module = 0;
    for (ssize_t i = 0; i < n; i += (ssize_t)strlen(line + i) + 1)
        if (strcmp(line + i, "-m") == 0) {
            module = line + i + 3;
            break;
        }
    if (!module) return;
    snprintf(path, sizeof path, "%s/%s", folder, module);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *at = mmap(0, sizeof(slot) * N, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at != MAP_FAILED) slots = at;
}

static int fails(int which) {
    if (!slots) return 0;
    slot *s = &slots[which];
    s->calls++;
    int left = s->countdown;
    if (left <= 0) return 0;
    if (atomic_fetch_sub(&s->countdown, 1) != 1) return 0;
    if (s->more > 0) {
        s->more--;
        s->countdown = 1;
    }
    s->hits++;
    errno = s->error;
    return s->error;
}

#define REAL(name)                                                                                                     \
    static __typeof__(name) *real;                                                                                     \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define WRAP(type, name, parameters, arguments, failed)                                                                \
    type name parameters {                                                                                             \
        REAL(name);                                                                                                    \
        if (fails(N_##name)) return failed;                                                                            \
        return real arguments;                                                                                         \
    }

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    REAL(open);
    return fails(N_open) ? -1 : real(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    REAL(open);
    return fails(N_open) ? -1 : real(path, flags | O_LARGEFILE, mode);
}
int openat(int at, const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    REAL(openat);
    return fails(N_openat) ? -1 : real(at, path, flags, mode);
}
WRAP(ssize_t, read, (int fd, void *to, size_t n), (fd, to, n), -1)
WRAP(ssize_t, write, (int fd, const void *from, size_t n), (fd, from, n), -1)
WRAP(ssize_t, pread, (int fd, void *to, size_t n, off_t at), (fd, to, n, at), -1)
ssize_t pread64(int fd, void *to, size_t n, off_t at) { return pread(fd, to, n, at); }
WRAP(ssize_t, pwrite, (int fd, const void *from, size_t n, off_t at), (fd, from, n, at), -1)
ssize_t pwrite64(int fd, const void *from, size_t n, off_t at) { return pwrite(fd, from, n, at); }
WRAP(ssize_t, recv, (int fd, void *to, size_t n, int how), (fd, to, n, how), -1)
WRAP(ssize_t, send, (int fd, const void *from, size_t n, int how), (fd, from, n, how), -1)
WRAP(ssize_t, recvmsg, (int fd, struct msghdr *m, int how), (fd, m, how), -1)
WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *m, int how), (fd, m, how), -1)
WRAP(int, accept4, (int fd, __SOCKADDR_ARG a, socklen_t *n, int how), (fd, a, n, how), -1)
WRAP(int, socket, (int family, int type, int protocol), (family, type, protocol), -1)
WRAP(int, connect, (int fd, __CONST_SOCKADDR_ARG a, socklen_t n), (fd, a, n), -1)
WRAP(int, poll, (struct pollfd *fds, nfds_t n, int ms), (fds, n, ms), -1)
WRAP(int, epoll_wait, (int fd, struct epoll_event *e, int n, int ms), (fd, e, n, ms), -1)
WRAP(int, pipe2, (int fds[2], int how), (fds, how), -1)
extern int eventfd(unsigned, int);
WRAP(int, eventfd, (unsigned from, int how), (from, how), -1)
WRAP(int, fsync, (int fd), (fd), -1)
WRAP(int, fdatasync, (int fd), (fd), -1)
WRAP(int, rename, (const char *from, const char *to), (from, to), -1)
WRAP(int, unlink, (const char *path), (path), -1)
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode), -1)
WRAP(pid_t, fork, (void), (), -1)
WRAP(void *, mmap, (void *at, size_t n, int prot, int flags, int fd, off_t offset), (at, n, prot, flags, fd, offset), MAP_FAILED)
void *mmap64(void *at, size_t n, int prot, int flags, int fd, off_t offset) { return mmap(at, n, prot, flags, fd, offset); }
WRAP(int, ftruncate, (int fd, off_t n), (fd, n), -1)
int ftruncate64(int fd, off_t n) { return ftruncate(fd, n); }
WRAP(pid_t, waitpid, (pid_t pid, int *status, int how), (pid, status, how), -1)
WRAP(int, kill, (pid_t pid, int number), (pid, number), -1)
struct __dirstream;
extern struct __dirstream *opendir(const char *);
WRAP(struct __dirstream *, opendir, (const char *path), (path), 0)
int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*start)(void *), void *with) {
    REAL(pthread_create);
    int error = fails(N_pthread_create);
    return error ? error : real(thread, how, start, with);
}
extern void *__libc_malloc(size_t);
void *malloc(size_t n) { return fails(N_malloc) ? 0 : __libc_malloc(n); }
