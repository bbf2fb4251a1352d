"""One serial port's I/O thread: nogil, FIFO below the loop, an engine on a descriptor.

The loop may not touch a tty (a read of an empty one waits for an ordinary kernel worker), so this thread does. It
wakes twice a transaction: once where the reply should be whole, once where the silence after it ends and the next
request may go. While nothing is due it sleeps on the mail's bell, a futex that `command_put` rings: a new setpoint
starts within one wake-up, an idle port costs nothing, and the loop makes a system call only when somebody sleeps.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdlib cimport calloc, free

from tidegate.ext.abi.port_mail cimport *
from tidegate.ext.bus.io_thread cimport *
from tidegate.ext.bus.mail_view cimport mail_put, mail_stats, mail_take
from tidegate.ext.bus.pylon_line cimport (
    pylon_line_ask, pylon_line_count, pylon_line_init, pylon_line_t, pylon_line_took,
)
from tidegate.ext.bus.rtu cimport (
    RTU_RECV, RTU_SEND, rtu_action_t, rtu_bytes, rtu_drain, rtu_drained, rtu_init, rtu_next, rtu_sent, rtu_t,
)

cdef enum:
    PIECE = 512              # bytes of one read
    WRITE_TRIES = 20         # of 1 ms: a driver that takes nothing for longer is broken
    LONGEST_SLEEP_NS = 200000000
    BROKEN_PAUSE_NS = 10000000
    LATE_MAX_NS = 100000  # of a wake-up that is counted on
    LATE_STEP_NS = 1000

cdef struct port_thread_t:
    rtu_t engine
    pylon_line_t pylon       # where the line speaks Pylontech's protocol
    port_mail_t* mail
    int fd
    pthread_t thread
    int32_t fd_fresh, fd_retired    # hand-over slots: 0 = empty, else descriptor + 1
    uint32_t stop
    uint32_t drained
    uint64_t stop_t_ns
    uint64_t late_ns                # usual lateness of a wake-up
    uint64_t sleeps, reads, writes  # system calls that did something


# ---------------------------------------------------------------- the thread

cdef void* run(void* arg) noexcept nogil:
    cdef port_thread_t* thread = <port_thread_t*>arg
    cdef rtu_action_t action
    cdef uint64_t t_ns
    thread_settle("rtu")
    while True:
        t_ns = clock_ns(CLOCK_MONOTONIC)
        if flag_get(&thread.stop):
            rtu_drain(&thread.engine)
            thread.drained = rtu_drained(&thread.engine)
            if thread.drained or t_ns >= thread.stop_t_ns:
                return NULL
        if flag_get(<const uint32_t*>&thread.fd_fresh):
            take_fresh_fd(thread)
        rtu_next(&thread.engine, t_ns, &action)
        if action.what == RTU_SEND:
            send(thread, &action)
        elif action.what == RTU_RECV:
            receive(thread, &action, t_ns)
        elif action.idle:
            rest(thread, t_ns)
        else:
            sleep_exactly(thread, action.until_ns)


cdef void take_fresh_fd(port_thread_t* thread) noexcept nogil:
    """Only with room for the old one: closing is for the side that opened it."""
    if flag_get(<const uint32_t*>&thread.fd_retired):
        return
    flag_set(<uint32_t*>&thread.fd_retired, <uint32_t>thread.fd + 1)
    thread.fd = <int>flag_get(<const uint32_t*>&thread.fd_fresh) - 1
    flag_set(<uint32_t*>&thread.fd_fresh, 0)
    thread.mail.stats.thread_lost = 0


cdef void sleep_exactly(port_thread_t* thread, uint64_t t_ns) noexcept nogil:
    """The silence before a request, to the microsecond: the alarm is set early by the usual lateness of a wake-up.

    That is followed by its median, so half of the wake-ups come early, and what is spun is by how much they do.
    """
    cdef uint64_t aim = t_ns - thread.late_ns, woke
    thread.sleeps += 1
    sleep_until(aim)
    woke = clock_ns(CLOCK_MONOTONIC)
    if woke > aim + thread.late_ns:
        thread.late_ns += LATE_STEP_NS if thread.late_ns < LATE_MAX_NS else 0
    elif thread.late_ns >= LATE_STEP_NS:
        thread.late_ns -= LATE_STEP_NS
    while woke < t_ns:
        woke = clock_ns(CLOCK_MONOTONIC)


cdef void send(port_thread_t* thread, const rtu_action_t* action) noexcept nogil:
    """What nobody asked for is thrown away first; if there was any, the line was not silent and the engine waits on."""
    cdef uint64_t t_ns
    cdef uint32_t done = 0, length = action.length
    cdef const uint8_t* frame = action.frame
    cdef int tries
    cdef ssize_t n
    if take(thread) > 0:
        return
    if thread.engine.pylon:
        pylon_line_ask(&thread.pylon, action)
        frame, length = thread.pylon.frames.tx, thread.pylon.frames.tx_len
    t_ns = clock_ns(CLOCK_MONOTONIC)
    for tries in range(WRITE_TRIES):
        n = write(thread.fd, frame + done, length - done)
        thread.writes += 1
        if n > 0:
            done += <uint32_t>n
            if done == length:
                break
        elif errno != EAGAIN and errno != EINTR:
            lost(thread, errno)
            break
        sleep_until(clock_ns(CLOCK_MONOTONIC) + 1000000)
    rtu_sent(&thread.engine, t_ns + length * thread.pylon.char_ns)
    if thread.engine.pylon:
        pylon_line_count(&thread.pylon, &thread.engine, length)


cdef void receive(port_thread_t* thread, const rtu_action_t* action, uint64_t t_ns) noexcept nogil:
    thread.sleeps += 1
    if not action.listen:
        sleep_until(action.until_ns)
    elif not readable_within(thread.fd, action.until_ns - t_ns):
        # Hung up: poll would return at once for ever.
        if clock_ns(CLOCK_MONOTONIC) < action.until_ns and take(thread) <= 0:
            sleep_until(t_ns + BROKEN_PAUSE_NS)
        return
    take(thread)


cdef ssize_t take(port_thread_t* thread) noexcept nogil:
    """Hand the engine what has come; the number of bytes."""
    cdef uint8_t[PIECE] bytes
    cdef ssize_t n = read(thread.fd, bytes, PIECE)
    thread.reads += 1
    if n > 0:
        if thread.engine.pylon:
            pylon_line_took(&thread.pylon, &thread.engine, bytes, <uint32_t>n, clock_ns(CLOCK_MONOTONIC))
        else:
            rtu_bytes(&thread.engine, bytes, <uint32_t>n, clock_ns(CLOCK_MONOTONIC))
        if thread.mail.stats.thread_lost:
            thread.mail.stats.thread_lost = 0
    elif n < 0 and errno != EAGAIN and errno != EINTR:
        lost(thread, errno)
    return n


cdef void lost(port_thread_t* thread, int why) noexcept nogil:
    """The other end is gone or the adapter was pulled. The transactions time out and say the rest."""
    thread.mail.stats.thread_lost = <uint32_t>why


cdef void rest(port_thread_t* thread, uint64_t t_ns) noexcept nogil:
    """Sleep until something is due or a command is put, whichever is first."""
    cdef rtu_action_t action
    cdef uint32_t count = bell_count(&thread.mail.bell)
    cdef uint64_t until = t_ns + LONGEST_SLEEP_NS
    bell_sleeping(&thread.mail.sleeping, 1)
    # A command put before the line above rang for nobody: look once more. One put after it changes the bell.
    rtu_next(&thread.engine, t_ns, &action)
    if action.what != RTU_SEND and action.what != RTU_RECV:
        if action.until_ns < until:
            until = action.until_ns
        if flag_get(&thread.stop) and thread.stop_t_ns < until:
            until = thread.stop_t_ns
        thread.sleeps += 1
        bell_wait(&thread.mail.bell, count, until)
    bell_sleeping(&thread.mail.sleeping, 0)


cdef port_thread_t* port_thread_start(int fd, const program_t* program, int port, port_mail_t* mail, int priority,
                                      int cpu) noexcept nogil:
    cdef port_thread_t* thread
    cdef uint32_t fifo = 0
    cdef int problem
    if no_wait(fd) != 0:
        return NULL
    thread = <port_thread_t*>calloc(1, sizeof(port_thread_t))
    if thread == NULL:
        return NULL
    thread.fd, thread.mail = fd, mail
    rtu_init(&thread.engine, program, port, mail, clock_ns(CLOCK_MONOTONIC))
    pylon_line_init(&thread.pylon, program, port)
    bell_hang(mail)
    problem = thread_create(&thread.thread, run, thread, priority, cpu, &fifo)
    if problem != 0:
        bell_take_down(mail)
        free(thread)
        errno_set(problem)
        return NULL
    mail.stats.fifo = fifo
    return thread


cdef int port_thread_stop(port_thread_t* thread, uint64_t drain_ns) noexcept nogil:
    cdef int drained
    thread.stop_t_ns = clock_ns(CLOCK_MONOTONIC) + drain_ns
    flag_set(&thread.stop, 1)
    bell_ring(thread.mail)
    pthread_join(thread.thread, NULL)
    bell_take_down(thread.mail)
    drained = <int>thread.drained
    free(thread)
    return drained


# ---------------------------------------------------------------- what Python sees

cdef class MailHandle:
    """One port's mail in a core, for the thread that serves it."""


cdef MailHandle mail_handle(const program_t* program, port_mail_t* mail, object owner):
    cdef MailHandle handle = MailHandle.__new__(MailHandle)
    handle.program = program
    handle.mail = mail
    handle.owner = owner
    return handle


cdef class Port:
    """The I/O thread of one serial port.

    source : `Core.port_handle(index)`, whose mail the thread serves, or the bytes of a compiled site, for tools and tests;
             then the mail is this object's own and `put` and `take` are its ends.
    index  : number of the port in the program. fd: descriptor in raw mode; it stays the caller's to close.
    Raises IndexError for a port that the program does not have.
    """

    cdef object source
    cdef const program_t* program
    cdef port_mail_t* mail
    cdef port_mail_t* own
    cdef port_thread_t* thread
    cdef uint64_t cpu_spent, sleeps_done
    cdef readonly int index, fd

    def __cinit__(self, source not None, int index, int fd):
        if isinstance(source, MailHandle):
            self.program = (<MailHandle>source).program
        elif isinstance(source, bytes):
            if PyBytes_GET_SIZE(source) < <Py_ssize_t>sizeof(program_t):
                raise ValueError(f"program: {len(source)} bytes, needs at least {sizeof(program_t)}")
            self.program = <const program_t*>PyBytes_AS_STRING(source)
        else:
            raise TypeError(f"source: a port of a Core or the bytes of a program, got {type(source).__name__}")
        if not 0 <= index < <int>self.program.n_ports:
            raise IndexError(f"port {index}: the program has {self.program.n_ports}")
        self.source, self.index, self.fd = source, index, fd
        if isinstance(source, MailHandle):
            self.mail = (<MailHandle>source).mail
        else:
            self.own = <port_mail_t*>calloc(1, sizeof(port_mail_t))
            if self.own == NULL:
                raise MemoryError("no memory for the port's mail")
            port_mail_init(self.own, self.program, <uint32_t>index)
            self.mail = self.own

    def __dealloc__(self):
        if self.thread != NULL:
            with nogil:
                port_thread_stop(self.thread, 0)
        free(self.own)

    def start(self, int priority=0, int cpu=-1):
        """Start the thread, FIFO at `priority` where the right is there (`fifo` says). OSError when it cannot start."""
        if self.thread != NULL:
            raise RuntimeError(f"port {self.index}: its thread runs already")
        self.thread = port_thread_start(self.fd, self.program, self.index, self.mail, priority, cpu)
        if self.thread == NULL:
            raise OSError(errno, f"port {self.index}: the thread did not start on descriptor {self.fd}")

    def stop(self, double drain_s=1.0) -> bool:
        """End the thread once each newest setpoint and stop is acknowledged, or after `drain_s`. True: all were."""
        cdef uint64_t drain_ns = <uint64_t>(drain_s * 1e9)
        cdef port_thread_t* thread = self.thread
        cdef int drained
        if thread == NULL:
            return True
        self.cpu_spent += thread_cpu_ns(thread.thread)
        self.sleeps_done += thread.sleeps
        self.thread = NULL
        with nogil:
            drained = port_thread_stop(thread, drain_ns)
        return bool(drained)

    def put(self, int slot, regs, bint valid=True, bint urgent=False):
        """Put registers into command slot number `slot`, as the loop does."""
        mail_put(self.mail, slot, regs, valid, urgent)

    def take(self):
        """Blocks finished since the last call, oldest first: dicts of done_t. Not beside a Core, which takes them."""
        if self.own == NULL:
            raise RuntimeError("the core takes this port's blocks")
        return mail_take(self.mail)

    @property
    def lost(self) -> int:
        """errno of the tty while it does not work: the adapter was pulled, the other end is gone. 0 = good."""
        return self.mail.stats.thread_lost

    @property
    def waiting(self) -> bool:
        """True while a descriptor that was handed over has not been taken by the thread."""
        return self.thread != NULL and self.thread.fd_fresh != 0

    def hand_over(self, int fd) -> bool:
        """Let the running thread go on with `fd` in place of the one it has. False while an earlier one waits."""
        if fd < 0 or no_wait(fd) != 0:
            raise ValueError(f"descriptor {fd}: expected an open one")
        if self.thread == NULL or self.thread.fd_fresh != 0:
            return False
        self.fd = fd
        flag_set(<uint32_t*>&self.thread.fd_fresh, <uint32_t>fd + 1)
        return True

    def retired(self):
        """The descriptor that the thread has let go, to be closed by the caller; None if there is none."""
        if self.thread == NULL or self.thread.fd_retired == 0:
            return None
        fd = self.thread.fd_retired - 1
        flag_set(<uint32_t*>&self.thread.fd_retired, 0)
        return fd

    @property
    def fifo(self) -> int:
        """SCHED_FIFO priority that the thread really got; 0 = ordinary."""
        return self.mail.stats.fifo

    @property
    def cpu_ns(self) -> int:
        """CPU time that the threads of this port have used."""
        return self.cpu_spent + (thread_cpu_ns(self.thread.thread) if self.thread != NULL else 0)

    @property
    def sleeps(self) -> int:
        """How often the threads of this port went to sleep."""
        return self.sleeps_done + (self.thread.sleeps if self.thread != NULL else 0)

    @property
    def stats(self):
        """Counters of the port and its slaves; see port.h. Copied while the thread runs: each number whole, not all at once."""
        return mail_stats(self.mail, self.program.ports[self.index].slave_count)
