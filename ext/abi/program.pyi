"""The compiled site: packs plain rows into the flat program that the core runs, and checks one before it is run."""

from collections.abc import Mapping
from typing import TypedDict

MAGIC: int
LAYOUT_VERSION: int
SIZE: int  # bytes of program_t; the describe JSON follows
LIMITS: dict[str, int]
FIELD_TYPES: dict[str, int]
FIELD_FLAGS: dict[str, int]
CAN_FRAME_FLAGS: dict[str, int]
CAN_FIELD_FLAGS: dict[str, int]
COMMAND_KINDS: dict[str, int]
COMMAND_FLAGS: dict[str, int]
BATTERY_POWERS: dict[str, int]
PARTS_OF: dict[str, int]
POLL_CLASSES: dict[str, int]
GAP_RULES: dict[str, int]
TRANSPORTS: dict[str, int]

CONTROL_FIELDS: tuple[str, ...]  # of control_params_t in this build
GATE_FIELDS: tuple[str, ...]  # of gate_limits_t

# Rows as `rows` gives them: the structs of program.h. These names are for type checkers only.

class SiteRow(TypedDict):
    grid_w: int
    grid_w_l: list[int]
    pv_w: int
    circuit_w: list[int]
    grid_import_wh: int
    grid_export_wh: int
    grid_v: list[int]
    grid_a: list[int]
    genset_w: int
    genset_hz: int
    island: int

class UnitRow(TypedDict):
    name: str
    energy_wh: float
    soc: int
    pcs_w: int
    pcs_state: int
    pcs_revert_s: int
    connected: int
    revert_measured_s: float
    gate: dict[str, int]

class BankRow(TypedDict):
    unit: int
    connected: int
    soc: int
    pack_a: int

class PointRow(TypedDict):
    name: str
    unit: str
    device: int
    age_max_ns: int

class CanFrameRow(TypedDict):
    id: int
    bus: int
    len_min: int
    len_max: int
    flags: int
    field_first: int
    field_count: int
    mux_start: int
    mux_length: int
    mux_big_endian: int
    counter_start: int
    counter_length: int
    counter_big_endian: int
    crc_kind: int
    crc_byte: int
    period_ns: int

class CanFieldRow(TypedDict):
    point: int
    start: int
    length: int
    big_endian: int
    is_signed: int
    flags: int
    mux_value: int
    mask: int
    scale: float
    offset: float
    min: float
    max: float
    sentinel: int

class CanTxRow(TypedDict):
    id: int
    bus: int
    kind: int
    unit: int
    data: bytes
    period_ns: int
    counter_start: int
    counter_length: int

class PortRow(TypedDict):
    name: str
    baud: int
    data_bits: int
    stop_bits: int
    parity: str
    gap_rule: int
    gap_ns: int
    slave_first: int
    slave_count: int
    flags: int

class SlaveRow(TypedDict):
    port: int
    unit_id: int
    device: int
    timeout_ns: int
    turnaround_ns: int
    block_first: int
    block_count: int
    command_first: int
    command_count: int

class BlockRow(TypedDict):
    slave: int
    function: int
    poll_class: int
    address: int
    count: int
    period_ns: int
    field_first: int
    field_count: int
    signature: int
    signature_word: int

class FieldRow(TypedDict):
    point: int
    offset: int
    type: int
    flags: int
    bit_first: int
    bit_count: int
    sf_point: int
    optional: int
    others: int
    scale: float
    offset_value: float
    min: float
    max: float
    sentinel: int

class CommandRow(TypedDict):
    slave: int
    function: int
    kind: int
    address: int
    count: int
    type: int
    flags: int
    unit: int
    sf_point: int
    readback_point: int
    scale: float
    value: float
    resend_ns: int
    pause_ns: int
    part_first: int
    part_count: int

class CommandPart(TypedDict):
    offset: int
    type: int
    flags: int
    of: int
    sf_point: int
    scale: float
    value: float
    charge: float
    discharge: float

class InputRow(TypedDict):
    point: int
    what: int
    import_w_max: float

class Rows(TypedDict):
    inputs: list[InputRow]
    period_ns: int
    snapshot_every: int
    n_can_buses: int
    site: SiteRow
    control: dict[str, float]
    units: list[UnitRow]
    bank_rows: list[BankRow]
    faults: list[dict[str, int]]
    points: list[PointRow]
    can_frames: list[CanFrameRow]
    can_fields: list[CanFieldRow]
    can_tx: list[CanTxRow]
    ports: list[PortRow]
    slaves: list[SlaveRow]
    blocks: list[BlockRow]
    fields: list[FieldRow]
    commands: list[CommandRow]
    command_parts: list[CommandPart]

def standard_points(n_units: int) -> list[tuple[str, str]]: ...
def pack(spec: Mapping[str, object]) -> bytes: ...
def check(blob: bytes) -> list[str]: ...
def check_code_text(code: int) -> str: ...
def sha256(blob: bytes) -> str: ...
def describe(blob: bytes) -> dict[str, object]: ...
def rows(blob: bytes) -> Rows: ...
