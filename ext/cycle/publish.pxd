# ext/cycle/publish.pxd: the core's own points, its events, its proof of life.
from libc.stdint cimport int32_t, uint32_t, uint64_t

from tidegate.ext.cycle.core cimport core_t

cdef void sample_external(core_t* core) noexcept nogil
cdef void publish_points(core_t* core, uint64_t t_ns) noexcept nogil
cdef void raise_events(core_t* core, uint64_t t_ns, uint64_t cycle) noexcept nogil
cdef void event_emit(core_t* core, uint32_t kind, int unit, int32_t code, int32_t previous, double value, double limit_value,
                     uint64_t t_ns, uint64_t cycle) noexcept nogil
cdef uint64_t proof_min(const core_t* core) noexcept nogil
