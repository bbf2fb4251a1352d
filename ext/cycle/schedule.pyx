"""The plan: which spans of the calendar and of clients are in force. Only times are compared here.

Each span ends at its own time, whatever has become of the process that wrote it. Of two sources the client's chooses the
power, where it gives one; of limits the tightest counts.
"""

from libc.math cimport INFINITY, NAN, isfinite
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.abi.extremes cimport fmin
from tidegate.ext.control.corridor cimport ORDER_DEMAND, ORDER_FORCED, ORDER_PEAK, ORDER_PLAN, ORDER_TARGET, orders_t
from tidegate.ext.cycle.core cimport inbox_t
from tidegate.ext.abi.ring cimport recorder_plan, recorder_t
from tidegate.ext.abi.shared cimport *

cdef uint64_t NEVER_NS = 0xFFFFFFFFFFFFFFFF


cdef void update_plan(shared_t* shared, inbox_t* inbox, recorder_t* recorder, uint64_t t_ns) noexcept nogil:
    # The usual case costs two loads: nothing new, and no border reached.
    if shared.plan.seq != inbox.plan.seq and plan_get(&shared.plan, &inbox.plan):
        recorder_plan(recorder, &inbox.plan)
        inbox.plan_due_ns = 0
    shared.plan_applied_seq = inbox.plan.seq
    if t_ns >= inbox.plan_due_ns:
        choose_rows(inbox, t_ns)


cdef void choose_rows(inbox_t* inbox, uint64_t t_ns) noexcept nogil:
    """Of each source the span in force that began last; and when the next border comes."""
    cdef const plan_row_t* row
    cdef const plan_row_t* found[PLAN_SOURCES]
    cdef uint32_t i, count = inbox.plan.count
    cdef int source
    inbox.plan_due_ns = NEVER_NS
    for source in range(PLAN_SOURCES):
        found[source] = NULL
    if count > PLAN_ROWS:  # written by another process: bounded here
        count = PLAN_ROWS
    for i in range(count):
        row = &inbox.plan.rows[i]
        if t_ns < row.start_t_ns:
            inbox.plan_due_ns = min(inbox.plan_due_ns, row.start_t_ns)
        elif t_ns < row.end_t_ns and PLAN_NONE < row.source < PLAN_SOURCES:
            inbox.plan_due_ns = min(inbox.plan_due_ns, row.end_t_ns)
            if found[row.source] == NULL or row.start_t_ns >= found[row.source].start_t_ns:
                found[row.source] = row
    inbox.planned.flags = 0
    inbox.planned.charge_w_max = INFINITY
    inbox.planned.discharge_w_max = INFINITY
    inbox.planned.import_w_max = INFINITY
    inbox.planned.export_w_max = INFINITY
    inbox.planned.peak_w_max = INFINITY
    inbox.planned.demand_w_max = INFINITY
    for source in range(PLAN_SOURCES):  # the client's come last and win
        inbox.plan_number[source] = 0
        if found[source] != NULL:
            inbox.plan_number[source] = found[source].number
            merge_row(found[source], &inbox.planned)


cdef void merge_row(const plan_row_t* row, orders_t* planned) noexcept nogil:
    if isfinite(row.setpoint_w):
        planned.flags = (planned.flags & ~<uint32_t>ORDER_FORCED) | ORDER_PLAN
        if row.flags & PLAN_FORCED:
            planned.flags |= ORDER_FORCED
        planned.plan_w = row.setpoint_w
        planned.plan_until_soc = row.until_soc if isfinite(row.until_soc) else NAN
        planned.plan_number = row.number
    if isfinite(row.target_grid_w):
        planned.flags |= ORDER_TARGET
        planned.target_grid_w = row.target_grid_w
    planned.charge_w_max = fmin(planned.charge_w_max, limit_of(row.charge_w_max))
    planned.discharge_w_max = fmin(planned.discharge_w_max, limit_of(row.discharge_w_max))
    planned.import_w_max = fmin(planned.import_w_max, limit_of(row.import_w_max))
    planned.export_w_max = fmin(planned.export_w_max, limit_of(row.export_w_max))
    planned.peak_w_max = fmin(planned.peak_w_max, limit_of(row.peak_w_max))
    planned.demand_w_max = fmin(planned.demand_w_max, limit_of(row.demand_w_max))
    planned.flags |= ORDER_PEAK if isfinite(planned.peak_w_max) else 0
    planned.flags |= ORDER_DEMAND if isfinite(planned.demand_w_max) else 0


cdef inline double limit_of(double value) noexcept nogil:
    return (value if value > 0.0 else 0.0) if isfinite(value) else INFINITY
