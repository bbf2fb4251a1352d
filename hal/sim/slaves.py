"""The registers of a simulated device: which there are, what each shows of the plant, and what a master may write."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.ext.abi import program as programs
from tidegate.ext.sim import assembly
from tidegate.ext.sim import world as worlds
from tidegate.hal.description import Device
from tidegate.hal.sim.built import Built, device_of
from tidegate.hal.sim.names import COMMANDS, variable_of

if TYPE_CHECKING:
    from tidegate.hal.map_schema import DeviceMap

TYPE_NAMES = {number: name for name, number in programs.FIELD_TYPES.items()}
SPACES = {1: 0, 2: 1, 3: 2, 4: 3}  # Modbus function -> register space
WRITE_SPACES = {5: 0, 15: 0, 6: 2, 16: 2}


def slaves_of(built: Built, device: str) -> list[int]:
    """Rows of the program's slaves that belong to a device, by the points that their blocks fill."""
    found = []
    for number, slave in enumerate(built.rows["slaves"]):
        if slave_name(built, slave) == device:
            found.append(number)
    return found


def slave_name(built: Built, slave: programs.SlaveRow) -> str:
    devices = built.site.devices
    if 0 <= slave["device"] < len(devices):
        return devices[slave["device"]].name
    for block in built.rows["blocks"][slave["block_first"] : slave["block_first"] + slave["block_count"]]:
        for row in built.rows["fields"][block["field_first"] : block["field_first"] + block["field_count"]]:
            return device_of(built, row["point"])
    return ""


def device_named(built: Built, name: str) -> Device:
    """What the description says of a device; of a program without one, what its points say."""
    found = built.site.device_named(name)
    if found is not None:
        return found
    site = built.rows["site"]
    if name in built.converters:
        role = "pcs"
    elif name == device_of(built, site["grid_w"]):
        role = "grid-meter"
    else:
        role = "pv-meter" if name == device_of(built, site["pv_w"]) else "it-meter"
    return Device(name=name, role=role)


def map_of(built: Built, device: Device) -> DeviceMap | None:
    """The device's own map, None when the site came without one or it has gone since."""
    if not device.map:
        return None
    from tidegate.hal.maps import MapError, load_map

    source = str(Path(built.site.folder or ".") / device.map) if device.map.endswith(".toml") else device.map
    try:
        return load_map(source, device.options)
    except MapError:
        return None  # the program's rows are all there is


def command_names(built: Built, name: str) -> list[str]:
    """Names of a device's command rows, in the program's order; "" where the site does not say."""
    named = [one.name for one in built.site.commands if one.device == name]
    for number in slaves_of(built, name):
        count = built.rows["slaves"][number]["command_count"]
        return named if len(named) == count else ["" for _ in range(count)]
    return []


def _exponent(signal: str, top_w: float) -> int:
    """Power of ten that a device would choose for a signal so that it fits 16 bits."""
    if signal.endswith("_hz"):
        return -2
    if signal.endswith(("_v", "_a", "pct", "soc", "soh", "_c")):
        return -1
    if signal.endswith(("_w", "_va", "_var", "_w_max")):
        return max(0, math.ceil(math.log10(1.3 * top_w / 32767.0)))
    return 0


def fill_slave(built: Built, number: int, slave: programs.SlaveRow, device: Device, name: str) -> None:
    rows, world = built.rows, built.world
    kind, index, known = "meter", built.meters.get(name, 0), assembly.METER_VARIABLES
    if device.role == "pcs":
        kind, index, known = "pcs", built.converters.get(name, index), assembly.PCS_VARIABLES
    elif device.role == "bms":
        kind, index, known = "battery", built.batteries.get(name, 0), assembly.BATTERY_VARIABLES
    blocks = rows["blocks"][slave["block_first"] : slave["block_first"] + slave["block_count"]]
    commands = rows["commands"][slave["command_first"] : slave["command_first"] + slave["command_count"]]
    names = command_names(built, name)
    found = map_of(built, device)

    # 1. which addresses exist
    readable = [(SPACES[b["function"]], b["address"], b["count"]) for b in blocks]
    writable = [(WRITE_SPACES[c["function"]], c["address"], c["count"]) for c in commands]
    if found is not None and found.map.protocol in ("modbus", "pylontech"):
        space = SPACES[found.modbus.function]
        readable += [(space, first, last - first + 1) for first, last in found.modbus.readable]
    models = _models(device, found)
    if models:
        readable.append((2, min(models.values()) - 2, _chain_end(models) - min(models.values()) + 4))
    for space, first, count in _merged(readable + writable):
        world.add_range(number, space, first, count)
    for space, first, count in _merged(writable):
        world.add_range(number, space, first, count, writable=True)
    if models:
        _fill_chain(world, number, models, device)

    # 2. powers of ten, one per scale-factor register
    top_w = max((abs(float(u["gate"]["discharge_w_max"])) for u in rows["units"]), default=30_000.0)
    points = rows["points"]
    exponents: dict[int, int] = {}
    fields = [
        (block, row)
        for block in blocks
        for row in rows["fields"][block["field_first"] : block["field_first"] + block["field_count"]]
    ]
    for _, row in fields:
        if row["flags"] & programs.FIELD_FLAGS["sf_point"]:
            signal = points[row["point"]]["name"].split(".", 1)[1]
            wide = TYPE_NAMES[row["type"]] in ("u32", "s32", "u64", "s64")
            wanted = min(0, _exponent(signal, top_w)) if wide else _exponent(signal, top_w)
            exponents[row["sf_point"]] = max(exponents.get(row["sf_point"], -9), wanted)
    parts = rows["command_parts"]
    for command in commands:
        for written in [command, *parts[command["part_first"] : command["part_first"] + command["part_count"]]]:
            if written["flags"] & programs.FIELD_FLAGS["sf_point"]:
                exponents.setdefault(int(written["sf_point"]), 0)

    # 3. signals
    # A mode word that the master writes and reads back holds what was written.
    kept = programs.COMMAND_KINDS["const"]
    bound: set[tuple[int, int]] = {
        (WRITE_SPACES[c["function"]], c["address"] + i)
        for c in commands
        if c["kind"] == kept
        for i in range(c["count"])
    }
    held = frozenset(bound)
    known_points = {point["name"] for point in points}
    placed = []
    for block, row in _those_it_has(fields, points, built.settings.lacks):
        space, address = SPACES[block["function"]], block["address"] + row["offset"]
        one_of = bool(row["flags"] & programs.FIELD_FLAGS["one_of"])
        placed.append((space, address, one_of, block, row))
    # A plain state stands before what is made of it, unless it is there in the place of one that the device lacks.
    plain = {
        (space, address)
        for space, address, one_of, _, row in placed
        if not one_of and points[row["point"]]["name"] not in built.settings.lacks
    }
    placed.sort(key=lambda one: (one[0], one[1], one[2] == ((one[0], one[1]) in plain)))
    for space, address, one_of, _, row in placed:
        if TYPE_NAMES[row["type"]] == "sunssf":
            world.set_words(number, space, address, [exponents.get(row["point"], 0) & 0xFFFF])
            continue
        if row["min"] == row["max"]:  # a word that proves which device this is
            world.set_words(number, space, address, [int(row["min"])])
            continue
        if (space, address) in held or ((one_of or (space, address) not in plain) and (space, address) in bound):
            continue  # the state itself stands there
        bound.add((space, address))
        signal = points[row["point"]]["name"].split(".", 1)[1]
        if signal == "power_w" and f"{name}.ac_w" in known_points:
            signal = "storage_w"  # beside the power at its AC terminals, this one is the battery's
        scale = row["scale"]
        if row["flags"] & programs.FIELD_FLAGS["sf_point"]:
            scale *= float(f"1e{exponents[row['sf_point']]}")
        world.bind(
            number,
            space,
            address,
            type=row["type"],
            flags=row["flags"],
            scale=scale,
            offset=row["offset_value"],
            sentinel=row["sentinel"],
            bit_first=row["bit_first"],
            bit_count=row["bit_count"],
            source=(kind, index, variable_of(kind, signal, known)),
        )

    # 4. what a master may write
    if kind != "pcs":
        return
    kinds = programs.COMMAND_KINDS
    for command, name in zip(commands, names, strict=True):
        variable = COMMANDS.get(name)
        if command["kind"] == kinds["setpoint_w"]:
            variable = "set_w"
        elif command["kind"] == kinds["heartbeat"]:
            variable = "hb_controller"
        if variable is None:
            continue
        ours = rows["command_parts"][command["part_first"] : command["part_first"] + command["part_count"]]
        signed = any(part["of"] == programs.PARTS_OF["setpoint"] for part in ours)
        for part in ours:
            # A word by direction beside a setpoint with a sign says something else, such as where to stop.
            beside = signed and part["of"] == programs.PARTS_OF["direction"]
            if variable != "set_w" or part["of"] == programs.PARTS_OF["const"] or beside:
                continue
            scale = part["scale"]
            if part["flags"] & programs.FIELD_FLAGS["sf_point"]:
                scale *= float(f"1e{exponents[part['sf_point']]}")
            world.bind_write(
                number,
                WRITE_SPACES[command["function"]],
                command["address"] + part["offset"],
                type=part["type"],
                flags=part["flags"],
                scale=scale,
                variable=variable,
                of=part["of"],
                zero=0.0 if part["of"] == programs.PARTS_OF["direction"] else part["value"],
                charge=part["charge"],
                discharge=part["discharge"],
            )
        if command["part_count"]:
            continue
        scale = command["scale"]
        if command["flags"] & programs.FIELD_FLAGS["sf_point"]:
            scale *= float(f"1e{exponents[command['sf_point']]}")
        world.bind_write(
            number,
            WRITE_SPACES[command["function"]],
            command["address"],
            type=command["type"],
            flags=command["flags"],
            scale=scale,
            variable=variable,
        )


def _those_it_has(
    fields: list[tuple[programs.BlockRow, programs.FieldRow]],
    points: list[programs.PointRow],
    lacks: tuple[str, ...],
) -> list[tuple[programs.BlockRow, programs.FieldRow]]:
    """The rows that a device fills: of a point with others in its place the first, of one that it lacks the next."""
    heads, at = [], 0
    while at < len(fields):
        heads.append(at)
        at += 1 + fields[at][1]["others"]
    spans = [fields[first : first + 1 + fields[first][1]["others"]] for first in heads]
    lacked = {block["address"] + row["offset"] for (block, row), *_ in spans if points[row["point"]]["name"] in lacks}
    has = []
    for span in spans:
        has += [(block, row) for block, row in span if block["address"] + row["offset"] not in lacked][:1]
    return has


def _merged(ranges: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Ranges (space, first, count) with overlapping and touching ones joined."""
    merged: list[tuple[int, int, int]] = []
    for space, first, count in sorted(ranges):
        if merged and merged[-1][0] == space and first <= merged[-1][1] + merged[-1][2]:
            last = merged[-1]
            merged[-1] = (space, last[1], max(last[2], first + count - last[1]))
        else:
            merged.append((space, first, count))
    return merged


def _models(device: Device, found: DeviceMap | None) -> dict[int, int]:
    """SunSpec model -> address of its ID word: what the site says, and the rest of the map's chain if it fits."""
    models = {int(key): start for key, start in device.sunspec.items()}
    if models and found is not None and found.sunspec is not None:
        from tidegate.hal import sunspec

        for base in sunspec.BASES:
            chain = sunspec.chain_addresses(base, list(found.sunspec.chain))
            if all(chain.get(number) == start for number, start in models.items()):
                return chain
    return models


def _chain_end(models: dict[int, int]) -> int:
    from tidegate.hal import sunspec

    number, address = max(models.items(), key=lambda one: one[1])
    return address + sunspec.model(number).length


def _fill_chain(world: worlds.World, slave: int, models: dict[int, int], device: Device) -> None:
    """The chain as any SunSpec master finds it: marker, headers, identity, "not implemented" for the rest."""
    from tidegate.hal import sunspec

    first = min(models.values())
    world.set_words(slave, 2, first - 2, list(sunspec.SUNS))
    for number, address in models.items():
        model = sunspec.model(number)
        for point in model.points.values():
            if point.sentinel is not None:
                words = [(point.sentinel >> (16 * (point.size - 1 - i))) & 0xFFFF for i in range(point.size)]
                world.set_words(slave, 2, address + point.offset, words)
        world.set_words(slave, 2, address, [number, model.length - 2])
        texts = {"Mn": "Tidegate", "Md": "simulated PCS", "Vr": "1", "SN": device.name}
        for name, text in texts.items():
            row = model.points.get(name) if number == 1 else None
            if row is not None:
                raw = text.encode("ascii").ljust(2 * row.size, b"\0")[: 2 * row.size]
                words = [int.from_bytes(raw[i : i + 2], "big") for i in range(0, len(raw), 2)]
                world.set_words(slave, 2, address + row.offset, words)
    world.set_words(slave, 2, _chain_end(models), [sunspec.END, 0])
