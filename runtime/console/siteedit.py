"""The site file, changed at the console: staged, shown as a difference, checked whole, and put in place at once or not.

Only values of keys change; comments and order stay. The running core keeps the program it was started with: a new file
is in force from the next start of the site, and a restart takes the power to zero first.
"""

import difflib
import json
import re
import tomllib
from pathlib import Path
from typing import Any

from tidegate.config.compile import compile_site
from tidegate.config.site import Site, SiteError, parse_site, read_site_text
from tidegate.config.toml_lines import HEADER, KEY, line_of
from tidegate.runtime.state import atomic_file

IDLE_W = 100.0
IDLE_MODES = ("off", "tripped", "stopping")
WORD = re.compile(r"[A-Za-z0-9 _./:+-]{1,128}")

# Keys whose change is tighter in one direction only. -1: a smaller value is tighter, +1: a larger one is.
# A key that may be left out counts as "no limit" while it is.
TIGHTER = {
    "limits.connection_import_w_max": -1,
    "limits.connection_export_w_max": -1,
    "limits.phase_import_w_max": -1,
    "storage.charge_w_max": -1,
    "storage.discharge_w_max": -1,
    "storage.charge_a_max": -1,
    "storage.discharge_a_max": -1,
    "storage.soc_min": +1,
    "storage.soc_max": -1,
    "storage.soc_taper": +1,
    "storage.temp_min_c": +1,
    "storage.temp_max_c": -1,
    "storage.temp_taper_c": +1,
    "storage.ramp_go_w_per_s": -1,
    "device.circuit_w_max": -1,
}


class EditError(ValueError):
    """A change that is not taken, with the reason."""


class Staged:
    """The site file in the making. Raises SiteError when the present one cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.old = read_site_text(path)
        self.text = self.old

    @property
    def changed(self) -> bool:
        return self.text != self.old

    @property
    def keys(self) -> list[str]:
        """Keys that stand in the file, as `set` takes them."""
        return [key for key, _ in _flat(tomllib.loads(self.text))]

    @property
    def changed_keys(self) -> str:
        """Names of the keys that have other values, for the journal."""
        return ", ".join(sorted({one[1:].split("=")[0].strip() for one in self.diff() if one[:1] == "+" != one[1:2]}))

    def show(self, section: str = "") -> list[str]:
        """Lines of the file, of one section or all."""
        lines = self.text.splitlines()
        if not section:
            return lines
        found: list[str] = []
        inside = False
        for line in lines:
            header = HEADER.match(line)
            if header:
                inside = header[2].split(".")[0].strip() == section
            if inside:
                found.append(line)
        return found or [f"no section {section!r} in {self.path.name}"]

    def set(self, key: str, value: str) -> None:
        """Give a key a value. Raises EditError; then nothing changed."""
        raw = tomllib.loads(self.text)
        loc = _location(raw, key)
        word = _toml(value)
        lines = self.text.splitlines(keepends=True)
        at: Any = raw
        for step in loc[:-1]:
            at = at[step]
        if loc[-1] in at:
            number = line_of(self.text, loc)
            line = lines[number - 1] if number else ""
            found = KEY.match(line)
            if found is None or line.rstrip().endswith(("[", '"""', "'''")):
                raise EditError(f"{key} does not stand on a line of its own; change it with an editor")
            lines[number - 1] = f"{line[: found.end()]} {word}{_rest_of_line(line[found.end() :])}"
        else:
            number = line_of(self.text, loc[:-1])
            if not number:
                raise EditError(f"there is no section for {key}; add it with an editor")
            lines.insert(number, f"{loc[-1]} = {word}\n")
        text = "".join(lines)
        try:
            tomllib.loads(text)
        except tomllib.TOMLDecodeError as why:
            raise EditError(f"{key} = {word} would not be TOML: {why}") from None
        self.text = text

    def diff(self) -> list[str]:
        """What would change, as a unified difference without context."""
        made = difflib.unified_diff(self.old.splitlines(), self.text.splitlines(), "now", "then", lineterm="", n=0)
        return list(made)

    def problems(self) -> list[str]:
        """Everything that is wrong with what is staged, as `tidegate check` says it."""
        site, problems = parse_site(tomllib.loads(self.text), self.text)
        if site is None or problems:
            return problems
        site._folder = self.path.resolve().parent
        try:
            compile_site(site)
        except SiteError as why:
            return why.problems
        return []

    def wider(self) -> list[str]:
        """Keys whose change is not plainly a tighter limit; empty when all are."""
        old, new = dict(_flat(tomllib.loads(self.old))), dict(_flat(tomllib.loads(self.text)))
        found = []
        for key in sorted({*old, *new}):
            before, after = old.get(key), new.get(key)
            if before == after:
                continue
            parts = key.split(".")
            sign = TIGHTER.get(f"{parts[0]}.{parts[-1]}")
            if sign is None or not isinstance(after, int | float):
                tighter = False
            elif isinstance(before, int | float):
                tighter = (after - before) * sign > 0
            else:
                tighter = _may_be_absent(parts[0], parts[-1])
            if not tighter:
                found.append(key)
        return found

    def apply(self) -> None:
        """Put the new file in place, the old one beside it as `.previous`.

        Raises SiteError when somebody else has changed the file meanwhile, OSError when the disk refuses; then the old
        one stands. A loss of power at any moment leaves the old file or the new one, whole.
        """
        atomic_file.sweep(self.path.parent, self.path.name)
        if read_site_text(self.path) != self.old:
            raise SiteError(str(self.path), ["was changed by somebody else meanwhile; config drop, then begin again"])
        mode = self.path.stat().st_mode & 0o777
        atomic_file.replace(previous(self.path), self.old.encode(), mode)
        atomic_file.replace(self.path, self.text.encode(), mode)
        self.old = self.text


def not_idle(wider: list[str], mode: str, setpoint_w: float | None, ess_w: float | None) -> str:
    """What speaks against a change of these keys now, "" = the battery stands still by order or by trip."""
    moving = max(abs(setpoint_w or 0.0), abs(ess_w or 0.0))
    if not wider or (mode in IDLE_MODES and moving <= IDLE_W):
        return ""
    return (
        f"not applied: {', '.join(wider)} is wider or no plain limit, and the cabinet is not idle "
        f"(mode {mode}, {moving:.0f} W); stop first"
    )


def previous(path: Path) -> Path:
    """Where the file before the last change lies."""
    return path.with_name(path.name + ".previous")


def _may_be_absent(section: str, key: str) -> bool:
    """Whether leaving the key out means "no limit"."""
    model = {"limits": "limits", "storage": "storage", "device": "device"}[section]
    annotation = Site.model_fields[model].annotation
    fields = getattr(annotation, "model_fields", None) or getattr(annotation, "__args__", (Site,))[0].model_fields
    return not fields[key].is_required() and fields[key].default is None


def _flat(raw: dict[str, Any]) -> list[tuple[str, Any]]:
    """(dotted key, value) of a parsed file; rows of a list by their name."""
    found: list[tuple[str, Any]] = []

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        elif isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            for number, row in enumerate(value):
                walk(f"{prefix}.{row.get('name', number)}", {k: v for k, v in row.items() if k != "name"})
        else:
            found.append((prefix, value))

    walk("", raw)
    return found


def _location(raw: dict[str, Any], key: str) -> tuple[int | str, ...]:
    """The path of a dotted key in the parsed file. Raises EditError."""
    loc: tuple[int | str, ...] = ()
    at: Any = raw
    parts = key.split(".")
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(at, list):
            row = next((i for i, one in enumerate(at) if str(one.get("name", i)) == part), None)
            if row is None:
                names = ", ".join(str(one.get("name", i)) for i, one in enumerate(at))
                raise EditError(f"{'.'.join(parts[:depth])} has no {part!r}; it has {names}")
            loc, at = (*loc, row), at[row]
        elif isinstance(at, dict) and (part in at or last) and re.fullmatch(r"[a-z0-9_-]+", part):
            loc, at = (*loc, part), at.get(part)
        else:
            raise EditError(
                f"no section {part!r}; a key is like limits.connection_import_w_max or storage.NAME.soc_min"
            )
    if isinstance(at, list | dict) or len(loc) < 2:
        raise EditError(f"{key!r} is a section, not a key")
    if parts[-1] in ("name", "schema"):
        raise EditError(f"{parts[-1]} is not changed here")
    return loc


def _toml(value: str) -> str:
    """A word as a TOML value: a number, true, false, or text."""
    if value in ("true", "false") or re.fullmatch(r"[+-]?\d+(\.\d+)?", value):
        return value.removeprefix("+")
    plain = value.strip('"')
    if WORD.fullmatch(plain) is None:
        raise EditError(f"{value!r}: a value is a number, true, false, or text of letters, digits and _./:+-")
    return json.dumps(plain)


def _rest_of_line(rest: str) -> str:
    """What stands behind a value on its line: the comment and the end."""
    quoted = re.match(r'\s*"(?:[^"\\]|\\.)*"', rest) or re.match(r"\s*'[^']*'", rest)
    start = quoted.end() if quoted else 0
    comment = rest.find("#", start)
    ending = "\n" if rest.endswith("\n") else ""
    return f" {rest[comment:].rstrip()}{ending}" if comment >= 0 else ending
