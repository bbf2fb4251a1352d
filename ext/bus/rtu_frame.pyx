"""Modbus RTU frames: checksums, lengths, the silence between them, and whether what came is the reply that was asked for."""

from libc.string cimport memcmp

from tidegate.ext.abi.port_mail cimport (
    DONE_CRC, DONE_ECHO, DONE_EXCEPTION, DONE_MISMATCH, DONE_OK, DONE_SHORT, DONE_TIMEOUT,
)
from tidegate.ext.abi.program cimport (
    BLOCK_REGS_MAX, GAP_CHARS, GAP_FIXED, block_row_t, port_row_t,
)
from tidegate.ext.bus.rtu cimport RTU_BLOCK
from tidegate.ext.bus.rtu_slave cimport count_foreign_bytes, note_stray_bytes

cdef enum:
    WRONG = -2  # a whole frame that is not the reply

cdef uint16_t[256] CRC_TABLE


cdef void crc_init() noexcept nogil:
    cdef uint32_t byte, bit, crc
    for byte in range(256):
        crc = byte
        for bit in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
        CRC_TABLE[byte] = <uint16_t>crc


crc_init()


cdef uint16_t crc16(const uint8_t* bytes, uint32_t count) noexcept nogil:
    cdef uint32_t i
    cdef uint16_t crc = 0xFFFF
    for i in range(count):
        crc = <uint16_t>((crc >> 8) ^ CRC_TABLE[(crc ^ bytes[i]) & 0xFF])
    return crc


cdef inline bint crc_good(const uint8_t* frame, uint32_t count) noexcept nogil:
    return crc16(frame, count - 2) == <uint16_t>(frame[count - 2] | (frame[count - 1] << 8))


cdef uint32_t crc_append(uint8_t* frame, uint32_t count) noexcept nogil:
    """Append the CRC, low byte first; returns the whole length."""
    cdef uint16_t crc = crc16(frame, count)
    frame[count] = <uint8_t>crc
    frame[count + 1] = <uint8_t>(crc >> 8)
    return count + 2


cdef uint16_t predicted(const uint8_t* frame, uint32_t count) noexcept nogil:
    """Bytes of a good reply to this request (without CRC); 0 = the reply tells (43/14) or nobody knows."""
    cdef uint8_t function = frame[1]
    cdef uint32_t wanted
    if function in (1, 2, 3, 4, 23) and count >= 6:
        wanted = <uint32_t>(frame[4] << 8 | frame[5])
        if 1 <= wanted <= (2000u if function <= 2 else <uint32_t>BLOCK_REGS_MAX):
            return read_reply(function, wanted)
    elif function in (5, 6, 15, 16) and count >= 6:
        return 8
    elif function == 22 and count == 8:
        return 10
    return 0


cdef uint64_t rtu_char_ns(const program_t* program, int port) noexcept nogil:
    cdef const port_row_t* row = &program.ports[port]
    cdef uint64_t bits = 1u + row.data_bits + row.stop_bits + (0 if row.parity == c"N" else 1)
    cdef uint64_t baud = row.baud if row.baud > 0 else 1
    return (bits * 1000000000u + baud - 1) // baud


cdef uint64_t rtu_gap_ns(const program_t* program, int port) noexcept nogil:
    cdef const port_row_t* row = &program.ports[port]
    if row.gap_rule == GAP_FIXED:
        return row.gap_ns
    # The standard fixes the silence at 1750 us above 19200 baud, where 3.5 characters would be shorter.
    if row.gap_rule != GAP_CHARS and row.baud > 19200:
        return 1750000
    return (rtu_char_ns(program, port) * 7 + 1) // 2


cdef int judge(rtu_t* e) noexcept nogil:
    """Whether what came is the reply: a done_status, or PENDING."""
    cdef uint32_t skip = 0, common, lead
    cdef int status, shifted
    cdef bint pending = False
    if e.strip_echo:
        skip = e.request.length
        common = e.rx_len if e.rx_len < skip else skip
        if memcmp(e.rx, e.tx, common) != 0:
            return DONE_ECHO  # we hear something else than ourselves
    skip += e.lead
    if e.rx_len <= skip:
        return PENDING
    status = judge_from(e, skip)
    if status == WRONG:
        return DONE_MISMATCH
    if status != DONE_MISMATCH:
        return status
    # No reply from its first byte on. Behind a few that a line driver left there it may be one.
    for lead in range(1, <uint32_t>(LEAD_IN_MAX + 1)):
        if skip + lead >= e.rx_len:
            pending = True  # so far it is shorter than any frame: what follows will tell, or a silence
            break
        shifted = judge_from(e, skip + lead)
        if shifted == PENDING:
            pending = True
        elif shifted == DONE_OK or shifted == DONE_EXCEPTION or (shifted == DONE_CRC and lead <= e.lead_most):
            if lead > e.lead_most and e.lead + lead == e.parted:
                note_stray_bytes(e, e.rx + skip, lead)
                e.lead += lead
                return shifted
            if lead <= e.lead_most:
                e.lead += lead
                return shifted
            if e.request.slave < e.n_slaves:
                e.mail.stats.slaves[e.request.slave].lead_ins += 1
                e.slaves[e.request.slave].listens = 1  # where there is a silence between the two, it will be heard
            return DONE_MISMATCH
    return PENDING if pending else DONE_MISMATCH


cdef int judge_from(rtu_t* e, uint32_t begin) noexcept nogil:
    """The same of what came from this byte on. WRONG: a whole frame, and not the reply."""
    cdef uint32_t n = e.rx_len - begin, total = e.request.reply
    cdef const uint8_t* p = e.rx + begin
    cdef uint8_t function = e.request.function
    cdef bint mirrored = not e.strip_echo and memcmp(p, e.tx, n if n < e.request.length else e.request.length) == 0
    cdef int status
    if p[0] != e.request.unit:
        return DONE_MISMATCH
    if n < 2:
        return PENDING
    if p[1] == (function | 0x80):
        if n < 5:
            return PENDING
        return ended(e, p, n, 5, DONE_EXCEPTION)
    if p[1] != function:
        return DONE_MISMATCH
    if n < 3:
        return PENDING
    if function <= 4 or function == 23:
        if p[2] != total - 5:
            if mirrored:
                return DONE_ECHO if n >= e.request.length else PENDING
            return DONE_MISMATCH
    elif function == 43:
        total = identity_length(p, n)
        if total == 0 or total > 260:
            return DONE_MISMATCH
        e.request.reply = <uint16_t>total
    if n < total:
        return PENDING
    if mirrored and n >= e.request.length and e.request.length != total:
        return DONE_ECHO
    if (function == 5 or function == 6 or function >= 15) and function != 23 and function != 43:
        if crc_good(p, total) and memcmp(p, e.tx, 8 if function == 22 else 6) != 0:
            return WRONG
    status = ended(e, p, n, total, DONE_OK)
    if status == DONE_OK and e.request.purpose == RTU_BLOCK and not signed(e, p):
        return WRONG  # somebody else's registers in a frame that fits
    return status


cdef bint noise(rtu_t* e) noexcept nogil:
    cdef uint32_t begin = (e.request.length if e.strip_echo else 0) + e.lead
    return begin < e.rx_len <= begin + LEAD_IN_MAX and judge_from(e, begin) == DONE_MISMATCH


cdef int judge_framed(rtu_t* e) noexcept nogil:
    """A frame whose transaction id was the request's: everything else in it must be as well. A done_status."""
    cdef const uint8_t* p = e.rx
    cdef uint8_t function = e.request.function
    cdef uint32_t n = e.rx_len, total
    if n < 3 or p[0] != e.request.unit:
        return DONE_MISMATCH
    if p[1] == (function | 0x80):
        return DONE_EXCEPTION if n == 3 else DONE_MISMATCH
    if p[1] != function:
        return DONE_MISMATCH
    if function == 43:
        total = identity_length(p, n)
        e.request.reply = <uint16_t>total
    else:
        total = e.request.reply
    if total < 5 or n != total - 2:  # lengths count the CRC of the other framing
        return DONE_MISMATCH
    if function <= 4 or function == 23:
        if p[2] != total - 5:
            return DONE_MISMATCH
    elif function != 43 and memcmp(p, e.tx, 8 if function == 22 else 6) != 0:
        return DONE_MISMATCH
    if e.request.purpose == RTU_BLOCK and not signed(e, p):
        return DONE_MISMATCH
    return DONE_OK


cdef inline bint signed(const rtu_t* e, const uint8_t* p) noexcept nogil:
    cdef const block_row_t* row = &e.program.blocks[e.blocks[e.request.index].row]
    cdef uint32_t at = 3u + 2u * row.signature_offset
    if not row.signature & 1:
        return True
    return at + 4 <= e.request.reply and row.signature_word == <uint16_t>(p[at] << 8 | p[at + 1])


cdef inline int ended(rtu_t* e, const uint8_t* p, uint32_t n, uint32_t total, int status) noexcept nogil:
    count_foreign_bytes(e, e.request.slave, n - total)
    return status if crc_good(p, total) else DONE_CRC


cdef uint32_t identity_length(const uint8_t* p, uint32_t n) noexcept nogil:
    """Least length of a 43/14 reply that starts with these bytes; 0 = it is none."""
    cdef uint32_t at = 8, objects
    if p[2] != 14:
        return 0
    if n < 8:
        return 10
    objects = p[7]
    while objects > 0 and at + 2 <= n and at < 260:
        at += 2u + p[at + 1]
        objects -= 1
    return at + 2 * objects + 2


cdef int overdue(rtu_t* e) noexcept nogil:
    cdef uint32_t skip = e.request.length if e.strip_echo else 0
    if noise(e):  # and nothing behind it: nobody has answered
        note_stray_bytes(e, e.rx + skip + e.lead, e.rx_len - skip - e.lead)
        return DONE_TIMEOUT
    if e.rx_len > skip + e.lead:
        return DONE_SHORT
    return DONE_ECHO if e.rx_len < skip else DONE_TIMEOUT
