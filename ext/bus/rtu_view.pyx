"""The RTU engine as Python sees it: driven by hand, for tests and tools."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from tidegate.ext.abi.port_mail cimport (
    PORT_HISTOGRAM_BUCKETS, command_put, done_t, port_done_peek, port_done_pop, port_mail_init, port_mail_t,
    port_stats_t,
)
from tidegate.ext.abi.program cimport COMMAND_REGS_MAX, program_t
from tidegate.ext.bus.rtu cimport (
    RTU_BACKOFF_NS, RTU_DRIFT, RTU_GAP_EXTRA_NS, RTU_ONCE_NS, RTU_PATIENCE_NS, RTU_RECV, RTU_REFUSED_NS, RTU_SEND,
    RTU_SEPARATOR_WORDS, RTU_SLACK_NS, RTU_WRITES_NS, rtu_action_t, rtu_ask, rtu_bytes, rtu_drain, rtu_drained, rtu_init, rtu_next,
    rtu_sent, rtu_t,
)
from tidegate.ext.bus.rtu_frame cimport crc16

STATUS = ("ok", "timeout", "crc", "exception", "mismatch", "short", "echo")

# What the bound of `config.progress` and the shares of `config.poll_plan` are made of; ns, but for the separator's registers
# and the drift, the part of its period by which a timed poll comes early.
LIMITS = {
    "backoff": RTU_BACKOFF_NS, "gap_extra": RTU_GAP_EXTRA_NS, "once": RTU_ONCE_NS, "patience": RTU_PATIENCE_NS,
    "drift": RTU_DRIFT, "refused": RTU_REFUSED_NS, "slack": RTU_SLACK_NS, "writes": RTU_WRITES_NS, "separator_words": RTU_SEPARATOR_WORDS,
}


def crc(bytes frame not None) -> int:
    """CRC-16 of a Modbus frame; it stands behind the frame low byte first."""
    return crc16(<const uint8_t*>PyBytes_AS_STRING(frame), <uint32_t>PyBytes_GET_SIZE(frame))


def histogram_edges() -> list[int]:
    """Upper edge in ns of each bucket of the slaves' turnaround and round trip histograms."""
    edges = [1024]
    for index in range(1, PORT_HISTOGRAM_BUCKETS):
        octave, quarter = divmod(index - 1, 4)
        edges.append(1024 * 2**octave * (5 + quarter) // 4)
    return edges


cdef dict stats_of(const port_stats_t* stats, uint32_t n_slaves, uint32_t n_commands):
    """A port's counters as plain Python; slaves and commands in the order of their program rows."""
    found = dict(stats[0])
    found["slaves"] = found["slaves"][:n_slaves]
    for key in ("written_seq", "written_t_ns", "refusals"):
        found[key] = found[key][:n_commands]
    return found


cdef class Engine:
    """One port's engine with a mail of its own, driven by hand: bytes and times in, requests and results out.

    program : bytes of a compiled site (`tidegate.ext.abi.program.pack`). port : its number. All times in ns.
    Raises ValueError or IndexError for a program or a port that does not exist. Real-time safe: no.
    """

    cdef rtu_t* e
    cdef port_mail_t* mail
    cdef bytes program

    def __cinit__(self, bytes program not None, int port=0, uint64_t t_ns=0):
        if PyBytes_GET_SIZE(program) < <Py_ssize_t>sizeof(program_t):
            raise ValueError(f"program: {len(program)} bytes, needs at least {sizeof(program_t)}")
        cdef const program_t* rows = <const program_t*>PyBytes_AS_STRING(program)
        if not 0 <= port < <int>rows.n_ports:
            raise IndexError(f"port {port}: the program has {rows.n_ports}")
        self.program = program
        self.e = <rtu_t*>calloc(1, sizeof(rtu_t))
        self.mail = <port_mail_t*>calloc(1, sizeof(port_mail_t))
        if self.e == NULL or self.mail == NULL:
            raise MemoryError("no memory for the engine")
        port_mail_init(self.mail, rows, <uint32_t>port)
        rtu_init(self.e, rows, port, self.mail, t_ns)

    def __dealloc__(self):
        free(self.e)
        free(self.mail)

    def next(self, uint64_t t_ns):
        """("wait" | "send" | "recv", until_ns, bytes): what to do; bytes is the frame to send or how many are missing."""
        cdef rtu_action_t action
        rtu_next(self.e, t_ns, &action)
        if action.what == RTU_SEND:
            return "send", t_ns, PyBytes_FromStringAndSize(<const char*>action.frame, action.length)
        return "recv" if action.what == RTU_RECV else "wait", action.until_ns, action.want

    def sent(self, uint64_t t_end_ns):
        """The frame's last byte leaves the wire at t_end_ns."""
        rtu_sent(self.e, t_end_ns)

    def receive(self, bytes data not None, uint64_t t_ns):
        """Bytes whose last one came at t_ns."""
        rtu_bytes(self.e, <const uint8_t*>PyBytes_AS_STRING(data), <uint32_t>PyBytes_GET_SIZE(data), t_ns)

    def put(self, int slot, regs, uint64_t t_ns=0, bint valid=True, bint urgent=False):
        """Put registers into command slot number `slot`, as the loop does."""
        cdef uint16_t[COMMAND_REGS_MAX] words
        if not 0 <= slot < <int>self.mail.command_count or len(regs) > COMMAND_REGS_MAX:
            raise IndexError(f"slot {slot} of {self.mail.command_count}, {len(regs)} registers of at most {COMMAND_REGS_MAX}")
        memset(words, 0, sizeof(words))
        for i, word in enumerate(regs):
            words[<Py_ssize_t>i] = word
        command_put(&self.mail.commands[slot], words, valid, urgent, t_ns)

    def take(self):
        """Blocks finished since the last call, oldest first: dicts of done_t, status in words."""
        cdef const done_t* done = port_done_peek(self.mail)
        found = []
        while done != NULL:
            row = dict(done[0])
            row["regs"] = row["regs"][:done.count]
            row["status"] = STATUS[done.status]
            found.append(row)
            port_done_pop(self.mail)
            done = port_done_peek(self.mail)
        return found

    def ask(self, bytes frame not None):
        """Hand in one request of a tool (unit, function, data; no CRC); False while another one is under way."""
        return bool(rtu_ask(self.e, <const uint8_t*>PyBytes_AS_STRING(frame), <uint32_t>PyBytes_GET_SIZE(frame)))

    def answer(self):
        """(status, frame without CRC) of the tool's request once it has ended, else None."""
        if self.e.asked != 3:
            return None
        self.e.asked = 0
        return STATUS[self.e.answer_status], PyBytes_FromStringAndSize(
            <const char*>self.e.asked_frame, self.e.answer_length
        )

    def drain(self):
        """From now on commands only."""
        rtu_drain(self.e)

    @property
    def drained(self) -> bool:
        """Every setpoint and stop that may be sent has been acknowledged."""
        return bool(rtu_drained(self.e))

    @property
    def gap_ns(self) -> int:
        return self.e.gap_ns

    @property
    def char_ns(self) -> int:
        return self.e.char_ns

    @property
    def stats(self):
        """Counters of the port and its slaves; see port.h."""
        return stats_of(&self.mail.stats, self.e.n_slaves, self.e.n_commands)
