"""Whether the core may run a program: every index and bound of it, without the GIL, at start."""

from libc.math cimport INFINITY, isfinite, isnan
from libc.stddef cimport size_t

from tidegate.ext.safety.safety cimport GATE_FAULTS_MAX, REACTION_OPEN
from tidegate.ext.abi.image cimport IMAGE_LAYOUT_VERSION, POINTS_MAX, SITE_POINTS, UNIT_POINTS, UNITS_MAX
from tidegate.ext.abi.program cimport *


cdef inline int bad(int why, Py_ssize_t row) noexcept nogil:
    return why | (<int>row << 8)


cdef inline bint point_ok(const program_t* p, int index, bint may_be_none) noexcept nogil:
    return 0 <= index < <int>p.n_points or (may_be_none and index == -1)


cdef bint text_ok(const char* text, Py_ssize_t size) noexcept nogil:
    """Printable ASCII with its end inside the row; a name that is not ended would be read past it."""
    cdef Py_ssize_t i
    for i in range(size):
        if text[i] == 0:
            return True
        if text[i] < 32 or text[i] > 126:
            return False
    return False


cdef bint parts_ok(const program_t* p, const command_row_t* command) noexcept nogil:
    """The parts of a command lie in its registers, each register in one, and its first is theirs."""
    cdef const command_part_t* part
    cdef uint32_t i, words, taken = 0, mask
    if <uint32_t>command.part_first + command.part_count > p.n_command_parts or command.count > COMMAND_REGS_MAX:
        return False
    for i in range(command.part_first, <uint32_t>command.part_first + command.part_count):
        part = &p.command_parts[i]
        if part.type > FIELD_F64 or part.of > PART_DIRECTION:
            return False
        words = type_regs(part.type)
        if part.offset + words > command.count:
            return False
        mask = ((1u << words) - 1u) << part.offset
        if taken & mask:
            return False
        taken |= mask
        if part.flags & FIELD_SF_POINT and not point_ok(p, part.sf_point, False):
            return False
        if not isfinite(part.scale) or part.scale == 0.0:
            return False
        if not isfinite(part.value) or not isfinite(part.charge) or not isfinite(part.discharge):
            return False
    return True


cdef int check_units(const program_t* p) noexcept nogil:
    cdef:
        const unit_row_t* u
        const int16_t* index
        Py_ssize_t i, k
    for i in range(<Py_ssize_t>p.n_units):
        u = &p.units[i]
        if not text_ok(u.name, sizeof(u.name)):
            return bad(BAD_TEXT, i)
        index = &u.soc
        for k in range((<const char*>&u.connected - <const char*>index) // <Py_ssize_t>sizeof(int16_t) + 1):
            if not point_ok(p, index[k], True):
                return bad(BAD_UNIT, i)
        if not (isfinite(u.energy_wh) and u.energy_wh >= 0.0):
            return bad(BAD_UNIT, i)
        if u.battery_power > BATTERY_POWER_OWN or not point_ok(p, u.battery_w, True):
            return bad(BAD_UNIT, i)
        if u.battery_power == BATTERY_POWER_OWN and not point_ok(p, u.battery_w, False):
            return bad(BAD_UNIT, i)
        if u.battery_power == BATTERY_POWER_DC and not (point_ok(p, u.dc_v, False) and point_ok(p, u.dc_a, False)):
            return bad(BAD_UNIT, i)
        if u.gate.charge_w_max < 0 or u.gate.discharge_w_max < 0:
            return bad(BAD_GATE, i)
        if u.gate.charge_ma_max < 0 or u.gate.discharge_ma_max < 0 or u.gate.soc_min_cpct > u.gate.soc_max_cpct:
            return bad(BAD_GATE, i)
        if u.gate.temp_min_ddegc > u.gate.temp_max_ddegc:
            return bad(BAD_GATE, i)
    for i in range(<Py_ssize_t>p.n_bank_rows):
        if not 0 <= p.bank_rows[i].unit < <int>p.n_units or p.units[p.bank_rows[i].unit].connected < 0:
            return bad(BAD_UNIT, p.bank_rows[i].unit)
        index = &p.bank_rows[i].connected
        for k in range((<const char*>&p.bank_rows[i].pad - <const char*>index) // <Py_ssize_t>sizeof(int16_t)):
            if not point_ok(p, index[k], True):
                return bad(BAD_UNIT, p.bank_rows[i].unit)
    index = &p.site.grid_w
    for k in range((<const char*>(&p.site + 1) - <const char*>index) // <Py_ssize_t>sizeof(int16_t)):
        if not point_ok(p, index[k], True):
            return bad(BAD_SITE, k)
    for i in range(GATE_FAULTS_MAX):
        if not 0 <= p.faults[i].reaction <= REACTION_OPEN or p.faults[i].debounce_ms < 0 or p.faults[i].clear_ms < 0:
            return bad(BAD_FAULT, i)
    return 0


cdef int check_can(const program_t* p) noexcept nogil:
    cdef:
        const can_frame_row_t* frame
        const can_field_row_t* field
        const can_tx_row_t* tx
        Py_ssize_t i
    for i in range(<Py_ssize_t>p.n_can_frames):
        frame = &p.can_frames[i]
        if frame.bus >= p.n_can_buses or frame.len_min > frame.len_max or frame.len_max > 64:
            return bad(BAD_FRAME, i)
        if <uint32_t>frame.field_first + frame.field_count > p.n_can_fields:
            return bad(BAD_FRAME, i)
        if frame.flags & CAN_FRAME_MUX and not 1 <= frame.mux_length <= 32:
            return bad(BAD_FRAME, i)
        if frame.mux_start >= 512 or frame.counter_start >= 512 or frame.counter_length > 32:
            return bad(BAD_FRAME, i)
        if frame.flags & CAN_FRAME_CRC and frame.crc_byte >= frame.len_max:
            return bad(BAD_FRAME, i)
    for i in range(<Py_ssize_t>p.n_can_fields):
        field = &p.can_fields[i]
        if not point_ok(p, field.point, False) or not 1 <= field.length <= 64 or field.start >= 512:
            return bad(BAD_CAN_FIELD, i)
        if not isfinite(field.scale) or field.scale == 0.0 or not isfinite(field.offset) or not field.min <= field.max:
            return bad(BAD_CAN_FIELD, i)
        if field.mux2_length > 32 or field.mux2_start >= 512:
            return bad(BAD_CAN_FIELD, i)
        if field.flags & CAN_FIELD_FLOAT and field.length != 32 and field.length != 64:
            return bad(BAD_CAN_FIELD, i)
    for i in range(<Py_ssize_t>p.n_can_tx):
        tx = &p.can_tx[i]
        if tx.bus >= p.n_can_buses or tx.len > 8 or tx.unit < -1 or tx.unit >= <int>p.n_units or tx.period_ns == 0:
            return bad(BAD_CAN_TX, i)
        if tx.kind > CAN_TX_HEARTBEAT or tx.counter_start >= 64 or tx.counter_length > 32:
            return bad(BAD_CAN_TX, i)
    return 0


cdef int check_block(const program_t* p, Py_ssize_t i) noexcept nogil:
    cdef:
        const block_row_t* block = &p.blocks[i]
        const field_row_t* field
        Py_ssize_t k
        uint32_t words
        bint bits = block.function == 1 or block.function == 2
    if not 1 <= block.function <= 4 or block.poll_class > POLL_ONCE:
        return bad(BAD_BLOCK, i)
    if not 1 <= block.count <= (BLOCK_REGS_MAX * 16 if bits else BLOCK_REGS_MAX):
        return bad(BAD_BLOCK, i)
    if <uint32_t>block.address + block.count > 65536u:
        return bad(BAD_BLOCK, i)
    if <uint32_t>block.field_first + block.field_count > p.n_fields:
        return bad(BAD_BLOCK, i)
    if block.signature and block.signature_offset >= block.count:
        return bad(BAD_BLOCK, i)
    if block.factors > 1 or (block.factors and (bits or block.poll_class == POLL_ONCE)):
        return bad(BAD_BLOCK, i)
    for k in range(block.field_first, block.field_first + block.field_count):
        field = &p.fields[k]
        if not point_ok(p, field.point, False) or field.type > FIELD_BITS:
            return bad(BAD_FIELD, k)
        words = 1 if bits else type_regs(field.type) * (2 if field.flags & FIELD_LESS_NEXT else 1)
        if <uint32_t>field.offset + words > block.count:
            return bad(BAD_FIELD, k)
        if field.type == FIELD_BITS and (field.bit_count == 0 or field.bit_first + field.bit_count > 16):
            return bad(BAD_FIELD, k)
        if field.flags & FIELD_SF_POINT and not (factor_there(p, block, field) or factor_after(p, i, field)):
            return bad(BAD_FIELD, k)
        if field.held_point != 0 and not (field.flags & FIELD_SF_POINT and point_ok(p, field.held_point, False)):
            return bad(BAD_FIELD, k)
        if field.flags & FIELD_IDENTITY and (bits or field.type != FIELD_U16):  # the engine compares one plain word
            return bad(BAD_FIELD, k)
        if field.optional > 1 or field.others and not others_there(p, block, k):
            return bad(BAD_FIELD, k)
        if not isfinite(field.scale) or field.scale == 0.0 or not isfinite(field.offset_value) or not field.min <= field.max:
            return bad(BAD_FIELD, k)
    return 0


cdef bint others_there(const program_t* p, const block_row_t* block, uint32_t k) noexcept nogil:
    """Whether the rows that stand for an optional one are of the same block and point, and wait for nothing."""
    cdef const field_row_t* field = &p.fields[k]
    cdef uint32_t i
    if not field.optional or k + field.others >= <uint32_t>block.field_first + block.field_count:
        return False
    for i in range(k + 1, <uint32_t>(k + field.others + 1)):
        if p.fields[i].point != field.point or p.fields[i].others or p.fields[i].held_point:
            return False
        if i < k + field.others and not p.fields[i].optional:
            return False
    return field.held_point == 0


cdef bint factor_there(const program_t* p, const block_row_t* block, const field_row_t* field) noexcept nogil:
    """A value's scale factor is in the same block, or it would be that of another reading."""
    cdef uint32_t i
    for i in range(block.field_first, <uint32_t>block.field_first + block.field_count):
        if p.fields[i].type == FIELD_SUNSSF and p.fields[i].point == field.sf_point:
            return block.function >= 3
    return False


cdef bint factor_after(const program_t* p, Py_ssize_t i, const field_row_t* field) noexcept nogil:
    """Or the value waits, and another block of the slave that is polled as often has the factor: read before and after it."""
    cdef const slave_row_t* slave
    cdef const block_row_t* other
    cdef uint32_t k
    if field.held_point <= 0 or p.blocks[i].slave >= p.n_slaves or field.flags & FIELD_LESS_NEXT:
        return False
    slave = &p.slaves[p.blocks[i].slave]
    for k in range(slave.block_count):
        if <uint32_t>slave.block_first + k >= p.n_blocks:
            return False
        other = &p.blocks[slave.block_first + k]
        if other.factors and other.poll_class <= p.blocks[i].poll_class and other.period_ns <= p.blocks[i].period_ns and (
                <uint32_t>other.field_first + other.field_count <= p.n_fields and factor_there(p, other, field)):
            return True
    return False


cdef int check_ports(const program_t* p) noexcept nogil:
    cdef:
        const port_row_t* port
        const slave_row_t* slave
        const command_row_t* command
        Py_ssize_t i, k
        uint32_t first
        int code
    for i in range(<Py_ssize_t>p.n_ports):
        port = &p.ports[i]
        if not text_ok(port.name, sizeof(port.name)):
            return bad(BAD_TEXT, i)
        if not 300 <= port.baud <= 4000000 or port.data_bits != 8 or not 1 <= port.stop_bits <= 2:
            return bad(BAD_PORT, i)
        if port.parity != c'N' and port.parity != c'E' and port.parity != c'O':
            return bad(BAD_PORT, i)
        if port.gap_rule > GAP_FIXED or (port.gap_rule == GAP_FIXED and port.gap_ns == 0):
            return bad(BAD_PORT, i)
        if port.transport > PORT_PYLON_TCP or port.link >= PORTS_MAX:
            return bad(BAD_PORT, i)
        if port_over_tcp(port) and (port.tcp_port == 0 or (port.family != 4 and port.family != 6)):
            return bad(BAD_PORT, i)
        if <uint32_t>port.slave_first + port.slave_count > p.n_slaves:
            return bad(BAD_PORT, i)
        if port_command_rows(p, <uint32_t>i, &first) > PORT_COMMANDS_MAX:
            return bad(BAD_PORT, i)
    for i in range(<Py_ssize_t>p.n_slaves):
        slave = &p.slaves[i]
        if slave.port >= p.n_ports or slave.timeout_ns == 0:
            return bad(BAD_SLAVE, i)
        # Behind Modbus TCP, 0 and 255 are the device itself.
        if not 1 <= slave.unit_id <= 247 and p.ports[slave.port].transport != PORT_MBAP:
            return bad(BAD_SLAVE, i)
        if i < p.ports[slave.port].slave_first or i >= p.ports[slave.port].slave_first + p.ports[slave.port].slave_count:
            return bad(BAD_SLAVE, i)
        if <uint32_t>slave.block_first + slave.block_count > p.n_blocks:
            return bad(BAD_SLAVE, i)
        if <uint32_t>slave.command_first + slave.command_count > p.n_commands:
            return bad(BAD_SLAVE, i)
        if port_speaks_pylon(&p.ports[slave.port]) and slave.command_count:  # that protocol is read only
            return bad(BAD_SLAVE, i)
    for i in range(<Py_ssize_t>p.n_blocks):
        if p.blocks[i].slave >= p.n_slaves:
            return bad(BAD_BLOCK, i)
        slave = &p.slaves[p.blocks[i].slave]
        if i < slave.block_first or i >= slave.block_first + slave.block_count:
            return bad(BAD_BLOCK, i)
        code = check_block(p, i)
        if code:
            return code
    for i in range(<Py_ssize_t>p.n_commands):
        command = &p.commands[i]
        if command.slave >= p.n_slaves:
            return bad(BAD_COMMAND, i)
        slave = &p.slaves[command.slave]
        if i < slave.command_first or i >= slave.command_first + slave.command_count:
            return bad(BAD_COMMAND, i)
        if command.function not in (5, 6, 15, 16, 22, 23):
            return bad(BAD_COMMAND, i)
        # Masks are no value: 22 has them as one constant of 32 bits, and-mask first.
        if command.function == 22 and (command.kind != COMMAND_CONST or command.type != FIELD_U32):
            return bad(BAD_COMMAND, i)
        if command.kind > COMMAND_STOP or command.type > FIELD_F64 or command.unit < -1 or command.unit >= <int>p.n_units:
            return bad(BAD_COMMAND, i)
        if (command.function == 6 or command.function == 5) and command.count != 1:
            return bad(BAD_COMMAND, i)
        if command.part_count:
            if not parts_ok(p, command):
                return bad(BAD_COMMAND, i)
        elif command.function in (16, 22, 23) and command.count != type_regs(command.type):
            return bad(BAD_COMMAND, i)
        if not 1 <= command.count <= COMMAND_REGS_MAX or <uint32_t>command.address + command.count > 65536u:
            return bad(BAD_COMMAND, i)
        if command.kind == COMMAND_SETPOINT_W and command.unit < 0:
            return bad(BAD_COMMAND, i)
        if command.flags & FIELD_SF_POINT and not point_ok(p, command.sf_point, False):
            return bad(BAD_COMMAND, i)
        if not point_ok(p, command.readback_point, True) or not isfinite(command.value):
            return bad(BAD_COMMAND, i)
        if not isfinite(command.scale) or command.scale == 0.0:
            return bad(BAD_COMMAND, i)
    return 0


cdef int program_check(const program_t* p, size_t size) noexcept nogil:
    cdef:
        Py_ssize_t i
        int code
    if size < sizeof(program_t):
        return bad(BAD_SHORT, 0)
    if p.magic != PROGRAM_MAGIC:
        return bad(BAD_MAGIC, 0)
    if p.layout_version != PROGRAM_LAYOUT_VERSION:
        return bad(BAD_LAYOUT, 0)
    if p.image_version != IMAGE_LAYOUT_VERSION:
        return bad(BAD_IMAGE, 0)
    if p.size != sizeof(program_t) or size - sizeof(program_t) != p.describe_size:
        return bad(BAD_SIZE, 0)
    if p.n_points > POINTS_MAX or p.n_units > UNITS_MAX or p.n_points < SITE_POINTS + p.n_units * UNIT_POINTS:
        return bad(BAD_COUNT, 0)
    if p.n_can_buses > CAN_BUSES_MAX or p.n_can_frames > CAN_FRAMES_MAX or p.n_can_fields > CAN_FIELDS_MAX:
        return bad(BAD_COUNT, 1)
    if p.n_can_tx > CAN_TX_MAX or p.n_ports > PORTS_MAX or p.n_slaves > SLAVES_MAX or p.n_blocks > BLOCKS_MAX:
        return bad(BAD_COUNT, 2)
    if p.n_fields > FIELDS_MAX or p.n_commands > COMMANDS_MAX or p.n_command_parts > COMMAND_PARTS_MAX:
        return bad(BAD_COUNT, 3)
    if p.n_bank_rows > BANK_ROWS_MAX:
        return bad(BAD_COUNT, 3)
    if not 250_000u <= p.period_ns <= 100_000_000u or p.snapshot_every == 0:
        return bad(BAD_PERIOD, 0)
    for i in range(<Py_ssize_t>p.n_points):
        if not text_ok(p.points[i].name, sizeof(p.points[i].name)):
            return bad(BAD_TEXT, i)
        if not text_ok(p.points[i].unit, sizeof(p.points[i].unit)) or p.points[i].device < -1:
            return bad(BAD_POINT, i)
    # Not a limit but a wild number: NaN compares false with everything, so it would switch a limit off.
    if isnan(p.control.connection_import_w_max) or p.control.connection_import_w_max < 0.0:
        return bad(BAD_CONTROL, 0)
    if isnan(p.control.connection_export_w_max) or p.control.connection_export_w_max < 0.0:
        return bad(BAD_CONTROL, 1)
    if isnan(p.control.peak_w_max) or isnan(p.control.recharge_w_max):
        return bad(BAD_CONTROL, 2)
    if p.control.island != 0.0:
        if not 0.0 <= p.control.genset_w_min <= p.control.genset_w_max < INFINITY:
            return bad(BAD_CONTROL, 3)
        if not 0.0 <= p.control.genset_charge_w <= p.control.genset_w_max:
            return bad(BAD_CONTROL, 4)
        if not p.control.genset_start_soc <= p.control.genset_stop_soc:
            return bad(BAD_CONTROL, 5)
        if not p.control.island_loss_s >= 0.0 or not p.control.island_return_s >= 0.0:
            return bad(BAD_CONTROL, 6)
    if p.n_inputs > INPUTS_MAX:
        return bad(BAD_COUNT, 4)
    for i in range(<Py_ssize_t>p.n_inputs):
        if not point_ok(p, p.inputs[i].point, False) or not INPUT_STOP <= p.inputs[i].what <= INPUT_ESTOP:
            return bad(BAD_INPUT, i)
        if not p.inputs[i].import_w_max >= 0.0:  # false for NaN as well
            return bad(BAD_INPUT, i)
    code = check_units(p)
    if code == 0:
        code = check_can(p)
    if code == 0:
        code = check_ports(p)
    return code
