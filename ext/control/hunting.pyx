"""Hunting: battery and meter chase each other, because what the meter shows is older than anybody assumed.

Told from a load that swings by itself: under hunting the grid swings by what the battery does, no more and no less,
swing after swing. A load that the battery follows leaves its own steps on the grid as well, and where the age of the
readings is known (pairing.pyx), the battery's own moves are not mistaken at all. Six half swings in a row of that kind
raise the level by one: the pairing looks for longer ages, and the request follows with a time constant that doubles with
each level. Twenty quiet periods lower it again; an age that was not found by then is not looked for any more.
What cannot be told apart from a chase is a smooth swing of some ten seconds about the very limit that is shaved: above
it the battery moves and below it the grid, by the same.
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
    """
    const int TURNS, LEVEL_MAX
    const double SWING_LEAST_W, ALIKE_LO, ALIKE_HI, STEADY_LO, HALF_SWING_S, QUIET_PERIODS, QUIET_LEAST_S


cdef inline void half_swing_begin(hunting_t* h, double ess_w, double grid_w) noexcept nogil:
    h.ess_lo_w = ess_w
    h.ess_hi_w = ess_w
    h.grid_lo_before_w = h.grid_lo_w
    h.grid_hi_before_w = h.grid_hi_w
    h.grid_lo_w = grid_w
    h.grid_hi_w = grid_w
    h.turn_s = 0.0


cdef void half_swing_end(hunting_t* h, double swing_w) noexcept nogil:
    """The battery has turned: was this half swing one of a chase?"""
    cdef double grid_w = fmax(h.grid_hi_w, h.grid_hi_before_w) - fmin(h.grid_lo_w, h.grid_lo_before_w)
    cdef double ratio = grid_w / swing_w
    if ALIKE_LO <= ratio <= ALIKE_HI and swing_w >= STEADY_LO * h.swing_w and h.turn_s <= HALF_SWING_S:
        h.count += 1
        h.quiet_s = 0.0
    else:
        h.count = 0
    h.swing_w = swing_w
    h.period_s = 2.0 * h.turn_s
    if h.count >= TURNS and h.level < LEVEL_MAX:
        h.level += 1
        h.count = TURNS // 2


cdef void find_turns(const control_params_t* params, const plant_t* plant, hunting_t* h) noexcept nogil:
    """Find the battery's turns, each time the meter has something new."""
    cdef double least_w = fmax(8.0 * params.deadband_w, SWING_LEAST_W), swing_w = h.ess_hi_w - h.ess_lo_w
    h.grid_lo_w = fmin(h.grid_lo_w, plant.grid_w)
    h.grid_hi_w = fmax(h.grid_hi_w, plant.grid_w)
    if h.direction >= 0 and plant.ess_w < h.ess_hi_w - 0.25 * fmax(swing_w, least_w):
        if h.direction > 0 and swing_w >= least_w:
            half_swing_end(h, swing_w)
        h.direction = -1
        half_swing_begin(h, h.ess_hi_w, plant.grid_w)
    elif h.direction <= 0 and plant.ess_w > h.ess_lo_w + 0.25 * fmax(swing_w, least_w):
        if h.direction < 0 and swing_w >= least_w:
            half_swing_end(h, swing_w)
        h.direction = 1
        half_swing_begin(h, h.ess_lo_w, plant.grid_w)
    h.ess_lo_w = fmin(h.ess_lo_w, plant.ess_w)
    h.ess_hi_w = fmax(h.ess_hi_w, plant.ess_w)


cdef double hunting_damp(const control_params_t* params, const plant_t* plant, hunting_t* h, double wanted_w,
                         double dt_s) noexcept nogil:
    cdef double tau_s
    if not h.started:
        h.started = 1
        h.slow_w = wanted_w
        h.grid_lo_w = plant.grid_w
        h.grid_hi_w = plant.grid_w
        half_swing_begin(h, plant.ess_w, plant.grid_w)
    h.turn_s += dt_s
    h.quiet_s += dt_s
    if plant.paired:  # its own moves are known to the last watt: whatever swings is the load
        h.count = 0
        h.level = 0  # and what made it chase before, an age that was not known, is over
    elif plant.grid_new:
        find_turns(params, plant, h)
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
