# ext/control/corridor.pxd: contents page of control.pyx and of control.h, which owns the structs.
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from tidegate.ext.abi.image cimport UNITS_MAX, POINTS_MAX, integral_t, point_t


cdef extern from "control/corridor.h" nogil:
    enum:
        CONTROL_LAYOUT_VERSION
        HISTORY_MAX
        LAGS
        CIRCUITS_MAX
        PHASES_MAX
        PENDING_MAX
        RANGE_SLOTS
        SUBWINDOWS_MAX

    enum:
        ORDER_PLAN
        ORDER_PEAK
        ORDER_DEMAND
        ORDER_MANUAL
        ORDER_FORCED
        ORDER_TARGET

    enum:
        POLICY_peak_w_max
        POLICY_demand_w_max
        POLICY_recharge_w_max
        POLICY_ramp_up_w_per_s
        POLICY_ramp_down_w_per_s
        POLICY_range_w_max
        POLICY_reserve_soc
        POLICIES

    const char *POLICY_NAMES[POLICIES]

    ctypedef struct control_params_t:
        double connection_import_w_max
        double connection_export_w_max
        double peak_w_max
        double recharge_w_max
        double ramp_up_w_per_s, ramp_down_w_per_s
        double target_soc
        double recharge_rate_w
        double reserve_soc
        double trim_per_s
        double meter_latency_s
        double deadband_w
        double pcs_tau_s
        double meter_latency_s_max
        double demand_w_max
        double demand_window_s
        double demand_step_s
        double demand_margin_w
        double demand_ratchet
        double demand_paid_w
        double phase_import_w_max
        double phase_share[PHASES_MAX]
        double circuit_import_w_max[CIRCUITS_MAX]
        double circuit_units[CIRCUITS_MAX]
        double range_w_max
        double range_window_s
        double damp_share
        double damp_lo_hz, damp_hi_hz
        double follow_grid
        double target_grid_w
        double follow_soc_min
        double recentre
        double blind_discharge_w_max
        double soc_min, soc_max

    double *policy_setting(control_params_t *params, int policy) noexcept

    ctypedef struct unit_view_t:
        double ess_w
        double envelope_lo_w, envelope_hi_w
        double soc
        double energy_wh
        double setpoint_w
        uint32_t available
        uint32_t ess_new

    ctypedef struct plant_t:
        double grid_w
        double net_w
        double load_w
        double ess_w
        double pv_w
        uint64_t grid_t_ns
        double latency_s
        double demand_elapsed_s, demand_left_s
        double demand_sub_s
        double demand_used_ws[SUBWINDOWS_MAX]
        double demand_unknown_s[SUBWINDOWS_MAX]
        double demand_paid_w
        double demand_gain
        double phase_net_w[PHASES_MAX]
        double circuit_net_w[CIRCUITS_MAX]
        uint32_t grid_ok
        uint32_t load_ok
        uint32_t phases_ok
        uint32_t circuits_ok
        uint32_t demand_windows
        uint32_t n_units
        uint32_t grid_new
        uint32_t paired
        unit_view_t units[UNITS_MAX]

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
        uint32_t lease_held
        uint32_t stop
        uint32_t flags
        uint32_t pad

    ctypedef struct decision_t:
        double request_w[UNITS_MAX]
        double request_total_w
        double lo_w, hi_w
        double envelope_lo_w, envelope_hi_w
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
        double turn_s, period_s, calm_s
        double swing_w
        double slow_w
        int32_t way, count
        uint32_t level, started

    ctypedef struct control_state_t:
        double last_total_w
        double trim_w, trim_applied_w
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
        uint64_t plan_done
        uint32_t range_head, range_count
        uint32_t started, recharging

    ctypedef struct history_t:
        uint64_t t_ns[HISTORY_MAX]
        double w[HISTORY_MAX]
        uint32_t head, count

    ctypedef struct unit_memory_t:
        history_t history
        uint64_t seen_t_ns
        double setpoint_w, setpoint_old_w
        uint64_t setpoint_t_ns
        uint32_t envelope_key[40]
        int32_t envelope_lo_w, envelope_hi_w
        uint32_t envelope_known, known

    ctypedef struct estimate_state_t:
        uint64_t age_due_ns
        uint64_t second
        int64_t utc_offset_ns
        unit_memory_t units[UNITS_MAX]
        history_t total
        uint64_t grid_seen_t_ns, grid_used_t_ns
        double grid_used_w
        uint64_t moved_t_ns
        uint64_t setpoint_t_ns
        double lag_score[LAGS]
        double lag_motion[LAGS]
        double lag_last_w[LAGS]
        double lag_grid_w
        uint64_t pending_t_ns[PENDING_MAX]
        double pending_w[PENDING_MAX]
        uint32_t pending_first, pending_count
        uint32_t lag_lo, lag_hi
        uint32_t lag_measured, net_known
        uint32_t quality_key
        uint32_t n_known
        integral_t grid, load, ess, pv
        uint64_t grid_t_ns, load_t_ns, ess_t_ns, pv_t_ns
        double grid_w, load_w, ess_w, pv_w
        uint64_t demand_window
        double demand_ws[SUBWINDOWS_MAX]
        double demand_s[SUBWINDOWS_MAX]
        double demand_peak_w
        uint64_t demand_t_ns
        uint32_t demand_started, register_seen
        double register_wh, register_ws, register_gain
        double import_ws
        uint64_t register_t_ns
        double circuit_seen_w[CIRCUITS_MAX]
        double circuit_net_w[CIRCUITS_MAX]
        uint64_t circuit_t_ns[CIRCUITS_MAX]
        double phase_seen_w[PHASES_MAX]
        uint64_t phase_t_ns[PHASES_MAX]
        uint32_t circuits_known, phases_known, lag_stale, lag_best
        uint32_t look_far
        uint64_t billing_end_t_ns
        uint64_t billing_number
        double billing_paid_w
        uint64_t billing_ended


# What one policy accepts: an interval of battery power, and its name.
cdef struct policy_t:
    double lo, hi
    uint32_t reason

# What is left after the policies so far, and the answer in it that lies nearest to the wish.
cdef struct corridor_t:
    double lo, hi
    double wish
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
