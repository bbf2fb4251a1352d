# ext/bus/pylon.pxd: the ASCII frames of Pylontech's RS-485 protocol as reads of registers; no descriptor, no clock inside.
from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum:
    PYLON_ANALOG = 0x42      # what a pack measures
    PYLON_ALARMS = 0x44
    PYLON_VERSION = 0x4F     # the shortest question: an answer without content
    PYLON_LIMITS = 0x92      # what a pack allows
    PYLON_TX = 24
    PYLON_RX = 512           # a pack of 32 cells answers with 200 characters
    PYLON_WORDS = 18         # registers that an answer becomes, at most; as many as the longest separator reads
    PYLON_REPLY = 3 + 2 * PYLON_WORDS

cdef enum pylon_status:
    PYLON_NONE = 0           # the rest has still to come
    PYLON_FRAME = 1          # a whole answer; `reply` holds it as Modbus would have said it
    PYLON_DAMAGED = 2        # it began and ended like one, and a checksum, a length or a digit of it is wrong
    PYLON_ECHO = 3           # our own question

# One line: the question in flight, and the characters that have come since.
cdef struct pylon_t:
    uint8_t question[8]      # as the engine said it: unit, function, address, count
    uint32_t tx_len, rx_len  # rx_len 0 = between frames
    uint32_t strays          # characters between frames, of the newest piece
    uint32_t reply_len
    uint8_t tx[PYLON_TX]
    uint8_t rx[PYLON_RX]
    uint8_t reply[PYLON_REPLY]

# Makes `tx` of a read request (unit, function, address, count): the high byte of the address is the command (CID2).
cdef void pylon_ask(pylon_t* line, const uint8_t* request) noexcept nogil
# Takes characters from `used` on, to the end of a frame or of the piece. A pylon_status.
cdef int pylon_next(pylon_t* line, const uint8_t* bytes, uint32_t count, uint32_t* used) noexcept nogil
# A silence: what had come belongs to nothing that follows.
cdef void pylon_cut(pylon_t* line) noexcept nogil
