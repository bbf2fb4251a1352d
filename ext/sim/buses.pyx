"""The buses of the simulated plant: bytes at line pace, frames on their period, and all that can go wrong on them.

A line is touched only when its next event has come; its devices answer through slave.pyx, its master is the engine of
rtu.pyx.
"""

from libc.math cimport floor
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from tidegate.ext.bus.can cimport (
    CAN_QUEUE_MAX, CRC_AUTOSAR, CRC_J1850, CRC_SUM_ORION, CRC_XOR8, can_bus_t, can_frame, can_inject,
)
from tidegate.ext.sim.plant cimport *
from tidegate.ext.abi.program cimport CAN_FIELD_FLOAT, CAN_FIELD_MUXED, CAN_FIELD_ONE_OF, CAN_FIELD_SENTINEL
from tidegate.ext.bus.rtu cimport RTU_SEND, RTU_WAIT, rtu_action_t, rtu_bytes, rtu_next, rtu_sent
from tidegate.ext.sim.slave cimport *

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int fd, const void* bytes, size_t count, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL

cdef uint64_t NEVER = 0xFFFFFFFFFFFFFFFF
cdef uint64_t SECOND_NS = 1000000000
cdef uint32_t EXTENDED = 0x80000000
cdef uint32_t ERROR_FRAME = 0x20000000
cdef uint32_t HIGH_BITS = 0xAAAAAAAA
cdef uint32_t SLAVE_FAULTS = (1u << FAULT_ECHO) - 1u


# ---------------------------------------------------------------- chance


cdef uint64_t world_random(world_t* world) noexcept nogil:
    """xorshift64*: small, fast, the same everywhere."""
    cdef uint64_t x = world.random
    x ^= x >> 12
    x ^= x << 25
    x ^= x >> 27
    world.random = x
    return x * <uint64_t>0x2545F4914F6CDD1D


cdef double world_uniform(world_t* world) noexcept nogil:
    return <double>(world_random(world) >> 11) * (1.0 / 9007199254740992.0)


# ---------------------------------------------------------------- the record


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


cdef void world_watch_step(world_t* world, uint64_t t_ns) noexcept nogil:
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
    cdef heard_t* heard = &world.heard[battery]
    if heard.alarm_ns == 0 or heard.zero_on_wire or world.wire_set_w[number] != 0.0 or t_ns <= heard.alarm_ns:
        return
    heard.zero_on_wire = 1
    world.checks.alarms += 1
    world.checks.alarm_wire_ns_sum += t_ns - heard.alarm_ns
    if t_ns - heard.alarm_ns > world.checks.alarm_wire_ns_max:
        world.checks.alarm_wire_ns_max = t_ns - heard.alarm_ns


cdef void watch_setpoint(world_t* world, int number, uint64_t t_ns) noexcept nogil:
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
                watch_setpoint(world, slave.pcs, t_ns)
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
        world.heard[world.plant.pcs[slave.pcs].battery].pcs_ns = start_ns
    elif slave.meter >= 0 and world.plant.meters[slave.meter].source == METERS_GRID:
        world.heard_grid_ns = start_ns


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
        frame_seal(reply, 3)
        length[0] = 5
    if bits & (1u << FAULT_WRONG_UNIT):
        reply[0] ^= 0x10
        frame_seal(reply, length[0] - 2)
    if bits & (1u << FAULT_WRONG_FUNCTION):
        reply[1] ^= 0x07
        frame_seal(reply, length[0] - 2)
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
        frame_seal(junk, 6)
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


cdef void line_look(line_t* line, uint64_t t_ns) noexcept nogil:
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
        line_look(line, now)


# ---------------------------------------------------------------- CAN


cdef void bits_put(uint8_t* data, uint32_t start, uint32_t length, int big_endian, uint64_t raw) noexcept nogil:
    """Set `length` bits at a DBC start bit."""
    cdef uint32_t i, bit = start
    for i in range(length):
        if big_endian:  # start is the MSB; down within the byte, then on to the next byte's top
            if (raw >> (length - 1 - i)) & 1:
                data[bit // 8] |= <uint8_t>(1u << (bit % 8))
            bit = bit - 1 if bit % 8 else bit + 15
        else:
            if (raw >> i) & 1:
                data[bit // 8] |= <uint8_t>(1u << (bit % 8))
            bit += 1


cdef void field_put(const can_field_out_t* field, uint8_t* data) noexcept nogil:
    cdef double value = field.source[0], low, high
    cdef uint64_t raw = 0
    cdef uint32_t i
    cdef float single
    cdef uint32_t bits
    if field.mask:
        raw = (field.mask & (~field.mask + 1)) if value != 0.0 else 0
        if field.mask & HIGH_BITS == 0:  # bit pairs: 01 active, 10 fine
            raw |= (field.mask ^ raw) << 1
    elif field.flags & CAN_FIELD_ONE_OF:
        for i in range(64):
            if ((field.sentinel >> i) & 1) == (1 if value != 0.0 else 0):
                raw = i
                break
    elif value != value:
        raw = field.sentinel if field.flags & CAN_FIELD_SENTINEL else 0
    elif field.flags & CAN_FIELD_FLOAT:
        value = (value - field.offset) / field.scale
        if field.length == 32:
            single = <float>value
            memcpy(&bits, &single, 4)
            raw = bits
        else:
            memcpy(&raw, &value, 8)
    else:
        value = floor((value - field.offset) / field.scale + 0.5)
        low = 0.0
        high = <double>(1ull << (field.length if field.length < 53 else 53)) - 1.0
        if field.is_signed:
            high = floor(high / 2.0)
            low = -high - 1.0
        value = low if value < low else (high if value > high else value)
        raw = <uint64_t><int64_t>value
    bits_put(data, field.start, field.length, field.big_endian, raw)


cdef uint8_t checksum(const can_frame_out_t* frame, const uint8_t* data) noexcept nogil:
    """Checksum over all bytes but its own, by the numbers of CRC_NAMES in can.pyx."""
    cdef uint32_t i, bit, check = 0, polynomial
    if frame.crc_kind == CRC_J1850 or frame.crc_kind == CRC_AUTOSAR:
        polynomial = 0x1D if frame.crc_kind == CRC_J1850 else 0x2F
        check = 0xFF
        for i in range(frame.len):
            if i == frame.crc_byte:
                continue
            check ^= data[i]
            for bit in range(8):
                check = ((check << 1) ^ polynomial) & 0xFF if check & 0x80 else (check << 1) & 0xFF
        return <uint8_t>(check ^ 0xFF)
    for i in range(frame.len):
        if i == frame.crc_byte:
            continue
        check = check ^ data[i] if frame.crc_kind == CRC_XOR8 else check + data[i]
    if frame.crc_kind == CRC_SUM_ORION:
        bit = frame.id & 0x1FFFFFFF
        check += frame.len + (bit & 0xFF) + (bit >> 8 & 0xFF) + (bit >> 16 & 0xFF) + (bit >> 24)
    return <uint8_t>(check & 0xFF)


cdef int frame_encode(world_t* world, can_frame_out_t* frame, uint8_t* data) noexcept nogil:
    cdef uint32_t i, mux = 0
    cdef can_field_out_t* field
    memcpy(data, frame.template, 8)
    if frame.mux_count:
        mux = frame.mux_values[frame.mux_at % frame.mux_count]
        frame.mux_at += 1
        bits_put(data, frame.mux_start, frame.mux_length, frame.mux_big_endian, mux)
    for i in range(frame.field_first, frame.field_first + frame.field_count):
        field = &world.can_fields[i]
        if field.flags & CAN_FIELD_MUXED and field.mux_value != mux:
            continue
        field_put(field, data)
    if frame.counter_length:
        if frame.faults & (1u << (FAULT_CAN_COUNTER_JUMPS - FAULT_CAN_SILENT)):
            frame.counter += 2 + <uint32_t>(world_random(world) % 3)
        elif frame.faults & (1u << (FAULT_CAN_COUNTER_STUCK - FAULT_CAN_SILENT)) == 0:
            frame.counter += 1
        bits_put(data, frame.counter_start, frame.counter_length, frame.counter_big_endian,
                 frame.counter & ((1ull << frame.counter_length) - 1ull))
    if frame.crc_kind:
        data[frame.crc_byte] = checksum(frame, data)
    return frame.len


cdef void can_put(world_t* world, int bus, const can_frame* frame, uint64_t t_ns) noexcept nogil:
    """One frame onto a bus: into the core's queue in virtual time, through a descriptor in wall time."""
    if world.core != NULL:
        can_inject(&world.core.can[bus], frame, t_ns)
    elif world.can_fd[bus] > 0:
        if send(world.can_fd[bus] - 1, frame, sizeof(can_frame), MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof(can_frame):
            world.can_lost += 1
            return
    world.can_sent += 1


cdef void frame_heard(world_t* world, const can_frame_out_t* frame, uint64_t t_ns) noexcept nogil:
    """Note what the core can know once this frame has gone out."""
    cdef heard_t* heard
    if frame.battery < 0 or frame.faults:
        return
    heard = &world.heard[frame.battery]
    heard.bms_ns = t_ns
    if not frame.has_alarm:
        return
    if world.plant.batteries[frame.battery].v[BATTERY_ALARM] == 0.0:
        heard.alarm_ns = 0
    elif heard.alarm_ns == 0:
        heard.alarm_ns = t_ns
        heard.zero_on_wire = 0


cdef void can_emit(world_t* world, uint64_t t_ns) noexcept nogil:
    """Put every frame that is due on its bus."""
    cdef uint32_t i, wrong
    cdef uint64_t next_ns = NEVER
    cdef can_frame_out_t* frame
    cdef can_frame out
    for i in range(world.n_frames):
        frame = &world.frames[i]
        if frame.next_ns <= t_ns:
            memset(&out, 0, sizeof(out))
            out.can_id = frame.id
            out.len = <uint8_t>frame_encode(world, frame, out.data)
            wrong = frame.faults
            if wrong & (1u << (FAULT_CAN_LENGTH - FAULT_CAN_SILENT)):
                out.len -= 1
            if wrong & (1u << (FAULT_CAN_EXTENDED - FAULT_CAN_SILENT)):
                out.can_id ^= EXTENDED
            if world.can_silent & (1u << frame.bus) == 0 and wrong & (1u << (FAULT_CAN_ID_SILENT - FAULT_CAN_SILENT)) == 0:
                can_put(world, frame.bus, &out, frame.next_ns)
                frame_heard(world, frame, frame.next_ns)
                if wrong & (1u << (FAULT_CAN_SPOOF - FAULT_CAN_SILENT)):
                    can_put(world, frame.bus, &out, frame.next_ns)
            frame.next_ns += frame.period_ns
            if frame.next_ns <= t_ns:
                frame.next_ns = t_ns + frame.period_ns
        if frame.next_ns < next_ns:
            next_ns = frame.next_ns
    world.can_next_ns = next_ns


cdef void can_flood(world_t* world, uint64_t t_ns) noexcept nogil:
    cdef uint32_t bus, i
    cdef can_frame out
    for bus in range(world.n_can_buses):
        for i in range(<uint32_t>world.can_flood[bus]):
            memset(&out, 0, sizeof(out))
            out.can_id = 0x7E0 + (i & 7)
            out.len = 8
            can_put(world, <int>bus, &out, t_ns)


cdef void can_take(world_t* world, uint64_t t_ns) noexcept nogil:
    """What the controller sent: into the record."""
    cdef uint32_t bus
    cdef can_bus_t* at
    cdef can_frame* frame
    cdef uint8_t note[13]
    for bus in range(world.n_can_buses):
        at = &world.core.can[bus]
        while at.out_tail != at.out_head:
            frame = &at.out[at.out_tail % CAN_QUEUE_MAX]
            memcpy(note, &frame.can_id, 4)
            note[4] = frame.len
            memcpy(note + 5, frame.data, 8)
            wire_note(world, at.out_t_ns[at.out_tail % CAN_QUEUE_MAX], 0x80 | <int>bus, note, 13)
            at.out_tail += 1
            world.can_received += 1


# ---------------------------------------------------------------- faults


cdef void can_state(world_t* world, int bus, uint32_t kind, uint8_t controller, uint64_t t_ns) noexcept nogil:
    """An error frame as the kernel makes it: class in the id, controller state in byte 1."""
    cdef can_frame out
    memset(&out, 0, sizeof(out))
    out.can_id = ERROR_FRAME | kind
    out.len = 8
    out.data[1] = controller
    can_put(world, bus, &out, t_ns)


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
