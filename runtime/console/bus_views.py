"""What can be looked at: buses and the loop's latency."""

import math
import time
from collections.abc import Iterator
from typing import Any

from tidegate.ext.bus.rtu_view import histogram_edges
from tidegate.runtime.console.findings import port_devices
from tidegate.runtime.console.site_state import Plant
from tidegate.runtime.console.status import rate
from tidegate.runtime.console.text import age, micro, table

RATE_S = 10.0
EDGES_NS = histogram_edges()
BAR_WIDTH = 40
PHASES = ("read", "estimate", "control", "limit", "write", "publish")


def bus_lines(plant: Plant) -> list[str]:
    """Per port and slave: wire share, round trips, errors; per CAN id: rate and age."""
    told = plant.now.health.get("buses")
    if not told:
        return ["the core has not reported on its buses yet"]
    return [*_ports(plant, told), *_cans(plant, told)] or ["this site has no bus"]


def _ports(plant: Plant, told: dict[str, Any]) -> Iterator[str]:
    before = plant.sample_ago(RATE_S)
    lines = {row["name"]: row for row in plant.describe.get("ports", [])}
    for port, stats in (told.get("serial") or {}).items():
        at = ("serial", port)
        line = lines.get(port, {})
        share = rate(stats, before, at, "wire_busy_ns", told) / 1e9
        lost = stats.get("thread_lost")
        yield (
            f"port {port}  {line.get('device')} {line.get('baud')} {line.get('parity')}{line.get('stop_bits', 1)}"
            f"  wire {share:.0%}  {rate(stats, before, at, 'transactions', told):.0f} requests/s"
            f"  stray bytes {stats.get('foreign_bytes', 0)}" + (f"  LOST (errno {lost})" if lost else "")
        )
        rows = []
        devices = port_devices(plant, port)
        for number, slave in enumerate(stats.get("slaves", [])):
            device = devices[number] if number < len(devices) else {"name": "?", "unit_id": "?"}
            trip = _quartiles(slave.get("round_trip") or {})
            silent = not slave.get("alive", 1) or slave.get("silent_run", 0) >= 3
            answered = slave.get("t_ok_ns") or 0
            rows.append(
                (
                    f"  {device['name']}",
                    device["unit_id"],
                    "SILENT" if silent else "alive",
                    slave.get("ok", 0),
                    micro(trip[0]),
                    micro(trip[1]),
                    slave.get("timeouts", 0),
                    slave.get("crc_errors", 0) + slave.get("shorts", 0) + slave.get("mismatches", 0),
                    slave.get("exceptions", 0),
                    age((int(told.get("t_ns", 0)) - answered) / 1e6) if answered else "never",
                )
            )
        heads = ("  slave", "id", "state", "answers", "p50", "p99", "silent", "damaged", "refused", "last")
        yield from table(rows, heads, range(3, 10))


def _quartiles(buckets: dict[Any, int]) -> tuple[float | None, float | None]:
    """(median, 99th) of a port's histogram, ns, upper edges."""
    rows = sorted((int(at), int(count)) for at, count in buckets.items())
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


def _cans(plant: Plant, told: dict[str, Any]) -> Iterator[str]:
    before = plant.sample_ago(RATE_S)
    told_ns = int(told.get("t_ns", 0))
    for bus, stats in (told.get("can") or {}).items():
        old = ((before.buses.get("can") or {}).get(bus) or {}).get("ids") or {} if before else {}
        passed_s = (told_ns - int(before.buses.get("t_ns", 0))) / 1e9 if before else 0.0
        yield (
            f"can {bus}  {stats.get('state')}  {rate(stats, before, ('can', bus), 'frames', told):.0f} frames/s"
            f"  errors {stats.get('error_frames', 0)}  bus-off {stats.get('bus_off', 0)}"
            f"  dropped {stats.get('dropped', 0)}  unknown {stats.get('unknown', 0)}"
        )
        rows = []
        for number, frame in (stats.get("ids") or {}).items():
            rises = int(frame.get("count", 0)) - int((old.get(number) or {}).get("count", 0))
            per_s = f"{rises / passed_s:.1f}" if passed_s > 0 else "-"
            last = frame.get("t_last_ns") or 0
            bad = sum(int(frame.get(key, 0)) for key in ("bad_length", "crc_errors", "counter_errors", "repeated"))
            rows.append(
                (
                    f"  0x{number}",
                    per_s,
                    age((told_ns - last) / 1e6) if last else "never",
                    micro(frame.get("gap_max_ns")),
                    bad,
                    frame.get("invalid", 0),
                )
            )
        yield from table(rows, ("  id", "per s", "age", "longest gap", "bad frames", "bad values"), range(1, 6))


def latency_lines(plant: Plant) -> list[str]:
    """How late cycles began, how long they took, by phase; the seconds with the worst ones."""
    loop = plant.now.health.get("loop") or {}
    if not plant.samples or not loop:
        return ["the loop has not been heard yet"]
    got = [word for word, key in (("FIFO", "fifo"), ("locked memory", "locked")) if loop.get(key)]
    lines = [
        f"cycles {loop.get('cycles')}, missed {loop.get('missed')}, overruns {loop.get('overruns')}, "
        f"escalation {loop.get('escalation')}; runs with {' and '.join(got) or 'neither FIFO nor locked memory'}"
    ]
    rows = []
    for name in ("lateness", "work", *PHASES):
        told = loop.get(f"{name}_ns") or {}
        rows.append((name, *(micro(told.get(key)) for key in ("p50", "p99", "p999", "max"))))
    lines += table(rows, ("", "p50", "p99", "p99.9", "worst"), range(1, 5))
    for name in ("lateness", "work"):
        lines += ["", f"{name}, cycles by octave (four # for each tenfold)"]
        lines += _octaves(plant.samples[-1].histograms.get(name) or [])
    if plant.worst:
        lines += ["", "seconds with the latest cycles since this console started"]
        for late_ns, t_s, cycle in plant.worst:
            utc = time.strftime("%H:%M:%S", time.gmtime(time.time() - (plant.clock() - t_s)))
            lines.append(f"  {utc} UTC, before cycle {cycle}: at least {micro(late_ns)} late")
    return lines


def _octaves(buckets: list[list[int]]) -> list[str]:
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
