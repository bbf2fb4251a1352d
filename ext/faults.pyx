"""Placeholder."""


cdef uint64_t diagnose(const program_t* program, int unit, const point_t* image, diagnose_state_t* state,
                       uint64_t t_ns, uint64_t dt_ns) noexcept nogil:
    return 0
