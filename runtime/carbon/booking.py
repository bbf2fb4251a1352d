"""Energy per UTC-aligned quarter hour from meter records.

The meters' registers are the truth: the energy of a period is the difference of two readings, split at the boundary.
The core's monotone integrals (W s) give shape, bridge what a register cannot say (no register, exchange, stuck,
unbelievable reading) and are compared with it. Two counters a flow keep this honest: what the register says since the
start, and what has been booked. What was bridged is set off when the register speaks again, so a sum over time is the
register's.

`Booker` is pure: it is fed records and gives closed periods; it reads no clock and no file. Monotonic time measures,
UTC labels. Its whole state is one dictionary of plain values, so that it can be stored with the periods that it gave.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

PERIOD_S = 900
KINDS = ("import", "export", "generation", "charge", "discharge", "load")

GAP_S = 5.0  # neighbouring readings further apart have lost their shape
LIKE_DAY_S = 7200.0  # longer gaps take the shape of a like day, where there is one
SILENT_S = 60.0  # a register that says nothing for longer is bridged by the integral
CONFIRM = 3  # readings that must agree before a jump is taken for a new meter
CLOCK_STEP_NS = 1_000_000_000
BELIEVABLE_UTC_NS = 1_704_067_200_000_000_000  # 2024-01-01: an unsynchronised clock before is not a clock
HELD_MAX = 4096  # records kept while the time is unknown
GRACE_S = 900  # how long a period waits for a meter that is silent
W_MAX = 1_000_000.0  # plausible power where the site file has none
DISAGREE_PPM = 30_000
DISAGREE_MWH = 100_000
STUCK_MWH = 200_000

GOOD, ESTIMATED, SUBSTITUTED, EDITED, BAD, MISSING = "good", "estimated", "substituted", "edited", "bad", "missing"
QUALITY_ORDER = (GOOD, ESTIMATED, SUBSTITUTED, EDITED, BAD, MISSING)


@dataclass(frozen=True, slots=True)
class Flow:
    """One direction of energy at one node, and where its numbers come from.

    name : "grid.import"; node : "grid"; kind : one of KINDS.
    register : point in Wh, or None; integral, covered : points in W s and s, or None.
    register_sign : +1, or -1 where the register counts down with this flow.
    w_max : plausible power; a register that runs faster is not believed.
    """

    name: str
    node: str
    kind: str
    register: str | None = None
    integral: str | None = None
    covered: str | None = None
    w_max: float = W_MAX
    rollover_mwh: int = 0  # register range, 0 = not known

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"flow {self.name}: kind {self.kind!r}, expected one of {', '.join(KINDS)}")
        if self.register is None and self.integral is None:
            raise ValueError(f"flow {self.name}: needs a register or an integral")


@dataclass(slots=True)
class FlowPeriod:
    """Energy of one flow in one period."""

    mwh: int
    quality: str
    method: str
    flags: list[str]
    opening_mwh: int | None  # register reading first used in the period
    closing_mwh: int | None
    integral_mwh: int | None  # what the fast power says, for comparison
    covered_s: float  # time with a reading not further apart than GAP_S


@dataclass(slots=True)
class BookedPeriod:
    """One closed period of all flows."""

    start_utc_s: int
    length_s: int
    flows: dict[str, FlowPeriod]
    flags: list[str]
    records: int
    lost: int  # records that never came; the registers bridge them
    soc_ppm: int | None  # state of charge at the end, where one is known
    utc_sync: str  # worst of the period


@dataclass(slots=True)
class _Counter:
    """What is known of one flow. Energies in mWh."""

    label_ns: int = -1  # UTC label up to which energy is booked
    seen_ns: int = -1  # UTC label of the last reading
    register: int | None = None  # last believed reading
    truth: int = 0  # what the register says since the start
    bridge: int = 0  # what the integral says while the register says nothing believable
    booked: int = 0  # what has been booked since the start
    integral_ws: float | None = None
    covered_s: float = 0.0
    candidate: int | None = None  # a reading that is not believed yet
    candidate_label_ns: int = 0
    candidate_count: int = 0
    moved_ns: int = -1  # label at which the register last moved
    watts: float = 0.0  # of the last step, to bridge what is not covered at all
    rest: float = 0.0
    # of the open period
    mwh: int = 0
    by_integral: float = 0.0
    pending: float = 0.0  # integral since the label, not yet in a period
    seconds: float = 0.0
    opening: int | None = None
    quality: int = 0
    method: str = "register"
    gap_method: str = "register over flat shape"
    flags: list[str] = field(default_factory=list)
    like_day: dict[str, int] = field(default_factory=dict)

    def mark(self, quality: str, method: str | None = None, flag: str | None = None) -> None:
        rank = QUALITY_ORDER.index(quality)
        if rank > self.quality:
            self.quality = rank
            if method is not None:
                self.method = method
        if flag is not None and flag not in self.flags:
            self.flags.append(flag)


def _day_key(start_s: int) -> str:
    weekday = (start_s // 86400 + 4) % 7  # 1970-01-01 was a Thursday; 0 = Sunday
    return f"{'weekend' if weekday in (0, 6) else 'weekday'} {start_s % 86400}"


class Booker:
    """Turns meter records into closed periods, one record at a time.

    flows : the site's flows; names must differ.
    period_s : 900, or a divisor of it for finer books.
    Raises ValueError for a period that does not divide an hour.
    """

    def __init__(self, flows: Sequence[Flow], period_s: int = PERIOD_S, state: Mapping[str, Any] | None = None) -> None:
        if period_s <= 0 or 3600 % period_s:
            raise ValueError(f"period {period_s} s: must divide an hour")
        if len({flow.name for flow in flows}) != len(flows):
            raise ValueError("two flows have one name")
        self.flows = tuple(flows)
        self.period_s = period_s
        self._period_ns = period_s * 1_000_000_000
        self._counters = {flow.name: _Counter() for flow in flows}
        self._pairs = [(flow, self._counters[flow.name]) for flow in flows]
        for flow, counter in self._pairs:
            if flow.register is None:
                counter.method = "integral"
        self._end_ns = -1  # of the open period
        self._first = True  # the open period began before the first record
        self._boot: str | None = None
        self._seq = -1
        self._t_ns = 0
        self._utc_ns = 0
        self._label_ns = -1
        self._flags: list[str] = []
        self._records = 0
        self._lost = 0
        self._soc: float | None = None
        self._soc_point = "soc"
        self._sync = "S"
        self._held: list[dict[str, Any]] = []
        self._held_step = 1
        if state is not None:
            self._restore(state)

    # ---- state ----

    @property
    def cursor(self) -> tuple[str, int] | None:
        """(boot, seq) of the last record taken in; None before the first.

        While records are held for want of a clock the cursor stays before them: they are asked for again after a crash.
        """
        if self._held:
            head = self._held[0]
            return (head["boot"], head["seq"] - 1)
        return None if self._boot is None else (self._boot, self._seq)

    def state(self) -> dict[str, Any]:
        """Everything that a later Booker needs to go on, as plain values."""
        own = {name: getattr(self, name) for name in _STATE}
        own["counters"] = {
            name: {key: getattr(counter, key) for key in _Counter.__slots__} for name, counter in self._counters.items()
        }
        if self._held:
            cursor = self.cursor
            assert cursor is not None
            own["_boot"], own["_seq"] = cursor
        return own

    def _restore(self, state: Mapping[str, Any]) -> None:
        for name in _STATE:
            value = state[name]
            setattr(self, name, list(value) if isinstance(value, list) else value)
        for name, values in state["counters"].items():
            counter = self._counters.get(name)
            if counter is None:
                continue  # the flow has left the site file
            for key, value in values.items():
                setattr(counter, key, value.copy() if isinstance(value, (list, dict)) else value)

    # ---- one record ----

    def feed(self, record: Mapping[str, Any]) -> list[BookedPeriod]:
        """Take one meter record in; return the periods that it closed, oldest first.

        A record at or before the cursor of its boot is ignored, so a replay may overlap.
        """
        boot, seq = record["boot"], record["seq"]
        if boot == self._boot:
            if seq <= self._seq:
                return []
            if seq > self._seq + 1 and self._seq >= 0:
                self._lost += seq - self._seq - 1
        new_boot = boot != self._boot
        if record["utc_sync"] == "U" and record["utc_ns"] < BELIEVABLE_UTC_NS:
            self._hold(record, new_boot)
            return []
        closed: list[BookedPeriod] = []
        if self._held:
            held, self._held, self._held_step = self._held, [], 1
            if held[0]["boot"] == boot:
                # The time is proven now: place what was held by its monotonic distance.
                offset = record["utc_ns"] - record["t_ns"]
                for old in held:
                    placed = dict(old, utc_ns=old["t_ns"] + offset, utc_sync="I")
                    closed += self._take(placed, new_boot)
                    new_boot = False
                self._flag("PLACED_BY_MONOTONIC_TIME")
        closed += self._take(record, new_boot)
        return closed

    def _hold(self, record: Mapping[str, Any], new_boot: bool) -> None:
        if new_boot:
            self._held, self._held_step = [], 1  # the registers bridge what no clock could place
        self._boot, self._seq = record["boot"], record["seq"]
        if len(self._held) >= HELD_MAX:
            self._held, self._held_step = self._held[::2], self._held_step * 2
        if record["seq"] % self._held_step == 0 or not self._held:
            self._held.append(dict(record))

    def _take(self, record: Mapping[str, Any], new_boot: bool) -> list[BookedPeriod]:
        t_ns, utc_ns = record["t_ns"], record["utc_ns"]
        last = self._label_ns
        active_ns = 0
        if last < 0:
            label = utc_ns
            self._end_ns = utc_ns // self._period_ns * self._period_ns + self._period_ns
        else:
            label = utc_ns if utc_ns > last else last
            active_ns = label - last
            step = utc_ns - self._utc_ns - (max(0, active_ns) if new_boot else t_ns - self._t_ns)
            if step > CLOCK_STEP_NS or step < -CLOCK_STEP_NS:
                self._flag(f"CLOCK_STEP {step // 1_000_000_000}")
                if step > 0:
                    active_ns = t_ns - self._t_ns  # a label that jumped is not time that passed
        self._boot, self._seq = record["boot"], record["seq"]
        self._t_ns, self._utc_ns, self._label_ns = t_ns, utc_ns, label
        self._records += 1
        sync = record["utc_sync"]
        if sync != self._sync and (sync == "U" or self._sync == "S"):
            self._sync = sync

        points = record["points"]
        end_ns = self._end_ns
        crossing = label >= end_ns
        parts: list[tuple[_Counter, int, int]] = []
        for flow, counter in self._pairs:
            step_mwh = self._step(flow, counter, points, label, new_boot)
            if step_mwh is None:
                continue
            if crossing:
                # A forward step of the clock: the energy lies in the time that really passed.
                until = counter.label_ns + active_ns if counter.label_ns == last else label
                parts.append((counter, step_mwh, until))
            else:
                counter.mwh += step_mwh
                counter.booked += step_mwh
                counter.label_ns = label
                counter.by_integral += counter.pending
                counter.pending = 0.0
        if self._soc_point not in points:
            self._soc_point = next((name for name in points if name == "soc" or name.endswith(".soc")), "soc")
        soc = points.get(self._soc_point)
        if soc is not None and soc[0] is not None:
            self._soc = soc[0]
        return self._close(label, parts) if crossing else []

    # ---- one reading of one flow ----

    def _step(self, flow: Flow, counter: _Counter, points: Mapping[str, Any], label: int, new_boot: bool) -> int | None:
        """Energy that this reading adds to what is booked, mWh; None while the flow has nothing to say."""
        by_integral: float | None = None
        elapsed_s = (label - counter.seen_ns) / 1e9 if counter.seen_ns >= 0 else 0.0
        if flow.integral is not None:
            point = points.get(flow.integral)
            value = point[0] if point is not None else None
            if value is not None:
                before = counter.integral_ws
                if before is None:
                    by_integral = 0.0
                elif new_boot or value < before:
                    by_integral = value / 3.6  # the core has started again at 0
                else:
                    by_integral = (value - before) / 3.6
                counter.integral_ws = value
                counter.pending += by_integral
        reading: int | None = None
        if flow.register is not None:
            point = points.get(flow.register)
            value = point[0] if point is not None else None
            if value is not None and math.isfinite(value):
                reading = round(value * 1000.0)
        if reading is None and by_integral is None:
            return None
        if counter.label_ns < 0:
            # The first reading of all: a place to count from.
            counter.label_ns = counter.seen_ns = counter.moved_ns = label
            counter.register = counter.opening = reading
            return 0
        if reading is None and flow.register is not None:
            counter.bridge += round(by_integral or 0.0)
            if elapsed_s <= SILENT_S or by_integral is None:
                return None  # the register will tell when it is back
            counter.mark(SUBSTITUTED, "integral", "REGISTER_SILENT")
            return max(0, counter.truth + counter.bridge - counter.booked)
        if elapsed_s <= GAP_S:
            counter.seconds += elapsed_s
        elif reading is not None:
            counter.mark(ESTIMATED, counter.gap_method, "GAP")
        counter.seen_ns = label
        if reading is None:
            self._by_integral(flow, counter, points, by_integral or 0.0, elapsed_s)
        elif not self._believe(flow, counter, reading, label):
            counter.mark(SUBSTITUTED, "integral" if by_integral is not None else "none")
            counter.bridge += round(by_integral or 0.0)
        owed = counter.truth + counter.bridge - counter.booked
        return owed if owed > 0 else 0

    def _believe(self, flow: Flow, counter: _Counter, reading: int, label: int) -> bool:
        """Take a register reading for the truth if it is plausible; remember it as a candidate if not."""
        if counter.register is None:
            counter.register = counter.opening = reading
            counter.moved_ns = label
            return True
        delta = reading - counter.register
        # Time since the register last moved counts: a coarse register may be silent and then move by one unit.
        room = flow.w_max * ((label - counter.moved_ns) / 1e9 + 2.0) / 3.6 + 20_000
        if delta < 0 and flow.rollover_mwh and 0 <= delta + flow.rollover_mwh <= room:
            counter.mark(GOOD, None, "ROLLOVER")
            delta += flow.rollover_mwh
        if 0 <= delta <= room:
            if delta:
                counter.moved_ns = label
                counter.truth += delta
                counter.register = reading
                counter.bridge = 0  # the register has counted what was bridged
            if counter.candidate is not None:
                counter.candidate = None
                counter.bridge = 0
                counter.mark(ESTIMATED, "register", "SPIKE")
            return True
        room = flow.w_max * ((label - counter.candidate_label_ns) / 1e9 + 2.0) / 3.6 + 20_000
        if counter.candidate is not None and 0 <= reading - counter.candidate <= room:
            counter.candidate_count += 1
        else:
            counter.candidate_count = 1
        counter.candidate, counter.candidate_label_ns = reading, label
        counter.mark(SUBSTITUTED, None, "BACKWARD" if delta < 0 else "IMPLAUSIBLE")
        if counter.candidate_count < CONFIRM:
            return False
        # The new level holds: another meter, or one that was reset. It counts from here, after what was booked.
        counter.mark(SUBSTITUTED, None, f"METER_EXCHANGED {counter.register} {reading}")
        counter.truth += counter.bridge
        counter.bridge = 0
        counter.register, counter.candidate, counter.moved_ns = reading, None, label
        return False

    def _by_integral(
        self, flow: Flow, counter: _Counter, points: Mapping[str, Any], mwh: float, elapsed_s: float
    ) -> None:
        """Energy of a flow without a register: the integral, and a held power where it was not covered."""
        covered = points.get(flow.covered) if flow.covered is not None else None
        if covered is not None and covered[0] is not None:
            seconds = covered[0] - counter.covered_s if covered[0] >= counter.covered_s else covered[0]
            counter.covered_s = covered[0]
            blind_s = elapsed_s - seconds
            if seconds > 0.0:
                counter.watts = mwh * 3.6 / seconds
            if blind_s > 1.0:
                counter.mark(ESTIMATED if blind_s <= GAP_S * 12 else SUBSTITUTED, "held power", "GAP")
                mwh += counter.watts * blind_s / 3.6
        # The fraction of a mWh is kept, so that many small steps add up.
        mwh += counter.rest
        counter.truth += round(mwh)
        counter.rest = mwh - round(mwh)

    # ---- the end of periods ----

    def _close(self, label: int, parts: list[tuple[_Counter, int, int]]) -> list[BookedPeriod]:
        """Split the steps that cross boundaries, and close every period that all flows have passed."""
        spoke = {id(counter) for counter, _, _ in parts}
        silent = [c for _, c in self._pairs if id(c) not in spoke and c.label_ns < self._end_ns]
        if silent and label < self._end_ns + GRACE_S * 1_000_000_000:
            return []  # what the others have to say stays owed until the period can be closed
        closed = []
        queue = [
            (counter, mwh, counter.pending, self._segments(counter, mwh, until, label)) for counter, mwh, until in parts
        ]
        while label >= self._end_ns:
            for counter, mwh, integral, segments in queue:
                self._add(counter, segments.pop(0), mwh, integral, self._end_ns)
            for counter in silent:
                counter.mark(MISSING, "none", "SILENT")
            closed.append(self._period())
        for counter, mwh, integral, segments in queue:
            self._add(counter, segments.pop(0), mwh, integral, label)
            counter.by_integral += counter.pending
            counter.pending = 0.0
        return closed

    def _add(self, counter: _Counter, mwh: int, of_mwh: int, integral: float, label: int) -> None:
        if counter.label_ns < self._end_ns - self._period_ns and mwh and not self._first:
            counter.mark(ESTIMATED, None, "LATE")
        counter.mwh += mwh
        counter.booked += mwh
        counter.label_ns = label
        part = integral * mwh / of_mwh if of_mwh else 0.0
        counter.by_integral += part
        counter.pending -= part

    def _segments(self, counter: _Counter, mwh: int, until: int, label: int) -> list[int]:
        """Parts of a step before, between and behind the boundaries that it crosses; their sum is the step."""
        start = counter.label_ns if counter.label_ns >= 0 else label
        bounds = [start]
        end = self._end_ns
        while end <= label:
            bounds.append(end)
            end += self._period_ns
        bounds.append(label)
        weights = [max(0.0, min(b, until) - max(a, start)) for a, b in pairwise(bounds)]
        if (label - start) / 1e9 > LIKE_DAY_S:
            like = [counter.like_day.get(_day_key(b // 1_000_000_000 - self.period_s)) for b in bounds[1:-1]]
            if like and all(value is not None for value in like):
                # Remainder over the shape of a like day; the cut pieces at both ends by their time.
                mean = sum(value or 0 for value in like) / len(like)
                middle = [float(value or 0) for value in like]
                first = middle[0] * (bounds[1] - start) / self._period_ns
                weights = [first, *middle[1:], mean * (label - bounds[-2]) / self._period_ns]
                counter.gap_method = "register over like day"
        whole = sum(weights)
        if whole <= 0.0:
            weights, whole = [1.0] + [0.0] * (len(weights) - 1), 1.0
        parts = []
        done = 0
        passed = 0.0
        for weight in weights[:-1]:
            passed += weight
            reached = round(mwh * (passed / whole))
            parts.append(reached - done)
            done = reached
        parts.append(mwh - done)
        return parts

    def _period(self) -> BookedPeriod:
        start_s = self._end_ns // 1_000_000_000 - self.period_s
        flows = {}
        for flow, counter in self._pairs:
            integral = round(counter.by_integral) if flow.integral is not None else None
            if flow.register is not None and integral is not None:
                self._compare(counter, integral)
            gap = self.period_s - counter.seconds
            if gap > GAP_S and counter.quality == 0 and not self._first:
                counter.mark(ESTIMATED, counter.gap_method, "GAP")
                if counter.mwh == 0 and flow.register is None and counter.seconds == 0.0:
                    counter.mark(MISSING, "none", "GAP")
            flows[flow.name] = FlowPeriod(
                counter.mwh,
                QUALITY_ORDER[counter.quality],
                counter.method,
                counter.flags,
                counter.opening,
                counter.register,
                integral,
                round(min(counter.seconds, float(self.period_s)), 3),
            )
            if counter.quality <= 1 and not self._first:
                counter.like_day[_day_key(start_s)] = counter.mwh
            counter.mwh, counter.by_integral, counter.seconds = 0, 0.0, 0.0
            counter.opening = counter.register
            counter.quality, counter.flags = 0, []
            counter.method = "register" if flow.register is not None else "integral"
            if self._label_ns < self._end_ns + self._period_ns:
                counter.gap_method = "register over flat shape"
        flags = list(self._flags)
        if self._first:
            flags.append("PARTIAL")
        if self._lost:
            flags.append(f"RECORDS_LOST {self._lost}")
        if self._sync != "S":
            flags.append("TIME_UNSYNCED" if self._sync == "U" else "TIME_INFORMATIVE")
        booked = BookedPeriod(
            start_s,
            self.period_s,
            flows,
            flags,
            self._records,
            self._lost,
            None if self._soc is None else round(self._soc * 1e6),
            self._sync,
        )
        self._flags, self._records, self._lost, self._sync, self._first = [], 0, 0, "S", False
        self._end_ns += self._period_ns
        return booked

    def _compare(self, counter: _Counter, integral: int) -> None:
        """Flag a register that the fast power contradicts."""
        difference = abs(counter.mwh - integral)
        if counter.mwh == 0 and integral > STUCK_MWH and counter.quality == 0:
            # Booked from the integral; set off when the register moves again.
            counter.bridge += integral
            counter.booked += integral
            counter.mwh = integral
            counter.mark(SUBSTITUTED, "integral", "STUCK")
        elif difference > DISAGREE_MWH and difference * 1_000_000 > DISAGREE_PPM * max(counter.mwh, integral):
            counter.mark(GOOD, None, "DISAGREE")

    def _flag(self, flag: str) -> None:
        if flag not in self._flags:
            self._flags.append(flag)

    def finish(self) -> BookedPeriod | None:
        """Close the open period where it stands, as PARTIAL. For the end of a run; a service never calls it."""
        if self._label_ns < 0:
            return None
        self._flag("PARTIAL")
        self._first = True
        booked = self._period()
        booked.flags = list(dict.fromkeys(booked.flags))
        return booked

    def book(self, records: Sequence[Mapping[str, Any]]) -> Iterator[BookedPeriod]:
        """Feed many records."""
        for record in records:
            yield from self.feed(record)


_STATE = (
    "_end_ns",
    "_first",
    "_boot",
    "_seq",
    "_t_ns",
    "_utc_ns",
    "_label_ns",
    "_flags",
    "_records",
    "_lost",
    "_soc",
    "_sync",
)
