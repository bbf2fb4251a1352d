# ext/abi/port_mail.pxd: what passes between the loop and one serial port's engine; port_mail.h owns the structs.
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from tidegate.ext.abi.program cimport BLOCK_REGS_MAX, COMMAND_REGS_MAX, PORT_COMMANDS_MAX, SLAVES_MAX, program_t

# >> generated from abi/port_mail.h by `make pxd`; change the header, not this
cdef extern from "abi/port_mail.h" nogil:
    enum:
        DONE_SLOTS

    enum:
        DONE_OK
        DONE_TIMEOUT
        DONE_CRC
        DONE_EXCEPTION
        DONE_MISMATCH
        DONE_SHORT
        DONE_ECHO

    ctypedef struct done_t:
        uint64_t t_sample_ns
        uint64_t t_done_ns
        uint16_t block
        uint16_t status
        uint16_t exception
        uint16_t count
        uint16_t regs[BLOCK_REGS_MAX]

    enum:
        URGENT_NOT
        URGENT
        URGENT_ZERO

    ctypedef struct command_slot_t:
        uint64_t seq
        uint64_t t_ns
        uint32_t valid
        uint32_t urgent
        uint16_t regs[COMMAND_REGS_MAX]
        uint32_t bell
        uint32_t pad

    enum:
        RTU_DEAD
        PORT_HISTOGRAM_BUCKETS

    ctypedef struct slave_stats_t:
        uint64_t ok, timeouts, crc_errors, exceptions, mismatches, shorts, echoes
        uint64_t exception_codes[12]
        uint64_t transactions
        uint64_t foreign_bytes
        uint64_t lead_ins
        uint64_t wire_busy_ns
        uint64_t t_ok_ns
        uint64_t turnaround_ns
        uint64_t timeout_ns
        uint64_t gap_ns
        uint32_t alive
        uint32_t silent_run
        uint32_t identity_mismatch
        uint32_t gap_extra_us
        uint32_t turnaround[PORT_HISTOGRAM_BUCKETS]
        uint32_t round_trip[PORT_HISTOGRAM_BUCKETS]

    ctypedef struct port_stats_t:
        uint64_t transactions, ok, timeouts, crc_errors, exceptions, mismatches, foreign_bytes, flushes, writes, reads
        uint64_t shorts, echoes, separators, readback_mismatches, flash_held
        uint64_t wire_busy_ns
        uint64_t silence_ns
        uint64_t t_last_write_end_ns
        uint64_t written_seq[PORT_COMMANDS_MAX]
        uint64_t written_t_ns[PORT_COMMANDS_MAX]
        uint32_t refusals[PORT_COMMANDS_MAX]
        uint32_t thread_lost
        uint32_t fifo
        uint64_t connects
        uint64_t hangups
        uint64_t strays
        slave_stats_t slaves[SLAVES_MAX]

    void port_histogram_add(uint32_t *buckets, uint64_t ns) noexcept

    ctypedef struct port_mail_t:
        uint64_t done_head
        char pad0[56]
        uint64_t done_tail
        char pad1[56]
        done_t done[DONE_SLOTS]
        uint64_t done_dropped
        uint32_t bell
        uint32_t sleeping
        uint32_t wake_fd
        uint32_t pad2
        uint32_t command_first, command_count
        command_slot_t commands[PORT_COMMANDS_MAX]
        port_stats_t stats

    void port_mail_init(port_mail_t *m, const program_t *p, uint32_t port) noexcept
    done_t *port_done_begin(port_mail_t *m) noexcept
    void port_done_commit(port_mail_t *m) noexcept
    const done_t *port_done_peek(port_mail_t *m) noexcept
    void port_done_pop(port_mail_t *m) noexcept
    void command_ring(command_slot_t *s) noexcept
    void command_put(command_slot_t *s, const uint16_t regs[COMMAND_REGS_MAX], uint32_t valid, uint32_t urgent,
                     uint64_t t_ns) noexcept
    int command_get(const command_slot_t *s, command_slot_t *out) noexcept
# << end of what is generated
