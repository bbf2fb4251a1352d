"""A port's mail as Python feeds and reads it, for serial ports and TCP ports alike."""

from libc.stdint cimport uint16_t
from libc.string cimport memset

from tidegate.ext.abi.port_mail cimport *
from tidegate.ext.abi.program cimport COMMAND_REGS_MAX
from tidegate.ext.bus.io_thread cimport CLOCK_MONOTONIC, clock_ns

from tidegate.ext.bus.rtu_view import STATUS


cdef int mail_put(port_mail_t* mail, int slot, object regs, bint valid, bint urgent) except -1:
    cdef uint16_t[COMMAND_REGS_MAX] words
    if not 0 <= slot < <int>mail.command_count or len(regs) > COMMAND_REGS_MAX:
        raise IndexError(f"slot {slot} of {mail.command_count}, {len(regs)} registers of at most {COMMAND_REGS_MAX}")
    memset(words, 0, sizeof(words))
    for i, word in enumerate(regs):
        words[<Py_ssize_t>i] = word
    command_put(&mail.commands[slot], words, valid, urgent, clock_ns(CLOCK_MONOTONIC))
    return 0


cdef list mail_take(port_mail_t* mail):
    cdef const done_t* done = port_done_peek(mail)
    cdef list found = []
    while done != NULL:
        row = dict(done[0])
        row["regs"] = row["regs"][:done.count]
        row["status"] = STATUS[done.status]
        found.append(row)
        port_done_pop(mail)
        done = port_done_peek(mail)
    return found


cdef dict mail_stats(port_mail_t* mail, int slave_count):
    cdef dict found = dict(mail.stats)
    found["done_dropped"] = mail.done_dropped
    found["slaves"] = found["slaves"][:slave_count]
    for key in ("written_seq", "written_t_ns", "refusals"):
        found[key] = found[key][:mail.command_count]
    return found
