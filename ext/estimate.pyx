"""Placeholder."""


cdef void image_age(const program_t* program, point_t* image, uint64_t t_ns) noexcept nogil:
    pass


cdef void estimate_step(const program_t* program, point_t* image, const gate_input_t* inputs,
                        const gate_verdict_t* last, estimate_state_t* state, plant_t* plant,
                        uint64_t t_ns, uint64_t dt_ns) noexcept nogil:
    pass
