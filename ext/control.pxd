# ext/control.pxd: contents page of control.pyx and of control.h, which owns the structs.
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from tidegate.ext.image cimport UNITS_MAX, POINTS_MAX, integral_t, point_t


cdef extern from "control.h" nogil:
    enum:
        CONTROL_LAYOUT_VERSION
        HISTORY_MAX

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

    ctypedef struct unit_view_t:
        double ess_w
        double envelope_lo_w, envelope_hi_w
        double soc
        double energy_wh
        double setpoint_w
        uint32_t available
        uint32_t pad

    ctypedef struct plant_t:
        double grid_w
        double load_w
        double ess_w
        double pv_w
        uint64_t grid_t_ns
        double demand_w, demand_elapsed_s, demand_left_s
        uint32_t grid_ok
        uint32_t load_ok
        uint32_t n_units
        uint32_t grid_new
        unit_view_t units[UNITS_MAX]

    ctypedef struct orders_t:
        double lease_w
        double import_w_max
        double export_w_max
        uint32_t lease_held
        uint32_t stop

    ctypedef struct decision_t:
        double request_w[UNITS_MAX]
        double request_total_w
        double lo_w, hi_w
        double envelope_lo_w, envelope_hi_w
        double shortfall_w
        double grid_limit_w
        uint32_t reason
        uint32_t preference

    ctypedef struct control_state_t:
        double last_total_w
        double trim_w
        double ramp_anchor_w
        double last_load_w
        uint64_t last_grid_t_ns
        uint32_t started
        uint32_t pad
        double spare[16]

    ctypedef struct estimate_state_t:
        uint64_t history_t_ns[HISTORY_MAX]
        double history_w[HISTORY_MAX]
        uint32_t history_head, history_count
        uint64_t last_grid_t_ns
        uint64_t second
        integral_t grid, load, ess, pv
        double demand_ws, demand_s, demand_peak_w
        uint64_t demand_window
        double spare[32]



# One cycle of the corridor. Reads plant and orders, writes decision; dt_s is the true length of the cycle.
cdef void control_step(const control_params_t* params, const plant_t* plant, const orders_t* orders,
                       control_state_t* state, decision_t* decision, double dt_s) noexcept nogil
