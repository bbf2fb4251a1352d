# ext/cycle/publish.pxd: the core's own points, its events, its proof of life.
from libc.stdint cimport int32_t, uint32_t, uint64_t

from tidegate.ext.abi.image cimport point_t
from tidegate.ext.abi.shared cimport shared_t
from tidegate.ext.cycle.episodes cimport episode_word_t
from tidegate.ext.cycle.core cimport core_t, edges_t, enforcement_t, external_t

# What others change while the cycle runs, looked at once: the order to stop; the loop's lateness and the
# CAN buses; ports and slaves.
cdef void sample_stop(const core_t* core, external_t* external) noexcept nogil
cdef void sample_external(const core_t* core, external_t* external) noexcept nogil
cdef void sample_ports(const core_t* core, external_t* external) noexcept nogil
cdef void publish_points(const core_t* core, point_t* image, uint64_t t_ns) noexcept nogil
cdef void publish_latches(const core_t* core, shared_t* shared) noexcept nogil
cdef void raise_events(const core_t* core, edges_t* edges, shared_t* shared, uint64_t t_ns, uint64_t cycle) noexcept nogil
cdef void event_emit(shared_t* shared, uint32_t kind, int unit, int32_t code, int32_t previous, double value,
                     double limit_value, uint64_t t_ns, uint64_t cycle) noexcept nogil
cdef void event_post(shared_t* shared, uint32_t kind, int unit, const episode_word_t* word, double value,
                     double limit_value, uint64_t t_ns, uint64_t cycle) noexcept nogil
cdef void end_events(edges_t* edges, enforcement_t* enforcement, shared_t* shared, uint64_t t_ns, uint64_t cycle) noexcept nogil
cdef uint64_t proof_min(const core_t* core) noexcept nogil
