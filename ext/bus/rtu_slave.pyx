"""What an engine learns about each slave of its port: whether it answers, how soon, which silence it bears, which
device it is, and which of its answers may still be under way.
"""

from libc.string cimport memmove

from tidegate.ext.abi.port_mail cimport (
    DONE_CRC, DONE_ECHO, DONE_EXCEPTION, DONE_MISMATCH, DONE_OK, DONE_SHORT, DONE_TIMEOUT, RTU_DEAD,
    port_histogram_add, slave_stats_t,
)
from tidegate.ext.abi.program cimport (
    COMMAND_CONST, COMMAND_FLASH, FIELD_IDENTITY, POLL_ONCE, block_row_t, field_row_t,
)
from tidegate.ext.bus.rtu cimport (
    RTU_BACKOFF_NS, RTU_BARS, RTU_COMMAND, RTU_GAP_EXTRA_NS, RTU_GUARD, RTU_LEARN, RTU_MS, later, reply_at, rtu_command_t, rtu_shape_t, sooner,
)

cdef enum:
    FRAMED_LEAST_NS = 300000000  # the network sends a lost segment again only after 200 ms
    LEAD_HABIT = 16 # replies in a row with stray bytes before them: that is how the device is
    AIM_STRIDE = 8  # replies in a row that came on the same side of their wake-up: by chance one in 256


cdef uint64_t timeout_of(const rtu_t* e, uint32_t slave) noexcept nogil:
    """For the first byte: twice the slowest answer seen and 20 ms, never above the map's figure."""
    cdef uint64_t most = 200 * RTU_MS, learned
    cdef const rtu_slave_t* s
    if slave >= e.n_slaves:
        return most
    most = e.program.slaves[e.slave_first + slave].timeout_ns
    s = &e.slaves[slave]
    if s.samples < RTU_LEARN:
        return most
    learned = 2 * s.worst_ns + 20 * RTU_MS
    if e.numbered:
        learned = later(learned, FRAMED_LEAST_NS)
    learned = learned << (s.silent_run if s.silent_run < 8 else 8)
    return sooner(learned, most)


cdef void slave_ended(rtu_t* e, int status, bint answered, uint64_t t_ns) noexcept nogil:
    if e.request.slave >= e.n_slaves:
        return
    if answered:
        slave_answered(e, status, t_ns)
    else:
        slave_failed(e, status, t_ns)


cdef void slave_answered(rtu_t* e, int status, uint64_t t_ns) noexcept nogil:
    cdef rtu_slave_t* s = &e.slaves[e.request.slave]
    cdef slave_stats_t* stats = &e.mail.stats.slaves[e.request.slave]
    cdef uint64_t turn = e.t_first_ns - e.t_sent_ns if e.t_first_ns > e.t_sent_ns else 0
    if status == DONE_OK:
        stats.ok += 1
    else:
        count_exception(stats, reply_at(e)[2])
    stats.t_ok_ns = t_ns
    s.t_ready_ns = t_ns + e.program.slaves[e.slave_first + e.request.slave].turnaround_ns
    s.t_open_ns = 0
    e.in_step = in_step(e, s, status)
    if e.in_step:
        s.n_bars = 0
        s.doubtful = 0
    else:
        answer_ambiguous(e, s, t_ns)
    s.silent_run = 0
    s.samples += 1 if s.samples < RTU_LEARN else 0
    aim(e, s, turn)
    s.worst_ns = later(turn, s.worst_ns - s.worst_ns // 256)
    stats.turnaround_ns += (turn >> 3) - (stats.turnaround_ns >> 3) if stats.turnaround_ns else turn
    port_histogram_add(stats.turnaround, turn)
    port_histogram_add(stats.round_trip, t_ns - sooner(t_ns, e.t_sent_ns - e.request.length * e.char_ns))
    learn_gap(e, s)
    s.lead_run = s.lead_run + (s.lead_run < LEAD_HABIT) if e.lead else 0
    if not s.alive or not s.ever:
        revive(e, e.request.slave, t_ns)
    stats.alive, stats.silent_run = 1, 0
    stats.timeout_ns = timeout_of(e, e.request.slave)
    stats.gap_ns = e.gap_ns + s.gap_extra_ns
    stats.gap_extra_us = <uint32_t>(s.gap_extra_ns // 1000)


cdef inline void count_exception(slave_stats_t* stats, uint8_t code) noexcept nogil:
    stats.exceptions += 1
    stats.exception_codes[code if code < 12 else 0] += 1


cdef void aim(const rtu_t* e, rtu_slave_t* s, uint64_t turn) noexcept nogil:
    """Move the wake-up for the next reply: as far down for one that was whole as up for one that was not.

    So half of them are whole at the wake-up and none has waited long. A later aim saves wake-ups but holds the line: each
    reply would lie there for longer than its end varies. One that is very late says little about the next, so only several
    in a row make a stride.
    """
    cdef uint64_t step = later(s.expected_ns // 1024, e.char_ns // 64)
    if not e.listened and e.parts == 1:
        s.aim_run = s.aim_run - 1 if s.aim_run < 0 else -1
        s.expected_ns -= sooner(s.expected_ns, later(s.expected_ns // 64, step) if s.aim_run <= -AIM_STRIDE else step)
        return
    s.aim_run = s.aim_run + 1 if s.aim_run > 0 else 1
    if s.aim_run >= AIM_STRIDE and turn > s.expected_ns:
        step = later(step, sooner((turn - s.expected_ns) // 2, later(s.expected_ns // 16, e.char_ns // 4)))
    s.expected_ns += step


cdef bint in_step(const rtu_t* e, const rtu_slave_t* s, int status) noexcept nogil:
    """Whether this answer proves that the device owes no older one: only if no older one could look like it."""
    cdef uint32_t i
    if e.numbered:
        return True
    if status == DONE_EXCEPTION:  # every exception to one function looks the same
        for i in range(s.n_bars):
            if s.bars[i].function == e.request.function:
                return False
        return not (e.last_exception and e.last_unit == e.request.unit and e.last.function == e.request.function)
    # The acknowledgement of a function 5 or 6 is its request again and may be an echo.
    if not e.strip_echo and (e.request.function == 5 or e.request.function == 6):
        return s.n_bars == 0
    return not shape_barred(s, e.request.function, e.request.reply)


cdef void answer_ambiguous(rtu_t* e, rtu_slave_t* s, uint64_t t_ns) noexcept nogil:
    """The answer may have been an older one's, and its own still come: wait for it, and ask for another shape next."""
    bar_shape(s, e.request.function, e.request.reply)
    s.t_open_ns = later(t_ns, e.t_sent_ns + pause_of(e, s))
    s.doubtful += 1
    if s.doubtful >= 2 * RTU_BARS:  # nothing but such answers, each after a pause: this is how the device is
        s.n_bars = s.doubtful = 0


cdef void bar_shape(rtu_slave_t* s, uint32_t function, uint32_t reply) noexcept nogil:
    """No request to this slave whose answer would look like this one, until it is seen in step."""
    cdef uint32_t i, at = s.n_bars
    for i in range(s.n_bars):
        if s.bars[i].function == function and s.bars[i].reply == reply:
            at = i
    if at == s.n_bars and s.n_bars == RTU_BARS:
        at = 0  # full: the oldest was longest ago
    if at < s.n_bars:
        s.n_bars -= 1
        memmove(&s.bars[at], &s.bars[at + 1], (s.n_bars - at) * sizeof(rtu_shape_t))
    s.bars[s.n_bars].function = <uint8_t>function
    s.bars[s.n_bars].reply = <uint16_t>reply
    s.n_bars += 1


cdef void note_stray_bytes(rtu_t* e, const uint8_t* p, uint32_t count) noexcept nogil:
    count_foreign_bytes(e, e.request.slave, count)
    if e.request.slave >= e.n_slaves or e.slaves[e.request.slave].lead_run < LEAD_HABIT:
        note_foreign_frame(e, p, count)


cdef void note_foreign_frame(rtu_t* e, const uint8_t* p, uint32_t n) noexcept nogil:
    """A frame that nobody asked for: whoever sent it may send it again."""
    cdef uint32_t s = slave_of(e, p[0]) if n >= 3 else UNKNOWN_SLAVE
    e.guard = RTU_GUARD
    if s < e.n_slaves:
        bar_shape(&e.slaves[s], p[1] & 0x7F, 5u + p[2] if p[1] <= 4 or p[1] == 23 else 8)


cdef uint64_t pause_of(const rtu_t* e, const rtu_slave_t* s) noexcept nogil:
    """From a request's end until the slowest answer that this slave may still give would be through."""
    cdef uint64_t most = e.program.slaves[e.slave_first + e.request.slave].timeout_ns
    return (most if s.samples < RTU_LEARN else sooner(most, 2 * s.worst_ns + 20 * RTU_MS)) + e.request.reply * e.char_ns


cdef void learn_gap(rtu_t* e, rtu_slave_t* s) noexcept nogil:
    """A slave that bears a shorter silence gets one, after 256 good answers and never below where it failed."""
    s.good_run += 1
    if s.good_run % 256 == 0 and s.gap_extra_ns > s.gap_floor_ns:
        s.gap_extra_ns = later(s.gap_floor_ns, s.gap_extra_ns * 3 // 4)
        if s.gap_extra_ns < 50000:
            s.gap_extra_ns = 0


cdef void revive(rtu_t* e, uint32_t slave, uint64_t t_ns) noexcept nogil:
    """After a silence the device may have started anew: its constants, what is read once, and its commands again."""
    cdef rtu_slave_t* s = &e.slaves[slave]
    cdef uint32_t i
    cdef rtu_command_t* c
    s.alive = s.ever = 1
    s.consts_left = s.const_refused = s.unproved = 0
    for i in range(e.n_commands):
        c = &e.commands[i]
        if c.slave != slave or e.program.commands[e.mail.command_first + i].slave - e.slave_first != slave:
            continue
        # In flight right now: this very write showed that it is back, and its end_command marks it as written.
        if e.request.purpose != RTU_COMMAND or e.request.index != i:
            # A wearing register is written again only if a read-back shows that it lost its value.
            if not (e.program.commands[e.mail.command_first + i].flags & COMMAND_FLASH and c.known):
                c.written_seq = 0
                c.known = 0
        c.t_retry_ns = 0
        if e.program.commands[e.mail.command_first + i].kind == COMMAND_CONST and c.written_seq == 0:
            s.consts_left += 1
    for i in range(e.n_blocks):
        if e.blocks[i].slave != slave:
            continue
        if e.program.blocks[e.blocks[i].row].poll_class == POLL_ONCE:
            e.blocks[i].t_due_ns = e.blocks[i].deadline_ns = t_ns
        e.blocks[i].proved = 0
        s.unproved += e.blocks[i].identity


cdef void slave_failed(rtu_t* e, int status, uint64_t t_ns) noexcept nogil:
    cdef rtu_slave_t* s = &e.slaves[e.request.slave]
    cdef slave_stats_t* stats = &e.mail.stats.slaves[e.request.slave]
    cdef uint64_t cost, pause
    if not e.numbered:
        bar_shape(s, e.request.function, e.request.reply)
    if status == DONE_EXCEPTION:
        count_exception(stats, reply_at(e)[2])
    elif status == DONE_CRC:
        stats.crc_errors += 1
    elif status == DONE_MISMATCH:
        stats.mismatches += 1
    elif status == DONE_SHORT:
        stats.shorts += 1
    elif status == DONE_ECHO:
        stats.echoes += 1
    else:
        stats.timeouts += 1
    if status != DONE_CRC and not e.numbered and status != DONE_EXCEPTION:
        # The answer may still come: nothing to this slave until the slowest one known would be through.
        s.t_open_ns = later(t_ns, e.t_sent_ns + pause_of(e, s))
    if status == DONE_TIMEOUT or status == DONE_EXCEPTION:
        s.silent_run += 1
        if s.alive and s.silent_run == 1 and s.samples >= RTU_LEARN and status == DONE_TIMEOUT and not e.framed:
            # It answers, but not this time: perhaps the silence before was too short for it.
            if s.good_run < 256 and s.gap_extra_ns > 0:
                s.gap_floor_ns = s.gap_extra_ns
            s.gap_extra_ns = sooner(later(2 * s.gap_extra_ns, 250000), RTU_GAP_EXTRA_NS)
            s.good_run = 0
        if s.silent_run >= RTU_DEAD:
            s.alive = 0
            # At most a tenth of the line for asking whether it is back, and half of it for all that are gone.
            cost = t_ns - sooner(t_ns, e.t_sent_ns)
            e.t_probe_ns = t_ns + (cost if others_answer(e) else 0)
            pause = (100 * RTU_MS) << (s.silent_run - RTU_DEAD if s.silent_run < RTU_DEAD + 6 else 6)
            s.t_open_ns = t_ns + sooner(later(pause, 10 * cost), RTU_BACKOFF_NS)
    stats.alive, stats.silent_run = s.alive, s.silent_run
    stats.timeout_ns = timeout_of(e, e.request.slave)
    stats.gap_ns = e.gap_ns + s.gap_extra_ns
    stats.gap_extra_us = <uint32_t>(s.gap_extra_ns // 1000)


cdef bint others_answer(const rtu_t* e) noexcept nogil:
    cdef uint32_t i
    for i in range(e.n_slaves):
        if e.slaves[i].n_blocks > 0 and e.slaves[i].silent_run < RTU_DEAD:
            return True
    return False


cdef void check_identity(rtu_t* e, rtu_block_t* b, const uint16_t* regs) noexcept nogil:
    """Compare the words that tell which device this is; until all are the map's, nothing is written to it."""
    cdef const block_row_t* row = &e.program.blocks[b.row]
    cdef const field_row_t* field
    cdef rtu_slave_t* s = &e.slaves[b.slave]
    cdef uint8_t good = 1
    cdef uint32_t f
    for f in range(row.field_first, <uint32_t>row.field_first + row.field_count):
        field = &e.program.fields[f]
        if field.flags & FIELD_IDENTITY and not field.min <= regs[field.offset] * field.scale + field.offset_value <= field.max:
            good = 0
    s.unproved += b.proved
    s.unproved -= good
    b.proved = good
    if s.unproved == 0:
        s.was_proved = 1
    e.mail.stats.slaves[b.slave].identity_mismatch = not good or (s.unproved and e.mail.stats.slaves[b.slave].identity_mismatch)
