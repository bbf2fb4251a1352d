"""`tidegate watch`: the site as a live table in the terminal."""

import time
from collections.abc import Mapping, Sequence

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tidegate.hal.description import decode
from tidegate.runtime.api.answers import Event, SiteDescription, Snapshot
from tidegate.runtime.api.blocking_client import Client, ClientError
from tidegate.runtime.api.messages import shown as plain

ROWS = (
    ("grid", "site.grid_w", "W"),
    ("load", "site.load_w", "W"),
    ("battery", "site.ess_w", "W"),
    ("solar", "site.pv_w", "W"),
    ("setpoint", "site.setpoint_w", "W"),
    ("request", "site.request_w", "W"),
    ("grid limit", "site.grid_limit_w", "W"),
)
EVENTS_SHOWN = 6
STALE_S = 2.0
BAR = 40


def bar(value: float | None, least: float, most: float) -> str:
    """A value as a bar between two ends, with the place of zero marked."""
    if value is None or most <= least:
        return " " * BAR

    def column(x: float) -> int:
        return min(BAR - 1, max(0, int((x - least) / (most - least) * BAR)))

    zero, end = column(0.0), column(value)
    first, last = min(zero, end), max(zero, end)
    return "".join("│" if i == zero else "█" if first <= i <= last else " " for i in range(BAR))


def value_of(points: Mapping[str, tuple[float | None, int]], name: str) -> float | None:
    """Value of a point of a snapshot, None if it is not good or not there."""
    found = points.get(name)
    return None if found is None else found[0]


class Screen:
    """What is shown: the newest snapshot and the last events."""

    def __init__(self, site: SiteDescription) -> None:
        self.site = site
        self.snapshot: Snapshot | None = None
        self.events: list[Event] = []
        self.heard = 0.0
        self.least = self.most = 0.0
        self.lost = 0

    def take(self, message: Mapping[str, object]) -> None:
        """Take a message of the stream in."""
        if message["kind"] == "snapshot":
            self.snapshot = msgspec.convert(message, Snapshot)
            self.heard = time.monotonic()
        elif message["kind"] == "event":
            self.events = [*self.events, msgspec.convert(message, Event)][-EVENTS_SHOWN:]

    def render(self) -> Group | Text:
        if self.snapshot is None:
            return Text("waiting for the first snapshot ...")
        points = self.snapshot.points
        powers = [value for _, name, _ in ROWS if (value := value_of(points, name)) is not None]
        self.least, self.most = min([self.least, *powers]), max([self.most, 1.0, *powers])
        table = Table(box=None, pad_edge=False)
        for heading, how in (("", "left"), ("now", "right"), ("", "left")):
            table.add_column(heading, justify=how)  # type: ignore[arg-type]
        for label, name, unit in ROWS:
            value = value_of(points, name)
            shown = "-" if value is None else f"{value:,.0f} {unit}"
            table.add_row(label, shown, bar(value, self.least, self.most))
        for name in self.site.point_names:
            if name.endswith(".soc") and (value := value_of(points, name)) is not None:
                table.add_row(Text(plain(name)), f"{value * 100:.1f} %", bar(value, 0.0, 1.0))
        return Group(
            Panel(table, title=Text(plain(self._title(self.snapshot))), title_align="left"),
            self._loop(self.snapshot),
            *self._events(),
        )

    def _title(self, snapshot: Snapshot) -> str:
        points = snapshot.points

        def name_of(names: Sequence[str], point: str) -> str:
            value = value_of(points, point)
            return names[int(value)] if value is not None and 0 <= value < len(names) else "unknown"

        mode = name_of(self.site.modes, "site.mode")
        reason = name_of(self.site.reasons, "site.reason")
        age_s = time.monotonic() - self.heard
        late = f" · nothing heard for {age_s:.0f} s" if age_s > STALE_S else ""
        return f"{snapshot.site} · {mode} · because of {reason}{late}"

    def _loop(self, snapshot: Snapshot) -> Text:
        late, work = snapshot.loop.lateness_us, snapshot.loop.work_us
        return Text(
            f"cycle {snapshot.cycle:,}"
            f" · late p50 {late.p50 or 0:.0f} p99 {late.p99 or 0:.0f} max {late.max or 0:.0f} us"
            f" · work p50 {work.p50 or 0:.1f} p99 {work.p99 or 0:.1f} us · missed {snapshot.loop.missed}"
            f" · snapshots lost here {self.lost}"
        )

    def _events(self) -> list[Text]:
        lines = []
        for event in self.events:
            clock = time.strftime("%H:%M:%S", time.localtime(event.utc_ns / 1e9))
            unit = f" unit{event.unit}" if event.unit >= 0 else ""
            lines.append(Text(plain(f"{clock} {event.event}{unit} {event.name} {event.detail}".rstrip())))
        return lines


def watch_live(client: Client, count: int | None = None, console: Console | None = None) -> None:
    """Show the site until Ctrl-C, or until `count` snapshots have come."""
    screen = Screen(decode(client.describe(), SiteDescription))
    heard = client.subscribe("snapshot", "event")
    seen = 0
    with Live(console=console, refresh_per_second=8, transient=False) as live:
        while count is None or seen < count:
            try:
                message = heard.receive(0.5)
            except ClientError:
                message = None  # the gateway restarts; the screen says how long nothing was heard
            if message is not None and message["kind"] != "gap":
                screen.take(message)
                seen += message["kind"] == "snapshot"
            screen.lost = heard.snapshots_lost
            live.update(screen.render())
