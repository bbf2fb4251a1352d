"""Every command that a page or a message names can be typed: it is parsed by what would run it, and not run."""

import ast
import functools
import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from tidegate.config.site import Site
from tidegate.runtime.cli.main import main
from tidegate.runtime.console.commands import FORMS, grammar
from tidegate.runtime.console.grammar import GrammarError

ROOT = Path(__file__).resolve().parent.parent
HOLE = "HOLE"  # what an f-string or a template fills in
ROOMS = ("config", "hal", "runtime")
PROSE = re.compile(r"[A-Z][A-Z0-9_]*|\.\.\.|HOLE")  # a word that the reader replaces
NO_COMMANDS = ("tidegate factors ", "tidegate carbon block")  # the head of a factor file; what a signature is for


class Named(NamedTuple):
    """A text in which something may be named. place: file and line. code: it is code, not prose."""

    place: str
    text: str
    code: bool


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def page_texts(page: Path) -> Iterator[Named]:
    """Lines of fenced blocks (continued ones joined) and code spans of a page."""
    name, fenced, held = page.relative_to(ROOT), False, ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        place = f"{name}:{number}"
        if line.startswith("```"):
            fenced = not fenced
        elif fenced:
            held += line.removesuffix("\\")
            if not line.endswith("\\"):
                yield Named(place, re.sub(r"^[$#] ", "", held.strip()), True)
                held = ""
        else:
            for span in re.findall(r"`([^`]+)`", line):
                yield Named(place, span, True)


def literal(node: ast.AST) -> str | None:
    """The text of a string, the filled parts of an f-string as HOLE."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(part) or HOLE for part in node.values)
    return None


def source_texts(path: Path) -> Iterator[Named]:
    """Every string of a Python file, f-strings whole."""
    inner: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        text = literal(node)
        if text is None or id(node) in inner:
            continue
        inner |= {id(child) for child in ast.walk(node)}
        yield Named(f"{path.relative_to(ROOT)}:{node.lineno}", text, False)  # type: ignore[attr-defined]


def other_texts() -> Iterator[Named]:
    """Lines of data files, templates and packaging."""
    found = [*(ROOT / "config").rglob("*.toml"), *(ROOT / "hal").rglob("*.toml"), *(ROOT / "runtime").rglob("*.j2"),
             *(ROOT / "packaging").glob("debian/*"), *(ROOT / "packaging").glob("systemd/*")]  # fmt: skip
    for path in sorted(found):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            yield Named(f"{path.relative_to(ROOT)}:{number}", re.sub(r"\{\{.*?\}\}", HOLE, line), False)


def sources() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


@functools.cache
def texts() -> list[Named]:
    """All that a reader of pages, help and messages may see."""
    found = [one for page in pages() for one in page_texts(page)]
    found += [one for path in sources() for one in source_texts(path)]
    return [*found, *other_texts()]


# ---- command lines of tidegate ----


def command_lines(named: Named) -> Iterator[str]:
    """What stands behind `tidegate ` in a text: to the end of its line or code span, in prose to its punctuation."""
    spans = [named.text] if named.code else [*re.findall(r"`([^`]+)`", named.text), re.sub(r"`[^`]+`", "", named.text)]
    for span in spans:
        for line in span.splitlines():
            for match in re.finditer(r"(?:^|(?<=[\s;(]))(?<!-u )tidegate ((?:-|[a-z])[^;|&>#)]*)", line):
                if named.code and not span.startswith(("tidegate ", "runuser ")):
                    continue
                words = match[1].strip()
                if match[0].startswith(NO_COMMANDS):
                    continue
                yield (
                    words
                    if named.code or span is not spans[-1]
                    else re.split(r"[,:.]\s|[,:.]$|, | to | for ", words)[0]
                )


def walk(words: list[str]) -> str:
    """What is wrong with the words of a command line, "" if nothing is. Follows the real groups; runs nothing."""
    command: click.Command = main
    ctx = click.Context(main, info_name="tidegate")
    while isinstance(command, click.Group):
        try:
            _, rest, _ = command.make_parser(ctx).parse_args(list(words))
        except click.UsageError as error:
            return error.format_message()
        if not rest or rest[0] == "...":
            return ""
        try:
            _, child, rest = command.resolve_command(ctx, rest)
        except click.UsageError as error:
            return error.format_message()
        assert child is not None
        command, words = child, rest
        ctx = click.Context(command, info_name=command.name, parent=ctx)
    if not words:
        return ""  # the command is named, not shown
    words = [word for word in words if word != "..."]
    try:
        values, rest, _ = command.make_parser(ctx).parse_args(words)
    except click.UsageError as error:
        return error.format_message()
    if rest:
        return f"takes no further argument: {' '.join(rest)}"
    return "; ".join(filter(None, (unfit(param, values.get(param.name or ""), ctx) for param in command.params)))


def unfit(param: click.Parameter, value: object, ctx: click.Context) -> str:
    """Why a value is none for its parameter. Only choices and numbers are looked at: files need not be there."""
    given = value if isinstance(value, list | tuple) else [value]
    if isinstance(param.type, click.Path | click.File):
        return ""
    for one in given:
        if isinstance(one, str) and not any(PROSE.fullmatch(part) for part in re.split(r"[=:,/]", one)):
            try:
                param.type.convert(one, param, ctx)
            except click.UsageError as error:
                return error.format_message()
    return ""


def test_every_command_line_in_pages_help_and_messages_parses() -> None:
    wrong, count = [], 0
    for named in texts():
        for line in command_lines(named):
            count += 1
            plain = re.sub(r"\[([^\]]*)\]", r"\1", line)
            try:
                words = shlex.split(plain)
            except ValueError:
                words = plain.split()
            if why := walk(words):
                wrong.append(f"{named.place}: tidegate {line}: {why}")
    assert count > 150
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "line",
    ["devices show MAP more", "nosuch", "set setpoint 5kX", "set stpo", "run SITE --cpus 3", "carbon reprot", "get -e"],
)
def test_a_line_that_cannot_be_typed_is_found(line: str) -> None:
    assert walk(line.split())


# ---- the console ----


def console_lines() -> Iterator[tuple[str, str]]:
    """(place, line) of what docs/console.md says can be typed, and docs/troubleshooting.md as a remedy."""
    table = False
    for number, line in enumerate((ROOT / "docs/console.md").read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("## "):
            table = line == "## Commands"
        if table and line.startswith("| `"):
            for span in re.findall(r"`([^`]+)`", line.split("|")[1]):
                yield f"docs/console.md:{number}", span


def test_every_console_command_of_its_page_is_one() -> None:
    found = list(console_lines())
    forms = {form.text for form in FORMS}
    wrong = []
    for place, text in found:
        typed = re.sub(r"\[[^\]]*\]", "", text).strip()
        begins = any(form.startswith(text) for form in forms)
        if text in forms or begins:
            continue
        try:
            grammar().parse(typed)
        except GrammarError as error:
            wrong.append(f"{place}: {text}: {error}")
    assert len(found) > 15
    assert not wrong, "\n".join(wrong)


# ---- make, modules, keys of the site file ----


def test_every_make_target_that_a_page_or_message_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    wrong = []
    for named in texts():
        spans = [named.text] if named.code else re.findall(r"`([^`]+)`", named.text)
        for span in spans:
            for target in re.findall(r"(?:^|&& |\$ )make ([a-z-]+)", span):
                if target not in targets:
                    wrong.append(f"{named.place}: make {target}")
    assert targets and not wrong, "\n".join(wrong)


def test_every_module_that_a_page_or_message_runs_can_be_found() -> None:
    run = re.compile(r"python3? -m (tidegate[\w.]*)")
    names = {(named.place, name) for named in texts() for name in run.findall(named.text)}
    wrong = [f"{place}: {name}" for place, name in sorted(names) if importlib.util.find_spec(name) is None]
    assert names and not wrong, "\n".join(wrong)


def schema_keys() -> dict[str, set[str]]:
    """Table of the site file -> its keys, from the schema."""
    schema = Site.model_json_schema()
    found: dict[str, set[str]] = {}
    for table, row in schema["properties"].items():
        for ref in re.findall(r'"#/\$defs/(\w+)"', json.dumps(row)):
            found.setdefault(table, set()).update(schema["$defs"][ref].get("properties", {}))
    return found


def test_every_key_of_a_table_of_the_site_file_that_is_named_exists() -> None:
    tables = schema_keys()
    pattern = re.compile(r"\[{1,2}([a-z_]+)\]{1,2} ([a-z]+(?:_[a-z0-9]+)*)(?=( =)|[\s,;:.)`'\"]|$)")
    wrong, count = [], 0
    for named in texts():
        for span in [named.text] if named.code else named.text.splitlines():
            for table, key, assigned in pattern.findall(span):
                if table in tables and (assigned or "_" in key or named.code):
                    count += 1
                    if key not in tables[table]:
                        wrong.append(f"{named.place}: [{table}] {key}")
    assert count > 10
    assert not wrong, "\n".join(wrong)
