"""The state of one cabinet: tripped, arming, ready, run, derated, stopping, off, manual.

It starts tripped. The gate (safety.c) decides alone what is safe and when a trip ends; this machine decides what a unit
that the gate would let run may ask for: nothing, the power of the step test, a manual power, or what the control wants.

    tripped --the gate armed--> arming --step test passed--> ready --at rest--> run <--> derated
    any armed state --stop--> stopping --at rest--> off --stop lifted--> arming
    ready, run, derated <--manual order in force--> manual
    every state --the gate tripped--> tripped
"""

from libc.math cimport fabs, fmod, isfinite
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memset

from tidegate.ext.abi.bits cimport random_next
from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.safety.safety cimport REACTION_DERATE
from tidegate.ext.abi.image cimport (
    MODE_ARMING, MODE_DERATED, MODE_MANUAL, MODE_OFF, MODE_READY, MODE_RUN, MODE_STOPPING, MODE_TRIPPED, MODES,
    QUALITY_GOOD, point_t,
)

cdef double STEP_WAIT_S = 10.0
cdef double STEP_LEAST = 0.1        # of the step: a converter that gives so little of it is derated, not deaf
cdef double STEP_NOISE = 4.0        # and so many times what its reading moved by at rest
cdef double STEP_STANDS_S = 1.5     # an answer that has not grown for so long, and in so many readings, is all there is
cdef uint32_t STEP_STANDS = 4
cdef double STEP_SETTLED_S = 0.05   # on its way to too much it would pass through the right size
cdef double PROBE_TURN_S = 0.15     # least length of a pulse ...
cdef double PROBE_TURN_SHARE = 0.12 # ... and of the time since the first one: what averages needs longer ones
cdef double PROBE_FOLLOW_S = 2.0    # so much longer a pulse waits for a converter that has yet to follow
cdef double PROBE_LARGER_S = 2.5    # so long until the pulses are twice as large, and again
cdef double PROBE_LARGEST_S = 12.0
cdef double PROBE_S = 15.0          # from then on short and long ones by turns
cdef double PROBE_AGE_S = 26.0      # so long, and so many intervals of the meter, until the age is given up
cdef double PROBE_INTERVALS = 6.0
cdef double PROBE_S_MAX = 45.0
cdef double PROBE_SHARE_LEAST = 0.4 # of the nameplate: so large a pulse stays where the limits need nearly all of it
cdef double PROBE_QUICK_S = 1.0     # a meter with a shorter interval needs no longer pulses
cdef double PROBE_TURN_LONG = 0.3
cdef uint32_t PROBE_LONG = 7        # of a slow meter one pulse in four is so long: what averages needs that
cdef double PROBE_STANDS = 1.7      # its intervals: a level that stands through a value
cdef double PROBE_SOON = 0.05       # ... and so long after a value another one begins, ...
cdef double PROBE_LATER = 0.15      # ... or one, two, three times so long later
cdef double PROBE_UNEVEN = 0.025    # by so much, or up to 15 times that, pulses of a slow meter are smaller: no load is as large by chance
cdef double LATE_CHARGE_S = 25.0    # a pulse keeps the limits under whatever the load did for so long and as long again: by ...
cdef double LATE_DISCHARGE_S = 8.0  # ... charge those of import, which it is made for; by discharge those of export
cdef double LATE_INTERVALS = 2.0    # at least so many of the meter's intervals
cdef double PROBE_REST_INTERVALS = 2.0 # of a slow meter, between two pulses while a limit needs discharge ...
cdef double PROBE_REST_S = 1.0      # ... and of a quick one
cdef double PROBE_REST_SHARE = 0.1     # ... by so much of the nameplate more than is given
cdef double UNPROVEN_S = 60.0       # whether the meter shows the pulses at all is looked for so long, ...
cdef double UNPROVEN_LONGER = 2.0   # where little speaks for it: so many times longer
cdef double UNPROVEN_S_MAX = 150.0  # ... and so many of its intervals


cdef int32_t cabinet_next(int32_t mode, const cabinet_facts_t* facts) noexcept nogil:
    if facts.tripped or mode < 0 or mode >= <int32_t>MODES:  # what cannot be is a trip, not a guess
        return MODE_TRIPPED
    if facts.stop:
        return MODE_STOPPING if facts.moving else MODE_OFF
    if mode == MODE_TRIPPED or mode == MODE_OFF or mode == MODE_STOPPING:
        return MODE_ARMING
    if mode == MODE_ARMING:
        return MODE_READY if facts.step == STEP_PASSED and facts.probed else MODE_ARMING
    if mode == MODE_READY and facts.moving:  # the step's power goes back to 0 before anybody takes over
        return MODE_READY
    if facts.manual:
        return MODE_MANUAL
    return MODE_DERATED if facts.derated else MODE_RUN


# ---------------------------------------------------------------- what may be asked for


cdef double cabinet_request(cabinet_t* cabinet, const gate_verdict_t* last, double wanted_w, double lo_w, double hi_w,
                            double nameplate_w, uint32_t manual, double trusted_w, uint32_t arming, double interval_s,
                            double dt_s) noexcept nogil:
    """lo_w, hi_w: the corridor that the site leaves. A power that is no number passes as such: the gate refuses it."""
    cdef double slew_w
    if cabinet.mode == MODE_MANUAL and manual:
        cabinet.return_s = RETURN_S
        return wanted_w
    if cabinet.mode == MODE_RUN or cabinet.mode == MODE_DERATED or cabinet.mode == MODE_MANUAL:
        if cabinet.return_s > 0.0 and isfinite(wanted_w):
            cabinet.return_s -= dt_s
            slew_w = nameplate_w / RETURN_S * dt_s
            wanted_w = fmin(fmax(wanted_w, last.setpoint_w - slew_w - 1.0), last.setpoint_w + slew_w + 1.0)
        return wanted_w
    if cabinet.mode == MODE_ARMING:
        if cabinet.step == STEP_PASSED:
            lo_w /= fmax(arming, 1.0)  # all who arm do so at once: to each its part of what the site leaves
            hi_w /= fmax(arming, 1.0)
            corridor_of_late(cabinet, lo_w, hi_w, interval_s, dt_s)
            if not cabinet.turns & 1 and lo_w > (
                    last.setpoint_w + PROBE_REST_SHARE * nameplate_w if cabinet.needed_w > 0.0 or not isfinite(trusted_w) else 0.0):
                rest_short(cabinet, interval_s)
            return probe_request(cabinet, last, fmin(fmax(wanted_w, 0.0), trusted_w) if isfinite(trusted_w) else wanted_w,
                                 lo_w, hi_w, nameplate_w)
        return step_request(cabinet, last, lo_w, hi_w, nameplate_w)
    return 0.0


cdef double step_request(cabinet_t* cabinet, const gate_verdict_t* last, double lo_w, double hi_w,
                         double nameplate_w) noexcept nogil:
    """Discharge where the site and the battery allow it, else charge; while neither does, wait at 0."""
    cdef int32_t step_w = <int32_t>fmax(nameplate_w * (STEP_PERMILLE * 1e-3), STEP_W_MIN)
    cabinet.size_w = step_w
    if cabinet.step_w == 0 or cabinet.step != STEP_OPEN:
        return 0.0
    # Once begun it has one direction: a late converter would answer the first while the second is looked for.
    if cabinet.step_w >= 0 and hi_w >= step_w and last.envelope_hi_w >= step_w:
        return step_w
    if cabinet.step_w <= 1 and lo_w <= -step_w and last.envelope_lo_w <= -step_w:
        return -step_w
    return 0.0


# ---------------------------------------------------------------- the step test


cdef void step_look(cabinet_t* cabinet, const gate_verdict_t* verdict, const point_t* reading, double dt_s) noexcept nogil:
    """Whether the converter's power follows a small setpoint in sign, and gives no more of it.

    A wrong unit (kW for W), a wrong sign, or a converter that does not listen shows at 2 % and not at full power. One
    that gives a tenth of it or more, clearly beyond what its reading does at rest, is taken once the answer stands.
    """
    cdef double moved_w
    cdef int32_t step_w = verdict.setpoint_w
    cdef double pcs_w
    cdef uint64_t pcs_t_ns
    if reading == NULL or reading.quality != QUALITY_GOOD:
        cabinet.agree = cabinet.differ = 0
        return
    pcs_w = reading.value
    pcs_t_ns = reading.t_ns
    if cabinet.step_w == 0:  # first it must rest: a converter that is still busy is waited for
        if cabinet.echo_s > 0.0:
            return
        cabinet.waited_s += dt_s
        if pcs_t_ns == cabinet.seen_t_ns:
            return
        if fabs(pcs_w - cabinet.base_w) <= 0.25 * cabinet.size_w:
            cabinet.noise_w = fmax(cabinet.noise_w, fabs(pcs_w - cabinet.base_w)) if cabinet.agree else 0.0
            cabinet.agree += 1
        else:
            cabinet.agree = 0
        cabinet.base_w = pcs_w
        cabinet.seen_t_ns = pcs_t_ns
        if cabinet.agree >= STEP_READINGS:
            cabinet.agree = 0
            cabinet.waited_s = 0.0
            cabinet.step_w = 1  # what it is asked for then is the gate's to say
        elif cabinet.waited_s > STEP_WAIT_S:
            cabinet.step = STEP_FAILED
        return
    if step_w == 0 and cabinet.step_w != 1:  # cut short: the site no longer allows it, and its answer may be on its way
        cabinet.step_w = 0
        cabinet.agree = 0
        cabinet.waited_s = 0.0
        return
    if step_w == 0 or step_w != cabinet.step_w:  # not asked yet, or on its ramp
        cabinet.step_w = step_w if step_w != 0 else 1
        cabinet.seen_t_ns = pcs_t_ns
        cabinet.agree = cabinet.differ = cabinet.stands = 0
        cabinet.stands_s = cabinet.most = 0.0
        return
    cabinet.waited_s += dt_s
    cabinet.stands_s += dt_s
    if pcs_t_ns != cabinet.seen_t_ns:
        cabinet.seen_t_ns = pcs_t_ns
        step_reading(cabinet, (pcs_w - cabinet.base_w) / step_w, fabs(pcs_w - cabinet.base_w))
    if cabinet.agree >= STEP_READINGS and cabinet.stands_s >= STEP_SETTLED_S:
        cabinet.step = STEP_PASSED
    elif cabinet.stands >= STEP_STANDS and (cabinet.stands_s > STEP_STANDS_S or cabinet.waited_s > STEP_WAIT_S):
        cabinet.step = STEP_PASSED  # it gives less than it is told, in the right direction: no hazard
    elif cabinet.differ >= STEP_READINGS or cabinet.waited_s > STEP_WAIT_S:
        cabinet.step = STEP_FAILED


cdef void step_reading(cabinet_t* cabinet, double moved, double moved_w) noexcept nogil:
    """One reading of the converter in its step. moved: as a share of the step."""
    cabinet.agree = cabinet.agree + 1 if 0.5 <= moved <= 1.5 else 0
    cabinet.differ = cabinet.differ + 1 if moved < -0.5 or moved > 2.5 else 0
    if moved < STEP_LEAST or moved > 1.5 or moved_w <= STEP_NOISE * cabinet.noise_w:  # nothing, the wrong way, or more
        cabinet.stands = 0
        cabinet.stands_s = 0.0
        cabinet.most = 0.0
        return
    cabinet.stands += 1
    if moved > cabinet.most + 0.02:  # still on its way
        cabinet.most = moved
        cabinet.stands_s = 0.0


# ---------------------------------------------------------------- pulses


cdef double probe_request(cabinet_t* cabinet, const gate_verdict_t* last, double wanted_w, double lo_w, double hi_w,
                          double nameplate_w) noexcept nogil:
    """Between two pulses what the limits need, without them nothing; in one, more of it where the site and the battery
    allow that, else less. Without a need: discharge where they allow it, else charge, within what the load has left of
    late: a pulse outlasts the reading that it was begun by.
    """
    cdef double probe_w = fmax(nameplate_w * (PROBE_PERMILLE * 1e-3), STEP_W_MIN), up_w, down_w
    if cabinet.probe_s > PROBE_LARGER_S:
        probe_w *= 2.0 if cabinet.probe_s <= 2.5 * PROBE_LARGER_S else 4.0 if cabinet.probe_s <= PROBE_LARGEST_S else 8.0
    up_w = fmin(hi_w, last.envelope_hi_w)
    down_w = fmax(lo_w, last.envelope_lo_w)
    needed(cabinet, wanted_w if lo_w > 0.0 or hi_w < 0.0 else 0.0)
    cabinet.pulse_w = 0.0
    if cabinet.late:  # but what the limits need is theirs to say
        up_w = fmax(fmin(up_w, fmax(fmin(cabinet.late_hi_w[0], cabinet.late_hi_w[1]), cabinet.needed_w)), 0.0)
        down_w = fmin(fmax(down_w, fmin(fmax(cabinet.late_lo_w[0], cabinet.late_lo_w[1]), cabinet.needed_w)), 0.0)
    if cabinet.needed_w > 0.0 and up_w > 0.0:
        return beside(cabinet, cabinet.needed_w, up_w, probe_w, nameplate_w)
    if cabinet.needed_w < 0.0 and down_w < 0.0:
        return -beside(cabinet, -cabinet.needed_w, -down_w, probe_w, nameplate_w)
    if not cabinet.turns & 1:
        return 0.0
    up_w = fmin(up_w, probe_w)
    down_w = fmax(down_w, -probe_w)
    cabinet.pulse_w = share_of_size(cabinet) * (up_w if up_w >= -down_w else down_w)
    return cabinet.pulse_w


cdef inline double share_of_size(const cabinet_t* cabinet) noexcept nogil:
    return 1.0 - PROBE_UNEVEN * (cabinet.random >> 3 & 15)


cdef inline void corridor_of_late(cabinet_t* cabinet, double lo_w, double hi_w, double interval_s, double dt_s) noexcept nogil:
    """The narrowest that the corridor was, for this time and the one before."""
    if lo_w == 0.0 and hi_w == 0.0:  # nothing is known of the load
        return
    if late_ends(&cabinet.late_s[0], fmax(LATE_CHARGE_S, LATE_INTERVALS * interval_s), dt_s):
        cabinet.late_lo_w[1] = cabinet.late_lo_w[0] if cabinet.late else lo_w
        cabinet.late_lo_w[0] = lo_w
    if late_ends(&cabinet.late_s[1], fmax(LATE_DISCHARGE_S, LATE_INTERVALS * interval_s), dt_s):
        cabinet.late_hi_w[1] = cabinet.late_hi_w[0] if cabinet.late else hi_w
        cabinet.late_hi_w[0] = hi_w
    cabinet.late = 1
    cabinet.late_lo_w[0] = fmax(cabinet.late_lo_w[0], lo_w)
    cabinet.late_hi_w[0] = fmin(cabinet.late_hi_w[0], hi_w)


cdef inline bint late_ends(double* left_s, double length_s, double dt_s) noexcept nogil:
    left_s[0] -= dt_s
    if left_s[0] > 0.0:
        return False
    left_s[0] = length_s
    return True


cdef inline void rest_short(cabinet_t* cabinet, double interval_s) noexcept nogil:
    """While a limit needs more discharge than a rest gives, it is no longer than a slow meter needs to show it."""
    cabinet.turn_s = fmin(cabinet.turn_s, fmax(PROBE_REST_INTERVALS * interval_s, PROBE_REST_S))


cdef inline void needed(cabinet_t* cabinet, double needed_w) noexcept nogil:
    """What the limits need, taken anew where a pulse has ended: its two edges are the pulse's own."""
    if cabinet.needed_turn != cabinet.turns and not cabinet.turns & 1:
        cabinet.needed_w = needed_w if cabinet.probe_s > PROBE_LARGEST_S else 0.0
    cabinet.needed_turn = cabinet.turns


cdef inline double beside(cabinet_t* cabinet, double needed_w, double room_w, double probe_w,
                          double nameplate_w) noexcept nogil:
    """The level of now: a pulse is as large as what is needed leaves room for, and no smaller than a share."""
    cdef double size_w = fmin(fmin(probe_w, room_w), fmax(room_w - needed_w, PROBE_SHARE_LEAST * nameplate_w))
    cdef double rest_w = fmin(needed_w, room_w - size_w)
    if not cabinet.turns & 1:
        return rest_w
    size_w *= share_of_size(cabinet)
    cabinet.pulse_w = size_w if cabinet.needed_w > 0.0 else -size_w
    return rest_w + size_w


cdef inline bint probe_ends(const cabinet_t* cabinet, uint32_t answer_wanted, double patience_s) noexcept nogil:
    """Known or likely; or possible, and looked for long enough; or looked for so long that it would be."""
    return answer_wanted <= ANSWER_LIKELY or cabinet.probe_s > UNPROVEN_LONGER * patience_s or (
        cabinet.probe_s > patience_s and answer_wanted == ANSWER_POSSIBLE)


cdef void probe_look(cabinet_t* cabinet, const gate_verdict_t* verdict, const point_t* reading, uint32_t age_wanted,
                     uint32_t answer_wanted, double interval_s, double dt_s) noexcept nogil:
    """Pulses of uneven length, so that no load that repeats itself looks like them, each longer than the meter's interval.

    They grow in length and in size while the age stays unknown: a meter that averages, coarse digits and a restless load
    hide the short and the small ones. Done when the age is known; given up when that does not help.
    """
    cdef bint follows = reading == NULL or reading.quality != QUALITY_GOOD or (
        fabs(reading.value - verdict.setpoint_w) <= 0.25 * fabs(verdict.setpoint_w - cabinet.turn_from_w) + 1.0)
    cdef double length_s
    cdef double[4] longer
    longer[0], longer[1], longer[2], longer[3] = 1.0, 1.6, 1.25, 2.1
    cdef bint found = not age_wanted or cabinet.probe_s > fmin(PROBE_AGE_S + PROBE_INTERVALS * interval_s, PROBE_S_MAX)
    if found and probe_ends(cabinet, answer_wanted, fmin(UNPROVEN_S + PROBE_INTERVALS * interval_s, UNPROVEN_S_MAX)):
        if answer_wanted == ANSWER_UNLIKELY:
            cabinet.unseen = 1
        else:
            cabinet.probed = 1
        return
    cabinet.probe_s += dt_s
    cabinet.turn_s -= dt_s
    if interval_s >= PROBE_QUICK_S and cabinet.fresh and not is_long(cabinet, interval_s):
        # Each value of a slow meter is to tell something: between nearly any two another level, at a time and of a size that
        # nothing foretells. Where it averages, or has looked between two pulses every time, the long ones show.
        cabinet.random = random_next(cabinet.random)
        cabinet.turn_s = (PROBE_STANDS if cabinet.random & 3 == 0 else PROBE_SOON + PROBE_LATER * (cabinet.random >> 2 & 3)) * interval_s
    if cabinet.turn_s <= -PROBE_FOLLOW_S or (cabinet.turn_s <= 0.0 and follows):
        cabinet.turns += 1
        cabinet.turn_from_w = verdict.setpoint_w
        length_s = PROBE_TURN_SHARE * cabinet.probe_s
        if interval_s >= PROBE_QUICK_S:
            cabinet.turn_s = PROBE_TURN_LONG * fmin(cabinet.probe_s, PROBE_S_MAX) if is_long(cabinet, interval_s) else PROBE_STANDS * interval_s
            return
        if cabinet.probe_s > PROBE_S:
            if interval_s > 0.0:  # short and long ones by turns, the long ones longer each time
                length_s = PROBE_TURN_SHARE * fmod(cabinet.probe_s, PROBE_S) * fmin(cabinet.probe_s, PROBE_S_MAX) / PROBE_S
            else:
                length_s = PROBE_TURN_LONG * fmin(cabinet.probe_s, PROBE_S_MAX)
        cabinet.turn_s = longer[cabinet.turns & 3] * fmax(fmax(PROBE_TURN_S, interval_s), length_s)


cdef inline bint is_pulsing(const cabinet_t* cabinet) noexcept nogil:
    return cabinet.mode == MODE_ARMING and cabinet.step == STEP_PASSED


cdef void pulse_as_one(cabinet_t* cabinets, uint32_t n_units) noexcept nogil:
    """Units that arm at once give one pulse, whose edges wait until the last converter has followed the one before.

    The meter sees their sum. By its own clock each drifts from the others, and the sum has no two levels any more.
    """
    cdef cabinet_t* last = NULL
    cdef cabinet_t* one
    cdef uint32_t unit
    for unit in range(n_units):
        one = &cabinets[unit]
        if is_pulsing(one) and (last == NULL or one.joined > last.joined or (one.joined == last.joined and one.turns < last.turns)):
            last = one
    if last == NULL:
        return
    for unit in range(n_units):
        one = &cabinets[unit]
        if not is_pulsing(one):
            continue
        if one.turns > last.turns and one.joined:  # it would have turned alone
            one.turn_from_w = one.kept_from_w
        one.joined = 1
        one.turns, one.turn_s, one.probe_s, one.kept_from_w = last.turns, last.turn_s, last.probe_s, one.turn_from_w
        one.random = last.random


cdef inline bint is_long(const cabinet_t* cabinet, double interval_s) noexcept nogil:
    return cabinet.probe_s > PROBE_S and cabinet.turns & PROBE_LONG == PROBE_LONG and (
        PROBE_TURN_LONG * fmin(cabinet.probe_s, PROBE_S_MAX) > PROBE_STANDS * interval_s)


cdef void cabinet_step(cabinet_t* cabinet, const gate_verdict_t* verdict, uint32_t stop, uint32_t manual,
                       const point_t* pcs_w, uint32_t age_wanted, uint32_t answer_wanted, double interval_s, double answer_s,
                       double dt_s) noexcept nogil:
    cdef cabinet_facts_t facts
    cdef double echo_s = answer_s if verdict.setpoint_w != 0 else fmax(cabinet.echo_s - dt_s, 0.0)
    cdef int32_t before = cabinet.mode
    cabinet.echo_s = echo_s
    if before == MODE_ARMING and cabinet.step == STEP_PASSED:
        probe_look(cabinet, verdict, pcs_w, age_wanted, answer_wanted, interval_s, dt_s)
    elif before == MODE_ARMING:
        step_look(cabinet, verdict, pcs_w, dt_s)
    facts.probed = cabinet.probed
    facts.tripped = 1 if verdict.tripped else 0
    facts.stop = stop
    facts.derated = 1 if verdict.reaction >= REACTION_DERATE else 0
    facts.moving = 1 if verdict.setpoint_w != 0 else 0
    facts.manual = 1 if manual else 0
    facts.step = cabinet.step
    cabinet.mode = cabinet_next(before, &facts)
    if cabinet.mode != before and (cabinet.mode == MODE_ARMING or cabinet.mode == MODE_TRIPPED):
        before = cabinet.mode
        memset(cabinet, 0, sizeof(cabinet_t))  # each arming has a test of its own
        cabinet.mode = before
        cabinet.echo_s = echo_s


cdef int32_t site_mode(const cabinet_t* cabinets, uint32_t n_units) noexcept nogil:
    cdef int32_t mode = MODE_TRIPPED
    cdef uint32_t unit, tripped = 0
    for unit in range(n_units):
        if cabinets[unit].mode == MODE_TRIPPED:
            tripped += 1
        elif mode == MODE_TRIPPED or activity(cabinets[unit].mode) > activity(mode):
            mode = cabinets[unit].mode
    return MODE_DERATED if mode == MODE_RUN and tripped else mode


cdef inline int activity(int32_t mode) noexcept nogil:
    if mode == MODE_MANUAL:
        return 7
    if mode == MODE_DERATED:
        return 6
    if mode == MODE_RUN:
        return 5
    if mode == MODE_READY:
        return 4
    if mode == MODE_ARMING:
        return 3
    return 2 if mode == MODE_STOPPING else 1


# ---------------------------------------------------------------- what Python sees


def next_mode(int mode, *, bint tripped=False, bint stop=False, bint derated=False, bint moving=False,
              bint manual=False, int step=STEP_OPEN, bint probed=True):
    """The state that follows `mode` (enum mode of image.h) under these facts. step: 0 open, 1 passed, 2 failed."""
    cdef cabinet_facts_t facts
    facts.tripped, facts.stop, facts.derated, facts.moving, facts.manual = tripped, stop, derated, moving, manual
    facts.step = <uint32_t>step
    facts.probed = probed
    return cabinet_next(mode, &facts)
