"""What was measured of a plant before this start, as what the loop believes first: of commissioning, or carried over.

It is where the estimate begins, never a proof: an age is believed wider than it was measured, and every move of the
battery may say otherwise. Whether the meter shows the battery at all is found anew at each arming.
"""

import hashlib
import json
from dataclasses import dataclass, field

from tidegate.config.program_rows import Row
from tidegate.config.site import Device, Site
from tidegate.ext.estimate.estimator import AGE_MOST_S
from tidegate.hal.map_schema import DeviceMap

AGE_WIDER_S = 0.05  # wider than it was measured, to either side, beside one interval of the meter
APART_SHARE, APART_S = 0.5, 0.02  # a configured lag that differs by both contradicts the measured one


@dataclass(frozen=True)
class Converter:
    """What one converter was: 0 = not measured. gain: of what it is told."""

    dead_s: float = 0.0
    lag_s: float = 0.0
    gain: float = 0.0


@dataclass(frozen=True)
class Learnt:
    """What is known of a plant. age_s: of a grid reading, least and most, as it was measured; None = not."""

    source: str
    age_s: tuple[float, float] | None = None
    interval_s: float = 0.0
    converters: dict[str, Converter] = field(default_factory=dict)


def of_commissioning(site: Site) -> Learnt | None:
    """What `tidegate commission` wrote into the site file."""
    made = site.commissioning
    if made is None:
        return None
    age_s = None
    if made.meter_delay_ms is not None:
        spread_ms = made.meter_delay_spread_ms or 0.0
        age_s = (1e-3 * (made.meter_delay_ms - spread_ms), 1e-3 * (made.meter_delay_ms + spread_ms))
    converters = {
        name: Converter(1e-3 * one.dead_ms, 1e-3 * one.lag_ms, one.gain) for name, one in made.converter.items()
    }
    if age_s is None and not converters:
        return None
    when = f" of {made.at_utc}" if made.at_utc else ""
    return Learnt(f"measured by the commissioning{when}", age_s, 1e-3 * (made.meter_interval_ms or 0.0), converters)


def believed_age_s(learnt: Learnt) -> tuple[float, float] | None:
    """The age as it is believed first: wider than measured, within what is looked for. None = any."""
    if learnt.age_s is None:
        return None
    wider_s = AGE_WIDER_S + learnt.interval_s
    lo_s, hi_s = learnt.age_s[0] - wider_s, min(learnt.age_s[1] + wider_s, AGE_MOST_S)
    return (lo_s, hi_s) if lo_s < hi_s else None


@dataclass
class First:
    """Settings of the control that begin with what is known, lines for people, and what contradicts it."""

    row: Row = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def first(site: Site, carried: Learnt | None) -> First:
    """What the loop begins with. What was carried over is newer than the commissioning, part by part."""
    made = First()
    commissioned = of_commissioning(site)
    known = [one for one in (carried, commissioned) if one is not None]
    grid = next((one for one in known if believed_age_s(one) is not None), None)
    if grid is not None:
        age_s = believed_age_s(grid)
        assert age_s is not None
        made.row |= {"first_age_lo_s": age_s[0], "first_age_hi_s": age_s[1], "first_interval_s": grid.interval_s}
        made.lines.append(f"grid reading {age_s[0]:.3g} to {age_s[1]:.3g} s old, {grid.source}")
    converters: list[tuple[str, Converter | None]] = []
    for storage in site.storage:
        from_ = next((one for one in known if storage.pcs in one.converters), None)
        converters.append((storage.pcs, from_.converters[storage.pcs] if from_ is not None else None))
        if from_ is not None:
            one = from_.converters[storage.pcs]
            made.lines.append(
                f"{storage.pcs} answers after {one.dead_s:.3g} s with a lag of {one.lag_s:.3g} s"
                + (f", gives {one.gain:.1%}" if one.gain else "")
                + f", {from_.source}"
            )
    if any(one is not None for _, one in converters):
        for key in ("dead_s", "lag_s", "gain"):
            made.row[f"first_{key}"] = [0.0 if one is None else getattr(one, key) for _, one in converters]
    _contradictions(site, grid, [(name, one) for name, one in converters if one is not None], made)
    return made


def _contradictions(site: Site, grid: Learnt | None, converters: list[tuple[str, Converter]], made: First) -> None:
    """Configured values beside the measured ones: where they differ it is told, and the safer one is used."""
    control = site.control
    if control.meter_latency_ms is not None:
        made.notes.append(
            "control.meter_latency_ms: nothing reads it; the age of the readings is measured; remove the key"
        )
    most_ms = control.meter_latency_ms_max
    if most_ms is not None and most_ms >= 1e3 * AGE_MOST_S:
        made.notes.append(
            f"control.meter_latency_ms_max: {most_ms:g} ms bounds nothing, no age beyond {AGE_MOST_S:g} s is looked "
            f"for; remove the key"
        )
    elif most_ms is not None and grid is not None and grid.age_s is not None and most_ms < 1e3 * grid.age_s[1]:
        made.row["meter_latency_s_max"] = min(grid.age_s[1] + grid.interval_s, AGE_MOST_S)
        made.notes.append(
            f"control.meter_latency_ms_max: {most_ms:g} ms, but readings up to {1e3 * grid.age_s[1]:.0f} ms old were "
            f"{grid.source}; the larger is used; correct or remove the key"
        )
    slowest = max(converters, key=lambda one: one[1].lag_s, default=None)
    if slowest is None or not slowest[1].lag_s:
        return
    name, lag_ms = slowest[0], 1e3 * slowest[1].lag_s
    if "pcs_tau_ms" not in control.model_fields_set:
        made.row["pcs_tau_s"] = 1e-3 * lag_ms
    elif abs(control.pcs_tau_ms - lag_ms) > max(APART_SHARE * lag_ms, 1e3 * APART_S):
        used_ms = max(control.pcs_tau_ms, lag_ms)
        made.row["pcs_tau_s"] = 1e-3 * used_ms
        made.notes.append(
            f"control.pcs_tau_ms: {control.pcs_tau_ms:g} ms, but a lag of {lag_ms:.0f} ms of {name} was measured; the "
            f"larger, {used_ms:.0f} ms, is used; correct or remove the key"
        )


def identity(site: Site, maps: dict[str, DeviceMap]) -> dict[str, str]:
    """What each part was learnt of, as a digest: "grid", and each converter by name.

    Of the devices' rows with map, bus and options, of the maps' contents and of the buses. The age of a grid reading is
    one beside the converters' readings, so those are in it.
    """
    buses = {one.name: one.model_dump(mode="json") for one in site.serial}
    buses |= {one.name: one.model_dump(mode="json") for one in site.tcp}
    buses |= {one.name: one.model_dump(mode="json") for one in site.can}

    def said(device: Device) -> object:
        found = maps.get(device.name)
        return [
            device.model_dump(mode="json"),
            found.model_dump(mode="json") if found is not None else None,
            buses.get(device.bus),
        ]

    pcs = {storage.pcs for storage in site.storage}
    converters = {device.name: said(device) for device in site.device if device.name in pcs}
    grid = [said(device) for device in site.device if device.role == "grid-meter"]
    simulated = site.simulation.model_dump(mode="json") if site.simulation is not None and site.simulated else None
    parts = {"grid": [grid, converters, simulated], **{name: [one, simulated] for name, one in converters.items()}}
    return {name: hashlib.sha256(json.dumps(one, sort_keys=True).encode()).hexdigest() for name, one in parts.items()}
