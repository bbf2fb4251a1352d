"""Where the demand windows begin: by the wall clock of the site, or where the utility's own pulse says so.

Windows have a phase and no number: a clock that moves by whole windows changes nothing. When they move by less, as after
a clock that was set, a change of the zone, or a pulse, the window in progress is counted anew from what was measured
since its new begin: the import of the last hour is kept in slices of monotonic time. Of a slice that lies across the
border at most as much is counted as its highest power allows. What was not measured counts at the limit, and a window
that is partly guessed pays for nothing later.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.image cimport believable, point_t
from tidegate.ext.abi.program cimport program_t
from tidegate.ext.abi.settings cimport control_params_t
from tidegate.ext.abi.shared cimport CLOCK_FREE, CLOCK_MOVED, CLOCK_SYNCED
from tidegate.ext.estimate.demand cimport demand_sub_ns, demand_subs
from tidegate.ext.estimate.estimate cimport SLICE_NS, SLICES, SUBWINDOWS_MAX, estimate_state_t, slices_t


cdef extern from *:
    """
    #define PULSE_WINDOWS 2.2           /* sub-windows without a pulse until the wall clock decides again */
    #define PULSE_NEAR_NS 1000000000ll  /* pulses this near to where the window is believed to begin move nothing */
    #define PULSE_GAP_NS 3000000000ull  /* readings of its point that lie further apart do not tell when it came */
    #define CLOCK_NEAR_NS 1000000ll     /* and so do clocks that are corrected by less */
    """
    const double PULSE_WINDOWS
    const uint64_t PULSE_GAP_NS
    const int64_t PULSE_NEAR_NS, CLOCK_NEAR_NS


cdef void slices_add(estimate_state_t* state, double from_w, double to_w, uint64_t from_ns, uint64_t to_ns) noexcept nogil:
    """Import by the trapezoid rule; the part of a longer gap that the slices hold."""
    cdef slices_t* slices = &state.slices
    cdef uint64_t number, border, start = from_ns
    cdef double w = fmax(from_w, 0.0), border_w, end_w = fmax(to_w, 0.0), s
    cdef uint32_t at
    cdef int rounds = 0
    while start < to_ns and rounds < SLICES:
        rounds += 1
        number = start // SLICE_NS
        at = <uint32_t>(number % SLICES)
        if slices.number[at] != number + 1:
            slices.number[at] = number + 1
            slices.ws[at] = 0.0
            slices.s[at] = 0.0
            slices.w_max[at] = 0.0
        border = min((number + 1) * SLICE_NS, to_ns)
        border_w = end_w if border == to_ns else end_w + (fmax(from_w, 0.0) - end_w) * (
            <double>(to_ns - border) / <double>(to_ns - from_ns))
        s = <double>(border - start) * 1e-9
        slices.ws[at] += 0.5 * (w + border_w) * s
        slices.s[at] += s
        slices.w_max[at] = fmax(slices.w_max[at], fmax(w, border_w))
        start = border
        w = border_w


cdef void count_anew(estimate_state_t* state, int64_t from_ns, int64_t to_ns, double* ws, double* s) noexcept nogil:
    """Import and measured time between two moments of monotonic time; import at most, where a slice is cut."""
    cdef const slices_t* slices = &state.slices
    cdef int64_t start, end, measured_end = <int64_t>state.demand_t_ns
    cdef double length_s, overlap_s
    cdef int i
    ws[0] = 0.0
    s[0] = 0.0
    for i in range(SLICES):
        if slices.number[i] == 0:
            continue
        start = <int64_t>((slices.number[i] - 1) * SLICE_NS)
        end = start + <int64_t>SLICE_NS
        if start < measured_end < end:
            end = measured_end
        if end <= from_ns or start >= to_ns:
            continue
        length_s = <double>(end - start) * 1e-9
        overlap_s = <double>(min(end, to_ns) - max(start, from_ns)) * 1e-9
        if overlap_s >= length_s:
            ws[0] += slices.ws[i]
            s[0] += slices.s[i]
        else:
            ws[0] += fmin(slices.ws[i], slices.w_max[i] * overlap_s)
            s[0] += fmin(slices.s[i] * overlap_s / length_s, overlap_s)


cdef int64_t part_of(int64_t moved_ns, int64_t sub_ns) noexcept nogil:
    """A move without its whole sub-windows: the nearest to none, -sub/2 <= part < sub/2."""
    cdef int64_t part = moved_ns % sub_ns  # as C has it: of the sign of moved_ns
    if part < 0:
        part += sub_ns
    return part - sub_ns if 2 * part >= sub_ns else part


cdef void move_windows(const control_params_t* params, estimate_state_t* state, int64_t part_ns, uint64_t t_ns) noexcept nogil:
    """Let the windows begin part_ns earlier in monotonic time, and count those that are open anew."""
    cdef int64_t sub_ns = <int64_t>demand_sub_ns(params), began_ns
    cdef uint32_t at
    cdef int subs = <int>demand_subs(params), i
    state.utc_offset_ns += part_ns
    if not state.demand_started:
        return
    state.demand_window = <uint64_t>(<int64_t>t_ns + state.utc_offset_ns) // <uint64_t>sub_ns
    state.demand_uncertain = state.demand_window + <uint64_t>subs - 1
    for i in range(SUBWINDOWS_MAX):
        at = <uint32_t>((state.demand_window - <uint64_t>i) % SUBWINDOWS_MAX)
        began_ns = <int64_t>(state.demand_window - <uint64_t>i) * sub_ns - state.utc_offset_ns
        if i < subs:
            count_anew(state, began_ns, began_ns + sub_ns, &state.demand_ws[at], &state.demand_s[at])
        else:
            state.demand_ws[at] = 0.0
            state.demand_s[at] = 0.0


cdef void told(estimate_state_t* state, uint32_t change, int64_t part_ns) noexcept nogil:
    state.clock_change = change
    state.clock_moved_s = <double>part_ns * 1e-9
    state.clock_changes += 1


cdef void clock_set(const control_params_t* params, estimate_state_t* state, int64_t offset_ns, uint64_t t_ns) noexcept nogil:
    cdef int64_t part_ns, moved_ns = offset_ns - state.clock_offset_ns
    if moved_ns == 0:
        return
    state.clock_offset_ns = offset_ns
    if state.pulse_t_ns:  # the utility's pulse is no matter of our clock
        return
    part_ns = part_of(offset_ns - state.utc_offset_ns, <int64_t>demand_sub_ns(params))
    if not state.demand_started:
        state.utc_offset_ns = offset_ns
    elif part_ns > CLOCK_NEAR_NS or part_ns < -CLOCK_NEAR_NS:
        move_windows(params, state, part_ns, t_ns)
        told(state, CLOCK_MOVED, part_ns)
    else:
        state.utc_offset_ns += part_ns


cdef void window_began(const control_params_t* params, estimate_state_t* state, uint64_t began_ns, uint64_t t_ns) noexcept nogil:
    cdef int64_t part_ns = part_of(-(<int64_t>began_ns + state.utc_offset_ns), <int64_t>demand_sub_ns(params))
    cdef bint first = state.pulse_t_ns == 0
    if began_ns > t_ns or not state.demand_started:
        return
    # A contact that bounces, or a second pulse for another tariff: no window is that short.
    if not first and began_ns < state.pulse_t_ns + demand_sub_ns(params) // 2:
        return
    state.pulse_t_ns = began_ns
    if part_ns > PULSE_NEAR_NS or part_ns < -PULSE_NEAR_NS:
        move_windows(params, state, part_ns, t_ns)
        told(state, CLOCK_SYNCED, part_ns)
    elif first:
        told(state, CLOCK_SYNCED, 0)


cdef void window_watch(const program_t* program, const point_t* image, estimate_state_t* state, uint64_t t_ns) noexcept nogil:
    cdef const control_params_t* params = &program.control
    cdef int point = program.site.window_pulse
    cdef int64_t part_ns
    if point >= 0 and believable(image, point) and image[point].t_ns != state.pulse_read_t_ns:
        # The first reading, and one after a silence, tell no moment: the pulse may have come at any time before.
        if state.pulse_read_t_ns and image[point].value != state.pulse_value and (
                image[point].t_ns - state.pulse_read_t_ns <= PULSE_GAP_NS):
            window_began(params, state, image[point].t_ns, t_ns)
        state.pulse_read_t_ns = image[point].t_ns
        state.pulse_value = image[point].value
    if state.pulse_t_ns and <double>(t_ns - state.pulse_t_ns) > PULSE_WINDOWS * <double>demand_sub_ns(params):
        state.pulse_t_ns = 0
        part_ns = part_of(state.clock_offset_ns - state.utc_offset_ns, <int64_t>demand_sub_ns(params))
        move_windows(params, state, part_ns, t_ns)
        told(state, CLOCK_FREE, part_ns)
