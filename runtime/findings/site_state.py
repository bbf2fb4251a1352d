"""What the console knows of the site: asked from the gateway once a second and kept for ten minutes.

All of it comes through `tidegate.runtime.client`. A gateway that is silent costs the technician a fraction of a second
now and then and a clear line, never the keyboard.
"""

import array
import collections
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from tidegate.hal.description import DescriptionError, Device, Storage, decode
from tidegate.runtime.api.answers import Buses, Health, SiteDescription, Why
from tidegate.runtime.api.blocking_client import ClientError, Point
from tidegate.runtime.api.named import word_of

KEEP_S = 600
POLL_S = 1.0
POLL_TIMEOUT_S = 0.3  # of a question that nobody typed
SILENT_POLL_S = 3.0  # between two of them while the gateway is silent
ASK_TIMEOUT_S = 0.9  # of a question that somebody waits for
WORST_KEPT = 8


class Asks(Protocol):
    """What the console needs of a client."""

    timeout_s: float

    def ask(self, op: str, **fields: object) -> dict[str, Any]: ...


@dataclass
class Sample:
    """One second: the counters of everything, for rates."""

    t_s: float
    buses: Buses
    histograms: dict[str, tuple[tuple[int, int], ...]]


@dataclass
class Picture:
    """The site as it was at one moment."""

    t_s: float = -math.inf
    points: dict[str, Point] = field(default_factory=dict)
    ages_ms: dict[str, float | None] = field(default_factory=dict)
    why: Why = field(default_factory=Why)
    health: Health = field(default_factory=Health)

    def value(self, name: str) -> float | None:
        """The value, None unless it is good or held."""
        point = self.points.get(name)
        return point.value if point is not None else None

    def quality(self, name: str) -> int:
        point = self.points.get(name)
        return point.quality if point is not None else 0

    def age_ms(self, name: str) -> float | None:
        return self.ages_ms.get(name)


class Plant:
    """client : an open client of the gateway. clock : monotonic seconds.

    remembers : which points keep a past, None = all. samples : how many seconds of counters are kept.
    """

    def __init__(
        self,
        client: Asks,
        clock: Callable[[], float],
        remembers: Callable[[str], bool] | None = None,
        samples: int = KEEP_S,
    ) -> None:
        self._remembers = remembers
        self.client = client
        self.clock = clock
        self.description = SiteDescription()
        self.now = Picture()
        self.samples: collections.deque[Sample] = collections.deque(maxlen=samples)
        self.silent = "not asked yet"
        self.worst: list[tuple[int, float, int]] = []  # (lateness ns at least, when, cycle), worst first
        self._names: list[str] = []
        self._program = ""
        self._past: collections.deque[tuple[float, array.array[float]]] = collections.deque(maxlen=KEEP_S)
        self._next_s = -math.inf

    # ---- asking ----

    def ask(self, op: str, **fields: object) -> dict[str, Any]:
        """Ask for somebody who waits. Raises ClientError."""
        self.client.timeout_s = ASK_TIMEOUT_S
        answer = self.client.ask(op, **fields)
        self.silent = ""
        return answer

    def poll(self, force: bool = False) -> None:
        """Look at the site if it is time."""
        now_s = self.clock()
        if now_s < self._next_s and not force:
            return
        self._next_s = now_s + POLL_S
        self.client.timeout_s = POLL_TIMEOUT_S if not force else ASK_TIMEOUT_S
        try:
            self._look(now_s)
            self.silent = ""
        except ClientError as why:
            self.silent = why.text if why.code == "no-answer" else str(why)
            self._next_s = now_s + SILENT_POLL_S
        except (msgspec.ValidationError, DescriptionError) as why:
            self.silent = f"its answer cannot be read by this release: {why}"
            self._next_s = now_s + SILENT_POLL_S

    def _look(self, now_s: float) -> None:
        health = self.client.ask("health", histograms=True)
        boot = str(health.get("boot"))
        if not self.described or boot != self._program:
            self._start_anew(decode(self.client.ask("describe")["site"], SiteDescription), boot)
        got = self.client.ask("get", points=[], ages=True)
        points = {name: Point(*point) for name, point in got["points"].items()}
        why = msgspec.convert(self.client.ask("why")["why"], Why)
        told = msgspec.convert(health["health"], Health, strict=False)
        self.now = Picture(now_s, points, got.get("ages_ms") or {}, why, told)
        self._past.append((now_s, array.array("d", [_number(points.get(name)) for name in self._names])))
        sample = Sample(now_s, told.buses or Buses(), told.histograms)
        self._note_worst(sample, int(got.get("cycle") or 0))
        self.samples.append(sample)

    def _start_anew(self, description: SiteDescription, boot: str) -> None:
        """A core that started anew, perhaps with other points: its past is not the old one's."""
        self.description = description
        wanted = self._remembers
        self._names = [name for name in description.point_names if wanted is None or wanted(name)]
        self._program = boot
        self._past.clear()
        self.samples.clear()
        self.worst.clear()

    def _note_worst(self, sample: Sample, cycle: int) -> None:
        """Keep the seconds with the latest cycles; a bucket that grew since the last second was met in this one."""
        if not self.samples:
            return
        before = dict(self.samples[-1].histograms.get("lateness", ()))
        grown = [edge for edge, count in sample.histograms.get("lateness", ()) if count > before.get(edge, 0)]
        if grown:
            self.worst = sorted([*self.worst, (max(grown), sample.t_s, cycle)], reverse=True)[:WORST_KEPT]

    # ---- what is known ----

    @property
    def name(self) -> str:
        """The cabinet's name, "" while the gateway has not told it."""
        return self.description.site.name if self.described else ""

    @property
    def described(self) -> bool:
        """Whether the gateway has said what the site is."""
        return bool(self.description.points)

    @property
    def known(self) -> bool:
        return self.described and not self.silent

    @property
    def units(self) -> tuple[Storage, ...]:
        return self.description.units

    @property
    def devices(self) -> tuple[Device, ...]:
        return self.description.devices

    @property
    def names(self) -> list[str]:
        """Points that people look at: no scale factors and spare rows."""
        return [row.name for row in self.description.points if not row.hidden and "spare_" not in row.name]

    def unit_of(self, name: str) -> str:
        return next((row.unit for row in self.description.points if row.name == name), "")

    def word_of(self, name: str) -> str | None:
        """The word of a point that is told by number."""
        return word_of(self.description.words, name, self.unit_of(name), self.now.value(name))

    def past(self, name: str, length_s: float) -> Iterator[tuple[float, float]]:
        """(seconds ago, value or nan) of the last seconds, oldest first."""
        if name not in self._names:
            return
        at, now_s = self._names.index(name), self.clock()
        for t_s, values in self._past:
            if now_s - t_s <= length_s:
                yield now_s - t_s, values[at]

    def sample_ago(self, length_s: float) -> Sample | None:
        """The oldest sample of the last seconds that is not the newest."""
        if len(self.samples) < 2:
            return None
        newest = self.samples[-1].t_s
        for sample in self.samples:
            if newest - sample.t_s <= length_s and sample is not self.samples[-1]:
                return sample
        return self.samples[-2]


def _number(point: Point | None) -> float:
    return math.nan if point is None or point.value is None else float(point.value)
