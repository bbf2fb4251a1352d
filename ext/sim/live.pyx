"""The simulated plant in wall time: one thread, without the GIL, that answers like the devices themselves.

Bytes leave at the line's pace in pieces of a UART's FIFO; a request counts as received when its last byte would be on the
wire, however fast a pty carried it. Physics is caught up before anything is answered. Foreign masters are welcome.
"""

from libc.errno cimport EINTR, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from tidegate.ext.sim.buses cimport *
from tidegate.ext.sim.can_frames cimport can_emit
from tidegate.ext.sim.observe cimport follow_load_step
from tidegate.ext.bus.can cimport can_frame
from tidegate.ext.sim.plant cimport plant_step
from tidegate.ext.abi.program cimport CAN_BUSES_MAX, PORTS_MAX
from tidegate.ext.abi.shared cimport shared_load64, shared_store64
from tidegate.ext.sim.slave cimport FRAME_MAX, frame_crc, request_length
from tidegate.ext.sim.world cimport World

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    struct timespec:
        time_t tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* out)
    int CLOCK_MONOTONIC

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int fd, void* bytes, size_t count)
    ssize_t write(int fd, const void* bytes, size_t count)

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void* bytes, size_t count, int flags)
    int MSG_DONTWAIT

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <poll.h>
    """

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int ppoll(pollfd* fds, unsigned long count, const timespec* timeout, const void* mask)
    short POLLIN
    short POLLHUP
    short POLLERR
    short POLLNVAL

cdef enum:
    FIFO_BYTES = 8
    WATCHED_MAX = PORTS_MAX + CAN_BUSES_MAX + 1
    SPANS = 1024  # power of two

cdef uint64_t NEVER = 0xFFFFFFFFFFFFFFFF
cdef uint64_t LOOK_NS = 5000000       # the plant is caught up at least so often
cdef uint64_t SILENCE_NS = 20000000   # an unfinished request is dropped after so much silence
cdef uint64_t HUNG_UP_NS = 50000000   # a line whose other end is closed is looked at again after so long

cdef uint64_t SPAN_NS = 50000000      # of true power, from one row to the next

cdef struct span_t:                   # from the end of the span before
    uint64_t end_ns
    double grid_least_w, grid_most_w  # of every step of the physics
    double grid_in_ws                 # drawn since the world's start

cdef struct live_line_t:
    int fd
    uint32_t count
    uint64_t first_ns, last_ns, asleep_until_ns
    uint8_t bytes[2 * FRAME_MAX]

cdef struct live_t:
    world_t* world
    live_line_t lines[PORTS_MAX]
    int control_fd
    int stop
    uint64_t wakes, late_ns_max, dropped
    span_t spans[SPANS]
    span_t span                       # that is going on
    uint64_t spans_made, spans_taken  # the first written by the plant's thread only, the second by the reader only


cdef inline uint64_t now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <uint64_t>t.tv_sec * 1000000000u + <uint64_t>t.tv_nsec


cdef void span_begin(live_t* live, uint64_t t_ns) noexcept nogil:
    """A new span, which begins with the power at this moment."""
    live.span.end_ns = t_ns + SPAN_NS
    live.span.grid_least_w = live.span.grid_most_w = live.world.plant.grid_w


cdef void span_step(live_t* live, uint64_t t_ns) noexcept nogil:
    """Take a step of the physics into the span; close that when it is over. With no room for it, it goes on."""
    cdef double grid_w = live.world.plant.grid_w
    cdef uint64_t made = live.spans_made
    cdef span_t* row = &live.spans[made & (SPANS - 1)]
    if grid_w < live.span.grid_least_w:
        live.span.grid_least_w = grid_w
    if grid_w > live.span.grid_most_w:
        live.span.grid_most_w = grid_w
    if t_ns < live.span.end_ns or made - shared_load64(&live.spans_taken) >= SPANS:
        return
    row[0] = live.span
    row.end_ns = t_ns
    row.grid_in_ws = live.world.plant.totals.grid_in_j
    shared_store64(&live.spans_made, made + 1)
    span_begin(live, t_ns)


cdef void catch_up(live_t* live, uint64_t t_ns) noexcept nogil:
    """Move the physics up to t_ns in its own steps."""
    cdef world_t* world = live.world
    while world.plant.t_ns + world.plant.dt_ns <= t_ns:
        world.t_ns = world.plant.t_ns + world.plant.dt_ns
        if world.t_ns >= world.fault_next_ns:
            world_faults(world, world.t_ns)
        # No bus says what the core asks of a genset: its own panel starts it, as many do.
        world.plant.genset.told = world.plant.islanded
        plant_step(&world.plant, world.t_ns)
        if world.plant.step_t_ns == world.t_ns or world.answer.open:
            follow_load_step(world, world.t_ns)
        span_step(live, world.t_ns)


cdef void line_read(live_t* live, int number, uint64_t t_ns) noexcept nogil:
    """Take what has come; a whole request is put on the line, to be answered when its last byte is on the wire."""
    cdef live_line_t* at = &live.lines[number]
    cdef line_t* line = &live.world.lines[number]
    cdef uint8_t piece[FRAME_MAX]
    cdef ssize_t got
    cdef int need
    cdef uint32_t keep
    got = read(at.fd, piece, sizeof(piece))
    if got <= 0:
        return
    if at.count and t_ns - at.last_ns > SILENCE_NS:
        at.count = 0
    if at.count == 0:
        at.first_ns = t_ns
    at.last_ns = t_ns
    keep = <uint32_t>got
    if at.count + keep > sizeof(at.bytes):
        at.count = 0
        live.dropped += 1
    memcpy(at.bytes + at.count, piece, keep)
    at.count += keep
    if line.request_end_ns:  # still busy with the one before: a master that does not wait is not heard
        return
    need = request_length(at.bytes, at.count)
    if need < 0:  # a function that we do not know: the silence will show where it ends
        need = <int>at.count
    if need == 0 or <uint32_t>need > at.count or need > FRAME_MAX:
        return
    if frame_crc(at.bytes, <uint32_t>need - 2) != (at.bytes[need - 2] | (<uint32_t>at.bytes[need - 1] << 8)):
        at.count = 0
        live.dropped += 1
        return
    memcpy(line.request, at.bytes, <size_t>need)
    line.request_length = <uint32_t>need
    line.request_end_ns = at.first_ns + <uint64_t>need * line.char_ns
    if line.request_end_ns < t_ns:
        line.request_end_ns = t_ns
    at.count -= <uint32_t>need
    memmove(at.bytes, at.bytes + need, at.count)


cdef uint64_t line_write(live_t* live, int number, uint64_t t_ns) noexcept nogil:
    """Send the bytes that are due; returns when the next piece is."""
    cdef live_line_t* at = &live.lines[number]
    cdef line_t* line = &live.world.lines[number]
    cdef sent_t* sent
    cdef uint64_t next_ns = NEVER, due_ns
    cdef uint32_t i = 0, k, n
    cdef ssize_t done
    while i < line.n_sent:
        sent = &line.sent[i]
        n = sent.length - sent.done
        if n > FIFO_BYTES:
            n = FIFO_BYTES
        due_ns = sent.start_ns + n * line.char_ns
        if due_ns > t_ns:
            if due_ns < next_ns:
                next_ns = due_ns
            i += 1
            continue
        done = write(at.fd, sent.bytes + sent.done, n)
        if done < 0:
            done = 0
            sent.length = sent.done  # nobody listens
        sent.done += <uint32_t>done
        sent.start_ns += <uint64_t>done * line.char_ns
        if sent.done >= sent.length:
            line.n_sent -= 1
            for k in range(i, line.n_sent):
                line.sent[k] = line.sent[k + 1]
    return next_ns


cdef void can_read(live_t* live, int bus) noexcept nogil:
    cdef can_frame frame
    cdef int fd = live.world.can_fd[bus] - 1
    cdef ssize_t got = recv(fd, &frame, sizeof(frame), MSG_DONTWAIT)
    while got > 0:
        live.world.can_received += 1
        got = recv(fd, &frame, sizeof(frame), MSG_DONTWAIT)
    if got == 0:  # the other end has closed
        live.world.can_fd[bus] = 0


cdef void live_run(live_t* live) noexcept nogil:
    cdef world_t* world = live.world
    cdef pollfd watched[WATCHED_MAX]
    cdef int where[WATCHED_MAX]
    cdef uint64_t t_ns, next_ns, due_ns
    cdef timespec wait
    cdef uint32_t i
    cdef int n, k, ready
    span_begin(live, world.t_ns)
    while not live.stop:
        t_ns = now_ns()
        catch_up(live, t_ns)
        next_ns = t_ns + LOOK_NS
        for i in range(world.n_lines):
            if live.lines[i].fd < 0:
                continue
            if world.lines[i].request_end_ns and world.lines[i].request_end_ns <= t_ns:
                if t_ns - world.lines[i].request_end_ns > live.late_ns_max:
                    live.late_ns_max = t_ns - world.lines[i].request_end_ns
                line_request_done(world, <int>i, world.lines[i].request_end_ns)
            due_ns = line_write(live, <int>i, t_ns)
            if due_ns < next_ns:
                next_ns = due_ns
            if world.lines[i].request_end_ns and world.lines[i].request_end_ns < next_ns:
                next_ns = world.lines[i].request_end_ns
        if world.can_next_ns <= t_ns:
            can_emit(world, t_ns)
        if world.can_next_ns < next_ns:
            next_ns = world.can_next_ns

        n = 0
        for i in range(world.n_lines):
            if live.lines[i].fd >= 0 and live.lines[i].asleep_until_ns <= t_ns:
                watched[n].fd = live.lines[i].fd
                watched[n].events = POLLIN
                where[n] = <int>i
                n += 1
        for i in range(world.n_can_buses):
            if world.can_fd[i] > 0:
                watched[n].fd = world.can_fd[i] - 1
                watched[n].events = POLLIN
                where[n] = 100 + <int>i
                n += 1
        if live.control_fd >= 0:
            watched[n].fd = live.control_fd
            watched[n].events = POLLIN
            where[n] = -1
            n += 1
        t_ns = now_ns()
        wait.tv_sec = 0
        wait.tv_nsec = <long>(next_ns - t_ns) if next_ns > t_ns else 0
        ready = ppoll(watched, <unsigned long>n, &wait, NULL)
        live.wakes += 1
        if ready < 0 and errno != EINTR:
            break
        if ready <= 0:
            continue
        t_ns = now_ns()
        for k in range(n):
            if watched[k].revents == 0:
                continue
            if where[k] == -1:
                live.stop = 1
            elif where[k] >= 100:
                can_read(live, where[k] - 100)
            elif watched[k].revents & POLLIN:
                line_read(live, where[k], t_ns)
            else:  # hung up: somebody may open the other end again
                live.lines[where[k]].asleep_until_ns = t_ns + HUNG_UP_NS


cdef class Live:
    """Runs a world in wall time until stop().

    world      : built and started at the present CLOCK_MONOTONIC time.
    serial_fds : one descriptor a line, -1 = nobody there; set to non-blocking by the caller.
    can_fds    : one a CAN bus, -1 = nobody there.
    control_fd : the run ends when this becomes readable or is closed at the other end; -1 = none.
    """
    cdef live_t live
    cdef World world

    def __cinit__(self, World world, serial_fds, can_fds, int control_fd=-1):
        cdef int i
        self.world = world
        self.live.world = world.ptr()
        self.live.control_fd = control_fd
        if len(serial_fds) != <Py_ssize_t>self.live.world.n_lines:
            raise ValueError(f"{len(serial_fds)} serial descriptors for {self.live.world.n_lines} lines")
        if len(can_fds) > CAN_BUSES_MAX:
            raise ValueError(f"{len(can_fds)} CAN descriptors, at most {CAN_BUSES_MAX}")
        for i, fd in enumerate(serial_fds):
            self.live.lines[i].fd = fd
        for i, fd in enumerate(can_fds):
            self.live.world.can_fd[i] = fd + 1
        if len(can_fds) > <int>self.live.world.n_can_buses:
            self.live.world.n_can_buses = len(can_fds)

    def run(self):
        """Run until stop(), with the GIL free."""
        with nogil:
            live_run(&self.live)

    def stop(self):
        """Ask the run to end; it does within a few milliseconds. May be called from a signal handler."""
        self.live.stop = 1

    def take_spans(self):
        """The spans of true power that ended since the last call; one thread takes them.

        Rows of (end, CLOCK_MONOTONIC ns; least and most grid power of every step since the row before, W; Ws drawn from
        the grid since the start). A row is 50 ms long, longer where 1,024 were not taken in time: no step is left out.
        """
        cdef uint64_t number, made = shared_load64(&self.live.spans_made)
        cdef span_t* row
        rows = []
        for number in range(self.live.spans_taken, made):
            row = &self.live.spans[number & (SPANS - 1)]
            rows.append((row.end_ns, row.grid_least_w, row.grid_most_w, row.grid_in_ws))
        shared_store64(&self.live.spans_taken, made)
        return rows

    @property
    def statistics(self):
        """Wake-ups, latest answer (how far behind the wire's own time), requests that were no frames."""
        return {"wakes": self.live.wakes, "late_us_max": self.live.late_ns_max / 1000.0, "dropped": self.live.dropped,
                "can_sent": self.live.world.can_sent, "can_lost": self.live.world.can_lost,
                "can_received": self.live.world.can_received}


def monotonic_ns():
    """CLOCK_MONOTONIC as the live run reads it."""
    return now_ns()
