# ext/estimate/estimate.pxd: contents page of estimate.h, which owns the structs.
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from tidegate.ext.abi.image cimport UNITS_MAX, integral_t
from tidegate.ext.abi.settings cimport CIRCUITS_MAX, PHASES_MAX

# >> generated from estimate/estimate.h by `make pxd`; change the header, not this
cdef extern from "estimate/estimate.h" nogil:
    enum:
        HISTORY_MAX
        LAGS
        PENDING_MAX
        GAPS
        SHAPE_ROWS
        MEANS
        SMOOTHS
        SHAPE_AGES
        METER_MODELS
        SCALES
        SAMPLES_MAX
        SUBWINDOWS_MAX
        RESPONSE_BINS
        RESPONSE_STEPS
        RESPONSE_SEEN
        SLICES

    const uint64_t SLICE_NS

    ctypedef struct slices_t:
        uint64_t number[SLICES]
        double ws[SLICES]
        double s[SLICES]
        double w_max[SLICES]

    ctypedef struct reconnect_t:
        uint64_t good_t_ns
        uint32_t state
        uint32_t started
        double wait_s, power_w

    ctypedef struct island_t:
        uint64_t lost_t_ns, well_t_ns
        uint64_t since_t_ns
        uint64_t loaded_t_ns
        uint64_t genset_t_ns
        uint64_t seen_t_ns
        double seen_w, soc
        double net_w, net_lo_w
        uint32_t on, net_known
        uint32_t state
        uint32_t genset_wanted

    ctypedef struct unit_view_t:
        double ess_w
        double envelope_lo_w, envelope_hi_w
        double soc
        double energy_wh
        double setpoint_w
        uint32_t available
        uint32_t ess_new
        double forced_w
        uint32_t closed
        uint32_t view_pad

    enum:
        BAND_RESERVE
        BAND_FOLLOW
        BAND_EMPTY
        BAND_FULL

    ctypedef struct plant_t:
        double grid_w
        double net_w
        double net_lo_w
        double load_w
        double ess_w
        double pv_w
        uint64_t grid_t_ns
        double demand_elapsed_s, demand_left_s
        double demand_sub_s
        double demand_used_ws[SUBWINDOWS_MAX]
        double demand_unknown_s[SUBWINDOWS_MAX]
        double demand_paid_w
        double demand_gain
        double phase_net_w[PHASES_MAX]
        double circuit_net_w[CIRCUITS_MAX]
        double reconnect_w
        double unproven_w
        uint32_t grid_ok
        uint32_t load_ok
        uint32_t phases_ok
        uint32_t circuits_ok
        uint32_t demand_windows
        uint32_t n_units
        uint32_t grid_new
        uint32_t paired
        uint32_t island
        uint32_t island_pad
        unit_view_t units[UNITS_MAX]

    ctypedef struct history_t:
        uint64_t t_ns[HISTORY_MAX]
        double w[HISTORY_MAX]
        uint32_t head, count

    ctypedef struct response_t:
        double reached[RESPONSE_BINS]
        double waiting[RESPONSE_BINS]
        uint64_t step_t_ns[RESPONSE_STEPS]
        uint64_t step_end_ns[RESPONSE_STEPS]
        double step_w[RESPONSE_STEPS]
        double setpoint_w, nameplate_w
        double off_w
        double slack_w, interval_s
        double largest_w
        uint64_t begun_ns
        uint64_t checked_ns
        uint64_t arrived_ns
        uint64_t done_ns
        double rest_w
        double seen_s[RESPONSE_SEEN]
        double seen_w[RESPONSE_SEEN]
        uint32_t seen
        uint32_t head, count
        uint32_t answers, good
        uint32_t trusted
        uint32_t often
        uint32_t close

    ctypedef struct unit_memory_t:
        history_t history
        uint64_t seen_t_ns
        double setpoint_w, setpoint_old_w
        uint64_t setpoint_t_ns
        uint32_t envelope_key[40]
        int32_t envelope_lo_w, envelope_hi_w
        uint32_t envelope_known, known
        double told_lo_w, told_hi_w
        double told_lag_s, told_settle_s
        double told_gain[2]
        double told_offset_w[2]
        double told_look_s
        uint32_t told_now, told_pad
        response_t response

    ctypedef struct interval_t:
        double gap_s[GAPS]
        double interval_s
        uint32_t head, seen
        uint32_t alike
        uint32_t even

    ctypedef struct moments_t:
        double battery_w2
        double with_w, without_w
        double moves
        double off, off2
        double dt_s
        uint32_t best, pad

    ctypedef struct lag_trials_t:
        double last_w[LAGS]
        double slope_w_per_s[LAGS]
        double unexplained[LAGS]
        double variance[LAGS]
        double grid_w
        uint64_t t_ns
        uint64_t first_t_ns
        double filled
        double filled_unexplained[LAGS]
        double filled_variance[LAGS]
        double moves, motion_w2
        double share
        interval_t interval
        double poll_s
        interval_t ess_interval
        double ess_poll_s
        double resolution_w
        double answer_gain[LAGS]
        double answer_variance[LAGS]
        double answer_readings
        double unmoved_slope_w_per_s
        uint32_t best, known
        uint32_t used, sloped
        uint32_t first, first_lo
        double open_s
        uint32_t age_lo, age_hi
        uint32_t likely_lo, likely_hi
        double met_lo_s, met_hi_s
        uint32_t met
        uint32_t by_filled
        moments_t moments

    ctypedef struct shapes_t:
        uint64_t t_ns
        uint64_t last_t_ns
        double last_w
        uint32_t head, count
        double w[SHAPE_ROWS]
        double integral_ws[SHAPE_ROWS]
        double smooth_w[SMOOTHS][SHAPE_ROWS]

    enum:
        ANSWER_OPEN
        ANSWER_SEEN
        ANSWER_NONE
        ANSWER_UNPROVEN

    ctypedef struct sign_trials_t:
        double honest_left[METER_MODELS]
        double turned_left[METER_MODELS]
        double moves
        double noise_w[SCALES]
        double earned
        uint32_t turned_best, best_pad
        uint32_t on, pad

    ctypedef struct model_trials_t:
        uint64_t t_ns[SAMPLES_MAX]
        double w[SAMPLES_MAX]
        uint32_t head, count
        double unexplained[METER_MODELS]
        double variance[METER_MODELS]
        double since[METER_MODELS]
        double since_most
        double hurry[SCALES]
        uint32_t asked, asked_pad
        double noise_w[SCALES]
        double slope_w_per_s[SCALES]
        double motion_w2[SCALES]
        double moves[SCALES]
        uint64_t done_ns[SCALES]
        uint32_t best, mean_best, delay_best
        uint32_t averages
        uint32_t known
        double open_s
        uint32_t lo, hi
        uint32_t near[8]
        uint32_t nears
        double answer_gain[METER_MODELS]
        double answer_variance[METER_MODELS]
        double answer_readings
        double answer_by
        double unmoved_noise_w[SCALES]
        uint64_t answer_t_ns
        uint64_t unshown_t_ns
        uint32_t answer, answer_pad
        sign_trials_t signs

    ctypedef struct estimate_state_t:
        uint64_t age_due_ns
        uint64_t second
        int64_t utc_offset_ns
        unit_memory_t units[UNITS_MAX]
        history_t total
        uint64_t grid_seen_t_ns, grid_used_t_ns
        double grid_ess_lo_w, grid_ess_hi_w
        uint64_t grid_changed_t_ns
        uint64_t same_t_ns
        double grid_used_w
        uint64_t moved_t_ns
        uint64_t setpoint_t_ns
        lag_trials_t lags
        shapes_t shapes
        model_trials_t models
        double age_s, age_lo_s, age_hi_s
        double likely_lo_s, likely_hi_s
        uint32_t age_known
        uint32_t age_pad
        uint64_t pending_t_ns[PENDING_MAX]
        double pending_w[PENDING_MAX]
        uint32_t pending_first, pending_count
        uint32_t lag_lo, lag_hi
        uint32_t ess_filled
        uint32_t net_known
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
        uint32_t circuits_known, phases_known
        uint32_t lag_search_wide
        uint64_t billing_end_t_ns
        uint64_t billing_number
        double billing_paid_w
        uint64_t billing_ended
        slices_t slices
        int64_t clock_offset_ns
        uint64_t demand_uncertain
        uint64_t pulse_t_ns
        uint64_t pulse_read_t_ns
        double pulse_value
        uint32_t clock_changes, clock_change
        double clock_moved_s
        reconnect_t reconnect
        island_t island
# << end of what is generated
