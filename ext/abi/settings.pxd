# ext/abi/settings.pxd: contents page of settings.h, which owns the structs, and of settings.pyx.
from tidegate.ext.abi.image cimport UNITS_MAX

# >> generated from abi/settings.h by `make pxd`; change the header, not this
cdef extern from "abi/settings.h" nogil:
    enum:
        SETTINGS_LAYOUT_VERSION
        CIRCUITS_MAX
        PHASES_MAX

    const double POLICY_OFF

    enum:
        TIGHTER_NEITHER
        TIGHTER_DOWN
        TIGHTER_UP

    enum:
        FROM_ZERO
        ABOVE_ZERO
        SIGNED
        SWITCH

    ctypedef struct control_params_t:
        double peak_w_max, demand_w_max, recharge_w_max, ramp_up_w_per_s, ramp_down_w_per_s, range_w_max, damp_share
        double reserve_soc, follow_soc_min, follow_grid, target_grid_w, target_soc, recharge_rate_w, import_w_min
        double force_soc, restore_w
        double connection_import_w_max
        double connection_export_w_max
        double trim_per_s
        double deadband_w
        double pcs_tau_s
        double meter_latency_s_max
        double demand_window_s
        double demand_step_s
        double demand_margin_w
        double demand_ratchet
        double demand_paid_w
        double phase_import_w_max
        double phase_share[PHASES_MAX]
        double circuit_import_w_max[CIRCUITS_MAX]
        double circuit_units[CIRCUITS_MAX]
        double range_window_s
        double damp_lo_hz, damp_hi_hz
        double recentre
        double blind_discharge_w_max
        double reconnect_wait_s
        double reconnect_w_per_s
        double reconnect_hz_min, reconnect_hz_max
        double reconnect_v_min, reconnect_v_max
        double island
        double island_forming
        double island_loss_s, island_return_s
        double island_v_min
        double genset_w_min, genset_w_max
        double genset_charge_w
        double genset_hz_min, genset_hz_max
        double genset_start_soc, genset_stop_soc
        double genset_run_s_min, genset_off_s_min
        double genset_start_s
        double soc_min, soc_max
        double first_age_lo_s, first_age_hi_s
        double first_interval_s
        double first_dead_s[UNITS_MAX]
        double first_lag_s[UNITS_MAX]
        double first_gain[UNITS_MAX]

    enum:
        POLICY_peak_w_max
        POLICY_demand_w_max
        POLICY_recharge_w_max
        POLICY_ramp_up_w_per_s
        POLICY_ramp_down_w_per_s
        POLICY_range_w_max
        POLICY_damp_share
        POLICY_reserve_soc
        POLICY_follow_soc_min
        POLICY_follow_grid
        POLICY_target_grid_w
        POLICY_target_soc
        POLICY_recharge_rate_w
        POLICY_import_w_min
        POLICY_force_soc
        POLICY_restore_w
        POLICIES

    ctypedef struct policy_row_t:
        const char *field
        const char *unit
        int tighter
        double off
        int range
        double hi
        const char *text

    const policy_row_t POLICY_ROWS[POLICIES]

    double *policy_setting(control_params_t *params, int policy) noexcept
# << end of what is generated


# The settings of a control, by name; what is left out has its default. Raises ValueError for an unknown one.
cdef control_params_t params_of(dict settings) except *
