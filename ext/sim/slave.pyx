"""A Modbus RTU device as its masters see it, foreign ones included.

Written against the public Modbus specification and apart from the master in rtu.pyx, its CRC included: the two meet on
the wire only.
"""

from libc.math cimport floor
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from tidegate.ext.abi.program cimport (
    FIELD_BITS, FIELD_BYTE_SWAP, FIELD_F32, FIELD_F64, FIELD_LESS_NEXT, FIELD_LOW_WORD_FIRST, FIELD_ONE_OF, FIELD_S16, FIELD_S32,
    FIELD_S64, FIELD_SENTINEL, FIELD_SUNSSF, FIELD_U16, FIELD_U32, FIELD_U64, PART_DIRECTION, PART_MAGNITUDE,
    PART_SETPOINT,
)

cdef enum:  # exception
    ILLEGAL_FUNCTION = 1
    ILLEGAL_ADDRESS = 2
    ILLEGAL_VALUE = 3


# ---------------------------------------------------------------- frames


cdef uint16_t CRC_TABLE[256]


cdef void crc_table() noexcept nogil:
    cdef uint32_t byte, bit, crc
    for byte in range(256):
        crc = byte
        for bit in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
        CRC_TABLE[byte] = <uint16_t>crc


crc_table()


cdef uint16_t frame_crc(const uint8_t* bytes, uint32_t count) noexcept nogil:
    cdef uint32_t crc = 0xFFFF, i
    for i in range(count):
        crc = (crc >> 8) ^ CRC_TABLE[(crc ^ bytes[i]) & 0xFF]
    return <uint16_t>crc


cdef void frame_append_crc(uint8_t* bytes, uint32_t count) noexcept nogil:
    cdef uint16_t crc = frame_crc(bytes, count)
    bytes[count] = <uint8_t>(crc & 0xFF)
    bytes[count + 1] = <uint8_t>(crc >> 8)


cdef int request_length(const uint8_t* bytes, uint32_t count) noexcept nogil:
    if count < 2:
        return 0
    if 1 <= bytes[1] <= 6 or bytes[1] == 8:
        return 8
    if bytes[1] == 15 or bytes[1] == 16:
        return 9 + bytes[6] if count >= 7 else 0
    if bytes[1] == 22:
        return 10
    if bytes[1] == 23:
        return 13 + bytes[10] if count >= 11 else 0
    if bytes[1] == 7 or bytes[1] == 11 or bytes[1] == 12 or bytes[1] == 17:
        return 4
    if bytes[1] == 43:
        return 7
    return -1


# ---------------------------------------------------------------- numbers


cdef int type_words(int kind) noexcept nogil:
    if kind == FIELD_U32 or kind == FIELD_S32 or kind == FIELD_F32:
        return 2
    if kind == FIELD_U64 or kind == FIELD_S64 or kind == FIELD_F64:
        return 4
    return 1


cdef void value_words(double value, int kind, int flags, uint64_t sentinel, uint16_t* words) noexcept nogil:
    """The register words of a raw value: rounded, clipped to the type, in the device's own order."""
    cdef int n = type_words(kind), i
    cdef uint64_t raw
    cdef float single
    cdef double low = 0.0, high = 65535.0, rounded
    cdef uint16_t swap
    cdef uint32_t bits
    if kind == FIELD_F32:
        single = <float>value
        memcpy(&bits, &single, 4)
        raw = bits
    elif kind == FIELD_F64:
        memcpy(&raw, &value, 8)
    elif value != value:  # not a number
        raw = sentinel if flags & FIELD_SENTINEL else 0
    else:
        if kind == FIELD_S16 or kind == FIELD_SUNSSF:
            low = -32768.0
            high = 32767.0
        elif kind == FIELD_U32:
            high = 4294967295.0
        elif kind == FIELD_S32:
            low = -2147483648.0
            high = 2147483647.0
        elif kind == FIELD_U64:
            high = 9.0e15
        elif kind == FIELD_S64:
            low = -9.0e15
            high = 9.0e15
        rounded = floor(value + 0.5)
        rounded = low if rounded < low else (high if rounded > high else rounded)
        raw = <uint64_t><int64_t>rounded
    for i in range(n):
        words[n - 1 - i] = <uint16_t>(raw & 0xFFFF)
        raw >>= 16
    if flags & FIELD_LOW_WORD_FIRST:
        for i in range(n // 2):
            swap = words[i]
            words[i] = words[n - 1 - i]
            words[n - 1 - i] = swap
    if flags & FIELD_BYTE_SWAP:
        for i in range(n):
            words[i] = <uint16_t>((words[i] << 8) | (words[i] >> 8))


cdef double words_value(const uint16_t* words, int kind, int flags) noexcept nogil:
    cdef int n = type_words(kind), i
    cdef uint64_t raw = 0
    cdef uint16_t word
    cdef uint32_t bits
    cdef float single
    cdef double double_value
    for i in range(n):
        word = words[n - 1 - i] if flags & FIELD_LOW_WORD_FIRST else words[i]
        if flags & FIELD_BYTE_SWAP:
            word = <uint16_t>((word << 8) | (word >> 8))
        raw = (raw << 16) | word
    if kind == FIELD_F32:
        bits = <uint32_t>raw
        memcpy(&single, &bits, 4)
        return single
    if kind == FIELD_F64:
        memcpy(&double_value, &raw, 8)
        return double_value
    if kind == FIELD_S16 or kind == FIELD_SUNSSF:
        return <double><int16_t>raw
    if kind == FIELD_S32:
        return <double><int32_t>raw
    if kind == FIELD_S64:
        return <double><int64_t>raw
    return <double>raw


# ---------------------------------------------------------------- registers


cdef range_t* range_of(slave_t* slave, uint32_t space, uint32_t address, uint32_t count, uint32_t write) noexcept nogil:
    """The range that holds all of address .. address + count - 1; neighbouring ranges were merged at build time."""
    cdef uint32_t i
    cdef range_t* row
    for i in range(slave.n_ranges):
        row = &slave.ranges[i]
        if row.writable == write and row.space == space and row.first <= address and address + count <= row.first + row.count:
            return row
    return NULL


cdef uint16_t one_of_word(uint64_t members, int inside) noexcept nogil:
    """The lowest register value that is, or is not, one of `members` (a set of bits)."""
    cdef uint32_t i
    for i in range(64):
        if ((members >> i) & 1) == (1 if inside else 0):
            return <uint16_t>i
    return 0xFFFF


cdef void registers_refresh(slave_t* slave, uint32_t space, uint32_t address, uint32_t count) noexcept nogil:
    """Put the plant's variables into the words that are about to be read."""
    cdef uint32_t lo = 0, hi = slave.n_bindings, middle, key = (space << 16) | address, end
    cdef binding_t* row
    cdef uint16_t* word
    cdef uint32_t mask
    cdef double raw
    while lo < hi:  # first binding that ends behind the address; bindings do not overlap but for bit fields
        middle = (lo + hi) // 2
        row = &slave.bindings[middle]
        if ((row.space << 16) | row.address) + row.words <= key:
            lo = middle + 1
        else:
            hi = middle
    end = key + count
    while lo < slave.n_bindings:
        row = &slave.bindings[lo]
        if ((row.space << 16) | row.address) >= end:
            break
        raw = (row.source[0] - row.offset) / row.scale
        word = &slave.words[space][row.address]
        if row.type == FIELD_BITS:
            mask = ((1u << row.bit_count) - 1u) << row.bit_first
            word[0] = <uint16_t>((word[0] & ~mask) | ((<uint32_t>raw << row.bit_first) & mask))
        elif row.flags & FIELD_ONE_OF:
            word[0] = one_of_word(row.sentinel, raw != 0.0)
        elif space < SPACE_HOLDING:
            word[0] = 1 if raw != 0.0 else 0
        elif row.flags & FIELD_LESS_NEXT:
            value_words(raw if raw > 0.0 else 0.0, row.type, row.flags, row.sentinel, word)
            value_words(-raw if raw < 0.0 else 0.0, row.type, row.flags, row.sentinel, word + row.words // 2)
        else:
            value_words(raw, row.type, row.flags, row.sentinel, word)
        lo += 1


cdef double setpoint_of(slave_t* slave, const write_t* row, double value) noexcept nogil:
    """The setpoint that a device follows whose direction, charge and discharge stand in registers of their own."""
    cdef uint32_t i
    cdef bint directed = False
    if row.of == PART_DIRECTION:
        slave.told[3] = 1.0 if value == row.discharge else -1.0 if value == row.charge else 0.0
    else:
        slave.told[row.of - PART_MAGNITUDE] = value  # magnitude, charge, discharge
    for i in range(slave.n_writes):
        directed = directed or slave.writes[i].of == PART_DIRECTION
    if not directed:
        return slave.told[2] - slave.told[1]
    if slave.told[3] > 0.0:
        return slave.told[0] + slave.told[2]
    return -slave.told[0] - slave.told[1] if slave.told[3] < 0.0 else 0.0


cdef void registers_written(slave_t* slave, uint32_t space, uint32_t address, uint32_t count) noexcept nogil:
    cdef uint32_t i
    cdef double value
    cdef write_t* row
    for i in range(slave.n_writes):
        row = &slave.writes[i]
        if row.space != space or row.address >= address + count or row.address + row.words <= address:
            continue
        if row.target != NULL:
            value = words_value(&slave.words[space][row.address], row.type, row.flags)
            value = (value - row.zero) * row.scale
            row.target[0] = value if row.of == PART_SETPOINT else setpoint_of(slave, row, value)
        slave.written[slave.written_count] = <int32_t>i
        slave.written_count += 1


# ---------------------------------------------------------------- one request


cdef int refuse(slave_t* slave, const uint8_t* request, int code, uint8_t* reply, uint32_t* length) noexcept nogil:
    slave.exceptions += 1
    reply[0] = request[0]
    reply[1] = request[1] | 0x80
    reply[2] = <uint8_t>code
    frame_append_crc(reply, 3)
    length[0] = 5
    return REPLY_EXCEPTION


cdef int slave_answer(slave_t* slave, const uint8_t* request, uint32_t count, uint8_t* reply,
                      uint32_t* length) noexcept nogil:
    cdef uint32_t function, address, quantity, space, i, n
    cdef uint16_t* words
    cdef int broadcast
    slave.written_count = 0
    if count < 4 or request_length(request, count) > <int>count:
        return REPLY_NONE
    if frame_crc(request, count - 2) != (request[count - 2] | (<uint16_t>request[count - 1] << 8)):
        return REPLY_NONE
    broadcast = request[0] == 0
    if request[0] != slave.unit_id and not broadcast:
        return REPLY_NONE
    slave.requests += 1
    function = request[1]
    address = (<uint32_t>request[2] << 8) | request[3]
    quantity = (<uint32_t>request[4] << 8) | request[5] if count >= 8 else 0

    if 1 <= function <= 4:
        if broadcast:
            return REPLY_NONE
        space = function - 1
        if function == 3:
            space = SPACE_HOLDING
        elif function == 4:
            space = SPACE_INPUT
        if quantity == 0 or quantity > <uint32_t>(slave.read_max if function >= 3 else 2000):
            return refuse(slave, request, ILLEGAL_VALUE, reply, length)
        if range_of(slave, space, address, quantity, 0) == NULL:
            return refuse(slave, request, ILLEGAL_ADDRESS, reply, length)
        registers_refresh(slave, space, address, quantity)
        slave.reads += 1
        words = &slave.words[space][address]
        reply[0] = request[0]
        reply[1] = <uint8_t>function
        if function >= 3:
            n = 2 * quantity
            for i in range(quantity):
                reply[3 + 2 * i] = <uint8_t>(words[i] >> 8)
                reply[4 + 2 * i] = <uint8_t>(words[i] & 0xFF)
        else:
            n = (quantity + 7) // 8
            for i in range(n):
                reply[3 + i] = 0
            for i in range(quantity):
                if words[i]:
                    reply[3 + i // 8] |= <uint8_t>(1u << (i % 8))
        reply[2] = <uint8_t>n
        frame_append_crc(reply, 3 + n)
        length[0] = 5 + n
        return REPLY_DATA

    if function == 5 or function == 6:
        space = SPACE_COILS if function == 5 else SPACE_HOLDING
        if range_of(slave, space, address, 1, 1) == NULL:
            return REPLY_NONE if broadcast else refuse(slave, request, ILLEGAL_ADDRESS, reply, length)
        if function == 5 and quantity != 0 and quantity != 0xFF00:
            return REPLY_NONE if broadcast else refuse(slave, request, ILLEGAL_VALUE, reply, length)
        slave.words[space][address] = <uint16_t>(quantity if function == 6 else (1 if quantity else 0))
        registers_written(slave, space, address, 1)
        slave.writes_done += 1
        memcpy(reply, request, 8)
        length[0] = 8
        return REPLY_NONE if broadcast else REPLY_DATA

    if function == 15 or function == 16:
        space = SPACE_COILS if function == 15 else SPACE_HOLDING
        n = 2 * quantity if function == 16 else (quantity + 7) // 8
        if quantity == 0 or n > 246 or request[6] != n:
            return REPLY_NONE if broadcast else refuse(slave, request, ILLEGAL_VALUE, reply, length)
        if range_of(slave, space, address, quantity, 1) == NULL:
            return REPLY_NONE if broadcast else refuse(slave, request, ILLEGAL_ADDRESS, reply, length)
        for i in range(quantity):
            if function == 16:
                slave.words[space][address + i] = <uint16_t>((request[7 + 2 * i] << 8) | request[8 + 2 * i])
            else:
                slave.words[space][address + i] = (request[7 + i // 8] >> (i % 8)) & 1
        registers_written(slave, space, address, quantity)
        slave.writes_done += 1
        memcpy(reply, request, 6)
        frame_append_crc(reply, 6)
        length[0] = 8
        return REPLY_NONE if broadcast else REPLY_DATA

    if function == 8 and address == 0 and not broadcast:  # diagnostics, return query data
        memcpy(reply, request, 8)
        length[0] = 8
        return REPLY_DATA
    return REPLY_NONE if broadcast else refuse(slave, request, ILLEGAL_FUNCTION, reply, length)
