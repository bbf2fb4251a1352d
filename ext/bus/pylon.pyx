"""Pylontech's RS-485 protocol: a question of a pack as ASCII, its answer checked and laid out as registers.

A frame is `~`, version, address, 46, command (in an answer: how it went), length, content and checksum in hexadecimal
digits, and a carriage return. The content's places depend on how many cells and sensors the pack has, so the answer is
laid out anew, and a device map reads it like registers: the high byte of an address is the command, the low byte the
place in the tables below. An answer does not say which command it is for. It is believed if its address and pack are
those asked for, both checksums are right, and its length is exactly what its own counts make of that command.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int16_t
from libc.string cimport memcmp, memcpy, memset

cdef enum:
    SOI = 0x7E           # "~"
    EOI = 0x0D
    HEAD = 12            # digits in front of the content: version, address, 46, command or result, length
    TAIL = 4             # digits of the checksum
    LENGTH_MOST = 0xFFF
    BATTERY = 0x46       # CID1: lithium iron phosphate
    CELLS_MOST = 32
    SENSORS_MOST = 12    # more, and the content of one command could be read as another's
    ANALOG_REST = 11     # bytes behind the sensors
    LARGE = 3            # so many items follow: capacities beyond 65 Ah come again in three bytes each
    LARGE_REST = 6
    ALARMS_REST = 8
    NO_STATES = 0x8000   # beyond all bits of the states
    LIMITS_BYTES = 10
    ILLEGAL_FUNCTION = 1
    ILLEGAL_VALUE = 3
    BUSY = 6
    NO_ANSWER = 11       # a gateway's: the device behind it did not answer


cdef inline int digit(uint8_t c) noexcept nogil:
    if 48 <= c <= 57:
        return c - 48
    return c - 55 if 65 <= c <= 70 else -1


cdef inline uint32_t byte_at(const uint8_t* p) noexcept nogil:
    return <uint32_t>(digit(p[0]) << 4 | digit(p[1]))


cdef inline uint32_t word_at(const uint8_t* p) noexcept nogil:
    return byte_at(p) << 8 | byte_at(p + 2)


cdef inline uint8_t digit_of(uint32_t value) noexcept nogil:
    return <uint8_t>(48 + value if value < 10 else 55 + value)


cdef inline void put_byte(uint8_t* at, uint32_t value) noexcept nogil:
    at[0], at[1] = digit_of(value >> 4 & 15), digit_of(value & 15)


cdef inline uint32_t length_check(uint32_t length) noexcept nogil:
    """The digit in front of a length: with the length's own digits it makes a multiple of 16."""
    return 0u - ((length >> 8) + (length >> 4 & 15) + (length & 15)) & 15


cdef uint32_t checksum(const uint8_t* p, uint32_t count) noexcept nogil:
    cdef uint32_t i, total = 0
    for i in range(count):
        total += p[i]
    return 0u - total & 0xFFFF


# ---------------------------------------------------------------- question


cdef void pylon_ask(pylon_t* line, const uint8_t* request) noexcept nogil:
    cdef uint32_t command = request[2], content = 0 if command == PYLON_VERSION else 2, total
    cdef uint8_t* tx = line.tx
    memcpy(line.question, request, 6)
    line.rx_len = line.strays = 0
    tx[0] = SOI
    put_byte(tx + 1, 0x20)
    put_byte(tx + 3, request[0])
    put_byte(tx + 5, BATTERY)
    put_byte(tx + 7, command)
    put_byte(tx + 9, length_check(content) << 4)
    put_byte(tx + 11, content)
    if content:
        put_byte(tx + 13, request[0])
    total = checksum(tx + 1, HEAD + content)
    put_byte(tx + 1 + HEAD + content, total >> 8)
    put_byte(tx + 3 + HEAD + content, total & 0xFF)
    tx[1 + HEAD + content + TAIL] = EOI
    line.tx_len = 2 + HEAD + content + TAIL


# ---------------------------------------------------------------- answer


cdef int pylon_next(pylon_t* line, const uint8_t* bytes, uint32_t count, uint32_t* used) noexcept nogil:
    cdef uint8_t c
    while used[0] < count:
        c = bytes[used[0]]
        used[0] += 1
        if c == SOI:  # half a frame before it is none
            line.strays += line.rx_len
            line.rx[0] = c
            line.rx_len = 1
        elif line.rx_len == 0:
            line.strays += 1
        elif line.rx_len == PYLON_RX:
            line.strays += line.rx_len + 1
            line.rx_len = 0
        else:
            line.rx[line.rx_len] = c
            line.rx_len += 1
            if c == EOI:
                return ended(line)
    return PYLON_NONE


cdef void pylon_cut(pylon_t* line) noexcept nogil:
    line.rx_len = line.strays = 0


cdef int ended(pylon_t* line) noexcept nogil:
    """What the frame in `rx` is."""
    cdef uint32_t n = line.rx_len - 2, length, i
    cdef const uint8_t* p = line.rx + 1
    line.rx_len = 0
    if n + 2 == line.tx_len and memcmp(line.rx, line.tx, line.tx_len) == 0:
        return PYLON_ECHO
    if n < HEAD + TAIL:
        return PYLON_DAMAGED
    for i in range(n):
        if digit(p[i]) < 0:
            return PYLON_DAMAGED
    if word_at(p + n - TAIL) != checksum(p, n - TAIL):
        return PYLON_DAMAGED
    length = word_at(p + 8)
    if length >> 12 != length_check(length & LENGTH_MOST) or (length & LENGTH_MOST) != n - HEAD - TAIL:
        return PYLON_DAMAGED
    answer(line, p, n - HEAD - TAIL)
    return PYLON_FRAME


cdef void answer(pylon_t* line, const uint8_t* p, uint32_t length) noexcept nogil:
    """The reply that Modbus would have given: registers, an exception, or, where it is no answer to the question, nothing."""
    cdef uint16_t[PYLON_WORDS] words
    cdef uint32_t first = line.question[3], count = <uint32_t>line.question[4] << 8 | line.question[5], n, i
    cdef uint8_t* reply = line.reply
    reply[0], reply[1], reply[2] = <uint8_t>byte_at(p + 2), line.question[1], 0
    line.reply_len = 3
    if byte_at(p + 4) != BATTERY:
        reply[0] = 0
        return
    if byte_at(p + 6):
        reply[1] |= 0x80
        reply[2] = exception_of(byte_at(p + 6))
        return
    n = laid_out(line.question, p + HEAD, length, words)
    if n == 0 or first + count > n:
        return
    reply[2] = <uint8_t>(2 * count)
    for i in range(count):
        reply[3 + 2 * i] = <uint8_t>(words[first + i] >> 8)
        reply[4 + 2 * i] = <uint8_t>words[first + i]
    line.reply_len = 3 + 2 * count


cdef uint8_t exception_of(uint32_t result) noexcept nogil:
    """The result of an answer as an exception: no such address or pack, no such command, a question that came damaged."""
    if result == 0x90 or result == 0x91:
        return NO_ANSWER
    if result == 4:
        return ILLEGAL_FUNCTION
    return BUSY if result == 2 or result == 3 else ILLEGAL_VALUE


cdef uint32_t laid_out(const uint8_t* question, const uint8_t* p, uint32_t length, uint16_t* words) noexcept nogil:
    """The content as registers; how many there are, 0 = it is not the content of such an answer."""
    cdef uint32_t command = question[2]
    memset(words, 0, PYLON_WORDS * sizeof(uint16_t))
    if command == PYLON_VERSION:
        return PYLON_WORDS if length == 0 else 0
    if command == PYLON_LIMITS:
        return limits(question, p, length // 2, words) if length % 2 == 0 else 0
    if length % 2 or length < 8 or byte_at(p + 2) != question[0]:
        return 0
    if command == PYLON_ANALOG:
        return analog(p, length // 2, words)
    return alarms(p, length // 2, words) if command == PYLON_ALARMS else 0


cdef uint32_t limits(const uint8_t* question, const uint8_t* p, uint32_t n, uint16_t* words) noexcept nogil:
    """Charge and discharge voltage (mV), charge and discharge current (0.1 A, the latter negative), status."""
    cdef uint32_t i
    if n != LIMITS_BYTES or byte_at(p) != question[0]:
        return 0
    for i in range(4):
        words[i] = <uint16_t>word_at(p + 2 + 4 * i)
    words[4] = <uint16_t>byte_at(p + 18)
    return 5


cdef bint extremes(const uint8_t* p, uint32_t count, uint16_t* words) noexcept nogil:
    """Count, highest, lowest."""
    cdef int value, high = -32768, low = 32767
    cdef uint32_t i
    for i in range(count):
        value = <int16_t>word_at(p + 4 * i)
        high = value if value > high else high
        low = value if value < low else low
    words[0], words[1], words[2] = <uint16_t>count, <uint16_t>high, <uint16_t>low
    return count > 0


cdef uint32_t analog(const uint8_t* p, uint32_t n, uint16_t* words) noexcept nogil:
    """Cells, highest, lowest (mV); sensors, warmest, coldest (0.1 K); current (0.1 A, + charge), voltage (mV); charge left
    and in all (mAh, two words each), the first as a share of the second (1/10000), cycles."""
    cdef uint32_t cells = byte_at(p + 4), sensors, left, whole, share
    cdef const uint8_t* at = p + 6 + 4 * cells
    if cells > CELLS_MOST or n < 4 + 2 * cells + ANALOG_REST or not extremes(p + 6, cells, words):
        return 0
    sensors = byte_at(at)
    if sensors > SENSORS_MOST or n < 4 + 2 * cells + 2 * sensors + ANALOG_REST or not extremes(at + 2, sensors, words + 3):
        return 0
    at += 2 + 4 * sensors
    words[6], words[7] = <uint16_t>word_at(at), <uint16_t>word_at(at + 4)
    left, whole = word_at(at + 8), word_at(at + 14)
    words[13] = <uint16_t>word_at(at + 18)
    if n != 4 + 2 * cells + 2 * sensors + ANALOG_REST + (LARGE_REST if byte_at(at + 12) >= LARGE else 0):
        return 0
    if byte_at(at + 12) >= LARGE:
        left = word_at(at + 22) << 8 | byte_at(at + 26)
        whole = word_at(at + 28) << 8 | byte_at(at + 32)
    words[8], words[9] = <uint16_t>(left >> 16), <uint16_t>left
    words[10], words[11] = <uint16_t>(whole >> 16), <uint16_t>whole
    share = <uint32_t>(<unsigned long long>left * 10000 // whole) if whole else 0xFFFF
    words[12] = <uint16_t>(share if share < 0xFFFF else 0xFFFF)
    return 14


cdef uint32_t against(const uint8_t* p, uint32_t count) noexcept nogil:
    """Measured values against their limits: 1 = one is below, 2 = above, 4 = otherwise not in order; NO_STATES: it is none.

    What no state says is the high byte of a cell's voltage: so the answer to the other question never passes for this.
    """
    cdef uint32_t i, state, found = 0
    for i in range(count):
        state = byte_at(p + 2 * i)
        if 2 < state < 0x80:
            return NO_STATES
        found |= state if state <= 2 else 4
    return found


cdef uint32_t alarms(const uint8_t* p, uint32_t n, uint16_t* words) noexcept nogil:
    """Cells; what lies beside its limits, three bits each (cells, sensors, charge current, voltage, discharge current);
    protections, with bit 8 for a cell that has failed; states; more states; the cells that have failed."""
    cdef uint32_t cells = byte_at(p + 4), sensors, i, found
    cdef const uint8_t* at = p + 6 + 2 * cells
    if cells == 0 or cells > CELLS_MOST or n < 4 + cells + ALARMS_REST:
        return 0
    sensors = byte_at(at)
    if sensors == 0 or sensors > SENSORS_MOST or n != 4 + cells + sensors + ALARMS_REST:
        return 0
    words[0] = <uint16_t>cells
    found = against(p + 6, cells) | against(at + 2, sensors) << 3
    at += 2 + 2 * sensors
    for i in range(3):
        found |= against(at + 2 * i, 1) << (6 + 3 * i)
    if found >= NO_STATES:
        return 0
    words[1] = <uint16_t>found
    words[5] = <uint16_t>(byte_at(at + 14) << 8 | byte_at(at + 12))
    words[2] = <uint16_t>(byte_at(at + 6) | (0x100 if words[5] else 0))
    words[3], words[4] = <uint16_t>byte_at(at + 8), <uint16_t>byte_at(at + 10)
    return 6


# ---------------------------------------------------------------- what Python sees

# Characters of the longest question, and of an answer of each command from a pack of 16 cells and 6 sensors.
QUESTION_CHARS = 2 + HEAD + 2 + TAIL
ANSWER_CHARS = {
    PYLON_ANALOG: 2 + HEAD + 2 * (4 + 2 * 16 + 2 * 6 + ANALOG_REST + LARGE_REST) + TAIL,
    PYLON_ALARMS: 2 + HEAD + 2 * (4 + 16 + 6 + ALARMS_REST) + TAIL,
    PYLON_LIMITS: 2 + HEAD + 2 * LIMITS_BYTES + TAIL,
}
WORDS = {PYLON_ANALOG: 14, PYLON_ALARMS: 6, PYLON_LIMITS: 5}
_STATUS = {PYLON_FRAME: "frame", PYLON_DAMAGED: "damaged", PYLON_ECHO: "echo"}


def ask(bytes request not None) -> bytes:
    """The frame of a read request (unit, function, address, count). ValueError for one that is none."""
    cdef pylon_t line
    if len(request) != 6:
        raise ValueError(f"request: {len(request)} bytes, expected 6")
    memset(&line, 0, sizeof(line))
    pylon_ask(&line, <const uint8_t*>PyBytes_AS_STRING(request))
    return PyBytes_FromStringAndSize(<const char*>line.tx, line.tx_len)


def answers(bytes request not None, bytes came not None) -> list[tuple[str, bytes]]:
    """(what it is, the reply without CRC) of each frame in `came` after this request."""
    cdef pylon_t line
    cdef uint32_t used = 0
    cdef int status
    if len(request) != 6:
        raise ValueError(f"request: {len(request)} bytes, expected 6")
    memset(&line, 0, sizeof(line))
    pylon_ask(&line, <const uint8_t*>PyBytes_AS_STRING(request))
    found = []
    while True:
        status = pylon_next(&line, <const uint8_t*>PyBytes_AS_STRING(came), <uint32_t>PyBytes_GET_SIZE(came), &used)
        if status == PYLON_NONE:
            return found
        reply = PyBytes_FromStringAndSize(<const char*>line.reply, line.reply_len) if status == PYLON_FRAME else b""
        found.append((_STATUS[status], reply))
