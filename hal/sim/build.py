"""From a compiled site to a simulated plant whose registers and frames are those of the site's own device maps.

The program's rows say where every signal lies and how it is scaled; this module runs them backwards. So agreement of
core and world proves little about a map: the decode vectors and foreign masters do that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from tidegate.ext.abi import program as programs
from tidegate.ext.sim import assembly
from tidegate.ext.sim import world as worlds
from tidegate.hal.description import Description, Device, SimulatedFault, described
from tidegate.hal.gpio_frames import INPUT_ID, PERIOD_MS, SCHEME, SIMULATED, lines
from tidegate.hal.sim.built import Built as Built
from tidegate.hal.sim.built import Settings as Settings
from tidegate.hal.sim.built import device_of
from tidegate.hal.sim.device_habits import add_habits
from tidegate.hal.sim.names import NOWHERE, ROLES, STATES, STATES_PLAIN, variable_of
from tidegate.hal.sim.slaves import command_names, device_named, fill_slave, map_of, slave_name

if TYPE_CHECKING:
    pass

# One LFP cell at rest: flat in the middle, steep at the ends. Shape as published for large prismatic cells.
OCV_SOC = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)
OCV_V = (2.60, 2.95, 3.10, 3.19, 3.24, 3.27, 3.285, 3.29, 3.30, 3.325, 3.33, 3.335, 3.34, 3.37, 3.48)

LOAD_W = 20_000.0  # where neither trace nor load_w says more
ENERGY_WH = 60_000.0  # of a battery in a program that does not say

Trace = tuple[ArrayLike, ArrayLike]  # (t_s, power_w)
CIRCUIT_SHARE = 0.5  # of the IT load, behind a circuit-meter


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
    _add_genset(built)
    _add_units(built)
    _add_lines(built)
    _add_can(built)
    add_habits(built)
    _judge(built)
    return built


def _batteries_of(built: Built, number: int) -> list[str]:
    """Names of the batteries behind a unit's converter; the first has the unit's number in the world."""
    rows = [row for row in built.rows["bank_rows"] if row["unit"] == number]
    if not rows:
        return [device_of(built, built.rows["units"][number]["soc"]) or f"bms{number}"]
    return [device_of(built, row["soc"]) for row in rows]


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
        pcs = device_of(built, unit["pcs_w"]) or f"pcs{number}"
        names = command_names(built, pcs)
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


def _add_genset(built: Built) -> None:
    """The engine of a site with an island, as large as its site file says."""
    control = built.rows["control"]
    if control["island"] and control["genset_w_max"]:
        built.world.set_genset(
            w_max=control["genset_w_max"],
            w_min=control["genset_w_min"],
            start_s=built.settings.genset_start_s,
            at_grid_meter=built.rows["site"]["genset_w"] < 0,
        )


def _states(built: Built, name: str) -> tuple[int, int, int]:
    """The converter's own numbers for standby, run and fault."""
    found = map_of(built, device_named(built, name))
    state = next((point for point in found.point if point.name == "state"), None) if found is not None else None
    if found is not None and state is not None and not state.model:
        named = {p.name: p.one_of for p in found.point if p.name in ("ready", "fault") and p.address == state.address}
        if any(named.values()):  # the map's own numbers
            run, fault = named.get("ready", ()), named.get("fault", ())
            free = [number for number in range(64) if number not in (*run, *fault)]
            return free[0], run[0] if run else free[1], fault[0] if fault else free[2]
    models = [] if state is None else [state.model]
    return STATES.get(models[0], STATES_PLAIN) if models else STATES_PLAIN


def _add_lines(built: Built) -> None:
    rows, settings = built.rows, built.settings
    chance = np.random.Generator(np.random.PCG64(settings.seed))  # phases of the devices' own clocks
    for port in rows["ports"]:
        bits = 1 + port["data_bits"] + port["stop_bits"] + (0 if port["parity"] == "N" else 1)
        built.world.add_line(char_ns=round(bits * 1e9 / port["baud"]))
    for slave in rows["slaves"]:
        name = slave_name(built, slave)
        device = device_named(built, name)
        if name in built.slaves:
            continue
        pcs, meter = -1, -1
        if device.role == "pcs":
            pcs = built.converters.get(name, -1)
        elif device.role != "bms":
            # A device's clock is its own: phase and, by 50 ppm, rate. Steps then meet every phase of the meter.
            interval_s = settings.meter_update_ms * 1e-3 * (1.0 + 50e-6 * (2.0 * float(chance.random()) - 1.0))
            genset = device.role == "generator-meter" and built.rows["control"]["genset_w_max"] > 0
            nowhere = device.role in NOWHERE and not genset
            meter = built.world.add_meter(
                "genset" if genset else "circuit" if nowhere else ROLES.get(device.role, "it"),
                share=0.0 if nowhere else CIRCUIT_SHARE,
                downstream=_downstream(built, device),
                interval_s=interval_s,
                delay_s=settings.meter_delay_ms * 1e-3 if device.role == "grid-meter" else 0.0,
                resolution_w=settings.meter_resolution_w,
                phase_s=float(chance.random()) * interval_s,
                import_wh=settings.meter_import_wh if device.role == "grid-meter" else 0.0,
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
        fill_slave(built, number, slave, device, name)


def _downstream(built: Built, device: Device) -> int:
    """Bit mask of the converters behind a sub-meter."""
    names = [unit["name"] for unit in built.rows["units"]]
    return sum(1 << names.index(name) for name in device.circuit_storage if name in names)


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
        battery = built.batteries.get(device_of(built, fields[0]["point"]), 0)
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
