"""Registers to values and back: types, word orders, sentinels, SunSpec scale factors, ranges.

The rows come from the device maps. A value that is not believable (sentinel, no number, out of range, scale unknown)
marks its point invalid and changes nothing else: age goes on, and the last good value stays readable.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.math cimport fabs, isfinite, round, trunc
from libc.stdint cimport int16_t, int32_t
from libc.string cimport memcpy, memset

from tidegate.ext.abi.image cimport POINTS_MAX, QUALITY_GOOD, QUALITY_HELD, QUALITY_INVALID, QUALITY_STALE
from tidegate.ext.abi.port_mail cimport DONE_OK
from tidegate.ext.abi.program cimport (
    BLOCK_REGS_MAX, COMMAND_REGS_MAX, COMMAND_SETPOINT_W, FIELD_ACC, FIELD_BITS, FIELD_BYTE_SWAP, FIELD_F32, FIELD_F64,
    FIELD_LESS_NEXT, FIELD_LOW_WORD_FIRST, FIELD_ONE_OF, FIELD_S16, FIELD_S32, FIELD_S64, FIELD_SENTINEL, FIELD_SF_POINT,
    FIELD_SUNSSF, FIELD_U16, FIELD_U32, FIELD_U64, PART_CHARGE, PART_CONST, PART_DIRECTION, PART_DISCHARGE, PART_MAGNITUDE,
    PART_SETPOINT, block_row_t, command_part_t, field_row_t, slave_row_t,
)

cdef extern from *:
    """
    #define NEAR (1.0 / 16.0) /* of a word: so far a value moves between two readings at most, to be seen as half updated */
    """
    const double NEAR

cdef enum:
    SF_MAX = 10  # SunSpec: scale factors are -10 .. 10

# A table and not pow(): the last bit must be the same on every machine.
cdef double[SF_MAX + 1] TEN
TEN[:] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10]


cdef uint32_t words_of(uint32_t type) noexcept nogil:
    if type == FIELD_U32 or type == FIELD_S32 or type == FIELD_F32:
        return 2
    if type == FIELD_U64 or type == FIELD_S64 or type == FIELD_F64:
        return 4
    return 1


cdef inline uint16_t swapped(uint16_t word) noexcept nogil:
    return <uint16_t>((word >> 8) | (word << 8))


cdef inline bint scale_exponent(const point_t* image, int point, int* exponent) noexcept nogil:
    """The exponent that a scale point holds now; 0 when it is not known, too old, or not one."""
    if image == NULL or point < 0 or point >= POINTS_MAX:
        return False
    if image[point].quality != QUALITY_GOOD and image[point].quality != QUALITY_HELD:
        return False
    cdef double value = image[point].value
    if not fabs(value) <= SF_MAX:  # false for NaN as well
        return False
    exponent[0] = <int>value
    return True


cdef bint scale_of(const program_t* program, const block_row_t* block, const field_row_t* field, const uint16_t* regs,
                   int* exponent) noexcept nogil:
    """The exponent of a value as the same reading has it; 0 when it is not there or not one.

    A device may move a factor at any moment, and a value with the factor of another reading is wrong by a power of ten.
    """
    cdef const field_row_t* factor = factor_of(program, block, field)
    if factor == NULL:
        return False
    exponent[0] = <int16_t>raw_of(factor, regs, False, False)
    return -SF_MAX <= exponent[0] <= SF_MAX


cdef const field_row_t* factor_of(const program_t* program, const block_row_t* block, const field_row_t* field) noexcept nogil:
    """The row of a value's scale factor in this block; NULL where it is not read with it."""
    cdef const field_row_t* factor
    cdef uint32_t i
    if block.function <= 2:
        return NULL
    for i in range(block.field_first, <uint32_t>block.field_first + block.field_count):
        factor = &program.fields[i]
        if factor.type == FIELD_SUNSSF and factor.point == field.sf_point and factor.offset < BLOCK_REGS_MAX:
            return factor
    return NULL


cdef uint64_t raw_of(const field_row_t* field, const uint16_t* regs, bint bits, bint next_one) noexcept nogil:
    """The field's bits as one number; the highest word first unless the map says otherwise. next_one: of what follows it."""
    cdef uint32_t words, i, at
    cdef uint64_t raw = 0
    cdef uint16_t word
    if bits:  # functions 1 and 2: offset and count are bits, packed from the lowest
        for i in range(<uint32_t>max(field.bit_count, 1)):
            at = field.offset + i
            if at >= BLOCK_REGS_MAX * 16:
                break
            raw |= <uint64_t>((regs[at >> 4] >> (at & 15)) & 1) << i
        return raw
    words = words_of(field.type)
    for i in range(words):
        at = field.offset + (words if next_one else 0) + (words - 1 - i if field.flags & FIELD_LOW_WORD_FIRST else i)
        if at >= BLOCK_REGS_MAX:
            return 0
        word = regs[at]
        if field.flags & FIELD_BYTE_SWAP:
            word = swapped(word)
        raw = (raw << 16) | word
    if field.type == FIELD_BITS:
        raw = (raw >> field.bit_first) & ((<uint64_t>1 << field.bit_count) - 1)
    return raw


cdef bint lacking(const field_row_t* field, uint64_t raw) noexcept nogil:
    """Whether a device says that it does not have this point: SunSpec has a pattern for each type."""
    if not field.optional:
        return False
    if field.flags & FIELD_SENTINEL and not field.flags & FIELD_ONE_OF and raw == field.sentinel:
        return True
    if field.type == FIELD_S16 or field.type == FIELD_SUNSSF:
        return raw == 0x8000u
    if field.type == FIELD_S32:
        return raw == 0x80000000u
    if field.type == FIELD_S64:
        return raw == <uint64_t>1 << 63
    if field.type == FIELD_F32 or field.type == FIELD_F64:
        return False  # NaN is no value anyway, and which one stands in `sentinel`
    return raw == (0xFFFFFFFFFFFFFFFFu >> (64 - 16 * words_of(field.type)))


cdef const field_row_t* told_by(const block_row_t* block, const field_row_t* field, const uint16_t* regs) noexcept nogil:
    """The row that the value is taken from: the first of its rows that the device has, else the last."""
    cdef uint32_t i
    for i in range(field.others):
        if not lacking(&field[i], raw_of(&field[i], regs, block.function <= 2, False)):
            return &field[i]
    return &field[field.others]


cdef bint number_of(const block_row_t* block, const field_row_t* field, const uint16_t* regs, bint next_one,
                    double* number) noexcept nogil:
    """The field's number before any scale; 0 when it is none or says that there is none."""
    cdef uint64_t raw = raw_of(field, regs, block.function <= 2, next_one)
    cdef float single
    cdef uint32_t half
    if lacking(field, raw):
        return False
    if field.flags & FIELD_ONE_OF:
        number[0] = <double>(raw < 64 and (field.sentinel >> raw) & 1)
        return True
    if field.flags & FIELD_SENTINEL and raw == field.sentinel:
        return False
    if field.flags & FIELD_ACC and raw == 0:  # SunSpec: an accumulator at 0 is not implemented
        return False
    if field.type == FIELD_S16 or field.type == FIELD_SUNSSF:
        number[0] = <double><int16_t>raw
    elif field.type == FIELD_S32:
        number[0] = <double><int32_t>raw
    elif field.type == FIELD_S64:
        number[0] = <double><int64_t>raw
    elif field.type == FIELD_F32:
        half = <uint32_t>raw
        memcpy(&single, &half, 4)
        number[0] = <double>single
    elif field.type == FIELD_F64:
        memcpy(number, &raw, 8)
    else:
        number[0] = <double>raw
    return field.type != FIELD_SUNSSF or -SF_MAX <= number[0] <= SF_MAX


cdef bint in_unit(const field_row_t* field, double number, int exponent, double* value) noexcept nogil:
    """A number in the point's unit; 0 where it is out of range. exponent: of its scale factor, 0 without one."""
    # Division, because 10 ** -n is no exact double.
    number = number * TEN[exponent] if exponent >= 0 else number / TEN[-exponent]
    number = number * field.scale + field.offset_value
    if not isfinite(number) or not field.min <= number <= field.max:
        return False
    value[0] = number
    return True


cdef bint value_of(const program_t* program, const block_row_t* block, const field_row_t* field, const uint16_t* regs,
                   double* value, double* step, bint next_one) noexcept nogil:
    """The field's value in the point's unit, and what one count of it is worth; 0 when it is not believable.

    With LESS_NEXT both numbers have to be; next_one: the second of them.
    """
    cdef double less = 0.0, number = 0.0
    cdef int exponent = 0
    step[0] = field.scale
    if not number_of(block, field, regs, next_one, &number):
        return False
    if field.flags & FIELD_ONE_OF:
        value[0] = number
        return True
    if field.flags & FIELD_SF_POINT:
        if not scale_of(program, block, field, regs, &exponent):
            return False
        step[0] = step[0] * TEN[exponent] if exponent >= 0 else step[0] / TEN[-exponent]
    if not in_unit(field, number, exponent, &number):
        return False
    if field.flags & FIELD_LESS_NEXT and not next_one:
        if not value_of(program, block, field, regs, &less, step, True):
            return False
        number -= less
    value[0] = number
    return True


cdef bint block_believable(const program_t* program, const block_row_t* block, const uint16_t* regs) noexcept nogil:
    cdef const field_row_t* field
    cdef uint32_t i = block.field_first
    cdef double value = 0.0, step = 1.0
    while i < <uint32_t>block.field_first + block.field_count:
        field = told_by(block, &program.fields[i], regs)
        i += 1 + program.fields[i].others
        if field.held_point > 0:
            if not number_of(block, field, regs, False, &value):
                return False
        elif not value_of(program, block, field, regs, &value, &step, False):
            return False
    return True


cdef bint half_updated(const field_row_t* field, uint64_t raw, const point_t* point, double value,
                       double step) noexcept nogil:
    """Whether a number of several registers may be half of the reading before: the device was read while it wrote them.

    Then it lies a whole step of a higher word away from the value before, and its lower words near their turn.
    """
    cdef uint32_t words = words_of(field.type), k
    cdef uint64_t low
    cdef double moved, turn = 1.0
    if words < 2 or field.type == FIELD_F32 or field.type == FIELD_F64 or point.quality != QUALITY_GOOD:
        return False
    moved = fabs((value - point.value) / step)
    for k in range(1, words):
        turn *= 65536.0
        low = raw & ((<uint64_t>1 << 16 * k) - 1)
        if turn * (1.0 - NEAR) < moved < turn * (1.0 + NEAR) and (low < NEAR * turn or low >= (1.0 - NEAR) * turn):
            return True
    return False


# ---- values whose factor is far away: it is read before and after, and counts if it is the same ----


cdef void hold_number(const block_row_t* block, const field_row_t* field, const done_t* done, point_t* point,
                      point_t* held) noexcept nogil:
    """A number waits for its factor. What says by itself that it is none needs no factor.

    One that follows another which still waits has no factor right before it: that reply was lost.
    """
    cdef double number = 0.0
    cdef bint lost = held.quality == QUALITY_GOOD or held.quality == QUALITY_HELD
    held.quality = QUALITY_STALE
    if not number_of(block, field, done.regs, False, &number):
        point.quality = QUALITY_INVALID
        return
    held.value = number
    held.t_ns = done.t_sample_ns
    held.quality = QUALITY_HELD if lost else QUALITY_GOOD
    held.changes += 1


cdef void factors_again(const program_t* program, const block_row_t* block, const done_t* done, point_t* image) noexcept nogil:
    """The factors have been read again, and the image still holds those of before: what was read in between has its own.

    A factor that moved meanwhile makes a number of which nobody knows by what power of ten it was meant: it is left out,
    and its age goes on.
    """
    cdef const slave_row_t* slave = &program.slaves[block.slave]
    cdef const block_row_t* waiting
    cdef uint32_t i, at
    for at in range(slave.block_first, <uint32_t>slave.block_first + slave.block_count):
        waiting = &program.blocks[at]
        if at >= program.n_blocks or waiting == block:
            continue
        for i in range(waiting.field_first, <uint32_t>waiting.field_first + waiting.field_count):
            if program.fields[i].held_point > 0:
                factor_again(program, block, &program.fields[i], done, image)


cdef void factor_again(const program_t* program, const block_row_t* block, const field_row_t* field, const done_t* done,
                       point_t* image) noexcept nogil:
    cdef point_t* held
    cdef point_t* point
    cdef int now = 0, before = 0
    cdef double value = 0.0, step
    cdef bint alone
    if <uint32_t>field.held_point >= program.n_points or <uint32_t>field.point >= program.n_points:
        return
    held = &image[field.held_point]
    point = &image[field.point]
    if (held.quality != QUALITY_GOOD and held.quality != QUALITY_HELD) or factor_of(program, block, field) == NULL:
        return
    alone = held.quality == QUALITY_HELD
    held.quality = QUALITY_STALE
    if not scale_of(program, block, field, done.regs, &now):
        point.quality = QUALITY_INVALID
    elif not scale_exponent(image, field.sf_point, &before) or image[field.sf_point].t_ns >= held.t_ns:
        return
    elif alone or before != now:
        if point.quality == QUALITY_GOOD:
            point.quality = QUALITY_HELD
    elif in_unit(field, held.value, now, &value):
        step = field.scale * TEN[now] if now >= 0 else field.scale / TEN[-now]
        if half_updated(field, <uint64_t><int64_t>held.value, point, value, step):
            point.quality = QUALITY_HELD
            return
        point.value = value
        point.t_ns = held.t_ns
        point.quality = QUALITY_GOOD
        point.changes += 1
    else:
        point.quality = QUALITY_INVALID


cdef void block_decode(const program_t* program, const done_t* done, point_t* image) noexcept nogil:
    cdef const block_row_t* block
    cdef const field_row_t* field
    cdef point_t* point
    cdef uint32_t i
    cdef double value = 0.0, step = 1.0
    if done.status != DONE_OK or done.block >= program.n_blocks:
        return
    block = &program.blocks[done.block]
    if block.factors:
        factors_again(program, block, done, image)
    i = block.field_first
    while i < <uint32_t>block.field_first + block.field_count:
        field = told_by(block, &program.fields[i], done.regs)
        i += 1 + program.fields[i].others
        if <uint32_t>field.point >= program.n_points:
            continue
        point = &image[field.point]
        if field.held_point > 0:
            hold_number(block, field, done, point, &image[field.held_point])
            continue
        if value_of(program, block, field, done.regs, &value, &step, False):
            if block.function >= 3 and half_updated(field, raw_of(field, done.regs, False, False), point, value, step):
                # Once only: the next reading shows what it was. Age goes on meanwhile.
                point.quality = QUALITY_HELD
                continue
            point.value = value
            point.t_ns = done.t_sample_ns
            point.quality = QUALITY_GOOD
            point.changes += 1
        else:
            point.quality = QUALITY_INVALID


cdef int number_words(double number, uint32_t type, uint32_t flags, bint shrink, uint16_t* regs) noexcept nogil:
    """A raw number as registers; returns their count, 0 where the type cannot hold it. shrink: never round away from 0."""
    cdef double nearest, lo = 0.0, hi = 65535.0
    cdef float single
    cdef uint64_t raw = 0
    cdef uint32_t half, words = words_of(type), i
    cdef uint16_t word
    if not isfinite(number):
        return 0
    if type == FIELD_F32:
        if fabs(number) > 3.4e38:
            return 0
        single = <float>number
        memcpy(&half, &single, 4)
        raw = half
    elif type == FIELD_F64:
        memcpy(&raw, &number, 8)
    else:
        nearest = round(number)
        # A billionth is the scale's own error.
        if shrink and fabs(nearest) > fabs(number) * (1.0 + 1e-9):
            nearest = trunc(number)
        # The type's range; 64 bits end where a double still counts in ones.
        if type == FIELD_S16 or type == FIELD_SUNSSF:
            lo = -32768.0
            hi = 32767.0
        elif type == FIELD_U32:
            hi = 4294967295.0
        elif type == FIELD_S32:
            lo = -2147483648.0
            hi = 2147483647.0
        elif type == FIELD_U64:
            hi = 9007199254740992.0
        elif type == FIELD_S64:
            lo = -9007199254740992.0
            hi = 9007199254740992.0
        if not lo <= nearest <= hi:
            return 0
        raw = <uint64_t><int64_t>nearest
    for i in range(words):
        word = <uint16_t>(raw >> (16 * (words - 1 - i)))
        if flags & FIELD_BYTE_SWAP:
            word = swapped(word)
        regs[words - 1 - i if flags & FIELD_LOW_WORD_FIRST else i] = word
    return <int>words


cdef bint scaled(double value, double scale, uint32_t flags, int sf_point, const point_t* image,
                 double* number) noexcept nogil:
    cdef int exponent = 0
    number[0] = value / scale
    if flags & FIELD_SF_POINT and number[0] != 0.0:  # nothing is nothing on every scale: a stop waits for no factor
        if not scale_exponent(image, sf_point, &exponent):
            return False
        number[0] = number[0] / TEN[exponent] if exponent >= 0 else number[0] * TEN[-exponent]
    return True


cdef double part_value(const command_part_t* part, double value) noexcept nogil:
    """What one part of a command says of the command's value, before its scale."""
    if part.of == PART_SETPOINT:
        return value
    if part.of == PART_MAGNITUDE:
        return fabs(value)
    if part.of == PART_CHARGE:
        return -value if value < 0.0 else 0.0
    if part.of == PART_DISCHARGE:
        return value if value > 0.0 else 0.0
    if part.of == PART_DIRECTION and value != 0.0:
        return part.discharge if value > 0.0 else part.charge
    return part.value


cdef int command_encode(const program_t* program, const command_row_t* row, double value, const point_t* image,
                        uint16_t* regs) noexcept nogil:
    cdef const command_part_t* part
    cdef double number = 0.0
    cdef uint32_t i
    # A coarse register must not round a setpoint past what the gate let go.
    cdef bint shrink = row.kind == COMMAND_SETPOINT_W
    if not isfinite(value) or not isfinite(row.scale) or row.scale == 0.0:
        return 0
    if row.part_count == 0:
        if not scaled(value, row.scale, row.flags, row.sf_point, image, &number):
            return 0
        return number_words(number, row.type, row.flags, shrink, regs)
    for i in range(row.part_first, <uint32_t>row.part_first + row.part_count):
        part = &program.command_parts[i]
        if not scaled(part_value(part, value), part.scale, part.flags, part.sf_point, image, &number):
            return 0
        if part.of != PART_CONST and part.of != PART_DIRECTION:
            number += part.value
        if number_words(number, part.type, part.flags, shrink, regs + part.offset) == 0:
            return 0
    return row.count


# ---------------------------------------------------------------- what Python sees


cdef const program_t* _program(bytes blob) except NULL:
    if PyBytes_GET_SIZE(blob) < <Py_ssize_t>sizeof(program_t):
        raise ValueError(f"program: {len(blob)} bytes, needs at least {sizeof(program_t)}")
    return <const program_t*>PyBytes_AS_STRING(blob)


cdef int _image_in(dict points, point_t* image) except -1:
    memset(image, 0, POINTS_MAX * sizeof(point_t))
    cdef Py_ssize_t i
    for i in range(POINTS_MAX):
        image[i].value = float("nan")
    for i, row in points.items():
        if not 0 <= i < POINTS_MAX:
            raise IndexError(f"point {i}: the image has rows 0 to {POINTS_MAX - 1}")
        image[i].value, image[i].t_ns, image[i].quality, image[i].changes = row
    return 0


def decode(bytes program not None, int block, regs, points=None, int t_ns=1, int status=0):
    """Points after one finished block: {image row: (value, t_ns, quality, changes)} of its fields and of those waiting for it.

    regs : register values in wire order; for functions 1 and 2 sixteen bits a word, lowest first.
    points : rows that the image holds before, same form. Raises ValueError or IndexError for what does not fit.
    """
    cdef point_t[POINTS_MAX] image
    cdef done_t done
    cdef const program_t* rows = _program(program)
    memset(&done, 0, sizeof(done))
    if not 0 <= block < <int>rows.n_blocks or len(regs) > BLOCK_REGS_MAX:
        raise IndexError(f"block {block} of {rows.n_blocks}, {len(regs)} registers of at most {BLOCK_REGS_MAX}")
    _image_in(points or {}, image)
    done.block, done.status, done.count, done.t_sample_ns = block, status, len(regs), t_ns
    for i, word in enumerate(regs):
        done.regs[<Py_ssize_t>i] = word
    block_decode(rows, &done, image)
    found = {}
    shown = [block]
    if rows.blocks[block].factors:
        slave = rows.blocks[block].slave
        shown += range(rows.slaves[<Py_ssize_t>slave].block_first,
                       rows.slaves[<Py_ssize_t>slave].block_first + rows.slaves[<Py_ssize_t>slave].block_count)
    for number in shown:
        first = rows.blocks[<Py_ssize_t>number].field_first
        for i in range(first, first + rows.blocks[<Py_ssize_t>number].field_count):
            for at in (rows.fields[<Py_ssize_t>i].point, rows.fields[<Py_ssize_t>i].held_point):
                if at:
                    found[at] = (image[<Py_ssize_t>at].value, image[<Py_ssize_t>at].t_ns, image[<Py_ssize_t>at].quality,
                                 image[<Py_ssize_t>at].changes)
    return found


def encode(bytes program not None, int command, double value, points=None):
    """Registers of `value` for one command row, in wire order; empty when the row cannot carry it."""
    cdef point_t[POINTS_MAX] image
    cdef uint16_t[COMMAND_REGS_MAX] regs
    memset(regs, 0, sizeof(regs))
    cdef const program_t* rows = _program(program)
    if not 0 <= command < <int>rows.n_commands:
        raise IndexError(f"command {command} of {rows.n_commands}")
    _image_in(points or {}, image)
    cdef int count = command_encode(rows, &rows.commands[command], value, image, regs)
    return [regs[i] for i in range(count)]
