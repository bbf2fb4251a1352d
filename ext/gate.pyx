"""Placeholder."""


cdef void gate_input_from_image(const program_t* program, int unit, const point_t* image, gate_input_t* out) noexcept nogil:
    pass
