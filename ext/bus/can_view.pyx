"""A CAN bus as Python sees it: for the keeper beside the loop, for tests and tools."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from tidegate.ext.bus.can cimport (
    CAN_BUS_ECHO, CAN_QUEUE_MAX, can_bits_end, can_buffer_t, can_bus_init, can_bus_t, can_checksum, can_drain,
    can_frame, can_frame_stats_t, can_inject, can_send_due, can_slot_put, can_slot_take, can_stats_t,
)
from tidegate.ext.safety.safety cimport gate_verdict_t
from tidegate.ext.abi.image cimport IMAGE_LAYOUT_VERSION, POINTS_MAX, QUALITY_NEVER, point_t
from tidegate.ext.abi.program cimport (
    CAN_FIELD_ABS, CAN_FIELD_FLOAT, CAN_FIELD_MUXED, CAN_FIELD_ONE_OF, CAN_FIELD_SENTINEL, CAN_FIELDS_MAX,
    CAN_FRAME_COUNTER, CAN_FRAME_CRC, CAN_FRAME_FD, CAN_FRAME_MUX, CAN_FRAMES_MAX, CAN_TX_HEARTBEAT, CAN_TX_MAX,
    PROGRAM_LAYOUT_VERSION, can_field_row_t, can_frame_row_t, can_tx_row_t, program_t,
)

cdef extern from "<linux/can.h>" nogil:
    const uint32_t CAN_EFF_FLAG

STATE_NAMES = ("active", "warning", "passive", "bus-off", "down")
CRC_NAMES = ("none", "sum-orion", "sum8", "xor8", "crc8-j1850", "crc8-autosar")


cdef dict _bus_stats(const can_bus_t* bus):
    stats = <dict>bus.stats
    stats["state"] = STATE_NAMES[bus.stats.state]
    return stats


cdef class BusHandle:
    """What a thread outside the loop may do with a bus that the loop works on: watch it, hand it a fresh descriptor."""

    @property
    def state(self):
        """Name of the bus state, one of STATE_NAMES."""
        return STATE_NAMES[self.bus.stats.state]

    @property
    def dead(self):
        """True when only a fresh descriptor helps."""
        return bool(self.bus.fd_dead)

    @property
    def stats(self):
        """Counters of the bus, by name."""
        return _bus_stats(self.bus)

    @property
    def ids(self):
        """Counters of each received id of the bus, by the id as candump writes it."""
        cdef const can_frame_row_t* row
        found = {}
        for i in range(self.program.n_can_frames):
            row = &self.program.can_frames[i]
            if row.bus == self.bus.bus:
                number = row.id & 0x1FFFFFFF
                found[f"{number:08X}" if row.id & CAN_EFF_FLAG else f"{number:03X}"] = <dict>self.per_id[i]
        return found

    @property
    def waiting(self):
        """True while a descriptor that was handed over has not been taken by the loop."""
        return self.bus.fd_fresh != 0

    def hand_over(self, int fd):
        """Offer `fd` to the loop, which takes it in its next read phase. False while an earlier one waits."""
        if fd < 0:
            raise ValueError(f"descriptor {fd}: expected an open one")
        return bool(can_slot_put(&self.bus.fd_fresh, fd))

    def retired(self):
        """The descriptor that the loop has let go, to be closed by the caller; None if there is none."""
        fd = can_slot_take(&self.bus.fd_retired)
        return None if fd < 0 else fd

    def set_clock(self, int64_t realtime_offset_ns):
        """Tell the loop CLOCK_REALTIME - CLOCK_MONOTONIC, which turns kernel stamps into its own time."""
        self.bus.realtime_offset_ns = realtime_offset_ns

    def set_echo(self, bint on):
        """Whether the descriptor returns own frames after their transmission."""
        if on:
            self.bus.flags |= CAN_BUS_ECHO
        else:
            self.bus.flags &= ~CAN_BUS_ECHO


cdef BusHandle bus_handle(const program_t* program, can_bus_t* bus, const can_frame_stats_t* per_id, object owner):
    cdef BusHandle handle = BusHandle.__new__(BusHandle)
    handle.program = program
    handle.per_id = per_id
    handle.bus = bus
    handle.owner = owner
    return handle


cdef class Bus:
    """One bus with a program of its own: the loop's CAN phases, called from Python by tests and tools.

    frames : rows {id, extended, fd, len_min, len_max, period_ns, mux (start, length, big_endian),
    counter (start, length, big_endian), crc (name of CRC_NAMES, byte), fields}; fields : rows {point, start, length,
    big_endian, signed, float, abs, mux_value, mask, one_of,
    scale, offset, min, max, sentinel}. tx : rows {id, extended, data,
    period_ns, heartbeat, unit, counter (start, length)}. program : instead of the rows, the bytes of a program_t.
    fd : descriptor to work on, -1 = virtual. cycle_ns : period of the loop. Raises ValueError for rows that do not fit.
    """
    cdef program_t* program
    cdef can_bus_t* bus
    cdef point_t image[POINTS_MAX]
    cdef can_frame_stats_t per_id[CAN_FRAMES_MAX]
    cdef readonly uint32_t n_points

    def __cinit__(self, *args, **kwargs):
        self.program = <program_t*>calloc(1, sizeof(program_t))
        self.bus = <can_bus_t*>calloc(1, sizeof(can_bus_t))
        if self.program == NULL or self.bus == NULL:
            raise MemoryError
        memset(self.per_id, 0, sizeof(self.per_id))

    def __dealloc__(self):
        free(self.program)
        free(self.bus)

    def __init__(self, frames=(), tx=(), *, bytes program=None, int fd=-1, int bus=0, int n_units=1,
                 uint64_t cycle_ns=0):
        if program is not None:
            if len(program) < <Py_ssize_t>sizeof(program_t):
                raise ValueError(f"program has {len(program)} bytes, a program_t {sizeof(program_t)}")
            memcpy(self.program, <const char*>program, sizeof(program_t))
            self.n_points = self.program.n_points
        else:
            self.program.n_units = n_units
            self.program.period_ns = cycle_ns
            for row in frames:
                self._add_frame(row, bus)
            for row in tx:
                self._add_tx(row, bus)
        for i in range(POINTS_MAX):
            self.image[i].value = float("nan")
            self.image[i].t_ns = 0
            self.image[i].quality = QUALITY_NEVER
            self.image[i].changes = 0
        self.bus.fd = fd
        self.bus.bus = bus
        can_bus_init(self.bus, self.program)

    def _add_frame(self, row, int bus):
        cdef program_t* p = self.program
        if p.n_can_frames >= CAN_FRAMES_MAX:
            raise ValueError(f"more than {CAN_FRAMES_MAX} frames")
        cdef can_frame_row_t* r = &p.can_frames[p.n_can_frames]
        r.id = row["id"] | (CAN_EFF_FLAG if row.get("extended") else 0)
        r.bus = bus
        r.len_max = row.get("len_max", 8)
        r.len_min = row.get("len_min", r.len_max)
        r.period_ns = row.get("period_ns", 0)
        if row.get("fd"):
            r.flags |= CAN_FRAME_FD
        if "mux" in row:
            r.flags |= CAN_FRAME_MUX
            r.mux_start, r.mux_length, r.mux_big_endian = row["mux"]
        if "counter" in row:
            r.flags |= CAN_FRAME_COUNTER
            r.counter_start, r.counter_length, r.counter_big_endian = row["counter"]
        if "crc" in row:
            r.flags |= CAN_FRAME_CRC
            r.crc_kind, r.crc_byte = CRC_NAMES.index(row["crc"][0]), row["crc"][1]
        r.field_first = p.n_can_fields
        for field in row.get("fields", ()):
            self._add_field(r, field)
        p.n_can_frames += 1

    cdef _add_field(self, can_frame_row_t* frame, field):
        cdef program_t* p = self.program
        if p.n_can_fields >= CAN_FIELDS_MAX:
            raise ValueError(f"more than {CAN_FIELDS_MAX} fields")
        cdef can_field_row_t* f = &p.can_fields[p.n_can_fields]
        f.point = field["point"]
        f.start = field["start"]
        f.length = field["length"]
        f.big_endian = bool(field.get("big_endian"))
        f.is_signed = bool(field.get("signed"))
        if not 0 <= f.point < POINTS_MAX or not 1 <= f.length <= 64 or f.start >= 512:
            raise ValueError(f"field {field!r} does not fit")
        if can_bits_end(f.start, f.length, f.big_endian) > frame.len_max:
            raise ValueError(f"field {field!r} ends behind byte {frame.len_max} of its frame")
        if "mux_value" in field:
            f.flags |= CAN_FIELD_MUXED
            f.mux_value = field["mux_value"]
        if "sentinel" in field:
            f.flags |= CAN_FIELD_SENTINEL
            f.sentinel = field["sentinel"]
        if "one_of" in field:
            f.flags |= CAN_FIELD_ONE_OF
            f.sentinel = sum(1 << value for value in set(field["one_of"]))
        f.mask = field.get("mask", 0)
        if field.get("float"):
            if f.length not in (32, 64):
                raise ValueError(f"field {field!r}: a float has 32 or 64 bits")
            f.flags |= CAN_FIELD_FLOAT
        if field.get("abs"):
            f.flags |= CAN_FIELD_ABS
        f.scale = field.get("scale", 1.0)
        f.offset = field.get("offset", 0.0)
        f.min = field.get("min", float("-inf"))
        f.max = field.get("max", float("inf"))
        frame.field_count += 1
        p.n_can_fields += 1
        self.n_points = max(self.n_points, <uint32_t>(f.point + 1))

    def _add_tx(self, row, int bus):
        cdef program_t* p = self.program
        if p.n_can_tx >= CAN_TX_MAX:
            raise ValueError(f"more than {CAN_TX_MAX} cyclic frames")
        cdef can_tx_row_t* r = &p.can_tx[p.n_can_tx]
        data = bytes(row["data"])
        r.id = row["id"] | (CAN_EFF_FLAG if row.get("extended") else 0)
        r.bus = bus
        r.len = len(data)
        for i in range(r.len):
            r.data[i] = data[i]
        r.kind = CAN_TX_HEARTBEAT if row.get("heartbeat") else 0
        r.unit = row.get("unit", 0)
        r.period_ns = row["period_ns"]
        r.counter_start, r.counter_length = row.get("counter", (-1, 0))
        p.n_can_tx += 1

    # ---- the phases ----

    def inject(self, uint32_t can_id, bytes data, uint64_t t_ns=0, *, bint extended=False):
        """Put a frame on the virtual bus. False when its queue is full."""
        cdef can_frame frame
        if len(data) > 8:
            raise ValueError(f"{len(data)} bytes: a classic frame has at most 8")
        memset(&frame, 0, sizeof(frame))
        frame.can_id = can_id | (CAN_EFF_FLAG if extended else 0)
        frame.len = len(data)
        memcpy(frame.data, <const char*>data, len(data))
        return can_inject(self.bus, &frame, t_ns) == 0

    def drain(self, uint64_t t_ns):
        """The read phase at `t_ns`: frames taken, or -errno."""
        cdef int n
        with nogil:
            n = can_drain(self.program, self.bus, self.image, self.per_id, t_ns)
        return n

    def send_due(self, uint64_t t_ns, heartbeat_ok=()):
        """The write phase at `t_ns`; heartbeat_ok : one bool a unit. Frames sent, or -errno."""
        cdef gate_verdict_t verdicts[16]
        memset(verdicts, 0, sizeof(verdicts))
        for i, ok in enumerate(heartbeat_ok):
            verdicts[i].heartbeat_ok = bool(ok)
        return can_send_due(self.program, self.bus, verdicts, t_ns)

    def sent(self):
        """Takes what the virtual bus was given: list of (t_ns, id with kernel flags, data)."""
        rows = []
        while self.bus.out_tail != self.bus.out_head:
            slot = self.bus.out_tail % CAN_QUEUE_MAX
            frame = &self.bus.out[slot]
            rows.append((self.bus.out_t_ns[slot], frame.can_id, frame.data[:frame.len]))
            self.bus.out_tail += 1
        return rows

    @property
    def fd(self):
        """Descriptor that the bus works on now, -1 = virtual."""
        return self.bus.fd

    # ---- what came of it ----

    def point(self, int index):
        """(value, t_ns, quality, changes) of one point."""
        if not 0 <= index < POINTS_MAX:
            raise IndexError(f"point {index}: expected 0..{POINTS_MAX - 1}")
        cdef point_t* p = &self.image[index]
        return p.value, p.t_ns, p.quality, p.changes

    def values(self):
        """Values of the points in use, NaN where there was never a reading."""
        return [self.image[i].value for i in range(self.n_points)]

    @property
    def stats(self):
        """Counters of the bus, by name."""
        return _bus_stats(self.bus)

    def frame_stats(self, int row):
        """Counters of the row's identifier, by name."""
        if not 0 <= row < <int>self.program.n_can_frames:
            raise IndexError(f"frame row {row} of {self.program.n_can_frames}")
        return self.per_id[row]

    def accounted(self):
        """Frames that ended in one of the counters; equal to stats["frames"] or a frame was lost in here."""
        cdef can_stats_t* s = &self.bus.stats
        cdef uint64_t total = s.unknown + s.malformed + s.error_frames + s.echoed
        for i in range(self.program.n_can_frames):
            st = &self.per_id[i]
            total += st.count + st.bad_length + st.crc_errors + st.counter_errors + st.repeated
        return total

    def handle(self):
        return bus_handle(self.program, self.bus, self.per_id, self)

    def spin(self, uint64_t cycles, uint64_t t_ns):
        """`cycles` idle read and write phases 1 ms apart, for the benchmark."""
        cdef uint64_t i
        with nogil:
            for i in range(cycles):
                can_drain(self.program, self.bus, self.image, self.per_id, t_ns)
                can_send_due(self.program, self.bus, NULL, t_ns)

    def checksum(self, str kind, uint32_t can_id, bytes data, uint32_t skip):
        """Checksum of a frame, leaving out byte `skip`."""
        cdef can_buffer_t frame
        memset(&frame, 0, sizeof(frame))
        frame.can_id = can_id
        frame.len = len(data)
        memcpy(frame.data, <const char*>data, min(len(data), 64))
        return can_checksum(CRC_NAMES.index(kind), &frame, skip)


def layout():
    """Sizes and versions that this module was compiled with."""
    return {
        "IMAGE_LAYOUT_VERSION": IMAGE_LAYOUT_VERSION,
        "PROGRAM_LAYOUT_VERSION": PROGRAM_LAYOUT_VERSION,
        "POINTS_MAX": POINTS_MAX,
        "point_t": sizeof(point_t),
        "program_t": sizeof(program_t),
        "gate_verdict_t": sizeof(gate_verdict_t),
        "can_bus_t": sizeof(can_bus_t),
        "can_frame_stats_t": sizeof(can_frame_stats_t),
    }
