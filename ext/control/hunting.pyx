"""Hunting: battery and meter chase each other, because what the meter shows is older than anybody assumed.

Told from a load that swings by itself: under hunting the grid swings by what the battery does, no more and no less,
swing after swing. A load that the battery follows leaves its own steps on the grid as well. Six half swings in a row of
that kind raise the level by one: the pairing looks for longer ages, and the request follows with a time constant that
doubles with each level. Twenty quiet periods lower it again; an age that was not found by then is not looked for any more.
What cannot be told apart from a chase is a smooth swing of some ten seconds about the very limit that is shaved: above
it the battery moves and below it the grid, by the same.

Where the age of the readings is known (pairing.pyx), the battery's own moves are not mistaken, if that is true. What is
known may be wrong, and a load that swings by itself then looks the same. So there it is tried: after six half swings
alike the battery is held where it gives most of its swing, for two periods, which takes nothing from a limit of import.
A load that swings goes on; a chase has nothing to follow any more and stands still. The next trial waits longer each time.
"""

from libc.math cimport fabs

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.settings cimport *
from tidegate.ext.control.corridor cimport *
from tidegate.ext.estimate.estimate cimport *


cdef extern from *:
    """
    #define TURNS 6             /* half swings of that kind in a row before the level rises */
    #define SWING_LEAST_W 100.0 /* of the battery; and eight times the meter's resolution */
    #define ALIKE_LO 0.7        /* grid's swing over the battery's */
    #define ALIKE_HI 1.3
    #define STEADY_LO 0.6       /* a half swing over the one before: a battery on its way to rest does not hunt */
    #define HALF_SWING_S 9.0    /* twice the oldest reading that is looked for: a slower swing is the load's own */
    #define QUIET_PERIODS 20.0
    #define QUIET_LEAST_S 10.0
    #define LEVEL_MAX 6
    #define TRIED_LO 0.1        /* grid's swing over the battery's, for a trial: a meter that averages shows little of it */
    #define TRIED_HI 1.6
    #define LASTING 2.0         /* a half swing lasts no longer and no shorter than the one before the last, by this factor */
    #define STILL 0.33          /* of the grid's swing: what is left of it while the battery is held */
    #define REST_FIRST_S 10.0   /* from a trial to the next */
    #define REST_MOST_S 1800.0
    """
    const int TURNS, LEVEL_MAX
    const double TRIED_LO, TRIED_HI, LASTING, STILL, REST_FIRST_S, REST_MOST_S
    const double SWING_LEAST_W, ALIKE_LO, ALIKE_HI, STEADY_LO, HALF_SWING_S, QUIET_PERIODS, QUIET_LEAST_S


cdef inline void half_swing_begin(hunting_t* h, double ess_w, double grid_w) noexcept nogil:
    h.ess_lo_w = ess_w
    h.ess_hi_w = ess_w
    h.grid_lo_before_w = h.grid_lo_w
    h.grid_hi_before_w = h.grid_hi_w
    h.grid_lo_w = grid_w
    h.grid_hi_w = grid_w
    h.turn_s = 0.0


cdef void half_swing_end(hunting_t* h, double swing_w, bint paired) noexcept nogil:
    """The battery has turned: was this half swing one of a chase?"""
    cdef double grid_w = fmax(h.grid_hi_w, h.grid_hi_before_w) - fmin(h.grid_lo_w, h.grid_lo_before_w)
    cdef double ratio = grid_w / swing_w
    cdef bint steady = swing_w >= STEADY_LO * h.swing_w and h.turn_s <= HALF_SWING_S
    if ALIKE_LO <= ratio <= ALIKE_HI and steady and not paired:
        h.count += 1
        h.quiet_s = 0.0
    else:
        h.count = 0
    if TRIED_LO <= ratio <= TRIED_HI and steady and (
            STEADY_LO * swing_w <= h.swing_w and h.half_before_s <= LASTING * h.turn_s and h.turn_s <= LASTING * h.half_before_s):
        h.alike += 1
    else:
        h.alike = 0
    h.half_before_s = h.half_s
    h.half_s = h.turn_s
    h.grid_swing_w = grid_w
    h.swing_w = swing_w
    h.period_s = 2.0 * h.turn_s
    if h.count >= TURNS and h.level < LEVEL_MAX:
        h.level += 1
        h.count = TURNS // 2


cdef void trial_begin(hunting_t* h, double given_w) noexcept nogil:
    """The battery has just begun to give less: what the meter shows by now asks for no more than it gave."""
    h.trial = 1
    h.held_w = h.ess_hi_w
    h.given_w = given_w
    h.trial_s = 0.0
    h.trial_period_s = h.half_s + h.half_before_s
    h.alike = 0


cdef void trial_end(hunting_t* h) noexcept nogil:
    h.trial = 0
    h.wait_s = h.rest_s = fmin(fmax(2.0 * h.rest_s, REST_FIRST_S), REST_MOST_S)
    if h.trial_hi_w - h.trial_lo_w > STILL * h.grid_swing_w:
        return
    h.proven = 1
    h.rest_s = h.wait_s = 0.0
    h.quiet_s = 0.0
    h.period_s = h.trial_period_s
    h.level = min(h.level + 1, <uint32_t>LEVEL_MAX)


cdef double held(const plant_t* plant, hunting_t* h, double wanted_w, double hi_w, double given_w, double dt_s) noexcept nogil:
    """What the battery is held at: it gives what is needed by now, and never less than before."""
    h.trial_s += dt_s
    if h.trial_s <= h.trial_period_s:
        h.trial_lo_w = h.trial_hi_w = plant.grid_w
    elif plant.grid_new:
        h.trial_lo_w = fmin(h.trial_lo_w, plant.grid_w)
        h.trial_hi_w = fmax(h.trial_hi_w, plant.grid_w)
    if given_w != h.given_w:  # another order
        h.trial = 0
        return wanted_w
    if h.trial_s > 2.0 * h.trial_period_s:
        trial_end(h)
    h.held_w = fmax(h.held_w, wanted_w)
    return fmax(wanted_w, fmin(h.held_w, hi_w))


cdef void find_turns(const control_params_t* params, const plant_t* plant, hunting_t* h, double given_w) noexcept nogil:
    """Find the battery's turns, each time the meter has something new."""
    cdef double least_w = fmax(8.0 * params.deadband_w, SWING_LEAST_W), swing_w = h.ess_hi_w - h.ess_lo_w
    if h.turn_s > HALF_SWING_S:  # else one large move of long ago hides all smaller swings
        h.direction = 0
        h.count = h.alike = 0
        half_swing_begin(h, plant.ess_w, plant.grid_w)
        return
    h.grid_lo_w = fmin(h.grid_lo_w, plant.grid_w)
    h.grid_hi_w = fmax(h.grid_hi_w, plant.grid_w)
    if h.direction >= 0 and plant.ess_w < h.ess_hi_w - 0.25 * fmax(swing_w, least_w):
        if h.direction > 0 and swing_w >= least_w:
            half_swing_end(h, swing_w, plant.paired)
            if h.alike >= TURNS and h.wait_s <= 0.0:
                trial_begin(h, given_w)
        h.direction = -1
        half_swing_begin(h, h.ess_hi_w, plant.grid_w)
    elif h.direction <= 0 and plant.ess_w > h.ess_lo_w + 0.25 * fmax(swing_w, least_w):
        if h.direction < 0 and swing_w >= least_w:
            half_swing_end(h, swing_w, plant.paired)
        h.direction = 1
        half_swing_begin(h, h.ess_lo_w, plant.grid_w)
    h.ess_lo_w = fmin(h.ess_lo_w, plant.ess_w)
    h.ess_hi_w = fmax(h.ess_hi_w, plant.ess_w)


cdef double hunting_damp(const control_params_t* params, const plant_t* plant, hunting_t* h, double wanted_w,
                         double hi_w, double given_w, double dt_s) noexcept nogil:
    cdef double tau_s
    if not h.started:
        h.started = 1
        h.slow_w = wanted_w
        h.grid_lo_w = plant.grid_w
        h.grid_hi_w = plant.grid_w
        half_swing_begin(h, plant.ess_w, plant.grid_w)
    h.turn_s += dt_s
    h.quiet_s += dt_s
    h.wait_s = fmax(h.wait_s - dt_s, 0.0)
    h.proven = 0
    if plant.paired and not h.paired:
        h.level = 0  # what made it chase, an age that was not known, is over
    h.paired = plant.paired
    if h.trial:
        h.slow_w = held(plant, h, wanted_w, hi_w, given_w, dt_s)
        return h.slow_w
    if plant.grid_new:
        find_turns(params, plant, h, given_w)
    if h.level == 0:
        h.slow_w = wanted_w
        return wanted_w
    if h.quiet_s > fmax(QUIET_PERIODS * h.period_s, QUIET_LEAST_S):
        h.quiet_s = 0.0
        h.level -= 1
    tau_s = 0.5 * h.period_s * <double>(1 << h.level)
    h.slow_w += (wanted_w - h.slow_w) * fmin(dt_s / fmax(tau_s, dt_s), 1.0)
    if fabs(wanted_w - h.slow_w) <= params.deadband_w:
        h.slow_w = wanted_w
    return h.slow_w
