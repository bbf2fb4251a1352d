# ext/can.pxd: CAN frames in by table, cyclic frames out.
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from tidegate.ext.image cimport point_t
from tidegate.ext.program cimport CAN_FRAMES_MAX, CAN_TX_MAX, program_t
from tidegate.ext.gate cimport gate_verdict_t

cdef enum:
    CAN_BATCH_MAX = 64   # frames taken in one cycle at most
    CAN_QUEUE_MAX = 256  # frames that wait in a virtual bus

cdef extern from "<linux/can.h>" nogil:
    struct can_frame:
        uint32_t can_id
        uint8_t len
        uint8_t data[8]

cdef struct can_frame_stats_t:  # per received id
    uint64_t count, bad_length, invalid, counter_errors, crc_errors
    uint64_t t_last_ns, gap_max_ns, period_ns  # period_ns: learned

cdef struct can_stats_t:  # per bus
    uint64_t frames, unknown, error_frames, dropped, bus_off, restarts, sent, send_failed
    uint32_t state  # 0 active, 1 warning, 2 passive, 3 bus-off, 4 down

# One bus. fd >= 0: any descriptor that carries struct can_frame. fd == -1: a virtual bus, fed by can_inject and
# read back through `out`.
cdef struct can_bus_t:
    int fd
    uint8_t bus
    can_stats_t stats
    can_frame queue[CAN_QUEUE_MAX]
    uint64_t queue_t_ns[CAN_QUEUE_MAX]
    uint32_t queue_head, queue_tail
    can_frame out[CAN_QUEUE_MAX]
    uint64_t out_t_ns[CAN_QUEUE_MAX]
    uint32_t out_head, out_tail
    uint64_t tx_next_ns[CAN_TX_MAX]

# The read phase: takes what waits (bounded), decodes it into the image. Returns frames taken, < 0 errno of the fd.
cdef int can_drain(const program_t* program, can_bus_t* bus, point_t* image, can_frame_stats_t* per_id,
                   uint64_t t_ns) noexcept nogil
cdef int can_decode(const program_t* program, uint8_t bus, const can_frame* frame, point_t* image,
                    can_frame_stats_t* per_id, can_stats_t* stats, uint64_t t_ns) noexcept nogil
# The write phase: sends the cyclic frames that are due; heartbeats only with their gate's permission.
cdef int can_send_due(const program_t* program, can_bus_t* bus, const gate_verdict_t* verdicts,
                      uint64_t t_ns) noexcept nogil
cdef int can_inject(can_bus_t* bus, const can_frame* frame, uint64_t t_ns) noexcept nogil
