"""What is behind the alarms: evidence put together into a cause and the next thing to do.

A fault row says that readings are bad or that a limit was met. A technician needs the line before that: which sensor,
which wire, which meter. Every finding names its evidence, so that it can be doubted.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tidegate.runtime.console.site_state import Plant
from tidegate.runtime.console.text import age, number, power

NEVER, GOOD, HELD, STALE, INVALID = range(5)
SILENT_RUN = 3  # time-outs in a row before a slave is called silent
CAN_PERIODS = 5  # periods without a frame before an id is called silent
SPREAD_K = 15.0  # two sensors of one pack that are further apart measure different things, or one is broken
JUMP_K = 5.0  # between two seconds: cells weigh kilograms
NEGATIVE_LOAD_W = 300.0
NEGATIVE_SECONDS = 3
MOVED_W = 500.0  # a step of battery power that is worth a look at the meter
ERROR_SHARE = 0.01


@dataclass(frozen=True)
class Finding:
    """One cause. weight: the larger, the sooner to look at. faults: rows of the fault table that it explains."""

    weight: int
    title: str
    because: str
    remedy: str
    faults: frozenset[str] = frozenset()


def findings(plant: Plant) -> list[Finding]:
    """All that can be told now, the weightiest first."""
    if not plant.describe:
        return []
    found = [
        *_core(plant),
        *_serial(plant),
        *_can(plant),
        *_readings(plant),
        *_temperatures(plant),
        *_meter_sign(plant),
        *_meters_apart(plant),
        *_converter(plant),
        *_orders(plant),
    ]
    return sorted(found, key=lambda one: -one.weight)


def active_faults(plant: Plant) -> list[tuple[str, str]]:
    """(unit, fault id) of what is present now."""
    return _split(plant.now.why.get("faults"))


def latched_faults(plant: Plant) -> list[tuple[str, str]]:
    """(unit, fault id) of what waits for an acknowledgement."""
    return _split(plant.now.why.get("latches"))


def _split(rows: Any) -> list[tuple[str, str]]:
    return [(unit, fault) for unit, _, fault in (str(row).partition(" ") for row in rows or [])]


def fault_row(plant: Plant, fault: str) -> dict[str, Any]:
    """The row of the fault table, empty when it is not known."""
    rows = plant.describe.get("faults") or []
    return next((row for row in rows if isinstance(row, dict) and row.get("id") == fault), {})


def _present(plant: Plant, *faults: str) -> frozenset[str]:
    seen = {fault for _, fault in (*active_faults(plant), *latched_faults(plant))}
    return frozenset(seen & set(faults))


# ---- the controller ----


def _core(plant: Plant) -> Iterator[Finding]:
    core = plant.now.health.get("core") or {}
    if core and not core.get("running"):
        yield Finding(100, "the core does not run", "the gateway says so", "start the site: tidegate run SITE")
    elif core.get("stalled"):
        shown = age(core.get("image_age_ms"))
        yield Finding(
            100,
            "the core stands still",
            f"its last cycle was {shown} ago",
            "restart the site; keep the log of the core",
        )
    error = (plant.now.health.get("journal") or {}).get("error")
    if error:
        yield Finding(
            20, "the journal cannot be written", str(error), "free or repair the disk; control is not affected"
        )


# ---- serial lines ----


def port_devices(plant: Plant, port: str) -> list[dict[str, Any]]:
    """Devices of a serial port in the order of its slaves' counters."""
    return [device for device in plant.devices if device.get("bus") == port and device.get("protocol") != "can"]


def slaves(plant: Plant) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(port, device, counters) of every slave."""
    for port, stats in ((plant.now.health.get("buses") or {}).get("serial") or {}).items():
        for device, slave in zip(port_devices(plant, port), stats.get("slaves", []), strict=False):
            yield port, device, slave


def silent_devices(plant: Plant) -> set[str]:
    """Names of serial devices that do not answer."""
    return {device["name"] for _, device, slave in slaves(plant) if _is_silent(slave)}


def _is_silent(slave: dict[str, Any]) -> bool:
    return int(slave.get("silent_run", 0)) >= SILENT_RUN or not slave.get("alive", 1)


def _serial(plant: Plant) -> Iterator[Finding]:
    told_ns = int((plant.now.health.get("buses") or {}).get("t_ns", 0))
    by_port: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for port, device, slave in slaves(plant):
        by_port.setdefault(port, []).append((device, slave))
    lines = {row["name"]: row for row in plant.describe.get("ports", [])}
    for port, rows in by_port.items():
        silent = [(device, slave) for device, slave in rows if _is_silent(slave)]
        line = lines.get(port, {})
        setting = f"{line.get('baud')} baud {line.get('parity', 'N')}, {line.get('device')}"
        if len(silent) == len(rows) and len(rows) > 1:
            names = ", ".join(str(device["name"]) for device, _ in silent)
            yield Finding(
                80,
                f"nobody answers on line {port}",
                f"{names} are all silent",
                f"the line itself: cable, A/B swapped, adapter, supply; set to {setting}",
                _present(plant, *METER_ROWS, *PCS_ROWS),
            )
            continue
        for device, slave in silent:
            answered = slave.get("t_ok_ns") or 0
            last = f"last answer {age((told_ns - answered) / 1e6)} ago" if answered else "it never answered"
            others = [str(other["name"]) for other, stats in rows if other is not device and not _is_silent(stats)]
            if others:
                line_says = f"; {', '.join(others)} on the same line answers, so the line is good"
                remedy = f"supply, wiring and address of {device['name']} (unit {device['unit_id']})"
            else:
                line_says = ""
                remedy = (
                    f"supply and wiring of {device['name']}, its address (unit {device['unit_id']}), "
                    f"the line ({setting}), A/B swapped"
                )
            yield Finding(
                79 if device["role"] in ("grid-meter", "pcs") else 40,
                f"{device['name']} ({device['role']}) does not answer on line {port}",
                f"{slave.get('silent_run', 0)} time-outs in a row, {last}{line_says}",
                remedy,
                _present(plant, *(PCS_ROWS if device["role"] == "pcs" else METER_ROWS)),
            )
        before = plant.sample_ago(60.0)
        for at, (device, slave) in enumerate(rows):
            if _is_silent(slave):
                continue
            old = _slave_of(before.buses if before else {}, port, at)
            bad = sum(_rise(slave, old, key) for key in ("crc_errors", "shorts", "mismatches"))
            all_of_them = bad + _rise(slave, old, "ok")
            if bad >= 3 and bad > ERROR_SHARE * all_of_them:
                yield Finding(
                    30,
                    f"replies of {device['name']} arrive damaged",
                    f"{bad} of the last {all_of_them} (line {port})",
                    "termination, shield, common ground, another master or a wrong baud or parity",
                )
            codes = _rise(slave, old, "exceptions")
            if codes >= 3 and codes > ERROR_SHARE * all_of_them:
                yield Finding(
                    35,
                    f"{device['name']} refuses requests",
                    f"{codes} Modbus exceptions of late",
                    f"is it really a {device['map']}? firmware and map must fit; tidegate devices show {device['map']}",
                )


def _slave_of(buses: dict[str, Any], port: str, at: int) -> dict[str, Any]:
    rows = ((buses.get("serial") or {}).get(port) or {}).get("slaves") or []
    return rows[at] if at < len(rows) else {}


def _rise(now: dict[str, Any], before: dict[str, Any], key: str) -> int:
    return max(0, int(now.get(key, 0)) - int(before.get(key, 0)))


METER_ROWS = ("meter_never", "meter_stale", "meter_invalid", "meter_stuck", "pv_lost")
PCS_ROWS = ("pcs_never", "pcs_stale", "pcs_lost", "pcs_invalid")
BMS_ROWS = ("bms_never", "bms_stale", "bms_silent", "bms_invalid")


# ---- CAN ----


def _can(plant: Plant) -> Iterator[Finding]:
    told = plant.now.health.get("buses") or {}
    told_ns = int(told.get("t_ns", 0))
    for bus, stats in (told.get("can") or {}).items():
        rate = next((row.get("bitrate") for row in plant.describe.get("can", []) if row["name"] == bus), None)
        if stats.get("state") in ("passive", "bus-off", "down"):
            yield Finding(
                75,
                f"CAN bus {bus} is {stats['state']}",
                f"error counters {stats.get('tec', 0)} sent, {stats.get('rec', 0)} received; "
                f"{stats.get('bus_off', 0)} times bus-off",
                f"termination (120 ohm at both ends), CAN-H and CAN-L, bit rate {rate}",
                _present(plant, *BMS_ROWS),
            )
        silent, heard = [], 0
        for number_, frame in (stats.get("ids") or {}).items():
            last = frame.get("t_last_ns") or 0
            late_ns = CAN_PERIODS * max(int(frame.get("period_ns") or 0), 20_000_000)
            if not last or told_ns - last > late_ns:
                silent.append((number_, last))
            else:
                heard += 1
        users = ", ".join(device["name"] for device in plant.devices if device.get("bus") == bus)
        if silent and not heard:
            newest = max(last for _, last in silent)
            when = f"last frame {age((told_ns - newest) / 1e6)} ago" if newest else "not one frame since start"
            yield Finding(
                78,
                f"{users} is silent on CAN bus {bus}",
                f"{when}; unknown ids: {stats.get('unknown', 0)} frames",
                f"supply of the BMS, CAN-H and CAN-L, bit rate {rate}",
                _present(plant, *BMS_ROWS),
            )
        elif silent:
            names = ", ".join(
                f"0x{number_} ({age((told_ns - last) / 1e6) + ' ago' if last else 'never'})" for number_, last in silent
            )
            yield Finding(
                70,
                f"{users} leaves out frames on CAN bus {bus}",
                f"missing: {names}; {heard} other ids come as they should",
                "firmware or settings of the BMS: the protocol must be the one of its map",
                _present(plant, *BMS_ROWS),
            )


# ---- single readings ----


def _readings(plant: Plant) -> Iterator[Finding]:
    """Devices that talk, and some of whose readings are not believable all the same."""
    gone = silent_devices(plant)
    by_device: dict[int, list[dict[str, Any]]] = {}
    for row in plant.describe.get("points", []):
        if row.get("device", -1) >= 0:
            by_device.setdefault(row["device"], []).append(row)
    for at, rows in by_device.items():
        device = plant.devices[at]
        bad = [row for row in rows if plant.now.quality(row["name"]) == INVALID]
        good = sum(plant.now.quality(row["name"]) in (GOOD, HELD) for row in rows)
        if not bad or device["name"] in gone or not good:
            continue
        bms = device["role"] == "bms"
        shown = "; ".join(f"{row['name']} ({row.get('register', '?')})" for row in bad[:3])
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        sensor = "sensor" if len(bad) <= 3 else "readings"
        yield Finding(
            72 if bms else 65,
            f"{device['name']} sends a value that cannot be: {shown}{more}",
            f"outside its range or marked 'not available'; {good} other readings of {device['name']} are good",
            f"that {sensor} of {device['name']} and its cable; not the bus",
            _present(plant, *(BMS_ROWS if bms else METER_ROWS if device["role"] != "pcs" else PCS_ROWS)),
        )


def _temperatures(plant: Plant) -> Iterator[Finding]:
    for unit in plant.units:
        bms = unit["bms"]
        high, low = plant.now.value(f"{bms}.temp_max_c"), plant.now.value(f"{bms}.temp_min_c")
        faults = _present(plant, *(f"temp_{side}_{level}" for side in ("high", "low") for level in LEVELS))
        if not faults and not (high is not None and low is not None and high - low > SPREAD_K):
            continue
        jumps = [(step, point) for point in ("temp_max_c", "temp_min_c") if (step := _jump(plant, f"{bms}.{point}"))]
        shown = f"{bms}.temp_max_c {number(high)} degC, {bms}.temp_min_c {number(low)} degC"
        limits = f"limits {number(unit.get('temp_min_c'))} to {number(unit.get('temp_max_c'))} degC"
        if jumps or (high is not None and low is not None and high - low > SPREAD_K):
            why = [shown, limits]
            if jumps:
                step, point = max(jumps, key=lambda one: abs(one[0]))
                why.append(f"{point} moved by {step:+.0f} K within a second, which cells cannot")
            if high is not None and low is not None and high - low > SPREAD_K:
                why.append(f"{high - low:.0f} K between the warmest and the coldest")
            yield Finding(
                74,
                f"a temperature sensor of {bms} is not to be believed, or one cell alone is hot",
                "; ".join(why),
                "touch nothing; look at the pack with a thermal camera, then change the sensor or its plug",
                faults,
            )
        else:
            yield Finding(
                73,
                f"the battery of {unit['name']} is too {'warm' if any('high' in one for one in faults) else 'cold'}",
                f"{shown}; {limits}",
                "cooling, doors, filters; wait until it is back inside",
                faults,
            )


LEVELS = ("warn", "stop", "trip")


def _jump(plant: Plant, point: str) -> float:
    """The largest change between two seconds of the last ten minutes, if it is more than cells can."""
    best, before = 0.0, math.nan
    for _, value in plant.past(point, 600.0):
        if math.isfinite(before) and math.isfinite(value) and abs(value - before) > abs(best):
            best = value - before
        if math.isfinite(value):
            before = value
    return best if abs(best) >= JUMP_K else 0.0


# ---- meters that disagree ----


def grid_device(plant: Plant) -> str:
    return next((device["name"] for device in plant.devices if device["role"] == "grid-meter"), "grid")


def grid_follows(plant: Plant, length_s: float = 600.0) -> tuple[float, int]:
    """(W of grid for a W of battery power, steps seen). A meter that is mounted right goes down by what is discharged.

    Load that moved at the same time blurs it: only a clear answer counts.
    """
    products = squares = 0.0
    steps = 0
    before: tuple[float, float] | None = None
    grids = [value for _, value in plant.past("site.grid_w", length_s)]
    batteries = [value for _, value in plant.past("site.ess_w", length_s)]
    for grid, battery in zip(grids, batteries, strict=True):
        if not (math.isfinite(grid) and math.isfinite(battery)):
            before = None
            continue
        if before is not None and abs(battery - before[1]) > MOVED_W:
            products += (grid - before[0]) * (battery - before[1])
            squares += (battery - before[1]) ** 2
            steps += 1
        before = (grid, battery)
    return (products / squares if squares else 0.0), steps


def _meter_sign(plant: Plant) -> Iterator[Finding]:
    """A load below zero does not exist: then a meter is mounted the wrong way round."""
    meter = grid_device(plant)
    recent = [value for _, value in plant.past("site.load_w", NEGATIVE_SECONDS + 1.0)]
    known = [value for value in recent if math.isfinite(value)]
    grid, battery, load = (plant.now.value(f"site.{name}_w") for name in ("grid", "ess", "load"))
    phases = [plant.now.value(f"{meter}.power_l{phase}_w") for phase in (1, 2, 3)]
    if len(known) >= NEGATIVE_SECONDS and all(value < -NEGATIVE_LOAD_W for value in known):
        solar = any(device["role"] == "pv-meter" for device in plant.devices)
        slope, steps = grid_follows(plant)
        evidence = f"; in {steps} steps the grid went {slope:+.1f} W for each W discharged" if steps >= 2 else ""
        yield Finding(
            90,
            f"the current transformers of {meter} face the wrong way",
            f"load = grid {power(grid)} + battery {power(battery)}{' + solar' if solar else ''} = {power(load)}: "
            f"a load cannot be negative{evidence}",
            f"stop; turn the transformers round, or set invert = {'false' if _inverted(plant, meter) else 'true'} for "
            f"{meter} in the site file (config set); or generation that no meter sees",
            _present(plant, "grid_over_limit", "meter_invalid"),
        )
    elif all(value is not None and abs(value) > NEGATIVE_LOAD_W for value in phases):
        signs = [value is not None and value > 0 for value in phases]
        if len(set(signs)) == 2 and abs(battery or 0.0) < MOVED_W:
            odd = next(at for at in range(3) if signs.count(signs[at]) == 1)
            shown = ", ".join(f"L{at + 1} {power(value)}" for at, value in enumerate(phases))
            yield Finding(
                85,
                f"one current transformer of {meter} faces the wrong way: L{odd + 1}",
                f"{shown} while the battery rests",
                f"turn the transformer of L{odd + 1} round",
            )


def _inverted(plant: Plant, name: str) -> bool:
    return any(device["name"] == name and device.get("invert") for device in plant.devices)


def _meters_apart(plant: Plant) -> Iterator[Finding]:
    """Parts of the load that together are more than the load."""
    parts = [device["name"] for device in plant.devices if device["role"] in ("it-meter", "cooling-meter")]
    seen = [value for name in parts if (value := plant.now.value(f"{name}.power_w")) is not None]
    load = plant.now.value("site.load_w")
    if load is None or load < 0 or len(seen) != len(parts) or not parts:
        return
    if sum(seen) > 1.1 * load + 1000.0:
        yield Finding(
            50,
            "the meters disagree",
            f"{' and '.join(parts)} see {power(sum(seen))}, the whole load is {power(load)}",
            "current transformer ratios, phases swapped, or a meter that sits elsewhere",
        )


# ---- converter and orders ----


def _converter(plant: Plant) -> Iterator[Finding]:
    for at, unit in enumerate(plant.units):
        pcs, bms = unit["pcs"], unit["bms"]
        setpoint, seen = plant.now.value(f"unit{at}.setpoint_w"), plant.now.value(f"{pcs}.power_w")
        faults = _present(plant, "pcs_not_following", "pcs_runaway", "pcs_outside", "pcs_outside_long")
        if faults:
            turned = setpoint is not None and seen is not None and setpoint * seen < 0
            yield Finding(
                68,
                f"{pcs} does not follow its setpoint" + (": it goes the other way" if turned else ""),
                f"setpoint {power(setpoint)}, measured {power(seen)}",
                "its mode (local, standby), its own limits, sign in its map" if turned else "its mode and own limits",
                faults,
            )
        elif faults := _present(plant, "pcs_short"):
            yield Finding(
                35,
                f"{pcs} gives less than it is told",
                f"setpoint {power(setpoint)}, measured {power(seen)}; the control goes on with what it gives",
                "derating by heat or DC voltage, a battery near full or empty, its nameplate in the site file",
                faults,
            )
        if faults := _present(plant, "pcs_not_ready", "pcs_fault"):
            state = plant.now.value(f"{pcs}.state")
            yield Finding(
                67,
                f"{pcs} reports {'a fault' if 'pcs_fault' in faults else 'that it does not take setpoints'}",
                f"{pcs}.state {number(state)}, fault word {number(plant.now.value(f'{pcs}.fault'))}",
                "read its own display; local mode, emergency stop, grid lost",
                faults,
            )
        if faults := _present(plant, "dc_v_mismatch", "dc_a_mismatch", "dc_mismatch_long"):
            volts = f"{number(plant.now.value(f'{bms}.pack_v'))} and {number(plant.now.value(f'{pcs}.dc_v'))} V"
            amps = f"{number(plant.now.value(f'{bms}.pack_a'))} and {number(plant.now.value(f'{pcs}.dc_a'))} A"
            yield Finding(
                60,
                f"{bms} and {pcs} measure the same wires differently",
                f"{volts}, {amps}",
                "DC fuse or contactor of one string, scale of the map, one of the two sensors",
                faults,
            )


def _orders(plant: Plant) -> Iterator[Finding]:
    if plant.now.why.get("stopped"):
        yield Finding(10, "stopped by order", "somebody said stop", "arm, when the cabinet may work again")
    elif plant.now.why.get("mode") == "tripped" and not active_faults(plant):
        latched = latched_faults(plant)
        if latched:
            yield Finding(15, "waits for an acknowledgement", ", ".join(fault for _, fault in latched), "ack, then arm")
        elif not (plant.now.health.get("gateway") or {}).get("autostart", True):
            yield Finding(15, "waits to be armed", "no fault is present, autostart is off", "arm")
