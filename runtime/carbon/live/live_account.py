"""The account as it is now: the periods booked since local midnight and the open one, by site, load, job, namespace.

Everything shown is provisional until its period is booked. When it is, what was shown last is compared with it.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

from tidegate.config.zones import zone_of
from tidegate.hal.description import described
from tidegate.runtime.carbon.jobs.settle import DAY_S
from tidegate.runtime.carbon.ledger.bodies import PeriodBody
from tidegate.runtime.carbon.live.live_figures import Figures, load_figures, site_figures, sums_of
from tidegate.runtime.carbon.live.live_telemetry import LiveTelemetry
from tidegate.runtime.carbon.live.live_work import LiveWork
from tidegate.runtime.carbon.live.provisional import (
    CLOSING_S,
    Bursts,
    Provisional,
    Resolution,
    body_doubts,
    provisional,
)
from tidegate.runtime.carbon.live.stood_up import StoodUp
from tidegate.runtime.carbon.sidecar.service import Sidecar

Rows = list[dict[str, object]]


IDLE_EVERY_S = 600.0  # the last day is looked through so often


def midnight_utc_s(zone: tzinfo, utc_s: int) -> int:
    """The last local midnight."""
    local = datetime.fromtimestamp(utc_s, zone)
    return int((local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)).timestamp())


class LiveAccount:
    """Live figures of one sidecar. describe : the site's own description. state : where telemetry's store would be."""

    def __init__(self, describe: Mapping[str, object], sidecar: Sidecar, state: Path | None = None) -> None:
        self._zone = zone_of(described(describe).site.timezone)
        self._sidecar = sidecar
        self._kinds = sidecar.nodes.kinds
        loads = [name for name, role in self._kinds.items() if role == "it"]
        self._telemetry = None if state is None else LiveTelemetry(state, loads)
        self._resolution, self._bursts = Resolution(), Bursts()
        self._work = LiveWork(sidecar.ledger, self._kinds)
        self._idle_due_s = 0.0
        self.stood_up = StoodUp()
        self._head = -2
        self._midnight = -1
        self._booked: list[PeriodBody] = []

    def look(self, now_utc_s: float) -> dict[str, Rows]:
        """Rows by kind; kinds that are not due yet are left out. Empty before the first record."""
        open_ = provisional(self._sidecar, self._resolution, now_utc_s)
        if open_ is None:
            return {}
        open_.doubts += self._bursts.see(open_.body, open_.until_utc_s, self._sidecar.booker.period_s)
        midnight = midnight_utc_s(self._zone, open_.until_utc_s)
        self._read_booked(midnight)
        start = open_.body["start_utc_s"]
        bodies = [body for body in self._booked if body["start_utc_s"] < start] + [open_.body]
        now_sums, today_sums = sums_of([open_.body]), sums_of(bodies)
        now, today = site_figures(now_sums, self._kinds), site_figures(today_sums, self._kinds)
        self.stood_up.show(start, now, not open_.doubts)
        today_doubts = self._today_doubts(midnight, bodies[:-1], open_)
        rows: dict[str, Rows] = {
            "site": [self._site_row(midnight, open_, now, today, today_doubts)],
            "node": self._node_rows(midnight, open_, load_figures(now_sums, self._kinds),
                                    load_figures(today_sums, self._kinds), today_doubts),
        }  # fmt: skip
        if self._work.due():
            it_ug = today_sums.role_ug(self._kinds, "it")
            room = today.ug / it_ug if it_ug else 1.0
            telemetry, doubts, claims = self._telemetry, today_doubts, []
            if telemetry is not None:
                telemetry.read(midnight, open_.until_utc_s)
                claims, doubts = telemetry.claims(), [*today_doubts, *telemetry.doubts()]
                figures = load_figures(today_sums, self._kinds)
                rows["rack"] = telemetry.racks(figures, midnight, open_.until_utc_s, doubts)
            rows |= self._work.rows(bodies, open_.until_utc_s, room, doubts, claims)
        if self._telemetry is not None:
            if time.monotonic() >= self._idle_due_s:
                self._idle_due_s = time.monotonic() + IDLE_EVERY_S
                since = open_.until_utc_s - DAY_S
                recent = [e.body for e in self._sidecar.ledger.in_force("period", since, start)] + [open_.body]
                rows["idle"] = self._telemetry.idle(recent, since, open_.until_utc_s)
            self._name_difference(rows["node"], self._telemetry.counted())
        return rows

    def _name_difference(self, rows: Rows, counted: Mapping[str, tuple[str, int]]) -> None:
        """Beside each metered load: what was counted within it, and what the meter has more."""
        for row in rows:
            name, today = str(row["name"]), row["today"]
            if name in counted and isinstance(today, dict):
                level, milliwh = counted[name]
                row["counted_kwh"] = milliwh / 1e6
                row["difference_kwh"] = round(today["energy_kwh"] - milliwh / 1e6, 6)
                more = row["more"]
                assert isinstance(more, dict)
                more["counted_by"] = level

    @property
    def closing(self) -> bool:
        """Whether the open period is in its last seconds: a look now is the last one of it."""
        booker = self._sidecar.booker
        return booker.last_label_ns >= 0 and booker.open_until_ns - booker.last_label_ns <= CLOSING_S * 10**9

    def _read_booked(self, midnight: int) -> None:
        """Periods since midnight, read again when the ledger has grown; what was shown of them is compared."""
        head = self._sidecar.ledger.head[0]
        if head == self._head and midnight == self._midnight:
            return
        before = min(midnight, self._midnight) if self._midnight >= 0 else midnight
        self._head, self._midnight = head, midnight
        found = [entry.body for entry in self._sidecar.ledger.in_force("period", before)]
        for body in found:
            if self.stood_up.waits_for(body["start_utc_s"]):
                self.stood_up.booked(body["start_utc_s"], site_figures(sums_of([body]), self._kinds))
        self._booked = [body for body in found if body["start_utc_s"] >= midnight]

    def _today_doubts(self, midnight: int, booked: Sequence[PeriodBody], open_: Provisional) -> list[str]:
        counted: Counter[str] = Counter(text for body in booked for text in body_doubts(body))
        counted.update({"the account began within a period": sum("PARTIAL" in body["flags"] for body in booked)})
        doubts = list(open_.doubts)
        doubts += [f"{count} of {len(booked)} booked periods: {text}" for text, count in counted.items() if count]
        missing_s = open_.body["start_utc_s"] - midnight - sum(body["length_s"] for body in booked)
        if missing_s > 0:
            doubts.insert(0, f"{timedelta(seconds=missing_s)} h since midnight are not in the account")
        return doubts

    def _site_row(self, midnight: int, open_: Provisional, now: Figures, today: Figures,
                  today_doubts: Sequence[str]) -> dict[str, object]:  # fmt: skip
        grid = open_.body["factors"].get("grid")
        stood = self.stood_up
        more: dict[str, object] = {
            "pue_kind": "interim, IT by difference" if self._sidecar.nodes.by_difference else "interim, as metered",
            "grid_g_per_kwh": None if grid is None else grid["ug_per_kwh"] / 1e6,
            "grid_factor": None if grid is None else grid["status"],
            "policy": open_.body["method"]["policy"],
            "periods_compared": float(stood.periods),
            "periods_within_1_percent": float(stood.within),
            "periods_flagged": float(stood.flagged),
            "periods_wrong_and_not_flagged": float(stood.unflagged),
        }
        if stood.named:
            more["newest_difference"] = stood.named[-1][:200]
        return {
            "name": self._sidecar.site,
            "now": now.span(open_.body["start_utc_s"], open_.until_utc_s, open_.doubts),
            "today": today.span(midnight, open_.until_utc_s, today_doubts),
            "more": more,
        }

    def _node_rows(self, midnight: int, open_: Provisional, now: Mapping[str, Figures], today: Mapping[str, Figures],
                   today_doubts: Sequence[str]) -> Rows:  # fmt: skip
        rows: Rows = []
        for name, figures in sorted(today.items()):
            now_figures = now.get(name)
            row: dict[str, object] = {
                "name": name,
                "now": None if now_figures is None
                else now_figures.span(open_.body["start_utc_s"], open_.until_utc_s, open_.doubts),
                "today": figures.span(midnight, open_.until_utc_s, today_doubts),
                "more": {"role": self._kinds.get(name, "")},
            }  # fmt: skip
            rows.append(row)
        return rows
