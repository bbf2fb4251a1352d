"""Registers to values and back: types, word orders, sentinels, SunSpec scale factors, ranges.

The rows come from the device maps. A value that is not believable (sentinel, no number, out of range, scale unknown)
marks its point invalid and changes nothing else: age goes on, and the last good value stays readable.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.math cimport fabs, isfinite, round, trunc
from libc.stdint cimport int16_t, int32_t
from libc.string cimport memcpy, memset

from tidegate.ext.abi.image cimport POINTS_MAX, QUALITY_GOOD, QUALITY_INVALID, QUALITY_NEVER
from tidegate.ext.abi.port_mail cimport DONE_OK
from tidegate.ext.abi.program cimport (
    BLOCK_REGS_MAX, COMMAND_SETPOINT_W, FIELD_ACC, FIELD_BITS, FIELD_BYTE_SWAP, FIELD_F32, FIELD_F64,
    FIELD_LOW_WORD_FIRST, FIELD_ONE_OF, FIELD_S16, FIELD_S32, FIELD_S64, FIELD_SENTINEL, FIELD_SF_POINT,
    FIELD_SUNSSF, FIELD_U16, FIELD_U32, FIELD_U64, block_row_t, field_row_t,
)

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
    """The exponent that a scale point holds; 0 when it is not known or not one."""
    if image == NULL or point < 0 or point >= POINTS_MAX:
        return False
    if image[point].quality == QUALITY_NEVER or image[point].quality == QUALITY_INVALID:
        return False
    cdef double value = image[point].value
    if not fabs(value) <= SF_MAX:  # false for NaN as well
        return False
    exponent[0] = <int>value
    return True


cdef uint64_t raw_of(const field_row_t* field, const uint16_t* regs, bint bits) noexcept nogil:
    """The field's bits as one number; the highest word first unless the map says otherwise."""
    cdef uint32_t words, i, at
    cdef uint64_t raw = 0
    cdef uint16_t word
    if bits:  # functions 1 and 2: offset and count are bits, packed from the lowest
        for i in range(field.bit_count if field.bit_count > 0 else 1):
            at = field.offset + i
            if at >= BLOCK_REGS_MAX * 16:
                break
            raw |= <uint64_t>((regs[at >> 4] >> (at & 15)) & 1) << i
        return raw
    words = words_of(field.type)
    for i in range(words):
        at = field.offset + (words - 1 - i if field.flags & FIELD_LOW_WORD_FIRST else i)
        if at >= BLOCK_REGS_MAX:
            return 0
        word = regs[at]
        if field.flags & FIELD_BYTE_SWAP:
            word = swapped(word)
        raw = (raw << 16) | word
    if field.type == FIELD_BITS:
        raw = (raw >> field.bit_first) & ((<uint64_t>1 << field.bit_count) - 1)
    return raw


cdef bint value_of(const field_row_t* field, uint64_t raw, const point_t* image, double* value) noexcept nogil:
    """The field's value in the point's unit; 0 when it is not believable."""
    cdef float single
    cdef double number
    cdef uint32_t half
    cdef int exponent = 0
    if field.flags & FIELD_ONE_OF:
        value[0] = <double>(raw < 64 and (field.sentinel >> raw) & 1)
        return True
    if field.flags & FIELD_SENTINEL and raw == field.sentinel:
        return False
    if field.flags & FIELD_ACC and raw == 0:  # SunSpec: an accumulator at 0 is not implemented
        return False
    if field.type == FIELD_S16 or field.type == FIELD_SUNSSF:
        number = <double><int16_t>raw
    elif field.type == FIELD_S32:
        number = <double><int32_t>raw
    elif field.type == FIELD_S64:
        number = <double><int64_t>raw
    elif field.type == FIELD_F32:
        half = <uint32_t>raw
        memcpy(&single, &half, 4)
        number = <double>single
    elif field.type == FIELD_F64:
        memcpy(&number, &raw, 8)
    else:
        number = <double>raw
    if field.type == FIELD_SUNSSF and not -SF_MAX <= number <= SF_MAX:
        return False
    if field.flags & FIELD_SF_POINT:
        if not scale_exponent(image, field.sf_point, &exponent):
            return False
        # Division, because 10 ** -n is no exact double.
        number = number * TEN[exponent] if exponent >= 0 else number / TEN[-exponent]
    number = number * field.scale + field.offset_value
    if not isfinite(number):
        return False
    if not field.min <= number <= field.max:
        return False
    value[0] = number
    return True


cdef bint block_believable(const program_t* program, const block_row_t* block, const uint16_t* regs) noexcept nogil:
    cdef const field_row_t* field
    cdef uint32_t i
    cdef double value = 0.0
    for i in range(block.field_first, <uint32_t>block.field_first + block.field_count):
        field = &program.fields[i]
        if field.flags & FIELD_SF_POINT:  # the engine does not know the scale
            continue
        if not value_of(field, raw_of(field, regs, block.function <= 2), NULL, &value):
            return False
    return True


cdef void block_decode(const program_t* program, const done_t* done, point_t* image) noexcept nogil:
    cdef const block_row_t* block
    cdef const field_row_t* field
    cdef point_t* point
    cdef uint32_t i
    cdef int scales
    cdef bint bits
    cdef double value = 0.0
    if done.status != DONE_OK or done.block >= program.n_blocks:
        return
    block = &program.blocks[done.block]
    bits = block.function == 1 or block.function == 2
    # Scale factors first: a block may hold a value before the factor that belongs to it.
    for scales in range(1, -1, -1):
        for i in range(block.field_first, <uint32_t>block.field_first + block.field_count):
            field = &program.fields[i]
            if (field.type == FIELD_SUNSSF) != scales or <uint32_t>field.point >= program.n_points:
                continue
            point = &image[field.point]
            if value_of(field, raw_of(field, done.regs, bits), image, &value):
                point.value = value
                point.t_ns = done.t_sample_ns
                point.quality = QUALITY_GOOD
                point.changes += 1
            else:
                point.quality = QUALITY_INVALID


cdef int command_encode(const program_t* program, const command_row_t* row, double value, const point_t* image,
                        uint16_t* regs) noexcept nogil:
    cdef double number, nearest, lo, hi
    cdef float single
    cdef uint64_t raw = 0
    cdef uint32_t half, words = words_of(row.type), i
    cdef uint16_t word
    cdef int exponent = 0
    if not isfinite(value) or not isfinite(row.scale) or row.scale == 0.0:
        return 0
    number = value / row.scale
    if row.flags & FIELD_SF_POINT:
        if not scale_exponent(image, row.sf_point, &exponent):
            return 0
        number = number / TEN[exponent] if exponent >= 0 else number * TEN[-exponent]
    if not isfinite(number):
        return 0
    if row.type == FIELD_F32:
        if fabs(number) > 3.4e38:
            return 0
        single = <float>number
        memcpy(&half, &single, 4)
        raw = half
    elif row.type == FIELD_F64:
        memcpy(&raw, &number, 8)
    else:
        nearest = round(number)
        # A coarse register must not round a setpoint past what the gate let go; a billionth is the scale's own error.
        if row.kind == COMMAND_SETPOINT_W and fabs(nearest) > fabs(number) * (1.0 + 1e-9):
            nearest = trunc(number)
        # The type's range; 64 bits end where a double still counts in ones.
        lo = 0.0
        hi = 65535.0
        if row.type == FIELD_S16 or row.type == FIELD_SUNSSF:
            lo = -32768.0
            hi = 32767.0
        elif row.type == FIELD_U32:
            hi = 4294967295.0
        elif row.type == FIELD_S32:
            lo = -2147483648.0
            hi = 2147483647.0
        elif row.type == FIELD_U64:
            hi = 9007199254740992.0
        elif row.type == FIELD_S64:
            lo = -9007199254740992.0
            hi = 9007199254740992.0
        if not lo <= nearest <= hi:
            return 0
        raw = <uint64_t><int64_t>nearest
    for i in range(words):
        word = <uint16_t>(raw >> (16 * (words - 1 - i)))
        if row.flags & FIELD_BYTE_SWAP:
            word = swapped(word)
        regs[words - 1 - i if row.flags & FIELD_LOW_WORD_FIRST else i] = word
    return <int>words


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
    """Points after one finished block: {image row: (value, t_ns, quality, changes)} of the block's fields.

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
    for i in range(rows.blocks[block].field_first, rows.blocks[block].field_first + rows.blocks[block].field_count):
        at = rows.fields[<Py_ssize_t>i].point
        found[at] = (image[<Py_ssize_t>at].value, image[<Py_ssize_t>at].t_ns, image[<Py_ssize_t>at].quality,
                     image[<Py_ssize_t>at].changes)
    return found


def encode(bytes program not None, int command, double value, points=None):
    """Registers of `value` for one command row, in wire order; empty when the row cannot carry it."""
    cdef point_t[POINTS_MAX] image
    cdef uint16_t[4] regs
    cdef const program_t* rows = _program(program)
    if not 0 <= command < <int>rows.n_commands:
        raise IndexError(f"command {command} of {rows.n_commands}")
    _image_in(points or {}, image)
    cdef int count = command_encode(rows, &rows.commands[command], value, image, regs)
    return [regs[i] for i in range(count)]
