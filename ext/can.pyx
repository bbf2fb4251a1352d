"""Placeholder."""


cdef int can_drain(const program_t* program, can_bus_t* bus, point_t* image, can_frame_stats_t* per_id,
                   uint64_t t_ns) noexcept nogil:
    return 0


cdef int can_decode(const program_t* program, uint8_t bus, const can_frame* frame, point_t* image,
                    can_frame_stats_t* per_id, can_stats_t* stats, uint64_t t_ns) noexcept nogil:
    return 0


cdef int can_send_due(const program_t* program, can_bus_t* bus, const gate_verdict_t* verdicts,
                      uint64_t t_ns) noexcept nogil:
    return 0


cdef int can_inject(can_bus_t* bus, const can_frame* frame, uint64_t t_ns) noexcept nogil:
    return 0
