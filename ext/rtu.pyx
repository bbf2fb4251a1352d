"""Placeholder."""


cdef void rtu_init(rtu_t* engine, const program_t* program, int port, port_mail_t* mail, uint64_t t_ns) noexcept nogil:
    pass


cdef void rtu_next(rtu_t* engine, uint64_t t_ns, rtu_action_t* action) noexcept nogil:
    pass


cdef void rtu_sent(rtu_t* engine, uint64_t t_end_ns) noexcept nogil:
    pass


cdef void rtu_bytes(rtu_t* engine, const uint8_t* bytes, uint32_t count, uint64_t t_ns) noexcept nogil:
    pass


cdef uint16_t crc16(const uint8_t* bytes, uint32_t count) noexcept nogil:
    return 0


cdef uint64_t rtu_char_ns(const program_t* program, int port) noexcept nogil:
    return 0


cdef void block_decode(const program_t* program, const done_t* done, point_t* image) noexcept nogil:
    pass


cdef int command_encode(const program_t* program, const command_row_t* row, double value, const point_t* image,
                        uint16_t* regs) noexcept nogil:
    return 0
