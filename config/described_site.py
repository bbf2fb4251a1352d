"""What a program says of its site in words, for gateway, sidecar, simulator and people; the core reads none of it."""

import math
from typing import TYPE_CHECKING

from tidegate.config import gpio
from tidegate.config.doubts import answered
from tidegate.config.hazard_check import silence_us
from tidegate.config.program_rows import Row
from tidegate.config.site import Device, Site
from tidegate.config.site_maps import option_text
from tidegate.ext.abi import program

if TYPE_CHECKING:
    from tidegate.config.compile import Compiler

ROLE_NODES = {
    "grid-meter": "grid",
    "it-meter": "it",
    "cooling-meter": "cooling",
    "lighting-meter": "lighting",
    "other-meter": "other",
    "pv-meter": "pv",
    "generator-meter": "generator",
    "circuit-meter": "circuit",
    "pcs": "ess",
}


def snapshot_every(site: Site) -> int:
    """Cycles between two snapshots."""
    return max(1, round(1e6 / (site.site.period_us * site.site.snapshot_hz)))


def nodes(made: "Compiler") -> list[Row]:
    """Carbon's view: for each metered role, its power and its energy registers.

    positive_wh counts what is positive inside (import, discharge, generation), negative_wh the other direction.
    """
    nodes: list[Row] = []
    for device in made.devices:
        if device.role not in ROLE_NODES:
            continue
        pair = ("discharged_wh", "charged_wh") if device.role == "pcs" else ("import_wh", "export_wh")
        energies: list[object] = [f"{device.name}.{key}" if made.has(device.name, key) else None for key in pair]
        nodes.append(
            {
                "role": ROLE_NODES[device.role],
                "device": device.name,
                "power": f"{device.name}.power_w",
                "positive_wh": energies[0],
                "negative_wh": energies[1],
            }
        )
    return nodes


def describe(made: "Compiler", faults: list[Row]) -> Row:
    """What the gateway, the sidecar, the simulator and people need beside the rows."""
    site = made.site
    standard = program.standard_points(len(site.storage))
    points = [{"name": name, "unit": unit, "device": -1} for name, unit in standard] + made.labels
    return {
        "schema": 1,
        "site": site.site.model_dump(mode="json"),
        # Only where a device brings its own map: the path makes the program's hash that of this machine.
        **({"folder": str(site.folder)} if any(d.map.endswith(".toml") for d in site.device) else {}),
        "period_ns": site.site.period_us * 1000,
        "snapshot_every": snapshot_every(site),
        "points": points,
        "devices": [_device(made, device) for device in site.device],
        "ports": [one.model_dump(mode="json") for one in site.serial] + [one.described() for one in made.lanes],
        "can": [
            *(one.model_dump(mode="json") for one in site.can),
            *gpio.bus_row(site.input, site.output, site.simulation.contact if site.simulation else ()),
        ],
        "units": [one.model_dump(mode="json") for one in site.storage],
        "limits": site.limits.model_dump(mode="json"),
        "control": site.control.model_dump(mode="json", exclude={"meter_latency_ms"}),
        "schedule": [one.model_dump(mode="json") for one in site.schedule],
        "gateway": site.gateway.model_dump(mode="json"),
        "recorder": site.recorder.model_dump(mode="json"),
        "carbon": site.carbon.model_dump(mode="json"),
        "simulation": (site.simulation.model_dump(mode="json", exclude={"contact"}) if site.simulation else None),
        "simulated": site.simulated,
        "first": made.first.lines,
        "notes": made.first.notes,
        "nodes": nodes(made),
        "faults": faults,
        "commands": [
            {"device": device.name, "name": command.name, "kind": command.kind, "address": command.address}
            for device in made.devices
            for command in made.maps[device.name].command
        ],
        "silence_us": silence_us(site, made.points),
        "plan": [
            {
                "port": plan.port,
                "share": round(plan.share, 4),
                "round_us": round(plan.round_ns / 1e3),
                "zero_us": math.ceil(plan.zero_ns / 1e3),
                "zero_timeout_us": math.ceil(plan.zero_timeout_ns / 1e3),
                "asked_us": {name: math.ceil(ns / 1e3) for name, ns in plan.asked_ns.items()},
                "blocks": [
                    {
                        "device": b.device,
                        "function": b.function,
                        "address": b.address,
                        "count": b.count,
                        "poll": b.poll,
                        "period_ms": b.period_ns / 1e6,
                        "time_us": round(b.time_ns / 1e3),
                    }
                    for b in plan.blocks
                ],
            }
            for plan in made.plans
        ],
    }


def _device(made: "Compiler", device: Device) -> Row:
    found = made.maps[device.name]
    return {
        "name": device.name,
        "map": device.map,
        "kind": found.map.kind,
        "protocol": found.map.protocol,
        "title": found.map.title,
        "doubts": [text for text in found.map.doubts if not answered(device, text)],
        "doubts_answered": [
            f"{text}: {how}"
            for text in found.map.doubts
            for words, how in device.doubts_answered.items()
            if words.lower() in text.lower()
        ],
        "role": device.role,
        "bus": made.lane_of.get(device.name, device.bus),
        "unit_id": device.unit_id,
        "invert": device.invert,
        "circuit_storage": list(device.circuit_storage),
        "options": {key: option_text(value) for key, value in device.options.items()},
        "unit": made.unit_of_device.get(device.name, -1),
        "sunspec": {str(number): start for number, start in found.model_starts().items()},
        **({"battery_power": found.map.battery_power} if found.map.kind == "pcs" else {}),
        **({"unchecked": list(found.map.unchecked)} if found.map.kind == "bms" else {}),
    }
