"""Limits that are configured and not being enforced: which, why, and an event for each within a second; episodes.pyx counts what flutters.

Asked every cycle of each limit: would the control do something about it now? A stop, a meter that cannot be believed, units that
take no part, a setting widened at run time, a battery that is empty, a stronger policy: each is a named cause. And
whatever was decided, a meter that has shown more than the limit for most of a second, and for three of its intervals, is believed.
"""

from libc.math cimport isfinite
from libc.stdint cimport int32_t, uint32_t, uint64_t

from tidegate.ext.abi.bits cimport lowest_bit
from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.settings cimport *
from tidegate.ext.control.corridor cimport *
from tidegate.ext.estimate.estimate cimport *
from tidegate.ext.cycle.core cimport core_t, enforcement_t
from tidegate.ext.abi.image cimport *
from tidegate.ext.control.policies cimport demand_limit, operator_orders
from tidegate.ext.cycle.episodes cimport episodes_rest, episodes_step, episode_word_t
from tidegate.ext.cycle.publish cimport event_post
from tidegate.ext.abi.shared cimport *


cdef extern from *:
    """
    #define REPORT_AFTER_NS 200000000u /* a cause, or its absence, lasts so long before it counts */
    #define EXCEEDED_S 0.6             /* of readings above a limit */
    #define EXCEEDED_INTERVALS 3.0     /* of the grid meter: one value above cannot have been answered yet, two may be noise */
    #define INTERVAL_MOST_S 10.0
    #define MANY_W 1e11                /* a limit of this and more is none */
    """
    const uint64_t REPORT_AFTER_NS
    const double EXCEEDED_S, EXCEEDED_INTERVALS, INTERVAL_MOST_S, MANY_W


cdef inline bint is_limit(double value) noexcept nogil:
    return 0.0 < value < MANY_W


cdef inline bint is_limit_or_zero(double value) noexcept nogil:
    """A limit whose absence is infinity: 0 is a limit, and what is no number counts as 0."""
    return not value >= MANY_W


cdef void check_enforcement(const core_t* core, enforcement_t* w, point_t* image, shared_t* shared, uint64_t t_ns,
                            uint64_t cycle) noexcept nogil:
    cdef const control_params_t* site = &core.program.control
    cdef const orders_t* orders = &core.inbox.orders
    cdef const plant_t* plant = &core.plant
    cdef uint32_t all_, bits = 0, left, general = ENFORCED
    cdef int reason
    cdef episode_word_t word
    cdef double value = core.decision.shortfall_w
    time_above_site(core, w)
    time_above_parts(core, w)
    if orders.stop:
        general = UNENFORCED_STOPPED
    elif not plant.grid_ok:
        general = UNENFORCED_BLIND
    elif not any_unit_available(plant):
        general = UNENFORCED_NO_UNIT
    for reason in range(REASONS):
        w.cause[reason] = ENFORCED
    if plant.island == ISLAND_GENSET:
        set_cause(core, w, REASON_ISLAND, general, 1, 0)
    elif not plant.island:  # the limits of a grid that is not there are nobody's
        set_grid_causes(core, w, general)
    if is_limit(site.phase_import_w_max):
        set_cause(core, w, REASON_PHASE_LIMIT, general, plant.phases_ok and plant.phases_ok == phases(core), 0)
    all_ = circuits(site)
    if all_:
        set_cause(core, w, REASON_CIRCUIT_LIMIT, general, plant.circuits_ok & all_ == all_, 0)
    for reason in range(REASONS):
        bits |= <uint32_t>(w.cause[reason] != ENFORCED) << reason
    left = bits | w.restless
    while left:
        reason = lowest_bit(left)
        left &= left - 1
        if w.cause[reason] == w.held[reason]:
            w.since_t_ns[reason] = 0
        elif w.since_t_ns[reason] == 0:
            w.since_t_ns[reason] = t_ns
        elif t_ns - w.since_t_ns[reason] >= REPORT_AFTER_NS:
            w.held[reason] = w.cause[reason]
            w.since_t_ns[reason] = 0
        if episodes_step(&w.told[reason], <int32_t>w.held[reason], 0, t_ns, &word):
            word.previous = word.code
            word.code = reason
            event_post(shared, EVENT_UNENFORCED, -1, &word, value, core.decision.grid_limit_w, t_ns, cycle)
        if w.held[reason] == ENFORCED and w.since_t_ns[reason] == 0 and episodes_rest(&w.told[reason], ENFORCED):
            w.restless &= ~(<uint32_t>1 << reason)
        else:
            w.restless |= <uint32_t>1 << reason
    point_set(image, SITE_UNENFORCED_BITS, bits, t_ns)


cdef void set_grid_causes(const core_t* core, enforcement_t* w, uint32_t general) noexcept nogil:
    """The limits of the connection and what the site aims at."""
    cdef const control_params_t* site = &core.program.control
    cdef const control_params_t* now = &core.inbox.params
    cdef const orders_t* orders = &core.inbox.orders
    cdef const plant_t* plant = &core.plant
    if operator_orders(orders) and not orders.flags & ORDER_CEASE:
        set_cause(core, w, REASON_GRID_OPERATOR, general, 1, 0)
    if is_limit_or_zero(site.connection_import_w_max) or is_limit_or_zero(orders.import_w_max):
        set_cause(core, w, REASON_CONNECTION_LIMIT, general, 1, 0)
    if is_limit_or_zero(site.connection_export_w_max) or is_limit_or_zero(orders.export_w_max):
        set_cause(core, w, REASON_EXPORT_LIMIT, general, 1, 0)
    if is_limit(site.demand_w_max) or is_limit(now.demand_w_max) or orders.flags & ORDER_DEMAND:
        set_cause(core, w, REASON_DEMAND_WINDOW, general, plant.demand_windows > 0, is_widened(site.demand_w_max, now.demand_w_max))
    if is_limit_or_zero(site.peak_w_max) or is_limit_or_zero(now.peak_w_max) or orders.flags & ORDER_PEAK:
        set_cause(core, w, REASON_PEAK_LIMIT, general, 1, now.peak_w_max > site.peak_w_max)
    if is_limit(site.ramp_up_w_per_s) or is_limit(site.ramp_down_w_per_s) or is_limit(now.ramp_up_w_per_s) or is_limit(
            now.ramp_down_w_per_s):
        set_cause(core, w, REASON_RAMP_LIMIT, general, 1,
                  is_widened(site.ramp_up_w_per_s, now.ramp_up_w_per_s) or is_widened(site.ramp_down_w_per_s, now.ramp_down_w_per_s))
    if is_limit(site.range_w_max) or is_limit(now.range_w_max):
        set_cause(core, w, REASON_RANGE_LIMIT, general, 1, is_widened(site.range_w_max, now.range_w_max))
    # A battery at rest charges nobody's peak and touches no reserve.
    if site.reserve_soc > 0.0:
        set_cause(core, w, REASON_BACKUP_RESERVE, ENFORCED, 1, now.reserve_soc < site.reserve_soc)
    if is_limit_or_zero(site.recharge_w_max):
        set_cause(core, w, REASON_RECHARGE_BAND, ENFORCED, 1, now.recharge_w_max > site.recharge_w_max)


cdef inline bint is_widened(double site, double now) noexcept nogil:
    """A limit whose absence is 0 in the settings."""
    return is_limit(site) and not (is_limit(now) and now <= site)


cdef inline bint any_unit_available(const plant_t* plant) noexcept nogil:
    cdef uint32_t unit
    for unit in range(plant.n_units):
        if plant.units[unit].available:
            return 1
    return 0


cdef inline uint32_t phases(const core_t* core) noexcept nogil:
    """Those that the site's meter has: a site on two phases holds its limit on two."""
    cdef uint32_t found = 0
    cdef int phase
    for phase in range(PHASES_MAX):
        if core.program.site.grid_w_l[phase] >= 0:
            found |= <uint32_t>1 << phase
    return found


cdef inline uint32_t circuits(const control_params_t* site) noexcept nogil:
    cdef uint32_t found = 0
    cdef int circuit
    for circuit in range(CIRCUITS_MAX):
        if is_limit(site.circuit_import_w_max[circuit]):
            found |= <uint32_t>1 << circuit
    return found


cdef void set_cause(const core_t* core, enforcement_t* w, uint32_t reason, uint32_t general, bint read_,
                    bint widened) noexcept nogil:
    if general != ENFORCED:
        w.cause[reason] = general
    elif not read_:
        w.cause[reason] = UNENFORCED_NO_READING
    elif widened:
        w.cause[reason] = UNENFORCED_WIDENED
    elif core.decision.missed >> reason & 1:
        w.cause[reason] = UNENFORCED_SHORT if core.decision.missed_short >> reason & 1 else UNENFORCED_OVERRULED
    elif exceeded(core, reason):
        w.cause[reason] = UNENFORCED_EXCEEDED


cdef bint exceeded(const core_t* core, uint32_t reason) noexcept nogil:
    """Whatever was decided: does the limit's own meter say otherwise?"""
    cdef const enforcement_t* w = &core.enforcement
    cdef double lasting_s = fmax(
        EXCEEDED_S, EXCEEDED_INTERVALS * fmin(core.estimate.lags.interval.interval_s, INTERVAL_MOST_S))
    cdef int i
    if reason == REASON_PHASE_LIMIT:
        for i in range(PHASES_MAX):
            if w.phase_above_s[i] > lasting_s:
                return 1
    elif reason == REASON_CIRCUIT_LIMIT:
        for i in range(CIRCUITS_MAX):
            if w.circuit_above_s[i] > EXCEEDED_S:
                return 1
    elif reason == REASON_DEMAND_WINDOW:
        return window_exceeded(core)
    elif reason == REASON_ISLAND:
        return w.above_s > lasting_s or w.below_s > lasting_s
    elif reason == REASON_EXPORT_LIMIT:
        return w.below_s > lasting_s
    elif reason == import_reason(core):
        return w.above_s > lasting_s
    return 0


cdef inline bint window_exceeded(const core_t* core) noexcept nogil:
    """The window has used what it may have; nothing in the rest of it brings its mean back below the limit."""
    cdef const plant_t* plant = &core.plant
    cdef double limit_w = demand_limit(&core.inbox.params, plant, &core.inbox.orders)
    cdef double length_s = plant.demand_elapsed_s + plant.demand_left_s
    return isfinite(limit_w) and plant.demand_used_ws[0] * plant.demand_gain > limit_w * length_s


cdef inline uint32_t import_reason(const core_t* core) noexcept nogil:
    """Whose import limit is the one in force."""
    cdef double connection_w = fmin(core.inbox.params.connection_import_w_max, core.inbox.orders.import_w_max)
    if core.decision.grid_limit_w == core.inbox.orders.operator_import_w_max:
        return REASON_GRID_OPERATOR
    return REASON_CONNECTION_LIMIT if core.decision.grid_limit_w == connection_w else REASON_PEAK_LIMIT


cdef void time_above_site(const core_t* core, enforcement_t* w) noexcept nogil:
    """For how long the meter has shown more than a limit, by its own readings' stamps."""
    cdef const plant_t* plant = &core.plant
    cdef double dt_s, aside_w = 2.0 * core.inbox.params.deadband_w + 1.0, export_w
    if not plant.grid_ok:
        w.above_s = 0.0
        w.below_s = 0.0
        return
    if not plant.grid_new:
        return
    dt_s = <double>(plant.grid_t_ns - w.seen_t_ns) * 1e-9 if w.seen_t_ns and plant.grid_t_ns > w.seen_t_ns else 0.0
    w.seen_t_ns = plant.grid_t_ns
    export_w = fmin(core.inbox.params.connection_export_w_max, core.inbox.orders.export_w_max)
    if plant.island:
        export_w = -core.inbox.params.genset_w_min
    w.above_s = w.above_s + dt_s if plant.grid_w > core.decision.grid_limit_w + aside_w else 0.0
    w.below_s = w.below_s + dt_s if isfinite(export_w) and -plant.grid_w > export_w + aside_w else 0.0


cdef void time_above_parts(const core_t* core, enforcement_t* w) noexcept nogil:
    """The same for each phase and each sub-meter that has a limit."""
    cdef const control_params_t* params = &core.inbox.params
    cdef int i
    if is_limit(params.phase_import_w_max):
        for i in range(PHASES_MAX):
            w.phase_above_s[i] = exceeded_for_s(core, core.program.site.grid_w_l[i], params.phase_import_w_max,
                                                w.phase_above_s[i], &w.phase_t_ns[i])
    for i in range(CIRCUITS_MAX):
        if is_limit(params.circuit_import_w_max[i]):
            w.circuit_above_s[i] = exceeded_for_s(core, core.program.site.circuit_w[i], params.circuit_import_w_max[i],
                                                  w.circuit_above_s[i], &w.circuit_t_ns[i])


cdef inline double exceeded_for_s(const core_t* core, int point, double limit_w, double above_s,
                                  uint64_t* seen_t_ns) noexcept nogil:
    """above_s, and the time since the reading before if the newest one is above the limit as well; 0 if it is not."""
    cdef const point_t* reading
    cdef double dt_s
    if not believable(core.image, point):
        seen_t_ns[0] = 0
        return 0.0
    reading = &core.image[point]
    if reading.t_ns == seen_t_ns[0]:
        return above_s
    dt_s = <double>(reading.t_ns - seen_t_ns[0]) * 1e-9 if 0 < seen_t_ns[0] < reading.t_ns else 0.0
    seen_t_ns[0] = reading.t_ns
    return above_s + dt_s if reading.value > limit_w + 2.0 * core.inbox.params.deadband_w + 1.0 else 0.0
