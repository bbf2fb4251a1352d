# ext/bus/registers.pxd: what stands in registers as values, and values as registers; the loop's side of Modbus.
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from tidegate.ext.abi.image cimport point_t
from tidegate.ext.abi.port_mail cimport done_t
from tidegate.ext.abi.program cimport block_row_t, command_row_t, program_t

# Registers that a value of this type takes (FIELD_U16 .. FIELD_BITS).
cdef uint32_t words_of(uint32_t type) noexcept nogil
# One finished block into the image. Only a believable reading moves t_ns and changes.
cdef void block_decode(const program_t* program, const done_t* done, point_t* image) noexcept nogil
# Whether every value of the block that needs no scale point is one; regs: all that the block holds.
cdef bint block_believable(const program_t* program, const block_row_t* block, const uint16_t* regs) noexcept nogil
# One value as registers; returns their number, 0 = cannot (scale unknown, not a number, out of range). image may be
# NULL where the row needs no scale point.
cdef int command_encode(const program_t* program, const command_row_t* row, double value, const point_t* image,
                        uint16_t* regs) noexcept nogil
