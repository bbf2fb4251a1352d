"""No fact of a header stands a second time in Python: the compiled modules export what Python needs."""

import ast
import re
from enum import IntEnum
from pathlib import Path

import pytest

from tests.tools import pxd
from tidegate.ext.abi import image, shared
from tidegate.ext.abi.program import CAN_FRAME_FLAGS
from tidegate.ext.safety import cabinet, gate

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = [path for folder in ("config", "hal", "runtime") for path in sorted((ROOT / folder).rglob("*.py"))]
# Prefixes under which a header's enumerators are grouped; Python may drop them, as in `GOOD = 1`.
PREFIXES = ("ORDER_", "ORDER_MODE_", "PLAN_", "QUALITY_", "REACTION_", "GUARD_", "MODE_", "REASON_", "EVENT_", "BUS_",
            "DONE_", "UNENFORCED_", "CAN_FRAME_", "GATE_", "ESCALATION_")  # fmt: skip


def header_names() -> set[str]:
    """Every constant and enumerator of a header or a .pxd."""
    names: set[str] = set()
    for path in pxd.EXT.rglob("*.h"):
        names |= set(pxd.constants(path.read_text()))
    for path in pxd.EXT.rglob("*.pxd"):
        for body in re.findall(r"^( *)(?:cp?def )?enum\b.*:.*\n((?:\1    .*\n|\s*\n)+)", path.read_text(), re.M):
            for line in body[1].splitlines():
                names |= set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", line.split("#")[0]))
    return names


def assigned_numbers(text: str) -> list[tuple[int, str]]:
    """(line, name) of every capital name that is given plain numbers: `A = 3`, `A, B = 1, 2`, `A, B = range(2)`."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Assign) or not is_numbers(node.value):
            continue
        for target in node.targets:
            for name in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(name, ast.Name) and name.id.isupper():
                    found.append((node.lineno, name.id))
    return found


def is_numbers(value: ast.expr) -> bool:
    if isinstance(value, ast.Tuple):
        return bool(value.elts) and all(is_numbers(item) for item in value.elts)
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == "range"
    return isinstance(value, ast.Constant) and isinstance(value.value, int | float)


def copies(text: str, names: set[str]) -> list[str]:
    """What in a Python source repeats a constant of a header: by its name, or by a comment that says so."""
    lines = text.splitlines()
    found = []
    for number, name in assigned_numbers(text):
        # Several at once are an enum's; there the prefix may be left out.
        listed = "," in lines[number - 1].split("=")[0]
        if name in names or (listed and any(prefix + name in names for prefix in PREFIXES)):
            found.append(f"{number}: {name}")
    for number, line in enumerate(lines, 1):
        code, _, comment = line.partition("#")
        if re.match(r"\s*[A-Z_, ]+ = ", code) and re.search(r"\bof ext/|\benum \w+ of\b", comment):
            found.append(f"{number}: {line.strip()}")
    return found


@pytest.mark.parametrize(
    "text",
    [
        "STEP_W_MIN = 200  # of ext/safety/cabinet.pxd",
        "CALENDAR, CLIENT = 1, 2",
        "GONE, STALLED, LATE, PRIORITY_LOST, UNLOCKED = range(5)",
        "NEVER, GOOD, HELD, STALE, INVALID = range(5)",
        "QUALITY_GOOD, QUALITY_HELD = 1, 2",
        "REACTION_FAST = 3  # enum reaction of ext/safety/safety.h",
        'HEAD = struct.Struct("<IHHQQQ")  # how record_t of ext/abi/ring.h begins',
    ],
)
def test_each_kind_of_copy_that_once_stood_here_is_found(text: str) -> None:
    assert copies(text, header_names())


def test_python_repeats_no_constant_of_a_header() -> None:
    names = header_names()
    assert {"STEP_W_MIN", "PLAN_CLIENT", "GATE_TIME_US_MAX", "SERIES_COLUMNS", "ORDER_MODE_STOP"} <= names
    found = [f"{path.relative_to(ROOT)}:{one}" for path in PRODUCT for one in copies(path.read_text(), names)]
    assert not found


def enumerators(header: str, enum: str) -> list[str]:
    text = (pxd.EXT / header).read_text()
    body = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    found = re.search(rf"enum {enum} \{{(.*?)\}}", body, re.S)
    assert found, enum
    return [item.split("=")[0].strip() for item in found[1].split(",") if item.strip()]


@pytest.mark.parametrize(
    ("python", "header", "enum", "prefix", "without"),
    [
        (image.Quality, "abi/image.h", "point_quality", "QUALITY_", ()),
        (shared.OrderKind, "abi/shared.h", "order_kind", "ORDER_", ("ORDERS",)),
        (shared.OrderMode, "abi/shared.h", "order_mode", "ORDER_MODE_", ()),
        (shared.PlanSource, "abi/shared.h", "plan_source", "PLAN_", ("PLAN_SOURCES",)),
        (shared.GuardCause, "abi/shared.h", "guard_cause", "GUARD_", ("GUARD_CAUSES",)),
        (shared.Escalation, "abi/shared.h", "escalation", "ESCALATION_", ("ESCALATIONS",)),
        (gate.Reaction, "safety/safety.h", "reaction", "REACTION_", ()),
    ],
)
def test_an_exported_enum_has_all_names_of_its_header(
    python: type[IntEnum], header: str, enum: str, prefix: str, without: tuple[str, ...]
) -> None:
    expected = [name.removeprefix(prefix) for name in enumerators(header, enum) if name not in without]
    assert [member.name for member in python] == expected


def test_names_beside_an_enum_are_as_many_and_in_its_order() -> None:
    assert [name.upper() for name in image.QUALITY_NAMES] == [member.name for member in image.Quality]
    assert [name.upper() for name in gate.REACTIONS] == [member.name for member in gate.Reaction]
    assert [name.upper() for name in shared.PLAN_SOURCE_NAMES] == [member.name for member in shared.PlanSource]
    assert [name.upper() for name in shared.ORDER_NAMES] == [m.name for m in shared.OrderKind if m.name != "POLICY"]
    assert len(shared.GUARD_NAMES) == len(shared.GuardCause)


def test_exported_numbers_are_those_of_the_sources() -> None:
    header = pxd.constants((pxd.EXT / "safety" / "safety.h").read_text())
    assert int(header["GATE_TIME_US_MAX"]) == gate.TIME_MS_MAX * 1000
    step = re.search(r"STEP_W_MIN = (\d+)", (pxd.EXT / "safety" / "cabinet.pxd").read_text())
    assert step and int(step[1]) == cabinet.STEP_W_MIN
    assert CAN_FRAME_FLAGS["fd"] == 1


def test_the_words_of_an_overrun_are_what_the_fault_table_does() -> None:
    assert shared.ESCALATION_NAMES == ("none", "derate", "safe", "silent")
