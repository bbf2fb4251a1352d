"""The rooms of ext/: each takes only from rooms below it, and no two .pxd files take from each other."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

EXT = Path(__file__).parents[1] / "ext"
ORDER = ("abi", "bus", "safety", "estimate", "control", "cycle", "record", "sim")
BESIDE = {("record", "sim"), ("sim", "record")}  # on one floor
HEADER = "safety.safety"  # the gate's own header: takes from no room, so that every room may take it
TAKES = re.compile(r"^\s*(?:from\s+tidegate\.ext\.([\w.]+)\s+c?import|c?import\s+tidegate\.ext\.([\w.]+))", re.M)
INCLUDES = re.compile(r'^\s*#include\s+"(\w+/\w+)\.h"', re.M)


def taken(text: str) -> Iterator[str]:
    """Modules of ext/ that a source takes, as "room.stem"."""
    for cimported, imported in TAKES.findall(text):
        yield cimported or imported
    for header in INCLUDES.findall(text):
        yield header.replace("/", ".")


def sources(*endings: str) -> dict[str, str]:
    """Text of every source of ext/ with one of these endings, by "room/file"."""
    found = (path for ending in endings for path in EXT.glob(f"*/*{ending}"))
    # What Cython wrote is no source.
    return {
        str(path.relative_to(EXT)): path.read_text()
        for path in found
        if path.suffix != ".c" or not path.with_suffix(".pyx").exists()
    }


def upward(texts: Mapping[str, str]) -> list[str]:
    """Every arrow that runs to a room above, or to the other one on the same floor."""
    found = []
    for name, text in texts.items():
        room = name.split("/")[0]
        for module in taken(text):
            other = module.split(".")[0]
            if module == HEADER or other == room:
                continue
            if ORDER.index(other) > ORDER.index(room) or (room, other) in BESIDE:
                found.append(f"{name} -> {module}")
    return found


def circles(texts: Mapping[str, str]) -> list[str]:
    """Every .pxd file from which a way of cimports leads back to it."""
    arrows = {name.removesuffix(".pxd").replace("/", "."): set(taken(text)) for name, text in texts.items()}
    reached = {name: set(others) for name, others in arrows.items()}
    for _ in arrows:
        for others in reached.values():
            others.update(*(reached.get(other, ()) for other in tuple(others)))
    return sorted(name for name, others in reached.items() if name in others)


def test_no_room_of_the_core_takes_from_one_above_it() -> None:
    texts = sources(".pyx", ".pxd", ".h", ".c", ".py", ".pyi")
    assert {name.split("/")[0] for name in texts} == set(ORDER)
    assert upward(texts) == []


def test_no_pxd_files_take_from_each_other() -> None:
    texts = sources(".pxd")
    assert texts
    assert circles(texts) == []


def test_the_gates_header_takes_from_no_room() -> None:
    assert list(taken(sources(".pxd")["safety/safety.pxd"])) == []
    assert list(taken(sources(".h")["safety/safety.h"])) == []


def test_an_arrow_that_runs_up_is_found() -> None:
    assert upward({"bus/port.pyx": "from tidegate.ext.cycle.loop cimport Core\n"}) == ["bus/port.pyx -> cycle.loop"]
    assert upward({"abi/program.h": '#include "control/corridor.h"\n'}) == ["abi/program.h -> control.corridor"]
    assert upward({"sim/world.pyx": "import tidegate.ext.record.replay\n"}) == ["sim/world.pyx -> record.replay"]
    assert upward({"cycle/loop.pyx": "from tidegate.ext.bus.port cimport (\n    done_t,\n)\n"}) == []


def test_a_circle_is_found() -> None:
    there = "from tidegate.ext.abi.program cimport program_t\n"
    back = "from tidegate.ext.safety.gate cimport gate_input_t\n"
    assert circles({"safety/gate.pxd": there, "abi/program.pxd": back}) == ["abi.program", "safety.gate"]
