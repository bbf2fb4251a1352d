"""The extern blocks of the .pxd files, made from the headers that own the structs.

Run: make pxd (or python tests/tools/pxd.py; --check changes nothing and fails where one is not current)
A block stands between two marker lines that name its header, as `/* ext/abi/image.h */` does for image.pxd. What is
taken over, in the header's order: constants (`#define NAME number`), enumerators, structs with every field, tables of
words, functions. Macros with parameters and what is for C alone are left out; what a .pxd says beyond that stands
outside the markers.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from pycparser import c_ast, c_generator, c_parser

ROOT = Path(__file__).parents[2]
EXT = ROOT / "ext"
BEGIN = re.compile(r"^# >> generated from (\S+) by `make pxd`; change the header, not this$", re.MULTILINE)
END = "# << end of what is generated"

# What the compiler's own headers would say, as far as ours use them.
SYSTEM = """
typedef signed char int8_t; typedef unsigned char uint8_t; typedef short int16_t; typedef unsigned short uint16_t;
typedef int int32_t; typedef unsigned int uint32_t; typedef long int64_t; typedef unsigned long uint64_t;
typedef unsigned long size_t; typedef long ssize_t;
#define offsetof(type, member) 0
#define __attribute__(x)
#define NULL 0
"""
SYSTEM_HEADERS = ("stdint.h", "stddef.h", "string.h", "unistd.h", "math.h", "linux/futex.h", "sys/syscall.h")
DEFINE = re.compile(r"^#define (\w+)[ \t]+([-+(]?[.\d][\w.+() <|-]*?)[ \t]*(?=/\*|$)", re.MULTILINE)
# Fields that Python must not see: dict(struct) shows every field that is declared.
HIDDEN = {("slave_stats_t", "pad")}
WIDTH = 120


def constants(text: str) -> dict[str, str]:
    """name -> value of every `#define` of a number."""
    return {name: value for name, value in DEFINE.findall(text)}


def is_float(value: str) -> bool:
    return "." in value and not value.lower().startswith("0x")


def kept(match: re.Match[str]) -> str:
    """A number's macro as a declaration, so that its name survives the preprocessor in array bounds."""
    name, value = match[1], match[2]
    return f"static const double {name} = {value};" if is_float(value) else f"enum {{ {name} = {value} }};"


def parsed(header: str) -> c_ast.FileAST:
    """The header and all that it includes, system headers replaced by what ours need of them."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for path in EXT.rglob("*.h"):
            target = work / path.relative_to(EXT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(DEFINE.sub(kept, path.read_text()))
        for name in SYSTEM_HEADERS:
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_text("")
        (work / "all.c").write_text(f'{SYSTEM}#include "{header}"\n')
        call = ["gcc", "-E", "-nostdinc", "-I.", "all.c"]
        text = subprocess.run(call, check=True, capture_output=True, text=True, cwd=work).stdout
    return c_parser.CParser().parse(text, header)


class Block:
    """Writes the declarations of one header as Cython reads them."""

    def __init__(self, header: str) -> None:
        self.header = header
        self.macros = constants((EXT / header).read_text())
        self.c = c_generator.CGenerator()
        self.parts: list[list[str]] = []

    def text(self) -> str:
        for node in parsed(self.header).ext:
            if node.coord and str(node.coord.file).removeprefix("./") == self.header:
                self.add(node)
        body = "\n".join("\n".join(f"    {line}".rstrip() for line in part) + "\n" for part in self.parts)
        return f'cdef extern from "{self.header}" nogil:\n{body}'

    def add(self, node: c_ast.Node) -> None:
        if isinstance(node, c_ast.Typedef):
            self.parts.append(self.struct(node))
        elif isinstance(node, c_ast.FuncDef):
            self.append_line(self.function(node.decl))
        elif isinstance(node, c_ast.Decl):
            self.declaration(node)

    def declaration(self, node: c_ast.Decl) -> None:
        if isinstance(node.type, c_ast.Enum):
            names = [item.name for item in node.type.values.enumerators]
            if set(names) <= self.macros.keys():
                wide = int(eval_int(self.macros[names[0]])) > 0x7FFFFFFF
                self.constant(names[0], "uint64_t" if wide else "")
            else:
                self.parts.append(["enum:", *(f"    {name}" for name in names)])
        elif isinstance(node.type, c_ast.FuncDecl):
            self.append_line(self.function(node))
        elif node.name in self.macros:
            self.constant(node.name, "double")
        else:  # a table of words
            self.append_line(self.declared(node))

    def constant(self, name: str, kind: str) -> None:
        line = f"const {kind} {name}" if kind else f"    {name}"
        if not kind and self.parts and self.parts[-1][0] == "enum:" and self.parts[-1][1].strip() in self.macros:
            self.parts[-1].append(line)
        else:
            self.parts.append([line] if kind else ["enum:", line])

    def append_line(self, line: str) -> None:
        """One line more in a group of lines that stand together."""
        lines = wrapped(line)
        if self.parts and self.parts[-1][0].endswith("noexcept") and line.endswith("noexcept"):
            self.parts[-1] += lines
        else:
            self.parts.append(lines)

    def declared(self, node: c_ast.Node) -> str:
        node.storage, node.funcspec = [], []
        text = self.c.visit(node).split(" = ")[0]
        return re.sub(r"\*\s*const\b\s*", "*", text)

    def function(self, node: c_ast.Decl) -> str:
        return self.declared(node).replace("(void)", "()") + " noexcept"

    def struct(self, node: c_ast.Typedef) -> list[str]:
        lines = [f"ctypedef struct {node.name}:"]
        last: tuple[str, int] | None = None
        for field in node.type.type.decls:
            if (node.name, field.name) in HIDDEN:
                continue
            text = self.c.visit(field)
            plain = isinstance(field.type, c_ast.TypeDecl)
            group = (text.rsplit(" ", 1)[0], field.coord.line) if plain else None
            if group and group == last and len(lines[-1]) + len(field.name) + 6 < WIDTH:
                lines[-1] += f", {field.name}"
            else:
                lines.append(f"    {text}")
            last = group
        return lines


def wrapped(line: str) -> list[str]:
    """A declaration in lines that are not too long."""
    if len(line) + 4 <= WIDTH:
        return [line]
    at = line.rfind(", ", 0, WIDTH - 4)
    return [line[: at + 1], *wrapped(" " * (line.index("(") + 1) + line[at + 2 :])]


def eval_int(value: str) -> int:
    """A C integer expression of literals, shifts and brackets."""
    plain = re.sub(r"(?<=[\da-fA-F])[uUlL]+\b", "", value)
    if not re.fullmatch(r"[\dxa-fA-F ()<|+-]+", plain):
        raise ValueError(f"{value!r} is no plain integer")
    return int(eval(plain, {"__builtins__": {}}))


def current(text: str) -> str:
    """The text of a .pxd with its blocks made anew."""
    parts, at = [], 0
    for begin in BEGIN.finditer(text):
        end = text.find(END, begin.end())
        if end < 0:
            raise ValueError(f"the block of {begin[1]} has no end marker")
        parts += [text[at : begin.end()], "\n", Block(begin[1]).text()]
        at = end
    return "".join(parts) + text[at:]


def blocks() -> dict[Path, list[str]]:
    """Every .pxd with the headers that it takes a block from."""
    found = {path: BEGIN.findall(path.read_text()) for path in sorted(EXT.rglob("*.pxd"))}
    return {path: headers for path, headers in found.items() if headers}


def stale() -> list[Path]:
    """The files whose blocks are not what their headers say."""
    return [path for path in blocks() if current(path.read_text()) != path.read_text()]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, fail where a block is not current")
    check = parser.parse_args().check
    found = stale()
    for path in found:
        print(f"{path.relative_to(ROOT)}: {'not current; run make pxd' if check else 'made anew'}")
        if not check:
            path.write_text(current(path.read_text()))
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main())
