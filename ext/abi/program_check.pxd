# ext/abi/program_check.pxd: whether the core may run a program.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t

from tidegate.ext.abi.program cimport (
    FIELD_F32, FIELD_F64, FIELD_S32, FIELD_S64, FIELD_U32, FIELD_U64, program_t,
)

# Why a program is refused, as program_check returns it: the reason in the low byte, the row above it.
cdef enum program_why:
    PROGRAM_OK = 0
    BAD_SHORT, BAD_MAGIC, BAD_LAYOUT, BAD_IMAGE, BAD_SIZE, BAD_COUNT, BAD_PERIOD, BAD_TEXT, BAD_SITE, BAD_UNIT
    BAD_POINT, BAD_FRAME, BAD_CAN_FIELD, BAD_CAN_TX, BAD_PORT, BAD_SLAVE, BAD_BLOCK, BAD_FIELD, BAD_COMMAND
    BAD_CONTROL, BAD_GATE, BAD_FAULT, BAD_INPUT
    PROGRAM_WHYS

# Verifies every index and bound of a program of `size` bytes, describe blob included; the hash is check()'s, in Python.
# Returns 0, or why | row << 8. Reads nothing beyond `size`.
cdef int program_check(const program_t* program, size_t size) noexcept nogil


# Registers that a value of this type takes.
cdef inline uint32_t type_regs(uint8_t type) noexcept nogil:
    if type == FIELD_U32 or type == FIELD_S32 or type == FIELD_F32:
        return 2
    if type == FIELD_U64 or type == FIELD_S64 or type == FIELD_F64:
        return 4
    return 1
