"""`tidegate devices check FILE`: everything that can be said of a device map without the device, all at once.

The schema and the rules of `load_map`; each vector, run through the plain decoder; registers that lie outside what the
map itself calls readable; a map without a vector. A finding has the line of the file where the key stands.
"""

import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tidegate.hal.decode import decode_frame, decode_registers, encode_registers, vector_frame
from tidegate.hal.map_schema import CanSignal, DeviceMap, Vector
from tidegate.hal.maps import MapError, load_map


@dataclass(frozen=True)
class Finding:
    """What is wrong, and in which line of the file; 0 where no single line is meant."""

    line: int
    text: str


def check_file(path: str) -> list[Finding]:
    """All findings of a map file, by line; empty = good. What can be said beside a fault is said with it."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        tomllib.loads(text)
    except UnicodeDecodeError as error:
        return [Finding(0, f"byte {error.start + 1} is no UTF-8; save the file as UTF-8")]
    except OSError as error:
        return [Finding(0, f"cannot be read: {error.strerror}")]
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"line (\d+)", str(error))
        return [Finding(int(at[1]) if at else 0, f"not TOML: {error}; {_toml_remedy(str(error))}")]
    findings: list[Finding] = []
    faulty = ""
    try:
        found_map = load_map(path)
    except MapError as error:
        said = [line.removeprefix(f"map {path}: ") for line in error.problems]
        findings = [Finding(_line_of_problem(text, line), line) for line in said]
        if error.rest is None:
            return _sorted(findings)
        found_map, faulty = error.rest, "\n".join(said)
    findings += _unreadable(text, found_map)
    findings += [
        Finding(
            _named_line(text, row.name, "type"),
            f"{'signal' if isinstance(row, CanSignal) else 'point'}[{row.name}].signed_source: missing: a power in "
            f"16 bits reads -2 kW as 63 kW where the sign is not counted; name the page or reading that shows one "
            f'or none, or "doubt: ..." where nothing does',
        )
        for row in found_map.power_words()
        if not row.signed_source.strip()
    ]
    findings += _unchecked(text, found_map)
    findings += _vectors(text, path, found_map, faulty)
    return _sorted(findings)


def _sorted(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda one: one.line)


def _toml_remedy(said: str) -> str:
    if "Cannot overwrite" in said or "Cannot declare" in said:
        return "the key or table is there already; remove one of the two"
    if "Illegal character '\\n'" in said or "Unterminated string" in said:
        return "close the quote on this line"
    return "correct the line"


def _vectors(text: str, path: str, found_map: DeviceMap, faulty: str) -> list[Finding]:
    """Decode and encode vectors, run. faulty: what has been said of the map; rows of it that were left out are not."""
    if not found_map.vector:
        if "vector[" in faulty:
            return []
        said = "vector: none; add a [[vector]] of the manual's own example, or nobody knows if the map is right"
        return [Finding(0, said)]
    if re.search(r"^(vector|encode)\[", faulty, re.M):
        return []  # some were left out: the others cannot be told by their number
    have = {p.name for p in found_map.point}
    findings = [
        Finding(_row_line(text, "vector", number, key), f"vector[{number + 1}].{key}: {said}")
        for number, vector in enumerate(found_map.vector)
        if vector.point in have or f"point[{vector.point}]" not in faulty
        for key, said in _vector(path, found_map, vector, bool(faulty))
    ]
    for number, encode in enumerate(found_map.encode):
        command = next((c for c in found_map.command if c.name == encode.command), None)
        if command is None and f"command[{encode.command}]" in faulty:
            continue
        if command is None:
            names = ", ".join(c.name for c in found_map.command) or "none"
            said = f"no command {encode.command!r}; the map has: {names}"
        else:
            try:
                found = load_map(path, encode.options) if encode.options else found_map
            except MapError as error:
                if not faulty:
                    findings.append(Finding(_row_line(text, "encode", number, "options"), "; ".join(error.problems)))
                continue
            command = next(c for c in found.command if c.name == encode.command)
            regs = encode_registers(command, encode.value, encode.sf)
            if regs == list(encode.regs):
                continue
            said = (
                f"{encode.value:g} becomes {regs}, the vector says {list(encode.regs)}; correct the row or the vector"
            )
        findings.append(Finding(_row_line(text, "encode", number, "command"), f"encode[{number + 1}]: {said}"))
    return findings


def _vector(path: str, found: DeviceMap, vector: Vector, faulty: bool) -> list[tuple[str, str]]:
    """(key, what is wrong) of one vector. faulty: the map has faults, which were said."""
    if vector.options:
        try:
            found = load_map(path, vector.options)
        except MapError as error:
            return [] if faulty else [("options", "; ".join(error.problems))]
    if vector.id is not None:
        return _frame_vector(found, vector)
    point = next((p for p in found.point if p.name == vector.point), None)
    if point is None:
        names = ", ".join(p.name for p in found.point if not p.hidden)
        return [("point", f"no point {vector.point!r}; the map has: {names}")]
    try:
        got = decode_registers(point, vector.regs, vector.sf)
    except ValueError as error:
        return [("regs", f"{error}; correct regs or the point's type")]
    if vector.invalid:
        if got is None:
            return []
        return [("invalid", f"{vector.point} reads {got:g} and should be no value; give it a sentinel or a range")]
    if vector.value is None:
        return [("value", "missing: what the registers mean, or invalid = true")]
    if got is None or not math.isclose(got, vector.value, rel_tol=1e-6, abs_tol=1e-9):
        said = "no value (sentinel, range or factor)" if got is None else f"{got:g}"
        return [("value", f"{vector.point} reads {said}, the vector says {vector.value:g}; correct type, word order, "
                          f"scale or sign of the point, or the vector")]  # fmt: skip
    return []


def _frame_vector(found: DeviceMap, vector: Vector) -> list[tuple[str, str]]:
    frame = vector_frame(found, vector.id or 0)
    if frame is None:
        return [("id", f"no frame 0x{vector.id:X}; the map has: {', '.join(f'0x{f.id:X}' for f in found.frame)}")]
    data = bytes.fromhex(vector.data)
    if not frame.len[0] <= len(data) <= frame.len[1]:
        return [("data", f"{len(data)} bytes, the frame has {frame.len[0]} to {frame.len[1]}")]
    got = decode_frame(frame, data)
    wrong = []
    invalid = vector.invalid if isinstance(vector.invalid, tuple) else ()
    for name, value in vector.values.items():
        if name not in got:
            wrong.append(("values", f"frame 0x{frame.id:X} carries no {name!r} here; it carries: {', '.join(got)}"))
        elif (read := got[name]) is None or not math.isclose(read, value, rel_tol=1e-6, abs_tol=1e-9):
            wrong.append(
                ("values", f"{name} reads {'no value' if read is None else f'{read:g}'}, the vector says {value:g}")
            )
    lost = {name for name, value in got.items() if value is None} ^ set(invalid)
    wrong += [
        ("invalid", f"{name} is {'no value' if got.get(name) is None else 'a value'} here") for name in sorted(lost)
    ]
    return wrong


def _unchecked(text: str, found: DeviceMap) -> list[Finding]:
    """What a BMS map says that it cannot check, against what its frames have."""
    if found.map.kind != "bms":
        return []
    said = set(found.map.unchecked)
    line = _key_line(text.splitlines(), _head_line(text, "map"), "unchecked")
    if not said:
        return [
            Finding(
                line,
                "map.unchecked: missing: say what nobody can check of its frames, of counter, checksum and frozen, or "
                '["nothing"] with unchecked_source',
            )
        ]
    lacks = {
        "counter": any(frame.counter_start is None for frame in found.frame) or bool(found.point),
        "checksum": any(frame.crc == "none" for frame in found.frame),
    }
    without = "not every frame has one" if found.frame else "registers have none"
    wrong = [
        f"map.unchecked: {word} is not said, but {without}; add it"
        for word, lacking in lacks.items()
        if lacking and word not in said
    ]
    wrong += [
        f"map.unchecked: {word} is said, but every frame has one; remove it"
        for word, lacking in lacks.items()
        if not lacking and word in said
    ]
    return [Finding(line, one) for one in wrong]


def _unreadable(text: str, found: DeviceMap) -> list[Finding]:
    """Points outside `readable`: the device answers a read of them with an exception, or with something else."""
    if not found.modbus.readable or found.map.protocol == "sunspec":
        return []
    ranges = ", ".join(f"{low} to {high}" for low, high in found.modbus.readable)
    return [
        Finding(
            _named_line(text, p.name, "address"),
            f"point[{p.name}].address: {p.address} to {p.address + p.words - 1} is outside modbus.readable ({ranges}); "
            f"correct the address or widen the range",
        )
        for p in found.point
        if p.address is not None
        and not any(low <= p.address and p.address + p.words - 1 <= high for low, high in found.modbus.readable)
    ]


def _row_line(text: str, table: str, number: int, key: str) -> int:
    """The line of a key in the n-th [[table]], or of its head."""
    lines = text.splitlines()
    heads = [i for i, line in enumerate(lines) if line.split("#")[0].strip() == f"[[{table}]]"]
    if number >= len(heads):
        return 0
    return _key_line(lines, heads[number], key)


def _named_line(text: str, name: str, key: str) -> int:
    lines = text.splitlines()
    for i, line in enumerate(lines):
        if re.search(rf'{{\s*name\s*=\s*"{re.escape(name)}"', line):
            return i + 1  # an inline table: all its keys stand there
        if re.match(rf'\s*name\s*=\s*"{re.escape(name)}"', line):
            head = next((j for j in range(i, -1, -1) if lines[j].lstrip().startswith("[")), i)
            return _key_line(lines, head, key)
    return 0


def _head_line(text: str, table: str) -> int:
    return next((i for i, line in enumerate(text.splitlines()) if line.split("#")[0].strip() == f"[{table}]"), 0)


def _key_line(lines: list[str], head: int, key: str) -> int:
    for i in range(head + 1, len(lines)):
        if lines[i].lstrip().startswith("["):
            break
        if re.match(rf"\s*{re.escape(key)}\s*=", lines[i]):
            return i + 1
    return head + 1


def _line_of_problem(text: str, problem: str) -> int:
    """Of what a problem names: point[NAME].key, vector[2].key (rows without a name count from 1), table.key, key."""
    named = re.search(r"(?:point|command|signal)\[([^\]]+)\](?:\.(\w+)|: (\w+))?", problem)
    if named and (line := _named_line(text, named[1], named[2] or named[3] or "")):
        return line
    lines = text.splitlines()
    if row := re.match(r"(\w+)\[(\d+)\](?:\.(\w+))?", problem):
        return _row_line(text, row[1], int(row[2]) - 1, row[3] or "")
    if key := re.match(r"([\w.]+)\.(\w+)(?:\[|:| )", problem):
        heads = (f"[{key[1]}]", f"[{key[1]}.{key[2]}]")
        at = next((i for i, line in enumerate(lines) if line.split("#")[0].strip() in heads), None)
        if at is not None:
            return _key_line(lines, at, key[2])
    if key := re.match(r"(\w+)(?:\[|:| )", problem):
        return next((i for i, one in enumerate(lines, 1) if re.match(rf"\s*{key[1]}\s*=|\s*\[+{key[1]}\]", one)), 0)
    return 0
