"""What can be looked at: buses and the loop's latency."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping

from tidegate.ext.abi.shared import PHASE_NAMES
from tidegate.ext.bus.rtu_view import histogram_edges
from tidegate.hal.description import Device, SerialPort
from tidegate.runtime.api.answers import Buses, CanHealth, Port, Times, passed, per_s, rise
from tidegate.runtime.findings.bus_findings import is_silent, port_devices
from tidegate.runtime.findings.site_state import Plant
from tidegate.runtime.findings.text import age, micro, table

RATE_S = 10.0
EDGES_NS = histogram_edges()
BAR_WIDTH = 40


def bus_lines(plant: Plant) -> list[str]:
    """Per port and slave: wire share, round trips, errors; per CAN id: rate and age."""
    told = plant.now.health.buses
    if told is None:
        return ["the core has not reported on its buses yet"]
    sample = plant.sample_ago(RATE_S)
    before = sample.buses if sample is not None else None
    lines: list[str] = []
    for name, port in told.serial.items():
        lines += _port(plant, name, port, told, before)
    for name, bus in told.can.items():
        lines += _can(name, bus, told, before)
    return lines or ["this site has no bus"]


def _port(plant: Plant, name: str, port: Port, told: Buses, before: Buses | None) -> Iterator[str]:
    line = next((row for row in plant.description.ports if row.name == name), SerialPort(name=name, device="?"))
    old, passed_s = (before.serial.get(name) if before else None), passed(told, before)
    wire = "" if line.transport == "tcp" else f"  wire {per_s(port, old, 'wire_busy_ns', passed_s) / 1e9:.0%}"
    yield (
        f"port {name}  {line.setting}{wire}"
        f"  {per_s(port, old, 'transactions', passed_s):.0f} requests/s"
        + (
            f"  strays {port.strays}  hung up {port.hangups}"
            if line.over_tcp
            else f"  stray bytes {port.foreign_bytes}"
        )
        + (f"  LOST (errno {port.thread_lost})" if port.thread_lost else "")
    )
    rows = []
    devices = port_devices(plant, name)
    for number, slave in enumerate(port.slaves):
        device = devices[number] if number < len(devices) else Device(name="?")
        median, late = _quantiles(slave.round_trip)
        rows.append(
            (
                f"  {device.name}",
                "?" if device.unit_id is None else device.unit_id,
                "SILENT" if is_silent(slave) else "alive",
                slave.ok,
                micro(median),
                micro(late),
                slave.timeouts,
                slave.damaged,
                slave.exceptions,
                age((told.t_ns - slave.t_ok_ns) / 1e6) if slave.t_ok_ns else "never",
            )
        )
    heads = ("  slave", "id", "state", "answers", "p50", "p99", "silent", "damaged", "refused", "last")
    yield from table(rows, heads, range(3, 10))


def _quantiles(buckets: Mapping[int, int]) -> tuple[float | None, float | None]:
    """(median, 99th) of a port's histogram, ns, upper edges."""
    rows = sorted(buckets.items())
    total = sum(count for _, count in rows)
    if not total:
        return None, None
    found = []
    for part in (0.5, 0.99):
        seen = 0
        for at, count in rows:
            seen += count
            if seen >= part * total:
                found.append(float(EDGES_NS[min(at, len(EDGES_NS) - 1)]))
                break
    return found[0], found[1]


def _can(name: str, bus: CanHealth, told: Buses, before: Buses | None) -> Iterator[str]:
    old, passed_s = (before.can.get(name) if before else None), passed(told, before)
    yield (
        f"can {name}  {bus.state}  {per_s(bus, old, 'frames', passed_s):.0f} frames/s"
        f"  errors {bus.error_frames}  bus-off {bus.bus_off}  dropped {bus.dropped}  unknown {bus.unknown}"
    )
    rows = []
    for number, frame in bus.ids.items():
        rises = rise(frame, old.ids.get(number) if old else None, "count")
        rows.append(
            (
                f"  0x{number}",
                f"{rises / passed_s:.1f}" if passed_s > 0 else "-",
                age((told.t_ns - frame.t_last_ns) / 1e6) if frame.t_last_ns else "never",
                micro(frame.gap_max_ns),
                frame.damaged,
                frame.invalid,
            )
        )
    yield from table(rows, ("  id", "per s", "age", "longest gap", "bad frames", "bad values"), range(1, 6))


def latency_lines(plant: Plant) -> list[str]:
    """How late cycles began, how long they took, by phase; the seconds with the worst ones."""
    loop = plant.now.health.loop
    if not plant.samples or loop is None:
        return ["the loop has not been heard yet"]
    got = [word for word, has in (("FIFO", loop.fifo), ("locked memory", loop.locked)) if has]
    lines = [
        f"cycles {loop.cycles}, missed {loop.missed}, overruns {loop.overruns}, "
        f"escalation {loop.escalation}; runs with {' and '.join(got) or 'neither FIFO nor locked memory'}"
    ]
    rows = []
    for name in ("lateness", "work", *PHASE_NAMES):
        times: Times = getattr(loop, f"{name}_ns")
        rows.append((name, micro(times.p50), micro(times.p99), micro(times.p999), micro(times.max)))
    lines += table(rows, ("", "p50", "p99", "p99.9", "worst"), range(1, 5))
    for name in ("lateness", "work"):
        lines += ["", f"{name}, cycles by octave (four # for each tenfold)"]
        lines += _octaves(plant.samples[-1].histograms.get(name, ()))
    if plant.worst:
        lines += ["", "seconds with the latest cycles since this console started"]
        for late_ns, t_s, cycle in plant.worst:
            utc = time.strftime("%H:%M:%S", time.gmtime(time.time() - (plant.clock() - t_s)))
            lines.append(f"  {utc} UTC, before cycle {cycle}: at least {micro(late_ns)} late")
    return lines


def _octaves(buckets: Iterable[tuple[int, int]]) -> list[str]:
    octaves: dict[int, int] = {}
    for edge, count in buckets:
        octave = int(math.log2(edge)) if edge > 0 else 0
        octaves[octave] = octaves.get(octave, 0) + count
    lines = []
    for octave in sorted(octaves):
        count = octaves[octave]
        marks = "#" * min(BAR_WIDTH, 1 + round(4 * math.log10(count)))
        lines.append(f"  from {micro(2.0**octave):>8}  {count:>12}  {marks}")
    return lines or ["  nothing yet"]
