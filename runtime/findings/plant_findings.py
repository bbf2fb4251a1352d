"""Causes in the plant: readings that cannot be, sensors, transformers, meters that disagree, a stubborn converter."""

import math
from collections.abc import Iterator

from tidegate.ext.abi.image import Quality
from tidegate.hal.description import Point
from tidegate.runtime.findings.bus_findings import silent_devices
from tidegate.runtime.findings.evidence import BMS_ROWS, METER_ROWS, PCS_ROWS, Finding, present
from tidegate.runtime.findings.site_state import Plant
from tidegate.runtime.findings.text import number, power

SPREAD_K = 15.0  # two sensors of one pack that are further apart measure different things, or one is broken
JUMP_K = 5.0  # between two seconds: cells weigh kilograms
NEGATIVE_LOAD_W = 300.0
NEGATIVE_SECONDS = 3
MOVED_W = 500.0  # a step of battery power that is worth a look at the meter
LEVELS = ("warn", "stop", "trip")


def look(plant: Plant) -> Iterator[Finding]:
    """All that readings show."""
    yield from _readings(plant)
    yield from _temperatures(plant)
    yield from _meter_sign(plant)
    yield from _meters_apart(plant)
    yield from _converter(plant)


# ---- single readings ----


def _readings(plant: Plant) -> Iterator[Finding]:
    """Devices that talk, and some of whose readings are not believable all the same."""
    gone = silent_devices(plant)
    by_device: dict[int, list[Point]] = {}
    for row in plant.description.points:
        if row.device >= 0:
            by_device.setdefault(row.device, []).append(row)
    for at, rows in by_device.items():
        device = plant.devices[at]
        bad = [row for row in rows if plant.now.quality(row.name) == Quality.INVALID]
        good = sum(plant.now.quality(row.name) in (Quality.GOOD, Quality.HELD) for row in rows)
        if not bad or device.name in gone or not good:
            continue
        bms = device.role == "bms"
        shown = "; ".join(f"{row.name} ({row.register or '?'})" for row in bad[:3])
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        sensor = "sensor" if len(bad) <= 3 else "readings"
        yield Finding(
            72 if bms else 65,
            f"{device.name} sends a value that cannot be: {shown}{more}",
            f"outside its range or marked 'not available'; {good} other readings of {device.name} are good",
            f"that {sensor} of {device.name} and its cable; not the bus; or it has no such register: another one by an "
            f"option of its map, or by a map of your own that extends it (`instead`)",
            present(plant, *(BMS_ROWS if bms else METER_ROWS if device.role != "pcs" else PCS_ROWS)),
        )


def _temperatures(plant: Plant) -> Iterator[Finding]:
    for unit in plant.units:
        bms = unit.battery
        high, low = plant.now.value(f"{bms}.temp_max_c"), plant.now.value(f"{bms}.temp_min_c")
        faults = present(plant, *(f"temp_{side}_{level}" for side in ("high", "low") for level in LEVELS))
        if not faults and not (high is not None and low is not None and high - low > SPREAD_K):
            continue
        jumps = [(step, point) for point in ("temp_max_c", "temp_min_c") if (step := _jump(plant, f"{bms}.{point}"))]
        shown = f"{bms}.temp_max_c {number(high)} degC, {bms}.temp_min_c {number(low)} degC"
        limits = f"limits {number(unit.temp_min_c)} to {number(unit.temp_max_c)} degC"
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
                f"the battery of {unit.name} is too {'warm' if any('high' in one for one in faults) else 'cold'}",
                f"{shown}; {limits}",
                "cooling, doors, filters; wait until it is back inside",
                faults,
            )


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
    return next((device.name for device in plant.devices if device.role == "grid-meter"), "grid")


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
        solar = any(device.role == "pv-meter" for device in plant.devices)
        slope, steps = grid_follows(plant)
        evidence = f"; in {steps} steps the grid went {slope:+.1f} W for each W discharged" if steps >= 2 else ""
        yield Finding(
            90,
            f"the current transformers of {meter} face the wrong way",
            f"load = grid {power(grid)} + battery {power(battery)}{' + solar' if solar else ''} = {power(load)}: "
            f"a load cannot be negative{evidence}",
            f"stop; turn the transformers round, or set invert = {'false' if _inverted(plant, meter) else 'true'} for "
            f"{meter} in the site file (config set); or generation that no meter sees",
            present(plant, "grid_over_limit", "meter_invalid"),
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
    return any(device.name == name and device.invert for device in plant.devices)


def _meters_apart(plant: Plant) -> Iterator[Finding]:
    """Parts of the load that together are more than the load."""
    parts = [device.name for device in plant.devices if device.role in ("it-meter", "cooling-meter")]
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


# ---- the converter ----


def _converter(plant: Plant) -> Iterator[Finding]:
    for at, unit in enumerate(plant.units):
        pcs, bms = unit.pcs, unit.battery
        setpoint, seen = plant.now.value(f"unit{at}.setpoint_w"), plant.now.value(f"{pcs}.power_w")
        faults = present(plant, "pcs_not_following", "pcs_runaway", "pcs_outside", "pcs_outside_long")
        if faults:
            turned = setpoint is not None and seen is not None and setpoint * seen < 0
            yield Finding(
                68,
                f"{pcs} does not follow its setpoint" + (": it goes the other way" if turned else ""),
                f"setpoint {power(setpoint)}, measured {power(seen)}",
                "its mode (local, standby), its own limits, sign in its map" if turned else "its mode and own limits",
                faults,
            )
        elif faults := present(plant, "pcs_short"):
            yield Finding(
                35,
                f"{pcs} gives less than its setpoint",
                f"setpoint {power(setpoint)}, measured {power(seen)}; the control goes on with what it gives",
                "derating by heat or DC voltage, a battery near full or empty, its nameplate in the site file",
                faults,
            )
        if faults := present(plant, "pcs_not_ready", "pcs_fault"):
            state = plant.now.value(f"{pcs}.state")
            yield Finding(
                67,
                f"{pcs} reports {'a fault' if 'pcs_fault' in faults else 'that it does not take setpoints'}",
                f"{pcs}.state {number(state)}, fault word {number(plant.now.value(f'{pcs}.fault'))}",
                "read its own display; local mode, emergency stop, grid lost",
                faults,
            )
        if faults := present(plant, "dc_v_mismatch", "dc_a_mismatch", "dc_mismatch_long"):
            volts = f"{number(plant.now.value(f'{bms}.pack_v'))} and {number(plant.now.value(f'{pcs}.dc_v'))} V"
            amps = f"{number(plant.now.value(f'{bms}.pack_a'))} and {number(plant.now.value(f'{pcs}.dc_a'))} A"
            yield Finding(
                60,
                f"{bms} and {pcs} measure the same wires differently",
                f"{volts}, {amps}",
                "DC fuse or contactor of one string, scale of the map, one of the two sensors",
                faults,
            )
