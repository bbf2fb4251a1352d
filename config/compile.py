"""From a site and its device maps to the program that the core runs."""

import math
from collections.abc import Mapping
from typing import Any

from tidegate.config import gpio
from tidegate.config.banks import bank_rows, bank_signals, batteries_of
from tidegate.config.beliefs import Learnt, first
from tidegate.config.described_site import describe, snapshot_every
from tidegate.config.hazard_check import PointRow, hazard_problems
from tidegate.config.plausible import bounded, power_bounds
from tidegate.config.poll_plan import PortPlan, port_plan
from tidegate.config.program_rows import Row, can_fields, command_row, register_fields
from tidegate.config.shared_slaves import by_unit, one_slave_each, shared
from tidegate.config.site import EXIT_PLAN, Device, Site, SiteError, Storage
from tidegate.config.site_island import island_points, island_row
from tidegate.config.site_maps import PHASES, load_maps
from tidegate.config.tcp_lanes import Lane, lanes, on_tcp
from tidegate.ext.abi import program
from tidegate.ext.abi.settings import POLICY_NAMES_BY_NUMBER
from tidegate.ext.bus.can_view import CRC_NAMES
from tidegate.hal.map_schema import DeviceMap, Frame
from tidegate.hal.vocabulary import signals

RAMP_GO_S = 0.05  # from zero to full power, where the site file says nothing
RAMP_STOP_S = 0.01
IDENTITY_MAX = 3  # signature words of a converter that the core watches
INT32_MAX = 2**31 - 1  # the gate's "no limit of its own" for currents

# Age budget: so many readings may fail before a point is stale, inside a floor and a ceiling.
AGE_READINGS = 3
AGE_FLOOR_NS, AGE_CEILING_NS = 250_000_000, 30_000_000_000

# Settings of the control whose key in the site file is the field's own name.
PLAIN_CONTROL_KEYS = (
    *("demand_window_s", "demand_step_s", "demand_margin_w", "demand_ratchet", "demand_paid_w"),
    *("range_window_s", "damp_lo_hz", "damp_hi_hz"),
    *POLICY_NAMES_BY_NUMBER,
)

CURRENTS = ("current_l1_a", "current_l2_a", "current_l3_a")
VOLTAGES = ("voltage_l1_v", "voltage_l2_v", "voltage_l3_v")


class Compiler:
    """Collects the rows of one program; `problems` grows, nothing is raised before the end."""

    def __init__(self, site: Site, carried: Learnt | None = None) -> None:
        self.site = site
        self.first = first(site, carried)
        self.bounds = power_bounds(site)
        self.problems: list[str] = []
        self.maps = load_maps(site, self.problems)
        self.devices = [device for device in site.device if device.name in self.maps]
        self.points: list[PointRow] = []
        self.added: set[str] = set()
        self.labels: list[Row] = []  # what the describe blob says beside each point
        self.plans: list[PortPlan] = []
        self.lanes: list[Lane] = []
        self.lane_of: dict[str, str] = {}  # device on a TCP bus -> its lane
        self.unit_of_device: dict[str, int] = {}
        for number, storage in enumerate(site.storage):
            self.unit_of_device.update(dict.fromkeys((*batteries_of(storage), storage.pcs), number))

    # ------------------------------------------------------------------------------------------------- points

    def name_in_image(self, device: Device, signal: str) -> str:
        """The image's name of a device's signal; an inverted meter has its energy registers swapped."""
        if device.invert:
            signal = {"import_wh": "export_wh", "export_wh": "import_wh"}.get(signal, signal)
        return f"{device.name}.{signal}"

    def number_of(self, device: Device) -> int:
        """A device's place in the site file."""
        return [one.name for one in self.site.device].index(device.name)

    def has(self, device: str, signal: str) -> bool:
        """Whether a device's map gives a signal."""
        return device in self.maps and signal in self.maps[device].signal_names()

    def add_point(self, device: Device, signal: str, unit: str, age_ns: int, label: Mapping[str, object]) -> str:
        """Add one row of the image; returns its name."""
        name = self.name_in_image(device, signal)
        number = self.number_of(device)
        age = round(device.age_max_ms * 1e6) if device.age_max_ms and age_ns else age_ns
        self.added.add(name)
        self.points.append(PointRow(name=name, unit=unit, device=number, age_max_ns=age))
        self.labels.append({"name": name, "unit": unit, "device": number, **label})
        return name

    # -------------------------------------------------------------------------------------------------- CAN

    def can_rows(self) -> tuple[list[Row], list[Row]]:
        """(received frames, cyclic frames) of all buses."""
        frames: list[Row] = []
        transmits: list[Row] = []
        taken: dict[tuple[int, int], str] = {}
        for bus, can in enumerate(self.site.can):
            for device in self.devices:
                found = self.maps[device.name]
                if device.bus != can.name or found.bus != "can":
                    continue
                if found.can.bitrate != can.bitrate and not any(k == "bitrate" for k in device.options):
                    self.problems.append(
                        f"can[{can.name}].bitrate: {can.bitrate}, but {device.name} ({found.name}) runs at "
                        f"{found.can.bitrate}"
                    )
                for frame in found.frame:
                    extended = 0x80000000 if frame.extended else 0
                    ident = (frame.id + device.can_id_offset) | extended
                    if (bus, ident) in taken:
                        self.problems.append(
                            f"device[{device.name}]: frame 0x{ident & 0x1FFFFFFF:X} on {can.name} already belongs to "
                            f"{taken[(bus, ident)]}; set can_id_offset, or use another bus"
                        )
                    taken[(bus, ident)] = device.name
                    frames.append(self._can_frame(device, frame, bus, ident))
                for tx in found.transmit:
                    transmits.append(
                        {
                            "id": (tx.id + device.can_id_offset) | (0x80000000 if tx.extended else 0),
                            "bus": bus,
                            "data": bytes(tx.data),
                            "kind": 1 if tx.kind == "heartbeat" else 0,
                            "unit": self.unit_of_device.get(device.name, -1)
                            if tx.kind == "heartbeat" or tx.open_data
                            else -1,
                            **({"has_open": 1, "open_data": bytes(tx.open_data)} if tx.open_data else {}),
                            "period_ns": round(tx.period_ms * 1e6),
                            "counter_start": -1 if tx.counter_start is None else tx.counter_start,
                            "counter_length": tx.counter_length,
                        }
                    )
        return frames, transmits

    def _can_frame(self, device: Device, frame: Frame, bus: int, ident: int) -> Row:
        age = round((frame.age_ms or frame.period_ms * AGE_READINGS) * 1e6)
        age = min(max(age, AGE_FLOOR_NS), AGE_CEILING_NS) if age else 0
        flags = program.CAN_FRAME_FLAGS
        row: Row = {
            "id": ident,
            "bus": bus,
            "len_min": frame.len[0],
            "len_max": frame.len[1],
            "flags": (flags["fd"] if frame.fd else 0)
            | (flags["mux"] if frame.mux_start is not None else 0)
            | (flags["counter"] if frame.counter_start is not None else 0)
            | (flags["crc"] if frame.crc != "none" else 0),
            "mux_start": frame.mux_start or 0,
            "mux_length": frame.mux_length,
            "mux_big_endian": int(frame.mux_big_endian),
            "counter_start": frame.counter_start or 0,
            "counter_length": frame.counter_length,
            "counter_big_endian": int(frame.counter_big_endian),
            "crc_kind": CRC_NAMES.index(frame.crc),
            "crc_byte": frame.crc_byte if frame.crc != "none" else 0,
            "period_ns": round(frame.period_ms * 1e6),
        }
        fields = []
        for signal in frame.signal:
            name = self.add_point(device, signal.name, signal.unit, age, {"register": signal.register_name})
            rows = can_fields(signal, name)
            fields += [bounded(one, device, signal.name, signal.unit, self.bounds) for one in rows]
        return {**row, "fields": fields}

    # ------------------------------------------------------------------------------------------------ Modbus

    def port_rows(self) -> list[dict[str, Any]]:
        """Ports with their slaves, blocks, fields and commands."""
        ports: list[dict[str, Any]] = []
        for serial in self.site.serial:
            users = shared(
                (d, self.maps[d.name])
                for d in self.devices
                if d.bus == serial.name and self.maps[d.name].bus == "serial"
            )
            plan = port_plan(serial, users, self.problems, self.site.site.period_us * 1000)
            self.plans.append(plan)
            slaves = one_slave_each(self._slave(device, found, plan) for device, found in users)
            rule = serial.gap if isinstance(serial.gap, str) else "fixed"
            ports.append(
                {
                    "name": serial.name,
                    "baud": serial.baud,
                    "parity": serial.parity,
                    "stop_bits": serial.stop_bits,
                    "gap_rule": program.GAP_RULES[rule],
                    "gap_ns": serial.gap * 1000 if isinstance(serial.gap, int) else 0,
                    "lead_in": serial.lead_in_bytes,
                    "transport": program.TRANSPORTS["serial" if serial.protocol == "modbus" else serial.protocol],
                    "flags": (1 if serial.strip_echo else 0) | (2 if serial.rs485 else 0),
                    "slaves": slaves,
                }
            )
        return ports + self.tcp_rows()

    def tcp_rows(self) -> list[dict[str, Any]]:
        """The lanes of the TCP buses, behind the serial ports."""
        ports: list[dict[str, Any]] = []
        link = 0
        for tcp in self.site.tcp:
            users = shared(
                (on_tcp(d, self.maps[d.name], tcp), self.maps[d.name])
                for d in self.devices
                if d.bus == tcp.name and self.maps[d.name].bus == "serial"
            )
            groups = by_unit(users)
            found = lanes(tcp, link, len(groups), self.problems)
            link += tcp.connections
            for number, lane in enumerate(found):
                own = [user for group in groups[number :: len(found)] for user in group]
                plan = port_plan(lane, own, self.problems, self.site.site.period_us * 1000)
                self.plans.append(plan)
                self.lanes.append(lane)
                self.lane_of.update({device.name: lane.name for device, _ in own})
                slaves = one_slave_each(self._slave(device, map_, plan) for device, map_ in own)
                ports.append({**lane.row(), "slaves": slaves})
        return ports

    def _slave(self, device: Device, found: DeviceMap, plan: PortPlan) -> Row:
        blocks = []
        names = {p.name: self.name_in_image(device, p.name) for p in found.point}
        own = [b for b in plan.blocks if b.device == device.name]
        for block in own:
            period = block.period_ns or plan.round_ns
            age = 0 if block.poll == "once" else int(min(max(AGE_READINGS * period, AGE_FLOOR_NS), AGE_CEILING_NS))
            fields = []
            # Factors first: each value looks for its own among the fields of its block.
            for point in sorted(block.points, key=lambda one: one.type != "sunssf"):
                label = {"register": point.register_name, "address": point.address, "function": point.function}
                if point.hidden:
                    label["hidden"] = True
                if names[point.name] not in self.added:  # a factor stands in each block that needs it
                    self.add_point(device, point.name, point.unit, age, label)
                rows = [
                    bounded(row, device, point.name, point.unit, self.bounds)
                    for row in register_fields(device, point, block.address, names)
                ]
                if block.waits and point.sf:
                    raw = {**label, "hidden": True}
                    rows[0]["held_point"] = self.add_point(device, f"{point.name}_raw", "", 0, raw)
                fields += rows
            blocks.append(
                {
                    "function": block.function,
                    "poll_class": program.POLL_CLASSES[block.poll],
                    "address": block.address,
                    "count": block.count,
                    "period_ns": block.period_ns,
                    "signature": 0 if block.signature_word is None else 1,
                    "signature_word": block.signature_word or 0,
                    "factors": int(block.factors),
                    "fields": fields,
                }
            )
        unit = self.unit_of_device.get(device.name, -1)
        commands = []
        if unit >= 0:
            commands = [command_row(command, unit, names) for command in found.command]
        timeout_ms = device.timeout_ms or found.modbus.timeout_ms
        return {
            "unit_id": device.unit_id,
            "device": self.number_of(device),
            "timeout_ns": round(timeout_ms * 1e6),
            "turnaround_ns": round(
                (found.modbus.turnaround_ms if device.turnaround_ms is None else device.turnaround_ms) * 1e6
            ),
            "blocks": blocks,
            "commands": commands,
        }

    # ----------------------------------------------------------------------------------------- site and units

    def site_row(self) -> Row:
        """Where the control finds the meters."""
        row: Row = {}
        circuits = []
        for device in self.devices:
            if device.role == "grid-meter":
                row["grid_w"] = f"{device.name}.power_w"
                row["grid_w_l"] = [f"{device.name}.{name}" if self.has(device.name, name) else -1 for name in PHASES]
                for key in ("import_wh", "export_wh"):
                    if self.has(device.name, key):
                        row[f"grid_{key}"] = f"{device.name}.{key}"
                if self.has(device.name, "frequency_hz"):
                    row["grid_hz"] = f"{device.name}.frequency_hz"
                row["grid_v"] = [f"{device.name}.{name}" if self.has(device.name, name) else -1 for name in VOLTAGES]
                row["grid_a"] = [f"{device.name}.{name}" if self.has(device.name, name) else -1 for name in CURRENTS]
            elif device.role == "pv-meter":
                row["pv_w"] = f"{device.name}.power_w"
            elif device.role == "circuit-meter":
                circuits.append(f"{device.name}.power_w")
            for key, signal in (("demand_w", "demand_w"), ("window_pulse", "window_pulse_count")):
                if self.has(device.name, signal) and (key not in row or device.role == "grid-meter"):
                    row[key] = f"{device.name}.{signal}"
        if circuits:
            row["circuit_w"] = circuits
        for one in self.site.input:
            if one.what == "demand-pulse":
                row["window_pulse"] = f"{one.name}.count"
        return {**row, **island_points(self)}

    def reconnect_row(self) -> Row:
        """What a grid that comes back may be given; nothing where the site file asks for nothing."""
        limits = self.site.limits
        if not limits.reconnect_wait_s and limits.reconnect_ramp_pct_per_min is None and self.site.island is None:
            return {}
        full_w = sum(max(storage.charge_w_max, storage.discharge_w_max) for storage in self.site.storage)
        low_v, high_v = limits.reconnect_v or (None, None)
        return {
            "reconnect_wait_s": limits.reconnect_wait_s,
            "reconnect_w_per_s": (limits.reconnect_ramp_pct_per_min or 0.0) / 100.0 / 60.0 * full_w,
            "reconnect_hz_min": limits.reconnect_hz[0],
            "reconnect_hz_max": limits.reconnect_hz[1],
            "reconnect_v_min": low_v,
            "reconnect_v_max": high_v,
        }

    def unit_row(self, storage: Storage) -> Row:
        """Where the gate finds a unit's signals, and its limits as integers."""
        row: Row = {"name": storage.name, "energy_wh": storage.energy_wh}
        if storage.parallel:
            row.update(self.bank_points(storage))
        for name, signal in signals().items():
            device = storage.bms if signal.kind == "bms" else storage.pcs
            if storage.parallel and signal.kind == "bms":
                continue
            # A state that reads as it was written is nothing that the device says. A `ready` of that sort still tells
            # when somebody took the remote control away; that the converter is ready the step test shows.
            echo = name == "state" and self._echoes(device, name)
            if signal.kind in ("bms", "pcs") and signal.row and self.has(device, name) and not echo:
                row[signal.row] = f"{device}.{name}"
        pcs = self.maps.get(storage.pcs)
        if pcs is not None:
            told = pcs.map.battery_power.partition(":")[0]
            row["battery_power"] = program.BATTERY_POWERS["pcs" if told == "power_w" else told]
        if pcs is not None and not any(command.kind == "setpoint_w" for command in pcs.command):
            self.problems.append(
                f"storage[{storage.name}].pcs: {pcs.name} has no setpoint register, it can only be read; choose "
                f"another map"
            )
        for key, bms in ((key, bms) for key in ("charge_a_max", "discharge_a_max") for bms in batteries_of(storage)):
            power = key.replace("_a_", "_w_")
            if bms in self.maps and not self.has(bms, key) and not self.has(bms, power):
                self.problems.append(
                    f"storage[{storage.name}].bms: {self.maps[bms].name} gives neither {key} nor {power}, and "
                    f"the gate lets nothing through without; give the map a signal with `constant`"
                )
        identity = pcs.identity_points() if pcs is not None else []
        if len(identity) > IDENTITY_MAX:
            self.problems.append(
                f"storage[{storage.name}].pcs: {storage.pcs} has {len(identity)} signature words, "
                f"at most {IDENTITY_MAX}"
            )
        row["identity"] = [f"{storage.pcs}.{name}" for name in identity[:IDENTITY_MAX]]
        if (measured_ms := self._revert_ms(storage)) is not None:
            row["revert_measured_s"] = measured_ms / 1e3
        highest = max(storage.charge_w_max, storage.discharge_w_max)
        go = storage.ramp_go_w_per_s or highest / RAMP_GO_S
        stop = storage.ramp_stop_w_per_s or max(highest / RAMP_STOP_S, 5 * go)
        gate = {
            "charge_w_max": math.floor(storage.charge_w_max),
            "discharge_w_max": math.floor(storage.discharge_w_max),
            "charge_ma_max": _milli(storage.charge_a_max),
            "discharge_ma_max": _milli(storage.discharge_a_max),
            "soc_min_cpct": math.ceil(storage.soc_min * 1e4 - 1e-6),
            "soc_max_cpct": math.floor(storage.soc_max * 1e4 + 1e-6),
            "soc_taper_cpct": round(storage.soc_taper * 1e4),
            "temp_min_ddegc": math.ceil(storage.temp_min_c * 10 - 1e-6),
            "temp_max_ddegc": math.floor(storage.temp_max_c * 10 + 1e-6),
            "temp_taper_ddegc": round(storage.temp_taper_c * 10),
            "cell_mv_min": math.ceil(storage.cell_v_min * 1000 - 1e-6),
            "cell_mv_max": math.floor(storage.cell_v_max * 1000 + 1e-6),
            "ramp_go_w_per_s": math.floor(go),
            "ramp_stop_w_per_s": math.ceil(stop),
        }
        if "cell_taper_mv" in program.GATE_FIELDS:
            gate["cell_taper_mv"] = round(storage.cell_taper_v * 1000)
        elif storage.cell_taper_v:
            self.problems.append(f"storage[{storage.name}].cell_taper_v: this build's gate has none; remove the key")
        row["gate"] = gate
        return row

    def bank_points(self, storage: Storage) -> Row:
        """Points of a unit with several batteries, named after it: what they are as one (ext/estimate/bank.pyx)."""
        row: Row = {}
        for field, signal, unit, members in bank_signals(storage, self.maps, self.problems):
            name = f"{storage.name}.{signal}"
            row[field] = name
            # As old as what it is made of, so without an age of its own.
            self.points.append(PointRow(name=name, unit=unit, device=-1, age_max_ns=0))
            self.labels.append({"name": name, "unit": unit, "device": -1, "register": f"of {', '.join(members)}"})
        return row

    def _echoes(self, device: str, signal: str) -> bool:
        """Whether a signal reads what the device's map writes there."""
        return device in self.maps and any(p.name == signal and p.echo for p in self.maps[device].point)

    def _revert_ms(self, storage: Storage) -> float | None:
        """What commissioning measured of this unit's converter: by its name, or of the only one."""
        measured = self.site.commissioning.pcs_revert_ms if self.site.commissioning is not None else None
        if isinstance(measured, dict):
            return measured.get(storage.pcs)
        return measured if len(self.site.storage) == 1 else None  # of one converter; with several, whose?

    def control_row(self) -> Row:
        """Settings of the corridor; a limit that the site leaves out stays infinite."""
        limits, control = self.site.limits, self.site.control
        row: Row = {
            "connection_import_w_max": limits.connection_import_w_max,
            "connection_export_w_max": limits.connection_export_w_max,
            "trim_per_s": control.trim_per_s,
            "deadband_w": control.deadband_w,
            "pcs_tau_s": control.pcs_tau_ms / 1e3,
            "blind_discharge_w_max": control.blind_discharge_w_max,
        }
        row.update(
            meter_latency_s_max=None if control.meter_latency_ms_max is None else control.meter_latency_ms_max / 1e3,
            phase_import_w_max=limits.phase_import_w_max,
            phase_share=self._phase_share(),
            recentre=1.0 if control.recentre else None,
            **self.reconnect_row(),
            **island_row(self.site.island),
            **{key: None if (value := getattr(control, key)) is None else float(value) for key in PLAIN_CONTROL_KEYS},
        )
        row.update(self.first.row)
        if row["recharge_w_max"] is None:
            row["recharge_w_max"] = row["peak_w_max"]
        if row["recharge_rate_w"] is None:
            row["recharge_rate_w"] = sum(storage.charge_w_max for storage in self.site.storage)
        circuits = [device for device in self.devices if device.role == "circuit-meter"]
        self.problems += [
            f"device[{device.name}].circuit_storage: only a circuit-meter has storage behind it; remove the key"
            for device in self.devices
            if device.circuit_storage and device not in circuits
        ]
        if any(device.circuit_w_max is not None for device in circuits):
            row["circuit_import_w_max"] = [device.circuit_w_max or 0.0 for device in circuits]
            row["circuit_units"] = [float(self._unit_mask(device)) for device in circuits]
        unknown = [key for key, value in row.items() if value is not None and key not in program.CONTROL_FIELDS]
        self.problems += [f"control: this build's control has no {key}; remove the key" for key in unknown]
        if "soc_min" in program.CONTROL_FIELDS:
            row["soc_min"] = max(storage.soc_min for storage in self.site.storage)
            row["soc_max"] = min(storage.soc_max for storage in self.site.storage)
        return {key: value for key, value in row.items() if value is not None and key in program.CONTROL_FIELDS}

    def _phase_share(self) -> list[float] | None:
        """Of the battery's power on each phase; None = a third each. Equal parts on a meter with fewer phases."""
        share, limit_w = self.site.control.phase_share, self.site.limits.phase_import_w_max
        meter = next((device for device in self.devices if device.role == "grid-meter"), None)
        if limit_w is None or meter is None or meter.name not in self.maps:
            return None if share is None else list(share)
        there = [self.has(meter.name, name) for name in PHASES]
        if not any(there):
            self.problems.append(
                f"limits.phase_import_w_max: the map of device {meter.name!r}, {meter.map}, has no power of a single "
                f"phase (power_l1_w to power_l3_w): nobody could hold the limit; choose another map or remove the key"
            )
        if share is None:
            return None if all(there) or not any(there) else [has / sum(there) for has in there]
        self.problems += [
            f"control.phase_share: {part:g} of the battery is on L{n}, whose power the map of device {meter.name!r}, "
            f"{meter.map}, does not have; set it to 0, or choose a map with power_l{n}_w"
            for n, (part, has) in enumerate(zip(share, there, strict=True), 1)
            if part > 0 and not has and any(there)
        ]
        return list(share)

    def _unit_mask(self, device: Device) -> int:
        names = [storage.name for storage in self.site.storage]
        mask = 0
        for name in device.circuit_storage:
            if name in names:
                mask |= 1 << names.index(name)
            else:
                self.problems.append(f"device[{device.name}].circuit_storage: no storage unit is named {name!r}")
        return mask


def _milli(ampere: float | None) -> int:
    return INT32_MAX if ampere is None else math.floor(ampere * 1000)


def fault_rows(site: Site, problems: list[str]) -> tuple[dict[int, Row], list[Row]]:
    """(rows for the gate by number, what the describe blob says of them) from faults.toml and the site's changes."""
    from tidegate.config.faults import load_faults, rest_blind

    rows, described = load_faults(site.safety.faults, problems)
    if site.control.blind_discharge_w_max > 0:
        rest_blind(rows, described)
    return rows, described


def compile_site(site: Site, carried: Learnt | None = None) -> bytes:
    """The program of a site: everything the core needs, hashed. carried: what a run before learnt of the plant.

    Raises SiteError with every problem that needs the device maps to be seen: bad maps, missing signals, clashing CAN
    ids, a bus that cannot carry its poll plan, more rows than the core has room for.
    """
    made = Compiler(site, carried)
    frames, transmits = made.can_rows()
    for point in gpio.add_rows(site, frames, transmits):
        made.points.append(PointRow(name=point["name"], unit=point["unit"], device=-1, age_max_ns=gpio.AGE_NS))
        made.labels.append({**point, "device": -1})
    ports = made.port_rows()
    problems = made.problems
    faults, described_faults = fault_rows(site, problems)
    units = [made.unit_row(storage) for storage in site.storage]
    control, places = made.control_row(), made.site_row()
    if not problems:
        for plan in made.plans:
            commands = sum(
                len(slave["commands"]) for port in ports if port["name"] == plan.port for slave in port["slaves"]
            )
            if commands > 32:
                problems.append(f"bus {plan.port}: {commands} written registers, a port has room for 32; use two buses")
        problems += hazard_problems(site, made.points, made.plans)
    if problems:
        raise SiteError("site", problems, EXIT_PLAN)
    spec = {
        "period_ns": site.site.period_us * 1000,
        "snapshot_every": snapshot_every(site),
        "points": made.points,
        "site": places,
        "control": control,
        "units": units,
        "bank_rows": bank_rows(site, made.maps),
        "faults": faults,
        "n_can_buses": len(site.can) + (1 if site.input or site.output else 0),
        "inputs": [row for one in site.input if (row := gpio.meaning_row(one))],
        "can_frames": frames,
        "can_tx": transmits,
        "ports": ports,
        "describe": describe(made, described_faults),
    }
    try:
        return program.pack(spec)
    except ValueError as error:
        raise SiteError("site", [f"cannot be packed: {error}"], EXIT_PLAN) from None
