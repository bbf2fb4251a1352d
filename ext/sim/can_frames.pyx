"""CAN of the simulated plant: the BMS's frames on their period, and what the controller sent taken back."""

from libc.math cimport floor
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from tidegate.ext.bus.can cimport (
    CAN_QUEUE_MAX, CRC_AUTOSAR, CRC_J1850, CRC_SUM_ORION, CRC_XOR8, can_bus_t, can_frame, can_inject,
)
from tidegate.ext.sim.buses cimport *
from tidegate.ext.sim.observe cimport wire_note
from tidegate.ext.sim.plant cimport *
from tidegate.ext.abi.program cimport CAN_FIELD_FLOAT, CAN_FIELD_MUXED, CAN_FIELD_ONE_OF, CAN_FIELD_SENTINEL

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int fd, const void* bytes, size_t count, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL

cdef uint64_t NEVER = 0xFFFFFFFFFFFFFFFF
cdef uint32_t EXTENDED = 0x80000000
cdef uint32_t ERROR_FRAME = 0x20000000
cdef uint32_t HIGH_BITS = 0xAAAAAAAA


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


cdef void contact_note(world_t* world, const can_frame_out_t* frame, uint64_t t_ns) noexcept nogil:
    """Note what the core can know once this frame has gone out."""
    cdef contact_t* contact
    if frame.battery < 0 or frame.faults:
        return
    contact = &world.contacts[frame.battery]
    contact.bms_ns = t_ns
    if not frame.has_alarm:
        return
    if world.plant.batteries[frame.battery].v[BATTERY_ALARM] == 0.0:
        contact.alarm_ns = 0
    elif contact.alarm_ns == 0:
        contact.alarm_ns = t_ns
        contact.zero_on_wire = 0


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
                contact_note(world, frame, frame.next_ns)
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


cdef void can_state(world_t* world, int bus, uint32_t kind, uint8_t controller, uint64_t t_ns) noexcept nogil:
    """An error frame as the kernel makes it: class in the id, controller state in byte 1."""
    cdef can_frame out
    memset(&out, 0, sizeof(out))
    out.can_id = ERROR_FRAME | kind
    out.len = 8
    out.data[1] = controller
    can_put(world, bus, &out, t_ns)
