"""A line of Pylontech packs between an I/O thread and its engine, whether a tty carries it or a connection."""

from tidegate.ext.abi.port_mail cimport DONE_CRC, DONE_ECHO
from tidegate.ext.bus.pylon cimport (
    PYLON_DAMAGED, PYLON_ECHO, PYLON_FRAME, PYLON_NONE, pylon_ask, pylon_cut, pylon_next,
)
from tidegate.ext.bus.rtu cimport RTU_RECEIVING, rtu_bytes, rtu_frame, rtu_spoilt
from tidegate.ext.bus.rtu_frame cimport rtu_char_ns
from tidegate.ext.bus.rtu_slave cimport count_foreign_bytes

cdef enum:
    PORT_STRIP_ECHO = 1      # bit of port_row_t.flags


cdef void pylon_line_init(pylon_line_t* line, const program_t* program, int port) noexcept nogil:
    line.char_ns = rtu_char_ns(program, port)
    line.strip_echo = program.ports[port].flags & PORT_STRIP_ECHO


cdef void pylon_line_ask(pylon_line_t* line, const rtu_action_t* action) noexcept nogil:
    pylon_ask(&line.frames, action.frame)


cdef void pylon_line_count(const pylon_line_t* line, rtu_t* e, uint32_t characters) noexcept nogil:
    cdef uint64_t ns = characters * line.char_ns
    e.mail.stats.wire_busy_ns += ns
    if e.request.slave < e.n_slaves:
        e.mail.stats.slaves[e.request.slave].wire_busy_ns += ns


cdef void pylon_line_took(pylon_line_t* line, rtu_t* e, const uint8_t* bytes, uint32_t n, uint64_t t_ns) noexcept nogil:
    cdef uint32_t used = 0, slave = e.request.slave
    cdef int status = PYLON_FRAME
    pylon_line_count(line, e, n)
    while e.state == RTU_RECEIVING and status != PYLON_NONE:
        status = pylon_next(&line.frames, bytes, n, &used)
        if status == PYLON_FRAME:
            rtu_frame(e, line.frames.reply, line.frames.reply_len, t_ns)
        elif status == PYLON_DAMAGED:
            rtu_spoilt(e, DONE_CRC, t_ns)
        elif status == PYLON_ECHO and not line.strip_echo:
            rtu_spoilt(e, DONE_ECHO, t_ns)
    count_foreign_bytes(e, slave, line.frames.strays)
    line.frames.strays = 0
    if e.state != RTU_RECEIVING and used < n:  # nobody asked for it
        pylon_cut(&line.frames)
        rtu_bytes(e, bytes + used, n - used, t_ns)
