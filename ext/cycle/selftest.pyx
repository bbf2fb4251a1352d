"""What the core tests of itself while it runs: program, machine code, the gates' memory, the order of phases, clocks.

Nothing here decides anything: what is found becomes a row of the fault table, and the gate does the rest. Found is only
what changes while the core runs; before it starts, the program's SHA-256 is checked.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from tidegate.ext.abi.program cimport program_t
from tidegate.ext.abi.shared cimport PHASE_ESTIMATE, PHASE_LIMIT, PHASE_PUBLISH, PHASE_READ, PHASE_CONTROL, PHASE_WRITE
from tidegate.ext.safety.diagnosis cimport FAULT_CLOCK_APART, FAULT_FLOW_BROKEN, FAULT_MEMORY_CHANGED, mark
from tidegate.ext.safety.safety cimport GATE_FAULTS_MAX, fault_set_t, gate_state_t

cdef enum:
    BEFORE_WRITE = ((PHASE_READ + 1) << 9) | ((PHASE_ESTIMATE + 1) << 6) | ((PHASE_CONTROL + 1) << 3) | (PHASE_LIMIT + 1)
    WHOLE_CYCLE = (BEFORE_WRITE << 6) | ((PHASE_WRITE + 1) << 3) | (PHASE_PUBLISH + 1)


# ---------------------------------------------------------------- the program


cdef uint32_t CRC_TABLE[8][256]  # of a byte, and of one that so many others follow


cdef void crc_table() noexcept nogil:
    """CRC-32 as in IEEE 802.3: every burst of up to 32 bits and every odd number of flipped bits is found."""
    cdef uint32_t byte, bit, crc, follow
    for byte in range(256):
        crc = byte
        for bit in range(8):
            crc = (crc >> 1) ^ 0xEDB88320u if crc & 1 else crc >> 1
        CRC_TABLE[0][byte] = crc
    for follow in range(1, 8):
        for byte in range(256):
            crc = CRC_TABLE[follow - 1][byte]
            CRC_TABLE[follow][byte] = (crc >> 8) ^ CRC_TABLE[0][crc & 0xFF]


crc_table()


cdef inline uint32_t crc_more(uint32_t crc, const uint8_t* bytes, size_t count) noexcept nogil:
    """Eight bytes at once, as far as they go: the sum is the same as of one after the other."""
    cdef size_t i = 0
    while i + 8 <= count:
        crc ^= bytes[i] | <uint32_t>bytes[i + 1] << 8 | <uint32_t>bytes[i + 2] << 16 | <uint32_t>bytes[i + 3] << 24
        crc = (CRC_TABLE[7][crc & 0xFF] ^ CRC_TABLE[6][crc >> 8 & 0xFF] ^ CRC_TABLE[5][crc >> 16 & 0xFF]
               ^ CRC_TABLE[4][crc >> 24] ^ CRC_TABLE[3][bytes[i + 4]] ^ CRC_TABLE[2][bytes[i + 5]]
               ^ CRC_TABLE[1][bytes[i + 6]] ^ CRC_TABLE[0][bytes[i + 7]])
        i += 8
    while i < count:
        crc = (crc >> 8) ^ CRC_TABLE[0][(crc ^ bytes[i]) & 0xFF]
        i += 1
    return crc


cdef void selftest_begin(selftest_t* test, const program_t* program) noexcept nogil:
    test.found = test.given = 0
    test.crc = 0xFFFFFFFFu
    test.at = 0
    test.reference = crc_more(0xFFFFFFFFu, <const uint8_t*>program, sizeof(program_t))
    test.inverse_reference = ~test.reference
    test.marks = WHOLE_CYCLE
    test.gated = 0
    test.t_ns = 0


cdef void selftest_program(selftest_t* test, const program_t* program) noexcept nogil:
    cdef size_t left = sizeof(program_t) - test.at
    cdef uint32_t count = <uint32_t>SELFTEST_BYTES if left > <size_t>SELFTEST_BYTES else <uint32_t>left
    test.crc = crc_more(test.crc, <const uint8_t*>program + test.at, count)
    test.at += count
    if test.at < sizeof(program_t):
        return
    if test.crc == test.reference and test.inverse_reference == ~test.reference:
        test.found &= ~<uint32_t>SELFTEST_PROGRAM
    else:
        test.found |= SELFTEST_PROGRAM
    test.crc = 0xFFFFFFFFu
    test.at = 0


# ---------------------------------------------------------------- the machine code


cdef void code_rewind(selftest_t* test) noexcept nogil:
    test.code_crc = 0xFFFFFFFFu
    test.code_span = 0
    test.code_at = 0


cdef bint code_more(selftest_t* test) noexcept nogil:
    """The next bytes into the sum; whether that was the last of them."""
    cdef const code_span_t* span = &test.code[test.code_span]
    cdef uint64_t left = span.size - test.code_at
    cdef size_t count = <size_t>SELFTEST_CODE_BYTES if left > <uint64_t>SELFTEST_CODE_BYTES else <size_t>left
    test.code_crc = crc_more(test.code_crc, span.start + test.code_at, count)
    test.code_at += count
    if test.code_at < span.size:
        return False
    test.code_at = 0
    test.code_span += 1
    return test.code_span >= test.code_spans


cdef void selftest_code_begin(selftest_t* test) noexcept nogil:
    code_rewind(test)
    while test.code_spans and not code_more(test):
        pass
    test.code_reference = test.code_crc
    test.code_inverse_reference = ~test.code_reference
    code_rewind(test)


cdef void selftest_code(selftest_t* test) noexcept nogil:
    if test.code_spans == 0 or not code_more(test):
        return
    if test.code_crc == test.code_reference and test.code_inverse_reference == ~test.code_reference:
        test.found &= ~<uint32_t>SELFTEST_CODE
    else:
        test.found |= SELFTEST_CODE
    code_rewind(test)


# ---------------------------------------------------------------- the gates' memory


cdef void selftest_keep(selftest_t* test, uint32_t unit, const gate_state_t* gate) noexcept nogil:
    cdef const uint64_t* words = <const uint64_t*>gate
    cdef uint64_t* inverse = <uint64_t*>&test.inverse[unit]
    cdef size_t i
    for i in range(sizeof(gate_state_t) // sizeof(uint64_t)):
        inverse[i] = ~words[i]


cdef void selftest_hold(selftest_t* test, uint32_t unit, gate_state_t* gate) noexcept nogil:
    cdef const uint64_t* words = <const uint64_t*>gate
    cdef const uint64_t* inverse = <const uint64_t*>&test.inverse[unit]
    cdef uint64_t differ = 0
    cdef size_t i
    for i in range(sizeof(gate_state_t) // sizeof(uint64_t)):
        differ |= words[i] ^ ~inverse[i]
    if differ == 0:
        return
    test.found |= SELFTEST_GATE
    for i in range(<size_t>GATE_FAULTS_MAX):
        if gate.rows[i].latched or test.inverse[unit].rows[i].latched != 0xFF:
            gate.rows[i].latched = 1
    gate.tripped = 1
    gate.busy = 1


# ---------------------------------------------------------------- program flow


cdef void selftest_mark(selftest_t* test, int phase) noexcept nogil:
    test.marks = (test.marks << 3) | <uint32_t>(phase + 1)


cdef void selftest_cycle(selftest_t* test) noexcept nogil:
    if test.marks != WHOLE_CYCLE:
        test.found |= SELFTEST_FLOW
    test.marks = test.gated = 0


cdef bint selftest_may_write(selftest_t* test, uint32_t units) noexcept nogil:
    if test.marks == BEFORE_WRITE and test.gated == units:
        return True
    test.found |= SELFTEST_FLOW
    return False


# ---------------------------------------------------------------- clocks


cdef inline bint part(uint64_t t_ns, uint64_t t0_ns, uint64_t other_ns, uint64_t other0_ns, uint64_t apart_ns) noexcept nogil:
    cdef int64_t off_ns = <int64_t>(t_ns - t0_ns) - <int64_t>(other_ns - other0_ns)
    return <uint64_t>(off_ns if off_ns >= 0 else -off_ns) > apart_ns


cdef void selftest_clocks(selftest_t* test, uint64_t t_ns, uint64_t raw_ns, uint64_t boot_ns, uint64_t apart_ns) noexcept nogil:
    cdef uint64_t since_ns = t_ns - test.t_ns
    if test.t_ns and since_ns < 4 * <uint64_t>SELFTEST_WINDOW_NS:  # after longer even a good clock has drifted
        if part(t_ns, test.t_ns, raw_ns, test.raw_ns, apart_ns) or part(t_ns, test.t_ns, boot_ns, test.boot_ns, apart_ns):
            test.found |= SELFTEST_CLOCK
        elif since_ns < <uint64_t>SELFTEST_WINDOW_NS:
            return
    test.t_ns = t_ns
    test.raw_ns = raw_ns
    test.boot_ns = boot_ns


# ---------------------------------------------------------------- what comes of it


cdef uint32_t selftest_take(selftest_t* test) noexcept nogil:
    cdef uint32_t found = test.found
    test.found &= SELFTEST_PROGRAM | SELFTEST_CODE  # the next whole look at it decides; the others are said once
    return found | test.given


cdef void selftest_rows(uint32_t found, fault_set_t* rows) noexcept nogil:
    mark(rows, FAULT_MEMORY_CHANGED, (found & (SELFTEST_PROGRAM | SELFTEST_GATE | SELFTEST_CODE)) != 0)
    mark(rows, FAULT_FLOW_BROKEN, (found & SELFTEST_FLOW) != 0)
    mark(rows, FAULT_CLOCK_APART, (found & SELFTEST_CLOCK) != 0)


# ---------------------------------------------------------------- what Python sees


def crc_of(bytes data not None):
    """The sum of some bytes, as zlib.crc32 gives it; for tests."""
    return crc_more(0xFFFFFFFFu, <const uint8_t*>data, len(data)) ^ <uint32_t>0xFFFFFFFFu
