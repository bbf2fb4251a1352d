"""SunSpec models by number, from the published JSON files, as register offsets.

Source of the files in devices/sunspec: github.com/sunspec/models @ 7abdf898, Apache-2.0, as they are.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

SUNS = (0x5375, 0x6E53)  # "SunS", at 40000, 0 or 50000
BASES = (40000, 0, 50000)
END = 0xFFFF

# SunSpec type -> our type, and the pattern that means "not implemented". For accumulators that pattern is 0, which
# a new meter that never exported shows as well; it is taken as 0.
TYPES: dict[str, tuple[str, int | None]] = {
    "int16": ("s16", 0x8000),
    "uint16": ("u16", 0xFFFF),
    "count": ("u16", 0xFFFF),
    "acc16": ("u16", None),
    "enum16": ("u16", 0xFFFF),
    "bitfield16": ("u16", 0xFFFF),
    "sunssf": ("sunssf", 0x8000),
    "int32": ("s32", 0x80000000),
    "uint32": ("u32", 0xFFFFFFFF),
    "acc32": ("u32", None),
    "enum32": ("u32", 0xFFFFFFFF),
    "bitfield32": ("u32", 0xFFFFFFFF),
    "int64": ("s64", 0x8000000000000000),
    "uint64": ("u64", 0xFFFFFFFFFFFFFFFF),
    "acc64": ("u64", None),
    "float32": ("f32", 0x7FC00000),
    "float64": ("f64", 0x7FF8000000000000),
    "pad": ("u16", None),
}


@dataclass(frozen=True)
class ModelPoint:
    """One point of a model: offset in words from the model's ID word."""

    name: str
    offset: int
    size: int
    type: str  # our name; "" for text
    sentinel: int | None
    sf: str  # name of the scale factor point, "" for none
    sf_fixed: int  # a scale factor written as a number in the model
    units: str
    label: str
    writable: bool


@dataclass(frozen=True)
class Model:
    """A SunSpec model with every group repeated once. length: words with ID and L, as far as the model is fixed."""

    number: int
    label: str
    points: dict[str, ModelPoint]
    length: int
    repeats: bool  # a group's count depends on the device, so the length is the device's own


@cache
def numbers() -> tuple[int, ...]:
    """Numbers of the models that are shipped."""
    folder = files("tidegate.hal").joinpath("devices/sunspec")
    return tuple(sorted(int(entry.name[6:-5]) for entry in folder.iterdir() if entry.name.startswith("model_")))


@cache
def model(number: int) -> Model:
    """The model of this number. Raises KeyError when it is not shipped."""
    if number not in numbers():
        raise KeyError(f"SunSpec model {number} is not shipped; shipped: {', '.join(map(str, numbers()))}")
    text = files("tidegate.hal").joinpath(f"devices/sunspec/model_{number}.json").read_text(encoding="utf-8")
    group = json.loads(text)["group"]
    points: dict[str, ModelPoint] = {}
    repeats = False
    offset = 0

    def walk(node: dict[str, Any], prefix: str) -> None:
        nonlocal offset, repeats
        for raw in node.get("points", []):
            ours, sentinel = TYPES.get(raw["type"], ("", None))
            sf = raw.get("sf", "")
            points[prefix + raw["name"]] = ModelPoint(
                name=prefix + raw["name"],
                offset=offset,
                size=raw["size"],
                type=ours,
                sentinel=sentinel,
                sf=sf if isinstance(sf, str) else "",
                sf_fixed=sf if isinstance(sf, int) else 0,
                units=raw.get("units", ""),
                label=raw.get("label", raw["name"]),
                writable=raw.get("access") == "RW",
            )
            offset += raw["size"]
        for child in node.get("groups", []):
            repeats = repeats or child.get("count", 1) not in (1, None)
            walk(child, f"{prefix}{child['name']}.")

    walk(group, "")
    return Model(number, group.get("label", ""), points, offset, repeats)


@cache
def symbols(number: int, point: str) -> dict[str, int]:
    """Names of a point's numbers: values of an enum, places of bits. Raises KeyError for a point without any."""
    text = files("tidegate.hal").joinpath(f"devices/sunspec/model_{number}.json").read_text(encoding="utf-8")
    found = next(raw for raw in json.loads(text)["group"]["points"] if raw["name"] == point)
    return {row["name"]: row["value"] for row in found["symbols"]}


def chain_addresses(base: int, chain: list[int]) -> dict[int, int]:
    """Where each model of a chain starts (its ID word), from the address of "SunS".

    A model whose length the device decides is taken with its groups once; what follows it is then a guess that the
    site file should replace by what `tidegate scan` found.
    """
    addresses: dict[int, int] = {}
    at = base + 2
    for number in chain:
        addresses.setdefault(number, at)
        at += model(number).length
    return addresses
