"""The buses of the simulated plant: bytes at line pace, and all that can go wrong on serial lines and CAN.

A line is touched only when its next event has come; its devices answer through slave.pyx, its master is the engine of
rtu.pyx. The CAN frames are made in can_frames.pyx.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from tidegate.ext.sim.can_frames cimport can_state
from tidegate.ext.sim.observe cimport setpoint_arrived, wire_note
from tidegate.ext.sim.plant cimport *
from tidegate.ext.bus.rtu cimport RTU_SEND, RTU_WAIT, rtu_action_t, rtu_bytes, rtu_next, rtu_sent
from tidegate.ext.sim.slave cimport *

cdef uint64_t NEVER = 0xFFFFFFFFFFFFFFFF
cdef uint32_t SLAVE_FAULTS = (1u << FAULT_ECHO) - 1u


# ---------------------------------------------------------------- serial lines


cdef int line_answer(world_t* world, int number, const uint8_t* request, uint32_t count, uint64_t t_ns,
                     uint8_t* reply, uint32_t* length) noexcept nogil:
    cdef line_t* line = &world.lines[number]
    cdef slave_t* slave
    cdef uint32_t i, k
    cdef int status, found = -1, var
    line.requests += 1
    for i in range(line.n_slaves):
        slave = &world.slaves[line.slaves[i]]
        if slave.unit_id != request[0] and request[0] != 0:
            continue
        if slave.pcs >= 0:
            pcs_refresh(&world.plant, &world.plant.pcs[slave.pcs], t_ns)
        if world.slave_faults[line.slaves[i]].bits & (1u << FAULT_DEAD):
            continue
        status = slave_answer(slave, request, count, reply, length)
        for k in range(slave.written_count):
            var = slave.writes[slave.written[k]].var
            if slave.pcs < 0:
                continue
            pcs_written(&world.plant, &world.plant.pcs[slave.pcs], var, t_ns)
            if var == PCS_SET_W:
                setpoint_arrived(world, slave.pcs, t_ns)
        if status != REPLY_NONE:
            found = line.slaves[i]
    return found


cdef sent_t* line_send(line_t* line, const uint8_t* bytes, uint32_t count, uint64_t start_ns) noexcept nogil:
    """Put bytes on the way to the master, first start bit at start_ns. NULL = the line is too busy."""
    cdef sent_t* sent
    if line.n_sent >= SENT_MAX or count == 0 or count > FRAME_MAX + 4:
        line.collisions += 1
        return NULL
    sent = &line.sent[line.n_sent]
    line.n_sent += 1
    sent.start_ns = start_ns
    sent.length = count
    sent.done = 0
    memcpy(sent.bytes, bytes, count)
    return sent


cdef void line_request_done(world_t* world, int number, uint64_t t_ns) noexcept nogil:
    """The last byte of the master's request is on the wire: the device behind it answers, or does not."""
    cdef line_t* line = &world.lines[number]
    cdef uint8_t reply[FRAME_MAX + 4]
    cdef uint32_t length = 0
    cdef int row
    cdef uint64_t start_ns
    cdef slave_t* slave
    line.request_end_ns = 0
    row = line_answer(world, number, line.request, line.request_length, t_ns, reply, &length)
    if line.request[1] == 5 or line.request[1] == 6 or line.request[1] == 15 or line.request[1] == 16:
        wire_note(world, t_ns, number, line.request, line.request_length)
    if line.fault_bits:
        line_disturb(world, line, t_ns)
    if row < 0:
        return
    slave = &world.slaves[row]
    start_ns = t_ns + slave.turnaround_ns
    if slave.turnaround_jitter_ns:
        start_ns += world_random(world) % slave.turnaround_jitter_ns
    if world.slave_faults[row].bits & SLAVE_FAULTS:
        if not reply_spoil(world, line, &world.slave_faults[row], reply, &length, &start_ns):
            return
    memcpy(line.last_reply, reply, length)
    line.last_reply_length = length
    line_send(line, reply, length, start_ns)
    start_ns += length * line.char_ns
    if slave.pcs >= 0:
        world.contacts[world.plant.pcs[slave.pcs].battery].pcs_ns = start_ns
    elif slave.meter >= 0 and world.plant.meters[slave.meter].source == METERS_GRID:
        world.grid_contact_ns = start_ns


cdef int reply_spoil(world_t* world, line_t* line, const slave_faults_t* faults, uint8_t* reply, uint32_t* length,
                     uint64_t* start_ns) noexcept nogil:
    """Apply the slave's faults to one reply. 0 = nothing is sent."""
    cdef uint32_t n, lost, bits = faults.bits
    if bits & (1u << FAULT_DROP) and world_uniform(world) < faults.value[FAULT_DROP]:
        return 0
    if bits & (1u << FAULT_STALE_REPLY) and line.last_reply_length > 0:
        memcpy(reply, line.last_reply, line.last_reply_length)
        length[0] = line.last_reply_length
    if bits & (1u << FAULT_EXCEPTION):
        reply[1] |= 0x80
        reply[2] = <uint8_t>faults.value[FAULT_EXCEPTION]
        frame_append_crc(reply, 3)
        length[0] = 5
    if bits & (1u << FAULT_WRONG_UNIT):
        reply[0] ^= 0x10
        frame_append_crc(reply, length[0] - 2)
    if bits & (1u << FAULT_WRONG_FUNCTION):
        reply[1] ^= 0x07
        frame_append_crc(reply, length[0] - 2)
    if bits & (1u << FAULT_CORRUPT) and world_uniform(world) < faults.value[FAULT_CORRUPT]:
        n = <uint32_t>(world_random(world) % (8u * length[0]))
        reply[n // 8] ^= <uint8_t>(1u << (n % 8))
        if world_random(world) & 1:
            n = <uint32_t>(world_random(world) % length[0])
            reply[n] = <uint8_t>(world_random(world) & 0xFF)
    if bits & (1u << FAULT_SHORT):
        lost = <uint32_t>faults.value[FAULT_SHORT]
        lost = lost if lost < length[0] else length[0]
        length[0] -= lost
        if length[0] == 0:
            return 0
    if bits & (1u << FAULT_LATE):
        start_ns[0] += <uint64_t>(faults.value[FAULT_LATE] * 1e6)
    return 1


cdef void line_disturb(world_t* world, line_t* line, uint64_t t_ns) noexcept nogil:
    """Bytes that nobody asked for: noise, or another master with its slave."""
    cdef uint8_t junk[FRAME_MAX + 4]
    cdef uint32_t i, n
    if line.fault_bits & (1u << FAULT_NOISE) and world_uniform(world) < line.fault_value[FAULT_NOISE]:
        n = 1 + <uint32_t>(world_random(world) % 12)
        for i in range(n):
            junk[i] = <uint8_t>(world_random(world) & 0xFF)
        line_send(line, junk, n, t_ns + world_random(world) % 4000000)
    if line.fault_bits & (1u << FAULT_SECOND_MASTER) and world_uniform(world) < line.fault_value[FAULT_SECOND_MASTER]:
        junk[0] = 77
        junk[1] = 3
        junk[2] = 0
        junk[3] = <uint8_t>(world_random(world) & 0xFF)
        junk[4] = 0
        junk[5] = 2
        frame_append_crc(junk, 6)
        line_send(line, junk, 8, t_ns + 1000000 + world_random(world) % 8000000)


cdef void line_deliver(line_t* line, uint64_t t_ns) noexcept nogil:
    """Hand over the bytes that have come by now: the first byte of a frame by itself, so that its stamp is exact."""
    cdef uint32_t i = 0, k, n
    cdef sent_t* sent
    while i < line.n_sent:
        sent = &line.sent[i]
        if sent.start_ns + line.char_ns > t_ns:
            i += 1
            continue
        if sent.done == 0:
            rtu_bytes(line.engine, sent.bytes, 1, t_ns)
            sent.done = 1
            sent.start_ns += line.char_ns
        if sent.done < sent.length and sent.start_ns + (sent.length - sent.done) * line.char_ns <= t_ns:
            rtu_bytes(line.engine, sent.bytes + sent.done, sent.length - sent.done, t_ns)
            sent.done = sent.length
        if sent.done == sent.length:
            line.n_sent -= 1
            for k in range(i, line.n_sent):
                line.sent[k] = line.sent[k + 1]
        else:
            i += 1


cdef void line_schedule(line_t* line, uint64_t t_ns) noexcept nogil:
    """Earliest thing that can happen on this line."""
    cdef uint32_t i
    cdef uint64_t next_ns = line.engine_ns, at_ns
    cdef sent_t* sent
    if line.request_end_ns and line.request_end_ns < next_ns:
        next_ns = line.request_end_ns
    for i in range(line.n_sent):
        sent = &line.sent[i]
        at_ns = sent.start_ns + (line.char_ns if sent.done == 0 else (sent.length - sent.done) * line.char_ns)
        if at_ns < next_ns:
            next_ns = at_ns
    line.next_ns = next_ns


cdef void line_engine(line_t* line, uint64_t t_ns) noexcept nogil:
    """Ask the master's engine what it wants; put its request on the wire."""
    cdef rtu_action_t action
    cdef int i
    for i in range(4):
        rtu_next(line.engine, t_ns, &action)
        if action.what != RTU_SEND:
            break
        memcpy(line.request, action.frame, action.length)
        line.request_length = action.length
        line.request_end_ns = t_ns + action.length * line.char_ns
        if line.fault_bits & (1u << FAULT_ECHO):
            line_send(line, action.frame, action.length, t_ns)
        rtu_sent(line.engine, line.request_end_ns)
    line.waits = action.what == RTU_WAIT
    # An engine that asks again at once would stop time; a microsecond is below everything that happens here.
    line.engine_ns = action.until_ns if action.until_ns > t_ns else t_ns + 1000


cdef void line_run(world_t* world, int number, uint64_t t_ns) noexcept nogil:
    cdef line_t* line = &world.lines[number]
    cdef uint64_t now
    while line.next_ns <= t_ns:
        now = line.next_ns
        if line.request_end_ns and line.request_end_ns <= now:
            line_request_done(world, number, now)
        if line.n_sent:
            line_deliver(line, now)
        line_engine(line, now)
        line_schedule(line, now)


# ---------------------------------------------------------------- faults


cdef void fault_apply(world_t* world, const fault_row_t* row, uint64_t t_ns) noexcept nogil:
    cdef plant_t* plant = &world.plant
    cdef int at = row.target
    if row.kind < FAULT_ECHO:
        world.slave_faults[at].bits |= 1u << row.kind
        world.slave_faults[at].value[row.kind] = row.value
    elif row.kind < FAULT_CAN_SILENT:
        world.lines[at].fault_bits |= 1u << row.kind
        world.lines[at].fault_value[row.kind] = row.value
    elif row.kind == FAULT_CAN_SILENT or row.kind == FAULT_CAN_OFF:
        world.can_silent |= 1u << at
    elif row.kind == FAULT_CAN_FLOOD:
        world.can_flood[at] = row.value
    elif row.kind == FAULT_CAN_PASSIVE:
        pass
    elif row.kind < FAULT_BATTERY:
        world.frames[at].faults |= 1u << (row.kind - FAULT_CAN_SILENT)
    elif row.kind == FAULT_BATTERY:
        plant.batteries[at].faults |= <uint32_t>row.value
    elif row.kind == FAULT_PCS:
        plant.pcs[at].faults |= <uint32_t>row.value
    elif row.kind == FAULT_METER:
        plant.meters[at].faults |= <uint32_t>row.value
    elif row.kind == FAULT_ISLAND:
        plant.islanded = 1
    elif row.kind == FAULT_WATCHDOG_OFF:
        plant.pcs[at].v[PCS_REVERT_ENA] = 0.0
    elif row.kind == FAULT_GENSET:
        plant.genset.faults |= <uint32_t>row.value
    elif row.kind == FAULT_HZ:
        plant.hz = row.value


cdef void world_faults(world_t* world, uint64_t t_ns) noexcept nogil:
    """Work out afresh which faults are on; called only when one begins or ends."""
    cdef plant_t* plant = &world.plant
    cdef uint32_t i
    cdef fault_row_t* row
    cdef uint64_t next_ns = NEVER
    for i in range(world.n_slaves):
        world.slave_faults[i].bits = 0
    for i in range(world.n_lines):
        world.lines[i].fault_bits = 0
    for i in range(world.n_frames):
        world.frames[i].faults = 0
    for i in range(world.n_can_buses):
        world.can_flood[i] = 0.0
    world.can_silent = 0
    for i in range(plant.n_batteries):
        plant.batteries[i].faults = 0
    for i in range(plant.n_pcs):
        plant.pcs[i].faults = 0
    for i in range(plant.n_meters):
        plant.meters[i].faults = 0
    plant.islanded = 0
    plant.genset.faults = 0
    plant.hz = 50.0
    for i in range(world.n_faults):
        row = &world.faults[i]
        if row.t_on_ns <= t_ns < row.t_off_ns:
            fault_apply(world, row, t_ns)
            # Edges that say themselves: the controller chip reports its state once.
            if row.t_on_ns > t_ns - world.period_ns and row.kind == FAULT_CAN_OFF:
                can_state(world, row.target, 0x40, 0, t_ns)
            elif row.t_on_ns > t_ns - world.period_ns and row.kind == FAULT_CAN_PASSIVE:
                can_state(world, row.target, 0x04, 0x30, t_ns)
            if row.t_off_ns < next_ns:
                next_ns = row.t_off_ns
        elif t_ns < row.t_on_ns:
            if row.t_on_ns < next_ns:
                next_ns = row.t_on_ns
        elif row.t_off_ns > t_ns - world.period_ns:
            if row.kind == FAULT_CAN_OFF:  # restarted
                can_state(world, row.target, 0x100, 0, t_ns)
            elif row.kind == FAULT_CAN_PASSIVE:
                can_state(world, row.target, 0x04, 0x40, t_ns)
    world.fault_next_ns = next_ns
