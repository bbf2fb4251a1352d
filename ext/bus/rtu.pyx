"""Modbus RTU master as a pure state machine: bytes and times in, requests and finished blocks out.

One request is in flight. A reply is believed only if unit, function, length, CRC and, where the map has one, the
signature are those of the request, and if no other reply that may still be under way could look the same:

- two requests in a row to one unit never have equal reply lengths unless they are the same block or a signature
  tells them apart; where the plan leaves no choice, a short read of other length goes between them;
- after a request failed, its slave gets no request whose reply looks like the one that is missing until another one
  has been answered, and none at all until the slowest reply seen would have come.

Order on the line: urgent commands, constants (after start and after each silence of a slave, before its setpoints),
commands, polls by deadline. Nothing starves: a command that was written yields to one poll, so that a value that changes
each cycle cannot keep back the readings it is made from (a new zero does not yield), and a poll that was passed over for
too long goes before all others.
"""

from libc.string cimport memcmp, memcpy

from tidegate.ext.abi.port_mail cimport (
    DONE_ECHO, DONE_MISMATCH, DONE_OK, DONE_TIMEOUT, RTU_DEAD, URGENT_ZERO, command_get,
)
from tidegate.ext.abi.program cimport (
    COMMAND_CONST, COMMAND_FLASH, COMMAND_SETPOINT_W, COMMAND_STOP, block_row_t,
)
from tidegate.ext.bus.pylon cimport PYLON_VERSION
from tidegate.ext.bus.rtu_finish cimport period_of, transaction_ended
from tidegate.ext.bus.rtu_frame cimport (
    PENDING, LEAD_IN_MAX, crc_append, judge, judge_framed, noise, overdue, predicted, put_word, read_reply,
)
from tidegate.ext.bus.rtu_slave cimport count_foreign_bytes, note_foreign_frame, note_stray_bytes, shape_barred, slave_of, timeout_of
from tidegate.ext.bus.rtu_start cimport engine_made

cdef enum:
    SEPARATORS = RTU_BARS + 3  # shapes that a separator may have
    PIECE = 16            # bytes that a UART's FIFO may hand over at once


cdef void rtu_init(rtu_t* e, const program_t* program, int port, port_mail_t* mail, uint64_t t_ns) noexcept nogil:
    engine_made(e, program, port, mail, t_ns)
    plan(e)


# ---------------------------------------------------------------- what to do now

cdef void rtu_next(rtu_t* e, uint64_t t_ns, rtu_action_t* action) noexcept nogil:
    cdef uint64_t until = RTU_NEVER
    action.what, action.idle, action.listen, action.want = RTU_WAIT, 0, 0, 0
    if e.state == RTU_RECEIVING:
        if t_ns < e.t_deadline_ns:
            action.what = RTU_RECV
            action.want = e.request.reply - e.rx_len if e.request.reply > e.rx_len else 1
            if t_ns < e.t_wake_ns:
                action.until_ns = sooner(e.t_wake_ns, e.t_deadline_ns)
            else:
                action.until_ns = e.t_deadline_ns
                action.listen = 1
                e.listened = 1
            return
        finish(e, overdue(e), t_ns)
    if t_ns < e.t_free_ns:
        action.until_ns = e.t_free_ns
    elif choose(e, t_ns, &until):
        action.what = RTU_SEND
        action.until_ns = t_ns
        action.frame = e.tx
        action.length = e.request.length
    else:
        action.until_ns = until
        action.idle = 1


cdef inline bint choose(rtu_t* e, uint64_t t_ns, uint64_t* until) noexcept nogil:
    """Build the next request; 0 when there is none before `until`."""
    cdef bint poll_due = e.t_poll_ns <= t_ns and not e.draining
    cdef uint64_t hold = RTU_NEVER
    # A line that is kept silent for a poll is as good as one whose poll is due: a write would begin the silence anew.
    cdef int index = choose_command(e, t_ns, poll_due or e.holding, until)
    if index >= 0:
        build_command(e, <uint32_t>index)
        return True
    if e.asked == 1 and not ((poll_due or e.holding) and e.tool_had):
        build_asked(e)
        return True
    if poll_due:
        index = choose_block(e, t_ns, &hold)
        if index >= 0:
            e.holding = 0
            build_block(e, <uint32_t>index)
            return True
        plan(e)
        e.holding = hold != RTU_NEVER
        if e.holding:
            e.t_poll_ns = hold
        elif e.asked == 1:
            build_asked(e)
            return True
    if not e.draining:
        until[0] = sooner(until[0], later(e.t_poll_ns, t_ns + 1))
    return False


cdef inline uint64_t open_ns(const rtu_t* e, const rtu_slave_t* s) noexcept nogil:
    """When the device itself bears the next request."""
    return later(s.t_ready_ns, e.t_line_ns + e.gap_ns + s.gap_extra_ns)


cdef inline uint64_t poll_open_ns(const rtu_t* e, const rtu_slave_t* s) noexcept nogil:
    """When a poll of it may go as far as its own past is concerned: quarantine, back-off, the turn of the silent ones."""
    return later(s.t_open_ns, e.t_probe_ns) if s.silent_run >= RTU_DEAD else s.t_open_ns


cdef int choose_command(rtu_t* e, uint64_t t_ns, bint poll_due, uint64_t* until) noexcept nogil:
    """The command that goes now: a stop before all, then what is urgent; the one that was sent longest ago among equals."""
    cdef const command_row_t* row
    cdef rtu_command_t* c
    cdef rtu_slave_t* s
    cdef uint64_t t_open
    cdef uint32_t k, i, rank, best_rank = 4, ordered = SLAVES_MAX
    cdef int best = -1
    cdef bint stops
    for k in range(e.n_live):
        i = e.live[k]
        c = &e.commands[i]
        if e.mail.commands[i].seq != c.want.seq:
            take_slot(e, i)
        row = &e.program.commands[e.mail.command_first + i]
        if row.kind == COMMAND_CONST and c.written_seq == 0:
            # Mode words have an order: one that was not taken keeps those behind it back.
            if c.slave == ordered:
                continue
            ordered = c.slave
        if c.want.seq == c.written_seq or not c.want.valid:
            continue
        s = &e.slaves[c.slave]
        if not may_write(e, c, row, s, t_ns):
            continue
        stops = row.kind != COMMAND_CONST and at_zero(c, row) and c.zeros == 0 and not c.twice
        if not stops and ((poll_due and yields(e, c)) or hungry(e, c.slave, t_ns)):
            continue
        t_open = later(c.t_retry_ns, open_ns(e, s))
        if not (c.want.urgent and at_zero(c, row)):
            t_open = later(t_open, s.t_hold_ns)
        if s.n_blocks == 0 and not s.alive:
            t_open = later(t_open, s.t_open_ns)
        if t_open > t_ns:
            until[0] = sooner(until[0], t_open)
            continue
        if stops and c.want.urgent:
            rank = 0
        elif row.kind == COMMAND_CONST or c.want.urgent or t_ns > c.t_sent_ns + 1000 * RTU_MS:
            rank = 1  # an urgent one may not keep the others back for ever
        else:
            rank = 2
        if best < 0 or rank < best_rank or (rank == best_rank and c.t_sent_ns < e.commands[best].t_sent_ns):
            best, best_rank = <int>i, rank
    return best


cdef inline bint yields(const rtu_t* e, const rtu_command_t* c) noexcept nogil:
    """Whether a poll that is due goes first: each command once between two polls, all of them for so long.

    A value that changes each cycle must not push out the readings that it is made from, a device that refuses its
    constants those of the others; one whose acknowledgement was doubtful waits for a reading that shows it in step.
    """
    return c.since_poll > 0 or e.writes_ns >= RTU_WRITES_NS


cdef bint hungry(const rtu_t* e, uint32_t slave, uint64_t t_ns) noexcept nogil:
    """Whether this slave's own polls wait for too long: each write to it may begin a pause that holds them up."""
    cdef const rtu_block_t* b
    cdef uint32_t i
    if e.draining:
        return False
    for i in range(e.n_blocks):
        b = &e.blocks[i]
        if b.slave == slave and later(b.t_due_ns, b.t_asked_ns) + period_of(b_row(e, b)) + RTU_PATIENCE_NS < t_ns:
            return True
    return False


cdef bint may_write(const rtu_t* e, const rtu_command_t* c, const command_row_t* row, const rtu_slave_t* s,
                    uint64_t t_ns) noexcept nogil:
    # Stops may go where others wait.
    cdef bint bold = c.want.urgent and (row.kind == COMMAND_STOP or (row.kind == COMMAND_SETPOINT_W and at_zero(c, row)))
    # Another device may sit at this address: no register of it is ours to write. One that was the right one is stopped.
    if s.unproved and not (bold and s.was_proved and c.tried_seq != c.want.seq):
        return False
    if not s.alive and s.n_blocks > 0:
        # A silent slave is found again by its polls. A stop is tried once all the same.
        if not (bold and (s.ever or e.draining) and c.tried_seq != c.want.seq):
            return False
    elif s.consts_left > 0 and row.kind != COMMAND_CONST and not (bold and (s.const_refused or e.draining)):
        return False
    # The echo of a function 5 or 6 request looks like its acknowledgement: first see a read come back clean.
    if (row.function == 5 or row.function == 6) and not e.echo_known and e.n_readable > 0 and not e.draining:
        return False
    # The loop repeats what the device wants repeated. A slot that it left alone is no longer its will.
    if row.kind != COMMAND_CONST and row.resend_ns > 0 and t_ns > c.want.t_ns + 2 * row.resend_ns + 1000 * RTU_MS:
        return False
    return True


cdef inline bint at_zero(const rtu_command_t* c, const command_row_t* row) noexcept nogil:
    cdef uint32_t i
    if c.want.urgent == URGENT_ZERO:
        return True
    for i in range(row.count):
        if c.want.regs[i] != 0:
            return False
    return True


cdef void take_slot(rtu_t* e, uint32_t i) noexcept nogil:
    """Copy the slot's newest value; a repeat of what a wearing register already holds is not written."""
    cdef rtu_command_t* c = &e.commands[i]
    cdef const command_row_t* row = &e.program.commands[e.mail.command_first + i]
    cdef command_slot_t copy
    if e.mail.commands[i].seq == 0 or not command_get(&e.mail.commands[i], &copy):
        return
    if c.want.valid and not copy.valid:
        c.known = 0
    c.want = copy
    if not c.known or memcmp(c.written, copy.regs, row.count * sizeof(uint16_t)) != 0:
        return
    if row.kind == COMMAND_CONST or row.flags & COMMAND_FLASH:
        if row.flags & COMMAND_FLASH:
            e.mail.stats.flash_held += 1
        c.written_seq = copy.seq
        e.mail.stats.written_seq[i] = copy.seq


cdef int choose_block(rtu_t* e, uint64_t t_ns, uint64_t* hold) noexcept nogil:
    """The open block with the earliest deadline; one that cannot be mistaken goes before one that can.

    hold : until when the line is left silent for a slave that needs more of it than the others. Its block is the one that
    is due first; on a line that is asked without a pause its silence would never come by itself.

    Progress: a block that has been open for longer than its period and RTU_PATIENCE_NS goes before all others, the one
    that has waited longest first, whatever its reply looks like. Its wait begins again with each request for it, so
    each of the others goes before it once at most: `config/poll_plan.py` makes the bound of that.
    """
    cdef rtu_block_t* b
    cdef rtu_slave_t* s
    cdef uint32_t i
    cdef int best = -1, best_twin = -1, longest = -1
    cdef uint64_t waits = RTU_NEVER, waits_hold = 0, silent, since, longest_since = RTU_NEVER
    for i in range(e.n_blocks):
        b = &e.blocks[i]
        s = &e.slaves[b.slave]
        if b.t_due_ns > t_ns or poll_open_ns(e, s) > t_ns:
            continue
        silent = open_ns(e, s)
        if silent > t_ns and (s.gap_extra_ns == 0 or s.t_ready_ns >= silent):
            continue
        since = later(later(b.t_due_ns, b.t_asked_ns), s.t_open_ns) + period_of(b_row(e, b))
        if since + RTU_PATIENCE_NS < t_ns and since < longest_since:
            longest, longest_since = <int>i, since
        if silent > t_ns:
            if b.deadline_ns < waits:
                waits, waits_hold = b.deadline_ns, silent
        elif ambiguous(e, b):
            if best_twin < 0 or b.deadline_ns < e.blocks[best_twin].deadline_ns:
                best_twin = <int>i
        elif best < 0 or b.deadline_ns < e.blocks[best].deadline_ns:
            best = <int>i
    if longest >= 0:
        silent = open_ns(e, &e.slaves[e.blocks[longest].slave])
        if silent > t_ns:
            hold[0] = silent
            return -1
        return longest
    if waits != RTU_NEVER and (best < 0 or waits < e.blocks[best].deadline_ns) and (
            best_twin < 0 or waits < e.blocks[best_twin].deadline_ns):
        hold[0] = waits_hold
        return -1
    # The block that was asked last may not go round a twin for ever: then the twin gets its separator.
    if best < 0 or (best_twin >= 0 and <int>e.blocks[best].row == e.last_row):
        return best_twin if best_twin >= 0 else best
    return best


cdef inline const block_row_t* b_row(const rtu_t* e, const rtu_block_t* b) noexcept nogil:
    return &e.program.blocks[b.row]


cdef bint ambiguous(const rtu_t* e, const rtu_block_t* b) noexcept nogil:
    """Could another reply that is or may be under way be taken for this block's?"""
    cdef const block_row_t* row = &e.program.blocks[b.row]
    if e.numbered:  # a transaction id tells them apart
        return False
    if shape_barred(&e.slaves[b.slave], row.function, b.reply):
        return True
    return (
        e.last.function == row.function
        and e.last.reply == b.reply
        and e.last_unit == e.program.slaves[row.slave].unit_id
        and (e.last_row != <int>b.row or e.guard > 0)
        and (not row.signature & 1 or e.last_row == <int>b.row)
    )


# ---------------------------------------------------------------- requests

cdef void begin(rtu_t* e, int purpose, uint32_t index, uint32_t slave, uint32_t unit, uint32_t function) noexcept nogil:
    e.request.purpose, e.request.index, e.request.slave, e.request.seq = purpose, index, slave, 0
    e.request.unit, e.request.function = <uint8_t>unit, <uint8_t>function
    e.tx[0], e.tx[1] = <uint8_t>unit, <uint8_t>function


cdef void build_block(rtu_t* e, uint32_t index) noexcept nogil:
    cdef rtu_block_t* b = &e.blocks[index]
    cdef const block_row_t* row = &e.program.blocks[b.row]
    cdef uint32_t count = row.count, address = row.address, n, reply
    cdef int purpose = RTU_BLOCK
    if ambiguous(e, b):
        purpose = RTU_SEPARATOR
        # Even counts first: some meters refuse half a float. One of these is free: at most 12 bars, the last and its own.
        for n in range(<uint32_t>SEPARATORS):
            count = (2 * n + 2 if n < 6 else 2 * n - 11) * (8 if row.function <= 2 else 1)
            reply = read_reply(row.function, count)
            if reply == b.reply or shape_barred(&e.slaves[b.slave], row.function, reply):
                continue
            if e.last.function != row.function or e.last.reply != reply:
                break
        if e.pylon:  # any other command's answer has another length
            address = PYLON_VERSION << 8
        if address + count > 65536:
            address = 65536 - count
    begin(e, purpose, index, b.slave, e.program.slaves[row.slave].unit_id, row.function)
    put_word(e.tx + 2, address)
    put_word(e.tx + 4, count)
    e.request.reply = read_reply(row.function, count)
    e.request.length = <uint16_t>(6 if e.framed else crc_append(e.tx, 6))


cdef void build_command(rtu_t* e, uint32_t index) noexcept nogil:
    cdef rtu_command_t* c = &e.commands[index]
    cdef const command_row_t* row = &e.program.commands[e.mail.command_first + index]
    cdef uint32_t count = row.count, i, at = 6
    begin(e, RTU_COMMAND, index, c.slave, e.program.slaves[row.slave].unit_id, row.function)
    e.request.seq = c.want.seq
    e.request.reply = 8
    put_word(e.tx + 2, row.address)
    if row.function == 5:
        put_word(e.tx + 4, 0xFF00u if c.want.regs[0] else 0u)
    elif row.function == 6:
        put_word(e.tx + 4, c.want.regs[0])
    elif row.function == 22:  # and-mask, or-mask
        e.request.reply = 10
        put_word(e.tx + 4, c.want.regs[0])
        put_word(e.tx + 6, c.want.regs[1])
        at = 8
    elif row.function == 15:
        put_word(e.tx + 4, count)
        e.tx[6] = 1
        e.tx[7] = <uint8_t>c.want.regs[0]
        at = 8
    else:
        if row.function == 23:  # written, and what the device then holds read back in the same breath
            put_word(e.tx + 4, count)
            put_word(e.tx + 6, row.address)
            at = 10
            e.request.reply = read_reply(23, count)
        put_word(e.tx + at - 2, count)
        e.tx[at] = <uint8_t>(2 * count)
        at += 1
        for i in range(count):
            put_word(e.tx + at, c.want.regs[i])
            at += 2
    e.request.length = <uint16_t>(at if e.framed else crc_append(e.tx, at))


cdef int rtu_ask(rtu_t* e, const uint8_t* frame, uint32_t count) noexcept nogil:
    if e.asked == 1 or e.asked == 2 or count < 2 or count > 254:
        return 0
    if predicted(frame, count) == 0 and not (frame[1] == 43 and count == 5 and frame[2] == 14):
        return 0
    memcpy(e.asked_frame, frame, count)
    e.asked_length = count
    e.asked = 1
    return 1


cdef void build_asked(rtu_t* e) noexcept nogil:
    begin(e, RTU_ASKED, 0, slave_of(e, e.asked_frame[0]), e.asked_frame[0], e.asked_frame[1])
    memcpy(e.tx, e.asked_frame, e.asked_length)
    e.request.reply = predicted(e.tx, e.asked_length)
    e.request.length = <uint16_t>(e.asked_length if e.framed else crc_append(e.tx, e.asked_length))


# ---------------------------------------------------------------- in flight

cdef void rtu_sent(rtu_t* e, uint64_t t_end_ns) noexcept nogil:
    cdef uint64_t wire = e.request.length * e.char_ns, reply
    cdef uint64_t timeout = timeout_of(e, e.request.slave)
    cdef uint64_t expected = 4 * e.char_ns
    cdef rtu_command_t* c
    if e.request.length == 0:
        return
    if e.request.slave < e.n_slaves:
        expected = sooner(e.slaves[e.request.slave].expected_ns, timeout)
    reply = (e.request.reply if e.request.reply > 0 else 16) * e.char_ns
    e.state = RTU_RECEIVING
    e.rx_len = e.parts = e.listened = e.lead = e.parted = 0
    e.t_first_ns = e.pause_ns = 0
    e.t_sent_ns = e.t_line_ns = t_end_ns
    e.t_wake_ns = t_end_ns + expected + reply
    if e.framed or (e.request.slave < e.n_slaves and e.slaves[e.request.slave].listens):
        e.t_wake_ns = t_end_ns  # a socket says itself when there is something
    e.t_deadline_ns = t_end_ns + timeout + reply
    e.t_hard_ns = e.t_deadline_ns + e.slack_ns
    e.mail.stats.transactions += 1
    e.mail.stats.wire_busy_ns += wire
    if e.request.slave < e.n_slaves:
        e.mail.stats.slaves[e.request.slave].transactions += 1
        e.mail.stats.slaves[e.request.slave].wire_busy_ns += wire
    e.mail.stats.silence_ns += e.gap_ns
    if e.request.purpose == RTU_COMMAND:
        c = &e.commands[e.request.index]
        c.since_poll += 1
        c.tried_seq = e.request.seq
        c.t_sent_ns = t_end_ns
        if at_zero(c, &e.program.commands[e.mail.command_first + e.request.index]):
            c.zeros += 1
        else:
            c.zeros = 0  # the zero that ends this value waits for nothing
    elif e.request.purpose != RTU_ASKED:
        e.blocks[e.request.index].t_asked_ns = t_end_ns
        e.tool_had = 0
    if e.request.purpose == RTU_SEPARATOR:
        e.mail.stats.separators += 1
    elif e.request.purpose == RTU_ASKED:
        e.asked = 2
        e.tool_had = 1
    if broadcast(e):
        finish(e, DONE_OK, t_end_ns)


cdef void rtu_bytes(rtu_t* e, const uint8_t* bytes, uint32_t count, uint64_t t_ns) noexcept nogil:
    cdef uint32_t taken, skip = e.request.length if e.strip_echo else 0, had, new_bytes, missing, lead
    cdef int status
    if count == 0:
        return
    e.mail.stats.wire_busy_ns += count * e.char_ns
    e.t_line_ns = later(e.t_line_ns, t_ns)
    if e.state != RTU_RECEIVING:
        count_foreign_bytes(e, slave_of(e, bytes[0]), count)
        note_foreign_frame(e, bytes, count)
        e.t_free_ns = later(e.t_free_ns, t_ns + e.gap_ns)
        plan(e)
        return
    if e.request.slave < e.n_slaves:
        e.mail.stats.slaves[e.request.slave].wire_busy_ns += count * e.char_ns
    had = e.rx_len
    if had > skip and t_ns - sooner(t_ns, e.t_piece_ns + count * e.char_ns) >= e.char_ns * 7 // 2:
        # A frame has no such silence in it, but an adapter may make one.
        if had - skip <= e.lead + LEAD_IN_MAX:
            e.parted = had - skip
        if noise(e):
            part_lead(e)
    skip += e.lead
    if had > skip:
        e.pause_ns = later(e.pause_ns, t_ns - sooner(t_ns, e.t_piece_ns + count * e.char_ns))
    e.t_piece_ns = t_ns
    taken = count if count <= RTU_RX_MAX - had else RTU_RX_MAX - had
    memcpy(e.rx + had, bytes, taken)
    e.rx_len += taken
    e.parts += 1
    if e.rx_len > skip and e.t_first_ns == 0:
        # The piece ended now, so its first byte was on the wire that much earlier.
        new_bytes = e.rx_len - (skip if had < skip else had)
        # Nor before the request's end, nor in the future where the line is no wire (a pty, a network gateway).
        e.t_first_ns = sooner(later(e.t_sent_ns, t_ns - sooner(t_ns, new_bytes * e.char_ns)), t_ns)
    status = judge(e)
    if status == PENDING and e.rx_len >= RTU_RX_MAX:
        status = DONE_MISMATCH
    if status != PENDING:
        count_foreign_bytes(e, e.request.slave, count - taken)
        if status == DONE_MISMATCH or status == DONE_ECHO:
            new_bytes = e.rx_len - skip if e.rx_len > skip else 0
            # What it began with may be the rest of one frame, and what follows another.
            for lead in range(sooner(LEAD_IN_MAX + 1, new_bytes)):
                note_foreign_frame(e, reply_at(e) + lead, new_bytes - lead)
        finish(e, status, t_ns)
    elif noise(e):
        e.t_wake_ns = t_ns  # the reply itself has not begun, so its time runs on
    elif e.rx_len > skip:
        missing = e.request.reply + skip - e.rx_len if e.request.reply + skip > e.rx_len else 1
        # Bytes come in pieces, so the rest may be there sooner than its characters take: listen for the last of them.
        e.t_wake_ns = t_ns + (missing - PIECE if missing > PIECE else 0) * e.char_ns
        e.t_deadline_ns = sooner(t_ns + missing * e.char_ns + e.slack_ns, e.t_hard_ns)


cdef void part_lead(rtu_t* e) noexcept nogil:
    """What has come is none of the reply: a line driver that turned round left it."""
    cdef uint32_t count = e.rx_len - <uint32_t>(reply_at(e) - e.rx)
    note_stray_bytes(e, reply_at(e), count)
    e.lead += count
    e.t_first_ns = e.pause_ns = 0
    e.parts = 0


cdef void rtu_frame(rtu_t* e, const uint8_t* frame, uint32_t count, uint64_t t_ns) noexcept nogil:
    if e.state != RTU_RECEIVING:
        count_foreign_bytes(e, slave_of(e, frame[0]), count)
        return
    e.t_line_ns = e.t_first_ns = later(e.t_sent_ns, t_ns)
    e.rx_len = count if count <= RTU_RX_MAX else RTU_RX_MAX
    memcpy(e.rx, frame, e.rx_len)
    e.parts = 1
    finish(e, judge_framed(e), t_ns)


cdef void rtu_again(rtu_t* e) noexcept nogil:
    if e.state == RTU_RECEIVING:  # its block is still due, its command not yet written
        e.state = RTU_IDLE
        if e.request.purpose == RTU_ASKED:
            e.asked = 1
        plan(e)


cdef void rtu_cut(rtu_t* e, uint64_t t_ns) noexcept nogil:
    if e.state == RTU_RECEIVING:
        finish(e, DONE_TIMEOUT, t_ns)


cdef void rtu_spoilt(rtu_t* e, int status, uint64_t t_ns) noexcept nogil:
    if e.state == RTU_RECEIVING:
        finish(e, status, t_ns)


cdef void rtu_joined(rtu_t* e, uint64_t t_ns) noexcept nogil:
    cdef uint32_t i
    for i in range(e.n_slaves):
        # Without transaction ids an answer from before may still come.
        e.slaves[i].t_open_ns = sooner(e.slaves[i].t_open_ns,
                                       0 if e.numbered else t_ns + e.program.slaves[e.slave_first + i].timeout_ns)
    for i in range(e.n_commands):
        e.commands[i].t_retry_ns = e.commands[i].tried_seq = 0
    e.t_free_ns = later(e.t_free_ns, t_ns + e.gap_ns)
    plan(e)


cdef void finish(rtu_t* e, int status, uint64_t t_ns) noexcept nogil:
    transaction_ended(e, status, t_ns)
    plan(e)


cdef void plan(rtu_t* e) noexcept nogil:
    """Keep the time of the next poll, so that a look at an idle port costs nothing."""
    cdef uint64_t earliest = RTU_NEVER, t
    cdef uint32_t i
    cdef const rtu_slave_t* s
    for i in range(e.n_blocks):
        s = &e.slaves[e.blocks[i].slave]
        t = later(later(e.blocks[i].t_due_ns, poll_open_ns(e, s)), open_ns(e, s))
        earliest = sooner(earliest, t)
    e.t_poll_ns = earliest


cdef void rtu_drain(rtu_t* e) noexcept nogil:
    e.draining = 1


cdef int rtu_drained(rtu_t* e) noexcept nogil:
    cdef uint32_t k, i
    cdef int kind
    if e.state != RTU_IDLE:
        return 0
    for k in range(e.n_live):
        i = e.live[k]
        kind = e.program.commands[e.mail.command_first + i].kind
        if kind != COMMAND_SETPOINT_W and kind != COMMAND_STOP:
            continue
        if e.slaves[e.commands[i].slave].unproved and not e.slaves[e.commands[i].slave].was_proved:
            continue  # never known as the device of its map, so it never had a setpoint from here
        if e.mail.commands[i].seq != e.commands[i].want.seq:
            take_slot(e, i)
            if e.mail.commands[i].seq != e.commands[i].want.seq:
                return 0
        if e.commands[i].want.valid and e.commands[i].want.seq != e.commands[i].written_seq:
            return 0
    return 1
