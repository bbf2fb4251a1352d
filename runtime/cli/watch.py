"""`tidegate watch`: the site as a live table in the terminal."""

import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tidegate.runtime.api.blocking_client import Client, ClientError

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
    at = lambda x: min(BAR - 1, max(0, int((x - least) / (most - least) * BAR)))  # noqa: E731
    zero, end = at(0.0), at(value)
    first, last = min(zero, end), max(zero, end)
    return "".join("│" if i == zero else "█" if first <= i <= last else " " for i in range(BAR))


def value_of(points: dict[str, Any], name: str) -> float | None:
    """Value of a point of a snapshot, None if it is not good or not there."""
    found = points.get(name)
    return None if found is None else found[0]


class Screen:
    """What is shown: the newest snapshot and the last events."""

    def __init__(self, describe: dict[str, Any]) -> None:
        self.describe = describe
        self.snapshot: dict[str, Any] = {}
        self.events: list[dict[str, Any]] = []
        self.heard = 0.0
        self.least = self.most = 0.0
        self.lost = 0

    def take(self, message: dict[str, Any]) -> None:
        """Take a message of the stream in."""
        if message["kind"] == "snapshot":
            self.snapshot = message
            self.heard = time.monotonic()
        elif message["kind"] == "event":
            self.events = [*self.events, message][-EVENTS_SHOWN:]

    def render(self) -> Group | Text:
        if not self.snapshot:
            return Text("waiting for the first snapshot ...")
        points = self.snapshot["points"]
        powers = [value for _, name, _ in ROWS if (value := value_of(points, name)) is not None]
        self.least, self.most = min([self.least, *powers]), max([self.most, 1.0, *powers])
        table = Table(box=None, pad_edge=False)
        for heading, how in (("", "left"), ("now", "right"), ("", "left")):
            table.add_column(heading, justify=how)  # type: ignore[arg-type]
        for label, name, unit in ROWS:
            value = value_of(points, name)
            shown = "-" if value is None else f"{value:,.0f} {unit}"
            table.add_row(label, shown, bar(value, self.least, self.most))
        for row in self.describe["points"]:
            name = row["name"]
            if name.endswith(".soc") and (value := value_of(points, name)) is not None:
                table.add_row(name, f"{value * 100:.1f} %", bar(value, 0.0, 1.0))
        return Group(Panel(table, title=self._title(), title_align="left"), self._loop(), *self._events())

    def _title(self) -> str:
        points = self.snapshot["points"]

        def name_of(names: list[str], point: str) -> str:
            value = value_of(points, point)
            return names[int(value)] if value is not None and 0 <= value < len(names) else "unknown"

        mode = name_of(self.describe["modes"], "site.mode")
        reason = name_of(self.describe["reasons"], "site.reason")
        age_s = time.monotonic() - self.heard
        late = f" · nothing heard for {age_s:.0f} s" if age_s > STALE_S else ""
        return f"{self.snapshot['site']} · {mode} · because of {reason}{late}"

    def _loop(self) -> Text:
        loop = self.snapshot["loop"]
        late, work = loop["lateness_us"], loop["work_us"]
        return Text(
            f"cycle {self.snapshot['cycle']:,}"
            f" · late p50 {late['p50']:.0f} p99 {late['p99']:.0f} max {late['max']:.0f} us"
            f" · work p50 {work['p50']:.1f} p99 {work['p99']:.1f} us · missed {loop['missed']}"
            f" · snapshots lost here {self.lost}"
        )

    def _events(self) -> list[Text]:
        lines = []
        for event in self.events:
            clock = time.strftime("%H:%M:%S", time.localtime(event["utc_ns"] / 1e9))
            unit = f" unit{event['unit']}" if event["unit"] >= 0 else ""
            lines.append(Text(f"{clock} {event['event']}{unit} {event['name']} {event['detail']}".rstrip()))
        return lines


def watch_live(client: Client, count: int | None = None, console: Console | None = None) -> None:
    """Show the site until Ctrl-C, or until `count` snapshots have come."""
    screen = Screen(client.describe())
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
