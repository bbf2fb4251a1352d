"""All TCP connections of a site, as Python starts, feeds and reads them; their thread is `tcp_thread.pyx`."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from tidegate.ext.abi.port_mail cimport *
from tidegate.ext.abi.program cimport PORTS_MAX, port_over_tcp, port_row_t, program_t
from tidegate.ext.bus.io_thread cimport CLOCK_MONOTONIC, clock_ns, thread_cpu_ns
from tidegate.ext.bus.mail_view cimport mail_put, mail_stats, mail_take
from tidegate.ext.bus.port cimport MailHandle
from tidegate.ext.bus.tcp_thread cimport (
    tcp_free, tcp_lane_add, tcp_new, tcp_start, tcp_stop, tcp_thread_t, tcp_to_set, tcp_to_t,
)


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
                if not port_over_tcp(&self.program.ports[index]):
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
            if not port_over_tcp(&self.program.ports[index]):
                raise ValueError(f"port {index} is a serial one")

    def __dealloc__(self):
        if self.thread != NULL:
            with nogil:
                tcp_stop(self.thread, 0)
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
        at = tcp_new()
        if at == NULL:
            raise OSError(errno, "the TCP ports cannot be watched")
        for index in self.ports:
            row = &self.program.ports[index]
            if index in self.to:
                family, host, number = self.to[index]
                tcp_to_set(&where, family, <const uint8_t*>PyBytes_AS_STRING(host), number)
            else:
                tcp_to_set(&where, row.family, row.host, row.tcp_port)
            tcp_lane_add(at, self.program, index, self.mails[index], &where, t_ns)
        problem = tcp_start(at, priority, cpu, &fifo)
        if problem != 0:
            tcp_free(at)
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
            done = tcp_stop(at, drain_ns)
        return bool(done)

    cdef port_mail_t* mail_of(self, int index) except NULL:
        if not 0 <= index < PORTS_MAX or self.mails[index] == NULL:
            raise IndexError(f"port {index} is none of {self.ports}")
        return self.mails[index]

    def put(self, int index, int slot, regs, bint valid=True, bint urgent=False):
        """Put registers into command slot number `slot` of a port, as the loop does."""
        mail_put(self.mail_of(index), slot, regs, valid, urgent)

    def take(self, int index):
        """A port's blocks finished since the last call, oldest first: dicts of done_t. Not beside a Core."""
        cdef port_mail_t* mail = self.mail_of(index)
        if self.own == NULL:
            raise RuntimeError("the core takes this port's blocks")
        return mail_take(mail)

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
        return mail_stats(self.mail_of(index), self.program.ports[index].slave_count)


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
