"""Times of a site that are longer than what they guard against allows."""

import math
from collections.abc import Sequence
from typing import TypedDict

from tidegate.config.banks import batteries_of
from tidegate.config.hazards import ZERO_S, silence_s_max, soc_margin_s
from tidegate.config.poll_plan import PortPlan
from tidegate.config.site import Site

NEEDED = (
    *("soc", "pack_v", "pack_a", "cell_v_max", "cell_v_min", "temp_max_c", "temp_min_c", "charge_ok", "discharge_ok"),
    *("charge_a_max", "discharge_a_max", "charge_w_max", "discharge_w_max"),
)


class PointRow(TypedDict):
    """A device's row of the image."""

    name: str
    unit: str
    device: int
    age_max_ns: int


def hazard_problems(site: Site, points: Sequence[PointRow], plans: Sequence[PortPlan]) -> list[str]:
    """Each of them, with its key and the remedy."""
    found = []
    units = {name: unit for unit in site.storage for name in batteries_of(unit)}
    for number, device in enumerate(site.device):
        unit, margin_s = units.get(device.name), math.inf
        if unit is not None:
            power_w = max(unit.charge_w_max, unit.discharge_w_max)
            margin_s = soc_margin_s(unit.soc_min, unit.soc_max, unit.energy_wh, power_w)
        bound_s = silence_s_max(device.role, margin_s)
        names = NEEDED if device.role == "bms" else ("power_w",)
        ages = {
            point["name"]: point["age_max_ns"] / 1e9
            for point in points
            if point["device"] == number and point["age_max_ns"] and point["name"].partition(".")[2] in names
        }
        timeless = [
            point["name"]
            for point in points
            if point["device"] == number and not point["age_max_ns"] and point["name"].partition(".")[2] in names
        ]
        if timeless and math.isfinite(bound_s):
            found.append(
                f"device[{device.name}].map: {', '.join(timeless)} would count for ever after the last word (poll = "
                f"once, or a frame without period_ms and age_ms); what it guards allows {bound_s:.3g} s; give it a "
                f"period, or poll it"
            )
        for name, age_s in ages.items():
            if age_s > bound_s:
                key = "age_max_ms" if device.age_max_ms else "poll_fast_ms and poll_slow_ms"
                found.append(
                    f"device[{device.name}].{key}: {name} counts for {age_s:g} s after its last word; what it "
                    f"guards allows {bound_s:.3g} s; lower it"
                )
                break
    for plan in plans:
        if plan.zero_timeout_ns > ZERO_S * 1e9:
            found.append(
                f"serial[{plan.port}]: 0 W could be on the wire {plan.zero_timeout_ns / 1e9:.3g} s after an alarm, "
                f"at most {ZERO_S:g} s are allowed; lower timeout_ms or turnaround_ms of its devices"
            )
    return found


def silence_us(site: Site, points: Sequence[PointRow]) -> dict[str, int]:
    """Device -> longest time from its last word to setpoint 0: the age of what the gate needs, and a cycle."""
    needed = {"bms": ("soc", "pack_v", "charge_a_max", "discharge_a_max"), "pcs": ("power_w",)}
    bounds = {}
    for number, device in enumerate(site.device):
        names = needed.get(device.role, ("power_w",) if device.role == "grid-meter" else ())
        ages = [
            point["age_max_ns"]
            for point in points
            if point["device"] == number and point["age_max_ns"] and point["name"].partition(".")[2] in names
        ]
        if ages:
            bounds[device.name] = math.ceil((min(ages) + site.site.period_us * 1000) / 1e3)
    return bounds
