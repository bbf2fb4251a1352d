# ext/bus/mbap.pxd: the stream of Modbus TCP, cut into frames; no descriptor, no clock inside.
from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum:
    MBAP_HEADER = 6      # transaction id, protocol 0, length of what follows
    MBAP_RX = 2048

cdef enum mbap_status:
    MBAP_BROKEN = -1     # bytes that follow no frame: nothing behind them can be believed
    MBAP_NONE = 0        # the rest has still to come
    MBAP_FRAME = 1
    MBAP_SUSPECT = 2       # a frame whose end may be the beginning of another

# What has come on one connection and was not taken yet.
cdef struct stream_t:
    uint16_t tid         # of the newest request, over all connections
    uint32_t rx_len
    uint8_t rx[MBAP_RX]

# A frame of the stream; `bytes` (unit, function, data) lie in the stream and hold until mbap_taken.
cdef struct mbap_frame_t:
    uint16_t tid
    uint32_t length
    const uint8_t* bytes

# The header of the next request, of `length` bytes: its transaction id.
cdef uint16_t mbap_ask(stream_t* stream, uint8_t* header, uint32_t length) noexcept nogil
# n bytes were read behind rx_len, in one piece.
cdef int mbap_came(stream_t* stream, uint32_t n) noexcept nogil
# The frame at `used`, which goes on behind it. An mbap_status.
cdef int mbap_next(const stream_t* stream, uint32_t* used, mbap_frame_t* frame) noexcept nogil
# The first `used` bytes are done with.
cdef void mbap_taken(stream_t* stream, uint32_t used) noexcept nogil
