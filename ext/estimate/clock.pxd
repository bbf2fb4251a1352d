# ext/estimate/clock.pxd: where the demand windows begin, and what is kept for windows that move.
from libc.stdint cimport int64_t, uint64_t

from tidegate.ext.abi.image cimport point_t
from tidegate.ext.abi.program cimport program_t
from tidegate.ext.abi.settings cimport control_params_t
from tidegate.ext.estimate.estimate cimport estimate_state_t

# Keeps the import between two readings by the monotonic clock.
cdef void slices_add(estimate_state_t* state, double from_w, double to_w, uint64_t from_ns, uint64_t to_ns) noexcept nogil

# The wall clock as it is set from outside; windows that it moves are counted anew.
cdef void clock_set(const control_params_t* params, estimate_state_t* state, int64_t offset_ns, uint64_t t_ns) noexcept nogil

# The utility's window began at began_ns: this decides until its pulses stay away.
cdef void window_began(const control_params_t* params, estimate_state_t* state, uint64_t began_ns, uint64_t t_ns) noexcept nogil

# Looks for a pulse among the readings.
cdef void window_watch(const program_t* program, const point_t* image, estimate_state_t* state, uint64_t t_ns) noexcept nogil
