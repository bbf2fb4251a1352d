"""From pictures in shared memory to the records that are published."""

import math
import time
from collections.abc import Mapping, Sequence

from tidegate.ext.abi import copies, image, shared
from tidegate.hal.description import Description
from tidegate.runtime.api import messages

METER_UNITS = ("Wh", "Ws", "s", "W")
CLOCK_AGE_NS = 500_000_000  # offset to UTC is asked for again after this
LARGEST = 1e300
SITE_SOC = "site.soc"


def utc_sync() -> str:
    """Say how far wall time is to be trusted: S the kernel's clock is disciplined, U it is not, I unknown."""
    import ctypes

    class Timex(ctypes.Structure):
        _fields_ = [("modes", ctypes.c_uint), ("rest", ctypes.c_long * 32)]

    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.byref(Timex()))
    except (OSError, AttributeError):
        return "I"
    if state < 0:
        return "I"
    return "U" if state == 5 else "S"  # TIME_ERROR


class Clock:
    """Offset from the monotonic clock to UTC, and whether the machine keeps time."""

    def __init__(self) -> None:
        self._asked_ns = -CLOCK_AGE_NS * 2
        self._offset_ns = 0
        self.sync = "I"

    def utc_ns(self, t_ns: int) -> int:
        """UTC of a monotonic stamp by today's offset."""
        now = time.monotonic_ns()
        if now - self._asked_ns > CLOCK_AGE_NS:
            self._asked_ns = now
            self._offset_ns = time.time_ns() - now
            self.sync = utc_sync()
        return t_ns + self._offset_ns


class Records:
    """Turns pictures and events of one start of the core into published maps.

    site : the program's own description.
    """

    def __init__(self, site: Description, memory: shared.Shared) -> None:
        self.memory = memory
        self.names = site.point_names
        self.metered = [i for i, point in enumerate(site.points) if is_metered(point.name, point.unit)]
        self.site = site.site.name
        self.boot = memory.boot_id.hex()
        self.program = memory.program_sha256.hex()
        self.faults = site.fault_names()
        self.named = {
            "can": [bus.name for bus in site.can],
            "ports": [port.name for port in site.ports],
            "devices": [device.name for device in site.devices],
        }
        at = {name: i for i, name in enumerate(self.names)}
        batteries = [(f"{unit.battery}.soc", unit.energy_wh) for unit in site.units]
        self._soc = [(at[name], energy_wh or 1.0) for name, energy_wh in batteries if name in at]
        self._soc_whole = len(self._soc) == len(batteries) > 0
        self.derived_rows: list[dict[str, object]] = [{"name": SITE_SOC, "unit": "1", "device": -1}]
        self.clock = Clock()
        self.spans: dict[int, str] = {}
        """Number of a span of the plan -> its name, for events."""

    def head(self, kind: str, seq: int, cycle: int, t_ns: int) -> dict[str, object]:
        """The part that all records share."""
        utc_ns = self.clock.utc_ns(t_ns)
        return {
            "v": messages.WIRE_VERSION, "kind": kind, "site": self.site, "boot": self.boot, "seq": seq, "cycle": cycle,
            "t_ns": t_ns, "utc_ns": utc_ns, "utc_sync": self.clock.sync, "program": self.program,
        }  # fmt: skip

    def derived(self, picture: copies.Picture) -> dict[str, tuple[float | None, int]]:
        """Points that stand in no row of the image: the state of charge of all batteries by their energy.

        Its quality is the worst of theirs; where a battery does not say it, the site has none.
        """
        if not self._soc_whole:
            return {SITE_SOC: (None, 0)}
        worst = max(picture.qualities[i] or 5 for i, _ in self._soc) % 5  # 0, never heard, is the worst of all
        whole_wh = sum(energy_wh for _, energy_wh in self._soc)
        soc = sum(picture.values[i] * energy_wh for i, energy_wh in self._soc) / whole_wh
        return {SITE_SOC: (messages.number(soc, worst), worst)}

    def derived_t_ns(self, times_ns: Sequence[int]) -> int:
        """When the oldest reading behind them came, 0 = one never has."""
        return min((times_ns[i] for i, _ in self._soc), default=0)

    def points(self, picture: copies.Picture) -> dict[str, tuple[float | None, int]]:
        """All points of a picture, name -> (value, quality); no value unless it is good or held."""
        points = {
            name: (value if (quality == 1 or quality == 2) and -LARGEST < value < LARGEST else None, quality)
            for name, value, quality in zip(self.names, picture.values, picture.qualities, strict=True)
        }
        return messages.with_old_names(points | self.derived(picture))

    def meter(self, picture: copies.Picture) -> dict[str, object]:
        """The record of one second: energies, integrals, seconds covered, powers, soc."""
        record = self.head("meter", picture.number, picture.cycle, picture.t_ns)
        values, qualities = picture.values, picture.qualities
        points = {self.names[i]: (messages.number(values[i], qualities[i]), qualities[i]) for i in self.metered}
        record["points"] = messages.with_old_names(points | self.derived(picture))
        return record

    def snapshot(self, picture: copies.Picture, loop: dict[str, object]) -> dict[str, object]:
        """All points as they were, with the loop's statistics."""
        record = self.head("snapshot", picture.number, picture.cycle, picture.t_ns)
        record["points"] = self.points(picture)
        record["loop"] = loop
        return record

    def event(self, seq: int, event: shared.Event) -> dict[str, object]:
        """What the core reports."""
        record = self.head("event", seq, event.cycle, event.t_ns)
        kind = shared.EVENT_NAMES[event.kind] if event.kind < len(shared.EVENT_NAMES) else f"event-{event.kind}"
        record.update(
            event=kind, unit=event.unit, code=event.code, name=self.name_of(kind, event.code), previous=event.previous,
            value=event.value if math.isfinite(event.value) else None,
            limit=event.limit if math.isfinite(event.limit) else None, detail=self.detail_of(kind, event),
            changes=event.changes, lasted_s=event.lasted_s,
        )  # fmt: skip
        if event.changes > 1:
            record["detail"] = f"{record['detail']}, {event.changes} changes in {event.lasted_s:.0f} s".lstrip(", ")
        return record

    def own_event(self, seq: int, event: str, name: str, detail: str, **more: object) -> dict[str, object]:
        """What the gateway itself reports: orders, leases, the journal."""
        record = self.head("event", seq, self.memory.cycle, time.monotonic_ns())
        record.update(event=event, unit=-1, code=0, name=name, previous=0, value=None, limit=None, detail=detail[:200])
        record.update(more)
        return record

    def detail_of(self, kind: str, event: shared.Event) -> str:
        """What else there is to say of an event of the control or of a bus."""
        if kind == "bus":
            return self.bus_of(event.code, event.value)
        if kind == "unenforced":
            causes = shared.UNENFORCED_NAMES
            return causes[event.previous] if 0 <= event.previous < len(causes) else str(event.previous)
        if kind == "source":
            reasons = image.REASONS_BY_NUMBER
            return f"after {reasons[event.previous]}" if 0 <= event.previous < len(reasons) else ""
        if kind == "plan":
            sources = shared.PLAN_SOURCE_NAMES
            source = sources[event.unit] if 0 <= event.unit < len(sources) else str(event.unit)
            before = f", after {self.spans.get(event.previous, event.previous)}" if event.previous else ""
            return f"{source}{before}"
        if kind == "clock":
            return f"demand windows begin {abs(event.value):.0f} s {'earlier' if event.value > 0 else 'later'}"
        if kind == "meter":
            return f"its readings are {event.value:.2f} s old, {event.limit:.2f} s before"
        if kind == "reconnect" and event.code:
            return f"{event.limit:.0f} s to wait, then {event.value:.0f} W"
        if kind == "island":
            states = shared.ISLAND_NAMES
            before = states[event.previous] if 0 <= event.previous < len(states) else str(event.previous)
            return f"after {before}, the meter shows {event.value:.0f} W"
        if kind == "genset":
            return f"at a state of charge of {100 * event.value:.0f} %"
        return f"period {event.limit:.1f} s, swing {event.value:.0f} W" if kind == "hunting" else ""

    def name_of(self, event: str, code: int) -> str:
        """Name of the code of an event: a mode, a reason or a row of the fault table."""
        table: tuple[str, ...] | dict[int, str] = ()
        if event in ("mode",):
            table = image.MODES_BY_NUMBER
        elif event in ("reason", "source", "unenforced"):
            table = image.REASONS_BY_NUMBER
        elif event in ("fault_on", "fault_off", "latch"):
            return self.fault_name(code)
        elif event in ("start", "stop"):
            return "core"
        elif event == "overrun":
            table = shared.ESCALATION_NAMES
        elif event == "shortfall":
            table = ("ended", "began")
        elif event == "plan":
            return self.spans.get(code, str(code)) if code else "none"
        elif event == "hunting":
            return f"level {code}" if code else "calm"
        elif event == "billing":
            table = ("", "period ended")
        elif event == "clock":
            table = shared.CLOCK_NAMES
        elif event == "reconnect":
            table = shared.RECONNECT_NAMES
        elif event == "island":
            table = shared.ISLAND_NAMES
        elif event == "genset":
            table = ("let go", "asked for")
        elif event == "meter":
            table = ("", "age changed")
        elif event == "bus":
            table = tuple(word for word, _ in shared.BUS_STATES)
        if isinstance(table, tuple) and 0 <= code < len(table):
            return table[code]
        return str(code)

    def fault_name(self, row: int) -> str:
        """The id of a row of the fault table."""
        return self.faults.get(row, f"fault {row}")

    def bus_of(self, code: int, number: float) -> str:
        """Which bus, port or device a bus event is about, by the name that the site file gives it."""
        kind = shared.BUS_STATES[code][1] if 0 <= code < len(shared.BUS_STATES) else ""
        rows = self.named.get(kind, [])
        return rows[int(number)] if 0 <= number < len(rows) else f"{kind} {number:.0f}"


def utc_of(record: Mapping[str, object]) -> int:
    """Wall time of a record, ns."""
    utc_ns = record["utc_ns"]
    assert isinstance(utc_ns, int)
    return utc_ns


def is_metered(name: str, unit: str) -> bool:
    """Tell whether a point belongs to the meter record."""
    return unit in METER_UNITS or name.rpartition(".")[2] == "soc"


def loop_of(memory: shared.Shared) -> dict[str, object]:
    """The loop's statistics as snapshots carry them, durations in us."""
    told: dict[str, object] = dict(memory.loop_counters())
    for name in ("lateness", "work"):
        summary = memory.histogram(name).summary()
        told[f"{name}_us"] = {key: summary[key] / 1e3 for key in ("p50", "p99", "p999", "max")}
    return told
