"""A cooling unit's set-point by the plan: what it is to be, written within the owner's band, and the owner's own again.

What bounds the inlet is the set-point itself and the distance from it that the owner measured by hand: no reading of
ours can raise it beyond that. A reading that is absent, stands still, or is not where set-point and distance have it,
gives the owner's own set-point back at once.
"""

import contextlib
import csv
import json
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

from tidegate.runtime.planner.adapter_audit import COOLING_ADVICE, AdapterAudit, Note
from tidegate.runtime.planner.adapter_guard import only_adapter
from tidegate.runtime.planner.cooling_plan import CoolingPlan, InletBand, plan_cooling
from tidegate.runtime.planner.cooling_unit import (
    AWAY_C_MAX,
    CoolingError,
    CoolingFile,
    CoolingUnit,
    ModbusCooling,
    Reading,
    read_cooling_file,
    same_c,
)
from tidegate.runtime.planner.expected_cooling import MOVED
from tidegate.runtime.planner.forecasts import blend, filled
from tidegate.runtime.planner.live_planner import STATUS_FILE
from tidegate.runtime.planner.plan_inputs import Floats, PlanError
from tidegate.runtime.planner.room_thermal import STEP_S, RoomModel, Samples, fit_room
from tidegate.runtime.state import atomic_file

CLAIM_FILE = "cooling-claim-*.json"  # each unit has files of its own: * is its name
HISTORY_FILE = "cooling-history-*.csv"
AUDIT_FILE = "cooling-audit-*.jsonl"
LOCK_FILE = "cooling-lock-*"
COLUMNS = ("begin_utc_s", "inlet_c", "cooling_kw", "it_kw", "outdoor_c")
DAYS_READ = 28
DAY = 86_400 // STEP_S
AHEAD = DAY
BELIEVED_C = 1.0  # an inlet is this near to where set-point and distance have it, or it is not believed
SEEN_S = 7200.0  # of what was read, to be judged by
ANSWER_S = 2700.0  # within which an inlet answers a set-point that moved
MOVED_C = 0.45  # a move that an inlet must answer
APART_S = 6 * 3600.0  # without orders after a reading that was not believed
THEIRS_S = 2 * 3600.0  # without orders after somebody else set it
PLAUSIBLE_C = (-5.0, 60.0)
LEARN_C = 1.0  # cooler than the owner's own, while the room is not known yet


@dataclass(frozen=True)
class CoolingAllowed:
    """learn: the set-point may go LEARN_C below the owner's own at times, until the room's stored heat is known."""

    learn: bool = False
    dry_run: bool = False
    stale_s: float = 2000.0  # a plan this old is nobody's any more


@dataclass(frozen=True)
class Claim:
    """What stood there before us, what we wrote, and what stood there until then, C."""

    before_c: float
    set_c: float
    was_c: float

    def seen_as(self, setpoint_c: float, same: float) -> "Claim | None":
        """What of it is left where this is read; None where nothing of ours stands there."""
        if abs(setpoint_c - self.set_c) <= same:
            return self
        if abs(setpoint_c - self.was_c) <= same < abs(self.was_c - self.before_c):
            return Claim(self.before_c, self.was_c, self.was_c)  # the last write never came
        return None


@dataclass
class CoolingAdvice:
    """What is thought of the room now, for people and metrics."""

    utc_s: int = 0
    text: str = ""
    setpoint_c: float = math.nan  # advised
    own_c: float = math.nan
    saves_eur: float = math.nan  # in 24 h beside the owner's own
    power_error: float = math.nan
    inlet_error_c: float = math.nan
    still_error_c: float = math.nan


@dataclass
class CoolingSetpoint:
    """One round after the other: read, believe or not, fit, plan, write or give back."""

    unit: CoolingUnit
    file: CoolingFile
    folder: Path
    allowed: CoolingAllowed
    note: Note | None = None
    doubts: list[str] = field(default_factory=list)
    fit: Callable[[Samples], RoomModel | None] = fit_room  # replaced in tests
    claim: Claim | None = None
    model: RoomModel | None = None
    advice: CoolingAdvice = field(default_factory=CoolingAdvice)

    def __post_init__(self) -> None:
        self._audit = AdapterAudit(self._path(AUDIT_FILE), "cooling", self.note)
        self._seen: deque[tuple[float, Reading]] = deque()
        self._quarter: list[Reading] = []
        self._quarter_at = -1
        self._apart_until = -math.inf
        self._why_apart = ""
        self._written: deque[float] = deque()
        self._wanted_c = math.nan
        self._dry_c = math.nan
        self._rows = _read_history(self._path(HISTORY_FILE))
        path = self._path(CLAIM_FILE)
        try:
            kept = json.loads(path.read_text())
            self.claim = Claim(*(float(kept[key]) for key in ("before_c", "set_c", "was_c"))) if kept else None
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError) as why:
            raise CoolingError(f"{path}: {why!r}: the set-point of before is not known; set it by hand, then remove "
                               "the file") from None  # fmt: skip

    def _path(self, file: str) -> Path:
        return self.folder / file.replace("*", self.file.name)

    # ---- one round ----

    def round(self, now: float | None = None, *, let_go: bool = False) -> None:
        """Once. What goes wrong is in `doubts`, and ends in the owner's own set-point."""
        now = time.time() if now is None else now
        self.doubts = [self.file.beyond] if self.file.beyond else []
        try:
            reading = self.unit.read()
        except (CoolingError, OSError) as why:
            self.doubts.append(f"{why}: no order before it reads again")
            self._give_back(now, str(why))
            self._acts = False
            with contextlib.suppress(OSError):
                self._write_advice()
            return
        try:
            self._round(now, reading, let_go)
        except (CoolingError, OSError) as why:
            self.doubts.append(str(why))
            self._audit.write(now, {"unit": self.file.name}, self.file.name, f"refused: {why}")

    def _round(self, now: float, reading: Reading, let_go: bool) -> None:
        if self.claim is not None:
            left = self.claim.seen_as(reading.setpoint_c, same_c(self.file))
            if left is None and abs(reading.setpoint_c - self.claim.before_c) > same_c(self.file):
                row: dict[str, object] = {"setpoint_c": reading.setpoint_c, "before_c": self.claim.before_c}
                self._audit.write(now, row, self.file.name, "changed by somebody else")
                self._stand_apart(now, THEIRS_S, "somebody else changed the set-point")
            if left != self.claim:
                self._keep(left)
        own_c = reading.setpoint_c if self.claim is None else self.claim.before_c
        self._seen.append((now, reading))
        while self._seen and now - self._seen[0][0] > SEEN_S:
            self._seen.popleft()
        if why := self.why_not_believed(now):
            self.doubts.append(why)
            self._stand_apart(now, APART_S, why)
        new_quarter = self._gather(now, reading, believed=not why)
        if not self._fitted or (new_quarter and int(now) % 3600 < STEP_S):
            self._fitted = True
            self.model = self.fit(self.samples())
        if let_go:
            self._give_back(now, "the adapter ends")
            self._acts = False
            self._write_advice()
            return
        target_c, text = self._target(now, reading, own_c, new_quarter)
        self.advice = self._advised(now, own_c, target_c, text)
        self._write_advice()
        self._order(now, reading, own_c, target_c, text)

    def _target(self, now: float, reading: Reading, own_c: float, new_quarter: bool) -> tuple[float, str]:
        """(set-point that is advised, why); the owner's own where nothing else is."""
        self._acts = False
        if now < self._apart_until:
            return own_c, f"{self._why_apart}: the owner's own set-point until {_clock(self._apart_until)}"
        try:
            told = json.loads((self.folder / STATUS_FILE).read_text())
            at, begin, step_s = int(told["planned_utc_s"]), int(told["start_utc_s"]), int(told["step_s"])
            price = np.array(told["meter_eur_per_kwh"], dtype=float)
        except (OSError, ValueError, TypeError, KeyError):
            return own_c, "there is no plan: the owner's own set-point"
        if not -60 <= now - at <= self.allowed.stale_s:
            return own_c, "the plan is too old: the owner's own set-point"
        model = self.model
        if model is None or model.why_not:
            why = "less than two and a half days were read" if model is None else model.why_not
            if self.allowed.learn and self.file.setpoint_band is not None and learning(now):
                cooler_c = max(own_c - LEARN_C, self._setpoint_band(own_c)[0])
                return min(own_c, cooler_c), f"{why}; it is learned by cooler hours"
            if self.claim is not None and model is not None:  # was sure an hour ago: no to and fro by the hour
                self._stand_apart(now, APART_S, why)
            return own_c, f"{why}: the owner's own set-point"
        least, most = self._setpoint_band(own_c)
        if least > own_c + 1e-9 or most < own_c - 1e-9:
            return own_c, (f"the owner's own set-point of {own_c:g} C is outside {least:.1f} to {most:.1f} C, which is "
                           "what band and distances leave")  # fmt: skip
        if new_quarter or not math.isfinite(self._wanted_c):
            try:
                made = self._plan(now, reading, own_c, model, price, begin, step_s)
            except PlanError as why:
                self._wanted_c = math.nan
                return own_c, f"{why}: the owner's own set-point"
            self._saves_eur = made.saves_eur
            # The whole quarter hours that the plan goes on for: what the battery's plan counts in.
            self._moved = {"begin_utc_s": begin_of(now), "step_s": STEP_S, "kw": made.moved_kw.round(4).tolist()}
            wanted = float(made.inlet_c[1]) - self._middle_offset()
            step = self.file.step_c
            moved = self.file.band.rate_c_per_h * STEP_S / 3600.0
            wanted = min(max(wanted, reading.setpoint_c - moved), reading.setpoint_c + moved)
            self._wanted_c = min(max(round(wanted / step) * step, least), most)
            if abs(self._wanted_c - own_c) < step / 2:
                self._wanted_c = own_c
        self._acts = True
        return self._wanted_c, f"saves {self._saves_eur:.2f} EUR in 24 h beside {own_c:g} C"

    def _middle_offset(self) -> float:
        return sum(one.offset_c for one in self.file.inlets) / len(self.file.inlets)

    def _setpoint_band(self, own_c: float) -> tuple[float, float]:
        """Within which the set-point may lie: the owner's, and every inlet within its band by the owner's distances."""
        offsets = [one.offset_c for one in self.file.inlets]
        model = self.model
        missed = BELIEVED_C if model is None else max(BELIEVED_C, min(model.inlet_error_c, AWAY_C_MAX))
        least = self.file.band.least_c + missed - min(offsets)
        most = self.file.band.most_c - missed - max(offsets)
        if self.file.setpoint_band is not None:
            least, most = max(least, self.file.setpoint_band[0]), min(most, self.file.setpoint_band[1])
        return max(least, own_c - AWAY_C_MAX), min(most, own_c + AWAY_C_MAX)

    def _plan(self, now: float, reading: Reading, own_c: float, model: RoomModel, price: Floats, begin: int,
              step_s: int) -> CoolingPlan:  # fmt: skip
        samples = self.samples()
        if len(samples.inlet_c) < DAY:
            raise PlanError("less than a day was read")
        at = (now + STEP_S * np.arange(AHEAD) - begin) // step_s
        ahead = price[np.clip(at.astype(int), 0, len(price) - 1)]
        n = int(np.count_nonzero(at < len(price)))
        if n < DAY // 4:
            raise PlanError("the plan has less than six hours to come")
        it, outdoor = (blend(filled(one), len(one), n, DAY) for one in (samples.it_kw, samples.outdoor_c))
        least, most = self._setpoint_band(own_c)
        away = self._middle_offset()
        # From where the set-point has the inlet, not from a reading with its noise: a step would drown in that.
        inlet = reading.setpoint_c + away
        mass = float(model.mass_c(filled(samples.inlet_c), model.middle_c)[-1])
        band = InletBand(least + away, most + away, self.file.band.rate_c_per_h)
        return plan_cooling(model, band, own_c + away, (inlet, mass), model.held_kw(np.maximum(it, 0.0), outdoor),
                            ahead[:n], STEP_S / 3600.0)  # fmt: skip

    # ---- what is believed ----

    def why_not_believed(self, now: float) -> str:
        """Why the readings are not to be acted on; "" where they are."""
        reading = self._seen[-1][1]
        powers = (("cooling", reading.cooling_kw), ("it", reading.it_kw))
        for name, value in powers:
            if not (math.isfinite(value) and value >= 0):
                return f"[{name}] reads {value:g} kW"
        setpoints = [one.setpoint_c for at, one in self._seen if now - at <= ANSWER_S]
        for name, value in (("setpoint", reading.setpoint_c), ("outdoor", reading.outdoor_c)):
            if not (math.isfinite(value) and -40 <= value <= PLAUSIBLE_C[1]):
                return f"[{name}] reads {value:g} C"
        for k, (value, at) in enumerate(zip(reading.inlets_c, self.file.inlets, strict=True)):
            where = f"[[inlet]] {k + 1} reads {value:g} C"
            if not (math.isfinite(value) and PLAUSIBLE_C[0] <= value <= PLAUSIBLE_C[1]):
                return where
            least = min(setpoints) + at.offset_c - BELIEVED_C - same_c(self.file)
            most = max(setpoints) + at.offset_c + BELIEVED_C + same_c(self.file)
            if not least <= value <= most:
                return (f"{where}: set-point and the distance that was measured by hand have it within {least:.1f} to "
                        f"{most:.1f} C")  # fmt: skip
            values = [one.inlets_c[k] for _, one in self._seen]
            if min(values) == max(values) and self._moved_for(now, ANSWER_S):
                return f"{where} and has not moved since the set-point moved: it stands still"
        return ""

    def _moved_for(self, now: float, span_s: float) -> bool:
        """Whether the set-point stands, for so long, elsewhere than it did before within what is remembered."""
        latest = self._seen[-1][1].setpoint_c
        other = [at for at, one in self._seen if abs(one.setpoint_c - latest) >= MOVED_C]
        return bool(other) and now - max(other) >= span_s

    def _stand_apart(self, now: float, span_s: float, why: str) -> None:
        self._apart_until, self._why_apart, self._wanted_c = now + span_s, why, math.nan

    # ---- orders ----

    def _order(self, now: float, reading: Reading, own_c: float, target_c: float, text: str) -> None:
        if self.file.setpoint_band is None:
            return
        if target_c == own_c:
            if self.claim is not None:
                self._give_back(now, text)
            self._dry_c = math.nan
            return
        if abs(target_c - reading.setpoint_c) <= same_c(self.file):
            return
        while self._written and now - self._written[0] > 86_400:
            self._written.popleft()
        if len(self._written) >= self.file.writes_per_day_max:
            self._give_back(now, f"{len(self._written)} writes in a day are what the file allows")
            return
        row: dict[str, object] = {"setpoint_c": target_c, "before_c": own_c, "why": text}
        if self.allowed.dry_run:
            if target_c != self._dry_c:
                self._audit.write(now, row, f"{self.file.name} to {target_c:g} C: {text}", "dry run")
            self._dry_c = target_c
            return
        self._audit.write(now, row, f"{self.file.name} to {target_c:g} C: {text}", "asked")
        # Both are kept until the write is known: whoever comes after us knows either.
        self._keep(Claim(own_c, target_c, reading.setpoint_c))
        self._written.append(now)
        self.unit.write(target_c)

    def _give_back(self, now: float, why: str) -> None:
        """The owner's own set-point; said where it cannot be written, and tried again the next round."""
        if self.claim is None:
            return
        before = self.claim.before_c
        if self.allowed.dry_run:
            self.doubts.append(
                f"a set-point of before stands, and a dry run does not put the owner's own, {before:g} C, back"
            )
            return
        self._audit.write(now, {"setpoint_c": before, "why": why}, f"{self.file.name} to {before:g} C: {why}", "asked")
        try:
            self.unit.write(before)
        except (CoolingError, OSError) as what:
            self.doubts.append(f"{what}: the set-point of before, {before:g} C, is not back yet ({why})")
            self._audit.write(now, {"unit": self.file.name}, self.file.name, f"refused: {what}")
            return
        self._keep(None)
        self._wanted_c = math.nan

    def _keep(self, claim: Claim | None) -> None:
        kept = {} if claim is None else dict(claim.__dict__)
        atomic_file.replace(self._path(CLAIM_FILE), json.dumps(kept).encode())
        self.claim = claim

    # ---- what is remembered ----

    def _gather(self, now: float, reading: Reading, *, believed: bool) -> bool:
        """Means of quarter hours into the history; whether one has just ended."""
        at = int(now) // STEP_S * STEP_S
        ended = at != self._quarter_at and self._quarter_at >= 0
        if ended and self._quarter:
            inlets = [sum(one.inlets_c) / len(one.inlets_c) for one in self._quarter]
            parts = (inlets, *([getattr(one, name) for one in self._quarter]
                               for name in ("cooling_kw", "it_kw", "outdoor_c")))  # fmt: skip
            self._rows[self._quarter_at] = tuple(float(np.mean(part)) for part in parts)
            for old in [one for one in self._rows if one < at - DAYS_READ * 86_400]:
                del self._rows[old]
            _write_history(self._path(HISTORY_FILE), self._rows)
        if at != self._quarter_at:
            self._quarter, self._quarter_at = [], at
        if believed:
            self._quarter.append(reading)
        return ended

    def samples(self) -> Samples:
        """What was read, quarter hour by quarter hour, to the newest whole one."""
        if not self._rows:
            return Samples(*(np.zeros(0) for _ in range(4)))
        first, last = min(self._rows), max(self._rows)
        table = np.full(((last - first) // STEP_S + 1, 4), np.nan)
        for at, row in self._rows.items():
            table[(at - first) // STEP_S] = row
        return Samples(*table.T)

    def _advised(self, now: float, own_c: float, target_c: float, text: str) -> CoolingAdvice:
        model = self.model
        made = CoolingAdvice(int(now), text, target_c, own_c)
        if model is not None:
            made.power_error, made.inlet_error_c = model.power_error, model.inlet_error_c
            made.still_error_c = model.still_error_c
        if target_c != own_c:
            made.saves_eur = self._saves_eur if model is not None and not model.why_not else math.nan
        return made

    def _write_advice(self) -> None:
        kept = {key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in self.advice.__dict__.items()}  # fmt: skip
        kept["line"] = advice_line(self.file.name, self.advice)
        if self._acts and self.file.setpoint_band is not None and not self.allowed.dry_run:
            kept[MOVED] = self._moved
        atomic_file.replace(self._path(COOLING_ADVICE), json.dumps(kept).encode())

    _saves_eur = math.nan
    _moved: dict[str, object] | None = None
    _fitted = False
    _acts = False  # a plan of the room is in force, and not only the owner's own set-point


def begin_of(now: float) -> int:
    """The quarter hour's edge that is nearest: a room's plan begins when one has just ended."""
    return round(now / STEP_S) * STEP_S


def learning(now: float) -> bool:
    """Whether a room that is not known yet is to be cooler now: two hours of six, and half of every second day."""
    hour = int(now // 3600)
    return hour % 6 < 2 or (hour // 24 % 2 == 1 and hour % 24 < 12)


def advice_line(name: str, advice: CoolingAdvice) -> str:
    """One sentence for people."""
    error = ""
    if math.isfinite(advice.power_error):
        error = (f"; the room's model misses an hour's cooling power by {advice.power_error:.0%}, the inlet an hour "
                 f"ahead by {advice.inlet_error_c:.1f} C (who says that it stays: {advice.still_error_c:.1f} C), each "
                 "in nine of ten hours that it had not seen")  # fmt: skip
    return f"{name}: set-point {advice.setpoint_c:g} C advised, {advice.own_c:g} C its owner's: {advice.text}{error}"


def _clock(utc_s: float) -> str:
    return time.strftime("%H:%MZ", time.gmtime(utc_s))


def _read_history(path: Path) -> dict[int, tuple[float, ...]]:
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
        if rows and tuple(rows[0]) != COLUMNS:
            raise ValueError("other columns")
        return {int(row[0]): tuple(float(one) for one in row[1:5]) for row in rows[1:]}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, IndexError) as why:
        raise CoolingError(f"{path}: {why}; move it away: the room is learned again") from None


def _write_history(path: Path, rows: dict[int, tuple[float, ...]]) -> None:
    lines = [",".join(COLUMNS), *(",".join([str(at), *(f"{one:.4f}" for one in rows[at])]) for at in sorted(rows))]
    atomic_file.replace(path, ("\n".join(lines) + "\n").encode())


def only_one(folder: Path, name: str) -> TextIO:
    """The lock of a unit's one adapter, held while open. Raises CoolingError."""
    return only_adapter(folder / LOCK_FILE.replace("*", name), name, CoolingError)


def setpoint_back(folder: Path, path: Path, dry_run: bool = False) -> str:
    """For the guard: the owner's own set-point, whatever the sensors read; "" when nothing of ours is left."""
    if dry_run:
        return ""  # what stands is of an earlier run, and a dry one writes nothing
    try:
        file = read_cooling_file(path)
        unit = ModbusCooling(file)
        left = CoolingSetpoint(unit, file, folder, CoolingAllowed())
        if left.claim is None:
            return ""
        left._keep(left.claim.seen_as(unit.setpoint(), same_c(file)))  # what somebody set meanwhile is theirs
        left._give_back(time.time(), "the adapter is gone")
    except (CoolingError, OSError) as why:
        return str(why)
    return "; ".join(left.doubts) if left.claim is not None else ""
