"""From readings of different ages to one picture of the plant.

The meter's reading tells the grid's power some time ago, the PCS's reading the battery's power some other time ago.
Added as they come they would show a load that is not there whenever the battery moves, and a control that believes it
hunts. So the battery's power is kept for a while, and each grid reading is paired with what the battery did *then*.

"Then" is known only within bounds: meters do not say how old their value is. The bounds are measured: of all ages
that a reading could have, only those remain under which the battery's own moves explain what the meter saw. The pairing
then gives an interval for the net power. An estimate inside it is kept, one outside moves to the nearest edge: never is
more read from a meter than it said, and no filter slows a real step down.
"""

from libc.math cimport INFINITY, NAN, fabs, fmax, fmin, isfinite
from libc.stdint cimport int16_t, int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from tidegate.ext.control cimport *
from tidegate.ext.gate cimport LIMIT_TRIPPED, gate_limits_t, REACTION_DERATE, REACTION_RAMP_ZERO, gate_envelope
from tidegate.ext.image cimport *
from tidegate.ext.program cimport unit_row_t


cdef extern from *:
    """
    #define AGE_SCAN_NS 8000000u       /* points that have just turned good are looked at again this often */
    #define REREAD_NS 250000000u       /* an unchanged value is taken for the same sample for so long */
    #define LAG_NS_MAX 4305000000
    #define SCORE_AFTER_NS 300000000u  /* a grid reading waits at most so long for battery readings before it is scored */
    #define LAG_MARGIN 0.15            /* share of motion, squared, that an age may leave unexplained beyond the best */
    #define FOLLOW_NS 20000000u        /* after a setpoint its move is taken for the PCS's lag alone */
    #define LAG_KEEP 0.995             /* memory of the scores, for each reading while the battery moved */
    #define LAG_BELIEF 0.5             /* an age that leaves more unexplained is none */
    #define LAG_BETTER 0.1             /* so much better must another age be to replace the best */
    #define LAG_EXCITED 100.0          /* motion, in squares of the smallest that counts, before the scores are believed */
    #define MOTION_W 20.0              /* smallest motion that counts */
    #define REGISTER_WH 5000.0         /* span over which the utility's register is compared with our integral */
    #define REGISTER_SHARE 0.25
    _Static_assert(sizeof(gate_input_t) <= sizeof(((unit_memory_t *)0)->envelope_key), "make envelope_key larger");
    /* Ages of a grid reading that are tried, against those of the battery's: its readings may be the older ones. */
    static const int64_t LAG_NS[LAGS] = {
        -30000000, -20000000, -10000000, -5000000, 0, 5000000, 10000000, 15000000, 20000000, 24000000, 28000000, 34000000,
        40000000, 48000000, 57000000, 67000000, 80000000, 95000000, 113000000, 135000000, 160000000, 190000000, 226000000,
        269000000, 320000000, 381000000, 453000000, 538000000, 640000000, 761000000, 905000000, 1076000000, 1280000000,
        1522000000, 1810000000, 2153000000, 2560000000, 3044000000, 3620000000, 4305000000,
    };
    """
    const uint64_t FOLLOW_NS, AGE_SCAN_NS, REREAD_NS, SCORE_AFTER_NS
    const double LAG_MARGIN, LAG_BELIEF, LAG_BETTER, LAG_KEEP, LAG_EXCITED, MOTION_W, REGISTER_WH, REGISTER_SHARE
    const int64_t LAG_NS_MAX
    const int64_t LAG_NS[LAGS]


cdef inline bint believable(const point_t* image, int point) noexcept nogil:
    return point >= 0 and (image[point].quality == QUALITY_GOOD or image[point].quality == QUALITY_HELD) and isfinite(
        image[point].value)


cdef inline uint64_t back(uint64_t t_ns, int64_t by_ns) noexcept nogil:
    return <uint64_t>(<int64_t>t_ns - by_ns) if <int64_t>t_ns > by_ns else 0


# ---------------------------------------------------------------- age


cdef void image_age(const program_t* program, point_t* image, estimate_state_t* state, uint64_t t_ns) noexcept nogil:
    """Turn what is too old into stale. Between two scans nothing can become due: the earliest of all is kept."""
    cdef uint32_t i
    cdef uint64_t due, age_max_ns
    if t_ns < state.age_due_ns:
        return
    due = t_ns + AGE_SCAN_NS
    for i in range(SITE_POINTS + program.n_units * UNIT_POINTS, program.n_points):
        age_max_ns = program.points[i].age_max_ns
        if age_max_ns == 0 or (image[i].quality != QUALITY_GOOD and image[i].quality != QUALITY_HELD):
            continue
        if t_ns > image[i].t_ns + age_max_ns:
            image[i].quality = QUALITY_STALE
        elif image[i].t_ns + age_max_ns < due:
            due = image[i].t_ns + age_max_ns + 1
    state.age_due_ns = due


# ---------------------------------------------------------------- history of battery power


cdef inline uint32_t slot(const history_t* h, uint32_t number) noexcept nogil:
    """Ring index of reading `number`, 0 = oldest."""
    return (h.head + HISTORY_MAX + 1 - h.count + number) & (HISTORY_MAX - 1)


cdef void history_add(history_t* h, uint64_t t_ns, double w, uint64_t spacing_ns) noexcept nogil:
    """Append; readings closer than the spacing replace the newest, so that the ring spans the longest age."""
    cdef uint32_t before = (h.head + HISTORY_MAX - 1) & (HISTORY_MAX - 1)
    if h.count and t_ns <= h.t_ns[h.head]:
        return
    if h.count < 2 or h.t_ns[h.head] - h.t_ns[before] >= spacing_ns:
        h.head = (h.head + 1) & (HISTORY_MAX - 1)
        if h.count < HISTORY_MAX:
            h.count += 1
    h.t_ns[h.head] = t_ns
    h.w[h.head] = w


cdef uint32_t history_find(const history_t* h, uint64_t t_ns) noexcept nogil:
    """Number of the first reading later than t_ns; count when there is none. At most nine halvings."""
    cdef uint32_t low = 0, high = h.count, middle
    while low < high:
        middle = (low + high) >> 1
        if h.t_ns[slot(h, middle)] > t_ns:
            high = middle
        else:
            low = middle + 1
    return low


cdef double history_at(const history_t* h, uint64_t t_ns) noexcept nogil:
    cdef uint32_t number, a, b
    if h.count == 0:
        return 0.0
    if t_ns >= h.t_ns[h.head]:
        return h.w[h.head]
    number = history_find(h, t_ns)
    if number == 0:
        return h.w[slot(h, 0)]
    a = slot(h, number - 1)
    b = slot(h, number)
    return h.w[a] + (h.w[b] - h.w[a]) * (<double>(t_ns - h.t_ns[a]) / <double>(h.t_ns[b] - h.t_ns[a]))


cdef inline double lagged(double from_w, double to_w, double z) noexcept nogil:
    """First-order answer after z time constants; a quotient in place of exp, whose last bit differs by platform."""
    return to_w + (from_w - to_w) / (1.0 + z * (1.0 + z * (0.5 + z * (1.0 / 6.0))))


cdef void reach(const unit_memory_t* m, uint64_t from_ns, uint64_t to_ns, uint64_t t_ns, double tau_s,
                double* lo, double* hi) noexcept nogil:
    """All that the unit's power may have been between two times; after its newest reading by its lag."""
    cdef const history_t* h = &m.history
    cdef double w = history_at(h, from_ns), z, settle_s = 6.0 * tau_s + 0.2
    cdef uint32_t number
    lo[0] = w
    hi[0] = w
    if h.count == 0:
        return
    if from_ns < h.t_ns[h.head]:
        for number in range(history_find(h, from_ns), h.count):
            if h.t_ns[slot(h, number)] >= to_ns:
                break
            widen(h.w[slot(h, number)], lo, hi)
    widen(history_at(h, to_ns), lo, hi)
    # A PCS that has had time to settle stands where it stands, also when that is not quite its setpoint.
    if to_ns > h.t_ns[h.head] and <double>(t_ns - m.setpoint_t_ns) * 1e-9 < settle_s:
        z = <double>(to_ns - h.t_ns[h.head]) * 1e-9 / tau_s
        widen(lagged(h.w[h.head], m.setpoint_w, z), lo, hi)
        widen(lagged(h.w[h.head], m.setpoint_old_w, z), lo, hi)


cdef inline void widen(double w, double* lo, double* hi) noexcept nogil:
    lo[0] = fmin(lo[0], w)
    hi[0] = fmax(hi[0], w)


# ---------------------------------------------------------------- integrals


cdef void integral_add(integral_t* integral, double from_w, double to_w, double dt_s) noexcept nogil:
    cdef double part
    if not dt_s > 0.0:
        return
    if from_w >= 0.0 and to_w >= 0.0:
        integral.in_ws += 0.5 * (from_w + to_w) * dt_s
    elif from_w <= 0.0 and to_w <= 0.0:
        integral.out_ws -= 0.5 * (from_w + to_w) * dt_s
    else:
        part = from_w / (from_w - to_w) * dt_s  # until the zero crossing
        if from_w > 0.0:
            integral.in_ws += 0.5 * from_w * part
            integral.out_ws -= 0.5 * to_w * (dt_s - part)
        else:
            integral.out_ws -= 0.5 * from_w * part
            integral.in_ws += 0.5 * to_w * (dt_s - part)
    integral.covered_s += dt_s


cdef inline void meet(integral_t* integral, uint64_t* at_ns, double* at_w, double w, uint64_t t_ns) noexcept nogil:
    """Take the integral to a new reading, or start again there after a gap."""
    if at_ns[0] and t_ns > at_ns[0]:
        integral_add(integral, at_w[0], w, <double>(t_ns - at_ns[0]) * 1e-9)
    integral.min_w = fmin(integral.min_w, w)
    integral.max_w = fmax(integral.max_w, w)
    at_ns[0] = t_ns
    at_w[0] = w


cdef void turn_second(integral_t* integral, uint64_t known_ns, double w) noexcept nogil:
    integral.last_min_w = integral.min_w if isfinite(integral.min_w) else NAN
    integral.last_max_w = integral.max_w if isfinite(integral.max_w) else NAN
    integral.min_w = w if known_ns else INFINITY
    integral.max_w = w if known_ns else -INFINITY


# ---------------------------------------------------------------- the meter's latency


cdef void measure_latency(const control_params_t* params, estimate_state_t* state, double grid_w,
                          uint64_t t_ns) noexcept nogil:
    """Score grid readings, each once the battery readings around it have come."""
    cdef uint32_t at
    at = (state.pending_first + state.pending_count) % PENDING_MAX
    if state.pending_count == PENDING_MAX:
        state.pending_first = (state.pending_first + 1) % PENDING_MAX
        state.pending_count -= 1
    state.pending_t_ns[at] = t_ns
    state.pending_w[at] = grid_w
    state.pending_count += 1
    while state.pending_count:
        at = state.pending_first
        if state.pending_t_ns[at] + <uint64_t>-LAG_NS[0] > state.total.t_ns[state.total.head] and (
                state.pending_t_ns[at] + SCORE_AFTER_NS > t_ns):
            break
        score(params, state, state.pending_w[at], state.pending_t_ns[at])
        state.pending_first = (at + 1) % PENDING_MAX
        state.pending_count -= 1


cdef inline uint32_t lags_of(const control_params_t* params) noexcept nogil:
    cdef uint32_t lags = 6
    cdef double max_s = params.meter_latency_s_max
    if not 0.0 < max_s < 4.3:
        return LAGS
    while lags < LAGS and <double>LAG_NS[lags - 1] < max_s * 1e9:
        lags += 1
    return lags


cdef void score(const control_params_t* params, estimate_state_t* state, double grid_w, uint64_t t_ns) noexcept nogil:
    """Of the ages that a grid reading may have, keep those under which the battery's moves explain the meter's.

    Each age predicts that grid + ess moved by the load's own move only. Its score is the share of the motion that
    remains unexplained, squared, and at most twice what the battery moved: steps of the load itself weigh the same for
    all ages and cannot drown the rest.
    """
    cdef double de[LAGS]
    cdef double share[LAGS]
    cdef double w, most = 0.0, moved, cost, smallest = fmax(2.0 * params.deadband_w, MOTION_W)
    cdef double dg = grid_w - state.lag_grid_w
    cdef int i, first, last, best = -1, lags = <int>lags_of(params)
    state.lag_grid_w = grid_w
    if t_ns > state.moved_t_ns + 2 * <uint64_t>LAG_NS_MAX:
        state.lag_stale = 1  # the battery has stood still for longer than any age
        return
    for i in range(lags):
        w = history_at(&state.total, back(t_ns, LAG_NS[i]))
        de[i] = w - state.lag_last_w[i]
        state.lag_last_w[i] = w
        most = fmax(most, fabs(de[i]))
    if state.lag_stale or most <= smallest or most < 0.5 * fabs(dg):
        state.lag_stale = 0
        return
    for i in range(lags):
        moved = fmin(fmax(fabs(dg), fabs(de[i])), most)
        # A battery that follows a smooth load keeps the grid still at any age: there only what the meter saw counts.
        # Under a setpoint that stands, a move that the meter did not see counts against its age as well.
        if fabs(dg) <= smallest and (moved <= smallest or back(t_ns, LAG_NS[i]) < state.setpoint_t_ns + FOLLOW_NS):
            continue
        cost = fmin(fabs(dg + de[i]), 2.0 * most)
        state.lag_score[i] = state.lag_score[i] * LAG_KEEP + cost * cost
        state.lag_motion[i] = state.lag_motion[i] * LAG_KEEP + moved * moved
    for i in range(lags):
        share[i] = -1.0  # not judged yet
        if state.lag_motion[i] > LAG_EXCITED * smallest * smallest:
            share[i] = state.lag_score[i] / state.lag_motion[i]
            if best < 0 or share[i] < share[best]:
                best = i
    if best < 0:
        return
    if state.lag_measured:
        # A load that repeats itself makes other ages look as good as the true one: stay, unless one is clearly better.
        if share[best] < share[state.lag_best] - LAG_BETTER:
            state.lag_best = <uint32_t>best
    elif share[best] <= LAG_BELIEF:
        state.lag_measured = 1
        state.lag_best = <uint32_t>best
    if not state.lag_measured:
        return
    first = last = <int>state.lag_best
    while first > 0 and share[first - 1] <= share[state.lag_best] + LAG_MARGIN:
        first -= 1
    while last < lags - 1 and share[last + 1] <= share[state.lag_best] + LAG_MARGIN:
        last += 1
    state.lag_lo = <uint32_t>(first - 1 if first > 0 else 0)
    state.lag_hi = <uint32_t>(last + 1 if last + 1 < lags else lags - 1)


# ---------------------------------------------------------------- pairing


cdef double pair(const program_t* program, const estimate_state_t* state, uint32_t members, double reading_w,
                 double before_w, bint known, uint64_t sample_ns, uint64_t t_ns) noexcept nogil:
    """Reading plus battery power of the same age: the value nearest to what was believed before."""
    cdef double lo_w = reading_w, hi_w = reading_w, lo, hi
    cdef double tau_s = program.control.pcs_tau_s
    cdef uint64_t from_ns = back(sample_ns, LAG_NS[state.lag_hi]), to_ns = back(sample_ns, LAG_NS[state.lag_lo])
    cdef uint32_t unit
    if not tau_s > 0.0:
        tau_s = 0.05
    for unit in range(program.n_units):
        if members >> unit & 1 and state.units[unit].known:
            reach(&state.units[unit], from_ns, to_ns, t_ns, tau_s, &lo, &hi)
            lo_w += lo
            hi_w += hi
    if not known or not isfinite(before_w):
        return 0.5 * (lo_w + hi_w)
    return fmin(fmax(before_w, lo_w), hi_w)


# ---------------------------------------------------------------- demand window


cdef void demand_meet(const control_params_t* params, estimate_state_t* state, double from_w, double to_w,
                      uint64_t from_ns, uint64_t to_ns) noexcept nogil:
    """Add the import between two grid readings to the sub-windows of the UTC clock that it falls into."""
    cdef uint64_t sub_ns = demand_sub_ns(params)
    cdef uint64_t start = <uint64_t>(<int64_t>from_ns + state.utc_offset_ns)
    cdef uint64_t end = <uint64_t>(<int64_t>to_ns + state.utc_offset_ns), border
    cdef double span = <double>(end - start), w = from_w, border_w
    cdef integral_t part
    cdef uint32_t at, rounds = 0
    while start < end and rounds < SUBWINDOWS_MAX:
        rounds += 1
        demand_turn(params, state, start // sub_ns)
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


cdef inline uint64_t demand_sub_ns(const control_params_t* params) noexcept nogil:
    cdef double window_s = params.demand_window_s if params.demand_window_s >= 1.0 else 900.0
    cdef double step_s = params.demand_step_s
    if not 1.0 <= step_s < window_s or window_s > step_s * SUBWINDOWS_MAX:
        step_s = window_s
    return <uint64_t>(step_s * 1e9)


cdef inline uint32_t demand_subs(const control_params_t* params) noexcept nogil:
    cdef double window_s = params.demand_window_s if params.demand_window_s >= 1.0 else 900.0
    cdef uint32_t subs = <uint32_t>(window_s * 1e9 / <double>demand_sub_ns(params) + 0.5)
    return min(max(subs, <uint32_t>1), <uint32_t>SUBWINDOWS_MAX)


cdef void demand_turn(const control_params_t* params, estimate_state_t* state, uint64_t number) noexcept nogil:
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
        if s >= 0.95 * length_s:
            state.demand_peak_w = fmax(state.demand_peak_w, ws / length_s * state.register_gain)
        state.demand_window += 1
        at = <uint32_t>(state.demand_window % SUBWINDOWS_MAX)
        state.demand_ws[at] = 0.0
        state.demand_s[at] = 0.0


cdef void demand_view(const control_params_t* params, estimate_state_t* state, plant_t* plant,
                      uint64_t t_ns) noexcept nogil:
    """What the windows that are still open have used, for the policy."""
    cdef uint64_t sub_ns = demand_sub_ns(params), utc_ns = <uint64_t>(<int64_t>t_ns + state.utc_offset_ns)
    cdef uint32_t subs = demand_subs(params), i, at, later
    cdef double sub_s = <double>sub_ns * 1e-9, now_s, ws = 0.0, unknown_s = 0.0
    demand_turn(params, state, utc_ns // sub_ns)
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
    plant.demand_paid_w = fmax(state.demand_peak_w, params.demand_paid_w)
    plant.demand_gain = state.register_gain


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


# ---------------------------------------------------------------- one cycle


cdef inline void put(point_t* image, int point, double value, uint64_t t_ns) noexcept nogil:
    image[point].value = value
    image[point].t_ns = t_ns
    image[point].quality = QUALITY_GOOD
    image[point].changes += 1


cdef inline void doubt(point_t* image, int point) noexcept nogil:
    if image[point].quality == QUALITY_GOOD:
        image[point].quality = QUALITY_STALE


cdef void put_integral(point_t* image, int first, const integral_t* integral, uint64_t t_ns) noexcept nogil:
    put(image, first, integral.in_ws, t_ns)
    put(image, first + 1, integral.out_ws, t_ns)
    put(image, first + 2, integral.covered_s, t_ns)


cdef void put_extremes(point_t* image, int first, const integral_t* integral, uint64_t t_ns) noexcept nogil:
    if integral.last_min_w <= integral.last_max_w:
        put(image, first, integral.last_min_w, t_ns)
        put(image, first + 1, integral.last_max_w, t_ns)
    else:
        doubt(image, first)
        doubt(image, first + 1)


cdef void start(const control_params_t* params, estimate_state_t* state, uint64_t t_ns) noexcept nogil:
    state.second = t_ns // 1000000000u + 1
    state.register_gain = 1.0
    state.lag_hi = lags_of(params) - 1
    turn_second(&state.grid, 0, 0.0)
    turn_second(&state.load, 0, 0.0)
    turn_second(&state.ess, 0, 0.0)
    turn_second(&state.pv, 0, 0.0)


cdef void estimate_step(const program_t* program, point_t* image, const gate_input_t* inputs,
                        const gate_verdict_t* last, estimate_state_t* state, plant_t* plant,
                        uint64_t t_ns, uint64_t dt_ns) noexcept nogil:
    cdef int ess_new, all_known
    if state.second == 0:
        start(&program.control, state, t_ns)
    plant.n_units = program.n_units
    ess_new = take_units(program, image, inputs, last, state, plant, t_ns, &all_known)
    if ess_new:
        take_ess(program, image, state, plant, all_known)
    elif not all_known:
        doubt(image, SITE_ESS_W)
        state.ess_t_ns = 0
    take_pv(program, image, state, plant)
    take_grid(program, image, state, plant, all_known, t_ns)
    if program.control.demand_w_max > 0.0 or plant.demand_windows == 0 or plant.grid_new:
        if state.demand_started:
            demand_view(&program.control, state, plant, t_ns)
    if t_ns >= state.second * 1000000000u:
        whole_second(program, image, state, plant, t_ns)


cdef int take_units(const program_t* program, const point_t* image, const gate_input_t* inputs,
                    const gate_verdict_t* last, estimate_state_t* state, plant_t* plant, uint64_t t_ns,
                    int* all_known) noexcept nogil:
    """Newest readings and envelopes of the units; 1 if any power is new."""
    cdef uint32_t unit
    cdef int new = 0, point
    cdef unit_memory_t* m
    cdef unit_view_t* view
    cdef const unit_row_t* row
    cdef double ess_w = 0.0
    all_known[0] = 1
    for unit in range(program.n_units):
        row = &program.units[unit]
        view = &plant.units[unit]
        m = &state.units[unit]
        point = row.pcs_w
        view.ess_new = 0
        if not believable(image, point):
            if m.known:
                m.known = 0
                m.history.count = 0  # what it does in the dark is not interpolated later
                new = 1
            all_known[0] = 0
        else:
            if image[point].t_ns != m.seen_t_ns or not m.known:
                m.known = 1
                m.seen_t_ns = image[point].t_ns
                view.ess_w = image[point].value
                view.ess_new = 1
                history_add(&m.history, image[point].t_ns, view.ess_w, <uint64_t>LAG_NS_MAX // HISTORY_MAX)
                new = 1
            ess_w += view.ess_w
        view.setpoint_w = last[unit].setpoint_w
        if view.setpoint_w != m.setpoint_w:
            m.setpoint_old_w = m.setpoint_w
            m.setpoint_w = view.setpoint_w
            m.setpoint_t_ns = t_ns
            state.setpoint_t_ns = t_ns
        # A unit that the gate holds at nothing takes no part: the others take over in this cycle.
        view.available = m.known and last[unit].reaction < REACTION_RAMP_ZERO and not last[unit].limit_bits & LIMIT_TRIPPED
        take_envelope(row, &inputs[unit], &last[unit], m, view)
        view.soc = image[row.soc].value if believable(image, row.soc) else NAN
        view.energy_wh = row.energy_wh
    plant.ess_w = ess_w
    return new


cdef void take_envelope(const unit_row_t* row, const gate_input_t* input, const gate_verdict_t* last,
                        unit_memory_t* m, unit_view_t* view) noexcept nogil:
    """The gate's envelope, computed again only when one of its inputs changed."""
    cdef gate_input_t key
    cdef uint32_t bits
    memcpy(&key, input, sizeof(key))
    key.request_w = 0
    key.dt_us = 0
    key.ack = 0
    key.arm = 0
    key.faults = 0
    key.ess_w = 0
    if not m.envelope_known or memcmp(&key, m.envelope_key, sizeof(key)) != 0:
        memcpy(m.envelope_key, &key, sizeof(key))
        m.envelope_known = 1
        gate_envelope(&row.gate, input, &m.envelope_lo_w, &m.envelope_hi_w, &bits)
    view.envelope_lo_w = m.envelope_lo_w
    view.envelope_hi_w = m.envelope_hi_w
    if last.reaction == REACTION_DERATE:
        view.envelope_lo_w = fmax(view.envelope_lo_w, last.envelope_lo_w)
        view.envelope_hi_w = fmin(view.envelope_hi_w, last.envelope_hi_w)


cdef void take_ess(const program_t* program, point_t* image, estimate_state_t* state, plant_t* plant,
                   int all_known) noexcept nogil:
    """Total battery power: history for the latency, integral and point."""
    cdef uint64_t newest_ns = 0
    cdef uint32_t unit
    cdef history_t* h = &state.total
    for unit in range(program.n_units):
        if state.units[unit].known and state.units[unit].seen_t_ns > newest_ns:
            newest_ns = state.units[unit].seen_t_ns
    if h.count and fabs(plant.ess_w - h.w[h.head]) > 0.25 * MOTION_W:
        state.moved_t_ns = newest_ns
    history_add(h, newest_ns, plant.ess_w, <uint64_t>LAG_NS_MAX // HISTORY_MAX)
    if not all_known:
        doubt(image, SITE_ESS_W)
        state.ess_t_ns = 0
        return
    if newest_ns > state.ess_t_ns:
        meet(&state.ess, &state.ess_t_ns, &state.ess_w, plant.ess_w, newest_ns)
        put(image, SITE_ESS_W, plant.ess_w, newest_ns)
        put_integral(image, SITE_ESS_IN_WS, &state.ess, newest_ns)


cdef void take_pv(const program_t* program, point_t* image, estimate_state_t* state, plant_t* plant) noexcept nogil:
    cdef int point = program.site.pv_w
    if point < 0:
        plant.pv_w = 0.0
        return
    if not believable(image, point):
        doubt(image, SITE_PV_W)
        state.pv_t_ns = 0
        return
    if image[point].t_ns != state.pv_t_ns:
        plant.pv_w = image[point].value
        meet(&state.pv, &state.pv_t_ns, &state.pv_w, plant.pv_w, image[point].t_ns)
        put(image, SITE_PV_W, plant.pv_w, image[point].t_ns)
        put_integral(image, SITE_PV_IN_WS, &state.pv, image[point].t_ns)


cdef void take_grid(const program_t* program, point_t* image, estimate_state_t* state, plant_t* plant, int all_known,
                    uint64_t t_ns) noexcept nogil:
    cdef int point = program.site.grid_w
    cdef double grid_w
    cdef uint64_t sample_ns
    plant.grid_new = 0
    if not believable(image, point):
        if plant.grid_ok:
            doubt(image, SITE_GRID_W)
            doubt(image, SITE_LOAD_W)
        plant.grid_ok = 0
        plant.load_ok = 0
        plant.phases_ok = 0
        plant.circuits_ok = 0
        state.net_known = 0
        state.grid_t_ns = 0
        state.load_t_ns = 0
        state.demand_t_ns = 0
        return
    plant.grid_ok = 1
    sample_ns = image[point].t_ns
    if sample_ns == state.grid_seen_t_ns and state.net_known:
        if not all_known:
            doubt(image, SITE_LOAD_W)
            state.load_t_ns = 0
        return

    state.grid_seen_t_ns = sample_ns
    grid_w = image[point].value
    plant.grid_new = 1
    plant.grid_w = grid_w
    plant.grid_t_ns = sample_ns
    # The same value again is the same sample read twice, unless nothing at all has changed for long.
    if not state.net_known or grid_w != state.grid_used_w or sample_ns - state.grid_used_t_ns > REREAD_NS:
        if state.net_known:
            measure_latency(&program.control, state, grid_w, sample_ns)
        else:
            state.lag_stale = 1
            state.pending_count = 0
        plant.net_w = pair(program, state, <uint32_t>0xFFFFFFFF, grid_w, plant.net_w, state.net_known, sample_ns, t_ns)
        state.net_known = 1
        state.grid_used_w = grid_w
        state.grid_used_t_ns = sample_ns
        plant.latency_s = fmax(0.5e-9 * <double>(LAG_NS[state.lag_lo] + LAG_NS[state.lag_hi]), 0.0)
        if not state.lag_measured:
            plant.latency_s = program.control.meter_latency_s
    plant.load_ok = 1
    plant.load_w = plant.net_w + plant.pv_w
    take_phases(program, image, plant, grid_w, sample_ns)
    take_circuits(program, image, state, plant, t_ns)

    if state.grid_t_ns and sample_ns > state.grid_t_ns:
        demand_meet(&program.control, state, state.grid_w, grid_w, state.grid_t_ns, sample_ns)
    state.demand_t_ns = sample_ns
    if not state.demand_started:
        demand_turn(&program.control, state,
                    <uint64_t>(<int64_t>sample_ns + state.utc_offset_ns) // demand_sub_ns(&program.control))
    meet(&state.grid, &state.grid_t_ns, &state.grid_w, grid_w, sample_ns)
    put(image, SITE_GRID_W, grid_w, sample_ns)
    put_integral(image, SITE_GRID_IN_WS, &state.grid, sample_ns)
    if program.site.pv_w < 0:  # no PV is known to give nothing
        meet(&state.pv, &state.pv_t_ns, &state.pv_w, 0.0, sample_ns)
        put(image, SITE_PV_W, 0.0, sample_ns)
        put_integral(image, SITE_PV_IN_WS, &state.pv, sample_ns)
    if all_known and (program.site.pv_w < 0 or believable(image, program.site.pv_w)):
        meet(&state.load, &state.load_t_ns, &state.load_w, plant.load_w, sample_ns)
        put(image, SITE_LOAD_W, plant.load_w, sample_ns)
        put_integral(image, SITE_LOAD_IN_WS, &state.load, sample_ns)
    else:
        doubt(image, SITE_LOAD_W)
        state.load_t_ns = 0


cdef void take_phases(const program_t* program, const point_t* image, plant_t* plant, double grid_w,
                      uint64_t sample_ns) noexcept nogil:
    """Net power of each phase: the battery's power at the time of the reading falls on the phases by their shares."""
    cdef int phase, point
    cdef double share
    cdef const control_params_t* params = &program.control
    cdef bint thirds = not params.phase_share[0] + params.phase_share[1] + params.phase_share[2] > 0.0
    plant.phases_ok = 0
    for phase in range(PHASES_MAX):
        point = program.site.grid_w_l[phase]
        if believable(image, point):
            share = 1.0 / 3.0 if thirds else params.phase_share[phase]
            plant.phase_net_w[phase] = image[point].value + share * (plant.net_w - grid_w)
            plant.phases_ok |= <uint32_t>1 << phase


cdef void take_circuits(const program_t* program, const point_t* image, estimate_state_t* state, plant_t* plant,
                        uint64_t t_ns) noexcept nogil:
    """Net power of each sub-meter: its reading and the batteries behind it, of the same age."""
    cdef int circuit, point
    cdef uint32_t bit
    plant.circuits_ok = 0
    for circuit in range(CIRCUITS_MAX):
        point = program.site.circuit_w[circuit]
        bit = <uint32_t>1 << circuit
        if not believable(image, point):
            state.circuits_known &= ~bit
            continue
        plant.circuits_ok |= bit
        if image[point].t_ns == state.circuit_t_ns[circuit] and state.circuits_known & bit:
            continue
        state.circuit_t_ns[circuit] = image[point].t_ns
        plant.circuit_net_w[circuit] = pair(
            program, state, <uint32_t>program.control.circuit_units[circuit], image[point].value,
            plant.circuit_net_w[circuit], state.circuits_known & bit, image[point].t_ns, t_ns,
        )
        state.circuits_known |= bit


cdef void whole_second(const program_t* program, point_t* image, estimate_state_t* state, plant_t* plant,
                       uint64_t t_ns) noexcept nogil:
    """Once a second: extremes of the last one, demand, the utility's register."""
    cdef double mean_w
    state.second = t_ns // 1000000000u + 1
    turn_second(&state.grid, state.grid_t_ns, state.grid_w)
    turn_second(&state.load, state.load_t_ns, state.load_w)
    turn_second(&state.ess, state.ess_t_ns, state.ess_w)
    turn_second(&state.pv, state.pv_t_ns, state.pv_w)
    put_extremes(image, SITE_GRID_MIN_W, &state.grid, t_ns)
    put_extremes(image, SITE_LOAD_MIN_W, &state.load, t_ns)
    put_extremes(image, SITE_ESS_MIN_W, &state.ess, t_ns)
    put_extremes(image, SITE_PV_MIN_W, &state.pv, t_ns)
    learn_register(program, image, state)
    if state.demand_started:
        demand_view(&program.control, state, plant, t_ns)
        mean_w = plant.demand_elapsed_s - plant.demand_unknown_s[0]
        mean_w = plant.demand_used_ws[0] / mean_w if mean_w > 0.0 else 0.0
        put(image, SITE_DEMAND_W, mean_w * plant.demand_gain, t_ns)
        put(image, SITE_DEMAND_LEFT_S, plant.demand_left_s, t_ns)
        put(image, SITE_DEMAND_PEAK_W, plant.demand_paid_w, t_ns)


# ---------------------------------------------------------------- Python view


_QUALITIES = {"never": QUALITY_NEVER, "good": QUALITY_GOOD, "held": QUALITY_HELD, "stale": QUALITY_STALE,
              "invalid": QUALITY_INVALID}
_SITE = {SITE_POINT_NAMES[i][0].decode(): i for i in range(SITE_POINTS)}


cdef class Estimate:
    """The compiled estimation over an image of its own: readings in, the plant as the control sees it out.

    units    : storage units, 1..16, each with readings `ess0_w`, `ess1_w` ... and `soc0`, `soc1` ...
    age_max_s: readings older than this are stale.
    pv       : the site has a PV meter (`pv_w`); phases: readings `grid_l0_w`..; circuits: number of sub-meters `circuit0_w`..
    settings : any of `tidegate.ext.control.defaults()`.
    Other readings: `grid_w`, `grid_import_wh`.
    """

    def __cinit__(self):
        self.program = <program_t*>calloc(1, sizeof(program_t))
        self.image = <point_t*>calloc(POINTS_MAX, sizeof(point_t))
        self.inputs = <gate_input_t*>calloc(UNITS_MAX, sizeof(gate_input_t))
        self.verdicts = <gate_verdict_t*>calloc(UNITS_MAX, sizeof(gate_verdict_t))
        self.state = <estimate_state_t*>calloc(1, sizeof(estimate_state_t))
        if not (self.program and self.image and self.inputs and self.verdicts and self.state):
            raise MemoryError("no memory for the estimation")

    def __dealloc__(self):
        free(self.program)
        free(self.image)
        free(self.inputs)
        free(self.verdicts)
        free(self.state)

    def __init__(self, int units=1, *, double age_max_s=1.0, bint pv=False, bint phases=False, int circuits=0,
                 **settings):
        cdef Control settled = Control(units, **settings)
        cdef int i, at
        if not 0 <= circuits <= CIRCUITS_MAX:
            raise ValueError(f"circuits={circuits}: at most {CIRCUITS_MAX}")
        self.program.control = settled.params
        self.program.n_units = <uint32_t>units
        at = SITE_POINTS + units * UNIT_POINTS
        names = ["grid_w", "grid_import_wh"] + ["pv_w"] * pv + [f"grid_l{i}_w" for i in range(PHASES_MAX * phases)]
        names += [f"circuit{i}_w" for i in range(circuits)]
        names += [f"{kind}" for i in range(units) for kind in (f"ess{i}_w", f"soc{i}")]
        self.names = {name: at + i for i, name in enumerate(names)}
        self.program.n_points = <uint32_t>(at + len(names))
        for i in self.names.values():
            self.program.points[i].age_max_ns = <uint64_t>(age_max_s * 1e9)
        for i in range(<int>self.program.n_points):
            self.image[i].value = NAN
        find = self.names.get
        self.program.site.grid_w = find("grid_w")
        self.program.site.grid_import_wh = find("grid_import_wh")
        self.program.site.grid_export_wh = -1
        self.program.site.pv_w = find("pv_w", -1)
        for i in range(PHASES_MAX):
            self.program.site.grid_w_l[i] = find(f"grid_l{i}_w", -1)
        for i in range(CIRCUITS_MAX):
            self.program.site.circuit_w[i] = find(f"circuit{i}_w", -1)
        memset(self.program.units, 0xFF, sizeof(self.program.units))
        for i in range(units):
            self.program.units[i].pcs_w = find(f"ess{i}_w")
            self.program.units[i].soc = find(f"soc{i}")
            self.program.units[i].energy_wh = 0.0
            memset(&self.program.units[i].gate, 0, sizeof(gate_limits_t))
        memset(&self.plant, 0, sizeof(plant_t))

    def reading(self, str name, double value, double t_s, str quality="good"):
        """Put a reading into the image as a device would: value, stamp (s, monotonic), quality.

        Raises KeyError for a name that this site does not have.
        """
        cdef point_t* point = &self.image[<int>self.names[name]]
        point.value = value
        point.t_ns = <uint64_t>(t_s * 1e9 + 0.5)
        point.quality = _QUALITIES[quality]
        point.changes += 1

    def step(self, double t_s, *, setpoint_w=(), double utc_offset_s=0.0):
        """Age the image and estimate once at time t_s; setpoint_w: what the gate let go to each unit last cycle."""
        cdef uint64_t t_ns = <uint64_t>(t_s * 1e9 + 0.5)
        cdef int i
        for i, value in enumerate(setpoint_w):
            self.verdicts[i].setpoint_w = <int32_t>value
        self.state.utc_offset_ns = <int64_t>(utc_offset_s * 1e9)
        image_age(self.program, self.image, self.state, t_ns)
        estimate_step(self.program, self.image, self.inputs, self.verdicts, self.state, &self.plant, t_ns, 1000000)

    def trip(self, int unit, bint tripped=True):
        """Let the gate hold this unit at zero, or let it go."""
        self.verdicts[unit].limit_bits = LIMIT_TRIPPED if tripped else 0

    def point(self, str name):
        """(value, quality name, stamp in s) of a reading or of a site point such as `site.load_w`."""
        cdef point_t* point = &self.image[<int>(_SITE[name] if name in _SITE else self.names[name])]
        quality = [key for key, number in _QUALITIES.items() if number == point.quality][0]
        return point.value, quality, <double>point.t_ns * 1e-9

    @property
    def grid_ok(self):
        return bool(self.plant.grid_ok)

    @property
    def grid_new(self):
        return bool(self.plant.grid_new)

    @property
    def net_w(self):
        """Grid power if the batteries rested, W."""
        return self.plant.net_w

    @property
    def load_w(self):
        return self.plant.load_w

    @property
    def ess_w(self):
        return self.plant.ess_w

    @property
    def available(self):
        return tuple(bool(self.plant.units[i].available) for i in range(<int>self.plant.n_units))

    @property
    def phases_net_w(self):
        return tuple(self.plant.phase_net_w[i] for i in range(PHASES_MAX) if self.plant.phases_ok >> i & 1)

    @property
    def circuits_net_w(self):
        return tuple(self.plant.circuit_net_w[i] for i in range(CIRCUITS_MAX) if self.plant.circuits_ok >> i & 1)

    @property
    def latency_s(self):
        """(least, most, measured): bounds of the age of a grid reading when it arrives."""
        return (LAG_NS[self.state.lag_lo] * 1e-9, LAG_NS[self.state.lag_hi] * 1e-9, bool(self.state.lag_measured))

    @property
    def latency_scores(self):
        """(age in s, share of the motion that it leaves unexplained, squared motion seen) of each age tried."""
        return [(LAG_NS[i] * 1e-9, self.state.lag_score[i] / fmax(self.state.lag_motion[i], 1e-9), self.state.lag_motion[i])
                for i in range(LAGS)]

    @property
    def demand(self):
        """(used W s, unmeasured s, left s, paid W, gain) of the running window."""
        return (self.plant.demand_used_ws[0], self.plant.demand_unknown_s[0], self.plant.demand_left_s,
                self.plant.demand_paid_w, self.plant.demand_gain)
