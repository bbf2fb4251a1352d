"""Limits that are configured and not being enforced: which, why, and an event for each within a second.

Asked every cycle of each limit: would the control do something about it now? A stop, a meter that cannot be believed, units that
take no part, a setting widened at run time, a battery that is empty, a stronger policy: each is a named cause. And
whatever was decided, a meter that has shown more than the limit for most of a second is believed.
"""

from libc.math cimport fmin, isfinite
from libc.stdint cimport int32_t, uint32_t, uint64_t

from tidegate.ext.control.corridor cimport *
from tidegate.ext.cycle.core cimport core_t, watch_t
from tidegate.ext.abi.image cimport *
from tidegate.ext.control.policies cimport demand_limit
from tidegate.ext.cycle.publish cimport say
from tidegate.ext.abi.shared cimport *


cdef extern from *:
    """
    #define TELL_NS 200000000u       /* a cause lasts so long before it is told */
    #define TELL_END_NS 1000000000u  /* and so long it must be gone */
    #define EXCEEDED_S 0.6           /* of readings above a limit */
    #define MANY_W 1e11              /* a limit of this and more is none */
    """
    const uint64_t TELL_NS, TELL_END_NS
    const double EXCEEDED_S, MANY_W


cdef inline bint limits(double value) noexcept nogil:
    return 0.0 < value < MANY_W


cdef inline bint has(double value) noexcept nogil:
    """A limit whose absence is infinity: 0 is a limit, and what is no number counts as 0."""
    return not value >= MANY_W


cdef void watch_limits(core_t* core, uint64_t t_ns, uint64_t cycle) noexcept nogil:
    cdef watch_t* w = &core.watch
    cdef const control_params_t* site = &core.program.control
    cdef const control_params_t* now = &core.params
    cdef const orders_t* orders = &core.orders
    cdef const plant_t* plant = &core.plant
    cdef uint32_t all_, bits = 0, general = ENFORCED
    cdef int reason
    cdef double value = core.decision.shortfall_w
    measure(core)
    measure_parts(core)
    if orders.stop:
        general = UNENFORCED_STOPPED
    elif not plant.grid_ok:
        general = UNENFORCED_BLIND
    elif not anybody(plant):
        general = UNENFORCED_NO_UNIT
    for reason in range(REASONS):
        w.cause[reason] = ENFORCED
    if has(site.connection_import_w_max) or has(orders.import_w_max):
        judge(core, REASON_CONNECTION_LIMIT, general, 1, 0)
    if has(site.connection_export_w_max) or has(orders.export_w_max):
        judge(core, REASON_EXPORT_LIMIT, general, 1, 0)
    if limits(site.phase_import_w_max):
        judge(core, REASON_PHASE_LIMIT, general, plant.phases_ok and plant.phases_ok == phases(core), 0)
    all_ = circuits(site)
    if all_:
        judge(core, REASON_CIRCUIT_LIMIT, general, plant.circuits_ok & all_ == all_, 0)
    if limits(site.demand_w_max) or limits(now.demand_w_max) or orders.flags & ORDER_DEMAND:
        judge(core, REASON_DEMAND_WINDOW, general, plant.demand_windows > 0, wider(site.demand_w_max, now.demand_w_max))
    if has(site.peak_w_max) or has(now.peak_w_max) or orders.flags & ORDER_PEAK:
        judge(core, REASON_PEAK_LIMIT, general, 1, now.peak_w_max > site.peak_w_max)
    if limits(site.ramp_up_w_per_s) or limits(site.ramp_down_w_per_s) or limits(now.ramp_up_w_per_s) or limits(
            now.ramp_down_w_per_s):
        judge(core, REASON_RAMP_LIMIT, general, 1,
              wider(site.ramp_up_w_per_s, now.ramp_up_w_per_s) or wider(site.ramp_down_w_per_s, now.ramp_down_w_per_s))
    if limits(site.range_w_max) or limits(now.range_w_max):
        judge(core, REASON_RANGE_LIMIT, general, 1, wider(site.range_w_max, now.range_w_max))
    # A battery at rest charges nobody's peak and touches no reserve.
    if site.reserve_soc > 0.0:
        judge(core, REASON_BACKUP_RESERVE, ENFORCED, 1, now.reserve_soc < site.reserve_soc)
    if has(site.recharge_w_max):
        judge(core, REASON_RECHARGE_BAND, ENFORCED, 1, now.recharge_w_max > site.recharge_w_max)
    for reason in range(REASONS):
        if w.cause[reason] != ENFORCED:
            bits |= <uint32_t>1 << reason
        if w.cause[reason] == w.told[reason]:
            w.since_t_ns[reason] = 0
            continue
        if w.since_t_ns[reason] == 0:
            w.since_t_ns[reason] = t_ns
        if t_ns - w.since_t_ns[reason] >= (TELL_END_NS if w.cause[reason] == ENFORCED else TELL_NS):
            w.told[reason] = w.cause[reason]
            w.since_t_ns[reason] = 0
            say(core, EVENT_UNENFORCED, -1, reason, <int32_t>w.told[reason], value,
                core.decision.grid_limit_w, t_ns, cycle)
    core.image[SITE_UNENFORCED_BITS].value = bits
    core.image[SITE_UNENFORCED_BITS].t_ns = t_ns
    core.image[SITE_UNENFORCED_BITS].quality = QUALITY_GOOD


cdef inline bint wider(double site, double now) noexcept nogil:
    """A limit whose absence is 0 in the settings."""
    return limits(site) and not (limits(now) and now <= site)


cdef inline bint anybody(const plant_t* plant) noexcept nogil:
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
        if limits(site.circuit_import_w_max[circuit]):
            found |= <uint32_t>1 << circuit
    return found


cdef void judge(core_t* core, uint32_t reason, uint32_t general, bint read_, bint widened) noexcept nogil:
    cdef watch_t* w = &core.watch
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
    cdef const watch_t* w = &core.watch
    cdef int i
    if reason == REASON_PHASE_LIMIT:
        for i in range(PHASES_MAX):
            if w.phase_above_s[i] > EXCEEDED_S:
                return 1
    elif reason == REASON_CIRCUIT_LIMIT:
        for i in range(CIRCUITS_MAX):
            if w.circuit_above_s[i] > EXCEEDED_S:
                return 1
    elif reason == REASON_DEMAND_WINDOW:
        return over_the_window(core)
    elif reason == REASON_EXPORT_LIMIT:
        return w.below_s > EXCEEDED_S
    elif reason == above_reason(core):
        return w.above_s > EXCEEDED_S
    return 0


cdef inline bint over_the_window(const core_t* core) noexcept nogil:
    """The window has used what it may have; nothing in the rest of it brings its mean back below the limit."""
    cdef const plant_t* plant = &core.plant
    cdef double limit_w = demand_limit(&core.params, plant, &core.orders)
    cdef double length_s = plant.demand_elapsed_s + plant.demand_left_s
    return isfinite(limit_w) and plant.demand_used_ws[0] * plant.demand_gain > limit_w * length_s


cdef inline uint32_t above_reason(const core_t* core) noexcept nogil:
    """Whose import limit is the one in force."""
    cdef double connection_w = fmin(core.params.connection_import_w_max, core.orders.import_w_max)
    return REASON_CONNECTION_LIMIT if core.decision.grid_limit_w == connection_w else REASON_PEAK_LIMIT


cdef void measure(core_t* core) noexcept nogil:
    """For how long the meter has shown more than a limit, by its own readings' stamps."""
    cdef watch_t* w = &core.watch
    cdef const plant_t* plant = &core.plant
    cdef double dt_s, aside_w = 2.0 * core.params.deadband_w + 1.0, export_w
    if not plant.grid_ok:
        w.above_s = 0.0
        w.below_s = 0.0
        return
    if not plant.grid_new:
        return
    dt_s = <double>(plant.grid_t_ns - w.seen_t_ns) * 1e-9 if w.seen_t_ns and plant.grid_t_ns > w.seen_t_ns else 0.0
    w.seen_t_ns = plant.grid_t_ns
    export_w = fmin(core.params.connection_export_w_max, core.orders.export_w_max)
    w.above_s = w.above_s + dt_s if plant.grid_w > core.decision.grid_limit_w + aside_w else 0.0
    w.below_s = w.below_s + dt_s if isfinite(export_w) and -plant.grid_w > export_w + aside_w else 0.0


cdef void measure_parts(core_t* core) noexcept nogil:
    """The same for each phase and each sub-meter that has a limit."""
    cdef watch_t* w = &core.watch
    cdef const control_params_t* params = &core.params
    cdef int i
    if limits(params.phase_import_w_max):
        for i in range(PHASES_MAX):
            w.phase_above_s[i] = longer(core, core.program.site.grid_w_l[i], params.phase_import_w_max,
                                        w.phase_above_s[i], &w.phase_t_ns[i])
    for i in range(CIRCUITS_MAX):
        if limits(params.circuit_import_w_max[i]):
            w.circuit_above_s[i] = longer(core, core.program.site.circuit_w[i], params.circuit_import_w_max[i],
                                          w.circuit_above_s[i], &w.circuit_t_ns[i])


cdef inline double longer(const core_t* core, int point, double limit_w, double above_s,
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
    return above_s + dt_s if reading.value > limit_w + 2.0 * core.params.deadband_w + 1.0 else 0.0
