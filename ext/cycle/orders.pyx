"""Orders from outside: what the gateway left in the mailbox, while it is in force."""

from libc.math cimport INFINITY, isfinite
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.abi.extremes cimport fmin
from tidegate.ext.abi.settings cimport POLICIES, policy_setting
from tidegate.ext.control.corridor cimport (
    ORDER_CEASE, ORDER_DEMAND, ORDER_FORCED, ORDER_MANUAL, ORDER_PEAK, ORDER_PLAN, ORDER_TARGET, orders_t,
)
from tidegate.ext.cycle.core cimport external_t, inbox_t
from tidegate.ext.cycle.schedule cimport update_plan
from tidegate.ext.abi.image cimport QUALITY_GOOD, QUALITY_HELD, point_t
from tidegate.ext.abi.program cimport INPUT_LIMIT, INPUT_STOP, input_row_t, program_t
from tidegate.ext.abi.ring cimport recorder_order, recorder_t
from tidegate.ext.abi.shared cimport *


cdef void update_orders(const program_t* program, shared_t* shared, const external_t* external, inbox_t* inbox,
                        recorder_t* recorder, uint64_t t_ns) noexcept nogil:
    """Copy the mailbox and keep what has not expired. A torn slot keeps its last whole copy for one more cycle."""
    cdef int kind
    cdef order_t copy
    cdef orders_t* orders = &inbox.orders
    cdef uint32_t planned = ORDER_PLAN | ORDER_FORCED | ORDER_TARGET | ORDER_PEAK | ORDER_DEMAND
    for kind in range(ORDERS):
        # The usual case costs one load: nothing new in the slot.
        if shared.mailbox[kind].seq == inbox.mailbox[kind].seq:
            continue
        if order_get(&shared.mailbox[kind], &copy):
            inbox.mailbox[kind] = copy
            if kind >= ORDER_POLICY:
                inbox.policies_due_ns = 0
            recorder_order(recorder, kind, &copy)
    orders.lease_held = in_force(&inbox.mailbox[ORDER_SETPOINT_W], t_ns)
    orders.lease_w = inbox.mailbox[ORDER_SETPOINT_W].value if orders.lease_held else 0.0
    if in_force(&inbox.mailbox[ORDER_MANUAL_W], t_ns):
        orders.lease_held = 1
        orders.lease_w = inbox.mailbox[ORDER_MANUAL_W].value
        orders.flags |= ORDER_MANUAL
    else:
        orders.flags &= ~<uint32_t>ORDER_MANUAL
    update_plan(shared, inbox, recorder, t_ns)
    orders.flags = (orders.flags & ~planned) | inbox.planned.flags
    orders.plan_w = inbox.planned.plan_w
    orders.plan_until_soc = inbox.planned.plan_until_soc
    orders.plan_number = inbox.planned.plan_number
    orders.target_grid_w = inbox.planned.target_grid_w
    orders.peak_w_max = inbox.planned.peak_w_max
    orders.demand_w_max = inbox.planned.demand_w_max
    orders.charge_w_max = inbox.planned.charge_w_max
    orders.discharge_w_max = inbox.planned.discharge_w_max
    orders.operator_import_w_max = limit_order(&inbox.mailbox[ORDER_OPERATOR_IMPORT_W_MAX], t_ns)
    orders.operator_export_w_max = limit_order(&inbox.mailbox[ORDER_OPERATOR_EXPORT_W_MAX], t_ns)
    if in_force(&inbox.mailbox[ORDER_OPERATOR_STOP], t_ns):
        orders.flags |= ORDER_CEASE
    else:
        orders.flags &= ~<uint32_t>ORDER_CEASE
    orders.import_w_max = fmin(limit_order(&inbox.mailbox[ORDER_IMPORT_W_MAX], t_ns), inbox.planned.import_w_max)
    orders.export_w_max = fmin(limit_order(&inbox.mailbox[ORDER_EXPORT_W_MAX], t_ns), inbox.planned.export_w_max)
    if t_ns >= inbox.policies_due_ns:
        update_policies(program, inbox, t_ns)
    orders.stop = external.stop
    if in_force(&inbox.mailbox[ORDER_MODE], t_ns) and inbox.mailbox[ORDER_MODE].value == ORDER_MODE_STOP:
        orders.stop = 1
    if inbox.mailbox[ORDER_STOP].expires_t_ns > t_ns:
        orders.stop = 1
    for kind in range(ORDERS):
        shared.applied_seq[kind] = inbox.mailbox[kind].seq


cdef void relay_orders(const program_t* program, const point_t* image, orders_t* orders) noexcept nogil:
    cdef const input_row_t* row
    cdef const point_t* point
    cdef uint32_t i
    for i in range(program.n_inputs):
        row = &program.inputs[i]
        if row.what != INPUT_STOP and row.what != INPUT_LIMIT:
            continue
        point = &image[row.point]
        if (point.quality == QUALITY_GOOD or point.quality == QUALITY_HELD) and point.value == 0.0:
            continue
        if row.what == INPUT_STOP:
            orders.flags |= ORDER_CEASE
        else:
            orders.operator_import_w_max = fmin(orders.operator_import_w_max, row.import_w_max)


cdef void update_policies(const program_t* program, inbox_t* inbox, uint64_t t_ns) noexcept nogil:
    """The site's settings, with what is ordered in their place. Recomputed when an order comes or ends."""
    cdef int policy
    cdef const order_t* order
    inbox.params = program.control
    inbox.policies_due_ns = <uint64_t>0xFFFFFFFFFFFFFFFF
    for policy in range(POLICIES):
        order = &inbox.mailbox[ORDER_POLICY + policy]
        if in_force(order, t_ns):
            policy_setting(&inbox.params, policy)[0] = order.value
            inbox.policies_due_ns = min(inbox.policies_due_ns, order.expires_t_ns)


cdef uint32_t in_force(const order_t* order, uint64_t t_ns) noexcept nogil:
    return 1 if order.expires_t_ns > t_ns and isfinite(order.value) else 0


cdef double limit_order(const order_t* order, uint64_t t_ns) noexcept nogil:
    # A limit that is not a number would be no limit; the gateway refuses it, and here it means zero.
    if order.expires_t_ns <= t_ns:
        return INFINITY
    return order.value if isfinite(order.value) and order.value > 0.0 else 0.0


cdef int edge(inbox_t* inbox, int kind, uint64_t t_ns) noexcept nogil:
    """1 in the one cycle in which a new ACK or ARM order is seen while it is in force."""
    if inbox.mailbox[kind].seq == inbox.edge_done[kind]:
        return 0
    inbox.edge_done[kind] = inbox.mailbox[kind].seq
    return <int>in_force(&inbox.mailbox[kind], t_ns)
