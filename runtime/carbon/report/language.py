"""The languages of a report: gettext catalogues (`locale/*.po`), plurals and numbers by Babel.

English stands in the code and is the message's id; `locale/zh.po` has Chinese, `locale/de.po` German. They are read as
they are, so that an installation needs no compiled copy.
`python -m tidegate.runtime.carbon.report.language` brings them in line with the code: it adds what is new, without a
translation, and drops what is no longer said.
"""

import ast
import gettext
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from babel import Locale
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po
from babel.numbers import NumberPattern, parse_pattern

FOLDER = Path(__file__).parent / "locale"
SOURCE = "en"
LANGUAGES = (SOURCE, "zh", "de")

Message = str | tuple[str, str]  # a sentence, or (one, many)


def N_(text: str) -> str:
    """Marks a sentence that is translated where it is shown."""
    return text


# Nodes, origins and words of the ledger as a reader calls them; what is not here is shown as it is.
NAMES: Mapping[str, str] = {
    "grid": N_("grid"), "it": N_("IT"), "it (all)": N_("IT (all)"), "cooling": N_("cooling"),
    "lighting": N_("lighting"), "other": N_("other"), "pv": N_("pv"), "generator": N_("generator"),
    "export": N_("export"), "residual": N_("residual, unmetered"), "unmetered": N_("unmetered inflow"),
    "opening": N_("opening stock"), "unknown": N_("unknown origin"), "storage": N_("storage"),
    "good": N_("good"), "estimated": N_("estimated"), "substituted": N_("substituted"), "edited": N_("edited"),
    "bad": N_("bad"), "missing": N_("missing"), "actual": N_("actual"), "forecast": N_("forecast"), "held": N_("held"),
    "fallback": N_("fallback"), "job": N_("job"), "gpu_hour": N_("GPU-hour"), "token": N_("token"),
    "request": N_("request"), "average": N_("average"), "fifo": N_("fifo"), "priority": N_("priority"),
    "card": N_("card"), "server": N_("server"), "rack": N_("rack"), "default": N_("default"),
    "alternative": N_("alternative"), "annual": N_("annual"), "interim": N_("interim"), "constant": N_("constant"),
    "at_charge": N_("at charge"), "carry": N_("carried"), "expense": N_("expensed"),
}  # fmt: skip

# Sentences that stand in ledgers, as the booking wrote them.
WRITTEN = (
    N_("no meter of the IT load: it is what grid, generation and storage leave after the metered loads, and a residual "
       "cannot show"),
    N_("register"), N_("integral"), N_("edited"), N_("none"), N_("register over flat shape"),
    N_("register over linear shape"), N_("register over like day"),
    N_("Metered energy is the whole; software energy or reserved time gives the shares only. With room: times the "
       "carbon of the whole site over that of its IT load. SCI as ISO/IEC 21031 has it needs embodied_kg and slots in "
       "the site file."),
)  # fmt: skip


@cache
def catalogue(code: str) -> Catalog:
    """The messages of a language. Raises OSError if there is no catalogue of it."""
    with (FOLDER / f"{code}.po").open("rb") as file:
        return read_po(file, locale=code)


@cache
def _pattern(digits: int) -> NumberPattern:
    return parse_pattern("#,##0" + ("." + "0" * digits if digits else ""))


class Language:
    """One language of a report. Raises OSError for one that has no catalogue."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.locale = Locale.parse(code)
        self._plural = gettext.c2py("n != 1" if code == SOURCE else catalogue(code).plural_expr)
        self._known: dict[Message, str | tuple[str, ...]] = {}
        if code != SOURCE:
            for message in catalogue(code):
                if message.id and message.string:
                    forms = message.string if isinstance(message.string, str) else tuple(message.string)
                    one_or_many = message.id
                    key = one_or_many if isinstance(one_or_many, str) else (one_or_many[0], one_or_many[1])
                    self._known[key] = forms

    def text(self, message: str) -> str:
        """A sentence in this language; one that no catalogue has (a name, an error) stays as it is."""
        found = self._known.get(message, message)
        return found if isinstance(found, str) else found[0]

    def plural(self, one: str, many: str, count: int) -> str:
        """The form for a number; {n} in it is the number."""
        forms = self._known.get((one, many), (one, many))
        return forms[int(self._plural(count))].format(n=self.number(count))

    def name(self, word: str) -> str:
        """A node or a word of the ledger as a reader calls it."""
        known = NAMES.get(word)
        return word if known is None else self.text(known)

    def number(self, value: float, digits: int = 0) -> str:
        """A number with grouped digits and fixed decimals."""
        return str(_pattern(digits).apply(value, self.locale))


# ---- keeping the catalogues in line with the code ----

CALLS = {"_": 1, "N_": 1, "text": 1, "plural": 2}


def messages_of(path: Path) -> Iterator[tuple[Message, int]]:
    """(message, line) of every sentence that a source file says, also inside f-strings."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        name = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
        values = [arg.value for arg in node.args[: CALLS.get(name, 0)] if isinstance(arg, ast.Constant)]
        texts = [text for text in values if isinstance(text, str)]
        if name == "plural" and len(texts) == 2:
            yield (texts[0], texts[1]), node.lineno
        elif name in CALLS and name != "plural" and len(texts) == 1:
            yield texts[0], node.lineno


def messages_in_code() -> dict[Message, list[tuple[str, int]]]:
    """Every sentence of the report's code, and where it is said."""
    found: dict[Message, list[tuple[str, int]]] = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        for message, line in messages_of(path):
            found.setdefault(message, []).append((path.name, line))
    return found


def update(code: str) -> None:
    """Bring a catalogue in line with the code."""
    path = FOLDER / f"{code}.po"
    before = catalogue(code) if path.exists() else None
    made = Catalog(
        locale=code, project="tidegate", version="0", fuzzy=False, header_comment="# Reports of the carbon account."
    )
    for message, places in messages_in_code().items():
        old = None if before is None else before.get(message)
        made.add(
            message,
            None if old is None else old.string,
            locations=[(name, 0) for name in sorted({p for p, _ in places})],
        )
    made.creation_date = made.revision_date = datetime(2026, 1, 1, tzinfo=UTC)  # equal code, equal bytes
    with path.open("wb") as file:
        write_po(file, made, sort_output=True, include_lineno=False, omit_header=False, width=110)


if __name__ == "__main__":
    for each in LANGUAGES[1:]:
        update(each)
