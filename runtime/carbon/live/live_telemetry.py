"""What telemetry saw, as shares of the metered energy: racks, claims of pods and jobs, and what the meter has more.

The meter gives the total. What PDUs, servers or cards counted within it gives the shares, by the level that is nearest
to the meter: PDUs, else servers, else cards, else pods. The difference of the two is a number of its own.
"""

import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tidegate.runtime.carbon.integers import share
from tidegate.runtime.carbon.jobs.settle import DAY_S
from tidegate.runtime.carbon.jobs.work import Work
from tidegate.runtime.carbon.ledger.bodies import PeriodBody
from tidegate.runtime.carbon.live.idle_energy import Assumptions, HourlyFactors, api_rows, find_idle
from tidegate.runtime.carbon.live.live_figures import Figures
from tidegate.runtime.telemetry.energy_store import BUCKET_S, ClaimKey, EnergyStore, RackKey, opened

LEVELS = ("pdu", "server", "card", "pod")
NO_RACK = "(no rack named)"
UNCLAIMED = "(claimed by nobody)"
ROWS_MAX = 400
LATE_S = 60.0
SETTLED_S = 2 * BUCKET_S  # buckets so old are not written any more

Rows = list[dict[str, object]]


class LiveTelemetry:
    """Reads the store of the telemetry process. loads : IT loads of the account.

    Buckets that are over are added up once a day; only the newest are read again at each look.
    """

    def __init__(self, folder: Path, loads: Sequence[str], now: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._loads = sorted(loads)
        self._now = now
        self._store: EnergyStore | None = None
        self._since = self._until = -1  # what is kept
        self._kept: tuple[Counter[RackKey], Counter[ClaimKey]] = Counter(), Counter()
        self._racks: Counter[RackKey] = Counter()
        self._claims: Counter[ClaimKey] = Counter()
        self._first_day: int | None = None
        self.trouble = ""

    def read(self, start_utc_s: int, end_utc_s: int) -> None:
        """Take in what was counted in a stretch; what keeps it from that is `trouble`."""
        self._racks, self._claims, self.trouble = Counter(), Counter(), ""
        try:
            if self._store is None:
                self._store = opened(self._folder)
            if self._store is None:
                return
            first = start_utc_s // BUCKET_S * BUCKET_S
            if first != self._since:
                self._since = self._until = first
                self._kept = Counter(), Counter()
            over = max(self._until, end_utc_s // BUCKET_S * BUCKET_S - SETTLED_S)
            racks, claims = self._store.sums(self._until, over)
            self._kept[0].update(racks)
            self._kept[1].update(claims)
            self._until = over
            racks, claims = self._store.sums(over, end_utc_s)
            self._racks, self._claims = Counter(self._kept[0]), Counter(self._kept[1])
            self._racks.update(racks)
            self._claims.update(claims)
        except sqlite3.Error as why:
            self._store, self.trouble = None, f"telemetry cannot be read: {why}"

    def doubts(self) -> list[str]:
        """Why shares by telemetry are not good now."""
        found = [self.trouble] if self.trouble else []
        try:
            for name, heard, hosts, silent, trouble in self._store.states() if self._store is not None else ():
                age_s = self._now() - heard
                if not heard or age_s > LATE_S:
                    found.append(f"telemetry {name}: not heard {f'for {age_s:.0f} s' if heard else 'yet'}: {trouble}")
                elif silent:
                    found.append(f"telemetry {name}: {silent} of {hosts} hosts are silent: {trouble}")
        except sqlite3.Error as why:
            self._store = None
            found.append(f"telemetry cannot be read: {why}")
        return found

    def _load(self, node: str) -> str:
        """The load of the account that a source's `node` means; "" = all of the IT load."""
        return node or (self._loads[0] if len(self._loads) == 1 else "")

    def first_day(self) -> int | None:
        """The first UTC day of which anything is kept; None without a store, or while it cannot be read."""
        if self._first_day is None:
            try:
                self._store = self._store or opened(self._folder)
                first = None if self._store is None else self._store.first_bucket()
                self._first_day = None if first is None else first // DAY_S * DAY_S
            except sqlite3.Error as why:
                self._store, self.trouble = None, f"telemetry cannot be read: {why}"
        return self._first_day

    def claims_between(self, start_utc_s: int, end_utc_s: int) -> list[Work] | None:
        """Work as pods and cards showed it in a span that is over; what nobody claimed is idle.

        None while the store cannot be read: a day settled without it would book its work as idle.
        """
        try:
            self._store = self._store or opened(self._folder)
            if self._store is None:
                return []
            found = self._store.sums(start_utc_s, end_utc_s)[1]
        except sqlite3.Error as why:
            self._store, self.trouble = None, f"telemetry cannot be read: {why}"
            return None
        return [replace(work, claimed=work.id != UNCLAIMED) for work in self._works(found)]

    def claims(self) -> list[Work]:
        """Work as pods and cards show it, each with its energy by 5 minutes, and what nobody claims under one name.

        A pod that cards name is counted by its cards alone: Kepler's number for it has the same GPU energy in it.
        """
        return self._works(self._claims)

    def _works(self, claims: Mapping[ClaimKey, int]) -> list[Work]:
        shapes: dict[tuple[str, str, str], dict[int, int]] = defaultdict(dict)
        on_cards = {(job, namespace) for (_, level, namespace, job, _) in claims if level == "card" and job}
        for (node, level, namespace, job, bucket), milliwh in claims.items():
            if level == "pod" and (job, namespace) in on_cards:
                continue
            shape = shapes[job or UNCLAIMED, namespace if job else UNCLAIMED, self._load(node)]
            shape[bucket] = shape.get(bucket, 0) + milliwh
        works = []
        for (job, namespace, node), shape in shapes.items():
            start, end, milliwh = min(shape), max(shape) + BUCKET_S, sum(shape.values())
            if milliwh or job != UNCLAIMED:
                works.append(Work(job, start, end, namespace, node, 1, milliwh, shape, {}, "telemetry"))
        return works

    def counted(self) -> dict[str, tuple[str, int]]:
        """Load -> (level that was counted, mWh of it): the level nearest to the meter that says anything."""
        sums: dict[str, Counter[str]] = defaultdict(Counter)
        for (node, level, _), milliwh in self._racks.items():
            sums[self._load(node)][level] += milliwh
        found = {}
        for node, by_level in sums.items():
            level = next((level for level in LEVELS if by_level[level]), LEVELS[-1])
            found[node] = level, by_level[level]
        return found

    def idle(self, bodies: Sequence[PeriodBody], start_utc_s: int, end_utc_s: int) -> Rows:
        """Rows of what drew power at rest in a stretch. bodies : its booked periods."""
        try:
            if self._store is None:
                self._store = opened(self._folder)
            if self._store is None:
                return []
            assumed = Assumptions()
            found = find_idle(self._store, HourlyFactors(bodies, self._loads), start_utc_s, end_utc_s, assumed)
        except sqlite3.Error as why:
            self._store, self.trouble = None, f"telemetry cannot be read: {why}"
            return []
        return api_rows(found, start_utc_s, end_utc_s, assumed)

    def racks(self, today: Mapping[str, Figures], since_utc_s: int, until_utc_s: int, doubts: Sequence[str]) -> Rows:
        """Rows of racks: the metered energy and carbon of each load in proportion to what was counted in its racks."""
        counted = self.counted()
        rows: Rows = []
        for node, (level, _) in sorted(counted.items()):
            figures = today.get(node)
            if figures is None:
                continue
            by_rack: Counter[str] = Counter()
            for (source_node, source_level, rack), milliwh in self._racks.items():
                if source_level == level and self._load(source_node) == node:
                    by_rack[rack or NO_RACK] += milliwh
            if not sum(by_rack.values()):
                continue
            names = sorted(by_rack, key=lambda name: (-by_rack[name], name))
            weights = [by_rack[name] for name in names]
            parts = zip(names, share(figures.energy_milliwh, weights), share(figures.ug, weights), strict=True)
            for name, milliwh, ug in list(parts)[:ROWS_MAX]:
                own = Figures(milliwh, ug, None, figures.renewable_direct, figures.renewable_stored, figures.elapsed_s)
                rows.append({"name": name, "node": node, "today": own.span(since_utc_s, until_utc_s, doubts),
                             "counted_kwh": by_rack[name] / 1e6, "more": {"counted_by": level}})  # fmt: skip
        return rows
