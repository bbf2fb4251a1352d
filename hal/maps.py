"""Device maps: data that says where a device keeps its signals, and with what scale, sign and range.

A map is a TOML file in devices/ (docs/device-maps.md has every key). `load_map` gives it checked and resolved: dialect
options applied, SunSpec fields looked up by model number, DBC signals read through cantools. Everything that is wrong
with a map is found at once and raised as one MapError.
"""

import copy
import difflib
import re
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tidegate.hal import sunspec
from tidegate.hal.key_errors import explain
from tidegate.hal.map_rules import check_map
from tidegate.hal.map_schema import DeviceMap, Table

Loc = tuple[int | str, ...]  # the path of a key, as pydantic gives it


# What a number of several registers says where the device does not have it, in SunSpec and in most others' manuals: all
# bits, of a signed one the highest. No quantity gets so far, and a counter is there for one count of its life.
NOT_THERE = {"u32": 2**32 - 1, "s32": 2**31, "u64": 2**64 - 1, "s64": 2**63}


class MapError(ValueError):
    """A map that cannot be used; `problems` lists everything that is wrong with it.

    rest : the map without the keys and rows that are at fault, None where too little is left.
    """

    def __init__(self, problems: list[str], rest: DeviceMap | None = None) -> None:
        self.problems = problems
        self.rest = rest
        super().__init__("\n".join(problems))


# ------------------------------------------------------------------------------------------------------- reading


def map_folder() -> Traversable:
    """Where the shipped maps are."""
    return files("tidegate.hal").joinpath("devices")


def map_names() -> list[str]:
    """Names of the shipped maps, sorted."""
    return sorted(entry.name[:-5] for entry in map_folder().iterdir() if entry.name.endswith(".toml"))


def _read(name_or_path: str) -> tuple[str, Table, Traversable]:
    """(where, raw data, folder) of a map by name, or of a file when the name ends in .toml."""
    folder: Traversable
    entry: Traversable
    if name_or_path.endswith(".toml"):
        where, folder, entry = name_or_path, Path(name_or_path).parent, Path(name_or_path)
    else:
        if name_or_path not in map_names():
            near = difflib.get_close_matches(name_or_path, map_names(), 3, 0.6)
            meant = f"did you mean {' or '.join(near)}? " if near else ""
            raise MapError([f"map {name_or_path!r}: not shipped; {meant}shipped: {', '.join(map_names())}"])
        where, folder = name_or_path, map_folder()
        entry = folder.joinpath(f"{name_or_path}.toml")
    try:
        return where, tomllib.loads(entry.read_text(encoding="utf-8")), folder
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise MapError([f"map {where}: cannot be read: {error}"]) from None


def _merge(base: Table, top: Table) -> Table:
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
        elif key in ("vector", "encode"):
            merged.setdefault(f"own_{key}", []).extend(value)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = {**merged[key], **value}
        else:
            merged[key] = value
    # What the base decodes with its own dialect need not hold in this one, so vectors are not inherited.
    for key in ("vector", "encode"):
        merged[key] = merged.pop(f"own_{key}", [])
    return merged


def _raw(name_or_path: str, seen: tuple[str, ...] = ()) -> tuple[str, Table, Traversable]:
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
        raw["map"]["verified"] = head.get("verified", [])  # of the base, not of this dialect
    return where, raw, folder


def _apply_options(where: str, raw: Table, chosen: dict[str, str], problems: list[str]) -> None:
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
        lost = choice.get("drop_points", [])
        for place, key in (("point", "name"), ("vector", "point")) if lost else ():
            raw[place] = [row for row in raw.get(place, []) if row.get(key) not in lost]
        rows = [*raw.get("point", []), *(one for frame in raw["frame"] for one in frame.get("signal", []))]
        by_name = {row.get("name"): row for row in rows}
        for patch in choice.get("set", []):
            change = {k: v for k, v in patch.items() if k not in ("signal", "frame", "transmit", "command", "map")}
            if patch.get("map") is True:
                targets = [raw["map"]]
            elif "command" in patch:
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


SOC_BELIEVED = (-0.05, 1.05)  # a counter that has drifted says 100.4 %: full, and no nonsense


def _widen_soc(raw: Table) -> None:
    """A state of charge slightly beyond its ends is believed; the control and the gate take it for full or empty."""
    for row in [*raw.get("point", []), *(one for frame in raw.get("frame", []) for one in frame.get("signal", []))]:
        if row.get("name") == "soc" and isinstance(row.get("range"), list) and len(row["range"]) == 2:
            low, high = row["range"]
            if low == 0.0 and high == 1.0:  # the whole scale: whoever says less means it
                row["range"] = list(SOC_BELIEVED)


def _apply_numbers(where: str, raw: Table, chosen: dict[str, str], problems: list[str], strict: bool) -> None:
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
    signals = [one for frame in raw.get("frame", []) for one in frame.get("signal", [])]
    for row in signals:
        if row.get("constant") in values:
            # One bit of the frame, worth next to nothing: the frame's freshness is what the point takes from it.
            row.update(byte=0, bit=0, scale=1e-9, offset=values[row["constant"]])
        elif row.get("constant"):
            row.update(byte=0, bit=0)
    parts = [part for row in raw.get("command", []) for part in row.get("part", []) if isinstance(part, dict)]
    for row in [*raw.get("point", []), *raw.get("command", []), *parts, *signals]:
        for key in ("scale_times", "value_from", "constant"):
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


def _place(loc: Loc, raw: object) -> str:
    """The path of a key, with rows named by their name or id where they have one."""
    parts: list[str] = []
    at: Any = raw
    for step in loc:
        at = at[step] if _has(at, step) else None
        if isinstance(step, int) and parts:
            label = at.get("name", at.get("id", step + 1)) if isinstance(at, dict) else step + 1
            label = f"0x{label:X}" if isinstance(label, int) and isinstance(at, dict) and "id" in at else label
            parts[-1] += f"[{label}]"
        else:
            parts.append(str(step))
    return ".".join(parts)


def _has(node: object, step: int | str) -> bool:
    if isinstance(node, dict):
        return step in node
    return isinstance(step, int) and isinstance(node, (list, tuple)) and step < len(node)


TAKEN_OVER = ("name", "unit", "positive", "range", "poll", "function", "word_order")


def _expand_instead(raw: Table) -> None:
    """Make whole points of what stands in the place of an optional one, and say of all but the last that they are."""
    for row in raw.get("point", []):
        others = [one for one in row.get("instead", []) if isinstance(one, dict)]
        if others:
            row["instead"] = [{**{key: row[key] for key in TAKEN_OVER if key in row}, **one} for one in others]
            for one in (row, *row["instead"][:-1]):
                one["optional"] = True


def _resolve_sunspec(where: str, raw: Table, addresses: dict[int, int], problems: list[str]) -> None:
    """Fill address, type, scale factor and sentinel of every row that names a SunSpec model and field."""
    made: dict[str, Table] = {}
    for section in ("point", "command", "signature"):
        rows = [one for row in raw.get(section, []) for one in (row, *row.get("instead", []))]
        for row in rows:
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
            if section == "point" and found.type in ("u16", "s16"):
                row.setdefault(
                    "signed_source", f"SunSpec model {number}: {'int16' if found.type == 's16' else 'uint16'}"
                )
            row.setdefault("register", f"{number}.{found.name} {found.label}")
            if section == "point" and found.sentinel is not None:
                row["optional"] = True  # 0x8000 and 0xFFFF mean "not implemented" whatever the register is read for
                if not row.get("one_of"):
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
                        "poll": "slow",  # for what is written; a value that is read brings its own
                        "hidden": True,
                    },
                )
            if section == "command":
                # What is written must be the model that the map means: a chain in another order puts others there.
                name = f"m{number}_id_word"
                made.setdefault(
                    name,
                    {
                        "name": name,
                        "register": f"{number}.ID",
                        "unit": "word",
                        "model": number,
                        "field": "ID",
                        "address": addresses[number],
                        "type": "u16",
                        "range": [float(number), float(number)],
                        "poll": "once",
                        "hidden": True,
                    },
                )
    raw["point"] = list(raw.get("point", [])) + list(made.values())


def _signature_points(raw: Table) -> list[Table]:
    """One hidden point a signature word, believable only with the word that the map names."""
    points = []
    for row in raw.get("signature", []):
        words, address = row.get("words"), row.get("address")
        if not isinstance(words, list) or not isinstance(address, int):
            continue  # the schema says what is missing
        for i, word in enumerate(words):
            points.append(
                {
                    "name": f"{row.get('name')}_{i}_word",
                    "register": row.get("register", ""),
                    "unit": "word",
                    "function": row.get("function", raw.get("modbus", {}).get("function", 3)),
                    "address": address + i,
                    "range": [float(word), float(word)],
                    "poll": "once",
                    "hidden": True,
                }
            )
    return points


def _resolve_can(where: str, raw: Table, folder: Traversable, problems: list[str]) -> None:
    """Give every signal a DBC start bit and length, from byte and bit or from the DBC file."""
    can = raw.get("can", {})
    order = can.get("byte_order", "little")
    dbc = None
    if can.get("dbc"):
        try:
            from tidegate.hal.dbc import load_dbc  # cantools is slow to import and only DBC maps need it
        except ModuleNotFoundError as error:
            problems.append(
                f"map {where}: {can['dbc']} is read with {error.name}, which is not installed; run: "
                "pip install 'tidegate[dbc]'"
            )
            return
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
    _widen_soc(raw)
    _expand_instead(raw)
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
        for row in (one for point in raw.get("point", []) for one in (point, *point.get("instead", []))):
            row.setdefault("function", modbus.get("function", 3))
            row.setdefault("word_order", modbus.get("word_order", "high-first"))
            if row.get("type") in NOT_THERE and row.get("unit") != "bits" and not row.get("one_of"):
                row.setdefault("sentinel", NOT_THERE[row["type"]])
        raw["point"] = list(raw.get("point", [])) + _signature_points(raw)
        for row in raw.get("command", []):
            row.setdefault("function", modbus.get("write_function", 16))
            row.setdefault("word_order", modbus.get("word_order", "high-first"))
            for part in row.get("part", []):
                if isinstance(part, dict):
                    part.setdefault("word_order", row["word_order"])
    try:
        found = DeviceMap.model_validate(raw)
    except ValidationError as error:
        unknown, wrong = list[Loc](), list[Loc]()
        for one in error.errors():
            (unknown if one["type"] == "extra_forbidden" else wrong).append(one["loc"])
            said = explain(DeviceMap, one["type"], one["loc"], one["msg"], one["input"])
            problems.append(f"map {where}: {_place(one['loc'], raw)}: {said}")
        raise MapError(problems, _without(raw, unknown, wrong)) from None
    if not name_or_path.endswith(".toml") and found.name != name_or_path:
        problems.append(f"map {where}: map.name is {found.name!r}, but the file is {name_or_path}.toml")
    check_map(where, found, problems)
    if problems:
        raise MapError(problems, found)
    more = [*_echo_doubts(found), *_sign_doubts(found)]
    if not more:
        return found
    return found.model_copy(update={"map": found.map.model_copy(update={"doubts": (*found.map.doubts, *more)})})


def _without(raw: Table, unknown: Sequence[Loc], wrong: Sequence[Loc]) -> DeviceMap | None:
    """What is left of a map without its unknown keys and the rows that have another fault; None = too little."""
    for loc in unknown:
        node = raw
        for step in loc[:-1]:
            node = node[step]  # type: ignore[index]  # a list in between
        node.pop(str(loc[-1]), None)
    rows: dict[str, set[int]] = {}
    for loc in wrong:
        if len(loc) > 1 and isinstance(loc[1], int):
            rows.setdefault(str(loc[0]), set()).add(loc[1])
        elif len(loc) == 2 and isinstance(table := raw.get(str(loc[0])), dict):
            table.pop(loc[1], None)
    for section, numbers in rows.items():
        raw[section] = [row for number, row in enumerate(raw[section]) if number not in numbers]
    try:
        return DeviceMap.model_validate(raw)
    except ValidationError:
        return None


def _echo_doubts(found: DeviceMap) -> list[str]:
    """A doubt for what reads as it was written: the device says nothing there."""
    echoes = " and ".join(p.name for p in found.point if p.echo)
    if not echoes:
        return []
    return [
        f"{echoes} read{'s' if ' ' not in echoes else ''} a register that this map writes: what was written, not what "
        f"the converter does; that it follows is shown by the step test while arming, and by its power"
    ]


def _sign_doubts(found: DeviceMap) -> list[str]:
    """The powers of which no source says whether they have a sign: the same question once, with all it is about."""
    asked: dict[str, list[str]] = {}
    for row in found.power_words():
        if (text := row.signed_source.partition("doubt:")[2].strip()) and row.signed_source.startswith("doubt:"):
            asked.setdefault(text, []).append(row.name)
    return [f"sign of {', '.join(names)}, in 16 bits: {text}" for text, names in asked.items()]


@cache
def shipped(name: str) -> DeviceMap:
    """A shipped map with its default options."""
    return load_map(name)
