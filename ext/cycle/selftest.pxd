# ext/cycle/selftest.pxd: what the core tests of itself while it runs (docs/self-tests.md).
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tidegate.ext.abi.image cimport UNITS_MAX
from tidegate.ext.abi.program cimport program_t
from tidegate.ext.safety.safety cimport fault_set_t, gate_state_t

cdef enum:
    SELFTEST_BYTES = 64           # of the program, a cycle
    SELFTEST_CODE_BYTES = 256     # of the machine code and its constants, a cycle
    SELFTEST_SPANS_MAX = 256      # in which these lie: about three for each compiled module
    SELFTEST_WINDOW_NS = 1000000000  # the clocks are compared over at most this long
    SELFTEST_READ_NS = 1000000    # clocks that were read further apart say nothing of each other

# What was found, a bit each.
cdef enum selftest_found:
    SELFTEST_PROGRAM = 1  # the compiled site is not what it was at start
    SELFTEST_GATE = 2     # a gate's memory is not what the gate left in it
    SELFTEST_FLOW = 4     # a phase was left out, ran twice or out of its place; or a unit passed no gate
    SELFTEST_CLOCK = 8    # the kernel's clocks part
    SELFTEST_CODE = 16    # machine code or constants are not what they were at start

cdef struct code_span_t:
    const uint8_t* start
    uint64_t size

cdef struct selftest_t:
    uint32_t found        # enum selftest_found, of this machine
    uint32_t given        # the same of a recording that is played again
    uint32_t crc, at      # of the program so far, and how much of it that is
    uint32_t reference, inverse_reference
    uint32_t marks        # the phases of this cycle, three bits each
    uint32_t gated        # units that passed their gate in it
    code_span_t code[SELFTEST_SPANS_MAX]  # what the loader has mapped and nobody may write; where none, none is looked at
    uint32_t code_spans, code_span  # of them, and the one that the look is in
    uint64_t code_at                # how far into it
    uint32_t code_crc, code_reference, code_inverse_reference
    uint32_t pad
    uint64_t t_ns, raw_ns, boot_ns  # where the clocks' window began; 0 = it has not
    gate_state_t inverse[UNITS_MAX] # each gate's memory bit by bit the other way round

# The program as it is now is the one that every later look is held against; its SHA-256 was checked before.
cdef void selftest_begin(selftest_t* test, const program_t* program) noexcept nogil
# The next SELFTEST_BYTES of the program.
cdef void selftest_program(selftest_t* test, const program_t* program) noexcept nogil
# The machine code as it is now, in the spans that `code` lists, is what every later look is held against.
cdef void selftest_code_begin(selftest_t* test) noexcept nogil
# The next SELFTEST_CODE_BYTES of it.
cdef void selftest_code(selftest_t* test) noexcept nogil
# The gate has written its memory: keep it once more.
cdef void selftest_keep(selftest_t* test, uint32_t unit, const gate_state_t* gate) noexcept nogil
# Before the gate reads it: is it what it was? Where it is not, whatever either copy has latched is latched.
cdef void selftest_hold(selftest_t* test, uint32_t unit, gate_state_t* gate) noexcept nogil
# A phase is over.
cdef void selftest_mark(selftest_t* test, int phase) noexcept nogil
# A cycle begins: the one before must have been whole.
cdef void selftest_cycle(selftest_t* test) noexcept nogil
# Whether all that must come before an actuator write has come, once and in its order.
cdef bint selftest_may_write(selftest_t* test, uint32_t units) noexcept nogil
# The kernel's three clocks, read by the caller at one moment; apart_ns: more than this within the window is a fault.
cdef void selftest_clocks(selftest_t* test, uint64_t t_ns, uint64_t raw_ns, uint64_t boot_ns, uint64_t apart_ns) noexcept nogil
# What was found since the last call; what passes is forgotten.
cdef uint32_t selftest_take(selftest_t* test) noexcept nogil
# As rows of the fault table.
cdef void selftest_rows(uint32_t found, fault_set_t* rows) noexcept nogil
