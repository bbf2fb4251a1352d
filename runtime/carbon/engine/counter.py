"""What is known of one flow: the readings that were believed, what was booked, and how.

Energies are whole mWh. Two totals keep a flow honest: `truth`, what the register says since the start, and `booked`,
what has been booked. Whatever is booked without the register (an integral, an estimate) is set off when it speaks
again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

KINDS = ("import", "export", "generation", "charge", "discharge", "load")

GAP_S = 5.0  # neighbouring readings further apart have lost their shape
GAP_NS = 5_000_000_000
MINUTE_NS = 60_000_000_000
SHAPED = ("import", "charge", "discharge")  # flows that a factor is applied to
SHAPE_LEAST = 0.95  # of a period that the fast power covers, for its shape to be believed
SHAPE_S = 60.0  # a power is known after so many seconds of readings
HELD_S = 300.0  # a power that nobody measured is held for so long; then a like day or the bound counts
SILENT_S = 60.0  # a register that says nothing for longer is bridged by the integral
OUTAGE_NS = 86_400_000_000_000  # an outage whose length no clock knows may have been so long
CONFIRM = 3  # readings that must agree before a jump is taken for a new meter
W_MAX = 1_000_000.0  # plausible power where the site file has none
DISAGREE_PPM = 30_000
DISAGREE_MILLIWH = 100_000
STUCK_MILLIWH = 200_000

GOOD, ESTIMATED, SUBSTITUTED, EDITED, BAD, MISSING = "good", "estimated", "substituted", "edited", "bad", "missing"
QUALITY_ORDER = (GOOD, ESTIMATED, SUBSTITUTED, EDITED, BAD, MISSING)

# Where nothing at all is known the number errs to the side that makes the account dirtier: what brings carbon in is
# taken at its highest quarter hour so far, what brings none in, or takes it out, at nothing.
HIGH = ("import", "load")


Points = Mapping[str, Sequence[float | None]]  # name -> value, quality


class MeterRecord(TypedDict):
    """What the account needs of a meter record, as the gateway keeps it."""

    boot: str
    seq: int
    t_ns: int
    utc_ns: int
    utc_sync: str
    points: Points


@dataclass(frozen=True, slots=True)
class Flow:
    """One direction of energy at one node, and where its numbers come from.

    name : "grid.import"; node : "grid"; kind : one of KINDS.
    register : point in Wh, or None; integral, covered : points in W s and s, or None.
    w_max : plausible power; a register that runs faster is not believed.
    """

    name: str
    node: str
    kind: str
    register: str | None = None
    integral: str | None = None
    covered: str | None = None
    w_max: float = W_MAX
    rollover_milliwh: int = 0  # register range, 0 = not known
    nameplate_w: float = 0.0  # of what it measures, 0 = not known; a bound before anything was measured

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"flow {self.name}: kind {self.kind!r}, expected one of {', '.join(KINDS)}")
        if self.register is None and self.integral is None:
            raise ValueError(f"flow {self.name}: needs a register or an integral")


@dataclass(slots=True)
class FlowPeriod:
    """Energy of one flow in one period."""

    energy_milliwh: int
    quality: str
    method: str
    flags: list[str]
    opening_milliwh: int | None  # register reading first used in the period
    closing_milliwh: int | None
    integral_milliwh: int | None  # what the fast power says, for comparison
    covered_s: float  # time with readings not further apart than GAP_S
    w_max: int | None = None  # highest power between two readings, where the fast power was read nearly all the time
    shape_milliwh: list[int] | None = None  # by minute, of the fast power; None where it was not read all the time


@dataclass(slots=True)
class Counter:
    """One flow's readings and totals. Its fields are plain values, so that they can be stored. Energies in mWh."""

    label_ns: int = -1  # UTC label up to which energy is booked
    seen_ns: int = -1  # UTC label of the last reading
    register: int | None = None  # last believed reading
    truth: int = 0  # what the register says since the start
    bridge: int = 0  # what the integral says while the register says nothing believable
    booked: int = 0  # what has been booked since the start
    stuck: bool = False  # a part of the bridge covers a register that stood still
    integral_ws: float | None = None
    covered_s: float = 0.0
    candidate: int | None = None  # a reading that is not believed yet
    candidate_label_ns: int = 0
    candidate_count: int = 0
    moved_ns: int = -1  # label at which the register last moved
    unlabelled_ns: int = 0  # time since then that the labels do not show: the clock had been set back
    watts: float = 0.0  # of the last step that was measured without a register
    before_w: float = -1.0  # mean of the period before, -1 = none
    peak_milliwh: int = 0  # highest measured period so far
    # of the open period
    energy_milliwh: int = 0
    by_integral: int = 0
    pending: int = 0  # integral since the label, not yet in a period
    covered_ns: int = 0
    opening: int | None = None
    quality: int = 0
    method: str = "register"
    gap_method: str = "register over flat shape"
    flags: list[str] = field(default_factory=list)
    shape: list[int] = field(default_factory=list)  # mWh of each minute, by the integral
    w_max: float = 0.0
    like_day: dict[str, int] = field(default_factory=dict)

    def mark(self, quality: str, method: str | None = None, flag: str | None = None) -> None:
        rank = QUALITY_ORDER.index(quality)
        if rank > self.quality:
            self.quality = rank
            if method is not None:
                self.method = method
        if flag is not None and flag not in self.flags:
            self.flags.append(flag)

    # ---- one reading ----

    def step(self, flow: Flow, points: Points, label: int, new_boot: bool, period_s: int,
             unlabelled_ns: int = 0, unclear: bool = False) -> int | None:  # fmt: skip
        """Energy that this reading adds to what is booked, mWh; None while the flow has nothing to say.

        unlabelled_ns : time since the last record that labels do not show; unclear : no clock knows how long it was.
        """
        self.unlabelled_ns += unlabelled_ns
        by_integral: int | None = None
        measured_ws = 0.0
        elapsed_ns = label - self.seen_ns if self.seen_ns >= 0 else 0
        if flow.integral is not None:
            point = points.get(flow.integral)
            value = point[0] if point is not None else None
            if value is not None and math.isfinite(value):
                before = self.integral_ws
                if before is None:
                    by_integral = 0
                elif new_boot or value < before:
                    by_integral, measured_ws = whole_milliwh(value), value  # the core has started again at 0
                else:
                    by_integral, measured_ws = whole_milliwh(value) - whole_milliwh(before), value - before
                    if flow.kind in SHAPED and period_s >= 60 and 0 < elapsed_ns <= GAP_NS:
                        minute = (label - elapsed_ns) // MINUTE_NS % (period_s // 60)
                        if minute >= len(self.shape):
                            self.shape += [0] * (period_s // 60 - len(self.shape))
                        self.shape[minute] += by_integral
                        self.w_max = max(self.w_max, measured_ws / (elapsed_ns / 1e9))
                self.integral_ws = value
                self.pending += by_integral
        reading: int | None = None
        if flow.register is not None:
            point = points.get(flow.register)
            value = point[0] if point is not None else None
            if value is not None and math.isfinite(value):
                reading = round(value * 1000.0)
        if reading is None and by_integral is None:
            return None
        if self.label_ns < 0:
            # The first reading of all: a place to count from.
            self.label_ns = self.seen_ns = self.moved_ns = label
            self.register = self.opening = reading
            return 0
        if reading is None and flow.register is not None:
            self.bridge += by_integral or 0
            if elapsed_ns <= SILENT_S * 1e9 or by_integral is None:
                return None  # the register will tell when it is back
            self.mark(SUBSTITUTED, "integral", "REGISTER_SILENT")
            return max(0, self.truth + self.bridge - self.booked)
        if elapsed_ns <= GAP_NS:
            self.covered_ns += elapsed_ns
        elif reading is not None:
            self.gap_method = "register over flat shape"
            self.mark(ESTIMATED, self.gap_method, "GAP")
        if reading is None:
            self._by_integral(flow, points, by_integral or 0, measured_ws, label, period_s)
        elif not self._believe(flow, reading, label, unlabelled_ns, unclear):
            self.mark(SUBSTITUTED, "integral" if by_integral is not None else "none")
            self.bridge += by_integral or 0
        self.seen_ns = label
        owed = self.truth + self.bridge - self.booked
        return owed if owed > 0 else 0

    def _believe(self, flow: Flow, reading: int, label: int, unlabelled_ns: int, unclear: bool) -> bool:
        """Take a register reading for the truth if it is plausible; remember it as a candidate if not."""
        if self.register is None:
            self.register = self.opening = reading
            self.moved_ns = label
            return True
        delta = reading - self.register
        # Time since the register last moved counts: a coarse register may be silent and then move by one unit.
        passed_ns = label - self.moved_ns + self.unlabelled_ns
        room = room_milliwh(flow.w_max, passed_ns)
        if unclear and room < delta <= room_milliwh(flow.w_max, passed_ns + OUTAGE_NS):
            self.mark(ESTIMATED, None, "OUTAGE_LENGTH_UNKNOWN")
            room = delta
        if delta < 0 and flow.rollover_milliwh and 0 <= delta + flow.rollover_milliwh <= room:
            self.mark(GOOD, None, "ROLLOVER")
            delta += flow.rollover_milliwh
        if (
            self.register == 0
            and delta > room_milliwh(flow.w_max, label - self.seen_ns + unlabelled_ns)
            and not coarse_unit(reading)
        ):
            # It said 0 until it was read at last, or until the device was set up: what it says first is no energy.
            self.mark(SUBSTITUTED, None, f"REGISTER_BEGAN {reading}")
            self.truth += self.bridge
            if self.energy_milliwh == 0:
                self.truth += self.by_integral  # of the open period, which would have been found stuck at its end
            self.bridge, self.stuck, self.candidate = 0, False, None
            self._moved(reading, label)
            return False
        if 0 <= delta <= room:
            if delta:
                if self.stuck and 2 * delta < self.bridge:
                    # It goes on from where it stood: what passed meanwhile it never counted, so the integral stays.
                    self.truth += self.bridge
                    self.mark(SUBSTITUTED, None, "NEVER_COUNTED")
                self.stuck = False
                self.truth += delta
                self._moved(reading, label)
                self.bridge = 0  # the register has counted what was bridged
            if self.candidate is not None:
                self.candidate = None
                self.bridge = 0
                self.mark(ESTIMATED, "register", "SPIKE")
            return True
        room = room_milliwh(flow.w_max, label - self.candidate_label_ns + unlabelled_ns)
        if self.candidate is not None and 0 <= reading - self.candidate <= room:
            self.candidate_count += 1
        else:
            self.candidate_count = 1
        self.candidate, self.candidate_label_ns = reading, label
        self.mark(SUBSTITUTED, None, "BACKWARD" if delta < 0 else "IMPLAUSIBLE")
        if self.candidate_count < CONFIRM:
            return False
        # The new level holds: another meter, or one that was reset. It counts from here, after what was booked.
        self.mark(SUBSTITUTED, None, f"METER_EXCHANGED {self.register} {reading}")
        self.truth += self.bridge
        self.bridge = 0
        self.candidate = None
        self._moved(reading, label)
        return False

    def _moved(self, reading: int, label: int) -> None:
        """The register stands elsewhere since this label."""
        self.register, self.moved_ns, self.unlabelled_ns = reading, label, 0

    def _by_integral(self, flow: Flow, points: Points, milliwh: int, measured_ws: float, label: int,
                     period_s: int) -> None:  # fmt: skip
        """Energy of a flow without a register: the integral, and an estimate where it was not covered."""
        covered = points.get(flow.covered) if flow.covered is not None else None
        if covered is not None and covered[0] is not None:
            seconds = covered[0] - self.covered_s if covered[0] >= self.covered_s else covered[0]
            self.covered_s = covered[0]
            if seconds > 0.0:
                self.watts = measured_ws / seconds
            blind_s = (label - self.seen_ns) / 1e9 - seconds
            if blind_s > 1.0:
                guessed, how = self.guess(flow, label - round(blind_s * 1e9), label, period_s)
                self.mark(ESTIMATED if blind_s <= SILENT_S else SUBSTITUTED, how, "GAP")
                milliwh += guessed
        self.truth += milliwh

    def shaped_as(self, known_s: float, integral: int) -> tuple[int | None, list[int] | None]:
        """(highest W, mWh by minute) of the period so far, where its fast power is known nearly all the time."""
        shape, watts = self.shape, self.w_max
        self.shape, self.w_max = [], 0.0
        whole = sum(shape)
        if (
            not whole
            or self.covered_ns < SHAPE_LEAST * known_s * 1e9
            or abs(whole - integral) > (1 - SHAPE_LEAST) * whole
        ):
            return None, None  # after a restart of the core, or of a state of before, a part is missing
        return round(watts), shape

    # ---- what nobody measured ----

    def recent_w(self, period_s: int) -> float:
        """Mean power of the open period, or of the one before; -1 where neither is known."""
        covered_s = self.covered_ns / 1e9
        return self.energy_milliwh * 3.6 / covered_s if covered_s >= SHAPE_S else self.before_w

    def shaped(self, how: str) -> None:
        """Say how the energy of the present gap is spread over the periods that it touches."""
        self.gap_method = how
        if "GAP" in self.flags and self.quality == QUALITY_ORDER.index(ESTIMATED):
            self.method = how

    def guess(self, flow: Flow, start_ns: int, end_ns: int, period_s: int) -> tuple[int, str]:
        """(mWh, method) of a stretch without any reading: held power, a like day, or the conservative bound."""
        seconds = (end_ns - start_ns) / 1e9
        if seconds <= HELD_S and flow.register is None:
            return round(self.watts * seconds / 3.6), "held power"
        period_ns = period_s * 1_000_000_000
        like, at = 0.0, start_ns
        while at < end_ns:
            until = min(end_ns, at // period_ns * period_ns + period_ns)
            known = self.like_day.get(day_key(at // period_ns * period_s))
            if known is None:
                break
            like += known * (until - at) / period_ns
            at = until
        else:
            return round(like), "like day"
        if flow.kind in HIGH:
            if self.peak_milliwh:
                return round(self.peak_milliwh * seconds / period_s), "conservative bound, high"
            if flow.nameplate_w:
                return round(flow.nameplate_w * seconds / 3.6), "nameplate of the connection, high"
            return 0, "nothing measured before and no nameplate, low"
        return 0, "conservative bound, low"

    def silent(self, flow: Flow, end_ns: int, period_s: int) -> None:
        """Book a period that ends without a word of this meter; its register sets that off when it speaks again."""
        if self.label_ns < 0:
            self.mark(MISSING, "none", "SILENT")
            return
        milliwh, how = self.guess(flow, self.label_ns, end_ns, period_s)
        self.mark(SUBSTITUTED, how, "SILENT")
        if flow.register is None:
            self.truth += milliwh
        self.energy_milliwh += milliwh
        self.booked += milliwh
        self.label_ns = end_ns

    def compare(self, integral: int) -> None:
        """Flag a register that the fast power contradicts."""
        difference = abs(self.energy_milliwh - integral)
        if self.energy_milliwh == 0 and integral > STUCK_MILLIWH and self.quality == 0:
            # Booked from the integral; set off when the register moves again.
            self.bridge += integral
            self.booked += integral
            self.energy_milliwh = integral
            self.stuck = True
            self.mark(SUBSTITUTED, "integral", "STUCK")
        elif difference > DISAGREE_MILLIWH and difference * 1_000_000 > DISAGREE_PPM * max(
            self.energy_milliwh, integral
        ):
            self.mark(GOOD, None, "DISAGREE")


def whole_milliwh(watt_seconds: float) -> int:
    """mWh of an integral. Rounded before any difference is taken, so that differences add up exactly."""
    return round(watt_seconds / 3.6)


def coarse_unit(reading: int) -> bool:
    """Whether a register that stood at 0 may have made its first step: 1, 10, 100 ... of some unit."""
    digits = str(reading)
    return digits[:1] == "1" and not digits[1:].strip("0")


def room_milliwh(w_max: float, elapsed_ns: int) -> float:
    """What a register may have gained in a time, with room for a coarse step and for late readings."""
    return w_max * (elapsed_ns / 1e9 + 2.0) / 3.6 + 20_000


def day_key(start_s: int) -> str:
    weekday = (start_s // 86400 + 4) % 7  # 1970-01-01 was a Thursday; 0 = Sunday
    return f"{'weekend' if weekday in (0, 6) else 'weekday'} {start_s % 86400}"
