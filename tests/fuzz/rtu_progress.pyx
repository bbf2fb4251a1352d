"""One port with up to 32 slaves of every temper, in virtual time: how long was each of them not asked?

A slave is honest, slow, silent, dead for a while, answers with exceptions, broken checksums, another unit's frames,
half frames, too late, or takes a request only after a longer silence; it changes its temper as it likes. Commands
change all the time. Nothing is judged here but the time between two requests to one slave.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from cpython.bytes cimport PyBytes_AS_STRING

from tidegate.ext.abi.port_mail cimport command_put, port_done_peek, port_done_pop, port_mail_init, port_mail_t
from tidegate.ext.abi.program cimport COMMAND_CONST, COMMAND_REGS_MAX, program_t
from tidegate.ext.bus.rtu cimport RTU_RECV, RTU_SEND, rtu_action_t, rtu_bytes, rtu_init, rtu_next, rtu_sent, rtu_t
from tidegate.ext.bus.rtu_frame cimport crc16

TEMPERS = ("honest", "slow", "dead", "exception", "crc", "foreign", "half", "late", "gap", "busy", "moody")

cdef enum:
    HONEST, SLOW, DEAD, EXCEPTION, BAD_CRC, FOREIGN, HALF, LATE, GAP, BUSY, MOODY
    SLAVES = 32

cdef struct temper_t:
    int temper
    uint64_t t_change_ns    # of a moody one
    int now
    uint64_t turn_ns
    uint64_t gap_ns
    uint64_t t_asked_ns
    uint64_t worst_ns
    uint64_t t_late_ns      # an answer that is still to come
    uint32_t late
    uint64_t requests, answers


cdef inline uint32_t below(uint64_t* state, uint32_t n) noexcept nogil:
    state[0] ^= state[0] << 13
    state[0] ^= state[0] >> 7
    state[0] ^= state[0] << 17
    return <uint32_t>((state[0] >> 33) % n)


cdef class Progress:
    """program : bytes of a compiled site with one port. tempers : one of TEMPERS a slave, by number."""

    cdef bytes blob
    cdef const program_t* program
    cdef rtu_t* e
    cdef port_mail_t* mail
    cdef temper_t slaves[SLAVES]
    cdef uint64_t t_ns, state, t_line_ns
    cdef uint32_t n
    cdef uint32_t put_every

    def __cinit__(self, bytes blob not None, tempers, uint64_t seed, uint32_t put_every=0):
        cdef uint32_t i
        self.blob = blob
        self.program = <const program_t*>PyBytes_AS_STRING(blob)
        self.n = self.program.ports[0].slave_count
        if self.n > SLAVES or len(tempers) != self.n:
            raise ValueError(f"{self.n} slaves, at most {SLAVES}, with {len(tempers)} tempers")
        self.e = <rtu_t*>calloc(1, sizeof(rtu_t))
        self.mail = <port_mail_t*>calloc(1, sizeof(port_mail_t))
        if self.e == NULL or self.mail == NULL:
            raise MemoryError("no memory for the port")
        self.state = seed * 0x9E3779B97F4A7C15u + 0x1234567u
        self.t_ns = 1000000000
        self.put_every = put_every
        port_mail_init(self.mail, self.program, 0)
        rtu_init(self.e, self.program, 0, self.mail, self.t_ns)
        for i, temper in enumerate(tempers):
            memset(&self.slaves[i], 0, sizeof(temper_t))
            self.slaves[i].temper = self.slaves[i].now = TEMPERS.index(temper)
            self.slaves[i].t_asked_ns = self.t_ns
            self.slaves[i].turn_ns = 1000000 + below(&self.state, 4000000)
            self.slaves[i].gap_ns = 2000000 + below(&self.state, 15000000)
            if temper == "slow":
                self.slaves[i].turn_ns = self.program.slaves[i].timeout_ns - 1000000 - below(&self.state, 20000000)

    def __dealloc__(self):
        free(self.e)
        free(self.mail)

    def run(self, uint64_t for_ns):
        """Let `for_ns` pass; for each slave (longest time without a request in ns, requests, answers)."""
        cdef uint64_t end = self.t_ns + for_ns, t_put = self.t_ns
        cdef rtu_action_t action
        cdef uint32_t i
        with nogil:
            while self.t_ns < end:
                if self.put_every and self.t_ns >= t_put:
                    t_put = self.t_ns + self.put_every
                    self.put()
                while port_done_peek(self.mail) != NULL:
                    port_done_pop(self.mail)
                rtu_next(self.e, self.t_ns, &action)
                if action.what == RTU_SEND:
                    self.answer(&action)
                elif self.put_every and t_put < action.until_ns:
                    self.t_ns = t_put
                elif action.until_ns <= self.t_ns:
                    self.t_ns += 1
                else:
                    self.t_ns = action.until_ns if action.until_ns < end else end
            for i in range(self.n):
                self.waited(i)
        return [(self.slaves[i].worst_ns, self.slaves[i].requests, self.slaves[i].answers) for i in range(self.n)]

    cdef void waited(self, uint32_t i) noexcept nogil:
        if self.t_ns - self.slaves[i].t_asked_ns > self.slaves[i].worst_ns:
            self.slaves[i].worst_ns = self.t_ns - self.slaves[i].t_asked_ns

    cdef void put(self) noexcept nogil:
        cdef uint16_t[COMMAND_REGS_MAX] regs
        cdef uint32_t slot
        for slot in range(self.mail.command_count):
            if self.program.commands[self.mail.command_first + slot].kind == COMMAND_CONST:
                continue
            memset(regs, 0, sizeof(regs))
            if below(&self.state, 2):
                regs[0] = <uint16_t>below(&self.state, 5000)
            command_put(&self.mail.commands[slot], regs, 1, below(&self.state, 2), self.t_ns)

    cdef void answer(self, const rtu_action_t* action) noexcept nogil:
        cdef uint8_t[560] reply
        cdef uint32_t i, n = 0, unit = action.frame[0], function = action.frame[1], count
        cdef temper_t* d = NULL
        cdef uint64_t t, silent = self.t_ns - (self.t_line_ns if self.t_line_ns < self.t_ns else self.t_ns)
        cdef uint16_t crc
        for i in range(self.n):
            if self.program.slaves[i].unit_id == unit:
                d = &self.slaves[i]
                if function <= 4:
                    self.waited(i)
                    d.t_asked_ns = self.t_ns
                    d.requests += 1
        self.t_ns += action.length * self.e.char_ns
        self.t_line_ns = self.t_ns
        rtu_sent(self.e, self.t_ns)
        if d == NULL:
            return
        if d.temper == MOODY and self.t_ns >= d.t_change_ns:
            d.now = <int>below(&self.state, MOODY)
            d.t_change_ns = self.t_ns + 100000000 + <uint64_t>below(&self.state, 8000) * 1000000
        if d.now == DEAD or (d.now == GAP and silent < d.gap_ns):
            return
        count = action.frame[4] << 8 | action.frame[5]
        reply[0], reply[1] = <uint8_t>unit, <uint8_t>function
        if d.now == EXCEPTION or d.now == BUSY:
            reply[1] |= 0x80
            reply[2] = 6 if d.now == BUSY else 2
            n = 3
        elif function <= 4:
            n = 2 * count if function > 2 else (count + 7) // 8
            reply[2] = <uint8_t>n
            memset(reply + 3, 0, n)
            n += 3
        else:
            memcpy(reply, action.frame, 6)
            n = 6
        if d.now == FOREIGN:
            reply[0] = <uint8_t>(200 + below(&self.state, 40))
        crc = crc16(reply, n)
        reply[n] = <uint8_t>crc
        reply[n + 1] = <uint8_t>(crc >> 8)
        n += 2
        if d.now == BAD_CRC:
            reply[n - 1] ^= 0x55
        elif d.now == HALF:
            n = n // 2
        d.answers += 1
        t = self.t_ns + d.turn_ns + n * self.e.char_ns
        if d.now == LATE:
            t += self.program.slaves[self.e.request.slave].timeout_ns
        self.deliver(reply, n, t)

    cdef void deliver(self, const uint8_t* reply, uint32_t n, uint64_t t) noexcept nogil:
        """Nothing else goes out before it is there, or before the engine has given it up; then it comes all the same."""
        cdef rtu_action_t action
        while True:
            rtu_next(self.e, self.t_ns, &action)
            if action.what == RTU_SEND:
                # It comes into the silence before this request, as on a line that two speak on.
                rtu_bytes(self.e, reply, n, self.t_ns)
                self.t_line_ns = self.t_ns
                return
            if action.until_ns >= t or action.until_ns == 0xFFFFFFFFFFFFFFFFu:
                self.t_ns = t if t > self.t_ns else self.t_ns
                self.t_line_ns = self.t_ns
                rtu_bytes(self.e, reply, n, self.t_ns)
                return
            self.t_ns = action.until_ns if action.until_ns > self.t_ns else self.t_ns + 1
