"""The owner's file of an island's devices: what of a genset's controller and of PV inverters may be written.

The file is the allow-list: what has no table in it is never written.
"""

import math
import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from tidegate.runtime.tools.modbus_register import (
    BITS,
    LINE_KEYS,
    WORDS,
    WRITABLE,
    Register,
    RegisterError,
    register_of,
)

NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
WORD_MAX = 65_535
READABLE = (*BITS, *WORDS)
STEP_SHARE = 0.02  # of an inverter's nameplate: PV limits are whole steps of it
KEEP, RELEASE = "keep", "release"


class IslandFileError(Exception):
    """An owner's file is wrong: where, what, and the remedy."""


@dataclass(frozen=True)
class Start:
    """The remote start of a controller: what is written to start and to stop, word after word from the register on.

    reads_back: the register holds what was written; False for one that takes a command and forgets it.
    """

    at: Register
    on: tuple[int, ...]
    off: tuple[int, ...]
    reads_back: bool

    def each(self) -> tuple[Register, ...]:
        """A register for each word, as it stands there."""
        words = range(len(self.on))
        return tuple(replace(self.at, register=self.at.register + k, type="uint16", scale=1.0) for k in words)


@dataclass(frozen=True)
class Genset:
    """running is so above `above`. without_word: "keep" or "release" the start when nobody says any more what to do."""

    start: Start
    running: Register
    above: float
    start_s: float
    stop_s: float
    run_s_min: float
    off_s_min: float
    back_s: float
    starts_per_day_max: int
    without_word: str


@dataclass(frozen=True)
class Inverter:
    """w_per_unit: of what the limit's register holds. safe_w: without a word of the site; None = the owner's own."""

    name: str
    nameplate_w: float
    limit: Register
    w_per_unit: float
    enable: Register | None
    enable_on: int
    power: Register
    limit_w_min: float
    limit_w_max: float
    safe_w: float | None

    @property
    def step_w(self) -> float:
        """The step that limits are whole multiples of: STEP_SHARE, in whole counts of the register."""
        step_w, count_w = self.nameplate_w * STEP_SHARE, self.limit.resolution * self.w_per_unit
        return math.ceil(step_w / count_w - 1e-9) * count_w if count_w else step_w

    @property
    def same_w(self) -> float:
        """Two limits that are no further apart are one."""
        return max(self.limit.resolution * self.w_per_unit * 0.51, self.nameplate_w * 1e-4)


@dataclass(frozen=True)
class IslandFile:
    """What the owner wrote; times in s. rewrite_s: a limit that stands is written again so often; 0 = never."""

    name: str
    silent_s: float
    ask_s: float
    genset: Genset | None
    inverters: tuple[Inverter, ...]
    back_s: float
    raise_s: float
    answer_s: float
    raises_per_hour_max: int
    rewrite_s: float

    @property
    def registers(self) -> tuple[Register, ...]:
        """All of them."""
        genset = () if self.genset is None else (self.genset.start.at, self.genset.running)
        return (*genset, *(at for one in self.inverters for at in (one.limit, one.power, one.enable) if at is not None))

    @property
    def round_s_max(self) -> float:
        """How long one round may take when nothing answers: each line is waited for once, twice asked."""
        return 10.0 + 2.0 * self.ask_s * (2 + len(self.inverters))


class _Table:
    """A table of the file whose keys are taken one after the other; what is left over is foreign."""

    def __init__(self, where: str, row: object) -> None:
        if not isinstance(row, dict):
            raise IslandFileError(f"{where}: is missing or no table")
        self.where, self._row = where, dict(row)

    def number(self, key: str, default: float | None, least: float, most: float) -> float:
        value = self._row.pop(key, default)
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not good or not least <= value <= most:
            raise IslandFileError(f"{self.where}: {key} = {value!r}: write a number from {least:g} to {most:g}")
        return float(value)

    def whole(self, key: str, default: int | None, least: int, most: int) -> int:
        value = self.number(key, default, least, most)
        if value != int(value):
            raise IslandFileError(f"{self.where}: {key} = {value:g}: write a whole number")
        return int(value)

    def word(self, key: str, default: str | None, allowed: tuple[str, ...]) -> str:
        value = self._row.pop(key, default)
        if value not in allowed:
            raise IslandFileError(f"{self.where}: {key} = {value!r}: write {' or '.join(allowed)}")
        return str(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._row.pop(key, default)
        if not isinstance(value, bool):
            raise IslandFileError(f"{self.where}: {key} = {value!r}: write true or false")
        return value

    def name(self, key: str, default: str | None) -> str:
        value = self._row.pop(key, default)
        if not isinstance(value, str) or not NAME.fullmatch(value):
            raise IslandFileError(f"{self.where}: {key} = {value!r}: write 1 to 32 of a to z, A to Z, 0 to 9, _ and -")
        return value

    def words(self, key: str, default: int | None) -> tuple[int, ...]:
        value = self._row.pop(key, default)
        found = value if isinstance(value, list) else [value]
        if not 1 <= len(found) <= 8 or not all(
            isinstance(one, int) and not isinstance(one, bool) and 0 <= one <= WORD_MAX for one in found
        ):
            raise IslandFileError(
                f"{self.where}: {key} = {value!r}: write the words, from 0 to {WORD_MAX}, at most eight"
            )
        return tuple(found)

    def line(self, default: dict[str, object]) -> dict[str, object]:
        own = {key: self._row.pop(key) for key in LINE_KEYS if key in self._row}
        other = ("serial",) if "host" in own else ("host", "port") if "serial" in own else ()
        return {**{key: value for key, value in default.items() if key not in other}, **own}

    def has(self, key: str) -> bool:
        return key in self._row

    def table(self, key: str) -> "_Table":
        return _Table(f"{self.where[:-1]}.{key}]", self._row.pop(key, None))

    def register(self, default: dict[str, object], kinds: tuple[str, ...]) -> Register:
        """What is left of the table is a register."""
        row, self._row = self._row, {}
        try:
            return register_of(self.where, row, default, Register, kinds=kinds)
        except RegisterError as why:
            raise IslandFileError(str(why)) from None

    def end(self) -> None:
        if self._row:
            raise IslandFileError(f"{self.where}: {min(self._row)} is no key here")


def read_island_file(path: Path) -> IslandFile:
    """Raises IslandFileError with file, place and remedy."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as why:
        raise IslandFileError(f"{path}: {why}") from None
    if foreign := sorted(set(tables) - {"unit", "genset", "pv"}):
        raise IslandFileError(f"{path}: [{foreign[0]}] is no table of an island's devices; there are unit, genset, pv")
    unit = _Table(f"{path}: [unit]", tables.get("unit"))
    rows = tables.get("pv", [])
    if not isinstance(rows, list):
        raise IslandFileError(f"{path}: [pv]: write [[pv]], once for each inverter")
    line = unit.line({})
    inverters = tuple(_inverter(_Table(f"{path}: [pv {k + 1}]", row), line) for k, row in enumerate(rows))
    genset = _genset(_Table(f"{path}: [genset]", tables["genset"]), line) if "genset" in tables else None
    if genset is None and not inverters:
        raise IslandFileError(f"{path}: neither [genset] nor [[pv]]: nothing may be written; add one")
    names = [one.name for one in inverters]
    if len(set(names)) < len(names):
        raise IslandFileError(f"{path}: [[pv]]: two have one name; each needs its own")
    made = IslandFile(
        name=unit.name("name", None), silent_s=unit.number("silent_s", 5.0, 1, 3600),
        ask_s=unit.number("ask_s", 1.0, 0.05, 10), genset=genset, inverters=inverters,
        back_s=unit.number("back_s", 30.0, 1, 3600), raise_s=unit.number("raise_s", 10.0, 1, 3600),
        answer_s=unit.number("answer_s", 30.0, 1, 3600),
        raises_per_hour_max=unit.whole("raises_per_hour_max", 120, 1, 3600),
        rewrite_s=unit.number("rewrite_s", 0.0, 0, 3600),
    )  # fmt: skip
    unit.end()
    return made


def _genset(table: _Table, default: dict[str, object]) -> Genset:
    line = table.line(default)
    start, running = table.table("start"), table.table("running")
    on, off = start.words("on", 1), start.words("off", 0)
    reads_back = start.flag("reads_back", True)
    at = start.register(line, WRITABLE)
    where = start.where
    if at.kind == "coil" and (on, off) not in (((1,), (0,)), ((0,), (1,))):
        raise IslandFileError(f"{where}: on and off of a coil are 1 and 0")
    if len(on) != len(off) or on == off:
        raise IslandFileError(f"{where}: on = {list(on)}, off = {list(off)}: as many words, and other ones")
    above = running.number("above", 0.5, -1e9, 1e9)
    made = Genset(
        start=Start(at, on, off, reads_back), running=running.register(line, READABLE), above=above,
        start_s=table.number("start_s", 60.0, 1, 3600), stop_s=table.number("stop_s", 600.0, 1, 7200),
        run_s_min=table.number("run_s_min", 600.0, 0, 86_400), off_s_min=table.number("off_s_min", 60.0, 0, 86_400),
        back_s=table.number("back_s", 30.0, 1, 3600),
        starts_per_day_max=table.whole("starts_per_day_max", 24, 1, 1000),
        without_word=table.word("without_word", KEEP, (KEEP, RELEASE)),
    )  # fmt: skip
    table.end()
    return made


def _inverter(table: _Table, default: dict[str, object]) -> Inverter:
    line = table.line(default)
    name = table.name("name", None)
    nameplate_w = table.number("nameplate_w", None, 1, 1e8)
    limit, power = table.table("limit"), table.table("power")
    w_per_unit = 1.0 if limit.word("unit_of", None, ("W", "percent")) == "W" else nameplate_w / 100.0
    enable, enable_on = None, 1
    if table.has("enable"):
        row = table.table("enable")
        enable_on = row.whole("on", 1, 0, WORD_MAX)
        enable = row.register(line, WRITABLE)
    at = limit.register(line, ("holding",))
    made = Inverter(
        name=name, nameplate_w=nameplate_w, limit=at, w_per_unit=w_per_unit, enable=enable, enable_on=enable_on,
        power=power.register(line, WORDS), limit_w_min=table.number("limit_w_min", 0.0, 0, nameplate_w),
        limit_w_max=table.number("limit_w_max", nameplate_w, 0, nameplate_w),
        safe_w=table.number("safe_w", None, 0, nameplate_w) if table.has("safe_w") else None,
    )  # fmt: skip
    table.end()
    if made.limit_w_min > made.limit_w_max:
        raise IslandFileError(f"{table.where}: limit_w_min is above limit_w_max; lower it")
    return made
