"""A hostile line for the RTU engine, compiled so that ten million cases take seconds.

Every request gets an answer from a device model that is honest about its content: each register of each answer carries
who holds it (unit, address) and for which request it was read. Then a fault is done to the answer. Whatever the engine
believes is compared with what was asked. Devices work one request after the other, as devices do: an answer may be
late, but not later than the same device's answer to a later request.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from cpython.bytes cimport PyBytes_AS_STRING

from tidegate.ext.abi.port_mail cimport (
    DONE_OK, command_put, done_t, port_done_peek, port_done_pop, port_mail_init, port_mail_t,
)
from tidegate.ext.abi.program cimport COMMAND_CONST, COMMAND_REGS_MAX, program_t
from tidegate.ext.bus.rtu cimport (
    RTU_BLOCK, RTU_RECV, RTU_SEND, rtu_action_t, rtu_bytes, rtu_init, rtu_next, rtu_sent, rtu_t,
)
from tidegate.ext.bus.rtu_frame cimport crc16

FAULTS = ("none", "late", "short", "echoed", "foreign", "noisy", "swapped", "repeated", "silent", "exception", "lost",
          "crossed")

cdef enum:
    NONE, LATE, SHORT, ECHOED, FOREIGN, NOISY, SWAPPED, REPEATED, SILENT, REFUSED, LOST, CROSSED, KINDS
    QUEUE = 16
    UNITS = 8

cdef struct delivery_t:
    uint64_t t_ns
    uint32_t n
    int unit
    int begun
    uint8_t bytes[560]

cdef struct device_t:
    uint64_t t_busy_ns     # its last answer's end
    uint32_t newest_write  # number of the newest write that reached it, by command slot
    uint32_t received[32]


cdef inline uint64_t draw(uint64_t* state) noexcept nogil:
    state[0] ^= state[0] << 13
    state[0] ^= state[0] >> 7
    state[0] ^= state[0] << 17
    return state[0]


cdef inline uint32_t below(uint64_t* state, uint32_t n) noexcept nogil:
    return <uint32_t>((draw(state) >> 33) % n)


cdef inline uint16_t content(uint32_t unit, uint32_t function, uint32_t address, uint32_t nonce) noexcept nogil:
    """What register `address` of `unit` holds when request number `nonce` reads it."""
    cdef uint32_t x = unit * 0x9E3779B1u ^ function * 0x85EBCA6Bu ^ address * 0xC2B2AE35u ^ nonce * 0x27D4EB2Fu
    x ^= x >> 15
    x *= 0x2C1B3C6Du
    x ^= x >> 13
    return <uint16_t>x


cdef inline uint32_t crc_append(uint8_t* frame, uint32_t n) noexcept nogil:
    cdef uint16_t crc = crc16(frame, n)
    frame[n] = <uint8_t>crc
    frame[n + 1] = <uint8_t>(crc >> 8)
    return n + 2


cdef class Storm:
    """One engine in a storm. program: bytes of a compiled site with one port; commands must be function 6 or 16."""

    cdef bytes blob
    cdef const program_t* program
    cdef rtu_t* e
    cdef port_mail_t* mail
    cdef delivery_t* queue
    cdef device_t devices[256]
    cdef uint64_t t_ns, state
    cdef uint32_t nonce, n_queue
    cdef uint32_t numbers[32]           # newest number put into each command slot
    cdef uint64_t settled[32]
    cdef uint8_t last[560]              # the answer before
    cdef uint32_t last_n, last_nonce
    cdef int last_unit, last_repeatable
    cdef uint64_t counts[KINDS]
    cdef uint8_t history[64]            # what was done to each of the last requests
    cdef uint8_t asked[64]              # and whom it asked for what
    cdef uint64_t believed, wrong, old, stale, acknowledged, wrong_ack, sent
    cdef uint32_t repeat_of[1024]       # by request: 1 + the one whose answer was put on the line twice meanwhile
    cdef public str first_wrong

    def __cinit__(self, bytes blob not None):
        self.blob = blob
        self.program = <const program_t*>PyBytes_AS_STRING(blob)
        self.e = <rtu_t*>calloc(1, sizeof(rtu_t))
        self.mail = <port_mail_t*>calloc(1, sizeof(port_mail_t))
        self.queue = <delivery_t*>calloc(QUEUE, sizeof(delivery_t))
        if self.e == NULL or self.mail == NULL or self.queue == NULL:
            raise MemoryError("no memory for the storm")

    def __dealloc__(self):
        free(self.e)
        free(self.mail)
        free(self.queue)

    def run(self, uint64_t seed, uint64_t cases, uint32_t calm_percent=30):
        """Let `cases` transactions pass, `calm_percent` of them without a fault; returns the counts."""
        self.state = seed * 0x9E3779B97F4A7C15u + 0x1234567u
        self.t_ns = 1000000000
        self.first_wrong = ""
        memset(self.mail, 0, sizeof(port_mail_t))
        port_mail_init(self.mail, self.program, 0)
        rtu_init(self.e, self.program, 0, self.mail, self.t_ns)
        with nogil:
            while self.sent < cases:
                self.step(calm_percent)
        return {
            "cases": self.sent, "believed": self.believed, "wrong": self.wrong, "old": self.old, "stale": self.stale,
            "acknowledged": self.acknowledged, "wrong_acknowledged": self.wrong_ack,
            "faults": {name: self.counts[i] for i, name in enumerate(FAULTS)},
            "stats": {key: value for key, value in dict(self.mail.stats).items() if isinstance(value, int)},
            "virtual_s": self.t_ns / 1e9,
        }

    def pulses(self, uint64_t n):
        """Call rtu_next `n` times while nothing is due, as a world with a 1 ms cycle does."""
        cdef rtu_action_t action
        cdef uint64_t i
        with nogil:
            for i in range(n):
                rtu_next(self.e, self.t_ns, &action)

    cdef void step(self, uint32_t calm_percent) noexcept nogil:
        cdef rtu_action_t action
        cdef uint32_t i, first
        rtu_next(self.e, self.t_ns, &action)
        self.judge()
        if action.what == RTU_SEND:
            self.sent += 1
            self.nonce += 1
            self.answer(&action, calm_percent)
            return
        if self.n_queue > 0:
            first = 0
            for i in range(1, self.n_queue):
                if self.queue[i].t_ns < self.queue[first].t_ns:
                    first = i
            for i in range(self.n_queue):  # a frame that has begun ends before another: it is one pair of wires
                if self.queue[i].begun:
                    first = i
            if self.queue[first].t_ns <= action.until_ns:
                self.deliver(first)
                return
        if action.until_ns == 0xFFFFFFFFFFFFFFFFu:
            self.t_ns += 1000000
        else:
            self.t_ns = action.until_ns if action.until_ns > self.t_ns else self.t_ns + 1
        self.maybe_put()

    cdef void deliver(self, uint32_t at) noexcept nogil:
        cdef delivery_t* d = &self.queue[at]
        cdef uint32_t part = d.n, i
        if d.t_ns > self.t_ns:
            self.t_ns = d.t_ns
        if d.n > 1 and below(&self.state, 3) == 0:  # in pieces
            part = 1 + below(&self.state, d.n - 1)
        rtu_bytes(self.e, d.bytes, part, self.t_ns)
        self.judge()
        if part < d.n:
            d.n -= part
            d.begun = 1
            for i in range(d.n):
                d.bytes[i] = d.bytes[i + part]
            d.t_ns = self.t_ns + d.n * self.e.char_ns + below(&self.state, 300000)
            return
        self.n_queue -= 1
        if at != self.n_queue:
            memcpy(d, &self.queue[self.n_queue], sizeof(delivery_t))

    cdef void judge(self) noexcept nogil:
        """Compare what the engine believed with what was asked."""
        cdef const done_t* done = port_done_peek(self.mail)
        cdef uint32_t i, unit, function, address, slot
        cdef bint same
        while done != NULL:
            if done.status == DONE_OK:
                self.believed += 1
                unit = self.program.slaves[self.program.blocks[done.block].slave].unit_id
                function = self.program.blocks[done.block].function
                address = self.program.blocks[done.block].address
                if not self.is_of(done, unit, function, address, self.nonce):
                    same = False
                    i = 0
                    for i in range(1, 64):  # an older answer for the very same registers?
                        if self.nonce >= i and self.is_of(done, unit, function, address, self.nonce - i):
                            same = True
                            break
                    if not same or self.repeat_of[self.nonce & 1023] != 1 + self.nonce - i:
                        self.wrong += 0 if same else 1
                        self.old += 1 if same else 0
                        self.explain(done.block, i if same else 0)
                    else:
                        self.stale += 1
            port_done_pop(self.mail)
            done = port_done_peek(self.mail)
        for slot in range(self.mail.command_count):
            if self.mail.stats.written_seq[slot] == self.settled[slot]:
                continue
            self.settled[slot] = self.mail.stats.written_seq[slot]
            if self.program.commands[self.mail.command_first + slot].kind == COMMAND_CONST:
                continue
            self.acknowledged += 1
            unit = self.program.slaves[self.program.commands[self.mail.command_first + slot].slave].unit_id
            # seq counts in twos; the number that was put with it stands in the register.
            if self.devices[unit].received[slot] < <uint32_t>(self.settled[slot] // 2):
                self.wrong_ack += 1
                self.explain(1000 + slot, 0)

    cdef void explain(self, uint32_t block, uint32_t age) noexcept nogil:
        """Keep the story of the first wrong one: what was asked and what was done to it, newest last."""
        cdef uint32_t i
        with gil:
            if self.first_wrong:
                return
            story = [f"{self.asked[(self.nonce - i) & 63] >> 5}/{self.asked[(self.nonce - i) & 63] & 31}:"
                     f"{FAULTS[self.history[(self.nonce - i) & 63]]}" for i in range(7, -1, -1)]
            what = f"block {block}" if block < 1000 else f"acknowledgement of command {block - 1000}"
            how = f"{age} requests old" if age else "of nobody"
            self.first_wrong = f"request {self.nonce}, {what}: {how}; " + " ".join(story)

    cdef bint is_of(self, const done_t* done, uint32_t unit, uint32_t function, uint32_t address, uint32_t nonce) noexcept nogil:
        cdef uint32_t i, first = 0
        cdef const uint16_t* regs = done.regs
        if self.program.blocks[done.block].signature & 1:
            if regs[0] != self.program.blocks[done.block].signature_word:
                return False
            first = 1
        if function <= 2:
            # Whole words only; the last one may be cut.
            for i in range(self.program.blocks[done.block].count // 16):
                if regs[i] != content(unit, function, address + i, nonce):
                    return False
            return True
        for i in range(first, done.count):
            if regs[i] != content(unit, function, address + i, nonce):
                return False
        return True

    cdef void maybe_put(self) noexcept nogil:
        cdef uint16_t[COMMAND_REGS_MAX] regs
        cdef uint32_t slot
        if self.mail.command_count == 0 or below(&self.state, 6) != 0:
            return
        slot = below(&self.state, self.mail.command_count)
        if self.program.commands[self.mail.command_first + slot].kind == COMMAND_CONST:
            return
        self.numbers[slot] += 1
        memset(regs, 0, sizeof(regs))
        regs[0] = <uint16_t>(self.numbers[slot] >> 16)
        regs[1] = <uint16_t>self.numbers[slot]
        if self.program.commands[self.mail.command_first + slot].count == 1:
            regs[0] = regs[1]
        command_put(&self.mail.commands[slot], regs, 1, below(&self.state, 2), self.t_ns)

    cdef uint32_t honest(self, const uint8_t* frame, uint8_t* reply) noexcept nogil:
        """The device's answer, and the write it does."""
        cdef uint32_t unit = frame[0], function = frame[1], address = frame[2] << 8 | frame[3]
        cdef uint32_t count = frame[4] << 8 | frame[5], i, slot, number
        cdef uint16_t word
        reply[0], reply[1] = frame[0], frame[1]
        if function <= 2:
            reply[2] = <uint8_t>((count + 7) // 8)
            for i in range(reply[2]):
                word = content(unit, function, address + i // 2, self.nonce)
                reply[3 + i] = <uint8_t>(word >> 8 if i & 1 else word)
            return crc_append(reply, 3 + reply[2])
        if function <= 4:
            reply[2] = <uint8_t>(2 * count)
            for i in range(count):
                word = content(unit, function, address + i, self.nonce)
                reply[3 + 2 * i] = <uint8_t>(word >> 8)
                reply[4 + 2 * i] = <uint8_t>word
            self.sign(unit, address, reply)
            return crc_append(reply, 3 + 2 * count)
        memcpy(reply, frame, 6)
        for slot in range(self.mail.command_count):
            if self.program.commands[self.mail.command_first + slot].address != address:
                continue
            if self.program.slaves[self.program.commands[self.mail.command_first + slot].slave].unit_id != unit:
                continue
            number = count if function == 6 else <uint32_t>(frame[7] << 8 | frame[8])
            if function == 16 and count == 2:
                number = number << 16 | <uint32_t>(frame[9] << 8 | frame[10])
            else:  # sixteen bits of a longer number
                number |= self.numbers[slot] & 0xFFFF0000u
                if number > self.numbers[slot]:
                    number -= 0x10000u
            if number > self.devices[unit].received[slot]:
                self.devices[unit].received[slot] = number
        return crc_append(reply, 6)

    cdef void sign(self, uint32_t unit, uint32_t address, uint8_t* reply) noexcept nogil:
        cdef uint32_t i
        for i in range(self.program.n_blocks):
            if self.program.blocks[i].signature & 1 and self.program.blocks[i].address == address:
                if self.program.slaves[self.program.blocks[i].slave].unit_id == unit:
                    reply[3] = <uint8_t>(self.program.blocks[i].signature_word >> 8)
                    reply[4] = <uint8_t>self.program.blocks[i].signature_word

    cdef void enqueue(self, uint64_t t_ns, const uint8_t* bytes, uint32_t n, int unit) noexcept nogil:
        cdef delivery_t* d
        if self.n_queue >= QUEUE or n == 0:
            return
        d = &self.queue[self.n_queue]
        self.n_queue += 1
        d.t_ns, d.n, d.unit, d.begun = t_ns, n, unit, 0
        memcpy(d.bytes, bytes, n)

    cdef void answer(self, const rtu_action_t* action, uint32_t calm_percent) noexcept nogil:
        cdef uint8_t[560] reply
        cdef uint8_t[560] other
        cdef uint32_t n, i, m, kind = NONE, unit = action.frame[0], at, bits
        cdef uint64_t char_ns = self.e.char_ns, end = self.t_ns + action.length * char_ns, turn, t
        cdef bint repeatable = True
        if below(&self.state, 100) >= calm_percent:
            kind = 1 + below(&self.state, KINDS - 1)
        self.counts[kind] += 1
        self.history[self.nonce & 63] = <uint8_t>kind
        self.asked[self.nonce & 63] = <uint8_t>(action.frame[0] << 5 | action.frame[1])
        self.repeat_of[(self.nonce + 2) & 1023] = 0
        turn = 500000 + below(&self.state, 4000000)
        rtu_sent(self.e, end)
        self.judge()
        if kind == SILENT:
            return
        if kind == LOST:  # the request never arrived
            return
        n = self.honest(action.frame, reply)
        t = end + turn + n * char_ns
        if kind == LATE:  # after the time-out, up to three times the map's own, but in the device's order
            t = end + 20000000 + <uint64_t>below(&self.state, 300) * 1000000
        if t <= self.devices[unit].t_busy_ns:
            t = self.devices[unit].t_busy_ns + n * char_ns + 1
        if kind == SHORT:
            n = below(&self.state, n)
        elif kind == ECHOED:
            m = action.length if below(&self.state, 4) else below(&self.state, action.length)
            self.enqueue(end, action.frame, m, 0)
            if action.frame[1] == 6 and m == 8:
                repeatable = False
            if below(&self.state, 2):
                return  # the echo alone: nobody is there
        elif kind == FOREIGN:
            self.foreign(action, reply, n, other, end + below(&self.state, 5000000))
            if below(&self.state, 2):
                return
        elif kind == NOISY:
            # What CRC-16 finds for certain: up to three bits anywhere, or one burst of up to sixteen; or mere noise.
            bits = below(&self.state, 5)
            if bits < 3:
                for i in range(bits + 1):
                    at = below(&self.state, n * 8)
                    reply[at >> 3] ^= <uint8_t>(1 << (at & 7))
                repeatable = False
            elif bits == 3 and n > 3:
                at = below(&self.state, n - 2)
                reply[at] ^= <uint8_t>(1 + below(&self.state, 255))
                reply[at + 1] ^= <uint8_t>below(&self.state, 256)
                repeatable = False
            else:
                m = 1 + below(&self.state, 20)
                for i in range(m):
                    other[i] = <uint8_t>draw(&self.state)
                self.enqueue(end + below(&self.state, 3000000), other, m, 0)
        elif kind == SWAPPED and self.last_nonce + 1 == self.nonce:
            # The answer before comes again in place of this one; this one comes during the next request.
            self.enqueue(end + turn + self.last_n * char_ns, self.last, self.last_n, self.last_unit)
            self.repeat_of[self.nonce & 1023] = 1 + self.last_nonce
            t += 25000000 + below(&self.state, 60000000)
        elif kind == REPEATED:
            self.enqueue(t, reply, n, <int>unit)
            self.repeat_of[(self.nonce + 1) & 1023] = 1 + self.nonce
            t += below(&self.state, 2000000)  # before or during the next request, not behind it
        elif kind == REFUSED:
            reply[1] |= 0x80
            reply[2] = <uint8_t>(1 + below(&self.state, 11))
            n = crc_append(reply, 3)
        elif kind == CROSSED:  # right length and CRC, wrong header
            i = below(&self.state, 3)
            reply[i] ^= <uint8_t>(1 + below(&self.state, 255))
            if reply[1] == (action.frame[1] | 0x80):
                reply[1] = 0x7F
            n = crc_append(reply, n - 2)
            repeatable = False
        self.devices[unit].t_busy_ns = t
        self.enqueue(t, reply, n, <int>unit)
        if repeatable and n > 4:
            memcpy(self.last, reply, n)
            self.last_n, self.last_unit, self.last_nonce = n, <int>unit, self.nonce

    cdef void foreign(self, const rtu_action_t* action, const uint8_t* reply, uint32_t n, uint8_t* other, uint64_t t) noexcept nogil:
        """Another master's request or another unit's answer, whole and with a good CRC."""
        cdef uint32_t i
        if below(&self.state, 2):
            memcpy(other, action.frame, 6)
            other[0] = <uint8_t>(action.frame[0] + 1 + below(&self.state, 100))
            other[1] = 3
            self.enqueue(t, other, crc_append(other, 6), 0)
            return
        memcpy(other, reply, n)
        other[0] = <uint8_t>(action.frame[0] + 1 + below(&self.state, 100))
        for i in range(3, n - 2):
            other[i] = <uint8_t>draw(&self.state)
        self.enqueue(t, other, crc_append(other, n - 2), 0)
