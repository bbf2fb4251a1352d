"""A Modbus RTU engine at its beginning: blocks, commands and slaves of its port, taken from the program's rows."""

from libc.string cimport memset

from tidegate.ext.abi.program cimport (
    COMMAND_CONST, FIELD_IDENTITY, POLL_ONCE, PORT_MBAP, PORT_RTU_TCP, block_row_t, command_row_t, port_row_t,
    port_speaks_pylon, slave_row_t,
)
from tidegate.ext.bus.registers cimport command_encode
from tidegate.ext.bus.rtu cimport RTU_GATEWAY_SLACK_NS, RTU_SLACK_NS, rtu_block_t, rtu_command_t
from tidegate.ext.bus.rtu_finish cimport period_of
from tidegate.ext.bus.rtu_frame cimport LEAD_IN_MAX, read_reply, rtu_char_ns, rtu_gap_ns

cdef enum:
    PORT_STRIP_ECHO = 1   # bit of port_row_t.flags


cdef void engine_made(rtu_t* e, const program_t* program, int port, port_mail_t* mail, uint64_t t_ns) noexcept nogil:
    cdef const port_row_t* row = &program.ports[port]
    cdef const slave_row_t* slave
    cdef const block_row_t* block
    cdef rtu_block_t* b
    cdef uint32_t s, i
    memset(e, 0, sizeof(rtu_t))
    memset(&mail.stats, 0, sizeof(mail.stats))
    e.program, e.mail, e.port = program, mail, port
    e.char_ns = rtu_char_ns(program, port)
    e.gap_ns = rtu_gap_ns(program, port)
    e.slack_most_ns = RTU_GATEWAY_SLACK_NS if row.transport == PORT_RTU_TCP else RTU_SLACK_NS
    e.slack_ns = e.slack_most_ns
    e.strip_echo = row.flags & PORT_STRIP_ECHO
    e.lead_most = row.lead_in if row.lead_in < LEAD_IN_MAX else LEAD_IN_MAX
    e.numbered = row.transport == PORT_MBAP
    e.pylon = port_speaks_pylon(row)
    e.framed = e.numbered or e.pylon
    if e.framed:
        e.char_ns = e.strip_echo = 0
        e.echo_known = 1
    if e.numbered:
        e.gap_ns = 0
    e.t_free_ns = t_ns + e.gap_ns  # nobody knows what was on the line before
    e.t_line_ns = e.t_start_ns = t_ns
    e.last_row = -1
    e.slave_first = row.slave_first
    e.n_slaves = row.slave_count if row.slave_count < SLAVES_MAX else SLAVES_MAX
    for s in range(e.n_slaves):
        slave = &program.slaves[e.slave_first + s]
        e.slaves[s].expected_ns = 4 * e.char_ns
        e.slaves[s].n_blocks = slave.block_count
        e.slaves[s].alive = slave.block_count == 0  # nothing to ask: its first write will show
        for i in range(slave.block_first, <uint32_t>slave.block_first + slave.block_count):
            if e.n_blocks >= BLOCKS_MAX:
                break
            block = &program.blocks[i]
            b = &e.blocks[e.n_blocks]
            e.n_blocks += 1
            e.n_readable += 1
            b.row, b.slave, b.readback = <uint16_t>i, <uint16_t>s, -1
            b.reply = read_reply(block.function, block.count)
            b.t_due_ns = t_ns
            # The first round: what is read once (scale factors, identity) comes before what needs it.
            b.deadline_ns = t_ns + (0 if block.poll_class == POLL_ONCE else 1 + period_of(block))
            if block.poll_class != POLL_ONCE and period_of(block) > 0:
                b.turn = <uint16_t>e.n_timed
                e.n_timed += 1
            b.identity = has_identity(program, block)
            e.slaves[s].unproved += b.identity
    e.n_commands = mail.command_count if mail.command_count < PORT_COMMANDS_MAX else PORT_COMMANDS_MAX
    init_commands(e)


cdef uint8_t has_identity(const program_t* program, const block_row_t* block) noexcept nogil:
    cdef uint32_t f
    for f in range(block.field_first, <uint32_t>block.field_first + block.field_count):
        if program.fields[f].flags & FIELD_IDENTITY:
            return 1
    return 0


cdef void init_commands(rtu_t* e) noexcept nogil:
    cdef const command_row_t* row
    cdef rtu_command_t* c
    cdef uint32_t i, s
    for i in range(e.n_commands):
        row = &e.program.commands[e.mail.command_first + i]
        c = &e.commands[i]
        c.readback_block = -1
        s = <uint32_t>row.slave - e.slave_first
        if s >= e.n_slaves or row.count > COMMAND_REGS_MAX:
            continue
        c.slave = <uint16_t>s
        e.live[e.n_live] = <uint16_t>i
        e.n_live += 1
        if row.kind == COMMAND_CONST:
            e.slaves[s].consts_left += 1
            # Seq 1 is ours; slots count in twos. With a scale point the loop has to say the value.
            if command_encode(e.program, row, row.value, NULL, c.want.regs) > 0:
                c.want.seq = 1
                c.want.valid = 1
        find_readback(e, i)


cdef void find_readback(rtu_t* e, uint32_t command) noexcept nogil:
    """The block word in which the written registers can be seen again."""
    cdef const command_row_t* row = &e.program.commands[e.mail.command_first + command]
    cdef const block_row_t* block
    cdef uint32_t i, f
    if row.readback_point < 0:
        return
    for i in range(e.n_blocks):
        block = &e.program.blocks[e.blocks[i].row]
        if e.blocks[i].slave != e.commands[command].slave or block.function <= 2 or e.blocks[i].readback >= 0:
            continue
        for f in range(block.field_first, <uint32_t>block.field_first + block.field_count):
            if e.program.fields[f].point == row.readback_point and e.program.fields[f].type == row.type:
                e.blocks[i].readback = <int16_t>command
                e.blocks[i].readback_offset = e.program.fields[f].offset
                e.commands[command].readback_block = <int>i
                return
