"""Events of the grid: so much less import for some hours, as announced, planned for, and proved afterwards.

The baseline is checkable by anybody: the mean of load less sun at the same time of the last ten days. What is asked is
a share of it in each quarter hour. Whether it can be kept is said with the first plan that sees the event.
"""

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tidegate.runtime.planner.plan_inputs import Floats, PlanError, Storage
from tidegate.runtime.planner.site_history import QUARTER_S, SiteHistory
from tidegate.runtime.state import atomic_file

EVENTS_FILE = "events.json"
PROOFS_FILE = "event-proofs.json"
BASELINE_DAYS, BASELINE_LEAST = 10, 3
HELD_KW = 0.1  # a meter's own uncertainty
RISK_MAX = 0.05  # share of past errors of the load on which an event may fail and still be promised


@dataclass(frozen=True)
class GridEvent:
    """less: share of the baseline that import is lower by. Times are UTC seconds at quarter hours."""

    name: str
    begin_utc_s: int
    end_utc_s: int
    less: float

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > 64 or not self.name.isprintable():
            raise PlanError(f"event {self.name!r}: give a name of 1 to 64 printable characters")
        if self.begin_utc_s % QUARTER_S or self.end_utc_s % QUARTER_S or self.end_utc_s <= self.begin_utc_s:
            raise PlanError(f"event {self.name}: it begins and ends at quarter hours, the end after the begin")
        if not 0 < self.less <= 1:
            raise PlanError(f"event {self.name}: less = {self.less}: give a share above 0, at most 1, such as 0.25")

    def quarters(self) -> range:
        """Where its quarter hours begin."""
        return range(self.begin_utc_s, self.end_utc_s, QUARTER_S)


@dataclass
class Proof:
    """What was asked and what was measured, kW of each quarter hour; None where nobody measured."""

    name: str
    begin_utc_s: int
    less: float
    baseline_kw: list[float] = field(default_factory=list)
    promised: bool | None = None  # whether the first plan that saw it could keep it
    promise: str = ""
    import_kw: list[float | None] = field(default_factory=list)

    @property
    def held(self) -> int:
        """Quarter hours in which the import was as asked."""
        pairs = zip(self.baseline_kw, self.import_kw, strict=False)
        return sum(one is not None and one <= (1 - self.less) * base + HELD_KW for base, one in pairs)

    @property
    def delivered(self) -> float | None:
        """Share of the baseline's energy that was not drawn; None where a quarter hour was not measured."""
        if len(self.import_kw) != len(self.baseline_kw) or any(one is None for one in self.import_kw):
            return None
        base = sum(self.baseline_kw)
        return 1 - math.fsum(one or 0.0 for one in self.import_kw) / base if base else None


def read_events(folder: Path) -> tuple[GridEvent, ...]:
    """The events of a folder, none where there is no file. Raises PlanError with the file."""
    path = folder / EVENTS_FILE
    try:
        return tuple(GridEvent(**row) for row in json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError) as why:
        raise PlanError(f"{path}: {why}; remove it and announce the events again") from None


def write_events(folder: Path, events: tuple[GridEvent, ...]) -> None:
    """Put them in the place of those before. Raises PlanError where two are one or overlap."""
    ordered = sorted(events, key=lambda one: one.begin_utc_s)
    for one, other in itertools.pairwise(ordered):
        if other.begin_utc_s < one.end_utc_s or one.name == other.name:
            raise PlanError(f"events {one.name} and {other.name} overlap or have one name: change one of them")
    atomic_file.replace(folder / EVENTS_FILE, json.dumps([asdict(one) for one in ordered], indent=1).encode())


def baseline_kw(event: GridEvent, history: SiteHistory) -> list[float]:
    """Of each quarter hour. Raises PlanError where fewer than BASELINE_LEAST days are known for one of them."""
    found = []
    for begin in event.quarters():
        past = [history.quarters.get(begin - 86_400 * day) for day in range(1, BASELINE_DAYS + 1)]
        known = [max(0.0, one.load_kw - one.pv_kw) for one in past
                 if one is not None and one.load_kw is not None and one.pv_kw is not None]  # fmt: skip
        if len(known) < BASELINE_LEAST:
            at = datetime.fromtimestamp(begin, UTC)
            raise PlanError(
                f"event {event.name}: {len(known)} days are known at {at:%H:%M}Z, a baseline wants {BASELINE_LEAST}"
            )
        found.append(math.fsum(known) / len(known))
    return found


def failing_share(load_paths_kw: Floats, caps_kw: Floats, storage: Storage, stored_kwh: float, step_h: float) -> float:
    """Share of the paths on which the caps cannot be held by the battery; NaN where there is no path.

    load_paths_kw: (paths, steps) load less sun with the jobs that run, in the event's steps; caps_kw: (steps,);
    stored_kwh: at its begin. Charging in between is not counted on.
    """
    if len(load_paths_kw) == 0:
        return math.nan
    need_kw = np.maximum(0.0, load_paths_kw - caps_kw)
    drawn_kwh = need_kw.sum(axis=1) * step_h / storage.discharge_efficiency
    too_much = need_kw.max(axis=1) > storage.discharge_kw_max + HELD_KW
    empty = drawn_kwh > max(0.0, stored_kwh - storage.least_kwh) + HELD_KW * step_h
    return float((too_much | empty).mean())


class EventBook:
    """Proofs of the events of a folder, kept there."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / PROOFS_FILE
        self.proofs: dict[str, Proof] = {}
        self.lost = ""
        try:
            self.proofs = {row["name"]: Proof(**row) for row in json.loads(self._path.read_text())}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError) as why:
            self.lost = f"{self._path}: {why}; proofs of events before are not known"

    def caps_kw(
        self, events: tuple[GridEvent, ...], history: SiteHistory, now_utc_s: int
    ) -> tuple[dict[int, float], list[str]]:
        """(import allowed by the UTC second of a quarter hour's begin, events without a baseline in words)."""
        caps: dict[int, float] = {}
        said: list[str] = []
        for event in events:
            if event.end_utc_s <= now_utc_s:
                continue
            proof = self.proofs.get(event.name)
            if proof is None or proof.begin_utc_s != event.begin_utc_s or proof.less != event.less:
                try:
                    proof = Proof(event.name, event.begin_utc_s, event.less, baseline_kw(event, history))
                except PlanError as why:
                    said.append(f"{why}: it is not planned for")
                    continue
                self.proofs[event.name] = proof
            caps |= {at: (1 - event.less) * base for at, base in zip(event.quarters(), proof.baseline_kw, strict=True)}
        return caps, said

    def promise(self, events: tuple[GridEvent, ...], start_utc_s: int, import_kw: list[float],
                risk: Callable[[slice, Floats], float] = lambda steps, caps_kw: 0.0) -> None:  # fmt: skip
        """Note of each event that the plan holds whole whether it can be kept: the last word 15 minutes before it.

        risk: of steps of the plan under caps, the share of past errors on which these are not held.
        NaN: none are known.
        """
        for event in events:
            proof = self.proofs.get(event.name)
            first = (event.begin_utc_s - start_utc_s) // QUARTER_S
            last = first + len(event.quarters())
            if proof is None or first < (1 if proof.promised is not None else 0) or last > len(import_kw):
                continue
            caps = [(1 - event.less) * base for base in proof.baseline_kw]
            over = [one - cap for one, cap in zip(import_kw[first:last], caps, strict=True)]
            failing = risk(slice(first, last), np.array(caps))
            proof.promised = max(over) <= HELD_KW and failing <= RISK_MAX
            proof.promise = ""
            if max(over) > HELD_KW:
                proof.promise = f"{max(over):.1f} kW more than asked are expected"
            elif math.isnan(failing):
                proof.promise = "how far the forecast of the load may be off is not known yet"
            elif not proof.promised:
                proof.promise = f"with {failing:.0%} of the errors that forecasts of the load had, it is not"

    def settle(self, events: tuple[GridEvent, ...], history: SiteHistory, now_utc_s: int) -> None:
        """Write down what was measured in events that are over."""
        for event in events:
            proof = self.proofs.get(event.name)
            if proof is None or event.end_utc_s > now_utc_s:
                continue
            measured = [history.quarters.get(at) for at in event.quarters()]
            proof.import_kw = [None if one is None else one.grid_kw for one in measured]

    def write(self) -> None:
        """Keep it. Raises OSError."""
        if self.proofs:
            atomic_file.replace(
                self._path, json.dumps([asdict(one) for one in self.proofs.values()], indent=1).encode()
            )

    def lines(self) -> list[str]:
        """For people."""
        said = []
        for proof in self.proofs.values():
            at, count = datetime.fromtimestamp(proof.begin_utc_s, UTC), len(proof.baseline_kw)
            text = f"event {proof.name} ({at:%Y-%m-%d %H:%M}Z, {proof.less:.0%} less for {count} quarter hours): "
            if proof.import_kw:
                part = "not measured throughout" if proof.delivered is None else f"{proof.delivered:.1%} less delivered"
                said.append(text + f"held in {proof.held} of {count}, {part}")
            else:
                can = {
                    True: "can be kept",
                    False: f"CANNOT be kept for certain: {proof.promise}",
                    None: "not within the plan yet",
                }
                said.append(text + can[proof.promised])
        return said
