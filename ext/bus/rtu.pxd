# ext/bus/rtu.pxd: Modbus master as a pure state machine over (bytes, time); no descriptor, no clock inside.
from libc.stdint cimport int16_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from tidegate.ext.abi.image cimport point_t
from tidegate.ext.abi.port_mail cimport command_slot_t, done_t, port_mail_t
from tidegate.ext.abi.program cimport BLOCKS_MAX, COMMAND_REGS_MAX, PORT_COMMANDS_MAX, SLAVES_MAX, command_row_t, program_t

cdef extern from *:
    """
    #define RTU_NEVER UINT64_MAX
    #define RTU_MS 1000000ull
    #define RTU_LEARN 16u  /* answers before a slave's own time-out replaces the map's */
    #define RTU_SLACK_NS 20000000ull /* USB adapters hold bytes back for up to 16 ms in the middle of a reply */
    #define RTU_GATEWAY_SLACK_NS 100000000ull /* and what hands a line's bytes on over a network, for longer */
    #define RTU_GUARD 32u  /* answers for which a line that carried a frame too many is watched */
    #define RTU_PATIENCE_NS 250000000ull /* so long after its deadline a block goes before all others */
    #define RTU_WRITES_NS 100000000ull   /* line time that writes may take between two polls that are due */
    #define RTU_BACKOFF_NS 5000000000ull /* a slave that fell silent is asked again after so long at the latest */
    #define RTU_REFUSED_NS 1000000000ull /* a block that was answered by an exception */
    #define RTU_ONCE_NS 60000000000ull   /* identity and what else does not change is looked at again */
    #define RTU_GAP_EXTRA_NS 20000000ull /* most silence beyond the bus's rule that a slave is given */
    static inline uint64_t later(uint64_t a, uint64_t b) { return a > b ? a : b; }
    static inline uint64_t sooner(uint64_t a, uint64_t b) { return a < b ? a : b; }
    """
    const uint64_t RTU_NEVER
    const uint64_t RTU_MS
    const uint32_t RTU_LEARN
    const uint32_t RTU_GUARD
    const uint64_t RTU_SLACK_NS
    const uint64_t RTU_GATEWAY_SLACK_NS
    const uint64_t RTU_PATIENCE_NS
    const uint64_t RTU_WRITES_NS
    const uint64_t RTU_BACKOFF_NS
    const uint64_t RTU_REFUSED_NS
    const uint64_t RTU_ONCE_NS
    const uint64_t RTU_GAP_EXTRA_NS
    uint64_t later(uint64_t a, uint64_t b) noexcept nogil
    uint64_t sooner(uint64_t a, uint64_t b) noexcept nogil

cdef enum:
    RTU_FRAME_MAX = 264
    RTU_RX_MAX = 528  # an echo of the longest request and the longest reply
    RTU_BARS = 12      # reply shapes that a slave's next request must not have
    RTU_SEPARATOR_WORDS = 17  # the longest separator reads so many: a shape more than the bars, the last and its own
    UNKNOWN_SLAVE = 0xFFFF
    RTU_DRIFT = 64  # a timed poll comes this part of its period early: none keeps step with a load that moves by the clock

cdef enum rtu_do:
    RTU_WAIT = 0  # nothing before `until_ns`; a command put meanwhile is noticed by the next call
    RTU_SEND = 1  # put `frame` on the wire now, then call rtu_sent
    RTU_RECV = 2  # a reply is under way: wake at `until_ns` or when `want` bytes may have come

cdef struct rtu_action_t:
    int what          # enum rtu_do
    int idle          # with WAIT, 1 = a new command may be sent before until_ns
    int listen        # with RECV, 1 = the reply is late: wake on its first byte, not only at until_ns
    uint64_t until_ns
    uint32_t want     # bytes still missing
    const uint8_t* frame
    uint32_t length

cdef enum rtu_state:
    RTU_IDLE = 0
    RTU_RECEIVING = 1

cdef enum rtu_purpose:
    RTU_BLOCK = 0      # a polled block
    RTU_COMMAND = 1    # a command slot's newest value
    RTU_SEPARATOR = 2  # a short read that only keeps equal reply lengths apart
    RTU_ASKED = 3      # one request of a tool

# The request that is being built, or that is in flight.
cdef struct rtu_request_t:
    int purpose        # enum rtu_purpose
    uint32_t index     # of the block or command, port's own numbers
    uint32_t slave     # port's own number
    uint8_t unit
    uint8_t function
    uint16_t reply     # bytes of a good reply; 0 = the reply itself will tell
    uint16_t length    # of the request
    uint64_t seq       # command slot's seq that this carries

# Length and kind of a reply, to tell it from another one.
cdef struct rtu_shape_t:
    uint8_t function
    uint16_t reply

cdef struct rtu_block_t:
    uint64_t t_due_ns       # not before
    uint64_t deadline_ns    # the earliest goes first
    uint64_t t_asked_ns     # last request for it, a separator included
    uint16_t row
    uint16_t slave
    uint16_t reply
    uint16_t tries          # failed in a row
    int16_t readback        # command whose registers stand in this block, -1 none
    uint16_t readback_offset
    uint16_t turn           # of the blocks with a period: which part of it is this one's
    uint8_t settled         # 1 = has its phase
    uint8_t identity        # 1 = holds words that tell which device this is
    uint8_t proved          # 1 = they were the map's when last read

cdef struct rtu_slave_t:
    uint64_t t_open_ns       # quarantine or back-off: no poll before
    uint64_t t_ready_ns      # the device's own pause after its last reply: nothing before
    uint64_t expected_ns     # turnaround that the wake-up counts on
    int aim_run              # replies in a row that were not whole at the wake-up, or (below 0) that were
    uint64_t worst_ns        # slowest turnaround seen, forgotten slowly
    uint64_t gap_extra_ns    # silence before a request to it, beyond the bus's rule
    uint64_t gap_floor_ns    # learned: below this it failed
    uint32_t samples
    uint32_t good_run
    uint32_t alive
    uint32_t ever            # 1 = has answered since rtu_init
    uint32_t silent_run      # time-outs in a row
    uint32_t n_blocks
    uint32_t consts_left
    uint32_t const_refused
    uint64_t t_hold_ns       # it takes no write before: an earlier one said so
    uint32_t unproved        # blocks with identity words that have not been seen right since its last silence
    uint32_t was_proved      # 1 = all of them have been, once
    uint32_t doubtful        # answers in a row that may have been an older request's
    uint32_t n_bars
    uint32_t listens         # 1 = its replies have bytes before them: it is listened to from the request on, for the silence
    uint32_t lead_run        # replies in a row that had such bytes
    rtu_shape_t bars[RTU_BARS]

cdef struct rtu_command_t:
    command_slot_t want      # last whole copy of the slot
    uint64_t written_seq     # newest seq that the device acknowledged
    uint64_t tried_seq       # newest seq that was sent while the slave was silent
    uint64_t t_retry_ns
    uint64_t t_written_ns
    uint64_t t_sent_ns       # last attempt
    uint16_t written[COMMAND_REGS_MAX]
    uint16_t slave
    uint16_t since_poll      # writes since the last poll
    uint16_t zeros           # of them stops and setpoints 0
    uint32_t known           # 1 = `written` is what the device holds, as far as we know
    uint32_t twice           # 1 = its acknowledgement may have been an older one's: write again
    int readback_block       # -1 none
    uint32_t readback_tries

# The engine of one port. Reads its program, its mail and nothing else; a few tens of kilobytes, no pointers to keep.
cdef struct rtu_t:
    const program_t* program
    port_mail_t* mail
    int port
    int state                # enum rtu_state
    uint64_t char_ns
    uint64_t gap_ns
    uint64_t slack_most_ns   # for longer than this nothing is waited for in the middle of a reply
    uint64_t slack_ns        # a pause inside a reply that still belongs to it, learned
    uint64_t pause_worst_ns  # longest such pause, forgotten slowly
    uint64_t pause_ns        # of the reply under way
    uint64_t t_piece_ns      # when its newest piece came
    uint32_t wholes
    uint32_t strip_echo
    uint32_t lead_most        # bytes that the bus's option lets stand before a reply
    uint32_t lead             # bytes before this reply that are none of it
    uint32_t parted           # of its first bytes, so many came before a silence
    uint32_t framed          # 1 = frames come whole, without CRC
    uint32_t numbered        # 1 = Modbus TCP: and by a transaction id to their request
    uint32_t pylon           # 1 = what is sent and received are Pylontech's frames
    uint32_t echo_known      # 1 = a read came back without an echo (or with the one that is stripped)
    uint32_t draining        # 1 = commands only
    # the line
    uint64_t t_free_ns       # no request before
    uint64_t t_line_ns       # last byte on the wire
    rtu_shape_t last         # shape, unit and block of the last request
    uint32_t guard           # > 0: a frame too many was seen, so one block is kept apart from itself as well
    uint32_t last_exception
    uint32_t in_step         # 1 = the answer that just ended cannot have been an older one's
    uint8_t last_unit
    int last_row
    # the request in flight
    rtu_request_t request
    uint64_t t_sent_ns       # its last byte on the wire
    uint64_t t_wake_ns       # predicted end of the reply
    uint64_t t_deadline_ns
    uint64_t t_hard_ns       # no reply lasts longer
    uint64_t t_first_ns      # first byte of the reply on the wire
    uint32_t parts           # pieces that the reply came in
    uint32_t listened
    uint32_t rx_len
    # the plan
    uint64_t t_poll_ns       # earliest block
    uint64_t t_probe_ns      # no slave that fell silent is asked before, while others answer
    uint64_t writes_ns       # line time of the writes since the last poll
    uint32_t holding         # 1 = the line is kept silent for the poll that comes next
    uint32_t tool_had        # 1 = a tool's request has gone since the last poll
    uint32_t n_slaves, n_blocks, n_commands, n_live, n_readable
    uint32_t n_timed          # blocks with a period
    uint64_t t_start_ns       # of their grids
    uint32_t slave_first
    uint16_t live[PORT_COMMANDS_MAX]  # commands, constants included
    # a tool's request: 0 none, 1 waiting, 2 in flight, 3 answered
    uint32_t asked
    uint32_t asked_length
    uint32_t answer_length
    int answer_status
    uint8_t asked_frame[RTU_FRAME_MAX]
    uint8_t tx[RTU_FRAME_MAX]
    uint8_t rx[RTU_RX_MAX]
    rtu_slave_t slaves[SLAVES_MAX]
    rtu_command_t commands[PORT_COMMANDS_MAX]
    rtu_block_t blocks[BLOCKS_MAX]

# The program has passed program_check, the mail port_mail_init. Keeps what the mail already holds; call before the
# port's first rtu_next.
cdef void rtu_init(rtu_t* engine, const program_t* program, int port, port_mail_t* mail, uint64_t t_ns) noexcept nogil
# What to do now. Call again after every rtu_sent, rtu_bytes, or when until_ns has come.
cdef void rtu_next(rtu_t* engine, uint64_t t_ns, rtu_action_t* action) noexcept nogil
cdef void rtu_sent(rtu_t* engine, uint64_t t_end_ns) noexcept nogil  # t_end_ns: last byte on the wire
cdef void rtu_bytes(rtu_t* engine, const uint8_t* bytes, uint32_t count, uint64_t t_ns) noexcept nogil
# The same of a framed port: the reply (unit, function, data) that bore the transaction id of the request in flight, or
# that a line's own frames were made into.
cdef void rtu_frame(rtu_t* engine, const uint8_t* frame, uint32_t count, uint64_t t_ns) noexcept nogil
# The reply that has come cannot be told from half of one and the beginning of the next: the same request once more.
cdef void rtu_again(rtu_t* engine) noexcept nogil
# The connection under the port has ended, so what is in flight will not be answered.
cdef void rtu_cut(rtu_t* engine, uint64_t t_ns) noexcept nogil
# What has come was a frame, and is none of the reply: a done_status.
cdef void rtu_spoilt(rtu_t* engine, int status, uint64_t t_ns) noexcept nogil
# A new connection: nobody who was silent before it has to be waited for.
cdef void rtu_joined(rtu_t* engine, uint64_t t_ns) noexcept nogil
# From now on commands only; 1 once every setpoint and stop that may be sent has been acknowledged.
cdef void rtu_drain(rtu_t* engine) noexcept nogil
cdef int rtu_drained(rtu_t* engine) noexcept nogil
# One request of a tool: unit, function and data without CRC. Polls go on around it. 0 = busy or too long.
cdef int rtu_ask(rtu_t* engine, const uint8_t* frame, uint32_t count) noexcept nogil



# Nobody answers a broadcast. Behind TCP, unit 0 is the device itself.
cdef inline bint broadcast(const rtu_t* e) noexcept nogil:
    return e.request.unit == 0 and not e.framed


cdef inline const uint8_t* reply_at(const rtu_t* e) noexcept nogil:
    return e.rx + (e.request.length if e.strip_echo else 0) + e.lead
