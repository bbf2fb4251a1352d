# ext/estimate/converter.pxd: contents page of converter.pyx.
from libc.stdint cimport int32_t, uint32_t, uint64_t

from tidegate.ext.abi.image cimport point_t
from tidegate.ext.estimate.easing cimport easing_t
from tidegate.ext.estimate.estimate cimport interval_t, unit_memory_t, unit_view_t


cdef enum:
    LINE_SLOTS = 800   # setpoints of late, 10 ms apart
    MOVE_READINGS = 64     # readings of one move

# What one direction gives of what it is told: sums of a weighted fit of a line, in shares of the nameplate.
cdef struct fit_t:
    double s1, sm, smm, sy, smy
    double prior           # gain that it starts from
    double gain, offset    # the line
    double spread          # of the gain, one standard deviation
    double used_gain, used_offset # as the orders are corrected by
    double odd_s           # for so long readings have been off the line
    double over_s          # and for so long far above it
    double cap             # most that it gives, share of the nameplate; 0 = no such limit seen
    double cap_hold_s, cap_wait_s, free_s
    double suspect_m, suspect_y, suspect_gain # where it fell short last: gain or limit?
    uint32_t suspect, capped, rising
    uint32_t correcting    # 1 = the correction is on its way to the line

# One move of the setpoint, watched until the answer stands.
cdef struct watch_t:
    uint64_t t_ns, level_t_ns  # when the setpoint left, when it last changed
    double from_w, to_w        # setpoint
    double rest_w, last_w      # reading before, newest
    double answer_s, stands_s  # since the first tenth; since it last grew
    double t_s[MOVE_READINGS]
    double w[MOVE_READINGS]
    uint32_t count, on

# Memory of one unit's converter; zeroed at start.
cdef struct converter_t:
    double line_w[LINE_SLOTS]
    double line_left_s
    double model_w             # what it would give with a gain of one
    double late_w              # and if it were slower than is believed
    double slow_model_w, slow_w
    double read_w, read_gap_s
    interval_t interval        # its power is another one so often: what is read again in between tells nothing
    double setpoint_w
    double asked_w             # of the gate, before gain and offset were undone
    double dead_s, dead_lo_s, dead_hi_s
    double lag_s, lag_lo_s, lag_hi_s
    double ramp_w_per_s        # steepest move seen
    double ramp_limit_w_per_s  # found to be its own limit; 0 = not
    double still_s             # the setpoint has stood for so long
    fit_t fits[2]              # discharge, charge
    watch_t watch
    uint64_t read_t_ns, changed_t_ns
    uint32_t head, moves, started
    uint32_t let_through       # 1 = the gate took nothing of what was asked of it last

# Before the first step: times and gain as they were measured before this start, 0 = not; the first move replaces them.
cdef void converter_begin(converter_t* converter, double dead_s, double lag_s, double gain) noexcept nogil
# After the estimate: learn from the newest reading, and let the control count on what it gives.
# setpoint_w: what the gate let go last; fresh_s: its power is new so often. memory.told_*: what it may be answering now.
cdef void converter_step(converter_t* converter, const point_t* reading, double setpoint_w, double nameplate_w,
                         double first_lag_s, double fresh_s, unit_memory_t* memory, unit_view_t* view, uint64_t t_ns,
                         double dt_s) noexcept nogil
# What the gate is to be asked for, so that the converter gives request_w.
cdef double converter_order(converter_t* converter, double request_w, double nameplate_w) noexcept nogil
# By when a setpoint has been answered, s: as it was seen to be, or what is waited at most while nothing was seen.
cdef double converter_answer_s(const converter_t* converter) noexcept nogil
# Gain, and its bounds; the direction that is known better.
cdef double converter_gain(const converter_t* converter, double* lo, double* hi) noexcept nogil
