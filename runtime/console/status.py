"""The one screen: what the cabinet does, why, and what is wrong."""

import math
import time

import msgspec

from tidegate.runtime.api.answers import LoopHealth, passed, per_s
from tidegate.runtime.findings.evidence import active_faults, fault_row, latched_faults
from tidegate.runtime.findings.findings import findings
from tidegate.runtime.findings.site_state import Plant
from tidegate.runtime.findings.text import bar, clean, labelled, micro, number, plain_power, power, wrapped

WIDTH = 79
ROWS = 24
COLUMN = 11  # where text behind a label begins
UNITS_SHOWN = 3
ALARMS_SHOWN = 4
STALE_S = 3.0
QUIET_W = 50.0

# Why the setpoint is what it is, for each reason of ext/abi/image.h, with the figure that it is about.
WORDS = {
    "gate": "the safety gate let less through than was asked",
    "envelope": "the units cannot do more now",
    "reconnection": "the grid was lost; power rises again from zero",
    "unproven meter": "the grid meter's sign is not known yet (grid_unproven): less is charged and given",
    "grid operator": "the grid's operator has ordered a limit",
    "direction limit": "the schedule lets the battery take or give no more",
    "connection limit": "import must stay under the connection's {connection_import_w_max}",
    "export limit": "export must stay under {connection_export_w_max}",
    "phase limit": "one phase must stay under {phase_import_w_max}",
    "circuit limit": "a sub-circuit is at its limit",
    "backup reserve": "charge is kept back for an outage",
    "demand window": "the mean of the demand window must stay under {demand_w_max}",
    "peak limit": "the grid is held at {peak_w_max}",
    "grid ramp limit": "the grid may not change faster",
    "dynamic range limit": "the grid may not swing wider",
    "oscillation damping": "a swing of the load is damped",
    "recharge band": "charging may not lift the grid above {recharge_w_max}",
    "soc band": "charge is kept for the limits",
    "forced charge or discharge": "the schedule forces it",
    "battery's own request": "the BMS asks for it",
    "low charge": "charged, because the storage is below force_soc",
    "restoring the reserve": "charged, because the storage is below reserve_soc",
    "island": "the grid is gone: the genset is kept between its limits, or nothing carries the site yet",
    "lease": "somebody who holds the lease orders it",
    "plan": "the schedule says so",
    "self-consumption": "the grid is kept at {target_grid_w}",
    "recentre": "the battery goes back to its target charge",
    "rest": "nothing is asked for",
    "blind": "the grid meter is not believed, so no power",
    "stopped": "somebody said stop",
    "manual": "a technician orders it at the console",
}


# What the cabinet does in each mode of ext/abi/image.h.
MODE_WORDS = {
    "tripped": "no power; a fault holds or waits for an acknowledgement, or nobody has armed it",
    "arming": "a small step of power tests whether the converter follows",
    "ready": "the test is passed, its power goes back to zero",
    "run": "the control decides",
    "derated": "the control decides, within a smaller limit for a reason",
    "stopping": "on its way to zero",
    "off": "stopped by order",
    "manual": "a person decides, within the limits of the connection",
}


def why_words(plant: Plant) -> str:
    """The binding reason as a sentence with its number."""
    reason = plant.now.why.reason
    site = plant.description
    figures = {**msgspec.structs.asdict(site.limits), **msgspec.structs.asdict(site.control)}
    shown = {key: plain_power(value) for key, value in figures.items() if isinstance(value, int | float)}
    try:
        return WORDS.get(reason, reason).format_map(shown)
    except KeyError:
        return reason


def status_lines(plant: Plant, who: str = "", manual: str = "", now_s: float = math.inf) -> list[str]:
    """At most 24 lines of 79 characters."""
    lines = [_head(plant, who), "-" * WIDTH]
    if not plant.described:
        return [*lines, "", *wrapped(f"no answer from the gateway: {plant.silent}", WIDTH)]
    if plant.silent:
        lines.append(f"! OLD, {max(0.0, now_s - plant.now.t_s):.0f} s: {clean(plant.silent)}"[:WIDTH])
    lines += _flows(plant)
    lines += _units(plant)
    lines += _limits(plant, manual)
    alarms = _alarms(plant, ROWS - len(lines) - 2)
    lines += alarms
    lines += [""] * (ROWS - 2 - len(lines))
    return [*lines[: ROWS - 2], _wires(plant), _loop(plant)]


def _head(plant: Plant, who: str) -> str:
    mode = plant.now.why.mode.upper()
    left = f"{clean(plant.name) or 'no site'}  {mode}"
    right = f"{time.strftime('%H:%M:%S', time.gmtime())} UTC  {clean(who)}".rstrip()
    return f"{left:<{WIDTH - len(right) - 1}} {right}"[:WIDTH]


def _arrow(value_w: float | None, there: str, back: str) -> str:
    """Which way power goes, as eight characters."""
    if value_w is None:
        return "== ?? =="
    if abs(value_w) < QUIET_W:
        return "--------"
    return there if value_w > 0 else back


def _flows(plant: Plant) -> list[str]:
    value = plant.now.value
    grid, load, battery, solar = (value(f"site.{name}_w") for name in ("grid", "load", "ess", "pv"))
    has_solar = any(device.role == "pv-meter" for device in plant.devices)
    up = "^" if (battery or 0.0) > QUIET_W else "v" if (battery or 0.0) < -QUIET_W else "|"
    does = "discharges" if up == "^" else "charges" if up == "v" else "rests"
    solar_text = f"solar {plain_power(solar)} joins" if has_solar else ""
    lines = [
        f"  GRID {_side(grid, 'imports', 'exports'):<27}{'':4}LOAD",
        f"  {power(grid):>10}  {_arrow(grid, '======>>', '<<======')}====+===={_arrow(load, '======>>', '== ?? ==')}"
        f"  {plain_power(load):>9}   {solar_text}",
        f"{'':25}{up}",
        f"{'':12}BATTERY  {power(battery):>10} {does};"
        f" setpoint {power(value('site.setpoint_w'))}, request {power(value('site.request_w'))}",
    ]
    return [line.rstrip() for line in lines]


def _side(value_w: float | None, plus: str, minus: str) -> str:
    return "not known" if value_w is None else plus if value_w > QUIET_W else minus if value_w < -QUIET_W else "rests"


def _units(plant: Plant) -> list[str]:
    lines = []
    for at, unit in enumerate(plant.units[:UNITS_SHOWN]):
        bms = unit.battery
        soc, high, low = (plant.now.value(f"{bms}.{name}") for name in ("soc", "temp_max_c", "temp_min_c"))
        charge = f"{soc * 100:5.1f} %" if soc is not None else "    ? %"
        least, most = (plant.now.value(f"unit{at}.envelope_{side}_w") for side in ("lo", "hi"))
        lines.append(
            f"  {clean(unit.name)[:12]:<12} [{bar(soc, 20)}] {charge}  {number(low)}..{number(high)} degC"
            f"  can {power(least).removesuffix(' kW')}..{power(most)}"[:WIDTH]
        )
    if len(plant.units) > UNITS_SHOWN:
        lines.append(f"  and {len(plant.units) - UNITS_SHOWN} more; points unit")
    return lines


def _limits(plant: Plant, manual: str) -> list[str]:
    value, limits, control = plant.now.value, plant.description.limits, plant.description.control
    shown = [f"import {plain_power(value('site.grid_limit_w'))}"]
    if limits.connection_export_w_max is not None:
        shown.append(f"export {plain_power(limits.connection_export_w_max)}")
    if control.peak_w_max is not None:
        shown.append(f"peak {plain_power(control.peak_w_max)}")
    if control.demand_w_max is not None:
        mean, left = value("site.demand_w"), value("site.demand_left_s")
        shown.append(f"demand {plain_power(mean)} of {plain_power(control.demand_w_max)}, {number(left)} s left")
    lines = [f"  limits   {', '.join(shown)}"[:WIDTH]]
    reason = clean(plant.now.why.reason)
    lines += labelled("  why", f"{reason}: {why_words(plant)}", WIDTH, COLUMN)
    short = value("site.shortfall_w")
    if short:
        lines.append(f"  SHORT    the grid is {plain_power(short)} above a limit that nobody can hold")
    operator, back = plant.now.why.grid_operator, plant.now.why.reconnect
    if operator is not None:
        until = f"{operator.left_ms // 60_000} min left, by {clean(operator.peer)}"
        lines.append(f"  GRID OP  {clean(operator.text)}; {until}"[:WIDTH])
    if back is not None:
        wait = f"{number(back.wait_s)} s to wait" if back.wait_s else f"at most {plain_power(back.power_w)} now"
        lines.append(f"  GRID     was lost; {wait}"[:WIDTH])
    lease = plant.now.why.lease
    if manual:
        lines.append(f"  MANUAL   {manual}"[:WIDTH])
    elif lease:
        holder = f"{clean(lease.holder)} ({clean(lease.priority)})"
        lines.append(f"  lease    {holder}, {power(lease.setpoint_w)}"[:WIDTH])
    return lines


def _alarms(plant: Plant, room: int) -> list[str]:
    """Alarms with their causes, the weightiest cause first."""
    active, latched, causes = active_faults(plant), latched_faults(plant), findings(plant)
    if not active and not latched and not causes:
        return ["", "  ALARMS   none"]
    names = sorted({fault for _, fault in active})
    waits = sorted({fault for _, fault in latched} - set(names))
    shown = [", ".join(names) or "none active"]
    if waits:
        shown.append(f"latched: {', '.join(waits)}")
    lines = ["", *labelled("  ALARMS", "; ".join(shown), WIDTH, COLUMN)[:3]]
    for cause in causes:
        told = [f"  {line}" for line in wrapped(f"> {cause.title}: {cause.because}", WIDTH - 2, "  ")[:3]]
        if len(lines) + len(told) > room:
            if len(lines) < room:
                lines.append("  > and more: alarms")
            break
        lines += told
    if not causes:
        for fault in (*names, *waits)[:ALARMS_SHOWN]:
            row = fault_row(plant, fault)
            text = f"  > {fault}: {clean(row.text if row is not None else '')}"
            if len(lines) < room:
                lines.append(text[:WIDTH])
    return lines[:room]


def _wires(plant: Plant) -> str:
    told, sample = plant.now.health.buses, plant.sample_ago(10.0)
    if told is None:
        return "  bus      nothing told"
    before = sample.buses if sample is not None else None
    passed_s = passed(told, before)
    parts = []
    for name, port in told.serial.items():
        answers = per_s(port, before.serial.get(name) if before else None, "ok", passed_s)
        parts.append(f"{clean(name)} {answers:.0f}/s {port.timeouts + port.damaged} err")
    for name, bus in told.can.items():
        frames = per_s(bus, before.can.get(name) if before else None, "frames", passed_s)
        parts.append(f"{clean(name)} {frames:.0f}/s {clean(bus.state)}")
    return f"  bus      {'; '.join(parts) or 'nothing told'}"[:WIDTH]


def _loop(plant: Plant) -> str:
    loop = plant.now.health.loop or LoopHealth()
    journal = "FAILS" if plant.now.health.journal.error else "good"
    times = f"late p99 {micro(loop.lateness_ns.p99)}, worst {micro(loop.lateness_ns.max)}"
    missed = "?" if loop.missed is None else loop.missed
    return f"  loop     {times}, missed {missed}; journal {journal}"[:WIDTH]
