"""The compiled site: packs plain rows into the flat program that the core runs, and reads one again.

Not part of the cycle. What the core checks before it runs one is program_check.pyx.
"""

import hashlib
import json

from libc.math cimport INFINITY
from libc.stddef cimport size_t
from libc.string cimport memset
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from tidegate.ext.abi.settings cimport control_params_t
from tidegate.ext.safety.safety cimport GATE_FAULTS_MAX, gate_fault_row_t, gate_limits_t
from tidegate.ext.abi.image cimport (
    IMAGE_LAYOUT_VERSION, POINTS_MAX, SITE_POINT_NAMES, SITE_POINTS, UNIT_POINT_NAMES, UNIT_POINTS, UNITS_MAX,
)
from tidegate.ext.abi.program_check cimport *


# ---------------------------------------------------------------------------------------------- Python: constants

MAGIC = PROGRAM_MAGIC
LAYOUT_VERSION = PROGRAM_LAYOUT_VERSION
SIZE = sizeof(program_t)
LIMITS = {
    "points": POINTS_MAX, "units": UNITS_MAX, "can_buses": CAN_BUSES_MAX, "can_frames": CAN_FRAMES_MAX,
    "can_fields": CAN_FIELDS_MAX, "can_tx": CAN_TX_MAX, "ports": PORTS_MAX, "slaves": SLAVES_MAX, "blocks": BLOCKS_MAX,
    "fields": FIELDS_MAX, "commands": COMMANDS_MAX, "command_parts": COMMAND_PARTS_MAX, "command_regs": COMMAND_REGS_MAX, "faults": GATE_FAULTS_MAX, "block_regs": BLOCK_REGS_MAX,
}
FIELD_TYPES = {
    "u16": FIELD_U16, "s16": FIELD_S16, "u32": FIELD_U32, "s32": FIELD_S32, "u64": FIELD_U64, "s64": FIELD_S64,
    "f32": FIELD_F32, "f64": FIELD_F64, "sunssf": FIELD_SUNSSF, "bits": FIELD_BITS,
}
FIELD_FLAGS = {
    "sentinel": FIELD_SENTINEL, "low_word_first": FIELD_LOW_WORD_FIRST, "byte_swap": FIELD_BYTE_SWAP,
    "sf_point": FIELD_SF_POINT, "acc": FIELD_ACC, "one_of": FIELD_ONE_OF,
    "identity": FIELD_IDENTITY, "less_next": FIELD_LESS_NEXT,
}
CAN_FRAME_FLAGS = {"fd": CAN_FRAME_FD, "mux": CAN_FRAME_MUX, "counter": CAN_FRAME_COUNTER, "crc": CAN_FRAME_CRC}
CAN_FIELD_FLAGS = {
    "sentinel": CAN_FIELD_SENTINEL, "abs": CAN_FIELD_ABS, "float": CAN_FIELD_FLOAT, "muxed": CAN_FIELD_MUXED,
    "one_of": CAN_FIELD_ONE_OF,
}
COMMAND_KINDS = {
    "const": COMMAND_CONST, "setpoint_w": COMMAND_SETPOINT_W, "heartbeat": COMMAND_HEARTBEAT, "stop": COMMAND_STOP,
}
COMMAND_FLAGS = {"flash": COMMAND_FLASH, "turns": COMMAND_TURNS, "keep": COMMAND_KEEP}
PARTS_OF = {
    "const": PART_CONST, "setpoint": PART_SETPOINT, "magnitude": PART_MAGNITUDE, "charge": PART_CHARGE,
    "discharge": PART_DISCHARGE, "direction": PART_DIRECTION,
}
BATTERY_POWERS = {"pcs": BATTERY_POWER_PCS, "dc": BATTERY_POWER_DC, "none": BATTERY_POWER_NONE, "battery_w": BATTERY_POWER_OWN}
POLL_CLASSES = {"fast": POLL_FAST, "slow": POLL_SLOW, "once": POLL_ONCE}
TRANSPORTS = {"serial": PORT_SERIAL, "tcp": PORT_MBAP, "rtu-tcp": PORT_RTU_TCP, "pylontech": PORT_PYLON,
              "pylontech-tcp": PORT_PYLON_TCP}
GAP_RULES = {"spec": GAP_SPEC, "chars": GAP_CHARS, "fixed": GAP_FIXED}

_WHY = {
    BAD_SHORT: "shorter than a program of this build",
    BAD_MAGIC: "not a Tidegate program",
    BAD_LAYOUT: "program layout of another version",
    BAD_IMAGE: "image layout of another version",
    BAD_SIZE: "sizes disagree",
    BAD_COUNT: "more rows than the core has room for",
    BAD_PERIOD: "period outside 250 us to 100 ms, or no snapshots",
    BAD_TEXT: "a name without end or not in ASCII",
    BAD_SITE: "a point of the site outside the image",
    BAD_UNIT: "a point of the storage unit outside the image, or its energy not a number",
    BAD_POINT: "a point with a unit or device that cannot be",
    BAD_FRAME: "a CAN frame out of bounds",
    BAD_CAN_FIELD: "a CAN signal out of bounds, or its scale not usable",
    BAD_CAN_TX: "a cyclic CAN frame out of bounds",
    BAD_PORT: "a port with settings that cannot be",
    BAD_SLAVE: "a slave out of bounds",
    BAD_BLOCK: "a register block out of bounds",
    BAD_FIELD: "a register field out of its block, or its scale not usable",
    BAD_COMMAND: "a command out of bounds",
    BAD_CONTROL: "a site limit that is not a number >= 0",
    BAD_GATE: "gate limits that contradict themselves",
    BAD_FAULT: "a row of the fault table out of bounds",
    BAD_INPUT: "an input without a point, or its limit not a number >= 0",
}


def _fields_of_control():
    cdef control_params_t control
    memset(&control, 0, sizeof(control))
    return tuple(dict(control))


def _fields_of_gate():
    cdef gate_limits_t gate
    memset(&gate, 0, sizeof(gate))
    return tuple(dict(gate))


CONTROL_FIELDS = _fields_of_control()
GATE_FIELDS = _fields_of_gate()


# ------------------------------------------------------------------------------------------------- Python: packing

# Fields that hold an image index; a spec may name the point instead.
_POINT_FIELDS = {
    "point", "sf_point", "held_point", "readback_point",
    "soc", "soh", "pack_v", "pack_a", "temp_max_c", "temp_min_c", "charge_a_max", "discharge_a_max", "charge_v_max",
    "discharge_v_min", "charge_w_max", "discharge_w_max", "cell_v_max", "cell_v_min", "charge_ok", "discharge_ok",
    "alarm", "warning", "pcs_w", "pcs_state", "pcs_fault", "pcs_hb", "pcs_ready", "dc_v", "dc_a", "identity", "pcs_revert_s",
    "force_charge", "connected", "battery_w",
    "grid_ok", "grid_w", "grid_w_l", "pv_w", "circuit_w", "grid_import_wh", "grid_export_wh", "grid_hz", "grid_v", "demand_w",
    "window_pulse", "grid_a", "genset_w", "genset_hz", "island",
}
_NO_LIMIT = ("connection_import_w_max", "connection_export_w_max", "peak_w_max", "recharge_w_max", "ramp_up_w_per_s",
             "ramp_down_w_per_s")


def _complete(place, given, defaults, names):
    """Return defaults overlaid with the given row; names of points become indices, text becomes padded bytes.

    Raises ValueError naming the place for a key that the struct does not have and for a point that does not exist.
    """
    row = dict(defaults)
    for key, value in given.items():
        if key not in defaults:
            raise ValueError(f"{place}: unknown field {key!r}; known: {', '.join(sorted(defaults))}")
        if names is not None and key in _POINT_FIELDS:
            value = [_index(place, key, one, names) for one in value] if isinstance(value, (list, tuple)) else _index(
                place, key, value, names)
        if isinstance(defaults[key], list) and isinstance(value, (list, tuple)):
            if len(value) > len(defaults[key]):
                raise ValueError(f"{place}: {key} takes at most {len(defaults[key])} values, got {len(value)}")
            value = list(value) + defaults[key][len(value):]
        row[key] = value
    return row


def _index(place, key, value, names):
    if not isinstance(value, str):
        return -1 if value is None else value
    if value not in names:
        raise ValueError(f"{place}: {key} names the point {value!r}, which no row of points has")
    return names[value]


def _text(place, value, size):
    raw = value.encode() if isinstance(value, str) else bytes(value)
    if len(raw) >= size or not raw.isascii():
        raise ValueError(f"{place}: {value!r} must be ASCII of at most {size - 1} characters")
    return list(raw.ljust(size, b"\0"))


def _rows(spec, key, limit):
    rows = spec.get(key, [])
    if len(rows) > limit:
        raise ValueError(f"{key}: {len(rows)} rows, the core has room for {limit}")
    return rows


def standard_points(n_units):
    """Rows of the image that every site has: the site's own, then those of each storage unit. List of (name, unit)."""
    rows = [(SITE_POINT_NAMES[i][0].decode(), SITE_POINT_NAMES[i][1].decode()) for i in range(SITE_POINTS)]
    for unit in range(n_units):
        rows += [(f"unit{unit}.{UNIT_POINT_NAMES[i][0].decode()}", UNIT_POINT_NAMES[i][1].decode())
                 for i in range(UNIT_POINTS)]
    return rows


_SPEC_KEYS = {"period_ns", "snapshot_every", "site", "control", "units", "faults", "points", "n_can_buses", "can_frames",
              "can_tx", "ports", "inputs", "describe", "bank_rows"}


def _flatten(spec):
    """Return the flat row lists that the nested spec stands for; parents get first and count."""
    flat = {"can_frames": [], "can_fields": [], "ports": [], "slaves": [], "blocks": [], "fields": [], "commands": [],
            "command_parts": []}

    def take(row, child, target, first):
        children = row.pop(child, [])
        row[first + "_first"], row[first + "_count"] = len(flat[target]), len(children)
        return children

    for source in spec.get("can_frames", []):
        row = dict(source)
        flat["can_fields"] += take(row, "fields", "can_fields", "field")
        flat["can_frames"].append(row)
    for port_number, source in enumerate(spec.get("ports", [])):
        port = dict(source)
        slaves = take(port, "slaves", "slaves", "slave")
        flat["ports"].append(port)
        for slave_source in slaves:
            slave = {**slave_source, "port": port_number}
            number = len(flat["slaves"])
            flat["slaves"].append(slave)
            for block_source in take(slave, "blocks", "blocks", "block"):
                block = {**block_source, "slave": number}
                flat["fields"] += take(block, "fields", "fields", "field")
                flat["blocks"].append(block)
            for command_source in take(slave, "commands", "commands", "command"):
                command = {**command_source, "slave": number}
                flat["command_parts"] += take(command, "parts", "command_parts", "part")
                flat["commands"].append(command)
    return flat


def pack(spec: dict) -> bytes:
    """The program for the core: program_t filled from plain rows, the describe JSON behind it, hashed.

    spec: keys period_ns (1 ms), snapshot_every (100), site, control, units (each with gate), faults (row number -> row,
    or a list), points (device points only; the rows of the site and the units come first by themselves, see
    standard_points), n_can_buses, can_frames (each with fields), can_tx, ports (each with slaves, each with blocks,
    each with fields, and commands), describe (any JSON; "points" is added where it is missing). Row keys are the
    fields of the structs in program.h; what is left out has a harmless default: no point, scale 1, no limit.
    Where a field holds an image index, the point's name may stand instead.
    Raises ValueError naming the row for an unknown key, an unknown point, too many rows, or whatever check() finds.
    """
    cdef:
        bytearray blob = bytearray(sizeof(program_t))
        program_t* p = <program_t*><char*>blob
        point_row_t point
        unit_row_t unit
        bank_row_t bank_row
        gate_fault_row_t fault
        can_frame_row_t can_frame
        can_field_row_t can_field
        can_tx_row_t can_tx
        port_row_t port
        slave_row_t slave
        block_row_t block
        field_row_t field
        command_row_t command
        command_part_t part
        site_points_t site
        input_row_t given_input
        control_params_t control
        Py_ssize_t i

    unknown = set(spec) - _SPEC_KEYS
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]!r} in the program; known: {', '.join(sorted(_SPEC_KEYS))}")
    memset(&point, 0, sizeof(point))
    memset(&unit, 0, sizeof(unit))
    memset(&bank_row, 0, sizeof(bank_row))
    memset(&fault, 0, sizeof(fault))
    memset(&can_frame, 0, sizeof(can_frame))
    memset(&can_field, 0, sizeof(can_field))
    memset(&can_tx, 0, sizeof(can_tx))
    memset(&port, 0, sizeof(port))
    memset(&slave, 0, sizeof(slave))
    memset(&block, 0, sizeof(block))
    memset(&field, 0, sizeof(field))
    memset(&command, 0, sizeof(command))
    memset(&part, 0, sizeof(part))
    memset(&site, 0, sizeof(site))
    memset(&given_input, 0, sizeof(given_input))
    memset(&control, 0, sizeof(control))
    flat = _flatten(spec)
    n_units = len(_rows(spec, "units", UNITS_MAX))

    p.magic = PROGRAM_MAGIC
    p.layout_version = PROGRAM_LAYOUT_VERSION
    p.image_version = IMAGE_LAYOUT_VERSION
    p.size = sizeof(program_t)
    p.period_ns = spec.get("period_ns", 1_000_000)
    p.snapshot_every = spec.get("snapshot_every", 100)
    p.n_units = n_units
    p.n_can_buses = spec.get("n_can_buses", 1 + max([row.get("bus", 0) for row in flat["can_frames"]]
                                                    + [row.get("bus", 0) for row in spec.get("can_tx", [])], default=-1))

    rows = [{"name": name, "unit": text} for name, text in standard_points(n_units)] + list(spec.get("points", []))
    if len(rows) > POINTS_MAX:
        raise ValueError(f"points: {len(rows)} rows with those of site and units, the image has room for {POINTS_MAX}")
    names = {}
    defaults = {**point, "name": "", "unit": "", "device": -1}
    for i, given in enumerate(rows):
        row = _complete(f"points[{i}]", given, defaults, None)
        if row["name"] in names:
            raise ValueError(f"points[{i}]: the name {row['name']!r} is taken by points[{names[row['name']]}]")
        names[row["name"]] = i
        row["name"] = _text(f"points[{i}].name", row["name"], sizeof(point.name))
        row["unit"] = _text(f"points[{i}].unit", row["unit"], sizeof(point.unit))
        p.points[i] = row
    p.n_points = len(rows)

    none = {key: [-1] * len(value) if isinstance(value, list) else -1 for key, value in dict(site).items()}
    p.site = _complete("site", spec.get("site", {}), none, names)
    for i, given in enumerate(_rows(spec, "inputs", INPUTS_MAX)):
        p.inputs[i] = _complete(f"inputs[{i}]", given, {**given_input, "point": -1, "pad": [0] * 5}, names)
    p.n_inputs = len(spec.get("inputs", []))
    defaults = {**control, **{key: INFINITY for key in _NO_LIMIT if key in dict(control)}}
    p.control = _complete("control", spec.get("control", {}), defaults, None)

    none = {key: [-1] * len(value) if isinstance(value, list) else -1
            for key, value in dict(unit).items() if key in _POINT_FIELDS}
    for i, given in enumerate(spec.get("units", [])):
        row = _complete(f"units[{i}]", given, {**unit, **none}, names)
        row["gate"] = _complete(f"units[{i}].gate", given.get("gate", {}), dict(unit.gate), None)
        row["name"] = _text(f"units[{i}].name", given.get("name", f"unit{i}"), sizeof(unit.name))
        p.units[i] = row
    none = {key: -1 for key in dict(bank_row) if key in _POINT_FIELDS}
    for i, given in enumerate(_rows(spec, "bank_rows", BANK_ROWS_MAX)):
        p.bank_rows[i] = _complete(f"bank_rows[{i}]", given, {**bank_row, **none}, names)
    p.n_bank_rows = len(spec.get("bank_rows", []))
    faults = spec.get("faults", {})
    for number, given in (faults.items() if isinstance(faults, dict) else enumerate(faults)):
        if not 0 <= number < GATE_FAULTS_MAX:
            raise ValueError(f"faults[{number}]: the table has rows 0 to {GATE_FAULTS_MAX - 1}")
        p.faults[<Py_ssize_t>number] = _complete(f"faults[{number}]", given, fault, None)

    wide = {"scale": 1.0, "min": -INFINITY, "max": INFINITY}
    for i, given in enumerate(_rows(flat, "can_frames", CAN_FRAMES_MAX)):
        row = {**given, "len_max": given.get("len_max", 8)}
        p.can_frames[i] = _complete(f"can_frames[{i}]", row, can_frame, names)
    for i, given in enumerate(_rows(flat, "can_fields", CAN_FIELDS_MAX)):
        p.can_fields[i] = _complete(f"can_fields[{i}]", given, {**can_field, **wide, "point": -1}, names)
    for i, given in enumerate(_rows(spec, "can_tx", CAN_TX_MAX)):
        payload = bytes(given.get("data", b""))
        opening = bytes(given.get("open_data", b""))
        row = {"len": len(payload), **given, "data": list(payload.ljust(8, b"\0")), "open_data": list(opening.ljust(8, b"\0"))}
        p.can_tx[i] = _complete(f"can_tx[{i}]", row, {**can_tx, "unit": -1, "counter_start": -1, "pad": [0] * 4}, names)
    for i, given in enumerate(_rows(flat, "ports", PORTS_MAX)):
        row = _complete(f"ports[{i}]", given, {**port, "baud": 9600, "data_bits": 8, "stop_bits": 1, "parity": "N", "host": b""}, None)
        row["host"] = list(bytes(row["host"]).ljust(16, b"\0"))
        row["parity"] = ord(row["parity"]) if isinstance(row["parity"], str) else row["parity"]
        row["name"] = _text(f"ports[{i}].name", given.get("name", f"port{i}"), sizeof(port.name))
        p.ports[i] = row
    for i, given in enumerate(_rows(flat, "slaves", SLAVES_MAX)):
        p.slaves[i] = _complete(f"slaves[{i}]", given, {**slave, "device": -1, "timeout_ns": 100_000_000}, names)
    for i, given in enumerate(_rows(flat, "blocks", BLOCKS_MAX)):
        p.blocks[i] = _complete(f"blocks[{i}]", given, {**block, "function": 3}, names)
    for i, given in enumerate(_rows(flat, "fields", FIELDS_MAX)):
        p.fields[i] = _complete(f"fields[{i}]", given, {**field, **wide, "point": -1, "sf_point": -1}, names)
    defaults = {**command, "function": 16, "unit": -1, "sf_point": -1, "readback_point": -1, "scale": 1.0}
    for i, given in enumerate(_rows(flat, "commands", COMMANDS_MAX)):
        row = _complete(f"commands[{i}]", given, defaults, names)
        if "count" not in given:
            row["count"] = type_regs(row["type"]) if row["function"] in (16, 22, 23) else 1
        p.commands[i] = row
    for i, given in enumerate(_rows(flat, "command_parts", COMMAND_PARTS_MAX)):
        p.command_parts[i] = _complete(f"command_parts[{i}]", given, {**part, "sf_point": -1, "scale": 1.0}, names)
    p.n_command_parts = len(flat["command_parts"])
    p.n_can_frames, p.n_can_fields, p.n_can_tx = len(flat["can_frames"]), len(flat["can_fields"]), len(spec.get("can_tx", []))
    p.n_ports, p.n_slaves, p.n_blocks = len(flat["ports"]), len(flat["slaves"]), len(flat["blocks"])
    p.n_fields, p.n_commands = len(flat["fields"]), len(flat["commands"])

    described = dict(spec.get("describe", {}))
    described.setdefault("points", [{"name": row["name"], "unit": row.get("unit", ""), "device": row.get("device", -1)}
                                    for row in rows])
    text = json.dumps(described, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    p.describe_size = len(text)
    hash_end = <char*>&p.sha256[0] - <char*>p + sizeof(p.sha256)
    whole = bytes(blob) + text
    whole = whole[:hash_end - 32] + hashlib.sha256(whole[hash_end:]).digest() + whole[hash_end:]
    problems = check(whole)
    if problems:
        raise ValueError("; ".join(problems))
    return whole


# -------------------------------------------------------------------------------------- Python: reading one again

def check(blob: bytes) -> list[str]:
    """What is wrong with a program, empty when the core may run it: magic, versions, sizes, hash, every index."""
    cdef:
        bytes held = bytes(blob)
        const program_t* p = <const program_t*>PyBytes_AS_STRING(held)
        int code = program_check(p, PyBytes_GET_SIZE(held))
    why = code & 0xFF
    if why:
        expected = ""
        if why in (BAD_SHORT, BAD_SIZE):
            expected = f" ({len(held)} bytes; this build has {SIZE} and the describe text)"
        elif why == BAD_LAYOUT:
            expected = f" (version {p.layout_version}; this build reads {LAYOUT_VERSION}: compile the site again)"
        return [f"program: {_WHY[why]}{expected}" + (f", row {code >> 8}" if why >= BAD_COUNT else "")]
    if hashlib.sha256(held[_hash_end():]).digest() != held[_hash_end() - 32:_hash_end()]:
        return ["program: the hash does not fit the content; compile the site again"]
    return []


def _hash_end():
    cdef program_t* p = NULL
    return <size_t>(<char*>&p.sha256[0] - <char*>p) + sizeof(p.sha256)


def check_code_text(int code) -> str:
    """The sentence for what program_check returned; empty for 0."""
    return f"{_WHY[code & 0xFF]}, row {code >> 8}" if code else ""


def sha256(blob: bytes) -> str:
    """The program's hash as it stands in every snapshot, 64 hex digits. The program must have passed check()."""
    return bytes(blob[_hash_end() - 32:_hash_end()]).hex()


def describe(blob: bytes) -> dict:
    """What the program says about itself to people and to the gateway: site, devices, points, ports, units.

    Raises ValueError for a blob that does not pass check().
    """
    problems = check(blob)
    if problems:
        raise ValueError("; ".join(problems))
    found = json.loads(bytes(blob[SIZE:]))
    found["sha256"] = sha256(blob)
    return found


def rows(blob: bytes) -> dict:
    """All used rows of a program as dicts, flat, with the field names of the structs; text fields as str.

    Raises ValueError for a blob that does not pass check().
    """
    problems = check(blob)
    if problems:
        raise ValueError("; ".join(problems))
    cdef:
        bytes held = bytes(blob)
        const program_t* p = <const program_t*>PyBytes_AS_STRING(held)
        Py_ssize_t i

    def plain(row, *text):
        return {**row, **{key: bytes(row[key]).split(b"\0")[0].decode() for key in text}}

    return {
        "period_ns": p.period_ns, "snapshot_every": p.snapshot_every, "n_can_buses": p.n_can_buses,
        "inputs": [dict(p.inputs[i]) for i in range(<Py_ssize_t>p.n_inputs)],
        "site": dict(p.site), "control": dict(p.control),
        "units": [plain(dict(p.units[i]), "name") for i in range(<Py_ssize_t>p.n_units)],
        "bank_rows": [dict(p.bank_rows[i]) for i in range(<Py_ssize_t>p.n_bank_rows)],
        "faults": [dict(p.faults[i]) for i in range(GATE_FAULTS_MAX)],
        "points": [plain(dict(p.points[i]), "name", "unit") for i in range(<Py_ssize_t>p.n_points)],
        "can_frames": [dict(p.can_frames[i]) for i in range(<Py_ssize_t>p.n_can_frames)],
        "can_fields": [dict(p.can_fields[i]) for i in range(<Py_ssize_t>p.n_can_fields)],
        "can_tx": [{**p.can_tx[i], "data": bytes([p.can_tx[i].data[k] for k in range(8)])} for i in range(<Py_ssize_t>p.n_can_tx)],
        "ports": [plain({**p.ports[i], "parity": chr(p.ports[i].parity), "host": bytes(p.ports[i].host[:16])}, "name") for i in range(<Py_ssize_t>p.n_ports)],
        "slaves": [dict(p.slaves[i]) for i in range(<Py_ssize_t>p.n_slaves)],
        "blocks": [dict(p.blocks[i]) for i in range(<Py_ssize_t>p.n_blocks)],
        "fields": [dict(p.fields[i]) for i in range(<Py_ssize_t>p.n_fields)],
        "commands": [dict(p.commands[i]) for i in range(<Py_ssize_t>p.n_commands)],
        "command_parts": [dict(p.command_parts[i]) for i in range(<Py_ssize_t>p.n_command_parts)],
    }
