"""Energy per UTC-aligned quarter hour from meter records.

The meters' registers are the truth: the energy of a period is the difference of two readings, split at the boundary.
The core's monotone integrals (W s) give shape, bridge what a register cannot say (no register, exchange, stuck,
unbelievable reading) and are compared with it. Two counters a flow keep this honest: what the register says since the
start, and what has been booked. What was bridged is set off when the register speaks again, so a sum over time is the
register's.

`Booker` is pure: it is fed records and gives closed periods; it reads no clock and no file. Monotonic time measures,
UTC labels. Its whole state is one dictionary of plain values, so that it can be stored with the periods that it gave.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tidegate.runtime.carbon.engine.counter import (
    ESTIMATED,
    GAP_S,
    MISSING,
    QUALITY_ORDER,
    Counter,
    Flow,
    FlowPeriod,
    MeterRecord,
    Points,
    day_key,
)

PERIOD_S = 900
LIKE_DAY_S = 7200.0  # longer gaps take the shape of a like day, where there is one
CLOCK_STEP_NS = 1_000_000_000
BELIEVABLE_UTC_NS = 1_704_067_200_000_000_000  # 2024-01-01: an unsynchronised clock before is not a clock
HELD_MAX = 4096  # records kept while the time is unknown
OLD_NAMES = {"mwh": "energy_milliwh", "peak_mwh": "peak_milliwh"}  # of a counter, in states of before
GRACE_S = 900  # how long a period waits for a meter that is silent


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


class Booker:
    """Turns meter records into closed periods, one record at a time.

    flows : the site's flows; names must differ.
    period_s : 900, or a divisor of it for finer books.
    Raises ValueError for a period that does not divide an hour.
    """

    def __init__(
        self,
        flows: Sequence[Flow],
        period_s: int = PERIOD_S,
        state: Mapping[str, Any] | None = None,
        soc_weights: Mapping[str, float] | None = None,
    ) -> None:
        if period_s <= 0 or 3600 % period_s:
            raise ValueError(f"period {period_s} s: must divide an hour")
        if len({flow.name for flow in flows}) != len(flows):
            raise ValueError("two flows have one name")
        self.flows = tuple(flows)
        self.period_s = period_s
        self._period_ns = period_s * 1_000_000_000
        self._counters = {flow.name: Counter() for flow in flows}
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
        self._soc_weights = {name: weight for name, weight in (soc_weights or {}).items() if weight > 0.0}
        self._sync = "S"
        self._held: list[MeterRecord] = []
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
            name: {key: getattr(counter, key) for key in Counter.__slots__} for name, counter in self._counters.items()
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
            for written, value in values.items():
                key = OLD_NAMES.get(written, written)
                if key in Counter.__slots__:
                    setattr(counter, key, value.copy() if isinstance(value, (list, dict)) else value)

    # ---- one record ----

    def feed(self, record: MeterRecord) -> list[BookedPeriod]:
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
                    placed = MeterRecord({**old, "utc_ns": old["t_ns"] + offset, "utc_sync": "I"})
                    closed += self._take(placed, new_boot)
                    new_boot = False
                self._flag("PLACED_BY_MONOTONIC_TIME")
        closed += self._take(record, new_boot)
        return closed

    def _hold(self, record: MeterRecord, new_boot: bool) -> None:
        if new_boot:
            self._held, self._held_step = [], 1  # the registers bridge what no clock could place
        self._boot, self._seq = record["boot"], record["seq"]
        if len(self._held) >= HELD_MAX:
            self._held, self._held_step = self._held[::2], self._held_step * 2
        if record["seq"] % self._held_step == 0 or not self._held:
            self._held.append(record.copy())

    def _take(self, record: MeterRecord, new_boot: bool) -> list[BookedPeriod]:
        t_ns, utc_ns = record["t_ns"], record["utc_ns"]
        last = self._label_ns
        active_ns = unlabelled_ns = 0
        unclear = False
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
            # A label that stands still is time that passed all the same. Over a restart only the wall clock can measure
            # it, and one that nothing sets, or that is set back meanwhile, cannot.
            passed_ns = utc_ns - self._utc_ns if new_boot else t_ns - self._t_ns
            if label == last or passed_ns - (label - last) > CLOCK_STEP_NS:
                unlabelled_ns = max(0, passed_ns - (label - last))
            unclear = new_boot and (passed_ns <= 0 or record["utc_sync"] == "U")
        self._boot, self._seq = record["boot"], record["seq"]
        self._t_ns, self._utc_ns, self._label_ns = t_ns, utc_ns, label
        self._records += 1
        sync = record["utc_sync"]
        if sync != self._sync and (sync == "U" or self._sync == "S"):
            self._sync = sync

        points = record["points"]
        end_ns = self._end_ns
        crossing = label >= end_ns
        parts: list[tuple[Counter, int, int]] = []
        for flow, counter in self._pairs:
            step_milliwh = counter.step(flow, points, label, new_boot, self.period_s, unlabelled_ns, unclear)
            if step_milliwh is None:
                continue
            if crossing:
                # A forward step of the clock: the energy lies in the time that really passed.
                until = counter.label_ns + active_ns if counter.label_ns == last else label
                parts.append((counter, step_milliwh, until))
            else:
                counter.energy_milliwh += step_milliwh
                counter.booked += step_milliwh
                counter.label_ns = label
                counter.by_integral += counter.pending
                counter.pending = 0
        soc = self.soc_of(points)
        if soc is not None:
            self._soc = soc
        return self._close(label, parts) if crossing else []

    # ---- many records at once, see bulk.py ----

    @property
    def pairs(self) -> Sequence[tuple[Flow, Counter]]:
        """Every flow with its counter."""
        return self._pairs

    @property
    def holds(self) -> bool:
        """Whether records wait for a clock."""
        return bool(self._held)

    @property
    def place(self) -> tuple[str | None, int, int, int]:
        """Boot, seq, monotonic time and UTC of the last record."""
        return self._boot, self._seq, self._t_ns, self._utc_ns

    @property
    def last_label_ns(self) -> int:
        """UTC label of the last record, -1 = none yet."""
        return self._label_ns

    @property
    def open_until_ns(self) -> int:
        """End of the open period."""
        return self._end_ns

    def soc_of(self, points: Points) -> float | None:
        """State of charge of all storage in a record, by the energy of each; None while one of them is not known."""
        if not self._soc_weights:
            name = next((name for name in points if name == "soc" or name.endswith(".soc")), "soc")
            return points.get(name, (None,))[0]
        total = 0.0
        for name, weight in self._soc_weights.items():
            value = points.get(name, (None,))[0]
            if value is None:
                return None
            total += weight * value
        return total / sum(self._soc_weights.values())

    def went_on(self, record: MeterRecord, count: int, soc: float | None) -> None:
        """`count` plain records were taken, `record` is the last of them; `soc` is the newest state of charge."""
        self._seq, self._t_ns, self._utc_ns = record["seq"], record["t_ns"], record["utc_ns"]
        self._label_ns = self._utc_ns
        self._records += count
        sync = record["utc_sync"]
        if sync != self._sync and (sync == "U" or self._sync == "S"):
            self._sync = sync
        if soc is not None:
            self._soc = soc

    # ---- the end of periods ----

    def _close(self, label: int, parts: list[tuple[Counter, int, int]]) -> list[BookedPeriod]:
        """Split the steps that cross boundaries, and close every period that all flows have passed."""
        spoke = {id(counter) for counter, _, _ in parts}
        silent = [(f, c) for f, c in self._pairs if id(c) not in spoke and c.label_ns < self._end_ns]
        if silent and label < self._end_ns + GRACE_S * 1_000_000_000:
            return []  # what the others have to say stays owed until the period can be closed
        closed = []
        queue = [
            (counter, milliwh, counter.pending, self._segments(counter, milliwh, until, label))
            for counter, milliwh, until in parts
        ]
        while label >= self._end_ns:
            for counter, milliwh, integral, segments in queue:
                self._add(counter, segments.pop(0), milliwh, integral, self._end_ns)
            for flow, counter in silent:
                counter.silent(flow, self._end_ns, self.period_s)
            closed.append(self._period())
        for counter, milliwh, integral, segments in queue:
            self._add(counter, segments.pop(0), milliwh, integral, label)
            counter.by_integral += counter.pending
            counter.pending = 0
        return closed

    def _add(self, counter: Counter, milliwh: int, of_milliwh: int, integral: int, label: int) -> None:
        if counter.label_ns < self._end_ns - self._period_ns and milliwh and not self._first:
            counter.mark(ESTIMATED, None, "LATE")
        counter.energy_milliwh += milliwh
        counter.booked += milliwh
        counter.label_ns = label
        part = integral * milliwh // of_milliwh if of_milliwh else 0
        counter.by_integral += part
        counter.pending -= part

    def _segments(self, counter: Counter, milliwh: int, until: int, label: int) -> list[int]:
        """Parts of a step before, between and behind the boundaries that it crosses; their sum is the step."""
        start = counter.label_ns if counter.label_ns >= 0 else label
        bounds = [start]
        end = self._end_ns
        while end <= label:
            bounds.append(end)
            end += self._period_ns
        bounds.append(label)
        weights = [float(max(0, min(b, until) - a)) for a, b in pairwise(bounds)]
        gap_s = (until - start) / 1e9
        if gap_s > LIKE_DAY_S:
            like = [counter.like_day.get(day_key(b // 1_000_000_000 - self.period_s)) for b in bounds[1:-1]]
            if like and all(value is not None for value in like):
                # Remainder over the shape of a like day; the cut pieces at both ends by their time.
                shape = [float(value or 0) for value in like]
                shape.append(sum(shape) / len(shape))
                weights = [w * s for w, s in zip(weights, shape, strict=True)]
                how = "register over like day"
            else:
                how = "register over flat shape"
            counter.shaped(how)
        elif gap_s > GAP_S:
            counter.shaped("register over flat shape")
            known_w = counter.recent_w(self.period_s)
            mean_w = milliwh * 3.6 / gap_s
            if 0.0 <= known_w <= 2.0 * mean_w:
                # Linear in power from the last known one; the register fixes where it ends.
                slope = 2.0 * (mean_w - known_w) / gap_s
                at = [max(0, min(b, until) - start) / 1e9 for b in bounds]
                weights = [known_w * (b - a) + slope * (b * b - a * a) / 2.0 for a, b in pairwise(at)]
                counter.shaped("register over linear shape")
        whole = sum(weights)
        if whole <= 0.0:
            weights, whole = [1.0] + [0.0] * (len(weights) - 1), 1.0
        parts = []
        done = 0
        passed = 0.0
        for weight in weights[:-1]:
            passed += weight
            reached = round(milliwh * (passed / whole))
            parts.append(reached - done)
            done = reached
        parts.append(milliwh - done)
        return parts

    def _period(self) -> BookedPeriod:
        start_s = self._end_ns // 1_000_000_000 - self.period_s
        flows = {}
        known_s = min(float(self.period_s), self._label_ns / 1e9 - start_s)  # less where an open period is looked at
        for flow, counter in self._pairs:
            integral = counter.by_integral if flow.integral is not None else None
            if flow.register is not None and integral is not None:
                counter.compare(integral)
            gap_s = self.period_s - counter.covered_ns / 1e9
            if gap_s > GAP_S and counter.quality == 0 and not self._first:
                counter.mark(ESTIMATED, counter.gap_method, "GAP")
                if counter.energy_milliwh == 0 and flow.register is None and counter.covered_ns == 0:
                    counter.mark(MISSING, "none", "GAP")
            w_max, shape = counter.shaped_as(known_s, counter.by_integral)
            flows[flow.name] = FlowPeriod(
                counter.energy_milliwh,
                QUALITY_ORDER[counter.quality],
                counter.method,
                counter.flags,
                counter.opening,
                counter.register,
                integral,
                round(min(counter.covered_ns / 1e9, float(self.period_s)), 3),
                w_max,
                shape,
            )
            if counter.quality <= 1 and not self._first:
                counter.like_day[day_key(start_s)] = counter.energy_milliwh
                counter.before_w = counter.energy_milliwh * 3.6 / self.period_s
                counter.peak_milliwh = max(counter.peak_milliwh, counter.energy_milliwh)
            counter.energy_milliwh = counter.by_integral = counter.covered_ns = 0
            counter.opening = counter.register
            counter.quality, counter.flags = 0, []
            counter.method = "register" if flow.register is not None else "integral"
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
