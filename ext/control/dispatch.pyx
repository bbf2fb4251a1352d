"""Several units share one request: by headroom and state of charge, fairly and without unrest, within each one's envelope."""

from libc.math cimport INFINITY, NAN, fabs, isfinite

from tidegate.ext.abi.bits cimport first_bits, lowest_bit
from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.settings cimport *
from tidegate.ext.control.corridor cimport *
from tidegate.ext.estimate.estimate cimport *
from tidegate.ext.abi.image cimport *
from tidegate.ext.control.policies cimport circuit_need, some


cdef extern from *:
    """
    #define SPLIT_TILT 5.0         /* weight for each unit of difference in state of charge */
    #define SPLIT_HOLD 0.02        /* of a unit's power */
    """
    const double SPLIT_TILT, SPLIT_HOLD


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
    cdef uint32_t unit, round_, full, left
    mask &= first_bits(plant.n_units)
    left = mask
    while left:
        unit = lowest_bit(left)
        left &= left - 1
        room[unit] = request_w[unit] - floor_w[unit] if down else unit_hi(&plant.units[unit]) - request_w[unit]
        if not plant.units[unit].available or not room[unit] > 0.0:
            mask &= ~(<uint32_t>1 << unit)
            continue
        # The fuller unit gives more and takes less, so that they meet; by at most a factor, so that the split is steady.
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
        left = mask
        while left:
            unit = lowest_bit(left)
            left &= left - 1
            if weight[unit] * scale >= room[unit]:
                full |= <uint32_t>1 << unit
                full_w += room[unit]
        left = full if full else mask
        while left:
            unit = lowest_bit(left)
            left &= left - 1
            if full == 0:
                request_w[unit] += -weight[unit] * scale if down else weight[unit] * scale
            else:
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
    cdef double asked_w[UNITS_MAX]
    cdef uint32_t unit, members, left, asking = 0, everyone = <uint32_t>0xFFFFFFFF
    for unit in range(plant.n_units):
        floor_w[unit] = unit_lo(&plant.units[unit]) if plant.units[unit].available else 0.0
    if plant.circuits_ok:
        for circuit in range(CIRCUITS_MAX):
            need_w = circuit_need(params, plant, circuit)
            if need_w == -INFINITY:
                continue
            members = left = <uint32_t>params.circuit_units[circuit] & first_bits(plant.n_units)
            while left:
                need_w -= floor_w[lowest_bit(left)]
                left &= left - 1
            if need_w > 0.0:
                fill(plant, need_w, members, soc, floor_w, floor_w)
    for unit in range(plant.n_units):
        request_w[unit] = fmax(floor_w[unit], 0.0)
        given_w += request_w[unit]
    if total_w < 0.0:  # first to those that ask for it
        for unit in range(plant.n_units):
            asked_w[unit] = fmax(floor_w[unit], fmin(plant.units[unit].forced_w, 0.0))
            if asked_w[unit] < 0.0:
                asking |= <uint32_t>1 << unit
        if asking:
            fill(plant, total_w - given_w, asking, soc, asked_w, request_w)
            given_w = 0.0
            for unit in range(plant.n_units):
                given_w += request_w[unit]
    fill(plant, total_w - given_w, everyone, soc, floor_w, request_w)
