"""The end of a Modbus RTU transaction: what was read handed over and compared, when it is asked again, what was written."""

from libc.string cimport memcmp, memcpy

from tidegate.ext.abi.port_mail cimport (
    DONE_CRC, DONE_ECHO, DONE_EXCEPTION, DONE_MISMATCH, DONE_OK, DONE_SHORT, DONE_TIMEOUT, done_t, port_done_begin,
    port_done_commit, port_stats_t,
)
from tidegate.ext.abi.program cimport (
    BLOCK_REGS_MAX, COMMAND_CONST, COMMAND_FLASH, COMMAND_SETPOINT_W, COMMAND_STOP, POLL_ONCE, block_row_t, command_row_t,
)
from tidegate.ext.bus.registers cimport block_believable
from tidegate.ext.bus.rtu cimport (
    RTU_ASKED, RTU_BLOCK, RTU_COMMAND, RTU_DRIFT, RTU_IDLE, RTU_LEARN, RTU_MS, RTU_ONCE_NS, RTU_REFUSED_NS,
    broadcast, later, reply_at, rtu_block_t, rtu_command_t, rtu_slave_t, sooner,
)
from tidegate.ext.bus.rtu_slave cimport check_identity, gateway_spoke, slave_ended


cdef void transaction_ended(rtu_t* e, int status, uint64_t t_ns) noexcept nogil:
    cdef uint32_t i
    cdef bint answered = status == DONE_OK or (status == DONE_EXCEPTION and not gateway_spoke(e))
    e.state = RTU_IDLE
    e.t_free_ns = e.t_line_ns + e.gap_ns
    if broadcast(e):  # time for every device to act on a broadcast
        e.t_free_ns = e.t_line_ns + later(e.gap_ns, 100 * RTU_MS)
    slave_ended(e, status, answered, t_ns)
    e.last.function, e.last.reply = e.request.function, e.request.reply
    e.last_unit = e.request.unit
    e.last_exception = status == DONE_EXCEPTION
    e.last_row = e.blocks[e.request.index].row if e.request.purpose == RTU_BLOCK else -1
    count_end(&e.mail.stats, status)
    learn_slack(e, status)
    if e.guard > 0 and answered:
        e.guard -= 1
    if e.request.function != 5 and e.request.function != 6 and not broadcast(e):
        if status == DONE_OK:
            e.echo_known = 1
        elif status == DONE_ECHO:
            e.echo_known = 0
    if e.request.purpose == RTU_BLOCK:
        end_block(e, status, t_ns)
    elif e.request.purpose == RTU_COMMAND:
        end_command(e, status, t_ns)
    elif e.request.purpose == RTU_ASKED:
        end_asked(e, status)
    if e.request.purpose == RTU_COMMAND:
        e.writes_ns += e.t_free_ns - sooner(e.t_free_ns, e.t_sent_ns - e.request.length * e.char_ns)
    elif e.request.purpose != RTU_ASKED:
        e.writes_ns = 0
        for i in range(e.n_commands):
            e.commands[i].since_poll = 0
            if e.commands[i].slave == e.request.slave:
                e.commands[i].zeros = 0


cdef void learn_slack(rtu_t* e, int status) noexcept nogil:
    """A pause that this line has never had inside a reply ends it: the less may be glued to half a reply, the better."""
    if status == DONE_SHORT:
        e.pause_worst_ns = sooner(e.pause_worst_ns + e.pause_worst_ns // 2 + RTU_MS, e.slack_most_ns)
    elif status == DONE_OK and not broadcast(e):
        e.pause_worst_ns = later(e.pause_ns, e.pause_worst_ns - e.pause_worst_ns // 64)
        e.wholes += 1 if e.wholes < RTU_LEARN else 0
    if e.wholes == RTU_LEARN:
        e.slack_ns = sooner(2 * e.pause_worst_ns + 2 * RTU_MS, e.slack_most_ns)


cdef void count_end(port_stats_t* stats, int status) noexcept nogil:
    if status == DONE_OK:
        stats.ok += 1
        return
    stats.flushes += status != DONE_EXCEPTION
    if status == DONE_TIMEOUT:
        stats.timeouts += 1
    elif status == DONE_CRC:
        stats.crc_errors += 1
    elif status == DONE_EXCEPTION:
        stats.exceptions += 1
    elif status == DONE_MISMATCH:
        stats.mismatches += 1
    elif status == DONE_SHORT:
        stats.shorts += 1
    else:
        stats.echoes += 1


cdef void end_block(rtu_t* e, int status, uint64_t t_ns) noexcept nogil:
    cdef rtu_block_t* b = &e.blocks[e.request.index]
    cdef const block_row_t* row = &e.program.blocks[b.row]
    cdef const uint8_t* p = reply_at(e)
    cdef uint64_t period = period_of(row) - period_of(row) // RTU_DRIFT, took
    cdef uint16_t[BLOCK_REGS_MAX] regs
    cdef uint32_t i, words = 0
    if status == DONE_OK:
        if row.function <= 2:
            words = (row.count + 15) // 16
            for i in range(words):
                regs[i] = p[3 + 2 * i]
                if 2 * i + 1 < p[2]:
                    regs[i] |= <uint16_t>(p[4 + 2 * i] << 8)
        else:
            words = row.count
            for i in range(words):
                regs[i] = <uint16_t>(p[3 + 2 * i] << 8 | p[4 + 2 * i])
    hand_over(e, b.row, status, regs, words, t_ns)
    if status == DONE_OK:
        e.mail.stats.reads += 1
        b.tries = 0
        if b.readback >= 0:
            compare_readback(e, b, regs, words)
        if b.identity:
            check_identity(e, b, regs)
    if row.poll_class == POLL_ONCE and status == DONE_OK:
        # A scale factor that came as nonsense would keep every setpoint back until the slave falls silent and returns.
        if (b.proved or not b.identity) and block_believable(e.program, row, regs):
            b.t_due_ns = t_ns + RTU_ONCE_NS
            b.deadline_ns = b.t_due_ns + 1000 * RTU_MS
        else:
            b.t_due_ns = b.deadline_ns = t_ns + 1000 * RTU_MS
        return
    if status == DONE_EXCEPTION and not gateway_spoke(e):
        # 5 and 6: busy, soon again. The others mean that the map is wrong, and asking more often helps nobody.
        b.t_due_ns = t_ns + later(period, 20 * RTU_MS if p[2] == 5 or p[2] == 6 else RTU_REFUSED_NS)
    elif status != DONE_OK and b.tries == 0:
        b.tries = 1  # one retry in the same slot
        b.t_due_ns = t_ns
        return
    elif status != DONE_OK and row.poll_class == POLL_ONCE:
        b.t_due_ns = t_ns + 100 * RTU_MS
    else:
        # On the grid of its period; what was missed altogether is not made up for.
        b.t_due_ns += period
        if period > 0 and not b.settled:
            # All were due at start. From now on each has a part of the period to itself, or slow polls that are due
            # together would keep a fast one waiting for all of them.
            b.settled = 1
            b.t_due_ns = e.t_start_ns + period * (b.turn + 1) // e.n_timed
        if period == 0 or b.t_due_ns > t_ns + period:
            b.t_due_ns = t_ns
        elif b.t_due_ns + period < t_ns:
            b.t_due_ns += (t_ns - b.t_due_ns) // period * period
    if status != DONE_OK:
        b.tries = 0
    # A slave that takes long pays for it with its own next turns.
    took = t_ns - e.t_sent_ns if t_ns > e.t_sent_ns else 0
    if e.n_slaves > 1 and took > 100 * RTU_MS + e.request.reply * e.char_ns:
        b.t_due_ns = later(b.t_due_ns, t_ns + 3 * took)
    b.deadline_ns = b.t_due_ns + period


cdef void hand_over(rtu_t* e, uint32_t row, int status, const uint16_t* regs, uint32_t words, uint64_t t_ns) noexcept nogil:
    cdef done_t* done = port_done_begin(e.mail)
    if done == NULL:
        return
    done.block, done.status, done.count = <uint16_t>row, <uint16_t>status, <uint16_t>words
    done.exception = reply_at(e)[2] if status == DONE_EXCEPTION else 0
    done.t_sample_ns = e.t_first_ns
    done.t_done_ns = t_ns
    memcpy(done.regs, regs, words * sizeof(uint16_t))
    port_done_commit(e.mail)


cdef void compare_readback(rtu_t* e, rtu_block_t* b, const uint16_t* regs, uint32_t words) noexcept nogil:
    """The device must hold what was written last. Seen wrong twice: write again."""
    cdef rtu_command_t* c = &e.commands[b.readback]
    cdef const command_row_t* row = &e.program.commands[e.mail.command_first + <uint32_t>b.readback]
    if <uint32_t>b.readback_offset + row.count > words:
        return
    if row.flags & COMMAND_FLASH and not c.known:
        # What a wearing register holds already need not be written.
        memcpy(c.written, regs + b.readback_offset, row.count * sizeof(uint16_t))
        c.known = 1
        if c.want.valid and memcmp(c.written, c.want.regs, row.count * sizeof(uint16_t)) == 0:
            mark_written(e, <uint32_t>b.readback, c.want.seq)
        return
    if not c.known or c.want.seq != c.written_seq:
        return
    if memcmp(c.written, regs + b.readback_offset, row.count * sizeof(uint16_t)) == 0:
        c.readback_tries = 0
        return
    e.mail.stats.readback_mismatches += 1
    c.readback_tries += 1
    if c.readback_tries >= 2:
        c.readback_tries = 0
        c.known = 0
        c.written_seq = 0


cdef void mark_written(rtu_t* e, uint32_t index, uint64_t seq) noexcept nogil:
    """The device holds what this seq asked for."""
    cdef rtu_command_t* c = &e.commands[index]
    cdef rtu_slave_t* s = &e.slaves[c.slave]
    if e.program.commands[e.mail.command_first + index].kind == COMMAND_CONST:
        if c.written_seq == 0 and s.consts_left > 0:
            s.consts_left -= 1
    c.written_seq = seq
    e.mail.stats.written_seq[index] = seq
    e.mail.stats.refusals[index] = 0


cdef void end_command(rtu_t* e, int status, uint64_t t_ns) noexcept nogil:
    cdef uint32_t i, index = e.request.index
    cdef rtu_command_t* c = &e.commands[index]
    cdef const command_row_t* row = &e.program.commands[e.mail.command_first + index]
    cdef rtu_slave_t* s = &e.slaves[c.slave]
    cdef const uint8_t* p = reply_at(e)
    cdef uint64_t pause
    if status == DONE_OK and row.function == 23:  # its reply is the read-back
        for i in range(row.count):
            if <uint16_t>(p[3 + 2 * i] << 8 | p[4 + 2 * i]) != c.want.regs[i]:
                e.mail.stats.readback_mismatches += 1
                status = DONE_MISMATCH
                break
    if status == DONE_OK:
        e.mail.stats.writes += 1
        # A function 16 acknowledgement does not name the value: it may be an older write's. Then write again once the
        # device has been seen in step, or at once where nothing can be read.
        if row.function >= 15 and not e.in_step and (c.twice != 1 or (s.n_blocks > 0 and not e.draining)):
            c.twice = 1
            c.t_retry_ns = s.t_open_ns
            return
        c.twice = 0
        memcpy(c.written, c.want.regs, sizeof(c.written))
        c.known = 1
        c.t_written_ns = e.t_sent_ns
        mark_written(e, index, e.request.seq)
        e.mail.stats.written_t_ns[index] = e.t_sent_ns
        if row.kind == COMMAND_SETPOINT_W or row.kind == COMMAND_STOP:
            e.mail.stats.t_last_write_end_ns = e.t_sent_ns
        if s.consts_left == 0:
            s.const_refused = 0
        if e.t_sent_ns < s.t_hold_ns and row.kind != COMMAND_CONST:
            # A stop goes at once; a device that is changing its mode may have acknowledged and forgotten it.
            c.written_seq = 0
            c.t_retry_ns = s.t_hold_ns
        s.t_hold_ns = later(s.t_hold_ns, e.t_sent_ns + row.pause_ns if row.pause_ns else 0)
        return
    c.known = 0
    e.mail.stats.refusals[index] += 1
    c.twice = 0
    pause = e.mail.stats.refusals[index] - 1
    pause = (10 * RTU_MS) << (pause if pause < 7 else 7) if pause > 0 else 0
    if status == DONE_EXCEPTION:
        pause = later(pause, 20 * RTU_MS)
        if row.kind == COMMAND_CONST:
            s.const_refused = 1
            pause = 1000 * RTU_MS
    c.t_retry_ns = t_ns + pause


cdef void end_asked(rtu_t* e, int status) noexcept nogil:
    e.asked = 3
    e.answer_status = status
    e.answer_length = 0
    if status == DONE_OK or status == DONE_EXCEPTION:
        e.answer_length = (5 if status == DONE_EXCEPTION else e.request.reply) - 2
        memcpy(e.asked_frame, reply_at(e), e.answer_length)
