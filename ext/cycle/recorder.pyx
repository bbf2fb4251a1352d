"""The recorder: each cycle's inputs and a hash of its decisions in a ring of fixed size, and the state now and then.

A cycle is a function of its arguments (time, dt, number), of the program, of what the cycle before left in core_t, and
of what came from outside. So that a replay gives the same bytes, each of these is in a cycle's record or in the state:

| what a cycle reads | where it is recorded |
|---|---|
| time, dt, number of the cycle | head of its record |
| program_t | in the file, once |
| can[]: frames, with their times | ITEM_FRAME, as decoded; ITEM_BUS_LOST when a bus goes |
| can[].stats: state, failed and unconfirmed sends | ITEM_CAN, by way of external |
| mail[].done: answers of devices | ITEM_DONE |
| mail[].stats.written_seq: setpoints that devices took | ITEM_WRITTEN, by way of commands |
| mail[].stats: line lost; slaves alive, silent, strangers | ITEM_PORT, ITEM_SLAVE, by way of external |
| shared.mailbox, shared.plan | ITEM_ORDER, ITEM_PLAN, whole, in the cycle that took them |
| shared.utc_offset_ns, stop | ITEM_UTC, ITEM_STOP |
| shared.loop.escalation, missed | ITEM_ESCALATION |
| what the self-tests found | ITEM_SELFTEST, by way of external |
| image, can_ids, commands, inputs, diagnoses, estimate | state |
| batteries, converters, plant, inbox, control, decision | state |
| gates, verdicts, cabinets | state |
| external, edges, enforcement, second, snapshot_due, mode | state |

Not in it, because no cycle decides by it: transmit grids and queues of CAN buses (what their frames say is in the
verdicts), command slots (commands has their words), rings and latches in shared_t, timed, t_phase_ns, good_cycles,
the self-tests' own memory. A bit that flipped is not recorded, only that one was found: a replay may differ from there.
"""

import os

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from tidegate.ext.estimate.estimate cimport estimate_state_t
from tidegate.ext.cycle.core cimport *
from tidegate.ext.abi.image cimport SITE_POINTS, UNIT_POINTS
from tidegate.ext.abi.port_mail cimport done_t
from tidegate.ext.abi.ring cimport *
from tidegate.ext.abi.shared cimport order_t, plan_t

cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void* address, size_t length, int prot, int flags, int fd, long offset)
    int munmap(void* address, size_t length)
    int PROT_READ, PROT_WRITE, MAP_SHARED
    void* MAP_FAILED

MIB_MIN, MIB_MAX = 2, 1024


def record_t_ns(bytes data not None) -> int:
    """CLOCK_MONOTONIC of the first record in these bytes."""
    if len(data) < <Py_ssize_t>sizeof(record_t):
        raise ValueError(f"record of {len(data)} bytes, needs {sizeof(record_t)}")
    return (<const record_t*>PyBytes_AS_STRING(data)).t_ns


# ---------------------------------------------------------------- the loop's side


cdef inline void _span(const core_t* core, span_t* spans, int* n, const char* name, const void* first,
                       const void* end) noexcept nogil:
    spans[n[0]].name = name
    spans[n[0]].first = <uint32_t>(<const uint8_t*>first - <const uint8_t*>core)
    spans[n[0]].size = <uint32_t>(<const uint8_t*>end - <const uint8_t*>first)
    n[0] += 1


cdef int state_spans(const core_t* core, span_t* spans) noexcept nogil:
    """All that a cycle reads from the one before."""
    cdef int n = 0
    cdef uint32_t units = core.program.n_units
    _span(core, spans, &n, "image", core.image, &core.image[core.program.n_points])
    _span(core, spans, &n, "can_ids", core.can_ids, &core.can_ids[core.program.n_can_frames])
    _span(core, spans, &n, "commands", core.commands, &core.commands[core.program.n_commands])
    _span(core, spans, &n, "inputs", core.inputs, &core.inputs[units])
    _span(core, spans, &n, "diagnoses", core.diagnoses, &core.diagnoses[units])
    # The units' memories are the bulk of the estimate; only those in use go along.
    _span(core, spans, &n, "estimate", &core.estimate, core.estimate.units)
    _span(core, spans, &n, "estimate.units", core.estimate.units, &core.estimate.units[units])
    _span(core, spans, &n, "estimate.total", &core.estimate.total, &core.estimate + 1)
    _span(core, spans, &n, "batteries", core.batteries, &core.batteries[units])
    _span(core, spans, &n, "converters", core.converters, &core.converters[units])
    # From the plant's picture to the gate's states everything follows in one piece: orders, plan, params, control.
    _span(core, spans, &n, "plant to decision", &core.plant, core.gates)
    _span(core, spans, &n, "gates", core.gates, &core.gates[units])
    _span(core, spans, &n, "verdicts", core.verdicts, &core.verdicts[units])
    _span(core, spans, &n, "cabinets", core.cabinets, &core.cabinets[units])
    # And from the outside as it was last seen to the mode: edges, enforcement, the next second and snapshot.
    _span(core, spans, &n, "external to mode", &core.external, &core.mode + 1)
    return n


cdef void decided(const core_t* core, uint64_t* events, uint32_t* parts) noexcept nogil:
    cdef mix_t mix[PART_COUNT]
    cdef int part
    cdef uint64_t end = core.shared.event_head
    memset(mix, 0, sizeof(mix))
    mix_points(&mix[PART_POINTS], core.image, SITE_POINTS + core.program.n_units * UNIT_POINTS)
    mix_bytes(&mix[PART_VERDICTS], core.verdicts, core.program.n_units * sizeof(core.verdicts[0]))
    mix_bytes(&mix[PART_COMMANDS], core.commands, core.program.n_commands * sizeof(command_memory_t))
    mix_events(&mix[PART_EVENTS], core.shared, events[0], end)
    events[0] = end
    for part in range(PART_COUNT):
        parts[part] = mix_end(&mix[part])


cdef void recorder_cycle(core_t* core, uint64_t t_ns, uint64_t dt_ns, uint64_t cycle) noexcept nogil:
    cdef recorder_t* r = core.recorder
    cdef span_t spans[SPANS]
    cdef uint32_t parts[PART_COUNT]
    cdef uint32_t padded
    cdef int i, n
    decided(core, &r.events, parts)
    recorder_end(r, RECORD_CYCLE, cycle, t_ns, dt_ns, parts)
    recorder_begin(r)
    if r.begun and t_ns < r.state_due_ns:
        return
    r.begun = 1
    r.state_due_ns = t_ns + STATE_EVERY_NS
    n = state_spans(core, spans)
    for i in range(n):
        padded = (spans[i].size + 7) & ~<uint32_t>7
        if <size_t>(r.end - r.at) < padded:
            recorder_begin(r)
            return  # a site too large for a state: no replay can begin here
        memset(r.at + padded - 8, 0, 8 if padded else 0)
        memcpy(r.at, <const uint8_t*>core + spans[i].first, spans[i].size)
        r.at += padded
    memset(parts, 0, sizeof(parts))
    recorder_end(r, RECORD_STATE, cycle, t_ns, dt_ns, parts)
    recorder_begin(r)


# ---------------------------------------------------------------- what Python sees


class Overtaken(LookupError):
    """The writer has come round to what was being read."""


cdef class Ring:
    """One mapping of the ring. The core writes it; a reader in another process takes records out.

    fd : descriptor of the memory, sized and cleared by `memfd`; may be closed afterwards.
    Raises ValueError when the memory is no ring, or one of another version.
    """

    def __cinit__(self, int fd, bint writable=False):
        self.ring = NULL
        size = os.fstat(fd).st_size
        if size < RING_HEAD_BYTES + 4 * RECORD_BYTES_MAX:
            raise ValueError(f"ring: {size} bytes, at least {RING_HEAD_BYTES + 4 * RECORD_BYTES_MAX} are needed")
        cdef void* where = mmap(NULL, size, PROT_READ | (PROT_WRITE if writable else 0), MAP_SHARED, fd, 0)
        if where == MAP_FAILED:
            raise OSError("cannot map the recorder's ring")
        self.mapped = size
        self.ring = <ring_t*>where
        self.data = <uint8_t*>where + RING_HEAD_BYTES
        if writable:
            self.ring.size = (size - RING_HEAD_BYTES) & ~<uint64_t>7
            memset(self.data, 0, self.ring.size)  # every page is there before the loop writes the first byte
            memset(self.ring.state_at, 0, sizeof(self.ring.state_at))
            self.ring.head = self.ring.cycles = self.ring.states = 0
            self.ring.layout_version = RECORDER_LAYOUT_VERSION
            self.ring.magic = RING_MAGIC
            memset(&self.writer, 0, sizeof(self.writer))
            self.writer.ring = self.ring
            self.writer.data = self.data

    def __init__(self, int fd, bint writable=False):
        cdef uint32_t came, expected
        for name, came, expected in (
            ("magic", self.ring.magic, <uint32_t>RING_MAGIC),
            ("layout version", self.ring.layout_version, <uint32_t>RECORDER_LAYOUT_VERSION),
        ):
            if came != expected:
                raise ValueError(
                    f"ring: {name} is {came}, this version expects {expected}; "
                    "core and recorder must be of one release"
                )

    def __dealloc__(self):
        if self.ring != NULL:
            munmap(self.ring, self.mapped)

    @staticmethod
    def memfd(double mib, str name="tidegate-ring"):
        """Descriptor of fresh memory of so many MiB for a ring; the core maps it writable first."""
        if not MIB_MIN <= mib <= MIB_MAX:
            raise ValueError(f"ring of {mib:g} MiB: expected {MIB_MIN} to {MIB_MAX}")
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
        os.ftruncate(fd, <size_t>(mib * (1 << 20)))
        return fd

    @property
    def cycles(self):
        """Cycles recorded so far, those that were overwritten too."""
        return self.ring.cycles

    @property
    def head(self):
        """Bytes written so far."""
        return self.ring.head

    @property
    def bytes_mapped(self):
        return self.mapped

    def first(self):
        """Place of the oldest state that is still whole and will be for a while; None if there is none yet."""
        cdef uint64_t states = self.ring.states, at
        cdef uint64_t number = states - <uint64_t>RING_STATES if states > <uint64_t>RING_STATES else 0
        while number < states:
            at = self.ring.state_at[number % <uint64_t>RING_STATES]
            number += 1
            # An eighth of the ring is left to the writer while the reader copies.
            if self.ring.head - at + self.ring.size // 8 + 2 * RECORD_BYTES_MAX <= self.ring.size:
                return at
        return None

    def take(self, uint64_t at, uint64_t until, size_t size_max):
        """(whole records from `at` on, place behind them), at most about `size_max` bytes and not beyond `until`.

        Raises Overtaken when the writer has come round meanwhile.
        """
        cdef uint64_t place, start
        cdef const record_t* record
        cdef uint64_t head = min(self.ring.head, until)
        pieces = []
        size = 0
        while at < head and size < size_max:
            place = at % self.ring.size
            if self.ring.size - place < sizeof(record_t):
                at += self.ring.size - place
                continue
            record = <const record_t*>(self.data + place)
            if not ring_holds(self.ring, at) or record.size < sizeof(record_t) or record.size % 8:
                raise Overtaken(f"the ring was overwritten at byte {at} while it was read")
            if record.kind != RECORD_WRAP:
                pieces.append(self.data[place : place + record.size])
                size += record.size
            at += record.size
        if pieces and not ring_holds(self.ring, at - size):
            raise Overtaken(f"the ring was overwritten at byte {at} while it was read")
        return b"".join(pieces), at


def layout():
    """Sizes and versions that this module was compiled with; a recording of another layout cannot be replayed."""
    return {
        "RECORDER_LAYOUT_VERSION": RECORDER_LAYOUT_VERSION,
        "record_t": sizeof(record_t),
        "done_t": sizeof(done_t),
        "order_t": sizeof(order_t),
        "plan_t": sizeof(plan_t),
        "core_t": sizeof(core_t),
        "estimate_state_t": sizeof(estimate_state_t),
    }
