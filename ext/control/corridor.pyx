"""The corridor: what the storage should do now, and why.

Every policy is a small pure function that gives the interval of battery power it accepts. `control_step` starts from
what the units can do, narrows by policy, strongest first, and takes the point of what is left that lies nearest to the
preference (lease, plan, self-consumption, recharge, rest). The policy that moved the answer last is the binding reason.

Delay is not filtered here: `net_w` comes from readings of the same age (pairing.pyx), so that a step of the load goes
into the request at once and whole, and the battery's own answer to it is never mistaken for a change of the load.
"""

import time

from libc.math cimport INFINITY, NAN, fabs, isfinite
from libc.string cimport memset

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.control.hunting cimport hunting_damp
from tidegate.ext.control.islanding cimport genset_limit, island_preference
from tidegate.ext.abi.image cimport *
from tidegate.ext.abi.settings cimport *
from tidegate.ext.estimate.estimate cimport *
from tidegate.ext.control.policies cimport *
from tidegate.ext.control.dispatch cimport share_out, state_of_charge
from tidegate.ext.control.preference cimport RECHARGE_STEP, preferred_power, recharge_backoff


cdef extern from *:
    """
    #define LOAD_PEAK_S 3600.0     /* memory of the highest load */
    #define TRIM_SETTLE_S 0.2
    #define TRIM_SHARE 0.05        /* of the request: a PCS further off than this is not trimmed, it is faulty */
    """
    const double LOAD_PEAK_S, TRIM_SETTLE_S, TRIM_SHARE


# ---------------------------------------------------------------- the resolver


cdef inline void note_missed(corridor_t* corridor, uint32_t reason, uint32_t by) noexcept nogil:
    corridor.missed |= <uint32_t>1 << reason
    if by == REASON_ENVELOPE:
        corridor.missed_short |= <uint32_t>1 << reason


cdef void narrow(corridor_t* corridor, policy_t policy) noexcept nogil:
    """The reason follows whoever moved the answer, or whose stronger edge kept this policy from moving it."""
    cdef double answer
    cdef uint32_t reason = policy.reason
    if policy.lo > corridor.lo:
        if policy.lo > corridor.hi:
            if policy.lo > corridor.hi + corridor.tolerance_w:
                note_missed(corridor, policy.reason, corridor.hi_reason)
            corridor.lo = corridor.hi
            corridor.lo_reason = reason = corridor.hi_reason
        else:
            corridor.lo = policy.lo
            corridor.lo_reason = reason
    if policy.hi < corridor.hi:
        if policy.hi < corridor.lo:
            if policy.hi < corridor.lo - corridor.tolerance_w:
                note_missed(corridor, policy.reason, corridor.lo_reason)
            corridor.hi = corridor.lo
            corridor.hi_reason = reason = corridor.lo_reason
        else:
            corridor.hi = policy.hi
            corridor.hi_reason = reason
    answer = fmin(fmax(corridor.preferred_w, corridor.lo), corridor.hi)
    if answer != corridor.answer or reason != policy.reason:
        corridor.answer = answer
        corridor.reason = reason


# ---------------------------------------------------------------- one cycle


cdef void narrow_by_policy(const control_params_t* params, const plant_t* plant, const orders_t* orders,
                           control_state_t* state, corridor_t* c, double envelope_hi_w, uint32_t preference,
                           double dt_s) noexcept nogil:
    """What the site aims at, strongest first."""
    if params.reserve_soc > 0.0:
        narrow(c, backup_reserve(params, plant))
    if isfinite(orders.charge_w_max) or isfinite(orders.discharge_w_max):
        narrow(c, direction_limit(orders))
    if plant.demand_windows:
        narrow(c, demand_window(params, plant, orders, state, envelope_hi_w, dt_s))
    narrow(c, peak_limit(params, plant, orders))
    if params.ramp_up_w_per_s > 0.0 or params.ramp_down_w_per_s > 0.0:
        narrow(c, ramp_limit(params, plant, state, dt_s))
    if params.range_w_max > 0.0 and isfinite(params.range_w_max):
        if state.range_count:
            narrow(c, range_limit(params, plant, state))
        range_keep(params, state, plant.net_w - c.answer, dt_s)
    if params.damp_share > 0.0:
        band_pass(params, plant, state, dt_s)
        narrow(c, oscillation_damping(params, state, c.answer))
    if preference != REASON_FORCED:
        narrow(c, recharge_band(params, plant))
        if params.follow_soc_min > 0.0:
            narrow(c, soc_band(params, plant))


cdef void manual_override(const control_params_t* params, const plant_t* plant, const orders_t* orders,
                          control_state_t* state, corridor_t* c, double envelope_hi_w, double dt_s) noexcept nogil:
    """A person on site outranks the policies, never the limits above: asked all the same, so that each miss is reported."""
    cdef corridor_t theirs = c[0]
    theirs.lo = theirs.hi = c.answer
    theirs.lo_reason = theirs.hi_reason = REASON_MANUAL
    narrow_by_policy(params, plant, orders, state, &theirs, envelope_hi_w, REASON_MANUAL, dt_s)
    c.missed = theirs.missed
    c.missed_short = theirs.missed_short


cdef void narrow_by_limits(const control_params_t* params, const plant_t* plant, const orders_t* orders,
                           corridor_t* c) noexcept nogil:
    """What the connection, the grid's operator and the wires bear; without a grid, what the genset does."""
    if plant.island:
        if orders.flags & ORDER_CEASE:
            narrow(c, grid_operator(params, plant, orders))
        narrow(c, genset_limit(params, plant))
    else:
        if isfinite(plant.reconnect_w):
            narrow(c, reconnection(plant))
        if isfinite(plant.unproven_w):
            narrow(c, unproven_meter(plant))
        if operator_orders(orders):
            narrow(c, grid_operator(params, plant, orders))
        narrow(c, connection_limit(params, plant, orders))
        narrow(c, export_limit(params, plant, orders))
    if plant.phases_ok:
        narrow(c, phase_limit(params, plant))
    if plant.circuits_ok:
        narrow(c, circuit_limit(params, plant))


cdef inline double limits_hi_w(const control_params_t* params, const plant_t* plant, const orders_t* orders,
                               const corridor_t* c) noexcept nogil:
    """What the limits, the backup reserve and an order against discharge leave upward."""
    cdef double most_w = c.hi
    if params.reserve_soc > 0.0:
        most_w = fmin(most_w, backup_reserve(params, plant).hi)
    if isfinite(orders.charge_w_max) or isfinite(orders.discharge_w_max):
        most_w = fmin(most_w, direction_limit(orders).hi)
    return most_w


cdef inline double led_w(const control_params_t* params, const plant_t* plant, const control_state_t* state,
                         double answer_w, double dt_s) noexcept nogil:
    """What the grid was led to. Where units could not keep its ramp it goes on from there, but not from a doubt about the load."""
    cdef double most_w = state.ramp_anchor_w + some(params.ramp_up_w_per_s, INFINITY) * dt_s
    cdef double grid_w = plant.net_w - answer_w
    return fmax(most_w, fmin(plant.net_lo_w, plant.net_w) - answer_w) if grid_w > most_w else grid_w


cdef inline double ordered_w(double preferred_w, uint32_t preference) noexcept nogil:
    """A preference that does not come of the site's own readings."""
    if preference == REASON_SELF_CONSUMPTION or preference == REASON_RECENTRE or preference == REASON_REST:
        return 0.0
    return preferred_w


cdef void control_step(const control_params_t* params, const plant_t* plant, const orders_t* orders,
                       control_state_t* state, decision_t* decision, double dt_s) noexcept nogil:
    cdef corridor_t c
    cdef double soc, total_w, blind_w
    cdef uint32_t preference

    if not dt_s >= 0.0:  # NaN as well
        dt_s = 0.0
    envelope(plant, &c)
    decision.envelope_lo_w = c.lo
    decision.envelope_hi_w = c.hi
    decision.shortfall_w = 0.0
    decision.missed = 0
    decision.missed_short = 0
    decision.hunting = 0
    decision.grid_limit_w = params.genset_w_max if plant.island == ISLAND_GENSET else grid_limit(params, orders)

    if orders.stop:
        rest(plant, state, decision, REASON_STOPPED)
        return
    if plant.island and plant.island != ISLAND_GENSET:
        rest(plant, state, decision, REASON_ISLAND)
        return
    if not plant.grid_ok or not plant.load_ok or not isfinite(plant.net_w):
        blind_w = fmin(fmax(state.last_total_w, 0.0), params.blind_discharge_w_max)
        rest(plant, state, decision, REASON_BLIND)
        if blind_w > 0.0:
            hold_blind(plant, state, decision, fmin(blind_w, c.hi))
        return

    if state.island != plant.island:  # another source, other limits: what was learnt by the old ones is over
        forget(state)
        state.island = plant.island
    if not state.started:
        state.started = 1
        state.ramp_anchor_w = plant.grid_w if isfinite(plant.grid_w) else plant.net_w
        state.load_peak_w = plant.net_w
        state.damp_slow_w = plant.net_w
        state.damp_fast_w = plant.net_w
    load_peak(plant, state, dt_s)
    if plant.demand_windows and not plant.island:
        demand_remember(params, plant, orders, &state.demand, dt_s)

    soc = state_of_charge(plant)
    if plant.island:
        c.preferred_w = island_preference(params, plant, orders, state, soc, dt_s, &preference)
    else:
        c.preferred_w = preferred_power(params, plant, orders, state, soc, dt_s, &preference)
    c.answer = fmin(fmax(c.preferred_w, c.lo), c.hi)
    c.reason = preference if c.answer == c.preferred_w else <uint32_t>REASON_ENVELOPE
    c.tolerance_w = fmax(params.deadband_w, 1.0)
    c.missed = 0
    c.missed_short = 0

    narrow_by_limits(params, plant, orders, &c)
    decision.limits_hi_w = limits_hi_w(params, plant, orders, &c)
    if plant.island:
        pass  # what the site aims at is about a grid
    elif preference == REASON_MANUAL:
        manual_override(params, plant, orders, state, &c, decision.envelope_hi_w, dt_s)
    else:
        narrow_by_policy(params, plant, orders, state, &c, decision.envelope_hi_w, preference, dt_s)

    state.ramp_anchor_w = led_w(params, plant, state, c.answer, dt_s)
    if preference == REASON_RECENTRE and c.answer != c.preferred_w:
        recharge_backoff(params, state, c.answer)

    total_w = hold(params, state, &c, preference)
    total_w = hunting_damp(params, plant, &state.hunting, total_w, c.hi, ordered_w(c.preferred_w, preference), dt_s)
    total_w = fmin(fmax(total_w, decision.envelope_lo_w), decision.envelope_hi_w)
    state.settle_s = state.settle_s + dt_s if total_w == state.last_total_w else 0.0
    state.last_total_w = total_w
    total_w = trim(params, plant, state, decision, &c, total_w, dt_s)

    decision.lo_w = c.lo
    decision.hi_w = c.hi
    decision.reason = c.reason
    decision.preference = preference
    decision.missed = c.missed
    decision.missed_short = c.missed_short
    decision.hunting = state.hunting.level
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
    limit_w = fmin(fmin(limit_w, import_limit(params.peak_w_max)), import_limit(orders.operator_import_w_max))
    return fmin(limit_w, import_limit(orders.peak_w_max)) if orders.flags & ORDER_PEAK else limit_w


cdef void hold_blind(const plant_t* plant, control_state_t* state, decision_t* decision, double total_w) noexcept nogil:
    """Go on discharging at most what was given last, where the site says that so much is always drawn."""
    cdef uint32_t unit
    for unit in range(plant.n_units):
        if decision.envelope_hi_w > 0.0 and plant.units[unit].available:
            decision.request_w[unit] = total_w * fmax(plant.units[unit].envelope_hi_w, 0.0) / decision.envelope_hi_w
    decision.request_total_w = total_w
    state.last_total_w = total_w


cdef void rest(const plant_t* plant, control_state_t* state, decision_t* decision, uint32_t reason) noexcept nogil:
    """Nothing at once, and a fresh start afterwards. Without a grid meter every other power would be a guess."""
    cdef uint32_t unit
    for unit in range(plant.n_units):
        decision.request_w[unit] = 0.0
    forget(state)
    decision.request_total_w = 0.0
    decision.lo_w = 0.0
    decision.hi_w = 0.0
    decision.limits_hi_w = 0.0
    decision.reason = reason
    decision.preference = reason


cdef inline void forget(control_state_t* state) noexcept nogil:
    """A fresh start for all but what the load does to demand windows: with less known of that, less is charged."""
    cdef demand_memory_t demand = state.demand
    memset(state, 0, sizeof(control_state_t))
    state.demand = demand


cdef inline void load_peak(const plant_t* plant, control_state_t* state, double dt_s) noexcept nogil:
    """Highest net power of late: held, forgotten over an hour."""
    state.load_peak_w += (plant.net_w - state.load_peak_w) * fmin(dt_s / LOAD_PEAK_S, 1.0)
    state.load_peak_w = fmax(state.load_peak_w, plant.net_w)


cdef inline double hold(const control_params_t* params, const control_state_t* state, const corridor_t* c,
                        uint32_t preference) noexcept nogil:
    """Keep the last request while it is as good as the new one within what the meter can tell."""
    cdef double last = state.last_total_w, width = params.deadband_w
    if c.answer == c.preferred_w and preference != REASON_SELF_CONSUMPTION and preference != REASON_ISLAND:
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
                 const decision_t* decision, const corridor_t* c, double total_w, double dt_s) noexcept nogil:
    """Slow correction of a PCS that does not quite do what it is told, once it has had time to do it.

    At an edge of the corridor only inwards: what it gives beyond a limit's need does no harm, what is missing does.
    """
    cdef double error_w, most_w, least_w
    cdef uint32_t unit
    cdef double setpoint_w = 0.0
    if not params.trim_per_s > 0.0 or total_w == 0.0:
        state.trim_w = 0.0
        state.trim_applied_w = 0.0
        state.last_applied_w = total_w
        return total_w
    for unit in range(plant.n_units):
        setpoint_w += plant.units[unit].setpoint_w
    # Only where the gate let the request through; what it holds back is no error of the PCS.
    if fabs(setpoint_w - state.last_applied_w) > 1.0 + plant.n_units:
        state.trim_s = 0.0
    state.trim_s = fmin(state.trim_s + dt_s, state.settle_s)
    if state.trim_s <= TRIM_SETTLE_S + 6.0 * params.pcs_tau_s:
        state.trim_answered = 0
    else:
        for unit in range(plant.n_units):
            if plant.units[unit].ess_new or not plant.units[unit].available:
                state.trim_answered |= <uint64_t>1 << unit
    # A PCS that is read seldom still shows what it gave before: that is no answer.
    if state.trim_answered == (<uint64_t>1 << plant.n_units) - 1:
        error_w = total_w - plant.ess_w
        if fabs(error_w) > params.deadband_w:
            state.trim_w += params.trim_per_s * error_w * fmin(dt_s, 1.0)
    most_w = TRIM_SHARE * fabs(total_w)
    least_w = -most_w
    if c.lo + c.tolerance_w < c.hi:
        if total_w <= c.lo + c.tolerance_w:
            least_w = 0.0
        elif total_w >= c.hi - c.tolerance_w:
            most_w = 0.0
    state.trim_w = fmin(fmax(state.trim_w, least_w), most_w)
    if fabs(state.trim_w - state.trim_applied_w) > 0.5 * params.deadband_w:
        state.trim_applied_w = state.trim_w
    state.trim_applied_w = fmin(fmax(state.trim_applied_w, least_w), most_w)
    total_w = fmin(fmax(total_w + state.trim_applied_w, decision.envelope_lo_w), decision.envelope_hi_w)
    state.last_applied_w = total_w
    return total_w


# ---------------------------------------------------------------- Python view


REASONS_BY_NUMBER = tuple(REASON_NAMES[i].decode() for i in range(REASONS))


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
    def missed(self):
        """Names of the policies whose interval was missed, each with what stood against it."""
        return {
            REASONS_BY_NUMBER[i]: "short" if self.decision.missed_short >> i & 1 else "overruled"
            for i in range(REASONS) if self.decision.missed >> i & 1
        }

    @property
    def hunting(self):
        """How far the request is damped because the battery hunts; 0 = not at all."""
        return self.decision.hunting

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
    settings : any of `tidegate.ext.abi.settings.defaults()`, W, s, 0..1; lists for the settings of phases and circuits.
    Raises ValueError for a setting that does not exist and for a number of units that cannot be.
    """

    def __init__(self, int units=1, **settings):
        if not 1 <= units <= UNITS_MAX:
            raise ValueError(f"units={units}: a site has 1 to {UNITS_MAX} storage units")
        self.params = params_of(settings)
        memset(&self.state, 0, sizeof(self.state))
        memset(&self.plant, 0, sizeof(self.plant))
        memset(&self.orders, 0, sizeof(self.orders))
        self.plant.n_units = <uint32_t>units

    def reset(self):
        """Forget everything but the settings."""
        memset(&self.state, 0, sizeof(self.state))

    def step(self, *, grid_w, ess_w=0.0, pv_w=0.0, soc=0.5, lo_w=-INFINITY, hi_w=INFINITY, double dt_s=0.001,
             available=True, setpoint_w=None, energy_wh=0.0, forced_w=0.0, net_w=None, net_lo_w=None, lease_w=None, manual_w=None, plan_w=None,
             until_soc=None, bint forced=False, target_grid_w=None,
             import_w_max=None, export_w_max=None, peak_w_max=None, demand_w_max=None, charge_w_max=None,
             discharge_w_max=None, operator_import_w_max=None, operator_export_w_max=None, bint cease=False,
             reconnect_w=None, unproven_w=None, bint stop=False, demand=None, phases_w=None, circuits_w=None, bint paired=False):
        """Run one cycle and return its Decision.

        grid_w   : + import; None or NaN = no believable meter (blind).
        ess_w, soc, lo_w, hi_w, available, setpoint_w, energy_wh, forced_w : one value for all units, or one for each.
                   ess_w + discharge, of the same age as grid_w; lo_w..hi_w is what each unit can do now; forced_w what its battery asks for.
        pv_w     : + generation; changes the load that is reported, never the decision.
        net_w    : grid power if the batteries rested, when it is not grid_w + sum of ess_w; net_lo_w: its lower bound, if another.
        dt_s     : length of this cycle.
        lease_w, plan_w : setpoints under a lease or of a plan, None = none. until_soc : where the plan's ends;
                   manual_w : that of a person on site, before them and every policy but the connection's, phases' and circuits'.
                   forced : the plan's outranks the lease, the recharge band and the soc band.
        target_grid_w : the plan's grid power to keep.
        import_w_max, export_w_max, peak_w_max, demand_w_max : run-time limits, tighter than the settings or without effect.
        charge_w_max, discharge_w_max : of a slot or a plan. operator_import_w_max, operator_export_w_max, cease : what the
                   grid's operator ordered; reconnect_w : power that a grid which has come back may be given;
                   unproven_w : what may be charged while the meter's sign is not known, and discharged whatever it shows.
        demand   : (mean W so far, elapsed s, left s[, W already paid for]) of the running demand window.
        paired   : grid_w and ess_w are known to be of the same age; else a chase between the two is looked for.
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
            plant.units[i].ess_new = 1
            plant.units[i].soc = _of(soc, i)
            plant.units[i].envelope_lo_w = _wide(_of(lo_w, i))
            plant.units[i].envelope_hi_w = _wide(_of(hi_w, i))
            plant.units[i].available = bool(_of(available, i))
            plant.units[i].energy_wh = _of(energy_wh, i)
            plant.units[i].forced_w = _of(forced_w, i)
            plant.units[i].setpoint_w = self.state.last_request_w[i] if setpoint_w is None else _of(setpoint_w, i)
            if isfinite(plant.units[i].ess_w):
                total_w += plant.units[i].ess_w
        if n == 1 and setpoint_w is None:
            plant.units[0].setpoint_w = self.state.last_applied_w
        plant.ess_w = total_w
        plant.net_w = plant.net_lo_w = plant.grid_w + total_w if net_w is None else net_w
        if net_lo_w is not None:
            plant.net_lo_w = net_lo_w
        plant.load_w = plant.net_w + pv_w
        plant.load_ok = isfinite(plant.net_w)
        plant.grid_new = 1
        plant.paired = paired
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
        self.orders.charge_w_max = INFINITY if charge_w_max is None else charge_w_max
        self.orders.discharge_w_max = INFINITY if discharge_w_max is None else discharge_w_max
        self.orders.operator_import_w_max = INFINITY if operator_import_w_max is None else operator_import_w_max
        self.orders.operator_export_w_max = INFINITY if operator_export_w_max is None else operator_export_w_max
        plant.unproven_w = INFINITY if unproven_w is None else unproven_w
        plant.reconnect_w = INFINITY if reconnect_w is None else reconnect_w
        self.orders.flags = ORDER_CEASE if cease else 0
        if manual_w is not None:
            self.orders.flags |= ORDER_MANUAL
            self.orders.lease_w = manual_w
        if plan_w is not None:
            self.orders.flags |= ORDER_PLAN | (ORDER_FORCED if forced else 0)
            self.orders.plan_w = plan_w
            self.orders.plan_until_soc = NAN if until_soc is None else until_soc
            self.orders.plan_number = 1 + (hash((plan_w, until_soc, forced)) & 0xFFFFFF)
        if target_grid_w is not None:
            self.orders.flags |= ORDER_TARGET
            self.orders.target_grid_w = target_grid_w
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
            plant.net_w = plant.net_lo_w = net_w + 100.0 * (i & 7)
            control_step(&self.params, &plant, &self.orders, &state, &made.decision, 0.001)
        return (time.perf_counter_ns() - start) / rounds


cdef double _of(value, uint32_t unit) except? -1.0:
    if isinstance(value, (list, tuple)):
        return value[unit]
    return NAN if value is None else value


cdef double _wide(double value) noexcept:
    # An unlimited unit is a finite number here: infinity is "unknown" to the control, and unknown is nothing.
    return fmin(fmax(value, -1e12), 1e12)
