"""The compiled site: packs plain rows into the flat program that the core runs, and checks one before it is run."""

from typing import Any

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
POLL_CLASSES: dict[str, int]
GAP_RULES: dict[str, int]

CONTROL_FIELDS: tuple[str, ...]  # of control_params_t in this build
GATE_FIELDS: tuple[str, ...]  # of gate_limits_t

def standard_points(n_units: int) -> list[tuple[str, str]]: ...
def pack(spec: dict[str, Any]) -> bytes: ...
def check(blob: bytes) -> list[str]: ...
def check_code_text(code: int) -> str: ...
def sha256(blob: bytes) -> str: ...
def describe(blob: bytes) -> dict[str, Any]: ...
def rows(blob: bytes) -> dict[str, Any]: ...
