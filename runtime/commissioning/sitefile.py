"""Measured values into a site file: lines are edited, comments stay."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from tidegate.config.site import SiteError, read_site_text
from tidegate.runtime.commissioning.new_file import EXIT_CANNOT_WRITE, replace
from tidegate.runtime.commissioning.prompts import SetupError
from tidegate.runtime.supervisor.preflight import prepare

FORMER_KEYS = {("commissioning", "report"): "protocol"}


def edited(text: str, tables: Mapping[str, Mapping[str, object]], devices: Mapping[str, Mapping[str, object]]) -> str:
    """The text with keys set. tables: table -> key -> value; devices: device name -> key -> value.

    Raises SetupError if the text is no TOML, or a device is not in it.
    """
    try:
        document = tomlkit.parse(text)
    except TOMLKitError as error:
        raise SetupError(f"the site file is not TOML any more: {error}", 65) from None
    for name, values in tables.items():
        if name not in document:
            document.add(tomlkit.nl())
            document.add(name, tomlkit.table())
        for key, value in values.items():
            document[name][key] = _inline(value) if isinstance(value, dict) else value
            document[name].pop(FORMER_KEYS.get((name, key), ""), None)
    for name, values in devices.items():
        rows = [row for row in document.get("device", []) if row.get("name") == name]
        if len(rows) != 1:
            raise SetupError(f"the site file has no device named {name!r} any more", 65)
        for key, value in values.items():
            rows[0][key] = value
    return tomlkit.dumps(document)


def _inline(values: Mapping[str, object]) -> object:
    """A table of values that stays in its line: a table of its own would end the one around it."""
    table = tomlkit.inline_table()
    table.update({key: _inline(one) if isinstance(one, Mapping) else one for key, one in values.items()})
    return table


def write(path: Path, before: str, text: str) -> Path:
    """Put the text in the place of the file if that still says `before`, and if it is a site that may start.

    Gives the path of the copy of the old one. Raises SetupError; the file is then as it was.
    """
    try:
        now = read_site_text(path)
    except SiteError as why:
        raise SetupError(f"{path}: {why.problems[0]}", why.exit_code) from None
    if now != before:
        raise SetupError(f"{path}: changed while it was measured; nothing was written", EXIT_CANNOT_WRITE)
    try:
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".toml")
    except OSError as error:
        raise SetupError(
            f"{path}: cannot be written: {error.strerror}; nothing was changed", EXIT_CANNOT_WRITE
        ) from None
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        prepare(Path(name))
    except SiteError as why:
        raise SetupError(f"{path}: with the measured values: {why.problems[0]}", why.exit_code) from None
    except OSError as error:
        raise SetupError(
            f"{path}: cannot be written: {error.strerror}; nothing was changed", EXIT_CANNOT_WRITE
        ) from None
    finally:
        Path(name).unlink(missing_ok=True)
    return replace(path, text)
