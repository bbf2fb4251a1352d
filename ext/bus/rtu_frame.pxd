# ext/bus/rtu_frame.pxd: frames of Modbus RTU, and the judgement of a reply.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from tidegate.ext.abi.program cimport program_t
from tidegate.ext.bus.rtu cimport rtu_t

cdef enum:
    PENDING = -1      # judge: the reply is not whole
    LEAD_IN_MAX = 3   # bytes that may stand before a reply: one less than the shortest frame

cdef uint16_t crc16(const uint8_t* bytes, uint32_t count) noexcept nogil
# Append the CRC, low byte first; returns the whole length.
cdef uint32_t crc_append(uint8_t* frame, uint32_t count) noexcept nogil
# Bytes of a good reply to this request (without CRC); 0 = the reply tells (43/14) or nobody knows.
cdef uint16_t predicted(const uint8_t* frame, uint32_t count) noexcept nogil
cdef uint64_t rtu_char_ns(const program_t* program, int port) noexcept nogil
# Silence that the port's rule asks for between two frames.
cdef uint64_t rtu_gap_ns(const program_t* program, int port) noexcept nogil
# Whether what came is the reply: a done_status, or PENDING.
cdef int judge(rtu_t* e) noexcept nogil
# The same of a frame that came whole, without CRC.
cdef int judge_framed(rtu_t* e) noexcept nogil
# Whether all that came since the last silence can be no frame: too short, and not the beginning of the reply.
cdef bint noise(rtu_t* e) noexcept nogil
# What a reply whose time is over counts as: a done_status.
cdef int overdue(rtu_t* e) noexcept nogil


cdef inline void put_word(uint8_t* at, uint32_t word) noexcept nogil:
    at[0] = <uint8_t>(word >> 8)
    at[1] = <uint8_t>word


cdef inline uint16_t read_reply(uint32_t function, uint32_t count) noexcept nogil:
    return <uint16_t>(5 + ((count + 7) // 8 if function <= 2 else 2 * count))
