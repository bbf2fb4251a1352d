"""The demand window: what the tariff's clock has counted so far, and what the utility's own register says to that."""

from libc.math cimport fabs
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.settings cimport *
from tidegate.ext.estimate.estimate cimport *
from tidegate.ext.abi.image cimport *
from tidegate.ext.estimate.integral cimport integral_add
from tidegate.ext.abi.program cimport program_t


cdef extern from *:
    """
    #define REGISTER_WH 5000.0         /* span over which the utility's register is compared with our integral */
    #define REGISTER_SHARE 0.25
    """
    const double REGISTER_WH, REGISTER_SHARE


cdef void demand_advance(const control_params_t* params, estimate_state_t* state, double from_w, double to_w,
                         uint64_t from_ns, uint64_t to_ns) noexcept nogil:
    """Add the import between two grid readings to the sub-windows of the clock that it falls into."""
    cdef uint64_t sub_ns = demand_sub_ns(params)
    cdef uint64_t start = <uint64_t>(<int64_t>from_ns + state.utc_offset_ns)
    cdef uint64_t end = <uint64_t>(<int64_t>to_ns + state.utc_offset_ns), border
    cdef double span = <double>(end - start), w = from_w, border_w
    cdef integral_t part
    cdef uint32_t at, rounds = 0
    while start < end and rounds < SUBWINDOWS_MAX:
        rounds += 1
        demand_roll(params, state, start // sub_ns)
        at = state.demand_window % SUBWINDOWS_MAX
        border = min((start // sub_ns + 1) * sub_ns, end)
        border_w = to_w if border == end else to_w - (to_w - from_w) * (<double>(end - border) / span)
        memset(&part, 0, sizeof(part))
        integral_add(&part, w, border_w, <double>(border - start) * 1e-9)
        state.demand_ws[at] += part.in_ws
        state.demand_s[at] += part.covered_s
        state.import_ws += part.in_ws
        start = border
        w = border_w


cdef void demand_roll(const control_params_t* params, estimate_state_t* state, uint64_t number) noexcept nogil:
    """Close the sub-windows up to `number`; a window that was measured nearly whole counts for the billing period."""
    cdef uint32_t subs = demand_subs(params), i, at
    cdef double ws, s, length_s = <double>demand_sub_ns(params) * 1e-9 * subs
    if not state.demand_started or number < state.demand_window or number > state.demand_window + SUBWINDOWS_MAX:
        memset(state.demand_ws, 0, sizeof(state.demand_ws))
        memset(state.demand_s, 0, sizeof(state.demand_s))
        state.demand_window = number
        state.demand_started = 1
        return
    while state.demand_window < number:
        ws = 0.0
        s = 0.0
        for i in range(subs):
            at = <uint32_t>((state.demand_window - i) % SUBWINDOWS_MAX)
            ws += state.demand_ws[at]
            s += state.demand_s[at]
        if s >= 0.95 * length_s and state.demand_window > state.demand_uncertain:
            state.demand_peak_w = fmax(state.demand_peak_w, ws / length_s * state.register_gain)
        state.demand_window += 1
        at = <uint32_t>(state.demand_window % SUBWINDOWS_MAX)
        state.demand_ws[at] = 0.0
        state.demand_s[at] = 0.0


cdef void demand_view(const program_t* program, const point_t* image, estimate_state_t* state, plant_t* plant,
                      uint64_t t_ns) noexcept nogil:
    """What the windows that are still open have used, for the policy."""
    cdef const control_params_t* params = &program.control
    cdef uint64_t sub_ns = demand_sub_ns(params), utc_ns = <uint64_t>(<int64_t>t_ns + state.utc_offset_ns)
    cdef uint32_t subs = demand_subs(params), i, at, later
    cdef double sub_s = <double>sub_ns * 1e-9, now_s, ws = 0.0, unknown_s = 0.0
    demand_roll(params, state, utc_ns // sub_ns)
    if state.billing_end_t_ns and t_ns >= state.billing_end_t_ns and state.billing_ended != state.billing_number:
        state.billing_ended = state.billing_number  # a window that ends with the period was still counted above
        state.demand_peak_w = 0.0
    now_s = <double>(utc_ns % sub_ns) * 1e-9
    plant.demand_windows = subs
    plant.demand_sub_s = sub_s
    plant.demand_left_s = sub_s - now_s
    plant.demand_elapsed_s = sub_s * subs - plant.demand_left_s
    # Reading ages and the time since the last reading are not "unmeasured" yet: they are held at the last value.
    for i in range(subs):
        at = <uint32_t>((state.demand_window - i) % SUBWINDOWS_MAX)
        ws += state.demand_ws[at]
        if i == 0:
            if state.demand_t_ns and t_ns > state.demand_t_ns:
                ws += fmax(state.grid_w, 0.0) * fmin(<double>(t_ns - state.demand_t_ns) * 1e-9, now_s)
                unknown_s += fmax(now_s - state.demand_s[at] - <double>(t_ns - state.demand_t_ns) * 1e-9, 0.0)
            else:
                unknown_s += fmax(now_s - state.demand_s[at], 0.0)
        else:
            unknown_s += fmax(sub_s - state.demand_s[at], 0.0)
        later = subs - 1 - i  # the window that ends so many steps later begins with this sub-window
        plant.demand_used_ws[later] = ws
        plant.demand_unknown_s[later] = unknown_s
    if program.site.demand_w >= 0 and subs == 1 and believable(image, program.site.demand_w):
        read_demand(&image[program.site.demand_w], state, plant, t_ns)
    # What was paid for before this start counts for the period that it was paid in.
    plant.demand_paid_w = state.demand_peak_w
    if state.billing_end_t_ns == 0:
        plant.demand_paid_w = fmax(state.demand_peak_w, params.demand_paid_w)
    elif state.billing_ended != state.billing_number:
        plant.demand_paid_w = fmax(state.demand_peak_w, state.billing_paid_w)
    plant.demand_gain = state.register_gain


cdef void read_demand(const point_t* reading, const estimate_state_t* state, plant_t* plant, uint64_t t_ns) noexcept nogil:
    """The utility's own mean of the running window stands for ours, from its reading on."""
    cdef double since_s = <double><int64_t>(t_ns - reading.t_ns) * 1e-9, elapsed_s = plant.demand_elapsed_s - since_s
    if not 0.0 <= since_s or elapsed_s < 0.0:  # of the window before
        return
    plant.demand_used_ws[0] = (
        fmax(reading.value, 0.0) * elapsed_s / state.register_gain + fmax(state.grid_w, 0.0) * since_s)
    plant.demand_unknown_s[0] = 0.0


cdef void learn_register(const program_t* program, const point_t* image, estimate_state_t* state) noexcept nogil:
    """Utility's energy register over our own integral, over spans long enough for its last digit not to matter."""
    cdef int point = program.site.grid_import_wh
    cdef double ours_ws, gain
    if not believable(image, point) or image[point].t_ns == state.register_t_ns or not state.grid_t_ns:
        return
    state.register_t_ns = image[point].t_ns
    # Our integral at the register's own time.
    ours_ws = state.import_ws - fmax(state.grid_w, 0.0) * (<double><int64_t>(state.grid_t_ns - image[point].t_ns) * 1e-9)
    if not state.register_seen or image[point].value < state.register_wh:
        state.register_seen = 1
    elif image[point].value - state.register_wh < REGISTER_WH:
        return
    elif ours_ws > state.register_ws:
        gain = (image[point].value - state.register_wh) * 3600.0 / (ours_ws - state.register_ws)
        if fabs(gain - 1.0) < 0.05:  # further off is no margin, it is another meter
            state.register_gain += (gain - state.register_gain) * REGISTER_SHARE
    state.register_wh = image[point].value
    state.register_ws = ours_ws
