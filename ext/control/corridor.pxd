# ext/control/corridor.pxd: contents page of corridor.pyx and of corridor.h, which owns the structs.
from libc.stdint cimport int32_t, uint32_t, uint64_t

from tidegate.ext.abi.image cimport UNITS_MAX
from tidegate.ext.abi.settings cimport control_params_t
from tidegate.ext.estimate.estimate cimport plant_t

# >> generated from control/corridor.h by `make pxd`; change the header, not this
cdef extern from "control/corridor.h" nogil:
    enum:
        RANGE_SLOTS

    enum:
        ORDER_PLAN
        ORDER_PEAK
        ORDER_DEMAND
        ORDER_MANUAL
        ORDER_FORCED
        ORDER_TARGET
        ORDER_CEASE

    ctypedef struct orders_t:
        double lease_w
        double import_w_max
        double export_w_max
        double plan_w
        double plan_until_soc
        double target_grid_w
        uint64_t plan_number
        double peak_w_max
        double demand_w_max
        double charge_w_max, discharge_w_max
        double operator_import_w_max, operator_export_w_max
        uint32_t lease_held
        uint32_t stop
        uint32_t flags
        uint32_t pad

    ctypedef struct decision_t:
        double request_w[UNITS_MAX]
        double request_total_w
        double lo_w, hi_w
        double envelope_lo_w, envelope_hi_w
        double limits_hi_w
        double shortfall_w
        double grid_limit_w
        uint32_t reason
        uint32_t preference
        uint32_t missed
        uint32_t missed_short
        uint32_t hunting, pad

    ctypedef struct hunting_t:
        double ess_lo_w, ess_hi_w
        double grid_lo_w, grid_hi_w, grid_lo_before_w, grid_hi_before_w
        double turn_s, period_s, quiet_s
        double swing_w
        double slow_w
        double half_s, half_before_s
        double grid_swing_w
        double held_w, given_w
        double trial_s, trial_period_s
        double trial_lo_w, trial_hi_w
        double wait_s, rest_s
        int32_t direction, count
        uint32_t level, started
        uint32_t alike, trial
        uint32_t proven, paired

    ctypedef struct demand_memory_t:
        double high_w
        double limit_w
        double watched_s
        double since_s
        double burst_ws
        double burst_most_ws
        uint32_t arming, pad

    ctypedef struct control_state_t:
        double last_total_w
        double trim_w, trim_applied_w
        double trim_s
        uint64_t trim_answered
        double ramp_anchor_w
        double recharge_w
        double settle_s
        double last_request_w[UNITS_MAX]
        double last_applied_w
        double load_peak_w
        double range_lo_w[RANGE_SLOTS]
        double range_hi_w[RANGE_SLOTS]
        double range_left_s
        double damp_slow_w, damp_fast_w
        hunting_t hunting
        demand_memory_t demand
        uint64_t plan_done
        uint32_t range_head, range_count
        uint32_t started, recharging
        uint32_t restoring, low_charging
        uint32_t island, island_full
# << end of what is generated


# What one policy accepts: an interval of battery power, and its name.
cdef struct policy_t:
    double lo, hi
    uint32_t reason

# What is left after the policies so far, and the answer in it that lies nearest to the preferred power.
cdef struct corridor_t:
    double lo, hi
    double preferred_w
    double answer
    uint32_t reason              # who moved the answer last
    uint32_t lo_reason, hi_reason # who set the edges
    double tolerance_w           # a miss by less is none
    uint32_t missed, missed_short # as in decision_t

# The resolver: narrows, never widens; a policy that misses what is left takes its nearest edge.
cdef void narrow(corridor_t* corridor, policy_t policy) noexcept nogil

# One cycle of the corridor. Reads plant and orders, writes decision; dt_s is the true length of the cycle.
cdef void control_step(const control_params_t* params, const plant_t* plant, const orders_t* orders,
                       control_state_t* state, decision_t* decision, double dt_s) noexcept nogil


cdef class Decision:
    cdef decision_t decision
    cdef uint32_t n_units


cdef class Control:
    cdef control_params_t params
    cdef plant_t plant
    cdef orders_t orders
    cdef control_state_t state
