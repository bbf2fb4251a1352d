"""What the two acts of the demo give to the report: plain numbers, no processes."""

from dataclasses import dataclass, field

import numpy as np

from tidegate.runtime.carbon.ledger.bodies import PeriodBody


@dataclass(slots=True)
class WholeRun:
    """The run in virtual time.

    series : columns by name, one row every `row_s` of plant time; names as in the simulated world's series.
    limit_w : import limit at the connection point. bodies : the ledger's period entries.
    above_wh, peak_w : energy above the limit and peak, keys without, with, with_outside_reaction, floor.
    """

    seconds: float
    cycles: int
    wall_s: float
    cpu_s: float
    sha256: str
    seed: int
    row_s: float
    series: dict[str, np.ndarray]
    limit_w: float
    reaction_s: float
    steps: int
    above_wh: dict[str, float]
    peak_w: dict[str, float]
    reasons: tuple[str, ...]
    bodies: list[PeriodBody]
    kinds: dict[str, str]
    notes: list[str]
    checks: dict[str, int] = field(default_factory=dict)  # violations seen from outside; all but cycles are 0
    step_to_wire_ms: list[float] = field(default_factory=list)
    close_up: dict[str, np.ndarray] = field(default_factory=dict)  # the steepest steps, a row every 10 ms
    import_wh: float | None = None  # the plant's own; what the meters' registers are booked as is beside it

    def held_s(self, *reasons: str) -> float:
        """Seconds in which the setpoint had one of these reasons."""
        numbers = [number for number, name in enumerate(self.reasons) if name in reasons]
        return float(np.isin(self.series["reason"].astype(int), numbers).sum() * self.row_s)

    @property
    def speed_x(self) -> float:
        return self.seconds / self.wall_s if self.wall_s > 0 else 0.0


@dataclass(slots=True)
class LiveRun:
    """The live act: what the processes measured of themselves.

    lateness, work : (lower edge in ns, count) of a histogram's buckets that are not empty.
    """

    seconds: float
    period_us: int
    cycles: int
    missed: int
    lateness_us: dict[str, float]
    work_us: dict[str, float]
    lateness: list[tuple[int, int]]
    work: list[tuple[int, int]]
    step_to_wire_ms: list[float]
    lacks: list[str]
    core_rss_kib: int
    core_ring_kib: int  # of these, the recorder's memory
    core_threads: int
    core_imports: dict[str, bool]
    meter_records: int
    meter_booked: int
    meter_gaps: int
    grid_peak_w: float
    limit_w: float
    clean_end: bool
    notes: list[str] = field(default_factory=list)
