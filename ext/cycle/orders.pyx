"""Orders from outside: what the gateway left in the mailbox, while it is in force."""

from libc.math cimport INFINITY, fmin, isfinite
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.abi.settings cimport POLICIES, policy_setting
from tidegate.ext.control.corridor cimport (
    ORDER_DEMAND, ORDER_FORCED, ORDER_MANUAL, ORDER_PEAK, ORDER_PLAN, ORDER_TARGET,
)
from tidegate.ext.cycle.core cimport core_t
from tidegate.ext.cycle.schedule cimport update_plan
from tidegate.ext.abi.ring cimport ITEM_STOP, recorder_order, recorder_word
from tidegate.ext.abi.shared cimport *


cdef void update_orders(core_t* core, uint64_t t_ns) noexcept nogil:
    """Copy the mailbox and keep what has not expired. A torn slot keeps its last whole copy for one more cycle."""
    cdef int kind
    cdef order_t copy
    cdef uint32_t stop = core.stop
    cdef uint32_t planned = ORDER_PLAN | ORDER_FORCED | ORDER_TARGET | ORDER_PEAK | ORDER_DEMAND
    for kind in range(ORDERS):
        # The usual case costs one load: nothing new in the slot.
        if core.shared.mailbox[kind].seq == core.mailbox[kind].seq:
            continue
        if order_get(&core.shared.mailbox[kind], &copy):
            core.mailbox[kind] = copy
            if kind >= ORDER_POLICY:
                core.policies_due_ns = 0
            recorder_order(core.recorder, kind, &copy)
    core.orders.lease_held = in_force(&core.mailbox[ORDER_SETPOINT_W], t_ns)
    core.orders.lease_w = core.mailbox[ORDER_SETPOINT_W].value if core.orders.lease_held else 0.0
    if in_force(&core.mailbox[ORDER_MANUAL_W], t_ns):
        core.orders.lease_held = 1
        core.orders.lease_w = core.mailbox[ORDER_MANUAL_W].value
        core.orders.flags |= ORDER_MANUAL
    else:
        core.orders.flags &= ~<uint32_t>ORDER_MANUAL
    update_plan(core, t_ns)
    core.orders.flags = (core.orders.flags & ~planned) | core.planned.flags
    core.orders.plan_w = core.planned.plan_w
    core.orders.plan_until_soc = core.planned.plan_until_soc
    core.orders.plan_number = core.planned.plan_number
    core.orders.target_grid_w = core.planned.target_grid_w
    core.orders.peak_w_max = core.planned.peak_w_max
    core.orders.demand_w_max = core.planned.demand_w_max
    core.orders.import_w_max = fmin(limit_order(&core.mailbox[ORDER_IMPORT_W_MAX], t_ns), core.planned.import_w_max)
    core.orders.export_w_max = fmin(limit_order(&core.mailbox[ORDER_EXPORT_W_MAX], t_ns), core.planned.export_w_max)
    if t_ns >= core.policies_due_ns:
        update_policies(core, t_ns)
    if stop != core.external.stop:
        core.external.stop = stop
        recorder_word(core.recorder, ITEM_STOP, 0, stop)
    core.orders.stop = stop
    if in_force(&core.mailbox[ORDER_MODE], t_ns) and core.mailbox[ORDER_MODE].value == ORDER_MODE_STOP:
        core.orders.stop = 1
    for kind in range(ORDERS):
        core.shared.applied_seq[kind] = core.mailbox[kind].seq


cdef void update_policies(core_t* core, uint64_t t_ns) noexcept nogil:
    """The site's settings, with what is ordered in their place. Recomputed when an order comes or ends."""
    cdef int policy
    cdef const order_t* order
    core.params = core.program.control
    core.policies_due_ns = <uint64_t>0xFFFFFFFFFFFFFFFF
    for policy in range(POLICIES):
        order = &core.mailbox[ORDER_POLICY + policy]
        if in_force(order, t_ns):
            policy_setting(&core.params, policy)[0] = order.value
            core.policies_due_ns = min(core.policies_due_ns, order.expires_t_ns)


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
