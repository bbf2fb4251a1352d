# ext/rtu.pxd: Modbus RTU master as a pure state machine over (bytes, time); no descriptor, no clock inside.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from tidegate.ext.image cimport point_t
from tidegate.ext.port cimport command_slot_t, done_t, port_mail_t
from tidegate.ext.program cimport BLOCKS_MAX, SLAVES_MAX, command_row_t, program_t

cdef enum rtu_do:
    RTU_WAIT = 0  # nothing before `until_ns`, unless bytes come
    RTU_SEND = 1  # put `frame` on the wire now, then call rtu_sent
    RTU_RECV = 2  # a reply is under way: wake at `until_ns` or when `want` bytes may have come

cdef struct rtu_action_t:
    int what          # enum rtu_do
    uint64_t until_ns
    uint32_t want     # bytes still missing
    const uint8_t* frame
    uint32_t length

# rtu_t: the engine of one port; its fields are the engine's own (rtu.pyx).
cdef struct rtu_t:
    const program_t* program
    port_mail_t* mail
    int port
    uint8_t tx[264]
    uint8_t rx[264]

cdef void rtu_init(rtu_t* engine, const program_t* program, int port, port_mail_t* mail, uint64_t t_ns) noexcept nogil
# What to do now. Pure in (state, t_ns, mail); call again after every rtu_sent, rtu_bytes, or when until_ns has come.
cdef void rtu_next(rtu_t* engine, uint64_t t_ns, rtu_action_t* action) noexcept nogil
cdef void rtu_sent(rtu_t* engine, uint64_t t_end_ns) noexcept nogil  # t_end_ns: last byte on the wire
cdef void rtu_bytes(rtu_t* engine, const uint8_t* bytes, uint32_t count, uint64_t t_ns) noexcept nogil

cdef uint16_t crc16(const uint8_t* bytes, uint32_t count) noexcept nogil
cdef uint64_t rtu_char_ns(const program_t* program, int port) noexcept nogil

# The loop's side: registers to points, values to registers.
cdef void block_decode(const program_t* program, const done_t* done, point_t* image) noexcept nogil
cdef int command_encode(const program_t* program, const command_row_t* row, double value, const point_t* image,
                        uint16_t* regs) noexcept nogil  # words, 0 = cannot (scale unknown, out of range)
