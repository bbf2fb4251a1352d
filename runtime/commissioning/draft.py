"""The text of a site file out of what was found and answered: commented, so that the next reader knows why."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.hal import maps
from tidegate.runtime.commissioning.prompts import Answers
from tidegate.runtime.commissioning.survey import Part

SLOW_ROLES = ("it-meter", "cooling-meter", "pv-meter")


@dataclass
class Unit:
    """A storage unit: a BMS and the converter in front of it."""

    name: str
    bms: str
    pcs: str


# One cycle on a kernel without PREEMPT_RT; such a one stood still for 6.3 ms (the doctor of docs/install.md).
PERIOD_US_ORDINARY = 10_000


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)  # a TOML basic string and a JSON string agree on escapes


def _table(values: dict[str, str]) -> str:
    return "{ " + ", ".join(f"{key} = {_text(value)}" for key, value in values.items()) + " }"


def _number(value: float) -> str:
    return f"{value:.10g}"


def site_text(answers: Answers, parts: Sequence[Part], units: Sequence[Unit], head: str, realtime: bool = True) -> str:
    """The whole file. head: first comment line, who drafted it and when. realtime: the kernel is one with PREEMPT_RT;
    another stands still for milliseconds now and then, and a loop of 1 kHz would derate and trip there.
    """
    lines = [
        f"# {head}",
        "# Every key: docs/site-file.md. After each change: tidegate check FILE.",
        "schema = 1",
        "",
        "[site]",
        f"name = {_text(answers.name or '')}",
        f"timezone = {_text(answers.timezone or 'UTC')}  # for tariffs and reports",
    ]
    if not realtime:
        lines.append(f"period_us = {PERIOD_US_ORDINARY}  # this kernel is not real-time; 1000 with PREEMPT_RT")
    if answers.country:
        lines.append(f"country = {_text(answers.country)}")
    for bus in {part.bus.name: part.bus for part in parts}.values():
        if bus.port:
            lines += ["", "[[tcp]]", f"name = {_text(bus.name)}", f"host = {_text(bus.where)}", f"port = {bus.port}"]
            lines.append('# framing = "rtu"  # for a gateway that hands RTU frames on as they are')
        elif bus.baud:
            lines += ["", "[[serial]]", f"name = {_text(bus.name)}", f"device = {_text(bus.where)}"]
            lines += [f"baud = {bus.baud}  # answered at this rate", f"parity = {_text(bus.parity)}"]
            if bus.lead_in_bytes:
                lines.append(
                    f"lead_in_bytes = {bus.lead_in_bytes}  # stray bytes were seen to touch the front of replies"
                )
            lines.append("# rs485 = true  # if the driver has to switch the direction; most USB adapters do it alone")
        else:
            lines += ["", "[[can]]", f"name = {_text(bus.name)}", f"interface = {_text(bus.where)}"]
            lines.append(f"bitrate = {bus.bitrate}")
    for part in parts:
        lines += ["", *_device(part)]
    for unit in units:
        lines += ["", *_storage(unit, answers)]
    lines += ["", *_limits(answers)]
    return "\n".join(lines) + "\n"


def _device(part: Part) -> list[str]:
    shipped = maps.shipped(part.map) if part.map in maps.map_names() else None
    lines = [f"# {shipped.map.title if shipped else part.map}; {part.why}"]
    if part.others:
        lines.append(f"# Fits as well: {', '.join(part.others)}. Compare with the device's own display: tidegate read")
    if shipped:
        lines += [f"# Doubt: {text}" for text in shipped.map.doubts]
    lines += ["[[device]]", f"name = {_text(part.name)}", f"map = {_text(part.map)}", f"bus = {_text(part.bus.name)}"]
    if part.unit_id is not None:
        lines.append(f"unit_id = {part.unit_id}")
    lines.append(f"role = {_text(part.role)}")
    if part.options:
        lines.append(f"options = {_table(part.options)}")
    if part.sunspec_base is not None:
        lines.append(f"sunspec_base = {part.sunspec_base}")
        models = ", ".join(f"{number} = {at}" for number, at in part.sunspec_models.items())
        lines.append(f"sunspec_models = {{ {models} }}  # where its chain has them")
    if part.role in SLOW_ROLES:
        lines.append("poll_fast_ms = 500  # accounts need its energy, control does not wait for it")
    if part.role == "grid-meter":
        lines.append("# invert = true  # if its transformers face the other way: `tidegate commission` finds out")
    return lines


def _storage(unit: Unit, answers: Answers) -> list[str]:
    return [
        "[[storage]]",
        f"name = {_text(unit.name)}",
        f"bms = {_text(unit.bms)}",
        f"pcs = {_text(unit.pcs)}",
        f"energy_wh = {_number(answers.energy_wh or 0)}  # usable, of the nameplate",
        f"charge_w_max = {_number(answers.charge_w_max or 0)}  # nameplate; the gate lets nothing above it through",
        f"discharge_w_max = {_number(answers.discharge_w_max or 0)}",
        "soc_min = 0.1",
        "soc_max = 0.95",
    ]


def _limits(answers: Answers) -> list[str]:
    lines = ["[limits]"]
    lines.append(f"connection_import_w_max = {_number(answers.connection_import_w_max or 0)}  # fuse or contract")
    if answers.connection_export_w_max is None:
        lines.append("# connection_export_w_max = 0  # if nothing may be fed into the grid")
    else:
        lines.append(f"connection_export_w_max = {_number(answers.connection_export_w_max)}")
    lines += ["", "[control]"]
    if answers.peak_w_max is None:
        lines.append("# peak_w_max = 40000  # what the grid meter should not exceed; without it no peak is shaved")
    else:
        lines.append(f"peak_w_max = {_number(answers.peak_w_max)}  # what the grid meter should not exceed")
    lines += [
        "# recharge_w_max = 35000  # recharging may not lift the import above this; without it, up to the limits above",
        "target_soc = 0.8",
        "# Age of the meter's readings, lag of the converter: measured at each arming; `tidegate commission`",
        "# writes what it measured into [commissioning], where the loop begins.",
    ]
    return lines
