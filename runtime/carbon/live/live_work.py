"""Live figures of jobs and namespaces: the day so far, shared by the code that settles the day when it is over."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tidegate.runtime.carbon.jobs.pushed import works_of
from tidegate.runtime.carbon.jobs.settle import DAY_S, settled
from tidegate.runtime.carbon.jobs.work import Work
from tidegate.runtime.carbon.ledger.bodies import PeriodBody, SettlementBody
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.live.live_figures import Figures

ROWS_MAX = 400
OTHERS = "(others)"
NOBODY = "(no namespace)"
PAUSE_OVER_WORK = 20.0  # after a look that took t, the next one comes 20 t later: at most 5 % of a core
EARLIER_DAYS_MAX = 62


@dataclass(slots=True)
class _Part:
    """What one job or namespace got."""

    energy_milliwh: int = 0
    ug: int = 0
    counted_milliwh: int | None = None
    nodes: dict[str, None] = field(default_factory=dict)
    since_utc_s: int = 0
    until_utc_s: int = 0
    owner: str = ""

    def add(self, node: str, start: int, end: int, milliwh: int, ug: int, counted: int | None) -> None:
        self.nodes[node] = None
        self.energy_milliwh += milliwh
        self.ug += ug
        if counted is not None:
            self.counted_milliwh = (self.counted_milliwh or 0) + counted
        self.since_utc_s = min(self.since_utc_s or start, start)
        self.until_utc_s = max(self.until_utc_s, end)

    def span(self, until_utc_s: int, doubts: Sequence[str]) -> dict[str, object]:
        elapsed_s = max(0, min(self.until_utc_s, until_utc_s) - self.since_utc_s)
        figures = Figures(self.energy_milliwh, self.ug, None, None, None, elapsed_s)
        return figures.span(self.since_utc_s, min(self.until_utc_s, until_utc_s), doubts)


class LiveWork:
    """Shares of jobs and namespaces in the day so far. Looks again only as often as its own cost allows."""

    def __init__(self, ledger: Ledger, kinds: Mapping[str, str]) -> None:
        self._ledger = ledger
        self._loads = sorted(name for name, role in kinds.items() if role == "it")
        self._due_s = 0.0
        self._works_head = -2
        self._works: list[Work] = []
        self._aside: list[str] = []
        self._earlier: dict[str, tuple[int, int, int]] = {}  # job -> mWh, ug, days
        self._earlier_at = -1

    def due(self) -> bool:
        """Whether a look is affordable again."""
        return time.monotonic() >= self._due_s

    def rows(self, bodies: Sequence[PeriodBody], open_until_utc_s: int, room: float, doubts: Sequence[str],
             claims: Sequence[Work] = ()) -> dict[str, list[dict[str, object]]]:  # fmt: skip
        """Rows of "job" and "namespace". bodies : of today, the last one open. room : site carbon over that of the IT.

        claims : work that telemetry sees; where it names a load, it is shown instead of the jobs pushed for that load.
        """
        began = time.monotonic()
        first = bodies[0]["start_utc_s"]
        works, aside = self._all_works(first, open_until_utc_s, claims)
        if not works:
            self._due_s = time.monotonic() + PAUSE_OVER_WORK * (time.monotonic() - began)
            return {"job": [], "namespace": []}
        today = settled(bodies, works, aside, self._loads)
        now = settled(bodies[-1:], works, (), self._loads)
        more = list(doubts)
        if today["set_aside_count"]:
            more.append(f"{today['set_aside_count']} jobs are set aside: {today['set_aside'][0]}")
        rows = {}
        for of in ("job", "namespace"):
            whole, recent = parts_of(today, of), parts_of(now, of)
            rows[of] = self._rows(of, whole, recent, open_until_utc_s, room, more)
        self._due_s = time.monotonic() + PAUSE_OVER_WORK * (time.monotonic() - began)
        return rows

    def _all_works(self, first: int, until: int, claims: Sequence[Work]) -> tuple[list[Work], list[str]]:
        head = self._ledger.head[0]
        if head != self._works_head:
            self._works, self._aside = works_of(self._ledger, first, until + DAY_S)
            self._works_head = head
            self._earlier_at = -1
        claimed = {work.node for work in claims}
        mine = [work for work in self._works if work.start_utc_s < until and work.node not in claimed]
        left_out = sum(1 for work in self._works if work.node in claimed)
        aside = list(self._aside)
        if left_out:
            aside.append(f"{left_out} pushed jobs on loads whose work telemetry sees; the settled day counts them")
        self._read_earlier([*mine, *claims], first)
        return [*mine, *claims], aside

    def _read_earlier(self, works: Iterable[Work], first: int) -> None:
        """What running jobs emitted on the days before, as settled. Read again when the ledger has grown."""
        old = {work.id: work.start_utc_s for work in works if work.start_utc_s < first and work.end_utc_s > first}
        if self._earlier_at == first or not old:
            return
        self._earlier_at = first
        since = max(min(old.values()), first - EARLIER_DAYS_MAX * DAY_S) // DAY_S * DAY_S
        found: dict[str, tuple[int, int, int]] = {}
        for entry in self._ledger.in_force("job", since, first):
            for job, _, _, start, _, milliwh, ug, *_ in entry.body["jobs"]:
                if job in old and start >= old[job] // DAY_S * DAY_S:
                    before = found.get(job, (0, 0, 0))
                    found[job] = before[0] + milliwh, before[1] + ug, before[2] + 1
        self._earlier = found

    def _rows(self, of: str, whole: Mapping[str, _Part], recent: Mapping[str, _Part], until: int, room: float,
              doubts: Sequence[str]) -> list[dict[str, object]]:  # fmt: skip
        ranked = sorted(whole.items(), key=lambda one: (-one[1].ug, one[0]))
        shown, rest = ranked[:ROWS_MAX], ranked[ROWS_MAX:]
        if rest:
            others = _Part()
            for _, part in rest:
                others.add("", part.since_utc_s, part.until_utc_s, part.energy_milliwh, part.ug, part.counted_milliwh)
            shown.append((f"{OTHERS}, {len(rest)}", others))
        rows: list[dict[str, object]] = []
        for name, part in shown:
            open_part = recent.get(name)
            more: dict[str, object] = {"kg_with_room": round(part.ug * room / 1e9, 9)}
            if of == "job":
                more["namespace"] = part.owner
                if name in self._earlier:
                    milliwh, ug, days = self._earlier[name]
                    more |= {"earlier_kwh": milliwh / 1e6, "earlier_kg": ug / 1e9, "earlier_days": float(days)}
            rows.append(
                {
                    "name": name,
                    "node": ", ".join(part.nodes)[:200],
                    "now": open_part.span(until, doubts) if open_part is not None else None,
                    "today": part.span(until, doubts),
                    "counted_kwh": None if part.counted_milliwh is None else part.counted_milliwh / 1e6,
                    "more": more,
                }
            )
        return rows


def parts_of(body: SettlementBody, of: str) -> dict[str, _Part]:
    """Sums of a settlement by job or by owner."""
    found: dict[str, _Part] = {}
    for job, owner, node, start, end, milliwh, ug, counted, _, _ in body["jobs"]:
        name = job if of == "job" else owner or NOBODY
        part = found.setdefault(name, _Part(owner=owner))
        part.add(node, start, end, milliwh, ug, counted)
    return found
