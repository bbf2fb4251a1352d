"""All TCP connections of a site: one I/O thread, nogil, FIFO below the loop, an engine for each request in flight.

The engines are those of the serial ports. What differs lies here: a connection that has to be made, and made again; the
header of Modbus TCP, whose transaction id says which request a reply answers; a server that closes when it likes.
What comes from a gateway that knows no Modbus, RTU frames or Pylontech's, goes through the engine as from a tty.

A reply is believed only on the connection and by the id of the request in flight. Ids go on over a reconnect, so what a
gateway still holds from before answers nobody. A stream in which frames no longer follow each other is closed.
"""

from libc.errno cimport EAGAIN, EINTR, EPROTO, ETIMEDOUT, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from tidegate.ext.abi.port_mail cimport *
from tidegate.ext.abi.program cimport PORT_MBAP, port_row_t, program_t
from tidegate.ext.bus.io_thread cimport *
from tidegate.ext.bus.mbap cimport (
    MBAP_BROKEN, MBAP_SUSPECT, MBAP_FRAME, MBAP_HEADER, MBAP_RX, mbap_ask, mbap_came, mbap_frame_t, mbap_next, mbap_taken,
)
from tidegate.ext.bus.pylon_line cimport pylon_line_ask, pylon_line_count, pylon_line_init, pylon_line_took
from tidegate.ext.bus.rtu cimport (
    RTU_FRAME_MAX, RTU_NEVER, RTU_RECEIVING, RTU_RECV, RTU_SEND, rtu_action_t, rtu_again, rtu_bytes, rtu_cut, rtu_drain,
    rtu_drained, rtu_frame, rtu_init, rtu_joined, rtu_next, rtu_sent, sooner,
)

cdef extern from "bus/tcp_socket.h" nogil:
    int tcp_begin(const tcp_to_t* to)
    int tcp_problem(int fd)
    int tcp_put(int fd, const uint8_t* bytes, size_t count)
    ssize_t tcp_take(int fd, uint8_t* bytes, size_t room)
    int tcp_may_block(int fd, uint64_t ns)
    ssize_t tcp_wait(int fd, uint8_t* bytes, size_t room)
    int watch_new()
    int watch_wake_new()
    int watch_add(int watch, int fd, uint32_t mark, int writable)
    int watch_readable(int watch, int fd, uint32_t mark)
    int watch_wait(int watch, uint32_t* marks, int most, uint64_t ns)
    void wake_ring(int fd)
    void wake_clear(int fd)
    int close(int fd)

cdef extern from *:
    int lowest "__builtin_ctzll"(uint64_t bits) nogil  # number of the lowest bit that is set; bits != 0

cdef enum:
    WAKE_MARK = 0xFFFF
    EMPTY_MAX = 2        # connections in a row that the other side ended before anything was asked
    SILENT_MAX = 3       # requests in a row without a byte: perhaps the connection is dead
    ONE_SHOT_RUN = 3     # connections in a row that ended after their first answer: this server does it always

cdef uint64_t LONGEST_SLEEP_NS = 200000000
cdef uint64_t EARLY_NS = 250000          # what is due so soon goes with what is due now: one wake-up for both
cdef uint64_t GATHER_NS = 150000         # with so many in flight the replies of so long are taken together:
cdef uint32_t GATHER_LANES = 4           # a wake-up for each would cost more than all the rest
cdef uint64_t BLOCK_NS = 50000000        # a read on the only connection sleeps at most so long
cdef uint64_t BLOCK_LATE_NS = 10000000   # and so much longer, since that limit is counted in the kernel's ticks
cdef uint64_t CONNECT_NS = 2000000000   # for a connection to be made
cdef uint64_t FIRST_HOLD_NS = 1000000000  # at start the requests wait so long for their connection
cdef uint64_t HOLD_NS = 300000000       # and later, where the connection before it was good
cdef uint64_t BACKOFF_NS = 250000000
cdef uint64_t BACKOFF_MAX_NS = 5000000000
cdef uint64_t ONE_SHOT_NS = 250000000   # a server that always closes and has not by then no longer does
cdef uint64_t PROVED_NS = 1000000000    # a connection that stands for so long counts as one


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
    t_ns = clock_ns(CLOCK_MONOTONIC)
    at.sleeps += 1
    if in_flight == at.n_lanes and until > t_ns + BLOCK_NS + BLOCK_LATE_NS and only_link(at):
        wait_for_reply(at)
        return
    for i in range(at.n_lanes):
        if at.lanes[i].mail.command_count:
            bell_sleeping(&at.lanes[i].mail.sleeping, 1)
    # A command put before its line above rang for nobody.
    for i in range(at.n_lanes):
        if bell_count(&at.lanes[i].mail.bell) != at.lanes[i].bell:
            until = 0
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


cdef bint only_link(const tcp_thread_t* at) noexcept nogil:
    """Whether there is one connection, and it stands: then nothing but its reply can be waited for."""
    return at.n_links == 1 and at.links[0].state == UP and not at.links[0].line


cdef void wait_for_reply(tcp_thread_t* at) noexcept nogil:
    """Sleep in the read itself: one call of the kernel less a transaction. All lanes are in flight, so that a command that
    is put meanwhile could not go out anyway and nobody need ring for it."""
    cdef link_t* link = &at.links[0]
    received(at, 0, tcp_wait(link.fd, link.stream.rx + link.stream.rx_len, MBAP_RX - link.stream.rx_len))


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
    if link.proved:
        return RTU_NEVER
    if t_ns < link.t_state_ns + PROVED_NS:
        return link.t_state_ns + PROVED_NS
    link.proved = 1
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
    if problem == 0 and (watch_readable(at.watch, link.fd, number) != 0 or tcp_may_block(link.fd, BLOCK_NS) != 0):
        problem = errno
    if problem:
        hang_up(at, number, problem, False, t_ns)
        return
    link.state, link.t_state_ns, link.proved = UP, t_ns, 0
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
        if link.line or at.lanes[i].engine.state == RTU_RECEIVING:
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
    if link.state == UP and ((link.stream.rx_len > 0 and not link.line) or link.silent >= SILENT_MAX):
        hang_up(at, lane.link, EPROTO if link.stream.rx_len > 0 else ETIMEDOUT, False, t_ns)


cdef void transmit(tcp_thread_t* at, lane_t* lane, const rtu_action_t* action) noexcept nogil:
    """The request goes out, or fails at once where there is no connection."""
    cdef link_t* link = &at.links[lane.link]
    cdef uint8_t[RTU_FRAME_MAX + MBAP_HEADER] frame
    cdef uint64_t t_ns = clock_ns(CLOCK_MONOTONIC)
    cdef uint64_t wire_ns = action.length * lane.engine.char_ns
    cdef int sent = -1
    if link.state == UP and lane.engine.pylon:
        pylon_line_ask(&lane.pylon, action)
        sent = tcp_put(link.fd, lane.pylon.frames.tx, lane.pylon.frames.tx_len)
        wire_ns = lane.pylon.frames.tx_len * lane.pylon.char_ns
    elif link.state == UP and link.line:
        sent = tcp_put(link.fd, action.frame, action.length)
    elif link.state == UP:
        mbap_ask(&link.stream, frame, action.length)
        memcpy(frame + MBAP_HEADER, action.frame, action.length)
        sent = tcp_put(link.fd, frame, action.length + MBAP_HEADER)
    at.writes += 1
    rtu_sent(&lane.engine, t_ns + wire_ns)
    if sent == 0 and lane.engine.pylon:
        pylon_line_count(&lane.pylon, &lane.engine, lane.pylon.frames.tx_len)
    if sent == 0:
        lane.tid, lane.waiting = link.stream.tid, 1
        link.asked += 1
    elif link.state == UP:
        hang_up(at, lane.link, errno, True, t_ns)
    else:
        rtu_cut(&lane.engine, t_ns)


# ---------------------------------------------------------------- replies

cdef void receive(tcp_thread_t* at, uint32_t number) noexcept nogil:
    """Read what waits on a connection."""
    cdef link_t* link = &at.links[number]
    received(at, number, tcp_take(link.fd, link.stream.rx + link.stream.rx_len, MBAP_RX - link.stream.rx_len))


cdef void received(tcp_thread_t* at, uint32_t number, ssize_t n) noexcept nogil:
    """Hand the engines the n bytes that were read; 0 = the other side has closed, -1 and errno."""
    cdef link_t* link = &at.links[number]
    cdef int problem = errno if n < 0 else 0
    cdef uint32_t had = link.stream.rx_len
    cdef uint64_t t_ns = clock_ns(CLOCK_MONOTONIC)
    at.reads += 1
    if n <= 0:
        if n == 0 or (problem != EAGAIN and problem != EINTR):
            hang_up(at, number, problem if n < 0 else EPROTO if had > 0 else ETIMEDOUT, True, t_ns)
        return
    link.silent = link.empty = 0
    link.backoff_ns = 0
    link.t_answer_ns = t_ns
    if link.line:
        take_line(at, number, <uint32_t>n, t_ns)
        return
    if mbap_came(&link.stream, <uint32_t>n) == MBAP_BROKEN:
        broken(at, number, t_ns)
    else:
        take_frames(at, number, t_ns)


cdef void take_line(tcp_thread_t* at, uint32_t number, uint32_t n, uint64_t t_ns) noexcept nogil:
    cdef link_t* link = &at.links[number]
    cdef uint32_t i
    for i in range(at.n_lanes):
        if at.lanes[i].link == number:
            at.lanes[i].mail.stats.thread_lost = 0
            if at.lanes[i].engine.pylon:
                pylon_line_took(&at.lanes[i].pylon, &at.lanes[i].engine, link.stream.rx, n, t_ns)
            else:
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
    cdef uint64_t left = at.links[number].lanes
    while left:
        lane = &at.lanes[lowest(left)]
        left &= left - 1
        if lane.waiting and lane.tid == frame.tid:
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

cdef tcp_thread_t* tcp_new() noexcept nogil:
    cdef tcp_thread_t* at = <tcp_thread_t*>calloc(1, sizeof(tcp_thread_t))
    cdef int problem
    if at == NULL:
        return NULL
    at.watch, at.wake = watch_new(), watch_wake_new()
    if at.watch < 0 or at.wake < 0 or watch_add(at.watch, at.wake, WAKE_MARK, 0) != 0:
        problem = errno
        tcp_free(at)
        errno_set(problem)
        return NULL
    return at


cdef int tcp_start(tcp_thread_t* at, int priority, int cpu, uint32_t* fifo) noexcept nogil:
    return thread_create(&at.thread, run, at, priority, cpu, fifo)


cdef void tcp_free(tcp_thread_t* at) noexcept nogil:
    cdef uint32_t i
    for i in range(at.n_lanes):
        bell_take_down(at.lanes[i].mail)
        at.lanes[i].mail.wake_fd = 0
    if at.watch >= 0:
        close(at.watch)
    if at.wake >= 0:
        close(at.wake)
    free(at)


cdef void tcp_lane_add(tcp_thread_t* at, const program_t* program, int port, port_mail_t* mail, const tcp_to_t* to,
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
        link.line = row.transport != PORT_MBAP
        link.hold_until_ns = t_ns + FIRST_HOLD_NS
        link.stream.tid = <uint16_t>((t_ns >> 10) ^ (<uint64_t>number << 7))  # not where an earlier run began
    lane.mail, lane.port, lane.link = mail, port, number
    link.lanes |= <uint64_t>1 << at.n_lanes
    rtu_init(&lane.engine, program, port, mail, t_ns)
    pylon_line_init(&lane.pylon, program, port)
    mail.wake_fd = <uint32_t>at.wake + 1
    bell_hang(mail)
    at.n_lanes += 1


cdef int tcp_stop(tcp_thread_t* at, uint64_t drain_ns) noexcept nogil:
    cdef int done
    at.stop_t_ns = clock_ns(CLOCK_MONOTONIC) + drain_ns
    flag_set(&at.stop, 1)
    wake_ring(at.wake)
    pthread_join(at.thread, NULL)
    done = <int>at.drained
    tcp_free(at)
    return done
