# ext/bus/mail_view.pxd: a port's mail as Python feeds and reads it, for serial ports and TCP ports alike.
from tidegate.ext.abi.port_mail cimport port_mail_t

# Registers into a command slot, as the loop puts them. IndexError for a slot that is not there or too many registers.
cdef int mail_put(port_mail_t* mail, int slot, object regs, bint valid, bint urgent) except -1
# Blocks finished since the last call, oldest first: dicts of done_t.
cdef list mail_take(port_mail_t* mail)
# Counters of the port and its slaves; see port_mail.h. Copied while the thread runs: each number whole.
cdef dict mail_stats(port_mail_t* mail, int slave_count)
