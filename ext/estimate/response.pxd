# ext/estimate/response.pxd: contents page of response.pyx.
from libc.stdint cimport uint64_t

from tidegate.ext.estimate.estimate cimport unit_memory_t

# Another setpoint that the gate let go, and when.
cdef void response_told(unit_memory_t* m, double setpoint_w, double nameplate_w, uint64_t t_ns) noexcept nogil
# A new reading is learnt of, and held against what was expected. interval_s: the unit measures its power anew so often,
# 0 = unknown; often: it is read more often than that; slack_s: when this one was measured is known no closer.
cdef void response_reading(unit_memory_t* m, double w, double interval_s, bint often, double slack_s) noexcept nogil
# All that the unit's power may have been from one time to another; 0 = nothing is known of it.
cdef bint response_bounds(const unit_memory_t* m, uint64_t from_ns, uint64_t to_ns, double* lo, double* hi) noexcept nogil
# Its power at one time, where that is known.
cdef double response_w(const unit_memory_t* m, uint64_t t_ns) noexcept nogil
