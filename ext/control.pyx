"""The corridor: what the storage should do now, and why.

Every policy is a small pure function that gives the interval of battery power it accepts. `control_step` starts from
what the units can do, narrows by policy, strongest first, and takes the point of what is left that lies nearest to the
wish (lease, plan, self-consumption, recharge, rest). The policy that moved the answer last is the binding reason.

Delay is not filtered here: `net_w` comes from readings of the same age (estimate.pyx), so that a step of the load goes
into the request at once and whole, and the battery's own answer to it is never mistaken for a change of the load.
"""

import time

from libc.math cimport INFINITY, NAN, fabs, floor, fmax, fmin, isfinite
from libc.string cimport memcpy, memset

from tidegate.ext.image cimport *


cdef extern from *:
    """
    #define DEMAND_POWER_SHARE 0.9 /* of the discharge power that the wait for the window's end relies on */
    #define DEMAND_ACT_SHARE 0.5   /* of the limit: the rest of a window is never left with less */
    #define DEMAND_APPROACH_S 30.0 /* how fast the grid is led to what the rest may have */
    #define DEMAND_END_S 2.0       /* the last seconds of a window are not divided by less */
    #define LOAD_PEAK_S 3600.0     /* memory of the highest load */
    #define TWO_PI 6.283185307179586
    #define RECHARGE_START 0.01    /* below the target, of the state of charge */
    #define RECHARGE_END 0.001
    #define RECHARGE_TAPER 0.02    /* full rate from here on */
    #define RECHARGE_STEP 0.0625   /* of the rate */
    #define TRIM_SETTLE_S 0.2
    #define TRIM_SHARE 0.05        /* of the request: a PCS further off than this is not trimmed, it is faulty */
    #define SPLIT_TILT 5.0         /* weight for each unit of difference in state of charge */
    #define SPLIT_HOLD 0.02        /* of a unit's power */
    """
    const double DEMAND_POWER_SHARE, DEMAND_ACT_SHARE, DEMAND_APPROACH_S, DEMAND_END_S, LOAD_PEAK_S, TWO_PI
    const double RECHARGE_START, RECHARGE_END, RECHARGE_TAPER, RECHARGE_STEP
    const double TRIM_SETTLE_S, TRIM_SHARE, SPLIT_TILT, SPLIT_HOLD


# ---------------------------------------------------------------- policies


cdef inline double import_limit(double value) noexcept nogil:
    # fmax takes the number of the two: a limit that is none (NaN) means 0, less power and not more.
    return fmax(value, 0.0)


cdef inline double some(double value, double otherwise) noexcept nogil:
    return value if value > 0.0 else otherwise


cdef inline policy_t import_below(double net_w, double limit_w, double aim_w, uint32_t reason) noexcept nogil:
    """Discharge at least what net_w stands above the limit; aim_w below it, for the meter's last digit."""
    cdef policy_t p
    p.lo = net_w - limit_w + aim_w if isfinite(limit_w) else -INFINITY
    p.hi = INFINITY
    p.reason = reason
    return p


cdef policy_t connection_limit(const control_params_t* params, const plant_t* plant, const orders_t* orders) noexcept nogil:
    return import_below(
        plant.net_w,
        fmin(import_limit(params.connection_import_w_max), import_limit(orders.import_w_max)),
        params.deadband_w,
        REASON_CONNECTION_LIMIT,
    )


cdef policy_t export_limit(const control_params_t* params, const plant_t* plant, const orders_t* orders) noexcept nogil:
    cdef policy_t p
    cdef double limit_w = fmin(import_limit(params.connection_export_w_max), import_limit(orders.export_w_max))
    p.lo = -INFINITY
    p.hi = plant.net_w + limit_w - params.deadband_w if isfinite(limit_w) else INFINITY
    p.reason = REASON_EXPORT_LIMIT
    return p


cdef policy_t phase_limit(const control_params_t* params, const plant_t* plant) noexcept nogil:
    """The worst phase decides; the battery's power falls on the phases by their shares."""
    cdef policy_t p
    cdef double share
    cdef int phase
    cdef bint thirds = not params.phase_share[0] + params.phase_share[1] + params.phase_share[2] > 0.0
    p.lo = -INFINITY
    p.hi = INFINITY
    p.reason = REASON_PHASE_LIMIT
    if not (0.0 < params.phase_import_w_max < INFINITY):
        return p
    for phase in range(PHASES_MAX):
        share = 1.0 / 3.0 if thirds else params.phase_share[phase]
        if plant.phases_ok >> phase & 1 and share > 0.0:
            p.lo = fmax(p.lo, (plant.phase_net_w[phase] - params.phase_import_w_max + params.deadband_w) / share)
    return p


cdef inline double circuit_need(const control_params_t* params, const plant_t* plant, int circuit) noexcept nogil:
    """Power that the units behind a sub-meter must give at least; minus infinity where it has no limit."""
    if not (plant.circuits_ok >> circuit & 1 and 0.0 < params.circuit_import_w_max[circuit] < INFINITY):
        return -INFINITY
    return plant.circuit_net_w[circuit] - params.circuit_import_w_max[circuit] + params.deadband_w


cdef inline bint behind(const control_params_t* params, int circuit, uint32_t unit) noexcept nogil:
    return <uint32_t>params.circuit_units[circuit] >> unit & 1


cdef policy_t circuit_limit(const control_params_t* params, const plant_t* plant) noexcept nogil:
    """The total must allow what the units behind each sub-meter owe, whatever the others do to make up for it."""
    cdef policy_t p
    cdef double need, others_lo
    cdef int circuit
    cdef uint32_t unit
    p.lo = -INFINITY
    p.hi = INFINITY
    p.reason = REASON_CIRCUIT_LIMIT
    for circuit in range(CIRCUITS_MAX):
        need = circuit_need(params, plant, circuit)
        if need == -INFINITY:
            continue
        others_lo = 0.0
        for unit in range(plant.n_units):
            if plant.units[unit].available and not behind(params, circuit, unit):
                others_lo += plant.units[unit].envelope_lo_w
        p.lo = fmax(p.lo, need + others_lo)
    return p


cdef inline double reserve_left(const control_params_t* params, const unit_view_t* unit) noexcept nogil:
    # The last half percent above the reserve is a slope, so that the power does not chatter at the edge.
    return fmin(fmax((unit.soc - params.reserve_soc) * 200.0, 0.0), 1.0)


cdef policy_t backup_reserve(const control_params_t* params, const plant_t* plant) noexcept nogil:
    """Below the reserve a unit discharges only for what is stronger: the connection's limits."""
    cdef policy_t p
    cdef uint32_t unit
    p.lo = -INFINITY
    p.hi = INFINITY
    p.reason = REASON_BACKUP_RESERVE
    if not params.reserve_soc > 0.0:
        return p
    p.hi = 0.0
    for unit in range(plant.n_units):
        if plant.units[unit].available:
            p.hi += plant.units[unit].envelope_hi_w * reserve_left(params, &plant.units[unit])
    return p


cdef policy_t demand_window(const control_params_t* params, const plant_t* plant, const orders_t* orders,
                            const control_state_t* state, double hi_w) noexcept nogil:
    """What may still be drawn in the rest of the window, and not a watt-hour shaved before it must be.

    The mean that the rest of the window may have is `rest_w`. While the battery could still hold it against the
    highest load seen of late, waiting costs nothing, and the load may fall by itself: the energy that must be shaved
    is the same later. From `act_w` on there is no such slack, and the grid is led to `rest_w`.
    """
    cdef policy_t p
    cdef double limit_w, act_w, left_s, rest_w, rest_least_w = INFINITY, allowed_w = INFINITY
    cdef double length_s = some(params.demand_window_s, 900.0)
    cdef uint32_t later
    p.lo = -INFINITY
    p.hi = INFINITY
    p.reason = REASON_DEMAND_WINDOW
    limit_w = some(params.demand_w_max, INFINITY)
    if orders.flags & ORDER_DEMAND:
        limit_w = fmin(limit_w, import_limit(orders.demand_w_max))
    if not isfinite(limit_w):
        return p
    # The limit in our own meter's watts, less the margin; what has been paid for need not be shaved again.
    limit_w = fmax(limit_w, params.demand_ratchet * plant.demand_paid_w) / plant.demand_gain - params.demand_margin_w
    act_w = fmax(state.load_peak_w - DEMAND_POWER_SHARE * hi_w, DEMAND_ACT_SHARE * limit_w)
    for later in range(min(plant.demand_windows, <uint32_t>SUBWINDOWS_MAX)):
        left_s = fmax(plant.demand_left_s + later * plant.demand_sub_s, DEMAND_END_S)
        rest_w = limit_w * (length_s - plant.demand_unknown_s[later]) - plant.demand_used_ws[later]
        rest_w = fmax(rest_w / left_s, 0.0)
        rest_least_w = fmin(rest_least_w, rest_w)
        if rest_w > act_w:
            rest_w += (rest_w - act_w) * left_s / DEMAND_APPROACH_S
        allowed_w = fmin(allowed_w, rest_w)
    # Charging never uses up what the rest of the window needs.
    p.lo = fmax(plant.net_w - allowed_w, fmin(0.0, plant.net_w - rest_least_w))
    return p


cdef policy_t peak_limit(const control_params_t* params, const plant_t* plant, const orders_t* orders) noexcept nogil:
    cdef double limit_w = import_limit(params.peak_w_max)
    if orders.flags & ORDER_PEAK:
        limit_w = fmin(limit_w, import_limit(orders.peak_w_max))
    return import_below(plant.net_w, limit_w, params.deadband_w, REASON_PEAK_LIMIT)


cdef policy_t ramp_limit(const control_params_t* params, const plant_t* plant, const control_state_t* state,
                         double dt_s) noexcept nogil:
    """The grid may leave the power it was led to by so many watts a second, whatever the load does."""
    cdef policy_t p
    cdef double up = some(params.ramp_up_w_per_s, INFINITY), down = some(params.ramp_down_w_per_s, INFINITY)
    p.lo = plant.net_w - (state.ramp_anchor_w + up * dt_s) if isfinite(up) else -INFINITY
    p.hi = plant.net_w - (state.ramp_anchor_w - down * dt_s) if isfinite(down) else INFINITY
    p.reason = REASON_RAMP_LIMIT
    return p


cdef policy_t range_limit(const control_params_t* params, const plant_t* plant, const control_state_t* state) noexcept nogil:
    """All that the grid was led to within the rolling window, and what comes next, spans no more than the limit."""
    cdef policy_t p
    cdef double least_w = INFINITY, most_w = -INFINITY
    cdef uint32_t i, at
    for i in range(min(state.range_count, <uint32_t>RANGE_SLOTS)):
        at = (state.range_head + RANGE_SLOTS - i) % RANGE_SLOTS
        least_w = fmin(least_w, state.range_lo_w[at])
        most_w = fmax(most_w, state.range_hi_w[at])
    p.lo = plant.net_w - (least_w + params.range_w_max) + params.deadband_w
    p.hi = plant.net_w - (most_w - params.range_w_max) - params.deadband_w
    p.reason = REASON_RANGE_LIMIT
    return p


cdef void range_keep(const control_params_t* params, control_state_t* state, double grid_w, double dt_s) noexcept nogil:
    """Note the grid power that was decided, in slices of the rolling window."""
    state.range_left_s -= dt_s
    if state.range_count == 0 or state.range_left_s <= 0.0:
        # Not started afresh: cycles that do not divide the slice would stretch the window.
        state.range_left_s = fmax(state.range_left_s + some(params.range_window_s, 60.0) / (RANGE_SLOTS - 1), 0.0)
        state.range_head = (state.range_head + 1) % RANGE_SLOTS
        state.range_count = min(state.range_count + 1, <uint32_t>RANGE_SLOTS)
        state.range_lo_w[state.range_head] = grid_w
        state.range_hi_w[state.range_head] = grid_w
    state.range_lo_w[state.range_head] = fmin(state.range_lo_w[state.range_head], grid_w)
    state.range_hi_w[state.range_head] = fmax(state.range_hi_w[state.range_head], grid_w)


cdef policy_t oscillation_damping(const control_params_t* params, const control_state_t* state,
                                  double answer_w) noexcept nogil:
    """Take a share of what swings inside the band away from the grid, on top of whatever was decided so far."""
    cdef policy_t p
    cdef double swing_w = fmin(params.damp_share, 1.0) * (state.damp_fast_w - state.damp_slow_w)
    p.lo = answer_w + swing_w
    p.hi = answer_w + swing_w
    p.reason = REASON_OSCILLATION
    if fabs(swing_w) <= params.deadband_w:
        p.lo = -INFINITY
        p.hi = INFINITY
    return p


cdef void band_pass(const control_params_t* params, const plant_t* plant, control_state_t* state, double dt_s) noexcept nogil:
    """Two low passes of the net power; the upper one two octaves above the band, for the sake of its phase."""
    cdef double slow_z = TWO_PI * some(params.damp_lo_hz, 0.1) * dt_s
    cdef double fast_z = 4.0 * TWO_PI * some(params.damp_hi_hz, 2.0) * dt_s
    state.damp_slow_w += (plant.net_w - state.damp_slow_w) * (slow_z / (1.0 + slow_z))
    state.damp_fast_w += (plant.net_w - state.damp_fast_w) * (fast_z / (1.0 + fast_z))


cdef policy_t recharge_band(const control_params_t* params, const plant_t* plant) noexcept nogil:
    """Charging may not make a new peak; discharging is none of its business."""
    cdef policy_t p
    cdef double limit_w = import_limit(params.recharge_w_max)
    p.lo = fmin(0.0, plant.net_w - limit_w + params.deadband_w) if isfinite(limit_w) else -INFINITY
    p.hi = INFINITY
    p.reason = REASON_RECHARGE_BAND
    return p


# ---------------------------------------------------------------- the resolver


cdef void narrow(corridor_t* corridor, policy_t policy) noexcept nogil:
    """The reason follows whoever moved the answer, or whose stronger edge kept this policy from moving it."""
    cdef double answer
    cdef uint32_t reason = policy.reason
    if policy.lo > corridor.lo:
        if policy.lo > corridor.hi:
            corridor.lo = corridor.hi
            corridor.lo_reason = reason = corridor.hi_reason
        else:
            corridor.lo = policy.lo
            corridor.lo_reason = reason
    if policy.hi < corridor.hi:
        if policy.hi < corridor.lo:
            corridor.hi = corridor.lo
            corridor.hi_reason = reason = corridor.lo_reason
        else:
            corridor.hi = policy.hi
            corridor.hi_reason = reason
    answer = fmin(fmax(corridor.wish, corridor.lo), corridor.hi)
    if answer != corridor.answer or reason != policy.reason:
        corridor.answer = answer
        corridor.reason = reason


# ---------------------------------------------------------------- the wish


cdef double state_of_charge(const plant_t* plant) noexcept nogil:
    """Of all units that take part, weighted by their energy; NaN with none."""
    cdef double energy_wh = 0.0, stored_wh = 0.0, weight
    cdef uint32_t unit
    if plant.n_units == 1:
        return plant.units[0].soc
    for unit in range(plant.n_units):
        if plant.units[unit].available and isfinite(plant.units[unit].soc):
            weight = some(plant.units[unit].energy_wh, 1.0)
            energy_wh += weight
            stored_wh += weight * plant.units[unit].soc
    return stored_wh / energy_wh if energy_wh > 0.0 else NAN


cdef double recharge_wish(const control_params_t* params, control_state_t* state, double soc, double dt_s) noexcept nogil:
    """Charging (or, where a ramp is followed, discharging) power that leads the state of charge to its target.

    Starts one percent below the target and ends at it, rises within two seconds in sixteen steps: a setpoint for
    every watt would fill the bus.
    """
    cdef double rate_w = params.recharge_rate_w
    cdef double missing = params.target_soc - soc, wish_w
    if not rate_w > 0.0 or not isfinite(missing):
        state.recharging = 0
        state.recharge_w = 0.0
        return 0.0
    if not state.recharging:
        state.recharging = missing > RECHARGE_START or (params.recentre > 0.0 and -missing > RECHARGE_START)
    elif (missing <= 0.0 and not params.recentre > 0.0) or fabs(missing) <= RECHARGE_END:
        state.recharging = 0
    if not state.recharging:
        state.recharge_w = 0.0
        return 0.0
    wish_w = -rate_w * fmin(fmax(missing / RECHARGE_TAPER, -1.0), 1.0)
    if fabs(wish_w) < fabs(state.recharge_w) or wish_w * state.recharge_w < 0.0:
        state.recharge_w = 0.0 if wish_w * state.recharge_w < 0.0 else wish_w
    elif wish_w < 0.0:
        state.recharge_w = fmax(wish_w, state.recharge_w - 0.5 * rate_w * dt_s)
    else:
        state.recharge_w = fmin(wish_w, state.recharge_w + 0.5 * rate_w * dt_s)
    return in_steps(state.recharge_w, rate_w * RECHARGE_STEP)


cdef inline void again(const control_params_t* params, control_state_t* state, double answer_w) noexcept nogil:
    """What was not allowed grows again from what was, one step ahead of it."""
    cdef double step_w = params.recharge_rate_w * RECHARGE_STEP
    if state.recharge_w < 0.0:
        state.recharge_w = fmin(fmax(state.recharge_w, answer_w - step_w), 0.0)
    else:
        state.recharge_w = fmax(fmin(state.recharge_w, answer_w + step_w), 0.0)


cdef inline double in_steps(double value, double step) noexcept nogil:
    # Towards zero, with a little for the last bit of a sum of steps.
    return 0.0 - floor(-value / step + 1e-9) * step if value < 0.0 else floor(value / step + 1e-9) * step


cdef double wish(const control_params_t* params, const plant_t* plant, const orders_t* orders, control_state_t* state,
                 double soc, double dt_s, uint32_t* preference) noexcept nogil:
    """The point that would be taken if every policy allowed it. An absent source falls to the next."""
    cdef double wish_w
    if orders.lease_held and isfinite(orders.lease_w):
        preference[0] = REASON_LEASE
        return orders.lease_w
    if orders.flags & ORDER_PLAN and isfinite(orders.plan_w):
        preference[0] = REASON_PLAN
        return orders.plan_w
    if params.follow_grid > 0.0 and isfinite(params.target_grid_w):
        preference[0] = REASON_SELF_CONSUMPTION
        wish_w = plant.net_w - params.target_grid_w
        return fmin(wish_w, 0.0) if soc <= params.follow_soc_min else wish_w
    wish_w = recharge_wish(params, state, soc, dt_s)
    preference[0] = REASON_RECENTRE if wish_w != 0.0 else REASON_REST
    return wish_w


# ---------------------------------------------------------------- one cycle


cdef void control_step(const control_params_t* params, const plant_t* plant, const orders_t* orders,
                       control_state_t* state, decision_t* decision, double dt_s) noexcept nogil:
    cdef corridor_t c
    cdef double soc, total_w
    cdef uint32_t preference

    if not dt_s >= 0.0:  # NaN as well
        dt_s = 0.0
    envelope(plant, &c)
    decision.envelope_lo_w = c.lo
    decision.envelope_hi_w = c.hi
    decision.shortfall_w = 0.0
    decision.grid_limit_w = grid_limit(params, orders)

    if orders.stop:
        rest(plant, state, decision, REASON_STOPPED)
        return
    if not plant.grid_ok or not plant.load_ok or not isfinite(plant.net_w):
        rest(plant, state, decision, REASON_BLIND)
        return

    if not state.started:
        state.started = 1
        state.ramp_anchor_w = plant.grid_w if isfinite(plant.grid_w) else plant.net_w
        state.load_peak_w = plant.net_w
        state.damp_slow_w = plant.net_w
        state.damp_fast_w = plant.net_w
    load_peak(plant, state, dt_s)

    soc = state_of_charge(plant)
    c.wish = wish(params, plant, orders, state, soc, dt_s, &preference)
    c.answer = fmin(fmax(c.wish, c.lo), c.hi)
    c.reason = preference if c.answer == c.wish else <uint32_t>REASON_ENVELOPE

    narrow(&c, connection_limit(params, plant, orders))
    narrow(&c, export_limit(params, plant, orders))
    if plant.phases_ok:
        narrow(&c, phase_limit(params, plant))
    if plant.circuits_ok:
        narrow(&c, circuit_limit(params, plant))
    if params.reserve_soc > 0.0:
        narrow(&c, backup_reserve(params, plant))
    if plant.demand_windows:
        narrow(&c, demand_window(params, plant, orders, state, decision.envelope_hi_w))
    narrow(&c, peak_limit(params, plant, orders))
    if params.ramp_up_w_per_s > 0.0 or params.ramp_down_w_per_s > 0.0:
        narrow(&c, ramp_limit(params, plant, state, dt_s))
    if params.range_w_max > 0.0 and isfinite(params.range_w_max):
        if state.range_count:
            narrow(&c, range_limit(params, plant, state))
        range_keep(params, state, plant.net_w - c.answer, dt_s)
    if params.damp_share > 0.0:
        band_pass(params, plant, state, dt_s)
        narrow(&c, oscillation_damping(params, state, c.answer))
    narrow(&c, recharge_band(params, plant))

    state.ramp_anchor_w = plant.net_w - c.answer
    if preference == REASON_RECENTRE and c.answer != c.wish:
        again(params, state, c.answer)

    total_w = hold(params, state, &c, preference)
    total_w = fmin(fmax(total_w, decision.envelope_lo_w), decision.envelope_hi_w)
    state.settle_s = state.settle_s + dt_s if total_w == state.last_total_w else 0.0
    state.last_total_w = total_w
    total_w = trim(params, plant, state, decision, total_w, dt_s)

    decision.lo_w = c.lo
    decision.hi_w = c.hi
    decision.reason = c.reason
    decision.preference = preference
    decision.request_total_w = total_w
    if plant.net_w - total_w > decision.grid_limit_w + params.deadband_w:
        decision.shortfall_w = plant.net_w - total_w - decision.grid_limit_w
    if plant.n_units == 1:
        decision.request_w[0] = total_w
    else:
        share_out(params, plant, state, decision, total_w)


cdef void envelope(const plant_t* plant, corridor_t* c) noexcept nogil:
    """What the units can do now, all together. What is no number counts as nothing."""
    cdef uint32_t unit
    cdef double lo = 0.0, hi = 0.0
    for unit in range(plant.n_units):
        if plant.units[unit].available:
            if isfinite(plant.units[unit].envelope_lo_w):
                lo += fmin(plant.units[unit].envelope_lo_w, 0.0)
            if isfinite(plant.units[unit].envelope_hi_w):
                hi += fmax(plant.units[unit].envelope_hi_w, 0.0)
    c.lo = lo
    c.hi = hi
    c.lo_reason = REASON_ENVELOPE
    c.hi_reason = REASON_ENVELOPE


cdef inline double grid_limit(const control_params_t* params, const orders_t* orders) noexcept nogil:
    cdef double limit_w = fmin(import_limit(params.connection_import_w_max), import_limit(orders.import_w_max))
    limit_w = fmin(limit_w, import_limit(params.peak_w_max))
    return fmin(limit_w, import_limit(orders.peak_w_max)) if orders.flags & ORDER_PEAK else limit_w


cdef void rest(const plant_t* plant, control_state_t* state, decision_t* decision, uint32_t reason) noexcept nogil:
    """Nothing at once, and a fresh start afterwards. Without a grid meter every other power would be a guess."""
    cdef uint32_t unit
    for unit in range(plant.n_units):
        decision.request_w[unit] = 0.0
    memset(state, 0, sizeof(control_state_t))
    decision.request_total_w = 0.0
    decision.lo_w = 0.0
    decision.hi_w = 0.0
    decision.reason = reason
    decision.preference = reason


cdef inline void load_peak(const plant_t* plant, control_state_t* state, double dt_s) noexcept nogil:
    """Highest net power of late: held, forgotten over an hour."""
    state.load_peak_w += (plant.net_w - state.load_peak_w) * fmin(dt_s / LOAD_PEAK_S, 1.0)
    state.load_peak_w = fmax(state.load_peak_w, plant.net_w)


cdef inline double hold(const control_params_t* params, const control_state_t* state, const corridor_t* c,
                        uint32_t preference) noexcept nogil:
    """Keep the last request while it is as good as the new one within what the meter can tell."""
    cdef double last = state.last_total_w, width = params.deadband_w
    if c.answer == c.wish and preference != REASON_SELF_CONSUMPTION:
        return c.answer
    if preference == REASON_RECENTRE and c.answer < 0.0 and c.answer <= last < 0.0 and last <= c.hi:
        width = fmax(width, params.recharge_rate_w * RECHARGE_STEP)  # a little less charging does no harm
    if last == 0.0 or fabs(last - c.answer) > 2.0 * width:
        return c.answer
    if fabs(last - c.answer) <= width:
        return last
    # Just outside: most likely the tail of the meter's noise, so go there but for half the width.
    return c.answer + 0.5 * width if last > c.answer else c.answer - 0.5 * width


cdef double trim(const control_params_t* params, const plant_t* plant, control_state_t* state,
                 const decision_t* decision, double total_w, double dt_s) noexcept nogil:
    """Slow correction of a PCS that does not quite do what it is told, once it has had time to do it."""
    cdef double error_w, most_w
    cdef uint32_t unit
    cdef double setpoint_w = 0.0
    if not params.trim_per_s > 0.0 or total_w == 0.0:
        state.trim_w = 0.0
        state.trim_applied_w = 0.0
        state.last_applied_w = total_w
        return total_w
    if state.settle_s > TRIM_SETTLE_S + 6.0 * params.pcs_tau_s:
        for unit in range(plant.n_units):
            setpoint_w += plant.units[unit].setpoint_w
        error_w = total_w - plant.ess_w
        # Only where the gate let the request through; what it holds back is no error of the PCS.
        if fabs(setpoint_w - state.last_applied_w) <= 1.0 + plant.n_units and fabs(error_w) > params.deadband_w:
            state.trim_w += params.trim_per_s * error_w * fmin(dt_s, 1.0)
    most_w = TRIM_SHARE * fabs(total_w)
    state.trim_w = fmin(fmax(state.trim_w, -most_w), most_w)
    if fabs(state.trim_w - state.trim_applied_w) > 0.5 * params.deadband_w:
        state.trim_applied_w = state.trim_w
    state.trim_applied_w = fmin(fmax(state.trim_applied_w, -most_w), most_w)
    total_w = fmin(fmax(total_w + state.trim_applied_w, decision.envelope_lo_w), decision.envelope_hi_w)
    state.last_applied_w = total_w
    return total_w


# ---------------------------------------------------------------- several units


cdef void share_out(const control_params_t* params, const plant_t* plant, control_state_t* state,
                    decision_t* decision, double total_w) noexcept nogil:
    """Split, but let the units stay where they are while the new split differs by little: each change is a write."""
    cdef double fresh[UNITS_MAX]
    cdef double sum_w = 0.0, last_w
    cdef bint keep = True
    cdef uint32_t unit
    split(params, plant, total_w, fresh)
    for unit in range(plant.n_units):
        last_w = state.last_request_w[unit]
        sum_w += last_w
        if not plant.units[unit].available or not unit_lo(&plant.units[unit]) <= last_w <= unit_hi(&plant.units[unit]):
            keep = keep and last_w == 0.0 and fresh[unit] == 0.0
        elif fabs(fresh[unit] - last_w) > SPLIT_HOLD * fmax(unit_hi(&plant.units[unit]), -unit_lo(&plant.units[unit])):
            keep = False
    # A sum of sixteen shares differs from the total by rounding only.
    keep = keep and fabs(sum_w - total_w) <= 1e-6 * fabs(total_w)
    for unit in range(plant.n_units):
        if not keep:
            state.last_request_w[unit] = fresh[unit]
        decision.request_w[unit] = state.last_request_w[unit]


cdef inline double unit_lo(const unit_view_t* unit) noexcept nogil:
    return fmin(unit.envelope_lo_w, 0.0) if isfinite(unit.envelope_lo_w) else 0.0


cdef inline double unit_hi(const unit_view_t* unit) noexcept nogil:
    return fmax(unit.envelope_hi_w, 0.0) if isfinite(unit.envelope_hi_w) else 0.0


cdef void fill(const plant_t* plant, double amount_w, uint32_t mask, double soc, const double* floor_w,
               double* request_w) noexcept nogil:
    """Add amount_w to the units of the mask by weight until each is full. At most one round for each unit."""
    cdef double weight[UNITS_MAX]
    cdef double room[UNITS_MAX]
    cdef double weights = 0.0, left_w = fabs(amount_w), tilt, full_w, scale
    cdef bint down = amount_w < 0.0
    cdef uint32_t unit, round_, full
    for unit in range(plant.n_units):
        if not mask >> unit & 1:
            continue
        room[unit] = request_w[unit] - floor_w[unit] if down else unit_hi(&plant.units[unit]) - request_w[unit]
        if not plant.units[unit].available or not room[unit] > 0.0:
            mask &= ~(<uint32_t>1 << unit)
            continue
        # The fuller unit gives more and takes less, so that they meet; by at most a factor, so that the split is calm.
        tilt = (plant.units[unit].soc - soc) * SPLIT_TILT
        tilt = 1.0 - tilt if down else 1.0 + tilt
        weight[unit] = room[unit] * (fmin(fmax(tilt, 0.25), 4.0) if isfinite(tilt) else 1.0)
        weights += weight[unit]
    for round_ in range(plant.n_units):
        if not left_w > 0.0 or not weights > 0.0:
            return
        scale = left_w / weights
        full = 0
        full_w = 0.0
        for unit in range(plant.n_units):
            if mask >> unit & 1 and weight[unit] * scale >= room[unit]:
                full |= <uint32_t>1 << unit
                full_w += room[unit]
        for unit in range(plant.n_units):
            if full == 0 and mask >> unit & 1:
                request_w[unit] += -weight[unit] * scale if down else weight[unit] * scale
            elif full >> unit & 1:
                request_w[unit] += -room[unit] if down else room[unit]
                weights -= weight[unit]
        if full == 0:
            return
        left_w -= full_w
        mask &= ~full


cdef void split(const control_params_t* params, const plant_t* plant, double total_w, double* request_w) noexcept nogil:
    """Each unit starts from what its sub-meters need of it, else from rest; the rest of the total is poured on top."""
    cdef double floor_w[UNITS_MAX]
    cdef double soc = state_of_charge(plant), need_w, given_w = 0.0
    cdef int circuit
    cdef uint32_t unit, members, everyone = <uint32_t>0xFFFFFFFF
    for unit in range(plant.n_units):
        floor_w[unit] = unit_lo(&plant.units[unit]) if plant.units[unit].available else 0.0
    if plant.circuits_ok:
        for circuit in range(CIRCUITS_MAX):
            need_w = circuit_need(params, plant, circuit)
            if need_w == -INFINITY:
                continue
            members = <uint32_t>params.circuit_units[circuit]
            for unit in range(plant.n_units):
                need_w -= floor_w[unit] if members >> unit & 1 else 0.0
            if need_w > 0.0:
                fill(plant, need_w, members, soc, floor_w, floor_w)
    for unit in range(plant.n_units):
        request_w[unit] = fmax(floor_w[unit], 0.0)
        given_w += request_w[unit]
    fill(plant, total_w - given_w, everyone, soc, floor_w, request_w)


# ---------------------------------------------------------------- Python view


REASONS_BY_NUMBER = tuple(REASON_NAMES[i].decode() for i in range(REASONS))
_NONE = ("connection_import_w_max", "connection_export_w_max", "peak_w_max", "recharge_w_max")


def defaults():
    """Return every setting of the control with its value when nothing is said: no limit, nothing follows."""
    cdef control_params_t params
    memset(&params, 0, sizeof(params))
    found = dict(params)
    return {**found, **{key: float("inf") for key in _NONE}}


cdef class Decision:
    """What one cycle decided, and why. W; + discharge."""

    @property
    def request_w(self):
        """For each unit."""
        return tuple(self.decision.request_w[i] for i in range(self.n_units))

    @property
    def request_total_w(self):
        return self.decision.request_total_w

    @property
    def lo_w(self):
        """Lower end of the corridor that was left."""
        return self.decision.lo_w

    @property
    def hi_w(self):
        return self.decision.hi_w

    @property
    def envelope_w(self):
        """(lo, hi) of what all units together can do."""
        return self.decision.envelope_lo_w, self.decision.envelope_hi_w

    @property
    def shortfall_w(self):
        """Grid power above the limit in force that is to be expected all the same."""
        return self.decision.shortfall_w

    @property
    def grid_limit_w(self):
        return self.decision.grid_limit_w

    @property
    def reason(self):
        """Name of the policy that moved the answer last."""
        return REASONS_BY_NUMBER[self.decision.reason]

    @property
    def preference(self):
        """Name of what chose the point inside the corridor."""
        return REASONS_BY_NUMBER[self.decision.preference]

    def __repr__(self):
        return (f"Decision({self.request_total_w:.1f} W for {self.reason}, corridor {self.lo_w:.1f} .. {self.hi_w:.1f} W,"
                f" preference {self.preference}, shortfall {self.shortfall_w:.1f} W)")


cdef class Control:
    """The compiled control, driven one cycle at a time.

    units    : storage units, 1..16.
    settings : any of `defaults()`, W, s, 0..1; lists for the settings of phases and circuits.
    Raises ValueError for a setting that does not exist and for a number of units that cannot be.
    """

    def __init__(self, int units=1, **settings):
        if not 1 <= units <= UNITS_MAX:
            raise ValueError(f"units={units}: a site has 1 to {UNITS_MAX} storage units")
        known = defaults()
        for key, value in settings.items():
            if key not in known:
                raise ValueError(f"no setting {key!r}; known: {', '.join(sorted(known))}")
            if isinstance(known[key], list):
                value = [float(one) for one in value]
                if len(value) > len(known[key]):
                    raise ValueError(f"{key} takes at most {len(known[key])} values, got {len(value)}")
                value = value + known[key][len(value):]
            known[key] = value
        self.params = known
        memset(&self.state, 0, sizeof(self.state))
        memset(&self.plant, 0, sizeof(self.plant))
        memset(&self.orders, 0, sizeof(self.orders))
        self.plant.n_units = <uint32_t>units

    def reset(self):
        """Forget everything but the settings."""
        memset(&self.state, 0, sizeof(self.state))

    def step(self, *, grid_w, ess_w=0.0, pv_w=0.0, soc=0.5, lo_w=-INFINITY, hi_w=INFINITY, double dt_s=0.001,
             available=True, setpoint_w=None, energy_wh=0.0, net_w=None, lease_w=None, plan_w=None,
             import_w_max=None, export_w_max=None, peak_w_max=None, demand_w_max=None, bint stop=False,
             demand=None, phases_w=None, circuits_w=None):
        """Run one cycle and return its Decision.

        grid_w   : + import; None or NaN = no believable meter (blind).
        ess_w, soc, lo_w, hi_w, available, setpoint_w, energy_wh : one value for all units, or one for each.
                   ess_w + discharge, of the same age as grid_w; lo_w..hi_w is what each unit can do now.
        pv_w     : + generation; changes the load that is reported, never the decision.
        net_w    : grid power if the batteries rested, when it is not grid_w + sum of ess_w.
        dt_s     : length of this cycle.
        lease_w, plan_w : setpoints under a lease or of a plan, None = none.
        import_w_max, export_w_max, peak_w_max, demand_w_max : run-time limits, tighter than the settings or without effect.
        demand   : (mean W so far, elapsed s, left s[, W already paid for]) of the running demand window.
        phases_w, circuits_w : meter readings of the phases and sub-meters with the batteries' share taken out (as net_w).
        Real-time safe: no (Python); the compiled step inside is.
        """
        cdef uint32_t i, n = self.plant.n_units
        cdef plant_t* plant = &self.plant
        cdef Decision made = Decision.__new__(Decision)
        cdef double total_w = 0.0
        plant.grid_ok = grid_w is not None and isfinite(<double>grid_w)
        plant.grid_w = grid_w if plant.grid_ok else 0.0
        plant.pv_w = pv_w
        for i in range(n):
            plant.units[i].ess_w = _of(ess_w, i)
            plant.units[i].soc = _of(soc, i)
            plant.units[i].envelope_lo_w = _wide(_of(lo_w, i))
            plant.units[i].envelope_hi_w = _wide(_of(hi_w, i))
            plant.units[i].available = bool(_of(available, i))
            plant.units[i].energy_wh = _of(energy_wh, i)
            plant.units[i].setpoint_w = self.state.last_request_w[i] if setpoint_w is None else _of(setpoint_w, i)
            if isfinite(plant.units[i].ess_w):
                total_w += plant.units[i].ess_w
        if n == 1 and setpoint_w is None:
            plant.units[0].setpoint_w = self.state.last_applied_w
        plant.ess_w = total_w
        plant.net_w = plant.grid_w + total_w if net_w is None else net_w
        plant.load_w = plant.net_w + pv_w
        plant.load_ok = isfinite(plant.net_w)
        plant.grid_new = 1
        plant.demand_windows = demand is not None
        plant.demand_gain = 1.0
        if demand is not None:
            plant.demand_used_ws[0] = demand[0] * demand[1]
            plant.demand_elapsed_s, plant.demand_left_s = demand[1:3]
            plant.demand_paid_w = demand[3] if len(demand) > 3 else 0.0
        plant.phases_ok = 0
        for i, value in enumerate(phases_w or ()):
            plant.phase_net_w[i] = value
            plant.phases_ok |= <uint32_t>isfinite(<double>value) << i
        plant.circuits_ok = 0
        for i, value in enumerate(circuits_w or ()):
            plant.circuit_net_w[i] = value
            plant.circuits_ok |= <uint32_t>isfinite(<double>value) << i
        self.orders.lease_held = lease_w is not None
        self.orders.lease_w = 0.0 if lease_w is None else lease_w
        self.orders.import_w_max = INFINITY if import_w_max is None else import_w_max
        self.orders.export_w_max = INFINITY if export_w_max is None else export_w_max
        self.orders.flags = 0
        if plan_w is not None:
            self.orders.flags |= ORDER_PLAN
            self.orders.plan_w = plan_w
        if peak_w_max is not None:
            self.orders.flags |= ORDER_PEAK
            self.orders.peak_w_max = peak_w_max
        if demand_w_max is not None:
            self.orders.flags |= ORDER_DEMAND
            self.orders.demand_w_max = demand_w_max
        self.orders.stop = stop
        made.n_units = n
        control_step(&self.params, plant, &self.orders, &self.state, &made.decision, dt_s)
        return made


    def cost_ns(self, int rounds=10000):
        """Nanoseconds that one compiled step takes, by repeating the last one under a load that moves a little."""
        cdef int i
        cdef Decision made = Decision.__new__(Decision)
        cdef plant_t plant = self.plant
        cdef control_state_t state = self.state
        cdef double net_w = plant.net_w
        start = time.perf_counter_ns()
        for i in range(rounds):
            plant.net_w = net_w + 100.0 * (i & 7)
            control_step(&self.params, &plant, &self.orders, &state, &made.decision, 0.001)
        return (time.perf_counter_ns() - start) / rounds


cdef double _of(value, uint32_t unit) except? -1.0:
    if isinstance(value, (list, tuple)):
        return value[unit]
    return NAN if value is None else value


cdef double _wide(double value) noexcept:
    # An unlimited unit is a finite number here: infinity is "unknown" to the control, and unknown is nothing.
    return fmin(fmax(value, -1e12), 1e12)
