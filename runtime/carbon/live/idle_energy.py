"""What draws power for no useful work: cards, servers and racks, by hour, with its money and carbon, ranked.

At rest is what telemetry can show: a card that no pod or job claims, or that is claimed and works less than 1 % of the
time; a server or a rack in whose five minutes none of its cards or pods had work. Where nobody says what runs on a
server or in a rack, it is not judged, and it is named. Cards lie within servers and servers within racks: the levels
are three views of the same energy and are never added.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tidegate.runtime.carbon.ledger.bodies import PeriodBody
from tidegate.runtime.carbon.live.live_figures import shortened
from tidegate.runtime.telemetry.energy_store import BUCKET_S, EnergyStore, bucket_of

HOUR_S = 3600
ROWS_MAX = 200
SYSTEM = ("kube-system", "gpu-operator", "monitoring")


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What a saving rests on; printed with every one.

    standby_w : drawn by a server that is off. boot_s : time until it works again, at the power that it rests at.
    least_s : shorter rests are not worth an end. system : namespaces whose pods are no work of anybody's.
    """

    standby_w: float = 15.0
    boot_s: int = 600
    least_s: int = 1800
    system: tuple[str, ...] = SYSTEM

    def texts(self) -> list[str]:
        """The assumptions for people."""
        return [
            f"a server that is off still draws {self.standby_w:g} W; a rack that much for each host known in it",
            f"it takes {self.boot_s / 60:g} minutes to work again, at the power that it rests at",
            f"rests shorter than {self.least_s / 60:g} minutes are not used",
            "one card cannot be switched off alone; its saving is that of its server",
            f"pods of {', '.join(self.system) or 'no namespace'} are no work",
            "energy as PDU, server and card counted it, not scaled to the meter",
        ]


@dataclass(slots=True)
class IdleRow:
    """One thing at rest. Energies in mWh, carbon in ug, money in millionths; unpriced: mWh without carbon figures."""

    level: str
    name: str
    node: str
    rack: str
    milliwh: int = 0
    unused_milliwh: int = 0  # of a card: claimed by somebody and at rest
    ug: int = 0
    cost_u: int = 0
    unknown_milliwh: int = 0
    saving_milliwh: int = 0
    saving_ug: int = 0
    saving_cost_u: int = 0
    by_hour: Counter[int] = field(default_factory=Counter)  # hour's start, UTC -> mWh

    def record(self) -> dict[str, object]:
        """The row with units in its names."""
        profile = [0] * 24
        for hour, milliwh in self.by_hour.items():
            profile[hour // HOUR_S % 24] += milliwh
        return {
            "level": self.level, "name": self.name, "node": self.node, "rack": self.rack,
            "idle_kwh": self.milliwh / 1e6, "claimed_at_rest_kwh": self.unused_milliwh / 1e6, "kg": self.ug / 1e9,
            "cost": self.cost_u / 1e6, "without_carbon_kwh": self.unknown_milliwh / 1e6,
            "saving_kwh": self.saving_milliwh / 1e6, "saving_kg": self.saving_ug / 1e9,
            "saving_cost": self.saving_cost_u / 1e6,
            "by_hour_utc_kwh": [milliwh / 1e6 for milliwh in profile],
        }  # fmt: skip


@dataclass(slots=True)
class Idle:
    """What was found in a span. not_judged : servers and racks of which nobody says what runs there."""

    rows: list[IdleRow]
    not_judged: list[str]
    problems: list[str]


class HourlyFactors:
    """Carbon and price of a load's energy in an hour, as booked. bodies : periods of the span."""

    def __init__(self, bodies: Iterable[PeriodBody], loads: Sequence[str]) -> None:
        self._ug: Counter[tuple[str, int]] = Counter()
        self._milliwh: Counter[tuple[str, int]] = Counter()
        self._price: dict[int, int] = {}
        for body in bodies:
            hour = body["start_utc_s"] // HOUR_S * HOUR_S
            if "price_u_per_kwh" in body:
                self._price[hour] = body["price_u_per_kwh"]
            for out in body["outflows"]:
                if out["name"] in loads:
                    for name in (out["name"], ""):
                        self._ug[name, hour] += out["ug"]
                        self._milliwh[name, hour] += out["energy_milliwh"]

    @property
    def priced(self) -> bool:
        return bool(self._price)

    def carbon_ug(self, node: str, hour: int, milliwh: int) -> int | None:
        """Carbon of an energy in an hour; None where nothing is booked for that load then."""
        known = self._milliwh[node, hour]
        return milliwh * self._ug[node, hour] // known if known else None

    def cost_u(self, hour: int, milliwh: int) -> int:
        return self._price.get(hour, 0) * milliwh // 1_000_000


def find_idle(store: EnergyStore, factors: HourlyFactors, start_utc_s: int, end_utc_s: int,
              assumed: Assumptions | None = None) -> Idle:  # fmt: skip
    """Everything at rest in [start, end), most energy first. Raises sqlite3.Error."""
    assumed = assumed or Assumptions()
    rows: dict[tuple[str, str, str], IdleRow] = {}
    for node, name, rack, hour, idle, unused in store.card_hours(start_utc_s, end_utc_s):
        row = rows.setdefault(("card", node, name), IdleRow("card", name, node, rack))
        row.unused_milliwh += unused
        _add(row, factors, hour, idle + unused)
    work = _Work(store, start_utc_s, end_utc_s, assumed.system)
    rests, not_judged, unseen_milliwh = _rests(store, start_utc_s, end_utc_s, work)
    for (level, node, name, rack), buckets in rests.items():
        row = rows.setdefault((level, node, name), IdleRow(level, name, node, rack))
        for bucket, milliwh in buckets.items():
            _add(row, factors, bucket // HOUR_S * HOUR_S, milliwh)
        count = max(1, len(work.hosts_of[name])) if level == "rack" else 1
        _save(row, factors, buckets, assumed, count)
    problems = []
    if unseen_milliwh:
        problems.append(
            f"{unseen_milliwh / 1e6:.3f} kWh of servers and racks were drawn while nobody said what ran there; they "
            "are not judged"
        )
    unknown = sum(row.unknown_milliwh for row in rows.values() if row.level == "card")
    if any(row.unknown_milliwh for row in rows.values()):
        problems.append(f"no period is booked for some hours: {unknown / 1e6:.3f} kWh of cards are without carbon")
    if not factors.priced:
        problems.append("no price is known; money is 0")
    ranked = sorted(rows.values(), key=lambda row: (-row.milliwh, row.level, row.name))
    return Idle([row for row in ranked if row.milliwh], not_judged, problems)


def servers_at_rest(store: EnergyStore, now_utc_s: float, least_s: int,
                    system: tuple[str, ...] = SYSTEM) -> dict[str, float]:  # fmt: skip
    """Server -> mean W of those that rested in each whole 5 minutes of the last `least_s`, to the newest one.

    One whose newest 5 minutes nobody has told yet, or of which nobody says what runs there, is not among them.
    Raises sqlite3.Error.
    """
    end = bucket_of(now_utc_s)
    start = end - max(BUCKET_S, least_s // BUCKET_S * BUCKET_S)
    work = _Work(store, start, end + BUCKET_S, system)  # work in the 5 minutes that run now counts too
    rests, _, _ = _rests(store, start, end, work)
    wanted = set(range(start, end, BUCKET_S))
    return {
        name: sum(buckets.values()) * 3.6 / (end - start)
        for (level, _, name, _), buckets in rests.items()
        if level == "server" and set(buckets) == wanted and not work.works(name, end)
    }


class _Work:
    """When hosts and racks worked, and when that was known at all, by the start of 5 minutes."""

    def __init__(self, store: EnergyStore, start: int, end: int, system: tuple[str, ...]) -> None:
        self.hosts_of: dict[str, set[str]] = defaultdict(set)
        self._seen: dict[str, set[int]] = defaultdict(set)
        self._busy: dict[str, set[int]] = defaultdict(set)
        for host, rack, bucket, milliwh in store.work(start, end, system):
            self.hosts_of[rack].add(host)
            self._seen[host].add(bucket)
            if milliwh > 0:
                self._busy[host].add(bucket)

    def hosts(self, level: str, host: str, rack: str) -> set[str]:
        """The hosts whose work decides; none where nobody says what runs there."""
        if level == "server":
            return {host} if host in self._seen else set()
        return self.hosts_of[rack] if rack and rack in self.hosts_of else set()

    def works(self, host: str, bucket: int) -> bool:
        """Whether it was seen to work then."""
        return bucket in self._busy.get(host, ())

    def rested(self, hosts: set[str], bucket: int) -> bool | None:
        """Whether none of them worked; None where one of them was not seen."""
        if not all(bucket in self._seen[host] for host in hosts):
            return None
        return not any(bucket in self._busy.get(host, ()) for host in hosts)


Rests = dict[tuple[str, str, str, str], Counter[int]]


def _rests(store: EnergyStore, start: int, end: int, work: _Work) -> tuple[Rests, list[str], int]:
    """(level, node, name, rack) -> 5 minutes -> mWh at rest; what cannot be judged, and mWh while nobody said."""
    rests: Rests = defaultdict(Counter)
    strange: set[str] = set()
    unseen_milliwh = 0
    for level, node, name, host, rack, bucket, milliwh in store.drawn(start, end):
        hosts = work.hosts(level, host, rack)
        if not hosts:
            strange.add(f"{level} {name}")
            continue
        rested = work.rested(hosts, bucket)
        if rested is None:
            unseen_milliwh += milliwh
        elif rested:
            shown = ("server", node, name, rack) if level == "server" else ("rack", node, rack, rack)
            rests[shown][bucket] += milliwh
    return rests, sorted(strange), unseen_milliwh


def _add(row: IdleRow, factors: HourlyFactors, hour: int, milliwh: int) -> None:
    row.milliwh += milliwh
    row.by_hour[hour] += milliwh
    row.cost_u += factors.cost_u(hour, milliwh)
    ug = factors.carbon_ug(row.node, hour, milliwh)
    if ug is None:
        row.unknown_milliwh += milliwh
    else:
        row.ug += ug


def _save(row: IdleRow, factors: HourlyFactors, buckets: Mapping[int, int], assumed: Assumptions, hosts: int) -> None:
    """What switching off in the longer rests would have saved."""
    for rest in _stretches(sorted(buckets)):
        length_s = len(rest) * BUCKET_S
        if length_s < assumed.least_s:
            continue
        whole = sum(buckets[bucket] for bucket in rest)
        standby = round(assumed.standby_w * hosts * length_s / 3.6)
        boot = whole * min(assumed.boot_s, length_s) // length_s
        saved = whole - standby - boot
        if saved <= 0:
            continue
        row.saving_milliwh += saved
        for bucket in rest:
            hour, part = bucket // HOUR_S * HOUR_S, saved * buckets[bucket] // whole
            row.saving_cost_u += factors.cost_u(hour, part)
            row.saving_ug += factors.carbon_ug(row.node, hour, part) or 0


def _stretches(buckets: Sequence[int]) -> list[list[int]]:
    """Runs of buckets that follow on each other."""
    found: list[list[int]] = []
    for bucket in buckets:
        if found and found[-1][-1] + BUCKET_S == bucket:
            found[-1].append(bucket)
        else:
            found.append([bucket])
    return found


def api_rows(found: Idle, start_utc_s: int, end_utc_s: int, assumed: Assumptions) -> list[dict[str, object]]:
    """The rows of kind "idle" for the gateway, those with the most energy first; the first names what they rest on."""
    doubts = shortened([*found.problems, *(f"not judged, nobody says what runs there: {t}" for t in found.not_judged)])
    rows: list[dict[str, object]] = []
    for row in found.rows[:ROWS_MAX]:
        span = {
            "since_utc_s": start_utc_s, "until_utc_s": end_utc_s, "energy_kwh": row.milliwh / 1e6,
            "kg": row.ug / 1e9, "cost": row.cost_u / 1e6, "good": not doubts,
            "doubts": doubts if not rows else doubts[:1],
        }  # fmt: skip
        more: dict[str, object] = {
            "level": row.level, "rack": row.rack, "claimed_at_rest_kwh": row.unused_milliwh / 1e6,
            "saving_kwh": row.saving_milliwh / 1e6, "saving_kg": row.saving_ug / 1e9,
            "saving_cost": row.saving_cost_u / 1e6,
        }  # fmt: skip
        if not rows:
            more |= {f"assumption_{number}": text for number, text in enumerate(assumed.texts(), 1)}
        rows.append({"name": f"{row.level} {row.name}", "node": row.node, "today": span, "more": more})
    return rows
