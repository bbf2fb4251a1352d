"""The policies: each says which interval of battery power it accepts, and why; nothing else.

Pure functions over the image of the plant, but for the two memories that the range limit and the damping need, which
are kept by functions of their own. A policy knows neither its rank nor the others: that is the resolver's business.
"""

from libc.math cimport INFINITY, fabs, isfinite

from tidegate.ext.abi.bits cimport lowest_bit
from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.settings cimport *
from tidegate.ext.control.corridor cimport *
from tidegate.ext.estimate.estimate cimport *
from tidegate.ext.abi.image cimport *


cdef extern from *:
    """
    #define DEMAND_POWER_SHARE 0.9 /* of the discharge power that the wait for the window's end relies on */
    #define DEMAND_ACT_SHARE 0.5   /* of the limit: the rest of a window is never left with less */
    #define DEMAND_APPROACH_S 30.0 /* how fast the grid is led to what the rest may have */
    #define DEMAND_MEMORY_S 2592000.0 /* of the bursts of the load above a limit: a billing month */
    #define DEMAND_SAME_SHARE 0.9  /* of a limit: bursts above the one tell enough of those above the other */
    #define DEMAND_BIGGER 1.5      /* bursts may be so much bigger than those that were seen, */
    #define DEMAND_WATCH_S 86400.0 /* and once more their size after so long a watch, half of it after two */
    #define DEMAND_SOC 0.05        /* so much less is stored than is said */
    #define DEMAND_ENERGY_SHARE 0.8 /* of what is stored comes out */
    #define DEMAND_END_S 2.0       /* the last seconds of a window are not divided by less */
    #define SEEN_OR_NOT 0.5        /* of the net power of a meter that may show the battery or not: never more than the load */
    #define TWO_PI 6.283185307179586
    """
    const double SEEN_OR_NOT, DEMAND_POWER_SHARE, DEMAND_ACT_SHARE, DEMAND_APPROACH_S, DEMAND_MEMORY_S, DEMAND_SAME_SHARE
    const double DEMAND_BIGGER, DEMAND_WATCH_S, DEMAND_SOC, DEMAND_ENERGY_SHARE, DEMAND_END_S, TWO_PI


cdef inline policy_t import_below(double net_w, double limit_w, double aim_w, uint32_t reason) noexcept nogil:
    """Discharge at least what net_w stands above the limit; aim_w below it, for the meter's last digit."""
    cdef policy_t p
    p.lo = net_w - limit_w + aim_w if isfinite(limit_w) else -INFINITY
    p.hi = INFINITY
    p.reason = reason
    return p


cdef policy_t reconnection(const plant_t* plant) noexcept nogil:
    """Both ways as much as a grid that has come back may be given."""
    cdef policy_t p
    p.lo = -plant.reconnect_w
    p.hi = plant.reconnect_w
    p.reason = REASON_RECONNECTION
    return p


cdef policy_t unproven_meter(const plant_t* plant) noexcept nogil:
    """As much as a meter may be followed whose sign is not known.

    A meter that is turned shows the building's import as export, so by that nothing is charged beyond a share. One that
    shows nothing of the battery adds what is discharged to the net power: half of that, and no more than the grid shows,
    is no more than the load, so what is discharged does not flow out. Half, so that an honest meter's grid is as large.
    """
    cdef policy_t p
    p.lo = -plant.unproven_w
    p.hi = unproven_discharge_w(plant, plant.unproven_w)
    p.reason = REASON_UNPROVEN
    return p


cdef double unproven_discharge_w(const plant_t* plant, double unproven_w) noexcept nogil:
    return fmax(unproven_w, fmin(SEEN_OR_NOT * plant.net_lo_w, plant.grid_w))


cdef policy_t grid_operator(const control_params_t* params, const plant_t* plant, const orders_t* orders) noexcept nogil:
    """What the grid's operator has ordered: a limit of import, of export, or no battery power at all."""
    cdef policy_t p
    p.reason = REASON_GRID_OPERATOR
    if orders.flags & ORDER_CEASE:
        p.lo = 0.0
        p.hi = 0.0
        return p
    p = import_below(plant.net_w, import_limit(orders.operator_import_w_max), params.deadband_w, REASON_GRID_OPERATOR)
    if isfinite(import_limit(orders.operator_export_w_max)):
        p.hi = plant.net_lo_w + import_limit(orders.operator_export_w_max) - params.deadband_w
    return p


cdef policy_t direction_limit(const orders_t* orders) noexcept nogil:
    """What a slot or a plan lets the battery take and give."""
    cdef policy_t p
    p.lo = -import_limit(orders.charge_w_max)
    p.hi = import_limit(orders.discharge_w_max)
    p.reason = REASON_DIRECTION_LIMIT
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
    p.hi = plant.net_lo_w + limit_w - params.deadband_w if isfinite(limit_w) else INFINITY
    if params.import_w_min > 0.0:  # it holds discharge back and never orders charging: a small load is no fault of ours
        p.hi = fmin(p.hi, fmax(plant.net_lo_w - params.import_w_min - params.deadband_w, 0.0))
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


cdef policy_t circuit_limit(const control_params_t* params, const plant_t* plant) noexcept nogil:
    """The total must allow what the units behind each sub-meter owe, whatever the others do to make up for it."""
    cdef policy_t p
    cdef double need, others_lo
    cdef int circuit
    cdef uint32_t unit, others, available = 0
    p.lo = -INFINITY
    p.hi = INFINITY
    p.reason = REASON_CIRCUIT_LIMIT
    if not plant.circuits_ok:
        return p
    for unit in range(plant.n_units):
        available |= <uint32_t>(plant.units[unit].available != 0) << unit
    for circuit in range(CIRCUITS_MAX):
        need = circuit_need(params, plant, circuit)
        if need == -INFINITY:
            continue
        others_lo = 0.0
        others = available & ~<uint32_t>params.circuit_units[circuit]
        while others:
            others_lo += plant.units[lowest_bit(others)].envelope_lo_w
            others &= others - 1
        p.lo = fmax(p.lo, need + others_lo)
    return p


cdef inline double discharge_above(const plant_t* plant, double soc_floor, uint32_t band) noexcept nogil:
    """Discharge power of the units above this state of charge; a unit that was there comes back above the band's edge only."""
    cdef double hi_w = 0.0
    cdef uint32_t unit
    for unit in range(plant.n_units):
        if plant.units[unit].available:
            if plant.units[unit].closed & band:
                continue
            # The last half percent is a slope, so that the power does not chatter at the edge.
            hi_w += plant.units[unit].envelope_hi_w * fmin(fmax((plant.units[unit].soc - soc_floor) * 200.0, 0.0), 1.0)
    return hi_w


cdef policy_t backup_reserve(const control_params_t* params, const plant_t* plant) noexcept nogil:
    """Below the reserve a unit discharges only for what is stronger: the connection's limits."""
    cdef policy_t p
    p.lo = -INFINITY
    p.hi = INFINITY
    p.reason = REASON_BACKUP_RESERVE
    if not params.reserve_soc > 0.0:
        return p
    p.hi = discharge_above(plant, params.reserve_soc, BAND_RESERVE)
    return p


cdef policy_t demand_window(const control_params_t* params, const plant_t* plant, const orders_t* orders,
                            const control_state_t* state, double hi_w, double dt_s) noexcept nogil:
    """What may still be drawn in the rest of the window, and not a watt-hour shaved before it must be.

    The mean that the rest of the window may have is `rest_w`. While the battery could still hold it against the
    highest load seen of late, waiting costs nothing, and the load may fall by itself: the energy that must be shaved
    is the same later. From `act_w` on there is no such slack, and the grid is led to `rest_w`.

    Charging takes no more than leaves room, in the rest of the window, for the worst that the load did of late and the
    battery cannot take back: a load that leaps late in a window would find it charged away.
    """
    cdef policy_t p
    cdef double limit_w, act_w, left_s, soon_s, rest_w, rest_ws, charge_w = INFINITY, allowed_w = INFINITY
    cdef double length_s = some(params.demand_window_s, 900.0), able_ws
    cdef uint32_t later
    p.lo = -INFINITY
    p.hi = INFINITY
    p.reason = REASON_DEMAND_WINDOW
    limit_w = demand_limit(params, plant, orders)
    if not isfinite(limit_w):
        return p
    # In our own meter's watts, less the margin.
    limit_w = limit_w / plant.demand_gain - params.demand_margin_w
    able_ws = stored_above_ws(plant, fmax(params.soc_min, params.reserve_soc) + DEMAND_SOC)
    act_w = fmax(state.load_peak_w - DEMAND_POWER_SHARE * hi_w, DEMAND_ACT_SHARE * limit_w)
    for later in range(min(plant.demand_windows, <uint32_t>SUBWINDOWS_MAX)):
        left_s = fmax(plant.demand_left_s + later * plant.demand_sub_s, DEMAND_END_S)
        rest_ws = limit_w * (length_s - plant.demand_unknown_s[later]) - plant.demand_used_ws[later]
        rest_w = fmax(rest_ws / left_s, 0.0)
        soon_s = fmin(fmax(dt_s, DEMAND_APPROACH_S), left_s)
        if not state.demand.arming:
            rest_ws -= demand_most_ws(&state.demand, limit_w, length_s, hi_w, able_ws, left_s - soon_s)
        charge_w = fmin(charge_w, fmin(rest_w, rest_ws / soon_s))
        if rest_w > act_w:
            rest_w += (rest_w - act_w) * left_s / DEMAND_APPROACH_S
        allowed_w = fmin(allowed_w, rest_w)
    p.lo = fmax(plant.net_w - allowed_w, fmin(0.0, plant.net_w - charge_w))
    return p


cdef inline double stored_above_ws(const plant_t* plant, double soc_floor) noexcept nogil:
    """What all units can give until they are that low. One whose state of charge nobody knows gives nothing."""
    cdef double stored_wh = 0.0
    cdef uint32_t unit
    for unit in range(plant.n_units):
        if plant.units[unit].available:
            stored_wh += fmax((plant.units[unit].soc - soc_floor) * plant.units[unit].energy_wh, 0.0)
    return DEMAND_ENERGY_SHARE * 3600.0 * stored_wh


cdef inline double demand_most_ws(const demand_memory_t* memory, double limit_w, double length_s, double hi_w,
                                  double able_ws, double s) noexcept nogil:
    """What the grid has to carry in `s` seconds if the load is the worst that is to be feared and the battery helps.

    Bursts above the limit come again as big as the biggest of late; the shorter the watch, the bigger ones may come.
    Before a whole window was watched nobody knows any: then the load may stand at its highest all the time.
    The battery helps while a burst lasts, which is no longer than it takes at the highest power.
    """
    cdef double bigger = DEMAND_BIGGER + DEMAND_WATCH_S / fmax(memory.watched_s, 1.0)
    cdef double burst_ws = bigger * memory.burst_most_ws, high_w = bigger * memory.high_w
    cdef double most_ws, help_w = DEMAND_POWER_SHARE * hi_w
    most_ws = high_w * s - fmin(help_w * s, able_ws)
    if memory.watched_s >= length_s:
        burst_ws -= fmin(burst_ws * fmin(help_w / fmax(high_w - limit_w, 1.0), 1.0), able_ws)
        most_ws = fmin(most_ws, limit_w * s + burst_ws)
    return fmax(most_ws, 0.0)


cdef void demand_remember(const control_params_t* params, const plant_t* plant, const orders_t* orders,
                          demand_memory_t* memory, double dt_s) noexcept nogil:
    """Watch what the load does to demand windows, reading by reading, whether or not there is a limit now."""
    cdef double limit_w, keep
    memory.since_s += dt_s
    if not plant.grid_new:
        return
    dt_s = memory.since_s
    memory.since_s = 0.0
    limit_w = demand_limit(params, plant, orders)
    keep = 1.0 - fmin(dt_s / DEMAND_MEMORY_S, 1.0)
    memory.high_w = fmax(plant.net_w + (memory.high_w - plant.net_w) * keep, plant.net_w)
    if isfinite(limit_w):
        limit_w = limit_w / plant.demand_gain - params.demand_margin_w
        if not limit_w >= DEMAND_SAME_SHARE * memory.limit_w or not memory.limit_w > 0.0:
            memory.watched_s = 0.0  # nobody has looked for bursts above so low a limit
        # Up slowly: a schedule's limit comes and goes, and above a lower one the bursts are bigger.
        memory.limit_w += (limit_w - memory.limit_w) * fmin(dt_s / DEMAND_WATCH_S, 1.0)
        if limit_w < memory.limit_w or memory.watched_s == 0.0:
            memory.limit_w = limit_w
    memory.watched_s += dt_s
    if memory.limit_w > 0.0:
        memory.burst_ws = fmax(memory.burst_ws + (plant.net_w - memory.limit_w) * dt_s, 0.0)
        memory.burst_ws *= 1.0 - fmin(dt_s / some(params.demand_window_s, 900.0), 1.0)
        memory.burst_most_ws = fmax(memory.burst_most_ws * keep, memory.burst_ws)


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
        state.range_count = min(<uint32_t>(state.range_count + 1), <uint32_t>RANGE_SLOTS)
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


cdef policy_t soc_band(const control_params_t* params, const plant_t* plant) noexcept nogil:
    """Between the reserve and here the charge is kept for the limits: no preference discharges it."""
    cdef policy_t p
    p.lo = -INFINITY
    p.hi = discharge_above(plant, params.follow_soc_min, BAND_FOLLOW)
    p.reason = REASON_SOC_BAND
    return p
