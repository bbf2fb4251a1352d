"""All TCP connections of a site: one I/O thread, nogil, FIFO below the loop, an engine for each request in flight.

The engines are those of the serial ports. What differs lies here: a connection that has to be made, and made again; the
header of Modbus TCP, whose transaction id says which request a reply answers; a server that closes when it likes.
RTU frames over TCP, from a gateway that knows no Modbus, go through the engine as from a tty.

A reply is believed only on the connection and by the id of the request in flight. Ids go on over a reconnect, so what a
gateway still holds from before answers nobody. A stream in which frames no longer follow each other is closed.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, EPROTO, ETIMEDOUT, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from tidegate.ext.abi.port_mail cimport *
from tidegate.ext.abi.program cimport COMMAND_REGS_MAX, PORT_MBAP, PORT_SERIAL, PORTS_MAX, port_row_t, program_t
from tidegate.ext.bus.io_thread cimport *
from tidegate.ext.bus.mbap cimport (
    MBAP_BROKEN, MBAP_SUSPECT, MBAP_FRAME, MBAP_HEADER, MBAP_RX, mbap_ask, mbap_came, mbap_frame_t, mbap_next, mbap_taken,
    stream_t,
)
from tidegate.ext.bus.port cimport MailHandle
from tidegate.ext.bus.rtu cimport (
    RTU_FRAME_MAX, RTU_MS, RTU_NEVER, RTU_RECEIVING, RTU_RECV, RTU_SEND, rtu_action_t, rtu_again, rtu_bytes, rtu_cut, rtu_drain,
    rtu_drained, rtu_frame, rtu_init, rtu_joined, rtu_next, rtu_sent, rtu_t, sooner,
)

from tidegate.ext.bus.rtu_view import STATUS

cdef extern from "bus/tcp_socket.h" nogil:
    ctypedef struct tcp_to_t:
        pass
    void tcp_to_set(tcp_to_t* to, uint8_t family, const uint8_t* host, uint16_t port)
    int tcp_begin(const tcp_to_t* to)
    int tcp_problem(int fd)
    int tcp_put(int fd, const uint8_t* bytes, size_t count)
    ssize_t tcp_take(int fd, uint8_t* bytes, size_t room)
    int watch_new()
    int watch_wake_new()
    int watch_add(int watch, int fd, uint32_t mark, int writable)
    int watch_readable(int watch, int fd, uint32_t mark)
    int watch_wait(int watch, uint32_t* marks, int most, uint64_t ns)
    void wake_ring(int fd)
    void wake_clear(int fd)
    int close(int fd)

cdef enum:
    WAKE_MARK = 0xFFFF
    EMPTY_MAX = 2        # connections in a row that the other side ended before anything was asked
    SILENT_MAX = 3       # requests in a row without a byte: perhaps the connection is dead
    ONE_SHOT_RUN = 3     # connections in a row that ended after their first answer: this server does it always

cdef uint64_t LONGEST_SLEEP_NS = 200000000
cdef uint64_t EARLY_NS = 250000          # what is due so soon goes with what is due now: one wake-up for both
cdef uint64_t GATHER_NS = 150000         # with so many in flight the replies of so long are taken together:
cdef uint32_t GATHER_LANES = 4           # a wake-up for each would cost more than all the rest
cdef uint64_t CONNECT_NS = 2000000000   # for a connection to be made
cdef uint64_t FIRST_HOLD_NS = 1000000000  # at start the requests wait so long for their connection
cdef uint64_t HOLD_NS = 300000000       # and later, where the connection before it was good
cdef uint64_t BACKOFF_NS = 250000000
cdef uint64_t BACKOFF_MAX_NS = 5000000000
cdef uint64_t ONE_SHOT_NS = 250000000   # a server that always closes and has not by then no longer does
cdef uint64_t PROVED_NS = 1000000000    # a connection that stands for so long counts as one

cdef enum link_state:
    DOWN = 0
    CONNECTING = 1
    UP = 2

# One connection.
cdef struct link_t:
    tcp_to_t to
    int fd
    int state                # enum link_state
    uint32_t rtu             # 1 = RTU frames over TCP
    uint32_t lazy            # 1 = ended in order: made again when there is something to ask
    uint64_t t_retry_ns      # DOWN: not before
    uint64_t t_state_ns      # since when it is connecting, or up
    uint64_t hold_until_ns   # requests wait for the connection and do not fail
    uint64_t backoff_ns
    uint64_t t_answer_ns
    uint32_t asked, answered # on this connection
    uint32_t empty, silent, one_shot, one_shot_run
    stream_t stream

# One request in flight: a port of the program, with its engine and its mail.
cdef struct lane_t:
    rtu_t engine
    port_mail_t* mail
    int port
    uint32_t link
    uint32_t waiting         # 1 = `tid` is in flight
    uint16_t tid
    uint32_t bell            # as last looked at
    uint64_t until_ns        # nothing to do before, but for a command or a reply

cdef struct tcp_thread_t:
    pthread_t thread
    uint32_t n_links, n_lanes
    int watch, wake
    uint32_t stop, drained
    uint64_t stop_t_ns
    uint64_t sleeps, reads, writes
    link_t links[PORTS_MAX]
    lane_t lanes[PORTS_MAX]


# ---------------------------------------------------------------- the thread

cdef void* run(void* arg) noexcept nogil:
    cdef tcp_thread_t* at = <tcp_thread_t*>arg
    cdef uint64_t t_ns, until
    cdef uint32_t i
    thread_settle("tcp")
    while True:
        t_ns = clock_ns(CLOCK_MONOTONIC)
        if flag_get(&at.stop) and drained(at, t_ns):
            break
        until = t_ns + LONGEST_SLEEP_NS
        for i in range(at.n_links):
            until = sooner(until, tend(at, i, t_ns))
        for i in range(at.n_lanes):
            until = sooner(until, serve(at, &at.lanes[i], t_ns))
        rest(at, until)
    for i in range(at.n_links):
        if at.links[i].state != DOWN:
            close(at.links[i].fd)
    return NULL


cdef bint drained(tcp_thread_t* at, uint64_t t_ns) noexcept nogil:
    """Whether the thread may end: all that must be acknowledged is, or its time is over."""
    cdef uint32_t i
    at.drained = 1
    for i in range(at.n_lanes):
        rtu_drain(&at.lanes[i].engine)
        at.lanes[i].until_ns = 0
        if not rtu_drained(&at.lanes[i].engine):
            at.drained = 0
    return at.drained or t_ns >= at.stop_t_ns


cdef void rest(tcp_thread_t* at, uint64_t until) noexcept nogil:
    """Sleep until something is due, a reply comes or a command is put."""
    cdef uint32_t[64] marks
    cdef uint32_t i, in_flight = 0
    cdef int n, k
    cdef uint64_t t_ns
    for i in range(at.n_lanes):
        in_flight += at.lanes[i].waiting
    if in_flight >= GATHER_LANES:
        t_ns = clock_ns(CLOCK_MONOTONIC) + GATHER_NS
        if t_ns < until:
            at.sleeps += 1
            sleep_until(t_ns)
    for i in range(at.n_lanes):
        if at.lanes[i].mail.command_count:
            bell_sleeping(&at.lanes[i].mail.sleeping, 1)
    # A command put before its line above rang for nobody.
    for i in range(at.n_lanes):
        if bell_count(&at.lanes[i].mail.bell) != at.lanes[i].bell:
            until = 0
    t_ns = clock_ns(CLOCK_MONOTONIC)
    at.sleeps += 1
    n = watch_wait(at.watch, marks, 64, until - t_ns if until > t_ns else 0)
    for i in range(at.n_lanes):
        if at.lanes[i].mail.command_count:
            bell_sleeping(&at.lanes[i].mail.sleeping, 0)
    for k in range(n):
        if marks[k] == <uint32_t>WAKE_MARK:
            wake_clear(at.wake)
        elif at.links[marks[k]].state == CONNECTING:
            connected(at, marks[k])
        elif at.links[marks[k]].state == UP:
            receive(at, marks[k])


# ---------------------------------------------------------------- connections

cdef uint64_t tend(tcp_thread_t* at, uint32_t number, uint64_t t_ns) noexcept nogil:
    """Begin a connection that is due, give one up that does not come; returns when to look again."""
    cdef link_t* link = &at.links[number]
    cdef uint32_t i
    if link.state == DOWN:
        if link.lazy:
            return RTU_NEVER
        if t_ns < link.t_retry_ns:
            return link.t_retry_ns
        link.fd = tcp_begin(&link.to)
        if link.fd < 0:
            failed(at, number, errno, t_ns)
            return link.t_retry_ns
        link.state, link.t_state_ns = CONNECTING, t_ns
        if watch_add(at.watch, link.fd, number, 1) != 0:
            hang_up(at, number, errno, False, t_ns)
            return link.t_retry_ns
    if link.state == CONNECTING:
        if t_ns < link.t_state_ns + CONNECT_NS:
            return link.t_state_ns + CONNECT_NS
        hang_up(at, number, ETIMEDOUT, False, t_ns)
        return link.t_retry_ns
    if t_ns < link.t_state_ns + PROVED_NS:
        return link.t_state_ns + PROVED_NS
    for i in range(at.n_lanes):
        if at.lanes[i].link == number and at.lanes[i].mail.stats.thread_lost:
            at.lanes[i].mail.stats.thread_lost = 0
    return RTU_NEVER


cdef void connected(tcp_thread_t* at, uint32_t number) noexcept nogil:
    """The connection stands, or the other side has refused it."""
    cdef link_t* link = &at.links[number]
    cdef uint64_t t_ns = clock_ns(CLOCK_MONOTONIC)
    cdef int problem = tcp_problem(link.fd)
    cdef uint32_t i
    if problem == 0 and watch_readable(at.watch, link.fd, number) != 0:
        problem = errno
    if problem:
        hang_up(at, number, problem, False, t_ns)
        return
    link.state, link.t_state_ns = UP, t_ns
    link.asked = link.answered = link.silent = link.stream.rx_len = 0
    for i in range(at.n_lanes):
        if at.lanes[i].link == number:
            at.lanes[i].mail.stats.connects += 1
            rtu_joined(&at.lanes[i].engine, t_ns)
            at.lanes[i].until_ns = 0


cdef void hang_up(tcp_thread_t* at, uint32_t number, int why, bint by_peer, uint64_t t_ns) noexcept nogil:
    """The connection has ended. One that answered all it was asked is made again when it is needed."""
    cdef link_t* link = &at.links[number]
    cdef bint was_up = link.state == UP
    cdef uint32_t i
    close(link.fd)
    link.state, link.stream.rx_len = DOWN, 0
    link.empty = link.empty + 1 if link.asked == 0 else 0
    if was_up and by_peer:
        link.one_shot_run = link.one_shot_run + 1 if link.answered == 1 and link.asked == 1 else 0
        if link.one_shot_run >= ONE_SHOT_RUN:
            link.one_shot = 1
    for i in range(at.n_lanes):
        if at.lanes[i].link != number:
            continue
        at.lanes[i].mail.stats.hangups += was_up and by_peer
        at.lanes[i].waiting = 0
        if link.rtu or at.lanes[i].engine.state == RTU_RECEIVING:
            rtu_cut(&at.lanes[i].engine, t_ns)
            at.lanes[i].until_ns = 0
    if was_up and by_peer and link.asked == link.answered and link.empty <= EMPTY_MAX:
        link.lazy = 1
        return
    if was_up and link.answered > 0:
        link.backoff_ns, link.t_retry_ns, link.hold_until_ns = 0, t_ns, t_ns + HOLD_NS
        return
    failed(at, number, why, t_ns)


cdef void failed(tcp_thread_t* at, uint32_t number, int why, uint64_t t_ns) noexcept nogil:
    """No connection, or one that was of no use: again after a pause that grows."""
    cdef link_t* link = &at.links[number]
    cdef uint32_t i
    link.backoff_ns = sooner(2 * link.backoff_ns, BACKOFF_MAX_NS) if link.backoff_ns else BACKOFF_NS
    link.t_retry_ns = t_ns + link.backoff_ns
    for i in range(at.n_lanes):
        if at.lanes[i].link == number:
            at.lanes[i].mail.stats.thread_lost = <uint32_t>why


# ---------------------------------------------------------------- requests

cdef uint64_t serve(tcp_thread_t* at, lane_t* lane, uint64_t t_ns) noexcept nogil:
    """What the lane's engine wants to do now; returns when to look again."""
    cdef link_t* link = &at.links[lane.link]
    cdef rtu_action_t action
    cdef bint in_flight = lane.engine.state == RTU_RECEIVING
    cdef uint32_t bell = bell_count(&lane.mail.bell)
    if lane.until_ns > t_ns + EARLY_NS and lane.bell == bell:
        return lane.until_ns
    if lane.until_ns > t_ns and lane.until_ns <= t_ns + EARLY_NS:
        t_ns = lane.until_ns
    if link.state != UP:
        if link.lazy:
            link.lazy = 0
            link.t_retry_ns, link.hold_until_ns = t_ns, t_ns + HOLD_NS
            tend(at, lane.link, t_ns)
        if t_ns < link.hold_until_ns and not in_flight:
            lane.bell = bell
            return sooner(link.hold_until_ns, link.t_state_ns + CONNECT_NS)
    if link.one_shot and link.state == UP and link.asked > 0 and not in_flight:
        if t_ns < link.t_answer_ns + ONE_SHOT_NS:
            lane.bell = bell
            return link.t_answer_ns + ONE_SHOT_NS
        link.one_shot = link.one_shot_run = 0
    while True:
        lane.bell = bell_count(&lane.mail.bell)
        rtu_next(&lane.engine, t_ns, &action)
        if in_flight and lane.engine.state != RTU_RECEIVING:
            in_flight = False
            unanswered(at, lane, t_ns)
        if action.what != RTU_SEND:
            break
        transmit(at, lane, &action)
        in_flight = lane.engine.state == RTU_RECEIVING
    lane.until_ns = lane.engine.t_deadline_ns if action.what == RTU_RECV else action.until_ns
    return lane.until_ns


cdef void unanswered(tcp_thread_t* at, lane_t* lane, uint64_t t_ns) noexcept nogil:
    """A request's time is over. Half a reply, or silence for the third time, ends the connection as well."""
    cdef link_t* link = &at.links[lane.link]
    lane.waiting = 0
    link.silent += 1
    if link.state == UP and ((link.stream.rx_len > 0 and not link.rtu) or link.silent >= SILENT_MAX):
        hang_up(at, lane.link, EPROTO if link.stream.rx_len > 0 else ETIMEDOUT, False, t_ns)


cdef void transmit(tcp_thread_t* at, lane_t* lane, const rtu_action_t* action) noexcept nogil:
    """The request goes out, or fails at once where there is no connection."""
    cdef link_t* link = &at.links[lane.link]
    cdef uint8_t[RTU_FRAME_MAX + MBAP_HEADER] frame
    cdef uint64_t t_ns = clock_ns(CLOCK_MONOTONIC)
    cdef int sent = -1
    if link.state == UP and link.rtu:
        sent = tcp_put(link.fd, action.frame, action.length)
    elif link.state == UP:
        mbap_ask(&link.stream, frame, action.length)
        memcpy(frame + MBAP_HEADER, action.frame, action.length)
        sent = tcp_put(link.fd, frame, action.length + MBAP_HEADER)
    at.writes += 1
    rtu_sent(&lane.engine, t_ns + action.length * lane.engine.char_ns)
    if sent == 0:
        lane.tid, lane.waiting = link.stream.tid, 1
        link.asked += 1
    elif link.state == UP:
        hang_up(at, lane.link, errno, True, t_ns)
    else:
        rtu_cut(&lane.engine, t_ns)


# ---------------------------------------------------------------- replies

cdef void receive(tcp_thread_t* at, uint32_t number) noexcept nogil:
    """Hand the engines what has come."""
    cdef link_t* link = &at.links[number]
    cdef uint64_t t_ns = clock_ns(CLOCK_MONOTONIC)
    cdef uint32_t had = link.stream.rx_len
    cdef ssize_t n = tcp_take(link.fd, link.stream.rx + had, MBAP_RX - had)
    at.reads += 1
    if n <= 0:
        if n == 0 or (errno != EAGAIN and errno != EINTR):
            hang_up(at, number, errno if n < 0 else EPROTO if had > 0 else ETIMEDOUT, True, t_ns)
        return
    link.silent = link.empty = 0
    link.backoff_ns = 0
    link.t_answer_ns = t_ns
    if link.rtu:
        take_rtu(at, number, <uint32_t>n, t_ns)
        return
    if mbap_came(&link.stream, <uint32_t>n) == MBAP_BROKEN:
        broken(at, number, t_ns)
    else:
        take_frames(at, number, t_ns)


cdef void take_rtu(tcp_thread_t* at, uint32_t number, uint32_t n, uint64_t t_ns) noexcept nogil:
    cdef link_t* link = &at.links[number]
    cdef uint32_t i
    for i in range(at.n_lanes):
        if at.lanes[i].link == number:
            at.lanes[i].mail.stats.thread_lost = 0
            rtu_bytes(&at.lanes[i].engine, link.stream.rx, n, t_ns)
            at.lanes[i].until_ns = 0
            if at.lanes[i].waiting and at.lanes[i].engine.state != RTU_RECEIVING:
                at.lanes[i].waiting = 0
                link.answered += 1
            return  # a line has one request in flight


cdef void take_frames(tcp_thread_t* at, uint32_t number, uint64_t t_ns) noexcept nogil:
    """The whole frames at the front of what has come."""
    cdef link_t* link = &at.links[number]
    cdef mbap_frame_t frame
    cdef uint32_t used = 0
    cdef int status = mbap_next(&link.stream, &used, &frame)
    while status == MBAP_FRAME or status == MBAP_SUSPECT:
        take_frame(at, number, &frame, status == MBAP_SUSPECT, t_ns)
        status = mbap_next(&link.stream, &used, &frame)
    if status == MBAP_BROKEN:
        broken(at, number, t_ns)
    else:
        mbap_taken(&link.stream, used)


cdef void take_frame(tcp_thread_t* at, uint32_t number, const mbap_frame_t* frame, bint suspect,
                     uint64_t t_ns) noexcept nogil:
    cdef lane_t* lane
    cdef uint32_t i
    for i in range(at.n_lanes):
        lane = &at.lanes[i]
        if lane.link == number and lane.waiting and lane.tid == frame.tid:
            lane.waiting = 0
            lane.mail.stats.thread_lost = 0
            at.links[number].answered += 1
            if suspect:
                rtu_again(&lane.engine)
            else:
                rtu_frame(&lane.engine, frame.bytes, frame.length, t_ns)
            lane.until_ns = 0
            return
    stray(at, number)


cdef void broken(tcp_thread_t* at, uint32_t number, uint64_t t_ns) noexcept nogil:
    """Bytes that follow no frame: nothing behind them can be believed."""
    stray(at, number)
    hang_up(at, number, EPROTO, False, t_ns)


cdef void stray(tcp_thread_t* at, uint32_t number) noexcept nogil:
    cdef uint32_t i
    for i in range(at.n_lanes):
        if at.lanes[i].link == number:
            at.lanes[i].mail.stats.strays += 1
            return


# ---------------------------------------------------------------- start and end

cdef void thread_free(tcp_thread_t* at) noexcept nogil:
    cdef uint32_t i
    for i in range(at.n_lanes):
        bell_take_down(at.lanes[i].mail)
        at.lanes[i].mail.wake_fd = 0
    if at.watch >= 0:
        close(at.watch)
    if at.wake >= 0:
        close(at.wake)
    free(at)


cdef void add_lane(tcp_thread_t* at, const program_t* program, int port, port_mail_t* mail, const tcp_to_t* to,
                   uint64_t t_ns) noexcept nogil:
    cdef const port_row_t* row = &program.ports[port]
    cdef lane_t* lane = &at.lanes[at.n_lanes]
    cdef link_t* link
    cdef uint32_t i, number = at.n_links
    for i in range(at.n_lanes):
        if program.ports[at.lanes[i].port].link == row.link:
            number = at.lanes[i].link
    link = &at.links[number]
    if number == at.n_links:
        at.n_links += 1
        link.to = to[0]
        link.rtu = row.transport != PORT_MBAP
        link.hold_until_ns = t_ns + FIRST_HOLD_NS
        link.stream.tid = <uint16_t>((t_ns >> 10) ^ (<uint64_t>number << 7))  # not where an earlier run began
    lane.mail, lane.port, lane.link = mail, port, number
    rtu_init(&lane.engine, program, port, mail, t_ns)
    mail.wake_fd = <uint32_t>at.wake + 1
    bell_hang(mail)
    at.n_lanes += 1


cdef int thread_stop(tcp_thread_t* at, uint64_t drain_ns) noexcept nogil:
    cdef int done
    at.stop_t_ns = clock_ns(CLOCK_MONOTONIC) + drain_ns
    flag_set(&at.stop, 1)
    wake_ring(at.wake)
    pthread_join(at.thread, NULL)
    done = <int>at.drained
    thread_free(at)
    return done


# ---------------------------------------------------------------- what Python sees

cdef class TcpPorts:
    """The I/O thread of all TCP ports of a site.

    sources : (`Core.port_handle(index)`, index) of each port; or the bytes of a compiled site, for tools and tests: then
              all its TCP ports, with mails of their own, of which `put` and `take` are the ends.
    to      : port's number -> (4 or 6, address of 4 or 16 bytes, TCP port) in place of the program's.
    Raises ValueError for a port that is not TCP.
    """

    cdef object sources
    cdef const program_t* program
    cdef port_mail_t* mails[PORTS_MAX]
    cdef port_mail_t* own
    cdef tcp_thread_t* thread
    cdef uint64_t cpu_spent, sleeps_done
    cdef readonly tuple ports
    cdef dict to

    def __cinit__(self, sources not None, dict to=None):
        cdef int index
        self.sources, self.to = sources, dict(to or {})
        if isinstance(sources, bytes):
            if PyBytes_GET_SIZE(sources) < <Py_ssize_t>sizeof(program_t):
                raise ValueError(f"program: {len(sources)} bytes, needs at least {sizeof(program_t)}")
            self.program = <const program_t*>PyBytes_AS_STRING(sources)
            self.own = <port_mail_t*>calloc(PORTS_MAX, sizeof(port_mail_t))
            if self.own == NULL:
                raise MemoryError("no memory for the ports' mails")
            found = []
            for index in range(<int>self.program.n_ports):
                if self.program.ports[index].transport == PORT_SERIAL:
                    continue
                port_mail_init(&self.own[index], self.program, <uint32_t>index)
                self.mails[index] = &self.own[index]
                found.append(index)
        else:
            found = []
            for handle, index in sources:
                self.program = (<MailHandle?>handle).program
                if not 0 <= index < <int>self.program.n_ports:
                    raise IndexError(f"port {index}: the program has {self.program.n_ports}")
                self.mails[index] = (<MailHandle>handle).mail
                found.append(index)
        self.ports = tuple(found)
        for index in found:
            if self.program.ports[index].transport == PORT_SERIAL:
                raise ValueError(f"port {index} is a serial one")

    def __dealloc__(self):
        if self.thread != NULL:
            with nogil:
                thread_stop(self.thread, 0)
        free(self.own)

    def start(self, int priority=0, int cpu=-1):
        """Start the thread, FIFO at `priority` where the right is there. OSError when it cannot start."""
        cdef tcp_thread_t* at
        cdef tcp_to_t where
        cdef const port_row_t* row
        cdef int index, problem
        cdef uint32_t fifo = 0
        cdef uint64_t t_ns = clock_ns(CLOCK_MONOTONIC)
        if self.thread != NULL:
            raise RuntimeError("the thread of the TCP ports runs already")
        at = <tcp_thread_t*>calloc(1, sizeof(tcp_thread_t))
        if at == NULL:
            raise MemoryError("no memory for the TCP ports")
        at.watch, at.wake = watch_new(), watch_wake_new()
        if at.watch < 0 or at.wake < 0 or watch_add(at.watch, at.wake, WAKE_MARK, 0) != 0:
            problem = errno
            thread_free(at)
            raise OSError(problem, "the TCP ports cannot be watched")
        for index in self.ports:
            row = &self.program.ports[index]
            if index in self.to:
                family, host, number = self.to[index]
                tcp_to_set(&where, family, <const uint8_t*>PyBytes_AS_STRING(host), number)
            else:
                tcp_to_set(&where, row.family, row.host, row.tcp_port)
            add_lane(at, self.program, index, self.mails[index], &where, t_ns)
        problem = thread_create(&at.thread, run, at, priority, cpu, &fifo)
        if problem != 0:
            thread_free(at)
            raise OSError(problem, "the thread of the TCP ports did not start")
        for index in self.ports:
            self.mails[index].stats.fifo = fifo
        self.thread = at

    def stop(self, double drain_s=1.0) -> bool:
        """End the thread once each newest setpoint and stop is acknowledged, or after `drain_s`. True: all were."""
        cdef uint64_t drain_ns = <uint64_t>(drain_s * 1e9)
        cdef tcp_thread_t* at = self.thread
        cdef int done
        if at == NULL:
            return True
        self.cpu_spent += thread_cpu_ns(at.thread)
        self.sleeps_done += at.sleeps
        self.thread = NULL
        with nogil:
            done = thread_stop(at, drain_ns)
        return bool(done)

    cdef port_mail_t* mail_of(self, int index) except NULL:
        if not 0 <= index < PORTS_MAX or self.mails[index] == NULL:
            raise IndexError(f"port {index} is none of {self.ports}")
        return self.mails[index]

    def put(self, int index, int slot, regs, bint valid=True, bint urgent=False):
        """Put registers into command slot number `slot` of a port, as the loop does."""
        cdef port_mail_t* mail = self.mail_of(index)
        cdef uint16_t[COMMAND_REGS_MAX] words
        if not 0 <= slot < <int>mail.command_count or len(regs) > COMMAND_REGS_MAX:
            raise IndexError(f"slot {slot} of {mail.command_count}, {len(regs)} registers of at most {COMMAND_REGS_MAX}")
        memset(words, 0, sizeof(words))
        for i, word in enumerate(regs):
            words[<Py_ssize_t>i] = word
        command_put(&mail.commands[slot], words, valid, urgent, clock_ns(CLOCK_MONOTONIC))

    def take(self, int index):
        """A port's blocks finished since the last call, oldest first: dicts of done_t. Not beside a Core."""
        cdef port_mail_t* mail = self.mail_of(index)
        cdef const done_t* done
        if self.own == NULL:
            raise RuntimeError("the core takes this port's blocks")
        found = []
        done = port_done_peek(mail)
        while done != NULL:
            row = dict(done[0])
            row["regs"] = row["regs"][:done.count]
            row["status"] = STATUS[done.status]
            found.append(row)
            port_done_pop(mail)
            done = port_done_peek(mail)
        return found

    def lost(self, int index) -> int:
        """errno while a port has no connection: refused, no way there, closed. 0 = good."""
        return self.mail_of(index).stats.thread_lost

    @property
    def cpu_ns(self) -> int:
        """CPU time that the threads of these ports have used."""
        return self.cpu_spent + (thread_cpu_ns(self.thread.thread) if self.thread != NULL else 0)

    @property
    def sleeps(self) -> int:
        """How often the threads of these ports went to sleep."""
        return self.sleeps_done + (self.thread.sleeps if self.thread != NULL else 0)

    def stats(self, int index):
        """Counters of a port and its slaves; see port_mail.h. Copied while the thread runs: each number whole."""
        cdef port_mail_t* mail = self.mail_of(index)
        found = dict(mail.stats)
        found["done_dropped"] = mail.done_dropped
        found["slaves"] = found["slaves"][:self.program.ports[index].slave_count]
        for key in ("written_seq", "written_t_ns", "refusals"):
            found[key] = found[key][:mail.command_count]
        return found


cdef class TcpPort:
    """One port of a TcpPorts, with the face of a serial `Port` for those who report it."""

    cdef TcpPorts ports
    cdef readonly int index

    def __cinit__(self, TcpPorts ports not None, int index):
        ports.mail_of(index)
        self.ports, self.index = ports, index

    @property
    def lost(self) -> int:
        """errno while there is no connection, 0 = good."""
        return self.ports.lost(self.index)

    @property
    def stats(self):
        """Counters of the port and its slaves."""
        return self.ports.stats(self.index)
