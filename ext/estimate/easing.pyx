"""Batteries as they are: limits that jump, whole percents, a BMS that asks for charge.

The gate takes every limit as it comes. The control counts on less: a limit of the BMS often falls because of the very
current that it allowed, and a control that comes back with it at once makes the two switch each other. So what is
counted on goes down at once and up slowly, and the sooner it fell again after a rise, the longer the next one waits.
"""

from libc.math cimport fabs, isfinite
from libc.stdint cimport int16_t, uint32_t

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.image cimport QUALITY_GOOD, QUALITY_HELD, point_t
from tidegate.ext.estimate.estimate cimport *


cdef extern from *:
    """
    #define FALL_SHARE 0.005     /* of the unit's power: a smaller fall is drift */
    #define HOLD_LEAST_S 1.0
    #define HOLD_MOST_S 60.0
    #define RELAPSE_S 3.0        /* a fall so soon after a rise, ... */
    #define ALIKE_SHARE 0.05     /* ... to where it fell before, was caused by it */
    #define BAND_BACK 0.015      /* of the state of charge: more than one whole percent */
    #define ASKS_S 60.0          /* a request for charge stands so long after it was last made */
    """
    const double FALL_SHARE, HOLD_LEAST_S, HOLD_MOST_S, RELAPSE_S, ALIKE_SHARE, BAND_BACK, ASKS_S


cdef double easing_step(easing_t* easing, double allowed_w, double size_w, double dt_s) noexcept nogil:
    if not easing.started:
        easing.started = 1
        easing.w = allowed_w
        return allowed_w
    if allowed_w < easing.w:
        if easing.w - allowed_w > FALL_SHARE * size_w:
            if easing.rising and easing.high_s < RELAPSE_S and fabs(allowed_w - easing.low_w) < ALIKE_SHARE * size_w:
                easing.hold_s = fmin(2.0 * easing.hold_s, HOLD_MOST_S)
            elif easing.rising or easing.hold_s == 0.0:
                easing.hold_s = HOLD_LEAST_S
            easing.rising = 0
            easing.wait_s = easing.hold_s
            easing.low_w = allowed_w
        easing.w = allowed_w
    elif easing.hold_s == 0.0:
        easing.w = allowed_w
    elif allowed_w > easing.w:
        easing.wait_s -= dt_s
        if easing.wait_s <= 0.0:
            easing.rising = 1
            easing.high_s = 0.0
            easing.w = fmin(allowed_w, easing.w + size_w * dt_s / (2.0 * easing.hold_s))
    elif easing.rising:
        easing.high_s += dt_s
    return easing.w


cdef inline bint believed(const point_t* image, int16_t index) noexcept nogil:
    return index >= 0 and (image[index].quality == QUALITY_GOOD or image[index].quality == QUALITY_HELD) \
        and isfinite(image[index].value)


cdef inline uint32_t band_of(uint32_t closed, uint32_t bit, bint beyond, bint back) noexcept nogil:
    if beyond:
        return closed | bit
    return closed & ~bit if back else closed


cdef double forced_power(const unit_row_t* row, const point_t* image) noexcept nogil:
    """What the BMS forces by a limit below zero: no charge, but so much discharge, or the other way round. W, + discharge."""
    cdef double volt = image[row.pack_v].value if believed(image, row.pack_v) else 0.0
    cdef double forced_w = 0.0
    if believed(image, row.discharge_a_max) and image[row.discharge_a_max].value < 0.0:
        forced_w = fmin(forced_w, image[row.discharge_a_max].value * volt)
    if believed(image, row.discharge_w_max) and image[row.discharge_w_max].value < 0.0:
        forced_w = fmin(forced_w, image[row.discharge_w_max].value)
    if forced_w == 0.0 and believed(image, row.charge_a_max) and image[row.charge_a_max].value < 0.0:
        forced_w = -image[row.charge_a_max].value * volt
    if forced_w == 0.0 and believed(image, row.charge_w_max) and image[row.charge_w_max].value < 0.0:
        forced_w = -image[row.charge_w_max].value
    return forced_w


cdef void battery_step(battery_t* battery, const unit_row_t* row, const point_t* image, const control_params_t* params,
                       unit_view_t* view, double dt_s) noexcept nogil:
    cdef double size_w = fmax(row.gate.charge_w_max, row.gate.discharge_w_max)
    cdef double soc_min = row.gate.soc_min_cpct * 1e-4, soc_max = row.gate.soc_max_cpct * 1e-4
    cdef double soc
    cdef uint32_t closed = battery.closed
    if isfinite(view.soc):
        view.soc = soc = fmin(fmax(view.soc, 0.0), 1.0)
        closed = band_of(closed, BAND_RESERVE, soc <= params.reserve_soc, soc >= params.reserve_soc + BAND_BACK)
        closed = band_of(closed, BAND_FOLLOW, soc <= params.follow_soc_min, soc >= params.follow_soc_min + BAND_BACK)
        closed = band_of(closed, BAND_EMPTY, soc <= soc_min, soc >= soc_min + BAND_BACK)
        closed = band_of(closed, BAND_FULL, soc >= soc_max, soc <= soc_max - BAND_BACK)
    battery.closed = view.closed = closed
    view.envelope_hi_w = easing_step(
        &battery.discharge, 0.0 if closed & BAND_EMPTY else fmax(view.envelope_hi_w, 0.0), size_w, dt_s)
    view.envelope_lo_w = -easing_step(
        &battery.charge, 0.0 if closed & BAND_FULL else fmax(-view.envelope_lo_w, 0.0), size_w, dt_s)

    view.forced_w = forced_power(row, image)
    if believed(image, row.force_charge) and image[row.force_charge].value >= 0.5:
        battery.asks = 1
        battery.asked_s = 0.0
    elif battery.asks:
        battery.asked_s += dt_s
        battery.asks = battery.asked_s < ASKS_S
    if battery.asks and view.forced_w == 0.0:
        view.forced_w = -(params.recharge_rate_w if params.recharge_rate_w > 0.0 else size_w)
    view.forced_w = fmin(fmax(view.forced_w, view.envelope_lo_w), view.envelope_hi_w)


# ---------------------------------------------------------------- what Python sees


cdef class Easing:
    """One eased limit, for tests. size_w: the unit's power."""
    cdef easing_t easing
    cdef double size_w

    def __init__(self, double size_w):
        self.size_w = size_w

    def step(self, double allowed_w, double dt_s=0.001):
        """What is counted on after a cycle of dt_s in which allowed_w is allowed, W."""
        return easing_step(&self.easing, allowed_w, self.size_w, dt_s)
