"""What a converter makes of its setpoints: dead time, lag, ramp, gain; and how much of it the control may count on.

Dead time, lag and ramp come from moves of the setpoint that stood long enough to be answered: the step test of the arming
first, every later one after it. They shape a model of the converter with a gain of one, beside which its readings are laid:
the line through them is its gain and offset, one for each direction. An order is the request with both undone, bounded as
ever by the gate. A model of orders that were sent is compared, so what is learned does not depend on what is done with it.

A converter that falls short may have lost gain or met a limit (constant voltage, derating by heat). That shows when its
setpoint moves next: under a gain the answer moves too. At a limit the others get the rest, and it is tried again later.
"""

from libc.math cimport fabs, isfinite, sqrt
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.image cimport QUALITY_GOOD, QUALITY_HELD, point_t
from tidegate.ext.estimate.estimate cimport unit_memory_t, unit_view_t
from tidegate.ext.estimate.interval cimport learn_interval
from tidegate.ext.estimate.response cimport response_reading


cdef extern from *:
    """
    #define LINE_S 0.01
    #define MOVE_SHARE 0.015     /* of the nameplate: a move that is worth watching */
    #define MOVE_LEAST_W 150.0
    #define MOVE_WAIT_S 15.0     /* an answer that takes longer is none */
    #define TENTH 0.1
    #define MOST 0.63212         /* of a first-order answer after its lag */
    #define HALFWAY 0.4
    #define TOLD_SHARE 0.25      /* of its answer's time: a setpoint that took longer to come is what the answer followed */
    #define RAMP_DENIED 2.0      /* a move so many times steeper than its limit: it was none */
    #define GAIN_MOVE_W 400.0    /* below that the digits of a reading would be taken for a gain */
    #define FILTER_LEAST_S 0.2   /* model and reading are smoothed alike before they are compared */
    #define FILTER_MOST_S 2.0
    #define QUIET_SHARE 0.03     /* of the nameplate: both are taken to stand still within this */
    #define NOISE 0.01           /* of the nameplate, of one reading in a tenth of a second */
    #define PRIOR_GAIN 0.15      /* spread of gains before anything is known */
    #define PRIOR_OFFSET 0.005
    #define FORGET_S 20.0
    #define LATE 2.5             /* a converter may be so many times slower than is believed, ... */
    #define LATE_S 0.05          /* ... and by so much */
    #define ODD_SHARE 0.03       /* off the line by so much of the nameplate */
    #define ODD_OF_IT 0.05       /* and so much of the power itself: the converter has changed */
    #define ODD_S 1.5             /* told by steps that take a detour, a converter is late for longer than it was at arming */
    #define FLAT 0.4             /* of the slope that the gain would give: less is a limit */
    #define CAP_HOLD_S 10.0
    #define CAP_HOLD_MOST_S 160.0
    #define CAP_RISE 0.05        /* of the nameplate a second */
    #define READ_OFTEN 1.5       /* reads in an interval of its own: then it is known when that ends */
    #define STANDS_GAPS 2.2      /* of its own intervals: a value that is no larger by then stands */
    #define GAP_UNKNOWN_S 0.2
    #define GAP_MOST_S 0.5       /* a power that stands is no slow measurement */
    #define ANSWER_LAGS 6.0     /* after so many of its lags nothing is left of the nameplate that a step of arming could be mixed up with */
    #define UNKNOWN_S 8.0        /* an answer that is still awaited after so long is late, or less */
    #define KNOWN 5.0            /* readings of a tenth of a second, for a line to be believed in the other direction too */
    #define GAIN_LEAST 0.2       /* no order is more than five times the request */
    #define GAIN_MOST 1.3
    #define GAIN_FALL 0.5        /* the gain that orders are corrected by falls by this share of itself a second */
    #define GAIN_HONEST 0.012    /* nearer to one it is left alone: what is learnt is not better than that */
    #define GAIN_STEP 0.004      /* and is moved when it is off by so much: each change is a write; ... */
    #define GAIN_CLEAR 2.0       /* ... and by so many standard errors: the first readings of a move lie to one side */
    """
    const double TOLD_SHARE, RAMP_DENIED
    const double LINE_S, MOVE_SHARE, MOVE_LEAST_W, MOVE_WAIT_S, TENTH, MOST, HALFWAY, GAIN_MOVE_W, FILTER_LEAST_S, FILTER_MOST_S, QUIET_SHARE
    const double NOISE, PRIOR_GAIN, PRIOR_OFFSET, FORGET_S, LATE, LATE_S, ODD_SHARE, ODD_OF_IT, ODD_S, FLAT, CAP_HOLD_S
    const double READ_OFTEN, STANDS_GAPS, GAP_UNKNOWN_S, GAP_MOST_S, CAP_HOLD_MOST_S, CAP_RISE, ANSWER_LAGS, UNKNOWN_S, KNOWN, GAIN_LEAST, GAIN_MOST, GAIN_FALL, GAIN_HONEST, GAIN_STEP, GAIN_CLEAR


# ---------------------------------------------------------------- gain and offset


cdef void fit_reset(fit_t* fit, double prior) noexcept nogil:
    fit.s1 = fit.sm = fit.smm = fit.sy = fit.smy = 0.0
    fit.prior = fmin(fmax(prior, 0.0), GAIN_MOST)
    fit.gain = fit.prior
    fit.offset = 0.0
    fit.spread = PRIOR_GAIN
    fit.odd_s = 0.0


cdef void fit_add(fit_t* fit, double m, double y, double weight) noexcept nogil:
    """One more point of the line, as a share `weight` of a reading in a tenth of a second."""
    cdef double keep = 1.0 - weight * 0.1 / FORGET_S
    cdef double gain_least = (NOISE / PRIOR_GAIN) * (NOISE / PRIOR_GAIN)
    cdef double offset_least = (NOISE / PRIOR_OFFSET) * (NOISE / PRIOR_OFFSET)
    cdef double a, b, d, det
    fit.s1 = fit.s1 * keep + weight
    fit.sm = fit.sm * keep + weight * m
    fit.smm = fit.smm * keep + weight * m * m
    fit.sy = fit.sy * keep + weight * y
    fit.smy = fit.smy * keep + weight * m * y
    a = fit.smm + gain_least
    b = fit.sm
    d = fit.s1 + offset_least
    det = a * d - b * b
    fit.gain = ((fit.smy + gain_least * fit.prior) * d - fit.sy * b) / det
    fit.offset = (a * fit.sy - b * (fit.smy + gain_least * fit.prior)) / det
    fit.gain = fmin(fmax(fit.gain, 0.0), GAIN_MOST)
    fit.spread = NOISE * sqrt(d / det)


cdef inline double error_at(const fit_t* fit, double m) noexcept nogil:
    """Standard error of what the line says of m, as a share of the nameplate."""
    cdef double a = fit.smm + (NOISE / PRIOR_GAIN) * (NOISE / PRIOR_GAIN), b = fit.sm
    cdef double d = fit.s1 + (NOISE / PRIOR_OFFSET) * (NOISE / PRIOR_OFFSET)
    return NOISE * sqrt(fmax((d * m - 2.0 * b) * m + a, 0.0) / (a * d - b * b))


cdef inline double expected(const fit_t* fit, double m) noexcept nogil:
    cdef double y = fmax(fit.gain * m + fit.offset, 0.0)
    return fmin(y, fit.cap) if fit.capped else y


cdef void cap_set(fit_t* fit, double y) noexcept nogil:
    """Here and no further, for a while: the longer, the sooner it is met again."""
    if fit.capped or fit.free_s < 60.0 and fit.cap_hold_s > 0.0:
        fit.cap_hold_s = fmin(2.0 * fit.cap_hold_s, CAP_HOLD_MOST_S)
    else:
        fit.cap_hold_s = CAP_HOLD_S
    fit.cap = fmax(y, 0.0)
    fit.cap_wait_s = fit.cap_hold_s
    fit.capped = 1
    fit.rising = 0
    fit.odd_s = 0.0
    fit.suspect = 0


cdef void fit_over(fit_t* fit, double m, double y, double dt_s, double gap_s) noexcept nogil:
    """More than believed, while what it was told stands still: seen in two readings it is taken, and not smoothed first."""
    if y - expected(fit, m) <= ODD_SHARE + ODD_OF_IT * m:
        fit.over_s = 0.0
        return
    fit.over_s += dt_s
    if fit.over_s <= 2.0 * gap_s + 0.02:
        return
    fit.over_s = 0.0
    fit.suspect = 0
    if fit.capped:
        fit.capped = 0
        return
    fit_reset(fit, fmax(y / fmax(m, 1e-3), 1.0))  # it may still be on its way there
    fit.used_gain = fmin(fmax(fit.gain, GAIN_LEAST), GAIN_MOST)
    fit.used_offset = 0.0


cdef void fit_look(fit_t* fit, double m, double y, double still, double dt_s, double filter_s) noexcept nogil:
    """One sample of what was told (m) and given (y) in this direction, as shares of the nameplate, both standing `still` (0..1)."""
    cdef double off = y - expected(fit, m)
    if fit.suspect and fabs(m - fit.suspect_m) > 0.1 * fit.suspect_m + 0.01:
        if (y - fit.suspect_y) / (m - fit.suspect_m) < FLAT * fit.suspect_y / fmax(fit.suspect_m, 1e-3):
            fit_reset(fit, fit.suspect_gain)
            cap_set(fit, fmax(y, fit.suspect_y))
            return
        fit.suspect = 0
    if fabs(off) <= ODD_SHARE + ODD_OF_IT * fmin(m, y):
        fit.odd_s = fmax(fit.odd_s - dt_s, 0.0)
        if not (fit.capped and fit.gain * m + fit.offset > fit.cap - 0.01):  # what a limit cuts off says nothing of the gain
            fit_add(fit, m, y, still * dt_s * 10.0)
        return
    fit.odd_s += still * dt_s
    if off > 0.0 or fit.odd_s < fmax(ODD_S, filter_s):
        return
    if fit.capped and fit.rising or y < TENTH * m:  # tried again, and there it is; or nothing at all comes
        cap_set(fit, y)
    else:
        if not fit.suspect:
            fit.suspect_gain = fit.gain
        fit.capped = 0
        fit_reset(fit, y / fmax(m, 1e-3))
        fit.suspect = 1
        fit.suspect_m = m
        fit.suspect_y = y


cdef inline bint is_clear(const fit_t* fit, double gain, double offset, double m) noexcept nogil:
    """Whether orders are off by more than the line is uncertain, at what is told now, or was told most."""
    cdef double off
    if fit.s1 == 0.0:  # begun anew by what was seen to stand
        return fabs(gain - fit.used_gain) > GAIN_STEP or fabs(offset - fit.used_offset) > 0.5 * GAIN_STEP
    if m <= 0.0:
        m = fit.sm / fit.s1
    off = fabs((gain - fit.used_gain) * m + offset - fit.used_offset)
    return off > GAIN_STEP * fmax(m, 0.5) and off > GAIN_CLEAR * error_at(fit, m)


cdef void fit_use(fit_t* fit, double m, double dt_s, bint seen) noexcept nogil:
    """The correction of orders follows the line: to less gain slowly, to more at once, and not for a trifle.

    m: what this direction is told now, as a share of the nameplate, or nothing. seen: the converter has answered; what is
    only remembered of it corrects nothing.
    """
    cdef double gain = fmin(fmax(fit.gain, GAIN_LEAST), GAIN_MOST), offset = fmin(fmax(fit.offset, -0.03), 0.03)
    if fabs(gain - 1.0) < GAIN_HONEST and fabs(offset) < GAIN_STEP:  # the slow trim is enough for that
        gain = 1.0
        offset = 0.0
    if not seen and fit.s1 == 0.0:
        pass
    elif fit.correcting or is_clear(fit, gain, offset, m):
        fit.used_gain = fmax(gain, fit.used_gain * (1.0 - GAIN_FALL * dt_s))
        fit.used_offset = offset
        fit.correcting = fit.used_gain != gain  # all the way, not until it is nearly there
    if not fit.capped:
        fit.free_s += dt_s
        return
    fit.free_s = 0.0
    fit.cap_wait_s -= dt_s
    if fit.cap_wait_s <= 0.0:
        fit.rising = 1
        fit.cap += CAP_RISE * dt_s
        if fit.cap >= 1.0:
            fit.capped = 0


# ---------------------------------------------------------------- dead time, lag, ramp


cdef void watch_begin(watch_t* watch, double from_w, double to_w, double rest_w, uint64_t t_ns) noexcept nogil:
    memset(watch, 0, sizeof(watch_t))
    watch.on = 1
    watch.t_ns = watch.level_t_ns = t_ns
    watch.from_w = from_w
    watch.to_w = to_w
    watch.rest_w = watch.last_w = rest_w
    watch.w[0] = rest_w
    watch.count = 1


cdef double crossing(const watch_t* watch, double w, double* gap_s) noexcept nogil:
    """When the answer first passed w, between two readings; gap_s: their distance. -1 = never."""
    cdef uint32_t i
    cdef bint rising = watch.last_w > watch.rest_w
    for i in range(1, watch.count):
        if (watch.w[i] >= w) if rising else (watch.w[i] <= w):
            gap_s[0] = watch.t_s[i] - watch.t_s[i - 1]
            return watch.t_s[i] - gap_s[0] * ((watch.w[i] - w) / (watch.w[i] - watch.w[i - 1]))
    return -1.0


cdef inline double toward(double held, double now, uint32_t moves) noexcept nogil:
    """The mean of the first four, then a slow average."""
    return held + (now - held) / fmin(<double>moves, 4.0)


cdef void watch_end(converter_t* c, double nameplate_w, bint stands) noexcept nogil:
    """Dead time, lag and ramp of a move; its gain as well when the answer stands."""
    cdef watch_t* watch = &c.watch
    cdef double size_w = watch.last_w - watch.rest_w, gain = size_w / (watch.to_w - watch.from_w)
    cdef double gap_s = 0.0, tenth_gap_s = 0.0, fifth_s, most_s, tenth_s, steep, lag_s, dead_s, answer_s = 0.0
    cdef int side
    watch.on = 0
    if stands:
        for side in range(2):
            if c.moves == 0 and watch.from_w == 0.0 and c.fits[side].s1 < KNOWN and fabs(watch.to_w) >= GAIN_MOVE_W:  # the step test
                fit_reset(&c.fits[side], gain if fabs(gain - c.fits[side].prior) > 0.1 else c.fits[side].prior)
    elif gain < HALFWAY + 0.05:
        return
    else:  # cut short: by what it was told
        size_w = watch.to_w - watch.from_w
    tenth_s = crossing(watch, watch.rest_w + TENTH * size_w, &tenth_gap_s)
    fifth_s = crossing(watch, watch.rest_w + 0.2 * size_w, &gap_s)
    most_s = crossing(watch, watch.rest_w + 0.8 * size_w, &gap_s)
    steep = 0.0
    if fifth_s >= 0.0 and most_s >= 0.0:
        answer_s = fmax(most_s - fifth_s, gap_s)
        steep = fabs(0.6 * size_w) / answer_s
        c.ramp_w_per_s = fmax(c.ramp_w_per_s, steep)
        if steep > RAMP_DENIED * c.ramp_limit_w_per_s:
            c.ramp_limit_w_per_s = 0.0
    most_s = crossing(watch, watch.rest_w + (MOST if stands else HALFWAY) * size_w, &gap_s)
    if tenth_s < 0.0 or most_s < 0.0:
        return
    lag_s = fmax((most_s - tenth_s) / (0.8946 if stands else 0.4054), 0.0)
    dead_s = fmax(tenth_s - 0.1054 * lag_s, 0.0)
    # A ramp takes longer the larger the move; a lag does not.
    if c.moves and steep > 0.0 and lag_s > 1.5 * c.lag_s + 2.0 * gap_s and fabs(size_w) > 1.5 * MOVE_SHARE * nameplate_w:
        if <double>(watch.level_t_ns - watch.t_ns) * 1e-9 > TOLD_SHARE * answer_s:
            return
        c.ramp_limit_w_per_s = steep if c.ramp_limit_w_per_s == 0.0 else fmax(steep, c.ramp_limit_w_per_s)
        return
    c.moves += 1
    c.dead_s = toward(c.dead_s, dead_s, c.moves)
    c.lag_s = toward(c.lag_s, lag_s, c.moves)
    c.dead_lo_s = fmax(c.dead_s - tenth_gap_s, 0.0)
    c.dead_hi_s = c.dead_s + tenth_gap_s
    c.lag_lo_s = fmax(c.lag_s - gap_s, 0.0)
    c.lag_hi_s = c.lag_s + gap_s + tenth_gap_s


cdef inline bint at_rest(const converter_t* c, double least_w) noexcept nogil:
    """Whether it stands where it was told to: else what comes next may be the answer to an older setpoint."""
    cdef double sign = 1.0 if c.setpoint_w >= 0.0 else -1.0
    return -least_w <= sign * c.read_w <= GAIN_MOST * fabs(c.setpoint_w) + least_w


cdef void watch_setpoint(converter_t* c, double setpoint_w, double nameplate_w, uint64_t t_ns, double dt_s) noexcept nogil:
    cdef watch_t* watch = &c.watch
    cdef double least_w = fmax(MOVE_SHARE * nameplate_w, MOVE_LEAST_W)
    if setpoint_w == c.setpoint_w:
        c.still_s += dt_s
        return
    if watch.on and t_ns - watch.t_ns <= 50000000u:  # the ramp of the same move
        watch.to_w = setpoint_w
        watch.level_t_ns = t_ns
    elif watch.on and fabs(setpoint_w - watch.to_w) <= 0.05 * fabs(watch.to_w - watch.from_w):
        pass
    else:
        if watch.on:
            watch_end(c, nameplate_w, False)
        # Its first move is watched whatever was measured before this start: it replaces that.
        if c.still_s > 0.1 + (4.0 * (c.dead_s + c.lag_s) if c.moves else 0.0) and c.read_t_ns and at_rest(c, least_w):
            watch_begin(watch, c.setpoint_w, setpoint_w, c.read_w, t_ns)
    c.still_s = 0.0
    c.setpoint_w = setpoint_w
    if watch.on and t_ns - watch.t_ns > 50000000u and fabs(watch.to_w - watch.from_w) < least_w:
        watch.on = 0


cdef inline double value_gap_s(const converter_t* c) noexcept nogil:
    """How often its power is measured anew, as far as that is known."""
    return fmax(c.read_gap_s, c.interval.interval_s if c.interval.interval_s > 0.0 else GAP_UNKNOWN_S)


cdef void watch_reading(converter_t* c, double reading_w, double nameplate_w, uint64_t t_ns) noexcept nogil:
    cdef watch_t* watch = &c.watch
    cdef double move_w = watch.to_w - watch.from_w, moved, last, at_s
    if not watch.on:
        return
    if fabs(move_w) < fmax(MOVE_SHARE * nameplate_w, MOVE_LEAST_W):
        if t_ns - watch.t_ns > 50000000u:
            watch.on = 0
        return
    at_s = <double>(t_ns - watch.t_ns) * 1e-9
    moved = (reading_w - watch.rest_w) / move_w
    last = (watch.last_w - watch.rest_w) / move_w
    if at_s > MOVE_WAIT_S or moved < -0.2:
        watch.on = 0
        return
    if moved < TENTH:  # still dead: the newest of these is where it begins
        watch.t_s[0] = at_s
        watch.w[0] = reading_w
        watch.count = 1  # what had risen before it fell back began nothing
        watch.last_w = reading_w
        watch.answer_s = 0.0
        return
    watch.answer_s = at_s - watch.t_s[0]
    if moved > last + 0.02:
        watch.last_w = reading_w
        watch.stands_s = at_s
        if watch.count < MOVE_READINGS:
            watch.t_s[watch.count] = at_s
            watch.w[watch.count] = reading_w
            watch.count += 1
        return
    # What is read again before it was measured again does not stand.
    if at_s - watch.stands_s > fmax(fmax(0.1, 0.35 * watch.answer_s), STANDS_GAPS * value_gap_s(c)) and watch.count > 1:
        watch_end(c, nameplate_w, True)


# ---------------------------------------------------------------- one cycle


cdef void learn(converter_t* c, double nameplate_w, double dt_s, double filter_s) noexcept nogil:
    cdef double late_w = fabs(c.model_w - c.late_w)  # of an old move so much may still be on its way
    cdef double apart_w = fabs(c.model_w - c.slow_model_w) + fabs(c.read_w - c.slow_w) + late_w
    cdef double quiet_w = fmin(QUIET_SHARE * nameplate_w, 0.2 * fabs(c.slow_model_w) + 0.1 * QUIET_SHARE * nameplate_w)
    cdef double still = 1.0 - apart_w / quiet_w
    cdef double m = c.slow_model_w / nameplate_w, sign = 1.0 if m > 0.0 else -1.0
    cdef int side = 0 if m > 0.0 else 1
    fit_use(&c.fits[0], m, dt_s, c.moves > 0)
    fit_use(&c.fits[1], -m, dt_s, c.moves > 0)
    # Before its times are known, or while a move of it is watched, what is missing may be on its way.
    if (c.watch.on or c.moves == 0) and c.still_s < (fmin(4.0 * (c.dead_s + c.lag_s), UNKNOWN_S) if c.moves else UNKNOWN_S):
        return
    # What one direction is known to give is the best guess for the other.
    if c.fits[1 - side].s1 < KNOWN and c.fits[side].s1 >= KNOWN and not c.fits[side].suspect:
        fit_reset(&c.fits[1 - side], c.fits[side].gain)
    if fabs(c.model_w - c.slow_model_w) + late_w < 0.3 * QUIET_SHARE * nameplate_w and c.model_w * c.slow_model_w > 0.0:
        fit_over(&c.fits[side], fabs(c.model_w) / nameplate_w, sign * c.read_w / nameplate_w, dt_s, value_gap_s(c))
    if still <= 0.0 or c.model_w * c.slow_model_w <= 0.0 or fabs(m) < 0.01:
        return
    fit_look(&c.fits[side], fabs(m), sign * c.slow_w / nameplate_w, still, dt_s, filter_s)


cdef inline double gives(const fit_t* fit, double allowed_w, double nameplate_w) noexcept nogil:
    """What this direction gives of what it is allowed to be told, W >= 0."""
    cdef double most_w = allowed_w
    if fit.used_gain < 1.0:
        most_w = fmin(most_w, fmax(fit.used_gain * allowed_w + fit.used_offset * nameplate_w, 0.0))
    return fmin(most_w, fit.cap * nameplate_w) if fit.capped else most_w


cdef void converter_begin(converter_t* c, double dead_s, double lag_s, double gain) noexcept nogil:
    cdef int side
    c.started = 1
    c.dead_s = fmin(fmax(dead_s, 0.0), LINE_S * (LINE_SLOTS - 1))
    c.lag_s = fmax(lag_s, 0.0)
    for side in range(2):
        fit_reset(&c.fits[side], fmax(gain, GAIN_LEAST) if gain > 0.0 else 1.0)
        c.fits[side].used_gain = 1.0


cdef void converter_step(converter_t* c, const point_t* reading, double setpoint_w, double nameplate_w,
                         double first_lag_s, double fresh_s, unit_memory_t* memory, unit_view_t* view, uint64_t t_ns,
                         double dt_s) noexcept nogil:
    cdef double lag_s = c.lag_s if c.moves or c.lag_s > 0.0 else first_lag_s
    cdef double goal_w, move_w, share, filter_s
    cdef uint32_t slots
    cdef int rounds = 0
    if not nameplate_w > 0.0:
        return
    if not c.started:
        converter_begin(c, 0.0, 0.0, 0.0)
    watch_setpoint(c, setpoint_w, nameplate_w, t_ns, dt_s)
    goal_w = setpoint_w
    if c.dead_s > LINE_S:
        slots = <uint32_t>fmin(fmax(c.dead_s, 0.0) / LINE_S, LINE_SLOTS - 1)
        goal_w = c.line_w[(c.head + LINE_SLOTS - slots) % LINE_SLOTS]
    move_w = (goal_w - c.model_w) * (dt_s / (dt_s + lag_s))
    if c.ramp_limit_w_per_s > 0.0:
        move_w = fmin(fmax(move_w, -c.ramp_limit_w_per_s * dt_s), c.ramp_limit_w_per_s * dt_s)
    c.model_w += move_w
    c.late_w += (goal_w - c.late_w) * (dt_s / (dt_s + LATE * lag_s + LATE_S + value_gap_s(c)))
    if reading.quality != QUALITY_GOOD and reading.quality != QUALITY_HELD or not isfinite(reading.value):
        c.read_t_ns = 0
        c.watch.on = 0
        return
    if reading.t_ns != c.read_t_ns:
        if c.read_t_ns:
            c.read_gap_s += (<double>(reading.t_ns - c.read_t_ns) * 1e-9 - c.read_gap_s) * 0.1
        else:
            c.slow_w = reading.value
            c.slow_model_w = c.model_w
        if reading.value != c.read_w:
            if c.changed_t_ns:
                learn_interval(&c.interval, fmin(<double>(reading.t_ns - c.changed_t_ns) * 1e-9, GAP_MOST_S))
            c.changed_t_ns = reading.t_ns
        c.read_t_ns = reading.t_ns
        c.read_w = reading.value
        watch_reading(c, reading.value, nameplate_w, t_ns)
        # How often it measures is known to one read, where it is read no more often: then to that and the one before.
        response_reading(memory, reading.value, fresh_s if fresh_s > READ_OFTEN * c.read_gap_s else fresh_s + 2.0 * c.read_gap_s,
                         fresh_s > READ_OFTEN * c.read_gap_s, c.read_gap_s)
    filter_s = fmin(fmax(2.0 * (lag_s + value_gap_s(c)), FILTER_LEAST_S), FILTER_MOST_S)
    share = dt_s / (dt_s + filter_s)
    c.slow_model_w += (c.model_w - c.slow_model_w) * share
    c.slow_w += (c.read_w - c.slow_w) * share
    c.line_left_s -= dt_s
    while c.line_left_s <= 0.0 and rounds < 100:
        rounds += 1
        c.line_left_s += LINE_S
        c.head = (c.head + 1) % LINE_SLOTS
        c.line_w[c.head] = setpoint_w
    if rounds:
        learn(c, nameplate_w, <double>rounds * LINE_S, filter_s)
        converter_told(c, nameplate_w, fresh_s, memory)
    view.envelope_hi_w = gives(&c.fits[0], view.envelope_hi_w, nameplate_w)
    view.envelope_lo_w = -gives(&c.fits[1], -view.envelope_lo_w, nameplate_w)


cdef double converter_order(converter_t* c, double request_w, double nameplate_w) noexcept nogil:
    cdef const fit_t* fit = &c.fits[0 if request_w > 0.0 else 1]
    cdef double corrected_w
    c.asked_w = request_w
    if not isfinite(request_w) or not c.started or fabs(request_w) < 1.0:
        return request_w
    corrected_w = fmax((fabs(request_w) - fit.used_offset * nameplate_w) / fit.used_gain, 0.0)
    return corrected_w if request_w > 0.0 else -corrected_w


cdef double converter_answer_s(const converter_t* c) noexcept nogil:
    if c.moves == 0:
        return UNKNOWN_S
    return fmin(c.dead_hi_s + ANSWER_LAGS * c.lag_hi_s + 2.0 * c.read_gap_s, UNKNOWN_S)


cdef void converter_told(const converter_t* c, double nameplate_w, double fresh_s, unit_memory_t* unit) noexcept nogil:
    cdef uint32_t slots, first, i
    cdef double w
    unit.told_settle_s = 0.0
    if c.moves == 0:
        return
    unit.told_lag_s = fmax(c.lag_lo_s, LINE_S)
    unit.told_settle_s = c.dead_hi_s + 6.0 * c.lag_hi_s + 0.2
    unit.told_look_s = 0.0
    for i in range(2):
        unit.told_gain[i] = c.fits[i].gain
        unit.told_offset_w[i] = c.fits[i].offset * nameplate_w
    unit.told_lo_w = unit.told_hi_w = c.setpoint_w
    # The next grid reading is at most a slot away, the newest power as old as two of its polls and one of its own intervals.
    first = <uint32_t>fmin(fmax(c.dead_lo_s - fresh_s, 0.0) / LINE_S, LINE_SLOTS - 1)
    unit.told_now = 1 if first == 0 else 0
    slots = <uint32_t>fmin(fmax((c.dead_hi_s + 2.0 * c.read_gap_s + fresh_s) / LINE_S, 0.0) + 2.0, LINE_SLOTS - 1)
    if c.still_s > slots * LINE_S:
        if c.still_s > slots * LINE_S + c.lag_hi_s:
            unit.told_look_s = c.lag_hi_s
        return
    if first > 0:
        unit.told_lo_w = unit.told_hi_w = c.line_w[(c.head + LINE_SLOTS - min(first, slots)) % LINE_SLOTS]
    for i in range(first, <uint32_t>(slots + 1)):
        w = c.line_w[(c.head + LINE_SLOTS - i) % LINE_SLOTS]
        unit.told_lo_w = fmin(unit.told_lo_w, w)
        unit.told_hi_w = fmax(unit.told_hi_w, w)


cdef double converter_gain(const converter_t* c, double* lo, double* hi) noexcept nogil:
    cdef const fit_t* fit = &c.fits[0 if c.fits[0].spread <= c.fits[1].spread else 1]
    lo[0] = fmax(fit.gain - 2.0 * fit.spread, 0.0)
    hi[0] = fit.gain + 2.0 * fit.spread
    return fit.gain


# ---------------------------------------------------------------- what Python sees


cdef class Converter:
    """One converter as the core learns it, for tests. nameplate_w: W; lag_s: what is assumed before the first move.

    first_dead_s, first_lag_s, first_gain: as they were measured before this start; 0 = not.
    """
    cdef converter_t converter
    cdef unit_view_t view
    cdef unit_memory_t memory
    cdef point_t reading
    cdef double nameplate_w, lag_s
    cdef uint64_t t_ns

    def __init__(self, double nameplate_w, double lag_s=0.05, *, double first_dead_s=0.0, double first_lag_s=0.0,
                 double first_gain=0.0):
        memset(&self.converter, 0, sizeof(converter_t))
        converter_begin(&self.converter, first_dead_s, first_lag_s, first_gain)
        memset(&self.reading, 0, sizeof(point_t))
        self.nameplate_w, self.lag_s, self.t_ns = nameplate_w, lag_s, 1000000000

    def order(self, double request_w):
        """What the gate is to be asked for, W."""
        return converter_order(&self.converter, request_w, self.nameplate_w)

    def step(self, double setpoint_w, reading_w=None, double dt_s=0.001):
        """A cycle after the gate let setpoint_w go, with a new reading of the converter's power or none, W.

        Returns (lo, hi) of what is counted on, W.
        """
        self.t_ns += <uint64_t>(dt_s * 1e9 + 0.5)
        if reading_w is not None:
            self.reading.value, self.reading.t_ns, self.reading.quality = reading_w, self.t_ns, QUALITY_GOOD
        self.view.envelope_lo_w, self.view.envelope_hi_w = -self.nameplate_w, self.nameplate_w
        converter_step(
            &self.converter, &self.reading, setpoint_w, self.nameplate_w, self.lag_s, 0.0, &self.memory, &self.view, self.t_ns, dt_s
        )
        return self.view.envelope_lo_w, self.view.envelope_hi_w

    @property
    def gain(self):
        """(gain, least, most)."""
        cdef double lo = 0.0, hi = 0.0
        return converter_gain(&self.converter, &lo, &hi), lo, hi

    @property
    def times_s(self):
        """(dead time, lag, moves that they come from)."""
        return self.converter.dead_s, self.converter.lag_s, self.converter.moves
