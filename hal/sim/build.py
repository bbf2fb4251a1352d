"""From a compiled site to a simulated plant whose registers and frames are those of the site's own device maps.

The program's rows say where every signal lies and how it is scaled; this module runs them backwards. So agreement of
core and world proves little about a map: the decode vectors and foreign masters do that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from tidegate.ext.abi import program as programs
from tidegate.ext.sim import assembly
from tidegate.ext.sim import world as worlds
from tidegate.hal.description import Description, Device, SimulatedFault, Simulation, described
from tidegate.hal.gpio_frames import INPUT_ID, PERIOD_MS, SCHEME, SIMULATED, lines
from tidegate.hal.sim.device_habits import add_habits
from tidegate.hal.sim.names import COMMANDS, NOWHERE, ROLES, STATES, STATES_PLAIN, variable_of

if TYPE_CHECKING:
    from tidegate.hal.map_schema import DeviceMap

# One LFP cell at rest: flat in the middle, steep at the ends. Shape as published for large prismatic cells.
OCV_SOC = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)
OCV_V = (2.60, 2.95, 3.10, 3.19, 3.24, 3.27, 3.285, 3.29, 3.30, 3.325, 3.33, 3.335, 3.34, 3.37, 3.48)

LOAD_W = 20_000.0  # where neither trace nor load_w says more
ENERGY_WH = 60_000.0  # of a battery in a program that does not say

Trace = tuple[ArrayLike, ArrayLike]  # (t_s, power_w)
CIRCUIT_SHARE = 0.5  # of the IT load, behind a circuit-meter

TYPE_NAMES = {number: name for name, number in programs.FIELD_TYPES.items()}
SPACES = {1: 0, 2: 1, 3: 2, 4: 3}  # Modbus function -> register space
WRITE_SPACES = {5: 0, 15: 0, 6: 2, 16: 2}


class Settings(Simulation, frozen=True, kw_only=True):
    """The site file's [simulation], and what only tests and campaigns set."""

    trace_ppm: float = 100.0
    """How much faster the load's clock runs than the controller's."""
    trace_phase_s: float | None = None
    """Where inside a second the load begins; None = by the seed."""
    lacks: tuple[str, ...] = ()
    """Points that their devices do not have, by their names in the image: SunSpec's "not implemented" stands there."""


@dataclass
class Built:
    """A world and what its numbers mean: device name -> number of the battery, pcs, meter and slave behind it."""

    world: worlds.World
    rows: programs.Rows
    site: Description
    settings: Settings
    batteries: dict[str, int] = field(default_factory=dict)
    converters: dict[str, int] = field(default_factory=dict)
    meters: dict[str, int] = field(default_factory=dict)
    slaves: dict[str, int] = field(default_factory=dict)
    frames: dict[int, int] = field(default_factory=dict)  # CAN id -> frame row (the first bus that has it)
    inputs: dict[int, int] = field(default_factory=dict)  # number of a simulated input -> frame row


def settings_of(site: Description, overrides: Mapping[str, object] | None = None) -> Settings:
    """Simulation settings: defaults, then the site's own, then overrides.

    Raises ValueError for an unknown key and for a value of another type.
    """
    for key in overrides or {}:
        if key not in Settings.__struct_fields__:
            raise ValueError(f"simulation: unknown key {key!r}; known: {', '.join(sorted(Settings.__struct_fields__))}")
    own = msgspec.to_builtins(site.simulation) if site.simulation is not None else {}
    return msgspec.convert({**own, **(overrides or {})}, Settings)


def steps(load: Trace | None, settings: Settings) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    """(t_ns, power_w) arrays of a load given as (t_s, w); a constant load where none is given.

    Raises ValueError for gaps that are not numbers and for times that do not rise.
    """
    if load is None:
        return np.zeros(1, dtype=np.uint64), np.array([LOAD_W if settings.load_w is None else settings.load_w])
    t_s = np.ascontiguousarray(load[0], dtype=np.float64)
    power_w = np.ascontiguousarray(load[1], dtype=np.float64)
    if t_s.ndim != 1 or t_s.shape != power_w.shape or t_s.size == 0:
        raise ValueError(f"load trace: {t_s.shape} times and {power_w.shape} powers, needs two equal rows of numbers")
    bad = np.flatnonzero(~(np.isfinite(t_s) & np.isfinite(power_w)))
    if bad.size:
        raise ValueError(f"load trace: row {bad[0]} is not a number; fill the gap or choose a column without gaps")
    if t_s[0] < 0 or np.any(np.diff(t_s) <= 0):
        raise ValueError("load trace: times must rise and not be negative")
    # The load keeps its own time: it begins somewhere inside a second and drifts, so that steps meet every phase of the
    # controller's polls instead of one and the same.
    t_s = (t_s - t_s[0]) * (1.0 + settings.trace_ppm * 1e-6)
    t_s[1:] += settings.trace_phase_s or 0.0
    return np.rint(t_s * 1e9).astype(np.uint64), power_w


def build(
    blob: bytes,
    *,
    load: Trace | None = None,
    pv: Trace | None = None,
    seed: int | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Built:
    """The plant of a compiled site.

    blob : the program (tidegate.ext.abi.program.pack or the compiler's).
    load : (t_s, w) of IT power, replayed as steps; None = the site's constant load_w.
    pv   : (t_s, w) of PV generation.
    seed : the only source of chance; None = the site's.
    Raises ValueError for a damaged program or trace.
    """
    rows = programs.rows(blob)
    site = described(programs.describe(blob))
    settings = settings_of(site, overrides)
    if seed is not None:
        settings = msgspec.structs.replace(settings, seed=seed)
    if settings.trace_phase_s is None:
        phase_s = float(np.random.Generator(np.random.PCG64(settings.seed + 2)).random())
        settings = msgspec.structs.replace(settings, trace_phase_s=phase_s)
    world = worlds.World(settings.seed, rows["period_ns"])
    built = Built(world, rows, site, settings)
    t_ns, power_w = steps(load, settings)
    world.set_load(
        t_ns,
        power_w,
        cooling_share=settings.cooling_share,
        cooling_mean_s=settings.cooling_mean_s,
        phase_share=settings.phase_share,
    )
    if pv is not None:
        world.set_pv(*steps(pv, settings))
    _add_units(built)
    _add_lines(built)
    _add_can(built)
    add_habits(built)
    _judge(built)
    return built


def _device(built: Built, point: int) -> str:
    return str(built.rows["points"][point]["name"]).split(".")[0] if point >= 0 else ""


def _batteries_of(built: Built, number: int) -> list[str]:
    """Names of the batteries behind a unit's converter; the first has the unit's number in the world."""
    rows = [row for row in built.rows["bank_rows"] if row["unit"] == number]
    if not rows:
        return [_device(built, built.rows["units"][number]["soc"]) or f"bms{number}"]
    return [_device(built, row["soc"]) for row in rows]


def _add_battery(built: Built, name: str, unit: programs.UnitRow, share: float) -> None:
    """One battery of a unit, with this share of its energy and currents."""
    settings = built.settings
    energy_wh = (unit["energy_wh"] or ENERGY_WH) * share
    cells = float(settings.cells)
    capacity_ah = energy_wh / (cells * sum(OCV_V) / len(OCV_V))
    built.batteries[name] = built.world.add_battery(
        cells=cells,
        capacity_ah=capacity_ah,
        r_ohm=cells * 0.05 / capacity_ah,  # 0.5 milliohm a cell of 100 Ah
        ocv_soc=list(OCV_SOC),
        ocv_v=list(OCV_V),
        soc=settings.soc_start,
        soh=settings.soh,
        temp_c=settings.ambient_c + 3.0,
        heat_j_per_k=6.5 * energy_wh,  # 1 kJ/(kg K), 150 Wh/kg
        cooling_w_per_k=energy_wh / 1000.0,
        ambient_c=settings.ambient_c,
        charge_a_max=1.25 * share * _rated_w(unit, "charge_w_max") / (cells * 3.0),
        discharge_a_max=1.25 * share * _rated_w(unit, "discharge_w_max") / (cells * 2.9),
        taper=settings.bms_taper,
        cell_v_max=3.65,
        cell_v_min=2.50,
        temp_c_max=55.0,
        temp_c_min=-5.0,
    )


def _rated_w(unit: programs.UnitRow, key: str) -> float:
    return float(unit["gate"][key] or (unit["energy_wh"] or ENERGY_WH) / 2)


def _add_units(built: Built) -> None:
    settings = built.settings
    banks = [_batteries_of(built, number) for number in range(len(built.rows["units"]))]
    for unit, names in zip(built.rows["units"], banks, strict=True):  # by unit first: the world counts on that order
        _add_battery(built, names[0], unit, 1.0 / len(names))
    for unit, names in zip(built.rows["units"], banks, strict=True):
        for name in names[1:]:
            _add_battery(built, name, unit, 1.0 / len(names))
    for number, (unit, batteries) in enumerate(zip(built.rows["units"], banks, strict=True)):
        pcs = _device(built, unit["pcs_w"]) or f"pcs{number}"
        names = _command_names(built, pcs)
        built.converters[pcs] = built.world.add_pcs(
            battery=built.batteries[batteries[0]],
            beside=[built.batteries[name] for name in batteries[1:]],
            charge_w_max=_rated_w(unit, "charge_w_max"),
            discharge_w_max=_rated_w(unit, "discharge_w_max"),
            tau_s=settings.pcs_tau_ms * 1e-3,
            dead_s=settings.pcs_dead_ms * 1e-3,
            ramp_w_per_s=settings.pcs_ramp_w_per_s,
            loss_w=settings.pcs_loss_w,
            loss_ratio=settings.pcs_loss_share,
            measure_s=settings.pcs_measure_ms * 1e-3,
            revert_s=0.0 if "revert_after" in names else settings.pcs_watchdog_ms * 1e-3,
            enabled="setpoint_enable" not in names,
            started="start" not in names,
            states=_states(built, pcs),
        )


def _states(built: Built, name: str) -> tuple[int, int, int]:
    """The converter's own numbers for standby, run and fault."""
    found = _map_of(built, _device_named(built, name))
    state = next((point for point in found.point if point.name == "state"), None) if found is not None else None
    if found is not None and state is not None and not state.model:
        named = {p.name: p.one_of for p in found.point if p.name in ("ready", "fault") and p.address == state.address}
        if any(named.values()):  # the map's own numbers
            run, fault = named.get("ready", ()), named.get("fault", ())
            free = [number for number in range(64) if number not in (*run, *fault)]
            return free[0], run[0] if run else free[1], fault[0] if fault else free[2]
    models = [] if state is None else [state.model]
    return STATES.get(models[0], STATES_PLAIN) if models else STATES_PLAIN


def _slaves_of(built: Built, device: str) -> list[int]:
    """Rows of the program's slaves that belong to a device, by the points that their blocks fill."""
    found = []
    for number, slave in enumerate(built.rows["slaves"]):
        if _slave_name(built, slave) == device:
            found.append(number)
    return found


def _slave_name(built: Built, slave: programs.SlaveRow) -> str:
    devices = built.site.devices
    if 0 <= slave["device"] < len(devices):
        return devices[slave["device"]].name
    for block in built.rows["blocks"][slave["block_first"] : slave["block_first"] + slave["block_count"]]:
        for row in built.rows["fields"][block["field_first"] : block["field_first"] + block["field_count"]]:
            return _device(built, row["point"])
    return ""


def _device_named(built: Built, name: str) -> Device:
    """What the description says of a device; of a program without one, what its points say."""
    found = built.site.device_named(name)
    if found is not None:
        return found
    site = built.rows["site"]
    if name in built.converters:
        role = "pcs"
    elif name == _device(built, site["grid_w"]):
        role = "grid-meter"
    else:
        role = "pv-meter" if name == _device(built, site["pv_w"]) else "it-meter"
    return Device(name=name, role=role)


def _map_of(built: Built, device: Device) -> DeviceMap | None:
    """The device's own map, None when the site came without one or it has gone since."""
    if not device.map:
        return None
    from tidegate.hal.maps import MapError, load_map

    source = str(Path(built.site.folder or ".") / device.map) if device.map.endswith(".toml") else device.map
    try:
        return load_map(source, device.options)
    except MapError:
        return None  # the program's rows are all there is


def _command_names(built: Built, name: str) -> list[str]:
    """Names of a device's command rows, in the program's order; "" where the site does not say."""
    named = [one.name for one in built.site.commands if one.device == name]
    for number in _slaves_of(built, name):
        count = built.rows["slaves"][number]["command_count"]
        return named if len(named) == count else ["" for _ in range(count)]
    return []


def _add_lines(built: Built) -> None:
    rows, settings = built.rows, built.settings
    chance = np.random.Generator(np.random.PCG64(settings.seed))  # phases of the devices' own clocks
    for port in rows["ports"]:
        bits = 1 + port["data_bits"] + port["stop_bits"] + (0 if port["parity"] == "N" else 1)
        built.world.add_line(char_ns=round(bits * 1e9 / port["baud"]))
    for slave in rows["slaves"]:
        name = _slave_name(built, slave)
        device = _device_named(built, name)
        if name in built.slaves:
            continue
        pcs, meter = -1, -1
        if device.role == "pcs":
            pcs = built.converters.get(name, -1)
        else:
            # A device's clock is its own: phase and, by 50 ppm, rate. Steps then meet every phase of the meter.
            interval_s = settings.meter_update_ms * 1e-3 * (1.0 + 50e-6 * (2.0 * float(chance.random()) - 1.0))
            meter = built.world.add_meter(
                "circuit" if device.role in NOWHERE else ROLES.get(device.role, "it"),
                share=0.0 if device.role in NOWHERE else CIRCUIT_SHARE,
                downstream=_downstream(built, device),
                interval_s=interval_s,
                delay_s=settings.meter_delay_ms * 1e-3 if device.role == "grid-meter" else 0.0,
                resolution_w=settings.meter_resolution_w,
                phase_s=float(chance.random()) * interval_s,
            )
            built.meters[name] = meter
        number = built.world.add_slave(
            slave["port"],
            slave["unit_id"],
            pcs=pcs,
            meter=meter,
            turnaround_s=settings.turnaround_ms * 1e-3,
            turnaround_jitter_s=settings.turnaround_jitter_ms * 1e-3,
        )
        built.slaves[name] = number
        _fill_slave(built, number, slave, device, name)


def _downstream(built: Built, device: Device) -> int:
    """Bit mask of the converters behind a sub-meter."""
    names = [unit["name"] for unit in built.rows["units"]]
    return sum(1 << names.index(name) for name in device.circuit_storage if name in names)


def _exponent(signal: str, top_w: float) -> int:
    """Power of ten that a device would choose for a signal so that it fits 16 bits."""
    if signal.endswith("_hz"):
        return -2
    if signal.endswith(("_v", "_a", "pct", "soc", "soh", "_c")):
        return -1
    if signal.endswith(("_w", "_va", "_var", "_w_max")):
        return max(0, math.ceil(math.log10(1.3 * top_w / 32767.0)))
    return 0


def _fill_slave(built: Built, number: int, slave: programs.SlaveRow, device: Device, name: str) -> None:
    rows, world = built.rows, built.world
    kind = "pcs" if device.role == "pcs" else "meter"
    index = built.converters[name] if kind == "pcs" and name in built.converters else built.meters.get(name, 0)
    known = assembly.PCS_VARIABLES if kind == "pcs" else assembly.METER_VARIABLES
    blocks = rows["blocks"][slave["block_first"] : slave["block_first"] + slave["block_count"]]
    commands = rows["commands"][slave["command_first"] : slave["command_first"] + slave["command_count"]]
    names = _command_names(built, name)
    found = _map_of(built, device)

    # 1. which addresses exist
    readable = [(SPACES[b["function"]], b["address"], b["count"]) for b in blocks]
    writable = [(WRITE_SPACES[c["function"]], c["address"], c["count"]) for c in commands]
    if found is not None and found.map.protocol == "modbus":
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


def _simulated_lines(site: Description) -> int:
    """Number of the CAN bus of GPIO lines on a simulated chip; -1 = none."""
    for number, bus in enumerate(site.can):
        if bus.interface.startswith(SCHEME) and all(one.chip == SIMULATED for one in lines(bus.interface)):
            return number
    return -1


def _add_can(built: Built) -> None:
    rows, world = built.rows, built.world
    chance = np.random.Generator(np.random.PCG64(built.settings.seed + 1))
    flags = programs.CAN_FRAME_FLAGS
    simulated_lines = _simulated_lines(built.site)
    for frame in rows["can_frames"]:
        fields = rows["can_fields"][frame["field_first"] : frame["field_first"] + frame["field_count"]]
        if not fields:
            continue
        if frame["bus"] == simulated_lines:  # what they say comes by a schedule
            built.inputs[frame["id"] - INPUT_ID] = world.add_can_frame(
                id=frame["id"], bus=frame["bus"], len=8, period_ns=PERIOD_MS * 1_000_000, phase_ns=1, fields=[]
            )
            continue
        battery = built.batteries.get(_device(built, fields[0]["point"]), 0)
        bound = []
        for row in fields:
            signal = rows["points"][row["point"]]["name"].split(".", 1)[1]
            bound.append(
                {
                    **{key: row[key] for key in ("start", "length", "big_endian", "is_signed", "flags", "mux_value")},
                    **{key: row[key] for key in ("mask", "scale", "offset", "sentinel")},
                    "source": ("battery", battery, variable_of("battery", signal, assembly.BATTERY_VARIABLES)),
                }
            )
        period_ns = frame["period_ns"] or 1_000_000_000
        number = world.add_can_frame(
            id=frame["id"],
            bus=frame["bus"],
            len=min(frame["len_max"], 8),
            period_ns=period_ns,
            phase_ns=int(chance.integers(1, period_ns)),
            mux=(frame["mux_start"], frame["mux_length"], frame["mux_big_endian"])
            if frame["flags"] & flags["mux"]
            else None,
            counter=(frame["counter_start"], frame["counter_length"], frame["counter_big_endian"])
            if frame["flags"] & flags["counter"]
            else None,
            crc=(frame["crc_kind"], frame["crc_byte"]) if frame["flags"] & flags["crc"] else None,
            fields=bound,
        )
        built.frames.setdefault(frame["id"], number)


def energies(totals: dict[str, float]) -> dict[str, float]:
    """The world's totals with every energy in Wh instead of J."""
    return {
        name[:-2] + "_wh" if name.endswith("_j") else name: value / 3600.0 if name.endswith("_j") else value
        for name, value in totals.items()
    }


def reaction_s(built: Built) -> float:
    """Time in which a step may stand above the limit: reading, two cycles, write, dead time, lag down to 0.1 %.

    Meter interval and delay, the longest round of polls plus one write at the line's pace, two cycles, the
    converter's dead time and seven of its time constants.
    """
    rows, settings = built.rows, built.settings
    round_s = 0.0
    for number, port in enumerate(rows["ports"]):
        char_s = (1 + port["data_bits"] + port["stop_bits"] + (port["parity"] != "N")) / port["baud"]
        gap_s = max(3.5 * char_s, 1.75e-3 if port["baud"] > 19200 and port["gap_rule"] == 0 else 0.0)
        port_s = 0.0
        for slave in (one for one in rows["slaves"] if one["port"] == number):
            for block in rows["blocks"][slave["block_first"] : slave["block_first"] + slave["block_count"]]:
                reply_s = (13 + 2 * block["count"]) * char_s + 2 * gap_s
                port_s += reply_s + (settings.turnaround_ms + settings.turnaround_jitter_ms) * 1e-3
            port_s += (17 + 8) * char_s + 2 * gap_s if slave["command_count"] else 0.0
        round_s = max(round_s, port_s)
    return float(
        (settings.meter_update_ms + settings.meter_delay_ms + settings.pcs_dead_ms) * 1e-3
        + 2 * round_s
        + 2 * rows["period_ns"] * 1e-9
        + 7 * settings.pcs_tau_ms * 1e-3
    )


def _judge(built: Built) -> None:
    control = built.rows["control"]
    limit_w = min(control["connection_import_w_max"], control["peak_w_max"])
    built.world.set_judgement(limit_w if math.isfinite(limit_w) else 1e12, built.settings.step_w, reaction_s(built))
    for fault in built.settings.faults:
        _add_fault(built, fault)


def _add_fault(built: Built, fault: SimulatedFault) -> None:
    """A fault of the site file: kind as in FAULT_NAMES or device.bit ("meter.stuck"), target by name."""
    kind, _, bit = fault.kind.partition(".")
    value = float(assembly.FAULT_BITS[kind][bit]) if bit else fault.value
    off_s = 1e9 if fault.off_s is None else fault.off_s
    built.world.add_fault(kind, _target(built, kind, fault), value, fault.on_s, off_s)


def _target(built: Built, kind: str, fault: SimulatedFault) -> int:
    """The number of what a fault strikes. Raises ValueError for a name that nothing has."""
    target = fault.target
    if isinstance(target, int):
        return target
    tables = [built.batteries, built.converters, built.meters]
    if kind not in ("battery", "pcs", "meter", "watchdog_off"):
        tables.insert(0, built.slaves)
    for table in tables:
        if target in table:
            return table[target]
    if target.startswith("0x") and int(target, 16) in built.frames:
        return built.frames[int(target, 16)]
    if target == "":
        return 0
    raise ValueError(f"simulation.faults: {fault.kind} has no target {target!r}")
