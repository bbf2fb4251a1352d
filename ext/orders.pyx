"""Orders from outside: what the gateway left in the mailbox, while it is in force."""

from libc.math cimport INFINITY, isfinite
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.core cimport core_t
from tidegate.ext.shared cimport *


cdef void take_orders(core_t* core, uint64_t t_ns) noexcept nogil:
    """Copy the mailbox and keep what has not expired. A torn slot keeps its last whole copy for one more cycle."""
    cdef int kind
    cdef order_t copy
    for kind in range(ORDERS):
        # The usual case costs one load: nothing new in the slot.
        if core.shared.mailbox[kind].seq == core.mailbox[kind].seq:
            continue
        if order_get(&core.shared.mailbox[kind], &copy):
            core.mailbox[kind] = copy
    core.orders.lease_held = in_force(&core.mailbox[ORDER_SETPOINT_W], t_ns)
    core.orders.lease_w = core.mailbox[ORDER_SETPOINT_W].value if core.orders.lease_held else 0.0
    core.orders.import_w_max = limit_order(&core.mailbox[ORDER_IMPORT_W_MAX], t_ns)
    core.orders.export_w_max = limit_order(&core.mailbox[ORDER_EXPORT_W_MAX], t_ns)
    core.orders.stop = core.stop
    if in_force(&core.mailbox[ORDER_MODE], t_ns) and core.mailbox[ORDER_MODE].value == ORDER_MODE_STOP:
        core.orders.stop = 1
    for kind in range(ORDERS):
        core.shared.applied_seq[kind] = core.mailbox[kind].seq


cdef uint32_t in_force(const order_t* order, uint64_t t_ns) noexcept nogil:
    return 1 if order.expires_t_ns > t_ns and isfinite(order.value) else 0


cdef double limit_order(const order_t* order, uint64_t t_ns) noexcept nogil:
    # A limit that is not a number would be no limit; the gateway refuses it, and here it means zero.
    if order.expires_t_ns <= t_ns:
        return INFINITY
    return order.value if isfinite(order.value) and order.value > 0.0 else 0.0


cdef int edge(core_t* core, int kind, uint64_t t_ns) noexcept nogil:
    """1 in the one cycle in which a new ACK or ARM order is seen while it is in force."""
    if core.mailbox[kind].seq == core.edge_done[kind]:
        return 0
    core.edge_done[kind] = core.mailbox[kind].seq
    return <int>in_force(&core.mailbox[kind], t_ns)
