"""Python's view of the memory that the core shares with the gateway.

One writer each: the core writes everything but the mailbox, which is the gateway's, and `guard`, which is the
supervisor's. Reading never disturbs the writer; a reader that lost a race tries again.
"""
import collections
import fcntl
import json
import os
from enum import IntEnum

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.math cimport NAN
from libc.string cimport memcpy, memset
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

from tidegate.ext.abi.copies cimport Histogram, Picture, histogram_of, picture_of
from tidegate.ext.abi.settings cimport POLICIES
from tidegate.ext.abi.image cimport IMAGE_LAYOUT_VERSION, QUALITY_NEVER

from tidegate.ext.abi.settings import POLICY_NAMES_BY_NUMBER

GUARD_NAMES = ("gone", "stalled", "late", "priority-lost", "unlocked")  # of enum guard_cause
GuardCause = IntEnum("GuardCause", {
    "GONE": GUARD_GONE, "STALLED": GUARD_STALLED, "LATE": GUARD_LATE, "PRIORITY": GUARD_PRIORITY,
    "UNLOCKED": GUARD_UNLOCKED,
}, module=__name__)
Escalation = IntEnum("Escalation", {
    "NONE": ESCALATION_NONE, "DERATE": ESCALATION_DERATE, "SAFE": ESCALATION_SAFE, "SILENT": ESCALATION_SILENT,
}, module=__name__)
ESCALATION_NAMES = tuple(step.name.lower() for step in Escalation)
PHASE_NAMES = ("read", "estimate", "control", "limit", "write", "publish")
EVENT_NAMES = (
    "", "start", "mode", "reason", "fault_on", "fault_off", "command", "overrun", "bus", "stop", "shortfall", "latch",
    "source", "plan", "unenforced", "hunting", "billing", "clock", "reconnect",
    "meter", "island", "genset",
)
# Words of enum bus_state, and of which list of the description `value` is the number.
BUS_STATES = (
    ("active", "can"), ("error warning", "can"), ("error passive", "can"), ("bus-off", "can"), ("down", "can"),
    ("open", "ports"), ("lost", "ports"), ("answers", "devices"), ("silent", "devices"), ("another device", "devices"),
)
ORDER_NAMES = (
    "mode", "setpoint_w", "import_w_max", "export_w_max", "ack", "arm", "manual_w", "stop", "operator_import_w_max",
    "operator_export_w_max", "operator_stop", "window",
)
CLOCK_NAMES = ("", "moved", "synced", "free")
RECONNECT_NAMES = ("done", "lost", "waiting", "rising")
ISLAND_NAMES = ("grid", "dark", "genset", "forming", "genset missing")
OrderKind = IntEnum("OrderKind", {
    "MODE": ORDER_MODE, "SETPOINT_W": ORDER_SETPOINT_W, "IMPORT_W_MAX": ORDER_IMPORT_W_MAX,
    "EXPORT_W_MAX": ORDER_EXPORT_W_MAX, "ACK": ORDER_ACK, "ARM": ORDER_ARM, "MANUAL_W": ORDER_MANUAL_W,
    "STOP": ORDER_STOP,
    "OPERATOR_IMPORT_W_MAX": ORDER_OPERATOR_IMPORT_W_MAX, "OPERATOR_EXPORT_W_MAX": ORDER_OPERATOR_EXPORT_W_MAX,
    "OPERATOR_STOP": ORDER_OPERATOR_STOP, "WINDOW": ORDER_WINDOW,
    "POLICY": ORDER_POLICY,
}, module=__name__)
OrderMode = IntEnum("OrderMode", {"RUN": ORDER_MODE_RUN, "STOP": ORDER_MODE_STOP}, module=__name__)
ORDER_POLICY_FIRST = ORDER_POLICY  # order kind of the first policy; the others follow in the order of the names
UNENFORCED_NAMES = (
    "enforced", "stopped", "blind", "no unit", "no reading", "widened", "short", "overruled", "exceeded",
)
PLAN_SOURCE_NAMES = ("none", "calendar", "client")
PlanSource = IntEnum("PlanSource", {"NONE": PLAN_NONE, "CALENDAR": PLAN_CALENDAR, "CLIENT": PLAN_CLIENT}, module=__name__)
PLAN_ROWS_MAX = PLAN_ROWS
PLAN_FIELDS = (
    "setpoint_w", "until_soc", "target_grid_w", "import_w_max", "export_w_max", "peak_w_max", "demand_w_max", "charge_w_max",
    "discharge_w_max",
)
SNAPSHOTS_KEPT = SNAPSHOT_SLOTS
METERS_KEPT = METER_SLOTS
EVENTS_KEPT = EVENT_SLOTS
SHARED_SIZE = sizeof(shared_t)

cdef enum:
    TRIES = 1000  # a copy takes under a microsecond; a writer that never finishes is dead

Event = collections.namedtuple(
    "Event", "number cycle t_ns kind unit code previous value limit changes lasted_s"
)
Order = collections.namedtuple("Order", "seq value expires_t_ns request")
PlanRow = collections.namedtuple("PlanRow", "start_t_ns end_t_ns source number forced values")
Plan = collections.namedtuple("Plan", "rows billing_end_t_ns billing_number paid_w clock")


class Overwritten(LookupError):
    """The ring has gone round: what was asked for is lost, `oldest` is the first that may still be there."""

    def __init__(self, what, number, oldest):
        super().__init__(f"{what} {number} is overwritten; the oldest kept is {oldest}")
        self.oldest = oldest


def order_name(kind):
    """What an order of this kind is about."""
    if kind < len(ORDER_NAMES):
        return ORDER_NAMES[kind]
    first = ORDER_POLICY_FIRST
    return POLICY_NAMES_BY_NUMBER[kind - first] if first <= kind < first + POLICIES else f"kind {kind}"


cdef class Shared:
    """One mapping of the shared memory.

    fd : descriptor of the memory, at least SHARED_SIZE bytes; may be closed afterwards.
    Raises ValueError when the memory is not Tidegate's or was laid out by another version.
    """

    def __cinit__(self, int fd, bint writable=True):
        self.ptr = NULL
        size = os.fstat(fd).st_size
        if size < <Py_ssize_t>sizeof(shared_t):
            raise ValueError(f"shared memory has {size} bytes, this version needs {sizeof(shared_t)}")
        cdef void* where = mmap(
            NULL, sizeof(shared_t), PROT_READ | (PROT_WRITE if writable else 0), MAP_SHARED, fd, 0
        )
        if where == MAP_FAILED:
            raise OSError("cannot map the shared memory")
        self.ptr = <shared_t*>where
        self.writable = writable

    def __init__(self, int fd, bint writable=True):
        cdef shared_t* s = self.ptr
        for name, came, expected in (
            ("magic", s.magic, SHARED_MAGIC),
            ("layout version", s.layout_version, SHARED_LAYOUT_VERSION),
            ("image version", s.image_version, IMAGE_LAYOUT_VERSION),
            ("size", s.size, sizeof(shared_t)),
        ):
            if came != expected:
                raise ValueError(
                    f"shared memory: {name} is {came}, this version expects {expected}; "
                    "core and gateway must be of one release"
                )

    def __dealloc__(self):
        if self.ptr != NULL:
            munmap(self.ptr, sizeof(shared_t))

    @staticmethod
    def create(int fd):
        """Size and clear the memory behind `fd`, write its head, and map it."""
        os.ftruncate(fd, 0)
        os.ftruncate(fd, sizeof(shared_t))  # all zero
        cdef Shared fresh = Shared.__new__(Shared, fd)
        cdef shared_t* s = fresh.ptr
        for i in range(POINTS_MAX):
            s.image[i].value = NAN
            s.image[i].quality = QUALITY_NEVER
        s.layout_version = SHARED_LAYOUT_VERSION
        s.image_version = IMAGE_LAYOUT_VERSION
        s.size = sizeof(shared_t)
        s.magic = SHARED_MAGIC
        return fresh

    @staticmethod
    def memfd(str name="tidegate"):
        """(mapping, fd) of fresh anonymous memory; hand the fd down to core and gateway."""
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            shared = Shared.create(fd)
            # Whoever cut it short would end each process that has it mapped, the core first, by SIGBUS.
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            return shared, fd
        except BaseException:
            os.close(fd)
            raise

    # ---- head ----

    def set_head(self, *, bytes boot_id, bytes program_sha256, uint64_t t_start_ns, int64_t utc_offset_ns,
                 uint32_t n_points, uint32_t n_units, int core_pid):
        """What the core says about itself before its first cycle."""
        if len(boot_id) != 16 or len(program_sha256) != 32:
            raise ValueError("boot_id has 16 bytes, program_sha256 has 32")
        if n_points > POINTS_MAX or n_units > UNITS_MAX:
            raise ValueError(f"{n_points} points and {n_units} units: at most {POINTS_MAX} and {UNITS_MAX}")
        self._must_write()
        memcpy(self.ptr.boot_id, PyBytes_AS_STRING(boot_id), 16)
        memcpy(self.ptr.program_sha256, PyBytes_AS_STRING(program_sha256), 32)
        self.ptr.t_start_ns = t_start_ns
        self.ptr.utc_offset_ns = utc_offset_ns
        self.ptr.n_points = n_points
        self.ptr.n_units = n_units
        self.ptr.core_pid = core_pid

    @property
    def latches(self):
        """(changes so far, latched rows of each unit as bits, first-out row of each unit)."""
        while True:  # the loop writes them in between at most once a cycle
            changes = shared_load64(&self.ptr.latch_changes)
            bits = [int(self.ptr.latches[i].lo) | int(self.ptr.latches[i].hi) << 64 for i in range(<int>self.ptr.n_units)]
            first = [self.ptr.latch_first[i] for i in range(<int>self.ptr.n_units)]
            if shared_load64(&self.ptr.latch_changes) == changes:
                return changes, bits, first

    @property
    def latch_changes(self):
        return shared_load64(&self.ptr.latch_changes)

    @property
    def latch_kept(self):
        """How many of these changes are on disk."""
        return shared_load64(&self.ptr.latch_kept)

    def latches_are_kept(self, uint64_t changes):
        """Say that the first `changes` changes of the latches are on disk."""
        self._must_write()
        shared_store64(&self.ptr.latch_kept, changes)

    @property
    def boot_id(self):
        return PyBytes_FromStringAndSize(<const char*>self.ptr.boot_id, 16)

    @property
    def program_sha256(self):
        return PyBytes_FromStringAndSize(<const char*>self.ptr.program_sha256, 32)

    @property
    def t_start_ns(self):
        return self.ptr.t_start_ns

    @property
    def utc_offset_ns(self):
        return self.ptr.utc_offset_ns

    @property
    def n_points(self):
        return self.ptr.n_points

    @property
    def n_units(self):
        return self.ptr.n_units

    @property
    def core_pid(self):
        return self.ptr.core_pid

    @property
    def running(self):
        return bool(shared_load32(&self.ptr.running))

    @property
    def proof(self):
        return shared_load64(&self.ptr.proof)

    @property
    def cycle(self):
        return shared_load64(&self.ptr.cycle)

    def life(self):
        """(running, cycle, t_ns of its start, proof, escalation): what tells a living loop from a process that is there."""
        return (
            bool(shared_load32(&self.ptr.running)),
            shared_load64(&self.ptr.cycle),
            shared_load64(&self.ptr.t_ns),
            shared_load64(&self.ptr.proof),
            shared_load32(&self.ptr.loop.escalation),
        )

    def put_grants(self, *, int loop_tid, uint32_t fifo, bint locked):
        """Say which thread is the loop, and what the kernel gave it: FIFO priority (0 = none), locked memory."""
        self._must_write()
        self.ptr.loop.fifo = fifo
        self.ptr.loop.locked = locked
        self.ptr.loop_tid = loop_tid

    @property
    def loop_tid(self):
        return self.ptr.loop_tid

    def put_guard(self, *, uint64_t looks, uint64_t fed_systemd, uint64_t fed_device, times, uint64_t longest_ns,
                  uint32_t holding):
        """Leave what the supervisor saw from outside; times: one count a name of GUARD_NAMES."""
        self._must_write()
        for i in range(GUARD_CAUSES):
            shared_store64(&self.ptr.guard.times[i], times[i])
        self.ptr.guard.fed_systemd = fed_systemd
        self.ptr.guard.fed_device = fed_device
        self.ptr.guard.longest_ns = longest_ns
        self.ptr.guard.holding = holding
        shared_store64(&self.ptr.guard.looks, looks)

    def guard(self):
        """What the supervisor saw from outside; looks is 0 where nobody looks."""
        return {
            "looks": shared_load64(&self.ptr.guard.looks),
            "fed_systemd": self.ptr.guard.fed_systemd,
            "fed_device": self.ptr.guard.fed_device,
            "longest_ns": self.ptr.guard.longest_ns,
            "times": {name: shared_load64(&self.ptr.guard.times[i]) for i, name in enumerate(GUARD_NAMES)},
            "holding": [name for i, name in enumerate(GUARD_NAMES) if self.ptr.guard.holding & 1 << i],
        }

    # ---- image and rings ----

    def read_image(self):
        """The newest whole picture of all points, or None if no whole one could be had (the writer died in it)."""
        cdef point_t rows[POINTS_MAX]
        cdef uint64_t cycle = 0, t_ns = 0
        for _ in range(TRIES):
            if image_copy(self.ptr, rows, &cycle, &t_ns):
                return picture_of(cycle, cycle, t_ns, rows, self.ptr.n_points)
        return None

    @property
    def snapshot_head(self):
        """Snapshots written so far; the next one has this number."""
        return shared_load64(&self.ptr.snapshot_head)

    @property
    def meter_head(self):
        return shared_load64(&self.ptr.meter_head)

    @property
    def event_head(self):
        return shared_load64(&self.ptr.event_head)

    def next_snapshot(self, uint64_t number):
        """Snapshot `number`, or None if it is not there yet. Raises Overwritten if it is lost."""
        return self._ring(self.ptr.snapshots, SNAPSHOT_SLOTS, &self.ptr.snapshot_head, "snapshot", number)

    def next_meter(self, uint64_t number):
        """Meter picture `number`, or None if it is not there yet. Raises Overwritten if it is lost."""
        return self._ring(self.ptr.meters, METER_SLOTS, &self.ptr.meter_head, "meter record", number)

    cdef _ring(self, const snapshot_t* ring, uint32_t slots, const uint64_t* head, str what, uint64_t number):
        cdef snapshot_t copy
        cdef uint64_t written
        cdef int got = snapshot_read(ring, slots, head, number, self.ptr.n_points, &copy)
        if got == 0:
            return None
        if got == 1:
            return picture_of(number, copy.cycle, copy.t_ns, copy.points, self.ptr.n_points)
        written = shared_load64(head)
        raise Overwritten(what, number, written - slots + 1 if written >= slots else 0)

    def next_event(self, uint64_t number):
        """Event `number`, or None if it is not there yet. Raises Overwritten if it is lost."""
        cdef event_t event
        cdef uint64_t written
        cdef int got = event_read(self.ptr, number, &event)
        if got == 0:
            return None
        if got == 1:
            return Event(number, event.cycle, event.t_ns, event.kind, event.unit, event.code, event.previous,
                         event.value, event.limit, event.changes, event.lasted_s)
        written = shared_load64(&self.ptr.event_head)
        raise Overwritten("event", number, written - EVENT_SLOTS + 1 if written >= EVENT_SLOTS else 0)

    # ---- mailbox ----

    def put_order(self, int kind, double value, uint64_t expires_t_ns, uint64_t request):
        """Leave an order for the core; the newest counts. Returns its seq, which `applied` shows once acted upon.

        kind : index into ORDER_NAMES. expires_t_ns : CLOCK_MONOTONIC at which it ends by itself, 0 takes it back.
        """
        if not 0 <= kind < ORDERS:
            raise ValueError(f"order kind {kind}: expected 0..{ORDERS - 1}")
        if not value - value == 0.0:
            raise ValueError(f"order {order_name(kind)}: {value} is not a number that can be ordered")
        self._must_write()
        order_put(&self.ptr.mailbox[kind], value, expires_t_ns, request)
        return self.ptr.mailbox[kind].seq

    def order(self, int kind):
        """The order that lies in the mailbox."""
        if not 0 <= kind < ORDERS:
            raise ValueError(f"order kind {kind}: expected 0..{ORDERS - 1}")
        cdef order_t order
        for _ in range(TRIES):
            if order_get(&self.ptr.mailbox[kind], &order):
                return Order(order.seq, order.value, order.expires_t_ns, order.request)
        return None

    def applied(self, int kind):
        """seq of the order of this kind that the last cycle acted on, 0 = none."""
        if not 0 <= kind < ORDERS:
            raise ValueError(f"order kind {kind}: expected 0..{ORDERS - 1}")
        return shared_load64(&self.ptr.applied_seq[kind])

    # ---- the plan ----

    def put_plan(self, rows, *, uint64_t billing_end_t_ns=0, uint64_t billing_number=0, double paid_w=0.0,
                 clock=(0, 0, 0)):
        """Leave the spans of calendar and clients for the core, all at once. Returns the plan's seq.

        rows : PlanRow each; values : a map of PLAN_FIELDS, what is missing is not given. At most PLAN_ROWS_MAX.
        billing_end_t_ns : CLOCK_MONOTONIC at which the billing period `billing_number` ends, 0 = it does not;
                           paid_w : its highest demand window so far.
        clock : (the site's wall clock - CLOCK_MONOTONIC, CLOCK_MONOTONIC at which the zone's clocks change next, what the
                first is then), ns; 0 = not given, they do not.
        Raises ValueError for a span that ends before it begins, a source or a field that does not exist, a value that
        is no number, a number of 0.
        """
        cdef plan_t plan
        cdef plan_row_t* row
        memset(&plan, 0, sizeof(plan))
        if len(rows) > PLAN_ROWS:
            raise ValueError(f"plan: {len(rows)} spans, at most {PLAN_ROWS}")
        for i, given in enumerate(rows):
            row = &plan.rows[i]
            if not 0 < given.start_t_ns < given.end_t_ns:
                raise ValueError(f"plan: span {i} ends at {given.end_t_ns} ns and starts at {given.start_t_ns} ns")
            if not PLAN_NONE < given.source < PLAN_SOURCES or given.number <= 0:
                raise ValueError(f"plan: span {i} has source {given.source} and number {given.number}")
            unknown = set(given.values) - set(PLAN_FIELDS)
            if unknown:
                raise ValueError(f"plan: no field {unknown.pop()!r}; known: {', '.join(PLAN_FIELDS)}")
            for name, value in given.values.items():
                if not value - value == 0.0:
                    raise ValueError(f"plan: span {i}: {name} is {value}, expected a finite number")
            row.start_t_ns = given.start_t_ns
            row.end_t_ns = given.end_t_ns
            row.source = given.source
            row.number = given.number
            row.flags = PLAN_FORCED if given.forced else 0
            found = [given.values.get(name, NAN) for name in PLAN_FIELDS]
            (row.setpoint_w, row.until_soc, row.target_grid_w, row.import_w_max, row.export_w_max, row.peak_w_max,
             row.demand_w_max, row.charge_w_max, row.discharge_w_max) = found
        plan.count = len(rows)
        plan.clock_offset_ns, plan.clock_next_t_ns, plan.clock_next_offset_ns = clock
        plan.billing_end_t_ns = billing_end_t_ns
        plan.billing_number = billing_number
        plan.paid_w = paid_w
        self._must_write()
        plan_put(&self.ptr.plan, &plan)
        return self.ptr.plan.seq

    def plan(self):
        """The plan that lies there, or None while a writer that died has left it half written."""
        cdef plan_t plan
        for _ in range(TRIES):
            if plan_get(&self.ptr.plan, &plan):
                rows = []
                for i in range(min(plan.count, <uint32_t>PLAN_ROWS)):
                    values = dict(zip(PLAN_FIELDS, (
                        plan.rows[i].setpoint_w, plan.rows[i].until_soc, plan.rows[i].target_grid_w,
                        plan.rows[i].import_w_max, plan.rows[i].export_w_max, plan.rows[i].peak_w_max,
                        plan.rows[i].demand_w_max, plan.rows[i].charge_w_max, plan.rows[i].discharge_w_max)))
                    rows.append(PlanRow(
                        plan.rows[i].start_t_ns, plan.rows[i].end_t_ns, plan.rows[i].source, plan.rows[i].number,
                        bool(plan.rows[i].flags & PLAN_FORCED), {k: v for k, v in values.items() if v == v}))
                return Plan(tuple(rows), plan.billing_end_t_ns, plan.billing_number, plan.paid_w,
                            (plan.clock_offset_ns, plan.clock_next_t_ns, plan.clock_next_offset_ns))
        return None

    @property
    def plan_applied(self):
        """seq of the plan that the last cycle acted on."""
        return shared_load64(&self.ptr.plan_applied_seq)

    # ---- the loop's own statistics ----

    def histogram(self, str name):
        """Copy of one histogram: "lateness", "work", or a name of PHASE_NAMES."""
        if name == "lateness":
            return histogram_of(&self.ptr.loop.lateness)
        if name == "work":
            return histogram_of(&self.ptr.loop.work)
        if name not in PHASE_NAMES:
            raise ValueError(f"histogram {name!r}: expected lateness, work or one of {', '.join(PHASE_NAMES)}")
        return histogram_of(&self.ptr.loop.phase[<int>PHASE_NAMES.index(name)])

    def loop_counters(self):
        """Cycles, misses, page faults and what the loop really got from the kernel."""
        cdef loop_stats_t* loop = &self.ptr.loop
        return {
            "cycles": loop.cycles,
            "missed": loop.missed,
            "skipped": loop.skipped,
            "overruns": loop.overruns,
            "longest_miss": loop.longest_miss,
            "minor_faults": loop.minor_faults,
            "major_faults": loop.major_faults,
            "involuntary_switches": loop.involuntary_switches,
            "fifo": loop.fifo,
            "locked": loop.locked,
            "leaky_bucket": loop.leaky_bucket,
            "escalation": loop.escalation,
        }

    def loop_stats(self):
        """loop_counters plus the summary of every histogram, ns."""
        stats = self.loop_counters()
        for name in ("lateness", "work", *PHASE_NAMES):
            stats[f"{name}_ns"] = self.histogram(name).summary()
        return stats

    # ---- buses and ports ----

    def put_buses(self, dict report):
        """Leave the counters of buses and ports for people; for a thread of the core beside the loop.

        Raises ValueError when the report is longer than BUSES_SIZE bytes of JSON.
        """
        cdef bytes text = json.dumps(report, separators=(",", ":")).encode()
        if len(text) > <Py_ssize_t>BUSES_SIZE:
            raise ValueError(f"bus report of {len(text)} bytes: at most {BUSES_SIZE}")
        self._must_write()
        buses_put(self.ptr, PyBytes_AS_STRING(text), len(text))

    def buses(self):
        """Counters of buses and ports as the core last left them; None while there are none."""
        cdef bytes text = PyBytes_FromStringAndSize(NULL, BUSES_SIZE)
        cdef uint32_t size
        for _ in range(TRIES):
            size = buses_get(self.ptr, PyBytes_AS_STRING(text))
            if size:
                return json.loads(text[:size])
        return None

    cdef int _must_write(self) except -1:
        if not self.writable:
            raise PermissionError("the shared memory is mapped for reading only")
        return 0


cdef class Writer(Shared):
    """The core's side from Python, for tests and tools; the core itself writes from C."""

    @staticmethod
    def create(int fd):
        Shared.create(fd)
        return Writer(fd)

    @staticmethod
    def memfd(str name="tidegate-test"):
        fd = os.memfd_create(name)
        return Writer.create(fd), fd

    cdef uint32_t _rows(self, points, point_t* rows) except? 0xFFFFFFFF:
        cdef uint32_t n = self.ptr.n_points
        if len(points) != <Py_ssize_t>n:
            raise ValueError(f"{len(points)} points, the head says {n}")
        for i, (value, t_ns, quality, changes) in enumerate(points):
            rows[i].value = value
            rows[i].t_ns = t_ns
            rows[i].quality = quality
            rows[i].changes = changes
        return n

    def write_image(self, uint64_t cycle, uint64_t t_ns, points):
        """points : n_points times (value, t_ns, quality, changes)."""
        cdef point_t rows[POINTS_MAX]
        cdef uint32_t n = self._rows(points, rows)
        image_begin(self.ptr)
        memcpy(self.ptr.image, rows, n * sizeof(point_t))
        self.ptr.cycle = cycle
        self.ptr.t_ns = t_ns
        image_end(self.ptr)

    def leave_image_half_written(self):
        """As a core killed in the middle of publishing would."""
        image_begin(self.ptr)

    def leave_slot_half_written(self, str ring):
        """As a core that is just writing the next picture ("snapshot", "meter") or event would."""
        if ring == "event":
            self.ptr.events[self.ptr.event_head & (EVENT_SLOTS - 1)].seq = 0
        elif ring == "meter":
            self.ptr.meters[self.ptr.meter_head & (METER_SLOTS - 1)].seq = 0
        else:
            self.ptr.snapshots[self.ptr.snapshot_head & (SNAPSHOT_SLOTS - 1)].seq = 0

    def leave_order_half_written(self, int kind):
        """As a gateway killed in the middle of an order would."""
        self.ptr.mailbox[kind].seq += 1

    def push_snapshot(self, uint64_t cycle, uint64_t t_ns, points):
        cdef point_t rows[POINTS_MAX]
        cdef uint32_t n = self._rows(points, rows)
        snapshot_push(self.ptr.snapshots, SNAPSHOT_SLOTS, &self.ptr.snapshot_head, rows, n, cycle, t_ns)

    def push_meter(self, uint64_t cycle, uint64_t t_ns, points):
        cdef point_t rows[POINTS_MAX]
        cdef uint32_t n = self._rows(points, rows)
        snapshot_push(self.ptr.meters, METER_SLOTS, &self.ptr.meter_head, rows, n, cycle, t_ns)

    def push_event(self, uint64_t cycle, uint64_t t_ns, uint32_t kind, *, int unit=-1, int code=0, int previous=0,
                   double value=0.0, double limit=0.0, uint32_t changes=1, double lasted_s=0.0):
        cdef event_t event
        memset(&event, 0, sizeof(event))
        event.cycle = cycle
        event.t_ns = t_ns
        event.kind = kind
        event.unit = unit
        event.code = code
        event.previous = previous
        event.value = value
        event.limit = limit
        event.changes = changes
        event.lasted_s = lasted_s
        event_push(self.ptr, &event)

    def apply_plan(self):
        """Act on the plan, as the core's next cycle would."""
        shared_store64(&self.ptr.plan_applied_seq, self.ptr.plan.seq)

    def apply(self, int kind):
        """Act on the order of this kind, as the core's next cycle would."""
        order = self.order(kind)
        shared_store64(&self.ptr.applied_seq[kind], order.seq)
        return order

    def advance(self, *, bint running=True, uint64_t proof=0):
        self.ptr.running = running
        self.ptr.proof = proof

    def add(self, str name, uint64_t ns):
        """Add one duration to a histogram."""
        if name == "lateness":
            histogram_add(&self.ptr.loop.lateness, ns)
        elif name == "work":
            histogram_add(&self.ptr.loop.work, ns)
        else:
            histogram_add(&self.ptr.loop.phase[<int>PHASE_NAMES.index(name)], ns)


def layout():
    """Sizes and versions that this module was compiled with."""
    return {
        "IMAGE_LAYOUT_VERSION": IMAGE_LAYOUT_VERSION,
        "SHARED_LAYOUT_VERSION": SHARED_LAYOUT_VERSION,
        "POINTS_MAX": POINTS_MAX,
        "UNITS_MAX": UNITS_MAX,
        "point_t": sizeof(point_t),
        "integral_t": sizeof(integral_t),
        "shared_t": sizeof(shared_t),
        "snapshot_t": sizeof(snapshot_t),
        "event_t": sizeof(event_t),
        "order_t": sizeof(order_t),
        "plan_t": sizeof(plan_t),
        "histogram_t": sizeof(histogram_t),
        "loop_stats_t": sizeof(loop_stats_t),
        "guard_t": sizeof(guard_t),
    }
