"""What a disturbed machine does to a core: a flipped bit, a phase that is jumped over, clocks that part. For tests."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tidegate.ext.abi.shared cimport PHASE_PUBLISH, PHASE_WRITE
from tidegate.ext.cycle.core cimport core_t
from tidegate.ext.cycle.loop cimport Core, control, estimate, limit, publish, read, see_clocks, write
from tidegate.ext.cycle.selftest cimport (
    selftest_code, selftest_cycle, selftest_hold, selftest_keep, selftest_mark, selftest_may_write, selftest_program, selftest_take,
)
from tidegate.ext.safety.safety cimport gate_state_t

GATE_BYTES = sizeof(gate_state_t)
PHASES = ("read", "estimate", "control", "limit", "write", "publish")


def flip_gate(Core core not None, int unit, size_t byte, int bit):
    """Turn one bit of a gate's memory over, as a disturbed cell would."""
    cdef core_t* at = core.ptr()
    if not 0 <= unit < <int>at.program.n_units or byte >= sizeof(gate_state_t) or not 0 <= bit < 8:
        raise IndexError(f"unit {unit}, byte {byte}, bit {bit}: no such bit")
    (<uint8_t*>&at.gates[unit])[byte] ^= <uint8_t>(1 << bit)


def flip_copy(Core core not None, int unit, size_t byte, int bit):
    """The same of the second copy."""
    cdef core_t* at = core.ptr()
    if not 0 <= unit < <int>at.program.n_units or byte >= sizeof(gate_state_t) or not 0 <= bit < 8:
        raise IndexError(f"unit {unit}, byte {byte}, bit {bit}: no such bit")
    (<uint8_t*>&at.selftest.inverse[unit])[byte] ^= <uint8_t>(1 << bit)


def cycle_of(Core core not None, phases, uint64_t t_ns, uint64_t dt_ns, uint64_t number):
    """One cycle of these phases in this order, as if the program counter had jumped."""
    cdef core_t* at = core.ptr()
    for name in phases:
        if name == "read":
            read(at, t_ns)
        elif name == "estimate":
            estimate(at, t_ns, dt_ns)
        elif name == "control":
            control(at, dt_ns)
        elif name == "limit":
            limit(at, t_ns, dt_ns)
        elif name == "write":
            write(at, t_ns)
        elif name == "publish":
            publish(at, t_ns, dt_ns, number)
        else:
            raise ValueError(f"phase {name!r}: known are {', '.join(PHASES)}")


def clocks(Core core not None, uint64_t t_ns, uint64_t raw_ns, uint64_t boot_ns):
    """What the run reads of the kernel's clocks before a cycle."""
    see_clocks(core.ptr(), t_ns, raw_ns, boot_ns)


def repeat(Core core not None, int count, bint program=True, bint memory=True, bint code=True):
    """Only the self-tests of so many cycles, as the loop runs them; for measuring. code: where it is watched."""
    cdef core_t* at = core.ptr()
    cdef uint32_t unit
    cdef int i, phase
    with nogil:
        for i in range(count):
            selftest_cycle(&at.selftest)
            for phase in range(PHASE_WRITE):
                selftest_mark(&at.selftest, phase)
            if memory:
                for unit in range(at.program.n_units):
                    selftest_hold(&at.selftest, unit, &at.gates[unit])
            selftest_take(&at.selftest)
            if memory:
                for unit in range(at.program.n_units):
                    selftest_keep(&at.selftest, unit, &at.gates[unit])
                    at.selftest.gated += 1
            selftest_may_write(&at.selftest, at.selftest.gated)
            if program:
                selftest_program(&at.selftest, at.program)
            if code:
                selftest_code(&at.selftest)
            selftest_mark(&at.selftest, PHASE_WRITE)
            selftest_mark(&at.selftest, PHASE_PUBLISH)
