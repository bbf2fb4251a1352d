# ext/abi/shared.pxd: contents page of shared.pyx and of shared.h, which owns the structs.
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from tidegate.ext.abi.image cimport UNITS_MAX, POINTS_MAX, integral_t, point_t
from tidegate.ext.safety.safety cimport fault_set_t

# >> generated from abi/shared.h by `make pxd`; change the header, not this
cdef extern from "abi/shared.h" nogil:
    enum:
        SHARED_MAGIC
        SHARED_LAYOUT_VERSION
        SNAPSHOT_SLOTS
        METER_SLOTS
        EVENT_SLOTS
        MAILBOX_SLOTS
        HISTOGRAM_BUCKETS
        BUSES_SIZE

    ctypedef struct histogram_t:
        uint64_t count, sum, min, max
        uint32_t buckets[HISTOGRAM_BUCKETS]

    enum:
        PHASE_READ
        PHASE_ESTIMATE
        PHASE_CONTROL
        PHASE_LIMIT
        PHASE_WRITE
        PHASE_PUBLISH
        PHASES

    enum:
        ESCALATION_NONE
        ESCALATION_DERATE
        ESCALATION_SAFE
        ESCALATION_SILENT
        ESCALATIONS

    ctypedef struct loop_stats_t:
        histogram_t lateness, work
        histogram_t phase[PHASES]
        uint64_t cycles, missed, skipped, overruns, longest_miss
        uint64_t minor_faults, major_faults, involuntary_switches
        uint32_t fifo, locked
        int32_t leaky_bucket
        uint32_t escalation

    ctypedef struct snapshot_t:
        uint64_t seq
        uint64_t cycle, t_ns
        point_t points[POINTS_MAX]

    enum:
        EVENT_START
        EVENT_MODE
        EVENT_REASON
        EVENT_FAULT_ON
        EVENT_FAULT_OFF
        EVENT_COMMAND
        EVENT_OVERRUN
        EVENT_BUS
        EVENT_STOP
        EVENT_SHORTFALL
        EVENT_LATCH
        EVENT_SOURCE
        EVENT_PLAN
        EVENT_UNENFORCED
        EVENT_HUNTING
        EVENT_BILLING
        EVENT_CLOCK
        EVENT_RECONNECT
        EVENT_METER
        EVENT_ISLAND
        EVENT_GENSET

    enum:
        CLOCK_NONE
        CLOCK_MOVED
        CLOCK_SYNCED
        CLOCK_FREE

    enum:
        RECONNECT_NONE
        RECONNECT_LOST
        RECONNECT_WAITING
        RECONNECT_RISING

    enum:
        ENFORCED
        UNENFORCED_STOPPED
        UNENFORCED_BLIND
        UNENFORCED_NO_UNIT
        UNENFORCED_NO_READING
        UNENFORCED_WIDENED
        UNENFORCED_SHORT
        UNENFORCED_OVERRULED
        UNENFORCED_EXCEEDED

    enum:
        BUS_ACTIVE
        BUS_WARNING
        BUS_PASSIVE
        BUS_OFF
        BUS_DOWN
        PORT_UP
        PORT_LOST
        SLAVE_BACK
        SLAVE_SILENT
        SLAVE_IDENTITY_MISMATCH

    ctypedef struct event_t:
        uint64_t seq
        uint64_t cycle, t_ns
        uint32_t kind
        int32_t unit
        int32_t code
        int32_t previous
        double value, limit
        double lasted_s
        uint32_t changes
        uint32_t pad

    enum:
        ORDER_MODE
        ORDER_SETPOINT_W
        ORDER_IMPORT_W_MAX
        ORDER_EXPORT_W_MAX
        ORDER_ACK
        ORDER_ARM
        ORDER_MANUAL_W
        ORDER_STOP
        ORDER_OPERATOR_IMPORT_W_MAX
        ORDER_OPERATOR_EXPORT_W_MAX
        ORDER_OPERATOR_STOP
        ORDER_WINDOW
        ORDER_POLICY
        ORDERS

    enum:
        ORDER_MODE_RUN
        ORDER_MODE_STOP

    ctypedef struct order_t:
        uint64_t seq
        uint64_t expires_t_ns
        double value
        uint64_t request

    enum:
        PLAN_ROWS

    enum:
        PLAN_NONE
        PLAN_CALENDAR
        PLAN_CLIENT
        PLAN_SOURCES

    enum:
        PLAN_FORCED

    ctypedef struct plan_row_t:
        uint64_t start_t_ns, end_t_ns
        double setpoint_w
        double until_soc
        double target_grid_w
        double charge_w_max, discharge_w_max
        double import_w_max, export_w_max, peak_w_max, demand_w_max
        uint32_t source, flags
        uint64_t number

    ctypedef struct plan_t:
        uint64_t seq
        uint64_t billing_end_t_ns
        uint64_t billing_number
        double paid_w
        int64_t clock_offset_ns
        uint64_t clock_next_t_ns
        int64_t clock_next_offset_ns
        uint32_t count, pad
        plan_row_t rows[PLAN_ROWS]

    enum:
        GUARD_GONE
        GUARD_STALLED
        GUARD_LATE
        GUARD_PRIORITY
        GUARD_UNLOCKED
        GUARD_CAUSES

    ctypedef struct guard_t:
        uint64_t looks
        uint64_t fed_systemd, fed_device
        uint64_t times[GUARD_CAUSES]
        uint64_t longest_ns
        uint32_t holding, pad

    ctypedef struct shared_t:
        uint32_t magic, layout_version, image_version, size
        uint8_t program_sha256[32]
        uint8_t boot_id[16]
        uint64_t t_start_ns
        int64_t utc_offset_ns
        uint32_t n_points, n_units
        int32_t core_pid
        uint32_t running
        uint64_t image_seq
        uint64_t cycle, t_ns
        point_t image[POINTS_MAX]
        uint64_t applied_seq[MAILBOX_SLOTS]
        uint64_t proof
        loop_stats_t loop
        order_t mailbox[MAILBOX_SLOTS]
        plan_t plan
        uint64_t plan_applied_seq
        uint64_t snapshot_head, meter_head, event_head
        event_t events[EVENT_SLOTS]
        snapshot_t snapshots[SNAPSHOT_SLOTS]
        snapshot_t meters[METER_SLOTS]
        fault_set_t latches[UNITS_MAX]
        int32_t latch_first[UNITS_MAX]
        uint64_t latch_changes
        uint64_t latch_kept
        uint64_t buses_seq
        uint32_t buses_size, pad
        uint8_t buses[BUSES_SIZE]
        guard_t guard
        int32_t loop_tid
        int32_t pad_end

    void buses_put(shared_t *s, const void *json, uint32_t size) noexcept
    uint32_t buses_get(const shared_t *s, void *json) noexcept
    void image_begin(shared_t *s) noexcept
    void image_end(shared_t *s) noexcept
    int image_copy(const shared_t *s, point_t *points, uint64_t *cycle, uint64_t *t_ns) noexcept
    void snapshot_push(snapshot_t *ring, uint32_t slots, uint64_t *head, const point_t *points, uint32_t n,
                       uint64_t cycle, uint64_t t_ns) noexcept
    int snapshot_read(const snapshot_t *ring, uint32_t slots, const uint64_t *head, uint64_t number, uint32_t n,
                      snapshot_t *out) noexcept
    void event_push(shared_t *s, const event_t *event) noexcept
    int event_read(const shared_t *s, uint64_t number, event_t *out) noexcept
    void order_put(order_t *slot, double value, uint64_t expires_t_ns, uint64_t request) noexcept
    int order_get(const order_t *slot, order_t *out) noexcept
    void plan_put(plan_t *slot, const plan_t *plan) noexcept
    int plan_get(const plan_t *slot, plan_t *out) noexcept
    void histogram_add(histogram_t *h, uint64_t ns) noexcept
    uint64_t histogram_edge(uint32_t index) noexcept
# << end of what is generated


# A 64 bit word that another process writes.
cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t shared_load64(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
    static inline uint32_t shared_load32(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
    static inline void shared_store64(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
    """
    uint64_t shared_load64(const uint64_t* word) noexcept nogil
    uint32_t shared_load32(const uint32_t* word) noexcept nogil
    void shared_store64(uint64_t* word, uint64_t value) noexcept nogil


cdef class Shared:
    cdef shared_t* ptr  # what the loop works on; valid as long as this object lives
    cdef readonly bint writable
    cdef _ring(self, const snapshot_t* ring, uint32_t slots, const uint64_t* head, str what, uint64_t number)
    cdef int _must_write(self) except -1

cdef class Writer(Shared):
    cdef uint32_t _rows(self, points, point_t* rows) except? 0xFFFFFFFF
