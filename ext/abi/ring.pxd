# ext/abi/ring.pxd: the ring of recorder.h, for those that write items into it.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from tidegate.ext.abi.image cimport point_t
from tidegate.ext.abi.port_mail cimport done_t
from tidegate.ext.abi.shared cimport order_t, plan_t, shared_t

# >> generated from abi/ring.h by `make pxd`; change the header, not this
cdef extern from "abi/ring.h" nogil:
    enum:
        RING_MAGIC
        RECORDER_LAYOUT_VERSION
        RING_HEAD_BYTES
        RING_STATES
        RECORD_BYTES_MAX

    const uint64_t STATE_EVERY_NS

    enum:
        RECORD_CYCLE
        RECORD_STATE
        RECORD_WRAP

    enum:
        RECORD_CUT

    enum:
        ITEM_FRAME
        ITEM_BUS_LOST
        ITEM_DONE
        ITEM_ORDER
        ITEM_PLAN
        ITEM_UTC
        ITEM_STOP
        ITEM_ESCALATION
        ITEM_WRITTEN
        ITEM_CAN
        ITEM_PORT
        ITEM_SLAVE
        ITEM_SELFTEST

    enum:
        PART_POINTS
        PART_VERDICTS
        PART_COMMANDS
        PART_EVENTS
        PARTS

    ctypedef struct ring_t:
        uint32_t magic, layout_version
        uint64_t size
        uint8_t program_sha256[32]
        uint64_t head
        uint64_t cycles
        uint64_t states
        uint64_t state_at[RING_STATES]

    ctypedef struct record_t:
        uint32_t size
        uint16_t kind, flags
        uint64_t cycle, t_ns, dt_ns
        uint32_t hash[PARTS]

    ctypedef struct item_t:
        uint16_t kind, index
        uint32_t size

    ctypedef struct item_frame_t:
        uint64_t t_ns
        uint32_t can_id
        uint8_t len, flags, is_fd, pad
        uint8_t data[64]

    ctypedef struct recorder_t:
        ring_t *ring
        uint8_t *data
        uint8_t *at
        uint8_t *end
        uint64_t head, state_due_ns
        uint64_t events
        uint32_t cut, begun

    void recorder_begin(recorder_t *r) noexcept
    void recorder_end(recorder_t *r, uint32_t kind, uint64_t cycle, uint64_t t_ns, uint64_t dt_ns,
                      const uint32_t hash[PARTS]) noexcept
    void recorder_put(recorder_t *r, uint16_t kind, uint32_t index, const void *body, uint32_t size) noexcept
    void recorder_frame(recorder_t *r, uint32_t bus, uint32_t can_id, uint8_t len, uint8_t flags, int is_fd,
                        const uint8_t *data, uint64_t t_ns) noexcept
    void recorder_lost(recorder_t *r, uint32_t bus) noexcept
    void recorder_done(recorder_t *r, uint32_t port, const done_t *done) noexcept
    void recorder_plan(recorder_t *r, const plan_t *plan) noexcept
    void recorder_word(recorder_t *r, uint16_t kind, uint32_t index, uint64_t word) noexcept
    void recorder_order(recorder_t *r, uint32_t kind, const order_t *order) noexcept

    ctypedef struct mix_t:
        uint64_t a, b, c

    void mix_words(mix_t *m, uint64_t a, uint64_t b, uint64_t c) noexcept
    uint64_t mix_bits(double value) noexcept
    void mix_points(mix_t *m, const point_t *points, uint32_t n) noexcept
    void mix_events(mix_t *m, const shared_t *s, uint64_t first, uint64_t end) noexcept
    void mix_bytes(mix_t *m, const void *bytes, size_t size) noexcept
    uint32_t mix_end(const mix_t *m) noexcept
    int ring_holds(const ring_t *ring, uint64_t at) noexcept
# << end of what is generated
