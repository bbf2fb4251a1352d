"""A cooling unit by Modbus TCP: what is read, the one register that is written, and its owner's file, which allows it.

The file is the allow-list: without setpoint_min_c and setpoint_max_c nothing is written, ever.
"""

import math
import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, Protocol

from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

from tidegate.runtime.planner.cooling_plan import RATE_C_PER_H_MAX, InletBand, check_band
from tidegate.runtime.planner.plan_inputs import PlanError

ASK_S = 3.0
AWAY_C_MAX = 4.0  # of the owner's own set-point: back at once is then within what an inlet may do in a quarter hour
TYPES = {name: ModbusTcpClient.DATATYPE[name.upper()] for name in ("int16", "uint16", "int32", "uint32", "float32")}
KINDS = ("holding", "input")
NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
READINGS = ("cooling", "it", "outdoor")


class CoolingError(Exception):
    """A unit did not answer or refused, or its file is wrong: which, what was asked, what to do."""


@dataclass(frozen=True)
class Register:
    """Where one value stands. scale: value of one count, in C or kW. offset_c: of an inlet, less the set-point."""

    register: int
    host: str
    port: int = 502
    unit: int = 1
    kind: str = "holding"
    type: str = "int16"
    words: str = "big"
    scale: float = 1.0
    offset_c: float = 0.0


@dataclass(frozen=True)
class CoolingFile:
    """What the owner wrote. inlets: each where a rack draws its air. setpoint_band: None = advice only."""

    name: str
    kind: str
    band: InletBand
    setpoint: Register
    inlets: tuple[Register, ...]
    cooling: Register
    it: Register
    outdoor: Register
    setpoint_band: tuple[float, float] | None
    step_c: float
    writes_per_day_max: int
    beyond: str  # in words, what of the band is not recommended


@dataclass(frozen=True)
class Reading:
    """What a unit reads now, C and kW; inlets in the order of the file."""

    setpoint_c: float
    inlets_c: tuple[float, ...]
    cooling_kw: float
    it_kw: float
    outdoor_c: float


class CoolingUnit(Protocol):
    """What is asked of a unit. Both raise CoolingError."""

    def read(self) -> Reading: ...
    def write(self, setpoint_c: float) -> None: ...


def _register(path: Path, place: str, row: object, default: dict[str, object]) -> Register:
    known = {one.name for one in fields(Register)}
    if not isinstance(row, dict):
        raise CoolingError(f"{path}: [{place}]: is missing; give at least its register")
    if foreign := sorted(set(row) - known):
        raise CoolingError(f"{path}: [{place}]: {foreign[0]} is no key of a register")
    try:
        made = Register(**{**default, **row})
    except TypeError as why:
        raise CoolingError(f"{path}: [{place}]: {why}") from None
    whole = (("register", 0, 65_535), ("port", 1, 65_535), ("unit", 0, 255))
    for key, least, most in whole:
        value = getattr(made, key)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise CoolingError(f"{path}: [{place}]: {key} = {value!r}: write a whole number from {least} to {most}")
    for key, allowed in (("kind", KINDS), ("type", tuple(TYPES)), ("words", ("big", "little"))):
        if getattr(made, key) not in allowed:
            raise CoolingError(f"{path}: [{place}]: {key} = {getattr(made, key)!r}: write {', '.join(allowed)}")
    if not isinstance(made.host, str) or not made.host:
        raise CoolingError(f"{path}: [{place}]: no host, here or in [unit]")
    for key in ("scale", "offset_c"):
        value = getattr(made, key)
        if not isinstance(value, int | float) or not math.isfinite(value) or (key == "scale" and not value):
            raise CoolingError(f"{path}: [{place}]: {key} = {value!r}: write a number")
    return made


def read_cooling_file(path: Path) -> CoolingFile:
    """Raises CoolingError with file, place and remedy."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as why:
        raise CoolingError(f"{path}: {why}") from None
    unit = tables.get("unit")
    if not isinstance(unit, dict):
        raise CoolingError(f"{path}: no [unit]: give name, host, class and the inlet's band")
    if foreign := sorted(set(tables) - {"unit", "setpoint", "inlet", *READINGS}):
        raise CoolingError(f"{path}: [{foreign[0]}] is no table of a cooling unit")
    numbers = {"rate_c_per_h": 2.0, "step_c": 0.5, "writes_per_day_max": 24}
    wanted = ("inlet_min_c", "inlet_max_c")
    optional = ("setpoint_min_c", "setpoint_max_c")
    known = {"name", "host", "port", "unit", "class", *wanted, *optional, *numbers}
    if foreign := sorted(set(unit) - known):
        raise CoolingError(f"{path}: [unit]: {foreign[0]} is no key of a unit")
    values: dict[str, float] = {}
    for key in (*wanted, *optional, *numbers):
        value = unit.get(key, numbers.get(key))
        if value is None and key in optional:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise CoolingError(f"{path}: [unit]: {key} = {value!r}: write a number")
        values[key] = float(value)
    try:
        beyond = check_band(str(unit.get("class")), values["inlet_min_c"], values["inlet_max_c"])
    except PlanError as why:
        raise CoolingError(f"{path}: [unit]: {why}") from None
    if not 0 < values["rate_c_per_h"] <= RATE_C_PER_H_MAX:
        raise CoolingError(f"{path}: [unit]: rate_c_per_h: above 0, at most {RATE_C_PER_H_MAX:g}")
    if not (0.1 <= values["step_c"] <= 1.0 and values["writes_per_day_max"] >= 0):
        raise CoolingError(f"{path}: [unit]: step_c from 0.1 to 1, writes_per_day_max 0 or more")
    band = None
    if given := [key for key in optional if key in values]:
        if len(given) == 1 or values[optional[0]] >= values[optional[1]]:
            raise CoolingError(
                f"{path}: [unit]: give both, setpoint_min_c below setpoint_max_c, or neither: advice only"
            )
        band = (values[optional[0]], values[optional[1]])
    name = unit.get("name", "cooling")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise CoolingError(f"{path}: [unit]: name = {name!r}: write 1 to 32 of a to z, A to Z, 0 to 9, _ and -, "
                           "another for each unit: its files have that name")  # fmt: skip
    default = {key: unit[key] for key in ("host", "port", "unit") if key in unit}
    rows = tables.get("inlet")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) and "offset_c" in row for row in rows):
        raise CoolingError(f"{path}: no [[inlet]] with its offset_c: the temperature that you measured there by hand, "
                           "less the set-point of then")  # fmt: skip
    one = {place: _register(path, place, tables.get(place), default) for place in ("setpoint", *READINGS)}
    if one["setpoint"].kind != "holding":
        raise CoolingError(f"{path}: [setpoint]: kind = 'input' cannot be written; write holding")
    if one["setpoint"].type != "float32" and values["step_c"] < abs(one["setpoint"].scale):
        shows = f"{one['setpoint'].scale:g} C that [setpoint] can show"
        raise CoolingError(
            f"{path}: [unit]: step_c = {values['step_c']:g} is less than the {shows}; write that at least"
        )
    return CoolingFile(
        name=name, kind=str(unit["class"]),
        band=InletBand(values["inlet_min_c"], values["inlet_max_c"], values["rate_c_per_h"]),
        setpoint=one["setpoint"], inlets=tuple(_register(path, "inlet", row, default) for row in rows),
        cooling=one["cooling"], it=one["it"], outdoor=one["outdoor"], setpoint_band=band, step_c=values["step_c"],
        writes_per_day_max=int(values["writes_per_day_max"]), beyond=beyond,
    )  # fmt: skip


class ModbusCooling:
    """A unit by Modbus TCP. Each round opens its connections and closes them: nothing of ours holds the line."""

    def __init__(self, file: CoolingFile) -> None:
        self.file = file

    def _client(self, at: Register, kept: dict[tuple[str, int], ModbusTcpClient]) -> ModbusTcpClient:
        key = (at.host, at.port)
        if key not in kept:
            kept[key] = ModbusTcpClient(at.host, port=at.port, timeout=ASK_S, retries=1)
            if not kept[key].connect():
                raise CoolingError(f"{at.host}:{at.port}: no connection")
        return kept[key]

    def _value(self, at: Register, kept: dict[tuple[str, int], ModbusTcpClient]) -> float:
        client = self._client(at, kept)
        kind = TYPES[at.type]
        ask = client.read_holding_registers if at.kind == "holding" else client.read_input_registers
        try:
            answer = ask(at.register, count=kind.value[1], device_id=at.unit)
            if answer.isError() or len(answer.registers) != kind.value[1]:
                raise CoolingError(f"{_where(at)}: {answer}")
            counts = client.convert_from_registers(answer.registers, kind, word_order=_order(at))
        except ModbusException as why:
            raise CoolingError(f"{_where(at)}: {why}") from None
        return float(counts) * at.scale if isinstance(counts, int | float) else math.nan

    def read(self) -> Reading:
        """All of it, once."""
        kept: dict[tuple[str, int], ModbusTcpClient] = {}
        file = self.file
        try:
            return Reading(
                self._value(file.setpoint, kept), tuple(self._value(one, kept) for one in file.inlets),
                self._value(file.cooling, kept), self._value(file.it, kept), self._value(file.outdoor, kept),
            )  # fmt: skip
        finally:
            for client in kept.values():
                client.close()

    def setpoint(self) -> float:
        """The set-point alone, for who puts it back while a sensor does not answer."""
        kept: dict[tuple[str, int], ModbusTcpClient] = {}
        try:
            return self._value(self.file.setpoint, kept)
        finally:
            for client in kept.values():
                client.close()

    def write(self, setpoint_c: float) -> None:
        """Write the set-point and read it back."""
        at = self.file.setpoint
        kept: dict[tuple[str, int], ModbusTcpClient] = {}
        try:
            client = self._client(at, kept)
            kind = TYPES[at.type]
            counts: int | float = setpoint_c / at.scale
            if at.type != "float32":
                counts = round(counts)
            words = client.convert_to_registers(counts, kind, word_order=_order(at))
            if len(words) == 1:
                answer = client.write_register(at.register, words[0], device_id=at.unit)
            else:
                answer = client.write_registers(at.register, words, device_id=at.unit)
            if answer.isError():
                raise CoolingError(f"{_where(at)}: {setpoint_c:g} C was refused: {answer}")
            after = self._value(at, kept)
        except ModbusException as why:
            raise CoolingError(f"{_where(at)}: {setpoint_c:g} C: {why}") from None
        finally:
            for client in kept.values():
                client.close()
        if not abs(after - setpoint_c) <= same_c(self.file):
            raise CoolingError(f"{_where(at)}: {setpoint_c:g} C were written, {after:g} C stand there")


def same_c(file: CoolingFile) -> float:
    """Two set-points that are no further apart are one: half of what the register can show, or 0.05 C."""
    counts = abs(file.setpoint.scale) if file.setpoint.type != "float32" else 0.0
    return max(0.05, counts * 0.51)


def _order(at: Register) -> Literal["big", "little"]:
    return "big" if at.words == "big" else "little"


def _where(at: Register) -> str:
    return f"{at.host}:{at.port} unit {at.unit} {at.kind} register {at.register}"
