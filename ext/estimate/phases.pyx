"""A grid meter's phases against their total, and against what the battery does on each of them.

Power is looked at as sum and in its parts, by one meter in the same moments or nearly so:

- the three phases add up to the total. They are read apart from it, so what they were in two looks, least and most of each, is
  held against the least and the most of the total around these looks: a load that changes meanwhile widens both;
- volts times amperes of the phases are no less than the total's size;
- a phase without power has no current, if it had power for its current before;
- a phase that the battery moves cannot stand at zero while the battery moves, unless its load makes the same moves; nor
  while the battery charges, unless it gives the same power, which counts where none of the phases ever gave any: the
  transformer or the wire of that phase is off. How much of the battery a phase shows the site
  file says; converters of more than 15 kW have three phases; of others it is learnt while the battery follows no load, from the
  pulses of arming and the steps of questions. A phase on which the converter has nothing
  may stand at zero for as long as it likes.

What a meter never did is not expected of it: one wired for three wires shows phases that never add up (`apart`), and only an
agreement that ends is a contradiction. So a meter that is wrong from the start is for the pulses of arming to find.
Looks with the same values in all phases are one: a meter that is read more often than it measures.
"""

from libc.math cimport INFINITY, fabs, isfinite, sqrt
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.image cimport (
    PHASES_AGAINST, PHASES_AGREE, PHASES_APART, PHASES_NO_L1, PHASES_NONE, PHASES_WAIT, QUALITY_GOOD, point_t,
)
from tidegate.ext.abi.program cimport program_t
from tidegate.ext.abi.settings cimport PHASES_MAX


cdef extern from *:
    """
    #define TOTALS_MASK 63u
    #define SPAN_NS 200000000u    /* of the total's range */
    #define LOOK_NS 400000000u    /* looks are no closer than that, ... */
    #define APART_NS 3000000000u  /* ... and further apart nothing is compared; nor are phases read so far from each other */
    #define TOGETHER_NS 1000000000u
    #define SLACK_S 0.5           /* the meter refreshes phases and total at other moments, ... */
    #define SLACK_INTERVALS 2.0   /* ... so many intervals apart */
    #define CLASS 0.1             /* of the power: meters of class 2 and the angles of three transformers, with room */
    #define FLOOR 0.01            /* of the nameplates: digits, and what a meter is too small for */
    #define CLEAR 3.0             /* a power that is so many times what may be off tells something, ... */
    #define NARROW 0.3            /* ... if it is known to so much of itself */
    #define AGREED 10u            /* so often before an end of it counts, ... */
    #define AGREED_TIMES 4u       /* ... and so many times as often as not */
    #define AGAINST 2u            /* in a row */
    #define ZERO 1e-4             /* of the nameplates: a phase that shows no more, ... */
    #define ZERO_W 1.0
    #define ZERO_VA 0.003         /* ... and no more of its current, stands at zero */
    #define ZEROS 3u              /* looks in a row */
    #define NEEDS 2u              /* ... or so many before the battery is moved to see it */
    #define NEED 1.2              /* times the move that shows it */
    #define ZERO_FAR 0.67         /* of a move of the battery that must show in the total: so much of it is on that phase */
    #define CARRIED 0.33          /* of the same: the phase has carried so much */
    #define CARRIED_KEEPS 0.9995  /* a look */
    #define CARRIED_SHARE 0.01    /* of the most that a phase has carried: with less a meter may not start yet. Class 2 starts at 0.5 %
                                     of its current at the most (IEC 62053-21), behind transformers of twice what is carried */
    #define GIVES 0.33            /* of a move of the battery that must show in the total: a phase that gives so much gives power */
    #define FACTOR 0.5
    #define LIVE 0.5              /* of the highest voltage: with less the phase itself is lost, and not its transformer */
    #define THREE_PHASES_W 15e3   /* no converter of more power has one phase: that would be 65 A */
    #define SHARE_KEEPS 0.998     /* a look: how much of the battery a phase shows is remembered so long */
    #define SHARE_MOVES 4.0
    #define SHARE_LEAST 0.1
    #define SHARE_REST 0.15       /* of the battery's moves: what the phases do beside them */
    #define SHARE_DIGIT 1e-3      /* of the nameplate: phases are read a moment apart, and have digits */
    #define SHARE_SURE 4.0        /* standard deviations */
    """
    const uint32_t TOTALS_MASK, AGREED, AGREED_TIMES, AGAINST, ZEROS, NEEDS
    const uint64_t SPAN_NS, LOOK_NS, APART_NS, TOGETHER_NS
    const double NEED, SLACK_S, SLACK_INTERVALS, CLASS, FLOOR, CLEAR, NARROW, ZERO, ZERO_W, ZERO_VA, ZERO_FAR, CARRIED, CARRIED_SHARE, GIVES
    const double CARRIED_KEEPS, FACTOR, LIVE, SHARE_KEEPS, SHARE_MOVES, THREE_PHASES_W, SHARE_LEAST, SHARE_SURE, SHARE_REST, SHARE_DIGIT


cdef void phases_forget(phases_t* p) noexcept nogil:
    p.count = p.against = p.beyond = 0
    memset(p.span, 0, sizeof(p.span))
    memset(p.zeros, 0, sizeof(p.zeros))
    memset(p.dark, 0, sizeof(p.dark))


cdef void phases_ask_anew(phases_t* p) noexcept nogil:
    if p.state >= PHASES_AGAINST:
        phases_forget(p)
        p.state = PHASES_WAIT


cdef inline bint is_known(const point_t* image, int point) noexcept nogil:
    return point >= 0 and image[point].quality == QUALITY_GOOD and isfinite(image[point].value)


cdef bint phases_due(const program_t* program, const point_t* image, const phases_t* p) noexcept nogil:
    cdef int phase, point
    for phase in range(PHASES_MAX):
        point = program.site.grid_w_l[phase]
        if point < 0 or image[point].t_ns < p.seen_ns + LOOK_NS:
            return False
    return True


cdef uint32_t phases_reading(const program_t* program, const point_t* image, phases_t* p, double grid_w, double ess_w,
                             double nameplate_w, double far_w, double interval_s, bint learn, uint64_t t_ns) noexcept nogil:
    cdef uint64_t number = t_ns // SPAN_NS + 1
    cdef uint32_t at = <uint32_t>number & TOTALS_MASK
    if program.site.grid_w_l[0] < 0 or program.site.grid_w_l[1] < 0 or program.site.grid_w_l[2] < 0:
        return PHASES_NONE
    if p.state == PHASES_NONE:
        p.state = PHASES_WAIT
    if p.span[at] != number:
        p.span[at] = number
        p.least_w[at] = p.most_w[at] = grid_w
    p.least_w[at] = fmin(p.least_w[at], grid_w)
    p.most_w[at] = fmax(p.most_w[at], grid_w)
    if phases_due(program, image, p):
        look(program, image, p, ess_w, nameplate_w, far_w, interval_s, learn, t_ns)
    return p.state


cdef inline double volts_amperes(const program_t* program, const point_t* image, int phase) noexcept nogil:
    """Apparent power of a phase; < 0 = not known."""
    cdef int v = program.site.grid_v[phase], a = program.site.grid_a[phase]
    if not (is_known(image, v) and is_known(image, a)):
        return -1.0
    return fabs(image[v].value * image[a].value)


cdef void look(const program_t* program, const point_t* image, phases_t* p, double ess_w, double nameplate_w, double far_w,
               double interval_s, bint learn, uint64_t t_ns) noexcept nogil:
    cdef double[PHASES_MAX] w
    cdef double[PHASES_MAX] va
    cdef double all_va = 0.0
    cdef uint64_t from_ns = 0, to_ns = 0
    cdef int phase, point
    cdef bint same = True
    for phase in range(PHASES_MAX):
        point = program.site.grid_w_l[phase]
        if not is_known(image, point):
            phases_forget(p)
            return
        w[phase] = image[point].value
        va[phase] = volts_amperes(program, image, phase)
        all_va = -1.0 if all_va < 0.0 or va[phase] < 0.0 else all_va + va[phase]
        from_ns = image[point].t_ns if from_ns == 0 else min(from_ns, image[point].t_ns)
        to_ns = max(to_ns, image[point].t_ns)
        same = same and p.count > 0 and w[phase] == p.before_w[phase]
    if p.count and to_ns > p.seen_ns + APART_NS:
        phases_forget(p)
    p.seen_ns = to_ns
    if same or to_ns > from_ns + TOGETHER_NS:
        return
    if p.count and learn and p.learnt:
        learn_shares(p, w, ess_w, ZERO_W + ZERO * nameplate_w)
    if p.count >= LOOKS:
        compare(p, nameplate_w, interval_s, t_ns)
    stand(program, image, p, w, va, ess_w, nameplate_w, far_w)
    shift(p)
    for phase in range(PHASES_MAX):
        p.before_w[phase] = p.w[1][phase] = w[phase]
    p.before_ess_w = ess_w
    p.learnt = learn
    p.count = min(<uint32_t>(p.count + 1), <uint32_t>LOOKS)
    p.va[1] = all_va
    p.from_ns[1] = from_ns
    p.to_ns[1] = to_ns
    conclude(p)


cdef inline bint holds(uint32_t agreed, uint32_t apart) noexcept nogil:
    """It agreed for so long that an end of it says something."""
    return agreed >= AGREED and agreed > AGREED_TIMES * apart


cdef inline void conclude(phases_t* p) noexcept nogil:
    if p.state >= PHASES_AGAINST:  # until the meter is asked anew
        return
    if p.against >= AGAINST or p.beyond >= AGAINST:
        p.state = PHASES_AGAINST
    else:
        p.state = PHASES_AGREE if holds(p.agreed, p.apart) else PHASES_APART if p.apart > AGREED else PHASES_WAIT


# ---------------------------------------------------------------- the total


cdef void compare(phases_t* p, double nameplate_w, double interval_s, uint64_t t_ns) noexcept nogil:
    """The two looks before the newest, and the total from before them until now."""
    cdef double lo_w = 0.0, hi_w = 0.0, size_w = 0.0, total_lo_w = INFINITY, total_hi_w = -INFINITY, off_w, most_off_w, va, least_w
    cdef uint64_t back_ns = <uint64_t>((SLACK_S + SLACK_INTERVALS * interval_s) * 1e9)
    cdef uint64_t number, last = t_ns // SPAN_NS + 1, first
    cdef int phase
    first = (p.from_ns[0] - back_ns) // SPAN_NS + 1 if p.from_ns[0] > back_ns else 1
    if last >= first + TOTALS:
        return
    for number in range(first, last + 1):
        if p.span[<uint32_t>number & TOTALS_MASK] == number:
            total_lo_w = fmin(total_lo_w, p.least_w[<uint32_t>number & TOTALS_MASK])
            total_hi_w = fmax(total_hi_w, p.most_w[<uint32_t>number & TOTALS_MASK])
    for phase in range(PHASES_MAX):
        lo_w += fmin(p.w[0][phase], p.w[1][phase])
        hi_w += fmax(p.w[0][phase], p.w[1][phase])
        size_w += fmax(fabs(p.w[0][phase]), fabs(p.w[1][phase]))
    size_w = fmax(size_w, fmax(fabs(total_lo_w), fabs(total_hi_w)))
    most_off_w = CLASS * size_w + FLOOR * nameplate_w
    off_w = fmax(lo_w - total_hi_w, total_lo_w - hi_w)
    va = fmax(p.va[0], p.va[1]) if p.va[0] >= 0.0 and p.va[1] >= 0.0 else -1.0
    if total_lo_w <= total_hi_w:
        count(off_w, most_off_w, size_w > CLEAR * most_off_w and hi_w - lo_w + total_hi_w - total_lo_w < NARROW * size_w,
              &p.agreed, &p.apart, &p.against)
        least_w = fmax(fmax(total_lo_w, -total_hi_w), 0.0)
        if va >= 0.0:
            count(least_w - va, most_off_w, least_w > CLEAR * most_off_w, &p.covered, &p.uncovered, &p.beyond)


cdef inline void shift(phases_t* p) noexcept nogil:
    cdef int phase
    for phase in range(PHASES_MAX):
        p.w[0][phase] = p.w[1][phase]
    p.va[0] = p.va[1]
    p.from_ns[0] = p.from_ns[1]
    p.to_ns[0] = p.to_ns[1]


cdef inline void count(double off_w, double most_off_w, bint tells, uint32_t* agreed, uint32_t* apart,
                       uint32_t* against) noexcept nogil:
    if off_w <= most_off_w:
        against[0] = 0
        agreed[0] += tells and agreed[0] < 1000000u
    elif holds(agreed[0], apart[0]):
        against[0] += 1
    else:
        apart[0] += apart[0] < 1000000u


# ---------------------------------------------------------------- each phase


cdef void learn_shares(phases_t* p, const double* w, double ess_w, double zero_w) noexcept nogil:
    """What of the battery's moves each phase shows, while they follow no load.

    The meter shows all of the battery, so the three shares are one; and most of what a load does it does on all three.
    Against the mean of the phases a battery on one of them stands out, and one on all three does nothing.
    """
    cdef double moved_w = ess_w - p.before_ess_w, mean_w = 0.0, phase_w
    cdef int phase
    for phase in range(PHASES_MAX):
        if fabs(w[phase]) <= zero_w or fabs(p.before_w[phase]) <= zero_w:  # its way to zero or back is no move of the battery
            return
        mean_w += (w[phase] - p.before_w[phase]) / PHASES_MAX
    p.moves = SHARE_KEEPS * p.moves + 1.0
    p.moved_w2 = SHARE_KEEPS * p.moved_w2 + moved_w * moved_w
    for phase in range(PHASES_MAX):
        phase_w = w[phase] - p.before_w[phase] - mean_w
        p.both_w2[phase] = SHARE_KEEPS * p.both_w2[phase] + moved_w * phase_w
        p.phase_w2[phase] = SHARE_KEEPS * p.phase_w2[phase] + phase_w * phase_w


cdef double shown_share(const program_t* program, const phases_t* p, int phase) noexcept nogil:
    """Of the battery on this phase, as the site file says or as was seen; 0 = not known; < 0 = it shows nothing of it.

    Where the phases do something else beside the battery nothing is known: moves that are paired with the wrong moment
    leave none of them beside the mean, and look like a third.
    """
    cdef const double* told = &program.control.phase_share[0]
    cdef double share, rest_w2, least_w = INFINITY
    cdef uint32_t unit
    if told[0] + told[1] + told[2] > 0.0:
        return told[phase] if told[phase] > 0.0 else -1.0
    for unit in range(program.n_units):
        least_w = fmin(least_w, <double>max(program.units[unit].gate.charge_w_max, program.units[unit].gate.discharge_w_max))
    if least_w > THREE_PHASES_W:
        return 1.0 / PHASES_MAX
    if p.moves < SHARE_MOVES or p.moved_w2 <= 0.0:
        return 0.0
    share = -p.both_w2[phase] / p.moved_w2
    rest_w2 = fmax(p.phase_w2[phase] - share * share * p.moved_w2, 0.0)
    if rest_w2 > SHARE_REST * SHARE_REST * p.moved_w2:
        return 0.0
    rest_w2 = rest_w2 / (p.moves - 1.0) + (ZERO_W + SHARE_DIGIT * least_w) ** 2
    share += 1.0 / PHASES_MAX
    if SHARE_SURE * sqrt(rest_w2 / p.moved_w2) > fmax(share, SHARE_LEAST):
        return 0.0
    return share if share > SHARE_LEAST else -1.0


cdef void stand(const program_t* program, const point_t* image, phases_t* p, const double* w, const double* va, double ess_w,
                double nameplate_w, double far_w) noexcept nogil:
    cdef double others_w, zero_w = ZERO_W + ZERO * nameplate_w, v_max = 0.0, share, start_w = start_power(p)
    cdef int phase, v
    for phase in range(PHASES_MAX):
        if is_known(image, program.site.grid_v[phase]):
            v_max = fmax(v_max, image[program.site.grid_v[phase]].value)
    for phase in range(PHASES_MAX):
        v = program.site.grid_v[phase]
        if fabs(w[phase]) > zero_w or (is_known(image, v) and image[v].value < LIVE * v_max):
            p.zeros[phase] = p.dark[phase] = 0
            p.lit_ns[phase] = p.seen_ns
            p.carried_w[phase] = fmax(CARRIED_KEEPS * p.carried_w[phase], fabs(w[phase]))
            p.gives |= w[phase] + fmax(shown_share(program, p, phase), 0.0) * ess_w < -fmax(GIVES * far_w, start_w)
            if va[phase] > CARRIED * far_w:
                p.factor[phase] = fmax(CARRIED_KEEPS * p.factor[phase], fabs(w[phase]) / va[phase])
            continue
        if va[phase] > CARRIED * far_w:
            p.zeros[phase] = 0
            p.dark[phase] += 1
            if p.dark[phase] >= ZEROS and p.factor[phase] > FACTOR and p.state < PHASES_AGAINST:
                p.state = PHASES_NO_L1 + phase
            continue
        p.dark[phase] = 0
        others_w = fabs(w[(phase + 1) % PHASES_MAX]) + fabs(w[(phase + 2) % PHASES_MAX])
        if va[phase] > ZERO_VA * nameplate_w or others_w < far_w or p.carried_w[phase] < CARRIED * far_w:
            p.zeros[phase] = 0
            continue
        if p.zeros[phase] == 0:
            p.zero_lo_w[phase] = p.zero_hi_w[phase] = ess_w
        p.zero_lo_w[phase] = fmin(p.zero_lo_w[phase], ess_w)
        p.zero_hi_w[phase] = fmax(p.zero_hi_w[phase], ess_w)
        p.zeros[phase] += 1
        share = fmax(shown_share(program, p, phase), 0.0)
        if p.zeros[phase] < ZEROS or p.state >= PHASES_AGAINST:
            continue
        if share * (p.zero_hi_w[phase] - p.zero_lo_w[phase]) > fmax(ZERO_FAR * far_w, start_w) or (
                not p.gives and -share * p.zero_hi_w[phase] > fmax(GIVES * far_w, start_w)):
            p.state = PHASES_NO_L1 + phase


cdef inline double start_power(const phases_t* p) noexcept nogil:
    """With less of what a phase has carried a meter may not start yet, W."""
    cdef double w = 0.0
    cdef int phase
    for phase in range(PHASES_MAX):
        w = fmax(w, CARRIED_SHARE * p.carried_w[phase])
    return w


cdef double phases_need_w(const program_t* program, const phases_t* p, double far_w) noexcept nogil:
    cdef int phase = phases_at_zero(p)
    cdef double share = shown_share(program, p, phase - 1) if phase else 0.0
    return NEED * fmax(ZERO_FAR * far_w, start_power(p)) / share if share > 0.0 else 0.0


cdef int phases_at_zero(const phases_t* p) noexcept nogil:
    cdef int phase
    if p.state < PHASES_AGAINST:
        for phase in range(PHASES_MAX):
            if p.zeros[phase] >= NEEDS:
                return phase + 1
    return 0


cdef double phases_left(const program_t* program, const phases_t* p) noexcept nogil:
    cdef int phase = phases_at_zero(p)
    cdef double share = shown_share(program, p, phase - 1) if phase else 0.0
    return 1.0 if share < 0.0 else 1.0 - (share if share > 0.0 else 1.0 / PHASES_MAX)


cdef bint phases_lit(const phases_t* p, uint64_t since_ns) noexcept nogil:
    cdef int phase
    for phase in range(PHASES_MAX):
        if p.lit_ns[phase] < since_ns:
            return False
    return True


cdef void phases_lost(phases_t* p) noexcept nogil:
    cdef int phase = phases_at_zero(p)
    if phase:
        p.state = PHASES_NO_L1 + phase - 1


# ---------------------------------------------------------------- what Python sees


def phase_states(readings, double nameplate_w, shares=None, double learn_s=INFINITY):
    """State (enum meter_phases) after each reading, int.

    readings: rows (t_s, total_w, ess_w, w of three phases, A of three phases, V of three phases, look) as a meter shows
    them, rising in time; look: whether the phases were read in that row; an A or V of NaN is not there. nameplate_w: of
    the one unit, W; shares: of the battery on each phase, if the site file gives them; learn_s: the
    battery follows the load from then on. Raises MemoryError.
    """
    cdef program_t* program = <program_t*>calloc(1, sizeof(program_t))
    cdef phases_t p
    cdef point_t[9] image
    cdef double interval_s = 0.1
    found = []
    if program == NULL:
        raise MemoryError("no memory for the program")
    memset(&p, 0, sizeof(p))
    memset(image, 0, sizeof(image))
    try:
        program.n_units = 1
        program.units[0].gate.charge_w_max = <int>nameplate_w
        for i in range(PHASES_MAX):
            program.site.grid_w_l[i] = i
            program.site.grid_a[i] = <int>(PHASES_MAX + i)
            program.site.grid_v[i] = <int>(2 * PHASES_MAX + i)
            program.control.phase_share[i] = shares[i] if shares else 0.0
        for t_s, total_w, ess_w, *values, looked in readings:
            if looked:
                for i in range(9):
                    image[i].value = values[i]
                    image[i].t_ns = <uint64_t>(t_s * 1e9)
                    image[i].quality = QUALITY_GOOD
            found.append(phases_reading(program, image, &p, total_w, ess_w, nameplate_w, 0.03 * nameplate_w, interval_s,
                                        t_s < learn_s, <uint64_t>(t_s * 1e9)))
    finally:
        free(program)
    return found
