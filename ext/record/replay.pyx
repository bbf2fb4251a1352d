"""Recorded cycles once more: the same compiled core, the same inputs at the same times, the same decisions or not.

A second core may run beside the first: it gets the readings that the first one decoded and the same orders, and decides
by its own program.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from tidegate.ext.bus.can cimport can_buffer_t, can_decode, can_lose_points
from tidegate.ext.cycle.core cimport can_seen_t, core_t
from tidegate.ext.abi.image cimport (
    MODE_TRIPPED, QUALITY_GOOD, QUALITY_STALE, SITE_POINTS, UNIT_POINTS, UNIT_WRITE_WAIT_S, point_t,
)
from tidegate.ext.cycle.loop cimport Core, core_cycle
from tidegate.ext.abi.port_mail cimport RTU_DEAD, done_t, slave_stats_t
from tidegate.ext.cycle.selftest cimport selftest_keep
from tidegate.ext.cycle.recorder cimport PART_COUNT, SPANS, decided, span_t, state_spans
from tidegate.ext.bus.registers cimport block_decode
from tidegate.ext.abi.ring cimport *
from tidegate.ext.abi.shared cimport (
    ORDER_ARM, ORDERS, SLAVE_BACK, SLAVE_SILENT, SLAVE_IDENTITY_MISMATCH, order_put, order_t, plan_t,
)

cdef uint64_t NEVER_NS = 0xFFFFFFFFFFFFFFFF
PART_NAMES = ("points", "verdicts", "words for the devices", "events")  # enum record_part of recorder.h


# ---------------------------------------------------------------- what came from outside, given again


cdef void mute(core_t* at) noexcept nogil:
    """A core of a replay sends nothing: what its sends came to is recorded."""
    cdef uint32_t bus
    for bus in range(at.program.n_can_buses):
        at.can[bus].n_tx = 0
        at.can[bus].tx_due_ns = NEVER_NS


cdef void restore_can(core_t* at, uint32_t bus, const can_seen_t* seen) noexcept nogil:
    at.can[bus].stats.state = seen.state
    at.can[bus].stats.tx_failed_run = seen.tx_failed_run
    at.can[bus].stats.unconfirmed = seen.unconfirmed


cdef void restore_slave(core_t* at, uint32_t number, uint64_t event) noexcept nogil:
    cdef uint32_t port, first
    cdef slave_stats_t* stats
    for port in range(at.program.n_ports):
        first = at.program.ports[port].slave_first
        if first <= number < first + at.program.ports[port].slave_count:
            stats = &at.mail[port].stats.slaves[number - first]
            stats.identity_mismatch = 1 if event == SLAVE_IDENTITY_MISMATCH else 0
            stats.alive = 1 if event == SLAVE_BACK else 0
            stats.silent_run = RTU_DEAD if event == SLAVE_SILENT else 0


cdef void restore_written(core_t* at, uint32_t row, uint64_t written_seq) noexcept nogil:
    cdef uint32_t port, first
    for port in range(at.program.n_ports):
        first = at.mail[port].command_first
        if first <= row < first + at.mail[port].command_count:
            at.mail[port].stats.written_seq[row - first] = written_seq


cdef void restore_outside(core_t* at) noexcept nogil:
    """Everything outside as the restored state last saw it."""
    cdef uint32_t i, slot, row
    at.shared.utc_offset_ns = at.external.utc_offset_ns
    for i in range(<uint32_t>ORDERS):
        at.shared.mailbox[i] = at.inbox.mailbox[i]
    memcpy(&at.shared.plan, &at.inbox.plan, sizeof(plan_t))
    at.shared.loop.escalation = at.external.escalation
    at.shared.loop.missed = at.external.missed
    at.stop = at.external.stop
    at.selftest.given = at.external.selftest
    for i in range(at.program.n_units):
        selftest_keep(&at.selftest, i, &at.gates[i])
    for i in range(at.program.n_can_buses):
        restore_can(at, i, &at.external.can[i])
    for i in range(at.program.n_slaves):
        restore_slave(at, i, at.external.slaves[i])
    for i in range(at.program.n_ports):
        at.mail[i].stats.thread_lost = at.external.ports_lost[i]
        for slot in range(at.mail[i].command_count):
            row = at.mail[i].command_first + slot
            at.mail[i].stats.written_seq[slot] = at.commands[row].written_seq
            at.mail[i].commands[slot].seq = at.commands[row].put_seq


cdef class Replay:
    """Feeds records to a core that nothing else drives.

    core  : made from the recorded program, with a shared memory of its own.
    exact : recorded by a processor of this kind, so that states are compared byte by byte; else their points alone.
    """

    cdef Core core
    cdef core_t* at
    cdef core_t* other  # decides beside ours; NULL: nobody
    cdef object kept
    cdef bint started, _follows, exact
    cdef uint64_t arm_due_ns, events
    cdef int differing  # bit each part; -1: the state
    cdef const char* span
    cdef int* map_from
    cdef int* map_to
    cdef int n_map

    def __cinit__(self, Core core not None, bint exact=True):
        self.core = core
        self.at = core.ptr()
        self.exact = exact
        mute(self.at)
        self.map_from = self.map_to = NULL

    def __dealloc__(self):
        free(self.map_from)
        free(self.map_to)

    @property
    def follows(self):
        """Whether the core beside began with the recorded state."""
        return bool(self._follows)

    def beside(self, Core other not None, pairs, bint follows):
        """Let `other` decide on the same readings. pairs : (point of ours, its point) by index.

        follows : both have the same points and units, so that the recorded state is a state of its own too.
        """
        self.kept = other
        self.other = other.ptr()
        mute(self.other)
        self.n_map = len(pairs)
        self.map_from = <int*>malloc(max(1, self.n_map) * sizeof(int))
        self.map_to = <int*>malloc(max(1, self.n_map) * sizeof(int))
        if self.map_from == NULL or self.map_to == NULL:
            raise MemoryError("no memory for the points")
        for i, (one, two) in enumerate(pairs):
            self.map_from[i], self.map_to[i] = one, two
        self._follows = follows

    @property
    def what(self):
        """Names of what differed in the cycle that differs."""
        if self.differing < 0:
            return ("state: " + self.span.decode(),)
        return tuple(name for part, name in enumerate(PART_NAMES) if self.differing & 1 << part)

    def run(self, const uint8_t[::1] records, size_t first, uint64_t cycles_max, bint to_state=False):
        """Repeat up to `cycles_max` cycles from byte `first` on.

        to_state : go on whatever differs, and stop in front of the next state.
        Returns (place behind them, cycles run, cycle that differs or None, its time, cycles whose inputs were cut).
        Stops behind the first cycle whose decisions differ, in front of a state that differs. Raises ValueError for bytes that are no records.
        """
        cdef size_t place = first, size = records.shape[0]
        cdef const record_t* record
        cdef uint64_t run = 0, cut = 0
        cdef bint differs = False
        cdef uint64_t cycle = 0, t_ns = 0
        cdef int bad = 0
        with nogil:
            while place < size and run < cycles_max and not differs:
                if size - place < sizeof(record_t):
                    bad = 1
                    break
                record = <const record_t*>&records[place]
                if record.size < sizeof(record_t) or record.size % 8 or record.size > size - place:
                    bad = 1
                    break
                if record.kind == RECORD_STATE:
                    if to_state:
                        break
                    if not self.started:
                        bad = self._restore(record)
                    else:
                        bad = self._compare(record)
                        differs = self.differing != 0
                    cycle, t_ns = record.cycle, record.t_ns
                    if bad or differs:  # the place stays in front of it, for points_apart
                        break
                elif record.kind == RECORD_CYCLE:
                    if not self.started:
                        bad = 1
                        break
                    bad = self._inputs(record)
                    if bad:
                        break
                    core_cycle(self.at, record.t_ns, record.dt_ns, record.cycle)
                    if self.other != NULL:
                        self._beside(record)
                    cycle, t_ns = record.cycle, record.t_ns
                    run += 1
                    if record.flags & RECORD_CUT:
                        cut += 1
                    self._judge(record)
                    differs = self.differing != 0 and not to_state
                else:
                    bad = 1
                    break
                place += record.size
        if bad:
            raise ValueError(f"byte {place} of its cycles is not the record that is expected there")
        return place, run, (cycle if differs else None), t_ns, cut

    def points_apart(self, const uint8_t[::1] records, size_t first):
        """[(index, recorded value, value here)] of the points that differ from the state at byte `first`."""
        cdef const record_t* record = <const record_t*>&records[first]
        cdef const point_t* recorded = <const point_t*>(<const uint8_t*>record + sizeof(record_t))
        cdef const point_t* here
        if record.size > records.shape[0] - first or record.size != self._state_size():
            raise ValueError(f"byte {first} of its cycles is not the state that is expected there")
        found = []
        for i in range(<int>self.at.program.n_points):
            here = &self.at.image[i]
            if memcmp(&recorded[i], here, sizeof(point_t)) and not (
                recorded[i].value == here.value and recorded[i].quality == here.quality
                or recorded[i].value != recorded[i].value and here.value != here.value
            ):
                found.append((i, recorded[i].value, here.value))
        return found

    cdef size_t _state_size(self) noexcept nogil:
        cdef span_t spans[SPANS]
        cdef int i
        cdef size_t whole = sizeof(record_t)
        for i in range(state_spans(self.at, spans)):
            whole += (spans[i].size + 7) & ~<size_t>7
        return whole

    cdef int _restore(self, const record_t* record) noexcept nogil:
        """Put the recorded state into the core: where a replay begins."""
        cdef span_t spans[SPANS]
        cdef int i, n = state_spans(self.at, spans)
        cdef const uint8_t* at = <const uint8_t*>record + sizeof(record_t)
        if record.size != self._state_size():
            return 1
        for i in range(n):
            memcpy(<uint8_t*>self.at + spans[i].first, at, spans[i].size)
            at += (spans[i].size + 7) & ~<size_t>7
        restore_outside(self.at)
        self.events = self.at.shared.event_head
        self.started = True
        if self.other != NULL and self._follows:
            self._follow(spans, n)
        return 0

    cdef int _compare(self, const record_t* record) noexcept nogil:
        """Everything that the core keeps against the recorded state, not only what the cycles' hashes hold."""
        cdef span_t spans[SPANS]
        cdef int i, n = state_spans(self.at, spans)
        cdef const uint8_t* at = <const uint8_t*>record + sizeof(record_t)
        cdef mix_t ours, theirs
        if record.size != self._state_size():
            return 1
        memset(&ours, 0, sizeof(mix_t))
        memset(&theirs, 0, sizeof(mix_t))
        mix_points(&ours, self.at.image, self.at.program.n_points)
        mix_points(&theirs, <const point_t*>at, self.at.program.n_points)  # the image stands first in a state
        self.differing = 0
        if mix_end(&ours) != mix_end(&theirs):
            self.span = spans[0].name
            self.differing = -1
        for i in range(n):
            if self.exact and not self.differing and memcmp(<uint8_t*>self.at + spans[i].first, at, spans[i].size):
                self.span = spans[i].name
                self.differing = -1
            at += (spans[i].size + 7) & ~<size_t>7
        return 0

    cdef void _judge(self, const record_t* record) noexcept nogil:
        cdef uint32_t parts[PART_COUNT]
        cdef int part
        decided(self.at, &self.events, parts)
        self.differing = 0
        for part in range(PART_COUNT):
            if parts[part] != record.hash[part]:
                self.differing |= 1 << part

    cdef void _follow(self, const span_t* spans, int n) noexcept nogil:
        """Let the other core begin with our state too, if it has the same shape."""
        cdef span_t theirs[SPANS]
        cdef int i
        if state_spans(self.other, theirs) != n:
            self._follows = False
        for i in range(n):
            if theirs[i].first != spans[i].first or theirs[i].size != spans[i].size:
                self._follows = False
        if self._follows:
            for i in range(n):
                memcpy(<uint8_t*>self.other + spans[i].first, <uint8_t*>self.at + spans[i].first, spans[i].size)
            self.other.inbox.policies_due_ns = 0  # its settings are those of its own program
            restore_outside(self.other)

    cdef int _inputs(self, const record_t* record) noexcept nogil:
        cdef const uint8_t* at = <const uint8_t*>record + sizeof(record_t)
        cdef const uint8_t* end = <const uint8_t*>record + record.size
        cdef const item_t* item
        cdef const item_frame_t* body
        cdef can_buffer_t frame
        cdef done_t done
        cdef uint64_t word
        cdef size_t size
        while at < end:
            item = <const item_t*>at
            if item.size < sizeof(item_t) or item.size % 8 or item.size > <size_t>(end - at):
                return 1
            size = item.size - sizeof(item_t)
            at += sizeof(item_t)
            if item.kind == ITEM_FRAME:
                body = <const item_frame_t*>at
                if size < 16 or item.index >= self.at.program.n_can_buses or body.len > 64 or body.len > size - 16:
                    return 1
                memset(&frame, 0, sizeof(frame))
                frame.can_id = body.can_id
                frame.len = body.len
                frame.flags = body.flags
                memcpy(frame.data, body.data, body.len)
                can_decode(self.at.program, &self.at.can[item.index], &frame, body.is_fd != 0, self.at.image,
                           self.at.can_ids, body.t_ns)
            elif item.kind == ITEM_BUS_LOST:
                if item.index >= self.at.program.n_can_buses:
                    return 1
                can_lose_points(self.at.program, &self.at.can[item.index], self.at.image)
            elif item.kind == ITEM_DONE:
                memset(&done, 0, sizeof(done))
                if size < 24 or size > sizeof(done):
                    return 1
                memcpy(&done, at, size)
                if done.block >= self.at.program.n_blocks or done.count * 2 > size - 24:
                    return 1
                block_decode(self.at.program, &done, self.at.image)
            elif item.kind == ITEM_ORDER:
                if item.index >= ORDERS or size != sizeof(order_t):
                    return 1
                memcpy(&self.at.shared.mailbox[item.index], at, sizeof(order_t))
            elif item.kind == ITEM_PLAN:
                if size != sizeof(plan_t):
                    return 1
                memcpy(&self.at.shared.plan, at, sizeof(plan_t))
            elif item.kind == ITEM_CAN:
                if size != sizeof(can_seen_t) or item.index >= self.at.program.n_can_buses:
                    return 1
                restore_can(self.at, item.index, <const can_seen_t*>at)
            else:
                if size != sizeof(word):
                    return 1
                memcpy(&word, at, sizeof(word))
                if item.kind == ITEM_UTC:
                    self.at.shared.utc_offset_ns = <int64_t>word
                elif item.kind == ITEM_STOP:
                    self.at.stop = <uint32_t>word
                elif item.kind == ITEM_SELFTEST:
                    self.at.selftest.given = <uint32_t>word
                elif item.kind == ITEM_ESCALATION:
                    self.at.shared.loop.escalation = item.index
                    self.at.shared.loop.missed = word
                elif item.kind == ITEM_WRITTEN:
                    restore_written(self.at, item.index, word)
                elif item.kind == ITEM_SLAVE:
                    restore_slave(self.at, item.index, word)
                elif item.kind == ITEM_PORT and item.index < self.at.program.n_ports:
                    self.at.mail[item.index].stats.thread_lost = <uint32_t>word
                else:
                    return 1
            at += size
        return 0

    cdef void _beside(self, const record_t* record) noexcept nogil:
        """The other core's cycle: our readings and orders, its own program."""
        cdef core_t* other = self.other
        cdef int i
        cdef uint32_t number
        cdef const point_t* ours
        for i in range(self.n_map):
            ours = &self.at.image[self.map_from[i]]
            other.image[self.map_to[i]] = ours[0]
            # Whether it is too old is for the other program to say.
            if ours.quality == QUALITY_STALE:
                other.image[self.map_to[i]].quality = QUALITY_GOOD
        for i in range(ORDERS):
            if i != ORDER_ARM or self._follows:
                other.shared.mailbox[i] = self.at.shared.mailbox[i]
        if not self._follows and other.mode == MODE_TRIPPED and self.at.mode != MODE_TRIPPED:
            # It began tripped, and nobody armed it then: as an operator would, as long as the recorded site runs.
            if record.t_ns >= self.arm_due_ns:
                self.arm_due_ns = record.t_ns + 1000000000
                order_put(&other.shared.mailbox[ORDER_ARM], 1.0, record.t_ns + 1000000000, 0)
        if other.shared.plan.seq != self.at.shared.plan.seq:
            other.shared.plan = self.at.shared.plan
        other.shared.utc_offset_ns = self.at.shared.utc_offset_ns
        other.shared.loop.escalation = self.at.shared.loop.escalation
        other.shared.loop.missed = self.at.shared.loop.missed
        other.selftest.given = self.at.selftest.given
        other.stop = self.at.stop
        for number in range(min(other.program.n_can_buses, self.at.program.n_can_buses)):
            restore_can(other, number, &self.at.external.can[number])
        if self._follows:
            for number in range(other.program.n_slaves):
                restore_slave(other, number, self.at.external.slaves[number])
        self._acknowledge()
        core_cycle(other, record.t_ns, record.dt_ns, record.cycle)

    cdef void _acknowledge(self) noexcept nogil:
        """What the other core has asked for is taken, as long as the recorded converter of the same unit took its own."""
        cdef core_t* other = self.other
        cdef uint32_t port, slot
        cdef int unit
        for port in range(other.program.n_ports):
            for slot in range(other.mail[port].command_count):
                unit = other.program.commands[other.mail[port].command_first + slot].unit
                if 0 <= unit < <int>self.at.program.n_units and self.at.image[
                    SITE_POINTS + unit * UNIT_POINTS + UNIT_WRITE_WAIT_S
                ].value > 0.0:
                    continue
                other.mail[port].stats.written_seq[slot] = other.mail[port].commands[slot].seq
