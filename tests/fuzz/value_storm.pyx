"""A meter that lies about nothing and tears everything: are its values believed only where they are true?

The device moves its scale factors as it likes, is read while it writes a number of two registers, loses its map to an
update that moves its registers, and forgets a factor. Each reading goes over the engine and the compiled decoder; each
value that comes out is compared with what the device measured for that very reading.
"""

from libc.math cimport fabs
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from cpython.bytes cimport PyBytes_AS_STRING

from tidegate.ext.abi.image cimport QUALITY_GOOD, point_t
from tidegate.ext.abi.port_mail cimport DONE_OK, done_t, port_done_peek, port_done_pop, port_mail_init, port_mail_t
from tidegate.ext.abi.program cimport POINTS_MAX, program_t
from tidegate.ext.bus.registers cimport block_decode
from tidegate.ext.bus.rtu cimport RTU_SEND, rtu_action_t, rtu_bytes, rtu_init, rtu_next, rtu_sent, rtu_t
from tidegate.ext.bus.rtu_frame cimport crc16

CASES = ("honest", "scale moved", "half updated", "registers moved", "factor lost")

cdef enum:
    HONEST, SCALE, HALF, MOVED, LOST, KINDS
    WORDS = 16   # 0 the model's number, 1 W (s16), 2 W_SF, 3 P (s32), 5 P_SF, 6 energy (u32), 8 exact (s32)
    MODEL = 203


cdef inline uint32_t below(uint64_t* state, uint32_t n) noexcept nogil:
    state[0] ^= state[0] << 13
    state[0] ^= state[0] >> 7
    state[0] ^= state[0] << 17
    return <uint32_t>((state[0] >> 33) % n)


cdef class Values:
    """program : one port, one slave, one block of the words above. first : image row of W; P, energy and exact follow."""

    cdef bytes blob
    cdef const program_t* program
    cdef rtu_t* e
    cdef port_mail_t* mail
    cdef point_t image[POINTS_MAX]
    cdef uint32_t first
    cdef uint64_t t_ns, state
    cdef uint16_t words[WORDS]
    cdef uint16_t before[WORDS]
    cdef int64_t watts, energy, exact
    cdef int scale
    cdef bint whole  # 1 = the newest reading that could be believed was no half of another
    cdef uint64_t counts[KINDS]
    cdef uint64_t believed[4]
    cdef uint64_t wrong
    cdef public str first_wrong

    def __cinit__(self, bytes blob not None, uint32_t first):
        self.blob, self.first = blob, first
        self.program = <const program_t*>PyBytes_AS_STRING(blob)
        self.e = <rtu_t*>calloc(1, sizeof(rtu_t))
        self.mail = <port_mail_t*>calloc(1, sizeof(port_mail_t))
        if self.e == NULL or self.mail == NULL:
            raise MemoryError("no memory for the port")

    def __dealloc__(self):
        free(self.e)
        free(self.mail)

    def run(self, uint64_t seed, uint64_t cases):
        """Let `cases` readings pass; what was done, what was believed and what of it was wrong."""
        cdef rtu_action_t action
        cdef uint64_t done = 0
        self.state = seed * 0x9E3779B97F4A7C15u + 0x1234567u
        self.t_ns, self.first_wrong = 1000000000, ""
        self.watts, self.energy, self.exact, self.whole = 1000, 65000, 0, False
        memset(self.image, 0, sizeof(self.image))
        memset(self.mail, 0, sizeof(port_mail_t))
        port_mail_init(self.mail, self.program, 0)
        rtu_init(self.e, self.program, 0, self.mail, self.t_ns)
        self.measure()
        with nogil:
            while done < cases:
                rtu_next(self.e, self.t_ns, &action)
                if action.what == RTU_SEND:
                    done += 1
                    self.answer(&action)
                else:
                    self.t_ns = action.until_ns if action.until_ns > self.t_ns else self.t_ns + 1
        return {
            "cases": done, "believed": list(self.believed), "wrong": self.wrong,
            "kinds": {name: self.counts[i] for i, name in enumerate(CASES)},
        }

    cdef void measure(self) noexcept nogil:
        """The next moment of the plant: slow numbers that cross their turns, a power that jumps now and then."""
        cdef int64_t step
        if below(&self.state, 40) == 0:
            self.watts = <int64_t>below(&self.state, 60000) - 30000
        else:
            self.watts += <int64_t>below(&self.state, 400) - 200
        self.watts = 30000 if self.watts > 30000 else -30000 if self.watts < -30000 else self.watts
        self.energy += below(&self.state, 300)
        step = <int64_t>below(&self.state, 300) - 150
        self.exact += step if -70000 < self.exact + step < 70000 else -step

    cdef void fill(self) noexcept nogil:
        cdef int64_t raw
        cdef uint32_t i
        # What does not fit its scale is measured coarser; the true value is the one that was rounded.
        raw = self.watts * 10 if self.scale < 0 else self.watts // 10 if self.scale > 0 else self.watts
        for i in range(WORDS):
            self.words[i] = <uint16_t>(0xA500 + i)
        self.words[0] = MODEL
        if not -32768 <= raw <= 32767:
            self.scale = 1
            raw = self.watts // 10
        self.words[1], self.words[2] = <uint16_t>raw, <uint16_t>self.scale
        raw = self.watts * 100  # one that holds hundredths, two registers
        self.words[3], self.words[4], self.words[5] = <uint16_t>(raw >> 16), <uint16_t>raw, <uint16_t>-2
        self.words[6], self.words[7] = <uint16_t>(self.energy >> 16), <uint16_t>self.energy
        self.words[8], self.words[9] = <uint16_t>(self.exact >> 16), <uint16_t>self.exact

    cdef void answer(self, const rtu_action_t* action) noexcept nogil:
        cdef uint8_t[64] reply
        cdef uint16_t[WORDS] torn
        cdef uint32_t i, count = action.frame[4] << 8 | action.frame[5], shift = 0, kind = HONEST
        cdef uint16_t crc
        cdef bint late_high = below(&self.state, 2)
        if below(&self.state, 100) < 40:
            kind = 1 + below(&self.state, KINDS - 1)
        # The second of two readings in a row that were both torn is taken for a step, so a whole one lies between.
        if kind == HALF and not self.whole:
            kind = HONEST
        if kind != MOVED and count == self.program.blocks[0].count:  # a separator shows nothing of the values
            self.whole = kind != HALF
        if kind == SCALE:
            self.scale = <int>below(&self.state, 3) - 1
        for i in range(WORDS):
            self.before[i] = self.words[i]
        self.measure()
        self.fill()
        for i in range(WORDS):
            torn[i] = self.words[i]
        if kind == HALF:  # one word of each pair is still that of the moment before
            i = 0 if late_high else 1
            torn[6 + i], torn[8 + i] = self.before[6 + i], self.before[8 + i]
        elif kind == MOVED:
            shift = 1 + below(&self.state, 8)
            if torn[shift] == MODEL:  # another register that happens to hold the model's number signs for it
                shift = 0
        elif kind == LOST:
            torn[2] = 0x8000
            torn[5] = 0x8000
        self.counts[kind] += 1
        self.t_ns += action.length * self.e.char_ns
        rtu_sent(self.e, self.t_ns)
        reply[0], reply[1], reply[2] = action.frame[0], action.frame[1], <uint8_t>(2 * count)
        for i in range(count):
            reply[3 + 2 * i] = <uint8_t>(torn[(i + shift) % WORDS] >> 8)
            reply[4 + 2 * i] = <uint8_t>torn[(i + shift) % WORDS]
        crc = crc16(reply, 3 + 2 * count)
        reply[3 + 2 * count], reply[4 + 2 * count] = <uint8_t>crc, <uint8_t>(crc >> 8)
        self.t_ns += 1000000 + (5 + 2 * count) * self.e.char_ns
        rtu_bytes(self.e, reply, 5 + 2 * count, self.t_ns)
        self.judge(kind)

    cdef void judge(self, uint32_t kind) noexcept nogil:
        cdef const done_t* done = port_done_peek(self.mail)
        cdef uint32_t i
        cdef double[4] truth
        cdef double[4] slack
        cdef const point_t* point
        truth[:] = [<double>self.watts, <double>self.watts, <double>self.energy, <double>self.exact]
        # A moment apart is no lie: half of a pair may be that of the moment before where no turn lies between.
        slack[:] = [9.5, 0.001, 300.0 if kind == HALF else 0.0, 150.0 if kind == HALF else 0.0]
        while done != NULL:
            if done.status == DONE_OK:
                block_decode(self.program, done, self.image)
                for i in range(4):
                    point = &self.image[self.first + i]
                    if point.quality != QUALITY_GOOD or point.t_ns != done.t_sample_ns:
                        continue
                    self.believed[i] += 1
                    if fabs(point.value - truth[i]) > slack[i]:
                        self.wrong += 1
                        self.explain(i, kind, point.value, truth[i])
            port_done_pop(self.mail)
            done = port_done_peek(self.mail)

    cdef void explain(self, uint32_t i, uint32_t kind, double value, double truth) noexcept nogil:
        with gil:
            if not self.first_wrong:
                name = ("W", "P", "energy", "exact")[i]
                self.first_wrong = f"{name}: {value} believed, {truth} measured, {CASES[kind]}"
