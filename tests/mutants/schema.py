"""The safety gate with every mutant in one text, and with every decision's truth recorded: safety.c, rewritten.

`mutated()` gives C in which a global `mutant` chooses one change; 0 is the gate as it is. `recorded()` gives C that
tells `record_truth()` the truth of each condition of each decision that has more than one. Contracts are comments and
drop out. All operands are evaluated, once, which is the same because the gate's expressions have no side effects.
"""

import itertools
import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pycparser import c_ast, c_generator, c_parser

from tests.tools.gate_source import gate_source

ROOT = Path(__file__).parents[2]

NAME = "safety.c"

# The compiler's own headers hold more than C; the gate needs these of them.
STDINT = """
typedef signed char int8_t; typedef unsigned char uint8_t; typedef int int32_t; typedef unsigned int uint32_t;
typedef long int64_t; typedef unsigned long uint64_t;
#define INT32_MAX 2147483647
#define INT32_MIN (-2147483647 - 1)
#define UINT8_MAX 255
"""
# What each operator could have been. For a comparison three others tell all mistakes of it.
OTHERS = {
    "<": ("x_ <= y_", "x_ != y_", "0"), ">": ("x_ >= y_", "x_ != y_", "0"), "<=": ("x_ < y_", "x_ == y_", "1"),
    ">=": ("x_ > y_", "x_ == y_", "1"), "==": ("x_ <= y_", "x_ >= y_", "0"), "!=": ("x_ < y_", "x_ > y_", "1"),
    "&&": ("x_ || y_", "x_", "y_"), "||": ("x_ && y_", "x_", "y_"),
    "+": ("x_ - y_",), "-": ("x_ + y_",), "*": ("x_ + y_",), "/": ("x_ * y_",),
    "&": ("x_ | y_",), "|": ("x_ & y_",), "<<": ("x_ >> y_",), ">>": ("x_ << y_",),
}  # fmt: skip
# `x <= c - 1` is `x < c`: one mutant and not two.
SAME_EDGE = {"<": "+ 1", "<=": "- 1", ">": "- 1", ">=": "+ 1"}
NUMBERS = {"int", "int32_t", "int64_t", "uint32_t", "uint64_t"}
# Fields that a slip of the pen takes for each other.
TWINS = [
    ("charge_w_max", "discharge_w_max"), ("charge_ma_max", "discharge_ma_max"), ("charge_ok", "discharge_ok"),
    ("soc_min_cpct", "soc_max_cpct"), ("temp_min_ddegc", "temp_max_ddegc"), ("cell_mv_min", "cell_mv_max"),
    ("ramp_go_w_per_s", "ramp_stop_w_per_s"), ("go_w_per_s", "stop_w_per_s"), ("lo_w", "hi_w"), ("ma", "own_ma"),
    ("ma_bit", "w_bit"), ("lo", "hi"), ("soc_room", "cell_room"), ("active", "latched"), ("latches", "trips"),
    ("debounce_ms", "clear_ms"), ("last_arm", "last_ack"), ("arm", "ack"), ("valid", "required"),
]  # fmt: skip
# Sets of rows: no numbers, so nothing can be added to them.
SETS = ("response.active", "response.latched", "input->faults")
TWIN = dict(TWINS) | {two: one for one, two in TWINS}


@dataclass(frozen=True)
class Mutant:
    number: int
    function: str
    line: int
    was: str
    now: str
    around: str  # the expression that a bare constant or argument stands in
    nth: int  # of those that read the same

    def __str__(self) -> str:
        return f"{self.number} {self.function}:{self.line} `{self.was}` -> `{self.now}`"

    @property
    def name(self) -> str:
        """What it is called in the list of survivors: no number and no line, which move."""
        place = f" in {self.around}" if self.around else ""
        return f"{self.function}: {self.was} -> {self.now}{place}" + (f" ({self.nth})" if self.nth > 1 else "")


def parsed(source: str) -> c_ast.FileAST:
    """The gate (its C text) without comments, macros expanded."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "stdint.h").write_text(STDINT)
        (Path(folder) / NAME).write_text(source)
        call = ["gcc", "-E", "-nostdinc", f"-I{folder}", f"-I{ROOT / 'ext'}", NAME]
        text = subprocess.run(call, check=True, capture_output=True, text=True, cwd=folder).stdout
    return c_parser.CParser().parse(text, NAME)


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def numbers_of(function: c_ast.FuncDef) -> dict[str, str]:
    """The integers that a function declares, parameters first: name -> type."""
    found: dict[str, str] = {}

    class Declared(c_ast.NodeVisitor):  # type: ignore[misc]
        def visit_Decl(self, node: c_ast.Decl) -> None:
            kind = node.type.type if isinstance(node.type, c_ast.TypeDecl) else None
            if isinstance(kind, c_ast.IdentifierType) and kind.names[0] in NUMBERS:
                found[node.name] = kind.names[0]
            self.generic_visit(node)

    Declared().visit(function)
    return found


class Writer(c_generator.CGenerator):
    """Writes the functions of the gate again; what changes them comes in the classes below."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.plain = c_generator.CGenerator()
        self.function = ""
        self.numbers: dict[str, str] = {}
        self.source = source

    def whole(self) -> str:
        parts = ['#include "safety/safety.h"', self.head()]
        for node in parsed(self.source).ext:
            if str(node.coord.file).endswith(NAME) and not isinstance(node, c_ast.StaticAssert):
                parts.append(self.visit(node) + ("" if isinstance(node, c_ast.FuncDef) else ";"))
        return "\n".join(parts) + "\n"

    def head(self) -> str:
        return ""

    def visit_FuncDef(self, node: c_ast.FuncDef) -> str:
        self.function = node.decl.name
        self.numbers = numbers_of(node)
        text = self.plain.visit(node.decl) + "\n" + self.visit(node.body)
        self.function = ""
        return text


class Mutator(Writer):
    def __init__(self, source: str) -> None:
        super().__init__(source)
        self.mutants: list[Mutant] = []
        self.parameters: set[str] = set()
        self.seen: dict[tuple[str, ...], int] = {}
        self.around = ""
        self.edge = ""  # step of a bound that is the same mistake as another operator

    def head(self) -> str:
        return "#ifdef FIXED\n#define mutant FIXED\n#else\nint mutant;\n#endif"

    def visit_FuncDef(self, node: c_ast.FuncDef) -> str:
        self.parameters = {param.name for param in node.decl.type.args.params}
        return super().visit_FuncDef(node)

    def one(self, node: c_ast.Node, was: str, now: str) -> int:
        line = node.coord.line if node.coord else 0
        text = (self.function, flat(was), flat(now), self.around)
        self.seen[text] = self.seen.get(text, 0) + 1
        number = len(self.mutants) + 1
        self.mutants.append(Mutant(number, self.function, line, *text[1:], self.seen[text]))
        return len(self.mutants)

    def choice(self, node: c_ast.Node, was: str, written: str, others: Iterable[tuple[str, str]]) -> str:
        """`written`, or one of the others; each (as people read it, as it is compiled)."""
        text = written
        for shown, code in others:
            text = f"(mutant == {self.one(node, was, shown)} ? ({code}) : {text})"
        return text

    def visit_BinaryOp(self, node: c_ast.BinaryOp) -> str:
        left, right, was = self.plain.visit(node.left), self.plain.visit(node.right), self.plain.visit(node)
        operand = {"x_": f"({left})", "y_": f"({right})"}
        shown = [re.sub(r"\b[xy]_", lambda found: operand[found[0]], to) for to in OTHERS[node.op]]
        first = self.operand(node.left, "", was)
        second = self.operand(node.right, SAME_EDGE.get(node.op, ""), was)
        inside = f"__auto_type x_ = ({first}); __auto_type y_ = ({second});"
        others = list(zip(shown, OTHERS[node.op], strict=True))
        return f"({{ {inside} {self.choice(node, was, f'(x_ {node.op} y_)', others)}; }})"

    def operand(self, node: c_ast.Node, edge: str, around: str) -> str:
        bare = isinstance(node, c_ast.Constant | c_ast.ID)
        self.edge, self.around = (edge, flat(around)) if bare else ("", "")
        text: str = self.visit(node)
        self.edge = self.around = ""
        return text

    def visit_UnaryOp(self, node: c_ast.UnaryOp) -> str:
        if node.op in ("!", "-") and not isinstance(node.expr, c_ast.Constant):
            inner = self.visit(node.expr)
            was, bare = self.plain.visit(node), self.plain.visit(node.expr)
            chosen = self.choice(node, was, f"({node.op}x_)", [(bare, "x_")])
            return f"({{ __auto_type x_ = ({inner}); {chosen}; }})"
        if node.op in ("p++", "p--"):
            kept = self.plain.visit(node)
            back = kept.replace("++", "--") if node.op == "p++" else kept.replace("--", "++")
            return self.choice(node, kept, f"({kept})", [(back, back)])
        if node.op == "&":
            return self.plain.visit(node)
        text: str = super().visit_UnaryOp(node)
        return text

    def visit_Constant(self, node: c_ast.Constant) -> str:
        value: str = node.value
        if not self.function:
            return value
        wide = f"{value}LL" if value == "2147483647" else value  # one more must be a number, not an overflow
        steps = [step for step in ("+ 1", "- 1") if step != self.edge]
        return self.choice(node, value, value, [(f"{value} {step}", f"{wide} {step}") for step in steps])

    def visit_ID(self, node: c_ast.ID) -> str:
        name: str = node.name
        if self.function and re.match(r"(REACTION|VALID|LIMIT)_", name):
            steps = ["+ 1", "- 1"] if name.startswith("R") else ["<< 1", ">> 1"]
            return self.choice(node, name, name, [(f"{name} {step}",) * 2 for step in steps if step != self.edge])
        if name not in self.numbers:
            return name
        alike = [other for other, kind in self.numbers.items() if kind == self.numbers[name]]
        others = [f"{name} + 1"]
        if self.is_parameter(name):  # which has a value all along, as its neighbour has
            others += [other for other in alike[alike.index(name) + 1 :] + alike if self.is_parameter(other)][:1]
        return self.choice(node, name, name, [(to, to) for to in others if to != name])

    def is_parameter(self, name: str) -> bool:
        return name in self.parameters

    def visit_StructRef(self, node: c_ast.StructRef) -> str:
        plain: str = self.plain.visit(node)
        field: str = node.field.name
        others = [] if field == "rows" or plain in SETS else [f"{plain} + 1"]
        if field in TWIN and plain != "row->latched":  # a row of the table has no `active`
            others.append(plain[: len(plain) - len(field)] + TWIN[field])
        return self.choice(node, plain, plain, [(to, to) for to in others])

    def visit_FuncCall(self, node: c_ast.FuncCall) -> str:
        args = ", ".join(self.operand(arg, "", self.plain.visit(node)) for arg in node.args.exprs)
        return f"{node.name.name}({args})"

    def visit_TernaryOp(self, node: c_ast.TernaryOp) -> str:
        cond = self.plain.visit(node.cond)
        known = OTHERS.get(getattr(node.cond, "op", ""), ())  # a comparison has been one of them already
        chosen = self.choice(
            node.cond, cond, f"({self.visit(node.cond)})", [(to, to) for to in ("1", "0") if to not in known]
        )
        return f"({chosen} ? ({self.visit(node.iftrue)}) : ({self.visit(node.iffalse)}))"

    def visit_Assignment(self, node: c_ast.Assignment) -> str:
        left, op = self.plain.visit(node.lvalue), node.op
        right = self.visit(node.rvalue)
        if op == "=":
            return f"{left} = {right}"
        was = self.plain.visit(node)
        others = [(f"{left} = {self.plain.visit(node.rvalue)}", f"{left} = r_")]
        if op == "|=":
            others.append((was.replace("|=", "&="), f"{left} &= r_"))
        return f"({{ __auto_type r_ = ({right}); {self.choice(node, was, f'({left} {op} r_)', others)}; }})"

    def visit_If(self, node: c_ast.If) -> str:
        cond = self.plain.visit(node.cond)
        chosen = self.choice(
            node.cond, f"if ({cond})", f"({self.visit(node.cond)})", [(f"if (!({cond}))", f"!({cond})")]
        )
        text = f"if ({chosen})\n{{ {self._generate_stmt(node.iftrue, add_indent=True)} }}"
        if node.iffalse is not None:
            text += f" else {{ {self._generate_stmt(node.iffalse, add_indent=True)} }}"
        return text

    def visit_For(self, node: c_ast.For) -> str:
        head = f"{self.visit(node.init)}; {self.visit(node.cond)}; {self.visit(node.next)}"
        return f"for ({head}) {{ {self._generate_stmt(node.stmt, add_indent=True)} }}"

    def visit_Cast(self, node: c_ast.Cast) -> str:
        return f"(({self.plain.visit(node.to_type)})({self.visit(node.expr)}))"

    def visit_Compound(self, node: c_ast.Compound) -> str:
        lines = []
        for item in node.block_items or ():
            if isinstance(item, c_ast.Assignment | c_ast.FuncCall | c_ast.UnaryOp):
                was = self.plain.visit(item)
                lines.append(f"if (mutant != {self.one(item, was, 'left out')}) {{ {self.visit(item)}; }}")
            else:
                lines.append(self._generate_stmt(item))
        return "{\n" + "\n".join(lines) + "\n}\n"


def conditions(node: c_ast.Node) -> list[c_ast.Node]:
    """The leaves of a decision, in the order of the text."""
    if isinstance(node, c_ast.BinaryOp) and node.op in ("&&", "||"):
        return conditions(node.left) + conditions(node.right)
    if isinstance(node, c_ast.UnaryOp) and node.op == "!" and isinstance(node.expr, c_ast.BinaryOp):
        return conditions(node.expr)
    return [node]


@dataclass(frozen=True)
class Decision:
    number: int
    function: str
    line: int
    text: str
    count: int


class Recorder(Writer):
    def __init__(self, source: str) -> None:
        super().__init__(source)
        self.decisions: list[Decision] = []

    def head(self) -> str:
        return "static int record_truth(int number, unsigned truth, int outcome);"

    def visit_BinaryOp(self, node: c_ast.BinaryOp) -> str:
        if node.op not in ("&&", "||") or not self.function:
            text: str = super().visit_BinaryOp(node)
            return f"({text})"
        leaves = conditions(node)
        line = node.coord.line if node.coord else 0
        number = len(self.decisions)
        self.decisions.append(Decision(number, self.function, line, flat(self.plain.visit(node)), len(leaves)))
        declared = " ".join(f"const int c{i} = ({self.visit(leaf)}) != 0;" for i, leaf in enumerate(leaves))
        names = itertools.count()
        outcome = self._over(node, names)
        truth = " | ".join(f"(unsigned)c{i} << {i}" for i in range(len(leaves)))
        return f"({{ {declared} record_truth({number}, {truth}, {outcome}); }})"

    def _over(self, node: c_ast.Node, names: Iterable[int]) -> str:
        if isinstance(node, c_ast.BinaryOp) and node.op in ("&&", "||"):
            left = self._over(node.left, names)
            return f"({left} {node.op} {self._over(node.right, names)})"
        if isinstance(node, c_ast.UnaryOp) and node.op == "!" and isinstance(node.expr, c_ast.BinaryOp):
            return f"!{self._over(node.expr, names)}"
        return f"c{next(iter(names))}"


def mutated() -> tuple[str, list[Mutant]]:
    """(C text, its mutants by number from 1)."""
    writer = Mutator(gate_source())
    return writer.whole(), writer.mutants


def recorded() -> tuple[str, list[Decision]]:
    """(C text that calls `record_truth(number, truth, outcome)`, the decisions with more than one condition)."""
    writer = Recorder(gate_source())
    return writer.whole(), writer.decisions
