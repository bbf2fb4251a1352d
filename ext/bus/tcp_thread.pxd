# ext/bus/tcp_thread.pxd: the I/O thread of all TCP connections; see tcp_thread.pyx.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from tidegate.ext.abi.port_mail cimport port_mail_t
from tidegate.ext.abi.program cimport PORTS_MAX, program_t
from tidegate.ext.bus.io_thread cimport pthread_t
from tidegate.ext.bus.mbap cimport stream_t
from tidegate.ext.bus.pylon_line cimport pylon_line_t
from tidegate.ext.bus.rtu cimport rtu_t

cdef extern from "bus/tcp_socket.h" nogil:
    ctypedef struct tcp_to_t:
        pass
    void tcp_to_set(tcp_to_t* to, uint8_t family, const uint8_t* host, uint16_t port)

cdef enum link_state:
    DOWN = 0
    CONNECTING = 1
    UP = 2

# One connection.
cdef struct link_t:
    tcp_to_t to
    int fd
    int state                # enum link_state
    uint32_t line            # 1 = a line behind a gateway that knows no Modbus: RTU frames or Pylontech's
    uint32_t lazy            # 1 = ended in order: made again when there is something to ask
    uint64_t t_retry_ns      # DOWN: not before
    uint64_t t_state_ns      # since when it is connecting, or up
    uint64_t lanes           # a bit for each lane that asks over it
    uint32_t proved          # 1 = up for so long that it counts as one
    uint64_t hold_until_ns   # requests wait for the connection and do not fail
    uint64_t backoff_ns
    uint64_t t_answer_ns
    uint32_t asked, answered # on this connection
    uint32_t empty, silent, one_shot, one_shot_run
    stream_t stream

# One request in flight: a port of the program, with its engine and its mail.
cdef struct lane_t:
    rtu_t engine
    pylon_line_t pylon       # where the line behind the connection speaks Pylontech's protocol
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

# A thread without ports, not running; NULL and errno where the kernel gives no descriptors or no memory.
cdef tcp_thread_t* tcp_new() noexcept nogil
# One more port of the program, asked over a connection to `to`; ports of one link share it.
cdef void tcp_lane_add(tcp_thread_t* at, const program_t* program, int port, port_mail_t* mail, const tcp_to_t* to,
                       uint64_t t_ns) noexcept nogil
# Start it, FIFO at `priority` where the right is there; *fifo says what it got. 0, or errno: then it is to be given back.
cdef int tcp_start(tcp_thread_t* at, int priority, int cpu, uint32_t* fifo) noexcept nogil
# End it once all newest commands are acknowledged or `drain_ns` is over, and give it back; 1 = all were.
cdef int tcp_stop(tcp_thread_t* at, uint64_t drain_ns) noexcept nogil
cdef void tcp_free(tcp_thread_t* at) noexcept nogil
