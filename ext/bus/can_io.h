/* ext/bus/can_io.h: CAN frames through a file descriptor, many at a time, with the kernel's stamps and drop counter.
 *
 * The descriptor is a raw SocketCAN socket, or one end of an AF_UNIX SOCK_SEQPACKET pair that carries the same structs.
 */
#ifndef TIDEGATE_CAN_IO_H
#define TIDEGATE_CAN_IO_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* recvmmsg */
#endif
#include <errno.h>
#include <linux/can.h>
#include <linux/can/error.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define CAN_BATCH 64 /* frames taken in one cycle at most: three times what a full 1 Mbit/s bus can bring in 1 ms */

/* The kernel's can_frame and canfd_frame begin alike; 8 bytes behind them let the decoder load 64 bits anywhere. */
typedef struct {
    uint32_t can_id;
    uint8_t len, flags, reserved[2];
    uint8_t data[64 + 8];
} can_buffer_t;
_Static_assert(offsetof(can_buffer_t, data) == offsetof(struct can_frame, data), "kernel layout");
_Static_assert(offsetof(can_buffer_t, data) == offsetof(struct canfd_frame, data), "kernel layout");

/* Prepared once; holds pointers into itself, so it must not be copied. */
typedef struct {
    struct mmsghdr messages[CAN_BATCH];
    struct iovec parts[CAN_BATCH];
    can_buffer_t frames[CAN_BATCH];
    _Alignas(64) uint8_t controls[CAN_BATCH][64]; /* a stamp and the drop counter: one cache line a frame */
} can_batch_t;

/* What the kernel says beside a frame. */
typedef struct {
    uint64_t realtime_ns; /* CLOCK_REALTIME of reception; 0 = the descriptor gives none */
    uint32_t drops;       /* frames dropped by this socket so far, with `has_drops` */
    int has_drops;
    int own; /* this socket's own frame, coming back after its transmission */
} can_ancillary_t;
/* A stamp as the kernel writes it, whatever libc's timespec is: two words of the machine, or (new) two of 64 bits. On a
 * 64-bit machine they are the same; a 32-bit one is asked for the new one, which knows the years after 2038. */
#ifndef SO_TIMESTAMPNS_OLD
#define SO_TIMESTAMPNS_OLD 35
#define SO_TIMESTAMPNS_NEW 64
#endif
typedef struct {
    long s, ns;
} can_stamp_old_t;
typedef struct {
    int64_t s, ns;
} can_stamp_new_t;
_Static_assert(CMSG_SPACE(sizeof(can_stamp_new_t)) + CMSG_SPACE(sizeof(uint32_t)) <= 64, "both fit");

static inline void can_batch_init(can_batch_t *b) {
    memset(b, 0, sizeof *b);
    for (int i = 0; i < CAN_BATCH; i++) {
        b->parts[i].iov_base = &b->frames[i];
        b->parts[i].iov_len = CANFD_MTU;
        b->messages[i].msg_hdr.msg_iov = &b->parts[i];
        b->messages[i].msg_hdr.msg_iovlen = 1;
        b->messages[i].msg_hdr.msg_control = b->controls[i];
        b->messages[i].msg_hdr.msg_controllen = sizeof b->controls[i];
    }
}

/* Takes what waits. Returns the number of messages, 0 when nothing waits, -errno. */
static inline int can_batch_receive(can_batch_t *b, int fd) {
    int n = recvmmsg(fd, b->messages, CAN_BATCH, MSG_DONTWAIT, NULL);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    return n;
}

/* Reads what stands beside message i and makes it ready for the next batch. Returns its length in bytes. */
static inline uint32_t can_batch_take(can_batch_t *b, int i, can_ancillary_t *beside) {
    struct msghdr *h = &b->messages[i].msg_hdr;
    beside->realtime_ns = 0;
    beside->has_drops = 0;
    beside->own = (h->msg_flags & MSG_CONFIRM) != 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c != NULL; c = CMSG_NXTHDR(h, c)) {
        if (c->cmsg_level != SOL_SOCKET)
            continue;
        if (c->cmsg_type == SO_TIMESTAMPNS_NEW) {
            can_stamp_new_t t;
            memcpy(&t, CMSG_DATA(c), sizeof t);
            beside->realtime_ns = (uint64_t)t.s * 1000000000ull + (uint64_t)t.ns;
        } else if (c->cmsg_type == SO_TIMESTAMPNS_OLD) {
            can_stamp_old_t t;
            memcpy(&t, CMSG_DATA(c), sizeof t);
            beside->realtime_ns = (uint64_t)t.s * 1000000000ull + (uint64_t)t.ns;
        } else if (c->cmsg_type == SO_RXQ_OVFL) {
            memcpy(&beside->drops, CMSG_DATA(c), sizeof beside->drops);
            beside->has_drops = 1;
        }
    }
    h->msg_controllen = sizeof b->controls[i];
    h->msg_flags = 0;
    return b->messages[i].msg_len;
}

/* Sends one classic frame without waiting. Returns 0 or -errno. */
static inline int can_send_frame(int fd, const struct can_frame *frame) {
    ssize_t n = send(fd, frame, sizeof *frame, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n == (ssize_t)sizeof *frame)
        return 0;
    return n < 0 ? -errno : -EIO;
}

static inline uint64_t can_load_le(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    return v;
}
static inline uint64_t can_load_be(const uint8_t *p) { return __builtin_bswap64(can_load_le(p)); }

/* Bits of a DBC signal, right-aligned. `start` is the lowest bit for little endian, the highest for big endian. The
 * caller has checked with can_bits_end that they lie in the frame; bits 1..64. */
static inline uint64_t can_bits(const uint8_t *data, uint32_t start, uint32_t length, int big_endian) {
    const uint8_t *p = data + start / 8u;
    uint64_t raw;
    if (big_endian) {
        uint32_t skip = 7u - start % 8u;
        raw = can_load_be(p) << skip;
        if (skip + length > 64u)
            raw |= p[8] >> (8u - skip);
        raw >>= 64u - length;
        return raw;
    }
    uint32_t shift = start % 8u;
    raw = can_load_le(p) >> shift;
    if (shift + length > 64u)
        raw |= (uint64_t)p[8] << (64u - shift);
    return length < 64u ? raw & ((1ull << length) - 1u) : raw;
}
/* Bytes that a frame must have so that the signal lies in it. */
static inline uint32_t can_bits_end(uint32_t start, uint32_t length, int big_endian) {
    return (big_endian ? start / 8u * 8u + 7u - start % 8u + length + 7u : start + length + 7u) / 8u;
}

/* Filled and emptied by different threads: 0 = empty, else descriptor + 1. */
static inline int can_slot_put(int32_t *slot, int fd) {
    int32_t empty = 0;
    return __atomic_compare_exchange_n(slot, &empty, fd + 1, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}
static inline int can_slot_take(int32_t *slot) {
    if (__atomic_load_n(slot, __ATOMIC_RELAXED) == 0)
        return -1;
    return __atomic_exchange_n(slot, 0, __ATOMIC_ACQUIRE) - 1;
}

#endif
