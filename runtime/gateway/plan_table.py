"""What lies in the core's plan: spans of the calendar and of a client's plan in monotonic time, the billing period.

The core only compares times. So this looks ahead as far as the core's table reaches and renews it as spans go by and as
the clock is corrected. When this process dies, it leaves a plan that goes on by itself for as far as it reaches.
"""

import json
import time
from collections.abc import Sequence
from datetime import tzinfo
from pathlib import Path
from typing import Any, Protocol

from tidegate.config import calendar
from tidegate.config.zones import zone_of
from tidegate.ext.abi.shared import PLAN_ROWS_MAX, Plan, PlanRow, PlanSource
from tidegate.hal.description import Description, Slot
from tidegate.runtime.gateway.orders_held import Planned
from tidegate.runtime.state.atomic_file import replace
from tidegate.runtime.state.held import BILLING, held_dir
from tidegate.runtime.state.plain_file import read_plain

SECOND = 1_000_000_000
CALENDAR, CLIENT = PlanSource.CALENDAR, PlanSource.CLIENT
AHEAD_S = 7 * 86_400  # a calendar further ahead is not worth a row
ROWS_EACH = PLAN_ROWS_MAX // 2
EVERY_NS = SECOND
ZONE_S = 3600  # a zone without a change ahead is looked at again
MOVED_NS = 50_000_000  # the clock was corrected by more: the spans move with it
PAID_W_MAX = 1e8  # as in the site file
CLIENT_NUMBER = 1 << 30  # above the calendar's numbers; a step is told from others by its start


class Memory(Protocol):
    """What is needed of the shared memory."""

    def put_plan(
        self,
        rows: list[PlanRow],
        *,
        billing_end_t_ns: int = 0,
        billing_number: int = 0,
        paid_w: float = 0.0,
        clock: tuple[int, int, int] = (0, 0, 0),
    ) -> int: ...
    def plan(self) -> Plan | None: ...


class Billing:
    """What the running billing period has paid for already, kept in a file over restarts.

    kind  : "month" or "year", by the site's clock.
    peaks : the bill is the mean of so many highest peaks of the period; of : what each is the highest window of, "day"
            or "month"; None = the period itself, so that its one highest window is the bill.
    A window below the `peaks`-th highest of the other days costs nothing, so no more than that is shaved. A file that
    cannot be read counts as none: less is then taken for paid, so more is shaved.
    """

    def __init__(
        self, path: Path, kind: str, zone: tzinfo, start_w: float, *, peaks: int = 1, of: str | None = None
    ) -> None:
        self.path, self.kind, self.zone = path, kind, zone
        self.peaks, self.of = peaks, of or kind
        self.number, self.end_utc_s = 0, 0  # of the running day, month or year that a peak is of
        self.highest_w: list[float] = []  # of the others that have ended in this period, falling
        self._own_w = 0.0
        self._period = 0
        self._start_w = start_w
        self._kept: dict[str, Any] = {}
        self.problem = ""
        try:
            kept = json.loads(read_plain(path))
            if isinstance(kept, dict) and kept.get("kind") == kind and kept.get("of", kind) == self.of:
                others = [float(one) for one in kept.get("highest_w", [])]
                if not all(0.0 <= one <= PAID_W_MAX for one in (float(kept["paid_w"]), *others)):
                    raise ValueError("a power that cannot be")  # nor NaN, which compares false
                self._kept = {"period": kept["number"], **kept, "highest_w": others}
                self._start_w = 0.0
        except FileNotFoundError:
            pass  # the first start: nothing has been billed yet
        except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as why:
            self.problem = f"{path}: {why}"

    @property
    def paid_w(self) -> float:
        """Mean import of a window up to which the running day, month or year costs nothing more, W."""
        free_w = self.highest_w[self.peaks - 1] if len(self.highest_w) >= self.peaks else 0.0
        return max(self._own_w, free_w)

    @property
    def billed_w(self) -> float:
        """The mean of the highest peaks so far, W: what the bill is at if nothing higher comes."""
        highest = sorted([*self.highest_w, self._own_w], reverse=True)[: self.peaks]
        return sum(highest) / len(highest)

    def turn(self, utc_s: int) -> None:
        """Let the period of this second be the running one."""
        if self.number and utc_s < self.end_utc_s:
            return
        period = calendar.billing_period(self.kind, self.zone, utc_s)[0]
        number, _, self.end_utc_s = calendar.billing_period(self.of, self.zone, utc_s)
        if self._kept:
            self._period, self.number = self._kept["period"], self._kept["number"]
            self.highest_w, self._own_w = self._kept["highest_w"], float(self._kept["paid_w"])
            self._kept = {}
        if period != self._period:
            self.highest_w, self._own_w = [], self._start_w
        elif number != self.number:
            self.highest_w = sorted([*self.highest_w, self._own_w], reverse=True)[: self.peaks]
            self._own_w = 0.0
        self._period, self.number = period, number
        self._start_w = 0.0  # what the site file knows was paid for in the period of the first start

    def paid(self, peak_w: float) -> None:
        """Keep a higher window. Raises OSError when the disk refuses."""
        if not peak_w > self.paid_w:
            return
        self._own_w = peak_w
        kept = {"kind": self.kind, "of": self.of, "period": self._period, "number": self.number}
        replace(self.path, json.dumps({**kept, "paid_w": peak_w, "highest_w": self.highest_w}).encode())


class Planner:
    """Keeps the core's plan as calendar, client and billing want it.

    schedule : the slots of the site file. zone : the site's. billing : None where the ratchet has no period.
    is_holiday : the public holidays of the site.
    """

    def __init__(
        self,
        memory: Memory,
        schedule: Sequence[Slot],
        zone: tzinfo,
        billing: Billing | None = None,
        is_holiday: calendar.IsHoliday = calendar.no_holiday,
    ) -> None:
        self.memory = memory
        self.schedule = schedule
        self.zone = zone
        self.billing = billing
        self.is_holiday = is_holiday
        self.client: list[Planned] = []
        self.names: dict[int, str] = {}
        self._due_ns = 0
        self._put: tuple[list[PlanRow], int, int, float] | None = None
        self._clock: tuple[int, int, int] = (0, 0, 0)  # as it was put
        self._zone: tuple[int, int, int, int] = (0, 0, 0, 0)  # good from .. of UTC s, and calendar.clock_ahead of it

    def take_over(self, now_ns: int, utc_ns: int) -> list[Planned]:
        """The client's plan that a gateway before this one left with the core."""
        plan = self.memory.plan()
        found = []
        for row in plan.rows if plan is not None else ():
            if row.source == CLIENT and row.end_t_ns > now_ns:
                start_s, end_s = (round((t_ns - now_ns + utc_ns) / SECOND) for t_ns in (row.start_t_ns, row.end_t_ns))
                found.append(Planned(start_s, end_s, row.forced, dict(row.values)))
        return found

    def put(self, client: list[Planned], now_ns: int, utc_ns: int) -> int:
        """Leave with the core what holds now and next; the plan's seq."""
        self.client = client
        self._due_ns = now_ns + EVERY_NS
        if self.billing is not None:
            self.billing.turn(utc_ns // SECOND)
        fresh = (self._rows(now_ns, utc_ns), *self._period(now_ns, utc_ns))
        self._put = fresh
        self._clock = self._clock_of(now_ns, utc_ns)
        return self.memory.put_plan(
            fresh[0], billing_end_t_ns=fresh[1], billing_number=fresh[2], paid_w=fresh[3], clock=self._clock
        )

    def _clock_of(self, now_ns: int, utc_ns: int) -> tuple[int, int, int]:
        """The site's wall clock for the core: its offset now, and its next change."""
        utc_s = utc_ns // SECOND
        since_s, now_s, change_s, then_s = self._zone
        if not since_s <= utc_s < (change_s or since_s + ZONE_S):
            now_s, change_s, then_s = calendar.clock_ahead(self.zone, utc_s, utc_s + AHEAD_S)
            self._zone = (utc_s, now_s, change_s, then_s)
        wall_ns = utc_ns - now_ns
        at_ns = max(1, change_s * SECOND - wall_ns) if change_s else 0
        return wall_ns + now_s * SECOND, at_ns, wall_ns + then_s * SECOND if change_s else 0

    def step(self, client: list[Planned], peak_w: float | None, now_ns: int, utc_ns: int) -> None:
        """Once a second: put the plan anew if it has changed or the clock was corrected.

        peak_w : highest demand window that the core knows of, None = it does not say.
        Raises OSError when the billing period's record cannot be kept.
        """
        if now_ns < self._due_ns and client == self.client:
            return
        try:
            if self.billing is not None and peak_w is not None and utc_ns // SECOND < self.billing.end_utc_s:
                self.billing.paid(peak_w)
        finally:
            self._due_ns = now_ns + EVERY_NS
            if self.billing is not None:
                self.billing.turn(utc_ns // SECOND)
            fresh = (self._rows(now_ns, utc_ns), *self._period(now_ns, utc_ns))
            clock = self._clock_of(now_ns, utc_ns)
            moved = abs(clock[0] - self._clock[0]) > MOVED_NS or abs(clock[1] - self._clock[1]) > MOVED_NS
            if self._put is None or moved or self._differs(self._put, fresh):
                self.put(client, now_ns, utc_ns)

    @staticmethod
    def _differs(before: tuple[list[PlanRow], int, int, float], now: tuple[list[PlanRow], int, int, float]) -> bool:
        if len(before[0]) != len(now[0]) or before[2:] != now[2:] or abs(before[1] - now[1]) > MOVED_NS:
            return True
        return any(
            a[2:] != b[2:] or abs(a.start_t_ns - b.start_t_ns) > MOVED_NS or abs(a.end_t_ns - b.end_t_ns) > MOVED_NS
            for a, b in zip(before[0], now[0], strict=True)
        )

    def _period(self, now_ns: int, utc_ns: int) -> tuple[int, int, float]:
        if self.billing is None:
            return 0, 0, 0.0
        end_ns = max(1, self.billing.end_utc_s * SECOND - utc_ns + now_ns)
        return end_ns, self.billing.number, self.billing.paid_w

    def _rows(self, now_ns: int, utc_ns: int) -> list[PlanRow]:
        utc_s = utc_ns // SECOND
        rows, names = [], {}

        def add(
            start_utc_s: int,
            end_utc_s: int,
            source: int,
            number: int,
            forced: bool,
            values: dict[str, float],
            name: str,
        ) -> None:
            start_ns, end_ns = (t_s * SECOND - utc_ns + now_ns for t_s in (start_utc_s, end_utc_s))
            if end_ns > now_ns:
                # The monotonic clock begins at 0 with the machine; a span from before it begins there.
                rows.append(PlanRow(max(1, start_ns), end_ns, source, number, forced, values))
                names[number] = name

        spans = calendar.spans(self.schedule, self.zone, utc_s, utc_s + AHEAD_S, self.is_holiday)
        for span in spans[:ROWS_EACH]:
            slot = self.schedule[span.slot]
            values = {key: float(value) for key in calendar.FIELDS if (value := getattr(slot, key)) is not None}
            add(span.start_utc_s, span.end_utc_s, CALENDAR, span.number, slot.forced, values, slot.name)
        ahead = [step for step in self.client if step.end_utc_s > utc_s]
        for step in ahead[:ROWS_EACH]:
            number = CLIENT_NUMBER | (step.start_utc_s & (CLIENT_NUMBER - 1))
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(step.start_utc_s))
            add(step.start_utc_s, step.end_utc_s, CLIENT, number, step.forced, step.values, f"step {at}")
        self.names.update(names)
        while len(self.names) > 4 * PLAN_ROWS_MAX:  # the oldest; events of them are long out
            del self.names[next(iter(self.names))]
        return rows


def planner_of(site: Description, memory: Memory, state: Path) -> Planner:
    """What keeps the core's plan for this site."""
    zone, control, billing = zone_of(site.site.timezone), site.control, None
    if control.demand_billing is not None:
        billing = Billing(
            held_dir(state) / BILLING,
            control.demand_billing,
            zone,
            control.demand_paid_w or 0.0,
            peaks=control.demand_peaks or 1,
            of=control.demand_peaks_of,
        )
    return Planner(memory, site.schedule, zone, billing, calendar.holidays_of(site.schedule, site.site))
