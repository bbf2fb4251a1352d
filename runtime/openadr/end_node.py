"""The virtual end node: looks at the utility's events, does what they say within the site's own limits, reports back.

A client of the gateway and a writer of the planner's files. Limits of capacity are orders of the grid's operator: they
only narrow, and end at their own time in the core if this process, the line or the server is gone by then.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from tidegate.runtime.api.connection import ClientError, Point
from tidegate.runtime.api.messages import QUALITIES, Message
from tidegate.runtime.openadr.vtn_client import VtnError
from tidegate.runtime.openadr.vtn_events import Piece, Understood, understood
from tidegate.runtime.planner.grid_events import GridEvent, read_events, write_events
from tidegate.runtime.planner.plan_inputs import PlanError
from tidegate.runtime.planner.site_history import QUARTER_S
from tidegate.runtime.state import atomic_file

STATUS_FILE, OUTBOX_FILE, PRICES_FILE = "openadr.json", "openadr-reports.json", "openadr.csv"
REFERENCE = "OpenADR "
OWN_EVENT = "oadr "
LIMITS = ("IMPORT_CAPACITY_LIMIT", "EXPORT_CAPACITY_LIMIT")
FOR_S_MAX = 86_400.0
OUTBOX_MAX = 500
PLAN_STEPS_MAX, PLAN_AHEAD_S = 31, 365 * 86_400
REPORTED = ("USAGE", "DEMAND", "STORAGE_CHARGE_LEVEL", "OPERATING_STATE")


class Gateway(Protocol):
    """What is needed of a client."""

    def get(self, *names: str) -> dict[str, Point]: ...
    def why(self) -> Message: ...
    def grid_operator(self, *, import_w_max: float | None = None, export_w_max: float | None = None,
                      stop: bool = False, for_s: float, reference: str = "") -> Message: ...  # fmt: skip
    def release_grid_operator(self) -> Message: ...
    def limit(
        self, *, import_w_max: float | None = None, export_w_max: float | None = None, for_s: float
    ) -> Message: ...
    def schedule(self, steps: Sequence[Mapping[str, object]], end_utc_s: int, *, rank: str = "order") -> Message: ...


class Server(Protocol):
    """What is needed of a virtual top node."""

    def events(self, program: str) -> list[object]: ...
    def report(self, row: Mapping[str, object]) -> None: ...


@dataclass(frozen=True)
class Place:
    """Who this end node is and where the planner's files are. simple_less : share of import less, by level 1 to 3."""

    ven: str
    program: str
    folder: Path
    prices: Path | None = None
    targets: tuple[str, ...] = ()
    simple_less: tuple[float, float, float] = (0.1, 0.25, 0.5)
    old_reports: bool = False  # 3.0 wants programID in a report, 3.1 has none


@dataclass
class Told:
    """What was last done, for people."""

    utc_s: int = 0
    heard_utc_s: int = 0  # of the last answer of the server
    state: str = "starting"
    limits: str = "none"
    dispatch: str = "none"
    left_out: list[str] = field(default_factory=list)
    reports_sent: int = 0
    reports_waiting: int = 0
    reports_lost: int = 0


@dataclass
class Reading:
    """The grid meter's registers at a moment; they only rise, so that what was between two is exact."""

    utc_s: float
    in_ws: float
    out_ws: float


class EndNode:
    """One look at a time: `step`. report : a line for people when something changes."""

    def __init__(self, client: Gateway, server: Server, place: Place, report: Callable[[str], None] = print) -> None:
        self.client, self.server, self.place, self._report_to = client, server, place, report
        self.told = Told()
        self.known = Understood()
        self._said = ""
        self._plan_is_own = False
        self._plan: list[dict[str, object]] = []
        self._begun: dict[tuple[str, int], Reading] = {}
        self._outbox: list[dict[str, object]] = self._read_outbox()

    def step(self, now_s: float) -> None:
        """Look, act, report. Never raises for what the world does: it is told, and what was ordered runs out."""
        told = self.told
        told.utc_s, told.left_out = int(now_s), []
        try:
            self.known = understood(self.server.events(self.place.program), (self.place.ven, *self.place.targets))
            told.heard_utc_s, told.state = int(now_s), "hears the server"
        except VtnError as why:  # what is known goes on to its own end
            told.state = f"no answer since {self._since()}: {why}"
        told.left_out += self.known.left_out
        for act in (self._limits, self._dispatch, self._announce, self._prices, self._measure):
            try:
                act(now_s)
            except (ClientError, PlanError, OSError) as why:
                told.left_out.append(str(why))
        self._send()
        self._report("; ".join([told.state, f"limits {told.limits}", f"dispatch {told.dispatch}", *told.left_out]))
        try:
            atomic_file.replace(self.place.folder / STATUS_FILE, json.dumps(asdict(told), indent=1).encode())
        except OSError as why:
            self._report(f"{self.place.folder / STATUS_FILE}: {why.strerror}")

    def _since(self) -> str:
        heard = self.told.heard_utc_s
        return "the start" if not heard else f"{datetime.fromtimestamp(heard, UTC):%H:%M:%S}Z"

    def _report(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._report_to(text)

    # ---- limits of capacity ----

    def _limits(self, now_s: float) -> None:
        active = {kind: self.known.active(kind, now_s) for kind in LIMITS}
        tightest = {kind: min((one.value for one in rows), default=None) for kind, rows in active.items()}
        held = self.client.why().get("grid_operator")
        other = isinstance(held, Mapping) and not str(held.get("reference", "")).startswith(REFERENCE)
        import_w, export_w = (tightest[kind] for kind in LIMITS)
        if import_w is None and export_w is None:
            if isinstance(held, Mapping) and not other:
                self.client.release_grid_operator()
            self.told.limits = "none"
            return
        for_s = min(self.known.next_change_s(LIMITS, now_s) - now_s, FOR_S_MAX)
        names = sorted({one.event for rows in active.values() for one in rows})
        if other:  # somebody else speaks for the grid: beside that order, not in its place
            self.client.limit(import_w_max=import_w, export_w_max=export_w, for_s=max(for_s, 0.001))
        else:
            self.client.grid_operator(
                import_w_max=import_w, export_w_max=export_w, for_s=max(for_s, 0.001),
                reference=(REFERENCE + ", ".join(names))[:64],
            )  # fmt: skip
        words = [
            f"{word} {watt / 1e3:g} kW"
            for word, watt in (("import", import_w), ("export", export_w))
            if watt is not None
        ]
        self.told.limits = f"{', '.join(words)} ({', '.join(names)})"

    # ---- dispatch ----

    def _dispatch(self, now_s: float) -> None:
        ahead = [one for one in self.known.pieces if one.kind == "DISPATCH_SETPOINT" and one.end_s > now_s]
        steps, end_utc_s = _steps(ahead, now_s)
        if steps == self._plan:
            return
        if not steps:
            if self._plan_is_own:
                self.client.schedule([], 0)
            self._plan, self._plan_is_own, self.told.dispatch = [], False, "none"
            return
        if not self._plan_is_own:
            # A planner's plan gives way to a utility's; one that a person ordered does not: this is refused then.
            self.client.schedule(steps, end_utc_s, rank="planner")
        self.client.schedule(steps, end_utc_s)
        self._plan, self._plan_is_own = steps, True
        self.told.dispatch = f"import {float(str(ahead[0].value)) / 1e3:g} kW and {len(ahead) - 1} more"

    # ---- the planner's files ----

    def _announce(self, now_s: float) -> None:
        """Levels of SIMPLE, as events that the planner plans for and proves."""
        own = []
        for one in self.known.pieces:
            less = self.place.simple_less[int(one.value) - 1] if one.kind == "SIMPLE" and one.value else 0.0
            begin, end = -(-int(one.begin_s) // QUARTER_S) * QUARTER_S, int(one.end_s) // QUARTER_S * QUARTER_S
            if less and end > now_s and end > begin:
                at = datetime.fromtimestamp(begin, UTC)
                own.append(GridEvent(f"{OWN_EVENT}{one.event[:36]} {at:%d %H:%M}Z", begin, end, less))
        kept = read_events(self.place.folder)
        wanted = (*(one for one in kept if not one.name.startswith(OWN_EVENT) or one.end_utc_s <= now_s), *own)
        if set(wanted) != set(kept):
            write_events(self.place.folder, wanted)

    def _prices(self, now_s: float) -> None:
        rows = sorted({(one.begin_s, one.value) for one in self.known.pieces if one.kind == "PRICE"})
        if not rows:
            return
        if self.place.prices is None:
            self.told.left_out.append("PRICE is not acted on without --prices")
            return
        lines = ["time_utc,price_eur_per_kwh"]
        lines += [f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ},{price:.6f}" for at, price in rows]
        data = ("\n".join(lines) + "\n").encode()
        path = self.place.prices / PRICES_FILE
        if not path.exists() or path.read_bytes() != data:
            atomic_file.replace(path, data, 0o644)

    # ---- reports ----

    def _measure(self, now_s: float) -> None:
        """Registers at the begin of each interval that is to be reported, and the report at its end."""
        if not self.known.reports:
            return
        points = self.client.get("site.grid_in_ws", "site.grid_out_ws", "site.soc")
        values = {name: one.value for name, one in points.items() if QUALITIES[one.quality] in ("good", "held")}
        in_ws, out_ws = values.get("site.grid_in_ws"), values.get("site.grid_out_ws")
        if in_ws is None or out_ws is None:
            self.told.left_out.append("the grid meter is not good: no report of now")
            return
        at = Reading(now_s, in_ws, out_ws)
        self._begun = {key: one for key, one in self._begun.items() if key[0] in self.known.spans}
        for event, spans in self.known.spans.items():
            kinds = [kind for kind in self.known.reports[event] if kind in REPORTED]
            for kind in sorted(set(self.known.reports[event]) - set(kinds)):
                self.told.left_out.append(f"a report of {kind} was asked for and is not made")
            for number, begin_s, end_s in spans:
                key = (event, number)
                if begin_s <= now_s < end_s:
                    self._begun.setdefault(key, at)
                elif now_s >= end_s and key in self._begun:
                    row = self._row(event, number, kinds, self._begun.pop(key), at, values.get("site.soc"))
                    if kinds:
                        self._outbox.append(row)
        over = len(self._outbox) - OUTBOX_MAX
        if over > 0:
            self.told.reports_lost += over
            del self._outbox[:over]
        self._write_outbox()

    def _row(self, event: str, number: int, kinds: list[str], first: Reading, last: Reading,
             soc: float | None) -> dict[str, object]:  # fmt: skip
        """A report over what was measured: from the look after the interval's begin to the one after its end."""
        lasts_s = max(1e-3, last.utc_s - first.utc_s)
        kwh = max(0.0, last.in_ws - first.in_ws) / 3.6e6
        known = {
            "USAGE": kwh, "DEMAND": kwh * 3600 / lasts_s, "STORAGE_CHARGE_LEVEL": soc,
            "OPERATING_STATE": "RUNNING_CURTAILED" if self.told.limits != "none" else "NORMAL",
        }  # fmt: skip
        units = {"USAGE": "KWH", "DEMAND": "KW", "STORAGE_CHARGE_LEVEL": "PERCENT"}
        start = datetime.fromtimestamp(first.utc_s, UTC)
        kinds = [kind for kind in kinds if known[kind] is not None]
        made: dict[str, object] = {
            "objectType": "REPORT", "eventID": event, "clientName": self.place.ven,
            "reportName": f"{self.place.ven} {event} {number}"[:128],
            "payloadDescriptors": [
                {"objectType": "REPORT_PAYLOAD_DESCRIPTOR", "payloadType": kind, "units": units[kind],
                 "readingType": "MEAN" if kind == "DEMAND" else "DIRECT_READ"} for kind in kinds if kind in units
            ],
            "resources": [{
                "resourceName": self.place.ven,
                "intervalPeriod": {"start": f"{start:%Y-%m-%dT%H:%M:%SZ}", "duration": f"PT{round(lasts_s)}S"},
                "intervals": [{"id": number, "payloads": [
                    {"type": kind, "values": [known[kind]]} for kind in kinds
                ]}],
            }],
        }  # fmt: skip
        return {**made, "programID": self.place.program} if self.place.old_reports else made

    def _send(self) -> None:
        try:
            while self._outbox:
                self.server.report(self._outbox[0])
                del self._outbox[0]
                self.told.reports_sent += 1
                self._write_outbox()
        except VtnError as why:
            self.told.left_out.append(f"a report was not taken, it waits: {why}")
        except OSError as why:
            self.told.left_out.append(f"{self.place.folder / OUTBOX_FILE}: {why.strerror}")
        self.told.reports_waiting = len(self._outbox)

    def _read_outbox(self) -> list[dict[str, object]]:
        path = self.place.folder / OUTBOX_FILE
        try:
            return list(json.loads(path.read_text()))
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as why:
            self._report(f"{path}: {why}; reports that waited there are lost")
            return []

    def _write_outbox(self) -> None:
        path = self.place.folder / OUTBOX_FILE
        if self._outbox or path.exists():
            atomic_file.replace(path, json.dumps(self._outbox).encode())

    def run(self, stop: Callable[[float], bool], every_s: float) -> None:
        """Look every `every_s`, and when something begins or ends. stop : waits so long; true = end."""
        while True:
            now_s = time.time()
            self.step(now_s)
            edge_s = self.known.next_change_s((*LIMITS, "DISPATCH_SETPOINT"), now_s) - now_s
            if stop(max(0.2, min(every_s, edge_s + 0.05))):
                return


def _steps(pieces: list[Piece], now_s: float) -> tuple[list[dict[str, object]], int]:
    """(a plan of grid power, its end): at each moment what the strongest event has, nothing where none has.

    What lies behind the gateway's bounds of steps and of time is sent once it has come nearer.
    """
    far_s = math.floor(now_s) + PLAN_AHEAD_S
    edges = sorted({min(math.floor(edge), far_s) for one in pieces for edge in (one.begin_s, one.end_s)})
    edges = edges[: PLAN_STEPS_MAX + 1]
    made: list[dict[str, object]] = []
    for edge in edges[:-1]:
        here = [one for one in pieces if math.floor(one.begin_s) <= edge < math.floor(one.end_s)]
        step: dict[str, object] = {"start_utc_s": edge}
        if here:
            step["target_grid_w"] = min(here, key=lambda one: (one.priority, one.begin_s)).value
        made.append(step)
    return made, edges[-1] if made else 0
