# ext/sim/slave.pxd: a Modbus device as its masters see it: registers bound to plant variables, requests to replies.
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    RANGES_MAX = 48
    BINDINGS_MAX = 192
    WRITES_MAX = 32
    FRAME_MAX = 260

cdef enum:  # space
    SPACE_COILS = 0      # functions 1, 5, 15
    SPACE_DISCRETE = 1   # 2
    SPACE_HOLDING = 2    # 3, 6, 16
    SPACE_INPUT = 3      # 4
    SPACES = 4

cdef enum:  # reply_status
    REPLY_NONE = 0       # not for us, broadcast, or not a whole request: silence
    REPLY_DATA = 1
    REPLY_EXCEPTION = 2

# Addresses that exist (writable 0) and those that may be written (1); anything else is answered with exception 2.
cdef struct range_t:
    uint32_t space, first, count, writable

# A plant variable in the registers: raw = (value - offset) / scale.
cdef struct binding_t:
    uint32_t space, address
    uint8_t type, flags, bit_first, bit_count  # enum field_type, field_flags of program.h
    uint32_t words
    double scale, offset
    uint64_t sentinel
    const double* source

# A register that a master may write: value = raw * scale.
cdef struct write_t:
    uint32_t space, address
    uint8_t type, flags
    uint32_t words
    int32_t var          # enum pcs_var
    double scale
    double zero          # raw that stands for 0 W
    uint8_t of           # enum part_of of program.h; PART_SETPOINT = the value as it is
    double charge, discharge  # PART_DIRECTION: the words
    double* target

cdef struct slave_t:
    uint8_t unit_id
    int32_t port
    uint32_t read_max        # registers in one read
    int32_t pcs, meter   # index of the device behind it, -1 none
    uint64_t turnaround_ns, turnaround_jitter_ns
    uint16_t* words[SPACES]  # 65536 each, NULL = this space is empty
    uint32_t n_ranges, n_bindings, n_writes
    range_t ranges[RANGES_MAX]
    binding_t bindings[BINDINGS_MAX]  # sorted by space and address
    write_t writes[WRITES_MAX]
    # what the last request did
    double told[4]  # of a setpoint in several registers: magnitude W, charge W, discharge W, direction
    uint32_t written_count
    int32_t written[WRITES_MAX]  # rows of `writes` that it touched
    uint64_t requests, reads, writes_done, exceptions

# Bytes that a whole request has, from what has come of it; 0 = cannot be said yet, -1 = no known function.
cdef int request_length(const uint8_t* bytes, uint32_t count) noexcept nogil
# Answers one whole request (CRC included). Fills reply and its length; returns enum reply_status.
cdef int slave_answer(slave_t* slave, const uint8_t* request, uint32_t count, uint8_t* reply,
                      uint32_t* length) noexcept nogil
cdef uint16_t frame_crc(const uint8_t* bytes, uint32_t count) noexcept nogil
cdef void frame_append_crc(uint8_t* bytes, uint32_t count) noexcept nogil  # appends the CRC at [count]
cdef double words_value(const uint16_t* words, int kind, int flags) noexcept nogil
cdef void value_words(double value, int kind, int flags, uint64_t sentinel, uint16_t* words) noexcept nogil
cdef int type_words(int kind) noexcept nogil
