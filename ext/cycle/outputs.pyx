"""Command rows: what the verdict says, as registers in the ports' newest-wins slots."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from tidegate.ext.cycle.core cimport command_memory_t, core_t
from tidegate.ext.safety.safety cimport REACTION_ZERO_SILENT
from tidegate.ext.abi.port_mail cimport URGENT, URGENT_NOT, URGENT_ZERO, command_put, port_mail_t
from tidegate.ext.abi.program cimport (
    COMMAND_CONST, COMMAND_HEARTBEAT, COMMAND_KEEP, COMMAND_REGS_MAX, COMMAND_SETPOINT_W, COMMAND_STOP, COMMAND_TURNS,
    command_row_t,
)
from tidegate.ext.bus.registers cimport command_encode
from tidegate.ext.abi.ring cimport ITEM_WRITTEN, recorder_word


cdef inline int side_of(double value) noexcept nogil:
    return 1 if value > 0.0 else -1 if value < 0.0 else 0


cdef bint in_turn(const core_t* core, const command_row_t* row, uint32_t number, int* side) noexcept nogil:
    """Direction and magnitude in registers of their own: at no time does the device hold one with the wrong other.

    A magnitude is 0 until the device has taken its direction; a direction changes only while the device has taken 0 for
    all magnitudes. side: wanted; becomes the one that may be put now. False = nothing may.
    """
    cdef const command_memory_t* memory = &core.commands[number]
    cdef const command_memory_t* other
    cdef uint32_t first = core.program.slaves[row.slave].command_first
    cdef uint32_t i, count = core.program.slaves[row.slave].command_count
    cdef bint taken
    if row.flags & COMMAND_TURNS:
        if side[0] == 0 and row.flags & COMMAND_KEEP:
            side[0] = memory.side
            return memory.put != 0
        if side[0] == 0 or (memory.put and side[0] == memory.side):
            return True
    elif side[0] == 0:
        return True
    for i in range(first, first + count):
        if i == number or core.program.commands[i].kind != COMMAND_SETPOINT_W:
            continue
        other = &core.commands[i]
        taken = other.put != 0 and other.written_seq == other.put_seq
        if row.flags & COMMAND_TURNS:
            if not core.program.commands[i].flags & COMMAND_TURNS and not (taken and other.side == 0):
                side[0] = memory.side
                return memory.put != 0
        elif core.program.commands[i].flags & COMMAND_TURNS and not (taken and other.side == side[0]):
            side[0] = 0
            return True
    return True


cdef void write_command(const core_t* core, port_mail_t* mail, command_memory_t* memory, uint32_t slot, uint32_t number,
                        uint64_t t_ns) noexcept nogil:
    """Put the row's value into its slot when it changed or when the device wants to hear it again.

    Repeats come from here and not from the port's thread: a loop that stands still must fall silent on the wire,
    so that the PCS's own watchdog can act.
    """
    cdef const command_row_t* row = &core.program.commands[number]
    cdef uint16_t regs[COMMAND_REGS_MAX]
    cdef uint64_t written_seq = mail.stats.written_seq[slot]
    cdef double value = row.value
    cdef uint32_t valid = 1, urgent = URGENT_NOT
    cdef int side = 0
    cdef int due = row.resend_ns > 0 and t_ns - memory.t_ns >= row.resend_ns

    # Once a cycle: the port's thread may write it at any time.
    if written_seq != memory.written_seq:
        memory.written_seq = written_seq
        memory.waits_t_ns = t_ns
        recorder_word(core.recorder, ITEM_WRITTEN, number, written_seq)

    if row.kind == COMMAND_CONST:
        if memory.put:
            return
    elif row.unit < 0 or <uint32_t>row.unit >= core.program.n_units:
        return
    elif row.kind == COMMAND_SETPOINT_W:
        value = <double>core.verdicts[row.unit].setpoint_w
        side = side_of(value)
        if not in_turn(core, row, number, &side):
            return
        # A direction that stays speaks for what it was, a magnitude that waits for its direction is 0.
        value = <double>side if row.flags & COMMAND_TURNS else value if side == side_of(value) else 0.0
        urgent = URGENT_ZERO if side == 0 else URGENT
    elif row.kind == COMMAND_HEARTBEAT:
        if not due and memory.put:
            return
        if not core.verdicts[row.unit].heartbeat_ok:
            return
        value = <double>(core.verdicts[row.unit].proof & 0x7FFF)
    elif row.kind == COMMAND_STOP:
        valid = 1 if core.verdicts[row.unit].reaction >= REACTION_ZERO_SILENT else 0
        urgent = URGENT if valid else URGENT_NOT

    memset(regs, 0, sizeof(regs))
    if command_encode(core.program, row, value, core.image, regs) == 0:
        return  # the scale is not known yet: nothing has been promised to this device
    if memory.put and not due and memory.valid == valid and memcmp(regs, memory.regs, sizeof(regs)) == 0:
        return
    memcpy(memory.regs, regs, sizeof(regs))
    memory.valid = valid
    memory.side = side
    if not memory.put or memory.written_seq == memory.put_seq:
        memory.waits_t_ns = t_ns
    memory.put = 1
    memory.t_ns = t_ns
    command_put(&mail.commands[slot], regs, valid, urgent, t_ns)
    memory.put_seq = mail.commands[slot].seq
