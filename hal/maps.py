"""Device maps: data that says where a device keeps its signals, and with what scale, sign and range.

A map is a TOML file in devices/ (docs/device-maps.md has every key). `load_map` gives it checked and resolved: dialect
options applied, SunSpec fields looked up by model number, DBC signals read through cantools. Everything that is wrong
with a map is found at once and raised as one MapError.
"""

import copy
import re
import tomllib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tidegate.hal import sunspec
from tidegate.hal.vocabulary import required, signals, unit_endings, unit_of

REGISTER_TYPES = ("u16", "s16", "u32", "s32", "u64", "s64", "f32", "f64", "sunssf", "bits")
WORDS = {"u32": 2, "s32": 2, "f32": 2, "u64": 4, "s64": 4, "f64": 4}

# What a positive reading means; these count negative inside.
NEGATIVE_INSIDE = ("export", "charge", "consumption")

RegisterType = Literal["u16", "s16", "u32", "s32", "u64", "s64", "f32", "f64", "sunssf", "bits"]
Positive = Literal["import", "export", "discharge", "charge", "generation", "consumption"]
Poll = Literal["fast", "slow", "once"]
Range = tuple[float, float]
Address = Annotated[int, Field(ge=0, le=65535)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=31)]


class MapError(ValueError):
    """A map that cannot be used; `problems` lists everything that is wrong with it."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class Strict(BaseModel):
    """Unknown keys are refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Head(Strict):
    """What the map is for and where it comes from."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    protocol: Literal["modbus", "sunspec", "can"]
    kind: Literal["bms", "pcs", "meter"]
    title: str
    source: str
    extends: str = ""
    drop: tuple[int, ...] = ()  # ids of frames of the extended map that this device does not send
    options: dict[str, str] = {}
    doubts: tuple[str, ...] = ()


class ModbusHead(Strict):
    """How the device wants to be read."""

    function: Literal[1, 2, 3, 4] = 3
    write_function: Literal[6, 16] = 16
    word_order: Literal["high-first", "low-first"] = "high-first"
    baud: int = 9600
    parity: Literal["N", "E", "O"] = "N"
    regs_max: Annotated[int, Field(ge=1, le=125)] = 125
    regs_even: bool = False
    gap_regs_max: Annotated[int, Field(ge=0, le=124)] = 8
    readable: tuple[tuple[Address, Address], ...] = ()  # ranges that one read may span; empty = only what is listed
    timeout_ms: Annotated[float, Field(gt=0, le=10000)] = 300.0
    latency_ms: Annotated[float, Field(ge=0, le=10000)] = 5.0
    turnaround_ms: Annotated[float, Field(ge=0, le=10000)] = 0.0


class SunSpecHead(Strict):
    """Where the device keeps its models."""

    base: Literal[40000, 0, 50000] = 40000
    chain: tuple[int, ...]


class CanHead(Strict):
    """What the bus must be set to."""

    bitrate: int = 500000
    byte_order: Literal["little", "big"] = "little"
    dbc: str = ""


class Point(Strict):
    """One signal in registers. After load_map every field below `address` is filled."""

    name: Name
    register_name: Annotated[str, Field(alias="register")] = ""
    page: str = ""
    source: str = ""
    note: str = ""
    confidence: Literal["source", "document", "recalled", "computed", ""] = ""
    unit: str
    model: int = 0  # SunSpec
    field: str = ""
    address: Address | None = None
    function: Literal[1, 2, 3, 4] = 3
    type: RegisterType = "u16"
    word_order: Literal["high-first", "low-first"] = "high-first"
    byte_swap: bool = False
    bit: Annotated[int, Field(ge=0, le=15)] = 0
    bits: Annotated[int, Field(ge=0, le=16)] = 0
    one_of: tuple[Annotated[int, Field(ge=0, le=63)], ...] = ()
    scale: float = 1.0
    scale_times: str = ""  # a number of the map that the scale is multiplied by
    offset: float = 0.0
    sf: str = ""  # name of the point that holds the power of ten
    positive: Positive | None = None
    range: Range | None = None
    sentinel: Annotated[int, Field(ge=0, le=2**64 - 1)] | None = None
    accumulates: bool = False
    poll: Poll = "slow"
    hidden: bool = False  # made by the loader (scale factors), not by hand

    @property
    def words(self) -> int:
        """Registers that the value takes; 1 for a coil."""
        return 1 if self.function in (1, 2) else WORDS.get(self.type, 1)

    @property
    def signed_scale(self) -> float:
        """Scale with the sign convention applied: inside, import, discharge and generation are positive."""
        return -self.scale if self.positive in NEGATIVE_INSIDE else self.scale


class Command(Strict):
    """One register that is written."""

    name: Name
    register_name: Annotated[str, Field(alias="register")] = ""
    source: str = ""
    note: str = ""
    kind: Literal["const", "setpoint_w", "heartbeat", "stop"]
    model: int = 0
    field: str = ""
    address: Address | None = None
    function: Literal[5, 6, 16] = 16
    type: RegisterType = "u16"
    word_order: Literal["high-first", "low-first"] = "high-first"
    scale: float = 1.0
    scale_times: str = ""
    sf: str = ""
    positive: Positive | None = None
    value: float = 0.0
    value_from: str = ""  # a number of the map that stands for the value
    resend_ms: Annotated[float, Field(ge=0, le=60000)] = 0.0
    readback: str = ""
    flash: bool = False  # wears the device's flash: never rewritten cyclically

    @property
    def words(self) -> int:
        """Registers that the value takes."""
        return WORDS.get(self.type, 1)

    @property
    def signed_scale(self) -> float:
        """raw = value / signed_scale."""
        return -self.scale if self.positive in NEGATIVE_INSIDE else self.scale


class Signature(Strict):
    """Registers that must hold these words before the device may be armed."""

    name: Name
    register_name: Annotated[str, Field(alias="register")] = ""
    note: str = ""
    function: Literal[3, 4] = 3
    address: Address | None = None
    model: int = 0
    words: tuple[Address, ...]


class CanSignal(Strict):
    """One signal in a frame. start: DBC start bit (least significant bit for little endian, most for big)."""

    name: Name
    register_name: Annotated[str, Field(alias="register")] = ""
    source: str = ""
    note: str = ""
    unit: str
    dbc: str = ""  # signal of the DBC file; place, scale and sign come from there
    byte: Annotated[int, Field(ge=0, le=63)] | None = None
    size: Annotated[int, Field(ge=1, le=8)] | None = None  # bytes
    bit: Annotated[int, Field(ge=0, le=7)] | None = None  # of `byte`
    bits: Annotated[int, Field(ge=1, le=64)] | None = None
    start: Annotated[int, Field(ge=0, le=511)] | None = None
    length: Annotated[int, Field(ge=1, le=64)] | None = None
    byte_order: Literal["little", "big"] | None = None
    signed: bool = False
    is_float: bool = False
    magnitude: bool = False
    mask: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    one_of: tuple[Annotated[int, Field(ge=0, le=63)], ...] = ()
    mux: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    scale: float = 1.0
    offset: float = 0.0
    positive: Positive | None = None
    range: Range | None = None
    sentinel: Annotated[int, Field(ge=0, le=2**64 - 1)] | None = None

    @property
    def sign(self) -> float:
        """-1 where the device counts the other way round than we do."""
        return -1.0 if self.positive in NEGATIVE_INSIDE else 1.0


class Frame(Strict):
    """One received id."""

    id: Annotated[int, Field(ge=0, le=0x1FFFFFFF)]
    name: str = ""
    message: str = ""  # of the DBC file
    extended: bool = False
    fd: bool = False
    period_ms: Annotated[float, Field(ge=0, le=120000)] = 0.0  # 0 = when something happens
    age_ms: Annotated[float, Field(gt=0, le=600000)] | None = None
    len: tuple[int, int] = (8, 8)
    mux_start: int | None = None
    mux_length: int = 0
    mux_big_endian: bool = False
    counter_start: int | None = None
    counter_length: int = 0
    counter_big_endian: bool = False
    crc: Literal["none", "sum8", "xor8", "crc8-j1850", "crc8-autosar", "sum8-id-len"] = "none"
    crc_byte: int = 7
    signal: tuple[CanSignal, ...] = ()


class Transmit(Strict):
    """One cyclic frame to the device. kind heartbeat: only while the gate permits it."""

    id: Annotated[int, Field(ge=0, le=0x1FFFFFFF)]
    name: str
    extended: bool = False
    data: Annotated[tuple[Annotated[int, Field(ge=0, le=255)], ...], Field(max_length=8)]
    period_ms: Annotated[float, Field(ge=1, le=60000)]
    kind: Literal["always", "heartbeat"] = "heartbeat"
    counter_start: int | None = None
    counter_length: int = 0
    source: str = ""
    note: str = ""


class Choice(Strict):
    """One value of a dialect option, and what it changes."""

    value: str
    set: tuple[dict[str, Any], ...] = ()
    drop: tuple[int, ...] = ()  # ids of frames that this dialect does not have


class Option(Strict):
    """A dialect of the device that the site file chooses."""

    meaning: str
    default: str
    choice: tuple[Choice, ...]


class Number(Strict):
    """A number that the site file gives or may change, such as a rating or a transformer ratio."""

    meaning: str
    unit: str
    default: float | None = None  # None = the site file must say it
    range: Range


class Vector(Strict):
    """Raw data and what it must become; every shipped map has some, and a test runs them."""

    source: str
    point: str = ""
    regs: tuple[Address, ...] = ()
    sf: int = 0
    value: float | None = None
    id: int | None = None
    data: str = ""
    values: dict[str, float] = {}
    invalid: bool | tuple[str, ...] = False
    options: dict[str, str] = {}

    @field_validator("data")
    @classmethod
    def _hex(cls, text: str) -> str:
        bytes.fromhex(text)
        return text


class DeviceMap(Strict):
    """A device map, checked and resolved."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    map: Head
    modbus: ModbusHead = ModbusHead()
    sunspec: SunSpecHead | None = None
    can: CanHead = CanHead()
    option: dict[str, Option] = {}
    number: dict[str, Number] = {}
    point: tuple[Point, ...] = ()
    command: tuple[Command, ...] = ()
    signature: tuple[Signature, ...] = ()
    frame: tuple[Frame, ...] = ()
    transmit: tuple[Transmit, ...] = ()
    vector: tuple[Vector, ...] = ()

    @property
    def name(self) -> str:
        """The name that a site file uses."""
        return self.map.name

    @property
    def bus(self) -> str:
        """The sort of bus: serial or can."""
        return "can" if self.map.protocol == "can" else "serial"

    def model_starts(self) -> dict[int, int]:
        """SunSpec model number -> address of its ID word, for models that a point reads; empty for other maps."""
        starts = {}
        for p in self.point:
            if p.model and p.address is not None:
                starts[p.model] = p.address - sunspec.model(p.model).points[p.field].offset
        return starts

    def readable_ranges(self) -> list[tuple[int, int]]:
        """Ranges (first, last) of which any part may be read in one request: those of the map, and SunSpec models."""
        models = [(at, at + sunspec.model(number).length - 1) for number, at in self.model_starts().items()]
        return [*self.modbus.readable, *models]

    def signal_names(self) -> list[str]:
        """Names of all signals, in the map's order."""
        return [p.name for p in self.point] + [s.name for f in self.frame for s in f.signal]


# ------------------------------------------------------------------------------------------------------- reading


def map_folder() -> Traversable:
    """Where the shipped maps are."""
    return files("tidegate.hal").joinpath("devices")


def map_names() -> list[str]:
    """Names of the shipped maps, sorted."""
    return sorted(entry.name[:-5] for entry in map_folder().iterdir() if entry.name.endswith(".toml"))


def _read(name_or_path: str) -> tuple[str, dict[str, Any], Traversable]:
    """(where, raw data, folder) of a map by name, or of a file when the name ends in .toml."""
    folder: Traversable
    entry: Traversable
    if name_or_path.endswith(".toml"):
        where, folder, entry = name_or_path, Path(name_or_path).parent, Path(name_or_path)
    else:
        if name_or_path not in map_names():
            raise MapError([f"map {name_or_path!r}: not shipped; shipped: {', '.join(map_names())}"])
        where, folder = name_or_path, map_folder()
        entry = folder.joinpath(f"{name_or_path}.toml")
    try:
        return where, tomllib.loads(entry.read_text(encoding="utf-8")), folder
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise MapError([f"map {where}: cannot be read: {error}"]) from None


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """A map laid over the one it extends: tables merge, frames and points of the same id or name merge, others add."""
    merged = copy.deepcopy(base)
    for key, value in top.items():
        if key in ("point", "command", "signature", "frame", "transmit"):
            rows = merged.setdefault(key, [])
            for row in value:
                ident = "id" if key in ("frame", "transmit") else "name"
                old = next((one for one in rows if one.get(ident) == row.get(ident)), None)
                if old is None:
                    rows.append(row)
                else:
                    signals_before = old.get("signal", [])
                    old.update(row)
                    if "signal" in row and key == "frame":
                        named = {one.get("name"): one for one in row["signal"]}
                        kept = [{**one, **named.pop(one.get("name"), {})} for one in signals_before]
                        old["signal"] = kept + list(named.values())
        elif key == "vector":
            merged.setdefault("own_vector", []).extend(value)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = {**merged[key], **value}
        else:
            merged[key] = value
    # What the base decodes with its own dialect need not hold in this one, so vectors are not inherited.
    merged["vector"] = merged.pop("own_vector", [])
    return merged


def _raw(name_or_path: str, seen: tuple[str, ...] = ()) -> tuple[str, dict[str, Any], Traversable]:
    where, raw, folder = _read(name_or_path)
    head = raw.get("map", {})
    parent = head.get("extends", "") if isinstance(head, dict) else ""
    if parent:
        if parent in seen or parent == name_or_path:
            raise MapError([f"map {where}: map.extends goes in a circle through {parent!r}"])
        _, base, _ = _raw(parent, (*seen, name_or_path))
        base = {**base, "frame": [f for f in base.get("frame", []) if f.get("id") not in head.get("drop", [])]}
        base_options = base.get("map", {}).get("options", {})
        base_doubts = base.get("map", {}).get("doubts", [])
        raw = _merge(base, raw)
        raw["map"]["options"] = {**base_options, **head.get("options", {})}
        raw["map"]["doubts"] = list(dict.fromkeys([*base_doubts, *head.get("doubts", [])]))
    return where, raw, folder


def _apply_options(where: str, raw: dict[str, Any], chosen: dict[str, str], problems: list[str]) -> None:
    options = raw.get("option", {})
    rows = list(raw.get("point", [])) + [one for frame in raw.get("frame", []) for one in frame.get("signal", [])]
    by_name = {row.get("name"): row for row in rows}
    by_id = {frame.get("id"): frame for frame in raw.get("frame", [])}
    numbers = raw.get("number", {})
    for key in chosen:
        if key not in options and key not in numbers:
            problems.append(
                f"map {where}: no option {key!r}; it has: {', '.join(sorted({*options, *numbers})) or 'none'}"
            )
    for key, option in options.items():
        if not isinstance(option, dict):
            continue
        value = str(chosen.get(key, option.get("default", "")))
        choice = next((one for one in option.get("choice", []) if one.get("value") == value), None)
        if choice is None:
            offered = ", ".join(str(one.get("value")) for one in option.get("choice", []))
            problems.append(f"map {where}: option {key} = {value!r}: expected one of {offered}")
            continue
        gone = choice.get("drop", [])
        raw["frame"] = [frame for frame in raw.get("frame", []) if frame.get("id") not in gone]
        rows = [*raw.get("point", []), *(one for frame in raw["frame"] for one in frame.get("signal", []))]
        by_name = {row.get("name"): row for row in rows}
        for patch in choice.get("set", []):
            change = {k: v for k, v in patch.items() if k not in ("signal", "frame", "transmit", "command")}
            if "command" in patch:
                targets = [row for row in raw.get("command", []) if row.get("name") == patch["command"]]
            elif "transmit" in patch:
                targets = [row for row in raw.get("transmit", []) if row.get("id") == patch["transmit"]]
            elif "frame" in patch:
                targets = [by_id[patch["frame"]]] if patch["frame"] in by_id else []
            elif patch.get("signal") == "*":
                targets = [row for row in rows if not {"mask", "bit", "start"} & set(row)]
            else:
                targets = [by_name[patch["signal"]]] if patch.get("signal") in by_name else []
            if not targets:
                problems.append(f"map {where}: option {key} changes {patch}, which the map does not have")
            for target in targets:
                target.update(change)


def _apply_numbers(where: str, raw: dict[str, Any], chosen: dict[str, str], problems: list[str], strict: bool) -> None:
    """Put the map's numbers into the rows that use them. strict: a number without default must be given."""
    values: dict[str, float] = {}
    for key, number in raw.get("number", {}).items():
        if not isinstance(number, dict):
            continue
        given = chosen.get(key, number.get("default"))
        low, high = (*number.get("range", ()), 0.0, 0.0)[:2]
        if given is None:
            if strict:
                problems.append(f"map {where}: option {key} is needed: {number.get('meaning')}, {number.get('unit')}")
            continue
        try:
            values[key] = float(given)
        except ValueError:
            problems.append(f"map {where}: option {key}: expected a number, got {given!r}")
            continue
        if not low <= values[key] <= high:
            problems.append(f"map {where}: option {key} = {given}: expected {low:g} to {high:g} {number.get('unit')}")
    for row in [*raw.get("point", []), *raw.get("command", [])]:
        for key in ("scale_times", "value_from"):
            name = row.get(key)
            if name and name not in raw.get("number", {}):
                problems.append(
                    f"map {where}: {row.get('name')}: {key} names {name!r}, which is no [number] of the map"
                )
        if row.get("scale_times") in values:
            row["scale"] = row.get("scale", 1.0) * values[row["scale_times"]]
        if row.get("value_from") in values:
            row["value"] = values[row["value_from"]]


# ----------------------------------------------------------------------------------------------------- resolving


def _place(loc: tuple[int | str, ...], raw: Any) -> str:
    """The path of a key, with rows named by their name or id where they have one."""
    parts: list[str] = []
    at: Any = raw
    for step in loc:
        at = at[step] if _has(at, step) else None
        if isinstance(step, int) and parts:
            label = at.get("name", at.get("id", step)) if isinstance(at, dict) else step
            label = f"0x{label:X}" if isinstance(label, int) and isinstance(at, dict) and "id" in at else label
            parts[-1] += f"[{label}]"
        else:
            parts.append(str(step))
    return ".".join(parts)


def _has(node: Any, step: int | str) -> bool:
    if isinstance(node, dict):
        return step in node
    return isinstance(step, int) and isinstance(node, (list, tuple)) and step < len(node)


def _resolve_sunspec(where: str, raw: dict[str, Any], addresses: dict[int, int], problems: list[str]) -> None:
    """Fill address, type, scale factor and sentinel of every row that names a SunSpec model and field."""
    made: dict[str, dict[str, Any]] = {}
    for section in ("point", "command", "signature"):
        for row in raw.get(section, []):
            number = row.get("model", 0)
            if not number:
                continue
            label = f"map {where}: {section}[{row.get('name')}]"
            if number not in addresses:
                problems.append(f"{label}: model {number} is not in sunspec.chain {sorted(addresses)}")
                continue
            if section == "signature":
                row.setdefault("address", addresses[number])
                continue
            found = sunspec.model(number).points.get(row.get("field", ""))
            if found is None or not found.type:
                problems.append(f"{label}: model {number} has no numeric field {row.get('field')!r}")
                continue
            if section == "command" and not found.writable:
                problems.append(f"{label}: model {number} field {found.name} is read only")
            row["address"] = addresses[number] + found.offset
            row["type"] = found.type
            row.setdefault("register", f"{number}.{found.name} {found.label}")
            if section == "point" and found.sentinel is not None and not row.get("one_of"):
                row.setdefault("sentinel", found.sentinel)
            row["scale"] = row.get("scale", 1.0) * 10.0**found.sf_fixed
            if found.sf:
                scale_point = sunspec.model(number).points[found.sf]
                name = f"m{number}_{re.sub(r'[^a-z0-9]+', '_', found.sf.lower())}"
                name = name if name.endswith("_sf") else f"{name}_sf"
                row["sf"] = name
                made.setdefault(
                    name,
                    {
                        "name": name,
                        "register": f"{number}.{found.sf}",
                        "unit": "sf",
                        "model": number,
                        "field": found.sf,
                        "address": addresses[number] + scale_point.offset,
                        "type": "sunssf",
                        "sentinel": 0x8000,
                        "range": [-10.0, 10.0],
                        "poll": "once",
                        "hidden": True,
                    },
                )
    raw["point"] = list(raw.get("point", [])) + list(made.values())


def _resolve_can(where: str, raw: dict[str, Any], folder: Traversable, problems: list[str]) -> None:
    """Give every signal a DBC start bit and length, from byte and bit or from the DBC file."""
    can = raw.get("can", {})
    order = can.get("byte_order", "little")
    dbc = None
    if can.get("dbc"):
        from tidegate.hal.dbc import load_dbc  # cantools is slow to import and only DBC maps need it

        dbc = load_dbc(where, folder.joinpath(can["dbc"]), problems)
    for frame in raw.get("frame", []):
        if frame.get("message") and dbc is not None:
            from tidegate.hal.dbc import fill_frame

            fill_frame(where, frame, dbc, problems)
        for row in frame.get("signal", []):
            row.setdefault("byte_order", order)
            if row.get("start") is not None or row.get("byte") is None:
                continue
            if row.get("bit") is not None:
                row["length"] = row.get("bits", 1)
                row["start"] = row["byte"] * 8 + row["bit"]
            elif row.get("size") is not None:
                row["length"] = row["size"] * 8
                row["start"] = row["byte"] * 8 + (7 if row["byte_order"] == "big" else 0)


def _bit_positions(signal: CanSignal) -> set[int]:
    """The bits of the frame that a signal takes, as byte * 8 + bit with bit 0 the least significant."""
    assert signal.start is not None and signal.length is not None
    if signal.byte_order != "big":
        return set(range(signal.start, signal.start + signal.length))
    taken, at = set(), signal.start
    for _ in range(signal.length):
        taken.add(at)
        at = at + 15 if at % 8 == 0 else at - 1
    return taken


def _check_common(where: str, label: str, row: Point | CanSignal, kind: str, problems: list[str]) -> None:
    promised = unit_of(row.name)
    if promised is None:
        problems.append(f"map {where}: {label}: the name must end in its unit, one of {' '.join(unit_endings())}")
    elif promised != row.unit:
        problems.append(f"map {where}: {label}: unit {row.unit!r}, but the name promises {promised!r}")
    if row.scale == 0.0:
        problems.append(f"map {where}: {label}: scale 0 would make every reading 0")
    if row.range is not None and row.range[0] > row.range[1]:
        problems.append(f"map {where}: {label}: range {list(row.range)} has its ends swapped")
    standard = signals().get(row.name)
    if standard is not None and standard.signed and row.positive is None:
        example = "import or export" if kind == "meter" else "discharge or charge"
        problems.append(
            f"map {where}: {label}: positive is missing: say what a positive reading means, {example}, as the manual"
        )


def _check_points(where: str, found: DeviceMap, problems: list[str]) -> None:
    taken: dict[tuple[int, int], str] = {}
    names = {p.name for p in found.point}
    for p in found.point:
        label = f"point[{p.name}]"
        if p.address is None:
            problems.append(f"map {where}: {label}: address is missing")
            continue
        if not p.hidden:
            _check_common(where, label, p, found.map.kind, problems)
        if p.address + p.words > 65536:
            problems.append(f"map {where}: {label}: {p.words} registers from {p.address} pass the end, 65535")
        if p.type == "bits" and not 1 <= p.bits <= 16 - p.bit:
            problems.append(
                f"map {where}: {label}: type bits needs bit and bits inside one register, got {p.bit}+{p.bits}"
            )
        if p.sf and p.sf not in names:
            problems.append(f"map {where}: {label}: sf names {p.sf!r}, which the map does not have")
        if p.type == "bits" or p.one_of or found.map.protocol == "sunspec":
            continue  # several points may read one word of states
        for register in range(p.address, p.address + p.words):
            other = taken.setdefault((p.function, register), p.name)
            if other != p.name:
                problems.append(f"map {where}: {label}: register {register} (0x{register:04X}) overlaps with {other}")
                break
    for c in found.command:
        label = f"command[{c.name}]"
        if c.address is None:
            problems.append(f"map {where}: {label}: address is missing")
        if c.scale == 0.0:
            problems.append(f"map {where}: {label}: scale 0 cannot be written")
        if c.kind == "setpoint_w" and c.positive is None:
            problems.append(f"map {where}: {label}: positive is missing: discharge or charge, as the manual does")
        if c.function in (5, 6) and c.words != 1:
            problems.append(
                f"map {where}: {label}: function {c.function} writes one register, {c.type} needs {c.words}"
            )
        if c.flash and c.resend_ms:
            problems.append(f"map {where}: {label}: wears the device's flash and must not be resent; remove resend_ms")
        for key, target in (("sf", c.sf), ("readback", c.readback)):
            if target and target not in names:
                problems.append(f"map {where}: {label}: {key} names {target!r}, which the map does not have")


def _check_frames(where: str, found: DeviceMap, problems: list[str]) -> None:
    ids: set[tuple[int, bool]] = set()
    for frame in found.frame:
        place = f"frame[0x{frame.id:X}]"
        if (frame.id, frame.extended) in ids:
            problems.append(f"map {where}: {place}: the id appears twice")
        ids.add((frame.id, frame.extended))
        if frame.id > 0x7FF and not frame.extended:
            problems.append(f"map {where}: {place}: an id above 0x7FF needs extended = true")
        longest = 64 if frame.fd else 8
        if not 0 <= frame.len[0] <= frame.len[1] <= longest:
            problems.append(
                f"map {where}: {place}: len {list(frame.len)}: expected [least, most] of 0 to {longest} bytes"
            )
            continue
        taken: dict[tuple[int | None, int], str] = {}
        for s in frame.signal:
            label = f"{place}.signal[{s.name}]"
            _check_common(where, label, s, found.map.kind, problems)
            if s.start is None or s.length is None:
                problems.append(
                    f"map {where}: {label}: place is missing: byte and size, byte and bit, start and length, or dbc"
                )
                continue
            positions = _bit_positions(s)
            if max(positions) >= frame.len[1] * 8 or min(positions) < 0:
                problems.append(
                    f"map {where}: {label}: bits {s.start}+{s.length} ({s.byte_order} endian) do not fit into "
                    f"{frame.len[1]} bytes"
                )
            if s.mask or s.one_of:
                continue
            for position in sorted(positions):
                other = taken.setdefault((s.mux, position), s.name)
                if other != s.name:
                    problems.append(f"map {where}: {label}: bit {position} overlaps with {other}")
                    break
            if s.mux is not None and frame.mux_start is None:
                problems.append(f"map {where}: {label}: mux {s.mux}, but the frame has no mux_start")


def _check(where: str, found: DeviceMap, problems: list[str]) -> None:
    names = found.signal_names()
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"map {where}: two signals are named {name!r}")
    for name in required(found.map.kind):
        if name not in names:
            problems.append(f"map {where}: a {found.map.kind} must give {name!r}, which no row has")
    if found.map.protocol == "can" and (found.point or found.command):
        problems.append(f"map {where}: a CAN map has frames, not points")
    if found.map.protocol != "can" and (found.frame or found.transmit):
        problems.append(f"map {where}: a {found.map.protocol} map has points, not frames")
    _check_points(where, found, problems)
    _check_frames(where, found, problems)


def load_map(
    name_or_path: str,
    options: dict[str, str] | None = None,
    sunspec_base: int | None = None,
    sunspec_models: dict[int, int] | None = None,
) -> DeviceMap:
    """The device map of this name (or of this .toml file), checked and resolved.

    options: dialect options of the site; sunspec_base: where "SunS" was found, sunspec_models: model number -> address
    of its ID word, both in place of what the map assumes.
    Raises MapError with everything that is wrong.
    """
    where, raw, folder = _raw(name_or_path)
    raw = copy.deepcopy(raw)
    problems: list[str] = []
    head = raw.get("map", {}) if isinstance(raw.get("map"), dict) else {}
    _apply_options(where, raw, {**head.get("options", {}), **(options or {})}, problems)
    chosen = {**head.get("options", {}), **(options or {})}
    _apply_numbers(where, raw, chosen, problems, strict=options is not None)
    if head.get("protocol") == "sunspec":
        section = raw.get("sunspec", {})
        chain = section.get("chain", [])
        missing = [number for number in chain if number not in sunspec.numbers()]
        problems += [f"map {where}: sunspec.chain: model {number} is not shipped" for number in missing]
        if not missing:
            base = sunspec_base if sunspec_base is not None else section.get("base", 40000)
            addresses = {**sunspec.chain_addresses(base, chain), **(sunspec_models or {})}
            _resolve_sunspec(where, raw, addresses, problems)
    if head.get("protocol") == "can":
        _resolve_can(where, raw, folder, problems)
    else:
        modbus = raw.get("modbus", {})
        for row in raw.get("point", []):
            row.setdefault("function", modbus.get("function", 3))
            row.setdefault("word_order", modbus.get("word_order", "high-first"))
        for row in raw.get("command", []):
            row.setdefault("function", modbus.get("write_function", 16))
            row.setdefault("word_order", modbus.get("word_order", "high-first"))
    try:
        found = DeviceMap.model_validate(raw)
    except ValidationError as error:
        for one in error.errors():
            problems.append(f"map {where}: {_place(one['loc'], raw)}: {one['msg']}")
        raise MapError(problems) from None
    if not name_or_path.endswith(".toml") and found.name != name_or_path:
        problems.append(f"map {where}: map.name is {found.name!r}, but the file is {name_or_path}.toml")
    _check(where, found, problems)
    if problems:
        raise MapError(problems)
    return found


@cache
def shipped(name: str) -> DeviceMap:
    """A shipped map with its default options."""
    return load_map(name)
