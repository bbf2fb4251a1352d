"""What the world notes of the core from outside: its writes on the wire, its answer times, what it must never do."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from tidegate.ext.abi.image cimport (
    SITE_CORRIDOR_HI_W, SITE_CORRIDOR_LO_W, SITE_ENVELOPE_HI_W, SITE_ENVELOPE_LO_W, SITE_GRID_W, SITE_MODE,
    SITE_REASON, SITE_REQUEST_W, SITE_SETPOINT_W,
)
from tidegate.ext.cycle.core cimport core_t
from tidegate.ext.sim.buses cimport *
from tidegate.ext.sim.plant cimport METERS_GRID, PCS_SET_W, plant_t

cdef uint64_t SECOND_NS = 1000000000


# ---------------------------------------------------------------- the wire


cdef void wire_note(world_t* world, uint64_t t_ns, int where, const uint8_t* bytes, uint32_t count) noexcept nogil:
    """Append what left the controller: time, bus, length, bytes."""
    cdef uint8_t* at
    if world.wire_log_used + count + 10 > world.wire_log_size:
        world.wire_log_lost += 1
        return
    at = world.wire_log + world.wire_log_used
    memcpy(at, &t_ns, 8)
    at[8] = <uint8_t>where
    at[9] = <uint8_t>count
    memcpy(at + 10, bytes, count)
    world.wire_log_used += count + 10


cdef void follow_load_step(world_t* world, uint64_t t_ns) noexcept nogil:
    """Follow one load step at a time from the grid meter's registers to the answer on the wire."""
    cdef answer_t* answer = &world.answer
    cdef plant_t* plant = &world.plant
    cdef uint32_t i
    # Only a step that plainly needs an answer: what the trimming would have done anyway has no answer time.
    if plant.step_t_ns == t_ns and plant.step_jump_w > 1000.0 and plant.grid_w > plant.limit_w + 500.0:
        answer.open = 1
        answer.step_t_ns = t_ns
        answer.shown_t_ns = 0
        memcpy(answer.set_w, world.wire_set_w, sizeof(answer.set_w))
    if answer.open and answer.shown_t_ns == 0:
        for i in range(plant.n_meters):
            if (
                plant.meters[i].source == METERS_GRID
                # An update inside the step's own tick measures the new load already.
                and plant.meters[i].shown_t_ns + plant.dt_ns > answer.step_t_ns + plant.meters[i].delay_ns
            ):
                answer.shown_t_ns = plant.meters[i].shown_t_ns
    if answer.open and t_ns - answer.step_t_ns > SECOND_NS:
        answer.open = 0  # not answered: the controller saw no need or could not


cdef void alarm_answered(world_t* world, int battery, int number, uint64_t t_ns) noexcept nogil:
    """Take the time from the first alarm frame on the bus to the last byte of setpoint 0."""
    cdef contact_t* contact = &world.contacts[battery]
    if contact.alarm_ns == 0 or contact.zero_on_wire or world.wire_set_w[number] != 0.0 or t_ns <= contact.alarm_ns:
        return
    contact.zero_on_wire = 1
    world.checks.alarms += 1
    world.checks.alarm_wire_ns_sum += t_ns - contact.alarm_ns
    if t_ns - contact.alarm_ns > world.checks.alarm_wire_ns_max:
        world.checks.alarm_wire_ns_max = t_ns - contact.alarm_ns


cdef void setpoint_arrived(world_t* world, int number, uint64_t t_ns) noexcept nogil:
    """A setpoint has reached PCS `number`: t_ns is its last byte."""
    cdef answer_t* answer = &world.answer
    cdef double moved_w = 0.0, need_w
    cdef uint32_t i
    world.wire_set_w[number] = world.plant.pcs[number].v[PCS_SET_W]
    world.wire_set_t_ns[number] = t_ns
    alarm_answered(world, world.plant.pcs[number].battery, number, t_ns)
    if not answer.open or answer.shown_t_ns == 0 or t_ns <= answer.shown_t_ns:
        return
    for i in range(world.plant.n_pcs):
        moved_w += world.wire_set_w[i] - answer.set_w[i]
    # The first step of a ramp is an answer, the trimming that goes on all the time is none.
    need_w = 0.02 * (world.plant.grid_w - world.plant.limit_w)
    if moved_w < need_w or moved_w < 200.0:
        return
    answer.open = 0
    if world.n_answers < STEPS_MAX:
        world.answers_ms[world.n_answers] = <double>(t_ns - answer.shown_t_ns) * 1e-6
        world.n_answers += 1


# ---------------------------------------------------------------- the core's promises


cdef void world_check(world_t* world) noexcept nogil:
    """Watch the core from outside: nothing it lets out may leave its own envelope or the nameplate."""
    cdef core_t* core = world.core
    cdef checks_t* checks = &world.checks
    cdef uint32_t unit, reason
    cdef int32_t setpoint_w
    cdef contact_t* contact
    for unit in range(core.program.n_units):
        setpoint_w = core.verdicts[unit].setpoint_w
        if setpoint_w == 0:
            continue
        contact = &world.contacts[unit]
        if core.gates[unit].tripped:
            checks.setpoint_to_tripped += 1
        if contact.alarm_ns and world.t_ns > contact.alarm_ns + 2 * world.period_ns:
            checks.alarm_unanswered += 1
        if world.bms_bound_ns and world.t_ns > contact.bms_ns + world.bms_bound_ns:
            checks.blind_bms += 1
        if world.meter_bound_ns and world.t_ns > world.grid_contact_ns + world.meter_bound_ns:
            checks.blind_meter += 1
        if world.pcs_bound_ns and world.t_ns > contact.pcs_ns + world.pcs_bound_ns:
            checks.blind_pcs += 1
        if setpoint_w > core.verdicts[unit].envelope_hi_w or setpoint_w < core.verdicts[unit].envelope_lo_w:
            checks.outside_envelope += 1
        if (
            setpoint_w > core.program.units[unit].gate.discharge_w_max
            or -setpoint_w > core.program.units[unit].gate.charge_w_max
        ):
            checks.outside_nameplate += 1
        if not core.verdicts[unit].heartbeat_ok:
            checks.heartbeat_without_health += 1
    if world.alarm_bound_ns:
        wire_check(world)
    reason = <uint32_t>core.image[SITE_REASON].value if core.image[SITE_REASON].value >= 0.0 else 0
    checks.reason_cycles[reason % REASON_SLOTS] += 1
    checks.mode_cycles[core.mode & 15] += 1
    checks.cycles += 1


cdef void wire_check(world_t* world) noexcept nogil:
    """An alarm must have taken the setpoint on the wire to 0 within the bound, if the line had no fault meanwhile."""
    cdef uint32_t i, line
    cdef contact_t* contact
    cdef int battery
    for i in range(world.plant.n_pcs):
        battery = world.plant.pcs[i].battery
        contact = &world.contacts[battery]
        for line in range(world.n_slaves):
            if world.slaves[line].pcs == <int>i and (
                world.slave_faults[line].bits or world.lines[world.slaves[line].port].fault_bits
            ):
                contact.line_faulty_ns = world.t_ns
        if (
            contact.alarm_ns
            and world.wire_set_w[i] != 0.0
            and world.t_ns > contact.alarm_ns + world.alarm_bound_ns
            and world.t_ns > contact.line_faulty_ns + 2000000000
        ):
            world.checks.alarm_on_wire += 1


# ---------------------------------------------------------------- the series


cdef void series_row(world_t* world) noexcept nogil:
    cdef plant_t* plant = &world.plant
    cdef core_t* core = world.core
    cdef double* row
    cdef double stored = 0.0, whole = 0.0
    cdef uint32_t i
    if plant.grid_w > world.series_grid_max_w:
        world.series_grid_max_w = plant.grid_w
    if plant.grid_w < world.series_grid_min_w:
        world.series_grid_min_w = plant.grid_w
    world.series_left -= 1
    if world.series_left > 0:
        return
    world.series_left = world.series_every
    if world.series_used < world.series_size:
        row = world.series + world.series_used * SERIES_COLUMNS
        world.series_used += 1
        for i in range(plant.n_batteries):
            stored += plant.batteries[i].charge_as
            whole += plant.batteries[i].capacity_as
        row[0] = <double>(world.t_ns - plant.t0_ns) * 1e-9
        row[1] = plant.load_w
        row[2] = plant.grid_w
        row[3] = world.series_grid_min_w
        row[4] = world.series_grid_max_w
        row[5] = plant.ess_w
        row[6] = plant.pv_w
        row[7] = stored / whole if whole > 0.0 else 0.0
        row[8] = core.image[SITE_SETPOINT_W].value
        row[9] = core.image[SITE_REQUEST_W].value
        row[10] = core.image[SITE_REASON].value
        row[11] = core.image[SITE_MODE].value
        row[12] = plant.it_w
        row[13] = plant.cooling_w
        row[14] = core.image[SITE_CORRIDOR_LO_W].value
        row[15] = core.image[SITE_CORRIDOR_HI_W].value
        row[16] = core.image[SITE_ENVELOPE_LO_W].value
        row[17] = core.image[SITE_ENVELOPE_HI_W].value
        row[18] = core.image[SITE_GRID_W].value
        row[19] = plant.batteries[0].temp_c if plant.n_batteries else 0.0
        row[20] = core.truth.asking
    world.series_grid_max_w = -1e300
    world.series_grid_min_w = 1e300
