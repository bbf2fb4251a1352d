"""A hostile server for Modbus TCP, compiled so that ten million cases take seconds.

Each register of each answer carries who holds it and for which request it was read. Then a fault is done to the answer or to
the connection. Whatever the engine believes is compared with what was asked. A stream keeps its order, as TCP does; servers
cut, double, mix up and repeat frames in it, and gateways answer on a new connection what was asked on the one before.

One of the devices is a meter whose scale factors move from reading to reading, that is read while it writes a number of two
registers, whose registers are moved and whose factors get lost. Its values are decoded and held against what it measured for
that very request.
"""

from libc.math cimport fabs
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from cpython.bytes cimport PyBytes_AS_STRING

from tidegate.ext.abi.port_mail cimport DONE_OK, done_t, port_done_peek, port_done_pop, port_mail_init, port_mail_t
from tidegate.ext.abi.image cimport QUALITY_GOOD, point_t
from tidegate.ext.abi.program cimport POINTS_MAX, block_row_t, program_t
from tidegate.ext.bus.mbap cimport (
    MBAP_BROKEN, MBAP_SUSPECT, MBAP_FRAME, MBAP_HEADER, MBAP_RX, mbap_ask, mbap_came, mbap_frame_t, mbap_next, mbap_taken, stream_t,
)
from tidegate.ext.bus.registers cimport block_decode
from tidegate.ext.bus.rtu cimport (
    RTU_RECEIVING, RTU_SEND, rtu_action_t, rtu_again, rtu_cut, rtu_frame, rtu_init, rtu_joined, rtu_next, rtu_sent, rtu_t,
)

FAULTS = ("none", "late", "doubled", "doubled later", "older id", "any id", "unit", "function", "length", "count", "cut",
          "cut, again", "cut, again later", "cut, again in pieces", "in pieces", "closed", "exception", "stale", "noise",
          "crossed", "silent")

MOVES = ("honest", "scale moved", "half updated", "registers moved", "factor lost")
NAMES = ("W", "P", "energy", "exact")

cdef enum:
    HONEST, SCALE, HALF, MOVED, LOST, MOVES_N
    WORDS = 16   # 0 the model's number, 1 W (s16), 2 W_SF, 3 P (s32), 5 P_SF, 6 energy (u32), 8 exact (s32)
    MODEL = 203

cdef enum:
    NONE, LATE, DOUBLED, DOUBLED_LATER, OLDER_ID, ANY_ID, UNIT, FUNCTION, LENGTH, COUNT, CUT
    CUT_AGAIN, CUT_AGAIN_LATER, CUT_AGAIN_PIECES, PIECES, CLOSED, REFUSED, STALE, NOISE, CROSSED, SILENT, KINDS
    QUEUE = 24

cdef struct piece_t:
    uint64_t t_ns
    uint32_t n
    uint8_t bytes[600]


cdef inline uint64_t draw(uint64_t* state) noexcept nogil:
    state[0] ^= state[0] << 13
    state[0] ^= state[0] >> 7
    state[0] ^= state[0] << 17
    return state[0]


cdef inline uint32_t below(uint64_t* state, uint32_t n) noexcept nogil:
    return <uint32_t>((draw(state) >> 33) % n)


cdef inline uint16_t content(uint32_t unit, uint32_t address, uint32_t nonce) noexcept nogil:
    cdef uint32_t x = unit * 0x9E3779B1u ^ address * 0xC2B2AE35u ^ nonce * 0x27D4EB2Fu
    x ^= x >> 15
    x *= 0x2C1B3C6Du
    x ^= x >> 13
    # Registers are small numbers and zeros more often than not, which is what headers look like.
    return <uint16_t>x if x & 0x30000 == 0 else <uint16_t>(x & 0xFF) if x & 0x10000 else 0


cdef class TcpStorm:
    """One framed engine in a storm. program: bytes of a compiled site with one Modbus TCP port that only reads."""

    cdef bytes blob
    cdef const program_t* program
    cdef rtu_t* e
    cdef port_mail_t* mail
    cdef stream_t* stream
    cdef piece_t* queue
    cdef uint64_t t_ns, state
    cdef uint32_t nonce, n_queue, waiting
    cdef uint16_t tid
    cdef uint8_t last[300]
    cdef uint32_t last_n
    cdef uint64_t counts[KINDS]
    cdef uint64_t believed, wrong, connections, sent, doubts
    cdef int fault
    cdef public str first_wrong
    cdef public bint lies    # planted: the meter's factor is another than that of its value
    # The meter whose numbers move.
    cdef uint32_t first, meter
    cdef point_t image[POINTS_MAX]
    cdef uint16_t words[WORDS]
    cdef uint16_t before[WORDS]
    cdef uint16_t shown[WORDS]
    cdef int64_t watts, energy, exact
    cdef int scale
    cdef bint whole          # 1 = the newest reading that was believed was no half of another
    cdef uint32_t move, moves_percent
    cdef uint64_t moves[MOVES_N]
    cdef uint64_t values[4]

    def __cinit__(self, bytes blob not None, uint32_t first, uint32_t meter):
        """first : image row of its W; P, energy and exact follow. meter : its unit id."""
        self.blob, self.first, self.meter = blob, first, meter
        self.watts, self.energy = 1000, 65000
        self.program = <const program_t*>PyBytes_AS_STRING(blob)
        self.e = <rtu_t*>calloc(1, sizeof(rtu_t))
        self.mail = <port_mail_t*>calloc(1, sizeof(port_mail_t))
        self.stream = <stream_t*>calloc(1, sizeof(stream_t))
        self.queue = <piece_t*>calloc(QUEUE, sizeof(piece_t))
        if self.e == NULL or self.mail == NULL or self.stream == NULL or self.queue == NULL:
            raise MemoryError("no memory for the storm")

    def __dealloc__(self):
        free(self.e)
        free(self.mail)
        free(self.stream)
        free(self.queue)

    def run(self, uint64_t seed, uint64_t cases, uint32_t calm_percent=30):
        """Let `cases` requests pass, `calm_percent` of them without a fault; returns the counts. 100: an honest meter too."""
        self.moves_percent = 40 if calm_percent < 100 else 0
        self.state = seed * 0x9E3779B97F4A7C15u + 0x1234567u
        self.t_ns = 1000000000
        self.first_wrong = ""
        port_mail_init(self.mail, self.program, 0)
        rtu_init(self.e, self.program, 0, self.mail, self.t_ns)
        self.stream.tid = <uint16_t>draw(&self.state)
        with nogil:
            while self.sent < cases:
                self.step(calm_percent)
        return {
            "cases": self.sent, "believed": self.believed, "wrong": self.wrong, "connections": self.connections,
            "doubts": self.doubts,
            "faults": {name: self.counts[i] for i, name in enumerate(FAULTS)},
            "moved": {name: self.moves[i] for i, name in enumerate(MOVES)}, "values": list(self.values),
        }

    cdef void step(self, uint32_t calm_percent) noexcept nogil:
        cdef rtu_action_t action
        cdef uint64_t until
        cdef bint in_flight = self.e.state == RTU_RECEIVING
        rtu_next(self.e, self.t_ns, &action)
        if in_flight and self.e.state != RTU_RECEIVING:  # its time is over
            self.waiting = 0
            if self.stream.rx_len > 0:
                self.reconnect()
        if action.what == RTU_SEND:
            self.ask(&action, calm_percent)
            return
        until = self.e.t_deadline_ns if self.e.state == RTU_RECEIVING else action.until_ns
        if self.n_queue > 0 and self.queue[0].t_ns <= until:
            self.deliver()
        else:
            self.t_ns = until if until > self.t_ns else self.t_ns + 1000

    cdef void reconnect(self) noexcept nogil:
        self.connections += 1
        self.stream.rx_len = self.n_queue = 0
        self.waiting = 0
        rtu_cut(self.e, self.t_ns)
        rtu_joined(self.e, self.t_ns)

    cdef void push(self, const uint8_t* bytes, uint32_t n, uint64_t t_ns) noexcept nogil:
        cdef piece_t* piece
        if n == 0 or self.n_queue >= QUEUE:
            return
        piece = &self.queue[self.n_queue]
        piece.t_ns = t_ns
        if self.n_queue > 0 and self.queue[self.n_queue - 1].t_ns > t_ns:
            piece.t_ns = self.queue[self.n_queue - 1].t_ns
        piece.n = n
        memcpy(piece.bytes, bytes, n)
        self.n_queue += 1

    cdef void deliver(self) noexcept nogil:
        cdef uint32_t i, used = 0, n = self.queue[0].n
        cdef mbap_frame_t frame
        cdef int status
        self.t_ns = self.queue[0].t_ns if self.queue[0].t_ns > self.t_ns else self.t_ns
        if self.stream.rx_len + n > <uint32_t>MBAP_RX:
            n = MBAP_RX - self.stream.rx_len
        memcpy(self.stream.rx + self.stream.rx_len, self.queue[0].bytes, n)
        for i in range(1, self.n_queue):
            self.queue[i - 1] = self.queue[i]
        self.n_queue -= 1
        status = mbap_came(self.stream, n)
        if status != MBAP_BROKEN:
            status = mbap_next(self.stream, &used, &frame)
            while status == MBAP_FRAME or status == MBAP_SUSPECT:
                if self.waiting and frame.tid == self.tid and status == MBAP_SUSPECT:
                    self.waiting = 0
                    self.doubts += 1
                    rtu_again(self.e)
                elif self.waiting and frame.tid == self.tid:
                    self.waiting = 0
                    rtu_frame(self.e, frame.bytes, frame.length, self.t_ns)
                    self.judge()
                status = mbap_next(self.stream, &used, &frame)
        if status == MBAP_BROKEN:
            self.reconnect()
        else:
            mbap_taken(self.stream, used)

    cdef void measure(self) noexcept nogil:
        """The meter's next moment: numbers that cross the turns of their low words, a scale that fits them or not."""
        cdef int64_t step = <int64_t>below(&self.state, 300) - 150
        cdef int64_t raw
        cdef uint32_t i
        memcpy(self.before, self.words, sizeof(self.words))
        if below(&self.state, 40) == 0:
            self.watts = <int64_t>below(&self.state, 60000) - 30000
        else:
            self.watts += <int64_t>below(&self.state, 400) - 200
        self.watts = 30000 if self.watts > 30000 else -30000 if self.watts < -30000 else self.watts
        self.energy += below(&self.state, 300)
        self.exact += step if -70000 < self.exact + step < 70000 else -step
        raw = self.watts * 10 if self.scale < 0 else self.watts // 10 if self.scale > 0 else self.watts
        if not -32768 <= raw <= 32767:  # what does not fit is measured coarser
            self.scale, raw = 1, self.watts // 10
        for i in range(WORDS):
            self.words[i] = <uint16_t>(0xA500 + i)
        self.words[0], self.words[1], self.words[2] = MODEL, <uint16_t>raw, <uint16_t>self.scale
        raw = self.watts * 100
        self.words[3], self.words[4], self.words[5] = <uint16_t>(raw >> 16), <uint16_t>raw, <uint16_t>-2
        self.words[6], self.words[7] = <uint16_t>(self.energy >> 16), <uint16_t>self.energy
        self.words[8], self.words[9] = <uint16_t>(self.exact >> 16), <uint16_t>self.exact

    cdef void show(self) noexcept nogil:
        """What a request finds in the meter's registers."""
        cdef uint32_t i, shift = 0
        self.move = 1 + below(&self.state, MOVES_N - 1) if self.moves_percent and below(&self.state, 100) < self.moves_percent else HONEST
        # The second of two believed readings in a row that were both torn is taken for a step: a whole one lies between.
        if self.move == HALF and not self.whole:
            self.move = HONEST
        if self.move == SCALE:
            self.scale = <int>below(&self.state, 3) - 1
        self.measure()
        memcpy(self.shown, self.words, sizeof(self.words))
        if self.move == HALF:  # one word of each pair is still that of the moment before
            i = below(&self.state, 2)
            self.shown[6 + i], self.shown[8 + i] = self.before[6 + i], self.before[8 + i]
        elif self.move == MOVED:
            shift = 1 + below(&self.state, 8)
            if self.words[shift] == MODEL:  # another register that happens to hold the model's number signs for it
                shift = 0
            for i in range(WORDS):
                self.shown[i] = self.words[(i + shift) % WORDS]
        elif self.move == LOST:
            self.shown[2] = self.shown[5] = 0x8000
        elif self.lies:
            self.shown[2] += 1
        self.moves[self.move] += 1

    cdef uint16_t holds(self, uint32_t unit, uint32_t address) noexcept nogil:
        """The register, as this very request finds it."""
        return self.shown[address % WORDS] if unit == self.meter else content(unit, address, self.nonce)

    cdef void judge_values(self, const done_t* done) noexcept nogil:
        """What the meter's reply decodes to must be what it measured for this request."""
        cdef double[4] truth
        cdef double[4] slack
        cdef const point_t* point
        cdef uint32_t i
        truth[:] = [<double>self.watts, <double>self.watts, <double>self.energy, <double>self.exact]
        # A moment apart is no lie: half of a pair may be that of the moment before where no turn lies between.
        slack[:] = [9.5, 0.001, 300.0 if self.move == HALF else 0.0, 150.0 if self.move == HALF else 0.0]
        self.whole = self.move != HALF
        block_decode(self.program, done, self.image)
        for i in range(4):
            point = &self.image[self.first + i]
            if point.quality != QUALITY_GOOD or point.t_ns != done.t_sample_ns:
                continue
            self.values[i] += 1
            if fabs(point.value - truth[i]) > slack[i]:
                self.wrong += 1
                with gil:
                    if not self.first_wrong:
                        self.first_wrong = (f"request {self.sent}, {NAMES[i]}: {point.value} believed, {truth[i]} measured, "
                                            f"{MOVES[self.move]}, after {FAULTS[self.fault]}")

    cdef void judge(self) noexcept nogil:
        """What was believed must be what was read for this very request."""
        cdef const done_t* done = port_done_peek(self.mail)
        cdef const block_row_t* row
        cdef uint32_t i
        cdef bint good
        while done != NULL:
            if done.status == DONE_OK:
                row = &self.program.blocks[done.block]
                good = True
                for i in range(done.count):
                    good = good and done.regs[i] == self.holds(self.program.slaves[row.slave].unit_id, row.address + i)
                self.believed += good
                self.wrong += not good
                if self.program.slaves[row.slave].unit_id == self.meter:
                    self.judge_values(done)
                if not good:
                    with gil:
                        if not self.first_wrong:
                            self.first_wrong = f"request {self.sent}, block {done.block}, after {FAULTS[self.fault]}"
            port_done_pop(self.mail)
            done = port_done_peek(self.mail)

    cdef void ask(self, const rtu_action_t* action, uint32_t calm_percent) noexcept nogil:
        cdef uint8_t[300] header, reply, spoilt
        cdef uint8_t[600] both
        cdef const uint8_t* request = action.frame
        cdef uint32_t address = request[2] << 8 | request[3], count = request[4] << 8 | request[5], i, n, at, k
        cdef uint64_t due
        cdef uint16_t word
        self.sent += 1
        self.nonce += 1
        if request[0] == self.meter:
            self.show()
        self.tid = mbap_ask(self.stream, header, action.length)
        self.waiting = 1
        rtu_sent(self.e, self.t_ns)
        memcpy(reply, header, MBAP_HEADER)
        reply[5] = <uint8_t>(3 + 2 * count)
        reply[6], reply[7], reply[8] = request[0], request[1], <uint8_t>(2 * count)
        for i in range(count):
            word = self.holds(request[0], address + i)
            reply[9 + 2 * i], reply[10 + 2 * i] = <uint8_t>(word >> 8), <uint8_t>word
        n = 9 + 2 * count
        memcpy(spoilt, reply, n)
        due = self.t_ns + 100000 + below(&self.state, 5000000)
        self.fault = NONE if below(&self.state, 100) < calm_percent else 1 + <int>below(&self.state, KINDS - 1)
        self.counts[self.fault] += 1
        at = 1 + below(&self.state, n - 1)
        if self.fault == LATE:
            self.push(reply, n, self.e.t_deadline_ns + below(&self.state, 400000000))
        elif self.fault == DOUBLED:
            memcpy(both, reply, n)
            memcpy(both + n, reply, n)
            self.push(both, 2 * n, due)
        elif self.fault == DOUBLED_LATER:
            self.push(reply, n, due)
            self.push(reply, n, due + below(&self.state, 50000000))
        elif self.fault in (OLDER_ID, ANY_ID):
            word = <uint16_t>(self.tid - 257 * (1 + below(&self.state, 80))) if self.fault == OLDER_ID else <uint16_t>draw(&self.state)
            if word == self.tid:
                word ^= 1
            spoilt[0], spoilt[1] = <uint8_t>(word >> 8), <uint8_t>word
            self.push(spoilt, n, due)
        elif self.fault in (UNIT, FUNCTION, LENGTH, COUNT):
            k = 6 if self.fault == UNIT else 7 if self.fault == FUNCTION else 5 if self.fault == LENGTH else 8
            spoilt[k] ^= <uint8_t>(1 + below(&self.state, 255))
            self.push(spoilt, n, due)
        elif self.fault == CUT:
            self.push(reply, at, due)
        elif self.fault == CUT_AGAIN:
            memcpy(both, reply, at)
            memcpy(both + at, reply, n)
            self.push(both, at + n, due)
        elif self.fault == CUT_AGAIN_LATER:
            self.push(reply, at, due)
            self.push(reply, n, due + below(&self.state, 50000000))
        elif self.fault == CUT_AGAIN_PIECES:
            memcpy(both, reply, at)
            memcpy(both + at, reply, n)
            self.pieces(both, at + n, due)
        elif self.fault == PIECES:
            self.pieces(reply, n, due)
        elif self.fault == CLOSED:
            self.reconnect()
        elif self.fault == REFUSED:
            spoilt[5], spoilt[7], spoilt[8] = 3, spoilt[7] | 0x80, <uint8_t>(1 + below(&self.state, 12))
            self.push(spoilt, 9, due)
        elif self.fault == STALE:
            self.reconnect()
            self.push(reply, n, self.t_ns + below(&self.state, 2000000))
        elif self.fault == NOISE:
            for i in range(at if at < 40 else 40):
                both[i] = <uint8_t>draw(&self.state) if below(&self.state, 2) else 0
            k = at if at < 40 else 40
            memcpy(both + k, reply, n)
            self.push(both, n + k, due)
        elif self.fault == CROSSED:
            self.push(self.last, self.last_n, due)
            self.push(reply, n, due + below(&self.state, 3000000))
        elif self.fault != SILENT:
            self.push(reply, n, due)
        memcpy(self.last, reply, n)
        self.last_n = n

    cdef void pieces(self, const uint8_t* bytes, uint32_t n, uint64_t t_ns) noexcept nogil:
        cdef uint32_t at = 0, part
        while at < n:
            part = 1 + below(&self.state, n - at)
            self.push(bytes + at, part, t_ns)
            at += part
            t_ns += below(&self.state, 3000000)
