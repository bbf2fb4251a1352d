# ext/bus/can.pxd: CAN frames in by table, cyclic frames out.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from tidegate.ext.abi.image cimport point_t
from tidegate.ext.abi.program cimport CAN_FRAMES_MAX, CAN_TX_MAX, can_frame_row_t, can_tx_row_t, program_t
from tidegate.ext.safety.safety cimport gate_verdict_t
from tidegate.ext.abi.ring cimport recorder_t

cdef enum:
    CAN_BATCH_MAX = 64   # frames taken from a descriptor in one cycle at most (CAN_BATCH of can_io.h)
    CAN_QUEUE_MAX = 256  # frames that wait in a virtual bus; a power of two
    CAN_LOOKUP_SLOTS = 256  # hash slots, at least twice CAN_FRAMES_MAX

cdef enum can_state:
    CAN_ACTIVE = 0
    CAN_WARNING = 1
    CAN_PASSIVE = 2
    CAN_BUS_OFF = 3
    CAN_DOWN = 4  # interface down or gone, peer gone

cdef enum can_crc:  # can_frame_row_t.crc_kind, in the order of CRC_NAMES
    CRC_NONE = 0
    CRC_SUM_ORION = 1  # identifier + length + the other bytes (Orion BMS)
    CRC_SUM8 = 2       # sum of the other bytes
    CRC_XOR8 = 3       # exclusive or of the other bytes
    CRC_J1850 = 4      # CRC-8 SAE J1850: polynomial 0x1D, start 0xFF, inverted; over the other bytes
    CRC_AUTOSAR = 5    # CRC-8 AUTOSAR: polynomial 0x2F, start 0xFF, inverted

cdef extern from "bus/can_io.h" nogil:
    struct can_frame:
        uint32_t can_id
        uint8_t len
        uint8_t data[8]

    ctypedef struct can_buffer_t:  # a classic or FD frame, padded
        uint32_t can_id
        uint8_t len, flags
        uint8_t data[72]

    ctypedef struct can_batch_t:
        can_buffer_t frames[64]

    ctypedef struct can_ancillary_t:
        uint64_t realtime_ns
        uint32_t drops
        int has_drops, own

    void can_batch_init(can_batch_t* b) noexcept
    int can_batch_receive(can_batch_t* b, int fd) noexcept
    uint32_t can_batch_take(can_batch_t* b, int i, can_ancillary_t* beside) noexcept
    int can_send_frame(int fd, const can_frame* frame) noexcept
    uint64_t can_bits(const uint8_t* data, uint32_t start, uint32_t length, int big_endian) noexcept
    uint32_t can_bits_end(uint32_t start, uint32_t length, int big_endian) noexcept
    int can_slot_put(int32_t* slot, int fd) noexcept
    int can_slot_take(int32_t* slot) noexcept

# Per received id. Each frame on a listed id ends in exactly one of count, bad_length, crc_errors, counter_errors, repeated.
cdef struct can_frame_stats_t:
    uint64_t count           # decoded into the image
    uint64_t bad_length      # wrong length, or classic where FD is expected and the reverse
    uint64_t crc_errors
    uint64_t counter_errors  # live counter jumped; this frame ignored
    uint64_t repeated        # live counter stood still; this frame ignored, so the points age
    uint64_t invalid         # values (not frames) out of range or "not available"
    uint64_t early           # came sooner than half of the nominal period: a second sender, or a flood
    uint64_t t_last_ns, gap_max_ns, period_ns  # of all frames with the right length; period_ns: learned
    uint32_t counter         # last live counter
    uint32_t bucket          # leaky: + 1 a frame refused for CRC or counter, - 1 a good one, 0..10; 5 is a fault

# Per bus. frames = sum over ids of the above + unknown + malformed + error_frames + echoed.
cdef struct can_stats_t:
    uint64_t frames, unknown, malformed, error_frames, echoed
    uint64_t dropped         # by the kernel, because the socket's buffer was full
    uint64_t bus_off, restarts, ack_errors
    uint64_t sent, send_failed, tx_skipped, tx_late_max_ns  # skipped: grid points for which no frame went out in time
    uint32_t state           # enum can_state
    uint32_t tx_failed_run   # consecutive failed sends
    uint32_t unconfirmed     # own frames sent and not yet seen back, with CAN_BUS_ECHO
    int32_t error            # last errno
    uint8_t tec, rec         # the controller's error counters, where it tells them

cdef enum can_bus_flags:
    CAN_BUS_ECHO = 1  # the socket returns its own frames once they are on the wire (CAN_RAW_RECV_OWN_MSGS)

# One bus. fd >= 0: any descriptor that carries struct can_frame. fd == -1: a virtual bus, fed by can_inject and
# read back through `out`.
cdef struct can_bus_t:
    int fd
    uint8_t bus, flags
    uint8_t ready      # can_bus_init has run
    uint8_t fd_dead    # only a fresh descriptor helps
    uint8_t lost       # bus-off or down, and the points have been told
    uint32_t queue_head, queue_tail, out_head, out_tail
    uint64_t tx_due_ns     # the earliest of tx_next_ns
    uint64_t t_drained_ns  # last time that nothing was left waiting
    int64_t realtime_offset_ns  # CLOCK_REALTIME - CLOCK_MONOTONIC, set from outside the loop; 0 = unknown
    int32_t fd_fresh, fd_retired  # hand-over slots, see can_slot_put
    uint32_t drops_seen
    uint32_t n_tx
    can_stats_t stats
    uint64_t tx_next_ns[CAN_TX_MAX]
    uint32_t tx_counter[CAN_TX_MAX]
    uint8_t tx_row[CAN_TX_MAX]
    uint8_t lookup[CAN_LOOKUP_SLOTS]  # program row + 1
    can_frame queue[CAN_QUEUE_MAX]
    uint64_t queue_t_ns[CAN_QUEUE_MAX]
    can_frame out[CAN_QUEUE_MAX]
    uint64_t out_t_ns[CAN_QUEUE_MAX]
    can_batch_t batch
    recorder_t* recorder  # takes every frame that is decoded; NULL: none

# Prepares a zeroed bus: id lookup, transmit grid, receive batch. The first can_drain or can_send_due does it where
# nobody has. The bus must stay where it is afterwards.
cdef void can_bus_init(can_bus_t* bus, const program_t* program) noexcept nogil
# The read phase: takes what waits (bounded), decodes it into the image. Returns frames taken, < 0 -errno of the fd.
cdef int can_drain(const program_t* program, can_bus_t* bus, point_t* image, can_frame_stats_t* per_id,
                   uint64_t t_ns) noexcept nogil
# One frame; t_ns: when it was received. Returns 1 if its values went into the image.
cdef int can_decode(const program_t* program, can_bus_t* bus, const can_buffer_t* frame, bint is_fd, point_t* image,
                    can_frame_stats_t* per_id, uint64_t t_ns) noexcept nogil
# All points of a bus that nothing can come from any more are stale.
cdef void can_lose_points(const program_t* program, const can_bus_t* bus, point_t* image) noexcept nogil
# The write phase: sends the cyclic frames that are due; heartbeats only with their gate's permission. Returns frames
# sent, < 0 -errno of the last one that failed.
cdef int can_send_due(const program_t* program, can_bus_t* bus, const gate_verdict_t* verdicts,
                      uint64_t t_ns) noexcept nogil
# Checksum of a frame, leaving out byte `skip`. kind: enum can_crc.
cdef uint8_t can_checksum(int kind, const can_buffer_t* frame, uint32_t skip) noexcept nogil
# Puts a frame on a virtual bus, to be drained at t_ns or later. Returns 0, or -1 when the queue is full.
cdef int can_inject(can_bus_t* bus, const can_frame* frame, uint64_t t_ns) noexcept nogil
