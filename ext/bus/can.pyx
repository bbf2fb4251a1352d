"""CAN frames in by table, cyclic frames out.

A frame counts only if identifier, kind (11 or 29 bit, classic or FD) and length are those of its row; whatever else
arrives is counted and dropped. A point's age is refreshed by its own frame alone, and by that only if checksum and live
counter agree: a frame that is sent again and again by a stuck BMS ages like silence.
"""
from libc.errno cimport EIO, EINTR, ENETDOWN, ENOBUFS, EAGAIN, ENOMEM, EPIPE
from libc.math cimport fabs
from libc.stdint cimport UINT64_MAX
from libc.string cimport memcpy, memset

from tidegate.ext.abi.image cimport QUALITY_GOOD, QUALITY_HELD, QUALITY_INVALID, QUALITY_STALE
from tidegate.ext.abi.ring cimport recorder_frame, recorder_lost
from tidegate.ext.abi.program cimport (
    CAN_FIELD_ABS, CAN_FIELD_FLOAT, CAN_FIELD_MUXED, CAN_FIELD_ONE_OF, CAN_FIELD_SENTINEL, CAN_FRAME_COUNTER,
    CAN_FRAME_CRC, CAN_FRAME_FD, CAN_FRAME_MUX, CAN_TX_HEARTBEAT, can_field_row_t,
)

cdef extern from "<linux/can/error.h>" nogil:
    enum:
        CAN_ERR_FLAG
        CAN_ERR_ACK
        CAN_ERR_BUSOFF
        CAN_ERR_RESTARTED
        CAN_ERR_CRTL
        CAN_ERR_CRTL_RX_WARNING
        CAN_ERR_CRTL_TX_WARNING
        CAN_ERR_CRTL_RX_PASSIVE
        CAN_ERR_CRTL_TX_PASSIVE
        CAN_ERR_CRTL_ACTIVE
        CAN_ERR_CNT
        CAN_MTU
        CANFD_MTU

cdef enum:
    BUCKET_MAX = 10
    ANCIENT_NS = 10_000_000_000  # a stamp older than this is the wall clock's jump, not the frame's age


# ---- set-up ----

cdef inline uint32_t _hash(uint32_t can_id) noexcept nogil:
    return (can_id * 2654435761u) >> 24  # Knuth's multiplier; the top 8 bits are the slot


cdef void can_bus_init(can_bus_t* bus, const program_t* program) noexcept nogil:
    cdef uint32_t i, slot
    memset(bus.lookup, 0, sizeof(bus.lookup))
    for i in range(program.n_can_frames):
        if program.can_frames[i].bus != bus.bus:
            continue
        slot = _hash(program.can_frames[i].id)
        while bus.lookup[slot]:  # ends: at most half of the slots are ever taken
            slot = (slot + 1) % CAN_LOOKUP_SLOTS
        bus.lookup[slot] = <uint8_t>(i + 1)

    bus.n_tx = 0
    for i in range(program.n_can_tx):
        if program.can_tx[i].bus == bus.bus and program.can_tx[i].period_ns:
            bus.tx_row[bus.n_tx] = <uint8_t>i
            bus.tx_next_ns[bus.n_tx] = 0  # the grid starts with the first write phase
            bus.tx_counter[bus.n_tx] = 0
            bus.n_tx += 1
    bus.tx_due_ns = 0 if bus.n_tx else UINT64_MAX
    can_batch_init(&bus.batch)
    bus.ready = 1


cdef inline int _row_of(const program_t* program, const can_bus_t* bus, uint32_t can_id) noexcept nogil:
    cdef uint32_t slot = _hash(can_id)
    while bus.lookup[slot]:
        if program.can_frames[bus.lookup[slot] - 1].id == can_id:
            return bus.lookup[slot] - 1
        slot = (slot + 1) % CAN_LOOKUP_SLOTS
    return -1


# ---- decode ----

cdef inline uint8_t _crc8(const can_buffer_t* frame, uint32_t skip, uint8_t polynomial) noexcept nogil:
    cdef uint8_t crc = 0xFF
    cdef uint32_t i, bit
    for i in range(frame.len):
        if i == skip:
            continue
        crc ^= frame.data[i]
        for bit in range(8):
            crc = <uint8_t>((crc << 1) ^ polynomial) if crc & 0x80 else <uint8_t>(crc << 1)
    return crc ^ 0xFF


cdef uint8_t can_checksum(int kind, const can_buffer_t* frame, uint32_t skip) noexcept nogil:
    cdef uint8_t check = 0
    cdef uint32_t i
    if kind == CRC_J1850:
        return _crc8(frame, skip, 0x1D)
    if kind == CRC_AUTOSAR:
        return _crc8(frame, skip, 0x2F)
    for i in range(frame.len):
        if i == skip:
            continue
        if kind == CRC_XOR8:
            check ^= frame.data[i]
        else:
            check = <uint8_t>(check + frame.data[i])
    if kind == CRC_SUM_ORION:
        check = <uint8_t>(check + frame.len + frame.can_id)  # the number modulo 256, so its low byte
    return check


cdef inline double _float_of(uint64_t raw, uint32_t length) noexcept nogil:
    cdef float single
    cdef double value
    cdef uint32_t word = <uint32_t>raw
    if length == 32:
        memcpy(&single, &word, sizeof(single))
        return single
    memcpy(&value, &raw, sizeof(value))
    return value


cdef void _decode_field(const can_field_row_t* field, const can_buffer_t* frame, point_t* image,
                        can_frame_stats_t* st, uint64_t t_ns) noexcept nogil:
    cdef uint64_t raw = can_bits(frame.data, field.start, field.length, field.big_endian)
    cdef point_t* point = &image[field.point]
    cdef double value
    if field.mask:
        raw &= field.mask
    if field.flags & CAN_FIELD_ONE_OF:
        raw = field.sentinel >> raw & 1 if raw < 64 else 0
    elif field.flags & CAN_FIELD_SENTINEL and raw == field.sentinel:
        point.quality = QUALITY_INVALID
        st.invalid += 1
        return

    if field.flags & CAN_FIELD_FLOAT:
        value = _float_of(raw, field.length)
    elif field.is_signed and not field.flags & CAN_FIELD_ONE_OF:
        value = <double>(<int64_t>(raw << (64 - field.length)) >> (64 - field.length))
    else:
        value = <double>raw
    value = value * field.scale + field.offset
    if field.flags & CAN_FIELD_ABS:
        value = fabs(value)

    # Written so that NaN fails it.
    if not (field.min <= value <= field.max):
        point.quality = QUALITY_INVALID
        st.invalid += 1
        return
    point.value = value
    point.t_ns = t_ns
    point.quality = QUALITY_GOOD
    point.changes += 1


cdef inline void _note_gap(can_frame_stats_t* st, uint64_t nominal_ns, uint64_t t_ns) noexcept nogil:
    cdef uint64_t gap
    if st.t_last_ns:
        gap = t_ns - st.t_last_ns if t_ns > st.t_last_ns else 0
        if gap > st.gap_max_ns:
            st.gap_max_ns = gap
        if 2 * gap < nominal_ns:
            st.early += 1
        if st.period_ns == 0:
            st.period_ns = gap
        elif gap < 4 * st.period_ns:  # a longer one is silence, not the period
            st.period_ns = (7 * st.period_ns + gap) / 8
    st.t_last_ns = t_ns


cdef inline int _refuse(can_frame_stats_t* st) noexcept nogil:
    if st.bucket < BUCKET_MAX:
        st.bucket += 1
    return 0


cdef inline bint second_lets(const can_field_row_t* field, const can_buffer_t* frame) noexcept nogil:
    if can_bits_end(field.mux2_start, field.mux2_length, field.mux2_big_endian) > frame.len:
        return False
    return can_bits(frame.data, field.mux2_start, field.mux2_length, field.mux2_big_endian) == field.mux2_value


cdef int can_decode(const program_t* program, can_bus_t* bus, const can_buffer_t* frame, bint is_fd, point_t* image,
                    can_frame_stats_t* per_id, uint64_t t_ns) noexcept nogil:
    cdef int index = _row_of(program, bus, frame.can_id)
    recorder_frame(bus.recorder, bus.bus, frame.can_id, frame.len, frame.flags, is_fd, frame.data, t_ns)
    if index < 0:
        bus.stats.unknown += 1
        return 0
    cdef const can_frame_row_t* row = &program.can_frames[index]
    cdef can_frame_stats_t* st = &per_id[index]
    if not row.len_min <= frame.len <= row.len_max or is_fd != ((row.flags & CAN_FRAME_FD) != 0):
        st.bad_length += 1
        return 0
    _note_gap(st, row.period_ns, t_ns)

    cdef uint32_t counter, step
    if row.flags & CAN_FRAME_CRC and (row.crc_byte >= frame.len or
            can_checksum(row.crc_kind, frame, row.crc_byte) != frame.data[row.crc_byte]):
        st.crc_errors += 1
        return _refuse(st)
    if row.flags & CAN_FRAME_COUNTER and row.counter_length:
        if can_bits_end(row.counter_start, row.counter_length, row.counter_big_endian) > frame.len:
            st.bad_length += 1
            return 0
        counter = <uint32_t>can_bits(frame.data, row.counter_start, row.counter_length, row.counter_big_endian)
        step = (counter - st.counter) & ((1u << row.counter_length) - 1 if row.counter_length < 32 else 0xFFFFFFFFu)
        # The first frame has nothing to compare with; after a jump the next one is compared with this one.
        if st.count + st.counter_errors + st.repeated and step != 1:
            st.counter = counter
            if step == 0:
                st.repeated += 1
            else:
                st.counter_errors += 1
            return _refuse(st)
        st.counter = counter

    cdef uint64_t selected = UINT64_MAX
    if row.flags & CAN_FRAME_MUX and can_bits_end(row.mux_start, row.mux_length, row.mux_big_endian) <= frame.len:
        selected = can_bits(frame.data, row.mux_start, row.mux_length, row.mux_big_endian)
    cdef const can_field_row_t* field
    cdef uint32_t i
    for i in range(row.field_first, <uint32_t>row.field_first + row.field_count):
        field = &program.can_fields[i]
        if field.flags & CAN_FIELD_MUXED and field.mux_value != selected:
            continue
        if field.mux2_length and not second_lets(field, frame):
            continue
        # A shorter dialect of the frame leaves the field out; its point ages.
        if can_bits_end(field.start, field.length, field.big_endian) <= frame.len:
            _decode_field(field, frame, image, st, t_ns)
    st.count += 1
    if st.bucket:
        st.bucket -= 1
    return 1


cdef void _note_error_frame(can_bus_t* bus, const can_buffer_t* frame) noexcept nogil:
    cdef uint8_t controller
    bus.stats.error_frames += 1
    if frame.can_id & CAN_ERR_CNT and frame.len >= 8:
        bus.stats.tec = frame.data[6]
        bus.stats.rec = frame.data[7]
    if frame.can_id & CAN_ERR_ACK:
        bus.stats.ack_errors += 1
    if frame.can_id & CAN_ERR_CRTL and frame.len >= 2:
        controller = frame.data[1]
        if controller & (CAN_ERR_CRTL_RX_PASSIVE | CAN_ERR_CRTL_TX_PASSIVE):
            bus.stats.state = CAN_PASSIVE
        elif controller & (CAN_ERR_CRTL_RX_WARNING | CAN_ERR_CRTL_TX_WARNING):
            bus.stats.state = CAN_WARNING
        elif controller & CAN_ERR_CRTL_ACTIVE:
            bus.stats.state = CAN_ACTIVE
    if frame.can_id & CAN_ERR_RESTARTED:
        bus.stats.restarts += 1
        bus.stats.state = CAN_ACTIVE
    if frame.can_id & CAN_ERR_BUSOFF:
        bus.stats.bus_off += 1
        bus.stats.state = CAN_BUS_OFF


# ---- read ----

cdef int _drain_queue(const program_t* program, can_bus_t* bus, point_t* image, can_frame_stats_t* per_id,
                      uint64_t t_ns) noexcept nogil:
    cdef can_buffer_t frame
    cdef uint32_t slot
    cdef int taken = 0
    memset(&frame, 0, sizeof(frame))
    while bus.queue_tail != bus.queue_head and taken < CAN_BATCH_MAX:
        slot = bus.queue_tail % CAN_QUEUE_MAX
        if bus.queue_t_ns[slot] > t_ns:
            break
        memcpy(&frame, &bus.queue[slot], sizeof(can_frame))
        bus.queue_tail += 1
        taken += 1
        if frame.can_id & CAN_ERR_FLAG:
            _note_error_frame(bus, &frame)
        else:
            can_decode(program, bus, &frame, False, image, per_id, bus.queue_t_ns[slot])
    bus.stats.frames += taken
    return taken


cdef inline uint64_t _received_ns(const can_bus_t* bus, const can_ancillary_t* beside, uint64_t t_ns) noexcept nogil:
    # The stamp is wall time, which may be stepped; the frame came after the last time that nothing was waiting and
    # before this cycle, so a wrong offset costs no more than having no stamp.
    cdef uint64_t first = t_ns - ANCIENT_NS if t_ns > ANCIENT_NS else 0
    cdef int64_t t
    if beside.realtime_ns == 0 or bus.realtime_offset_ns == 0:
        return t_ns
    if bus.t_drained_ns > first:
        first = bus.t_drained_ns
    t = <int64_t>beside.realtime_ns - bus.realtime_offset_ns
    if t < <int64_t>first:
        return first
    return <uint64_t>t if <uint64_t>t < t_ns else t_ns


cdef void _take_message(const program_t* program, can_bus_t* bus, int i, point_t* image, can_frame_stats_t* per_id,
                        uint64_t t_ns) noexcept nogil:
    cdef can_ancillary_t beside
    cdef can_buffer_t* frame = &bus.batch.frames[i]
    cdef uint32_t size = can_batch_take(&bus.batch, i, &beside)
    if beside.has_drops:
        bus.stats.dropped += beside.drops - bus.drops_seen  # the kernel counts in 32 bits
        bus.drops_seen = beside.drops
    bus.stats.frames += 1
    if size == 0:  # the far end of a socket pair is gone
        bus.stats.malformed += 1
        bus.stats.state = CAN_DOWN
        bus.stats.error = EPIPE
        bus.fd_dead = 1
    elif not (size == CAN_MTU and frame.len <= 8) and not (size == CANFD_MTU and frame.len <= 64):
        bus.stats.malformed += 1
    elif beside.own:
        bus.stats.echoed += 1
        if bus.stats.unconfirmed:
            bus.stats.unconfirmed -= 1
    elif frame.can_id & CAN_ERR_FLAG:
        _note_error_frame(bus, frame)
    else:
        if bus.stats.state >= CAN_BUS_OFF:  # who receives is on the bus again
            bus.stats.state = CAN_ACTIVE
        can_decode(program, bus, frame, size == CANFD_MTU, image, per_id, _received_ns(bus, &beside, t_ns))


cdef inline void _take_fresh_fd(can_bus_t* bus) noexcept nogil:
    # Only with room for the old one: closing is for the thread that opened it.
    if bus.fd_fresh != 0 and bus.fd_retired == 0:
        if bus.fd >= 0:
            can_slot_put(&bus.fd_retired, bus.fd)
        bus.fd = can_slot_take(&bus.fd_fresh)
        bus.fd_dead = 0
        bus.drops_seen = 0
        bus.stats.unconfirmed = 0
        bus.stats.tx_failed_run = 0
        bus.stats.state = CAN_ACTIVE


cdef inline int _failed(can_bus_t* bus, int error) noexcept nogil:
    bus.stats.error = error
    if error not in (ENOBUFS, EAGAIN, EINTR, ENOMEM):
        bus.stats.state = CAN_DOWN
        # After ENETDOWN the same socket works again once the interface is up; any other error is for good.
        if error != ENETDOWN:
            bus.fd_dead = 1
    return -error


cdef void can_lose_points(const program_t* program, const can_bus_t* bus, point_t* image) noexcept nogil:
    cdef const can_frame_row_t* row
    cdef point_t* point
    cdef uint32_t i, j
    for i in range(program.n_can_frames):
        row = &program.can_frames[i]
        if row.bus != bus.bus:
            continue
        for j in range(row.field_first, <uint32_t>row.field_first + row.field_count):
            point = &image[program.can_fields[j].point]
            if point.quality in (QUALITY_GOOD, QUALITY_HELD):
                point.quality = QUALITY_STALE


cdef int _drain_fd(const program_t* program, can_bus_t* bus, point_t* image, can_frame_stats_t* per_id,
                   uint64_t t_ns) noexcept nogil:
    cdef int n, i
    if bus.fd_dead:
        return -bus.stats.error
    n = can_batch_receive(&bus.batch, bus.fd)
    if n < 0:
        return _failed(bus, -n)
    for i in range(n):
        _take_message(program, bus, i, image, per_id, t_ns)
        if bus.fd_dead:
            return i + 1
    if n < CAN_BATCH_MAX:
        bus.t_drained_ns = t_ns
    return n


cdef int can_drain(const program_t* program, can_bus_t* bus, point_t* image, can_frame_stats_t* per_id,
                   uint64_t t_ns) noexcept nogil:
    cdef int taken
    if bus.fd < 0 and bus.queue_head == bus.queue_tail and bus.fd_fresh == 0:
        return 0
    if not bus.ready:
        can_bus_init(bus, program)
    _take_fresh_fd(bus)
    if bus.fd < 0:
        taken = _drain_queue(program, bus, image, per_id, t_ns)
    else:
        taken = _drain_fd(program, bus, image, per_id, t_ns)
    # Off the bus nothing can come: its points are stale now, not when their age has run out.
    if bus.stats.state >= CAN_BUS_OFF and not bus.lost:
        can_lose_points(program, bus, image)
        recorder_lost(bus.recorder, bus.bus)
    bus.lost = bus.stats.state >= CAN_BUS_OFF
    return taken


# ---- write ----

cdef inline bint _permitted(const program_t* program, const can_tx_row_t* row,
                            const gate_verdict_t* verdicts) noexcept nogil:
    cdef uint32_t unit
    if row.kind != CAN_TX_HEARTBEAT:
        return True
    if verdicts == NULL:
        return False
    if row.unit >= 0:
        return verdicts[row.unit].heartbeat_ok != 0
    for unit in range(program.n_units):
        if verdicts[unit].heartbeat_ok == 0:
            return False
    return program.n_units > 0


cdef void _put_counter(can_frame* frame, const can_tx_row_t* row, uint32_t counter) noexcept nogil:
    cdef uint32_t i, bit
    for i in range(row.counter_length):
        bit = row.counter_start + i
        if bit >= 64 or i >= 32:
            return
        if counter >> i & 1:
            frame.data[bit / 8] |= <uint8_t>(1 << bit % 8)
        else:
            frame.data[bit / 8] &= <uint8_t>~(1 << bit % 8)


cdef int _send(can_bus_t* bus, const can_frame* frame, uint64_t t_ns) noexcept nogil:
    cdef uint32_t slot
    if bus.fd >= 0:
        return -EPIPE if bus.fd_dead else can_send_frame(bus.fd, frame)
    if bus.out_head - bus.out_tail >= CAN_QUEUE_MAX:
        return -ENOBUFS
    slot = bus.out_head % CAN_QUEUE_MAX
    bus.out[slot] = frame[0]
    bus.out_t_ns[slot] = t_ns
    bus.out_head += 1
    return 0


cdef inline bint _asks_open(const program_t* program, const can_tx_row_t* row, const gate_verdict_t* verdicts) noexcept nogil:
    cdef uint32_t unit
    if not row.has_open or verdicts == NULL:
        return False
    if row.unit >= 0:
        return verdicts[row.unit].contactor_open != 0
    for unit in range(program.n_units):
        if verdicts[unit].contactor_open != 0:
            return True
    return False


cdef int _send_row(const program_t* program, can_bus_t* bus, uint32_t i, const gate_verdict_t* verdicts,
                   uint64_t t_ns) noexcept nogil:
    cdef const can_tx_row_t* row = &program.can_tx[bus.tx_row[i]]
    cdef can_frame frame
    cdef int error
    memset(&frame, 0, sizeof(frame))
    frame.can_id = row.id
    frame.len = row.len
    if _asks_open(program, row, verdicts):
        memcpy(frame.data, row.open_data, 8)
    else:
        memcpy(frame.data, row.data, 8)
    if row.counter_start >= 0:
        _put_counter(&frame, row, bus.tx_counter[i])
    error = _send(bus, &frame, t_ns)
    if error < 0:
        bus.stats.send_failed += 1
        bus.stats.tx_failed_run += 1
        return _failed(bus, -error)
    bus.tx_counter[i] += 1
    bus.stats.sent += 1
    bus.stats.tx_failed_run = 0
    if t_ns > bus.tx_next_ns[i] and t_ns - bus.tx_next_ns[i] > bus.stats.tx_late_max_ns:
        bus.stats.tx_late_max_ns = t_ns - bus.tx_next_ns[i]
    if bus.flags & CAN_BUS_ECHO:
        bus.stats.unconfirmed += 1
    return 0


cdef int can_send_due(const program_t* program, can_bus_t* bus, const gate_verdict_t* verdicts,
                      uint64_t t_ns) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t period_ns, missed, due_ns, until_ns
    cdef int sent = 0, error = 0, result
    if t_ns < bus.tx_due_ns:
        return 0
    if not bus.ready:
        can_bus_init(bus, program)
    # The cycle nearest to the grid point sends. A grid begun in a cycle that woke late would otherwise be missed by
    # every cycle that wakes in time, each frame going out in the next one.
    until_ns = t_ns + program.period_ns / 2
    due_ns = UINT64_MAX
    for i in range(bus.n_tx):
        period_ns = program.can_tx[bus.tx_row[i]].period_ns
        if bus.tx_next_ns[i] == 0:
            bus.tx_next_ns[i] = t_ns
        if until_ns >= bus.tx_next_ns[i]:
            # Whole periods that are over: their frames are left out, never sent in a burst.
            missed = (t_ns - bus.tx_next_ns[i]) / period_ns if t_ns > bus.tx_next_ns[i] else 0
            if missed:
                bus.stats.tx_skipped += missed
                bus.tx_next_ns[i] += missed * period_ns
            result = 0
            if _permitted(program, &program.can_tx[bus.tx_row[i]], verdicts):
                result = _send_row(program, bus, i, verdicts, t_ns)
                if result < 0:
                    error = result
                else:
                    sent += 1
            # A full queue is tried again in the next cycle; the grid itself never moves.
            if result not in (-ENOBUFS, -EAGAIN, -EINTR, -ENOMEM):
                bus.tx_next_ns[i] += period_ns
        if bus.tx_next_ns[i] < due_ns:
            due_ns = bus.tx_next_ns[i]
    if due_ns != UINT64_MAX and due_ns > program.period_ns / 2:
        due_ns -= program.period_ns / 2
    bus.tx_due_ns = due_ns
    return error if error < 0 else sent


cdef int can_inject(can_bus_t* bus, const can_frame* frame, uint64_t t_ns) noexcept nogil:
    if bus.queue_head - bus.queue_tail >= CAN_QUEUE_MAX:
        bus.stats.dropped += 1
        return -1
    bus.queue[bus.queue_head % CAN_QUEUE_MAX] = frame[0]
    bus.queue_t_ns[bus.queue_head % CAN_QUEUE_MAX] = t_ns
    bus.queue_head += 1
    return 0
