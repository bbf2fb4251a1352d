"""The stream of Modbus TCP, cut into frames, and when a stream is no longer one."""

from libc.string cimport memchr, memcmp, memmove

cdef enum:
    FRAME_LEAST = 3      # unit, function, and one byte
    FRAME_MOST = 254
    TIDS_BACK = 64       # a reply to an older request than that is none
    STRIDE = 257         # from one id to the next: no byte of it stays for long
    STRIDE_INVERSE = 0xFF01
    HEAD = 8             # of a reply, unit and function included


cdef uint16_t mbap_ask(stream_t* stream, uint8_t* header, uint32_t length) noexcept nogil:
    stream.tid += STRIDE
    header[0], header[1] = <uint8_t>(stream.tid >> 8), <uint8_t>stream.tid
    header[2] = header[3] = header[4] = 0
    header[5] = <uint8_t>length
    return stream.tid


cdef int mbap_came(stream_t* stream, uint32_t n) noexcept nogil:
    cdef uint32_t had = stream.rx_len
    if had >= MBAP_HEADER and n >= MBAP_HEADER and memcmp(stream.rx, stream.rx + had, MBAP_HEADER) == 0:
        return MBAP_BROKEN  # begun anew in the middle of it
    stream.rx_len += n
    return MBAP_NONE


cdef int mbap_next(const stream_t* stream, uint32_t* used, mbap_frame_t* frame) noexcept nogil:
    cdef const uint8_t* p = stream.rx + used[0]
    cdef uint32_t left = stream.rx_len - used[0], whole
    if not plausible(stream, p, left):
        return MBAP_BROKEN
    if left < MBAP_HEADER or left < MBAP_HEADER + <uint32_t>p[5]:
        return MBAP_NONE
    whole = MBAP_HEADER + <uint32_t>p[5]
    # What follows a frame shows whether it was one.
    if not plausible(stream, p + whole, left - whole):
        return MBAP_BROKEN
    frame.tid = <uint16_t>(p[0] << 8 | p[1])
    frame.length = p[5]
    frame.bytes = p + MBAP_HEADER
    used[0] += whole
    return begun_anew(p, whole)


cdef int begun_anew(const uint8_t* p, uint32_t whole) noexcept nogil:
    """Whether the same reply begins again inside this one: a server broke off, and what it sent then made the frame whole.

    At the very end it may be chance: one frame in 256 ends with the first byte of its id.
    """
    cdef const uint8_t* at = <const uint8_t*>memchr(p + 1, p[0], whole - 1)
    cdef uint32_t left, n
    while at != NULL:
        left = whole - <uint32_t>(at - p)
        n = left if left < HEAD else HEAD
        if memcmp(at, p, n) == 0:
            return MBAP_BROKEN if n == HEAD else MBAP_SUSPECT
        at = <const uint8_t*>memchr(at + 1, p[0], left - 1)
    return MBAP_FRAME


cdef bint plausible(const stream_t* stream, const uint8_t* p, uint32_t n) noexcept nogil:
    """Whether n bytes can be the beginning of a reply on this connection."""
    if n == 0:
        return True
    if n == 1:  # the high byte of an id that is still remembered
        return <uint8_t>((stream.tid >> 8) - p[0]) <= TIDS_BACK + 1
    if <uint16_t>((stream.tid - <uint32_t>(p[0] << 8 | p[1])) * STRIDE_INVERSE) > TIDS_BACK:
        return False
    if (n > 2 and p[2] != 0) or (n > 3 and p[3] != 0) or (n > 4 and p[4] != 0):
        return False
    return n < MBAP_HEADER or FRAME_LEAST <= p[5] <= FRAME_MOST


cdef void mbap_taken(stream_t* stream, uint32_t used) noexcept nogil:
    stream.rx_len -= used
    if stream.rx_len:
        memmove(stream.rx, stream.rx + used, stream.rx_len)
