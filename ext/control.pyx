"""Placeholder."""


cdef void control_step(const control_params_t* params, const plant_t* plant, const orders_t* orders,
                       control_state_t* state, decision_t* decision, double dt_s) noexcept nogil:
    pass
