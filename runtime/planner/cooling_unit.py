"""A cooling unit by Modbus: what is read, the one register that is written, and its owner's file, which allows it.

The file is the allow-list: without setpoint_min_c and setpoint_max_c nothing is written, ever.
"""

import contextlib
import math
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tidegate.runtime.planner.cooling_plan import RATE_C_PER_H_MAX, InletBand, check_band
from tidegate.runtime.planner.plan_inputs import PlanError
from tidegate.runtime.tools.modbus_register import LINE_KEYS, Lines, Register, RegisterError, register_of

AWAY_C_MAX = 4.0  # of the owner's own set-point: back at once is then within what an inlet may do in a quarter hour
NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
READINGS = ("cooling", "it", "outdoor")


class CoolingError(Exception):
    """A unit did not answer or refused, or its file is wrong: which, what was asked, what to do."""


@dataclass(frozen=True)
class CoolingRegister(Register):
    """In C or kW. offset_c: of an inlet, less the set-point."""

    offset_c: float = 0.0


@dataclass(frozen=True)
class CoolingFile:
    """What the owner wrote. inlets: each where a rack draws its air. setpoint_band: None = advice only."""

    name: str
    kind: str
    band: InletBand
    setpoint: CoolingRegister
    inlets: tuple[CoolingRegister, ...]
    cooling: CoolingRegister
    it: CoolingRegister
    outdoor: CoolingRegister
    setpoint_band: tuple[float, float] | None
    step_c: float
    writes_per_day_max: int
    beyond: str  # in words, what of the band is not recommended

    @property
    def registers(self) -> tuple[Register, ...]:
        """All of them."""
        return (self.setpoint, *self.inlets, self.cooling, self.it, self.outdoor)


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


def _register(path: Path, place: str, row: object, default: dict[str, object]) -> CoolingRegister:
    try:
        return register_of(f"{path}: [{place}]", row, default, CoolingRegister)
    except RegisterError as why:
        raise CoolingError(str(why)) from None


def read_cooling_file(path: Path) -> CoolingFile:
    """Raises CoolingError with file, place and remedy."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as why:
        raise CoolingError(f"{path}: {why}") from None
    unit = tables.get("unit")
    if not isinstance(unit, dict):
        raise CoolingError(f"{path}: no [unit]: give name, host or serial, class and the inlet's band")
    if foreign := sorted(set(tables) - {"unit", "setpoint", "inlet", *READINGS}):
        raise CoolingError(f"{path}: [{foreign[0]}] is no table of a cooling unit")
    numbers = {"rate_c_per_h": 2.0, "step_c": 0.5, "writes_per_day_max": 24}
    wanted = ("inlet_min_c", "inlet_max_c")
    optional = ("setpoint_min_c", "setpoint_max_c")
    known = {"name", *LINE_KEYS, "class", *wanted, *optional, *numbers}
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
    default = {key: unit[key] for key in LINE_KEYS if key in unit}
    rows = tables.get("inlet")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) and "offset_c" in row for row in rows):
        raise CoolingError(f"{path}: no [[inlet]] with its offset_c: the temperature that you measured there by hand, "
                           "less the set-point of then")  # fmt: skip
    one = {place: _register(path, place, tables.get(place), default) for place in ("setpoint", *READINGS)}
    if one["setpoint"].kind != "holding":
        raise CoolingError(f"{path}: [setpoint]: kind = 'input' cannot be written; write holding")
    if values["step_c"] < one["setpoint"].resolution:
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
    """A unit by Modbus TCP or RTU. Each round opens its connections and closes them: nothing of ours holds the line."""

    def __init__(self, file: CoolingFile) -> None:
        self.file = file

    def read(self) -> Reading:
        """All of it, once."""
        file = self.file
        with _asked() as lines:
            return Reading(
                lines.read(file.setpoint), tuple(lines.read(one) for one in file.inlets), lines.read(file.cooling),
                lines.read(file.it), lines.read(file.outdoor),
            )  # fmt: skip

    def setpoint(self) -> float:
        """The set-point alone, for who puts it back while a sensor does not answer."""
        with _asked() as lines:
            return lines.read(self.file.setpoint)

    def write(self, setpoint_c: float) -> None:
        """Write the set-point and read it back."""
        at = self.file.setpoint
        with _asked() as lines:
            lines.write(at, setpoint_c)
            after = lines.read(at)
        if not abs(after - setpoint_c) <= same_c(self.file):
            raise CoolingError(f"{at.place}: {setpoint_c:g} C were written, {after:g} C stand there")


@contextlib.contextmanager
def _asked() -> Iterator[Lines]:
    try:
        with Lines() as lines:
            yield lines
    except RegisterError as why:
        raise CoolingError(str(why)) from None


def same_c(file: CoolingFile) -> float:
    """Two set-points that are no further apart are one: half of what the register can show, or 0.05 C."""
    return max(0.05, file.setpoint.resolution * 0.51)
